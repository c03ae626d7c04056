//! `xyctl list`: servers in one table, once or live.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::signal::unix::{SignalKind, signal};
use xy_daemon::client::{Answer as Part, Batch, Client, ClientError};
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, ListResult, ServerSummary, ServerUsage, State, Usage,
    UsageParams, UsageResult,
};

use crate::args::ListArgs;
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::text::bytes;
use crate::output::{Output, Style, reader_gone, time};
use crate::session::{Answer, Selection, Session, call, nearest_of};

/// How often the table is shown again on a terminal; events bring it forward.
const PERIOD: Duration = Duration::from_secs(1);

/// Events that come within this time are shown together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Runs the command without a runtime, if it is done with one answer; `None` where that is not so, or went wrong.
pub(super) fn run_at_once(args: &ListArgs, session: &mut Session<'_>) -> Option<Result<u8, CommandError>> {
    if args.watch {
        return None;
    }
    // What goes wrong is found again by a client that can say more of it, and start a daemon.
    let socket = session.socket().ok()?;
    let view = View::ask(args, &socket, session.output.is_json()).ok()?;
    Some(view.write(session.output).map(|()| view.missing(session.output)))
}

/// Runs the command.
pub(super) async fn run(args: &ListArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    if args.watch {
        return watch(args, &client, session.output).await;
    }
    let view = View::read(args, &client, None).await?;
    view.write(session.output)?;
    Ok(view.missing(session.output))
}

/// A daemon that takes longer is asked by a client that can say so.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is shown at one moment.
struct View {
    servers: Vec<ServerSummary>,
    /// What the daemon said, where it is shown to programs.
    text: Option<Box<RawValue>>,
    usage: BTreeMap<String, Load>,
    selection: Selection,
}

/// What a server uses.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Load {
    /// Of the main process, which tells one start from the next.
    #[serde(skip)]
    pid: u32,
    cpu_ms: u64,
    memory_bytes: u64,
    processes: u32,
    age_ms: u64,
    /// The share of one processor in percent.
    #[serde(skip)]
    pub(super) cpu: f64,
}

/// Puts what was read together with what was read before.
pub(super) fn loads(
    servers: Vec<ServerUsage>,
    before: Option<&BTreeMap<String, Load>>,
) -> BTreeMap<String, Load> {
    let load = |usage: ServerUsage| {
        let ServerUsage { name, pid, cpu_ms, memory_bytes, processes, age_ms } = usage;
        let earlier = before.and_then(|before| before.get(&name));
        // Of another start, or read by somebody else at the same moment, what was before says nothing.
        let (used, time) = match earlier.filter(|earlier| earlier.pid == pid && earlier.age_ms < age_ms) {
            Some(earlier) => (cpu_ms.saturating_sub(earlier.cpu_ms), age_ms - earlier.age_ms),
            None => (cpu_ms, age_ms),
        };
        #[expect(clippy::cast_precision_loss, reason = "these are milliseconds of a share that is rounded")]
        let cpu = if time == 0 { 0.0 } else { used as f64 * 100.0 / time as f64 };
        (name, Load { pid, cpu_ms, memory_bytes, processes, age_ms, cpu })
    };
    servers.into_iter().map(load).collect()
}

impl Load {
    /// Writes the share of one processor.
    pub(super) fn cpu_text(&self) -> String {
        format!("{:.1}%", self.cpu)
    }

    /// Writes the resident memory.
    pub(super) fn memory_text(&self) -> String {
        bytes(self.memory_bytes)
    }
}

impl View {
    async fn read(
        args: &ListArgs,
        client: &Client,
        before: Option<&BTreeMap<String, Load>>,
    ) -> Result<Self, CommandError> {
        let usage = async {
            match args.no_usage {
                true => Vec::new(),
                // A daemon that cannot say it still has a list.
                false => {
                    client.call::<Usage>(UsageParams {}).await.map(|usage| usage.servers).unwrap_or_default()
                }
            }
        };
        let (list, usage) = tokio::join!(call::<List>(client, ListParams {}), usage);
        let Answer { text, result } = list?;
        Ok(Self {
            servers: result.servers,
            text: Some(text),
            usage: loads(usage, before),
            selection: Selection::of(&args.names),
        })
    }

    /// Reads the same once, with one message there and one back.
    fn ask(args: &ListArgs, socket: &Path, is_json: bool) -> Result<Self, ClientError> {
        let batch = Batch::default().patience(PATIENCE).with::<List>(&ListParams {});
        let batch = if args.no_usage { batch } else { batch.with::<Usage>(&UsageParams {}) };
        let answers = batch.ask(socket)?;
        let no_usage = UsageResult::default();
        let (servers, text, usage) = match (is_json, args.no_usage) {
            (false, false) => {
                let (list, usage): (Part<ListResult>, Part<UsageResult>) = answers.read()?;
                (list.outcome()?.servers, None, usage.outcome().unwrap_or_default())
            }
            (false, true) => {
                let (list,): (Part<ListResult>,) = answers.read()?;
                (list.outcome()?.servers, None, no_usage)
            }
            (true, false) => {
                let (list, usage): (Part<&RawValue>, Part<UsageResult>) = answers.read()?;
                let (servers, text) = with_text(list)?;
                (servers, Some(text), usage.outcome().unwrap_or_default())
            }
            (true, true) => {
                let (list,): (Part<&RawValue>,) = answers.read()?;
                let (servers, text) = with_text(list)?;
                (servers, Some(text), no_usage)
            }
        };
        let selection = Selection::of(&args.names);
        Ok(Self { servers, text, usage: loads(usage.servers, None), selection })
    }

    fn write(&self, output: &mut Output) -> Result<(), CommandError> {
        if let Some(text) = self.text.as_deref().filter(|_| output.is_json()) {
            return self.write_json(text, output);
        }
        let meant: Cow<'_, [ServerSummary]> = match self.selection.is_all() {
            true => (&self.servers).into(),
            false => self.servers.iter().filter(|server| self.selection.means(server)).cloned().collect(),
        };
        if self.servers.is_empty() {
            output.note("no servers are configured; `xyctl add NAME -- COMMAND` adds one");
        } else if !meant.is_empty() {
            table("", &meant, Some(&self.usage), output)?;
        }
        Ok(())
    }

    /// Writes the daemon's result, each server with its `usage`.
    fn write_json(&self, text: &RawValue, output: &mut Output) -> Result<(), CommandError> {
        if self.usage.is_empty() && self.selection.is_all() {
            return output.verbatim(text);
        }
        let mut result: Value = serde_json::from_str(text.get())
            .map_err(|source| CommandError::Result { method: "list", source })?;
        let Some(servers) = result.get_mut("servers").and_then(Value::as_array_mut) else {
            return output.verbatim(text);
        };
        // The typed result has the same servers in the same order.
        let mut meant = self.servers.iter().map(|server| self.selection.means(server));
        servers.retain(|_| meant.next().unwrap_or(true));
        for server in servers {
            let load = server.get("name").and_then(Value::as_str).and_then(|name| self.usage.get(name));
            if let (Some(load), Some(members)) = (load, server.as_object_mut()) {
                members.insert("usage".to_owned(), serde_json::to_value(load).unwrap_or_default());
            }
        }
        output.json(&result)
    }

    /// Reports names and patterns that mean no server, and returns the exit code.
    fn missing(&self, output: &mut Output) -> u8 {
        let missing = self.selection.missing(&self.servers);
        for name in &missing {
            let nearest = nearest_of(name, self.servers.iter().map(|server| server.name.clone()));
            output.error(&CommandError::ServerNotFound { name: name.clone(), nearest });
        }
        if missing.is_empty() { exit_code::SUCCESS } else { exit_code::FAILED }
    }
}

/// Reads a list, and keeps its text.
fn with_text(list: Part<&RawValue>) -> Result<(Vec<ServerSummary>, Box<RawValue>), ClientError> {
    let text = list.outcome()?;
    let list: ListResult =
        serde_json::from_str(text.get()).map_err(|error| ClientError::Protocol(error.into()))?;
    Ok((list.servers, text.to_owned()))
}

/// Shows the table whenever something changes.
async fn watch(args: &ListArgs, client: &Client, output: &mut Output) -> Result<u8, CommandError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Signals)?;
    let mut events = client.subscribe::<Events>(EventsParams::default()).await?;
    let mut gone = std::pin::pin!(reader_gone());
    let is_live = output.is_terminal() && !output.is_json();
    let mut usage = None;
    loop {
        let view = View::read(args, client, usage.as_ref()).await?;
        if is_live {
            output.begin_screen()?;
        }
        view.write(output)?;
        if is_live {
            output.end_screen()?;
        } else if !output.is_json() {
            output.line("")?;
        }
        output.flush()?;
        if output.is_closed() {
            return Ok(exit_code::SUCCESS);
        }
        usage = Some(view.usage);
        let tick = async {
            match is_live {
                true => tokio::time::sleep(PERIOD).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(exit_code::SUCCESS),
            () = &mut gone => return Ok(exit_code::SUCCESS),
            event = events.next() => match event? {
                Some(_) => while let Ok(Ok(Some(_))) = tokio::time::timeout(TOGETHER, events.next()).await {},
                None => {
                    output.note("the events have ended: the daemon is stopping");
                    return Ok(exit_code::SUCCESS);
                }
            },
            () = tick => {}
        }
    }
}

/// Writes servers as a table, each line after `indent`; CPU and memory only if they were asked for.
pub(super) fn table(
    indent: &str,
    servers: &[ServerSummary],
    usage: Option<&BTreeMap<String, Load>>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let columns = [
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("READY", Align::Left),
        ("PID", Align::Right),
        ("UP", Align::Right),
        ("RESTARTS", Align::Right),
        ("CPU", Align::Right),
        ("MEM", Align::Right),
        ("PORT", Align::Right),
        ("NEXT", Align::Left),
    ];
    let is_shown = |index: usize| usage.is_some() || !(6..8).contains(&index);
    let columns: Vec<_> = columns
        .into_iter()
        .enumerate()
        .filter(|(index, _)| is_shown(*index))
        .map(|(_, column)| column)
        .collect();
    let mut table = Table::new(&columns);
    let names = names(servers, output.is_terminal());
    for (server, name) in servers.iter().zip(names) {
        table.cell(name, Style::Plain);
        table.cell(server.state.as_str(), style(server.state, server.ready));
        let mut cell = |text: &dyn Display| table.cell(text, Style::Plain);
        cell(&if server.ready { "yes" } else { "no" });
        cell(&Optional(server.pid));
        // One word, so that each line has as many words as columns up to the last.
        cell(&Optional(server.uptime_secs.map(|seconds| time::span(seconds).replace(' ', ""))));
        cell(&server.restart_count);
        if let Some(usage) = usage {
            let load = usage.get(&server.name).filter(|load| Some(load.pid) == server.pid);
            cell(&Optional(load.map(Load::cpu_text)));
            cell(&Optional(load.map(Load::memory_text)));
        }
        cell(&Optional(server.port));
        cell(&Optional(next(server)));
    }
    table.write(indent, output)
}

/// A value, or nothing.
struct Optional<T>(Option<T>);

impl<T: Display> Display for Optional<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

/// Returns the names as a tree where people look at it; else in full, so that each can be used as it stands there.
pub(super) fn names<'a>(servers: &'a [ServerSummary], is_tree: bool) -> Vec<Cow<'a, str>> {
    let is_there = |path: &str| servers.iter().any(|server| server.name == path);
    let name = |(index, server): (usize, &ServerSummary)| {
        let (parent, own) = server.name.rsplit_once('/').filter(|_| is_tree)?;
        // A child whose group is not in the table keeps its whole name.
        if !is_there(parent) {
            return None;
        }
        // Whether the group at `path` has another child further down, so that its line goes on.
        let goes_on = |path: &str| {
            let mut later = servers[index + 1..].iter();
            let below = |name: &str| {
                name.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned)
            };
            later.any(|later| below(&later.name).is_some_and(|rest| !rest.contains('/')))
        };
        let ends = parent.match_indices('/').map(|(end, _)| end);
        let mut tree: String = ends.map(|end| if goes_on(&parent[..end]) { "│  " } else { "   " }).collect();
        tree.push_str(if goes_on(parent) { "├─ " } else { "└─ " });
        tree.push_str(own);
        Some(tree)
    };
    let shown = |(index, server): (usize, &'a ServerSummary)| {
        name((index, server)).map_or(Cow::Borrowed(server.name.as_str()), Cow::Owned)
    };
    servers.iter().enumerate().map(shown).collect()
}

/// Returns how a state stands out; one that runs without being ready does not look well.
pub(super) fn style(state: State, ready: bool) -> Style {
    match state {
        State::Running if ready => Style::Good,
        State::Running | State::Starting | State::Restarting | State::Stopping => Style::Busy,
        State::Failed => Style::Bad,
        State::Stopped => Style::Dim,
    }
}

/// Says what happens next to a server, or why nothing does.
pub(super) fn next(server: &ServerSummary) -> Option<String> {
    match (&server.next, server.paused) {
        (Some(next), true) => Some(format!("paused; {next}")),
        (None, true) => Some("paused".to_owned()),
        (Some(next), false) => Some(next.clone()),
        // Why it does not run says more than nothing.
        (None, false) if server.state == State::Failed => {
            server.last_exit.as_ref().map(|exit| format!("none; {}", exit.cause))
        }
        (None, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use xy_daemon::protocol::method::Wanted;

    use super::*;

    fn server(name: &str) -> ServerSummary {
        ServerSummary {
            name: name.to_owned(),
            group: false,
            state: State::Running,
            ready: true,
            unproven: false,
            wanted: Wanted::Up,
            paused: false,
            pid: Some(1),
            port: None,
            uptime_secs: None,
            restart_count: 0,
            last_exit: None,
            next: None,
            tags: Vec::new(),
        }
    }

    #[test]
    fn children_stand_below_their_group_on_a_terminal_and_in_full_in_a_pipe() {
        let servers: Vec<_> =
            ["a", "g", "g/x", "g/x/1", "g/x/2", "g/y", "g-2", "h/z"].into_iter().map(server).collect();
        assert_eq!(names(&servers, true), ["a", "g", "├─ x", "│  ├─ 1", "│  └─ 2", "└─ y", "g-2", "h/z"]);
        assert_eq!(names(&servers, false), ["a", "g", "g/x", "g/x/1", "g/x/2", "g/y", "g-2", "h/z"]);
    }

    #[test]
    fn the_share_of_a_processor_is_that_since_the_table_before_of_the_same_process() {
        let usage = |pid, cpu_ms, age_ms| ServerUsage {
            name: "web".to_owned(),
            pid,
            cpu_ms,
            memory_bytes: 1,
            processes: 1,
            age_ms,
        };
        let first = loads(vec![usage(7, 500, 10_000)], None);
        assert_eq!(first["web"].cpu_text(), "5.0%");
        let second = loads(vec![usage(7, 1_500, 11_000)], Some(&first));
        assert_eq!(second["web"].cpu_text(), "100.0%");
        let other = loads(vec![usage(8, 10, 100)], Some(&second));
        assert_eq!(other["web"].cpu_text(), "10.0%");
        assert_eq!(loads(vec![usage(9, 0, 0)], None)["web"].cpu_text(), "0.0%");
    }
}
