//! What MCP servers are asked through the daemon.

use serde_json::{Map, Value, json};
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{
    Call, CallParams, CatalogParams, Prompt, PromptParams, Prompts, Resource, ResourceParams, Resources,
    Tools,
};

use super::support::{World, free_port, ready, script, within};

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("expected an object: {value}") };
    members
}

fn of(name: &str) -> CatalogParams {
    CatalogParams { name: name.to_owned(), endpoint: None }
}

fn add(arguments: Value) -> CallParams {
    CallParams {
        name: "adder".to_owned(),
        tool: "add".to_owned(),
        arguments: object(arguments),
        timeout_secs: None,
        endpoint: None,
    }
}

async fn refused<M: Method>(client: &Client, params: M::Params) -> RpcError
where
    M::Result: std::fmt::Debug,
{
    match within(M::NAME, client.call::<M>(params)).await {
        Err(ClientError::Rpc(error)) => error,
        other => panic!("{} was not refused: {other:?}", M::NAME),
    }
}

#[tokio::test]
async fn what_an_mcp_server_offers_is_listed_and_used_through_the_daemon() {
    let mut world = World::new();
    let port = free_port();
    world.write("adder", &script(&format!("mcp {port}"), &format!("port: {port}, ready: Mcp")));
    let client = world.boot().await;
    ready(&client, "adder").await;

    let tools = within("tools", client.call::<Tools>(of("adder"))).await.expect("listed");
    assert_eq!(tools.tools[0]["description"], "Adds two numbers.");
    let prompts = within("prompts", client.call::<Prompts>(of("adder"))).await.expect("listed");
    assert_eq!(prompts.prompts[0]["name"], "greet");
    let resources = within("resources", client.call::<Resources>(of("adder"))).await.expect("listed");
    assert_eq!(resources.resources[0]["uri"], "file:///notes");
    assert!(resources.resource_templates.is_empty());

    let params = PromptParams {
        name: "adder".to_owned(),
        prompt: "greet".to_owned(),
        arguments: object(json!({ "who": "Ada" })),
        endpoint: None,
    };
    let filled = within("prompt", client.call::<Prompt>(params)).await.expect("filled in");
    assert_eq!(filled.result["messages"][0]["content"]["text"], "Hello, Ada!");
    let params = ResourceParams { name: "adder".to_owned(), uri: "file:///notes".to_owned(), endpoint: None };
    let read = within("resource", client.call::<Resource>(params)).await.expect("read");
    assert_eq!(read.result["contents"][0]["text"], "a note\n");
    let called = within("call", client.call::<Call>(add(json!({ "a": 40, "b": 2 })))).await.expect("called");
    assert_eq!(called.result["content"][0]["text"], "42");
    let failed = within("call", client.call::<Call>(add(json!({ "a": -1 })))).await.expect("called");
    assert_eq!(failed.result["isError"], true);
}

#[tokio::test]
async fn a_server_is_asked_only_where_it_says_or_is_said_to_speak_and_while_it_runs() {
    let mut world = World::new();
    let (port, other) = (free_port(), free_port());
    world.write("adder", &script(&format!("mcp {port}"), &format!("port: {port}, ready: Tcp")));
    world.write("off", &script("sleep-forever", &format!("port: {other}, ready: Mcp, autostart: false")));
    world.write("portless", &script("sleep-forever", ""));
    let client = world.boot().await;
    ready(&client, "adder").await;

    let error = refused::<Tools>(&client, of("adder")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let there = CatalogParams { endpoint: Some("/mcp".to_owned()), ..of("adder") };
    within("tools", client.call::<Tools>(there)).await.expect("listed");
    for endpoint in ["mcp", "/a b", "/mcp\r\nX: y"] {
        let wrong = CatalogParams { endpoint: Some(endpoint.to_owned()), ..of("adder") };
        let error = refused::<Tools>(&client, wrong).await;
        assert_eq!(error.kind(), ErrorKind::InvalidParams, "{endpoint:?}: {error}");
    }
    let error = refused::<Tools>(&client, of("off")).await;
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    let portless = CatalogParams { endpoint: Some("/mcp".to_owned()), ..of("portless") };
    let error = refused::<Tools>(&client, portless).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let error = refused::<Tools>(&client, of("nobody")).await;
    assert_eq!(error.kind(), ErrorKind::ServerNotFound, "{error}");
    let failing = CallParams { endpoint: Some("/mcp".to_owned()), ..add(json!({ "fail": true })) };
    let error = refused::<Call>(&client, failing).await;
    assert_eq!(error.kind(), ErrorKind::MethodFailed, "{error}");
    assert!(error.message.contains("`tools/call` was answered with error -32000"), "{error}");
}

#[tokio::test]
async fn a_port_that_another_process_holds_is_never_asked() {
    let mut world = World::new();
    let port = free_port();
    world.write("adder", &script("sleep-forever", &format!("port: {port}, ready: Started")));
    let client = world.boot().await;
    ready(&client, "adder").await;
    let other = std::net::TcpListener::bind(("127.0.0.1", port)).expect("still free");
    let there = CatalogParams { endpoint: Some("/mcp".to_owned()), ..of("adder") };
    let error = refused::<Tools>(&client, there).await;
    assert_eq!(error.kind(), ErrorKind::PortConflict, "{error}");
    other.set_nonblocking(true).expect("set");
    assert!(other.accept().is_err(), "nobody came");
}
