//! The figures of speed and size: what each subject takes for the same work, in turns.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::{self, now, pass, signal, until};
use crate::run::{PATIENCE, Run};
use crate::subject::{Places, Subject, Work};
use crate::table::{Figure, Figures};

/// How many are killed, one after the other, within each run.
const KILLS: usize = 10;

/// How many are killed together.
const STORM: usize = 100;

/// How many children the largest run has.
const MANY: usize = 1000;

/// How long nothing has happened when memory is measured.
const CALM: Duration = Duration::from_millis(1200);

/// How long idling and crash loops are watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Measures what is measured in rounds.
pub(crate) fn round(subjects: &[Subject], places: &Places, is_first: bool, figures: &mut Figures) {
    for subject in subjects {
        alone(*subject, places, figures);
    }
    for subject in subjects {
        storm(*subject, places, figures);
    }
    for subject in subjects.iter().filter(|subject| is_first || !subject.is_slow()) {
        many(*subject, places, figures);
    }
}

/// Measures a supervisor of one child.
fn alone(subject: Subject, places: &Places, figures: &mut Figures) {
    let Some(mut run) = Run::started(subject, places, Work::silent(1)) else { return };
    let kills = if subject.shortest_life() > Duration::from_secs(1) { KILLS / 2 } else { KILLS };
    for _ in 0..kills {
        pass(subject.shortest_life());
        let taken = kill(&mut run, "c0000");
        figures.add(Figure::KillAlone, subject, taken);
    }
    pass(CALM);
    figures.add(Figure::MemoryOfOne, subject, memory(&run, true));
}

/// Kills a hundred children of a hundred at once.
fn storm(subject: Subject, places: &Places, figures: &mut Figures) {
    let Some(mut run) = Run::started(subject, places, Work::silent(STORM)) else { return };
    pass(subject.shortest_life());
    let before = run.notes.latest();
    let start = now();
    before.values().for_each(|note| signal(note.pid, Signal::SIGKILL));
    let mut last = None;
    until(PATIENCE, || {
        let latest = run.notes.latest();
        let is_back = before.iter().all(|(name, note)| latest[name].pid != note.pid);
        last = is_back.then(|| latest.values().map(|note| note.at).max()).flatten();
        is_back
    });
    figures.add(Figure::Storm, subject, last.map(|last| milliseconds(last - start)));
}

/// Measures a supervisor of a thousand children, from its start to its end.
fn many(subject: Subject, places: &Places, figures: &mut Figures) {
    let Some(mut run) = Run::started(subject, places, Work::silent(MANY)) else { return };
    let last = run.notes.latest().values().map(|note| note.at).max();
    figures.add(Figure::StartMany, subject, last.map(|last| milliseconds(last - run.since)));
    pass(CALM);
    let size = memory(&run, true);
    figures.add(Figure::MemoryOfMany, subject, size);
    let small = figures.median(Figure::MemoryOfOne, subject);
    let each = size.zip(small).map(|(size, small)| (size - small) * 1024.0 / (MANY - 1) as f64);
    figures.add(Figure::MemoryOfEach, subject, each);
    for victim in 0..KILLS {
        let name = format!("c{:04}", victim * (MANY / KILLS) + 7);
        let taken = kill(&mut run, &name);
        figures.add(Figure::KillAmongMany, subject, taken);
    }
    pass(Duration::from_millis(500));
    let start = now();
    run.stop();
    // Everything is below this process, orphans included, so nothing is left when there is nothing to wait for.
    let is_over = until(PATIENCE, || !processes::reap());
    figures.add(Figure::StopMany, subject, is_over.then(|| milliseconds(now() - start)));
}

/// Kills a child and returns how long it took until the next one reached its main function.
fn kill(run: &mut Run<'_>, name: &str) -> Option<f64> {
    let (_, pid) = run.notes.start_of(name)?;
    let start = now();
    signal(pid, Signal::SIGKILL);
    let mut back = None;
    until(PATIENCE, || {
        back = run.notes.start_of(name).filter(|(_, next)| *next != pid);
        back.is_some()
    });
    back.map(|(at, _)| milliseconds(at - start))
}

/// Returns the memory of a supervisor in MiB, the guard's included or not.
fn memory(run: &Run<'_>, with_guard: bool) -> Option<f64> {
    let own = run.supervisors();
    // The limit and the daemons that are one process are counted like all others.
    let counted = own.iter().filter(|process| with_guard || process.pid != run.first());
    let total: u64 = counted.map(|process| processes::memory(process.pid)).sum();
    (total > 0).then(|| total as f64 / 1024.0)
}

/// Measures the daemon of this project with nothing to do.
pub(crate) fn empty(places: &Places, figures: &mut Figures) {
    let run = Run::start(Subject::Xyd, places, Work::silent(0));
    let socket = run.directory().join("run/xy/xyd.sock");
    if !until(PATIENCE, || socket.exists()) {
        return;
    }
    pass(Duration::from_secs(1));
    figures.add(Figure::MemoryEmpty, Subject::Xyd, memory(&run, true));
    figures.add(Figure::MemoryEmptyAlone, Subject::Xyd, memory(&run, false));
}

/// Watches all subjects with a hundred silent children each, at the same time: none has anything to do.
pub(crate) fn idle(subjects: &[Subject], places: &Places, figures: &mut Figures) {
    let start = |subject: &Subject| Run::started(*subject, places, Work::silent(STORM));
    let runs: Vec<Run<'_>> = subjects.iter().filter_map(start).collect();
    pass(Duration::from_secs(3));
    let before: Vec<_> = runs.iter().map(Run::supervisors).map(|own| (processes::costs(&own), own)).collect();
    pass(WATCHED);
    for (run, (before, own)) in runs.iter().zip(before) {
        let cost = processes::cost_since(&before, &own);
        figures.add(Figure::IdleSleeps, run.subject, Some(cost.sleeps as f64));
        figures.add(Figure::IdleCpu, run.subject, Some(milliseconds(cost.cpu)));
    }
}

/// Watches all subjects with a child that ends as soon as it has started, each with the delays that it has by default.
pub(crate) fn crash_loop(subjects: &[Subject], places: &Places, figures: &mut Figures) {
    let work = Work { kind: "crash", always_at_once: false, ..Work::silent(1) };
    let subjects = subjects.iter().filter(|subject| **subject != Subject::Limit);
    let mut runs: Vec<Run<'_>> =
        subjects.filter_map(|subject| Run::started(*subject, places, work.clone())).collect();
    let own: Vec<_> = runs.iter().map(Run::supervisors).map(|own| (processes::costs(&own), own)).collect();
    pass(WATCHED);
    for (run, (before, own)) in runs.iter_mut().zip(own) {
        let cpu = processes::cost_since(&before, &own).cpu;
        figures.add(Figure::LoopCpu, run.subject, Some(cpu.as_secs_f64() / WATCHED.as_secs_f64() * 100.0));
        let starts: Vec<Duration> =
            run.notes.all().iter().filter(|note| note.kind == "crash").map(|note| note.at).collect();
        figures.add(Figure::LoopStarts, run.subject, Some(starts.len() as f64));
        let first = starts.get(1).map(|second| milliseconds(*second - starts[0]));
        figures.add(Figure::LoopFirst, run.subject, first);
    }
}

/// Measures how fast one child can write while its output is captured, into files with rotation where there is one.
pub(crate) fn capture(subjects: &[Subject], places: &Places, figures: &mut Figures) {
    let writes = [(Figure::Capture64K, 500_u64 << 20, 64 << 10), (Figure::Capture100, 50 << 20, 100)];
    for (figure, total, at_once) in writes {
        for subject in subjects.iter().filter(|subject| subject.logger().is_some()) {
            let tail = format!(":{total}:{at_once}");
            let log = Some((10 << 20, 5));
            let work = Work { kind: "write", tail, log, ..Work::silent(1) };
            let Some(mut run) = Run::started(*subject, places, work) else { continue };
            let mut end = None;
            until(PATIENCE, || {
                end = run.notes.all().iter().find(|note| note.kind == "end").map(|note| note.at);
                end.is_some()
            });
            let taken = end.zip(run.notes.start_of("c0000")).map(|(end, (start, _))| end - start);
            figures.add(figure, *subject, taken.map(|taken| total as f64 / 1e6 / taken.as_secs_f64()));
        }
    }
}

/// Returns the pids of the processes that own the children of a run.
pub(crate) fn owners(run: &mut Run<'_>) -> BTreeSet<i32> {
    run.notes.latest().values().filter_map(|note| processes::parent(note.pid)).collect()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
