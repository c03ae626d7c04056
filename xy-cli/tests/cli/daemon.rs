//! A daemon that answers by script, on a real socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::RpcError;
use xy_daemon::protocol::method::*;
use xy_daemon::rpc::{self, Service, Subscription};
use xy_daemon::socket::Listener;

use crate::xyctl::{self, Run};

/// A running daemon; dropping it ends it.
pub(crate) struct Daemon {
    mock: Arc<Mock>,
    directory: TempDir,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Mock {
    answers: Mutex<HashMap<&'static str, Result<Value, RpcError>>>,
    sources: Mutex<HashMap<&'static str, (Vec<Notification>, After)>>,
    calls: Mutex<Vec<(&'static str, Value)>>,
    shutdown: Notify,
}

/// What a source does when everything is said.
#[derive(Debug, Clone, Copy)]
pub(crate) enum After {
    /// It ends.
    End,
    /// It stays silent.
    Wait,
}

impl Daemon {
    /// Starts a daemon with two servers, `files` and `search`.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = socket(&directory);
        let mock = Arc::new(Mock::default());
        let service = Arc::clone(&mock);
        let (bound, is_bound) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = Listener::bind(&socket).expect("the socket is free");
                bound.send(()).expect("the test waits");
                rpc::serve(listener, Arc::clone(&service), service.shutdown.notified()).await;
            });
        });
        is_bound.recv().expect("the daemon binds");
        let daemon = Self { mock, directory, thread: Some(thread) };
        daemon.answer::<List>(json!({ "servers": [server("files"), server("search")] }));
        daemon.answer::<Usage>(json!({ "servers": [] }));
        daemon
    }

    /// Sets the answer of a method.
    pub(crate) fn answer<M: Method>(&self, result: Value) {
        self.mock.answers.lock().unwrap().insert(M::NAME, Ok(result));
    }

    /// Sets the refusal of a method.
    pub(crate) fn refuse<M: Method>(&self, error: RpcError) {
        self.mock.answers.lock().unwrap().insert(M::NAME, Err(error));
    }

    /// Sets what a subscription says.
    pub(crate) fn say<M: Method>(&self, notifications: Vec<Notification>, after: After) {
        self.mock.sources.lock().unwrap().insert(M::NAME, (notifications, after));
    }

    /// Returns the parameters of the last call of a method.
    pub(crate) fn asked<M: Method>(&self) -> Option<Value> {
        let calls = self.mock.calls.lock().unwrap();
        calls.iter().rev().find(|(method, _)| *method == M::NAME).map(|(_, params)| params.clone())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// Runs `xyctl` to its end.
    pub(crate) fn xyctl(&self, arguments: &[&str]) -> Run {
        xyctl::run(&self.socket(), arguments)
    }

    /// Ends the daemon and closes its connections.
    pub(crate) fn stop(&mut self) {
        self.mock.shutdown.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the daemon does not panic");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.mock.shutdown.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it has failed the test already.
            _ = thread.join();
        }
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("run/xyd.sock")
}

/// Returns a path at which there is no daemon.
pub(crate) fn nowhere() -> &'static Path {
    Path::new("/nonexistent/xyd.sock")
}

/// A server that runs.
pub(crate) fn server(name: &str) -> Value {
    json!({
        "name": name, "state": "running", "ready": true, "wanted": "up", "paused": false, "pid": 4242,
        "port": 8421, "uptime_secs": 192, "restart_count": 0, "last_exit": null, "next": null,
    })
}

/// A server that runs, with some members changed.
pub(crate) fn server_with(name: &str, members: Value) -> Value {
    let mut server = server(name);
    let Value::Object(members) = members else { panic!("members are an object") };
    server.as_object_mut().expect("a server is an object").extend(members);
    server
}

impl Mock {
    async fn reply<M: Method>(&self, params: M::Params) -> Result<M::Result, RpcError> {
        self.record::<M>(&params);
        let answer = self.answers.lock().unwrap().get(M::NAME).cloned();
        let answer = answer.unwrap_or_else(|| panic!("no answer is set for `{}`", M::NAME))?;
        Ok(serde_json::from_value(answer).expect("the scripted answer has the method's shape"))
    }

    async fn open<M: Method>(&self, params: M::Params) -> Result<Box<dyn Subscription>, RpcError> {
        self.record::<M>(&params);
        if let Some(Err(error)) = self.answers.lock().unwrap().get(M::NAME) {
            return Err(error.clone());
        }
        let source = self.sources.lock().unwrap().remove(M::NAME);
        let (notifications, after) = source.unwrap_or((Vec::new(), After::Wait));
        Ok(Box::new(Script { notifications: Some(notifications), after }))
    }

    fn count<M: Method>(&self) -> u64 {
        self.calls.lock().unwrap().iter().filter(|(method, _)| *method == M::NAME).count() as u64
    }

    fn record<M: Method>(&self, params: &M::Params) {
        let params = serde_json::to_value(params).expect("parameters have a JSON form");
        self.calls.lock().unwrap().push((M::NAME, params));
    }
}

struct Script {
    notifications: Option<Vec<Notification>>,
    after: After,
}

impl Subscription for Script {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<Notification>>> + Send + '_>> {
        Box::pin(async {
            match (self.notifications.take(), self.after) {
                (Some(notifications), _) => Some(notifications),
                (None, After::End) => None,
                (None, After::Wait) => std::future::pending().await,
            }
        })
    }
}

impl Service for Mock {
    async fn list(&self, params: ListParams) -> Result<ListResult, RpcError> {
        self.reply::<List>(params).await
    }
    async fn status(&self, params: StatusParams) -> Result<StatusResult, RpcError> {
        self.reply::<Status>(params).await
    }
    async fn start(&self, params: OperationParams) -> Result<StartResult, RpcError> {
        self.reply::<Start>(params).await
    }
    async fn stop(&self, params: OperationParams) -> Result<StopResult, RpcError> {
        self.reply::<Stop>(params).await
    }
    async fn restart(&self, params: OperationParams) -> Result<RestartResult, RpcError> {
        self.reply::<Restart>(params).await
    }
    async fn pause(&self, params: OperationParams) -> Result<PauseResult, RpcError> {
        self.reply::<Pause>(params).await
    }
    async fn resume(&self, params: OperationParams) -> Result<ResumeResult, RpcError> {
        self.reply::<Resume>(params).await
    }
    async fn signal(&self, params: SignalParams) -> Result<SignalResult, RpcError> {
        self.reply::<xy_daemon::protocol::method::Signal>(params).await
    }
    async fn usage(&self, params: UsageParams) -> Result<UsageResult, RpcError> {
        self.reply::<Usage>(params).await
    }
    async fn reload(&self, params: ReloadParams) -> Result<ReloadResult, RpcError> {
        self.reply::<Reload>(params).await
    }
    async fn logs(&self, params: LogsParams) -> Result<Box<dyn Subscription>, RpcError> {
        self.open::<Logs>(params).await
    }
    async fn events(&self, params: EventsParams) -> Result<Box<dyn Subscription>, RpcError> {
        self.open::<Events>(params).await
    }
    async fn version(&self, params: VersionParams) -> Result<VersionResult, RpcError> {
        self.record::<Version>(&params);
        Ok(VersionResult {
            version: "9.8.7".into(),
            protocol: 1,
            program: None,
            pid: 77,
            // Each upgrade is another program.
            started_at_unix_ms: 1000 + self.count::<Upgrade>(),
            diagnostics: None,
        })
    }
    async fn upgrade(&self, params: UpgradeParams) -> Result<UpgradeResult, RpcError> {
        self.reply::<Upgrade>(params).await
    }
    async fn shutdown(&self, params: ShutdownParams) -> Result<ShutdownResult, RpcError> {
        self.record::<Shutdown>(&params);
        self.shutdown.notify_one();
        Ok(ShutdownResult { stopping: true })
    }
}
