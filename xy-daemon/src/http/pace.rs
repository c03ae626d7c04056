//! How long a connection may take: a stream that gives up on clients that send or read too slowly.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::unread::{Account, Held};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// A request has begun to arrive.
    Head,
    /// A request is being answered.
    Serving,
}

/// What a connection is doing and since when, shared by its stream and its requests.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<(Phase, Instant)>,
    /// Who waits for more to read.
    reader: Mutex<Option<Waker>>,
    /// A request was answered before.
    has_asked: AtomicBool,
    evict: Notify,
    /// Of what the client does not read.
    account: Account,
}

impl Pace {
    /// Begins with a request expected at once, as of a client that has just connected.
    pub(super) fn new(now: Instant, account: Account) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new((Phase::Head, now)),
            reader: Mutex::default(),
            has_asked: AtomicBool::new(false),
            evict: Notify::new(),
            account,
        })
    }

    /// Counts as busy until the guard is dropped. Returns when the request began as well.
    pub(super) fn serve(self: &Arc<Self>) -> (Serving, Instant) {
        let mut state = self.state();
        let began = state.1;
        *state = (Phase::Serving, Instant::now());
        (Serving(Arc::clone(self)), began)
    }

    /// Returns whether its client was answered before and since when the connection waits for it, if it does. Of all that
    /// wait, the one for which this is least makes room.
    pub(super) fn waiting_since(&self) -> Option<(bool, Instant)> {
        let (phase, since) = *self.state();
        (phase != Phase::Serving).then_some((self.has_asked.load(Ordering::Relaxed), since))
    }

    /// Closes the connection to make room for another one.
    pub(super) fn evict(&self) {
        self.evict.notify_one();
    }

    /// Waits for [`evict`](Self::evict), or until too much waits for clients to read it and most of that for this one.
    pub(super) async fn evicted(&self) {
        tokio::select! {
            () = self.evict.notified() => {}
            () = self.account.given_up() => {}
        }
    }

    /// Returns the account of what the client does not read.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Counts bytes as unread until they are written, wherever they are meanwhile.
    pub(super) fn hold(&self, bytes: Bytes) -> Bytes {
        let unread = self.account.hold(bytes.len());
        Bytes::from_owner(Waiting { bytes, _unread: unread })
    }

    fn state(&self) -> MutexGuard<'_, (Phase, Instant)> {
        // Each critical section is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        let mut state = self.state();
        if state.0 == Phase::Idle {
            *state = (Phase::Head, Instant::now());
        }
    }

    fn rest(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
        *self.state() = (Phase::Idle, Instant::now());
        if let Some(reader) = self.reader().take() {
            reader.wake();
        }
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        // Each critical section is one assignment.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that count as unread for as long as there are any of them.
#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    _unread: Held,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Serving(Arc<Pace>);

impl Serving {
    /// Counts bytes as unread until they are written.
    pub(super) fn hold(&self, bytes: Bytes) -> Bytes {
        self.0.hold(bytes)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The limits of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a request's head to its last one.
    pub(super) head: Duration,
    /// Without a request.
    pub(super) idle: Duration,
    /// Without the client reading anything of what is written.
    pub(super) write: Duration,
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its client is too slow.
#[derive(Debug)]
pub(super) struct PacedStream<S> {
    stream: S,
    pace: Arc<Pace>,
    patience: Patience,
    reading: Pin<Box<Sleep>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> PacedStream<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>, patience: Patience) -> Self {
        let reading = Box::pin(sleep_until(Instant::now()));
        Self { stream, pace, patience, reading, writing: None }
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn stalled<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let patience = self.patience.write;
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if buffer.filled().len() > filled {
                self.pace.begin();
            }
            return Poll::Ready(result);
        }
        // The deadline changes when an answer ends, and whoever reads does not ask again by itself.
        *self.pace.reader() = Some(context.waker().clone());
        let (phase, since) = *self.pace.state();
        let deadline = match phase {
            Phase::Idle => since + self.patience.idle,
            Phase::Head => since + self.patience.head,
            // Who waits for an answer may be silent; a body has its own limit.
            Phase::Serving => return Poll::Pending,
        };
        if self.reading.deadline() != deadline {
            self.reading.as_mut().reset(deadline);
        }
        self.reading.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(result) => {
                self.writing = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.stalled(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, pieces) {
            Poll::Ready(result) => {
                self.writing = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.stalled(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::unread::Unread;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        write: Duration::from_secs(5),
    };

    fn paced() -> (PacedStream<DuplexStream>, DuplexStream, Arc<Pace>) {
        let (ours, theirs) = duplex(64);
        let pace = Pace::new(Instant::now(), Arc::<Unread>::default().join());
        (PacedStream::new(ours, Arc::clone(&pace), PATIENCE), theirs, pace)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_a_limit_from_its_first_byte_that_more_bytes_do_not_extend() {
        let (mut stream, mut client, pace) = paced();
        drop(pace.serve());
        tokio::time::advance(Duration::from_secs(59)).await;
        let began = Instant::now();
        let dripping = async {
            loop {
                client.write_all(b"x").await.expect("open");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let reading = async {
            loop {
                let mut byte = [0];
                match stream.read(&mut byte).await {
                    Ok(count) => assert_eq!(count, 1),
                    Err(error) => break error.kind(),
                }
            }
        };
        let ended = tokio::select! { kind = reading => kind, () = dripping => unreachable!("it drips on") };
        assert_eq!(ended, io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), PATIENCE.head.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_the_limit_is_another_and_while_one_is_answered_there_is_none() {
        let (mut stream, _client, pace) = paced();
        let (serving, _) = pace.serve();
        let began = Instant::now();
        let mut byte = [0];
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, stream.read(&mut byte)).await.is_err());
        drop(serving);
        assert_eq!(stream.read(&mut byte).await.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(began.elapsed().as_secs(), (hour + PATIENCE.idle).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_while_a_request_is_answered_has_a_deadline_from_its_end() {
        let (mut stream, _client, pace) = paced();
        let began = Instant::now();
        let answering = async {
            // The reader waits already when it becomes known that what it has read is a request.
            let (serving, _) = pace.serve();
            tokio::time::sleep(Duration::from_secs(70)).await;
            drop(serving);
        };
        let mut byte = [0];
        let (read, ()) = tokio::join!(stream.read(&mut byte), answering);
        assert_eq!(read.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(began.elapsed().as_secs(), 70 + PATIENCE.idle.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up_and_one_that_reads_slowly_is_not() {
        let (mut stream, mut client, _) = paced();
        stream.write_all(&[0; 64]).await.expect("room");
        let began = Instant::now();
        let slow = tokio::spawn(async move {
            let mut bytes = [0; 32];
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                client.read_exact(&mut bytes).await.expect("written");
            }
            client
        });
        stream.write_all(&[0; 96]).await.expect("it is read slowly");
        let _client = slow.await.expect("the slow reader");
        assert_eq!(began.elapsed().as_secs(), 12);
        let stalled = stream.write_all(&[0; 65]).await;
        assert_eq!(stalled.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(began.elapsed().as_secs(), 17);
    }
}
