//! The agent host of the examples under the real `xyctl`, and its methods over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use xy_daemon::http::connection_file::{CONNECTION_FILE, Connection};

use crate::xyctl;

#[path = "../../../examples/agent_host/host.rs"]
mod host;

/// Asks over HTTP.
fn http(connection: &Connection, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let address = &connection.base_url["http://".len()..];
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(xyctl::DEADLINE)).expect("a socket");
    let (token, body) =
        (connection.token.expose(), if method == "GET" { String::new() } else { body.to_string() });
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).expect("JSON"))
}

/// Lets `drive` use a host that serves at a socket and over HTTP, and ends it by `xyctl shutdown`.
fn with_host(drive: impl FnOnce(&Path, &Connection)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().join("host");
    let (served, is_served) = mpsc::channel();
    let thread = thread::spawn({
        let place = place.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let address = "127.0.0.1:0".parse().expect("an address");
                let (tree, server) = host::open(&place, Some(address)).await.expect("it is served");
                served.send(server.socket().to_owned()).expect("the test waits");
                tree.ended().await;
                server.ended().await;
            });
        }
    });
    let socket = is_served.recv().expect("the host serves");
    let connection = Connection::read(&place.join("http").join(CONNECTION_FILE)).expect("it is there");
    drive(&socket, &connection);
    let ended = xyctl::run(&socket, &["shutdown"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    thread.join().expect("the host has ended");
}

#[test]
fn agents_and_runs_are_listed_and_asked_about_like_everything_else() {
    with_host(|socket, connection| {
        let names = || -> Vec<String> {
            let list = xyctl::run(socket, &["list", "--json"]);
            let list: Value = serde_json::from_str(list.text()).expect("JSON");
            let servers = list["servers"].as_array().expect("a list");
            servers.iter().filter_map(|one| one["name"].as_str().map(ToOwned::to_owned)).collect()
        };
        let still = ["agents", "agents/scribe", "agents/interviewer", "desk", "memory", "runs"];
        assert_eq!(names(), still);
        let call =
            |name: &str, params: Value| http(connection, "POST", &format!("/v1/methods/{name}"), &params);
        let (status, opened) = call("agents.open_session", json!({ "role": "interviewer" }));
        assert_eq!(status, 200, "{opened}");
        let session = opened["session"].clone();
        let (_, run) = call("agents.start_run", json!({ "session": session, "prompt": "plan a party" }));
        let run = run["run"].as_str().expect("a run").to_owned();
        let path = format!("runs/{run}");
        assert!(names().contains(&path));
        let why = xyctl::run(socket, &["why", &path]);
        assert!(why.text().starts_with(&format!("{path}: running")), "{why:?}");
        assert_eq!(call("agents.runs", json!({})).1["active"], 1);

        let catalog = |name: &str| http(connection, "GET", &format!("/v1/catalogs/{name}"), &Value::Null).1;
        for (name, count) in [
            ("agents.roles", 2),
            ("agents.skills", 3),
            ("agents.tools", 2),
            ("agents.sessions", 1),
            ("agents.memories", 0),
        ] {
            assert_eq!(catalog(name)["items"].as_array().map(Vec::len), Some(count), "{name}");
        }
        let (status, _) = call("agents.remember", json!({ "text": "parties need cake" }));
        assert_eq!(status, 200);
        let (_, found) = call("agents.search_memories", json!({ "query": "cake for parties", "limit": 1 }));
        assert_eq!(found["found"][0]["snippet"], "parties need cake", "{found}");
        let (status, refused) = call("agents.search_memories", json!({ "query": "cake", "limit": 0 }));
        assert_eq!((status, &refused["error"]["parameter"]), (400, &json!("limit")));

        let (_, canceled) = call("agents.cancel_run", json!({ "run": run }));
        assert_eq!(canceled, json!({}));
        assert_eq!(call("agents.runs", json!({})).1["active"], 0);
        assert_eq!(names(), still);
        let events = xyctl::run(socket, &["events"]);
        for event in ["run step", "run canceled"] {
            assert!(events.text().contains(event), "{event}: {events:?}");
        }
    });
}
