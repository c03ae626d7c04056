//! Serves the control protocol: connections, the requests in flight on each, and its subscriptions.
//!
//! One task reads a connection, another writes it, and each request runs in its own: a slow request holds up nobody, and
//! a subscription speaks while the client is silent. What a client does not read stays in the writer's short queue and in
//! the subscription's cursor, never in the source.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use xy_actors::event::stream::unix_ms;
use xy_actors::log::LogHealth;
use xy_actors::process::settings::is_reserved;

use crate::http::plane::HttpPlane;
use crate::idle::Presence;
use crate::operations::OperationTable;
use crate::permission::gate::Gate;
use crate::permission::{Caller, Surface};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::frame::{FrameError, FrameReader, MAX_LINE};
use crate::protocol::message::{Id, Incoming, Outgoing, Refused, Request, Response};
use crate::protocol::method::{
    Add, AddParams, AddResult, AnswerResult, Approvals, Approve, Call, CallParams, CancelParams,
    CancelResult, Capabilities, CapabilitiesParams, CapabilitiesResult, CatalogParams, DaemonDiagnostics,
    Deny, DiagnosticsParams, DiagnosticsResult, Disable, DisableResult, Enable, EnableResult, Events,
    EventsCancel, EventsParams, Forget, Gap, Grants, Identify, IdentifyParams, IdentifyResult, List,
    ListParams, ListResult, Logs, LogsCancel, LogsParams, METHODS, Notification, Operation, OperationParams,
    OperationStatus, OperationStatusParams, Operations, OperationsParams, Pause, PauseResult, Prompt,
    PromptParams, Prompts, PromptsResult, Reload, ReloadParams, ReloadResult, Remove, RemoveParams,
    RemoveResult, Resource, ResourceParams, Resources, ResourcesResult, Restart, RestartResult, Resume,
    ResumeResult, RotateToken, Show, ShowParams, ShowResult, Shutdown, ShutdownParams, ShutdownResult,
    Signal, SignalParams, SignalResult, SocketFacts, Start, StartResult, Status, StatusParams, StatusResult,
    Stop, StopResult, SubscribeResult, Subscribed, SubscriptionId, Targets, TokenAdd, TokenRemove, Tokens,
    TokensParams, Tools, ToolsResult, Upgrade, UpgradeParams, UpgradeResult, Usage, UsageParams, UsageResult,
    Version, VersionParams, VersionResult, Why, WhyParams, WhyResult,
};
use crate::protocol::scope::{Scope, scope_of_call, scope_of_registered};
use crate::protocol::short::ControlMessage;
use crate::protocol::{Method, OLDEST_PROTOCOL, PROTOCOL_VERSION};
use crate::registry::Registry;
use crate::socket::{self, Listener};
use crate::unread::{Account, Held, Unread};

/// The most requests in flight on one connection; more are read when one of them is answered.
pub const MAX_IN_FLIGHT: usize = 32;

/// The most subscriptions of one connection.
pub const MAX_SUBSCRIPTIONS: usize = 64;

/// The most connections; beyond, the one that has been idle longest makes room, first of those that never asked anything.
pub const MAX_CONNECTIONS: usize = 1024;

/// The most bytes of long requests in flight on all connections together.
pub const MAX_BYTES_IN_FLIGHT: usize = 16 << 20;

/// Requests up to this length do not count, so that ordinary clients never wait for those who send much.
const SHORT_LINE: usize = 4 << 10;

/// How long a client may read nothing of what is being written to it.
pub const WRITE_STALL: Duration = Duration::from_secs(10);

/// How long requests in flight have when the daemon stops serving.
pub const DRAIN: Duration = Duration::from_secs(2);

/// The methods with answers as long as the tree is large. None of them waits for a server.
const LONG: [&str; 2] = [List::NAME, Usage::NAME];

/// How many pieces of output wait for the writer of one connection.
const QUEUE: usize = 8;

/// Notifications are handed to the writer in pieces of about this many bytes.
const PIECE: usize = 64 << 10;

/// How many connections are accepted before those that are open have their turn.
const ACCEPTED_AT_A_TIME: u64 = 16;

/// What the daemon can do, once; the socket is one of its callers.
///
/// A future is polled to its end even if its client goes away, except that it is dropped when the daemon stops serving
/// before it is done. A panic in it is answered with [`ErrorKind::InternalError`] and harms nothing else.
pub trait Service: Send + Sync + 'static {
    /// Notes that a client has connected, and is there until the value is dropped.
    fn arrive(&self) -> Presence {
        Presence::default()
    }
    /// Notes that a client that may do so asks for this method.
    fn note_request(&self, _method: &str) {}
    /// Answers [`List`].
    fn list(&self, params: ListParams) -> impl Future<Output = Result<ListResult, RpcError>> + Send;
    /// Answers [`Status`].
    fn status(&self, params: StatusParams) -> impl Future<Output = Result<StatusResult, RpcError>> + Send;
    /// Answers [`Start`].
    fn start(&self, params: OperationParams) -> impl Future<Output = Result<StartResult, RpcError>> + Send;
    /// Answers [`Stop`].
    fn stop(&self, params: OperationParams) -> impl Future<Output = Result<StopResult, RpcError>> + Send;
    /// Answers [`Restart`].
    fn restart(
        &self,
        params: OperationParams,
    ) -> impl Future<Output = Result<RestartResult, RpcError>> + Send;
    /// Answers [`Pause`].
    fn pause(&self, params: OperationParams) -> impl Future<Output = Result<PauseResult, RpcError>> + Send;
    /// Answers [`Resume`].
    fn resume(&self, params: OperationParams) -> impl Future<Output = Result<ResumeResult, RpcError>> + Send;
    /// Answers [`Signal`].
    fn signal(&self, params: SignalParams) -> impl Future<Output = Result<SignalResult, RpcError>> + Send;
    /// Answers [`Enable`].
    fn enable(&self, _: OperationParams) -> impl Future<Output = Result<EnableResult, RpcError>> + Send {
        async { Err(unsupported(Enable::NAME)) }
    }
    /// Answers [`Disable`].
    fn disable(&self, _: OperationParams) -> impl Future<Output = Result<DisableResult, RpcError>> + Send {
        async { Err(unsupported(Disable::NAME)) }
    }
    /// Answers [`Add`].
    fn add(&self, _: AddParams) -> impl Future<Output = Result<AddResult, RpcError>> + Send {
        async { Err(unsupported(Add::NAME)) }
    }
    /// Answers [`Remove`].
    fn remove(&self, _: RemoveParams) -> impl Future<Output = Result<RemoveResult, RpcError>> + Send {
        async { Err(unsupported(Remove::NAME)) }
    }
    /// Answers [`Usage`].
    fn usage(&self, _: UsageParams) -> impl Future<Output = Result<UsageResult, RpcError>> + Send {
        async { Err(unsupported(Usage::NAME)) }
    }
    /// Answers [`Why`].
    fn why(&self, _: WhyParams) -> impl Future<Output = Result<WhyResult, RpcError>> + Send {
        async { Err(unsupported(Why::NAME)) }
    }
    /// Answers [`Show`].
    fn show(&self, _: ShowParams) -> impl Future<Output = Result<ShowResult, RpcError>> + Send {
        async { Err(unsupported(Show::NAME)) }
    }
    /// Answers [`Tools`].
    fn tools(&self, _: CatalogParams) -> impl Future<Output = Result<ToolsResult, RpcError>> + Send {
        async { Err(unsupported(Tools::NAME)) }
    }
    /// Answers [`Prompts`].
    fn prompts(&self, _: CatalogParams) -> impl Future<Output = Result<PromptsResult, RpcError>> + Send {
        async { Err(unsupported(Prompts::NAME)) }
    }
    /// Answers [`Prompt`].
    fn prompt(&self, _: PromptParams) -> impl Future<Output = Result<AnswerResult, RpcError>> + Send {
        async { Err(unsupported(Prompt::NAME)) }
    }
    /// Answers [`Resources`].
    fn resources(&self, _: CatalogParams) -> impl Future<Output = Result<ResourcesResult, RpcError>> + Send {
        async { Err(unsupported(Resources::NAME)) }
    }
    /// Answers [`Resource`].
    fn resource(&self, _: ResourceParams) -> impl Future<Output = Result<AnswerResult, RpcError>> + Send {
        async { Err(unsupported(Resource::NAME)) }
    }
    /// Answers [`Call`].
    fn call(&self, _: CallParams) -> impl Future<Output = Result<AnswerResult, RpcError>> + Send {
        async { Err(unsupported(Call::NAME)) }
    }
    /// Answers [`DaemonDiagnostics`].
    fn diagnostics(
        &self,
        _: DiagnosticsParams,
    ) -> impl Future<Output = Result<DiagnosticsResult, RpcError>> + Send {
        async {
            Ok(DiagnosticsResult {
                daemon: self.version(VersionParams::default()).await?,
                socket: socket_facts(),
                http: self.http().map(|http| http.facts()),
                events: None,
                operations: self.operations().map_or(0, |operations| operations.under_way()),
                connections: None,
                last_activity_unix_ms: None,
                recent_errors: Vec::new(),
            })
        }
    }
    /// Returns what was asked for lately, if that is known.
    fn operations(&self) -> Option<Arc<OperationTable>> {
        None
    }
    /// Returns how a server's output fares, if it has some; for measurements.
    fn output_health(&self, _name: &str) -> Option<LogHealth> {
        None
    }
    /// Returns what HTTP is, if it is on.
    fn http(&self) -> Option<Arc<HttpPlane>> {
        None
    }
    /// Answers [`Reload`].
    fn reload(&self, params: ReloadParams) -> impl Future<Output = Result<ReloadResult, RpcError>> + Send;
    /// Opens the source for [`Logs`]. When it ends, the subscriber is told with `log_end`.
    fn logs(
        &self,
        params: LogsParams,
    ) -> impl Future<Output = Result<Box<dyn Subscription>, RpcError>> + Send;
    /// Opens the source for [`Events`]. When it ends, the subscriber is told with `event_end`.
    fn events(
        &self,
        params: EventsParams,
    ) -> impl Future<Output = Result<Box<dyn Subscription>, RpcError>> + Send;
    /// Answers [`Version`].
    fn version(&self, params: VersionParams) -> impl Future<Output = Result<VersionResult, RpcError>> + Send;
    /// Answers [`Shutdown`]; it begins the shutdown and does not wait for it.
    fn shutdown(
        &self,
        params: ShutdownParams,
    ) -> impl Future<Output = Result<ShutdownResult, RpcError>> + Send;
    /// Returns what every request has to pass, if anything.
    fn gate(&self) -> Option<&Gate> {
        None
    }
    /// Returns the paths of what an operation on these targets is about, with everything that lies in groups among them.
    fn affected(&self, targets: Targets) -> impl Future<Output = Vec<String>> + Send {
        async {
            match targets {
                Targets::Names(names) => names,
                Targets::All => vec!["*".to_owned()],
            }
        }
    }
    /// Answers [`Upgrade`] when it is certain whether the new program can take over, just before it does.
    fn upgrade(&self, params: UpgradeParams) -> impl Future<Output = Result<UpgradeResult, RpcError>> + Send;
    /// Returns what a program answers beside these methods.
    fn registry(&self) -> Option<&Registry> {
        None
    }
}

/// Returns the limits in force.
pub(crate) fn socket_facts() -> SocketFacts {
    SocketFacts {
        connections: MAX_CONNECTIONS,
        in_flight: MAX_IN_FLIGHT,
        subscriptions: MAX_SUBSCRIPTIONS,
        line_bytes: MAX_LINE,
        write_stall_secs: WRITE_STALL.as_secs(),
    }
}

/// Returns HTTP for a method that is about it.
fn http_of<S: Service>(service: &S, method: &str) -> Result<Arc<HttpPlane>, RpcError> {
    let off = || RpcError::new(ErrorKind::Unsupported, format!("`{method}` is about HTTP, which is off"));
    service.http().ok_or_else(off)
}

/// Returns what was asked for lately.
fn operations_of<S: Service>(service: &S, method: &str) -> Result<Arc<OperationTable>, RpcError> {
    service.operations().ok_or_else(|| unsupported(method))
}

fn operation_of<S: Service>(service: &S, params: &OperationStatusParams) -> Result<Operation, RpcError> {
    let unknown = || RpcError::invalid_parameter("id", "no such operation is known, or no more");
    operations_of(service, OperationStatus::NAME)?.get(&params.id).ok_or_else(unknown)
}

fn unsupported(method: &str) -> RpcError {
    RpcError::new(ErrorKind::Unsupported, format!("`{method}` does not exist for this daemon"))
}

/// A source of notifications with a cursor of its own, so that its speed is its subscriber's.
pub trait Subscription: Send {
    /// Waits for the next notifications; `None` ends the subscription.
    ///
    /// The future is dropped when the subscription is canceled.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<Notification>>> + Send + '_>>;
}

/// Accepts and serves connections until `shutdown` completes, then lets requests in flight finish for at most [`DRAIN`].
///
/// The socket is removed before it returns.
///
/// # Cancel safety
///
/// Dropping the future drops the socket and all connections.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, shutdown: impl Future<Output = ()>) {
    let (closing, close) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut open: Vec<Arc<Activity>> = Vec::new();
    let mut sessions: u64 = 0;
    let clock = Arc::new(AtomicU64::new(0));
    let budget = Arc::new(Budget::new());
    let mut shutdown = pin!(shutdown);
    let mut not_before = Instant::now();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                open.retain(|activity| Arc::strong_count(activity) > 1);
                continue;
            }
            accepted = async {
                sleep_until(not_before).await;
                listener.accept().await
            } => accepted,
        };
        open.retain(|activity| Arc::strong_count(activity) > 1);
        let stream = match accepted {
            Ok(stream) => stream,
            // Who waits may be more than who sits here and asks nothing, and took the last descriptors while all were busy.
            Err(error) => {
                let is_awaited = listener.is_awaited();
                if is_awaited {
                    tracing::warn!(%error, "accepting a connection failed");
                }
                let makes_room = is_awaited && make_room(&mut open);
                not_before = Instant::now() + socket::accept_rest(makes_room);
                continue;
            }
        };
        let is_scarce = is_reserved(stream.as_fd());
        // The last descriptors are for whoever comes while all are busy.
        if (open.len() >= MAX_CONNECTIONS || is_scarce)
            && !make_room(&mut open)
            && open.len() >= MAX_CONNECTIONS
        {
            tracing::warn!("a connection was refused: all of them are busy");
            continue;
        }
        let activity = Arc::new(Activity::new(Arc::clone(&clock), budget.unread.join()));
        open.push(Arc::clone(&activity));
        sessions += 1;
        let session = format!("socket-{sessions}");
        let caller = Caller::new(Surface::Socket, &socket::peer_program(&stream), session);
        let (reader, writer) = stream.into_split();
        let presence = service.arrive();
        let shared =
            Shared { service: Arc::clone(&service), budget: Arc::clone(&budget), close: close.clone() };
        let connection = serve_connection(reader, writer, shared, activity, caller);
        connections.spawn(async move {
            connection.await;
            drop(presence);
        });
        if sessions.is_multiple_of(ACCEPTED_AT_A_TIME) {
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    closing.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Closes the idle connection that is worth least; returns whether there was one.
fn make_room(open: &mut Vec<Arc<Activity>>) -> bool {
    let idle = open.iter().enumerate().filter(|(_, one)| one.is_idle());
    let Some((least, _)) = idle.min_by_key(|(_, one)| one.worth()) else { return false };
    open.swap_remove(least).evict.notify_one();
    true
}

/// Serves one connection as [`serve`] does, to its end.
#[cfg(feature = "testkit")]
pub(crate) async fn serve_alone<S: Service>(stream: tokio::io::DuplexStream, service: Arc<S>) {
    let (reader, writer) = tokio::io::split(stream);
    let (_closing, close) = watch::channel(false);
    let budget = Arc::new(Budget::new());
    let activity = Arc::new(Activity::new(Arc::default(), budget.unread.join()));
    let shared = Shared { service, budget, close };
    let caller = Caller::new(Surface::Socket, "alone", "alone");
    serve_connection(reader, writer, shared, activity, caller).await;
}

/// What all connections have together.
#[derive(Debug)]
struct Budget {
    /// Of long requests in flight.
    bytes: Arc<Semaphore>,
    unread: Arc<Unread>,
}

impl Budget {
    fn new() -> Self {
        Self { bytes: Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT)), unread: Arc::default() }
    }
}

/// Output that waits for its turn, with what is given back once it is written.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    _unread: Held,
    _turn: Option<OwnedSemaphorePermit>,
}

/// Who may be closed to make room.
#[derive(Debug)]
struct Activity {
    /// Requests in flight and subscriptions.
    busy: AtomicUsize,
    last_used: AtomicU64,
    has_asked: AtomicBool,
    /// Counts what happens on all connections; an order is all that is needed.
    clock: Arc<AtomicU64>,
    evict: Notify,
    account: Account,
}

impl Activity {
    fn new(clock: Arc<AtomicU64>, account: Account) -> Self {
        let now = clock.fetch_add(1, Ordering::Relaxed);
        let (busy, last_used) = (AtomicUsize::new(0), AtomicU64::new(now));
        Self { busy, last_used, has_asked: AtomicBool::new(false), clock, evict: Notify::new(), account }
    }

    fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Orders the idle ones: who has been answered before is worth more than who has only connected, however lately.
    fn worth(&self) -> (bool, u64) {
        (self.has_asked.load(Ordering::Relaxed), self.last_used.load(Ordering::Relaxed))
    }

    /// Counts as busy until the guard is dropped.
    fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

#[derive(Debug)]
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.last_used.store(self.0.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.0.has_asked.store(true, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all connections share.
struct Shared<S> {
    service: Arc<S>,
    budget: Arc<Budget>,
    close: watch::Receiver<bool>,
}

/// What the requests of one connection share.
struct Connection<S> {
    service: Arc<S>,
    output: mpsc::Sender<Piece>,
    slots: Arc<Semaphore>,
    /// The turn of requests with long answers: the next one when the last one's is written.
    long: Arc<Semaphore>,
    /// Shared by all connections.
    budget: Arc<Budget>,
    subscriptions: Mutex<Subscriptions>,
    activity: Arc<Activity>,
    peer: Mutex<Peer>,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
struct Peer {
    caller: Caller,
    /// Whether it has said itself who it is.
    is_identified: bool,
}

#[derive(Default)]
struct Subscriptions {
    last_id: u64,
    running: HashMap<SubscriptionId, (Topic, JoinHandle<()>)>,
}

/// What a subscription is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Logs,
    Events,
}

/// The answers to the requests of one batch, which are written together: each counts as unread from when it is there, and
/// all of them have at most [`MAX_LINE`] bytes, as far as that is in the hands of who answers.
#[derive(Debug)]
struct Parts {
    account: Account,
    length: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
struct Part {
    text: String,
    _unread: Held,
}

impl Part {
    fn as_str(&self) -> &str {
        &self.text
    }
}

impl Parts {
    fn new(account: Account) -> Self {
        // The brackets around it.
        Self { account, length: AtomicUsize::new(2) }
    }

    fn write(&self, response: &Response) -> Part {
        let mut text = response.to_json();
        let length = text.len() + 1;
        if self.length.fetch_add(length, Ordering::Relaxed) + length > MAX_LINE {
            self.length.fetch_sub(length, Ordering::Relaxed);
            let message = format!("the answers to the batch have more than {MAX_LINE} bytes");
            let error = RpcError::new(ErrorKind::LimitExceeded, message);
            text = Response::new::<()>(response.id().clone(), Err(error)).to_json();
        }
        Part { _unread: self.account.hold(text.len()), text }
    }
}

/// A subscription whose answer is not written yet.
struct Opened {
    go: oneshot::Sender<()>,
}

/// How reading a connection ended.
enum End {
    /// The client sends no more; what it asked for is still answered.
    Input,
    /// Nothing can be written any more.
    Output,
    /// The daemon stops serving.
    Closing,
}

async fn serve_connection<S: Service>(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin + Send + 'static,
    shared: Shared<S>,
    activity: Arc<Activity>,
    caller: Caller,
) {
    let Shared { service, budget, mut close } = shared;
    let ending = EndSession { service: Arc::clone(&service), session: caller.session.clone() };
    let (output, queue) = mpsc::channel(QUEUE);
    let mut writing = tokio::spawn(write_queue(writer, queue));
    let _abort = AbortOnDrop(writing.abort_handle());
    let connection = Arc::new(Connection {
        service,
        output,
        slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        long: Arc::new(Semaphore::new(1)),
        budget,
        subscriptions: Mutex::default(),
        activity,
        peer: Mutex::new(Peer { caller, is_identified: false }),
    });
    let mut requests = JoinSet::new();
    let end = {
        let mut reading = pin!(read_requests(FrameReader::new(reader), &connection, &mut requests));
        tokio::select! {
            () = &mut reading => End::Input,
            _ = &mut writing => End::Output,
            _ = close.wait_for(|closing| *closing) => End::Closing,
            () = connection.activity.evict.notified() => End::Input,
            () = connection.activity.account.given_up() => {
                writing.abort();
                End::Output
            }
        }
    };
    connection.end_subscriptions();
    let finish = async {
        while requests.join_next().await.is_some() {}
        // Requests may have opened subscriptions in the meantime. The writer ends when the last sender is gone.
        connection.end_subscriptions();
        drop(connection);
        if !matches!(end, End::Output) {
            _ = (&mut writing).await;
        }
    };
    let deadline = async {
        // An error means that `serve` itself was dropped, which is the end as well.
        _ = close.wait_for(|closing| *closing).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = finish => {}
        // What is not done by then is dropped.
        () = deadline => {}
    }
    drop(ending);
}

/// Ends the session of a connection, however that ends.
struct EndSession<S: Service> {
    service: Arc<S>,
    session: String,
}

impl<S: Service> Drop for EndSession<S> {
    fn drop(&mut self) {
        if let Some(gate) = self.service.gate() {
            gate.end_session(&self.session);
        }
    }
}

/// Reads requests and starts each in a task, until the client sends no more or breaks the framing.
async fn read_requests<S: Service>(
    mut frames: FrameReader<impl AsyncRead + Unpin>,
    connection: &Arc<Connection<S>>,
    requests: &mut JoinSet<()>,
) {
    loop {
        while requests.try_join_next().is_some() {}
        // The slot comes first, so that no more is read than can be served.
        let Ok(slot) = Arc::clone(&connection.slots).acquire_owned().await else { return };
        match frames.next().await {
            Ok(Some(line)) => {
                // A line is far shorter than the bound of the type.
                let weight = if line.len() > SHORT_LINE { line.len() as u32 } else { 0 };
                let Ok(bytes) = Arc::clone(&connection.budget.bytes).acquire_many_owned(weight).await else {
                    return;
                };
                let connection = Arc::clone(connection);
                let busy = connection.activity.busy();
                requests.spawn(async move {
                    connection.handle(line).await;
                    drop((slot, bytes, busy));
                });
            }
            Ok(None) => return,
            Err(error @ (FrameError::TooLong | FrameError::Incomplete)) => {
                let error = RpcError::new(ErrorKind::InvalidRequest, error.to_string());
                connection.answer(&Refused { id: Id::null(), error }.into(), None).await;
                return;
            }
            Err(FrameError::Io(error)) => {
                tracing::debug!(%error, "a connection failed");
                return;
            }
        }
    }
}

/// Writes what is queued, until the queue is closed or the client does not read.
async fn write_queue(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Piece>) {
    let mut pieces = Vec::with_capacity(QUEUE);
    while queue.recv_many(&mut pieces, QUEUE).await > 0 {
        // Small pieces travel together: one system call instead of many.
        let mut slices = [IoSlice::new(&[]); QUEUE];
        for (slice, piece) in slices.iter_mut().zip(&pieces) {
            *slice = IoSlice::new(&piece.bytes);
        }
        let mut rest = &mut slices[..pieces.len()];
        while !rest.is_empty() {
            match timeout(WRITE_STALL, writer.write_vectored(rest)).await {
                Ok(Ok(0)) => return,
                Ok(Ok(count)) => IoSlice::advance_slices(&mut rest, count),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection failed");
                    return;
                }
                Err(_) => {
                    tracing::warn!("a connection was closed: its client does not read");
                    return;
                }
            }
        }
        pieces.clear();
    }
}

impl<S: Service> Connection<S> {
    /// Serves one line.
    async fn handle(self: &Arc<Self>, line: Vec<u8>) {
        let incoming = Incoming::parse(&line);
        drop(line);
        match incoming {
            Incoming::Single(request) => {
                let turn = self.turn(&request).await;
                if turn.is_some() && self.output.is_closed() {
                    return;
                }
                // In memory of its own, so that what waits for its turn takes little.
                let (response, opened) = Box::pin(self.run(request)).await;
                if let Some(response) = response {
                    self.answer(&response, turn).await;
                }
                Self::begin(opened);
            }
            Incoming::Batch(requests) => Box::pin(self.handle_batch(requests)).await,
            Incoming::Short(message) => Box::pin(self.handle_short(message)).await,
        }
    }

    /// Waits for the turn of a request with a long answer; others need none.
    async fn turn(&self, request: &Result<Request, Refused>) -> Option<OwnedSemaphorePermit> {
        match request {
            Ok(request) if LONG.contains(&request.method.as_str()) => {
                // It fails only once it is closed, which it never is.
                Arc::clone(&self.long).acquire_owned().await.ok()
            }
            _ => None,
        }
    }

    /// Serves a control message.
    async fn handle_short(self: &Arc<Self>, message: ControlMessage) {
        let outcome = match &message.request {
            Ok(request) => call(&*self.service, &self.caller(), request).await,
            Err(error) => Err(error.clone()),
        };
        let outcome = outcome.and_then(|answer| match answer {
            Answer::Result(result) if result.get().len() < MAX_LINE => Ok(result),
            Answer::Result(result) => {
                let message = format!("the result has {} bytes, more than {MAX_LINE}", result.get().len());
                Err(RpcError::new(ErrorKind::InternalError, message))
            }
            Answer::Subscription(_) => unreachable!("no control message is for a subscription"),
        });
        let mut text = message.answer(&outcome);
        text.push('\n');
        self.write(text.into_bytes()).await;
    }

    /// Serves a batch: as many of its requests at a time as there are free slots, at least one.
    async fn handle_batch(self: &Arc<Self>, requests: Vec<Result<Request, Refused>>) {
        let count = requests.len();
        let requests = Mutex::new(requests.into_iter().enumerate());
        let answers = Mutex::new(Vec::with_capacity(count));
        let parts = Parts::new(self.activity.account.clone());
        let lane = || async {
            loop {
                let Some((index, request)) = lock(&requests).next() else { return };
                let turn = self.turn(&request).await;
                if turn.is_some() && self.output.is_closed() {
                    continue;
                }
                let (response, opened) = self.run(request).await;
                lock(&answers).push((index, response.map(|response| parts.write(&response)), opened));
            }
        };
        // The batch itself has a slot. Only slots that are free are added, so that batches never wait for each other.
        let more = self.slots.available_permits().min(count - 1);
        let slots = u32::try_from(more).ok().and_then(|more| self.slots.try_acquire_many(more).ok());
        let more = if slots.is_some() { more } else { 0 };
        let mut lanes: Vec<_> = (0..=more).map(|_| Box::pin(lane())).collect();
        poll_fn(|context| {
            lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
            if lanes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop(lanes);
        let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.sort_by_key(|(index, ..)| *index);
        let mut text = String::new();
        for (_, part, _) in &answers {
            let Some(part) = part else { continue };
            text.push(if text.is_empty() { '[' } else { ',' });
            text.push_str(part.as_str());
        }
        if !text.is_empty() {
            text.push_str("]\n");
            self.write(text.into_bytes()).await;
        }
        answers.into_iter().for_each(|(.., opened)| Self::begin(opened));
    }

    /// Runs one request; a notification runs as well and has no answer.
    async fn run(self: &Arc<Self>, request: Result<Request, Refused>) -> (Option<Response>, Option<Opened>) {
        let request = match request {
            Ok(request) => request,
            Err(refused) => return (Some(refused.into()), None),
        };
        let entered = Entered::of(&*self.service, &request);
        let outcome = guarded(&*self.service, &self.caller(), &request, self.dispatch(&request)).await;
        entered.done(|| match &outcome {
            Ok(Outcome::Result(result)) => Ok(result.clone()),
            // No operation is a subscription.
            Ok(Outcome::Source(..)) => Err(unsupported(&request.method)),
            Err(error) => Err(error.clone()),
        });
        let Some(id) = request.id else { return (None, None) };
        match outcome {
            Ok(Outcome::Result(result)) => (Some(Response::new(id, Ok(result))), None),
            Ok(Outcome::Source(topic, source)) => {
                let (result, opened) = match self.open(topic, source) {
                    Ok((subscription_id, opened)) => (Ok(SubscribeResult { subscription_id }), Some(opened)),
                    Err(error) => (Err(error), None),
                };
                (Some(Response::new(id, result)), opened)
            }
            Err(error) => (Some(Response::new::<()>(id, Err(error))), None),
        }
    }

    /// Runs the method of a request.
    async fn dispatch(&self, request: &Request) -> Result<Outcome, RpcError> {
        match request.method.as_str() {
            LogsCancel::NAME => result::<LogsCancel>(self.cancel(Topic::Logs, request.params()?).await),
            EventsCancel::NAME => result::<EventsCancel>(self.cancel(Topic::Events, request.params()?).await),
            Identify::NAME => result::<Identify>(self.identify(request.params()?)),
            _ => dispatch(&*self.service, request).await,
        }
    }

    fn caller(&self) -> Caller {
        lock(&self.peer).caller.clone()
    }

    /// Takes a client at its word, once: whoever speaks for it later cannot be somebody else.
    fn identify(&self, params: IdentifyParams) -> Result<IdentifyResult, RpcError> {
        let mut peer = lock(&self.peer);
        if peer.is_identified {
            let message = "this connection has said who it is";
            return Err(RpcError::new(ErrorKind::InvalidRequest, message));
        }
        let surface = if params.agent { Surface::Mcp } else { Surface::Socket };
        peer.caller = peer.caller.clone().named(surface, &params.client);
        peer.is_identified = true;
        Ok(IdentifyResult { client: peer.caller.client().to_owned(), session: peer.caller.session.clone() })
    }

    /// Gives a source its id and a task, which waits until the answer is on its way.
    fn open(
        self: &Arc<Self>,
        topic: Topic,
        source: Box<dyn Subscription>,
    ) -> Result<(SubscriptionId, Opened), RpcError> {
        let mut subscriptions = lock(&self.subscriptions);
        if subscriptions.running.len() >= MAX_SUBSCRIPTIONS {
            let message = format!("the connection has {MAX_SUBSCRIPTIONS} subscriptions, which is the most");
            return Err(RpcError::new(ErrorKind::LimitExceeded, message));
        }
        subscriptions.last_id += 1;
        let id = SubscriptionId(subscriptions.last_id);
        let (go, gone) = oneshot::channel();
        let connection = Arc::clone(self);
        let busy = self.activity.busy();
        let task = tokio::spawn(async move {
            if gone.await.is_ok() {
                connection.publish(id, topic, source).await;
            }
            lock(&connection.subscriptions).running.remove(&id);
            drop(busy);
        });
        subscriptions.running.insert(id, (topic, task));
        Ok((id, Opened { go }))
    }

    /// Lets a subscription speak.
    fn begin(opened: Option<Opened>) {
        if let Some(opened) = opened {
            // It fails when the subscription was ended meanwhile, which is fine.
            _ = opened.go.send(());
        }
    }

    /// Writes what a source says until it ends or nobody listens.
    async fn publish(&self, id: SubscriptionId, topic: Topic, mut source: Box<dyn Subscription>) {
        loop {
            let batch = match catch_panic(source.next()).await {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(panic) => {
                    tracing::error!(?topic, panic, "a subscription failed by a panic");
                    break;
                }
            };
            let mut piece = Vec::new();
            for notification in &batch {
                encode(&mut piece, id, notification);
                if piece.len() >= PIECE && !self.write(std::mem::take(&mut piece)).await {
                    return;
                }
            }
            if !piece.is_empty() && !self.write(piece).await {
                return;
            }
        }
        let mut piece = Vec::new();
        encode(
            &mut piece,
            id,
            &match topic {
                Topic::Logs => Notification::LogEnd,
                Topic::Events => Notification::EventEnd,
            },
        );
        self.write(piece).await;
    }

    /// Ends a subscription. When it returns, nothing of it is queued any more that was not queued before.
    async fn cancel(&self, topic: Topic, params: CancelParams) -> Result<CancelResult, RpcError> {
        let id = params.subscription_id;
        let task = {
            let mut subscriptions = lock(&self.subscriptions);
            match subscriptions.running.get(&id) {
                Some((found, _)) if *found == topic => subscriptions.running.remove(&id),
                _ => None,
            }
        };
        let Some((_, task)) = task else {
            let problem = format!("this connection has no such subscription ({id})");
            return Err(RpcError::invalid_parameter("subscription_id", problem));
        };
        task.abort();
        // The error is the abort.
        _ = task.await;
        Ok(CancelResult {})
    }

    fn end_subscriptions(&self) {
        for (_, (_, task)) in lock(&self.subscriptions).running.drain() {
            task.abort();
        }
    }

    /// Queues an answer.
    async fn answer(&self, response: &Response, turn: Option<OwnedSemaphorePermit>) {
        let mut text = response.to_json();
        if text.len() > MAX_LINE {
            let message = format!("the answer has {} bytes, more than {MAX_LINE}", text.len());
            let error = RpcError::new(ErrorKind::InternalError, message);
            text = Response::new::<()>(response.id().clone(), Err(error)).to_json();
        }
        text.push('\n');
        self.queue(text.into_bytes(), turn).await;
    }

    /// Waits for room and queues bytes; returns whether somebody still writes them.
    async fn write(&self, bytes: Vec<u8>) -> bool {
        self.queue(bytes, None).await
    }

    async fn queue(&self, bytes: Vec<u8>, turn: Option<OwnedSemaphorePermit>) -> bool {
        let unread = self.activity.account.hold(bytes.len());
        self.output.send(Piece { bytes, _unread: unread, _turn: turn }).await.is_ok()
    }
}

/// The table of methods that need no connection of their own.
async fn dispatch<S: Service>(service: &S, request: &Request) -> Result<Outcome, RpcError> {
    match request.method.as_str() {
        List::NAME => result::<List>(service.list(request.params()?).await),
        Status::NAME => result::<Status>(service.status(request.params()?).await),
        Start::NAME => result::<Start>(service.start(request.params()?).await),
        Stop::NAME => result::<Stop>(service.stop(request.params()?).await),
        Restart::NAME => result::<Restart>(service.restart(request.params()?).await),
        Pause::NAME => result::<Pause>(service.pause(request.params()?).await),
        Resume::NAME => result::<Resume>(service.resume(request.params()?).await),
        Signal::NAME => result::<Signal>(service.signal(request.params()?).await),
        Enable::NAME => result::<Enable>(service.enable(request.params()?).await),
        Disable::NAME => result::<Disable>(service.disable(request.params()?).await),
        Add::NAME => result::<Add>(service.add(request.params()?).await),
        Remove::NAME => result::<Remove>(service.remove(request.params()?).await),
        Usage::NAME => result::<Usage>(service.usage(request.params()?).await),
        Why::NAME => result::<Why>(service.why(request.params()?).await),
        Show::NAME => result::<Show>(service.show(request.params()?).await),
        Tools::NAME => result::<Tools>(service.tools(request.params()?).await),
        Prompts::NAME => result::<Prompts>(service.prompts(request.params()?).await),
        Prompt::NAME => result::<Prompt>(service.prompt(request.params()?).await),
        Resources::NAME => result::<Resources>(service.resources(request.params()?).await),
        Resource::NAME => result::<Resource>(service.resource(request.params()?).await),
        Call::NAME => result::<Call>(service.call(request.params()?).await),
        Reload::NAME => result::<Reload>(service.reload(request.params()?).await),
        DaemonDiagnostics::NAME => result::<DaemonDiagnostics>(service.diagnostics(request.params()?).await),
        Operations::NAME => {
            request.params::<OperationsParams>()?;
            result::<Operations>(operations_of(service, Operations::NAME).map(|operations| operations.list()))
        }
        OperationStatus::NAME => result::<OperationStatus>(operation_of(service, &request.params()?)),
        RotateToken::NAME => {
            let params = request.params()?;
            result::<RotateToken>(http_of(service, RotateToken::NAME)?.rotate(params).await)
        }
        Tokens::NAME => {
            request.params::<TokensParams>()?;
            result::<Tokens>(http_of(service, Tokens::NAME).map(|http| http.tokens()))
        }
        TokenAdd::NAME => {
            let params = request.params()?;
            result::<TokenAdd>(http_of(service, TokenAdd::NAME)?.add(params).await)
        }
        TokenRemove::NAME => {
            let params = request.params()?;
            result::<TokenRemove>(http_of(service, TokenRemove::NAME)?.remove(params).await)
        }
        Logs::NAME => Ok(Outcome::Source(Topic::Logs, service.logs(request.params()?).await?)),
        Events::NAME => Ok(Outcome::Source(Topic::Events, service.events(request.params()?).await?)),
        Capabilities::NAME => {
            request.params::<CapabilitiesParams>()?;
            result::<Capabilities>(Ok(capabilities(service)))
        }
        Version::NAME => {
            let params: VersionParams = request.params()?;
            check_protocol(params.protocol)?;
            result::<Version>(service.version(params).await)
        }
        Shutdown::NAME => result::<Shutdown>(service.shutdown(request.params()?).await),
        Upgrade::NAME => result::<Upgrade>(service.upgrade(request.params()?).await),
        // The gate answers these, or the connection.
        Identify::NAME => without_gate::<Identify>(request),
        Approvals::NAME => without_gate::<Approvals>(request),
        Approve::NAME => without_gate::<Approve>(request),
        Deny::NAME => without_gate::<Deny>(request),
        Grants::NAME => without_gate::<Grants>(request),
        Forget::NAME => without_gate::<Forget>(request),
        other => match service.registry() {
            Some(registry) => {
                registry.run(request).await.unwrap_or_else(|| Err(unknown(other))).map(Outcome::Result)
            }
            None => Err(unknown(other)),
        },
    }
}

fn unknown(method: &str) -> RpcError {
    let message = format!(
        "there is no method `{method}`; the daemon speaks version {PROTOCOL_VERSION} of the protocol"
    );
    RpcError::new(ErrorKind::MethodNotFound, message)
}

/// Refuses a client whose protocol is not understood; one that does not say it is taken at its word.
fn check_protocol(of_client: Option<u32>) -> Result<(), RpcError> {
    let (older, other) = match of_client {
        None | Some(OLDEST_PROTOCOL..=PROTOCOL_VERSION) => return Ok(()),
        Some(newer) if newer > PROTOCOL_VERSION => ("daemon", newer),
        Some(older) => ("client", older),
    };
    let versions = match OLDEST_PROTOCOL {
        PROTOCOL_VERSION => format!("version {PROTOCOL_VERSION}"),
        oldest => format!("versions {oldest} to {PROTOCOL_VERSION}"),
    };
    let message = format!(
        "the client speaks version {other} of the protocol and the daemon {versions}: upgrade the {older}"
    );
    Err(RpcError::new(ErrorKind::UnsupportedProtocol, message))
}

/// Says what can be asked of a service.
pub(crate) fn capabilities<S: Service>(service: &S) -> CapabilitiesResult {
    CapabilitiesResult {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL_VERSION,
        oldest_protocol: OLDEST_PROTOCOL,
        methods: METHODS.iter().map(|&name| name.to_owned()).collect(),
        registered: service.registry().into_iter().flat_map(Registry::descriptions).cloned().collect(),
    }
}

fn without_gate<M: Method>(request: &Request) -> Result<Outcome, RpcError> {
    request.params::<M::Params>()?;
    Err(unsupported(M::NAME))
}

/// What a method answers a caller that frames it in its own way.
pub enum Answer {
    /// The result, as JSON.
    Result(Box<RawValue>),
    /// The source of the notifications that were asked for.
    Subscription(Box<dyn Subscription>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Result(result) => f.debug_tuple("Result").field(result).finish(),
            Self::Subscription(_) => f.write_str("Subscription"),
        }
    }
}

/// Runs one request for a caller that is no connection of the socket.
///
/// # Errors
///
/// Whatever the method answers; [`ErrorKind::InternalError`] if it panics.
///
/// # Cancel safety
///
/// Dropping the future drops the operation with it; run it in a task of its own where it is to go on.
pub async fn call<S: Service>(service: &S, caller: &Caller, request: &Request) -> Result<Answer, RpcError> {
    let entered = Entered::of(service, request);
    let outcome = call_entered(service, caller, request).await;
    entered.done(|| match &outcome {
        Ok(Answer::Result(result)) => Ok(result.clone()),
        // No operation is a subscription.
        Ok(Answer::Subscription(_)) => Err(unsupported(&request.method)),
        Err(error) => Err(error.clone()),
    });
    outcome
}

/// Like [`call`], for a request that is in the table of operations already.
pub(crate) async fn call_entered<S: Service>(
    service: &S,
    caller: &Caller,
    request: &Request,
) -> Result<Answer, RpcError> {
    match guarded(service, caller, request, dispatch(service, request)).await? {
        Outcome::Result(result) => Ok(Answer::Result(result)),
        Outcome::Source(_, source) => Ok(Answer::Subscription(source)),
    }
}

/// A request in the table of operations, if it belongs there.
struct Entered(Option<(Arc<OperationTable>, String)>);

impl Entered {
    fn of<S: Service>(service: &S, request: &Request) -> Self {
        let Some(operations) = service.operations().filter(|_| is_operation(&request.method)) else {
            return Self(None);
        };
        // One that finds no room among so many that are under way goes on unseen.
        let entered = operations.enter(&request.method, only_server(request), unix_ms());
        Self(entered.map(|operation| {
            operations.begin(&operation.id);
            (operations, operation.id)
        }))
    }

    fn done(mut self, outcome: impl FnOnce() -> Result<Box<RawValue>, RpcError>) {
        if let Some((operations, id)) = self.0.take() {
            operations.finish(&id, &outcome(), unix_ms());
        }
    }
}

impl Drop for Entered {
    /// Nobody may be there any more who would have waited for its end.
    fn drop(&mut self) {
        if let Some((operations, id)) = self.0.take() {
            let error = RpcError::new(ErrorKind::ShuttingDown, "its client went away, or the daemon did");
            operations.finish(&id, &Err(error), unix_ms());
        }
    }
}

/// Returns whether a method belongs in the table of operations: its result is short, no secret, and worth asking for later.
fn is_operation(method: &str) -> bool {
    [
        Start::NAME,
        Stop::NAME,
        Restart::NAME,
        Pause::NAME,
        Resume::NAME,
        Enable::NAME,
        Disable::NAME,
        Signal::NAME,
        Reload::NAME,
        Add::NAME,
        Remove::NAME,
        Upgrade::NAME,
        Shutdown::NAME,
    ]
    .contains(&method)
}

/// Returns the server that a request is about, if it is about one.
fn only_server(request: &Request) -> Option<String> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Aimed {
        name: Option<String>,
        names: Vec<String>,
    }
    let Aimed { name, names } = request.params().unwrap_or_default();
    name.or_else(|| <[String; 1]>::try_from(names).ok().map(|[name]| name))
}

/// Refuses what a caller's token does not permit: the one place where scopes count, for every surface.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`].
pub(crate) fn check_scope<S: Service>(
    service: &S,
    caller: &Caller,
    request: &Request,
) -> Result<(), RpcError> {
    let method = request.method.as_str();
    let registered = || service.registry()?.description(method).map(|known| scope_of_registered(known.kind));
    // What there is not is refused as such, to those who may do anything.
    // Read as the method itself reads it, so that both agree on what is only asked.
    let is_dry_run = || request.params().is_ok_and(|ReloadParams { dry_run }| dry_run);
    let needed = scope_of_call(method, method == Reload::NAME && is_dry_run());
    let needed = needed.or_else(registered).unwrap_or(Scope::Admin);
    if needed <= caller.scope() {
        return Ok(());
    }
    if let Some(gate) = service.gate() {
        gate.note_refused(caller, request);
    }
    let (client, has) = (caller.client(), caller.scope());
    let message = format!("`{method}` needs the scope `{needed}`, and the token of `{client}` has `{has}`");
    Err(RpcError::new(ErrorKind::PermissionDenied, message))
}

/// Answers one text of JSON-RPC for a caller whose answers are not followed by notifications; `None` if nothing is to be
/// answered. Subscriptions are refused.
///
/// # Cancel safety
///
/// The requests go on when the future is dropped.
pub(crate) async fn answer<S: Service>(
    service: &Arc<S>,
    caller: &Caller,
    account: &Account,
    text: &[u8],
) -> Option<String> {
    let run = |request: Result<Request, Refused>| {
        let (service, caller) = (Arc::clone(service), caller.clone());
        async move { answer_one(&*service, &caller, request).await }
    };
    match Incoming::parse(text) {
        Incoming::Single(request) => {
            let response = tokio::spawn(run(request)).await.ok()?;
            response.map(|response| response.to_json())
        }
        Incoming::Short(_) => {
            let error = RpcError::new(ErrorKind::InvalidRequest, "`jsonrpc` must be \"2.0\"");
            Some(Response::from(Refused { id: Id::null(), error }).to_json())
        }
        Incoming::Batch(requests) => {
            let parts = Arc::new(Parts::new(account.clone()));
            let tasks: Vec<_> = requests
                .into_iter()
                .map(|request| {
                    let (running, parts) = (run(request), Arc::clone(&parts));
                    tokio::spawn(async move { Some(parts.write(&running.await?)) })
                })
                .collect();
            let mut answers: Vec<Part> = Vec::with_capacity(tasks.len());
            for task in tasks {
                answers.extend(task.await.ok().flatten());
            }
            let texts: Vec<_> = answers.iter().map(Part::as_str).collect();
            (!texts.is_empty()).then(|| format!("[{}]", texts.join(",")))
        }
    }
}

async fn answer_one<S: Service>(
    service: &S,
    caller: &Caller,
    request: Result<Request, Refused>,
) -> Option<Response> {
    let request = match request {
        Ok(request) => request,
        Err(refused) => return Some(refused.into()),
    };
    let outcome = match call(service, caller, &request).await {
        Ok(Answer::Result(result)) => Ok(result),
        Ok(Answer::Subscription(_)) => {
            let message = format!("`{}` needs a connection that stays; use its event stream", request.method);
            Err(RpcError::new(ErrorKind::Unsupported, message))
        }
        Err(error) => Err(error),
    };
    Some(Response::new(request.id?, outcome))
}

/// Lets a request pass the service's gate, if it has one, and runs it.
async fn guarded<S: Service>(
    service: &S,
    caller: &Caller,
    request: &Request,
    dispatched: impl Future<Output = Result<Outcome, RpcError>>,
) -> Result<Outcome, RpcError> {
    check_scope(service, caller, request)?;
    service.note_request(&request.method);
    let Some(gate) = service.gate() else { return run_caught(&request.method, dispatched).await };
    let passage = gate.enter(service, caller, request).await?;
    let outcome = match gate.answer(caller, request).await {
        Some(answered) => answered.map(Outcome::Result),
        None => run_caught(&request.method, dispatched).await,
    };
    passage.leave(match &outcome {
        Ok(Outcome::Result(result)) => Ok(Some(&**result)),
        Ok(Outcome::Source(..)) => Ok(None),
        Err(error) => Err(error),
    });
    outcome
}

/// Runs a method; a panic in it is logged and answered.
async fn run_caught(
    method: &str,
    dispatched: impl Future<Output = Result<Outcome, RpcError>>,
) -> Result<Outcome, RpcError> {
    catch_panic(dispatched).await.unwrap_or_else(|panic| {
        tracing::error!(method, panic, "a request failed by a panic");
        Err(RpcError::new(
            ErrorKind::InternalError,
            "the daemon failed to handle the request; its log says more",
        ))
    })
}

/// What a method came to.
enum Outcome {
    /// A result as JSON.
    Result(Box<RawValue>),
    /// A source of notifications.
    Source(Topic, Box<dyn Subscription>),
}

fn result<M: Method>(outcome: Result<M::Result, RpcError>) -> Result<Outcome, RpcError> {
    serde_json::value::to_raw_value(&outcome?).map(Outcome::Result).map_err(|error| {
        RpcError::new(
            ErrorKind::InternalError,
            format!("the result of `{}` cannot be written: {error}", M::NAME),
        )
    })
}

/// Appends a notification as one line; one that is too long becomes a gap.
fn encode(piece: &mut Vec<u8>, id: SubscriptionId, notification: &Notification) {
    #[derive(Serialize)]
    struct Nothing {}
    fn append<T: Serialize>(piece: &mut Vec<u8>, id: SubscriptionId, method: &str, body: &T) -> bool {
        let start = piece.len();
        let params = Subscribed { subscription_id: id, body };
        let written = serde_json::to_writer(&mut *piece, &Outgoing::notification(method, &params));
        if written.is_err() || piece.len() - start > MAX_LINE {
            piece.truncate(start);
            return false;
        }
        piece.push(b'\n');
        true
    }
    let method = notification.method();
    let missed = match notification {
        Notification::Log(line) => {
            (!append(piece, id, method, line)).then_some((Notification::LOG_GAP, line.number))
        }
        Notification::Event(event) => {
            (!append(piece, id, method, event)).then_some((Notification::EVENT_GAP, event.seq))
        }
        Notification::LogGap(gap) | Notification::EventGap(gap) => {
            append(piece, id, method, gap);
            None
        }
        Notification::LogEnd | Notification::EventEnd => {
            append(piece, id, method, &Nothing {});
            None
        }
    };
    if let Some((method, number)) = missed {
        tracing::warn!(number, method, "a notification was too long to be sent");
        append(piece, id, method, &Gap { first: number, last: number });
    }
}

/// Runs a future and returns a panic's text as an error.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    // The future is never polled again after a panic, and what it shares with others is only locked by `lock`, which
    // leaves nothing half done.
    let polled = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    });
    polled.await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
    })
}

/// Locks; each of these locks guards a single step, so that a panic elsewhere cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
