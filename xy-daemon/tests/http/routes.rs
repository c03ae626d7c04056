//! Every endpoint: what it needs, what it does, and how it refuses.

use serde_json::json;
use xy_daemon::http::route::{Access, BodyRule, ROUTES};
use xy_daemon::protocol::method::METHODS;

use super::server::Server;

fn target(path: &str) -> String {
    path.replace("{path}", "files").replace("{id}", "none").replace("{name}", "shop.none")
}

#[tokio::test]
async fn every_endpoint_needs_what_its_row_of_the_table_says() {
    let server = Server::with(xy_daemon::http::Limits { wrong_tokens: u32::MAX, ..Default::default() }).await;
    let (address, headers) = (server.address, server.headers());
    for route in &ROUTES {
        let (verb, target) = (route.verb.as_str(), target(route.path));
        let verbs: Vec<&str> =
            ROUTES.iter().filter(|other| other.path == route.path).map(|other| other.verb.as_str()).collect();
        let length = "Content-Length: 2\r\n";
        let json = format!("{length}Content-Type: application/json\r\n");

        let text = format!("{verb} {target} HTTP/1.1\r\nHost: {address}\r\n{json}\r\n{{}}");
        let expected = if route.access == Access::Open { 200 } else { 401 };
        assert_eq!(server.send(text).await.status, expected, "{verb} {target} without the token");

        for other in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"] {
            if verbs.contains(&other) {
                continue;
            }
            let mut wire = server.connect().await;
            wire.send(format!("{other} {target} HTTP/1.1\r\n{headers}{json}\r\n{{}}")).await;
            let answer = wire.head().await.expect("an answer");
            assert_eq!(answer.status, 405, "{other} {target}");
            assert_eq!(answer.header("allow"), Some(&*verbs.join(", ")), "{other} {target}");
        }

        if route.body == BodyRule::Json {
            for content_type in [
                "",
                "Content-Type: text/plain\r\n",
                "Content-Type: application/x-www-form-urlencoded\r\n",
                "Content-Type: multipart/form-data\r\n",
                "Content-Type: application/jsonx\r\n",
                "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
            ] {
                let text = format!("{verb} {target} HTTP/1.1\r\n{headers}{length}{content_type}\r\n{{}}");
                assert_eq!(server.send(text).await.status, 415, "{verb} {target} {content_type}");
            }
        }

        let answer = server.send(server.text(verb, &format!("{target}?invented=1"), "", "{}")).await;
        let refused = (answer.status, answer.json()["error"]["parameter"].clone());
        assert_eq!(refused, (400, json!("invented")), "{verb} {target}");
    }
}

#[tokio::test]
async fn questions_are_answered_with_the_results_of_their_methods() {
    let server = Server::start().await;
    let list = server.get("/v1/servers").await;
    assert_eq!(list.header("content-type"), Some("application/json"));
    assert_eq!(list.header("cache-control"), Some("no-store"));
    assert_eq!(list.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(list.json()["servers"][0]["name"], "files");
    assert_eq!(server.get("/v1/servers/files").await.json()["name"], "files");
    assert_eq!(server.get("/v1/servers/group%2Fchild").await.json()["name"], "group/child");
    assert_eq!(server.get("/v1/version").await.json()["version"], "1.2.3");
    let status = server.get("/v1/status").await.json();
    assert_eq!((&status["pid"], &status["servers"], &status["ready"]), (&json!(7), &json!(1), &json!(1)));
    assert_eq!(status["states"], json!({ "running": 1 }));
    let missing = server.get("/v1/servers/missing").await;
    assert_eq!((missing.status, missing.kind().as_str()), (404, "server_not_found"));
    let usage = server.get("/v1/usage").await;
    assert_eq!((usage.status, usage.kind().as_str()), (422, "unsupported"), "the script has none");
    let panic = server.get("/v1/servers/panic").await;
    assert_eq!((panic.status, panic.kind().as_str()), (500, "internal_error"));
    assert!(!panic.body.contains("scripted"), "{panic:?}");
}

#[tokio::test]
async fn who_waits_gets_the_result_and_who_does_not_an_operation_that_has_it_later() {
    let server = Server::start().await;
    for (verb, list) in
        [("start", "started"), ("stop", "stopped"), ("pause", "paused"), ("resume", "resumed")]
    {
        let answer = server.post(&format!("/v1/servers/a%2Fb/{verb}?wait=true"), "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()[list], json!(["a/b"]), "{verb}");
    }
    let body = r#"{"signal": "HUP", "reason": "because"}"#;
    let answer = server.post("/v1/servers/files/signal?wait", body).await;
    assert_eq!(answer.json()["signaled"], json!(["files"]), "{answer:?}");

    let answer = server.post("/v1/servers/files/start", r#"{"reason": "because"}"#).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let operation = answer.json();
    assert_eq!((&operation["method"], &operation["server"]), (&json!("start"), &json!("files")));
    let location = answer.header("location").expect("it has a place").to_owned();
    assert_eq!(location, format!("/v1/operations/{}", operation["id"].as_str().expect("an id")));
    let done = super::script::within("the operation", async {
        loop {
            let operation = server.get(&location).await.json();
            if operation["state"] == "done" {
                return operation;
            }
        }
    });
    assert_eq!(done.await["result"]["started"], json!(["files"]));
    let operations = server.get("/v1/operations").await.json();
    assert_eq!(operations["operations"][0]["id"], operation["id"]);
    assert_eq!(operations["operations"].as_array().map(Vec::len), Some(6));
    let unknown = server.get("/v1/operations/8-77").await;
    assert_eq!((unknown.status, unknown.kind().as_str()), (404, "operation_not_found"));
}

#[tokio::test]
async fn an_operation_that_fails_is_answered_as_a_failure_with_its_result() {
    let server = Server::start().await;
    let answer = server.post("/v1/servers/files/restart?wait=true", "{}").await;
    assert_eq!((answer.status, answer.kind().as_str()), (404, "server_not_found"));
    assert_eq!(answer.json()["result"]["failed"][0]["name"], "files");
    let answer = server.post("/v1/admin/reload?wait=true", "{}").await;
    assert_eq!((answer.status, answer.kind().as_str()), (422, "unsupported"));
    let answer = server.post("/v1/admin/shutdown?wait=true", r#"{"reason": "because"}"#).await;
    assert_eq!((answer.status, answer.json()["stopping"].clone()), (200, json!(true)));
}

#[tokio::test]
async fn a_mistake_in_a_request_is_told_at_once() {
    let server = Server::start().await;
    for (target, body, kind, parameter) in [
        ("/v1/servers/files/start", r#"{"names": ["other"]}"#, "invalid_params", json!("names")),
        ("/v1/servers/files/start", r#"{"all": true}"#, "invalid_params", json!("all")),
        ("/v1/servers/files/start", r#"{"wait": true}"#, "invalid_params", json!("wait")),
        ("/v1/servers/files/start", r#"{"invented": 1}"#, "invalid_params", json!("invented")),
        ("/v1/servers/files/start", r#"{"reason": 1}"#, "invalid_params", json!("reason")),
        ("/v1/servers/files/signal", "{}", "invalid_params", json!("signal")),
        ("/v1/servers/files/signal", r#"{"signal": "WINCH"}"#, "invalid_params", json!("signal")),
        ("/v1/servers/files/start?wait=yes", "{}", "invalid_params", json!("wait")),
        ("/v1/servers/files/start", "[]", "invalid_request", json!(null)),
        ("/v1/servers/files/start", "{", "parse_error", json!(null)),
        ("/v1/servers/files/start", r#"{"reason": "a", "reason": "b"}"#, "parse_error", json!(null)),
        ("/v1/servers/files/start", "\u{feff}{}", "parse_error", json!(null)),
        ("/v1/admin/rotate-token", r#"{"invented": 1}"#, "invalid_params", json!("invented")),
        ("/v1/admin/reload", r#"{"dry_run": 1}"#, "invalid_params", json!("dry_run")),
        ("/v1/servers/files/start?wait=true&wait=true", "{}", "invalid_request", json!(null)),
    ] {
        let answer = server.post(target, body).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, kind), "{target} {body} {answer:?}");
        assert_eq!(answer.json()["error"]["parameter"], parameter, "{target} {body}");
    }
    for query in ["tail=x", "tail=-1", "tail=+1", "tail=", "follow=1", "since_unix_ms=99999999999999999999"] {
        let answer = server.get(&format!("/v1/servers/files/logs?{query}")).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "invalid_params"), "{query}");
    }
    let operations = server.get("/v1/operations").await.json();
    assert_eq!(operations["operations"], json!([]), "none of them became an operation");
}

#[tokio::test]
async fn a_path_that_climbs_reaches_nothing() {
    let server = Server::start().await;
    for name in
        ["..", ".", "%2e%2e", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "a%2F..%2Fb", "a%2F%2Fb", "a%2F"]
    {
        for rest in ["", "/logs"] {
            let answer = server.get(&format!("/v1/servers/{name}{rest}")).await;
            assert_eq!((answer.status, answer.kind().as_str()), (404, "server_not_found"), "{name}{rest}");
        }
        assert_eq!(server.post(&format!("/v1/servers/{name}/stop"), "").await.status, 404, "{name}");
    }
    for target in ["/v1/servers/../status", "/v1/servers/a/../b", "//v1/status", "/v1//status", "/V1/status"]
    {
        let answer = server.get(target).await;
        assert_eq!((answer.status, answer.kind().as_str()), (404, "endpoint_not_found"), "{target}");
    }
    for target in
        ["/v1/servers/%", "/v1/servers/%zz", "/v1/servers/%00", "/v1/servers/%0d%0aX:1", "/v1/servers/%ff"]
    {
        assert_eq!(server.get(target).await.status, 400, "{target}");
    }
}

#[tokio::test]
async fn json_rpc_is_that_of_the_socket() {
    let server = Server::start().await;
    let answer = server.post("/v1/rpc", r#"{"jsonrpc":"2.0","id":"x","method":"list"}"#).await;
    assert_eq!(answer.json()["result"]["servers"][0]["name"], "files");
    assert_eq!(answer.json()["id"], "x");
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"version"},{"jsonrpc":"2.0","method":"list"},{"jsonrpc":"2.0","id":2,"method":"none"},7]"#;
    let answers = server.post("/v1/rpc", batch).await.json();
    assert_eq!(answers[0]["result"]["pid"], 7);
    assert_eq!(answers[1]["error"]["code"], -32601);
    assert_eq!(answers[2]["error"]["code"], -32600);
    assert_eq!(answers.as_array().map(Vec::len), Some(3));
    let notification = server.post("/v1/rpc", r#"{"jsonrpc":"2.0","method":"list"}"#).await;
    assert_eq!((notification.status, notification.body.as_str()), (204, ""));
    for (text, code) in [
        ("", -32700),
        ("{", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"events"}"#, -32000),
    ] {
        let answer = server.post("/v1/rpc", text).await;
        assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (200, json!(code)), "{text}");
    }
    let panic = r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":"panic"}}"#;
    assert_eq!(server.post("/v1/rpc", panic).await.json()["error"]["code"], -32603);
}

#[tokio::test]
async fn several_requests_on_one_connection_are_answered_in_their_order() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let text: String =
        ["a", "b", "c"].map(|name| server.text("GET", &format!("/v1/servers/{name}"), "", "")).concat();
    wire.send(text).await;
    for name in ["a", "b", "c"] {
        assert_eq!(wire.answer().await.json()["name"], name);
    }
}

#[tokio::test]
async fn capabilities_name_every_method_and_every_endpoint() {
    let server = Server::start().await;
    let capabilities = server.get("/v1/capabilities").await.json();
    assert_eq!(capabilities["methods"], json!(METHODS));
    let paths: Vec<_> = ROUTES.iter().map(|route| json!(route.path)).collect();
    let told: Vec<_> =
        capabilities["endpoints"].as_array().expect("a list").iter().map(|one| one["path"].clone()).collect();
    assert_eq!(told, paths);
}

#[tokio::test]
async fn diagnostics_and_metrics_say_what_is_measured_and_no_secret() {
    let server = Server::start().await;
    server.get("/v1/servers/files").await;
    let diagnostics = server.get("/v1/diagnostics").await;
    assert_eq!(diagnostics.json()["http"]["token_source"], "generated");
    assert_eq!(diagnostics.json()["http"]["base_url"], format!("http://{}", server.address));
    assert_eq!(diagnostics.json()["daemon"]["version"], "1.2.3");
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "xy_server_state{server=\"files\",state=\"running\"} 1\n",
        "xy_server_state{server=\"files\",state=\"failed\"} 0\n",
        "xy_server_uptime_seconds{server=\"files\"} 3\n",
        "xy_http_requests_total{route=\"/v1/servers/{path}\",status=\"200\"} 1\n",
        "xy_http_request_seconds_count{route=\"/v1/servers/{path}\"} 1\n",
    ] {
        assert!(metrics.body.contains(line), "{line}in\n{}", metrics.body);
    }
    for answer in [diagnostics, metrics] {
        assert!(!answer.body.contains(&server.token()));
    }
}
