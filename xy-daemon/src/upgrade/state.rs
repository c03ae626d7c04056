//! What one program hands over to the next: its format, written and read.
//!
//! ```text
//! xyd-handoff 1\n | length of the JSON, 8 bytes, little-endian | JSON | the state of the logs, in a format of its own
//! ```
//! A field that is added has a default, and one that this version does not know is passed over, so that neighboring
//! versions understand each other in both directions; whatever else changes takes a new number in the first line.
//! Descriptors keep their numbers. The configuration is that in force, as text, whatever the files say by now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xy_actors::log::{HubState, LogSettings, StateError};
use xy_actors::process::handover::HostState;
use xy_actors::supervisor::handover::TreeState;

use super::CheckError;
use crate::config::{self, Config, FileText, GroupConfig, LoadOptions, ServerConfig};
use crate::journal::JournalState;
use crate::permission::rules::PermissionSettings;

/// The first line.
const HEADER: &str = "xyd-handoff 1\n";

/// The longest first line that is looked for.
const LONGEST_HEADER: usize = 64;

/// Everything that a program needs to go on with the process of another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handoff {
    /// The version of who wrote it.
    pub(super) version: String,
    /// The path of the program.
    pub(crate) program: PathBuf,
    /// With which arguments it was started, as bytes, without those that concern the start.
    pub(super) arguments: Vec<Vec<u8>>,
    pub(crate) descriptors: Descriptors,
    pub(crate) host: HostState,
    pub(crate) tree: TreeState,
    #[serde(flatten)]
    pub(crate) configuration: ConfigurationState,
    /// Where HTTP is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<SocketAddr>,
    pub(crate) shutdown_timeout: Duration,
    /// The configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle_shutdown: Option<Duration>,
    /// How often the token of HTTP is replaced; an earlier program does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_token: Option<Duration>,
    /// Which events are kept, and what they are named after; a program that kept none does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) journal: Option<JournalState>,
    /// The number of the last event that is in the history; an earlier program does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) noted: Option<u64>,
    /// Who may ask for what.
    #[serde(default, skip_serializing_if = "PermissionSettings::is_default")]
    pub(crate) permissions: PermissionSettings,
    #[serde(skip)]
    pub(crate) logs: HubState,
}

/// The numbers of the descriptors that stay open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptors {
    pub(crate) instance: RawFd,
    pub(crate) socket_lock: RawFd,
    pub(crate) listener: RawFd,
    /// A service manager has bound the socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_listener_inherited: bool,
    /// The socket of HTTP, if a service manager has bound that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<RawFd>,
    pub(super) old_program: RawFd,
    /// The output of the servers, and the memory with their recent lines, in the order of the logs.
    pub(crate) pipes: Vec<RawFd>,
    pub(super) all: Vec<RawFd>,
}

/// What one server was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ServerState {
    name: String,
    origin: String,
    source: PathBuf,
    text: FileText,
    log: LogState,
}

/// Its log settings, which may come from the daemon's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LogState {
    max_size: u64,
    max_age: Option<Duration>,
    keep: u32,
    buffer: usize,
}

/// The file of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GroupState {
    origin: String,
    source: PathBuf,
    text: FileText,
}

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigurationState {
    servers: Vec<ServerState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupState>,
    /// The files that are not in use, and what is wrong with each.
    pub(crate) rejected: BTreeMap<String, String>,
    /// The servers that no file describes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) adhoc: Vec<String>,
}

impl ConfigurationState {
    pub(crate) fn of(config: &Config, rejected: BTreeMap<String, String>, adhoc: Vec<String>) -> Self {
        let at_root = |group: &&GroupConfig| !group.name.contains('/');
        let group = |group: &GroupConfig| GroupState {
            origin: group.origin.clone(),
            source: group.source.clone(),
            text: group.text.clone(),
        };
        Self {
            servers: config.servers.values().map(ServerState::of).collect(),
            groups: config.groups.values().filter(at_root).map(group).collect(),
            rejected,
            adhoc,
        }
    }

    /// Returns it as it was read, with the log settings that were in force.
    fn restore(&self, options: &LoadOptions) -> Result<Config, CheckError> {
        let mut files: BTreeMap<&str, (&Path, &str)> = BTreeMap::new();
        for ServerState { origin, source, text, .. } in &self.servers {
            files.insert(origin, (source, text.as_str()));
        }
        for GroupState { origin, source, text } in &self.groups {
            files.insert(origin, (source, text.as_str()));
        }
        let files = files.into_iter().map(|(origin, (source, text))| (origin, source, text));
        let mut config = config::restore(files, options).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            CheckError::Tree(errors.join("\n"))
        })?;
        for ServerState { name, source, log, .. } in &self.servers {
            let LogState { max_size, max_age, keep, buffer } = *log;
            let server = config.servers.get_mut(name).ok_or_else(|| {
                CheckError::Tree(format!("{} does not describe `{name}`", source.display()))
            })?;
            server.log = LogSettings { max_size, max_age, keep, buffer };
        }
        let names: BTreeSet<&str> = self.servers.iter().map(|server| server.name.as_str()).collect();
        config.servers.retain(|name, _| names.contains(name.as_str()));
        Ok(config)
    }
}

impl ServerState {
    fn of(server: &ServerConfig) -> Self {
        let LogSettings { max_size, max_age, keep, buffer } = server.log;
        Self {
            name: server.name.clone(),
            origin: server.origin.clone(),
            source: server.source.clone(),
            text: server.text.clone(),
            log: LogState { max_size, max_age, keep, buffer },
        }
    }
}

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// Reading failed.
    #[error("the state cannot be read")]
    Io(#[source] io::Error),
    /// Another version wrote it.
    #[error("the state is `{found}`, and this program (xyd {}) understands `{}`", env!("CARGO_PKG_VERSION"), HEADER.trim_end())]
    Format {
        /// Its first line.
        found: String,
    },
    /// It is cut short or makes no sense.
    #[error("the state is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The logs make no sense.
    #[error("the state of the logs makes no sense")]
    Logs(#[from] StateError),
}

/// A state in memory that the next program reads.
#[derive(Debug)]
pub(super) struct Written {
    /// The number of its descriptor, which is among those that are kept.
    pub(super) number: RawFd,
    pub(super) kept: Vec<OwnedFd>,
}

impl Handoff {
    /// Writes it to a file without a name, which is one more descriptor to keep.
    pub(super) fn write(mut self, mut kept: Vec<OwnedFd>) -> io::Result<Written> {
        let mut file = unnamed_file()?;
        let number = file.as_raw_fd();
        self.descriptors.all.push(number);
        file.write_all(&self.encode()?)?;
        file.rewind()?;
        kept.push(file.into());
        Ok(Written { number, kept })
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = (json.len() as u64).to_le_bytes();
        Ok([HEADER.as_bytes(), &length, &json, &self.logs.encode()].concat())
    }

    /// Reads what another program has written.
    pub(super) fn read(mut file: File) -> Result<Self, HandoffError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(HandoffError::Io)?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, HandoffError> {
        let Some(rest) = bytes.strip_prefix(HEADER.as_bytes()) else {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let found = String::from_utf8_lossy(&line[..line.len().min(LONGEST_HEADER)]).into_owned();
            return Err(HandoffError::Format { found });
        };
        let cut = || HandoffError::Damaged("it ends early".into());
        let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let (json, logs) = rest.split_at_checked(length).ok_or_else(cut)?;
        let handoff: Self =
            serde_json::from_slice(json).map_err(|error| HandoffError::Damaged(error.into()))?;
        let logs = HubState::decode(logs)?;
        if logs.descriptors() != handoff.descriptors.pipes.len() {
            return Err(HandoffError::Damaged("its pipes are not those of the logs".into()));
        }
        Ok(Self { logs, ..handoff })
    }

    /// Returns the configuration in force.
    pub(crate) fn configuration(&self, options: &LoadOptions) -> Result<Config, CheckError> {
        let mut config = self.configuration.restore(options)?;
        config.settings.shutdown_timeout = self.shutdown_timeout;
        config.settings.idle_shutdown = self.idle_shutdown;
        config.settings.rotate_token = self.rotate_token.unwrap_or(config.settings.rotate_token);
        config.settings.events = self.journal.as_ref().map(JournalState::settings).unwrap_or_default();
        config.permissions = self.permissions.clone();
        Ok(config)
    }
}

/// Reads a state, and again what would be written of it. Of one without its first line, the parts stand before and behind the
/// first byte of all ones, so that its length need not be guessed.
#[cfg(feature = "testkit")]
pub(super) fn read_twice(bytes: &[u8]) {
    let decoded = match bytes.iter().position(|byte| *byte == 0xff) {
        Some(end) if !bytes.starts_with(HEADER.as_bytes()) => {
            let (json, logs) = (&bytes[..end], &bytes[end + 1..]);
            let length = (json.len() as u64).to_le_bytes();
            Handoff::decode(&[HEADER.as_bytes(), &length, json, logs].concat())
        }
        _ => Handoff::decode(bytes),
    };
    let Ok(once) = decoded else { return };
    let text = once.encode().expect("what was JSON is JSON");
    assert_eq!(Handoff::decode(&text).expect("what is written is understood"), once);
    if let Ok(config) = once.configuration(&LoadOptions::new(Some("/home/user".into()))) {
        // Whether it fits is for the check to say, without a panic.
        _ = once.tree.check(crate::daemon::root_spec(), crate::daemon::root_specs(&config));
    }
}

/// Makes a file that is in memory only.
#[cfg(target_os = "linux")]
fn unnamed_file() -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create(c"xyd-handoff", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Makes a file that has lost its name. Not run on this system.
#[cfg(not(target_os = "linux"))]
fn unnamed_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("xyd-handoff-{}", std::process::id()));
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use xy_actors::spec::SupervisorSpec;

    use super::*;

    /// A state as the first version wrote it: whoever comes later has to understand it.
    const FIRST: &str = include_str!("../../tests/upgrades/handoff-1.json");

    fn bytes(json: &str) -> Vec<u8> {
        let length = (json.len() as u64).to_le_bytes();
        [HEADER.as_bytes(), &length, json.as_bytes(), &HubState::default().encode()].concat()
    }

    fn options() -> LoadOptions {
        LoadOptions::new(Some("/home/user".into()))
    }

    #[test]
    fn what_the_first_version_wrote_is_understood_and_written_alike() {
        let handoff = Handoff::decode(&bytes(FIRST)).expect("understood");
        let config = handoff.configuration(&options()).expect("valid");
        assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["crasher", "steady"]);
        let specs = crate::daemon::root_specs(&config);
        handoff.tree.check(crate::daemon::root_spec(), specs).expect("it fits");
        assert_eq!(handoff.tree.markers().len(), 2);
        let again: Value = serde_json::to_value(&handoff).expect("JSON");
        assert_eq!(again, serde_json::from_str::<Value>(FIRST).expect("JSON"));
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let mut later: Value = serde_json::from_str(FIRST).expect("JSON");
        for place in ["", "/host", "/tree", "/tree/root/policy/children/0", "/descriptors", "/servers/0"] {
            let found = later.pointer_mut(place).and_then(Value::as_object_mut).expect(place);
            found.insert("of_a_later_version".to_owned(), json!(1));
        }
        assert_eq!(Handoff::decode(&bytes(&later.to_string())).ok(), Handoff::decode(&bytes(FIRST)).ok());
    }

    #[test]
    fn another_format_is_refused_by_name_and_a_damaged_one_never_panics() {
        let mut other = bytes(FIRST);
        other[HEADER.len() - 2] = b'2';
        let error = Handoff::decode(&other).expect_err("refused").to_string();
        assert!(
            error.contains("`xyd-handoff 2`") && error.contains("understands `xyd-handoff 1`"),
            "{error}"
        );
        assert!(matches!(Handoff::decode(b""), Err(HandoffError::Format { .. })));
        let whole = bytes(FIRST);
        for end in 0..whole.len() {
            assert!(Handoff::decode(&whole[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_server_that_this_version_would_not_accept_is_named() {
        let mut handoff = Handoff::decode(&bytes(FIRST)).expect("understood");
        handoff.configuration.servers[0].text =
            "Process(command: \"a\", option_of_a_later_version: 1)".into();
        let error = handoff.configuration(&options()).expect_err("refused").to_string();
        assert!(
            error.contains("servers/crasher.ron") && error.contains("option_of_a_later_version"),
            "{error}"
        );
        handoff.configuration.servers.remove(0);
        let specs = crate::daemon::root_specs(&handoff.configuration(&options()).expect("valid"));
        let error = handoff.tree.check(SupervisorSpec::default(), specs).expect_err("refused").to_string();
        assert_eq!(error, "there is no spec for child `crasher`");
    }

    #[test]
    fn a_file_without_a_name_holds_it() {
        let handoff = Handoff::decode(&bytes(FIRST)).expect("understood");
        let written = handoff.clone().write(Vec::new()).expect("written");
        assert_eq!(written.kept.len(), 1);
        let mut expected = handoff;
        expected.descriptors.all.push(written.number);
        let file = File::from(written.kept.into_iter().next().expect("one"));
        assert_eq!(Handoff::read(file).expect("understood"), expected);
    }
}
