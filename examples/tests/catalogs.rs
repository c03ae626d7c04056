//! The example MCP server, an implementation that is not ours, is asked as any supervised one is.

#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Map, Value, json};
use xy_actors::process::readiness::{McpQuestion, ProbeFailure, Prober};
use xy_actors::process::{PortOwner, Readiness};

/// A running server; dropping it ends it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have crashed, as it was asked to.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server on a free port, and returns the port that it tells.
fn start() -> (Running, u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-example"));
    let child = command.args(["--port", "0"]).stdout(Stdio::piped()).spawn().expect("it can be run");
    let mut running = Running(child);
    let out = running.0.stdout.take().expect("it is piped");
    let line = BufReader::new(out).lines().next().expect("it says where it listens").expect("text");
    let port = line.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port");
    (running, port.parse().expect("a number"))
}

async fn ask(server: &Running, port: u16, question: &McpQuestion) -> Result<Value, ProbeFailure> {
    let readiness = Readiness::Mcp { path: "/mcp".to_owned(), host: "localhost".to_owned() };
    let mut prober = Prober::new(readiness, Some(port), PortOwner::Own);
    prober.ask_mcp(&[server.0.id()], question).await.map(Value::Object)
}

#[tokio::test]
async fn an_independent_server_lists_its_tools_and_is_called() {
    let (server, port) = start();
    let tools = ask(&server, port, &McpQuestion::Tools).await.expect("listed");
    let names: Vec<_> = tools["tools"].as_array().expect("a list").iter().map(|tool| &tool["name"]).collect();
    assert!(names.contains(&&json!("add")), "{names:?}");
    let arguments = Map::from_iter([("a".to_owned(), json!(40)), ("b".to_owned(), json!(2))]);
    let call = McpQuestion::Call { name: "add".to_owned(), arguments };
    let sum = ask(&server, port, &call).await.expect("called");
    assert!(sum["content"][0]["text"].as_str().is_some_and(|text| text.contains("42")), "{sum}");
    let nothing = McpQuestion::Call { name: "nothing".to_owned(), arguments: Map::new() };
    let failure = ask(&server, port, &nothing).await.expect_err("no such tool");
    assert!(matches!(failure, ProbeFailure::Mcp { .. }), "{failure:?}");
    let prompts = ask(&server, port, &McpQuestion::Prompts).await.expect("none are announced");
    assert_eq!(prompts, json!({ "prompts": [] }));
}
