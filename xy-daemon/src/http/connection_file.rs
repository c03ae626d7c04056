//! `xyd.json`: where a client finds the HTTP address and the token of the running daemon.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::private_file::{self, PrivateFileError};
use super::secret::{Secret, SecretError};

/// The name of the file in the state directory.
pub const CONNECTION_FILE: &str = "xyd.json";

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The daemon's version.
    pub version: String,
    /// Where it listens, for instance `http://127.0.0.1:9847`.
    pub base_url: String,
    /// The token in force.
    pub token: Secret,
    /// The daemon's process id.
    pub pid: u32,
}

/// Why the file does not lead to a daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionFileError {
    /// It cannot be read, or is not private.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Its content is not what a daemon writes. What it is instead may be secret and is not told.
    #[error("`{}` is not a connection file", .0.display())]
    Content(PathBuf),
    /// The token in it cannot be one.
    #[error("the token in `{}` cannot be used", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The daemon that wrote it runs no more.
    #[error("`{}` is stale: its daemon, process {pid}, is gone", path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// The process id in it.
        pid: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Members<'a> {
    version: std::borrow::Cow<'a, str>,
    base_url: std::borrow::Cow<'a, str>,
    token: std::borrow::Cow<'a, str>,
    pid: u32,
}

impl Connection {
    /// Writes the file.
    ///
    /// # Errors
    /// See [`private_file::write`].
    pub fn write(&self, path: &Path) -> Result<(), PrivateFileError> {
        let members = Members {
            version: self.version.as_str().into(),
            base_url: self.base_url.as_str().into(),
            token: self.token.expose().into(),
            pid: self.pid,
        };
        // Strings and a number always have a JSON form.
        let mut text = serde_json::to_vec(&members).expect("plain members are JSON");
        text.push(b'\n');
        private_file::write(path, &text)
    }

    /// Reads the file and checks that its daemon still runs.
    ///
    /// # Errors
    /// See [`ConnectionFileError`].
    pub fn read(path: &Path) -> Result<Self, ConnectionFileError> {
        let content = private_file::read(path)?;
        let members: Members<'_> =
            serde_json::from_slice(&content).map_err(|_| ConnectionFileError::Content(path.to_owned()))?;
        let token = Secret::parse(&members.token)
            .map_err(|source| ConnectionFileError::Token { path: path.to_owned(), source })?;
        let pid = members.pid;
        if !is_alive(pid) {
            return Err(ConnectionFileError::Stale { path: path.to_owned(), pid });
        }
        let (version, base_url) = (members.version.into_owned(), members.base_url.into_owned());
        Ok(Self { version, base_url, token, pid })
    }
}

fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    pid > 0 && nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(pid: u32) -> Connection {
        Connection {
            version: "1.2.3".to_owned(),
            base_url: "http://127.0.0.1:9847".to_owned(),
            token: Secret::generate().unwrap(),
            pid,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        let written = connection(std::process::id());
        written.write(&path).unwrap();
        assert_eq!(Connection::read(&path).unwrap(), written);
    }

    #[test]
    fn a_file_of_a_daemon_that_is_gone_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        // Beyond the largest process id of every system.
        for pid in [0, 0x7fff_fff0, u32::MAX] {
            connection(pid).write(&path).unwrap();
            assert!(matches!(Connection::read(&path), Err(ConnectionFileError::Stale { .. })), "{pid}");
        }
    }

    #[test]
    fn an_error_does_not_show_the_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        private_file::write(&path, b"\"hunter2 hunter2 hunter2 hunter2\"").unwrap();
        let error = Connection::read(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
