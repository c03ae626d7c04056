//! One spawned process and its tree, owned: looked at, signaled, awaited and reaped through this handle only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::exits::Watched;
use super::spawner::Job;
use super::{Host, LiveProcess, lock};
use crate::exit::ExitReport;
use crate::process::cgroup::{Groups, Leaf};
use crate::process::settings::masked;
use crate::process::sys;
use crate::process::tree::{Identity, Reach, Scope, Stat, scan};

/// How many looks in a row a kill takes while each one finds somebody new, before others get their turn.
const CHASE: u32 = 32;

/// How long to wait for a process that cannot be watched before looking again.
pub(super) const RESCAN: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProcessExit {
    /// It called `exit` with this code, 0 to 255.
    ///
    /// -1 says that nobody can know: another part of this program has reaped it, which is a bug there.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
}

/// A live process of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its pid.
    pub pid: u32,
    /// The name of its program.
    pub command: String,
    /// Whether it left the process group, so that a signal to the group does not reach it.
    pub escaped: bool,
}

impl Member {
    /// A process outside of every process group of ours.
    pub(super) fn escaped(stat: &Stat) -> Self {
        Self { pid: stat.pid, command: stat.command.clone(), escaped: true }
    }
}

/// What [`OsProcess::kill_tree`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KillReport {
    /// Who was killed.
    pub killed: Vec<Member>,
    /// Who was still there at the deadline.
    pub left: Vec<Member>,
}

/// The read ends of a process's output. Both are close-on-exec and do not block.
#[derive(Debug)]
pub struct ProcessOutput {
    /// What it writes to descriptor 1.
    pub stdout: OwnedFd,
    /// What it writes to descriptor 2.
    pub stderr: OwnedFd,
    /// What it writes to the descriptor of [`Readiness::Notify`](crate::process::Readiness::Notify), if it has one.
    pub notify: Option<OwnedFd>,
}

/// A process not yet reaped, and what its tree is known by.
#[derive(Debug)]
pub(super) struct Main {
    host: Arc<Host>,
    live: Arc<LiveProcess>,
    exit_fd: Arc<OwnedFd>,
    leaf: Option<Leaf>,
    state: Mutex<State>,
}

/// Under one lock, so that nothing is signaled after the reap.
#[derive(Debug, Default)]
struct State {
    /// How it ended, once known.
    exit: Option<ProcessExit>,
    /// The pid may belong to somebody else.
    is_reaped: bool,
}

impl State {
    /// Takes note of what a wait said. `ECHILD` means that somebody else has taken the exit status, and with it the pid.
    fn note(&mut self, result: io::Result<Option<ProcessExit>>, live: &LiveProcess) -> Option<ProcessExit> {
        match result {
            Ok(exit) => self.exit = exit.or(self.exit),
            Err(error) => {
                if self.exit.is_none() {
                    tracing::error!(
                        child = %live.label,
                        pid = live.pid,
                        reason = %error,
                        "the exit of a process was taken by another part of the program"
                    );
                }
                self.is_reaped = true;
                self.exit = self.exit.or(Some(ProcessExit::Code(-1)));
            }
        }
        self.exit
    }
}

impl Main {
    pub(super) fn new(host: Arc<Host>, live: Arc<LiveProcess>, exit_fd: OwnedFd, leaf: Option<Leaf>) -> Self {
        Self { host, live, exit_fd: Arc::new(exit_fd), leaf, state: Mutex::default() }
    }

    /// Owns a process that an earlier program of this one has created, and opens it anew.
    pub(super) fn taken_up(host: Arc<Host>, live: LiveProcess) -> io::Result<Self> {
        // It has not been reaped, so that its pid is its own as long as it is a child of ours.
        let exit_fd = sys::open_process(live.pid)?;
        // One that could not be looked at when it was created has no start time; it has our word for its parent.
        let is_same = |stat: &Stat| live.start_time == 0 || stat.start_time == live.start_time;
        let is_ours =
            Stat::look(live.pid)?.is_some_and(|stat| is_same(&stat) && stat.parent == std::process::id());
        if !is_ours {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let leaf = host.groups.as_ref().and_then(|groups| groups.existing(&live.marker));
        Ok(Self::new(host, Arc::new(live), exit_fd, leaf))
    }

    pub(super) fn pid(&self) -> u32 {
        self.live.pid
    }

    pub(super) fn marker(&self) -> &str {
        &self.live.marker
    }

    pub(super) fn host(&self) -> Weak<Host> {
        Arc::downgrade(&self.host)
    }

    fn peek(&self, state: &mut State) -> Option<ProcessExit> {
        if state.is_reaped {
            return state.exit;
        }
        // Asked for again even if it is known: so a theft of the zombie is seen before its pid is used.
        state.note(sys::peek_exit(self.exit_fd.as_fd(), self.live.pid), &self.live)
    }

    /// Finds the tree's live processes and remembers them.
    fn scan(&self, state: &mut State, reach: Reach) -> io::Result<Vec<Stat>> {
        // A reaped main's pid says nothing any more; what is known and what carries the marker still does.
        let main = if state.is_reaped { u32::MAX } else { self.live.pid };
        let marker = self.marker();
        let mut known = {
            let mut kin = lock(&self.host.spawner.kin);
            if reach == Reach::Children {
                kin.look()?;
            }
            let mut known = kin.known(marker);
            let orphans = kin.orphans_of(marker);
            known.extend(orphans);
            known
        };
        let inside = self.leaf.as_ref().map(Leaf::pids).transpose()?.unwrap_or_default();
        for pid in inside {
            known.extend(Stat::look(pid)?.map(|stat| stat.identity()));
        }
        known.sort_unstable();
        known.dedup();
        let scope = Scope { main, marker, known: &known };
        let found = scan(&scope, reach, |pid| self.host.is_main(pid))?;
        // One that this look missed, in the moment in which it changed its parent, stays known while it is there.
        let mut seen: Vec<Identity> = found.iter().map(Stat::identity).collect();
        for identity in known.iter().filter(|identity| found.iter().all(|stat| stat.identity() != **identity))
        {
            if Stat::look(identity.pid)?.is_some_and(|stat| stat.identity() == *identity) {
                seen.push(*identity);
            }
        }
        // The main process is known anyway, and is most often the only one.
        seen.retain(|identity| identity.pid != main);
        lock(&self.host.spawner.kin).set_known(marker, seen);
        Ok(found)
    }

    fn member(&self, stat: &Stat) -> Member {
        Member { pid: stat.pid, command: stat.command.clone(), escaped: stat.group != self.live.pid }
    }

    fn signal_group(&self, signal: i32) -> io::Result<bool> {
        let mut state = lock(&self.state);
        let has_ended = self.peek(&mut state).is_some();
        if state.is_reaped {
            return Ok(false);
        }
        // A signal to a group of one zombie "succeeds"; only the others count then.
        if has_ended {
            let rest = self.scan(&mut state, self.host.reach())?;
            if !rest.iter().any(|stat| stat.group == self.live.pid) {
                return Ok(false);
            }
        }
        match sys::signal_group(self.live.pid, signal) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Signals one process of the tree, opened before its identity is checked. Returns whether it was still there.
    fn signal_member(stat: &Stat, signal: i32) -> io::Result<bool> {
        let result = sys::open_process(stat.pid).and_then(|process| {
            if !stat.identity().is_current()? {
                return Ok(false);
            }
            sys::signal_process(process.as_fd(), stat.pid, signal).map(|()| true)
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            result => result,
        }
    }

    /// Sends SIGKILL to the group and to everybody found outside; returns whom.
    ///
    /// Looks again at once while there is somebody who was not there before: a chain of processes, each of which forks the
    /// next one and ends, can only be caught by whoever is faster.
    fn kill(&self, reach: Reach) -> io::Result<Vec<Stat>> {
        let mut state = lock(&self.state);
        let mut killed: Vec<Stat> = Vec::new();
        for _ in 0..CHASE {
            // Looked for before, because afterwards nobody could be named.
            let found = self.scan(&mut state, reach);
            if let Some(leaf) = &self.leaf {
                // The names are its marker's and nobody else's, so this reaches nobody else either.
                let _ = leaf.kill();
            }
            self.peek(&mut state);
            if !state.is_reaped {
                // Whatever the scan saw: this reaches those that are forked meanwhile, too.
                let _ = sys::signal_group(self.live.pid, libc::SIGKILL);
            }
            let found = found?;
            let before = killed.len();
            let known: BTreeSet<Identity> = killed.iter().map(Stat::identity).collect();
            for stat in found.into_iter().filter(|stat| !known.contains(&stat.identity())) {
                if stat.group != self.live.pid {
                    let _ = Self::signal_member(&stat, libc::SIGKILL);
                }
                killed.push(stat);
            }
            if killed.len() == before {
                break;
            }
        }
        Ok(killed)
    }

    /// Returns whether the tree has a control group in which nobody runs any more.
    ///
    /// Two looks at lists can both miss a process in the moment in which it changes its parent; the kernel's own count
    /// misses none, and whoever was moved out of the group by another was not in flight.
    fn has_empty_leaf(&self) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| leaf.is_empty())
    }

    /// Returns whether nobody of the tree runs, where that is plain without a walk.
    ///
    /// Whoever descends from a main process that has ended is, or descends from, an orphan that came to us; so if none of
    /// those is this tree's, there is nobody. As with [`has_empty_leaf`](Self::has_empty_leaf), the kernel has the last word.
    fn is_plainly_gone(&self, reach: Reach) -> io::Result<bool> {
        if reach != Reach::Children || self.leaf.is_none() {
            return Ok(false);
        }
        let has_ended = self.peek(&mut lock(&self.state)).is_some();
        let is_alone = has_ended && {
            let mut kin = lock(&self.host.spawner.kin);
            kin.look()?;
            kin.known(self.marker()).is_empty() && kin.orphans_of(self.marker()).is_empty()
        };
        Ok(is_alone && self.has_empty_leaf())
    }

    /// Kills what is there and returns whether nothing was.
    pub(super) fn kill_pass(&self) -> bool {
        self.kill(self.host.reach()).is_ok_and(|found| found.is_empty())
    }

    /// Reaps the main process; `None` while it runs.
    pub(super) fn reap(&self, report: Option<&ExitReport>) -> Option<ProcessExit> {
        let mut state = lock(&self.state);
        if !state.is_reaped {
            let exit = state.note(sys::reap(self.exit_fd.as_fd(), self.live.pid), &self.live);
            exit?;
            state.is_reaped = true;
        }
        if let (Some(leaf), Some(groups)) = (&self.leaf, &self.host.groups) {
            groups.retire(leaf);
        }
        self.host.strike(self.live.pid, &self.live.marker, report);
        state.exit
    }

    /// Has its control group removed when there is time: not before whoever waits for this end has had a turn, since that
    /// is most often a restart, which would be held up by the spawner thread's waking for this.
    fn tidy_later(&self) {
        let (spawner, host) = (self.host.spawner.clone(), self.host());
        let Ok(runtime) = Handle::try_current() else {
            spawner.send(Job::Tidy { host });
            return;
        };
        runtime.spawn(async move {
            tokio::task::yield_now().await;
            spawner.send(Job::Tidy { host });
        });
    }
}

/// Owns a process until it is reaped: dropped before, it kills the tree and leaves the reaping to the spawner thread.
#[derive(Debug)]
pub(super) struct Guard {
    main: Option<Box<Main>>,
    /// Whether the process was reaped and there is nothing left to guard.
    is_done: AtomicBool,
}

impl Guard {
    pub(super) fn new(main: Main) -> Self {
        Self { main: Some(Box::new(main)), is_done: AtomicBool::new(false) }
    }

    fn main(&self) -> &Main {
        // Proof: only `bury` and `drop` take it, and both consume the guard.
        self.main.as_ref().expect("a guard that is still there owns its process")
    }

    /// Kills the tree and returns when the process is reaped.
    pub(super) async fn bury(mut self) {
        let Some(main) = self.main.take() else { return };
        let spawner = main.host.spawner.clone();
        let (done, finished) = oneshot::channel();
        let _ = main.kill(main.host.reach());
        if spawner.send(Job::Bury { main, done: Some(done) }) {
            let _ = finished.await;
        }
    }

    fn reap(&self, report: Option<&ExitReport>) -> Option<ProcessExit> {
        let main = self.main();
        let exit = main.reap(report)?;
        if !self.is_done.swap(true, Ordering::AcqRel) {
            lock(&main.host.spawner.kin).forget(main.live.pid, &main.live.marker);
            if main.leaf.is_some() {
                main.tidy_later();
            }
        }
        Some(exit)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(main) = self.main.take() else { return };
        if *self.is_done.get_mut() {
            return;
        }
        // Twice at once, for those that were being forked meanwhile; the spawner thread repeats it until nobody is left,
        // if the program lives that long.
        for _ in 0..2 {
            if main.kill(main.host.reach()).is_ok_and(|found| found.is_empty()) {
                break;
            }
        }
        let spawner = main.host.spawner.clone();
        spawner.send(Job::Bury { main, done: None });
    }
}

/// A spawned process together with everything that descends from it.
///
/// The usual end is [`exited`](Self::exited), then the stop of what is left ([`tree_gone`](Self::tree_gone),
/// [`kill_tree`](Self::kill_tree)), then [`reap`](Self::reap). A handle that is dropped instead kills the whole tree, so
/// no path loses the handle and leaves the process running.
#[derive(Debug)]
pub struct OsProcess {
    // Before the guard, so that nobody waits any more when the process is let go.
    watch: Watched,
    guard: Guard,
    output: Option<ProcessOutput>,
}

impl OsProcess {
    /// Has its end watched for by the current runtime, or returns the guard. A process that was taken up has no output here.
    pub(super) fn watch(guard: Guard, output: Option<ProcessOutput>) -> Result<Self, (Guard, io::Error)> {
        match guard.main().host.exits.watch(guard.main().exit_fd.clone()) {
            Ok(watch) => Ok(Self { watch, guard, output }),
            Err(error) => Err((guard, error)),
        }
    }

    fn main(&self) -> &Main {
        self.guard.main()
    }

    /// Returns the pid, which is also the session and the process group.
    pub fn pid(&self) -> u32 {
        self.main().live.pid
    }

    /// Returns what the tree has in its environment as `XY_INSTANCE`: 32 hexadecimal digits.
    pub fn marker(&self) -> &str {
        self.main().marker()
    }

    /// Returns the child's path, as given to [`spawn`](super::ProcessHost::spawn).
    pub fn label(&self) -> &str {
        &self.main().live.label
    }

    /// Returns a text about it without the values of secrets.
    pub(in super::super) fn masked(&self, text: &str) -> String {
        let secrets = lock(&self.main().host.secrets);
        let secrets: Vec<_> = secrets.values().flat_map(BTreeMap::values).cloned().collect();
        masked(text, &secrets).into_owned()
    }

    /// Returns the read ends of its output, once.
    pub fn take_output(&mut self) -> Option<ProcessOutput> {
        self.output.take()
    }

    /// Waits until the main process has ended, without reaping it, and returns how.
    ///
    /// Decided by the process alone: a descendant that holds its output open delays nothing.
    ///
    /// # Cancel safety
    /// Cancel safe, and may be awaited again: the answer stays.
    pub async fn exited(&self) -> ProcessExit {
        std::future::poll_fn(|cx| match self.exited_or_wake(cx.waker()) {
            Some(exit) => Poll::Ready(exit),
            None => Poll::Pending,
        })
        .await
    }

    /// Returns how the main process has ended, or has `waker` woken, perhaps more than once, when it has.
    pub(in super::super) fn exited_or_wake(&self, waker: &Waker) -> Option<ProcessExit> {
        // Before the look: its end is told only once.
        self.watch.wake_at_end(waker);
        self.main().peek(&mut lock(&self.main().state))
    }

    /// Signals the process group; `Ok(false)` if nobody of it is left, or the main process was reaped.
    ///
    /// # Errors
    /// If the signal's number is invalid, or no process of the group may be signaled by this user.
    pub fn signal_group(&self, signal: i32) -> io::Result<bool> {
        self.main().signal_group(signal)
    }

    /// Returns the live processes of the tree, the main process first; an ended one is not among them.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn members(&self) -> io::Result<Vec<Member>> {
        let main = self.main();
        let found = main.scan(&mut lock(&main.state), main.host.reach())?;
        Ok(found.iter().map(|stat| main.member(stat)).collect())
    }

    /// Signals those processes of the tree that left the process group, and returns how many.
    ///
    /// # Errors
    /// If `/proc` cannot be read, or a process may not be signaled by this user; the others are signaled all the same.
    pub fn signal_escaped(&self, signal: i32) -> io::Result<usize> {
        let main = self.main();
        let mut state = lock(&main.state);
        let found = main.scan(&mut state, main.host.reach())?;
        let mut count = 0;
        let mut fault = None;
        for stat in found.iter().filter(|stat| stat.group != main.live.pid) {
            match Main::signal_member(stat, signal) {
                Ok(was_there) => count += usize::from(was_there),
                Err(error) => fault = Some(error),
            }
        }
        fault.map_or(Ok(count), Err)
    }

    /// Waits until no process of the tree is left, by two looks in a row, the main process included.
    ///
    /// # Errors
    /// Those left at `until`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tree_gone(&self, until: Instant) -> Result<(), Vec<Member>> {
        let main = self.main();
        let reach = main.host.reach();
        let mut empty_passes = 0;
        loop {
            let found = main.scan(&mut lock(&main.state), reach);
            match found {
                Ok(found) if found.is_empty() => {
                    empty_passes += 1;
                    if empty_passes == 2 {
                        return Ok(());
                    }
                }
                Ok(found) if Instant::now() >= until => {
                    return Err(found.iter().map(|stat| main.member(stat)).collect());
                }
                Ok(found) => {
                    empty_passes = 0;
                    await_exits(&found, until).await;
                }
                // Without a look nobody can say that it is gone.
                Err(_) if Instant::now() >= until => return Err(Vec::new()),
                Err(_) => {
                    empty_passes = 0;
                    tokio::time::sleep_until(until.min(Instant::now() + RESCAN)).await;
                }
            }
        }
    }

    /// Kills the tree, again and again until two looks in a row find nobody, and reports whom; gives up at `until`.
    ///
    /// One look is enough where the tree has a control group and the kernel says that nobody is left in it.
    ///
    /// # Cancel safety
    /// Cancel safe: signals that were sent stay sent.
    pub async fn kill_tree(&self, until: Instant) -> KillReport {
        let main = self.main();
        let reach = main.host.reach();
        let mut killed: Vec<(Identity, Member)> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut empty_passes = 0;
        let left: Vec<Stat> = loop {
            // As after most crashes.
            if main.is_plainly_gone(reach).unwrap_or(false) {
                break Vec::new();
            }
            let found = match main.kill(reach) {
                Ok(found) => found,
                // Without a look nobody can say that nobody is left, so whoever asks must not take it for the end.
                Err(error) if Instant::now() >= until => {
                    tracing::error!(child = self.label(), reason = %error, "a tree cannot be looked at");
                    let unseen = Member { pid: self.pid(), command: String::new(), escaped: false };
                    let killed = killed.into_iter().map(|(_, member)| member).collect();
                    return KillReport { killed, left: vec![unseen] };
                }
                Err(_) => {
                    empty_passes = 0;
                    tokio::time::sleep_until(until.min(Instant::now() + RESCAN)).await;
                    continue;
                }
            };
            for stat in &found {
                if seen.insert(stat.identity()) {
                    killed.push((stat.identity(), main.member(stat)));
                }
            }
            if found.is_empty() {
                empty_passes += 1;
                if empty_passes == 2 || main.has_empty_leaf() {
                    break found;
                }
            } else if Instant::now() >= until {
                let is_there = |stat: &Stat| match Stat::look(stat.pid) {
                    Ok(now) => now.is_some_and(|now| now.is_alive && now.identity() == stat.identity()),
                    Err(_) => true,
                };
                break found.into_iter().filter(is_there).collect();
            } else {
                empty_passes = 0;
                await_exits(&found, until).await;
            }
        };
        killed.retain(|(identity, _)| !left.iter().any(|stat| stat.identity() == *identity));
        KillReport {
            killed: killed.into_iter().map(|(_, member)| member).collect(),
            left: left.iter().map(|stat| main.member(stat)).collect(),
        }
    }

    /// Returns how many processes of the tree the kernel killed for want of memory; 0 if nobody counts, because the tree
    /// has no control group with a memory controller.
    pub fn oom_kills(&self) -> u64 {
        let main = self.main();
        let is_counted = main.host.groups.as_ref().is_some_and(Groups::counts_oom_kills);
        main.leaf.as_ref().filter(|_| is_counted).map_or(0, Leaf::oom_kills)
    }

    /// Reaps the ended main process and strikes it from the ledger; `None` if it has not ended.
    ///
    /// To be called when the tree is gone: from here on the pid may belong to another process, nothing is signaled any
    /// more, and dropping the handle does nothing.
    pub fn reap(&self) -> Option<ProcessExit> {
        self.ended()?;
        self.guard.reap(None)
    }

    /// Returns how the main process has ended; `None` if it has not.
    pub(in super::super) fn ended(&self) -> Option<ProcessExit> {
        let main = self.main();
        main.peek(&mut lock(&main.state))
    }

    /// Like [`reap`](Self::reap), and writes this report into the ledger, for a next host that is the first to tell.
    pub(in super::super) fn reap_as(&self, report: &ExitReport) -> Option<ProcessExit> {
        self.ended()?;
        self.guard.reap(Some(report))
    }
}

/// Waits until each of these has ended or the deadline is reached; whoever cannot be watched is waited for a moment.
pub(super) async fn await_exits(stats: &[Stat], until: Instant) {
    let all = async {
        for stat in stats {
            let watch = sys::open_process(stat.pid).and_then(|process| sys::watch(Arc::new(process)));
            match watch {
                // Opened before it is checked: if this is a later process of that pid, there is nothing to wait for.
                Ok(watch) => match stat.identity().is_current() {
                    Ok(true) => drop(watch.readable().await),
                    Ok(false) => {}
                    Err(_) => tokio::time::sleep(RESCAN).await,
                },
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(_) => tokio::time::sleep(RESCAN).await,
            }
        }
    };
    let _ = tokio::time::timeout_at(until, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{HostOptions, ProcessHost, ProcessSpec};

    fn sleeping() -> ProcessSpec {
        let mut spec = ProcessSpec::new("sh");
        // The shell is not replaced by its last command, so that there is a tree.
        spec.args = vec!["-c".to_owned(), "sleep 1000; exit 1".to_owned()];
        spec
    }

    #[tokio::test]
    async fn a_process_that_cannot_be_watched_is_gone_when_the_error_is_told() {
        let (host, _) = ProcessHost::start(HostOptions::default()).expect("starts");
        let process = host.spawn("test", &sleeping()).await.expect("starts");
        let identity = Identity { pid: process.pid(), start_time: host.live()[0].start_time };
        assert!(identity.is_current().expect("readable"));
        let OsProcess { guard, .. } = process;
        guard.bury().await;
        assert!(!identity.is_current().expect("readable"), "not even a zombie is left");
        assert_eq!(host.live(), []);
    }

    #[tokio::test]
    async fn a_process_is_taken_over_by_its_start_time_or_as_our_child_if_nobody_knows_that() {
        let (host, _) = ProcessHost::start(HostOptions::default()).expect("starts");
        let _process = host.spawn("test", &sleeping()).await.expect("starts");
        let live = host.live().remove(0);
        let taken_up =
            |start_time| Main::taken_up(host.inner.clone(), LiveProcess { start_time, ..live.clone() });
        assert!(taken_up(live.start_time).is_ok() && taken_up(0).is_ok());
        let another = taken_up(live.start_time + 1).expect_err("it is a later process of that pid");
        assert_eq!(another.raw_os_error(), Some(libc::ESRCH));
    }

    #[tokio::test]
    async fn a_reaped_pid_is_never_signaled() {
        let (host, _) = ProcessHost::start(HostOptions::default()).expect("starts");
        let process = host.spawn("test", &sleeping()).await.expect("starts");
        process.kill_tree(Instant::now() + Duration::from_secs(20)).await;
        process.exited().await;
        // Another part of the program takes the exit, which it must not, and with it the pid.
        sys::reap_pid(process.pid()).expect("ended");
        assert!(!process.signal_group(libc::SIGKILL).expect("no error"));
        assert_eq!(process.members().expect("readable"), []);
        assert_eq!(process.reap().expect("over"), ProcessExit::Signal { signal: 9, core_dumped: false });
        assert_eq!(host.live(), []);
    }
}
