//! Restart type and exit: restart or not (OTP's table).

use crate::exit::Exit;
use crate::spec::RestartType;

/// Returns whether a child of this restart type is restarted after it ended by itself with `exit`.
///
/// | | normal, shutdown | abnormal, killed, escalated |
/// |---|---|---|
/// | permanent | restart | restart |
/// | transient | no | restart |
/// | temporary | no | no |
pub fn is_restarted(restart: RestartType, exit: Exit) -> bool {
    match restart {
        RestartType::Permanent => true,
        RestartType::Transient => exit.is_abnormal(),
        RestartType::Temporary => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_type_and_exit_decide() {
        use Exit::{Abnormal, Escalated, Killed, Normal, Shutdown};
        use RestartType::{Permanent, Temporary, Transient};
        let table = [
            (Permanent, Normal, true),
            (Permanent, Shutdown, true),
            (Permanent, Abnormal, true),
            (Permanent, Killed, true),
            (Permanent, Escalated, true),
            (Transient, Normal, false),
            (Transient, Shutdown, false),
            (Transient, Abnormal, true),
            (Transient, Killed, true),
            (Transient, Escalated, true),
            (Temporary, Normal, false),
            (Temporary, Shutdown, false),
            (Temporary, Abnormal, false),
            (Temporary, Killed, false),
            (Temporary, Escalated, false),
        ];
        for (restart, exit, expected) in table {
            assert_eq!(is_restarted(restart, exit), expected, "{restart:?} {exit:?}");
        }
    }
}
