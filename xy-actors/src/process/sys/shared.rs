//! Memory that outlives the program: a file without a name or a disk, whose areas are mapped, and passed on by descriptor.
//!
//! An area is exclusive: nobody else has it mapped as long as it lives, so that references into it are sound. Within one
//! program the claims see to that. Between two, one of which may be a part of the same process, a lock does: it is that of a
//! descriptor that is closed on exec, while the one that is passed on has none.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(not(target_os = "linux"))]
use self::unsupported as system;

/// What areas are aligned to: a multiple of the pages of every supported system. Between two, nothing takes memory.
const ALIGNMENT: u64 = 64 << 10;

/// Memory in areas, behind one descriptor.
pub(crate) struct SharedMemory {
    /// What is passed on.
    file: OwnedFd,
    /// Locked; closed on exec, and with it the lock goes.
    _lock: OwnedFd,
    /// Where it ends; what no area covers takes no room.
    size: u64,
    claims: Mutex<Claims>,
}

#[derive(Debug, Default)]
struct Claims {
    /// The areas in use, by where they begin, with where they end.
    areas: BTreeMap<u64, u64>,
    /// Where the next new one begins.
    next: u64,
    /// How many want it to stay as it is.
    holds: usize,
    /// Whether something was let go while it was held.
    is_swept: bool,
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("file", &self.file).finish_non_exhaustive()
    }
}

impl SharedMemory {
    /// Makes an empty one, closed on exec.
    ///
    /// # Errors
    /// If the system refuses, or has no such memory.
    pub(crate) fn create() -> io::Result<Arc<Self>> {
        let (file, size) = system::create()?;
        let memory = Self::of(file, size)?;
        memory.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
    }

    /// Goes on with that of another program; `None` if somebody in this process has it mapped.
    ///
    /// It is held, so that the other one could still go on: see [`SharedMemory::let_go`].
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn adopt(file: BorrowedFd<'_>) -> io::Result<Option<Arc<Self>>> {
        let size = system::size(file)?;
        let memory = Self::of(file.try_clone_to_owned()?, size)?;
        if let Some(memory) = &memory {
            let mut claims = memory.claims();
            (claims.holds, claims.is_swept) = (1, false);
        }
        Ok(memory)
    }

    fn of(file: OwnedFd, size: u64) -> io::Result<Option<Arc<Self>>> {
        let claims = Mutex::new(Claims { is_swept: true, ..Claims::default() });
        let lock = system::lock(&file)?;
        Ok(lock.map(|lock| Arc::new(Self { file, _lock: lock, size, claims })))
    }

    /// Returns an area of zeros that no other has, with all of its memory.
    ///
    /// # Errors
    /// If there is no memory, or no room.
    pub(crate) fn allocate(self: &Arc<Self>, length: usize) -> io::Result<Area> {
        let mut claims = self.claims();
        let offset = claims.next;
        let area = self.map_within(&mut claims, offset, length)?;
        drop(claims);
        // All of it now: a page that is missing when it is touched would end the process.
        system::fill(&self.file, offset, length as u64)?;
        Ok(area)
    }

    /// Maps an area where another program had one, with what it holds.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if no area can be there or one is, else what the system says.
    pub(crate) fn map(self: &Arc<Self>, offset: u64, length: usize) -> io::Result<Area> {
        self.map_within(&mut self.claims(), offset, length)
    }

    fn map_within(self: &Arc<Self>, claims: &mut Claims, offset: u64, length: usize) -> io::Result<Area> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let end = offset.checked_add(rounded(length)).filter(|end| *end <= self.size).ok_or_else(invalid)?;
        if length == 0 || !offset.is_multiple_of(ALIGNMENT) {
            return Err(invalid());
        }
        if claims.areas.range(..end).next_back().is_some_and(|(_, before)| *before > offset) {
            return Err(invalid());
        }
        let start = system::map(&self.file, offset, length)?;
        claims.areas.insert(offset, end);
        claims.next = claims.next.max(end);
        Ok(Area { memory: Arc::clone(self), offset, start, length })
    }

    /// Keeps everything as it is, also what is no longer used, until [`SharedMemory::let_go`]: for another program.
    pub(crate) fn hold(&self) {
        self.claims().holds += 1;
    }

    /// Takes back one [`SharedMemory::hold`]; after the last one, what is not used takes no more room.
    pub(crate) fn let_go(&self) {
        let mut claims = self.claims();
        claims.holds = claims.holds.saturating_sub(1);
        if claims.holds > 0 || std::mem::replace(&mut claims.is_swept, true) {
            return;
        }
        let mut free = 0;
        for (start, end) in &claims.areas {
            system::empty(&self.file, free, start - free);
            free = *end;
        }
        system::empty(&self.file, free, self.size - free);
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Nothing panics while it is locked.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A part of a [`SharedMemory`], for its owner alone.
pub(crate) struct Area {
    memory: Arc<SharedMemory>,
    offset: u64,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it is memory like any other, which it alone refers to.
unsafe impl Send for Area {}
// SAFETY: shared references to it allow reading only.
unsafe impl Sync for Area {}

impl Area {
    /// Returns where in the memory it begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area").field("offset", &self.offset).field("length", &self.length).finish()
    }
}

impl Deref for Area {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped there until this is dropped, and nobody else has them mapped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Area {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this is the only reference to what alone has them mapped.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: it is mapped, and no reference into it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        let mut claims = self.memory.claims();
        let Some(end) = claims.areas.remove(&self.offset) else { return };
        if claims.holds > 0 {
            claims.is_swept = false;
        } else {
            system::empty(&self.memory.file, self.offset, end - self.offset);
        }
    }
}

/// Returns where the next area can begin behind one of this length.
fn rounded(length: usize) -> u64 {
    (length as u64).saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
    use std::ptr::{self, NonNull};

    /// As much as is never used up, at some bytes of bookkeeping for what is.
    const SIZE: u64 = 1 << 60;

    fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    /// Makes the file, which nobody can make shorter.
    pub(super) fn create() -> io::Result<(OwnedFd, u64)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a string; the result is checked, and new.
        let file = unsafe { OwnedFd::from_raw_fd(checked(libc::memfd_create(c"xy-logs".as_ptr(), flags))?) };
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a valid place for the result.
        checked(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) })?;
        // It counts as a file: one that is larger than allowed would cost a signal.
        let size = SIZE.min(limit.rlim_cur);
        // SAFETY: calls on an open descriptor.
        unsafe {
            checked(libc::ftruncate(file.as_raw_fd(), size.cast_signed()))?;
            checked(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK))?;
        }
        Ok((file, size))
    }

    /// Returns the size of a file that nobody can make shorter, and refuses any other.
    pub(super) fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
        // SAFETY: a call on an open descriptor.
        let seals = checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) })?;
        if seals & libc::F_SEAL_SHRINK == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let size = nix::sys::stat::fstat(file)?.st_size;
        Ok(size.cast_unsigned())
    }

    /// Locks it by a descriptor of its own; `None` if somebody else has.
    pub(super) fn lock(file: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let own: OwnedFd = std::fs::File::options().read(true).write(true).open(path)?.into();
        // SAFETY: a call on an open descriptor.
        match checked(unsafe { libc::flock(own.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
            Ok(_) => Ok(Some(own)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a part of it all of its memory.
    pub(super) fn fill(file: &OwnedFd, offset: u64, length: u64) -> io::Result<()> {
        allocate(file, 0, offset, length)
    }

    /// Takes the memory of a part of it away.
    pub(super) fn empty(file: &OwnedFd, offset: u64, length: u64) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // If it fails, some room is not given back.
        if length > 0
            && let Err(error) = allocate(file, mode, offset, length)
        {
            tracing::warn!(%error, "memory of logs was not given back");
        }
    }

    fn allocate(file: &OwnedFd, mode: libc::c_int, offset: u64, length: u64) -> io::Result<()> {
        loop {
            let (offset, length) = (offset.cast_signed(), length.cast_signed());
            // SAFETY: a call on an open descriptor.
            match checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// Maps a part of it.
    pub(super) fn map(file: &OwnedFd, offset: u64, length: usize) -> io::Result<NonNull<u8>> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: it takes a place that is free, of a file that stays as long.
        let start = unsafe {
            let (flags, fd) = (libc::MAP_SHARED, std::os::fd::AsRawFd::as_raw_fd(file));
            libc::mmap(ptr::null_mut(), length, protection, flags, fd, offset.cast_signed())
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }
}

/// Other systems have no file without a name that memory can be mapped of and that holds its size.
#[cfg(not(target_os = "linux"))]
mod unsupported {
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::ptr::NonNull;

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    pub(super) fn create() -> io::Result<(OwnedFd, u64)> {
        unsupported()
    }

    pub(super) fn size(_file: BorrowedFd<'_>) -> io::Result<u64> {
        unsupported()
    }

    pub(super) fn lock(_file: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        unsupported()
    }

    pub(super) fn fill(_file: &OwnedFd, _offset: u64, _length: u64) -> io::Result<()> {
        unsupported()
    }

    pub(super) fn empty(_file: &OwnedFd, _offset: u64, _length: u64) {}

    pub(super) fn map(_file: &OwnedFd, _offset: u64, _length: usize) -> io::Result<NonNull<u8>> {
        unsupported()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A length in whole pages, so that it is what an area of it takes.
    const LENGTH: usize = 2 * ALIGNMENT as usize;

    /// Returns how many bytes of memory the file takes.
    fn taken(memory: &SharedMemory) -> usize {
        usize::try_from(nix::sys::stat::fstat(memory).unwrap().st_blocks * 512).unwrap()
    }

    #[test]
    fn an_area_takes_all_of_its_memory_at_once_and_gives_it_back() {
        let memory = SharedMemory::create().unwrap();
        assert_eq!(taken(&memory), 0);
        let (first, second) = (memory.allocate(LENGTH).unwrap(), memory.allocate(3 * LENGTH).unwrap());
        assert_eq!(taken(&memory), 4 * LENGTH);
        assert!(first.iter().all(|byte| *byte == 0));
        drop(first);
        assert_eq!(taken(&memory), 3 * LENGTH);
        drop(second);
        assert_eq!(taken(&memory), 0);
        let small = memory.allocate(1).unwrap();
        assert!((1..=ALIGNMENT as usize).contains(&taken(&memory)));
        drop(small);
        assert!(memory.allocate(usize::MAX).is_err());
        assert!(memory.allocate(0).is_err());
    }

    #[test]
    fn what_is_held_stays_and_what_nobody_uses_goes_when_it_is_let_go() {
        let memory = SharedMemory::create().unwrap();
        let areas: Vec<_> = (0..3).map(|_| memory.allocate(LENGTH).unwrap()).collect();
        memory.hold();
        let [first, second, third] = areas.try_into().unwrap();
        drop((first, third));
        assert_eq!(taken(&memory), 3 * LENGTH);
        memory.let_go();
        assert_eq!(taken(&memory), LENGTH);
        drop(second);
        assert_eq!(taken(&memory), 0);
    }

    #[test]
    fn another_goes_on_with_it_when_nobody_has_it_mapped_any_more() {
        let memory = SharedMemory::create().unwrap();
        let (mut area, forgotten) = (memory.allocate(LENGTH).unwrap(), memory.allocate(LENGTH).unwrap());
        area[LENGTH - 1] = 7;
        memory.hold();
        let file = memory.as_fd().try_clone_to_owned().unwrap();
        assert!(SharedMemory::adopt(file.as_fd()).unwrap().is_none());
        let offset = area.offset();
        drop((area, forgotten, memory));
        // One that fails to go on changes nothing for the next one.
        let failed = SharedMemory::adopt(file.as_fd()).unwrap().unwrap();
        drop(failed.map(offset, LENGTH).unwrap());
        drop(failed);
        let memory = SharedMemory::adopt(file.as_fd()).unwrap().unwrap();
        let area = memory.map(offset, LENGTH).unwrap();
        assert_eq!(area[LENGTH - 1], 7);
        assert_eq!(taken(&memory), 2 * LENGTH);
        memory.let_go();
        assert_eq!(taken(&memory), LENGTH);
        assert!(memory.allocate(1).unwrap().offset() > offset);
        assert_eq!(area[LENGTH - 1], 7);
    }

    #[test]
    fn areas_do_not_overlap_and_lie_within() {
        let memory = SharedMemory::create().unwrap();
        let area = memory.allocate(LENGTH).unwrap();
        for (offset, length) in [
            (0, 1),
            (ALIGNMENT, 1),
            (LENGTH as u64 + 1, 1),
            (LENGTH as u64, 0),
            (memory.size, 1),
            (u64::MAX - ALIGNMENT + 1, 1),
        ] {
            let refused = memory.map(offset, length).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{offset} {length}");
        }
        let third = memory.map(2 * LENGTH as u64, 1).unwrap();
        assert!(memory.map(LENGTH as u64, LENGTH + 1).is_err(), "the next one begins there");
        let second = memory.map(LENGTH as u64, LENGTH).unwrap();
        assert_eq!([area.len(), second.len(), third.len()], [LENGTH, LENGTH, 1]);
    }

    #[test]
    fn a_file_that_could_become_shorter_is_refused() {
        let refused = SharedMemory::adopt(tempfile::tempfile().unwrap().as_fd());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
