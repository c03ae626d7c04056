//! The wire format, pinned by files: what they say is understood, and what is said reads like them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{
    Add, Approvals, Approve, Call, Capabilities, DaemonDiagnostics, Deny, Disable, Enable, Event, Events,
    EventsCancel, Forget, Gap, Grants, Identify, List, LogLine, Logs, LogsCancel, METHODS, OperationStatus,
    Operations, Pause, Prompt, Prompts, Reload, Remove, Resource, Resources, Restart, Resume, RotateToken,
    Show, Shutdown, Signal, Start, State, Status, StatusResult, Stop, Subscribed, Targets, TokenAdd,
    TokenRemove, Tokens, Tools, Upgrade, Usage, Version, Why,
};

/// Decodes and encodes again; nothing may be lost or added.
fn round_trip<T: Serialize + DeserializeOwned>(what: &str, value: &Value) {
    let decoded: T =
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{what}: {error}: {value}"));
    assert_eq!(&serde_json::to_value(decoded).expect("it was JSON before"), value, "{what}");
}

/// Checks a file of examples: `{"params": [..], "results": [..]}`.
fn check<M: Method>(file: &str, checked: &mut Vec<&'static str>) {
    let file: Value = serde_json::from_str(file).unwrap_or_else(|error| panic!("{}: {error}", M::NAME));
    let examples =
        |member: &str| file[member].as_array().filter(|list| !list.is_empty()).expect("examples").clone();
    for params in examples("params") {
        round_trip::<M::Params>(M::NAME, &params);
    }
    for result in examples("results") {
        round_trip::<M::Result>(M::NAME, &result);
        // A newer daemon may say more.
        let mut newer = result.clone();
        newer["member_of_a_newer_version"] = json!(1);
        serde_json::from_value::<M::Result>(newer).unwrap_or_else(|error| panic!("{}: {error}", M::NAME));
    }
    checked.push(M::NAME);
}

#[test]
fn methods_are_written_as_in_their_files() {
    let mut checked = Vec::new();
    check::<List>(include_str!("wire/list.json"), &mut checked);
    check::<Status>(include_str!("wire/status.json"), &mut checked);
    check::<Start>(include_str!("wire/start.json"), &mut checked);
    check::<Stop>(include_str!("wire/stop.json"), &mut checked);
    check::<Restart>(include_str!("wire/restart.json"), &mut checked);
    check::<Pause>(include_str!("wire/pause.json"), &mut checked);
    check::<Resume>(include_str!("wire/resume.json"), &mut checked);
    check::<Enable>(include_str!("wire/enable.json"), &mut checked);
    check::<Disable>(include_str!("wire/disable.json"), &mut checked);
    check::<Signal>(include_str!("wire/signal.json"), &mut checked);
    check::<Reload>(include_str!("wire/reload.json"), &mut checked);
    check::<Add>(include_str!("wire/add.json"), &mut checked);
    check::<Remove>(include_str!("wire/remove.json"), &mut checked);
    check::<Usage>(include_str!("wire/usage.json"), &mut checked);
    check::<Why>(include_str!("wire/why.json"), &mut checked);
    check::<Show>(include_str!("wire/show.json"), &mut checked);
    check::<Tools>(include_str!("wire/tools.json"), &mut checked);
    check::<Prompts>(include_str!("wire/prompts.json"), &mut checked);
    check::<Prompt>(include_str!("wire/prompt.json"), &mut checked);
    check::<Resources>(include_str!("wire/resources.json"), &mut checked);
    check::<Resource>(include_str!("wire/resource.json"), &mut checked);
    check::<Call>(include_str!("wire/call.json"), &mut checked);
    check::<Logs>(include_str!("wire/logs.json"), &mut checked);
    check::<LogsCancel>(include_str!("wire/logs_cancel.json"), &mut checked);
    check::<Events>(include_str!("wire/events.json"), &mut checked);
    check::<EventsCancel>(include_str!("wire/events_cancel.json"), &mut checked);
    check::<Capabilities>(include_str!("wire/capabilities.json"), &mut checked);
    check::<Version>(include_str!("wire/version.json"), &mut checked);
    check::<DaemonDiagnostics>(include_str!("wire/diagnostics.json"), &mut checked);
    check::<Operations>(include_str!("wire/operations.json"), &mut checked);
    check::<OperationStatus>(include_str!("wire/operation.json"), &mut checked);
    check::<RotateToken>(include_str!("wire/rotate_token.json"), &mut checked);
    check::<Tokens>(include_str!("wire/tokens.json"), &mut checked);
    check::<TokenAdd>(include_str!("wire/token_add.json"), &mut checked);
    check::<TokenRemove>(include_str!("wire/token_remove.json"), &mut checked);
    check::<Shutdown>(include_str!("wire/shutdown.json"), &mut checked);
    check::<Upgrade>(include_str!("wire/upgrade.json"), &mut checked);
    check::<Identify>(include_str!("wire/identify.json"), &mut checked);
    check::<Approvals>(include_str!("wire/approvals.json"), &mut checked);
    check::<Approve>(include_str!("wire/approve.json"), &mut checked);
    check::<Deny>(include_str!("wire/deny.json"), &mut checked);
    check::<Grants>(include_str!("wire/grants.json"), &mut checked);
    check::<Forget>(include_str!("wire/forget.json"), &mut checked);
    assert_eq!(checked, METHODS);
}

#[test]
fn notifications_are_written_as_in_their_file() {
    let file: Vec<Value> = serde_json::from_str(include_str!("wire/notifications.json")).expect("JSON");
    let mut seen = std::collections::BTreeSet::new();
    for notification in &file {
        let method = notification["method"].as_str().expect("a method");
        let params = &notification["params"];
        seen.insert(method);
        match method {
            "log" => round_trip::<Subscribed<LogLine>>(method, params),
            "event" => round_trip::<Subscribed<Event>>(method, params),
            "log_gap" | "event_gap" => round_trip::<Subscribed<Gap>>(method, params),
            "log_end" | "event_end" => {
                round_trip::<Subscribed<serde_json::Map<String, Value>>>(method, params)
            }
            other => panic!("`{other}` is no notification"),
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn errors_are_written_as_in_their_file() {
    let file: Vec<Value> = serde_json::from_str(include_str!("wire/errors.json")).expect("JSON");
    let mut kinds = Vec::new();
    for error in &file {
        round_trip::<RpcError>("error", error);
        let decoded: RpcError = serde_json::from_value(error.clone()).expect("decoded before");
        assert_eq!(decoded.code, decoded.kind().code(), "{error}");
        kinds.push(decoded.kind());
    }
    assert_eq!(kinds, ErrorKind::ALL);
}

#[test]
fn the_defaults_of_an_operation_are_to_wait_without_a_limit() {
    let params = serde_json::from_str::<<Start as Method>::Params>(r#"{"names":["a"]}"#).expect("enough");
    assert_eq!(params.targets, Targets::Names(vec!["a".to_owned()]));
    assert!(params.wait && params.timeout_secs.is_none() && params.reason.is_none());
}

#[test]
fn every_state_is_in_the_file_of_status() {
    let file: Value = serde_json::from_str(include_str!("wire/status.json")).expect("JSON");
    let mut states = Vec::new();
    for result in file["results"].as_array().expect("examples") {
        let status: StatusResult = serde_json::from_value(result.clone()).expect("a status");
        states.push(status.summary.state);
    }
    use State::{Failed, Restarting, Running, Starting, Stopped, Stopping};
    assert_eq!(states, [Running, Stopped, Starting, Restarting, Failed, Stopping]);
}
