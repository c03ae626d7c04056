//! What /proc knows of the processes of one run: who they are, what they cost, and whether any is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// The variable by which the processes of a run are told from all others; its value is the run's directory.
pub(crate) const MARKER: &str = "XY_PEERS";

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_micros(300);

/// A process of a run.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Whether it runs the children's program, and so is none of the supervisor's.
    pub(crate) is_child: bool,
}

/// What processes have cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    /// How often a thread has gone to sleep by itself, which is how often it had been awake.
    pub(crate) sleeps: u64,
}

/// Returns the live processes that carry the marker of a run, zombies not among them.
pub(crate) fn of_run(directory: &Path, child: &Path) -> Vec<Process> {
    let marker = format!("{MARKER}={}", directory.display());
    let entries = fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        // Whatever cannot be read has ended meanwhile, or is none of ours.
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        environment.split(|byte| *byte == 0).find(|entry| *entry == marker.as_bytes())?;
        let is_child = fs::read_link(format!("/proc/{pid}/exe")).ok()? == child;
        Some(Process { pid, is_child })
    })
    .collect()
}

/// Returns the parent of a process that is there.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Returns the proportional set size in KiB, which shares each page among all that have it.
pub(crate) fn memory(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    pss.and_then(|pss| pss.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

/// Returns what each thread of these processes has cost so far, by its id.
pub(crate) fn costs<'a>(processes: impl IntoIterator<Item = &'a Process>) -> BTreeMap<i32, Cost> {
    let mut costs = BTreeMap::new();
    for process in processes {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid)) else { continue };
        for thread in threads.flatten() {
            let Some(id) = thread.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let sleeps = sleeps.and_then(|sleeps| sleeps.trim().parse().ok()).unwrap_or(0);
            let schedule = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = schedule.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok());
            costs.insert(id, Cost { cpu: Duration::from_nanos(nanoseconds.unwrap_or(0)), sleeps });
        }
    }
    costs
}

/// Adds up what these processes have cost since then; a thread that has ended meanwhile takes what it cost with it.
pub(crate) fn cost_since<'a>(
    before: &BTreeMap<i32, Cost>,
    processes: impl IntoIterator<Item = &'a Process>,
) -> Cost {
    let mut sum = Cost::default();
    for (thread, now) in costs(processes) {
        let before = before.get(&thread).copied().unwrap_or_default();
        sum.cpu += now.cpu.saturating_sub(before.cpu);
        sum.sleeps += now.sleeps.saturating_sub(before.sleeps);
    }
    sum
}

/// Sends a signal; whoever is gone needs none.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let _gone = kill(Pid::from_raw(pid), signal);
}

/// Reaps what has ended, own children and adopted ones, and returns whether there is any process left below this one.
pub(crate) fn reap() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Looks until a condition holds, and returns whether it did in time.
pub(crate) fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = now() + limit;
    loop {
        if holds() {
            return true;
        }
        if now() > deadline {
            return false;
        }
        std::thread::park_timeout(GLANCE);
    }
}

/// Lets time pass, in which what is measured happens or must not happen.
pub(crate) fn pass(time: Duration) {
    until(time, || false);
}

/// Returns the monotonic clock, which the children read, too.
pub(crate) fn now() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the system has this clock"))
}

/// Kills every process of a run until none is left.
pub(crate) fn clear(directory: &Path, child: &Path) {
    let is_clear = until(Duration::from_secs(20), || {
        let left = of_run(directory, child);
        // Supervisors first, or they would start again what is killed.
        let supervisors: BTreeSet<i32> = left.iter().filter(|one| !one.is_child).map(|one| one.pid).collect();
        supervisors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        left.iter().filter(|one| one.is_child).for_each(|one| signal(one.pid, Signal::SIGKILL));
        reap();
        left.is_empty()
    });
    assert!(is_clear, "processes of {} cannot be killed", directory.display());
}
