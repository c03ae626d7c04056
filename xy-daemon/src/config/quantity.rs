//! Durations ("1h30m") and sizes ("10MiB") as people write them.

use std::time::Duration;

/// The longest duration a file may ask for; deadlines beyond it would overflow clocks before they matter.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Parses a duration: whole numbers with a unit, the largest unit first, as in "250ms", "10s" or "1h30m".
///
/// # Errors
/// Says what is wrong with the text, as a fragment.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let expected = "expected a duration such as \"250ms\", \"10s\" or \"1h30m\"";
    if text.is_empty() {
        return Err(format!("an empty duration, {expected}"));
    }
    if text.starts_with('-') {
        return Err(format!("duration `{text}` is negative"));
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, remainder) = after.split_at(letters);
        if number.is_empty() || (unit.is_empty() && !remainder.is_empty()) {
            return Err(format!("cannot read duration `{text}`, {expected}"));
        }
        if unit.is_empty() {
            return Err(format!("duration `{text}` lacks a unit, one of `ms`, `s`, `m`, `h`, `d`"));
        }
        let Some(position) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!(
                "unknown unit `{unit}` in duration `{text}`, expected one of `ms`, `s`, `m`, `h`, `d`"
            ));
        };
        if position < next_unit {
            return Err(format!("the units of duration `{text}` must go from large to small, each once"));
        }
        next_unit = position + 1;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(UNITS[position].1));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| u128::from(*total) <= LONGEST.as_millis())
            .ok_or_else(|| format!("duration `{text}` is longer than 366 days"))?;
        rest = remainder;
    }
    Ok(Duration::from_millis(total))
}

/// Parses a size in bytes: a whole number with an optional unit, as in "512", "64KiB", "10MiB" or "1GB".
///
/// `KiB`, `MiB`, `GiB` and `TiB` are powers of 1024; `kB`, `KB`, `MB`, `GB` and `TB` powers of 1000.
///
/// # Errors
/// Says what is wrong with the text, as a fragment.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 11] = [
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    if text.starts_with('-') {
        return Err(format!("size `{text}` is negative"));
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    if number.is_empty() || !unit.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(format!(
            "cannot read size `{text}`, expected a size such as \"64KiB\", \"10MiB\" or \"512\""
        ));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "unknown unit `{unit}` in size `{text}`, expected one of `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`"
        ));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| format!("size `{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units_from_large_to_small() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d1h1m1s1ms", 90_061_001),
            ("366d", 31_622_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_is_refused_with_the_rule() {
        for (text, part) in [
            ("", "empty duration"),
            ("10", "lacks a unit"),
            ("s", "cannot read"),
            ("1.5s", "cannot read"),
            ("10 s", "cannot read"),
            (" 10s", "cannot read"),
            ("-1s", "is negative"),
            ("10sec", "unknown unit `sec`"),
            ("10µs", "cannot read"),
            ("1m1h", "large to small"),
            ("1s1s", "large to small"),
            ("367d", "longer than 366 days"),
            ("99999999999999999999s", "longer than 366 days"),
            ("18446744073709551615d", "longer than 366 days"),
        ] {
            let message = duration(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("10 MiB", 10_485_760),
            ("1GB", 1_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_bad_size_is_refused_with_the_rule() {
        for (text, part) in [
            ("", "cannot read"),
            ("MiB", "cannot read"),
            ("1.5MiB", "cannot read"),
            ("-1", "is negative"),
            ("10 mib", "unknown unit `mib`"),
            ("10M", "unknown unit `M`"),
            ("99999999999999999999", "is too large"),
            ("18446744073709551615KiB", "is too large"),
        ] {
            let message = size(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
