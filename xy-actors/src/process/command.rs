//! What a [`ProcessSpec`] means to the kernel: paths to try, arguments, environment and directory.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::unistd::{Gid, Uid};

mod diagnosis;
mod login;
mod secrets;
mod stdin;

pub(super) use self::diagnosis::diagnose;
pub use self::diagnosis::{SpawnError, SpawnErrorKind};
pub use self::login::{LoginPathError, known_login_path, login_path};
pub(super) use self::secrets::{Secrets, resolve};
use super::settings::{Identity, ProcessSettings, ResourceLimit, SearchPath, Stdin, original_limits};
use super::sys::{ChildSettings, Credentials, OomScore};
use super::{ProcessHost, ProcessSpec, Readiness};

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
    /// Why that is not the `PATH` of the login shell, which it was meant to be.
    pub(super) login_failure: Option<Arc<LoginPathError>>,
    /// The arguments, the program's name first.
    pub(super) arguments: Vec<CString>,
    /// The whole environment as `KEY=VALUE`.
    pub(super) environment: Vec<CString>,
    /// The directory to run in; `None` stays in ours.
    pub(super) dir: Option<CString>,
    /// What is in [`MARKER_VARIABLE`].
    pub(super) marker: String,
    /// What the child changes about itself.
    pub(super) settings: ChildSettings,
    /// The limits in force, as the spec has them, in the order of those in `settings`.
    pub(super) limits: Vec<ResourceLimit>,
    /// Who it runs as, if that is named.
    pub(super) identity: Option<Identity>,
    /// What it reads; `None` is `/dev/null`.
    pub(super) stdin: Option<OwnedFd>,
    /// The descriptor on which the child tells that it is ready.
    pub(super) notify_fd: Option<u16>,
    /// The variable that is to hold the child's pid, as `NAME=`.
    pub(super) pid_variable: Option<&'static CStr>,
}

/// What a spec names and the machine has to be asked for.
#[derive(Default)]
pub(super) struct Found {
    identity: Option<Identity>,
    /// From environment files.
    variables: BTreeMap<String, String>,
    /// The `PATH` of the login shell.
    login_path: Option<Result<OsString, Arc<LoginPathError>>>,
    stdin: Option<OwnedFd>,
    secrets: Secrets,
}

/// Asks users, files and the login shell for what a spec names, away from the threads that must not wait.
pub(super) async fn find(
    host: &ProcessHost,
    spec: &ProcessSpec,
    secrets: Secrets,
) -> Result<Found, SpawnError> {
    let settings = &spec.settings;
    let asks_somebody = settings.user.is_some()
        || settings.group.is_some()
        || settings.path == SearchPath::Login
        || !settings.env_files.is_empty()
        || settings.stdin != Stdin::Null;
    if !asks_somebody {
        return Ok(Found { secrets, ..Found::default() });
    }
    let (settings, dir) = (settings.clone(), spec.working_dir.clone());
    let found = tokio::task::spawn_blocking(move || Found::look_up(&settings, dir.as_deref()));
    let mut found = found.await.map_err(|_| SpawnError::host_gone())??;
    found.secrets = secrets;
    if spec.settings.path == SearchPath::Login {
        found.login_path = Some(login_path(host, &spec.settings).await);
    }
    Ok(found)
}

/// Resolves a spec with what was found.
pub(super) fn prepare(
    spec: &ProcessSpec,
    found: Found,
    marker: String,
) -> Result<PreparedCommand, SpawnError> {
    PreparedCommand::new(spec, found, marker, std::env::vars_os())
}

impl Found {
    fn look_up(settings: &ProcessSettings, dir: Option<&Path>) -> Result<Self, SpawnError> {
        let identity = Identity::look_up(settings.user.as_deref(), settings.group.as_deref())
            .map_err(SpawnError::identity)?;
        let user = identity.as_ref().filter(|_| settings.user.is_some());
        let home = user.map_or_else(std::env::home_dir, |user| user.home.clone());
        let home = home.as_deref();
        // A relative directory starts at ours, and so do paths in a child without a directory of its own.
        let default = home.filter(|_| user.is_some()).unwrap_or(Path::new(""));
        let home = home.map(Path::as_os_str);
        let dir = expand_home(dir.unwrap_or(default), home);
        let mut variables = BTreeMap::new();
        for file in &settings.env_files {
            variables.extend(file.read_in(&dir).map_err(SpawnError::env_file)?);
        }
        let stdin = match &settings.stdin {
            Stdin::Null => None,
            Stdin::File(path) => Some(stdin::open(&dir.join(expand_home(path, home)))?),
        };
        Ok(Self { identity, variables, login_path: None, stdin, secrets: Secrets::new() })
    }
}

impl PreparedCommand {
    /// Puts a spec together with what was found, and with the environment that the child inherits.
    fn new(
        spec: &ProcessSpec,
        found: Found,
        marker: String,
        inherited: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SpawnError> {
        let environment = environment(spec, &found, &marker, inherited)?;
        let lookup =
            |key: &str| environment.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_os_str());
        let dir = match (&spec.working_dir, &spec.settings.user, &found.identity) {
            (Some(dir), _, _) => Some(expand_home(dir, lookup("HOME"))),
            (None, Some(_), Some(identity)) => identity.home.clone(),
            _ => None,
        };
        let (candidates, searched) = candidates(&spec.command, lookup("PATH"), lookup("HOME"))?;
        // Told by number, as it may be a secret.
        let arguments = std::iter::once(&spec.command)
            .chain(&spec.args)
            .enumerate()
            .map(|(number, argument)| {
                CString::new(argument.as_bytes())
                    .map_err(|_| SpawnError::invalid(format!("argument {number} contains a NUL byte")))
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
        let limits = limits(&spec.settings)?;
        let sets_path = spec.env.contains_key("PATH") || found.variables.contains_key("PATH");
        Ok(Self {
            program: spec.command.clone(),
            candidates,
            searched,
            login_failure: found.login_path.and_then(Result::err).filter(|_| !sets_path),
            arguments,
            environment,
            dir: dir.as_deref().map(path_string).transpose()?,
            marker,
            settings: child_settings(&spec.settings, &limits, found.identity.as_ref()),
            limits,
            identity: found.identity,
            stdin: found.stdin,
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
pub fn is_withheld(key: &OsStr) -> bool {
    let key = key.as_bytes();
    key == MARKER_VARIABLE.as_bytes()
        || key == b"NOTIFY_SOCKET"
        || [b"LISTEN_".as_slice(), b"WATCHDOG_", b"XY_TOKEN"].iter().any(|prefix| key.starts_with(prefix))
}

/// The limits that hold in the child: those that we had ourselves, and those of the spec.
fn limits(settings: &ProcessSettings) -> Result<Vec<ResourceLimit>, SpawnError> {
    for (index, limit) in settings.limits.iter().enumerate() {
        let name = limit.resource.as_str();
        if limit.soft > limit.hard {
            return Err(SpawnError::invalid(format!(
                "the soft limit of `{name}` is above the hard one: lower it"
            )));
        }
        if settings.limits[..index].iter().any(|earlier| earlier.resource == limit.resource) {
            return Err(SpawnError::invalid(format!("`{name}` is limited twice: remove one of them")));
        }
    }
    let is_own = |resource| settings.limits.iter().any(|limit| limit.resource == resource);
    let original = original_limits().iter().filter(|limit| !is_own(limit.resource));
    Ok(original.chain(&settings.limits).copied().collect())
}

fn child_settings(
    settings: &ProcessSettings,
    limits: &[ResourceLimit],
    identity: Option<&Identity>,
) -> ChildSettings {
    let number = |value: u64| match value {
        ResourceLimit::UNLIMITED => libc::RLIM_INFINITY,
        value => value,
    };
    let limit = |limit: &ResourceLimit| {
        let values = libc::rlimit { rlim_cur: number(limit.soft), rlim_max: number(limit.hard) };
        (limit.resource.number(), values)
    };
    let is_other = |identity: &Identity| {
        identity.uid != Uid::effective().as_raw() || identity.gid != Gid::effective().as_raw()
    };
    let credentials = identity.filter(|identity| !identity.is_ours);
    ChildSettings {
        limits: limits.iter().map(limit).collect(),
        nice: settings.nice,
        oom_score: oom_score(settings.oom_score_adj),
        credentials: credentials.map(|identity| Credentials {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups.clone(),
        }),
        umask: settings.umask.and_then(|mask| libc::mode_t::try_from(mask & 0o777).ok()),
        no_new_privs: settings.no_new_privs.unwrap_or_else(|| identity.is_some_and(is_other)),
    }
}

/// Returns what the child writes to its `oom_score_adj`: what was asked for, else one more than our own.
fn oom_score(wanted: Option<i32>) -> Option<OomScore> {
    static OWN: OnceLock<Option<i32>> = OnceLock::new();
    let own =
        || *OWN.get_or_init(|| fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok());
    let score = wanted.or_else(|| Some((own()? + 1).min(1000)))?;
    Some(OomScore { text: score.to_string(), is_required: wanted.is_some() })
}

fn environment(
    spec: &ProcessSpec,
    found: &Found,
    marker: &str,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(OsString, OsString)>, SpawnError> {
    let secrets = || found.secrets.iter().map(|(key, value)| (key.as_str(), value.expose()));
    let plain = found.variables.iter().chain(&spec.env).map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in plain.chain(secrets()) {
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
    let settings = &spec.settings;
    // From the weakest to the strongest.
    let mut laid_over: BTreeMap<OsString, OsString> = BTreeMap::new();
    match (&settings.path, &found.login_path) {
        (SearchPath::Literal(path), _) => drop(laid_over.insert("PATH".into(), path.into())),
        (_, Some(Ok(path))) => drop(laid_over.insert("PATH".into(), path.clone())),
        _ => {}
    }
    let user = found.identity.as_ref().filter(|_| settings.user.is_some());
    if let Some(user) = user {
        let shell = user.shell.as_deref().unwrap_or(Path::new("/bin/sh"));
        let home = user.home.as_deref().unwrap_or(Path::new("/"));
        let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
        laid_over.insert("HOME".into(), home.into());
        laid_over.insert("SHELL".into(), shell.into());
        laid_over.insert("USER".into(), name.clone().into());
        laid_over.insert("LOGNAME".into(), name.into());
    }
    let given = found.variables.iter().chain(&spec.env);
    laid_over.extend(given.map(|(key, value)| (key.into(), value.into())));
    laid_over.extend(secrets().map(|(key, value)| (key.into(), value.into())));
    laid_over.insert(MARKER_VARIABLE.into(), marker.into());

    let is_another_user = user.is_some_and(|user| user.uid != Uid::effective().as_raw());
    let belongs_to_another_user = |key: &OsStr| is_another_user && key.as_bytes().starts_with(b"XDG_");
    let mut environment: Vec<_> = inherited
        .filter(|(key, _)| {
            !is_withheld(key)
                && settings.env_base.keeps(key.as_bytes())
                && !belongs_to_another_user(key)
                && !laid_over.contains_key(key)
        })
        .collect();
    if let Some(period) = spec.watchdog {
        laid_over.retain(|key, _| !key.as_bytes().starts_with(b"WATCHDOG_"));
        laid_over.insert("WATCHDOG_USEC".into(), period.as_micros().to_string().into());
    }
    environment.extend(laid_over);
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
        PreparedCommand::new(spec, Found::default(), "m".to_owned(), inherited)
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
    fn variables_that_describe_a_user_follow_the_user_unless_they_are_set() {
        let inherited =
            [("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0"), ("LANG", "C"), ("USER", "root")];
        let environment = |uid: u32| {
            let identity = Identity {
                name: Some("u".to_owned()),
                uid,
                gid: 1,
                groups: vec![1],
                home: Some("/home/u".into()),
                shell: None,
                is_ours: false,
            };
            let mut spec = ProcessSpec::new("tool");
            spec.settings.user = Some("u".to_owned());
            spec.env.insert("LOGNAME".to_owned(), "set".to_owned());
            let found = Found { identity: Some(identity), ..Found::default() };
            let inherited = inherited.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            let command = PreparedCommand::new(&spec, found, "m".to_owned(), inherited).expect("valid");
            strings(&command.environment).join(" ")
        };
        let own = Uid::effective().as_raw();
        assert_eq!(
            environment(own + 1),
            "LANG=C HOME=/home/u LOGNAME=set SHELL=/bin/sh USER=u XY_INSTANCE=m"
        );
        assert!(environment(own).starts_with("XDG_RUNTIME_DIR=/run/user/0 "), "{}", environment(own));
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
