//! What is printed of many durations.

use std::time::Duration;

/// Returns p50, p99 and the longest, as text in microseconds.
pub(crate) fn summary(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let at = |part: f64| {
        // A share of a length is one of its indices.
        let index = (all.len() as f64 * part) as usize;
        all.get(index.min(all.len().saturating_sub(1))).map_or(0.0, |found| found.as_secs_f64() * 1e6)
    };
    format!("p50 {:>8.0} us  p99 {:>8.0} us  max {:>8.0} us  n {}", at(0.5), at(0.99), at(1.0), all.len())
}
