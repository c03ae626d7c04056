//! An OS process as a child: the start, and the handle of what was started.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::actor::{Gate, ProcessActor, ProcessArguments, ProcessMessage, watch_for};
use super::readiness::notify::NotifySocket;
use super::settings::{SearchPath, masked};
use super::{OsProcess, PortOwner, ProcessHost, ProcessSpec, Readiness, known_login_path, port};
use crate::child::{
    Child, Reporter, Running, StartContext, StartError, StartErrorKind, StartFuture, Started,
};
use crate::log::{LogError, LogHub, LogSettings};
use crate::supervisor::handover::{HandOverError, HandOverFuture, LiveState};

/// How long a start waits for its port. Whoever is about to end, as the last of an earlier daemon's servers may be, lets go
/// within this time; for anybody else the start fails, uncounted, and is tried again after the backoff.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// The first pause between two looks at the port; it doubles.
const FIRST_PACE: Duration = Duration::from_millis(10);

/// A child that is an operating system process; see [`process`].
#[derive(Debug, Clone)]
pub struct ProcessChild {
    spec: Arc<ProcessSpec>,
    host: ProcessHost,
    logs: LogHub,
    log: LogSettings,
}

/// Makes a child of an operating system process.
///
/// It is spawned by `host`; its output goes to the log of its path in `logs`. It is ready when
/// [`ProcessSpec::readiness`] is proven. A stop signals its group, and is over when its whole tree is gone; the shutdown
/// time of its [`ChildSpec`](crate::spec::ChildSpec) is the grace before what is left is killed; it begins with the stop,
/// so it has to be longer than the grace of a [`StopCommand`](super::StopCommand) for the signal to be sent at all.
///
/// ```no_run
/// use xy_actors::log::LogHub;
/// use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, process};
/// use xy_actors::spec::{ChildSpec, SupervisorSpec};
/// use xy_actors::supervisor::Supervisor;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (host, _swept) = ProcessHost::start(HostOptions::default())?; // One for the whole program.
/// let logs = LogHub::new(None); // In memory; give it a directory to keep files.
/// let mut web = ProcessSpec::new("python3");
/// web.args = ["-m", "http.server", "8421"].map(String::from).to_vec();
/// web.port = Some(8421); // Ready once the process itself listens there.
/// let tree = Supervisor::builder(SupervisorSpec::default())
///     .child(ChildSpec::worker("web"), process(web, &host, &logs))
///     .start()
///     .await?;
/// tree.shutdown().await; // Returns when its whole process tree is gone.
/// # Ok(())
/// # }
/// ```
///
/// A spec that others have, too, can be given as an `Arc`.
pub fn process(spec: impl Into<Arc<ProcessSpec>>, host: &ProcessHost, logs: &LogHub) -> ProcessChild {
    ProcessChild { spec: spec.into(), host: host.clone(), logs: logs.clone(), log: LogSettings::default() }
}

impl ProcessChild {
    /// Sets how much of its output is kept.
    #[must_use]
    pub fn log(mut self, settings: LogSettings) -> Self {
        self.log = settings;
        self
    }
}

impl Child for ProcessChild {
    fn start(&self, context: StartContext) -> StartFuture {
        let Self { spec, host, logs, log } = self.clone();
        Box::pin(async move {
            until_port_is_free(&spec, &host, &context.reporter).await?;
            if let Some(liveness) = &spec.liveness {
                liveness.validate().map_err(StartError::failed)?;
            }
            let socket = notify_socket(&spec, &host)?;
            let label = context.path.as_str();
            let log = logs.open(label, log).map_err(StartError::failed)?;
            let told = match &socket {
                Some(socket) => Cow::Owned(with_socket(&spec, socket)),
                None => Cow::Borrowed(&*spec),
            };
            let mut process =
                host.spawn_as(label, Some(context.incarnation.get()), &told).await.map_err(|error| {
                    let kind = if error.is_resource_shortage() {
                        StartErrorKind::ResourceShortage
                    } else {
                        StartErrorKind::Failed
                    };
                    StartError::new(kind, error.told())
                })?;
            log.mark_start(context.incarnation.get(), process.pid());
            if spec.settings.path == SearchPath::Login
                && !spec.env.contains_key("PATH")
                && let Some(Err(error)) = known_login_path(spec.settings.user.as_deref())
            {
                log.note(&format!("PATH is the inherited one, because {}", error.told()));
            }
            let mut gate = match spec.readiness() {
                Readiness::Started => Gate::Open,
                Readiness::Notify { .. } => Gate::Socket,
                _ => Gate::Asked,
            };
            let attachment = match process.take_output() {
                Some(output) => {
                    let mut watch = None;
                    if let Some(Readiness::Log { pattern }) = &spec.ready {
                        let (line_watch, seen) = watch_for(pattern.clone());
                        watch = Some(line_watch);
                        gate = Gate::Line(seen);
                    }
                    if let (Some(end), Some(Readiness::Notify { fd: Some(number) })) =
                        (output.notify, &spec.ready)
                    {
                        gate = Gate::Descriptor(end, *number);
                    }
                    let incarnation = context.incarnation.get();
                    let attached = match watch {
                        Some(watch) => log.attach_watched(incarnation, output.stdout, output.stderr, watch),
                        None => log.attach(incarnation, output.stdout, output.stderr),
                    };
                    let attached = attached.map_err(|error| {
                        let failed = unlogged(error);
                        let cause = format!("killed: {}", failed.cause);
                        log.mark_exit(incarnation, process.pid(), &cause);
                        failed
                    });
                    Some(attached?)
                }
                None => None,
            };
            let pid = process.pid();
            let process = Arc::new(process);
            let signals = Arc::downgrade(&process);
            let is_ready = matches!(gate, Gate::Open);
            let arguments = ProcessArguments {
                host,
                process,
                incarnation: context.incarnation.get(),
                attachment,
                log,
                spec: spec.clone(),
                reporter: context.reporter.clone(),
                gate,
                socket,
                before: None,
            };
            // If the actor cannot be spawned, its arguments are dropped, and with them the process.
            let spawned = Actor::spawn_linked(None, ProcessActor, arguments, context.supervisor()).await;
            let (actor, _join) = spawned.map_err(StartError::failed)?;
            let running = Box::new(RunningProcess { actor, process: signals, pid });
            Ok(if is_ready { Started::Ready(running) } else { Started::Running(running) })
        })
    }

    fn take_up(&self, context: StartContext, state: LiveState) -> StartFuture {
        let LiveState::Process(state) = state else { return self.start(context) };
        let Self { spec, host, logs, log } = self.clone();
        Box::pin(async move {
            let label = context.path.as_str();
            let log = logs.open(label, log).map_err(StartError::failed)?;
            let process = host.adopt(state.marker()).await.map_err(|error| {
                StartError::failed(format!("the process could not be taken over: {error}"))
            })?;
            let attachment = host.take_attachment(label, context.incarnation.get());
            let socket = match state.address() {
                Some((address, number)) => {
                    let taken = host.take_descriptor(number).map(|fd| NotifySocket::taken_up(address, fd));
                    taken.transpose().map_err(StartError::failed)?
                }
                None => None,
            };
            let descriptor = state.descriptor.and_then(|number| host.take_descriptor(number));
            let place = (descriptor, attachment.as_ref());
            let gate = Gate::anew(&spec, state.is_ready, state.is_told, &log, place);
            let is_ready = matches!(gate, Gate::Open);
            let pid = process.pid();
            let process = Arc::new(process);
            let signals = Arc::downgrade(&process);
            let arguments = ProcessArguments {
                host,
                process,
                incarnation: context.incarnation.get(),
                attachment,
                log,
                spec,
                reporter: context.reporter.clone(),
                gate,
                socket,
                before: Some(*state),
            };
            let spawned = Actor::spawn_linked(None, ProcessActor, arguments, context.supervisor()).await;
            let (actor, _join) = spawned.map_err(StartError::failed)?;
            let running = Box::new(RunningProcess { actor, process: signals, pid });
            Ok(if is_ready { Started::Ready(running) } else { Started::Running(running) })
        })
    }
}

/// Its output cannot be read, so that it is killed again.
fn unlogged(error: LogError) -> StartError {
    match error {
        LogError::Watch { ref source, .. } | LogError::Start(ref source) => {
            let kind = match source.raw_os_error() {
                // No disk is meant: it is the room for watches.
                Some(libc::ENOSPC) => StartErrorKind::ResourceShortage,
                _ => kind_of(source),
            };
            StartError::new(kind, format!("{error}: {source}"))
        }
        error => StartError::failed(error),
    }
}

/// Returns whether a call failed for want of a resource, so that a later try may succeed.
fn kind_of(error: &io::Error) -> StartErrorKind {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS) => {
            StartErrorKind::ResourceShortage
        }
        _ => StartErrorKind::Failed,
    }
}

/// Binds the socket on which the child tells how it is, if it is to.
fn notify_socket(spec: &ProcessSpec, host: &ProcessHost) -> Result<Option<NotifySocket>, StartError> {
    let is_wanted = spec.watchdog.is_some() || spec.ready == Some(Readiness::Notify { fd: None });
    if !is_wanted {
        return Ok(None);
    }
    let refuse = |place: &str, error: io::Error| {
        StartError::new(kind_of(&error), format!("no notification socket {place}: {error}"))
    };
    // Another user cannot enter our directory.
    #[cfg(target_os = "linux")]
    if spec.settings.user.is_some() {
        return NotifySocket::bind_abstract().map(Some).map_err(|error| refuse("outside directories", error));
    }
    let directory = host.notify_dir().ok_or_else(|| {
        StartError::failed("the process host has no directory for notification sockets: set `notify_dir`")
    })?;
    let place = || format!("in `{}`", directory.display());
    NotifySocket::bind(directory).map(Some).map_err(|error| refuse(&place(), error))
}

fn with_socket(spec: &ProcessSpec, socket: &NotifySocket) -> ProcessSpec {
    let mut spec = spec.clone();
    spec.env.insert("NOTIFY_SOCKET".to_owned(), socket.address().to_string_lossy().into_owned());
    spec
}

/// Waits a moment for somebody else who holds the port to let go of it, and refuses to start beside them: the probe would
/// speak to them.
async fn until_port_is_free(
    spec: &ProcessSpec,
    host: &ProcessHost,
    reporter: &Reporter,
) -> Result<(), StartError> {
    let (Some(number), PortOwner::Own) = (spec.port, spec.port_owner) else { return Ok(()) };
    let deadline = Instant::now() + PORT_PATIENCE;
    let mut pace = FIRST_PACE;
    let mut told = None;
    loop {
        // If nobody can say who holds it, the program itself will find out.
        let Ok(port::Holder::Foreign { pid, command }) = port::holder(number, &[]) else {
            if told.is_some() {
                reporter.waits_for(None);
            }
            return Ok(());
        };
        let who = match (pid, command) {
            // Its arguments may hold what another child has as a secret.
            (Some(pid), Some(command)) => format!("pid {pid} ({})", masked(&command, &host.secrets())),
            (Some(pid), None) => format!("pid {pid}"),
            _ => "a process of another user".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(StartError::new(
                StartErrorKind::PortConflict,
                format!("port {number} is held by {who}; end it, or give one of them another port"),
            ));
        }
        if told.as_ref() != Some(&who) {
            reporter.waits_for(Some(format!("port {number}, held by {who}")));
            told = Some(who);
        }
        tokio::time::sleep(pace).await;
        pace *= 2;
    }
}

/// The handle of a process's actor. Dropping it kills the process, as the actor then has nobody to report to.
struct RunningProcess {
    actor: ActorRef<ProcessMessage>,
    process: Weak<OsProcess>,
    pid: u32,
}

impl RunningProcess {
    fn tell(&self, message: ProcessMessage) {
        // An actor that is gone has reported the end of its process.
        let _gone = self.actor.send_message(message);
    }
}

impl Running for RunningProcess {
    fn stop(&mut self) {
        self.tell(ProcessMessage::Stop);
    }

    fn kill(&mut self) {
        self.tell(ProcessMessage::Kill);
    }

    fn follow(&mut self, recipe: &dyn Child) {
        let recipe: &dyn std::any::Any = recipe;
        if let Some(ProcessChild { spec, .. }) = recipe.downcast_ref() {
            self.tell(ProcessMessage::Follow(spec.clone()));
        }
    }

    fn signal(&mut self, signal: i32) -> Option<std::io::Result<()>> {
        let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
        Some(match self.process.upgrade() {
            Some(process) => match process.signal_group(signal) {
                Ok(true) => Ok(()),
                Ok(false) => Err(gone()),
                Err(error) => Err(error),
            },
            None => Err(gone()),
        })
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    fn hand_over(&mut self, _now: std::time::Instant) -> Option<HandOverFuture> {
        let (reply, state) = oneshot::channel();
        self.tell(ProcessMessage::HandOver(reply));
        Some(Box::pin(async move {
            match state.await {
                Ok(Ok((state, descriptors))) => Ok(Some((LiveState::Process(Box::new(state)), descriptors))),
                Ok(Err(error)) => Err(HandOverError::Descriptor(error)),
                // It has ended, and has said so.
                Err(_) => Ok(None),
            }
        }))
    }

    fn go_on(&mut self) {
        self.tell(ProcessMessage::GoOn);
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        self.tell(ProcessMessage::Kill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_cannot_be_watched_is_told_with_the_cause_and_costs_no_budget_where_room_is_wanting() {
        for (errno, kind) in [
            (libc::ENOSPC, StartErrorKind::ResourceShortage),
            (libc::ENOMEM, StartErrorKind::ResourceShortage),
            (libc::EPERM, StartErrorKind::Failed),
        ] {
            let source = io::Error::from_raw_os_error(errno);
            let expected = format!("watching the output of `web` failed: {source}");
            let error = unlogged(LogError::Watch { name: "web".into(), source });
            assert_eq!((error.kind, error.cause.to_string()), (kind, expected));
        }
    }
}
