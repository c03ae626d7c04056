//! `xyctl list`: servers in one table, once or live.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, ListResult, ServerSummary, ServerUsage, State, Usage, UsageParams,
};

use crate::args::ListArgs;
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::text::bytes;
use crate::output::{Output, Style, reader_gone, time};
use crate::session::{Answer, Selection, Session, call, nearest};

/// How often the table is shown again on a terminal; events bring it forward.
const PERIOD: Duration = Duration::from_secs(1);

/// Events that come within this time are shown together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Runs the command.
pub(super) async fn run(args: &ListArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    if args.watch {
        return watch(args, &client, session.output).await;
    }
    let view = View::read(args, &client, None).await?;
    view.write(session.output)?;
    view.missing(&client, session.output).await
}

/// What is shown at one moment.
struct View {
    list: Answer<ListResult>,
    usage: BTreeMap<String, Load>,
    selection: Selection,
}

/// What a server uses.
#[derive(Debug, Clone)]
pub(super) struct Load {
    usage: ServerUsage,
    /// The share of one processor in percent.
    pub(super) cpu: f64,
}

/// Puts what was read together with what was read before.
pub(super) fn loads(
    servers: Vec<ServerUsage>,
    before: Option<&BTreeMap<String, Load>>,
) -> BTreeMap<String, Load> {
    let load = |usage: ServerUsage| {
        let earlier = before.and_then(|before| before.get(&usage.name)).map(|load| &load.usage);
        // Of another start, or read by somebody else at the same moment, what was before says nothing.
        let (cpu, time) =
            match earlier.filter(|earlier| earlier.pid == usage.pid && earlier.age_ms < usage.age_ms) {
                Some(earlier) => (usage.cpu_ms.saturating_sub(earlier.cpu_ms), usage.age_ms - earlier.age_ms),
                None => (usage.cpu_ms, usage.age_ms),
            };
        #[expect(clippy::cast_precision_loss, reason = "these are milliseconds of a share that is rounded")]
        let cpu = if time == 0 { 0.0 } else { cpu as f64 * 100.0 / time as f64 };
        (usage.name.clone(), Load { usage, cpu })
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
        bytes(self.usage.memory_bytes)
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
        Ok(Self { list: list?, usage: loads(usage, before), selection: Selection::of(&args.names) })
    }

    fn write(&self, output: &mut Output) -> Result<(), CommandError> {
        if output.is_json() {
            return self.write_json(output);
        }
        let servers: Vec<ServerSummary> =
            self.list.result.servers.iter().filter(|server| self.selection.means(server)).cloned().collect();
        if self.list.result.servers.is_empty() {
            output.note("no servers are configured; `xyctl add NAME -- COMMAND` adds one");
        } else if !servers.is_empty() {
            table("", &servers, Some(&self.usage), output)?;
        }
        Ok(())
    }

    /// Writes the daemon's result, each server with its `usage`.
    fn write_json(&self, output: &mut Output) -> Result<(), CommandError> {
        if self.usage.is_empty() && self.selection.is_all() {
            return output.verbatim(&self.list.text);
        }
        let mut result: Value = serde_json::from_str(self.list.text.get())
            .map_err(|source| CommandError::Result { method: "list", source })?;
        let Some(servers) = result.get_mut("servers").and_then(Value::as_array_mut) else {
            return output.verbatim(&self.list.text);
        };
        // The typed result has the same servers in the same order.
        let mut meant = self.list.result.servers.iter().map(|server| self.selection.means(server));
        servers.retain(|_| meant.next().unwrap_or(true));
        for server in servers {
            let load = server.get("name").and_then(Value::as_str).and_then(|name| self.usage.get(name));
            if let (Some(load), Some(members)) = (load, server.as_object_mut()) {
                let mut usage = serde_json::to_value(&load.usage).unwrap_or_default();
                if let Some(usage) = usage.as_object_mut() {
                    // Both are said of the server already.
                    usage.remove("name");
                    usage.remove("pid");
                }
                members.insert("usage".to_owned(), usage);
            }
        }
        output.json(&result)
    }

    /// Reports names and patterns that mean no server.
    async fn missing(&self, client: &Client, output: &mut Output) -> Result<u8, CommandError> {
        let missing = self.selection.missing(&self.list.result.servers);
        for name in &missing {
            let error =
                CommandError::ServerNotFound { name: name.clone(), nearest: nearest(client, name).await };
            output.error(&error);
        }
        Ok(if missing.is_empty() { exit_code::SUCCESS } else { exit_code::FAILED })
    }
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
        let plain = |text: Option<String>| (text.unwrap_or_default(), Style::Plain);
        let load =
            usage.and_then(|usage| usage.get(&server.name)).filter(|load| Some(load.usage.pid) == server.pid);
        let cells = [
            plain(Some(name)),
            (server.state.to_string(), style(server.state, server.ready)),
            plain(Some(if server.ready { "yes" } else { "no" }.to_owned())),
            plain(server.pid.map(|pid| pid.to_string())),
            // One word, so that each line has as many words as columns up to the last.
            plain(server.uptime_secs.map(|seconds| time::span(seconds).replace(' ', ""))),
            plain(Some(server.restart_count.to_string())),
            plain(load.map(Load::cpu_text)),
            plain(load.map(Load::memory_text)),
            plain(server.port.map(|port| port.to_string())),
            plain(next(server)),
        ];
        table.row(cells.into_iter().enumerate().filter(|(index, _)| is_shown(*index)).map(|(_, cell)| cell));
    }
    table.write(indent, output)
}

/// Returns the names as a tree where people look at it; else in full, so that each can be used as it stands there.
pub(super) fn names(servers: &[ServerSummary], is_tree: bool) -> Vec<String> {
    let is_there = |path: &str| servers.iter().any(|server| server.name == path);
    let name = |(index, server): (usize, &ServerSummary)| {
        let Some((parent, own)) = server.name.rsplit_once('/').filter(|_| is_tree) else {
            return server.name.clone();
        };
        // A child whose group is not in the table keeps its whole name.
        if !is_there(parent) {
            return server.name.clone();
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
        tree
    };
    servers.iter().enumerate().map(name).collect()
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
