//! Output and events as they come.

use std::io::{BufRead, BufReader, Read};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use xy_daemon::protocol::method::{Event, Events, Gap, LogLine, LogStream, Logs, Notification};

use crate::daemon::{After, Daemon};
use crate::xyctl::{finish, signal, start};

fn line(number: u64, text: &str) -> LogLine {
    LogLine {
        name: "web".into(),
        stream: LogStream::Out,
        line: text.into(),
        line_base64: None,
        ts_unix_ms: 5,
        number,
        partial: false,
    }
}

fn log(number: u64, text: &str) -> Notification {
    Notification::Log(line(number, text))
}

fn event(seq: u64, event_type: &str, payload: Value) -> Notification {
    let Value::Object(payload) = payload else { panic!("a payload is an object") };
    Notification::Event(Event {
        version: Event::VERSION,
        id: format!("18f-{seq}"),
        seq,
        at_unix_ms: 43_381_000,
        path: "web".into(),
        incarnation: Some(1),
        event_type: event_type.into(),
        payload,
    })
}

#[test]
fn a_pipe_gets_the_servers_bytes() {
    let daemon = Daemon::start();
    let inexact = LogLine { line_base64: Some("/wBh".into()), ..line(3, "\u{fffd}\0a") };
    let partial = LogLine { partial: true, ..line(4, "half ") };
    let error = LogLine { stream: LogStream::Err, ..line(6, "oh") };
    daemon.say::<Logs>(
        vec![
            log(1, "one"),
            log(2, "\x1b[31mred\x1b[0m\ttab"),
            Notification::Log(inexact),
            Notification::Log(partial),
            log(5, "whole"),
            Notification::Log(error),
        ],
        After::End,
    );
    let run = daemon.xyctl(&["logs", "web", "-n", "6"]);
    assert_eq!(run.stdout, b"one\n\x1b[31mred\x1b[0m\ttab\n\xff\0a\nhalf whole\noh\n");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(daemon.asked::<Logs>().unwrap(), json!({ "name": "web", "tail": 6, "output_only": true }));
}

#[test]
fn remarks_are_asked_for_where_they_are_shown() {
    let daemon = Daemon::start();
    let remark = || LogLine { stream: LogStream::Xy, ..line(1, "started: incarnation 1, pid 5") };
    for (arguments, asked) in [
        (&["logs", "web", "--stream"][..], json!({ "name": "web" })),
        (&["logs", "web", "--json"], json!({ "name": "web" })),
        (&["logs", "web"], json!({ "name": "web", "output_only": true })),
    ] {
        daemon.say::<Logs>(vec![Notification::Log(remark())], After::End);
        let run = daemon.xyctl(arguments);
        assert_eq!(daemon.asked::<Logs>().unwrap(), asked, "{arguments:?}");
        assert_eq!(run.text().contains("started"), asked.get("output_only").is_none(), "{arguments:?}");
    }
}

#[test]
fn a_line_that_another_stream_cuts_off_is_ended() {
    let daemon = Daemon::start();
    let partial = LogLine { partial: true, ..line(1, "half") };
    let error = LogLine { stream: LogStream::Err, ..line(2, "oh") };
    daemon.say::<Logs>(vec![Notification::Log(partial), Notification::Log(error)], After::End);
    daemon.xyctl(&["logs", "web", "--stream"]).is(0, "out | half\nerr | oh\n", "");
}

#[test]
fn missed_lines_are_counted_where_they_are_missing() {
    let lines = || vec![log(1, "a"), Notification::LogGap(Gap { first: 2, last: 1235 }), log(1236, "b")];
    let daemon = Daemon::start();
    daemon.say::<Logs>(lines(), After::End);
    daemon.xyctl(&["logs", "web"]).is(0, "a\nb\n", "… 1,234 lines skipped\n");
    daemon.say::<Logs>(lines(), After::End);
    daemon.xyctl(&["logs", "web", "--json"]).is(
        0,
        "{\"type\":\"log\",\"name\":\"web\",\"stream\":\"out\",\"line\":\"a\",\"ts_unix_ms\":5,\"number\":1}\n\
         {\"type\":\"log_gap\",\"first\":2,\"last\":1235}\n\
         {\"type\":\"log\",\"name\":\"web\",\"stream\":\"out\",\"line\":\"b\",\"ts_unix_ms\":5,\"number\":1236}\n",
        "",
    );
}

#[test]
fn a_follower_learns_that_the_daemon_went_away() {
    for arguments in [&["logs", "-f", "web"][..], &["events", "-f"]] {
        let mut daemon = Daemon::start();
        daemon.say::<Logs>(vec![log(1, "one")], After::Wait);
        daemon.say::<Events>(vec![event(1, "child_ready", json!({}))], After::Wait);
        let mut child = start(&daemon.socket(), arguments);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert!(first.ends_with('\n'), "{arguments:?}");
        daemon.stop();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        finish(child).is(
            2,
            "",
            "error: the daemon closed the connection\n\
             hint: see whether the daemon still runs with `xyctl version`\n",
        );
    }
}

#[test]
fn a_follower_learns_that_the_server_is_gone() {
    let daemon = Daemon::start();
    daemon.say::<Logs>(vec![log(1, "one")], After::End);
    let run = daemon.xyctl(&["logs", "--follow", "web"]);
    run.is(0, "one\n", "the log of `web` has ended: the server was removed, or the daemon is stopping\n");
    assert_eq!(
        daemon.asked::<Logs>().unwrap(),
        json!({ "name": "web", "follow": true, "output_only": true })
    );
}

#[test]
fn ctrl_c_ends_a_follower_with_success() {
    let daemon = Daemon::start();
    daemon.say::<Logs>(vec![log(1, "one")], After::Wait);
    let mut child = start(&daemon.socket(), &["logs", "-f", "web"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    signal(&child, Signal::SIGINT);
    finish(child).is(0, "", "");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let flood = || (0..100_000).map(|number| log(number, "a line of some length")).collect();
    for (notifications, arguments) in [
        (flood(), &["logs", "web"][..]),
        (flood(), &["logs", "-f", "web"]),
        // Nothing is written after the reader is gone.
        (vec![log(1, "one")], &["logs", "-f", "web"]),
    ] {
        let daemon = Daemon::start();
        daemon.say::<Logs>(notifications, After::Wait);
        let mut child = start(&daemon.socket(), arguments);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        drop(lines);
        finish(child).is(0, "", "");
    }
}

#[test]
fn events_without_follow_are_the_past() {
    let daemon = Daemon::start();
    daemon.say::<Events>(
        vec![
            Notification::EventGap(Gap { first: 1, last: 6 }),
            event(7, "child_ready", json!({ "pid": 4242 })),
            event(8, "child_exited", json!({ "cause": "signal 9 (SIGKILL)", "next": "restart", "nth": 1, "of": 5, "delay_ms": 1000 })),
            event(9, "invented_later", json!({ "note": "\x1b[2J" })),
        ],
        After::End,
    );
    daemon.xyctl(&["events"]).is(
        0,
        "     7  12:03:01  web          ready (pid 4242)
     8  12:03:01  web          exited: signal 9 (SIGKILL); restart 1 of 5 in 1.0 s
     9  12:03:01  web          invented later: note=\"\\u001b[2J\"
",
        "",
    );
    assert_eq!(daemon.asked::<Events>().unwrap(), json!({ "from": 1, "follow": false }));
}

#[test]
fn a_long_past_is_told_to_its_end() {
    let daemon = Daemon::start();
    let events = (1..=20_000).map(|seq| event(seq, "child_ready", json!({ "pid": seq }))).collect();
    daemon.say::<Events>(events, After::End);
    let run = daemon.xyctl(&["events", "--json"]);
    assert_eq!((run.code, run.text().lines().count(), run.stderr.as_str()), (Some(0), 20_000, ""));
}

#[test]
fn missed_events_are_reported_when_their_numbers_were_asked_for() {
    let daemon = Daemon::start();
    let events =
        || vec![Notification::EventGap(Gap { first: 3, last: 3 }), event(4, "child_ready", json!({}))];
    daemon.say::<Events>(events(), After::End);
    let run = daemon.xyctl(&["events", "--from", "3"]);
    assert_eq!(run.stderr, "… 1 event skipped\n");
    daemon.say::<Events>(events(), After::End);
    daemon.xyctl(&["events", "--from", "3", "--json"]).is(
        0,
        "{\"type\":\"event_gap\",\"first\":3,\"last\":3}\n\
         {\"version\":1,\"id\":\"18f-4\",\"seq\":4,\"at_unix_ms\":43381000,\"path\":\"web\",\"incarnation\":1,\"type\":\"child_ready\",\"payload\":{}}\n",
        "",
    );
}

#[test]
fn the_id_of_the_last_event_is_asked_of_the_daemon() {
    let daemon = Daemon::start();
    daemon.say::<Events>(vec![event(8, "child_paused", json!({}))], After::End);
    assert_eq!(daemon.xyctl(&["events", "--after", "18f-7"]).code, Some(0));
    assert_eq!(daemon.asked::<Events>().unwrap(), json!({ "after": "18f-7", "follow": false }));
    assert_eq!(daemon.xyctl(&["events", "--after", "18f-7", "--from", "3"]).code, Some(64));
}

#[test]
fn a_follower_of_events_starts_with_what_is_new() {
    let daemon = Daemon::start();
    daemon.say::<Events>(vec![event(7, "child_paused", json!({}))], After::End);
    let run = daemon.xyctl(&["events", "-f"]);
    run.is(0, "     7  12:03:01  web          paused\n", "the events have ended: the daemon is stopping\n");
    assert_eq!(daemon.asked::<Events>().unwrap(), json!({}));
}

#[test]
fn what_is_wanted_of_the_past_is_asked_of_the_daemon() {
    let daemon = Daemon::start();
    daemon.say::<Logs>(vec![log(1, "one")], After::End);
    let arguments = [
        "logs",
        "web",
        "--since",
        "2026-03-01T09:30:00.250Z",
        "--until",
        "2026-03-01T09:30:01Z",
        "-p",
        "-g",
        "^o",
    ];
    daemon.xyctl(&arguments).is(0, "one\n", "");
    let expected = json!({
        "name": "web",
        "since_unix_ms": 1_772_357_400_250_u64,
        "until_unix_ms": 1_772_357_401_000_u64,
        "previous": true,
        "grep": "^o",
        "output_only": true,
    });
    assert_eq!(daemon.asked::<Logs>().unwrap(), expected);
    for wrong in [&["logs", "web", "--since", "soon"][..], &["logs", "-f", "--previous", "web"]] {
        assert_eq!(daemon.xyctl(wrong).code, Some(64), "{wrong:?}");
    }
}
