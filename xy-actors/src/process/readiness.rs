//! When a process counts as ready: the probes, and the loop that repeats them until one succeeds.
//!
//! A probe goes from cheap to dear. First the kernel is asked who listens on the port, which disturbs nobody; only when
//! the child's own processes do is a connection made, and only to a loopback address that leads to them. After a success
//! the owner is checked again, so that a child which lost its port meanwhile is not taken for the one that answered.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::port::{self, Listening, Socket};
use super::{PortOwner, Readiness};

#[cfg(feature = "probe-http")]
mod http;
#[cfg(feature = "probe-http")]
mod mcp;
mod tcp;

/// The pause after the first failed attempt; it doubles up to [`SLOWEST_PACE`].
const FIRST_PACE: Duration = Duration::from_millis(20);

/// The longest pause between two attempts.
const SLOWEST_PACE: Duration = Duration::from_millis(500);

/// The longest an attempt takes unless [`Prober::attempt_timeout`] says otherwise.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for an MCP server, which is asked several questions.
const MCP_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The host in requests of the HTTP probe, whose readiness names none.
#[cfg(feature = "probe-http")]
const HTTP_HOST: &str = "localhost";

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
    stranger: Option<Stranger>,
    #[cfg(feature = "probe-http")]
    era: Option<mcp::Era>,
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
            stranger: None,
            #[cfg(feature = "probe-http")]
            era: None,
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

    /// Makes attempts until one succeeds, 20 ms apart at first and 500 ms in the end.
    ///
    /// It never gives up: the caller holds the start timeout and drops the future. `pids` is asked anew in each attempt
    /// that finds somebody listening. `on_failure` is told about the first failure and then whenever another kind of
    /// failure follows.
    ///
    /// # Cancel safety
    /// As [`Prober::check`].
    pub async fn until_ready(
        &mut self,
        mut pids: impl FnMut() -> Vec<u32> + Send,
        mut on_failure: impl FnMut(&ProbeFailure) + Send,
    ) {
        let mut pace = FIRST_PACE;
        let mut last: Option<ProbeFailure> = None;
        while let Err(failure) = self.attempt(&mut pids).await {
            if !last.is_some_and(|last| last.is_same_kind(&failure)) {
                on_failure(&failure);
            }
            last = Some(failure);
            tokio::time::sleep(pace).await;
            pace = (pace * 2).min(SLOWEST_PACE);
        }
    }

    async fn attempt(&mut self, pids: &mut (dyn FnMut() -> Vec<u32> + Send)) -> Result<(), ProbeFailure> {
        let Some(port) = self.feasible()? else { return Ok(()) };
        let addresses = self.addresses(port, pids)?;
        self.ask(&addresses, port).await?;
        if self.addresses(port, pids)?.iter().any(|address| addresses.contains(address)) {
            Ok(())
        } else {
            Err(ProbeFailure::NotListening { port })
        }
    }

    /// Returns the port to probe, or `None` when nothing needs to be probed; what cannot ever succeed fails here.
    fn feasible(&self) -> Result<Option<u16>, ProbeFailure> {
        let probe = match &self.readiness {
            Readiness::Started => return Ok(None),
            Readiness::Tcp => "Tcp",
            #[cfg(feature = "probe-http")]
            Readiness::Http { path } => http::validate(HTTP_HOST, path).map(|()| "Http")?,
            #[cfg(feature = "probe-http")]
            Readiness::Mcp { path, host } => http::validate(host, path).map(|()| "Mcp")?,
            #[cfg(not(feature = "probe-http"))]
            unsupported => return Err(self::unsupported(unsupported)),
        };
        self.port.map(Some).ok_or(ProbeFailure::NoPort { probe })
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
            Readiness::Started => Ok(()),
            Readiness::Tcp => tcp::probe(addresses, port, self.timeout).await,
            #[cfg(feature = "probe-http")]
            Readiness::Http { path } => {
                http::probe(&http::Target::new(addresses, port, HTTP_HOST, path), self.timeout).await
            }
            #[cfg(feature = "probe-http")]
            Readiness::Mcp { path, host } => {
                let target = http::Target::new(addresses, port, host, path);
                mcp::probe(&target, &mut self.era, self.timeout).await
            }
            #[cfg(not(feature = "probe-http"))]
            unsupported => Err(self::unsupported(unsupported)),
        }
    }
}

#[cfg(not(feature = "probe-http"))]
fn unsupported(readiness: &Readiness) -> ProbeFailure {
    let probe = if matches!(readiness, Readiness::Mcp { .. }) { "Mcp" } else { "Http" };
    ProbeFailure::Unsupported { probe }
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
            Self::Revision { .. } => "revision",
            Self::Timeout { .. } => "timeout",
            Self::Unsupported { .. } => "unsupported",
            Self::NoPort { .. } => "no_port",
            Self::InvalidTarget { .. } => "invalid_target",
        }
    }

    /// Returns whether no later attempt can succeed, because the spec itself asks for the impossible.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unsupported { .. } | Self::NoPort { .. } | Self::InvalidTarget { .. })
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

fn describe_redirect(location: Option<&str>) -> String {
    location.map(|location| format!(", a redirect to `{location}`")).unwrap_or_default()
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
        let http = Readiness::Http { path: "/".to_owned() };
        let mcp = Readiness::Mcp { path: "/mcp".to_owned(), host: "localhost".to_owned() };
        for readiness in [http, mcp] {
            let failure =
                Prober::new(readiness, Some(1), PortOwner::Own).check(&[]).await.expect_err("no probe");
            assert!(failure.is_permanent());
            assert!(failure.to_string().contains("`probe-http`"), "{failure}");
        }
    }
}
