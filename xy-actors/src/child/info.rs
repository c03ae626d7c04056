//! What a start hands back to whoever asked for it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A value that a start hands back to `start_child` or `restart_child` (OTP's `{ok, Pid, Info}`).
///
/// The supervisor does not look into it and does not keep it. An actor child hands back its
/// [`ActorCell`](ractor::ActorCell).
#[derive(Clone)]
pub struct StartInfo(Arc<dyn Any + Send + Sync>);

impl StartInfo {
    /// Wraps a value.
    pub fn new(value: impl Any + Send + Sync) -> Self {
        Self(Arc::new(value))
    }

    /// Returns the value if it is of this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for StartInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartInfo").finish_non_exhaustive()
    }
}

impl PartialEq for StartInfo {
    /// Returns whether both are the same value, not merely equal ones.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StartInfo {}
