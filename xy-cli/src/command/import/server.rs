//! A server file in the making, and its text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::shell::{self, Words};

/// What is known of a server. Whatever is `None` or empty has the daemon's default and is not written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    /// What it is, for people.
    pub(super) about: Option<String>,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) env_files: Vec<String>,
    pub(super) working_dir: Option<String>,
    pub(super) user: Option<String>,
    pub(super) umask: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) instances: Option<u32>,
    pub(super) port: Option<u16>,
    /// Whether anybody may hold the port, such as a container engine.
    pub(super) port_of_anybody: bool,
    /// A readiness as it is written.
    pub(super) ready: Option<String>,
    /// The fields of a liveness as they are written.
    pub(super) liveness: Option<String>,
    /// In seconds.
    pub(super) start_timeout: Option<u64>,
    /// Names, first as their own file has them, and conditions.
    pub(super) depends_on: Vec<(String, &'static str)>,
    pub(super) autostart: Option<bool>,
    pub(super) restart: Restart,
    pub(super) stop: Stop,
    pub(super) log: Log,
}

/// The shell that runs a line, and what it wants before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shell {
    pub(super) command: String,
    pub(super) argument: String,
}

impl Default for Shell {
    fn default() -> Self {
        Self { command: "/bin/sh".to_owned(), argument: "-c".to_owned() }
    }
}

impl Shell {
    /// Returns program and arguments that run a line.
    pub(super) fn run(&self, line: String) -> Vec<String> {
        vec![self.command.clone(), self.argument.clone(), line]
    }
}

/// The restart settings.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Restart {
    pub(super) policy: Option<&'static str>,
    /// In seconds.
    pub(super) backoff_initial: Option<u64>,
}

/// The stop settings.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) signal: Option<&'static str>,
    /// In seconds.
    pub(super) grace: Option<u64>,
    pub(super) command: Vec<String>,
}

/// The log settings.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Log {
    /// A size as it is written.
    pub(super) max_size: Option<String>,
    pub(super) keep: Option<u32>,
}

impl Server {
    /// A server that runs these words, or a shell with this line if it is more than words.
    pub(super) fn of_line(name: &str, line: &str, shell: &Shell) -> Self {
        let server = Self { name: name.to_owned(), ..Self::default() };
        let line = line.trim();
        match shell::words(line) {
            Some(Words { env, command, args }) => {
                Self { env: env.into_iter().collect(), command, args, ..server }
            }
            None => {
                let args = vec![shell.argument.clone(), shell::script(line)];
                Self { command: shell.command.clone(), args, ..server }
            }
        }
    }

    /// Returns the ports of all its instances.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let more = u16::try_from(self.instances.unwrap_or(1).saturating_sub(1)).unwrap_or(u16::MAX);
        self.port.into_iter().flat_map(move |first| first..=first.saturating_add(more))
    }

    /// Takes the port away, with every probe of it.
    pub(super) fn without_port(&mut self) {
        let asks_it =
            |probe: &String| !["Exec", "Log", "probe: Exec"].iter().any(|kind| probe.starts_with(kind));
        self.port = None;
        self.port_of_anybody = false;
        self.ready.take_if(|ready| asks_it(ready));
        self.liveness.take_if(|liveness| asks_it(liveness));
    }

    /// Returns the text of the server file.
    pub(super) fn to_ron(&self) -> String {
        let mut text = String::new();
        for line in self.about.iter().flat_map(|about| about.lines()) {
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            let _infallible = writeln!(text, "// {}", line.trim());
        }
        text.push_str("Process(\n");
        let mut field = |name: &str, value: String| {
            // A String takes everything.
            let _infallible = writeln!(text, "    {name}: {value},");
        };
        field("command", quoted(&self.command));
        if !self.args.is_empty() {
            field("args", list(&self.args));
        }
        if !self.env.is_empty() {
            let entries: Vec<_> =
                self.env.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
            field("env", format!("{{{}}}", entries.join(", ")));
        }
        if !self.env_files.is_empty() {
            field("env_files", list(&self.env_files));
        }
        for (name, value) in
            [("working_dir", &self.working_dir), ("user", &self.user), ("umask", &self.umask)]
        {
            if let Some(value) = value {
                field(name, quoted(value));
            }
        }
        if !self.tags.is_empty() {
            field("tags", list(&self.tags));
        }
        if let Some(instances) = self.instances {
            field("instances", instances.to_string());
        }
        if let Some(port) = self.port {
            field("port", port.to_string());
        }
        if self.port_of_anybody {
            field("port_owner", "Any".to_owned());
        }
        if let Some(ready) = &self.ready {
            field("ready", ready.clone());
        }
        if let Some(liveness) = &self.liveness {
            field("liveness", format!("({liveness})"));
        }
        let seconds = |seconds: u64| format!("\"{seconds}s\"");
        if let Some(timeout) = self.start_timeout {
            field("start_timeout", seconds(timeout));
        }
        if !self.depends_on.is_empty() {
            let entries: Vec<_> = self
                .depends_on
                .iter()
                .map(|(name, condition)| format!("{}: {condition}", quoted(name)))
                .collect();
            field("depends_on", format!("{{{}}}", entries.join(", ")));
        }
        if let Some(autostart) = self.autostart {
            field("autostart", autostart.to_string());
        }
        let restart = [
            self.restart.policy.map(|policy| format!("policy: {policy}")),
            self.restart.backoff_initial.map(|delay| format!("backoff_initial: {}", seconds(delay))),
        ];
        let restart: Vec<_> = restart.into_iter().flatten().collect();
        if !restart.is_empty() {
            field("restart", format!("({})", restart.join(", ")));
        }
        let command =
            (!self.stop.command.is_empty()).then(|| format!("command: {}", list(&self.stop.command)));
        let stop = [
            self.stop.signal.map(|signal| format!("signal: {signal}")),
            self.stop.grace.map(|grace| format!("grace: {}", seconds(grace))),
            command,
        ];
        let stop: Vec<_> = stop.into_iter().flatten().collect();
        if !stop.is_empty() {
            field("stop", format!("({})", stop.join(", ")));
        }
        let log = [
            self.log.max_size.as_ref().map(|size| format!("max_size: {}", quoted(size))),
            self.log.keep.map(|keep| format!("keep: {keep}")),
        ];
        let log: Vec<_> = log.into_iter().flatten().collect();
        if !log.is_empty() {
            field("log", format!("({})", log.join(", ")));
        }
        text.push(')');
        text.push('\n');
        text
    }
}

/// Writes a text as RON does.
pub(super) fn quoted(text: &str) -> String {
    // A text is always serializable.
    ron::to_string(text).unwrap_or_default()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// Returns the nearest name that a server can have: `a-z`, `0-9`, `_` and `-`.
pub(super) fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    for c in name.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            plain.push(c);
        } else if !plain.ends_with('-') {
            plain.push('-');
        }
    }
    let plain = plain.trim_matches('-');
    if plain.is_empty() { "server".to_owned() } else { plain.chars().take(60).collect() }
}

/// Returns a stop signal as a server file has it.
pub(super) fn signal(text: &str) -> Option<&'static str> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    Some(match name {
        "TERM" | "15" => "TERM",
        "INT" | "2" => "INT",
        "HUP" | "1" => "HUP",
        "QUIT" | "3" => "QUIT",
        "USR1" | "10" => "USR1",
        "USR2" | "12" => "USR2",
        "KILL" | "9" => "KILL",
        _ => return None,
    })
}
