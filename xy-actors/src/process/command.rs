//! What a [`ProcessSpec`] means to the kernel: paths to try, arguments, environment and directory.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

mod diagnosis;

pub(super) use self::diagnosis::diagnose;
pub use self::diagnosis::{SpawnError, SpawnErrorKind};
use super::{ProcessSpec, Readiness};

/// The variable that carries the marker of a process tree.
pub(super) const MARKER_VARIABLE: &str = "XY_INSTANCE";

/// Where a program is looked for if the child has no `PATH`, as POSIX shells do.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A spec with everything resolved and allocated that a spawn needs.
///
/// Without `Debug`, so that no environment value reaches a log.
pub(super) struct PreparedCommand {
    /// The program as the spec names it.
    pub(super) program: String,
    /// The paths to try, in order. Relative ones start at `dir`.
    pub(super) candidates: Vec<CString>,
    /// The directories of `PATH` that were searched; `None` if the spec names a path.
    pub(super) searched: Option<Vec<PathBuf>>,
    /// The arguments, the program's name first.
    pub(super) arguments: Vec<CString>,
    /// The whole environment as `KEY=VALUE`.
    pub(super) environment: Vec<CString>,
    /// The directory to run in; `None` stays in ours.
    pub(super) dir: Option<CString>,
    /// What is in [`MARKER_VARIABLE`].
    pub(super) marker: String,
    /// The descriptor on which the child tells that it is ready.
    pub(super) notify_fd: Option<u16>,
    /// The variable that is to hold the child's pid, as `NAME=`.
    pub(super) pid_variable: Option<&'static CStr>,
}

impl PreparedCommand {
    /// Resolves a spec against the environment that the child inherits.
    pub(super) fn new(
        spec: &ProcessSpec,
        marker: String,
        inherited: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SpawnError> {
        let environment = environment(spec, &marker, inherited)?;
        let lookup =
            |key: &str| environment.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_os_str());
        let dir = spec.working_dir.as_deref().map(|dir| expand_home(dir, lookup("HOME")));
        let (candidates, searched) = candidates(&spec.command, lookup("PATH"), lookup("HOME"))?;
        let arguments = std::iter::once(&spec.command)
            .chain(&spec.args)
            .map(|argument| {
                CString::new(argument.as_bytes())
                    .map_err(|_| SpawnError::invalid(format!("argument {argument:?} contains a NUL byte")))
            })
            .collect::<Result<_, _>>()?;
        let environment = environment
            .iter()
            .map(|(key, value)| {
                let mut entry = key.as_bytes().to_vec();
                entry.push(b'=');
                entry.extend_from_slice(value.as_bytes());
                CString::new(entry).map_err(|_| {
                    SpawnError::invalid(format!("environment variable {key:?} contains a NUL byte"))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            program: spec.command.clone(),
            candidates,
            searched,
            arguments,
            environment,
            dir: dir.as_deref().map(path_string).transpose()?,
            marker,
            notify_fd: notify_fd(spec)?,
            pid_variable: spec.watchdog.map(|_| c"WATCHDOG_PID="),
        })
    }

    /// Returns where a candidate is, as seen from this process.
    pub(super) fn candidate(&self, index: usize) -> Option<PathBuf> {
        let path = Path::new(OsStr::from_bytes(self.candidates.get(index)?.as_bytes()));
        Some(match self.dir() {
            Some(dir) => dir.join(path),
            None => path.to_owned(),
        })
    }

    /// Returns the directory to run in.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(|dir| Path::new(OsStr::from_bytes(dir.as_bytes())))
    }
}

/// Returns 128 random bits as lower-case hexadecimal digits.
pub(super) fn random_marker() -> Result<String, SpawnError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| SpawnError::no_randomness(&error))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Returns whether an inherited variable belongs to this process and must not reach a child: sockets and keep-alives of
/// the service manager would be answered twice, and tokens are secrets.
fn is_ours(key: &OsStr) -> bool {
    let key = key.as_bytes();
    key == MARKER_VARIABLE.as_bytes()
        || key == b"NOTIFY_SOCKET"
        || [b"LISTEN_".as_slice(), b"WATCHDOG_", b"XY_TOKEN"].iter().any(|prefix| key.starts_with(prefix))
}

fn environment(
    spec: &ProcessSpec,
    marker: &str,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(OsString, OsString)>, SpawnError> {
    for (key, value) in &spec.env {
        let fault = if key.is_empty() {
            "is empty"
        } else if key.contains('=') {
            "contains `=`"
        } else if key.contains('\0') || value.contains('\0') {
            "contains a NUL byte"
        } else if key == MARKER_VARIABLE {
            "is set by the process host itself"
        } else {
            continue;
        };
        return Err(SpawnError::invalid(format!(
            "environment variable {key:?} {fault}: rename or remove it"
        )));
    }
    let mut environment: Vec<_> = inherited
        .filter(|(key, _)| !is_ours(key) && key.to_str().is_none_or(|key| !spec.env.contains_key(key)))
        .collect();
    let is_replaced = |key: &str| spec.watchdog.is_some() && key.starts_with("WATCHDOG_");
    let own = spec.env.iter().filter(|(key, _)| !is_replaced(key));
    environment.extend(own.map(|(key, value)| (key.into(), value.into())));
    if let Some(period) = spec.watchdog {
        environment.push(("WATCHDOG_USEC".into(), period.as_micros().to_string().into()));
    }
    environment.push((MARKER_VARIABLE.into(), marker.into()));
    Ok(environment)
}

/// Returns the declared descriptor; 0, 1 and 2 have their own meaning.
fn notify_fd(spec: &ProcessSpec) -> Result<Option<u16>, SpawnError> {
    match spec.ready {
        Some(Readiness::Notify { fd: Some(fd @ 0..3) }) => Err(SpawnError::invalid(format!(
            "descriptor {fd} cannot tell readiness: declare one of 3 or higher"
        ))),
        Some(Readiness::Notify { fd }) => Ok(fd),
        _ => Ok(None),
    }
}

type Candidates = (Vec<CString>, Option<Vec<PathBuf>>);

fn candidates(command: &str, path: Option<&OsStr>, home: Option<&OsStr>) -> Result<Candidates, SpawnError> {
    if command.is_empty() {
        return Err(SpawnError::invalid("`command` is empty: name the program to run".to_owned()));
    }
    if command.contains('/') {
        return Ok((vec![path_string(&expand_home(Path::new(command), home))?], None));
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let dirs: Vec<PathBuf> = path
        .as_bytes()
        .split(|byte| *byte == b':')
        // An empty entry means the current directory, which is the child's.
        .map(|dir| {
            PathBuf::from(OsString::from_vec(if dir.is_empty() { b".".to_vec() } else { dir.to_vec() }))
        })
        .collect();
    let candidates = dirs.iter().map(|dir| path_string(&dir.join(command))).collect::<Result<_, _>>()?;
    Ok((candidates, Some(dirs)))
}

/// Replaces a leading `~` by the home directory, if there is one.
fn expand_home(path: &Path, home: Option<&OsStr>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        // Joining an empty rest would add a slash at the end.
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home.into(),
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        _ => path.to_owned(),
    }
}

fn path_string(path: &Path) -> Result<CString, SpawnError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| SpawnError::invalid(format!("path {path:?} contains a NUL byte")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(spec: &ProcessSpec, inherited: &[(&str, &str)]) -> Result<PreparedCommand, SpawnError> {
        let inherited = inherited.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        PreparedCommand::new(spec, "m".to_owned(), inherited)
    }

    fn strings(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|string| string.to_str().expect("the tests use UTF-8")).collect()
    }

    #[test]
    fn a_name_is_looked_up_in_the_path_of_the_child() {
        let mut spec = ProcessSpec::new("tool");
        spec.env.insert("PATH".to_owned(), "/a::b".to_owned());
        let command = prepare(&spec, &[("PATH", "/inherited")]).expect("valid");
        assert_eq!(strings(&command.candidates), ["/a/tool", "./tool", "b/tool"]);
        let command = prepare(&ProcessSpec::new("tool"), &[]).expect("valid");
        assert_eq!(strings(&command.candidates), ["/usr/local/bin/tool", "/usr/bin/tool", "/bin/tool"]);
    }

    #[test]
    fn a_tilde_is_the_home_of_the_child() {
        let mut spec = ProcessSpec::new("~/bin/tool");
        spec.working_dir = Some("~".into());
        let command = prepare(&spec, &[("HOME", "/home/u")]).expect("valid");
        assert_eq!(strings(&command.candidates), ["/home/u/bin/tool"]);
        assert_eq!(command.dir(), Some(Path::new("/home/u")));
    }

    #[test]
    fn a_relative_path_starts_at_the_working_directory() {
        let mut spec = ProcessSpec::new("./tool");
        spec.working_dir = Some("/srv".into());
        let command = prepare(&spec, &[]).expect("valid");
        assert_eq!(command.candidate(0), Some(PathBuf::from("/srv/./tool")));
    }

    #[test]
    fn what_belongs_to_the_host_is_not_inherited() {
        let inherited = [
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", "1"),
            ("NOTIFY_SOCKET", "/n"),
            ("WATCHDOG_USEC", "1"),
            ("XY_TOKEN", "secret"),
            ("XY_TOKEN_FILE", "/t"),
            ("XY_INSTANCE", "outer"),
            ("XY_SOCKET", "/s"),
            ("LANG", "C"),
            ("REPLACED", "old"),
        ];
        let mut spec = ProcessSpec::new("tool");
        spec.env.insert("REPLACED".to_owned(), "new".to_owned());
        let command = prepare(&spec, &inherited).expect("valid");
        assert_eq!(
            strings(&command.environment),
            ["XY_SOCKET=/s", "LANG=C", "REPLACED=new", "XY_INSTANCE=m"]
        );
    }

    #[test]
    fn a_watchdog_brings_its_own_variables() {
        let mut spec = ProcessSpec::new("tool");
        spec.env.insert("WATCHDOG_USEC".to_owned(), "1".to_owned());
        spec.watchdog = Some(std::time::Duration::from_millis(1500));
        let command = prepare(&spec, &[("WATCHDOG_PID", "1")]).expect("valid");
        assert_eq!(strings(&command.environment), ["WATCHDOG_USEC=1500000", "XY_INSTANCE=m"]);
        assert_eq!(command.pid_variable, Some(c"WATCHDOG_PID="));
    }

    #[test]
    fn eight_bad_variables_are_rejected_by_name() {
        let bad = [
            ("", "v"),
            ("=", "v"),
            ("A=B", "v"),
            ("A=", "v"),
            ("A\0B", "v"),
            ("\0", "v"),
            ("A", "v\0w"),
            ("XY_INSTANCE", "v"),
        ];
        for (key, value) in bad {
            let mut spec = ProcessSpec::new("tool");
            spec.env.insert(key.to_owned(), value.to_owned());
            let error = prepare(&spec, &[]).err().expect("rejected");
            assert_eq!(error.kind(), SpawnErrorKind::InvalidSpec);
            assert!(error.to_string().contains(&format!("{key:?}")), "{error}");
        }
    }

    #[test]
    fn a_nul_byte_is_rejected_wherever_it_is() {
        let mut with_argument = ProcessSpec::new("tool");
        with_argument.args.push("a\0b".to_owned());
        let mut with_dir = ProcessSpec::new("tool");
        with_dir.working_dir = Some("/a\0b".into());
        for spec in [with_argument, with_dir, ProcessSpec::new("a\0b"), ProcessSpec::new("")] {
            assert_eq!(
                prepare(&spec, &[]).err().map(|error| error.kind()),
                Some(SpawnErrorKind::InvalidSpec)
            );
        }
    }

    #[test]
    fn markers_are_128_random_bits() {
        let (one, two) = (random_marker().expect("random"), random_marker().expect("random"));
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
    }
}
