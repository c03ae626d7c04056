//! What `which_children` and `count_children` answer.

/// The answer of `count_children` (OTP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Counts {
    /// Child specs, dead or alive; always 1 for simple_one_for_one.
    pub specs: usize,
    /// Children with a living incarnation.
    pub active: usize,
    /// Supervisors, dead or alive.
    pub supervisors: usize,
    /// Workers, dead or alive.
    pub workers: usize,
}
