//! What an honest client waits for while thousands of connections misbehave, on the socket and over HTTP.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::daemon::{Daemon, TOKEN};
use crate::figures::summary;

/// Connections that ask for much and read nothing of it.
const SLOW_READERS: usize = 1_000;

/// Connections that send half a request.
const HALF_OPEN: usize = 1_000;

/// How long the flood stays once it is there: longer than a stalled write and a half-sent request are tolerated.
const STAYS: Duration = Duration::from_secs(15);

/// The pause of the honest client between two requests.
const PACE: Duration = Duration::from_millis(5);

/// What both kinds of connection are.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where to connect, and what to say there.
#[derive(Clone)]
enum Surface {
    Socket(PathBuf),
    Http(std::net::SocketAddr),
}

impl Surface {
    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Self::Http(address) => Box::new(TcpStream::connect(address).await?),
        })
    }

    fn request(&self, method: &str, path: &str) -> Vec<u8> {
        match self {
            Self::Socket(_) => {
                format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\"}}\n").into_bytes()
            }
            Self::Http(address) => {
                format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
                    .into_bytes()
            }
        }
    }

    /// A small question.
    fn honest(&self) -> Vec<u8> {
        self.request("version", "/v1/health")
    }

    /// A question with a long answer.
    fn greedy(&self) -> Vec<u8> {
        self.request("list", "/v1/servers").repeat(16)
    }

    /// Asks once and waits for the whole answer, which is short and arrives in one piece.
    async fn ask(&self, stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        stream.write_all(&self.honest()).await?;
        buffer.clear();
        loop {
            if stream.read_buf(buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let is_whole = match self {
                Self::Socket(_) => buffer.ends_with(b"\n"),
                Self::Http(_) => buffer.ends_with(b"}") || buffer.ends_with(b"}\n"),
            };
            if is_whole {
                return Ok(());
            }
        }
    }
}

/// What an honest client has seen.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    /// How often its connection was closed or refused, and it connected anew.
    closed: usize,
}

pub(crate) fn run(daemon: &Daemon, connections: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for (name, surface) in
        [("socket", Surface::Socket(daemon.socket())), ("http", Surface::Http(daemon.http()))]
    {
        let (memory, descriptors) = (daemon.memory("VmRSS"), daemon.descriptors());
        println!(
            "{name}: {connections} connections, {SLOW_READERS} read nothing, {HALF_OPEN} send half a request"
        );
        println!("  before   RSS {:>5} MB, {descriptors} descriptors", memory >> 10);
        let (seen, opened, most) = runtime.block_on(flood(daemon, &surface, connections));
        println!("  honest   {}, connected anew {} times", summary(seen.times), seen.closed);
        println!(
            "  opened   {opened}; at most {most} descriptors, RSS peak {:>5} MB",
            daemon.memory("VmHWM") >> 10
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon.descriptors() > descriptors + 2 && Instant::now() < deadline {
            super::daemon::pause(Duration::from_millis(100));
        }
        println!(
            "  after    RSS {:>5} MB, {} descriptors",
            daemon.memory("VmRSS") >> 10,
            daemon.descriptors()
        );
    }
}

async fn flood(daemon: &Daemon, surface: &Surface, connections: usize) -> (Seen, usize, usize) {
    let over = Arc::new(AtomicBool::new(false));
    // On a thread of its own, so that it does not wait for the flood's client.
    let honest = std::thread::spawn({
        let (surface, over) = (surface.clone(), Arc::clone(&over));
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(be_honest(&surface, &over))
        }
    });
    let opened = Arc::new(AtomicUsize::new(0));
    let mut most = 0;
    let mut tasks = VecDeque::new();
    for index in 0..connections {
        let (surface, opened) = (surface.clone(), Arc::clone(&opened));
        tasks.push_back(tokio::spawn(async move {
            // A full backlog is the moment's; the flood insists.
            let mut stream = loop {
                match surface.connect().await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            opened.fetch_add(1, Ordering::Relaxed);
            let kind = index % connections.div_ceil(SLOW_READERS).max(1);
            if kind == 0 {
                // The write stops when nothing is read any more.
                _ = stream.write_all(&surface.greedy()).await;
            } else if kind == 1 && index / connections.div_ceil(HALF_OPEN).max(1) < HALF_OPEN {
                _ = stream.write_all(&surface.honest()[..20]).await;
            }
            std::future::pending::<()>().await;
        }));
        if index % 64 == 0 {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            most = most.max(daemon.descriptors());
        }
    }
    let until = Instant::now() + STAYS;
    while Instant::now() < until {
        most = most.max(daemon.descriptors());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        _ = task.await;
    }
    over.store(true, Ordering::Relaxed);
    let seen = honest.join().expect("no panic");
    (seen, opened.load(Ordering::Relaxed), most)
}

async fn be_honest(surface: &Surface, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let (mut stream, mut buffer) = (None, Vec::new());
    while !over.load(Ordering::Relaxed) {
        // From before a connection, if one is needed: that is what its user waits for.
        let began = Instant::now();
        loop {
            if stream.is_none() {
                stream = surface.connect().await.ok();
            }
            if let Some(open) = &mut stream
                && surface.ask(open, &mut buffer).await.is_ok()
            {
                break;
            }
            stream = None;
            seen.closed += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        seen.times.push(began.elapsed());
        tokio::time::sleep(PACE).await;
    }
    seen
}
