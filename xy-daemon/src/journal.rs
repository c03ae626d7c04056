//! The journal: the events of a tree in a file that outlives the daemon, so that clients resume across its restart.
//!
//! ```text
//! tree ──► EventLog (the latest, in memory) ──► keep: a line per event ──► events.jsonl, before it events.jsonl.1
//!              └──► subscriptions: live ◄── then ── Past: what is in the files and no more in memory
//! ```
//!
//! A line is an [`Event`](crate::protocol::method::Event) as clients get it. Lines are written a moment after the events, many
//! at once, on a thread that may wait for the disk; what waits for it is the log in memory. They are not flushed by
//! themselves: a daemon that is killed loses the events of its last moment, a loss of power those of its last seconds. A disk
//! that is full costs the events that memory does not hold until it has room again, which readers are told as a gap.
//!
//! Numbers go on from the last line. Since that may not be the last event that somebody has seen, each life of the daemon is
//! an era with a name, which the ids of its events begin with: an id is never given twice.

mod starts;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xy_actors::event::stream::{self, EventCursor, EventItem, EventLog, unix_ms};

pub(crate) use self::starts::{Starts, Untold};
use crate::config::EventSettings;
use crate::control::wire_event;
use crate::protocol::method::{Event, Gap};

/// The name of the file in the state directory.
pub(crate) const JOURNAL_FILE: &str = "events.jsonl";

/// How long events gather before they are written together, here and in the history, so that a restart comes before its
/// notes.
pub(crate) const GATHER: Duration = Duration::from_millis(10);

/// How many events are written or read at once.
const BATCH: usize = 256;

/// The longest line that is read; a longer one is passed over.
const LONGEST: u64 = 1 << 20;

/// A file is put aside before it has more bytes than this for each event that it may hold.
const BYTES_PER_EVENT: u64 = 2 << 10;

/// The largest number that is believed; beyond, a file is damaged.
const LARGEST: u64 = 1 << 53;

/// How a line begins.
const BEGINNING: &[u8] = br#"{"version":1,"id":""#;

/// The journal of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where it is; `None` keeps nothing beyond memory.
    path: Option<PathBuf>,
    settings: EventSettings,
    /// Oldest first; the last one is that of this daemon.
    eras: Vec<Era>,
    /// The number of the last event that was in the file when it was opened.
    last: u64,
}

/// One life of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Era {
    /// The number of its first event.
    first: u64,
    name: String,
}

/// What the next program of the process has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalState {
    settings: EventSettings,
    era: String,
}

impl JournalState {
    /// Returns what is kept, for how long.
    pub(crate) fn settings(&self) -> EventSettings {
        self.settings
    }
}

impl Journal {
    /// Reads which events there were; there may be no file. It writes nothing.
    ///
    /// Blocking.
    pub(crate) fn open(path: Option<&Path>, settings: EventSettings) -> Self {
        Self::begin(path, settings, None)
    }

    /// Goes on with the era of the program before this one.
    ///
    /// Blocking.
    pub(crate) fn take_up(path: &Path, state: &JournalState) -> Self {
        Self::begin(Some(path), state.settings, Some(&state.era))
    }

    fn begin(path: Option<&Path>, settings: EventSettings, era: Option<&str>) -> Self {
        let path = path.filter(|_| settings.keep > 0);
        // Without a file nothing outlives the program, whatever was asked for.
        let settings = if path.is_some() { settings } else { EventSettings { keep: 0, ..settings } };
        let mut scan = Scan::default();
        for path in path.into_iter().flat_map(|path| [previous(path), path.to_owned()]) {
            match open(&path) {
                Ok(file) => scan.read(BufReader::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "earlier events cannot be read");
                }
            }
        }
        let Scan { mut eras, last } = scan;
        let name = era.map_or_else(|| new_name(&eras), ToOwned::to_owned);
        if eras.last().is_none_or(|era| era.name != name) {
            eras.push(Era { first: last + 1, name });
        }
        Self(Arc::new(Inner { path: path.map(Path::to_owned), settings, eras, last }))
    }

    /// Returns what starts of children were told of; none if nothing is kept.
    ///
    /// Blocking.
    pub(crate) fn starts(&self) -> Starts {
        self.0.path.as_deref().map(Starts::read).unwrap_or_default()
    }

    /// Returns the number for the first event of a daemon that begins.
    pub(crate) fn first(&self) -> u64 {
        self.0.last + 1
    }

    /// Returns what is kept, for how long.
    pub(crate) fn settings(&self) -> EventSettings {
        self.0.settings
    }

    /// Returns what to hand over to the next program.
    pub(crate) fn state(&self) -> JournalState {
        let era = self.0.eras.last().map(|era| era.name.clone()).unwrap_or_default();
        JournalState { settings: self.0.settings, era }
    }

    /// Returns the id of an event in memory.
    pub(crate) fn id_of(&self, seq: u64) -> String {
        let eras = &self.0.eras;
        let of = eras.iter().rev().find(|era| era.first <= seq).or(eras.first());
        format!("{}-{seq}", of.map_or("", |era| &era.name))
    }

    /// Returns the number of the event with this id, if there was one; `latest` is the number of the latest one.
    pub(crate) fn number_of(&self, id: &str, latest: u64) -> Option<u64> {
        let (name, number) = parse(id.as_bytes())?;
        let eras = &self.0.eras;
        let index = eras.iter().position(|era| era.name.as_bytes() == name)?;
        let end = eras.get(index + 1).map_or(latest, |next| next.first - 1);
        (eras[index].first..=end).contains(&number).then_some(number)
    }

    /// Writes what a tree tells, until it has ended.
    ///
    /// # Cancel safety
    /// What was written stays; a piece that is being written may be written yet.
    pub(crate) async fn keep(self, log: EventLog) {
        let Some(path) = self.0.path.clone() else { return };
        let mut writer = Writer::new(path, self.0.settings, self.0.last);
        let mut waiting = log.subscribe(EventCursor::Seq(writer.last + 1));
        let mut is_over = false;
        while !is_over {
            is_over = waiting.next().await.is_none();
            if !is_over {
                tokio::time::sleep(GATHER).await;
            }
            let latest = log.latest();
            loop {
                let batch = gather(&mut log.subscribe(EventCursor::Seq(writer.last + 1)));
                if batch.is_empty() {
                    break;
                }
                let journal = self.clone();
                let write = move || {
                    let is_written = writer.append(&batch, &journal, unix_ms());
                    (writer, is_written)
                };
                let Ok((back, is_written)) = tokio::task::spawn_blocking(write).await else {
                    tracing::error!("events are kept no longer: writing them failed by a panic");
                    return;
                };
                writer = back;
                if !is_written {
                    break;
                }
            }
            // After a failure the next event is the next attempt, with everything that memory still holds.
            waiting = log.subscribe(EventCursor::Seq(latest.max(writer.last) + 1));
        }
    }

    /// Returns what is kept from this number on and, for all that is known, no more in memory; `None` if nothing is kept.
    ///
    /// Blocking.
    pub(crate) fn past(&self, from: u64, latest: u64) -> Option<Past> {
        let path = self.0.path.as_deref()?;
        let EventSettings { keep, age } = self.0.settings;
        // The current file first: what is put aside between the two is then in both, and read once.
        let current = open(path).ok();
        let earlier = open(&previous(path)).ok();
        let files = [current, earlier].into_iter().flatten().map(BufReader::new).collect();
        Some(Past {
            files,
            next: from.max((latest + 1).saturating_sub(keep.into())),
            since: unix_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

fn gather(events: &mut stream::EventStream) -> Vec<stream::Event> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Ok(item) = events.try_next()
    {
        // What memory has lost before it was written is missing in the file as well, and its number tells.
        if let EventItem::Event(event) = item {
            batch.push(event);
        }
    }
    batch
}

/// Names an era by the time, unlike those before it.
fn new_name(eras: &[Era]) -> String {
    let mut name = unix_ms();
    while eras.iter().any(|era| era.name == format!("{name:x}")) {
        name += 1;
    }
    format!("{name:x}")
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe of that name must not make us wait.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Returns the era and the number of an id.
fn parse(id: &[u8]) -> Option<(&[u8], u64)> {
    let dash = id.iter().rposition(|byte| *byte == b'-')?;
    let (era, digits) = (&id[..dash], &id[dash + 1..]);
    let is_plain = digits.iter().all(u8::is_ascii_digit) && !digits.starts_with(b"0");
    let number = std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()?;
    let is_name = !era.is_empty() && era.iter().all(u8::is_ascii_hexdigit);
    (is_name && number <= LARGEST).then_some((era, number))
}

/// Returns the era and the number of a line, by its beginning alone.
fn parse_line(line: &[u8]) -> Option<(&[u8], u64)> {
    let rest = line.strip_prefix(BEGINNING)?;
    parse(&rest[..rest.iter().position(|byte| *byte == b'"')?])
}

/// Reads the next line that ends and is not too long, without its end; `None` at the end.
fn next_line<'l>(reader: &mut impl BufRead, line: &'l mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        line.clear();
        // What cannot be read is the end: the rest is told as missing.
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', line).ok()?;
        match line.last() {
            Some(b'\n') => break,
            Some(_) if read as u64 == LONGEST => {
                // The rest of it is a line that does not begin like one.
                continue;
            }
            // A daemon was killed within this line.
            _ => return None,
        }
    }
    line.pop();
    Some(line)
}

/// What is known of files without reading every event.
#[derive(Debug, Default)]
struct Scan {
    eras: Vec<Era>,
    last: u64,
}

impl Scan {
    fn read(&mut self, mut reader: impl BufRead) {
        let mut line = Vec::new();
        while let Some(line) = next_line(&mut reader, &mut line) {
            // A line that was cut off and gone on with, or is of another version, is left out.
            let Some((era, seq)) = parse_line(line).filter(|(_, seq)| *seq > self.last) else { continue };
            self.last = seq;
            if self.eras.last().is_none_or(|last| last.name.as_bytes() != era) {
                let name = String::from_utf8_lossy(era).into_owned();
                self.eras.push(Era { first: seq, name });
            }
        }
    }
}

/// Events of the past, oldest first, from files that are open.
#[derive(Debug)]
pub(crate) struct Past<R = BufReader<File>> {
    /// The latest first.
    files: Vec<R>,
    next: u64,
    /// What happened before is kept no longer.
    since: u64,
}

impl<R: BufRead> Past<R> {
    /// Reads some events that were not read yet; none at the end.
    ///
    /// Blocking.
    pub(crate) fn read(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut line = Vec::new();
        while events.len() < BATCH
            && let Some(reader) = self.files.last_mut()
        {
            let Some(line) = next_line(reader, &mut line) else {
                self.files.pop();
                continue;
            };
            let is_wanted = parse_line(line).is_some_and(|(_, seq)| seq >= self.next);
            if !is_wanted {
                continue;
            }
            if let Ok(event) = serde_json::from_slice::<Event>(line)
                && event.at_unix_ms >= self.since
                && parse(event.id.as_bytes()).is_some_and(|(_, seq)| seq == event.seq)
            {
                self.next = event.seq + 1;
                events.push(event);
            }
        }
        events
    }
}

/// Returns what lies between the events that were read so far and the next one.
pub(crate) fn gap(next: u64, seq: u64) -> Option<Gap> {
    (seq > next).then(|| Gap { first: next, last: seq - 1 })
}

/// Appends to the file.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    settings: EventSettings,
    file: Option<Appended>,
    /// The number of the last event that is written.
    last: u64,
    is_failing: bool,
}

/// A file that is appended to.
#[derive(Debug)]
struct Appended {
    file: File,
    /// Where the next line begins.
    length: u64,
    lines: u64,
    /// When its first event happened.
    began_unix_ms: Option<u64>,
}

impl Writer {
    fn new(path: PathBuf, settings: EventSettings, last: u64) -> Self {
        Self { path, settings, file: None, last, is_failing: false }
    }

    /// Writes events, all or none of them; tells once that it cannot.
    fn append(&mut self, events: &[stream::Event], journal: &Journal, now_unix_ms: u64) -> bool {
        match self.try_append(events, journal, now_unix_ms) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(path = %self.path.display(), "events are kept again");
                }
                true
            }
            Err(error) => {
                self.file = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(path = %self.path.display(), %error, "events cannot be kept; they go on in memory");
                }
                false
            }
        }
    }

    fn try_append(&mut self, events: &[stream::Event], journal: &Journal, now: u64) -> io::Result<()> {
        let mut text = Vec::new();
        for event in events {
            serde_json::to_writer(&mut text, &wire_event(event, journal.id_of(event.seq)))?;
            text.push(b'\n');
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => Appended::open(&self.path)?,
        };
        if self.is_full(&file, text.len() as u64, now) {
            std::fs::rename(&self.path, previous(&self.path))?;
            file = Appended::open(&self.path)?;
        }
        let file = self.file.insert(file);
        if let Err(error) = file.file.write_all_at(&text, file.length) {
            // A part of a line is no line; what cannot be taken back is cut off when the file is opened again.
            _ = file.file.set_len(file.length);
            return Err(error);
        }
        file.length += text.len() as u64;
        file.lines += events.len() as u64;
        file.began_unix_ms = file.began_unix_ms.or(events.first().map(|event| event.at_unix_ms));
        self.last = events.last().map_or(self.last, |event| event.seq);
        Ok(())
    }

    fn is_full(&self, file: &Appended, more: u64, now: u64) -> bool {
        let EventSettings { keep, age } = self.settings;
        let keep = u64::from(keep);
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        // As many as are kept are in the two files together whenever one is begun.
        file.lines >= keep
            || file.began_unix_ms.is_some_and(|began| now.saturating_sub(began) > age)
            || file.length + more > keep.saturating_mul(BYTES_PER_EVENT).max(LONGEST)
    }
}

impl Appended {
    /// Opens a file to go on behind its last whole line.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let mut file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let (mut length, mut lines, mut began_unix_ms) = (0, 0, None);
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        while let Some(line) = next_line(&mut reader, &mut line) {
            lines += 1;
            if began_unix_ms.is_none() {
                began_unix_ms = serde_json::from_slice::<Event>(line).ok().map(|event| event.at_unix_ms);
            }
            length = reader.stream_position()?;
        }
        file.seek(SeekFrom::Start(0))?;
        file.set_len(length)?;
        Ok(Self { file, length, lines, began_unix_ms })
    }
}

/// Reads a file, and again what was read of it.
#[cfg(feature = "testkit")]
pub(crate) fn read_twice(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut past = Past { files: vec![bytes], next: 1, since: 0 };
        let mut events = Vec::new();
        loop {
            let batch = past.read();
            if batch.is_empty() {
                break events;
            }
            events.extend(batch);
        }
    };
    let once = read(bytes);
    assert!(once.is_sorted_by(|one, next| one.seq < next.seq), "numbers rise");
    let mut text = Vec::new();
    for event in &once {
        serde_json::to_writer(&mut text, event).expect("what was JSON is JSON");
        text.push(b'\n');
    }
    assert_eq!(read(&text), once);
    let mut scan = Scan::default();
    scan.read(bytes);
    assert!(once.last().is_none_or(|last| last.seq <= scan.last), "the last event is known");
    assert!(scan.last <= LARGEST);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY: EventSettings = EventSettings { keep: 1000, age: Duration::from_secs(24 * 3600) };

    fn tell(log: &EventLog, count: u64) {
        for _ in 0..count {
            log.tell("web", "told", BTreeMap::from([("by".to_owned(), "me\n".to_owned())]));
        }
    }

    /// A journal and a writer of its own, without the task between them.
    struct Bench {
        directory: tempfile::TempDir,
        settings: EventSettings,
    }

    impl Bench {
        fn new(settings: EventSettings) -> Self {
            Self { directory: tempfile::tempdir().unwrap(), settings }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join(JOURNAL_FILE)
        }

        fn journal(&self) -> Journal {
            Journal::open(Some(&self.path()), self.settings)
        }

        /// One life of a daemon in which so many events happen.
        fn live(&self, count: u64) -> Journal {
            let journal = self.journal();
            let mut writer = Writer::new(self.path(), self.settings, journal.0.last);
            let log = EventLog::new(10);
            for seq in journal.first()..journal.first() + count {
                tell(&log, 1);
                let Some(mut event) = gather(&mut log.subscribe(EventCursor::Seq(log.latest()))).pop() else {
                    panic!("it was told")
                };
                event.seq = seq;
                assert!(writer.append(&[event], &journal, unix_ms()));
            }
            journal
        }

        fn read(&self, from: u64, latest: u64) -> Vec<u64> {
            let Some(mut past) = self.journal().past(from, latest) else { return Vec::new() };
            let mut seen = Vec::new();
            loop {
                let events = past.read();
                if events.is_empty() {
                    return seen;
                }
                seen.extend(events.iter().map(|event| event.seq));
            }
        }
    }

    #[test]
    fn numbers_go_on_and_ids_are_those_of_their_era() {
        let bench = Bench::new(DAY);
        let first = bench.live(3);
        let second = bench.live(2);
        assert_eq!((first.first(), second.first(), bench.journal().first()), (1, 4, 6));
        let third = bench.journal();
        assert_eq!(bench.read(1, 5), [1, 2, 3, 4, 5]);
        for (journal, seq) in [(&first, 1), (&first, 3), (&second, 4), (&second, 5), (&third, 6)] {
            let id = journal.id_of(seq);
            assert_eq!(third.number_of(&id, 6), Some(seq), "{id}");
            assert_eq!(third.id_of(seq), id);
        }
        assert_eq!(bench.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_id_of_what_was_lost_or_comes_yet_or_is_none_is_not_known() {
        let bench = Bench::new(DAY);
        let first = bench.live(3);
        let second = bench.live(2);
        // The first one was killed before it wrote this event, which a client has seen.
        assert_eq!(second.number_of(&first.id_of(4), 5), None);
        assert_eq!(second.number_of(&second.id_of(6), 5), None);
        for id in
            ["", "-", "1", "-1", "18f-", "18f-x", "18f-1", "18f-01", "18f-1-1", "18f-99999999999999999999"]
        {
            assert_eq!(second.number_of(id, 5), None, "{id}");
        }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_its_number_given_again() {
        let bench = Bench::new(DAY);
        bench.live(3);
        let whole = fs::read(bench.path()).unwrap();
        for cut in [1, 10, 60] {
            fs::write(bench.path(), &whole[..whole.len() - cut]).unwrap();
            assert_eq!(bench.read(1, 3), [1, 2]);
            assert_eq!(bench.live(2).first(), 3, "{cut}");
            assert_eq!(bench.read(1, 4), [1, 2, 3, 4], "{cut}");
        }
        fs::write(bench.path(), [&whole[..], b"\0\0\0\0"].concat()).unwrap();
        assert_eq!(bench.live(1).first(), 4);
        assert_eq!(bench.read(1, 4), [1, 2, 3, 4]);
    }

    #[test]
    fn damage_in_the_middle_costs_its_line_only() {
        let bench = Bench::new(DAY);
        bench.live(3);
        let mut bytes = fs::read(bench.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] = 0xff;
        fs::write(bench.path(), bytes).unwrap();
        assert_eq!(bench.read(1, 3), [1, 3]);
        assert_eq!(bench.journal().first(), 4);
    }

    #[test]
    fn the_window_is_bounded_by_number_and_so_are_the_files() {
        let bench = Bench::new(EventSettings { keep: 10, ..DAY });
        for life in 1..=7_u64 {
            bench.live(7);
            let latest = life * 7;
            let expected: Vec<u64> = (latest.saturating_sub(9).max(1)..=latest).collect();
            assert_eq!(bench.read(1, latest), expected);
        }
        let files: Vec<u64> = fs::read_dir(bench.directory.path())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap().lines().count() as u64)
            .collect();
        assert!(files.len() == 2 && files.iter().all(|lines| *lines <= 10), "{files:?}");
    }

    #[test]
    fn what_is_too_old_is_not_told_and_goes_with_the_next_events() {
        let bench = Bench::new(EventSettings { keep: 1000, age: Duration::from_secs(60) });
        let old = |seq: u64, at_unix_ms: u64| {
            let event = br#","path":"","incarnation":null,"type":"x","payload":{}}"#;
            [
                format!(r#"{{"version":1,"id":"18f-{seq}","seq":{seq},"at_unix_ms":{at_unix_ms}"#).as_bytes(),
                event,
                b"\n",
            ]
            .concat()
        };
        let now = unix_ms();
        fs::write(bench.path(), [old(1, now - 120_000), old(2, now - 1_000)].concat()).unwrap();
        assert_eq!(bench.read(1, 2), [2]);
        bench.live(1);
        assert_eq!(bench.read(1, 3), [2, 3]);
        assert!(previous(&bench.path()).exists(), "put aside, since it began too long ago");
    }

    #[test]
    fn without_a_window_nothing_is_written() {
        let bench = Bench::new(EventSettings { keep: 0, ..DAY });
        let journal = bench.journal();
        assert_eq!(journal.first(), 1);
        assert!(journal.past(1, 5).is_none());
        assert!(journal.number_of(&journal.id_of(3), 5) == Some(3), "ids are those of memory");
    }

    #[tokio::test]
    async fn what_a_tree_tells_is_in_the_file_when_it_has_ended() {
        let bench = Bench::new(DAY);
        let log = EventLog::new(1000);
        tell(&log, 600);
        let keeping = tokio::spawn(bench.journal().keep(log.clone()));
        tell(&log, 1);
        until("the file", || bench.read(1, 601).len() == 601).await;
        keeping.abort();
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_costs_what_memory_does_not_hold() {
        let bench = Bench::new(DAY);
        // Nobody, not even root, writes to a directory.
        fs::create_dir(bench.path()).unwrap();
        let log = EventLog::new(5);
        let keeping = tokio::spawn(bench.journal().keep(log.clone()));
        tell(&log, 2);
        until("a failure", || bench.path().is_dir()).await;
        tell(&log, 10);
        fs::remove_dir(bench.path()).unwrap();
        until("what memory holds", || {
            tell(&log, 1);
            bench.path().is_file()
        })
        .await;
        until("the file", || bench.read(1, log.latest()).last() == Some(&log.latest())).await;
        let kept = bench.read(1, log.latest());
        assert!(kept[0] > 1 && kept.is_sorted(), "{kept:?}");
        keeping.abort();
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let polled = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), polled).await.unwrap_or_else(|_| panic!("{what}"));
    }
}
