//! Tokens of programs, made and taken back by `xyctl` on a real daemon with HTTP.

use serde_json::json;

use crate::real::RealDaemon;

#[test]
fn a_token_is_printed_once_listed_without_it_rotated_and_taken_back() {
    let daemon = RealDaemon::start_with("(http: (listen: \"127.0.0.1:0\"))", &[]);
    let first = daemon.ok(&["token", "add", "grafana", "--scope", "read"]);
    let first = first.text().trim();
    assert_eq!(first.len(), 43);
    assert_eq!(daemon.json(&["token", "add", "ci", "--scope", "operate"])["scope"], "operate");
    let listed = daemon.json(&["token", "list"]);
    assert_eq!((&listed["tokens"][0]["name"], &listed["tokens"][1]["scope"]), (&json!("ci"), &json!("read")));
    let shown = format!("{}{listed}", daemon.ok(&["token", "list"]).text());
    assert!(shown.contains("grafana") && !shown.contains(first), "{shown}");
    let second = daemon.ok(&["token", "rotate", "grafana"]);
    let second = second.text().trim();
    assert!(second.len() == 43 && second != first, "{second}");
    assert!(daemon.ok(&["token", "rotate"]).text().starts_with("the new token is in "));
    assert_eq!(daemon.ok(&["token", "rm", "grafana"]).text(), "removed the token of grafana\n");
    let again = daemon.xyctl(&["token", "rm", "grafana"]);
    assert!(again.code == Some(1) && again.stderr.contains("no client `grafana` has a token"), "{again:?}");
    let status = daemon.ok(&["daemon", "status"]);
    let status = status.text();
    assert!(status.contains("1 clients with tokens of their own") && status.contains("are kept"), "{status}");
}
