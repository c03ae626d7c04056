//! What a supervisor does when things go wrong: whom it leaves behind, whom it starts twice, which lines it loses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::{self, now, pass, signal, until};
use crate::run::Run;
use crate::speed::owners;
use crate::subject::{Places, Subject, Work};

/// How many servers there are, each with three grandchildren.
const SERVERS: usize = 3;

/// How many lines are written, and the size at which their file is rotated; everything is kept.
const LINES: usize = 100_000;
const ROTATED_AT: u64 = 1 << 20;
const KEPT: usize = 50;

/// How long a supervisor may take to put things right.
const TIME: Duration = Duration::from_secs(6);

/// The kinds of processes that a server consists of.
const KINDS: [&str; 4] = ["tree", "in-group", "in-session", "orphaned"];

/// The titles of the rows, in their order.
pub(crate) const ROWS: [&str; 5] = [
    "supervisor killed: left of the old servers",
    "supervisor killed: copies of a server afterwards",
    "server killed: left of its processes when the next runs",
    "stop: left of the servers",
    "100,000 lines through rotation: lost, repeated, torn",
];

/// Runs every scenario and returns its answers in the order of the rows.
pub(crate) fn of(subject: Subject, places: &Places) -> Vec<String> {
    let (left, copies) = supervisor_killed(subject, places);
    vec![left, copies, server_killed(subject, places), stopped(subject, places), lines(subject, places)]
}

fn trees(subject: Subject, places: &Places) -> Option<Run<'_>> {
    let work = Work { kind: "tree", ..Work::silent(SERVERS) };
    let mut run = Run::started(subject, places, work)?;
    until(TIME, || run.notes.all().len() >= SERVERS * KINDS.len());
    pass(subject.shortest_life());
    Some(run)
}

/// Kills the processes that own the servers, as a lack of memory does, and starts the supervisor again where nobody does.
fn supervisor_killed(subject: Subject, places: &Places) -> (String, String) {
    let Some(mut run) = trees(subject, places) else { return (failed(), failed()) };
    let old = run.notes.all().to_vec();
    let start = now();
    owners(&mut run).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    let renewed = |run: &mut Run<'_>| run.notes.latest().values().all(|note| note.at > start);
    let mut by = "by itself";
    pass(Duration::from_secs(2));
    if !renewed(&mut run) && run.supervisors().is_empty() {
        by = "by hand";
        run.start_again();
    }
    if !until(TIME * 3, || renewed(&mut run)) {
        by = "never";
    }
    pass(Duration::from_secs(1));
    let left = left_of(&run, &old.iter().map(|note| (note.pid, note.kind.as_str())).collect());
    let alive: BTreeSet<i32> = run.processes().iter().map(|process| process.pid).collect();
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for note in run.notes.all().iter().filter(|note| note.kind == "tree" && alive.contains(&note.pid)) {
        *copies.entry(&note.name).or_default() += 1;
    }
    let most = copies.values().max().copied().unwrap_or(0);
    (left, format!("{most}, started again {by}"))
}

/// Kills the main process of each server, and looks when the next one runs.
fn server_killed(subject: Subject, places: &Places) -> String {
    let Some(mut run) = trees(subject, places) else { return failed() };
    let old = run.notes.all().to_vec();
    let start = now();
    run.notes.latest().values().for_each(|note| signal(note.pid, Signal::SIGKILL));
    if !until(TIME, || run.notes.latest().values().all(|note| note.at > start)) {
        return failed();
    }
    left_of(&run, &old.iter().map(|note| (note.pid, note.kind.as_str())).collect())
}

/// Asks for an ordered end of everything.
fn stopped(subject: Subject, places: &Places) -> String {
    let Some(mut run) = trees(subject, places) else { return failed() };
    let old = run.notes.all().to_vec();
    run.stop();
    until(TIME, || {
        processes::reap();
        run.processes().is_empty()
    });
    left_of(&run, &old.iter().map(|note| (note.pid, note.kind.as_str())).collect())
}

/// Says how many of these are still alive, by kind.
fn left_of(run: &Run<'_>, old: &BTreeMap<i32, &str>) -> String {
    let alive: BTreeSet<i32> = run.processes().iter().map(|process| process.pid).collect();
    let count = |kind: &str| {
        let kinds = old.iter().filter(|(pid, old)| **old == kind && alive.contains(pid));
        kinds.count()
    };
    let counts: Vec<(usize, &str)> = KINDS
        .iter()
        .zip(["main", "in its group", "of another session", "orphaned"])
        .map(|(kind, name)| (count(kind), name))
        .filter(|(count, _)| *count > 0)
        .collect();
    if counts.is_empty() {
        return "none".to_owned();
    }
    let of = SERVERS;
    counts.iter().map(|(count, name)| format!("{count}/{of} {name}")).collect::<Vec<_>>().join(", ")
}

/// Lets one server write numbered lines, and looks for each of them in the files.
fn lines(subject: Subject, places: &Places) -> String {
    if subject.logger().is_none() {
        return String::new();
    }
    let tail = format!(":{LINES}");
    let log = Some((ROTATED_AT, KEPT));
    let Some(mut run) = Run::started(subject, places, Work { kind: "lines", tail, log, ..Work::silent(1) })
    else {
        return failed();
    };
    if !until(TIME * 3, || run.notes.all().iter().any(|note| note.kind == "end")) {
        return failed();
    }
    // The writer is done; what it wrote may still be on its way.
    until(TIME / 3, || count(&run).0 == 0);
    let (lost, repeated, torn, files) = count(&run);
    let logger = subject.logger().unwrap_or_default();
    format!("{lost}, {repeated}, {torn} in {files} files ({logger})")
}

/// Returns how many lines are lost, repeated and torn, and how many files there are.
fn count(run: &Run<'_>) -> (usize, usize, usize, usize) {
    let mut seen = vec![0_usize; LINES];
    let mut torn = 0;
    let files = run.subject.log_files(run.directory(), "c0000");
    for file in &files {
        let bytes = fs::read(file).unwrap_or_default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = String::from_utf8_lossy(line);
            match number(&text) {
                Some(number) => seen[number] += 1,
                // What a supervisor has to say itself has other words.
                None if text.contains("line") || text.contains("again") || text.contains("c0000,") => {
                    torn += 1
                }
                None => {}
            }
        }
    }
    let lost = seen.iter().filter(|seen| **seen == 0).count();
    let repeated = seen.iter().filter(|seen| **seen > 1).count();
    (lost, repeated, torn, files.len())
}

/// Returns the number of a whole line, whatever stands before it.
fn number(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("line ")?;
    let (first, rest) = rest.split_once(" of c0000, ")?;
    let second = rest.strip_suffix(" again.")?;
    (first == second && first.len() == 8)
        .then(|| first.parse().ok())
        .flatten()
        .filter(|number| *number < LINES)
}

fn failed() -> String {
    "does not come that far".to_owned()
}
