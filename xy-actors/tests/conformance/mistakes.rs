//! Mistakes that ports of the supervisor and its forks with delays have made.

use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;
use xy_actors::child::task;
use xy_actors::exit::Exit;
use xy_actors::policy::State;
use xy_actors::spec::{Backoff, ChildSpec, Strategy, SupervisorSpec};
use xy_actors::supervisor::{StopOutcome, Supervisor};
use xy_actors::testkit::{MockStart, MockStop};

use crate::support::{World, flags, key, millis, mock, permanent, pool, transient, with_shutdown, within};

fn fail() -> MockStart {
    MockStart::Fail("fails".to_owned())
}

fn delayed(id: &str, secs: u64) -> ChildSpec {
    let base = Duration::from_secs(secs);
    let backoff = Backoff { base, factor: 1.0, jitter: 0.0, max: base, ..Backoff::default() };
    ChildSpec { backoff: Some(backoff), ..permanent(id) }
}

async fn running(world: &World, id: &str) {
    world.tree.wait_for(id, |child| child.state == State::Running).await.expect("runs");
}

pub(crate) async fn intensity_and_period_are_heeded() {
    let world = World::of(within(Strategy::OneForOne, 2, 10), vec![permanent("a")]).await;
    for _ in 0..10 {
        world.crash("a").await;
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    world.lives().await;
    world.crash("a").await;
    world.crash("a").await;
    world.escalated().await;
}

pub(crate) async fn a_failed_restart_does_not_crash_the_supervisor() {
    let world = World::scripted(flags(Strategy::OneForOne, 5), vec![permanent("a")], |mock| {
        mock.starting([MockStart::Ready, fail(), MockStart::Panic])
    })
    .await;
    world.crash("a").await;
    running(&world, "a").await;
    assert_eq!(world.mock("a").starts(), 4);
}

pub(crate) async fn the_window_is_time_and_not_messages() {
    let world = World::of(within(Strategy::OneForOne, 2, 60), vec![permanent("a")]).await;
    for _ in 0..2 {
        world.crash("a").await;
        for _ in 0..1000 {
            world.lives().await;
        }
    }
    world.crash("a").await;
    world.escalated().await;
}

pub(crate) async fn children_are_killed_at_their_timeout() {
    let (sender, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    let deaf = task(move |_context| {
        let held = sender.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(with_shutdown(millis(100), transient("deaf")), deaf)
        .start()
        .await
        .expect("starts");
    let stopped = tree.terminate_child("deaf").await.expect("stops");
    assert!(matches!(stopped, StopOutcome::Stopped(report) if report.exit == Exit::Killed));
    tree.delete_child("deaf").await.expect("goes, and the recipe with it");
    assert_eq!(gone.try_recv(), Err(TryRecvError::Disconnected), "nothing of it is left");
}

pub(crate) async fn a_worker_that_ends_at_once_is_restarted_each_time() {
    let short = task(|_context| async { Ok(()) });
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 7))
        .child(permanent("short"), short)
        .start()
        .await
        .expect("starts");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);
    let world = World::of(flags(Strategy::OneForOne, 7), vec![transient("a")]).await;
    world.end("a", Exit::Normal).await;
    assert_eq!((world.tree.states().await.as_str(), world.mock("a").starts()), ("a:stopped", 1));
}

pub(crate) async fn a_pool_stops_although_a_child_was_ignored() {
    let tree = pool(1).await;
    let ignored = mock("a").starting([MockStart::Ignore]);
    tree.start_child(permanent("child"), ignored).await.expect("is ignored");
    assert!(tree.shutdown().await.is_clean());
}

pub(crate) async fn a_report_names_every_child_that_had_to_be_killed() {
    let tree = pool(1).await;
    for _ in 0..7 {
        let spec = with_shutdown(millis(10), permanent("child"));
        key(tree.start_child(spec, mock("child").stopping(MockStop::Stubborn)).await);
    }
    assert_eq!(tree.shutdown().await.killed.len(), 7);
}

pub(crate) async fn a_delayed_child_shows_as_restarting() {
    let world = World::of(flags(Strategy::OneForOne, 5), vec![delayed("a", 10)]).await;
    world.crash("a").await;
    assert_eq!(world.tree.states().await, "a:restarting");
    let planned = world.tree.which_child("a").await.expect("child").planned.expect("a plan");
    assert_eq!(planned.due_in, Duration::from_secs(10));
}

pub(crate) async fn terminate_and_delete_cancel_the_delay() {
    let world = World::of(flags(Strategy::OneForOne, 5), vec![delayed("a", 10)]).await;
    world.crash("a").await;
    assert_eq!(world.tree.terminate_child("a").await, Ok(StopOutcome::NotRunning));
    world.tree.delete_child("a").await.expect("goes");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((world.mock("a").starts(), world.tree.states().await.as_str()), (1, ""));
}

pub(crate) async fn a_failing_delayed_attempt_is_tried_again() {
    let world = World::scripted(flags(Strategy::OneForOne, 5), vec![delayed("a", 10)], |mock| {
        mock.starting([MockStart::Ready, fail(), fail()])
    })
    .await;
    let before = Instant::now();
    world.crash("a").await;
    running(&world, "a").await;
    assert_eq!((before.elapsed(), world.mock("a").starts()), (Duration::from_secs(30), 4));
}

pub(crate) async fn a_stale_timer_neither_starts_nor_swallows_the_next_delay() {
    let world = World::of(flags(Strategy::OneForOne, 5), vec![delayed("a", 10)]).await;
    world.crash("a").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.tree.terminate_child("a").await.expect("calls it off");
    key(world.tree.restart_child("a").await);
    world.crash("a").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.tree.states().await, "a:restarting", "the first delay would be over");
    running(&world, "a").await;
    assert_eq!(world.mock("a").starts(), 3);
}

pub(crate) async fn delays_of_one_group_are_merged() {
    let children = vec![delayed("a", 10), delayed("b", 30), permanent("c")];
    let world = World::of(flags(Strategy::OneForAll, 5), children).await;
    let before = Instant::now();
    world.crash("a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.mock("c").starts(), 1, "nobody runs during the delay");
    running(&world, "c").await;
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    assert_eq!(world.incarnations().await, "a:2 b:2 c:2");
}

pub(crate) async fn a_crash_during_a_siblings_delay_is_merged_with_it() {
    let children = vec![delayed("a", 30), permanent("b"), delayed("c", 10)];
    let world = World::of(flags(Strategy::RestForOne, 5), children).await;
    let before = Instant::now();
    world.crash("c").await;
    world.crash("a").await;
    running(&world, "c").await;
    assert_eq!(before.elapsed(), Duration::from_secs(30));
    assert_eq!(world.incarnations().await, "a:2 b:2 c:2");
}
