//! What a child changes about itself before it becomes another program: limits, priority, user, mask.
//!
//! All of it is plain data made beforehand, and the functions are async-signal-safe. The ids are changed by bare system
//! calls: those of the C library change every thread of the process, and until `execve` the threads it knows are our
//! parent's.

use std::ffi::c_int;

use super::SpawnStep;

/// What a child changes about itself.
///
/// The child reads it where it is, so it must outlive the spawn.
#[derive(Debug, Default)]
pub(in super::super) struct ChildSettings {
    /// The kernel's number of a resource, its soft and its hard limit.
    pub(in super::super) limits: Vec<(c_int, libc::rlimit)>,
    /// The niceness.
    pub(in super::super) nice: Option<c_int>,
    /// How readily the kernel ends it (Linux).
    pub(in super::super) oom_score: Option<OomScore>,
    /// Who it becomes.
    pub(in super::super) credentials: Option<Credentials>,
    /// The permissions that new files do not get.
    pub(in super::super) umask: Option<libc::mode_t>,
    /// Whether setuid programs give it nothing (Linux).
    pub(in super::super) no_new_privs: bool,
}

/// What is written to `oom_score_adj`.
#[derive(Debug)]
pub(in super::super) struct OomScore {
    /// The number in digits.
    pub(in super::super) text: String,
    /// Whether the child must not start without it.
    pub(in super::super) is_required: bool,
}

/// A user, a group and the supplementary groups.
#[derive(Debug)]
pub(in super::super) struct Credentials {
    pub(in super::super) uid: libc::uid_t,
    pub(in super::super) gid: libc::gid_t,
    pub(in super::super) groups: Vec<libc::gid_t>,
}

/// Which step of a change of user failed, as the failure's index.
pub(in super::super) const SET_GROUPS: usize = 0;
pub(in super::super) const SET_GID: usize = 1;
pub(in super::super) const SET_UID: usize = 2;
/// The change succeeded and could be undone.
pub(in super::super) const REGAINABLE: usize = 3;

/// A step that failed, its error number, and which of several things it was about.
pub(super) type Failed = (SpawnStep, c_int, usize);

/// Sets what may take the privileges that a change of user gives up.
///
/// # Safety
/// Only in the child.
pub(super) unsafe fn constrain(settings: &ChildSettings) -> Result<(), Failed> {
    for (index, (resource, limit)) in settings.limits.iter().enumerate() {
        // SAFETY: `limit` is valid; a number that is no resource fails.
        if unsafe { libc::setrlimit(*resource as _, limit) } == -1 {
            return Err((SpawnStep::Limit, super::os::errno(), index));
        }
    }
    if let Some(nice) = settings.nice {
        // SAFETY: numbers only; 0 is the child itself.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == -1 {
            return Err((SpawnStep::Nice, super::os::errno(), 0));
        }
    }
    #[cfg(target_os = "linux")]
    if let Some(score) = &settings.oom_score {
        // SAFETY: in the child, as the caller vouches.
        let written = unsafe { write_oom_score(&score.text) };
        if let (Err(errno), true) = (written, score.is_required) {
            return Err((SpawnStep::OomScore, errno, 0));
        }
    }
    // There is no such score elsewhere.
    #[cfg(not(target_os = "linux"))]
    let _ = settings.oom_score.as_ref().map(|score| score.is_required);
    Ok(())
}

/// A child that shares our memory until `execve` changes its own score only: the kernel makes that exception for vfork.
#[cfg(target_os = "linux")]
unsafe fn write_oom_score(text: &str) -> Result<(), c_int> {
    // SAFETY: a path that ends with a NUL, and a buffer valid for its length.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd == -1 {
            return Err(super::os::errno());
        }
        let result = match libc::write(fd, text.as_ptr().cast(), text.len()) {
            -1 => Err(super::os::errno()),
            _ => Ok(()),
        };
        libc::close(fd);
        result
    }
}

/// Becomes the other user for good, and sets the mask. Forgets the parent-death signal.
///
/// Until `execve` the memory is still our parent's, and belongs to two users. With the change the kernel marks it as not
/// dumpable, so that the other user can neither trace nor read it; this mark stays on our parent, which is root's anyway.
///
/// # Safety
/// Only in the child.
pub(super) unsafe fn change_user(settings: &ChildSettings) -> Result<(), Failed> {
    if let Some(credentials) = &settings.credentials {
        // SAFETY: in the child, as the caller vouches.
        unsafe { become_user(credentials) }
            .map_err(|(errno, index)| (SpawnStep::Credentials, errno, index))?;
    }
    if let Some(umask) = settings.umask {
        // SAFETY: a number; cannot fail.
        unsafe { libc::umask(umask) };
    }
    Ok(())
}

#[cfg(target_os = "linux")]
unsafe fn become_user(credentials: &Credentials) -> Result<(), (c_int, usize)> {
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    use libc::{
        SYS_setgroups as SET_GROUPS_CALL, SYS_setresgid as SET_GID_CALL, SYS_setresuid as SET_UID_CALL,
    };
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    use libc::{
        SYS_setgroups32 as SET_GROUPS_CALL, SYS_setresgid32 as SET_GID_CALL, SYS_setresuid32 as SET_UID_CALL,
    };
    /// "Leave it as it is".
    const KEEP: u32 = u32::MAX;
    let Credentials { uid, gid, groups } = credentials;
    let (uid, gid) = (*uid, *gid);
    // SAFETY: numbers, and a list valid for its length.
    unsafe {
        if libc::syscall(SET_GROUPS_CALL, groups.len(), groups.as_ptr()) == -1 {
            return Err((super::os::errno(), SET_GROUPS));
        }
        if libc::syscall(SET_GID_CALL, gid, gid, gid) == -1 {
            return Err((super::os::errno(), SET_GID));
        }
        if libc::syscall(SET_UID_CALL, uid, uid, uid) == -1 {
            return Err((super::os::errno(), SET_UID));
        }
        // Some security modules and capability settings let a process keep what it seems to have given up.
        if uid != 0
            && (libc::syscall(SET_UID_CALL, KEEP, 0, KEEP) == 0
                || (gid != 0 && libc::syscall(SET_GID_CALL, KEEP, 0, KEEP) == 0))
        {
            return Err((libc::EPERM, REGAINABLE));
        }
    }
    Ok(())
}

#[cfg(target_os = "macos")]
unsafe fn become_user(credentials: &Credentials) -> Result<(), (c_int, usize)> {
    let Credentials { uid, gid, groups } = credentials;
    // SAFETY: numbers, and a list valid for its length.
    unsafe {
        if libc::setgroups(groups.len() as c_int, groups.as_ptr()) == -1 {
            return Err((super::os::errno(), SET_GROUPS));
        }
        if libc::setgid(*gid) == -1 {
            return Err((super::os::errno(), SET_GID));
        }
        if libc::setuid(*uid) == -1 {
            return Err((super::os::errno(), SET_UID));
        }
        if *uid != 0 && libc::setuid(0) == 0 {
            return Err((libc::EPERM, REGAINABLE));
        }
    }
    Ok(())
}

/// Gives up what setuid programs would give. To be called last, since nothing later needs it.
///
/// # Safety
/// Only in the child.
#[cfg(target_os = "linux")]
pub(super) unsafe fn forbid_new_privileges(settings: &ChildSettings) -> Result<(), Failed> {
    if settings.no_new_privs {
        // SAFETY: numbers only.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0) } == -1 {
            return Err((SpawnStep::NoNewPrivs, super::os::errno(), 0));
        }
    }
    Ok(())
}

/// There is no such promise here.
#[cfg(target_os = "macos")]
pub(super) unsafe fn forbid_new_privileges(settings: &ChildSettings) -> Result<(), Failed> {
    let _ = settings.no_new_privs;
    Ok(())
}
