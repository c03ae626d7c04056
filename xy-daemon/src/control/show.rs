//! What a server is run with, defaults included, and where each of its variables comes from.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use xy_actors::process::settings::{SearchPath, Secret, Stdin, masked};
use xy_actors::process::{PortOwner, Readiness, is_withheld, known_login_path};
use xy_actors::spec::{RestartType, Shutdown};

use super::{Control, chain, words};
use crate::config::ServerConfig;
use crate::protocol::Method as _;
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::method::{Setting, Show, ShowResult, Variable};

/// A variable with one of these in its name is taken to be a secret.
const SECRET_WORDS: [&str; 12] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "API_KEY",
    "APIKEY",
    "PRIVATE_KEY",
    "ACCESS_KEY",
    "AUTH",
    "COOKIE",
];

impl Control {
    pub(super) async fn show_server(&self, name: String) -> Result<ShowResult, RpcError> {
        let (_, host) = self.files(Show::NAME)?;
        let server = self.in_force().config.servers.get(&name).cloned();
        let Some(server) = server else { return Err(self.no_spec(&name)) };
        let is_adhoc = self.0.adhoc.lock().is_ok_and(|adhoc| adhoc.contains_key(&name));
        let described = server.clone();
        let declaring: Vec<_> = self.in_force().config.servers.values().cloned().collect();
        let mut secrets = host.secrets();
        // Environment files may be on a disk that hangs.
        let shown = tokio::task::spawn_blocking(move || {
            // A server that has not been started since an upgrade has its secrets all the same.
            secrets.extend(declaring.iter().flat_map(at_hand));
            (settings(&described, &secrets), environment(&described, &secrets))
        });
        let (settings, environment) = shown.await.unwrap_or_default();
        Ok(ShowResult {
            file: (!is_adhoc).then(|| server.source.display().to_string()),
            settings,
            environment,
            name,
        })
    }
}

impl Control {
    /// Says why there is nothing to show.
    pub(super) fn no_spec(&self, name: &str) -> RpcError {
        if !self.in_force().config.groups.contains_key(name) {
            return self.not_found(name);
        }
        let message = format!("`{name}` is a group and runs nothing itself; `list` says what is in it");
        RpcError::new(ErrorKind::Unsupported, message)
    }
}

/// Returns those secrets of a server that can be had without running anything.
fn at_hand(server: &ServerConfig) -> Vec<Secret> {
    let process = &server.process;
    let directory = process.working_dir.as_deref().unwrap_or(Path::new("/"));
    process.settings.secrets.values().filter_map(|source| source.read(directory)?.ok()).collect()
}

/// Returns what is in force by the keys of server files.
fn settings(server: &ServerConfig, secrets: &[Secret]) -> Vec<Setting> {
    let (process, child, log) = (&server.process, &server.child, &server.log);
    let extra = &process.settings;
    let mut settings = Vec::new();
    let mut put = |key: &str, value: String| {
        settings.push(Setting { key: key.to_owned(), value: masked(&value, secrets).into_owned() });
    };
    // Each by itself, before quotes and escapes change it.
    let words = |words: &[String]| {
        let words = redacted_args(words);
        let words: Vec<_> = words.iter().map(|word| masked(word, secrets)).collect();
        format!("{words:?}")
    };
    let line = |command: &String, args: &[String]| words(&[std::slice::from_ref(command), args].concat());
    put("command", process.command.clone());
    put("args", words(&process.args));
    if let Some(dir) = &process.working_dir {
        put("working_dir", dir.display().to_string());
    }
    put("tags", format!("{:?}", server.tags));
    if let Some(port) = process.port {
        put("port", port.to_string());
        put("port_owner", if process.port_owner == PortOwner::Own { "Own" } else { "Any" }.to_owned());
    }
    put("ready", readiness(&process.readiness(), line));
    if let Some(liveness) = &process.liveness {
        let (interval, timeout) = (span(liveness.interval), span(liveness.timeout));
        let failures = liveness.failure_threshold;
        let probe = readiness(&liveness.probe, line);
        put("liveness", format!("{probe} every {interval}, at most {timeout}, {failures} failures in a row"));
    }
    if let Some(period) = process.watchdog {
        put("watchdog", span(period));
    }
    put("start_timeout", child.start_timeout.map_or_else(|| "none".to_owned(), span));
    put("autostart", child.autostart.to_string());
    let policy = match child.restart {
        RestartType::Permanent => "Always",
        RestartType::Transient => "OnFailure",
        RestartType::Temporary => "Never",
    };
    put("restart.policy", policy.to_owned());
    if let Some(backoff) = &child.backoff {
        put("restart.backoff_initial", span(backoff.first.unwrap_or(backoff.base)));
        put("restart.backoff_max", span(backoff.max));
    }
    if let Some(limit) = &child.limit {
        put("restart.max_retries_per_minute", limit.intensity.intensity.to_string());
    }
    put("stop.signal", words::signal(process.stop_signal).to_owned());
    if let Some(command) = &process.stop_command {
        put("stop.command", line(&command.command, &command.args));
    }
    if let Shutdown::Timeout(time) = child.shutdown {
        // With a stop command the time until KILL is twice the grace.
        let grace = process.stop_command.as_ref().map_or(time, |command| command.grace);
        put("stop.grace", span(grace));
    }
    for (key, value) in [("user", &extra.user), ("group", &extra.group)] {
        if let Some(value) = value {
            put(key, value.clone());
        }
    }
    if let Some(umask) = extra.umask {
        put("umask", format!("{umask:03o}"));
    }
    if let Some(nice) = extra.nice {
        put("nice", nice.to_string());
    }
    for limit in &extra.limits {
        put("limits", limit.to_string());
    }
    if let Stdin::File(path) = &extra.stdin {
        put("stdin", path.display().to_string());
    }
    put("log.max_size", size(log.max_size));
    put("log.keep", log.keep.to_string());
    settings
}

fn readiness(ready: &Readiness, line: impl Fn(&String, &[String]) -> String) -> String {
    match ready {
        Readiness::Http { path, .. } | Readiness::Mcp { path, .. } => format!("{} {path}", ready.name()),
        Readiness::Exec { command, args } => {
            format!("{} {}", ready.name(), line(command, args))
        }
        other => other.name().to_owned(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

fn span(duration: Duration) -> String {
    format!("{duration:?}")
}

/// Returns the arguments with the values of options that name a secret left out.
fn redacted_args(args: &[String]) -> Vec<String> {
    let mut hides_next = false;
    args.iter()
        .map(|arg| {
            let option = arg.split('=').next().unwrap_or(arg);
            let is_secret = option.starts_with('-') && is_secret_name(&option.replace('-', "_"));
            if std::mem::replace(&mut hides_next, is_secret && !arg.contains('=')) && !arg.starts_with('-') {
                "***".to_owned()
            } else if is_secret && arg.contains('=') {
                format!("{option}=***")
            } else if has_password(arg) {
                "***".to_owned()
            } else {
                arg.clone()
            }
        })
        .collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_WORDS.iter().any(|word| name.contains(word)) || name.ends_with("_KEY") || name.ends_with("_PASS")
}

/// Returns whether a text is an address with a password in it: `scheme://user:password@host`.
fn has_password(text: &str) -> bool {
    let authority =
        text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
}

/// Returns the environment of the next start, as far as it is known before it.
fn environment(server: &ServerConfig, secrets: &[Secret]) -> Vec<Variable> {
    let (process, extra) = (&server.process, &server.process.settings);
    let mut variables: BTreeMap<String, Variable> = BTreeMap::new();
    let mut put = |name: &str, value: Option<&str>, source: &str| {
        let is_plain =
            |value: &&str| !is_secret_name(name) && !has_password(value) && masked(value, secrets) == *value;
        let value = value.filter(is_plain);
        let (name, source) = (name.to_owned(), source.to_owned());
        variables.insert(name.clone(), Variable { name, value: value.map(ToOwned::to_owned), source });
    };
    // From the weakest to the strongest, as a start lays them over each other.
    for (key, value) in std::env::vars_os() {
        if !is_withheld(&key) && extra.env_base.keeps(key.as_bytes()) {
            put(&key.to_string_lossy(), Some(&value.to_string_lossy()), "xyd");
        }
    }
    match &extra.path {
        SearchPath::Inherit => {}
        SearchPath::Login => match known_login_path(extra.user.as_deref()) {
            Some(Ok(path)) => put("PATH", Some(&path.to_string_lossy()), "login shell"),
            Some(Err(error)) => {
                let own = std::env::var_os("PATH").unwrap_or_default();
                put("PATH", Some(&own.to_string_lossy()), &format!("xyd, because {}", chain(&*error)));
            }
            // It is asked at the next start.
            None => put("PATH", None, "login shell"),
        },
        SearchPath::Literal(path) => put("PATH", Some(path), "path in the server file"),
    }
    if let Some(user) = &extra.user {
        for name in ["HOME", "USER", "LOGNAME", "SHELL"] {
            put(name, None, &format!("user {user}"));
        }
    }
    let directory = process.working_dir.as_deref().unwrap_or(Path::new("/"));
    for file in &extra.env_files {
        let shown = directory.join(&file.path).display().to_string();
        match file.read() {
            Ok(found) => found.iter().for_each(|(key, value)| put(key, Some(value), &shown)),
            Err(error) => put("(environment file)", None, &chain(&error)),
        }
    }
    for (key, value) in &process.env {
        put(key, Some(value), "server file");
    }
    for (key, source) in &extra.secrets {
        put(key, None, &format!("secret from {source}"));
    }
    put("XY_INSTANCE", None, "xy");
    variables.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_name_and_by_shape() {
        for secret in ["API_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY", "DEPLOY_KEY", "PGPASSWORD"] {
            assert!(is_secret_name(secret), "{secret}");
        }
        for plain in ["PATH", "HOME", "KEYBOARD", "PORT", "KEYS_DIR"] {
            assert!(!is_secret_name(plain), "{plain}");
        }
        assert!(has_password("postgres://me:pw@host/db?x=1"));
        assert!(!has_password("http://me@host/") && !has_password("http://host:80/a@b"));
    }

    #[test]
    fn arguments_lose_the_values_of_secret_options() {
        let args =
            ["--port", "80", "--api-token", "abc", "--password=xyz", "--token", "--verbose", "redis://:p@h"];
        let args: Vec<String> = args.into_iter().map(ToOwned::to_owned).collect();
        let shown = ["--port", "80", "--api-token", "***", "--password=***", "--token", "--verbose", "***"];
        assert_eq!(redacted_args(&args), shown);
    }
}
