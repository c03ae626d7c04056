//! The reference page of the protocol is what the types say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::frame::MAX_LINE;
use xy_daemon::protocol::message::MAX_BATCH;
use xy_daemon::protocol::method::{Event, Gap, LogLine, Notification, Subscribed, descriptions};
use xy_daemon::protocol::schema::of_result;
use xy_daemon::protocol::scope::scope_of;
use xy_daemon::protocol::{OLDEST_PROTOCOL, PROTOCOL_VERSION};
use xy_daemon::rpc::{MAX_CONNECTIONS, MAX_IN_FLIGHT, MAX_SUBSCRIPTIONS};

/// What comes after this line is written by the test.
const MARK: &str = "<!-- What follows is generated from the types of the protocol. -->\n";

/// Says what a value is.
fn kind(schema: &Value) -> String {
    if let Some(one) = schema.get("const") {
        return format!("`{one}`");
    }
    for several in ["enum", "oneOf", "anyOf"] {
        if let Some(choices) = schema[several].as_array() {
            let choice = |one: &Value| if several == "enum" { format!("`{one}`") } else { kind(one) };
            let mut choices: Vec<String> = choices.iter().map(choice).collect();
            choices.dedup();
            return choices.join(" or ");
        }
    }
    match &schema["type"] {
        Value::String(one) if one == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(one) if one == "integer" => "whole number".to_owned(),
        Value::String(one) if one == "null" => "null".to_owned(),
        Value::String(one) => one.clone(),
        Value::Array(several) => {
            let one = |one: &Value| {
                let mut schema = schema.clone();
                schema["type"] = one.clone();
                kind(&schema)
            };
            several.iter().map(one).collect::<Vec<_>>().join(" or ")
        }
        _ => "anything".to_owned(),
    }
}

/// Writes a row for each member, and those of the objects in it.
fn rows(text: &mut String, schema: &Value, prefix: &str) {
    if let Some(items) = schema.get("items") {
        return rows(text, items, &format!("{}[].", prefix.trim_end_matches('.')));
    }
    let choices = ["oneOf", "anyOf"].iter().filter_map(|several| schema[several].as_array()).flatten();
    for choice in choices.filter(|choice| choice.get("const").is_none()) {
        rows(text, choice, prefix);
    }
    let Some(members) = schema["properties"].as_object() else { return };
    let required = schema["required"].as_array();
    // However the maps of JSON are built.
    let members: BTreeMap<&String, &Value> = members.iter().collect();
    for (name, member) in members {
        let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
        let absent = if is_required { "" } else { ", optional" };
        let about = member["description"].as_str().unwrap_or_default().replace('|', "\\|");
        writeln!(text, "| `{prefix}{name}` | {}{absent} | {about} |", kind(member)).expect("written");
        rows(text, member, &format!("{prefix}{name}."));
    }
}

fn table(title: &str, schema: &Value) -> String {
    let mut text = String::new();
    rows(&mut text, schema, "");
    if text.is_empty() {
        return format!("{title}: none.\n\n");
    }
    format!("| {title} | is | |\n|---|---|---|\n{text}\n")
}

fn reference() -> String {
    let mut text = format!(
        "\nThis is version {PROTOCOL_VERSION}; clients of version {OLDEST_PROTOCOL} and later are understood. A line has at \
         most\n{MAX_LINE} bytes and a batch {MAX_BATCH} requests; a connection has at most {MAX_IN_FLIGHT} requests in flight \
         and {MAX_SUBSCRIPTIONS}\nsubscriptions, and there are at most {MAX_CONNECTIONS} connections.\n\n## Methods\n\n"
    );
    for method in descriptions(None) {
        let scope = scope_of(method.name).expect("every method has one");
        write!(text, "### `{}`\n\n{} Scope: `{scope}`.\n\n", method.name, method.summary).expect("written");
        text.push_str(&table("parameter", &method.params));
        text.push_str(&table("result", &method.result));
    }
    text.push_str("## Notifications\n\n");
    let notifications = [
        (Notification::LOG, "A line of output.", of_result::<Subscribed<LogLine>>()),
        (Notification::LOG_GAP, "Lines that this subscription missed.", of_result::<Subscribed<Gap>>()),
        (Notification::EVENT, "An event.", of_result::<Subscribed<Event>>()),
        (Notification::EVENT_GAP, "Events that this subscription missed.", of_result::<Subscribed<Gap>>()),
    ];
    for (name, summary, schema) in notifications {
        write!(text, "### `{name}`\n\n{summary}\n\n{}", table("parameter", &schema)).expect("written");
    }
    let (log, event) = (Notification::LOG_END, Notification::EVENT_END);
    writeln!(text, "`{log}` and `{event}` have only a `subscription_id`: it has ended.\n").expect("written");
    text.push_str("## Errors\n\n| `data.kind` | code | |\n|---|---|---|\n");
    let schema = of_result::<ErrorKind>();
    for kind in ErrorKind::ALL {
        let described = schema["oneOf"].as_array().into_iter().flatten();
        let mut described = described.filter(|one| one["const"] == kind.as_str());
        let about = described.next().and_then(|one| one["description"].as_str()).expect("it has a text");
        writeln!(text, "| `{kind}` | {} | {about} |", kind.code()).expect("written");
    }
    text
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let (prose, written) = page.split_once(MARK).expect("the page has the mark");
    let reference = reference();
    if std::env::var_os("XY_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{prose}{MARK}{reference}")).expect("written");
        return;
    }
    assert!(written == reference, "docs/protocol.md is out of date: run this test with XY_WRITE_DOCS=1");
}
