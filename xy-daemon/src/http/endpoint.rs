//! One request: the checks in their order, then the endpoint.
//!
//! The order is host, origin, token, path, method, content type, body. Each check is made before anything is read that a
//! later one is about, and none of them tells what a later one would have said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING,
    USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use xy_actors::event::stream::unix_ms;

use super::Limits;
use super::answer::{self, Capabilities, DaemonStatus, Health, Tail};
use super::credentials::Admission;
use super::guard::Guard;
use super::metrics::{Meter, Now, state_name};
use super::openapi::{self, SAID_BY_PATH, SAID_BY_SEGMENT};
use super::pace::Pace;
use super::plane::HttpPlane;
use super::reply::{Content, EVENT_STREAM, JSON, METRICS, Problem, json as json_reply, status_of, text};
use super::route::{self, BodyRule, Endpoint, Parameter, ParameterKind, Route, RouteError};
use super::token::Verdict;
use super::{mcp, sse, target};

use crate::mcp_server::{McpServer, Unfit};
use crate::operations::OperationTable;
use crate::permission::{Caller, Surface};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::message::Request as MethodCall;
use crate::protocol::method::{
    Add, AddParams, Forget, LogLine, Logs, MethodKind, Notification, OperationParams, Reload, ReloadParams,
    Remove, RemoveParams, Shutdown, ShutdownParams, Signal, SignalParams, Upgrade, UpgradeParams,
    VersionParams, VersionResult,
};
use crate::protocol::{Method, json as strict_json};
use crate::registry::Registry;
use crate::rpc::{self, Answer, Service, Subscription};
use crate::unread::Unread;

const MCP_SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Bodies up to this length do not count as bytes in flight.
const SHORT_BODY: usize = 4 << 10;

/// The most bytes of long bodies in flight.
const BYTES_IN_FLIGHT: usize = 16 << 20;

/// The most bytes of output that one answer holds; of more, the latest.
const LONGEST_TAIL: usize = 4 << 20;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) service: Arc<S>,
    pub(super) guard: Guard,
    pub(super) plane: Arc<HttpPlane>,
    pub(super) limits: Limits,
    /// What tells numbers of this daemon from those of an earlier one.
    pub(super) epoch: String,
    pub(super) operations: Arc<OperationTable>,
    pub(super) mcp_sessions: mcp::Sessions,
    pub(super) meter: Meter,
    /// Turns true when the daemon stops serving.
    pub(super) close: watch::Receiver<bool>,
    /// What clients have not read yet.
    pub(super) unread: Arc<Unread>,
    bytes: Semaphore,
}

/// A request that has passed the checks.
struct Admitted {
    route: &'static Route,
    argument: Option<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    /// The token it was admitted with.
    token: Admission,
    body: Vec<u8>,
}

impl<S: Service> Shared<S> {
    pub(super) fn new(
        service: Arc<S>,
        guard: Guard,
        plane: Arc<HttpPlane>,
        epoch: String,
        close: watch::Receiver<bool>,
    ) -> Self {
        let limits = plane.limits;
        // Those of the socket are among them, if the service knows any.
        let own = || Arc::new(OperationTable::new(epoch.clone(), limits.operations));
        let operations = service.operations().unwrap_or_else(own);
        let mcp_sessions = mcp::Sessions::new(epoch.clone());
        Self {
            service,
            guard,
            plane,
            limits,
            epoch,
            operations,
            mcp_sessions,
            meter: Meter::new(),
            close,
            unread: Arc::default(),
            bytes: Semaphore::new(BYTES_IN_FLIGHT),
        }
    }

    /// Answers one request.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        pace: &Arc<Pace>,
    ) -> Response<Content> {
        let (serving, began) = pace.serve();
        let arrived = Instant::now();
        // Where a body's length is in dispute, the connection must not go on with what one side takes for a request. The reader of
        // heads lets the encoding win and takes a `Content-Length` beside it away, so that the two cannot be told apart here.
        let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let mut label = "none";
        let result = match self.admit(request, began, &mut label).await {
            Ok(admitted) => self.run(admitted, pace).await,
            Err(problem) => Err(problem),
        };
        let mut response = result.unwrap_or_else(|problem| problem.into_response(None));
        if is_chunked {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.meter.request(label, response.status().as_u16(), arrived.elapsed());
        response.body_mut().hold(serving);
        response
    }

    async fn admit(
        &self,
        request: Request<Incoming>,
        began: Instant,
        label: &mut &'static str,
    ) -> Result<Admitted, Problem> {
        let (head, body) = request.into_parts();
        if let Err(error) = self.guard.check(&head.uri, &head.headers) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", error.to_string()).closing());
        }
        let path = head.uri.path();
        let token = match route::is_open(&head.method, path) {
            true => Admission::Owner(0),
            false => self.authenticate(&head.headers)?,
        };
        let bad_target = |error: target::TargetError| {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", error.to_string()).closing()
        };
        let segments = target::segments(path).map_err(bad_target)?;
        let (route, argument) = match route::find(&head.method, &segments) {
            Ok(found) => found,
            Err(error) => return Err(unrouted(error)),
        };
        *label = route.path;
        let query = target::query(head.uri.query().unwrap_or_default()).map_err(bad_target)?;
        let body = match route.body {
            BodyRule::Ignored => Vec::new(),
            BodyRule::Json => {
                check_content_type(&head.headers)?;
                self.read_body(body, began + self.limits.request).await?
            }
        };
        Ok(Admitted { route, argument, query, headers: head.headers, token, body })
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Admission, Problem> {
        match self.plane.credentials.check(headers, Instant::now()) {
            Ok(admission) => Ok(admission),
            Err(Verdict::Accepted(_) | Verdict::Refused) => {
                let message = "the request needs the token: `Authorization: Bearer TOKEN`";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message).closing())
            }
            Err(Verdict::TooMany) => {
                let message = "too many requests without the right token; try again in a second";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "limit_exceeded", message).closing())
            }
        }
    }

    /// Reads a whole body within its limits.
    async fn read_body(&self, mut body: Incoming, deadline: Instant) -> Result<Vec<u8>, Problem> {
        let limit = self.limits.body;
        let too_large = || {
            let message = format!("the body has more than {limit} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "limit_exceeded", message).closing()
        };
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > limit {
            return Err(too_large());
        }
        let expected = if body.size_hint().exact().is_some() { declared } else { limit };
        let reading = async {
            let weight = if expected > SHORT_BODY { u32::try_from(expected).unwrap_or(u32::MAX) } else { 0 };
            // The semaphore is never closed.
            let _bytes = self.bytes.acquire_many(weight).await;
            let mut bytes = Vec::with_capacity(declared);
            while let Some(frame) =
                std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
            {
                let frame = frame.map_err(|error| {
                    tracing::debug!(%error, "a request's body cannot be read");
                    let message = "the body is not what its headers say";
                    Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message).closing()
                })?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > limit {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
            Ok(bytes)
        };
        timeout_at(deadline, reading).await.unwrap_or_else(|_| {
            let message = "the request took too long to arrive";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", message).closing())
        })
    }

    async fn run(
        self: &Arc<Self>,
        request: Admitted,
        pace: &Arc<Pace>,
    ) -> Result<Response<Content>, Problem> {
        let Admitted { route, argument, query, headers, token, body } = request;
        let caller = &caller(&headers, &token);
        let query = read_query(route.query, query)?;
        match route.endpoint {
            Endpoint::Health => json_reply(StatusCode::OK, &Health { status: "ok" }),
            Endpoint::Status => self.status().await,
            Endpoint::Query(method) => self.ask(caller, method, query).await,
            Endpoint::Server(method) => {
                let mut params = query;
                params.insert("name".to_owned(), server(argument)?.into());
                self.ask(caller, method, params).await
            }
            Endpoint::Ask(method) => {
                let server = server(argument)?;
                let mut params = body_members(&body, &SAID_BY_SEGMENT)?;
                params.insert("name".to_owned(), server.into());
                self.ask(caller, method, params).await
            }
            Endpoint::Operate(method) => {
                let server = server(argument)?;
                let mut params = body_members(&body, &SAID_BY_PATH)?;
                params.insert("names".to_owned(), json!([server]));
                self.operate(caller, method, Some(server), params, is_waiting(&query)).await
            }
            Endpoint::Administer(method) => {
                let params = body_members(&body, &[])?;
                self.operate(caller, method, None, params, is_waiting(&query)).await
            }
            Endpoint::Remove(method) => {
                let server = server(argument)?;
                no_members(&body)?;
                let params = Map::from_iter([("name".to_owned(), server.clone().into())]);
                self.operate(caller, method, Some(server), params, is_waiting(&query)).await
            }
            Endpoint::Decide(method) => {
                let mut params = body_members(&body, &["id"])?;
                params.insert("id".to_owned(), argument.unwrap_or_default().into());
                self.ask(caller, method, params).await.map_err(|problem| unknown_id(method, problem))
            }
            Endpoint::Registered => {
                let params = body_members(&body, &[])?;
                self.ask_program(caller, argument, params, None).await
            }
            Endpoint::Catalog => {
                self.ask_program(caller, argument, Map::new(), Some(MethodKind::Catalog)).await
            }
            Endpoint::Logs => {
                let reader = sse::Reader { token, pace: Arc::clone(pace) };
                self.logs(caller, server(argument)?, query, &headers, reader).await
            }
            Endpoint::Events => {
                let reader = sse::Reader { token, pace: Arc::clone(pace) };
                sse::events(self, caller, query, last_event_id(&headers), reader).await
            }
            Endpoint::Command(method) => {
                let params = body_members(&body, &[])?;
                self.ask(caller, method, params).await
            }
            Endpoint::Capabilities => {
                let methods = rpc::capabilities(&*self.service);
                json_reply(StatusCode::OK, &Capabilities { methods, endpoints: answer::endpoints() })
            }
            Endpoint::Description => {
                let registered = self.service.registry().into_iter().flat_map(Registry::descriptions);
                json_reply(StatusCode::OK, &openapi::document(registered))
            }
            Endpoint::Rpc => Ok(match rpc::answer(&self.service, caller, pace.account(), &body).await {
                Some(answer) => text(StatusCode::OK, JSON, answer),
                None => text(StatusCode::NO_CONTENT, JSON, ""),
            }),
            Endpoint::Mcp => self.mcp(caller, &query, &headers, &body).await,
            // Without a service that knows them, they are still known here.
            Endpoint::Operation => match self.operations.get(&argument.unwrap_or_default()) {
                Some(operation) => json_reply(StatusCode::OK, &operation),
                None => {
                    let message = "no such operation is known, or no more";
                    Err(Problem::new(StatusCode::NOT_FOUND, "operation_not_found", message))
                }
            },
            Endpoint::Metrics => self.metrics().await,
        }
    }

    /// Answers a message of MCP.
    async fn mcp(
        self: &Arc<Self>,
        caller: &Caller,
        query: &Map<String, Value>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response<Content>, Problem> {
        let session = match headers.get(MCP_SESSION).map(|id| id.to_str().unwrap_or_default()) {
            None => None,
            Some(id) => match self.mcp_sessions.get(id) {
                Some(client) => Some((id.to_owned(), client)),
                None => {
                    let message = "no such session is known, or no more; begin again with `initialize`";
                    return Err(Problem::new(StatusCode::NOT_FOUND, "session_not_found", message));
                }
            },
        };
        let (id, known) = session.unzip();
        // An assistant without a session is not the operator who has the same token.
        let session = id.unwrap_or_else(|| format!("mcp-{}", caller.session));
        let caller = caller.clone().named(Surface::Mcp, caller.client()).in_session(session);
        let backend = mcp::InDaemon { service: Arc::clone(&self.service), caller };
        let is_read_only = query.get("read_only") == Some(&Value::Bool(true));
        let server = McpServer::new(backend, is_read_only);
        let answered = server.answer_mirrored(known.as_deref(), body, Some(&mcp::mirror(headers))).await;
        let status = match answered.unfit {
            None => StatusCode::OK,
            Some(Unfit::NoSuchMethod) => StatusCode::NOT_FOUND,
            Some(_) => StatusCode::BAD_REQUEST,
        };
        let mut response = match answered.text {
            Some(answer) => text(status, JSON, answer),
            None => text(StatusCode::ACCEPTED, JSON, ""),
        };
        if let Some(client) = answered.introduced {
            let (id, ended) = self.mcp_sessions.begin(client);
            if let (Some(gate), Some(ended)) = (self.service.gate(), ended) {
                gate.end_session(&ended);
            }
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(MCP_SESSION, id);
            }
        }
        Ok(response)
    }

    /// Runs a method in a task of its own, so that it goes on when its client is gone.
    async fn call(
        self: &Arc<Self>,
        caller: &Caller,
        method: &str,
        params: &Map<String, Value>,
    ) -> Result<Answer, Problem> {
        let request = MethodCall::of(method, params);
        let (service, caller) = (Arc::clone(&self.service), caller.clone());
        match tokio::spawn(async move { rpc::call(&*service, &caller, &request).await }).await {
            Ok(answer) => Ok(answer?),
            Err(error) => Err(lost(&error)),
        }
    }

    async fn ask(
        self: &Arc<Self>,
        caller: &Caller,
        method: &str,
        params: Map<String, Value>,
    ) -> Result<Response<Content>, Problem> {
        match self.call(caller, method, &params).await? {
            Answer::Result(result) => Ok(text(StatusCode::OK, JSON, Box::<str>::from(result).into_string())),
            Answer::Subscription(_) => unreachable!("no such endpoint is for a subscription"),
        }
    }

    /// Answers a method that the program has registered, if it is of this kind.
    async fn ask_program(
        self: &Arc<Self>,
        caller: &Caller,
        name: Option<String>,
        params: Map<String, Value>,
        kind: Option<MethodKind>,
    ) -> Result<Response<Content>, Problem> {
        let name = name.unwrap_or_default();
        let known = self.service.registry().and_then(|registry| registry.description(&name));
        if known.is_none_or(|known| kind.is_some_and(|kind| kind != known.kind)) {
            let message = format!("nothing is registered here as `{name}`");
            return Err(RpcError::new(ErrorKind::MethodNotFound, message).into());
        }
        self.ask(caller, &name, params).await
    }

    async fn operate(
        self: &Arc<Self>,
        caller: &Caller,
        method: &'static str,
        server: Option<String>,
        params: Map<String, Value>,
        wait: bool,
    ) -> Result<Response<Content>, Problem> {
        let request = MethodCall::of(method, &params);
        // What the caller may not do, and a mistake, is told at once, not as the result of an operation.
        rpc::check_scope(&*self.service, caller, &request)?;
        validate(method, &request)?;
        let Some(operation) = self.operations.enter(method, server, unix_ms()) else {
            let message = format!("{} operations are under way, which is the most", self.limits.operations);
            return Err(RpcError::new(ErrorKind::LimitExceeded, message).into());
        };
        let task = tokio::spawn({
            let (shared, id, caller) = (Arc::clone(self), operation.id.clone(), caller.clone());
            async move {
                shared.operations.begin(&id);
                let outcome = match rpc::call_entered(&*shared.service, &caller, &request).await {
                    Ok(Answer::Result(result)) => Ok(result),
                    Ok(Answer::Subscription(_)) => unreachable!("no operation is a subscription"),
                    Err(error) => Err(error),
                };
                shared.operations.finish(&id, &outcome, unix_ms());
                outcome
            }
        });
        let location = format!("/v1/operations/{}", operation.id);
        let mut response = match wait {
            false => json_reply(StatusCode::ACCEPTED, &operation)?,
            true => finished(task.await.map_err(|error| lost(&error))??),
        };
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    async fn logs(
        self: &Arc<Self>,
        caller: &Caller,
        server: String,
        mut params: Map<String, Value>,
        headers: &HeaderMap,
        reader: sse::Reader,
    ) -> Result<Response<Content>, Problem> {
        let wants_stream = headers.get_all(ACCEPT).iter().any(|accepted| {
            accepted.to_str().is_ok_and(|accepted| {
                accepted
                    .split(',')
                    .any(|one| one.split(';').next().map(str::trim) == EVENT_STREAM.to_str().ok())
            })
        });
        params.insert("name".to_owned(), server.into());
        if wants_stream && !params.contains_key("follow") {
            let is_about_the_past = params.contains_key("until_unix_ms") || params.contains_key("previous");
            params.insert("follow".to_owned(), (!is_about_the_past).into());
        }
        if wants_stream || params.get("follow") == Some(&Value::Bool(true)) {
            return sse::logs(self, caller, params, last_event_id(headers), reader).await;
        }
        match self.call(caller, Logs::NAME, &params).await? {
            Answer::Subscription(source) => tail(source).await,
            Answer::Result(_) => unreachable!("`logs` opens a source"),
        }
    }

    async fn version(&self) -> Result<VersionResult, Problem> {
        Ok(self.service.version(VersionParams::default()).await?)
    }

    async fn status(self: &Arc<Self>) -> Result<Response<Content>, Problem> {
        let version = self.version().await?;
        let servers = self.service.list(Default::default()).await?.servers;
        let mut states = BTreeMap::new();
        for server in &servers {
            *states.entry(state_name(server.state)).or_default() += 1;
        }
        let status = DaemonStatus {
            version: version.version,
            protocol: version.protocol,
            pid: version.pid,
            started_at_unix_ms: version.started_at_unix_ms,
            servers: servers.len(),
            ready: servers.iter().filter(|server| server.ready).count(),
            states,
        };
        json_reply(StatusCode::OK, &status)
    }

    async fn metrics(self: &Arc<Self>) -> Result<Response<Content>, Problem> {
        let version = self.version().await?;
        let servers = self.service.list(Default::default()).await?.servers;
        let fares = |name: &str| self.service.output_health(name);
        let output: Vec<_> =
            servers.iter().filter_map(|server| Some((server.name.as_str(), fares(&server.name)?))).collect();
        let written = self.meter.write(&Now {
            version: &version.version,
            started_at_unix_ms: version.started_at_unix_ms,
            servers: &servers,
            output: &output,
            connections: self.plane.connections.load(Ordering::Relaxed),
            refused_tokens: self.plane.credentials.tokens().failures(),
            operations: self.operations.under_way(),
        });
        Ok(text(StatusCode::OK, METRICS, written))
    }
}

/// The header in which a client says what it calls itself.
const CLIENT: HeaderName = HeaderName::from_static("xy-client");

/// Returns who asks: whose token it is, else what the client calls itself, else the first word of its user agent.
fn caller(headers: &HeaderMap, admission: &Admission) -> Caller {
    let token = match admission {
        Admission::Owner(number) => number,
        Admission::Client(client) => {
            let session = format!("http-{}", client.name);
            return Caller::new(Surface::Http, &client.name, session).bound(client.scope);
        }
    };
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let agent = || text(&USER_AGENT).and_then(|agent| agent.split(['/', ' ']).next());
    let client = text(&CLIENT).or_else(agent).unwrap_or("http");
    let caller = Caller::new(Surface::Http, client, "");
    // Clients share a token; an operator's is not the session of the robot that asks.
    let session = format!("http-{token}-{}", caller.client());
    caller.in_session(session)
}

/// What is named by the path and is not there is not found, as with servers.
fn unknown_id(method: &str, problem: Problem) -> Problem {
    let kind = if method == Forget::NAME { "grant_not_found" } else { "approval_not_found" };
    match problem.parameter.as_deref() {
        Some("id") if problem.status == StatusCode::BAD_REQUEST => {
            Problem::new(StatusCode::NOT_FOUND, kind, problem.message)
        }
        _ => problem,
    }
}

/// A task that ended without a result: the runtime is ending.
fn lost(error: &tokio::task::JoinError) -> Problem {
    tracing::error!(%error, "a request was lost");
    RpcError::new(ErrorKind::InternalError, "the daemon failed to handle the request").into()
}

fn unrouted(error: RouteError) -> Problem {
    match &error {
        RouteError::Method(verbs) => {
            let allow = verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(", ");
            let problem =
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", error.to_string());
            Problem { allow: Some(allow), ..problem }.closing()
        }
        RouteError::NotFound => {
            Problem::new(StatusCode::NOT_FOUND, "endpoint_not_found", error.to_string()).closing()
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(one), None) => one.to_str().is_ok_and(|one| {
            let essence = one.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("application/json")
        }),
        _ => false,
    };
    if is_json {
        return Ok(());
    }
    let message = "the request must say `Content-Type: application/json`, even without a body";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).closing())
}

/// Returns the server that a segment names. What cannot be one's path is answered like one that is not there.
fn server(argument: Option<String>) -> Result<String, Problem> {
    let name = argument.unwrap_or_default();
    if target::is_server_path(&name) { Ok(name) } else { Err(RpcError::server_not_found(&name).into()) }
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default())
}

fn is_waiting(query: &Map<String, Value>) -> bool {
    query.get("wait") == Some(&Value::Bool(true))
}

/// Reads a query by the types of its parameters.
fn read_query(known: &[Parameter], query: Vec<(String, String)>) -> Result<Map<String, Value>, Problem> {
    let mut params = Map::new();
    for (name, text) in query {
        let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
            return Err(Problem::parameter(&name, "is not known"));
        };
        let value = match (parameter.kind, text.as_str()) {
            (ParameterKind::Text, _) => Value::String(text),
            (ParameterKind::Flag, "" | "true") => true.into(),
            (ParameterKind::Flag, "false") => false.into(),
            (ParameterKind::Flag, _) => return Err(Problem::parameter(&name, "must be `true` or `false`")),
            (ParameterKind::Number, digits) => match digits.parse::<u64>() {
                Ok(number) if !digits.starts_with('+') => number.into(),
                _ => return Err(Problem::parameter(&name, "must be a whole number")),
            },
        };
        params.insert(name, value);
    }
    Ok(params)
}

/// Reads a body that is an object, or nothing; the path and the query say the `reserved` ones.
fn body_members(body: &[u8], reserved: &[&str]) -> Result<Map<String, Value>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let text = strict_json::check(body)
        .map_err(|error| RpcError::new(ErrorKind::ParseError, crate::control::chain(&error)))?;
    let Ok(members) = serde_json::from_str::<Map<String, Value>>(text) else {
        return Err(RpcError::new(ErrorKind::InvalidRequest, "the body must be an object").into());
    };
    match reserved.iter().find(|name| members.contains_key(**name)) {
        Some(name) => Err(Problem::parameter(name, "is said by the path or the query, not by the body")),
        None => Ok(members),
    }
}

/// Refuses a body that says something.
fn no_members(body: &[u8]) -> Result<(), Problem> {
    match body_members(body, &[])?.keys().next() {
        None => Ok(()),
        Some(name) => Err(Problem::parameter(name, "is not known")),
    }
}

/// Reads the parameters of an operation and forgets them.
fn validate(method: &str, request: &MethodCall) -> Result<(), RpcError> {
    match method {
        Signal::NAME => request.params::<SignalParams>().map(drop),
        Reload::NAME => request.params::<ReloadParams>().map(drop),
        Shutdown::NAME => request.params::<ShutdownParams>().map(drop),
        Add::NAME => request.params::<AddParams>().map(drop),
        Remove::NAME => request.params::<RemoveParams>().map(drop),
        Upgrade::NAME => request.params::<UpgradeParams>().map(drop),
        _ => request.params::<OperationParams>().map(drop),
    }
}

/// Answers with a result; one that says that the operation failed is answered as a failure.
fn finished(result: Box<RawValue>) -> Response<Content> {
    #[derive(serde::Deserialize)]
    struct Rows {
        #[serde(default)]
        failed: Vec<crate::protocol::method::Failed>,
    }
    let failed = serde_json::from_str::<Rows>(result.get()).map(|rows| rows.failed).unwrap_or_default();
    match failed.into_iter().next() {
        None => text(StatusCode::OK, JSON, Box::<str>::from(result).into_string()),
        Some(row) => {
            let mut problem = Problem::from(RpcError::new(row.kind, row.message));
            problem.status = status_of(row.kind);
            problem.into_response(Some(&result))
        }
    }
}

/// Collects the lines of a source that ends, the latest ones if they are too many.
async fn tail(mut source: Box<dyn Subscription>) -> Result<Response<Content>, Problem> {
    let mut tail = Tail::default();
    let mut bytes = 0;
    let weight = |line: &LogLine| line.line.len() + line.line_base64.as_ref().map_or(0, String::len) + 128;
    loop {
        let batch = match rpc::catch_panic(source.next()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(panic) => {
                tracing::error!(panic, "reading output failed by a panic");
                let message = "the daemon failed to read the output; its log says more";
                return Err(RpcError::new(ErrorKind::InternalError, message).into());
            }
        };
        for notification in batch {
            match notification {
                Notification::Log(line) => {
                    bytes += weight(&line);
                    tail.lines.push_back(line);
                }
                Notification::LogGap(gap) => tail.missed.push(gap),
                _ => {}
            }
            while bytes > LONGEST_TAIL
                && let Some(first) = tail.lines.pop_front()
            {
                bytes -= weight(&first);
                tail.truncated = true;
            }
        }
    }
    json_reply(StatusCode::OK, &tail)
}
