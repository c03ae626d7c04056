//! What the end of a supervisor came to, child by child.

use crate::event::ChildReport;
use crate::exit::{Cause, Exit, ExitReport};
use crate::path::TreePath;

/// How a supervisor ended, and what became of everything below it.
///
/// The lists hold the paths of the children that were alive when the end began, in the order in which they ended, those
/// of nested supervisors included.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How the supervisor ended.
    pub exit: Exit,
    /// Why.
    pub cause: Cause,
    /// Children that ended as they were asked to, or by themselves without failing.
    pub stopped: Vec<TreePath>,
    /// Children that failed instead, among them the one whose crash ended the supervisor.
    pub failed: Vec<TreePath>,
    /// Children that were killed, or of whose processes some were: their time was over, or their spec says so.
    pub killed: Vec<TreePath>,
    /// Children that did not end even then, or left processes behind; they are not waited for.
    pub leaked: Vec<TreePath>,
}

impl Default for ShutdownReport {
    /// Returns what is known of a supervisor that was aborted before it could say anything.
    fn default() -> Self {
        Self {
            exit: Exit::Killed,
            cause: Cause::Aborted,
            stopped: Vec::new(),
            failed: Vec::new(),
            killed: Vec::new(),
            leaked: Vec::new(),
        }
    }
}

impl ShutdownReport {
    /// Returns whether every child stopped as it was asked to.
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.killed.is_empty() && self.leaked.is_empty()
    }

    /// Notes what happened to a child while its supervisor ends.
    pub(crate) fn note(&mut self, path: &TreePath, report: ChildReport, exit: Option<&ExitReport>) {
        let (ChildReport::Stopped { exit: ended, .. } | ChildReport::Exited { exit: ended, .. }) = report
        else {
            return;
        };
        let leaked = exit.is_some_and(|report| report.cause == Cause::Leaked || !report.left.is_empty());
        let killed = exit.is_some_and(|report| !report.killed.is_empty());
        let list = match ended {
            _ if leaked => &mut self.leaked,
            _ if killed => &mut self.killed,
            Exit::Normal | Exit::Shutdown => &mut self.stopped,
            Exit::Killed => &mut self.killed,
            Exit::Abnormal | Exit::Escalated => &mut self.failed,
        };
        list.push(path.clone());
    }

    /// Takes in what became of everything below a nested supervisor.
    pub(crate) fn merge(&mut self, nested: &Self) {
        self.stopped.extend_from_slice(&nested.stopped);
        self.failed.extend_from_slice(&nested.failed);
        self.killed.extend_from_slice(&nested.killed);
        self.leaked.extend_from_slice(&nested.leaked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ProcessRef;

    #[test]
    fn a_process_counts_as_killed_or_leaked_when_a_part_of_its_tree_does() {
        let helper = || vec![ProcessRef { pid: 2, command: "helper".to_owned() }];
        let clean = ExitReport::new(Exit::Shutdown, Cause::ExitCode { code: 0 });
        let killed = ExitReport { killed: helper(), ..clean.clone() };
        let left = ExitReport { left: helper(), ..killed.clone() };
        let mut report = ShutdownReport::default();
        for (name, exit) in [("clean", &clean), ("killed", &killed), ("left", &left)] {
            let stopped = ChildReport::Stopped { exit: exit.exit, clean: true };
            report.note(&TreePath::root().join(&name.into()), stopped, Some(exit));
        }
        let names = [&report.stopped, &report.killed, &report.leaked].map(|paths| paths[0].as_str());
        assert_eq!(names, ["clean", "killed", "left"]);
        assert!(report.failed.is_empty() && !report.is_clean());
    }
}
