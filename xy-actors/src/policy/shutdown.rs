//! The stop ladder as data: ask, kill, give up as leaked.

use std::time::{Duration, Instant};

use crate::spec::Shutdown;

/// One rung of ending a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rung {
    /// The child was asked to end.
    Asked,
    /// The child was killed; an in-process child ends at its next await point.
    Killed,
}

/// Returns the first rung of ending a child, and when the next one is due.
pub fn first(shutdown: Shutdown, kill_timeout: Duration, now: Instant) -> (Rung, Option<Instant>) {
    match shutdown {
        Shutdown::BrutalKill => (Rung::Killed, now.checked_add(kill_timeout)),
        Shutdown::Timeout(grace) => (Rung::Asked, now.checked_add(grace)),
        Shutdown::Infinity => (Rung::Asked, None),
    }
}

/// Returns the rung after `rung` and when its successor is due, or `None` if the child is to be given up as leaked.
pub fn next(rung: Rung, kill_timeout: Duration, now: Instant) -> Option<(Rung, Option<Instant>)> {
    match rung {
        Rung::Asked => Some((Rung::Killed, now.checked_add(kill_timeout))),
        Rung::Killed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ladder_asks_kills_and_then_gives_up() {
        let now = Instant::now();
        assert_eq!(first(Shutdown::Timeout(SECOND), 5 * SECOND, now), (Rung::Asked, Some(now + SECOND)));
        assert_eq!(next(Rung::Asked, 5 * SECOND, now), Some((Rung::Killed, Some(now + 5 * SECOND))));
        assert_eq!(next(Rung::Killed, 5 * SECOND, now), None);
    }

    #[test]
    fn infinity_never_kills_and_brutal_kill_never_asks() {
        let now = Instant::now();
        assert_eq!(first(Shutdown::Infinity, SECOND, now), (Rung::Asked, None));
        assert_eq!(first(Shutdown::BrutalKill, SECOND, now), (Rung::Killed, Some(now + SECOND)));
    }
}
