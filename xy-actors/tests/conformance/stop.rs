//! Stopping a supervisor: in which order, how long, and who is killed.

use std::time::Duration;

use tokio::time::Instant;
use xy_actors::exit::Exit;
use xy_actors::spec::{ChildSpec, RestartType, Shutdown, Strategy, SupervisorSpec};
use xy_actors::testkit::MockStop;

use crate::support::{World, flags, millis, mock, paths, permanent, pool, started, temporary, with_shutdown};

const RESTART_TYPES: [RestartType; 3] =
    [RestartType::Permanent, RestartType::Transient, RestartType::Temporary];

pub(crate) async fn sup_stop_infinity() {
    let supervisor = ChildSpec::supervisor("child1");
    let worker = with_shutdown(Shutdown::Infinity, permanent("child2"));
    let world = World::of(SupervisorSpec::default(), vec![supervisor, worker]).await;
    let report = world.tree.shutdown().await;
    assert_eq!((report.exit, report.is_clean()), (Exit::Shutdown, true));
    assert_eq!(world.journal.take(), ["stop child2", "stop child1"]);
}

pub(crate) async fn sup_stop_timeout() {
    let children = ["child1", "child2"].map(|id| with_shutdown(millis(1000), permanent(id)));
    let world = World::scripted(SupervisorSpec::default(), children.to_vec(), |mock| match mock.name() {
        "child2" => mock.stopping(MockStop::Stubborn),
        _ => mock,
    })
    .await;
    let before = Instant::now();
    let report = world.tree.shutdown().await;
    assert_eq!(before.elapsed(), Duration::from_secs(1));
    assert_eq!((paths(&report.stopped), paths(&report.killed)), (vec!["child1"], vec!["child2"]));
    assert_eq!(report.exit, Exit::Shutdown);
}

pub(crate) async fn sup_stop_timeout_dynamic() {
    let tree = pool(1).await;
    let spec = with_shutdown(millis(1000), temporary("child"));
    started(&tree, spec.clone(), &mock("obedient")).await;
    started(&tree, spec, &mock("asleep").stopping(MockStop::Stubborn)).await;
    let before = Instant::now();
    let report = tree.shutdown().await;
    assert_eq!(before.elapsed(), Duration::from_secs(1));
    assert_eq!((report.exit, report.stopped.len(), report.killed.len()), (Exit::Shutdown, 1, 1));
}

pub(crate) async fn sup_stop_brutal_kill() {
    let children = vec![
        with_shutdown(millis(1000), permanent("child1")),
        with_shutdown(Shutdown::BrutalKill, permanent("child2")),
    ];
    let world = World::of(SupervisorSpec::default(), children).await;
    let report = world.tree.shutdown().await;
    assert_eq!((paths(&report.stopped), paths(&report.killed)), (vec!["child1"], vec!["child2"]));
    assert_eq!(world.journal.take(), ["kill child2", "stop child1"]);
}

pub(crate) async fn sup_stop_brutal_kill_dynamic() {
    let tree = pool(1).await;
    for _ in 0..10 {
        started(&tree, with_shutdown(Shutdown::BrutalKill, temporary("child")), &mock("child")).await;
    }
    let report = tree.shutdown().await;
    assert_eq!((report.exit, report.stopped.len(), report.killed.len()), (Exit::Shutdown, 0, 10));
}

pub(crate) async fn sup_stop_race() {
    let exits = [Exit::Normal, Exit::Shutdown, Exit::Abnormal, Exit::Killed];
    let mut children = vec![with_shutdown(millis(1000), temporary("a"))];
    let mut racers = Vec::new();
    for restart in RESTART_TYPES {
        for exit in exits {
            let id = format!("{restart:?}-{exit}");
            children.push(ChildSpec { restart, shutdown: millis(1000), ..ChildSpec::worker(id.as_str()) });
            racers.push((id, exit));
        }
    }
    children.push(with_shutdown(millis(2000), temporary("z")));
    let world = World::scripted(SupervisorSpec::default(), children, |mock| match mock.name() {
        "z" => mock.stopping(MockStop::After(Duration::from_secs(1))),
        _ => mock,
    })
    .await;
    let before = Instant::now();
    let (report, ()) = tokio::join!(world.tree.shutdown(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (id, exit) in &racers {
            world.mock(id).end(*exit);
        }
    });
    assert_eq!((report.exit, before.elapsed()), (Exit::Shutdown, Duration::from_secs(1)));
    assert_eq!((report.stopped.len(), report.failed.len(), report.killed.len()), (8, 3, 3));
    assert_eq!(world.journal.take(), ["stop z", "stop a"], "nothing is restarted, nobody gone is asked");
}

pub(crate) async fn sup_stop_non_shutdown_exit_dynamic() {
    for restart in RESTART_TYPES {
        let tree = pool(1).await;
        for exit in [Exit::Normal, Exit::Shutdown, Exit::Abnormal] {
            let spec = ChildSpec { restart, ..ChildSpec::worker("child") };
            started(&tree, spec, &mock("child").stopping(MockStop::EndWith(exit))).await;
        }
        let report = tree.shutdown().await;
        assert_eq!((report.exit, report.stopped.len(), report.failed.len()), (Exit::Shutdown, 2, 1));
    }
}

pub(crate) async fn simple_one_for_one_shutdown() {
    let tree = crate::support::pool_of(flags(Strategy::SimpleOneForOne, 2)).await;
    for slow in [1000, 1000, 5000] {
        let stop = MockStop::After(Duration::from_millis(slow));
        started(&tree, with_shutdown(millis(2000), permanent("child")), &mock("child").stopping(stop)).await;
    }
    let before = Instant::now();
    let report = tree.shutdown().await;
    assert_eq!(before.elapsed(), Duration::from_secs(2), "together, the slow one killed at its deadline");
    assert_eq!((report.stopped.len(), report.killed.len()), (2, 1));
}
