//! Says so when the daemon does not answer, instead of waiting without a word.
//!
//! Whether a command may take long says nothing about the daemon: it is asked for its version meanwhile, over a connection
//! of its own.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::method::{Version, VersionParams};

use super::found::{PATIENCE, Place, Silence};
use crate::args::{Cli, Command};
use crate::error::LifecycleError;
use crate::session::Session;

/// A command that has ended by then had its answers.
const FIRST: Duration = Duration::from_secs(2);

/// The pause between two looks at a daemon that answered, for a command that waits for it.
const PERIOD: Duration = Duration::from_secs(10);

/// What a command may expect of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// It has nothing to do with the daemon, or looks at it by itself.
    Nothing,
    /// An answer at first, and then what comes.
    Begin,
    /// Answers, within this time if one is given.
    Answers(Option<Duration>),
}

impl Expected {
    fn of(command: &Command) -> Self {
        match command {
            Command::Daemon(_)
            | Command::Up(_)
            | Command::Import(_)
            | Command::Check(_)
            | Command::Completions(_)
            | Command::Man(_)
            // It has the screen for itself.
            | Command::Top => Self::Nothing,
            Command::List(args) if args.watch => Self::Begin,
            Command::Logs(args) if args.follow => Self::Begin,
            Command::Events(args) if args.follow => Self::Begin,
            Command::Run(args) if args.attach => Self::Begin,
            Command::Mcp(_) => Self::Begin,
            Command::Start(args) | Command::Stop(args) | Command::Restart(args) => Self::Answers(args.timeout),
            Command::Wait(args) => Self::Answers(args.timeout),
            _ => Self::Answers(None),
        }
    }
}

/// How the daemon is, as far as a command cares.
enum Look {
    Answers,
    Silent,
    /// There is nobody to wait for; the command finds that out by itself.
    Absent,
}

/// Says on standard error if the daemon does not answer. Resolves only when the time that the command has is over and it
/// still does not.
///
/// # Cancel safety
/// Cancel safe: nothing changes.
pub(crate) async fn watch(cli: &Cli, session: Session<'_>) -> LifecycleError {
    let (follows, limit) = match Expected::of(&cli.command) {
        Expected::Nothing => return std::future::pending().await,
        Expected::Begin => (true, None),
        Expected::Answers(limit) => (false, limit),
    };
    // A path that cannot be found is the command's own error.
    let Ok(place) = Place::of(&session) else { return std::future::pending().await };
    let begun = Instant::now();
    // Longer than the daemon itself waits, which says more.
    let deadline = limit.and_then(|limit| begun.checked_add(limit + FIRST));
    let mut next = begun + FIRST;
    let mut is_told = false;
    loop {
        sleep_until(next).await;
        match look(&place).await {
            Look::Answers if follows => return std::future::pending().await,
            Look::Answers => is_told = false,
            Look::Absent => {}
            Look::Silent => {
                let silence = Silence::of(&session, &place);
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return silence.into();
                }
                if !std::mem::replace(&mut is_told, true) {
                    session.output.progress("");
                    session.output.note(&format!("{silence}; {}", silence.hint()));
                }
            }
        }
        let now = Instant::now();
        next = now + PERIOD;
        if let Some(deadline) = deadline.filter(|deadline| *deadline > now) {
            next = next.min(deadline);
        }
    }
}

async fn look(place: &Place) -> Look {
    let asking = async {
        let client = Client::connect(&place.socket).await?;
        client.call::<Version>(VersionParams::default()).await
    };
    match timeout(PATIENCE, asking).await {
        Err(_) => Look::Silent,
        Ok(Err(ClientError::Unreachable { .. } | ClientError::Path(_) | ClientError::Closed)) => Look::Absent,
        // Whatever it says, it answers.
        Ok(_) => Look::Answers,
    }
}
