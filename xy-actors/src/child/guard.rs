//! The promise that an exit is reported exactly once.

use super::Reporter;
use crate::exit::{Cause, Exit, ExitReport};

/// Reports the exit of an incarnation exactly once: with [`exited`](Self::exited), or when it is dropped on the way,
/// because what owns it panicked or was aborted. Made by [`Reporter::guard`].
#[derive(Debug)]
#[must_use = "dropping it reports that the incarnation was aborted"]
pub struct ExitGuard(Option<Reporter>);

impl Reporter {
    /// Returns a guard to move into what runs, as the last thing that is dropped there.
    pub fn guard(&self) -> ExitGuard {
        ExitGuard(Some(self.clone()))
    }
}

impl ExitGuard {
    /// Reports that the incarnation ended and that nothing of it runs.
    pub fn exited(mut self, report: ExitReport) {
        self.report(report);
    }

    fn report(&mut self, report: ExitReport) {
        if let Some(reporter) = self.0.take() {
            reporter.exited(report);
        }
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        self.report(if std::thread::panicking() {
            ExitReport::new(Exit::Abnormal, Cause::Error { message: "panicked".to_owned() })
        } else {
            ExitReport::new(Exit::Killed, Cause::Aborted)
        });
    }
}
