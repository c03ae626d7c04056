//! A small agent host under `xyctl`: sessions, runs with their events, memories, roles, skills and tools are methods and
//! catalogs beside those of every daemon; agents and runs are children of the host's tree.
//!
//! `cargo run -p examples --example agent_host -- --http`, then `xyctl --socket PATH list`, with the path that it prints;
//! `cargo test -p examples --example agent_host`

#[path = "agent_host/host.rs"]
mod host;

use xy_actors::supervisor::shutdown_signal;
use xy_daemon::paths::Directories;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let http = match std::env::args().nth(1).as_deref() {
        None => None,
        Some("--http") => Some("127.0.0.1:0".parse()?),
        Some(other) => return Err(format!("`{other}` is no argument; `--http` is").into()),
    };
    let directory = Directories::of_user()?.default_socket().with_file_name("agents");
    let (tree, server) = host::open(&directory, http).await?;
    println!("xyctl --socket {} list", server.socket().display());
    if let Some(base_url) = server.base_url() {
        let token = directory.join("http/http.token");
        println!(
            "curl -H \"Authorization: Bearer $(cat {})\" {base_url}/v1/catalogs/agents.roles",
            token.display()
        );
    }
    let report = tree.run_until(shutdown_signal()?).await?;
    server.ended().await;
    println!("stopped: {:?}", report.stopped);
    Ok(())
}

#[cfg(test)]
mod tests {
    use xy_daemon::client::{Client, ClientError, Subscription};
    use xy_daemon::protocol::error::ErrorKind;
    use xy_daemon::protocol::method::{
        Capabilities, CapabilitiesParams, Event, Events, EventsParams, Identify, IdentifyParams, List,
        ListParams, MethodKind, Notification, OperationParams, Restart,
    };
    use xy_daemon::registry::CatalogParams;

    use super::host::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// Waits for an event of a run.
    async fn until(events: &mut Subscription, run: &str, name: &str) -> Result<Event, ClientError> {
        let path = format!("runs/{run}");
        loop {
            match events.next().await? {
                Some(Notification::Event(event)) if event.path == path && event.event_type == name => {
                    return Ok(event);
                }
                Some(_) => {}
                None => return Err(ClientError::Closed),
            }
        }
    }

    fn refused<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ErrorKind {
        match outcome {
            Err(ClientError::Rpc(error)) => error.kind(),
            other => panic!("{other:?}"),
        }
    }

    async fn start(client: &Client, role: &str, prompt: &str) -> Result<(String, String), ClientError> {
        let role = role.to_owned();
        let SessionId { session } = client.call::<OpenSession>(OpenSessionParams { role }).await?;
        let params = StartRunParams { session: session.clone(), prompt: prompt.to_owned() };
        Ok((session, client.call::<StartRun>(params).await?.run))
    }

    async fn list(client: &Client) -> Result<RunList, ClientError> {
        client.call::<ListRuns>(ListRunsParams::default()).await
    }

    #[tokio::test]
    async fn a_run_is_a_child_that_tells_of_its_steps_and_is_remembered() -> Outcome {
        let directory = tempfile::tempdir()?;
        let (tree, server) = open(&directory.path().join("host"), None).await?;
        let client = Client::connect(server.socket()).await?;
        let mut events = client.subscribe::<Events>(EventsParams::default()).await?;

        client.call::<Remember>(RememberParams { text: "the oven is hot".to_owned() }).await?;
        let (session, run) = start(&client, "scribe", "check the oven").await?;
        let done = until(&mut events, &run, "run_done").await?;
        assert_eq!(done.payload["answer"], "7 words: check the oven");
        let runs = list(&client).await?;
        assert_eq!((runs.active, runs.runs[0].answer.as_deref()), (0, Some("7 words: check the oven")));
        assert_eq!(client.call::<Sessions>(CatalogParams {}).await?.items[0].id, session);

        let memories = client.call::<Memories>(CatalogParams {}).await?.items;
        let texts: Vec<_> = memories.iter().map(|memory| memory.text.as_str()).collect();
        assert_eq!(texts, ["the oven is hot", "check the oven: 7 words: check the oven"]);
        let search = |query: &str, limit| SearchParams { query: query.to_owned(), limit };
        let found = client.call::<SearchMemories>(search("check oven", 1)).await?.found;
        assert_eq!((found.len(), found[0].id, found[0].score), (1, 2, 1.0));
        assert_eq!(refused(client.call::<SearchMemories>(search("oven", 0)).await), ErrorKind::InvalidParams);
        client.call::<Forget>(MemoryId { memory: 2 }).await?;
        assert_eq!(refused(client.call::<Forget>(MemoryId { memory: 2 }).await), ErrorKind::MethodFailed);
        let found = client.call::<SearchMemories>(search("check oven", 9)).await?.found;
        assert_eq!((found[0].id, found[0].score, found[0].snippet.as_str()), (1, 0.5, "the oven is hot"));

        tree.shutdown().await;
        server.ended().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_run_that_asks_is_active_until_it_has_its_reply_or_is_canceled() -> Outcome {
        let directory = tempfile::tempdir()?;
        let (tree, server) = open(&directory.path().join("host"), None).await?;
        let client = Client::connect(server.socket()).await?;
        let mut events = client.subscribe::<Events>(EventsParams::default()).await?;
        let (_, first) = start(&client, "interviewer", "plan a party").await?;
        until(&mut events, &first, "run_asks").await?;
        let (session, second) = start(&client, "interviewer", "plan a trip").await?;
        until(&mut events, &second, "run_asks").await?;
        assert_eq!(list(&client).await?.active, 2);
        let servers = client.call::<List>(ListParams {}).await?.servers;
        let names: Vec<_> = servers.iter().map(|one| one.name.clone()).collect();
        let expected = ["agents", "agents/scribe", "agents/interviewer", "desk", "memory", "runs"];
        let expected = expected.map(ToOwned::to_owned).into_iter();
        let expected: Vec<_> = expected.chain([&first, &second].map(|run| format!("runs/{run}"))).collect();
        assert_eq!(names, expected);

        let reply = || ReplyParams { run: first.clone(), text: "for ten".to_owned() };
        client.call::<Reply>(reply()).await?;
        let done = until(&mut events, &first, "run_done").await?;
        assert_eq!(done.payload["answer"], "5 words: plan a party");
        assert_eq!(refused(client.call::<Reply>(reply()).await), ErrorKind::MethodFailed);
        let closed = client.call::<CloseSession>(SessionId { session: session.clone() }).await?;
        assert_eq!(closed.canceled, [second.as_str()]);
        until(&mut events, &second, "run_canceled").await?;
        let runs = list(&client).await?;
        assert_eq!((runs.active, runs.runs[1].answer.as_deref()), (0, None));
        let params = StartRunParams { session, prompt: "more".to_owned() };
        assert_eq!(refused(client.call::<StartRun>(params).await), ErrorKind::MethodFailed);

        let (_, third) = start(&client, "interviewer", "plan a day").await?;
        until(&mut events, &third, "run_asks").await?;
        client.call::<CancelRun>(RunId { run: third.clone() }).await?;
        assert_eq!(refused(client.call::<CancelRun>(RunId { run: third }).await), ErrorKind::MethodFailed);
        client.call::<Restart>(OperationParams::named("desk")).await?;
        assert_eq!(client.call::<Sessions>(CatalogParams {}).await?.items.len(), 0);
        tree.shutdown().await;
        server.ended().await;
        Ok(())
    }

    #[tokio::test]
    async fn what_the_host_answers_is_described_and_its_own_policy_binds_assistants() -> Outcome {
        let directory = tempfile::tempdir()?;
        let (tree, server) = open(&directory.path().join("host"), None).await?;
        let client = Client::connect(server.socket()).await?;
        let known = client.call::<Capabilities>(CapabilitiesParams {}).await?.registered;
        let of = |kind| known.iter().filter(|one| one.kind == kind).count();
        let counts = [MethodKind::Catalog, MethodKind::Query, MethodKind::Method].map(of);
        assert_eq!(counts, [5, 2, 7]);
        let (roles, skills) = (
            client.call::<Roles>(CatalogParams {}).await?.items,
            client.call::<Skills>(CatalogParams {}).await?.items,
        );
        let tools = client.call::<Tools>(CatalogParams {}).await?.items;
        assert!(
            roles.iter().flat_map(|role| &role.skills).all(|name| skills.iter().any(|one| one.name == *name))
        );
        assert!(
            skills
                .iter()
                .filter_map(|one| one.tool.as_ref())
                .all(|tool| tools.iter().any(|one| one.name == *tool))
        );

        let assistant = Client::connect(server.socket()).await?;
        let name = IdentifyParams { client: "mcp:robot".to_owned(), agent: true };
        assistant.call::<Identify>(name).await?;
        let stop = assistant.call::<xy_daemon::protocol::method::Stop>(OperationParams::named("desk")).await;
        assert_eq!(refused(stop), ErrorKind::PermissionDenied);
        tree.shutdown().await;
        server.ended().await;
        let audit = std::fs::read_to_string(directory.path().join("host/records/audit.log"))?;
        assert!(audit.contains("mcp:robot") && audit.contains("denied"), "{audit}");
        Ok(())
    }
}
