//! The control plane around a tree that a program has put together itself.
//!
//! The program keeps its tree; what is served here lists, explains, starts and stops what is in it, exactly as `xyd` does
//! for servers from files, and with the same safety of the socket.
//!
//! ```no_run
//! use xy_actors::child::task;
//! use xy_actors::spec::{ChildSpec, SupervisorSpec};
//! use xy_actors::supervisor::Supervisor;
//! use xy_daemon::ServeOptions;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = task(|context| async move {
//!     context.stopped().await;
//!     Ok(())
//! });
//! let tree = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("clock"), clock).start().await?;
//!
//! let server = xy_daemon::serve(tree.clone(), ServeOptions::at("/run/user/1000/shop/xy.sock")).await?;
//! println!("xyctl --socket {} list", server.socket().display());
//! tree.ended().await;
//! server.ended().await; // The last answers are written, and the socket is gone.
//! # Ok(())
//! # }
//! ```

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use xy_actors::log::LogHub;
use xy_actors::process::ProcessHost;
use xy_actors::supervisor::Supervisor;

use crate::control::{Control, Embedding, Permissions};
use crate::daemon::{Asked, DaemonSignal};
use crate::http::credentials::{Credentials, TokenOptions};
use crate::http::{self, HttpError, Limits};
use crate::permission::gate::Gate;
use crate::permission::rules::ASK_TIMEOUT;
use crate::permission::{AllowAll, PermissionPolicy};
use crate::registry::Registry;
use crate::rpc;
use crate::socket::{BindError, Listener};
use crate::upgrade::UpgradeError;

/// How a program lets its tree be controlled.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    socket: PathBuf,
    program: Option<String>,
    processes: Option<ProcessHost>,
    logs: Option<LogHub>,
    registry: Registry,
    permits_shutdown: bool,
    permissions: Permissions,
    http: Option<HttpPlace>,
}

/// Where HTTP is to be answered.
#[derive(Debug, Clone)]
struct HttpPlace {
    address: SocketAddr,
    token: TokenOptions,
    state_dir: PathBuf,
}

impl ServeOptions {
    /// Serves at this path. Its directory is created with mode 0700 if it is missing, and has to have that mode else.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            program: None,
            processes: None,
            logs: None,
            registry: Registry::new(),
            permits_shutdown: false,
            permissions: Permissions { policy: Arc::new(AllowAll), ask_timeout: ASK_TIMEOUT, records: None },
            http: None,
        }
    }

    /// Sets the name by which the program is known to clients; else that of its executable.
    #[must_use]
    pub fn program(mut self, name: impl Into<String>) -> Self {
        self.program = Some(name.into());
        self
    }

    /// Tells of the processes in the tree: what they use, and where their output is.
    #[must_use]
    pub fn processes(mut self, host: &ProcessHost, logs: &LogHub) -> Self {
        self.processes = Some(host.clone());
        self.logs = Some(logs.clone());
        self
    }

    /// Answers these methods and catalogs too.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Lets clients end the whole tree (`xyctl shutdown`); else only its parts can be stopped.
    #[must_use]
    pub fn permit_shutdown(mut self) -> Self {
        self.permits_shutdown = true;
        self
    }

    /// Lets this policy decide who may ask for what; else everything is allowed. Rules
    /// ([`Vec<Rule>`](crate::permission::rules::Rule)) are one. A question to an operator is the event
    /// `permission_asked`, is answered with `xyctl approve` or `xyctl deny`, and is a refusal when nobody does.
    #[must_use]
    pub fn permissions(mut self, policy: impl PermissionPolicy) -> Self {
        self.permissions.policy = Arc::new(policy);
        self
    }

    /// Sets how long an operator has to answer; else [`ASK_TIMEOUT`].
    #[must_use]
    pub fn permission_timeout(mut self, ask_timeout: Duration) -> Self {
        self.permissions.ask_timeout = ask_timeout;
        self
    }

    /// Keeps the grants that last (`grants.json`) and the audit log (`audit.log`) in this directory, which is created if
    /// it is missing. Without it there is no audit log, and every grant ends with the program.
    #[must_use]
    pub fn records(mut self, directory: impl Into<PathBuf>) -> Self {
        self.permissions.records = Some(directory.into());
        self
    }

    /// Answers over HTTP as well. The directory, which nobody else may be able to write to, gets the token's files; it is
    /// created if it is missing.
    #[must_use]
    pub fn http(mut self, address: SocketAddr, token: TokenOptions, state_dir: impl Into<PathBuf>) -> Self {
        self.http = Some(HttpPlace { address, token, state_dir: state_dir.into() });
        self
    }
}

/// Why a tree is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// HTTP was asked for and is not possible.
    #[error("http is not possible")]
    Http(#[from] HttpError),
    /// A directory for the token's files, grants or the audit log cannot be created.
    #[error("cannot create `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What serves a tree, until the tree ends or this value is dropped. The tree does not end with it.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    base_url: Option<String>,
    credentials: Option<Arc<Credentials>>,
    /// Dropped, it ends the tasks.
    close: watch::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
    gate: Gate,
    _asked: AbortOnDrop,
}

impl Server {
    /// Returns the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns where HTTP is answered, as a URL without a slash at its end.
    pub fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// Returns the life of the token of HTTP, to rotate it.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// Waits until the tree has ended and the last answers and lines of the audit log are written. The socket is gone then.
    ///
    /// # Cancel safety
    /// Dropping the future ends serving at once.
    pub async fn ended(mut self) {
        for task in &mut self.tasks {
            // A panic in it has been reported by the runtime.
            let _panicked = task.await;
        }
        self.gate.flush().await;
    }

    /// Ends serving and waits until the last answers are written; the tree goes on.
    ///
    /// # Cancel safety
    /// Dropping the future ends serving at once.
    pub async fn close(self) {
        let Self { close, tasks, gate, .. } = self;
        drop(close);
        for task in tasks {
            let _panicked = task.await;
        }
        gate.flush().await;
    }
}

/// Serves a tree at a socket, and over HTTP if asked to; returns when clients can connect.
///
/// # Errors
/// See [`ServeError`]. Nothing is served then, and the tree goes on.
///
/// # Cancel safety
/// Cancel safe: what was bound is released.
pub async fn serve(root: Supervisor, options: ServeOptions) -> Result<Server, ServeError> {
    let ServeOptions { socket, program, processes, logs, registry, permits_shutdown, permissions, http } =
        options;
    if let Some(records) = &permissions.records {
        private_directory(records)?;
    }
    let listener = Listener::bind(&socket)?;
    let http = match http {
        Some(HttpPlace { address, token, state_dir }) => {
            private_directory(&state_dir)?;
            Some(http::Listener::bind(address, &token, &state_dir, Limits::default()).await?)
        }
        None => None,
    };
    let program = program.unwrap_or_else(executable);
    let (asks, asked) = mpsc::channel(4);
    let embedding = Embedding { program, registry, permits_shutdown, permissions };
    let logs = logs.unwrap_or_else(|| LogHub::new(None));
    let control = Arc::new(Control::around(root.clone(), processes, logs, asks, embedding));

    if let Some(http) = &http {
        control.set_http(&http.plane());
    }
    let gate = control.gate_of().clone();
    let (close, closing) = watch::channel(());
    let closed = || {
        let (mut closing, root) = (closing.clone(), root.clone());
        async move {
            tokio::select! {
                // It never changes; it ends when the sender is dropped.
                _ = closing.changed() => {}
                _ = root.ended() => {}
            }
        }
    };
    let base_url = http.as_ref().map(http::Listener::base_url);
    let credentials = http.as_ref().map(http::Listener::credentials);
    let mut tasks = vec![tokio::spawn(rpc::serve(listener, Arc::clone(&control), closed()))];
    tasks.extend(http.map(|http| tokio::spawn(http::serve(http, control, closed()))));
    let _asked = AbortOnDrop(tokio::spawn(obey(root, asked)).abort_handle());
    Ok(Server { socket, base_url, credentials, close, tasks, gate, _asked })
}

/// Does what clients ask of the program itself.
async fn obey(root: Supervisor, mut asked: mpsc::Receiver<Asked>) {
    while let Some(asked) = asked.recv().await {
        match asked {
            Asked::Signal(DaemonSignal::Shutdown | DaemonSignal::ShutdownNow) => {
                root.shutdown().await;
            }
            // `Control` sends no other: what is about files it refuses, and tokens are rotated where they are.
            Asked::Signal(_) => {}
            // Whoever asked may be gone.
            Asked::Upgrade(reply) => _ = reply.send(Err(UpgradeError::NoProgram)),
        }
    }
}

/// Creates a directory that only we can enter, if it is missing; whether one that is there will do is checked later.
fn private_directory(path: &Path) -> Result<(), ServeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| ServeError::Directory { path: path.to_owned(), source })
}

fn executable() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
