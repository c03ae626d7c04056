//! An upgrade: the program on disk takes over this process, while every server runs on.
//!
//! ```text
//! this program                                        the one on disk
//!   state as it is now ───────────────────────────►   xyd --check-handoff: could it go on? (a process of its own)
//!   the last answers are written                          no ─► nothing happens, and the operator is told why
//!   tree and logs stand still, state to memory
//!   execve ── same process, descriptors kept ─────►   xyd --handoff: reads the state, takes everything up
//!   execve ◄── by its own descriptor ──────────────       did not come up in time, or gave up
//! ```
//! Until it has come up, the new program changes nothing that the old one could not go on with: it reads no output, reaps
//! nobody, and gives up neither a lock nor the socket. `state.rs` is what is handed over.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xy_actors::log::LogHub;
use xy_actors::process::handover::{self, Exchange, HandBack, HeldSignals, Luggage};
use xy_actors::process::settings::Stdin;
use xy_actors::process::{ProcessExit, ProcessHost, ProcessSpec};
use xy_actors::supervisor::Supervisor;
use xy_actors::supervisor::handover::HandOverError;

use crate::config::LoadOptions;
use crate::control::{Control, chain};
use crate::instance::{InstanceLock, Keep};
use crate::socket::SharedListener;

mod state;

pub(crate) use state::ConfigurationState;
use state::{Descriptors, Written};
pub use state::{Handoff, HandoffError};

/// Reads a state, and again what would be written of it.
#[cfg(feature = "testkit")]
pub(crate) fn read_twice(bytes: &[u8]) {
    state::read_twice(bytes);
}

/// The option that gives a program the number of the descriptor with the state.
const HANDOFF: &str = "--handoff";

/// The option that says that the process was handed back, so that there is no third program to hand it on to.
const HANDED_BACK: &str = "--handed-back";

/// The option that gives the daemon its guard's pid.
const GUARD_PID: &str = "--guard-pid";

/// How long the new program may take to say whether it could go on.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// How long the new program may take to come up.
const COME_UP: Duration = Duration::from_secs(30);

/// How long a reload may go on before an upgrade gives up.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// How often others get their turn until a signal that came has reached who waits for it: the runtime sees it, one task takes
/// it in, and one more is the reserve.
const ROUNDS_TO_HEAR: usize = 3;

/// How much of what the new program says when it refuses is passed on.
const SAID: u64 = 4 << 10;

/// Why an upgrade did not take place. This program goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// This daemon is part of another program, or that program's path is not known.
    #[error("this daemon cannot be upgraded: it does not know its program")]
    NoProgram,
    /// The configuration is just being reloaded.
    #[error("a reload is under way; try again later")]
    Reloading,
    /// The tree does not come to rest.
    #[error("the servers cannot be handed over")]
    Tree(#[source] HandOverError),
    /// The logs cannot be handed over.
    #[error("the logs cannot be handed over")]
    Logs(#[source] xy_actors::log::LogError),
    /// The state cannot be written or passed on.
    #[error("the state cannot be passed on")]
    State(#[source] io::Error),
    /// The new program cannot be executed.
    #[error("`{}` cannot be executed", program.display())]
    Execute {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The new program says that it cannot go on, or is no such program.
    #[error("`{}` cannot take over: {reason}", program.display())]
    Refused {
        /// The program.
        program: PathBuf,
        /// What it said, or how it ended.
        reason: String,
    },
    /// An end was asked for meanwhile.
    #[error("the daemon is ending")]
    Ending,
}

/// What is handed over of one daemon.
pub(crate) struct Upgrade<'a> {
    pub(crate) program: Option<&'a Path>,
    pub(crate) guard: Option<u32>,
    pub(crate) root: &'a Supervisor,
    pub(crate) host: &'a ProcessHost,
    pub(crate) logs: &'a LogHub,
    pub(crate) control: &'a Control,
    pub(crate) instance: &'a InstanceLock,
    pub(crate) listener: &'a SharedListener,
    /// The socket of HTTP, if a service manager has bound that.
    pub(crate) http_socket: Option<&'a std::net::TcpListener>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) idle_shutdown: Option<Duration>,
    pub(crate) rotate_token: Duration,
    /// Where HTTP is answered.
    pub(crate) http: Option<SocketAddr>,
}

impl Upgrade<'_> {
    /// Asks the program on disk whether it could take over, and returns its version.
    pub(crate) async fn check(&self) -> Result<String, UpgradeError> {
        let program = self.program.ok_or(UpgradeError::NoProgram)?;
        // What stood still goes on at once: this state is only to be looked at.
        let (_, written) = self.write(program).await?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), written.number);
        let mut spec = ProcessSpec::new(program.to_string_lossy());
        spec.args = vec!["--check-handoff".to_owned(), "-".to_owned()];
        spec.settings.stdin = Stdin::File(path.into());
        let execute = |source| UpgradeError::Execute { program: program.to_owned(), source };
        let mut process =
            self.host.spawn("upgrade", &spec).await.map_err(|error| execute(Box::new(error)))?;
        let output = process.take_output();
        let exit = tokio::time::timeout(CHECK_PATIENCE, process.exited()).await;
        process.kill_tree(tokio::time::Instant::now() + Duration::from_secs(1)).await;
        process.reap();
        let said = |fd: OwnedFd| {
            let mut bytes = Vec::new();
            // What came last is missing if a descendant holds the pipe, which does not block.
            let _rest = File::from(fd).take(SAID).read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        let (out, err) = output.map(|output| (said(output.stdout), said(output.stderr))).unwrap_or_default();
        let refused = |reason| UpgradeError::Refused { program: program.to_owned(), reason };
        match exit {
            Ok(ProcessExit::Code(0)) => Ok(out),
            Ok(exit) if err.is_empty() => Err(refused(match exit {
                ProcessExit::Code(code) => format!("it ended with exit code {code}"),
                ProcessExit::Signal { signal, .. } => format!("it was ended by signal {signal}"),
            })),
            Ok(_) => Err(refused(err)),
            Err(_) => Err(refused(format!("it said nothing for {} s", CHECK_PATIENCE.as_secs()))),
        }
    }

    /// Exchanges the program. Returns only if that fails; everything goes on then.
    ///
    /// `is_called_off` is asked at the last moment.
    pub(crate) async fn exchange(&self, mut is_called_off: impl FnMut() -> bool) -> UpgradeError {
        let Some(program) = self.program else { return UpgradeError::NoProgram };
        // Tree and logs stand still for as long as these are held.
        let (_standing, written) = match self.write(program).await {
            Ok(written) => written,
            Err(error) => return error,
        };
        // What the system has told us until now is heard here; what it tells us from now on, by the next program.
        let _held = HeldSignals::hold();
        for _ in 0..ROUNDS_TO_HEAR {
            tokio::task::yield_now().await;
        }
        if is_called_off() {
            return UpgradeError::Ending;
        }
        let mut arguments = self.arguments();
        arguments.extend([HANDOFF.into(), written.number.to_string().into()]);
        let exchange = match Exchange::new(program, arguments, written.kept) {
            Ok(exchange) => exchange,
            Err(error) => return UpgradeError::State(error),
        };
        let source = Box::new(self.host.exchange(exchange).await);
        UpgradeError::Execute { program: program.to_owned(), source }
    }

    /// Returns the arguments of this program without those that concern its start.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = without_start(std::env::args_os());
        if let Some(guard) = self.guard {
            arguments.extend([GUARD_PID.into(), guard.to_string().into()]);
        }
        arguments
    }

    /// Brings tree and logs to a standstill and writes down what is so.
    async fn write(&self, program: &Path) -> Result<(impl Sized, Written), UpgradeError> {
        let in_force = self.control.hand_over(RELOAD_PATIENCE).await.ok_or(UpgradeError::Reloading)?;
        let mut tree = self.root.hand_over().await.map_err(UpgradeError::Tree)?;
        let logs = self.logs.hand_over().await.map_err(UpgradeError::Logs)?;
        let written = (|| {
            let (host, mut kept) = self.host.hand_over()?;
            let keep = |kept: &mut Vec<OwnedFd>, fd: OwnedFd| {
                let number = fd.as_raw_fd();
                kept.push(fd);
                number
            };
            kept.extend(tree.take_descriptors());
            let mut of_logs = Vec::with_capacity(logs.descriptors().len());
            for descriptor in logs.descriptors() {
                of_logs.push(keep(&mut kept, descriptor.try_clone()?));
            }
            let http = self.http_socket.map(|socket| socket.try_clone()).transpose()?;
            let descriptors = Descriptors {
                instance: keep(&mut kept, self.instance.share()?),
                socket_lock: keep(&mut kept, self.listener.share_lock()?),
                listener: keep(&mut kept, self.listener.share()?),
                is_listener_inherited: self.listener.is_inherited(),
                http: http.map(|socket| keep(&mut kept, socket.into())),
                old_program: keep(&mut kept, this_program()?),
                pipes: of_logs,
                all: kept.iter().map(|fd| fd.as_raw_fd()).collect(),
            };
            let handoff = Handoff {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                program: program.to_owned(),
                arguments: self.arguments().into_iter().map(OsString::into_vec).collect(),
                descriptors,
                host,
                tree: tree.state().clone(),
                configuration: in_force,
                http: self.http,
                shutdown_timeout: self.shutdown_timeout,
                idle_shutdown: self.idle_shutdown,
                rotate_token: Some(self.rotate_token),
                journal: Some(self.control.journal_state()),
                noted: Some(self.control.note_history()),
                permissions: self.control.gate_of().settings(),
                logs: logs.state().clone(),
            };
            handoff.write(kept)
        })();
        Ok(((tree, logs), written.map_err(UpgradeError::State)?))
    }
}

/// Opens the program that runs, whatever has become of its file.
fn this_program() -> io::Result<OwnedFd> {
    File::open(if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? })
        .map(OwnedFd::from)
}

/// Leaves out the options by which one program starts the next.
fn without_start(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some(HANDOFF | GUARD_PID) => drop(arguments.next()),
            Some(HANDED_BACK) => {}
            _ => kept.push(argument),
        }
    }
    kept
}

/// Finds the path by which this program was started, so that whatever is there later can take over.
///
/// That of the system leads to the file itself, which an upgrade leaves where it is when the name was a link to it.
pub fn program_path() -> io::Result<PathBuf> {
    let resolved = std::env::current_exe()?;
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let own = identity(&resolved);
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let named: Vec<PathBuf> = if name.components().count() > 1 || name.is_absolute() {
        std::path::absolute(&name).into_iter().collect()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(&name)).collect()
    };
    let found = named.iter().find(|path| identity(path) == own).cloned();
    // If it has been replaced already, whatever has its name now is meant.
    let replaced = || named.into_iter().find(|path| path.is_file()).filter(|_| !resolved.exists());
    Ok(found.or_else(replaced).unwrap_or(resolved))
}

/// What a program finds that takes over a process.
#[derive(Debug)]
pub struct Inheritance {
    pub(crate) handoff: Handoff,
    pub(crate) luggage: Luggage,
    /// Set until the program has come up: locks and socket stay as they are, however it ends.
    pub(crate) keep: Keep,
    /// The program before this one gave the process back.
    pub is_handed_back: bool,
}

impl Inheritance {
    /// Returns the path of the program that was to take over.
    pub fn program(&self) -> &Path {
        &self.handoff.program
    }
}

/// Runs a program on what another one has handed over, if it has: `None` if this is an ordinary start.
///
/// To be called first of all. `program` runs in a thread of its own, with every signal blocked until it
/// [has come up](crate::daemon::take_up); the calling one creates the processes from then on. If `program` ends before it
/// has come up, the other one goes on.
///
/// # Errors
/// If the state cannot be read, or the system refuses the thread. Nobody goes on then but a guard.
pub fn take_over<T: Send + 'static>(
    arguments: &[OsString],
    program: impl FnOnce(Inheritance) -> T + Send + 'static,
) -> Option<Result<T, UpgradeError>> {
    let position = arguments.iter().position(|argument| argument == HANDOFF)?;
    let number = arguments.get(position + 1)?.to_str()?.parse::<RawFd>().ok()?;
    let is_handed_back = arguments.iter().any(|argument| argument == HANDED_BACK);
    handover::reset_ignored_signals();
    let begun = inherit(number).and_then(|(handoff, originals)| {
        let luggage = Luggage::copy(&originals);
        let hand_back = match is_handed_back {
            true => None,
            false => Some(hand_back(&handoff, number, originals)?),
        };
        let keep = Keep::set();
        // Without its luggage it ends before it has begun, and gives way.
        handover::lead(hand_back, move || {
            Ok(program(Inheritance { handoff, luggage: luggage?, keep, is_handed_back }))
        })?
    });
    Some(begun.map_err(UpgradeError::State))
}

fn inherit(number: RawFd) -> io::Result<(Handoff, Vec<OwnedFd>)> {
    // Opened anew, so that the original stays as it is for a program to which the process is handed back.
    let directory = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let handoff = Handoff::read(File::open(format!("{directory}/{number}"))?).map_err(io::Error::other)?;
    let originals = handover::inherit(&handoff.descriptors.all)?;
    Ok((handoff, originals))
}

fn hand_back(handoff: &Handoff, number: RawFd, originals: Vec<OwnedFd>) -> io::Result<HandBack> {
    let old = originals.iter().find(|fd| fd.as_raw_fd() == handoff.descriptors.old_program);
    let old = old.ok_or_else(|| io::Error::other("the program before this one was not handed over"))?;
    let path = Exchange::path_of(old);
    // The old one's own: between it and us, a script may have changed them.
    let mut arguments: Vec<OsString> =
        handoff.arguments.iter().map(|argument| OsString::from_vec(argument.clone())).collect();
    arguments.extend([HANDOFF.into(), number.to_string().into(), HANDED_BACK.into()]);
    Ok(HandBack { exchange: Exchange::new(&path, arguments, originals)?, patience: COME_UP })
}

/// Why this program could not go on with a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The file with it cannot be opened.
    #[error("the state `{}` cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] HandoffError),
    /// It does not fit this version.
    #[error("the servers cannot be taken over: {0}")]
    Tree(String),
}

/// Checks that this program could go on with the state in a file; `-` is standard input. Returns the program's version.
///
/// # Errors
/// Says why not.
pub fn check_handoff(path: &Path, options: &LoadOptions) -> Result<String, CheckError> {
    let open = |source| CheckError::Open { path: path.to_owned(), source };
    let file = if path == Path::new("-") {
        use std::os::fd::AsFd as _;
        File::from(io::stdin().as_fd().try_clone_to_owned().map_err(open)?)
    } else {
        File::open(path).map_err(open)?
    };
    let handoff = Handoff::read(file)?;
    let specs = crate::daemon::root_specs(&handoff.configuration(options)?);
    handoff.tree.check(crate::daemon::root_spec(), specs).map_err(|error| CheckError::Tree(chain(&error)))?;
    Ok(env!("CARGO_PKG_VERSION").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_options_of_the_start_are_left_out() {
        let line =
            ["xyd", "--config", "/c", "--guard-pid", "7", "--handoff", "9", "--handed-back", "--no-cgroup"];
        let left = without_start(line.into_iter().map(OsString::from));
        assert_eq!(left, ["xyd", "--config", "/c", "--no-cgroup"]);
    }

    #[test]
    fn an_ordinary_start_takes_nothing_over() {
        let arguments = ["xyd".into(), "--config".into(), "/c".into()];
        assert!(take_over(&arguments, |_| ()).is_none());
    }

    #[test]
    fn the_program_that_runs_is_found_by_its_name() {
        let found = program_path().expect("a path");
        let same = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).expect("it is there");
        assert_eq!(same(&found), same(&std::env::current_exe().expect("a path")));
    }
}
