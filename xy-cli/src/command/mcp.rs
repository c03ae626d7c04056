//! `xyctl mcp`: the daemon's servers as tools of an assistant, as an MCP server over standard input and output.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use xy_daemon::client::{Client, ClientError, Subscribe};
use xy_daemon::mcp_server::{Backend, McpServer};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{
    Events, Identify, IdentifyParams, List, Logs, Notification, Reload, Restart, Start, Status, Stop, Why,
};

use crate::args::McpArgs;
use crate::error::{CommandError, exit_code};
use crate::session::Session;

/// The longest message that is read.
const LONGEST: u64 = 1 << 20;

/// How long what is under way has after the end of the input.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the command.
pub(super) async fn run(args: &McpArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let daemon = Daemon { socket: session.socket()?, connection: Mutex::default() };
    let server = Arc::new(McpServer::new(daemon, args.read_only));
    let mut messages = input();
    let mut client: Option<Arc<str>> = None;
    let mut calls = JoinSet::new();
    while let Some(message) = messages.recv().await {
        let (server, known) = (Arc::clone(&server), client.clone());
        if is_introduction(&message) {
            // Before anything that comes after it, which depends on it.
            let answered = server.answer(known.as_deref(), &message).await;
            client = answered.introduced.map(Into::into).or(client);
            say(answered.text)?;
        } else {
            // A call may take long, and does not hold up others.
            calls.spawn(async move { say(server.answer(known.as_deref(), &message).await.text) });
        }
        while let Some(said) = calls.try_join_next() {
            // A panic has been reported by the runtime.
            said.unwrap_or(Ok(()))?;
        }
    }
    let drained = async {
        while let Some(said) = calls.join_next().await {
            said.unwrap_or(Ok(()))?;
        }
        Ok(())
    };
    tokio::time::timeout(DRAIN, drained).await.unwrap_or(Ok::<(), CommandError>(()))?;
    Ok(exit_code::SUCCESS)
}

/// Reads lines on a thread of its own: reading standard input cannot be interrupted.
fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, messages) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => {
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            }
        }
    });
    messages
}

fn is_introduction(message: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        method: String,
    }
    serde_json::from_slice::<Named>(message).is_ok_and(|named| named.method == "initialize")
}

fn say(text: Option<String>) -> Result<(), CommandError> {
    let Some(mut text) = text else { return Ok(()) };
    text.push('\n');
    // Nothing else is ever written there, and a message is whole.
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(CommandError::Output)
}

/// The daemon behind the socket. It is connected to when it is first needed, and again when it went away.
#[derive(Debug)]
struct Daemon {
    socket: PathBuf,
    connection: Mutex<Option<Arc<Client>>>,
}

impl Daemon {
    async fn connect(&self, client: &str) -> Result<Arc<Client>, RpcError> {
        let mut connection = self.connection.lock().await;
        if let Some(connected) = &*connection {
            return Ok(Arc::clone(connected));
        }
        let connected = Client::connect(&self.socket).await.map_err(refusal)?;
        // Permissions and audit go by this name.
        let identity = IdentifyParams { client: client.to_owned(), agent: true };
        connected.call::<Identify>(identity).await.map_err(refusal)?;
        Ok(Arc::clone(connection.insert(Arc::new(connected))))
    }

    async fn asked<T>(&self, outcome: Result<T, ClientError>) -> Result<T, RpcError> {
        if matches!(outcome, Err(ClientError::Closed)) {
            *self.connection.lock().await = None;
        }
        outcome.map_err(refusal)
    }

    async fn ask<M: Method>(&self, client: &str, params: Map<String, Value>) -> Result<Value, RpcError> {
        let params = read::<M::Params>(params)?;
        let connected = self.connect(client).await?;
        let result = self.asked(connected.call::<M>(params).await).await?;
        serde_json::to_value(result)
            .map_err(|error| RpcError::new(ErrorKind::InternalError, error.to_string()))
    }

    async fn follow<M: Subscribe>(
        &self,
        client: &str,
        params: Map<String, Value>,
    ) -> Result<Vec<Notification>, RpcError> {
        let params = read::<M::Params>(params)?;
        let connected = self.connect(client).await?;
        let mut subscription = self.asked(connected.subscribe::<M>(params).await).await?;
        let mut all = Vec::new();
        while let Some(notification) = self.asked(subscription.next().await).await? {
            all.push(notification);
        }
        Ok(all)
    }
}

impl Backend for Daemon {
    async fn call(
        &self,
        client: &str,
        method: &'static str,
        params: Map<String, Value>,
    ) -> Result<Value, RpcError> {
        match method {
            List::NAME => self.ask::<List>(client, params).await,
            Status::NAME => self.ask::<Status>(client, params).await,
            Why::NAME => self.ask::<Why>(client, params).await,
            Start::NAME => self.ask::<Start>(client, params).await,
            Stop::NAME => self.ask::<Stop>(client, params).await,
            Restart::NAME => self.ask::<Restart>(client, params).await,
            Reload::NAME => self.ask::<Reload>(client, params).await,
            other => Err(no_tool(other)),
        }
    }

    async fn collect(
        &self,
        client: &str,
        method: &'static str,
        params: Map<String, Value>,
    ) -> Result<Vec<Notification>, RpcError> {
        match method {
            Logs::NAME => self.follow::<Logs>(client, params).await,
            Events::NAME => self.follow::<Events>(client, params).await,
            other => Err(no_tool(other)),
        }
    }
}

fn no_tool(method: &str) -> RpcError {
    RpcError::new(ErrorKind::MethodNotFound, format!("`{method}` is no tool"))
}

fn read<P: DeserializeOwned>(params: Map<String, Value>) -> Result<P, RpcError> {
    serde_json::from_value(Value::Object(params))
        .map_err(|error| RpcError::new(ErrorKind::InvalidParams, error.to_string()))
}

fn refusal(error: ClientError) -> RpcError {
    match error {
        ClientError::Rpc(error) => error,
        other => {
            let hint = other.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            RpcError::new(ErrorKind::InternalError, format!("{other}{hint}"))
        }
    }
}
