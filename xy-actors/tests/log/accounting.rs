//! A generator writes numbered lines, and a checker finds each of them once: through rotation, crashes of the writer,
//! restarts, hand-overs, and followers that read slowly.
//!
//! The short form is a test; `XY_ACCOUNTING=100 cargo test -p xy-actors --test log accounting -- --nocapture` is a
//! hundred times as long and prints its figures.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::thread;
use std::time::Instant;

use xy_actors::log::{
    Cursor, HubState, LogFollower, LogHub, LogItem, LogLine, LogQuery, LogSettings, Stream,
};

use crate::{attach, read_files, read_to_end, soon, text};

const SERVERS: usize = 8;
const RESTARTS: u64 = 6;

/// The next number of each stream of each incarnation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Account(BTreeMap<(u64, &'static str), u64>);

impl Account {
    /// Enters a line, which must be the next one of its stream.
    fn enter(&mut self, line: &LogLine) {
        if line.stream == Stream::Xy {
            return;
        }
        let (incarnation, number) = text(line).split_once(' ').expect("every line has two numbers");
        let incarnation = incarnation.parse().expect("an incarnation");
        let next = self.0.entry((incarnation, line.stream.as_str())).or_default();
        assert_eq!(number.trim_end_matches('x'), next.to_string(), "{} of {incarnation}", line.stream);
        // The last line is cut off by the crash, which is the only way for a line to be partial.
        assert_eq!(line.partial, line.bytes.ends_with(b"x"), "{line:?}");
        *next += 1;
    }

    fn lines(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A follower that looks once in a while: it misses lines, and knows which.
#[derive(Debug, Default, Clone)]
struct Slow {
    position: u64,
    seen: u64,
    missed: u64,
}

impl Slow {
    async fn look(&mut self, follower: &mut LogFollower) {
        assert_eq!(follower.position(), self.position);
        for item in soon(follower.next()).await.unwrap() {
            match item {
                LogItem::Line(line) => {
                    assert_eq!(line.number, self.position);
                    self.position += 1;
                    self.seen += 1;
                }
                LogItem::Gap { first, last } => {
                    assert!(first == self.position && last >= first);
                    self.position = last + 1;
                    self.missed += last + 1 - first;
                }
            }
        }
    }
}

/// Writes numbered lines, and dies within one.
fn generate(mut pipe: std::io::PipeWriter, incarnation: u64, lines: u64, seed: usize) {
    let mut chunk = Vec::new();
    for number in 0..lines {
        writeln!(chunk, "{incarnation} {number}").unwrap();
        // Small, middle and large writes.
        if chunk.len() > [10, 700, 5_000, 60_000][(number as usize / 1_000 + seed) % 4] {
            pipe.write_all(&chunk).unwrap();
            chunk.clear();
        }
    }
    write!(chunk, "{incarnation} {lines}x").unwrap();
    pipe.write_all(&chunk).unwrap();
}

#[tokio::test]
async fn every_line_is_there_once_through_rotation_crash_restart_hand_over_and_slow_followers() {
    let times: u64 = std::env::var("XY_ACCOUNTING").map_or(1, |times| times.parse().expect("a number"));
    let lines = 2_000 * times;
    let root = tempfile::tempdir().unwrap();
    // What rotation deletes cannot be accounted for: these files hold everything.
    let settings = LogSettings { max_size: times << 16, keep: u32::MAX, buffer: 32 << 10, max_age: None };
    let directory = || Some(root.path().to_owned());
    let names: Vec<String> = (0..SERVERS).map(|server| format!("server-{server}")).collect();
    let start = Instant::now();
    let mut hub = LogHub::new(directory());
    let mut slow = vec![Slow::default(); SERVERS];
    for incarnation in 1..=RESTARTS {
        let mut writers = Vec::new();
        for (server, name) in names.iter().enumerate() {
            let log = hub.open(name, settings).unwrap();
            log.mark_start(incarnation, 1);
            let (attachment, out, err) = attach(&log, incarnation);
            drop(attachment);
            for (pipe, seed) in [(out, server), (err, server + 1)] {
                writers.push(thread::spawn(move || generate(pipe, incarnation, lines, seed)));
            }
        }
        // Somebody else goes on while they write.
        let (state, pipes) = soon(hub.hand_over()).await.unwrap().into_parts();
        let state = HubState::decode(&state.encode()).unwrap();
        let attachments;
        (hub, attachments) = LogHub::take_up(directory(), state, pipes).unwrap();
        for (name, slow) in names.iter().zip(&mut slow) {
            slow.look(&mut hub.open(name, settings).unwrap().follow(Cursor::At(slow.position))).await;
        }
        for writer in writers {
            tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
        }
        for attachment in attachments {
            read_to_end(attachment).await;
        }
        for name in &names {
            hub.open(name, settings).unwrap().mark_exit(incarnation, 1, "killed");
        }
    }
    soon(hub.flush()).await;
    let took = start.elapsed();

    let mut total = 0;
    for name in &names {
        let log = hub.open(name, settings).unwrap();
        let mut files = Account::default();
        read_files(root.path(), name).iter().for_each(|line| files.enter(line));
        let mut read = Account::default();
        let mut reader = soon(log.read(LogQuery::default())).await;
        while let Some(items) = soon(reader.next()).await {
            for item in items {
                let LogItem::Line(line) = item else { panic!("nothing is missing: {item:?}") };
                read.enter(&line);
            }
        }
        assert_eq!(read, files);
        assert_eq!(files.lines(), RESTARTS * 2 * (lines + 1), "{name}");
        assert_eq!(log.health().lines, files.lines() + 2 * RESTARTS, "the markers are lines too");
        total += files.lines();
    }
    let missed: u64 = slow.iter().map(|slow| slow.missed).sum();
    let seen: u64 = slow.iter().map(|slow| slow.seen).sum();
    println!(
        "{total} lines of {SERVERS} servers, {RESTARTS} crashes and hand-overs each, in {:.1} s: 0 missing, 0 twice; \
         slow followers saw {seen} and were told of {missed} that memory no longer held",
        took.as_secs_f64()
    );
}
