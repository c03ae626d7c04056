//! A Procfile, as foreman and its kin read it, with the `.env` beside it.

use super::server::Server;
use super::{Import, Origin};

/// The port of the first process type, and the distance to that of the next, as in foreman.
const FIRST_PORT: u16 = 5000;
const STEP: u16 = 100;

/// Reads lines of `name: command`.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Import, String> {
    let mut import = Import::default();
    let env_file = origin.directory.join(".env");
    let env = std::fs::read_to_string(&env_file).ok();
    // foreman takes the first port from `.env`, too.
    let first = env.as_deref().and_then(|env| {
        let line = env.lines().find_map(|line| line.trim().strip_prefix("PORT="))?;
        line.trim_matches(['"', '\'']).parse().ok()
    });
    let mut port: u16 = first.unwrap_or(FIRST_PORT);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = line.split_once(':') else {
            return Err(format!("line {number}: expected `name: command`"));
        };
        let (name, command) = (name.trim(), command.trim());
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if !is_name || command.is_empty() {
            return Err(format!("line {number}: expected `name: command`"));
        }
        if name == "release" {
            import.left(name, "it is run once before a deployment and is no server");
            continue;
        }
        let mut server = Server::of_line(name, command);
        server.working_dir = Some(origin.directory.display().to_string());
        if env.is_some() {
            server.env_files.push(env_file.display().to_string());
        }
        // Each process type is given a port there; here only those that ask for it.
        if command.contains("$PORT") || command.contains("${PORT") {
            server.env.insert("PORT".to_owned(), port.to_string());
            server.port = Some(port);
        }
        port = port.saturating_add(STEP);
        import.add(server);
    }
    Ok(import)
}
