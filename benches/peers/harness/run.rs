//! One run of one subject: its directory, its processes, what its children have noted; gone without a trace at its end.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::notes::Notes;
use crate::processes::{self, Process};
use crate::subject::{Places, Subject, Work};

/// How long anything may take before the run is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A subject with its children.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) subject: Subject,
    pub(crate) work: Work,
    pub(crate) notes: Notes,
    /// When it was started.
    pub(crate) since: Duration,
    places: &'a Places,
    directory: TempDir,
    first: i32,
}

impl<'a> Run<'a> {
    /// Starts a subject, on a memory file system, so that no disk has a say.
    pub(crate) fn start(subject: Subject, places: &'a Places, work: Work) -> Self {
        let directory = tempfile::Builder::new().prefix("xy-peers.").tempdir_in("/dev/shm");
        let directory = directory.expect("a directory on the memory file system");
        subject.configure(places, directory.path(), &work);
        let notes = Notes::create(&directory.path().join("notes"));
        let since = processes::now();
        let first = subject.start(places, directory.path(), &work);
        Self { subject, work, notes, since, places, directory, first }
    }

    /// Starts a subject and waits for all of its children to run.
    pub(crate) fn started(subject: Subject, places: &'a Places, work: Work) -> Option<Self> {
        let mut run = Self::start(subject, places, work);
        if processes::until(PATIENCE, || run.notes.started() == run.work.count) {
            return Some(run);
        }
        let errors = std::fs::read_to_string(run.directory.path().join("errors")).unwrap_or_default();
        let last: Vec<&str> = errors.lines().take(5).collect();
        eprintln!("{} started {} of {}: {last:#?}", subject.name(), run.notes.started(), run.work.count);
        None
    }

    /// Starts the subject once more, on what the last one left.
    pub(crate) fn start_again(&mut self) {
        self.first = self.subject.start(self.places, self.directory.path(), &self.work);
    }

    /// Asks for an ordered end.
    pub(crate) fn stop(&self) {
        self.subject.stop(self.places, self.directory.path(), &self.work, self.first);
    }

    /// Returns the live processes of this run.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::of_run(self.directory.path(), &self.places.child())
    }

    /// Returns those that are the supervisor's own.
    pub(crate) fn supervisors(&self) -> Vec<Process> {
        self.processes().into_iter().filter(|process| !process.is_child).collect()
    }

    /// Returns the process that was started.
    pub(crate) fn first(&self) -> i32 {
        self.first
    }

    /// Returns its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        processes::clear(self.directory.path(), &self.places.child());
    }
}
