//! What the verbs that act on servers have in common: one line per server, and an exit code.

use serde_json::value::RawValue;
use xy_daemon::client::Client;
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{Failed, Killed};

use crate::error::{CommandError, exit_code, not_found, not_found_hint};
use crate::output::Style;
use crate::output::text::{neutral, processes};
use crate::session::{Session, nearest};

/// What an operation came to, in words.
#[derive(Debug, Default)]
pub(super) struct Report<'a> {
    rows: Vec<(&'a str, String, Style)>,
    failed: &'a [Failed],
}

impl<'a> Report<'a> {
    /// Creates a report of those for which it failed.
    pub(super) fn new(failed: &'a [Failed]) -> Self {
        Self { rows: Vec::new(), failed }
    }

    /// Adds servers for which it did something.
    pub(super) fn done(mut self, names: &'a [String], what: &str) -> Self {
        self.rows.extend(names.iter().map(|name| (name.as_str(), what.to_owned(), Style::Good)));
        self
    }

    /// Adds servers for which nothing was to be done.
    pub(super) fn nothing(mut self, names: &'a [String], why: &str) -> Self {
        self.rows.extend(names.iter().map(|name| (name.as_str(), why.to_owned(), Style::Dim)));
        self
    }

    /// Says of servers what had to be killed.
    pub(super) fn killed(mut self, killed: &'a [Killed]) -> Self {
        for killed in killed {
            let text = format!("had to be killed: {}", processes(&killed.processes));
            self.rows.push((&killed.name, text, Style::Busy));
        }
        self
    }

    /// Writes the report, or for programs the result's text, and returns the exit code.
    pub(super) async fn write(
        self,
        text: &RawValue,
        client: &Client,
        session: &mut Session<'_>,
    ) -> Result<u8, CommandError> {
        if session.output.is_json() {
            session.output.verbatim(text)?;
        } else {
            if self.rows.is_empty() && self.failed.is_empty() {
                session.output.note("no servers are configured");
            }
            for (name, what, style) in &self.rows {
                let line = format!("{}: {}", neutral(name), session.output.paint(*style, what));
                session.output.line(&line)?;
            }
            for failed in self.failed {
                report_failed(failed, client, session).await;
            }
        }
        Ok(if self.failed.is_empty() { exit_code::SUCCESS } else { exit_code::FAILED })
    }
}

async fn report_failed(failed: &Failed, client: &Client, session: &mut Session<'_>) {
    let Failed { name, kind, message } = failed;
    if *kind == ErrorKind::ServerNotFound {
        let hint = not_found_hint(name, nearest(client, name).await.as_deref());
        session.output.problem(&not_found(name), Some(&hint));
        return;
    }
    let hint = match kind {
        ErrorKind::NotReady | ErrorKind::SpawnFailed => Some(format!("`xyctl why {name}` says more")),
        ErrorKind::Timeout => Some(format!("it goes on; `xyctl status {name}` says how far it is")),
        ErrorKind::NotRunning => Some(format!("start it with `xyctl start {name}`")),
        _ => None,
    };
    session.output.problem(&format!("{name}: {message}"), hint.as_deref());
}
