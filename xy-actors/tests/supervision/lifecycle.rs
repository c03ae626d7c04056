//! Start, crash, restart, stop and shutdown through the real supervisor actor.

use std::time::Duration;

use tokio::time::Instant;
use xy_actors::child::{StartErrorKind, task};
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::{Incarnation, State};
use xy_actors::spec::{
    Backoff, ChildSpec, OnLimit, RestartIntensity, RestartLimit, Shutdown, Strategy, SupervisorSpec,
};
use xy_actors::supervisor::{
    OperationError, SpawnTreeError, StartOutcome, StopOutcome, Supervisor, supervisor,
};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop};

use crate::support::{Mocks, flags, states};

#[tokio::test(start_paused = true)]
async fn children_start_in_order_and_stop_in_reverse() {
    let names = ["a", "b", "c"];
    let mocks = Mocks::new(&names);
    let tree = mocks.builder(flags(Strategy::OneForOne, 1), &names).start().await.expect("starts");
    assert_eq!(mocks.journal.take(), ["start a", "start b", "start c"]);
    let report = tree.shutdown().await;
    assert_eq!(report.exit, Exit::Shutdown);
    assert_eq!(mocks.journal.take(), ["stop c", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_child_is_restarted_and_its_cause_is_kept() {
    let mocks = Mocks::new(&["a"]);
    let tree = mocks.builder(flags(Strategy::OneForOne, 1), &["a"]).start().await.expect("starts");
    mocks.mocks[0].crash("boom");
    mocks.mocks[0].wait_for_start(2).await;
    let child = tree.which_child("a").await.expect("child");
    assert_eq!((child.state, child.restarts, child.incarnation), (State::Running, 1, Incarnation::new(2)));
    let last = child.last_exit.expect("an exit");
    assert_eq!(last.report.cause, Cause::Error { message: "boom".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn exceeding_the_intensity_ends_the_tree_escalated() {
    let mocks = Mocks::new(&["a", "b"]);
    let tree = mocks.builder(flags(Strategy::OneForOne, 1), &["a", "b"]).start().await.expect("starts");
    mocks.mocks[0].crash("one");
    mocks.mocks[0].wait_for_start(2).await;
    mocks.mocks[0].crash("two");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);
    assert_eq!(mocks.journal.take().last().map(String::as_str), Some("stop b"));
    assert_eq!(tree.which_children().await, Err(OperationError::SupervisorGone));
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_start_fails_the_tree_and_says_why() {
    let names = ["a", "b"];
    let journal = Journal::default();
    let a = MockChild::new("a", &journal);
    let b = MockChild::new("b", &journal).starting([MockStart::Fail("no disk".to_owned())]);
    let error = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::worker(names[0]), a)
        .child(ChildSpec::worker(names[1]), b)
        .start()
        .await
        .expect_err("fails");
    let SpawnTreeError::Ended(report) = &error else { panic!("{error:?}") };
    assert!(report.to_string().contains("no disk") && report.to_string().contains("`b`"), "{report}");
    assert_eq!(journal.take(), ["start a", "start b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_start_is_a_failed_start() {
    let journal = Journal::default();
    let a = MockChild::new("a", &journal).starting([MockStart::Panic]);
    let tree = Supervisor::builder(SupervisorSpec::default()).start().await.expect("starts");
    let error = tree.start_child(ChildSpec::worker("a"), a).await.expect_err("fails");
    let OperationError::StartFailed { cause, kind, .. } = error else { panic!("{error:?}") };
    assert_eq!(kind, StartErrorKind::Failed);
    assert_eq!(cause, Cause::StartFailed { message: "mock panics in its start".to_owned() });
    assert_eq!(states(&tree).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_child_is_killed_after_exactly_its_timeout() {
    let journal = Journal::default();
    let a = MockChild::new("a", &journal).stopping(MockStop::Stubborn);
    let spec = ChildSpec { shutdown: Shutdown::Timeout(Duration::from_secs(7)), ..ChildSpec::worker("a") };
    let tree = Supervisor::builder(SupervisorSpec::default()).child(spec, a).start().await.expect("starts");
    let before = Instant::now();
    let StopOutcome::Stopped(report) = tree.stop("a", None).await.expect("stops") else { panic!("it ran") };
    assert_eq!((report.exit, before.elapsed().as_secs()), (Exit::Killed, 7));
    assert_eq!(journal.take(), ["start a", "stop a", "kill a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_survives_its_kill_is_reported_as_leaked_and_not_waited_for() {
    let journal = Journal::default();
    let a = MockChild::new("a", &journal).stopping(MockStop::Immortal);
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("a"), a)
        .start()
        .await
        .expect("starts");
    let StopOutcome::Stopped(report) = tree.stop("a", None).await.expect("stops") else { panic!("it ran") };
    assert_eq!(report.cause, Cause::Leaked);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_gives_up_and_costs_its_siblings_nothing() {
    let journal = Journal::default();
    let bad = MockChild::new("bad", &journal);
    bad.always(MockStart::Fail("exit code 1".to_owned()));
    let good = MockChild::new("good", &journal);
    let spec = ChildSpec {
        backoff: Some(Backoff { jitter: 0.0, ..Backoff::default() }),
        limit: Some(RestartLimit {
            intensity: RestartIntensity::new(5, Duration::from_secs(60)),
            on_limit: OnLimit::GiveUp,
        }),
        retain: true,
        ..ChildSpec::worker("bad")
    };
    let flags = SupervisorSpec {
        intensity: None,
        order: xy_actors::spec::Order::Concurrent,
        ..SupervisorSpec::default()
    };
    let before = Instant::now();
    let tree = Supervisor::builder(flags)
        .child(spec, bad.clone())
        .child(ChildSpec::worker("good"), good.clone())
        .spawn()
        .await
        .expect("spawns");
    tree.started().await.expect("starts once the bad one has given up");
    assert_eq!(before.elapsed().as_secs(), 31, "1 + 2 + 4 + 8 + 16 seconds");
    assert_eq!((bad.starts(), good.starts()), (6, 1));
    assert_eq!(states(&tree).await, "bad:failed good:running");
}

#[tokio::test(start_paused = true)]
async fn stop_during_a_backoff_is_answered_without_time_passing() {
    let journal = Journal::default();
    let a = MockChild::new("a", &journal);
    let spec = ChildSpec { backoff: Some(Backoff::default()), ..ChildSpec::worker("a") };
    let tree =
        Supervisor::builder(SupervisorSpec::default()).child(spec, a.clone()).start().await.expect("starts");
    a.crash("boom");
    let mut events = tree.events(xy_actors::event::stream::EventCursor::Seq(1));
    crate::events::until(&mut events, "child_exited").await;
    let before = Instant::now();
    assert_eq!(states(&tree).await, "a:restarting");
    assert_eq!(tree.stop("a", None).await, Ok(StopOutcome::NotRunning));
    assert_eq!(before.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((a.starts(), states(&tree).await.as_str()), (1, "a:stopped"));
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_stops_crashes_and_panics_as_its_future_says() {
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 10)).start().await.expect("starts");
    let waits = task(|context| async move {
        context.stopped().await;
        Ok(())
    });
    tree.start_child(ChildSpec::worker("waits"), waits).await.expect("starts");
    let StopOutcome::Stopped(report) = tree.stop("waits", None).await.expect("stops") else { panic!() };
    assert_eq!(report.exit, Exit::Shutdown);

    let deaf = task(|_| std::future::pending());
    tree.start_child(ChildSpec::worker("deaf"), deaf).await.expect("starts");
    let StopOutcome::Stopped(report) = tree.stop("deaf", None).await.expect("stops") else { panic!() };
    assert_eq!((report.exit, report.cause.clone()), (Exit::Killed, Cause::Aborted));

    for (id, panics) in [("fails", false), ("panics", true)] {
        let once = task(move |context| async move {
            if context.incarnation() > Incarnation::new(1) {
                std::future::pending::<()>().await;
            }
            assert!(!panics, "boom");
            Err("boom".into())
        });
        tree.start_child(ChildSpec::worker(id), once).await.expect("starts");
        let mut events = tree.events(xy_actors::event::stream::EventCursor::Seq(1));
        crate::events::until_path(&mut events, "child_exited", id).await;
        let child = tree.which_child(id).await.expect("child");
        assert_eq!(child.last_exit.expect("exit").report.cause, Cause::Error { message: "boom".to_owned() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_signals_readiness_starts_only_then() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let slow = task(move |context| {
        let mut gate = gate.clone();
        async move {
            drop(gate.wait_for(|open| *open).await);
            context.ready();
            context.stopped().await;
            Ok(())
        }
    })
    .signals_ready();
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("slow"), slow)
        .spawn()
        .await
        .expect("spawns");
    assert_eq!(states(&tree).await, "slow:starting");
    go.send_replace(true);
    tree.started().await.expect("starts");
    assert_eq!(states(&tree).await, "slow:running");
    tree.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_nested_supervisor_that_gives_up_is_restarted_by_its_parent_with_all_its_children() {
    let journal = Journal::default();
    let leaf = MockChild::new("leaf", &journal);
    let nested = supervisor(flags(Strategy::OneForOne, 0)).child(ChildSpec::worker("leaf"), leaf.clone());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    leaf.crash("boom");
    leaf.wait_for_start(2).await;
    let mut events = tree.events(xy_actors::event::stream::EventCursor::Seq(1));
    crate::events::until_path(&mut events, "child_exited", "nested").await;
    let child = tree.which_child("nested").await.expect("child");
    assert_eq!(child.last_exit.expect("exit").report.exit, Exit::Escalated);
    let inner = tree.child_supervisor("nested").await.expect("a supervisor");
    assert_eq!(inner.which_children().await.expect("lives")[0].path.as_str(), "nested/leaf");
    // Twice more, and the parent gives up too.
    leaf.crash("boom");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);
}

#[tokio::test(start_paused = true)]
async fn an_update_gives_the_next_incarnation_a_new_recipe_and_leaves_the_current_one_alone() {
    let journal = Journal::default();
    let old = MockChild::new("old", &journal);
    let new = MockChild::new("new", &journal);
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 5))
        .child(ChildSpec::worker("a"), old.clone())
        .start()
        .await
        .expect("starts");
    tree.update(ChildSpec::worker("a"), Some(Box::new(new))).await.expect("updates");
    assert_eq!(journal.take(), ["start old"]);
    let outcome = tree.restart("a", Some("new version".to_owned())).await.expect("restarts");
    assert!(matches!(outcome, StartOutcome::Started { .. }));
    assert_eq!(journal.take(), ["stop old", "start new"]);
    let (_, history) = tree.which_child_with_history("a").await.expect("child");
    assert!(history.transitions.iter().any(|t| t.reason().contains("new version")), "{history:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_timeout_names_itself_as_the_cause() {
    let journal = Journal::default();
    let slow = MockChild::new("slow", &journal).starting([MockStart::Running]);
    let spec = ChildSpec { start_timeout: Some(Duration::from_secs(300)), ..ChildSpec::worker("slow") };
    let tree = Supervisor::builder(SupervisorSpec::default()).start().await.expect("starts");
    let error = tree.start_child(spec, slow).await.expect_err("times out");
    let OperationError::StartFailed { cause, .. } = error else { panic!("{error:?}") };
    assert!(matches!(cause, Cause::StartTimeout { .. }), "{cause:?}");
}
