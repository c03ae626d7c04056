//! What these tests share.

use std::time::Duration;

use xy_actors::spec::{ChildSpec, Strategy, SupervisorSpec};
use xy_actors::supervisor::{Supervisor, SupervisorBuilder};
use xy_actors::testkit::{Journal, MockChild};

/// A tree under construction, its mocks and their journal.
pub(crate) struct Mocks {
    pub(crate) journal: Journal,
    pub(crate) mocks: Vec<MockChild>,
}

impl Mocks {
    pub(crate) fn new(names: &[&str]) -> Self {
        let journal = Journal::default();
        let mocks = names.iter().map(|name| MockChild::new(name, &journal)).collect();
        Self { journal, mocks }
    }

    pub(crate) fn builder(&self, spec: SupervisorSpec, names: &[&str]) -> SupervisorBuilder {
        names.iter().zip(&self.mocks).fold(Supervisor::builder(spec), |builder, (name, mock)| {
            builder.child(ChildSpec::worker(*name), mock.clone())
        })
    }
}

pub(crate) fn flags(strategy: Strategy, intensity: u32) -> SupervisorSpec {
    SupervisorSpec {
        intensity: Some(xy_actors::spec::RestartIntensity::new(intensity, Duration::from_secs(3600))),
        ..SupervisorSpec::new(strategy)
    }
}

/// Returns `id:state` of all children.
pub(crate) async fn states(tree: &Supervisor) -> String {
    let children = tree.which_children().await.expect("the supervisor lives");
    let states: Vec<String> = children.iter().map(|child| format!("{}:{}", child.id, child.state)).collect();
    states.join(" ")
}
