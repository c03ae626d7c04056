//! Followers see every line once or in a gap, and never hold up a child.

use std::io::Write as _;

use xy_actors::log::{Cursor, LogError, LogFollower, LogHub, LogItem, LogSettings};

use crate::{ample, attach, in_memory, number, read_to_end, soon, text, write_numbers};

const FLOOD: u64 = 1_000_000;

/// Reads until line `end - 1`; checks that lines and gaps follow on each other; returns how many were lines and gaps.
async fn read_to(follower: &mut LogFollower, end: u64) -> (u64, u64) {
    let (mut lines, mut missed) = (0, 0);
    let mut position = follower.position();
    while position < end {
        for item in soon(follower.next()).await.expect("the log is open") {
            match item {
                LogItem::Line(line) => {
                    assert_eq!((line.number, number(&line)), (position, position));
                    position += 1;
                    lines += 1;
                }
                LogItem::Gap { first, last } => {
                    assert!(first == position && last >= first);
                    position = last + 1;
                    missed += last + 1 - first;
                }
            }
        }
        assert_eq!(follower.position(), position);
    }
    (lines, missed)
}

#[tokio::test]
async fn a_flood_is_seen_line_by_line_or_as_exact_gaps() {
    let log = in_memory(LogSettings { buffer: 64 << 10, ..LogSettings::default() });
    let (attachment, out, _err) = attach(&log, 1);
    let mut eager = log.follow(Cursor::Now);
    let mut stalled = log.follow(Cursor::Now);
    let writer = write_numbers(out, 0..FLOOD);
    let (lines, missed) = read_to(&mut eager, FLOOD).await;
    assert_eq!(lines + missed, FLOOD);
    writer.join().unwrap();
    drop(attachment);

    let held = log.tail(usize::MAX);
    let (lines, missed) = read_to(&mut stalled, FLOOD).await;
    assert_eq!((lines, missed), (held.len() as u64, held[0].number));
    assert!(missed > 0 && lines > 0);
}

#[tokio::test]
async fn followers_that_never_read_hold_up_nobody_and_cost_no_memory() {
    let log = in_memory(LogSettings { buffer: 64 << 10, ..LogSettings::default() });
    let mut followers: Vec<_> = (0..100).map(|_| log.follow(Cursor::Now)).collect();
    for follower in &mut followers {
        // Polled once, so that it waits for lines when the flood begins.
        tokio::select! {
            biased;
            items = follower.next() => panic!("nothing was written: {items:?}"),
            () = std::future::ready(()) => {}
        }
    }
    let (attachment, out, err) = attach(&log, 1);
    drop(err);
    let writer = write_numbers(out, 0..FLOOD);
    tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
    read_to_end(attachment).await;
    assert_eq!(log.health().lines, FLOOD);
    let held: usize = log.tail(usize::MAX).iter().map(|line| line.bytes.len() + 1).sum();
    assert!(held <= 64 << 10);
}

#[tokio::test]
async fn a_tail_followed_by_a_follow_shows_every_line_exactly_once() {
    let log = in_memory(ample());
    let (_attachment, out, _err) = attach(&log, 1);
    let writer = write_numbers(out, 0..200_000);
    for _ in 0..200 {
        let tail = log.tail(50);
        assert!(tail.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
        let from = tail.last().map_or(0, |line| line.number + 1);
        let mut follower = log.follow(Cursor::At(from));
        assert_eq!(follower.position(), from);
        let (_, missed) = read_to(&mut follower, (from + 100).min(200_000)).await;
        assert_eq!(missed, 0);
    }
    let mut follower = log.follow(Cursor::Tail(50));
    assert_eq!(read_to(&mut follower, 200_000).await.1, 0);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_cursor_begins_where_it_says() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    for note in ["a", "b", "c"] {
        log.note(note);
    }
    soon(hub.flush()).await;
    let cases = [
        (Cursor::Tail(0), 3),
        (Cursor::Tail(2), 1),
        (Cursor::Tail(9), 0),
        (Cursor::Now, 3),
        (Cursor::At(0), 0),
        (Cursor::At(2), 2),
        (Cursor::At(u64::MAX), 3),
    ];
    for (cursor, position) in cases {
        assert_eq!(log.follow(cursor).position(), position, "{cursor:?}");
    }
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let log = in_memory(ample());
    let (_attachment, out, _err) = attach(&log, 1);
    let mut follower = log.follow(Cursor::Now);
    let writer = write_numbers(out, 0..100_000);
    let mut position = 0;
    while position < 100_000 {
        let items = tokio::select! {
            biased;
            items = follower.next() => items.unwrap(),
            () = tokio::task::yield_now() => continue,
        };
        for item in items {
            assert!(matches!(item, LogItem::Line(line) if number(&line) == position));
            position += 1;
        }
    }
    writer.join().unwrap();
}

#[tokio::test]
async fn a_line_that_arrives_while_a_follower_looks_still_wakes_it() {
    let log = in_memory(ample());
    let (_attachment, mut out, _err) = attach(&log, 1);
    let mut follower = log.follow(Cursor::Now);
    // Nothing else wakes the follower: each line is written after the one before was seen.
    for round in 0..20_000 {
        writeln!(out, "{round}").unwrap();
        let items = soon(follower.next()).await.unwrap();
        assert!(matches!(&items[..], [LogItem::Line(line)] if number(line) == round));
    }
}

#[tokio::test]
async fn closing_a_log_delivers_the_rest_and_then_the_end() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let (attachment, mut out, _err) = attach(&log, 1);
    let mut follower = log.follow(Cursor::Now);
    out.write_all(b"last words").unwrap();
    hub.close("web");
    let items = soon(follower.next()).await.unwrap();
    assert!(matches!(&items[..], [LogItem::Line(line)] if text(line) == "last words" && line.partial));
    assert_eq!(soon(follower.next()).await, None);
    assert_eq!(soon(log.follow(Cursor::Now).next()).await, None);
    read_to_end(attachment).await;

    let (stdout, _) = std::io::pipe().unwrap();
    let (stderr, _) = std::io::pipe().unwrap();
    let refused = log.attach(2, stdout.into(), stderr.into());
    assert!(matches!(refused, Err(LogError::Closed { .. })));
    let reopened = hub.open("web", ample()).unwrap();
    assert_eq!(reopened.health().lines, 0);
    hub.close("never opened");
}

#[tokio::test]
async fn closing_a_log_that_was_never_used_ends_its_followers() {
    let hub = LogHub::new(None);
    let log = hub.open("web", ample()).unwrap();
    let mut follower = log.follow(Cursor::Tail(5));
    hub.close("web");
    assert_eq!(soon(follower.next()).await, None);
}
