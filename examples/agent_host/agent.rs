//! Roles, skills and tools, and the actor that an agent is.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::wire::{Role, Skill, Tool};

/// The skill of asking whoever has begun the run.
pub(crate) const ASK: &str = "ask";

/// The skill of looking a task up in the memory.
pub(crate) const RECALL: &str = "recall";

/// Every role: name, purpose, skills.
const ROLES: [(&str, &str, &[&str]); 2] = [
    ("scribe", "Sums up what it is given, and what is remembered about it.", &[RECALL, "summarize"]),
    ("interviewer", "Asks back before it sums up.", &[ASK, "summarize"]),
];

/// Every skill: name, purpose, tool.
const SKILLS: [(&str, &str, Option<&str>); 3] = [
    (ASK, "Asks whoever has begun the run, and waits for the reply.", Some("reply")),
    (RECALL, "Adds the memory that fits the task best.", Some("search")),
    ("summarize", "Says how long a text is, and how it begins.", None),
];

/// Every tool: name, purpose.
const TOOLS: [(&str, &str); 2] = [
    ("reply", "Waits for `agents.reply`."),
    ("search", "Searches the memories, as `agents.search_memories` does."),
];

/// Returns every role.
pub(crate) fn roles() -> Vec<Role> {
    let role = |(name, about, skills): (&str, &str, &[&str])| Role {
        name: name.to_owned(),
        about: about.to_owned(),
        skills: skills.iter().map(ToString::to_string).collect(),
    };
    ROLES.map(role).to_vec()
}

/// Returns every skill.
pub(crate) fn skills() -> Vec<Skill> {
    let skill = |(name, about, tool): (&str, &str, Option<&str>)| Skill {
        name: name.to_owned(),
        about: about.to_owned(),
        tool: tool.map(ToOwned::to_owned),
    };
    SKILLS.map(skill).to_vec()
}

/// Returns every tool.
pub(crate) fn tools() -> Vec<Tool> {
    TOOLS.map(|(name, about)| Tool { name: name.to_owned(), about: about.to_owned() }).to_vec()
}

/// What an agent is asked for: a skill without a tool, on a text.
pub(crate) struct Perform {
    pub(crate) text: String,
    pub(crate) reply: RpcReplyPort<String>,
}

/// The agent of a role. A language model would be asked here.
pub(crate) struct Agent;

impl Actor for Agent {
    type Msg = Perform;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Perform>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Perform>,
        Perform { text, reply }: Perform,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let count = text.split_whitespace().count();
        let begin: Vec<&str> = text.split_whitespace().take(3).collect();
        // The run may have been canceled.
        _ = reply.send(format!("{count} words: {}", begin.join(" ")));
        Ok(())
    }
}
