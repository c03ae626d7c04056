//! A typed client of the control protocol, for programs and tests.
//!
//! ```no_run
//! use xy_daemon::client::Client;
//! use xy_daemon::paths::Directories;
//! use xy_daemon::protocol::method::{List, ListParams};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&Directories::of_user()?.default_socket()).await?;
//! for server in client.call::<List>(ListParams {}).await?.servers {
//!     println!("{} is {}", server.name, server.state);
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use interprocess::local_socket::tokio::Stream as LocalStream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{ConnectOptions, GenericFilePath, ToFsName};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::paths::{SocketPathError, check_socket_path};
use crate::protocol::error::RpcError;
use crate::protocol::frame::{FrameError, FrameReader};
use crate::protocol::message::{Id, Outgoing, Reply, ReplyError};
use crate::protocol::method::{
    CancelParams, Event, Events, EventsCancel, Gap, LogLine, Logs, LogsCancel, Notification, SubscribeResult,
    Subscribed, SubscriptionId, Version, VersionParams, VersionResult,
};
use crate::protocol::{Method, PROTOCOL_VERSION};

mod batch;

pub use self::batch::{Answer, Answers, Batch};

/// How many bytes of notifications wait for a slow reader of a subscription; beyond, they become a gap.
pub const MAX_BACKLOG: usize = 16 << 20;

/// How long connecting goes on while the daemon's queue of connections is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many messages wait for the writer.
const QUEUE: usize = 32;

/// Why a daemon could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no daemon behind the socket, or it cannot be reached. [`ClientError::hint`] says what to do.
    #[error("no daemon can be reached at `{}`", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The path cannot be a socket's.
    #[error(transparent)]
    Path(#[from] SocketPathError),
    /// The daemon refused, or failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The daemon said something that this client does not understand.
    #[error("the daemon sent a message that is not understood")]
    Protocol(#[source] ReplyError),
    /// The daemon sent a line that cannot be read.
    #[error("the daemon's messages cannot be read")]
    Frame(#[source] FrameError),
    /// The daemon closed the connection, or ended.
    #[error("the daemon closed the connection")]
    Closed,
}

impl ClientError {
    /// Returns what a person could do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Some("start the daemon with `xyctl daemon start`, or with `xyctl up` to watch it")
                }
                io::ErrorKind::PermissionDenied => {
                    Some("the daemon belongs to another user; only its owner and root may connect")
                }
                _ => None,
            },
            Self::Path(_) => Some("choose a shorter path with `--socket` or `XY_SOCKET`"),
            _ => None,
        }
    }
}

/// A connection to a daemon. Any number of calls may be in flight at once.
///
/// Dropping it ends its subscriptions and leaves operations that have begun alone.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

/// A method that opens a subscription.
pub trait Subscribe: Method<Result = SubscribeResult> {
    /// The method that ends it.
    type Cancel: Method<Params = CancelParams>;
}

impl Subscribe for Logs {
    type Cancel = LogsCancel;
}

impl Subscribe for Events {
    type Cancel = EventsCancel;
}

#[derive(Debug)]
struct Shared {
    output: mpsc::Sender<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// Why the connection ended; everything after answers with it.
    ended: Option<Ended>,
    pending: HashMap<u64, Pending>,
    subscriptions: HashMap<SubscriptionId, Arc<Backlog>>,
}

#[derive(Debug)]
enum Pending {
    Call(oneshot::Sender<Result<Box<RawValue>, RpcError>>),
    Subscribe(oneshot::Sender<Result<Subscription, RpcError>>, &'static str),
}

/// How a connection ended, for those who wait on it.
#[derive(Debug, Clone)]
enum Ended {
    Closed,
    Frame(Arc<FrameError>),
    Protocol(Arc<ReplyError>),
}

impl From<Ended> for ClientError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed => Self::Closed,
            Ended::Frame(error) => Self::Frame(shared_frame_error(&error)),
            Ended::Protocol(error) => Self::Protocol(ReplyError::Shape { problem: error.to_string() }),
        }
    }
}

/// Copies an error that several calls end with; an I/O error keeps its kind.
fn shared_frame_error(error: &FrameError) -> FrameError {
    match error {
        FrameError::TooLong => FrameError::TooLong,
        FrameError::Incomplete => FrameError::Incomplete,
        FrameError::Io(error) => FrameError::Io(io::Error::new(error.kind(), error.to_string())),
    }
}

impl Client {
    /// Connects to the daemon that serves the socket at `path`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] if nobody serves it or the system refuses; the path cannot be a socket's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the connection.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        check_socket_path(path)?;
        let stream =
            open(path).await.map_err(|source| ClientError::Unreachable { path: path.to_owned(), source })?;
        let (reader, writer) = stream.into_split();
        let (output, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared { output, state: Mutex::default() });
        let write = tokio::spawn(write_queue(writer, queue));
        let read = tokio::spawn(read_replies(reader, Arc::downgrade(&shared)));
        Ok(Self { shared, tasks: [write.abort_handle(), read.abort_handle()] })
    }

    /// Calls a method and waits for its result.
    ///
    /// # Errors
    ///
    /// [`ClientError::Rpc`] with the daemon's answer; otherwise the connection ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the answer; the daemon may carry out the call all the same.
    pub async fn call<M: Method>(&self, params: M::Params) -> Result<M::Result, ClientError> {
        let (reply, answer) = oneshot::channel();
        let id = self.shared.register(Pending::Call(reply))?;
        let _forget = Forget { shared: &self.shared, id };
        self.shared.send::<M>(id, &params).await?;
        let result = answer.await.map_err(|_| self.shared.ended())??;
        decode(&result)
    }

    /// Asks which daemon answers, and whether it speaks the protocol of this client.
    ///
    /// # Errors
    ///
    /// [`ClientError::Rpc`] of kind [`UnsupportedProtocol`](crate::protocol::error::ErrorKind::UnsupportedProtocol) if it
    /// does not, with a text that says which of both is to be upgraded; otherwise the connection ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing changes.
    pub async fn agree(&self) -> Result<VersionResult, ClientError> {
        self.call::<Version>(VersionParams { protocol: Some(PROTOCOL_VERSION) }).await
    }

    /// Subscribes to output or to events.
    ///
    /// # Errors
    ///
    /// [`ClientError::Rpc`] with the daemon's answer; otherwise the connection ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the subscription as soon as its answer arrives.
    pub async fn subscribe<M: Subscribe>(&self, params: M::Params) -> Result<Subscription, ClientError> {
        let (reply, answer) = oneshot::channel();
        let id = self.shared.register(Pending::Subscribe(reply, <M::Cancel as Method>::NAME))?;
        self.shared.send::<M>(id, &params).await?;
        Ok(answer.await.map_err(|_| self.shared.ended())??)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.end(Ended::Closed);
    }
}

/// Forgets a call whose caller is gone.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().pending.remove(&self.id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section is a single step, so that a panic elsewhere cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, pending: Pending) -> Result<u64, ClientError> {
        let mut state = self.lock();
        if let Some(ended) = &state.ended {
            return Err(ended.clone().into());
        }
        state.last_id += 1;
        let id = state.last_id;
        state.pending.insert(id, pending);
        Ok(id)
    }

    async fn send<M: Method>(&self, id: u64, params: &M::Params) -> Result<(), ClientError> {
        self.output.send(request::<M>(id, params)).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> ClientError {
        self.lock().ended.clone().unwrap_or(Ended::Closed).into()
    }

    /// Wakes everybody who waits.
    fn end(&self, how: Ended) {
        let (pending, subscriptions) = {
            let mut state = self.lock();
            state.ended.get_or_insert(how.clone());
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.subscriptions))
        };
        drop(pending);
        for backlog in subscriptions.into_values() {
            backlog.end(Err(how.clone()));
        }
    }

    fn accept(self: &Arc<Self>, reply: Reply) -> Result<(), ReplyError> {
        match reply {
            Reply::Response { id: Some(id), outcome } => {
                let pending = self.lock().pending.remove(&id);
                match pending {
                    // A send fails when the caller is gone, which is fine.
                    Some(Pending::Call(reply)) => _ = reply.send(outcome),
                    Some(Pending::Subscribe(reply, cancel)) => {
                        let opened = match outcome {
                            Ok(result) => {
                                Ok(self.open(parse::<SubscribeResult>(&result)?.subscription_id, cancel))
                            }
                            Err(error) => Err(error),
                        };
                        _ = reply.send(opened);
                    }
                    None => {}
                }
            }
            Reply::Response { id: None, outcome } => {
                let problem = match outcome {
                    Err(error) => error.message,
                    Ok(_) => "an answer without an id".to_owned(),
                };
                return Err(ReplyError::Shape { problem });
            }
            Reply::Notification { method, params } => self.notify(&method, &params)?,
        }
        Ok(())
    }

    fn open(self: &Arc<Self>, id: SubscriptionId, cancel: &'static str) -> Subscription {
        let backlog = Arc::new(Backlog::default());
        self.lock().subscriptions.insert(id, Arc::clone(&backlog));
        Subscription { id, backlog, cancel, shared: Arc::downgrade(self) }
    }

    fn notify(&self, method: &str, params: &RawValue) -> Result<(), ReplyError> {
        let (id, notification) = match method {
            Notification::LOG => take::<LogLine>(params, Notification::Log)?,
            Notification::LOG_GAP => take::<Gap>(params, Notification::LogGap)?,
            Notification::EVENT => take::<Event>(params, Notification::Event)?,
            Notification::EVENT_GAP => take::<Gap>(params, Notification::EventGap)?,
            Notification::LOG_END | Notification::EVENT_END => {
                let id = parse::<CancelTarget>(params)?.subscription_id;
                if let Some(backlog) = self.lock().subscriptions.remove(&id) {
                    backlog.end(Ok(()));
                }
                return Ok(());
            }
            // A newer daemon may say more.
            _ => return Ok(()),
        };
        let backlog = self.lock().subscriptions.get(&id).cloned();
        if let Some(backlog) = backlog {
            backlog.push(notification, params.get().len());
        }
        Ok(())
    }
}

/// The part of an end notification that matters.
#[derive(serde::Deserialize)]
struct CancelTarget {
    subscription_id: SubscriptionId,
}

fn take<T: DeserializeOwned>(
    params: &RawValue,
    make: fn(T) -> Notification,
) -> Result<(SubscriptionId, Notification), ReplyError> {
    let Subscribed { subscription_id, body } = parse(params)?;
    Ok((subscription_id, make(body)))
}

fn parse<T: DeserializeOwned>(raw: &RawValue) -> Result<T, ReplyError> {
    serde_json::from_str(raw.get()).map_err(|error| ReplyError::Shape { problem: error.to_string() })
}

fn decode<T: DeserializeOwned>(raw: &RawValue) -> Result<T, ClientError> {
    parse(raw).map_err(ClientError::Protocol)
}

fn request<M: Method>(id: u64, params: &M::Params) -> Vec<u8> {
    // Parameters are made of strings, numbers and lists, which always have a JSON form.
    let mut line = serde_json::to_vec(&Outgoing::request(Id::number(id), M::NAME, params))
        .expect("parameters have a JSON form");
    line.push(b'\n');
    line
}

/// Opens the socket; a full queue of connections is waited for.
async fn open(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        let name = path.to_fs_name::<GenericFilePath>()?;
        let LocalStream::UdSocket(stream) =
            LocalStream::from_options(&ConnectOptions::new().name(name)).await?;
        let stream = UnixStream::from(stream);
        // With a full queue Linux refuses a non-blocking connection for the moment, and the socket stays unconnected.
        match stream.peer_addr() {
            Ok(_) => return Ok(stream),
            Err(error) if error.kind() != io::ErrorKind::NotConnected || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn write_queue(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = queue.recv().await {
        if writer.write_all(&line).await.is_err() {
            // The reader learns of it as well, and tells everybody.
            return;
        }
    }
}

async fn read_replies(reader: OwnedReadHalf, shared: Weak<Shared>) {
    let mut frames = FrameReader::patient(reader);
    let how = loop {
        let line = match frames.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break Ended::Closed,
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                break Ended::Closed;
            }
            Err(error) => break Ended::Frame(Arc::new(error)),
        };
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = Reply::parse(&line).and_then(|reply| shared.accept(reply)) {
            break Ended::Protocol(Arc::new(error));
        }
    };
    if let Some(shared) = shared.upgrade() {
        shared.end(how);
    }
}

/// The notifications of one subscription, in order.
///
/// They are taken off the connection at once, whether or not somebody reads them, so that a slow reader holds up neither
/// the daemon nor other calls. What does not fit in [`MAX_BACKLOG`] becomes a gap that is reported in its place. Dropping
/// it ends it.
#[derive(Debug)]
pub struct Subscription {
    id: SubscriptionId,
    backlog: Arc<Backlog>,
    cancel: &'static str,
    shared: Weak<Shared>,
}

impl Subscription {
    /// Waits for the next notification, which is never an end; `None` after the end.
    ///
    /// # Errors
    ///
    /// The connection ended before the subscription did.
    ///
    /// # Cancel safety
    ///
    /// No notification is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Notification>, ClientError> {
        loop {
            if let Some(next) = self.backlog.pop() {
                return next;
            }
            self.backlog.changed.notified().await;
        }
    }

    /// Returns the subscription's id on its connection.
    pub fn id(&self) -> SubscriptionId {
        self.id
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let id = {
            let mut state = shared.lock();
            if state.subscriptions.remove(&self.id).is_none() {
                return;
            }
            // Nobody waits for the answer.
            state.last_id += 1;
            state.last_id
        };
        let line = match self.cancel {
            LogsCancel::NAME => request::<LogsCancel>(id, &CancelParams { subscription_id: self.id }),
            _ => request::<EventsCancel>(id, &CancelParams { subscription_id: self.id }),
        };
        // Without room it goes on until the connection ends, and what it says is ignored.
        _ = shared.output.try_send(line);
    }
}

/// What a subscription has been told and not read yet.
#[derive(Debug, Default)]
struct Backlog {
    queue: Mutex<BacklogQueue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct BacklogQueue {
    items: VecDeque<(Notification, usize)>,
    bytes: usize,
    end: Option<Result<(), Ended>>,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, BacklogQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, notification: Notification, bytes: usize) {
        self.lock().push(notification, bytes);
        self.changed.notify_one();
    }

    fn end(&self, how: Result<(), Ended>) {
        self.lock().end.get_or_insert(how);
        self.changed.notify_one();
    }

    fn pop(&self) -> Option<Result<Option<Notification>, ClientError>> {
        let mut queue = self.lock();
        match queue.items.pop_front() {
            Some((notification, bytes)) => {
                queue.bytes -= bytes;
                Some(Ok(Some(notification)))
            }
            None => queue.end.clone().map(|end| end.map(|()| None).map_err(Into::into)),
        }
    }
}

impl BacklogQueue {
    fn push(&mut self, notification: Notification, bytes: usize) {
        if self.bytes + bytes <= MAX_BACKLOG {
            self.bytes += bytes;
            self.items.push_back((notification, bytes));
            return;
        }
        let missed = match &notification {
            Notification::Log(line) => Notification::LogGap(Gap { first: line.number, last: line.number }),
            Notification::Event(event) => Notification::EventGap(Gap { first: event.seq, last: event.seq }),
            _ => notification,
        };
        match (self.items.back_mut().map(|(last, _)| last), &missed) {
            (Some(Notification::LogGap(last)), Notification::LogGap(next))
            | (Some(Notification::EventGap(last)), Notification::EventGap(next))
                if last.last + 1 == next.first =>
            {
                last.last = next.last;
            }
            _ => self.items.push_back((missed, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::LogStream;

    fn line(number: u64) -> Notification {
        Notification::Log(LogLine {
            name: "web".into(),
            stream: LogStream::Out,
            line: String::new(),
            line_base64: None,
            ts_unix_ms: 0,
            number,
            partial: false,
        })
    }

    #[test]
    fn what_a_slow_reader_misses_is_one_gap_in_its_place() {
        let mut queue = BacklogQueue::default();
        for number in 1..=5 {
            queue.push(line(number), MAX_BACKLOG / 2);
        }
        queue.push(Notification::LogGap(Gap { first: 6, last: 9 }), 30);
        queue.bytes -= queue.items.pop_front().map_or(0, |(_, bytes)| bytes);
        queue.push(line(10), 30);
        let items: Vec<_> = queue.items.into_iter().map(|(item, _)| item).collect();
        assert_eq!(items, [line(2), Notification::LogGap(Gap { first: 3, last: 9 }), line(10)]);
    }

    #[test]
    fn an_unreachable_daemon_comes_with_a_hint() {
        let error = |kind: io::ErrorKind| ClientError::Unreachable { path: "/s".into(), source: kind.into() };
        assert!(error(io::ErrorKind::NotFound).hint().is_some_and(|hint| hint.contains("xyctl up")));
        assert!(
            error(io::ErrorKind::PermissionDenied).hint().is_some_and(|hint| hint.contains("another user"))
        );
    }
}
