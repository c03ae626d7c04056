//! The handles: a hub of named logs, a log, and an attachment of one incarnation's pipes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::LogSettings;
use super::buffer::Buffer;
use super::file::Place;
use super::follow::{Cursor, LogFollower};
use super::name::{self, NameFault};
use super::past::Tail;
use super::pump::{Command, LineWatch, Pump};
use super::record::{LogLine, Stream};

/// The usual limit for [`Attachment::drain`].
pub const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// How long after its deadline a drain waits for a log thread that is stuck in a write to a hanging disk.
const STALL_LIMIT: Duration = Duration::from_secs(2);

/// Why a log could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The name cannot become a path below the log directory.
    #[error("log name {name:?} is not allowed")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        fault: NameFault,
    },
    /// The log thread could not be started.
    #[error("start of the log thread failed")]
    Start(#[source] io::Error),
    /// A pipe could not be watched.
    #[error("watching the output of `{name}` failed")]
    Watch {
        /// The log's name.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The log was closed.
    #[error("log `{name}` is closed")]
    Closed {
        /// The log's name.
        name: String,
    },
    /// The log thread has ended, which only a defect can cause.
    #[error("the log thread has ended")]
    Gone,
}

/// The logs of one tree, and the thread that reads for them.
///
/// The thread starts with the first use and ends when the last handle is gone and all pipes have ended.
#[derive(Debug, Clone)]
pub struct LogHub {
    inner: Arc<HubInner>,
}

#[derive(Debug)]
struct HubInner {
    engine: Arc<Engine>,
    logs: Mutex<BTreeMap<String, Log>>,
}

/// What hub and logs share: the directory and the thread.
#[derive(Debug)]
struct Engine {
    directory: Option<PathBuf>,
    pump: Mutex<Option<Arc<Pump>>>,
}

impl Engine {
    fn pump(&self) -> Result<Arc<Pump>, LogError> {
        let mut pump = locked(&self.pump);
        if let Some(pump) = &*pump {
            return Ok(Arc::clone(pump));
        }
        let started = Arc::new(Pump::start().map_err(LogError::Start)?);
        *pump = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Sends a command if there is a thread; `false` if there is none, so that nothing can be under way there.
    fn send(&self, command: Command) -> bool {
        let pump = locked(&self.pump).clone();
        pump.is_some_and(|pump| pump.send(command).is_ok())
    }
}

impl LogHub {
    /// Creates a hub whose files lie in `directory`; without one, logs are in memory only.
    ///
    /// The directory is created when it is needed, readable by this user only.
    pub fn new(directory: Option<PathBuf>) -> Self {
        let engine = Arc::new(Engine { directory, pump: Mutex::new(None) });
        Self { inner: Arc::new(HubInner { engine, logs: Mutex::new(BTreeMap::new()) }) }
    }

    /// Opens the log of a child path such as `web` or `group/web`.
    ///
    /// A log that is already open is returned with the new settings. A directory that cannot be written is no error
    /// here: see [`Log::health`].
    ///
    /// # Errors
    ///
    /// [`LogError::Name`] if a part of the name is empty (as in an absolute path), begins with a dot, has more than
    /// 200 bytes or contains a control character, or if it has more than 32 parts.
    pub fn open(&self, name: &str, settings: LogSettings) -> Result<Log, LogError> {
        name::check(name).map_err(|fault| LogError::Name { name: name.to_owned(), fault })?;
        let mut logs = locked(&self.inner.logs);
        if let Some(log) = logs.get(name) {
            log.set_settings(settings);
            return Ok(log.clone());
        }
        let engine = Arc::clone(&self.inner.engine);
        let place = engine.directory.as_deref().map(|root| Place::new(root, name));
        let state = State {
            buffer: Buffer::new(settings.buffer),
            settings,
            dropped_lines: 0,
            last_error: None,
            failing: false,
            complete_from: 0,
            closed: false,
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            path: place.map(|place| place.path()),
            directory: engine.directory.clone(),
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        let log = Log { inner: Arc::new(LogInner { engine, shared }) };
        logs.insert(name.to_owned(), log.clone());
        Ok(log)
    }

    /// Forgets the log of a removed child.
    ///
    /// What its pipes hold is read, then they are closed; followers get that and the end. The files stay. A name that
    /// is not open is ignored.
    pub fn close(&self, name: &str) {
        // The lock is released first: dropping a log sends a command.
        let log = locked(&self.inner.logs).remove(name);
        if let Some(log) = log {
            let shared = &log.inner.shared;
            if !log.inner.engine.send(Command::Close(Arc::clone(shared))) {
                shared.close();
            }
        }
    }

    /// Waits until everything that was noted and attached before has been taken up, and written as far as the disk
    /// allows.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.inner.engine.send(Command::Flush(reply)) {
            // An error means that the thread has ended: there is nothing left to wait for.
            let _ = flushed.await;
        }
    }
}

/// One child's log; it outlives the child's incarnations.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<LogInner>,
}

#[derive(Debug)]
struct LogInner {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
}

impl Drop for LogInner {
    fn drop(&mut self) {
        self.engine.send(Command::Forget(Arc::clone(&self.shared)));
    }
}

/// What the log thread and the readers of one log share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    path: Option<PathBuf>,
    directory: Option<PathBuf>,
    state: Mutex<State>,
    /// Wakes followers after lines were added or the log was closed.
    pub(super) changed: Notify,
}

/// Held for the time of copying a bounded piece of memory, never during I/O.
#[derive(Debug)]
pub(super) struct State {
    pub(super) buffer: Buffer,
    pub(super) settings: LogSettings,
    pub(super) dropped_lines: u64,
    pub(super) last_error: Option<String>,
    pub(super) failing: bool,
    /// The number after the newest line that is missing from the files.
    pub(super) complete_from: u64,
    pub(super) closed: bool,
}

impl State {
    /// Returns whether the files lack lines that memory holds.
    pub(super) fn lacks_held_lines(&self) -> bool {
        self.failing || self.buffer.held().start < self.complete_from
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Returns where the files lie, if there are any.
    pub(super) fn place(&self) -> Option<Place> {
        self.directory.as_deref().map(|root| Place::new(root, &self.name))
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }
}

/// How a log fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogHealth {
    /// Lines since it was opened, notes included.
    pub lines: u64,
    /// Their bytes, without newlines.
    pub bytes: u64,
    /// How many of the lines are missing from the files because they could not be written.
    pub dropped_lines: u64,
    /// The newest error of the files, whether or not it has passed.
    pub last_error: Option<String>,
    /// Whether lines are being dropped at present.
    pub failing: bool,
}

impl Log {
    /// Returns the log's name.
    pub fn name(&self) -> &str {
        &self.inner.shared.name
    }

    /// Changes how much is kept; files are adjusted with the next rotation.
    pub fn set_settings(&self, settings: LogSettings) {
        let mut state = self.inner.shared.lock();
        state.buffer.resize(settings.buffer);
        state.settings = settings;
    }

    /// Returns the path of the current file, which exists once there was output.
    pub fn path(&self) -> Option<PathBuf> {
        self.inner.shared.path.clone()
    }

    /// Returns counts, and what is wrong with the files.
    pub fn health(&self) -> LogHealth {
        let state = self.inner.shared.lock();
        LogHealth {
            lines: state.buffer.held().end,
            bytes: state.buffer.total_bytes(),
            dropped_lines: state.dropped_lines,
            last_error: state.last_error.clone(),
            failing: state.failing,
        }
    }

    /// Hands over the read ends of one incarnation's pipes, which become non-blocking.
    ///
    /// One incarnation at a time is usual; with more, their lines mix but no line does.
    ///
    /// # Errors
    ///
    /// [`LogError::Start`] and [`LogError::Watch`] if the system refuses a thread or a descriptor, or if one of the
    /// two cannot be watched, as is so for regular files; [`LogError::Closed`] after [`LogHub::close`].
    pub fn attach(&self, incarnation: u64, stdout: OwnedFd, stderr: OwnedFd) -> Result<Attachment, LogError> {
        self.attach_watched(incarnation, stdout, stderr, None)
    }

    /// The same, and shows `watch` every line of this incarnation from the first one on, until it has seen enough.
    pub(crate) fn attach_watched(
        &self,
        incarnation: u64,
        stdout: OwnedFd,
        stderr: OwnedFd,
        watch: Option<LineWatch>,
    ) -> Result<Attachment, LogError> {
        let shared = &self.inner.shared;
        if shared.lock().closed {
            return Err(LogError::Closed { name: shared.name.clone() });
        }
        let pump = self.inner.engine.pump()?;
        let id = pump
            .attach(shared, [(Stream::Out, stdout), (Stream::Err, stderr)], watch)
            .map_err(|source| LogError::Watch { name: shared.name.clone(), source })?
            .ok_or(LogError::Gone)?;
        Ok(Attachment { log: self.clone(), pump, id, incarnation })
    }

    /// Adds a line of our own, stream [`Stream::Xy`]; newlines in it become spaces.
    ///
    /// It is added by the log thread, in the order of calls and after what was read before; see [`LogHub::flush`].
    /// Notes made while a hanging disk blocks that thread are bounded: further ones are counted as dropped lines.
    pub fn note(&self, text: &str) {
        let shared = Arc::clone(&self.inner.shared);
        let sent = match self.inner.engine.pump() {
            Ok(pump) => pump.note(shared, text.to_owned()),
            Err(_) => false,
        };
        if !sent {
            self.inner.shared.lock().dropped_lines += 1;
        }
    }

    /// Returns the last `n` lines, or as many as are held.
    pub fn tail(&self, n: usize) -> Vec<LogLine> {
        self.memory_tail(n).lines
    }

    /// Returns the last `n` lines, from the files if memory holds fewer: also those of earlier runs of the host.
    ///
    /// Following from [`Tail::next`] shows every line after these exactly once. While the files are failing, memory
    /// alone answers, as they lack lines.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn tail_with_files(&self, n: usize) -> Tail {
        let shared = &self.inner.shared;
        let tail = self.memory_tail(n);
        if tail.lines.len() >= n || shared.directory.is_none() || shared.lock().lacks_held_lines() {
            return tail;
        }
        let (reply, past) = oneshot::channel();
        let Ok(pump) = self.inner.engine.pump() else { return tail };
        if pump.send(Command::Past { shared: Arc::clone(shared), reply }).is_err() {
            return tail;
        }
        let Ok(past) = past.await else { return self.memory_tail(n) };
        match tokio::task::spawn_blocking(move || past.tail(n)).await {
            Ok(Ok(from_files)) if from_files.lines.len() >= tail.lines.len() => from_files,
            _ => self.memory_tail(n),
        }
    }

    fn memory_tail(&self, n: usize) -> Tail {
        let state = self.inner.shared.lock();
        let next = state.buffer.held().end;
        Tail {
            lines: state.buffer.copy(next.saturating_sub(n as u64), n, usize::MAX),
            next,
            from_files: false,
        }
    }

    /// Follows the log from a line on.
    pub fn follow(&self, from: Cursor) -> LogFollower {
        LogFollower::new(Arc::clone(&self.inner.shared), from)
    }
}

/// The pipes of one incarnation, being read.
///
/// Dropping it leaves them being read until they end.
#[derive(Debug)]
#[must_use = "the rest of the output is only sure to be read after `drain`"]
pub struct Attachment {
    log: Log,
    pump: Arc<Pump>,
    id: u64,
    incarnation: u64,
}

/// What a drain found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Whether somebody still held a pipe when it was closed.
    pub held: bool,
    /// Whether the log thread did not answer because it hangs in a write; the pipes are read and closed when it can.
    pub stalled: bool,
}

impl Attachment {
    /// Returns the incarnation given to [`Log::attach`].
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Returns the log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Reads what is still in the pipes of a process that has ended, then closes them.
    ///
    /// It returns when both pipes have ended, or when `grace` is over because somebody else, such as a grandchild,
    /// holds one; even then what is in the pipe at that moment is read first. Call it after the wait status is known:
    /// the end of a pipe says nothing about the end of a process.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the drain goes on by itself when this future is dropped; only its answer is lost.
    pub async fn drain(self, grace: Duration) -> Drained {
        let (reply, drained) = oneshot::channel();
        let deadline = Instant::now().checked_add(grace);
        if self.pump.send(Command::Drain { id: self.id, deadline, reply }).is_err() {
            return Drained { held: false, stalled: true };
        }
        match tokio::time::timeout(grace.saturating_add(STALL_LIMIT), drained).await {
            Ok(Ok(held)) => Drained { held, stalled: false },
            Ok(Err(_)) | Err(_) => Drained { held: false, stalled: true },
        }
    }
}

/// Takes a lock; a panic elsewhere leaves lines and maps in a usable state, and logs must not spread it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
