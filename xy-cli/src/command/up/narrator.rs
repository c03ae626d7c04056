//! Prints what `xyctl up` says in a thread of its own, so that a terminal that takes no more cannot stop the daemon.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use xy_daemon::protocol::method::{Event, Gap, Notification, Reloaded};

use crate::command::logs::{Tagged, skipped};
use crate::command::reload;
use crate::error::CommandError;
use crate::output::time::Clock;
use crate::output::{Output, event};

/// How many words wait for the thread; more wait where they come from.
const QUEUE: usize = 256;

/// Something to say.
#[derive(Debug)]
pub(super) enum Words {
    /// A line of the result.
    Line(String),
    /// A message.
    Note(String),
    /// An event.
    Event(Event),
    /// Events that were missed.
    Gap(Gap),
    /// Files that were not taken over.
    Rejected(Vec<Reloaded>),
}

/// Hands words to the thread.
#[derive(Debug, Clone)]
pub(super) struct Mouth {
    words: mpsc::Sender<Words>,
}

impl Mouth {
    /// Says something; waits while the terminal is behind.
    pub(super) async fn say(&mut self, words: Words) {
        // It fails when the thread has ended, and then nobody can be told.
        _ = self.words.send(words).await;
    }

    /// Says something now or never, where waiting would be worse than silence.
    pub(super) fn try_say(&mut self, words: Words) {
        _ = self.words.try_send(words);
    }
}

/// The printing thread.
#[derive(Debug)]
pub(super) struct Narrator {
    is_done: oneshot::Receiver<()>,
}

impl Narrator {
    /// Starts the thread with an output like the given one.
    pub(super) fn start(output: &Output) -> (Self, Mouth) {
        let (words, mut said) = mpsc::channel(QUEUE);
        let (done, is_done) = oneshot::channel();
        let mut output = output.another();
        std::thread::spawn(move || {
            let clock = Clock::local();
            while let Some(words) = said.blocking_recv() {
                // The only failure is an output that takes no more. The servers go on without their audience.
                _ = print(words, &clock, &mut output);
                if said.is_empty() {
                    _ = output.flush();
                }
            }
            // Nobody waits if the time for it is over.
            _ = done.send(());
        });
        (Self { is_done }, Mouth { words })
    }

    /// Waits until everything is printed, at most for `limit`. All mouths must be dropped before.
    pub(super) async fn finish(self, limit: Duration) {
        _ = tokio::time::timeout(limit, self.is_done).await;
    }
}

fn print(words: Words, clock: &Clock, output: &mut Output) -> Result<(), CommandError> {
    match words {
        Words::Line(line) => output.line(&line),
        Words::Note(note) => {
            output.note(&note);
            Ok(())
        }
        Words::Event(event) if output.is_json() => output.json(&event),
        Words::Event(event) => output.line(&event::line(&event, clock, output)),
        Words::Gap(gap) if output.is_json() => {
            output.json(&Tagged { method: Notification::EVENT_GAP, body: &gap })
        }
        Words::Gap(gap) => {
            output.note(&skipped(gap, "event"));
            Ok(())
        }
        Words::Rejected(files) => {
            reload::rejected(&files, output);
            Ok(())
        }
    }
}
