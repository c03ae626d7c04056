//! What the host answers beside the methods of every daemon, as its clients see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xy_daemon::protocol::Method;
use xy_daemon::registry::{CatalogParams, CatalogResult};

/// Gives a method its name and its types.
macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident = $name:literal: $params:ty => $result:ty;)*) => {$(
        $(#[$doc])*
        pub(crate) enum $method {}

        impl Method for $method {
            const NAME: &'static str = $name;
            type Params = $params;
            type Result = $result;
        }
    )*};
}

methods! {
    /// Opens a session with an agent of a role.
    OpenSession = "agents.open_session": OpenSessionParams => SessionId;
    /// Closes a session, and cancels its runs.
    CloseSession = "agents.close_session": SessionId => ClosedSession;
    /// Lets the agent of a session begin with a task.
    StartRun = "agents.start_run": StartRunParams => RunId;
    /// Lists the runs, and says how many are active.
    ListRuns = "agents.runs": ListRunsParams => RunList;
    /// Gives a run what it has asked for.
    Reply = "agents.reply": ReplyParams => Done;
    /// Ends a run that is active.
    CancelRun = "agents.cancel_run": RunId => Done;
    /// Remembers a text.
    Remember = "agents.remember": RememberParams => MemoryId;
    /// Finds memories that have words of a question.
    SearchMemories = "agents.search_memories": SearchParams => Found;
    /// Forgets a memory.
    Forget = "agents.forget": MemoryId => Done;
}

/// Names a catalog, for clients.
macro_rules! catalogs {
    ($($catalog:ident = $name:literal: $item:ty;)*) => {$(
        #[doc = concat!("The catalog `", $name, "`.")]
        pub(crate) enum $catalog {}

        impl Method for $catalog {
            const NAME: &'static str = $name;
            type Params = CatalogParams;
            type Result = CatalogResult<$item>;
        }
    )*};
}

catalogs! {
    Sessions = "agents.sessions": Session;
    Memories = "agents.memories": Memory;
    Roles = "agents.roles": Role;
    Skills = "agents.skills": Skill;
    Tools = "agents.tools": Tool;
}

/// Nothing more than that it is done.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Done {}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenSessionParams {
    /// The name of a role.
    pub(crate) role: String,
}

/// Names a session.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionId {
    /// Its id.
    pub(crate) session: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ClosedSession {
    /// The runs that were still active.
    pub(crate) canceled: Vec<String>,
}

/// A session.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Session {
    /// Its id.
    pub(crate) id: String,
    /// The role of its agent.
    pub(crate) role: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRunParams {
    /// The session.
    pub(crate) session: String,
    /// What is to be done.
    pub(crate) prompt: String,
}

/// Names a run; `runs/RUN` is its path in the tree, and its events are those of that path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunId {
    /// Its id.
    pub(crate) run: String,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListRunsParams {
    /// Only those of this session.
    #[serde(default)]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RunList {
    /// How many of them are under way.
    pub(crate) active: usize,
    /// The runs, the oldest first.
    pub(crate) runs: Vec<Run>,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Run {
    /// Its id.
    pub(crate) id: String,
    /// Its session.
    pub(crate) session: String,
    /// Whether it is under way.
    pub(crate) is_active: bool,
    /// What it came to; one that is not active and has no answer was canceled or has failed.
    pub(crate) answer: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplyParams {
    /// The run.
    pub(crate) run: String,
    /// What it wants to know.
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RememberParams {
    /// The text.
    pub(crate) text: String,
}

/// Names a memory.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryId {
    /// Its number.
    pub(crate) memory: u64,
}

/// A memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Memory {
    /// Its number.
    pub(crate) id: u64,
    /// What is remembered.
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchParams {
    /// The words that are looked for.
    pub(crate) query: String,
    /// The most that are found.
    #[serde(default = "ten")]
    pub(crate) limit: usize,
}

fn ten() -> usize {
    10
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Found {
    /// What was found, the best first.
    pub(crate) found: Vec<Hit>,
}

/// A memory that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Hit {
    /// Its number.
    pub(crate) id: u64,
    /// Which part of the words it has, above 0 and up to 1.
    pub(crate) score: f64,
    /// The text around the first of them.
    pub(crate) snippet: String,
}

/// What an agent is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Role {
    /// Its name; `agents/NAME` is its path in the tree.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) about: String,
    /// What it does with a task, in this order.
    pub(crate) skills: Vec<String>,
}

/// What an agent can do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Skill {
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) about: String,
    /// The tool that it needs.
    pub(crate) tool: Option<String>,
}

/// What a skill can use.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Tool {
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) about: String,
}
