//! A server that does what its command line says, for tests of the daemon.
//!
//! Each argument, or several, is one step; the steps run in order, and the program ends with code 0 after the last.
//!
//! | step | does |
//! |---|---|
//! | `exit CODE` | ends with this code |
//! | `ignore-term` | lets SIGTERM pass by from here on |
//! | `sleep-forever` | waits until it is killed (ten minutes at most, then exit code 98) |
//! | `lines COUNT` | writes `line 0` to `line COUNT-1` |
//! | `touch PATH` | creates a file |
//! | `dial PATH TEXT` | writes a line to a socket and prints what comes back until its end |
//! | `read PATH` | prints a file |
//! | `notify-until PATH TEXT` | sends a datagram every 100 ms until a file exists |
//! | `newline DESCRIPTOR` | writes a newline to a descriptor that it was given |
//! | `wait-for PATH` | waits until a file exists |
//! | `alone PATH` | holds a lock on the file for life and adds a line to it; if another process holds it, adds a line to `PATH.doubled` and ends with code 97 |
//! | `notify TEXT` | sends a datagram to `$NOTIFY_SOCKET` |
//! | `serve PORT` | listens on 127.0.0.1 and answers each request with 200 and its pid, until it is killed |
//! | `mcp PORT` | is an MCP server of the older era on 127.0.0.1, with one tool, one prompt and one resource |
//! | `chatter MILLISECONDS` | writes a line that often until it is killed |
//! | `count LINES MILLISECONDS` | writes `line 0` to `line LINES-1` to both streams, and rests so long after every 20 |
//! | `until-child-ends` | waits for the end of any child it has started, then ends with code 96 |
//! | `clear-env` | goes on as the same program without environment |
//! | `setsid` | leads a session of its own from here on |
//! | `spawn COUNT STEPS..` | starts a child with the next COUNT arguments as its steps, and goes on |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut steps = std::env::args().skip(1);
    while let Some(step) = steps.next() {
        match run(&step, &mut steps) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => {
                eprintln!("xy-testserver: {step}: {error}");
                return ExitCode::from(99);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Performs one step; `Some` ends the program with this code.
fn run(step: &str, steps: &mut impl Iterator<Item = String>) -> io::Result<Option<u8>> {
    let mut text = || steps.next().ok_or_else(|| io::Error::other("an argument is missing"));
    match step {
        "exit" => return Ok(Some(number(&text()?)?)),
        "ignore-term" => {
            // A blocked signal stays pending for ever, which to the sender is the same as an ignored one.
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGTERM);
            sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        }
        "sleep-forever" => {
            pause(Duration::from_secs(600));
            return Ok(Some(98));
        }
        "lines" => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            for line in 0..number::<u64>(&text()?)? {
                writeln!(out, "line {line}")?;
            }
            out.flush()?;
        }
        "touch" => drop(File::create(text()?)?),
        "dial" => {
            let mut stream = UnixStream::connect(text()?)?;
            // These fail where nobody reads, and then there is no answer either.
            _ = stream.write_all(format!("{}\n", text()?).as_bytes());
            _ = stream.shutdown(Shutdown::Write);
            _ = io::copy(&mut stream, &mut io::stdout());
        }
        "read" => drop(io::copy(&mut File::open(text()?)?, &mut io::stdout())?),
        "notify" => notify(&text()?)?,
        "notify-until" => {
            let (path, what) = (text()?, text()?);
            while !Path::new(&path).exists() {
                notify(&what)?;
                pause(Duration::from_millis(100));
            }
        }
        "newline" => {
            let descriptor = format!("/proc/self/fd/{}", text()?);
            OpenOptions::new().write(true).open(descriptor)?.write_all(b"\n")?;
        }
        "wait-for" => {
            let path = text()?;
            while !Path::new(&path).exists() {
                pause(Duration::from_millis(2));
            }
        }
        "alone" => {
            let path = text()?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            if file.try_lock().is_err() {
                let mut doubled = OpenOptions::new().create(true).append(true).open(path + ".doubled")?;
                writeln!(doubled, "{}", std::process::id())?;
                return Ok(Some(97));
            }
            // In one piece: whoever is killed in between leaves no half of a line for the next one to go on with.
            file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
            // Kept locked until the program ends.
            std::mem::forget(file);
        }
        "serve" => {
            let listener = TcpListener::bind(("127.0.0.1", number(&text()?)?))?;
            for stream in listener.incoming() {
                // A client that goes away ends its own connection only.
                let _ = answer(stream?);
            }
        }
        "mcp" => {
            let listener = TcpListener::bind(("127.0.0.1", number(&text()?)?))?;
            for stream in listener.incoming() {
                let _ = answer_mcp(stream?);
            }
        }
        "chatter" => {
            let pause_between = Duration::from_millis(number(&text()?)?);
            let mut out = io::stdout().lock();
            loop {
                writeln!(out, "{:-<100}", std::process::id())?;
                pause(pause_between);
            }
        }
        "count" => {
            let lines = number::<u64>(&text()?)?;
            let rest = Duration::from_millis(number(&text()?)?);
            let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
            // Asked to end, it does so at a rest: whoever counts expects each line on both streams.
            let asked = SigSet::from_iter([Signal::SIGTERM]);
            asked.thread_block()?;
            for line in 0..lines {
                writeln!(out, "line {line}")?;
                writeln!(err, "line {line}")?;
                if line % 20 == 19 {
                    asked.thread_unblock()?;
                    pause(rest);
                    asked.thread_block()?;
                }
            }
            asked.thread_unblock()?;
        }
        "until-child-ends" => {
            nix::sys::wait::wait()?;
            return Ok(Some(96));
        }
        "clear-env" => {
            let mut itself = Command::new(fs::read_link("/proc/self/exe")?);
            return Err(itself.args(steps).env_clear().exec());
        }
        "setsid" => drop(nix::unistd::setsid()?),
        "spawn" => {
            let count: usize = number(&text()?)?;
            let script = (0..count).map(|_| text()).collect::<io::Result<Vec<_>>>()?;
            Command::new(fs::read_link("/proc/self/exe")?).args(script).stdin(Stdio::null()).spawn()?;
        }
        _ => return Err(io::Error::other("unknown step")),
    }
    Ok(None)
}

fn notify(what: &str) -> io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").ok_or_else(|| io::Error::other("nobody listens"))?;
    std::os::unix::net::UnixDatagram::unbound()?.send_to(what.as_bytes(), socket).map(drop)
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("{text} is no value for this step")))
}

#[expect(clippy::disallowed_methods, reason = "this program's job is to wait")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 64 << 10 {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let body = std::process::id().to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Answers one request of an MCP client.
fn answer_mcp(mut stream: TcpStream) -> io::Result<()> {
    let mut input = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        input.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&input).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let expected = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        if body.len() >= expected.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let request: Value = serde_json::from_str(&body).unwrap_or_default();
    let params = &request["params"];
    let result = match request["method"].as_str() {
        Some("initialize") => {
            json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {}, "prompts": {}, "resources": {} } })
        }
        Some("tools/list") => json!({ "tools": [{ "name": "add", "description": "Adds two numbers." }] }),
        Some("prompts/list") => json!({ "prompts": [{ "name": "greet", "arguments": [{ "name": "who" }] }] }),
        Some("resources/list") => json!({ "resources": [{ "uri": "file:///notes", "name": "notes" }] }),
        Some("tools/call") if params["arguments"]["fail"] == true => {
            let error = json!({ "code": -32000, "message": "no numbers" });
            return send(&mut stream, &json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }));
        }
        Some("tools/call") => {
            let number = |name: &str| params["arguments"][name].as_i64().unwrap_or(0);
            let sum = number("a") + number("b");
            json!({ "content": [{ "type": "text", "text": sum.to_string() }], "isError": sum < 0 })
        }
        Some("prompts/get") => {
            let text = format!("Hello, {}!", params["arguments"]["who"].as_str().unwrap_or("nobody"));
            json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": text } }] })
        }
        Some("resources/read") => json!({ "contents": [{ "uri": params["uri"], "text": "a note\n" }] }),
        _ if head.starts_with("POST /mcp ") => {
            let error = json!({ "code": -32601, "message": "what?" });
            return send(&mut stream, &json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }));
        }
        _ => Value::Null,
    };
    send(&mut stream, &json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
}

fn send(stream: &mut TcpStream, answer: &Value) -> io::Result<()> {
    let body = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}
