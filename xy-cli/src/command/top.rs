//! `xyctl top`: everything on the full screen, live, with keys to act.

mod state;
mod view;

use std::sync::Arc;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as TerminalEvent, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use xy_daemon::client::{Client, ClientError, Subscription};
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, Logs, LogsParams, Notification, OperationParams, Pause, Restart,
    Resume, Start, Stop, Usage, UsageParams,
};

use self::state::{Action, Reaction, Top};
use super::events::OF_THIS_DAEMON;
use crate::error::{CommandError, exit_code};
use crate::output::time::Clock;
use crate::session::Session;

/// How often everything is looked at again; events bring it forward.
const PERIOD: Duration = Duration::from_secs(1);

/// Events that come within this time are shown together.
const TOGETHER: Duration = Duration::from_millis(50);

/// How many lines of a log are asked for when a server is chosen.
const TAIL: u64 = 500;

/// How many keys wait.
const KEYS: usize = 64;

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    if !session.output.is_terminal() {
        return Err(CommandError::NoTerminal);
    }
    let client = Arc::new(session.connect().await?);
    let is_colored = session.output.is_colored();
    session.output.flush()?;
    // Whatever happens from here on, the terminal is given back as it was; a panic gives it back by a hook of its own.
    let mut terminal = ratatui::try_init().map_err(CommandError::Screen)?;
    let result = show(&client, &mut terminal, is_colored).await;
    ratatui::restore();
    result.map(|()| exit_code::SUCCESS)
}

async fn show(
    client: &Arc<Client>,
    terminal: &mut DefaultTerminal,
    is_colored: bool,
) -> Result<(), CommandError> {
    let mut top = Top::default();
    let clock = Clock::local();
    let mut keys = keys();
    let mut terminated = signal(SignalKind::terminate()).map_err(CommandError::Signals)?;
    let mut events = client.subscribe::<Events>(EventsParams::following(OF_THIS_DAEMON)).await?;
    let (answer, mut answers) = mpsc::channel::<String>(KEYS);
    let mut log = Followed::default();
    let mut is_stale = true;
    loop {
        if is_stale {
            let usage = client.call::<Usage>(UsageParams {});
            let (list, usage) = tokio::join!(client.call::<List>(ListParams {}), usage);
            let list = match list {
                // The same end, seen a moment earlier.
                Err(ClientError::Rpc(error)) if error.kind() == ErrorKind::ShuttingDown => {
                    return Err(CommandError::Client(ClientError::Closed));
                }
                list => list?,
            };
            top.set_servers(list.servers, usage.map(|usage| usage.servers).unwrap_or_default());
            is_stale = false;
        }
        log.follow(top.chosen(), client, &mut top).await?;
        let now = crate::output::time::now_unix_ms();
        let draw = |frame: &mut ratatui::Frame<'_>| view::draw(frame, &mut top, &clock, now, is_colored);
        terminal.draw(draw).map_err(CommandError::Screen)?;
        tokio::select! {
            biased;
            _ = terminated.recv() => return Ok(()),
            key = keys.recv() => match key {
                Some(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => match top.key(key) {
                    Reaction::Quit => return Ok(()),
                    Reaction::Act(action, name) => act(action, name, client, &answer),
                    Reaction::None => {}
                },
                // Another size, which the next picture has.
                Some(_) => {}
                None => return Ok(()),
            },
            event = events.next() => match event? {
                Some(Notification::Event(event)) => {
                    top.add_event(event);
                    // Their end is seen by the next look, and by every one after it.
                    while let Ok(Some(more)) = tokio::time::timeout(TOGETHER, events.next()).await.unwrap_or(Ok(None)) {
                        if let Notification::Event(event) = more {
                            top.add_event(event);
                        }
                    }
                    is_stale = true;
                }
                Some(_) => {}
                None => return Err(CommandError::Client(ClientError::Closed)),
            },
            line = log.next() => match line? {
                Some(Notification::Log(line)) => top.add_line(line),
                Some(_) => {}
                None => log.lines = None,
            },
            Some(text) = answers.recv() => {
                top.say(text);
                is_stale = true;
            }
            () = tokio::time::sleep(PERIOD) => is_stale = true,
        }
    }
}

/// The log of the chosen server.
#[derive(Debug, Default)]
struct Followed {
    name: Option<String>,
    lines: Option<Subscription>,
}

impl Followed {
    /// Follows another server, if another one is chosen.
    async fn follow(
        &mut self,
        chosen: Option<String>,
        client: &Client,
        top: &mut Top,
    ) -> Result<(), CommandError> {
        if self.name == chosen {
            return Ok(());
        }
        self.name.clone_from(&chosen);
        self.lines = None;
        top.clear_log();
        if let Some(name) = chosen {
            let params = LogsParams { tail: Some(TAIL), follow: true, ..LogsParams::new(name) };
            self.lines = match client.subscribe::<Logs>(params).await {
                Ok(lines) => Some(lines),
                // A group has no log.
                Err(ClientError::Rpc(_)) => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Notification>, ClientError> {
        match &mut self.lines {
            Some(lines) => lines.next().await,
            None => std::future::pending().await,
        }
    }
}

/// Reads keys in a thread of their own, which ends with the process: reading cannot be called off.
fn keys() -> mpsc::Receiver<TerminalEvent> {
    let (sender, receiver) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Acts on a server, and says what came of it when it is done.
fn act(action: Action, name: String, client: &Arc<Client>, answer: &mpsc::Sender<String>) {
    let (client, answer) = (Arc::clone(client), answer.clone());
    tokio::spawn(async move {
        // It is gone if everything ends.
        _ = answer.send(format!("{name}: {} …", action.word())).await;
        let params = OperationParams {
            reason: Some("by key in xyctl top".to_owned()),
            ..OperationParams::named(&name)
        };
        let failed = match action {
            Action::Start => client.call::<Start>(params).await.map(|result| result.failed),
            Action::Stop => client.call::<Stop>(params).await.map(|result| result.failed),
            Action::Restart => client.call::<Restart>(params).await.map(|result| result.failed),
            Action::Pause => client.call::<Pause>(params).await.map(|result| result.failed),
            Action::Resume => client.call::<Resume>(params).await.map(|result| result.failed),
        };
        let text = match failed {
            Ok(failed) => match failed.first() {
                Some(failed) => format!("{name}: {}", failed.message),
                None => format!("{name}: {}", action.done()),
            },
            Err(error) => format!("{name}: {error}"),
        };
        _ = answer.send(text).await;
    });
}
