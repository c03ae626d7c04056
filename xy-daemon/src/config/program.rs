//! Whether what servers name is there: programs, found in `PATH`, executable, with their interpreter; files; secrets.
//!
//! A missing program is a warning, never a rejection: it may be installed a minute later, and a start says exactly
//! what failed. This looks the way `execvp` does, without running anything.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use xy_actors::process::known_login_path;
use xy_actors::process::settings::{SearchPath, SecretSource};

use super::error::ConfigError;
use super::{Config, ServerConfig, shown_from_source};
use crate::control::chain;

/// As much of a script's first line as kernels read.
const FIRST_LINE: u64 = 256;

/// Checks the program, the working directory, the environment files and the sources of secrets of each server, and returns
/// what would keep it from starting.
///
/// `path` is the `PATH` that servers inherit; one that a server sets itself goes before it. The login shell's counts as far
/// as it [is known](known_login_path); nobody is asked for it.
pub fn check_commands(config: &Config, path: &OsStr) -> Vec<ConfigError> {
    config
        .servers
        .values()
        .flat_map(|server| check(server, path).into_iter().chain(secrets(server, path)))
        .collect()
}

fn warning(server: &ServerConfig, key: &str, message: String) -> ConfigError {
    ConfigError {
        key: Some(key.to_owned()),
        ..ConfigError::of_file(shown_from_source(&server.source), message)
    }
}

/// Looks for the sources of secrets; no command is run.
fn secrets(server: &ServerConfig, path: &OsStr) -> Vec<ConfigError> {
    let process = &server.process;
    let directory = process.working_dir.as_deref().unwrap_or(Path::new("."));
    let path = match (process.env.get("PATH"), &process.settings.path) {
        (Some(path), _) | (None, SearchPath::Literal(path)) => OsStr::new(path),
        _ => path,
    };
    let problem = |source: &SecretSource| match source {
        SecretSource::Command(words) => {
            let program = words.first().map(String::as_str).unwrap_or_default();
            let is_asked_for = process.settings.path == SearchPath::Login && !program.contains('/');
            let found = || Search { directory, path }.runnable(OsStr::new(program));
            if is_asked_for { None } else { found().err() }
        }
        source => Some(format!("{source}: {}", chain(&source.read(directory)?.err()?))),
    };
    let warned = |(name, source): (&String, &SecretSource)| {
        let warning = warning(server, &format!("secrets.{name}"), problem(source)?);
        Some(match source {
            SecretSource::Env(_) => warning.with_hint("it has to be set for xyd"),
            _ => warning,
        })
    };
    process.settings.secrets.iter().filter_map(warned).collect()
}

fn check(server: &ServerConfig, path: &OsStr) -> Option<ConfigError> {
    let process = &server.process;
    let settings = &process.settings;
    let warning = |key: &str, message: String| warning(server, key, message);
    let directory = process.working_dir.as_deref().unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Some(warning("working_dir", format!("there is no directory `{}`", directory.display())));
    }
    let mut variables = BTreeMap::new();
    for file in &settings.env_files {
        match file.read() {
            Ok(found) => variables.extend(found),
            Err(error) => return Some(warning("env_files", chain(&error))),
        }
    }
    let set = process.env.get("PATH").or_else(|| variables.get("PATH"));
    let login_path;
    let path = match (set, &settings.path) {
        (Some(path), _) | (None, SearchPath::Literal(path)) => OsStr::new(path),
        (None, SearchPath::Login) => match known_login_path(settings.user.as_deref()) {
            Some(Ok(found)) => {
                login_path = found;
                &login_path
            }
            Some(Err(error)) => {
                let told = format!("{}; it gets the PATH of xyd instead", chain(&*error));
                let shell = error.shell().display();
                let hint = format!(
                    "see what `{shell} -l -c 'printenv PATH'` does, or write the directories as `path`"
                );
                return Some(warning("path", told).with_hint(hint));
            }
            None if !process.command.contains('/') => return None,
            None => path,
        },
        _ => path,
    };
    let search = Search { directory, path };
    let message = search.runnable(OsStr::new(&process.command)).err()?;
    let warning = warning("command", message);
    Some(if process.command.contains(' ') {
        warning.with_hint("arguments go into `args`; no shell splits the command")
    } else {
        warning
    })
}

/// Where programs are looked for.
#[derive(Debug, Clone, Copy)]
struct Search<'a> {
    /// The server's working directory, where relative paths start.
    directory: &'a Path,
    path: &'a OsStr,
}

impl Search<'_> {
    /// Finds a program and its interpreter.
    fn runnable(self, command: &OsStr) -> Result<(), String> {
        let program = self.find(command)?;
        let Some((interpreter, argument)) = interpreter(&program) else { return Ok(()) };
        let needs = |message: String| format!("`{}` needs its interpreter: {message}", program.display());
        self.find(interpreter.as_os_str()).map_err(needs)?;
        // `#!/usr/bin/env node` looks for node in PATH.
        let by_env = interpreter.file_name() == Some(OsStr::new("env"));
        match argument.filter(|name| by_env && !name.as_bytes().starts_with(b"-")) {
            Some(name) => self.find(&name).map(drop).map_err(needs),
            None => Ok(()),
        }
    }

    fn find(self, command: &OsStr) -> Result<PathBuf, String> {
        let name = Path::new(command).display();
        if command.as_bytes().contains(&b'/') {
            let program = self.directory.join(command);
            return match program.metadata() {
                Err(_) => Err(format!("there is no program `{}`", program.display())),
                Ok(metadata) if !metadata.is_file() => Err(format!("`{}` is not a file", program.display())),
                Ok(_) if !is_executable(&program) => {
                    Err(format!("`{}` is not executable", program.display()))
                }
                Ok(_) => Ok(program),
            };
        }
        let mut blocked = None;
        // An empty element of PATH is the working directory.
        for directory in std::env::split_paths(self.path) {
            let program = self.directory.join(directory).join(command);
            if program.is_file() {
                if is_executable(&program) {
                    return Ok(program);
                }
                blocked.get_or_insert(program);
            }
        }
        Err(match blocked {
            Some(program) => format!("`{}` is not executable", program.display()),
            None => format!("there is no program `{name}` in PATH"),
        })
    }
}

fn is_executable(program: &Path) -> bool {
    access(program, AccessFlags::X_OK).is_ok()
}

/// Returns the interpreter a script names and its first argument.
fn interpreter(program: &Path) -> Option<(PathBuf, Option<OsString>)> {
    let mut head = Vec::new();
    // A program that may be executed but not read is no script.
    File::open(program).ok()?.take(FIRST_LINE).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let interpreter = PathBuf::from(OsStr::from_bytes(words.next()?));
    Some((interpreter, words.next().map(|word| OsStr::from_bytes(word).to_owned())))
}
