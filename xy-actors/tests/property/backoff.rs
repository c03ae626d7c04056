//! Backoff delays against a loop that multiplies.

use std::time::Duration;

use proptest::prelude::*;
use xy_actors::policy::backoff::{Jitter, delay, is_reset};
use xy_actors::spec::Backoff;

fn milliseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn backoffs() -> impl Strategy<Value = Backoff> {
    let first = prop::option::of(milliseconds(0..100_000));
    (first, milliseconds(0..10_000), 1.0..4.0f64, milliseconds(0..60_000), 0.0..=1.0f64).prop_map(
        |(first, base, factor, max, jitter)| Backoff {
            first,
            base,
            factor,
            max,
            jitter,
            reset_after: Duration::from_secs(30),
        },
    )
}

/// The delay without jitter, grown step by step.
fn naive(backoff: &Backoff, attempt: u32) -> Duration {
    let mut grown = backoff.base.as_secs_f64();
    let mut delays = Vec::new();
    delays.extend(backoff.first.map(|first| first.as_secs_f64()));
    while delays.len() < attempt as usize {
        delays.push(grown);
        grown = (grown * backoff.factor).min(1e9);
    }
    Duration::from_secs_f64(delays[attempt as usize - 1]).min(backoff.max)
}

proptest! {
    #[test]
    fn without_jitter_a_delay_is_base_times_factor_per_step_up_to_the_maximum(
        backoff in backoffs(),
        attempt in 1u32..80,
    ) {
        let exact = Backoff { jitter: 0.0, ..backoff };
        let difference = delay(&exact, attempt, 0.9).abs_diff(naive(&exact, attempt));
        prop_assert!(difference < Duration::from_micros(1), "{difference:?}");
    }

    #[test]
    fn jitter_varies_a_delay_by_its_part_in_both_directions(
        backoff in backoffs(),
        attempt in 1u32..80,
        unit in 0.0..1.0f64,
    ) {
        let middle = naive(&backoff, attempt).as_secs_f64();
        let expected = middle * (1.0 - backoff.jitter) + middle * 2.0 * backoff.jitter * unit;
        let actual = delay(&backoff, attempt, unit).as_secs_f64();
        prop_assert!((actual - expected).abs() < 1e-6, "{actual} instead of {expected}");
    }

    #[test]
    fn no_backoff_that_a_spec_may_have_makes_a_delay_panic(
        first in prop::option::of(any::<Duration>()),
        base in any::<Duration>(),
        factor in 1.0..f64::MAX,
        max in any::<Duration>(),
        jitter in 0.0..=1.0f64,
        attempt in any::<u32>(),
        unit in 0.0..1.0f64,
    ) {
        let backoff = Backoff { first, base, factor, max, jitter, reset_after: Duration::ZERO };
        let limit = max.as_secs_f64() * (1.0 + jitter) * 1.000_001 + 1e-6;
        prop_assert!(delay(&backoff, attempt, unit).as_secs_f64() <= limit);
    }

    #[test]
    fn a_run_is_stable_from_reset_after_on(reset_after in 0u64..1000, ready_for in 0u64..1000) {
        let backoff = Backoff { reset_after: Duration::from_nanos(reset_after), ..Backoff::default() };
        prop_assert_eq!(is_reset(&backoff, Duration::from_nanos(ready_for)), ready_for >= reset_after);
    }

    #[test]
    fn jitter_numbers_lie_in_the_unit_interval_whatever_the_seed(seed in any::<u64>()) {
        let mut jitter = Jitter::new(seed);
        let inside = (0..50).all(|_| (0.0..1.0).contains(&jitter.next_unit()));
        prop_assert!(inside);
    }
}
