//! Where a child is in its tree.

use std::fmt;
use std::sync::Arc;

use crate::spec::ChildId;

/// The ids from the root down to a child, joined by `/`. The root's path is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// Returns the root's path.
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// Returns the path that was written as this text.
    #[cfg(feature = "runtime")]
    pub(crate) fn of(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Returns the path of a child of this supervisor.
    pub fn join(&self, id: &ChildId) -> Self {
        // Most children are the root's, and their path is their id.
        if self.0.is_empty() { Self(id.text().clone()) } else { Self(Arc::from(format!("{self}/{id}"))) }
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
