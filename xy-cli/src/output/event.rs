//! One event as one line for people.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use xy_daemon::protocol::method::{Event, KilledProcess};

use super::text::{neutral, processes};
use super::time::{Clock, tenths};
use super::{Output, Style};

/// The facts of an event that are known here; all of them may be missing.
#[derive(Debug, Default)]
struct Facts {
    cause: Option<String>,
    next: Option<String>,
    delay: Option<Duration>,
    nth: Option<u64>,
    of: Option<u64>,
    pid: Option<u64>,
    port: Option<u64>,
    after: Option<Duration>,
    clean: Option<bool>,
    killed: Vec<KilledProcess>,
    message: Option<String>,
}

impl Facts {
    /// Takes what has the expected shape and ignores the rest: a daemon of another version may say more, or less.
    fn read(payload: &Map<String, Value>) -> Self {
        let text = |key: &str| payload.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        let number = |key: &str| payload.get(key).and_then(Value::as_u64);
        let killed = payload.get("killed").map(Vec::<KilledProcess>::deserialize);
        Self {
            cause: text("cause"),
            next: text("next"),
            delay: number("delay_ms").map(Duration::from_millis),
            nth: number("nth"),
            of: number("of"),
            pid: number("pid"),
            port: number("port"),
            after: number("after_ms").map(Duration::from_millis),
            clean: payload.get("clean").and_then(Value::as_bool),
            killed: killed.and_then(Result::ok).unwrap_or_default(),
            message: text("message"),
        }
    }
}

/// Writes an event: when, about whom, what.
pub(crate) fn line(event: &Event, clock: &Clock, output: &Output) -> String {
    let (what, style) = describe(event);
    let path = if event.path.is_empty() { "(all)" } else { &event.path };
    let at = clock.time(event.at_unix_ms);
    format!(
        "{}  {:<12} {}",
        output.paint(Style::Dim, &at),
        neutral(path),
        output.paint(style, &neutral(&what))
    )
}

/// Says what happened, and whether somebody is needed.
pub(crate) fn words(event: &Event) -> (String, bool) {
    let (text, style) = describe(event);
    (text, style == Style::Bad)
}

fn describe(event: &Event) -> (String, Style) {
    let mut facts = Facts::read(&event.payload);
    match event.event_type.as_str() {
        "child_added" => ("added".into(), Style::Plain),
        "child_removed" => ("removed".into(), Style::Plain),
        "child_starting" => {
            (format!("starting{}", parenthesized([numbered("pid", facts.pid)])), Style::Plain)
        }
        "child_ready" => {
            let after = facts.after.map(|after| format!(" after {}", tenths(after))).unwrap_or_default();
            let who = parenthesized([numbered("pid", facts.pid), numbered("port", facts.port)]);
            (format!("ready{after}{who}"), Style::Good)
        }
        "child_ignored" => (with("does not want to run", facts.message.or(facts.cause)), Style::Dim),
        "child_unhealthy" => (with("not ready any more", facts.cause.or(facts.message)), Style::Busy),
        "child_healthy" => ("ready again".into(), Style::Good),
        "child_start_failed" => {
            // Of a start, "stays down" would leave open whether it is tried again.
            let next = facts.next.take_if(|next| next == "rest").map(|_| "not restarted".to_owned());
            (fate("start failed", Facts { next: next.or(facts.next), ..facts }), Style::Bad)
        }
        "child_exited" => (fate("exited", facts), Style::Busy),
        "child_stopping" => (with("stopping", facts.cause.or(facts.message)), Style::Plain),
        "child_killing" => (with("killing", killed(&facts.killed).or(facts.message)), Style::Busy),
        "child_stopped" => stopped(facts),
        "child_leaked" => (with("could not be ended", facts.message.or(facts.cause)), Style::Bad),
        "child_called_off" => ("restart called off".into(), Style::Plain),
        "child_paused" => ("paused".into(), Style::Plain),
        "child_resumed" => ("resumed".into(), Style::Plain),
        "supervisor_started" => ("supervisor started".into(), Style::Dim),
        "supervisor_limit_reached" => (with("too many restarts", facts.message.or(facts.cause)), Style::Bad),
        "supervisor_auto_shutdown" => {
            (with("ends with a significant child", facts.message.or(facts.cause)), Style::Busy)
        }
        "supervisor_unwinding" => (with("start is undone", facts.message.or(facts.cause)), Style::Busy),
        "supervisor_ending" => (with("ending", facts.message.or(facts.cause)), Style::Dim),
        "supervisor_ended" => ("ended".into(), Style::Dim),
        "permission_asked" => (asked(&event.payload), Style::Busy),
        "permission_answered" => (answered(&event.payload), Style::Plain),
        other => (generic(other, &event.payload), Style::Plain),
    }
}

/// Says what waits for an operator: `mcp:x asks for `stop`; `xyctl approve 3` or `xyctl deny 3``.
fn asked(payload: &Map<String, Value>) -> String {
    let fact = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or("?");
    let reason = payload.get("reason").and_then(Value::as_str);
    let why = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let (client, action, id) = (fact("client"), fact("action"), fact("id"));
    format!("{client} asks for `{action}`{why}; `xyctl approve {id}` or `xyctl deny {id}`")
}

/// Says what became of it: ``stop` of mcp:x: approved by xyctl`.
fn answered(payload: &Map<String, Value>) -> String {
    let fact = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or("?");
    let answer = fact("answer").replace('_', " ");
    let by = payload.get("by").and_then(Value::as_str).map(|by| format!(" by {by}")).unwrap_or_default();
    format!("`{}` of {}: {answer}{by}", fact("action"), fact("client"))
}

fn stopped(facts: Facts) -> (String, Style) {
    match (killed(&facts.killed), facts.clean) {
        (Some(killed), _) => (format!("stopped; had to be killed: {killed}"), Style::Busy),
        (None, Some(false)) => (with("stopped, not cleanly", facts.cause.or(facts.message)), Style::Busy),
        (None, _) => ("stopped".into(), Style::Plain),
    }
}

/// Says how something ended and what happens next: `exited: signal 9 (SIGKILL); restart 1 of 5 in 1.0 s`.
fn fate(what: &str, facts: Facts) -> String {
    let next = next(&facts);
    let killed = killed(&facts.killed);
    let mut text = with(what, facts.cause.or(facts.message));
    if let Some(killed) = killed {
        text.push_str(&format!("; had to be killed: {killed}"));
    }
    if let Some(next) = next {
        text.push_str("; ");
        text.push_str(&next);
    }
    text
}

fn next(facts: &Facts) -> Option<String> {
    let text = match facts.next.as_deref()? {
        "rest" => "stays down".to_owned(),
        "removed" => "removed".to_owned(),
        "restart" => {
            let mut text = "restart".to_owned();
            if let Some(nth) = facts.nth {
                text.push_str(&format!(" {nth}"));
                if let Some(of) = facts.of {
                    text.push_str(&format!(" of {of}"));
                }
            }
            match facts.delay {
                Some(delay) if !delay.is_zero() => text.push_str(&format!(" in {}", tenths(delay))),
                _ => text.push_str(" now"),
            }
            text
        }
        "held" => "held back while paused".to_owned(),
        "failed" => "failed: too many restarts, stays down until it is started".to_owned(),
        "escalates" => "its supervisor gives up".to_owned(),
        "supervisor_ends" => "its supervisor ends".to_owned(),
        other => other.to_owned(),
    };
    Some(text)
}

fn with(what: &str, detail: Option<String>) -> String {
    match detail {
        Some(detail) => format!("{what}: {detail}"),
        None => what.to_owned(),
    }
}

fn killed(killed: &[KilledProcess]) -> Option<String> {
    (!killed.is_empty()).then(|| processes(killed))
}

fn numbered(label: &str, number: Option<u64>) -> Option<String> {
    number.map(|number| format!("{label} {number}"))
}

fn parenthesized<const N: usize>(facts: [Option<String>; N]) -> String {
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) }
}

/// Writes an event that this version does not know.
fn generic(event_type: &str, payload: &Map<String, Value>) -> String {
    let facts = payload.iter().filter(|(_, value)| !value.is_null());
    let facts: Vec<_> = facts.map(|(key, value)| format!("{key}={value}")).collect();
    let what = event_type.replace('_', " ");
    if facts.is_empty() { what } else { format!("{what}: {}", facts.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(event_type: &str, payload: Value) -> String {
        let Value::Object(payload) = payload else { panic!("a payload is an object") };
        let event = Event {
            version: Event::VERSION,
            id: "18f-1".to_owned(),
            seq: 1,
            at_unix_ms: 0,
            path: "web".into(),
            incarnation: Some(1),
            event_type: event_type.into(),
            payload,
        };
        describe(&event).0
    }

    #[test]
    fn each_event_says_what_happened_and_what_is_next() {
        for (event_type, payload, text) in [
            (
                "child_ready",
                json!({"pid": 42, "port": 80, "after_ms": 210}),
                "ready after 0.2 s (pid 42, port 80)",
            ),
            ("child_ready", json!({}), "ready"),
            ("child_unhealthy", json!({"cause": "liveness: no"}), "not ready any more: liveness: no"),
            ("child_healthy", json!({}), "ready again"),
            (
                "child_exited",
                json!({"exit": "killed", "cause": "signal 9 (SIGKILL)", "next": "restart", "nth": 1, "of": 5, "delay_ms": 1000}),
                "exited: signal 9 (SIGKILL); restart 1 of 5 in 1.0 s",
            ),
            (
                "child_exited",
                json!({"cause": "exit code 1", "next": "rest"}),
                "exited: exit code 1; stays down",
            ),
            ("child_exited", json!({"next": "restart", "delay_ms": 0}), "exited; restart now"),
            (
                "child_start_failed",
                json!({"cause": "there is no program `x`", "next": "rest"}),
                "start failed: there is no program `x`; not restarted",
            ),
            (
                "child_exited",
                json!({"cause": "exit code 1", "next": "rest", "killed": [{"pid": 7, "command": "sleep 9"}]}),
                "exited: exit code 1; had to be killed: 7 (sleep 9); stays down",
            ),
            (
                "child_stopped",
                json!({"clean": false, "killed": [{"pid": 7, "command": "sleep 9"}, {"pid": 8, "command": ""}]}),
                "stopped; had to be killed: 7 (sleep 9), 8",
            ),
            ("child_stopped", json!({"clean": true}), "stopped"),
        ] {
            assert_eq!(described(event_type, payload), text);
        }
    }

    #[test]
    fn an_unknown_event_and_odd_facts_are_still_readable() {
        assert_eq!(described("child_moved", json!({"to": "b", "n": 2})), "child moved: n=2 to=\"b\"");
        assert_eq!(described("child_ready", json!({"pid": "many"})), "ready");
        assert_eq!(described("child_exited", json!({"next": "vanishes"})), "exited; vanishes");
    }
}
