//! Which starts of children the journal tells the beginning of and no end, and which ends are told already.
//!
//! A daemon that is killed takes with it what it had not written down: an end that it saw a moment before, or a start that
//! had not come to create a process. The next daemon tells those ends too, so that of each start there is exactly one end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use xy_actors::exit::{Cause, Exit, ExitReport};
use xy_actors::process::{EndedIncarnation, LostIncarnation};

use super::{next_line, open, parse_line, previous};

/// The events with which a start begins.
const BEGINNING: &str = "child_starting";

/// The events with which one ends.
const ENDS: [&str; 5] =
    ["child_exited", "child_stopped", "child_start_failed", "child_ignored", "child_leaked"];

/// What every line about a child has in it.
const MARK: &[u8] = br#""type":"child_"#;

/// The starts that the journal tells of.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    /// The names of the lives of the daemon, in order.
    eras: Vec<Vec<u8>>,
    /// By the child's path and the number of the start, which each life counts anew.
    starts: BTreeMap<(String, u64), Start>,
}

#[derive(Debug, Clone, Copy)]
struct Start {
    /// In which life it began, as an index.
    era: usize,
    has_ended: bool,
}

/// A start that has ended without anybody having been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Untold {
    /// The child's path.
    pub(crate) path: String,
    /// Which start of it.
    pub(crate) incarnation: u64,
    /// Its main process, if that is known.
    pub(crate) pid: Option<u32>,
    /// How it ended, as far as that is known.
    pub(crate) report: ExitReport,
}

impl Untold {
    fn of_lost(lost: &LostIncarnation) -> Self {
        Self { pid: lost.pid, ..Self::unknown((lost.label.clone(), lost.incarnation)) }
    }

    fn unknown((path, incarnation): (String, u64)) -> Self {
        Self { path, incarnation, pid: None, report: ExitReport::new(Exit::Killed, Cause::HostDied) }
    }

    fn of_ended(ended: &EndedIncarnation) -> Self {
        let EndedIncarnation { label, incarnation, pid, report, .. } = ended.clone();
        Self { path: label, incarnation, pid, report }
    }
}

/// What counts of an event.
#[derive(Debug, Deserialize)]
struct About<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    incarnation: Option<u64>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
}

impl Starts {
    /// Reads the journal at a path; what cannot be read is as if it had never been told.
    ///
    /// Blocking.
    pub(crate) fn read(path: &Path) -> Self {
        let mut starts = Self::default();
        let mut last = 0;
        for file in [previous(path), path.to_owned()].iter().filter_map(|path| open(path).ok()) {
            starts.note_all(BufReader::new(file), &mut last);
        }
        starts
    }

    fn note_all(&mut self, mut reader: impl BufRead, last: &mut u64) {
        let mut line = Vec::new();
        while let Some(line) = next_line(&mut reader, &mut line) {
            let Some((era, seq)) = parse_line(line).filter(|(_, seq)| *seq > *last) else { continue };
            *last = seq;
            if self.eras.last().is_none_or(|last| last != era) {
                self.eras.push(era.to_owned());
            }
            if memchr::memmem::find(line, MARK).is_some()
                && let Ok(about) = serde_json::from_slice(line)
            {
                self.note(about);
            }
        }
    }

    fn note(&mut self, about: About<'_>) {
        let Some(incarnation) = about.incarnation else { return };
        let begins = about.event_type == BEGINNING;
        if !begins && !ENDS.contains(&&*about.event_type) {
            return;
        }
        let era = self.eras.len().saturating_sub(1);
        let key = (about.path.into_owned(), incarnation);
        let start = Start { era, has_ended: !begins };
        match self.starts.get_mut(&key) {
            // The end of one of an earlier life does not make it one of this life.
            Some(known) if !begins => known.has_ended = true,
            Some(known) => *known = start,
            None => _ = self.starts.insert(key, start),
        }
    }

    /// Returns whose ends are to be told now: of those that the process host has lost, and of those that the journal knows no
    /// end of, which it has in `ended` if it wrote down how; in the order in which they began, as far as that is known.
    pub(crate) fn untold(self, lost: &[LostIncarnation], ended: &[EndedIncarnation]) -> Vec<Untold> {
        self.untold_of(
            lost.iter().map(Untold::of_lost).collect(),
            ended.iter().map(Untold::of_ended).collect(),
        )
    }

    fn untold_of(self, lost: Vec<Untold>, ended: Vec<Untold>) -> Vec<Untold> {
        let Self { eras, mut starts } = self;
        let latest = eras.len().saturating_sub(1);
        let mut untold = Vec::new();
        for lost in lost {
            match starts.remove(&(lost.path.clone(), lost.incarnation)) {
                // It was told before the process was gone for good, by whoever gave it up.
                Some(Start { era, has_ended: true }) if era == latest => {}
                _ => untold.push((latest, lost)),
            }
        }
        // The later of two is of the later life.
        let mut ended: BTreeMap<_, _> =
            ended.into_iter().map(|ended| ((ended.path.clone(), ended.incarnation), ended)).collect();
        for (key, Start { era, .. }) in starts.into_iter().filter(|(_, start)| !start.has_ended) {
            let known = if era == latest { ended.remove(&key) } else { None };
            untold.push((era, known.unwrap_or_else(|| Untold::unknown(key))));
        }
        untold.sort_by(|(era, one), (other_era, other)| {
            (era, &one.path, one.incarnation).cmp(&(other_era, &other.path, other.incarnation))
        });
        untold.into_iter().map(|(_, untold)| untold).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a journal of lines such as `a 1 web 3 child_starting`: life, number, path, start, event.
    fn starts(lines: &[&str]) -> Starts {
        let mut text = String::new();
        for line in lines {
            let [era, seq, path, incarnation, event] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            text.push_str(&format!(
                "{{\"version\":1,\"id\":\"{era}-{seq}\",\"seq\":{seq},\"at_unix_ms\":1,\"path\":\"{path}\",\
                 \"incarnation\":{incarnation},\"type\":\"{event}\",\"payload\":{{\"note\":\"child_exited\"}}}}\n"
            ));
        }
        let mut starts = Starts::default();
        starts.note_all(text.as_bytes(), &mut 0);
        starts
    }

    fn untold(starts: Starts, lost: &[(&str, u64)]) -> Vec<(String, u64)> {
        let lost = lost.iter().map(|(path, incarnation)| Untold::unknown(pair(path, *incarnation)));
        let untold = starts.untold_of(lost.collect(), Vec::new());
        untold.into_iter().map(|untold| (untold.path, untold.incarnation)).collect()
    }

    fn pair(path: &str, incarnation: u64) -> (String, u64) {
        (path.to_owned(), incarnation)
    }

    #[test]
    fn a_start_without_an_end_is_untold_whether_the_host_has_lost_it_or_seen_it_end() {
        let lines = [
            "a 1 web 1 child_starting",
            "a 2 db 1 child_starting",
            "a 3 web 1 child_exited",
            "a 4 web 2 child_starting",
            "a 5 job 1 child_starting",
            "a 6 job 1 child_stopped",
            "a 7 web 2 child_ready",
        ];
        // The host knows that `db` ran; `web` had ended, and the daemon died before it could write that.
        assert_eq!(untold(starts(&lines), &[("db", 1)]), [pair("db", 1), pair("web", 2)]);
    }

    #[test]
    fn an_end_that_the_dead_daemon_saw_is_told_as_it_was() {
        let lines = [
            "a 1 web 1 child_starting",
            "a 2 web 1 child_exited",
            "a 3 web 2 child_starting",
            "a 4 db 2 child_starting",
        ];
        let end = |path, incarnation, code| Untold {
            pid: Some(7),
            report: ExitReport::new(Exit::Abnormal, Cause::ExitCode { code }),
            ..Untold::unknown(pair(path, incarnation))
        };
        let ended = vec![end("web", 1, 1), end("web", 2, 2), end("gone", 1, 3)];
        let untold = starts(&lines).untold_of(Vec::new(), ended);
        assert_eq!(untold, [Untold::unknown(pair("db", 2)), end("web", 2, 2)]);
    }

    #[test]
    fn an_end_that_was_written_is_not_told_again_although_the_host_had_not_struck_it() {
        let lines = ["a 1 web 1 child_starting", "a 2 web 1 child_start_failed"];
        assert_eq!(untold(starts(&lines), &[("web", 1)]), []);
        // One that the journal has not heard of yet.
        assert_eq!(untold(starts(&lines), &[("web", 2)]), [pair("web", 2)]);
    }

    #[test]
    fn numbers_that_begin_anew_with_each_life_are_told_apart() {
        let lines = [
            "a 1 web 1 child_starting",
            // The second life tells of the first one's, and dies before it has written that its own has begun.
            "b 2 web 1 child_exited",
        ];
        assert_eq!(untold(starts(&lines), &[("web", 1)]), [pair("web", 1)]);
        assert_eq!(untold(starts(&lines), &[]), []);
        let more = [lines[0], lines[1], "b 3 web 1 child_starting", "b 4 web 1 child_exited"];
        assert_eq!(untold(starts(&more), &[("web", 1)]), []);
    }

    #[test]
    fn what_a_daemon_could_not_write_at_all_is_told_by_the_one_after_it_in_the_order_of_lives() {
        let lines = ["a 1 web 7 child_starting", "b 2 db 1 child_starting", "b 3 web 1 child_starting"];
        assert_eq!(untold(starts(&lines), &[("web", 1)]), [pair("web", 7), pair("db", 1), pair("web", 1)]);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let mut starts = starts(&["a 1 web 1 child_starting"]);
        let torn =
            b"{\"version\":1,\"id\":\"a-2\",\"seq\":2,\"type\":\"child_\n{\"version\":1,\"id\":\"a-3\"";
        starts.note_all(&torn[..], &mut 1);
        assert_eq!(untold(starts, &[]), [pair("web", 1)]);
    }
}
