//! Output reaches a follower once or as a gap, and a follower that does not read holds up nobody.

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use xy_actors::policy::State;
use xy_daemon::protocol::method::{LogStream, Logs, LogsParams, Notification, OperationParams, Start};

use super::support::{World, list, script, until, within};

const FLOOD: u64 = 200_000;

#[tokio::test]
async fn whoever_comes_during_a_flood_sees_no_hole_between_the_past_and_what_follows() {
    // Memory holds less than is asked for, so that the past comes from the files, which takes a while.
    let mut world = World::with(&[(
        "flood",
        script("lines 1000000000 exit 0", r#"log: (buffer: "64KiB", max_size: "1MiB", keep: 2)"#),
    )]);
    let client = world.boot().await;
    for _ in 0..5 {
        let params = LogsParams { tail: Some(2000), follow: true, ..LogsParams::new("flood") };
        let mut follower = within("logs", client.subscribe::<Logs>(params)).await.expect("subscribed");
        // The log is new, so the number in a line's text is its position after the remark that it was started.
        let mut first = None;
        let mut position = None;
        loop {
            let next = within("the next line", follower.next()).await;
            match next.expect("connected").expect("it goes on") {
                Notification::Log(line) if line.stream == LogStream::Xy => {}
                Notification::Log(line) => {
                    let number = line.line.strip_prefix("line ").and_then(|text| text.parse::<u64>().ok());
                    let number = number.unwrap_or_else(|| panic!("not from the server: {line:?}"));
                    assert_eq!(number, position.unwrap_or(number), "lines are missing or told twice");
                    position = Some(number + 1);
                    if number > *first.get_or_insert(number) + 3000 {
                        break;
                    }
                }
                Notification::LogGap(gap) => {
                    assert_eq!(
                        gap.first - 1,
                        position.unwrap_or(gap.first - 1),
                        "the gap begins where it is"
                    );
                    position = Some(gap.last);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_flood_is_followed_line_by_line_or_in_gaps_and_an_idle_follower_is_no_brake() {
    let mut world = World::new();
    let (go, done) = (world.path("go"), world.path("done"));
    let steps =
        format!("lines 10 wait-for {} lines {FLOOD} touch {} sleep-forever", go.display(), done.display());
    world.write("flood", &script(&steps, "autostart: false"));
    let client = world.boot().await;
    within("start", client.call::<Start>(OperationParams::named("flood"))).await.expect("answered");

    let mut idle = UnixStream::connect(world.socket()).await.expect("it accepts");
    let request = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"logs\",\"params\":{\"name\":\"flood\",\"follow\":true}}\n";
    idle.write_all(request.as_bytes()).await.expect("sent");

    let params = LogsParams { tail: Some(1000), follow: true, ..LogsParams::new("flood") };
    let mut follower = within("logs", client.subscribe::<Logs>(params)).await.expect("subscribed");
    std::fs::write(&go, "").expect("written");

    // The log is new and the tail long enough to begin with its first line, so each position is known.
    let mut position = 0_u64;
    let mut seen = 0_u64;
    while position < FLOOD + 11 {
        match within("the next line", follower.next()).await.expect("connected").expect("it goes on") {
            Notification::Log(line) => {
                match position {
                    0 => assert!(line.stream == LogStream::Xy && line.line.starts_with("started: ")),
                    1..11 => assert_eq!(line.line, format!("line {}", position - 1)),
                    _ => assert_eq!(line.line, format!("line {}", position - 11), "at {position}"),
                }
                assert!(position == 0 || line.stream == LogStream::Out);
                // A line that was read back from a file has no number.
                assert!(line.number == position || line.number == 0, "{} at {position}", line.number);
                position += 1;
                seen += 1;
                if seen.is_multiple_of(50_000) {
                    assert_eq!(list(&client).await.len(), 1, "others are answered meanwhile");
                }
            }
            Notification::LogGap(gap) => {
                assert_eq!(gap.first, position);
                assert!(gap.last >= gap.first, "{gap:?}");
                position = gap.last + 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(position, FLOOD + 11, "nothing was made up");
    assert!(seen > 0, "something was shown");
    until("the end of the flood", || async { done.exists().then_some(()) }).await;
    drop(idle);
}

#[tokio::test]
async fn the_past_is_selected_by_incarnation_time_and_pattern() {
    let mut world = World::with(&[(
        "web",
        script(
            "lines 20 exit 1",
            r#"restart: (policy: Always, backoff_initial: "0s", max_retries_per_minute: 1)"#,
        ),
    )]);
    let client = world.boot().await;
    until("the server has failed", || async {
        list(&client).await.iter().any(|server| server.state == State::Failed).then_some(())
    })
    .await;
    let read = async |params: LogsParams| {
        let mut lines = within("logs", client.subscribe::<Logs>(params)).await.expect("subscribed");
        let mut read = Vec::new();
        while let Some(next) = within("the next line", lines.next()).await.expect("connected") {
            let Notification::Log(line) = next else { panic!("{next:?}") };
            read.push(line);
        }
        read
    };
    let web = || LogsParams::new("web");
    let all = read(web()).await;
    assert_eq!(all.len(), 44, "two incarnations of 20 lines, each with two markers");
    let previous = read(LogsParams { previous: true, ..web() }).await;
    assert!(previous[0].line.starts_with("started: incarnation 1, pid "), "{:?}", previous[0]);
    assert!(
        previous[21].line.contains(": exit code 1") || previous[21].line.contains("exited with"),
        "{:?}",
        previous[21]
    );
    assert_eq!(previous.len(), 22);
    let found = read(LogsParams { grep: Some("^line 1[0-4]$".into()), tail: Some(7), ..web() }).await;
    let found: Vec<&str> = found.iter().map(|line| line.line.as_str()).collect();
    assert_eq!(found, ["line 13", "line 14", "line 10", "line 11", "line 12", "line 13", "line 14"]);
    let output = read(LogsParams { tail: Some(23), output_only: true, ..web() }).await;
    let output: Vec<&str> = output.iter().map(|line| line.line.as_str()).collect();
    let numbers = (17..20).chain(0..20).map(|number| format!("line {number}"));
    assert_eq!(output, numbers.collect::<Vec<_>>(), "remarks are left out and do not count");
    let since = all[43].ts_unix_ms;
    assert!(
        read(LogsParams { since_unix_ms: Some(since), ..web() })
            .await
            .iter()
            .all(|line| line.ts_unix_ms >= since)
    );
    assert!(read(LogsParams { until_unix_ms: Some(all[0].ts_unix_ms), ..web() }).await.is_empty());

    for (params, parameter) in [
        (LogsParams { grep: Some("(".into()), ..web() }, "grep"),
        (LogsParams { previous: true, follow: true, ..web() }, "previous"),
        (LogsParams { until_unix_ms: Some(1), follow: true, ..web() }, "until_unix_ms"),
    ] {
        let refused = within("logs", client.subscribe::<Logs>(params)).await.expect_err("it makes no sense");
        assert!(refused.to_string().contains(parameter), "{refused}");
    }
}
