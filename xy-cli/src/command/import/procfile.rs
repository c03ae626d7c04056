//! A Procfile, as foreman and its kin read it, with the `.env` beside it.

use super::dotenv::{Dollar, Dotenv};
use super::server::{Server, Shell};
use super::{Import, Origin};

/// The port of the first process type, and the distance to that of the next, as in foreman.
const FIRST_PORT: u16 = 5000;
const STEP: u16 = 100;

/// Reads lines of `name: command`.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Import, String> {
    let mut import = Import::default();
    let env = Dotenv::beside(&origin.directory.join(".env"), Dollar::Plain, &mut import);
    // foreman takes the first port from `.env`, too.
    let first = env.as_ref().and_then(|env| env.get("PORT")?.parse().ok());
    let mut port: u16 = first.unwrap_or(FIRST_PORT);
    let mut first_fault = None;
    let mut is_empty = true;
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = entry(line) else {
            first_fault.get_or_insert(number);
            import.left_of_file(format!("line {number}, which is not `name: command`"));
            continue;
        };
        is_empty = false;
        // Each process type is given a port there, also one that is left out here.
        let own_port = port;
        port = port.saturating_add(STEP);
        if name == "release" {
            import.left(name, "it is run once before a deployment and is no server");
            continue;
        }
        let mut server = Server::of_line(name, command, &Shell::default());
        server.working_dir = Some(origin.directory.display().to_string());
        // An assignment before the command wins. Only who asks for the port on its command line surely listens there.
        server.env.entry("PORT".to_owned()).or_insert_with(|| own_port.to_string());
        if mentions_port(command) && !command.contains("PORT=") && own_port > 0 {
            server.port = Some(own_port);
        }
        if let Some(env) = &env {
            env.attach(&mut server);
        }
        import.add(server);
    }
    match first_fault.filter(|_| is_empty) {
        Some(line) => Err(format!("line {line}: expected `name: command`")),
        None => Ok(import),
    }
}

/// Splits a line into the name of a process type and its command.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, command) = line.split_once(':')?;
    let (name, command) = (name.trim(), command.trim());
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    (is_name && !command.is_empty()).then_some((name, command))
}

/// Returns whether a command has `$PORT` or `${PORT..}` in it, and not only a longer name.
fn mentions_port(command: &str) -> bool {
    ["$PORT", "${PORT"].iter().any(|start| {
        command.match_indices(start).any(|(at, _)| {
            let next = command[at + start.len()..].chars().next();
            next.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
        })
    })
}
