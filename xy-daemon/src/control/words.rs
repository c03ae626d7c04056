//! What the daemon says in words: what happens next to a server, and what a reload does.

use std::time::Duration;

use xy_actors::event::Next;
use xy_actors::policy::State;
use xy_actors::process::StopSignal;
use xy_actors::supervisor::ChildInfo;

use super::{errors_of, reloaded};
use crate::protocol::method::ReloadResult;
use crate::reload::{ChangeKind, GroupChange, ReloadPlan};

/// Says what happens next to a server by itself, if anything.
pub(super) fn next(child: &ChildInfo) -> Option<String> {
    if let Some(planned) = &child.planned {
        let wait = seconds(planned.due_in);
        return Some(match (planned.nth, planned.of) {
            (0, _) => format!("restart in {wait}, not counted"),
            (nth, Some(of)) => format!("restart {nth} of {of} in {wait}"),
            (_, None) => format!("restart in {wait}"),
        });
    }
    if child.held {
        return Some("ended while paused; `resume` starts it again".to_owned());
    }
    match child.state {
        State::Failed if is_not_restarted(child) => {
            Some("failed to start, and is not restarted; `start` tries again".to_owned())
        }
        State::Failed => Some("gave up; `start` tries again".to_owned()),
        State::Starting | State::Restarting => child.waits_for.as_ref().map(|what| match child.pid {
            // What is said of a process that runs is why it does not count as ready.
            Some(_) => format!("waiting to be ready: {what}"),
            None => format!("waiting for {what}"),
        }),
        State::Running if child.ready && !child.healthy => {
            Some("ready; its liveness check has not been passed yet".to_owned())
        }
        State::Running if !child.ready => child.waits_for.as_ref().map(|what| format!("not ready: {what}")),
        _ => None,
    }
}

/// Returns whether it was its restart type, and no limit, that made a failed start the last one.
fn is_not_restarted(child: &ChildInfo) -> bool {
    child.last_exit.as_ref().is_some_and(|last| last.next == Some(Next::Rest))
}

/// Returns a signal's name as configuration files have it.
pub(super) fn signal(signal: StopSignal) -> &'static str {
    match signal {
        StopSignal::Term => "TERM",
        StopSignal::Int => "INT",
        StopSignal::Hup => "HUP",
        StopSignal::Quit => "QUIT",
        StopSignal::Usr1 => "USR1",
        StopSignal::Usr2 => "USR2",
        StopSignal::Kill => "KILL",
    }
}

/// Writes a duration with one decimal.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Says what a plan does with each server and group.
pub(super) fn reload_result(plan: &ReloadPlan) -> ReloadResult {
    let groups = &plan.groups;
    let restarts = |change: &&GroupChange| matches!(change.kind, ChangeKind::Restart { .. });
    let above = Above {
        added: groups.added.iter().map(|group| group.name.as_str()).collect(),
        restarted: groups.changed.iter().filter(restarts).map(|change| change.config.name.as_str()).collect(),
    };
    let started = |autostart: bool| if autostart { "started" } else { "not started" };
    let mut result = ReloadResult {
        added: plan
            .added
            .iter()
            .map(|server| {
                let what = if server.name != server.base {
                    "instance"
                } else if server.name == server.origin {
                    "file"
                } else {
                    "server"
                };
                let then = above.then(&server.name).unwrap_or(started(server.child.autostart));
                reloaded(&server.name, format!("new {what}; {then}"))
            })
            .collect(),
        changed: plan
            .changed
            .iter()
            .map(|change| {
                let then = above.then(&change.config.name);
                let reason = match &change.kind {
                    ChangeKind::PolicyOnly { why } => {
                        format!("{why}; {}", then.unwrap_or("the process goes on"))
                    }
                    kind => format!("{}; {}", kind.why(), then.unwrap_or("restarted")),
                };
                reloaded(&change.config.name, reason)
            })
            .collect(),
        removed: plan.removed.iter().map(|name| reloaded(name, "no longer configured; stopped")).collect(),
        unchanged: plan
            .unchanged
            .iter()
            .map(|name| match above.then(name) {
                Some(then) => reloaded(name, format!("nothing changed; {then}")),
                None => reloaded(name, "nothing changed"),
            })
            .collect(),
        rejected: plan.rejected.iter().map(|file| reloaded(&file.name, errors_of(file))).collect(),
    };
    result.added.extend(groups.added.iter().map(|group| {
        let then = above.then(&group.name).unwrap_or(started(group.child.autostart));
        reloaded(&group.name, format!("new group; {then}"))
    }));
    result.changed.extend(groups.changed.iter().map(|change| {
        let reason = match &change.kind {
            ChangeKind::PolicyOnly { why } => format!("{why}; what is in it goes on"),
            kind => format!("{}; the group is restarted", kind.why()),
        };
        reloaded(&change.config.name, reason)
    }));
    let removed = groups.removed.iter().map(|name| reloaded(name, "no longer configured; stopped"));
    result.removed.extend(removed);
    let unchanged =
        groups.unchanged.iter().map(|name| reloaded(name, "nothing changed about the group itself"));
    result.unchanged.extend(unchanged);
    for rows in [&mut result.added, &mut result.changed, &mut result.removed, &mut result.unchanged] {
        // A group before what is in it, and that before whoever is next.
        rows.sort_by(|a, b| a.name.split('/').cmp(b.name.split('/')));
    }
    result
}

/// The groups that take along what is in them.
struct Above<'a> {
    added: Vec<&'a str>,
    restarted: Vec<&'a str>,
}

impl Above<'_> {
    /// Says what the groups above do to something.
    fn then(&self, path: &str) -> Option<&'static str> {
        let lies_in = |group: &&str| path.strip_prefix(*group).is_some_and(|rest| rest.starts_with('/'));
        if self.added.iter().any(lies_in) {
            Some("started with its group")
        } else {
            self.restarted.iter().any(lies_in).then_some("restarted with its group")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_one_decimal() {
        assert_eq!(seconds(Duration::from_millis(1640)), "1.6 s");
        assert_eq!(seconds(Duration::ZERO), "0.0 s");
    }
}
