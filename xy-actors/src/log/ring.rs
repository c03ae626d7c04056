//! A queue of bytes in one piece of memory, which the next program can go on with where it lies.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use super::hub::locked;
use crate::process::handover::{Area, SharedMemory};

/// From which size on memory comes from the pool: what is smaller is copied when it is handed over, and most logs are silent.
const SHARED_FROM: usize = 16 << 10;

/// Where the rings of a hub get larger memory from, which outlives the program; made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Pool {
    memory: Mutex<Option<Arc<SharedMemory>>>,
}

impl Pool {
    /// Returns zeros; those of the heap if there is no other memory.
    fn allocate(&self, length: usize) -> Memory {
        let shared = || {
            let mut memory = locked(&self.memory);
            let memory = match &mut *memory {
                Some(memory) => memory,
                none => none.insert(SharedMemory::create()?),
            };
            memory.allocate(length)
        };
        if length >= SHARED_FROM
            && let Ok(area) = shared()
        {
            return Memory::Shared(area);
        }
        Memory::Own(vec![0; length].into())
    }

    /// Has what is in memory stay there, and returns its descriptor, if there is any such memory.
    pub(super) fn hold(&self) -> io::Result<Option<OwnedFd>> {
        let memory = locked(&self.memory).clone();
        let Some(memory) = memory else { return Ok(None) };
        let file = memory.as_fd().try_clone_to_owned()?;
        memory.hold();
        Ok(Some(file))
    }

    /// Takes [`Pool::hold`] back.
    pub(super) fn let_go(&self) {
        if let Some(memory) = &*locked(&self.memory) {
            memory.let_go();
        }
    }
}

/// The memory of another program's rings.
#[derive(Debug)]
pub(super) struct Inherited {
    file: File,
    /// `None` if that program is a part of this one, or the system refuses: then it is copied.
    memory: Option<Arc<SharedMemory>>,
}

impl Inherited {
    /// Goes on with it.
    ///
    /// Until its pool is [let go](Pool::let_go), nothing of it is given back, so that the other program could go on too.
    pub(super) fn new(file: OwnedFd) -> Self {
        let memory = SharedMemory::adopt(file.as_fd()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the memory of the logs is copied");
            None
        });
        Self { file: file.into(), memory }
    }

    /// Returns a pool that goes on with it.
    pub(super) fn pool(&self) -> Pool {
        Pool { memory: Mutex::new(self.memory.clone()) }
    }
}

/// What a ring holds, for the next program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RingState {
    /// The bytes themselves.
    Copied(Vec<u8>),
    /// They stay where they are.
    Shared {
        /// Where their memory begins.
        offset: u64,
        /// How large it is.
        capacity: u64,
        /// Where in it the first one lies.
        start: u64,
        /// How many there are; behind the end of the memory, they go on at its beginning.
        length: u64,
    },
}

impl RingState {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Copied(bytes) => bytes.len() as u64,
            Self::Shared { length, .. } => *length,
        }
    }

    /// Says whether such a ring can be.
    pub(super) fn is_sound(&self) -> bool {
        match *self {
            Self::Copied(_) => true,
            Self::Shared { capacity, start, length, .. } => {
                start < capacity && length <= capacity && isize::try_from(capacity).is_ok()
            }
        }
    }
}

#[derive(Debug)]
enum Memory {
    Own(Box<[u8]>),
    Shared(Area),
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(area) => area,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(area) => area,
        }
    }
}

/// Bytes that are added at the end and taken from the front.
#[derive(Debug)]
pub(super) struct Ring {
    pool: Arc<Pool>,
    memory: Memory,
    start: usize,
    length: usize,
}

impl Ring {
    /// Creates an empty one, without memory.
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, memory: Memory::Own(Box::default()), start: 0, length: 0 }
    }

    /// Goes on with what another one held; its state [is sound](RingState::is_sound).
    ///
    /// # Errors
    /// If the memory is not there, or the system refuses.
    pub(super) fn restored(
        pool: Arc<Pool>,
        state: RingState,
        inherited: Option<&Inherited>,
    ) -> io::Result<Self> {
        let (offset, capacity, start, length) = match state {
            RingState::Copied(bytes) => {
                let length = bytes.len();
                return Ok(Self { pool, memory: Memory::Own(bytes.into()), start: 0, length });
            }
            RingState::Shared { offset, capacity, start, length } => {
                (offset, capacity as usize, start as usize, length as usize)
            }
        };
        let inherited = inherited.ok_or(io::ErrorKind::InvalidInput)?;
        let memory = match &inherited.memory {
            Some(memory) => Memory::Shared(memory.map(offset, capacity)?),
            None => {
                let mut memory = pool.allocate(capacity);
                inherited.file.read_exact_at(&mut memory, offset)?;
                memory
            }
        };
        Ok(Self { pool, memory, start, length })
    }

    /// Returns what it holds.
    pub(super) fn state(&self) -> RingState {
        match &self.memory {
            Memory::Own(_) => RingState::Copied(self.slices().concat()),
            Memory::Shared(area) => RingState::Shared {
                offset: area.offset(),
                capacity: area.len() as u64,
                start: self.start as u64,
                length: self.length as u64,
            },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Returns its bytes in two pieces.
    pub(super) fn slices(&self) -> [&[u8]; 2] {
        let end = self.start + self.length;
        let wrapped = end.saturating_sub(self.capacity());
        [&self.memory[self.start..end - wrapped], &self.memory[..wrapped]]
    }

    /// Grows by doubling like any vector until so many bytes fit, but never beyond the limit unless they alone are more.
    pub(super) fn reserve(&mut self, wanted: usize, limit: usize) {
        let needed = self.length + wanted;
        if needed > self.capacity() {
            self.relocate((self.capacity() * 2).min(limit).max(needed));
        }
    }

    /// Gives memory back that is beyond a limit.
    pub(super) fn shrink_to(&mut self, limit: usize) {
        let target = limit.max(self.length);
        if target < self.capacity() {
            self.relocate(target);
        }
    }

    fn relocate(&mut self, capacity: usize) {
        let mut memory = self.pool.allocate(capacity);
        let [front, back] = self.slices();
        memory[..front.len()].copy_from_slice(front);
        memory[front.len()..front.len() + back.len()].copy_from_slice(back);
        (self.memory, self.start) = (memory, 0);
    }

    /// Adds bytes for which there is [room](Ring::reserve).
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.start + self.length;
        let capacity = self.capacity();
        let place = if end < capacity { end } else { end - capacity };
        let (front, back) = bytes.split_at(bytes.len().min(capacity - place));
        self.memory[place..place + front.len()].copy_from_slice(front);
        self.memory[..back.len()].copy_from_slice(back);
        self.length += bytes.len();
        debug_assert!(self.length <= capacity, "there was room");
    }

    /// Replaces its first bytes.
    pub(super) fn write_front(&mut self, bytes: &[u8]) {
        let (front, back) = bytes.split_at(bytes.len().min(self.capacity() - self.start));
        self.memory[self.start..self.start + front.len()].copy_from_slice(front);
        self.memory[..back.len()].copy_from_slice(back);
    }

    /// Forgets its first bytes.
    pub(super) fn pop(&mut self, count: usize) {
        debug_assert!(count <= self.length, "it holds them");
        self.length -= count;
        self.start += count;
        if self.start >= self.capacity() {
            self.start -= self.capacity();
        }
        if self.length == 0 {
            self.start = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.pop(self.length);
    }
}
