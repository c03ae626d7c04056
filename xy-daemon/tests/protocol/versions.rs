//! Clients of other versions: earlier ones go on, later ones are told what to do.

use serde_json::{Value, json};
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::{OLDEST_PROTOCOL, PROTOCOL_VERSION};

use super::harness::Server;

/// Asserts that everything that was said before is said now; there may be more.
fn assert_holds(before: &Value, now: &Value, place: &str) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (name, before) in before {
                let now = now.get(name).unwrap_or_else(|| panic!("{place}.{name} is gone"));
                assert_holds(before, now, &format!("{place}.{name}"));
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (index, (before, now)) in before.iter().zip(now).enumerate() {
                assert_holds(before, now, &format!("{place}[{index}]"));
            }
        }
        // It is for people.
        (Value::String(_), Value::String(_)) if place.ends_with(".message") => {}
        _ => assert_eq!(before, now, "{place}"),
    }
}

/// What a client of an earlier release wrote, and what it was answered then.
#[tokio::test]
async fn a_client_of_an_earlier_release_is_answered_as_it_was() {
    let server = Server::start();
    let conversation = include_str!("previous/0.1.0.jsonl");
    let mut client = server.raw().await;
    let mut asked = 0;
    for line in conversation.lines() {
        match line.split_once(' ') {
            Some((">", request)) => {
                client.send(request).await;
                asked += 1;
            }
            Some(("<", answer)) => {
                let before: Value = serde_json::from_str(answer).expect("JSON");
                let now = client.message().await;
                assert_holds(&before, &now, "answer");
            }
            _ => panic!("`{line}` is neither a request nor an answer"),
        }
    }
    assert!(asked > 20, "the file is nearly empty");
    client.assert_alive().await;
}

#[tokio::test]
async fn a_client_that_speaks_another_protocol_is_told_which_side_to_upgrade() {
    let server = Server::start();
    let mut client = server.raw().await;
    for protocol in OLDEST_PROTOCOL..=PROTOCOL_VERSION {
        let request =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "version", "params": { "protocol": protocol } });
        assert_eq!(client.ask(&request.to_string()).await["result"]["protocol"], 1);
    }
    for (protocol, side) in [(PROTOCOL_VERSION + 1, "upgrade the daemon"), (0, "upgrade the client")] {
        let request =
            json!({ "jsonrpc": "2.0", "id": 2, "method": "version", "params": { "protocol": protocol } });
        let refused = client.ask(&request.to_string()).await;
        assert_eq!(refused["error"]["data"]["kind"], ErrorKind::UnsupportedProtocol.as_str(), "{refused}");
        let message = refused["error"]["message"].as_str().expect("text");
        assert!(message.contains(side) && message.contains(&format!("version {protocol} ")), "{message}");
    }
    client.assert_alive().await;
}

#[tokio::test]
async fn what_only_a_later_client_knows_is_refused_with_the_version_spoken_here() {
    let server = Server::start();
    let mut client = server.raw().await;
    let refused = client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"invented_later"}"#).await;
    assert_eq!(refused["error"]["code"], -32601, "{refused}");
    let message = refused["error"]["message"].as_str().expect("text");
    assert!(message.contains(&format!("speaks version {PROTOCOL_VERSION} of the protocol")), "{message}");
}

#[tokio::test]
async fn the_client_of_this_version_agrees_with_the_daemon_of_this_version() {
    let server = Server::start();
    let client = server.client().await;
    assert_eq!(client.agree().await.expect("it is understood").protocol, PROTOCOL_VERSION);
}
