//! Texts of one process: its variables and templates, filled in where nobody does it later.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::shell::is_name;
use super::super::{Import, plain, variables};
use super::Project;

/// What every program is given, so that nobody has to be told of it.
const EVERYWHERE: [&str; 6] = ["HOME", "USER", "LOGNAME", "PATH", "SHELL", "PWD"];

/// Fills in texts for one replica of one process, and remembers what it met.
#[derive(Debug)]
pub(super) struct Text<'a> {
    project: &'a Project<'a>,
    process: &'a Map<String, Value>,
    replica: u32,
    uses_number: bool,
    filled: BTreeSet<String>,
    unknown: BTreeSet<String>,
    of_shell: BTreeSet<String>,
    templates: BTreeSet<String>,
}

impl<'a> Text<'a> {
    pub(super) fn of(project: &'a Project<'a>, process: &'a Map<String, Value>, replica: u32) -> Self {
        Self {
            project,
            process,
            replica,
            uses_number: false,
            filled: BTreeSet::new(),
            unknown: BTreeSet::new(),
            of_shell: BTreeSet::new(),
            templates: BTreeSet::new(),
        }
    }

    /// Returns whether anything depended on the number of the replica.
    pub(super) fn is_numbered(&self) -> bool {
        self.uses_number
    }

    /// Returns the variables that process-compose itself sets, as far as the process asks for them.
    pub(super) fn set_for_all(&mut self) -> Option<(String, String)> {
        let command = self.process.get("command").and_then(plain).unwrap_or_default();
        let asks = command.contains("$PC_REPLICA_NUM") || command.contains("${PC_REPLICA_NUM");
        self.uses_number |= asks;
        asks.then(|| ("PC_REPLICA_NUM".to_owned(), self.replica.to_string()))
    }

    /// Fills in a text that no shell sees.
    pub(super) fn value(&mut self, text: &str) -> String {
        let text = if self.project.fills {
            let filled = variables::fill(text, |name| self.project.variable(name));
            self.filled.extend(filled.known.into_iter().map(|name| format!("`{name}`")));
            self.unknown.extend(filled.unknown.into_iter().map(|name| format!("`{name}`")));
            filled.text
        } else {
            text.to_owned()
        };
        self.rendered(&text)
    }

    /// Fills in a line of a shell, as far as that cannot.
    pub(super) fn line(&mut self, text: &str) -> String {
        if !self.project.fills {
            return self.rendered(text);
        }
        let own = |name: &str| {
            let env = self.project.env.as_ref().is_some_and(|env| env.get(name).is_some());
            env || EVERYWHERE.contains(&name) || name == "PC_REPLICA_NUM" || self.sets(name)
        };
        // Of a name that is known here, nothing has to be said; nothing is filled in.
        let met = variables::fill(text, |name| own(name).then(String::new));
        let of_shell = met.unknown.iter().filter(|whole| {
            is_name(whole.trim_start_matches("${").trim_start_matches('$').trim_end_matches('}'))
        });
        let of_shell: Vec<_> = of_shell.map(|whole| format!("`{whole}`")).collect();
        self.of_shell.extend(of_shell);
        self.rendered(&text.replace("$$", "$"))
    }

    /// Notes what was filled in, and what could not be.
    pub(super) fn tell(&self, entry: &str, import: &mut Import) {
        for (names, what) in [
            (&self.filled, "filled in with what it is now; import again when that changes"),
            (&self.unknown, "not set here, and passed as it is written"),
            (&self.of_shell, "the shell takes it from the environment of xyd, where it has to be set"),
            (&self.templates, "a template, passed as it is written"),
        ] {
            if !names.is_empty() {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                import.left(entry, format!("{}: {what}", names.join(", ")));
            }
        }
    }

    /// Returns whether the process or the project sets a variable for the program.
    fn sets(&self, name: &str) -> bool {
        [Some(&self.project.environment), self.process.get("environment")].into_iter().flatten().any(
            |value| {
                let is_line = |line: &Value| {
                    let line = line.as_str().unwrap_or_default();
                    line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
                };
                value.get(name).is_some() || value.as_array().is_some_and(|lines| lines.iter().any(is_line))
            },
        )
    }

    /// Fills in `{{.NAME}}`.
    fn rendered(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some(end) = rest.find("}}").map(|end| end + 2) else { break };
            let whole = &rest[..end];
            let inner = whole[2..end - 2].trim().strip_prefix('.').filter(|name| is_name(name));
            match inner.and_then(|name| self.var(name)) {
                Some(value) => out.push_str(&value),
                None => {
                    self.templates.insert(format!("`{whole}`"));
                    out.push_str(whole);
                }
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }

    fn var(&mut self, name: &str) -> Option<String> {
        if name == "PC_REPLICA_NUM" {
            self.uses_number = true;
            return Some(self.replica.to_string());
        }
        let own = self.process.get("vars").and_then(|vars| vars.get(name));
        own.or_else(|| self.project.vars.get(name)).and_then(plain)
    }
}
