//! A supervisor under test: its events as assertions, its children in one line.

use std::ops::Deref;
use std::time::Duration;

use crate::event::stream::{Event, EventCursor, EventItem, EventStream};
use crate::supervisor::Supervisor;

/// How long an expected event is waited for; on a paused clock that is no time at all.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A running supervisor and a reader of its events, for tests. Everything a [`Supervisor`] does, it does too.
///
/// ```
/// use xy_actors::spec::{ChildSpec, SupervisorSpec};
/// use xy_actors::supervisor::Supervisor;
/// use xy_actors::testkit::{Journal, MockChild, TestTree};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let web = MockChild::new("web", &Journal::default());
/// let builder = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("web"), web.clone());
/// let mut tree = TestTree::new(builder.start().await?);
/// web.crash_and_restart("boom").await;
/// tree.expect("child_exited", "web").await;
/// assert_eq!(tree.states().await, "web:running");
/// assert_eq!(tree.counts().await, [1, 1, 0, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestTree {
    supervisor: Supervisor,
    events: EventStream,
}

impl TestTree {
    /// Takes a supervisor under test, and its events from the first one on.
    pub fn new(supervisor: Supervisor) -> Self {
        let events = supervisor.events(EventCursor::Seq(1));
        Self { supervisor, events }
    }

    /// Reads on until an event of this name about this path; what comes before it is skipped.
    ///
    /// # Panics
    /// If the tree ends without it, it does not come within a day of (paused) time, or events were lost to the bound of
    /// the tree's event log.
    ///
    /// # Cancel safety
    /// Events read before the future is dropped are skipped.
    pub async fn expect(&mut self, name: &str, path: &str) -> Event {
        let mut skipped = Vec::new();
        let events = &mut self.events;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                match events.next().await {
                    Some(EventItem::Event(event)) if is(&event, name, path) => return Some(event),
                    Some(item) => skipped.push(words(&item)),
                    None => return None,
                }
            }
        });
        match found.await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("the tree ended without `{name} {path}`, after {skipped:?}"),
            Err(_) => panic!("`{name} {path}` did not come, only {skipped:?}"),
        }
    }

    /// Returns what happened since the last call or expectation, as `name path`, without waiting.
    pub fn happened(&mut self) -> Vec<String> {
        let mut happened = Vec::new();
        while let Ok(item) = self.events.try_next() {
            happened.push(words(&item));
        }
        happened
    }

    /// Returns `id:state` of all children, oldest first.
    ///
    /// # Panics
    /// If the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn states(&self) -> String {
        let children = self.supervisor.which_children().await.expect("the supervisor under test has ended");
        let states: Vec<String> =
            children.iter().map(|child| format!("{}:{}", child.id, child.state)).collect();
        states.join(" ")
    }

    /// Returns specs, active, supervisors and workers, in the order of OTP's `count_children`.
    ///
    /// # Panics
    /// If the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn counts(&self) -> [usize; 4] {
        let counts = self.supervisor.count_children().await.expect("the supervisor under test has ended");
        [counts.specs, counts.active, counts.supervisors, counts.workers]
    }
}

impl Deref for TestTree {
    type Target = Supervisor;

    fn deref(&self) -> &Supervisor {
        &self.supervisor
    }
}

fn is(event: &Event, name: &str, path: &str) -> bool {
    event.kind.name() == name && event.path.as_str() == path
}

fn words(item: &EventItem) -> String {
    match item {
        EventItem::Event(event) => format!("{} {}", event.kind.name(), event.path).trim_end().to_owned(),
        EventItem::Gap { first, last } => format!("gap {first}-{last}"),
    }
}
