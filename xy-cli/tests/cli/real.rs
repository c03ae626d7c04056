//! A real daemon with real servers, and what `xyctl` says to it, compared with checked-in files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;

use nix::sys::signal::Signal;
use regex::RegexBuilder;
use tempfile::TempDir;

use crate::xyctl::{self, Run, finish, signal, start_in};

/// A daemon in the foreground of its own home; dropping it ends it and everything it started.
pub(crate) struct RealDaemon {
    home: TempDir,
    child: Option<Child>,
}

impl RealDaemon {
    /// Starts a daemon of these servers.
    pub(crate) fn start(servers: &[(&str, &str)]) -> Self {
        Self::start_with("()", servers)
    }

    /// Starts a daemon with settings of its own.
    pub(crate) fn start_with(settings: &str, servers: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let config = home.path().join(".config/xy");
        fs::create_dir_all(&config).expect("it is empty");
        fs::write(config.join("xyd.ron"), settings).expect("it is empty");
        fs::create_dir(home.path().join("servers")).expect("it is empty");
        let mut daemon = Self { home, child: None };
        for (name, text) in servers {
            daemon.write(name, text);
        }
        daemon.begin();
        daemon
    }

    /// Writes a server file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.servers().join(format!("{name}.ron")), text).expect("the directory is there");
    }

    pub(crate) fn servers(&self) -> PathBuf {
        self.home.path().join("servers")
    }

    fn begin(&mut self) {
        let servers = self.servers();
        let mut child = start_in(self.home.path(), &self.socket(), &["up", servers.to_str().unwrap()]);
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut errors = child.stderr.take().expect("it is piped");
        let mut said = String::new();
        while !said.contains("Ctrl-C here stops everything") {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
        }
        // It must never wait for somebody to read.
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        self.child = Some(child);
    }

    /// Ends the daemon with everything it started.
    pub(crate) fn end(&mut self) {
        if let Some(child) = self.child.take() {
            signal(&child, Signal::SIGTERM);
            finish(child);
        }
    }

    /// Ends the daemon and starts it again.
    pub(crate) fn restart(&mut self) {
        self.end();
        self.begin();
    }

    /// Sends the daemon a signal and returns its process id.
    pub(crate) fn signal(&self, signal: Signal) -> u32 {
        let child = self.child.as_ref().expect("it runs");
        xyctl::signal(child, signal);
        child.id()
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("run/xyd.sock")
    }

    /// Runs `xyctl` to its end, in the home of the daemon.
    pub(crate) fn xyctl(&self, arguments: &[&str]) -> Run {
        finish(self.spawn(arguments))
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        xyctl::start_in(self.home.path(), &self.socket(), arguments)
    }

    /// Runs `xyctl` and checks that it succeeds.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Run {
        let run = self.xyctl(arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {run:?}");
        run
    }

    /// Runs `xyctl` with `--json` and returns the document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let run = self.xyctl(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {run:?}"))
    }

    /// Runs commands and compares what they say with the file `snapshots/NAME.txt`; what differs between runs (process
    /// ids, times, amounts, the home) stands there by its kind. `XY_WRITE_SNAPSHOTS=1` in the environment writes the file.
    #[track_caller]
    pub(crate) fn snapshot(&self, name: &str, commands: &[&[&str]]) {
        let mut told = String::new();
        for command in commands {
            let run = self.xyctl(command);
            let words: Vec<String> = command.iter().map(|word| shown(word)).collect();
            told.push_str(&format!("$ xyctl {}\n", words.join(" ")));
            told.push_str(run.text());
            for line in run.stderr.lines() {
                told.push_str(&format!("! {line}\n"));
            }
            told.push_str(&format!("= {}\n\n", run.code.expect("it ended by itself")));
        }
        let told = self.neutral(&told);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/snapshots/{name}.txt"));
        if std::env::var_os("XY_WRITE_SNAPSHOTS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &told).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(told, expected, "{} is not what was said", path.display());
    }

    fn neutral(&self, text: &str) -> String {
        let mut text = text.replace(self.home.path().to_str().unwrap(), "HOME");
        text = text.replace(env!("CARGO_MANIFEST_DIR"), "HERE").replace(env!("CARGO_PKG_VERSION"), "VERSION");
        for (pattern, kind) in [
            (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\b", "TIME"),
            (r"\b[0-9]{2}:[0-9]{2}:[0-9]{2}\b", "TIME"),
            (r"\b[0-9]+\.[0-9] s\b", "SECONDS"),
            (r"\b[0-9]+s\b", "SPAN"),
            (r"\b[0-9]+\.[0-9]%", "SHARE"),
            (r"\b[0-9]+(\.[0-9])?[KMG]\b", "BYTES"),
            (
                r#""(pid|age_ms|cpu_ms|memory_bytes|at_unix_ms|started_at_unix_ms|ts_unix_ms|uptime_secs|delay_ms|open_files_limit)":[0-9]+"#,
                "\"$1\":N",
            ),
            (r#""id":"[0-9a-f]+-[0-9]+""#, r#""id":"ID""#),
            (r"\bpid [0-9]+", "pid PID"),
            (r"\b(just now|SPAN ago)", "LATELY"),
            // What the machine lets a daemon do.
            (r"process trees(:? +)[ -~]*", "process trees${1}MEANS"),
            // And what it has told of that.
            (r"\n *TIME (warn|error)(:| ) *[ -~]*", ""),
            (r"recent errors +[a-z0-9]+", "recent errors  N"),
            (r#""recent_errors":\[[ -~]*\]"#, r#""recent_errors":[]"#),
            // Who asked before may not have been seen to leave.
            (r"clients(:? +)[0-9]+ connected", "clients${1}N connected"),
            (
                r#""connections":[0-9]+,"last_activity_unix_ms":[0-9]+"#,
                r#""connections":N,"last_activity_unix_ms":N"#,
            ),
            (r"open files(:? +)at most [0-9]+", "open files${1}at most N"),
            (r#""cgroup":"[ !#-~]*",?"#, ""),
            (r#""ownership":"[a-z]+""#, "\"ownership\":\"MEANS\""),
            (r"expected one of [a-z_`, ]*", "expected one of KEYS"),
            (r"(running +yes +)[0-9]+", "${1}PID"),
            // Columns are as wide as what stood in them.
            (r"  +", "  "),
        ] {
            let pattern = RegexBuilder::new(pattern).unicode(false).build().expect("it is one");
            text = pattern.replace_all(&text, kind).into_owned();
        }
        text
    }
}

fn shown(word: &str) -> String {
    if word.contains([' ', '*', '$', ';']) { format!("'{word}'") } else { word.to_owned() }
}

impl Drop for RealDaemon {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // A second signal would kill what is left; the first is answered by every server here.
            _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id fits")),
                Signal::SIGTERM,
            );
            if !thread::panicking() {
                finish(child);
            }
        }
    }
}
