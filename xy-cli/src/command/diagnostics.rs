//! `xyctl diagnostics`: what the daemon stands on and is doing, as a report of a problem needs it.

use std::borrow::Cow;

use xy_daemon::protocol::PROTOCOL_VERSION;
use xy_daemon::protocol::method::{
    DaemonDiagnostics, Diagnostics, DiagnosticsParams, DiagnosticsResult, EventFacts, HttpFacts, HttpLimits,
    SocketFacts, TokenSource,
};

use crate::error::{CommandError, exit_code};
use crate::output::Style;
use crate::output::text::{bytes, neutral};
use crate::output::time::{self, Clock};
use crate::session::{Session, call};

/// What it is about, and what is known.
pub(super) type Fact = (Cow<'static, str>, String);

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<DaemonDiagnostics>(&client, DiagnosticsParams {}).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
        return Ok(exit_code::SUCCESS);
    }
    let (own, result) = (env!("CARGO_PKG_VERSION"), &answer.result);
    let mut all: Vec<Fact> = vec![
        ("xyctl".into(), format!("{own}, protocol {PROTOCOL_VERSION}")),
        ("daemon".into(), super::version::daemon(&result.daemon)),
        ("socket".into(), session.socket()?.display().to_string()),
    ];
    all.extend(result.daemon.diagnostics.iter().flat_map(foundation));
    all.push(("socket limits".into(), socket_limits(&result.socket)));
    all.extend(doing(result));
    if let Some(http) = &result.http {
        all.push(("http token file".into(), http.token_file.clone()));
        all.push(("http limits".into(), http_limits(&http.limits)));
    }
    let errors: Vec<Fact> = recent_errors(result).collect();
    let count = if errors.is_empty() { "none".to_owned() } else { errors.len().to_string() };
    all.push(("recent errors".into(), count));
    all.extend(errors);
    // Not a table, whose lines a narrow terminal would cut: paths are to be copied from here.
    let width = all.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    for (what, known) in &all {
        let what = format!("{what:<width$}");
        let what = session.output.paint(Style::Dim, &what).into_owned();
        session.output.line(&format!("{what}  {}", neutral(known)))?;
    }
    Ok(exit_code::SUCCESS)
}

/// Says what the daemon stands on.
pub(super) fn foundation(facts: &Diagnostics) -> Vec<Fact> {
    let ownership = match (facts.ownership.as_str(), &facts.cgroup) {
        ("cgroup", Some(path)) => format!("control groups in {path}"),
        ("subreaper", _) => "orphans come to the daemon".to_owned(),
        ("walk", _) => "the daemon looks at every process".to_owned(),
        (other, _) => other.to_owned(),
    };
    let guard = facts.guard_pid.map_or("none".to_owned(), |pid| format!("pid {pid}"));
    let mut known: Vec<Fact> = vec![("process trees".into(), ownership), ("guard".into(), guard)];
    // A program with a tree of its own has neither.
    let directories = [("configuration", &facts.config_dir), ("state", &facts.state_dir)];
    let directories = directories.into_iter().filter(|(_, directory)| !directory.is_empty());
    known.extend(directories.map(|(what, directory)| (what.into(), directory.clone())));
    known.extend(facts.open_files_limit.map(|limit| ("open files".into(), format!("at most {limit}"))));
    known.extend(facts.strangers.iter().map(|stranger| ("belongs to no server".into(), stranger.clone())));
    known
}

/// Says what the daemon is doing.
pub(super) fn doing(facts: &DiagnosticsResult) -> Vec<Fact> {
    let mut known: Vec<Fact> = Vec::new();
    known.extend(facts.http.as_ref().map(|http| ("http".into(), of_http(http))));
    if let Some(connections) = facts.connections {
        let asked = facts.last_activity_unix_ms.map(|at| time::ago(at, time::now_unix_ms()));
        let asked =
            asked.map_or_else(|| "nothing asked for yet".to_owned(), |ago| format!("last request {ago}"));
        known.push(("clients".into(), format!("{connections} connected, this one included; {asked}")));
    }
    known.extend(facts.events.map(|events| ("events".into(), of_events(events))));
    known.push(("under way".into(), format!("{} operations", facts.operations)));
    known
}

/// Says what has gone wrong lately, and when.
pub(super) fn recent_errors(facts: &DiagnosticsResult) -> impl Iterator<Item = Fact> {
    facts.recent_errors.iter().map(|error| {
        let at = Clock::local().date_time(error.at_unix_ms);
        (format!("{at} {}", neutral(&error.level)).into(), error.message.clone())
    })
}

fn of_http(http: &HttpFacts) -> String {
    let (clients, refused) = (http.clients, http.refused_tokens);
    let token = match http.token_source {
        TokenSource::File => "token from its file",
        TokenSource::Environment => "token from XY_TOKEN",
        TokenSource::Generated => "token generated",
        // One that only a later daemon knows.
        _ => "token from elsewhere",
    };
    let url = &http.base_url;
    format!("{url}, {token}, {clients} clients with tokens of their own, {refused} refused requests")
}

fn of_events(events: EventFacts) -> String {
    match events.keep {
        0 => "none outlives the daemon".to_owned(),
        keep => {
            let age = time::span(events.age_secs);
            format!("up to {}; the latest {keep} of the last {age} are kept", events.latest)
        }
    }
}

fn socket_limits(facts: &SocketFacts) -> String {
    let SocketFacts { connections, in_flight, subscriptions, line_bytes, write_stall_secs } = *facts;
    let line = bytes(line_bytes.try_into().unwrap_or(u64::MAX));
    format!(
        "{connections} connections; on each {in_flight} requests in flight, {subscriptions} subscriptions, lines of \
         {line}; closed after {write_stall_secs} s without being read"
    )
}

fn http_limits(limits: &HttpLimits) -> String {
    let HttpLimits { connections, body_bytes, head_secs, request_secs, idle_secs, write_stall_secs, .. } =
        limits;
    let body = bytes((*body_bytes).try_into().unwrap_or(u64::MAX));
    format!(
        "{connections} connections; bodies of {body}; {head_secs} s for a head, {request_secs} s for a request, \
         {idle_secs} s between two; closed after {write_stall_secs} s without being read"
    )
}
