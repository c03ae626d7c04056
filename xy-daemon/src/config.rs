//! Configuration: a directory of RON files -> [`Config`]; errors with file, line, column, key and hint.
//!
//! `xyd.ron` holds the daemon's own settings, `servers/NAME.ron` one server or one group of servers each. A bad server file never fails the
//! whole: it is listed in [`Config::rejected`], and the others load. Commented examples of both files, with every
//! key, are `examples/xyd.ron` and `examples/server.ron`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xy_actors::log::LogSettings;
use xy_actors::process::ProcessSpec;
use xy_actors::spec::{ChildSpec, Dependency, RestartType, SupervisorSpec};

use crate::http::Limits;
use crate::permission::rules::PermissionSettings;

mod check;
mod dependencies;
mod diagnosis;
mod error;
mod file;
mod file_text;
mod instances;
mod outline;
mod program;
mod quantity;
mod shape;

use check::{Described, Origin};
use dependencies::Node;
use outline::Outline;

pub use self::file_text::FileText;
pub use dependencies::{DependsOn, check_conditions};
pub use error::ConfigError;
pub use file::Trust;
pub use program::check_commands;
pub(crate) use quantity::duration;

/// What a configuration directory says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The daemon's own settings.
    pub settings: Settings,
    /// Who may ask for what, from `xyd.ron`.
    pub permissions: PermissionSettings,
    /// The valid servers by name, which for one in a group is its path, no two with one port.
    pub servers: BTreeMap<String, ServerConfig>,
    /// The valid groups by name or path.
    pub groups: BTreeMap<String, GroupConfig>,
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
    /// `http`: the loopback address to answer HTTP at, if at all.
    pub http: Option<SocketAddr>,
    /// `http.rotate_token`: how often the token of HTTP is replaced, every 24 hours by default. A change counts from the next
    /// start on.
    pub rotate_token: Duration,
    /// `idle_shutdown`: the time without running servers and clients after which the daemon ends, if it does.
    pub idle_shutdown: Option<Duration>,
    /// `events`: what is kept of events beyond the life of the daemon. A change counts from its next start on.
    pub events: EventSettings,
}

/// The window of events that outlive the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSettings {
    /// `keep`: how many of the latest are kept, 10,000 by default; with 0 none outlives the daemon.
    pub keep: u32,
    /// `age`: how long each is kept, a day by default.
    pub age: Duration,
}

impl EventSettings {
    /// The most events that may be kept.
    pub const MOST: u32 = 1_000_000;
}

impl Default for EventSettings {
    fn default() -> Self {
        Self { keep: 10_000, age: Duration::from_secs(24 * 3600) }
    }
}

impl Default for Settings {
    /// Returns the settings of an absent `xyd.ron`.
    fn default() -> Self {
        Self {
            shutdown_timeout: Duration::from_secs(30),
            log: LogSettings::default(),
            http: None,
            rotate_token: Limits::default().rotate_every,
            idle_shutdown: None,
            events: EventSettings::default(),
        }
    }
}

/// One server: its file, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The name: the file's, or in a group its path, as in `backend/web`. One of several instances has its number too, as
    /// in `web-2`.
    pub name: String,
    /// The name without the number of an instance.
    pub base: String,
    /// The file's name without its ending.
    pub origin: String,
    /// When it is restarted and how it is ended, which its supervisor has in common with this.
    pub child: Arc<ChildSpec>,
    /// What to run, which its child in the tree has in common with this.
    pub process: Arc<ProcessSpec>,
    /// How much of its output is kept.
    pub log: LogSettings,
    /// By which `@tag` means it, sorted.
    pub tags: Vec<String>,
    /// What its file says about those it waits for; the spec has them resolved.
    pub depends_on: Vec<DependsOn>,
    /// The file.
    pub source: PathBuf,
    /// What the file said.
    pub text: FileText,
}

/// One group: a supervisor of its own, whose servers and groups are separate entries.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupConfig {
    /// The name: the file's, or in another group its path.
    pub name: String,
    /// The file's name without its ending.
    pub origin: String,
    /// What its own supervisor knows of it, in common with this.
    pub child: Arc<ChildSpec>,
    /// Its flags.
    pub supervisor: SupervisorSpec,
    /// The ids of its children in start order, instances one by one.
    pub members: Vec<String>,
    /// What its file says about those it waits for; the spec has them resolved.
    pub depends_on: Vec<DependsOn>,
    /// The file.
    pub source: PathBuf,
    /// What the file said.
    pub text: FileText,
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
    /// What it describes, if only others are in the way: a reload may find them in another state.
    conflicting: Option<Box<Unit>>,
}

/// A child of the root with everything in it, which is accepted or rejected as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    name: String,
    source: PathBuf,
    servers: BTreeMap<String, ServerConfig>,
    groups: BTreeMap<String, GroupConfig>,
}

impl RejectedFile {
    /// Creates a rejection for mistakes in the file itself.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, errors: Vec<ConfigError>) -> Self {
        Self { name: name.into(), path: path.into(), errors, conflicting: None }
    }

    /// Creates a rejection because of others.
    fn of_unit(unit: Unit, errors: Vec<ConfigError>) -> Self {
        Self { name: unit.name.clone(), path: unit.source.clone(), errors, conflicting: Some(Box::new(unit)) }
    }

    /// Returns what it describes, if only others are in the way.
    pub(crate) fn conflicting(&self) -> Option<&Unit> {
        self.conflicting.as_deref()
    }
}

fn port_taken(server: &ServerConfig, port: u16, holder: &str) -> ConfigError {
    let shown = shown_from_source(&server.source);
    // In a group's file the number itself says which one is meant.
    let is_alone = server.base == server.origin;
    let outline = is_alone.then(|| Outline::new(server.text.as_str()));
    let place = outline.and_then(|outline| Some(outline.position_of(outline.value_of("port")?)));
    let error = ConfigError {
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        key: Some("port".to_owned()),
        ..ConfigError::of_file(shown, format!("port {port} belongs to server `{holder}`"))
    };
    error.with_hint("give one of them another port")
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
        let (settings, permissions) = load_settings(&directory.join("xyd.ron"), options)?;
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
        let mut config = Self { settings, permissions, rejected, ..Self::default() };
        for described in settle_names(files, &mut config.rejected, directory) {
            config.servers.extend(described.servers.into_iter().map(|server| (server.name.clone(), server)));
            config.groups.extend(described.groups.into_iter().map(|group| (group.name.clone(), group)));
        }
        settle(&mut config, &Self::default());
        // Made of all at once it has full nodes; one that grew in order is half empty.
        config.servers = std::mem::take(&mut config.servers).into_iter().collect();
        Ok(config)
    }

    /// Reads the text of one server file that is, or is to be, at `path`.
    ///
    /// # Errors
    /// What is wrong with the name or the text. Ports of other servers are not looked at.
    pub fn server(
        name: &str,
        path: &Path,
        text: &str,
        settings: &Settings,
        options: &LoadOptions,
    ) -> Result<Vec<ServerConfig>, Vec<ConfigError>> {
        let shown = shown_from_source(path);
        checked_name(name, &shown)?;
        let origin = Origin { name, source: path, settings, options };
        Ok(check::server(origin, &shown, text)?.servers)
    }

    /// Returns every mistake found, in the order of the files.
    pub fn errors(&self) -> impl Iterator<Item = &ConfigError> {
        self.rejected.iter().flat_map(|file| &file.errors)
    }
}

/// Returns the name of the root's child that a server or group is, or lies in.
pub(crate) fn root_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

impl Config {
    /// Takes a child of the root out, with everything in it.
    fn take(&mut self, root: &str) -> Option<Unit> {
        let servers: BTreeMap<_, _> = self.servers.extract_if(.., |path, _| root_of(path) == root).collect();
        let groups: BTreeMap<_, _> = self.groups.extract_if(.., |path, _| root_of(path) == root).collect();
        let first = servers.values().map(|server| &server.source);
        let source = first.chain(groups.values().map(|group| &group.source)).next()?.clone();
        Some(Unit { name: root.to_owned(), source, servers, groups })
    }

    /// Takes in what was left out because of others.
    pub(crate) fn restore(&mut self, unit: Unit) {
        self.servers.extend(unit.servers);
        self.groups.extend(unit.groups);
    }

    /// Takes a child of the root out and lists it as rejected.
    fn reject(&mut self, root: &str, errors: Vec<ConfigError>) {
        if let Some(unit) = self.take(root) {
            self.rejected.push(RejectedFile::of_unit(unit, errors));
        }
    }

    /// Returns whether a server, group or file of this name is not to be touched because its file is rejected.
    pub(crate) fn is_rejected(&self, root: &str, origin: &str) -> bool {
        self.rejected.iter().any(|file| file.name == root || file.name == origin)
    }

    fn set_dependencies(&mut self, root: &str, depends_on: Vec<Dependency>) {
        if let Some(server) = self.servers.get_mut(root) {
            Arc::make_mut(&mut server.child).depends_on = depends_on;
        } else if let Some(group) = self.groups.get_mut(root) {
            Arc::make_mut(&mut group.child).depends_on = depends_on;
        }
    }

    /// Returns the children of the root and whom they wait for.
    fn nodes(&self) -> Vec<Node> {
        let at_root = |path: &str| !path.contains('/');
        let servers = self.servers.values().filter(|server| at_root(&server.name)).map(node_of_server);
        let groups = self.groups.values().filter(|group| at_root(&group.name)).map(node_of_group);
        servers.chain(groups).collect()
    }
}

fn node_of_server(server: &ServerConfig) -> Node {
    Node {
        id: server.child.id.to_string(),
        base: server.base.rsplit('/').next().unwrap_or_default().to_owned(),
        wants: server.depends_on.clone(),
        is_endless: server.child.restart == RestartType::Permanent,
    }
}

fn node_of_group(group: &GroupConfig) -> Node {
    let id = group.child.id.to_string();
    Node { base: id.clone(), id, wants: group.depends_on.clone(), is_endless: true }
}

/// Gives each name to one file: to the file of that name, valid or not, rather than to an instance.
fn settle_names(
    files: Vec<(String, PathBuf, Described)>,
    rejected: &mut Vec<RejectedFile>,
    directory: &Path,
) -> Vec<Described> {
    let names: BTreeSet<String> =
        files.iter().map(|(name, ..)| name).chain(rejected.iter().map(|file| &file.name)).cloned().collect();
    let mut valid = Vec::new();
    for (name, path, described) in files {
        let is_taken = |server: &&ServerConfig| server.name != name && names.contains(&server.name);
        match described.servers.iter().find(is_taken) {
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
            None => valid.push(described),
        }
    }
    valid
}

/// Leaves out what others are in the way of, until the rest can run together: who gets which port, and who waits for whom.
///
/// `running` is what runs now. A running server keeps its port if it still wants it. What is rejected and runs goes on as
/// it is, with its port, and others can depend on it. Each round rejects at least one more, so this ends.
pub(crate) fn settle(config: &mut Config, running: &Config) {
    loop {
        let before = config.rejected.len();
        settle_ports(config, running);
        if config.rejected.len() == before {
            settle_dependencies(config, running);
        }
        if config.rejected.len() == before {
            break;
        }
    }
    config.rejected.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Gives each port to one server: to its holder if that wants it, else to the first by name.
fn settle_ports(config: &mut Config, running: &Config) {
    let mut holders: BTreeMap<u16, String> = running
        .servers
        .values()
        .filter_map(|server| Some((server.process.port?, server)))
        .filter(|(port, server)| {
            let wanted = config.servers.get(&server.name).and_then(|wanted| wanted.process.port);
            config.is_rejected(root_of(&server.name), &server.origin) || wanted == Some(*port)
        })
        .map(|(port, server)| (port, server.name.clone()))
        .collect();
    for server in config.servers.values() {
        if let Some(port) = server.process.port {
            holders.entry(port).or_insert_with(|| server.name.clone());
        }
    }
    let mut losers: BTreeMap<String, Vec<ConfigError>> = BTreeMap::new();
    for server in config.servers.values() {
        if let Some((port, holder)) = server.process.port.and_then(|port| Some((port, holders.get(&port)?)))
            && *holder != server.name
        {
            let errors = losers.entry(root_of(&server.name).to_owned()).or_default();
            errors.push(port_taken(server, port, holder));
        }
    }
    // One at a time: a group that loses one port takes no other from anybody.
    if let Some((root, errors)) = losers.pop_first() {
        config.reject(&root, errors);
    }
}

/// Resolves who waits for whom among the children of the root, and rejects those that cannot.
fn settle_dependencies(config: &mut Config, running: &Config) {
    let mut nodes = config.nodes();
    let own = nodes.len();
    let kept = running.nodes().into_iter().filter(|node| {
        let origin = running.servers.get(&node.id).map_or(node.id.as_str(), |server| server.origin.as_str());
        config.is_rejected(&node.id, origin) && !nodes.iter().any(|own| own.id == node.id)
    });
    let kept: Vec<Node> = kept.collect();
    nodes.extend(kept);
    let absent = config.rejected.iter().map(|file| file.name.clone()).collect();
    let resolved = dependencies::resolve(&nodes, &absent);
    for (node, result) in nodes.into_iter().zip(resolved).take(own) {
        match result {
            Ok(depends_on) => config.set_dependencies(&node.id, depends_on),
            Err(faults) => {
                let source = match (config.servers.get(&node.id), config.groups.get(&node.id)) {
                    (Some(server), _) => server.source.clone(),
                    (None, group) => group.map(|group| group.source.clone()).unwrap_or_default(),
                };
                let shown = shown_from_source(&source);
                let told = faults.into_iter().map(|fault| fault.told(&shown));
                config.reject(&node.id, told.collect());
            }
        }
    }
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

fn load_settings(path: &Path, options: &LoadOptions) -> Result<(Settings, PermissionSettings), LoadError> {
    // Not `exists`: a dangling link or an unreadable directory is a mistake, not an absent file.
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
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
) -> Result<Described, Vec<ConfigError>> {
    checked_name(name, shown)?;
    file::read(path, shown, options.trust)
        .and_then(|text| check::server(Origin { name, source: path, settings, options }, shown, &text))
}

fn checked_name(name: &str, shown: &Path) -> Result<(), Vec<ConfigError>> {
    if is_name(name) {
        return Ok(());
    }
    let error = ConfigError::of_file(shown, format!("`{name}` is not a server name"));
    Err(vec![
        error.with_hint(
            "a name is 1 to 64 characters of `a-z`, `0-9`, `_` and `-` and does not begin with `-`",
        ),
    ])
}

/// Reads a configuration again from what its files said, as it is in force, whatever they say by now.
///
/// # Errors
/// If this version does not accept it.
pub(crate) fn restore<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a Path, &'a str)>,
    options: &LoadOptions,
) -> Result<Config, Vec<ConfigError>> {
    let mut config = Config::default();
    let settings = Settings::default();
    for (name, source, text) in files {
        let origin = Origin { name, source, settings: &settings, options };
        let described = check::server(origin, &shown_from_source(source), text)?;
        config.servers.extend(described.servers.into_iter().map(|server| (server.name.clone(), server)));
        config.groups.extend(described.groups.into_iter().map(|group| (group.name.clone(), group)));
    }
    // They have been settled before, and who runs goes on: also one whose dependency has left meanwhile.
    let nodes = config.nodes();
    for (node, depends_on) in nodes.iter().zip(dependencies::in_force(&nodes)) {
        config.set_dependencies(&node.id, depends_on);
    }
    Ok(config)
}

/// Reads the text of a server's file or of the daemon's own; every mistake in it has a place and words.
#[cfg(feature = "testkit")]
pub(crate) fn read_text(text: &str, is_server: bool) {
    let options = LoadOptions::new(Some("/home/user".into()));
    let errors = if is_server {
        let source = Path::new("servers/web.ron");
        match restore([("web", source, text)], &options) {
            Ok(config) => return assert!(!config.servers.is_empty() || !config.groups.is_empty()),
            Err(errors) => errors,
        }
    } else {
        match check::settings(Path::new("xyd.ron"), text) {
            Ok(_) => return,
            Err(errors) => errors,
        }
    };
    assert!(!errors.is_empty());
    for error in errors {
        assert!(
            !error.to_string().is_empty() && error.line != Some(0) && error.column != Some(0),
            "{error:?}"
        );
    }
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
