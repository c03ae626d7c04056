//! Output reaches a follower once or as a gap, and a follower that does not read holds up nobody.

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use xy_daemon::protocol::method::{LogStream, Logs, LogsParams, Notification, OperationParams, Start};

use super::support::{World, list, script, until, within};

const FLOOD: u64 = 1_000_000;

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

    // Numbers are consecutive, whether they come as a line or within a gap.
    let mut expected: Option<u64> = None;
    let (mut seen, mut missed, mut out) = (0_u64, 0_u64, 0_u64);
    loop {
        let next = within("the next line", follower.next()).await.expect("connected").expect("it goes on");
        let (first, last) = match &next {
            Notification::Log(line) => (line.number, line.number),
            Notification::LogGap(gap) => (gap.first, gap.last),
            other => panic!("{other:?}"),
        };
        assert_eq!(first, expected.unwrap_or(first), "{next:?}");
        assert!(first <= last, "{next:?}");
        expected = Some(last + 1);
        match next {
            Notification::Log(line) => {
                seen += 1;
                if line.stream == LogStream::Out {
                    out += 1;
                }
                if line.line == format!("line {}", FLOOD - 1) {
                    break;
                }
            }
            _ => missed += last - first + 1,
        }
        if seen % 50_000 == 0 {
            assert_eq!(list(&client).await.len(), 1, "others are answered meanwhile");
        }
    }
    assert!(out > 0 && seen + missed >= FLOOD + 10, "{seen} seen, {missed} missed");
    until("the end of the flood", || async { done.exists().then_some(()) }).await;
    drop(idle);
}
