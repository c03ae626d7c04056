//! Why a program could not be started, told apart where the kernel gives one number for several reasons.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::super::settings::{EnvFileError, IdentityError, SecretError, SecretSource};
use super::super::sys::{REGAINABLE, SET_GID, SET_GROUPS, SET_UID, SpawnFailure, SpawnStep};
use super::PreparedCommand;

/// What kept a process from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// The spec itself cannot be run: an empty command, a bad variable name, a NUL byte.
    InvalidSpec,
    /// The program does not exist, or is in no directory of `PATH`.
    ProgramMissing,
    /// The working directory does not exist.
    WorkingDirMissing,
    /// The working directory is something else.
    NotADirectory,
    /// The working directory may not be entered.
    WorkingDirInaccessible,
    /// The program is a script whose interpreter does not exist.
    InterpreterMissing,
    /// The program is a binary whose dynamic loader does not exist.
    LoaderMissing,
    /// The program, or its interpreter, may not be executed.
    NotExecutable,
    /// The program is a directory.
    IsADirectory,
    /// A directory on the way to the program may not be entered, or is none.
    PathInaccessible,
    /// The file is no program the kernel knows.
    UnknownFormat,
    /// The program is being written (`ETXTBSY`); tried several times.
    TextBusy,
    /// Arguments and environment are too large together.
    ArgumentsTooLong,
    /// This process has too many open files (`EMFILE`).
    TooManyOpenFiles,
    /// The machine has too many open files (`ENFILE`).
    TooManyOpenFilesInSystem,
    /// A limit on the number of processes is reached (`EAGAIN`).
    TooManyProcesses,
    /// There is not enough memory (`ENOMEM`).
    OutOfMemory,
    /// The user or group does not exist, or cannot be looked up.
    UnknownIdentity,
    /// Only root can run a process as that user.
    NotPrivileged,
    /// An environment file is missing, malformed, or not to be trusted.
    EnvironmentFile,
    /// A secret cannot be had.
    SecretUnavailable,
    /// The file for its standard input cannot be opened.
    InputUnavailable,
    /// A limit, a priority or the change of user is not permitted.
    SettingRefused,
    /// Anything else the system refused.
    System,
}

impl SpawnErrorKind {
    /// Returns the stable name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "invalid_spec",
            Self::ProgramMissing => "program_missing",
            Self::WorkingDirMissing => "working_dir_missing",
            Self::NotADirectory => "not_a_directory",
            Self::WorkingDirInaccessible => "working_dir_inaccessible",
            Self::InterpreterMissing => "interpreter_missing",
            Self::LoaderMissing => "loader_missing",
            Self::NotExecutable => "not_executable",
            Self::IsADirectory => "is_a_directory",
            Self::PathInaccessible => "path_inaccessible",
            Self::UnknownFormat => "unknown_format",
            Self::TextBusy => "text_busy",
            Self::ArgumentsTooLong => "arguments_too_long",
            Self::TooManyOpenFiles => "too_many_open_files",
            Self::TooManyOpenFilesInSystem => "too_many_open_files_in_system",
            Self::TooManyProcesses => "too_many_processes",
            Self::OutOfMemory => "out_of_memory",
            Self::UnknownIdentity => "unknown_identity",
            Self::NotPrivileged => "not_privileged",
            Self::EnvironmentFile => "environment_file",
            Self::SecretUnavailable => "secret_unavailable",
            Self::InputUnavailable => "input_unavailable",
            Self::SettingRefused => "setting_refused",
            Self::System => "system",
        }
    }
}

/// Why a process could not be started; none is left of the attempt.
///
/// The text says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct SpawnError {
    kind: SpawnErrorKind,
    path: Option<PathBuf>,
    message: String,
    /// Whether the message leaves it to the source to say why.
    is_vague: bool,
    #[source]
    source: Option<io::Error>,
}

impl SpawnError {
    /// Returns what kind of failure it is.
    pub fn kind(&self) -> SpawnErrorKind {
        self.kind
    }

    /// Returns the file or directory at fault, if one is.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns whether the machine or the process lacked a resource, so that the spec is not to blame and a later try
    /// may succeed.
    pub fn is_resource_shortage(&self) -> bool {
        matches!(
            self.kind,
            SpawnErrorKind::TooManyOpenFiles
                | SpawnErrorKind::TooManyOpenFilesInSystem
                | SpawnErrorKind::TooManyProcesses
                | SpawnErrorKind::OutOfMemory
        )
    }

    /// Returns what happened in one line, with the system's words where ours leave it to them.
    pub(in super::super) fn told(&self) -> String {
        match &self.source {
            Some(source) if self.is_vague => format!("{}: {source}", self.message),
            _ => self.message.clone(),
        }
    }

    fn new(kind: SpawnErrorKind, path: Option<PathBuf>, message: String, errno: i32) -> Self {
        let source = Some(io::Error::from_raw_os_error(errno));
        Self { kind, path, message, is_vague: kind == SpawnErrorKind::System, source }
    }

    /// The text says it all.
    fn plain(kind: SpawnErrorKind, path: Option<PathBuf>, message: String) -> Self {
        Self { kind, path, message, is_vague: false, source: None }
    }

    /// Something that a start needs, and that lies elsewhere, was not to be had. The spec is not to blame if that was for
    /// want of a resource.
    fn unanswered(
        kind: SpawnErrorKind,
        path: Option<PathBuf>,
        message: String,
        source: Option<io::Error>,
    ) -> Self {
        let wanting = source.as_ref().and_then(io::Error::raw_os_error).and_then(want);
        let kind = wanting.map_or(kind, |(wanting, _)| wanting);
        Self { kind, path, message, is_vague: true, source }
    }

    pub(in super::super) fn invalid(message: String) -> Self {
        Self::plain(SpawnErrorKind::InvalidSpec, None, message)
    }

    /// The user database or our own user forbids it.
    pub(super) fn identity(error: IdentityError) -> Self {
        let kind = match &error {
            IdentityError::NotPrivileged { .. } => SpawnErrorKind::NotPrivileged,
            _ => SpawnErrorKind::UnknownIdentity,
        };
        let message = error.to_string();
        let source = match error {
            IdentityError::Lookup { source, .. } => Some(source),
            _ => None,
        };
        Self::unanswered(kind, None, message, source)
    }

    pub(super) fn env_file(error: EnvFileError) -> Self {
        let kind = SpawnErrorKind::EnvironmentFile;
        let message = error.to_string();
        match error {
            EnvFileError::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => {
                let message = format!(
                    "environment file `{}` does not exist: create it, or put `-` before its name if it may be missing",
                    path.display()
                );
                Self { kind, path: Some(path), message, is_vague: false, source: Some(source) }
            }
            EnvFileError::Unreadable { path, source } => {
                Self::unanswered(kind, Some(path), message, Some(source))
            }
            EnvFileError::NotText { path, .. }
            | EnvFileError::Distrusted { path, .. }
            | EnvFileError::Malformed { path, .. } => Self::plain(kind, Some(path), message),
        }
    }

    /// Names the variable and the source, never what was found there.
    pub(super) fn secret(key: &str, from: &SecretSource, error: SecretError) -> Self {
        let message = format!("secret `{key}` cannot be had from {from}: {error}");
        let path = match from {
            SecretSource::File(path) => Some(path.clone()),
            _ => None,
        };
        let source = match error {
            SecretError::Unreadable(source) => Some(source),
            _ => None,
        };
        Self::unanswered(SpawnErrorKind::SecretUnavailable, path, message, source)
    }

    /// The command that tells a secret did not start.
    pub(super) fn secret_command(key: &str, from: &SecretSource, error: &Self) -> Self {
        let kind = if error.is_resource_shortage() { error.kind } else { SpawnErrorKind::SecretUnavailable };
        let problem = SecretError::Command(format!("cannot be started: {}", error.told()));
        Self { kind, ..Self::secret(key, from, problem) }
    }

    pub(super) fn input(path: PathBuf, error: io::Error) -> Self {
        let shown = path.display();
        let (message, is_vague) = match error.kind() {
            io::ErrorKind::NotFound => {
                (format!("standard input `{shown}` does not exist: create it or correct `stdin`"), false)
            }
            io::ErrorKind::IsADirectory => {
                (format!("standard input `{shown}` is a directory: correct `stdin`"), false)
            }
            _ => (format!("standard input `{shown}` cannot be opened"), true),
        };
        let kind = SpawnErrorKind::InputUnavailable;
        Self { is_vague, ..Self::unanswered(kind, Some(path), message, Some(error)) }
    }

    pub(in super::super) fn no_randomness(error: &getrandom::Error) -> Self {
        let message = format!("the system has no random numbers for the process's marker: {error}");
        Self::plain(SpawnErrorKind::System, None, message)
    }

    pub(in super::super) fn host_gone() -> Self {
        let message = "the thread that spawns processes has ended: restart the program".to_owned();
        Self::plain(SpawnErrorKind::System, None, message)
    }

    /// The process started but its end could not be watched, so it was killed again.
    pub(in super::super) fn unwatchable(program: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        shortage(program, errno).unwrap_or_else(|| {
            let message = format!("program `{program}` was ended again because its exit cannot be watched");
            Self::new(SpawnErrorKind::System, None, message, errno)
        })
    }
}

/// Finds out what a failed spawn failed of.
pub(in super::super) fn diagnose(command: &PreparedCommand, failure: SpawnFailure) -> SpawnError {
    let program = &command.program;
    if let Some(error) = shortage(program, failure.errno) {
        return error;
    }
    match failure.step {
        SpawnStep::Dir => working_dir(command, failure.errno),
        SpawnStep::Exec => exec(command, failure),
        SpawnStep::Limit
        | SpawnStep::Nice
        | SpawnStep::OomScore
        | SpawnStep::Credentials
        | SpawnStep::NoNewPrivs => refused(command, failure),
        step => {
            let what = match step {
                SpawnStep::Descriptors => "its output pipes cannot be made",
                SpawnStep::Clone | SpawnStep::ControlGroup => "the system refused to create a process",
                SpawnStep::Session => "it cannot get a session of its own",
                SpawnStep::ParentDeathSignal => "it cannot be tied to the life of this process",
                _ => "its standard input and output cannot be set up",
            };
            let message = format!("program `{program}` was not started: {what}");
            SpawnError::new(SpawnErrorKind::System, None, message, failure.errno)
        }
    }
}

fn shortage(program: &str, errno: i32) -> Option<SpawnError> {
    let (kind, message) = want(errno)?;
    Some(SpawnError::new(kind, None, format!("program `{program}` was not started: {message}"), errno))
}

/// Says which resource is wanting, and what to do about it.
fn want(errno: i32) -> Option<(SpawnErrorKind, &'static str)> {
    Some(match errno {
        libc::EMFILE => (
            SpawnErrorKind::TooManyOpenFiles,
            "this process has too many open files: raise its limit (`ulimit -n`, `LimitNOFILE=`)",
        ),
        libc::ENFILE => (
            SpawnErrorKind::TooManyOpenFilesInSystem,
            "the machine has too many open files: close some, or raise `fs.file-max`",
        ),
        libc::EAGAIN => (
            SpawnErrorKind::TooManyProcesses,
            "the limit on processes is reached: end some, or raise it (`ulimit -u`, `TasksMax=`)",
        ),
        libc::ENOMEM => {
            (SpawnErrorKind::OutOfMemory, "there is not enough memory: end something, or add some")
        }
        _ => return None,
    })
}

/// A setting that the system does not grant.
fn refused(command: &PreparedCommand, failure: SpawnFailure) -> SpawnError {
    let program = &command.program;
    let what = match failure.step {
        SpawnStep::Limit => match command.limits.get(failure.candidate) {
            Some(limit) => {
                format!("the limit {limit} is not permitted: stay below the hard limit, or run as root")
            }
            None => "a limit is not permitted".to_owned(),
        },
        SpawnStep::Nice => format!(
            "the niceness {} is not permitted: raise it, or run as root",
            command.settings.nice.unwrap_or_default()
        ),
        SpawnStep::OomScore => format!(
            "the value {} of oom_score_adj is not permitted: raise it, or run as root",
            command.settings.oom_score.as_ref().map_or("", |score| &score.text)
        ),
        SpawnStep::NoNewPrivs => "the system cannot forbid new privileges: remove `no_new_privs`".to_owned(),
        _ => {
            let who = who(command);
            match failure.candidate {
                SET_GROUPS => format!("the supplementary groups of {who} cannot be set"),
                SET_GID => format!("the group of {who} cannot be set"),
                SET_UID => format!("the user cannot be changed to {who}"),
                REGAINABLE => format!("the change to {who} could be undone by the program"),
                _ => format!("the change to {who} failed"),
            }
        }
    };
    let message = format!("program `{program}` was not started: {what}");
    SpawnError::new(SpawnErrorKind::SettingRefused, None, message, failure.errno)
}

fn who(command: &PreparedCommand) -> String {
    match &command.identity {
        Some(identity) => {
            let name = identity.name.clone().unwrap_or_else(|| identity.uid.to_string());
            format!("user `{name}`")
        }
        None => "this user".to_owned(),
    }
}

fn working_dir(command: &PreparedCommand, errno: i32) -> SpawnError {
    let dir = command.dir().unwrap_or(Path::new("."));
    let shown = dir.display();
    let (kind, message) = match errno {
        libc::ENOENT => (
            SpawnErrorKind::WorkingDirMissing,
            format!("working directory `{shown}` does not exist: create it or correct `working_dir`"),
        ),
        libc::ENOTDIR => (
            SpawnErrorKind::NotADirectory,
            format!("working directory `{shown}` is not a directory: correct `working_dir`"),
        ),
        libc::EACCES => (
            SpawnErrorKind::WorkingDirInaccessible,
            format!(
                "working directory `{shown}` may not be entered by {}: permit it or correct `working_dir`",
                who(command)
            ),
        ),
        _ => (SpawnErrorKind::System, format!("working directory `{shown}` cannot be entered")),
    };
    SpawnError::new(kind, Some(dir.to_owned()), message, errno)
}

fn exec(command: &PreparedCommand, failure: SpawnFailure) -> SpawnError {
    let program = &command.program;
    let errno = failure.errno;
    let blamed = command.candidate(failure.candidate).unwrap_or_else(|| PathBuf::from(program));
    let shown = blamed.display();
    let (kind, path, message) = match errno {
        libc::ENOENT | libc::ENOTDIR => return missing(command, blamed, errno),
        // What we may do ourselves says nothing about another user.
        libc::EACCES if command.settings.credentials.is_some() && blamed.is_file() => (
            SpawnErrorKind::NotExecutable,
            blamed.clone(),
            format!(
                "program `{shown}` may not be executed by {}: permit it, its interpreter, and each directory on \
                 the way",
                who(command)
            ),
        ),
        libc::EACCES => return denied(blamed, errno),
        libc::ENOEXEC => (
            SpawnErrorKind::UnknownFormat,
            blamed.clone(),
            format!(
                "program `{shown}` is no program this system knows: a script needs a first line like `#!/bin/sh`, \
                 a binary must be built for this machine"
            ),
        ),
        libc::ETXTBSY => (
            SpawnErrorKind::TextBusy,
            blamed.clone(),
            format!("program `{shown}` is open for writing: wait until whatever writes it is done"),
        ),
        libc::E2BIG => (
            SpawnErrorKind::ArgumentsTooLong,
            blamed.clone(),
            format!("arguments and environment of program `{shown}` are too long: shorten `args` or `env`"),
        ),
        _ => (SpawnErrorKind::System, blamed.clone(), format!("program `{shown}` cannot be executed")),
    };
    SpawnError::new(kind, Some(path), message, errno)
}

/// `ENOENT` is the program, its interpreter or its loader; `ENOTDIR` a file where a directory should be.
fn missing(command: &PreparedCommand, blamed: PathBuf, errno: i32) -> SpawnError {
    // The search goes on after a script without its interpreter, so the first file that is there is the one at fault.
    let present = (0..command.candidates.len())
        .filter_map(|index| command.candidate(index))
        .find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = present {
        return incomplete(path, errno);
    }
    if let Some(searched) = &command.searched {
        let dirs: Vec<_> = searched.iter().map(|dir| format!("`{}`", dir.display())).collect();
        let advice = if command.program.trim().contains(char::is_whitespace) {
            "arguments go into `args`, as no shell splits the command"
        } else {
            "install it, or give its full path as `command`"
        };
        let dirs = dirs.join(", ");
        let message = format!("program `{}` is in no directory of PATH ({dirs}): {advice}", command.program);
        let message = match &command.login_failure {
            Some(error) => format!("{message}; this PATH is the inherited one, because {}", error.told()),
            None => message,
        };
        return SpawnError::new(
            SpawnErrorKind::ProgramMissing,
            Some(PathBuf::from(&command.program)),
            message,
            errno,
        );
    }
    let obstacle = blamed.ancestors().skip(1).find(|path| path.metadata().is_ok_and(|found| !found.is_dir()));
    if let Some(obstacle) = obstacle {
        let message = format!(
            "program `{}` cannot be reached: `{}` is not a directory: correct `command`",
            blamed.display(),
            obstacle.display()
        );
        return SpawnError::new(SpawnErrorKind::PathInaccessible, Some(obstacle.to_owned()), message, errno);
    }
    let message = format!("program `{}` does not exist: install it or correct `command`", blamed.display());
    SpawnError::new(SpawnErrorKind::ProgramMissing, Some(blamed), message, errno)
}

/// The program is there, yet something that it needs to start is not.
fn incomplete(path: PathBuf, errno: i32) -> SpawnError {
    let shown = path.display();
    if path.metadata().is_err() {
        let message = format!("program `{shown}` is a link to nothing: repair the link or correct `command`");
        return SpawnError::new(SpawnErrorKind::ProgramMissing, Some(path), message, errno);
    }
    match needed(&path) {
        Ok(Some(Needs::Interpreter(interpreter))) => {
            let hint = if interpreter.as_os_str().as_bytes().ends_with(b"\r") {
                "end its first line with a newline alone"
            } else {
                "install it or correct the script's first line"
            };
            let message = format!(
                "interpreter `{}` of script `{shown}` does not exist: {hint}",
                interpreter.display().to_string().escape_debug()
            );
            SpawnError::new(SpawnErrorKind::InterpreterMissing, Some(interpreter), message, errno)
        }
        Ok(Some(Needs::Loader(loader))) => {
            let message = format!(
                "loader `{}` of program `{shown}` does not exist: it was built for another system; install one \
                 built for this",
                loader.display()
            );
            SpawnError::new(SpawnErrorKind::LoaderMissing, Some(loader), message, errno)
        }
        Ok(None) | Err(_) => {
            let message = format!("program `{shown}` cannot be executed: something it needs does not exist");
            SpawnError::new(SpawnErrorKind::System, Some(path), message, errno)
        }
    }
}

/// `EACCES` is a directory, a missing permission of the program or its interpreter, or of a directory on the way.
fn denied(path: PathBuf, errno: i32) -> SpawnError {
    let shown = path.display();
    match path.metadata() {
        Err(_) => {
            let blocked = blocked_dir(&path).unwrap_or_else(|| path.clone());
            let message = format!(
                "program `{shown}` cannot be reached: directory `{}` may not be entered: permit it or correct \
                 `command`",
                blocked.display()
            );
            SpawnError::new(SpawnErrorKind::PathInaccessible, Some(blocked), message, errno)
        }
        Ok(found) if found.is_dir() => {
            let message =
                format!("program `{shown}` is a directory: name the program inside it as `command`");
            SpawnError::new(SpawnErrorKind::IsADirectory, Some(path), message, errno)
        }
        Ok(found) if found.permissions().mode() & 0o111 != 0 => {
            // The program has permissions; then the interpreter may be the one without.
            if let Ok(Some(Needs::Interpreter(interpreter) | Needs::Loader(interpreter))) = needed(&path) {
                let message = format!(
                    "interpreter `{}` of program `{shown}` may not be executed: make it executable",
                    interpreter.display()
                );
                return SpawnError::new(SpawnErrorKind::NotExecutable, Some(interpreter), message, errno);
            }
            let message = format!(
                "program `{shown}` may not be executed by this user: permit it, or look for a `noexec` mount"
            );
            SpawnError::new(SpawnErrorKind::NotExecutable, Some(path), message, errno)
        }
        Ok(_) => {
            let message = format!("program `{shown}` is not executable: run `chmod +x` on it");
            SpawnError::new(SpawnErrorKind::NotExecutable, Some(path), message, errno)
        }
    }
}

/// Returns the first directory on the way whose entries cannot be looked up.
fn blocked_dir(path: &Path) -> Option<PathBuf> {
    let mut dir = PathBuf::new();
    for component in path.components() {
        let parent = dir.clone();
        dir.push(component);
        let denied =
            dir.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if denied && !matches!(component, Component::RootDir) {
            return Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent });
        }
    }
    None
}

/// A second program without which the first does not start.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    Interpreter(PathBuf),
    Loader(PathBuf),
}

/// Reads from the file itself what else it needs.
fn needed(path: &Path) -> io::Result<Option<Needs>> {
    // A FIFO of that name would make the open wait.
    if !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    // The kernel reads 256 bytes, too.
    file.by_ref().take(256).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        return Ok(words
            .next()
            .map(|word| Needs::Interpreter(PathBuf::from(std::ffi::OsStr::from_bytes(word)))));
    }
    if head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(elf_loader(&mut file, &head)?.map(Needs::Loader));
    }
    Ok(None)
}

/// Finds the `PT_INTERP` segment of a 64-bit little-endian ELF file.
fn elf_loader(file: &mut File, head: &[u8]) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    const PROGRAM_HEADER_SIZE: usize = 56;
    let (Some(table), Some(count)) = (u64_at(head, 32), u16_at(head, 56)) else { return Ok(None) };
    file.seek(SeekFrom::Start(table))?;
    for _ in 0..count.min(128) {
        let mut header = [0; PROGRAM_HEADER_SIZE];
        file.read_exact(&mut header)?;
        if header[..4] != PT_INTERP.to_le_bytes() {
            continue;
        }
        let (Some(offset), Some(size)) = (u64_at(&header, 8), u64_at(&header, 32)) else { return Ok(None) };
        file.seek(SeekFrom::Start(offset))?;
        let mut loader = Vec::new();
        file.take(size.min(4096)).read_to_end(&mut loader)?;
        let loader = loader.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(PathBuf::from(std::ffi::OsStr::from_bytes(loader))));
    }
    Ok(None)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    #[test]
    fn a_file_that_cannot_be_opened_for_want_of_a_resource_is_no_fault_of_the_spec() {
        let path = || PathBuf::from("/f");
        let unreadable = |errno| EnvFileError::Unreadable { path: path(), source: system(errno) };
        let from = SecretSource::File(path());
        for (errno, is_shortage) in [(libc::EMFILE, true), (libc::ENOMEM, true), (libc::EACCES, false)] {
            let cause = system(errno).to_string();
            for error in [
                SpawnError::input(path(), system(errno)),
                SpawnError::env_file(unreadable(errno)),
                SpawnError::secret("KEY", &from, SecretError::Unreadable(system(errno))),
                SpawnError::identity(IdentityError::Lookup { name: "web".into(), source: system(errno) }),
            ] {
                assert_eq!(error.is_resource_shortage(), is_shortage, "{error}");
                assert!(error.told().ends_with(&cause), "{}", error.told());
                assert!(!error.to_string().contains(&cause), "the cause is told once: {error}");
            }
        }
        let command = SecretSource::Command(vec!["pass".into()]);
        let unstarted = SpawnError::new(SpawnErrorKind::TooManyProcesses, None, "no".into(), libc::EAGAIN);
        assert!(SpawnError::secret_command("KEY", &command, &unstarted).is_resource_shortage());
    }

    #[test]
    fn a_text_that_says_why_is_left_without_the_words_of_the_system() {
        for error in [
            SpawnError::input("/f".into(), system(libc::ENOENT)),
            SpawnError::env_file(EnvFileError::Unreadable {
                path: "/f".into(),
                source: system(libc::ENOENT),
            }),
            SpawnError::new(SpawnErrorKind::ProgramMissing, None, "it does not exist".into(), libc::ENOENT),
        ] {
            assert_eq!(error.told(), error.to_string());
            assert!(std::error::Error::source(&error).is_some());
        }
        let error = SpawnError::new(SpawnErrorKind::System, None, "it cannot be executed".into(), libc::EIO);
        assert_eq!(error.told(), format!("it cannot be executed: {}", system(libc::EIO)));
    }
}
