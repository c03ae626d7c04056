//! What the children have noted: when each reached its main function.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

/// One start of a child, or another moment that it notes.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) at: Duration,
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) kind: String,
}

/// The file that the children append to.
#[derive(Debug)]
pub(crate) struct Notes {
    reader: BufReader<File>,
    line: String,
    all: Vec<Note>,
    /// The latest note of the kind that each child was started as.
    latest: BTreeMap<String, usize>,
}

impl Notes {
    /// Makes the file.
    pub(crate) fn create(path: &Path) -> Self {
        File::create_new(path).expect("the directory is new");
        let reader = BufReader::new(File::open(path).expect("it was made"));
        Self { reader, line: String::new(), all: Vec::new(), latest: BTreeMap::new() }
    }

    /// Reads what came in, and returns everything.
    pub(crate) fn all(&mut self) -> &[Note] {
        while self.reader.read_line(&mut self.line).expect("notes are text") > 0 {
            // A note is one write; what lacks its end is read on.
            if !self.line.ends_with('\n') {
                break;
            }
            let words: Vec<&str> = self.line.split_whitespace().collect();
            let [at, pid, name, kind] = words[..] else { panic!("no note: {}", self.line) };
            let kind = kind.to_owned();
            let at = Duration::from_nanos(at.parse().expect("a time"));
            let note = Note { at, pid: pid.parse().expect("a pid"), name: name.to_owned(), kind };
            if !matches!(note.kind.as_str(), "end" | "in-group" | "in-session" | "orphaned") {
                self.latest.insert(note.name.clone(), self.all.len());
            }
            self.all.push(note);
            self.line.clear();
        }
        &self.all
    }

    /// Returns the latest start of each child, by name.
    pub(crate) fn latest(&mut self) -> BTreeMap<String, Note> {
        self.all();
        self.latest.iter().map(|(name, index)| (name.clone(), self.all[*index].clone())).collect()
    }

    /// Returns when the latest start of a child was, and its process.
    pub(crate) fn start_of(&mut self, name: &str) -> Option<(Duration, i32)> {
        self.all();
        self.latest.get(name).map(|index| (self.all[*index].at, self.all[*index].pid))
    }

    /// Returns how many children have started at least once.
    pub(crate) fn started(&mut self) -> usize {
        self.all();
        self.latest.len()
    }
}
