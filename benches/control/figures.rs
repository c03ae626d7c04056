//! What is printed of many durations.

use std::time::Duration;

/// Returns the duration that this share of all of them do not exceed.
pub(crate) fn percentile(all: &[Duration], share: f64) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    // A share of a length is one of its indices.
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Returns p50, p99 and the longest, as text in microseconds.
pub(crate) fn summary(all: Vec<Duration>) -> String {
    let at = |share: f64| percentile(&all, share).as_secs_f64() * 1e6;
    format!("p50 {:>8.0} us  p99 {:>8.0} us  max {:>8.0} us  n {}", at(0.5), at(0.99), at(1.0), all.len())
}
