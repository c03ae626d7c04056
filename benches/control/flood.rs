//! What an honest client waits for while thousands of connections misbehave, on the socket and over HTTP.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use crate::daemon::{Daemon, Line, TOKEN, pause};
use crate::figures::{percentile, summary};

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

/// What must hold of everybody else while the flood is there.
#[derive(Clone, Copy)]
struct Target {
    /// Of an honest client's waits, at the 99th percentile.
    wait: Duration,
    /// Of the daemon's memory, in MB.
    memory: u64,
}

const TARGET: Target = Target { wait: Duration::from_millis(50), memory: 128 };

/// Floods one surface after the other; returns whether each target was met.
pub(crate) fn run(daemon: &Daemon, connections: usize) -> bool {
    let mut is_met = true;
    // The first change opens files that stay open.
    let mut line = Line::connect(&daemon.socket()).expect("it listens");
    assert!(operate(&mut line, "pause", "s0") && operate(&mut line, "resume", "s0"), "{}", daemon.said());
    drop(line);
    for (name, surface) in
        [("socket", Surface::Socket(daemon.socket())), ("http", Surface::Http(daemon.http()))]
    {
        let (memory, descriptors) = (daemon.memory("VmRSS"), daemon.descriptors());
        println!(
            "{name}: {connections} connections, {SLOW_READERS} read nothing, {HALF_OPEN} send half a request"
        );
        println!("  before   RSS {:>5} MB, {descriptors} descriptors", memory >> 10);
        let witness = Witness::begin(daemon);
        let (seen, opened, most) = flood(daemon, &surface, connections);
        let (made, heard) = witness.end();
        let p99 = percentile(&seen.times, 0.99);
        println!("  honest   {}, connected anew {} times", summary(seen.times), seen.closed);
        let peak = daemon.memory("VmHWM") >> 10;
        println!("  opened   {opened}; at most {most} descriptors, RSS peak {peak:>5} MB");
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon.descriptors() > descriptors && Instant::now() < deadline {
            pause(Duration::from_millis(100));
        }
        let (left, running) = (daemon.descriptors(), daemon.running().unwrap_or(0));
        println!(
            "  after    RSS {:>5} MB, {left} descriptors, {running} servers",
            daemon.memory("VmRSS") >> 10
        );
        println!("  events   {made} made meanwhile, {heard} heard by one subscriber, in order");
        let met = [
            ("the honest client", p99 <= TARGET.wait),
            ("memory", peak <= TARGET.memory),
            ("connections", opened == connections),
            ("descriptors", left <= descriptors),
            ("servers", running == daemon.servers),
            ("events", made == heard),
        ];
        for (what, _) in met.iter().filter(|(_, is_met)| !is_met) {
            println!("  MISSED   {what}");
            is_met = false;
        }
    }
    is_met
}

/// Makes events while the flood is there, and hears all of them or none.
struct Witness {
    operator: JoinHandle<usize>,
    subscriber: JoinHandle<usize>,
    over: Arc<AtomicBool>,
}

impl Witness {
    fn begin(daemon: &Daemon) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut line = Line::connect(&daemon.socket()).expect("it listens");
        line.ask(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events\",\"params\":{\"follow\":true}}\n")
            .expect("subscribed");
        let subscriber = thread::spawn(move || {
            let (mut heard, mut last) = (0, None);
            while let Some(event) = line.receive() {
                let text = String::from_utf8_lossy(&event);
                let number = text.split_once("\"seq\":").expect("no gap").1;
                let number: u64 =
                    number.split([',', '}']).next().and_then(|text| text.parse().ok()).expect("a number");
                assert!(last.is_none_or(|last| last + 1 == number), "{last:?}, then {text}");
                last = Some(number);
                heard += usize::from(text.contains("_paused\"") || text.contains("_resumed\""));
                if text.contains("\"path\":\"s1\"") {
                    break;
                }
            }
            heard
        });
        let operator = thread::spawn({
            let (path, over) = (daemon.socket(), Arc::clone(&over));
            move || {
                let mut line = Line::connect(&path).expect("it listens");
                let mut made = 0;
                while !over.load(Ordering::Relaxed) {
                    for method in ["pause", "resume"] {
                        made += usize::from(operate(&mut line, method, "s0"));
                    }
                    pause(Duration::from_millis(20));
                }
                // The subscriber goes when it hears of another server.
                made += usize::from(operate(&mut line, "pause", "s1"));
                operate(&mut line, "resume", "s1");
                made
            }
        });
        Self { operator, subscriber, over }
    }

    /// Returns how many events were made and how many of them heard.
    fn end(self) -> (usize, usize) {
        self.over.store(true, Ordering::Relaxed);
        (self.operator.join().expect("no panic"), self.subscriber.join().expect("no panic"))
    }
}

/// Whether it was done.
fn operate(line: &mut Line, method: &str, server: &str) -> bool {
    let request = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{{\"names\":[\"{server}\"]}}}}\n"
    );
    let answer = line.ask(request.as_bytes()).expect("an answer");
    String::from_utf8_lossy(&answer).contains("\"failed\":[]")
}

fn flood(daemon: &Daemon, surface: &Surface, connections: usize) -> (Seen, usize, usize) {
    let over = Arc::new(AtomicBool::new(false));
    let honest = thread::spawn({
        let (surface, over) = (surface.clone(), Arc::clone(&over));
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(be_honest(&surface, &over))
        }
    });
    // In a process of its own and with less of the processor, so that what the flood itself costs is not taken for what
    // the daemon does under it.
    let place = match surface {
        Surface::Socket(path) => path.display().to_string(),
        Surface::Http(address) => address.to_string(),
    };
    let mut child = Command::new("nice")
        .args(["-n", "10"])
        .arg(std::env::current_exe().expect("known"))
        .args(["flooders", &place, &connections.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run");
    let is_open = Arc::new(AtomicUsize::new(0));
    let opened = thread::spawn({
        let (output, is_open) = (child.stdout.take().expect("piped"), Arc::clone(&is_open));
        move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).expect("it says how many it has opened");
            is_open.store(line.trim().parse().expect("a number"), Ordering::Relaxed);
        }
    });
    let (mut most, mut until) = (0, None);
    while until.is_none_or(|until| Instant::now() < until) {
        if until.is_none() && is_open.load(Ordering::Relaxed) > 0 {
            until = Some(Instant::now() + STAYS);
        }
        most = most.max(daemon.descriptors());
        pause(Duration::from_millis(50));
    }
    opened.join().expect("no panic");
    // The end of its input ends it.
    drop(child.stdin.take());
    child.wait().expect("it ends");
    over.store(true, Ordering::Relaxed);
    (honest.join().expect("no panic"), is_open.load(Ordering::Relaxed), most)
}

/// Opens connections at `place`, says how many, and leaves them open until the input ends.
pub(crate) fn be_flooders(place: &str, connections: usize) {
    let surface = match place.parse() {
        Ok(address) => Surface::Http(address),
        Err(_) => Surface::Socket(place.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut tasks = Vec::with_capacity(connections);
        let opened = Arc::new(Semaphore::new(0));
        for index in 0..connections {
            let (surface, opened) = (surface.clone(), Arc::clone(&opened));
            tasks.push(tokio::spawn(async move {
                // A full backlog is the moment's; the flood insists.
                let mut stream = loop {
                    match surface.connect().await {
                        Ok(stream) => break stream,
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                };
                opened.add_permits(1);
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
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let count = u32::try_from(connections).expect("fewer connections");
        _ = opened.acquire_many(count).await;
    });
    println!("{connections}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("the input ends");
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
