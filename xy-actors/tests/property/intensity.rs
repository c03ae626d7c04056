//! Restart windows against a list that forgets nothing.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use xy_actors::policy::intensity::{RestartWindow, Verdict};
use xy_actors::spec::RestartIntensity;

proptest! {
    #[test]
    fn restarts_never_exceed_intensity_within_any_period_and_are_refused_only_then(
        intensity in 0u32..6,
        period in 1u64..20,
        gaps in prop::collection::vec(0u64..12, 0..60),
    ) {
        let limit = RestartIntensity::new(intensity, Duration::from_nanos(period));
        let mut window = RestartWindow::default();
        let mut now = Instant::now();
        let mut allowed: Vec<Instant> = Vec::new();
        for gap in gaps {
            now += Duration::from_nanos(gap);
            let within = allowed.iter().filter(|at| now - **at <= limit.period).count();
            let expected = if within < intensity as usize {
                allowed.push(now);
                Verdict::Allowed { nth: within as u32 + 1 }
            } else {
                Verdict::LimitReached
            };
            prop_assert_eq!(window.add(&limit, now), expected);
        }
    }

    #[test]
    fn a_cleared_window_is_a_new_one(crashes in 0u32..10, intensity in 1u32..6) {
        let limit = RestartIntensity::new(intensity, Duration::from_secs(1));
        let now = Instant::now();
        let mut window = RestartWindow::default();
        for _ in 0..crashes {
            window.add(&limit, now);
        }
        window.clear();
        for nth in 1..=intensity {
            prop_assert_eq!(window.add(&limit, now), Verdict::Allowed { nth });
        }
        prop_assert_eq!(window.add(&limit, now), Verdict::LimitReached);
    }
}
