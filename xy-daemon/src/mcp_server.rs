//! The daemon as an MCP server: its tools, and the exchange in both eras of the protocol, whatever carries the messages.
//!
//! The older era begins with `initialize` and remembers who that was; in the newer one (2026-07-28) every request says it in
//! `_meta`, and `server/discover` takes the place of `initialize`. Tools are methods of the control protocol under the same
//! names, so that permissions and the audit log know them.

use std::future::Future;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::control::chain;
use crate::protocol::Method as _;
use crate::protocol::error::RpcError;
use crate::protocol::json as strict_json;
use crate::protocol::method::{
    Events, Gap, List, Logs, Notification, Reload, Restart, Start, Status, Stop, Why,
};

/// The version of the newer era.
const MODERN: &str = "2026-07-28";

/// The versions of the older era, the latest first.
const OLDER: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// What the newer era has in the place of `initialize`.
const DISCOVER: &str = "server/discover";

/// The code for a version that is not spoken here.
const UNSUPPORTED_VERSION: i32 = -32022;

/// The code for a transport that says something else of a message than the message itself.
const MIRROR_MISMATCH: i32 = -32020;

const NO_REQUEST: i32 = -32600;
const NO_METHOD: i32 = -32601;
const NO_PARAMS: i32 = -32602;

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// How many lines or events are told unless the call says otherwise, and the most that are.
const LINES: u64 = 100;
const MOST_LINES: u64 = 1000;

/// What an assistant is told about the tools.
const INSTRUCTIONS: &str = "xy keeps servers (long-running programs of this machine) running. Begin with `list`; `why` explains \
    a server that does not run or keeps ending, and `logs` shows what it wrote. Operations wait until the result is real. An \
    operation may need its owner's approval and then takes until that is given, or is refused.";

/// What the tools are about.
pub trait Backend: Send + Sync {
    /// Answers a method for a client of this name.
    fn call(
        &self,
        client: &str,
        method: &'static str,
        params: Map<String, Value>,
    ) -> impl Future<Output = Result<Value, RpcError>> + Send;

    /// Answers with everything that a subscription tells until it ends by itself.
    fn collect(
        &self,
        client: &str,
        method: &'static str,
        params: Map<String, Value>,
    ) -> impl Future<Output = Result<Vec<Notification>, RpcError>> + Send;
}

/// What became of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The answer as one line of JSON; `None` for a notification.
    pub text: Option<String>,
    /// What the client calls itself, if it has just said so for its session.
    pub introduced: Option<String>,
    /// Why the message was not run, if the transport has to tell.
    pub unfit: Option<Unfit>,
}

/// Why a message was not run, for a transport that tells this apart from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// It is no message of JSON-RPC 2.0, speaks a version that is not spoken here, does not say what every request of its era
    /// has to, or is not what the transport says.
    Malformed,
    /// The newer era has no such method.
    NoSuchMethod,
}

/// What a transport says of a message beside it, so that others can route it without reading it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the newer era has these three")]
pub struct Mirror {
    /// The version of the protocol.
    pub version: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// The tool that is called.
    pub name: Option<String>,
}

/// The MCP server over a backend.
#[derive(Debug)]
pub struct McpServer<B> {
    backend: B,
    read_only: bool,
}

/// One tool.
struct Tool {
    name: &'static str,
    description: &'static str,
    /// Its parameters: name, type in JSON Schema, whether it must be given, what it is.
    parameters: &'static [(&'static str, &'static str, bool, &'static str)],
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reads,
    Changes,
    /// It interrupts what runs.
    Interrupts,
}

const NAME: (&str, &str, bool, &str) = ("name", "string", true, "the server, as `list` calls it");
const NAMES: (&str, &str, bool, &str) =
    ("names", "strings", true, "the servers: names, patterns such as `web-*`, or `@tag`");
const REASON: (&str, &str, bool, &str) =
    ("reason", "string", false, "why, for the history and for who approves it");
const TIMEOUT: (&str, &str, bool, &str) = ("timeout_secs", "integer", false, "the longest wait in seconds");

const TOOLS: [Tool; 9] = [
    Tool {
        name: List::NAME,
        description: "Lists all servers: state, whether ready, process id, port, uptime, restarts, last end, what is next",
        parameters: &[],
        kind: Kind::Reads,
    },
    Tool {
        name: Status::NAME,
        description: "Says everything about one server, with its latest changes of state and lines of standard error",
        parameters: &[NAME],
        kind: Kind::Reads,
    },
    Tool {
        name: Why::NAME,
        description: "Explains why a server is as it is: its last ends with causes and lines before, and what to try",
        parameters: &[NAME],
        kind: Kind::Reads,
    },
    Tool {
        name: Logs::NAME,
        description: "Shows the latest lines that a server wrote",
        parameters: &[
            NAME,
            ("tail", "integer", false, "how many lines at most, 100 if not given, no more than 1000"),
            ("grep", "string", false, "only lines that this regular expression matches"),
            ("previous", "boolean", false, "only lines of the start before the latest one"),
        ],
        kind: Kind::Reads,
    },
    Tool {
        name: Events::NAME,
        description: "Shows the latest events: starts, ends, restarts, changes of readiness, requests for approval",
        parameters: &[
            ("name", "string", false, "only those of this server or group"),
            ("limit", "integer", false, "how many at most, 100 if not given, no more than 1000"),
        ],
        kind: Kind::Reads,
    },
    Tool {
        name: "check",
        description: "Checks the configuration files: what a reload would add, change, remove and reject, and why",
        parameters: &[],
        kind: Kind::Reads,
    },
    Tool {
        name: Start::NAME,
        description: "Starts servers and waits until they are ready",
        parameters: &[NAMES, REASON, TIMEOUT],
        kind: Kind::Changes,
    },
    Tool {
        name: Stop::NAME,
        description: "Stops servers and waits until all their processes are gone; they stay down until they are started",
        parameters: &[NAMES, REASON, TIMEOUT],
        kind: Kind::Interrupts,
    },
    Tool {
        name: Restart::NAME,
        description: "Restarts servers and waits until they are ready",
        parameters: &[NAMES, REASON, TIMEOUT],
        kind: Kind::Interrupts,
    },
];

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    jsonrpc: Option<String>,
    /// An `id` of null is not the same as none.
    #[serde(default, deserialize_with = "given")]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    result: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    error: Option<Value>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A message that fits JSON-RPC 2.0 and this protocol.
enum Fit {
    Request {
        id: Value,
        method: String,
        params: Map<String, Value>,
    },
    /// One that is not answered: a notification, or an answer to something that was never asked.
    Silent,
}

impl Message {
    fn read(text: &[u8]) -> Result<Self, Fault> {
        let text = strict_json::check(text).map_err(|error| Fault::new(-32700, chain(&error)))?;
        serde_json::from_str(text).map_err(|_| Fault::no_request())
    }

    /// Returns what it is, or why it is nothing, with the id to say so to.
    fn fit(self) -> Result<Fit, (Value, Fault)> {
        let is_id = |id: &Value| id.is_string() || id.is_number();
        let shown = || self.id.clone().filter(is_id).unwrap_or(Value::Null);
        let is_known = self.id.as_ref().is_none_or(is_id);
        if self.jsonrpc.as_deref() != Some("2.0") || !is_known {
            return Err((shown(), Fault::no_request()));
        }
        match (self.method, self.id) {
            (Some(method), Some(id)) => match self.params {
                Some(Value::Object(params)) => Ok(Fit::Request { id, method, params }),
                None | Some(Value::Null) => Ok(Fit::Request { id, method, params: Map::new() }),
                Some(_) => Err((id, Fault::new(NO_REQUEST, "`params` must be an object"))),
            },
            (Some(_), None) => Ok(Fit::Silent),
            (None, Some(_)) if self.result.is_some() != self.error.is_some() => Ok(Fit::Silent),
            (None, id) => Err((id.unwrap_or(Value::Null), Fault::no_request())),
        }
    }
}

/// Why a message is answered with an error of JSON-RPC.
struct Fault {
    code: i32,
    message: String,
    data: Option<Value>,
}

impl Fault {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    fn no_request() -> Self {
        Self::new(NO_REQUEST, "the message is no request of JSON-RPC 2.0")
    }

    fn unsupported(version: &str) -> Self {
        let data = json!({ "supported": versions(), "requested": version });
        Self {
            data: Some(data),
            ..Self::new(UNSUPPORTED_VERSION, "this version of the protocol is not supported")
        }
    }

    /// The answer to whoever sent the message with this id.
    fn answer(self, id: &Value, unfit: Option<Unfit>) -> Answered {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = self.data {
            error["data"] = data;
        }
        let text = json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string();
        Answered { text: Some(text), introduced: None, unfit }
    }
}

impl Mirror {
    /// Compares with a request of the newer era, which says everything twice.
    fn check(&self, method: &str, params: &Map<String, Value>) -> Result<(), Fault> {
        let tool = params.get("name").and_then(Value::as_str);
        let called = if method == "tools/call" { tool } else { None };
        let version = stated_version(params);
        for (header, said, is) in [
            // One that says the version only beside the message is no request of that version.
            ("MCP-Protocol-Version", &self.version, Some(version.unwrap_or_default())),
            ("Mcp-Method", &self.method, Some(method)),
            ("Mcp-Name", &self.name, called),
        ] {
            let Some(is) = is else { continue };
            let problem = match said {
                Some(said) if said == is => continue,
                Some(_) => "says something else than the message",
                None => "is missing",
            };
            return Err(Fault::new(MIRROR_MISMATCH, format!("the header `{header}` {problem}")));
        }
        Ok(())
    }
}

/// Returns the version that a request names itself; only the newer era does.
fn stated_version(params: &Map<String, Value>) -> Option<&str> {
    params.get("_meta").and_then(|meta| meta.get(META_VERSION)).and_then(Value::as_str)
}

/// Checks that a request of the newer era says everything itself that it has to; who asks may be left out.
fn check_meta(params: &Map<String, Value>) -> Result<(), Fault> {
    let meta = params.get("_meta");
    let has = |key: &str, is_fit: fn(&Value) -> bool| meta.and_then(|meta| meta.get(key)).is_some_and(is_fit);
    for (key, kind, is_there) in [
        (META_VERSION, "a string", has(META_VERSION, Value::is_string)),
        (META_CAPABILITIES, "an object", has(META_CAPABILITIES, Value::is_object)),
    ] {
        if !is_there {
            return Err(Fault::new(NO_PARAMS, format!("`_meta` must have `{key}`, {kind}")));
        }
    }
    Ok(())
}

fn is_spoken(version: &str) -> bool {
    version == MODERN || OLDER.contains(&version)
}

impl<B: Backend> McpServer<B> {
    /// Creates a server; one that only reads has no tools that change something.
    pub fn new(backend: B, read_only: bool) -> Self {
        Self { backend, read_only }
    }

    /// Returns the backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Answers one message. `known` is what the client called itself at the beginning of its session.
    ///
    /// # Cancel safety
    /// Dropping the future leaves an operation that has begun alone.
    pub async fn answer(&self, known: Option<&str>, text: &[u8]) -> Answered {
        self.answer_mirrored(known, text, None).await
    }

    /// Answers one message that came by a transport that says a part of it once more; the two have to agree.
    ///
    /// # Cancel safety
    /// As with [`McpServer::answer`].
    pub async fn answer_mirrored(
        &self,
        known: Option<&str>,
        text: &[u8],
        mirror: Option<&Mirror>,
    ) -> Answered {
        let malformed = Some(Unfit::Malformed);
        let message = match Message::read(text) {
            Ok(message) => message,
            Err(fault) => return fault.answer(&Value::Null, malformed),
        };
        let fit = match message.fit() {
            Ok(fit) => fit,
            Err((id, fault)) => return fault.answer(&id, malformed),
        };
        let said = mirror.and_then(|mirror| mirror.version.as_deref());
        let (id, method, params) = match fit {
            Fit::Request { id, method, params } => (id, method, params),
            Fit::Silent => {
                return match said.filter(|said| !is_spoken(said)) {
                    Some(said) => Fault::unsupported(said).answer(&Value::Null, malformed),
                    None => Answered::default(),
                };
            }
        };
        let stated = stated_version(&params);
        if let Some(version) = [stated, said].into_iter().flatten().find(|version| !is_spoken(version)) {
            return Fault::unsupported(version).answer(&id, malformed);
        }
        let is_modern = stated == Some(MODERN);
        if let Some(mirror) = mirror
            && (is_modern || said == Some(MODERN))
            && let Err(fault) = mirror.check(&method, &params)
        {
            return fault.answer(&id, malformed);
        }
        if (is_modern || method == DISCOVER)
            && let Err(fault) = check_meta(&params)
        {
            return fault.answer(&id, malformed);
        }
        let mut introduced = None;
        match self.run(known, &method, params, is_modern, &mut introduced).await {
            Ok(result) => {
                let text = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
                Answered { text: Some(text), introduced, unfit: None }
            }
            Err(fault) => {
                let unfit = (is_modern && fault.code == NO_METHOD).then_some(Unfit::NoSuchMethod);
                fault.answer(&id, unfit)
            }
        }
    }

    async fn run(
        &self,
        known: Option<&str>,
        method: &str,
        params: Map<String, Value>,
        is_modern: bool,
        introduced: &mut Option<String>,
    ) -> Result<Value, Fault> {
        let meta = params.get("_meta");
        let named = |info: Option<&Value>| {
            info.and_then(|info| info.get("name")).and_then(Value::as_str).map(ToOwned::to_owned)
        };
        let client = named(meta.and_then(|meta| meta.get(META_CLIENT)));
        let client = client.or_else(|| known.map(ToOwned::to_owned)).unwrap_or_else(|| "unknown".to_owned());
        let mut result = match method {
            "initialize" => {
                *introduced = Some(named(params.get("clientInfo")).unwrap_or_else(|| "unknown".to_owned()));
                let asked = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
                let version = OLDER.into_iter().find(|version| *version == asked).unwrap_or(OLDER[0]);
                json!({
                    "protocolVersion": version,
                    "capabilities": { "tools": {} },
                    "serverInfo": server_info(),
                    "instructions": INSTRUCTIONS,
                })
            }
            DISCOVER => json!({
                "supportedVersions": versions(),
                "capabilities": { "tools": {} },
                "instructions": INSTRUCTIONS,
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": { META_SERVER: server_info() },
            }),
            "ping" if !is_modern => json!({}),
            "tools/list" => {
                let mut list = json!({ "tools": self.tools().map(described).collect::<Vec<_>>() });
                if is_modern {
                    list["ttlMs"] = 0.into();
                    list["cacheScope"] = "private".into();
                }
                list
            }
            "tools/call" => self.call(&client, params).await?,
            other => return Err(Fault::new(NO_METHOD, format!("there is no method `{other}`"))),
        };
        if is_modern || method == DISCOVER {
            result["resultType"] = "complete".into();
        }
        Ok(result)
    }

    fn tools(&self) -> impl Iterator<Item = &'static Tool> {
        let read_only = self.read_only;
        TOOLS.iter().filter(move |tool| !read_only || tool.kind == Kind::Reads)
    }

    async fn call(&self, client: &str, params: Map<String, Value>) -> Result<Value, Fault> {
        let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(tool) = self.tools().find(|tool| tool.name == name) else {
            let why = match TOOLS.iter().any(|tool| tool.name == name) {
                true => "is not there: this server only reads",
                false => "does not exist",
            };
            return Err(Fault::new(NO_PARAMS, format!("the tool `{name}` {why}")));
        };
        let arguments = match params.get("arguments") {
            Some(Value::Object(arguments)) => arguments.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(Fault::new(NO_PARAMS, "`arguments` must be an object")),
        };
        if let Some(unknown) =
            arguments.keys().find(|name| !tool.parameters.iter().any(|(known, ..)| known == name))
        {
            return Err(Fault::new(NO_PARAMS, format!("the tool `{name}` has no parameter `{unknown}`")));
        }
        let client = format!("mcp:{client}");
        Ok(match self.use_tool(&client, tool, arguments).await {
            Ok(result) => told(&result, has_failed(&result)),
            Err(error) => told(&json!({ "kind": error.kind().as_str(), "message": error.message }), true),
        })
    }

    async fn use_tool(
        &self,
        client: &str,
        tool: &Tool,
        mut arguments: Map<String, Value>,
    ) -> Result<Value, RpcError> {
        let limit = |arguments: &mut Map<String, Value>, name: &str| match arguments.remove(name) {
            None | Some(Value::Null) => Ok(LINES),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(number.min(MOST_LINES)),
                None => Err(RpcError::invalid_parameter(name, "must be a whole number")),
            },
        };
        match tool.name {
            Logs::NAME => {
                let tail = limit(&mut arguments, "tail")?;
                arguments.insert("tail".to_owned(), tail.into());
                let notifications = self.backend.collect(client, Logs::NAME, arguments).await?;
                let (mut lines, mut missed) = (Vec::new(), 0);
                for notification in notifications {
                    match notification {
                        Notification::Log(line) => lines.push(json!({
                            "at_unix_ms": line.ts_unix_ms, "stream": line.stream, "line": line.line,
                        })),
                        Notification::LogGap(Gap { first, last }) => missed += last - first + 1,
                        _ => {}
                    }
                }
                Ok(json!({ "lines": lines, "missed": missed }))
            }
            Events::NAME => {
                let limit = limit(&mut arguments, "limit")?;
                let params =
                    Map::from_iter([("from".to_owned(), 1.into()), ("follow".to_owned(), false.into())]);
                let name = arguments.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
                let is_about = |path: &str| {
                    name.as_deref().is_none_or(|name| {
                        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    })
                };
                let notifications = self.backend.collect(client, Events::NAME, params).await?;
                let events = notifications.into_iter().filter_map(|notification| match notification {
                    Notification::Event(event) if is_about(&event.path) => Some(event),
                    _ => None,
                });
                let events: Vec<_> = events.collect();
                let skipped = events.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(json!({ "events": events[skipped..], "earlier": skipped }))
            }
            "check" => {
                let params = Map::from_iter([("dry_run".to_owned(), true.into())]);
                self.backend.call(client, Reload::NAME, params).await
            }
            _ => self.backend.call(client, tool.name, arguments).await,
        }
    }
}

fn versions() -> Vec<&'static str> {
    std::iter::once(MODERN).chain(OLDER).collect()
}

fn server_info() -> Value {
    json!({ "name": "xy", "title": "xy: servers of this machine", "version": env!("CARGO_PKG_VERSION") })
}

fn described(tool: &Tool) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, kind, is_required, description) in tool.parameters {
        let property = match *kind {
            "strings" => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
            "integer" => json!({ "type": "integer", "minimum": 0 }),
            kind => json!({ "type": kind }),
        };
        let mut property = property;
        property["description"] = (*description).into();
        properties.insert((*name).to_owned(), property);
        if *is_required {
            required.push(*name);
        }
    }
    json!({
        "name": tool.name,
        "description": tool.description,
        "inputSchema": {
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        },
        "annotations": {
            "readOnlyHint": tool.kind == Kind::Reads,
            "destructiveHint": tool.kind == Kind::Interrupts,
            "idempotentHint": tool.name != Restart::NAME,
            "openWorldHint": false,
        },
    })
}

/// Returns what a tool said, for people and for programs.
fn told(result: &Value, is_error: bool) -> Value {
    json!({
        "content": [{ "type": "text", "text": result.to_string() }],
        "structuredContent": result,
        "isError": is_error,
    })
}

fn has_failed(result: &Value) -> bool {
    result.get("failed").and_then(Value::as_array).is_some_and(|failed| !failed.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::protocol::error::ErrorKind;

    /// Notes what is asked, and refuses to stop.
    #[derive(Debug, Default)]
    struct Noted(Mutex<Vec<String>>);

    impl Backend for Noted {
        async fn call(
            &self,
            client: &str,
            method: &'static str,
            params: Map<String, Value>,
        ) -> Result<Value, RpcError> {
            self.0.lock().unwrap().push(format!("{client} {method} {}", Value::Object(params)));
            match method {
                "stop" => Err(RpcError::new(ErrorKind::PermissionDenied, "no")),
                "start" => Ok(json!({ "started": [], "failed": [{ "name": "a" }] })),
                _ => Ok(json!({ "servers": [] })),
            }
        }

        async fn collect(
            &self,
            client: &str,
            method: &'static str,
            params: Map<String, Value>,
        ) -> Result<Vec<Notification>, RpcError> {
            self.0.lock().unwrap().push(format!("{client} {method} {}", Value::Object(params)));
            Ok(vec![Notification::LogGap(Gap { first: 3, last: 5 })])
        }
    }

    async fn ask(server: &McpServer<Noted>, known: Option<&str>, text: &str) -> Value {
        let answered = server.answer(known, text.as_bytes()).await;
        serde_json::from_str(&answered.text.expect("an answer")).expect("JSON")
    }

    fn call(tool: &str, arguments: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        )
    }

    #[tokio::test]
    async fn the_older_era_begins_with_initialize_and_its_version() {
        let server = McpServer::new(Noted::default(), false);
        for (asked, answered) in [("2025-06-18", "2025-06-18"), ("2019-01-01", "2025-11-25")] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{asked}",
                    "capabilities":{{}},"clientInfo":{{"name":"inspector","version":"1"}}}}}}"#
            );
            let said = server.answer(None, text.as_bytes()).await;
            assert_eq!(said.introduced.as_deref(), Some("inspector"));
            let said: Value = serde_json::from_str(&said.text.unwrap()).unwrap();
            assert_eq!((&said["id"], &said["result"]["protocolVersion"]), (&json!(0), &json!(answered)));
            assert_eq!(said["result"]["serverInfo"]["name"], "xy");
        }
        let ping = ask(&server, None, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#).await;
        assert_eq!(ping, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
        let silent = server.answer(None, br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        assert_eq!(silent, Answered::default());
    }

    #[tokio::test]
    async fn the_newer_era_is_discovered_and_says_who_asks_each_time() {
        let server = McpServer::new(Noted::default(), false);
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
            "io.modelcontextprotocol/clientCapabilities":{},
            "io.modelcontextprotocol/clientInfo":{"name":"new","version":"1"}}"#;
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{{meta}}}}}"#);
        let said = ask(&server, None, &text).await;
        assert_eq!(said["result"]["supportedVersions"][0], MODERN);
        assert_eq!(said["result"]["resultType"], "complete");
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"list",{meta}}}}}"#);
        let said = ask(&server, Some("old"), &text).await;
        assert_eq!(
            (&said["result"]["isError"], &said["result"]["resultType"]),
            (&json!(false), &json!("complete"))
        );
        assert_eq!(*server.backend().0.lock().unwrap(), ["mcp:new list {}"]);
        let text = text.replace(MODERN, "2031-01-01");
        let said = ask(&server, None, &text).await;
        assert_eq!(
            (&said["error"]["code"], &said["error"]["data"]["supported"][0]),
            (&json!(-32022), &json!(MODERN))
        );
    }

    #[tokio::test]
    async fn a_request_of_the_newer_era_that_does_not_say_everything_itself_is_malformed() {
        let server = McpServer::new(Noted::default(), false);
        let (version, capabilities) = ((META_VERSION, json!(MODERN)), (META_CAPABILITIES, json!({})));
        for (method, meta, missing) in [
            ("tools/list", vec![version.clone(), capabilities.clone()], None),
            ("tools/list", vec![version.clone()], Some(META_CAPABILITIES)),
            ("tools/list", vec![version.clone(), (META_CAPABILITIES, json!(null))], Some(META_CAPABILITIES)),
            // Of the older era, as far as it says.
            ("tools/list", vec![capabilities.clone()], None),
            ("tools/list", vec![(META_VERSION, json!("2025-06-18"))], None),
            (DISCOVER, vec![version.clone(), capabilities.clone()], None),
            (DISCOVER, vec![version], Some(META_CAPABILITIES)),
            (DISCOVER, vec![capabilities], Some(META_VERSION)),
            (DISCOVER, vec![], Some(META_VERSION)),
            ("ping", vec![], None),
        ] {
            let meta: Map<String, Value> =
                meta.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let text = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "_meta": meta } });
            let answered = server.answer(None, text.to_string().as_bytes()).await;
            let said: Value = serde_json::from_str(&answered.text.expect("a request")).expect("JSON");
            let Some(missing) = missing else {
                assert!(said.get("result").is_some(), "{text}: {said}");
                continue;
            };
            assert_eq!((&said["id"], &said["error"]["code"]), (&json!(7), &json!(-32602)), "{text}");
            assert!(
                said["error"]["message"].as_str().is_some_and(|message| message.contains(missing)),
                "{said}"
            );
            assert_eq!(answered.unfit, Some(Unfit::Malformed), "{text}");
        }
    }

    #[tokio::test]
    async fn tools_are_methods_and_what_fails_is_told_as_such() {
        let server = McpServer::new(Noted::default(), false);
        let said = ask(&server, Some("x"), &call("start", r#"{"names":["a"],"reason":"b"}"#)).await;
        assert_eq!(said["result"]["isError"], true, "{said}");
        let said = ask(&server, Some("x"), &call("stop", r#"{"names":["a"]}"#)).await;
        assert_eq!(said["result"]["structuredContent"]["kind"], "permission_denied", "{said}");
        let said = ask(&server, Some("x"), &call("logs", r#"{"name":"a","tail":5000}"#)).await;
        assert_eq!(said["result"]["structuredContent"], json!({ "lines": [], "missed": 3 }));
        ask(&server, Some("x"), &call("check", "{}")).await;
        let expected = [
            r#"mcp:x start {"names":["a"],"reason":"b"}"#,
            r#"mcp:x stop {"names":["a"]}"#,
            r#"mcp:x logs {"name":"a","tail":1000}"#,
            r#"mcp:x reload {"dry_run":true}"#,
        ];
        assert_eq!(*server.backend().0.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_server_that_only_reads_has_no_tools_that_change() {
        let names = async |read_only| {
            let server = McpServer::new(Noted::default(), read_only);
            let list = ask(&server, None, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
            let names = list["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone());
            let names: Vec<Value> = names.collect();
            let said = ask(&server, None, &call("stop", r#"{"names":["a"]}"#)).await;
            assert_eq!(said["error"]["code"] == -32602, read_only, "{said}");
            names
        };
        assert_eq!(names(true).await, ["list", "status", "why", "logs", "events", "check"]);
        assert_eq!(names(false).await.len(), TOOLS.len());
    }

    #[tokio::test]
    async fn what_is_no_request_is_an_error_with_the_code_of_json_rpc() {
        let server = McpServer::new(Noted::default(), false);
        for (text, code) in [
            ("{", -32700),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
            (r#"{"id":1,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#, -32601),
            (call("explode", "{}").as_str(), -32602),
            (call("list", r#"{"x":1}"#).as_str(), -32602),
            (call("list", "[]").as_str(), -32602),
        ] {
            assert_eq!(ask(&server, None, text).await["error"]["code"], code, "{text}");
        }
        let of_client = server.answer(None, br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
        assert_eq!(of_client, Answered::default());
    }
}
