//! Tells when processes end: one descriptor for all processes that a runtime watches for a host, and one task that reads it.
//!
//! A registration with the runtime and a task for each would take most of a kilobyte more for each process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
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
        // Before the descriptor, whose process may have ended.
        let place = lock(&watcher.waiting).enter();
        let registered =
            watcher.registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(place), Interest::READABLE);
        if let Err(error) = registered {
            lock(&watcher.waiting).leave(place);
            return Err(error);
        }
        Ok(Watched { watcher, place, fd })
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
    waiting: Arc<Mutex<Waiting>>,
    task: AbortHandle,
}

impl Watcher {
    fn start(runtime: runtime::Id) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waiting = Arc::default();
        let poll = sys::watch_poll(poll)?;
        let task = tokio::spawn(wake(poll, Arc::clone(&waiting))).abort_handle();
        Ok(Self { runtime, registry, waiting, task })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who waits for each process. A place may be told the end of whoever had it before, which its new owner takes for a look in
/// vain.
#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Wakers>,
    free: Vec<usize>,
}

impl Waiting {
    fn enter(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Wakers::default());
            self.places.len() - 1
        })
    }

    fn leave(&mut self, place: usize) -> Wakers {
        self.free.push(place);
        self.take(place)
    }

    fn take(&mut self, place: usize) -> Wakers {
        self.places.get_mut(place).map(std::mem::take).unwrap_or_default()
    }
}

/// Who waits for one process: most often one.
#[derive(Debug, Default)]
struct Wakers {
    first: Option<Waker>,
    #[expect(
        clippy::box_collection,
        reason = "few have more than one, and a vector would take three times the room"
    )]
    more: Option<Box<Vec<Waker>>>,
}

impl Wakers {
    fn add(&mut self, waker: &Waker) {
        let Some(first) = &self.first else {
            self.first = Some(waker.clone());
            return;
        };
        let more = self.more.as_deref().map_or(&[][..], Vec::as_slice);
        if !std::iter::once(first).chain(more).any(|known| known.will_wake(waker)) {
            self.more.get_or_insert_default().push(waker.clone());
        }
    }

    fn wake(self) {
        let more = self.more.map(|more| *more).unwrap_or_default();
        self.first.into_iter().chain(more).for_each(Waker::wake);
    }
}

/// Wakes whoever waits for a process whose descriptor has become readable, for ever.
async fn wake(mut poll: AsyncFd<Poll>, waiting: Arc<Mutex<Waiting>>) {
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
                let woken = lock(&waiting).take(event.token().0);
                woken.wake();
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
    place: usize,
    fd: Arc<OwnedFd>,
}

impl Watched {
    /// Has `waker` woken once when the process ends; one that had ended before may have told already.
    pub(super) fn wake_at_end(&self, waker: &Waker) {
        if let Some(wakers) = lock(&self.watcher.waiting).places.get_mut(self.place) {
            wakers.add(waker);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It is registered as long as this lives, and what cannot be taken back ends with the descriptor.
        let _gone = self.watcher.registry.deregister(&mut SourceFd(&self.fd.as_raw_fd()));
        // Dropped without the lock: with a waker may go what it was to wake.
        let wakers = lock(&self.watcher.waiting).leave(self.place);
        drop(wakers);
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
        let watcher = lock(&exits.0)[0].clone();
        let waiting = lock(&watcher.waiting);
        assert_eq!(waiting.free.len(), waiting.places.len(), "every place can be taken again");
        assert!(waiting.places.iter().all(|wakers| wakers.first.is_none()), "nobody waits for who is gone");
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
