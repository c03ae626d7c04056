//! The `mcpServers` of desktop clients and editors.
//!
//! Such an entry either starts a program and speaks to it over its standard streams, or names a URL. Some have both: the
//! program serves that URL, and that is a server xy can run.

use serde_json::{Map, Value};

use super::server::{Server, quoted};
use super::{Import, plain};

/// Under which keys clients keep their entries.
const KEYS: [&str; 3] = ["mcpServers", "servers", "context_servers"];

/// What to do about a program that speaks over its standard streams.
const STDIO: &str = "speaks over its standard streams, so the client has to start it itself. If it has an HTTP mode \
    (often `--transport http` or `streamableHttp`, with a port), give the entry a `url` as well and import it again; \
    else put a bridge with a port before it, such as `npx supergateway --stdio '..'` or `uvx mcp-proxy`";

/// Reads JSON with comments, as editors write it.
pub(super) fn read(text: &str) -> Result<Import, String> {
    let options = jsonc_parser::ParseOptions::default();
    let value: Value =
        jsonc_parser::parse_to_serde_value(text, &options).map_err(|error| error.to_string())?;
    let root = value.as_object().ok_or("expected an object with `mcpServers`")?;
    let nested =
        root.get("mcp").and_then(Value::as_object).or_else(|| root.get("amp").and_then(Value::as_object));
    let entries = [Some(root), nested]
        .into_iter()
        .flatten()
        .find_map(|object| KEYS.iter().find_map(|key| object.get(*key)))
        .ok_or("there is no `mcpServers` (or `servers`, `context_servers`) in it")?;
    let entries = entries.as_object().ok_or("`mcpServers` is no object of entries by name")?;
    let mut import = Import::default();
    for (name, entry) in entries {
        match entry.as_object() {
            Some(entry) => read_entry(name, entry, &mut import),
            None => import.left(name, "it is no object"),
        }
    }
    Ok(import)
}

fn read_entry(name: &str, entry: &Map<String, Value>, import: &mut Import) {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let url = text("url").or_else(|| text("serverUrl")).or_else(|| text("httpUrl"));
    // Zed nests the program.
    let nested = entry.get("command").and_then(Value::as_object);
    let program = nested.unwrap_or(entry);
    let command = match nested {
        Some(nested) => nested.get("path").and_then(Value::as_str),
        None => text("command"),
    };
    match (command, url) {
        (None, None) => import.left(name, "it has neither a `command` nor a `url`"),
        (None, Some(url)) => import.left(name, format!("it only names {url}, there is nothing to start")),
        (Some(_), None) => import.left(name, STDIO),
        (Some(command), Some(url)) => match place(url) {
            Err(problem) => import.left(name, problem),
            Ok((port, path)) => {
                let server = Server {
                    name: name.to_owned(),
                    command: command.to_owned(),
                    port: Some(port),
                    ready: Some(format!("Mcp(path: {})", quoted(&path))),
                    autostart: entry
                        .get("disabled")
                        .and_then(Value::as_bool)
                        .filter(|off| *off)
                        .map(|_| false),
                    working_dir: text("cwd").map(str::to_owned),
                    ..Server::default()
                };
                add(server, program, entry, import);
            }
        },
    }
}

fn add(mut server: Server, program: &Map<String, Value>, entry: &Map<String, Value>, import: &mut Import) {
    let name = server.name.clone();
    for argument in program.get("args").and_then(Value::as_array).into_iter().flatten() {
        match plain(argument) {
            Some(text) => server.args.push(text),
            None => import.left(&name, format!("the argument {argument}, which is no text")),
        }
    }
    for (key, value) in program.get("env").and_then(Value::as_object).into_iter().flatten() {
        match plain(value) {
            Some(text) if text.contains("${") => {
                import.left(
                    &name,
                    format!("the variable {key}: `{text}` is filled in by the client; set it in `env`"),
                );
            }
            Some(text) => drop(server.env.insert(key.clone(), text)),
            None => import.left(&name, format!("the variable {key}, which is no text")),
        }
    }
    if let Some(place) = server.args.iter().find(|argument| argument.contains("${")) {
        import.left(&name, format!("what the client fills in for `{place}`; it is passed as it is written"));
    }
    const KNOWN: [&str; 11] = [
        "command",
        "args",
        "env",
        "cwd",
        "url",
        "serverUrl",
        "httpUrl",
        "type",
        "transport",
        "disabled",
        "name",
    ];
    for key in entry.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        import.left(&name, format!("`{key}`, which is the client's"));
    }
    import.add(server);
}

/// Returns port and path of a URL of this machine.
fn place(url: &str) -> Result<(u16, String), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("{url} is not plain HTTP, and a server of this machine would be"))?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host_end = if authority.starts_with('[') { authority.find(']').map_or(0, |end| end + 1) } else { 0 };
    let (host, port) = match authority[host_end..].rfind(':') {
        Some(colon) => (&authority[..host_end + colon], authority[host_end + colon + 1..].parse().ok()),
        None => (authority, Some(80)),
    };
    if !["localhost", "127.0.0.1", "[::1]"].contains(&host) {
        return Err(format!("{url} is on another machine"));
    }
    let port = port.filter(|port| *port > 0).ok_or_else(|| format!("{url} has no valid port"))?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok((port, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}
