//! Clients with tokens of their own: what each may do, and a file of digests that outlives the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use xy_actors::event::stream::unix_ms;

use super::private_file::{self, PrivateFileError};
use super::secret::{Digest, Secret};
use crate::protocol::method::ClientToken;
use crate::protocol::scope::Scope;

/// The name of the file in the state directory.
pub const CLIENTS_FILE: &str = "http.clients";

/// The most clients with a token.
pub const MOST: usize = 64;

/// The longest name of a client.
const LONGEST_NAME: usize = 64;

/// Why a client has no token, or no other one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The name could be mistaken for something else.
    #[error("`{0}` is no name of a client: a letter or a digit and up to 63 more or `.`, `_`, `-` are")]
    Name(String),
    /// There is one of this name.
    #[error("`{0}` has a token; it can be rotated or removed")]
    Taken(String),
    /// There is none of this name.
    #[error("no client `{0}` has a token")]
    NotFound(String),
    /// There are too many.
    #[error("{MOST} clients have a token, which is the most")]
    TooMany,
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random(#[source] getrandom::Error),
    /// The file cannot be written.
    #[error("the clients cannot be kept")]
    File(#[from] PrivateFileError),
    /// Writing was interrupted.
    #[error("the clients cannot be kept")]
    Lost(#[source] io::Error),
}

/// A client that has presented its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Names the token to [`Clients::expired`].
    pub(super) number: u64,
    /// The client.
    pub name: Arc<str>,
    /// How much it may do.
    pub scope: Scope,
}

/// A line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    client: ClientToken,
    /// The SHA-256 of the token: 256 random bits need no salt.
    sha256: Digest,
}

#[derive(Debug)]
struct Accepted {
    number: u64,
    digest: Digest,
    name: Arc<str>,
    scope: Scope,
    /// Until when, if it is an old one.
    until: Option<Instant>,
}

/// The clients of one daemon.
#[derive(Debug)]
pub struct Clients {
    path: PathBuf,
    state: Mutex<State>,
    /// One change at a time, while it is written.
    changing: tokio::sync::Mutex<()>,
    /// Counts changes of what is accepted.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    accepted: Vec<Accepted>,
    last_number: u64,
}

impl Clients {
    /// Reads the clients from a directory; there may be none. A file that others can read or that is damaged admits nobody and
    /// is set aside.
    ///
    /// Blocking.
    pub fn open(directory: &Path) -> Self {
        let path = directory.join(CLIENTS_FILE);
        let mut state = State::default();
        for entry in read(&path).unwrap_or_default() {
            state.accept(&entry);
            state.entries.push(entry);
        }
        Self {
            path,
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Returns whose token this is.
    pub fn find(&self, presented: Digest, now: Instant) -> Option<Admitted> {
        let mut found = None;
        // Every token is compared, so that the time says nothing about which one was near.
        for one in &self.state().accepted {
            let is_current = one.until.is_none_or(|until| now < until);
            if (presented == one.digest) & is_current {
                found = Some(Admitted { number: one.number, name: Arc::clone(&one.name), scope: one.scope });
            }
        }
        found
    }

    /// Returns the clients, by name.
    pub fn list(&self) -> Vec<ClientToken> {
        let mut clients: Vec<_> = self.state().entries.iter().map(|entry| entry.client.clone()).collect();
        clients.sort_by(|one, other| one.name.cmp(&other.name));
        clients
    }

    /// Makes a token for a new client.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: the file could be written and nobody know the token.
    pub async fn add(&self, name: &str, scope: Scope) -> Result<Secret, ClientError> {
        let _one_at_a_time = self.changing.lock().await;
        if !is_name(name) {
            return Err(ClientError::Name(name.to_owned()));
        }
        let mut entries = self.state().entries.clone();
        if entries.iter().any(|entry| entry.client.name == name) {
            return Err(ClientError::Taken(name.to_owned()));
        }
        if entries.len() >= MOST {
            return Err(ClientError::TooMany);
        }
        let secret = Secret::generate().map_err(ClientError::Random)?;
        let client = ClientToken { name: name.to_owned(), scope, created_at_unix_ms: unix_ms() };
        let entry = Entry { client, sha256: secret.digest() };
        entries.push(entry.clone());
        self.keep(entries).await?;
        self.state().accept(&entry);
        self.tell();
        Ok(secret)
    }

    /// Makes another token for a client; the old one is accepted for `grace` more.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: the file could be written and nobody know the token.
    pub async fn rotate(&self, name: &str, grace: Duration) -> Result<Secret, ClientError> {
        let _one_at_a_time = self.changing.lock().await;
        let mut entries = self.state().entries.clone();
        let not_found = || ClientError::NotFound(name.to_owned());
        let entry = entries.iter_mut().find(|entry| entry.client.name == name).ok_or_else(not_found)?;
        let secret = Secret::generate().map_err(ClientError::Random)?;
        entry.sha256 = secret.digest();
        entry.client.created_at_unix_ms = unix_ms();
        let entry = entry.clone();
        self.keep(entries).await?;
        let mut state = self.state();
        // Of two rotations within the grace the first one's token goes.
        state.accepted.retain(|one| *one.name != *name || one.until.is_none());
        let until = Instant::now() + grace;
        state.accepted.iter_mut().filter(|one| *one.name == *name).for_each(|one| one.until = Some(until));
        state.accept(&entry);
        drop(state);
        self.tell();
        Ok(secret)
    }

    /// Takes a client's token back, at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: the file could be written and the token be accepted until the daemon ends.
    pub async fn remove(&self, name: &str) -> Result<ClientToken, ClientError> {
        let _one_at_a_time = self.changing.lock().await;
        let mut entries = self.state().entries.clone();
        let index = entries.iter().position(|entry| entry.client.name == name);
        let removed = entries.remove(index.ok_or_else(|| ClientError::NotFound(name.to_owned()))?);
        self.keep(entries).await?;
        self.state().accepted.retain(|one| *one.name != *name);
        self.tell();
        Ok(removed.client)
    }

    /// Forgets what is accepted no more and returns when the next one is due.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let before = state.accepted.len();
        state.accepted.retain(|one| one.until.is_none_or(|until| now < until));
        let is_changed = state.accepted.len() < before;
        let next = state.accepted.iter().filter_map(|one| one.until).min();
        drop(state);
        if is_changed {
            self.tell();
        }
        next
    }

    /// Waits until a token is accepted no more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn expired(&self, number: u64) {
        let mut changes = self.changed.subscribe();
        while self.state().accepted.iter().any(|one| one.number == number) {
            // The sender is ours, so that it cannot be gone.
            _ = changes.changed().await;
        }
    }

    /// Waits for a change of what is accepted after this call.
    pub(super) async fn changed(&self) {
        _ = self.changed.subscribe().changed().await;
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Writes the file, and only then lets it count.
    async fn keep(&self, entries: Vec<Entry>) -> Result<(), ClientError> {
        let path = self.path.clone();
        // Names, numbers and digests have a JSON form.
        let text = serde_json::to_vec_pretty(&entries).unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || private_file::write(&path, &text));
        written.await.map_err(|error| ClientError::Lost(io::Error::other(error)))??;
        self.state().entries = entries;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the lists valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn accept(&mut self, entry: &Entry) {
        self.last_number += 1;
        self.accepted.push(Accepted {
            number: self.last_number,
            digest: entry.sha256,
            name: entry.client.name.as_str().into(),
            scope: entry.client.scope,
            until: None,
        });
    }
}

/// Returns whether a name means one client, in patterns and in the audit log.
fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= LONGEST_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn read(path: &Path) -> Option<Vec<Entry>> {
    let loss = "the clients cannot be read, so that none is admitted";
    private_file::read_or_set_aside(path, &path.with_added_extension("bad"), loss, |entries: &Vec<Entry>| {
        let are_names = entries.iter().all(|entry| is_name(&entry.client.name));
        if are_names { Ok(()) } else { Err("a name in it is none") }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    fn who(clients: &Clients, secret: &Secret, now: Instant) -> Option<(String, Scope)> {
        clients.find(secret.digest(), now).map(|found| (found.name.to_string(), found.scope))
    }

    #[tokio::test]
    async fn a_token_is_told_once_and_only_its_digest_is_kept() {
        let directory = directory();
        let clients = Clients::open(directory.path());
        let secret = clients.add("grafana", Scope::Read).await.unwrap();
        let file = directory.path().join(CLIENTS_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(secret.expose()) && text.contains("grafana"), "{text}");
        // The next daemon knows it.
        let clients = Clients::open(directory.path());
        let now = Instant::now();
        assert_eq!(who(&clients, &secret, now), Some(("grafana".to_owned(), Scope::Read)));
        assert_eq!(who(&clients, &Secret::generate().unwrap(), now), None);
        assert_eq!(clients.list().len(), 1);
        assert!(matches!(clients.add("grafana", Scope::Admin).await, Err(ClientError::Taken(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_token_is_accepted_for_the_grace_and_a_removed_one_not_at_all() {
        let directory = directory();
        let clients = Clients::open(directory.path());
        let first = clients.add("ci", Scope::Operate).await.unwrap();
        let second = clients.rotate("ci", GRACE).await.unwrap();
        let now = Instant::now();
        assert!(who(&clients, &first, now).is_some() && who(&clients, &second, now).is_some());
        assert_eq!(who(&clients, &first, now + GRACE), None);
        assert_eq!(clients.expire(now), Some(now + GRACE));
        let third = clients.rotate("ci", GRACE).await.unwrap();
        assert_eq!(who(&clients, &first, now), None, "two at a time");
        let number = clients.find(second.digest(), now).unwrap().number;
        let (_, removed) = tokio::join!(clients.expired(number), clients.remove("ci"));
        assert_eq!(removed.unwrap().name, "ci");
        for secret in [&first, &second, &third] {
            assert_eq!(who(&clients, secret, now), None);
        }
        assert!(matches!(clients.rotate("ci", GRACE).await, Err(ClientError::NotFound(_))));
        assert!(matches!(clients.remove("ci").await, Err(ClientError::NotFound(_))));
    }

    #[tokio::test]
    async fn names_and_their_number_are_bounded() {
        let directory = directory();
        let clients = Clients::open(directory.path());
        let long = "x".repeat(65);
        for name in ["", "-x", "mcp:x", "a b", "a/b", "*", "\u{e9}", &long] {
            assert!(matches!(clients.add(name, Scope::Read).await, Err(ClientError::Name(_))), "{name:?}");
        }
        for number in 0..MOST {
            clients.add(&format!("c{number}"), Scope::Read).await.unwrap();
        }
        assert!(matches!(clients.add("one-more", Scope::Read).await, Err(ClientError::TooMany)));
        // What is kept can be read again.
        assert_eq!(Clients::open(directory.path()).list().len(), MOST);
    }

    #[tokio::test]
    async fn a_file_that_others_could_read_or_that_is_damaged_admits_nobody() {
        let directory = directory();
        let secret = Clients::open(directory.path()).add("x", Scope::Admin).await.unwrap();
        let file = directory.path().join(CLIENTS_FILE);
        let text = fs::read_to_string(&file).unwrap();
        for (text, mode) in
            [(text.as_str(), 0o644), ("[{", 0o600), (&text.replace("\"x\"", "\"mcp:x\""), 0o600)]
        {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(who(&Clients::open(directory.path()), &secret, Instant::now()), None);
            assert!(!file.exists(), "it is set aside");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_kept_does_not_count() {
        let directory = directory();
        let clients = Clients::open(directory.path());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(clients.add("x", Scope::Read).await, Err(ClientError::File(_))));
        assert!(clients.list().is_empty());
    }
}
