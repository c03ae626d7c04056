//! The MCP client: a server over streamable HTTP lists its tools, in whichever era of the protocol it speaks.
//!
//! The probe asks for no more than that; [`catalog`] asks what people and programs want to know, through the same exchange.
//!
//! ```text
//!              ┌ modern ──────────────────────────────────────────► tools/list
//! era unknown ─┤ server/discover
//!              └ anything else ► initialize ► notifications/initialized ► tools/list ► DELETE of the session
//! ```
//!
//! The modern era (2026-07-28) is stateless. In the older one (2025-11-25 and before) `initialize` may open a session,
//! which is ended again whatever happens after. `initialize` alone proves little: a proxy whose backend is gone still
//! answers it, and only `tools/list` fails. So the list is asked for in both eras; "method not found" there is the
//! answer of a server that is alive and has no tools.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tokio::time;

use super::http::{self, Piece, Target};
use super::{ProbeFailure, printable};

pub(super) mod catalog;

/// The revision spoken with modern servers.
const MODERN: &str = "2026-07-28";

/// The revision offered to older servers, which may answer with one still older.
const OLDER: &str = "2025-11-25";

/// JSON-RPC's "method not found".
const METHOD_NOT_FOUND: i64 = -32601;

/// The longest time for the answer to discovery; a server that never answers an unknown method is of the older era.
const DISCOVERY: Duration = Duration::from_secs(3);

/// MCP's "unsupported protocol version", known to modern servers only; `data.supported` lists their revisions.
const UNSUPPORTED_VERSION: i64 = -32022;

/// MCP's errors for a request that contradicts its headers or lacks a capability, known to modern servers only.
const MODERN_REFUSALS: [i64; 2] = [-32020, -32021];

/// How a server wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Stateless, with `server/discover`.
    Modern,
    /// With `initialize` and perhaps a session.
    Older,
}

/// What one incarnation's earlier attempts found out.
#[derive(Debug, Default)]
pub(super) struct Memory {
    era: Option<Era>,
    /// Whether a session of the older era is kept open for the next attempt.
    keeps_session: bool,
    kept: Option<Kept>,
}

impl Memory {
    pub(super) fn keeping_session(self) -> Self {
        Self { keeps_session: true, ..self }
    }
}

/// A handshake of the older era that is still good.
#[derive(Debug)]
struct Kept {
    session: Option<String>,
    version: String,
}

/// Asks for the list of tools.
pub(super) async fn probe(
    target: &Target<'_>,
    memory: &mut Memory,
    timeout: Duration,
) -> Result<(), ProbeFailure> {
    // The rest of the time is for leaving the server as it was.
    let limit = timeout.mul_f64(0.9);
    let (keeps_session, kept) = (memory.keeps_session, memory.kept.take());
    let mut exchange = Exchange { target, ..Exchange::new(target, &mut memory.era, limit) };
    let outcome = match time::timeout(limit, exchange.run(kept)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ProbeFailure::Timeout { request: exchange.request.to_owned(), after: limit }),
    };
    if keeps_session && outcome.is_ok() {
        memory.kept = Some(Kept { session: exchange.session, version: exchange.version });
        return outcome;
    }
    if exchange.session.is_some() {
        // 200, 202 and 405 are all fine, and nothing can be done about anything else.
        let _ = time::timeout(timeout.saturating_sub(limit), exchange.end_session()).await;
    }
    outcome
}

/// One attempt.
#[derive(Debug)]
struct Exchange<'a> {
    target: &'a Target<'a>,
    era: &'a mut Option<Era>,
    limit: Duration,
    /// What is being asked.
    request: &'static str,
    /// The session to end, known as soon as the head that opens it has arrived.
    session: Option<String>,
    /// The revision agreed on with an older server.
    version: String,
    /// What the server has announced, if that was read.
    capabilities: Option<Map<String, Value>>,
    /// The latest request's id.
    id: u64,
}

impl<'a> Exchange<'a> {
    fn new(target: &'a Target<'a>, era: &'a mut Option<Era>, limit: Duration) -> Self {
        Self {
            target,
            era,
            limit,
            request: "connect",
            session: None,
            version: OLDER.to_owned(),
            capabilities: None,
            id: 0,
        }
    }

    fn announced(&mut self, result: &Value) {
        self.capabilities = result.get("capabilities").and_then(Value::as_object).cloned();
    }

    async fn run(&mut self, kept: Option<Kept>) -> Result<(), ProbeFailure> {
        let era = match *self.era {
            Some(era) => era,
            None => self.discover().await?,
        };
        match era {
            Era::Modern => {
                *self.era = Some(Era::Modern);
                let reply = self.ask_modern("tools/list", Map::new(), None).await?;
                self.judge_tools(reply)
            }
            Era::Older => {
                if let Some(Kept { session, version }) = kept {
                    (self.session, self.version) = (session, version);
                    let reply = self.ask_older("tools/list", None).await?;
                    // The answer to a session that is over; the server may have its reasons to end one.
                    if reply.status != 404 {
                        return self.judge_tools(reply);
                    }
                    (self.session, self.version) = (None, OLDER.to_owned());
                }
                self.open_older().await?;
                let reply = self.ask_older("tools/list", None).await?;
                self.judge_tools(reply)
            }
        }
    }

    /// Finds out the era with the one request that leaves nothing behind on any server.
    async fn discover(&mut self) -> Result<Era, ProbeFailure> {
        // A server that never answers an unknown method must leave time for `initialize`.
        let share = self.limit.mul_f64(0.3).min(DISCOVERY);
        let asked = self.ask_modern("server/discover", Map::new(), None);
        let reply = match time::timeout(share, asked).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(failure @ (ProbeFailure::NotListening { .. } | ProbeFailure::Connect { .. }))) => {
                return Err(failure);
            }
            Ok(Err(_)) | Err(_) => return Ok(Era::Older),
        };
        match reply.answer {
            Some(Answer::Result(result)) => match result.get("supportedVersions").and_then(Value::as_array) {
                Some(supported) => {
                    self.announced(&result);
                    era_of(supported)
                }
                None => Ok(Era::Older),
            },
            // Only a server that knows the method has so much to say about it.
            Some(Answer::LongResult) => Ok(Era::Modern),
            Some(Answer::Error { code: UNSUPPORTED_VERSION, data, .. }) => {
                match data.get("supported").and_then(Value::as_array) {
                    Some(supported) if !supported.is_empty() => era_of(supported),
                    _ => Ok(Era::Modern),
                }
            }
            Some(Answer::Error { code, message, .. }) if MODERN_REFUSALS.contains(&code) => {
                *self.era = Some(Era::Modern);
                Err(self.refused(code, message))
            }
            Some(Answer::Error { .. }) | None => Ok(Era::Older),
        }
    }

    /// Shakes hands with a server of the older era.
    async fn open_older(&mut self) -> Result<(), ProbeFailure> {
        let params = json!({ "protocolVersion": OLDER, "capabilities": {}, "clientInfo": client_info() });
        let reply = self.post("initialize", &[], Some(params)).await?;
        if let Some(Answer::Error { code: UNSUPPORTED_VERSION, message, .. }) = reply.answer {
            *self.era = Some(Era::Modern);
            return Err(self.refused(UNSUPPORTED_VERSION, message));
        }
        if let Some(result) = self.expect_result(reply)? {
            self.announced(&result);
            if let Some(version) = result.get("protocolVersion").and_then(Value::as_str)
                && (1..=32).contains(&version.len())
                && version.bytes().all(|byte| byte.is_ascii_graphic())
            {
                self.version = version.to_owned();
            }
        }
        *self.era = Some(Era::Older);
        self.notify_initialized().await
    }

    /// Tells an older server that the handshake is over. Its status proves nothing; `tools/list` does.
    async fn notify_initialized(&mut self) -> Result<(), ProbeFailure> {
        self.request = "notifications/initialized";
        let body = json!({ "jsonrpc": "2.0", "method": self.request }).to_string();
        let headers = self.older_headers();
        let headers: Vec<_> = POST_HEADERS.into_iter().chain(borrowed(&headers)).collect();
        http::send(self.target, self.request, "POST", &headers, body.as_bytes()).await.map(drop)
    }

    async fn end_session(&mut self) -> Result<(), ProbeFailure> {
        let headers = self.older_headers();
        let headers: Vec<_> = borrowed(&headers).collect();
        http::send(self.target, "DELETE", "DELETE", &headers, b"").await.map(drop)
    }

    /// Asks a modern server; `name` is what the request is about, if it is about one thing.
    async fn ask_modern(
        &mut self,
        method: &'static str,
        mut params: Map<String, Value>,
        name: Option<&str>,
    ) -> Result<Reply, ProbeFailure> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".to_owned(), meta);
        let name = name.map(header_value);
        let mut headers = vec![("MCP-Protocol-Version", MODERN), ("Mcp-Method", method)];
        headers.extend(name.iter().map(|name| ("Mcp-Name", name.as_ref())));
        self.post(method, &headers, Some(params.into())).await
    }

    async fn ask_older(
        &mut self,
        method: &'static str,
        params: Option<Value>,
    ) -> Result<Reply, ProbeFailure> {
        let headers = self.older_headers();
        let headers: Vec<_> = borrowed(&headers).collect();
        self.post(method, &headers, params).await
    }

    fn older_headers(&self) -> Vec<(&'static str, String)> {
        let session = self.session.iter().map(|session| ("Mcp-Session-Id", session.clone()));
        [("MCP-Protocol-Version", self.version.clone())].into_iter().chain(session).collect()
    }

    /// Sends a request and reads until its answer, which may be JSON or one event of a stream that goes on.
    async fn post(
        &mut self,
        method: &'static str,
        headers: &[(&str, &str)],
        params: Option<Value>,
    ) -> Result<Reply, ProbeFailure> {
        self.request = method;
        self.id += 1;
        let mut message = json!({ "jsonrpc": "2.0", "id": self.id, "method": method });
        if let Some(params) = params {
            message["params"] = params;
        }
        let headers: Vec<_> = POST_HEADERS.into_iter().chain(headers.iter().copied()).collect();
        let mut response =
            http::send(self.target, method, "POST", &headers, message.to_string().as_bytes()).await?;
        if method == "initialize" {
            self.session = response.session.take();
        }
        let (status, location) = (response.status, response.location.take());
        let answer = if response.is_event_stream {
            read_events(&mut response.body, self.id).await?
        } else {
            read_json(&mut response.body, self.id).await?
        };
        Ok(Reply { status, location, answer })
    }

    /// Judges the answer to `tools/list`.
    fn judge_tools(&self, reply: Reply) -> Result<(), ProbeFailure> {
        match reply.answer {
            Some(Answer::Error { code: METHOD_NOT_FOUND, .. }) => Ok(()),
            _ => self.expect_result(reply).map(drop),
        }
    }

    /// Returns the result, or `None` for one too long to be read.
    fn expect_result(&self, reply: Reply) -> Result<Option<Value>, ProbeFailure> {
        let request = self.request.to_owned();
        let is_success = (200..300).contains(&reply.status);
        match reply.answer {
            Some(Answer::Error { code, message, .. }) => Err(self.refused(code, message)),
            _ if !is_success => {
                Err(ProbeFailure::Http { request, status: reply.status, location: reply.location })
            }
            Some(Answer::Result(result)) => Ok(Some(result)),
            Some(Answer::LongResult) => Ok(None),
            None => Err(ProbeFailure::Protocol { request, problem: "no JSON-RPC response" }),
        }
    }

    fn refused(&self, code: i64, message: String) -> ProbeFailure {
        ProbeFailure::Mcp { request: self.request.to_owned(), code, message }
    }
}

/// The headers of every POST; there is no `Origin`.
const POST_HEADERS: [(&str, &str); 2] =
    [("Accept", "application/json, text/event-stream"), ("Content-Type", "application/json")];

/// Writes what may hold any character so that it can stand in a header; the protocol marks what is encoded.
fn header_value(text: &str) -> Cow<'_, str> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.starts_with("=?base64?");
    if is_plain { text.into() } else { format!("=?base64?{}?=", BASE64_STANDARD.encode(text)).into() }
}

fn client_info() -> Value {
    json!({ "name": "xy", "version": env!("CARGO_PKG_VERSION") })
}

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> impl Iterator<Item = (&'static str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str()))
}

/// Chooses the era from the revisions a server supports. Revisions are dates, so text order is their order.
fn era_of(supported: &[Value]) -> Result<Era, ProbeFailure> {
    let supported: Vec<_> = supported.iter().filter_map(Value::as_str).collect();
    if supported.contains(&MODERN) {
        Ok(Era::Modern)
    } else if supported.iter().any(|version| version.cmp(&MODERN) == Ordering::Less) {
        Ok(Era::Older)
    } else {
        Err(ProbeFailure::Revision { supported: printable(&supported.join(", ")) })
    }
}

/// What came back for a request.
#[derive(Debug)]
struct Reply {
    status: u16,
    location: Option<String>,
    answer: Option<Answer>,
}

/// A JSON-RPC response.
#[derive(Debug, PartialEq)]
enum Answer {
    Result(Value),
    /// A result of which only the beginning was read; some servers have very many tools.
    LongResult,
    Error {
        code: i64,
        message: String,
        data: Value,
    },
}

async fn read_json(body: &mut http::Body, id: u64) -> Result<Option<Answer>, ProbeFailure> {
    let mut text = Vec::new();
    loop {
        match body.read(&mut text).await? {
            Piece::More => {}
            Piece::End => return Ok(find_answer(&text, id)),
            Piece::Cut => return Ok(judge_beginning(&text)),
        }
    }
}

async fn read_events(body: &mut http::Body, id: u64) -> Result<Option<Answer>, ProbeFailure> {
    let mut events = EventStream::default();
    let mut bytes = Vec::new();
    loop {
        let piece = body.read(&mut bytes).await?;
        let answer = events.feed(&bytes).iter().find_map(|data| find_answer(data, id));
        bytes.clear();
        match piece {
            _ if answer.is_some() => return Ok(answer),
            Piece::More => {}
            // The last event of a stream that ends may lack its blank line.
            Piece::End => return Ok(find_answer(&events.into_unfinished(), id)),
            Piece::Cut => return Ok(judge_beginning(&events.into_unfinished())),
        }
    }
}

/// Finds the response with our id in a message or a batch; errors may lack the id, which the server may not have read.
fn find_answer(text: &[u8], id: u64) -> Option<Answer> {
    let find = |message: Value| {
        let theirs = message.get("id").unwrap_or(&Value::Null);
        let is_ours = theirs.as_u64() == Some(id);
        if let Some(result @ Value::Object(_)) = message.get("result")
            && is_ours
        {
            return Some(Answer::Result(result.clone()));
        }
        let error = message.get("error").filter(|_| is_ours || theirs.is_null())?;
        Some(Answer::Error {
            code: error.get("code")?.as_i64()?,
            message: printable(error.get("message").and_then(Value::as_str).unwrap_or_default()),
            data: error.get("data").cloned().unwrap_or_default(),
        })
    };
    match serde_json::from_slice(text).ok()? {
        Value::Array(batch) => batch.into_iter().find_map(find),
        message => find(message),
    }
}

/// Judges a message of which only the beginning was read: it is a result when it has one at its top level.
///
/// Its id may be in the part that was not read, but the response to a POST is the only one in the answer.
fn judge_beginning(text: &[u8]) -> Option<Answer> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut string_start = 0;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' if in_string => {
                in_string = false;
                let after: Vec<_> =
                    text[index + 1..].iter().filter(|byte| !byte.is_ascii_whitespace()).take(2).collect();
                if depth == 1 && &text[string_start..index] == b"result" && after == [&b':', &b'{'] {
                    return Some(Answer::LongResult);
                }
            }
            _ if in_string => {}
            b'"' => {
                in_string = true;
                string_start = index + 1;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Server-sent events, of which only the data matters.
#[derive(Debug, Default)]
struct EventStream {
    line: Vec<u8>,
    data: Vec<u8>,
    /// Whether the last line ended with CR, so that an LF that follows belongs to it.
    after_return: bool,
}

impl EventStream {
    /// Takes the next bytes and returns the data of the events they complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' if self.line.is_empty() => {
                    if !self.data.is_empty() {
                        events.push(std::mem::take(&mut self.data));
                    }
                }
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(*byte),
            }
        }
        events
    }

    fn end_line(&mut self) {
        if let Some(data) = self.line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        self.line.clear();
    }

    /// Returns the data of an event that was not completed.
    fn into_unfinished(mut self) -> Vec<u8> {
        self.end_line();
        self.data
    }
}

/// Reads a body as [`read_json`] and [`read_events`] do.
#[cfg(feature = "testkit")]
pub(super) fn read_body(body: &[u8], step: usize, is_event_stream: bool) {
    let mut found = Vec::new();
    if is_event_stream {
        let mut events = EventStream::default();
        for piece in body.chunks(step) {
            found.extend(events.feed(piece).iter().filter_map(|data| find_answer(data, 1)));
        }
        let rest = events.into_unfinished();
        found.extend([find_answer(&rest, 1), judge_beginning(&rest)].into_iter().flatten());
    } else {
        found.extend([find_answer(body, 1), judge_beginning(body)].into_iter().flatten());
    }
    for answer in found {
        if let Answer::Error { message, .. } = answer {
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let text =
            b": hello\n\nevent: message\nid: 1\ndata: {\"a\":\ndata: 1}\n\ndata:\r\n\r\nretry: 5\rdata:x\r\rdata: y";
        for step in 1..=text.len() {
            let mut stream = EventStream::default();
            let events: Vec<_> = text.chunks(step).flat_map(|piece| stream.feed(piece)).collect();
            assert_eq!(events, [b"{\"a\":\n1}".to_vec(), b"x".to_vec()], "step {step}");
            assert_eq!(stream.into_unfinished(), b"y", "step {step}");
        }
    }

    #[test]
    fn only_a_response_with_our_id_is_an_answer() {
        let cases: [(&str, bool); 9] = [
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, true),
            (r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, false),
            (r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, false),
            (r#"{"jsonrpc":"2.0","id":7,"result":null}"#, false),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#, false),
            (r#"[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","id":7,"result":{}}]"#, true),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"m"}}"#, true),
            (r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32000,"message":"m"}}"#, false),
            ("", false),
        ];
        for (text, expected) in cases {
            assert_eq!(find_answer(text.as_bytes(), 7).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn a_long_message_is_a_result_only_when_its_top_level_says_so() {
        let cases = [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"#, true),
            (r#"{ "result" : { "tools" : ["#, true),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"result":{"a":"#, false),
            (r#"{"jsonrpc":"2.0","method":"\"result\":{","params":"#, false),
            (r#"{"jsonrpc":"2.0","params":"result","x":{"#, false),
            ("<html>", false),
        ];
        for (text, expected) in cases {
            assert_eq!(judge_beginning(text.as_bytes()).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn the_era_follows_from_the_supported_revisions() {
        let era = |versions: &[&str]| {
            let versions: Vec<_> = versions.iter().map(|version| Value::from(*version)).collect();
            era_of(&versions)
        };
        assert_eq!(era(&["2025-11-25", MODERN]).expect("an era"), Era::Modern);
        assert_eq!(era(&["2025-06-18", "2025-11-25"]).expect("an era"), Era::Older);
        let failure = era(&["2031-01-01"]).expect_err("an unknown revision");
        assert!(matches!(failure, ProbeFailure::Revision { supported } if supported == "2031-01-01"));
    }
}
