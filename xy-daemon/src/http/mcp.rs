//! MCP over HTTP: the daemon itself as what the tools are about, and who began which session.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use crate::mcp_server::{Backend, Mirror};
use crate::permission::{Caller, Surface};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::message::Request;
use crate::protocol::method::Notification;
use crate::rpc::{self, Answer, Service};

/// The most sessions that are known; the oldest one makes room.
const MOST: usize = 256;

/// The longest name of a client that is kept.
const LONGEST: usize = 64;

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const TOOL: HeaderName = HeaderName::from_static("mcp-name");

/// Returns what the headers say of a message. A header that cannot be read, or is there twice, says nothing that a message
/// could say.
pub(super) fn mirror(headers: &HeaderMap) -> Mirror {
    let read = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?;
        let text = first.to_str().ok().filter(|_| values.next().is_none());
        Some(text.unwrap_or_default().to_owned())
    };
    let name = read(&TOOL).map(|name| decoded(&name).unwrap_or_default());
    Mirror { version: read(&VERSION), method: read(&METHOD), name }
}

/// Takes off the form in which a header carries what is no plain text.
fn decoded(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix("=?base64?").and_then(|text| text.strip_suffix("?=")) else {
        return Some(text.to_owned());
    };
    String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok()
}

/// The sessions of clients of the older era.
#[derive(Debug)]
pub(super) struct Sessions {
    /// What tells sessions of this daemon from those of an earlier one.
    epoch: String,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    begun: u64,
    /// Session and client.
    sessions: VecDeque<(String, String)>,
}

impl Sessions {
    pub(super) fn new(epoch: String) -> Self {
        Self { epoch, table: Mutex::default() }
    }

    /// Begins a session and returns its id, and that of the one that made room.
    pub(super) fn begin(&self, client: String) -> (String, Option<String>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.begun += 1;
        let id = format!("mcp-{}-{}", self.epoch, table.begun);
        let ended = if table.sessions.len() >= MOST { table.sessions.pop_front() } else { None };
        table.sessions.push_back((id.clone(), client.chars().take(LONGEST).collect()));
        (id, ended.map(|(id, _)| id))
    }

    /// Returns the client of a session.
    pub(super) fn get(&self, id: &str) -> Option<String> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.sessions.iter().find(|(known, _)| known == id).map(|(_, client)| client.clone())
    }
}

/// The service of this daemon, for one caller.
#[derive(Debug)]
pub(super) struct InDaemon<S> {
    pub(super) service: Arc<S>,
    pub(super) caller: Caller,
}

impl<S: Service> InDaemon<S> {
    async fn ask(
        &self,
        client: &str,
        method: &'static str,
        params: &Map<String, Value>,
    ) -> Result<Answer, RpcError> {
        let caller = self.caller.clone().named(Surface::Mcp, client);
        let (service, request) = (Arc::clone(&self.service), Request::of(method, params));
        // In a task of its own it goes on when its client is gone.
        let task = tokio::spawn(async move { rpc::call(&*service, &caller, &request).await });
        task.await.unwrap_or_else(|_| Err(RpcError::new(ErrorKind::InternalError, "the request was lost")))
    }
}

impl<S: Service> Backend for InDaemon<S> {
    async fn call(
        &self,
        client: &str,
        method: &'static str,
        params: Map<String, Value>,
    ) -> Result<Value, RpcError> {
        match self.ask(client, method, &params).await? {
            Answer::Result(result) => serde_json::from_str(result.get())
                .map_err(|error| RpcError::new(ErrorKind::InternalError, error.to_string())),
            Answer::Subscription(_) => unreachable!("no such tool is a subscription"),
        }
    }

    async fn collect(
        &self,
        client: &str,
        method: &'static str,
        params: Map<String, Value>,
    ) -> Result<Vec<Notification>, RpcError> {
        let Answer::Subscription(mut source) = self.ask(client, method, &params).await? else {
            unreachable!("`logs` and `events` open a source")
        };
        let mut all = Vec::new();
        while let Some(batch) = rpc::catch_panic(source.next()).await.unwrap_or_default() {
            all.extend(batch);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_makes_room() {
        let sessions = Sessions::new("e".to_owned());
        let (first, ended) = sessions.begin("a".to_owned());
        assert_eq!((sessions.get(&first).as_deref(), ended), (Some("a"), None));
        for _ in 1..MOST {
            assert_eq!(sessions.begin("b".to_owned()).1, None);
        }
        assert_eq!(sessions.begin("c".to_owned()).1, Some(first.clone()));
        assert_eq!(sessions.get(&first), None);
    }
}
