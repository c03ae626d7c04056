//! What the daemon says in words: what happens next to a server, and what a reload does.

use std::time::Duration;

use xy_actors::policy::State;
use xy_actors::supervisor::ChildInfo;

use super::{errors_of, reloaded};
use crate::protocol::method::ReloadResult;
use crate::reload::{ChangeKind, ReloadPlan};

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
        State::Failed => Some("gave up; `start` tries again".to_owned()),
        State::Starting | State::Restarting => child.waits_for.as_ref().map(|what| format!("waits: {what}")),
        State::Running if !child.ready => child.waits_for.as_ref().map(|what| format!("not ready: {what}")),
        _ => None,
    }
}

/// Writes a duration with one decimal.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Says what a plan does with each server.
pub(super) fn reload_result(plan: &ReloadPlan) -> ReloadResult {
    ReloadResult {
        added: plan
            .added
            .iter()
            .map(|server| {
                let what = if server.name == server.origin { "file" } else { "instance" };
                let started = if server.child.autostart { "started" } else { "not started" };
                reloaded(&server.name, format!("new {what}; {started}"))
            })
            .collect(),
        changed: plan
            .changed
            .iter()
            .map(|change| {
                let reason = match &change.kind {
                    ChangeKind::PolicyOnly { why } => format!("{why}; the process goes on"),
                    kind => format!("{}; restarted", kind.why()),
                };
                reloaded(&change.config.name, reason)
            })
            .collect(),
        removed: plan.removed.iter().map(|name| reloaded(name, "no longer configured; stopped")).collect(),
        unchanged: plan.unchanged.iter().map(|name| reloaded(name, "nothing changed")).collect(),
        rejected: plan.rejected.iter().map(|file| reloaded(&file.name, errors_of(file))).collect(),
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
