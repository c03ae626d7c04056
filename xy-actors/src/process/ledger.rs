//! Who our processes are, on disk: an append-only file from which the next start knows what this one left behind.
//!
//! One line per event, in plain text:
//! ```text
//! xy-ledger 1 BOOT-ID
//! intent MARKER LABEL          before a process is created
//! born MARKER PID START-TIME   after it
//! gone MARKER                  after it was reaped, or was never created
//! ```
//! Nothing is flushed to the disk: the file has to survive our death, not that of the machine, and a new boot id voids it.
//! A last line without its end is what a death in the middle of a write leaves, and is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::tree::{self, Identity};

mod sweep;

use self::sweep::sweep;
pub use self::sweep::{SweepReport, SweptProcess};

const HEADER: &str = "xy-ledger 1 ";

/// Beyond this many bytes the file is rewritten with what is still alive.
const COMPACT_AT: u64 = 256 << 10;

/// A process that was begun and has not been reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    label: String,
    main: Option<Identity>,
}

/// What a ledger file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    /// The boot it is about; `None` if not even the first line is complete.
    boot: Option<String>,
    /// By marker.
    unfinished: BTreeMap<String, Entry>,
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
        if !is_marker(marker) {
            return None;
        }
        match event {
            "intent" => {
                let label = unescape(words.next()?)?;
                self.unfinished.insert(marker.to_owned(), Entry { label, main: None });
            }
            "born" => {
                let pid = words.next()?.parse().ok()?;
                let start_time = words.next()?.parse().ok()?;
                self.unfinished.get_mut(marker)?.main = Some(Identity { pid, start_time });
            }
            "gone" => drop(self.unfinished.remove(marker)),
            _ => return None,
        }
        words.next().is_none().then_some(())
    }
}

fn is_marker(text: &str) -> bool {
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
    boot: String,
    file: File,
    size: u64,
    unfinished: BTreeMap<String, Entry>,
    /// The last write failed part-way, so that the next one begins on a new line.
    torn: bool,
    _lock: Flock<File>,
}

/// Why the ledger could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another host has it open.
    InUse,
    /// A file operation failed on this path.
    Io(PathBuf, io::Error),
}

impl Ledger {
    /// Takes the lock, ends what an earlier host left, and begins a new file.
    pub(super) fn open(path: &Path) -> Result<(Self, SweepReport), OpenError> {
        let lock = lock(path)?;
        let fail = |error| OpenError::Io(path.to_owned(), error);
        let boot = tree::boot_id().map_err(fail)?;
        let (contents, fault) = match read(path) {
            Ok(bytes) => {
                let contents = Contents::parse(&bytes);
                let fault =
                    (contents.damaged > 0).then(|| format!("{} lines make no sense", contents.damaged));
                (contents, fault)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Contents::default(), None),
            Err(error) => (Contents::default(), Some(error.to_string())),
        };
        let is_this_boot = contents.boot.as_ref() == Some(&boot);
        // Another boot has ended all of them, whatever has their pids now.
        let mut unfinished = if is_this_boot { contents.unfinished } else { BTreeMap::new() };
        let mut report = sweep(&unfinished);
        // What could not be ended is tried again by the next start.
        unfinished.retain(|marker, _| report.left.iter().any(|process| process.marker == *marker));
        if let Some(fault) = fault {
            let aside = with_suffix(path, ".bad");
            fs::rename(path, &aside).map_err(fail)?;
            tracing::warn!(ledger = %path.display(), aside = %aside.display(), reason = %fault, "ledger set aside");
            report.set_aside = Some(aside);
        }
        let (file, size) = rewrite(path, &boot, &unfinished).map_err(fail)?;
        let path = path.to_owned();
        Ok((Self { path, boot, file, size, unfinished, torn: false, _lock: lock }, report))
    }

    /// Notes that a process is about to be created.
    pub(super) fn intent(&mut self, marker: &str, label: &str) {
        let entry = Entry { label: label.to_owned(), main: None };
        self.append(&format_intent(marker, &entry));
        self.unfinished.insert(marker.to_owned(), entry);
    }

    /// Notes which process was created.
    pub(super) fn born(&mut self, marker: &str, main: Identity) {
        if let Some(entry) = self.unfinished.get_mut(marker) {
            entry.main = Some(main);
        }
        self.append(&format_born(marker, main));
    }

    /// Notes that the process was reaped, or was never created.
    pub(super) fn gone(&mut self, marker: &str) {
        self.unfinished.remove(marker);
        self.append(&format!("gone {marker}\n"));
        if self.size > COMPACT_AT
            && let Ok((file, size)) = rewrite(&self.path, &self.boot, &self.unfinished)
        {
            // Twice the live part at least, so that the rewriting stays rare however many there are.
            (self.file, self.size) = (file, size.min(COMPACT_AT / 2));
        }
    }

    /// A full disk must not keep a server from being restarted: its main process dies with us without the ledger, and
    /// the gap is told in the log.
    fn append(&mut self, line: &str) {
        let text = if self.torn { format!("\n{line}") } else { line.to_owned() };
        let result = self.file.write_all(text.as_bytes());
        self.size += text.len() as u64;
        if let Err(error) = &result
            && !self.torn
        {
            tracing::error!(ledger = %self.path.display(), reason = %error, "ledger cannot be written");
        }
        self.torn = result.is_err();
    }
}

fn format_intent(marker: &str, entry: &Entry) -> String {
    format!("intent {marker} {}\n", escape(&entry.label))
}

fn format_born(marker: &str, main: Identity) -> String {
    format!("born {marker} {} {}\n", main.pid, main.start_time)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Locks a file of its own, because the ledger itself is replaced by renaming.
fn lock(path: &Path) -> Result<Flock<File>, OpenError> {
    let path = with_suffix(path, ".lock");
    let file = match open_options().create(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) => return Err(OpenError::Io(path, error)),
    };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => OpenError::InUse,
        errno => OpenError::Io(path, errno.into()),
    })
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

/// Replaces the file by one that holds the unfinished entries only, whole or not at all.
fn rewrite(path: &Path, boot: &str, unfinished: &BTreeMap<String, Entry>) -> io::Result<(File, u64)> {
    let mut text = format!("{HEADER}{boot}\n");
    for (marker, entry) in unfinished {
        text.push_str(&format_intent(marker, entry));
        if let Some(main) = entry.main {
            text.push_str(&format_born(marker, main));
        }
    }
    let temporary = with_suffix(path, ".new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_options().create_new(true).append(true).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)?;
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00000000000000000000000000000001";
    const TWO: &str = "00000000000000000000000000000002";

    fn sample() -> String {
        format!("{HEADER}b\nintent {ONE} a/b%20;c\nborn {ONE} 10 20\nintent {TWO} d\ngone {ONE}\n")
    }

    #[test]
    fn the_unfinished_are_those_begun_and_not_gone() {
        let contents = Contents::parse(sample().as_bytes());
        assert_eq!(contents.boot.as_deref(), Some("b"));
        assert_eq!(contents.damaged, 0);
        let two = Entry { label: "d".to_owned(), main: None };
        assert_eq!(contents.unfinished, BTreeMap::from([(TWO.to_owned(), two)]));
    }

    #[test]
    fn a_file_cut_at_any_byte_is_not_damaged_and_says_nothing_wrong() {
        let text = sample();
        for length in 0..=text.len() {
            let contents = Contents::parse(&text.as_bytes()[..length]);
            assert_eq!(contents.damaged, 0, "cut at {length}");
            if let Some(Entry { label, main }) = contents.unfinished.get(ONE) {
                assert_eq!(label, "a/b c");
                assert!(main.is_none_or(|main| main == Identity { pid: 10, start_time: 20 }));
            }
        }
    }

    #[test]
    fn damaged_lines_do_not_hide_the_others() {
        let text = format!(
            "{HEADER}b\nnonsense\nintent {ONE} a\nborn {ONE} x y\nborn {TWO} 1 2\nintent short a\n\
             intent {ONE} a b\n\u{fffd}\n"
        );
        let contents = Contents::parse(text.as_bytes());
        assert_eq!(contents.damaged, 6);
        assert!(contents.unfinished.contains_key(ONE));
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
        let (mut ledger, _) = Ledger::open(&path).expect("opens");
        ledger.intent(ONE, "kept");
        let rounds = 2 * COMPACT_AT / 100;
        for _ in 0..rounds {
            ledger.intent(TWO, "brief");
            ledger.gone(TWO);
        }
        let bytes = read(&path).expect("readable");
        assert!((bytes.len() as u64) < COMPACT_AT + 200, "{} bytes", bytes.len());
        let contents = Contents::parse(&bytes);
        assert_eq!((contents.damaged, contents.unfinished.len()), (0, 1));
        assert_eq!(contents.unfinished[ONE].label, "kept");
    }

    #[test]
    fn a_second_host_is_refused_while_the_first_lives() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ledger");
        let first = Ledger::open(&path).expect("opens");
        assert!(matches!(Ledger::open(&path), Err(OpenError::InUse)));
        drop(first);
        assert!(Ledger::open(&path).is_ok());
    }
}
