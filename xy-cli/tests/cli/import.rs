//! `xyctl import` with files as other projects publish them: what they come to, what is left, and that it runs.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::real::RealDaemon;
use crate::xyctl::{DEADLINE, Run, finish, skipped, start_in_with};

/// What is in the environment of each import.
const VARIABLES: [(&str, &str); 3] = [("WORKERS", "3"), ("QUEUES", "fast,slow"), ("VIDEO_REGION", "eu")];

/// A secret of a file.
const SECRET: &str = "very-secret";

/// Each flavor with its files and what the daemon refuses of them.
const FILES: [(&str, &str, &str); 27] = [
    ("procfile", "bakery/Procfile", ""),
    ("procfile", "desk/Procfile", ""),
    ("procfile", "plain/Procfile", ""),
    ("procfile", "press/Procfile", ""),
    ("procfile", "shop/Procfile", ""),
    ("procfile", "toots/Procfile", ""),
    ("supervisord", "bench/supervisord.conf", ""),
    ("supervisord", "browser/supervisord.conf", ""),
    ("supervisord", "chat/supervisord.conf", ""),
    ("supervisord", "papers/supervisord.conf", "there is no user `papers-of-nobody`"),
    ("supervisord", "plain/supervisord.conf", ""),
    ("supervisord", "queries/supervisord.conf", ""),
    ("supervisord", "towers/supervisord.conf", ""),
    ("process-compose", "chain/process-compose.yaml", ""),
    ("process-compose", "flags/process-compose.yaml", ""),
    ("process-compose", "linker/process-compose.yaml", ""),
    ("process-compose", "plain/process-compose.yaml", ""),
    ("process-compose", "rail/process-compose.yaml", ""),
    ("process-compose", "tour/process-compose.yaml", ""),
    ("mcp", "bugs/.mcp.json", ""),
    ("mcp", "cloud/opencode.json", ""),
    ("mcp", "editor/.vscode/mcp.json", ""),
    ("mcp", "plain/.mcp.json", ""),
    ("mcp", "reference/mcp.json", ""),
    ("mcp", "remote/desktop.json", ""),
    ("mcp", "tutorial/.vscode/mcp.json", ""),
    ("mcp", "zed/settings.json", ""),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/imports")
}

/// Runs `xyctl` with nobody's home.
fn xyctl(home: &Path, arguments: &[&str]) -> Run {
    finish(start_in_with(home, Path::new("/nonexistent"), arguments, &VARIABLES))
}

/// Imports each file of a flavor: compares what is said with the file beside it, writes the servers, and has them checked.
fn holds(flavor: &str) {
    for (_, file, refused) in FILES.iter().filter(|(of, ..)| *of == flavor) {
        let path = fixtures().join(flavor).join(file);
        let path = path.to_str().expect("it is text");
        let home = tempfile::tempdir().expect("a directory");
        let dry = xyctl(home.path(), &["import", flavor, path, "--dry-run"]);
        assert_eq!(dry.code, Some(0), "{file}: {dry:?}");
        assert!(!home.path().join(".config").exists(), "{file}: a dry run writes nothing");
        compare(flavor, file, home.path(), &dry);

        let servers = home.path().join("servers");
        let into = servers.to_str().expect("it is text");
        let wet = xyctl(home.path(), &["import", flavor, path, "--into", into]);
        assert_eq!((wet.code, wet.stderr.is_empty()), (Some(0), false), "{file}: {wet:?}");
        let check = xyctl(home.path(), &["check", into, "--json"]);
        let found: Value = serde_json::from_slice(&check.stdout).expect("a document");
        let errors = found["errors"].as_array().expect("a list");
        match refused {
            &"" => assert_eq!(errors.len(), 0, "{file}: {found}"),
            refused => {
                assert_eq!(errors.len(), 1, "{file}: {found}");
                assert!(errors[0].to_string().contains(refused), "{file}: {found}");
            }
        }
        for written in fs::read_dir(&servers).into_iter().flatten() {
            let mode =
                written.and_then(|entry| entry.metadata()).expect("it was written").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}: a variable may be a secret");
        }
    }
}

fn compare(flavor: &str, file: &str, home: &Path, run: &Run) {
    let name = file.split('/').next().expect("it is in a directory");
    let told = format!("{}\n{}", run.text(), run.stderr);
    let told = told
        .replace(fixtures().join(flavor).join(name).to_str().expect("it is text"), "HERE")
        .replace(home.to_str().expect("it is text"), "HOME");
    let path = fixtures().join(flavor).join(format!("{name}.txt"));
    if std::env::var_os("XY_WRITE_SNAPSHOTS").is_some() {
        fs::write(&path, &told).expect("the directory is there");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(told, expected, "{} is not what was said", path.display());
}

/// Copies a directory of a fixture to where nobody else may write, with another port in its files.
fn copy(name: &str, port: Option<(&str, u16)>) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(fixtures().join(name)).expect("it is there") {
        let entry = entry.expect("it is there");
        let mut text = fs::read_to_string(entry.path()).expect("text");
        if let Some((old, new)) = port {
            text = text.replace(old, &new.to_string());
        }
        let path = copy.path().join(entry.file_name());
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("it is empty");
        file.write_all(text.as_bytes()).expect("written");
    }
    copy
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it has one").port()
}

/// Imports a file into a daemon that runs, as a person would.
fn imported(flavor: &str, file: &Path) -> RealDaemon {
    let daemon = RealDaemon::start(&[]);
    let servers = daemon.servers();
    let servers = servers.to_str().expect("it is text");
    daemon.ok(&["import", flavor, file.to_str().expect("it is text"), "--into", servers]);
    daemon.ok(&["reload"]);
    daemon
}

/// Waits until servers are ready.
fn ready(daemon: &RealDaemon, names: &[&str]) {
    daemon.ok(&[&["wait", "--timeout", "30"], names].concat());
}

/// Waits until a server has printed something; being ready, it may only have begun.
#[track_caller]
fn prints(daemon: &RealDaemon, name: &str, text: &str) {
    let begun = Instant::now();
    loop {
        let run = daemon.ok(&["logs", name]);
        if run.text().contains(text) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "`{name}` did not print `{text}`: {run:?}");
    }
}

fn has_python() -> bool {
    let found = Path::new("/usr/bin/python3").exists() || Path::new("/bin/python3").exists();
    if !found {
        skipped("there is no python3");
    }
    found
}

#[test]
fn procfiles_come_to_servers_that_pass_the_check() {
    holds("procfile");
}

#[test]
fn configurations_of_supervisord_come_to_servers_that_pass_the_check() {
    holds("supervisord");
}

#[test]
fn projects_of_process_compose_come_to_servers_that_pass_the_check() {
    holds("process-compose");
}

#[test]
fn files_of_mcp_clients_come_to_servers_that_pass_the_check() {
    holds("mcp");
}

#[test]
fn a_secret_of_a_client_is_in_its_server_file_and_nowhere_else() {
    let home = tempfile::tempdir().expect("a directory");
    let file = fixtures().join("mcp/remote/desktop.json");
    let run = xyctl(home.path(), &["import", "mcp", file.to_str().expect("it is text")]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.text().contains(SECRET) && !run.stderr.contains(SECRET), "{run:?}");
    let written =
        fs::read_to_string(home.path().join(".config/xy/servers/near.ron")).expect("it was written");
    assert_eq!(written.matches(SECRET).count(), 1, "{written}");
}

#[test]
fn a_key_that_nobody_knows_is_listed_wherever_it_stands() {
    let home = tempfile::tempdir().expect("a directory");
    for (flavor, text, expected) in [
        ("supervisord", "[program:a]\ncommand=a\nnovel=1\n[supervisord]\nfresh=1\n[odd:b]\n", 3),
        (
            "process-compose",
            "novel: 1\nprocesses:\n  a:\n    command: a\n    novel: 1\n    shutdown: {novel: 1}\n    availability: \
             {novel: 1}\n    readiness_probe: {novel: 1, exec: {command: b}}\n",
            5,
        ),
        ("mcp", r#"{"servers": {"a": {"command": "a", "url": "http://localhost:1/", "novel": 1}}}"#, 1),
        ("procfile", "a: b\nnovel\n", 1),
    ] {
        let file = home.path().join("file");
        fs::write(&file, text).expect("written");
        let run = xyctl(home.path(), &["import", flavor, file.to_str().unwrap(), "--dry-run", "--json"]);
        let document: Value = serde_json::from_slice(&run.stdout).expect("a document");
        let left = document["left"].as_array().expect("a list");
        let told: Vec<_> = left.iter().filter_map(|left| left["what"].as_str()).collect();
        let named = ["novel", "fresh", "[odd:b]", "line 2"];
        let count: usize =
            told.iter().map(|what| named.iter().filter(|name| what.contains(**name)).count()).sum();
        assert_eq!(count, expected, "{flavor}: {told:#?}");
    }
}

#[test]
fn what_a_procfile_says_runs_with_its_ports_and_variables() {
    if !has_python() {
        return;
    }
    let port = free_port();
    let directory = copy("procfile/plain", Some(("8932", port)));
    let daemon = imported("procfile", &directory.path().join("Procfile"));
    ready(&daemon, &["web", "worker", "vite"]);
    let list = daemon.json(&["list", "web"]);
    assert_eq!(list["servers"][0]["port"], port, "{list}");
    prints(&daemon, "worker", "greeting is hello there");
}

#[test]
fn programs_of_supervisord_run_in_their_groups_and_numbers() {
    let directory = copy("supervisord/plain", None);
    let daemon = imported("supervisord", &directory.path().join("supervisord.conf"));
    ready(&daemon, &["@all"]);
    daemon.ok(&["wait", "--for", "stopped", "once", "--timeout", "30"]);
    prints(&daemon, "talker", "hello there from talker");
    prints(&daemon, "copies_00", "copy 00 of 2");
    prints(&daemon, "copies_01", "copy 01 of 2");
}

#[test]
fn processes_of_process_compose_run_in_their_order_with_what_they_extend() {
    let directory = copy("process-compose/plain", None);
    let daemon = imported("process-compose", &directory.path().join("process-compose.yaml"));
    ready(&daemon, &["talker", "listener", "pages-0", "pages-1"]);
    prints(&daemon, "prepared", "prepared in here");
    prints(&daemon, "talker", "two hello there");
}

#[test]
fn a_server_of_an_mcp_client_runs_and_lists_its_tools() {
    if !has_python() {
        return;
    }
    let directory = copy("mcp/plain", Some(("8931", free_port())));
    let daemon = imported("mcp", &directory.path().join(".mcp.json"));
    ready(&daemon, &["echo-server"]);
    prints(&daemon, "echo-server", "hello there");
}
