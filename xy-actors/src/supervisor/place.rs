//! Where a child is: which supervisor it is a child of, and which is the root above that.

use crate::supervisor::Supervisor;

/// The handles that a supervisor gives to its children: one value that all of them share.
#[derive(Debug)]
pub(crate) struct Place {
    supervisor: Supervisor,
    /// `None` if the supervisor is the root itself.
    root: Option<Supervisor>,
}

impl Place {
    /// Creates the place of the children of a supervisor, which is itself a child at `above` unless it is the root.
    pub(crate) fn new(supervisor: Supervisor, above: Option<&Self>) -> Self {
        Self { supervisor, root: above.map(|above| above.root().clone()) }
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    pub(crate) fn root(&self) -> &Supervisor {
        self.root.as_ref().unwrap_or(&self.supervisor)
    }
}
