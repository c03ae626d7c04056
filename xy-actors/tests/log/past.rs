//! Output of earlier runs and more of it than memory holds.

use std::io::Write as _;

use xy_actors::log::{Cursor, DRAIN_GRACE, LogHub, LogItem, LogSettings};

use crate::{ample, attach, number, soon, text, write_numbers};

#[tokio::test]
async fn output_of_an_earlier_run_is_shown_and_followed_without_a_hole() {
    let root = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_size: 10_000, keep: 50, ..ample() };
    let earlier = LogHub::new(Some(root.path().to_owned()));
    let log = earlier.open("web", settings).unwrap();
    let (attachment, out, err) = attach(&log, 1);
    drop(err);
    write_numbers(out, 0..5_000).join().unwrap();
    soon(attachment.drain(DRAIN_GRACE)).await;

    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", settings).unwrap();
    let tail = soon(log.tail_with_files(4_000)).await;
    assert!(tail.lines.iter().map(number).eq(1_000..5_000));
    assert_eq!((tail.next, tail.from_files), (0, true));

    let (attachment, out, mut err) = attach(&log, 1);
    let writer = write_numbers(out, 5_000..60_000);
    let mut tails = 0;
    while tails < 20 {
        tails += 1;
        let tail = soon(log.tail_with_files(100_000)).await;
        // Small files, so the oldest numbers may be gone.
        let first = number(&tail.lines[0]);
        let end = first + tail.lines.len() as u64;
        assert!(tail.lines.iter().map(number).eq(first..end));
        if end < 60_000 {
            let items = soon(log.follow(Cursor::At(tail.next)).next()).await.unwrap();
            assert!(matches!(&items[0], LogItem::Line(line) if number(line) == end));
        }
    }
    writer.join().unwrap();
    writeln!(err, "last").unwrap();
    drop(err);
    soon(attachment.drain(DRAIN_GRACE)).await;
    let tail = soon(log.tail_with_files(2)).await;
    assert_eq!(text(&tail.lines[1]), "last");
    assert_eq!((tail.lines[1].number + 1, tail.from_files), (tail.next, false));
}

#[tokio::test]
async fn files_that_lack_lines_do_not_hide_those_in_memory() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("logs");
    std::fs::write(&logs, "in the way").unwrap();
    let hub = LogHub::new(Some(logs));
    let log = hub.open("web", ample()).unwrap();
    log.note("only in memory");
    soon(hub.flush()).await;
    let tail = soon(log.tail_with_files(10)).await;
    assert_eq!((tail.lines.len(), tail.next, tail.from_files), (1, 1, false));
}

#[tokio::test]
async fn a_log_in_memory_has_no_past() {
    let log = LogHub::new(None).open("web", ample()).unwrap();
    let tail = soon(log.tail_with_files(10)).await;
    assert!(tail.lines.is_empty() && !tail.from_files);
}
