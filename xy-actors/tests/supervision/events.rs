//! The numbered event stream of a tree.

use xy_actors::event::stream::{Event, EventCursor, EventItem, EventKind, EventStream};
use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::{Cause, Exit, ExitReport};
use xy_actors::policy::Incarnation;
use xy_actors::spec::{ChildSpec, Strategy};
use xy_actors::supervisor::{EarlierExit, supervisor};
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
async fn how_an_earlier_life_ended_is_told_first_and_once() {
    let mocks = Mocks::new(&["a", "b"]);
    let report = ExitReport::new(Exit::Killed, Cause::HostDied);
    let lost = EarlierExit { incarnation: Incarnation::new(7), pid: Some(42), report: report.clone() };
    let builder = mocks.builder(flags(Strategy::OneForOne, 5), &["a", "b"]);
    // Nobody is there any more to be told the second.
    let builder = builder.earlier_exit("b", lost.clone()).earlier_exit("gone", lost);
    let tree = builder.start().await.expect("starts");
    let last = tree.which_child("b").await.expect("there").last_exit.expect("it was told");
    assert_eq!((last.incarnation.get(), &*last.report), (7, &report));
    let mut events = tree.events(EventCursor::Seq(1));
    let Some(EventItem::Event(first)) = events.next().await else { panic!("there are events") };
    let EventKind::Child { incarnation, report: ChildReport::Exited { next, .. }, exit, pid } = first.kind
    else {
        panic!("{first:?}")
    };
    assert_eq!(
        (first.path.as_str(), incarnation.get(), exit.as_deref(), pid),
        ("b", 7, Some(&report), Some(42))
    );
    assert_eq!(next, Next::Restart { delay: std::time::Duration::ZERO, nth: 0, of: None });
    tree.shutdown().await;
    let exits = all(&mut events).await;
    assert_eq!(exits.iter().filter(|name| name.ends_with("child_exited")).count(), 0, "{exits:?}");
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
