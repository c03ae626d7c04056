//! A tree as a whole program: until a signal, or until it ends by itself.

use std::future::{pending, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use xy_actors::child::task;
use xy_actors::exit::{Cause, Exit};
use xy_actors::path::TreePath;
use xy_actors::spec::{AutoShutdown, ChildSpec, RestartType, Shutdown, Strategy, SupervisorSpec};
use xy_actors::supervisor::{RunError, SpawnTreeError, Supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop};

use crate::support::{Mocks, flags};

#[tokio::test(start_paused = true)]
async fn a_tree_runs_until_the_signal_and_stops_in_reverse() {
    let names = ["a", "b"];
    let mocks = Mocks::new(&names);
    let (signal, signaled) = oneshot::channel::<()>();
    let run = tokio::spawn(mocks.builder(flags(Strategy::OneForOne, 1), &names).run_until(signaled));
    mocks.mocks[1].wait_for_start(1).await;
    assert!(!run.is_finished());
    signal.send(()).expect("runs");
    let report = run.await.expect("no panic").expect("ends well");
    assert_eq!(report.exit, Exit::Shutdown);
    assert!(report.is_clean());
    assert_eq!(mocks.journal.take(), ["start a", "start b", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_during_the_start_ends_it() {
    let journal = Journal::default();
    let slow = MockChild::new("slow", &journal).starting([MockStart::Hang]);
    let run = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("a"), MockChild::new("a", &journal))
        .child(ChildSpec::worker("slow"), slow)
        .run_until(tokio::time::sleep(Duration::from_secs(1)));
    assert_eq!(run.await.expect("ends well").exit, Exit::Shutdown);
    assert_eq!(journal.take(), ["start a", "start slow", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_is_there_already_ends_the_tree_well() {
    let mocks = Mocks::new(&["a"]);
    let run = mocks.builder(SupervisorSpec::default(), &["a"]).run_until(ready("any output"));
    assert_eq!(run.await.expect("ends well").exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_gives_up_is_told_from_one_that_was_ended() {
    let mocks = Mocks::new(&["a", "b"]);
    let run =
        tokio::spawn(mocks.builder(flags(Strategy::OneForOne, 0), &["a", "b"]).run_until(pending::<()>()));
    mocks.mocks[1].wait_for_start(1).await;
    mocks.mocks[0].crash("boom");
    let error = run.await.expect("no panic").expect_err("gives up");
    let words =
        "the tree gave up: limit reached: restart intensity of 0 in 3600s exceeded by child `a`: error: boom";
    assert_eq!(error.to_string(), words);
    let RunError::Escalated(report) = error else { panic!("{error:?}") };
    assert_eq!(report.stopped.len(), 1, "b was stopped");
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_work_is_done_ends_well() {
    let spec = SupervisorSpec { auto_shutdown: AutoShutdown::AnySignificant, ..SupervisorSpec::default() };
    let job = MockChild::new("job", &Journal::default());
    let child = ChildSpec { significant: true, restart: RestartType::Transient, ..ChildSpec::worker("job") };
    let run = tokio::spawn(Supervisor::builder(spec).child(child, job.clone()).run_until(pending::<()>()));
    job.wait_for_start(1).await;
    job.end(Exit::Normal);
    assert_eq!(run.await.expect("no panic").expect("ends well").exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_does_not_start_says_why() {
    let failing = MockChild::new("a", &Journal::default()).starting([MockStart::Fail("no disk".to_owned())]);
    let error = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("a"), failing)
        .run_until(pending::<()>())
        .await
        .expect_err("does not start");
    assert!(error.to_string().contains("no disk"), "{error}");
    assert!(matches!(error, RunError::Start(SpawnTreeError::Ended(_))), "{error:?}");
    let twice = Mocks::new(&["a", "a"]).builder(SupervisorSpec::default(), &["a", "a"]);
    let error = twice.run_until(pending::<()>()).await.expect_err("is not valid");
    assert!(matches!(error, RunError::Start(SpawnTreeError::Spec(_))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_killed_tree_and_one_ended_abnormally_are_errors() {
    for exit in [Exit::Killed, Exit::Abnormal] {
        let tree =
            Mocks::new(&["a"]).builder(SupervisorSpec::default(), &["a"]).start().await.expect("starts");
        let end = async {
            match exit {
                Exit::Killed => tree.kill().await,
                exit => tree.shutdown_as(exit, Some("bad luck".to_owned())).await,
            }
        };
        let (run, report) = tokio::join!(tree.run_until(pending::<()>()), end);
        assert_eq!(run, Err(RunError::Failed(report)));
    }
}

#[tokio::test(start_paused = true)]
async fn children_that_had_to_be_killed_are_in_the_report_and_no_error() {
    let stubborn = MockChild::new("a", &Journal::default()).stopping(MockStop::Stubborn);
    let spec = ChildSpec { shutdown: Shutdown::Timeout(Duration::from_secs(2)), ..ChildSpec::worker("a") };
    let tree = Supervisor::builder(SupervisorSpec::default()).child(spec, stubborn);
    let report = tree.run_until(ready(())).await.expect("ends well");
    let killed: Vec<&str> = report.killed.iter().map(TreePath::as_str).collect();
    assert_eq!(killed, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_shuts_its_tree_down() {
    let (told, mut heard) = mpsc::channel(2);
    let child = task(move |context| {
        let told = told.clone();
        async move {
            told.send("started").await?;
            context.stopped().await;
            told.send("stopped").await?;
            Ok(())
        }
    });
    let tree = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("a"), child);
    let run = tokio::spawn(tree.run_until(pending::<()>()));
    assert_eq!(heard.recv().await, Some("started"));
    run.abort();
    assert_eq!(heard.recv().await, Some("stopped"), "it was asked, not killed");
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_no_longer_runs_its_tree_leaves_it_alone() {
    let mocks = Mocks::new(&["a"]);
    let tree = mocks.builder(SupervisorSpec::default(), &["a"]).start().await.expect("starts");
    let waited = tokio::time::timeout(Duration::from_secs(1), tree.run_until(pending::<()>())).await;
    assert!(waited.is_err());
    assert!(tree.which_child("a").await.expect("lives").ready);
    let report = tree.run_until(ready(())).await.expect("ends well");
    assert_eq!(report.cause, Cause::Finished { reason: None });
}
