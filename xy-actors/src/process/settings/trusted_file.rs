//! Reads a small file that decides what runs here, or as whom it speaks: in the right hands, regular, and bounded.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::trust::{self, Distrusted};

/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Why such a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// What the system said.
    Io(io::Error),
    /// What it is instead of a small file.
    NotText(&'static str),
    /// Whose hands it is in.
    Distrusted(Distrusted),
}

/// Reads a file in a directory that may be a shared one with the sticky bit. Blocking.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Metadata), Unread> {
    let real = path.canonicalize().map_err(Unread::Io)?;
    // Not to be led elsewhere in between, nor to wait for somebody who writes into a FIFO.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&real).map_err(Unread::Io)?;
    let metadata = file.metadata().map_err(Unread::Io)?;
    if !metadata.is_file() {
        return Err(Unread::NotText("is not a regular file"));
    }
    for place in [real.as_path(), path] {
        if let Some(directory) = place.parent() {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            trust::examine_directory(directory, true).map_err(Unread::Distrusted)?;
        }
    }
    trust::examine(&metadata, &real).map_err(Unread::Distrusted)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Unread::Io)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unread::NotText("is larger than 1 MiB"));
    }
    Ok((bytes, metadata))
}
