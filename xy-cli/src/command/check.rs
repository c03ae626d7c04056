//! `xyctl check`: what is wrong with the configuration, and what would keep a server from starting, without a daemon.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use xy_actors::process::settings::SearchPath;
use xy_actors::process::{HostOptions, ProcessHost, login_path};
use xy_daemon::client::Client;
use xy_daemon::config::{
    Config, ConfigError, LoadOptions, ServerConfig, Trust, check_commands, check_conditions,
};
use xy_daemon::paths::Directories;
use xy_daemon::protocol::method::{List, ListParams};

use crate::args::CheckArgs;
use crate::error::{CommandError, exit_code};
use crate::output::text::{count, neutral};
use crate::output::{Output, Style};
use crate::session::Session;

/// How long a daemon may take to say what it runs. Without its answer, the ports of its servers are in use.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command.
pub(super) async fn run(args: &CheckArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let directories = Directories::of_user()?;
    let mut options = LoadOptions::new(std::env::home_dir());
    if let Some(directory) = &args.directory {
        let unreadable = |source| CommandError::Directory { path: directory.clone(), source };
        std::fs::read_dir(directory).map_err(unreadable)?;
        let directory = std::path::absolute(directory).map_err(unreadable)?;
        options = LoadOptions {
            // As `xyctl up` does.
            default_dir: std::env::current_dir().map_err(unreadable)?,
            servers: Some(directory),
            trust: Trust::Unchecked,
            ..options
        };
    }
    let config = Config::load(&directories.config, &options)?;
    let errors: Vec<ConfigError> = config.errors().cloned().collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    ask_login_shells(&config).await;
    let mut warnings = check_commands(&config, &path);
    warnings.extend(check_conditions(&config));
    warnings.extend(ports(&config, &own_ports(session).await));
    let servers = options.servers.clone().unwrap_or_else(|| directories.servers());
    for warning in &mut warnings {
        place(warning, &servers);
        // As in errors, and so that an editor finds it from here.
        let path = servers.join(warning.file.file_name().unwrap_or_default());
        warning.file = path.strip_prefix(&directories.config).map(Path::to_owned).unwrap_or(path);
    }
    warnings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if path.is_empty() {
        warnings.push(ConfigError::of_file(
            "(environment)",
            "PATH is empty, so that no program is found by its name",
        ));
    }
    let output = &mut *session.output;
    if output.is_json() {
        output.json(&json!({
            "servers": config.servers.keys().collect::<Vec<_>>(), "errors": errors, "warnings": warnings,
        }))?;
    } else {
        write(&config, &errors, &warnings, &servers, output)?;
    }
    Ok(if errors.is_empty() { exit_code::SUCCESS } else { exit_code::CONFIG })
}

fn write(
    config: &Config,
    errors: &[ConfigError],
    warnings: &[ConfigError],
    servers: &Path,
    output: &mut Output,
) -> Result<(), CommandError> {
    for (label, style, list) in [("error:", Style::Bad, errors), ("warning:", Style::Busy, warnings)] {
        for one in list {
            let text = ConfigError { hint: None, ..one.clone() }.to_string();
            let label = output.paint(style, label).into_owned();
            output.line(&format!("{label} {}", neutral(&text)))?;
            if let Some(hint) = &one.hint {
                output.line(&format!("  hint: {}", neutral(hint)))?;
            }
        }
    }
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (valid, wrong) = (config.servers.len(), config.rejected.len());
    let rejected =
        if wrong == 0 { String::new() } else { format!(", {} rejected", count(number(wrong), "file")) };
    let shown = servers.display().to_string();
    output.line(&format!("{} valid{rejected} in {}", count(number(valid), "server"), neutral(&shown)))
}

/// Asks the login shells whose `PATH` servers are to have, as their starts would.
async fn ask_login_shells(config: &Config) {
    let asks = |server: &&ServerConfig| {
        server.process.settings.path == SearchPath::Login && !server.process.env.contains_key("PATH")
    };
    let mut asking = config.servers.values().filter(asks).peekable();
    if asking.peek().is_none() {
        return;
    }
    // Where no process can be started, there is no answer, and nothing to say about it here.
    let Ok((host, _)) = ProcessHost::start(HostOptions::default()) else { return };
    for server in asking {
        // It is remembered, and so is why there is none.
        let _known = login_path(&host, &server.process.settings).await;
    }
}

/// Returns the ports of servers that a running daemon has now: they are in use by right.
async fn own_ports(session: &Session<'_>) -> Vec<(String, u16)> {
    let Ok(socket) = session.socket() else { return Vec::new() };
    let asked = async { Client::connect(&socket).await?.call::<List>(ListParams {}).await };
    let Ok(Ok(list)) = tokio::time::timeout(PATIENCE, asked).await else { return Vec::new() };
    let running = list.servers.into_iter().filter(|server| server.pid.is_some());
    running.filter_map(|server| Some((server.name, server.port?))).collect()
}

fn ports(config: &Config, own: &[(String, u16)]) -> Vec<ConfigError> {
    let is_own =
        |server: &ServerConfig, port: u16| own.iter().any(|(name, own)| *name == server.name && *own == port);
    let taken = |server: &ServerConfig| {
        let port = server.process.port?;
        if is_own(server, port) || !is_taken(port) {
            return None;
        }
        let directory = server.source.parent().and_then(Path::file_name).unwrap_or_default();
        let file = Path::new(directory).join(server.source.file_name().unwrap_or_default());
        let error = ConfigError::of_file(file, format!("port {port} is in use by another program"));
        let error = ConfigError { key: Some("port".to_owned()), ..error };
        Some(error.with_hint(format!("`ss -ltnp 'sport = :{port}'` names it")))
    };
    config.servers.values().filter_map(taken).collect()
}

/// Returns whether a server could not listen on a port of this machine.
fn is_taken(port: u16) -> bool {
    let addresses: [SocketAddr; 3] = [
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ];
    let in_use = |address: SocketAddr| matches!(TcpListener::bind(address), Err(error) if error.kind() == io::ErrorKind::AddrInUse);
    addresses.into_iter().any(in_use)
}

/// Finds the line of a warning by its key.
fn place(warning: &mut ConfigError, servers: &Path) {
    let (None, Some(key), Some(name)) = (warning.line, &warning.key, warning.file.file_name()) else {
        return;
    };
    let path: PathBuf = servers.join(name);
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for (number, line) in text.lines().enumerate() {
        if let Some(column) = column_of(line, key) {
            (warning.line, warning.column) = (Some(number + 1), Some(column));
            return;
        }
    }
}

/// Returns where a key stands in a line that is no comment, counted in characters from 1.
fn column_of(line: &str, key: &str) -> Option<usize> {
    let code = line.split("//").next().unwrap_or(line);
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    code.match_indices(key).find_map(|(start, found)| {
        let before = code[..start].chars().next_back();
        let after = code[start + found.len()..].trim_start();
        let is_key = !before.is_some_and(|before| is_word(before) || before == '"') && after.starts_with(':');
        is_key.then(|| code[..start].chars().count() + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_as_a_word_before_a_colon_and_not_in_a_comment() {
        assert_eq!(column_of("Process(command: \"x\", port: 80)", "port"), Some(23));
        assert_eq!(column_of("    command : \"command\"", "command"), Some(5));
        assert_eq!(column_of("// port: 80", "port"), None);
        assert_eq!(column_of("port_owner: Any", "port"), None);
        assert_eq!(column_of("env: {\"port\": 80}", "port"), None);
    }

    #[test]
    fn a_port_is_taken_while_somebody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_taken(port));
    }
}
