//! Tells when processes end: one descriptor for all processes that a runtime watches for a host, and one task that reads it.
//!
//! A registration with the runtime and a task for each would take most of a kilobyte more for each process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use tokio::io::unix::AsyncFd;
use tokio::runtime::{self, Handle};
use tokio::task::AbortHandle;

use super::lock;
use crate::process::sys;

/// How many ends are read at a time.
const BATCH: usize = 64;

/// The watchers of a host, one for each runtime in which it has processes.
#[derive(Debug, Default)]
pub(super) struct Exits(Mutex<Vec<Arc<Watcher>>>);

impl Exits {
    /// Watches a descriptor that becomes readable when its process has ended.
    ///
    /// # Errors
    /// If the system has no room for another watch.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(super) fn watch(&self, fd: Arc<OwnedFd>) -> io::Result<Watched> {
        let watcher = self.watcher()?;
        let token = watcher.next_token.fetch_add(1, Ordering::Relaxed);
        // Before the descriptor, whose process may have ended.
        lock(&watcher.waiting).insert(token, Waiting::default());
        let registered =
            watcher.registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(token), Interest::READABLE);
        if let Err(error) = registered {
            lock(&watcher.waiting).remove(&token);
            return Err(error);
        }
        Ok(Watched { watcher, token, fd })
    }

    /// Returns the watcher of the current runtime.
    fn watcher(&self) -> io::Result<Arc<Watcher>> {
        let runtime = Handle::current().id();
        let mut watchers = lock(&self.0);
        // The task of a runtime that has been shut down has ended, and another one may get its number.
        watchers.retain(|watcher| !watcher.task.is_finished());
        if let Some(watcher) = watchers.iter().find(|watcher| watcher.runtime == runtime) {
            return Ok(watcher.clone());
        }
        let watcher = Arc::new(Watcher::start(runtime)?);
        watchers.push(watcher.clone());
        Ok(watcher)
    }
}

/// Who waits for the ends of processes, and the task that wakes them.
#[derive(Debug)]
struct Watcher {
    runtime: runtime::Id,
    registry: Registry,
    waiting: Arc<Mutex<BTreeMap<usize, Waiting>>>,
    next_token: AtomicUsize,
    task: AbortHandle,
}

impl Watcher {
    fn start(runtime: runtime::Id) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waiting = Arc::default();
        let poll = sys::watch_poll(poll)?;
        let task = tokio::spawn(wake(poll, Arc::clone(&waiting))).abort_handle();
        Ok(Self { runtime, registry, waiting, next_token: AtomicUsize::new(0), task })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who waits for one process: most often one.
#[derive(Debug, Default)]
struct Waiting {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Waiting {
    fn add(&mut self, waker: &Waker) {
        if self.first.iter().chain(&self.more).any(|known| known.will_wake(waker)) {
            return;
        }
        match &self.first {
            None => self.first = Some(waker.clone()),
            Some(_) => self.more.push(waker.clone()),
        }
    }
}

/// Wakes whoever waits for a process whose descriptor has become readable, for ever.
async fn wake(mut poll: AsyncFd<Poll>, waiting: Arc<Mutex<BTreeMap<usize, Waiting>>>) {
    let mut events = Events::with_capacity(BATCH);
    loop {
        // The runtime shuts down, and all its tasks with it.
        let Ok(mut ready) = poll.readable_mut().await else { return };
        // Cleared before they are read, so that an end in between is not missed.
        ready.clear_ready();
        loop {
            match ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Not a thing that the descriptor of a poll is known to do; the next end tries again.
                Err(error) => {
                    tracing::error!(%error, "the ends of processes cannot be read");
                    break;
                }
            }
            for event in &events {
                let woken = lock(&waiting).get_mut(&event.token().0).map(std::mem::take);
                if let Some(Waiting { first, more }) = woken {
                    first.into_iter().chain(more).for_each(Waker::wake);
                }
            }
            if events.iter().count() < BATCH {
                break;
            }
        }
    }
}

/// A process that is watched, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    watcher: Arc<Watcher>,
    token: usize,
    fd: Arc<OwnedFd>,
}

impl Watched {
    /// Has `waker` woken once when the process ends; one that had ended before may have told already.
    pub(super) fn wake_at_end(&self, waker: &Waker) {
        if let Some(waiting) = lock(&self.watcher.waiting).get_mut(&self.token) {
            waiting.add(waker);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It is registered as long as this lives, and what cannot be taken back ends with the descriptor.
        let _gone = self.watcher.registry.deregister(&mut SourceFd(&self.fd.as_raw_fd()));
        // Dropped without the lock: with a waker may go what it was to wake.
        let waiting = lock(&self.watcher.waiting).remove(&self.token);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    use super::*;

    /// A stand-in for a process: readable as soon as something was written to the other end.
    fn process() -> (UnixStream, Arc<OwnedFd>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (ours, Arc::new(theirs.into()))
    }

    /// Waits until `watched` has woken this task.
    async fn woken(watched: &Watched) {
        let mut is_first = true;
        poll_fn(|cx| {
            watched.wake_at_end(cx.waker());
            if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_there_are_more_ends_than_are_read_at_a_time() {
        let exits = Exits::default();
        let mut ends = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..BATCH * 2 + 1 {
            let (end, fd) = process();
            let watched = exits.watch(fd).expect("watched");
            tasks.spawn(async move { woken(&watched).await });
            ends.push(end);
        }
        // All of them wait before the first one ends.
        tokio::task::yield_now().await;
        for end in &mut ends {
            end.write_all(b"x").expect("written");
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("all are woken");
        assert_eq!(lock(&exits.0).len(), 1, "one watcher for all of them");
        assert!(lock(&lock(&exits.0)[0].waiting).is_empty(), "nothing is kept of those who are gone");
    }

    #[tokio::test]
    async fn several_may_wait_for_one_end() {
        let exits = Exits::default();
        let (mut end, fd) = process();
        let watched = Arc::new(exits.watch(fd).expect("watched"));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let watched = watched.clone();
            tasks.spawn(async move { woken(&watched).await });
        }
        tokio::task::yield_now().await;
        end.write_all(b"x").expect("written");
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("all are woken");
    }

    #[test]
    fn each_runtime_has_its_own_watcher_which_ends_with_it() {
        let exits = Exits::default();
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (one, two) = (runtime(), runtime());
        let watch = |runtime: &runtime::Runtime| {
            let _inside = runtime.enter();
            exits.watch(process().1).expect("watched")
        };
        let first = watch(&one);
        let _second = watch(&two);
        assert_eq!(lock(&exits.0).len(), 2);
        drop(one);
        let _third = watch(&two);
        assert_eq!(lock(&exits.0).len(), 1, "the first runtime's is gone");
        drop(first);
        let (mut end, fd) = process();
        two.block_on(async {
            let watched = exits.watch(fd).expect("watched");
            let ended = async { end.write_all(b"x").expect("written") };
            let both = async { tokio::join!(woken(&watched), ended) };
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("it is woken")
        });
    }
}
