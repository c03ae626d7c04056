//! The immortal thread that creates every process, and reaps those that nobody else will.
//!
//! There is one for the whole program and it never ends before that, because the kernel means this *thread* when it sends a child its
//! parent-death signal. It knows every pid it created until it is told of the reap; that makes it the one that may reap
//! adopted orphans without ever taking an exit status from its owner.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::oneshot;

use super::kin::Kin;
use super::process::{Guard, Main, ProcessOutput};
use super::{Host, LiveProcess, SpawnError, lock};
use crate::process::cgroup::{Leaf, Spare};
use crate::process::command::{PreparedCommand, diagnose};
use crate::process::handover::{Exchange, HandBack};
use crate::process::ledger::MainProcess;
use crate::process::settings;
use crate::process::sys::{self, ChildStack, ExecRequest, SpawnFailure, SpawnStep};
use crate::process::tree::{Identity, Stat};

/// What the thread is asked to do.
pub(super) enum Job {
    /// Create a process. A reply that nobody takes ends the process again.
    Spawn {
        host: Arc<Host>,
        label: String,
        incarnation: Option<u64>,
        command: Arc<PreparedCommand>,
        /// The control group that was made for it.
        spare: Option<Spare>,
        reply: oneshot::Sender<Result<(Guard, ProcessOutput), SpawnError>>,
    },
    /// Kill what is left of a tree and reap its main process.
    Bury { main: Box<Main>, done: Option<oneshot::Sender<()>> },
    /// A process of this host was reaped elsewhere, and its control group is to be removed.
    Tidy { host: Weak<Host> },
    /// Reap adopted orphans that have ended.
    ReapOrphans,
    /// Exchange the program of this process. What comes back is why that failed.
    Exchange { exchange: Box<Exchange>, failed: oneshot::Sender<io::Error> },
    /// The program has come up: there is no way back.
    Settle,
    /// The program that this thread leads has ended.
    Leave,
}

/// The program's one spawner, once there is one.
static SPAWNER: Mutex<Option<Spawner>> = Mutex::new(None);

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    /// Who our children are.
    pub(super) kin: Arc<Mutex<Kin>>,
    // Unbounded: each spawn is awaited by its caller, each other job comes from one process or is coalesced.
    jobs: mpsc::Sender<Job>,
    /// A [`Job::ReapOrphans`] is on its way.
    is_reaping_due: Arc<AtomicBool>,
}

impl Spawner {
    /// Returns the program's spawner, starting it if this is the first use.
    pub(super) fn get() -> io::Result<Self> {
        let mut spawner = lock(&SPAWNER);
        if let Some(spawner) = &*spawner {
            return Ok(spawner.clone());
        }
        let (created, inbox) = Self::create();
        let thread = std::thread::Builder::new().name("xy-spawner".to_owned());
        let there = created.clone();
        thread.spawn(move || run(&inbox, State::of(there), None))?;
        Ok(spawner.insert(created).clone())
    }

    fn create() -> (Self, Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel();
        (Self { kin: Arc::default(), jobs, is_reaping_due: Arc::default() }, inbox)
    }

    /// Asks for adopted orphans to be reaped, once for all requests until the thread comes to it.
    pub(super) fn reap_orphans(&self) {
        if !self.is_reaping_due.swap(true, Ordering::AcqRel) {
            self.send(Job::ReapOrphans);
        }
    }

    /// Returns whether the job was taken.
    pub(super) fn send(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }
}

/// Makes the calling thread the one that creates processes, runs `program` in a thread of its own, and returns what that
/// returned.
///
/// For the first thread of a program that has taken over a process with children, which are that thread's. While
/// `hand_back` is pending, until [`settle`], an end of `program` or the end of its patience hands the process back.
/// All signals are blocked in both threads.
///
/// # Errors
/// If there is a spawner already, or the system refuses the thread.
///
/// # Panics
/// If `program` has panicked and the process could not be handed back.
pub fn lead<T: Send + 'static>(
    hand_back: Option<HandBack>,
    program: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    sys::block_all_signals();
    let (inbox, state) = {
        let mut spawner = lock(&SPAWNER);
        if spawner.is_some() {
            return Err(io::Error::other("processes are created by another thread already"));
        }
        let (created, inbox) = Spawner::create();
        (inbox, State::of(spawner.insert(created).clone()))
    };
    let thread = std::thread::Builder::new().name("xy-program".to_owned());
    let thread = thread.spawn(move || {
        let _leave = Leave;
        program()
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            give_way(hand_back.as_ref(), "no thread for it");
            return Err(error);
        }
    };
    run(&inbox, state, hand_back);
    thread.join().map_err(|payload| std::panic::resume_unwind(payload))
}

/// Says that this program has come up after an exchange and keeps the process.
pub fn settle() {
    if let Some(spawner) = &*lock(&SPAWNER) {
        spawner.send(Job::Settle);
    }
}

/// Ends the lead of the first thread with the program, however that ends.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(spawner) = &*lock(&SPAWNER) {
            spawner.send(Job::Leave);
        }
    }
}

/// Hands the process back to the program before this one; returns if there is none, or the system refuses.
fn give_way(hand_back: Option<&HandBack>, reason: &str) {
    let Some(HandBack { exchange, .. }) = hand_back else { return };
    tracing::error!(reason, "this program did not come up; the one before it goes on");
    let error = exchange.execute();
    tracing::error!(reason = %error, "the program before this one cannot go on");
}

/// What the thread owns.
#[derive(Default)]
struct State {
    kin: Arc<Mutex<Kin>>,
    is_reaping_due: Arc<AtomicBool>,
    stack: Option<ChildStack>,
    null: Option<OwnedFd>,
    burials: Vec<Burial>,
    /// The hosts with control groups to make and to remove, when there is time.
    untidy: Vec<Weak<Host>>,
}

struct Burial {
    main: Box<Main>,
    done: Option<oneshot::Sender<()>>,
    /// How many passes in a row found the tree empty.
    empty_passes: u32,
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long there must be nothing to do before it is tidied up: no process that was just created is on its way to its main
/// function then.
const QUIET: Duration = Duration::from_millis(5);

/// Performs jobs for as long as the program lives, or the one that this thread leads.
fn run(inbox: &Receiver<Job>, mut state: State, mut hand_back: Option<HandBack>) {
    sys::block_all_signals();
    let begin = Instant::now();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let patience = hand_back.as_ref().map(|back| back.patience.saturating_sub(begin.elapsed()));
        let limit = match (state.burials.is_empty(), patience) {
            (true, patience) => {
                pause = SHORTEST_PAUSE;
                let quiet = (!state.untidy.is_empty()).then_some(QUIET);
                [patience, quiet].into_iter().flatten().min()
            }
            (false, _) => {
                let limit = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(limit)
            }
        };
        let job = match limit {
            Some(limit) => inbox.recv_timeout(limit),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(Job::Settle) => hand_back = None,
            Ok(Job::Leave) => return give_way(hand_back.as_ref(), "it has ended"),
            job => {
                // The end of this thread would kill every child, so no panic may end it.
                let survived = catch_unwind(AssertUnwindSafe(|| {
                    match job {
                        Ok(job) => state.perform(job),
                        Err(RecvTimeoutError::Timeout) => state.tidy(),
                        // Impossible: the static sender lives as long as the program.
                        Err(RecvTimeoutError::Disconnected) => std::thread::park(),
                    }
                    state.continue_burials();
                }));
                if survived.is_err() {
                    tracing::error!("a job of the process host panicked");
                }
            }
        }
        if hand_back.as_ref().is_some_and(|back| begin.elapsed() >= back.patience) {
            give_way(hand_back.take().as_ref(), "it took too long");
        }
    }
}

impl State {
    fn of(spawner: Spawner) -> Self {
        let Spawner { kin, is_reaping_due, .. } = spawner;
        Self { kin, is_reaping_due, ..Self::default() }
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::Spawn { host, label, incarnation, command, spare, reply } => {
                if reply.is_closed() {
                    return;
                }
                self.is_untidy(Arc::downgrade(&host));
                // A reply that cannot be delivered comes back, and dropping it ends the process.
                let _ = reply.send(self.spawn(host, label, incarnation, &command, spare));
            }
            Job::Bury { main, done } => self.burials.push(Burial { main, done, empty_passes: 0 }),
            Job::Tidy { host } => self.is_untidy(host),
            Job::Exchange { exchange, failed } => {
                let error = exchange.execute();
                let _nobody_waits = failed.send(error);
            }
            // They are the loop's affair.
            Job::Settle | Job::Leave => {}
            Job::ReapOrphans => {
                // Before the look, so that an end after it is asked for again.
                self.is_reaping_due.store(false, Ordering::Release);
                lock(&self.kin).reap();
            }
        }
    }

    /// Notes that a host may have control groups to make and to remove.
    fn is_untidy(&mut self, host: Weak<Host>) {
        if self.untidy.iter().all(|known| !known.ptr_eq(&host)) {
            self.untidy.push(host);
        }
    }

    fn tidy(&mut self) {
        for host in self.untidy.drain(..).filter_map(|host| host.upgrade()) {
            if let Some(groups) = &host.groups {
                groups.tidy();
            }
        }
    }

    fn spawn(
        &mut self,
        host: Arc<Host>,
        label: String,
        incarnation: Option<u64>,
        command: &PreparedCommand,
        spare: Option<Spare>,
    ) -> Result<(Guard, ProcessOutput), SpawnError> {
        host.with_ledger(|ledger| ledger.intent(&command.marker, &label, incarnation));
        match self.create(&host, command, spare) {
            Ok((spawned, output, leaf)) => {
                let pid = spawned.pid;
                lock(&self.kin).born(pid, &command.marker);
                // It has not been reaped, so it is there, if only as a zombie.
                let start_time = Stat::read(pid).map_or(0, |stat| stat.start_time);
                let live = LiveProcess { pid, label, marker: command.marker.clone(), start_time };
                let live = Arc::new(live);
                let inode = sys::process_inode(spawned.exit_fd.as_fd());
                // One that could not be looked at is found by its marker alone; a wrong time would spare it.
                if start_time > 0 {
                    let main = MainProcess { identity: Identity { pid, start_time }, inode };
                    host.with_ledger(|ledger| ledger.born(&live.marker, main));
                }
                lock(&host.live).insert(pid, live.clone());
                Ok((Guard::new(Main::new(host, live, spawned.exit_fd, leaf)), output))
            }
            Err(failure) => {
                host.with_ledger(|ledger| ledger.gone(&command.marker, None));
                Err(diagnose(command, failure))
            }
        }
    }

    fn create(
        &mut self,
        host: &Host,
        command: &PreparedCommand,
        spare: Option<Spare>,
    ) -> Result<(sys::Spawned, ProcessOutput, Option<Leaf>), SpawnFailure> {
        let descriptors = |error: io::Error| SpawnFailure::new(SpawnStep::Descriptors, &error);
        if self.null.is_none() {
            let null = OpenOptions::new().read(true).open("/dev/null").map(OwnedFd::from);
            self.null = Some(null.and_then(sys::above_stdio).map_err(descriptors)?);
        }
        if self.stack.is_none() {
            self.stack = Some(ChildStack::new().map_err(descriptors)?);
        }
        let (Some(null), Some(stack)) = (&self.null, &mut self.stack) else {
            return Err(descriptors(io::Error::other("unreachable: both were just filled")));
        };
        let (stdout, child_stdout) = pipe().map_err(descriptors)?;
        let (stderr, child_stderr) = pipe().map_err(descriptors)?;
        let notify = command.notify_fd.map(|number| pipe().map(|ends| (ends, i32::from(number))));
        let notify = notify.transpose().map_err(descriptors)?;
        if settings::is_reserved(child_stderr.as_fd()) {
            return Err(descriptors(io::Error::from_raw_os_error(libc::EMFILE)));
        }
        let leaf = || host.groups.as_ref().and_then(|groups| groups.leaf(&command.marker));
        let leaf = spare.and_then(Spare::take).or_else(leaf);
        let (leaf, leaf_dir) = leaf.unzip();
        let mut request = ExecRequest {
            candidates: &command.candidates,
            arguments: &command.arguments,
            environment: &command.environment,
            dir: command.dir.as_deref(),
            stdio: [
                command.stdin.as_ref().unwrap_or(null).as_fd(),
                child_stdout.as_fd(),
                child_stderr.as_fd(),
            ],
            extra: notify.as_ref().map(|((_, child_end), number)| (child_end.as_fd(), *number)),
            pid_variable: command.pid_variable,
            parent_death_signal: host.options.parent_death_signal,
            settings: &command.settings,
            cgroup: leaf_dir.as_ref().map(AsFd::as_fd),
        };
        let spawned = sys::spawn(&request, stack).map(|spawned| (spawned, leaf.as_ref()));
        let spawned = spawned.or_else(|failure| {
            if let Some(leaf) = &leaf {
                leaf.remove();
            }
            let is_refused = failure.step == SpawnStep::ControlGroup
                && ![libc::EAGAIN, libc::ENOMEM].contains(&failure.errno);
            match &host.groups {
                // An old kernel, or one that is not allowed to: the tree is owned by other means.
                Some(groups) if is_refused => {
                    groups.give_up(&io::Error::from_raw_os_error(failure.errno));
                    request.cgroup = None;
                    sys::spawn(&request, stack).map(|spawned| (spawned, None))
                }
                _ => Err(failure),
            }
        });
        let (spawned, is_in_leaf) = spawned.map(|(spawned, leaf)| (spawned, leaf.is_some()))?;
        Ok((
            spawned,
            ProcessOutput { stdout, stderr, notify: notify.map(|((end, _), _)| end) },
            leaf.filter(|_| is_in_leaf),
        ))
    }

    fn continue_burials(&mut self) {
        let mut burials = std::mem::take(&mut self.burials);
        burials.retain_mut(|burial| {
            burial.empty_passes = if burial.main.kill_pass() { burial.empty_passes + 1 } else { 0 };
            if burial.empty_passes < 2 || burial.main.reap(None).is_none() {
                return true;
            }
            lock(&self.kin).forget(burial.main.pid(), burial.main.marker());
            self.untidy.push(burial.main.host());
            if let Some(done) = burial.done.take() {
                let _ = done.send(());
            }
            false
        });
        self.burials = burials;
    }
}

/// Makes a pipe whose read end does not block, with both ends out of the way of descriptors 0, 1 and 2.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    let (read, write) = (sys::above_stdio(read.into())?, sys::above_stdio(write.into())?);
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}
