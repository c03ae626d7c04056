//! One manifest of Kubernetes for each server: a Deployment or a Job, and a Service for its port.

use std::time::Duration;

use serde_json::{Map, Value, json};
use xy_actors::process::settings::{Resource, ResourceLimit, SearchPath, Stdin};
use xy_actors::process::{Readiness, StopSignal};
use xy_actors::spec::{Condition, RestartType, Shutdown};
use xy_daemon::config::ServerConfig;

use super::{Export, ExportedFile, Source};
use crate::error::CommandError;

/// The pause between two attempts of a probe that names none.
const DEFAULT_PERIOD: Duration = Duration::from_secs(5);

/// The time for one attempt that names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The image in which a container waits for the port of another.
const WAITING_IMAGE: &str = "busybox:1.37";

/// Writes the manifests.
pub(super) fn export(source: &Source, image: Option<&str>) -> Result<Export, CommandError> {
    let mut export = Export::default();
    for server in source.servers() {
        let mut documents = vec![workload(source, server, image, &mut export)];
        documents.extend(server.process.port.map(|port| service(server, port)));
        let mut text = String::new();
        for (index, document) in documents.iter().enumerate() {
            if index > 0 {
                text.push_str("---\n");
            }
            let written = serde_saphyr::to_string(document)
                .map_err(|error| CommandError::Usage(format!("a manifest cannot be written: {error}")))?;
            text.push_str(written.trim_end());
            text.push('\n');
        }
        export.files.push(ExportedFile { name: format!("{}.yaml", object_name(server)), text });
    }
    Ok(export)
}

/// Returns the name of a server's objects: letters, digits and dashes, not at the ends, at most 63 of them.
fn object_name(server: &ServerConfig) -> String {
    let name: String = server.name.replace(['/', '_'], "-").chars().take(63).collect();
    let name = name.trim_matches('-');
    // A Service must begin with a letter.
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.to_owned()
    } else {
        format!("xy-{name}").chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
    }
}

fn workload(source: &Source, server: &ServerConfig, image: Option<&str>, export: &mut Export) -> Value {
    let name = object_name(server);
    if name != server.name {
        export.left(&server.name, format!("its name; here it is `{name}`"));
    }
    if image.is_none() {
        let what = format!("the image that has `{}`: none was named with `--image`", server.process.command);
        export.left(&server.name, what);
    }
    let container = container(source, server, &name, image, export);
    let is_job = server.child.restart == RestartType::Temporary || source.is_job(server);
    let mut pod = json!({
        "restartPolicy": match server.child.restart {
            RestartType::Temporary => "Never",
            _ if is_job => "OnFailure",
            _ => "Always",
        },
        "terminationGracePeriodSeconds": grace(server),
        "containers": [container],
    });
    let waits = waits(source, server, export);
    if !waits.is_empty() {
        pod["initContainers"] = waits.into();
    }
    let labels = json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "xy" });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod });
    let metadata = json!({ "name": name, "labels": labels });
    if is_job {
        let retries = match server.child.restart {
            RestartType::Temporary => 0,
            _ => server.child.limit.map_or(6, |limit| limit.intensity.intensity),
        };
        return json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
            "spec": { "backoffLimit": retries, "suspend": !server.child.autostart, "template": template },
        });
    }
    if server.child.restart == RestartType::Transient {
        export.left(&server.name, "`policy: OnFailure`: a Deployment restarts it after a clean end, too");
    }
    if server.child.limit.is_some() {
        export.left(
            &server.name,
            "`max_retries_per_minute`: Kubernetes never gives up, with delays of up to 5 min",
        );
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": u8::from(server.child.autostart),
            // One server never runs twice.
            "strategy": { "type": "Recreate" },
            "selector": { "matchLabels": { "app.kubernetes.io/name": name } },
            "template": template,
        },
    })
}

fn container(
    source: &Source,
    server: &ServerConfig,
    name: &str,
    image: Option<&str>,
    export: &mut Export,
) -> Value {
    let (process, settings) = (&server.process, &server.process.settings);
    let image = image.map_or_else(|| format!("image.invalid/{name}:latest"), ToOwned::to_owned);
    let mut container = json!({
        "name": name,
        "image": image,
        // In these, `$(NAME)` would be a variable.
        "command": [literal(&process.command)],
    });
    if !process.args.is_empty() {
        container["args"] = process.args.iter().map(|arg| literal(arg)).collect();
    }
    let mut env: Vec<Value> = Vec::new();
    if let SearchPath::Literal(path) = &settings.path {
        env.push(json!({ "name": "PATH", "value": literal(path) }));
    }
    env.extend(process.env.iter().map(|(key, value)| json!({ "name": key, "value": literal(value) })));
    if !env.is_empty() {
        container["env"] = env.into();
    }
    let server_name = server.name.as_str();
    if !settings.secrets.is_empty() {
        export.left(server_name, "`secrets`: make a Secret of them and name it in `envFrom`");
    }
    if !settings.env_files.is_empty() {
        export.left(server_name, "`env_files`: make a Secret of each and name it in `envFrom`");
    }
    match &process.working_dir {
        Some(directory) if directory.is_absolute() && *directory != source.default_dir => {
            container["workingDir"] = directory.display().to_string().into();
        }
        _ => {}
    }
    if let Some(port) = process.port {
        container["ports"] = json!([{ "name": "main", "containerPort": port }]);
        export.left(
            server_name,
            "the loopback address, if it listens on that only: a pod is reached at its own",
        );
    }
    probes(server, &mut container, export);
    lifecycle(server, &mut container, export);
    security(server, &mut container, export);
    resources(server, &mut container, export);
    for (is_set, what) in [
        (settings.nice.is_some(), "`nice`"),
        (settings.umask.is_some(), "`umask`"),
        (settings.oom_score_adj.is_some(), "`oom_score_adj`: Kubernetes sets it by the quality of service"),
        (settings.stdin != Stdin::Null, "`stdin`"),
        (process.watchdog.is_some(), "`watchdog`"),
    ] {
        if is_set {
            export.left(server_name, what);
        }
    }
    container
}

/// Keeps a text from being read as one with variables.
fn literal(text: &str) -> String {
    text.replace("$(", "$$(")
}

fn probes(server: &ServerConfig, container: &mut Value, export: &mut Export) {
    let process = &server.process;
    let (interval, timeout) = (process.ready_times.interval, process.ready_times.timeout);
    let period = interval.unwrap_or(DEFAULT_PERIOD).max(Duration::from_secs(1));
    let readiness = process.readiness();
    if let Some(mut probe) = handler(server, &readiness, "ready", export) {
        probe.insert("periodSeconds".to_owned(), seconds(period).into());
        probe.insert("timeoutSeconds".to_owned(), seconds(timeout.unwrap_or(DEFAULT_TIMEOUT)).into());
        // It is asked until it is ready; only then the probe of liveness begins.
        if let Some(limit) = server.child.start_timeout {
            let mut startup = probe.clone();
            let attempts = limit.as_secs().div_ceil(seconds(period)).max(1);
            startup.insert("failureThreshold".to_owned(), attempts.into());
            container["startupProbe"] = startup.into();
        }
        container["readinessProbe"] = probe.into();
    }
    if let Some(liveness) = &process.liveness
        && let Some(mut probe) = handler(server, &liveness.probe, "liveness", export)
    {
        probe.insert("periodSeconds".to_owned(), seconds(liveness.interval).into());
        probe.insert("timeoutSeconds".to_owned(), seconds(liveness.timeout).into());
        probe.insert("failureThreshold".to_owned(), liveness.failure_threshold.into());
        container["livenessProbe"] = probe.into();
    }
}

/// Returns what is asked; `None` if Kubernetes cannot ask it.
fn handler(
    server: &ServerConfig,
    probe: &Readiness,
    key: &str,
    export: &mut Export,
) -> Option<Map<String, Value>> {
    let port = server.process.port;
    let tcp = |port: Option<u16>| port.map(|port| json!({ "tcpSocket": { "port": port } }));
    let handler = match probe {
        Readiness::Started => None,
        Readiness::Tcp => tcp(port),
        Readiness::Http { path, header, status } => {
            if status.to_string() != "200-399" {
                export.left(
                    &server.name,
                    format!("`{key}: Http(status: [{status}])`: any of 200 to 399 counts"),
                );
            }
            let mut get = json!({ "path": path, "port": port });
            if let Some(header) = header {
                get["httpHeaders"] = json!([{ "name": header.name, "value": header.value }]);
            }
            Some(json!({ "httpGet": get }))
        }
        Readiness::Exec { command, args } => {
            let command: Vec<&String> = std::iter::once(command).chain(args).collect();
            Some(json!({ "exec": { "command": command } }))
        }
        Readiness::Mcp { .. } => {
            export.left(
                &server.name,
                format!("`{key}: Mcp`: whether its port accepts connections is asked instead"),
            );
            tcp(port)
        }
        other => {
            let instead = if port.is_some() {
                "whether its port accepts connections is asked instead"
            } else {
                "nothing is asked"
            };
            export.left(&server.name, format!("`{key}: {}`: {instead}", other.name()));
            tcp(port)
        }
    };
    match handler {
        Some(Value::Object(handler)) => Some(handler),
        _ => None,
    }
}

fn lifecycle(server: &ServerConfig, container: &mut Value, export: &mut Export) {
    if let Some(stop) = &server.process.stop_command {
        let command: Vec<&String> = std::iter::once(&stop.command).chain(&stop.args).collect();
        container["lifecycle"] = json!({ "preStop": { "exec": { "command": command } } });
        export.left(&server.name, "`XY_PID` of the stop command: in a container the server is process 1");
    }
    if !matches!(server.process.stop_signal, StopSignal::Term) {
        export.left(&server.name, "`stop: (signal)`: the image says it, with STOPSIGNAL");
    }
}

fn security(server: &ServerConfig, container: &mut Value, export: &mut Export) {
    let settings = &server.process.settings;
    let mut security = Map::new();
    for (key, field, value) in
        [("user", "runAsUser", &settings.user), ("group", "runAsGroup", &settings.group)]
    {
        match value.as_ref().map(|value| value.parse::<u32>()) {
            Some(Ok(id)) => {
                security.insert(field.to_owned(), id.into());
            }
            Some(Err(_)) => export.left(&server.name, format!("`{key}`: Kubernetes needs its number")),
            None => {}
        }
    }
    let other_user = settings.user.is_some() || settings.group.is_some();
    if settings.no_new_privs.unwrap_or(other_user) {
        security.insert("allowPrivilegeEscalation".to_owned(), false.into());
    }
    if !security.is_empty() {
        container["securityContext"] = security.into();
    }
}

fn resources(server: &ServerConfig, container: &mut Value, export: &mut Export) {
    for limit in &server.process.settings.limits {
        let name = limit.resource.as_str();
        match limit.resource {
            Resource::As if limit.soft != ResourceLimit::UNLIMITED => {
                container["resources"] = json!({ "limits": { "memory": limit.soft.to_string() } });
                let what = "`limits: (as)`: it limits the memory in use, not the address space";
                export.left(&server.name, what);
            }
            _ => export.left(&server.name, format!("`limits: ({name})`")),
        }
    }
}

/// Returns the containers that wait for others before the server starts.
fn waits(source: &Source, server: &ServerConfig, export: &mut Export) -> Vec<Value> {
    let mut waits = Vec::new();
    for dependency in &server.child.depends_on {
        for other in source.siblings(server, dependency.on.as_str()) {
            let condition = dependency.condition;
            let name = object_name(other);
            match other.process.port {
                Some(port) if condition != Condition::Completed => {
                    // A Service has no address to connect to before its pod is ready.
                    let script = format!("until nc -z {name} {port}; do sleep 1; done");
                    let wait: String = format!("wait-{name}").chars().take(63).collect();
                    waits.push(json!({
                        "name": wait.trim_end_matches('-'), "image": WAITING_IMAGE,
                        "command": ["sh", "-c", script],
                    }));
                }
                _ => {
                    let what =
                        format!("`depends_on: {{\"{}\": {condition}}}`: nothing to wait for", other.name);
                    export.left(&server.name, what);
                }
            }
            if dependency.restart {
                export.left(&server.name, format!("`restart: true` of `{}`", other.name));
            }
        }
    }
    waits
}

fn service(server: &ServerConfig, port: u16) -> Value {
    let name = object_name(server);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/managed-by": "xy" } },
        "spec": {
            "selector": { "app.kubernetes.io/name": name },
            "ports": [{ "name": "main", "port": port, "targetPort": "main" }],
        },
    })
}

fn grace(server: &ServerConfig) -> u64 {
    match server.child.shutdown {
        Shutdown::BrutalKill => 0,
        Shutdown::Timeout(grace) => seconds(grace),
        // The longest that it takes is a day here.
        Shutdown::Infinity => 86_400,
    }
}

/// Returns whole seconds, rounded up, at least one.
fn seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{is_left, source, text};
    use super::*;

    /// Reads the documents of a file again.
    fn documents(export: &Export, name: &str) -> Vec<Value> {
        let parts = text(export, name).split("\n---\n");
        parts
            .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{part}: {error}")))
            .collect()
    }

    const SEARCH: &str = r#"Process(
        command: "search", args: ["$(HOME)", "yes", "1e3", "a: b # c"], env: {"PORT": 8422, "ANSWER": "no"},
        port: 8422, ready: Http(path: "/health", interval: "2s"), start_timeout: "2m",
        liveness: (probe: Exec(command: "look", args: ["-q"]), interval: "20s", timeout: "2s", failures: 4),
        limits: (as: "1GiB", nofile: 100), no_new_privs: true, working_dir: "/srv/search",
        depends_on: {"db": Ready, "migrate": Completed},
        stop: (signal: INT, grace: "20s", command: ["search", "stop"]),
    )"#;

    fn full() -> Export {
        let files = [
            ("search", SEARCH),
            ("db", r#"Process(command: "db", port: 5432, restart: (policy: Always), autostart: false)"#),
            ("migrate", r#"Process(command: "migrate")"#),
            ("once", r#"Process(command: "once", restart: (policy: Never), ready: Log("done"))"#),
            ("files", r#"Process(command: "files", port: 8421, ready: Mcp)"#),
            ("web_1", r#"Supervisor(children: [Process(name: "a_b", command: "x")])"#),
        ];
        export(&source(&files), Some("registry.example/tools:1")).expect("it can be written")
    }

    #[test]
    fn a_server_becomes_a_deployment_with_its_probes_and_a_service() {
        let export = full();
        let [deployment, service] = &documents(&export, "search.yaml")[..] else { panic!("{export:?}") };
        assert_eq!((&deployment["kind"], &deployment["spec"]["replicas"]), (&json!("Deployment"), &json!(1)));
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(
            (&pod["restartPolicy"], &pod["terminationGracePeriodSeconds"]),
            (&json!("Always"), &json!(40))
        );
        assert_eq!(pod["initContainers"][0]["command"][2], "until nc -z db 5432; do sleep 1; done");
        let container = &pod["containers"][0];
        let get = json!({ "httpGet": { "path": "/health", "port": 8422 }, "periodSeconds": 2, "timeoutSeconds": 5 });
        assert_eq!(container["readinessProbe"], get);
        assert_eq!(container["startupProbe"]["failureThreshold"], 60);
        let live = json!({
            "exec": { "command": ["look", "-q"] }, "periodSeconds": 20, "timeoutSeconds": 2, "failureThreshold": 4,
        });
        assert_eq!(container["livenessProbe"], live);
        assert_eq!(container["resources"]["limits"]["memory"], "1073741824");
        assert_eq!(container["args"], json!(["$$(HOME)", "yes", "1e3", "a: b # c"]));
        assert_eq!(container["env"][0], json!({ "name": "ANSWER", "value": "no" }));
        assert_eq!(container["securityContext"], json!({ "allowPrivilegeEscalation": false }));
        assert_eq!(
            (&service["kind"], &service["spec"]["ports"][0]["port"]),
            (&json!("Service"), &json!(8422))
        );
        assert_eq!(documents(&export, "db.yaml")[0]["spec"]["replicas"], 0);
    }

    #[test]
    fn what_runs_once_and_what_others_wait_for_become_jobs() {
        let export = full();
        for (file, policy, retries) in [("once.yaml", "Never", 0), ("migrate.yaml", "OnFailure", 5)] {
            let job = &documents(&export, file)[0];
            assert_eq!(
                (&job["kind"], &job["spec"]["backoffLimit"]),
                (&json!("Job"), &json!(retries)),
                "{job}"
            );
            assert_eq!(job["spec"]["template"]["spec"]["restartPolicy"], policy);
        }
    }

    #[test]
    fn what_kubernetes_has_no_word_for_is_listed() {
        let export = full();
        for (server, what) in [
            ("search", "stop: (signal)"),
            ("search", "limits: (nofile)"),
            ("search", "depends_on: {\"migrate\""),
            ("search", "OnFailure"),
            ("search", "max_retries"),
            ("files", "ready: Mcp"),
            ("once", "ready: Log"),
            ("web_1/a_b", "its name; here it is `web-1-a-b`"),
        ] {
            assert!(is_left(&export, server, what), "{server}: {what} is not in {:?}", export.left);
        }
        let without_image = super::export(&source(&[("a", r#"Process(command: "x")"#)]), None).unwrap();
        assert!(is_left(&without_image, "a", "--image"), "{:?}", without_image.left);
    }
}
