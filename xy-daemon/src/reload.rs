//! What a reload does: the running servers and a loaded [`Config`] -> a plan, without doing any of it.
//!
//! It is all or nothing per server. A file that is rejected leaves its running server as it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{self, Config, RejectedFile, ServerConfig};

/// What a reload will do. Each server of either side is in exactly one list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReloadPlan {
    /// Servers to start, by name.
    pub added: Vec<ServerConfig>,
    /// Servers to change, by name.
    pub changed: Vec<Change>,
    /// Names of servers to stop and forget: their file is gone.
    pub removed: Vec<String>,
    /// Names of servers whose file says what it said.
    pub unchanged: Vec<String>,
    /// Files that are not in use; a running server of that name goes on as it is.
    pub rejected: Vec<RejectedFile>,
}

/// A server whose file says something new.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What the file says now.
    pub config: ServerConfig,
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
/// Of two servers with one port a running one keeps it, else the first by name gets it.
pub fn plan(running: &BTreeMap<String, ServerConfig>, loaded: &Config) -> ReloadPlan {
    // Conflicts were settled without knowing who runs, so they are taken up again.
    let mut candidates = loaded.servers.clone();
    let mut rejected = Vec::new();
    for file in &loaded.rejected {
        match file.conflicting() {
            Some(server) => {
                candidates.insert(server.name.clone(), server.clone());
            }
            None => rejected.push(file.clone()),
        }
    }
    let (servers, conflicts) = settle(running, candidates, &rejected);
    rejected.extend(conflicts);
    rejected.sort_by(|a, b| a.name.cmp(&b.name));

    let untouched: BTreeSet<&str> = rejected.iter().map(|file| file.name.as_str()).collect();
    let removed = running
        .keys()
        .filter(|name| !servers.contains_key(*name) && !untouched.contains(name.as_str()))
        .cloned()
        .collect();
    let mut plan = ReloadPlan { removed, ..ReloadPlan::default() };
    for (name, server) in servers {
        match running.get(&name) {
            None => plan.added.push(server),
            Some(old) => match difference(old, &server) {
                None => plan.unchanged.push(name),
                Some(kind) => plan.changed.push(Change { config: server, kind }),
            },
        }
    }
    plan.rejected = rejected;
    plan
}

/// Settles who gets which port.
///
/// A rejected server goes on with the port it has, which may reject another one in turn; each round rejects at
/// least one more, so this ends.
fn settle(
    running: &BTreeMap<String, ServerConfig>,
    mut servers: BTreeMap<String, ServerConfig>,
    rejected: &[RejectedFile],
) -> (BTreeMap<String, ServerConfig>, Vec<RejectedFile>) {
    let mut kept: BTreeSet<String> = rejected.iter().map(|file| file.name.clone()).collect();
    let mut conflicts: Vec<RejectedFile> = Vec::new();
    loop {
        let held = running
            .values()
            .filter_map(|server| Some((server.process.port?, server)))
            .filter(|(port, server)| {
                let wanted = servers.get(&server.name).and_then(|wanted| wanted.process.port);
                kept.contains(&server.name) || wanted == Some(*port)
            })
            .map(|(port, server)| (port, server.name.clone()))
            .collect();
        let (accepted, lost) = config::settle_ports(servers, &held);
        servers = accepted;
        if lost.is_empty() {
            return (servers, conflicts);
        }
        kept.extend(lost.iter().map(|file| file.name.clone()));
        conflicts.extend(lost);
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

    /// Notes which variables changed, without their values.
    fn note_env(&mut self, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            match (old.get(name), new.get(name)) {
                (None, Some(_)) => self.0.push(format!("env {name} added")),
                (Some(_), None) => self.0.push(format!("env {name} removed")),
                (before, after) => self.note(before != after, &format!("env {name}")),
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
    process.note_env(&was.env, &is.env);
    process.note(was.working_dir != is.working_dir, "working_dir");
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
    policy.note(rules.shutdown != new_rules.shutdown, "grace");
    policy.note(rules.start_timeout != new_rules.start_timeout, "start_timeout");
    policy.note(rules.autostart != new_rules.autostart, "autostart");
    policy.note(old.log != new.log, "log");

    if !process.0.is_empty() {
        process.0.append(&mut policy.0);
        Some(ChangeKind::Restart { why: process.0.join(", ") })
    } else if !policy.0.is_empty() {
        Some(ChangeKind::PolicyOnly { why: policy.0.join(", ") })
    } else {
        None
    }
}
