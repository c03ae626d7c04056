//! What a program finds when it starts, and how its end is told.

use std::time::Duration;

use xy_actors::process::ProcessExit;

use crate::support::{
    child, deadline, host, is_running, output_of, pid_in, run, scenario, scenario_after, wait_until_async,
};

#[tokio::test]
async fn a_process_leads_its_own_session_and_group_in_its_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut spec = child("print-ids");
    spec.working_dir = Some(dir.path().to_owned());
    let mut process = host().spawn("test", &spec).await.expect("starts");
    let (pid, us) = (process.pid(), std::process::id());
    let dir = dir.path().canonicalize().expect("exists");
    let expected = format!("pid {pid} ppid {us} pgid {pid} sid {pid} cwd {}\n", dir.display());
    assert_eq!(output_of(&mut process).await, expected);
}

#[test]
fn signals_are_reset_although_the_host_blocks_and_ignores_them() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // Only an unsafe call could ignore signals here, but an ignored signal is inherited.
    let script = r#"trap "" HUP INT QUIT USR1 USR2 ALRM TSTP TTIN TTOU WINCH; exec "$0" "$@""#;
    scenario_after(script, "signals", dir.path()).succeed();
}

#[test]
fn a_host_refuses_to_start_where_exit_codes_are_thrown_away() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // Not by `trap`, which makes an exception of this signal.
    let script = r#"exec env --ignore-signal=CHLD "$0" "$@""#;
    scenario_after(script, "child_signal_ignored", dir.path()).succeed();
}

#[test]
fn only_standard_descriptors_reach_a_child_of_a_host_with_a_hundred_more() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("descriptors", dir.path()).succeed();
}

#[test]
fn a_host_without_standard_descriptors_of_its_own_gives_a_child_the_right_ones() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("closed_stdio", dir.path()).succeed();
}

#[tokio::test]
async fn standard_input_is_at_its_end() {
    let (output, exit) = run(&host(), &child("read-stdin")).await;
    assert_eq!((output.as_str(), exit), ("stdin 0\n", ProcessExit::Code(0)));
}

#[tokio::test]
async fn the_environment_is_inherited_with_the_spec_and_the_marker_on_top() {
    let mut spec = child("print-env");
    spec.env.insert("XY_TEST_VARIABLE".to_owned(), "laid over".to_owned());
    let mut process = host().spawn("test", &spec).await.expect("starts");
    let mut expected: Vec<String> = std::env::vars()
        .filter(|(key, _)| !["LISTEN_", "WATCHDOG_", "XY_TOKEN"].iter().any(|prefix| key.starts_with(prefix)))
        .filter(|(key, _)| key != "NOTIFY_SOCKET" && key != "XY_INSTANCE")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    expected.push("XY_TEST_VARIABLE=laid over".to_owned());
    expected.push(format!("XY_INSTANCE={}", process.marker()));
    expected.sort();
    let output = output_of(&mut process).await;
    let mut found: Vec<&str> = output.lines().collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn output_arrives_on_its_own_descriptor_without_blocking_the_reader() {
    let mut process = host().spawn("test", &child("print one print-err two")).await.expect("starts");
    process.exited().await;
    let output = process.take_output().expect("taken once");
    assert!(process.take_output().is_none());
    let mut buffer = [0; 16];
    for (fd, expected) in [(output.stdout, "one\n"), (output.stderr, "two\n")] {
        let length = nix::unistd::read(&fd, &mut buffer).expect("readable");
        assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(expected));
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL).expect("flags");
        assert!(nix::fcntl::OFlag::from_bits_truncate(flags).contains(nix::fcntl::OFlag::O_NONBLOCK));
    }
}

#[tokio::test]
async fn every_exit_code_and_signal_is_told_exactly() {
    let host = host();
    for code in [0, 1, 2, 3, 99, 126, 127, 128, 143, 255] {
        let (_, exit) = run(&host, &child(&format!("exit {code}"))).await;
        assert_eq!(exit, ProcessExit::Code(code));
    }
    for number in [1, 2, 9, 10, 12, 14, 15] {
        let (_, exit) = run(&host, &child(&format!("signal-self {number}"))).await;
        assert_eq!(exit, ProcessExit::Signal { signal: number, core_dumped: false });
    }
    let (_, exit) = run(&host, &child("abort")).await;
    assert!(matches!(exit, ProcessExit::Signal { signal: 6, .. }), "{exit:?}");
    assert_eq!(host.live(), []);
}

#[tokio::test]
async fn a_real_time_signal_is_told_exactly() {
    let process = host().spawn("test", &child("sleep-forever")).await.expect("starts");
    assert!(process.signal_group(40).expect("signaled"));
    assert_eq!(process.exited().await, ProcessExit::Signal { signal: 40, core_dumped: false });
}

#[tokio::test]
async fn the_end_is_told_again_and_to_a_second_listener() {
    let process = host().spawn("test", &child("exit 7")).await.expect("starts");
    let (one, two) = tokio::join!(process.exited(), process.exited());
    assert_eq!((one, two, process.exited().await), (ProcessExit::Code(7), one, one));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let process = host().spawn("test", &child("sleep-forever")).await.expect("starts");
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(1), process.exited()).await.is_err());
    }
    assert!(process.signal_group(9).expect("signaled"));
    assert_eq!(process.exited().await, ProcessExit::Signal { signal: 9, core_dumped: false });
}

#[tokio::test]
async fn a_descendant_that_holds_the_output_does_not_delay_the_exit() {
    let mut process =
        host().spawn("test", &child("spawn-setsid 1 sleep-forever exit 4")).await.expect("starts");
    let output = process.take_output().expect("taken once");
    let exited = tokio::time::timeout_at(deadline(), process.exited()).await;
    assert_eq!(exited, Ok(ProcessExit::Code(4)));
    // The pipe is still held: neither bytes nor an end.
    let nothing = nix::unistd::read(&output.stdout, &mut [0; 1]);
    assert_eq!(nothing, Err(nix::errno::Errno::EAGAIN));
    assert_eq!(process.members().expect("readable").len(), 1);
}

#[tokio::test]
async fn a_dropped_handle_leaves_nothing_running_and_nothing_to_reap() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let host = host();
    let script = format!(
        "spawn 3 touch {} sleep-forever double-fork 3 touch {} sleep-forever sleep-forever",
        one.display(),
        two.display()
    );
    let process = host.spawn("test", &child(&script)).await.expect("starts");
    let pids = [process.pid(), pid_in(&one), pid_in(&two)];
    assert!(pids.iter().all(|pid| is_running(*pid)));
    drop(process);
    wait_until_async("nobody runs", || !pids.iter().any(|pid| is_running(*pid))).await;
    wait_until_async("the main process is reaped", || host.live().is_empty()).await;
}

#[tokio::test]
async fn a_dropped_spawn_leaves_nothing_running() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let host = host();
    for round in 0..50_u32 {
        let path = dir.path().join(round.to_string());
        let spec = child(&format!("touch {} sleep-forever", path.display()));
        {
            let mut spawn = std::pin::pin!(host.spawn("test", &spec));
            // The first poll hands the job over. Some rounds drop at once, some when the process already runs.
            assert!(futures_poll_once(spawn.as_mut()).await.is_none());
            if round % 2 == 0 {
                wait_until_async("the program runs", || path.exists()).await;
            }
        }
    }
    // Jobs are done in order, so the dropped ones are behind us when this one has been done.
    run(&host, &child("exit 0")).await;
    wait_until_async("all are reaped", || host.live().is_empty()).await;
    let written = (0..50).map(|round| dir.path().join(round.to_string())).filter(|path| path.exists());
    let pids: Vec<u32> = written.map(|path| pid_in(&path)).collect();
    assert!(pids.len() >= 25, "every second one ran");
    assert_eq!(pids.iter().filter(|pid| is_running(**pid)).count(), 0);
}

/// Polls once; `None` if it is not done.
async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_running_process_cannot_be_reaped_and_an_ended_one_is_not_signaled() {
    let host = host();
    let process = host.spawn("web/one", &child("sleep-forever")).await.expect("starts");
    assert_eq!((process.label(), host.live()[0].label.as_str()), ("web/one", "web/one"));
    assert_eq!((host.live()[0].pid, host.live()[0].marker.as_str()), (process.pid(), process.marker()));
    assert_eq!(process.reap(), None, "it runs");
    assert!(process.signal_group(15).expect("signaled"));
    process.exited().await;
    process.tree_gone(deadline()).await.expect("gone");
    assert!(!process.signal_group(15).expect("nobody to signal"));
    assert_eq!(process.reap().expect("ended"), ProcessExit::Signal { signal: 15, core_dumped: false });
    assert_eq!(host.live(), []);
}

#[test]
fn a_child_outlives_the_thread_that_asked_for_it() {
    let asking = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { host().spawn("test", &child("sleep-forever")).await.expect("starts") })
    });
    // The process is tied to the spawner thread, not to the one that ended here.
    let process = asking.join().expect("no panic");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let soon = || tokio::time::Instant::now() + Duration::from_millis(50);
    let left = runtime.block_on(async { process.tree_gone(soon()).await }).expect_err("it runs");
    assert_eq!(left.len(), 1);
    let pid = process.pid();
    drop(process);
    crate::support::wait_until("it is gone", || !is_running(pid));
}

#[test]
fn a_child_dies_with_its_host() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut host = scenario("one_child", dir.path());
    let pid = pid_in(&dir.path().join("main"));
    assert!(is_running(pid));
    host.kill();
    crate::support::wait_until("the child is dead", || !is_running(pid));
}

#[test]
fn a_spawn_without_free_descriptors_says_so_and_leaves_no_process() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("no_descriptors", dir.path()).succeed();
}
