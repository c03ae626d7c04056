//! A disk that fails costs lines of the file and nothing else.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use xy_actors::log::{Cursor, LogHub, LogItem, LogQuery, LogSettings, Stream};

use crate::{ample, attach, number, read_files, read_to_end, soon, text, until, write_numbers};

#[tokio::test]
async fn an_unwritable_directory_drops_from_the_file_only_and_recovery_says_how_many() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("logs");
    fs::write(&logs, "a plain file where the directory should be").unwrap();
    let hub = LogHub::new(Some(logs.clone()));
    let log = hub.open("group/web", ample()).unwrap();
    let (attachment, out, mut err) = attach(&log, 1);
    let mut follower = log.follow(Cursor::Now);
    write_numbers(out, 0..100_000).join().unwrap();
    let mut seen = 0;
    while seen < 100_000 {
        for item in soon(follower.next()).await.unwrap() {
            assert!(matches!(item, LogItem::Line(line) if number(&line) == seen));
            seen += 1;
        }
    }
    soon(hub.flush()).await;
    let health = log.health();
    assert!(health.failing && health.last_error.is_some());
    assert_eq!((health.lines, health.dropped_lines), (100_000, 100_000));

    fs::remove_file(&logs).unwrap();
    let mut written = 100_000;
    until("the file works again", || {
        writeln!(err, "{written}").unwrap();
        written += 1;
        !log.health().failing
    })
    .await;
    drop(err);
    read_to_end(attachment).await;
    let health = log.health();
    assert_eq!(health.lines, written);
    let lines = read_files(&logs, "group/web");
    let (marker, rest) = lines.split_first().unwrap();
    assert_eq!(marker.stream, Stream::Xy);
    assert!(text(marker).starts_with(&format!("{} lines dropped: ", health.dropped_lines)));
    assert!(rest.iter().map(number).eq(health.dropped_lines..written));
}

#[tokio::test]
async fn a_file_that_cannot_be_rotated_goes_on_and_says_so_once_and_when_it_can_be_again() {
    let root = tempfile::tempdir().unwrap();
    let in_the_way = root.path().join("web.log.1");
    fs::create_dir(&in_the_way).unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    let log = hub.open("web", LogSettings { max_size: 20_000, keep: 2, ..ample() }).unwrap();
    let (attachment, mut out, err) = attach(&log, 1);
    drop(err);
    let mut written = 0;
    let mut write = |count: u64| {
        let lines: String = (written..written + count).map(|number| format!("{number}\n")).collect();
        out.write_all(lines.as_bytes()).unwrap();
        written += count;
        written
    };
    for _ in 0..20 {
        let lines = write(1_000);
        until("they are read", || log.health().lines > lines).await;
    }
    soon(hub.flush()).await;
    let health = log.health();
    let path = root.path().join("web.log").display().to_string();
    let why = format!("`{path}` cannot be rotated and grows beyond its limits: ");
    assert!(health.unrotated.as_ref().is_some_and(|said| said.len() > why.len() && said.starts_with(&why)));
    assert_eq!((health.failing, health.dropped_lines, &health.last_error), (false, 0, &health.unrotated));
    assert!(fs::metadata(&path).unwrap().len() > 400_000);

    fs::remove_dir(&in_the_way).unwrap();
    until("it is rotated", || {
        write(1);
        log.health().unrotated.is_none()
    })
    .await;
    let lines = write(1);
    drop(out);
    read_to_end(attachment).await;
    let expected = [why, format!("`{path}` is within its limits again")];
    for lines_of in [log.tail(usize::MAX), read_files(root.path(), "web")] {
        let output = lines_of.iter().filter(|line| line.stream == Stream::Out);
        assert!(output.map(number).eq(0..lines), "nothing is lost, twice or out of order");
        let remarks: Vec<_> = lines_of.iter().filter(|line| line.stream == Stream::Xy).map(text).collect();
        assert_eq!(remarks.len(), expected.len(), "{remarks:?}");
        assert!(remarks.iter().zip(&expected).all(|(said, begin)| said.starts_with(begin)), "{remarks:?}");
    }
    assert!(in_the_way.is_file() && log.health().last_error.is_some());
}

/// Names the directory of the process whose renames fail.
const ROTATES_IN: &str = "XY_TEST_ROTATES_IN";

/// This test runs itself under `strace`, which lets one rename after the other fail; without it, it says so and proves
/// nothing.
#[tokio::test]
async fn whichever_rename_of_a_rotation_fails_no_line_is_lost_or_twice() {
    const LINES: u64 = 30;
    let settings = LogSettings { max_size: 100, keep: 1_000, ..ample() };
    if let Some(directory) = std::env::var_os(ROTATES_IN) {
        let hub = LogHub::new(Some(directory.into()));
        let log = hub.open("web", settings).unwrap();
        for number in 0..LINES {
            log.note(&number.to_string());
            soon(hub.flush()).await;
        }
        return;
    }
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let mut injected = 0;
    for at in 1..=12 {
        let root = tempfile::tempdir().unwrap();
        let (logs, trace) = (root.path().join("logs"), root.path().join("trace"));
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq", "-e", "signal=none", "-e", "trace=renameat,renameat2", "-o"]).arg(&trace);
        command.args(["-e", &format!("inject=renameat,renameat2:error=EIO:when={at}")]);
        command.arg(std::env::current_exe().unwrap());
        command.args(["--exact", "disk::whichever_rename_of_a_rotation_fails_no_line_is_lost_or_twice"]);
        let run = command.env(ROTATES_IN, &logs).stdin(Stdio::null()).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        injected += fs::read_to_string(&trace).unwrap().matches("(INJECTED)").count();

        let log = LogHub::new(Some(logs.clone())).open("web", settings).unwrap();
        let mut reader = soon(log.read(LogQuery::default())).await;
        let mut texts = Vec::new();
        while let Some(items) = soon(reader.next()).await {
            for item in items {
                let LogItem::Line(line) = item else { panic!("nothing is missing: {item:?}") };
                texts.push(text(&line).to_owned());
            }
        }
        let remarks = texts.iter().filter(|text| text.contains("cannot be rotated")).count();
        texts.retain(|text| !text.contains("cannot be rotated"));
        let expected: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
        assert_eq!((texts, remarks), (expected, 1), "the rename {at} failed");
    }
    assert!(injected >= 12, "{injected}");
}

#[tokio::test]
async fn a_planted_link_is_refused_and_said() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("target");
    fs::write(&target, "untouched").unwrap();
    let logs = root.path().join("logs");
    fs::create_dir(&logs).unwrap();
    std::os::unix::fs::symlink(&target, logs.join("web.log")).unwrap();
    let hub = LogHub::new(Some(logs));
    let log = hub.open("web", ample()).unwrap();
    log.note("hello");
    soon(hub.flush()).await;
    assert_eq!(fs::read(&target).unwrap(), b"untouched");
    let health = log.health();
    assert_eq!((health.dropped_lines, health.failing), (1, true));
    assert!(health.last_error.unwrap().contains("symbolic link"));
    assert_eq!(log.tail(1).len(), 1);
}

#[tokio::test]
async fn a_file_left_torn_by_a_crash_is_ended_before_anything_is_added() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("web.log");
    fs::write(&file, "2026-03-01T09:30:00.250Z out whole\n2026-03-01T09:30:00.251Z out to").unwrap();
    let hub = LogHub::new(Some(root.path().to_owned()));
    hub.open("web", ample()).unwrap().note("next");
    soon(hub.flush()).await;
    let lines = read_files(root.path(), "web");
    let expected = ["whole", "to", "the line above was cut short", "next"];
    assert!(lines.iter().map(text).eq(expected));
}

#[tokio::test]
async fn a_host_that_died_before_an_exit_is_told_of_at_the_next_start_and_only_then() {
    let gap = "gap: xy ended while incarnation 1 (pid 40) ran; at most 64 KiB of each stream may be missing";
    let flood = "2026-03-01T09:30:00.250Z out flood\n".repeat(300_000);
    let started = "2026-03-01T09:30:00.250Z xy started: incarnation 1, pid 40\n";
    let exited = "2026-03-01T09:30:01.250Z xy exited: incarnation 1, pid 40: exit code 0\n";
    let some = "gap: xy ended while an incarnation ran; at most 64 KiB of each stream may be missing";
    for (before, expected) in [
        (String::new(), None),
        ("2026-03-01T09:30:00.250Z out without markers\n".to_owned(), None),
        (format!("{started}{exited}"), None),
        (started.to_owned(), Some(gap)),
        (format!("{started}2026-03-01T09:30:01.250Z out to"), Some(gap)),
        (format!("{started}{exited}{flood}"), Some(some)),
    ] {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("web.log"), &before).unwrap();
        let hub = LogHub::new(Some(root.path().to_owned()));
        let log = hub.open("web", ample()).unwrap();
        log.mark_start(1, 50);
        log.mark_start(2, 51);
        soon(hub.flush()).await;
        let mut lines: Vec<_> = log.tail(9).iter().map(|line| text(line).to_owned()).collect();
        lines.truncate(lines.len() - 2);
        assert_eq!(lines, Vec::from_iter(expected));
    }
}
