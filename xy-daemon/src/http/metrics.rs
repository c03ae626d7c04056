//! What was measured, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xy_actors::log::LogHealth;

use crate::protocol::method::{Event, ServerSummary, State};

/// The upper bounds of requests' times, in seconds.
const REQUEST_BOUNDS: &[f64] = &[0.0005, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

/// The upper bounds of the times from start to ready, in seconds.
const READY_BOUNDS: &[f64] = &[0.01, 0.05, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 300.0];

/// Every state, as it is on the wire.
const STATES: [State; 6] =
    [State::Stopped, State::Starting, State::Running, State::Restarting, State::Failed, State::Stopping];

/// What the HTTP server itself measures, and what it counts from the events of the tree.
#[derive(Debug)]
pub(super) struct Meter(Mutex<Measured>);

#[derive(Debug)]
struct Measured {
    /// By route and status.
    requests: BTreeMap<(&'static str, u16), u64>,
    /// By route.
    times: BTreeMap<&'static str, Histogram>,
    /// By server.
    servers: BTreeMap<String, Counted>,
    start_to_ready: Histogram,
    missed_events: u64,
}

#[derive(Debug, Default)]
struct Counted {
    starts: u64,
    /// Automatic restarts by how the incarnation before had ended.
    restarts: BTreeMap<String, u64>,
    /// When the current start began.
    starting_at_unix_ms: Option<u64>,
}

#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// One more than the bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn record(&mut self, seconds: f64) {
        let index = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.counts[index] += 1;
        self.sum += seconds;
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count;
            line(text, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"));
        }
        total = self.counts.iter().sum();
        line(text, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"));
        line(text, format_args!("{name}_sum{braced} {}", self.sum));
        line(text, format_args!("{name}_count{braced} {total}"));
    }
}

/// What is measured elsewhere, at the moment of asking.
#[derive(Debug)]
pub(super) struct Now<'a> {
    pub(super) version: &'a str,
    pub(super) started_at_unix_ms: u64,
    pub(super) servers: &'a [ServerSummary],
    /// How the output of each server fares that has some.
    pub(super) output: &'a [(&'a str, LogHealth)],
    pub(super) connections: usize,
    pub(super) refused_tokens: u64,
    pub(super) operations: usize,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Measured {
            requests: BTreeMap::new(),
            times: BTreeMap::new(),
            servers: BTreeMap::new(),
            start_to_ready: Histogram::new(READY_BOUNDS),
            missed_events: 0,
        }))
    }

    /// Counts a request. A stream's time is that until its beginning.
    pub(super) fn request(&self, route: &'static str, status: u16, time: Duration) {
        let mut measured = self.measured();
        *measured.requests.entry((route, status)).or_default() += 1;
        let times = measured.times.entry(route).or_insert_with(|| Histogram::new(REQUEST_BOUNDS));
        times.record(time.as_secs_f64());
    }

    /// Counts what an event says.
    pub(super) fn event(&self, event: &Event) {
        let mut measured = self.measured();
        let Measured { servers, start_to_ready, .. } = &mut *measured;
        match event.event_type.as_str() {
            "child_starting" => {
                let counted = servers.entry(event.path.clone()).or_default();
                counted.starts += 1;
                counted.starting_at_unix_ms = Some(event.at_unix_ms);
            }
            "child_ready" => {
                let began = servers.get_mut(&event.path).and_then(|one| one.starting_at_unix_ms.take());
                if let Some(began) = began {
                    let time = Duration::from_millis(event.at_unix_ms.saturating_sub(began));
                    start_to_ready.record(time.as_secs_f64());
                }
            }
            "child_exited" | "child_start_failed" => {
                let counted = servers.entry(event.path.clone()).or_default();
                counted.starting_at_unix_ms = None;
                if event.payload.get("next").and_then(|next| next.as_str()) == Some("restart") {
                    let cause = match event.event_type.as_str() {
                        "child_start_failed" => "start_failed",
                        _ => event.payload.get("exit").and_then(|exit| exit.as_str()).unwrap_or("other"),
                    };
                    *counted.restarts.entry(cause.to_owned()).or_default() += 1;
                }
            }
            "child_removed" => _ = servers.remove(&event.path),
            _ => {}
        }
    }

    /// Counts events that were not seen: from then on the counters of servers are too low.
    pub(super) fn missed(&self, count: u64) {
        self.measured().missed_events += count;
    }

    /// Writes everything.
    pub(super) fn write(&self, now: &Now<'_>) -> String {
        let mut text = String::with_capacity(4096 + now.servers.len() * 1024);
        let text = &mut text;
        head(text, "xy_info", "gauge", "The version of the daemon.");
        line(text, format_args!("xy_info{{version=\"{}\"}} 1", Escaped(now.version)));
        head(text, "xy_start_time_seconds", "gauge", "When the daemon started, in seconds since the epoch.");
        let started = Duration::from_millis(now.started_at_unix_ms).as_secs_f64();
        line(text, format_args!("xy_start_time_seconds {started}"));

        head(text, "xy_server_state", "gauge", "1 for the state that the server is in.");
        for server in now.servers {
            for state in STATES {
                let is_in = u8::from(server.state == state);
                let name = Escaped(&server.name);
                let state = state_name(state);
                line(text, format_args!("xy_server_state{{server=\"{name}\",state=\"{state}\"}} {is_in}"));
            }
        }
        type Value = fn(&ServerSummary) -> Option<u64>;
        let values: [(&str, &str, Value); 4] = [
            ("xy_server_ready", "Whether the server can serve.", |one| Some(one.ready.into())),
            ("xy_server_paused", "Whether automatic restarts are held back.", |one| Some(one.paused.into())),
            ("xy_server_uptime_seconds", "Since when the server is ready.", |one| one.uptime_secs),
            ("xy_server_restarts", "Automatic restarts since the operator's last start.", |one| {
                Some(one.restart_count)
            }),
        ];
        for (name, help, value) in values {
            head(text, name, "gauge", help);
            for server in now.servers {
                if let Some(value) = value(server) {
                    line(text, format_args!("{name}{{server=\"{}\"}} {value}", Escaped(&server.name)));
                }
            }
        }

        type Count = fn(&LogHealth) -> u64;
        let counts: [(&str, &str, Count); 3] = [
            ("xy_server_log_lines_total", "Lines of output since the daemon started.", |log| log.lines),
            ("xy_server_log_bytes_total", "Their bytes.", |log| log.bytes),
            ("xy_server_log_dropped_lines_total", "Lines that could not be written to the files.", |log| {
                log.dropped_lines
            }),
        ];
        for (name, help, count) in counts {
            head(text, name, "counter", help);
            for (server, log) in now.output {
                line(text, format_args!("{name}{{server=\"{}\"}} {}", Escaped(server), count(log)));
            }
        }

        let measured = self.measured();
        head(text, "xy_server_starts_total", "counter", "Starts of the server.");
        for (server, counted) in &measured.servers {
            let (server, starts) = (Escaped(server), counted.starts);
            line(text, format_args!("xy_server_starts_total{{server=\"{server}\"}} {starts}"));
        }
        head(text, "xy_server_restarts_total", "counter", "Automatic restarts, by what they were for.");
        for (server, counted) in &measured.servers {
            for (cause, count) in &counted.restarts {
                let (server, cause) = (Escaped(server), Escaped(cause));
                line(
                    text,
                    format_args!("xy_server_restarts_total{{server=\"{server}\",cause=\"{cause}\"}} {count}"),
                );
            }
        }
        head(text, "xy_start_to_ready_seconds", "histogram", "From a start to its being ready.");
        measured.start_to_ready.write(text, "xy_start_to_ready_seconds", "");
        head(text, "xy_events_missed_total", "counter", "Events that the counters above do not know of.");
        line(text, format_args!("xy_events_missed_total {}", measured.missed_events));

        head(text, "xy_http_requests_total", "counter", "Requests, by endpoint and status.");
        for ((route, status), count) in &measured.requests {
            line(
                text,
                format_args!("xy_http_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"),
            );
        }
        head(
            text,
            "xy_http_request_seconds",
            "histogram",
            "From a request's head to the head of its answer.",
        );
        for (route, times) in &measured.times {
            times.write(text, "xy_http_request_seconds", &format!("route=\"{route}\""));
        }
        drop(measured);
        head(text, "xy_http_connections", "gauge", "Open connections.");
        line(text, format_args!("xy_http_connections {}", now.connections));
        head(text, "xy_http_refused_tokens_total", "counter", "Requests without the right token.");
        line(text, format_args!("xy_http_refused_tokens_total {}", now.refused_tokens));
        head(text, "xy_http_operations", "gauge", "Operations under way.");
        line(text, format_args!("xy_http_operations {}", now.operations));
        std::mem::take(text)
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        // Each critical section only counts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of a state on the wire.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Stopped => "stopped",
        State::Starting => "starting",
        State::Running => "running",
        State::Restarting => "restarting",
        State::Failed => "failed",
        State::Stopping => "stopping",
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    _ = writeln!(text, "{line}");
}

/// A label's value between its quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                character => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(event_type: &str, at_unix_ms: u64, payload: serde_json::Value) -> Event {
        let payload = payload.as_object().cloned().unwrap_or_default();
        Event {
            version: Event::VERSION,
            id: String::new(),
            seq: 1,
            at_unix_ms,
            path: "web".to_owned(),
            incarnation: Some(1),
            event_type: event_type.to_owned(),
            payload,
        }
    }

    fn written(meter: &Meter) -> String {
        meter.write(&Now {
            version: "1",
            started_at_unix_ms: 1500,
            servers: &[],
            output: &[],
            connections: 3,
            refused_tokens: 4,
            operations: 5,
        })
    }

    #[test]
    fn restarts_are_counted_by_cause_and_starts_timed_until_ready() {
        let meter = Meter::new();
        meter.event(&event("child_starting", 1000, json!({})));
        meter.event(&event("child_ready", 1200, json!({})));
        meter.event(&event("child_exited", 1300, json!({"exit": "abnormal", "next": "restart"})));
        meter.event(&event("child_starting", 1400, json!({})));
        meter.event(&event("child_start_failed", 1500, json!({"next": "restart"})));
        meter.event(&event("child_exited", 1600, json!({"exit": "normal", "next": "rest"})));
        meter.event(&event("child_ready", 9000, json!({})));
        let text = written(&meter);
        for expected in [
            "xy_start_time_seconds 1.5\n",
            "xy_server_starts_total{server=\"web\"} 2\n",
            "xy_server_restarts_total{server=\"web\",cause=\"abnormal\"} 1\n",
            "xy_server_restarts_total{server=\"web\",cause=\"start_failed\"} 1\n",
            "xy_start_to_ready_seconds_bucket{le=\"0.05\"} 0\n",
            "xy_start_to_ready_seconds_bucket{le=\"0.25\"} 1\n",
            "xy_start_to_ready_seconds_bucket{le=\"+Inf\"} 1\n",
            "xy_start_to_ready_seconds_count 1\n",
            "xy_http_connections 3\n",
            "xy_http_refused_tokens_total 4\n",
            "xy_http_operations 5\n",
        ] {
            assert!(text.contains(expected), "{expected}in\n{text}");
        }
        assert!(
            !text.contains("normal\"} 1\nxy_server_restarts_total{server=\"web\",cause=\"normal"),
            "{text}"
        );
        meter.event(&event("child_removed", 9000, json!({})));
        assert!(!written(&meter).contains("server=\"web\""));
    }

    #[test]
    fn requests_are_counted_by_endpoint_and_status_and_timed() {
        let meter = Meter::new();
        for (status, millis) in [(200, 2), (200, 40), (404, 60_000)] {
            meter.request("/v1/servers/{path}", status, Duration::from_millis(millis));
        }
        let text = written(&meter);
        for expected in [
            "xy_http_requests_total{route=\"/v1/servers/{path}\",status=\"200\"} 2\n",
            "xy_http_requests_total{route=\"/v1/servers/{path}\",status=\"404\"} 1\n",
            "xy_http_request_seconds_bucket{route=\"/v1/servers/{path}\",le=\"0.0025\"} 1\n",
            "xy_http_request_seconds_bucket{route=\"/v1/servers/{path}\",le=\"30\"} 2\n",
            "xy_http_request_seconds_bucket{route=\"/v1/servers/{path}\",le=\"+Inf\"} 3\n",
            "xy_http_request_seconds_count{route=\"/v1/servers/{path}\"} 3\n",
        ] {
            assert!(text.contains(expected), "{expected}in\n{text}");
        }
    }

    #[test]
    fn a_label_cannot_end_its_quotes() {
        assert_eq!(Escaped("a\"b\\c\nd").to_string(), "a\\\"b\\\\c\\nd");
    }
}
