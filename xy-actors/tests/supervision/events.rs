//! The numbered event stream of a tree.

use xy_actors::event::stream::{Event, EventCursor, EventItem, EventStream};
use xy_actors::spec::{ChildSpec, Strategy};
use xy_actors::supervisor::supervisor;
use xy_actors::testkit::{Journal, MockChild};

use crate::support::{Mocks, flags};

/// Reads until an event of this name.
pub(crate) async fn until(stream: &mut EventStream, name: &str) -> Event {
    loop {
        match stream.next().await.expect("the tree lives") {
            EventItem::Event(event) if event.kind.name() == name => return event,
            _ => {}
        }
    }
}

/// Reads until an event of this name about this path.
pub(crate) async fn until_path(stream: &mut EventStream, name: &str, path: &str) -> Event {
    loop {
        let event = until(stream, name).await;
        if event.path.as_str() == path {
            return event;
        }
    }
}

async fn all(stream: &mut EventStream) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(item) = stream.next().await {
        names.push(match item {
            EventItem::Event(event) => format!("{} {}", event.seq, event.kind.name()),
            EventItem::Gap { first, last } => format!("gap {first}-{last}"),
        });
    }
    names
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_child_is_told_in_order_without_a_missing_number() {
    let mocks = Mocks::new(&["a"]);
    let tree = mocks.builder(flags(Strategy::OneForOne, 5), &["a"]).start().await.expect("starts");
    mocks.mocks[0].crash("boom");
    mocks.mocks[0].wait_for_start(2).await;
    tree.shutdown().await;
    let events = all(&mut tree.events(EventCursor::Seq(1))).await;
    assert_eq!(
        events,
        [
            "1 child_starting",
            "2 child_ready",
            "3 supervisor_started",
            "4 child_exited",
            "5 child_starting",
            "6 child_ready",
            "7 supervisor_ending",
            "8 child_stopping",
            "9 child_stopped",
            "10 supervisor_ended",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_gets_an_explicit_gap() {
    let mocks = Mocks::new(&["a"]);
    let tree =
        mocks.builder(flags(Strategy::OneForOne, 5), &["a"]).event_capacity(4).start().await.expect("starts");
    let mut stream = tree.events(EventCursor::Seq(1));
    tree.shutdown().await;
    let events = all(&mut stream).await;
    assert_eq!(events.first().map(String::as_str), Some("gap 1-3"));
    assert_eq!(events.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn events_of_nested_supervisors_carry_their_path() {
    let journal = Journal::default();
    let nested = supervisor(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::worker("leaf"), MockChild::new("leaf", &journal));
    let tree = xy_actors::supervisor::Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("group"), nested)
        .start()
        .await
        .expect("starts");
    until_path(&mut tree.events(EventCursor::Seq(1)), "child_ready", "group/leaf").await;
    tree.shutdown().await;
}
