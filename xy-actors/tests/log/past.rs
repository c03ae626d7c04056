//! Output of earlier runs and more of it than memory holds, selected and followed.

use std::io::Write as _;

use xy_actors::log::{Cursor, LinePattern, Log, LogHub, LogItem, LogLine, LogQuery, LogSettings, Stream};

use crate::{ample, attach, number, read_to_end, soon, text, until, write_numbers};

fn tail(n: usize) -> LogQuery {
    LogQuery { tail: Some(n), ..LogQuery::default() }
}

/// Reads all lines of a query that does not follow.
async fn read(log: &Log, query: LogQuery) -> Vec<LogLine> {
    let mut reader = soon(log.read(query)).await;
    let mut lines = Vec::new();
    while let Some(items) = soon(reader.next()).await {
        for item in items {
            let LogItem::Line(line) = item else { panic!("nothing is missing: {item:?}") };
            lines.push(line);
        }
    }
    lines
}

#[tokio::test]
async fn output_of_an_earlier_run_is_shown_and_followed_without_a_hole() {
    let root = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_size: 10_000, keep: 50, ..ample() };
    let earlier = LogHub::new(Some(root.path().to_owned()));
    let log = earlier.open("web", settings).unwrap();
    write_more(&log, 1, 0..5_000).await;

    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", settings).unwrap();
    let lines = read(&log, tail(4_000)).await;
    assert!(lines.iter().map(number).eq(1_000..5_000));

    let (attachment, out, mut err) = attach(&log, 1);
    let writer = write_numbers(out, 5_000..60_000);
    for _ in 0..20 {
        let mut reader = soon(log.read(LogQuery { follow: true, ..tail(100_000) })).await;
        let mut expected = None;
        while expected != Some(60_000) {
            for item in soon(reader.next()).await.unwrap() {
                let LogItem::Line(line) = item else { panic!("memory holds what follows: {item:?}") };
                // Small files, so the oldest numbers may be gone.
                assert_eq!(number(&line), expected.unwrap_or(number(&line)));
                expected = Some(number(&line) + 1);
            }
        }
    }
    writer.join().unwrap();
    writeln!(err, "last").unwrap();
    drop(err);
    read_to_end(attachment).await;
    let lines = read(&log, tail(2)).await;
    assert_eq!(text(&lines[1]), "last");
    assert_eq!(lines[1].number + 1, log.health().lines);
}

#[tokio::test]
async fn a_reader_behind_what_memory_holds_goes_on_in_the_files_line_by_line() {
    const LINES: u64 = 100_000;
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let settings = LogSettings { buffer: 1_000, max_size: 100_000, keep: 1_000, ..LogSettings::default() };
    let log = hub.open("web", settings).unwrap();
    let (attachment, out, err) = attach(&log, 1);
    drop(err);
    let mut reader = soon(log.read(LogQuery { follow: true, ..tail(0) })).await;
    let mut plain = log.follow(Cursor::Now);
    let writer = write_numbers(out, 0..LINES);
    let mut expected = 0;
    while expected < LINES {
        for item in soon(reader.next()).await.unwrap() {
            let LogItem::Line(line) = item else { panic!("the files hold it: {item:?}") };
            assert_eq!((line.number, number(&line)), (expected, expected));
            expected += 1;
        }
    }
    writer.join().unwrap();
    read_to_end(attachment).await;
    assert!(matches!(soon(plain.next()).await.unwrap()[0], LogItem::Gap { first: 0, .. }));
}

#[tokio::test]
async fn files_that_do_not_hold_it_either_leave_a_gap() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let settings = LogSettings { buffer: 1_000, max_size: 2_000, keep: 2, ..LogSettings::default() };
    let log = hub.open("web", settings).unwrap();
    let mut reader = soon(log.read(LogQuery { follow: true, ..tail(0) })).await;
    assert!(tokio::select! { biased; _ = reader.next() => false, () = std::future::ready(()) => true });
    write_more(&log, 1, 0..10_000).await;
    let items = soon(reader.next()).await.unwrap();
    let LogItem::Gap { first: 0, last } = items[0] else { panic!("{:?}", items[0]) };
    assert!(matches!(&items[1], LogItem::Line(line) if line.number == last + 1));
}

#[tokio::test]
async fn the_previous_incarnation_and_matches_are_found_across_rotated_files_and_in_memory() {
    let root = tempfile::tempdir().unwrap();
    for directory in [Some(root.path().to_owned()), None] {
        let hub = LogHub::new(directory);
        let log = hub.open("web", LogSettings { max_size: 1_000, keep: 1_000, ..ample() }).unwrap();
        for incarnation in 1..=3_u32 {
            log.mark_start(u64::from(incarnation), incarnation + 40);
            let first = u64::from(incarnation) * 1_000;
            write_more(&log, u64::from(incarnation), first..first + 200).await;
            log.mark_exit(u64::from(incarnation), incarnation + 40, "exit code 1");
        }
        soon(hub.flush()).await;
        let previous = read(&log, LogQuery { previous: true, ..LogQuery::default() }).await;
        assert_eq!(previous.len(), 202);
        assert_eq!(text(&previous[0]), "started: incarnation 2, pid 42");
        assert_eq!(text(&previous[201]), "exited: incarnation 2, pid 42: exit code 1");
        assert!(previous[1..201].iter().map(number).eq(2_000..2_200));
        assert_eq!((previous[0].stream, previous[1].stream), (Stream::Xy, Stream::Out));

        let pattern = || Some(LinePattern::new("^[0-9]+99$").unwrap());
        let found = read(&log, LogQuery { pattern: pattern(), ..LogQuery::default() }).await;
        assert!(found.iter().map(number).eq([1_099, 1_199, 2_099, 2_199, 3_099, 3_199]));
        let times: Vec<i64> = found.iter().map(|line| line.unix_ms).collect();
        let query = LogQuery { since_unix_ms: Some(times[4]), pattern: pattern(), ..LogQuery::default() };
        assert!(read(&log, query).await.iter().all(|line| line.unix_ms >= times[4]));
        let query = LogQuery { until_unix_ms: Some(times[0]), ..LogQuery::default() };
        assert!(read(&log, query).await.iter().all(|line| line.unix_ms < times[0]));

        // What follows is matched too.
        let mut reader = soon(log.read(LogQuery { pattern: pattern(), follow: true, ..tail(1) })).await;
        log.note("no match");
        log.note("4099");
        for expected in ["3199", "4099"] {
            let items = soon(reader.next()).await.unwrap();
            assert!(matches!(&items[..], [LogItem::Line(line)] if text(line) == expected));
        }
    }
}

#[tokio::test]
async fn lines_of_a_file_that_somebody_took_away_are_a_gap_and_never_others_in_their_place() {
    let root = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_size: 10_000, keep: 1_000, buffer: 1_000, ..LogSettings::default() };
    let open = || LogHub::new(Some(root.path().to_owned())).open("web", settings).unwrap();
    write_more(&open(), 1, 900_000..905_000).await;

    let log = open();
    let mut reader = soon(log.read(LogQuery { follow: true, ..tail(0) })).await;
    let (attachment, mut out, err) = attach(&log, 2);
    drop(err);
    let mut written = 0;
    let mut write = |count: u64| {
        let lines: String = (written..written + count).map(|number| format!("{number}\n")).collect();
        out.write_all(lines.as_bytes()).unwrap();
        written += count;
        written
    };
    let lines = write(3_000);
    until("they are read", || log.health().lines == lines).await;
    std::fs::remove_file(log.path().unwrap()).unwrap();
    until("there is another file", || {
        write(1);
        log.path().unwrap().exists()
    })
    .await;
    let lines = write(3_000);
    drop(out);
    read_to_end(attachment).await;
    let mut next = 0;
    while next < lines {
        for item in soon(reader.next()).await.unwrap() {
            match item {
                LogItem::Line(line) => {
                    assert_eq!((line.number, number(&line)), (next, next));
                    next += 1;
                }
                LogItem::Gap { first, last } => {
                    assert_eq!(first, next);
                    next = last + 1;
                }
            }
        }
    }
}

/// Writes numbers through pipes of their own; files of 1,000 bytes hold some 30 of them.
async fn write_more(log: &Log, incarnation: u64, numbers: std::ops::Range<u64>) {
    let (attachment, out, err) = attach(log, incarnation);
    drop(err);
    write_numbers(out, numbers).join().unwrap();
    read_to_end(attachment).await;
}

#[tokio::test]
async fn hundreds_of_rotated_files_are_read_and_a_hole_among_them_hides_nothing() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let settings = LogSettings { max_size: 1_000, keep: 1_000, buffer: 1_000, ..LogSettings::default() };
    let log = hub.open("web", settings).unwrap();
    write_more(&log, 1, 0..8_000).await;
    let files = std::fs::read_dir(root.path()).unwrap().count() as u64;
    assert!(files > 200, "{files}");
    assert!(read(&log, LogQuery::default()).await.iter().map(number).eq(0..8_000));
    let pattern = Some(LinePattern::new("000$").unwrap());
    let found = read(&log, LogQuery { pattern, ..LogQuery::default() }).await;
    assert!(found.iter().map(number).eq((1..8).map(|thousand| thousand * 1_000)));

    // As after a crash within a rotation, which the next one repairs.
    for hole in [150, 3] {
        let path = |index| root.path().join(format!("web.log.{index}"));
        for index in (hole..2 * files).rev().filter(|index| path(*index).exists()) {
            std::fs::rename(path(index), path(index + 1)).unwrap();
        }
        let held = read(&log, LogQuery::default()).await;
        assert!(held.iter().map(number).eq(0..held.len() as u64), "{hole}");
        let next = held.len() as u64;
        assert!(next >= 8_000, "{hole}: {next}");
        write_more(&log, 1, next..next + 60).await;
        assert!(path(hole).exists());
    }
}

#[tokio::test]
async fn what_is_rotated_while_it_is_read_is_read_once_and_what_is_deleted_is_left_out() {
    for (keep, is_all) in [(1_000, true), (120, false)] {
        let root = tempfile::tempdir().unwrap();
        let hub = LogHub::new(Some(root.path().to_owned()));
        let settings = LogSettings { max_size: 1_000, keep, buffer: 1_000, ..LogSettings::default() };
        let log = hub.open("web", settings).unwrap();
        write_more(&log, 1, 0..3_500).await;
        assert!(read(&log, LogQuery::default()).await.iter().map(number).eq(0..3_500), "all are kept");
        let mut reader = soon(log.read(LogQuery::default())).await;
        let (mut numbers, mut more) = (Vec::new(), 3_500);
        loop {
            write_more(&log, 1, more..more + 700).await;
            more += 700;
            let Some(items) = soon(reader.next()).await else { break };
            for item in items {
                let LogItem::Line(line) = item else { panic!("nothing is missing: {item:?}") };
                numbers.push(number(&line));
            }
        }
        let first = numbers[0];
        assert_eq!(first == 0, is_all, "{first}");
        assert!(numbers.iter().copied().eq(first..3_500), "what came later is not its affair");
    }
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
    assert_eq!(read(&log, tail(10)).await.len(), 1);
    assert_eq!(read(&log, LogQuery::default()).await.len(), 1);
}

#[tokio::test]
async fn as_many_lines_of_output_as_are_asked_for_are_shown_however_many_remarks_are_between_them() {
    let root = tempfile::tempdir().unwrap();
    for (directory, buffer) in [(None, 1 << 20), (Some("large"), 1 << 20), (Some("small"), 1_000)] {
        let hub = LogHub::new(directory.map(|name| root.path().join(name)));
        let log = hub.open("web", LogSettings { buffer, ..LogSettings::default() }).unwrap();
        for incarnation in 0..100 {
            log.mark_start(incarnation, 1);
            write_more(&log, incarnation, incarnation..incarnation + 1).await;
            log.mark_exit(incarnation, 1, "exit code 1");
        }
        soon(hub.flush()).await;
        for wanted in [1, 7, 99] {
            let lines = read(&log, LogQuery { output_only: true, ..tail(wanted) }).await;
            assert!(lines.iter().map(number).eq(100 - wanted as u64..100), "{wanted}: {lines:?}");
        }
        assert_eq!(read(&log, tail(7)).await.iter().filter(|line| line.stream == Stream::Xy).count(), 5);
        let query = LogQuery { output_only: true, follow: true, ..tail(2) };
        let mut reader = soon(log.read(query)).await;
        log.note("a remark");
        write_more(&log, 100, 100..101).await;
        let mut seen = Vec::new();
        while seen.len() < 3 {
            for item in soon(reader.next()).await.unwrap() {
                let LogItem::Line(line) = item else { panic!("nothing is missing: {item:?}") };
                seen.push(number(&line));
            }
        }
        assert_eq!(seen, [98, 99, 100]);
    }
}

#[tokio::test]
async fn what_memory_reaches_back_to_has_numbers_though_there_are_files() {
    let root = tempfile::tempdir().unwrap();
    let open = || LogHub::new(Some(root.path().to_owned())).open("web", ample()).unwrap();
    write_more(&open(), 1, 0..1_000).await;
    let log = open();
    log.mark_start(1, 5);
    write_more(&log, 1, 1_000..2_000).await;
    let before = log.tail(1)[0].unix_ms;
    until("the clock goes on", || unix_ms() > before).await;
    log.mark_exit(1, 5, "exit code 0");
    log.mark_start(2, 6);
    write_more(&log, 2, 2_000..2_100).await;
    let pattern = || Some(LinePattern::new("^[0-9]*99$").unwrap());
    let since = LogQuery { since_unix_ms: Some(before + 1), ..LogQuery::default() };
    for (query, expected) in [
        (since, (1_001..1_103).collect::<Vec<_>>()),
        (LogQuery { pattern: pattern(), ..tail(3) }, vec![900, 1_000, 1_102]),
        (LogQuery { previous: true, ..LogQuery::default() }, (0..1_002).collect()),
    ] {
        let lines = read(&log, query.clone()).await;
        assert!(lines.iter().map(|line| line.number).eq(expected), "{query:?}: {lines:?}");
    }
    // Memory begins with this run.
    let found = read(&log, LogQuery { pattern: pattern(), ..tail(13) }).await;
    assert_eq!(found.len(), 13);
    assert_eq!(number(&found[0]), 899);
    assert_eq!(read(&log, LogQuery { since_unix_ms: Some(0), ..LogQuery::default() }).await.len(), 2_103);
}

#[tokio::test]
async fn where_the_files_lack_lines_they_tell_what_is_older_and_memory_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_size: 10_000, keep: 1_000, ..ample() };
    let earlier = LogHub::new(Some(root.path().to_owned())).open("web", settings).unwrap();
    write_more(&earlier, 1, 0..1_000).await;
    let kept: usize = (1..)
        .map_while(|index| std::fs::read_to_string(root.path().join(format!("web.log.{index}"))).ok())
        .map(|file| file.lines().count())
        .sum();
    let written = std::fs::metadata(root.path().join("web.log")).unwrap().modified().unwrap();
    until("the clock goes on", || {
        std::time::SystemTime::now() > written + std::time::Duration::from_millis(2)
    })
    .await;
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", settings).unwrap();
    log.note("1000");
    let mut next = 1_001;
    soon(hub.flush()).await;
    std::fs::remove_file(log.path().unwrap()).unwrap();
    until("there is another file", || {
        log.note(&next.to_string());
        next += 1;
        log.path().unwrap().exists()
    })
    .await;
    soon(hub.flush()).await;
    let expected: Vec<u64> = (0..kept as u64).chain(1_000..next).collect();
    assert!(kept > 500 && kept < 1_000, "{kept}");
    assert!(read(&log, LogQuery::default()).await.iter().map(number).eq(expected.iter().copied()));
    for wanted in [1, expected.len() - kept, expected.len() - kept + 1, expected.len() - 1, 10_000] {
        let lines = read(&log, tail(wanted)).await;
        let end = &expected[expected.len().saturating_sub(wanted)..];
        assert!(lines.iter().map(number).eq(end.iter().copied()), "{wanted}");
    }
    let pattern = Some(LinePattern::new("00$").unwrap());
    let mut reader = soon(log.read(LogQuery { pattern, follow: true, ..tail(4) })).await;
    log.note("no match");
    log.note("9900");
    let mut seen = Vec::new();
    while seen.last() != Some(&9_900) {
        for item in soon(reader.next()).await.unwrap() {
            let LogItem::Line(line) = item else { panic!("nothing is missing: {item:?}") };
            seen.push(number(&line));
        }
    }
    let mut matching: Vec<u64> = expected.into_iter().filter(|number| number % 100 == 0).collect();
    matching = matching.split_off(matching.len() - 4);
    matching.push(9_900);
    assert_eq!(seen, matching);
}

fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[tokio::test]
async fn memory_alone_answers_while_the_log_thread_hangs() {
    let root = tempfile::tempdir().unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", ample()).unwrap();
    write_more(&log, 1, 0..1_000).await;
    let still = soon(hub.hand_over()).await.unwrap();
    assert!(read(&log, LogQuery::default()).await.iter().map(number).eq(0..1_000));
    drop(still);
}

#[tokio::test]
async fn a_log_in_memory_has_no_past() {
    let log = LogHub::new(None).open("web", ample()).unwrap();
    assert!(read(&log, tail(10)).await.is_empty());
}
