//! What whole process trees use, read when somebody asks and never in between.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, SysconfVar, getsid, sysconf};

use super::{LiveProcess, ProcessHost, lock};
use crate::process::sys;
use crate::process::tree::Identity;

/// How long what was read of a process that has not run since is taken for true. All that changes of such a process is its
/// resident memory, when the system takes pages back.
const KEPT: Duration = Duration::from_secs(10);

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
    /// Processor time of its own by the process's clock; `None` where it cannot be asked.
    ran: Option<Duration>,
    /// The same by the process table, in clock ticks.
    ticks: u64,
    /// Processor time of those that it has waited for, in clock ticks.
    waited: u64,
    /// In clock ticks since boot.
    start_time: u64,
    /// In pages.
    resident: u64,
}

/// The trees to count, by their index.
#[derive(Debug, Default)]
struct Trees {
    /// By the pid of the main process.
    mains: HashMap<u32, usize>,
    /// By whoever else is known to belong to one.
    known: HashMap<Identity, usize>,
}

impl Trees {
    /// Returns to which tree a process belongs that can be told without its ancestors.
    fn direct(&self, sample: &Sample) -> Option<usize> {
        let main = self.mains.get(&sample.session).or_else(|| self.mains.get(&sample.group));
        let identity = Identity { pid: sample.pid, start_time: sample.start_time };
        main.or_else(|| self.known.get(&identity)).copied()
    }
}

/// What was read of each process at the latest look, by pid. Nothing is read in between.
#[derive(Debug, Default)]
pub(super) struct Readings(Vec<Reading>);

/// What was read of one process.
#[derive(Debug, Clone, Copy)]
struct Reading {
    sample: Sample,
    at: Instant,
}

impl ProcessHost {
    /// Returns what each tree uses that has a main process, with the child's path and the pid of that process.
    ///
    /// Blocking: it looks at every process. Of one that has not run since the latest look its clock says so, which takes a
    /// microsecond; of others a line of the process table is read, 5 to 15 microseconds each, on several threads if there
    /// are many. Empty where the system has no `/proc`.
    pub fn usage(&self) -> Vec<(String, u32, TreeUsage)> {
        let live = self.live();
        let trees = self.trees(&live);
        let Some(units) = Units::read() else { return Vec::new() };
        let sums = sum(&self.samples(&trees), &trees, live.len(), std::process::id());
        live.into_iter()
            .zip(sums)
            .filter(|(_, sum)| sum.processes > 0)
            .map(|(process, sum)| (process.label, process.pid, units.usage(&sum, process.start_time)))
            .collect()
    }

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
        let trees = self.trees(&live);
        let samples = self.samples(&trees);
        let owners = owners(&samples, &trees, std::process::id());
        for (sample, owner) in samples.iter().zip(owners) {
            if owner.is_some_and(is_asked) && !pids.contains(&sample.pid) {
                pids.push(sample.pid);
            }
        }
        pids
    }

    /// Returns the trees of these main processes, by their index.
    fn trees(&self, live: &[LiveProcess]) -> Trees {
        let mains = live.iter().enumerate().map(|(index, process)| (process.pid, index)).collect();
        let kin = lock(&self.inner.spawner.kin);
        let mut members = kin.members().peekable();
        if members.peek().is_none() {
            return Trees { mains, known: HashMap::new() };
        }
        let by_marker: HashMap<&str, usize> =
            live.iter().enumerate().map(|(index, process)| (process.marker.as_str(), index)).collect();
        let known = members.filter_map(|(marker, identity)| Some((identity, *by_marker.get(marker)?)));
        Trees { mains, known: known.collect() }
    }

    fn samples(&self, trees: &Trees) -> Vec<Sample> {
        // Whoever asks at the same time finds what was read for the first.
        lock(&self.inner.readings).update(trees, &pids(), Instant::now())
    }
}

impl Readings {
    /// Looks at these processes, in ascending order, and returns what there is to know of each that could belong to a tree.
    fn update(&mut self, trees: &Trees, pids: &[u32], now: Instant) -> Vec<Sample> {
        let mut before = std::mem::take(&mut self.0).into_iter().peekable();
        let (mut kept, mut due) = (Vec::with_capacity(pids.len()), Vec::new());
        for &pid in pids {
            while before.next_if(|reading| reading.sample.pid < pid).is_some() {}
            let before = before.next_if(|reading| reading.sample.pid == pid);
            let Some(session) = session_of(pid, trees) else { continue };
            match before.filter(|reading| reading.is_true(session, now)) {
                Some(reading) => kept.push(reading),
                None => due.push(pid),
            }
        }
        let mut readings = read(&due, now);
        readings.append(&mut kept);
        readings.sort_unstable_by_key(|reading| reading.sample.pid);
        let orphans = orphaned(&readings, trees, now);
        if !orphans.is_empty() {
            readings.retain(|reading| !orphans.contains(&reading.sample.pid));
            readings.extend(read(&orphans, now));
            readings.sort_unstable_by_key(|reading| reading.sample.pid);
        }
        self.0 = readings;
        self.0.iter().map(|reading| reading.sample).collect()
    }
}

impl Reading {
    /// Returns whether it still holds: the process has not run, so it has neither ended nor changed its group, and has
    /// neither got nor waited for a child. Its clock counts nanoseconds, so a later process of the same pid has another.
    fn is_true(&self, session: u32, now: Instant) -> bool {
        self.sample.session == session
            && now.saturating_duration_since(self.at) < KEPT
            && self.sample.ran.is_some()
            && self.sample.ran == sys::processor_time_of(self.sample.pid)
    }
}

/// Returns the session of a process; `None` if it is gone or cannot belong to a tree.
fn session_of(pid: u32, trees: &Trees) -> Option<u32> {
    // A main process leads the session that it was put into.
    if trees.mains.contains_key(&pid) {
        return Some(pid);
    }
    let session = getsid(Some(Pid::from_raw(pid.cast_signed()))).ok()?.as_raw().cast_unsigned();
    // Those of the kernel have none, and each process of ours is in that of a main process or of a descendant of it.
    (session != 0).then_some(session)
}

/// Returns those of earlier readings that may have another parent by now, which they get without running: whoever counts by
/// its ancestors, and has a parent that is not there any more, or that is younger than its child.
fn orphaned(readings: &[Reading], trees: &Trees, now: Instant) -> Vec<u32> {
    let start_of = |pid: u32| {
        let found = readings.binary_search_by_key(&pid, |reading| reading.sample.pid).ok()?;
        readings.get(found).map(|reading| reading.sample.start_time)
    };
    let last = [0, 1, std::process::id()];
    let earlier = readings.iter().filter(|reading| reading.at != now).map(|reading| reading.sample);
    let by_ancestors =
        earlier.filter(|sample| trees.direct(sample).is_none() && !last.contains(&sample.parent));
    let orphaned =
        by_ancestors.filter(|sample| start_of(sample.parent).is_none_or(|start| start > sample.start_time));
    orphaned.map(|sample| sample.pid).collect()
}

/// What a tree uses, in the kernel's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    ran: Duration,
    ticks: u64,
    resident: u64,
    processes: u32,
}

/// Adds up what the processes of each tree use, in the order of the trees.
fn sum(samples: &[Sample], trees: &Trees, count: usize, own: u32) -> Vec<Sum> {
    let mut sums = vec![Sum::default(); count];
    for (sample, owner) in samples.iter().zip(owners(samples, trees, own)) {
        if let Some(sum) = owner.and_then(|owner| sums.get_mut(owner)) {
            match sample.ran {
                Some(ran) => sum.ran += ran,
                None => sum.ticks += sample.ticks,
            }
            sum.ticks += sample.waited;
            sum.resident += sample.resident;
            sum.processes += 1;
        }
    }
    sums
}

/// Returns to which of the trees each process belongs, if it is alive and belongs to one. The samples are in the order of
/// their pids.
fn owners(samples: &[Sample], trees: &Trees, own: u32) -> Vec<Option<usize>> {
    let by_pid = |pid: u32| {
        let found = samples.binary_search_by_key(&pid, |sample| sample.pid).ok()?;
        samples.get(found)
    };
    let owner = |sample: &Sample| {
        // Upwards to the first that is known. A pid reused in the meantime could lead in a circle, so there is an end.
        let ancestors = std::iter::successors(Some(sample), |one| by_pid(one.parent));
        ancestors
            .take(samples.len())
            .take_while(|one| one.pid != own && one.pid > 1)
            .find_map(|one| trees.direct(one))
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
            cpu: sum.ran + self.time(sum.ticks),
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

/// Returns the pid of every process, in ascending order.
fn pids() -> Vec<u32> {
    let mut pids = sys::process_ids().unwrap_or_default();
    pids.sort_unstable();
    pids
}

/// Reads these processes in the process table; what ends meanwhile is left out.
fn read(pids: &[u32], now: Instant) -> Vec<Reading> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = (pids.len() / WORTH_A_THREAD).clamp(1, processors.min(THREADS_AT_MOST));
    read_on(threads, pids).into_iter().map(|sample| Reading { sample, at: now }).collect()
}

/// Reads these processes on so many threads, this one among them.
fn read_on(threads: usize, pids: &[u32]) -> Vec<Sample> {
    let mut parts = pids.chunks(pids.len().div_ceil(threads).max(1));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        // Where there is room for no more threads, this one reads everything.
        let others: Vec<_> = parts
            .map(|part| (part, thread::Builder::new().spawn_scoped(scope, || read_here(part)).ok()))
            .collect();
        let mut samples = read_here(own);
        for (part, reader) in others {
            samples.extend(reader.and_then(|reader| reader.join().ok()).unwrap_or_else(|| read_here(part)));
        }
        samples
    })
}

/// Reads these processes on this thread.
fn read_here(pids: &[u32]) -> Vec<Sample> {
    let mut buffer = [0; 2048];
    let sample = |pid: &u32| {
        // Asked before the rest is read: whoever runs in between has another time at the next look.
        let ran = sys::processor_time_of(*pid);
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let length = file.read(&mut buffer).ok()?;
        Some(Sample { ran, ..parse(*pid, buffer.get(..length)?)? })
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
        ran: None,
        ticks: number(14)? + number(15)?,
        waited: number(16)? + number(17)?,
        start_time: number(22)?,
        resident: number(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pid: u32, parent: u32, session: u32) -> Sample {
        Sample {
            pid,
            is_alive: true,
            parent,
            group: session,
            session,
            ran: None,
            ticks: 1,
            waited: 1,
            start_time: 5,
            resident: 10,
        }
    }

    fn trees(mains: &[u32], known: &[(u32, usize)]) -> Trees {
        let known = known.iter().map(|(pid, index)| (Identity { pid: *pid, start_time: 5 }, *index));
        Trees {
            mains: mains.iter().enumerate().map(|(index, main)| (*main, index)).collect(),
            known: known.collect(),
        }
    }

    #[test]
    fn whoever_left_session_and_group_counts_by_its_ancestors_and_by_what_is_known() {
        let samples = [
            sample(2, 1, 2),
            sample(10, 2, 10),
            sample(11, 10, 10),
            // Its own session, by ancestry; and a child of that.
            sample(12, 11, 12),
            sample(13, 12, 13),
            sample(20, 2, 20),
            Sample { is_alive: false, ..sample(21, 20, 20) },
            // An orphan that was seen before, and one that nobody knows.
            sample(30, 2, 30),
            sample(40, 2, 40),
        ];
        let sums = sum(&samples, &trees(&[10, 20], &[(30, 0)]), 2, 2);
        let of = |processes: u32| Sum {
            ran: Duration::ZERO,
            ticks: 2 * u64::from(processes),
            resident: 10 * u64::from(processes),
            processes,
        };
        assert_eq!(sums, [of(5), of(1)]);
    }

    #[test]
    fn the_time_of_the_process_clock_goes_before_that_of_the_table_and_children_are_added() {
        let ran = Some(Duration::from_micros(1_234_567));
        let samples = [Sample { ran, ticks: 999, waited: 300, ..sample(10, 2, 10) }];
        let units = Units { ticks: 100, page_bytes: 4096, now: Duration::from_secs(10) };
        let sums = sum(&samples, &trees(&[10], &[]), 1, 2);
        let usage = units.usage(&sums[0], 500);
        assert_eq!(usage.cpu, Duration::from_micros(4_234_567));
        assert_eq!((usage.memory_bytes, usage.age), (40_960, Duration::from_secs(5)));
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
            ran: None,
            ticks: 7,
            waited: 11,
            start_time: 12345,
            resident: 99,
        };
        assert_eq!(parse(42, line), Some(expected));
        assert_eq!(parse(42, &line[..40]), None);
    }

    #[test]
    fn whoever_lost_its_parent_without_running_is_read_again() {
        let now = Instant::now();
        let earlier = now.checked_sub(Duration::from_secs(1)).expect("the system has run for a second");
        let own = std::process::id();
        let reading = |sample: Sample, at: Instant| Reading { sample, at };
        let readings = [
            // In a tree's session, so that its parent says nothing.
            reading(sample(11, 99, 10), earlier),
            reading(sample(12, 11, 12), earlier),
            reading(sample(13, 98, 13), earlier),
            // The same, but read just now; and those with a parent that does not change any more.
            reading(sample(14, 98, 14), now),
            reading(sample(15, 1, 15), earlier),
            reading(sample(16, own, 16), earlier),
            // Its parent's pid is another's by now.
            reading(sample(17, 18, 17), earlier),
            reading(Sample { start_time: 6, ..sample(18, 1, 18) }, now),
        ];
        assert_eq!(orphaned(&readings, &trees(&[10], &[]), now), [13, 17]);
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

    /// A process that runs when it is asked to and waits otherwise.
    #[cfg(target_os = "linux")]
    struct Echo {
        process: std::process::Child,
        input: std::process::ChildStdin,
        output: std::process::ChildStdout,
    }

    #[cfg(target_os = "linux")]
    impl Echo {
        /// Starts it in a session of its own, as servers are: that of whoever runs the tests may be none in sight.
        fn start() -> Self {
            use std::process::{Command, Stdio};
            let mut command = Command::new("setsid");
            command.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = command.spawn().expect("every system has it");
            let (input, output) = (process.stdin.take(), process.stdout.take());
            let mut echo = Self { process, input: input.expect("piped"), output: output.expect("piped") };
            // From here on it leads its session.
            echo.run();
            echo
        }

        fn run(&mut self) {
            use std::io::Write as _;
            self.input.write_all(b"x").expect("it reads");
            self.output.read_exact(&mut [0]).expect("it answers");
        }

        fn end(mut self) {
            drop(self.input);
            self.process.wait().expect("it ends with its input");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_has_run_or_is_old_is_read_again() {
        const OLD: u64 = 1 << 40;
        let (mut busy, mut quiet) = (Echo::start(), Echo::start());
        let (one, other) = (busy.process.id(), quiet.process.id());
        let mut pids = [one, other];
        pids.sort_unstable();
        let (trees, start) = (Trees::default(), Instant::now());
        let mut readings = Readings::default();
        // What is read is marked, so that what is read again is told from it.
        let mut look = |at: Instant| {
            busy.run();
            let samples = readings.update(&trees, &pids, at);
            readings.0.iter_mut().for_each(|reading| reading.sample.resident = OLD);
            assert_eq!(samples.iter().map(|sample| sample.pid).collect::<Vec<_>>(), pids);
            let is_old = |pid: u32| samples.iter().any(|one| one.pid == pid && one.resident == OLD);
            (is_old(one), is_old(other))
        };
        assert_eq!(look(start), (false, false), "both are read at first");
        // Another process's clock moves when it leaves its processor, which may be after it has answered.
        let mut until = |at: Instant, is_wanted: fn((bool, bool)) -> bool, what: &str| {
            while !is_wanted(look(at)) {
                assert!(start.elapsed() < Duration::from_secs(60), "{what}");
                thread::yield_now();
            }
        };
        until(start, |old| old == (false, true), "one waits, and is read again all the same");
        until(start + KEPT / 2, |old| old == (false, true), "one runs, and the other waits");
        quiet.run();
        until(start + KEPT / 2, |(_, quiet)| !quiet, "it has run");
        until(start + KEPT / 2, |(_, quiet)| quiet, "it waits again, and is read all the same");
        assert_eq!(look(start + KEPT * 2), (false, false), "it is too long ago");
        quiet.end();
        let left: Vec<u32> = readings.update(&trees, &[one], start).iter().map(|sample| sample.pid).collect();
        assert_eq!((left, readings.0.len()), (vec![one], 1), "nothing is kept of who is gone");
        busy.end();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_has_an_age() {
        let own = std::process::id();
        let trees = trees(&[own], &[]);
        let samples = Readings::default().update(&trees, &pids(), Instant::now());
        let units = Units::read().expect("there is a /proc");
        let found = samples.iter().find(|sample| sample.pid == own).expect("this process is in the table");
        let sums = sum(std::slice::from_ref(found), &trees, 1, u32::MAX);
        // It leads no session, so it is found as nobody's here.
        let usage = units.usage(&Sum { resident: found.resident, ..sums[0] }, found.start_time);
        assert!(usage.memory_bytes > 1 << 16, "{usage:?}");
        assert!(usage.age < Duration::from_secs(3600), "{usage:?}");
    }
}
