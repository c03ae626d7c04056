//! Strategy and failed child: whom the restart takes along.

use crate::policy::ChildKey;
use crate::spec::Strategy;

/// Returns the first child, in start order, of the group that restarts together with `failed`, or `None` if it restarts
/// alone. The group reaches to the last child.
pub fn group_start(strategy: Strategy, failed: ChildKey) -> Option<ChildKey> {
    match strategy {
        Strategy::OneForOne | Strategy::SimpleOneForOne => None,
        Strategy::OneForAll => Some(ChildKey::FIRST),
        Strategy::RestForOne => Some(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_strategy_takes_its_own_group_along() {
        let failed = ChildKey::new(7);
        assert_eq!(group_start(Strategy::OneForOne, failed), None);
        assert_eq!(group_start(Strategy::SimpleOneForOne, failed), None);
        assert_eq!(group_start(Strategy::OneForAll, failed), Some(ChildKey::FIRST));
        assert_eq!(group_start(Strategy::RestForOne, failed), Some(failed));
    }
}
