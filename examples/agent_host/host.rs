//! The host: its tree, what it answers, and who may ask for it.

mod agent;
mod desk;
mod memory;
mod run;
mod wire;

use std::net::SocketAddr;
use std::path::Path;

use ractor::RpcReplyPort;
use xy_actors::child::actor;
use xy_actors::spec::{ChildSpec, RestartType, Strategy, SupervisorSpec};
use xy_actors::supervisor::{Address, Supervisor, supervisor};
use xy_daemon::http::credentials::TokenOptions;
use xy_daemon::permission::{Decision, PermissionPolicy, PermissionRequest};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::registry::{RegisterError, Registry};
use xy_daemon::{ServeOptions, Server};

use self::agent::{Agent, Perform};
use self::desk::{Desk, DeskMessage};
use self::memory::{MemoryActor, MemoryMessage};
use self::run::{Assignment, SOON};
pub(crate) use self::wire::*;

/// The most memories that one search answers.
const MOST_FOUND: usize = 100;

/// Assistants do not end the host's agents, and are asked about before they forget something.
#[derive(Debug)]
struct Keeper;

impl PermissionPolicy for Keeper {
    fn decide(&self, request: &PermissionRequest<'_>) -> Decision {
        let is_assistant = request.client.starts_with("mcp:");
        match request.action {
            Forget::NAME if is_assistant => Decision::Ask,
            "stop" | "shutdown" | "approve" | "deny" | "forget" if is_assistant => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

/// Starts the tree and serves it in this directory, and over HTTP if an address is given.
pub(crate) async fn open(
    directory: &Path,
    http: Option<SocketAddr>,
) -> Result<(Supervisor, Server), Box<dyn std::error::Error>> {
    let mut agents = supervisor(SupervisorSpec::default());
    for role in agent::roles() {
        agents = agents.child(ChildSpec::worker(role.name), actor(|| (Agent, ())));
    }
    // Without their desk runs are nobody's: what comes after a child in this list restarts with it.
    let tree = Supervisor::builder(SupervisorSpec::new(Strategy::RestForOne))
        .child(ChildSpec::worker("memory"), actor(|| (MemoryActor, ())))
        .child(ChildSpec::worker("desk"), actor(|| (Desk, ())))
        .child(ChildSpec::supervisor("agents"), agents)
        .child(ChildSpec::supervisor("runs"), supervisor(SupervisorSpec::default()))
        .start()
        .await?;
    let mut options = ServeOptions::at(directory.join("agents.sock"))
        .program("agent host")
        .registry(Host::of(&tree).registry()?)
        .permissions(Keeper)
        .records(directory.join("records"))
        .permit_shutdown();
    if let Some(address) = http {
        options = options.http(address, TokenOptions::default(), directory.join("http"));
    }
    let server = xy_daemon::serve(tree.clone(), options).await?;
    Ok((tree, server))
}

/// Everybody whom the methods need.
#[derive(Clone)]
struct Host {
    tree: Supervisor,
    memory: Address<MemoryMessage>,
    desk: Address<DeskMessage>,
}

/// What was not possible, in words.
fn failed(error: impl ToString) -> RpcError {
    RpcError::new(ErrorKind::MethodFailed, error.to_string())
}

impl Host {
    fn of(tree: &Supervisor) -> Self {
        Self { tree: tree.clone(), memory: tree.addr("memory"), desk: tree.addr("desk") }
    }

    fn registry(self) -> Result<Registry, RegisterError> {
        let host = || self.clone();
        Registry::new()
            .catalog(Roles::NAME, "What kinds of agents there are.", || async { Ok(agent::roles()) })?
            .catalog(Skills::NAME, "What agents can do.", || async { Ok(agent::skills()) })?
            .catalog(Tools::NAME, "What skills use.", || async { Ok(agent::tools()) })?
            .catalog(Sessions::NAME, "The sessions that are open.", {
                let host = host();
                move || host.clone().desk(DeskMessage::Sessions)
            })?
            .catalog(Memories::NAME, "Everything that is remembered.", {
                let host = host();
                move || host.clone().memory(MemoryMessage::List)
            })?
            .method::<OpenSession, _, _>("Opens a session with an agent of a role.", {
                let host = host();
                move |params| host.clone().open_session(params)
            })?
            .method::<CloseSession, _, _>("Closes a session, and cancels its runs.", {
                let host = host();
                move |params| host.clone().close_session(params)
            })?
            .method::<StartRun, _, _>("Lets the agent of a session begin with a task.", {
                let host = host();
                move |params| host.clone().start_run(params)
            })?
            .query::<ListRuns, _, _>("Lists the runs, and says how many are active.", {
                let host = host();
                move |params| host.clone().list_runs(params)
            })?
            .method::<Reply, _, _>("Gives a run what it has asked for.", {
                let host = host();
                move |params| host.clone().reply(params)
            })?
            .method::<CancelRun, _, _>("Ends a run that is active.", {
                let host = host();
                move |params| host.clone().cancel_run(params)
            })?
            .method::<Remember, _, _>("Remembers a text.", {
                let host = host();
                move |RememberParams { text }| {
                    let host = host.clone();
                    async move {
                        let memory = host.memory(|reply| MemoryMessage::Remember(text, reply)).await?;
                        Ok(MemoryId { memory })
                    }
                }
            })?
            .query::<SearchMemories, _, _>("Finds memories that have words of a question.", {
                let host = host();
                move |params| host.clone().search_memories(params)
            })?
            .method::<Forget, _, _>("Forgets a memory.", {
                let host = host();
                move |MemoryId { memory }| {
                    let host = host.clone();
                    async move {
                        match host.memory(|reply| MemoryMessage::Forget(memory, reply)).await? {
                            true => Ok(Done {}),
                            false => Err(failed(format!("there is no memory {memory}"))),
                        }
                    }
                }
            })
    }

    async fn desk<T: Send + 'static>(
        self,
        question: impl FnOnce(RpcReplyPort<T>) -> DeskMessage,
    ) -> Result<T, RpcError> {
        self.desk.call(SOON, question).await.map_err(failed)
    }

    async fn memory<T: Send + 'static>(
        self,
        question: impl FnOnce(RpcReplyPort<T>) -> MemoryMessage,
    ) -> Result<T, RpcError> {
        self.memory.call(SOON, question).await.map_err(failed)
    }

    async fn open_session(
        self,
        OpenSessionParams { role }: OpenSessionParams,
    ) -> Result<SessionId, RpcError> {
        if !agent::roles().iter().any(|one| one.name == role) {
            return Err(failed(format!("there is no role `{role}`")));
        }
        let opened = self.desk(|reply| DeskMessage::Open { role, reply }).await?;
        Ok(SessionId { session: opened.map_err(failed)? })
    }

    async fn close_session(self, SessionId { session }: SessionId) -> Result<ClosedSession, RpcError> {
        let runs = self.clone().desk(|reply| DeskMessage::Close(session, reply)).await?.map_err(failed)?;
        let mut canceled = Vec::new();
        for run in runs {
            if self.end_run(&run).await? {
                canceled.push(run);
            }
        }
        Ok(ClosedSession { canceled })
    }

    async fn start_run(self, StartRunParams { session, prompt }: StartRunParams) -> Result<RunId, RpcError> {
        let entered = self.clone().desk(|reply| DeskMessage::Enter { session, reply }).await?;
        let (id, role) = entered.map_err(failed)?;
        let skills = agent::roles().into_iter().find(|one| one.name == role).map(|one| one.skills);
        let assignment = Assignment {
            id: id.clone(),
            prompt,
            skills: skills.unwrap_or_default(),
            agent: self.tree.addr::<Perform>(format!("agents/{role}").as_str()),
            memory: self.memory.clone(),
            desk: self.desk.clone(),
        };
        let runs = self.tree.child_supervisor("runs").await.map_err(failed)?;
        let spec = ChildSpec { restart: RestartType::Temporary, ..ChildSpec::worker(id.as_str()) };
        runs.start_child(spec, run::run(assignment)).await.map_err(failed)?;
        Ok(RunId { run: id })
    }

    async fn list_runs(self, ListRunsParams { session }: ListRunsParams) -> Result<RunList, RpcError> {
        let runs = self.tree.child_supervisor("runs").await.map_err(failed)?;
        let alive = runs.which_children().await.map_err(failed)?;
        let mut runs = self.desk(DeskMessage::Runs).await?;
        runs.retain(|run| session.as_ref().is_none_or(|session| *session == run.session));
        for run in &mut runs {
            run.is_active = run.answer.is_none() && alive.iter().any(|child| child.id.as_str() == run.id);
        }
        Ok(RunList { active: runs.iter().filter(|run| run.is_active).count(), runs })
    }

    async fn reply(self, ReplyParams { run, text }: ReplyParams) -> Result<Done, RpcError> {
        let problem = failed(format!("the run `{run}` does not wait for a reply"));
        match self.desk(|reply| DeskMessage::Reply { run, text, reply }).await? {
            true => Ok(Done {}),
            false => Err(problem),
        }
    }

    async fn cancel_run(self, RunId { run }: RunId) -> Result<Done, RpcError> {
        match self.end_run(&run).await? {
            true => Ok(Done {}),
            false => Err(failed(format!("the run `{run}` is not active"))),
        }
    }

    /// Ends a run; returns whether it was alive.
    async fn end_run(&self, run: &str) -> Result<bool, RpcError> {
        let runs = self.tree.child_supervisor("runs").await.map_err(failed)?;
        if runs.which_child(run).await.is_err() {
            return Ok(false);
        }
        runs.terminate_child(run).await.map_err(failed)?;
        Ok(true)
    }

    async fn search_memories(self, SearchParams { query, limit }: SearchParams) -> Result<Found, RpcError> {
        if !(1..=MOST_FOUND).contains(&limit) {
            return Err(RpcError::invalid_parameter("limit", format!("must be from 1 to {MOST_FOUND}")));
        }
        let found = self.memory(|reply| MemoryMessage::Search { query, limit, reply }).await?;
        Ok(Found { found })
    }
}
