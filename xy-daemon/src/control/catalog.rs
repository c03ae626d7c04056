//! What the MCP servers of the tree are asked, through the client of their readiness: on loopback, and only the processes
//! of the server itself.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use xy_actors::process::readiness::{McpQuestion, ProbeFailure, Prober};
use xy_actors::process::settings::masked;
use xy_actors::process::{ProcessSpec, Readiness};

use super::{Control, chain};
use crate::protocol::error::{ErrorKind, RpcError};

/// The most questions under way, each of which may hold an answer in memory.
pub(super) const QUESTIONS: usize = 16;

/// How long an answer may take, unless the caller says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a call may take, whatever the caller says.
const LONGEST: Duration = Duration::from_secs(600);

/// The host of an endpoint that only the caller names.
const HOST: &str = "localhost";

impl Control {
    /// Asks a server and reads its answer as `T`.
    pub(super) async fn ask_mcp<T: DeserializeOwned>(
        &self,
        method: &'static str,
        name: &str,
        endpoint: Option<String>,
        question: McpQuestion,
        timeout_secs: Option<u64>,
    ) -> Result<T, RpcError> {
        let answer = self.ask_server(method, name, endpoint, question, timeout_secs).await?;
        serde_json::from_value(Value::Object(answer)).map_err(|error| {
            let message = format!("`{name}` answered what is not understood: {error}");
            RpcError::new(ErrorKind::MethodFailed, message)
        })
    }

    /// Asks a server and returns its answer as it is.
    pub(super) async fn ask_server(
        &self,
        method: &'static str,
        name: &str,
        endpoint: Option<String>,
        question: McpQuestion,
        timeout_secs: Option<u64>,
    ) -> Result<Map<String, Value>, RpcError> {
        let (_, host) = self.files(method)?;
        let server = self.in_force().config.servers.get(name).cloned();
        let Some(server) = server else { return Err(self.no_spec(name)) };
        let process = &server.process;
        let readiness = speaks(process, endpoint).ok_or_else(|| {
            let message = format!(
                "`{name}` does not say where it speaks MCP: say `ready: Mcp` in its file, or the `endpoint`"
            );
            RpcError::new(ErrorKind::Unsupported, message)
        })?;
        if process.port.is_none() {
            let message = format!("`{name}` has no `port`, on which it could be asked");
            return Err(RpcError::new(ErrorKind::Unsupported, message));
        }
        let Ok(_slot) = self.0.questions.try_acquire() else {
            let message = format!("{QUESTIONS} questions to servers are under way, which is the most");
            return Err(RpcError::new(ErrorKind::LimitExceeded, message));
        };
        let path = name.to_owned();
        let pids_host = host.clone();
        // It reads the process table.
        let pids = tokio::task::spawn_blocking(move || pids_host.pids_of(&path)).await.unwrap_or_default();
        if pids.is_empty() {
            return Err(RpcError::new(ErrorKind::NotRunning, format!("`{name}` does not run")));
        }
        let patience = timeout_secs.map_or(PATIENCE, Duration::from_secs).min(LONGEST);
        let mut prober = Prober::new(readiness, process.port, process.port_owner).attempt_timeout(patience);
        prober.ask_mcp(&pids, &question).await.map_err(|failure| {
            let message = format!("`{name}`: {}", chain(&failure));
            RpcError::new(kind_of(&failure), masked(&message, &host.secrets()))
        })
    }
}

/// Returns where a server speaks MCP, by what the caller says or else by what it is ready or alive by.
fn speaks(process: &ProcessSpec, endpoint: Option<String>) -> Option<Readiness> {
    if let Some(path) = endpoint {
        return Some(Readiness::Mcp { path, host: HOST.to_owned() });
    }
    let alive = process.liveness.as_ref().map(|liveness| liveness.probe.clone());
    [Some(process.readiness()), alive].into_iter().flatten().find(|one| matches!(one, Readiness::Mcp { .. }))
}

fn kind_of(failure: &ProbeFailure) -> ErrorKind {
    match failure {
        ProbeFailure::ForeignHolder { .. } => ErrorKind::PortConflict,
        ProbeFailure::NotListening { .. } | ProbeFailure::Connect { .. } => ErrorKind::NotReady,
        ProbeFailure::Timeout { .. } => ErrorKind::Timeout,
        ProbeFailure::TooLong { .. } => ErrorKind::LimitExceeded,
        ProbeFailure::InvalidTarget { .. } => ErrorKind::InvalidParams,
        _ => ErrorKind::MethodFailed,
    }
}
