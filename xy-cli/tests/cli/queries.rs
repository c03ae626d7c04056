//! Verbs that only ask.

use serde_json::{Value, json};
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{List, Status, Usage};

use crate::daemon::{Daemon, nowhere, server, server_with};
use crate::xyctl;

#[test]
fn list_is_a_table_of_aligned_words() {
    let daemon = Daemon::start();
    daemon.answer::<List>(json!({ "servers": [
        server("files"),
        server_with("search", json!({
            "state": "restarting", "ready": false, "pid": null, "uptime_secs": null, "port": null,
            "restart_count": 3, "next": "restart 3 of 5 in 1.6 s",
        })),
        server_with("web", json!({ "paused": true })),
    ] }));
    daemon.answer::<Usage>(json!({ "servers": [
        { "name": "files", "pid": 4242, "cpu_ms": 500, "memory_bytes": 48 << 20, "processes": 2, "age_ms": 10_000 },
        // Of a process that has ended meanwhile.
        { "name": "web", "pid": 4241, "cpu_ms": 500, "memory_bytes": 48 << 20, "processes": 2, "age_ms": 10_000 },
    ] }));
    let table = "\
NAME    STATE       READY   PID     UP  RESTARTS   CPU    MEM  PORT  NEXT
files   running     yes    4242  3m12s         0  5.0%  48.0M  8421  -
search  restarting  no        -      -         3     -      -     -  restart 3 of 5 in 1.6 s
web     running     yes    4242  3m12s         0     -      -  8421  paused
";
    for verb in ["list", "ls", "ps", "status"] {
        daemon.xyctl(&[verb]).is(0, table, "");
    }
}

#[test]
fn a_daemon_that_refuses_to_say_what_is_used_has_a_list_all_the_same() {
    let daemon = Daemon::start();
    daemon.answer::<List>(json!({ "servers": [server("files")] }));
    daemon.refuse::<Usage>(RpcError::new(ErrorKind::Unsupported, "nobody counts"));
    let table = "\
NAME   STATE    READY   PID     UP  RESTARTS  CPU  MEM  PORT  NEXT
files  running  yes    4242  3m12s         0    -    -  8421  -
";
    daemon.xyctl(&["list"]).is(0, table, "");
    let json: Value = serde_json::from_slice(&daemon.xyctl(&["list", "--json"]).stdout).unwrap();
    assert_eq!(json, json!({ "servers": [server("files")] }));
}

#[test]
fn list_without_servers_says_so_apart_from_the_result() {
    let daemon = Daemon::start();
    daemon.answer::<List>(json!({ "servers": [] }));
    daemon.xyctl(&["list"]).is(0, "", "no servers are configured; `xyctl add NAME -- COMMAND` adds one\n");
    daemon.xyctl(&["list", "--json"]).is(0, "{\"servers\":[]}\n", "");
}

#[test]
fn json_is_the_methods_result_in_one_document() {
    let daemon = Daemon::start();
    let result = json!({ "servers": [server("files")] });
    daemon.answer::<List>(result.clone());
    let run = daemon.xyctl(&["list", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&run.stdout).unwrap(), result);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn colors_come_only_when_asked_for_in_a_pipe() {
    let daemon = Daemon::start();
    daemon.answer::<List>(json!({ "servers": [server("files")] }));
    let colored = daemon.xyctl(&["list", "--color", "always"]);
    assert!(colored.text().contains("files  \x1b[32mrunning\x1b[0m  yes"), "{colored:?}");
    let plain = daemon.xyctl(&["list"]);
    assert!(!plain.text().contains('\x1b'), "{plain:?}");
}

#[test]
fn control_characters_of_servers_are_neutralized() {
    let daemon = Daemon::start();
    let hostile = server_with("files", json!({ "next": "\x1b]0;owned\x07\nweb  running" }));
    daemon.answer::<List>(json!({ "servers": [hostile.clone()] }));
    let list = daemon.xyctl(&["list"]);
    assert!(list.text().ends_with("\\x1b]0;owned\\x07\\nweb  running\n"), "{list:?}");
    assert_eq!(list.text().lines().count(), 2);

    let mut status = hostile;
    status.as_object_mut().unwrap().extend(details());
    status["stderr_tail"] = json!(["\x1b[2Jgone"]);
    daemon.answer::<Status>(status);
    let status = daemon.xyctl(&["status", "files"]);
    assert!(status.text().contains("  | \\x1b[2Jgone\n"), "{status:?}");
    assert!(!status.text().contains('\x1b'), "{status:?}");
}

fn details() -> serde_json::Map<String, Value> {
    let details = json!({
        "incarnation": 3, "transitions": [], "children": [], "log_path": null, "stderr_tail": [],
        "config_error": null,
    });
    let Value::Object(details) = details else { unreachable!("it is an object") };
    details
}

#[test]
fn status_says_everything_that_is_known() {
    let daemon = Daemon::start();
    let mut status = server_with(
        "search",
        json!({
            "wanted": "down", "paused": true, "restart_count": 2, "next": "restart 3 of 5 in 1.6 s",
            "last_exit": { "exit": "abnormal", "cause": "exit code 7", "at_unix_ms": 1_000, "incarnation": 2 },
        }),
    );
    status.as_object_mut().unwrap().extend(details());
    status["log_path"] = json!("/state/logs/search.log");
    status["stderr_tail"] = json!(["a", "\tb"]);
    status["config_error"] = json!("line 3: unknown key `comand`\nline 4: more");
    status["transitions"] = json!([
        { "from": "starting", "to": "running", "at_unix_ms": 2_000, "reason": "ready" },
    ]);
    status["children"] = json!([server("search/a")]);
    daemon.answer::<Status>(status);
    let run = daemon.xyctl(&["status", "search"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let text = run.text();
    let (before, after) = text.split_once("exit code 7 (abnormal), ").expect("the last exit is there");
    assert_eq!(
        before,
        "\
search
  state      running
  ready      yes
  wanted     down, until it is started
  paused     yes, it is not restarted automatically
  pid        4242 (incarnation 3)
  up         3m 12s
  restarts   2
  port       8421
  next       restart 3 of 5 in 1.6 s
  last exit  "
    );
    let (ago, after) = after.split_once(" ago").expect("it says how long ago");
    assert!(ago.contains('d'), "{ago}");
    assert_eq!(
        after,
        " (incarnation 2)
  log        /state/logs/search.log
  file       line 3: unknown key `comand`
             line 4: more

children
  NAME      STATE    READY   PID     UP  RESTARTS  PORT  NEXT
  search/a  running  yes    4242  3m12s         0  8421  -

changes of state
  1970-01-01 00:00:02  starting   -> running     ready

last lines of standard error
  | a
  | \tb
"
    );
}

#[test]
fn version_tells_both_sides() {
    let daemon = Daemon::start();
    let run = daemon.xyctl(&["version"]);
    let lines: Vec<_> = run.text().lines().collect();
    assert_eq!(lines[0], format!("xyctl {}, protocol 1", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].starts_with("daemon 9.8.7, protocol 1, pid 77, since 1970-01-01 00:00:01 ("), "{run:?}");
    assert_eq!(run.code, Some(0));
}

#[test]
fn version_without_a_daemon_still_tells_its_own() {
    let run = xyctl::run(nowhere(), &["version"]);
    assert!(run.text().starts_with("xyctl "), "{run:?}");
    assert_eq!(run.code, Some(2));
}
