//! A hub that takes over from another one goes on in the middle of a line, and nobody who writes notices.

use std::io::{PipeWriter, Write as _};
use std::ops::ControlFlow;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use xy_actors::log::{
    Attachment, Cursor, DRAIN_GRACE, HubState, LineWatch, Log, LogError, LogHub, LogItem, LogSettings,
    StateError, Stream,
};

use crate::{ample, attach, number, read_files, soon, text};

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
    assert!(!soon(taken.drain(DRAIN_GRACE)).await.held);
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
    assert_eq!(standing.pipes().len(), standing.state().descriptors());
    out.write_all(b"meanwhile\n").unwrap();
    log.note("noted meanwhile");
    drop(standing);
    drop(out);
    assert!(!soon(attachment.drain(DRAIN_GRACE)).await.held);
    let mut lines: Vec<_> = log.tail(9).iter().map(|line| text(line).to_owned()).collect();
    lines.sort();
    assert_eq!(lines, ["meanwhile", "noted meanwhile"]);
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
