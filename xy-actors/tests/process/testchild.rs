//! An operating system program that does what its command line says, for tests of process handling.
//!
//! Each argument, or several, is one step of a script; the steps run in order, and the program ends with code 0 after the
//! last. Steps that start another process hand it the rest of the line or the number of arguments they name.
//!
//! | step | does |
//! |---|---|
//! | `exit CODE` | ends with this code |
//! | `abort` | ends by SIGABRT |
//! | `signal-self NUMBER` | sends itself a signal |
//! | `sleep-forever` | waits until it is killed (ten minutes at most, then exit code 98) |
//! | `sleep MILLISECONDS` | waits |
//! | `ignore SIGNAL` | ignores a signal, by name (`TERM`) |
//! | `exit-on SIGNAL CODE` | from here on that signal ends it with this code |
//! | `print TEXT`, `print-err TEXT` | writes a line to descriptor 1 or 2 |
//! | `write COUNT` | writes the lines `line 0` to `line COUNT-1` |
//! | `flood` | writes lines until it is killed |
//! | `touch PATH` | writes its pid into a file, whole or not at all |
//! | `wait-for PATH` | waits until a file exists |
//! | `read-stdin` | prints how many bytes descriptor 0 has |
//! | `print-fds` | prints the open descriptors, `fds 0 1 2` |
//! | `print-signals` | prints blocked and ignored signals, as in `/proc/self/status` |
//! | `print-env` | prints the environment, one variable a line |
//! | `print-ids` | prints `pid P ppid P pgid G sid S cwd DIR` |
//! | `listen PORT` | listens on 127.0.0.1 (0 picks one) and prints `listening PORT` |
//! | `http PORT` | the same, and answers each request with 200 and its pid; runs until killed |
//! | `notify TEXT` | sends a datagram to `$NOTIFY_SOCKET`; a `;` stands for a newline |
//! | `notify-bytes COUNT BYTE` | sends a datagram of this many bytes |
//! | `notify-fd NUMBER TEXT` | writes a text and a newline to an open descriptor |
//! | `check PATH` | ends with code 1 and says so unless a file exists |
//! | `closed-output` | closes descriptors 1 and 2 |
//! | `clear-env` | starts itself again without environment, with the rest of the line |
//! | `fork COUNT SCRIPT..` | starts this many processes with the rest of the line, in its own group, and goes on waiting for ever |
//! | `spawn N STEPS..` | starts a child with the next N arguments as its script, in its own group, and goes on |
//! | `spawn-setsid N STEPS..` | the same, in a session of its own |
//! | `double-fork N STEPS..` | the same as a daemon: own session, parent gone |
//! | `double-fork-group N STEPS..` | the same, but in the group it came from |
//! | `daemons COUNT` | starts this many daemons that end at once |
//! | `flee COUNT` | ends, and goes on as a new process in a session of its own, this many times, then sleeps for ever |
//! | `tree COUNT` | starts this many processes, every second one a daemon of its own, all sleeping for ever |

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

fn main() -> ExitCode {
    let mut steps = Steps { rest: env::args().skip(1).collect::<Vec<_>>().into_iter() };
    while let Some(step) = steps.rest.next() {
        match run(&step, &mut steps) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => {
                eprintln!("xy-testchild: {step}: {error}");
                return ExitCode::from(99);
            }
        }
    }
    ExitCode::SUCCESS
}

struct Steps {
    rest: std::vec::IntoIter<String>,
}

impl Steps {
    fn text(&mut self) -> io::Result<String> {
        self.rest.next().ok_or_else(|| io::Error::other("an argument is missing"))
    }

    fn value<T: FromStr>(&mut self) -> io::Result<T> {
        let text = self.text()?;
        text.parse().map_err(|_| io::Error::other(format!("{text} is no value for this step")))
    }

    fn signal(&mut self) -> io::Result<Signal> {
        Ok(Signal::from_str(&format!("SIG{}", self.text()?))?)
    }

    fn script(&mut self) -> io::Result<Vec<String>> {
        let count: usize = self.value()?;
        (0..count).map(|_| self.text()).collect()
    }
}

/// Performs one step; `Some` ends the program with this code.
fn run(step: &str, steps: &mut Steps) -> io::Result<Option<u8>> {
    match step {
        "exit" => return Ok(Some(steps.value()?)),
        "abort" => std::process::abort(),
        "signal-self" => {
            let number: i32 = steps.value()?;
            nix::sys::signal::raise(Signal::try_from(number)?)?;
        }
        "sleep-forever" => sleep_forever(),
        "sleep" => pause(Duration::from_millis(steps.value()?)),
        "ignore" => {
            // A blocked signal stays pending for ever, which to the sender is the same as an ignored one, and needs no
            // unsafe code.
            let mut mask = SigSet::empty();
            mask.add(steps.signal()?);
            nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        }
        "exit-on" => exit_on(steps.signal()?, steps.value()?)?,
        "print" => say(&steps.text()?)?,
        "print-err" => writeln!(io::stderr(), "{}", steps.text()?)?,
        "write" => {
            let mut out = io::stdout().lock();
            for number in 0..steps.value::<u64>()? {
                writeln!(out, "line {number}")?;
            }
        }
        "flood" => {
            let mut out = io::stdout().lock();
            for number in 0_u64.. {
                writeln!(out, "line {number}")?;
            }
        }
        "touch" => {
            let path = steps.text()?;
            let temporary = format!("{path}.{}", std::process::id());
            fs::write(&temporary, std::process::id().to_string())?;
            fs::rename(temporary, path)?;
        }
        "wait-for" => {
            let path = steps.text()?;
            while !Path::new(&path).exists() {
                pause(Duration::from_millis(2));
            }
        }
        "read-stdin" => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes)?;
            say(&format!("stdin {}", bytes.len()))?;
        }
        "print-fds" => print_fds()?,
        "print-signals" => {
            let status = fs::read_to_string("/proc/self/status")?;
            for line in status.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"))
            {
                say(line)?;
            }
        }
        "print-env" => {
            for (key, value) in env::vars_os() {
                say(&format!("{}={}", key.to_string_lossy(), value.to_string_lossy()))?;
            }
        }
        "print-ids" => say(&format!(
            "pid {} ppid {} pgid {} sid {} cwd {}",
            Pid::this(),
            Pid::parent(),
            nix::unistd::getpgrp(),
            nix::unistd::getsid(None)?,
            env::current_dir()?.display()
        ))?,
        "listen" => {
            let listener = listen(steps.value()?)?;
            // Kept open until the program ends.
            std::mem::forget(listener);
        }
        "http" => serve(&listen(steps.value()?)?)?,
        "notify" => notify(steps.text()?.replace(';', "\n").as_bytes())?,
        "notify-bytes" => {
            let count = steps.value()?;
            notify(&vec![steps.value::<u8>()?; count])?;
        }
        "notify-fd" => {
            let path = format!("/dev/fd/{}", steps.value::<u16>()?);
            let mut file = fs::OpenOptions::new().write(true).open(path)?;
            writeln!(file, "{}", steps.text()?)?;
        }
        "check" => {
            let path = steps.text()?;
            if !Path::new(&path).exists() {
                writeln!(io::stderr(), "no {path} yet")?;
                return Ok(Some(1));
            }
        }
        "closed-output" => {
            nix::unistd::close(1)?;
            nix::unistd::close(2)?;
        }
        "clear-env" => return Err(itself(steps.rest.by_ref().collect()).env_clear().exec()),
        "fork" => {
            let count: usize = steps.value()?;
            let script: Vec<String> = steps.rest.by_ref().collect();
            for _ in 0..count {
                start(&script, Kind::Child)?;
            }
            sleep_forever();
        }
        "spawn" => start(&steps.script()?, Kind::Child)?,
        "spawn-setsid" => start(&steps.script()?, Kind::Session)?,
        "double-fork" => start(&steps.script()?, Kind::Daemon)?,
        "double-fork-group" => start(&steps.script()?, Kind::GroupOrphan)?,
        "daemons" => {
            for _ in 0..steps.value::<usize>()? {
                start(&[], Kind::Daemon)?;
            }
        }
        "flee" => {
            let count: u64 = steps.value()?;
            if count == 0 {
                sleep_forever();
            }
            start(&["flee".to_owned(), (count - 1).to_string()], Kind::Session)?;
            return Ok(Some(0));
        }
        "tree" => {
            for number in 0..steps.value::<usize>()? {
                let kind = if number % 2 == 0 { Kind::Child } else { Kind::Daemon };
                start(&["sleep-forever".to_owned()], kind)?;
            }
        }
        // The middle process of a double fork: its own child outlives it.
        "setsid" => drop(nix::unistd::setsid()?),
        _ => return Err(io::Error::other("unknown step")),
    }
    Ok(None)
}

#[derive(Clone, Copy)]
enum Kind {
    Child,
    Session,
    Daemon,
    GroupOrphan,
}

fn itself(script: Vec<String>) -> Command {
    let mut command = Command::new(env::current_exe().unwrap_or_else(|_| "xy-testchild".into()));
    command.args(script);
    command
}

fn start(script: &[String], kind: Kind) -> io::Result<()> {
    let inner = || -> Vec<String> {
        ["spawn".to_owned(), script.len().to_string()].into_iter().chain(script.iter().cloned()).collect()
    };
    let (script, is_waited_for) = match kind {
        Kind::Child => (script.to_vec(), false),
        Kind::Session => (prefixed("setsid", script.to_vec()), false),
        Kind::Daemon => (prefixed("setsid", inner()), true),
        Kind::GroupOrphan => (inner(), true),
    };
    let mut child = itself(script).stdin(Stdio::null()).spawn()?;
    if is_waited_for {
        child.wait()?;
    }
    Ok(())
}

fn prefixed(step: &str, mut script: Vec<String>) -> Vec<String> {
    script.insert(0, step.to_owned());
    script
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn notify(datagram: &[u8]) -> io::Result<()> {
    let socket = env::var_os("NOTIFY_SOCKET").ok_or_else(|| io::Error::other("there is no NOTIFY_SOCKET"))?;
    let sender = UnixDatagram::unbound()?;
    match socket.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => sender.send_to_addr(datagram, &SocketAddr::from_abstract_name(name)?).map(drop),
        None => sender.send_to(datagram, socket).map(drop),
    }
}

fn print_fds() -> io::Result<()> {
    // Collected first: the directory itself is open while it is read.
    let mut fds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_itself = fs::read_link(entry.path()).is_ok_and(|target| target.ends_with("fd"));
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && !is_itself
        {
            fds.push(number);
        }
    }
    fds.sort_unstable();
    let fds: Vec<String> = fds.iter().map(u32::to_string).collect();
    say(&format!("fds {}", fds.join(" ")))
}

fn exit_on(signal: Signal, code: u8) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(signal);
    // Blocked before the thread exists, so that only the thread takes it.
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    std::thread::spawn(move || {
        if mask.wait().is_ok() {
            end(code);
        }
    });
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "ends the program from a thread that is not main's, or deep in a step"
)]
fn end(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

#[expect(clippy::disallowed_methods, reason = "this program's job is to wait")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A test takes seconds, so for ever is ten minutes: what a broken test leaves behind goes away by itself.
fn sleep_forever() -> ! {
    pause(Duration::from_secs(600));
    end(98)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    say(&format!("listening {}", listener.local_addr()?.port()))?;
    Ok(listener)
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        // A client that goes away ends its own connection only.
        let _ = answer(stream?);
    }
    Ok(())
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
