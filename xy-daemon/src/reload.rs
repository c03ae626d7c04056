//! What a reload does: the running servers and a loaded [`Config`] -> a plan, without doing any of it.
//!
//! It is all or nothing per server. A file that is rejected leaves its running server as it is.

use std::collections::{BTreeMap, BTreeSet};

use xy_actors::process::{ProcessSettings, StopCommand};

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
        .values()
        .filter(|server| !servers.contains_key(&server.name) && !is_among(server, &untouched))
        .map(|server| server.name.clone())
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

/// Returns whether a server, or for an instance the file it comes from, is among these.
fn is_among(server: &ServerConfig, names: &BTreeSet<&str>) -> bool {
    names.contains(server.name.as_str()) || names.contains(server.origin.as_str())
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
        let kept_names: BTreeSet<&str> = kept.iter().map(String::as_str).collect();
        let held = running
            .values()
            .filter_map(|server| Some((server.process.port?, server)))
            .filter(|(port, server)| {
                let wanted = servers.get(&server.name).and_then(|wanted| wanted.process.port);
                is_among(server, &kept_names) || wanted == Some(*port)
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
            env_base,
            path,
        } = old;
        self.note(*env_files != new.env_files, "env_files");
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
