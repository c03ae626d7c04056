//! What a reload makes of changed files.

use xy_daemon::config::{Config, ServerConfig};
use xy_daemon::reload::{ChangeKind, ReloadPlan, plan};

use crate::support::Directory;

/// A running set of servers, each from its own text.
fn load(files: &[(&str, &str)]) -> Config {
    let directory = Directory::new();
    for (name, text) in files {
        directory.write(&format!("servers/{name}.ron"), text);
    }
    directory.load()
}

fn names(servers: &[ServerConfig]) -> Vec<&str> {
    servers.iter().map(|server| server.name.as_str()).collect()
}

fn rejected(plan: &ReloadPlan) -> Vec<&str> {
    plan.rejected.iter().map(|file| file.name.as_str()).collect()
}

fn changed(plan: &ReloadPlan) -> Vec<&str> {
    plan.changed.iter().map(|change| change.config.name.as_str()).collect()
}

/// Plans the change of one server's file from one text to another.
fn change(before: &str, after: &str) -> Option<ChangeKind> {
    let plan = plan(&load(&[("web", before)]), &load(&[("web", after)]));
    assert!(plan.rejected.is_empty(), "{:?}", plan.rejected);
    assert_eq!(plan.changed.len() + plan.unchanged.len(), 1);
    plan.changed.into_iter().next().map(|change| change.kind)
}

#[test]
fn each_server_is_added_changed_removed_left_or_rejected() {
    let running = load(&[
        ("broken", "Process(command: \"a\")"),
        ("changes", "Process(command: \"a\")"),
        ("goes", "Process(command: \"a\")"),
        ("stays", "Process(command: \"a\")"),
    ]);
    let loaded = load(&[
        ("broken", "Process(command: "),
        ("changes", "Process(command: \"b\")"),
        ("comes", "Process(command: \"a\")"),
        ("fails", "Process()"),
        ("stays", "// a comment\nProcess(command: \"a\", autostart: true)"),
    ]);
    let plan = plan(&running, &loaded);
    assert_eq!(names(&plan.added), ["comes"]);
    assert_eq!(changed(&plan), ["changes"]);
    assert_eq!(plan.removed, ["goes"]);
    assert_eq!(plan.unchanged, ["stays"]);
    assert_eq!(rejected(&plan), ["broken", "fails"]);
}

#[test]
fn an_empty_set_adds_everything_and_an_empty_directory_removes_everything() {
    let config = load(&[("a", "Process(command: \"a\")"), ("b", "Process(command: \"b\")")]);
    assert_eq!(names(&plan(&Config::default(), &config).added), ["a", "b"]);
    assert_eq!(plan(&config, &Config::default()).removed, ["a", "b"]);
    assert_eq!(plan(&config, &config).unchanged, ["a", "b"]);
}

#[test]
fn what_the_process_sees_restarts_it_and_the_reason_says_what() {
    for (before, after, why) in [
        ("", "args: [\"x\"]", "args changed"),
        ("env: {\"A\": 1}", "env: {\"A\": 2}", "env A changed"),
        ("", "env: {\"A\": \"hunter2\"}", "env A added"),
        ("env: {\"A\": \"hunter2\"}", "", "env A removed"),
        (
            "env: {\"A\": 1, \"B\": 1}",
            "env: {\"B\": 2, \"C\": 1}",
            "env A removed, env B changed, env C added",
        ),
        ("", "working_dir: \"x\"", "working_dir changed"),
        ("port: 1", "port: 2", "port changed"),
        ("port: 1", "port: 1, port_owner: Any", "port_owner changed"),
        ("port: 1", "port: 1, ready: Mcp", "ready changed"),
        ("port: 1, ready: Http", "port: 1, ready: Http(status: [200])", "ready changed"),
        ("ready: Log(\"a\")", "ready: Log(\"b\")", "ready changed"),
        ("ready: Notify", "ready: Notify(fd: 3)", "ready changed"),
        ("", "watchdog: \"30s\"", "watchdog changed"),
        ("", "port: 1", "port changed, ready changed"),
        ("", "args: [\"x\"], stop: (grace: \"1s\")", "args changed, grace changed"),
        ("", "env_files: [\"x\"]", "env_files changed"),
        ("env_files: [\"-x\"]", "env_files: [\"x\"]", "env_files changed"),
        (
            "secrets: {\"A\": Env(\"X\"), \"B\": Env(\"X\")}",
            "secrets: {\"B\": Env(\"Y\"), \"C\": File(\"x\")}",
            "secret A removed, secret B changed, secret C added",
        ),
        ("", "env_base: Clean", "env_base changed"),
        ("", "path: Login", "path changed"),
        ("path: \"/a\"", "path: \"/b\"", "path changed"),
        ("", "stdin: File(\"x\")", "stdin changed"),
        ("", "umask: \"027\"", "umask changed"),
        ("", "nice: 5", "nice changed"),
        ("limits: (nofile: 1)", "limits: (nofile: (1, 2))", "limits changed"),
        ("", "no_new_privs: true", "no_new_privs changed"),
        ("", "oom_score_adj: 5", "oom_score_adj changed"),
    ] {
        let text = |keys: &str| format!("Process(command: \"a\", {keys})");
        let expected = Some(ChangeKind::Restart { why: why.to_owned() });
        assert_eq!(change(&text(before), &text(after)), expected, "{before} -> {after}");
    }
}

#[test]
fn what_only_the_supervisor_sees_is_applied_without_a_restart() {
    for (keys, why) in [
        ("restart: (policy: Always)", "restart policy changed"),
        ("restart: (backoff_initial: \"2s\")", "backoff changed"),
        ("restart: (backoff_max: \"2s\")", "backoff changed"),
        ("restart: (max_retries_per_minute: 6)", "restart limit changed"),
        ("stop: (signal: INT)", "stop signal changed"),
        ("stop: (grace: \"1s\")", "grace changed"),
        ("stop: (command: [\"x\"], grace: \"5s\")", "stop command changed"),
        ("start_timeout: \"1s\"", "start_timeout changed"),
        ("autostart: false", "autostart changed"),
        ("liveness: (probe: Exec(command: \"c\"))", "liveness changed"),
        ("log: (keep: 1)", "log changed"),
        ("restart: (policy: Never), log: (buffer: \"1KiB\")", "restart policy changed, log changed"),
    ] {
        let expected = Some(ChangeKind::PolicyOnly { why: why.to_owned() });
        assert_eq!(
            change("Process(command: \"a\")", &format!("Process(command: \"a\", {keys})")),
            expected,
            "{keys}"
        );
    }
}

#[test]
fn how_often_a_server_is_asked_is_applied_without_a_restart() {
    for (before, after, why) in [
        ("ready: Tcp", "ready: Tcp(interval: \"1s\")", "ready interval or timeout changed"),
        ("ready: Mcp", "ready: Mcp(timeout: \"1s\")", "ready interval or timeout changed"),
        ("liveness: (probe: Tcp)", "liveness: (probe: Tcp, failures: 5)", "liveness changed"),
        ("liveness: (probe: Tcp)", "", "liveness changed"),
    ] {
        let text = |keys: &str| format!("Process(command: \"a\", port: 1, {keys})");
        let expected = Some(ChangeKind::PolicyOnly { why: why.to_owned() });
        assert_eq!(change(&text(before), &text(after)), expected, "{before} -> {after}");
    }
}

#[test]
fn writing_out_a_default_changes_nothing() {
    for keys in [
        "port: 1, ready: Tcp",
        "port: 1, port_owner: Own",
        "port: 1, restart: (policy: Transient, backoff_max: \"30s\")",
        "port: 1, stdin: Null, path: Inherit, env_base: Inherit, env_files: [], limits: ()",
        "port: 1, stop: (signal: TERM, grace: \"10000ms\"), log: (keep: 5), start_timeout: \"300s\"",
    ] {
        assert_eq!(
            change("Process(command: \"a\", port: 1)", &format!("Process(command: \"a\", {keys})")),
            None,
            "{keys}"
        );
    }
}

#[test]
fn a_running_server_keeps_its_port_against_an_earlier_name() {
    let running = load(&[("b", "Process(command: \"b\", port: 8421)")]);
    let loaded = load(&[
        ("a", "Process(command: \"a\", port: 8421)"),
        ("b", "Process(command: \"b\", port: 8421, args: [\"x\"])"),
    ]);
    assert_eq!(loaded.servers.keys().collect::<Vec<_>>(), ["a"]);
    let plan = plan(&running, &loaded);
    assert_eq!(changed(&plan), ["b"]);
    assert!(plan.added.is_empty() && plan.removed.is_empty());
    assert_eq!(rejected(&plan), ["a"]);
    assert_eq!(
        plan.rejected[0].errors[0].to_string(),
        "servers/a.ron:1:29: port: port 8421 belongs to server `b`; give one of them another port"
    );
}

#[test]
fn a_server_whose_file_is_broken_keeps_its_port() {
    let running = load(&[("b", "Process(command: \"b\", port: 8421)")]);
    let loaded =
        load(&[("a", "Process(command: \"a\", port: 8421)"), ("b", "Process(command: \"b\", port: 842")]);
    let plan = plan(&running, &loaded);
    assert!(plan.added.is_empty() && plan.removed.is_empty(), "{plan:?}");
    assert_eq!(rejected(&plan), ["a", "b"]);
}

#[test]
fn a_server_refused_its_new_port_keeps_the_old_one() {
    let running =
        load(&[("b", "Process(command: \"b\", port: 1001)"), ("c", "Process(command: \"c\", port: 1002)")]);
    let loaded = load(&[
        ("a", "Process(command: \"a\", port: 1002)"),
        ("b", "Process("),
        ("c", "Process(command: \"c\", port: 1001)"),
    ]);
    let plan = plan(&running, &loaded);
    assert_eq!(rejected(&plan), ["a", "b", "c"]);
    assert_eq!(plan.rejected[0].errors[0].message, "port 1002 belongs to server `c`");
    assert_eq!(plan.rejected[2].errors[0].message, "port 1001 belongs to server `b`");
    assert!(plan.added.is_empty() && plan.changed.is_empty() && plan.removed.is_empty(), "{plan:?}");
}

#[test]
fn two_servers_can_swap_ports_and_a_removed_one_frees_its_own() {
    let running = load(&[
        ("a", "Process(command: \"a\", port: 1001)"),
        ("b", "Process(command: \"b\", port: 1002)"),
        ("c", "Process(command: \"c\", port: 1003)"),
    ]);
    let loaded = load(&[
        ("a", "Process(command: \"a\", port: 1002)"),
        ("b", "Process(command: \"b\", port: 1001)"),
        ("d", "Process(command: \"d\", port: 1003)"),
    ]);
    let plan = plan(&running, &loaded);
    assert_eq!(changed(&plan), ["a", "b"]);
    assert_eq!(plan.removed, ["c"]);
    assert_eq!(names(&plan.added), ["d"]);
    assert!(plan.rejected.is_empty());
}

const THREE: &str = "Process(command: \"a\", port: 1001, args: [\"{port}\"], instances: 3)";

#[test]
fn a_change_of_the_number_of_instances_adds_or_removes_only_the_difference() {
    let three = load(&[("web", THREE)]);
    assert_eq!(three.servers.keys().collect::<Vec<_>>(), ["web-1", "web-2", "web-3"]);
    let five = load(&[("web", &THREE.replace(": 3", ": 5"))]);
    let more = plan(&three, &five);
    assert_eq!(names(&more.added), ["web-4", "web-5"]);
    assert_eq!(more.unchanged, ["web-1", "web-2", "web-3"]);
    assert!(more.changed.is_empty() && more.removed.is_empty() && more.rejected.is_empty(), "{more:?}");
    let fewer = plan(&five, &three);
    assert_eq!(fewer.removed, ["web-4", "web-5"]);
    assert_eq!(fewer.unchanged, ["web-1", "web-2", "web-3"]);
    assert!(fewer.added.is_empty() && fewer.changed.is_empty(), "{fewer:?}");
}

#[test]
fn a_broken_file_keeps_every_instance_and_its_port() {
    let running = load(&[("web", THREE)]);
    let loaded = load(&[
        ("a", "Process(command: \"a\", port: 1002)"),
        ("web", "Process(command: \"a\", instances: 0)"),
    ]);
    let plan = plan(&running, &loaded);
    assert_eq!(rejected(&plan), ["a", "web"]);
    assert_eq!(plan.rejected[0].errors[0].message, "port 1002 belongs to server `web-2`");
    assert!(plan.added.is_empty() && plan.removed.is_empty() && plan.changed.is_empty(), "{plan:?}");
}

#[test]
fn instances_give_way_to_a_single_server_and_back() {
    let three = load(&[("web", THREE)]);
    let one = load(&[("web", "Process(command: \"a\", port: 1001)")]);
    let there = plan(&three, &one);
    // The port changes hands: what has to go goes first.
    assert_eq!((names(&there.added), there.removed.len()), (vec!["web"], 3));
    let back = plan(&one, &three);
    assert_eq!((names(&back.added), back.removed), (vec!["web-1", "web-2", "web-3"], vec!["web".to_owned()]));
}
