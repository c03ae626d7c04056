//! What `xyd` makes of its surroundings: files, directories, other daemons, garbage on its socket.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use xy_daemon::client::ClientError;
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{OperationParams, Start, Status, StatusParams};

use super::support::{World, list, ready, script, until, until_status, within};

fn output(command: &mut std::process::Command) -> (Option<i32>, String) {
    let output = command.output().expect("xyd can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn it_boots_although_files_are_broken_and_programs_missing() {
    let mut world = World::with(&[
        ("good", script("sleep-forever", "")),
        ("broken", "Process(\n    comand: \"x\",\n)".to_owned()),
        ("missing", "Process(command: \"xy-no-such-program\", restart: (backoff_initial: \"60s\", backoff_max: \"60s\"))".to_owned()),
    ]);
    let client = world.boot().await;
    ready(&client, "good").await;

    match client.call::<Status>(StatusParams::new("broken")).await {
        Err(ClientError::Rpc(error)) => {
            assert_eq!(error.code, -32003, "{error:?}");
            assert!(error.message.contains("broken.ron:2"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    let missing = until_status(&client, "missing", |status| status.summary.last_exit.is_some()).await;
    let cause = missing.summary.last_exit.expect("just seen").cause;
    assert!(cause.contains("xy-no-such-program"), "{cause}");

    let params = OperationParams::named("missing");
    let failed = within("start", client.call::<Start>(params)).await.expect("answered").failed;
    assert_eq!(failed.first().map(|row| row.kind), Some(ErrorKind::SpawnFailed), "{failed:?}");
}

#[tokio::test]
async fn a_second_daemon_is_refused_with_the_pid_and_the_first_goes_on() {
    let mut world = World::with(&[("good", script("sleep-forever", ""))]);
    let client = world.boot().await;
    let pid = ready(&client, "good").await;

    let (code, said) = output(&mut world.command());
    assert_eq!(code, Some(75), "{said}");
    let daemon = world.daemon_pid().expect("it runs").to_string();
    assert!(said.contains(&daemon), "{said}");

    let (code, said) = output(world.command().env("XDG_STATE_HOME", world.path("other")));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains(&daemon), "{said}");

    assert_eq!(ready(&client, "good").await, pid);
    // The path still leads to the first.
    assert_eq!(ready(&world.connect().await, "good").await, pid);
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_in_words() {
    let world = World::new();
    let (code, said) = output(world.command().arg("--socket").arg(world.path(&"s".repeat(120))));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("107 is the limit"), "{said}");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_refused_in_words() {
    let world = World::new();
    fs::write(world.path("state"), "a plain file").expect("written");
    let (code, said) = output(&mut world.command());
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains(&world.path("state/xy").display().to_string()), "{said}");
}

#[tokio::test]
async fn without_a_place_for_logs_servers_run_and_the_daemon_says_so() {
    let mut world = World::with(&[("good", script("lines 3 sleep-forever", ""))]);
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(world.path("state/xy")).expect("created");
    fs::write(world.path("state/xy/logs"), "a plain file").expect("written");
    let client = world.boot().await;
    ready(&client, "good").await;
    until("the complaint", || async { world.said().contains("log file cannot be written").then_some(()) })
        .await;
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    let world = World::with(&[("good", script("sleep-forever", ""))]);
    assert_eq!(output(world.command().arg("--confg")).0, Some(64));
    assert_eq!(output(world.command().arg("--help")).0, Some(0));
    assert_eq!(output(world.command().arg("--check")).0, Some(0));
    world.write("broken", "Process(");
    assert_eq!(output(world.command().arg("--check")).0, Some(3));
    fs::write(world.path("config/xy/xyd.ron"), "Daemon(nonsense: 1)").expect("written");
    assert_eq!(output(&mut world.command()).0, Some(3));
}

#[test]
fn a_configuration_directory_that_was_named_must_be_there() {
    let world = World::with(&[]);
    for more in [&["--check"][..], &[]] {
        let (code, said) = output(world.command().args(["--config", "no-such-directory"]).args(more));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("`no-such-directory`"), "{said}");
    }
}

#[tokio::test]
async fn garbage_on_the_socket_stops_no_server() {
    let mut world = World::with(&[("a", script("sleep-forever", "")), ("b", script("sleep-forever", ""))]);
    let client = world.boot().await;
    let before = [ready(&client, "a").await, ready(&client, "b").await];

    let mut deep = vec![b'['; 200_000];
    deep.push(b'\n');
    let lines = [b"\xff\x00garbage\n".to_vec(), b"{\"jsonrpc\":".to_vec(), vec![b'x'; 10 << 20], deep];
    for line in lines {
        let mut stream = UnixStream::connect(world.socket()).await.expect("it accepts");
        // The daemon may hang up in the middle, which is its right.
        let _refused = stream.write_all(&line).await;
        let _closed = stream.shutdown().await;
        let mut answer = Vec::new();
        let _reset = within("the end of the connection", stream.read_to_end(&mut answer)).await;
    }
    assert_eq!([ready(&client, "a").await, ready(&client, "b").await], before);
    assert!(list(&client).await.iter().all(|server| server.restart_count == 0));
}
