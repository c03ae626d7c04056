//! Which of our children are main processes, which are orphans that came to us, and whose tree each orphan belongs to.
//!
//! A child-subreaper gets every descendant that loses its parent. The kernel gives it to the first thread of the program
//! that lives, its main thread, while main processes are children of the spawner thread; so one short list tells the
//! orphans, however many servers there are. An orphan is reaped under the lock of this table only, and until then its pid
//! is its own; so what was found out about it once holds, and looking for one tree's orphans does not cost a look at each
//! of the others.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crate::process::handover::{KnownState, OrphanState};
use crate::process::sys;
use crate::process::tree::{self, Identity, Stat};

/// A process may be seen in the moment in which it has no environment, on its way into another program. Only one that
/// nobody owns for longer than this is reported.
const DOUBT: Duration = Duration::from_millis(100);

/// An orphan that came to us and has not been reaped.
#[derive(Debug)]
struct Orphan {
    identity: Identity,
    command: String,
    owner: Owner,
}

/// Whose tree an orphan belongs to.
#[derive(Debug)]
enum Owner {
    /// That of this marker.
    Tree(String),
    /// Nobody's yet.
    Unknown { since: Instant, is_reported: bool },
}

/// The table. There is one for the program, as there is one spawner thread.
#[derive(Debug, Default)]
pub(super) struct Kin {
    /// Marker by pid of every main process that may still be unreaped.
    mains: BTreeMap<u32, String>,
    /// By marker: who was seen to belong to the tree and was still there at the latest look.
    known: BTreeMap<String, Vec<Identity>>,
    /// By pid.
    orphans: BTreeMap<u32, Orphan>,
    /// The main thread has ended, so that orphans come to some other thread.
    is_leader_gone: bool,
}

impl Kin {
    /// Notes a main process that was created.
    pub(super) fn born(&mut self, pid: u32, marker: &str) {
        self.mains.insert(pid, marker.to_owned());
    }

    /// Forgets a main process that was reaped; its pid may already belong to a later one.
    pub(super) fn forget(&mut self, pid: u32, marker: &str) {
        if self.mains.get(&pid).is_some_and(|found| found == marker) {
            self.mains.remove(&pid);
        }
        self.known.remove(marker);
    }

    /// Returns who is known to belong to a tree by earlier looks.
    pub(super) fn known(&self, marker: &str) -> Vec<Identity> {
        self.known.get(marker).cloned().unwrap_or_default()
    }

    /// Replaces who is known to belong to a tree.
    pub(super) fn set_known(&mut self, marker: &str, known: Vec<Identity>) {
        if known.is_empty() {
            self.known.remove(marker);
        } else {
            self.known.insert(marker.to_owned(), known);
        }
    }

    /// Returns the orphans of one tree.
    pub(super) fn orphans_of(&self, marker: &str) -> Vec<Identity> {
        let is_of = |orphan: &&Orphan| matches!(&orphan.owner, Owner::Tree(owner) if owner == marker);
        self.orphans.values().filter(is_of).map(|orphan| orphan.identity).collect()
    }

    /// Returns whoever is known to belong to a tree beside its main process, with the tree's marker.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, Identity)> {
        let known = self.known.iter().flat_map(|(marker, known)| known.iter().map(move |one| (marker, *one)));
        let orphans = self.orphans.values().filter_map(|orphan| match &orphan.owner {
            Owner::Tree(marker) => Some((marker, orphan.identity)),
            Owner::Unknown { .. } => None,
        });
        known.chain(orphans).map(|(marker, identity)| (marker.as_str(), identity))
    }

    /// Returns the live orphans that belong to no tree there is.
    ///
    /// Those of a tree that has ended are among them: it ended without having known of them.
    ///
    /// # Errors
    /// If the system cannot say who lives.
    pub(super) fn strangers(&self) -> io::Result<Vec<Stat>> {
        let is_stranger = |orphan: &&Orphan| match &orphan.owner {
            Owner::Tree(owner) => !self.mains.values().any(|marker| marker == owner),
            Owner::Unknown { .. } => true,
        };
        let strangers = self.orphans.values().filter(is_stranger);
        let stats = strangers.filter_map(|orphan| Stat::look(orphan.identity.pid).transpose());
        stats.filter(|stat| stat.as_ref().map_or(true, |stat| stat.is_alive)).collect()
    }

    /// Returns who is known to belong to which tree, and the orphans.
    pub(super) fn state(&self) -> (Vec<KnownState>, Vec<OrphanState>) {
        let known = self.known.iter().map(|(marker, members)| KnownState {
            marker: marker.clone(),
            members: members.iter().map(|one| (one.pid, one.start_time)).collect(),
        });
        let known = known.collect();
        let orphans = self.orphans.values().map(|orphan| OrphanState {
            pid: orphan.identity.pid,
            start_time: orphan.identity.start_time,
            command: orphan.command.clone(),
            owner: match &orphan.owner {
                Owner::Tree(marker) => Some(marker.clone()),
                Owner::Unknown { .. } => None,
            },
        });
        (known, orphans.collect())
    }

    /// Goes on with what an earlier program knew.
    pub(super) fn restore(&mut self, known: Vec<KnownState>, orphans: Vec<OrphanState>) {
        let identity = |(pid, start_time)| Identity { pid, start_time };
        for KnownState { marker, members } in known {
            self.known.insert(marker, members.into_iter().map(identity).collect());
        }
        for OrphanState { pid, start_time, command, owner } in orphans {
            let identity = identity((pid, start_time));
            let unknown = Owner::Unknown { since: Instant::now(), is_reported: true };
            let owner = owner.map_or(unknown, Owner::Tree);
            self.orphans.insert(pid, Orphan { identity, command, owner });
        }
    }

    /// Looks who has come to us, and finds out whose they are.
    ///
    /// # Errors
    /// If the system cannot say; then some of them may not be known.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let adopted = self.adopted()?;
        // Somebody else has reaped these, which is not theirs to do; what we know of them may be wrong by now.
        self.orphans.retain(|pid, _| adopted.contains(pid));
        // Most often there is nobody, and this is looked at in every restart.
        if adopted.is_empty() {
            return Ok(());
        }
        let Some(session) = Stat::look(std::process::id())?.map(|stat| stat.session) else { return Ok(()) };
        for pid in adopted {
            if matches!(self.orphans.get(&pid), Some(Orphan { owner: Owner::Tree(_), .. })) {
                continue;
            }
            let Some(stat) = Stat::look(pid)? else { continue };
            // Whoever is in our session was started by another part of this program, which waits for it.
            if stat.session == session {
                continue;
            }
            if !stat.is_alive {
                // It runs no more, so it belongs to nobody; it is there to be reaped.
                let owner = Owner::Unknown { since: Instant::now(), is_reported: true };
                self.orphans.entry(pid).or_insert(Orphan {
                    identity: stat.identity(),
                    command: stat.command,
                    owner,
                });
                continue;
            }
            self.resolve(stat)?;
        }
        Ok(())
    }

    /// Finds the owner of a live orphan that has none.
    fn resolve(&mut self, stat: Stat) -> io::Result<()> {
        let marker =
            tree::marker_of(stat.pid)?.filter(|marker| self.mains.values().any(|main| main == marker));
        let owner = marker
            .or_else(|| self.mains.get(&stat.session).cloned())
            .or_else(|| self.mains.get(&stat.group).cloned())
            .or_else(|| self.last_ancestor_of(&stat));
        let (pid, identity) = (stat.pid, stat.identity());
        let orphan = self.orphans.entry(pid).or_insert_with(|| Orphan {
            identity,
            command: stat.command,
            owner: Owner::Unknown { since: Instant::now(), is_reported: false },
        });
        if let Some(owner) = owner {
            orphan.owner = Owner::Tree(owner);
        } else if let Owner::Unknown { since, is_reported: is_reported @ false } = &mut orphan.owner
            && since.elapsed() >= DOUBT
        {
            *is_reported = true;
            tracing::warn!(pid, command = orphan.command, "an orphan came to us that belongs to no server");
        }
        Ok(())
    }

    /// Returns the tree in which the process itself was seen before it lost its parent.
    fn last_ancestor_of(&self, stat: &Stat) -> Option<String> {
        let identity = stat.identity();
        self.known.iter().find(|(_, known)| known.contains(&identity)).map(|(marker, _)| marker.clone())
    }

    /// Reaps the orphans that have ended.
    ///
    /// Only those of another session: every descendant of a process of ours is in a session of its own, while a child
    /// that another part of this program started with `std::process` is in ours and has an owner who waits for it.
    pub(super) fn reap(&mut self) {
        self.is_leader_gone = Stat::read(std::process::id()).is_none_or(|stat| stat.has_lost_first_thread);
        // Whoever was not seen now is reaped by a later look.
        let _unseen = self.look();
        // We own each pid until here: nothing but a wait of ours frees it.
        self.orphans.retain(|pid, _| matches!(sys::reap_pid(*pid), Ok(None)));
    }

    /// Returns our children that are nobody's main process.
    fn adopted(&self) -> io::Result<Vec<u32>> {
        let own = std::process::id();
        let mut adopted =
            if self.is_leader_gone { tree::children_of(own)? } else { tree::children_of_first_thread(own)? };
        adopted.retain(|pid| !self.mains.contains_key(pid));
        Ok(adopted)
    }
}
