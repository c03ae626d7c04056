//! Why a server is as it is: its past, the lines before each end, and what probably helps.

use xy_actors::event::Next;
use xy_actors::exit::Cause;
use xy_actors::log::{LogItem, LogQuery};
use xy_actors::policy::State;
use xy_actors::process::known_login_path;
use xy_actors::process::settings::SearchPath;
use xy_actors::supervisor::OperationError;

use super::{Control, Trouble, chain, gone, killed};
use crate::config::ServerConfig;
use crate::history::{Entry, ExitEntry};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::method::{Asked, PastExit, ServerSummary, WhyResult};

/// How many ends are told, and how many requests.
const EXITS: usize = 5;
const ASKED: usize = 5;

/// How many lines before each end.
const LINES: usize = 5;

/// The output of a process is read a moment after it has ended.
const LATE_MS: i64 = 1_000;

impl Control {
    pub(super) async fn explain(&self, name: String) -> Result<WhyResult, RpcError> {
        let (owner, id) = match self.owner_of(&name).await {
            Ok(found) => found,
            Err(Trouble { kind: ErrorKind::ServerNotFound, .. }) => return Err(self.not_found(&name)),
            Err(Trouble { kind, message }) => return Err(RpcError::new(kind, message)),
        };
        let child = match owner.which_child(id).await {
            Ok(child) => child,
            Err(OperationError::NotFound(_)) => return Err(self.not_found(&name)),
            Err(error) => return Err(gone(error)),
        };
        let server = self.summary(&child);
        let mut ends: Vec<ExitEntry> = Vec::new();
        let mut asked = Vec::new();
        for entry in self.0.history.of(&name).into_iter().rev() {
            match entry {
                Entry::Exit(exit) if ends.len() < EXITS => ends.push(exit),
                Entry::Asked { at_unix_ms, operation, reason } if asked.len() < ASKED => {
                    asked.push(Asked { at_unix_ms, operation, reason });
                }
                _ => {}
            }
        }
        let config_error = self.config_error_of(&name);
        let has_file = self.0.source.is_some();
        let mut advice = advice(&server, &ends, config_error.is_some(), has_file);
        advice.splice(0..0, self.in_force().config.servers.get(&name).and_then(without_login_path));
        let mut exits = Vec::with_capacity(ends.len());
        // A line belongs to the latest incarnation that had begun before it.
        let mut until = self.0.history.started(&name);
        for end in ends {
            let lines = self.lines_before(&name, &end, until).await;
            until = end.started_at_unix_ms;
            let next = end.next.map(|next| words(next, &end.event));
            exits.push(PastExit {
                at_unix_ms: end.at_unix_ms,
                started_at_unix_ms: end.started_at_unix_ms,
                incarnation: end.incarnation,
                event: end.event,
                exit: end.report.exit,
                cause: end.report.to_string(),
                next,
                killed: killed(&name, &end.report.killed).processes,
                lines,
            });
        }
        Ok(WhyResult { server, exits, asked, advice, config_error })
    }

    /// Returns the last lines that an incarnation wrote.
    async fn lines_before(&self, name: &str, end: &ExitEntry, next_start: Option<u64>) -> Vec<String> {
        let Some(log) = self.log_of(name) else { return Vec::new() };
        let time = |unix_ms: u64| i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let until = time(end.at_unix_ms).saturating_add(LATE_MS);
        let query = LogQuery {
            tail: Some(LINES),
            output_only: true,
            since_unix_ms: end.started_at_unix_ms.map(time),
            until_unix_ms: Some(next_start.map_or(until, |start| until.min(time(start)))),
            ..LogQuery::default()
        };
        let mut reader = log.read(query).await;
        let mut lines = Vec::new();
        while let Some(items) = reader.next().await {
            for item in items {
                if let LogItem::Line(line) = item {
                    lines.push(String::from_utf8_lossy(&line.bytes).into_owned());
                }
            }
        }
        lines
    }
}

/// Says that a server has another `PATH` than it was meant to have, why, and what to do.
fn without_login_path(server: &ServerConfig) -> Option<String> {
    let process = &server.process;
    if process.settings.path != SearchPath::Login || process.env.contains_key("PATH") {
        return None;
    }
    let error = known_login_path(process.settings.user.as_deref())?.err()?;
    let shell = error.shell().display();
    Some(format!(
        "its PATH is that of xyd, because {}: see what `{shell} -l -c 'printenv PATH'` does, or write the directories \
         into its file as `path`; the next start asks again",
        chain(&*error)
    ))
}

/// Says what followed an end that was told by this event.
fn words(next: Next, event: &str) -> String {
    match next {
        Next::Rest if event == "child_start_failed" => "not restarted".to_owned(),
        Next::Rest => "stays down".to_owned(),
        Next::Removed => "removed".to_owned(),
        Next::Restart { delay, nth, of } => {
            let (which, how) = match (nth, of) {
                (0, _) => ("restart".to_owned(), ", not counted"),
                (nth, Some(of)) => (format!("restart {nth} of {of}"), ""),
                (nth, None) => (format!("restart {nth}"), ""),
            };
            if delay.is_zero() {
                format!("{which} at once{how}")
            } else {
                format!("{which} after {:.1} s{how}", delay.as_secs_f64())
            }
        }
        Next::Held => "held back while paused".to_owned(),
        Next::Failed => "gave up: too many restarts".to_owned(),
        Next::Escalates => "its group gave up".to_owned(),
        Next::SupervisorEnds => "its group ended".to_owned(),
    }
}

/// Returns what probably helps, the most likely first. Without a file there is nothing to check, to show or to edit.
fn advice(server: &ServerSummary, ends: &[ExitEntry], is_rejected: bool, has_file: bool) -> Vec<String> {
    let name = &server.name;
    let mut advice = Vec::new();
    if is_rejected {
        advice.push(
            "correct its file, then `xyctl reload`; until then the last valid one is in force".to_owned(),
        );
    }
    let down = !matches!(server.state, State::Running | State::Stopping);
    let latest = ends.first().filter(|end| down && end.event != "child_stopped");
    if let Some(end) = latest {
        match &end.report.cause {
            Cause::StartFailed { message } if message.contains("port") => advice.push(match server.port {
                Some(port) => format!("free port {port}, or give `{name}` another `port`"),
                None => "free the port, or choose another one".to_owned(),
            }),
            Cause::StartFailed { .. } if has_file => {
                advice.push(format!("`xyctl check` finds missing programs; `xyctl show {name}` says what is run"));
            }
            Cause::StartTimeout { .. } => advice.push(format!(
                "see with `xyctl logs {name}` what it waits for; a slow start needs a longer `start_timeout`"
            )),
            Cause::ExitCode { code: 126 } => advice.push("126 of a shell means that a program is not executable".to_owned()),
            Cause::ExitCode { code: 127 } if has_file => advice.push(format!(
                "127 of a shell means that a program was not found: compare PATH in `xyctl show {name}`"
            )),
            Cause::ExitCode { code: 127 } => {
                advice.push("127 of a shell means that a program was not found".to_owned());
            }
            Cause::ExitCode { code: 0 } if !has_file => {
                advice.push("it ended by itself and successfully; a permanent child is started again in that case".to_owned());
            }
            Cause::ExitCode { code: 0 } => advice.push(
                "it ended by itself and successfully; `restart: (policy: Always)` starts it again in that case".to_owned(),
            ),
            Cause::ExitCode { .. } => {
                advice.push(format!("the lines above say most; `xyctl logs --previous {name}` has more of them"));
            }
            Cause::OutOfMemory => advice.push("it needs more memory than it may use: raise the limit, or lower its use".to_owned()),
            Cause::Signal { signal: 9, .. } => {
                advice.push("SIGKILL comes from a person, or from the kernel when memory is short: `dmesg` says so".to_owned());
            }
            Cause::Signal { signal: 4 | 6 | 7 | 8 | 11, .. } => {
                advice.push("the program crashed, which is a mistake in it or in a library it uses".to_owned());
            }
            Cause::Probe { .. } if has_file => {
                advice.push(format!("it stopped answering its check; `xyctl show {name}` says which, under `liveness`"));
            }
            _ => {}
        }
    }
    match server.state {
        State::Failed => {
            advice.push(match ends.first().and_then(|end| end.next) {
                // No limit was reached.
                Some(Next::Rest) => format!("then `xyctl start {name}`"),
                _ => format!("then `xyctl start {name}`, which also clears the count of restarts"),
            });
        }
        State::Stopped => advice.push(format!("`xyctl start {name}` starts it")),
        _ if server.paused => advice.push(format!("`xyctl resume {name}` lets it be restarted again")),
        _ => {}
    }
    advice
}

#[cfg(test)]
mod tests {
    use xy_actors::exit::{Exit, ExitReport};
    use xy_actors::policy::Wanted;

    use super::*;

    fn server(state: State) -> ServerSummary {
        ServerSummary {
            name: "web".to_owned(),
            group: false,
            state,
            ready: state == State::Running,
            unproven: false,
            wanted: Wanted::Up,
            paused: false,
            pid: None,
            port: Some(80),
            uptime_secs: None,
            restart_count: 0,
            last_exit: None,
            next: None,
            tags: Vec::new(),
        }
    }

    fn end(cause: Cause) -> ExitEntry {
        ExitEntry {
            at_unix_ms: 1,
            started_at_unix_ms: None,
            incarnation: 1,
            event: "child_exited".to_owned(),
            report: ExitReport::new(Exit::Abnormal, cause),
            next: None,
        }
    }

    #[test]
    fn each_cause_has_its_advice_and_a_running_server_needs_none() {
        for (cause, expected) in [
            (Cause::ExitCode { code: 127 }, "PATH"),
            (Cause::ExitCode { code: 0 }, "policy: Always"),
            (Cause::ExitCode { code: 3 }, "--previous web"),
            (Cause::OutOfMemory, "memory"),
            (Cause::Signal { signal: 11, core_dumped: false }, "crashed"),
            (Cause::StartFailed { message: "port 80 is held by 7 (x)".to_owned() }, "another `port`"),
            (Cause::StartFailed { message: "`x` was not found".to_owned() }, "xyctl check"),
        ] {
            let advice = advice(&server(State::Failed), &[end(cause.clone())], false, true);
            assert!(advice[0].contains(expected), "{cause}: {advice:?}");
            assert!(advice[1].contains("xyctl start web"), "{advice:?}");
        }
        assert_eq!(
            advice(&server(State::Running), &[end(Cause::OutOfMemory)], false, true),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_followed_an_end_is_told_by_the_rule_that_was_at_work() {
        let restart = |ms, nth, of| Next::Restart { delay: std::time::Duration::from_millis(ms), nth, of };
        for (next, event, expected) in [
            (restart(0, 0, None), "child_exited", "restart at once, not counted"),
            (restart(1500, 0, Some(5)), "child_start_failed", "restart after 1.5 s, not counted"),
            (restart(1500, 2, Some(5)), "child_exited", "restart 2 of 5 after 1.5 s"),
            (Next::Rest, "child_exited", "stays down"),
            (Next::Rest, "child_start_failed", "not restarted"),
            (Next::Failed, "child_start_failed", "gave up: too many restarts"),
        ] {
            assert_eq!(words(next, event), expected, "{next:?} {event}");
        }
    }

    #[test]
    fn where_there_is_no_file_nobody_is_sent_to_one() {
        for code in [0, 1, 126, 127] {
            for line in advice(&server(State::Failed), &[end(Cause::ExitCode { code })], false, false) {
                for of_files in ["xyctl show", "xyctl check", "policy:", "its file"] {
                    assert!(!line.contains(of_files), "{line}");
                }
            }
        }
    }
}
