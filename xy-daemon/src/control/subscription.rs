//! Output and events as notifications: cursors, so that a slow subscriber costs nobody anything.

use std::future::Future;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use xy_actors::event::ChildReport;
use xy_actors::event::Next;
use xy_actors::event::stream::{Event, EventItem, EventKind, EventStream};
use xy_actors::exit::{Cause, ExitReport};
use xy_actors::log::{LogItem, LogLine, LogReader, Stream};

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

/// The events of the tree.
pub(super) struct EventSubscription {
    stream: EventStream,
    follow: bool,
}

impl EventSubscription {
    pub(super) fn new(stream: EventStream, follow: bool) -> Self {
        Self { stream, follow }
    }
}

impl Subscription for EventSubscription {
    fn next(&mut self) -> Next_<'_> {
        Box::pin(async move {
            let first = if self.follow { self.stream.next().await? } else { self.stream.try_next().ok()? };
            let mut batch = vec![notification(first)];
            while batch.len() < BATCH
                && let Ok(item) = self.stream.try_next()
            {
                batch.push(notification(item));
            }
            Some(batch)
        })
    }
}

fn notification(item: EventItem) -> Notification {
    match item {
        EventItem::Event(event) => Notification::Event(wire_event(&event)),
        EventItem::Gap { first, last } => Notification::EventGap(Gap { first, last }),
    }
}

fn wire_event(event: &Event) -> method::Event {
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
