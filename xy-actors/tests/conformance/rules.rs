//! Rules of OTP that no case of its suite and no topic holds to the letter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus};
use tokio::time::Instant;
use xy_actors::child::actor_with;
use xy_actors::event::stream::EventKind;
use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::Exit;
use xy_actors::policy::State;
use xy_actors::spec::{AutoShutdown, Backoff, ChildSpec, RestartType, Shutdown, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, StartOutcome, StopOutcome, Supervisor, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop};

use crate::support::{
    World, flags, key, millis, mock, permanent, pool, started, temporary, transient, with_shutdown,
};

const HOUR: Duration = Duration::from_secs(3600);

fn fail() -> MockStart {
    MockStart::Fail("fails".to_owned())
}

fn significant(spec: ChildSpec) -> ChildSpec {
    ChildSpec { significant: true, ..spec }
}

/// Restarted only after a delay.
fn delayed(spec: ChildSpec) -> ChildSpec {
    ChildSpec { backoff: Some(Backoff::default()), ..spec }
}

pub(crate) async fn blocking_start() {
    let journal = Journal::default();
    let second = Duration::from_secs(1);
    let slow = |name: &str| MockChild::new(name, &journal).starting([MockStart::ReadyAfter(second)]);
    let mocks = ["a", "b", "c"].map(slow);
    let mut builder = Supervisor::builder(flags(Strategy::OneForOne, 1));
    for mock in &mocks {
        builder = builder.child(permanent(mock.name()), mock.clone());
    }
    let before = Instant::now();
    let tree = builder.spawn().await.expect("spawns");
    for (earlier, mock) in (0..).zip(&mocks) {
        mock.wait_for_start(1).await;
        assert_eq!(tree.which_child(mock.name()).await.expect("is answered").state, State::Starting);
        assert_eq!(before.elapsed(), second * earlier, "begun when the one before it was ready");
        assert_eq!(journal.take(), [format!("start {}", mock.name())]);
    }
    tree.started().await.expect("starts");
    let before = Instant::now();
    let added = slow("added");
    let (outcome, ()) = tokio::join!(tree.start_child(permanent("added"), added.clone()), async {
        added.wait_for_start(1).await;
        mocks[0].crash_and_restart("boom").await;
        assert_eq!(before.elapsed(), Duration::ZERO, "an exit is seen and dealt with during a start");
    });
    key(outcome);
    assert_eq!(before.elapsed(), second);
}

/// An actor that removes its link to the supervisor, then fails.
struct Loose(ActorCell);

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Loose {
    type Msg = bool;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<bool>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<bool>,
        fails: bool,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        myself.get_cell().unlink(self.0.clone());
        if fails { Err("told to".into()) } else { Ok(()) }
    }
}

/// An actor that links itself to a supervisor that did not start it, then ends, as it is told.
struct Stranger;

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Stranger {
    type Msg = bool;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<bool>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<bool>,
        fails: bool,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if fails {
            return Err("told to".into());
        }
        myself.stop(None);
        Ok(())
    }
}

/// A tree with an actor that removes its link when it gets a message, and the supervisor's cell.
async fn tree_with_a_loose_child() -> (Supervisor, ActorCell) {
    let seen: Arc<Mutex<Option<ActorCell>>> = Arc::default();
    let noted = seen.clone();
    let loose = actor_with(move |context| {
        *noted.lock().expect("no panic") = Some(context.supervisor());
        (Loose(context.supervisor()), ())
    });
    let spec = with_shutdown(millis(1000), permanent("loose"));
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1)).child(spec, loose);
    let tree = tree.start().await.expect("starts");
    let cell = seen.lock().expect("no panic").take();
    (tree, cell.expect("was started"))
}

pub(crate) async fn unlinked_child() {
    let (tree, _) = tree_with_a_loose_child().await;
    for fails in [false, true] {
        tree.terminate_child("loose").await.expect("stops");
        let outcome = tree.restart_child("loose").await.expect("starts");
        let StartOutcome::Started { info: Some(info), .. } = outcome else { panic!("{outcome:?}") };
        let cell = info.get::<ActorCell>().expect("an actor hands back its cell").clone();
        ActorRef::<bool>::from(cell.clone()).send_message(fails).expect("lives");
        while cell.try_get_supervisor().is_some() || (fails && cell.get_status() != ActorStatus::Stopped) {
            tokio::task::yield_now().await;
        }
        let child = tree.which_child("loose").await.expect("child");
        assert_eq!((child.state, child.restarts), (State::Running, 0), "whether it lives or not");
        let StopOutcome::Stopped(report) = tree.terminate_child("loose").await.expect("stops") else {
            panic!("it was taken to run")
        };
        let exit = if fails { Exit::Killed } else { Exit::Shutdown };
        assert_eq!(report.exit, exit, "one that lives obeys, of one that is gone the reason is lost");
        key(tree.restart_child("loose").await);
    }
    assert!(tree.shutdown().await.is_clean());
}

pub(crate) async fn what_is_no_child_ends_nothing() {
    let (tree, cell) = tree_with_a_loose_child().await;
    for fails in [false, true] {
        let (stranger, ended) = Actor::spawn_linked(None, Stranger, (), cell.clone()).await.expect("starts");
        stranger.send_message(fails).expect("lives");
        ended.await.expect("ends");
        let children = tree.which_children().await.expect("lives");
        assert_eq!((children.len(), children[0].restarts), (1, 0));
    }
}

pub(crate) async fn a_stop_asks_waits_and_kills_as_its_child_says() {
    let children = vec![
        with_shutdown(Shutdown::Infinity, permanent("patient")),
        with_shutdown(millis(700), permanent("late")),
        with_shutdown(millis(0), permanent("at once")),
        with_shutdown(Shutdown::BrutalKill, permanent("brutal")),
    ];
    let world = World::scripted(SupervisorSpec::default(), children, |mock| match mock.name() {
        "patient" => mock.stopping(MockStop::After(HOUR)),
        _ => mock.stopping(MockStop::Stubborn),
    })
    .await;
    let table = [
        ("patient", Exit::Shutdown, HOUR, vec!["stop patient"]),
        ("late", Exit::Killed, Duration::from_millis(700), vec!["stop late", "kill late"]),
        ("at once", Exit::Killed, Duration::ZERO, vec!["stop at once", "kill at once"]),
        ("brutal", Exit::Killed, Duration::ZERO, vec!["kill brutal"]),
    ];
    for (id, exit, takes, journal) in table {
        let before = Instant::now();
        let stopped = world.tree.terminate_child(id).await;
        let Ok(StopOutcome::Stopped(report)) = stopped else { panic!("{stopped:?}") };
        assert_eq!((report.exit, before.elapsed()), (exit, takes));
        assert_eq!(world.journal.take(), journal);
        assert_eq!(world.tree.which_child(id).await.expect("is kept").state, State::Stopped);
    }
}

pub(crate) async fn a_pool_ends_although_a_restart_is_pending() {
    let tree = pool(5).await;
    let child = mock("child");
    started(&tree, delayed(permanent("child")), &child).await;
    started(&tree, permanent("child"), &mock("obedient")).await;
    child.crash("boom");
    assert_eq!(tree.states().await, "child:restarting child:running");
    let report = tree.shutdown().await;
    assert_eq!((report.exit, report.is_clean(), report.stopped.len()), (Exit::Shutdown, true, 1));
    assert_eq!(child.starts(), 1);
}

pub(crate) async fn a_supervisor_that_was_stopped_is_restarted_and_counted() {
    let leaf = mock("leaf");
    let nested = supervisor(SupervisorSpec::default()).child(permanent("leaf"), leaf.clone());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    for starts in [1, 2] {
        tree.wait_for("nested", |child| child.ready && child.incarnation.get() == starts)
            .await
            .expect("runs");
        let nested = tree.child_supervisor("nested").await.expect("a supervisor");
        assert_eq!(nested.shutdown_as(Exit::Normal, None).await.exit, Exit::Normal);
    }
    assert_eq!((tree.ended().await.exit, leaf.starts()), (Exit::Escalated, 2));
}

pub(crate) async fn restart_type_and_exit_decide_together() {
    for restart in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
        for exit in [Exit::Normal, Exit::Shutdown, Exit::Abnormal, Exit::Killed, Exit::Escalated] {
            let spec = ChildSpec { restart, ..permanent("a") };
            let mut world = World::of(flags(Strategy::OneForOne, 1), vec![spec]).await;
            world.end("a", exit).await;
            let event = world.tree.expect("child_exited", "a").await;
            let EventKind::Child { report, .. } = event.kind else { panic!("about a child") };
            let restarted = Next::Restart { delay: Duration::ZERO, nth: 1, of: Some(1) };
            let asked_to_stop = matches!(exit, Exit::Normal | Exit::Shutdown);
            let (next, states) = match (restart, asked_to_stop) {
                (RestartType::Permanent, _) | (RestartType::Transient, false) => (restarted, "a:running"),
                (RestartType::Transient, true) => (Next::Rest, "a:stopped"),
                (RestartType::Temporary, _) => (Next::Removed, ""),
            };
            assert_eq!(report, ChildReport::Exited { exit, next }, "{restart:?}");
            assert_eq!(world.tree.states().await, states, "{restart:?} {exit}");
        }
    }
}

pub(crate) async fn one_for_all_stops_the_newest_first_and_starts_in_order() {
    let world = World::of(flags(Strategy::OneForAll, 1), ["a", "b", "c"].map(permanent).to_vec()).await;
    world.crash("b").await;
    assert_eq!(world.journal.take(), ["stop c", "stop a", "start a", "start b", "start c"]);
    assert_eq!(world.incarnations().await, "a:2 b:2 c:2");
}

/// A child that ran once and cannot be started, under a supervisor that never tires of trying.
async fn hopeless() -> World {
    let world = World::scripted(flags(Strategy::OneForOne, u32::MAX), vec![permanent("a")], |mock| {
        mock.always(fail());
        mock.starting([MockStart::Ready])
    })
    .await;
    world.mock("a").crash("boom");
    world.mock("a").wait_for_start(3).await;
    world
}

pub(crate) async fn calls_are_served_between_attempts() {
    let world = hopeless().await;
    let starts = world.mock("a").starts();
    world.mock("a").wait_for_start(starts + 3).await;
    assert_eq!(world.tree.counts().await[0], 1, "answered while it goes on");
    world.tree.terminate_child("a").await.expect("ends the attempts");
    let starts = world.mock("a").starts();
    for _ in 0..10 {
        assert_eq!(world.tree.states().await, "a:stopped");
    }
    assert_eq!(world.mock("a").starts(), starts);
}

pub(crate) async fn an_attempt_that_was_called_off_is_not_made() {
    let world = hopeless().await;
    world.tree.terminate_child("a").await.expect("ends the attempts");
    world.mock("a").always(MockStart::Ready);
    let starts = world.mock("a").starts();
    key(world.tree.restart_child("a").await);
    let incarnation = world.incarnations().await;
    for _ in 0..10 {
        world.lives().await;
    }
    assert_eq!((world.incarnations().await, world.mock("a").starts()), (incarnation, starts + 1));
}

pub(crate) async fn calls_about_a_child_answer_by_its_state() {
    let specs = vec![permanent("running"), transient("stopped"), delayed(permanent("restarting"))];
    let world = World::scripted(flags(Strategy::OneForOne, 5), specs.clone(), |mock| match mock.name() {
        "stopped" => mock.starting([MockStart::Ready, MockStart::Ignore]),
        _ => mock,
    })
    .await;
    world.tree.terminate_child("stopped").await.expect("stops");
    world.crash("restarting").await;
    for (spec, state) in specs.iter().zip([State::Running, State::Stopped, State::Restarting]) {
        let id = spec.id.as_str();
        assert_eq!(world.tree.child_spec(id).await.as_ref(), Ok(spec), "in every state");
        let child = world.tree.which_child(id).await.expect("is listed");
        assert_eq!((child.state, child.alive), (state, state == State::Running));
    }
    assert_eq!(world.tree.restart_child("stopped").await, Ok(StartOutcome::Ignored));
    assert_eq!(world.tree.which_child("stopped").await.expect("is kept").state, State::Stopped);
    let unknown = [
        world.tree.terminate_child("nobody").await.map(drop),
        world.tree.restart_child("nobody").await.map(drop),
        world.tree.delete_child("nobody").await,
        world.tree.child_spec("nobody").await.map(drop),
        world.tree.which_child("nobody").await.map(drop),
    ];
    for answer in unknown {
        assert_eq!(answer, Err(OperationError::NotFound("nobody".into())));
    }
}

pub(crate) async fn neither_a_stop_by_hand_nor_an_ignored_start_triggers() {
    for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let flags = SupervisorSpec { auto_shutdown: mode, ..flags(Strategy::OneForOne, 5) };
        let children = vec![significant(transient("ignored")), significant(transient("stopped"))];
        let world = World::scripted(flags, children, |mock| match mock.name() {
            "ignored" => mock.starting([MockStart::Ignore, MockStart::Ignore]),
            _ => mock,
        })
        .await;
        assert_eq!(world.tree.states().await, "ignored:stopped stopped:running");
        assert_eq!(world.tree.restart_child("ignored").await, Ok(StartOutcome::Ignored));
        let ignoring = mock("added").starting([MockStart::Ignore]);
        let added = world.tree.start_child(significant(temporary("added")), ignoring).await;
        assert_eq!(added, Ok(StartOutcome::Ignored));
        world.tree.terminate_child("stopped").await.expect("stops");
        assert_eq!(world.tree.states().await, "ignored:stopped stopped:stopped");
    }
}

pub(crate) async fn a_significant_child_that_restarts_is_left() {
    let flags =
        SupervisorSpec { auto_shutdown: AutoShutdown::AllSignificant, ..flags(Strategy::OneForOne, 5) };
    let children = vec![significant(delayed(transient("a"))), significant(transient("b"))];
    let world = World::of(flags, children).await;
    world.crash("a").await;
    world.end("b", Exit::Normal).await;
    assert_eq!(world.tree.states().await, "a:restarting b:stopped");
    world.tree.wait_for("a", |child| child.ready).await.expect("comes back");
    world.end("a", Exit::Normal).await;
    assert_eq!(world.tree.ended().await.exit, Exit::Shutdown);
}
