//! Reports of exits, of which those in a row that say the same are one: children mostly fail for the reason that they,
//! or their siblings, failed for before.

use std::fmt::{Display, Write};
use std::sync::Arc;

use crate::exit::{Cause, Exit, ExitReport};

/// Makes reports shared.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    latest: Option<Arc<ExitReport>>,
    /// Room for the text of an error, kept for its memory.
    text: String,
}

/// The longest text that room is kept for.
const KEPT_TEXT: usize = 1024;

impl Alike {
    /// Returns the report, or the latest one if that says the same.
    pub(crate) fn share(&mut self, report: ExitReport) -> Arc<ExitReport> {
        match &self.latest {
            Some(latest) if **latest == report => latest.clone(),
            _ => self.latest.insert(Arc::new(report)).clone(),
        }
    }

    /// Returns the report of an incarnation that failed with this error.
    pub(crate) fn failed(&mut self, error: &dyn Display) -> Arc<ExitReport> {
        self.text.clear();
        // Writing to a text fails only if the error says so; then what it wrote before is all there is.
        let _incomplete = write!(self.text, "{error}");
        if let Some(latest) = &self.latest
            && let ExitReport { exit: Exit::Abnormal, cause: Cause::Error { message }, killed, left } =
                &**latest
            && *message == self.text
            && killed.is_empty()
            && left.is_empty()
        {
            return latest.clone();
        }
        let report = ExitReport::new(Exit::Abnormal, Cause::Error { message: self.text.as_str().to_owned() });
        self.text.shrink_to(KEPT_TEXT);
        self.latest.insert(Arc::new(report)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ProcessRef;

    fn error(message: &str) -> ExitReport {
        ExitReport::new(Exit::Abnormal, Cause::Error { message: message.to_owned() })
    }

    #[test]
    fn reports_are_shared_only_while_they_say_the_same() {
        let mut alike = Alike::default();
        let first = alike.failed(&"refused");
        assert!(Arc::ptr_eq(&first, &alike.failed(&"refused")));
        assert!(Arc::ptr_eq(&first, &alike.share(error("refused"))));
        let other = alike.failed(&"reset");
        assert_eq!((&*first, &*other), (&error("refused"), &error("reset")));
        let finished = ExitReport::new(Exit::Normal, Cause::Finished { reason: None });
        assert_eq!(*alike.share(finished.clone()), finished);
        assert_eq!(*alike.failed(&"reset"), error("reset"));
    }

    #[test]
    fn a_report_that_says_more_than_the_error_is_not_shared_with_one_that_does_not() {
        let mut alike = Alike::default();
        let pid = ProcessRef { pid: 1, command: "left".to_owned() };
        let more = [
            ExitReport { killed: vec![pid.clone()], ..error("refused") },
            ExitReport { left: vec![pid], ..error("refused") },
            ExitReport { exit: Exit::Killed, ..error("refused") },
        ];
        for report in more {
            assert_eq!(*alike.share(report.clone()), report);
            assert_eq!(*alike.failed(&"refused"), error("refused"));
        }
    }

    #[test]
    fn room_for_a_long_text_is_not_kept() {
        let mut alike = Alike::default();
        alike.failed(&"x".repeat(100 * KEPT_TEXT));
        alike.failed(&"y");
        assert!(alike.text.capacity() <= KEPT_TEXT, "{}", alike.text.capacity());
    }
}
