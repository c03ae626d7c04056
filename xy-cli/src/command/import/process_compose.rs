//! process-compose's YAML: processes with dependencies and probes.

use serde_json::{Map, Value};

use super::server::{Server, plain_name, quoted, signal};
use super::{Import, Origin, plain};

/// Reads the processes of a file.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Import, String> {
    let root: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let processes =
        root.get("processes").and_then(Value::as_object).ok_or("there are no `processes` in it")?;
    let mut import = Import::default();
    let shared = root.get("environment").cloned().unwrap_or(Value::Null);
    for (name, process) in processes {
        match process.as_object() {
            Some(process) => read_process(name, process, &shared, origin, &mut import),
            None => import.left(name, "it is no map"),
        }
    }
    let known =
        ["processes", "environment", "version", "log_level", "log_length", "log_location", "is_strict"];
    for key in root.as_object().into_iter().flat_map(Map::keys).filter(|key| !known.contains(&key.as_str())) {
        import.left_of_file(format!("`{key}`"));
    }
    Ok(import)
}

fn read_process(
    name: &str,
    process: &Map<String, Value>,
    shared: &Value,
    origin: &Origin,
    import: &mut Import,
) {
    let text = |key: &str| process.get(key).and_then(plain);
    let program: Vec<String> = strings(process.get("entrypoint"));
    let mut server = match (program.split_first(), text("command")) {
        (Some((command, args)), _) => {
            Server { command: command.clone(), args: args.to_vec(), ..Server::default() }
        }
        (None, Some(command)) => Server::of_line(name, command.trim()),
        (None, None) => return import.left(name, "it has no `command`"),
    };
    server.name = name.to_owned();
    let directory = text("working_dir");
    server.working_dir = Some(match directory {
        Some(directory) => origin.directory.join(directory).display().to_string(),
        None => origin.directory.display().to_string(),
    });
    for variables in [shared, process.get("environment").unwrap_or(&Value::Null)] {
        environment(variables, &mut server, import);
    }
    server.env_files.extend(text("env_file").map(|file| origin.directory.join(file).display().to_string()));
    server.autostart = process.get("disabled").and_then(Value::as_bool).filter(|off| *off).map(|_| false);
    let replicas =
        process.get("replicas").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
    server.instances = replicas.filter(|count| *count > 1);
    for (other, dependency) in process.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
        let condition = dependency.get("condition").and_then(Value::as_str).unwrap_or("process_completed");
        let condition = match condition {
            "process_started" => "Started",
            "process_healthy" => "Healthy",
            "process_log_ready" => "Ready",
            "process_completed_successfully" => "Completed",
            "process_completed" => {
                import.left(
                    name,
                    format!("it waits until `{other}` has ended, here only until it has ended well"),
                );
                "Completed"
            }
            unknown => {
                import.left(
                    name,
                    format!("the condition `{unknown}` of `{other}`; here it waits until that is ready"),
                );
                "Ready"
            }
        };
        server.depends_on.push((plain_name(other), condition));
    }
    probes(name, process, &mut server, import);
    availability(name, process, &mut server, import);
    if let Some(shutdown) = process.get("shutdown").and_then(Value::as_object) {
        let command = shutdown.get("command").and_then(plain);
        server.stop.command =
            command.map(|line| vec!["/bin/sh".to_owned(), "-c".to_owned(), line]).unwrap_or_default();
        server.stop.grace = shutdown.get("timeout_seconds").and_then(Value::as_u64);
        if let Some(text) = shutdown.get("signal").and_then(plain) {
            match signal(&text) {
                Some(signal) => server.stop.signal = Some(signal),
                None => import.left(name, format!("the signal {text}; TERM is sent")),
            }
        }
    }
    const KNOWN: [&str; 14] = [
        "command",
        "entrypoint",
        "working_dir",
        "environment",
        "env_file",
        "disabled",
        "replicas",
        "depends_on",
        "readiness_probe",
        "liveness_probe",
        "ready_log_line",
        "availability",
        "shutdown",
        "description",
    ];
    for key in process.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        import.left(
            name,
            match key.as_str() {
                "is_daemon" => {
                    "`is_daemon`: xy owns what it starts, so let it run in the foreground".to_owned()
                }
                "log_location" => {
                    format!("`log_location`; `xyctl logs {}` shows its output", plain_name(name))
                }
                key => format!("`{key}`"),
            },
        );
    }
    import.add(server);
}

fn probes(name: &str, process: &Map<String, Value>, server: &mut Server, import: &mut Import) {
    if let Some(line) = process.get("ready_log_line").and_then(plain) {
        server.ready = Some(format!("Log({})", quoted(&regex_of(&line))));
    }
    if let Some(asked) = process.get("readiness_probe").and_then(Value::as_object)
        && let Some(written) = probe(name, asked, server, import)
    {
        let times = times(asked);
        server.ready = Some(format!("{}{times})", written.trim_end_matches(')')));
    }
    if let Some(asked) = process.get("liveness_probe").and_then(Value::as_object)
        && let Some(written) = probe(name, asked, server, import)
    {
        let failures = asked.get("failure_threshold").and_then(Value::as_u64);
        let failures = failures.map(|count| format!(", failures: {count}")).unwrap_or_default();
        server.liveness = Some(format!("probe: {written}{}{failures}", times(asked)));
    }
}

/// Returns a probe as it is written, and gives the server its port.
fn probe(name: &str, asked: &Map<String, Value>, server: &mut Server, import: &mut Import) -> Option<String> {
    if let Some(exec) = asked.get("exec").and_then(Value::as_object) {
        let line = exec.get("command").and_then(plain)?;
        return Some(match super::server::words(&line) {
            Some((command, args)) => {
                let args: Vec<_> = args.iter().map(|argument| quoted(argument)).collect();
                format!("Exec(command: {}, args: [{}])", quoted(&command), args.join(", "))
            }
            None => format!("Exec(command: \"/bin/sh\", args: [\"-c\", {}])", quoted(&line)),
        });
    }
    let http = asked.get("http_get").and_then(Value::as_object)?;
    let host = http.get("host").and_then(plain).unwrap_or_else(|| "localhost".to_owned());
    let scheme = http.get("scheme").and_then(plain).unwrap_or_else(|| "http".to_owned());
    let port = http.get("port").and_then(plain).and_then(|port| port.parse().ok());
    let Some(port) = port.filter(|_| ["localhost", "127.0.0.1"].contains(&host.as_str()) && scheme == "http")
    else {
        import.left(name, format!("a probe of {scheme}://{host}: only plain HTTP of this machine is asked"));
        return None;
    };
    if *server.port.get_or_insert(port) != port {
        import.left(name, format!("a probe of a second port, {port}"));
        return None;
    }
    let path = http
        .get("path")
        .and_then(plain)
        .filter(|path| path.starts_with('/'))
        .unwrap_or_else(|| "/".to_owned());
    Some(format!("Http(path: {})", quoted(&path)))
}

fn times(asked: &Map<String, Value>) -> String {
    let seconds = |key: &str| asked.get(key).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
    let interval = seconds("period_seconds").map(|seconds| format!(", interval: \"{seconds}s\""));
    let timeout = seconds("timeout_seconds").map(|seconds| format!(", timeout: \"{seconds}s\""));
    interval.into_iter().chain(timeout).collect()
}

fn availability(name: &str, process: &Map<String, Value>, server: &mut Server, import: &mut Import) {
    let availability = process.get("availability").and_then(Value::as_object);
    let text = |key: &str| availability.and_then(|map| map.get(key)).and_then(plain);
    server.restart.policy = match text("restart").as_deref() {
        Some("always") => Some("Always"),
        Some("on_failure") => None,
        // Their default.
        None | Some("no") => Some("Never"),
        Some(other) => {
            import.left(
                name,
                format!("restart: {other}; here it is not restarted, and nothing else ends with it"),
            );
            Some("Never")
        }
    };
    let backoff = text("backoff_seconds").and_then(|seconds| seconds.parse().ok());
    server.restart.backoff_initial = backoff.filter(|_| server.restart.policy != Some("Never"));
    if let Some(count) = text("max_restarts") {
        import.left(name, format!("max_restarts: {count}; see `restart: (max_retries_per_minute: ..)`"));
    }
}

fn environment(variables: &Value, server: &mut Server, import: &mut Import) {
    let name = server.name.clone();
    let mut set = |key: &str, value: String, import: &mut Import| {
        if value.contains("${") || value.starts_with('$') {
            import.left(
                &name,
                format!("what fills in `{value}` of the variable {key}; it is passed as it is written"),
            );
        }
        server.env.insert(key.to_owned(), value);
    };
    match variables {
        Value::Array(lines) => {
            for line in lines.iter().filter_map(plain) {
                match line.split_once('=') {
                    Some((key, value)) => set(key, value.to_owned(), import),
                    None => import.left(&name, format!("the variable `{line}`, which has no value")),
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(value) = plain(value) {
                    set(key, value, import);
                }
            }
        }
        _ => {}
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(plain).collect()
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
