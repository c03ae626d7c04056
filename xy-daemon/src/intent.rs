//! Which servers are to be started with the daemon, where an operator said otherwise than the server's file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::durable;

/// The version of the file.
const VERSION: u32 = 1;

/// Why what was said could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("`{}` cannot be written", path.display())]
pub struct IntentError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// By server.
    enabled: BTreeMap<String, bool>,
}

impl Kept {
    fn read(text: &[u8]) -> Result<BTreeMap<String, bool>, String> {
        let kept: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match kept.version {
            VERSION => Ok(kept.enabled),
            other => Err(format!("it is of version {other}, and this program knows {VERSION}")),
        }
    }
}

/// Reads a file, and again what would be kept of it.
#[cfg(feature = "testkit")]
pub(crate) fn read_twice(bytes: &[u8]) {
    let Ok(enabled) = Kept::read(bytes) else { return };
    let kept = Kept { version: VERSION, enabled: enabled.clone() };
    let text = serde_json::to_vec(&kept).expect("what was JSON is JSON");
    assert_eq!(Kept::read(&text), Ok(enabled));
}

/// What operators said, by server; kept in a file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intent {
    path: PathBuf,
    said: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Intent {
    /// Reads what was said from a file; there may be none. One that makes no sense, or is of another version, is set aside.
    ///
    /// Blocking.
    pub fn open(path: &Path) -> Self {
        let said = match fs::read(path) {
            Ok(text) => Kept::read(&text).unwrap_or_else(|error| {
                let aside = path.with_extension("bad");
                tracing::warn!(path = %path.display(), error, "which servers are disabled cannot be read");
                // If that fails too, the next change overwrites it.
                _ = fs::rename(path, aside);
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "which servers are disabled cannot be read");
                }
                BTreeMap::new()
            }
        };
        Self { path: path.to_owned(), said: Arc::new(Mutex::new(said)) }
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was said of a server, if anything.
    pub fn of(&self, name: &str) -> Option<bool> {
        self.said().get(name).copied()
    }

    /// Keeps whether a server is to be started with the daemon; `None` leaves it to its file again.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing has changed, as far as this daemon is concerned. The next one may find
    /// it changed if only the last flush failed.
    pub fn set(&self, name: &str, enabled: Option<bool>) -> Result<(), IntentError> {
        let mut said = self.said();
        let mut new = said.clone();
        match enabled {
            Some(enabled) => drop(new.insert(name.to_owned(), enabled)),
            None => drop(new.remove(name)),
        }
        if new != *said {
            self.write(&new).map_err(|source| IntentError { path: self.path.clone(), source })?;
            *said = new;
        }
        Ok(())
    }

    fn write(&self, said: &BTreeMap<String, bool>) -> io::Result<()> {
        let kept = Kept { version: VERSION, enabled: said.clone() };
        durable::replace(&self.path, &durable::temporary(&self.path), &serde_json::to_vec_pretty(&kept)?)
    }

    /// Lays what was said over a configuration.
    pub fn apply(&self, config: &mut Config) {
        let said = self.said();
        for (name, server) in &mut config.servers {
            if let Some(enabled) = said.get(name) {
                Arc::make_mut(&mut server.child).autostart = *enabled;
            }
        }
        for (name, group) in &mut config.groups {
            if let Some(enabled) = said.get(name) {
                Arc::make_mut(&mut group.child).autostart = *enabled;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_found_again_until_it_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("intent");
        let intent = Intent::open(&path);
        intent.set("a", Some(false)).unwrap();
        intent.set("b", Some(true)).unwrap();
        intent.set("b", None).unwrap();
        let again = Intent::open(&path);
        assert_eq!((again.of("a"), again.of("b")), (Some(false), None));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_and_changes_nothing() {
        let intent = Intent::open(Path::new("/nonexistent/intent"));
        assert!(intent.set("a", Some(false)).is_err());
        assert_eq!(intent.of("a"), None);
    }

    #[test]
    fn a_file_that_is_not_ours_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("intent");
        for text in ["not json", r#"{"version": 2, "enabled": {"a": false}}"#] {
            fs::write(&path, text).unwrap();
            assert_eq!(Intent::open(&path).of("a"), None);
            assert_eq!(fs::read_to_string(path.with_extension("bad")).unwrap(), text);
        }
    }

    #[test]
    fn a_file_that_is_cut_anywhere_says_nothing_and_can_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("intent");
        Intent::open(&path).set("a", Some(false)).unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let intent = Intent::open(&path);
            assert_eq!(intent.of("a"), None, "cut at {end}");
            intent.set("a", Some(false)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
}
