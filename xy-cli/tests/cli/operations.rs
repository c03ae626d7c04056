//! Verbs that act.

use serde_json::{Value, json};
use xy_daemon::protocol::method::{Pause, Reload, Restart, Resume, Shutdown, Signal, Start, Stop};

use crate::daemon::{Daemon, nowhere};
use crate::xyctl;

#[test]
fn each_verb_says_what_became_of_each_server() {
    let daemon = Daemon::start();
    daemon.answer::<Start>(json!({ "started": ["a"], "already_running": ["b"], "failed": [] }));
    daemon.xyctl(&["start", "a", "b"]).is(0, "a: started\nb: already running\n", "");
    daemon.xyctl(&["start", "a", "b", "--no-wait"]).is(0, "a: starting\nb: already running\n", "");

    daemon.answer::<Stop>(json!({
        "stopped": ["a"], "not_running": ["b"], "failed": [],
        "killed": [{ "name": "a", "processes": [{ "pid": 7, "command": "sleep 9" }, { "pid": 8, "command": "" }] }],
    }));
    daemon.xyctl(&["stop", "a", "b"]).is(
        0,
        "a: stopped\na: had to be killed: 7 (sleep 9), 8\nb: not running\n",
        "",
    );

    daemon.answer::<Restart>(json!({ "restarted": ["a"], "failed": [] }));
    daemon.xyctl(&["restart", "a"]).is(0, "a: restarted\n", "");
    daemon.answer::<Pause>(json!({ "paused": ["a"], "failed": [] }));
    daemon.xyctl(&["pause", "a"]).is(0, "a: paused\n", "");
    daemon.answer::<Resume>(json!({ "resumed": ["a"], "failed": [] }));
    daemon.xyctl(&["resume", "a"]).is(0, "a: resumed\n", "");
    daemon.answer::<Signal>(json!({ "signaled": ["a"], "failed": [] }));
    daemon.xyctl(&["signal", "-s", "sighup", "a"]).is(0, "a: signaled\n", "");
}

#[test]
fn flags_reach_the_daemon() {
    let daemon = Daemon::start();
    daemon.answer::<Start>(json!({ "started": [], "already_running": [], "failed": [] }));
    daemon.answer::<Signal>(json!({ "signaled": [], "failed": [] }));
    let asked = |arguments: &[&str]| {
        assert_eq!(daemon.xyctl(arguments).code, Some(0), "{arguments:?}");
        daemon.asked::<Start>().unwrap()
    };
    assert_eq!(asked(&["start", "a", "b"]), json!({ "names": ["a", "b"], "wait": true }));
    assert_eq!(asked(&["start", "--all", "--no-wait"]), json!({ "all": true, "wait": false }));
    assert_eq!(
        asked(&["start", "a", "--timeout", "2m", "--reason", "new"]),
        json!({ "names": ["a"], "wait": true, "timeout_secs": 120, "reason": "new" })
    );
    assert_eq!(daemon.xyctl(&["signal", "--signal", "USR1", "a", "b"]).code, Some(0));
    assert_eq!(daemon.asked::<Signal>().unwrap(), json!({ "names": ["a", "b"], "signal": "USR1" }));
}

#[test]
fn one_failed_server_makes_the_exit_code_1_and_does_not_hide_the_others() {
    let daemon = Daemon::start();
    let result = json!({ "started": ["a"], "already_running": [], "failed": [
        { "name": "b", "kind": "spawn_failed", "message": "`bb` was not found\nin PATH" },
        { "name": "serach", "kind": "server_not_found", "message": "no server is named `serach`" },
    ] });
    daemon.answer::<Start>(result.clone());
    daemon.xyctl(&["start", "a", "b", "serach"]).is(
        1,
        "a: started\n",
        "error: b: `bb` was not found\\nin PATH\n\
         hint: `xyctl why b` says more\n\
         error: server not found: `serach`\n\
         hint: did you mean `search`?\n",
    );
    let run = daemon.xyctl(&["start", "a", "b", "serach", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&run.stdout).unwrap(), result);
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""));
}

#[test]
fn a_reload_that_rejects_a_file_exits_3() {
    let daemon = Daemon::start();
    daemon.answer::<Reload>(json!({
        "added": [{ "name": "new", "reason": "started" }],
        "changed": [{ "name": "files", "reason": "args; restarted" }],
        "removed": [{ "name": "old", "reason": "" }],
        "unchanged": [{ "name": "x", "reason": "" }],
        "rejected": [{ "name": "bad", "reason": "bad.ron:1:2: unknown key `comand`\nbad.ron: `port`: too large" }],
    }));
    let rejected = "error: bad: bad.ron:1:2: unknown key `comand`\nerror: bad: bad.ron: `port`: too large\n";
    daemon.xyctl(&["reload"]).is(
        3,
        "new: added (started)\nfiles: changed (args; restarted)\nold: removed\n1 server unchanged\n",
        rejected,
    );
    let dry = daemon.xyctl(&["reload", "--dry-run"]);
    assert!(dry.text().starts_with("new: would be added"), "{dry:?}");
    assert_eq!(daemon.asked::<Reload>().unwrap(), json!({ "dry_run": true }));
    assert_eq!(daemon.xyctl(&["reload", "--json"]).code, Some(3));
}

#[test]
fn a_reload_without_rejections_succeeds() {
    let daemon = Daemon::start();
    daemon.answer::<Reload>(
        json!({ "added": [], "changed": [], "removed": [], "unchanged": [], "rejected": [] }),
    );
    daemon.xyctl(&["reload"]).is(0, "", "");
}

#[test]
fn shutdown_returns_when_the_daemon_is_gone() {
    let daemon = Daemon::start();
    let run = daemon.xyctl(&["shutdown", "--reason", "done"]);
    run.is(0, "stopping every server\nthe daemon has ended\n", "");
    assert_eq!(daemon.asked::<Shutdown>().unwrap(), json!({ "reason": "done" }));
}

#[test]
fn shutdown_of_a_daemon_that_does_not_run_is_success() {
    xyctl::run(nowhere(), &["shutdown"]).is(0, "the daemon is not running\n", "");
    xyctl::run(nowhere(), &["shutdown", "--json"]).is(0, "{\"stopping\":false}\n", "");
}
