//! A server with a scripted service in a temporary directory, and a raw connection to it.

use std::future::{Future, pending};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use xy_daemon::client::Client;
use xy_daemon::http::plane::HttpPlane;
use xy_daemon::operations::{MOST, OperationTable};
use xy_daemon::permission::gate::Gate;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{
    Event, EventsParams, Failed, Gap, ListParams, ListResult, LogLine, LogStream, LogsParams, Notification,
    OperationParams, PauseResult, ReloadParams, ReloadResult, RestartResult, ResumeResult, ServerSummary,
    ShutdownParams, ShutdownResult, SignalParams, SignalResult, StartResult, State, StatusParams,
    StatusResult, StopResult, Targets, UpgradeParams, UpgradeResult, VersionParams, VersionResult, Wanted,
};
use xy_daemon::rpc::{Service, Subscription, serve};
use xy_daemon::socket::Listener;

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Fails the test if `future` takes too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

/// Lets this process open as many files as the system permits; the usual limit is below what some tests need.
pub(crate) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it can be asked");
    let wanted = hard.min(8192);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("up to the hard limit it can be raised");
    }
}

/// Answers by script: the server's name says what happens.
#[derive(Debug)]
pub(crate) struct Script {
    /// How often `list` was called.
    pub(crate) lists: AtomicUsize,
    /// How many `status` of `slow` are waiting.
    pub(crate) waiting: AtomicUsize,
    /// How many `status` of `slow` were let go.
    pub(crate) done: AtomicUsize,
    /// Lets one `status` of `slow` go per permit.
    pub(crate) gate: Semaphore,
    /// The number of the last line that the flood has made.
    pub(crate) flooded: AtomicU64,
    /// How many sources of notifications exist.
    pub(crate) sources: AtomicUsize,
    /// Told after each change of the numbers above.
    pub(crate) changed: Notify,
    /// HTTP, where that is served too.
    pub(crate) http: Mutex<Weak<HttpPlane>>,
    pub(crate) operations: Arc<OperationTable>,
}

impl Script {
    fn new() -> Self {
        Self {
            lists: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            flooded: AtomicU64::new(0),
            sources: AtomicUsize::new(0),
            changed: Notify::new(),
            http: Mutex::default(),
            operations: Arc::new(OperationTable::new("8".to_owned(), MOST)),
        }
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        within(what, async {
            loop {
                let changed = self.changed.notified();
                if condition(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    fn count(&self, number: &AtomicUsize) {
        number.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

pub(crate) fn summary(name: &str) -> ServerSummary {
    ServerSummary {
        name: name.to_owned(),
        group: false,
        state: State::Running,
        ready: true,
        unproven: false,
        wanted: Wanted::Up,
        paused: false,
        pid: Some(42),
        port: Some(8421),
        uptime_secs: Some(3),
        restart_count: 0,
        last_exit: None,
        next: None,
        tags: Vec::new(),
    }
}

fn names(targets: Targets) -> Vec<String> {
    match targets {
        Targets::Names(names) => names,
        Targets::All => vec!["all".to_owned()],
    }
}

/// The service that follows a script.
#[derive(Debug)]
pub(crate) struct Scripted(Arc<Script>, Option<Gate>);

impl Service for Scripted {
    fn gate(&self) -> Option<&Gate> {
        self.1.as_ref()
    }

    fn operations(&self) -> Option<Arc<OperationTable>> {
        Some(Arc::clone(&self.0.operations))
    }

    fn http(&self) -> Option<Arc<HttpPlane>> {
        self.0.http.lock().expect("no test panics with it").upgrade()
    }

    async fn list(&self, _: ListParams) -> Result<ListResult, RpcError> {
        self.0.count(&self.0.lists);
        Ok(ListResult { servers: vec![summary("files")] })
    }

    async fn status(&self, params: StatusParams) -> Result<StatusResult, RpcError> {
        match params.name.as_str() {
            "missing" => return Err(RpcError::server_not_found("missing")),
            "panic" => panic!("scripted"),
            "slow" => {
                self.0.count(&self.0.waiting);
                self.0.gate.acquire().await.expect("never closed").forget();
                self.0.count(&self.0.done);
            }
            _ => {}
        }
        let stderr_tail = match params.name.as_str() {
            "large" => vec!["x".repeat(2 << 20)],
            "long" => vec!["x".repeat(1_000_000)],
            _ => Vec::new(),
        };
        Ok(StatusResult {
            summary: summary(&params.name),
            incarnation: 1,
            transitions: Vec::new(),
            children: Vec::new(),
            log_path: None,
            stderr_tail,
            config_error: None,
        })
    }

    async fn start(&self, params: OperationParams) -> Result<StartResult, RpcError> {
        Ok(StartResult { started: names(params.targets), ..StartResult::default() })
    }

    async fn stop(&self, params: OperationParams) -> Result<StopResult, RpcError> {
        Ok(StopResult { stopped: names(params.targets), ..StopResult::default() })
    }

    async fn restart(&self, params: OperationParams) -> Result<RestartResult, RpcError> {
        let failed = names(params.targets).into_iter().map(|name| Failed {
            name,
            kind: ErrorKind::ServerNotFound,
            message: "no such server".to_owned(),
        });
        Ok(RestartResult { restarted: Vec::new(), failed: failed.collect() })
    }

    async fn pause(&self, params: OperationParams) -> Result<PauseResult, RpcError> {
        Ok(PauseResult { paused: names(params.targets), failed: Vec::new() })
    }

    async fn resume(&self, params: OperationParams) -> Result<ResumeResult, RpcError> {
        Ok(ResumeResult { resumed: names(params.targets), failed: Vec::new() })
    }

    async fn signal(&self, params: SignalParams) -> Result<SignalResult, RpcError> {
        Ok(SignalResult { signaled: names(params.targets), failed: Vec::new() })
    }

    async fn reload(&self, _: ReloadParams) -> Result<ReloadResult, RpcError> {
        Err(RpcError::new(ErrorKind::Unsupported, "there is no configuration"))
    }

    async fn logs(&self, params: LogsParams) -> Result<Box<dyn Subscription>, RpcError> {
        if params.name == "missing" {
            return Err(RpcError::server_not_found("missing"));
        }
        self.0.count(&self.0.sources);
        let script = Arc::clone(&self.0);
        Ok(Box::new(Source { name: params.name, number: params.tail.unwrap_or(0), script }))
    }

    async fn events(&self, params: EventsParams) -> Result<Box<dyn Subscription>, RpcError> {
        let seen = match params.after {
            None => params.from.unwrap_or(0).saturating_sub(1),
            Some(id) => match id.as_str() {
                "8-1" => 1,
                "8-2" => 2,
                "8-3" => 3,
                _ => return Err(RpcError::invalid_parameter("after", "is not known")),
            },
        };
        self.0.count(&self.0.sources);
        let script = Arc::clone(&self.0);
        Ok(Box::new(Source { name: "events".to_owned(), number: seen, script }))
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

/// What a scripted server says.
#[derive(Debug)]
struct Source {
    name: String,
    number: u64,
    script: Arc<Script>,
}

impl Source {
    fn line(&mut self, text: impl Into<String>) -> Notification {
        self.number += 1;
        Notification::Log(LogLine {
            name: self.name.clone(),
            stream: LogStream::Out,
            line: text.into(),
            line_base64: None,
            ts_unix_ms: 5,
            number: self.number,
            partial: false,
        })
    }

    fn event(&mut self) -> Notification {
        self.number += 1;
        Notification::Event(Event {
            version: Event::VERSION,
            id: format!("8-{}", self.number),
            seq: self.number,
            at_unix_ms: 5,
            path: "files".to_owned(),
            incarnation: Some(1),
            event_type: "ready".to_owned(),
            payload: serde_json::Map::new(),
        })
    }
}

impl Subscription for Source {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<Notification>>> + Send + '_>> {
        Box::pin(async move {
            match self.name.as_str() {
                "quiet" => pending().await,
                "panic" => panic!("scripted"),
                "flood" | "torrent" => {
                    let (lines, length) = if self.name == "flood" { (100, 1000) } else { (4, 64 << 10) };
                    let batch = (0..lines).map(|_| self.line("x".repeat(length))).collect();
                    self.script.flooded.store(self.number, Ordering::SeqCst);
                    self.script.changed.notify_waiters();
                    // A real source awaits its buffer.
                    tokio::task::yield_now().await;
                    Some(batch)
                }
                "gap" if self.number == 0 => {
                    self.number = 9;
                    Some(vec![Notification::LogGap(Gap { first: 1, last: 9 })])
                }
                "huge" if self.number == 0 => Some(vec![self.line("x".repeat(2 << 20)), self.line("next")]),
                "events" if self.number < 3 => Some(vec![self.event()]),
                "three" if self.number < 3 => Some(vec![self.line("text")]),
                _ => None,
            }
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.script.sources.fetch_sub(1, Ordering::SeqCst);
        self.script.changed.notify_waiters();
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) script: Arc<Script>,
    path: PathBuf,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// Returns a service and what it is told and tells.
pub(crate) fn scripted() -> (Arc<Script>, Arc<Scripted>) {
    let script = Arc::new(Script::new());
    (Arc::clone(&script), Arc::new(Scripted(script, None)))
}

impl Server {
    pub(crate) fn start() -> Self {
        let (script, service) = scripted();
        Self::serving(script, service)
    }

    /// Starts a server whose requests pass a gate.
    pub(crate) fn guarded(gate: Gate) -> Self {
        let script = Arc::new(Script::new());
        Self::serving(Arc::clone(&script), Arc::new(Scripted(script, Some(gate))))
    }

    fn serving(script: Arc<Script>, service: Arc<Scripted>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("run/xyd.sock");
        let listener = Listener::bind(&path).expect("a free path");
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(serve(listener, service, async move { stopped.notified().await }));
        Self { script, path, stop, task, _directory: directory }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn raw(&self) -> Raw {
        let stream = UnixStream::connect(&self.path).await.expect("the server listens");
        let (reader, writer) = stream.into_split();
        Raw { reader, writer: Some(writer), buffer: Vec::new() }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.path).await.expect("the server listens")
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.notify_one();
        within("the end of the server", self.task).await.expect("the server does not panic");
    }
}

/// A connection that sends and receives text.
#[derive(Debug)]
pub(crate) struct Raw {
    reader: OwnedReadHalf,
    writer: Option<OwnedWriteHalf>,
    buffer: Vec<u8>,
}

impl Raw {
    /// Sends bytes as they are; fails only if the other side is gone.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let writer = self.writer.as_mut().expect("the writing side is open");
        within("sending", writer.write_all(bytes)).await
    }

    /// Sends one line.
    pub(crate) async fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes()).await.expect("the server reads");
    }

    /// Closes the writing side.
    pub(crate) fn finish(&mut self) {
        self.writer = None;
    }

    /// Receives one line; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        within("receiving", async {
            loop {
                if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let rest = self.buffer.split_off(end + 1);
                    let mut line = std::mem::replace(&mut self.buffer, rest);
                    line.pop();
                    return Some(String::from_utf8(line).expect("text"));
                }
                // A reset is how the system tells that the other side closed with bytes unread.
                if self.reader.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    assert!(self.buffer.is_empty(), "half a line: {}", String::from_utf8_lossy(&self.buffer));
                    return None;
                }
            }
        })
        .await
    }

    /// Receives one message.
    pub(crate) async fn message(&mut self) -> Value {
        let line = self.line().await.expect("a message");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends a line and receives a message.
    pub(crate) async fn ask(&mut self, line: &str) -> Value {
        self.send(line).await;
        self.message().await
    }

    /// Asserts that the connection still serves and that nothing else was sent before.
    pub(crate) async fn assert_alive(&mut self) {
        let answer = self.ask(r#"{"jsonrpc":"2.0","id":"alive","method":"version"}"#).await;
        assert_eq!(answer["id"], "alive", "{answer}");
        assert_eq!(answer["result"]["version"], "1.2.3", "{answer}");
    }
}
