//! A server file in the making, and its text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is known of a server. Whatever is `None` or empty has the daemon's default and is not written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) env_files: Vec<String>,
    pub(super) working_dir: Option<String>,
    pub(super) user: Option<String>,
    pub(super) umask: Option<String>,
    pub(super) instances: Option<u32>,
    pub(super) port: Option<u16>,
    /// A readiness as it is written.
    pub(super) ready: Option<String>,
    /// The fields of a liveness as they are written.
    pub(super) liveness: Option<String>,
    /// Names and conditions.
    pub(super) depends_on: Vec<(String, &'static str)>,
    pub(super) autostart: Option<bool>,
    pub(super) restart: Restart,
    pub(super) stop: Stop,
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

impl Server {
    /// A server that runs these words, or a shell with this line if it is more than words.
    pub(super) fn of_line(name: &str, line: &str) -> Self {
        let server = Self { name: name.to_owned(), ..Self::default() };
        match words(line) {
            Some((command, args)) => Self { command, args, ..server },
            None => server.in_shell(line),
        }
    }

    /// The same with a shell that runs this line, and gives way to its last program where that is all there is.
    pub(super) fn in_shell(self, line: &str) -> Self {
        let is_one_program = !line.contains(['\n', ';', '|', '&', '(', '{']);
        let is_assignment = line.split_whitespace().next().is_some_and(|word| word.contains('='));
        let line = match is_one_program {
            // `exec` cannot stand before an assignment; `env` can.
            true if is_assignment => format!("exec env {line}"),
            true => format!("exec {line}"),
            false => line.to_owned(),
        };
        Self { command: "/bin/sh".to_owned(), args: vec!["-c".to_owned(), line], ..self }
    }

    /// Returns the text of the server file.
    pub(super) fn to_ron(&self) -> String {
        let mut text = String::from("Process(\n");
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
        if let Some(instances) = self.instances {
            field("instances", instances.to_string());
        }
        if let Some(port) = self.port {
            field("port", port.to_string());
        }
        if let Some(ready) = &self.ready {
            field("ready", ready.clone());
        }
        if let Some(liveness) = &self.liveness {
            field("liveness", format!("({liveness})"));
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
        let seconds = |seconds: u64| format!("\"{seconds}s\"");
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

/// Splits a line into a program and its arguments; `None` if it needs a shell.
pub(super) fn words(line: &str) -> Option<(String, Vec<String>)> {
    let needs_shell = |c: char| "$`;&|<>(){}*?[]~#\n!".contains(c);
    if line.contains(needs_shell) {
        return None;
    }
    let mut words = shlex::split(line)?.into_iter();
    let command = words.next().filter(|word| !word.contains('='))?;
    Some((command, words.collect()))
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
