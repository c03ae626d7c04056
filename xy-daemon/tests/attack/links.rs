//! Symbolic links where the daemon writes: they are replaced or refused, and what they lead to stays as it was.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::Path;

use nix::sys::signal::Signal;
use xy_daemon::protocol::method::{Disable, OperationParams, Stop, TokenAdd, TokenAddParams};
use xy_daemon::protocol::scope::Scope;

use crate::support::{World, script, until, within};

/// What a link leads to, as somebody wants to have it overwritten.
const PRECIOUS: &str = "precious\n";

fn private_directory(path: &Path) {
    DirBuilder::new().recursive(true).mode(0o700).create(path).expect("created");
}

/// Starts a daemon with HTTP in a world where `link` leads to a file, or to a directory, and waits until it serves or ends.
async fn survives(link: &str, is_directory: bool) {
    let server = script("lines 3 sleep-forever", "");
    let mut world = World::with(&[("web", server)]).argument("--http").argument("127.0.0.1:0");
    let (victim, link) = (world.path("victim"), world.path(link));
    private_directory(link.parent().expect("below the test's directory"));
    if is_directory {
        private_directory(&victim);
    } else {
        fs::write(&victim, PRECIOUS).expect("written");
    }
    symlink(&victim, &link).expect("linked");
    world.start();
    let is_served = until("serving or an end", || {
        let has_ended = world.has_ended().is_some();
        let told = fs::read_to_string(world.path("state/xy/xyd.json"));
        let is_up = told.is_ok_and(|text| text.contains("token")) && world.socket().exists();
        async move { (has_ended || is_up).then_some(!has_ended) }
    })
    .await;
    if is_served {
        // Its server has printed, so that the log has been opened, too.
        let client = world.connect().await;
        crate::support::ready(&client, "web").await;
        within("stop", client.call::<Stop>(OperationParams::named("web"))).await.expect("answered");
        world.signal(Signal::SIGTERM);
        world.ended().await;
    } else {
        let said = world.said();
        assert!(
            said.contains(link.file_name().and_then(|name| name.to_str()).expect("text")),
            "it says why: {said}"
        );
    }
    if is_directory {
        let inside = fs::read_dir(&victim).expect("it is there").count();
        assert_eq!(inside, 0, "{} led somewhere", link.display());
    } else {
        assert_eq!(
            fs::read_to_string(&victim).expect("it is there"),
            PRECIOUS,
            "{} was written through",
            link.display()
        );
    }
}

#[tokio::test]
async fn the_directory_of_the_socket_is_no_link() {
    survives("run/xy", true).await;
}

#[tokio::test]
async fn the_socket_is_no_link() {
    survives("run/xy/xyd.sock", false).await;
}

#[tokio::test]
async fn the_lock_of_the_socket_is_no_link() {
    survives("run/xy/xyd.sock.lock", false).await;
}

#[tokio::test]
async fn the_lock_of_the_state_is_no_link() {
    survives("state/xy/xyd.lock", false).await;
}

#[tokio::test]
async fn the_token_is_not_written_through_a_link() {
    survives("state/xy/http.token", false).await;
}

#[tokio::test]
async fn the_connection_file_is_not_written_through_a_link() {
    survives("state/xy/xyd.json", false).await;
}

#[tokio::test]
async fn the_directory_of_logs_is_no_link() {
    survives("state/xy/logs", true).await;
}

#[tokio::test]
async fn a_log_is_not_written_through_a_link() {
    survives("state/xy/logs/web.log", false).await;
}

#[tokio::test]
async fn the_kept_events_are_not_written_through_a_link() {
    survives("state/xy/events.jsonl", false).await;
}

#[tokio::test]
async fn the_history_is_not_written_through_a_link() {
    survives("state/xy/history", false).await;
}

#[tokio::test]
async fn the_ledger_of_processes_is_not_written_through_a_link() {
    survives("state/xy/processes.ledger", false).await;
}

#[tokio::test]
async fn the_audit_log_and_the_tokens_of_clients_are_not_written_through_a_link() {
    let mut world =
        World::with(&[("web", script("sleep-forever", ""))]).argument("--http").argument("127.0.0.1:0");
    let state = world.path("state/xy");
    private_directory(&state);
    let files = ["audit.log", "http.clients", "grants.json", "intent"];
    for file in files {
        fs::write(world.path(file), PRECIOUS).expect("written");
        symlink(world.path(file), state.join(file)).expect("linked");
    }
    let client = world.boot().await;
    let added = TokenAddParams { name: "ci".to_owned(), scope: Scope::Read };
    // One that cannot be kept is refused.
    let _kept_or_refused = within("token", client.call::<TokenAdd>(added)).await;
    within("disable", client.call::<Disable>(OperationParams::named("web"))).await.expect("answered");
    within("stop", client.call::<Stop>(OperationParams::named("web"))).await.expect("answered");
    world.signal(Signal::SIGTERM);
    world.ended().await;
    for file in files {
        let found = fs::read_to_string(world.path(file)).expect("it is there");
        assert_eq!(found, PRECIOUS, "{file} was written through");
    }
}
