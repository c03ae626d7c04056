//! A server with a scripted service in a temporary directory, and raw connections to it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use xy_daemon::http::connection_file::{CONNECTION_FILE, Connection};
use xy_daemon::http::credentials::{Credentials, TokenOptions};
use xy_daemon::http::{Limits, Listener, serve};

use super::script::{Script, scripted, within};

/// A running server.
pub(crate) struct Server {
    pub(crate) script: Arc<Script>,
    pub(crate) address: SocketAddr,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) directory: tempfile::TempDir,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = "127.0.0.1:0".parse().expect("an address");
        let token = TokenOptions::default();
        let listener = Listener::bind(address, &token, directory.path(), limits).await.expect("a free port");
        let address = listener.base_url()["http://".len()..].parse().expect("an address");
        let credentials = listener.credentials();
        let (script, service) = scripted();
        *script.http.lock().expect("it is new") = Arc::downgrade(&listener.plane());
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(serve(listener, service, async move { stopped.notified().await }));
        Self { script, address, credentials, directory, stop, task }
    }

    pub(crate) fn token(&self) -> String {
        let path = self.directory.path().join(CONNECTION_FILE);
        Connection::read(&path).expect("the server runs").token.expose().to_owned()
    }

    /// The head lines that every good request has.
    pub(crate) fn headers(&self) -> String {
        format!("Host: {}\r\nAuthorization: Bearer {}\r\n", self.address, self.token())
    }

    /// Returns a good request; `more` are head lines.
    pub(crate) fn text(&self, method: &str, target: &str, more: &str, body: &str) -> String {
        let length = match method {
            "GET" => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        format!("{method} {target} HTTP/1.1\r\n{}{length}{more}\r\n{body}", self.headers())
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(&self.text("GET", target, "", "")).await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        self.send(&self.text("POST", target, "", body)).await
    }

    /// Sends a text on a connection of its own and returns the first answer.
    pub(crate) async fn send(&self, text: impl AsRef<[u8]>) -> Answer {
        let mut wire = self.connect().await;
        wire.send(text).await;
        wire.answer().await
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stop.notify_one();
        within("the end of the server", self.task).await.expect("the server does not panic");
        self.directory
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the kind of a refusal.
    pub(crate) fn kind(&self) -> String {
        self.json()["error"]["kind"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection that sends and receives bytes.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("it listens");
        Self { stream, buffer: Vec::new() }
    }

    /// A connection for which the system keeps little that is not read.
    pub(crate) async fn deaf(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("a size");
        let stream = within("connecting", socket.connect(address)).await.expect("it listens");
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has refused the request already may have closed the connection.
        _ = within("sending", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Receives until there is `end` and returns everything up to it; `None` if the connection ends before.
    async fn until(&mut self, end: &[u8]) -> Option<String> {
        within("receiving", async {
            loop {
                if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                    let rest = self.buffer.split_off(at + end.len());
                    let text = std::mem::replace(&mut self.buffer, rest);
                    return Some(String::from_utf8(text).expect("text"));
                }
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
    }

    async fn exactly(&mut self, length: usize) -> Option<String> {
        within("receiving", async {
            while self.buffer.len() < length {
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
            let rest = self.buffer.split_off(length);
            let text = std::mem::replace(&mut self.buffer, rest);
            Some(String::from_utf8(text).expect("text"))
        })
        .await
    }

    /// Receives the head of an answer.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let head = self.until(b"\r\n\r\n").await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Some(Answer { status, head, body: String::new() })
    }

    /// Receives a whole answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await.expect("an answer");
        answer.body = match answer.header("content-length") {
            Some(length) => self.exactly(length.parse().expect("a number")).await.expect("the whole body"),
            None => {
                let mut body = String::new();
                if answer.header("transfer-encoding").is_some() {
                    while let Some(chunk) = self.chunk().await {
                        body.push_str(&chunk);
                    }
                }
                body
            }
        };
        answer
    }

    /// Receives one chunk of a body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let length = self.until(b"\r\n").await?;
        let length = usize::from_str_radix(length.trim(), 16).expect("a length");
        let mut chunk = self.exactly(length + 2).await?;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// Sends no more.
    pub(crate) async fn finish(&mut self) {
        // The other side may have closed already.
        _ = self.stream.shutdown().await;
    }

    /// Waits for the end of the connection and returns what came before it.
    pub(crate) async fn rest(&mut self) -> String {
        within("the end of the connection", async {
            while self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0 {}
        })
        .await;
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }
}

/// A stream of events.
pub(crate) struct Events {
    wire: Wire,
    text: String,
}

/// One event of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct StreamEvent {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Events {
    /// Asks for a stream; `more` are head lines.
    pub(crate) async fn open(server: &Server, target: &str, more: &str) -> Self {
        let mut wire = server.connect().await;
        wire.send(server.text("GET", target, more, "")).await;
        let head = wire.head().await.expect("an answer");
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("cache-control"), Some("no-store"));
        Self { wire, text: String::new() }
    }

    /// Receives the text of the next event or comment; `None` at the end of the stream.
    pub(crate) async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let chunk = self.wire.chunk().await?;
            self.text.push_str(&chunk);
        }
    }

    /// Receives the next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<StreamEvent> {
        // Comments come for ever, each well within its time.
        within("an event", self.next_event()).await
    }

    async fn next_event(&mut self) -> Option<StreamEvent> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                continue;
            }
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
            };
            let data = field("data").expect("data");
            return Some(StreamEvent {
                name: field("event").expect("a name"),
                id: field("id"),
                data: serde_json::from_str(&data).expect("JSON"),
            });
        }
    }

    /// Receives the names and ids of all events until the stream ends.
    pub(crate) async fn all(&mut self) -> Vec<(String, Option<String>)> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push((event.name, event.id));
        }
        all
    }
}
