//! A configuration directory in a temporary place.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use xy_daemon::config::{Config, LoadError, LoadOptions, ServerConfig};

/// A configuration directory.
pub(crate) struct Directory {
    root: TempDir,
}

impl Directory {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = Self { root };
        // Whatever the umask of whoever runs the tests.
        chmod(directory.root(), 0o755);
        fs::create_dir(directory.path("servers")).expect("an empty directory");
        chmod(directory.path("servers"), 0o755);
        directory
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file that the test user's umask cannot make suspicious.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), content).expect("a writable directory");
        chmod(self.path(name), 0o644);
        self
    }

    pub(crate) fn try_load(&self) -> Result<Config, LoadError> {
        Config::load(self.root(), &options())
    }

    pub(crate) fn load(&self) -> Config {
        self.try_load().expect("nothing is wrong with the daemon's own settings")
    }
}

pub(crate) fn options() -> LoadOptions {
    LoadOptions::new(Some("/home/somebody".into()))
}

pub(crate) fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
}

pub(crate) fn fixtures(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/fixtures").join(kind)
}

/// Loads one text as the file of the server `web`.
pub(crate) fn web(text: &str) -> ServerConfig {
    let mut config = Directory::new().write("servers/web.ron", text).load();
    assert_eq!(errors(&config), "", "{text}");
    config.servers.remove("web").expect("it was not rejected")
}

/// Returns the errors of one text as the file of the server `web`.
pub(crate) fn web_errors(text: impl AsRef<[u8]>) -> String {
    errors(&Directory::new().write("servers/web.ron", text).load())
}

/// Returns all errors, one a line.
pub(crate) fn errors(config: &Config) -> String {
    config.errors().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
