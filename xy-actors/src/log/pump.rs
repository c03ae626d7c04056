//! The log thread: reads every pipe of a hub in turn, and is the only writer of its buffers and files.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use tokio::sync::oneshot;

use super::handover::{AttachmentState, PipeState};
use super::hub::{Shared, locked};
use super::lines::{LineCutter, MAX_LINE, Piece};
use super::marker::Marker;
use super::past::Past;
use super::record::Stream;
use super::sink::Sink;
use super::watch::LineWatch;

/// What one read takes at most: the usual capacity of a pipe.
const READ_SIZE: usize = 64 << 10;

/// How often one pipe is read before the next one has its turn.
const TURN_READS: usize = 4;

/// How many turns there are between two looks at events, requests and deadlines.
const ROUND_TURNS: usize = 32;

/// How much a pipe holds that cannot be asked: more than the largest that an ordinary user can make.
const LARGEST_PIPE: usize = 1 << 20;

/// How many notes wait for the thread at most.
const MAX_NOTES: usize = 4_096;

/// How long it waits for more to come when output comes fast.
///
/// A reader that wakes for every short write is slower itself and makes the writer wake it each time.
const REST: Duration = Duration::from_micros(500);

/// How long it stays half awake after output has ended: within this time comes the marker of the exit, and after a crash the
/// next start, and neither is to pay for waking it.
const EPILOGUE: Duration = Duration::from_millis(2);

/// From how many bytes on a pipe was full: a write that does not fit into the rest of a page begins the next one, so that
/// lines leave gaps, of at most half of it.
const FULL: usize = READ_SIZE / 2;

/// How much must have come during a rest for a pipe to count as flooded.
const FLOOD: usize = 4 << 10;

/// How large a pipe becomes that was found full: the largest that an ordinary user can make.
const ENLARGED: i32 = 1 << 20;

/// How many pipes of a hub are enlarged: a quarter of what Linux lets one user have before it makes new pipes tiny.
const MAX_ENLARGED: usize = 16;

const WAKER: Token = Token(0);

/// What the handles ask of the thread; it takes the requests in order.
#[derive(Debug)]
pub(super) enum Command {
    Attach {
        id: u64,
        shared: Arc<Shared>,
        incarnation: u64,
        pipes: Vec<Incoming>,
        watch: Option<LineWatch>,
        /// Set when all pipes have ended by themselves.
        has_ended: Arc<AtomicBool>,
    },
    /// Show what is read from now on.
    Watch {
        id: u64,
        watch: LineWatch,
    },
    /// Say everything, then wait: for the end, or, if the other side is dropped, to go on.
    HandOver {
        reply: oneshot::Sender<io::Result<Parts>>,
        verdict: Receiver<()>,
    },
    /// Close the pipes of an attachment once they have ended or at the deadline; answers which were held, as inodes.
    Drain {
        id: u64,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Vec<u64>>,
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
    /// The beginning of a line that another hub has read.
    carry: Vec<u8>,
}

/// The pipes of one attachment, which are watched.
#[derive(Debug)]
pub(super) struct Watched {
    id: u64,
    pipes: Vec<Incoming>,
}

/// What the thread knows of the logs it serves.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) logs: Vec<LogPart>,
    /// Duplicates, so that the thread can go on with its own.
    pub(super) pipes: Vec<OwnedFd>,
}

/// What the thread knows of one log.
#[derive(Debug)]
pub(super) struct LogPart {
    pub(super) shared: Arc<Shared>,
    pub(super) loss: Option<(u64, String)>,
    pub(super) attachments: Vec<AttachmentState>,
}

/// The handle of the thread; dropping it lets the thread end once all pipes have.
#[derive(Debug)]
pub(super) struct Pump {
    queue: Arc<Queue>,
    registry: Registry,
    waker: Waker,
    thread: Thread,
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
    /// The thread was woken for what is queued.
    is_woken: bool,
    /// The thread looks here soon without being woken.
    looks_soon: bool,
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
        let thread = thread::Builder::new().name("xy-log".into()).spawn(move || {
            // A signal that this thread took right before the program is exchanged would be lost.
            crate::process::handover::hear_no_signals();
            worker.run();
        })?;
        let thread = thread.thread().clone();
        Ok(Self { queue, registry, waker, thread, next_token: AtomicUsize::new(WAKER.0 + 1) })
    }

    /// Queues a command; gives it back if the thread has ended.
    pub(super) fn send(&self, command: Command) -> Result<(), Command> {
        let mut state = locked(&self.queue.state);
        if state.dead {
            return Err(command);
        }
        let is_note = matches!(command, Command::Note { .. });
        state.notes += usize::from(is_note);
        state.commands.push(command);
        let comes_by_itself = state.is_woken || (is_note && state.looks_soon);
        let wakes = !comes_by_itself;
        state.is_woken |= wakes;
        drop(state);
        if wakes {
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

    /// Watches the pipes of one attachment, of which nothing is read yet.
    pub(super) fn watch_all(&self, pipes: Vec<(Stream, OwnedFd, Vec<u8>)>) -> io::Result<Watched> {
        let id = self.next_token.fetch_add(1 + pipes.len(), Ordering::Relaxed);
        let mut watched: Vec<Incoming> = Vec::with_capacity(pipes.len());
        for (token, (stream, pipe, carry)) in (id + 1..).map(Token).zip(pipes) {
            let pipe = Incoming { token, stream, file: File::from(pipe), carry };
            if let Err(error) = self.watch(&pipe) {
                watched.iter().for_each(|pipe| unwatch(&self.registry, &pipe.file));
                return Err(error);
            }
            watched.push(pipe);
        }
        Ok(Watched { id: id as u64, pipes: watched })
    }

    /// Hands pipes to the thread; returns the id of the attachment unless the thread has ended.
    pub(super) fn attach(
        &self,
        shared: &Arc<Shared>,
        incarnation: u64,
        Watched { id, pipes }: Watched,
        watch: Option<LineWatch>,
    ) -> Option<(u64, Arc<AtomicBool>)> {
        let shared = Arc::clone(shared);
        let has_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&has_ended);
        let sent = self.send(Command::Attach { id, shared, incarnation, pipes, watch, has_ended: ends });
        sent.is_ok().then_some((id, has_ended))
    }

    fn watch(&self, pipe: &Incoming) -> io::Result<()> {
        // One blocking pipe would stop the reading of all.
        let flags = OFlag::from_bits_retain(fcntl(pipe.file.as_fd(), FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(pipe.file.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        watch(&self.registry, &pipe.file, pipe.token)
    }

    fn wake(&self) {
        // It waits in `Poll` or rests.
        self.thread.unpark();
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

/// Has an event come with what is in the pipe, and with what is written to it from now on.
fn watch(registry: &Registry, pipe: &File, token: Token) -> io::Result<()> {
    registry.register(&mut SourceFd(&pipe.as_raw_fd()), token, Interest::READABLE)
}

fn unwatch(registry: &Registry, pipe: &File) {
    // Closing the descriptor, which follows, would do it too.
    let _ = registry.deregister(&mut SourceFd(&pipe.as_raw_fd()));
}

/// Makes a pipe hold more, so that its writer is not stopped while others are read; says whether it did.
#[cfg(target_os = "linux")]
fn enlarge(pipe: &File) -> bool {
    fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(ENLARGED)).is_ok()
}

/// Other systems size their pipes themselves.
#[cfg(not(target_os = "linux"))]
fn enlarge(_pipe: &File) -> bool {
    false
}

/// Returns how much a pipe holds at most; its writer may have made it larger than any of ours.
#[cfg(target_os = "linux")]
fn capacity(pipe: &File) -> usize {
    let size = fcntl(pipe.as_fd(), FcntlArg::F_GETPIPE_SZ).ok();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(LARGEST_PIPE)
}

/// Other systems do not say.
#[cfg(not(target_os = "linux"))]
fn capacity(_pipe: &File) -> usize {
    LARGEST_PIPE
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
    /// Whether its events are not wanted: in a flood each write would pay for one.
    flooded: bool,
    /// Whether it was found full once.
    enlarged: bool,
}

/// One incarnation's pipes.
#[derive(Debug)]
struct Attached {
    incarnation: u64,
    open: Vec<Token>,
    /// The inodes of pipes that had not ended when they were closed.
    held: Vec<u64>,
    deadline: Option<Instant>,
    reply: Option<oneshot::Sender<Vec<u64>>>,
    watch: Option<LineWatch>,
    /// Set when all pipes have ended by themselves, so that a drain need not ask.
    has_ended: Arc<AtomicBool>,
}

impl Attached {
    /// Shows pieces of its output to its watch.
    fn see(&mut self, stream: Stream, piece: Piece<'_>) {
        let Some(watch) = &mut self.watch else { return };
        let sees_on = match piece {
            Piece::Lines(lines) => {
                let mut lines = lines.split_inclusive(|byte| *byte == b'\n');
                lines.all(|line| watch.see(stream, line.strip_suffix(b"\n").unwrap_or(line), false))
            }
            Piece::Part(part) => watch.see(stream, part, true),
        };
        if !sees_on {
            self.watch = None;
        }
    }
}

/// How much a turn found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Nothing,
    /// Less than was asked for: the pipe was emptied.
    Little,
    /// As much as it may take.
    Much,
}

enum Read {
    Bytes(usize),
    Empty,
    End,
}

#[derive(Debug)]
struct Worker {
    poll: Poll,
    queue: Arc<Queue>,
    /// Boxed like all that is in a table of which about half is empty.
    pipes: HashMap<Token, Box<Pipe>>,
    attached: HashMap<u64, Box<Attached>>,
    sinks: HashMap<usize, Box<Sink>>,
    deadlines: BTreeSet<(Instant, u64)>,
    ready: VecDeque<Token>,
    /// How many drains wait for an answer.
    draining: usize,
    /// How many pipes were enlarged.
    enlarged: usize,
    /// Whether output has ended since it last looked at what is asked.
    is_epilogue: bool,
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
            draining: 0,
            enlarged: 0,
            is_epilogue: false,
            buffer: vec![0; READ_SIZE].into(),
            records: Vec::new(),
        }
    }

    fn run(mut self) {
        let _dead = DeadOnDrop(Arc::clone(&self.queue));
        let mut events = Events::with_capacity(256);
        loop {
            let before = Instant::now();
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
            // Whoever had to wait for this output is not in a flood.
            let hurried = before.elapsed() < REST;
            let mut most = Turn::Nothing;
            // First come, first served: no pipe waits for more than one turn of each other pipe.
            for _ in 0..self.ready.len().min(ROUND_TURNS) {
                if let Some(token) = self.ready.pop_front() {
                    most = most.max(self.turn(token, hurried));
                }
            }
            self.expire();
            if released && self.pipes.is_empty() {
                break;
            }
            if hurried && most == Turn::Little && self.draining == 0 && self.ready.len() < ROUND_TURNS {
                // Woken by a command, it goes on at once.
                thread::park_timeout(REST);
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
        let deadline = self.deadlines.first();
        let deadline = deadline.map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()));
        let epilogue = self.is_epilogue.then_some(EPILOGUE);
        deadline.into_iter().chain(epilogue).min()
    }

    /// Handles what was asked; returns whether all handles are gone.
    fn take_commands(&mut self) -> bool {
        let mut state = locked(&self.queue.state);
        let commands = std::mem::take(&mut state.commands);
        state.notes = 0;
        (state.is_woken, state.looks_soon, self.is_epilogue) = (false, false, false);
        let mut released = state.released;
        drop(state);
        for command in commands {
            match command {
                Command::Attach { id, shared, incarnation, pipes, watch, has_ended } => {
                    self.on_attach(id, &shared, incarnation, pipes, (watch, has_ended));
                }
                Command::Watch { id, watch } => {
                    if let Some(attached) = self.attached.get_mut(&id) {
                        attached.watch = Some(watch);
                    }
                }
                Command::HandOver { reply, verdict } => released |= self.on_hand_over(reply, &verdict),
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

    fn on_attach(
        &mut self,
        id: u64,
        shared: &Arc<Shared>,
        incarnation: u64,
        pipes: Vec<Incoming>,
        (watch, has_ended): (Option<LineWatch>, Arc<AtomicBool>),
    ) {
        let Some((sink, log)) = self.sink(shared) else {
            for pipe in &pipes {
                unwatch(self.poll.registry(), &pipe.file);
            }
            return;
        };
        log.pipes += pipes.len();
        let open = pipes.iter().map(|pipe| pipe.token).collect();
        let attached =
            Attached { incarnation, open, held: Vec::new(), deadline: None, reply: None, watch, has_ended };
        self.attached.insert(id, Box::new(attached));
        for Incoming { token, stream, file, carry } in pipes {
            let cutter = LineCutter::within(carry);
            let attachment = id;
            let (ready, flooded, enlarged) = (false, false, false);
            let pipe = Pipe { file, stream, cutter, sink, attachment, ready, flooded, enlarged };
            self.pipes.insert(token, Box::new(pipe));
            // Its first event may have been reported before it was known here.
            self.enqueue(token);
        }
    }

    /// Says everything and waits; returns whether somebody else goes on.
    fn on_hand_over(&mut self, reply: oneshot::Sender<io::Result<Parts>>, verdict: &Receiver<()>) -> bool {
        if reply.send(self.parts()).is_err() || verdict.recv().is_err() {
            return false;
        }
        // What the pipes hold, and the lines begun, belong to the other side now.
        self.pipes.clear();
        self.attached.clear();
        self.sinks.clear();
        true
    }

    fn parts(&self) -> io::Result<Parts> {
        let mut parts = Parts { logs: Vec::with_capacity(self.sinks.len()), pipes: Vec::new() };
        let mut places = HashMap::new();
        for (key, sink) in &self.sinks {
            places.insert(*key, parts.logs.len());
            parts.logs.push(LogPart {
                shared: Arc::clone(&sink.shared),
                loss: sink.loss(),
                attachments: Vec::new(),
            });
        }
        for attached in self.attached.values() {
            let mut state = AttachmentState { incarnation: attached.incarnation, pipes: Vec::new() };
            let mut place = None;
            for pipe in attached.open.iter().filter_map(|token| self.pipes.get(token)) {
                place = places.get(&pipe.sink);
                let descriptor = parts.pipes.len() as u64;
                let carry = pipe.cutter.carry().to_vec();
                parts.pipes.push(pipe.file.try_clone()?.into());
                state.pipes.push(PipeState { stream: pipe.stream, descriptor, carry });
            }
            if let Some(place) = place {
                parts.logs[*place].attachments.push(state);
            }
        }
        Ok(parts)
    }

    fn on_drain(&mut self, id: u64, deadline: Option<Instant>, reply: oneshot::Sender<Vec<u64>>) {
        match self.attached.get_mut(&id) {
            Some(attached) => {
                self.draining += usize::from(attached.reply.replace(reply).is_none());
                attached.deadline = deadline;
                self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
            }
            // Both pipes ended before.
            None => _ = reply.send(Vec::new()),
        }
    }

    fn on_note(&mut self, shared: &Arc<Shared>, text: &str) {
        let Some((key, _)) = self.sink(shared) else { return };
        match Marker::parse(text) {
            Some(Marker::Started { .. }) => {
                if let Some(gap) = self.sinks.get_mut(&key).and_then(|sink| sink.unfinished()) {
                    self.remark(key, &gap);
                }
            }
            Some(Marker::Exited { incarnation, .. }) => self.catch_up(key, incarnation),
            None => {}
        }
        self.remark(key, text);
    }

    /// Adds a line of ours.
    fn remark(&mut self, sink: usize, text: &str) {
        let Some(sink) = self.sinks.get_mut(&sink) else { return };
        let mut line = text.replace('\n', " ").into_bytes();
        line.truncate(MAX_LINE);
        line.push(b'\n');
        sink.write(Stream::Xy, &mut self.records, |emit| emit(Piece::Lines(&line)));
    }

    /// Only this thread writes, so what it opens here ends exactly before the next line.
    fn past(&self, shared: &Shared) -> Past {
        let (next, complete_from, is_complete) = {
            let state = shared.lock();
            let complete_from = if state.failing { u64::MAX } else { state.complete_from };
            (state.buffer.held().end, complete_from, !state.lacks_held_lines())
        };
        let files = shared.place().map(|place| place.readers()).unwrap_or(Ok(Vec::new()));
        let files = files.unwrap_or_else(|error| {
            tracing::warn!(log = shared.name, %error, "log files cannot be opened, memory alone is read");
            Vec::new()
        });
        Past { next, files, complete_from, is_complete }
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
        let sink = self.sinks.entry(key).or_insert_with(|| Box::new(Sink::new(shared)));
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

    /// Reads one pipe for a bounded while and queues it again if there may be more; says how much there was.
    ///
    /// In a hurry it does not look whether anything came while it read: it would meet the writer at every line.
    fn turn(&mut self, token: Token, hurried: bool) -> Turn {
        let mut turn = Turn::Nothing;
        for _ in 0..TURN_READS {
            match self.read(token) {
                Read::Bytes(count) if hurried && count < READ_SIZE => {
                    self.flood(token, count >= FLOOD);
                    self.ready.push_back(token);
                    return Turn::Little;
                }
                Read::Bytes(_) => turn = Turn::Little,
                Read::Empty => {
                    if self.flood(token, false) {
                        // What cannot be watched is looked at after each rest.
                        self.ready.push_back(token);
                        return Turn::Little;
                    }
                    if let Some(pipe) = self.pipes.get_mut(&token) {
                        pipe.ready = false;
                    }
                    return turn;
                }
                Read::End => {
                    self.remove(token, false);
                    return turn;
                }
            }
        }
        self.ready.push_back(token);
        Turn::Much
    }

    /// Stops watching a pipe that is read without being asked, or watches it again; returns whether it is not watched.
    fn flood(&mut self, token: Token, flooded: bool) -> bool {
        let Some(pipe) = self.pipes.get_mut(&token) else { return false };
        if pipe.flooded != flooded {
            let registry = self.poll.registry();
            if flooded {
                unwatch(registry, &pipe.file);
                pipe.flooded = true;
            } else {
                // If anything came meanwhile, an event says so at once.
                pipe.flooded = watch(registry, &pipe.file, token).is_err();
            }
        }
        pipe.flooded
    }

    /// Takes what the pipes of an incarnation hold, so that it stands before the marker of its exit: whoever drained them may
    /// not have waited for the end, because this thread hung in a write.
    fn catch_up(&mut self, sink: usize, incarnation: u64) {
        if self.sinks.get(&sink).is_none_or(|sink| sink.pipes == 0) {
            return;
        }
        let own = self.attached.values().filter(|attached| attached.incarnation == incarnation);
        let open = own.flat_map(|attached| attached.open.iter().copied());
        let is_fed = |token: &Token| self.pipes.get(token).is_some_and(|pipe| pipe.sink == sink);
        for token in open.filter(is_fed).collect::<Vec<_>>() {
            if self.read_held(token) {
                self.remove(token, false);
            } else {
                // What follows is of somebody who has outlived it, and may be there already: then no event would tell of it.
                self.end_line(token);
                self.enqueue(token);
            }
        }
    }

    /// Reads what is in a pipe now, then closes it.
    fn exhaust(&mut self, token: Token) {
        let has_ended = self.read_held(token);
        self.remove(token, !has_ended);
    }

    /// Reads what is in a pipe now, whoever goes on writing to it; returns whether it has ended.
    fn read_held(&mut self, token: Token) -> bool {
        let Some(pipe) = self.pipes.get(&token) else { return true };
        // Once more, to see whether it has ended.
        let reads = capacity(&pipe.file).div_ceil(READ_SIZE) + 1;
        for _ in 0..reads {
            match self.read(token) {
                Read::Bytes(_) => {}
                Read::Empty => return false,
                Read::End => return true,
            }
        }
        false
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
            let watched = |attached: &&mut Box<Attached>| attached.watch.is_some();
            let mut attached = self.attached.get_mut(&pipe.attachment).filter(watched);
            sink.write(pipe.stream, &mut self.records, |emit| {
                pipe.cutter.push(bytes, |piece| {
                    emit(piece);
                    if let Some(attached) = &mut attached {
                        attached.see(pipe.stream, piece);
                    }
                });
            });
        }
        if count > FULL && !pipe.enlarged && self.enlarged < MAX_ENLARGED {
            pipe.enlarged = true;
            self.enlarged += usize::from(enlarge(&pipe.file));
        }
        Read::Bytes(count)
    }

    /// Takes the beginning of a line as what it is: the rest of it will not come, or not before something else.
    fn end_line(&mut self, token: Token) {
        let Some(pipe) = self.pipes.get_mut(&token) else { return };
        let Some(sink) = self.sinks.get_mut(&pipe.sink) else { return };
        let mut attached = self.attached.get_mut(&pipe.attachment);
        sink.write(pipe.stream, &mut self.records, |emit| {
            pipe.cutter.finish(|piece| {
                emit(piece);
                if let Some(attached) = &mut attached {
                    attached.see(pipe.stream, piece);
                }
            });
        });
    }

    /// Closes a pipe; `held` says that it had not ended.
    fn remove(&mut self, token: Token, held: bool) {
        self.end_line(token);
        let Some(pipe) = self.pipes.remove(&token) else { return };
        unwatch(self.poll.registry(), &pipe.file);
        if let Some(sink) = self.sinks.get_mut(&pipe.sink) {
            sink.pipes -= 1;
        }
        let held = held.then(|| fstat(&pipe.file).map_or(0, |found| found.st_ino));
        let (sink, attachment) = (pipe.sink, pipe.attachment);
        // Before the answer, which promises that it is closed.
        drop(pipe);
        self.release(sink);
        let Some(attached) = self.attached.get_mut(&attachment) else { return };
        attached.held.extend(held);
        attached.open.retain(|open| *open != token);
        if attached.open.is_empty()
            && let Some(attached) = self.attached.remove(&attachment)
        {
            if let Some(deadline) = attached.deadline {
                self.deadlines.remove(&(deadline, attachment));
            }
            self.is_epilogue = true;
            // Before anybody hears of the end.
            locked(&self.queue.state).looks_soon = true;
            if attached.held.is_empty() {
                attached.has_ended.store(true, Ordering::Release);
            }
            if let Some(reply) = attached.reply {
                self.draining -= 1;
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
