//! How a process ended, in the words of the ledger: what policy decided by, then the cause as far as it is a matter of words.
//!
//! ```text
//! normal code 0 | abnormal code 3 | shutdown signal 15 | abnormal signal 11 core | killed memory | abnormal
//! ```

use crate::exit::{Cause, Exit, ExitReport};

/// Writes a report in a few words, without whom it took along.
pub(super) fn format(report: &ExitReport) -> String {
    let exit = match report.exit {
        Exit::Normal => "normal",
        Exit::Shutdown => "shutdown",
        Exit::Killed => "killed",
        // No process ends by a limit of its own.
        Exit::Abnormal | Exit::Escalated => "abnormal",
    };
    match report.cause {
        Cause::ExitCode { code } => format!("{exit} code {code}"),
        Cause::Signal { signal, core_dumped: false } => format!("{exit} signal {signal}"),
        Cause::Signal { signal, core_dumped: true } => format!("{exit} signal {signal} core"),
        Cause::OutOfMemory => format!("{exit} memory"),
        // What somebody said about it is not kept.
        _ => exit.to_owned(),
    }
}

/// Reads such words; `None` if they make no sense.
pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<ExitReport> {
    let exit = match words.next()? {
        "normal" => Exit::Normal,
        "shutdown" => Exit::Shutdown,
        "killed" => Exit::Killed,
        "abnormal" => Exit::Abnormal,
        _ => return None,
    };
    let cause = match words.next() {
        Some("code") => Cause::ExitCode { code: words.next()?.parse().ok()? },
        Some("signal") => {
            let signal = words.next()?.parse().ok()?;
            let core_dumped = match words.next() {
                Some("core") => true,
                Some(_) => return None,
                None => false,
            };
            Cause::Signal { signal, core_dumped }
        }
        Some("memory") => Cause::OutOfMemory,
        Some(_) => return None,
        None => Cause::HostDied,
    };
    words.next().is_none().then(|| ExitReport::new(exit, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for (exit, cause, text) in [
            (Exit::Normal, Cause::ExitCode { code: 0 }, "normal code 0"),
            (Exit::Abnormal, Cause::ExitCode { code: -1 }, "abnormal code -1"),
            (Exit::Shutdown, Cause::Signal { signal: 15, core_dumped: false }, "shutdown signal 15"),
            (Exit::Abnormal, Cause::Signal { signal: 11, core_dumped: true }, "abnormal signal 11 core"),
            (Exit::Killed, Cause::OutOfMemory, "killed memory"),
            (Exit::Abnormal, Cause::HostDied, "abnormal"),
        ] {
            let report = ExitReport::new(exit, cause);
            assert_eq!(format(&report), text);
            assert_eq!(parse(text.split(' ')), Some(report));
        }
        let told = ExitReport::new(Exit::Abnormal, Cause::Error { message: "secret".to_owned() });
        assert_eq!(format(&told), "abnormal");
        for text in [
            "",
            "bad",
            "normal code",
            "normal code x",
            "killed memory 1",
            "normal code 0 0",
            "killed signal 9 x",
        ] {
            assert_eq!(parse(text.split(' ')), None, "{text}");
        }
    }
}
