//! The log thread: reads every pipe of a hub in turn, and is the only writer of its buffers and files.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::oneshot;

use super::file::{Limits, LogFile, Place};
use super::hub::{Shared, locked};
use super::lines::{LineCutter, MAX_LINE};
use super::past::Past;
use super::record::{Stamp, Stream};

/// What one read takes at most: the usual capacity of a pipe.
const READ_SIZE: usize = 64 << 10;

/// How often one pipe is read before the next one has its turn.
const TURN_READS: usize = 4;

/// How many turns there are between two looks at events, requests and deadlines.
const ROUND_TURNS: usize = 32;

/// How often a pipe is read at most before it is closed: 1 MiB, the largest pipe an ordinary user can make.
const FINAL_READS: usize = (1 << 20) / READ_SIZE;

/// Above this size the memory for records is freed after use; only floods of tiny lines need more.
const KEPT_RECORDS: usize = 256 << 10;

/// How many notes wait for the thread at most.
const MAX_NOTES: usize = 4_096;

const WAKER: Token = Token(0);

/// Is shown every line of an attachment, without its newline, until it returns `true`.
///
/// It runs on the log thread and under the log's lock: it must be quick and must not block.
pub(crate) struct LineWatch(Box<WatchFn>);

type WatchFn = dyn FnMut(&[u8]) -> bool + Send;

impl LineWatch {
    pub(crate) fn new(watch: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        Self(Box::new(watch))
    }
}

impl fmt::Debug for LineWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineWatch")
    }
}

/// What the handles ask of the thread; it takes the requests in order.
#[derive(Debug)]
pub(super) enum Command {
    Attach {
        id: u64,
        shared: Arc<Shared>,
        pipes: [Incoming; 2],
        watch: Option<LineWatch>,
    },
    /// Close the pipes of an attachment once they have ended or at the deadline; answers whether one was held.
    Drain {
        id: u64,
        deadline: Option<Instant>,
        reply: oneshot::Sender<bool>,
    },
    Note {
        shared: Arc<Shared>,
        text: String,
    },
    Flush(oneshot::Sender<()>),
    /// Open the log's files as they are after all lines read so far.
    Past {
        shared: Arc<Shared>,
        reply: oneshot::Sender<Past>,
    },
    /// Close the pipes, end the log.
    Close(Arc<Shared>),
    /// Nobody holds the log any more; its pipes are still read until they end.
    Forget(Arc<Shared>),
}

/// A pipe that is registered under its token.
#[derive(Debug)]
pub(super) struct Incoming {
    token: Token,
    stream: Stream,
    file: File,
}

/// The handle of the thread; dropping it lets the thread end once all pipes have.
#[derive(Debug)]
pub(super) struct Pump {
    queue: Arc<Queue>,
    registry: Registry,
    waker: Waker,
    next_token: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
}

/// Not a channel: the thread waits in `Poll`, and what is queued is bounded by the children, except for notes.
#[derive(Debug, Default)]
struct QueueState {
    commands: Vec<Command>,
    notes: usize,
    /// All handles are gone.
    released: bool,
    /// The thread has ended.
    dead: bool,
}

impl Pump {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKER)?;
        let queue = Arc::new(Queue::default());
        let worker = Worker::new(poll, Arc::clone(&queue));
        thread::Builder::new().name("xy-log".into()).spawn(move || worker.run())?;
        Ok(Self { queue, registry, waker, next_token: AtomicUsize::new(WAKER.0 + 1) })
    }

    /// Queues a command; gives it back if the thread has ended.
    pub(super) fn send(&self, command: Command) -> Result<(), Command> {
        let mut state = locked(&self.queue.state);
        if state.dead {
            return Err(command);
        }
        state.notes += usize::from(matches!(command, Command::Note { .. }));
        state.commands.push(command);
        let first = state.commands.len() == 1;
        drop(state);
        if first {
            self.wake();
        }
        Ok(())
    }

    /// Queues a note; `false` if too many wait already or the thread has ended.
    pub(super) fn note(&self, shared: Arc<Shared>, text: String) -> bool {
        // Checked apart from the push: a few notes more in a race do no harm.
        let room = locked(&self.queue.state).notes < MAX_NOTES;
        room && self.send(Command::Note { shared, text }).is_ok()
    }

    /// Watches two pipes and hands them to the thread; returns the id of the attachment unless the thread has ended.
    pub(super) fn attach(
        &self,
        shared: &Arc<Shared>,
        pipes: [(Stream, OwnedFd); 2],
        watch: Option<LineWatch>,
    ) -> io::Result<Option<u64>> {
        let [first, second] = pipes.map(|(stream, pipe)| {
            let token = Token(self.next_token.fetch_add(1, Ordering::Relaxed));
            Incoming { token, stream, file: File::from(pipe) }
        });
        self.watch(&first)?;
        if let Err(error) = self.watch(&second) {
            unwatch(&self.registry, &first.file);
            return Err(error);
        }
        let id = first.token.0 as u64;
        match self.send(Command::Attach { id, shared: Arc::clone(shared), pipes: [first, second], watch }) {
            Ok(()) => Ok(Some(id)),
            Err(_) => Ok(None),
        }
    }

    fn watch(&self, pipe: &Incoming) -> io::Result<()> {
        // One blocking pipe would stop the reading of all.
        let flags = OFlag::from_bits_retain(fcntl(pipe.file.as_fd(), FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(pipe.file.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        self.registry.register(&mut SourceFd(&pipe.file.as_raw_fd()), pipe.token, Interest::READABLE)
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            // It cannot fail on the supported systems; if it does, the next output or deadline wakes the thread.
            tracing::error!(%error, "log thread could not be woken");
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        locked(&self.queue.state).released = true;
        self.wake();
    }
}

fn unwatch(registry: &Registry, pipe: &File) {
    // Closing the descriptor, which follows, would do it too.
    let _ = registry.deregister(&mut SourceFd(&pipe.as_raw_fd()));
}

/// Tells the handles that the thread has ended, also when it panicked.
struct DeadOnDrop(Arc<Queue>);

impl Drop for DeadOnDrop {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.dead = true;
        // Reply senders go with their commands, so that nobody waits for an answer.
        let unanswered = std::mem::take(&mut state.commands);
        drop(state);
        drop(unanswered);
    }
}

#[derive(Debug)]
struct Pipe {
    file: File,
    stream: Stream,
    cutter: LineCutter,
    sink: usize,
    attachment: u64,
    /// Whether it is in the queue of pipes to read.
    ready: bool,
}

/// One incarnation's pipes.
#[derive(Debug)]
struct Attached {
    open: Vec<Token>,
    watch: Option<LineWatch>,
    held: bool,
    deadline: Option<Instant>,
    reply: Option<oneshot::Sender<bool>>,
}

/// Where the lines of one log go.
#[derive(Debug)]
struct Sink {
    shared: Arc<Shared>,
    file: Option<LogFile<Place>>,
    pipes: usize,
    forgotten: bool,
}

/// The watch of one attachment, if it has one that has not seen enough.
struct Watched<'a>(Option<&'a mut Option<LineWatch>>);

impl<'a> Watched<'a> {
    fn of(attached: &'a mut HashMap<u64, Attached>, id: u64) -> Self {
        Self(attached.get_mut(&id).map(|attached| &mut attached.watch).filter(|watch| watch.is_some()))
    }

    fn show(&mut self, line: &[u8]) {
        if let Some(slot) = &mut self.0
            && let Some(LineWatch(watch)) = slot
            && watch(line)
        {
            **slot = None;
        }
    }
}

enum Read {
    More,
    Empty,
    End,
}

#[derive(Debug)]
struct Worker {
    poll: Poll,
    queue: Arc<Queue>,
    pipes: HashMap<Token, Pipe>,
    attached: HashMap<u64, Attached>,
    sinks: HashMap<usize, Sink>,
    deadlines: BTreeSet<(Instant, u64)>,
    ready: VecDeque<Token>,
    /// One for all pipes.
    buffer: Box<[u8]>,
    /// One for all files.
    records: Vec<u8>,
}

impl Worker {
    fn new(poll: Poll, queue: Arc<Queue>) -> Self {
        Self {
            poll,
            queue,
            pipes: HashMap::new(),
            attached: HashMap::new(),
            sinks: HashMap::new(),
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            buffer: vec![0; READ_SIZE].into(),
            records: Vec::new(),
        }
    }

    fn run(mut self) {
        let _dead = DeadOnDrop(Arc::clone(&self.queue));
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "log thread ends: polling failed");
                    break;
                }
            }
            for event in &events {
                self.enqueue(event.token());
            }
            let released = self.take_commands();
            // First come, first served: no pipe waits for more than one turn of each other pipe.
            for _ in 0..self.ready.len().min(ROUND_TURNS) {
                if let Some(token) = self.ready.pop_front() {
                    self.turn(token);
                }
            }
            self.expire();
            if released && self.pipes.is_empty() {
                break;
            }
        }
        for sink in self.sinks.values_mut() {
            sink.finish();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        self.deadlines.first().map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()))
    }

    /// Handles what was asked; returns whether all handles are gone.
    fn take_commands(&mut self) -> bool {
        let mut state = locked(&self.queue.state);
        let commands = std::mem::take(&mut state.commands);
        state.notes = 0;
        let released = state.released;
        drop(state);
        for command in commands {
            match command {
                Command::Attach { id, shared, pipes, watch } => self.on_attach(id, &shared, pipes, watch),
                Command::Drain { id, deadline, reply } => self.on_drain(id, deadline, reply),
                Command::Note { shared, text } => self.on_note(&shared, &text),
                // A dropped caller is no error.
                Command::Flush(reply) => _ = reply.send(()),
                Command::Past { shared, reply } => _ = reply.send(self.past(&shared)),
                Command::Close(shared) => self.on_close(&shared),
                Command::Forget(shared) => self.on_forget(&shared),
            }
        }
        released
    }

    fn on_attach(&mut self, id: u64, shared: &Arc<Shared>, pipes: [Incoming; 2], watch: Option<LineWatch>) {
        let Some((sink, log)) = self.sink(shared) else {
            for pipe in &pipes {
                unwatch(self.poll.registry(), &pipe.file);
            }
            return;
        };
        log.pipes += pipes.len();
        let open = pipes.iter().map(|pipe| pipe.token).collect();
        self.attached.insert(id, Attached { open, watch, held: false, deadline: None, reply: None });
        for Incoming { token, stream, file } in pipes {
            let cutter = LineCutter::default();
            self.pipes.insert(token, Pipe { file, stream, cutter, sink, attachment: id, ready: false });
            // Its first event may have been reported before it was known here.
            self.enqueue(token);
        }
    }

    fn on_drain(&mut self, id: u64, deadline: Option<Instant>, reply: oneshot::Sender<bool>) {
        match self.attached.get_mut(&id) {
            Some(attached) => {
                attached.reply = Some(reply);
                attached.deadline = deadline;
                self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
            }
            // Both pipes ended before.
            None => _ = reply.send(false),
        }
    }

    fn on_note(&mut self, shared: &Arc<Shared>, text: &str) {
        let Some((key, _)) = self.sink(shared) else { return };
        let mut bytes = text.replace('\n', " ").into_bytes();
        bytes.truncate(MAX_LINE);
        if let Some(sink) = self.sinks.get_mut(&key) {
            sink.write(Stream::Xy, &mut self.records, |emit| emit(&bytes, false));
        }
    }

    /// Only this thread writes, so what it opens here ends exactly before the next line.
    fn past(&self, shared: &Shared) -> Past {
        let (next, incomplete) = {
            let state = shared.lock();
            (state.buffer.held().end, state.lacks_held_lines())
        };
        let files = match shared.place() {
            Some(place) if !incomplete => place.readers().unwrap_or_default(),
            _ => Vec::new(),
        };
        Past { next, files }
    }

    fn on_close(&mut self, shared: &Arc<Shared>) {
        let key = key(shared);
        let tokens = self.pipes.iter().filter(|(_, pipe)| pipe.sink == key).map(|(token, _)| *token);
        for token in tokens.collect::<Vec<_>>() {
            self.exhaust(token);
        }
        if let Some(mut sink) = self.sinks.remove(&key) {
            sink.finish();
        }
        shared.close();
    }

    fn on_forget(&mut self, shared: &Arc<Shared>) {
        if let Some(sink) = self.sinks.get_mut(&key(shared)) {
            sink.forgotten = true;
            self.release(key(shared));
        }
    }

    /// Returns the sink of a log, made when it is first needed; none for a closed log.
    fn sink(&mut self, shared: &Arc<Shared>) -> Option<(usize, &mut Sink)> {
        if shared.lock().closed {
            return None;
        }
        let key = key(shared);
        let sink = self.sinks.entry(key).or_insert_with(|| Sink {
            shared: Arc::clone(shared),
            file: shared.place().map(LogFile::new),
            pipes: 0,
            forgotten: false,
        });
        Some((key, sink))
    }

    /// Drops the sink of a log that nobody can reach any more.
    fn release(&mut self, key: usize) {
        if self.sinks.get(&key).is_some_and(|sink| sink.forgotten && sink.pipes == 0)
            && let Some(mut sink) = self.sinks.remove(&key)
        {
            sink.finish();
            sink.shared.close();
        }
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(pipe) = self.pipes.get_mut(&token)
            && !pipe.ready
        {
            pipe.ready = true;
            self.ready.push_back(token);
        }
    }

    /// Reads one pipe for a bounded while and queues it again if there may be more.
    fn turn(&mut self, token: Token) {
        for _ in 0..TURN_READS {
            match self.read(token) {
                Read::More => {}
                Read::Empty => {
                    if let Some(pipe) = self.pipes.get_mut(&token) {
                        pipe.ready = false;
                    }
                    return;
                }
                Read::End => return self.remove(token, false),
            }
        }
        self.ready.push_back(token);
    }

    /// Reads what is in a pipe now, then closes it.
    fn exhaust(&mut self, token: Token) {
        for _ in 0..FINAL_READS {
            match self.read(token) {
                Read::More => {}
                Read::Empty => break,
                Read::End => return self.remove(token, false),
            }
        }
        self.remove(token, true);
    }

    fn read(&mut self, token: Token) -> Read {
        let Some(pipe) = self.pipes.get_mut(&token) else { return Read::End };
        let count = loop {
            match pipe.file.read(&mut self.buffer) {
                Ok(0) => return Read::End,
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Empty,
                Err(error) => {
                    tracing::warn!(%error, "reading a child's output failed");
                    return Read::End;
                }
            }
        };
        if let Some(sink) = self.sinks.get_mut(&pipe.sink) {
            let bytes = &self.buffer[..count];
            let mut watch = Watched::of(&mut self.attached, pipe.attachment);
            sink.write(pipe.stream, &mut self.records, |emit| {
                pipe.cutter.push(bytes, |line, partial| {
                    watch.show(line);
                    emit(line, partial);
                });
            });
        }
        Read::More
    }

    /// Closes a pipe; `held` says that it had not ended.
    fn remove(&mut self, token: Token, held: bool) {
        let Some(mut pipe) = self.pipes.remove(&token) else { return };
        unwatch(self.poll.registry(), &pipe.file);
        if let Some(sink) = self.sinks.get_mut(&pipe.sink) {
            let mut watch = Watched::of(&mut self.attached, pipe.attachment);
            sink.write(pipe.stream, &mut self.records, |emit| {
                pipe.cutter.finish(|line, partial| {
                    watch.show(line);
                    emit(line, partial);
                });
            });
            sink.pipes -= 1;
        }
        let (sink, attachment) = (pipe.sink, pipe.attachment);
        // Before the answer, which promises that it is closed.
        drop(pipe);
        self.release(sink);
        let Some(attached) = self.attached.get_mut(&attachment) else { return };
        attached.held |= held;
        attached.open.retain(|open| *open != token);
        if attached.open.is_empty()
            && let Some(attached) = self.attached.remove(&attachment)
        {
            if let Some(deadline) = attached.deadline {
                self.deadlines.remove(&(deadline, attachment));
            }
            if let Some(reply) = attached.reply {
                // A dropped caller is no error.
                let _ = reply.send(attached.held);
            }
        }
    }

    /// Closes the pipes of drains whose time is over.
    fn expire(&mut self) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > Instant::now() {
                break;
            }
            self.deadlines.pop_first();
            let open = self.attached.get(&id).map(|attached| attached.open.clone());
            for token in open.unwrap_or_default() {
                self.exhaust(token);
            }
        }
    }
}

/// Names a log within the thread; unique because its sink keeps the log's memory alive.
fn key(shared: &Arc<Shared>) -> usize {
    Arc::as_ptr(shared).addr()
}

impl Sink {
    /// Takes the lines that `cut` emits: into the buffer under one lock, to the file with one write, one wake-up.
    fn write(
        &mut self,
        stream: Stream,
        records: &mut Vec<u8>,
        cut: impl FnOnce(&mut dyn FnMut(&[u8], bool)),
    ) {
        let now = Instant::now();
        let stamp = Stamp::now();
        let recorded = self.file.as_ref().is_some_and(|file| file.is_due(now));
        let mut lines = 0;
        records.clear();
        let mut state = self.shared.lock();
        cut(&mut |bytes, partial| {
            lines += 1;
            state.buffer.push(stream, stamp.unix_ms, bytes, partial);
            if recorded {
                stamp.record(stream, partial, bytes, records);
            }
        });
        let limits = Limits { max_size: state.settings.max_size, keep: state.settings.keep };
        drop(state);
        if lines == 0 {
            return;
        }
        self.shared.changed.notify_waiters();
        if let Some(file) = &mut self.file {
            let before = (file.dropped(), file.is_failing());
            if recorded {
                file.append(records, limits, &stamp, now);
            } else {
                file.skip(lines);
            }
            self.report(before);
        }
        if records.capacity() > KEPT_RECORDS {
            *records = Vec::new();
        }
    }

    /// Ends the file.
    fn finish(&mut self) {
        if let Some(file) = &mut self.file {
            let settings = self.shared.lock().settings;
            let before = (file.dropped(), file.is_failing());
            let limits = Limits { max_size: settings.max_size, keep: settings.keep };
            file.finish(limits, &Stamp::now(), Instant::now());
            self.report(before);
        }
    }

    /// Makes the file's troubles known if there are or just were any.
    fn report(&self, (dropped, failing): (u64, bool)) {
        let Some(file) = &self.file else { return };
        if !failing && !file.is_failing() {
            return;
        }
        let mut state = self.shared.lock();
        let missing = file.dropped() - dropped;
        if missing > 0 {
            // Only this thread adds lines, and the missing ones are among the newest.
            state.complete_from = state.buffer.held().end;
        }
        state.dropped_lines += missing;
        state.failing = file.is_failing();
        state.last_error = file.last_error().map(str::to_owned);
        drop(state);
        if !failing {
            let error = file.last_error().unwrap_or_default();
            tracing::warn!(log = self.shared.name, error, "log file cannot be written, lines are dropped");
        }
    }
}
