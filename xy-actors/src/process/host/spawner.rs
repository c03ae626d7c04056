//! The immortal thread that creates every process, and reaps those that nobody else will.
//!
//! There is one for the whole program and it never ends, because the kernel means this *thread* when it sends a child its
//! parent-death signal. It knows every pid it created until it is told of the reap; that makes it the one that may reap
//! adopted orphans without ever taking an exit status from its owner.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::oneshot;

use super::process::{Guard, Main, ProcessOutput};
use super::{Host, LiveProcess, SpawnError, lock};
use crate::process::command::{PreparedCommand, diagnose};
use crate::process::sys::{self, ChildStack, ExecRequest, SpawnFailure, SpawnStep};
use crate::process::tree::{self, Stat};

/// What the thread is asked to do.
pub(super) enum Job {
    /// Create a process. A reply that nobody takes ends the process again.
    Spawn {
        host: Arc<Host>,
        label: String,
        command: Arc<PreparedCommand>,
        reply: oneshot::Sender<Result<(Guard, ProcessOutput), SpawnError>>,
    },
    /// Kill what is left of a tree and reap its main process.
    Bury { main: Box<Main>, done: Option<oneshot::Sender<()>> },
    /// The process was reaped elsewhere; its pid may come back.
    Forget { pid: u32, marker: String },
    /// Reap adopted orphans that have ended.
    ReapOrphans,
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    // Unbounded: each spawn is awaited by its caller, each other job comes from one process or is coalesced.
    jobs: mpsc::Sender<Job>,
    /// A [`Job::ReapOrphans`] is on its way.
    is_reaping_due: Arc<AtomicBool>,
}

impl Spawner {
    /// Returns the program's spawner, starting it if this is the first use.
    pub(super) fn get() -> io::Result<Self> {
        static SPAWNER: Mutex<Option<Spawner>> = Mutex::new(None);
        let mut spawner = lock(&SPAWNER);
        if let Some(spawner) = &*spawner {
            return Ok(spawner.clone());
        }
        let (jobs, inbox) = mpsc::channel();
        let is_reaping_due = Arc::new(AtomicBool::new(false));
        let due = is_reaping_due.clone();
        std::thread::Builder::new().name("xy-spawner".to_owned()).spawn(move || run(&inbox, due))?;
        Ok(spawner.insert(Self { jobs, is_reaping_due }).clone())
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

/// What the thread owns.
#[derive(Default)]
struct State {
    is_reaping_due: Arc<AtomicBool>,
    stack: Option<ChildStack>,
    null: Option<OwnedFd>,
    /// Marker by pid of every main process that may still be unreaped.
    mains: BTreeMap<u32, String>,
    burials: Vec<Burial>,
}

struct Burial {
    main: Box<Main>,
    done: Option<oneshot::Sender<()>>,
    /// How many passes in a row found the tree empty.
    empty_passes: u32,
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

fn run(inbox: &Receiver<Job>, is_reaping_due: Arc<AtomicBool>) {
    sys::block_all_signals();
    let mut state = State { is_reaping_due, ..State::default() };
    let mut pause = SHORTEST_PAUSE;
    loop {
        let job = if state.burials.is_empty() {
            pause = SHORTEST_PAUSE;
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            let job = inbox.recv_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            job
        };
        // The end of this thread would kill every child, so no panic may end it.
        let survived = catch_unwind(AssertUnwindSafe(|| {
            match job {
                Ok(job) => state.perform(job),
                Err(RecvTimeoutError::Timeout) => {}
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

impl State {
    fn perform(&mut self, job: Job) {
        match job {
            Job::Spawn { host, label, command, reply } => {
                if reply.is_closed() {
                    return;
                }
                // A reply that cannot be delivered comes back, and dropping it ends the process.
                let _ = reply.send(self.spawn(host, label, &command));
            }
            Job::Bury { main, done } => self.burials.push(Burial { main, done, empty_passes: 0 }),
            Job::Forget { pid, marker } => self.forget(pid, &marker),
            Job::ReapOrphans => {
                // Before the look, so that an end after it is asked for again.
                self.is_reaping_due.store(false, Ordering::Release);
                self.reap_orphans();
            }
        }
    }

    fn spawn(
        &mut self,
        host: Arc<Host>,
        label: String,
        command: &PreparedCommand,
    ) -> Result<(Guard, ProcessOutput), SpawnError> {
        host.with_ledger(|ledger| ledger.intent(&command.marker, &label));
        match self.create(&host, command) {
            Ok((spawned, output)) => {
                let pid = spawned.pid;
                self.mains.insert(pid, command.marker.clone());
                // It has not been reaped, so it is there, if only as a zombie.
                let start_time = Stat::read(pid).map_or(0, |stat| stat.start_time);
                let live = LiveProcess { pid, label, marker: command.marker.clone(), start_time };
                host.with_ledger(|ledger| ledger.born(&live.marker, tree::Identity { pid, start_time }));
                lock(&host.live).insert(pid, live.clone());
                Ok((Guard::new(Main::new(host, live, spawned.exit_fd)), output))
            }
            Err(failure) => {
                host.with_ledger(|ledger| ledger.gone(&command.marker));
                Err(diagnose(command, failure))
            }
        }
    }

    fn create(
        &mut self,
        host: &Host,
        command: &PreparedCommand,
    ) -> Result<(sys::Spawned, ProcessOutput), SpawnFailure> {
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
        let request = ExecRequest {
            candidates: &command.candidates,
            arguments: &command.arguments,
            environment: &command.environment,
            dir: command.dir.as_deref(),
            stdio: [null.as_fd(), child_stdout.as_fd(), child_stderr.as_fd()],
            extra: notify.as_ref().map(|((_, child_end), number)| (child_end.as_fd(), *number)),
            pid_variable: command.pid_variable,
            parent_death_signal: host.options.parent_death_signal,
        };
        let spawned = sys::spawn(&request, stack)?;
        Ok((spawned, ProcessOutput { stdout, stderr, notify: notify.map(|((end, _), _)| end) }))
    }

    fn forget(&mut self, pid: u32, marker: &str) {
        // The pid may already belong to a later process of ours.
        if self.mains.get(&pid).is_some_and(|found| found == marker) {
            self.mains.remove(&pid);
        }
    }

    fn continue_burials(&mut self) {
        let mut burials = std::mem::take(&mut self.burials);
        burials.retain_mut(|burial| {
            burial.empty_passes = if burial.main.kill_pass() { burial.empty_passes + 1 } else { 0 };
            if burial.empty_passes < 2 || burial.main.reap().is_none() {
                return true;
            }
            self.forget(burial.main.pid(), burial.main.marker());
            if let Some(done) = burial.done.take() {
                let _ = done.send(());
            }
            false
        });
        self.burials = burials;
    }

    /// Reaps the zombies among our children that are nobody's main process.
    ///
    /// Only those of another session: every descendant of a process of ours is in a session of its own, while a child
    /// that another part of this program started with `std::process` is in ours and has an owner who waits for it.
    fn reap_orphans(&mut self) {
        let Some(session) = Stat::read(std::process::id()).map(|stat| stat.session) else { return };
        for pid in tree::children_of(std::process::id()) {
            if self.mains.contains_key(&pid) {
                continue;
            }
            // We own the pid while it is our zombie: nothing but a wait of ours frees it.
            if Stat::read(pid).is_some_and(|stat| !stat.is_alive && stat.session != session) {
                let _ = sys::reap_pid(pid);
            }
        }
    }
}

/// Makes a pipe whose read end does not block, with both ends out of the way of descriptors 0, 1 and 2.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    let (read, write) = (sys::above_stdio(read.into())?, sys::above_stdio(write.into())?);
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}
