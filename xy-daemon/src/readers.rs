//! Whatever reads bytes that others have written, one function each, so that a fuzzer and the tests run the same code.
//!
//! Each panics if what it read breaks a promise of its reader, for instance if what was accepted is not the same once it is
//! written and read anew.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, duplex};
use tokio::runtime::Runtime;

use crate::http::readers::{Deaf, TOKEN, words};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::frame::{FrameReader, MAX_LINE};
use crate::protocol::method::{
    EventsParams, Gap, ListParams, ListResult, LogLine, LogStream, LogsParams, Notification, OperationParams,
    PauseResult, ReloadParams, ReloadResult, RestartResult, ResumeResult, ShutdownParams, ShutdownResult,
    SignalParams, SignalResult, StartResult, StatusParams, StatusResult, StopResult, UpgradeParams,
    UpgradeResult, VersionParams, VersionResult,
};
use crate::rpc::{Service, Subscription, serve_alone};
use crate::{activation, config, history, intent, journal, protocol, upgrade};

pub use xy_actors::process::readers::{ledger, notification, probe_answer};

/// A reader and its name.
pub type Reader = (&'static str, fn(&[u8]));

/// All of them.
pub const READERS: [Reader; 13] = [
    ("line", line),
    ("rpc", rpc),
    ("http", http),
    ("word", word),
    ("server_file", server_file),
    ("settings_file", settings_file),
    ("probe_answer", probe_answer),
    ("notification", notification),
    ("ledger", ledger),
    ("history", history),
    ("journal", journal),
    ("intent", intent),
    ("handoff", handoff),
];

/// Splits a stream into lines, whatever pieces it comes in. The first byte says which.
///
/// # Panics
/// If a promise is broken.
pub fn line(bytes: &[u8]) {
    let [step, bytes @ ..] = bytes else { return };
    let mut frames = FrameReader::patient(Pieces { bytes, step: usize::from(*step).max(1) });
    let read = async {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = frames.next().await {
            lines.push(line);
        }
        lines
    };
    let mut context = Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(lines) = std::pin::pin!(read).poll(&mut context) else { panic!("nothing makes it wait") };
    let expected: Vec<_> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect();
    if bytes.len() <= MAX_LINE {
        assert_eq!(lines, expected);
    }
}

/// Bytes that come a few at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (piece, rest) = self.bytes.split_at(self.step.min(self.bytes.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// What is needed to serve without sockets: time passes when there is nothing left to do.
struct Bench {
    runtime: Runtime,
    http: Deaf<Yes>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        let http = runtime.block_on(async { Deaf::new(Arc::new(Yes)) });
        Self { runtime, http }
    }
}

thread_local! {
    static BENCH: Bench = Bench::new();
}

/// Serves a connection of the socket, from its first byte to the last answer.
///
/// # Panics
/// If a promise is broken.
pub fn rpc(bytes: &[u8]) {
    let output = BENCH.with(|bench| {
        bench.runtime.block_on(async {
            let (ours, mut theirs) = duplex(64 << 10);
            let mut output = Vec::new();
            let client = async {
                let (mut reader, mut writer) = tokio::io::split(&mut theirs);
                let write = async {
                    // It fails when the server has ended the connection, which it may.
                    _ = writer.write_all(bytes).await;
                    _ = writer.shutdown().await;
                };
                let (_, read) = tokio::join!(write, reader.read_to_end(&mut output));
                read.expect("memory can be read");
            };
            tokio::join!(serve_alone(ours, Arc::new(Yes)), client);
            output
        })
    });
    let mut answers = 0;
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        protocol::json::check(line).expect("what is written could be read");
        let said: Value = serde_json::from_slice(line).expect("JSON");
        let parts = said.as_array().cloned().unwrap_or_else(|| vec![said]);
        assert!(!parts.is_empty());
        for part in parts {
            // A control message is answered in its own way.
            let is_short = part.get("type").is_some() && part["ok"].is_boolean();
            assert!(is_short || part["jsonrpc"] == "2.0", "{part}");
            if part.get("method").is_none() {
                assert!(is_short || part.get("id").is_some(), "{part}");
                assert!(part.get("result").is_some() != part.get("error").is_some(), "{part}");
                answers += 1;
            }
        }
    }
    // A request has two bytes at least, and each has one answer at most.
    assert!(answers <= bytes.len(), "{answers} answers to {} bytes", bytes.len());
}

/// Serves a connection of HTTP until its client is given up.
///
/// # Panics
/// If a promise is broken.
pub fn http(bytes: &[u8]) {
    let output = BENCH.with(|bench| {
        bench.runtime.block_on(async {
            let (ours, mut theirs) = duplex(64 << 10);
            let mut output = Vec::new();
            let client = async {
                let (mut reader, mut writer) = tokio::io::split(&mut theirs);
                // The writing half stays open: whoever closes it does not want an answer.
                let write = async { _ = writer.write_all(bytes).await };
                _ = tokio::join!(write, reader.read_to_end(&mut output));
            };
            tokio::join!(bench.http.serve(ours), client);
            output
        })
    });
    if output.is_empty() {
        return;
    }
    let status = output.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    let status = status.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output)));
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let is_trusted = has(TOKEN.as_bytes());
    if (200..300).contains(&status) {
        assert!(is_trusted || has(b"/v1/health"), "{status} without a token");
    }
    // Only a rotation can fail here: there is no directory to write the new token to.
    assert!(status < 500 || has(b"rotate-token") || status == 501, "{}", String::from_utf8_lossy(&output));
    // Whoever has it may put it anywhere, for instance into a server's name, which is told when there is no such server.
    let count = |text: &[u8]| text.windows(TOKEN.len()).filter(|window| *window == TOKEN.as_bytes()).count();
    assert!(count(&output) == 0 || count(bytes) > 1, "the token was told");
}

/// Reads the small texts of requests and of the environment.
///
/// # Panics
/// If a promise is broken.
pub fn word(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    words(text);
    let (count, names) = text.split_once('=').unwrap_or((text, ""));
    activation::read_announcement(count, names);
}

/// Reads the file of a server.
///
/// # Panics
/// If a promise is broken.
pub fn server_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        config::read_text(text, true);
    }
}

/// Reads the file of settings.
///
/// # Panics
/// If a promise is broken.
pub fn settings_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        config::read_text(text, false);
    }
}

/// Reads how servers ended.
///
/// # Panics
/// If a promise is broken.
pub fn history(bytes: &[u8]) {
    history::read_twice(bytes);
}

/// Reads kept events.
///
/// # Panics
/// If a promise is broken.
pub fn journal(bytes: &[u8]) {
    journal::read_twice(bytes);
}

/// Reads which servers are enabled.
///
/// # Panics
/// If a promise is broken.
pub fn intent(bytes: &[u8]) {
    intent::read_twice(bytes);
}

/// Reads what a daemon hands over to its successor.
///
/// # Panics
/// If a promise is broken.
pub fn handoff(bytes: &[u8]) {
    upgrade::read_twice(bytes);
}

/// A service that says yes.
struct Yes;

impl Service for Yes {
    async fn list(&self, _: ListParams) -> Result<ListResult, RpcError> {
        Ok(ListResult { servers: Vec::new() })
    }

    async fn status(&self, params: StatusParams) -> Result<StatusResult, RpcError> {
        Err(RpcError::server_not_found(&params.name))
    }

    async fn start(&self, _: OperationParams) -> Result<StartResult, RpcError> {
        Ok(StartResult::default())
    }

    async fn stop(&self, _: OperationParams) -> Result<StopResult, RpcError> {
        Ok(StopResult::default())
    }

    async fn restart(&self, _: OperationParams) -> Result<RestartResult, RpcError> {
        Ok(RestartResult { restarted: Vec::new(), failed: Vec::new() })
    }

    async fn pause(&self, _: OperationParams) -> Result<PauseResult, RpcError> {
        Ok(PauseResult { paused: Vec::new(), failed: Vec::new() })
    }

    async fn resume(&self, _: OperationParams) -> Result<ResumeResult, RpcError> {
        Ok(ResumeResult { resumed: Vec::new(), failed: Vec::new() })
    }

    async fn signal(&self, _: SignalParams) -> Result<SignalResult, RpcError> {
        Ok(SignalResult { signaled: Vec::new(), failed: Vec::new() })
    }

    async fn reload(&self, _: ReloadParams) -> Result<ReloadResult, RpcError> {
        Err(RpcError::new(ErrorKind::Unsupported, "there is no configuration"))
    }

    async fn logs(&self, params: LogsParams) -> Result<Box<dyn Subscription>, RpcError> {
        let line = LogLine {
            name: params.name,
            stream: LogStream::Out,
            number: params.tail.unwrap_or(0),
            line: "a \u{1b}[2J line".to_owned(),
            line_base64: None,
            ts_unix_ms: 0,
            partial: false,
        };
        Ok(Box::new(Said(vec![Notification::Log(line)])))
    }

    async fn events(&self, params: EventsParams) -> Result<Box<dyn Subscription>, RpcError> {
        let first = params.from.unwrap_or(0);
        Ok(Box::new(Said(vec![Notification::EventGap(Gap { first, last: first })])))
    }

    async fn version(&self, _: VersionParams) -> Result<VersionResult, RpcError> {
        Ok(VersionResult {
            version: "1.2.3".to_owned(),
            protocol: 1,
            program: None,
            pid: 7,
            started_at_unix_ms: 8,
            diagnostics: None,
        })
    }

    async fn shutdown(&self, _: ShutdownParams) -> Result<ShutdownResult, RpcError> {
        Ok(ShutdownResult { stopping: true })
    }

    async fn upgrade(&self, _: UpgradeParams) -> Result<UpgradeResult, RpcError> {
        Ok(UpgradeResult { from: "0.1.0".to_owned(), to: "0.2.0".to_owned() })
    }
}

/// Says this once.
struct Said(Vec<Notification>);

impl Subscription for Said {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<Notification>>> + Send + '_>> {
        let said = std::mem::take(&mut self.0);
        Box::pin(async move { (!said.is_empty()).then_some(said) })
    }
}
