//! What these tests share: trees of mocks that are named by their ids.

use std::time::Duration;

use xy_actors::exit::Exit;
use xy_actors::policy::ChildKey;
use xy_actors::spec::{ChildSpec, RestartIntensity, RestartType, Shutdown, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, StartOutcome, Supervisor};
use xy_actors::testkit::{Journal, MockChild, TestTree};

/// Flags with a period of an hour, which no test outlasts.
pub(crate) fn flags(strategy: Strategy, intensity: u32) -> SupervisorSpec {
    within(strategy, intensity, 3600)
}

pub(crate) fn within(strategy: Strategy, intensity: u32, period_secs: u64) -> SupervisorSpec {
    SupervisorSpec {
        intensity: Some(RestartIntensity::new(intensity, Duration::from_secs(period_secs))),
        ..SupervisorSpec::new(strategy)
    }
}

pub(crate) fn permanent(id: &str) -> ChildSpec {
    ChildSpec::worker(id)
}

pub(crate) fn transient(id: &str) -> ChildSpec {
    ChildSpec { restart: RestartType::Transient, ..ChildSpec::worker(id) }
}

pub(crate) fn temporary(id: &str) -> ChildSpec {
    ChildSpec { restart: RestartType::Temporary, ..ChildSpec::worker(id) }
}

pub(crate) fn with_shutdown(shutdown: Shutdown, spec: ChildSpec) -> ChildSpec {
    ChildSpec { shutdown, ..spec }
}

pub(crate) fn millis(ms: u64) -> Shutdown {
    Shutdown::Timeout(Duration::from_millis(ms))
}

/// A mock with a journal of its own.
pub(crate) fn mock(name: &str) -> MockChild {
    MockChild::new(name, &Journal::default())
}

/// A running tree, its mocks in start order and their common journal.
pub(crate) struct World {
    pub(crate) tree: TestTree,
    pub(crate) journal: Journal,
    mocks: Vec<(String, MockChild)>,
}

impl World {
    /// Starts a tree of obedient mocks.
    pub(crate) async fn of(spec: SupervisorSpec, children: Vec<ChildSpec>) -> Self {
        Self::scripted(spec, children, |mock| mock).await
    }

    /// Starts a tree of mocks, each put right by `script`, which knows it by its name.
    pub(crate) async fn scripted(
        spec: SupervisorSpec,
        children: Vec<ChildSpec>,
        script: impl Fn(MockChild) -> MockChild,
    ) -> Self {
        let journal = Journal::default();
        let mut mocks = Vec::new();
        let mut builder = Supervisor::builder(spec);
        for child in children {
            let id = child.id.to_string();
            let mock = script(MockChild::new(&id, &journal));
            builder = builder.child(child, mock.clone());
            mocks.push((id, mock));
        }
        let tree = TestTree::new(builder.start().await.expect("starts"));
        let mut world = Self { tree, journal, mocks };
        world.forget();
        world
    }

    pub(crate) fn mock(&self, id: &str) -> &MockChild {
        self.mocks.iter().find(|(name, _)| name == id).map(|(_, mock)| mock).expect("a mock of this name")
    }

    /// Adds a child through the library call.
    pub(crate) async fn add(&mut self, spec: ChildSpec, mock: MockChild) -> StartOutcome {
        let id = spec.id.to_string();
        let outcome = self.tree.start_child(spec, mock.clone()).await.expect("starts");
        self.mocks.retain(|(name, _)| *name != id);
        self.mocks.push((id, mock));
        outcome
    }

    /// Adds a mock that starts at once and obeys.
    pub(crate) async fn add_obedient(&mut self, spec: ChildSpec) {
        let mock = MockChild::new(spec.id.as_str(), &self.journal);
        self.add(spec, mock).await;
    }

    /// Forgets what happened so far.
    pub(crate) fn forget(&mut self) {
        self.journal.take();
        self.tree.happened();
    }

    /// Ends a child like this and waits until the supervisor has dealt with that.
    pub(crate) async fn end(&self, id: &str, exit: Exit) {
        self.mock(id).end(exit);
        // Served after the exit. An ended supervisor has dealt with everything.
        drop(self.tree.count_children().await);
    }

    pub(crate) async fn crash(&self, id: &str) {
        self.end(id, Exit::Abnormal).await;
    }

    /// Returns `id:incarnation` of all children.
    pub(crate) async fn incarnations(&self) -> String {
        let children = self.tree.which_children().await.expect("lives");
        let all: Vec<String> =
            children.iter().map(|child| format!("{}:{}", child.id, child.incarnation.get())).collect();
        all.join(" ")
    }

    pub(crate) async fn escalated(&self) {
        assert_eq!(self.tree.ended().await.exit, Exit::Escalated);
    }

    pub(crate) async fn lives(&self) {
        self.tree.count_children().await.expect("the supervisor lives");
    }
}

/// A running simple_one_for_one supervisor.
pub(crate) async fn pool(intensity: u32) -> TestTree {
    pool_of(flags(Strategy::SimpleOneForOne, intensity)).await
}

pub(crate) async fn pool_of(spec: SupervisorSpec) -> TestTree {
    TestTree::new(Supervisor::builder(spec).start().await.expect("starts"))
}

/// Starts one more child of a pool.
pub(crate) async fn started(tree: &TestTree, spec: ChildSpec, mock: &MockChild) -> ChildKey {
    key(tree.start_child(spec, mock.clone()).await)
}

pub(crate) fn key(outcome: Result<StartOutcome, OperationError>) -> ChildKey {
    match outcome {
        Ok(StartOutcome::Started { child, .. }) => child,
        other => panic!("not started: {other:?}"),
    }
}

/// Returns the paths as text.
pub(crate) fn paths(paths: &[xy_actors::path::TreePath]) -> Vec<&str> {
    paths.iter().map(xy_actors::path::TreePath::as_str).collect()
}
