//! When a process counts as ready: the probes, and the loop that repeats them until one succeeds.
//!
//! A probe goes from cheap to dear. First the kernel is asked who listens on the port, which disturbs nobody; only when
//! the child's own processes do is a connection made, and only to a loopback address that leads to them. After a success
//! the owner is checked again, so that a child which lost its port meanwhile is not taken for the one that answered.

use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::port::{self, Listening, Socket};
use super::{PortOwner, ProcessExit, ProcessHost, ProcessSpec, Readiness, SpawnError};

mod exec;
#[cfg(feature = "probe-http")]
mod http;
#[cfg(feature = "probe-http")]
mod mcp;
pub(super) mod notify;
mod pattern;
mod status;
mod tcp;

#[cfg(feature = "probe-http")]
pub use self::mcp::catalog::McpQuestion;
pub use self::pattern::{LogPattern, PatternError};
pub use self::status::StatusSet;

/// The pause after the first failed attempt; it doubles up to [`SLOWEST_PACE`].
const FIRST_PACE: Duration = Duration::from_millis(20);

/// The longest pause between two attempts.
const SLOWEST_PACE: Duration = Duration::from_millis(500);

/// The same for a command, which costs a process each time.
const EXEC_FIRST_PACE: Duration = Duration::from_millis(100);

/// The same for a command.
const EXEC_SLOWEST_PACE: Duration = Duration::from_secs(1);

/// The longest an attempt takes unless [`Prober::attempt_timeout`] says otherwise.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for an MCP server, which is asked several questions.
const MCP_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The host in requests of the HTTP probe, whose readiness names none.
#[cfg(feature = "probe-http")]
const HTTP_HOST: &str = "localhost";

/// How often and how patiently a process is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeTimes {
    /// The pause between two attempts; `None` means 20 ms (100 ms for a command), doubling up to 500 ms (1 s).
    pub interval: Option<Duration>,
    /// The longest time one attempt takes; `None` means 5 s, and 10 s for an MCP server.
    pub timeout: Option<Duration>,
}

/// A header field that a probe sends, such as a token.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for ProbeHeader {
    /// Hides the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ProbeHeader {
    /// The header fields that the probe itself sends.
    const OWN: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "user-agent"];

    /// Returns what keeps it from being sent, as a fragment, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_value = |byte: u8| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic();
        if self.name.is_empty() || !self.name.bytes().all(is_token) {
            Some("is not a header name")
        } else if Self::OWN.iter().any(|own| self.name.eq_ignore_ascii_case(own)) {
            Some("is set by the probe itself")
        } else if !self.value.bytes().all(is_value) {
            Some("has a value with characters that a header cannot have")
        } else {
            None
        }
    }
}

/// Probes one incarnation of a process.
///
/// It remembers which era of the MCP protocol the server speaks, so a new incarnation needs a new prober.
///
/// ```
/// use xy_actors::process::readiness::Prober;
/// use xy_actors::process::{PortOwner, Readiness};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let port = listener.local_addr()?.port();
///
/// let mut prober = Prober::new(Readiness::Tcp, Some(port), PortOwner::Own);
/// prober.check(&[std::process::id()]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Prober {
    readiness: Readiness,
    port: Option<u16>,
    owner: PortOwner,
    timeout: Duration,
    interval: Option<Duration>,
    place: Option<exec::Place>,
    stranger: Option<Stranger>,
    #[cfg(feature = "probe-http")]
    mcp: mcp::Memory,
}

/// What an attempt needs.
enum Means {
    /// Nothing: it is ready.
    Nothing,
    /// A connection to this port.
    Port(u16),
    /// A process.
    Command,
}

/// The latest foreign holder. Naming one means a walk through all processes, too dear to repeat in every attempt.
#[derive(Debug)]
struct Stranger {
    socket: Socket,
    pid: Option<u32>,
    command: Option<String>,
}

impl Prober {
    /// Creates a prober for one incarnation that serves `port`.
    pub fn new(readiness: Readiness, port: Option<u16>, owner: PortOwner) -> Self {
        let timeout = match readiness {
            Readiness::Mcp { .. } => MCP_ATTEMPT_TIMEOUT,
            _ => ATTEMPT_TIMEOUT,
        };
        Self {
            readiness,
            port,
            owner,
            timeout,
            interval: None,
            place: None,
            stranger: None,
            #[cfg(feature = "probe-http")]
            mcp: mcp::Memory::default(),
        }
    }

    /// Names where the command of an [`Readiness::Exec`] runs: spawned by `host`, in the environment and directory of
    /// `spec`, under the child's path `label`.
    #[must_use]
    pub fn running_in(mut self, host: &ProcessHost, label: &str, spec: &ProcessSpec) -> Self {
        if let Readiness::Exec { .. } = self.readiness {
            self.place = Some(exec::Place::new(host, label, spec));
        }
        self
    }

    /// Sets the pause between two attempts of [`Prober::until_ready`].
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Keeps one session with an MCP server of the older era open instead of opening one in each attempt: a prober that
    /// asks for as long as the server lives would otherwise leave thousands behind.
    #[must_use]
    pub fn keeping_session(self) -> Self {
        Self {
            #[cfg(feature = "probe-http")]
            mcp: self.mcp.keeping_session(),
            ..self
        }
    }

    /// Sets the longest time one attempt takes, 5 s by default and 10 s for an MCP server.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes one attempt. `pids` are the child's own processes at this moment.
    ///
    /// # Errors
    /// Says why the process does not count as ready; [`ProbeFailure::is_permanent`] tells whether another attempt could
    /// come out differently.
    ///
    /// # Cancel safety
    /// Dropping the future closes its connection and loses nothing that is remembered; a session that an MCP server has
    /// just opened for it stays open there.
    pub async fn check(&mut self, pids: &[u32]) -> Result<(), ProbeFailure> {
        self.attempt(&mut || pids.to_vec()).await
    }

    /// Asks an MCP server one question, whatever it counts as; at most 768 KiB of an answer are read. `pids` are the child's
    /// own processes at this moment.
    ///
    /// The answer is the `result` as the server sent it, and of a list all of its pages.
    ///
    /// # Errors
    /// As [`Prober::check`]; [`ProbeFailure::NotAsked`] unless the readiness is [`Readiness::Mcp`].
    ///
    /// # Cancel safety
    /// As [`Prober::check`]; a call that has been sent is performed by the server all the same.
    #[cfg(feature = "probe-http")]
    pub async fn ask_mcp(
        &mut self,
        pids: &[u32],
        question: &McpQuestion,
    ) -> Result<serde_json::Map<String, serde_json::Value>, ProbeFailure> {
        let Means::Port(port) = self.feasible()? else {
            return Err(ProbeFailure::NotAsked { probe: self.readiness.name() });
        };
        let Readiness::Mcp { path, host } = self.readiness.clone() else {
            return Err(ProbeFailure::NotAsked { probe: self.readiness.name() });
        };
        let mut pids = || pids.to_vec();
        let addresses = self.addresses(port, &mut pids)?;
        let target = http::Target::new(&addresses, port, &host, &path).body_limit(mcp::catalog::ANSWER_LIMIT);
        let answer = mcp::catalog::ask(&target, &mut self.mcp, self.timeout, question).await?;
        // A server that ended after its answer has answered; one whose port is another's may not have.
        match self.addresses(port, &mut pids) {
            Err(failure @ ProbeFailure::ForeignHolder { .. }) => Err(failure),
            _ => Ok(answer),
        }
    }

    /// The same with pids that are asked for only if somebody listens.
    pub(super) async fn check_with(
        &mut self,
        mut pids: impl FnMut() -> Vec<u32> + Send,
    ) -> Result<(), ProbeFailure> {
        self.attempt(&mut pids).await
    }

    /// Makes attempts until one succeeds, 20 ms apart at first and 500 ms in the end unless [`Prober::interval`] says
    /// otherwise.
    ///
    /// It never gives up: the caller holds the start timeout and drops the future. `pids` is asked anew in each attempt
    /// that finds somebody listening. `on_failure` is told about the first failure and then whenever another kind of
    /// failure follows.
    ///
    /// # Cancel safety
    /// As [`Prober::check`].
    pub async fn until_ready(
        &mut self,
        pids: impl FnMut() -> Vec<u32> + Send,
        on_failure: impl FnMut(&ProbeFailure) + Send,
    ) {
        self.repeat(false, pids, on_failure).await;
    }

    /// Waits until the child's own processes listen on its port, if it has one and that matters, and asks nobody: for a
    /// process that has told that it is ready, which proves nothing about whose the port is.
    pub(super) async fn until_listening(
        &mut self,
        pids: impl FnMut() -> Vec<u32> + Send,
        on_failure: impl FnMut(&ProbeFailure) + Send,
    ) {
        self.repeat(true, pids, on_failure).await;
    }

    async fn repeat(
        &mut self,
        is_told: bool,
        mut pids: impl FnMut() -> Vec<u32> + Send,
        mut on_failure: impl FnMut(&ProbeFailure) + Send,
    ) {
        let (first, slowest) = match (self.interval, &self.readiness) {
            (Some(interval), _) => (interval, interval),
            (None, Readiness::Exec { .. }) => (EXEC_FIRST_PACE, EXEC_SLOWEST_PACE),
            (None, _) => (FIRST_PACE, SLOWEST_PACE),
        };
        let mut pace = first;
        let mut last: Option<ProbeFailure> = None;
        while let Err(failure) = self.attempt_or_look(is_told, &mut pids).await {
            if !last.is_some_and(|last| last.is_same_kind(&failure)) {
                on_failure(&failure);
            }
            last = Some(failure);
            tokio::time::sleep(pace).await;
            pace = pace.saturating_mul(2).min(slowest);
        }
    }

    async fn attempt_or_look(
        &mut self,
        is_told: bool,
        pids: &mut (dyn FnMut() -> Vec<u32> + Send),
    ) -> Result<(), ProbeFailure> {
        if is_told { self.check_owner(pids) } else { self.attempt(pids).await }
    }

    /// Checks that a declared port is the child's own, on whatever address.
    fn check_owner(&mut self, pids: &mut (dyn FnMut() -> Vec<u32> + Send)) -> Result<(), ProbeFailure> {
        let (Some(port), PortOwner::Own) = (self.port, self.owner) else { return Ok(()) };
        match self.addresses(port, pids) {
            Ok(_) | Err(ProbeFailure::NotOnLoopback { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn attempt(&mut self, pids: &mut (dyn FnMut() -> Vec<u32> + Send)) -> Result<(), ProbeFailure> {
        let port = match self.feasible()? {
            Means::Nothing => return Ok(()),
            Means::Command => {
                self.check_owner(pids)?;
                self.run().await?;
                return self.check_owner(pids);
            }
            Means::Port(port) => port,
        };
        let addresses = self.addresses(port, pids)?;
        self.ask(&addresses, port).await?;
        if self.addresses(port, pids)?.iter().any(|address| addresses.contains(address)) {
            Ok(())
        } else {
            Err(ProbeFailure::NotListening { port })
        }
    }

    /// Returns what to probe with; what cannot ever succeed fails here.
    fn feasible(&self) -> Result<Means, ProbeFailure> {
        let probe = self.readiness.name();
        match &self.readiness {
            Readiness::Started => return Ok(Means::Nothing),
            Readiness::Exec { .. } => return Ok(Means::Command),
            Readiness::Log { .. } | Readiness::Notify { .. } => return Err(ProbeFailure::NotAsked { probe }),
            Readiness::Tcp => {}
            #[cfg(feature = "probe-http")]
            Readiness::Http { path, header, .. } => {
                http::validate(HTTP_HOST, path)?;
                if let Some(header) = header.as_ref().filter(|header| header.fault().is_some()) {
                    let value = header.name.escape_default().to_string();
                    return Err(ProbeFailure::InvalidTarget { value });
                }
            }
            #[cfg(feature = "probe-http")]
            Readiness::Mcp { path, host } => http::validate(host, path)?,
            #[cfg(not(feature = "probe-http"))]
            Readiness::Http { .. } | Readiness::Mcp { .. } => {
                return Err(ProbeFailure::Unsupported { probe });
            }
        }
        self.port.map(Means::Port).ok_or(ProbeFailure::NoPort { probe })
    }

    /// Runs the command.
    async fn run(&self) -> Result<(), ProbeFailure> {
        match (&self.place, &self.readiness) {
            (Some(place), Readiness::Exec { command, args }) => {
                exec::probe(place, command, args, self.timeout).await
            }
            _ => Err(ProbeFailure::NoPlace),
        }
    }

    /// Returns the loopback addresses at which the child itself can be asked.
    fn addresses(
        &mut self,
        port: u16,
        pids: &mut (dyn FnMut() -> Vec<u32> + Send),
    ) -> Result<Vec<IpAddr>, ProbeFailure> {
        let anywhere = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if self.owner == PortOwner::Any {
            // A container engine may publish a port without any socket that listens, so only a connection can tell.
            return Ok(anywhere());
        }
        match port::listening(port, pids).map_err(|source| ProbeFailure::Inspect { port, source })? {
            Listening::Own(addresses) => Ok(addresses),
            Listening::Unknown => Ok(anywhere()),
            Listening::Nobody => Err(ProbeFailure::NotListening { port }),
            Listening::Elsewhere(address) => Err(ProbeFailure::NotOnLoopback { port, address }),
            Listening::Foreign(socket) => {
                let Stranger { pid, command, .. } = self.stranger(socket);
                Err(ProbeFailure::ForeignHolder { port, pid: *pid, command: command.clone() })
            }
        }
    }

    /// Returns who holds a foreign socket.
    fn stranger(&mut self, socket: Socket) -> &Stranger {
        let known = self.stranger.take().filter(|stranger| {
            stranger.socket == socket && stranger.pid.is_none_or(|pid| port::holds(pid, socket))
        });
        self.stranger.insert(known.unwrap_or_else(|| {
            let (pid, command) = port::name(socket);
            Stranger { socket, pid, command }
        }))
    }

    async fn ask(&mut self, addresses: &[IpAddr], port: u16) -> Result<(), ProbeFailure> {
        match &self.readiness {
            Readiness::Tcp => tcp::probe(addresses, port, self.timeout).await,
            #[cfg(feature = "probe-http")]
            Readiness::Http { path, status, header } => {
                let target = http::Target::new(addresses, port, HTTP_HOST, path);
                http::probe(&target, status, header.as_ref(), self.timeout).await
            }
            #[cfg(feature = "probe-http")]
            Readiness::Mcp { path, host } => {
                let target = http::Target::new(addresses, port, host, path);
                mcp::probe(&target, &mut self.mcp, self.timeout).await
            }
            other => Err(ProbeFailure::NotAsked { probe: other.name() }),
        }
    }
}

/// Cuts foreign text to a readable length and takes its control characters away.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Why a process does not count as ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// Nobody listens on the port yet.
    #[error("nothing listens on port {port}")]
    NotListening {
        /// The port.
        port: u16,
    },
    /// Another process listens on the port.
    #[error("port {port} is held by {}", describe(*pid, command.as_deref()))]
    ForeignHolder {
        /// The port.
        port: u16,
        /// The holder, where it can be told.
        pid: Option<u32>,
        /// Its command line, where it can be told.
        command: Option<String>,
    },
    /// The process listens, but where no probe goes.
    #[error("port {port} is served on `{address}` only, and probes never leave loopback")]
    NotOnLoopback {
        /// The port.
        port: u16,
        /// The address it is bound to.
        address: IpAddr,
    },
    /// It cannot be told who listens on the port.
    #[error("cannot tell who listens on port {port}")]
    Inspect {
        /// The port.
        port: u16,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// Somebody listens, but no connection came about.
    #[error("cannot connect to port {port}")]
    Connect {
        /// The port.
        port: u16,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A connection broke before the answer was complete.
    #[error("the connection broke during `{request}`")]
    Connection {
        /// The request.
        request: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The HTTP status says no.
    #[error("`{request}` was answered with status {status}{}", describe_redirect(location.as_deref()))]
    Http {
        /// The request.
        request: String,
        /// The status.
        status: u16,
        /// Where a redirect points; probes do not follow it.
        location: Option<String>,
    },
    /// The answer is a JSON-RPC error.
    #[error("`{request}` was answered with error {code}: {message}")]
    Mcp {
        /// The MCP method.
        request: String,
        /// The error's code.
        code: i64,
        /// The error's message, cut and printable.
        message: String,
    },
    /// The answer is not what the protocol prescribes.
    #[error("`{request}` was answered with {problem}")]
    Protocol {
        /// The request.
        request: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
    /// The answer is longer than is read.
    #[error("`{request}` was answered with more than {limit} bytes")]
    TooLong {
        /// The request.
        request: String,
        /// How much is read, in bytes.
        limit: usize,
    },
    /// The server speaks no revision of MCP that the probe knows.
    #[error("the server speaks only MCP revisions the probe does not know: {supported}")]
    Revision {
        /// What it speaks.
        supported: String,
    },
    /// There was no complete answer in time.
    #[error("`{request}` was not answered within {after:?}")]
    Timeout {
        /// The request.
        request: String,
        /// The time it was given.
        after: Duration,
    },
    /// The command of the probe could not be run.
    #[error("`{command}` could not be run")]
    Spawn {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: Box<SpawnError>,
    },
    /// The command of the probe said no.
    #[error("`{command}` ended with {}{}", describe_exit(*exit), describe_line(last_line.as_deref()))]
    Exec {
        /// The command.
        command: String,
        /// How it ended.
        exit: ProcessExit,
        /// The last line it printed, cut and printable.
        last_line: Option<String>,
    },
    /// The command of the probe did not end in time and was killed.
    #[error("`{command}` did not end within {after:?}{}", describe_line(last_line.as_deref()))]
    ExecTimeout {
        /// The command.
        command: String,
        /// The time it was given.
        after: Duration,
        /// The last line it printed, cut and printable.
        last_line: Option<String>,
    },
    /// It is not said where the command of the probe is to run.
    #[error("the `Exec` probe was given no process host")]
    NoPlace,
    /// Asking cannot find it out.
    #[error("`{probe}` is told by the process, it cannot be asked")]
    NotAsked {
        /// The kind of readiness.
        probe: &'static str,
    },
    /// This build lacks the probe.
    #[error("this build has no `{probe}` probe (cargo feature `probe-http`)")]
    Unsupported {
        /// The probe.
        probe: &'static str,
    },
    /// The probe needs a port and none is declared.
    #[error("the `{probe}` probe needs a `port`")]
    NoPort {
        /// The probe.
        probe: &'static str,
    },
    /// Host or path cannot be put into a request.
    #[error("`{value}` cannot be used in a request")]
    InvalidTarget {
        /// The offending text, escaped.
        value: String,
    },
}

impl ProbeFailure {
    /// Returns the stable lower-case name of the kind of failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotListening { .. } => "not_listening",
            Self::ForeignHolder { .. } => "foreign_holder",
            Self::NotOnLoopback { .. } => "not_on_loopback",
            Self::Inspect { .. } => "inspect",
            Self::Connect { .. } => "connect",
            Self::Connection { .. } => "connection",
            Self::Http { .. } => "http",
            Self::Mcp { .. } => "mcp",
            Self::Protocol { .. } => "protocol",
            Self::TooLong { .. } => "too_long",
            Self::Revision { .. } => "revision",
            Self::Timeout { .. } => "timeout",
            Self::Spawn { .. } => "spawn",
            Self::Exec { .. } => "exec",
            Self::ExecTimeout { .. } => "exec_timeout",
            Self::NoPlace => "no_place",
            Self::NotAsked { .. } => "not_asked",
            Self::Unsupported { .. } => "unsupported",
            Self::NoPort { .. } => "no_port",
            Self::InvalidTarget { .. } => "invalid_target",
        }
    }

    /// Returns whether no later attempt can succeed, because the spec itself asks for the impossible.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Unsupported { .. }
                | Self::NoPort { .. }
                | Self::InvalidTarget { .. }
                | Self::NoPlace
                | Self::NotAsked { .. }
        )
    }

    /// Returns the failure with its causes, in one line.
    pub(crate) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    /// Returns whether `other` would tell a person nothing new: the same variant with the same holder, status or code.
    fn is_same_kind(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
            && match (self, other) {
                (Self::ForeignHolder { pid: before, .. }, Self::ForeignHolder { pid: after, .. }) => {
                    before == after
                }
                (Self::Http { status: before, .. }, Self::Http { status: after, .. }) => before == after,
                (Self::Mcp { code: before, .. }, Self::Mcp { code: after, .. }) => before == after,
                (Self::Exec { .. } | Self::ExecTimeout { .. } | Self::Spawn { .. }, _) => {
                    self.told() == other.told()
                }
                _ => true,
            }
    }
}

fn describe(pid: Option<u32>, command: Option<&str>) -> String {
    match (pid, command) {
        (Some(pid), Some(command)) => format!("pid {pid} (`{command}`)"),
        (Some(pid), None) => format!("pid {pid}"),
        (None, _) => "a process that cannot be named".to_owned(),
    }
}

fn describe_exit(exit: ProcessExit) -> String {
    match exit {
        ProcessExit::Code(code) => format!("exit code {code}"),
        ProcessExit::Signal { signal, .. } => match crate::exit::signal_name(signal) {
            Some(name) => format!("signal {signal} ({name})"),
            None => format!("signal {signal}"),
        },
    }
}

fn describe_line(last_line: Option<&str>) -> String {
    last_line.map(|line| format!(": {line}")).unwrap_or_default()
}

fn describe_redirect(location: Option<&str>) -> String {
    location.map(|location| format!(", a redirect to `{location}`")).unwrap_or_default()
}

/// Reads the answer to a probe, which arrives in pieces of `step` bytes, or the body of one to an MCP request.
#[cfg(all(feature = "testkit", feature = "probe-http"))]
pub(super) fn read_answer(answer: &[u8], step: usize, is_body: bool) {
    if is_body {
        mcp::read_body(answer, step, true);
        mcp::read_body(answer, step, false);
    } else if let Some((is_event_stream, body)) = http::read_whole(answer, step) {
        mcp::read_body(&body, step, is_event_stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_only_with_the_same_holder_status_or_code() {
        let foreign = |pid| ProbeFailure::ForeignHolder { port: 1, pid, command: None };
        let http = |status| ProbeFailure::Http { request: "GET /".to_owned(), status, location: None };
        assert!(foreign(Some(1)).is_same_kind(&foreign(Some(1))));
        assert!(!foreign(Some(1)).is_same_kind(&foreign(Some(2))));
        assert!(http(500).is_same_kind(&http(500)));
        assert!(!http(500).is_same_kind(&http(503)));
        assert!(!http(500).is_same_kind(&ProbeFailure::NotListening { port: 1 }));
    }

    #[test]
    fn waiting_can_move_between_threads() {
        fn assert_send<T: Send>(value: T) -> T {
            value
        }
        let mut prober = assert_send(Prober::new(Readiness::Tcp, None, PortOwner::Own));
        drop(assert_send(prober.until_ready(Vec::new, |_| {})));
    }

    #[tokio::test]
    async fn a_process_without_a_probe_is_ready_at_once() {
        let mut prober = Prober::new(Readiness::Started, None, PortOwner::Own);
        prober.check(&[]).await.expect("ready");
    }

    #[tokio::test]
    async fn a_probe_without_a_port_fails_for_good() {
        let mut prober = Prober::new(Readiness::Tcp, None, PortOwner::Own);
        let failure = prober.check(&[]).await.expect_err("no port");
        assert!(matches!(failure, ProbeFailure::NoPort { probe: "Tcp" }) && failure.is_permanent());
    }

    #[cfg(not(feature = "probe-http"))]
    #[tokio::test]
    async fn a_probe_that_was_not_built_fails_for_good_and_names_the_feature() {
        let http = Readiness::http("/");
        let mcp = Readiness::Mcp { path: "/mcp".to_owned(), host: "localhost".to_owned() };
        for readiness in [http, mcp] {
            let failure =
                Prober::new(readiness, Some(1), PortOwner::Own).check(&[]).await.expect_err("no probe");
            assert!(failure.is_permanent());
            assert!(failure.to_string().contains("`probe-http`"), "{failure}");
        }
    }
}
