//! Output reaches a follower once or as a gap, and a follower that does not read holds up nobody.

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use xy_daemon::protocol::method::{LogStream, Logs, LogsParams, Notification, OperationParams, Start};

use super::support::{World, list, script, until, within};

const FLOOD: u64 = 1_000_000;

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
        // The log is new, so the number in a line's text is its position.
        let mut first = None;
        let mut position = None;
        loop {
            let next = within("the next line", follower.next()).await;
            match next.expect("connected").expect("it goes on") {
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
                    assert_eq!(gap.first, position.unwrap_or(gap.first), "the gap begins where it is");
                    position = Some(gap.last + 1);
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
    while position < FLOOD + 10 {
        match within("the next line", follower.next()).await.expect("connected").expect("it goes on") {
            Notification::Log(line) => {
                let expected = if position < 10 { position } else { position - 10 };
                assert_eq!(line.line, format!("line {expected}"), "at {position}");
                assert_eq!(line.stream, LogStream::Out);
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
    assert_eq!(position, FLOOD + 10, "nothing was made up");
    assert!(seen > 0, "something was shown");
    until("the end of the flood", || async { done.exists().then_some(()) }).await;
    drop(idle);
}
