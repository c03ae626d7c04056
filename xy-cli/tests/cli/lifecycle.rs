//! The daemon in the background: the real `xyd`, with its guard.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::real::RealDaemon;
use crate::xyctl::{Run, finish, signal, start_in};

/// A home directory whose daemon is ended with it.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        xyd();
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(home.path().join(".config/xy/servers")).expect("a directory");
        Self(home)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn server(&self, name: &str, script: &str, rest: &str) {
        let file = self.path(&format!(".config/xy/servers/{name}.ron"));
        let text = format!("Process(command: \"/bin/sh\", args: [\"-c\", {script:?}], {rest})");
        fs::write(file, text).expect("written");
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        finish(start_in(self.0.path(), &self.path("run/xyd.sock"), arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(run.text()).unwrap_or_else(|_| panic!("no JSON in {run:?}"))
    }

    fn pid(&self) -> i32 {
        let status = self.json(&["daemon", "status"]);
        let pid = status["daemon"]["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {status}"));
        i32::try_from(pid).expect("a process id")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _checked_by_tests = self.run(&["daemon", "stop", "--kill", "--timeout", "5s"]);
    }
}

/// The daemon's program beside `xyctl`, built if only this package's tests were.
fn xyd() -> &'static Path {
    static XYD: OnceLock<PathBuf> = OnceLock::new();
    XYD.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_xyctl")).with_file_name("xyd");
        if !path.exists() {
            let built =
                Command::new(env!("CARGO")).args(["build", "-p", "xy-daemon", "--bin", "xyd"]).status();
            assert!(built.expect("cargo runs").success(), "xyd does not build");
        }
        path
    })
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn start_returns_when_the_daemon_answers_and_stop_when_everything_has_ended() {
    let home = Home::new();
    home.server("web", "echo $$ > pid; exec sleep 1000", &format!("working_dir: {:?}", home.0.path()));
    home.run(&["daemon", "status"]).is(2, "stopped\n  `xyctl daemon start` starts it\n", "");
    let run = home.run(&["daemon", "start"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let (socket, log) = (home.path("run/xyd.sock"), home.path(".local/state/xy/xyd.log"));
    let pid = home.pid();
    let expected = format!(
        "xyd runs in the background: pid {pid}, 1 server\n  socket: {}\n  log: {}\n",
        socket.display(),
        log.display()
    );
    run.is(0, &expected, "");
    assert_eq!(fs::metadata(&log).expect("a log").permissions().mode() & 0o777, 0o600);
    let session = nix::unistd::getsid(Some(Pid::from_raw(pid))).expect("it runs");
    assert_ne!(session, nix::unistd::getsid(None).expect("ours"), "it has left the terminal's session");

    let again = home.run(&["daemon", "start"]);
    again.is(0, &format!("xyd runs already: pid {pid}\n"), "");
    let status = home.run(&["daemon", "status"]);
    assert!(status.text().starts_with(&format!("running: pid {pid}, since ")), "{status:?}");
    until("the server has started", || {
        fs::read_to_string(home.path("pid")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let server: i32 = fs::read_to_string(home.path("pid")).unwrap().trim().parse().expect("a process id");

    home.run(&["daemon", "stop"]).is(0, "stopping every server\nthe daemon has ended\n", "");
    assert_eq!(kill(Pid::from_raw(server), None), Err(nix::errno::Errno::ESRCH), "the server has ended");
    assert!(!socket.exists());
    home.run(&["daemon", "stop"]).is(0, "the daemon is not running\n", "");
}

#[test]
fn a_daemon_that_starts_without_some_of_its_files_says_so_at_once() {
    let home = Home::new();
    home.server("web", "exec sleep 1000", "");
    for name in ["bad", "worse"] {
        fs::write(home.path(&format!(".config/xy/servers/{name}.ron")), "Process(comand: \"x\")")
            .expect("written");
    }
    let run = home.run(&["daemon", "start"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let first = format!("xyd runs in the background: pid {}, 1 server\n", home.pid());
    assert!(run.text().starts_with(&first), "{run:?}");
    let rejected = "error: 2 files rejected\nhint: `xyctl reload --dry-run` says what is wrong\n";
    assert_eq!(run.stderr, rejected, "{run:?}");
}

#[test]
fn a_daemon_that_cannot_start_is_told_with_its_last_words() {
    let home = Home::new();
    fs::write(home.path(".config/xy/xyd.ron"), "(shutdown_timeot: \"1s\")").expect("written");
    let run = home.run(&["daemon", "start"]);
    assert_eq!((run.code, run.text()), (Some(3), ""), "{run:?}");
    let end = "error: xyd ended while it started: exit code 3\nhint: `xyd --check` shows every mistake\n";
    assert!(run.stderr.ends_with(end), "{run:?}");
    let log = format!("the end of {}:\n  error: ", home.path(".local/state/xy/xyd.log").display());
    assert!(run.stderr.starts_with(&log) && run.stderr.contains("`shutdown_timeot`"), "{run:?}");
    // What an earlier start said is not shown again.
    fs::write(home.path(".config/xy/xyd.ron"), "(shutdown_timeou: \"1s\")").expect("written");
    let second = home.run(&["daemon", "start"]);
    assert!(!second.stderr.contains("shutdown_timeot"), "{second:?}");
    let logs = home.run(&["daemon", "logs"]);
    assert!(logs.text().contains("shutdown_timeot") && logs.text().contains("shutdown_timeou`"), "{logs:?}");
}

#[test]
fn a_daemon_at_another_socket_is_named() {
    let home = Home::new();
    assert_eq!(home.run(&["daemon", "start"]).code, Some(0));
    let pid = home.pid();
    let other = home.path("other/xyd.sock");
    let other = other.to_str().expect("words");
    let run = home.run(&["daemon", "start", "--socket", other, "--timeout", "100ms"]);
    let state = home.path(".local/state/xy");
    let error = format!(
        "error: another xyd (pid {pid}) owns `{}` and does not answer at `{other}`\nhint: name its socket with \
         `--socket` or `XY_SOCKET`, or end it with `xyctl daemon stop`\n",
        state.display()
    );
    run.is(1, "", &error);
    let status = home.run(&["daemon", "status", "--socket", other]);
    assert_eq!(status.code, Some(1));
    assert!(status.text().starts_with(&format!("not answering: pid {pid} owns ")), "{status:?}");
    // It can be ended all the same.
    home.run(&["daemon", "stop", "--socket", other]).is(
        0,
        "stopping every server\nthe daemon has ended\n",
        "",
    );
}

#[test]
fn a_server_that_does_not_end_is_named_and_killed_on_request() {
    let home = Home::new();
    let stubborn = "trap '' TERM; echo armed; while :; do sleep 1000; done";
    home.server("stubborn", stubborn, "ready: Log(\"armed\"), stop: (grace: \"50s\")");
    assert_eq!(home.run(&["daemon", "start"]).code, Some(0));
    let started = home.run(&["start", "stubborn"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let pid = home.pid();
    let run = home.run(&["daemon", "stop", "--timeout", "300ms"]);
    let error = format!(
        "error: xyd (pid {pid}) has not ended within 0.3 s; still there: stubborn\nhint: `xyctl daemon stop --kill` \
         kills what is left\n"
    );
    run.is(1, "stopping every server\n", &error);
    home.run(&["daemon", "stop", "--kill"]).is(0, "stopping every server\nthe daemon has ended\n", "");
}

#[test]
fn a_daemon_that_hangs_is_killed_on_request_and_restart_takes_the_configuration_along() {
    let home = Home::new();
    let config = home.path("elsewhere");
    fs::create_dir_all(config.join("servers")).expect("a directory");
    fs::write(config.join("servers/job.ron"), "Process(command: \"sleep\", args: [\"1000\"])")
        .expect("written");
    let words = config.to_str().expect("words");
    assert_eq!(home.run(&["daemon", "start", "--config", words]).code, Some(0));
    let first = home.pid();
    let run = home.run(&["daemon", "restart"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.text().contains(", 1 server\n"), "{run:?}");
    let second = home.pid();
    assert_ne!(first, second);

    let status = home.json(&["daemon", "status"]);
    let guard = status["daemon"]["diagnostics"]["guard_pid"].as_i64().expect("it has a guard");
    let guard = Pid::from_raw(guard.try_into().expect("a process id"));
    let hung = Pid::from_raw(second);
    kill(hung, Signal::SIGSTOP).expect("it runs");
    let status = home.run(&["daemon", "status"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    let run = home.run(&["daemon", "stop", "--kill", "--timeout", "500ms"]);
    run.is(0, "stopping every server\nthe daemon has ended\n", "");
    // Its guard has not brought it back.
    until("the guard has ended", || {
        let stat = fs::read_to_string(format!("/proc/{guard}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    assert_eq!(home.run(&["daemon", "status"]).code, Some(2));
}

#[test]
fn a_command_that_needs_the_daemon_says_how_to_start_it_or_does_so() {
    let home = Home::new();
    let run = home.run(&["list"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("hint: start the daemon with `xyctl daemon start`"), "{run:?}");
    home.run(&["shutdown", "--start"]).is(0, "the daemon is not running\n", "");
    let run = home.run(&["list", "--start"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let pid = home.pid();
    assert!(run.stderr.starts_with("started xyd in the background: pid "), "{run:?}");
    let run = home.run(&["--start", "list", "--json"]);
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
    assert_eq!(home.pid(), pid, "it was used as it was");
}

#[test]
fn install_writes_a_unit_that_systemd_accepts_and_uninstall_takes_only_ours_away() {
    let home = Home::new();
    let unit = home.path(".config/systemd/user/xyd.service");
    let config = home.path("my config %h $HOME");
    let config = config.to_str().expect("words");
    let run = home.run(&["daemon", "install", "--config", config]);
    let socket = home.path(".config/systemd/user/xyd.socket");
    let (first, second) = (unit.display(), socket.display());
    let begin =
        format!("wrote {first}\nwrote {second}\nStart it now and at every login with:\n  systemctl --user ");
    assert!(run.code == Some(0) && run.text().starts_with(&begin), "{run:?}");
    let text = fs::read_to_string(&unit).expect("written");
    assert!(text.contains(&format!("ExecStart={} --config \"", xyd().display())), "{text}");
    assert!(text.contains("/my config %%h $$HOME\""), "{text}");
    for line in [
        "Type=notify",
        "WatchdogSec=30s",
        "Restart=always",
        "KillMode=mixed",
        "Delegate=yes",
        "OOMPolicy=continue",
        "UMask=0077",
        "Requires=xyd.socket",
        "Also=xyd.socket",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing: {text}");
    }
    let text = fs::read_to_string(&socket).expect("written");
    let listen = format!("ListenStream={}", home.path("run/xyd.sock").display());
    assert!(text.lines().any(|found| found == listen), "{text}");
    match Command::new("systemd-analyze")
        .args(["verify", "--user"])
        .args([&unit, &socket])
        .env("XDG_RUNTIME_DIR", home.0.path())
        .output()
    {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("xyd."), "{said}");
        }
        Err(error) => eprintln!("the unit was not verified, there is no systemd-analyze: {error}"),
    }

    let again = home.run(&["daemon", "install", "--config", config]);
    assert!(again.text().starts_with(&format!("unchanged: {}\n", unit.display())), "{again:?}");
    let run = home.run(&["daemon", "uninstall"]);
    assert!(run.text().starts_with(&format!("removed {}\n", unit.display())), "{run:?}");
    assert!(!unit.exists() && !socket.exists());
    home.run(&["daemon", "uninstall"]).is(0, "it is not installed\n", "");

    fs::write(&unit, "[Service]\nExecStart=/usr/bin/other\n").expect("written");
    let error = format!("error: `{}` was not written by `xyctl daemon install`\n", unit.display());
    let hint = "hint: move it away; `xyctl daemon install --force` overwrites it\n";
    for command in ["install", "uninstall"] {
        home.run(&["daemon", command]).is(1, "", &format!("{error}{hint}"));
    }
    assert!(fs::read_to_string(&unit).expect("still there").contains("/usr/bin/other"));
    assert_eq!(home.run(&["daemon", "install", "--force"]).code, Some(0));
}

#[test]
fn a_daemon_that_is_suspended_is_named_and_waited_for_or_given_up_after_the_timeout() {
    let daemon =
        RealDaemon::start(&[("web", r#"Process(command: "sleep", args: ["1000"], autostart: false)"#)]);
    let mut follower = daemon.spawn(&["events", "-f", "--json", "--from", "1"]);
    let mut events = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    assert!(events.next().expect("the first event").expect("text").contains("supervisor_started"));
    let pid = daemon.signal(Signal::SIGSTOP);
    let state = daemon.home().join(".local/state/xy");
    let silence = format!("not answering: pid {pid} owns {}", state.display());
    let hint = format!("it is suspended, and `kill -CONT {pid}` lets it go on");
    let waiting = [&["list", "--no-usage"][..], &["status", "web", "--json"], &["start", "web"], &["check"]];
    let waiting = waiting.map(|arguments| (arguments, daemon.spawn(arguments)));
    for arguments in [["wait", "web", "--timeout", "1"], ["start", "web", "--timeout", "1"]] {
        daemon.xyctl(&arguments).is(2, "", &format!("error: {silence}\nhint: {hint}\n"));
    }
    let told = waiting.map(|(arguments, mut child)| {
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        stderr.read_line(&mut line).expect("text");
        (arguments, child, stderr, line)
    });
    daemon.signal(Signal::SIGCONT);
    for (arguments, child, mut stderr, line) in told {
        let run = finish(child);
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("text");
        assert_eq!((run.code, rest.as_str()), (Some(0), ""), "{arguments:?}: {run:?}");
        let expected = if arguments[0] == "check" { String::new() } else { format!("{silence}; {hint}\n") };
        assert_eq!(line, expected, "{arguments:?}");
    }
    // Who follows goes on following.
    assert!(events.any(|event| event.expect("text").contains("child_ready")));
    signal(&follower, Signal::SIGINT);
    assert_eq!(finish(follower).code, Some(0));
}
