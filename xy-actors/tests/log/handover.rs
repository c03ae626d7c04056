//! A hub that takes over from another one goes on in the middle of a line, and nobody who writes notices.

use std::io::{PipeWriter, Write as _};
use std::ops::ControlFlow;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use xy_actors::log::{
    Attachment, Cursor, HubState, LineWatch, Log, LogError, LogHub, LogItem, LogSettings, StateError, Stream,
};

use crate::{ample, attach, attach_watched, number, read_files, read_to_end, soon, stall, text};

/// Writes the numbers of a range as lines, in pieces that end anywhere within them; the last piece when `go` is dropped.
fn write_in_pieces(
    mut pipe: PipeWriter,
    numbers: std::ops::Range<u64>,
    go: std::sync::mpsc::Receiver<()>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let lines: String = numbers.map(|number| format!("{number}\n")).collect();
        let pieces = lines.as_bytes().chunks(701);
        let last = pieces.len() - 1;
        for (turn, piece) in pieces.enumerate() {
            if turn == last {
                let _ = go.recv();
            }
            pipe.write_all(piece).unwrap();
            if turn.is_multiple_of(16) {
                thread::yield_now();
            }
        }
    })
}

/// Lets another hub go on, by way of bytes, as another program would.
async fn exchange(hub: LogHub, directory: Option<std::path::PathBuf>) -> (LogHub, Vec<Attachment>) {
    let (state, pipes) = soon(hub.hand_over()).await.unwrap().into_parts();
    drop(hub);
    LogHub::take_up(directory, HubState::decode(&state.encode()).unwrap(), pipes).unwrap()
}

/// Adds what a follower sees up to the end of a handed over log, or up to `end` lines; returns its position.
async fn follow_to(log: &Log, from: u64, end: u64, seen: &mut Vec<(Stream, u64)>) -> u64 {
    let mut follower = log.follow(Cursor::At(from));
    assert_eq!(follower.position(), from);
    while follower.position() < end {
        let Some(items) = soon(follower.next()).await else { break };
        for item in items {
            let LogItem::Line(line) = item else { panic!("memory holds everything: {item:?}") };
            seen.push((line.stream, number(&line)));
        }
    }
    follower.position()
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_while_writers_write_throughout() {
    const LINES: u64 = 100_000;
    const TIMES: u64 = 20;
    let root = tempfile::tempdir().unwrap();
    let directory = || Some(root.path().to_owned());
    let settings = LogSettings { max_size: 100_000, keep: 1_000, ..ample() };
    let mut hub = LogHub::new(directory());
    let log = hub.open("web", settings).unwrap();
    let (attachment, out, err) = attach(&log, 7);
    let ((go, wait), (go_too, wait_too)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let writers = [write_in_pieces(out, 0..LINES, wait), write_in_pieces(err, 0..LINES, wait_too)];
    drop(attachment);
    let (mut position, mut seen, mut exchanges) = (0, Vec::new(), 0);
    while exchanges < TIMES {
        let log = hub.open("web", settings).unwrap();
        // Spread over the whole time of writing.
        position = follow_to(&log, position, (exchanges + 1) * LINES / TIMES, &mut seen).await;
        let mut attachments;
        (hub, attachments) = exchange(hub, directory()).await;
        exchanges += 1;
        let attachment = attachments.pop().unwrap();
        assert_eq!((attachment.incarnation(), attachment.log().name()), (7, "web"));
        // The other one has told what it knows, which its follower still gets.
        position = follow_to(&log, position, u64::MAX, &mut seen).await;
    }
    drop((go, go_too));
    let log = hub.open("web", settings).unwrap();
    position = follow_to(&log, position, 2 * LINES, &mut seen).await;
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    hub.flush().await;
    assert_eq!((position, log.health().lines), (2 * LINES, 2 * LINES));
    let files = read_files(root.path(), "web");
    let files = files.iter().inspect(|line| assert!(!line.partial)).map(|line| (line.stream, number(line)));
    let files: Vec<_> = files.collect();
    for lines in [files, seen] {
        for stream in [Stream::Out, Stream::Err] {
            let of_stream = lines.iter().filter(|line| line.0 == stream).map(|line| line.1);
            assert!(of_stream.eq(0..LINES), "{stream}");
        }
    }
}

#[tokio::test]
async fn the_beginning_of_a_line_and_all_numbers_and_settings_go_along() {
    let hub = LogHub::new(None);
    let settings = LogSettings { buffer: 4_096, ..LogSettings::default() };
    let log = hub.open("group/web", settings).unwrap();
    let idle = hub.open("idle", LogSettings::default()).unwrap();
    let (_attachment, mut out, err) = attach(&log, 3);
    drop(err);
    out.write_all(b"one\ntwo, fir").unwrap();
    soon(log.follow(Cursor::At(0)).next()).await.unwrap();
    log.note("a remark");

    let (hub, mut attachments) = exchange(hub, None).await;
    let taken = attachments.pop().unwrap();
    assert!(attachments.is_empty());
    out.write_all(b"st half\nlast").unwrap();
    drop(out);
    let (found, line) = oneshot::channel();
    let mut found = Some(found);
    taken.watch(LineWatch::new(move |line| {
        if line.partial {
            let _ = found.take().unwrap().send(line.bytes.to_vec());
        }
        ControlFlow::Continue(())
    }));
    let again = hub.open("group/web", settings).unwrap();
    read_to_end(taken).await;
    let lines = again.tail(9);
    let expected = [(0, "one"), (1, "a remark"), (2, "two, first half"), (3, "last")];
    assert!(lines.iter().map(|line| (line.number, text(line))).eq(expected));
    assert!(lines[3].partial);
    // The watch may have come after the pipe was read to its end, which ends it too.
    assert!(soon(line).await.is_ok_and(|line| line == b"last") || again.health().lines == 4);
    assert_eq!(hub.open("idle", LogSettings::default()).unwrap().health().lines, 0);
    for closed in [log, idle] {
        let (stdout, _) = std::io::pipe().unwrap();
        let (stderr, _) = std::io::pipe().unwrap();
        assert!(matches!(closed.attach(4, stdout.into(), stderr.into()), Err(LogError::Closed { .. })));
    }
}

#[tokio::test]
async fn a_hub_whose_successor_does_not_come_goes_on() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let (attachment, mut out, err) = attach(&log, 1);
    drop(err);
    let standing = soon(hub.hand_over()).await.unwrap();
    assert_eq!(standing.descriptors().len(), standing.state().descriptors());
    out.write_all(b"meanwhile\n").unwrap();
    log.note("noted meanwhile");
    drop(standing);
    drop(out);
    read_to_end(attachment).await;
    let mut lines: Vec<_> = log.tail(9).iter().map(|line| text(line).to_owned()).collect();
    lines.sort();
    assert_eq!(lines, ["meanwhile", "noted meanwhile"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_thread_that_hangs_is_not_waited_for_and_goes_on_by_itself() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let (watch, is_stalled, goes_on) = stall();
    let (attachment, mut out, err) = attach_watched(&log, 1, watch);
    drop(err);
    out.write_all(b"one\n").unwrap();
    // No time passes for a runtime that has something to do.
    let stalled = async {
        let _ = is_stalled.await;
    };
    let busy = async {
        loop {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = stalled => {}
        () = busy => {}
    }
    assert!(matches!(hub.hand_over().await, Err(LogError::Stalled)));
    tokio::time::resume();
    drop(goes_on);
    out.write_all(b"two\n").unwrap();
    drop(out);
    read_to_end(attachment).await;
    assert!(log.tail(9).iter().map(text).eq(["one", "two"]));
}

#[tokio::test]
async fn lines_that_the_files_lack_are_told_by_the_successor() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("logs");
    std::fs::write(&logs, "in the way").unwrap();
    let hub = LogHub::new(Some(logs.clone()));
    hub.open("web", ample()).unwrap().note("lost");
    soon(hub.flush()).await;
    let (hub, _) = exchange(hub, Some(logs.clone())).await;
    std::fs::remove_file(&logs).unwrap();
    let log = hub.open("web", ample()).unwrap();
    assert!(log.health().failing && log.health().dropped_lines == 1);
    log.note("kept");
    soon(hub.flush()).await;
    assert!(!log.health().failing);
    let lines = read_files(&logs, "web");
    assert!(text(&lines[0]).starts_with("1 line dropped: "));
    assert_eq!(text(&lines[1]), "kept");
}

#[tokio::test]
async fn a_state_without_its_pipes_is_refused() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let (_attachment, _out, _err) = attach(&log, 1);
    let (state, mut pipes) = soon(hub.hand_over()).await.unwrap().into_parts();
    pipes.pop();
    let refused = LogHub::take_up(None, state, pipes);
    assert!(matches!(refused, Err(LogError::State(StateError::Damaged))));
}

/// Fills the memory of a log with numbered lines, each with a time of its own; returns how many there were.
async fn fill(hub: &LogHub, log: &Log, begin: u64) -> u64 {
    let (attachment, mut out, err) = attach(log, 1);
    drop(err);
    let end = begin + 200_000;
    let writer = thread::spawn(move || {
        let lines: String = (begin..end).map(|number| format!("{number}\n")).collect();
        lines.as_bytes().chunks(1_000).for_each(|piece| out.write_all(piece).unwrap());
    });
    read_to_end(attachment).await;
    writer.join().unwrap();
    hub.flush().await;
    end
}

/// Checks that a log holds numbered lines up to an end, as many as its memory is expected to.
fn assert_held(log: &Log, end: u64, settings: LogSettings) {
    let lines = log.tail(usize::MAX);
    let first = end - lines.len() as u64;
    assert!(lines.iter().map(|line| (line.number, number(line))).eq((first..end).map(|line| (line, line))));
    let bytes: usize = lines.iter().map(|line| line.bytes.len() + 1).sum();
    assert!(bytes > settings.buffer / 2, "{bytes} of {}", settings.buffer);
}

#[tokio::test]
async fn the_lines_in_memory_stay_where_they_are() {
    let settings = LogSettings::default();
    let mut hub = LogHub::new(None);
    let mut end = 0;
    for _ in 0..3 {
        let log = hub.open("web", settings).unwrap();
        end = fill(&hub, &log, end).await;
        drop(log);
        let (state, descriptors) = soon(hub.hand_over()).await.unwrap().into_parts();
        drop(hub);
        let state = state.encode();
        // Where memory does not outlive the program, they are copied.
        assert!(cfg!(not(target_os = "linux")) || state.len() < 1_000, "{} bytes are copied", state.len());
        (hub, _) = LogHub::take_up(None, HubState::decode(&state).unwrap(), descriptors).unwrap();
        assert_held(&hub.open("web", settings).unwrap(), end, settings);
    }
}

#[tokio::test]
async fn whoever_reads_the_old_one_and_whoever_reads_the_new_one_get_the_same() {
    let settings = LogSettings::default();
    let hub = LogHub::new(None);
    let old = hub.open("web", settings).unwrap();
    let end = fill(&hub, &old, 0).await;
    let (hub, _) = exchange(hub, None).await;
    let new = hub.open("web", settings).unwrap();
    assert_held(&new, end, settings);
    assert_eq!(old.tail(usize::MAX), new.tail(usize::MAX));
    let before = old.tail(usize::MAX);
    fill(&hub, &new, end).await;
    assert_eq!(old.tail(usize::MAX), before);
}

#[tokio::test]
async fn what_was_said_stays_true_when_settings_change_meanwhile() {
    let settings = LogSettings::default();
    let hub = LogHub::new(None);
    let log = hub.open("web", settings).unwrap();
    let end = fill(&hub, &log, 0).await;
    let standing = soon(hub.hand_over()).await.unwrap();
    log.set_settings(LogSettings { buffer: 1_000, ..settings });
    assert!(log.tail(usize::MAX).len() < 1_000);
    let (state, descriptors) = standing.into_parts();
    drop((hub, log));
    let (hub, _) = LogHub::take_up(None, state, descriptors).unwrap();
    assert_held(&hub.open("web", settings).unwrap(), end, settings);
}

#[tokio::test]
async fn a_successor_that_fails_leaves_everything_to_the_next_one() {
    let settings = LogSettings::default();
    let hub = LogHub::new(None);
    let log = hub.open("a", settings).unwrap();
    let end = fill(&hub, &log, 0).await;
    let last = hub.open("z", settings).unwrap();
    let (attachment, mut out, err) = attach(&last, 1);
    let (state, descriptors) = soon(hub.hand_over()).await.unwrap().into_parts();
    drop((hub, log, last, attachment));
    out.write_all(b"unread\n").unwrap();
    let copy = |descriptors: &[std::os::fd::OwnedFd]| -> Vec<_> {
        descriptors.iter().map(|descriptor| descriptor.try_clone().unwrap()).collect()
    };
    // A file cannot be watched: it fails at the last pipe.
    let mut wrong = copy(&descriptors);
    wrong[1] = tempfile::tempfile().unwrap().into();
    let refused = LogHub::take_up(None, state.clone(), wrong);
    assert!(matches!(refused, Err(LogError::Watch { .. })), "{refused:?}");
    if cfg!(target_os = "linux") {
        let mut wrong = copy(&descriptors);
        wrong[2] = tempfile::tempfile().unwrap().into();
        let refused = LogHub::take_up(None, state.clone(), wrong);
        assert!(matches!(refused, Err(LogError::Memory(_))), "{refused:?}");
    }
    let (hub, mut attachments) = LogHub::take_up(None, state, descriptors).unwrap();
    assert_held(&hub.open("a", settings).unwrap(), end, settings);
    drop((out, err));
    read_to_end(attachments.pop().unwrap()).await;
    assert_eq!(text(&hub.open("z", settings).unwrap().tail(1)[0]), "unread");
}
