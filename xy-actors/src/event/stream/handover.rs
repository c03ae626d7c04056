//! The events of a tree as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{EventItem, EventKind, EventLog};
use crate::event::ring::Label;
use crate::event::{ChildReport, SupervisorReport};
use crate::exit::ExitReport;
use crate::path::TreePath;
use crate::policy::Incarnation;

/// The events that a tree holds, and the number of the next one.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct EventLogState {
    next_seq: u64,
    /// Those before the next one, without a gap.
    events: Vec<EventState>,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct EventState {
    at_unix_ms: u64,
    path: String,
    kind: KindState,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum KindState {
    Child { incarnation: u64, report: ChildReport, exit: Option<ExitReport>, pid: Option<u32> },
    Supervisor { report: SupervisorReport },
    Host { name: String, facts: BTreeMap<String, String> },
}

impl EventLog {
    pub(crate) fn state(&self) -> EventLogState {
        let published = self.published();
        let mut next = published.ring.first();
        let mut events = Vec::new();
        while let Some(EventItem::Event(event)) = published.ring.read(&mut next) {
            events.push(EventState {
                at_unix_ms: event.at_unix_ms,
                path: event.path.to_string(),
                kind: match &event.kind {
                    EventKind::Child { incarnation, report, exit, pid } => KindState::Child {
                        incarnation: incarnation.get(),
                        report: *report,
                        exit: exit.as_deref().cloned(),
                        pid: *pid,
                    },
                    EventKind::Supervisor { report } => KindState::Supervisor { report: *report },
                    EventKind::Host { name, facts } => {
                        KindState::Host { name: name.to_string(), facts: BTreeMap::clone(facts) }
                    }
                },
            });
        }
        EventLogState { next_seq: published.ring.next_seq(), events }
    }

    /// Goes on with the events and the numbers of another log, before anything was published here; as many are kept as there
    /// is room for.
    pub(crate) fn restore(&self, state: EventLogState) {
        let ring = &mut self.published().ring;
        ring.begin_at(state.next_seq.saturating_sub(state.events.len() as u64));
        let mut labels: BTreeMap<String, Option<Label>> = BTreeMap::new();
        for event in state.events {
            let path = TreePath::of(&event.path);
            let kind = match event.kind {
                KindState::Child { incarnation, report, exit, pid } => EventKind::Child {
                    incarnation: Incarnation::new(incarnation),
                    report,
                    exit: exit.map(Arc::new),
                    pid,
                },
                KindState::Supervisor { report } => EventKind::Supervisor { report },
                KindState::Host { name, facts } => {
                    EventKind::Host { name: name.into(), facts: Arc::new(facts) }
                }
            };
            ring.push(labels.entry(event.path).or_default(), &path, event.at_unix_ms, kind);
        }
        // Whoever publishes from now on has labels of their own.
        labels.into_values().flatten().for_each(|label| ring.part(label));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::stream::EventCursor;

    fn publish(log: &EventLog, path: &str, count: u64) {
        let (mut label, path) = (None, TreePath::of(path));
        for incarnation in 0..count {
            let incarnation = Incarnation::new(incarnation);
            let kind = EventKind::Child { incarnation, report: ChildReport::Ready, exit: None, pid: Some(7) };
            log.publish(&mut label, &path, 5, kind);
        }
        log.part(label);
    }

    fn read(log: &EventLog) -> Vec<EventItem> {
        let mut stream = log.subscribe(EventCursor::Seq(1));
        std::iter::from_fn(|| stream.try_next().ok()).collect()
    }

    #[test]
    fn numbers_and_events_go_on_where_the_other_log_stopped() {
        let log = EventLog::new(5);
        publish(&log, "a", 4);
        publish(&log, "group/b", 2);
        log.tell("group", "asked", BTreeMap::from([("by".to_owned(), "me".to_owned())]));
        let other = EventLog::new(5);
        other.restore(log.state());
        assert_eq!(read(&other), read(&log));
        publish(&log, "c", 2);
        publish(&other, "c", 2);
        assert_eq!(read(&other), read(&log));
        let smaller = EventLog::new(2);
        smaller.restore(log.state());
        assert_eq!(smaller.latest(), 9);
        assert_eq!(read(&smaller)[1..], read(&log)[4..]);
        let fresh = EventLog::new(2);
        fresh.restore(EventLog::new(2).state());
        publish(&fresh, "a", 1);
        assert_eq!(fresh.latest(), 1);
    }
}
