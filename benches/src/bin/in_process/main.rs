//! In-process supervision beside its floors: hand-written raw ractor, and plain tokio tasks.
//!
//! `cargo run --release -p benches --bin in_process` runs every figure for every subject in a process of its own, the
//! subjects alternating, and prints medians, spread and the ratio to the floor. `in_process FIGURE SUBJECT` runs one.

mod drive;
mod floor;
mod xy;

use std::process::Command;
use std::time::Duration;

/// How often each figure is measured per subject.
const ROUNDS: usize = 5;

/// Crashes measured one by one.
pub(crate) const CRASHES: usize = 20_000;
/// Children that crash together, and how many times.
pub(crate) const STORM: usize = 1_000;
pub(crate) const STORMS: usize = 20;
/// Children of a large supervisor.
pub(crate) const MANY: usize = 100_000;
/// Children of a group restart, and how many are measured.
pub(crate) const GROUP: usize = 1_000;
pub(crate) const GROUPS: usize = 20;

/// What is measured; smaller is better, except for [`Figure::Storm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Crash to start hook, median, in microseconds.
    Crash,
    /// Restarts per second when many crash together.
    Storm,
    /// Time to start many children, in milliseconds.
    Start,
    /// Memory per child, in bytes of RSS.
    Memory,
    /// Time of a group restart, in milliseconds.
    Group,
    /// Crash to start hook of one of many, median, in microseconds.
    Among,
    /// The same with as many restarts within the period of the restart limit as there are children.
    Window,
}

impl Figure {
    const ALL: [Self; 7] =
        [Self::Crash, Self::Storm, Self::Start, Self::Memory, Self::Group, Self::Among, Self::Window];

    fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Storm => "storm",
            Self::Start => "start",
            Self::Memory => "memory",
            Self::Group => "group",
            Self::Among => "among",
            Self::Window => "window",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Crash => "crash -> start hook, p50 (us)",
            Self::Storm => "restarts/s, 1000 crash together",
            Self::Start => "start 100,000 children (ms)",
            Self::Memory => "memory per child at 100,000 (bytes)",
            Self::Group => "one_for_all, 1000 children (ms)",
            Self::Among => "crash -> start hook among 100,000, p50 (us)",
            Self::Window => "same, 100,000 restarts in the window (us)",
        }
    }
}

/// A subject and the floor it is compared with.
const SUBJECTS: [(&str, &str); 4] =
    [("ractor", "ractor"), ("xy-actor", "ractor"), ("tokio", "tokio"), ("xy-task", "tokio")];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [figure, subject] => {
            let figure = Figure::ALL.into_iter().find(|known| known.name() == figure);
            println!("{}", measure(figure.expect("a known figure"), subject));
        }
        _ => compare(),
    }
}

fn measure(figure: Figure, subject: &str) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match subject {
            "xy-actor" => xy::actors(figure).await,
            "xy-task" => xy::tasks(figure).await,
            "ractor" => floor::ractor(figure).await,
            "tokio" => floor::tokio(figure).await,
            other => panic!("unknown subject `{other}`"),
        }
    })
}

fn compare() {
    let program = std::env::current_exe().expect("this program");
    println!("| figure | {} |", SUBJECTS.map(|(subject, _)| subject).join(" | "));
    println!("|---|---|---|---|---|");
    for figure in Figure::ALL {
        let mut results = [const { Vec::new() }; SUBJECTS.len()];
        for _ in 0..ROUNDS {
            for (index, (subject, _)) in SUBJECTS.iter().enumerate() {
                let output = Command::new(&program).args([figure.name(), subject]).output().expect("runs");
                let text = String::from_utf8_lossy(&output.stdout);
                results[index].push(text.trim().parse::<f64>().expect("a number"));
            }
        }
        for values in &mut results {
            values.sort_by(f64::total_cmp);
        }
        let median = |values: &Vec<f64>| values[values.len() / 2];
        let cells: Vec<String> = SUBJECTS
            .iter()
            .enumerate()
            .map(|(index, (subject, floor))| {
                let values = &results[index];
                let floor_index = SUBJECTS.iter().position(|(name, _)| name == floor).expect("a subject");
                let ratio = median(values) / median(&results[floor_index]);
                let spread = format!("{:.1}..{:.1}", values[0], values[values.len() - 1]);
                if subject == floor {
                    format!("{:.1} ({spread})", median(values))
                } else {
                    format!("{:.1} ({spread}), x{ratio:.2}", median(values))
                }
            })
            .collect();
        println!("| {} | {} |", figure.title(), cells.join(" | "));
    }
}

/// Returns this process's resident memory in bytes.
pub(crate) fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("readable");
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096.0
}

/// Returns the median in microseconds.
pub(crate) fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}
