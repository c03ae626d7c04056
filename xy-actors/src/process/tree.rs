//! Which processes belong to a child: session, group, ancestry, and the marker for those that left all three.
//!
//! A process is attributed to a tree if it is in the main process's session or group, descends from one that is, was
//! attributed before (pid and start time), or has lost its parent and carries the tree's marker in its environment. What
//! stays unseen: a process that has its own session, lost its parent, was never seen before, and has cleared its
//! environment or changed to another user (whose environment only root can read).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
#[path = "tree/linux.rs"]
mod table;
#[cfg(target_os = "macos")]
#[path = "tree/macos.rs"]
mod table;

pub(super) use self::table::{boot_id, children_of, children_of_first_thread, lists_children};

/// Returns whether the system could not answer, as opposed to having answered that there is nothing to be seen.
///
/// A look without descriptors or memory sees nobody. To take that for an end would let a living tree out of sight.
pub(super) fn could_not_look(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Tries again until the deadline while the system has no descriptor or memory to answer with. Blocking.
pub(super) fn insist<T>(deadline: Instant, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if could_not_look(&error) && Instant::now() < deadline => wait_a_moment(),
            result => return result,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "before the runtime; nobody tells when a descriptor is free")]
pub(super) fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Makes of a failed look that there is nothing to be seen, unless the system could not answer.
pub(super) fn seen<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if could_not_look(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its pid.
    pub(super) pid: u32,
    /// The name of its program, at most 15 bytes, lossy.
    pub(super) command: String,
    /// Whether any of it still runs; a zombie does not.
    pub(super) is_alive: bool,
    /// Whether it is ending: what it has in its environment cannot be read any more, while what it holds may still be held.
    pub(super) is_ending: bool,
    /// Whether its first thread has ended; the others may go on.
    pub(super) has_lost_first_thread: bool,
    /// Its parent.
    pub(super) parent: u32,
    /// Its process group.
    pub(super) group: u32,
    /// Its session.
    pub(super) session: u32,
    /// When it started, in clock ticks since boot. With the pid, its identity.
    pub(super) start_time: u64,
}

impl Stat {
    /// Reads the state of a process; `None` if there is none of that pid, or the system cannot say.
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::look(pid).ok().flatten()
    }

    /// Reads the state of a process; `None` if there is none of that pid.
    ///
    /// # Errors
    /// If the system cannot say.
    pub(super) fn look(pid: u32) -> io::Result<Option<Self>> {
        table::read(pid)
    }

    /// Returns what tells it from every other process since boot.
    pub(super) fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time: self.start_time }
    }
}

/// A pid together with the start time that tells it from a later process of the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    /// The pid.
    pub(super) pid: u32,
    /// Clock ticks from boot to its start.
    pub(super) start_time: u64,
}

impl Identity {
    /// Returns whether this very process is still there, if only as a zombie.
    ///
    /// # Errors
    /// If the system cannot say.
    pub(super) fn is_current(self) -> io::Result<bool> {
        Ok(Stat::look(self.pid)?.is_some_and(|stat| stat.start_time == self.start_time))
    }
}

/// How much of the machine a scan looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The main process, those known, and their descendants. Complete where we are a child-subreaper and know our orphans:
    /// a look that finds nobody has found a main process without children, and nobody among the orphans.
    Children,
    /// Every process there is.
    All,
}

/// The tree to look for.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    /// The main process, not yet reaped.
    pub(super) main: u32,
    /// What its descendants have in their environment.
    pub(super) marker: &'a str,
    /// Processes attributed by earlier scans.
    pub(super) known: &'a [Identity],
}

/// Returns the live processes of a tree, the main process first if it is among them.
pub(super) fn scan(
    scope: &Scope<'_>,
    reach: Reach,
    is_main_of_another: impl Fn(u32) -> bool,
) -> io::Result<Vec<Stat>> {
    let (stats, above) = match reach {
        // Nobody above us is among our descendants.
        Reach::Children => (nearby(scope)?, vec![std::process::id(), 1]),
        Reach::All => (everything()?, above()),
    };
    let mut unread = Ok(());
    // A main process has the marker of its own tree, and reading that of each would make ends of many trees quadratic.
    let carries_marker = |pid| {
        !is_main_of_another(pid)
            && has_marker(pid, scope.marker).unwrap_or_else(|error| {
                unread = Err(error);
                false
            })
    };
    let found = attribute(&stats, scope, &above, carries_marker);
    unread.map(|()| found)
}

/// Reads every process there is.
pub(super) fn everything() -> io::Result<Vec<Stat>> {
    table::pids()?.into_iter().filter_map(|pid| Stat::look(pid).transpose()).collect()
}

/// Reads the main process, those known, and all their descendants.
fn nearby(scope: &Scope<'_>) -> io::Result<Vec<Stat>> {
    let mut stats = BTreeMap::new();
    let known = scope.known.iter().map(|identity| identity.pid);
    add_nearby(&mut stats, known.chain([scope.main]).collect())?;
    Ok(stats.into_values().collect())
}

fn add_nearby(stats: &mut BTreeMap<u32, Stat>, mut pending: Vec<u32>) -> io::Result<()> {
    while let Some(pid) = pending.pop() {
        // A pid that was reused during the walk could lead in a circle.
        if stats.contains_key(&pid) {
            continue;
        }
        let stat = Stat::look(pid)?;
        // The kernel has given the children of one that runs no more to somebody else.
        if stat.as_ref().is_none_or(|stat| stat.is_alive) {
            pending.extend(children_of(pid)?);
        }
        stats.extend(stat.map(|stat| (pid, stat)));
    }
    Ok(())
}

/// Returns ourselves and our ancestors: they belong to no tree of ours, and orphans go to one of them.
pub(super) fn above() -> Vec<u32> {
    let mut chain = vec![std::process::id()];
    while let Some(stat) = chain.last().and_then(|pid| Stat::read(*pid)) {
        if stat.parent == 0 || chain.contains(&stat.parent) {
            break;
        }
        chain.push(stat.parent);
    }
    if !chain.contains(&1) {
        chain.push(1);
    }
    chain
}

/// Returns whether the process started with this marker in its environment.
pub(super) fn has_marker(pid: u32, marker: &str) -> io::Result<bool> {
    Ok(marker_of(pid)?.is_some_and(|found| found == marker))
}

/// Returns the marker that the process started with, if that may be read.
pub(super) fn marker_of(pid: u32) -> io::Result<Option<String>> {
    let marker = table::variable(pid, super::command::MARKER_VARIABLE)?;
    Ok(marker.and_then(|marker| String::from_utf8(marker).ok()))
}

/// Picks the live processes of one tree out of `stats`.
fn attribute(
    stats: &[Stat],
    scope: &Scope<'_>,
    above: &[u32],
    mut carries_marker: impl FnMut(u32) -> bool,
) -> Vec<Stat> {
    let is_candidate = |stat: &&Stat| !above.contains(&stat.pid) && stat.parent != 2;
    let mut members: Vec<&Stat> = stats
        .iter()
        .filter(is_candidate)
        .filter(|stat| {
            stat.pid == scope.main
                || stat.session == scope.main
                || stat.group == scope.main
                || scope.known.contains(&stat.identity())
        })
        .collect();
    add_descendants(&mut members, stats, above);
    let present: BTreeSet<u32> = stats.iter().map(|stat| stat.pid).collect();
    for stat in stats.iter().filter(is_candidate) {
        // A parent that is not there has ended while we looked.
        let is_orphan = above.contains(&stat.parent) || !present.contains(&stat.parent);
        if is_orphan && stat.is_alive && !contains(&members, stat) && carries_marker(stat.pid) {
            members.push(stat);
        }
    }
    add_descendants(&mut members, stats, above);
    let mut members: Vec<Stat> = members.into_iter().filter(|stat| stat.is_alive).cloned().collect();
    members.sort_by_key(|stat| (stat.pid != scope.main, stat.pid));
    members
}

fn contains(members: &[&Stat], stat: &Stat) -> bool {
    members.iter().any(|member| member.pid == stat.pid)
}

fn add_descendants<'a>(members: &mut Vec<&'a Stat>, stats: &'a [Stat], above: &[u32]) {
    let mut next = 0;
    while let Some(parent) = members.get(next).map(|stat| stat.pid) {
        next += 1;
        for stat in stats.iter().filter(|stat| stat.parent == parent) {
            if !above.contains(&stat.pid) && !contains(members, stat) {
                members.push(stat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, parent: u32, group: u32, session: u32) -> Stat {
        let command = String::new();
        Stat {
            pid,
            command,
            is_alive: true,
            is_ending: false,
            has_lost_first_thread: false,
            parent,
            group,
            session,
            start_time: u64::from(pid),
        }
    }

    const SCOPE: Scope<'static> = Scope { main: 100, marker: "m", known: &[] };
    /// Ourselves, our parent, init.
    const ABOVE: [u32; 3] = [50, 40, 1];

    fn pids(stats: &[Stat], scope: &Scope<'_>, marked: &[u32]) -> Vec<u32> {
        attribute(stats, scope, &ABOVE, |pid| marked.contains(&pid)).iter().map(|stat| stat.pid).collect()
    }

    #[test]
    fn we_read_ourselves() {
        let stat = Stat::read(std::process::id()).expect("we exist");
        assert!(stat.is_alive && stat.identity().is_current().expect("readable"));
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        let other = Identity { start_time: stat.start_time + 1, ..stat.identity() };
        assert!(!other.is_current().expect("readable"));
    }

    #[test]
    fn session_group_and_ancestry_belong_and_strangers_do_not() {
        let stats = [
            stat(100, 50, 100, 100),
            stat(101, 100, 100, 100),
            // Left group and session, but not its parent; then its own child.
            stat(102, 101, 102, 102),
            stat(103, 102, 103, 103),
            // Lost its parent, kept the session.
            stat(104, 1, 104, 100),
            // Strangers: a sibling of ours, a child of init.
            stat(200, 50, 200, 200),
            stat(201, 1, 201, 201),
        ];
        assert_eq!(pids(&stats, &SCOPE, &[]), [100, 101, 102, 103, 104]);
    }

    #[test]
    fn an_orphan_belongs_by_its_marker_together_with_its_descendants() {
        let stats = [stat(300, 1, 300, 300), stat(301, 300, 301, 301), stat(302, 40, 302, 302)];
        assert_eq!(pids(&stats, &SCOPE, &[300, 302]), [300, 301, 302]);
        assert_eq!(pids(&stats, &SCOPE, &[]), [0_u32; 0]);
    }

    #[test]
    fn the_marker_of_a_process_with_a_living_parent_of_its_own_is_not_asked_for() {
        let stats = [stat(399, 1, 399, 399), stat(400, 399, 400, 400)];
        assert_eq!(pids(&stats, &SCOPE, &[400]), [0_u32; 0]);
        // Without the parent in sight it has just become an orphan.
        assert_eq!(pids(&stats[1..], &SCOPE, &[400]), [400]);
    }

    #[test]
    fn a_process_seen_before_belongs_while_its_start_time_is_the_same() {
        let known = [Identity { pid: 500, start_time: 500 }, Identity { pid: 501, start_time: 1 }];
        let scope = Scope { known: &known, ..SCOPE };
        let stats = [stat(500, 1, 500, 500), stat(501, 1, 501, 501)];
        assert_eq!(pids(&stats, &scope, &[]), [500]);
    }

    #[test]
    fn the_dead_and_those_above_us_are_never_members() {
        let mut zombie = stat(101, 100, 100, 100);
        zombie.is_alive = false;
        let stats = [zombie, stat(102, 100, 100, 100), stat(40, 1, 100, 100), stat(50, 40, 100, 100)];
        assert_eq!(pids(&stats, &SCOPE, &[]), [102]);
    }
}
