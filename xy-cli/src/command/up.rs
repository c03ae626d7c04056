//! `xyctl up`: the daemon in this process, and what happens in it as it happens.

mod narrator;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use xy_daemon::client::Client;
use xy_daemon::daemon::{self, DaemonSignal, Listening, RunOptions};
use xy_daemon::http::HttpOptions;
use xy_daemon::idle::IdleShutdown;
use xy_daemon::paths::Directories;
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, Notification, Reloaded, ServerSummary, State,
};
use xy_daemon::signal::{self, HangUp};
use xy_daemon::telemetry;

use self::narrator::{Narrator, Words};
use super::events;
use crate::args::UpArgs;
use crate::error::{CommandError, exit_code};
use crate::output::text::{count, neutral, processes};
use crate::output::time;
use crate::session::Session;

/// How long the servers may be counted before a shutdown goes on without their number.
const COUNTING: Duration = Duration::from_millis(200);

/// How long the last events may take to be printed when the daemon has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many signals wait for the daemon.
const SIGNALS: usize = 4;

/// Runs the command.
pub(super) async fn run(args: &UpArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let directories = Directories::of_user()?;
    let options = options(args, &directories, session)?;
    let place = Place {
        servers: options.servers_dir.clone().unwrap_or_else(|| directories.servers()),
        socket: options.socket.clone(),
        is_default_socket: options.socket == directories.default_socket(),
    };
    let is_quiet = session.output.is_json();
    let (narrator, mut words) = Narrator::start(session.output);

    // What happens to servers is told by events; this is for what the daemon says about itself.
    telemetry::to_stderr("error");
    let typed = signal::listen(HangUp::Shutdown).map_err(CommandError::Signals)?;
    let (to_daemon, signals) = mpsc::channel(SIGNALS);
    let (listening, is_listening) = oneshot::channel();
    let started = time::now_unix_ms();

    let forwarding = forward(typed, to_daemon, words.clone(), &place);
    let ended = {
        // Nobody waits for it when the narration has failed already.
        let mut daemon = pin!(daemon::run(options, signals, |now| _ = listening.send(now)));
        let mut narration = pin!(async {
            if let Ok(listening) = is_listening.await
                && let Err(error) = narrate(listening, started, is_quiet, &place, &mut words).await
            {
                // Servers matter more than the words about them.
                words.say(Words::Note(format!("events cannot be shown any more: {error}"))).await;
            }
        });
        let mut forwarding = pin!(forwarding);
        let mut is_narrating = true;
        loop {
            tokio::select! {
                ended = &mut daemon => {
                    if is_narrating {
                        // Without its end, whatever is missing is not worth waiting for.
                        _ = timeout(LAST_WORDS, &mut narration).await;
                    }
                    break ended;
                }
                () = &mut narration, if is_narrating => is_narrating = false,
                () = &mut forwarding => {}
            }
        }
    };
    if let Ok(report) = &ended
        && !is_quiet
    {
        for killed in &report.killed {
            let text =
                format!("{}: had to be killed: {}", neutral(&killed.name), processes(&killed.processes));
            words.try_say(Words::Line(text));
        }
        words.try_say(Words::Line("everything has ended".to_owned()));
    }
    drop(words);
    narrator.finish(LAST_WORDS).await;
    ended?;
    Ok(exit_code::SUCCESS)
}

/// Where everything is.
#[derive(Debug)]
struct Place {
    servers: PathBuf,
    socket: PathBuf,
    is_default_socket: bool,
}

fn options(
    args: &UpArgs,
    directories: &Directories,
    session: &Session<'_>,
) -> Result<RunOptions, CommandError> {
    let servers_dir = args.directory.as_deref().map(|path| {
        // Reading it proves more than its existence, and follows links.
        std::fs::read_dir(path)
            .map_err(|source| CommandError::Directory { path: path.to_owned(), source })
            .and_then(|_| absolute(path))
    });
    Ok(RunOptions {
        cgroups: true,
        guard: None,
        config_dir: directories.config.clone(),
        servers_dir: servers_dir.transpose()?,
        state_dir: directories.state.clone(),
        socket: absolute(&session.socket()?)?,
        working_dir: std::env::current_dir()
            .map_err(|source| CommandError::Directory { path: ".".into(), source })?,
        http: HttpOptions::default(),
        service: None,
        program: None,
        // Somebody watches it.
        idle_shutdown: IdleShutdown::Never,
    })
}

/// Makes a path that means the same in another terminal.
fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|source| CommandError::Directory { path: path.to_owned(), source })
}

/// Hands signals to the daemon and says what they do. It never ends before the daemon.
async fn forward(
    mut typed: mpsc::Receiver<DaemonSignal>,
    to_daemon: mpsc::Sender<DaemonSignal>,
    mut words: narrator::Mouth,
    place: &Place,
) {
    while let Some(signal) = typed.recv().await {
        let text = match signal {
            DaemonSignal::Shutdown => match timeout(COUNTING, running(&place.socket)).await {
                Ok(Some(0)) => Some("stopping…".to_owned()),
                Ok(Some(number)) => {
                    Some(format!("stopping {}… (again to kill them)", count(number, "server")))
                }
                Ok(None) | Err(_) => Some("stopping every server… (again to kill them)".to_owned()),
            },
            DaemonSignal::ShutdownNow => Some("killing what is left…".to_owned()),
            DaemonSignal::Reload | DaemonSignal::RotateToken | DaemonSignal::Upgrade => None,
        };
        if let Some(text) = text {
            words.try_say(Words::Note(text));
        }
        // It fails when the daemon has ended, which is what was asked for.
        _ = to_daemon.send(signal).await;
    }
    std::future::pending().await
}

/// Counts the servers of which something runs.
async fn running(socket: &Path) -> Option<u64> {
    let client = Client::connect(socket).await.ok()?;
    let list = client.call::<List>(ListParams {}).await.ok()?;
    let runs =
        |server: &&ServerSummary| !server.group && !matches!(server.state, State::Stopped | State::Failed);
    u64::try_from(list.servers.iter().filter(runs).count()).ok()
}

/// Says what to do now, and then what happens, until the daemon closes the connection.
async fn narrate(
    listening: Listening,
    started_unix_ms: u64,
    is_quiet: bool,
    place: &Place,
    words: &mut narrator::Mouth,
) -> Result<(), CommandError> {
    let listening_unix_ms = time::now_unix_ms();
    let client = Client::connect(&listening.socket).await?;
    let mut events = client.subscribe::<Events>(EventsParams::following(events::OF_THIS_DAEMON)).await?;
    if !is_quiet {
        // Without the list the welcome lacks an example, which is no reason to keep silent.
        let servers = client.call::<List>(ListParams {}).await.map(|list| list.servers).unwrap_or_default();
        for line in welcome(&listening, servers.first(), place) {
            words.say(Words::Line(line)).await;
        }
    }
    for process in &listening.swept {
        words.say(Words::Note(format!("killed what an earlier daemon had left: {}", neutral(process)))).await;
    }
    if !listening.rejected.is_empty() {
        let rejected = listening.rejected.iter();
        let rejected =
            rejected.map(|file| Reloaded { name: file.name.clone(), reason: file.errors.join("\n") });
        words.say(Words::Rejected(rejected.collect())).await;
    }
    let mut has_begun = false;
    loop {
        match events.next().await {
            Ok(Some(Notification::Event(event))) => {
                // The past of an earlier daemon, and what the welcome says already.
                let is_old = event.at_unix_ms < started_unix_ms;
                let is_said = event.at_unix_ms <= listening_unix_ms
                    && matches!(event.event_type.as_str(), "child_added" | "supervisor_started");
                has_begun |= !is_old;
                if !is_old && (is_quiet || !is_said) {
                    words.say(Words::Event(event)).await;
                }
            }
            // What is missing before the first event of this daemon belongs to an earlier one.
            Ok(Some(Notification::EventGap(gap))) if has_begun => words.say(Words::Gap(gap)).await,
            Ok(Some(_)) => {}
            // The connection ends with the daemon.
            Ok(None) | Err(_) => return Ok(()),
        }
    }
}

fn welcome(listening: &Listening, first: Option<&ServerSummary>, place: &Place) -> Vec<String> {
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let servers = count(number(listening.servers), "server");
    let rejected = match listening.rejected.len() {
        0 => String::new(),
        rejected => format!(", {} rejected", count(number(rejected), "file")),
    };
    let directory = place.servers.display().to_string();
    let mut lines = vec![format!("xyd is up: {servers} from {}{rejected}", neutral(&directory))];
    if listening.servers == 0 {
        let inner = place.servers.join("servers");
        lines.push(match inner.is_dir() {
            true => {
                format!("there are no server files; did you mean {}?", neutral(&inner.display().to_string()))
            }
            false => "put a server file there (NAME.ron) and run `xyctl reload`".to_owned(),
        });
    }
    let program = program();
    let socket = match place.is_default_socket {
        true => String::new(),
        false => format!(" --socket {}", quoted(&place.socket.display().to_string())),
    };
    let mut commands = vec![(format!("{program} list{socket}"), "all servers, their state and process")];
    if let Some(ServerSummary { name, .. }) = first {
        let name = quoted(name);
        commands.push((format!("{program} logs -f {name}{socket}"), "what it writes"));
        commands.push((
            format!("{program} signal -s KILL {name}{socket}"),
            "kill it, and watch it come back here",
        ));
    }
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or_default();
    lines.push("in a second terminal:".to_owned());
    lines.extend(commands.iter().map(|(command, what)| format!("  {command:<width$}   {what}")));
    lines.push("Ctrl-C here stops everything".to_owned());
    lines.push(String::new());
    lines
}

/// Returns how this program was called, so that what it says to type works without an installation as well.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    match called {
        Some(path) if path.components().count() > 1 => quoted(&path.display().to_string()),
        _ => "xyctl".to_owned(),
    }
}

/// Quotes a word for a POSIX shell where that is needed.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%,".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", neutral(word).replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use xy_daemon::daemon::Rejected;

    use super::*;

    fn place(is_default_socket: bool) -> Place {
        Place { servers: "/etc/s".into(), socket: "/run/my xy/s.sock".into(), is_default_socket }
    }

    fn listening(servers: usize, rejected: usize) -> Listening {
        let rejected = vec![Rejected { name: "bad".to_owned(), errors: Vec::new() }; rejected];
        Listening {
            socket: "/run/my xy/s.sock".into(),
            http: None,
            servers,
            rejected,
            swept: Vec::new(),
            is_taken_over: false,
        }
    }

    #[test]
    fn the_welcome_names_the_socket_only_if_it_is_another() {
        let default = welcome(&listening(2, 0), None, &place(true)).join("\n");
        assert!(default.starts_with("xyd is up: 2 servers from /etc/s\n"), "{default}");
        assert!(default.contains(" list   ") && !default.contains("--socket"), "{default}");
        let other = welcome(&listening(1, 1), None, &place(false)).join("\n");
        assert!(other.starts_with("xyd is up: 1 server from /etc/s, 1 file rejected\n"), "{other}");
        assert!(other.contains(" list --socket '/run/my xy/s.sock'"), "{other}");
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_split_it() {
        for (word, shown) in [("a/b.sock", "a/b.sock"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(word), shown);
        }
    }
}
