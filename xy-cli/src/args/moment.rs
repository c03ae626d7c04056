//! Moments as people write them on a command line.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::duration;
use crate::output::time::now_unix_ms;

/// Why a text is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error(
    "expected a time (`2026-03-01T09:30:00Z`, `2026-03-01 09:30`, `2026-03-01`) or how long ago (`10m`, `2h ago`, `7d`)"
)]
pub(super) struct MomentError;

/// Reads a moment as milliseconds since the Unix epoch; one without a zone is in that of this process.
///
/// # Errors
///
/// The text is neither a time nor a duration, or it is before 1970.
pub(super) fn parse(text: &str) -> Result<u64, MomentError> {
    moment(text, now_unix_ms(), &TimeZone::system())
}

fn moment(text: &str, now_unix_ms: u64, zone: &TimeZone) -> Result<u64, MomentError> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_millisecond()).map_err(|_| MomentError);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        let time = time.to_zoned(zone.clone()).map_err(|_| MomentError)?;
        return u64::try_from(time.timestamp().as_millisecond()).map_err(|_| MomentError);
    }
    let ago = text.strip_suffix("ago").map_or(text, str::trim_end);
    let days = ago.strip_suffix('d').and_then(|days| days.trim_end().parse::<u64>().ok());
    let ago = match days {
        Some(days) => u128::from(days) * 86_400_000,
        None => duration::parse(ago).map_err(|_| MomentError)?.as_millis(),
    };
    Ok(now_unix_ms.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_a_zone_and_durations_are_read_and_nothing_else() {
        const NOW: u64 = 1_772_357_400_250;
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let cases = [
            ("2026-03-01T09:30:00.250Z", NOW),
            ("2026-03-01T10:30:00.25+01:00", NOW),
            ("2026-03-01 11:30", NOW - 250),
            ("2026-03-01T11:30:00.250", NOW),
            ("2026-03-01", NOW - 250 - (11 * 60 + 30) * 60_000),
            ("10m", NOW - 600_000),
            ("2h ago", NOW - 7_200_000),
            ("1h30m", NOW - 5_400_000),
            ("90", NOW - 90_000),
            ("7d", NOW - 7 * 86_400_000),
            ("1 d ago", NOW - 86_400_000),
            ("999999999d", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(moment(text, NOW, &east), Ok(expected), "{text}");
        }
        for wrong in ["", "ago", "soon", "-5m", "2026-13-01", "1969-01-01T00:00:00Z", "5 apples ago", "d"] {
            assert_eq!(moment(wrong, NOW, &east), Err(MomentError), "{wrong}");
        }
    }
}
