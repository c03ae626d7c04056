//! What was measured, and the tables it is printed as.

use std::collections::BTreeMap;

use crate::subject::Subject;

/// One row of the table of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    KillAlone,
    KillAmongMany,
    Storm,
    StartMany,
    StopMany,
    MemoryEmpty,
    MemoryEmptyAlone,
    MemoryOfOne,
    MemoryOfMany,
    MemoryOfEach,
    IdleSleeps,
    IdleCpu,
    LoopFirst,
    LoopStarts,
    LoopCpu,
    Capture64K,
    Capture100,
    List,
    FirstList,
    Status,
    Help,
}

/// What a figure of `xyd` is held against.
#[derive(Debug, Clone, Copy)]
enum Target {
    None,
    /// At most this.
    Most(f64),
    /// At most this many times the limit.
    Times(f64),
    /// Less than each peer.
    Under,
    /// At most this many times the limit, and less than each peer.
    TimesAndUnder(f64),
    /// More than each peer.
    Over,
    /// At least this: whoever cuts lines may be faster.
    Least(f64),
    /// Less than this, and less than each peer.
    MostAndUnder(f64),
}

impl Figure {
    const ALL: [Self; 21] = [
        Self::KillAlone,
        Self::KillAmongMany,
        Self::Storm,
        Self::StartMany,
        Self::StopMany,
        Self::MemoryEmpty,
        Self::MemoryEmptyAlone,
        Self::MemoryOfOne,
        Self::MemoryOfMany,
        Self::MemoryOfEach,
        Self::IdleSleeps,
        Self::IdleCpu,
        Self::LoopFirst,
        Self::LoopStarts,
        Self::LoopCpu,
        Self::Capture64K,
        Self::Capture100,
        Self::List,
        Self::FirstList,
        Self::Status,
        Self::Help,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::KillAlone => "kill -> next main, alone (ms)",
            Self::KillAmongMany => "kill -> next main, among 1000 (ms)",
            Self::Storm => "100 killed at once, all back (ms)",
            Self::StartMany => "start of 1000 (ms)",
            Self::StopMany => "stop of 1000 (ms)",
            Self::MemoryEmpty => "memory, no child (MiB)",
            Self::MemoryEmptyAlone => "the same without its guard (MiB)",
            Self::MemoryOfOne => "memory, 1 child (MiB)",
            Self::MemoryOfMany => "memory, 1000 children (MiB)",
            Self::MemoryOfEach => "memory, each further child (KiB)",
            Self::IdleSleeps => "idle, 100 children, 10 s: wakeups",
            Self::IdleCpu => "the same: CPU (ms)",
            Self::LoopFirst => "crash loop: first restart after (ms)",
            Self::LoopStarts => "crash loop: starts in 10 s",
            Self::LoopCpu => "crash loop: CPU (%)",
            Self::Capture64K => "log capture, writes of 64 KiB (MB/s)",
            Self::Capture100 => "log capture, writes of 100 bytes (MB/s)",
            Self::List => "list of 1000, the whole command (ms)",
            Self::FirstList => "the first of them (ms)",
            Self::Status => "`xyctl status NAME` of 1000 (ms)",
            Self::Help => "`xyctl --help` (ms)",
        }
    }

    fn target(self) -> Target {
        match self {
            Self::KillAlone | Self::KillAmongMany => Target::TimesAndUnder(1.5),
            Self::Storm | Self::StartMany => Target::Times(2.0),
            Self::StopMany | Self::MemoryOfMany => Target::Under,
            Self::MemoryEmpty => Target::Most(5.0),
            Self::MemoryOfEach => Target::Most(12.0),
            Self::IdleSleeps => Target::Most(0.0),
            Self::LoopCpu => Target::Most(0.1),
            Self::Capture64K => Target::Least(500.0),
            Self::Capture100 => Target::Over,
            Self::List => Target::MostAndUnder(10.0),
            Self::Help => Target::Most(5.0),
            Self::MemoryEmptyAlone
            | Self::MemoryOfOne
            | Self::IdleCpu
            | Self::LoopFirst
            | Self::LoopStarts
            | Self::FirstList
            | Self::Status => Target::None,
        }
    }
}

/// What was measured, all rounds of it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    values: BTreeMap<(Figure, Subject), Vec<f64>>,
}

impl Figures {
    /// Adds a value, if there is one.
    pub(crate) fn add(&mut self, figure: Figure, subject: Subject, value: Option<f64>) {
        match value {
            Some(value) => self.values.entry((figure, subject)).or_default().push(value),
            None => eprintln!("{}: no figure for: {}", subject.name(), figure.title()),
        }
    }

    /// Returns whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the median of a figure.
    pub(crate) fn median(&self, figure: Figure, subject: Subject) -> Option<f64> {
        let mut values = self.values.get(&(figure, subject))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Prints the table: medians, the spread in parentheses, and for `xyd` its ratio to the limit and how it stands.
    pub(crate) fn print(&self, subjects: &[Subject], header: &str) {
        println!("| figure |{header} xyd / limit | target |");
        println!("|---|{}---|---|", "---|".repeat(subjects.len()));
        let is_measured = |figure: &Figure| self.values.keys().any(|(measured, _)| measured == figure);
        for figure in Figure::ALL.into_iter().filter(is_measured) {
            let cells: Vec<String> = subjects.iter().map(|subject| self.cell(figure, *subject)).collect();
            let ratio = self.ratio(figure).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            println!(
                "| {} | {} | {ratio} | {} |",
                figure.title(),
                cells.join(" | "),
                self.verdict(figure, subjects)
            );
        }
    }

    fn cell(&self, figure: Figure, subject: Subject) -> String {
        let Some(median) = self.median(figure, subject) else { return String::new() };
        let values = &self.values[&(figure, subject)];
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        match values.len() {
            1 => short(median),
            _ => format!("{} ({}..{})", short(median), short(low), short(high)),
        }
    }

    fn ratio(&self, figure: Figure) -> Option<f64> {
        let limit = self.median(figure, Subject::Limit).filter(|limit| *limit > 0.0)?;
        Some(self.median(figure, Subject::Xyd)? / limit)
    }

    fn verdict(&self, figure: Figure, subjects: &[Subject]) -> String {
        let Some(own) = self.median(figure, Subject::Xyd) else { return String::new() };
        let peers = subjects.iter().filter(|subject| !matches!(subject, Subject::Limit | Subject::Xyd));
        let peers: Vec<f64> = peers.filter_map(|peer| self.median(figure, *peer)).collect();
        let ratio = self.ratio(figure).unwrap_or(f64::INFINITY);
        let is_under = peers.iter().all(|peer| own < *peer);
        let is_over = peers.iter().all(|peer| own > *peer);
        let (text, is_met) = match figure.target() {
            Target::None => return String::new(),
            Target::Most(most) => (format!("at most {most}"), own <= most),
            Target::Times(times) => (format!("{times} x limit"), ratio <= times),
            Target::Under => ("under every peer".to_owned(), is_under),
            Target::TimesAndUnder(times) => {
                (format!("{times} x limit, under every peer"), ratio <= times && is_under)
            }
            Target::Over => ("over every peer".to_owned(), is_over),
            Target::Least(least) => (format!("at least {least}"), own >= least),
            Target::MostAndUnder(most) => (format!("under {most}, under every peer"), own < most && is_under),
        };
        format!("{text}: {}", if is_met { "met" } else { "**missed**" })
    }
}

/// Prints three digits of a number, or all of a whole one.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
