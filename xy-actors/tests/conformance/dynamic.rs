//! What Elixir's DynamicSupervisor and PartitionSupervisor add.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use xy_actors::child::task;
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::{ChildKey, Refusal, State};
use xy_actors::spec::{
    AutoShutdown, Backoff, ChildSpec, ChildType, RestartIntensity, RestartType, Shutdown, SpecError,
    Strategy, SupervisorSpec,
};
use xy_actors::supervisor::{
    OperationError, Partitions, ResizeError, StartOutcome, StopOutcome, Supervisor, Template, supervisor,
};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop, TestTree};

use crate::support::{
    flags, millis, mock, permanent, pool, pool_of, started, temporary, transient, with_shutdown,
};

fn refused<T: std::fmt::Debug>(result: Result<T, OperationError>) -> Refusal {
    match result {
        Err(OperationError::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A spec that is restarted only after an hour.
fn patient(id: &str) -> ChildSpec {
    let hour = Duration::from_secs(3600);
    ChildSpec { backoff: Some(Backoff { base: hour, max: hour, ..Backoff::default() }), ..permanent(id) }
}

pub(crate) async fn children_bring_full_specs() {
    let tree = pool_of(SupervisorSpec::dynamic()).await;
    assert_eq!(tree.counts().await, [1, 0, 0, 0], "it starts empty");
    let specs = [
        permanent("same"),
        with_shutdown(Shutdown::BrutalKill, transient("same")),
        temporary("same"),
        ChildSpec::supervisor("other"),
    ];
    let mut keys = Vec::new();
    for spec in specs.clone() {
        keys.push(started(&tree, spec, &mock("child")).await);
    }
    for (key, spec) in keys.iter().zip(specs) {
        assert_eq!(tree.child_spec(*key).await, Ok(spec));
    }
    let types: Vec<ChildType> =
        tree.which_children().await.expect("lives").iter().map(|c| c.child_type).collect();
    assert_eq!(types, [ChildType::Worker, ChildType::Worker, ChildType::Worker, ChildType::Supervisor]);
    assert_eq!(refused(tree.terminate_child("same").await), Refusal::SimpleOneForOne);
    tree.terminate_child(keys[1]).await.expect("by key");
    assert_eq!(tree.states().await, "same:running same:running other:running");
}

pub(crate) async fn a_restarting_child_takes_a_place() {
    let tree = pool_of(SupervisorSpec { max_children: Some(2), ..SupervisorSpec::dynamic() }).await;
    let (crashing, third) = (mock("crashing"), mock("third"));
    let key = started(&tree, patient("crashing"), &crashing).await;
    started(&tree, permanent("second"), &mock("second")).await;
    let full = || async { refused(tree.start_child(permanent("third"), third.clone()).await) };
    assert_eq!(full().await, Refusal::MaxChildren(2));
    crashing.crash("boom");
    tree.wait_for(key, |child| child.state == State::Restarting).await.expect("waits for its restart");
    assert_eq!(full().await, Refusal::MaxChildren(2));
    assert_eq!(third.starts(), 0, "nothing was started");
    tree.terminate_child(key).await.expect("is called off");
    started(&tree, permanent("third"), &third).await;
}

pub(crate) async fn common_arguments_go_before_each_childs_own() {
    let tree = pool_of(SupervisorSpec::dynamic()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (common, noted) = ("common", seen.clone());
    let template = Template::new(permanent("child"), move |own: u32| {
        let noted = noted.clone();
        task(move |context| {
            noted.lock().expect("no panic").push((common, own, context.incarnation().get()));
            async move {
                if context.incarnation().get() == 1 && own == 1 {
                    return Err("once more with the same arguments".into());
                }
                context.stopped().await;
                Ok(())
            }
        })
    });
    for own in [1, 2] {
        template.start_child(&tree, own).await.expect("starts");
    }
    let first = tree.which_children().await.expect("lives")[0].key;
    tree.wait_for(first, |child| child.ready && child.restarts == 1).await.expect("comes back");
    // It is ready before it runs.
    tokio::task::yield_now().await;
    let mut seen = seen.lock().expect("no panic").clone();
    seen.sort_unstable();
    assert_eq!(seen, [("common", 1, 1), ("common", 1, 2), ("common", 2, 1)]);
}

pub(crate) async fn the_fourth_crash_in_five_seconds_is_one_too_many() {
    let spec = SupervisorSpec::dynamic();
    assert_eq!(spec.intensity, Some(RestartIntensity::new(3, Duration::from_secs(5))));
    let tree = pool_of(spec.clone()).await;
    let child = mock("child");
    started(&tree, permanent("child"), &child).await;
    for _ in 0..3 {
        child.crash_and_restart("boom").await;
    }
    child.crash("boom");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);

    let ending = SupervisorSpec { auto_shutdown: AutoShutdown::AnySignificant, ..spec };
    assert_eq!(ending.validate(), Err(SpecError::AutoShutdownOfSimpleOneForOne));
    let tree = pool_of(SupervisorSpec::dynamic()).await;
    let significant = ChildSpec { significant: true, ..transient("child") };
    let refusal = refused(tree.start_child(significant, mock("child")).await);
    assert_eq!(refusal, Refusal::Invalid(SpecError::SignificantWithoutAutoShutdown("child".into())));
}

pub(crate) async fn an_ignored_child_is_not_stored() {
    let tree = pool(1).await;
    started(&tree, permanent("a"), &mock("a")).await;
    started(&tree, ChildSpec::supervisor("b"), &mock("b")).await;
    let ignoring = mock("c").starting([MockStart::Ignore]);
    assert_eq!(tree.start_child(permanent("c"), ignoring).await, Ok(StartOutcome::Ignored));
    assert_eq!(tree.counts().await, [1, 2, 1, 1]);
    assert_eq!(tree.which_children().await.expect("lives").len(), 2);
}

pub(crate) async fn a_key_works_while_its_child_restarts() {
    let tree = pool(5).await;
    let child = mock("child");
    let key = started(&tree, patient("child"), &child).await;
    child.crash("boom");
    tree.wait_for(key, |child| child.state == State::Restarting).await.expect("waits");
    assert_eq!(tree.terminate_child(key).await, Ok(StopOutcome::NotRunning));
    assert_eq!(tree.states().await, "", "its restart is called off");
    assert_eq!(tree.terminate_child(key).await, Ok(StopOutcome::NotRunning), "it was there once");
    let never = ChildKey::new(1000);
    assert_eq!(tree.terminate_child(never).await, Err(OperationError::NotFound(never.into())));
}

pub(crate) async fn children_stop_together_each_at_its_own_deadline() {
    let tree = pool(1).await;
    for _ in 0..4 {
        let slow = mock("slow").stopping(MockStop::After(Duration::from_millis(200)));
        started(&tree, permanent("slow"), &slow).await;
    }
    for shutdown in [0, 100, 200, 300] {
        let stubborn = mock("stubborn").stopping(MockStop::Stubborn);
        started(&tree, with_shutdown(millis(shutdown), permanent("stubborn")), &stubborn).await;
    }
    let mut events = tree.events(xy_actors::event::stream::EventCursor::Now);
    let before = Instant::now();
    let (report, killed) = tokio::join!(tree.shutdown(), async {
        let mut killed = Vec::new();
        while let Some(item) = events.next().await {
            if let xy_actors::event::stream::EventItem::Event(event) = item
                && event.kind.name() == "child_killing"
            {
                killed.push(before.elapsed().as_millis());
            }
        }
        killed
    });
    assert_eq!(before.elapsed(), Duration::from_millis(300));
    assert_eq!(killed, [0, 100, 200, 300]);
    // A permanent child that answers a stop with `shutdown` has stopped cleanly.
    assert_eq!((report.stopped.len(), report.killed.len(), report.failed.len()), (4, 4, 0));
}

pub(crate) async fn a_failed_start_leaves_nothing_and_a_failed_restart_is_tried_at_once() {
    let tree = pool(2).await;
    let error =
        tree.start_child(permanent("a"), mock("a").starting([MockStart::Fail("no disk".into())])).await;
    let Err(OperationError::StartFailed { cause, .. }) = error else { panic!("{error:?}") };
    assert_eq!(cause, Cause::StartFailed { message: "no disk".to_owned() });
    assert_eq!(tree.counts().await, [1, 0, 0, 0]);
    let child = mock("b").starting([MockStart::Ready, MockStart::Fail("once".into())]);
    let key = started(&tree, permanent("b"), &child).await;
    child.crash("boom");
    child.wait_for_start(3).await;
    let child = tree.wait_for(key, |child| child.ready).await.expect("came back");
    assert_eq!((child.key, child.incarnation.get(), child.restarts), (key, 3, 2));
}

/// A tree with partitions that are dynamic supervisors.
async fn pools(partitions: &Partitions) -> TestTree {
    let pools =
        partitions.supervisor(ChildSpec::supervisor("pool"), |_| supervisor(SupervisorSpec::dynamic()));
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 100)).child(ChildSpec::supervisor("pools"), pools);
    TestTree::new(tree.start().await.expect("starts"))
}

pub(crate) async fn partitions_are_copies_under_an_ordinary_supervisor() {
    let partitions = Partitions::new(3);
    let journal = Journal::default();
    let made = |number: usize| MockChild::new(&format!("copy {number}"), &journal);
    let copies = partitions.supervisor(transient("any"), made);
    let tree = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::supervisor("copies"), copies);
    let tree = TestTree::new(tree.start().await.expect("starts"));
    assert_eq!(journal.take(), ["start copy 0", "start copy 1", "start copy 2"], "each knows its number");
    let copies = TestTree::new(tree.supervisor_at("copies").await.expect("a supervisor"));
    assert_eq!(copies.states().await, "0:running 1:running 2:running");
    assert_eq!(copies.child_spec("2").await.expect("a child").restart, RestartType::Transient);

    let children = Partitions::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(children.len(), threads);

    // Three crashes are restarted, the fourth ends it.
    let child = mock("child");
    let copy = child.clone();
    let copies = Partitions::new(1).supervisor(permanent("any"), move |_| copy.clone());
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 1)).child(ChildSpec::supervisor("copies"), copies);
    let mut tree = TestTree::new(tree.start().await.expect("starts"));
    for _ in 0..3 {
        child.crash_and_restart("boom").await;
    }
    assert!(!tree.happened().contains(&"supervisor_limit_reached copies".to_owned()));
    child.crash("boom");
    tree.expect("supervisor_limit_reached", "copies").await;

    let flags = |strategy, auto_shutdown| {
        let flags = SupervisorSpec { auto_shutdown, ..SupervisorSpec::new(strategy) };
        partitions.supervisor_with(flags, permanent("any"), |_| mock("child")).map(drop)
    };
    assert_eq!(flags(Strategy::OneForAll, AutoShutdown::Never), Ok(()));
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let refused = Err(SpecError::AutoShutdownOfPartitions);
        assert_eq!(flags(Strategy::OneForOne, auto_shutdown), refused);
    }
    let refused = Err(SpecError::SimpleOneForOneOfPartitions);
    assert_eq!(flags(Strategy::SimpleOneForOne, AutoShutdown::Never), refused);
}

pub(crate) async fn a_key_leads_to_its_partition_also_after_a_crash() {
    let partitions = Partitions::new(4);
    let tree = pools(&partitions).await;
    let routes = partitions.at(&tree, "pools");
    let key = "user 17";
    let path = format!("pools/{}", partitions.partition_of(key).expect("there are some"));
    let first = routes.supervisor_of(key).await.expect("a supervisor");
    assert_eq!(first.path().as_str(), path);
    started(&TestTree::new(first.clone()), permanent("session"), &mock("session")).await;
    first.kill().await;
    let number = path.rsplit('/').next().expect("a number");
    let owner = routes.supervisor().await.expect("a supervisor");
    owner.wait_for(number, |pool| pool.incarnation.get() == 2 && pool.ready).await.expect("comes back");
    let second = routes.supervisor_of(key).await.expect("a supervisor");
    assert_eq!(second.path().as_str(), path);
    assert_eq!(second.count_children().await.expect("lives").active, 0, "a new one");
    for key in 0..8 {
        let expected = usize::try_from(key % 4).ok();
        assert_eq!(partitions.partition_of_number(key), expected);
        assert_eq!(partitions.partition_of_number(-key), expected);
    }
}

pub(crate) async fn a_resize_ends_the_highest_numbers_and_starts_them_again() {
    let partitions = Partitions::new(3);
    let journal = Journal::default();
    // Temporary ones too are kept.
    let made = |number: usize| MockChild::new(&number.to_string(), &journal);
    let copies = partitions.supervisor(temporary("any"), made);
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 9)).child(ChildSpec::supervisor("copies"), copies);
    let tree = tree.start().await.expect("starts");
    let routes = partitions.at(&tree, "copies");
    journal.take();
    let states = || async { TestTree::new(routes.supervisor().await.expect("a supervisor")).states().await };
    routes.resize(1).await.expect("shrinks");
    assert_eq!(journal.take(), ["stop 2", "stop 1"]);
    assert_eq!(states().await, "0:running 1:stopped 2:stopped");
    assert_eq!(partitions.partition_of_number(7), Some(0), "keys are spread over what is in use");
    // A restart of the supervisor keeps the number.
    tree.restart("copies", None).await.expect("is restarted");
    assert_eq!(journal.take(), ["stop 0", "start 0"]);
    assert_eq!(states().await, "0:running 1:stopped 2:stopped");
    routes.resize(3).await.expect("grows");
    assert_eq!(journal.take(), ["start 1", "start 2"]);
    assert_eq!(partitions.partition_of_number(7), Some(1));
    routes.resize(0).await.expect("none is legal");
    assert_eq!(journal.take(), ["stop 2", "stop 1", "stop 0"]);
    assert!(partitions.is_empty());
    assert!(matches!(routes.supervisor_of("key").await, Err(OperationError::NotFound(_))));
    assert_eq!(routes.resize(4).await, Err(ResizeError::TooMany { asked: 4, most: 3 }));
    assert_eq!(states().await, "0:stopped 1:stopped 2:stopped");
}
