//! Who our processes are, on disk: an append-only file from which the next start knows what this one left behind.
//!
//! One line per event, in plain text:
//! ```text
//! xy-ledger 1 BOOT-ID
//! cgroup DIRECTORY                     where the control groups are, if there are any
//! intent MARKER LABEL [INCARNATION]    before a process is created; the number is that of the child's start, which a
//!                                      command beside it has not
//! born MARKER PID START-TIME [INODE]   after it; the inode is that of its pidfd, from Linux 6.9 on
//! gone MARKER [EXIT CAUSE]             after it was reaped, or was never created; with how the start of a child ended
//! ```
//! Nothing is flushed to the disk, which would cost more than a restart: the file has to survive our death, not that of the
//! machine, as a new boot id voids it. After a loss of power it may be empty or damaged; then it is set aside, and only the
//! story of who ran is lost.
//! A last line without its end is what a death in the middle of a write leaves, and is dropped.
//!
//! A disk that is full or fails keeps no server from being started, and the daemon neither. It is told once, each further
//! event tries to write the file anew, and until that succeeds the next start knows less than it should: the
//! parent-death signal, the guard and the control groups do not need the file.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::Groups;
use super::tree::{self, Identity};

mod end;
mod sweep;

use self::sweep::sweep;
pub use self::sweep::{EndedIncarnation, LostIncarnation, SweepReport, SweptProcess};
use crate::exit::ExitReport;

const HEADER: &str = "xy-ledger 1 ";

/// How many starts that have ended stay in a file that is written anew.
const ENDED_KEPT: usize = 16;

/// Beyond this many bytes the file is rewritten with what is still alive.
const COMPACT_AT: u64 = 256 << 10;

/// How long a file is tried again that cannot be read for want of descriptors or memory.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// A process that was begun and has not been reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    label: String,
    /// Which start of the child it is; none for a command that runs beside it.
    incarnation: Option<u64>,
    main: Option<MainProcess>,
}

/// By what a main process is told from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MainProcess {
    /// Its pid and start time.
    pub(super) identity: Identity,
    /// The inode of its pidfd, where that is one of its own.
    pub(super) inode: Option<u64>,
}

/// What a ledger file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    /// The boot it is about; `None` if not even the first line is complete.
    boot: Option<String>,
    /// The directory of control groups.
    cgroup: Option<PathBuf>,
    /// By marker.
    unfinished: BTreeMap<String, Entry>,
    /// The starts that were seen to end, oldest first, as far as the file still has them.
    ended: Vec<EndedIncarnation>,
    /// How many complete lines make no sense.
    damaged: usize,
}

impl Contents {
    fn parse(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for (number, line) in bytes[..complete].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let line = std::str::from_utf8(line).map(|line| line.trim_end_matches('\n'));
            let understood = match line {
                Ok(line) if number == 0 => contents.header(line),
                Ok(line) => contents.event(line),
                Err(_) => None,
            };
            if understood.is_none() {
                contents.damaged += 1;
            }
        }
        contents
    }

    fn header(&mut self, line: &str) -> Option<()> {
        let boot = line.strip_prefix(HEADER)?;
        self.boot = Some(boot.to_owned());
        Some(())
    }

    fn event(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (event, marker) = (words.next()?, words.next()?);
        if event == "cgroup" {
            self.cgroup = Some(unescape(marker)?.into());
            return words.next().is_none().then_some(());
        }
        if !is_marker(marker) {
            return None;
        }
        match event {
            "intent" => {
                let label = unescape(words.next()?)?;
                let incarnation = words.next().map(str::parse).transpose().ok()?;
                self.unfinished.insert(marker.to_owned(), Entry { label, incarnation, main: None });
            }
            "born" => {
                let pid = words.next()?.parse().ok()?;
                let start_time = words.next()?.parse().ok()?;
                let inode = words.next().map(str::parse).transpose().ok()?;
                let identity = Identity { pid, start_time };
                self.unfinished.get_mut(marker)?.main = Some(MainProcess { identity, inode });
            }
            "gone" => {
                let entry = self.unfinished.remove(marker);
                let mut words = words.peekable();
                if words.peek().is_some() {
                    let report = end::parse(words)?;
                    self.ended.extend(entry.and_then(|entry| EndedIncarnation::of(entry, report)));
                }
                return Some(());
            }
            _ => return None,
        }
        words.next().is_none().then_some(())
    }
}

/// Returns whether this could be the marker of a tree.
pub(super) fn is_marker(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a label as one word.
fn escape(label: &str) -> String {
    let mut escaped = String::with_capacity(label.len() + 1);
    for character in label.chars() {
        if character == '%' || character.is_whitespace() || character.is_control() {
            escaped.push_str(&format!("%{:x};", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    // An empty label is a word, too.
    if escaped.is_empty() { "%;".to_owned() } else { escaped }
}

fn unescape(word: &str) -> Option<String> {
    let mut label = String::with_capacity(word.len());
    let mut parts = word.split('%');
    label.push_str(parts.next()?);
    for part in parts {
        let (code, rest) = part.split_once(';')?;
        if !code.is_empty() {
            label.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        }
        label.push_str(rest);
    }
    Some(label)
}

/// The open file. Held for life together with a lock beside it, so that no second host sweeps our processes.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    /// What each file begins with.
    head: String,
    /// `None` until one could be written.
    file: Option<File>,
    size: u64,
    unfinished: BTreeMap<String, Entry>,
    /// What the file says of the latest starts that have ended, oldest first, for when it is written anew: the next host may
    /// be the first to tell.
    ended: VecDeque<String>,
    /// The last write failed, maybe part-way, so that the file is to be written anew.
    is_torn: bool,
    lock: LedgerLock,
}

/// The right to write the ledger.
#[derive(Debug)]
struct LedgerLock {
    file: File,
    /// An earlier or a later program of this process has it as well; closing it is all that may be done.
    is_shared: bool,
}

impl Drop for LedgerLock {
    fn drop(&mut self) {
        // A process that is being created has a copy for a moment, so that closing alone would not free it at once.
        if !self.is_shared {
            let _closed_all_the_same = self.file.unlock();
        }
    }
}

/// Why the ledger could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another host has it open.
    InUse,
    /// What an earlier host left cannot be looked for.
    Sweep(io::Error),
    /// A file operation failed on this path.
    Io(PathBuf, io::Error),
}

impl Ledger {
    /// Takes the lock, ends what an earlier host left, and begins a new file. With the lock held, `groups` makes the
    /// control groups that go with it.
    pub(super) fn open(
        path: &Path,
        groups: impl FnOnce() -> Option<Groups>,
    ) -> Result<(Self, Option<Groups>, SweepReport), OpenError> {
        let lock = lock(path)?;
        let fail = |error| OpenError::Io(path.to_owned(), error);
        let boot = tree::boot_id().map_err(fail)?;
        let (contents, fault) = match tree::insist(Instant::now() + READ_LIMIT, || read(path)) {
            Ok(bytes) => {
                let contents = Contents::parse(&bytes);
                let fault =
                    (contents.damaged > 0).then(|| format!("{} lines make no sense", contents.damaged));
                (contents, fault)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Contents::default(), None),
            // What it says is there to be read, only not now; to go on without could start everything twice.
            Err(error) if tree::could_not_look(&error) => return Err(fail(error)),
            Err(error) => (Contents::default(), Some(error.to_string())),
        };
        let is_this_boot = contents.boot.as_ref() == Some(&boot);
        let lost = contents.unfinished.values().filter_map(LostIncarnation::of).collect();
        let ended = contents.ended;
        // Another boot has ended all of them, whatever has their pids now.
        let mut unfinished = if is_this_boot { contents.unfinished } else { BTreeMap::new() };
        let mut report = sweep(&unfinished, contents.cgroup.as_deref().filter(|_| is_this_boot))
            .map_err(OpenError::Sweep)?;
        (report.lost, report.ended) = (lost, ended);
        let groups = groups();
        // What could not be ended is tried again by the next start.
        unfinished.retain(|marker, entry| {
            // Its end is told now, and not again.
            entry.incarnation = None;
            report.left.iter().any(|process| process.marker == *marker)
        });
        if let Some(fault) = fault {
            let aside = with_suffix(path, ".bad");
            fs::rename(path, &aside).map_err(fail)?;
            tracing::warn!(ledger = %path.display(), aside = %aside.display(), reason = %fault, "ledger set aside");
            report.set_aside = Some(aside);
        }
        let head = head(&boot, groups.as_ref());
        let text = head.clone() + &format_entries(&unfinished);
        let (file, size) = match rewrite(path, &text) {
            Ok((file, size)) => (Some(file), size),
            Err(error) if is_shortage(&error) => {
                tracing::error!(ledger = %path.display(), reason = %error, "ledger cannot be written; going on without");
                (None, 0)
            }
            Err(error) => return Err(fail(error)),
        };
        let path = path.to_owned();
        let ended = VecDeque::new();
        Ok((Self { path, head, file, size, unfinished, ended, is_torn: false, lock }, groups, report))
    }

    /// Goes on with the ledger of an earlier program of this process, whose lock this is. Nothing is swept: these processes
    /// are ours, and those that could not be ended stay noted.
    pub(super) fn take_up(
        path: &Path,
        lock: OwnedFd,
        groups: Option<&Groups>,
        live: impl Iterator<Item = (String, String, MainProcess)>,
    ) -> io::Result<Self> {
        let lock = LedgerLock { file: lock.into(), is_shared: true };
        let head = head(&tree::boot_id()?, groups);
        let contents = read(path).map(|bytes| Contents::parse(&bytes)).unwrap_or_default();
        let mut unfinished = contents.unfinished;
        for (marker, label, main) in live {
            let entry = unfinished.entry(marker).or_insert(Entry { label, incarnation: None, main: None });
            entry.main = entry.main.or(Some(main));
        }
        let (path_of, ended) = (path.to_owned(), VecDeque::new());
        let mut ledger =
            Self { path: path_of, head, file: None, size: 0, unfinished, ended, is_torn: true, lock };
        // If there is no room, what is there is as good, and it is written anew with the next event.
        if ledger.renew().is_err() {
            ledger.file = open_options().append(true).open(path).ok();
        }
        Ok(ledger)
    }

    /// Returns the lock for the next program of this process.
    pub(super) fn share_lock(&self) -> io::Result<OwnedFd> {
        self.lock.file.try_clone().map(OwnedFd::from)
    }

    /// Notes that a process is about to be created.
    pub(super) fn intent(&mut self, marker: &str, label: &str, incarnation: Option<u64>) {
        let entry = Entry { label: label.to_owned(), incarnation, main: None };
        let line = format_intent(marker, &entry);
        self.unfinished.insert(marker.to_owned(), entry);
        self.append(&line);
    }

    /// Notes which process was created.
    pub(super) fn born(&mut self, marker: &str, main: MainProcess) {
        if let Some(entry) = self.unfinished.get_mut(marker) {
            entry.main = Some(main);
        }
        self.append(&format_born(marker, main));
    }

    /// Notes that the process was reaped, or was never created; with how it ended, if it was the main one of a child.
    pub(super) fn gone(&mut self, marker: &str, report: Option<&ExitReport>) {
        let entry = self.unfinished.remove(marker);
        let line = match report {
            Some(report) => format!("gone {marker} {}\n", end::format(report)),
            None => format!("gone {marker}\n"),
        };
        if let (Some(entry), Some(_)) = (entry.filter(|entry| entry.incarnation.is_some()), report) {
            if self.ended.len() == ENDED_KEPT {
                self.ended.pop_front();
            }
            self.ended.push_back(format_intent(marker, &entry) + &line);
        }
        self.append(&line);
        if self.size > COMPACT_AT {
            // If it fails, the file that is there goes on.
            let _grows = self.renew();
        }
    }

    /// Replaces the file by one that says what is so now.
    fn renew(&mut self) -> io::Result<()> {
        let mut text = self.head.clone();
        text.extend(self.ended.iter().map(String::as_str));
        text.push_str(&format_entries(&self.unfinished));
        let (file, size) = rewrite(&self.path, &text)?;
        // Twice the live part at least, so that the rewriting stays rare however many there are.
        (self.file, self.size, self.is_torn) = (Some(file), size.min(COMPACT_AT / 2), false);
        Ok(())
    }

    /// Adds a line about what `unfinished` says already.
    fn append(&mut self, line: &str) {
        let Some(file) = self.file.as_mut().filter(|_| !self.is_torn) else {
            match self.renew() {
                Ok(()) => {
                    tracing::info!(ledger = %self.path.display(), "ledger is written again");
                    return;
                }
                // A torn file still takes whole lines, if there is room for a line and not for a file.
                Err(_) => {
                    if let Some(file) = &mut self.file {
                        let _told = file.write_all(format!("\n{line}").as_bytes());
                    }
                    return;
                }
            }
        };
        let result = file.write_all(line.as_bytes());
        self.size += line.len() as u64;
        if let Err(error) = result {
            tracing::error!(ledger = %self.path.display(), reason = %error, "ledger cannot be written");
            self.is_torn = true;
        }
    }
}

/// Returns what a file begins with.
fn head(boot: &str, groups: Option<&Groups>) -> String {
    let mut head = format!("{HEADER}{boot}\n");
    if let Some(base) = groups.and_then(|groups| groups.base().to_str()) {
        head.push_str(&format!("cgroup {}\n", escape(base)));
    }
    head
}

fn format_intent(marker: &str, entry: &Entry) -> String {
    let incarnation = entry.incarnation.map(|number| format!(" {number}")).unwrap_or_default();
    format!("intent {marker} {}{incarnation}\n", escape(&entry.label))
}

fn format_born(marker: &str, main: MainProcess) -> String {
    let Identity { pid, start_time } = main.identity;
    let inode = main.inode.map(|inode| format!(" {inode}")).unwrap_or_default();
    format!("born {marker} {pid} {start_time}{inode}\n")
}

fn format_entries(unfinished: &BTreeMap<String, Entry>) -> String {
    let mut text = String::new();
    for (marker, entry) in unfinished {
        text.push_str(&format_intent(marker, entry));
        if let Some(main) = entry.main {
            text.push_str(&format_born(marker, main));
        }
    }
    text
}

/// Returns whether the disk has no room or fails, as opposed to a path that is wrong.
fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or(0);
    [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EMFILE, libc::ENFILE, libc::ENOMEM].contains(&errno)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Locks a file of its own, because the ledger itself is replaced by renaming.
fn lock(path: &Path) -> Result<LedgerLock, OpenError> {
    let path = with_suffix(path, ".lock");
    let file = match open_options().create(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) => return Err(OpenError::Io(path, error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(LedgerLock { file, is_shared: false }),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(OpenError::Io(path, error)),
    }
}

/// Options for a file of ours: no symbolic link is followed, nobody else may read it, no child inherits it.
fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Nonblocking, so that a FIFO at this path is an error and not a wait.
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    options
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_options().read(true).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces the file by one with this text, whole or not at all.
fn rewrite(path: &Path, text: &str) -> io::Result<(File, u64)> {
    let temporary = with_suffix(path, ".new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_options().create_new(true).append(true).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // What little was written may be the room that somebody needs.
        let _gone = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok((file, text.len() as u64))
}

/// Reads a file and what would be written of it.
#[cfg(all(feature = "testkit", feature = "probe-http"))]
pub(super) fn read_twice(bytes: &[u8]) {
    let once = Contents::parse(bytes);
    let mut text = head(once.boot.as_deref().unwrap_or_default(), None);
    if let Some(directory) = once.cgroup.as_ref().and_then(|directory| directory.to_str()) {
        text.push_str(&format!("cgroup {}\n", escape(directory)));
    }
    text.push_str(&format_entries(&once.unfinished));
    let again = Contents::parse(text.as_bytes());
    assert_eq!((again.damaged, &again.unfinished, &again.cgroup), (0, &once.unfinished, &once.cgroup));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Cause, Exit};

    const ONE: &str = "00000000000000000000000000000001";
    const TWO: &str = "00000000000000000000000000000002";

    fn sample() -> String {
        format!("{HEADER}b\nintent {ONE} a/b%20;c\nborn {ONE} 10 20 30\nintent {TWO} d 7\ngone {ONE}\n")
    }

    #[test]
    fn the_unfinished_are_those_begun_and_not_gone() {
        let contents = Contents::parse(sample().as_bytes());
        assert_eq!(contents.boot.as_deref(), Some("b"));
        assert_eq!(contents.damaged, 0);
        let two = Entry { label: "d".to_owned(), incarnation: Some(7), main: None };
        assert_eq!(contents.unfinished, BTreeMap::from([(TWO.to_owned(), two)]));
    }

    #[test]
    fn a_file_cut_at_any_byte_is_not_damaged_and_says_nothing_wrong() {
        let text = sample();
        for length in 0..=text.len() {
            let contents = Contents::parse(&text.as_bytes()[..length]);
            assert_eq!(contents.damaged, 0, "cut at {length}");
            if let Some(Entry { label, main, .. }) = contents.unfinished.get(ONE) {
                assert_eq!(label, "a/b c");
                let identity = Identity { pid: 10, start_time: 20 };
                assert!(main.is_none_or(
                    |main| main.identity == identity && main.inode.is_none_or(|inode| inode == 30)
                ));
            }
        }
    }

    #[test]
    fn damaged_lines_do_not_hide_the_others() {
        let text = format!(
            "{HEADER}b\nnonsense\nintent {ONE} a\nborn {ONE} x y\nborn {TWO} 1 2\nintent short a\n\
             intent {ONE} a b\nintent {ONE} a 1 2\n\u{fffd}\n"
        );
        let contents = Contents::parse(text.as_bytes());
        assert_eq!(contents.damaged, 7);
        assert!(contents.unfinished.contains_key(ONE));
    }

    #[test]
    fn a_file_with_any_byte_changed_is_read_and_invents_no_process() {
        let text = sample();
        for position in 0..text.len() {
            for byte in [0, b'\n', b' ', b'0', 0xff] {
                let mut bytes = text.clone().into_bytes();
                bytes[position] = byte;
                let contents = Contents::parse(&bytes);
                let is_from_there = |marker: &String| {
                    let differing =
                        |known: &str| marker.bytes().zip(known.bytes()).filter(|(a, b)| a != b).count();
                    differing(ONE) <= 1 || differing(TWO) <= 1
                };
                assert!(contents.unfinished.keys().all(is_from_there), "byte {position} as {byte}");
            }
        }
    }

    #[test]
    fn any_label_is_one_word_and_comes_back() {
        for label in ["", "plain", "a b", "100%", "%20;", "tab\tnewline\n", "ü\u{2028}", "a/b"] {
            let word = escape(label);
            assert!(!word.is_empty() && !word.contains(char::is_whitespace), "{word:?}");
            assert_eq!(unescape(&word).as_deref(), Some(label));
        }
        assert_eq!(unescape("%zz;"), None);
        assert_eq!(unescape("%20"), None);
    }

    #[test]
    fn the_file_stays_small_and_keeps_what_is_alive() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ledger");
        let (mut ledger, _, _) = Ledger::open(&path, || None).expect("opens");
        ledger.intent(ONE, "kept", None);
        let rounds = 2 * COMPACT_AT / 100;
        for _ in 0..rounds {
            ledger.intent(TWO, "brief", None);
            ledger.gone(TWO, None);
        }
        let bytes = read(&path).expect("readable");
        assert!((bytes.len() as u64) < COMPACT_AT + 200, "{} bytes", bytes.len());
        let contents = Contents::parse(&bytes);
        assert_eq!((contents.damaged, contents.unfinished.len()), (0, 1));
        assert_eq!(contents.unfinished[ONE].label, "kept");
    }

    #[test]
    fn how_the_latest_starts_ended_is_found_by_the_next_host_also_in_a_file_that_was_written_anew() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ledger");
        let (mut ledger, _, _) = Ledger::open(&path, || None).expect("opens");
        let main = MainProcess { identity: Identity { pid: 10, start_time: 20 }, inode: None };
        let report = ExitReport::new(Exit::Abnormal, Cause::ExitCode { code: 3 });
        // A command beside a child is no start of it, whatever is known of its end.
        for (marker, incarnation) in [(ONE, Some(7)), (TWO, None)] {
            ledger.intent(marker, "web", incarnation);
            ledger.born(marker, main);
            ledger.gone(marker, Some(&report));
        }
        let ended = EndedIncarnation { label: "web".to_owned(), incarnation: 7, pid: Some(10), report };
        assert_eq!(Contents::parse(&read(&path).expect("readable")).ended, std::slice::from_ref(&ended));
        ledger.renew().expect("there is room");
        // Only its process is forgotten.
        let ended = EndedIncarnation { pid: None, ..ended };
        assert_eq!(Contents::parse(&read(&path).expect("readable")).ended, std::slice::from_ref(&ended));
        drop(ledger);
        let (_, _, swept) = Ledger::open(&path, || None).expect("opens");
        assert_eq!((swept.ended, swept.lost), (vec![ended], Vec::new()));
    }

    #[test]
    fn after_a_write_that_failed_the_file_is_whole_again_as_soon_as_there_is_room() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ledger");
        let (mut ledger, _, _) = Ledger::open(&path, || None).expect("opens");
        ledger.intent(ONE, "first", Some(3));
        // No room, neither in the file nor for a new one.
        ledger.file = Some(OpenOptions::new().write(true).open("/dev/full").expect("a Linux system"));
        ledger.path = dir.path().join("nowhere/ledger");
        let main = MainProcess { identity: Identity { pid: 10, start_time: 20 }, inode: None };
        ledger.born(ONE, main);
        assert!(ledger.is_torn);
        ledger.intent(TWO, "second", None);
        assert!(ledger.is_torn);
        // Room again: the next event brings back what was not written.
        ledger.path = path.clone();
        ledger.gone(TWO, None);
        assert!(!ledger.is_torn);
        let contents = Contents::parse(&read(&path).expect("readable"));
        let first = Entry { label: "first".to_owned(), incarnation: Some(3), main: Some(main) };
        assert_eq!((contents.damaged, contents.unfinished), (0, BTreeMap::from([(ONE.to_owned(), first)])));
    }

    #[test]
    fn only_a_disk_without_room_or_health_is_gone_on_without() {
        for (errno, is) in [
            (libc::ENOSPC, true),
            (libc::EDQUOT, true),
            (libc::EIO, true),
            (libc::EACCES, false),
            (libc::EROFS, false),
        ] {
            assert_eq!(is_shortage(&io::Error::from_raw_os_error(errno)), is, "{errno}");
        }
    }

    #[test]
    fn the_place_of_the_control_groups_is_written_down() {
        let text = format!("{HEADER}b\ncgroup /sys/fs/cgroup/a%20;b/xy-1\nintent {ONE} a\n");
        let contents = Contents::parse(text.as_bytes());
        assert_eq!(contents.cgroup.as_deref(), Some(Path::new("/sys/fs/cgroup/a b/xy-1")));
        assert_eq!((contents.damaged, contents.unfinished.len()), (0, 1));
    }

    #[test]
    fn a_second_host_is_refused_while_the_first_lives() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ledger");
        let first = Ledger::open(&path, || None).expect("opens");
        assert!(matches!(Ledger::open(&path, || None), Err(OpenError::InUse)));
        drop(first);
        assert!(Ledger::open(&path, || None).is_ok());
    }
}
