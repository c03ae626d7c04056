//! The sweep at start: ends what an earlier host left, and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::super::cgroup;
use super::super::sys;
use super::super::tree::{self, Identity, Stat};
use super::Entry;
use crate::exit::ExitReport;

/// How long a sweep insists, whatever resists it. A look takes as long as it takes: nobody is left who was not told to end.
const LIMIT: Duration = Duration::from_secs(5);

/// How long processes are waited for that are about to end: those that were told to when the time was over, and those that
/// cannot be asked any more whose they are.
const ENDS: Duration = Duration::from_secs(1);

/// What the start-up sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Processes of an earlier host that were ended.
    pub killed: Vec<SweptProcess>,
    /// Processes of an earlier host that did not end in time.
    pub left: Vec<SweptProcess>,
    /// The starts of children that an earlier host began and of whose end it wrote nothing, because it died or the machine
    /// did. None of them runs any more, unless it is among `left`.
    pub lost: Vec<LostIncarnation>,
    /// The latest starts of children whose ends the earlier host wrote down, oldest first. It may have died before it told
    /// anybody of the last of them.
    pub ended: Vec<EndedIncarnation>,
    /// How many children were written down as unfinished without any process of theirs being alive.
    pub stale: usize,
    /// Where a ledger that could not be read completely was moved.
    pub set_aside: Option<PathBuf>,
}

/// A process that an earlier host left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweptProcess {
    /// Its pid.
    pub pid: u32,
    /// The name of its program.
    pub command: String,
    /// The path of the child it belonged to.
    pub label: String,
    /// The marker of its tree.
    pub marker: String,
}

/// A start of a child whose end nobody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostIncarnation {
    /// The child's path.
    pub label: String,
    /// Which start of it.
    pub incarnation: u64,
    /// Its main process, if the earlier host came to write it down.
    pub pid: Option<u32>,
}

/// A start of a child whose end was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedIncarnation {
    /// The child's path.
    pub label: String,
    /// Which start of it.
    pub incarnation: u64,
    /// Its main process, if that was written down.
    pub pid: Option<u32>,
    /// How it ended, without what was killed with it, and without a cause that takes more than a few words.
    pub report: ExitReport,
}

impl EndedIncarnation {
    /// Returns what ended with an entry; nothing with that of a command beside the child.
    pub(super) fn of(entry: Entry, report: ExitReport) -> Option<Self> {
        let pid = entry.main.map(|main| main.identity.pid);
        Some(Self { incarnation: entry.incarnation?, label: entry.label, pid, report })
    }
}

impl LostIncarnation {
    /// Returns what is lost with an entry; nothing with that of a command beside the child.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let pid = entry.main.map(|main| main.identity.pid);
        Some(Self { label: entry.label.clone(), incarnation: entry.incarnation?, pid })
    }
}

/// A live process that the ledger accounts for, held so that its pid cannot come to mean another.
struct Survivor {
    identity: Identity,
    process: OwnedFd,
    swept: SweptProcess,
}

/// Ends every process in a control group of the earlier host, and every one that carries the marker of an unfinished
/// entry, until two passes in a row find none.
///
/// # Errors
/// If the system cannot say who is there. Then nothing may be started: it might run twice.
pub(super) fn sweep(unfinished: &BTreeMap<String, Entry>, cgroup: Option<&Path>) -> io::Result<SweepReport> {
    sweep_until(Instant::now() + LIMIT, unfinished, cgroup)
}

fn sweep_until(
    deadline: Instant,
    unfinished: &BTreeMap<String, Entry>,
    cgroup: Option<&Path>,
) -> io::Result<SweepReport> {
    let mut report = SweepReport::default();
    for (marker, stat, is_left) in cgroup.map(|base| cgroup::sweep(base, deadline)).unwrap_or_default() {
        let label = unfinished.get(&marker).map(|entry| entry.label.clone()).unwrap_or_default();
        let swept = SweptProcess { pid: stat.pid, command: stat.command, label, marker };
        if is_left { report.left.push(swept) } else { report.killed.push(swept) }
    }
    if unfinished.is_empty() {
        return Ok(report);
    }
    let patience = Instant::now() + ENDS;
    let mut seen: BTreeMap<Identity, SweptProcess> = BTreeMap::new();
    let mut empty_passes = 0;
    let mut left = Vec::new();
    while empty_passes < 2 {
        let (survivors, is_somebody_ending) = tree::insist(deadline, || survivors(unfinished))?;
        left = survivors.iter().map(|survivor| survivor.identity).collect();
        if survivors.is_empty() && is_somebody_ending && Instant::now() < patience {
            // Whose it is cannot be read any more; a lock or a port of it may still be taken.
            empty_passes = 0;
            tree::wait_a_moment();
            continue;
        }
        if survivors.is_empty() {
            empty_passes += 1;
            continue;
        }
        empty_passes = 0;
        // A machine under load may need all of the time for its first answer.
        if Instant::now() >= deadline && !seen.is_empty() {
            seen.extend(survivors.into_iter().map(|survivor| (survivor.identity, survivor.swept)));
            break;
        }
        for survivor in &survivors {
            let _ = sys::signal_process(survivor.process.as_fd(), survivor.identity.pid, libc::SIGKILL);
            seen.insert(survivor.identity, survivor.swept.clone());
        }
        let patience = deadline.max(Instant::now() + ENDS);
        for survivor in &survivors {
            await_exit(&survivor.process, patience);
        }
    }
    let swept = report.killed.iter().chain(&report.left).chain(seen.values());
    let swept: Vec<&str> = swept.map(|process| process.marker.as_str()).collect();
    report.stale = unfinished.keys().filter(|marker| !swept.contains(&marker.as_str())).count();
    for (identity, process) in seen {
        if left.contains(&identity) { report.left.push(process) } else { report.killed.push(process) }
    }
    Ok(report)
}

/// Finds the processes to end, with their identity checked after they were opened, and says whether there are others that
/// are ending, and might be such.
fn survivors(unfinished: &BTreeMap<String, Entry>) -> io::Result<(Vec<Survivor>, bool)> {
    let above = tree::above();
    let stats = tree::everything()?;
    let mut survivors: Vec<Survivor> = Vec::new();
    for stat in stats.iter().filter(|stat| !above.contains(&stat.pid)) {
        if let Some(survivor) = survivor(stat, unfinished)? {
            survivors.push(survivor);
        }
    }
    let is_found = |stat: &Stat| survivors.iter().any(|survivor| survivor.identity == stat.identity());
    let is_somebody_ending = stats.iter().any(|stat| stat.is_alive && stat.is_ending && !is_found(stat));
    Ok((survivors, is_somebody_ending))
}

fn survivor(stat: &Stat, unfinished: &BTreeMap<String, Entry>) -> io::Result<Option<Survivor>> {
    // A zombie of the dead host lingers until init reaps it; it runs no more. Kernel threads have no environment.
    if !stat.is_alive || stat.parent == 2 {
        return Ok(None);
    }
    // Another user's environment cannot be read, so only our own processes come this far; root looks at everybody's, for
    // a service may have changed its user.
    let marker = tree::marker_of(stat.pid)?;
    let Some((marker, entry)) = marker.and_then(|marker| unfinished.get_key_value(&marker)) else {
        return Ok(None);
    };
    let process = match sys::open_process(stat.pid) {
        Ok(process) => process,
        Err(error) if tree::could_not_look(&error) => return Err(error),
        Err(_) => return Ok(None),
    };
    // If the pid changes hands from here on, these checks may see the later process, but a signal through `process`
    // reaches the one opened or nobody.
    let Some(now) = Stat::look(stat.pid)? else { return Ok(None) };
    let is_same = now.start_time == stat.start_time && tree::has_marker(stat.pid, marker)?;
    let is_main_reused = entry.main.is_some_and(|main| {
        let inode = sys::process_inode(process.as_fd());
        let is_another = main.inode.is_some() && inode.is_some() && main.inode != inode;
        main.identity.pid == stat.pid && (main.identity.start_time != stat.start_time || is_another)
    });
    if !is_same || is_main_reused || !now.is_alive {
        return Ok(None);
    }
    let (command, label) = (now.command, entry.label.clone());
    let swept = SweptProcess { pid: stat.pid, command, label, marker: marker.clone() };
    Ok(Some(Survivor { identity: stat.identity(), process, swept }))
}

/// Waits until the process has ended, but not beyond the deadline.
fn await_exit(process: &OwnedFd, deadline: Instant) {
    let rest = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
    // An interrupted or failed wait only makes the next pass come sooner.
    let _ = nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    const MARKER: &str = "00112233445566778899aabbccddeeff";

    /// A process that an earlier host left.
    struct Left(Child);

    impl Left {
        fn new() -> Self {
            let mut command = Command::new("sleep");
            command.arg("1000").env("XY_INSTANCE", MARKER).stdin(Stdio::null());
            Self(command.spawn().expect("it starts"))
        }
    }

    impl Drop for Left {
        fn drop(&mut self) {
            // It may have ended.
            let _gone = self.0.kill();
            self.0.wait().expect("it is our child");
        }
    }

    #[test]
    fn who_is_found_when_the_time_is_over_is_ended_all_the_same() {
        let mut left = Left::new();
        let entry = Entry { label: "web".to_owned(), incarnation: Some(1), main: None };
        let unfinished = BTreeMap::from([(MARKER.to_owned(), entry)]);
        let report = sweep_until(Instant::now(), &unfinished, None).expect("the system says who is there");
        let killed: Vec<_> =
            report.killed.iter().map(|process| (process.pid, process.label.as_str())).collect();
        assert_eq!((killed, report.left), (vec![(left.0.id(), "web")], Vec::new()));
        assert!(left.0.try_wait().expect("our child").is_some(), "it has ended");
    }
}
