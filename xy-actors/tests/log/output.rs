//! What a child writes is what memory and files hold.

use std::io::Write as _;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use xy_actors::log::{LogError, LogHub, LogSettings, MAX_LINE, Stream};

use crate::{ample, attach, in_memory, number, read_files, read_to_end, soon, text, until, write_numbers};

#[tokio::test]
async fn every_byte_value_reaches_file_and_memory_unchanged_and_ends_nothing() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().join("logs")));
    let log = hub.open("group/web", ample()).unwrap();
    let (attachment, mut out, mut err) = attach(&log, 1);
    let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    out.write_all(&[&every[..], b"\n", &[0xff, 0xfe], b"\n\0\nafter\n"].concat()).unwrap();
    err.write_all(b"error\r\n").unwrap();
    drop((out, err));
    read_to_end(attachment).await;

    let expected: [&[u8]; 4] = [&every, &[0xff, 0xfe], b"\0", b"after"];
    let held = log.tail(100);
    assert_eq!(log.path(), Some(root.path().join("logs/group/web.log")));
    for lines in [&held, &read_files(&root.path().join("logs"), "group/web")] {
        let of = |stream| lines.iter().filter(move |line| line.stream == stream && !line.partial);
        assert!(of(Stream::Out).map(|line| &*line.bytes).eq(expected));
        assert!(of(Stream::Err).map(|line| &*line.bytes).eq([&b"error\r"[..]]));
        assert_eq!(lines.len(), 5);
    }
    assert!(held.iter().map(|line| line.number).eq(0..5));
    let health = log.health();
    assert_eq!((health.lines, health.dropped_lines, health.last_error), (5, 0, None));
}

#[tokio::test]
async fn the_last_line_without_a_newline_is_kept_and_never_meets_the_next_incarnation() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", ample()).unwrap();
    for (incarnation, last) in [(1, "half a li"), (2, "again")] {
        let (attachment, mut out, err) = attach(&log, incarnation);
        assert_eq!(attachment.incarnation(), incarnation);
        write!(out, "start\n{last}").unwrap();
        drop((out, err));
        read_to_end(attachment).await;
    }
    let expected = [("start", false), ("half a li", true), ("start", false), ("again", true)];
    for lines in [log.tail(9), read_files(root.path(), "web")] {
        assert!(lines.iter().map(|line| (text(line), line.partial)).eq(expected));
    }
}

#[tokio::test]
async fn an_endless_line_is_cut_and_memory_stays_bounded() {
    const TOTAL: usize = 64 << 20;
    let settings = LogSettings { buffer: 200_000, ..LogSettings::default() };
    let log = in_memory(settings);
    let (attachment, mut out, err) = attach(&log, 1);
    let writer = thread::spawn(move || {
        let chunk = [b'x'; 100_000];
        let mut left = TOTAL;
        while left > 0 {
            let count = left.min(chunk.len());
            out.write_all(&chunk[..count]).unwrap();
            left -= count;
        }
    });
    drop(err);
    writer.join().unwrap();
    read_to_end(attachment).await;
    assert_eq!((log.health().lines, log.health().bytes), ((TOTAL / MAX_LINE) as u64, TOTAL as u64));
    let held = log.tail(usize::MAX);
    assert!(held.iter().all(|line| line.partial && line.bytes.len() == MAX_LINE));
    assert_eq!(held.len(), 200_000 / (MAX_LINE + 1 + 32));
}

#[tokio::test]
async fn many_small_rotations_neither_tear_nor_drop_nor_reorder() {
    const LINES: u64 = 20_000;
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let settings = LogSettings { max_size: 10_000, keep: 10_000, buffer: 1_000, ..LogSettings::default() };
    let log = hub.open("web", settings).unwrap();
    let mut from = 0;
    for incarnation in 0..4 {
        let (attachment, out, err) = attach(&log, incarnation);
        let to = from + LINES / 4;
        let writers = [write_numbers(out, from..to), write_numbers(err, from..to)];
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        read_to_end(attachment).await;
        from = to;
    }
    let health = log.health();
    assert_eq!((health.lines, health.dropped_lines, health.last_error), (2 * LINES, 0, None));
    let lines = read_files(root.path(), "web");
    for stream in [Stream::Out, Stream::Err] {
        let numbers = lines.iter().filter(|line| line.stream == stream).map(number);
        assert!(numbers.eq(0..LINES), "{stream}");
    }
    assert_eq!(lines.len() as u64, 2 * LINES);
    let files: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() > 100);
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 10_000));
}

#[tokio::test]
async fn settings_change_while_the_log_is_open() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", LogSettings { max_size: 100, keep: 10, ..LogSettings::default() }).unwrap();
    for note in 0..20 {
        log.note(&format!("{note}: {}", "x".repeat(50)));
    }
    soon(hub.flush()).await;
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 10);

    let again = hub
        .open("web", LogSettings { max_size: 100, keep: 2, buffer: 100, ..LogSettings::default() })
        .unwrap();
    again.note("y");
    again.note(&"z".repeat(90));
    soon(hub.flush()).await;
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2);
    assert_eq!(log.tail(100).len(), 1);
    assert_eq!(log.health().lines, 22);
}

#[tokio::test]
async fn notes_are_lines_of_their_own_stream_in_order() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    log.note("started\nwith pid 7");
    let (attachment, mut out, err) = attach(&log, 1);
    out.write_all(b"hello").unwrap();
    drop((out, err));
    read_to_end(attachment).await;
    log.note("exited");
    soon(hub.flush()).await;
    let lines = log.tail(9);
    let expected = [(Stream::Xy, "started with pid 7"), (Stream::Out, "hello"), (Stream::Xy, "exited")];
    assert!(lines.iter().map(|line| (line.stream, text(line))).eq(expected));
}

#[tokio::test]
async fn remarks_that_find_no_room_while_the_log_stands_still_are_counted_in_it() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let still = soon(hub.hand_over()).await.unwrap();
    for number in 0..5_000 {
        log.note(&number.to_string());
    }
    drop(still);
    soon(hub.flush()).await;
    let kept = log.health().lines;
    let dropped = log.health().dropped_lines;
    assert!(dropped > 0 && kept + dropped == 5_000, "{kept} and {dropped}");
    log.note("after");
    soon(hub.flush()).await;
    let lines = log.tail(usize::MAX);
    let (remarks, end) = lines.split_at(kept as usize);
    assert!(remarks.iter().map(number).eq(0..kept));
    let gap = format!("gap: {dropped} remarks dropped while the log did not keep up");
    assert!(end.iter().map(text).eq([&*gap, "after"]), "{end:?}");
}

#[tokio::test]
async fn pipes_are_read_to_their_end_when_every_handle_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", LogSettings::default()).unwrap();
    let (attachment, out, err) = attach(&log, 1);
    drop((attachment, log, hub, err));
    write_numbers(out, 0..50_000).join().unwrap();
    until("the file is complete", || {
        let file = std::fs::read(root.path().join("web.log")).unwrap_or_default();
        file.ends_with(b" 49999\n")
    })
    .await;
    assert!(read_files(root.path(), "web").iter().map(number).eq(0..50_000));
}

#[test]
fn hostile_names_never_become_paths() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().join("logs")));
    for name in ["", "..", "../web", "/etc/web", "group/../../web", "web\0", "a//b", "a/", "a\nb", ".x"] {
        let refused = hub.open(name, LogSettings::default());
        assert!(matches!(refused, Err(LogError::Name { .. })), "{name:?}");
    }
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_watched_is_an_error_and_harms_no_other_log() {
    let log = in_memory(LogSettings::default());
    let (stdout, _out) = std::io::pipe().unwrap();
    let refused = log.attach(1, stdout.into(), tempfile::tempfile().unwrap().into());
    assert!(matches!(refused, Err(LogError::Watch { .. })));
    let (_attachment, mut out, _err) = attach(&log, 2);
    out.write_all(b"hello\n").unwrap();
}

#[tokio::test]
async fn a_thousand_servers_that_write_at_once_all_have_their_lines_in_memory_and_files() {
    const LINES: u64 = 50;
    // Two pipes and a file each, as far as this system lets us.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let servers = 1_000.min(most.saturating_sub(200) / 5);
    assert!(servers >= 100, "only {most} files may be open");
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let name = |server: u64| format!("group-{}/server-{server}", server % 10);
    let mut writers = Vec::new();
    let mut attachments = Vec::new();
    for server in 0..servers {
        let log = hub.open(&name(server), LogSettings::default()).unwrap();
        let (attachment, out, err) = attach(&log, 1);
        attachments.push(attachment);
        writers.push((out, err));
    }
    let writing = thread::spawn(move || {
        for line in 0..LINES {
            for (out, err) in &mut writers {
                writeln!(out, "{line}").unwrap();
                write!(err, "{line}").unwrap();
                writeln!(err).unwrap();
            }
        }
    });
    tokio::task::spawn_blocking(|| writing.join().unwrap()).await.unwrap();
    for (server, attachment) in (0..).zip(attachments) {
        let log = attachment.log().clone();
        read_to_end(attachment).await;
        for lines in [log.tail(usize::MAX), read_files(root.path(), &name(server))] {
            for stream in [Stream::Out, Stream::Err] {
                assert!(
                    lines.iter().filter(|line| line.stream == stream).map(number).eq(0..LINES),
                    "{server}"
                );
            }
        }
    }
}
