//! The numbered events of one tree: a bounded history and subscriptions that resume from a number.
//!
//! A subscription is made by [`Supervisor::events`](crate::supervisor::Supervisor::events), and yields [`EventItem`]s: each
//! event once and in order, or a gap in its place. Events have a name for filters and logs, and a report to match:
//!
//! ```
//! use xy_actors::child::task;
//! use xy_actors::event::stream::{EventCursor, EventItem, EventKind};
//! use xy_actors::event::{ChildReport, Next};
//! use xy_actors::spec::{ChildSpec, SupervisorSpec};
//! use xy_actors::supervisor::Supervisor;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broken = task(|_| async { Err("out of paper".into()) });
//! let builder = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("printer"), broken);
//! let tree = builder.spawn().await?; // Does not wait for the children, as `start` does.
//!
//! let mut restarts = 0;
//! let mut events = tree.events(EventCursor::Seq(1)); // All of them; `Now` begins with the next.
//! while let Some(item) = events.next().await {
//!     let event = match item {
//!         EventItem::Event(event) => event,
//!         EventItem::Gap { first, last } => {
//!             println!("too slow: events {first} to {last} are gone");
//!             continue;
//!         }
//!     };
//!     println!("{} {} {}", event.seq, event.kind.name(), event.path); // 4 child_exited printer
//!     if let EventKind::Child { report: ChildReport::Exited { next, .. }, exit: Some(exit), .. } = event.kind {
//!         println!("it ended: {exit}"); // it ended: error: out of paper
//!         restarts += u32::from(matches!(next, Next::Restart { .. }));
//!     }
//! }
//! // The stream ends with the tree, which by default gives up at the second crash within five seconds.
//! assert_eq!(restarts, 1);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::event::ring::{Label, Ring};
use crate::event::{ChildReport, SupervisorReport};
use crate::exit::ExitReport;
use crate::path::TreePath;
use crate::policy::Incarnation;

#[cfg(feature = "process")]
mod handover;
#[cfg(feature = "process")]
pub(crate) use handover::EventLogState;

/// One event of a tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number; the first event of a tree has 1 unless its program says otherwise, and no number is left out.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The child or supervisor it is about.
    pub path: TreePath,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// To a child.
    Child {
        /// Which start of it.
        incarnation: Incarnation,
        /// What.
        report: ChildReport,
        /// How the incarnation ended, if the report is about that; of one that is unhealthy, why.
        exit: Option<Arc<ExitReport>>,
        /// The process id, if the child is a running process.
        pid: Option<u32>,
    },
    /// To a supervisor.
    Supervisor {
        /// What.
        report: SupervisorReport,
    },
    /// Something that the program around the tree [tells](EventLog::tell).
    Host {
        /// What happened, by a stable name.
        name: Arc<str>,
        /// The facts.
        facts: Arc<BTreeMap<String, String>>,
    },
}

impl EventKind {
    /// Returns the stable name of the event: that of its [`ChildReport`] or [`SupervisorReport`], or the program's own.
    pub fn name(&self) -> &str {
        match self {
            Self::Child { report, .. } => report.name(),
            Self::Supervisor { report } => report.name(),
            Self::Host { name, .. } => name,
        }
    }
}

/// The events of one tree. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    published: Mutex<Published>,
    changed: Notify,
}

#[derive(Debug)]
struct Published {
    ring: Ring,
    closed: bool,
    /// Whether a subscriber waits: publishing costs nothing more while none does.
    awaited: bool,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventCursor {
    /// With the next event.
    Now,
    /// With the event of this number; a gap is reported if it is no longer held.
    Seq(u64),
}

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq)]
pub enum EventItem {
    /// The next event.
    Event(Event),
    /// These events were dropped before they could be read.
    Gap {
        /// The first missing number.
        first: u64,
        /// The last missing number.
        last: u64,
    },
}

/// A subscription: a cursor into the history, so that a slow reader costs nobody anything.
#[derive(Debug)]
pub struct EventStream {
    log: EventLog,
    next: u64,
}

/// Why there is no next event now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryNextError {
    /// Nothing has happened since the last one.
    #[error("no event yet")]
    Empty,
    /// The tree has ended, and everything was read.
    #[error("the tree has ended")]
    Ended,
}

impl EventLog {
    /// Creates a log that holds the latest `capacity` events, at least one.
    pub fn new(capacity: usize) -> Self {
        let published = Published { ring: Ring::new(capacity), closed: false, awaited: false };
        Self(Arc::new(Shared { published: Mutex::new(published), changed: Notify::new() }))
    }

    /// Appends an event about whoever is at `path`, and wakes subscribers. The label is the publisher's to keep for its
    /// next event and to [give back](Self::part) at last.
    pub(crate) fn publish(
        &self,
        label: &mut Option<Label>,
        path: &TreePath,
        at_unix_ms: u64,
        kind: EventKind,
    ) {
        let mut published = self.published();
        published.ring.push(label, path, at_unix_ms, kind);
        self.wake(published);
    }

    /// Appends an event of the program's own, about the child or supervisor at `path`, so that those who follow the tree see
    /// it in its order.
    pub fn tell(&self, path: &str, name: &str, facts: BTreeMap<String, String>) {
        let mut label = None;
        let kind = EventKind::Host { name: name.into(), facts: Arc::new(facts) };
        self.publish(&mut label, &TreePath::of(path), unix_ms(), kind);
        self.part(label);
    }

    /// Takes back the labels of those that will publish no more.
    pub(crate) fn part(&self, labels: impl IntoIterator<Item = Label>) {
        let mut published = self.published();
        labels.into_iter().for_each(|label| published.ring.part(label));
    }

    /// Ends all subscriptions once they have read what is there.
    pub(crate) fn close(&self) {
        let mut published = self.published();
        published.closed = true;
        self.wake(published);
    }

    fn wake(&self, mut published: MutexGuard<'_, Published>) {
        let awaited = std::mem::take(&mut published.awaited);
        drop(published);
        if awaited {
            self.0.changed.notify_waiters();
        }
    }

    /// Subscribes; reading begins at `from`.
    pub fn subscribe(&self, from: EventCursor) -> EventStream {
        let next = match from {
            EventCursor::Now => self.published().ring.next_seq(),
            EventCursor::Seq(seq) => seq.max(1),
        };
        EventStream { log: self.clone(), next }
    }

    /// Gives the next event this number. Nothing was published yet.
    pub(crate) fn begin_at(&self, seq: u64) {
        self.published().ring.begin_at(seq);
    }

    /// Returns the number of the first event that is held, or of the next one if none is.
    pub fn first(&self) -> u64 {
        self.published().ring.first()
    }

    /// Returns the number of the latest event, 0 before the first.
    pub fn latest(&self) -> u64 {
        self.published().ring.latest()
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        // A panic between two assignments of `publish` cannot leave the ring unusable.
        self.0.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventStream {
    /// Returns the next event or gap, or `None` when the tree has ended and everything was read.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<EventItem> {
        loop {
            let changed = {
                let mut published = self.log.published();
                match published.read(&mut self.next) {
                    Ok(item) => return Some(item),
                    Err(TryNextError::Ended) => return None,
                    Err(TryNextError::Empty) => {}
                }
                // Under the lock, so that no event comes between the look and the wait.
                published.awaited = true;
                self.log.0.changed.notified()
            };
            changed.await;
        }
    }

    /// Returns the next event or gap if there is one, without waiting.
    ///
    /// # Errors
    /// If there is none yet, or none will come because the tree has ended.
    pub fn try_next(&mut self) -> Result<EventItem, TryNextError> {
        self.log.published().read(&mut self.next)
    }
}

impl Published {
    fn read(&self, next: &mut u64) -> Result<EventItem, TryNextError> {
        let none = if self.closed { TryNextError::Ended } else { TryNextError::Empty };
        self.ring.read(next).ok_or(none)
    }
}

/// Returns the wall clock in the unit of [`Event::at_unix_ms`]: milliseconds since the Unix epoch, 0 before it.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().saturating_mul(1000) + u64::from(since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(log: &EventLog, count: usize) {
        let mut label = None;
        for _ in 0..count {
            let kind = EventKind::Supervisor { report: SupervisorReport::Started };
            log.publish(&mut label, &TreePath::root(), 0, kind);
        }
    }

    async fn numbers(stream: &mut EventStream) -> Vec<String> {
        let mut numbers = Vec::new();
        while let Some(item) = stream.next().await {
            numbers.push(match item {
                EventItem::Event(event) => event.seq.to_string(),
                EventItem::Gap { first, last } => format!("gap {first}-{last}"),
            });
        }
        numbers
    }

    #[tokio::test]
    async fn a_subscription_resumes_from_a_number_without_hole_or_double() {
        let log = EventLog::new(100);
        publish(&log, 3);
        let mut stream = log.subscribe(EventCursor::Seq(2));
        publish(&log, 1);
        log.close();
        assert_eq!(numbers(&mut stream).await, ["2", "3", "4"]);
    }

    #[tokio::test]
    async fn a_subscription_that_is_overtaken_gets_an_explicit_gap() {
        let log = EventLog::new(2);
        let mut stream = log.subscribe(EventCursor::Now);
        publish(&log, 5);
        log.close();
        assert_eq!(numbers(&mut stream).await, ["gap 1-3", "4", "5"]);
    }

    #[tokio::test]
    async fn a_waiting_subscriber_is_woken_by_an_event_and_by_the_end() {
        let log = EventLog::new(2);
        let mut stream = log.subscribe(EventCursor::Now);
        let reader = tokio::spawn(async move { numbers(&mut stream).await });
        publish(&log, 1);
        log.close();
        assert_eq!(reader.await.expect("reader"), ["1"]);
    }
}
