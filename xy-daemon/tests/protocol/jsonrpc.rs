//! JSON-RPC 2.0 to the letter: the specification's examples, ids, batches, notifications, and text that is none of it.

use serde_json::{Value, json};

use crate::harness::Server;

/// Asserts code, stable kind and id of an error.
fn assert_error(answer: &Value, code: i32, kind: &str, id: &Value) {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    assert_eq!(answer["error"]["code"], code, "{answer}");
    assert_eq!(answer["error"]["data"]["kind"], kind, "{answer}");
    assert_eq!(answer.get("id"), Some(id), "{answer}");
    assert!(answer.get("result").is_none(), "{answer}");
}

fn assert_invalid(answer: &Value) {
    assert_error(answer, -32600, "invalid_request", &Value::Null);
}

#[tokio::test]
async fn the_specifications_examples_with_one_request() {
    let server = Server::start();
    let mut raw = server.raw().await;
    // The specification's `subtract` does not exist here, so its calls show that the request itself is understood.
    let answer = raw.ask(r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#).await;
    assert_error(&answer, -32601, "method_not_found", &json!(1));
    let named =
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#;
    assert_error(&raw.ask(named).await, -32601, "method_not_found", &json!(3));
    // Notifications.
    raw.send(r#"{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}"#).await;
    raw.send(r#"{"jsonrpc": "2.0", "method": "foobar"}"#).await;
    raw.assert_alive().await;
    // A method that does not exist.
    let answer = raw.ask(r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#).await;
    assert_error(&answer, -32601, "method_not_found", &json!("1"));
    // Invalid JSON.
    let answer = raw.ask(r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#).await;
    assert_error(&answer, -32700, "parse_error", &Value::Null);
    // An invalid request.
    assert_invalid(&raw.ask(r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#).await);
    raw.assert_alive().await;
}

#[tokio::test]
async fn the_specifications_examples_with_batches() {
    let server = Server::start();
    let mut raw = server.raw().await;
    // Invalid JSON.
    let text =
        r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]"#;
    assert_error(&raw.ask(text).await, -32700, "parse_error", &Value::Null);
    // An empty list.
    assert_invalid(&raw.ask("[]").await);
    // Invalid, but not empty.
    let answers = raw.ask("[1]").await;
    assert_eq!(answers.as_array().map(Vec::len), Some(1), "{answers}");
    assert_invalid(&answers[0]);
    let answers = raw.ask("[1,2,3]").await;
    assert_eq!(answers.as_array().map(Vec::len), Some(3), "{answers}");
    answers.as_array().expect("checked").iter().for_each(assert_invalid);
    // Everything at once.
    let batch = r#"[{"jsonrpc": "2.0", "method": "version", "id": "1"},
        {"jsonrpc": "2.0", "method": "list"},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "list", "id": "9"}]"#
        .replace('\n', "");
    let answers = raw.ask(&batch).await;
    assert_eq!(answers.as_array().map(Vec::len), Some(5), "{answers}");
    assert_eq!((&answers[0]["id"], &answers[0]["result"]["pid"]), (&json!("1"), &json!(7)), "{answers}");
    assert_error(&answers[1], -32601, "method_not_found", &json!("2"));
    assert_invalid(&answers[2]);
    assert_error(&answers[3], -32601, "method_not_found", &json!("5"));
    assert_eq!(answers[4]["result"]["servers"][0]["name"], "files", "{answers}");
    // Notifications only: silence.
    raw.send(r#"[{"jsonrpc": "2.0", "method": "list"}, {"jsonrpc": "2.0", "method": "notify_hello"}]"#).await;
    raw.assert_alive().await;
    assert_eq!(server.script.lists.load(std::sync::atomic::Ordering::SeqCst), 3, "notifications run");
}

#[tokio::test]
async fn an_id_is_repeated_byte_for_byte() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let ids = [
        "1",
        "0",
        "-1",
        "-0",
        "1.0",
        "1.50",
        "1e2",
        "1E+2",
        "18446744073709551615",
        "18446744073709551616",
        "123456789012345678901234567890.123456789",
        "null",
        r#""""#,
        r#""a""#,
        r#""null""#,
        r#""\u00e9\/""#,
        r#""é""#,
        r#""a\nb""#,
        r#""😀""#,
    ];
    for id in ids {
        raw.send(&format!(r#"{{"jsonrpc":"2.0", "id" :  {id} , "method":"shutdown"}}"#)).await;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"stopping":true}}}}"#);
        assert_eq!(raw.line().await.as_deref(), Some(expected.as_str()));
        raw.send(&format!(r#"[{{"jsonrpc":"2.0","method":"shutdown","id":{id}}}]"#)).await;
        assert_eq!(raw.line().await, Some(format!("[{expected}]")));
        raw.send(&format!(r#"{{"method":"nothing","jsonrpc":"2.0","id":{id}}}"#)).await;
        let prefix = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"#);
        let line = raw.line().await.expect("an answer");
        assert!(line.starts_with(&prefix), "{line}");
    }
}

#[tokio::test]
async fn an_absent_id_gets_no_answer_and_a_null_id_gets_one() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for silent in [
        r#"{"jsonrpc":"2.0","method":"list"}"#,
        r#"{"jsonrpc":"2.0","method":"no_such_method"}"#,
        r#"{"jsonrpc":"2.0","method":"status","params":{"name":"missing"}}"#,
        r#"{"jsonrpc":"2.0","method":"status","params":{"nam":"x"}}"#,
        r#"{"jsonrpc":"2.0","method":"status","params":{"name":"panic"}}"#,
        r#"{"jsonrpc":"2.0","method":"logs","params":{"name":"three"}}"#,
        r#"[{"jsonrpc":"2.0","method":"list"}]"#,
    ] {
        raw.send(silent).await;
        raw.assert_alive().await;
    }
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":null,"method":"version"}"#).await;
    assert_eq!(answer["id"], Value::Null);
    assert!(answer["result"].is_object(), "{answer}");
}

#[tokio::test]
async fn an_id_of_the_wrong_type_is_refused_with_a_null_id() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for id in ["{}", "[]", "[1]", "true", "false", r#"{"a":1}"#] {
        assert_invalid(&raw.ask(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"version"}}"#)).await);
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_the_id_if_there_is_one() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for text in
        ["1", "\"a\"", "null", "true", "{}", r#"{"jsonrpc":"2.0"}"#, r#"{"method":"version"}"#, "[[]]"]
    {
        let answer = raw.ask(text).await;
        assert_invalid(if answer.is_array() { &answer[0] } else { &answer });
    }
    for members in [
        r#""jsonrpc":"1.0","method":"version""#,
        r#""jsonrpc":2.0,"method":"version""#,
        r#""jsonrpc":null,"method":"version""#,
        r#""method":"version""#,
        r#""jsonrpc":"2.0""#,
        r#""jsonrpc":"2.0","method":null"#,
        r#""jsonrpc":"2.0","method":["version"]"#,
        r#""jsonrpc":"2.0","method":"version","params":null"#,
        r#""jsonrpc":"2.0","method":"version","params":1"#,
        r#""jsonrpc":"2.0","method":"version","params":"{}""#,
        r#""jsonrpc":"2.0","result":{}"#,
    ] {
        let answer = raw.ask(&format!(r#"{{"id":"x",{members}}}"#)).await;
        assert_error(&answer, -32600, "invalid_request", &json!("x"));
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn members_may_be_escaped_and_unknown_ones_are_ignored() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let answer =
        raw.ask(r#"{"\u006asonrpc":"2\u002e0","\u0069d":1,"m\u0065thod":"versio\u006e","extra":{}}"#).await;
    assert_eq!(answer["id"], 1, "{answer}");
    assert_eq!(answer["result"]["protocol"], 1, "{answer}");
}

#[tokio::test]
async fn text_that_is_no_strict_json_is_a_parse_error_and_the_connection_lives() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"list","params":{}1{}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    let deeper = "[".repeat(1 << 19);
    let cases: Vec<&[u8]> = vec![
        b"hello",
        b"GET / HTTP/1.1",
        b"{",
        b"}",
        b"{]",
        b"nul",
        b"\x00",
        b"\x00\x01\x02\xff\xfe",
        b"\xff",
        b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}",
        br#"{"jsonrpc":"2.0","id":1,"method":"list"} {}"#,
        br#"{"jsonrpc":"2.0","id":1,"id":1,"method":"list"}"#,
        br#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"list"}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":"a","name":"b"}}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[{"b":1,"b":1}]}}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"list","params":{"a\u0000":1}}"#,
        br#"{"jsonrpc":"2.0","id":1e999,"method":"list"}"#,
        br#"{"jsonrpc":"2.0","id":NaN,"method":"list"}"#,
        br#"{"jsonrpc":"2.0","id":"\ud800","method":"list"}"#,
        br#"{'jsonrpc':'2.0'}"#,
        deep.as_bytes(),
        deeper.as_bytes(),
    ];
    for case in cases {
        raw.send_bytes(&[case, b"\n"].concat()).await.expect("the server reads");
        let answer = raw.message().await;
        assert_error(&answer, -32700, "parse_error", &Value::Null);
        raw.assert_alive().await;
    }
}

#[tokio::test]
async fn a_batch_of_100_is_answered_and_one_of_101_is_refused() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let batch = |count: usize| {
        let requests: Vec<_> =
            (0..count).map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"version"}}"#)).collect();
        format!("[{}]", requests.join(","))
    };
    let answers = raw.ask(&batch(100)).await;
    let ids: Vec<_> =
        answers.as_array().expect("a batch").iter().map(|answer| answer["id"].as_u64()).collect();
    assert_eq!(ids, (0..100).map(Some).collect::<Vec<_>>());
    let answer = raw.ask(&batch(101)).await;
    assert_invalid(&answer);
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("101")), "{answer}");
    raw.assert_alive().await;
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for (method, params, parameter) in [
        ("status", r#"{}"#, "name"),
        ("status", r#"{"name":1}"#, "name"),
        ("status", r#"{"name":null}"#, "name"),
        ("status", r#"{"name":"a\u0000b"}"#, "name"),
        ("status", r#"{"nam":"x"}"#, "nam"),
        ("status", r#"{"name":"x","extra":1}"#, "extra"),
        ("list", r#"{"verbose":true}"#, "verbose"),
        ("start", r#"{}"#, "names"),
        ("start", r#"{"names":[]}"#, "names"),
        ("start", r#"{"names":"x"}"#, "names"),
        ("start", r#"{"names":["x",1]}"#, "names"),
        ("start", r#"{"names":["x"],"all":true}"#, "names"),
        ("stop", r#"{"all":1}"#, "all"),
        ("stop", r#"{"all":true,"wait":"no"}"#, "wait"),
        ("restart", r#"{"all":true,"timeout_secs":-1}"#, "timeout_secs"),
        ("restart", r#"{"all":true,"timeout_secs":1.5}"#, "timeout_secs"),
        ("pause", r#"{"all":true,"reason":{}}"#, "reason"),
        ("signal", r#"{"all":true}"#, "signal"),
        ("signal", r#"{"all":true,"signal":"SIGTERM"}"#, "signal"),
        ("reload", r#"{"dry_run":"yes"}"#, "dry_run"),
        ("logs", r#"{"name":"x","tail":-1}"#, "tail"),
        ("logs", r#"{"name":"x","follow":1}"#, "follow"),
        ("events", r#"{"from":"x"}"#, "from"),
        ("logs_cancel", r#"{}"#, "subscription_id"),
        ("logs_cancel", r#"{"subscription_id":77}"#, "subscription_id"),
        ("events_cancel", r#"{"subscription_id":"1"}"#, "subscription_id"),
    ] {
        let answer =
            raw.ask(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)).await;
        assert_error(&answer, -32602, "invalid_params", &json!(1));
        assert_eq!(answer["error"]["data"]["parameter"], parameter, "{method} {params}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("`{parameter}`")), "{method} {params}: {message}");
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn parameters_by_position_are_refused_and_none_at_all_are_an_empty_object() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":1,"method":"status","params":["files"]}"#).await;
    assert_error(&answer, -32602, "invalid_params", &json!(1));
    for params in ["", r#","params":{}"#, r#","params":[]"#, r#","params":[ ]"#] {
        let answer = raw.ask(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"version"{params}}}"#)).await;
        assert_eq!(answer["result"]["version"], "1.2.3", "{params}: {answer}");
    }
}

#[tokio::test]
async fn every_method_is_dispatched() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for method in xy_daemon::protocol::method::METHODS {
        let answer = raw
            .ask(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"bogus":1}}}}"#))
            .await;
        assert_error(&answer, -32602, "invalid_params", &json!(1));
        assert_eq!(answer["error"]["data"]["parameter"], "bogus", "{method}: {answer}");
    }
    for method in ["", "List", "list ", "rpc.list", "explain", "create"] {
        let answer = raw.ask(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)).await;
        assert_error(&answer, -32601, "method_not_found", &json!(1));
    }
}

#[tokio::test]
async fn a_methods_own_error_keeps_its_code_and_kind() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":"missing"}}"#).await;
    assert_error(&answer, -32001, "server_not_found", &json!(1));
    let answer =
        raw.ask(r#"{"jsonrpc":"2.0","id":2,"method":"restart","params":{"names":["missing"]}}"#).await;
    assert_eq!(answer["result"]["failed"][0]["kind"], "server_not_found", "{answer}");
}
