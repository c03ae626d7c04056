//! Restarts within a period: go on, or limit reached.

use std::collections::VecDeque;
use std::time::Instant;

use crate::spec::RestartIntensity;

/// The times of recent restarts, at most `intensity` of them: its size does not depend on how often a child restarts.
#[derive(Debug, Clone, Default)]
pub struct RestartWindow {
    times: VecDeque<Instant>,
}

/// What a restart window answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The restart is allowed; it is the `nth` within the period.
    Allowed {
        /// Counted from 1.
        nth: u32,
    },
    /// The limit is reached.
    LimitReached,
}

impl RestartWindow {
    /// Counts a restart decided at `now`.
    ///
    /// Earlier restarts that lie more than a period back are forgotten; one exactly a period back still counts (OTP's
    /// window is inclusive; OTP truncates to whole seconds, xy takes exact times).
    pub fn add(&mut self, limit: &RestartIntensity, now: Instant) -> Verdict {
        while let Some(&oldest) = self.times.front()
            && now.saturating_duration_since(oldest) > limit.period
        {
            self.times.pop_front();
        }
        if self.times.len() >= limit.intensity as usize {
            return Verdict::LimitReached;
        }
        self.times.push_back(now);
        let nth = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        Verdict::Allowed { nth }
    }

    /// Returns whether no restart is counted.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Returns the times of the restarts that count, oldest first.
    #[cfg(feature = "process")]
    pub(crate) fn times(&self) -> impl Iterator<Item = Instant> {
        self.times.iter().copied()
    }

    /// Creates a window in which these restarts count.
    #[cfg(feature = "process")]
    pub(crate) fn of(times: impl Iterator<Item = Instant>) -> Self {
        Self { times: times.collect() }
    }

    /// Forgets all restarts.
    pub fn clear(&mut self) {
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn exactly_intensity_restarts_are_allowed_within_a_period() {
        let limit = RestartIntensity::new(2, 10 * SECOND);
        let now = Instant::now();
        let mut window = RestartWindow::default();
        assert_eq!(window.add(&limit, now), Verdict::Allowed { nth: 1 });
        assert_eq!(window.add(&limit, now), Verdict::Allowed { nth: 2 });
        assert_eq!(window.add(&limit, now), Verdict::LimitReached);
    }

    #[test]
    fn intensity_zero_makes_the_first_crash_fatal() {
        let limit = RestartIntensity::new(0, SECOND);
        assert_eq!(RestartWindow::default().add(&limit, Instant::now()), Verdict::LimitReached);
    }

    #[test]
    fn the_window_is_inclusive_and_exact() {
        let limit = RestartIntensity::new(1, SECOND);
        let start = Instant::now();
        let mut window = RestartWindow::default();
        window.add(&limit, start);
        assert_eq!(window.clone().add(&limit, start + SECOND), Verdict::LimitReached);
        let just_after = start + SECOND + Duration::from_nanos(1);
        assert_eq!(window.add(&limit, just_after), Verdict::Allowed { nth: 1 });
    }
}
