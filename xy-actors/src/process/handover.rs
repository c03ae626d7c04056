//! What a process host knows, as plain data, and the exchange of this process's program for another one.
//!
//! An exchange keeps the process: its pid, its children and the descriptors that are kept. The children belong to a
//! *thread*, and get their parent-death signal when that ends. `execve` ends every thread but the one that calls it, which
//! then is the only and first one. So the thread that creates the children makes the exchange, and in the new program the
//! first thread creates the children ([`lead`]): whatever was started before or after, the next exchange leaves it alone.
//!
//! ```text
//! first program:  xy-spawner creates children ── execve ──► its first thread is their parent, and leads
//!                                                              │ up: settle()
//!                 the one before it, by its descriptor ◄── not up in time, or given up
//! ```

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::host::spawner::{lead, settle};
use super::settings::ResourceLimit;
pub(crate) use super::sys::{Area, SharedMemory};
use super::{LiveProcess, sys};

/// What a process host knows beside its options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HostState {
    /// What has been spawned and not been reaped.
    pub live: Vec<LiveProcess>,
    pub(super) known: Vec<KnownState>,
    pub(super) orphans: Vec<OrphanState>,
    pub(super) has_others: bool,
    pub(super) has_groups: bool,
    /// The limits that children get back.
    pub(super) limits: Vec<ResourceLimit>,
    pub(super) ledger_lock: Option<RawFd>,
}

/// Who was seen to belong to the tree of a marker, by pid and start time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct KnownState {
    pub(super) marker: String,
    pub(super) members: Vec<(u32, u64)>,
}

/// An orphan that came to us, and the marker of the tree that it belongs to, if one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct OrphanState {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) command: String,
    pub(super) owner: Option<String>,
}

/// A process that an actor has handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ProcessState {
    /// What its tree has in its environment, by which it is found among the live ones.
    pub(super) marker: String,
    pub(super) is_ready: bool,
    /// It has told that it is ready, and is to listen on its port.
    pub(super) is_told: bool,
    pub(super) is_stop_asked: bool,
    pub(super) is_signaled: bool,
    pub(super) is_kill_asked: bool,
    /// Where it tells how it is: the address, as bytes, and the socket.
    pub(super) socket: Option<(Vec<u8>, RawFd)>,
    /// Where it writes a newline when it is ready.
    pub(super) descriptor: Option<RawFd>,
}

impl ProcessState {
    /// Returns what its tree has in its environment as `XY_INSTANCE`.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    pub(super) fn address(&self) -> Option<(OsString, RawFd)> {
        let (address, number) = self.socket.as_ref()?;
        Some((OsString::from_vec(address.clone()), *number))
    }
}

/// The program that takes this process over, and what it gets.
#[derive(Debug)]
pub struct Exchange {
    pub(super) program: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) kept: Vec<OwnedFd>,
}

impl Exchange {
    /// Describes an exchange: the program's path, its arguments with its own name first, and the descriptors that it finds
    /// open under the same numbers. The environment stays.
    ///
    /// # Errors
    /// If the path or an argument contains a NUL byte.
    pub fn new(program: &Path, arguments: Vec<OsString>, kept: Vec<OwnedFd>) -> io::Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
        let arguments =
            arguments.iter().map(|argument| text(argument.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { program: text(program.as_os_str().as_bytes())?, arguments, kept })
    }

    /// Returns the path by which a program is executed that is kept as a descriptor, whatever has become of its file.
    pub fn path_of(program: &OwnedFd) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()))
    }

    /// Makes the exchange; returns only if the system refuses.
    pub(super) fn execute(&self) -> io::Error {
        let kept: Vec<_> = self.kept.iter().map(AsFd::as_fd).collect();
        sys::execute(&self.program, &self.arguments, &kept)
    }
}

/// How a program that does not come up after an exchange gives way to the one before it.
#[derive(Debug)]
pub struct HandBack {
    /// The exchange back.
    pub exchange: Exchange,
    /// How long the program has to come up.
    pub patience: Duration,
}

/// Descriptors from the program before this one, by the numbers they had there.
#[derive(Debug, Default)]
pub struct Luggage(BTreeMap<RawFd, OwnedFd>);

/// Takes what was kept open for this program, by the numbers that the program before this one has passed on.
///
/// To be called once, before anything else is opened.
///
/// # Errors
/// If one of them is not open.
pub fn inherit(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    numbers.iter().map(|number| sys::inherited(*number)).collect()
}

/// Takes the sockets that launchd has bound for this process under a name of its property list. Not run on macOS yet.
///
/// # Errors
/// If launchd did not start this process, or knows no sockets of that name.
#[cfg(target_os = "macos")]
pub fn launchd_sockets(name: &str) -> io::Result<Vec<OwnedFd>> {
    sys::launchd_sockets(&CString::new(name)?)
}

impl Luggage {
    /// Duplicates descriptors to work with. The originals stay as they are, in case that they are handed back.
    ///
    /// # Errors
    /// If the system refuses that many.
    pub fn copy(originals: &[OwnedFd]) -> io::Result<Self> {
        let pairs = originals.iter().map(|fd| Ok((fd.as_raw_fd(), fd.try_clone()?)));
        pairs.collect::<io::Result<_>>().map(Self)
    }

    /// Takes the duplicate of one descriptor, once.
    pub fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.0.remove(&number)
    }
}

/// Lets all signals through in the calling thread, and in those that it starts.
///
/// They are held back from before an exchange on; whatever is to hear them must listen by now.
pub fn release_signals() {
    sys::hold_signals(&sys::SignalSet::new(&[]));
}

/// Holds all signals back in the calling thread, for good.
///
/// For every thread of a program that is to be exchanged but the one that hears signals: what such a thread took right
/// before the exchange would be lost with it.
pub fn hear_no_signals() {
    sys::block_all_signals();
}

/// Signals that are held back in a thread; dropping it lets through again what was let through before.
#[derive(Debug)]
#[must_use = "they are let through again when this is dropped"]
pub struct HeldSignals {
    before: sys::SignalSet,
    /// The mask is that of one thread.
    _of_this_thread: PhantomData<*const ()>,
}

impl HeldSignals {
    /// Holds all signals back in the calling thread.
    ///
    /// Where no other thread hears any, a signal that comes from here on stays pending, also beyond an exchange: the next
    /// program hears it as soon as it [lets signals through](release_signals).
    pub fn hold() -> Self {
        Self { before: sys::block_all_signals(), _of_this_thread: PhantomData }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        sys::hold_signals(&self.before);
    }
}

/// Gives signals that are ignored their meaning back and goes on holding them back.
pub fn reset_ignored_signals() {
    sys::reset_ignored_signals();
}

/// Returns a time that goes on through an exchange, from some moment of this boot.
pub fn monotonic() -> Duration {
    sys::monotonic()
}
