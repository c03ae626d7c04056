//! Which HTTP statuses mean success.

use std::fmt;
use std::ops::RangeInclusive;

/// A set of HTTP statuses, by default 200 to 399.
///
/// ```
/// use xy_actors::process::readiness::StatusSet;
///
/// let statuses = StatusSet::new([204..=204, 500..=599]);
/// assert!(statuses.contains(204) && !statuses.contains(200));
/// assert_eq!(statuses.to_string(), "204, 500-599");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// Creates a set from ranges.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// Returns whether a status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusSet {
    /// Returns 200 to 399: a redirect is an answer too, and is never followed.
    fn default() -> Self {
        Self::new([200..=399])
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if range.start() == range.end() {
                write!(f, "{}", range.start())?;
            } else {
                write!(f, "{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}
