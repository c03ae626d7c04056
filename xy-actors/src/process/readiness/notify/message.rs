//! The text of a notification: `KEY=VALUE` lines, as in sd_notify(3).

use std::time::Duration;

/// The longest status that is kept, in characters.
const STATUS_LIMIT: usize = 200;

/// What one datagram says. Unknown lines are passed over, as the protocol grows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// `READY=1`.
    pub(super) is_ready: bool,
    /// `STOPPING=1`.
    pub(super) is_stopping: bool,
    /// `STATUS=`, cut and printable.
    pub(super) status: Option<String>,
    /// `WATCHDOG=`.
    pub(super) watchdog: Option<Sign>,
    /// `EXTEND_TIMEOUT_USEC=`.
    pub(super) extend: Option<Duration>,
    /// What is understood and not done.
    pub(super) ignored: Vec<Ignored>,
}

/// What `WATCHDOG=` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is alive.
    Alive,
    /// It wants to be treated as if the watchdog had run out.
    Trigger,
}

/// What is understood and not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    /// `MAINPID=`: the main process is the one that was started.
    MainPid,
    /// `FDSTORE=1`: descriptors are not kept.
    FdStore,
    /// `WATCHDOG_USEC=`: the period is the configuration's.
    WatchdogPeriod,
}

impl Ignored {
    /// Returns the key and why it is not heeded.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::MainPid => "`MAINPID` is ignored: the main process is the one that was started",
            Self::FdStore => "`FDSTORE` is ignored: descriptors are not kept",
            Self::WatchdogPeriod => "`WATCHDOG_USEC` is ignored: the period is that of the configuration",
        }
    }
}

impl Notice {
    /// Reads a datagram; whatever bytes it has, something comes of it.
    pub(super) fn parse(datagram: &[u8]) -> Self {
        let mut notice = Self::default();
        for line in datagram.split(|byte| *byte == b'\n') {
            let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            match key {
                b"READY" => notice.is_ready |= value == b"1",
                b"STOPPING" => notice.is_stopping |= value == b"1",
                b"STATUS" => notice.status = Some(status(value)),
                b"WATCHDOG" => match value {
                    b"1" => notice.watchdog = notice.watchdog.or(Some(Sign::Alive)),
                    b"trigger" => notice.watchdog = Some(Sign::Trigger),
                    _ => {}
                },
                b"EXTEND_TIMEOUT_USEC" => notice.extend = microseconds(value).or(notice.extend),
                b"MAINPID" => notice.ignored.push(Ignored::MainPid),
                b"FDSTORE" => notice.ignored.push(Ignored::FdStore),
                b"WATCHDOG_USEC" => notice.ignored.push(Ignored::WatchdogPeriod),
                _ => {}
            }
        }
        notice
    }
}

/// Reads a datagram, and checks what is shown of it.
#[cfg(all(feature = "testkit", feature = "probe-http"))]
pub(in crate::process) fn read_datagram(bytes: &[u8]) {
    let status = Notice::parse(bytes).status.unwrap_or_default();
    assert!(status.chars().count() <= STATUS_LIMIT && !status.chars().any(char::is_control), "{status:?}");
}

fn status(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let printable = text.trim().chars().map(|character| if character.is_control() { ' ' } else { character });
    printable.take(STATUS_LIMIT).collect()
}

fn microseconds(value: &[u8]) -> Option<Duration> {
    str::from_utf8(value).ok()?.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_datagram_may_say_several_things() {
        let text = b"STATUS=Loading \xc3\xa9\nEXTEND_TIMEOUT_USEC=1500000\nREADY=1\nMAINPID=1\nX_OWN=1";
        let expected = Notice {
            is_ready: true,
            status: Some("Loading é".to_owned()),
            extend: Some(Duration::from_millis(1500)),
            ignored: vec![Ignored::MainPid],
            ..Notice::default()
        };
        assert_eq!(Notice::parse(text), expected);
    }

    #[test]
    fn only_the_value_one_says_yes() {
        for text in ["READY=0", "READY=", "READY", "READY=11", "READY= 1", "ready=1", "XREADY=1", "=1", ""] {
            assert_eq!(Notice::parse(text.as_bytes()), Notice::default(), "{text}");
        }
        assert!(Notice::parse(b"\nREADY=1\n\n").is_ready);
    }

    #[test]
    fn a_trigger_wins_over_a_sign_of_life() {
        for text in ["WATCHDOG=1\nWATCHDOG=trigger", "WATCHDOG=trigger\nWATCHDOG=1"] {
            assert_eq!(Notice::parse(text.as_bytes()).watchdog, Some(Sign::Trigger), "{text}");
        }
        assert_eq!(Notice::parse(b"WATCHDOG=1").watchdog, Some(Sign::Alive));
        assert_eq!(Notice::parse(b"WATCHDOG=2").watchdog, None);
    }

    #[test]
    fn a_status_is_cut_and_printable_whatever_it_is() {
        let mut text = b"STATUS=\xff\x1b[31m".to_vec();
        text.extend([b'x'; 4000]);
        let status = Notice::parse(&text).status.expect("a status");
        assert!(status.starts_with("\u{fffd} [31mxxx") && status.chars().count() == STATUS_LIMIT, "{status}");
    }

    #[test]
    fn a_time_that_is_no_number_extends_nothing() {
        for text in ["", "-1", "1s", "18446744073709551616", "\u{661}"] {
            let datagram = format!("EXTEND_TIMEOUT_USEC={text}");
            assert_eq!(Notice::parse(datagram.as_bytes()).extend, None, "{text}");
        }
        let longest = format!("EXTEND_TIMEOUT_USEC={}", u64::MAX);
        assert_eq!(Notice::parse(longest.as_bytes()).extend, Some(Duration::from_micros(u64::MAX)));
    }
}
