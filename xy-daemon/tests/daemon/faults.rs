//! System calls of the daemon fail, each in turn: it stays up or says why it does not start, says what failed, recovers, and
//! leaves no process that it does not know.
//!
//! The calls are made to fail by `strace`, in every thread of the daemon and in its children until they run their program;
//! without `strace` the tests say so and prove nothing. `XY_FAULTS=all` takes every call until none is left; otherwise it is
//! some of them. `tests/faults/run` is the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::time::Instant;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::method::{
    Disable, Enable, List, ListParams, Logs, LogsParams, OperationParams, Reload, ReloadParams, Restart,
    ServerSummary, Start, State, Status, StatusParams, Stop, Version, VersionParams, Wanted,
};

use super::support::{SERVER, World, environment, free_port, pid_of, ready, script, send, until};

/// How long an answer may take while calls fail, and how long the servers may take to be ready afterwards.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a call is made to fail.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: &'static str,
    error: &'static str,
    errno: Errno,
}

const fn fault(call: &'static str, error: &'static str, errno: Errno) -> Fault {
    Fault { call, error, errno }
}

/// What came of one point.
#[derive(Debug, Default)]
struct Point {
    /// The calls that failed, as strace shows them.
    injected: Vec<String>,
    /// The daemon did not start, and said why.
    is_refused: bool,
    /// What is not as it should be.
    wrong: Vec<String>,
    /// All that was said about it, by the daemon and in its answers.
    said: String,
    /// The failed calls nobody said anything about.
    untold: Vec<String>,
    took: Duration,
}

macro_rules! faults {
    ($($name:ident: $call:literal, $error:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            prove(fault($call, stringify!($error), Errno::$error)).await;
        }
    )*};
}

faults! {
    a_failed_clone_is_survived: "clone", EAGAIN;
    a_failed_clone3_is_survived: "clone3", EAGAIN;
    a_failed_execve_is_survived: "execve", ENOMEM;
    a_failed_pidfd_open_is_survived: "pidfd_open", EMFILE;
    a_failed_pipe2_is_survived: "pipe2", EMFILE;
    a_failed_epoll_ctl_is_survived: "epoll_ctl", ENOSPC;
    a_failed_fcntl_is_survived: "fcntl", EMFILE;
    a_failed_accept4_is_survived: "accept4", EMFILE;
    a_failed_socket_is_survived: "socket", EMFILE;
    a_write_to_a_full_disk_is_survived: "write", ENOSPC;
    a_write_to_a_failing_disk_is_survived: "write", EIO;
    an_open_without_descriptors_is_survived: "openat", EMFILE;
    an_open_in_a_full_file_table_is_survived: "openat", ENFILE;
    a_failed_fsync_is_survived: "fsync", EIO;
    a_failed_rename_is_survived: "rename", EIO;
    a_failed_renameat_is_survived: "renameat", EIO;
}

/// Runs the scenario with the first call failing, then the second, and so on.
async fn prove(fault: Fault) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let is_all = std::env::var("XY_FAULTS").is_ok_and(|value| value == "all");
    let only = std::env::var("XY_FAULTS_AT").ok().and_then(|at| at.parse::<u32>().ok());
    let (mut points, mut calls, mut refused, mut at) = (0, 0, 0, only.unwrap_or(1));
    let mut wrong = Vec::new();
    let mut untold: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        let point = run(fault, at).await;
        let begun = point.injected.len();
        println!(
            "{}={} at {at}: {begun} failed{}, {} ms{}",
            fault.call,
            fault.error,
            if point.is_refused { ", refused to start" } else { "" },
            point.took.as_millis(),
            if point.wrong.is_empty() { String::new() } else { format!(": WRONG {:#?}", point.wrong) }
        );
        if !point.wrong.is_empty() || only.is_some() {
            println!("injected: {:#?}\nsaid: {}", point.injected, point.said);
        }
        for call in &point.untold {
            *untold.entry(call.clone()).or_default() += 1;
        }
        wrong.extend(point.wrong.into_iter().map(|text| format!("at {at}: {text}")));
        if begun == 0 || only.is_some() {
            break;
        }
        (points, calls, refused) = (points + 1, calls + begun, refused + u32::from(point.is_refused));
        at = if is_all { at + 1 } else { at * 2 + 1 };
    }
    for (call, times) in &untold {
        println!("untold {times}x: {call}");
    }
    println!(
        "{}={}: {points} points, {calls} calls failed, {refused} starts refused with the reason, {} wrong",
        fault.call,
        fault.error,
        wrong.len()
    );
    assert_eq!(wrong, Vec::<String>::new());
}

/// Runs the scenario with one call failing in each thread.
async fn run(fault: Fault, at: u32) -> Point {
    let begun = Instant::now();
    let mut world = prepare();
    leave_something(&mut world).await;
    let trace = world.path("trace");
    let mut point = Point::default();
    start_traced(&mut world, &trace, fault, at);
    let mut answers = Vec::new();
    match until_up(&mut world).await {
        Ok(client) => {
            let client = scenario(&world, client, &mut answers, &mut point.wrong).await;
            untrace(&world);
            match client {
                Some(client) => recover(&mut world, client, &mut answers, &mut point.wrong).await,
                None => point.wrong.push("nobody answers".to_owned()),
            }
        }
        Err(reason) => {
            point.is_refused = true;
            untrace(&world);
            let said = world.said();
            if !names(&said, fault.errno) {
                point.wrong.push(format!("it did not start ({reason}) and did not say why"));
            }
            // One that is refused before it sweeps leaves what it has found; more there must not be.
            if world.processes().len() > 1 {
                point.wrong.push(format!("processes without a daemon: {:?}", world.processes()));
            }
            // Without the fault it comes up on what that start has left.
            world.start();
            match until_up(&mut world).await {
                Ok(client) => recover(&mut world, client, &mut answers, &mut point.wrong).await,
                Err(reason) => point.wrong.push(format!("the next start failed, too: {reason}")),
            }
        }
    }
    let trace = fs::read_to_string(&trace).unwrap_or_default();
    point.injected = trace.lines().filter(|line| line.ends_with("(INJECTED)")).map(str::to_owned).collect();
    point.said = format!("{}\n{}", world.said(), answers.join("\n"));
    if !names(&point.said, fault.errno) {
        let shown = point.injected.iter().map(|line| generic(line, world.directory.path()));
        point.untold = shown.collect::<BTreeSet<_>>().into_iter().collect();
    }
    point.took = begun.elapsed();
    point
}

/// Removes from a line of strace what differs between runs.
fn generic(line: &str, directory: &Path) -> String {
    let line = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
    let line = line.replace(&directory.display().to_string(), "DIR");
    let mut text = String::with_capacity(line.len());
    for character in line.chars() {
        match character {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            _ => text.push(character),
        }
    }
    text
}

/// Returns whether a text names the error: by the system's words, its number, or our own words for it.
fn names(said: &str, errno: Errno) -> bool {
    let own = match errno {
        Errno::EAGAIN => "the limit on processes is reached",
        Errno::EMFILE | Errno::ENFILE => "too many open files",
        Errno::ENOMEM => "not enough memory",
        _ => errno.desc(),
    };
    said.contains(errno.desc())
        || said.contains(own)
        || said.contains(&format!("(os error {})", errno as i32))
}

/// One server of each kind.
fn prepare() -> World {
    let world = World::new().argument("--no-guard");
    let restart = r#"restart: (backoff_initial: "10ms", backoff_max: "200ms", max_retries_per_minute: 1000), stop: (grace: "2s")"#;
    let alone = |name: &str| format!("alone {}", world.path(name).display());
    let port = free_port();
    let kinds = [
        ("steady", format!("{} lines 5 sleep-forever", alone("steady")), String::new()),
        // Its log is rotated all the time.
        ("chatty", format!("{} chatter 20", alone("chatty")), "log: (max_size: \"512\", keep: 3)".to_owned()),
        ("port", format!("{} serve {port}", alone("port")), format!("port: {port}")),
        ("notify", format!("{} notify READY=1 sleep-forever", alone("notify")), "ready: Notify".to_owned()),
        (
            "exec",
            format!("{} sleep-forever", alone("exec")),
            format!(
                "ready: Exec(command: {SERVER:?}, args: [\"exit\", \"0\"]), \
                 liveness: (probe: Exec(command: {SERVER:?}, args: [\"exit\", \"0\"]), interval: \"300ms\", failures: 3)"
            ),
        ),
        ("tree", format!("spawn 4 setsid {} sleep-forever until-child-ends", alone("tree")), String::new()),
    ];
    for (name, steps, more) in &kinds {
        let comma = if more.is_empty() { "" } else { ", " };
        world.write(name, &script(steps, &format!("{restart}{comma}{more}")));
    }
    world
}

/// Lets a daemon die, so that the next one finds processes that it has to end first.
async fn leave_something(world: &mut World) {
    let client = world.boot().await;
    ready(&client, "tree").await;
    until("the helper", || async { is_alive(world, "tree").then_some(()) }).await;
    world.signal(Signal::SIGKILL);
    world.ended().await;
    assert!(is_alive(world, "tree"), "its helper in a session of its own goes on");
    fs::remove_file(world.path("xyd.log")).expect("it has said something");
}

/// Returns whether the process that wrote its pid into this file last is alive.
fn is_alive(world: &World, name: &str) -> bool {
    let text = fs::read_to_string(world.path(name)).unwrap_or_default();
    text.lines().last().and_then(|pid| pid.parse().ok()).is_some_and(|pid| environment(pid).is_some())
}

fn start_traced(world: &mut World, trace: &Path, fault: Fault, at: u32) {
    let daemon = world.command();
    let log = File::options().create(true).append(true).open(world.path("xyd.log")).expect("opened");
    let mut command = Command::new("strace");
    // The tracer steps aside, so that the daemon itself is our child, and lets go of its children's programs.
    command.args(["-f", "-y", "-DDD", "-b", "execve", "-qqq", "-o"]).arg(trace);
    command.args(["-e", &format!("trace={}", fault.call), "-e", "signal=none"]);
    command.args(["-e", &format!("inject={}:error={}:when={at}", fault.call, fault.error)]);
    if fault.call == "write" {
        // No disk is behind its other descriptors.
        let logs = ["steady", "chatty", "port", "notify", "exec", "tree", "added"];
        let logs = logs.map(|name| format!("state/xy/logs/{name}.log"));
        let others = ["processes.ledger", "processes.ledger.new", "intent.new", "history", "xyd.lock"];
        let others = others.map(|name| format!("state/xy/{name}"));
        for path in logs.iter().chain(&others) {
            command.arg("-P").arg(world.path(path));
        }
    }
    command.env_clear();
    for (name, value) in daemon.get_envs() {
        if let Some(value) = value {
            command.arg("-E").arg(format!("{}={}", name.display(), value.display()));
        }
    }
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.arg(daemon.get_program()).args(daemon.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    world.adopt(command.spawn().expect("strace can be run"));
}

/// Ends the tracer; what it traced goes on.
fn untrace(world: &World) {
    let text = fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap_or_default();
    let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse::<u32>().ok());
    if let Some(tracer) = tracer.filter(|pid| *pid > 0) {
        send(tracer, Signal::SIGKILL);
    }
}

/// Waits for an answer, or for the daemon's end.
async fn until_up(world: &mut World) -> Result<Client, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = world.has_ended() {
            return Err(status.to_string());
        }
        if let Some(client) = connected(world).await {
            return Ok(client);
        }
        if Instant::now() > deadline {
            return Err("it neither answers nor ends".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn connected(world: &World) -> Option<Client> {
    let ask = async {
        let client = Client::connect(&world.socket()).await.ok()?;
        client.call::<Version>(VersionParams::default()).await.ok().map(|_| client)
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok()?
}

/// Asks, on a new connection if this one is lost, and keeps what was answered.
async fn ask<M: Method>(
    world: &World,
    client: &mut Option<Client>,
    params: impl Fn() -> M::Params,
    answers: &mut Vec<String>,
    wrong: &mut Vec<String>,
) -> Option<M::Result>
where
    M::Result: std::fmt::Debug,
{
    for _ in 0..3 {
        if client.is_none() {
            *client = connected(world).await;
        }
        let Some(connection) = client.as_ref() else { continue };
        match tokio::time::timeout(PATIENCE, connection.call::<M>(params())).await {
            Ok(Ok(result)) => {
                answers.push(format!("{}: {result:?}", M::NAME));
                return Some(result);
            }
            Ok(Err(error)) => {
                answers.push(format!("{}: {error:?}: {error}", M::NAME));
                if matches!(error, ClientError::Rpc(_)) {
                    return None;
                }
                *client = None;
            }
            Err(_) => {
                wrong.push(format!("`{}` was not answered", M::NAME));
                *client = None;
            }
        }
    }
    wrong.push(format!("`{}` could not be asked", M::NAME));
    None
}

/// What a person does in a day: looks, has a crash, restarts, stops, starts, changes files.
async fn scenario(
    world: &World,
    client: Client,
    answers: &mut Vec<String>,
    wrong: &mut Vec<String>,
) -> Option<Client> {
    let mut client = Some(client);
    let client = &mut client;
    // Most are ready soon; those that a fault has hit may take longer and are waited for at the end.
    let soon = Instant::now() + Duration::from_millis(700);
    loop {
        let listed = ask::<List>(world, client, || ListParams {}, answers, wrong).await?;
        if listed.servers.iter().all(|server| server.ready) || Instant::now() > soon {
            if let Some(pid) =
                listed.servers.iter().find(|server| server.name == "chatty").and_then(|s| s.pid)
            {
                // It may have ended by itself.
                let _gone = nix::sys::signal::kill(pid_of(pid), Signal::SIGKILL);
            }
            break;
        }
        answers.pop();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let brief = |name: &str| OperationParams { timeout_secs: Some(3), ..OperationParams::named(name) };
    ask::<Restart>(world, client, || brief("steady"), answers, wrong).await;
    // What outlives the daemon is written.
    ask::<Disable>(world, client, || brief("steady"), answers, wrong).await;
    ask::<Stop>(world, client, || brief("port"), answers, wrong).await;
    ask::<Start>(world, client, || brief("port"), answers, wrong).await;
    ask::<Stop>(world, client, || brief("tree"), answers, wrong).await;
    ask::<Status>(world, client, || StatusParams::new("chatty"), answers, wrong).await;
    world.write("added", &script(&format!("alone {} sleep-forever", world.path("added").display()), ""));
    // Saved in place, so that a half-written one is never seen.
    ask::<Reload>(world, client, ReloadParams::default, answers, wrong).await;
    if let Some(connection) = client.as_ref() {
        let params = LogsParams { tail: Some(3), ..LogsParams::new("chatty") };
        match tokio::time::timeout(PATIENCE, connection.subscribe::<Logs>(params)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => answers.push(format!("logs: {error:?}: {error}")),
            Err(_) => wrong.push("`logs` was not answered".to_owned()),
        }
    }
    ask::<List>(world, client, || ListParams {}, answers, wrong).await;
    client.take()
}

/// With no more faults: everybody comes back, and nobody runs who is not known.
async fn recover(world: &mut World, client: Client, answers: &mut Vec<String>, wrong: &mut Vec<String>) {
    if let Some(status) = world.has_ended() {
        wrong.push(format!("the daemon ended: {status}"));
        return;
    }
    let mut connection = Some(client);
    world.write("added", &script(&format!("alone {} sleep-forever", world.path("added").display()), ""));
    ask::<Reload>(world, &mut connection, ReloadParams::default, answers, wrong).await;
    ask::<Start>(world, &mut connection, || OperationParams::named("tree"), answers, wrong).await;
    ask::<Enable>(world, &mut connection, || OperationParams::named("steady"), answers, wrong).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(listed) = ask::<List>(world, &mut connection, || ListParams {}, answers, wrong).await else {
            return;
        };
        let now = is_well(world, &listed.servers);
        let Err(trouble) = now else { break };
        if Instant::now() > deadline {
            wrong.push(format!("it does not recover: {trouble}"));
            break;
        }
        answers.pop();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in ["steady", "chatty", "port", "notify", "exec", "tree", "added"] {
        if world.path(&format!("{name}.doubled")).exists() {
            wrong.push(format!("`{name}` ran twice at once"));
        }
        ask::<Status>(world, &mut connection, || StatusParams::new(name), answers, wrong).await;
    }
    world.signal(Signal::SIGTERM);
    match tokio::time::timeout(PATIENCE, world.ended()).await {
        Ok(status) if status.code() == Some(0) => {}
        Ok(status) => wrong.push(format!("it ended with {status}")),
        Err(_) => wrong.push("it does not end".to_owned()),
    }
    // Whichever write of it failed, it is whole.
    let intent = fs::read(world.path("state/xy/intent")).expect("it was written in the end");
    if serde_json::from_slice::<serde_json::Value>(&intent).is_err() {
        wrong.push(format!("the intent is torn: {}", String::from_utf8_lossy(&intent)));
    }
    if !world.processes().is_empty() {
        wrong.push(format!("left over: {:?}", world.processes()));
    }
}

/// Returns whether every server is ready and each live process is of a server's present start.
fn is_well(world: &World, listed: &[ServerSummary]) -> Result<(), String> {
    if listed.len() != 7 {
        return Err(format!("{} servers are listed", listed.len()));
    }
    for server in listed {
        if server.wanted != Wanted::Up || server.state != State::Running || !server.ready {
            return Err(format!("{server:?}"));
        }
    }
    let marker = |pid: u32| environment(pid)?.into_iter().find(|entry| entry.starts_with("XY_INSTANCE="));
    let known: BTreeSet<String> = listed.iter().filter_map(|server| marker(server.pid?)).collect();
    if known.len() != listed.len() {
        return Err("a listed process is not there".to_owned());
    }
    for pid in world.processes() {
        // A liveness check has a mark of its own, and is gone in a moment.
        if !marker(pid).is_some_and(|marker| known.contains(&marker)) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            return Err(format!("{pid} ({}) is of no present server", command.replace('\0', " ")));
        }
    }
    Ok(())
}
