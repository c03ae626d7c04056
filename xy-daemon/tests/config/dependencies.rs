//! Who waits for whom across files, at load and at reload.

use xy_actors::spec::{Condition, Dependency};
use xy_daemon::config::{Config, check_conditions};
use xy_daemon::reload::{ChangeKind, plan};

use crate::support::{Directory, errors};

fn load(files: &[(&str, &str)]) -> Config {
    let directory = Directory::new();
    for (name, text) in files {
        directory.write(&format!("servers/{name}.ron"), text);
    }
    directory.load()
}

fn rejected(config: &Config) -> Vec<&str> {
    config.rejected.iter().map(|file| file.name.as_str()).collect()
}

const DB: (&str, &str) = ("db", "Process(command: \"db\")");

#[test]
fn a_list_means_ready_and_a_map_names_conditions() {
    let config = load(&[
        DB,
        ("job", "Process(command: \"job\", restart: (policy: Never))"),
        ("lists", "Process(command: \"a\", depends_on: [\"db\", \"job\"])"),
        ("maps", "Process(command: \"a\", depends_on: {\"db\": Healthy(restart: true), \"job\": Completed})"),
    ]);
    assert_eq!(errors(&config), "");
    let depends_on = |name: &str| config.servers[name].child.depends_on.clone();
    assert_eq!(depends_on("lists"), [Dependency::ready("db"), Dependency::ready("job")]);
    assert_eq!(
        depends_on("maps"),
        [
            Dependency { on: "db".into(), condition: Condition::Healthy, restart: true },
            Dependency { on: "job".into(), condition: Condition::Completed, restart: false },
        ]
    );
}

#[test]
fn healthy_of_one_whose_health_nobody_checks_is_a_warning_where_it_is_written() {
    let checked = "Process(command: \"a\", port: 4001, liveness: (probe: Tcp))";
    let on =
        "Process(\n  command: \"a\",\n  depends_on: {\"db\": Healthy, \"group\": Healthy, \"plain\": Ready})";
    let config = load(&[
        ("db", checked),
        ("fine", "Process(command: \"a\", instances: 2, depends_on: {\"db\": Healthy})"),
        (
            "group",
            "Supervisor(order: Concurrent, children: [\
            Process(name: \"db\", command: \"a\"),\
            Process(name: \"a\", command: \"a\", depends_on: {\"db\": Healthy}),\
        ])",
        ),
        ("many", "Process(command: \"a\", instances: 2, depends_on: {\"plain\": Healthy})"),
        ("plain", "Process(command: \"a\")"),
        ("web", on),
    ]);
    assert_eq!(errors(&config), "");
    assert!(config.servers["db"].child.health_checked && !config.servers["plain"].child.health_checked);
    let warnings: Vec<String> = check_conditions(&config).iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "servers/group.ron:1:128: children[1].depends_on: `db` has no `liveness`: `Healthy` asks no more than \
             `Ready`; give `db` a `liveness`, or write `Ready`",
            "servers/many.ron:1:59: depends_on: `plain` has no `liveness`: `Healthy` asks no more than `Ready`; \
             give `plain` a `liveness`, or write `Ready`",
            "servers/web.ron:3:40: depends_on: `group` is a group, which has no health check: `Healthy` asks no more \
             than `Ready`; write `Ready`",
        ]
    );
}

#[test]
fn the_name_of_a_file_with_instances_stands_for_all_of_them() {
    let config = load(&[
        ("db", "Process(command: \"db\", instances: 2)"),
        ("one", "Process(command: \"a\", depends_on: [\"db-2\"])"),
        ("web", "Process(command: \"a\", depends_on: [\"db\"], instances: 2)"),
    ]);
    assert_eq!(errors(&config), "");
    assert_eq!(config.servers["one"].child.depends_on, [Dependency::ready("db-2")]);
    for web in ["web-1", "web-2"] {
        let depends_on = &config.servers[web].child.depends_on;
        assert_eq!(*depends_on, [Dependency::ready("db-1"), Dependency::ready("db-2")]);
    }
}

#[test]
fn an_unknown_name_rejects_the_file_with_its_place_and_the_nearest_name() {
    let config = load(&[DB, ("web", "Process(\n  command: \"a\",\n  depends_on: [\"db\", \"dbb\"])")]);
    assert_eq!(
        errors(&config),
        "servers/web.ron:3:22: depends_on: there is no server or group `dbb` beside this one; did you mean `db`?"
    );
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["db"]);
}

#[test]
fn a_circle_is_named_whole_by_each_file_in_it_and_rejects_those_that_wait_for_them() {
    let config = load(&[
        ("a", "Process(command: \"a\", depends_on: [\"b\"])"),
        ("b", "Process(command: \"b\", depends_on: [\"leaf\", \"c\"])"),
        ("c", "Process(command: \"c\",\n depends_on: {\"a\": Started})"),
        ("leaf", "Process(command: \"leaf\")"),
        ("outside", "Process(command: \"outside\", depends_on: [\"a\"])"),
    ]);
    assert_eq!(
        errors(&config),
        "servers/a.ron:1:36: depends_on: these depend on each other in a circle: `a` -> `b` -> `c` -> `a`\n\
         servers/b.ron:1:44: depends_on: these depend on each other in a circle: `b` -> `c` -> `a` -> `b`\n\
         servers/c.ron:2:20: depends_on: these depend on each other in a circle: `c` -> `a` -> `b` -> `c`\n\
         servers/outside.ron:1:42: depends_on: the file of `a` is rejected"
    );
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["leaf"]);
}

#[test]
fn completion_of_what_is_always_restarted_is_refused() {
    let config = load(&[
        ("job", "Process(command: \"job\", restart: (policy: Always))"),
        ("web", "Process(command: \"a\", depends_on: {\"job\": Completed})"),
    ]);
    assert_eq!(
        errors(&config),
        "servers/web.ron:1:43: depends_on: `job` is restarted whenever it ends and is never completed; \
         give `job` `restart: (policy: OnFailure)` or `Never`"
    );
}

#[test]
fn what_waits_for_a_rejected_file_is_not_started_at_boot_and_untouched_while_it_runs() {
    const WEB: (&str, &str) = ("web", "Process(command: \"a\", depends_on: [\"db\"])");
    let broken = load(&[("db", "Process("), WEB]);
    assert_eq!(rejected(&broken), ["db", "web"]);
    let running = load(&[DB, WEB]);
    let reload = plan(&running, &broken);
    assert_eq!(reload.unchanged, ["web"], "the running db goes on");
    assert_eq!(reload.rejected.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["db"]);
    assert_eq!(reload.after.servers.len(), 2);
    let mended = plan(&broken, &running);
    assert_eq!(mended.added.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
}

#[test]
fn a_circle_closed_through_a_running_server_rejects_what_is_new() {
    let running =
        load(&[("a", "Process(command: \"a\", depends_on: [\"b\"])"), ("b", "Process(command: \"b\")")]);
    let loaded = load(&[("a", "Process("), ("b", "Process(command: \"b\", depends_on: [\"a\"])")]);
    let reload = plan(&running, &loaded);
    assert_eq!(reload.rejected.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(reload.changed.is_empty() && reload.removed.is_empty(), "{reload:?}");
    assert_eq!(reload.after.servers, running.servers);
}

#[test]
fn a_change_of_dependencies_is_applied_without_a_restart() {
    let before = load(&[DB, ("web", "Process(command: \"a\")")]);
    let after = load(&[DB, ("web", "Process(command: \"a\", depends_on: [\"db\"])")]);
    let reload = plan(&before, &after);
    assert_eq!(reload.changed[0].kind, ChangeKind::PolicyOnly { why: "depends_on changed".to_owned() });
}

#[test]
fn a_server_whose_dependency_is_gone_is_rejected_and_goes_on() {
    let running = load(&[DB, ("web", "Process(command: \"a\", depends_on: [\"db\"])")]);
    let loaded = load(&[("web", "Process(command: \"b\", depends_on: [\"db\"])")]);
    let reload = plan(&running, &loaded);
    assert_eq!(reload.removed, ["db"]);
    assert_eq!(reload.after.servers["web"].process.command, "a");
}
