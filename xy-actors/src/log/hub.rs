//! The handles: a hub of named logs, a log, and an attachment of one incarnation's pipes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::LogSettings;
use super::buffer::Buffer;
use super::file::{Place, Root};
use super::follow::{Cursor, LogFollower};
use super::handover::{AttachmentState, HubState, LogState, StateError};
use super::holder::{self, PipeHolder};
use super::marker::Marker;
use super::name::{self, NameFault};
use super::pump::{Command, Pump, Watched};
use super::query::LogQuery;
use super::reader::LogReader;
use super::record::{LogLine, Stream};
use super::ring::{Inherited, Pool};
use super::watch::LineWatch;

/// The usual limit for [`Attachment::drain`].
pub const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// How long after its deadline a drain waits for a log thread that is stuck in a write to a hanging disk.
const STALL_LIMIT: Duration = Duration::from_secs(2);

/// How long a hand-over waits for a log thread that is stuck in such a write.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

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
    /// A pipe could not be duplicated for another hub.
    #[error("duplicating a pipe failed")]
    Duplicate(#[source] io::Error),
    /// What was handed over cannot be taken up.
    #[error("the logs were not taken up")]
    State(#[source] StateError),
    /// The memory with the recent lines cannot be passed on, or not be taken up.
    #[error("passing on the memory of the logs failed")]
    Memory(#[source] io::Error),
    /// The log thread has ended, because its logs were handed over.
    #[error("the log thread has ended")]
    Gone,
    /// The log thread hangs in a write, as it does when the disk hangs.
    #[error("the log thread hangs in a write")]
    Stalled,
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
    directory: Option<Arc<Root>>,
    /// Where the recent lines are.
    pool: Arc<Pool>,
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
        Self::with_pool(directory, Arc::default())
    }

    fn with_pool(directory: Option<PathBuf>, pool: Arc<Pool>) -> Self {
        let directory = directory.as_deref().map(Root::new);
        let engine = Arc::new(Engine { directory, pool, pump: Mutex::new(None) });
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
        let buffer = Buffer::new(settings.buffer, &self.inner.engine.pool);
        let log = self.log(name, State::new(settings, buffer));
        logs.insert(name.to_owned(), log.clone());
        Ok(log)
    }

    /// Returns the log of a child path, if it is open, and leaves its settings alone.
    pub fn find(&self, name: &str) -> Option<Log> {
        locked(&self.inner.logs).get(name).cloned()
    }

    fn log(&self, name: &str, state: State) -> Log {
        let engine = Arc::clone(&self.inner.engine);
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            directory: engine.directory.clone(),
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        Log { inner: Arc::new(LogInner { engine, shared }) }
    }

    /// Stops the log thread between two reads and says everything it knows, for another hub to go on with; nothing that
    /// was read before is missing from it, and what is written meanwhile waits in the pipes.
    ///
    /// Everything noted before is taken up first. The thread stands still as long as the answer is held.
    ///
    /// # Errors
    ///
    /// [`LogError::Start`] if there is no thread yet and it cannot be started, [`LogError::Duplicate`] if a pipe cannot be
    /// duplicated, [`LogError::Memory`] if the memory of the recent lines cannot, [`LogError::Gone`] if the thread has
    /// ended, and [`LogError::Stalled`] if it hangs in a write for longer than 10 s.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a hub whose state is not asked for any more goes on by itself.
    pub async fn hand_over(&self) -> Result<HandOver, LogError> {
        let pump = self.inner.engine.pump()?;
        let (reply, parts) = oneshot::channel();
        let (verdict, awaited) = std::sync::mpsc::sync_channel(1);
        pump.send(Command::HandOver { reply, verdict: awaited }).map_err(|_| LogError::Gone)?;
        let parts = tokio::time::timeout(HAND_OVER_PATIENCE, parts).await.map_err(|_| LogError::Stalled)?;
        let parts = parts.map_err(|_| LogError::Gone)?.map_err(LogError::Duplicate)?;
        // Settings may change meanwhile, and with them where the lines are: not so what the state tells of.
        let memory = self.inner.engine.pool.hold().map_err(LogError::Memory)?;
        let held = Held(Some(Arc::clone(&self.inner.engine.pool)));
        // The logs that were never written to are not known to the thread.
        let mut shares: BTreeMap<String, Arc<Shared>> = BTreeMap::new();
        for (name, log) in &*locked(&self.inner.logs) {
            shares.insert(name.clone(), Arc::clone(&log.inner.shared));
        }
        shares.extend(parts.logs.iter().map(|part| (part.shared.name.clone(), Arc::clone(&part.shared))));
        let mut state = HubState { has_memory: memory.is_some(), ..HubState::default() };
        for (name, shared) in &shares {
            let part = parts.logs.iter().find(|part| Arc::ptr_eq(&part.shared, shared));
            let known = shared.lock();
            state.logs.push(LogState {
                name: name.clone(),
                settings: known.settings,
                buffer: known.buffer.state(),
                dropped_lines: known.dropped_lines,
                complete_from: known.complete_from,
                last_error: known.last_error.clone(),
                loss: part.map_or_else(|| known.inherited_loss.clone(), |part| part.loss.clone()),
                attachments: part.map(|part| part.attachments.clone()).unwrap_or_default(),
            });
        }
        let mut descriptors = parts.pipes;
        descriptors.extend(memory);
        Ok(HandOver { state, descriptors, shares: shares.into_values().collect(), verdict, held })
    }

    /// Creates a hub that goes on where another one stopped, with the same line numbers and what memory held; reading
    /// goes on at once. If it fails, nothing was read.
    ///
    /// The descriptors are those of [`HandOver::into_parts`], in the same order. A follower of the other hub goes on with
    /// [`Cursor::At`] its position. Each attachment that still had a pipe is returned; its log says its name. Notes and
    /// line watches of the other hub are not part of the state, see [`Attachment::watch`].
    ///
    /// # Errors
    ///
    /// [`LogError::State`] if the number of descriptors is not that of the state or the state contradicts itself,
    /// [`LogError::Memory`] if the recent lines are not in the memory that it tells of; else as [`Log::attach`].
    pub fn take_up(
        directory: Option<PathBuf>,
        state: HubState,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(Self, Vec<Attachment>), LogError> {
        let damaged = || LogError::State(StateError::Damaged);
        if descriptors.len() != state.descriptors() || state.logs.iter().any(|log| !log.buffer.is_sound()) {
            return Err(damaged());
        }
        let memory = if state.has_memory { descriptors.pop() } else { None };
        let mut pipes: Vec<Option<OwnedFd>> = descriptors.into_iter().map(Some).collect();
        let inherited = memory.map(Inherited::new);
        let pool = Arc::new(inherited.as_ref().map(Inherited::pool).unwrap_or_default());
        let hub = Self::with_pool(directory, Arc::clone(&pool));
        let mut watched = Vec::new();
        for known in state.logs {
            let buffer = Buffer::restored(known.settings.buffer, known.buffer, &pool, inherited.as_ref());
            let mut state = State::new(known.settings, buffer.map_err(LogError::Memory)?);
            state.dropped_lines = known.dropped_lines;
            state.complete_from = known.complete_from;
            state.last_error = known.last_error;
            state.failing = known.loss.is_some();
            state.inherited_loss = known.loss;
            state.continued = true;
            let log = hub.log(&known.name, state);
            locked(&hub.inner.logs).insert(known.name, log.clone());
            for AttachmentState { incarnation, pipes: parts } in known.attachments {
                let mut inherited = Vec::new();
                for part in parts {
                    let index = usize::try_from(part.descriptor).ok();
                    let pipe = index.and_then(|index| pipes.get_mut(index)?.take()).ok_or_else(damaged)?;
                    inherited.push((part.stream, pipe, part.carry));
                }
                watched.push((incarnation, log.watch_pipes(inherited)?, log.clone()));
            }
        }
        // What can fail is done: nothing was read or changed before, so that the other one could go on.
        pool.let_go();
        let attach =
            |(incarnation, watched, log): (_, _, Log)| log.attach_watched_pipes(incarnation, watched, None);
        let attachments = watched.into_iter().map(attach).collect::<Result<_, _>>()?;
        Ok((hub, attachments))
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

/// A hub that stands still, and what it knows; see [`LogHub::hand_over`].
///
/// Dropping it lets the hub go on as if nothing had been: that is for a program that could not be exchanged.
#[derive(Debug)]
#[must_use = "the hub stands still as long as this is held"]
pub struct HandOver {
    state: HubState,
    descriptors: Vec<OwnedFd>,
    shares: Vec<Arc<Shared>>,
    verdict: SyncSender<()>,
    held: Held,
}

/// The memory of the recent lines stays as it is for as long as this is not dropped.
#[derive(Debug)]
struct Held(Option<Arc<Pool>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(pool) = &self.0 {
            pool.let_go();
        }
    }
}

impl HandOver {
    /// Returns what the hub knows.
    pub fn state(&self) -> &HubState {
        &self.state
    }

    /// Returns duplicates of the pipes, and a descriptor of the memory with the recent lines, closed on exec like all
    /// descriptors, in the order that the state refers to.
    pub fn descriptors(&self) -> &[OwnedFd] {
        &self.descriptors
    }

    /// Ends the hub, whose logs are closed, and leaves everything to another one.
    pub fn into_parts(mut self) -> (HubState, Vec<OwnedFd>) {
        // For good: what this one no longer needs, the other one does.
        self.held.0 = None;
        // Before the thread hears of it: nothing may be added from here on.
        self.shares.iter().for_each(|shared| shared.close());
        // A thread that has ended keeps nothing either.
        let _ = self.verdict.send(());
        (self.state, self.descriptors)
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
    directory: Option<Arc<Root>>,
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
    /// Why the file grows beyond its limits, if it does.
    pub(super) unrotated: Option<Box<str>>,
    /// Remarks that were dropped and of which the log does not tell yet.
    pub(super) unsaid: u32,
    /// The number after the newest line that is missing from the files.
    pub(super) complete_from: u64,
    pub(super) closed: bool,
    /// What another hub could not write, until the log thread knows of it.
    pub(super) inherited_loss: Option<(u64, String)>,
    /// Whether the files were continued by a hub that took over, so that they cannot end early.
    pub(super) continued: bool,
}

impl State {
    fn new(settings: LogSettings, buffer: Buffer) -> Self {
        Self {
            buffer,
            settings,
            dropped_lines: 0,
            last_error: None,
            failing: false,
            unrotated: None,
            unsaid: 0,
            complete_from: 0,
            closed: false,
            inherited_loss: None,
            continued: false,
        }
    }

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
        self.directory.as_ref().map(|root| Place::new(root, &self.name))
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
    /// Why the current file grows beyond its limits, with its path, if it cannot be rotated at present. That costs no line; it
    /// is tried again with the output of each next second.
    pub unrotated: Option<String>,
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
        self.inner.shared.place().map(|place| place.path())
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
            unrotated: state.unrotated.as_deref().map(str::to_owned),
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
        self.attach_pipes(incarnation, both(stdout, stderr), None)
    }

    /// Does what [`Log::attach`] does, and shows every line of these pipes to `watch` until it has seen enough.
    ///
    /// # Errors
    ///
    /// Those of [`Log::attach`].
    pub fn attach_watched(
        &self,
        incarnation: u64,
        stdout: OwnedFd,
        stderr: OwnedFd,
        watch: LineWatch,
    ) -> Result<Attachment, LogError> {
        self.attach_pipes(incarnation, both(stdout, stderr), Some(watch))
    }

    fn attach_pipes(
        &self,
        incarnation: u64,
        pipes: Vec<(Stream, OwnedFd, Vec<u8>)>,
        watch: Option<LineWatch>,
    ) -> Result<Attachment, LogError> {
        self.attach_watched_pipes(incarnation, self.watch_pipes(pipes)?, watch)
    }

    /// Does the part of [`Log::attach`] that the system can refuse.
    fn watch_pipes(&self, pipes: Vec<(Stream, OwnedFd, Vec<u8>)>) -> Result<Watched, LogError> {
        let shared = &self.inner.shared;
        if shared.lock().closed {
            return Err(LogError::Closed { name: shared.name.clone() });
        }
        let watched = self.inner.engine.pump()?.watch_all(pipes);
        watched.map_err(|source| LogError::Watch { name: shared.name.clone(), source })
    }

    fn attach_watched_pipes(
        &self,
        incarnation: u64,
        watched: Watched,
        watch: Option<LineWatch>,
    ) -> Result<Attachment, LogError> {
        let pump = self.inner.engine.pump()?;
        let attached = pump.attach(&self.inner.shared, incarnation, watched, watch);
        let (id, has_ended) = attached.ok_or(LogError::Gone)?;
        Ok(Attachment { log: self.clone(), pump, id, incarnation, has_ended })
    }

    /// Adds a line of our own, stream [`Stream::Xy`]; newlines in it become spaces.
    ///
    /// It is added by the log thread, in the order of calls and after what was read before; see [`LogHub::flush`].
    /// Notes made while a hanging disk blocks that thread are bounded: further ones are counted as dropped lines, and the next
    /// one that is taken says how many they were.
    pub fn note(&self, text: &str) {
        let unsaid = std::mem::take(&mut self.inner.shared.lock().unsaid);
        let noun = if unsaid == 1 { "remark" } else { "remarks" };
        let is_told =
            unsaid == 0 || self.queue(format!("gap: {unsaid} {noun} dropped while the log did not keep up"));
        let is_queued = self.queue(text.to_owned());
        if !is_told || !is_queued {
            let mut state = self.inner.shared.lock();
            state.dropped_lines += u64::from(!is_queued);
            state.unsaid += u32::from(!is_queued) + if is_told { 0 } else { unsaid };
        }
    }

    /// Hands a line of ours to the log thread; returns whether it took it.
    fn queue(&self, text: String) -> bool {
        match self.inner.engine.pump() {
            Ok(pump) => pump.note(Arc::clone(&self.inner.shared), text),
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(log = self.name(), reason, "{error}; a line of ours is dropped");
                false
            }
        }
    }

    /// Marks the start of an incarnation; call it before [`Log::attach`], so that it precedes the output.
    ///
    /// If the files end without the exit of an incarnation, as they do when the host was killed, a line before it says
    /// that output may be missing: what was read and not written yet.
    pub fn mark_start(&self, incarnation: u64, pid: u32) {
        self.mark(Marker::Started { incarnation, pid });
    }

    /// Marks the end of an incarnation; call it after [`Attachment::drain`].
    ///
    /// What its pipes hold when the marker is added stands before it, also after a drain that [stalled](Drained::stalled);
    /// what somebody else writes to them later stands behind it.
    pub fn mark_exit(&self, incarnation: u64, pid: u32, cause: &str) {
        self.mark(Marker::Exited { incarnation, pid, cause });
    }

    fn mark(&self, marker: Marker<'_>) {
        self.note(&marker.to_string());
    }

    /// Returns the last `n` lines, or as many as are held.
    pub fn tail(&self, n: usize) -> Vec<LogLine> {
        let state = self.inner.shared.lock();
        let next = state.buffer.held().end;
        state.buffer.copy(next.saturating_sub(n as u64), n, usize::MAX)
    }

    /// Reads what files and memory hold and, if the query says so, what follows: also of earlier runs of the host.
    ///
    /// Lines that come from files have number 0, unless the reader had fallen behind. While the files lack
    /// lines that memory holds, they are read only for what is older, and with [`LogQuery::previous`] not at all.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn read(&self, query: LogQuery) -> LogReader {
        LogReader::begin(self.clone(), query).await
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Asks the log thread for something; `None` if it has ended.
    pub(super) fn send(&self, command: Command) -> Option<()> {
        self.inner.engine.pump().ok()?.send(command).ok()
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
    has_ended: Arc<AtomicBool>,
}

/// What a drain found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Whether somebody still held a pipe when it was closed.
    pub held: bool,
    /// Who that was, as far as it could be found out.
    pub holders: Vec<PipeHolder>,
    /// Whether the log thread did not answer because it hangs in a write; the pipes are read and closed when it can.
    pub stalled: bool,
}

impl Attachment {
    /// Returns the incarnation given to [`Log::attach`].
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Shows every line that is read from now on to `watch`, in place of an earlier one.
    ///
    /// For pipes that were taken up; [`Log::attach_watched`] misses nothing.
    pub fn watch(&self, watch: LineWatch) {
        // A thread that has ended reads no more lines.
        let _ = self.pump.send(Command::Watch { id: self.id, watch });
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
        // The log thread hears of the end of a pipe when its process ends, and is most often done by now.
        if self.has_ended.load(Ordering::Acquire) {
            return Drained::default();
        }
        let (reply, drained) = oneshot::channel();
        let deadline = Instant::now().checked_add(grace);
        if self.pump.send(Command::Drain { id: self.id, deadline, reply }).is_err() {
            return Drained { stalled: true, ..Drained::default() };
        }
        match tokio::time::timeout(grace.saturating_add(STALL_LIMIT), drained).await {
            Ok(Ok(held)) if held.is_empty() => Drained::default(),
            Ok(Ok(held)) => {
                let holders = tokio::task::spawn_blocking(move || holder::holders(&held)).await;
                Drained { held: true, holders: holders.unwrap_or_default(), stalled: false }
            }
            Ok(Err(_)) | Err(_) => Drained { stalled: true, ..Drained::default() },
        }
    }
}

/// The pipes of a process that was just started.
fn both(stdout: OwnedFd, stderr: OwnedFd) -> Vec<(Stream, OwnedFd, Vec<u8>)> {
    vec![(Stream::Out, stdout, Vec::new()), (Stream::Err, stderr, Vec::new())]
}

/// Takes a lock; a panic elsewhere leaves lines and maps in a usable state, and logs must not spread it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
