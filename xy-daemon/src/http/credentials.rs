//! The token's life: where it comes from, the files that clients read it from, and its rotation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use tokio::time::Instant;

use super::clients::{Admitted, Clients};
use super::connection_file::{CONNECTION_FILE, Connection};
use super::private_file::{self, PrivateFileError};
use super::secret::{Secret, SecretError};
use super::token::{self, Tokens, Verdict};
pub use crate::protocol::method::TokenSource;

/// The name of the token's file in the state directory.
pub const TOKEN_FILE: &str = "http.token";

/// What the operator says about the token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// The file to keep the token in, instead of [`TOKEN_FILE`] in the state directory. If it exists, its token is used.
    pub file: Option<PathBuf>,
    /// The token from the environment.
    pub environment: Option<Secret>,
}

/// Why there is no token, or no new one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The token in a file cannot be used.
    #[error("the token in `{}` cannot be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random(#[source] getrandom::Error),
    /// The daemon failed.
    #[error("a thread of the daemon failed")]
    Thread(#[source] tokio::task::JoinError),
}

/// The token in force, where it is kept, and which tokens are accepted.
#[derive(Debug)]
pub struct Credentials {
    tokens: Tokens,
    clients: Clients,
    source: Mutex<TokenSource>,
    files: Arc<Files>,
    grace: Duration,
    /// One rotation at a time.
    rotating: tokio::sync::Mutex<()>,
    rotated: tokio::sync::Notify,
}

/// By what a request was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// The daemon's own token, of this number.
    Owner(u64),
    /// That of a client.
    Client(Admitted),
}

/// The files that tell clients the token. Those that are ours are removed with the value.
#[derive(Debug)]
struct Files {
    token: PathBuf,
    /// Whether the operator has named the token's file, to keep it.
    is_named: bool,
    connection: PathBuf,
    base_url: String,
}

/// A token that was not written to every file.
struct Unwritten {
    error: PrivateFileError,
    /// Whether it is in one of them, where a client may have read it.
    is_told: bool,
}

impl Files {
    fn write(&self, secret: &Secret) -> Result<(), Unwritten> {
        let mut line = secret.expose().as_bytes().to_vec();
        line.push(b'\n');
        private_file::write(&self.token, &line).map_err(|error| Unwritten { error, is_told: false })?;
        self.introduce(secret).map_err(|error| Unwritten { error, is_told: true })
    }

    fn introduce(&self, secret: &Secret) -> Result<(), PrivateFileError> {
        let connection = Connection {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            base_url: self.base_url.clone(),
            token: secret.clone(),
            pid: std::process::id(),
        };
        connection.write(&self.connection)
    }
}

impl Credentials {
    /// Finds or makes the token and writes the files. After a rotation the old token is accepted for `grace` more.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn establish(
        options: &TokenOptions,
        state_dir: &Path,
        base_url: String,
        grace: Duration,
        most_failures: u32,
    ) -> Result<Self, TokenError> {
        let own_file = state_dir.join(TOKEN_FILE);
        let files = Files {
            token: options.file.clone().unwrap_or(own_file),
            is_named: options.file.is_some(),
            connection: state_dir.join(CONNECTION_FILE),
            base_url,
        };
        let kept = match &options.file {
            Some(path) if path.symlink_metadata().is_ok() => Some(read(path)?),
            _ => None,
        };
        let (secret, source) = match (kept, &options.environment) {
            (Some(secret), _) => (secret, TokenSource::File),
            (None, Some(secret)) => (secret.clone(), TokenSource::Environment),
            (None, None) => (Secret::generate().map_err(TokenError::Random)?, TokenSource::Generated),
        };
        // A file that the operator has made is not touched before the first rotation.
        match source {
            TokenSource::File => files.introduce(&secret)?,
            _ => files.write(&secret).map_err(|unwritten| unwritten.error)?,
        }
        Ok(Self {
            tokens: Tokens::new(&secret, most_failures),
            clients: Clients::open(state_dir),
            source: Mutex::new(source),
            files: Arc::new(files),
            grace,
            rotating: tokio::sync::Mutex::default(),
            rotated: tokio::sync::Notify::new(),
        })
    }

    /// Judges the token of a request.
    pub(super) fn check(&self, headers: &HeaderMap, now: Instant) -> Result<Admission, Verdict> {
        if let Some(client) = token::presented(headers).and_then(|digest| self.clients.find(digest, now)) {
            return Ok(Admission::Client(client));
        }
        match self.tokens.check(headers, now) {
            Verdict::Accepted(number) => Ok(Admission::Owner(number)),
            refused => Err(refused),
        }
    }

    /// Waits until what a request was admitted with is accepted no more.
    pub(super) async fn expired(&self, admission: &Admission) {
        match admission {
            Admission::Owner(number) => self.tokens.expired(*number).await,
            Admission::Client(client) => self.clients.expired(client.number).await,
        }
    }

    /// Returns the clients with tokens of their own.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Returns which tokens of the daemon are accepted.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Returns where the token in force comes from.
    pub fn source(&self) -> TokenSource {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file that clients read the token from.
    pub fn token_file(&self) -> &Path {
        &self.files.token
    }

    /// Returns how long the old token is accepted after a rotation.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Waits until the token has been rotated since the last time this was waited for. One task may wait at a time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn rotated(&self) {
        self.rotated.notified().await;
    }

    /// Makes a new token and writes it to the files; the old one is accepted until the grace is over.
    ///
    /// # Errors
    /// See [`TokenError`]. Then the old token goes on, and no client has been told another one for good.
    ///
    /// # Cancel safety
    /// Not cancel safe: the files could be written, and the old token be accepted without an end.
    pub async fn rotate(&self) -> Result<(), TokenError> {
        let _one_at_a_time = self.rotating.lock().await;
        let secret = Secret::generate().map_err(TokenError::Random)?;
        // Accepted before it can be read, so that whoever reads it at once is not refused.
        let number = self.tokens.add(&secret);
        let files = Arc::clone(&self.files);
        match tokio::task::spawn_blocking(move || files.write(&secret)).await {
            Ok(Ok(())) => {
                self.tokens.retire_before(number, Instant::now() + self.grace);
                *self.source.lock().unwrap_or_else(PoisonError::into_inner) = TokenSource::Generated;
                self.rotated.notify_one();
                Ok(())
            }
            Ok(Err(Unwritten { error, is_told })) => {
                // One that somebody may have read stays good beside the old one.
                if !is_told {
                    self.tokens.withdraw(number);
                }
                Err(error.into())
            }
            Err(error) => {
                self.tokens.withdraw(number);
                Err(TokenError::Thread(error))
            }
        }
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        // They are only ours while the state directory's lock is held, which outlives this value.
        _ = std::fs::remove_file(&self.files.connection);
        // Whoever has given the token has it, and we leave no copy behind.
        if !self.files.is_named {
            _ = std::fs::remove_file(&self.files.token);
        }
    }
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let content = private_file::read(path)?;
    // What is not UTF-8 is not ASCII either, and is refused as such.
    Secret::parse(&String::from_utf8_lossy(&content))
        .map_err(|source| TokenError::Unusable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn establish(options: &TokenOptions, directory: &Path) -> Result<Credentials, TokenError> {
        establish_at("127.0.0.1:9847", options, directory)
    }

    fn establish_at(
        address: &str,
        options: &TokenOptions,
        directory: &Path,
    ) -> Result<Credentials, TokenError> {
        let base_url = format!("http://{address}");
        Credentials::establish(options, directory, base_url, Duration::from_secs(60), 10)
    }

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    fn secret() -> Secret {
        Secret::generate().unwrap()
    }

    #[test]
    fn a_token_is_generated_and_both_files_tell_it_until_the_end() {
        let directory = directory();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let credentials = establish_at(&address, &TokenOptions::default(), directory.path()).unwrap();
        assert_eq!(credentials.source(), TokenSource::Generated);
        let token = read(&directory.path().join(TOKEN_FILE)).unwrap();
        assert_eq!(credentials.tokens().number_of(&token), Some(1));
        let connection = Connection::read(&directory.path().join(CONNECTION_FILE)).unwrap();
        assert_eq!(connection.token, token);
        drop(credentials);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_a_token_from_the_environment_no_file_is_left_and_a_named_file_stays() {
        let directory = directory();
        let options = TokenOptions { file: None, environment: Some(secret()) };
        drop(establish(&options, directory.path()).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        // One of this very name in another place is the operator's, too.
        let elsewhere = self::directory();
        let named = elsewhere.path().join(TOKEN_FILE);
        let options = TokenOptions { file: Some(named.clone()), environment: None };
        let credentials = establish(&options, directory.path()).unwrap();
        assert_eq!(credentials.source(), TokenSource::Generated);
        let told = read(&named).unwrap();
        drop(credentials);
        let again = establish(&options, directory.path()).unwrap();
        assert_eq!((again.source(), again.tokens().number_of(&told)), (TokenSource::File, Some(1)));
    }

    #[test]
    fn a_named_file_comes_before_the_environment_and_that_before_a_new_token() {
        let directory = directory();
        let (kept, given) = (secret(), secret());
        let file = directory.path().join("mine");
        let options = TokenOptions { file: Some(file.clone()), environment: Some(given.clone()) };
        let credentials = establish(&options, directory.path()).unwrap();
        assert_eq!(credentials.source(), TokenSource::Environment);
        assert_eq!(credentials.tokens().number_of(&given), Some(1));
        drop(credentials);

        private_file::write(&file, kept.expose().as_bytes()).unwrap();
        let credentials = establish(&options, directory.path()).unwrap();
        assert_eq!(credentials.source(), TokenSource::File);
        assert_eq!(credentials.tokens().number_of(&kept), Some(1));
        drop(credentials);
        assert_eq!(read(&file).unwrap(), kept, "the operator's file is left alone");
    }

    #[test]
    fn a_named_file_that_others_can_read_or_that_holds_no_token_is_an_error() {
        let directory = directory();
        let file = directory.path().join("mine");
        let options = TokenOptions { file: Some(file.clone()), environment: None };
        fs::write(&file, secret().expose()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(establish(&options, directory.path()), Err(TokenError::File(_))));
        private_file::write(&file, b"short").unwrap();
        assert!(matches!(establish(&options, directory.path()), Err(TokenError::Unusable { .. })));
    }

    #[tokio::test]
    async fn readers_of_the_file_never_see_less_than_a_token_while_it_is_rotated() {
        let directory = directory();
        let credentials = establish(&TokenOptions::default(), directory.path()).unwrap();
        let file = credentials.token_file().to_owned();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let reader = std::thread::spawn({
            let done = Arc::clone(&done);
            move || {
                let mut seen = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let token = read(&file).expect("a whole token of mode 600");
                    assert_eq!(token.expose().len(), 43);
                    seen += 1;
                }
                seen
            }
        });
        for _ in 0..100 {
            credentials.rotate().await.unwrap();
            let token = read(credentials.token_file()).unwrap();
            assert!(credentials.tokens().number_of(&token).is_some());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().expect("the reader saw only whole tokens") > 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_rotation_that_cannot_be_told_to_clients_leaves_the_old_token() {
        let directory = directory();
        let credentials = establish(&TokenOptions::default(), directory.path()).unwrap();
        let old = read(credentials.token_file()).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = credentials.rotate().await;
        assert!(matches!(refused, Err(TokenError::File(PrivateFileError::Directory(_)))), "{refused:?}");
        assert_eq!(credentials.tokens().number_of(&old), Some(1));
        assert_eq!(credentials.tokens().expire(Instant::now()), None, "it has no end");
        assert_eq!(read(credentials.token_file()).unwrap(), old);
    }
}
