//! A tree with one real process, `web`, and waiting with a deadline.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use xy_actors::event::stream::Event;
use xy_actors::log::LogHub;
use xy_actors::policy::State;
use xy_actors::process::{HostOptions, PortOwner, ProcessHost, ProcessSpec, process};
use xy_actors::spec::{Backoff, ChildSpec, OnLimit, RestartIntensity, RestartLimit, SupervisorSpec};
use xy_actors::supervisor::{ChildInfo, LastExit, Supervisor};
use xy_actors::testkit::TestTree;

use crate::server::Server;

/// Nothing here takes longer, on a busy machine, unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The scripted program with this script, words separated by blanks.
pub(crate) fn script(script: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::new(env!("CARGO_BIN_EXE_xy-testchild"));
    spec.args = script.split_whitespace().map(str::to_owned).collect();
    spec
}

/// A process that only waits, beside a server of this test's on its port.
pub(crate) fn beside(server: &Server) -> ProcessSpec {
    let mut spec = script("sleep-forever");
    (spec.port, spec.port_owner) = (Some(server.port), PortOwner::Any);
    spec
}

/// The spec of a child that is restarted at once, twice a minute at most.
pub(crate) fn web() -> ChildSpec {
    let limit = RestartLimit {
        intensity: RestartIntensity::new(2, Duration::from_secs(600)),
        on_limit: OnLimit::GiveUp,
    };
    let backoff =
        Backoff { first: Some(Duration::ZERO), base: Duration::from_millis(1), ..Backoff::default() };
    ChildSpec { limit: Some(limit), backoff: Some(backoff), retain: true, ..ChildSpec::worker("web") }
}

/// Directories, a host and logs.
pub(crate) struct Place {
    root: TempDir,
    pub(crate) host: ProcessHost,
    pub(crate) logs: LogHub,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let options = HostOptions { notify_dir: Some(root.path().join("notify")), ..HostOptions::default() };
        let (host, _) = ProcessHost::start(options).expect("a host starts");
        Self { root, host, logs: LogHub::new(None) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file that a script waits for.
    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").expect("writable");
    }

    /// Starts a tree with one process, `web`.
    pub(crate) async fn web(&self, spec: ProcessSpec) -> Web {
        self.web_with(web(), spec).await
    }

    pub(crate) async fn web_with(&self, child: ChildSpec, spec: ProcessSpec) -> Web {
        let supervisor = Supervisor::builder(SupervisorSpec::default())
            .child(child, process(spec, &self.host, &self.logs))
            .spawn()
            .await
            .expect("spawns");
        let log = self.logs.open("web", xy_actors::log::LogSettings::default()).expect("a log");
        Web { tree: TestTree::new(supervisor), log }
    }

    /// The notification sockets there are.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("notify")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

/// A tree with one process.
pub(crate) struct Web {
    pub(crate) tree: TestTree,
    log: xy_actors::log::Log,
}

impl Web {
    pub(crate) async fn info(&self) -> ChildInfo {
        self.tree.which_child("web").await.expect("child")
    }

    pub(crate) async fn expect(&mut self, event: &str) -> Event {
        within(&format!("`{event}` comes"), self.tree.expect(event, "web")).await
    }

    pub(crate) async fn ready(&mut self) {
        self.expect("child_ready").await;
    }

    /// Waits until it says that it waits for something with this text, while it starts.
    pub(crate) async fn waits_for(&self, text: &str) {
        until(&format!("it waits for {text}"), async || {
            let info = self.info().await;
            assert_eq!((info.state, info.ready), (State::Starting, false));
            info.waits_for.is_some_and(|what| what.contains(text))
        })
        .await;
    }

    /// Waits until the log has a line with this text.
    pub(crate) async fn logs(&self, text: &str) {
        until(&format!("the log says {text}"), async || self.lines().iter().any(|line| line.contains(text)))
            .await;
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.log.tail(10_000);
        lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    /// Waits until the incarnation of this number is ready.
    pub(crate) async fn ready_again(&self, incarnation: u64) {
        until("the next incarnation is ready", async || {
            let info = self.info().await;
            info.incarnation.get() == incarnation && info.ready
        })
        .await;
    }

    pub(crate) async fn last_exit(&self) -> LastExit {
        self.info().await.last_exit.expect("an exit")
    }

    pub(crate) async fn end(self) {
        within("the tree ends", self.tree.shutdown()).await;
    }
}

/// Waits with the deadline of all waiting.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

/// Polls a condition until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, all).await;
}

/// A path as a word of a script.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
