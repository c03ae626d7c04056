//! What every command says, to people and to programs, against a real daemon, compared with checked-in files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::daemon::nowhere;
use crate::real::RealDaemon;
use crate::xyctl;

/// Is ready when it has said so.
const STEADY: &str = r#"Process(command: "sh", args: ["-c", "echo up; exec sleep 1000"], ready: Log("up"))"#;

/// Fails, and fails again, and is given up.
const BROKEN: &str = r#"Process(
    command: "sh",
    args: ["-c", "echo no database >&2; exit 3"],
    restart: (backoff_initial: "10ms", backoff_max: "10ms", max_retries_per_minute: 1),
)"#;

/// Would run, and is not started; once it runs, a signal does not end it.
const RESTING: &str = r#"Process(
    command: "sh",
    args: ["-c", "trap '' USR1; echo up; exec sleep 1000"],
    ready: Log("up"),
    env_base: Clean,
    autostart: false,
)"#;

/// Starts a daemon of one server of each kind, one after the other, so that the events have one order.
fn settled() -> RealDaemon {
    let daemon = RealDaemon::start(&[("api", STEADY)]);
    daemon.ok(&["wait", "api", "--timeout", "30"]);
    daemon.write("crash", BROKEN);
    daemon.write("web", RESTING);
    daemon.ok(&["reload"]);
    daemon.ok(&["wait", "--for", "stopped", "crash", "--timeout", "30"]);
    daemon
}

#[test]
fn what_is_asked_is_answered_to_people_and_to_programs() {
    let daemon = settled();
    daemon.snapshot(
        "queries",
        &[
            &["list", "--json", "crash", "web"],
            &["status", "crash"],
            &["status", "crash", "--json"],
            &["status", "nobody", "--json"],
            &["why", "crash", "--json"],
            &["why", "nobody", "--json"],
            &["show", "web", "--json"],
            &["logs", "crash"],
            &["logs", "crash", "--json", "--grep", "database"],
            &["events", "crash"],
            &["events", "crash", "--json"],
            &["events", "nobody"],
            &["version"],
            &["version", "--json"],
            &["diagnostics"],
            &["diagnostics", "--json"],
        ],
    );
}

#[test]
fn what_is_done_is_told_to_people_and_to_programs() {
    let daemon = settled();
    daemon.snapshot(
        "acts",
        &[
            &["start", "web", "api", "--json"],
            &["start", "nobody", "--json"],
            &["restart", "web", "--json"],
            &["pause", "web", "--json"],
            &["list", "--no-usage", "web"],
            &["resume", "web", "--json"],
            &["resume", "web"],
            &["signal", "USR1", "web"],
            &["signal", "USR1", "web", "--json"],
            &["wait", "--for", "exit", "web", "--timeout", "0", "--json"],
            &["enable", "web", "--json"],
            &["disable", "web"],
            &["stop", "web", "nobody", "--json"],
            &["add", "later", "--stopped", "--json", "--", "sleep", "1000"],
            &["run", "job", "--json", "--", "sleep", "1000"],
            &["rm", "later", "nobody", "--json"],
            &["reload", "--json"],
        ],
    );
}

#[test]
fn what_needs_no_daemon_says_the_same_to_people_and_to_programs() {
    let daemon = RealDaemon::start(&[]);
    let home = daemon.servers().parent().unwrap().to_owned();
    let file = |name: &str, text: &str| {
        let path = home.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let procfile = file("Procfile", "web: sleep 1000\nworker: sleep 2000\n");
    let mcp = file(
        "mcp.json",
        r#"{"mcpServers": {"files": {"type": "http", "url": "http://127.0.0.1:8421/mcp"}, "notes": {"command": "notes"}}}"#,
    );
    let out = home.join("imported");
    let out = out.to_str().unwrap();
    let servers = daemon.servers();
    let servers = servers.to_str().unwrap();
    daemon.snapshot(
        "without_daemon",
        &[
            &["import", "procfile", &procfile, "--into", out],
            &["import", "procfile", &procfile, "--into", out],
            &["import", "mcp", &mcp, "--into", out, "--json"],
            &["check", servers],
            &["check", servers, "--json"],
            &["check", out],
        ],
    );
}

#[test]
fn the_daemon_is_told_of_and_ended_in_words_and_in_json() {
    let mut daemon = settled();
    daemon.snapshot("daemon", &[&["daemon", "status"], &["daemon", "status", "--json"]]);
    daemon.snapshot("shutdown", &[&["shutdown"], &["shutdown"], &["shutdown", "--json"]]);
    daemon.end();
    daemon.snapshot(
        "no_daemon",
        &[&["daemon", "status"], &["daemon", "status", "--json"], &["daemon", "stop"]],
    );
}

#[test]
fn permissions_and_exports_are_told_to_people_and_to_programs() {
    let daemon = settled();
    daemon.snapshot(
        "permissions",
        &[
            &["approvals"],
            &["approvals", "--json"],
            &["approve", "77"],
            &["approve", "77", "--remember", "always", "--json"],
            &["deny", "77"],
            &["deny", "77", "--reason", "no", "--json"],
            &["grants"],
            &["grants", "--json"],
            &["forget", "77"],
            &["forget", "77", "--json"],
            &["token", "list"],
            &["token", "list", "--json"],
            &["token", "add", "grafana", "--scope", "read", "--json"],
            &["token", "add", "grafana"],
        ],
    );
    let servers = daemon.servers();
    let servers = servers.to_str().unwrap();
    daemon.snapshot(
        "export",
        &[
            &["export", "mcp", "--client", "cursor"],
            &["export", "mcp", "--client", "vscode", "api", "--json"],
            &["export", "systemd", "--servers", servers, "web"],
            &["export", "kubernetes", "--servers", servers, "--image", "tools:1", "crash", "--json"],
            &["export", "systemd", "--servers", servers, "nobody"],
        ],
    );
}

/// Verbs whose words are in no snapshot, and where they are tested instead.
const ELSEWHERE: [(&str, &str); 5] = [
    ("mcp", "a conversation, held by an assistant's side"),
    ("top", "a screen, driven in a terminal"),
    ("up", "runs until it is ended, and is read while it does"),
    ("completions", "a script for a shell"),
    ("man", "pages of which there is one for each command"),
];

#[test]
fn every_command_is_in_the_snapshots_in_words_and_in_json() {
    let help = xyctl::run(nowhere(), &["--help"]);
    let verbs: BTreeSet<String> = help
        .text()
        .lines()
        .skip_while(|line| !line.ends_with(':'))
        .take_while(|line| !line.starts_with("Examples"))
        .filter_map(|line| line.strip_prefix("  ")?.split([' ', ',']).next())
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(ToOwned::to_owned)
        .collect();
    assert!(verbs.contains("list") && verbs.contains("daemon") && verbs.len() > 20, "{verbs:?}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots");
    let mut commands = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        commands.extend(text.lines().filter_map(|line| Some(line.strip_prefix("$ xyctl ")?.to_owned())));
    }
    let missing: Vec<_> = verbs
        .iter()
        .filter(|verb| !ELSEWHERE.iter().any(|(other, _)| other == verb))
        .flat_map(|verb| [(verb, false), (verb, true)])
        .filter(|(verb, json)| {
            !commands.iter().any(|command| {
                command.split(' ').next() == Some(verb) && command.contains(" --json") == *json
            })
        })
        .collect();
    assert!(missing.is_empty(), "not in the snapshots (verb, with --json): {missing:?}");
}
