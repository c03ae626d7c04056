//! The limits of this process itself: room for many descriptors, no core file, and the original values for the children.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::resource::{Resource as Kind, getrlimit, rlim_t, setrlimit};

use super::{Resource, ResourceLimit};

/// What the limits were before [`prepare_own_limits`] changed them.
static ORIGINAL: OnceLock<Vec<ResourceLimit>> = OnceLock::new();

/// How many descriptors are not given to new processes, so that whoever is in control still has some: for connections,
/// for looks at processes, for files that are read on request.
const RESERVED: u64 = 16;

/// Returns whether a descriptor that was just opened is one of the last this process may have.
///
/// The system gives the lowest free number, so a number near the limit says how many are left. Nothing that can wait is
/// to be opened then: these are kept for control.
pub fn is_reserved(descriptor: BorrowedFd<'_>) -> bool {
    let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(0);
    getrlimit(Kind::RLIMIT_NOFILE).is_ok_and(|(soft, _)| number >= soft.saturating_sub(RESERVED))
}

/// A limit of this process could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("the limit `{}` of this process cannot be changed", resource.as_str())]
#[non_exhaustive]
pub struct OwnLimitsError {
    /// Which.
    pub resource: Resource,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// Raises this process's soft limit of open files to the hard one, and forbids it to write core files, which would
/// contain the secrets of every child.
///
/// Each process that a host spawns from then on gets the values from before. It holds for the whole process, so a program
/// that embeds a host decides for itself whether to call it. Calling it again does nothing.
///
/// # Errors
/// If the system refuses; what could be changed is.
pub fn prepare_own_limits() -> Result<(), OwnLimitsError> {
    if ORIGINAL.get().is_some() {
        return Ok(());
    }
    let mut original = Vec::new();
    let mut result = Ok(());
    for (resource, kind) in [(Resource::Nofile, Kind::RLIMIT_NOFILE), (Resource::Core, Kind::RLIMIT_CORE)] {
        match change(resource, kind) {
            Ok(before) => original.push(before),
            Err(error) => result = Err(OwnLimitsError { resource, source: error.into() }),
        }
    }
    // A second caller at the same moment may have been faster; its values are the original ones.
    let _ = ORIGINAL.set(original);
    result
}

fn change(resource: Resource, kind: Kind) -> Result<ResourceLimit, Errno> {
    let (soft, hard) = getrlimit(kind)?;
    let wanted: rlim_t = match resource {
        Resource::Core => 0,
        // There the hard limit is "unlimited", and the system refuses more than this.
        _ if cfg!(target_os = "macos") => hard.min(10_240),
        _ => hard,
    };
    if wanted != soft {
        // The hard limit of core files stays, so that the children can have their own again.
        setrlimit(kind, wanted, hard)?;
    }
    Ok(ResourceLimit { resource, soft, hard })
}

/// Goes on with the original limits that an earlier program of this process found.
pub(in super::super) fn set_original_limits(limits: Vec<ResourceLimit>) {
    // They are set once: whoever was faster knows no better.
    let _ = ORIGINAL.set(limits);
}

/// Returns the limits that children get back.
pub(in super::super) fn original_limits() -> &'static [ResourceLimit] {
    ORIGINAL.get().map_or(&[], Vec::as_slice)
}
