//! The transport of MCP: what is answered with which status, in both eras of the protocol.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::server::Server;

const MODERN: &str = "2026-07-28";

/// The headers of a call in the newer era.
pub(crate) fn call_headers(tool: &str) -> String {
    format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n")
}

fn modern(method: &str, name: Option<&str>) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "robot", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut params = json!({ "_meta": meta });
    if let Some(name) = name {
        params["name"] = name.into();
    }
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string()
}

/// Sends a message and returns the status, the code of the error and the id that it is told to.
async fn send(server: &Server, headers: &str, message: &str) -> (u16, Value, Value) {
    let answer = server.send(server.text("POST", "/mcp", headers, message)).await;
    let said = if answer.body.is_empty() { Value::Null } else { answer.json() };
    (answer.status, said["error"]["code"].clone(), said["id"].clone())
}

#[tokio::test]
async fn what_is_no_message_is_a_bad_request_with_the_error_of_json_rpc_as_its_body() {
    let server = Server::start().await;
    for (message, code, id) in [
        ("", -32700, Value::Null),
        ("{", -32700, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, -32700, Value::Null),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600, Value::Null),
        ("7", -32600, Value::Null),
        (r#"{"id":1,"method":"ping"}"#, -32600, json!(1)),
        (r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#, -32600, json!("a")),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":["a"]}"#, -32600, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, -32600, json!(1)),
    ] {
        assert_eq!(send(&server, "", message).await, (400, json!(code), id), "{message}");
    }
    let answer = server.post("/mcp", "{").await.json();
    let said = answer["error"]["message"].as_str().expect("text");
    assert!(said.contains("EOF while parsing an object at line 1 column 1"), "{said}");
}

#[tokio::test]
async fn a_request_is_answered_200_and_what_has_no_answer_202() {
    let server = Server::start().await;
    for (message, status, code) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, 200, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, 200, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#, 200, json!(-32601)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"explode"}}"#, 200, json!(-32602)),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 202, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 202, Value::Null),
    ] {
        let (answered, told, _) = send(&server, "", message).await;
        assert_eq!((answered, told), (status, code), "{message}");
    }
}

#[tokio::test]
async fn what_each_request_of_the_newer_era_has_to_say_is_missed_as_a_bad_request() {
    let server = Server::start().await;
    let whole = modern("tools/call", Some("list"));
    let without = |key: &str| {
        let mut message: Value = serde_json::from_str(&whole).expect("ours");
        let removed = message["params"]["_meta"].as_object_mut().and_then(|meta| meta.remove(key));
        assert!(removed.is_some(), "{key}");
        message.to_string()
    };
    let unnamed = without("io.modelcontextprotocol/clientInfo");
    let incapable = without("io.modelcontextprotocol/clientCapabilities");
    for (message, status, code) in
        [(&whole, 200, Value::Null), (&unnamed, 200, Value::Null), (&incapable, 400, json!(-32602))]
    {
        assert_eq!(
            send(&server, &call_headers("list"), message).await,
            (status, code, json!(7)),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_a_bad_request_that_lists_the_others() {
    let server = Server::start().await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for version in ["2025-11-25", "2024-11-05"] {
        let header = format!("MCP-Protocol-Version: {version}\r\n");
        assert_eq!(send(&server, &header, ping).await.0, 200, "{version}");
    }
    let silent = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for version in ["2031-01-01", "banana", "", "2025-11-25\r\nMCP-Protocol-Version: 2025-11-25"] {
        let header = format!("MCP-Protocol-Version: {version}\r\n");
        for (message, id) in [(ping, json!(1)), (silent, Value::Null)] {
            assert_eq!(send(&server, &header, message).await, (400, json!(-32022), id), "{version:?}");
        }
    }
    let later = modern("tools/list", None).replace(MODERN, "2031-01-01");
    let headers = "MCP-Protocol-Version: 2031-01-01\r\nMcp-Method: tools/list\r\n";
    let answer = server.send(server.text("POST", "/mcp", headers, &later)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.json()["error"]["data"]["supported"][0], MODERN);
}

#[tokio::test]
async fn in_the_newer_era_headers_must_say_what_the_message_says() {
    let server = Server::start().await;
    let call = modern("tools/call", Some("list"));
    let good = call_headers("list");
    assert_eq!(send(&server, &good, &call).await.0, 200);
    // The same in the form for what is no plain text.
    assert_eq!(send(&server, &good.replace(" list", " =?base64?bGlzdA==?="), &call).await.0, 200);
    let list = format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/list\r\n");
    assert_eq!(send(&server, &list, &modern("tools/list", None)).await.0, 200);
    for (headers, message) in [
        (String::new(), &call),
        (good.replace("Mcp-Method: tools/call\r\n", ""), &call),
        (good.replace("Mcp-Name: list\r\n", ""), &call),
        (good.replace(MODERN, "2025-11-25"), &call),
        (good.replace("tools/call", "tools/list"), &call),
        (good.replace("tools/call", "Tools/Call"), &call),
        (good.replace(" list", " stop"), &call),
        (good.replace(" list", " =?base64?c3RvcA==?="), &call),
        (good.replace(" list", " =?base64?%?="), &call),
        (format!("{good}Mcp-Name: list\r\n"), &call),
        (good.clone(), &modern("tools/call", Some("list")).replace(MODERN, "2025-11-25")),
    ] {
        let expected = (400, json!(-32020), json!(7));
        assert_eq!(send(&server, &headers, message).await, expected, "{headers} {message}");
    }
    assert_eq!(server.script.lists.load(Ordering::SeqCst), 2, "a refused call is run");
}

#[tokio::test]
async fn in_the_newer_era_a_method_that_there_is_not_is_not_found() {
    let server = Server::start().await;
    for method in ["ping", "resources/list"] {
        let headers = format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n");
        let expected = (404, json!(-32601), json!(7));
        assert_eq!(send(&server, &headers, &modern(method, None)).await, expected, "{method}");
    }
}
