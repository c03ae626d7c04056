//! Opens the file that a child reads as its standard input.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::SpawnError;
use crate::process::sys;

/// Opens the file. A FIFO is opened without waiting for somebody who writes into it.
pub(super) fn open(path: &Path) -> Result<OwnedFd, SpawnError> {
    let failed = |error| SpawnError::input(path.to_owned(), error);
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    // The child reads as if it had opened the file itself.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| failed(errno.into()))?;
    sys::above_stdio(file.into()).map_err(failed)
}
