//! The shapes of `--json`: each command, against what `docs/json.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::catalog::{mcp_server, served_at};
use crate::lifecycle::Home;

const DOCUMENT: &str = include_str!("../../../docs/json.md");

/// A member: its name, whether it may be absent, and which object it is or has a list of.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    is_optional: bool,
    object: Option<String>,
}

/// What the tables say, by the first cell without its quotes.
struct Document(BTreeMap<String, Vec<Member>>);

impl Document {
    fn read() -> Self {
        let rows = DOCUMENT.lines().filter(|line| line.starts_with("| ")).filter_map(|line| {
            let (name, members) = line.trim_matches('|').split_once(" | ")?;
            Some((name.trim().trim_matches('`').to_owned(), members.to_owned()))
        });
        let rows: BTreeMap<String, String> = rows.collect();
        let objects: BTreeSet<&String> = rows.keys().collect();
        let read = |text: &str| {
            let mut members = Vec::new();
            // What stands in quotes is every second part; what follows may name an object.
            let parts: Vec<&str> = text.split('`').collect();
            let mut is_in_brackets = false;
            for pair in parts[1..].chunks(2) {
                let (name, after) = (pair[0], pair.get(1).copied().unwrap_or_default());
                if !is_in_brackets {
                    let object = after.trim_start().strip_prefix('(').and_then(|rest| rest.split(')').next());
                    members.push(Member {
                        name: name.trim_end_matches('?').to_owned(),
                        is_optional: name.ends_with('?'),
                        object: object
                            .filter(|name| objects.contains(&(*name).to_owned()))
                            .map(ToOwned::to_owned),
                    });
                }
                is_in_brackets =
                    after.rfind('(') > after.rfind(')') || (is_in_brackets && !after.contains(')'));
            }
            members
        };
        let mut tables: BTreeMap<String, Vec<Member>> =
            rows.iter().map(|(name, members)| (name.clone(), read(members))).collect();
        let server = tables["server"].clone();
        tables.get_mut("status").expect("documented").extend(server);
        Self(tables)
    }

    /// Checks that a value has the documented members, and no others.
    fn check(&self, what: &str, value: &Value) {
        let members = self.0.get(what).unwrap_or_else(|| panic!("docs/json.md does not have `{what}`"));
        let object = value.as_object().unwrap_or_else(|| panic!("{what} is no object: {value}"));
        for member in members {
            let Some(value) = object.get(&member.name) else {
                assert!(member.is_optional, "{what} has no `{}`: {value}", member.name);
                continue;
            };
            let Some(kind) = &member.object else { continue };
            match value {
                Value::Array(values) => values.iter().for_each(|value| self.check(kind, value)),
                value => self.check(kind, value),
            }
        }
        for name in object.keys() {
            assert!(
                members.iter().any(|member| member.name == *name),
                "`{name}` of {what} is not documented: {value}"
            );
        }
    }
}

#[test]
fn every_command_prints_the_documented_members() {
    let document = Document::read();
    assert!(document.0.len() > 40, "the tables are read: {:?}", document.0.keys());
    let home = Home::new();
    home.server("web", "echo hello; exec sleep 600", "");
    home.server("fails", "exit 3", "restart: (backoff_initial: \"60s\", backoff_max: \"60s\")");
    let procfile = home.path("Procfile");
    fs::write(&procfile, "imported: sleep 600\n").expect("written");
    let procfile = procfile.to_str().expect("words");
    let checked = |command: &str, arguments: &[&str], code: i32| {
        let run = home.run(&[&["--json"], arguments].concat());
        assert_eq!(run.code, Some(code), "{arguments:?}: {run:?}");
        let values = serde_json::Deserializer::from_str(run.text()).into_iter::<Value>();
        let values: Vec<Value> =
            values.collect::<Result<_, _>>().unwrap_or_else(|_| panic!("no JSON: {run:?}"));
        assert!(!values.is_empty(), "{command}: {run:?}");
        values.iter().for_each(|value| document.check(command, value));
    };
    let same = |command: &str, rest: &[&str]| {
        let words: Vec<&str> = command.split(' ').chain(rest.iter().copied()).collect();
        checked(command, &words, 0);
    };
    same("daemon install", &[]);
    same("daemon uninstall", &[]);
    checked("daemon status", &["daemon", "status"], 2);
    same("daemon start", &[]);
    same("daemon start", &[]);
    same("daemon status", &[]);
    same("wait", &["web", "--for", "ready"]);
    for command in ["status", "why", "show"] {
        same(command, &["web"]);
        same(command, &["fails"]);
    }
    let adder = home.path(".config/xy/servers/adder.ron");
    fs::write(adder, served_at(mcp_server())).expect("written");
    same("reload", &[]);
    same("wait", &["adder", "--for", "ready"]);
    same("tools", &["adder"]);
    same("prompts", &["adder"]);
    checked("prompts NAME PROMPT", &["prompts", "adder", "greet", "--arg", "who=Ada"], 0);
    checked("resources NAME URI", &["resources", "adder", "file:///notes"], 0);
    same("resources", &["adder"]);
    same("call", &["adder", "add", "--arg", "b=2"]);
    same("list", &[]);
    same("version", &[]);
    same("diagnostics", &[]);
    same("logs", &["web"]);
    same("events", &["--from", "1"]);
    same("daemon logs", &[]);
    same("stop", &["web"]);
    same("start", &["web"]);
    same("restart", &["web"]);
    same("pause", &["web"]);
    same("resume", &["web"]);
    same("disable", &["web"]);
    same("enable", &["web"]);
    same("signal", &["-s", "HUP", "web"]);
    checked("start", &["start", "absent"], 1);
    same("add", &["added", "--", "sleep", "600"]);
    same("run", &["ran", "--", "sleep", "600"]);
    same("rm", &["added", "ran"]);
    same("check", &[]);
    home.server("broken", "", "prot: 1");
    checked("check", &["check"], 3);
    checked("reload", &["reload"], 3);
    same("import", &["procfile", procfile, "--dry-run"]);
    same("daemon upgrade", &[]);
    same("daemon restart", &[]);
    same("daemon stop", &[]);
    same("shutdown", &[]);
}
