//! From configuration to a tree, and from a path in it to whoever owns what is there.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinSet;
use xy_actors::child::Child;
use xy_actors::event::ChildReport;
use xy_actors::event::stream::{EventCursor, EventItem, EventKind};
use xy_actors::log::LogHub;
use xy_actors::policy::{State, Wanted};
use xy_actors::process::{ProcessHost, process};
use xy_actors::spec::{ChildSpec, ChildType};
use xy_actors::supervisor::{
    ChildInfo, OperationError, StartOutcome, StopOutcome, Supervisor, SupervisorBuilder, SupervisorChild,
    supervisor,
};

use super::{Control, Trouble, killed};
use crate::config::{Config, GroupConfig, ServerConfig};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::method::{Killed, ServerSummary};

/// Adds the children of the root that a configuration describes.
pub(crate) fn add_children(
    builder: SupervisorBuilder,
    config: &Config,
    host: &ProcessHost,
    logs: &LogHub,
) -> SupervisorBuilder {
    let at_root = |path: &String| !path.contains('/');
    let servers = config.servers.values().filter(|server| at_root(&server.name));
    let builder = servers
        .fold(builder, |builder, server| builder.child(server.child.clone(), child_of(server, host, logs)));
    let groups = config.groups.values().filter(|group| at_root(&group.name));
    groups.fold(builder, |builder, group| {
        builder.child(group.child.clone(), group_of(group, config, host, logs))
    })
}

/// Makes a child of a server.
pub(crate) fn child_of(server: &ServerConfig, host: &ProcessHost, logs: &LogHub) -> impl Child + use<> {
    process(server.process.clone(), host, logs).log(server.log)
}

/// Makes a child of a group, with everything in it.
pub(crate) fn group_of(
    group: &GroupConfig,
    config: &Config,
    host: &ProcessHost,
    logs: &LogHub,
) -> SupervisorChild {
    group.members.iter().fold(supervisor(group.supervisor.clone()), |made, id| {
        let path = format!("{}/{id}", group.name);
        match (config.servers.get(&path), config.groups.get(&path)) {
            (Some(server), _) => made.child(server.child.clone(), child_of(server, host, logs)),
            (None, Some(inner)) => made.child(inner.child.clone(), group_of(inner, config, host, logs)),
            // A member is one of both, by its reading.
            (None, None) => made,
        }
    })
}

/// Splits a path into that of the group and the id in it; the root's is empty.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Control {
    /// Returns the supervisor that owns the server or group at a path, and its id there.
    pub(super) async fn owner_of(&self, path: &str) -> Result<(Supervisor, String), Trouble> {
        let (group, id) = split(path);
        match self.0.root.supervisor_at(group).await {
            Ok(owner) => Ok((owner, id.to_owned())),
            Err(OperationError::NotFound(_)) if self.in_force().has(path) => {
                let message = format!("its group `{group}` is not running; start that");
                Err(Trouble::new(ErrorKind::NotRunning, message))
            }
            Err(OperationError::NotFound(_)) => {
                Err(Trouble::new(ErrorKind::ServerNotFound, format!("server not found: `{path}`")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the rows of everything in a group, each group's before those in it.
    ///
    /// What is in a group that does not run is told from its configuration.
    pub(super) async fn rows_in(&self, owner: &Supervisor, child: &ChildInfo) -> Vec<ServerSummary> {
        if child.child_type != ChildType::Supervisor {
            return Vec::new();
        }
        let children = match owner.child_supervisor(child.key).await {
            Ok(group) => group.which_children().await.map(|children| (group, children)),
            Err(error) => Err(error),
        };
        let Ok((group, children)) = children else { return self.idle_rows(child.path.as_str()) };
        let mut rows = Vec::with_capacity(children.len());
        for child in &children {
            rows.push(self.summary(child));
            rows.extend(Box::pin(self.rows_in(&group, child)).await);
        }
        rows
    }

    fn idle_rows(&self, path: &str) -> Vec<ServerSummary> {
        let in_force = self.in_force();
        let mut rows = Vec::new();
        idle_rows(&in_force.config, path, &mut rows);
        rows
    }

    /// Says why something has no output.
    pub(super) async fn no_log(&self, name: &str) -> RpcError {
        if self.0.source.is_none() && self.exists(name).await {
            let message = format!("`{name}` has no output of its own: it is no process, or has not run yet");
            return RpcError::new(ErrorKind::Unsupported, message);
        }
        let in_force = self.in_force();
        if !in_force.config.groups.contains_key(name) {
            drop(in_force);
            return self.not_found(name);
        }
        let prefix = format!("{name}/");
        let servers = in_force.config.servers.keys().filter(|path| path.starts_with(&prefix));
        let servers: Vec<&str> = servers.map(String::as_str).collect();
        RpcError::new(
            ErrorKind::Unsupported,
            format!("`{name}` is a group and has no output; its servers are {}", servers.join(", ")),
        )
    }
}

fn idle_rows(config: &Config, path: &str, rows: &mut Vec<ServerSummary>) {
    let Some(group) = config.groups.get(path) else { return };
    for id in &group.members {
        let path = format!("{path}/{id}");
        let (spec, port, tags): (&ChildSpec, _, _) =
            match (config.servers.get(&path), config.groups.get(&path)) {
                (Some(server), _) => (&server.child, server.process.port, server.tags.clone()),
                (None, Some(group)) => (&group.child, None, Vec::new()),
                (None, None) => continue,
            };
        rows.push(ServerSummary {
            name: path.clone(),
            group: spec.child_type == ChildType::Supervisor,
            state: State::Stopped,
            ready: false,
            unproven: false,
            wanted: if spec.autostart { Wanted::Up } else { Wanted::Down },
            paused: false,
            pid: None,
            port,
            uptime_secs: None,
            restart_count: 0,
            last_exit: None,
            next: None,
            tags,
        });
        idle_rows(config, &path, rows);
    }
}

/// Starts a server, or a group; of a group that runs already, what somebody stopped in it or what gave up. Returns whether
/// there was anything to start.
pub(super) fn start(owner: Supervisor, id: String, reason: Option<String>) -> StartOfOne {
    Box::pin(async move {
        if owner.start(id.as_str(), reason.clone()).await? != StartOutcome::AlreadyRunning {
            return Ok(true);
        }
        let mut any = false;
        // All of them are asked before the first is waited for: one may need another.
        let mut tasks = JoinSet::new();
        for (group, child) in down_in(&owner, &id).await {
            tasks.spawn(start(group, child, reason.clone()));
        }
        while let Some(started) = tasks.join_next().await {
            let started = started
                .map_err(|error| Trouble::new(ErrorKind::InternalError, format!("start failed: {error}")))?;
            any |= started?;
        }
        Ok(any)
    })
}

/// A start under way.
type StartOfOne = Pin<Box<dyn Future<Output = Result<bool, Trouble>> + Send>>;

/// Returns the children of a group that are not as its file wants them, and its groups, in which others may be.
///
/// A job that is done is not done again.
async fn down_in(owner: &Supervisor, id: &str) -> Vec<(Supervisor, String)> {
    let mut down = Vec::new();
    for (group, child) in children_of(owner, id).await {
        let (Ok(info), Ok(spec)) =
            (group.which_child(child.as_str()).await, group.child_spec(child.as_str()).await)
        else {
            continue;
        };
        let stopped = info.wanted == Wanted::Down && spec.autostart;
        let has_more = info.child_type == ChildType::Supervisor && info.wanted == Wanted::Up;
        if stopped || has_more || info.state == State::Failed {
            down.push((group, child));
        }
    }
    down
}

/// Stops a server, or a group with everything in it; names what had to be killed inside a group.
pub(super) async fn stop(
    owner: Supervisor,
    id: String,
    reason: Option<String>,
) -> Result<(StopOutcome, Vec<Killed>), Trouble> {
    let child = owner.which_child(id.as_str()).await?;
    if child.child_type != ChildType::Supervisor {
        return Ok((owner.stop(id, reason).await?, Vec::new()));
    }
    let mut events = owner.events(EventCursor::Now);
    let outcome = owner.stop(id, reason).await?;
    let mut inside = Vec::new();
    let prefix = format!("{}/", child.path);
    // Everything in a group is gone, and reported, before the group is.
    while let Ok(item) = events.try_next() {
        let EventItem::Event(event) = item else { continue };
        if let EventKind::Child { report: ChildReport::Stopped { .. }, exit: Some(exit), .. } = &event.kind
            && event.path.as_str().starts_with(&prefix)
            && !exit.killed.is_empty()
        {
            inside.push(killed(event.path.as_str(), &exit.killed));
        }
    }
    Ok((outcome, inside))
}

/// Pauses a server, or a group and everything in it.
pub(super) async fn pause(owner: Supervisor, id: String, reason: Option<String>) -> Result<(), Trouble> {
    owner.pause(id.as_str(), reason.clone()).await?;
    for (group, child) in children_of(&owner, &id).await {
        Box::pin(pause(group, child, reason.clone())).await?;
    }
    Ok(())
}

/// Lifts the pause of a server, or of a group and everything in it.
pub(super) async fn resume(owner: Supervisor, id: String, reason: Option<String>) -> Result<(), Trouble> {
    owner.resume(id.as_str(), reason.clone()).await?;
    for (group, child) in children_of(&owner, &id).await {
        Box::pin(resume(group, child, reason.clone())).await?;
    }
    Ok(())
}

/// Returns the children of a group that runs, and who owns them.
async fn children_of(owner: &Supervisor, id: &str) -> Vec<(Supervisor, String)> {
    let Ok(group) = owner.child_supervisor(id).await else { return Vec::new() };
    let children = group.which_children().await.unwrap_or_default();
    children.into_iter().map(|child| (group.clone(), child.id.to_string())).collect()
}
