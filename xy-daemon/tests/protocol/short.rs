//! Control messages: what a shell script says with nothing but `nc`.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::harness::{DEADLINE, Server};

#[tokio::test]
async fn each_control_message_is_answered_with_its_type_and_whether_it_worked() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let list = raw.ask(r#"{"type":"status"}"#).await;
    assert_eq!((&list["type"], &list["ok"]), (&json!("status"), &json!(true)), "{list}");
    assert_eq!(list["result"]["servers"][0]["name"], "files", "{list}");
    let status = raw.ask(r#"{"type":"status","name":"files","id":"x"}"#).await;
    assert_eq!((&status["id"], &status["result"]["state"]), (&json!("x"), &json!("running")), "{status}");
    let paused = raw.ask(r#"{"type":"pause","name":"files"}"#).await;
    assert_eq!(paused["result"]["paused"], json!(["files"]), "{paused}");
    let resumed = raw.ask(r#"{"type":"resume"}"#).await;
    assert_eq!(resumed["result"]["resumed"], json!(["all"]), "{resumed}");
    let reload = raw.ask(r#"{"type":"reload"}"#).await;
    assert_eq!(reload["ok"], json!(false), "{reload}");
    assert_eq!(reload["error"]["data"]["kind"], "unsupported", "{reload}");
    let shutdown = raw.ask(r#"{"type":"shutdown","reason":"night"}"#).await;
    assert_eq!(shutdown["result"]["stopping"], json!(true), "{shutdown}");
}

#[tokio::test]
async fn a_control_message_that_is_wrong_says_what_is_wrong() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for (line, kind) in [
        (r#"{"type":"stop"}"#, "method_not_found"),
        (r#"{"type":3}"#, "method_not_found"),
        (r#"{"type":"status","name":"missing"}"#, "server_not_found"),
        (r#"{"type":"status","name":3}"#, "invalid_params"),
        (r#"{"type":"pause","names":[]}"#, "invalid_params"),
        (r#"{"type":"reload","dryrun":true}"#, "invalid_params"),
        (r#"{"type":"status","name":"panic"}"#, "internal_error"),
        (r#"{"type":"status","name":"large"}"#, "internal_error"),
    ] {
        let answer = raw.ask(line).await;
        assert_eq!(
            (&answer["ok"], &answer["error"]["data"]["kind"]),
            (&json!(false), &json!(kind)),
            "{line}"
        );
        assert!(answer.get("jsonrpc").is_none(), "{answer}");
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn control_messages_and_json_rpc_share_a_connection_and_batches_have_none() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let answers = raw.ask(r#"[{"type":"status"},{"jsonrpc":"2.0","id":1,"method":"version"}]"#).await;
    assert_eq!(answers[0]["error"]["code"], -32600, "{answers}");
    assert_eq!(answers[1]["result"]["pid"], 7, "{answers}");
    // `jsonrpc` decides, whatever else is there.
    let answer = raw.ask(r#"{"jsonrpc":"1.0","type":"status","id":2}"#).await;
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &json!(2)), "{answer}");
    raw.assert_alive().await;
}

#[tokio::test]
async fn a_client_that_writes_one_line_closes_and_reads_to_the_end_gets_its_answer() {
    let server = Server::start();
    let path = server.path().to_owned();
    // What `echo '{"type":"status"}' | nc -N -U SOCKET` does.
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
        stream.write_all(b"{\"type\":\"status\"}\n").expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer and the end");
        said
    });
    let said = said.await.expect("no panic");
    assert!(said.starts_with(r#"{"type":"status","ok":true,"result":{"servers":["#), "{said}");
    assert!(said.ends_with("}\n") && said.lines().count() == 1, "{said}");
}
