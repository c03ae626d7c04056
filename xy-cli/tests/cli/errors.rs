//! What goes wrong, and how `xyctl` says so.

use serde_json::json;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{List, Logs, Reload, Status, Upgrade};

use crate::daemon::{Daemon, nowhere};
use crate::xyctl;

#[test]
fn without_a_daemon_the_cause_and_the_remedy_are_named() {
    for arguments in
        [&["list"][..], &["status", "a"], &["start", "a"], &["reload"], &["logs", "a"], &["events"]]
    {
        xyctl::run(nowhere(), arguments).is(
            2,
            "",
            "error: no daemon can be reached at `/nonexistent/xyd.sock`: No such file or directory (os error 2)\n\
             hint: start the daemon with `xyctl daemon start`, or with `xyctl up` to watch it\n",
        );
    }
}

#[test]
fn an_upgrade_is_told_with_both_versions_and_a_refusal_with_its_reason() {
    let daemon = Daemon::start();
    daemon.answer::<Upgrade>(json!({ "from": "9.8.7", "to": "9.9.0" }));
    daemon.xyctl(&["daemon", "upgrade"]).is(0, "upgraded from 9.8.7 to 9.8.7, pid 77\n", "");
    daemon.refuse::<Upgrade>(RpcError::new(ErrorKind::UpgradeRefused, "`/bin/xyd` cannot take over: no"));
    let run = daemon.xyctl(&["daemon", "upgrade"]);
    assert_eq!((run.code, run.text()), (Some(1), ""));
    assert!(run.stderr.contains("`/bin/xyd` cannot take over: no"), "{run:?}");
    assert_eq!(xyctl::run(nowhere(), &["daemon"]).code, Some(64));
}

#[test]
fn the_option_wins_over_the_environment() {
    let daemon = Daemon::start();
    let run = daemon.xyctl(&["list", "--socket", "/nonexistent/other.sock"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("`/nonexistent/other.sock`"), "{run:?}");
}

#[test]
fn without_arguments_the_help_is_shown_and_the_usage_is_wrong() {
    let run = xyctl::run(nowhere(), &[]);
    assert_eq!((run.code, run.text()), (Some(64), ""));
    assert!(run.stderr.contains("Usage: xyctl"), "{run:?}");
    assert!(run.stderr.contains("Exit codes:"), "{run:?}");
}

#[test]
fn a_wrong_command_line_exits_64_and_asks_nobody() {
    for arguments in [
        &["frobnicate"][..],
        &["list", "--frobnicate"],
        &["start"],
        &["start", "a", "--all"],
        &["start", "a", "--timeout", "soon"],
        &["start", "a", "--timeout", "1", "--no-wait"],
        &["signal", "a"],
        &["signal", "HUP"],
        &["signal", "a", "STOP"],
        &["signal", "-s", "STOP", "a"],
        &["wait"],
        &["add", "a"],
        &["run", "a", "--env", "novalue", "--", "true"],
        &["events", "--since", "soon"],
        &["logs"],
        &["logs", "a", "--all"],
        &["logs", "a", "-n", "some"],
        &["list", "--color", "sometimes"],
    ] {
        let run = xyctl::run(nowhere(), arguments);
        assert_eq!((run.code, run.text()), (Some(64), ""), "{arguments:?}");
        assert!(run.stderr.starts_with("error: "), "{arguments:?}: {run:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    for arguments in
        [&["--help"][..], &["-h"], &["help"], &["help", "start"], &["start", "--help"], &["--version"]]
    {
        let run = xyctl::run(nowhere(), arguments);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(run.text().contains("xyctl"), "{run:?}");
    }
}

#[test]
fn a_misspelt_name_comes_with_the_nearest_one() {
    let daemon = Daemon::start();
    daemon.refuse::<Status>(RpcError::server_not_found("serach"));
    daemon.refuse::<Logs>(RpcError::server_not_found("serach"));
    let stderr = "error: server not found: `serach`\nhint: did you mean `search`?\n";
    daemon.xyctl(&["status", "serach"]).is(1, "", stderr);
    daemon.xyctl(&["logs", "serach"]).is(1, "", stderr);
    daemon.xyctl(&["status", "unlike"]).is(
        1,
        "",
        "error: server not found: `unlike`\nhint: `xyctl list` shows the servers; `xyctl reload` reads new files\n",
    );
}

#[test]
fn up_of_a_directory_that_is_not_there_starts_nothing() {
    let run = xyctl::run(nowhere(), &["up", "/nonexistent/servers"]);
    run.is(
        3,
        "",
        "error: the directory `/nonexistent/servers` cannot be read: No such file or directory (os error 2)\n",
    );
}

#[test]
fn an_invalid_configuration_has_its_own_exit_code() {
    let daemon = Daemon::start();
    daemon.refuse::<Reload>(RpcError::new(ErrorKind::ConfigInvalid, "`xyd.ron` is invalid"));
    daemon.xyctl(&["reload"]).is(3, "", "error: `xyd.ron` is invalid\n");
    daemon.refuse::<Status>(RpcError::new(ErrorKind::ConfigInvalid, "web.ron: one\nweb.ron: two"));
    daemon.xyctl(&["status", "web"]).is(3, "", "error: web.ron: one\nerror: web.ron: two\n");
}

#[test]
fn an_internal_error_is_a_failed_operation() {
    let daemon = Daemon::start();
    daemon.refuse::<List>(RpcError::new(ErrorKind::InternalError, "it broke"));
    daemon.xyctl(&["list"]).is(1, "", "error: it broke\nhint: the daemon's own output says more\n");
}
