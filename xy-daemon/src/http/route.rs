//! The table of endpoints: everything that is decided about a request before it is run (pure).

use hyper::{Method, StatusCode};

use crate::protocol::scope::{Scope, scope_of};

/// One endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The only HTTP method.
    pub verb: Verb,
    /// The path; a segment in braces stands for any one segment.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it does with a body.
    pub body: BodyRule,
    /// The parameters of its query.
    pub query: &'static [Parameter],
    /// What it does.
    pub endpoint: Endpoint,
    /// The same in words.
    pub summary: &'static str,
}

/// The HTTP method of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// It changes nothing.
    Get,
    /// It may change something.
    Post,
    /// It takes something away.
    Delete,
}

impl Verb {
    /// Returns the name in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every program of this machine.
    Open,
    /// Who presents the token.
    Token,
}

/// What an endpoint does with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// It is ignored.
    Ignored,
    /// It must say that it is `application/json`, even if it is empty.
    Json,
}

/// One parameter of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: ParameterKind,
}

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A whole number that is not negative.
    Number,
    /// `true` or `false`; nothing means `true`.
    Flag,
    /// Any text.
    Text,
}

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Says that the server answers, and nothing else.
    Health,
    /// Sums up the daemon.
    Status,
    /// Answers a method without parameters.
    Query(&'static str),
    /// Answers a method about one server.
    Server(&'static str),
    /// Answers a method about one server, the rest of whose parameters are in the body.
    Ask(&'static str),
    /// Performs a method on one server.
    Operate(&'static str),
    /// Performs a method of the daemon.
    Administer(&'static str),
    /// Performs a method that takes one server away.
    Remove(&'static str),
    /// Answers a request that waits for an operator, or forgets such an answer.
    Decide(&'static str),
    /// Shows or follows a server's output.
    Logs,
    /// Follows the events.
    Events,
    /// Performs a method of the daemon and waits for it.
    Command(&'static str),
    /// Says what can be asked.
    Capabilities,
    /// Describes every endpoint, for programs.
    Description,
    /// Answers a method that the program has registered.
    Registered,
    /// Answers a catalog that the program has registered.
    Catalog,
    /// Answers JSON-RPC.
    Rpc,
    /// Answers MCP.
    Mcp,
    /// Shows one operation.
    Operation,
    /// Tells measurements to Prometheus.
    Metrics,
}

const fn parameter(name: &'static str, kind: ParameterKind) -> Parameter {
    Parameter { name, kind }
}

const ENDPOINT: &[Parameter] = &[parameter("endpoint", ParameterKind::Text)];

const WAIT: &[Parameter] = &[parameter("wait", ParameterKind::Flag)];

const MCP: &[Parameter] = &[parameter("read_only", ParameterKind::Flag)];

const EVENTS: &[Parameter] =
    &[parameter("from", ParameterKind::Number), parameter("after", ParameterKind::Text)];

const LOGS: &[Parameter] = &[
    parameter("tail", ParameterKind::Number),
    parameter("follow", ParameterKind::Flag),
    parameter("since_unix_ms", ParameterKind::Number),
    parameter("until_unix_ms", ParameterKind::Number),
    parameter("previous", ParameterKind::Flag),
    parameter("grep", ParameterKind::Text),
    parameter("output_only", ParameterKind::Flag),
];

const fn get(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route {
        verb: Verb::Get,
        path,
        access: Access::Token,
        body: BodyRule::Ignored,
        query: &[],
        endpoint,
        summary,
    }
}

const fn post(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route {
        verb: Verb::Post,
        path,
        access: Access::Token,
        body: BodyRule::Json,
        query: WAIT,
        endpoint,
        summary,
    }
}

const fn delete(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { verb: Verb::Delete, ..post(path, endpoint, summary) }
}

impl Route {
    /// Returns the scope that a token needs to be listened to at all; what comes over `/v1/rpc`, `/mcp` and registered methods
    /// needs that of its method.
    pub fn scope(&self) -> Scope {
        match self.endpoint {
            Endpoint::Query(method)
            | Endpoint::Server(method)
            | Endpoint::Ask(method)
            | Endpoint::Operate(method)
            | Endpoint::Administer(method)
            | Endpoint::Remove(method)
            | Endpoint::Command(method)
            | Endpoint::Decide(method) => scope_of(method).unwrap_or(Scope::Admin),
            _ => Scope::Read,
        }
    }

    /// Returns with which statuses a request is refused, or fails.
    pub fn refusals(&self) -> Vec<StatusCode> {
        let mut statuses =
            vec![StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR];
        if self.access == Access::Token {
            statuses.extend([StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS]);
        }
        if self.path.contains('{') {
            statuses.push(StatusCode::NOT_FOUND);
        }
        if self.body == BodyRule::Json {
            statuses.extend([
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::PAYLOAD_TOO_LARGE,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ]);
        }
        match self.endpoint {
            Endpoint::Operate(_) | Endpoint::Administer(_) | Endpoint::Remove(_) => statuses.extend([
                StatusCode::CONFLICT,
                StatusCode::UNPROCESSABLE_ENTITY,
                StatusCode::SERVICE_UNAVAILABLE,
            ]),
            // A server whose file is not in use, a group that does not run.
            Endpoint::Server(_) | Endpoint::Ask(_) | Endpoint::Logs => statuses.extend([
                StatusCode::CONFLICT,
                StatusCode::UNPROCESSABLE_ENTITY,
                StatusCode::SERVICE_UNAVAILABLE,
            ]),
            Endpoint::Command(_) | Endpoint::Registered | Endpoint::Catalog => {
                statuses.push(StatusCode::UNPROCESSABLE_ENTITY)
            }
            Endpoint::Decide(_) | Endpoint::Health | Endpoint::Operation => {}
            _ => statuses.push(StatusCode::SERVICE_UNAVAILABLE),
        }
        statuses
    }
}

/// Every endpoint.
pub static ROUTES: [Route; 45] = [
    Route { access: Access::Open, ..get("/v1/health", Endpoint::Health, "says that the daemon answers") },
    get("/v1/status", Endpoint::Status, "the daemon in short: version, process id, servers by state"),
    get("/v1/servers", Endpoint::Query("list"), "every server (`list`)"),
    post(
        "/v1/servers",
        Endpoint::Administer("add"),
        "adds a server, for the daemon's life or by a file (`add`)",
    ),
    get("/v1/servers/{path}", Endpoint::Server("status"), "everything about one server (`status`)"),
    delete("/v1/servers/{path}", Endpoint::Remove("remove"), "stops a server and forgets it (`remove`)"),
    post("/v1/servers/{path}/start", Endpoint::Operate("start"), "starts a server (`start`)"),
    post("/v1/servers/{path}/stop", Endpoint::Operate("stop"), "stops a server (`stop`)"),
    post("/v1/servers/{path}/restart", Endpoint::Operate("restart"), "restarts a server (`restart`)"),
    post("/v1/servers/{path}/pause", Endpoint::Operate("pause"), "holds automatic restarts back (`pause`)"),
    post("/v1/servers/{path}/resume", Endpoint::Operate("resume"), "lifts a pause (`resume`)"),
    post("/v1/servers/{path}/signal", Endpoint::Operate("signal"), "sends a signal to a server (`signal`)"),
    post(
        "/v1/servers/{path}/enable",
        Endpoint::Operate("enable"),
        "has a server started with the daemon (`enable`)",
    ),
    post(
        "/v1/servers/{path}/disable",
        Endpoint::Operate("disable"),
        "has a server not started with the daemon (`disable`)",
    ),
    get("/v1/servers/{path}/why", Endpoint::Server("why"), "why a server is as it is (`why`)"),
    get("/v1/servers/{path}/show", Endpoint::Server("show"), "what a server is run with (`show`)"),
    Route {
        query: LOGS,
        ..get("/v1/servers/{path}/logs", Endpoint::Logs, "a server's output, as JSON or as a stream (`logs`)")
    },
    Route {
        query: ENDPOINT,
        ..get("/v1/servers/{path}/tools", Endpoint::Server("tools"), "the tools of an MCP server (`tools`)")
    },
    Route {
        query: ENDPOINT,
        ..get(
            "/v1/servers/{path}/prompts",
            Endpoint::Server("prompts"),
            "the prompts of an MCP server (`prompts`)",
        )
    },
    Route {
        query: ENDPOINT,
        ..get(
            "/v1/servers/{path}/resources",
            Endpoint::Server("resources"),
            "the resources of an MCP server (`resources`)",
        )
    },
    Route {
        query: &[],
        ..post("/v1/servers/{path}/prompt", Endpoint::Ask("prompt"), "fills in a prompt (`prompt`)")
    },
    Route {
        query: &[],
        ..post("/v1/servers/{path}/resource", Endpoint::Ask("resource"), "reads a resource (`resource`)")
    },
    Route { query: &[], ..post("/v1/servers/{path}/call", Endpoint::Ask("call"), "calls a tool (`call`)") },
    get("/v1/usage", Endpoint::Query("usage"), "what the servers' processes use (`usage`)"),
    Route {
        query: EVENTS,
        ..get("/v1/events", Endpoint::Events, "the events of the tree, as a stream (`events`)")
    },
    get(
        "/v1/operations",
        Endpoint::Query("operations"),
        "the operations that were asked for lately (`operations`)",
    ),
    get(
        "/v1/operations/{id}",
        Endpoint::Operation,
        "one operation, with its result once it is done (`operation`)",
    ),
    post("/v1/admin/reload", Endpoint::Administer("reload"), "reads the configuration again (`reload`)"),
    post(
        "/v1/admin/upgrade",
        Endpoint::Administer("upgrade"),
        "lets the program on disk take over (`upgrade`)",
    ),
    post(
        "/v1/admin/shutdown",
        Endpoint::Administer("shutdown"),
        "ends every server and the daemon (`shutdown`)",
    ),
    Route {
        query: &[],
        ..post(
            "/v1/admin/rotate-token",
            Endpoint::Command("rotate_token"),
            "makes a new token (`rotate_token`)",
        )
    },
    get("/v1/approvals", Endpoint::Query("approvals"), "the requests that wait for an answer (`approvals`)"),
    Route {
        query: &[],
        ..post(
            "/v1/approvals/{id}/approve",
            Endpoint::Decide("approve"),
            "lets a request through (`approve`)",
        )
    },
    Route {
        query: &[],
        ..post("/v1/approvals/{id}/deny", Endpoint::Decide("deny"), "refuses a request (`deny`)")
    },
    get("/v1/grants", Endpoint::Query("grants"), "what was allowed for longer than once (`grants`)"),
    Route {
        query: &[],
        ..delete("/v1/grants/{id}", Endpoint::Decide("forget"), "forgets what was allowed (`forget`)")
    },
    get("/v1/version", Endpoint::Query("version"), "which daemon answers (`version`)"),
    get(
        "/v1/diagnostics",
        Endpoint::Query("diagnostics"),
        "what the daemon stands on, without secrets (`diagnostics`)",
    ),
    get("/v1/capabilities", Endpoint::Capabilities, "every method and every endpoint"),
    get("/v1/openapi.json", Endpoint::Description, "this table for programs, as OpenAPI 3.1"),
    Route {
        query: &[],
        ..post("/v1/methods/{name}", Endpoint::Registered, "a method that the program has registered")
    },
    get("/v1/catalogs/{name}", Endpoint::Catalog, "a catalog that the program has registered"),
    Route { query: &[], ..post("/v1/rpc", Endpoint::Rpc, "JSON-RPC 2.0, the methods of the local socket") },
    Route { query: MCP, ..post("/mcp", Endpoint::Mcp, "an MCP server whose tools look after the servers") },
    get("/metrics", Endpoint::Metrics, "measurements in the text format of Prometheus"),
];

/// Why no endpoint was found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// There is no such path.
    #[error("there is no such endpoint; `GET /v1/capabilities` lists those that there are")]
    NotFound,
    /// The path has another method.
    #[error("the endpoint has another method: {}", .0.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(", "))]
    Method(Vec<Verb>),
}

/// Finds the endpoint for a path; returns the decoded segment that its braces stand for, if it has some.
///
/// # Errors
/// See [`RouteError`].
pub fn find(method: &Method, segments: &[String]) -> Result<(&'static Route, Option<String>), RouteError> {
    let mut verbs = Vec::new();
    for route in &ROUTES {
        if let Some(argument) = fits(route.path, segments) {
            if route.verb.as_str() == method.as_str() {
                return Ok((route, argument));
            }
            verbs.push(route.verb);
        }
    }
    Err(if verbs.is_empty() { RouteError::NotFound } else { RouteError::Method(verbs) })
}

/// Returns whether a request needs no token. The path is compared as it was written.
pub fn is_open(method: &Method, path: &str) -> bool {
    let is_it = |route: &Route| route.verb.as_str() == method.as_str() && route.path == path;
    ROUTES.iter().any(|route| route.access == Access::Open && is_it(route))
}

fn fits(pattern: &str, segments: &[String]) -> Option<Option<String>> {
    let mut argument = None;
    let mut segments = segments.iter();
    for expected in pattern.split('/').skip(1) {
        let found = segments.next()?;
        if expected.starts_with('{') {
            argument = Some(found.clone());
        } else if expected != found {
            return None;
        }
    }
    segments.next().is_none().then_some(argument)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::target;
    use super::*;
    use crate::protocol::method::METHODS;

    fn method(verb: Verb) -> Method {
        verb.as_str().parse().unwrap()
    }

    #[test]
    fn every_route_is_found_by_its_own_path_and_no_two_are_the_same() {
        let mut seen = BTreeSet::new();
        for route in &ROUTES {
            assert!(seen.insert((route.verb, route.path)), "{}", route.path);
            let path = ["{path}", "{id}", "{name}"]
                .iter()
                .fold(route.path.to_owned(), |path, braced| path.replace(braced, "a%2Fb"));
            let (found, argument) = find(&method(route.verb), &target::segments(&path).unwrap()).unwrap();
            assert!(std::ptr::eq(found, route), "{}", route.path);
            assert_eq!(argument.as_deref(), route.path.contains('{').then_some("a/b"));
        }
    }

    #[test]
    fn only_health_is_open_and_whatever_changes_something_is_a_post_with_json() {
        for route in &ROUTES {
            let is_health = route.path == "/v1/health";
            assert_eq!(route.access == Access::Open, is_health, "{}", route.path);
            assert_eq!(route.verb != Verb::Get, route.body == BodyRule::Json, "{}", route.path);
            let changes = matches!(
                route.endpoint,
                Endpoint::Operate(_)
                    | Endpoint::Ask(_)
                    | Endpoint::Administer(_)
                    | Endpoint::Remove(_)
                    | Endpoint::Decide(_)
                    | Endpoint::Registered
                    | Endpoint::Command(_)
                    | Endpoint::Rpc
                    | Endpoint::Mcp
            );
            assert_eq!(route.verb != Verb::Get, changes, "{}", route.path);
        }
        assert!(is_open(&Method::GET, "/v1/health"));
        for (method, path) in [
            (Method::POST, "/v1/health"),
            (Method::HEAD, "/v1/health"),
            (Method::GET, "/v1/health/"),
            (Method::GET, "/v1/%68ealth"),
            (Method::GET, "//v1/health"),
            (Method::GET, "/v1/health/../status"),
            (Method::GET, "/v1/status"),
        ] {
            assert!(!is_open(&method, path), "{method} {path}");
        }
    }

    #[test]
    fn every_method_that_is_named_exists() {
        for route in &ROUTES {
            if let Endpoint::Query(name)
            | Endpoint::Server(name)
            | Endpoint::Ask(name)
            | Endpoint::Operate(name)
            | Endpoint::Administer(name)
            | Endpoint::Remove(name)
            | Endpoint::Command(name)
            | Endpoint::Decide(name) = route.endpoint
            {
                assert!(METHODS.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn another_method_is_told_from_another_path() {
        let find =
            |method, path| find(&method, &target::segments(path).unwrap()).map(|(route, _)| route.path);
        assert_eq!(find(Method::POST, "/v1/status"), Err(RouteError::Method(vec![Verb::Get])));
        assert_eq!(find(Method::GET, "/v1/servers/a/start"), Err(RouteError::Method(vec![Verb::Post])));
        for path in ["/", "", "/v1", "/v2/status", "/v1/status/", "/v1/servers/a/b", "/v1/servers/a/start/b"]
        {
            assert_eq!(find(Method::GET, path), Err(RouteError::NotFound), "{path}");
        }
    }
}
