//! What can go wrong when another tool's file is imported.

use std::io;
use std::path::PathBuf;

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImportError {
    /// A file could not be read or written.
    #[error("`{}` could not be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what it was said to be.
    #[error("`{}` is not understood: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A server of this name is there.
    #[error("`{}` exists, and nothing was written", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl ImportError {
    /// Returns what a person could do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => None,
            Self::Unreadable { .. } => Some("`xyctl import --help` lists the kinds of files"),
            Self::Exists { .. } => Some("`--dry-run` shows what it would become, `--force` overwrites it"),
        }
    }
}
