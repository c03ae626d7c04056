//! The OpenAPI document: the table of endpoints and the types of the wire, put together (pure).

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::answer::{Capabilities, DaemonStatus, Health, Refusal, Tail};
use super::route::{Access, BodyRule, Endpoint, ParameterKind, ROUTES, Route};
use crate::protocol::method::{MethodKind, Operation, RegisteredMethod, descriptions};
use crate::protocol::schema::{Definitions, MethodSchema};
use crate::protocol::scope::scope_of_registered;

/// What the path and the query say of an operation, and its body does not.
pub(super) const SAID_BY_PATH: [&str; 3] = ["names", "all", "wait"];

/// What the path says of a question, and its body does not.
pub(super) const SAID_BY_SEGMENT: [&str; 1] = ["name"];

/// The least that JSON-RPC 2.0 asks of a request with such an id and such parameters.
fn json_rpc_request(id: &[&str], params: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": {
            "jsonrpc": { "const": "2.0" },
            "id": { "type": id },
            "method": { "type": "string" },
            "params": { "type": params },
        },
        "required": ["jsonrpc", "method"],
    })
}

/// A request of JSON-RPC 2.0, or a batch.
fn json_rpc() -> Value {
    let request = json_rpc_request(&["string", "number", "null"], &["object", "array"]);
    json!({ "anyOf": [request, { "type": "array", "items": request, "minItems": 1, "maxItems": 100 }] })
}

/// An error of JSON-RPC 2.0.
fn json_rpc_error() -> Value {
    let error = json!({
        "type": "object",
        "properties": { "code": { "type": "integer" }, "message": { "type": "string" }, "data": true },
        "required": ["code", "message"],
    });
    json!({
        "type": "object",
        "properties": {
            "jsonrpc": { "const": "2.0" },
            "id": { "type": ["string", "number", "null"] },
            "error": error,
        },
        "required": ["jsonrpc", "id", "error"],
    })
}

/// Returns the document of a daemon with these registered methods.
pub fn document<'a>(registered: impl Iterator<Item = &'a RegisteredMethod>) -> Value {
    let mut schemas = Definitions::at("/components/schemas");
    let methods = descriptions(Some(&mut schemas));
    let refusal = schemas.of_result::<Refusal<'_>>();
    let mut book = Book { methods, schemas, refusal };
    let mut paths = Map::new();
    for route in &ROUTES {
        // In their stead there is a path for each that is registered.
        if matches!(route.endpoint, Endpoint::Registered | Endpoint::Catalog) {
            continue;
        }
        enter(&mut paths, route.path, route, operation(route, &mut book));
    }
    for method in registered {
        for route in ROUTES.iter().filter(|route| answers(route, method.kind)) {
            let mut operation = operation(route, &mut book);
            operation["operationId"] = format!("{} {}", route.verb.as_str(), method.name).into();
            operation["summary"] = method.description.clone().into();
            operation["parameters"] = json!([]);
            operation["security"] = json!([{ "token": [scope_of_registered(method.kind)] }]);
            if route.body == BodyRule::Json {
                operation["requestBody"] = body(method.params.clone());
            }
            operation["responses"]["200"] = answer("the result", "application/json", method.result.clone());
            enter(&mut paths, &route.path.replace("{name}", &method.name), route, operation);
        }
    }
    let schemas = book.schemas.finish();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "xyd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane of a supervision tree, on a loopback address.",
        },
        "security": [{ "token": [] }],
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
        "paths": paths,
    })
}

fn enter(paths: &mut Map<String, Value>, path: &str, route: &Route, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[route.verb.as_str().to_ascii_lowercase()] = operation;
}

fn answers(route: &Route, kind: MethodKind) -> bool {
    match route.endpoint {
        Endpoint::Registered => true,
        Endpoint::Catalog => kind == MethodKind::Catalog,
        _ => false,
    }
}

/// What the document is made from, and what it refers to.
struct Book {
    methods: Vec<MethodSchema>,
    schemas: Definitions,
    refusal: Value,
}

impl Book {
    fn method(&self, name: &str) -> &MethodSchema {
        self.methods.iter().find(|method| method.name == name).expect("a route names a method that there is")
    }

    /// An answer of this type.
    fn of<T: JsonSchema>(&mut self, description: &str) -> Value {
        answer(description, "application/json", self.schemas.of_result::<T>())
    }
}

fn operation(route: &Route, book: &mut Book) -> Value {
    let mut parameters = Vec::new();
    for segment in route.path.split('/').filter_map(|segment| segment.strip_prefix('{')) {
        let name = segment.trim_end_matches('}');
        let schema = json!({ "type": "string", "minLength": 1 });
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    for parameter in route.query {
        let schema = match parameter.kind {
            ParameterKind::Number => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
            ParameterKind::Flag => json!({ "type": "boolean" }),
            ParameterKind::Text => json!({ "type": "string" }),
        };
        parameters.push(json!({ "name": parameter.name, "in": "query", "schema": schema }));
    }
    let mut operation = json!({
        "operationId": format!("{} {}", route.verb.as_str(), route.path),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses(route, book),
    });
    operation["security"] = match route.access {
        Access::Open => json!([]),
        Access::Token => json!([{ "token": [route.scope()] }]),
    };
    if route.body == BodyRule::Json {
        operation["requestBody"] = body(body_of(route, book));
    }
    operation
}

fn body(schema: Value) -> Value {
    json!({ "content": { "application/json": { "schema": schema } } })
}

fn answer(description: &str, content_type: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { content_type: { "schema": schema } } })
}

fn body_of(route: &Route, book: &Book) -> Value {
    let nothing = json!({ "type": "object", "additionalProperties": false });
    match route.endpoint {
        Endpoint::Operate(name)
        | Endpoint::Administer(name)
        | Endpoint::Command(name)
        | Endpoint::Ask(name) => {
            let mut schema = book.method(name).params.clone();
            let said: &[&str] = match route.endpoint {
                Endpoint::Operate(_) => &SAID_BY_PATH,
                Endpoint::Ask(_) => &SAID_BY_SEGMENT,
                _ => &[],
            };
            if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
                properties.retain(|name, _| !said.contains(&name.as_str()));
            }
            if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name.as_str().is_none_or(|name| !said.contains(&name)));
            }
            schema
        }
        Endpoint::Decide(name) => {
            let mut schema = book.method(name).params.clone();
            if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
                properties.retain(|name, _| name != "id");
            }
            // The path says the only one that is required.
            if let Some(schema) = schema.as_object_mut() {
                schema.remove("required");
            }
            schema
        }
        Endpoint::Rpc => json_rpc(),
        Endpoint::Mcp => json_rpc_request(&["string", "number"], &["object", "null"]),
        _ => nothing,
    }
}

fn responses(route: &Route, book: &mut Book) -> Value {
    let mut responses = Map::new();
    let mut put = |status: &str, response: Value| _ = responses.insert(status.to_owned(), response);
    let result =
        |book: &Book, name| answer("the result", "application/json", book.method(name).result.clone());
    let text = || json!({ "type": "string" });
    match route.endpoint {
        Endpoint::Health => put("200", book.of::<Health>("it answers")),
        Endpoint::Status => put("200", book.of::<DaemonStatus>("the daemon in short")),
        Endpoint::Query(name)
        | Endpoint::Server(name)
        | Endpoint::Ask(name)
        | Endpoint::Command(name)
        | Endpoint::Decide(name) => put("200", result(book, name)),
        Endpoint::Operate(name) | Endpoint::Administer(name) | Endpoint::Remove(name) => {
            put("200", result(book, name));
            put("202", book.of::<Operation>("the operation, if nobody waits"));
        }
        Endpoint::Logs => {
            let mut logs = book.of::<Tail>("lines, as JSON or as a stream");
            logs["content"]["text/event-stream"] = json!({ "schema": text() });
            put("200", logs);
        }
        Endpoint::Events => put("200", answer("a stream", "text/event-stream", text())),
        Endpoint::Capabilities => put("200", book.of::<Capabilities>("what can be asked")),
        Endpoint::Description => {
            put("200", answer("the document", "application/json", json!({ "type": "object" })));
        }
        Endpoint::Registered | Endpoint::Catalog => {
            put("200", answer("the result", "application/json", json!(true)));
        }
        Endpoint::Rpc => {
            let answers = json!({ "type": ["object", "array"] });
            put("200", answer("an answer, or those of a batch", "application/json", answers));
            put("204", json!({ "description": "there is nothing to answer" }));
        }
        Endpoint::Mcp => {
            let message = json!({ "type": "object" });
            put("200", answer("an answer of MCP", "application/json", message));
            put("202", json!({ "description": "there is nothing to answer" }));
        }
        Endpoint::Operation => put("200", book.of::<Operation>("the operation")),
        Endpoint::Metrics => put("200", answer("the measurements", "text/plain", text())),
    }
    let refusal = |description: &str| answer(description, "application/json", book.refusal.clone());
    for status in route.refusals() {
        put(&status.as_u16().to_string(), refusal(status.canonical_reason().unwrap_or("a refusal")));
    }
    if matches!(route.endpoint, Endpoint::Mcp) {
        // The transport of MCP has a status for what is no message, and for a method of the newer era that there is not.
        let either = json!({ "anyOf": [book.refusal, json_rpc_error()] });
        put("400", answer("Bad Request, or an error of JSON-RPC", "application/json", either.clone()));
        put("404", answer("no such session, or an error of JSON-RPC", "application/json", either));
    }
    // Written by the reader of heads, which knows no other form.
    put("431", json!({ "description": "the head is too large" }));
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_described_and_no_other() {
        let document = document(std::iter::empty());
        let paths = document["paths"].as_object().expect("paths");
        let described: usize = paths.values().map(|item| item.as_object().map_or(0, Map::len)).sum();
        let registered = |route: &&Route| matches!(route.endpoint, Endpoint::Registered | Endpoint::Catalog);
        assert_eq!(described, ROUTES.len() - ROUTES.iter().filter(registered).count());
        for route in ROUTES.iter().filter(|route| !registered(route)) {
            let operation = &paths[route.path][route.verb.as_str().to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{}", route.path);
        }
    }

    #[test]
    fn what_a_program_has_registered_is_described_by_its_own_types() {
        let registered = RegisteredMethod {
            name: "shop.items".to_owned(),
            kind: MethodKind::Catalog,
            description: "What is sold.".to_owned(),
            params: json!({ "type": "object" }),
            result: json!({ "type": "object", "required": ["items"] }),
        };
        let document = document(std::iter::once(&registered));
        let catalog = &document["paths"]["/v1/catalogs/shop.items"]["get"];
        let schema = &catalog["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(schema["required"], json!(["items"]), "{catalog}");
        assert!(document["paths"]["/v1/methods/shop.items"]["post"].is_object());
    }
}
