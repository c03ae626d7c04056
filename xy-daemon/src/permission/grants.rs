//! What operators have allowed once and for all, or for a session: a bounded list, the lasting part of it in a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::private_file::{self, PrivateFileError};
use crate::protocol::method::{Grant, GrantScope};

/// The most grants that are kept.
pub const MOST: usize = 128;

/// Why a grant was not kept or forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// There are too many.
    #[error("there are {MOST} grants, which is the most")]
    TooMany,
    /// There is none of this id.
    #[error("there is no grant `{0}`")]
    NotFound(String),
    /// It could not be written.
    #[error("the grants cannot be kept")]
    File(#[from] PrivateFileError),
    /// Writing was interrupted.
    #[error("the grants cannot be kept")]
    Lost(#[source] io::Error),
}

/// The grants of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct GrantStore(Arc<Store>);

#[derive(Debug)]
struct Store {
    /// Where those are that outlive the daemon; `None` keeps all of them only as long as it runs.
    path: Option<PathBuf>,
    grants: Mutex<Vec<Grant>>,
    /// One change at a time, while it is written.
    changing: tokio::sync::Mutex<()>,
}

impl GrantStore {
    /// Reads the grants from a file; there may be none. One that cannot be read grants nothing and is set aside.
    ///
    /// Blocking.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let grants = path.and_then(read).unwrap_or_default();
        Self(Arc::new(Store {
            path: path.map(Path::to_owned),
            grants: Mutex::new(grants),
            changing: tokio::sync::Mutex::default(),
        }))
    }

    /// Returns every grant, the oldest first.
    pub(super) fn list(&self) -> Vec<Grant> {
        self.grants().clone()
    }

    /// Returns whether something was granted, for which `is_meant` has to say whether a grant is about it.
    pub(super) fn find(&self, is_meant: impl Fn(&Grant) -> bool) -> Option<String> {
        self.grants().iter().find(|grant| is_meant(grant)).map(|grant| grant.id.clone())
    }

    /// Keeps grants, all or none of them.
    pub(super) async fn add(&self, new: Vec<Grant>) -> Result<(), GrantError> {
        let _one = self.0.changing.lock().await;
        let mut grants = self.list();
        grants.extend(new);
        if grants.len() > MOST {
            return Err(GrantError::TooMany);
        }
        self.replace(grants).await
    }

    /// Forgets a grant and returns it.
    pub(super) async fn forget(&self, id: &str) -> Result<Grant, GrantError> {
        let _one = self.0.changing.lock().await;
        let mut grants = self.list();
        let index = grants.iter().position(|grant| grant.id == id);
        let forgotten = grants.remove(index.ok_or_else(|| GrantError::NotFound(id.to_owned()))?);
        self.replace(grants).await?;
        Ok(forgotten)
    }

    /// Forgets what was granted to a session that has ended.
    pub(super) fn end_session(&self, session: &str) {
        self.grants().retain(|grant| grant.session.as_deref() != Some(session));
    }

    /// Writes what lasts, and only then lets it count.
    async fn replace(&self, grants: Vec<Grant>) -> Result<(), GrantError> {
        if let Some(path) = self.0.path.clone() {
            let lasting: Vec<_> =
                grants.iter().filter(|grant| grant.scope == GrantScope::Always).cloned().collect();
            let written = tokio::task::spawn_blocking(move || {
                // Grants are texts and a number, which have a JSON form.
                let text = serde_json::to_vec_pretty(&lasting).unwrap_or_default();
                private_file::write(&path, &text)
            });
            written.await.map_err(|error| GrantError::Lost(io::Error::other(error)))??;
        }
        *self.grants() = grants;
        Ok(())
    }

    fn grants(&self) -> MutexGuard<'_, Vec<Grant>> {
        // Each critical section is one step.
        self.0.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Option<Vec<Grant>> {
    let loss = "the grants cannot be read, so that nothing is granted";
    private_file::read_or_set_aside(path, &path.with_extension("bad"), loss, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn grant(id: &str, scope: GrantScope) -> Grant {
        Grant {
            id: id.to_owned(),
            scope,
            owner: "me".to_owned(),
            client: "mcp:x".to_owned(),
            session: (scope == GrantScope::Session).then(|| "s".to_owned()),
            tool: None,
            action: "stop".to_owned(),
            target: Some("web".to_owned()),
            created_at_unix_ms: 5,
        }
    }

    #[tokio::test]
    async fn what_lasts_is_found_again_and_what_was_forgotten_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("grants.json");
        let store = GrantStore::open(Some(&path));
        let new = vec![
            grant("a", GrantScope::Always),
            grant("b", GrantScope::Session),
            grant("c", GrantScope::Always),
        ];
        store.add(new).await.unwrap();
        assert_eq!(store.forget("c").await.unwrap().id, "c");
        assert!(matches!(store.forget("c").await, Err(GrantError::NotFound(_))));
        assert_eq!(store.list().len(), 2);
        assert_eq!(GrantStore::open(Some(&path)).list(), [grant("a", GrantScope::Always)]);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        store.end_session("s");
        assert_eq!(store.list(), [grant("a", GrantScope::Always)]);
    }

    #[tokio::test]
    async fn what_cannot_be_kept_does_not_count() {
        let store = GrantStore::open(Some(Path::new("/nonexistent/grants.json")));
        assert!(matches!(store.add(vec![grant("a", GrantScope::Always)]).await, Err(GrantError::File(_))));
        let store = GrantStore::open(None);
        let many = (0..=MOST).map(|number| grant(&number.to_string(), GrantScope::Session)).collect();
        assert!(matches!(store.add(many).await, Err(GrantError::TooMany)));
        assert!(store.list().is_empty());
    }

    #[test]
    fn a_file_that_others_may_write_to_or_that_is_damaged_grants_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("grants.json");
        for (text, mode) in [("not json", 0o600), ("[]", 0o666)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(GrantStore::open(Some(&path)).list().is_empty());
            assert!(path.with_extension("bad").exists() && !path.exists());
        }
    }
}
