//! What an operator's command takes as a whole process, from its start to its end, with a thousand children that run.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::processes::{now, pass, until};
use crate::run::Run;
use crate::subject::{Places, Subject, Work};
use crate::table::{Figure, Figures};

/// How many children there are.
const MANY: usize = 1000;

/// How many there are where a thousand are not started in time.
const FEWER: usize = 100;

/// How long a supervisor may take until all run.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a command is run within each run, beside the first time.
const TIMES: usize = 11;

/// Measures each subject once; those that take seconds in the first round only.
pub(crate) fn round(subjects: &[Subject], places: &Places, is_first: bool, figures: &mut Figures) {
    for subject in subjects.iter().filter(|subject| is_first || !subject.is_slow()) {
        let Some(run) = [MANY, FEWER].into_iter().find_map(|count| started(*subject, places, count)) else {
            continue;
        };
        // Whatever is done once all have started is no part of the command.
        pass(Duration::from_secs(1));
        let listed = || subject.list(places, run.directory(), &run.work);
        let last = run.work.names().last();
        let times = if subject.is_slow() { 3 } else { TIMES };
        for time in 0..=times {
            let (taken, text) = timed(listed());
            let is_whole = last.as_ref().is_some_and(|last| text.contains(last));
            if !is_whole {
                eprintln!("{}: its list is not whole: {text:.200}", subject.name());
            }
            // The first one finds nothing that an earlier one has read.
            let figure = if time == 0 { Figure::FirstList } else { Figure::List };
            if is_whole {
                figures.add(figure, *subject, Some(taken));
            }
        }
        if *subject == Subject::Xyd {
            for (figure, arguments) in
                [(Figure::Status, &["status", "c0500"][..]), (Figure::Help, &["--help"])]
            {
                for _ in 0..TIMES {
                    let (taken, _) = timed(Subject::xyctl(places, run.directory(), arguments));
                    figures.add(figure, *subject, Some(taken));
                }
            }
        }
    }
}

/// Says how large the programs of this project are.
pub(crate) fn sizes(places: &Places) -> String {
    let size = |name: &str| {
        let bytes = fs::metadata(places.own.join(name)).map_or(0, |file| file.len());
        format!("{name} {:.1} MiB", bytes as f64 / f64::from(1 << 20))
    };
    format!("Programs, stripped: {}, {}.", size("xyd"), size("xyctl"))
}

/// Starts a subject with as many children; nothing if they do not all run in time.
fn started(subject: Subject, places: &Places, count: usize) -> Option<Run<'_>> {
    let work = Work { is_asked: true, ..Work::silent(count) };
    let mut run = Run::start(subject, places, work);
    if until(PATIENCE, || run.notes.started() == count) {
        return Some(run);
    }
    eprintln!("{}: {} of {count} run after {PATIENCE:?}", subject.name(), run.notes.started());
    None
}

/// Runs a command to its end and returns how long that took in milliseconds, and what it printed.
fn timed(mut command: Command) -> (f64, String) {
    command.stdout(Stdio::piped());
    let start = now();
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let taken = (now() - start).as_secs_f64() * 1e3;
    (taken, String::from_utf8_lossy(&output.stdout).into_owned())
}
