//! A child that does what it is told and remembers what was asked of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::child::{
    Child, Reporter, Running, StartContext, StartError, StartErrorKind, StartFuture, StartInfo, Started,
};
use crate::exit::{Cause, Exit, ExitReport};

/// What one start of a mock does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MockStart {
    /// It is ready at once.
    Ready,
    /// Its start takes this long, then it is ready.
    ReadyAfter(Duration),
    /// It runs, and is ready when [`MockChild::ready`] is called.
    Running,
    /// It hangs in its start until it is called off.
    Hang,
    /// Its start fails with this text.
    Fail(String),
    /// Its start takes this long, then fails with this text.
    FailAfter(Duration, String),
    /// Its start fails for want of resources.
    Shortage,
    /// There is nothing to run.
    Ignore,
    /// Its start panics.
    Panic,
}

/// What a mock does when it is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MockStop {
    /// It ends at once.
    Obey,
    /// It ends after this long.
    After(Duration),
    /// It ends at once, but with an exit of its own.
    EndWith(Exit),
    /// It ends only when it is killed.
    Stubborn,
    /// It does not end even then.
    Immortal,
}

/// What a set of mocks was asked to do, in order: `start a`, `stop a`, `kill a`.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    /// Returns the entries since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0))
    }

    fn note(&self, what: &str, name: &str) {
        lock(&self.0).push(format!("{what} {name}"));
    }
}

/// A scripted child. Clones share one script, so that a test keeps one and gives the other to the tree.
#[derive(Debug, Clone)]
pub struct MockChild {
    name: Arc<str>,
    journal: Journal,
    script: Arc<Mutex<Script>>,
    starts: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<MockStart>,
    always: MockStart,
    stop: MockStop,
    current: Option<Reporter>,
    info: Option<StartInfo>,
}

impl MockChild {
    /// Creates a mock that starts at once and stops when asked.
    pub fn new(name: &str, journal: &Journal) -> Self {
        let script = Script {
            next: VecDeque::new(),
            always: MockStart::Ready,
            stop: MockStop::Obey,
            current: None,
            info: None,
        };
        Self {
            name: name.into(),
            journal: journal.clone(),
            script: Arc::new(Mutex::new(script)),
            starts: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Returns the name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Scripts the next starts; later ones do what [`always`](Self::always) says.
    #[must_use]
    pub fn starting(self, starts: impl IntoIterator<Item = MockStart>) -> Self {
        lock(&self.script).next.extend(starts);
        self
    }

    /// Scripts all starts that are not scripted one by one.
    pub fn always(&self, start: MockStart) {
        lock(&self.script).always = start;
    }

    /// Scripts what it does when it is asked to stop.
    #[must_use]
    pub fn stopping(self, stop: MockStop) -> Self {
        lock(&self.script).stop = stop;
        self
    }

    /// Gives it something that its starts hand back.
    #[must_use]
    pub fn with_info(self, info: StartInfo) -> Self {
        lock(&self.script).info = Some(info);
        self
    }

    /// Makes the current incarnation end abnormally, and waits until the next start has begun.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is first polled, nothing happens; later, the incarnation has ended.
    pub async fn crash_and_restart(&self, message: &str) {
        let next = self.starts() + 1;
        self.crash(message);
        self.wait_for_start(next).await;
    }

    /// Makes the current incarnation end by itself, like this. Does nothing if none runs.
    pub fn end(&self, exit: Exit) {
        self.exit(ExitReport::new(exit, Cause::Finished { reason: None }));
    }

    /// Makes the current incarnation end abnormally. Does nothing if none runs.
    pub fn crash(&self, message: &str) {
        self.exit(ExitReport::new(Exit::Abnormal, Cause::Error { message: message.to_owned() }));
    }

    /// Makes the current incarnation end by itself. Does nothing if none runs.
    pub fn exit(&self, report: ExitReport) {
        if let Some(reporter) = lock(&self.script).current.take() {
            reporter.exited(report);
        }
    }

    /// Makes the current incarnation ready.
    pub fn ready(&self) {
        if let Some(reporter) = &lock(&self.script).current {
            reporter.ready();
        }
    }

    /// Makes the current incarnation fail its health check; it stays running.
    pub fn unhealthy(&self, why: &str) {
        if let Some(reporter) = &lock(&self.script).current {
            reporter.unhealthy(why);
        }
    }

    /// Makes the current incarnation pass its health check again.
    pub fn healthy(&self) {
        if let Some(reporter) = &lock(&self.script).current {
            reporter.healthy();
        }
    }

    /// Makes the current incarnation fail its health check for good.
    pub fn health_failed(&self, why: &str) {
        if let Some(reporter) = &lock(&self.script).current {
            reporter.health_failed(why);
        }
    }

    /// Returns how many starts have begun.
    pub fn starts(&self) -> u64 {
        *self.starts.borrow()
    }

    /// Waits until this many starts have begun.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_start(&self, count: u64) {
        let mut starts = self.starts.subscribe();
        // The sender lives as long as this mock.
        let _ended = starts.wait_for(|starts| *starts >= count).await;
    }
}

impl Child for MockChild {
    fn start(&self, context: StartContext) -> StartFuture {
        self.journal.note("start", &self.name);
        let start = {
            let mut script = lock(&self.script);
            script.current = Some(context.reporter.clone());
            script.next.pop_front().unwrap_or_else(|| script.always.clone())
        };
        self.starts.send_modify(|starts| *starts += 1);
        let running = Box::new(RunningMock { mock: self.clone(), reporter: context.reporter, ending: None });
        Box::pin(async move {
            match start {
                MockStart::Ready => Ok(Started::Ready(running)),
                MockStart::ReadyAfter(delay) => {
                    tokio::time::sleep(delay).await;
                    Ok(Started::Ready(running))
                }
                MockStart::Running => Ok(Started::Running(running)),
                MockStart::Hang => std::future::pending().await,
                MockStart::Fail(message) => Err(StartError::failed(message)),
                MockStart::FailAfter(delay, message) => {
                    tokio::time::sleep(delay).await;
                    Err(StartError::failed(message))
                }
                MockStart::Shortage => {
                    Err(StartError::new(StartErrorKind::ResourceShortage, "out of processes"))
                }
                MockStart::Ignore => Ok(Started::Ignore),
                MockStart::Panic => panic!("mock panics in its start"),
            }
        })
    }
}

struct RunningMock {
    mock: MockChild,
    reporter: Reporter,
    ending: Option<tokio::task::AbortHandle>,
}

impl RunningMock {
    fn end(&self, exit: Exit) {
        lock(&self.mock.script).current = None;
        self.reporter.exited(ExitReport::new(exit, Cause::Finished { reason: None }));
    }
}

impl Running for RunningMock {
    fn stop(&mut self) {
        self.mock.journal.note("stop", &self.mock.name);
        let stop = lock(&self.mock.script).stop;
        match stop {
            MockStop::Obey => self.end(Exit::Shutdown),
            MockStop::EndWith(exit) => self.end(exit),
            MockStop::After(delay) => {
                let reporter = self.reporter.clone();
                let task = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    reporter.exited(ExitReport::new(Exit::Shutdown, Cause::Finished { reason: None }));
                });
                self.ending = Some(task.abort_handle());
            }
            MockStop::Stubborn | MockStop::Immortal => {}
        }
    }

    fn kill(&mut self) {
        self.mock.journal.note("kill", &self.mock.name);
        if let Some(ending) = self.ending.take() {
            ending.abort();
        }
        let stop = lock(&self.mock.script).stop;
        if stop != MockStop::Immortal {
            self.end(Exit::Killed);
        }
    }

    fn info(&self) -> Option<StartInfo> {
        lock(&self.mock.script).info.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panicking test must not hide behind a poisoned script.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
