//! 64 writers write numbered lines, and a checker finds each of them once and between the markers of its incarnation:
//! through rotation by size and by age, crashes of the writers, restarts, hand-overs, a disk that stalls, and followers that
//! read slowly.
//!
//! The short form is a test; `XY_ACCOUNTING=100 cargo test -p xy-actors --test log accounting -- --nocapture` is a
//! hundred times as long and prints its figures.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use xy_actors::log::{
    Attachment, Cursor, HandOver, HubState, LogFollower, LogHub, LogItem, LogLine, LogQuery, LogSettings,
    Marker, Stream,
};

use crate::{attach, attach_watched, read_files, read_to_end, soon, stall, text};

/// Each writes on two streams.
const SERVERS: usize = 32;
const RESTARTS: u64 = 6;

/// The next number of each stream of each incarnation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Account {
    next: BTreeMap<(u64, &'static str), u64>,
    /// Which incarnation is between its markers.
    running: Option<u64>,
    markers: u64,
}

impl Account {
    /// Enters a line, which must be the next one of its stream, and of the incarnation that runs.
    fn enter(&mut self, line: &LogLine) {
        if line.stream == Stream::Xy {
            let (running, after) = match Marker::of(line).expect("nothing else is remarked") {
                Marker::Started { incarnation, .. } => (None, Some(incarnation)),
                Marker::Exited { incarnation, .. } => (Some(incarnation), None),
            };
            assert_eq!(self.running, running, "{line:?}");
            (self.running, self.markers) = (after, self.markers + 1);
            return;
        }
        let (incarnation, number) = text(line).split_once(' ').expect("every line has two numbers");
        let incarnation = incarnation.parse().expect("an incarnation");
        assert_eq!(self.running, Some(incarnation), "{line:?}");
        let next = self.next.entry((incarnation, line.stream.as_str())).or_default();
        assert_eq!(number.trim_end_matches('x'), next.to_string(), "{} of {incarnation}", line.stream);
        // The last line is cut off by the crash, which is the only way for a line to be partial.
        assert_eq!(line.partial, line.bytes.ends_with(b"x"), "{line:?}");
        *next += 1;
    }

    fn lines(&self) -> u64 {
        self.next.values().sum()
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
        // Small, middle and large writes, which end anywhere within a line.
        let size = [11, 701, 5_003, 60_013][(number as usize / 1_000 + seed) % 4];
        if chunk.len() > size {
            pipe.write_all(&chunk[..size]).unwrap();
            chunk.drain(..size);
        }
    }
    write!(chunk, "{incarnation} {lines}x").unwrap();
    pipe.write_all(&chunk).unwrap();
}

/// Goes on with another hub, by way of bytes, as another program would.
fn take_up(standing: HandOver, directory: &Path) -> (LogHub, Vec<Attachment>) {
    let (state, pipes) = standing.into_parts();
    let state = HubState::decode(&state.encode()).unwrap();
    LogHub::take_up(Some(directory.to_owned()), state, pipes).unwrap()
}

#[tokio::test]
async fn every_line_is_there_once_through_rotation_crash_restart_hand_over_stall_and_slow_followers() {
    let times: u64 = std::env::var("XY_ACCOUNTING").map_or(1, |times| times.parse().expect("a number"));
    let lines = 1_000 * times;
    let root = tempfile::tempdir().unwrap();
    // What rotation deletes cannot be accounted for: these files hold everything.
    let by_size = LogSettings { max_size: times << 14, keep: u32::MAX, buffer: 32 << 10, max_age: None };
    let by_age =
        LogSettings { max_size: u64::MAX, max_age: Some(Duration::from_millis(20 * times)), ..by_size };
    let settings = |server: usize| if server.is_multiple_of(2) { by_size } else { by_age };
    let names: Vec<String> = (0..SERVERS).map(|server| format!("server-{server}")).collect();
    let start = Instant::now();
    let mut hub = LogHub::new(Some(root.path().to_owned()));
    let mut slow = vec![Slow::default(); SERVERS];
    for incarnation in 1..=RESTARTS {
        let mut writers = Vec::new();
        let (watch, is_stalled, goes_on) = stall();
        let mut watch = Some(watch);
        for (server, name) in names.iter().enumerate() {
            let log = hub.open(name, settings(server)).unwrap();
            log.mark_start(incarnation, 1);
            let (attachment, out, err) = match watch.take() {
                Some(watch) => attach_watched(&log, incarnation, watch),
                None => attach(&log, incarnation),
            };
            drop(attachment);
            for (pipe, seed) in [(out, server), (err, server + 1)] {
                writers.push(thread::spawn(move || generate(pipe, incarnation, lines, seed)));
            }
        }
        soon(is_stalled).await.expect("it has read a line of the first");
        // Somebody else goes on while they write: asked for while nothing is read, so that pipes fill; then again.
        let (standing, ()) = tokio::join!(soon(hub.hand_over()), async { drop(goes_on) });
        (hub, _) = take_up(standing.unwrap(), root.path());
        for (server, slow) in slow.iter_mut().enumerate() {
            let log = hub.open(&names[server], settings(server)).unwrap();
            slow.look(&mut log.follow(Cursor::At(slow.position))).await;
        }
        let attachments;
        (hub, attachments) = take_up(soon(hub.hand_over()).await.unwrap(), root.path());
        for writer in writers {
            tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
        }
        for attachment in attachments {
            read_to_end(attachment).await;
        }
        for (server, name) in names.iter().enumerate() {
            hub.open(name, settings(server)).unwrap().mark_exit(incarnation, 1, "killed");
        }
    }
    soon(hub.flush()).await;
    let took = start.elapsed();

    let (mut total, mut rotations) = (0, 0);
    for (server, name) in names.iter().enumerate() {
        let log = hub.open(name, settings(server)).unwrap();
        let rotated =
            (1..).take_while(|index| root.path().join(format!("{name}.log.{index}")).exists()).count();
        assert!(rotated > 0, "{name}");
        rotations += rotated;
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
        assert_eq!(files.markers, 2 * RESTARTS);
        assert_eq!(log.health().lines, files.lines() + files.markers, "the markers are lines too");
        total += files.lines();
    }
    let missed: u64 = slow.iter().map(|slow| slow.missed).sum();
    let seen: u64 = slow.iter().map(|slow| slow.seen).sum();
    println!(
        "{total} lines of {} writers, {RESTARTS} crashes and stalls, {} hand-overs, {rotations} rotations, in {:.1} s: 0 missing, \
         0 twice; slow followers saw {seen} and were told of {missed} that memory no longer held",
        2 * SERVERS,
        2 * RESTARTS,
        took.as_secs_f64()
    );
}
