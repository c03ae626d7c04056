//! From the shape of a file to specs: defaults, ranges and everything that is wrong with the meaning, all at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use xy_actors::log::LogSettings;
use xy_actors::process::{PortOwner, ProcessSpec, StopCommand};
use xy_actors::spec::{Backoff, ChildSpec, OnLimit, RestartIntensity, RestartLimit, RestartType, Shutdown};

use super::error::{ConfigError, nearest};
use super::file_text::FileText;
use super::outline::Outline;
use super::shape::{
    self, DaemonShape, DurationText, EnvShape, EnvValue, EventsShape, LogShape, ProcessShape, RestartShape,
    RuleShape, ServerShape, SizeText,
};
use super::{EventSettings, GroupConfig, LoadOptions, ServerConfig, Settings, instances, is_name, quantity};
use crate::http::Limits;
use crate::http::address::{self, DEFAULT_ADDRESS};
use crate::permission::rules::{self, PermissionSettings, Rule};
use crate::protocol::method::METHODS;

mod group;
mod probe;
mod settings;

/// Restarts per minute, unless a file says otherwise.
const MAX_RETRIES_PER_MINUTE: u32 = 5;
/// The most restarts per minute a file may ask for; the window remembers each.
const MOST_RETRIES_PER_MINUTE: u32 = 1000;
/// The time between the stop signal and KILL, unless a file says otherwise.
const GRACE: Duration = Duration::from_secs(10);
/// The most log files kept.
const MOST_LOG_FILES: u32 = 1000;
/// The largest ring buffer of one server; it is held in memory.
const LARGEST_BUFFER: u64 = 1 << 30;

/// More mistakes than this in one file are only counted.
const MOST_ERRORS: usize = 100;

/// Reads `xyd.ron`.
///
/// # Errors
/// Returns the first error of shape, or all errors of meaning.
pub(super) fn settings(shown: &Path, text: &str) -> Result<(Settings, PermissionSettings), Vec<ConfigError>> {
    let outline = Outline::new(text);
    // A file whose every line is commented out says nothing, and nothing is fine.
    let shape: DaemonShape = if outline.is_empty() {
        DaemonShape::default()
    } else {
        shape::parse(shown, text, &outline, "`(key: value, ..)`")?
    };
    let mut checker = Checker::new(shown, &outline);
    let defaults = Settings::default();
    let settings = Settings {
        shutdown_timeout: checker
            .positive("shutdown_timeout", shape.shutdown_timeout.as_ref())
            .unwrap_or(defaults.shutdown_timeout),
        log: shape.log.map_or(defaults.log, |log| checker.log(&log, defaults.log)),
        http: shape.http.as_ref().map(|http| checker.listen(http.listen.as_deref())),
        rotate_token: checker
            .rotate_token(shape.http.as_ref().and_then(|http| http.rotate_token.as_ref()))
            .unwrap_or(defaults.rotate_token),
        idle_shutdown: checker.positive("idle_shutdown", shape.idle_shutdown.as_ref()),
        events: checker.events(&shape.events.unwrap_or_default()),
    };
    let permissions = checker.permissions(shape.permissions, shape.permission_timeout.as_ref());
    checker.finish((settings, permissions))
}

/// What one server file describes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Described {
    /// Its groups, each before those in it.
    pub(super) groups: Vec<GroupConfig>,
    pub(super) servers: Vec<ServerConfig>,
}

/// What is known of a file beside its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// Its name without the ending.
    pub(super) name: &'a str,
    pub(super) source: &'a Path,
    pub(super) settings: &'a Settings,
    pub(super) options: &'a LoadOptions,
}

/// Reads one server file; of `instances` and of a group it describes several servers.
///
/// # Errors
/// Returns the first error of shape, or all errors of meaning.
pub(super) fn server(origin: Origin<'_>, shown: &Path, text: &str) -> Result<Described, Vec<ConfigError>> {
    let outline = Outline::new(text);
    if outline.is_empty() {
        return Err(vec![ConfigError::of_file(shown, "is empty, expected `Process(command: \"..\")`")]);
    }
    let form = "`Process(command: \"..\", ..)`";
    let shape: ServerShape = shape::parse(shown, text, &outline, form)?;
    let mut checker = Checker::new(shown, &outline);
    let mut described = Described::default();
    match shape {
        ServerShape::Process(shape) => {
            checker.no_name(shape.name.as_deref());
            described.servers = checker.server(origin, origin.name, None, *shape);
        }
        ServerShape::Group(shape) => {
            checker.no_name(shape.name.as_deref());
            checker.group(origin, origin.name, *shape, &mut described);
        }
    }
    let text = FileText::from(text);
    described.servers.iter_mut().for_each(|server| server.text = text.clone());
    described.groups.iter_mut().for_each(|group| group.text = text.clone());
    checker.finish(described)
}

/// Collects the errors of one file.
struct Checker<'a> {
    file: &'a Path,
    outline: &'a Outline<'a>,
    /// What stands before the keys of a child of a group, such as `children[0].`.
    prefix: String,
    /// Where that child begins.
    place: Option<usize>,
    errors: Vec<ConfigError>,
    /// How many mistakes are not in `errors`.
    unlisted: usize,
}

impl<'a> Checker<'a> {
    fn new(file: &'a Path, outline: &'a Outline<'a>) -> Self {
        Self { file, outline, prefix: String::new(), place: None, errors: Vec::new(), unlisted: 0 }
    }

    /// Reads the address of HTTP.
    fn listen(&mut self, text: Option<&str>) -> SocketAddr {
        let address = text.map_or(Ok(DEFAULT_ADDRESS), address::parse);
        address.unwrap_or_else(|error| {
            self.error("http.listen", error.to_string());
            DEFAULT_ADDRESS
        })
    }

    /// Reads how often the token of HTTP is replaced: not before clients that have read the last one have to do so again.
    fn rotate_token(&mut self, text: Option<&DurationText>) -> Option<Duration> {
        const KEY: &str = "http.rotate_token";
        let every = self.positive(KEY, text)?;
        let grace = Limits::default().grace;
        if every < grace {
            self.error(KEY, format!("must be at least {grace:?}, for which an old token is accepted"));
        }
        Some(every)
    }

    /// Reads who may ask for what.
    fn permissions(
        &mut self,
        rules: Option<Vec<RuleShape>>,
        timeout: Option<&DurationText>,
    ) -> PermissionSettings {
        const KEY: &str = "permissions";
        let defaults = PermissionSettings::default();
        let ask_timeout = self.positive("permission_timeout", timeout).unwrap_or(defaults.ask_timeout);
        let mut checked = Vec::new();
        for (index, rule) in rules.unwrap_or_default().into_iter().enumerate() {
            let RuleShape { decision, client, server, tool, action } = rule;
            let key = |name: &str| format!("{KEY}[{index}].{name}");
            for (name, pattern) in [("client", &client), ("server", &server), ("tool", &tool)] {
                if pattern.as_ref().is_some_and(|pattern| pattern.is_empty() || pattern.starts_with('@')) {
                    self.error(&key(name), "must be a name, or a pattern with `*` and `?`");
                }
            }
            // A rule that never matches would let through what it is to keep out.
            for (name, pattern) in [("action", &action), ("tool", &tool)] {
                if let Some(pattern) = pattern
                    && !rules::is_action(pattern)
                {
                    let hint = match nearest(pattern, METHODS) {
                        Some(method) => format!("did you mean `{method}`?"),
                        None => "actions are methods of the control protocol, such as `stop`, `@read` and `@change`".into(),
                    };
                    self.error_with_hint(&key(name), format!("`{pattern}` is no action"), hint);
                }
            }
            checked.push(Rule { decision, client, server, tool, action });
        }
        PermissionSettings { rules: checked, ask_timeout }
    }

    /// Returns the value if nothing was wrong, else the errors from the top of the file to its end.
    fn finish<T>(mut self, value: T) -> Result<T, Vec<ConfigError>> {
        self.errors.sort_by_key(|error| (error.line, error.column));
        if self.unlisted > 0 {
            let message = format!("there are {} more mistakes", self.unlisted);
            self.errors.push(ConfigError::of_file(self.file, message));
        }
        if self.errors.is_empty() { Ok(value) } else { Err(self.errors) }
    }

    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.note(key, message.into(), None);
    }

    fn error_with_hint(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.note(key, message.into(), Some(hint.into()));
    }

    fn note(&mut self, key: &str, message: String, hint: Option<String>) {
        if self.errors.len() == MOST_ERRORS {
            self.unlisted += 1;
            return;
        }
        // A key with escapes or an absent one is not in the outline, but the bracket it belongs into may be.
        let parent = key.split('.').next().unwrap_or(key);
        let offset = self.value_of(key).or_else(|| self.value_of(parent)).or(self.place);
        let position = offset.map(|offset| self.outline.position_of(offset));
        let key = self.path_of(key);
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            key: Some(key),
            message,
            hint,
        });
    }

    /// Returns where the value of a key of this server or group stands.
    fn value_of(&self, key: &str) -> Option<usize> {
        self.outline.value_of(&self.path_of(key))
    }

    /// Returns the whole path of a key of this server or group; of none, that of itself.
    fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.prefix).trim_end_matches('.').to_owned()
    }

    /// Returns `None` for an absent duration and, with an error noted, for a bad one.
    fn duration(&mut self, key: &str, text: Option<&DurationText>) -> Option<Duration> {
        match quantity::duration(&text?.0) {
            Ok(duration) => Some(duration),
            Err(message) => {
                self.error(key, message);
                None
            }
        }
    }

    fn positive(&mut self, key: &str, text: Option<&DurationText>) -> Option<Duration> {
        let duration = self.duration(key, text)?;
        if duration.is_zero() {
            self.error(key, "must be longer than zero");
        }
        Some(duration)
    }

    fn size(&mut self, key: &str, text: Option<&SizeText>) -> Option<u64> {
        match quantity::size(&text?.0) {
            Ok(0) => {
                self.error(key, "must be larger than zero");
                None
            }
            Ok(size) => Some(size),
            Err(message) => {
                self.error(key, message);
                None
            }
        }
    }

    fn number(&mut self, key: &str, number: Option<i64>, least: u32, most: u32) -> Option<u32> {
        let number = number?;
        let fitting = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
        if fitting.is_none() {
            self.error(key, format!("{number} is out of range, expected a number from {least} to {most}"));
        }
        fitting
    }

    fn log(&mut self, shape: &LogShape, defaults: LogSettings) -> LogSettings {
        let buffer = self.size("log.buffer", shape.buffer.as_ref());
        if buffer.is_some_and(|buffer| buffer > LARGEST_BUFFER) {
            self.error("log.buffer", "is held in memory and must not be larger than 1GiB");
        }
        LogSettings {
            max_size: self.size("log.max_size", shape.max_size.as_ref()).unwrap_or(defaults.max_size),
            max_age: self.positive("log.max_age", shape.max_age.as_ref()).or(defaults.max_age),
            keep: self.number("log.keep", shape.keep, 1, MOST_LOG_FILES).unwrap_or(defaults.keep),
            buffer: buffer.and_then(|buffer| usize::try_from(buffer).ok()).unwrap_or(defaults.buffer),
        }
    }

    fn events(&mut self, shape: &EventsShape) -> EventSettings {
        let defaults = EventSettings::default();
        EventSettings {
            keep: self.number("events.keep", shape.keep, 0, EventSettings::MOST).unwrap_or(defaults.keep),
            age: self.positive("events.age", shape.age.as_ref()).unwrap_or(defaults.age),
        }
    }

    /// Reads the delays. A first delay of zero restarts at once only the first time: delays that double from zero
    /// would stay zero, and a crash loop would run at full speed.
    fn backoff(&mut self, shape: &RestartShape) -> Backoff {
        let defaults = Backoff::default();
        let initial = self.duration("restart.backoff_initial", shape.backoff_initial.as_ref());
        let max = self.duration("restart.backoff_max", shape.backoff_max.as_ref());
        let (base, first) = match initial {
            Some(Duration::ZERO) => (defaults.base.min(max.unwrap_or(defaults.max)), Some(Duration::ZERO)),
            Some(initial) => (initial, None),
            None => (defaults.base, None),
        };
        // A long first delay alone lifts the default maximum; only a contradiction in the file is an error.
        let longest = match max {
            Some(max) if max < base => {
                self.error(
                    "restart.backoff_max",
                    format!("{max:?} is shorter than `backoff_initial`, which is {base:?}"),
                );
                base
            }
            Some(max) => max,
            None => defaults.max.max(base),
        };
        Backoff { first, base, max: longest, ..defaults }
    }

    fn limit(&mut self, shape: &RestartShape) -> RestartLimit {
        let retries = self
            .number(
                "restart.max_retries_per_minute",
                shape.max_retries_per_minute,
                0,
                MOST_RETRIES_PER_MINUTE,
            )
            .unwrap_or(MAX_RETRIES_PER_MINUTE);
        RestartLimit {
            intensity: RestartIntensity::new(retries, Duration::from_secs(60)),
            on_limit: OnLimit::GiveUp,
        }
    }

    fn stop_command(&mut self, words: Option<Vec<String>>, grace: Duration) -> Option<StopCommand> {
        const KEY: &str = "stop.command";
        let mut words = words?.into_iter();
        let command = words.next().unwrap_or_default();
        if command.trim().is_empty() {
            self.error(KEY, "is empty, expected a list of a program and its arguments");
        }
        let args: Vec<String> = words.collect();
        self.no_nul(KEY, "the command", &command);
        for (index, argument) in args.iter().enumerate() {
            self.no_nul(KEY, &format!("argument {}", index + 1), argument);
        }
        Some(StopCommand { command, args, grace })
    }

    /// Reads tags, sorted and each once.
    fn tags(&mut self, mut tags: Vec<String>) -> Vec<String> {
        for tag in tags.iter().filter(|tag| !is_name(tag)) {
            let message = format!("`{tag}` is not a tag, which is made as the name of a server is");
            self.error_with_hint("tags", message, "use `a-z`, `0-9`, `_` and `-`; the `@` is not part of it");
        }
        tags.sort();
        tags.dedup();
        tags
    }

    /// Makes the copies of a server, or leaves it as it is.
    fn instances(&mut self, server: ServerConfig, count: Option<u32>) -> Vec<ServerConfig> {
        const KEY: &str = "instances";
        let Some(count) = count else { return vec![server] };
        let longest = instances::name(server.child.id.as_str(), count);
        if !is_name(&longest) {
            self.error(KEY, format!("`{longest}` is too long for a name, which has at most 64 characters"));
        }
        if let Some(port) = server.process.port {
            if u32::from(port) + count - 1 > u32::from(u16::MAX) {
                self.error(KEY, format!("instance {count} would have a port above 65535"));
            } else if count > 1 && !instances::tells_apart(&server) {
                self.error_with_hint(
                    KEY,
                    "each instance has a port of its own, and nothing tells it which",
                    "use `{port}` in `args` or `env`",
                );
            }
        }
        instances::expand(&server, count)
    }

    /// Reads one server of the name or path `name`; `group` is the one it is in.
    fn server(
        &mut self,
        origin: Origin<'_>,
        name: &str,
        group: Option<&GroupConfig>,
        mut shape: ProcessShape,
    ) -> Vec<ServerConfig> {
        let grace = self.duration("stop.grace", shape.stop.grace.as_ref()).unwrap_or(GRACE);
        let stop_command = self.stop_command(shape.stop.command.take(), grace);
        // The time until KILL covers the grace of the stop command and that of the signal.
        let until_kill = if stop_command.is_some() { grace * 2 } else { grace };
        let limit = self.limit(&shape.restart);
        if group.is_some() && shape.restart.max_retries_per_minute.is_some() {
            self.error_with_hint(
                "restart.max_retries_per_minute",
                "a server in a group has no limit of its own",
                "set the group's `intensity`",
            );
        }
        let id = name.rsplit('/').next().unwrap_or(name);
        let child = ChildSpec {
            restart: shape.restart.policy.map_or(RestartType::Transient, RestartType::from),
            shutdown: Shutdown::Timeout(until_kill),
            backoff: Some(self.backoff(&shape.restart)),
            limit: group.is_none().then_some(limit),
            start_timeout: Some(
                self.positive("start_timeout", shape.start_timeout.as_ref())
                    .unwrap_or(ProcessSpec::DEFAULT_START_TIMEOUT),
            ),
            retain: true,
            autostart: shape.autostart.unwrap_or(true),
            ..ChildSpec::worker(id)
        };
        let depends_on = self.depends_on(std::mem::take(&mut shape.depends_on), group);
        let log = self.log(&shape.log, origin.settings.log);
        let instances = self.number("instances", shape.instances, 1, instances::MOST);
        let tags = self.tags(std::mem::take(&mut shape.tags));
        let process = ProcessSpec { stop_command, ..self.process(shape, origin.options) };
        let child = ChildSpec { health_checked: process.liveness.is_some(), ..child };
        let server = ServerConfig {
            name: name.to_owned(),
            base: name.to_owned(),
            origin: origin.name.to_owned(),
            child: child.into(),
            process: process.into(),
            log,
            tags,
            depends_on,
            source: origin.source.to_owned(),
            text: FileText::default(),
        };
        let servers = self.instances(server, instances);
        self.own_ports(&servers, origin.options);
        servers
    }

    /// Refuses ports that the daemon itself listens on.
    fn own_ports(&mut self, servers: &[ServerConfig], options: &LoadOptions) {
        for server in servers {
            if let Some(port) = server.process.port
                && let Some(what) = options.own_ports.get(&port)
            {
                self.error_with_hint("port", format!("port {port} belongs to {what}"), "choose another port");
            }
        }
    }

    fn process(&mut self, shape: ProcessShape, options: &LoadOptions) -> ProcessSpec {
        if shape.command.trim().is_empty() {
            self.error("command", "is empty, expected a program");
        }
        self.no_nul("command", "the command", &shape.command);
        for (index, argument) in shape.args.iter().enumerate() {
            self.no_nul("args", &format!("argument {}", index + 1), argument);
        }
        let port =
            self.number("port", shape.port, 1, u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
        let places = self.places(&shape, options);
        let working_dir = self.working_dir(shape.working_dir.as_deref(), &places);
        let settings = self.settings(&shape, &working_dir, &places);
        let has_port = shape.port.is_some();
        let (ready, ready_times) = self.ready(shape.ready, has_port);
        ProcessSpec {
            args: shape.args,
            env: self.env(shape.env),
            working_dir: Some(working_dir),
            settings,
            port,
            port_owner: shape.port_owner.unwrap_or(PortOwner::Own),
            ready,
            ready_times,
            liveness: shape.liveness.and_then(|liveness| self.liveness(liveness, has_port)),
            watchdog: self.positive("watchdog", shape.watchdog.as_ref()),
            stop_signal: shape.stop.signal.unwrap_or_default(),
            ..ProcessSpec::new(shape.command)
        }
    }

    fn no_nul(&mut self, key: &str, what: &str, text: &str) {
        if text.contains('\0') {
            self.error(key, format!("{what} contains a NUL character, which no program can receive"));
        }
    }

    fn variable_name(&mut self, map: &str, key: &str, name: &str) {
        if name.is_empty() {
            self.error(map, "an environment variable has an empty name");
        } else if name.contains(['=', '\0']) {
            self.error(key, "the name of an environment variable cannot contain `=` or a NUL character");
        }
    }

    fn env(&mut self, shape: EnvShape) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (name, value) in shape.0 {
            let key = format!("env.{name}");
            self.variable_name("env", &key, &name);
            let value = match value {
                EnvValue::Text(text) => text,
                // As written: 1.10 must not become 1.1, nor 0x1F 31.
                EnvValue::Number(number) => {
                    self.value_of(&key).map_or(number, |offset| self.outline.word_at(offset).to_owned())
                }
            };
            self.no_nul(&key, "the value", &value);
            env.insert(name, value);
        }
        env
    }
}
