//! Durations as people write them on a command line.

use std::time::Duration;

use jiff::SignedDuration;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("expected seconds (`90`) or a duration (`500ms`, `2m`, `1h30m`)")]
pub(super) struct DurationError;

/// Reads whole seconds, or numbers with units.
///
/// # Errors
///
/// The text is neither, or negative.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: SignedDuration = text.parse().map_err(|_| DurationError)?;
    duration.try_into().map_err(|_| DurationError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_units_are_read_and_nothing_else() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("2m", 120), ("1h30m", 5400), ("1m 30s", 90)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "-5", "-5s", "soon", "5 apples"] {
            assert_eq!(parse(wrong), Err(DurationError), "{wrong}");
        }
    }
}
