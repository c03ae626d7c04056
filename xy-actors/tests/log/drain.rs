//! The end of a pipe never decides about the end of a process.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xy_actors::log::{Cursor, DRAIN_GRACE, LogItem, LogSettings};

use crate::{DEADLINE, ample, attach, in_memory, number, soon, text, until, write_numbers};

#[tokio::test]
async fn a_pipe_that_somebody_else_holds_is_read_for_the_grace_and_closed() {
    let log = in_memory(LogSettings::default());
    let (attachment, out, err) = attach(&log, 1);
    let mut holder = out.try_clone().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "echo hello; printf rest >&2"])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());

    let start = Instant::now();
    let drained = soon(attachment.drain(DRAIN_GRACE)).await;
    let took = start.elapsed();
    assert!(drained.held && !drained.stalled);
    assert!(drained.holders.is_empty(), "this process holds it");
    assert!(took >= DRAIN_GRACE && took < DEADLINE / 2, "{took:?}");
    let mut lines: Vec<_> = log.tail(9).iter().map(|line| text(line).to_owned()).collect();
    lines.sort();
    assert_eq!(lines, ["hello", "rest"]);
    assert_eq!(holder.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn the_marker_of_an_exit_is_added_by_itself_though_it_wakes_nobody() {
    let log = in_memory(LogSettings::default());
    for incarnation in 1..=20 {
        let (attachment, out, err) = attach(&log, incarnation);
        drop((out, err));
        assert!(!soon(attachment.drain(DRAIN_GRACE)).await.held);
        log.mark_exit(incarnation, 7, "exit code 0");
        // Nothing else happens that the log thread could hear of.
        until("the marker is there", || log.health().lines == incarnation).await;
    }
}

/// Only Linux says who holds a pipe.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_grandchild_that_keeps_the_pipe_is_named() {
    let log = in_memory(LogSettings::default());
    let (attachment, out, err) = attach(&log, 1);
    let mut child = Command::new("sh")
        .args(["-c", "sleep 600 & echo $!"])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let drained = soon(attachment.drain(Duration::from_millis(1))).await;
    let grandchild: i32 = text(&log.tail(1)[0]).parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(grandchild), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert!(drained.held);
    let holders: Vec<_> =
        drained.holders.iter().map(|holder| (holder.pid, holder.command.as_str())).collect();
    assert_eq!(holders, [(grandchild.unsigned_abs(), "sleep")]);
}

#[tokio::test]
async fn pipes_that_ended_do_not_wait_for_the_grace() {
    let log = in_memory(ample());
    let (attachment, out, err) = attach(&log, 1);
    drop(err);
    let writer = write_numbers(out, 0..200_000);
    let drained = soon(attachment.drain(Duration::MAX)).await;
    writer.join().unwrap();
    assert!(!drained.held);
    assert!(log.tail(usize::MAX).iter().map(number).eq(0..200_000));
}

#[tokio::test]
async fn no_grace_at_all_still_reads_what_is_there() {
    for round in 0..50 {
        let log = in_memory(ample());
        let (attachment, mut out, mut err) = attach(&log, 1);
        out.write_all(&b"line\n".repeat(10_000)).unwrap();
        err.write_all(b"half").unwrap();
        assert!(soon(attachment.drain(Duration::ZERO)).await.held);
        assert_eq!(log.health().lines, 10_001, "round {round}");
    }
}

/// Only Linux has pipes that hold more than the log thread reads in one turn.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_pipe_is_emptied_although_the_deadline_has_passed() {
    use nix::fcntl::{FcntlArg, fcntl};

    let log = in_memory(ample());
    let (stdout, mut out) = std::io::pipe().unwrap();
    let (stderr, err) = std::io::pipe().unwrap();
    fcntl(&out, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
    out.write_all(&[&[b'x'; 999][..], b"\n"].concat().repeat(1_000)).unwrap();
    let attachment = log.attach(1, stdout.into(), stderr.into()).unwrap();
    assert!(soon(attachment.drain(Duration::ZERO)).await.held);
    assert_eq!(log.health().lines, 1_000);
    drop((out, err));
}

#[tokio::test]
async fn a_holder_that_never_stops_writing_does_not_prolong_the_drain() {
    let log = in_memory(LogSettings::default());
    let (attachment, mut out, _err) = attach(&log, 1);
    let flood = std::thread::spawn(move || {
        let chunk = [&[b'x'; 999][..], b"\n"].concat().repeat(60);
        while out.write_all(&chunk).is_ok() {}
    });
    let mut follower = log.follow(Cursor::Now);
    let items = soon(follower.next()).await.unwrap();
    assert!(matches!(items[0], LogItem::Line(_) | LogItem::Gap { .. }));
    let drained = soon(attachment.drain(Duration::from_millis(50))).await;
    assert!(drained.held && !drained.stalled);
    flood.join().unwrap();
}

#[tokio::test]
async fn a_drain_goes_on_when_its_caller_gives_up() {
    let log = in_memory(LogSettings::default());
    let (attachment, mut out, _err) = attach(&log, 1);
    tokio::select! {
        biased;
        drained = attachment.drain(Duration::from_millis(1)) => panic!("{drained:?}"),
        () = std::future::ready(()) => {}
    }
    until("the pipe is closed", || out.write(b"x").is_err_and(|error| error.kind() == ErrorKind::BrokenPipe))
        .await;
}
