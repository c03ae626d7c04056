//! Output that comes faster than it is read at leisure: pipes are enlarged, and their events are not wanted for a while.

use std::io::{self, Write as _};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::{ample, attach, in_memory, until};

#[tokio::test]
async fn after_each_flood_a_single_line_is_still_read() {
    let log = in_memory(ample());
    let (_attachment, mut out, _err) = attach(&log, 1);
    let mut written = 0;
    for _ in 0..20 {
        for _ in 0..20_000 {
            out.write_all(b"0123456789\n").unwrap();
        }
        written += 20_000;
        until("the flood is read", || log.health().lines == written).await;
        out.write_all(b"one\n").unwrap();
        written += 1;
        until("the line after it is read", || log.health().lines == written).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_pipe_that_short_lines_have_filled_is_made_larger() {
    let log = in_memory(ample());
    let ((stdout, mut out), (stderr, _err)) = (io::pipe().unwrap(), io::pipe().unwrap());
    fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut lines = 0;
    // Lines that do not fill a page leave gaps, so that a full pipe holds less than it could.
    while out.write_all(&[b"x".repeat(2_100), b"\n".to_vec()].concat()).is_ok() {
        lines += 1;
    }
    let before = fcntl(&out, FcntlArg::F_GETPIPE_SZ).unwrap();
    let _attachment = log.attach(1, stdout.into(), stderr.into()).unwrap();
    until("everything is read", || log.health().lines == lines).await;
    until("it is larger", || fcntl(&out, FcntlArg::F_GETPIPE_SZ).unwrap() > before).await;
}
