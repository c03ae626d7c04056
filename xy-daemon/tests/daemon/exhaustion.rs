//! Descriptors, processes and disk run out: the daemon says so, stays in control, and goes on when there is room again.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown};
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{OperationParams, Restart, ServerSummary, Start, Targets, Wanted};

use super::support::{World, list, ready, script, stop, until, within};

const QUICK: &str = r#"restart: (backoff_initial: "10ms", backoff_max: "100ms")"#;
const SERVERS: usize = 12;

/// Servers of which only some are to fit.
fn many() -> World {
    let world = World::new().argument("--no-guard");
    for number in 0..SERVERS {
        let more = format!("{QUICK}, autostart: false");
        world.write(&format!("s{number:02}"), &script("lines 1 sleep-forever", &more));
    }
    world
}

/// A limit that some servers fit in, and one that all do.
struct Limit {
    name: &'static str,
    low: usize,
    high: usize,
    /// Whose process it is; ours if not given.
    user: Option<u32>,
    /// What a server says that did not fit.
    words: &'static str,
}

impl Limit {
    /// Sets the soft limit of the daemon, which its servers get, too.
    fn set(&self, world: &World, soft: usize) {
        let mut command = Command::new("setpriv");
        if let Some(user) = self.user {
            command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
        }
        command.args(["prlimit", "--pid", &world.pid().to_string(), &format!("--{}={soft}:", self.name)]);
        assert!(command.status().expect("setpriv can be run").success());
    }
}

/// With a limit that some servers fit in: the others say what they lack, another client is answered, and a server can be
/// stopped and started. With the limit lifted, everybody comes.
async fn stays_in_control(world: &World, client: &Client, limit: &Limit) {
    let words = limit.words;
    limit.set(world, limit.low);
    let params = OperationParams { wait: false, ..OperationParams::new(Targets::All) };
    within("start", client.call::<Start>(params)).await.expect("answered");
    let lacks = |server: &ServerSummary| {
        !server.ready && server.last_exit.as_ref().is_some_and(|last| last.cause.contains(words))
    };
    let servers = until("some servers run and the others say what they lack", || async {
        let servers = list(client).await;
        let running = servers.iter().filter(|server| server.ready).count();
        let lacking = servers.iter().filter(|server| lacks(server)).count();
        (running > 0 && lacking > 0 && running + lacking == SERVERS).then_some(servers)
    })
    .await;
    let begun = Instant::now();
    assert_eq!(list(&world.connect().await).await.len(), SERVERS);
    let took = begun.elapsed().as_millis();
    // However many clients sit there and ask nothing, there is room for one more.
    let mut idle = Vec::new();
    for _ in 0..40 {
        let client = world.connect().await;
        assert_eq!(list(&client).await.len(), SERVERS);
        idle.push(client);
    }
    let client = &world.connect().await;
    let (running, lacking): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.ready);
    println!(
        "{} servers run, {} say: {words}; a new client was answered after {took} ms",
        running.len(),
        lacking.len()
    );
    assert!(servers.iter().all(|server| server.wanted == Wanted::Up), "nobody is given up: {servers:#?}");
    let one = &running[0].name;
    assert_eq!(&stop(client, one).await.stopped, std::slice::from_ref(one));
    limit.set(world, limit.high);
    for server in lacking {
        ready(client, &server.name).await;
    }
    within("start", client.call::<Start>(OperationParams::named(one))).await.expect("answered");
    ready(client, one).await;
}

#[tokio::test]
async fn with_no_descriptor_left_it_answers_says_so_and_goes_on_when_there_are_some() {
    let mut world = many();
    let client = world.boot().await;
    let open = fs::read_dir(format!("/proc/{}/fd", world.pid())).expect("readable").count();
    let words = "too many open files";
    let limit = Limit { name: "nofile", low: open + 30, high: 1024, user: None, words };
    stays_in_control(&world, &client, &limit).await;
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn with_no_process_left_it_answers_says_so_and_goes_on_when_there_are_some() {
    if !Uid::effective().is_root() {
        println!(
            "skipped: the limit counts all processes of a user, and it takes root to have a user of its own"
        );
        return;
    }
    let mut world = many();
    // Nobody else runs anything as this user.
    let user = 1_900_000_000 + std::process::id();
    give(&world.path("."), user);
    let become_user = format!("exec setpriv --reuid={user} --regid={user} --clear-groups -- \"$0\" \"$@\"");
    let client = world.boot_after(&become_user).await;
    let threads = fs::read_dir(format!("/proc/{}/task", world.pid())).expect("readable").count();
    let words = "the limit on processes is reached";
    let limit = Limit { name: "nproc", low: threads + 5, high: 1024, user: Some(user), words };
    stays_in_control(&world, &client, &limit).await;
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
}

/// Makes everything below a directory, and that itself, another user's.
fn give(path: &std::path::Path, user: u32) {
    chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(user))).expect("we are root");
    let is_dir = path.is_dir();
    if is_dir {
        for entry in fs::read_dir(path).expect("readable").flatten() {
            give(&entry.path(), user);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("ours");
    }
}

/// A daemon whose state is on a disk of 1 MB, as seen from outside its mount namespace.
struct SmallDisk {
    world: World,
    state: PathBuf,
}

impl SmallDisk {
    /// `None` if this machine grants no mount namespace. The script runs on the new disk before the daemon.
    async fn boot(mut world: World, script: &str) -> Option<(Self, Client)> {
        let state = world.path("state");
        let works = Command::new("unshare").args(["-Urm", "true"]).stderr(Stdio::null()).status();
        if !works.is_ok_and(|status| status.success()) {
            println!("skipped: this machine grants no mount namespace (`unshare -Urm`)");
            return None;
        }
        fs::create_dir(&state).expect("created");
        let daemon = world.command();
        let mut command = Command::new("unshare");
        let mount = format!(
            "mount -t tmpfs -o size=1m,mode=0700 xy {0} && cd {0} && {script}; cd /; exec \"$0\" \"$@\"",
            state.display()
        );
        command.args(["-Urm", "/bin/sh", "-c", &mount]);
        command.arg(daemon.get_program()).args(daemon.get_args()).env_clear();
        command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = File::options().create(true).append(true).open(world.path("xyd.log")).expect("opened");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        world.adopt(command.spawn().expect("unshare can be run"));
        let client = world.connect().await;
        let state = PathBuf::from(format!("/proc/{}/root{}", world.pid(), state.display()));
        Some((Self { world, state }, client))
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.state.join(format!("xy/logs/{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fills what is left of the disk.
    fn fill(&self) {
        let ballast = vec![0; 4096];
        let mut file =
            File::options().create(true).append(true).open(self.state.join("ballast")).expect("opened");
        while std::io::Write::write_all(&mut file, &ballast).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.state.join("ballast")).expect("it was there");
    }
}

#[tokio::test]
async fn on_a_full_disk_lines_are_dropped_and_counted_and_nothing_else_suffers() {
    let world = World::new().argument("--no-guard");
    world.write("chatty", &script("chatter 5", QUICK));
    world.write("idle", &script("lines 1 sleep-forever", QUICK));
    let Some((disk, client)) = SmallDisk::boot(world, "true").await else { return };
    ready(&client, "chatty").await;
    let idle = ready(&client, "idle").await;
    disk.fill();
    // What is kept of events may have met the full disk before.
    until("it says that the log's disk is full", || async {
        let said = disk.world.said();
        let mut lines = said.lines().filter(|line| line.contains("No space left on device"));
        lines.any(|line| line.contains("chatty") && line.contains("lines are dropped")).then_some(())
    })
    .await;
    // Starts, stops and answers go on, though neither logs nor ledger can be written.
    let restarted = within("restart", client.call::<Restart>(OperationParams::named("idle"))).await;
    assert_eq!(restarted.expect("answered").restarted, ["idle"]);
    let again = ready(&client, "idle").await;
    assert_ne!(again, idle);
    disk.make_room();
    let gap = "dropped: No space left on device";
    until("the log says what is missing", || async { disk.log("chatty").contains(gap).then_some(()) }).await;
    let text = disk.log("chatty");
    let text = text.split_once(gap).map(|(_, after)| after.to_owned()).expect("there");
    until("lines after it", || async { (disk.log("chatty").len() > text.len()).then_some(()) }).await;
    assert!(disk.log("chatty").lines().all(|line| line.len() > 24), "no line is torn");
    until("the ledger is written again", || async {
        let ledger = fs::read_to_string(disk.state.join("xy/processes.ledger")).unwrap_or_default();
        if ledger.contains(&format!(" {again} ")) {
            return Some(());
        }
        // The next event of any process brings it back.
        within("restart", client.call::<Restart>(OperationParams::named("chatty"))).await.expect("answered");
        None
    })
    .await;
}

#[tokio::test]
async fn on_a_disk_that_is_full_from_the_beginning_it_runs_and_says_what_it_cannot_write() {
    let world = World::new().argument("--no-guard");
    world.write("idle", &script("lines 1 sleep-forever", QUICK));
    let fill = "mkdir -m 700 xy xy/logs && { cat /dev/zero > ballast 2>/dev/null || true; }";
    let Some((disk, client)) = SmallDisk::boot(world, fill).await else { return };
    let pid = ready(&client, "idle").await;
    assert!(disk.world.said().contains("No space left on device"), "{}", disk.world.said());
    disk.make_room();
    assert_eq!(stop(&client, "idle").await.stopped, ["idle"]);
    within("restart", client.call::<Restart>(OperationParams::named("idle"))).await.expect("answered");
    let again = ready(&client, "idle").await;
    assert_ne!(pid, again);
    let ledger = fs::read_to_string(disk.state.join("xy/processes.ledger")).expect("it is there now");
    assert!(ledger.contains(&format!(" {again} ")), "{ledger}");
}
