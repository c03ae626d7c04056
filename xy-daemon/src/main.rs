//! `xyd`: arguments, logging, run, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use xy_daemon::args::Arguments;
use xy_daemon::config::{Config, LoadOptions, check_commands};
use xy_daemon::daemon::{self, EXIT_CONFIG, EXIT_INTERNAL, EXIT_OK, EXIT_USAGE, RunOptions};
use xy_daemon::paths::Directories;
use xy_daemon::service::ServiceManager;
use xy_daemon::signal::{self, HangUp};
use xy_daemon::telemetry;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
            // Nobody can be told that telling failed.
            let _unwritten = error.print();
            return ExitCode::from(code);
        }
    };
    telemetry::to_stderr("info");
    let directories = match Directories::of_user() {
        Ok(directories) => directories,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    if let Some(path) = &arguments.config
        && let Err(source) = std::fs::read_dir(path)
    {
        return fail(&NamedDirectory { path: path.clone(), source }, EXIT_CONFIG);
    }
    let config_dir = arguments.config.clone().unwrap_or_else(|| directories.config.clone());
    if arguments.check {
        return check(&config_dir);
    }
    let options = RunOptions {
        config_dir,
        servers_dir: None,
        socket: directories.socket(arguments.socket.as_deref(), |name| std::env::var_os(name)),
        state_dir: directories.state,
        working_dir: LoadOptions::new(home()).default_dir,
        service: ServiceManager::from_environment(|name| std::env::var_os(name), &[std::process::id()]),
    };
    run(options)
}

/// A directory that was named must be there; only the default one may be missing, which means no servers.
#[derive(Debug, thiserror::Error)]
#[error("the configuration directory `{}` cannot be read", path.display())]
struct NamedDirectory {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

fn run(options: RunOptions) -> ExitCode {
    // One thread for control: supervision is a serial conversation, and logs have a thread of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, EXIT_INTERNAL),
    };
    let result = runtime.block_on(async {
        let signals = signal::listen(HangUp::Reload).map_err(daemon::RunError::Thread)?;
        daemon::run(options, signals, |listening| {
            for file in &listening.rejected {
                for error in &file.errors {
                    tracing::error!(child = file.name, "configuration: {error}");
                }
            }
            tracing::info!(
                socket = %listening.socket.display(),
                servers = listening.servers,
                rejected = listening.rejected.len(),
                "listening"
            );
        })
        .await
    });
    match result {
        Ok(report) => {
            for server in &report.killed {
                tracing::warn!(child = server.name, processes = server.processes.len(), "had to be killed");
            }
            for process in &report.left {
                tracing::error!("could not be ended: {process}");
            }
            tracing::info!("ended");
            ExitCode::from(EXIT_OK)
        }
        Err(error) => {
            let code = error.exit_code();
            fail(&error, code)
        }
    }
}

/// Prints every mistake of the configuration.
fn check(config_dir: &std::path::Path) -> ExitCode {
    let config = match Config::load(config_dir, &LoadOptions::new(home())) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    for error in config.errors() {
        print_line(&format!("error: {error}"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for warning in check_commands(&config, &path) {
        print_line(&format!("warning: {warning}"));
    }
    let (servers, rejected) = (config.servers.len(), config.rejected.len());
    print_line(&format!("{servers} valid, {rejected} rejected in {}", config_dir.display()));
    ExitCode::from(if rejected == 0 { EXIT_OK } else { EXIT_CONFIG })
}

fn home() -> Option<PathBuf> {
    dirs::home_dir()
}

fn print_line(line: &str) {
    use std::io::Write as _;
    // A reader that has gone away wants no more lines.
    let _unwritten = writeln!(std::io::stdout(), "{line}");
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    use std::io::Write as _;
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {error}"));
        cause = error.source();
    }
    // Nobody can be told that telling failed.
    let _unwritten = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
