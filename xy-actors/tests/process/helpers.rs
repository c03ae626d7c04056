//! A panic in a task that works for a process: the incarnation ends with that cause, and nothing hangs or is left.

use std::fs;
use std::path::Path;
use std::time::Duration;

use xy_actors::exit::{Cause, Exit};
use xy_actors::log::LogHub;
use xy_actors::process::health::Liveness;
use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, Readiness, StopCommand, process};
use xy_actors::spec::{
    Backoff, ChildSpec, OnLimit, RestartIntensity, RestartLimit, Shutdown, SupervisorSpec,
};
use xy_actors::supervisor::{ChildInfo, StopOutcome, Supervisor};
use xy_actors::testkit::{Helper, plant_panic};

use crate::support::{DEADLINE, child, is_running, wait_until_async};

/// A tree with one process of this name, which is restarted at once.
async fn tree(name: &str, spec: ProcessSpec, dir: &Path) -> Supervisor {
    let limit = RestartLimit {
        intensity: RestartIntensity::new(3, Duration::from_secs(600)),
        on_limit: OnLimit::GiveUp,
    };
    let backoff =
        Backoff { first: Some(Duration::ZERO), base: Duration::from_millis(1), ..Backoff::default() };
    let rules = ChildSpec {
        shutdown: Shutdown::Timeout(DEADLINE),
        limit: Some(limit),
        backoff: Some(backoff),
        ..ChildSpec::worker(name)
    };
    let (host, _) =
        ProcessHost::start(HostOptions { notify_dir: Some(dir.join("notify")), ..HostOptions::default() })
            .expect("starts");
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(rules, process(spec, &host, &LogHub::new(None)))
        .spawn();
    tree.await.expect("starts")
}

/// Waits until a child is as wanted.
async fn until(tree: &Supervisor, name: &str, what: &str, wanted: impl Fn(&ChildInfo) -> bool) -> ChildInfo {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let now = tree.which_child(name).await.expect("known");
        if wanted(&now) {
            return now;
        }
        assert!(tokio::time::Instant::now() < end, "{name}: waited in vain until {what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The running processes with this path among their arguments.
fn processes_of(path: &Path) -> Vec<u32> {
    let path = path.to_str().expect("text");
    let pids = fs::read_dir("/proc").expect("proc").flatten();
    let pids = pids.filter_map(|pid| pid.file_name().to_str()?.parse::<u32>().ok());
    let names_it = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(path) && is_running(*pid)
    };
    pids.filter(names_it).collect()
}

#[tokio::test]
async fn a_task_that_panics_ends_its_incarnation_with_that_cause_and_the_next_one_is_sound() {
    let probe = Readiness::Exec { command: "/bin/true".to_owned(), args: Vec::new() };
    let cases = [
        ("planted-waiter", Helper::Waiter, "the wait for its end panicked: planted by a test"),
        ("planted-readiness", Helper::Readiness, "its readiness check panicked: planted by a test"),
        ("planted-health", Helper::Health, "its health check panicked: planted by a test"),
        (
            "planted-listener",
            Helper::Listener,
            "the hearing of its notifications panicked: planted by a test",
        ),
        ("planted-finisher", Helper::Finisher, "the end of its tree panicked: planted by a test"),
    ];
    let dir = tempfile::tempdir().expect("temporary directory");
    for (name, helper, words) in cases {
        let (go, helper_up) = (dir.path().join("go").join(name), dir.path().join(name));
        // It has a helper in a session of its own, which writes down its pid.
        let mut spec = child(&format!(
            "spawn-setsid 3 touch {} sleep-forever wait-for {} exit 7",
            helper_up.display(),
            go.display()
        ));
        spec.ready = Some(probe.clone());
        spec.liveness = Some(Liveness::new(probe.clone()));
        spec.watchdog = Some(10 * DEADLINE);
        plant_panic(name, helper);
        let tree = tree(name, spec, dir.path()).await;
        if helper == Helper::Finisher {
            until(&tree, name, "it is ready", |now| now.ready).await;
            wait_until_async("its helper is up", || helper_up.exists()).await;
            fs::create_dir(dir.path().join("go")).expect("created");
            fs::write(&go, "").expect("written");
        }
        until(&tree, name, "it has ended", |now| now.last_exit.is_some()).await;
        // The next one may have ended as well by now.
        let first = tree.which_child_with_history(name).await.expect("known").1.exits.remove(0);
        assert_eq!((first.incarnation.get(), first.report.exit), (1, Exit::Abnormal), "{name}");
        assert_eq!(first.report.cause, Cause::Error { message: words.to_owned() }, "{name}");
        if helper != Helper::Finisher {
            until(&tree, name, "the next one is ready", |now| now.ready && now.incarnation.get() == 2).await;
            wait_until_async("there is one and its helper", || processes_of(&helper_up).len() == 2).await;
        }
        tree.shutdown().await;
        // Where the end of the tree panicked, the host ends what is left, and nobody waits for that.
        wait_until_async("nothing is left", || processes_of(&helper_up).is_empty()).await;
    }
}

#[tokio::test]
async fn after_a_stop_command_that_panics_the_signal_follows() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ready = dir.path().join("ready");
    let mut spec = child(&format!("exit-on TERM 7 touch {} sleep-forever", ready.display()));
    spec.stop_command =
        Some(StopCommand { command: "/bin/true".to_owned(), args: Vec::new(), grace: 10 * DEADLINE });
    plant_panic("planted-stop", Helper::StopCommand);
    let tree = tree("planted-stop", spec, dir.path()).await;
    wait_until_async("it is up", || ready.exists()).await;
    // It may be so before its start is known.
    until(&tree, "planted-stop", "it is known to run", |now| now.ready).await;
    match tree.stop("planted-stop", None).await.expect("stopped") {
        StopOutcome::Stopped(report) => assert!(report.to_string().contains('7'), "{report}"),
        other => panic!("{other:?}"),
    }
}
