//! The full screen, driven in a real terminal.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::real::RealDaemon;
use crate::xyctl::{self, DEADLINE};

/// A terminal of its own, with a shell's habits and nothing of the user's.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Opens a terminal in which `xyctl` runs; `None` where there is no tmux.
    fn open(daemon: &RealDaemon, arguments: &str) -> Option<Self> {
        let socket = daemon.servers().parent().unwrap().join("tmux");
        let terminal = Self { socket };
        let program = env!("CARGO_BIN_EXE_xyctl");
        let command = format!(
            "XY_SOCKET='{}' TZ=UTC LANG=C.UTF-8 '{program}' {arguments}; echo ended with $?; exec sleep 1000",
            daemon.socket().display()
        );
        let started = terminal.tmux(&["new-session", "-d", "-x", "110", "-y", "30", "sh", "-c", &command]);
        if started.is_none() {
            xyctl::skipped("tmux is not installed");
            return None;
        }
        Some(terminal)
    }

    /// Runs tmux; `None` if there is none.
    fn tmux(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(&self.socket)
            .args(arguments)
            .env_remove("TMUX")
            .env("LANG", "C.UTF-8")
            .output();
        match output {
            Ok(output) => {
                assert!(output.status.success(), "{arguments:?}: {output:?}");
                Some(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).expect("it was there before")
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the screen is as wanted, and returns it.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what} is not on\n{screen}");
            #[expect(
                clippy::disallowed_methods,
                reason = "a terminal tells nobody that its screen has changed"
            )]
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Waits until a server's line says something.
    #[track_caller]
    fn says(&self, server: &str, text: &str) {
        let is_so =
            |screen: &str| screen.lines().take(6).any(|line| line.contains(server) && line.contains(text));
        self.until(&format!("{server}: {text}"), is_so);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

const API: &str = r#"Process(command: "sh", args: ["-c", "echo hello from api; exec sleep 1000"])"#;
const WEB: &str = r#"Process(command: "sh", args: ["-c", "echo hello from web; exec sleep 1000"])"#;

#[test]
fn the_full_screen_shows_everything_and_keys_act() {
    let daemon = RealDaemon::start(&[("api", API), ("web", WEB)]);
    daemon.ok(&["wait", "--all", "--timeout", "30"]);
    let Some(terminal) = Terminal::open(&daemon, "top") else { return };
    terminal.shows("2 of 2 running");
    terminal.shows("> api");
    terminal.shows("hello from api");
    terminal.press("j");
    terminal.shows("> web");
    terminal.shows("hello from web");
    terminal.press("x");
    terminal.says("web", "stopped");
    terminal.shows("1 of 2 running");
    assert_eq!(daemon.json(&["list"])["servers"][1]["state"], "stopped");
    terminal.press("s");
    terminal.says("web", "running");
    terminal.press("p");
    terminal.says("web", "paused");
    terminal.press("r");
    terminal.shows("web: restarted");
    terminal.press("e");
    terminal.shows(" events ");
    terminal.shows("stopped");
    terminal.press("/");
    terminal.tmux(&["send-keys", "-l", "api"]);
    terminal.shows("filter: api");
    terminal.until("no web", |screen| !screen.lines().take(5).any(|line| line.contains("web")));
    terminal.press("Enter");
    terminal.press("?");
    terminal.shows("nothing is stopped by that");
    terminal.press("q");
    terminal.press("q");
    // The terminal is as it was before.
    let screen = terminal.shows("ended with 0");
    assert!(!screen.contains("hello from"), "{screen}");
}

#[test]
fn the_full_screen_ends_with_the_daemon_and_gives_the_terminal_back() {
    let mut daemon = RealDaemon::start(&[("api", API)]);
    let Some(terminal) = Terminal::open(&daemon, "top") else { return };
    terminal.shows("> api");
    daemon.end();
    terminal.shows("ended with 2");
}

#[test]
fn a_terminal_gets_colors() {
    let daemon = RealDaemon::start(&[("api", API)]);
    daemon.ok(&["wait", "api", "--timeout", "30"]);
    let Some(terminal) = Terminal::open(&daemon, "list") else { return };
    terminal.shows("running");
    let colored = terminal.tmux(&["capture-pane", "-p", "-e"]).expect("it was there before");
    assert!(colored.contains("\u{1b}[32mrunning"), "{colored}");
}

#[test]
fn an_operation_on_many_says_on_one_line_how_far_it_is() {
    let daemon = RealDaemon::start(&[]);
    let go = |name: &str| daemon.servers().parent().unwrap().join(format!("go-{name}"));
    for name in ["api", "web"] {
        let wait = format!(
            "until test -e {}; do sleep 0.05; done; echo is ready; exec sleep 1000",
            go(name).display()
        );
        let server = r#"Process(command: "sh", args: ["-c", "?"], ready: Log("is ready"), autostart: false)"#;
        daemon.write(name, &server.replace('?', &wait));
    }
    daemon.ok(&["reload"]);
    let Some(terminal) = Terminal::open(&daemon, "start --all") else { return };
    terminal.shows("0 of 2 ready, waiting for api, web");
    std::fs::write(go("api"), "").unwrap();
    terminal.shows("1 of 2 ready, waiting for web");
    std::fs::write(go("web"), "").unwrap();
    let screen = terminal.shows("ended with 0");
    assert!(screen.contains("api: started\nweb: started\n") && !screen.contains("waiting"), "{screen}");
}

#[test]
fn without_a_terminal_there_is_no_full_screen() {
    let daemon = RealDaemon::start(&[]);
    daemon.xyctl(&["top"]).is(
        1,
        "",
        "error: standard output is not a terminal\nhint: `xyctl list -w` and `xyctl events -f` work everywhere\n",
    );
}
