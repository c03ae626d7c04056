//! Health reports through the real supervisor actor: what people see, and the cause that is kept.

use xy_actors::event::stream::EventKind;
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::State;
use xy_actors::spec::Strategy;
use xy_actors::supervisor::StopOutcome;
use xy_actors::testkit::{MockStop, TestTree};

use crate::support::{Mocks, flags};

#[tokio::test(start_paused = true)]
async fn an_unhealthy_child_is_running_not_ready_and_says_why() {
    let mocks = Mocks::new(&["a"]);
    let tree = mocks.builder(flags(Strategy::OneForOne, 1), &["a"]).start().await.expect("starts");
    let mut tree = TestTree::new(tree);
    mocks.mocks[0].unhealthy("liveness: no answer (1 of 3)");
    let event = tree.expect("child_unhealthy", "a").await;
    let EventKind::Child { exit: Some(why), .. } = event.kind else { panic!("{event:?}") };
    assert_eq!(why.to_string(), "liveness: no answer (1 of 3)");
    let child = tree.which_child("a").await.expect("child");
    assert_eq!((child.state, child.ready), (State::Running, false));
    assert_eq!(child.waits_for.as_deref(), Some("liveness: no answer (1 of 3)"));
    mocks.mocks[0].healthy();
    tree.expect("child_healthy", "a").await;
    let child = tree.which_child("a").await.expect("child");
    assert_eq!((child.state, child.ready, child.waits_for), (State::Running, true, None));
}

#[tokio::test(start_paused = true)]
async fn a_failed_health_check_restarts_with_the_cause_named() {
    let mocks = Mocks::new(&["a"]);
    let tree = mocks.builder(flags(Strategy::OneForOne, 1), &["a"]).start().await.expect("starts");
    mocks.mocks[0].health_failed("liveness: HTTP 503 (x3)");
    mocks.mocks[0].wait_for_start(2).await;
    let child = tree.which_child("a").await.expect("child");
    assert_eq!((child.state, child.restarts), (State::Running, 1));
    let last = child.last_exit.expect("an exit");
    assert_eq!(last.report.cause, Cause::Probe { message: "liveness: HTTP 503 (x3)".to_owned() });
    assert_eq!(
        (last.report.exit, last.report.to_string().as_str()),
        (Exit::Abnormal, "liveness: HTTP 503 (x3)")
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_that_an_operator_asked_for_is_not_blamed_on_health() {
    let mocks = Mocks::new(&["a"]);
    let mock = mocks.mocks[0].clone().stopping(MockStop::Stubborn);
    let tree = mocks.builder(flags(Strategy::OneForOne, 1), &["a"]).start().await.expect("starts");
    let mut tree = TestTree::new(tree);
    mock.health_failed("liveness: HTTP 503 (x3)");
    tree.expect("child_stopping", "a").await;
    let outcome = tree.stop("a", None).await.expect("stops");
    let StopOutcome::Stopped(_) = outcome else { panic!("{outcome:?}") };
    let last = tree.which_child("a").await.expect("child").last_exit.expect("an exit");
    assert_ne!(last.report.cause, Cause::Probe { message: "liveness: HTTP 503 (x3)".to_owned() });
}
