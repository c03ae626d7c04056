//! An upgrade: another program in the same process, and no server that notices.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{
    Events, EventsParams, Notification, OperationParams, Reload, ReloadParams, Start, State, StatusResult,
    Stop, Targets, Upgrade, UpgradeParams, UpgradeResult, Version, VersionParams, VersionResult, Why,
    WhyParams,
};

use super::support::{World, free_port, list, ready, script, send, status, until, until_status, within};

/// The real program, for scripts that stand in for it.
const XYD: &str = env!("CARGO_BIN_EXE_xyd");

/// How many rotated files of a log are kept at most.
const KEPT_FILES: usize = 1000;

/// Restarts at once, and as often as a test wants.
const AT_ONCE: &str =
    r#"restart: (backoff_initial: "1ms", backoff_max: "1ms", max_retries_per_minute: 1000)"#;

async fn version(client: &Client) -> VersionResult {
    within("version", client.call::<Version>(VersionParams::default())).await.expect("answered")
}

pub(crate) async fn ask(client: &Client) -> Result<UpgradeResult, ClientError> {
    within("upgrade", client.call::<Upgrade>(UpgradeParams {})).await
}

/// Upgrades, and returns a connection to the program that has taken over.
pub(crate) async fn upgrade(world: &World, client: Client) -> Client {
    let before = version(&client).await;
    let result = ask(&client).await.expect("it takes place");
    assert_eq!((result.from, result.to), (before.version.clone(), env!("CARGO_PKG_VERSION").to_owned()));
    until("the end of the connection", || async {
        client.call::<Version>(VersionParams::default()).await.is_err().then_some(())
    })
    .await;
    let client = world.connect().await;
    let after = version(&client).await;
    assert_eq!(after.pid, before.pid);
    assert!(after.started_at_unix_ms > before.started_at_unix_ms, "another program answers");
    assert!(!after.diagnostics.expect("a real daemon tells").handed_back, "{}", world.said());
    client
}

fn count(world: &World, what: &str) -> usize {
    world.said().matches(what).count()
}

#[tokio::test]
async fn pids_counts_histories_and_event_numbers_are_kept() {
    let mut world = World::with(&[("steady", script("sleep-forever", ""))]);
    let crashed = world.path("crashed");
    let steps = format!("alone {} sleep-forever", crashed.display());
    world.write("crasher", &script(&steps, AT_ONCE));
    world.write("down", &script("sleep-forever", "autostart: false"));
    let client = world.boot().await;
    let victim = ready(&client, "crasher").await;
    send(victim, Signal::SIGKILL);
    until_status(&client, "crasher", |now| now.summary.ready && now.summary.restart_count == 1).await;
    let before =
        [status(&client, "steady").await, status(&client, "crasher").await, status(&client, "down").await];
    let mut last = last_event(&client).await;
    let mut client = client;
    // From the second on, the thread that created the servers is another one.
    for _ in 0..3 {
        client = upgrade(&world, client).await;
        for before in &before {
            let mut after = status(&client, &before.summary.name).await;
            assert!(after.summary.uptime_secs >= before.summary.uptime_secs);
            after.summary.uptime_secs = before.summary.uptime_secs;
            assert_eq!(after, *before);
        }
        assert_eq!(last_event(&client).await, last, "an upgrade is no event");
    }
    // And they are still ours: an end is noticed, and told with its number.
    let pid = status(&client, "crasher").await.summary.pid.expect("it runs");
    send(pid, Signal::SIGKILL);
    let after =
        until_status(&client, "crasher", |now| now.summary.ready && now.summary.restart_count == 2).await;
    assert_ne!(after.summary.pid, Some(pid));
    assert!(last_event(&client).await > last);
    let client = upgrade(&world, client).await;
    let why = client.call::<Why>(WhyParams { name: "crasher".into() });
    let ends: Vec<u64> =
        within("why", why).await.expect("answered").exits.iter().map(|end| end.incarnation).collect();
    assert_eq!(ends, [2, 1], "each end is in its past once, however many programs there were");
    last = last_event(&client).await;
    assert!(last > 0);
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
}

/// Returns the number of the newest event that the daemon holds.
async fn last_event(client: &Client) -> u64 {
    let params = EventsParams::held(1);
    let mut events = within("events", client.subscribe::<Events>(params)).await.expect("subscribed");
    let mut last = 0;
    while let Ok(Some(event)) = within("an event", events.next()).await {
        if let Notification::Event(event) = event {
            assert_eq!(event.seq, last + 1, "no number is missing");
            last = event.seq;
        }
    }
    last
}

/// Returns the files of a log, oldest first.
fn files_of(world: &World, name: &str) -> Vec<PathBuf> {
    let current = world.path(&format!("state/xy/logs/{name}.log"));
    let older = (1..).map(|index| world.path(&format!("state/xy/logs/{name}.log.{index}")));
    let mut files: Vec<_> = std::iter::once(current).chain(older.take_while(|path| path.exists())).collect();
    files.reverse();
    files
}

fn read_log(world: &World, name: &str) -> String {
    files_of(world, name).iter().map(|file| fs::read_to_string(file).expect("it is text")).collect()
}

/// Checks that the files of a log have each of these lines once, on both streams and in order.
fn assert_each_line_once(world: &World, name: &str, lines: u64) -> (u64, u64) {
    let text = read_log(world, name);
    let mut seen: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (_, stream, rest) =
            (words.next(), words.next().expect("a stream"), words.next().unwrap_or_default());
        if let Some(number) = rest.strip_prefix("line ") {
            seen.entry(stream).or_default().push(number.parse().expect("a whole line"));
        }
    }
    let (mut lost, mut repeated) = (0, 0);
    for stream in ["out", "err"] {
        let numbers = seen.remove(stream).unwrap_or_default();
        let distinct: std::collections::BTreeSet<u64> = numbers.iter().copied().collect();
        lost += lines - distinct.len() as u64;
        repeated += (numbers.len() - distinct.len()) as u64;
        assert!(numbers.is_sorted(), "{name} {stream} is in order");
    }
    (lost, repeated)
}

/// Asks a server again and again; counts the answers and the failures.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn begin(port: u16) -> Self {
        let (stop, answered, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let task = tokio::spawn({
            let (stop, answered, failed) = (stop.clone(), answered.clone(), failed.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let counter = if get(port).await.is_ok() { &answered } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, answered, failed, task }
    }

    async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        within("the last request", self.task).await.expect("it does not panic");
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

async fn get(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(answer)) }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn under_load_no_request_fails_and_no_line_is_lost_or_repeated() {
    let upgrades = setting("XY_UPGRADES").unwrap_or(20);
    let writers = setting("XY_UPGRADE_WRITERS").unwrap_or(4);
    let port = free_port();
    let mut world = World::new();
    world.write("web", &script(&format!("serve {port}"), &format!("port: {port}")));
    for writer in 0..writers {
        // Until they are told to end, they write in rounds of so many lines.
        let steps = format!("count 1000000000 {}", 2 + writer);
        // What rotation deletes cannot be accounted for, so that a longer run has larger files.
        let scale = upgrades.div_ceil(50);
        let limit = if writer % 2 == 0 {
            format!(r#"max_size: "{}KiB""#, 128 * scale)
        } else {
            format!(r#"max_size: "1GiB", max_age: "{}ms""#, 250 * scale)
        };
        let more = format!(r#"log: ({limit}, keep: {KEPT_FILES}), stop: (grace: "10s")"#);
        world.write(&format!("w{writer}"), &script(&steps, &more));
    }
    let mut client = world.boot().await;
    let web = ready(&client, "web").await;
    let load = Load::begin(port);
    let mut gaps = Vec::new();
    for _ in 0..upgrades {
        let begin = std::time::Instant::now();
        client = upgrade(&world, client).await;
        gaps.push(begin.elapsed());
    }
    let (answered, failed) = load.end().await;
    assert_eq!(ready(&client, "web").await, web);
    let (mut lost, mut repeated, mut lines, mut rotations) = (0, 0, 0, 0);
    for writer in 0..writers {
        let name = format!("w{writer}");
        let result =
            within("stop", client.call::<Stop>(OperationParams::named(&name))).await.expect("answered");
        assert_eq!(result.stopped, std::slice::from_ref(&name));
        assert_eq!(status(&client, &name).await.summary.restart_count, 0);
        // It comes last, and its file may have to be made for it.
        let current = world.path(&format!("state/xy/logs/{name}.log"));
        let is_marked = || fs::read_to_string(&current).is_ok_and(|text| text.contains(" xy exited: "));
        until("the marker of the exit", || async { is_marked().then_some(()) }).await;
        let written = newest_line(&world, &name) + 1;
        let (missing, double) = assert_each_line_once(&world, &name, written);
        (lost, repeated, lines) = (lost + missing, repeated + double, lines + 2 * written);
        let rotated = files_of(&world, &name).len() - 1;
        assert!(rotated < KEPT_FILES, "{name}: rotation may have deleted what was to be counted");
        rotations += rotated;
    }
    gaps.sort();
    println!(
        "{upgrades} upgrades: {answered} requests answered, {failed} failed; {lines} lines of {writers} writers, {rotations} \
         rotations, {lost} lost, {repeated} repeated; an upgrade took {:?} (median), {:?} (longest)",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
    );
    assert!(answered > upgrades, "there was a load");
    assert!(lines > 1000 * writers && rotations > 0, "there was output, and it was rotated");
    assert_eq!((failed, lost, repeated), (0, 0, 0));
}

/// Returns what a daemon has open: its descriptors by what they refer to, and the sizes of the memory among them.
fn open_files(pid: u32) -> (Vec<String>, Vec<u64>) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    for path in descriptors.map(|descriptor| descriptor.path()) {
        // One that was closed meanwhile is none.
        let Ok(name) = fs::read_link(&path) else { continue };
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("/memfd:xy-logs")
            && let Ok(file) = fs::metadata(&path)
        {
            sizes.push(std::os::unix::fs::MetadataExt::blocks(&file) * 512);
        }
        // A number says which of its kind it is.
        names.push(name.trim_end_matches(|letter: char| !letter.is_alphabetic()).to_owned());
    }
    names.sort();
    (names, sizes)
}

#[tokio::test]
async fn recent_lines_stay_where_they_are_and_upgrades_leave_nothing_open() {
    let mut world = World::with(&[("a", script("sleep-forever", ""))]);
    const SERVERS: usize = 4;
    for server in 0..SERVERS {
        let done = world.path(&format!("done{server}"));
        let steps = format!("lines 30000 touch {} sleep-forever", done.display());
        world.write(&format!("s{server}"), &script(&steps, r#"log: (buffer: "256KiB")"#));
    }
    let mut client = world.boot().await;
    for server in 0..SERVERS {
        ready(&client, &format!("s{server}")).await;
        until("the last line", || async { world.path(&format!("done{server}")).exists().then_some(()) })
            .await;
    }
    let pid = world.daemon_pid().expect("it runs");
    client = upgrade(&world, client).await;
    let before = open_files(pid);
    assert!(before.1[0] >= (SERVERS as u64) << 17, "the lines are there: {before:?}");
    for _ in 0..3 {
        client = upgrade(&world, client).await;
    }
    // What came up needs a moment to close what it no longer needs.
    until("what was open before", || async { (open_files(pid) == before).then_some(()) }).await;
    assert_eq!(before.1.len(), 2, "one to pass on, and one with its lock");
    ready(&client, "a").await;
}

/// Returns the highest number among the lines of a log on standard error, which is written last.
fn newest_line(world: &World, name: &str) -> u64 {
    let text = read_log(world, name);
    let numbers = text.lines().filter_map(|line| line.split_once(" out line ")?.1.parse::<u64>().ok());
    numbers.max().expect("it has written")
}

#[tokio::test]
async fn whoever_ends_during_an_upgrade_is_told_with_the_true_exit_code() {
    let mut world = World::new();
    const SERVERS: u32 = 8;
    for server in 0..SERVERS {
        let go = world.path(&format!("go{server}"));
        let steps = format!("wait-for {} exit {}", go.display(), 10 + server);
        world.write(&format!("s{server}"), &script(&steps, "restart: (policy: Never)"));
    }
    let client = world.boot().await;
    for server in 0..SERVERS {
        ready(&client, &format!("s{server}")).await;
    }
    let asked = tokio::spawn({
        let client = world.connect().await;
        async move { ask(&client).await.expect("it takes place") }
    });
    for server in 0..SERVERS {
        // Spread over the time that the upgrade takes, the exchange itself included.
        fs::write(world.path(&format!("go{server}")), "").expect("written");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    within("the answer", asked).await.expect("answered");
    until("the new program", || async { (count(&world, "taken over") == 1).then_some(()) }).await;
    let client = world.connect().await;
    for server in 0..SERVERS {
        let name = format!("s{server}");
        let ended = until_status(&client, &name, |now| now.summary.state == State::Stopped).await;
        let last = ended.summary.last_exit.expect("it has ended");
        assert!(last.cause.contains(&format!("exit code {}", 10 + server)), "{name}: {}", last.cause);
    }
}

#[tokio::test]
async fn a_program_that_cannot_take_over_is_refused_with_its_own_words_and_nothing_changes() {
    let mut world = World::with(&[("a", script("sleep-forever", ""))]).with_own_program();
    let client = world.boot().await;
    let pid = ready(&client, "a").await;
    let refusals = [
        ("echo no, thanks >&2; exit 1", "no, thanks"),
        ("exit 5", "exit code 5"),
        ("kill -9 $$", "signal 9"),
        // A version that writes another format.
        (&format!("sed s/handoff/HANDOFF/ | exec {XYD} \"$@\""), "this program (xyd"),
    ];
    for (script, words) in refusals {
        world.replace_program(script);
        match ask(&client).await {
            Err(ClientError::Rpc(error)) => {
                assert_eq!(error.kind(), ErrorKind::UpgradeRefused);
                assert!(error.message.contains(words), "{}", error.message);
            }
            other => panic!("{other:?}"),
        }
        // The same connection: nothing was closed.
        assert_eq!(ready(&client, "a").await, pid);
    }
    fs::remove_file(world.path("xyd")).expect("it is there");
    match ask(&client).await {
        Err(ClientError::Rpc(error)) => {
            assert!(error.message.contains("cannot be executed"), "{}", error.message)
        }
        other => panic!("{other:?}"),
    }
    // By signal there is nobody to be told, so it is in the log.
    send(world.daemon_pid().expect("it runs"), Signal::SIGUSR1);
    until("the refusal", || async { (count(&world, "not upgraded") == refusals.len() + 2).then_some(()) })
        .await;
    assert_eq!(ready(&client, "a").await, pid);
}

#[tokio::test]
async fn a_program_that_does_not_come_up_hands_back_and_the_old_one_goes_on() {
    let port = free_port();
    let mut world = World::with(&[
        ("a", script("sleep-forever", "")),
        ("web", script(&format!("serve {port}"), &format!("port: {port}"))),
        ("w", script("count 1000000000 2", r#"log: (max_size: "1GiB", keep: 2)"#)),
    ])
    .with_own_program();
    let client = world.boot().await;
    let pids = [ready(&client, "a").await, ready(&client, "web").await, ready(&client, "w").await];
    let load = Load::begin(port);
    // It passes the check, and gives up later: before it has looked at anything, or when it is about to begin.
    for failure in ["exec XYD --no-such-option \"$@\"", "exec XYD --config /nowhere/at/all \"$@\""] {
        let failure = failure.replace("XYD", XYD);
        world.replace_program(&format!(
            "case \"$*\" in *--check-handoff*) exec {XYD} \"$@\";; esac\n{failure}"
        ));
        let client = world.connect().await;
        let before = count(&world, "the new program did not come up");
        ask(&client).await.expect("it passes the check");
        until("the way back", || async {
            (count(&world, "the new program did not come up") == before + 1).then_some(())
        })
        .await;
        let client = world.connect().await;
        assert!(version(&client).await.diagnostics.expect("a real daemon tells").handed_back);
        for (name, pid) in ["a", "web", "w"].into_iter().zip(pids) {
            assert_eq!(ready(&client, name).await, pid, "{failure}");
        }
    }
    // The next one is a good one.
    world.replace_program(&format!("exec {XYD} \"$@\""));
    let client = upgrade(&world, world.connect().await).await;
    assert_eq!(ready(&client, "a").await, pids[0]);
    let (answered, failed) = load.end().await;
    assert!(answered > 0 && failed == 0, "{failed} of {answered}");
    within("stop", client.call::<Stop>(OperationParams::named("w"))).await.expect("answered");
    let written = newest_line(&world, "w") + 1;
    assert_eq!(assert_each_line_once(&world, "w", written), (0, 0));
}

#[tokio::test]
async fn after_a_program_that_dies_instead_of_coming_up_the_guard_brings_the_old_one_back() {
    for death in ["exit 0", "exit 75", "kill -9 $$"] {
        let mut world = World::with(&[("a", script("sleep-forever", ""))]).with_own_program();
        let client = world.boot().await;
        let pid = ready(&client, "a").await;
        world
            .replace_program(&format!("case \"$*\" in *--check-handoff*) exec {XYD} \"$@\";; esac\n{death}"));
        ask(&client).await.expect("it passes the check");
        until("the old program", || async { (count(&world, "listening") == 2).then_some(()) }).await;
        let client = world.connect().await;
        assert_ne!(ready(&client, "a").await, pid, "nobody was there to keep it");
        // It still knows where its successor is to be found.
        world.replace_program(&format!("exec {XYD} \"$@\""));
        upgrade(&world, client).await;
        world.signal(Signal::SIGTERM);
        assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    }
}

#[tokio::test]
async fn after_an_upgrade_a_killed_daemon_still_takes_everything_along_and_comes_back() {
    let mut world = World::new();
    let alone = world.path("alone");
    let steps = format!(
        "spawn 4 setsid alone {}.helper sleep-forever alone {} sleep-forever",
        alone.display(),
        alone.display()
    );
    world.write("a", &script(&steps, ""));
    let client = world.boot().await;
    let guard = world.pid();
    let first = ready(&client, "a").await;
    let client = upgrade(&world, client).await;
    let client = upgrade(&world, client).await;
    let facts = version(&client).await.diagnostics.expect("a real daemon tells");
    assert_eq!(facts.guard_pid, Some(guard));
    drop(client);
    send(world.daemon_pid().expect("it runs"), Signal::SIGKILL);
    let client = world.connect().await;
    let second = ready(&client, "a").await;
    assert_ne!(first, second);
    assert!(!alone.with_extension("doubled").exists(), "there were two of one at once");
    assert!(world.said().contains("was ended by SIGKILL; it was started again"), "{}", world.said());
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn backoff_start_and_stop_that_are_under_way_go_on() {
    let mut world = World::new();
    let (told, up) = (world.path("told"), world.path("up"));
    // Two of a kind: what lasts longer than the test is looked at while it is under way, the other one at its end.
    world.write("backoff", &script("exit 3", r#"restart: (backoff_initial: "3s", backoff_max: "3s")"#));
    world.write("waiting", &script("exit 3", r#"restart: (backoff_initial: "10m", backoff_max: "10m")"#));
    world.write(
        "logs",
        &script(&format!("wait-for {} count 1 1 sleep-forever", told.display()), r#"ready: Log("^line 0$")"#),
    );
    world.write(
        "notes",
        &script(&format!("wait-for {} notify READY=1 sleep-forever", told.display()), "ready: Notify"),
    );
    let port = free_port();
    world
        .write("port", &script(&format!("wait-for {} serve {port}", up.display()), &format!("port: {port}")));
    world.write("stubborn", &script("ignore-term sleep-forever", r#"stop: (grace: "2s")"#));
    let slow = format!("ignore-term wait-for {}", told.display());
    world.write("slow", &script(&slow, r#"stop: (grace: "10m")"#));
    let client = world.boot().await;
    until_status(&client, "waiting", |now| now.summary.state == State::Restarting).await;
    ready(&client, "slow").await;
    let stubborn = ready(&client, "stubborn").await;
    let names = ["slow", "stubborn"].map(ToOwned::to_owned).to_vec();
    let stopping = OperationParams { wait: false, ..OperationParams::new(Targets::Names(names)) };
    within("stop", client.call::<Stop>(stopping)).await.expect("answered");
    until_status(&client, "slow", |now| now.summary.state == State::Stopping).await;
    let mut pids = BTreeMap::new();
    for name in ["logs", "notes", "port"] {
        let found = until_status(&client, name, |now| {
            now.summary.state == State::Starting && now.summary.pid.is_some()
        })
        .await;
        pids.insert(name, found.summary.pid);
    }
    let client = upgrade(&world, client).await;
    let client = upgrade(&world, client).await;
    let states: BTreeMap<String, State> =
        list(&client).await.into_iter().map(|server| (server.name, server.state)).collect();
    assert_eq!((states["waiting"], states["slow"]), (State::Restarting, State::Stopping));
    fs::write(&told, "").expect("written");
    fs::write(&up, "").expect("written");
    for (name, pid) in pids {
        assert_eq!(Some(ready(&client, name).await), pid, "{name} is the same process, and ready");
    }
    let slow = until_status(&client, "slow", |now| now.summary.state == State::Stopped).await;
    let last = slow.summary.last_exit.expect("it has ended");
    assert!(!last.cause.contains("SIGKILL"), "it ended within its grace: {}", last.cause);
    let stopped = until_status(&client, "stubborn", |now| now.summary.state == State::Stopped).await;
    let last = stopped.summary.last_exit.expect("it has ended");
    assert!(last.cause.contains("SIGKILL"), "after its grace it was killed: {}", last.cause);
    assert!(!world.processes().contains(&stubborn));
    until_status(&client, "backoff", |now| now.summary.restart_count >= 1).await;
}

#[tokio::test]
async fn who_waits_for_a_server_whose_file_is_gone_is_taken_over_and_goes_on_waiting() {
    let on_db = r#"depends_on: ["db"]"#;
    let mut world = World::with(&[
        ("db", script("sleep-forever", "")),
        ("web", script("sleep-forever", on_db)),
        ("late", script("sleep-forever", &format!("autostart: false, {on_db}"))),
    ]);
    let client = world.boot().await;
    let web = ready(&client, "web").await;
    fs::remove_file(world.file("db")).expect("it is there");
    let reload = async |client: &Client| {
        within("reload", client.call::<Reload>(ReloadParams::default())).await.expect("answered")
    };
    let result = reload(&client).await;
    assert_eq!((result.removed.len(), result.rejected.len()), (1, 2), "{result:?}");
    let start = OperationParams { wait: false, ..OperationParams::named("late") };
    within("start", client.call::<Start>(start)).await.expect("answered");
    let waits = |now: &StatusResult| {
        now.summary.next.as_ref().is_some_and(|what| what.contains("\"db\"") && what.contains("not there"))
    };
    until_status(&client, "late", waits).await;
    let client = upgrade(&world, client).await;
    assert_eq!(ready(&client, "web").await, web);
    until_status(&client, "late", waits).await;
    world.write("db", &script("sleep-forever", ""));
    assert!(reload(&client).await.rejected.is_empty());
    ready(&client, "late").await;
    assert_eq!(ready(&client, "web").await, web);
}

#[tokio::test]
async fn an_end_that_is_asked_for_right_after_an_upgrade_is_heard() {
    let mut world = World::with(&[("a", script("sleep-forever", ""))]);
    let client = world.boot().await;
    ready(&client, "a").await;
    let client = upgrade(&world, client).await;
    drop(client);
    send(world.daemon_pid().expect("it runs"), Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert!(!world.socket().exists());
}

/// Returns the threads of a process that SIGTERM can interrupt, by name.
fn who_hears(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let hears = |status: &String| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a line");
        let blocked = u64::from_str_radix(line.trim(), 16).expect("hexadecimal");
        blocked & (1 << (Signal::SIGTERM as i32 - 1)) == 0
    };
    // A thread that ends meanwhile hears nothing.
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let name = |status: String| status.lines().next().unwrap_or_default().replace("Name:\t", "");
    statuses.filter(hears).map(name).collect()
}

#[tokio::test]
async fn one_thread_of_the_daemon_hears_signals_before_and_after_an_upgrade() {
    let mut world = World::with(&[("a", script("sleep-forever", ""))]);
    let client = world.boot().await;
    ready(&client, "a").await;
    let daemon = world.daemon_pid().expect("it runs");
    // Each other thread stops to hear them first of all, which a thread without a processor has yet to do.
    let only = async |name: &str| {
        until(name, async || (who_hears(daemon) == [name]).then_some(())).await;
    };
    only("xyd").await;
    let client = upgrade(&world, client).await;
    ready(&client, "a").await;
    only("xy-program").await;
}

#[tokio::test]
async fn an_end_that_is_asked_for_while_the_new_program_comes_up_is_heard_by_whoever_goes_on() {
    for (way, new) in [("comes up", XYD.to_owned()), ("hands back", format!("{XYD} --no-such-option"))] {
        let mut world = World::with(&[("a", script("sleep-forever", ""))]).with_own_program();
        let client = world.boot().await;
        ready(&client, "a").await;
        world.replace_program(&format!(
            "case \"$*\" in *--check-handoff*) exec {XYD} \"$@\";; esac\nkill -TERM $$\nexec {new} \"$@\""
        ));
        ask(&client).await.expect("it passes the check");
        assert_eq!(world.ended().await.code(), Some(0), "{way}: {}", world.said());
        assert_eq!(world.processes(), Vec::<u32>::new());
    }
}

/// Takes a lease on a file, so that its execution waits; then signals the process, and lets the execution go on when a thread
/// has taken the signal, or none will.
const LEASE: &str = "
import fcntl, glob, os, signal, sys, time
path, pid, ready = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def signals(field):
    found = []
    for status in glob.glob(f'/proc/{pid}/task/*/status'):
        lines = dict(line.split(':', 1) for line in open(status))
        found.append(int(lines[field], 16) & 1 << signal.SIGTERM - 1)
    return found
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(path, os.O_RDONLY)
try:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
except OSError:
    os.mkdir(ready + '.refused')
    sys.exit()
os.mkdir(ready)
while fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
    time.sleep(0.001)
os.kill(pid, signal.SIGTERM)
# Whoever hears it has taken it before the execution goes on.
while any(signals('ShdPnd')) and not all(signals('SigBlk')):
    time.sleep(0.001)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
";

#[tokio::test]
async fn an_end_that_is_asked_for_in_the_middle_of_the_exchange_is_heard_by_the_new_program() {
    let mut world = World::with(&[("a", script("sleep-forever", ""))]).with_own_program();
    let client = world.boot().await;
    ready(&client, "a").await;
    // The file that is executed is put there by the check, which is the last that runs before.
    let (next, leased) = (world.path("xyd.next"), world.path("leased"));
    fs::write(&next, format!("#!/bin/sh\nexec {XYD} \"$@\"\n")).expect("written");
    fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    world.replace_program(&format!(
        "{XYD} \"$@\" || exit\nmv {} {}",
        next.display(),
        world.path("xyd").display()
    ));
    let mut holder = std::process::Command::new("python3");
    holder.args(["-c", LEASE]).arg(&next).arg(world.daemon_pid().expect("it runs").to_string()).arg(&leased);
    let Ok(mut holder) = holder.spawn() else {
        println!("left out: there is no python3 to take a lease");
        return;
    };
    let refused = world.path("leased.refused");
    let is_leased =
        until("the lease", || async { (leased.exists() || refused.exists()).then(|| leased.exists()) });
    if !is_leased.await {
        println!("left out: the file system grants no lease");
        return;
    }
    ask(&client).await.expect("it passes the check");
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(count(&world, "taken over"), 1, "it is the new program that has ended: {}", world.said());
    assert!(holder.wait().expect("our child").success(), "the signal was sent");
    assert_eq!(world.processes(), Vec::<u32>::new());
}
