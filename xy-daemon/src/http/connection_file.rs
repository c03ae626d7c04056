//! `xyd.json`: where a client finds the HTTP address and the token of the running daemon.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xy_actors::process::port::{Holder, holder};

use super::address;
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
    /// The address in it is none of this machine's own.
    #[error("`{}` leads to `{base_url}`, which is no loopback address", path.display())]
    Address {
        /// The file.
        path: PathBuf,
        /// The address.
        base_url: String,
    },
    /// The daemon that wrote it runs no more, or does not listen there any more.
    #[error("`{}` is stale: process {pid} does not listen there any more", path.display())]
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

    /// Reads the file and checks that its daemon still runs and listens there: a token is not for whoever has got the port
    /// since. Process ids are given again, so that one that is alive proves nothing; on Linux the kernel says whose the port
    /// is, where it may be asked.
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
        let port = match port(&members.base_url) {
            Some(port) => port,
            None => {
                let base_url = members.base_url.into_owned();
                return Err(ConnectionFileError::Address { path: path.to_owned(), base_url });
            }
        };
        if !is_alive(pid) || !listens(pid, port) {
            return Err(ConnectionFileError::Stale { path: path.to_owned(), pid });
        }
        let (version, base_url) = (members.version.into_owned(), members.base_url.into_owned());
        Ok(Self { version, base_url, token, pid })
    }
}

/// Returns the port of a URL that a daemon writes.
fn port(base_url: &str) -> Option<u16> {
    address::parse(base_url.strip_prefix("http://")?).ok().map(|address| address.port())
}

/// Returns whether the process listens on the port, as far as can be known.
fn listens(pid: u32, port: u16) -> bool {
    match holder(port, &[pid]) {
        Ok(Holder::Nobody) => false,
        // Of a process that hides its descriptors nothing can be said.
        Ok(Holder::Foreign { .. }) => std::fs::read_dir(format!("/proc/{pid}/fd")).is_err(),
        Ok(Holder::Own) | Err(_) => true,
    }
}

/// Returns whether there is such a process, of the user whose file it is.
fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    pid > 0 && nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn connection(pid: u32, base_url: &str) -> Connection {
        Connection {
            version: "1.2.3".to_owned(),
            base_url: base_url.to_owned(),
            token: Secret::generate().unwrap(),
            pid,
        }
    }

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        (listener, base_url)
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        let (_listener, base_url) = listener();
        let written = connection(std::process::id(), &base_url);
        written.write(&path).unwrap();
        assert_eq!(Connection::read(&path).unwrap(), written);
    }

    #[test]
    fn a_file_of_a_daemon_that_is_gone_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        let (_listener, base_url) = listener();
        // Beyond the largest process id of every system.
        for pid in [0, 0x7fff_fff0, u32::MAX] {
            connection(pid, &base_url).write(&path).unwrap();
            assert!(matches!(Connection::read(&path), Err(ConnectionFileError::Stale { .. })), "{pid}");
        }
    }

    #[test]
    fn a_file_whose_process_id_was_given_again_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        let (listener, base_url) = listener();
        let mut other = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        connection(other.id(), &base_url).write(&path).unwrap();
        let whose_is_known = cfg!(target_os = "linux");
        let is_stale = matches!(Connection::read(&path), Err(ConnectionFileError::Stale { .. }));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(is_stale, whose_is_known, "the port is ours, not that of the process");

        connection(std::process::id(), &base_url).write(&path).unwrap();
        drop(listener);
        let read = Connection::read(&path);
        assert!(matches!(read, Err(ConnectionFileError::Stale { .. })), "nobody listens there: {read:?}");
    }

    #[test]
    fn an_address_that_no_daemon_has_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        for base_url in
            ["http://192.0.2.1:80", "https://127.0.0.1:80", "http://localhost:80", "http://127.0.0.1"]
        {
            connection(std::process::id(), base_url).write(&path).unwrap();
            let read = Connection::read(&path);
            assert!(matches!(read, Err(ConnectionFileError::Address { .. })), "{base_url}");
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
