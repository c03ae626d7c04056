//! The text of a configuration file, kept so that a later program can read it again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a file said. It may hold secrets, so debug output shows no more than its length.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FileText(Arc<str>);

impl FileText {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FileText {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for FileText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<FileText> for String {
    fn from(text: FileText) -> Self {
        text.0.as_ref().to_owned()
    }
}

impl fmt::Debug for FileText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileText({} bytes)", self.0.len())
    }
}
