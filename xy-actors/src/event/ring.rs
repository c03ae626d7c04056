//! The latest events of one tree as they are kept: small, because a restart of a child makes three of them.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use crate::event::ChildReport;
use crate::event::stream::{Event, EventItem, EventKind};
use crate::path::TreePath;
use crate::policy::Incarnation;

/// Whom events are about: a path by its number in the ring, so that no kept event owns a part of a path that nobody has
/// looked at for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(NonZeroU32);

/// A kept event.
#[derive(Debug)]
enum Entry {
    /// About a child, with nothing to add to the name of what happened.
    Plain { report: &'static ChildReport, about: Label, incarnation: Incarnation, at_unix_ms: u64 },
    /// With more to say, which is kept beside the ring under this number.
    Detailed { about: Label, at_unix_ms: u64, detail: u64 },
}

/// The latest events of one tree.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    capacity: usize,
    next_seq: u64,
    /// What the detailed entries say, in their order.
    details: VecDeque<EventKind>,
    /// The number of the first of them.
    first_detail: u64,
    paths: Paths,
}

/// The paths of those that events are about.
#[derive(Debug, Default)]
struct Paths {
    paths: Vec<Option<TreePath>>,
    free: Vec<Label>,
    /// Labels of those that are gone, each with the number of the last event that may bear it.
    parted: VecDeque<(u64, Label)>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            capacity: capacity.max(1),
            next_seq: 1,
            details: VecDeque::new(),
            first_detail: 0,
            paths: Paths::default(),
        }
    }

    /// Appends an event about whoever is at `path`, who gets a label with their first one.
    pub(super) fn push(
        &mut self,
        label: &mut Option<Label>,
        path: &TreePath,
        at_unix_ms: u64,
        kind: EventKind,
    ) {
        if self.entries.len() == self.capacity {
            self.forget_first();
        }
        let about = *label.get_or_insert_with(|| self.paths.insert(path.clone()));
        let plain = match kind {
            EventKind::Child { incarnation, report, exit: None, pid: None } => {
                report.plain().map(|report| (report, incarnation))
            }
            _ => None,
        };
        self.entries.push_back(match plain {
            Some((report, incarnation)) => Entry::Plain { report, about, incarnation, at_unix_ms },
            None => {
                let detail = self.first_detail + self.details.len() as u64;
                self.details.push_back(kind);
                Entry::Detailed { about, at_unix_ms, detail }
            }
        });
        self.next_seq += 1;
    }

    fn forget_first(&mut self) {
        if let Some(Entry::Detailed { .. }) = self.entries.pop_front() {
            self.details.pop_front();
            self.first_detail += 1;
        }
        self.paths.forget_before(self.first());
    }

    /// Takes a label back. Events that bear it keep their path for as long as they are held.
    pub(super) fn part(&mut self, label: Label) {
        self.paths.parted.push_back((self.latest(), label));
    }

    /// Returns the number of the latest event, 0 before the first.
    pub(super) fn latest(&self) -> u64 {
        self.next_seq - 1
    }

    /// Returns the number of the next event.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Gives the next event this number. Nothing was appended yet.
    pub(super) fn begin_at(&mut self, seq: u64) {
        self.next_seq = seq.max(1);
    }

    /// Returns the number of the first event that is held, or of the next one.
    pub(super) fn first(&self) -> u64 {
        self.next_seq - self.entries.len() as u64
    }

    /// Returns the event of this number, or what is missing from there on, and moves the number on.
    pub(super) fn read(&self, next: &mut u64) -> Option<EventItem> {
        let first = self.first();
        if *next < first {
            let gap = EventItem::Gap { first: *next, last: first - 1 };
            *next = first;
            return Some(gap);
        }
        let entry = self.entries.get(usize::try_from(*next - first).ok()?)?;
        let (about, at_unix_ms, kind) = match *entry {
            Entry::Plain { report, about, incarnation, at_unix_ms } => {
                (about, at_unix_ms, EventKind::Child { incarnation, report: *report, exit: None, pid: None })
            }
            Entry::Detailed { about, at_unix_ms, detail } => {
                let kind = self.details.get(usize::try_from(detail - self.first_detail).ok()?)?;
                (about, at_unix_ms, kind.clone())
            }
        };
        let event = Event { seq: *next, at_unix_ms, path: self.paths.get(about)?, kind };
        *next += 1;
        Some(EventItem::Event(event))
    }
}

impl Paths {
    fn insert(&mut self, path: TreePath) -> Label {
        if let Some(label) = self.free.pop() {
            self.paths[index(label)] = Some(path);
            return label;
        }
        self.paths.push(Some(path));
        let count = u32::try_from(self.paths.len()).ok().and_then(NonZeroU32::new);
        // Each label is somebody's who is supervised and takes more than 500 bytes: so many would take 2 TiB.
        Label(count.expect("fewer than 2^32 labels"))
    }

    fn get(&self, label: Label) -> Option<TreePath> {
        self.paths.get(index(label))?.clone()
    }

    /// Frees the labels that only events before this number bore.
    fn forget_before(&mut self, first: u64) {
        while let Some(&(last, label)) = self.parted.front()
            && last < first
        {
            self.parted.pop_front();
            self.paths[index(label)] = None;
            self.free.push(label);
        }
    }
}

fn index(label: Label) -> usize {
    label.0.get() as usize - 1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Next, SupervisorReport};
    use crate::exit::{Cause, Exit, ExitReport};

    fn path(name: &str) -> TreePath {
        TreePath::root().join(&name.into())
    }

    fn plain(incarnation: u64, report: ChildReport) -> EventKind {
        EventKind::Child { incarnation: Incarnation::new(incarnation), report, exit: None, pid: None }
    }

    fn kinds() -> Vec<EventKind> {
        let exit = Arc::new(ExitReport::new(Exit::Abnormal, Cause::Aborted));
        let exited = ChildReport::Exited { exit: Exit::Abnormal, next: Next::Rest };
        vec![
            plain(1, ChildReport::Starting),
            EventKind::Supervisor { report: SupervisorReport::Started },
            EventKind::Child {
                incarnation: Incarnation::new(1),
                report: exited,
                exit: Some(exit),
                pid: Some(7),
            },
            plain(2, ChildReport::Ready),
            EventKind::Child {
                incarnation: Incarnation::new(2),
                report: ChildReport::Ready,
                exit: None,
                pid: Some(8),
            },
        ]
    }

    #[test]
    fn an_event_is_read_as_it_was_written_whatever_was_forgotten_before_it() {
        for capacity in 1..8 {
            let mut ring = Ring::new(capacity);
            let (mut label, whose) = (None, path("a"));
            for (number, kind) in (1..).zip(kinds().into_iter().cycle().take(23)) {
                ring.push(&mut label, &whose, number, kind.clone());
                let mut next = number;
                let event = Event { seq: number, at_unix_ms: number, path: whose.clone(), kind };
                assert_eq!(ring.read(&mut next), Some(EventItem::Event(event)));
                assert_eq!((next, ring.read(&mut next)), (number + 1, None));
            }
            let mut next = 1;
            let mut read = Vec::new();
            while let Some(item) = ring.read(&mut next) {
                read.push(item);
            }
            let last = 23 - capacity as u64;
            assert_eq!(read[0], EventItem::Gap { first: 1, last });
            let held: Vec<EventKind> = kinds().into_iter().cycle().take(23).skip(23 - capacity).collect();
            let kinds = read[1..].iter().map(|item| match item {
                EventItem::Event(event) => event.kind.clone(),
                EventItem::Gap { .. } => panic!("a second gap"),
            });
            assert_eq!(kinds.collect::<Vec<_>>(), held);
        }
    }

    #[test]
    fn an_event_keeps_its_path_after_whom_it_is_about_and_the_path_goes_with_the_last_event() {
        let mut ring = Ring::new(2);
        let (mut first, mut second) = (None, None);
        ring.push(&mut first, &path("first"), 0, plain(1, ChildReport::Removed));
        let gone = first.expect("has one since its first event");
        ring.part(gone);
        ring.push(&mut second, &path("second"), 0, plain(1, ChildReport::Starting));
        let Some(EventItem::Event(event)) = ring.read(&mut 1) else { panic!("is held") };
        assert_eq!(event.path, path("first"));
        assert_ne!(second, Some(gone), "an event still bears it");
        ring.push(&mut second, &path("second"), 0, plain(1, ChildReport::Ready));
        assert_eq!(ring.paths.get(gone), None);
        let mut third = None;
        ring.push(&mut third, &path("third"), 0, plain(1, ChildReport::Starting));
        assert_eq!(third, Some(gone), "a label that nobody bears is given again");
    }

    #[test]
    fn labels_take_no_more_than_the_living_and_the_held_events() {
        let mut ring = Ring::new(10);
        for child in 0..1000 {
            let mut label = None;
            let whose = path(&child.to_string());
            ring.push(&mut label, &whose, 0, plain(1, ChildReport::Starting));
            ring.push(&mut label, &whose, 0, plain(1, ChildReport::Removed));
            label.into_iter().for_each(|label| ring.part(label));
        }
        assert!(ring.paths.paths.len() <= 11, "{}", ring.paths.paths.len());
        assert!(ring.paths.parted.len() <= 11);
    }
}
