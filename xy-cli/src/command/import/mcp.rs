//! The `mcpServers` of desktop clients and editors.
//!
//! Such an entry either starts a program and speaks to it over its standard streams, or names a URL. Some have both:
//! the program serves that URL, and that is a server xy can run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::server::{Server, Shell, quoted};
use super::{Import, Origin, plain, variables};

/// Under which keys clients keep their entries.
const KEYS: [&str; 4] = ["mcpServers", "servers", "context_servers", "amp.mcpServers"];

/// Under which keys some clients keep those keys.
const AROUND: [&str; 2] = ["mcp", "amp"];

/// What to do about a program that speaks over its standard streams.
const STDIO: &str = "speaks over its standard streams, so the client has to start it itself. If it has an HTTP mode \
    (often `--transport http` or `streamableHttp`, with a port), give the entry a `url` as well and import it again; \
    else put a bridge with a port before it, such as `npx supergateway --stdio '..'` or `uvx mcp-proxy`";

/// Directories of editors within the one that is worked in.
const EDITORS: [&str; 6] = [".vscode", ".cursor", ".zed", ".roo", ".kiro", ".gemini"];

/// Reads JSON with comments, as editors write it.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Import, String> {
    let options = jsonc_parser::ParseOptions::default();
    let text = text.trim_start_matches('\u{feff}');
    let value: Value =
        jsonc_parser::parse_to_serde_value(text, &options).map_err(|error| error.to_string())?;
    let root = value.as_object().ok_or("expected an object with `mcpServers`")?;
    let entries = entries(root).ok_or("there is no `mcpServers` (or `servers`, `context_servers`) in it")?;
    let mut import = Import::default();
    let place = Workspace::of(origin);
    match entries {
        Value::Object(entries) => {
            for (name, entry) in entries {
                read_entry(name, entry, &place, &mut import);
            }
        }
        Value::Array(entries) if !entries.is_empty() => {
            for (number, entry) in (1..).zip(entries) {
                let name = entry.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| format!("server-{number}"), str::to_owned);
                read_entry(&name, entry, &place, &mut import);
            }
        }
        _ => return Err("`mcpServers` is no object of entries by name".to_owned()),
    }
    if root.get("inputs").and_then(Value::as_array).is_some_and(|inputs| !inputs.is_empty()) {
        import.left_of_file("`inputs`, which the client asks for; put what they stand for into `env`");
    }
    Ok(import)
}

/// Finds the entries where a client keeps them.
fn entries(root: &Map<String, Value>) -> Option<&Value> {
    let around = AROUND.iter().filter_map(|key| root.get(*key).and_then(Value::as_object));
    let kept =
        [root].into_iter().chain(around).find_map(|object| KEYS.iter().find_map(|key| object.get(*key)));
    kept.or_else(|| {
        // opencode has them in `mcp` itself.
        let entries = root.get("mcp")?;
        let is_entry = |entry: &Value| entry.get("command").is_some() || entry.get("url").is_some();
        entries.as_object()?.values().any(is_entry).then_some(entries)
    })
}

/// What clients fill in for the place that is worked in.
#[derive(Debug)]
struct Workspace {
    directory: PathBuf,
    /// Whether the file belongs to that place, and not to a person.
    is_known: bool,
}

impl Workspace {
    fn of(origin: &Origin) -> Self {
        let directory = &origin.directory;
        let is_editor = |path: &Path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| EDITORS.contains(&name))
        };
        let is_beside = origin.file.as_deref().is_some_and(|file| file == ".mcp.json");
        let within = directory.ancestors().take(2).find(|path| is_editor(path)).and_then(Path::parent);
        let directory = within.unwrap_or(directory).to_owned();
        // A file of this kind in the home directory is that of a person.
        let is_home = std::env::home_dir().is_some_and(|home| home == directory);
        Self { is_known: (is_beside || within.is_some()) && !is_home, directory }
    }

    /// Returns what stands for the text between `${` and `}`.
    fn value(&self, name: &str) -> Option<String> {
        let shown = |path: &Path| path.display().to_string();
        match name {
            "workspaceFolder" | "workspaceRoot" => Some(shown(&self.directory)),
            "workspaceFolderBasename" => Some(shown(Path::new(self.directory.file_name()?))),
            "userHome" => std::env::home_dir().map(|home| shown(&home)),
            "pathSeparator" | "/" => Some("/".to_owned()),
            _ => std::env::var(name.strip_prefix("env:").unwrap_or(name)).ok(),
        }
    }
}

/// Fills in the texts of one entry, and remembers what it met.
#[derive(Debug)]
struct Text<'a> {
    place: &'a Workspace,
    filled: BTreeSet<String>,
}

impl Text<'_> {
    /// Returns the text, or what in it cannot be filled in.
    fn fill(&mut self, text: &str) -> Result<String, String> {
        // Only `${..}` is filled in by clients; a `$` by itself is one.
        let filled = variables::fill(&escaped(text), |name| self.place.value(name));
        let of_environment = filled.known.into_iter().filter(|name| {
            !["workspaceFolder", "workspaceRoot", "workspaceFolderBasename", "userHome", "pathSeparator", "/"]
                .contains(&name.as_str())
        });
        self.filled.extend(of_environment.map(|name| format!("`{}`", name.trim_start_matches("env:"))));
        match filled.unknown.first() {
            Some(unknown) => Err(unknown.clone()),
            None => Ok(filled.text),
        }
    }
}

/// Doubles each `$` that does not begin `${`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '$' && chars.peek() != Some(&'{') {
            out.push('$');
        }
    }
    out
}

fn read_entry(name: &str, entry: &Value, place: &Workspace, import: &mut Import) {
    let Some(entry) = entry.as_object() else { return import.left(name, "it is no object") };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let url = text("url").or_else(|| text("serverUrl")).or_else(|| text("httpUrl"));
    // Zed nested the program, and opencode writes one list.
    let nested = entry.get("command").and_then(Value::as_object);
    let list: Vec<String> =
        entry.get("command").and_then(Value::as_array).into_iter().flatten().filter_map(plain).collect();
    let program = nested.unwrap_or(entry);
    let command = match (nested, list.split_first()) {
        (Some(nested), _) => nested.get("path").and_then(Value::as_str),
        (None, Some((command, _))) => Some(command.as_str()),
        (None, None) => text("command"),
    };
    let Some(command) = command else {
        return import.left(
            name,
            match url {
                Some(url) => format!("it only names {}, there is nothing to start", without_secrets(url)),
                None if text("source") == Some("extension") => {
                    "it comes with an extension, which starts it itself".to_owned()
                }
                None => "it has neither a `command` nor a `url`".to_owned(),
            },
        );
    };
    let args = program.get("args").and_then(Value::as_array).into_iter().flatten();
    let mut words: Vec<String> = list.iter().skip(1).cloned().collect();
    for argument in args {
        match plain(argument) {
            Some(text) => words.push(text),
            None => import.left(name, format!("the argument {argument}, which is no text")),
        }
    }
    let Some(url) = url else {
        let is_remote = |word: &String| word == "mcp-remote" || word.starts_with("mcp-remote@");
        let remote = words.iter().find(|word| word.starts_with("http://") || word.starts_with("https://"));
        return import.left(
            name,
            match remote.filter(|_| words.iter().any(is_remote)) {
                Some(url) => {
                    let url = without_secrets(url);
                    format!("it only leads to {url}, there is nothing to start; let the client name that URL")
                }
                None => STDIO.to_owned(),
            },
        );
    };
    let (port, path) = match place_of(url) {
        Ok(found) => found,
        Err(problem) => return import.left(name, problem),
    };
    let mut server = match words.is_empty() && command.contains(char::is_whitespace) {
        // Some people write the whole line.
        true if !Path::new(command).exists() => Server::of_line(name, command, &Shell::default()),
        _ => Server { name: name.to_owned(), command: command.to_owned(), ..Server::default() },
    };
    server.args.extend(words);
    server.port = Some(port);
    let kind = text("type").or_else(|| text("transport")).unwrap_or_default();
    if kind == "sse" || (kind.is_empty() && path.ends_with("/sse")) {
        import.left(name, "it speaks the older HTTP with SSE; here it is ready when its port is open");
    } else {
        server.ready = Some(format!("Mcp(path: {})", quoted(&path)));
    }
    let is = |key: &str, truth: bool| entry.get(key).and_then(Value::as_bool) == Some(truth);
    server.autostart = (is("disabled", true) || is("enabled", false)).then_some(false);
    add(server, program, entry, place, import);
}

fn add(
    mut server: Server,
    program: &Map<String, Value>,
    entry: &Map<String, Value>,
    place: &Workspace,
    import: &mut Import,
) {
    let name = server.name.clone();
    let mut text = Text { place, filled: BTreeSet::new() };
    for word in std::iter::once(&mut server.command).chain(&mut server.args) {
        match text.fill(word) {
            Ok(filled) => *word = filled,
            Err(unknown) => import.left(
                &name,
                format!(
                    "what the client fills in for `{unknown}` in its command; it is passed as it is written"
                ),
            ),
        }
    }
    let env = program.get("env").or_else(|| entry.get("environment"));
    for (key, value) in env.and_then(Value::as_object).into_iter().flatten() {
        match plain(value).map(|value| text.fill(&value)) {
            Some(Ok(value)) => drop(server.env.insert(key.clone(), value)),
            Some(Err(unknown)) => {
                import.left(
                    &name,
                    format!("the variable {key}: `{unknown}` is filled in by the client; set it in `env`"),
                );
            }
            None => import.left(&name, format!("the variable {key}, which is no text")),
        }
    }
    let mut path = |key: &str| {
        let written = entry.get(key).and_then(Value::as_str).filter(|path| !path.is_empty())?;
        match text.fill(written) {
            // The home directory begins the path of a person.
            Ok(path) if path.starts_with('~') => Some(path),
            Ok(path) => Some(place.directory.join(path).display().to_string()),
            Err(unknown) => {
                import.left(&name, format!("`{key}`: what the client fills in for `{unknown}`"));
                None
            }
        }
    };
    server.env_files.extend(path("envFile"));
    server.working_dir =
        path("cwd").or_else(|| place.is_known.then(|| place.directory.display().to_string()));
    if !text.filled.is_empty() {
        let names: Vec<_> = text.filled.into_iter().collect();
        let names = names.join(", ");
        import.left(&name, format!("{names}: filled in with what it is now; import again when that changes"));
    }
    const KNOWN: [&str; 16] = [
        "command",
        "args",
        "env",
        "environment",
        "envFile",
        "cwd",
        "url",
        "serverUrl",
        "httpUrl",
        "type",
        "transport",
        "source",
        "disabled",
        "enabled",
        "name",
        "settings",
    ];
    for key in entry.keys().map(String::as_str) {
        let is_empty = entry.get(key).and_then(Value::as_object).is_some_and(Map::is_empty);
        match key {
            "headers" => import.left(&name, "`headers`, which the client sends"),
            "settings" if !is_empty => import.left(&name, "`settings`, which is the client's"),
            key if KNOWN.contains(&key) => {}
            key => import.left(&name, format!("`{key}`, which is the client's")),
        }
    }
    import.add(server);
}

/// Returns a URL without what only its owner should see: user, password, query and fragment.
fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let more = if end < url.len() { "?.." } else { "" };
    let url = &url[..end];
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}{more}")
}

/// Returns port and path of a URL of this machine.
fn place_of(url: &str) -> Result<(u16, String), String> {
    let shown = without_secrets(url);
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("{shown} is not plain HTTP, and a server of this machine would be"))?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host_end = if authority.starts_with('[') { authority.find(']').map_or(0, |end| end + 1) } else { 0 };
    let (host, port) = match authority[host_end..].rfind(':') {
        Some(colon) => (&authority[..host_end + colon], authority[host_end + colon + 1..].parse().ok()),
        None => (authority, Some(80)),
    };
    if !["localhost", "127.0.0.1", "[::1]", "0.0.0.0"].contains(&host) {
        return Err(format!("{shown} is on another machine"));
    }
    let port = port.filter(|port| *port > 0).ok_or_else(|| format!("{shown} has no valid port"))?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok((port, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}
