//! Times and durations in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Writes a duration in its two largest units: `45s`, `3m 12s`, `2h 5m`, `4d 1h`.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Writes a duration to a tenth of a second, for delays: `0.2 s`, `30.0 s`.
pub(crate) fn tenths(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Writes how long ago something was: `3m 12s ago`.
pub(crate) fn ago(at_unix_ms: u64, now_unix_ms: u64) -> String {
    match now_unix_ms.saturating_sub(at_unix_ms) / 1000 {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// Returns the wall clock's time in milliseconds since the Unix epoch.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes times in the time zone of this process.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// Creates a clock of the system's time zone, or of UTC where that is not known.
    pub(crate) fn local() -> Self {
        Self { zone: TimeZone::system() }
    }

    /// Creates a clock of UTC.
    #[cfg(test)]
    pub(crate) fn utc() -> Self {
        Self { zone: TimeZone::UTC }
    }

    /// Writes the time of day: `12:03:01`.
    pub(crate) fn time(&self, unix_ms: u64) -> String {
        self.format(unix_ms, "%H:%M:%S")
    }

    /// Writes date and time: `2026-01-31 12:03:01`.
    pub(crate) fn date_time(&self, unix_ms: u64) -> String {
        self.format(unix_ms, "%Y-%m-%d %H:%M:%S")
    }

    /// Writes the time of day, with the date where that is another day than `now`.
    pub(crate) fn short(&self, unix_ms: u64, now_unix_ms: u64) -> String {
        let day = |at| self.format(at, "%Y-%m-%d");
        if day(unix_ms) == day(now_unix_ms) { self.time(unix_ms) } else { self.date_time(unix_ms) }
    }

    fn format(&self, unix_ms: u64, format: &str) -> String {
        let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        match time {
            Some(time) => time.to_zoned(self.zone.clone()).strftime(format).to_string(),
            // Beyond the year 9999; the daemon's clock is broken, and the number is all there is.
            None => unix_ms.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_time_ahead_of_the_clock_is_just_now() {
        assert_eq!(ago(5000, 1000), "just now");
        assert_eq!(ago(1000, 62_000), "1m 1s ago");
    }

    #[test]
    fn the_date_is_shown_for_another_day() {
        let clock = Clock { zone: TimeZone::UTC };
        let day = 86_400_000;
        assert_eq!(clock.short(1000, day - 1), "00:00:01");
        assert_eq!(clock.short(1000, day), "1970-01-01 00:00:01");
        assert_eq!(clock.time(u64::MAX), u64::MAX.to_string());
    }
}
