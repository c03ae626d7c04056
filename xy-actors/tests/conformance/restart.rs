//! Restarting by strategy: who comes back, in which order, and when the supervisor gives up.

use std::time::Duration;

use xy_actors::child::StartInfo;
use xy_actors::exit::Exit;
use xy_actors::policy::State;
use xy_actors::spec::{Shutdown, Strategy};
use xy_actors::supervisor::{StartOutcome, Template};
use xy_actors::testkit::{MockChild, MockStart};

use crate::support::{
    World, flags, key, mock, paths, permanent, pool, started, temporary, transient, with_shutdown, within,
};

fn fail() -> MockStart {
    MockStart::Fail("fails".to_owned())
}

/// A mock of this name starts once and never again.
fn only_once(name: &'static str) -> impl Fn(MockChild) -> MockChild {
    move |mock| {
        if mock.name() == name {
            mock.always(fail());
            return mock.starting([MockStart::Ready]);
        }
        mock
    }
}

pub(crate) async fn multiple_restarts() {
    let child = with_shutdown(Shutdown::BrutalKill, permanent("child1"));
    let world = World::of(within(Strategy::OneForOne, 1, 1), vec![child]).await;
    for _ in 0..4 {
        world.crash("child1").await;
        tokio::time::sleep(Duration::from_millis(2100)).await;
    }
    assert_eq!(world.incarnations().await, "child1:5");
    world.tree.terminate_child("child1").await.expect("stops");
    world.tree.delete_child("child1").await.expect("goes");
}

pub(crate) async fn one_for_one() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::of(flags(Strategy::OneForOne, 2), children).await;
    world.crash("child1").await;
    assert_eq!(world.incarnations().await, "child1:2 child2:1");
    assert_eq!(world.tree.counts().await, [2, 2, 0, 2]);
    world.crash("child2").await;
    assert_eq!(world.incarnations().await, "child1:2 child2:2");
    world.crash("child1").await;
    world.escalated().await;
    let report = world.tree.shutdown().await;
    assert_eq!((paths(&report.failed), paths(&report.stopped)), (vec!["child1"], vec!["child2"]));
}

pub(crate) async fn one_for_one_escalation() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::scripted(flags(Strategy::OneForOne, 4), children, only_once("child1")).await;
    world.mock("child1").crash("boom");
    world.escalated().await;
    assert_eq!(world.mock("child1").starts(), 1 + 4);
    assert_eq!(world.journal.take().last().map(String::as_str), Some("stop child2"));
}

pub(crate) async fn one_for_all() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::of(flags(Strategy::OneForAll, 2), children).await;
    world.crash("child1").await;
    assert_eq!(world.journal.take(), ["stop child2", "start child1", "start child2"]);
    assert_eq!(world.incarnations().await, "child1:2 child2:2");
    assert_eq!(world.tree.counts().await, [2, 2, 0, 2]);
    world.crash("child1").await;
    world.crash("child1").await;
    world.escalated().await;
}

pub(crate) async fn one_for_all_escalation() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::scripted(flags(Strategy::OneForAll, 4), children, only_once("child2")).await;
    world.mock("child1").crash("boom");
    world.escalated().await;
    let round = ["start child1", "start child2", "stop child1"];
    let expected: Vec<&str> = std::iter::once("stop child2").chain(round.repeat(4)).collect();
    assert_eq!(world.journal.take(), expected);
}

pub(crate) async fn one_for_all_other_child_fails_restart() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::scripted(flags(Strategy::OneForAll, 3), children, |mock| match mock.name() {
        "child2" => mock.starting([MockStart::Ready, fail()]),
        _ => mock,
    })
    .await;
    world.crash("child1").await;
    world.tree.wait_for("child2", |child| child.state == State::Running).await.expect("comes back");
    assert_eq!(
        world.journal.take(),
        ["stop child2", "start child1", "start child2", "stop child1", "start child1", "start child2"]
    );
    world.lives().await;
}

pub(crate) async fn simple_one_for_one() {
    let tree = pool(2).await;
    let (a, b) = (mock("a"), mock("b"));
    let first = started(&tree, permanent("child"), &a).await;
    let second = started(&tree, permanent("child"), &b).await;
    a.crash("boom");
    assert_eq!(tree.which_child(second).await.expect("child").incarnation.get(), 1);
    assert_eq!(tree.which_child(first).await.expect("child").incarnation.get(), 2);
    assert_eq!(tree.counts().await, [1, 2, 0, 2]);
    b.crash("boom");
    tree.count_children().await.expect("lives");
    a.crash("boom");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);
}

pub(crate) async fn simple_one_for_one_extra() {
    let tree = pool(2).await;
    let a = mock("a").with_info(StartInfo::new("extra"));
    let outcome = tree.start_child(permanent("child"), a.clone()).await.expect("starts");
    let StartOutcome::Started { child, info, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(info.expect("an info").get::<&str>(), Some(&"extra"));
    for incarnation in [2, 3] {
        a.crash("boom");
        assert_eq!(tree.which_child(child).await.expect("child").incarnation.get(), incarnation);
    }
    a.crash("boom");
    assert_eq!(tree.ended().await.exit, Exit::Escalated);
}

pub(crate) async fn simple_one_for_one_escalation() {
    let tree = pool(4).await;
    let (a, b) = (mock("a"), mock("b"));
    let mocks = [a.clone(), b.clone()];
    let template = Template::new(permanent("child"), move |index: usize| mocks[index].clone());
    key(template.start_child(&tree, 0).await);
    key(template.start_child(&tree, 1).await);
    a.always(fail());
    a.crash("boom");
    let report = tree.ended().await;
    assert_eq!((report.exit, a.starts(), b.starts()), (Exit::Escalated, 5, 1));
    assert_eq!(tree.shutdown().await.stopped.len(), 1, "b was stopped");
}

pub(crate) async fn simple_one_for_one_restart_ignore() {
    for spec in [transient("child"), permanent("child")] {
        let tree = pool(10).await;
        let child = mock("a").starting([MockStart::Ready, MockStart::Ready, MockStart::Ignore]);
        let key = started(&tree, spec, &child).await;
        child.end(Exit::Killed);
        assert_eq!(tree.which_child(key).await.expect("child").incarnation.get(), 2);
        child.end(Exit::Killed);
        assert_eq!(tree.states().await, "", "dropped, not kept and not tried again");
        assert_eq!(child.starts(), 3);
        assert_eq!(tree.shutdown().await.exit, Exit::Shutdown);
    }
}

pub(crate) async fn rest_for_one() {
    let children = ["child1", "child2", "child3"].map(permanent).to_vec();
    let world = World::of(flags(Strategy::RestForOne, 2), children).await;
    world.crash("child2").await;
    assert_eq!(world.journal.take(), ["stop child3", "start child2", "start child3"]);
    assert_eq!(world.incarnations().await, "child1:1 child2:2 child3:2");
    assert_eq!(world.tree.counts().await, [3, 3, 0, 3]);
    world.crash("child3").await;
    assert_eq!(world.incarnations().await, "child1:1 child2:2 child3:3");
    world.crash("child2").await;
    world.escalated().await;
}

pub(crate) async fn rest_for_one_escalation() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::scripted(flags(Strategy::RestForOne, 4), children, only_once("child2")).await;
    world.mock("child1").crash("boom");
    world.escalated().await;
    assert_eq!((world.mock("child1").starts(), world.mock("child2").starts()), (2, 1 + 4));
}

pub(crate) async fn rest_for_one_other_child_fails_restart() {
    let children = vec![permanent("child1"), permanent("child2")];
    let world = World::scripted(flags(Strategy::RestForOne, 3), children, |mock| match mock.name() {
        "child2" => mock.starting([MockStart::Ready, fail()]),
        _ => mock,
    })
    .await;
    world.crash("child1").await;
    world.tree.wait_for("child2", |child| child.state == State::Running).await.expect("comes back");
    assert_eq!(world.journal.take(), ["stop child2", "start child1", "start child2", "start child2"]);
}

pub(crate) async fn temporary_bystander() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let children = vec![permanent("child1"), temporary("child2")];
        let world = World::of(within(strategy, 2, 300), children).await;
        world.end("child1", Exit::Normal).await;
        assert_eq!(world.incarnations().await, "child1:2");
        assert_eq!(world.mock("child2").starts(), 1);
        assert_eq!(world.journal.take(), ["stop child2", "start child1"]);
    }
}

pub(crate) async fn order_of_children() {
    let ids = ["c3", "c1", "c5", "c2", "c4"];
    let world = World::scripted(flags(Strategy::RestForOne, 2), ids.map(permanent).to_vec(), |m| m).await;
    assert_eq!(world.incarnations().await, "c3:1 c1:1 c5:1 c2:1 c4:1", "in list order");
    world.crash("c5").await;
    assert_eq!(world.journal.take(), ["stop c4", "stop c2", "start c5", "start c2", "start c4"]);
    world.tree.shutdown().await;
    assert_eq!(world.journal.take(), ["stop c4", "stop c2", "stop c5", "stop c1", "stop c3"]);
}
