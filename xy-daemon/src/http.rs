//! The control plane over HTTP on a loopback address: the accept loop, its limits, and what it opens to clients.
//!
//! It frames [`Service`] as the local socket does and has no operation of its own. Off unless it is asked for.
//!
//! ```text
//! accept ──► pace (slow clients) ──► hyper (HTTP/1.1) ──► guard (Host, Origin) ──► token ──► route ──► Service
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use xy_actors::process::settings::is_reserved;

use crate::protocol::method::{EventsParams, Notification, VersionParams};
use crate::rpc::Service;
use crate::socket;

pub mod address;
mod answer;
pub mod clients;
pub mod connection_file;
pub mod credentials;
mod endpoint;
pub mod guard;
mod mcp;
mod metrics;
pub mod openapi;
mod pace;
pub mod plane;
pub mod private_file;
#[cfg(feature = "testkit")]
pub(crate) mod readers;
mod reply;
pub mod route;
pub mod secret;
mod sse;
pub mod target;
pub mod token;

use address::AddressError;
use credentials::{Credentials, TokenError, TokenOptions, TokenSource};
use endpoint::Shared;
use guard::Guard;
use pace::{Pace, PacedStream, Patience};
use plane::HttpPlane;

/// How many connections are accepted before those that are open have their turn.
const ACCEPTED_AT_A_TIME: usize = 16;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// The most bytes that wait to be read or written, per connection and direction.
const BUFFER: usize = 32 << 10;

/// How much of a refused request is still read, so that its client can read the answer, and for how long.
const LINGER_BYTES: u64 = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// How long after a failed rotation the next one is tried.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// What the operator says about HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where to listen; what the configuration says if not given.
    pub listen: Listen,
    /// The token.
    pub token: TokenOptions,
}

/// Where the operator wants HTTP to listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// Where the configuration says, if it says so.
    #[default]
    Configured,
    /// Where the configuration says, else at [`address::DEFAULT_ADDRESS`].
    On,
    /// At this address.
    At(SocketAddr),
}

impl Listen {
    /// Returns the address to listen at, given that of the configuration; `None` if HTTP is off.
    pub fn address(self, configured: Option<SocketAddr>) -> Option<SocketAddr> {
        match self {
            Self::Configured => configured,
            Self::On => Some(configured.unwrap_or(address::DEFAULT_ADDRESS)),
            Self::At(address) => Some(address),
        }
    }
}

/// Every limit of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time for a request's head, from its first byte.
    pub head: Duration,
    /// The time for a whole request, from its first byte.
    pub request: Duration,
    /// The most bytes of a body.
    pub body: usize,
    /// The time between two requests of a connection.
    pub idle: Duration,
    /// How long a client may read nothing of what is written to it.
    pub write_stall: Duration,
    /// The most connections; beyond, the one that has waited for its client longest makes room.
    pub connections: usize,
    /// A silent stream says that it is there this often.
    pub heartbeat: Duration,
    /// The most operations remembered.
    pub operations: usize,
    /// The wrong tokens of a second that are answered as such; more are told that they are too many.
    pub wrong_tokens: u32,
    /// The token is replaced this often, unless it comes from the environment.
    pub rotate_every: Duration,
    /// How long the old token is accepted after a rotation.
    pub grace: Duration,
    /// How long requests in flight have when the daemon stops serving.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            request: Duration::from_secs(30),
            body: 1 << 20,
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(10),
            connections: 1024,
            heartbeat: Duration::from_secs(15),
            operations: 256,
            wrong_tokens: 10,
            rotate_every: Duration::from_secs(24 * 3600),
            grace: Duration::from_secs(60),
            drain: crate::rpc::DRAIN,
        }
    }
}

/// Why HTTP does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address is not permitted.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The system refused to listen there.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket that listens already cannot be used.
    #[error("the socket of http cannot be used")]
    Socket(#[source] io::Error),
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// A server that listens and does not answer yet. Its files are removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    plane: Arc<HttpPlane>,
}

impl Listener {
    /// Listens, and writes the token's files to the state directory.
    ///
    /// # Errors
    /// See [`HttpError`]; an address that is not loopback is refused here as well.
    ///
    /// # Cancel safety
    /// Cancel safe: what was made is dropped.
    pub async fn bind(
        address: SocketAddr,
        token: &TokenOptions,
        state_dir: &Path,
        limits: Limits,
    ) -> Result<Self, HttpError> {
        address::check(address)?;
        let failed = |source| HttpError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Self::on(listener, token, state_dir, limits).await
    }

    /// Goes on with a socket that listens already, and writes the token's files to the state directory.
    ///
    /// # Errors
    /// See [`HttpError`]; an address that is not loopback is refused here as well.
    ///
    /// # Cancel safety
    /// Cancel safe: what was made is dropped.
    pub async fn on(
        listener: TcpListener,
        token: &TokenOptions,
        state_dir: &Path,
        limits: Limits,
    ) -> Result<Self, HttpError> {
        // The port that the system chose, if it was to choose.
        let address = listener.local_addr().map_err(HttpError::Socket)?;
        address::check(address)?;
        let (token, state_dir) = (token.clone(), state_dir.to_owned());
        let base_url = base_url(address);
        let established = tokio::task::spawn_blocking(move || {
            Credentials::establish(&token, &state_dir, base_url, limits.grace, limits.wrong_tokens)
        });
        let credentials = Arc::new(established.await.map_err(TokenError::Thread)??);
        Ok(Self { listener, address, plane: Arc::new(HttpPlane::new(credentials, address, limits)) })
    }

    /// Returns where it listens, as a URL without a slash at its end.
    pub fn base_url(&self) -> String {
        base_url(self.address)
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the token's life, to rotate it.
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.plane.credentials)
    }

    /// Returns what a service needs to answer methods about HTTP.
    pub fn plane(&self) -> Arc<HttpPlane> {
        Arc::clone(&self.plane)
    }
}

fn base_url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Accepts and answers requests until `shutdown` completes, then lets those in flight finish for a moment.
///
/// # Cancel safety
/// Dropping the future drops all connections; operations that have begun go on.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, shutdown: impl Future<Output = ()>) {
    let Listener { listener, address, plane } = listener;
    let (limits, credentials) = (plane.limits, Arc::clone(&plane.credentials));
    let epoch = match service.version(VersionParams::default()).await {
        Ok(version) => version.started_at_unix_ms,
        Err(_) => xy_actors::event::stream::unix_ms(),
    };
    let (closing, close) = watch::channel(false);
    let shared = Arc::new(Shared::new(
        service,
        Guard::new(address, Vec::new()),
        plane,
        format!("{epoch:x}"),
        close.clone(),
    ));
    let _keeping = AbortOnDrop(tokio::spawn(keep(credentials, limits.rotate_every)).abort_handle());
    let _counting = AbortOnDrop(tokio::spawn(count_events(Arc::clone(&shared))).abort_handle());
    let mut connections = JoinSet::new();
    let mut open: Vec<Weak<Pace>> = Vec::new();
    let mut accepted: usize = 0;
    let mut shutdown = pin!(shutdown);
    let mut not_before = Instant::now();
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            stream = async {
                sleep_until(not_before).await;
                accept(&listener).await
            } => stream,
        };
        open.retain(|pace| pace.strong_count() > 0);
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                let is_awaited = socket::is_awaited(listener.as_fd());
                if is_awaited {
                    tracing::warn!(%error, "accepting a connection failed");
                }
                let makes_room = is_awaited && make_room(&mut open);
                not_before = Instant::now() + socket::accept_rest(makes_room);
                continue;
            }
        };
        // The last descriptors are the local socket's.
        if (open.len() >= limits.connections || is_reserved(stream.as_fd())) && !make_room(&mut open) {
            tracing::warn!("a connection was refused: all of them are busy");
            continue;
        }
        let pace = Pace::new(Instant::now(), shared.unread.join());
        open.push(Arc::downgrade(&pace));
        let counted = Counted::one_more(&shared.plane);
        let presence = shared.service.arrive();
        let connection = serve_connection(stream, Arc::clone(&shared), pace, close.clone());
        connections.spawn(async move {
            connection.await;
            drop((presence, counted));
        });
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(ACCEPTED_AT_A_TIME) {
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    closing.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// A connection counts as open until this is dropped.
struct Counted(Arc<HttpPlane>);

impl Counted {
    fn one_more(plane: &Arc<HttpPlane>) -> Self {
        plane.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(plane))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes the connection that has waited for its client longest, first of those that never asked anything; returns whether
/// there was one.
fn make_room(open: &mut Vec<Weak<Pace>>) -> bool {
    let waiting = open.iter().enumerate().filter_map(|(index, pace)| {
        let pace = pace.upgrade()?;
        Some((pace.waiting_since()?, index, pace))
    });
    let Some((_, index, pace)) = waiting.min_by_key(|(since, ..)| *since) else { return false };
    pace.evict();
    open.swap_remove(index);
    true
}

async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        match listener.accept().await {
            // The address is a loopback one, so that whoever comes is of this machine.
            Ok((stream, _)) => {
                // Answers are whole or small; waiting to fill a packet only delays them.
                _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn serve_connection<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: Arc<Shared<S>>,
    pace: Arc<Pace>,
    mut close: watch::Receiver<bool>,
) {
    let limits = shared.limits;
    let patience = Patience { head: limits.head, idle: limits.idle, write: limits.write_stall };
    let stream = TokioIo::new(PacedStream::new(stream, Arc::clone(&pace), patience));
    let answering = service_fn({
        let pace = Arc::clone(&pace);
        move |request| {
            let (shared, pace) = (Arc::clone(&shared), Arc::clone(&pace));
            Box::pin(async move { Ok::<_, Infallible>(shared.answer(request, &pace).await) })
        }
    });
    let mut connection = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(BUFFER)
        // The stream has the time in hand: hyper's own limit does not tell waiting from dawdling.
        .header_read_timeout(None)
        .serve_connection(stream, answering);
    let ended = {
        let mut running = pin!(std::future::poll_fn(|context| connection.poll_without_shutdown(context)));
        tokio::select! {
            ended = &mut running => Some(ended),
            () = pace.evicted() => None,
            _ = close.wait_for(|closing| *closing) => None,
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None if *close.borrow() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            let rest = std::future::poll_fn(|context| connection.poll_without_shutdown(context));
            match timeout(limits.drain, rest).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
        None => return,
    };
    match ended {
        Ok(()) => linger(connection.into_parts().io.into_inner().get_mut()).await,
        Err(error) => tracing::debug!(%error, "a connection failed"),
    }
}

/// Ends a connection so that its client can read the answer: closing it with something unread would tear it away.
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever goes wrong here, the connection is over.
    _ = timeout(LINGER, rest).await;
}

/// Rotates the token when its time has come, and forgets the old one when its time is over.
async fn keep(credentials: Arc<Credentials>, rotate_every: Duration) {
    let mut rotate_at = Instant::now() + rotate_every;
    loop {
        let now = Instant::now();
        let expiry =
            credentials.tokens().expire(now).into_iter().chain(credentials.clients().expire(now)).min();
        // Whoever has given the token in the environment expects it to stay.
        let is_ours = credentials.source() != TokenSource::Environment;
        let rotation = is_ours.then_some(rotate_at);
        let due = async {
            match [expiry, rotation].into_iter().flatten().min() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = credentials.clients().changed() => continue,
            () = credentials.rotated() => {
                rotate_at = Instant::now() + rotate_every;
                continue;
            }
        }
        if is_ours && rotate_at <= Instant::now() {
            match credentials.rotate().await {
                Ok(()) => tracing::info!("the token of HTTP was rotated"),
                Err(error) => {
                    tracing::error!("the token was not rotated: {}", crate::control::chain(&error));
                    rotate_at = Instant::now() + ROTATE_AGAIN;
                }
            }
        }
    }
}

/// Counts the events of the tree for as long as it has some.
async fn count_events<S: Service>(shared: Arc<Shared<S>>) {
    // From the first one on: most servers are started before HTTP answers.
    let params = EventsParams::following(0);
    let Ok(mut source) = shared.service.events(params).await else { return };
    while let Some(batch) = source.next().await {
        for notification in batch {
            match notification {
                Notification::Event(event) => shared.meter.event(&event),
                Notification::EventGap(gap) => shared.meter.missed((gap.last + 1).saturating_sub(gap.first)),
                _ => {}
            }
        }
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_off_unless_the_configuration_or_the_operator_says_otherwise() {
        let configured: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let given: SocketAddr = "127.0.0.1:2".parse().unwrap();
        assert_eq!(Listen::Configured.address(None), None);
        assert_eq!(Listen::Configured.address(Some(configured)), Some(configured));
        assert_eq!(Listen::On.address(None), Some(address::DEFAULT_ADDRESS));
        assert_eq!(Listen::On.address(Some(configured)), Some(configured));
        assert_eq!(Listen::At(given).address(Some(configured)), Some(given));
    }
}
