//! A thousand supervisors, each the child of the one before, on a test's ordinary stack.

use xy_actors::event::stream::{EventCursor, EventItem};
use xy_actors::exit::Exit;
use xy_actors::spec::{ChildSpec, Strategy};
use xy_actors::supervisor::{SpawnTreeError, Supervisor, SupervisorBuilder, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop};

use crate::support::flags;

const DEPTH: usize = 1000;

/// Supervisors that give up at the first crash, the innermost with this child.
fn chain(leaf: &MockChild) -> SupervisorBuilder {
    let brittle = || flags(Strategy::OneForOne, 0);
    let mut nested = supervisor(brittle()).child(ChildSpec::worker("leaf"), leaf.clone());
    for _ in 1..DEPTH {
        nested = supervisor(brittle()).child(ChildSpec::supervisor("s"), nested);
    }
    Supervisor::builder(brittle()).child(ChildSpec::supervisor("s"), nested)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nested_supervisors_start_and_stop_without_overflowing_the_stack() {
    let journal = Journal::default();
    let leaf = MockChild::new("leaf", &journal);
    let tree = chain(&leaf).start().await.expect("starts");
    assert_eq!(leaf.starts(), 1);
    let report = tree.shutdown().await;
    assert!(report.is_clean() && report.exit == Exit::Shutdown);
    assert_eq!(report.stopped.len(), DEPTH + 1);
    assert_eq!(journal.take(), ["start leaf", "stop leaf"]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_escalates_through_a_thousand_nested_supervisors_without_overflowing_the_stack() {
    let leaf = MockChild::new("leaf", &Journal::default());
    let tree = chain(&leaf).start().await.expect("starts");
    let mut events = tree.events(EventCursor::Now);
    leaf.crash("no disk");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);
    assert_eq!(leaf.starts(), 1);
    let mut gave_up = 0;
    while let Some(EventItem::Event(event)) = events.next().await {
        gave_up += usize::from(event.kind.name() == "supervisor_limit_reached");
    }
    assert_eq!(gave_up, DEPTH + 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_fails_unwinds_a_thousand_nested_supervisors() {
    let leaf = MockChild::new("leaf", &Journal::default()).starting([MockStart::Fail("no disk".to_owned())]);
    let failed = chain(&leaf).start().await.expect_err("does not start");
    let SpawnTreeError::Ended(report) = failed else { panic!("{failed}") };
    let path = "s/".repeat(DEPTH);
    assert_eq!(report.to_string(), format!("child `{path}leaf`: no disk"), "named once");
    assert_eq!(leaf.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_a_thousand_nested_supervisors_and_what_they_run() {
    let journal = Journal::default();
    let leaf = MockChild::new("leaf", &journal).stopping(MockStop::Stubborn);
    let tree = chain(&leaf).start().await.expect("starts");
    let report = tree.kill().await;
    assert_eq!(report.exit, Exit::Killed);
    assert_eq!(journal.take(), ["start leaf", "kill leaf"]);
}

#[test]
fn a_thousand_nested_supervisors_are_dropped_unstarted_and_with_their_runtime() {
    let leaf = MockChild::new("leaf", &Journal::default());
    drop(chain(&leaf));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tree = runtime.block_on(chain(&leaf).start()).expect("starts");
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(other.block_on(tree.ended()).exit, Exit::Killed, "nobody waits for ever for what is gone");
}
