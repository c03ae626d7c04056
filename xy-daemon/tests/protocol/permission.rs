//! Permissions over the socket: denied, asked and answered, remembered and forgotten, each with its line of the audit log.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use xy_actors::event::stream::{EventCursor, EventItem, EventLog};
use xy_daemon::audit::AuditLog;
use xy_daemon::permission::gate::{ANSWERED, ASKED, Gate, GateOptions};
use xy_daemon::permission::rules::{PermissionSettings, Rule};
use xy_daemon::permission::{Decision, PermissionPolicy, PermissionRequest};

use crate::harness::{Raw, Server, within};

/// A server with rules, and where it keeps grants and its audit log.
struct Guarded {
    server: Server,
    gate: Gate,
    events: EventLog,
    directory: TempDir,
}

impl Guarded {
    fn start(rules: Vec<Rule>) -> Self {
        let settings = PermissionSettings { rules, ..PermissionSettings::default() };
        Self::with(tempfile::tempdir().expect("a temporary directory"), |options| {
            Gate::of_settings(settings, options)
        })
    }

    fn with(directory: TempDir, gate: impl FnOnce(GateOptions<'_>) -> Gate) -> Self {
        let events = EventLog::new(100);
        let audit = AuditLog::open(&directory.path().join("audit.log")).expect("a thread");
        let grants = directory.path().join("grants.json");
        let gate =
            gate(GateOptions { grants: Some(&grants), audit: Some(audit), events: Some(events.clone()) });
        let server = Server::guarded(gate.clone());
        Self { server, gate, events, directory }
    }

    fn audit_file(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    /// Returns what the audit log says of an action: client, decision, outcome.
    async fn audited(&self, action: &str) -> Vec<[String; 3]> {
        self.gate.flush().await;
        let text = std::fs::read_to_string(self.audit_file()).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let lines = lines.filter(|line| line["action"] == action);
        lines
            .map(|line| {
                ["client", "decision", "outcome"].map(|key| line[key].as_str().unwrap_or_default().to_owned())
            })
            .collect()
    }

    /// Connects as an assistant's tools.
    async fn agent(&self, name: &str) -> Raw {
        let mut raw = self.server.raw().await;
        let said = ask(&mut raw, "identify", json!({ "client": format!("mcp:{name}"), "agent": true })).await;
        assert_eq!(said["result"]["client"], format!("mcp:{name}"), "{said}");
        raw
    }

    /// Waits until a request waits for an answer, and returns it.
    async fn waiting(&self, operator: &mut Raw) -> Value {
        let mut events = self.events.subscribe(EventCursor::Seq(1));
        let is_asked = async {
            while let Some(EventItem::Event(event)) = events.next().await {
                let found = ask(operator, "approvals", json!({})).await["result"]["approvals"][0].clone();
                if event.kind.name() == ASKED && !found.is_null() {
                    return found;
                }
            }
            panic!("the events have ended");
        };
        within("a question", is_asked).await
    }

    fn event_names(&self) -> Vec<String> {
        let mut events = self.events.subscribe(EventCursor::Seq(1));
        let mut names = Vec::new();
        while let Ok(EventItem::Event(event)) = events.try_next() {
            names.push(event.kind.name().to_owned());
        }
        names
    }
}

fn rule(decision: Decision, action: &str) -> Rule {
    Rule { client: Some("mcp:*".to_owned()), action: Some(action.to_owned()), ..Rule::new(decision) }
}

fn line(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

async fn ask(raw: &mut Raw, method: &str, params: Value) -> Value {
    raw.ask(&line(method, params)).await
}

fn texts(rows: &[[&str; 3]]) -> Vec<[String; 3]> {
    rows.iter().map(|row| row.map(ToOwned::to_owned)).collect()
}

#[tokio::test]
async fn what_is_denied_is_not_carried_out_and_others_may() {
    let guarded = Guarded::start(vec![rule(Decision::Deny, "@change"), rule(Decision::Deny, "list")]);
    let mut agent = guarded.agent("x").await;
    let refused = ask(&mut agent, "stop", json!({ "names": ["web"], "reason": "I feel like it" })).await;
    assert_eq!(refused["error"]["data"]["kind"], "permission_denied", "{refused}");
    assert!(
        refused["error"]["message"].as_str().is_some_and(|text| text.contains("`stop` of `web`")),
        "{refused}"
    );
    assert_eq!(ask(&mut agent, "list", json!({})).await["error"]["data"]["kind"], "permission_denied");
    assert_eq!(guarded.server.script.lists.load(std::sync::atomic::Ordering::SeqCst), 0);
    let mut operator = guarded.server.raw().await;
    let stopped = ask(&mut operator, "stop", json!({ "names": ["web"] })).await;
    assert_eq!(stopped["result"]["stopped"], json!(["web"]), "{stopped}");
    let failed = ask(&mut operator, "restart", json!({ "names": ["web"] })).await;
    assert_eq!(failed["result"]["failed"][0]["name"], "web", "{failed}");
    let audited = guarded.audited("stop").await;
    assert_eq!(audited[0], ["mcp:x", "denied", "permission_denied"]);
    assert_eq!(audited[1][1..], ["allowed", "ok"]);
    assert_eq!(guarded.audited("restart").await[0][1..], ["allowed", "failed"]);
    // What only tells something is noted where it was not allowed.
    assert_eq!(guarded.audited("list").await, texts(&[["mcp:x", "denied", "permission_denied"]]));
    assert!(guarded.audited("status").await.is_empty());
    let text = std::fs::read_to_string(guarded.audit_file()).expect("it is there");
    assert!(text.contains("I feel like it"), "{text}");
}

#[tokio::test]
async fn who_is_asked_sees_the_question_and_the_answer_decides() {
    let guarded = Guarded::start(vec![rule(Decision::Ask, "stop")]);
    let mut agent = guarded.agent("x").await;
    let mut operator = guarded.server.raw().await;
    for (answer, params) in [("approve", json!({})), ("deny", json!({ "reason": "not now" }))] {
        agent.send(&line("stop", json!({ "names": ["web"] }))).await;
        let question = guarded.waiting(&mut operator).await;
        assert_eq!(
            (&question["client"], &question["targets"]),
            (&json!("mcp:x"), &json!(["web"])),
            "{question}"
        );
        let mut params = params;
        params["id"] = question["id"].clone();
        let said = ask(&mut operator, answer, params).await;
        assert_eq!(said["result"]["id"], question["id"], "{said}");
        let outcome = agent.message().await;
        match answer {
            "approve" => assert_eq!(outcome["result"]["stopped"], json!(["web"]), "{outcome}"),
            _ => {
                let message = outcome["error"]["message"].as_str().unwrap_or_default();
                assert!(message.contains("denied by") && message.contains("not now"), "{outcome}");
            }
        }
        // It waits no more.
        let late = ask(&mut operator, "approve", json!({ "id": question["id"] })).await;
        assert_eq!(late["error"]["data"]["parameter"], "id", "{late}");
    }
    let audited = guarded.audited("stop").await;
    let expected = texts(&[["mcp:x", "approved", "ok"], ["mcp:x", "refused", "permission_denied"]]);
    assert_eq!(audited, expected);
    assert_eq!(guarded.event_names(), [ASKED, ANSWERED, ASKED, ANSWERED]);
    assert_eq!(guarded.audited("deny").await[0][1..], ["allowed", "ok"]);
}

#[tokio::test]
async fn nobody_answers_for_themselves_and_assistants_for_nobody() {
    let guarded = Guarded::start(vec![Rule { client: None, ..rule(Decision::Ask, "stop") }]);
    let mut client = guarded.server.raw().await;
    client.send(&line("stop", json!({ "names": ["web"] }))).await;
    let mut operator = guarded.server.raw().await;
    let id = guarded.waiting(&mut operator).await["id"].clone();
    let own = ask(&mut client, "approve", json!({ "id": id })).await;
    assert_eq!(own["error"]["data"]["kind"], "permission_denied", "{own}");
    let mut agent = guarded.agent("y").await;
    let other = ask(&mut agent, "approve", json!({ "id": id })).await;
    assert_eq!(other["error"]["data"]["kind"], "permission_denied", "{other}");
    // Who has said who it is cannot be somebody else afterward.
    let again = ask(&mut agent, "identify", json!({ "client": "xyctl" })).await;
    assert_eq!(again["error"]["data"]["kind"], "invalid_request", "{again}");
    ask(&mut operator, "approve", json!({ "id": id })).await;
    assert_eq!(client.message().await["result"]["stopped"], json!(["web"]));
}

#[tokio::test]
async fn a_question_that_nobody_answers_is_a_refusal() {
    let ask_timeout = Duration::from_millis(50);
    let settings = PermissionSettings { rules: vec![rule(Decision::Ask, "shutdown")], ask_timeout };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let guarded = Guarded::with(directory, |options| Gate::of_settings(settings, options));
    let mut agent = guarded.agent("x").await;
    let refused = ask(&mut agent, "shutdown", json!({})).await;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("none came within 50ms"), "{refused}");
    assert_eq!(guarded.audited("shutdown").await, texts(&[["mcp:x", "timed_out", "permission_denied"]]));
    assert!(
        ask(&mut agent, "approvals", json!({})).await["result"]["approvals"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

#[tokio::test]
async fn what_is_remembered_is_not_asked_again_until_it_is_forgotten() {
    let guarded = Guarded::start(vec![rule(Decision::Ask, "stop")]);
    let mut operator = guarded.server.raw().await;
    let mut agent = guarded.agent("x").await;
    agent.send(&line("stop", json!({ "names": ["web"] }))).await;
    let id = guarded.waiting(&mut operator).await["id"].clone();
    let approved = ask(&mut operator, "approve", json!({ "id": id, "remember": "always" })).await;
    let grant = approved["result"]["grants"][0].clone();
    agent.message().await;
    // Another session of the same client, and a daemon that begins with the same file.
    drop(agent);
    let directory = guarded.directory;
    guarded.server.stop().await;
    let rules =
        PermissionSettings { rules: vec![rule(Decision::Ask, "stop")], ..PermissionSettings::default() };
    let guarded = Guarded::with(directory, |options| Gate::of_settings(rules, options));
    let mut operator = guarded.server.raw().await;
    let mut agent = guarded.agent("x").await;
    let stopped = ask(&mut agent, "stop", json!({ "names": ["web"] })).await;
    assert_eq!(stopped["result"]["stopped"], json!(["web"]), "{stopped}");
    assert_eq!(guarded.audited("stop").await.last().expect("two lines")[1..], ["granted", "ok"]);
    let grants = ask(&mut operator, "grants", json!({})).await["result"]["grants"].clone();
    assert_eq!((&grants[0]["id"], &grants[0]["target"]), (&grant, &json!("web")), "{grants}");
    // Neither for another server, nor for another client, nor once it is forgotten.
    agent.send(&line("stop", json!({ "names": ["db"] }))).await;
    assert_eq!(guarded.waiting(&mut operator).await["targets"], json!(["db"]));
    let mut other = guarded.agent("y").await;
    other.send(&line("stop", json!({ "names": ["web"] }))).await;
    let questions = async {
        loop {
            let found = ask(&mut operator, "approvals", json!({})).await["result"]["approvals"].clone();
            if found.as_array().is_some_and(|found| found.len() == 2) {
                return found;
            }
        }
    };
    assert_eq!(within("the second question", questions).await[1]["client"], "mcp:y");
    let forgotten = ask(&mut operator, "forget", json!({ "id": grant })).await;
    assert_eq!(forgotten["result"]["forgotten"]["id"], grant, "{forgotten}");
    let mut third = guarded.agent("x").await;
    third.send(&line("stop", json!({ "names": ["web"] }))).await;
    let questions = async {
        loop {
            let found = ask(&mut operator, "approvals", json!({})).await["result"]["approvals"].clone();
            if found.as_array().is_some_and(|found| found.len() == 3) {
                return found;
            }
        }
    };
    assert_eq!(within("the third question", questions).await[2]["client"], "mcp:x");
}

#[tokio::test]
async fn what_counts_for_a_session_ends_with_it() {
    let guarded = Guarded::start(vec![rule(Decision::Ask, "stop")]);
    let mut operator = guarded.server.raw().await;
    let mut agent = guarded.agent("x").await;
    agent.send(&line("stop", json!({ "names": ["web"] }))).await;
    let id = guarded.waiting(&mut operator).await["id"].clone();
    ask(&mut operator, "approve", json!({ "id": id, "remember": "session" })).await;
    agent.message().await;
    let again = ask(&mut agent, "stop", json!({ "names": ["web"] })).await;
    assert_eq!(again["result"]["stopped"], json!(["web"]), "{again}");
    drop(agent);
    let forgotten =
        async { while ask(&mut operator, "grants", json!({})).await["result"]["grants"] != json!([]) {} };
    within("the end of the session", forgotten).await;
}

/// A policy of a program's own.
#[derive(Debug)]
struct NightShift;

impl PermissionPolicy for NightShift {
    fn decide(&self, request: &PermissionRequest<'_>) -> Decision {
        if request.changes && request.server == Some("web") { Decision::Deny } else { Decision::Allow }
    }
}

#[tokio::test]
async fn a_program_can_have_a_policy_of_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let guarded = Guarded::with(directory, |options| Gate::new(NightShift, options));
    let mut raw = guarded.server.raw().await;
    let refused = ask(&mut raw, "stop", json!({ "names": ["db", "web"] })).await;
    assert_eq!(refused["error"]["data"]["kind"], "permission_denied", "{refused}");
    assert_eq!(ask(&mut raw, "stop", json!({ "names": ["db"] })).await["result"]["stopped"], json!(["db"]));
    assert_eq!(ask(&mut raw, "status", json!({ "name": "web" })).await["result"]["name"], "web");
}

#[tokio::test]
async fn control_messages_and_batches_pass_the_same_gate() {
    let guarded = Guarded::start(vec![Rule { client: None, ..rule(Decision::Deny, "pause") }]);
    let mut raw = guarded.server.raw().await;
    let short = raw.ask(r#"{"type":"pause","name":"web"}"#).await;
    assert_eq!(short["error"]["data"]["kind"], "permission_denied", "{short}");
    let batch = format!("[{}]", line("pause", json!({ "names": ["web"] })));
    assert_eq!(raw.ask(&batch).await[0]["error"]["data"]["kind"], "permission_denied");
    // Without an id it is silent, and not carried out either.
    raw.send(r#"{"jsonrpc":"2.0","method":"pause","params":{"all":true}}"#).await;
    raw.assert_alive().await;
    let settled = async {
        while guarded.audited("pause").await.len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    within("three lines", settled).await;
    assert!(guarded.audited("pause").await.iter().all(|row| row[1] == "denied"));
}
