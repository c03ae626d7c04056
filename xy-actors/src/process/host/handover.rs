//! Handing a host over to the next program of this process, and taking one up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::{Semaphore, oneshot};

use super::exits::Exits;
use super::process::{Guard, Main, RESCAN};
use super::spawner::{Job, Spawner};
use super::{Host, HostError, HostOptions, OsProcess, ProcessHost, STARTS_AT_ONCE, lock};
use crate::log::Attachment;
use crate::process::cgroup::Groups;
use crate::process::handover::{Exchange, HostState, Luggage};
use crate::process::ledger::{Ledger, MainProcess};
use crate::process::settings::{original_limits, set_original_limits};
use crate::process::sys;
use crate::process::tree::Identity;

/// Returns whether there is no such process, as opposed to nobody being able to say.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// What an earlier program of this process left for the children of this one.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    luggage: Luggage,
    /// By log name and incarnation.
    attachments: BTreeMap<(String, u64), Attachment>,
}

impl ProcessHost {
    /// Says what the host knows, and which descriptors go with it.
    ///
    /// What is spawned or reaped afterwards is not in it, so nobody may use the host between this and the
    /// [exchange](Self::exchange). A process that no child claims afterwards is ended by the next program.
    ///
    /// # Errors
    /// If the lock of the ledger cannot be duplicated.
    pub fn hand_over(&self) -> io::Result<(HostState, Vec<OwnedFd>)> {
        let (known, orphans) = lock(&self.inner.spawner.kin).state();
        if let Some(groups) = &self.inner.groups {
            // The next program makes its own.
            groups.clear();
        }
        let lock_of_ledger = match &self.inner.ledger {
            Some(ledger) => Some(lock(ledger).share_lock()?),
            None => None,
        };
        let state = HostState {
            live: self.live(),
            known,
            orphans,
            has_others: self.inner.has_others,
            has_groups: self.inner.groups.is_some(),
            limits: original_limits().to_vec(),
            ledger_lock: lock_of_ledger.as_ref().map(AsRawFd::as_raw_fd),
        };
        Ok((state, lock_of_ledger.into_iter().collect()))
    }

    /// Exchanges the program of this process. Returns only if the system refuses; nothing has changed then.
    ///
    /// # Cancel safety
    /// Not cancel safe: the exchange takes place all the same.
    pub async fn exchange(&self, exchange: Exchange) -> io::Error {
        let (failed, why) = oneshot::channel();
        if !self.inner.spawner.send(Job::Exchange { exchange: Box::new(exchange), failed }) {
            return io::Error::other("nobody creates processes any more");
        }
        why.await.unwrap_or_else(|_| io::Error::other("the exchange panicked"))
    }

    /// Goes on where the host of an earlier program of this process stopped: nothing is swept, and its processes are this
    /// host's.
    ///
    /// To be called in a program that is [led](crate::process::handover::lead) by its first thread.
    ///
    /// # Errors
    /// As [`start`](Self::start), and if the lock of the ledger is not among the descriptors.
    pub fn take_up(options: HostOptions, state: HostState, mut luggage: Luggage) -> Result<Self, HostError> {
        if sys::children_are_reaped_by_kernel() {
            return Err(HostError::ChildSignalIgnored);
        }
        let spawner = Spawner::get().map_err(HostError::Spawner)?;
        if options.subreaper {
            sys::set_subreaper().map_err(HostError::Subreaper)?;
        }
        let groups = options.ledger.as_ref().filter(|_| state.has_groups).and_then(|path| Groups::open(path));
        let ledger = match &options.ledger {
            None => None,
            Some(path) => {
                let ledger = Self::take_up_ledger(path, &state, &mut luggage, groups.as_ref());
                let ledger = ledger.map_err(|source| HostError::Ledger { path: path.clone(), source })?;
                Some(Mutex::new(ledger))
            }
        };
        {
            let mut kin = lock(&spawner.kin);
            for process in &state.live {
                kin.born(process.pid, &process.marker);
            }
            kin.restore(state.known, state.orphans);
        }
        set_original_limits(state.limits);
        let live = state.live.into_iter().map(|process| (process.pid, Arc::new(process))).collect();
        let inner = Arc::new(Host {
            options,
            spawner,
            ledger,
            groups,
            has_others: state.has_others,
            live: Mutex::new(live),
            exits: Exits::default(),
            readings: Mutex::default(),
            starting: Semaphore::new(STARTS_AT_ONCE),
            adoption: OnceLock::new(),
            inherited: Mutex::new(Inherited { luggage, attachments: BTreeMap::new() }),
            secrets: Mutex::default(),
        });
        Ok(Self { inner })
    }

    fn take_up_ledger(
        path: &Path,
        state: &HostState,
        luggage: &mut Luggage,
        groups: Option<&Groups>,
    ) -> io::Result<Ledger> {
        let lock = state.ledger_lock.and_then(|number| luggage.take(number));
        let lock = lock.ok_or_else(|| io::Error::other("its lock was not handed over"))?;
        // One that could not be looked at when it was created is found by its marker alone; a wrong time would spare it.
        let live = state.live.iter().filter(|process| process.start_time > 0).map(|process| {
            let identity = Identity { pid: process.pid, start_time: process.start_time };
            (process.marker.clone(), process.label.clone(), MainProcess { identity, inode: None })
        });
        Ledger::take_up(path, lock, groups, live)
    }

    /// Gives the children the output that they had, as [`LogHub::take_up`](crate::log::LogHub::take_up) returned it.
    pub fn give_attachments(&self, attachments: Vec<Attachment>) {
        let mut inherited = lock(&self.inner.inherited);
        for attachment in attachments {
            let key = (attachment.log().name().to_owned(), attachment.incarnation());
            inherited.attachments.insert(key, attachment);
        }
    }

    /// Ends every process that was taken up and that no child has, and begins to reap orphans.
    ///
    /// `claimed` are the markers of those that a child has, or will take.
    pub fn end_unclaimed(&self, claimed: &BTreeSet<String>) {
        self.begin_adoption();
        for process in self.live().into_iter().filter(|process| !claimed.contains(&process.marker)) {
            tracing::debug!(child = process.label, pid = process.pid, "nobody goes on with this process");
            let (pid, marker) = (process.pid, process.marker.clone());
            match Main::taken_up(self.inner.clone(), process) {
                Ok(main) => drop(Guard::new(main)),
                Err(error) if is_gone(&error) => {
                    tracing::warn!(pid, reason = %error, "a process that was taken up is not there");
                    self.forget(pid, &marker);
                }
                // It is dropped, and ended by that, as soon as it can be owned.
                Err(_) => {
                    let host = self.clone();
                    tokio::spawn(async move { host.adopt(&marker).await.map(drop) });
                }
            }
        }
    }

    /// Owns a process that was taken up. Goes on trying for as long as the system has no descriptor or memory for that: a
    /// process that is given up while it runs would run beside the next one.
    pub(in crate::process) async fn adopt(&self, marker: &str) -> io::Result<OsProcess> {
        let found = self.live().into_iter().find(|process| process.marker == marker);
        let process = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        let pid = process.pid;
        let mut is_told = false;
        let main = loop {
            match Main::taken_up(self.inner.clone(), process.clone()) {
                Ok(main) => break main,
                Err(error) if is_gone(&error) => {
                    self.forget(pid, marker);
                    return Err(error);
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(pid, reason = %error, "a process cannot be taken over yet; tried again");
                    }
                    tokio::time::sleep(RESCAN).await;
                }
            }
        };
        match OsProcess::watch(Guard::new(main), None) {
            Ok(process) => Ok(process),
            Err((guard, error)) => {
                guard.bury().await;
                Err(error)
            }
        }
    }

    fn forget(&self, pid: u32, marker: &str) {
        self.inner.strike(pid, marker, None);
        lock(&self.inner.spawner.kin).forget(pid, marker);
    }

    pub(in crate::process) fn take_attachment(&self, name: &str, incarnation: u64) -> Option<Attachment> {
        lock(&self.inner.inherited).attachments.remove(&(name.to_owned(), incarnation))
    }

    pub(in crate::process) fn take_descriptor(&self, number: RawFd) -> Option<OwnedFd> {
        lock(&self.inner.inherited).luggage.take(number)
    }
}
