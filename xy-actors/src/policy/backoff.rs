//! Attempt and a number in [0, 1): how long to wait before a restart.

use std::time::Duration;

use crate::spec::Backoff;

/// Returns the delay before automatic restart number `attempt`, counted from 1 since the last reset.
///
/// `unit` is a random number in [0, 1); 0.5 means no jitter. The jitter is applied after the cap, so a delay lies within
/// `max * (1 - jitter)` and `max * (1 + jitter)`.
pub fn delay(backoff: &Backoff, attempt: u32, unit: f64) -> Duration {
    let attempt = attempt.max(1);
    let steps = match (backoff.first, attempt) {
        (Some(first), 1) => return vary(first.min(backoff.max), backoff.jitter, unit),
        (Some(_), attempt) => attempt - 2,
        (None, attempt) => attempt - 1,
    };
    let growth = backoff.factor.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    // The growth may be infinite, which makes no delay longer than `max` and none out of a base of zero.
    let grown = if backoff.base.is_zero() { 0.0 } else { backoff.base.as_secs_f64() * growth };
    let delay = Duration::try_from_secs_f64(grown).map_or(backoff.max, |delay| delay.min(backoff.max));
    vary(delay, backoff.jitter, unit)
}

/// Returns whether a child that stayed ready for this long starts over at the first delay.
pub fn is_reset(backoff: &Backoff, ready_for: Duration) -> bool {
    ready_for >= backoff.reset_after
}

fn vary(delay: Duration, jitter: f64, unit: f64) -> Duration {
    let seconds = delay.as_secs_f64() * (1.0 + jitter * (2.0 * unit - 1.0));
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A small generator (SplitMix64) for jitter: seeded by the host, so that a run can be repeated exactly.
#[derive(Debug, Clone)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// Creates a generator.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns the seed with which a generator goes on where this one is.
    #[cfg(feature = "process")]
    pub(crate) fn state(&self) -> u64 {
        self.state
    }

    /// Returns the next number in [0, 1).
    pub fn next_unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // 53 bits are what an f64 holds exactly.
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(first: Option<u64>, attempts: u32) -> Vec<f64> {
        let backoff = Backoff { first: first.map(Duration::from_secs), jitter: 0.0, ..Backoff::default() };
        (1..=attempts).map(|attempt| delay(&backoff, attempt, 0.5).as_secs_f64()).collect()
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        assert_eq!(seconds(None, 7), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    }

    #[test]
    fn a_first_delay_of_zero_is_instant_and_the_next_starts_at_base() {
        assert_eq!(seconds(Some(0), 4), [0.0, 1.0, 2.0, 4.0]);
    }

    #[test]
    fn jitter_stays_within_its_band_and_reaches_both_ends() {
        let backoff = Backoff::default();
        assert_eq!(delay(&backoff, 1, 0.0), Duration::from_millis(900));
        assert!(delay(&backoff, 1, 0.999_999) > Duration::from_millis(1099));
        assert!(delay(&backoff, 1, 0.999_999) <= Duration::from_millis(1100));
    }

    #[test]
    fn a_huge_attempt_neither_overflows_nor_exceeds_the_maximum() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        assert_eq!(delay(&backoff, u32::MAX, 0.5), Duration::from_secs(30));
    }

    #[test]
    fn a_base_of_zero_never_grows_into_a_delay() {
        let backoff = Backoff { base: Duration::ZERO, ..Backoff::default() };
        assert_eq!(delay(&backoff, 5000, 0.5), Duration::ZERO);
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let backoff = Backoff { max: Duration::MAX, jitter: 1.0, ..Backoff::default() };
        assert_eq!(delay(&backoff, 5000, 0.75), Duration::MAX);
    }

    #[test]
    fn no_delay_exceeds_the_maximum_the_first_included() {
        let first = Some(Duration::from_secs(60));
        let backoff = Backoff { first, jitter: 0.0, ..Backoff::default() };
        assert_eq!(delay(&backoff, 1, 0.5), Duration::from_secs(30));
    }

    #[test]
    fn jitter_numbers_lie_in_the_unit_interval_and_repeat_with_the_seed() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..1000).map(move |_| jitter.next_unit()).collect::<Vec<_>>()
        };
        assert!(draw(1).iter().all(|unit| (0.0..1.0).contains(unit)));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
