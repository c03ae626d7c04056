//! The one place that spawns, signals and reaps.
//!
//! ```text
//! spawn() ── job ──► xy-spawner thread: ledger intent, clone, ledger born ──► OsProcess (owns exactly that process)
//!                                                                        │ exited(): pidfd readable, not reaped
//!                                                                        │ signal_group(), kill_tree(), tree_gone()
//!                    ledger gone, forget pid ◄── reap() ─────────────────┤
//!                    kill the tree, reap     ◄── dropped without reap ───┘
//! ```
//! The ended main process stays a zombie until the tree is gone, because the zombie pins its pid, group and session: as
//! long as it is there, a signal to the group cannot reach a stranger.
//!
//! Everything a host knows about a process is plain data ([`LiveProcess`]) and a few descriptors; `handover.rs` lets the
//! next program of this process go on with them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

mod adoption;
mod exits;
mod handover;
mod kin;
mod process;
pub(super) mod spawner;
mod usage;

use self::exits::Exits;
pub use self::process::{KillReport, Member, OsProcess, ProcessExit, ProcessOutput};
use self::spawner::{Job, Spawner};
pub use self::usage::TreeUsage;
use super::cgroup::{Groups, Spare};
use super::command::{self, PreparedCommand, Secrets};
use super::ledger::{Ledger, OpenError, SweepReport};
use super::settings::Secret;
use super::tree::Stat;
use super::{ProcessSpec, SpawnError, SpawnErrorKind, readiness, sys, tree};
use crate::exit::ExitReport;

/// How many starts are prepared at once: enough for the thread that creates processes never to wait, and few enough for what
/// they need for a moment to leave no holes between what stays.
const STARTS_AT_ONCE: usize = 8;

/// How often and at which intervals a program that is being written is tried again; 500 ms together.
const TEXT_BUSY_DELAYS: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(140),
    Duration::from_millis(280),
];

/// How long orphans that belong to nobody are waited for at the end.
const STRANGERS_LIMIT: Duration = Duration::from_secs(1);

/// What a process host does beyond spawning. The default does not disturb a program that embeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Makes orphaned descendants children of this process instead of init's, so that they are found at once and leave no
    /// zombies (Linux).
    ///
    /// It holds for the whole process. With it on, the host reaps every ended child of another session that it did not
    /// spawn: a program that itself starts children with `setsid` must leave it off. Children started by
    /// `std::process::Command` are in this process's session and are never touched.
    pub subreaper: bool,
    /// Ends each child's main process when this process dies (Linux).
    pub parent_death_signal: bool,
    /// The file that tells the next start what this one left behind; `None` keeps none.
    pub ledger: Option<PathBuf>,
    /// Puts each tree into a control group of its own, where version 2 of them is delegated to this process (Linux).
    /// Needs a ledger, which tells the next start where they are.
    pub cgroups: bool,
    /// The directory for the sockets on which children tell how they are, made and kept with mode 0700; short, as a
    /// socket's path is limited to about 100 bytes. Without one, a child that wants such a socket cannot start.
    pub notify_dir: Option<PathBuf>,
}

/// By which means the processes of a tree are known to be all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ownership {
    /// By a control group for each tree, below this directory; what leaves it is found as with [`Self::Subreaper`].
    Cgroup {
        /// The directory.
        path: PathBuf,
    },
    /// Orphans come to this process, and are attributed by marker, session, group and what was seen of them before.
    Subreaper,
    /// Every process of the machine is looked at, and attributed in the same way.
    Walk,
}

impl Default for HostOptions {
    /// Returns the parent-death signal alone.
    fn default() -> Self {
        Self { subreaper: false, parent_death_signal: true, ledger: None, cgroups: false, notify_dir: None }
    }
}

/// A process that was spawned and has not been reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LiveProcess {
    /// The pid, which is also its session and process group.
    pub pid: u32,
    /// The child's path.
    pub label: String,
    /// What the tree has in its environment as `XY_INSTANCE`.
    pub marker: String,
    /// When it started, in clock ticks since boot. With the pid, its identity.
    pub start_time: u64,
}

/// Why a process host could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Another host has the ledger open.
    #[error("ledger `{}` is in use by another process host: give each its own", .0.display())]
    LedgerInUse(PathBuf),
    /// The ledger cannot be opened or written.
    #[error("ledger file `{}` cannot be used", .path.display())]
    Ledger {
        /// The file at fault.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It cannot be seen what an earlier host has left, so that nothing may be started beside it.
    #[error("what an earlier process host left cannot be looked for")]
    Sweep(#[source] io::Error),
    /// The thread that spawns could not be started.
    #[error("thread `xy-spawner` cannot be started")]
    Spawner(#[source] io::Error),
    /// The system refused to make this process a child-subreaper.
    #[error("this process cannot become a child-subreaper")]
    Subreaper(#[source] io::Error),
    /// `SIGCHLD` is ignored here, so the kernel throws away how children end.
    #[error("SIGCHLD is ignored in this process: reset it to its default, or exit codes are lost")]
    ChildSignalIgnored,
}

/// Spawns processes and answers for each until it is reaped. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProcessHost {
    inner: Arc<Host>,
}

/// What the clones of a host and its processes share.
#[derive(Debug)]
struct Host {
    options: HostOptions,
    spawner: Spawner,
    ledger: Option<Mutex<Ledger>>,
    groups: Option<Groups>,
    /// Orphans may come to us that descend from none of our trees: from children that were there before the host, or from
    /// anywhere in the container whose first process we are.
    has_others: bool,
    /// By pid; each shared with whoever owns the process.
    live: Mutex<BTreeMap<u32, Arc<LiveProcess>>>,
    /// Who waits for which of them to end.
    exits: Exits,
    /// What was read of processes when somebody asked last.
    readings: Mutex<usage::Readings>,
    /// Admits those that are being started, a few at a time.
    starting: Semaphore,
    /// Reaps adopted orphans; begun by the first use inside a runtime.
    adoption: OnceLock<adoption::Task>,
    /// What an earlier program of this process left for the children of this one.
    inherited: Mutex<handover::Inherited>,
    /// The secrets of the latest start, by label. They never leave this program but for the processes they are for.
    secrets: Mutex<BTreeMap<String, Secrets>>,
}

/// Locks, whoever panicked before: each critical section leaves its data valid at every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    fn with_ledger(&self, action: impl FnOnce(&mut Ledger)) {
        if let Some(ledger) = &self.ledger {
            action(&mut lock(ledger));
        }
    }

    /// Strikes a reaped process, and says how it ended if that is known; its pid may already be another's.
    fn strike(&self, pid: u32, marker: &str, report: Option<&ExitReport>) {
        let mut live = lock(&self.live);
        if live.get(&pid).is_some_and(|process| process.marker == marker) {
            live.remove(&pid);
        }
        drop(live);
        self.with_ledger(|ledger| ledger.gone(marker, report));
    }

    fn is_main(&self, pid: u32) -> bool {
        lock(&self.live).contains_key(&pid)
    }

    /// How far a scan has to look to see all of a tree.
    fn reach(&self) -> tree::Reach {
        if cfg!(target_os = "linux") && self.options.subreaper && tree::lists_children() {
            tree::Reach::Children
        } else {
            tree::Reach::All
        }
    }
}

impl ProcessHost {
    /// Starts a host and ends what an earlier one left, by the ledger, before it returns.
    ///
    /// Blocking: the sweep takes up to five seconds if processes resist it. The sweep looks at processes whose
    /// environment this user may read; processes of a service that changed to another user are seen by root only.
    ///
    /// # Errors
    /// If the ledger is in use or unusable (an unreadable one is set aside instead), `SIGCHLD` is ignored in this process,
    /// or the system refuses a thread or the role of a child-subreaper.
    pub fn start(options: HostOptions) -> Result<(Self, SweepReport), HostError> {
        if sys::children_are_reaped_by_kernel() {
            return Err(HostError::ChildSignalIgnored);
        }
        if options.subreaper {
            sys::set_subreaper().map_err(HostError::Subreaper)?;
        }
        let (ledger, groups, report) = match &options.ledger {
            None => (None, None, SweepReport::default()),
            Some(path) => {
                let groups = || if options.cgroups { Groups::open(path) } else { None };
                let (ledger, groups, report) = Ledger::open(path, groups).map_err(|error| match error {
                    OpenError::InUse => HostError::LedgerInUse(path.clone()),
                    OpenError::Sweep(source) => HostError::Sweep(source),
                    OpenError::Io(path, source) => HostError::Ledger { path, source },
                })?;
                (Some(Mutex::new(ledger)), groups, report)
            }
        };
        if let Some(dir) = &options.notify_dir {
            readiness::notify::sweep(dir);
        }
        let spawner = Spawner::get().map_err(HostError::Spawner)?;
        let own = std::process::id();
        let has_others = own == 1
            || (options.subreaper && tree::children_of(own).map_or(true, |children| !children.is_empty()));
        let inner = Arc::new(Host {
            options,
            spawner,
            ledger,
            groups,
            has_others,
            live: Mutex::new(BTreeMap::new()),
            exits: Exits::default(),
            readings: Mutex::default(),
            starting: Semaphore::new(STARTS_AT_ONCE),
            adoption: OnceLock::new(),
            inherited: Mutex::default(),
            secrets: Mutex::default(),
        });
        let host = Self { inner };
        host.begin_adoption();
        Ok((host, report))
    }

    /// Starts a process and returns once its program runs, or tells exactly why it does not.
    ///
    /// `label` is the child's path, for ledger and reports. All processes are created one after the other, so a program on
    /// a file system that hangs holds up other starts (nothing else). A program that is being written is tried five times within
    /// half a second.
    ///
    /// # Errors
    /// See [`SpawnErrorKind`]. After an error no process is left.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Cancel safe: a process whose future was dropped is killed and reaped.
    pub async fn spawn(&self, label: &str, spec: &ProcessSpec) -> Result<OsProcess, SpawnError> {
        self.spawn_as(label, None, spec).await
    }

    /// Like [`spawn`](Self::spawn), for the main process of one start of a child: the ledger notes which one.
    pub(super) async fn spawn_as(
        &self,
        label: &str,
        incarnation: Option<u64>,
        spec: &ProcessSpec,
    ) -> Result<OsProcess, SpawnError> {
        let secrets = command::resolve(self, label, spec).await?;
        self.note_secrets(label, &secrets);
        self.spawn_with(label, incarnation, spec, secrets).await
    }

    /// Like [`spawn`](Self::spawn), for what runs on behalf of a child that has been started, and with its secrets.
    pub(super) async fn spawn_beside(
        &self,
        label: &str,
        spec: &ProcessSpec,
    ) -> Result<OsProcess, SpawnError> {
        let wanted = &spec.settings.secrets;
        let known =
            lock(&self.inner.secrets).get(label).filter(|known| known.keys().eq(wanted.keys())).cloned();
        let secrets = match known {
            Some(known) => known,
            None if wanted.is_empty() => Secrets::new(),
            // The program before this one has started the child.
            None => {
                let secrets = command::resolve(self, label, spec).await?;
                self.note_secrets(label, &secrets);
                secrets
            }
        };
        self.spawn_with(label, None, spec, secrets).await
    }

    fn note_secrets(&self, label: &str, secrets: &Secrets) {
        let mut known = lock(&self.inner.secrets);
        if secrets.is_empty() {
            known.remove(label);
        } else {
            known.insert(label.to_owned(), secrets.clone());
        }
    }

    async fn spawn_with(
        &self,
        label: &str,
        incarnation: Option<u64>,
        spec: &ProcessSpec,
        secrets: Secrets,
    ) -> Result<OsProcess, SpawnError> {
        self.begin_adoption();
        let found = command::find(self, spec, secrets).await?;
        // From here on it takes the memory of a whole environment.
        let mut permit = self.inner.starting.acquire().await.map_err(|_| SpawnError::host_gone())?;
        let mut spare = self.inner.groups.as_ref().and_then(Groups::spare);
        let marker = match &spare {
            Some(spare) => spare.marker().to_owned(),
            None => command::random_marker()?,
        };
        let command = Arc::new(command::prepare(spec, found, marker)?);
        let mut delays = TEXT_BUSY_DELAYS.iter();
        loop {
            match self.try_spawn(label, incarnation, &command, spare.take()).await {
                Err(error) if error.kind() == SpawnErrorKind::TextBusy => match delays.next() {
                    Some(delay) => {
                        drop(permit);
                        tokio::time::sleep(*delay).await;
                        permit = self.inner.starting.acquire().await.map_err(|_| SpawnError::host_gone())?;
                    }
                    None => return Err(error),
                },
                result => return result,
            }
        }
    }

    async fn try_spawn(
        &self,
        label: &str,
        incarnation: Option<u64>,
        command: &Arc<PreparedCommand>,
        spare: Option<Spare>,
    ) -> Result<OsProcess, SpawnError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let (host, command_for_job) = (self.inner.clone(), command.clone());
        let label = label.to_owned();
        let job = Job::Spawn { host, label, incarnation, command: command_for_job, spare, reply };
        if !self.inner.spawner.send(job) {
            return Err(SpawnError::host_gone());
        }
        let (guard, output) = answer.await.map_err(|_| SpawnError::host_gone())??;
        match OsProcess::watch(guard, Some(output)) {
            Ok(process) => Ok(process),
            Err((guard, error)) => {
                guard.bury().await;
                Err(SpawnError::unwatchable(&command.program, &error))
            }
        }
    }

    /// Returns what has been spawned and not been reaped, by pid.
    pub fn live(&self) -> Vec<LiveProcess> {
        lock(&self.inner.live).values().map(|live| LiveProcess::clone(live)).collect()
    }

    /// Returns the values of all secrets that children were started with, for hiding them.
    pub fn secrets(&self) -> Vec<Secret> {
        lock(&self.inner.secrets).values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Returns by which means trees are owned.
    pub fn ownership(&self) -> Ownership {
        match &self.inner.groups {
            Some(groups) if groups.is_usable() => Ownership::Cgroup { path: groups.base().to_owned() },
            _ if self.inner.reach() == tree::Reach::Children => Ownership::Subreaper,
            _ => Ownership::Walk,
        }
    }

    /// Returns the orphans that came to this process and belong to no tree it has (with `subreaper`).
    ///
    /// Such a process has left its parent, session and group and has cleared its environment before it was ever seen.
    /// Nobody can say whose it is, so it is not killed with a tree.
    pub fn strangers(&self) -> Vec<Member> {
        let mut kin = lock(&self.inner.spawner.kin);
        // Without a look these are those of the look before.
        let _unseen = kin.look();
        kin.strangers().unwrap_or_default().iter().map(Member::escaped).collect()
    }

    /// Kills the [`strangers`](Self::strangers) and what descends from them, and returns whom.
    ///
    /// To be called when no tree is left, at the end of a program that ends everything it has started: they all descend
    /// from one of its trees, whichever it was. Does nothing in a process that had children before it had a host, and in
    /// the first one of a container, because they may be others' there. Takes a second at most. Nothing is to be spawned
    /// afterwards.
    ///
    /// # Cancel safety
    /// Cancel safe: signals that were sent stay sent.
    pub async fn end_strangers(&self) -> Vec<Member> {
        let deadline = tokio::time::Instant::now() + STRANGERS_LIMIT;
        let mut killed: Vec<Stat> = Vec::new();
        loop {
            let (strangers, is_seen) = {
                let mut kin = lock(&self.inner.spawner.kin);
                // Under the lock without which no orphan is reaped.
                let strangers = match kin.look().and_then(|()| kin.strangers()) {
                    Ok(_) if self.inner.has_others => Ok(Vec::new()),
                    strangers => strangers,
                };
                let is_seen = strangers.is_ok();
                let strangers = strangers.unwrap_or_default();
                for stranger in &strangers {
                    let _ended = sys::signal_child(stranger.pid, libc::SIGKILL);
                }
                (strangers, is_seen)
            };
            if strangers.is_empty() && is_seen || tokio::time::Instant::now() >= deadline {
                // Nobody else says when a program with a host in several places is at its end.
                if let Some(groups) = &self.inner.groups {
                    groups.remove();
                }
                return killed.iter().map(Member::escaped).collect();
            }
            if !is_seen {
                tokio::time::sleep(process::RESCAN).await;
            }
            process::await_exits(&strangers, deadline).await;
            // Their children come to us by that.
            for stranger in strangers {
                if !killed.iter().any(|stat| stat.identity() == stranger.identity()) {
                    killed.push(stranger);
                }
            }
        }
    }

    /// Returns the directory for notification sockets.
    pub(super) fn notify_dir(&self) -> Option<&Path> {
        self.inner.options.notify_dir.as_deref()
    }

    fn begin_adoption(&self) {
        let adopts = cfg!(target_os = "linux") && self.inner.options.subreaper;
        if adopts && self.inner.adoption.get().is_none() {
            // Without a runtime there is nothing to adopt yet: the first spawn comes here again.
            if let Some(task) = adoption::Task::start(&self.inner.spawner) {
                let _ = self.inner.adoption.set(task);
            }
        }
    }
}
