//! A whole project: the file, what it extends, its override, and what its processes share.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::dotenv::{Dollar, Dotenv};
use super::super::server::{Server, Shell};
use super::super::{Import, Origin, plain, text_of};

/// The names that process-compose looks for, and those of what goes over them.
const NAMES: [&str; 4] = ["compose.yml", "compose.yaml", "process-compose.yml", "process-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "process-compose.override.yml",
    "process-compose.override.yaml",
];

/// As many files may extend each other.
const DEEPEST: usize = 8;

/// What processes share.
#[derive(Debug)]
pub(super) struct Project<'a> {
    origin: &'a Origin,
    pub(super) processes: Map<String, Value>,
    /// The keys beside `processes`.
    pub(super) keys: Vec<String>,
    pub(super) environment: Value,
    pub(super) vars: Map<String, Value>,
    pub(super) shell: Shell,
    /// The `.env` beside the file.
    pub(super) env: Option<Dotenv>,
    /// Whether variables are filled in when the file is read.
    pub(super) fills: bool,
}

impl<'a> Project<'a> {
    /// Reads a project: a file, and others that go over it, the last one on top. Paths are meant from the first one, and
    /// the override beside it counts only where no others are named.
    ///
    /// # Errors
    /// If a file, or one that it extends, is no YAML, or there are no processes; with the index of the file.
    pub(super) fn read(
        text: &str,
        origin: &'a Origin,
        over: &[(&str, &Origin)],
        import: &mut Import,
    ) -> Result<Self, (usize, String)> {
        let mut root = whole(text, origin, import).map_err(|message| (0, message))?;
        for (index, (text, origin)) in over.iter().enumerate() {
            merge(&mut root, whole(text, origin, import).map_err(|message| (index + 1, message))?);
        }
        let first = |message: &str| (0, message.to_owned());
        if over.is_empty()
            && origin.file.as_deref().and_then(|file| file.to_str()).is_some_and(|file| NAMES.contains(&file))
        {
            let found = OVERRIDES.iter().find_map(|name| text_of(&origin.directory.join(name)).ok());
            if let Some(text) = found {
                merge(&mut root, yaml(&text, import).map_err(|message| (0, message))?);
            }
        }
        let Value::Object(mut root) = root else { return Err(first("expected a map with `processes`")) };
        let Some(Value::Object(processes)) = root.remove("processes") else {
            return Err(first("there are no `processes` in it"));
        };
        let shell = root.get("shell").and_then(Value::as_object);
        let shell_text = |key: &str, usual: &str| {
            shell.and_then(|shell| shell.get(key)).and_then(plain).unwrap_or_else(|| usual.to_owned())
        };
        let shell = Shell {
            command: shell_text("shell_command", "bash"),
            argument: shell_text("shell_argument", "-c"),
        };
        let fills = !root.get("disable_env_expansion").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            origin,
            processes,
            shell,
            fills,
            environment: root.get("environment").cloned().unwrap_or(Value::Null),
            vars: root.get("vars").and_then(Value::as_object).cloned().unwrap_or_default(),
            env: Dotenv::beside(&origin.directory.join(".env"), Dollar::Fills, import),
            keys: root.keys().cloned().collect(),
        })
    }

    /// Returns a path as it is meant from the directory of the file.
    pub(super) fn place(&self, path: &str) -> String {
        let mut place = PathBuf::new();
        for component in self.origin.directory.join(path).components() {
            match component {
                std::path::Component::CurDir => {}
                component => place.push(component),
            }
        }
        place.display().to_string()
    }

    /// Gives a server the variables of a file.
    pub(super) fn env_file(&self, path: &str, server: &mut Server, import: &mut Import) {
        let path = self.place(path);
        match Dotenv::beside(Path::new(&path), Dollar::Fills, import) {
            Some(file) => file.attach(server),
            // It may be there by the time the server starts.
            None => server.env_files.push(path),
        }
    }

    /// Returns what a variable is when the file is read.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let own = self.env.as_ref().and_then(|env| env.get(name)).map(str::to_owned);
        // What is set already wins over the file.
        std::env::var(name).ok().or(own)
    }
}

/// Reads YAML as process-compose does, for which the last of two keys counts.
fn yaml(text: &str, import: &mut Import) -> Result<Value, String> {
    let strict = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let error = match serde_saphyr::from_str_with_options(text, strict) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    let lenient = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let value = serde_saphyr::from_str_with_options(text, lenient).map_err(|_| error.clone())?;
    // The reader ends with advice to who calls it.
    let key = error.split_once("key: ").map_or(error.as_str(), |(_, rest)| rest);
    let key = key.split_once(", ").map_or(key, |(key, _)| key);
    import.left_of_file(format!("the first of two keys of one name, `{key}`; the last one counts"));
    Ok(value)
}

/// Reads a file with what it extends.
fn whole(text: &str, origin: &Origin, import: &mut Import) -> Result<Value, String> {
    let mut root = yaml(text, import)?;
    extend(&mut root, &origin.directory, import, 0)?;
    Ok(root)
}

/// Puts a file over the one that it extends.
fn extend(root: &mut Value, directory: &Path, import: &mut Import, depth: usize) -> Result<(), String> {
    let Some(path) = root.get("extends").and_then(plain) else { return Ok(()) };
    let path = directory.join(path);
    let shown = path.display();
    if depth == DEEPEST {
        return Err(format!("`{shown}` extends too many others, expected at most {DEEPEST}"));
    }
    let text = text_of(&path).map_err(|error| format!("`{shown}`, which it extends: {error}"))?;
    let mut base = yaml(&text, import).map_err(|error| format!("`{shown}`, which it extends: {error}"))?;
    let from = path.parent().unwrap_or(Path::new("/")).to_owned();
    extend(&mut base, &from, import, depth + 1)?;
    if fs::canonicalize(&from).ok() != fs::canonicalize(directory).ok() {
        for process in base.get_mut("processes").and_then(Value::as_object_mut).into_iter().flatten() {
            let Some(process) = process.1.as_object_mut() else { continue };
            let own = process.get("working_dir").and_then(plain).unwrap_or_default();
            process.insert("working_dir".to_owned(), from.join(own).display().to_string().into());
        }
    }
    merge(&mut base, std::mem::take(root));
    *root = base;
    Ok(())
}

/// Puts one value over another: maps key by key, variables one behind the other, anything else as a whole.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(Value::Array(lines)) if key == "environment" && value.is_array() => {
                        // The last one of a name counts.
                        lines.extend(value.as_array().into_iter().flatten().cloned());
                    }
                    Some(old) => merge(old, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (base, over) => *base = over,
    }
}
