//! One unit of systemd for each server.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xy_actors::process::settings::{EnvBase, ResourceLimit, SearchPath, Stdin};
use xy_actors::process::{Readiness, StopSignal};
use xy_actors::spec::{Backoff, Condition, RestartType, Shutdown, Strategy};
use xy_daemon::config::ServerConfig;

use super::{Export, ExportedFile, Source};

/// What a unit needs to know of this machine.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Whether the system's manager runs the units.
    pub(super) system: bool,
    /// `PATH` as servers inherit it.
    pub(super) path: String,
}

impl Surroundings {
    /// Returns those of this process.
    pub(super) fn of_process(system: bool) -> Self {
        Self { system, path: std::env::var("PATH").unwrap_or_default() }
    }
}

/// A unit in the making: the lines of each section.
#[derive(Debug, Default)]
struct Unit {
    unit: String,
    service: String,
    install: String,
}

impl Unit {
    fn text(&self) -> String {
        let mut text = format!("[Unit]\n{}\n[Service]\n{}", self.unit, self.service);
        if !self.install.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[Install]\n{}", self.install);
        }
        text
    }
}

fn put(section: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(section, "{key}={value}");
}

/// Writes the units.
pub(super) fn export(source: &Source, surroundings: &Surroundings) -> Export {
    let mut export = Export::default();
    for server in source.servers() {
        let unit = unit(source, server, surroundings, &mut export);
        export.files.push(ExportedFile { name: unit_name(server), text: unit.text() });
    }
    for (name, group) in &source.config.groups {
        if !source.servers().any(|server| is_in(&server.name, name)) {
            continue;
        }
        if group.supervisor.strategy != Strategy::OneForOne {
            export.left(name, "its `strategy`: systemd restarts each unit by itself");
        }
        if group.supervisor.intensity.is_some() {
            export.left(name, "its `intensity`: each unit has the limit of its own server");
        }
    }
    export
}

fn is_in(server: &str, group: &str) -> bool {
    server.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the name of a server's unit. A dot stands for the slash; names of servers have none.
fn unit_name(server: &ServerConfig) -> String {
    format!("xy-{}.service", server.name.replace('/', "."))
}

fn unit(source: &Source, server: &ServerConfig, surroundings: &Surroundings, export: &mut Export) -> Unit {
    let mut unit = Unit::default();
    let name = server.name.as_str();
    put(&mut unit.unit, "Description", format_args!("{name}, as xy ran it"));
    dependencies(source, server, &mut unit, export);
    let (process, settings) = (&server.process, &server.process.settings);
    let service = &mut unit.service;

    let is_job = source.is_job(server);
    kind(server, is_job, service, export);
    let path = match &settings.path {
        SearchPath::Literal(path) => path.clone(),
        _ => surroundings.path.clone(),
    };
    match found(&process.command, &path, process.working_dir.as_deref()) {
        Some(program) => {
            put(service, "ExecStart", command_line(&program.display().to_string(), &process.args));
        }
        None => {
            export.left(name, format!("where `{}` is: it is not in PATH here", process.command));
            put(service, "ExecStart", command_line(&process.command, &process.args));
        }
    }
    put(service, "WorkingDirectory", escaped(&directory(source, server)));
    if settings.env_base == EnvBase::Inherit {
        export.left(name, "what it inherited from xyd's environment, except PATH");
    }
    if !process.env.contains_key("PATH") && !path.is_empty() {
        put(service, "Environment", assignment("PATH", &path));
    }
    for (key, value) in &process.env {
        put(service, "Environment", assignment(key, value));
    }
    if !settings.secrets.is_empty() {
        export.left(name, "`secrets`: hand them over with `LoadCredential=`, or write an `EnvironmentFile=`");
    }
    for file in &settings.env_files {
        let path = directory(source, server);
        let path = Path::new(&path).join(&file.path).display().to_string();
        let optional = if file.optional { "-" } else { "" };
        put(service, "EnvironmentFile", format_args!("{optional}{}", escaped(&path)));
    }

    restart(server, &mut unit, export);
    let service = &mut unit.service;
    stop(server, service);
    if let Some(limit) = server.child.start_timeout {
        put(service, "TimeoutStartSec", seconds(limit));
    }
    if let Some(period) = process.watchdog {
        put(service, "WatchdogSec", seconds(period));
    }
    if surroundings.system {
        for (key, value) in [("User", &settings.user), ("Group", &settings.group)] {
            if let Some(value) = value {
                put(service, key, escaped(value));
            }
        }
        if settings.user.is_none() {
            export.left(name, "its user: a unit of the system without `User=` runs as root");
        }
    } else if settings.user.is_some() || settings.group.is_some() {
        export.left(name, "`user` and `group`: a user's manager runs everything as that user (`--system`)");
    }
    if let Some(umask) = settings.umask {
        put(service, "UMask", format_args!("{umask:04o}"));
    }
    if let Some(nice) = settings.nice {
        put(service, "Nice", nice);
    }
    for limit in &settings.limits {
        let value = |value: u64| match value {
            ResourceLimit::UNLIMITED => "infinity".to_owned(),
            value => value.to_string(),
        };
        let key = format!("Limit{}", limit.resource.as_str().to_uppercase());
        put(service, &key, format_args!("{}:{}", value(limit.soft), value(limit.hard)));
    }
    let other_user = settings.user.is_some() || settings.group.is_some();
    if settings.no_new_privs.unwrap_or(other_user) {
        put(service, "NoNewPrivileges", "yes");
    }
    if let Some(adjustment) = settings.oom_score_adj {
        put(service, "OOMScoreAdjust", adjustment);
    }
    if let Stdin::File(file) = &settings.stdin {
        let path = Path::new(&directory(source, server)).join(file).display().to_string();
        put(service, "StandardInput", format_args!("file:{}", escaped(&path)));
    }
    if let Some(liveness) = &process.liveness {
        let probe = liveness.probe.name();
        export.left(
            name,
            format!("`liveness: {probe}`: systemd asks nothing of what runs, but for `WatchdogSec=`"),
        );
    }
    if server.child.autostart {
        let wanted_by = if surroundings.system { "multi-user.target" } else { "default.target" };
        put(&mut unit.install, "WantedBy", wanted_by);
    }
    unit
}

/// Says when the unit counts as started.
fn kind(server: &ServerConfig, is_job: bool, service: &mut String, export: &mut Export) {
    let name = server.name.as_str();
    match server.process.readiness() {
        _ if is_job => {
            put(service, "Type", "oneshot");
            put(service, "RemainAfterExit", "yes");
        }
        Readiness::Notify { fd: None } => {
            put(service, "Type", "notify");
            put(service, "NotifyAccess", "all");
        }
        Readiness::Started => put(service, "Type", "exec"),
        other => {
            put(service, "Type", "exec");
            let probe = other.name();
            export.left(name, format!("`ready: {probe}`: it counts as started once its program is executed"));
        }
    }
    if server.process.watchdog.is_some()
        && !matches!(server.process.readiness(), Readiness::Notify { fd: None })
    {
        put(service, "NotifyAccess", "all");
    }
}

fn dependencies(source: &Source, server: &ServerConfig, unit: &mut Unit, export: &mut Export) {
    for dependency in &server.child.depends_on {
        for other in source.siblings(server, dependency.on.as_str()) {
            let other_unit = unit_name(other);
            let strength = match dependency.condition {
                // Only a requirement keeps it from starting after a job that failed.
                Condition::Completed => "Requires",
                _ => "Wants",
            };
            put(&mut unit.unit, strength, &other_unit);
            put(&mut unit.unit, "After", &other_unit);
            if dependency.restart {
                put(&mut unit.unit, "PartOf", &other_unit);
                let what = format!(
                    "`restart: true` of `{}`: it follows `systemctl restart`, and not restarts after a crash",
                    other.name
                );
                export.left(&server.name, what);
            }
            if dependency.condition == Condition::Healthy {
                let what = format!("`Healthy` of `{}`: it waits only until that has started", other.name);
                export.left(&server.name, what);
            }
        }
    }
}

fn restart(server: &ServerConfig, unit: &mut Unit, export: &mut Export) {
    let service = &mut unit.service;
    match server.child.restart {
        RestartType::Permanent => put(service, "Restart", "always"),
        RestartType::Transient => {
            put(service, "Restart", "on-failure");
            // Which systemd takes for clean ends, asked for or not.
            put(service, "RestartForceExitStatus", "130 143 SIGHUP SIGINT SIGTERM SIGPIPE");
        }
        RestartType::Temporary => {
            put(service, "Restart", "no");
            return;
        }
    }
    if let Some(Backoff { first, base, factor, max, .. }) = server.child.backoff {
        let first = first.filter(|first| !first.is_zero()).unwrap_or(base);
        put(service, "RestartSec", seconds(first));
        let is_growing = max > first && factor > 1.0 && !first.is_zero();
        if is_growing {
            let steps = (max.as_secs_f64() / first.as_secs_f64()).log(factor).ceil();
            put(service, "RestartSteps", format_args!("{steps:.0}"));
            put(service, "RestartMaxDelaySec", seconds(max));
        }
        if server.child.backoff.is_some_and(|backoff| backoff.first == Some(Duration::ZERO)) {
            export.left(&server.name, "`backoff_initial: \"0s\"`: the first restart waits as well");
        }
    }
    match server.child.limit {
        Some(limit) => {
            put(&mut unit.unit, "StartLimitIntervalSec", seconds(limit.intensity.period));
            // The first start counts here, too.
            put(&mut unit.unit, "StartLimitBurst", u64::from(limit.intensity.intensity) + 1);
        }
        None => put(&mut unit.unit, "StartLimitIntervalSec", "0"),
    }
}

fn stop(server: &ServerConfig, service: &mut String) {
    let process = &server.process;
    let signal = match process.stop_signal {
        StopSignal::Term => "SIGTERM",
        StopSignal::Int => "SIGINT",
        StopSignal::Hup => "SIGHUP",
        StopSignal::Quit => "SIGQUIT",
        StopSignal::Usr1 => "SIGUSR1",
        StopSignal::Usr2 => "SIGUSR2",
        StopSignal::Kill => "SIGKILL",
    };
    if signal != "SIGTERM" {
        put(service, "KillSignal", signal);
    }
    if let Some(stop) = &process.stop_command {
        let arguments: Vec<String> = std::iter::once(&stop.command).chain(&stop.args).cloned().collect();
        put(service, "ExecStop", format_args!("/usr/bin/env XY_PID=${{MAINPID}} {}", quoted_all(&arguments)));
    }
    // The codes and signals by which servers end when they are asked to.
    put(service, "SuccessExitStatus", format_args!("130 143 {signal}"));
    match server.child.shutdown {
        Shutdown::BrutalKill => put(service, "TimeoutStopSec", "1ms"),
        // It counts anew for the signal, after the command.
        Shutdown::Timeout(all) => {
            let before = process.stop_command.as_ref().map_or(Duration::ZERO, |stop| stop.grace);
            put(service, "TimeoutStopSec", seconds(all.saturating_sub(before)));
        }
        Shutdown::Infinity => put(service, "TimeoutStopSec", "infinity"),
    }
}

/// Returns the directory that a server runs in.
fn directory(source: &Source, server: &ServerConfig) -> String {
    let directory = server.process.working_dir.as_deref().unwrap_or(&source.default_dir);
    source.default_dir.join(directory).display().to_string()
}

/// Returns the file of a program.
fn found(command: &str, path: &str, directory: Option<&Path>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = |file: &Path| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if command.contains('/') {
        let file = directory.unwrap_or(Path::new("/")).join(command);
        return is_program(&file).then_some(file);
    }
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(command))
        .find(|file| is_program(file))
}

fn command_line(program: &str, args: &[String]) -> String {
    let all: Vec<String> = std::iter::once(program.to_owned()).chain(args.iter().cloned()).collect();
    quoted_all(&all)
}

fn quoted_all(arguments: &[String]) -> String {
    // Here a `$` begins a variable, which two of them do not.
    arguments.iter().map(|one| quoted(one).replace('$', "$$")).collect::<Vec<_>>().join(" ")
}

fn assignment(key: &str, value: &str) -> String {
    quoted(&format!("{key}={value}"))
}

/// Writes a word so that systemd reads it as it is.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '%' => text.push_str("%%"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Writes a value that is no list of words.
fn escaped(value: &str) -> String {
    value.replace('%', "%%").replace(['\n', '\r'], " ")
}

fn seconds(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::fixture::{is_left, source, text};
    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings { system: false, path: "/usr/bin:/bin".to_owned() }
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    const FULL: &str = r#"Process(
        command: "sleep", args: ["1 000", "100%", "$HOME"], env: {"GREETING": "it's \"me\" 50%", "PORT": 8422},
        env_files: ["-search.env"], working_dir: "/tmp", umask: "027", nice: 5, no_new_privs: true,
        limits: (nofile: 1024, stack: ("8MiB", "unlimited")), oom_score_adj: 100, port: 8422,
        ready: Http(path: "/health"), liveness: (probe: Tcp), watchdog: "30s", start_timeout: "2m",
        depends_on: {"db": Healthy(restart: true), "migrate": Completed},
        restart: (policy: OnFailure, backoff_initial: "500ms", backoff_max: "30s", max_retries_per_minute: 3),
        stop: (signal: INT, grace: "20s", command: ["sleep", "0"]),
    )"#;

    fn full() -> Export {
        let files = [
            ("search", FULL),
            ("db", r#"Process(command: "sleep", args: ["1"], ready: Notify, restart: (policy: Always))"#),
            ("migrate", r#"Process(command: "true", restart: (policy: Never), autostart: false)"#),
            (
                "back",
                r#"Supervisor(strategy: OneForAll, intensity: (restarts: 3, period: "10s"),
                    children: [Process(name: "a", command: "sleep", args: ["1"])])"#,
            ),
            ("gone", r#"Process(command: "no-such-program-anywhere")"#),
        ];
        export(&source(&files), &surroundings())
    }

    #[test]
    fn policy_limits_and_dependencies_are_carried_over() {
        let export = full();
        let unit = text(&export, "xy-search.service");
        for line in [
            "Wants=xy-db.service",
            "After=xy-db.service",
            "PartOf=xy-db.service",
            "Requires=xy-migrate.service",
            "After=xy-migrate.service",
            "StartLimitIntervalSec=60s",
            "StartLimitBurst=4",
            "Restart=on-failure",
            "RestartForceExitStatus=130 143 SIGHUP SIGINT SIGTERM SIGPIPE",
            "RestartSec=500ms",
            "RestartSteps=6",
            "RestartMaxDelaySec=30s",
            "KillSignal=SIGINT",
            "TimeoutStopSec=20s",
            "TimeoutStartSec=120s",
            "WatchdogSec=30s",
            "WorkingDirectory=/tmp",
            "EnvironmentFile=-/tmp/search.env",
            r#"Environment="GREETING=it's \"me\" 50%%""#,
            "Environment=PORT=8422",
            "UMask=0027",
            "Nice=5",
            "LimitNOFILE=1024:1024",
            "LimitSTACK=8388608:infinity",
            "NoNewPrivileges=yes",
            "OOMScoreAdjust=100",
            "WantedBy=default.target",
        ] {
            assert!(has(unit, line), "{line} is not in\n{unit}");
        }
        assert!(unit.contains(r#"sleep "1 000" "100%%" "$$HOME""#), "{unit}");
        let db = text(&export, "xy-db.service");
        assert!(has(db, "Type=notify") && has(db, "Restart=always"), "{db}");
        let migrate = text(&export, "xy-migrate.service");
        assert!(has(migrate, "Type=oneshot") && has(migrate, "Restart=no"), "{migrate}");
        assert!(!migrate.contains("[Install]"), "{migrate}");
        assert!(text(&export, "xy-back.a.service").contains("ExecStart="));
    }

    #[test]
    fn what_systemd_has_no_word_for_is_listed() {
        let export = full();
        for (server, what) in [
            ("search", "ready: Http"),
            ("search", "liveness: Tcp"),
            ("search", "`Healthy` of `db`"),
            ("search", "`restart: true` of `db`"),
            ("search", "inherited"),
            ("back", "strategy"),
            ("back", "intensity"),
            ("gone", "no-such-program-anywhere"),
        ] {
            assert!(is_left(&export, server, what), "{server}: {what} is not in {:?}", export.left);
        }
        assert!(!is_left(&export, "db", "ready"), "{:?}", export.left);
    }

    #[test]
    fn units_pass_the_verification_of_systemd() {
        let is_there = Command::new("systemd-analyze").arg("--version").output();
        if !is_there.is_ok_and(|run| run.status.success()) {
            // Nothing of it can be said on such a machine.
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--user"]).env("XDG_RUNTIME_DIR", directory.path());
        for file in full().files.iter().filter(|file| file.name != "xy-gone.service") {
            let path = directory.path().join(&file.name);
            std::fs::write(&path, &file.text).unwrap();
            command.arg(path);
        }
        let run = command.output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        // Those older than version 254 pass over what they do not know yet.
        let is_known =
            |line: &&str| !line.contains("'RestartSteps'") && !line.contains("'RestartMaxDelaySec'");
        let problems: Vec<&str> = said.lines().filter(|line| line.contains("xy-")).filter(is_known).collect();
        assert!(run.status.success() && problems.is_empty(), "{said}");
    }
}
