//! What whole process trees use, read when somebody asks and never in between.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::{LiveProcess, ProcessHost, lock};
use crate::process::tree::Identity;

/// What the processes of one tree use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeUsage {
    /// Processor time of all its live processes, and of those that ended and were waited for by one of these.
    pub cpu: Duration,
    /// Resident memory in bytes. A page that several processes share counts for each.
    pub memory_bytes: u64,
    /// How many processes there are.
    pub processes: u32,
    /// How long ago the main process started.
    pub age: Duration,
}

/// One line of the process table, as far as it counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    pid: u32,
    is_alive: bool,
    parent: u32,
    group: u32,
    session: u32,
    /// In clock ticks.
    cpu: u64,
    /// In clock ticks since boot.
    start_time: u64,
    /// In pages.
    resident: u64,
}

/// A tree to count: its main process and whoever else is known to belong to it.
#[derive(Debug)]
struct Tree {
    main: u32,
    known: Vec<Identity>,
}

impl ProcessHost {
    /// Returns what each tree uses that has a main process, with the child's path and the pid of that process.
    ///
    /// Blocking: it reads the process table once, which takes some milliseconds per thousand processes, on several threads
    /// if there are many. Empty where the system has no `/proc`.
    pub fn usage(&self) -> Vec<(String, u32, TreeUsage)> {
        let live = self.live();
        let trees = self.trees(&live);
        let Some(units) = Units::read() else { return Vec::new() };
        let sums = sum(&samples(), &trees, std::process::id());
        live.into_iter()
            .zip(sums)
            .filter(|(_, sum)| sum.processes > 0)
            .map(|(process, sum)| (process.label, process.pid, units.usage(&sum, process.start_time)))
            .collect()
    }
}

impl ProcessHost {
    /// Returns the live processes of a child's tree, by the child's path; the main process is the first.
    ///
    /// Blocking, as [`ProcessHost::usage`]. Empty if the child does not run.
    pub fn pids_of(&self, path: &str) -> Vec<u32> {
        let live = self.live();
        let is_asked = |index: usize| live.get(index).is_some_and(|process| process.label == path);
        let mut pids: Vec<u32> =
            live.iter().filter(|process| process.label == path).map(|process| process.pid).collect();
        if pids.is_empty() {
            return pids;
        }
        let samples = samples();
        let owners = owners(&samples, &self.trees(&live), std::process::id());
        for (sample, owner) in samples.iter().zip(owners) {
            if owner.is_some_and(is_asked) && !pids.contains(&sample.pid) {
                pids.push(sample.pid);
            }
        }
        pids
    }

    /// Returns the trees of these main processes, in their order.
    fn trees(&self, live: &[LiveProcess]) -> Vec<Tree> {
        let kin = lock(&self.inner.spawner.kin);
        let tree = |marker: &str| kin.known(marker).into_iter().chain(kin.orphans_of(marker)).collect();
        live.iter().map(|process| Tree { main: process.pid, known: tree(process.marker.as_str()) }).collect()
    }
}

/// What a tree uses, in the kernel's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    cpu: u64,
    resident: u64,
    processes: u32,
}

/// Adds up what the processes of each tree use, in the order of the trees.
fn sum(samples: &[Sample], trees: &[Tree], own: u32) -> Vec<Sum> {
    let mut sums = vec![Sum::default(); trees.len()];
    for (sample, owner) in samples.iter().zip(owners(samples, trees, own)) {
        if let Some(sum) = owner.and_then(|owner| sums.get_mut(owner)) {
            sum.cpu += sample.cpu;
            sum.resident += sample.resident;
            sum.processes += 1;
        }
    }
    sums
}

/// Returns to which of the trees each process belongs, if it is alive and belongs to one.
fn owners(samples: &[Sample], trees: &[Tree], own: u32) -> Vec<Option<usize>> {
    let mains: HashMap<u32, usize> =
        trees.iter().enumerate().map(|(index, tree)| (tree.main, index)).collect();
    let known: HashMap<Identity, usize> = trees
        .iter()
        .enumerate()
        .flat_map(|(index, tree)| tree.known.iter().map(move |identity| (*identity, index)))
        .collect();
    let by_pid: HashMap<u32, &Sample> = samples.iter().map(|sample| (sample.pid, sample)).collect();
    let direct = |sample: &Sample| {
        let identity = Identity { pid: sample.pid, start_time: sample.start_time };
        let mains = |pid| mains.get(pid);
        mains(&sample.session).or_else(|| mains(&sample.group)).or_else(|| known.get(&identity)).copied()
    };
    let owner = |sample: &Sample| {
        // Upwards to the first that is known. A pid reused in the meantime could lead in a circle, so there is an end.
        let ancestors = std::iter::successors(Some(sample), |one| by_pid.get(&one.parent).copied());
        ancestors.take(samples.len()).take_while(|one| one.pid != own && one.pid > 1).find_map(direct)
    };
    samples.iter().map(|sample| if sample.is_alive { owner(sample) } else { None }).collect()
}

/// What the kernel's units are worth.
#[derive(Debug, Clone, Copy)]
struct Units {
    /// Clock ticks a second.
    ticks: u64,
    page_bytes: u64,
    /// Since boot.
    now: Duration,
}

impl Units {
    fn read() -> Option<Self> {
        let value = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self {
            ticks: value(SysconfVar::CLK_TCK)?.max(1),
            page_bytes: value(SysconfVar::PAGE_SIZE)?,
            now: Duration::try_from_secs_f64(seconds).ok()?,
        })
    }

    fn time(&self, ticks: u64) -> Duration {
        Duration::from_millis(ticks.saturating_mul(1000) / self.ticks)
    }

    fn usage(&self, sum: &Sum, start_time: u64) -> TreeUsage {
        TreeUsage {
            cpu: self.time(sum.cpu),
            memory_bytes: sum.resident.saturating_mul(self.page_bytes),
            processes: sum.processes,
            age: self.now.saturating_sub(self.time(start_time)),
        }
    }
}

/// From how many processes on another thread helps to read them; each takes 5 to 15 us, mostly of the kernel.
const WORTH_A_THREAD: usize = 256;

/// How many threads read at most.
const THREADS_AT_MOST: usize = 4;

/// Reads the process table; what ends meanwhile is left out.
fn samples() -> Vec<Sample> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = (pids.len() / WORTH_A_THREAD).clamp(1, processors.min(THREADS_AT_MOST));
    read_on(threads, &pids)
}

/// Reads these processes on so many threads, this one among them.
fn read_on(threads: usize, pids: &[u32]) -> Vec<Sample> {
    let mut parts = pids.chunks(pids.len().div_ceil(threads).max(1));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        // Where there is room for no more threads, this one reads everything.
        let others: Vec<_> = parts
            .map(|part| (part, thread::Builder::new().spawn_scoped(scope, || read(part)).ok()))
            .collect();
        let mut samples = read(own);
        for (part, reader) in others {
            samples.extend(reader.and_then(|reader| reader.join().ok()).unwrap_or_else(|| read(part)));
        }
        samples
    })
}

/// Reads these processes.
fn read(pids: &[u32]) -> Vec<Sample> {
    let mut buffer = [0; 2048];
    let sample = |pid: &u32| {
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let length = file.read(&mut buffer).ok()?;
        parse(*pid, buffer.get(..length)?)
    };
    pids.iter().filter_map(sample).collect()
}

/// Parses `/proc/PID/stat`. The name is in parentheses and may itself contain `) `, so the last one ends it.
fn parse(pid: u32, text: &[u8]) -> Option<Sample> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = [""; 22];
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    for (field, text) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
        *field = text;
    }
    // The state is field 3 of the manual page.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let id = |field: usize| number(field).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let is_zombie = matches!(fields[0], "Z" | "X" | "x");
    Some(Sample {
        pid,
        // A first thread that has ended shows as a zombie while others go on.
        is_alive: !is_zombie || number(20)? > 1,
        parent: id(4),
        group: id(5),
        session: id(6),
        cpu: number(14)? + number(15)? + number(16)? + number(17)?,
        start_time: number(22)?,
        resident: number(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pid: u32, parent: u32, session: u32) -> Sample {
        Sample { pid, is_alive: true, parent, group: session, session, cpu: 1, start_time: 5, resident: 10 }
    }

    #[test]
    fn whoever_left_session_and_group_counts_by_its_ancestors_and_by_what_is_known() {
        let trees = [
            Tree { main: 10, known: vec![Identity { pid: 30, start_time: 5 }] },
            Tree { main: 20, known: vec![] },
        ];
        let samples = [
            sample(2, 1, 2),
            sample(10, 2, 10),
            sample(11, 10, 10),
            // Its own session, by ancestry; and a child of that.
            sample(12, 11, 12),
            sample(13, 12, 13),
            sample(20, 2, 20),
            // An orphan that was seen before, and one that nobody knows.
            sample(30, 2, 30),
            sample(40, 2, 40),
            Sample { is_alive: false, ..sample(21, 20, 20) },
        ];
        let sums = sum(&samples, &trees, 2);
        assert_eq!(
            sums,
            [Sum { cpu: 5, resident: 50, processes: 5 }, Sum { cpu: 1, resident: 10, processes: 1 }]
        );
    }

    #[test]
    fn a_line_of_the_process_table_is_read_by_its_last_parenthesis() {
        let line = b"42 (a) R (b) ) S 1 43 44 0 -1 4194560 1 0 0 0 3 4 5 6 20 0 1 0 12345 1 99 1";
        let expected = Sample {
            pid: 42,
            is_alive: true,
            parent: 1,
            group: 43,
            session: 44,
            cpu: 18,
            start_time: 12345,
            resident: 99,
        };
        assert_eq!(parse(42, line), Some(expected));
        assert_eq!(parse(42, &line[..40]), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn several_threads_read_every_process_once_and_in_order() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        // The last one is no process.
        let pids = [own, parent, own, own, parent, u32::MAX];
        for threads in 1..=8 {
            let read: Vec<u32> = read_on(threads, &pids).iter().map(|sample| sample.pid).collect();
            assert_eq!(read, pids[..5], "{threads} threads");
        }
        assert_eq!(read_on(3, &[]), []);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_has_an_age() {
        let own = std::process::id();
        let samples = samples();
        let found = samples.iter().find(|sample| sample.pid == own).expect("this process is in the table");
        let units = Units::read().expect("there is a /proc");
        let usage =
            units.usage(&Sum { cpu: found.cpu, resident: found.resident, processes: 1 }, found.start_time);
        assert!(usage.memory_bytes > 1 << 16, "{usage:?}");
        assert!(usage.age < Duration::from_secs(3600), "{usage:?}");
    }
}
