//! `xyctl` and a program that has put its tree together itself.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;
use xy_actors::child::task;
use xy_actors::log::LogHub;
use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, process};
use xy_actors::spec::{ChildSpec, SupervisorSpec};
use xy_actors::supervisor::{Supervisor, supervisor};
use xy_daemon::ServeOptions;

use crate::xyctl::{self, Run};

/// A program in a thread of its own; dropping it ends its tree.
struct Program {
    directory: TempDir,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts a tree of a task, a process that writes a line and sleeps, and a group with a task in it.
    fn start(change: impl FnOnce(ServeOptions) -> ServeOptions + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("run/program.sock");
        let (end, ended) = tokio::sync::oneshot::channel();
        let (served, is_served) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (host, _) = ProcessHost::start(HostOptions::default()).expect("processes can be owned");
                let logs = LogHub::new(None);
                let tree = tree(&host, &logs).await;
                let options = ServeOptions::at(socket).program("bakery").processes(&host, &logs);
                let server = xy_daemon::serve(tree.clone(), change(options)).await.expect("a free path");
                served.send(()).expect("the test waits");
                tokio::select! {
                    _ = ended => { tree.shutdown().await; }
                    _ = tree.ended() => {}
                }
                server.ended().await;
            });
        });
        is_served.recv().expect("the program serves");
        Self { directory, end: Some(end), thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/program.sock")
    }

    fn xyctl(&self, arguments: &[&str]) -> Run {
        xyctl::run(&self.socket(), arguments)
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let run = self.xyctl(arguments);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{arguments:?}: {}", run.text());
        run.text().to_owned()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.end.take().map(|end| end.send(()));
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(ended.is_none_or(|ended| ended.is_ok()), "the program panicked");
            assert!(!self.socket().exists(), "the socket is left");
        }
    }
}

async fn tree(host: &ProcessHost, logs: &LogHub) -> Supervisor {
    let idle = || {
        task(|context| async move {
            context.stopped().await;
            Ok(())
        })
    };
    let mut shell = ProcessSpec::new("sh");
    shell.args = ["-c", "echo warm; echo smoke >&2; exec sleep 1000"].map(String::from).to_vec();
    let group = supervisor(SupervisorSpec::default()).child(ChildSpec::worker("till"), idle());
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("clock"), idle())
        .child(ChildSpec::worker("oven"), process(shell, host, logs))
        .child(ChildSpec::supervisor("shop"), group);
    tree.start().await.expect("the tree starts")
}

fn rows(list: &Value) -> Vec<(String, String)> {
    let servers = list["servers"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    servers.iter().map(|one| (text(&one["name"]), text(&one["state"]))).collect()
}

#[test]
fn what_a_program_runs_is_listed_and_explained() {
    let program = Program::start(|options| options);
    let rows = rows(&program.json(&["list"]));
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["clock", "oven", "shop", "shop/till"]);
    assert!(rows.iter().all(|(_, state)| state == "running"), "{rows:?}");
    let oven = program.json(&["status", "oven"]);
    assert!(oven["pid"].is_u64(), "{oven}");
    assert_eq!(program.json(&["status", "shop/till"])["ready"], true);
    assert!(program.ok(&["why", "oven"]).starts_with("oven: running, ready"));
    let version = program.json(&["version"]);
    assert_eq!(version["program"], "bakery", "{version}");
    let told = program.ok(&["version"]);
    assert!(told.contains("bakery, with xy") && !told.contains("configuration"), "{told}");
}

#[test]
fn what_a_program_runs_is_stopped_started_and_restarted_by_name_and_pattern() {
    let program = Program::start(|options| options);
    for (verb, list) in [("stop", "stopped"), ("start", "started"), ("restart", "restarted")] {
        for name in ["clock", "oven", "shop/till"] {
            let done = program.json(&[verb, name]);
            assert_eq!(done[list], serde_json::json!([name]), "{verb}: {done}");
            let state = if verb == "stop" { "stopped" } else { "running" };
            assert_eq!(program.json(&["status", name])["state"], state, "{verb} {name}");
        }
    }
    let done = program.json(&["stop", "--no-wait", "oven"]);
    assert_eq!(done["stopped"], serde_json::json!(["oven"]));
    let done = program.json(&["pause", "*o*"]);
    assert_eq!(done["paused"], serde_json::json!(["clock", "oven", "shop"]));
    let why = program.json(&["why", "oven"]);
    let asked: Vec<&str> = why["asked"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["operation"].as_str().unwrap())
        .collect();
    assert_eq!(asked, ["pause", "stop", "restart", "start", "stop"], "{why}");
    let missing = program.xyctl(&["start", "shop/tail"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("shop/till"), "{}", missing.stderr);
}

#[test]
fn the_output_of_a_process_is_shown_and_of_what_has_none_it_is_said() {
    let program = Program::start(|options| options);
    // Each run takes longer than a line needs; so many never do.
    let is_there = |logs: &String| logs.contains("warm") && logs.contains("smoke");
    assert!((0..500).map(|_| program.ok(&["logs", "oven"])).any(|logs| is_there(&logs)));
    let none = program.xyctl(&["logs", "clock"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("has no output of its own"), "{}", none.stderr);
}

#[test]
fn what_is_about_files_is_refused_as_such() {
    let program = Program::start(|options| options);
    for arguments in [
        &["reload"][..],
        &["show", "oven"],
        &["enable", "oven"],
        &["add", "web", "--", "sleep", "1"],
        &["rm", "oven"],
    ] {
        let refused = program.xyctl(arguments);
        assert_eq!(refused.code, Some(1), "{arguments:?}: {refused:?}");
        assert!(
            refused.stderr.contains("this program made its tree itself"),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn a_tree_is_ended_from_outside_only_where_its_program_lets_it() {
    let program = Program::start(|options| options);
    let refused = program.xyctl(&["shutdown"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("`bakery` does not let itself be ended"), "{}", refused.stderr);
    assert_eq!(program.json(&["status", "oven"])["state"], "running");
    let program = Program::start(ServeOptions::permit_shutdown);
    program.ok(&["shutdown"]);
    assert!(!program.socket().exists());
}
