//! `xyd`: arguments, logging, run, exit code.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use xy_actors::process::guard::{self, GuardError, GuardOptions, Guarded, Role};
use xy_actors::process::{handover, memory};
use xy_daemon::activation::Activated;
use xy_daemon::args::Arguments;
use xy_daemon::config::{Config, LoadOptions, check_commands, check_conditions};
use xy_daemon::daemon::{
    self, EXIT_ANOTHER_INSTANCE, EXIT_CONFIG, EXIT_INTERNAL, EXIT_OK, EXIT_USAGE, Listening, RunOptions,
};
use xy_daemon::http::HttpOptions;
use xy_daemon::http::credentials::TokenOptions;
use xy_daemon::http::secret::{Secret, SecretError};
use xy_daemon::idle::IdleShutdown;
use xy_daemon::paths::Directories;
use xy_daemon::service::ServiceManager;
use xy_daemon::signal::{self, HangUp};
use xy_daemon::telemetry;
use xy_daemon::upgrade::{self, Inheritance};

fn main() -> ExitCode {
    memory::share_one_heap();
    let line: Vec<OsString> = std::env::args_os().collect();
    // Before anything is opened, since what is handed over is known by its numbers.
    match upgrade::take_over(&line, |inheritance| start(Some(inheritance))) {
        None => start(None),
        Some(Ok(code)) => code,
        Some(Err(error)) => fail(&error, EXIT_INTERNAL),
    }
}

/// How many tasks run before the system is asked for what has happened meanwhile. Tasks that make long answers take
/// milliseconds: the usual 61 of them would be noticed by whoever has just asked something.
const TASKS_AT_A_TIME: u32 = 8;

/// Does what the command line says, or goes on where the program before this one stopped.
fn start(inheritance: Option<Inheritance>) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
            // Nobody can be told that telling failed.
            let _unwritten = error.print();
            return ExitCode::from(code);
        }
    };
    if inheritance.is_none() {
        guard::reset_signals();
    }
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
        telemetry::to_stderr("info");
        return check(&config_dir);
    }
    if let Some(path) = &arguments.check_handoff {
        return check_handoff(path);
    }
    let token = match environment_token() {
        Ok(environment) => TokenOptions { file: arguments.http_token_file.clone(), environment },
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let is_taken_over = inheritance.is_some();
    let program = match &inheritance {
        Some(inheritance) => Ok(inheritance.program().to_owned()),
        None => upgrade::program_path(),
    };
    let options = RunOptions {
        config_dir,
        servers_dir: None,
        socket: directories.socket(arguments.socket.as_deref(), |name| std::env::var_os(name)),
        state_dir: directories.state,
        cgroups: !arguments.no_cgroup,
        guard: None,
        working_dir: LoadOptions::new(home()).default_dir,
        http: HttpOptions { listen: arguments.listen(), token },
        service: None,
        program: program.ok(),
        idle_shutdown: arguments.idle_shutdown.map_or(IdleShutdown::Configured, IdleShutdown::After),
    };
    if arguments.detach && arguments.guard_pid.is_none() {
        // It fails only for the leader of a process group, who has left the terminal's session or owns it.
        let _is_leader = nix::unistd::setsid();
    }
    let guarded = match arguments.guard_pid {
        Some(pid) => Guarded::attach(pid).map(Some),
        None if !is_taken_over && arguments.wants_guard(|name| std::env::var_os(name)) => match start_guard()
        {
            Ok(Role::Guard(exit)) => return ExitCode::from(guard::end_like(exit)),
            Ok(Role::Program(guarded)) => Ok(Some(guarded)),
            Err(error) => Err(error),
        },
        None => Ok(None),
    };
    match guarded {
        Ok(guarded) => {
            let guard = guarded.as_ref().map(Guarded::pid);
            // A service manager that started the guard means the guard by the process that it started.
            let pids: Vec<u32> = guard.into_iter().chain([std::process::id()]).collect();
            // The program before this one has handed over what it was given, under other numbers.
            let activated = match is_taken_over {
                true => Ok(Activated::default()),
                false => Activated::from_environment(|name| std::env::var_os(name), &pids),
            };
            let activated = match activated {
                Ok(activated) => activated,
                Err(error) => return fail(&error, EXIT_CONFIG),
            };
            let service = ServiceManager::from_environment(|name| std::env::var_os(name), &pids);
            run(RunOptions { guard, service, ..options }, activated, guarded, inheritance)
        }
        Err(error) => fail(&error, EXIT_INTERNAL),
    }
}

/// Becomes the guard and the daemon below it. To be called while there is one thread and little memory, since the guard
/// keeps a copy of both.
fn start_guard() -> Result<Role, GuardError> {
    let program = upgrade::program_path().map_err(GuardError::Program)?;
    guard::start(&GuardOptions {
        program,
        arguments: std::env::args_os().skip(1).collect(),
        guard_option: "--guard-pid".into(),
        // Ended as asked, or another instance has taken over, or the program on disk knows our options no more.
        final_codes: vec![EXIT_OK.into(), EXIT_USAGE.into(), EXIT_ANOTHER_INSTANCE.into()],
    })
}

/// Takes the token of HTTP from the environment, where no list of processes shows it to others.
fn environment_token() -> Result<Option<Secret>, EnvironmentToken> {
    match std::env::var_os("XY_TOKEN") {
        Some(text) if !text.is_empty() => {
            // What is not UTF-8 is not ASCII either, and is refused as such.
            Ok(Some(Secret::parse(&text.to_string_lossy()).map_err(EnvironmentToken)?))
        }
        _ => Ok(None),
    }
}

/// The token in the environment cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("`XY_TOKEN` cannot be used")]
struct EnvironmentToken(#[source] SecretError);

/// A directory that was named must be there; only the default one may be missing, which means no servers.
#[derive(Debug, thiserror::Error)]
#[error("the configuration directory `{}` cannot be read", path.display())]
struct NamedDirectory {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

fn run(
    options: RunOptions,
    activated: Activated,
    guarded: Option<Guarded>,
    inheritance: Option<Inheritance>,
) -> ExitCode {
    telemetry::to_log(&options.state_dir.join("xyd.log"), "info");
    // One thread for control: supervision is a serial conversation, and logs have a thread of their own.
    // No other thread hears signals, so that in an upgrade none is taken that nobody acts on any more.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_AT_A_TIME)
        .on_thread_start(handover::hear_no_signals)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, EXIT_INTERNAL),
    };
    let guarded = guarded.map(Arc::new);
    let is_guard_lost = Arc::new(AtomicBool::new(false));
    let result = runtime.block_on(async {
        let lost = guard_lost(guarded.clone(), is_guard_lost.clone());
        let signals = signal::listen_or(HangUp::Reload, lost).map_err(daemon::RunError::Thread)?;
        let listening = |listening: Listening| {
            if let Some(guarded) = &guarded {
                guarded.report_up();
            }
            for file in &listening.rejected {
                for error in &file.errors {
                    tracing::error!(child = file.name, "configuration: {error}");
                }
            }
            tracing::info!(
                socket = %listening.socket.display(),
                http = listening.http,
                servers = listening.servers,
                rejected = listening.rejected.len(),
                "{}",
                if listening.is_taken_over { "taken over" } else { "listening" }
            );
        };
        let Some(inheritance) = inheritance else {
            return daemon::run_on(options, activated, signals, listening).await;
        };
        if inheritance.is_handed_back {
            tracing::error!("not upgraded: the new program did not come up");
        }
        daemon::take_up(options, inheritance, signals, listening).await
    });
    match result {
        Ok(report) => {
            for server in &report.killed {
                tracing::warn!(child = server.name, processes = server.processes.len(), "had to be killed");
            }
            for process in &report.strangers {
                tracing::warn!("belonged to no server and was killed: {process}");
            }
            for process in &report.left {
                tracing::error!("could not be ended: {process}");
            }
            tracing::info!("ended");
            let code = if is_guard_lost.load(Ordering::Relaxed) { EXIT_INTERNAL } else { EXIT_OK };
            ExitCode::from(code)
        }
        Err(error) => {
            let code = error.exit_code();
            fail(&error, code)
        }
    }
}

/// Returns when the guard has died. Then everything is to end: without the guard nobody would bring it back in order.
async fn guard_lost(guarded: Option<Arc<Guarded>>, is_lost: Arc<AtomicBool>) {
    let Some(guarded) = guarded else { return std::future::pending().await };
    match guarded.ended().await {
        Ok(()) => tracing::error!(pid = guarded.pid(), "the guard has died; every server is ended"),
        Err(error) => tracing::error!(%error, "the guard cannot be watched; every server is ended"),
    }
    is_lost.store(true, Ordering::Relaxed);
}

/// Says whether this program could go on with a state: its version on standard output, or why not on standard error.
fn check_handoff(path: &std::path::Path) -> ExitCode {
    match upgrade::check_handoff(path, &LoadOptions::new(home())) {
        Ok(version) => {
            print_line(&version);
            ExitCode::from(EXIT_OK)
        }
        Err(error) => fail(&error, EXIT_INTERNAL),
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
    for warning in check_commands(&config, &path).into_iter().chain(check_conditions(&config)) {
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
