//! The end of a pipe never decides about the end of a process.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xy_actors::log::{Cursor, DRAIN_GRACE, Drained, LogHub, LogItem, LogSettings, Stream};

use crate::{
    DEADLINE, ample, attach, in_memory, number, read_files, read_to_end, soon, text, until, write_numbers,
};

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
        read_to_end(attachment).await;
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

/// Only Linux has pipes whose writer can make them as large as it likes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_pipe_of_any_size_that_has_ended_is_read_to_its_end_and_held_by_nobody() {
    use nix::fcntl::{FcntlArg, fcntl};

    for size in [64 << 10, 1 << 20, 4 << 20] {
        let hub = LogHub::new(None);
        let log = hub.open("web", ample()).unwrap();
        let (stdout, mut out) = std::io::pipe().unwrap();
        let (stderr, err) = std::io::pipe().unwrap();
        if fcntl(&out, FcntlArg::F_SETPIPE_SZ(size)).is_err() {
            println!("skipped: a pipe of {size} bytes takes a privilege");
            continue;
        }
        let lines = size as u64 / 1_024;
        for number in 0..lines {
            writeln!(out, "{number:01023}").unwrap();
        }
        drop((out, err));
        // The thread hears of all of it at once, and has not had time for this pipe when its time is over.
        let still = soon(hub.hand_over()).await.unwrap();
        let others: Vec<_> = (0..40)
            .map(|other| attach(&hub.open(&format!("other-{other}"), LogSettings::default()).unwrap(), 1))
            .collect();
        let attachment = log.attach(1, stdout.into(), stderr.into()).unwrap();
        let (drained, ()) = tokio::join!(soon(attachment.drain(Duration::ZERO)), async { drop(still) });
        assert_eq!(drained, Drained::default());
        assert!(log.tail(usize::MAX).iter().map(number).eq(0..lines), "{size}");
        drop(others);
    }
}

#[tokio::test]
async fn after_a_drain_that_stalled_the_marker_of_the_exit_still_stands_behind_all_that_was_written() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", ample()).unwrap();
    let (attachment, mut out, mut err) = attach(&log, 1);
    let mut grandchild = err.try_clone().unwrap();
    let still = soon(hub.hand_over()).await.unwrap();
    let lines: String = (0..9_000).map(|number| format!("{number}\n")).collect();
    out.write_all(lines.as_bytes()).unwrap();
    err.write_all(b"half a line").unwrap();
    drop((out, err));
    let drained = soon(attachment.drain(Duration::ZERO)).await;
    assert!(drained.stalled && !drained.held);
    // All of it waits for the thread that stands still.
    log.mark_exit(1, 7, "exit code 0");
    log.mark_start(2, 8);
    assert_eq!(log.health().lines, 0);
    drop(still);
    until("all of it is there", || log.health().lines == 9_003).await;
    until("the pipe is closed", || grandchild.write(b"late").is_err()).await;
    soon(hub.flush()).await;
    for lines in [log.tail(usize::MAX), read_files(root.path(), "web")] {
        let (output, end) = lines.split_at(9_001);
        let of = |stream| output.iter().filter(move |line| line.stream == stream);
        assert!(of(Stream::Out).map(number).eq(0..9_000));
        assert!(of(Stream::Err).map(|line| (text(line), line.partial)).eq([("half a line", true)]));
        let markers = ["exited: incarnation 1, pid 7: exit code 0", "started: incarnation 2, pid 8"];
        // Nobody knows what came first of the beginning of the next one and the rest of the grandchild's.
        assert!(end.iter().filter(|line| line.stream == Stream::Xy).map(text).eq(markers), "{end:?}");
        assert_eq!(text(&end[0]), markers[0]);
    }
}

#[tokio::test]
async fn an_exit_that_is_marked_without_a_drain_stands_between_what_was_written_and_what_comes_later() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let (other, mut beside, _err) = attach(&log, 2);
    let (attachment, mut out, err) = attach(&log, 1);
    let mut grandchild = err.try_clone().unwrap();
    let still = soon(hub.hand_over()).await.unwrap();
    out.write_all(b"one\ntwo, be").unwrap();
    beside.write_all(b"an unfinished line of somebody else").unwrap();
    drop((out, err));
    log.mark_exit(1, 7, "signal 9");
    drop(still);
    until("the exit is marked", || log.health().lines == 3).await;
    grandchild.write_all(b"late\n").unwrap();
    drop(grandchild);
    read_to_end(attachment).await;
    let lines = log.tail(usize::MAX);
    let expected = ["one", "two, be", "exited: incarnation 1, pid 7: signal 9", "late"];
    assert!(lines.iter().map(text).eq(expected), "{lines:?}");
    drop((other, beside));
}

#[tokio::test]
async fn a_grandchild_that_floods_is_read_on_after_an_exit_that_was_marked_without_a_drain() {
    let log = in_memory(ample());
    let (attachment, out, err) = attach(&log, 1);
    drop(err);
    let writer = write_numbers(out, 0..300_000);
    for exit in 0..200 {
        log.mark_exit(1, exit, "exit code 0");
        tokio::task::yield_now().await;
    }
    tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
    read_to_end(attachment).await;
    let lines = log.tail(usize::MAX);
    let (mut output, mut begun) = (String::new(), 0);
    for line in lines.iter().filter(|line| line.stream == Stream::Out) {
        // A marker cuts the line that it stands in.
        output.push_str(text(line));
        if !line.partial {
            assert_eq!(output, begun.to_string());
            (output, begun) = (String::new(), begun + 1);
        }
    }
    assert_eq!(begun, 300_000);
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
