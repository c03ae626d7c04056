//! Why a process ended and what happened next, as the history of its child and the report of the end tell it.

use std::time::Duration;

use xy_actors::event::Next;
use xy_actors::exit::{Cause, Exit};
use xy_actors::log::LogHub;
use xy_actors::policy::State;
use xy_actors::process::{ProcessSpec, process};
use xy_actors::spec::{ChildSpec, OnLimit, RestartIntensity, RestartLimit, Shutdown, SupervisorSpec};
use xy_actors::supervisor::{ChildInfo, Supervisor};

use crate::support::{DEADLINE, child, host, wait_until_async};

async fn wait_for(tree: &Supervisor, condition: impl Fn(&ChildInfo) -> bool) -> ChildInfo {
    let waited = tokio::time::timeout(DEADLINE, tree.wait_for("program", condition)).await;
    waited.expect("in time").expect("a child")
}

/// A tree of one program, which gives up after one restart.
async fn tree_of(program: ProcessSpec) -> Supervisor {
    let intensity = RestartIntensity::new(1, Duration::from_secs(3600));
    let spec = ChildSpec {
        limit: Some(RestartLimit { intensity, on_limit: OnLimit::GiveUp }),
        shutdown: Shutdown::Timeout(Duration::ZERO),
        ..ChildSpec::worker("program")
    };
    Supervisor::builder(SupervisorSpec::default())
        .child(spec, process(program, &host(), &LogHub::new(None)))
        .spawn()
        .await
        .expect("is valid")
}

#[tokio::test]
async fn exit_codes_and_signals_are_kept_with_what_followed() {
    let restarted = Some(Next::Restart { delay: Duration::ZERO, nth: 1, of: Some(1) });
    for (script, cause) in [
        ("exit 7", Cause::ExitCode { code: 7 }),
        ("signal-self 9", Cause::Signal { signal: 9, core_dumped: false }),
    ] {
        let tree = tree_of(child(script)).await;
        wait_for(&tree, |program| program.state == State::Failed).await;
        let (_, history) = tree.which_child_with_history("program").await.expect("a child");
        let ledger: Vec<_> =
            history.exits.iter().map(|exit| (exit.report.cause.clone(), exit.next)).collect();
        assert_eq!(ledger, [(cause.clone(), restarted), (cause, Some(Next::Failed))], "{script}");
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_in_the_ledger_with_its_reason() {
    let tree = tree_of(ProcessSpec::new("/no/such/program")).await;
    wait_for(&tree, |program| program.state == State::Failed).await;
    let (_, history) = tree.which_child_with_history("program").await.expect("a child");
    assert_eq!(history.exits.len(), 2);
    for exit in &history.exits {
        let Cause::StartFailed { message } = &exit.report.cause else { panic!("{exit:?}") };
        assert!(message.contains("/no/such/program"), "{message}");
    }
    assert_eq!(history.exits[1].next, Some(Next::Failed));
}

#[tokio::test]
async fn the_report_of_an_end_names_a_program_that_had_to_be_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let deaf = directory.path().join("deaf");
    let tree = tree_of(child(&format!("ignore TERM touch {} sleep-forever", deaf.display()))).await;
    wait_until_async("it ignores the signal", || deaf.exists()).await;
    wait_for(&tree, |program| program.ready).await;
    let report = tokio::time::timeout(DEADLINE, tree.shutdown()).await.expect("in time");
    assert_eq!((report.exit, report.killed.len(), report.is_clean()), (Exit::Shutdown, 1, false));
    assert_eq!(report.killed[0].as_str(), "program");
}
