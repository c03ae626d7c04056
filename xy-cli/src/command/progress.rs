//! How far an operation on several servers is, on one line of the terminal that is gone when it is done.

use std::collections::BTreeSet;
use std::time::Duration;

use xy_daemon::client::Client;
use xy_daemon::protocol::Method;
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, Notification, OperationParams, ServerSummary, State, Targets,
};

use crate::error::CommandError;
use crate::output::text::neutral;
use crate::session::{Answer, Selection, Session, call};

/// What is done within this time needs no line.
const PATIENCE: Duration = Duration::from_millis(200);

/// How many of those that are waited for are named.
const NAMED: usize = 3;

/// Where an operation leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// To servers that are ready.
    Ready,
    /// The same, by way of their end.
    ReadyAgain,
    /// To servers of which nothing is left.
    Gone,
}

/// Calls a method and meanwhile says how far it is, where somebody looks at that.
pub(super) async fn call_with_progress<M: Method<Params = OperationParams>>(
    goal: Goal,
    params: OperationParams,
    client: &Client,
    session: &mut Session<'_>,
) -> Result<Answer<M::Result>, CommandError> {
    if !params.wait || !session.output.has_progress() {
        return call::<M>(client, params).await;
    }
    let selection = match &params.targets {
        Targets::All => Selection::of(&[]),
        Targets::Names(names) => Selection::of(names),
    };
    let mut events = client.subscribe::<Events>(EventsParams::default()).await?;
    let servers = client.call::<List>(ListParams {}).await?.servers;
    let mut progress = Progress::new(goal, servers.iter().filter(|server| selection.means(server)));
    let mut call = std::pin::pin!(call::<M>(client, params));
    if progress.total > 1
        && let Ok(answer) = tokio::time::timeout(PATIENCE, &mut call).await
    {
        return answer;
    }
    loop {
        if progress.total > 1 {
            session.output.progress(&progress.line());
        }
        tokio::select! {
            biased;
            answer = &mut call => {
                session.output.progress("");
                return answer;
            }
            event = events.next() => match event {
                Ok(Some(Notification::Event(event))) => progress.take(&event.path, &event.event_type),
                Ok(Some(_)) => {}
                // The answer to the call says what has happened.
                Ok(None) | Err(_) => {
                    session.output.progress("");
                    return call.await;
                }
            },
        }
    }
}

/// Who is where the operation leads, and who is not yet.
#[derive(Debug)]
struct Progress {
    goal: Goal,
    total: usize,
    waiting: BTreeSet<String>,
}

impl Progress {
    fn new<'a>(goal: Goal, servers: impl Iterator<Item = &'a ServerSummary>) -> Self {
        let mut progress = Self { goal, total: 0, waiting: BTreeSet::new() };
        for server in servers {
            let is_there = match goal {
                Goal::Ready => server.state == State::Running,
                Goal::ReadyAgain => false,
                Goal::Gone => matches!(server.state, State::Stopped | State::Failed),
            };
            progress.total += 1;
            if !is_there {
                progress.waiting.insert(server.name.clone());
            }
        }
        progress
    }

    fn take(&mut self, name: &str, event: &str) {
        let is_done = match self.goal {
            Goal::Ready | Goal::ReadyAgain => {
                matches!(event, "child_ready" | "child_start_failed" | "child_exited")
            }
            Goal::Gone => {
                matches!(event, "child_stopped" | "child_exited" | "child_called_off" | "child_leaked")
            }
        };
        if is_done {
            self.waiting.remove(name);
        }
    }

    fn line(&self) -> String {
        let done = self.total - self.waiting.len();
        let word = match self.goal {
            Goal::Ready | Goal::ReadyAgain => "ready",
            Goal::Gone => "stopped",
        };
        let mut names: Vec<_> =
            self.waiting.iter().take(NAMED).map(|name| neutral(name).into_owned()).collect();
        match self.waiting.len() {
            0 => return format!("{done} of {} {word}", self.total),
            more if more > NAMED => names.push(format!("{} more", more - NAMED)),
            _ => {}
        }
        format!("{done} of {} {word}, waiting for {}", self.total, names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use xy_daemon::protocol::method::Wanted;

    use super::*;

    fn server(name: &str, state: State) -> ServerSummary {
        ServerSummary {
            name: name.to_owned(),
            group: false,
            state,
            ready: state == State::Running,
            unproven: false,
            wanted: Wanted::Up,
            paused: false,
            pid: None,
            port: None,
            uptime_secs: None,
            restart_count: 0,
            last_exit: None,
            next: None,
            tags: Vec::new(),
        }
    }

    #[test]
    fn the_line_counts_who_is_there_and_names_a_few_of_the_others() {
        let servers: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|name| server(name, if name == "c" { State::Running } else { State::Stopped }))
            .into();
        let mut progress = Progress::new(Goal::Ready, servers.iter());
        assert_eq!(progress.line(), "1 of 5 ready, waiting for a, b, d, 1 more");
        progress.take("a", "child_starting");
        progress.take("b", "child_ready");
        progress.take("e", "child_start_failed");
        assert_eq!(progress.line(), "3 of 5 ready, waiting for a, d");
        let mut progress = Progress::new(Goal::Gone, servers.iter());
        assert_eq!(progress.line(), "4 of 5 stopped, waiting for c");
        progress.take("c", "child_stopped");
        assert_eq!(progress.line(), "5 of 5 stopped");
        assert_eq!(Progress::new(Goal::ReadyAgain, servers.iter()).waiting.len(), 5);
    }
}
