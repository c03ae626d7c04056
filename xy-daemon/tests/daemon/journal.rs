//! Events that outlive the daemon: resumed across its restart, its death and its upgrade.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{Event, Events, EventsParams, Gap, Notification, OperationParams, Restart};

use super::support::{World, ready, script, until, within};
use super::upgrade::upgrade;

/// What a subscription has told until it ended.
#[derive(Debug, Default)]
struct Told {
    events: Vec<Event>,
    gaps: Vec<Gap>,
}

impl Told {
    fn numbers(&self) -> Vec<u64> {
        self.events.iter().map(|event| event.seq).collect()
    }

    fn last(&self) -> &Event {
        self.events.last().expect("events")
    }
}

async fn read(client: &Client, params: EventsParams) -> Result<Told, ClientError> {
    let mut events = within("events", client.subscribe::<Events>(params)).await?;
    let mut told = Told::default();
    while let Some(notification) = within("an event", events.next()).await? {
        match notification {
            Notification::Event(event) => told.events.push(event),
            Notification::EventGap(gap) => told.gaps.push(gap),
            _ => break,
        }
    }
    Ok(told)
}

async fn held(client: &Client, from: u64) -> Told {
    read(client, EventsParams::held(from)).await.expect("answered")
}

fn after(id: &str) -> EventsParams {
    EventsParams { from: None, after: Some(id.to_owned()), follow: false }
}

/// Has servers started so often that memory forgets the first events.
async fn restart_often(client: &Client, times: usize) {
    for _ in 0..times {
        within("a restart", client.call::<Restart>(OperationParams::named("web"))).await.expect("answered");
    }
}

fn journal(world: &World) -> String {
    fs::read_to_string(world.path("state/xy/events.jsonl")).unwrap_or_default()
}

/// Waits until everything up to this event is in the file.
async fn written(world: &World, last: &Event) {
    until("the journal", || async {
        journal(world).contains(&format!("\"id\":\"{}\"", last.id)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_goes_on_behind_what_it_has_seen_after_a_restart() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]);
    let client = world.boot().await;
    ready(&client, "web").await;
    let before = held(&client, 1).await;
    assert!(before.gaps.is_empty() && before.numbers()[0] == 1, "{before:?}");
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0));
    let mode = fs::metadata(world.path("state/xy/events.jsonl")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let client = world.boot().await;
    ready(&client, "web").await;
    let all = held(&client, 1).await;
    assert!(all.gaps.is_empty(), "{all:?}");
    assert!(
        all.numbers().iter().copied().eq(1..=all.last().seq),
        "no number is missing: {:?}",
        all.numbers()
    );
    assert_eq!(all.events[..before.events.len()], before.events, "as they were told the first time");
    let rest = read(&client, after(&before.last().id)).await.expect("known");
    assert_eq!(rest.events, all.events[before.events.len()..]);
    let ended = rest.events.iter().filter(|event| event.path == "web" && event.event_type == "child_stopped");
    assert_eq!(ended.count(), 1, "the end of the first daemon was kept: {rest:?}");
    // Those of this daemon alone are a part of it.
    let own = held(&client, 0).await;
    assert!(all.events.ends_with(&own.events) && own.events.len() < rest.events.len());
    let refused = read(&client, after("18f-1")).await.expect_err("of no daemon here");
    assert!(
        matches!(&refused, ClientError::Rpc(error) if error.kind() == ErrorKind::InvalidParams),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_daemon_that_was_killed_has_lost_nothing_that_was_written_and_gives_no_id_twice() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]).argument("--no-guard");
    let client = world.boot().await;
    ready(&client, "web").await;
    let before = held(&client, 1).await;
    written(&world, before.last()).await;
    world.signal(Signal::SIGKILL);
    world.ended().await;
    // What a write that was cut off leaves.
    let torn = format!("{}{{\"version\":1,\"id\":\"", journal(&world));
    fs::write(world.path("state/xy/events.jsonl"), torn).expect("written");

    let client = world.boot().await;
    ready(&client, "web").await;
    let all = held(&client, 1).await;
    assert!(all.gaps.is_empty() && all.events.starts_with(&before.events), "{all:?}");
    assert!(all.numbers().iter().copied().eq(1..=all.last().seq), "{:?}", all.numbers());
    let (era, number) = before.last().id.split_once('-').expect("an id");
    let seen = number.parse::<u64>().expect("a number") + 1;
    // An event that a client has seen and the dead daemon has not written is none that this one knows.
    read(&client, after(&format!("{era}-{seen}"))).await.expect_err("lost");
    let new = all.events.iter().find(|event| event.seq == seen).expect("the number goes on");
    assert!(!new.id.starts_with(&format!("{era}-")), "{new:?}");
}

#[tokio::test]
async fn an_upgrade_keeps_numbers_and_ids() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]);
    let client = world.boot().await;
    ready(&client, "web").await;
    let before = held(&client, 1).await;
    let client = upgrade(&world, client).await;
    assert_eq!(held(&client, 1).await.events, before.events, "an upgrade is no event");
    assert!(read(&client, after(&before.last().id)).await.expect("known").events.is_empty());
    restart_often(&client, 1).await;
    let all = held(&client, 1).await;
    assert!(all.numbers().iter().copied().eq(1..=all.last().seq), "{:?}", all.numbers());
    let rest = read(&client, after(&before.last().id)).await.expect("known");
    assert_eq!(rest.events, all.events[before.events.len()..]);
    written(&world, all.last()).await;
    assert_eq!(journal(&world).lines().count(), all.events.len(), "each event is in the file once");
}

#[tokio::test]
async fn what_is_older_than_the_window_is_told_as_missing() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]);
    fs::write(world.path("config/xy/xyd.ron"), "(events: (keep: 8, age: \"1h\"))").expect("written");
    let client = world.boot().await;
    ready(&client, "web").await;
    restart_often(&client, 10).await;
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0));
    let client = world.boot().await;
    ready(&client, "web").await;
    let all = held(&client, 1).await;
    let first = all.events[0].seq;
    assert_eq!(all.gaps, [Gap { first: 1, last: first - 1 }]);
    assert!(all.numbers().iter().copied().eq(first..=all.last().seq), "{:?}", all.numbers());
    let own = held(&client, 0).await;
    let past = all.events.len() - own.events.len();
    assert!((1..=8).contains(&past), "{past} of an earlier daemon");
}

#[tokio::test]
async fn with_no_window_each_daemon_begins_anew() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]);
    fs::write(world.path("config/xy/xyd.ron"), "(events: (keep: 0))").expect("written");
    for _ in 0..2 {
        let client = world.boot().await;
        ready(&client, "web").await;
        assert_eq!(held(&client, 1).await.numbers()[0], 1);
        world.signal(Signal::SIGTERM);
        assert_eq!(world.ended().await.code(), Some(0));
    }
    assert!(!world.path("state/xy/events.jsonl").exists());
}
