//! One run: a task under `runs` that lets an agent use its skills one after the other, and tells of each step.

use std::collections::BTreeMap;
use std::time::Duration;

use xy_actors::child::{TaskChild, TaskContext, TaskError, task};
use xy_actors::supervisor::Address;

use super::agent::{ASK, Perform, RECALL};
use super::desk::DeskMessage;
use super::memory::MemoryMessage;

/// How long the agents, the memory and the desk have for an answer.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How long a run waits for a reply.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a run is about, and whom it needs.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) id: String,
    pub(crate) prompt: String,
    pub(crate) skills: Vec<String>,
    pub(crate) agent: Address<Perform>,
    pub(crate) memory: Address<MemoryMessage>,
    pub(crate) desk: Address<DeskMessage>,
}

/// Makes the child that does it.
pub(crate) fn run(assignment: Assignment) -> TaskChild {
    task(move |context| {
        let assignment = assignment.clone();
        async move {
            tokio::select! {
                outcome = assignment.perform(&context) => outcome,
                () = context.stopped() => {
                    assignment.tell(&context, "run_canceled", &[]);
                    Ok(())
                }
            }
        }
    })
}

impl Assignment {
    async fn perform(&self, context: &TaskContext) -> Result<(), TaskError> {
        let mut text = self.prompt.clone();
        for skill in &self.skills {
            self.tell(context, "run_step", &[("skill", skill)]);
            text = match skill.as_str() {
                ASK => {
                    let (reply, replied) = ractor::concurrency::oneshot();
                    self.desk.send(DeskMessage::Ask { run: self.id.clone(), reply: reply.into() }).await?;
                    // From here on a reply finds the question.
                    self.tell(context, "run_asks", &[("text", &text)]);
                    format!("{text} {}", tokio::time::timeout(PATIENCE, replied).await??)
                }
                RECALL => {
                    let query = text.clone();
                    let search = |reply| MemoryMessage::Search { query, limit: 1, reply };
                    match self.memory.call(SOON, search).await?.first() {
                        Some(hit) => format!("{text} {}", hit.snippet),
                        None => text,
                    }
                }
                _ => self.agent.call(SOON, |reply| Perform { text, reply }).await?,
            };
        }
        let (run, answer) = (self.id.clone(), text.clone());
        self.desk.call(SOON, |reply| DeskMessage::Answer { run, text: answer, reply }).await?;
        let memory = format!("{}: {text}", self.prompt);
        self.memory.call(SOON, |reply| MemoryMessage::Remember(memory, reply)).await?;
        self.tell(context, "run_done", &[("answer", &text)]);
        Ok(())
    }

    /// Publishes an event under the path of this run, which followers of the tree see in its order.
    fn tell(&self, context: &TaskContext, name: &str, facts: &[(&str, &str)]) {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        context.root().event_log().tell(context.path().as_str(), name, BTreeMap::from_iter(facts));
    }
}
