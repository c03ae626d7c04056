//! What OTP's suite does not cover: boundaries, pacing, order and outcomes, as observed on OTP by running it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use xy_actors::child::{Child, Running, StartContext, StartFuture, Started, task};
use xy_actors::event::ChildReport;
use xy_actors::event::stream::{EventCursor, EventItem, EventKind};
use xy_actors::exit::Exit;
use xy_actors::policy::{Refusal, State};
use xy_actors::spec::{AutoShutdown, ChildSpec, RestartType, Shutdown, SpecError, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, SpawnTreeError, StopOutcome, Supervisor, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop, TestTree};

use crate::support::{
    World, flags, key, millis, mock, permanent, pool, started, temporary, transient, with_shutdown, within,
};

fn fail() -> MockStart {
    MockStart::Fail("fails".to_owned())
}

fn three() -> Vec<ChildSpec> {
    vec![permanent("a"), permanent("b"), permanent("c")]
}

pub(crate) async fn exact_intensity_boundary() {
    for intensity in [0, 1, 5] {
        let world = World::of(flags(Strategy::OneForOne, intensity), vec![permanent("a")]).await;
        for _ in 0..intensity {
            world.crash("a").await;
            assert_eq!(world.tree.states().await, "a:running");
        }
        world.crash("a").await;
        world.escalated().await;
        assert_eq!(world.mock("a").starts(), u64::from(intensity) + 1);
    }
}

pub(crate) async fn window_arithmetic() {
    for (apart, survives) in [(1000, false), (1001, true)] {
        let world = World::of(within(Strategy::OneForOne, 1, 1), vec![permanent("a")]).await;
        world.crash("a").await;
        tokio::time::sleep(Duration::from_millis(apart)).await;
        world.crash("a").await;
        assert_eq!(world.tree.count_children().await.is_ok(), survives, "{apart} ms apart");
    }
}

pub(crate) async fn retry_count_and_pacing() {
    let world = World::scripted(flags(Strategy::OneForOne, 5), vec![permanent("a")], |mock| {
        mock.always(fail());
        mock.starting([MockStart::Ready])
    })
    .await;
    world.mock("a").crash("boom");
    world.escalated().await;
    assert_eq!(world.mock("a").starts(), 1 + 5);
}

pub(crate) async fn manual_restart_does_not_count() {
    let world = World::of(flags(Strategy::OneForOne, 0), vec![permanent("a")]).await;
    for _ in 0..20 {
        world.tree.terminate_child("a").await.expect("stops");
        key(world.tree.restart_child("a").await);
    }
    world.crash("a").await;
    world.escalated().await;
}

pub(crate) async fn siblings_at_rest_come_back_with_their_group() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let children = vec![permanent("a"), permanent("stopped"), transient("ended"), permanent("ignored")];
        let world = World::scripted(flags(strategy, 2), children, |mock| match mock.name() {
            "ignored" => mock.starting([MockStart::Ignore]),
            _ => mock,
        })
        .await;
        world.tree.terminate_child("stopped").await.expect("stops");
        world.end("ended", Exit::Normal).await;
        assert_eq!(world.tree.states().await, "a:running stopped:stopped ended:stopped ignored:stopped");
        world.crash("a").await;
        assert_eq!(world.tree.states().await, "a:running stopped:running ended:running ignored:running");
    }
}

pub(crate) async fn unwinding_order_of_a_failed_start() {
    let journal = Journal::default();
    let mut builder = Supervisor::builder(flags(Strategy::OneForOne, 5));
    for id in ["a", "b", "c", "d"] {
        let mock = MockChild::new(id, &journal);
        builder = builder.child(permanent(id), if id == "c" { mock.starting([fail()]) } else { mock });
    }
    builder.start().await.expect_err("fails");
    assert_eq!(journal.take(), ["start a", "start b", "start c", "stop b", "stop a"]);
}

pub(crate) async fn who_can_end_a_supervisor() {
    let world = World::of(SupervisorSpec::default(), three()).await;
    // Whoever merely knows it ends nothing by going.
    drop(world.tree.clone());
    drop(world.tree.events(EventCursor::Now));
    let asking = tokio::spawn({
        let tree = world.tree.clone();
        async move { tree.wait_for("a", |child| child.state == State::Failed).await.map(drop) }
    });
    tokio::task::yield_now().await;
    asking.abort();
    drop(asking.await);
    assert_eq!(world.tree.states().await, "a:running b:running c:running");
    // Its parent ends it, children in reverse.
    let leaf = mock("leaf");
    let nested = supervisor(SupervisorSpec::default()).child(permanent("leaf"), leaf);
    key(world.tree.start_child(ChildSpec::supervisor("nested"), nested).await);
    let nested = world.tree.child_supervisor("nested").await.expect("a supervisor");
    world.tree.terminate_child("nested").await.expect("stops");
    assert_eq!(nested.ended().await.exit, Exit::Shutdown);
    assert_eq!(nested.shutdown().await.stopped.len(), 1);
}

async fn is_clean(shutdown: Shutdown, restart: RestartType, stop: MockStop) -> Option<bool> {
    let spec = ChildSpec { restart, shutdown, ..ChildSpec::worker("a") };
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(spec, mock("a").stopping(stop))
        .start()
        .await
        .expect("starts");
    let mut events = tree.events(EventCursor::Now);
    tree.shutdown().await;
    while let Some(item) = events.next().await {
        if let EventItem::Event(event) = item
            && let EventKind::Child { report: ChildReport::Stopped { clean, .. }, .. } = event.kind
        {
            return Some(clean);
        }
    }
    None
}

pub(crate) async fn which_stops_are_reported_as_unclean() {
    let grace = millis(1000);
    for restart in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
        let table = [
            (grace, MockStop::Obey, true),
            (grace, MockStop::EndWith(Exit::Normal), true),
            (grace, MockStop::EndWith(Exit::Abnormal), false),
            (grace, MockStop::Stubborn, false),
            (Shutdown::BrutalKill, MockStop::Obey, true),
        ];
        for (shutdown, stop, expected) in table {
            let clean = is_clean(shutdown, restart, stop).await;
            assert_eq!(clean, Some(expected), "{restart:?} {shutdown:?} {stop:?}");
        }
    }
}

pub(crate) async fn transient_supervisor_over_its_intensity() {
    let leaf = mock("leaf");
    let nested = supervisor(flags(Strategy::OneForOne, 0)).child(permanent("leaf"), leaf.clone());
    let spec = ChildSpec { restart: RestartType::Transient, ..ChildSpec::supervisor("nested") };
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 5)).child(spec, nested).start().await.expect("starts");
    leaf.crash_and_restart("boom").await;
    let child = tree.wait_for("nested", |child| child.ready).await.expect("is restarted");
    assert_eq!(child.last_exit.expect("an exit").report.exit, Exit::Escalated);
}

pub(crate) async fn sequential_and_parallel_stop_time() {
    let slow = || mock("slow").stopping(MockStop::After(Duration::from_millis(200)));
    let mut builder = Supervisor::builder(SupervisorSpec::default());
    for n in 0..5 {
        builder = builder.child(permanent(&format!("child{n}")), slow());
    }
    let tree = builder.start().await.expect("starts");
    let before = Instant::now();
    tree.shutdown().await;
    assert_eq!(before.elapsed(), Duration::from_secs(1));
    let tree = pool(1).await;
    for _ in 0..5 {
        started(&tree, permanent("child"), &slow()).await;
    }
    let before = Instant::now();
    tree.shutdown().await;
    assert_eq!(before.elapsed(), Duration::from_millis(200));
}

pub(crate) async fn all_significant_with_a_hand_stopped_member() {
    let significant = |id| ChildSpec { significant: true, ..transient(id) };
    let spec =
        || SupervisorSpec { auto_shutdown: AutoShutdown::AllSignificant, ..flags(Strategy::OneForOne, 5) };
    let world = World::of(spec(), vec![significant("a"), significant("b")]).await;
    world.tree.terminate_child("a").await.expect("stops");
    world.end("b", Exit::Normal).await;
    assert_eq!(world.tree.ended().await.exit, Exit::Shutdown);
    let world = World::of(spec(), vec![significant("a"), significant("b")]).await;
    world.end("b", Exit::Normal).await;
    world.tree.terminate_child("a").await.expect("stops");
    assert_eq!(world.tree.states().await, "a:stopped b:stopped");
}

pub(crate) async fn two_children_dead_at_once() {
    for (strategy, survives) in [(Strategy::OneForAll, true), (Strategy::OneForOne, false)] {
        let world = World::of(flags(strategy, 1), three()).await;
        world.mock("a").crash("boom");
        world.mock("c").crash("boom");
        if survives {
            world
                .tree
                .wait_for("c", |child| child.incarnation.get() == 2 && child.ready)
                .await
                .expect("runs");
            assert_eq!(world.incarnations().await, "a:2 b:2 c:2");
        } else {
            world.escalated().await;
        }
    }
}

pub(crate) async fn partial_restart_failure() {
    let script = |mock: MockChild| match mock.name() {
        "b" => mock.starting([MockStart::Ready, fail()]),
        _ => mock,
    };
    let all = World::scripted(flags(Strategy::OneForAll, 5), three(), script).await;
    all.crash("a").await;
    all.tree.wait_for("c", |child| child.state == State::Running).await.expect("comes back");
    assert_eq!(
        all.journal.take(),
        ["stop c", "stop b", "start a", "start b", "stop a", "start a", "start b", "start c"]
    );
    let rest = World::scripted(flags(Strategy::RestForOne, 5), three(), script).await;
    rest.crash("a").await;
    rest.tree.wait_for("c", |child| child.state == State::Running).await.expect("comes back");
    assert_eq!(rest.journal.take(), ["stop c", "stop b", "start a", "start b", "start b", "start c"]);
}

pub(crate) async fn position_of_a_readded_temporary() {
    let mut world = World::of(SupervisorSpec::default(), vec![temporary("a"), permanent("b")]).await;
    world.crash("a").await;
    world.add_obedient(temporary("a")).await;
    assert_eq!(world.tree.states().await, "b:running a:running");
    world.crash("b").await;
    assert_eq!(world.tree.states().await, "b:running a:running", "a restart keeps the place");
}

pub(crate) async fn slow_stops_and_the_window() {
    let world = World::scripted(within(Strategy::OneForAll, 1, 1), three(), |mock| match mock.name() {
        "c" => mock.stopping(MockStop::After(Duration::from_millis(2100))),
        _ => mock,
    })
    .await;
    for starts in 2..6 {
        world.mock("a").crash_and_restart("boom").await;
        assert_eq!(world.mock("a").starts(), starts);
        world.tree.wait_for("c", |child| child.ready).await.expect("comes back");
    }
}

pub(crate) async fn nesting_multiplies_the_intensities() {
    let leaf = mock("leaf");
    let nested = supervisor(flags(Strategy::OneForOne, 2)).child(permanent("leaf"), leaf.clone());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    for start in 1..=6 {
        leaf.wait_for_start(start).await;
        leaf.crash("boom");
    }
    assert_eq!((tree.ended().await.exit, leaf.starts()), (Exit::Escalated, 6));
}

pub(crate) async fn temporary_sibling_of_a_group() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let world = World::of(flags(strategy, 2), vec![permanent("a"), temporary("b")]).await;
        world.crash("a").await;
        assert_eq!(world.incarnations().await, "a:2");
    }
}

pub(crate) async fn the_restarting_state_is_answered() {
    let waiting = ChildSpec { backoff: Some(xy_actors::spec::Backoff::default()), ..permanent("a") };
    let world = World::of(flags(Strategy::OneForOne, 5), vec![waiting.clone()]).await;
    world.crash("a").await;
    assert_eq!(world.tree.states().await, "a:restarting");
    assert_eq!(world.tree.counts().await, [1, 0, 0, 1]);
    let refused = |result: Result<(), OperationError>| match result {
        Err(OperationError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        refused(world.tree.start_child(waiting, mock("a")).await.map(drop)),
        Refusal::AlreadyPresent(_)
    ));
    assert_eq!(refused(world.tree.restart_child("a").await.map(drop)), Refusal::Restarting);
    assert_eq!(refused(world.tree.delete_child("a").await), Refusal::Restarting);
    assert_eq!(world.tree.terminate_child("a").await, Ok(StopOutcome::NotRunning));
    assert_eq!(world.tree.states().await, "a:stopped");
}

pub(crate) async fn ignore_on_an_automatic_restart() {
    let world = World::scripted(flags(Strategy::OneForOne, 1), vec![permanent("a")], |mock| {
        mock.starting([MockStart::Ready, MockStart::Ignore])
    })
    .await;
    world.crash("a").await;
    assert_eq!(world.tree.states().await, "a:stopped");
    key(world.tree.restart_child("a").await);
    world.crash("a").await;
    world.escalated().await;
}

pub(crate) async fn killing_a_supervisor_reaches_its_whole_subtree() {
    let leaf = mock("leaf").stopping(MockStop::Stubborn);
    let nested = supervisor(SupervisorSpec::default()).child(permanent("leaf"), leaf);
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    let report = tree.kill().await;
    assert_eq!(crate::support::paths(&report.killed), ["nested/leaf", "nested"]);
}

pub(crate) async fn duplicate_ids_are_refused_before_anything_starts() {
    let child = mock("a");
    let error = Supervisor::builder(SupervisorSpec::default())
        .child(permanent("a"), child.clone())
        .child(permanent("a"), child.clone())
        .start()
        .await
        .expect_err("fails");
    assert_eq!(error, SpawnTreeError::Spec(SpecError::DuplicateId("a".into())));
    assert_eq!(child.starts(), 0);
}

pub(crate) async fn uncounted_ends() {
    let mut world = World::of(flags(Strategy::OneForOne, 0), vec![transient("a"), temporary("b")]).await;
    world.end("a", Exit::Normal).await;
    world.end("b", Exit::Killed).await;
    world.add_obedient(temporary("b")).await;
    world.crash("b").await;
    assert_eq!(world.tree.states().await, "a:stopped");
}

pub(crate) async fn restarting_children_of_a_pool_are_counted_right() {
    let tree = pool(8).await;
    let child = mock("a");
    let spec = ChildSpec { backoff: Some(xy_actors::spec::Backoff::default()), ..permanent("a") };
    let key = started(&tree, spec, &child).await;
    child.crash("boom");
    assert_eq!(tree.counts().await, [1, 0, 0, 1]);
    tree.terminate_child(key).await.expect("is called off");
    assert_eq!(tree.counts().await, [1, 0, 0, 0]);
}

pub(crate) async fn an_exit_during_a_stop_is_consumed() {
    let slow = with_shutdown(millis(5000), permanent("a"));
    let stubborn = |mock: MockChild| mock.stopping(MockStop::Stubborn);
    let world = World::scripted(flags(Strategy::OneForOne, 0), vec![slow], stubborn).await;
    let (stopped, ()) = tokio::join!(world.tree.terminate_child("a"), async {
        world.lives().await;
        world.mock("a").crash("on its own");
    });
    let Ok(StopOutcome::Stopped(report)) = stopped else { panic!("{stopped:?}") };
    assert_eq!((report.exit, world.mock("a").starts()), (Exit::Abnormal, 1));
    world.lives().await;
}

pub(crate) async fn a_dynamic_supervisor_takes_full_specs_up_to_its_bound() {
    let spec = SupervisorSpec { max_children: Some(2), ..flags(Strategy::SimpleOneForOne, 3) };
    let tree = TestTree::new(Supervisor::builder(spec).start().await.expect("starts"));
    started(&tree, temporary("same"), &mock("a")).await;
    let key = started(&tree, ChildSpec::supervisor("same"), &mock("b")).await;
    let error = tree.start_child(permanent("c"), mock("c")).await.expect_err("is full");
    assert!(matches!(error, OperationError::Refused { refusal: Refusal::MaxChildren(2), .. }), "{error:?}");
    assert_eq!(tree.counts().await, [1, 2, 1, 1]);
    tree.terminate_child(key).await.expect("stops");
    started(&tree, permanent("c"), &mock("c")).await;
}

pub(crate) async fn an_ignored_significant_child_is_not_left() {
    let significant = |id| ChildSpec { significant: true, ..transient(id) };
    let spec =
        SupervisorSpec { auto_shutdown: AutoShutdown::AllSignificant, ..flags(Strategy::OneForOne, 5) };
    let world =
        World::scripted(spec, vec![significant("ignored"), significant("b")], |mock| match mock.name() {
            "ignored" => mock.starting([MockStart::Ignore]),
            _ => mock,
        })
        .await;
    world.lives().await;
    world.end("b", Exit::Normal).await;
    assert_eq!(world.tree.ended().await.exit, Exit::Shutdown);
}

pub(crate) async fn killed_is_abnormal() {
    let world = World::of(flags(Strategy::OneForOne, 1), vec![transient("a")]).await;
    world.end("a", Exit::Killed).await;
    assert_eq!(world.incarnations().await, "a:2");
    world.end("a", Exit::Killed).await;
    world.escalated().await;
}

pub(crate) async fn giving_up_is_reported_in_order() {
    let mut world = World::scripted(flags(Strategy::OneForOne, 2), three(), |mock| match mock.name() {
        "b" => {
            mock.always(fail());
            mock.starting([MockStart::Ready])
        }
        _ => mock,
    })
    .await;
    world.mock("b").crash("boom");
    world.escalated().await;
    assert_eq!(
        world.tree.happened(),
        [
            "child_exited b",
            "child_starting b",
            "child_start_failed b",
            "child_starting b",
            "child_start_failed b",
            "supervisor_limit_reached",
            "supervisor_ending",
            "child_stopping c",
            "child_stopped c",
            "child_stopping a",
            "child_stopped a",
            "supervisor_ended",
        ]
    );
}

pub(crate) async fn the_report_of_an_end_tells_what_became_of_each_child() {
    let journal = Journal::default();
    let nested = supervisor(SupervisorSpec::default())
        .child(permanent("good"), MockChild::new("good", &journal))
        .child(with_shutdown(millis(100), permanent("stubborn")), mock("s").stopping(MockStop::Stubborn));
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 0))
        .child(ChildSpec::supervisor("nested"), nested)
        .child(permanent("fails"), mock("f").stopping(MockStop::EndWith(Exit::Abnormal)))
        .child(with_shutdown(millis(100), permanent("immortal")), mock("i").stopping(MockStop::Immortal))
        .start()
        .await
        .expect("starts");
    let report = tree.shutdown().await;
    assert_eq!(crate::support::paths(&report.stopped), ["nested/good", "nested"]);
    assert_eq!(crate::support::paths(&report.failed), ["fails"]);
    assert_eq!(crate::support::paths(&report.killed), ["nested/stubborn"]);
    assert_eq!(crate::support::paths(&report.leaked), ["immortal"]);
    assert!(!report.is_clean());
    assert_eq!(tree.shutdown().await, report, "the answer stays");
}

/// Counts how many of its kind are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A child that takes its supervisor along when it is asked to stop.
struct Poisonous;

impl Child for Poisonous {
    fn start(&self, _context: StartContext) -> StartFuture {
        Box::pin(std::future::ready(Ok(Started::Ready(Box::new(Self)))))
    }
}

impl Running for Poisonous {
    fn stop(&mut self) {
        panic!("poison");
    }

    fn kill(&mut self) {}
}

pub(crate) async fn a_supervisor_that_panics_is_a_crash_to_its_parent() {
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = alive.clone();
    let leaf = task(move |context| {
        let one = Alive::one_more(&counted);
        async move {
            context.stopped().await;
            drop(one);
            Ok(())
        }
    });
    let nested = supervisor(SupervisorSpec::default())
        .child(permanent("leaf"), leaf)
        .child(permanent("bad"), Poisonous);
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    let nested = tree.child_supervisor("nested").await.expect("a supervisor");
    assert_eq!(nested.terminate_child("bad").await, Err(OperationError::SupervisorGone));
    assert_eq!(nested.ended().await.exit, Exit::Killed);
    tree.wait_for("nested", |child| child.incarnation.get() == 2 && child.ready).await.expect("is rebuilt");
    let rebuilt = tree.child_supervisor("nested").await.expect("a supervisor");
    rebuilt.wait_for("leaf", |child| child.ready).await.expect("runs");
    tokio::task::yield_now().await;
    assert_eq!(alive.load(Ordering::Relaxed), 1, "nothing of the first one is left");
}
