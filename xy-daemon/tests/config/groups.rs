//! Groups: what they mean, whom they conflict with, and what a reload makes of changes in them.

use std::fs;
use std::time::Duration;

use xy_actors::spec::{
    ChildType, Condition, Dependency, FailedStart, OnLimit, Order, RestartIntensity, Strategy,
};
use xy_daemon::config::Config;
use xy_daemon::reload::{ChangeKind, ReloadPlan, plan};

use crate::support::{Directory, errors, fixtures};

fn load(files: &[(&str, &str)]) -> Config {
    let directory = Directory::new();
    for (name, text) in files {
        directory.write(&format!("servers/{name}.ron"), text);
    }
    directory.load()
}

fn group(children: &str) -> Config {
    let config = load(&[("g", &format!("Supervisor(children: [{children}])"))]);
    assert_eq!(errors(&config), "", "{children}");
    config
}

fn process(name: &str) -> String {
    format!("Process(name: \"{name}\", command: \"x\"), ")
}

#[test]
fn every_key_of_a_group_means_what_it_says() {
    let text = fs::read_to_string(fixtures("good").join("group.ron")).expect("fixtures are checked in");
    let config = load(&[("g", &text)]);
    assert_eq!(errors(&config), "");
    assert_eq!(config.groups.keys().collect::<Vec<_>>(), ["g", "g/pool"]);
    let servers = ["g/db", "g/migrate", "g/pool/worker", "g/web-1", "g/web-2"];
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), servers);
    let group = &config.groups["g"];
    assert_eq!(group.members, ["db", "migrate", "web-1", "web-2", "pool"]);
    assert_eq!(group.supervisor.strategy, Strategy::OneForAll);
    assert_eq!(group.supervisor.order, Order::Concurrent);
    assert_eq!(group.supervisor.intensity, Some(RestartIntensity::new(3, Duration::from_secs(10))));
    assert_eq!(group.supervisor.failed_start, FailedStart::Counts);
    assert_eq!((group.child.child_type, group.child.autostart), (ChildType::Supervisor, false));
    let web = &config.servers["g/web-2"];
    assert_eq!((web.child.id.as_str(), web.process.port), ("web-2", Some(5011)));
    assert_eq!(web.child.limit, None, "the group's intensity is the limit");
    assert_eq!(
        web.child.depends_on,
        [
            Dependency { on: "db".into(), condition: Condition::Healthy, restart: true },
            Dependency { on: "migrate".into(), condition: Condition::Completed, restart: false },
            Dependency { on: "pool".into(), condition: Condition::Started, restart: false },
        ]
    );
    assert_eq!(config.servers["g/pool/worker"].process.env["N"], "1.10", "as written");
    assert_eq!(config.groups["g/pool"].supervisor.strategy, Strategy::RestForOne);
}

#[test]
fn a_group_that_escalates_at_the_root_has_failed_and_one_in_a_group_is_a_crash_there() {
    let config = group("Supervisor(name: \"inner\", children: [Process(name: \"a\", command: \"x\")])");
    let limit = config.groups["g"].child.limit.expect("a limit of its own");
    assert_eq!((limit.intensity.intensity, limit.on_limit), (0, OnLimit::GiveUp));
    assert_eq!(config.groups["g/inner"].child.limit, None);
}

#[test]
fn ports_are_settled_across_groups_and_a_conflict_rejects_the_whole_group() {
    let config = load(&[
        ("a", "Process(command: \"a\", port: 7001)"),
        (
            "g",
            "Supervisor(children: [Process(name: \"x\", command: \"x\", port: 7001), \
             Process(name: \"y\", command: \"y\", port: 7002)])",
        ),
        ("z", "Process(command: \"z\", port: 7002)"),
    ]);
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["a", "z"], "a rejected group wants no port");
    assert!(config.groups.is_empty());
    assert_eq!(
        errors(&config),
        "servers/g.ron: port: port 7001 belongs to server `a`; give one of them another port"
    );
}

#[test]
fn two_children_of_one_group_cannot_share_a_port() {
    let config = load(&[(
        "g",
        "Supervisor(children: [Process(name: \"x\", command: \"x\", port: 7001), \
         Process(name: \"y\", command: \"y\", port: 7001)])",
    )]);
    assert_eq!(
        errors(&config),
        "servers/g.ron: port: port 7001 belongs to server `g/x`; give one of them another port"
    );
}

#[test]
fn others_can_wait_for_a_group_and_a_group_for_others() {
    let config = load(&[
        ("db", "Process(command: \"db\")"),
        ("g", "Supervisor(depends_on: [\"db\"], children: [Process(name: \"a\", command: \"a\")])"),
        ("web", "Process(command: \"web\", depends_on: {\"g\": Healthy})"),
        ("wrong", "Process(command: \"web\", depends_on: [\"g/a\"])"),
    ]);
    assert_eq!(
        errors(&config),
        "servers/wrong.ron:1:38: depends_on: there is no server or group `g/a` beside this one; \
         what is inside a group is its own affair; depend on `g`"
    );
    assert_eq!(config.groups["g"].child.depends_on, [Dependency::ready("db")]);
    let healthy = Dependency { condition: Condition::Healthy, ..Dependency::ready("g") };
    assert_eq!(config.servers["web"].child.depends_on, [healthy]);
}

fn names(plan: &ReloadPlan) -> [Vec<&str>; 4] {
    [
        plan.added.iter().map(|server| server.name.as_str()).collect(),
        plan.changed.iter().map(|change| change.config.name.as_str()).collect(),
        plan.removed.iter().map(String::as_str).collect(),
        plan.unchanged.iter().map(String::as_str).collect(),
    ]
}

#[test]
fn a_group_reloads_child_by_child() {
    let before = group(&(process("a") + &process("b") + &process("c")));
    let after = group(&(process("a") + "Process(name: \"c\", command: \"y\"), " + &process("d")));
    let plan = plan(&before, &after);
    assert_eq!(names(&plan), [vec!["g/d"], vec!["g/c"], vec!["g/b"], vec!["g/a"]]);
    assert_eq!(plan.groups.unchanged, ["g"]);
    assert_eq!(plan.after.groups["g"].members, ["a", "c", "d"]);
}

#[test]
fn what_a_group_itself_does_restarts_it_and_the_reason_says_what() {
    let text =
        |keys: &str, children: &str| load(&[("g", &format!("Supervisor({keys}children: [{children}])"))]);
    let two = process("a") + &process("b");
    for (keys, children, why) in [
        ("strategy: OneForAll, ", two.clone(), "strategy changed"),
        ("order: Concurrent, ", two.clone(), "order changed"),
        ("intensity: (restarts: 1), ", two.clone(), "intensity changed"),
        ("", process("b") + &process("a"), "order of its children changed"),
        ("", process("new") + &two, "order of its children changed"),
    ] {
        let plan = plan(&text("", &two), &text(keys, &children));
        let kind = plan.groups.changed.first().map(|change| change.kind.clone());
        assert_eq!(kind, Some(ChangeKind::Restart { why: why.to_owned() }), "{keys} {children}");
    }
    let concurrent = "order: Concurrent, ";
    let plan = plan(&text(concurrent, &two), &text(concurrent, &(process("new") + &two)));
    assert_eq!(plan.groups.unchanged, ["g"], "who starts together has no order");
    assert_eq!(names(&plan)[0], ["g/new"]);
}

#[test]
fn a_broken_file_keeps_the_whole_group_and_its_ports() {
    let before = load(&[("g", "Supervisor(children: [Process(name: \"x\", command: \"x\", port: 7001)])")]);
    let after = load(&[("a", "Process(command: \"a\", port: 7001)"), ("g", "Supervisor(children: [")]);
    let plan = plan(&before, &after);
    assert_eq!(plan.rejected.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a", "g"]);
    assert!(plan.removed.is_empty() && plan.groups.removed.is_empty(), "{plan:?}");
    assert_eq!((&plan.after.servers, &plan.after.groups), (&before.servers, &before.groups));
}

#[test]
fn a_server_becomes_a_group_and_back() {
    let server = load(&[("g", "Process(command: \"x\", port: 7001)")]);
    let group = load(&[("g", "Supervisor(children: [Process(name: \"x\", command: \"x\", port: 7001)])")]);
    let there = plan(&server, &group);
    assert_eq!(names(&there), [vec!["g/x"], vec![], vec!["g"], vec![]]);
    assert_eq!(there.groups.added.len(), 1);
    let back = plan(&group, &server);
    assert_eq!(names(&back), [vec!["g"], vec![], vec!["g/x"], vec![]]);
    assert_eq!(back.groups.removed, ["g"]);
}
