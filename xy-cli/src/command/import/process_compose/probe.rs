//! Probes of a process: `readiness_probe`, `liveness_probe` and `ready_log_line`.

use serde_json::{Map, Value};

use super::super::server::{Server, quoted};
use super::super::{Import, plain};
use super::{Project, Text, program};

/// The seconds between two looks, and how often one may fail, where a file does not say.
const PERIOD: u64 = 10;

/// Reads all of them.
pub(super) fn read(
    name: &str,
    process: &Map<String, Value>,
    project: &Project<'_>,
    text: &mut Text<'_>,
    server: &mut Server,
    import: &mut Import,
) {
    if let Some(line) = process.get("ready_log_line").and_then(plain) {
        server.ready = Some(format!("Log({})", quoted(&regex_of(&text.value(&line)))));
    }
    let asked = |key: &str| process.get(key).and_then(Value::as_object);
    if let Some(asked) = asked("readiness_probe")
        && let Some(written) = probe(name, asked, project, text, server, import)
    {
        let times = times(asked);
        server.ready = Some(format!("{}{times})", written.strip_suffix(')').unwrap_or(&written)));
        server.start_timeout = seconds(asked, "failure_threshold").map(|failures| {
            let period = seconds(asked, "period_seconds").unwrap_or(PERIOD);
            let delay = seconds(asked, "initial_delay_seconds").unwrap_or_default();
            delay.saturating_add(period.saturating_mul(failures))
        });
        success(name, asked, import);
    }
    if let Some(asked) = asked("liveness_probe")
        && let Some(written) = probe(name, asked, project, text, server, import)
    {
        let failures = seconds(asked, "failure_threshold");
        let failures = failures.map(|count| format!(", failures: {count}")).unwrap_or_default();
        server.liveness = Some(format!("probe: {written}{}{failures}", times(asked)));
        success(name, asked, import);
        if let Some(delay) = seconds(asked, "initial_delay_seconds").filter(|_| server.ready.is_none()) {
            import.left(
                name,
                format!(
                    "initial_delay_seconds: {delay} of its liveness_probe, which is asked once it is ready"
                ),
            );
        }
    }
}

fn success(name: &str, asked: &Map<String, Value>, import: &mut Import) {
    if let Some(count) = seconds(asked, "success_threshold").filter(|count| *count > 1) {
        import.left(name, format!("success_threshold: {count}; one success is enough"));
    }
    const KNOWN: [&str; 7] = [
        "exec",
        "http_get",
        "initial_delay_seconds",
        "period_seconds",
        "timeout_seconds",
        "success_threshold",
        "failure_threshold",
    ];
    for key in asked.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        import.left(name, format!("`{key}` of a probe"));
    }
}

/// Returns a number above zero.
fn seconds(asked: &Map<String, Value>, key: &str) -> Option<u64> {
    asked.get(key).and_then(plain).and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0)
}

fn times(asked: &Map<String, Value>) -> String {
    let interval = seconds(asked, "period_seconds").map(|seconds| format!(", interval: \"{seconds}s\""));
    let timeout = seconds(asked, "timeout_seconds").map(|seconds| format!(", timeout: \"{seconds}s\""));
    interval.into_iter().chain(timeout).collect()
}

/// Returns a probe as it is written, and gives the server its port.
fn probe(
    name: &str,
    asked: &Map<String, Value>,
    project: &Project<'_>,
    text: &mut Text<'_>,
    server: &mut Server,
    import: &mut Import,
) -> Option<String> {
    if let Some(exec) = asked.get("exec").and_then(Value::as_object) {
        let line = text.line(exec.get("command").and_then(plain)?.trim());
        let words: Vec<_> = program(&line, &project.shell).iter().map(|word| quoted(word)).collect();
        let (command, args) = words.split_first()?;
        if let Some(directory) = exec.get("working_dir").and_then(plain) {
            let directory = project.place(&text.value(&directory));
            if server.working_dir.as_ref() != Some(&directory) {
                import.left(
                    name,
                    format!("the directory of a probe, {directory}; it runs in that of the server"),
                );
            }
        }
        return Some(format!("Exec(command: {command}, args: [{}])", args.join(", ")));
    }
    let Some(http) = asked.get("http_get").and_then(Value::as_object) else {
        import.left(name, "a probe that is neither `exec` nor `http_get`");
        return None;
    };
    let mut value = |key: &str| http.get(key).and_then(plain).map(|value| text.value(&value));
    let host = value("host").filter(|host| !host.is_empty()).unwrap_or_else(|| "localhost".to_owned());
    let scheme = value("scheme").unwrap_or_else(|| "http".to_owned());
    let path = value("path").filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let status = value("status_code").and_then(|status| status.parse::<u16>().ok());
    let written = value("port");
    let is_here = ["localhost", "127.0.0.1", "0.0.0.0", "::1"].contains(&host.as_str());
    if !is_here || scheme != "http" {
        import.left(name, format!("a probe of {scheme}://{host}: only plain HTTP of this machine is asked"));
        return None;
    }
    let port = match &written {
        None => Some(80),
        Some(text) => text.parse().ok().filter(|port| *port > 0),
    };
    let Some(port) = port else {
        let written = written.unwrap_or_default();
        import
            .left(name, format!("a probe of the port {written}, which is no number; see `port` and `ready`"));
        return None;
    };
    if *server.port.get_or_insert(port) != port {
        import.left(name, format!("a probe of a second port, {port}"));
        return None;
    }
    let headers: Vec<_> = http.get("headers").and_then(Value::as_object).into_iter().flatten().collect();
    if headers.len() > 1 {
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        import.left(name, format!("the headers {} of a probe; see `header`, for one", names.join(", ")));
    }
    let header = match headers.as_slice() {
        [(name, value)] => {
            plain(value).map(|value| format!(", header: ({}, {})", quoted(name), quoted(&value)))
        }
        _ => None,
    };
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let status = status.map(|status| format!(", status: [{status}]"));
    Some(format!("Http(path: {}{}{})", quoted(&path), status.unwrap_or_default(), header.unwrap_or_default()))
}

/// Writes a text as a regular expression that matches it.
fn regex_of(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        if "\\.+*?()|[]{}^$#&-~".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
