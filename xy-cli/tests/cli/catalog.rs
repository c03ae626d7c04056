//! What an MCP server offers, to people and to programs.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::real::RealDaemon;

/// An MCP server of the older era in this process, for as long as the tests run; returns its port.
pub(crate) fn mcp_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    thread::spawn(move || {
        // A client that goes away ends its own connection only.
        listener.incoming().flatten().for_each(|stream| drop(converse(stream)));
    });
    port
}

/// Describes a server that leaves its port to whoever holds it.
pub(crate) fn served_at(port: u16) -> String {
    format!(r#"Process(command: "sleep", args: ["1000"], port: {port}, port_owner: Any, ready: Mcp)"#)
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    let mut input = Vec::new();
    let body = loop {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        input.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&input).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let expected = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        if body.len() >= expected.unwrap_or(0) {
            break body.to_owned();
        }
    };
    let request: Value = serde_json::from_str(&body).unwrap_or_default();
    let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
    match result_of(&request) {
        Some(result) => answer["result"] = result,
        None => answer["error"] = json!({ "code": -32601, "message": "what?" }),
    }
    let body = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn result_of(request: &Value) -> Option<Value> {
    let params = &request["params"];
    let text = |text: String| json!({ "type": "text", "text": text });
    let number = |name: &str| params["arguments"][name].as_i64().unwrap_or(0);
    Some(match request["method"].as_str()? {
        "initialize" => {
            let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {} });
            json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities })
        }
        "tools/list" => {
            json!({ "tools": [
                { "name": "add", "description": "Adds two numbers.\nThat is all." },
                { "name": "evil\u{1b}[2J" },
            ] })
        }
        "prompts/list" => {
            json!({ "prompts": [{ "name": "greet", "arguments": [{ "name": "who" }, { "name": "how" }] }] })
        }
        "resources/list" => json!({ "resources": [{ "uri": "file:///notes", "name": "notes" }] }),
        "resources/templates/list" => {
            json!({ "resourceTemplates": [{ "uriTemplate": "file:///{name}", "name": "any" }] })
        }
        "tools/call" if params["name"] == "add" && number("b") == 0 => {
            json!({ "content": [text("b is missing".to_owned())], "isError": true })
        }
        "tools/call" if params["name"] == "add" => {
            let link = json!({ "type": "resource_link", "uri": "file:///notes" });
            json!({ "content": [text((number("a") + number("b")).to_string()), link] })
        }
        "prompts/get" => {
            let greeting = format!("Hello, {}!", params["arguments"]["who"].as_str()?);
            json!({ "messages": [{ "role": "user", "content": text(greeting) }] })
        }
        "resources/read" if params["uri"] == "file:///blob" => {
            json!({ "contents": [{ "uri": "file:///blob", "blob": "AP8=" }] })
        }
        "resources/read" => json!({ "contents": [{ "uri": params["uri"], "text": "a note\n" }] }),
        _ => return None,
    })
}

#[test]
fn what_a_server_offers_is_listed_and_used_in_words_and_in_json() {
    let daemon = RealDaemon::start(&[("adder", &served_at(mcp_server()))]);
    daemon.ok(&["wait", "adder", "--timeout", "30"]);
    daemon.snapshot(
        "catalog",
        &[
            &["tools", "adder"],
            &["tools", "adder", "--json"],
            &["tools", "addr"],
            &["prompts", "adder"],
            &["prompts", "adder", "--json"],
            &["prompts", "adder", "greet", "--arg", "who=Ada"],
            &["prompts", "adder", "greet"],
            &["resources", "adder"],
            &["resources", "adder", "--json"],
            &["resources", "adder", "file:///notes"],
            &["call", "adder", "add", "--arg", "a=40", "--arg", "b=2"],
            &["call", "adder", "add", "--input", "{\"a\": 1, \"b\": 2}", "--json"],
            &["call", "adder", "add"],
            &["call", "adder", "add", "--json"],
            &["call", "adder", "nothing"],
            &["call", "adder", "add", "--arg", "a"],
        ],
    );
}

#[test]
fn what_a_resource_holds_is_written_byte_for_byte() {
    let daemon = RealDaemon::start(&[("adder", &served_at(mcp_server()))]);
    daemon.ok(&["wait", "adder", "--timeout", "30"]);
    assert_eq!(daemon.ok(&["resources", "adder", "file:///blob"]).stdout, [0x00, 0xff]);
    assert_eq!(daemon.ok(&["resources", "adder", "file:///notes"]).stdout, b"a note\n");
}
