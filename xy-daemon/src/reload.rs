//! What a reload does: the running servers and a loaded [`Config`] -> a plan, without doing any of it.
//!
//! It is all or nothing per server. A file that is rejected leaves its running server as it is.

use std::collections::{BTreeMap, BTreeSet};

use xy_actors::process::{ProcessSettings, StopCommand};
use xy_actors::spec::{Order, Strategy};

use crate::config::{self, Config, GroupConfig, RejectedFile, ServerConfig};

/// What a reload will do. Each server and group of either side is in exactly one list of its kind.
///
/// What lies in a group that comes, goes or is restarted is listed too, and follows the group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReloadPlan {
    /// Servers to start, by name.
    pub added: Vec<ServerConfig>,
    /// Servers to change, by name.
    pub changed: Vec<Change>,
    /// Names of servers to stop and forget: no file describes them any more.
    pub removed: Vec<String>,
    /// Names of servers whose file says what it said.
    pub unchanged: Vec<String>,
    /// What happens to the groups themselves.
    pub groups: GroupsPlan,
    /// Files that are not in use; a running server of that name goes on as it is.
    pub rejected: Vec<RejectedFile>,
    /// What is in force afterwards: what was accepted, and what is rejected and runs.
    pub after: Config,
}

/// What a reload will do to groups themselves; what is in them has its own entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupsPlan {
    /// Groups to start, by path.
    pub added: Vec<GroupConfig>,
    /// Groups to change, by path.
    pub changed: Vec<GroupChange>,
    /// Paths of groups to stop and forget.
    pub removed: Vec<String>,
    /// Paths of groups that are what they were.
    pub unchanged: Vec<String>,
}

/// A server whose file says something new.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What the file says now.
    pub config: ServerConfig,
    /// What it takes.
    pub kind: ChangeKind,
}

/// A group whose file says something new about the group itself.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupChange {
    /// What the file says now.
    pub config: GroupConfig,
    /// What it takes.
    pub kind: ChangeKind,
}

/// What it takes to apply a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The process must be replaced.
    Restart {
        /// What changed, in words; environment values never appear.
        why: String,
    },
    /// The process goes on under new rules.
    PolicyOnly {
        /// What changed, in words.
        why: String,
    },
}

impl ChangeKind {
    /// Returns what changed, in words.
    pub fn why(&self) -> &str {
        match self {
            Self::Restart { why } | Self::PolicyOnly { why } => why,
        }
    }
}

/// Plans a reload.
///
/// Of two servers with one port a running one keeps it, else the first by name gets it. What a file cannot have because
/// of others that run rejects it, and what is rejected goes on as it is.
pub fn plan(running: &Config, loaded: &Config) -> ReloadPlan {
    // Conflicts were settled without knowing who runs, so they are taken up again.
    let mut target = Config { rejected: Vec::new(), ..loaded.clone() };
    for file in &loaded.rejected {
        match file.conflicting() {
            Some(unit) => target.restore(unit.clone()),
            None => target.rejected.push(file.clone()),
        }
    }
    config::settle(&mut target, running);

    let goes = |path: &str, origin: &str| !target.is_rejected(config::root_of(path), origin);
    let mut plan = ReloadPlan {
        removed: running
            .servers
            .values()
            .filter(|old| !target.servers.contains_key(&old.name) && goes(&old.name, &old.origin))
            .map(|old| old.name.clone())
            .collect(),
        ..ReloadPlan::default()
    };
    plan.groups.removed = running
        .groups
        .values()
        .filter(|old| !target.groups.contains_key(&old.name) && goes(&old.name, &old.origin))
        .map(|old| old.name.clone())
        .collect();
    plan.after = after(running, &target);
    for (name, server) in target.servers {
        match running.servers.get(&name) {
            None => plan.added.push(server),
            Some(old) => match difference(old, &server) {
                None => plan.unchanged.push(name),
                Some(kind) => plan.changed.push(Change { config: server, kind }),
            },
        }
    }
    for (name, group) in target.groups {
        match running.groups.get(&name) {
            None => plan.groups.added.push(group),
            Some(old) => match group_difference(old, &group) {
                None => plan.groups.unchanged.push(name),
                Some(kind) => plan.groups.changed.push(GroupChange { config: group, kind }),
            },
        }
    }
    plan.rejected = target.rejected;
    plan
}

fn after(running: &Config, target: &Config) -> Config {
    let mut after = target.clone();
    for (name, old) in &running.servers {
        if target.is_rejected(config::root_of(name), &old.origin) {
            after.servers.entry(name.clone()).or_insert_with(|| old.clone());
        }
    }
    for (name, old) in &running.groups {
        if target.is_rejected(config::root_of(name), &old.origin) {
            after.groups.entry(name.clone()).or_insert_with(|| old.clone());
        }
    }
    after
}

/// Compares what a group runs with and what its file says, without its children; `None` if that is the same.
fn group_difference(old: &GroupConfig, new: &GroupConfig) -> Option<ChangeKind> {
    let mut whole = Differences::default();
    whole.note(old.supervisor.strategy != new.supervisor.strategy, "strategy");
    whole.note(old.supervisor.order != new.supervisor.order, "order");
    whole.note(old.supervisor.intensity != new.supervisor.intensity, "intensity");
    // One more at the end can be started beside the others; the place of any other needs a new row.
    let stays: Vec<&String> = old.members.iter().filter(|id| new.members.contains(id)).collect();
    let begins = new.members.iter().take(stays.len()).eq(stays);
    let matters = new.supervisor.order == Order::Ordered || new.supervisor.strategy == Strategy::RestForOne;
    whole.note(matters && !begins, "order of its children");

    let mut policy = Differences::default();
    policy.note(old.child.depends_on != new.child.depends_on, "depends_on");
    policy.note(old.child.autostart != new.child.autostart, "autostart");
    if !whole.0.is_empty() {
        whole.0.append(&mut policy.0);
        Some(ChangeKind::Restart { why: whole.0.join(", ") })
    } else if !policy.0.is_empty() {
        Some(ChangeKind::PolicyOnly { why: policy.0.join(", ") })
    } else {
        None
    }
}

/// What changed, in words.
#[derive(Debug, Default)]
struct Differences(Vec<String>);

impl Differences {
    fn note(&mut self, changed: bool, what: &str) {
        if changed {
            self.0.push(format!("{what} changed"));
        }
    }

    /// Notes what only a new process can get. Exhaustive, so that a new setting is not forgotten.
    fn note_settings(&mut self, old: &ProcessSettings, new: &ProcessSettings) {
        let ProcessSettings {
            user,
            group,
            umask,
            nice,
            limits,
            no_new_privs,
            oom_score_adj,
            stdin,
            env_files,
            secrets,
            env_base,
            path,
        } = old;
        self.note(*env_files != new.env_files, "env_files");
        self.note_each("secret", secrets, &new.secrets);
        self.note(*env_base != new.env_base, "env_base");
        self.note(*path != new.path, "path");
        self.note(*stdin != new.stdin, "stdin");
        self.note(*user != new.user, "user");
        self.note(*group != new.group, "group");
        self.note(*umask != new.umask, "umask");
        self.note(*nice != new.nice, "nice");
        self.note(*limits != new.limits, "limits");
        self.note(*no_new_privs != new.no_new_privs, "no_new_privs");
        self.note(*oom_score_adj != new.oom_score_adj, "oom_score_adj");
    }

    /// Notes which variables changed, without their values.
    fn note_each<T: PartialEq>(&mut self, what: &str, old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            match (old.get(name), new.get(name)) {
                (None, Some(_)) => self.0.push(format!("{what} {name} added")),
                (Some(_), None) => self.0.push(format!("{what} {name} removed")),
                (before, after) => self.note(before != after, &format!("{what} {name}")),
            }
        }
    }
}

/// Compares what a server runs with and what its file says; `None` if that is the same.
fn difference(old: &ServerConfig, new: &ServerConfig) -> Option<ChangeKind> {
    let mut process = Differences::default();
    let (was, is) = (&old.process, &new.process);
    process.note(was.command != is.command, "command");
    process.note(was.args != is.args, "args");
    process.note_each("env", &was.env, &is.env);
    process.note(was.working_dir != is.working_dir, "working_dir");
    process.note_settings(&was.settings, &is.settings);
    process.note(was.port != is.port, "port");
    process.note(was.port_owner != is.port_owner, "port_owner");
    process.note(was.readiness() != is.readiness(), "ready");
    // It is told its period when it starts.
    process.note(was.watchdog != is.watchdog, "watchdog");

    let mut policy = Differences::default();
    let (rules, new_rules) = (&old.child, &new.child);
    // What asks is made anew with each incarnation: these hold from the next one on.
    policy.note(was.ready_times != is.ready_times, "ready interval or timeout");
    policy.note(was.liveness != is.liveness, "liveness");
    policy.note(rules.restart != new_rules.restart, "restart policy");
    policy.note(rules.backoff != new_rules.backoff, "backoff");
    policy.note(rules.limit != new_rules.limit, "restart limit");
    policy.note(was.stop_signal != is.stop_signal, "stop signal");
    let words = |command: &Option<StopCommand>| {
        command.as_ref().map(|command| (command.command.clone(), command.args.clone()))
    };
    policy.note(words(&was.stop_command) != words(&is.stop_command), "stop command");
    policy.note(rules.shutdown != new_rules.shutdown, "grace");
    policy.note(rules.start_timeout != new_rules.start_timeout, "start_timeout");
    policy.note(rules.autostart != new_rules.autostart, "autostart");
    policy.note(rules.depends_on != new_rules.depends_on, "depends_on");
    policy.note(old.log != new.log, "log");
    policy.note(old.tags != new.tags, "tags");

    if !process.0.is_empty() {
        process.0.append(&mut policy.0);
        Some(ChangeKind::Restart { why: process.0.join(", ") })
    } else if !policy.0.is_empty() {
        Some(ChangeKind::PolicyOnly { why: policy.0.join(", ") })
    } else {
        None
    }
}
