//! Names that lead elsewhere: whatever is asked of them is refused, and nothing is made of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::support::{World, lines, ready, script, until, within};

const NAMES: [&str; 12] = [
    "..",
    ".",
    "",
    "../web",
    "../../etc/passwd",
    "/etc/passwd",
    "web/../web",
    "web/",
    "a\0b",
    "a\nb",
    "\u{1b}[2J",
    "%2e%2e",
];

fn paths_below(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { paths_below(&path) } else { BTreeSet::from([path]) }).collect()
}

#[tokio::test]
async fn a_name_that_climbs_reaches_nothing_by_any_method() {
    let mut world = World::with(&[("web", script("lines 3 sleep-forever", ""))]);
    let client = world.boot().await;
    let pid = ready(&client, "web").await;
    // Its log is a file as soon as its first line has arrived, which readiness does not wait for.
    let log = world.path("state/xy/logs/web.log");
    until("the server's lines are in its log", async || (lines(&log) >= 3).then_some(())).await;
    let before = paths_below(world.directory.path());
    let stream = UnixStream::connect(world.socket()).await.expect("it listens");
    let (reader, mut writer) = stream.into_split();
    let mut answers = BufReader::new(reader).lines();
    let long = "a".repeat(100_000);
    for name in NAMES.iter().copied().chain([long.as_str()]) {
        let many = json!({ "names": [name] });
        let one = json!({ "name": name });
        let signal = json!({ "names": [name], "signal": "KILL" });
        let add = json!({ "name": name, "command": "/bin/true" });
        let each = ["start", "stop", "restart", "pause", "resume", "enable", "disable"]
            .map(|method| (method, &many));
        let of_one = ["status", "logs", "why", "show", "remove"].map(|method| (method, &one));
        for (method, params) in each.into_iter().chain(of_one).chain([("signal", &signal), ("add", &add)]) {
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            writer.write_all(format!("{request}\n").as_bytes()).await.expect("it reads");
            let line = within(method, answers.next_line()).await.expect("readable").expect("an answer");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            let has_failed = answer["result"]["failed"].as_array().is_some_and(|failed| failed.len() == 1);
            assert!(answer["error"].is_object() || has_failed, "{method} {name:?}: {answer}");
            // Written as JSON, it holds no byte that a terminal would heed.
            assert!(!line.bytes().any(|byte| byte < 0x20), "{line:?}");
        }
    }
    assert_eq!(ready(&client, "web").await, pid, "the server has nothing to do with it");
    let mut created = paths_below(world.directory.path());
    created.retain(|path| !before.contains(path));
    // Each attempt is on record, cut to what a name can be, so that this is one file.
    assert!(created.remove(&world.directory.path().join("state/xy/audit.log")), "{created:?}");
    // What the daemon keeps of its own events is written a moment after them.
    created.remove(&world.directory.path().join("state/xy/events.jsonl"));
    assert!(created.is_empty(), "{created:?}");
    assert!(!world.said().contains('\u{1b}'), "the daemon's own log is for terminals");
}
