//! Where things are: the directories of one user, the files in them, and the socket.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The most bytes that a socket's path may have: what fits `sun_path` with its final NUL.
pub const MAX_SOCKET_PATH: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// The directories of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Configuration: `$XDG_CONFIG_HOME/xy`, else `~/.config/xy`.
    pub config: PathBuf,
    /// What outlives the daemon: `$XDG_STATE_HOME/xy`, else `~/.local/state/xy`.
    pub state: PathBuf,
    /// What does not: `$XDG_RUNTIME_DIR/xy`, else the state directory.
    pub runtime: PathBuf,
}

/// Why the directories are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoriesError {
    /// A directory starts at home, and there is none.
    #[error("the home directory is not known; set `HOME` or `{variable}`")]
    NoHome {
        /// The variable that would do without.
        variable: &'static str,
    },
}

/// Why a path cannot be a socket's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketPathError {
    /// The path does not fit the system's address structure.
    #[error("the socket path `{}` has {length} bytes, and {limit} is the limit", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// The path is empty, contains NUL, or names no file.
    #[error("`{}` cannot be the path of a socket", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
}

impl Directories {
    /// Finds the directories of the current user.
    ///
    /// # Errors
    ///
    /// The home directory is needed and not known.
    pub fn of_user() -> Result<Self, DirectoriesError> {
        Self::find(|name| std::env::var_os(name), dirs::home_dir())
    }

    /// Finds the directories from an environment and a home directory.
    ///
    /// As the XDG base directory specification demands, an empty or relative value counts as not set.
    ///
    /// # Errors
    ///
    /// The home directory is needed and not given.
    pub fn find(
        env: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, DirectoriesError> {
        let base = |variable: &str| env(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let under = |variable: &'static str, default: &str| match (base(variable), &home) {
            (Some(base), _) => Ok(base.join("xy")),
            (None, Some(home)) => Ok(home.join(default).join("xy")),
            (None, None) => Err(DirectoriesError::NoHome { variable }),
        };
        let config = under("XDG_CONFIG_HOME", ".config")?;
        let state = under("XDG_STATE_HOME", ".local/state")?;
        let runtime = base("XDG_RUNTIME_DIR").map_or_else(|| state.clone(), |base| base.join("xy"));
        Ok(Self { config, state, runtime })
    }

    /// Returns the daemon's own settings file.
    pub fn settings(&self) -> PathBuf {
        self.config.join("xyd.ron")
    }

    /// Returns the directory of server files.
    pub fn servers(&self) -> PathBuf {
        self.config.join("servers")
    }

    /// Returns the directory of log files.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Returns the file that takes what a daemon in the background says about itself.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("xyd.log")
    }

    /// Returns the log file of a server; a child of a group (`group/child`) has one in the group's directory.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Returns the socket if nothing else is asked for.
    pub fn default_socket(&self) -> PathBuf {
        self.runtime.join("xyd.sock")
    }

    /// Returns the socket: the explicit one (`--socket`), else a non-empty `XY_SOCKET`, else the default.
    pub fn socket(&self, explicit: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
        socket_override(explicit, env).unwrap_or_else(|| self.default_socket())
    }
}

/// Returns the socket that was asked for, by `--socket` or else by a non-empty `XY_SOCKET`.
///
/// With one of them a client needs no home directory.
pub fn socket_override(explicit: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    explicit
        .map(Path::to_owned)
        .or_else(|| env("XY_SOCKET").filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// Checks that a path can be a socket's on this system.
///
/// # Errors
///
/// It is too long, or no path of a file.
pub fn check_socket_path(path: &Path) -> Result<(), SocketPathError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if path.file_name().is_none() || bytes.contains(&0) || bytes.ends_with(b"/") {
        return Err(SocketPathError::NotAFile { path: path.to_owned() });
    }
    if bytes.len() > MAX_SOCKET_PATH {
        let (length, limit) = (bytes.len(), MAX_SOCKET_PATH);
        return Err(SocketPathError::TooLong { path: path.to_owned(), length, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    fn home() -> Option<PathBuf> {
        Some("/home/ada".into())
    }

    #[test]
    fn without_variables_everything_is_under_home() {
        let found = Directories::find(env(&[]), home()).unwrap();
        assert_eq!(found.config, Path::new("/home/ada/.config/xy"));
        assert_eq!(found.state, Path::new("/home/ada/.local/state/xy"));
        assert_eq!(found.runtime, found.state);
        assert_eq!(found.default_socket(), Path::new("/home/ada/.local/state/xy/xyd.sock"));
    }

    #[test]
    fn each_variable_moves_its_directory() {
        let variables = [("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")];
        let found = Directories::find(env(&variables), None).unwrap();
        assert_eq!(found.settings(), Path::new("/c/xy/xyd.ron"));
        assert_eq!(found.servers(), Path::new("/c/xy/servers"));
        assert_eq!(found.log("web"), Path::new("/s/xy/logs/web.log"));
        assert_eq!(found.log("group/web.1"), Path::new("/s/xy/logs/group/web.1.log"));
        assert_eq!(found.default_socket(), Path::new("/r/xy/xyd.sock"));
    }

    #[test]
    fn empty_and_relative_values_count_as_not_set() {
        let variables = [("XDG_CONFIG_HOME", ""), ("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "./run")];
        assert_eq!(
            Directories::find(env(&variables), home()).unwrap(),
            Directories::find(env(&[]), home()).unwrap()
        );
    }

    #[test]
    fn without_home_the_variable_that_would_help_is_named() {
        let error = Directories::find(env(&[("XDG_CONFIG_HOME", "/c")]), None).unwrap_err();
        assert!(error.to_string().contains("`XDG_STATE_HOME`"), "{error}");
    }

    #[test]
    fn the_option_wins_over_the_variable_and_both_over_the_default() {
        let found = Directories::find(env(&[]), home()).unwrap();
        let variables = [("XY_SOCKET", "/v.sock")];
        assert_eq!(found.socket(Some(Path::new("/o.sock")), env(&variables)), Path::new("/o.sock"));
        assert_eq!(found.socket(None, env(&variables)), Path::new("/v.sock"));
        assert_eq!(found.socket(None, env(&[("XY_SOCKET", "")])), found.default_socket());
    }

    #[test]
    fn a_socket_path_is_accepted_up_to_the_limit() {
        for length in 100..=112 {
            let path = PathBuf::from(format!("/{}", "s".repeat(length - 1)));
            let checked = check_socket_path(&path);
            assert_eq!(checked.is_ok(), length <= MAX_SOCKET_PATH, "{length} bytes");
            if let Err(error) = checked {
                let text = error.to_string();
                assert!(
                    text.contains(&length.to_string()) && text.contains(&MAX_SOCKET_PATH.to_string()),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_path_that_names_no_file_is_refused() {
        for path in ["", "/", "..", "/run/", "a\0b"] {
            assert!(
                matches!(check_socket_path(Path::new(path)), Err(SocketPathError::NotAFile { .. })),
                "{path:?}"
            );
        }
    }
}
