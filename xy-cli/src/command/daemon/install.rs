//! `xyctl daemon install` and `uninstall`: the daemon as a service of systemd or launchd.

mod launchd;
mod systemd;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::start::program;
use crate::args::{DaemonInstallArgs, DaemonUninstallArgs};
use crate::error::{CommandError, LifecycleError, exit_code};
use crate::session::Session;

/// What is in every file of ours, so that nobody else's is overwritten or removed.
const MARK: &str = "Written by `xyctl daemon install`";

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    User,
    System,
}

/// What the service runs.
#[derive(Debug)]
struct Service {
    program: PathBuf,
    config: Option<PathBuf>,
    socket: Option<PathBuf>,
    scope: Scope,
}

/// A file of a service manager.
#[derive(Debug)]
struct Unit {
    path: PathBuf,
    text: String,
}

/// The service manager of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Systemd,
    Launchd,
}

/// Runs `daemon install`.
pub(super) fn install(args: &DaemonInstallArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let scope = if args.system { Scope::System } else { Scope::User };
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| LifecycleError::File { path: path.to_owned(), source })
    };
    let service = Service {
        program: program()?,
        config: args.config.as_deref().map(absolute).transpose()?,
        socket: session.explicit_socket().as_deref().map(absolute).transpose()?,
        scope,
    };
    let manager = Manager::of_system(args.launchd);
    let units = manager.units(&service)?;
    if args.print {
        for unit in &units {
            session.output.bytes(unit.text.as_bytes())?;
        }
        return Ok(exit_code::SUCCESS);
    }
    let mut written = Vec::new();
    for unit in &units {
        if write(unit, args.force)? {
            written.push(&unit.path);
        }
    }
    let next = manager.start_commands(scope, &units);
    if session.output.is_json() {
        let paths: Vec<_> = units.iter().map(|unit| &unit.path).collect();
        session.output.json(&json!({ "files": paths, "written": written, "next": next }))?;
        return Ok(exit_code::SUCCESS);
    }
    for unit in &units {
        let what = if written.contains(&&unit.path) { "wrote" } else { "unchanged:" };
        session.output.line(&format!("{what} {}", unit.path.display()))?;
    }
    session.output.line("Start it now and at every login with:")?;
    for command in next {
        session.output.line(&format!("  {command}"))?;
    }
    Ok(exit_code::SUCCESS)
}

/// Runs `daemon uninstall`.
pub(super) fn uninstall(args: &DaemonUninstallArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let scope = if args.system { Scope::System } else { Scope::User };
    let manager = Manager::of_system(args.launchd);
    let mut removed = Vec::new();
    for path in manager.paths(scope)? {
        if remove(&path)? {
            removed.push(path);
        }
    }
    let next = if removed.is_empty() { Vec::new() } else { manager.stop_commands(scope, &removed) };
    if session.output.is_json() {
        session.output.json(&json!({ "removed": removed, "next": next }))?;
        return Ok(exit_code::SUCCESS);
    }
    if removed.is_empty() {
        session.output.line("it is not installed")?;
        return Ok(exit_code::SUCCESS);
    }
    for path in &removed {
        session.output.line(&format!("removed {}", path.display()))?;
    }
    session.output.line("If it runs, end it with:")?;
    for command in next {
        session.output.line(&format!("  {command}"))?;
    }
    Ok(exit_code::SUCCESS)
}

impl Manager {
    fn of_system(launchd: bool) -> Self {
        if launchd || cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }

    fn units(self, service: &Service) -> Result<Vec<Unit>, LifecycleError> {
        let paths = self.paths(service.scope)?;
        let texts = match self {
            Self::Systemd => vec![systemd::service(service)?, systemd::socket(service)?],
            Self::Launchd => vec![launchd::agent(service)?],
        };
        Ok(paths.into_iter().zip(texts).map(|(path, text)| Unit { path, text }).collect())
    }

    fn paths(self, scope: Scope) -> Result<Vec<PathBuf>, LifecycleError> {
        let home = || dirs::home_dir().ok_or(LifecycleError::NoHome);
        Ok(match (self, scope) {
            (Self::Systemd, Scope::User) => {
                let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
                let base = base.filter(|path| path.is_absolute());
                let base = base.map_or_else(|| home().map(|home| home.join(".config")), Ok)?;
                let directory = base.join("systemd/user");
                vec![directory.join("xyd.service"), directory.join("xyd.socket")]
            }
            (Self::Systemd, Scope::System) => {
                vec!["/etc/systemd/system/xyd.service".into(), "/etc/systemd/system/xyd.socket".into()]
            }
            (Self::Launchd, Scope::User) => {
                vec![home()?.join("Library/LaunchAgents").join(launchd::file_name())]
            }
            (Self::Launchd, Scope::System) => {
                vec![Path::new("/Library/LaunchDaemons").join(launchd::file_name())]
            }
        })
    }

    /// The commands that start it, now and whenever it should.
    fn start_commands(self, scope: Scope, units: &[Unit]) -> Vec<String> {
        match (self, scope) {
            (Self::Systemd, Scope::User) => vec![
                "systemctl --user daemon-reload".to_owned(),
                "systemctl --user enable --now xyd.socket xyd.service".to_owned(),
                "loginctl enable-linger    # to keep it running after you log out".to_owned(),
            ],
            (Self::Systemd, Scope::System) => {
                vec![
                    "systemctl daemon-reload".to_owned(),
                    "systemctl enable --now xyd.socket xyd.service".to_owned(),
                ]
            }
            (Self::Launchd, scope) => units
                .iter()
                .map(|unit| format!("launchctl bootstrap {} '{}'", domain(scope), unit.path.display()))
                .collect(),
        }
    }

    /// The commands that end what may still run.
    fn stop_commands(self, scope: Scope, _removed: &[PathBuf]) -> Vec<String> {
        match (self, scope) {
            (Self::Systemd, Scope::User) => vec![
                "systemctl --user disable --now xyd.socket xyd.service".to_owned(),
                "systemctl --user daemon-reload".to_owned(),
            ],
            (Self::Systemd, Scope::System) => {
                vec![
                    "systemctl disable --now xyd.socket xyd.service".to_owned(),
                    "systemctl daemon-reload".to_owned(),
                ]
            }
            (Self::Launchd, scope) => vec![format!("launchctl bootout {}/{}", domain(scope), launchd::LABEL)],
        }
    }
}

fn domain(scope: Scope) -> String {
    match scope {
        Scope::User => format!("gui/{}", nix::unistd::getuid()),
        Scope::System => "system".to_owned(),
    }
}

/// Writes a file as a whole; `false` if it is there already as it should be.
fn write(unit: &Unit, force: bool) -> Result<bool, LifecycleError> {
    let failed = |source| LifecycleError::File { path: unit.path.clone(), source };
    match fs::read_to_string(&unit.path) {
        Ok(text) if text == unit.text => return Ok(false),
        Ok(text) if !text.contains(MARK) && !force => {
            return Err(LifecycleError::Foreign { path: unit.path.clone() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let directory = unit.path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    // A service manager must never read half of it.
    let mut new = unit.path.clone().into_os_string();
    new.push(".new");
    let mut file = fs::File::create(&new).map_err(failed)?;
    file.write_all(unit.text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, &unit.path).map_err(failed)?;
    Ok(true)
}

/// Removes a file of ours; `false` if there is none.
fn remove(path: &Path) -> Result<bool, LifecycleError> {
    let failed = |source| LifecycleError::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) if text.contains(MARK) => fs::remove_file(path).map(|()| true).map_err(failed),
        Ok(_) => Err(LifecycleError::Foreign { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Returns a path as text that can stand in a file of a service manager.
fn printable(path: &Path) -> Result<&str, LifecycleError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.ok_or_else(|| LifecycleError::Unwritable { path: path.to_owned() })
}
