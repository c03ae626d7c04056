//! Configuration: a directory of RON files -> [`Config`]; errors with file, line, column, key and hint.
//!
//! `xyd.ron` holds the daemon's own settings, `servers/NAME.ron` one server each. A bad server file never fails the
//! whole: it is listed in [`Config::rejected`], and the others load. Commented examples of both files, with every
//! key, are `examples/xyd.ron` and `examples/server.ron`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xy_actors::log::LogSettings;
use xy_actors::process::ProcessSpec;
use xy_actors::spec::ChildSpec;

mod check;
mod diagnosis;
mod error;
mod file;
mod instances;
mod outline;
mod program;
mod quantity;
mod shape;

pub use error::ConfigError;
pub use file::Trust;
pub use program::check_commands;

/// What a configuration directory says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The daemon's own settings.
    pub settings: Settings,
    /// The valid servers by name, no two with one port.
    pub servers: BTreeMap<String, ServerConfig>,
    /// The files that are not in use and why, sorted by name.
    pub rejected: Vec<RejectedFile>,
}

/// The daemon's own settings, from `xyd.ron`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `shutdown_timeout`: the time within which the whole daemon ends, 30 s by default.
    pub shutdown_timeout: Duration,
    /// `log`: what is kept of each server's output, unless its file says otherwise.
    pub log: LogSettings,
}

impl Default for Settings {
    /// Returns the settings of an absent `xyd.ron`.
    fn default() -> Self {
        Self { shutdown_timeout: Duration::from_secs(30), log: LogSettings::default() }
    }
}

/// One server: its file, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The name: the file's, or for one of several instances the file's with its number, as in `web-2`.
    pub name: String,
    /// The file's name without its ending.
    pub origin: String,
    /// When it is restarted and how it is ended.
    pub child: ChildSpec,
    /// What to run.
    pub process: ProcessSpec,
    /// How much of its output is kept.
    pub log: LogSettings,
    /// The file.
    pub source: PathBuf,
    /// What the file said.
    pub text: Arc<str>,
}

/// A server file that is not in use.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedFile {
    /// The server's name as the file's name has it, valid or not, or that of one instance.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; never empty.
    pub errors: Vec<ConfigError>,
    /// The server, if only its port is in the way: a reload may decide otherwise who keeps the port.
    conflicting: Option<Box<ServerConfig>>,
}

impl RejectedFile {
    /// Creates a rejection for mistakes in the file itself.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, errors: Vec<ConfigError>) -> Self {
        Self { name: name.into(), path: path.into(), errors, conflicting: None }
    }

    /// Creates a rejection because another server has the port.
    fn for_port(server: ServerConfig, port: u16, holder: &str) -> Self {
        let shown = shown_from_source(&server.source);
        let error = ConfigError {
            key: Some("port".to_owned()),
            ..ConfigError::of_file(shown, format!("port {port} belongs to server `{holder}`"))
        };
        Self {
            name: server.name.clone(),
            path: server.source.clone(),
            errors: vec![error.with_hint("give one of them another port")],
            conflicting: Some(Box::new(server)),
        }
    }

    /// Returns the server, if only its port is in the way.
    pub(crate) fn conflicting(&self) -> Option<&ServerConfig> {
        self.conflicting.as_deref()
    }
}

/// What loading needs to know beside the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// The directory of server files; `None` means `servers` in the configuration directory.
    pub servers: Option<PathBuf>,
    /// The directory servers run in unless their file names one, and where relative ones start.
    pub default_dir: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// Whether owners and modes are checked.
    pub trust: Trust,
    /// The ports that the daemon itself listens on, and what for, as in "the HTTP interface of xyd".
    pub own_ports: BTreeMap<u16, String>,
}

impl LoadOptions {
    /// Creates the daemon's options: servers run in the home directory, or in `/` for a user who has none.
    pub fn new(home: Option<PathBuf>) -> Self {
        let default_dir = home.clone().unwrap_or_else(|| PathBuf::from("/"));
        Self { servers: None, default_dir, home, trust: Trust::Checked, own_ports: BTreeMap::new() }
    }
}

/// Why a configuration directory cannot be loaded at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// `xyd.ron` is not valid. The list is never empty.
    #[error("{}", lines(.0))]
    Settings(Vec<ConfigError>),
    /// The directory of server files exists and cannot be listed.
    #[error("cannot list the server files in `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Loads a configuration directory.
    ///
    /// A missing directory means no servers, a missing `xyd.ron` means defaults. Of two servers with one port the
    /// first by name gets it; [`reload::plan`](crate::reload::plan) lets the running one keep it.
    ///
    /// # Errors
    /// Only for what concerns the daemon as a whole: `xyd.ron`, or a directory that cannot be listed. What is wrong
    /// with one server's file is in [`Config::rejected`].
    pub fn load(directory: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let settings = load_settings(&directory.join("xyd.ron"), options)?;
        let servers_dir = options.servers.clone().unwrap_or_else(|| directory.join("servers"));
        let unlisted = |source| LoadError::Directory { path: servers_dir.clone(), source };
        let mut paths = Vec::new();
        match servers_dir.read_dir() {
            Ok(entries) => {
                for entry in entries {
                    paths.push(entry.map_err(unlisted)?.path());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unlisted(error)),
        }
        paths.retain(|path| is_server_file(path));
        paths.sort();

        let trusted = file::trust_directory(&servers_dir, options.trust);
        let mut rejected = Vec::new();
        let mut files = Vec::new();
        for path in paths {
            let shown = shown(&path, directory);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let server = match &trusted {
                Ok(()) => load_server(&name, &path, &shown, &settings, options),
                Err(distrusted) => Err(vec![file::distrusted(distrusted, &shown)]),
            };
            match server {
                Ok(servers) => files.push((name, path, servers)),
                Err(errors) => rejected.push(RejectedFile::new(name, path, errors)),
            }
        }
        let valid = settle_names(files, &mut rejected, directory);
        let (servers, conflicts) = settle_ports(valid, &BTreeMap::new());
        rejected.extend(conflicts);
        rejected.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { settings, servers, rejected })
    }

    /// Returns every mistake found, in the order of the files.
    pub fn errors(&self) -> impl Iterator<Item = &ConfigError> {
        self.rejected.iter().flat_map(|file| &file.errors)
    }
}

/// Gives each name to one file: to the file of that name, valid or not, rather than to an instance.
fn settle_names(
    files: Vec<(String, PathBuf, Vec<ServerConfig>)>,
    rejected: &mut Vec<RejectedFile>,
    directory: &Path,
) -> BTreeMap<String, ServerConfig> {
    let names: BTreeSet<String> =
        files.iter().map(|(name, ..)| name).chain(rejected.iter().map(|file| &file.name)).cloned().collect();
    let mut valid = BTreeMap::new();
    for (name, path, servers) in files {
        match servers.iter().find(|server| server.name != name && names.contains(&server.name)) {
            Some(instance) => {
                let error = ConfigError {
                    key: Some("instances".to_owned()),
                    ..ConfigError::of_file(
                        shown(&path, directory),
                        format!("instance `{0}` has the name of the file `{0}.ron`", instance.name),
                    )
                };
                let error = error.with_hint("rename one of the files");
                rejected.push(RejectedFile::new(name, path, vec![error]));
            }
            None => valid.extend(servers.into_iter().map(|server| (server.name.clone(), server))),
        }
    }
    valid
}

/// Gives each port to one server: to its holder if that wants it, else to the first by name.
///
/// `held` maps ports to the names of the servers that keep them.
pub(crate) fn settle_ports(
    candidates: BTreeMap<String, ServerConfig>,
    held: &BTreeMap<u16, String>,
) -> (BTreeMap<String, ServerConfig>, Vec<RejectedFile>) {
    let mut holders = held.clone();
    for server in candidates.values() {
        if let Some(port) = server.process.port {
            holders.entry(port).or_insert_with(|| server.name.clone());
        }
    }
    let mut accepted = BTreeMap::new();
    let mut rejected = Vec::new();
    for (name, server) in candidates {
        match server.process.port.and_then(|port| Some((port, holders.get(&port)?))) {
            Some((port, holder)) if *holder != name => {
                rejected.push(RejectedFile::for_port(server, port, holder));
            }
            _ => {
                accepted.insert(name, server);
            }
        }
    }
    (accepted, rejected)
}

/// Returns whether a directory entry is meant as a server file: hidden files and other endings are droppings of
/// editors and notes of people.
fn is_server_file(path: &Path) -> bool {
    let hidden =
        path.file_name().is_some_and(|name| name.as_encoded_bytes().first().is_none_or(|byte| *byte == b'.'));
    !hidden && path.extension() == Some(OsStr::new("ron"))
}

/// Returns the path as errors show it: relative to the configuration directory where it lies in it.
fn shown(path: &Path, directory: &Path) -> PathBuf {
    path.strip_prefix(directory).unwrap_or(path).to_owned()
}

/// Returns a server file's path as errors show it where the configuration directory is no longer known.
fn shown_from_source(source: &Path) -> PathBuf {
    let directory = source.parent().and_then(Path::file_name).unwrap_or_default();
    Path::new(directory).join(source.file_name().unwrap_or_default())
}

fn load_settings(path: &Path, options: &LoadOptions) -> Result<Settings, LoadError> {
    // Not `exists`: a dangling link or an unreadable directory is a mistake, not an absent file.
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
        _ => {}
    }
    let shown = Path::new("xyd.ron");
    let directory = path.parent().unwrap_or(path);
    file::trust_directory(directory, options.trust)
        .map_err(|distrusted| vec![file::distrusted(&distrusted, shown)])
        .and_then(|()| file::read(path, shown, options.trust))
        .and_then(|text| check::settings(shown, &text))
        .map_err(LoadError::Settings)
}

fn load_server(
    name: &str,
    path: &Path,
    shown: &Path,
    settings: &Settings,
    options: &LoadOptions,
) -> Result<Vec<ServerConfig>, Vec<ConfigError>> {
    if !is_name(name) {
        let error = ConfigError::of_file(shown, format!("`{name}` is not a server name"));
        return Err(vec![error.with_hint(
            "a name is 1 to 64 characters of `a-z`, `0-9`, `_` and `-` and does not begin with `-`",
        )]);
    }
    file::read(path, shown, options.trust)
        .and_then(|text| check::server(name, path, shown, &text, settings, options))
}

/// Reads a server again from what its file said, as it is in force, whatever the file says by now.
///
/// # Errors
/// If this version does not accept it.
pub(crate) fn restore(
    name: &str,
    origin: &str,
    source: &Path,
    text: &str,
    options: &LoadOptions,
) -> Result<ServerConfig, Vec<ConfigError>> {
    let shown = shown_from_source(source);
    let servers = check::server(origin, source, &shown, text, &Settings::default(), options)?;
    let missing = || vec![ConfigError::of_file(&shown, format!("does not describe `{name}`"))];
    servers.into_iter().find(|server| server.name == name).ok_or_else(missing)
}

/// Returns whether a text is a server name: `[a-z0-9_][a-z0-9_-]{0,63}`.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let long = "a".repeat(64);
        for name in ["a", "0", "_", "web-1", "a_b", "a--", long.as_str()] {
            assert!(is_name(name), "{name}");
        }
        let longer = "a".repeat(65);
        for name in ["", "-a", "Web", "a.b", "a b", "a/b", "é", longer.as_str()] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn hidden_files_and_other_endings_are_no_server_files() {
        for (file, expected) in [
            ("web.ron", true),
            ("web.ron~", false),
            (".#web.ron", false),
            (".web.ron", false),
            (".ron", false),
            ("web.RON", false),
            ("README.md", false),
            ("ron", false),
        ] {
            assert_eq!(is_server_file(&Path::new("/c/servers").join(file)), expected, "{file}");
        }
    }
}
