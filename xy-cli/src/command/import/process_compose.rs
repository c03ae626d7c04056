//! process-compose's YAML: processes with dependencies and probes.

use serde_json::{Map, Value};

use super::server::{Server, Shell, plain_name, signal};
use super::shell;
use super::{Import, Origin, plain};

mod probe;
mod project;
mod text;

use self::project::Project;
use self::text::Text;

/// What is about process-compose itself.
const OWN: [&str; 7] = [
    "version",
    "is_strict",
    "is_tui_disabled",
    "disable_env_expansion",
    "log_level",
    "log_length",
    "log_format",
];

/// The most copies of one process.
const MOST_REPLICAS: u64 = 100;

/// Programs that have others hold their ports.
const ENGINES: [&str; 5] = ["docker", "docker-compose", "podman", "podman-compose", "nerdctl"];

/// Reads the processes of a file, of what it extends, and of its override or of the files that are to go over it. An error
/// comes with the index of the file that it is about.
pub(super) fn read(text: &str, origin: &Origin, over: &[(&str, &Origin)]) -> Result<Import, (usize, String)> {
    let mut import = Import::default();
    let project = Project::read(text, origin, over, &mut import)?;
    for (name, process) in &project.processes {
        match process.as_object() {
            Some(process) => read_process(name, process, &project, &mut import),
            None => import.left(name, "it is no map"),
        }
    }
    const HANDLED: [&str; 5] = ["processes", "environment", "vars", "shell", "extends"];
    for key in project.keys.iter().map(String::as_str) {
        // A key of this kind only holds anchors.
        if HANDLED.contains(&key) || OWN.contains(&key) || key.starts_with("x-") {
            continue;
        }
        import.left_of_file(match key {
            "log_location" => "`log_location`; `xyctl logs` shows what all servers print".to_owned(),
            "log_configuration" => "`log_configuration`; see `log: (max_size: .., keep: ..)`".to_owned(),
            "env_cmds" => {
                "`env_cmds`, variables that programs print; let the commands that need them ask".to_owned()
            }
            key => format!("`{key}`"),
        });
    }
    Ok(import)
}

fn read_process(name: &str, process: &Map<String, Value>, project: &Project<'_>, import: &mut Import) {
    let replicas = process.get("replicas").and_then(Value::as_u64).unwrap_or(1).max(1);
    if replicas > MOST_REPLICAS {
        return import.left(name, format!("replicas: {replicas}, expected at most {MOST_REPLICAS}"));
    }
    let count = u32::try_from(replicas).unwrap_or(1);
    let mut text = Text::of(project, process, 0);
    let Some(mut server) = server(name, process, project, &mut text, import) else { return };
    text.tell(name, import);
    if count == 1 {
        return import.add(server);
    }
    if !text.is_numbered() {
        if server.port.is_some() {
            import.left(name, "the probe of one port by several replicas; each instance has its own here");
            server.without_port();
        }
        return import.add(Server { instances: Some(count), ..server });
    }
    // Each as it is there: `{instance}` counts from 1.
    let width = count.to_string().len();
    for number in 0..count {
        let mut text = Text::of(project, process, number);
        if let Some(server) = self::server(name, process, project, &mut text, import) {
            import.add_of(name, Server { name: format!("{name}-{number:0width$}"), ..server });
        }
    }
}

/// Reads a process, or one of its replicas.
fn server(
    name: &str,
    process: &Map<String, Value>,
    project: &Project<'_>,
    text: &mut Text<'_>,
    import: &mut Import,
) -> Option<Server> {
    let value = |key: &str| process.get(key).and_then(plain);
    let program: Vec<String> =
        strings(process.get("entrypoint")).iter().map(|word| text.value(word)).collect();
    let mut server = match (program.split_first(), value("command")) {
        (Some((command, args)), _) => {
            Server { command: command.clone(), args: args.to_vec(), ..Server::default() }
        }
        (None, Some(command)) => Server::of_line(name, &text.line(&command), &project.shell),
        (None, None) => {
            import.left(name, "it has no `command`");
            return None;
        }
    };
    server.name = name.to_owned();
    server.about = value("description");
    let directory = value("working_dir").map(|directory| text.value(&directory)).unwrap_or_default();
    server.working_dir = Some(project.place(&directory));
    if let Some((key, value)) = text.set_for_all() {
        server.env.entry(key).or_insert(value);
    }
    for variables in [&project.environment, process.get("environment").unwrap_or(&Value::Null)] {
        environment(name, variables, text, &mut server, import);
    }
    if let Some(env) = &project.env {
        env.attach(&mut server);
    }
    let files = process
        .get("env_file")
        .map(|file| plain(file).map_or_else(|| strings(Some(file)), |file| vec![file]));
    for file in files.unwrap_or_default() {
        project.env_file(&text.value(&file), &mut server, import);
    }
    server.autostart = is_on(process, "disabled").then_some(false);
    if is_on(process, "is_foreground") {
        server.autostart = Some(false);
        import.left(name, "`is_foreground`: here it has no terminal, and is started by hand");
    }
    let namespace = value("namespace").filter(|namespace| namespace != "default");
    server.tags.extend(namespace.map(|namespace| plain_name(&namespace)));
    depends_on(name, process, &mut server, import);
    probe::read(name, process, project, text, &mut server, import);
    let commands = [Some(&server.command), server.args.last()].into_iter().flatten();
    let is_engine = commands
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || ";&|(".contains(c)))
        .any(|word| ENGINES.contains(&word));
    server.port_of_anybody = server.port.is_some() && is_engine;
    availability(name, process, &mut server, import);
    shutdown(name, process, project, text, &mut server, import);
    rest(name, process, import);
    Some(server)
}

fn is_on(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).and_then(plain).is_some_and(|text| ["true", "yes", "on"].contains(&text.as_str()))
}

fn depends_on(name: &str, process: &Map<String, Value>, server: &mut Server, import: &mut Import) {
    for (other, dependency) in process.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
        let condition = match dependency.get("condition").and_then(Value::as_str) {
            None | Some("process_started") => "Started",
            Some("process_healthy") => "Healthy",
            Some("process_log_ready") => "Ready",
            Some("process_completed_successfully") => "Completed",
            Some("process_completed") => {
                import.left(
                    name,
                    format!("it waits until `{other}` has ended, here only until it has ended well"),
                );
                "Completed"
            }
            Some(unknown) => {
                import.left(
                    name,
                    format!("the condition `{unknown}` of `{other}`; here it waits until that is ready"),
                );
                "Ready"
            }
        };
        server.depends_on.push((other.clone(), condition));
    }
}

fn availability(name: &str, process: &Map<String, Value>, server: &mut Server, import: &mut Import) {
    let nothing = Map::new();
    let availability = process.get("availability").and_then(Value::as_object).unwrap_or(&nothing);
    let text = |key: &str| availability.get(key).and_then(plain);
    server.restart.policy = match text("restart").as_deref() {
        Some("always") => Some("Always"),
        Some("on_failure") => None,
        // Their default; in YAML 1.1 the word is a boolean.
        None | Some("no" | "false" | "") => Some("Never"),
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
    for (key, value) in availability {
        let what = match key.as_str() {
            "restart" | "backoff_seconds" => continue,
            "max_restarts" => {
                let count = plain(value).unwrap_or_default();
                format!("max_restarts: {count}; see `restart: (max_retries_per_minute: ..)`")
            }
            "exit_on_end" | "exit_on_skipped" if !is_on(availability, key) => continue,
            "exit_on_end" | "exit_on_skipped" => format!("`{key}`: here nothing else ends with it"),
            key => format!("`availability.{key}`"),
        };
        import.left(name, what);
    }
}

fn shutdown(
    name: &str,
    process: &Map<String, Value>,
    project: &Project<'_>,
    text: &mut Text<'_>,
    server: &mut Server,
    import: &mut Import,
) {
    for (key, value) in process.get("shutdown").and_then(Value::as_object).into_iter().flatten() {
        match (key.as_str(), plain(value)) {
            ("command", Some(line)) => server.stop.command = project.shell.run(text.line(line.trim())),
            ("timeout_seconds", Some(seconds)) => server.stop.grace = seconds.parse().ok(),
            ("signal", Some(text)) => match signal(&text) {
                Some(signal) => server.stop.signal = Some(signal),
                None => import.left(name, format!("the signal {text}; TERM is sent")),
            },
            ("parent_only", Some(text)) if text == "true" => {
                import.left(name, "`shutdown.parent_only`: here all of its processes are asked to end");
            }
            ("parent_only", _) => {}
            (key, _) => import.left(name, format!("`shutdown.{key}`")),
        }
    }
}

/// Names what is left of a process.
fn rest(name: &str, process: &Map<String, Value>, import: &mut Import) {
    const HANDLED: [&str; 17] = [
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
        "namespace",
        "vars",
        "is_foreground",
    ];
    for key in process.keys().map(String::as_str).filter(|key| !HANDLED.contains(key)) {
        let is_off = process.get(key).and_then(plain).is_some_and(|text| text == "false");
        if is_off && key.starts_with("is_") {
            continue;
        }
        let what = match key {
            "is_daemon" => "`is_daemon`: xy owns what it starts, so let it run in the foreground".to_owned(),
            "is_tty" | "is_interactive" => format!("`{key}`: here it has no terminal"),
            "is_elevated" => "`is_elevated`; see `user`, for an xyd that runs as root".to_owned(),
            "log_location" | "log_configuration" => {
                format!("`{key}`; `xyctl logs {}` shows its output, see `log: (..)`", plain_name(name))
            }
            "schedule" => "`schedule`: xy starts nothing by the clock".to_owned(),
            key => format!("`{key}`"),
        };
        import.left(name, what);
    }
}

fn environment(name: &str, variables: &Value, text: &mut Text<'_>, server: &mut Server, import: &mut Import) {
    match variables {
        Value::Array(lines) => {
            for line in lines.iter().filter_map(plain) {
                match line.split_once('=').filter(|(key, _)| !key.is_empty()) {
                    Some((key, value)) => {
                        let value = text.value(value);
                        server.env.insert(key.to_owned(), value);
                    }
                    None => import.left(name, format!("the variable `{line}`, which has no value")),
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                match plain(value) {
                    Some(value) => {
                        let value = text.value(&value);
                        server.env.insert(key.clone(), value);
                    }
                    None => import.left(name, format!("the variable `{key}`, which has no value")),
                }
            }
        }
        _ => {}
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(plain).collect()
}

/// Returns program and arguments for a line, with a shell only where one is needed.
fn program(line: &str, shell: &Shell) -> Vec<String> {
    match shell::words(line).filter(|words| words.env.is_empty()) {
        Some(words) => [vec![words.command], words.args].concat(),
        None => shell.run(line.to_owned()),
    }
}
