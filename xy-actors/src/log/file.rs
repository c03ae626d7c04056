//! A log's files: whole records or nothing, whatever the disk does.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memchr::{memchr_iter, memrchr};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::hub::locked;
use super::record::{Stamp, Stream};
use super::rotation::{self, Step};

/// How long a file that could not be written, or not be rotated, is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked whether somebody deleted the open file, moved it away or cut it.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How many files are held open for a reader; older ones are opened for each piece that is read.
const MAX_HELD: u32 = 64;

/// How many files are read at most.
const MAX_READ: u32 = 10_000;

/// Where a log's current file lies, and how it is changed.
pub(crate) trait Storage {
    /// Opens the current file, or creates it.
    fn open(&mut self) -> io::Result<Opened>;
    /// Appends a prefix of `bytes` to the open file and says how long it was.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the open file.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
    /// Makes the open file the newest of at most `keep - 1` older ones, and opens a new one; if it fails, the open file is
    /// the current one as before.
    fn rotate(&mut self, keep: u32) -> io::Result<Opened>;
    /// Returns whether the open file is still the one that others find, with `size` bytes.
    fn is_current(&self, size: u64) -> bool;
    /// Closes the current file.
    fn close(&mut self);
}

/// What was found in the current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) size: u64,
    /// Whether it ends within a line, as after a crash or on a full disk.
    pub(crate) torn: bool,
    /// The time of its first record in milliseconds since the Unix epoch.
    pub(crate) since: Option<i64>,
    /// Whether a file that was to be moved was not there any more.
    pub(crate) is_altered: bool,
}

/// How large the files of a log grow and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_size: u64,
    pub(crate) max_age: Option<Duration>,
    pub(crate) keep: u32,
}

/// Lines that did not reach the file since it last could be written.
#[derive(Debug)]
struct Loss {
    lines: u64,
    error: String,
    retry_at: Instant,
}

/// Why the file is larger or older than it should be.
#[derive(Debug)]
struct Overdue {
    error: String,
    retry_at: Instant,
}

/// The writer of one log.
///
/// A file that cannot be written never stops anything: lines are dropped whole and counted, the next output after
/// [`RETRY_AFTER`] tries again, and the first record that works says how many are missing and why. One that can be written
/// and not be rotated costs no line: it grows until that works again.
#[derive(Debug)]
pub(crate) struct LogFile<S> {
    storage: S,
    /// The size of the open file.
    size: Option<u64>,
    /// The time of its first record, see [`Opened::since`].
    since: Option<i64>,
    /// When it is looked next whether somebody took the file away.
    look_at: Option<Instant>,
    /// Whether somebody else has changed what is in the files since this was asked last.
    is_altered: bool,
    loss: Option<Loss>,
    /// Boxed, as few ever have it.
    overdue: Option<Box<Overdue>>,
    dropped: u64,
    last_error: Option<String>,
}

impl<S: Storage> LogFile<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self {
            storage,
            size: None,
            since: None,
            look_at: None,
            is_altered: false,
            loss: None,
            overdue: None,
            dropped: 0,
            last_error: None,
        }
    }

    /// Goes on where another writer stopped: with lines that are missing and of which the file does not tell yet.
    pub(crate) fn with_loss(mut self, loss: Option<(u64, String)>, now: Instant) -> Self {
        self.loss = loss.map(|(lines, error)| Loss { lines, error, retry_at: now });
        self
    }

    /// Returns the lines that are missing and of which the file does not tell yet, and why.
    pub(crate) fn loss(&self) -> Option<(u64, String)> {
        self.loss.as_ref().map(|loss| (loss.lines, loss.error.clone()))
    }

    /// Returns how many lines never reached the file.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the newest error, whether or not it has passed.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Returns whether somebody else has taken the file away or changed it since this was asked last.
    pub(crate) fn take_altered(&mut self) -> bool {
        std::mem::take(&mut self.is_altered)
    }

    /// Returns whether the file cannot be written at present.
    pub(crate) fn is_failing(&self) -> bool {
        self.loss.is_some()
    }

    /// Returns why the file grows beyond its limits, if it does because it cannot be rotated.
    pub(crate) fn rotation_error(&self) -> Option<&str> {
        self.overdue.as_ref().map(|overdue| &*overdue.error)
    }

    /// Returns whether an append would be tried at `now`; if not, [`LogFile::skip`] saves the caller making records.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.loss.as_ref().is_none_or(|loss| now >= loss.retry_at)
    }

    /// Counts lines as dropped without trying.
    pub(crate) fn skip(&mut self, lines: u64) {
        self.dropped += lines;
        if let Some(loss) = &mut self.loss {
            loss.lines += lines;
        }
    }

    /// Appends whole records.
    pub(crate) fn append(&mut self, records: &[u8], limits: Limits, stamp: &Stamp, now: Instant) {
        if let Some(size) = self.size
            && self.look_at.is_none_or(|at| now >= at)
        {
            self.look_at = now.checked_add(LOOK_AFTER);
            self.check(size);
        }
        let mut unwritten = records;
        if let Err(error) = self.try_append(&mut unwritten, limits, stamp, now) {
            let lines = memchr_iter(b'\n', unwritten).count() as u64;
            self.dropped += lines;
            let before = self.loss.take().map_or(0, |loss| loss.lines);
            let error = error.to_string();
            self.last_error = Some(error.clone());
            self.loss = Some(Loss { lines: before + lines, error, retry_at: now + RETRY_AFTER });
            // A fresh start next time: what is at the path may be another file system by then.
            self.storage.close();
            self.size = None;
        }
    }

    /// Makes a last attempt to say what is missing.
    pub(crate) fn finish(&mut self, limits: Limits, stamp: &Stamp, now: Instant) {
        if self.loss.is_some() {
            self.append(&[], limits, stamp, now);
        }
        self.storage.close();
        self.size = None;
    }

    /// Appends records and shortens `unwritten` to what is not in the file.
    fn try_append(
        &mut self,
        unwritten: &mut &[u8],
        limits: Limits,
        stamp: &Stamp,
        now: Instant,
    ) -> io::Result<()> {
        self.open(stamp)?;
        if let Some(loss) = &self.loss {
            let noun = if loss.lines == 1 { "line" } else { "lines" };
            let text = format!("{} {noun} dropped: {}", loss.lines, loss.error);
            let mut marker = Vec::new();
            stamp.record(Stream::Xy, false, text.as_bytes(), &mut marker);
            self.write_records(&mut &marker[..], limits, stamp, now)?;
            self.loss = None;
        }
        self.write_records(unwritten, limits, stamp, now)
    }

    fn write_records(
        &mut self,
        unwritten: &mut &[u8],
        limits: Limits,
        stamp: &Stamp,
        now: Instant,
    ) -> io::Result<()> {
        while !unwritten.is_empty() {
            let size = self.open(stamp)?;
            let age = stamp.unix_ms.saturating_sub(self.since.unwrap_or(stamp.unix_ms));
            let aged = limits.max_age.is_some_and(|most| i128::from(age) >= most.as_millis() as i128);
            let mut length = rotation::fitting(unwritten, size, limits.max_size);
            if length == 0 || (aged && size > 0) {
                if !self.check(size) {
                    continue;
                }
                if self.overdue.as_ref().is_none_or(|overdue| now >= overdue.retry_at) {
                    match self.storage.rotate(limits.keep) {
                        Ok(opened) => {
                            self.take(opened, stamp)?;
                            continue;
                        }
                        Err(error) => self.put_off(&error, now),
                    }
                }
                // Better too large a file than a line that is lost.
                length = unwritten.len();
            } else {
                self.overdue = None;
            }
            let (fitting, rest) = unwritten.split_at(length);
            *unwritten = fitting;
            self.since.get_or_insert(stamp.unix_ms);
            self.write_whole(unwritten)?;
            *unwritten = rest;
        }
        Ok(())
    }

    /// Lets go of a file that somebody else has deleted, moved away or changed; returns whether it is still the one.
    fn check(&mut self, size: u64) -> bool {
        let is_current = self.storage.is_current(size);
        if !is_current {
            self.storage.close();
            self.size = None;
            self.is_altered = true;
        }
        is_current
    }

    fn put_off(&mut self, error: &io::Error, now: Instant) {
        let error = error.to_string();
        self.last_error = Some(error.clone());
        self.overdue = Some(Box::new(Overdue { error, retry_at: now + RETRY_AFTER }));
    }

    /// Opens the file if necessary, ends a torn line in it, and returns its size.
    fn open(&mut self, stamp: &Stamp) -> io::Result<u64> {
        if let Some(size) = self.size {
            return Ok(size);
        }
        let opened = self.storage.open()?;
        self.take(opened, stamp)
    }

    /// Goes on in a file that was opened, and returns its size.
    fn take(&mut self, opened: Opened, stamp: &Stamp) -> io::Result<u64> {
        let Opened { size, torn, since, is_altered } = opened;
        self.is_altered |= is_altered;
        self.size = Some(size);
        self.since = since;
        if torn {
            let mut end = b"\n".to_vec();
            stamp.record(Stream::Xy, false, b"the line above was cut short", &mut end);
            self.write_whole(&mut &end[..])?;
        }
        Ok(self.size.unwrap_or(size))
    }

    /// Writes all records or removes the piece of a record that was written; shortens `unwritten` to match the file.
    fn write_whole(&mut self, unwritten: &mut &[u8]) -> io::Result<()> {
        let records = *unwritten;
        let mut written = 0;
        let failed = loop {
            if written == records.len() {
                break None;
            }
            match self.storage.write(&records[written..]) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        let whole = memrchr(b'\n', &records[..written]).map_or(0, |end| end + 1);
        let size = self.size.unwrap_or(0) + whole as u64;
        self.size = Some(size);
        *unwritten = &records[whole..];
        match failed {
            None => Ok(()),
            Some(error) => {
                if written > whole {
                    // If even this fails, the next open finds the torn end and terminates it.
                    let _ = self.storage.truncate(size);
                }
                Err(error)
            }
        }
    }
}

/// How directories are opened: a symbolic link is none.
const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory of a hub's logs, held open once it was used.
///
/// Whoever can rename what is above it cannot move the logs elsewhere. Only when the held directory itself was deleted is
/// the path used again.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    held: Mutex<Option<Arc<OwnedFd>>>,
}

impl Root {
    /// Creates the directory's handle; it is opened, and made if it is missing, with the first use.
    pub(crate) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), held: Mutex::new(None) })
    }

    fn open(&self) -> io::Result<Arc<OwnedFd>> {
        let mut held = locked(&self.held);
        if let Some(directory) = &*held
            && fstat(directory).is_ok_and(|found| found.st_nlink > 0)
        {
            return Ok(Arc::clone(directory));
        }
        *held = None;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let directory = Arc::new(open(&self.path, DIRECTORY, Mode::empty()).map_err(explained)?);
        *held = Some(Arc::clone(&directory));
        Ok(directory)
    }
}

/// A log's place in a directory that only its user can read.
///
/// Every step from the root is taken relative to an open directory and follows no symbolic link.
#[derive(Debug)]
pub(crate) struct Place {
    root: Arc<Root>,
    groups: Vec<String>,
    stem: String,
    current: Option<File>,
}

impl Place {
    /// Creates the place of a checked log name below `root`.
    pub(crate) fn new(root: &Arc<Root>, name: &str) -> Self {
        let mut groups: Vec<String> = name.split('/').map(str::to_owned).collect();
        let stem = groups.pop().unwrap_or_default();
        Self { root: Arc::clone(root), groups, stem, current: None }
    }

    /// Returns the path of the current file.
    pub(crate) fn path(&self) -> PathBuf {
        let mut path = self.root.path.clone();
        path.extend(&self.groups);
        path.push(rotation::file_name(&self.stem, 0));
        path
    }

    fn directory(&self) -> io::Result<OwnedFd> {
        let root = self.root.open()?;
        let mut directory = root.try_clone()?;
        for group in &self.groups {
            match mkdirat(&directory, group.as_str(), Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            directory = openat(&directory, group.as_str(), DIRECTORY, Mode::empty()).map_err(explained)?;
        }
        Ok(directory)
    }

    /// Returns the files that exist, newest first.
    pub(crate) fn readers(&self) -> io::Result<Vec<PastFile>> {
        let directory = Arc::new(self.directory()?);
        let look = |index| {
            let name = rotation::file_name(&self.stem, index);
            if index < MAX_HELD {
                let file = openat(&directory, name.as_str(), READ, Mode::empty())?;
                let found = fstat(&file)?;
                Ok((found, Access::Held(file.into())))
            } else {
                let found = fstatat(&directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let (directory, id) = (Arc::clone(&directory), Identity::of(&found));
                Ok((found, Access::Sought { directory, stem: self.stem.clone(), index, id }))
            }
        };
        let mut readers = Vec::new();
        for found in rotation::existing(0..MAX_READ, look) {
            let (found, access) = found.map_err(explained)?;
            if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
                let size = u64::try_from(found.st_size).unwrap_or(0);
                readers.push(PastFile { size, access });
            }
        }
        Ok(readers)
    }

    /// Makes an empty file.
    fn create(&self, directory: &OwnedFd, name: &str) -> io::Result<File> {
        // One that a crash has left is as good as missing.
        unless_missing(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir))?;
        let file = openat(directory, name, WRITE | OFlag::O_EXCL, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(file.into())
    }

    fn file(&self) -> &File {
        // `LogFile` writes, truncates and rotates only between open and close.
        self.current.as_ref().expect("the file is open")
    }
}

/// How the current file is opened, and made if it is missing. Not blocking: somebody may have put a pipe without a reader
/// there.
const WRITE: OFlag = OFlag::O_RDWR
    .union(OFlag::O_APPEND)
    .union(OFlag::O_CREAT)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK);

/// How a file of the past is opened: a pipe that somebody put there makes nobody wait.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// One of a log's files as a reader found it: what is added to it later is not seen.
#[derive(Debug)]
pub(crate) struct PastFile {
    size: u64,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Held(File),
    /// It is at this index or, after rotations, at a higher one.
    Sought {
        directory: Arc<OwnedFd>,
        stem: String,
        index: u32,
        id: Identity,
    },
}

/// Tells an old file from every other one. Nobody writes to it any more, so that its time tells it from one that has its inode
/// after it was deleted.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: libc::dev_t,
    inode: libc::ino_t,
    written: (i64, i64),
}

impl Identity {
    fn of(found: &FileStat) -> Self {
        Self { device: found.st_dev, inode: found.st_ino, written: (found.st_mtime, found.st_mtime_nsec) }
    }
}

impl PastFile {
    /// Takes an open file with its size.
    #[cfg(test)]
    pub(crate) fn held(file: File, size: u64) -> Self {
        Self { size, access: Access::Held(file) }
    }

    /// Returns how many bytes it had.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Fills a buffer from an offset on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if a rotation has deleted it meanwhile.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.access {
            Access::Held(file) => file.read_exact_at(buffer, offset),
            Access::Sought { directory, stem, index, id } => {
                sought(directory, stem, *index, id)?.read_exact_at(buffer, offset)
            }
        }
    }
}

/// Opens the file that was at an index.
fn sought(directory: &OwnedFd, stem: &str, index: u32, id: &Identity) -> io::Result<File> {
    let look = |index| openat(directory, rotation::file_name(stem, index).as_str(), READ, Mode::empty());
    for file in rotation::existing(index..MAX_READ, look) {
        let file = file.map_err(explained)?;
        if Identity::of(&fstat(&file)?) == *id {
            return Ok(file.into());
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Says what a refused symbolic link is, which the system calls "too many levels".
fn explained(error: Errno) -> io::Error {
    match error {
        Errno::ELOOP => io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"),
        error => error.into(),
    }
}

/// Takes what was to be moved or deleted, and is not there any more, for moved or deleted; returns whether it was there.
fn unless_missing(done: nix::Result<()>) -> nix::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether an error says that there is no such file below our directory.
fn is_absence(error: &io::Error) -> bool {
    // The last one is that of a symbolic link in its place.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput
    )
}

impl Storage for Place {
    fn open(&mut self) -> io::Result<Opened> {
        let directory = self.directory()?;
        let name = rotation::file_name(&self.stem, 0);
        let file = openat(&directory, name.as_str(), WRITE, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = File::from(file.map_err(explained)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let size = metadata.len();
        let mut last = *b"\n";
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        let mut first = [0; Stamp::LENGTH];
        let since = file.read_exact_at(&mut first, 0).ok().and_then(|()| Stamp::parse(&first));
        self.current = Some(file);
        Ok(Opened { size, torn: last != *b"\n", since, is_altered: false })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let file = self.file();
        // It may have been emptied by somebody else, and must not be filled up with zeros.
        if file.metadata()?.len() > size { file.set_len(size) } else { Ok(()) }
    }

    fn rotate(&mut self, keep: u32) -> io::Result<Opened> {
        let directory = self.directory()?;
        let name = |index| rotation::file_name(&self.stem, index);
        let exists = |index| match fstatat(&directory, name(index).as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        };
        let rename = |from: &str, to: &str| renameat(directory.as_fd(), from, directory.as_fd(), to);
        let mut opened = Opened { size: 0, torn: false, since: None, is_altered: false };
        for step in rotation::steps(keep, exists)? {
            match step {
                Step::Remove(index) => {
                    unless_missing(unlinkat(&directory, name(index).as_str(), UnlinkatFlags::NoRemoveDir))?;
                }
                Step::Shift(index) => {
                    opened.is_altered |= !unless_missing(rename(&name(index), &name(index + 1)))?;
                }
            }
        }
        // The older ones first, as room may be wanting; but the current one is not touched before its successor is there.
        let (current, older, new) = (name(0), name(1), rotation::new_name(&self.stem));
        let file = match self.create(&directory, &new) {
            Ok(file) => file,
            Err(_) if keep <= 1 && self.file().set_len(0).is_ok() => return Ok(opened),
            Err(error) => return Err(error),
        };
        if keep > 1 {
            opened.is_altered |= !unless_missing(rename(&current, &older))?;
        }
        if let Err(error) = rename(&new, &current) {
            if keep > 1 {
                // If even this fails, the open file is found to be another one by and by.
                let _ = rename(&older, &current);
            }
            return Err(error.into());
        }
        self.current = Some(file);
        Ok(opened)
    }

    fn is_current(&self, size: u64) -> bool {
        let Some(file) = &self.current else { return false };
        let look = || {
            // A moved file has a link as well; only its name tells that it is another one.
            let name = rotation::file_name(&self.stem, 0);
            let found = fstatat(self.directory()?, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let ours = fstat(file)?;
            let is_same = (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino);
            Ok(is_same && u64::try_from(ours.st_size) == Ok(size))
        };
        // A look that fails says nothing, and the open file can be written.
        look().unwrap_or_else(|error| !is_absence(&error))
    }

    fn close(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::LogLine;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const LIMITS: Limits = Limits { max_size: 1 << 20, max_age: None, keep: 3 };

    /// A disk in memory that takes `room` more bytes and can refuse everything.
    #[derive(Debug, Default)]
    struct FakeDisk {
        current: Vec<u8>,
        older: Vec<Vec<u8>>,
        room: usize,
        refuses_open: bool,
        refuses_truncate: bool,
        refuses_rotation: bool,
        /// How often a rotation was tried.
        rotations: u32,
    }

    impl Storage for FakeDisk {
        fn open(&mut self) -> io::Result<Opened> {
            if self.refuses_open {
                return Err(Errno::EROFS.into());
            }
            let torn = self.current.last().is_some_and(|last| *last != b'\n');
            let since = self.current.get(..Stamp::LENGTH).and_then(Stamp::parse);
            Ok(Opened { size: self.current.len() as u64, torn, since, is_altered: false })
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(Errno::ENOSPC.into());
            }
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.current.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn truncate(&mut self, size: u64) -> io::Result<()> {
            if self.refuses_truncate {
                return Err(Errno::EIO.into());
            }
            self.room += self.current.len() - size as usize;
            self.current.truncate(size as usize);
            Ok(())
        }

        fn rotate(&mut self, keep: u32) -> io::Result<Opened> {
            self.rotations += 1;
            if self.refuses_rotation {
                return Err(Errno::EACCES.into());
            }
            self.older.insert(0, std::mem::take(&mut self.current));
            self.older.truncate(keep.saturating_sub(1) as usize);
            self.open()
        }

        fn is_current(&self, size: u64) -> bool {
            self.current.len() as u64 == size
        }

        fn close(&mut self) {}
    }

    fn record(text: &str) -> Vec<u8> {
        let mut record = Vec::new();
        Stamp::at(0).record(Stream::Out, false, text.as_bytes(), &mut record);
        record
    }

    fn append(file: &mut LogFile<impl Storage>, text: &str, now: Instant) {
        file.append(&record(text), LIMITS, &Stamp::at(0), now);
    }

    /// Reads a file as a person would: the texts of its records, markers included.
    fn texts(bytes: &[u8]) -> Vec<String> {
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "the file ends within a line");
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| match LogLine::parse(line, 0) {
                Some(line) => String::from_utf8_lossy(&line.bytes).into_owned(),
                None => format!("torn: {}", String::from_utf8_lossy(line)),
            })
            .collect()
    }

    #[test]
    fn a_full_disk_at_any_byte_drops_whole_lines_and_counts_them_exactly() {
        let records = [record("one"), record("two"), record("three")].concat();
        for room in 0..records.len() {
            for refuses_truncate in [false, true] {
                let start = Instant::now();
                let mut file = LogFile::new(FakeDisk { room, refuses_truncate, ..FakeDisk::default() });
                file.append(&records, LIMITS, &Stamp::at(0), start);
                let whole = memchr_iter(b'\n', &records[..room]).count();
                assert_eq!(file.dropped(), 3 - whole as u64, "room for {room}");
                assert!(file.is_failing() && !file.is_due(start));

                file.skip(2);
                file.storage.room = 1 << 20;
                append(&mut file, "after", start + RETRY_AFTER);
                assert!(!file.is_failing());
                let missing = 5 - whole;
                let mut expected: Vec<String> =
                    ["one", "two", "three"][..whole].iter().map(ToString::to_string).collect();
                let torn = !records[..room].is_empty() && !records[..room].ends_with(b"\n");
                let texts = texts(&file.storage.current);
                if torn && refuses_truncate {
                    expected.push(texts[whole].clone());
                    assert!(texts[whole].len() < record("three").len() && !texts[whole].contains("after"));
                    expected.push("the line above was cut short".into());
                }
                expected.push(format!("{missing} lines dropped: {}", io::Error::from(Errno::ENOSPC)));
                expected.push("after".into());
                assert_eq!(texts, expected, "room for {room}");
            }
        }
    }

    #[test]
    fn a_disk_that_fails_while_recovering_keeps_the_count() {
        let start = Instant::now();
        let mut file = LogFile::new(FakeDisk { refuses_open: true, ..FakeDisk::default() });
        append(&mut file, "one", start);
        append(&mut file, "two", start + RETRY_AFTER);
        file.storage.refuses_open = false;
        file.storage.room = 30;
        append(&mut file, "three", start + 2 * RETRY_AFTER);
        file.storage.room = 1 << 20;
        append(&mut file, "four", start + 3 * RETRY_AFTER);
        let marker = format!("3 lines dropped: {}", io::Error::from(Errno::ENOSPC));
        assert_eq!(texts(&file.storage.current), [marker, "four".into()]);
        assert_eq!(file.dropped(), 3);
        assert!(file.last_error().is_some());
    }

    #[test]
    fn lines_lost_right_after_a_marker_are_counted_anew() {
        let start = Instant::now();
        let mut file = LogFile::new(FakeDisk::default());
        append(&mut file, "one", start);
        let marker = record(&format!("1 line dropped: {}", io::Error::from(Errno::ENOSPC))).len() - 1;
        file.storage.room = marker;
        append(&mut file, "two", start + RETRY_AFTER);
        file.storage.room = 1 << 20;
        file.finish(LIMITS, &Stamp::at(0), start + RETRY_AFTER);
        let marker = format!("1 line dropped: {}", io::Error::from(Errno::ENOSPC));
        assert_eq!(texts(&file.storage.current), [marker.clone(), marker]);
    }

    proptest! {
        #[test]
        fn rotation_neither_tears_nor_loses_nor_reorders(
            batches in prop::collection::vec(prop::collection::vec(0usize..60, 1..8), 1..30),
            max_size in 1u64..300,
        ) {
            let limits = Limits { max_size, keep: u32::MAX, ..LIMITS };
            let mut file = LogFile::new(FakeDisk { room: usize::MAX, ..FakeDisk::default() });
            let mut expected = Vec::new();
            for batch in batches {
                let mut records = Vec::new();
                for length in batch {
                    expected.push(format!("{}:{}", expected.len(), "x".repeat(length)));
                    records.extend(record(&expected[expected.len() - 1]));
                }
                file.append(&records, limits, &Stamp::at(0), Instant::now());
            }
            let mut read = Vec::new();
            for bytes in file.storage.older.iter().rev().chain([&file.storage.current]) {
                let lines = texts(bytes);
                prop_assert!(bytes.len() as u64 <= max_size || lines.len() == 1);
                read.extend(lines);
            }
            prop_assert_eq!(read, expected);
        }
    }

    proptest! {
        #[test]
        fn a_rotation_that_fails_at_times_costs_no_line_and_is_tried_at_most_once_a_second(
            batches in prop::collection::vec(
                (prop::collection::vec(0usize..60, 1..8), any::<bool>(), 0u64..1_500),
                1..30,
            ),
            max_size in 1u64..300,
        ) {
            let limits = Limits { max_size, keep: u32::MAX, ..LIMITS };
            let mut file = LogFile::new(FakeDisk { room: usize::MAX, ..FakeDisk::default() });
            let mut now = Instant::now();
            let (mut expected, mut failed_at) = (Vec::new(), None);
            for (lengths, refuses, pause) in batches {
                now += Duration::from_millis(pause);
                let mut records = Vec::new();
                for length in lengths {
                    expected.push(format!("{}:{}", expected.len(), "x".repeat(length)));
                    records.extend(record(&expected[expected.len() - 1]));
                }
                file.storage.refuses_rotation = refuses;
                let before = file.storage.rotations;
                file.append(&records, limits, &Stamp::at(0), now);
                if file.storage.rotations > before {
                    prop_assert!(failed_at.is_none_or(|at| now >= at + RETRY_AFTER));
                    failed_at = file.rotation_error().is_some().then_some(now);
                    prop_assert_eq!(failed_at.is_some(), refuses);
                }
                prop_assert_eq!(file.rotation_error().is_some(), failed_at.is_some());
            }
            prop_assert_eq!((file.dropped(), file.is_failing()), (0, false));
            let files = file.storage.older.iter().rev().chain([&file.storage.current]);
            let read: Vec<String> = files.flat_map(|bytes| texts(bytes)).collect();
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_and_is_within_its_limits_again_with_larger_ones() {
        let start = Instant::now();
        let mut file =
            LogFile::new(FakeDisk { room: 1 << 20, refuses_rotation: true, ..FakeDisk::default() });
        let limits = Limits { max_size: record("one").len() as u64, ..LIMITS };
        for text in ["one", "two", "six"] {
            file.append(&record(text), limits, &Stamp::at(0), start);
        }
        assert_eq!(texts(&file.storage.current), ["one", "two", "six"]);
        let error = io::Error::from(Errno::EACCES).to_string();
        assert_eq!((file.rotation_error(), file.dropped()), (Some(&*error), 0));
        assert_eq!(file.last_error(), file.rotation_error());
        assert_eq!(file.storage.rotations, 1);
        append(&mut file, "ten", start);
        assert_eq!((file.rotation_error(), file.storage.rotations), (None, 1));
    }

    #[test]
    fn a_file_that_is_too_old_and_cannot_be_rotated_grows_as_well() {
        let limits = Limits { max_age: Some(Duration::from_secs(60)), ..LIMITS };
        let start = Instant::now();
        let mut file =
            LogFile::new(FakeDisk { room: 1 << 20, refuses_rotation: true, ..FakeDisk::default() });
        for seconds in [0, 60, 61] {
            let stamp = Stamp::at(seconds * 1_000);
            let mut records = Vec::new();
            stamp.record(Stream::Out, false, seconds.to_string().as_bytes(), &mut records);
            file.append(&records, limits, &stamp, start);
        }
        assert_eq!(texts(&file.storage.current), ["0", "60", "61"]);
        assert!(file.rotation_error().is_some());
        file.storage.refuses_rotation = false;
        file.append(&record("62"), limits, &Stamp::at(62_000), start + RETRY_AFTER);
        assert_eq!(file.rotation_error(), None);
        assert_eq!(texts(&file.storage.older[0]), ["0", "60", "61"]);
        assert_eq!(texts(&file.storage.current), ["62"]);
    }

    #[test]
    fn whichever_step_of_a_rotation_fails_every_line_is_kept_in_its_place() {
        for keep in 2..6 {
            let names = [keep, keep - 1].map(|index| rotation::file_name("web", index));
            // Each is a directory, which can be neither deleted as a file nor replaced by one.
            for obstacle in names.into_iter().chain([rotation::new_name("web")]) {
                let root = tempfile::tempdir().unwrap();
                let mut file = LogFile::new(Place::new(&Root::new(root.path()), "web"));
                let limits = Limits { max_size: record("0").len() as u64, keep, ..LIMITS };
                let mut expected = Vec::new();
                let mut add = |file: &mut LogFile<Place>, now| {
                    expected.push(expected.len().to_string());
                    file.append(&record(&expected[expected.len() - 1]), limits, &Stamp::at(0), now);
                };
                let now = Instant::now();
                // As many files as are kept, but for the one that is in the way.
                (1..keep).for_each(|_| add(&mut file, now));
                std::fs::create_dir(root.path().join(&obstacle)).unwrap();
                for round in 0..3 {
                    add(&mut file, now + round * RETRY_AFTER);
                    assert!(file.rotation_error().is_some(), "{obstacle} of {keep}");
                }
                std::fs::remove_dir(root.path().join(&obstacle)).unwrap();
                add(&mut file, now + 3 * RETRY_AFTER);
                assert_eq!((file.rotation_error(), file.dropped(), file.is_failing()), (None, 0, false));
                let files: Vec<Vec<String>> = (0..keep)
                    .map(|index| root.path().join(rotation::file_name("web", index)))
                    .map(|path| texts(&std::fs::read(path).unwrap()))
                    .collect();
                assert_eq!(files[0].len(), 1);
                assert_eq!(
                    files.into_iter().rev().flatten().collect::<Vec<_>>(),
                    expected,
                    "{obstacle} of {keep}"
                );
                assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), keep as usize);
            }
        }
    }

    #[test]
    fn a_single_file_that_can_have_no_successor_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(Place::new(&Root::new(root.path()), "web"));
        let limits = Limits { max_size: record("0").len() as u64, keep: 1, ..LIMITS };
        std::fs::create_dir(root.path().join(rotation::new_name("web"))).unwrap();
        for number in 0..3 {
            file.append(&record(&number.to_string()), limits, &Stamp::at(0), Instant::now());
        }
        assert_eq!((file.rotation_error(), file.dropped()), (None, 0));
        assert_eq!(texts(&std::fs::read(root.path().join("web.log")).unwrap()), ["2"]);
    }

    #[test]
    fn real_files_rotate_and_old_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(Place::new(&Root::new(root.path()), "group/web"));
        let limits = Limits { max_size: 2 * record("0").len() as u64, ..LIMITS };
        for number in 0..9 {
            file.append(&record(&number.to_string()), limits, &Stamp::at(0), Instant::now());
        }
        let read = |name: &str| texts(&std::fs::read(root.path().join("group").join(name)).unwrap());
        assert_eq!(read("web.log"), ["8"]);
        assert_eq!(read("web.log.1"), ["6", "7"]);
        assert_eq!(read("web.log.2"), ["4", "5"]);
        assert_eq!(std::fs::read_dir(root.path().join("group")).unwrap().count(), 3);
        file.append(&record("99"), Limits { keep: 1, ..limits }, &Stamp::at(0), Instant::now());
        assert_eq!(read("web.log"), ["99"]);
        assert_eq!(std::fs::read_dir(root.path().join("group")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_rotated_by_the_age_of_its_first_line_also_after_a_restart() {
        let limits = Limits { max_age: Some(Duration::from_secs(60)), keep: 9, ..LIMITS };
        let mut file = LogFile::new(FakeDisk { room: 1 << 20, ..FakeDisk::default() });
        // A clock that is set back makes nothing old.
        for (seconds, restarts) in
            [(0, false), (59, false), (30, false), (60, false), (100, true), (119, true), (120, true)]
        {
            if restarts {
                file.finish(limits, &Stamp::at(0), Instant::now());
            }
            let stamp = Stamp::at(seconds * 1000);
            let mut records = Vec::new();
            stamp.record(Stream::Out, false, seconds.to_string().as_bytes(), &mut records);
            file.append(&records, limits, &stamp, Instant::now());
        }
        let older: Vec<_> = file.storage.older.iter().map(|bytes| texts(bytes)).collect();
        assert_eq!(older, [vec!["60", "100", "119"], vec!["0", "59", "30"]]);
        assert_eq!(texts(&file.storage.current), ["120"]);
    }

    #[test]
    fn a_file_or_directory_that_is_taken_away_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("logs");
        let mut file = LogFile::new(Place::new(&Root::new(&logs), "group/web"));
        let now = Instant::now();
        append(&mut file, "one", now);
        std::fs::rename(logs.join("group/web.log"), logs.join("moved")).unwrap();
        append(&mut file, "two", now + LOOK_AFTER);
        let read = |path: &str| texts(&std::fs::read(logs.join(path)).unwrap());
        assert_eq!((read("moved"), read("group/web.log")), (vec!["one".into()], vec!["two".into()]));
        std::fs::remove_dir_all(&logs).unwrap();
        append(&mut file, "three", now + 2 * LOOK_AFTER);
        assert_eq!(read("group/web.log"), ["three"]);
        assert_eq!(file.dropped(), 0);
    }

    #[test]
    fn a_file_that_somebody_cut_within_a_line_never_merges_it_with_the_next_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("web.log");
        let mut file = LogFile::new(Place::new(&Root::new(root.path()), "web"));
        let now = Instant::now();
        append(&mut file, "one", now);
        append(&mut file, "two", now);
        assert!(!file.take_altered());
        let cut = File::options().write(true).open(&path).unwrap();
        cut.set_len(2 * record("one").len() as u64 - 2).unwrap();
        append(&mut file, "three", now + LOOK_AFTER);
        let expected = ["one", "tw", "the line above was cut short", "three"];
        assert_eq!(texts(&std::fs::read(&path).unwrap()), expected);
        assert!(file.take_altered() && !file.take_altered());
    }

    #[test]
    fn a_file_that_somebody_emptied_is_not_filled_up_with_zeros() {
        let root = tempfile::tempdir().unwrap();
        let mut place = Place::new(&Root::new(root.path()), "web");
        place.open().unwrap();
        place.write(b"one\ntwo\n").unwrap();
        let path = root.path().join("web.log");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        place.write(b"three\nfo").unwrap();
        place.truncate(14).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three\nfo");
        place.truncate(6).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn what_is_planted_at_the_path_of_the_held_directory_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let (logs, elsewhere) = (root.path().join("logs"), root.path().join("elsewhere"));
        let held = Root::new(&logs);
        append(&mut LogFile::new(Place::new(&held, "one")), "one", Instant::now());
        std::fs::rename(&logs, root.path().join("moved")).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &logs).unwrap();
        append(&mut LogFile::new(Place::new(&held, "two")), "two", Instant::now());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        assert!(root.path().join("moved/two.log").exists());
    }

    #[test]
    fn files_and_directories_are_private() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("state/logs");
        let mut file = LogFile::new(Place::new(&Root::new(&root), "group/web"));
        append(&mut file, "hello", Instant::now());
        let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("group/web.log"), mode("group"), mode("")), (0o600, 0o700, 0o700));
        assert_eq!(mode(".."), 0o700);
    }

    #[test]
    fn a_file_torn_at_any_byte_never_merges_with_the_next_line() {
        let root = tempfile::tempdir().unwrap();
        let old = [record("whole"), record("the second")].concat();
        let first = record("whole").len();
        for cut in first..=old.len() {
            std::fs::write(root.path().join("web.log"), &old[..cut]).unwrap();
            let mut file = LogFile::new(Place::new(&Root::new(root.path()), "web"));
            append(&mut file, "new", Instant::now());
            let texts = texts(&std::fs::read(root.path().join("web.log")).unwrap());
            assert_eq!((&*texts[0], &*texts[texts.len() - 1]), ("whole", "new"));
            if cut == first {
                assert_eq!(texts.len(), 2);
            } else if cut == old.len() {
                assert_eq!(texts[1], "the second");
                assert_eq!(texts.len(), 3);
            } else {
                assert_eq!(texts[2], "the line above was cut short", "cut at {cut}");
                assert_eq!(texts.len(), 4);
            }
        }
    }

    #[test]
    fn planted_links_and_pipes_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        std::fs::write(&target, "untouched").unwrap();
        let logs = root.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        symlink(&target, logs.join("web.log")).unwrap();
        symlink(root.path(), logs.join("group")).unwrap();
        symlink(&logs, root.path().join("linked")).unwrap();
        nix::unistd::mkfifo(&logs.join("pipe.log"), Mode::S_IRWXU).unwrap();
        for (root, name) in [
            (logs.clone(), "web"),
            (logs.clone(), "group/web"),
            (logs.clone(), "pipe"),
            (root.path().join("linked"), "other"),
        ] {
            let mut file = LogFile::new(Place::new(&Root::new(&root), name));
            append(&mut file, "hello", Instant::now());
            assert_eq!(file.dropped(), 1, "{name}");
            assert!(file.last_error().is_some());
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
        assert!(!root.path().join("web.log").exists());
        assert!(!logs.join("other.log").exists());
    }
}
