//! Every raw system call of the process layer, and all `unsafe` of this crate.
//!
//! A child is made by `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD)` on Linux: its cost does not grow with our memory,
//! the caller continues only after `execve` has succeeded or failed, and a failure is written straight into our memory
//! as (step, errno, which path), without a pipe. The price is that the child runs on our heap until then. So everything
//! it needs is allocated before, it calls nothing but async-signal-safe functions, and all signals are blocked in it so
//! that none of our handlers can run there.
#![expect(unsafe_code, reason = "the one place for system calls that nix has no safe form of")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ProcessExit;

mod settings;
mod shared;

pub(super) use settings::{ChildSettings, Credentials, OomScore, REGAINABLE, SET_GID, SET_GROUPS, SET_UID};
pub(crate) use shared::{Area, SharedMemory};

/// What the child needs before it becomes another program; all of it allocated beforehand.
///
/// Without `Debug`, so that no environment value reaches a log.
pub(super) struct ExecRequest<'a> {
    /// The paths to try, in order.
    pub(super) candidates: &'a [CString],
    /// The arguments, the program's name first.
    pub(super) arguments: &'a [CString],
    /// The whole environment as `KEY=VALUE`.
    pub(super) environment: &'a [CString],
    /// The directory to change to.
    pub(super) dir: Option<&'a CStr>,
    /// What becomes descriptors 0, 1 and 2. None of them may itself be one of those numbers.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// One more descriptor that the child gets, and its number there, at least 3.
    pub(super) extra: Option<(BorrowedFd<'a>, RawFd)>,
    /// A variable that holds the child's pid, as `NAME=`; only the child itself knows it in time.
    pub(super) pid_variable: Option<&'a CStr>,
    /// Whether the child is killed when the calling thread ends (Linux).
    pub(super) parent_death_signal: bool,
    /// What the child changes about itself.
    pub(super) settings: &'a ChildSettings,
    /// The directory of the control group to be created in (Linux).
    pub(super) cgroup: Option<BorrowedFd<'a>>,
}

/// Where a spawn failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum SpawnStep {
    /// Opening `/dev/null` or the output pipes.
    Descriptors = 1,
    /// Creating the process.
    Clone = 2,
    /// `setsid`.
    Session = 3,
    /// `prctl(PR_SET_PDEATHSIG)`.
    ParentDeathSignal = 4,
    /// `dup2` onto 0, 1, 2 and a declared number.
    Stdio = 5,
    /// `chdir`.
    Dir = 6,
    /// `execve`.
    Exec = 7,
    /// Creating the process in its control group; never told by the child.
    ControlGroup = 8,
    /// `setrlimit`.
    Limit = 20,
    /// `setpriority`.
    Nice = 21,
    /// Writing `oom_score_adj`.
    OomScore = 22,
    /// `setgroups`, `setresgid` and `setresuid`, and the proof that they hold.
    Credentials = 23,
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivs = 24,
}

impl SpawnStep {
    fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Descriptors,
            2 => Self::Clone,
            3 => Self::Session,
            4 => Self::ParentDeathSignal,
            5 => Self::Stdio,
            6 => Self::Dir,
            7 => Self::Exec,
            20 => Self::Limit,
            21 => Self::Nice,
            22 => Self::OomScore,
            23 => Self::Credentials,
            24 => Self::NoNewPrivs,
            _ => return None,
        })
    }
}

/// A spawn that failed; no process is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpawnFailure {
    /// What failed.
    pub(super) step: SpawnStep,
    /// The error number.
    pub(super) errno: c_int,
    /// The index of what `errno` is about: a path for [`SpawnStep::Exec`], a limit for [`SpawnStep::Limit`], a step of
    /// its own for [`SpawnStep::Credentials`].
    pub(super) candidate: usize,
}

impl SpawnFailure {
    /// Creates a failure of a step from the I/O error it returned.
    pub(super) fn new(step: SpawnStep, error: &io::Error) -> Self {
        Self { step, errno: error.raw_os_error().unwrap_or(libc::EIO), candidate: 0 }
    }
}

/// A process that has become the other program, or is about to be told from its exit.
#[derive(Debug)]
pub(super) struct Spawned {
    /// Its pid, which is also its session and group.
    pub(super) pid: u32,
    /// Becomes readable when it has ended: a pidfd on Linux, a kqueue on macOS.
    pub(super) exit_fd: OwnedFd,
}

/// What the child reads and writes; it lives on the spawner's stack while the child borrows our memory.
struct ChildArguments {
    candidates: *const *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    dir: *const c_char,
    stdio: [RawFd; 3],
    /// The descriptor that becomes `extra_target`, or -1.
    extra: RawFd,
    extra_target: RawFd,
    /// The first of the descriptors that the child has no use for, if it begins with our table; 0 if it has its own.
    unused_from: RawFd,
    /// Where the child writes its pid, or null.
    pid_digits: *mut u8,
    /// Our pid, or 0 for no parent-death signal.
    parent: libc::pid_t,
    settings: *const ChildSettings,
    /// The first descriptor number that cannot be open, for kernels without `close_range`.
    fd_limit: RawFd,
    failed_step: u32,
    failed_errno: c_int,
    failed_candidate: usize,
}

/// Room for the digits of any pid and a NUL.
const PID_ROOM: usize = 11;

/// What a child is given by pointers: allocated before it exists, and kept until it has left our memory.
struct Prepared<'a> {
    request: &'a ExecRequest<'a>,
    candidates: Vec<*const c_char>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// The variable whose value the child fills in, and the place of the value.
    pid_entry: Option<(Vec<u8>, *mut u8)>,
}

impl<'a> Prepared<'a> {
    fn new(request: &'a ExecRequest<'a>) -> Self {
        let mut environment = pointers(request.environment);
        let pid_entry = request.pid_variable.map(|name| {
            let name = name.to_bytes();
            let mut entry = [name, &[0; PID_ROOM]].concat();
            let start = entry.as_mut_ptr();
            environment.insert(environment.len() - 1, start.cast());
            (entry, start.wrapping_add(name.len()))
        });
        Self {
            request,
            candidates: pointers(request.candidates),
            arguments: pointers(request.arguments),
            environment,
            pid_entry,
        }
    }

    /// Returns the arguments, whose pointers are good for as long as this value is; `parent` as there.
    fn arguments(&self, parent: libc::pid_t) -> ChildArguments {
        let request = self.request;
        ChildArguments {
            candidates: self.candidates.as_ptr(),
            arguments: self.arguments.as_ptr(),
            environment: self.environment.as_ptr(),
            dir: request.dir.map_or(ptr::null(), CStr::as_ptr),
            stdio: request.stdio.map(|fd| fd.as_raw_fd()),
            extra: request.extra.map_or(-1, |(fd, _)| fd.as_raw_fd()),
            extra_target: request.extra.map_or(-1, |(_, target)| target),
            unused_from: 0,
            pid_digits: self.pid_entry.as_ref().map_or(ptr::null_mut(), |(_, digits)| *digits),
            parent,
            settings: request.settings,
            fd_limit: fd_limit(),
            failed_step: 0,
            failed_errno: 0,
            failed_candidate: 0,
        }
    }
}

/// Returns what the child wrote down before it ended, if it did not become the program.
///
/// # Safety
/// `child` points to the arguments of a child that has left our memory.
unsafe fn failure(child: *const ChildArguments) -> Option<SpawnFailure> {
    // SAFETY: as the caller says; volatile because the compiler cannot see the child's writes.
    let (step, errno, candidate) = unsafe {
        (
            (&raw const (*child).failed_step).read_volatile(),
            (&raw const (*child).failed_errno).read_volatile(),
            (&raw const (*child).failed_candidate).read_volatile(),
        )
    };
    Some(SpawnFailure { step: SpawnStep::from_raw(step)?, errno, candidate })
}

/// Pointers to the strings, ended by a null pointer, as `execve` wants them. They borrow from `strings`.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn fd_limit() -> RawFd {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 1024;
    }
    RawFd::try_from(limit.rlim_cur).unwrap_or(1 << 20).min(1 << 20)
}

/// Writes down what failed and ends the child.
///
/// # Safety
/// Only in the child, with `child` pointing to its arguments.
unsafe fn fail(child: *mut ChildArguments, step: SpawnStep, errno: c_int, candidate: usize) -> ! {
    // SAFETY: the caller vouches for `child`; the parent does not touch it before this process has ended.
    unsafe {
        (&raw mut (*child).failed_errno).write_volatile(errno);
        (&raw mut (*child).failed_candidate).write_volatile(candidate);
        (&raw mut (*child).failed_step).write_volatile(step as u32);
        libc::_exit(127)
    }
}

/// Everything between the creation of the child and its program. Never returns.
///
/// # Safety
/// Only in the child, with `child` pointing to its arguments and all signals blocked. Calls async-signal-safe functions
/// only, allocates nothing and cannot panic.
unsafe fn become_program(child: *mut ChildArguments) -> ! {
    // SAFETY: each call gets numbers, or pointers that the parent prepared and keeps alive until we are gone.
    unsafe {
        // First of all: until then each change would be one of our own descriptors.
        if (*child).unused_from != 0
            && let Err(errno) = os::leave_descriptors((*child).unused_from)
        {
            fail(child, SpawnStep::Descriptors, errno, 0);
        }
        os::reset_signal_dispositions();
        if libc::setsid() == -1 {
            fail(child, SpawnStep::Session, os::errno(), 0);
        }
        if (*child).parent != 0
            && let Err(errno) = os::set_parent_death_signal((*child).parent)
        {
            fail(child, SpawnStep::ParentDeathSignal, errno, 0);
        }
        let settings = &*(*child).settings;
        if let Err((step, errno, index)) = settings::constrain(settings) {
            fail(child, step, errno, index);
        }
        let mut target = 0;
        while target < 3 {
            let source = *(&raw const (*child).stdio).cast::<RawFd>().add(target);
            if libc::dup2(source, target as c_int) == -1 {
                fail(child, SpawnStep::Stdio, os::errno(), 0);
            }
            target += 1;
        }
        if let Err((step, errno, index)) = settings::change_user(settings) {
            fail(child, step, errno, index);
        }
        // The kernel forgets it when the user changes.
        if settings.credentials.is_some()
            && (*child).parent != 0
            && let Err(errno) = os::set_parent_death_signal((*child).parent)
        {
            fail(child, SpawnStep::ParentDeathSignal, errno, 0);
        }
        let (extra, extra_target) = ((*child).extra, (*child).extra_target);
        // After the standard ones: its number may be that of one of their sources.
        if extra != -1 && libc::dup2(extra, extra_target) == -1 {
            fail(child, SpawnStep::Stdio, os::errno(), 0);
        }
        write_pid((*child).pid_digits);
        if !(*child).dir.is_null() && libc::chdir((*child).dir) == -1 {
            fail(child, SpawnStep::Dir, os::errno(), 0);
        }
        os::close_on_exec_from(3, (*child).fd_limit);
        if let Err((step, errno, index)) = settings::forbid_new_privileges(settings) {
            fail(child, step, errno, index);
        }
        if extra != -1 && libc::fcntl(extra_target, libc::F_SETFD, 0) == -1 {
            fail(child, SpawnStep::Stdio, os::errno(), 0);
        }
        os::unblock_all_signals();
        // As `execvp` does: a path that is not there does not end the search, one that may not be executed is reported
        // unless a later one works, anything else ends it.
        let (mut errno, mut blamed, mut denied) = (libc::ENOENT, 0, false);
        let mut index = 0;
        loop {
            let path = *(*child).candidates.add(index);
            if path.is_null() {
                break;
            }
            libc::execve(path, (*child).arguments, (*child).environment);
            match os::errno() {
                libc::EACCES => {
                    if !denied {
                        (errno, blamed, denied) = (libc::EACCES, index, true);
                    }
                }
                now @ (libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT) => {
                    if index == 0 {
                        (errno, blamed) = (now, 0);
                    }
                }
                now => fail(child, SpawnStep::Exec, now, index),
            }
            index += 1;
        }
        fail(child, SpawnStep::Exec, errno, blamed)
    }
}

/// Writes the calling process's pid as decimal digits.
///
/// # Safety
/// `place` is null, or has room for [`PID_ROOM`] bytes of which the last stays zero.
unsafe fn write_pid(place: *mut u8) {
    if place.is_null() {
        return;
    }
    // SAFETY: getpid always succeeds, and a pid has at most ten digits.
    unsafe {
        let mut rest = libc::getpid() as u32;
        let mut digits = 1;
        let mut bound = 10_u32;
        while digits < 10 && rest >= bound {
            digits += 1;
            bound = bound.wrapping_mul(10);
        }
        let mut index = digits;
        while index > 0 {
            index -= 1;
            place.add(index).write_volatile(b'0' + (rest % 10) as u8);
            rest /= 10;
        }
    }
}

/// A datagram's size and sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// How many bytes were stored.
    pub(super) size: usize,
    /// Whether there were more.
    pub(super) is_cut: bool,
    /// The sender's pid at the time of sending, where the kernel says it: `SO_PASSCRED` must have been set before.
    pub(super) sender: Option<u32>,
}

/// Receives a datagram without waiting. Descriptors sent along are closed by the kernel, for want of room for them.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // As aligned as a control message must be, and exactly one record of credentials long.
    let mut control = [0_u64; 8];
    // SAFETY: an all-zero msghdr is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut parts;
    message.msg_iovlen = 1;
    let room = os::CREDENTIALS_ROOM;
    if room > 0 {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = room as _;
    }
    // SAFETY: buffer and control outlive the call, and their lengths are right.
    let size = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let size = usize::try_from(size).map_err(|_| io::Error::last_os_error())?;
    let is_cut = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received { size, is_cut, sender: os::sender(&message) })
}

/// Makes the descriptor's number at least 3, so that `dup2` onto 0, 1 and 2 cannot overwrite it.
///
/// A program started with 0, 1 or 2 closed gets those numbers for the next files it opens.
pub(super) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: fcntl on an open descriptor.
    let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: a successful F_DUPFD_CLOEXEC returns a new descriptor that nobody else owns.
    if number == -1 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(number) }) }
}

/// Returns how the process ended, or `None` while it runs, and leaves it to be reaped.
pub(super) fn peek_exit(exit_fd: BorrowedFd<'_>, pid: u32) -> io::Result<Option<ProcessExit>> {
    wait(os::wait_id(exit_fd, pid), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
}

/// Reaps the process if it has ended; `None` while it runs.
pub(super) fn reap(exit_fd: BorrowedFd<'_>, pid: u32) -> io::Result<Option<ProcessExit>> {
    wait(os::wait_id(exit_fd, pid), libc::WEXITED | libc::WNOHANG)
}

/// Reaps a child by its pid if it has ended. The caller must own that pid: nobody else may reap it meanwhile.
pub(super) fn reap_pid(pid: u32) -> io::Result<Option<ProcessExit>> {
    wait((libc::P_PID, pid), libc::WEXITED | libc::WNOHANG)
}

fn wait((kind, id): (libc::idtype_t, libc::id_t), options: c_int) -> io::Result<Option<ProcessExit>> {
    loop {
        // SAFETY: an all-zero siginfo_t is a valid value, and waitid overwrites it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid place for the result.
        if unsafe { libc::waitid(kind, id, &raw mut info, options) } == -1 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: waitid filled in a SIGCHLD record, or left it zero when nothing has ended.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => ProcessExit::Code(status),
            code => ProcessExit::Signal { signal: status, core_dumped: code == libc::CLD_DUMPED },
        }));
    }
}

/// Signals the process group `group`. The caller guarantees that the group's leader has not been reaped.
pub(super) fn signal_group(group: u32, signal: c_int) -> io::Result<()> {
    let group = libc::pid_t::try_from(group).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // Group 0 is our own and -1 is everybody; no child of ours has such a number.
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes numbers only.
    if unsafe { libc::kill(-group, signal) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Registers a descriptor with the runtime, to await that it becomes readable.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub(super) fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: a shared `OwnedFd` can neither be closed nor replaced while the returned value holds it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Registers a poll with the runtime, to await that something of it is ready.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub(super) fn watch_poll(poll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    // SAFETY: a poll owns its descriptor and never replaces it, and the returned value owns the poll.
    unsafe { AsyncFd::register_with_interest(poll, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Blocks every signal in the calling thread, and returns those that were blocked before.
pub(crate) fn block_all_signals() -> SignalSet {
    hold_signals(&SignalSet::all())
}

/// Returns whether the kernel reaps our children by itself because `SIGCHLD` is ignored here.
pub(super) fn children_are_reaped_by_kernel() -> bool {
    // SAFETY: asks for the disposition without changing it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut action) == 0
            && (action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
    }
}

/// A set of signals, for [`hold_signals`] and [`take_signal`].
pub(crate) struct SignalSet(libc::sigset_t);

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalSet").finish_non_exhaustive()
    }
}

impl SignalSet {
    /// Returns the set of all signals.
    fn all() -> Self {
        let mut set = Self::new(&[]);
        // SAFETY: the set is valid.
        unsafe { libc::sigfillset(&raw mut set.0) };
        set
    }

    /// Returns the set of these signals; numbers that are no signals are left out.
    pub(super) fn new(signals: &[c_int]) -> Self {
        // SAFETY: `set` is filled by sigemptyset before it is used.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            Self(set)
        }
    }
}

/// Blocks exactly these signals in the calling thread: they are queued until they are taken, and all others delivered.
/// Returns those that were blocked before.
pub(super) fn hold_signals(signals: &SignalSet) -> SignalSet {
    let mut before = SignalSet::new(&[]);
    // SAFETY: both sets are valid.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const signals.0, &raw mut before.0) };
    before
}

/// Gives every signal that an earlier program had ignored its default meaning back, and blocks none.
///
/// SIGPIPE stays ignored, as the standard library has it.
pub(super) fn reset_inherited_signals() {
    reset_ignored_signals();
    hold_signals(&SignalSet::new(&[]));
}

/// The same without a change of what is blocked.
pub(super) fn reset_ignored_signals() {
    for signal in 1..=if cfg!(target_os = "linux") { 64 } else { 31 } {
        // SAFETY: the disposition is read, and only an ignored one is replaced by the default, which runs no code.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let is_known = libc::sigaction(signal, ptr::null(), &raw mut action) == 0;
            if is_known && signal != libc::SIGPIPE && action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Makes a second process of this one. Returns the child's pid, and `None` in the child.
///
/// # Errors
/// If this process has more than one thread (Linux): the child would have copies of locks that nobody unlocks.
pub(super) fn fork_alone() -> io::Result<Option<u32>> {
    if cfg!(target_os = "linux") && std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process already has several threads"));
    }
    // SAFETY: there is no other thread, so the child has all of our state in a consistent form.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid as u32)),
    }
}

/// Reaps any one child that has ended; `None` if none has. For a process that has no owner of single children.
pub(super) fn reap_any() -> Option<(u32, ProcessExit)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    let exit = if libc::WIFEXITED(status) {
        ProcessExit::Code(libc::WEXITSTATUS(status))
    } else {
        ProcessExit::Signal { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    };
    Some((pid, exit))
}

/// Signals a child that has not been reaped, which is what keeps its pid from meaning another.
pub(super) fn signal_child(pid: u32, signal: c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    if pid <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes numbers only.
    if unsafe { libc::kill(pid, signal) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the GNU C library keep one heap for all threads; elsewhere nothing changes.
pub(super) fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes numbers only. Threads that have a heap of their own already keep it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Has the GNU C library give back what is free in the middle of its heaps; elsewhere nothing changes.
pub(super) fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number only, and locks each heap while it looks at it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back the memory into which programs and libraries are mapped; what is used again is mapped again.
///
/// For a process that mostly waits, and was something larger before.
pub(super) fn release_program_memory() {
    // Elsewhere nobody says what is mapped, so nothing is given back.
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for line in maps.lines() {
        // `START-END PERMISSIONS OFFSET DEVICE INODE PATH`
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(permissions), Some(offset)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let has_file = fields.nth(1).is_some_and(|inode| inode != "0");
        // Code, and the constants at the front of a file, are never written to. What is read-only further behind has
        // been written by the dynamic linker and would be lost.
        let is_pristine =
            permissions == "r-xp" || (permissions == "r--p" && offset.bytes().all(|digit| digit == b'0'));
        let bounds = range.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        if let (true, true, Some((start, end))) = (has_file, is_pristine, bounds) {
            // SAFETY: a private mapping of a file that this process has never written to: whatever is dropped is read
            // from the file again, byte for byte, at the next use.
            unsafe { libc::madvise(ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// Returns the inode of a pidfd, which is one of the process's own until the next boot; `None` before Linux 6.9, where all
/// share one.
pub(super) fn process_inode(process: BorrowedFd<'_>) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // "PIDF"
        const PIDFS: nix::libc::__fsword_t = 0x5049_4446;
        let system = nix::sys::statfs::fstatfs(process).ok()?;
        if system.filesystem_type().0 != PIDFS {
            return None;
        }
        nix::sys::stat::fstat(process).ok().map(|stat| stat.st_ino)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _has_none = process;
        None
    }
}

/// Replaces the program of this process; returns only if the system refuses.
///
/// Of the open descriptors only `kept` reach the new program, under their numbers. They are inheritable for no longer than
/// the call takes, and to be called on the thread that creates the children: it is their parent, and all others end.
pub(super) fn execute(program: &CStr, arguments: &[CString], kept: &[BorrowedFd<'_>]) -> io::Error {
    use std::os::unix::ffi::OsStrExt as _;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok());
    let environment: Vec<CString> = variables.collect();
    let (arguments, environment) = (pointers(arguments), pointers(&environment));
    let flag_all = |flags: c_int| {
        for fd in kept {
            // SAFETY: fcntl on an open descriptor.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) };
        }
    };
    flag_all(0);
    // SAFETY: a string and two lists ended by null pointers, which outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    let error = io::Error::last_os_error();
    flag_all(libc::FD_CLOEXEC);
    error
}

/// Takes a descriptor that the program before this one has left open, by its number, and closes it on the next exchange.
///
/// # Errors
/// If there is none of that number, or it is one of the standard three.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes numbers only.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and whoever left it open has told nobody but us: it was listed for this one use, before anything
    // else was opened.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns the time since some moment of this boot, by the clock of `Instant`; the same in every program.
pub(super) fn monotonic() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; this clock always exists.
    unsafe {
        libc::clock_gettime(if cfg!(target_os = "macos") { 8 } else { libc::CLOCK_MONOTONIC }, &raw mut time)
    };
    std::time::Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32)
}

/// Returns the pid of every process that `/proc` shows, in its order. Made for thousands of them: nothing is kept of an entry.
pub(super) fn process_ids() -> io::Result<Vec<u32>> {
    // SAFETY: the path is a C string.
    let directory = unsafe { libc::opendir(c"/proc".as_ptr()) };
    if directory.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut pids = Vec::new();
    loop {
        // SAFETY: the directory is open, and nobody else has it.
        let entry = unsafe { libc::readdir(directory) };
        if entry.is_null() {
            break;
        }
        // SAFETY: the entry has a name that ends with a zero, until the next one is read. It may be shorter than its type.
        let name = unsafe { std::ffi::CStr::from_ptr((&raw const (*entry).d_name).cast()) };
        pids.extend(name.to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    // SAFETY: it was opened above, and is not used any more.
    unsafe { libc::closedir(directory) };
    Ok(pids)
}

/// Returns how much processor time the threads of a process have used, those that have ended included, to the nanosecond;
/// `None` if there is no such process, or the system has no such clock.
pub(super) fn processor_time_of(pid: u32) -> Option<std::time::Duration> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    // The kernel's name of a process's scheduler clock. `clock_getcpuclockid` makes the same with one more system call.
    let clock = (!pid.cast_signed() << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result, and a clock that does not exist is an error.
    if unsafe { libc::clock_gettime(clock as libc::clockid_t, &raw mut time) } == -1 {
        return None;
    }
    Some(std::time::Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32))
}

/// Ends this process by a signal in its default meaning. Returns if the signal does not end it, as with process 1.
pub(super) fn end_by_signal(signal: c_int) {
    // SAFETY: the default disposition runs no code of ours; raise takes a number.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        hold_signals(&SignalSet::new(&[]));
        libc::raise(signal);
    }
}

#[cfg(target_os = "linux")]
pub(super) use os::extended_attribute;
pub(super) use os::{ChildStack, open_process, set_subreaper, signal_process, spawn, take_signal};

#[cfg(target_os = "linux")]
mod os {
    use std::ffi::c_void;

    use super::*;

    const STACK: usize = 64 << 10;
    const GUARD: usize = 64 << 10;

    /// The stack on which children run between `clone` and `execve`, with an inaccessible end.
    ///
    /// With it go descriptors of low numbers, on which a child finds what it inherits. A child that began with a copy of our
    /// table would copy every descriptor we have, and `execve` would close them one by one, which takes a millisecond with
    /// a thousand siblings. It begins with the table itself, and then copies the part below the numbers it has no use for.
    #[derive(Debug)]
    pub(in super::super) struct ChildStack {
        base: *mut c_void,
        null: OwnedFd,
        low: [OwnedFd; 4],
    }

    impl ChildStack {
        /// Allocates the stack.
        pub(in super::super) fn new() -> io::Result<Self> {
            let open = || above_stdio(std::fs::File::open("/dev/null")?.into());
            let (null, low) = (open()?, [open()?, open()?, open()?, open()?]);
            // SAFETY: a fresh anonymous mapping, of which the lower end is made inaccessible.
            unsafe {
                let base = libc::mmap(
                    ptr::null_mut(),
                    GUARD + STACK,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                    -1,
                    0,
                );
                if base == libc::MAP_FAILED {
                    return Err(io::Error::last_os_error());
                }
                let stack = Self { base, null, low };
                if libc::mprotect(base, GUARD, libc::PROT_NONE) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(stack)
            }
        }

        /// Puts what the child inherits on the low numbers, until [`clear`](Self::clear).
        fn lend(&self, child: &mut ChildArguments) -> io::Result<()> {
            let [low @ .., last] = &self.low;
            for (source, low) in child.stdio.iter_mut().zip(low) {
                *source = replace(low, *source)?;
            }
            if child.extra != -1 {
                child.extra = replace(last, child.extra)?;
            }
            child.unused_from = self.low.iter().map(AsRawFd::as_raw_fd).max().map_or(0, |last| last + 1);
            Ok(())
        }

        /// Closes what was lent, so that the pipes end with the child.
        fn clear(&self) {
            for low in &self.low {
                // The number is taken and stays so; nothing is allocated that could be wanting.
                let _ = replace(low, self.null.as_raw_fd());
            }
        }

        fn top(&mut self) -> *mut c_void {
            self.base.cast::<u8>().wrapping_add(GUARD + STACK).cast()
        }
    }

    impl Drop for ChildStack {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `new`; no child runs on it any more, because `spawn` borrows it until then.
            unsafe { libc::munmap(self.base, GUARD + STACK) };
        }
    }

    /// Makes a descriptor another name of `source`, and returns its number.
    fn replace(fd: &OwnedFd, source: RawFd) -> io::Result<RawFd> {
        // SAFETY: numbers only; the one that is replaced belongs to `fd`.
        match unsafe { libc::dup3(source, fd.as_raw_fd(), libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            number => Ok(number),
        }
    }

    /// Gives the child a descriptor table of its own, with the descriptors below `first` in it.
    pub(super) unsafe fn leave_descriptors(first: RawFd) -> Result<(), c_int> {
        // SAFETY: numbers only; nothing is closed in the table that is left.
        let is_left = unsafe {
            let flags = libc::CLOSE_RANGE_UNSHARE as libc::c_long;
            libc::syscall(libc::SYS_close_range, first as libc::c_long, libc::c_long::from(u32::MAX), flags) == 0
                // Older kernels copy all of it.
                || libc::unshare(libc::CLONE_FILES) == 0
        };
        if is_left { Ok(()) } else { Err(errno()) }
    }

    extern "C" fn child_main(argument: *mut c_void) -> c_int {
        // SAFETY: `spawn` passes a pointer to the arguments and has blocked all signals.
        unsafe { become_program(argument.cast()) }
    }

    /// As `libc::clone` with [`child_main`], but the child is in the control group from its first instruction on.
    ///
    /// Moving it there afterwards would wait for every processor to pass a quiet state, some 10 ms.
    ///
    /// # Safety
    /// As `libc::clone`: `flags` hold CLONE_VM, CLONE_VFORK and CLONE_PIDFD, and everything outlives the call.
    unsafe fn clone_into(
        cgroup: BorrowedFd<'_>,
        stack: &mut ChildStack,
        flags: c_int,
        child: *mut c_void,
        pidfd: *mut c_int,
    ) -> libc::pid_t {
        // The exit signal has a place of its own here, and this flag does not fit the old ones.
        const INTO_CGROUP: u64 = 0x2_0000_0000;
        // SAFETY: an all-zero record asks for nothing.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = INTO_CGROUP | u64::from((flags & !libc::SIGCHLD).cast_unsigned());
        arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
        arguments.pidfd = pidfd.expose_provenance() as u64;
        arguments.stack = stack.base.expose_provenance() as u64;
        arguments.stack_size = (GUARD + STACK) as u64;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        // SAFETY: the record is valid and as large as said; the child runs `child_main(child)` on its own stack and
        // never comes back to this frame, because that does not return.
        let result = unsafe { clone3(&raw const arguments, size_of::<libc::clone_args>(), child) };
        match libc::pid_t::try_from(result) {
            Ok(pid) if pid >= 0 => pid,
            _ => {
                // SAFETY: the address of this thread's errno is always valid.
                unsafe { *libc::__errno_location() = c_int::try_from(-result).unwrap_or(libc::EIO) };
                -1
            }
        }
    }

    /// The system call, after which the child goes on in [`child_main`]. Returns the pid or a negative error number.
    #[cfg(target_arch = "x86_64")]
    unsafe fn clone3(arguments: *const libc::clone_args, size: usize, child: *mut c_void) -> isize {
        let result: isize;
        // SAFETY: the caller vouches for the arguments. The kernel preserves all registers but rax, rcx and r11; the
        // child has the stack of the arguments, aligned as a call wants it.
        unsafe {
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r8",
                "call r9",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone3 as isize => result,
                in("rdi") arguments,
                in("rsi") size,
                in("r8") child,
                in("r9") child_main as extern "C" fn(*mut c_void) -> c_int,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        result
    }

    // Not run on this architecture.
    #[cfg(target_arch = "aarch64")]
    unsafe fn clone3(arguments: *const libc::clone_args, size: usize, child: *mut c_void) -> isize {
        let result: isize;
        // SAFETY: as on x86-64; the kernel preserves all registers but x0.
        unsafe {
            std::arch::asm!(
                "svc #0",
                "cbnz x0, 2f",
                "mov x29, xzr",
                "mov x30, xzr",
                "mov x0, x2",
                "blr x3",
                "brk #1",
                "2:",
                inlateout("x0") arguments => result,
                in("x1") size,
                in("x2") child,
                in("x3") child_main as extern "C" fn(*mut c_void) -> c_int,
                in("x8") libc::SYS_clone3,
                lateout("x30") _,
            );
        }
        result
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    unsafe fn clone3(_arguments: *const libc::clone_args, _size: usize, _child: *mut c_void) -> isize {
        -(libc::ENOSYS as isize)
    }

    /// Returns an extended attribute of a file, at most 64 bytes of it.
    pub(in super::super) fn extended_attribute(path: &CStr, name: &CStr) -> Option<Vec<u8>> {
        let mut value = [0_u8; 64];
        // SAFETY: both strings end with NUL, and the buffer is as large as said.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        Some(value.get(..usize::try_from(length).ok()?)?.to_vec())
    }

    /// Creates a process and returns after it has become the other program.
    ///
    /// To be called from a thread that never ends and has all signals blocked.
    pub(in super::super) fn spawn(
        request: &ExecRequest<'_>,
        stack: &mut ChildStack,
    ) -> Result<Spawned, SpawnFailure> {
        let prepared = Prepared::new(request);
        // SAFETY: getpid always succeeds.
        let parent = if request.parent_death_signal { unsafe { libc::getpid() } } else { 0 };
        let mut child = prepared.arguments(parent);
        if let Err(error) = stack.lend(&mut child) {
            stack.clear();
            return Err(SpawnFailure::new(SpawnStep::Descriptors, &error));
        }
        let child = &raw mut child;
        let mut pidfd: c_int = -1;
        let shared = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
        let flags = shared | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: the stack is ours alone for the length of the call, since CLONE_VFORK holds us until the child has
        // left it; everything `child` points to outlives the call for the same reason.
        let pid = unsafe {
            match request.cgroup {
                None => libc::clone(child_main, stack.top(), flags, child.cast(), &raw mut pidfd),
                Some(cgroup) => clone_into(cgroup, stack, flags, child.cast(), &raw mut pidfd),
            }
        };
        let error = io::Error::last_os_error();
        stack.clear();
        if pid == -1 {
            let step = if request.cgroup.is_some() { SpawnStep::ControlGroup } else { SpawnStep::Clone };
            return Err(SpawnFailure::new(step, &error));
        }
        // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
        let exit_fd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        // SAFETY: it has executed or ended.
        if let Some(failure) = unsafe { failure(child) } {
            // It has called `_exit`, so this does not wait.
            let _ = wait(wait_id(exit_fd.as_fd(), pid as u32), libc::WEXITED);
            return Err(failure);
        }
        Ok(Spawned { pid: pid as u32, exit_fd })
    }

    pub(super) fn errno() -> c_int {
        // SAFETY: the address of this thread's errno is always valid; the child uses that of the suspended spawner.
        unsafe { *libc::__errno_location() }
    }

    pub(super) fn wait_id(exit_fd: BorrowedFd<'_>, _pid: u32) -> (libc::idtype_t, libc::id_t) {
        // An open descriptor's number is never negative.
        (libc::P_PIDFD, exit_fd.as_raw_fd() as libc::id_t)
    }

    /// Straight to the kernel, because libc refuses the two signals it keeps for itself, and an ignored one of those
    /// would be inherited. All zero is SIG_DFL without flags on every architecture.
    pub(super) unsafe fn reset_signal_dispositions() {
        let default = [0_u64; 8];
        let mut signal = 1;
        while signal <= 64 {
            // SAFETY: `default` is at least as large as the kernel's structure. SIGKILL and SIGSTOP fail, rightly.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal as libc::c_long,
                    default.as_ptr(),
                    ptr::null_mut::<u64>(),
                    8_usize,
                );
            }
            signal += 1;
        }
    }

    pub(super) unsafe fn unblock_all_signals() {
        let none = 0_u64;
        // SAFETY: an empty mask of the kernel's size.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK as libc::c_long,
                &raw const none,
                ptr::null_mut::<u64>(),
                8_usize,
            );
        }
    }

    pub(super) unsafe fn set_parent_death_signal(parent: libc::pid_t) -> Result<(), c_int> {
        // SAFETY: numbers only.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) == -1 {
                return Err(errno());
            }
            // The parent may have died before the call, and then nobody sends the signal.
            if libc::getppid() != parent {
                return Err(libc::ESRCH);
            }
        }
        Ok(())
    }

    pub(super) unsafe fn close_on_exec_from(first: RawFd, limit: RawFd) {
        // SAFETY: numbers only; the child's descriptor table is its own.
        unsafe {
            let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_long;
            if libc::syscall(
                libc::SYS_close_range,
                first as libc::c_long,
                libc::c_long::from(u32::MAX),
                flags,
            ) == 0
            {
                return;
            }
            let mut fd = first;
            while fd < limit {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                fd += 1;
            }
        }
    }

    /// Opens a process by pid, so that it can be signaled and awaited without the pid being reused underneath.
    pub(in super::super) fn open_process(pid: u32) -> io::Result<OwnedFd> {
        // SAFETY: numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor (close-on-exec by definition) that nobody else owns; it fits, being a descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    /// Signals an opened process. `ESRCH` if it has been reaped.
    pub(in super::super) fn signal_process(
        process: BorrowedFd<'_>,
        _pid: u32,
        signal: c_int,
    ) -> io::Result<()> {
        // SAFETY: numbers, and a null pointer for "as kill does".
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                signal,
                ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes one held signal, waiting for it at most this long; `None` if none came. `true` says that the kernel sent it,
    /// as it does for a key of the terminal, which everybody in the foreground group hears.
    pub(in super::super) fn take_signal(
        signals: &SignalSet,
        timeout: Option<std::time::Duration>,
    ) -> Option<(c_int, bool)> {
        let limit = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        // SAFETY: an all-zero siginfo_t is a valid value; set and limit outlive the call, and no limit is a null pointer.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
            let signal = libc::sigtimedwait(&raw const signals.0, &raw mut info, limit);
            (signal > 0).then_some((signal, info.si_code == libc::SI_KERNEL))
        }
    }

    /// The room for one record of credentials and nothing else.
    // SAFETY: arithmetic on a constant.
    pub(super) const CREDENTIALS_ROOM: usize =
        unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as libc::c_uint) } as usize;

    /// Returns the pid in the credentials of a received message.
    pub(super) fn sender(message: &libc::msghdr) -> Option<u32> {
        // SAFETY: the kernel has filled in the control part, and the macros stay within its length.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_CREDENTIALS {
                    let credentials = libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned();
                    // 0 stands for a process of another pid namespace.
                    return u32::try_from(credentials.pid).ok().filter(|pid| *pid > 0);
                }
                header = libc::CMSG_NXTHDR(message, header);
            }
        }
        None
    }

    /// Makes orphaned descendants ours instead of init's.
    pub(in super::super) fn set_subreaper() -> io::Result<()> {
        // SAFETY: numbers only.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong, 0, 0, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

// Not run on macOS, and not compiled there either: written from its manual pages and headers.
#[cfg(target_os = "macos")]
mod os {
    use std::ffi::c_void;
    use std::io::Read;

    use super::*;

    /// Memory that parent and child share across `fork`, so that a failure is reported as on Linux.
    #[derive(Debug)]
    pub(in super::super) struct ChildStack {
        shared: *mut ChildArguments,
    }

    impl ChildStack {
        /// Allocates the memory.
        pub(in super::super) fn new() -> io::Result<Self> {
            // SAFETY: a fresh anonymous mapping.
            let base = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    size_of::<ChildArguments>(),
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_ANON,
                    -1,
                    0,
                )
            };
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { shared: base.cast() })
        }
    }

    impl Drop for ChildStack {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `new`.
            unsafe { libc::munmap(self.shared.cast(), size_of::<ChildArguments>()) };
        }
    }

    /// Creates a process by `fork` and returns after it has become the other program.
    pub(in super::super) fn spawn(
        request: &ExecRequest<'_>,
        stack: &mut ChildStack,
    ) -> Result<Spawned, SpawnFailure> {
        let prepared = Prepared::new(request);
        // There is no parent-death signal: the guard and the sweep stand in for it.
        let arguments = prepared.arguments(0);
        // SAFETY: the mapping is large enough, aligned to a page, and no other child uses it.
        unsafe { stack.shared.write(arguments) };
        // Its end closes when the child executes or ends.
        let (mut running, child_running) =
            io::pipe().map_err(|error| SpawnFailure::new(SpawnStep::Descriptors, &error))?;
        // SAFETY: the child calls async-signal-safe functions only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: this is the child, all signals are blocked, and its arguments are in the shared mapping.
            unsafe { become_program(stack.shared) }
        }
        if pid == -1 {
            return Err(SpawnFailure::new(SpawnStep::Clone, &io::Error::last_os_error()));
        }
        drop(child_running);
        let _ = running.read(&mut [0]);
        // SAFETY: the child has executed or ended, so nobody writes there any more.
        if let Some(failure) = unsafe { failure(stack.shared) } {
            let _ = wait((libc::P_PID, pid as libc::id_t), libc::WEXITED);
            return Err(failure);
        }
        match open_process(pid as u32) {
            Ok(exit_fd) => Ok(Spawned { pid: pid as u32, exit_fd }),
            Err(error) => {
                // SAFETY: our own unreaped child.
                unsafe { libc::kill(-pid, libc::SIGKILL) };
                let _ = wait((libc::P_PID, pid as libc::id_t), libc::WEXITED);
                Err(SpawnFailure::new(SpawnStep::Descriptors, &error))
            }
        }
    }

    /// Datagrams carry no credentials here.
    pub(super) const CREDENTIALS_ROOM: usize = 0;

    pub(super) fn sender(_message: &libc::msghdr) -> Option<u32> {
        None
    }

    pub(super) fn errno() -> c_int {
        // SAFETY: the address of this thread's errno is always valid.
        unsafe { *libc::__error() }
    }

    pub(super) fn wait_id(_exit_fd: BorrowedFd<'_>, pid: u32) -> (libc::idtype_t, libc::id_t) {
        (libc::P_PID, pid as libc::id_t)
    }

    pub(super) unsafe fn reset_signal_dispositions() {
        let mut signal = 1;
        while signal < 32 {
            // SAFETY: SIG_DFL is a valid disposition. SIGKILL and SIGSTOP fail, rightly.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            signal += 1;
        }
    }

    pub(super) unsafe fn unblock_all_signals() {
        // SAFETY: `none` is filled by sigemptyset before it is used.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        }
    }

    pub(super) unsafe fn set_parent_death_signal(_parent: libc::pid_t) -> Result<(), c_int> {
        Ok(())
    }

    /// The child of a fork has its own.
    pub(super) unsafe fn leave_descriptors(_first: RawFd) -> Result<(), c_int> {
        Ok(())
    }

    pub(super) unsafe fn close_on_exec_from(first: RawFd, limit: RawFd) {
        let mut fd = first;
        while fd < limit {
            // SAFETY: numbers only; the child's descriptor table is its own.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            fd += 1;
        }
    }

    /// Returns a kqueue that becomes readable when the process ends. It does not pin the pid.
    pub(in super::super) fn open_process(pid: u32) -> io::Result<OwnedFd> {
        // SAFETY: takes nothing, returns a new descriptor.
        let number = unsafe { libc::kqueue() };
        if number == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let queue = unsafe { OwnedFd::from_raw_fd(number) };
        // SAFETY: fcntl on an open descriptor.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        let change = |filter, flags, fflags| libc::kevent {
            ident: pid as libc::uintptr_t,
            filter,
            flags,
            fflags,
            data: 0,
            udata: ptr::null_mut(),
        };
        let apply = |changes: &[libc::kevent]| {
            // SAFETY: the list is valid for its length, and no events are asked for.
            let result = unsafe {
                libc::kevent(
                    number,
                    changes.as_ptr(),
                    changes.len() as c_int,
                    ptr::null_mut(),
                    0,
                    ptr::null(),
                )
            };
            if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        match apply(&[change(libc::EVFILT_PROC, libc::EV_ADD, libc::NOTE_EXIT)]) {
            // It has ended already, and may be a zombie: readable at once.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => apply(&[
                change(libc::EVFILT_USER, libc::EV_ADD, 0),
                change(libc::EVFILT_USER, 0, libc::NOTE_TRIGGER),
            ])?,
            result => result?,
        }
        Ok(queue)
    }

    /// Signals a process by its pid; the caller has just checked who that is.
    pub(in super::super) fn signal_process(
        _process: BorrowedFd<'_>,
        pid: u32,
        signal: c_int,
    ) -> io::Result<()> {
        // SAFETY: numbers only.
        if unsafe { libc::kill(pid as libc::pid_t, signal) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Takes one held signal, waiting for it at most about this long; `None` if none came. Who sent it is not told here.
    pub(in super::super) fn take_signal(
        signals: &SignalSet,
        timeout: Option<std::time::Duration>,
    ) -> Option<(c_int, bool)> {
        let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
        loop {
            // SAFETY: both sets are valid; sigwait is called only when a signal is there, or is to be waited for.
            unsafe {
                let mut pending: libc::sigset_t = std::mem::zeroed();
                libc::sigpending(&raw mut pending);
                let is_there = (1..32).any(|signal| {
                    libc::sigismember(&raw const pending, signal) == 1
                        && libc::sigismember(&raw const signals.0, signal) == 1
                });
                if is_there || deadline.is_none() {
                    let mut signal = 0;
                    let result = libc::sigwait(&raw const signals.0, &raw mut signal);
                    return (result == 0).then_some((signal, false));
                }
            }
            if deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
                return None;
            }
            // SAFETY: numbers only. There is no wait with a limit here.
            unsafe { libc::usleep(10_000) };
        }
    }

    /// Does nothing: there is no such role here, so orphans go to launchd and are found by session and marker.
    pub(in super::super) fn set_subreaper() -> io::Result<()> {
        Ok(())
    }

    unsafe extern "C" {
        fn launch_activate_socket(name: *const c_char, sockets: *mut *mut c_int, count: *mut usize) -> c_int;
    }

    /// Takes the sockets that launchd has bound for this process under a name. Not run yet.
    pub(in super::super) fn launchd_sockets(name: &CStr) -> io::Result<Vec<OwnedFd>> {
        let (mut list, mut count) = (ptr::null_mut(), 0_usize);
        // SAFETY: a string, and valid places for the results.
        let error = unsafe { launch_activate_socket(name.as_ptr(), &raw mut list, &raw mut count) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: after a success the list has that many numbers of descriptors that are ours.
        let numbers: Vec<c_int> = (0..count).map(|index| unsafe { *list.add(index) }).collect();
        // SAFETY: the list was allocated for us, to be freed by us, and is not used any more.
        unsafe { libc::free(list.cast()) };
        numbers.into_iter().map(super::inherited).collect()
    }

    /// Returns the pid of every process.
    pub(in super::super) fn process_ids() -> io::Result<Vec<u32>> {
        // SAFETY: a null buffer asks for the number of processes.
        let count = unsafe { libc::proc_listallpids(ptr::null_mut(), 0) };
        // Room for those that start meanwhile.
        let mut pids = vec![0_u32; usize::try_from(count).unwrap_or(0) + 64];
        let size = c_int::try_from(pids.len() * 4).unwrap_or(c_int::MAX);
        // SAFETY: the buffer is valid for `size` bytes.
        let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), size) };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        pids.truncate(count);
        Ok(pids)
    }

    /// Returns what the kernel says of a process, and its session.
    pub(in super::super) fn process_info(pid: u32) -> Option<(libc::proc_bsdinfo, u32)> {
        // SAFETY: an all-zero record is valid, and the call overwrites at most its size.
        unsafe {
            let mut info: libc::proc_bsdinfo = std::mem::zeroed();
            let size = size_of::<libc::proc_bsdinfo>() as c_int;
            let place = (&raw mut info).cast::<c_void>();
            if libc::proc_pidinfo(pid as c_int, libc::PROC_PIDTBSDINFO, 0, place, size) != size {
                return None;
            }
            let session = u32::try_from(libc::getsid(pid as libc::pid_t)).unwrap_or(0);
            Some((info, session))
        }
    }

    /// Returns the memory with which the process started: argument count, path, arguments, environment.
    pub(in super::super) fn process_arguments(pid: u32) -> Option<Vec<u8>> {
        let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid as c_int];
        // As large as the system lets arguments and environment be.
        let mut bytes = vec![0; 1 << 20];
        let mut size = bytes.len();
        // SAFETY: name and buffer are valid for their sizes.
        let result = unsafe {
            libc::sysctl(name.as_mut_ptr(), 3, bytes.as_mut_ptr().cast(), &raw mut size, ptr::null_mut(), 0)
        };
        bytes.truncate(size);
        (result == 0).then_some(bytes)
    }

    /// Returns what tells this boot from every other.
    pub(in super::super) fn boot_id() -> io::Result<String> {
        let mut bytes = [0_u8; 64];
        let mut size = bytes.len();
        // SAFETY: name and buffer are valid for their sizes.
        let result = unsafe {
            libc::sysctlbyname(
                c"kern.bootsessionuuid".as_ptr(),
                bytes.as_mut_ptr().cast(),
                &raw mut size,
                ptr::null_mut(),
                0,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(target_os = "macos")]
pub(super) use os::{boot_id, process_arguments, process_ids, process_info};
