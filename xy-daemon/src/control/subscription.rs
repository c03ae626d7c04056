//! Output and events as notifications: cursors, so that a slow subscriber costs nobody anything.

use std::future::Future;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use xy_actors::event::ChildReport;
use xy_actors::event::Next;
use xy_actors::event::stream::{Event, EventCursor, EventItem, EventKind, EventLog, EventStream};
use xy_actors::exit::{Cause, ExitReport};
use xy_actors::log::{LogItem, LogLine, LogReader, Stream};

use crate::journal::{Journal, Past, gap};
use crate::protocol::method::{self, Gap, LogStream, Notification};
use crate::rpc::Subscription;

/// How many events are handed over at once.
const BATCH: usize = 256;

type Next_<'a> = Pin<Box<dyn Future<Output = Option<Vec<Notification>>> + Send + 'a>>;

/// The output of one server: what was asked for from the past, then what follows.
pub(super) struct LogSubscription {
    name: String,
    reader: LogReader,
}

impl LogSubscription {
    pub(super) fn new(name: String, reader: LogReader) -> Self {
        Self { name, reader }
    }

    fn line(&self, line: LogLine) -> Notification {
        let (text, base64) = match String::from_utf8(line.bytes.into_vec()) {
            Ok(text) => (text, None),
            Err(error) => {
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                (text, Some(STANDARD.encode(error.as_bytes())))
            }
        };
        Notification::Log(method::LogLine {
            name: self.name.clone(),
            stream: match line.stream {
                Stream::Out => LogStream::Out,
                Stream::Err => LogStream::Err,
                Stream::Xy => LogStream::Xy,
            },
            line: text,
            line_base64: base64,
            ts_unix_ms: u64::try_from(line.unix_ms).unwrap_or(0),
            number: line.number,
            partial: line.partial,
        })
    }
}

impl Subscription for LogSubscription {
    fn next(&mut self) -> Next_<'_> {
        Box::pin(async move {
            let items = self.reader.next().await?;
            Some(
                items
                    .into_iter()
                    .map(|item| match item {
                        LogItem::Line(line) => self.line(line),
                        LogItem::Gap { first, last } => Notification::LogGap(Gap { first, last }),
                    })
                    .collect(),
            )
        })
    }
}

/// The events of the tree: those that only the journal holds any more, then those in memory.
pub(super) struct EventSubscription {
    log: EventLog,
    journal: Journal,
    follow: bool,
    reading: Reading,
}

/// Where a subscription reads.
enum Reading {
    /// In the journal, from this number on; it is not opened yet.
    Before(u64),
    /// In the journal.
    Past {
        past: Past,
        next: u64,
    },
    Memory(EventStream),
}

impl EventSubscription {
    pub(super) fn new(log: EventLog, journal: Journal, from: EventCursor, follow: bool) -> Self {
        let reading = match from {
            EventCursor::Seq(seq) if seq < log.first() => Reading::Before(seq),
            from => Reading::Memory(log.subscribe(from)),
        };
        Self { log, journal, follow, reading }
    }

    /// Returns the next events of the journal; `None` once those in memory are next.
    async fn read_past(&mut self) -> Option<Vec<Notification>> {
        loop {
            let (opened, from) = match std::mem::replace(&mut self.reading, Reading::Before(1)) {
                Reading::Before(from) => (None, from),
                Reading::Past { past, next } => (Some(past), next),
                memory @ Reading::Memory(_) => {
                    self.reading = memory;
                    return None;
                }
            };
            self.reading = Reading::Before(from);
            if from >= self.log.first() {
                self.reading = Reading::Memory(self.log.subscribe(EventCursor::Seq(from)));
                return None;
            }
            let is_new = opened.is_none();
            let (journal, latest) = (self.journal.clone(), self.log.latest());
            let read = tokio::task::spawn_blocking(move || {
                let mut past = match opened {
                    Some(past) => past,
                    None => journal.past(from, latest)?,
                };
                let events = past.read();
                Some((past, events))
            });
            // Without the journal, memory tells what is missing. A panic in it has been reported by the runtime.
            match read.await.ok().flatten() {
                Some((past, events)) if !events.is_empty() => {
                    let mut next = from;
                    let mut batch = Vec::with_capacity(events.len());
                    for event in events {
                        batch.extend(gap(next, event.seq).map(Notification::EventGap));
                        next = event.seq + 1;
                        batch.push(Notification::Event(event));
                    }
                    self.reading = Reading::Past { past, next };
                    return Some(batch);
                }
                // Its end when it was opened; there may be more by now.
                Some(_) if !is_new => self.reading = Reading::Before(from),
                _ => {
                    self.reading = Reading::Memory(self.log.subscribe(EventCursor::Seq(from)));
                    return None;
                }
            }
        }
    }
}

impl Subscription for EventSubscription {
    fn next(&mut self) -> Next_<'_> {
        Box::pin(async move {
            if let Some(batch) = self.read_past().await {
                return Some(batch);
            }
            let Reading::Memory(stream) = &mut self.reading else { return None };
            let first = if self.follow { stream.next().await? } else { stream.try_next().ok()? };
            let mut batch = vec![notification(first, &self.journal)];
            while batch.len() < BATCH
                && let Ok(item) = stream.try_next()
            {
                batch.push(notification(item, &self.journal));
            }
            Some(batch)
        })
    }
}

fn notification(item: EventItem, journal: &Journal) -> Notification {
    match item {
        EventItem::Event(event) => Notification::Event(wire_event(&event, journal.id_of(event.seq))),
        EventItem::Gap { first, last } => Notification::EventGap(Gap { first, last }),
    }
}

/// Returns an event as clients and the journal get it.
pub(crate) fn wire_event(event: &Event, id: String) -> method::Event {
    let (incarnation, payload) = match &event.kind {
        EventKind::Child { incarnation, report, exit, pid } => {
            (Some(incarnation.get()), child_payload(report, exit.as_deref(), *pid))
        }
        EventKind::Supervisor { report } => {
            let mut payload = Map::new();
            if let xy_actors::event::SupervisorReport::Ended { exit } = report {
                payload.insert("exit".to_owned(), json!(exit));
            }
            (None, payload)
        }
        EventKind::Host { facts, .. } => {
            (None, facts.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
        }
        _ => (None, Map::new()),
    };
    method::Event {
        version: method::Event::VERSION,
        id,
        seq: event.seq,
        at_unix_ms: event.at_unix_ms,
        path: event.path.to_string(),
        incarnation,
        event_type: event.kind.name().to_owned(),
        payload,
    }
}

fn child_payload(report: &ChildReport, exit: Option<&ExitReport>, pid: Option<u32>) -> Map<String, Value> {
    let mut payload = Map::new();
    let mut put = |key: &str, value: Value| payload.insert(key.to_owned(), value);
    if let Some(pid) = pid {
        put("pid", json!(pid));
    }
    if let Some(report) = exit.filter(|_| *report != ChildReport::Unhealthy) {
        put("exit", json!(report.exit));
    }
    if let Some(report) = exit {
        put("cause", json!(report.to_string()));
        match &report.cause {
            Cause::ExitCode { code } => put("code", json!(code)),
            Cause::Signal { signal, .. } => put("signal", json!(signal)),
            _ => None,
        };
        if !report.killed.is_empty() {
            put("killed", json!(report.killed));
        }
        if !report.left.is_empty() {
            put("left", json!(report.left));
        }
    }
    match report {
        ChildReport::Exited { next, .. } | ChildReport::StartFailed { next } => {
            let name = match next {
                Next::Rest => "rest",
                Next::Removed => "removed",
                Next::Restart { .. } => "restart",
                Next::Held => "held",
                Next::Failed => "failed",
                Next::Escalates => "escalates",
                Next::SupervisorEnds => "supervisor_ends",
            };
            put("next", json!(name));
            if let Next::Restart { delay, nth, of } = next {
                put("delay_ms", json!(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)));
                put("nth", json!(nth));
                if let Some(of) = of {
                    put("of", json!(of));
                }
            }
        }
        ChildReport::Stopped { clean, .. } => {
            put("clean", json!(clean));
        }
        _ => {}
    }
    payload
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::config::EventSettings;
    use crate::journal::JOURNAL_FILE;

    async fn told(subscription: &mut EventSubscription) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(batch) = subscription.next().await {
            told.extend(batch.into_iter().map(|notification| match notification {
                Notification::Event(event) => event.seq.to_string(),
                Notification::EventGap(gap) => format!("gap {}-{}", gap.first, gap.last),
                other => panic!("{other:?}"),
            }));
        }
        told
    }

    #[tokio::test]
    async fn the_journal_goes_over_into_memory_without_a_hole_or_a_double() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(JOURNAL_FILE);
        let settings = EventSettings { keep: 1000, age: Duration::from_secs(3600) };
        let journal = Journal::open(Some(&path), settings);
        let log = EventLog::new(5);
        let keeping = tokio::spawn(journal.clone().keep(log.clone()));
        let lines = || std::fs::read_to_string(&path).map_or(0, |text| text.lines().count());
        for count in 1..=300 {
            log.tell("web", "told", BTreeMap::new());
            let is_last_of_memory = count % 5 == 0;
            while is_last_of_memory && lines() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let whole: Vec<String> = (1..=300).map(|seq| seq.to_string()).collect();
        for from in [1, 2, 294, 295, 296, 297, 300] {
            let cursor = EventCursor::Seq(from);
            let mut events = EventSubscription::new(log.clone(), journal.clone(), cursor, false);
            let from = usize::try_from(from).expect("small");
            assert_eq!(told(&mut events).await, whole[from - 1..], "{from}");
        }
        keeping.abort();
        // Without the file, memory tells what is missing.
        std::fs::remove_file(&path).expect("there");
        let mut events = EventSubscription::new(log.clone(), journal, EventCursor::Seq(2), false);
        assert_eq!(told(&mut events).await, ["gap 2-295", "296", "297", "298", "299", "300"]);
    }
}
