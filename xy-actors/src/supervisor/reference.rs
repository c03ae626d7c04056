//! How a caller names a child: by its id, or by its key.

use std::fmt;

use crate::policy::ChildKey;
use crate::spec::ChildId;

/// Names one child of a supervisor. Made from an id (`"web"`) or from a [`ChildKey`].
///
/// A key names the child itself over all its incarnations, and is never given twice by one supervisor. Children of a
/// simple_one_for_one supervisor are known by key only: an id is refused with
/// [`Refusal::SimpleOneForOne`](crate::policy::Refusal::SimpleOneForOne). Asking for the end of a child by the key of one
/// that is gone already is no error (OTP's answer for a dead process); any other question about it is `NotFound`.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChildRef {
    /// The child of this id.
    Id(ChildId),
    /// The child of this key.
    Key(ChildKey),
}

impl fmt::Debug for ChildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => fmt::Debug::fmt(id, f),
            Self::Key(key) => fmt::Debug::fmt(key, f),
        }
    }
}

impl fmt::Display for ChildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => fmt::Display::fmt(id, f),
            Self::Key(key) => write!(f, "#{}", key.get()),
        }
    }
}

impl From<ChildKey> for ChildRef {
    fn from(key: ChildKey) -> Self {
        Self::Key(key)
    }
}

impl From<ChildId> for ChildRef {
    fn from(id: ChildId) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for ChildRef {
    fn from(id: &str) -> Self {
        Self::Id(id.into())
    }
}

impl From<String> for ChildRef {
    fn from(id: String) -> Self {
        Self::Id(id.into())
    }
}
