//! Server-sent events: what a subscription says as a stream that a client can resume.
//!
//! The id of an event is its own, `ERA-NUMBER`, and outlives the daemon as events do; that of a line of output is
//! `EPOCH-NUMBER-MILLISECONDS`, with the epoch of this daemon. A client that comes back with the id of the last event it has seen gets exactly what it missed. Where that is
//! impossible, one `reset` event says so and brings what there is to begin with; it never loses anything in silence.

use std::future::Future;
use std::sync::Arc;

use hyper::Response;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::credentials::Admission;
use super::endpoint::Shared;
use super::pace::Pace;
use super::reply::{Content, Problem, stream};
use crate::permission::Caller;
use crate::protocol::Method as _;
use crate::protocol::message::Request;
use crate::protocol::method::{Events, Gap, ListParams, LogLine, Logs, Notification};
use crate::rpc::{Answer, Service, Subscription, call, catch_panic};

/// How many pieces wait for a client that reads slowly; then its source waits.
const QUEUE: usize = 4;

/// Events travel in pieces of about this many bytes.
const PIECE: usize = 32 << 10;

/// The event that tells a client to forget what it knows.
const RESET: &str = "reset";

/// Where a client has stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    number: u64,
    at_unix_ms: u64,
}

impl Position {
    /// Reads an id of this epoch.
    fn parse(id: &str, epoch: &str) -> Option<Self> {
        let mut numbers = id.strip_prefix(epoch)?.strip_prefix('-')?.split('-').map(|text| {
            let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| text.parse::<u64>().ok()).flatten()
        });
        let number = numbers.next()??;
        let at_unix_ms = match numbers.next() {
            None => 0,
            Some(time) => time?,
        };
        numbers.next().is_none().then_some(Self { number, at_unix_ms })
    }
}

/// Reads an id that a client brings back.
#[cfg(feature = "testkit")]
pub(super) fn read_id(id: &str) {
    if let Some(Position { number, at_unix_ms }) = Position::parse(id, "18f") {
        let again = Position::parse(&format!("18f-{number}-{at_unix_ms}"), "18f");
        assert_eq!(again, Some(Position { number, at_unix_ms }));
    }
}

/// Who follows.
#[derive(Debug)]
pub(super) struct Reader {
    /// The token that it has shown; when that expires, its stream ends.
    pub(super) token: Admission,
    /// Its connection.
    pub(super) pace: Arc<Pace>,
}

/// Follows the events of the tree; `params` are those of [`Events`], which the id of a client that comes back overrides.
pub(super) async fn events<S: Service>(
    shared: &Arc<Shared<S>>,
    caller: &Caller,
    mut params: Map<String, Value>,
    last_id: Option<&str>,
    reader: Reader,
) -> Result<Response<Content>, Problem> {
    if let Some(id) = last_id {
        params = Map::from_iter([("after".to_owned(), id.into())]);
    }
    let is_resumed = !params.is_empty();
    // Before a snapshot is taken, so that nothing falls between the two.
    let (source, reason) = match open(shared, caller, Events::NAME, &params).await {
        Ok(source) => (source, (!is_resumed).then_some("new")),
        Err(problem) if last_id.is_some() && problem.parameter.as_deref() == Some("after") => {
            (open(shared, caller, Events::NAME, &Map::new()).await?, Some("unknown_id"))
        }
        Err(problem) => return Err(problem),
    };
    let beginning = match reason {
        Some(reason) => reset(shared, reason, None).await,
        None => Vec::new(),
    };
    Ok(publish(shared, source, beginning, Follow::Events, reader))
}

/// Follows a server's output; `params` are those of [`Logs`].
pub(super) async fn logs<S: Service>(
    shared: &Arc<Shared<S>>,
    caller: &Caller,
    mut params: Map<String, Value>,
    last_id: Option<&str>,
    reader: Reader,
) -> Result<Response<Content>, Problem> {
    let position = last_id.and_then(|id| Position::parse(id, &shared.epoch));
    if let Some(Position { at_unix_ms, .. }) = position {
        // Everything since the line that was seen last; what was seen of it is left out below.
        params.remove("tail");
        params.insert("since_unix_ms".to_owned(), at_unix_ms.into());
    }
    let source = open(shared, caller, Logs::NAME, &params).await?;
    let mut beginning = Vec::new();
    if last_id.is_some() && position.is_none() {
        push(&mut beginning, RESET, None, &json!({ "reason": "unknown_id" }));
    }
    // With a filter the numbers have holes that are nobody's loss.
    let is_whole = !params.contains_key("grep") && params.get("output_only") != Some(&Value::Bool(true));
    let follow = Follow::Logs { seen: position.map(|position| position.number), is_whole };
    Ok(publish(shared, source, beginning, follow, reader))
}

async fn open<S: Service>(
    shared: &Arc<Shared<S>>,
    caller: &Caller,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Box<dyn Subscription>, Problem> {
    match call(&*shared.service, caller, &Request::of(method, params)).await? {
        Answer::Subscription(source) => Ok(source),
        Answer::Result(_) => unreachable!("`logs` and `events` open a source"),
    }
}

/// What is followed, and what of it the client has seen.
#[derive(Debug)]
enum Follow {
    Events,
    Logs {
        /// The number of the last line that was seen, until a later one comes.
        seen: Option<u64>,
        is_whole: bool,
    },
}

/// Starts the task that writes a stream, and answers with it.
fn publish<S: Service>(
    shared: &Arc<Shared<S>>,
    source: Box<dyn Subscription>,
    beginning: Vec<u8>,
    follow: Follow,
    reader: Reader,
) -> Response<Content> {
    let (output, pieces) = mpsc::channel(QUEUE);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut close = shared.close.clone();
        let gone = output.clone();
        let Reader { token, pace } = reader;
        let output = Pieces { output, pace };
        let writing = write(&shared, source, beginning, follow, output);
        tokio::select! {
            () = writing => {}
            // The client is gone, its token is accepted no more, or the daemon ends.
            () = gone.closed() => {}
            () = shared.plane.credentials.expired(&token) => {}
            _ = close.wait_for(|closing| *closing) => {}
        }
    });
    stream(pieces)
}

/// Where the pieces of a stream go.
struct Pieces {
    output: mpsc::Sender<Bytes>,
    pace: Arc<Pace>,
}

impl Pieces {
    /// Waits for room and sends one; returns whether somebody still reads them. It counts as unread until it is written.
    async fn send(&self, piece: Vec<u8>) -> bool {
        self.output.send(self.pace.hold(piece.into())).await.is_ok()
    }
}

async fn write<S: Service>(
    shared: &Shared<S>,
    mut source: Box<dyn Subscription>,
    mut piece: Vec<u8>,
    mut follow: Follow,
    output: Pieces,
) {
    // At once, so that a client knows that it is connected.
    if piece.is_empty() {
        piece.extend_from_slice(b":\n\n");
    }
    loop {
        if !output.send(std::mem::take(&mut piece)).await {
            return;
        }
        let next = catch_panic(source.next());
        let batch = match with_heartbeat(next, shared.limits.heartbeat, &output.output).await {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(panic) => {
                tracing::error!(?follow, panic, "a stream failed by a panic");
                break;
            }
        };
        for notification in batch {
            match follow.take(notification) {
                Taken::Seen => {}
                Taken::Event { name, id, data } => {
                    let id = match follow {
                        Follow::Events => id,
                        Follow::Logs { .. } => id.map(|id| format!("{}-{id}", shared.epoch)),
                    };
                    push_text(&mut piece, name, id.as_deref(), &data);
                }
                Taken::Lost { gap, then } => {
                    match follow {
                        Follow::Events => piece.extend(reset(shared, "gap", Some(gap)).await),
                        Follow::Logs { .. } => {
                            push(&mut piece, RESET, None, &json!({ "reason": "gap", "missed": gap }));
                        }
                    }
                    if let Some((name, id, data)) = then {
                        push_text(&mut piece, name, Some(&format!("{}-{id}", shared.epoch)), &data);
                    }
                }
            }
            if piece.len() >= PIECE && !output.send(std::mem::take(&mut piece)).await {
                return;
            }
        }
        if piece.is_empty() {
            piece.extend_from_slice(b":\n\n");
        }
    }
    let name = match follow {
        Follow::Events => Notification::EVENT_END,
        Follow::Logs { .. } => Notification::LOG_END,
    };
    push(&mut piece, name, None, &json!({}));
    // It fails when nobody listens any more.
    output.send(piece).await;
}

/// Waits for a future and meanwhile sends a comment every so often, so that both sides notice when the other is gone.
async fn with_heartbeat<T>(
    future: impl Future<Output = T>,
    every: std::time::Duration,
    output: &mpsc::Sender<Bytes>,
) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            biased;
            done = &mut future => return done,
            // A full queue says that the client does not read what came before.
            () = sleep(every) => {
                _ = output.try_send(Bytes::from_static(b":\n\n"));
            }
        }
    }
}

/// What becomes of a notification.
enum Taken {
    /// The client has had it.
    Seen,
    /// An event of this name, with its data as JSON and its id, of which that of a line lacks the epoch.
    Event { name: &'static str, id: Option<String>, data: String },
    /// These numbers are gone; then comes an event.
    Lost { gap: Gap, then: Option<(&'static str, String, String)> },
}

impl Follow {
    fn take(&mut self, notification: Notification) -> Taken {
        let name = notification.method();
        match notification {
            Notification::Event(event) => Taken::Event { name, data: text_of(&event), id: Some(event.id) },
            Notification::Log(line) => self.take_line(name, &line),
            Notification::EventGap(gap) | Notification::LogGap(gap) => {
                if let Self::Logs { seen, .. } = self {
                    *seen = None;
                }
                Taken::Lost { gap, then: None }
            }
            // The end of a source is told by its end.
            Notification::EventEnd | Notification::LogEnd => Taken::Seen,
        }
    }

    fn take_line(&mut self, name: &'static str, line: &LogLine) -> Taken {
        let id = (line.number > 0).then(|| format!("{}-{}", line.number, line.ts_unix_ms));
        let data = text_of(line);
        let Self::Logs { seen, is_whole } = self else { return Taken::Event { name, id, data } };
        let Some(last) = *seen else { return Taken::Event { name, id, data } };
        let Some(id) = id.filter(|_| line.number > last) else { return Taken::Seen };
        *seen = None;
        if *is_whole && line.number > last + 1 {
            let gap = Gap { first: last + 1, last: line.number - 1 };
            return Taken::Lost { gap, then: Some((name, id, data)) };
        }
        Taken::Event { name, id: Some(id), data }
    }
}

/// Makes the event that tells a client to forget what it knows and to begin with a snapshot.
async fn reset<S: Service>(shared: &Shared<S>, reason: &str, missed: Option<Gap>) -> Vec<u8> {
    let snapshot = catch_panic(shared.service.list(ListParams::default())).await;
    let snapshot = snapshot.ok().and_then(Result::ok);
    let mut piece = Vec::new();
    let data = json!({ "reason": reason, "missed": missed, "snapshot": snapshot });
    // Without an id the client keeps the one it has, and is reset again if it loses the connection before the next event.
    push(&mut piece, RESET, None, &data);
    piece
}

fn text_of<T: Serialize>(value: &T) -> String {
    // Events and lines hold strings, numbers and maps of such, which always have a JSON form.
    serde_json::to_string(value).expect("plain members are JSON")
}

fn push<T: Serialize>(piece: &mut Vec<u8>, name: &str, id: Option<&str>, data: &T) {
    push_text(piece, name, id, &text_of(data));
}

/// Appends an event. JSON holds no line feed, so that the data is one line.
fn push_text(piece: &mut Vec<u8>, name: &str, id: Option<&str>, data: &str) {
    if let Some(id) = id {
        piece.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    piece.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::LogStream;

    fn line(number: u64) -> Notification {
        Notification::Log(LogLine {
            name: "web".to_owned(),
            stream: LogStream::Out,
            line: "text\nwith\rbreaks".to_owned(),
            line_base64: None,
            ts_unix_ms: 9,
            number,
            partial: false,
        })
    }

    fn ids(follow: &mut Follow, numbers: &[u64]) -> Vec<String> {
        let taken = numbers.iter().map(|number| match follow.take(line(*number)) {
            Taken::Seen => "seen".to_owned(),
            Taken::Event { id, .. } => id.unwrap_or_default(),
            Taken::Lost { gap, then } => {
                format!("lost {}-{} then {}", gap.first, gap.last, then.map_or(String::new(), |then| then.1))
            }
        });
        taken.collect()
    }

    #[test]
    fn an_id_is_of_this_epoch_and_nothing_but_numbers() {
        let position = |number, at_unix_ms| Some(Position { number, at_unix_ms });
        assert_eq!(Position::parse("e1-5", "e1"), position(5, 0));
        assert_eq!(Position::parse("e1-5-77", "e1"), position(5, 77));
        for id in [
            "",
            "e1",
            "e1-",
            "e1-x",
            "e1--5",
            "e1-+5",
            "e1-5-",
            "e1-5-7-8",
            "e2-5",
            "e10-5",
            "5",
            "e1-99999999999999999999",
        ] {
            assert_eq!(Position::parse(id, "e1"), None, "{id}");
        }
    }

    #[test]
    fn a_resumed_log_leaves_out_what_was_seen_and_nothing_else() {
        let resumed = |is_whole| Follow::Logs { seen: Some(3), is_whole };
        assert_eq!(ids(&mut resumed(true), &[0, 2, 3, 4, 5]), ["seen", "seen", "seen", "4-9", "5-9"]);
        assert_eq!(ids(&mut resumed(true), &[0, 6, 7]), ["seen", "lost 4-5 then 6-9", "7-9"]);
        assert_eq!(ids(&mut resumed(false), &[6, 7]), ["6-9", "7-9"]);
        let mut fresh = Follow::Logs { seen: None, is_whole: true };
        assert_eq!(ids(&mut fresh, &[0, 6]), ["", "6-9"]);
    }

    #[test]
    fn text_with_line_breaks_cannot_forge_an_event() {
        let mut piece = Vec::new();
        let Taken::Event { name, data, .. } = Follow::Events.take(line(1)) else { panic!("a line") };
        push_text(&mut piece, name, Some("e-1"), &data);
        let text = String::from_utf8(piece).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains(r"text\nwith\rbreaks"), "{text}");
    }
}
