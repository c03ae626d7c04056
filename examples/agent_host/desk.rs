//! Who has sessions and runs: the actor that keeps the books; whether a run is alive only the tree knows.

use std::collections::BTreeMap;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::wire::{Run, Session};

/// The most sessions.
const MOST_SESSIONS: usize = 64;

/// The most runs that are remembered; the oldest that has an answer makes room.
const MOST_RUNS: usize = 256;

/// What is asked of the desk. What cannot be done is answered in words.
pub(crate) enum DeskMessage {
    Open {
        role: String,
        reply: RpcReplyPort<Result<String, String>>,
    },
    /// Closes a session; answered with its runs.
    Close(String, RpcReplyPort<Result<Vec<String>, String>>),
    Sessions(RpcReplyPort<Vec<Session>>),
    /// Enters a run; answered with its id and the role of its session.
    Enter {
        session: String,
        reply: RpcReplyPort<Result<(String, String), String>>,
    },
    /// A run wants to know something, and waits.
    Ask {
        run: String,
        reply: RpcReplyPort<String>,
    },
    /// What a run wants to know; answered with whether it still waits.
    Reply {
        run: String,
        text: String,
        reply: RpcReplyPort<bool>,
    },
    /// What a run came to.
    Answer {
        run: String,
        text: String,
        reply: RpcReplyPort<()>,
    },
    Runs(RpcReplyPort<Vec<Run>>),
}

/// Everything that is on the desk.
#[derive(Debug, Default)]
pub(crate) struct Books {
    given: u64,
    sessions: Vec<Session>,
    /// The runs, by their number.
    runs: BTreeMap<u64, Run>,
    questions: BTreeMap<String, RpcReplyPort<String>>,
}

impl Books {
    fn open(&mut self, role: String) -> Result<String, String> {
        if self.sessions.len() == MOST_SESSIONS {
            return Err(format!("{MOST_SESSIONS} sessions are open, which is the most"));
        }
        self.given += 1;
        let id = format!("session-{}", self.given);
        self.sessions.push(Session { id: id.clone(), role });
        Ok(id)
    }

    fn close(&mut self, id: &str) -> Result<Vec<String>, String> {
        let index = self.sessions.iter().position(|session| session.id == id).ok_or_else(|| unknown(id))?;
        self.sessions.remove(index);
        Ok(self.runs.values().filter(|run| run.session == id).map(|run| run.id.clone()).collect())
    }

    fn enter(&mut self, id: String) -> Result<(String, String), String> {
        let session = self.sessions.iter().find(|session| session.id == id).ok_or_else(|| unknown(&id))?;
        let role = session.role.clone();
        if self.runs.len() == MOST_RUNS {
            let done = self.runs.iter().find(|(_, run)| run.answer.is_some()).map(|(number, _)| *number);
            let oldest = done.ok_or_else(|| format!("{MOST_RUNS} runs have no answer, which is the most"))?;
            self.runs.remove(&oldest);
        }
        self.given += 1;
        let run = format!("run-{}", self.given);
        let entry = Run { id: run.clone(), session: id, is_active: false, answer: None };
        self.runs.insert(self.given, entry);
        Ok((run, role))
    }

    fn answer(&mut self, run: &str, text: String) {
        if let Some(found) = self.runs.values_mut().find(|found| found.id == run) {
            found.answer = Some(text);
        }
    }

    fn reply(&mut self, run: &str, text: String) -> bool {
        self.questions.remove(run).is_some_and(|question| question.send(text).is_ok())
    }
}

fn unknown(session: &str) -> String {
    format!("there is no session `{session}`")
}

/// Keeps the books.
pub(crate) struct Desk;

impl Actor for Desk {
    type Msg = DeskMessage;
    type State = Books;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<DeskMessage>, (): ()) -> Result<Books, ActorProcessingErr> {
        Ok(Books::default())
    }

    async fn handle(
        &self,
        _: ActorRef<DeskMessage>,
        message: DeskMessage,
        books: &mut Books,
    ) -> Result<(), ActorProcessingErr> {
        // Whoever has asked may be gone.
        match message {
            DeskMessage::Open { role, reply } => _ = reply.send(books.open(role)),
            DeskMessage::Close(id, reply) => _ = reply.send(books.close(&id)),
            DeskMessage::Sessions(reply) => _ = reply.send(books.sessions.clone()),
            DeskMessage::Enter { session, reply } => _ = reply.send(books.enter(session)),
            DeskMessage::Ask { run, reply } => {
                // Those of runs that have been canceled are of no use any more.
                books.questions.retain(|_, question| !question.is_closed());
                books.questions.insert(run, reply);
            }
            DeskMessage::Reply { run, text, reply } => _ = reply.send(books.reply(&run, text)),
            DeskMessage::Answer { run, text, reply } => {
                books.answer(&run, text);
                _ = reply.send(());
            }
            DeskMessage::Runs(reply) => _ = reply.send(books.runs.values().cloned().collect()),
        }
        Ok(())
    }
}
