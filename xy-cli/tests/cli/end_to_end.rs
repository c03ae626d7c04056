//! Each command against a real daemon with real servers.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::real::RealDaemon;
use crate::xyctl::{self, finish, signal};

/// Runs until it is told to end, and says so.
const SLEEPER: &str =
    r#"Process(command: "sh", args: ["-c", "echo up; exec sleep 1000"], ready: Log("up"), tags: ["blue"])"#;

/// Fails at once, once a second, twice at most.
const CRASHER: &str = r#"Process(
    command: "sh",
    args: ["-c", "echo working; echo no database >&2; exit 3"],
    restart: (backoff_initial: "10ms", backoff_max: "10ms", max_retries_per_minute: 1),
)"#;

/// Would run, and is not started.
const RESTING: &str =
    r#"Process(command: "sleep", args: ["1000"], autostart: false, tags: ["blue", "idle"])"#;

/// Starts a daemon of one server of each kind, and waits until nothing changes any more.
fn settled() -> RealDaemon {
    let daemon = RealDaemon::start(&[("api", SLEEPER), ("crash", CRASHER), ("web", RESTING)]);
    daemon.ok(&["wait", "api", "--timeout", "30"]);
    daemon.ok(&["wait", "--for", "stopped", "crash", "--timeout", "30"]);
    daemon
}

fn names<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    list[member].as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap()).collect()
}

#[test]
fn a_list_says_what_runs_what_it_uses_and_what_is_next() {
    let daemon = settled();
    daemon.snapshot(
        "list",
        &[
            &["list"],
            &["ls", "--no-usage", "@blue"],
            &["list", "w*", "nobody"],
            &["status", "api", "web"],
            &["list", "--json", "--no-usage", "web"],
        ],
    );
    let list = daemon.json(&["list"]);
    assert_eq!(names(&list, "servers"), ["api", "crash", "web"]);
    let usage = &list["servers"][0]["usage"];
    assert_eq!(usage["processes"], 1, "{list}");
    assert!(usage["memory_bytes"].as_u64().unwrap() > 4096, "{list}");
    assert!(list["servers"][2].get("usage").is_none(), "{list}");
}

#[test]
fn a_live_list_is_written_again_when_something_changes() {
    let daemon = settled();
    let mut child = daemon.spawn(&["list", "-w", "--no-usage", "web"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    let mut until = |what: &str, lines: &mut BufReader<_>| {
        while !said.contains(what) {
            assert_ne!(BufRead::read_line(lines, &mut said).unwrap(), 0, "{said}");
        }
    };
    until("stopped", &mut lines);
    daemon.ok(&["start", "web"]);
    until("running", &mut lines);
    signal(&child, nix::sys::signal::Signal::SIGINT);
    assert_eq!(finish(child).code, Some(0));
}

#[test]
fn operations_take_names_patterns_and_tags_and_are_idempotent() {
    let daemon = settled();
    daemon.snapshot(
        "operations",
        &[
            &["start", "@idle", "api"],
            &["start", "web", "--no-wait"],
            &["restart", "a*", "--reason", "new version"],
            &["stop", "@blue", "nobody", "z*", "--reason", "moving the database"],
            &["stop", "web"],
            &["signal", "web", "HUP"],
            &["signal", "HUP", "web"],
            &["pause", "web"],
            &["resume", "--all"],
            &["stop", "all"],
            &["stop", "web", "--json"],
        ],
    );
}

#[test]
fn waiting_ends_when_it_is_so_or_never_will_be_or_in_time() {
    let daemon = settled();
    daemon.snapshot(
        "wait",
        &[
            &["wait", "api"],
            &["wait", "--for", "healthy", "api", "--json"],
            &["wait", "--for", "stopped", "web", "crash"],
            &["wait", "crash", "--timeout", "30"],
            &["wait", "web", "--timeout", "0"],
            &["wait", "nobody"],
            &["is-active", "api"],
        ],
    );
    let mut waiting = daemon.spawn(&["wait", "--for", "exit", "api", "--timeout", "30"]);
    // Nobody can tell when it has begun to wait, so there is an end until it has seen one.
    while waiting.try_wait().unwrap().is_none() {
        daemon.ok(&["restart", "api"]);
    }
    finish(waiting).is(0, "api: ended\n", "");
}

#[test]
fn why_tells_the_last_ends_with_their_lines_and_survives_the_daemon() {
    let mut daemon = settled();
    daemon.ok(&["restart", "api", "--reason", "new version"]);
    daemon.snapshot("why", &[&["why", "crash"], &["why", "api"], &["why", "web"], &["why", "carsh"]]);
    let before = daemon.json(&["why", "crash"]);
    let exit = &before["exits"][0];
    assert_eq!(
        (&exit["cause"], &exit["lines"]),
        (&json!("exit code 3"), &json!(["working", "no database"])),
        "{before}"
    );
    // Nothing starts it again, so that its past is that of the daemon before.
    daemon.ok(&["disable", "crash"]);
    daemon.restart();
    let after = daemon.json(&["why", "crash"]);
    assert_eq!(after["exits"], before["exits"]);
}

#[test]
fn show_tells_what_is_run_and_hides_secrets() {
    let daemon = RealDaemon::start(&[(
        "api",
        r#"Process(command: "sleep", args: ["1000", "--token", "hidden-1"], env: {"API_TOKEN": "hidden-2", "MODE": "test"}, env_base: Clean)"#,
    )]);
    daemon.snapshot("show", &[&["show", "api"], &["show", "nobody"]]);
    let show = daemon.json(&["show", "api"]);
    assert!(!show.to_string().contains("hidden-"), "{show}");
    let mode = show["environment"].as_array().unwrap().iter().find(|one| one["name"] == "MODE").unwrap();
    assert_eq!(mode, &json!({ "name": "MODE", "value": "test", "source": "server file" }));
}

#[test]
fn logs_of_several_servers_are_merged_by_their_time() {
    // Each is ready when its line has been read, so that the lines come in the order of the starts.
    let server = |words: &str| {
        format!(
            r#"Process(command: "sh", args: ["-c", "{words}; exec sleep 1000"], ready: Log("."), autostart: false)"#
        )
    };
    let (one, two, three) = (server("echo first"), server("echo second"), server("echo third >&2"));
    let daemon = RealDaemon::start(&[("one", &one), ("two", &two), ("three", &three)]);
    for name in ["one", "two", "three"] {
        daemon.ok(&["start", name]);
    }
    daemon.snapshot(
        "logs",
        &[
            &["logs", "two", "one"],
            &["logs", "*", "--stream", "--grep", "d$"],
            &["logs", "all", "-n", "1"],
            &["logs", "one", "nobody"],
            &["logs", "z*"],
        ],
    );
}

#[test]
fn events_begin_at_a_number_or_a_time_and_can_be_of_some_servers() {
    let daemon = settled();
    daemon.ok(&["stop", "api"]);
    let lines = |arguments: &[&str]| daemon.ok(arguments).text().lines().count();
    let all = lines(&["events"]);
    assert!(all > 5, "{all}");
    assert_eq!(lines(&["events", "--from", "3"]), all - 2);
    assert_eq!(lines(&["events", "--since", "1h"]), all);
    assert_eq!(lines(&["events", "--since", "2999-01-01"]), 0);
    let of_api = lines(&["events", "api"]);
    assert!(of_api > 0 && of_api < all, "{of_api} of {all}");
    assert_eq!(lines(&["events", "a*"]), of_api);
    assert_eq!(lines(&["events", "@blue"]), of_api + lines(&["events", "web"]));
    let unknown = daemon.xyctl(&["events", "api", "apo", "@none"]);
    assert_eq!((unknown.code, unknown.text().lines().count()), (Some(1), of_api), "{unknown:?}");
    assert!(unknown.stderr.contains("`apo`") && unknown.stderr.contains("`api`?"), "{unknown:?}");
    assert!(unknown.stderr.contains("@none"), "{unknown:?}");
}

#[test]
fn servers_are_added_and_removed_with_their_files() {
    let mut daemon = RealDaemon::start(&[]);
    daemon.snapshot(
        "add",
        &[
            &["list"],
            &["add", "web", "--tag", "blue", "--env", "A=b c", "--", "sleep", "1000"],
            &["add", "web", "--", "sleep", "1000"],
            &["add", "Web", "--", "sleep", "1000"],
            &["add", "later", "--stopped", "--", "sleep", "1000"],
            &["add", "missing", "--", "no-such-program"],
            &["run", "job", "--", "sleep", "1000"],
            &["reload", "--dry-run"],
            &["rm", "missing", "nobody"],
            &["list", "--no-usage"],
        ],
    );
    let file = std::fs::read_to_string(daemon.servers().join("web.ron")).unwrap();
    assert!(file.contains(r#"env: {"A": "b c"}"#), "{file}");
    daemon.restart();
    // What had no file is gone with the daemon.
    assert_eq!(names(&daemon.json(&["list"]), "servers"), ["later", "web"]);
    let run = daemon.xyctl(&["rm", "web", "nobody", "later", "--json"]);
    assert_eq!(run.code, Some(1));
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["removed"], json!(["web", "later"]));
    assert_eq!(document["failed"][0]["name"], "nobody");
    assert_eq!(std::fs::read_dir(daemon.servers()).unwrap().count(), 0);
    assert_eq!(daemon.json(&["list"]), json!({ "servers": [] }));
}

#[test]
fn an_attached_command_returns_its_own_code_and_leaves_nothing() {
    let daemon = RealDaemon::start(&[]);
    let run = daemon.xyctl(&["run", "--attach", "job", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    run.is(7, "out\n", "err\n");
    let run = daemon.xyctl(&["run", "-a", "job", "--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(run.code, Some(137), "{run:?}");
    assert_eq!(daemon.json(&["list"]), json!({ "servers": [] }));
    let mut child = daemon.spawn(&["run", "-a", "job", "--", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    signal(&child, nix::sys::signal::Signal::SIGINT);
    assert_eq!(finish(child).code, Some(143));
    assert_eq!(daemon.json(&["list"]), json!({ "servers": [] }));
}

#[test]
fn which_servers_are_enabled_is_remembered_by_the_next_daemon() {
    let mut daemon = settled();
    daemon.snapshot(
        "enable",
        &[&["disable", "--now", "api"], &["enable", "web", "nobody"], &["disable", "crash", "--json"]],
    );
    daemon.restart();
    daemon.ok(&["wait", "web", "--timeout", "30"]);
    let list = daemon.json(&["list"]);
    let states: Vec<_> =
        list["servers"].as_array().unwrap().iter().map(|server| server["state"].clone()).collect();
    assert_eq!(states, ["stopped", "stopped", "running"]);
}

#[test]
fn a_failed_start_that_is_not_tried_again_is_told_as_that_and_not_as_too_many() {
    let once = r#"Process(command: "no-such-program", restart: (policy: Never), autostart: false)"#;
    let daemon = RealDaemon::start(&[("once", once)]);
    daemon.snapshot(
        "never",
        &[
            &["start", "once"],
            &["list", "--no-usage"],
            &["why", "once"],
            &["wait", "once"],
            &["events", "once"],
        ],
    );
}

#[test]
fn a_login_shell_that_does_not_tell_its_path_is_named_wherever_one_looks() {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).expect("a user database");
    let Some(user) = user else { return };
    let name = user.shell.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !["sh", "bash", "dash", "zsh"].contains(&name) {
        // Nobody knows how to write its profile here.
        return;
    }
    let web = r#"Process(command: "sleep", args: ["1000"], path: Login, autostart: false)"#;
    let daemon = RealDaemon::start(&[("web", web)]);
    for profile in [".profile", ".zprofile"] {
        std::fs::write(daemon.home().join(profile), "exit 3\n").unwrap();
    }
    let shell = user.shell.display();
    let told = format!("login shell `{shell}` ended without telling its PATH");
    let servers = daemon.servers();
    let check = daemon.ok(&["check", servers.to_str().unwrap()]);
    let warned = format!(
        "web.ron:1:43: path: {told}; it gets the PATH of xyd instead\n  \
         hint: see what `{shell} -l -c 'printenv PATH'` does, or write the directories as `path`\n"
    );
    assert!(check.text().contains(&warned), "{check:?}");
    daemon.ok(&["start", "web"]);
    let why = daemon.ok(&["why", "web"]);
    assert!(why.text().contains(&format!("its PATH is that of xyd, because {told}: see what")), "{why:?}");
    let show = daemon.ok(&["show", "web"]);
    let path = show.text().lines().find(|line| line.trim_start().starts_with("PATH")).expect("it has one");
    assert!(path.contains(&format!("xyd, because {told}")), "{show:?}");
    let logs = daemon.ok(&["logs", "--json", "web"]);
    assert!(logs.text().contains(&format!("PATH is the inherited one, because {told}")), "{logs:?}");
}

#[test]
fn a_reload_is_planned_before_it_is_done() {
    let daemon = settled();
    daemon.write("web", r#"Process(command: "sleep", args: ["2000"], autostart: false)"#);
    daemon.write("new", r#"Process(command: "sleep", args: ["1000"], autostart: false)"#);
    daemon.write("bad", r#"Process(comand: "sleep")"#);
    std::fs::remove_file(daemon.servers().join("crash.ron")).unwrap();
    daemon.snapshot(
        "reload",
        &[&["reload", "--dry-run"], &["list", "--no-usage"], &["reload"], &["list", "--no-usage"]],
    );
}

#[test]
fn check_finds_what_is_wrong_without_a_daemon() {
    let home = tempfile::tempdir().unwrap();
    let servers = home.path().join("servers");
    std::fs::create_dir(&servers).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = home.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let write = |name: &str, text: String| std::fs::write(servers.join(name), text).unwrap();
    write("bad.ron", "Process(\n    command: \"sh\",\n    prot: 80,\n)".to_owned());
    write(
        "follower.ron",
        "Process(\n    command: \"sh\",\n    depends_on: {\"good\": Healthy},\n)".to_owned(),
    );
    write("good.ron", "Process(command: \"sh\")".to_owned());
    write("missing.ron", "Process(\n    command: \"no-such-program\",\n)".to_owned());
    write("taken.ron", format!("Process(\n    command: \"sh\",\n    port: {port},\n)"));
    write("script.ron", format!("Process(command: {:?})", script.display().to_string()));
    let socket = home.path().join("xyd.sock");
    let check = |arguments: &[&str]| {
        let mut command = vec!["check", servers.to_str().unwrap()];
        command.extend(arguments);
        finish(xyctl::start_in_with(home.path(), &socket, &command, &[("PATH", "/usr/bin:/bin")]))
    };
    let run = check(&[]);
    let text = run.text().replace(&port.to_string(), "PORT").replace(home.path().to_str().unwrap(), "HOME");
    // Which keys there are is pinned elsewhere.
    let (before, keys) = text.split_once(", expected one of ").expect("it says what is expected");
    let (_, after) = keys.split_once('\n').expect("more lines follow");
    assert_eq!(format!("{before}\n{after}"), CHECKED);
    assert_eq!((run.code, run.stderr.as_str()), (Some(3), ""));
    let found: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!(found["servers"], json!(["follower", "good", "missing", "script", "taken"]));
    assert_eq!(found["errors"][0]["line"], 3, "{found}");
    std::fs::remove_file(servers.join("bad.ron")).unwrap();
    // What may be there a minute later is no error.
    assert_eq!(check(&[]).code, Some(0));
}

const CHECKED: &str = "\
error: HOME/servers/bad.ron:3:5: prot: unknown key `prot`
  hint: did you mean `port`?
warning: HOME/servers/follower.ron:3:26: depends_on: `good` has no `liveness`: `Healthy` asks no more than `Ready`
  hint: give `good` a `liveness`, or write `Ready`
warning: HOME/servers/missing.ron:2:5: command: there is no program `no-such-program` in PATH
warning: HOME/servers/script.ron:1:9: command: `HOME/script` needs its interpreter: there is no program `/no/such/interpreter`
warning: HOME/servers/taken.ron:3:5: port: port PORT is in use by another program
  hint: `ss -ltnp 'sport = :PORT'` names it
5 servers valid, 1 file rejected in HOME/servers
";
