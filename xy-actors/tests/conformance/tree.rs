//! Supervisors under supervisors.

use xy_actors::exit::Exit;
use xy_actors::policy::State;
use xy_actors::spec::{ChildSpec, RestartType, Strategy};
use xy_actors::supervisor::{SpawnTreeError, Supervisor, SupervisorChild, supervisor};
use xy_actors::testkit::{MockChild, MockStart, TestTree};

use crate::support::{flags, key, mock, permanent};

fn group(strategy: Strategy, leaf: &MockChild) -> SupervisorChild {
    supervisor(flags(strategy, 4)).child(permanent("worker"), leaf.clone())
}

pub(crate) async fn faulty_application_shutdown() {
    let broken = mock("worker");
    broken.always(MockStart::Fail("undefined function".to_owned()));
    let error = Supervisor::builder(flags(Strategy::OneForAll, 0))
        .child(ChildSpec::supervisor("group"), group(Strategy::OneForAll, &broken))
        .start()
        .await
        .expect_err("fails");
    let SpawnTreeError::Ended(report) = &error else { panic!("{error:?}") };
    let text = report.to_string();
    assert!(text.contains("undefined function") && text.contains("`group/worker`"), "{text}");
    assert_eq!(broken.starts(), 1);
}

pub(crate) async fn tree() {
    let child1 = mock("child1");
    let sup1 = || {
        supervisor(flags(Strategy::OneForOne, 4))
            .child(permanent("child1"), child1.clone())
            .child(permanent("child2"), mock("child2"))
    };
    let empty = || supervisor(flags(Strategy::OneForOne, 4));
    let top =
        TestTree::new(Supervisor::builder(flags(Strategy::OneForAll, 4)).start().await.expect("starts"));
    key(top.start_child(ChildSpec::supervisor("sup1"), sup1()).await);
    key(top.start_child(ChildSpec::supervisor("sup2"), empty()).await);
    let sup3 = ChildSpec { restart: RestartType::Transient, ..ChildSpec::supervisor("sup3") };
    key(top.start_child(sup3, empty()).await);
    top.terminate_child("sup3").await.expect("stops");

    let sup2 = top.child_supervisor("sup2").await.expect("a supervisor");
    let child3 = mock("child3").starting([MockStart::Ready]);
    child3.always(MockStart::Fail("no more".to_owned()));
    let child4 = mock("child4");
    key(sup2.start_child(permanent("child3"), child3.clone()).await);
    key(sup2.start_child(permanent("child4"), child4.clone()).await);
    assert_eq!(top.counts().await, [3, 2, 3, 0]);
    let inner =
        top.child_supervisor("sup1").await.expect("a supervisor").count_children().await.expect("lives");
    assert_eq!((inner.specs, inner.active, inner.workers), (2, 2, 2));

    child4.crash("boom");
    sup2.count_children().await.expect("lives");
    assert_eq!((child4.starts(), child3.starts(), child1.starts()), (2, 1, 1));

    child3.crash("boom");
    assert_eq!(sup2.ended().await.exit, Exit::Escalated);
    top.wait_for("sup3", |child| child.state == State::Running).await.expect("comes back");
    assert_eq!(top.states().await, "sup1:running sup2:running sup3:running");
    assert_eq!(top.counts().await, [3, 3, 3, 0]);
    assert_eq!((child1.starts(), child3.starts(), child4.starts()), (2, 4, 2), "added children are lost");
    let (sup2, _) = top.lookup("sup1/child1").await.expect("is there again");
    assert_eq!(sup2.path().as_str(), "sup1");
    let sup2 = top.child_supervisor("sup2").await.expect("a supervisor");
    assert_eq!(sup2.which_children().await.expect("lives"), []);
}

pub(crate) async fn simple_global_supervisor() {
    let leaf = mock("worker");
    let top = TestTree::new(
        Supervisor::builder(flags(Strategy::OneForAll, 3))
            .child(ChildSpec::supervisor("middle"), group(Strategy::OneForAll, &leaf))
            .start()
            .await
            .expect("starts"),
    );
    let ended = top.child_supervisor("middle").await.expect("a supervisor").kill().await;
    assert_eq!(ended.exit, Exit::Killed);
    leaf.wait_for_start(2).await;
    top.wait_for("middle", |child| child.ready).await.expect("is rebuilt");
    assert_eq!(top.which_child("middle").await.expect("child").incarnation.get(), 2);
    for exit in [Exit::Killed, Exit::Normal] {
        let starts = leaf.starts();
        leaf.end(exit);
        leaf.wait_for_start(starts + 1).await;
    }
    assert_eq!(top.which_child("middle").await.expect("child").incarnation.get(), 2);
    let middle = top.child_supervisor("middle").await.expect("a supervisor");
    middle.terminate_child("worker").await.expect("stops");
    key(middle.restart_child("worker").await);
    top.kill().await;
    assert_eq!(middle.ended().await.exit, Exit::Killed);
    assert_eq!(leaf.starts(), 5);
}
