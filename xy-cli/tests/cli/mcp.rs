//! `xyctl mcp`: what an assistant's program says to it, and what the daemon's rules make of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout};

use serde_json::{Value, json};

use crate::daemon::nowhere;
use crate::real::RealDaemon;
use crate::xyctl::{finish, start_piped};

/// An assistant's program with `xyctl mcp` below it.
struct Assistant {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    asked: u64,
}

impl Assistant {
    fn start(mut child: Child) -> Self {
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut assistant = Self { child, input, output, asked: 0 };
        let hello = assistant.ask(
            "initialize",
            json!({
                "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "robot", "version": "1" },
            }),
        );
        assert_eq!(hello["result"]["serverInfo"]["name"], "xy", "{hello}");
        assistant.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        assistant
    }

    fn send(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{message}").expect("it reads");
    }

    fn begin(&mut self, method: &str, params: Value) {
        self.asked += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.asked, "method": method, "params": params }));
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).expect("text"), 0, "it has ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.begin(method, params);
        self.answer()
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments }))["result"].clone()
    }

    /// Closes its input, as a program that ends does.
    fn end(mut self) {
        self.input = None;
        let run = finish(self.child);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    }
}

#[test]
fn an_assistant_looks_after_servers_as_far_as_the_rules_allow() {
    let rules = r#"(permissions: [
        (decision: Deny, client: "mcp:*", server: "db", action: "@change"),
        (decision: Ask, client: "mcp:robot", action: "stop"),
    ])"#;
    let nap = r#"Process(command: "sh", args: ["-c", "echo hello; exec sleep 1000"])"#;
    let daemon = RealDaemon::start_with(rules, &[("nap", nap), ("db", nap)]);
    let mut robot = Assistant::start(start_piped(daemon.home(), &daemon.socket(), &["mcp"]));
    assert_eq!(robot.ask("tools/list", json!({}))["result"]["tools"].as_array().map(Vec::len), Some(9));
    let list = robot.call("list", json!({}));
    assert_eq!(list["structuredContent"]["servers"][0]["name"], "db", "{list}");
    let started = robot.call("start", json!({ "names": ["nap"] }));
    assert_eq!(started["isError"], false, "{started}");
    let line = loop {
        let logs = robot.call("logs", json!({ "name": "nap", "grep": "hello" }));
        if let Some(line) = logs["structuredContent"]["lines"][0]["line"].as_str() {
            break line.to_owned();
        }
    };
    assert_eq!(line, "hello");
    let why = robot.call("why", json!({ "name": "nap" }));
    assert_eq!(why["structuredContent"]["server"]["name"], "nap", "{why}");
    let check = robot.call("check", json!({}));
    assert_eq!(check["structuredContent"]["unchanged"][0]["name"], "db", "{check}");
    let events = robot.call("events", json!({ "name": "nap", "limit": 1 }));
    assert_eq!(events["structuredContent"]["events"].as_array().map(Vec::len), Some(1), "{events}");

    let denied = robot.call("restart", json!({ "names": ["db"] }));
    assert_eq!(
        (&denied["isError"], &denied["structuredContent"]["kind"]),
        (&json!(true), &json!("permission_denied"))
    );
    let missing = robot.call("status", json!({ "name": "nobody" }));
    assert_eq!(missing["structuredContent"]["kind"], "server_not_found", "{missing}");

    // While it waits for its owner, other calls are answered.
    robot.begin("tools/call", json!({ "name": "stop", "arguments": { "names": ["nap"], "reason": "idle" } }));
    let id = loop {
        let approvals = daemon.json(&["approvals"]);
        if let Some(id) = approvals["approvals"][0]["id"].as_str() {
            assert_eq!(approvals["approvals"][0]["client"], "mcp:robot", "{approvals}");
            break id.to_owned();
        }
    };
    let waiting = robot.asked;
    let list = robot.ask("tools/list", json!({}));
    assert_eq!(list["id"], waiting + 1, "{list}");
    daemon.ok(&["approve", &id]);
    let stopped = robot.answer();
    assert_eq!(
        (&stopped["id"], &stopped["result"]["isError"]),
        (&json!(waiting), &json!(false)),
        "{stopped}"
    );
    robot.end();
}

#[test]
fn one_that_only_reads_and_one_without_a_daemon_say_so() {
    let daemon = RealDaemon::start(&[]);
    let mut reader = Assistant::start(start_piped(daemon.home(), &daemon.socket(), &["mcp", "--read-only"]));
    let refused = reader.ask("tools/call", json!({ "name": "stop", "arguments": { "names": ["x"] } }));
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    reader.end();
    let mut alone = Assistant::start(start_piped(nowhere(), nowhere(), &["mcp"]));
    let refused = alone.call("list", json!({}));
    assert_eq!(refused["isError"], true, "{refused}");
    assert!(
        refused["content"][0]["text"].as_str().is_some_and(|text| text.contains("no daemon")),
        "{refused}"
    );
    alone.end();
}
