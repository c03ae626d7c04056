//! This test program as a host of its own, for what would disturb the other tests: signals, limits, descriptors, the
//! subreaper role, and death by SIGKILL.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Uid;
use xy_actors::event::ChildReport;
use xy_actors::event::stream::{EventCursor, EventItem, EventKind};
use xy_actors::log::{LogHub, LogSettings};
use xy_actors::policy::State;
use xy_actors::process::settings::{self, ResourceLimit, SearchPath, prepare_own_limits};
use xy_actors::process::{
    HostError, HostOptions, LoginPathError, OsProcess, ProcessExit, ProcessHost, ProcessSpec, SpawnErrorKind,
    known_login_path, process,
};
use xy_actors::spec::{Backoff, ChildSpec, OnLimit, Order, RestartIntensity, RestartLimit, SupervisorSpec};
use xy_actors::supervisor::Supervisor;

use crate::settings::limit;
use crate::support::{
    SCENARIO, SCENARIO_DIR, carriers, child, deadline, host, is_running, pid_in, run, state_of,
    wait_until_async,
};

/// Runs the scenario that the environment names. Without one there is nothing to do: the tests that start this program
/// again are elsewhere.
#[test]
fn host_process() {
    let Ok(name) = std::env::var(SCENARIO) else { return };
    let dir = PathBuf::from(std::env::var_os(SCENARIO_DIR).expect("set together with the scenario"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match name.as_str() {
            "signals" => signals().await,
            "child_signal_ignored" => assert!(matches!(
                ProcessHost::start(HostOptions::default()),
                Err(HostError::ChildSignalIgnored)
            )),
            "descriptors" => descriptors().await,
            "closed_stdio" => closed_stdio().await,
            "no_descriptors" => no_descriptors().await,
            "no_processes" => no_processes().await,
            "blocked_directory" => blocked_directory(&dir).await,
            "one_child" => one_child(&dir).await,
            "child_as_nobody" => child_as_nobody(&dir).await,
            "own_limits" => own_limits().await,
            "shortage" => shortage().await,
            "silent_login_shell" => silent_login_shell(&dir).await,
            "login_path" => login_path(&dir).await,
            "sweep" => sweep(&dir).await,
            "cgroup" => crate::cgroup::cgroup(&dir).await,
            "subreaper_tree" => subreaper_tree(&dir).await,
            "subreaper_orphans" => subreaper_orphans().await,
            "subreaper_five_hundred" => subreaper_five_hundred(&dir).await,
            "subreaper_flight" => subreaper_flight().await,
            "subreaper_blind" => subreaper_blind().await,
            "subreaper_last_ancestor" => subreaper_last_ancestor(&dir).await,
            "subreaper_stranger" => subreaper_stranger(&dir).await,
            other => panic!("no scenario is called {other}"),
        }
    });
}

async fn signals() {
    // What the shell ignored is still ignored; the mask is for the threads that come after, the spawner's among them.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).expect("blocked");
    let ignored = fs::read_to_string("/proc/self/status").expect("readable");
    let ignored = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("a line").to_owned();
    assert!(u64::from_str_radix(&ignored, 16).expect("hexadecimal").count_ones() >= 10, "{ignored}");
    let (output, _) = run(&host(), &child("print-signals")).await;
    // The standard library of the child itself ignores SIGPIPE before its main.
    assert_eq!(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\n");
    let mut shell = ProcessSpec::new("grep");
    shell.args = vec!["Sig[BI]".to_owned(), "/proc/self/status".to_owned()];
    let (output, _) = run(&host(), &shell).await;
    assert_eq!(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

fn open_files(count: usize) -> Vec<OwnedFd> {
    let null = fs::File::open("/dev/null").expect("opened");
    // dup leaves close-on-exec off.
    (0..count).map_while(|_| nix::unistd::dup(&null).ok()).collect()
}

async fn descriptors() {
    let junk = open_files(100);
    assert_eq!(junk.len(), 100);
    let (output, _) = run(&host(), &child("print-fds")).await;
    assert_eq!(output, "fds 0 1 2\n");
}

async fn closed_stdio() {
    let host = host();
    for fd in 0..3 {
        nix::unistd::close(fd).expect("open until now");
    }
    let (output, exit) = run(&host, &child("print-fds read-stdin print end")).await;
    // Nobody hears a message of ours any more, so the exit code has to tell.
    assert_eq!((output.as_str(), exit), ("fds 0 1 2\nstdin 0\nend\n", ProcessExit::Code(0)));
}

async fn no_descriptors() {
    let host = host();
    // What is opened once is open by now.
    run(&host, &child("exit 0")).await;
    setrlimit(Resource::RLIMIT_NOFILE, 128, 128).expect("lowered");
    let mut failures = 0;
    for free in 0..28 {
        let mut junk = open_files(128);
        junk.truncate(junk.len().saturating_sub(free));
        let result = host.spawn("test", &child("sleep-forever")).await;
        drop(junk);
        match result {
            Ok(process) => drop(process),
            Err(error) => {
                assert_eq!(error.kind(), SpawnErrorKind::TooManyOpenFiles, "{error}");
                assert!(error.is_resource_shortage());
                failures += 1;
                assert_eq!(host.live(), []);
            }
        }
        wait_until_async("no child is left", || children().is_empty()).await;
    }
    // Sixteen are kept for control, and some are for the attempt itself.
    assert!((16..28).contains(&failures), "{failures} of 28 failed");
}

fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").expect("readable").flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect::<Vec<_>>())
        .collect()
}

/// Root is above limits and permissions.
fn become_nobody() {
    if Uid::effective().is_root() {
        let nobody = Uid::from_raw(65534);
        nix::unistd::setresuid(nobody, nobody, nobody).expect("dropped");
    }
}

async fn no_processes() {
    let host = host();
    become_nobody();
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).expect("lowered");
    let error = host.spawn("test", &child("exit 0")).await.expect_err("does not start");
    assert_eq!(error.kind(), SpawnErrorKind::TooManyProcesses, "{error}");
    assert!(error.is_resource_shortage());
    assert_eq!(host.live(), []);
}

async fn blocked_directory(dir: &Path) {
    let blocked = dir.join("blocked");
    fs::create_dir(&blocked).expect("created");
    fs::write(blocked.join("tool"), "").expect("written");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permitted");
    mode(dir, 0o755);
    mode(&blocked, 0o000);
    let host = host();
    become_nobody();
    let tool = ProcessSpec::new(blocked.join("tool").to_str().expect("UTF-8"));
    let error = host.spawn("test", &tool).await.expect_err("does not start");
    assert_eq!(
        (error.kind(), error.path()),
        (SpawnErrorKind::PathInaccessible, Some(blocked.as_path())),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("`{}`", blocked.display())), "{error}");
    let inside = ProcessSpec { working_dir: Some(blocked.clone()), ..ProcessSpec::new("/bin/sh") };
    let error = host.spawn("test", &inside).await.expect_err("does not start");
    assert_eq!(
        (error.kind(), error.path()),
        (SpawnErrorKind::WorkingDirInaccessible, Some(blocked.as_path()))
    );
}

async fn one_child(dir: &Path) {
    let script = format!("touch {} sleep-forever", dir.join("main").display());
    let _process = host().spawn("test", &child(&script)).await.expect("starts");
    std::future::pending().await
}

/// A host that runs as root and whose child does not.
async fn child_as_nobody(dir: &Path) {
    let mut spec = ProcessSpec::new("/bin/sleep");
    spec.args = vec!["600".to_owned()];
    spec.working_dir = Some("/".into());
    spec.settings.user = Some("nobody".to_owned());
    let process = host().spawn("test", &spec).await.expect("starts");
    let written = dir.join("written");
    fs::write(&written, process.pid().to_string()).expect("written");
    fs::rename(written, dir.join("main")).expect("renamed");
    std::future::pending().await
}

async fn own_limits() {
    setrlimit(Resource::RLIMIT_NOFILE, 256, 512).expect("lowered");
    setrlimit(Resource::RLIMIT_CORE, 4096, 8192).expect("lowered");
    prepare_own_limits().expect("permitted");
    // The second call must not take the raised values for the original ones.
    prepare_own_limits().expect("permitted");
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((512, 512)));
    assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 8192)));
    let mut spec = ProcessSpec::new("/bin/cat");
    spec.args = vec!["/proc/self/limits".to_owned()];
    let (output, _) = run(&host(), &spec).await;
    assert_eq!(limit(&output, "Max open files"), ["256", "512"]);
    assert_eq!(limit(&output, "Max core file size"), ["4096", "8192"]);
    // What the spec says wins.
    spec.settings.limits = vec![ResourceLimit::new(settings::Resource::Nofile, 64)];
    let (output, _) = run(&host(), &spec).await;
    assert_eq!(limit(&output, "Max open files"), ["64", "64"]);
}

/// The limit on processes is reached for a while, then lifted.
async fn shortage() {
    let host = host();
    let logs = LogHub::new(None);
    become_nobody();
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).expect("a limit");
    setrlimit(Resource::RLIMIT_NPROC, 0, hard).expect("lowered");
    let millis = Duration::from_millis;
    let rules = ChildSpec {
        limit: Some(RestartLimit {
            intensity: RestartIntensity::new(0, Duration::from_secs(3600)),
            on_limit: OnLimit::GiveUp,
        }),
        backoff: Some(Backoff { base: millis(1), max: millis(10), ..Backoff::default() }),
        ..ChildSpec::worker("web")
    };
    let spec = ProcessSpec { working_dir: Some("/".into()), ..ProcessSpec::new("/bin/sleep") };
    let spec = ProcessSpec { args: vec!["600".to_owned()], ..spec };
    let spec_of_tree = SupervisorSpec { order: Order::Concurrent, ..SupervisorSpec::default() };
    let tree = Supervisor::builder(spec_of_tree)
        .child(rules, process(spec, &host, &logs))
        .spawn()
        .await
        .expect("starts");
    let mut events = tree.events(EventCursor::Seq(1));
    let mut failures = 0;
    while failures < 5 {
        let Some(EventItem::Event(event)) = events.next().await else { panic!("the tree lives") };
        let EventKind::Child { report: ChildReport::StartFailed { .. }, exit, .. } = &event.kind else {
            continue;
        };
        let text = exit.as_ref().map(|exit| exit.to_string()).unwrap_or_default();
        assert!(text.contains("the limit on processes is reached"), "{text}");
        failures += 1;
    }
    let child = tree.which_child("web").await.expect("known");
    assert_eq!((child.restarts, child.state == State::Failed), (0, false), "{child:?}");
    setrlimit(Resource::RLIMIT_NPROC, hard, hard).expect("lifted");
    loop {
        let Some(EventItem::Event(event)) = events.next().await else { panic!("the tree lives") };
        if let EventKind::Child { report: ChildReport::Ready, .. } = &event.kind {
            break;
        }
    }
    tree.shutdown().await;
}

async fn login_path(dir: &Path) {
    let host = host();
    let mut spec = child("print-env");
    spec.settings.path = SearchPath::Login;
    let path_in = |output: &str| {
        let path = output.lines().find_map(|line| line.strip_prefix("PATH=").map(str::to_owned));
        path.expect("a PATH")
    };
    // Together, and asked once.
    let (one, two) = tokio::join!(run(&host, &spec), run(&host, &spec));
    for (output, _) in [one, two] {
        assert_eq!(path_in(&output), "/from/the/profile:/usr/bin:/bin");
    }
    assert_eq!(fs::read_to_string(dir.join("asked")).expect("the profile ran"), "asked\n");
    spec.env.insert("PATH".to_owned(), "/from/env".to_owned());
    let (output, _) = run(&host, &spec).await;
    assert_eq!(path_in(&output), "/from/env");
    assert_eq!(host.live(), []);
}

async fn silent_login_shell(dir: &Path) {
    let host = host();
    let mut spec = child("print-env");
    spec.settings.path = SearchPath::Login;
    for _ in 0..2 {
        let (output, exit) = run(&host, &spec).await;
        assert_eq!(exit, ProcessExit::Code(0));
        let path = output.lines().find_map(|line| line.strip_prefix("PATH="));
        assert_eq!(path, std::env::var("PATH").ok().as_deref());
    }
    let known = known_login_path(None).expect("it was asked").expect_err("it does not answer");
    assert!(matches!(&*known, LoginPathError::Late { .. }), "{known}");
    // Whoever misses a program is told that it was looked for in another place than was meant.
    let mut missing = ProcessSpec::new("no-such-program");
    missing.settings.path = SearchPath::Login;
    let error = host.spawn("missing", &missing).await.expect_err("there is none").to_string();
    assert!(error.ends_with(&format!("this PATH is the inherited one, because {known}")), "{error}");
    missing.env.insert("PATH".to_owned(), "/from/env".to_owned());
    let error = host.spawn("missing", &missing).await.expect_err("there is none").to_string();
    assert!(!error.contains("login shell"), "it had a PATH of its own: {error}");
    let asked = fs::read_to_string(dir.join("asked")).expect("the profile ran");
    assert_eq!(asked, "asked\n", "asked once");
    let logs = LogHub::new(None);
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("web"), process(spec, &host, &logs))
        .start()
        .await
        .expect("starts");
    let log = logs.open("web", LogSettings::default()).expect("open");
    let note = format!("PATH is the inherited one, because {known}");
    let is_noted = || log.tail(100).iter().any(|line| *line.bytes == *note.as_bytes());
    wait_until_async("its log says so", is_noted).await;
    tree.shutdown().await;
    wait_until_async("the shell is gone", || host.live().is_empty()).await;
}

async fn sweep(dir: &Path) {
    let options = HostOptions { ledger: Some(dir.join("ledger")), ..HostOptions::default() };
    let (host, _) = ProcessHost::start(options).expect("a host starts");
    let (grandchild, main) = (dir.join("grandchild"), dir.join("main"));
    // One that is over is not swept, nor counted as stale.
    run(&host, &child("exit 0")).await;
    let script = format!(
        "double-fork 3 touch {} sleep-forever touch {} sleep-forever",
        grandchild.display(),
        main.display()
    );
    let _process = host.spawn("web/one", &child(&script)).await.expect("starts");
    std::future::pending().await
}

fn subreaper() -> ProcessHost {
    let options = HostOptions { subreaper: true, ..HostOptions::default() };
    ProcessHost::start(options).expect("a host starts").0
}

async fn subreaper_tree(dir: &Path) {
    let host = subreaper();
    let ready = dir.join("ready");
    let bystander =
        host.spawn("other", &child("spawn-setsid 1 sleep-forever sleep-forever")).await.expect("starts");
    let process = host
        .spawn("test", &child(&format!("tree 60 touch {} sleep-forever", ready.display())))
        .await
        .expect("starts");
    pid_in(&ready);
    // The second of a double fork may still be on its way out of its parent's session.
    wait_until_async("all have become what they are", || {
        let members = process.members().expect("readable");
        members.len() == 61 && members.iter().filter(|member| member.escaped).count() == 30
    })
    .await;
    let orphan =
        process.members().expect("readable").into_iter().find(|member| member.escaped).expect("30 of them");
    assert!(children().contains(&orphan.pid), "orphans come to us");
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.as_slice()), (61, [].as_slice()));
    assert_eq!(carriers(process.marker()), [0_u32; 0]);
    process.reap().expect("killed");
    assert_eq!(bystander.members().expect("readable").len(), 2, "another tree is not touched");
    let kept = bystander.pid();
    wait_until_async("no zombie is left", || children() == [kept]).await;
}

async fn subreaper_orphans() {
    let host = subreaper();
    let mut own = std::process::Command::new(env!("CARGO_BIN_EXE_xy-testchild"))
        .args(["exit", "9"])
        .spawn()
        .expect("starts");
    let (_, exit) = run(&host, &child("daemons 300")).await;
    assert_eq!(exit, ProcessExit::Code(0));
    let own_pid = own.id();
    assert!(!is_running(own_pid));
    wait_until_async("no orphan is left", || children() == [own_pid]).await;
    // Ours to wait for, however many orphans were reaped around it.
    assert_eq!(state_of(own_pid), Some('Z'));
    assert_eq!(own.wait().expect("not stolen").code(), Some(9));
    // A process of ours that has ended stays for its owner, too.
    let process = host.spawn("test", &child("daemons 20 exit 3")).await.expect("starts");
    process.exited().await;
    let pid = process.pid();
    wait_until_async("no orphan is left", || children() == [pid]).await;
    tokio::time::timeout(Duration::from_secs(5), process.tree_gone(deadline()))
        .await
        .expect("in time")
        .expect("gone");
    assert_eq!(process.reap().expect("ended"), ProcessExit::Code(3));
}

async fn subreaper_five_hundred(dir: &Path) {
    let host = subreaper();
    let ready = dir.join("ready");
    let script = format!("tree 500 touch {} sleep-forever", ready.display());
    let process = host.spawn("test", &child(&script)).await.expect("starts");
    wait_until_async("all are there", || ready.exists()).await;
    wait_until_async("all have become what they are", || {
        let members = process.members().expect("readable");
        members.len() == 501 && members.iter().filter(|member| member.escaped).count() == 250
    })
    .await;
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.len()), (501, 0));
    assert_eq!(carriers(process.marker()), [0_u32; 0]);
    process.reap().expect("killed");
    wait_until_async("no zombie is left", || children().is_empty()).await;
}

async fn subreaper_blind() {
    let host = subreaper();
    let process =
        host.spawn("test", &child("spawn-setsid 1 sleep-forever sleep-forever")).await.expect("starts");
    wait_until_async("both are there", || {
        let members = process.members().expect("readable");
        members.len() == 2 && members.iter().any(|member| member.escaped)
    })
    .await;
    let members = process.members().expect("readable");
    let escaped = members.into_iter().find(|member| member.escaped).expect("it was there").pid;
    // Its end is heard without a descriptor more; nothing can be looked at.
    setrlimit(Resource::RLIMIT_NOFILE, 128, 128).expect("lowered");
    let junk = open_files(128);
    process.signal_group(9).expect("sent");
    process.exited().await;
    assert_eq!(process.members().expect_err("no descriptor").raw_os_error(), Some(24));
    let short = || tokio::time::Instant::now() + Duration::from_millis(100);
    process.tree_gone(short()).await.expect_err("nobody can say that it is gone");
    let blind = process.kill_tree(short()).await;
    assert_eq!((blind.killed.len(), blind.left.len()), (0, 1), "{blind:?}");
    let escaped = nix::unistd::Pid::from_raw(i32::try_from(escaped).expect("a pid"));
    nix::sys::signal::kill(escaped, None).expect("the one that left the group lives, unseen");
    drop(junk);
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.as_slice()), (1, [].as_slice()));
    assert_eq!(carriers(process.marker()), [0_u32; 0]);
    process.reap().expect("killed");
}

async fn subreaper_flight() {
    let host = subreaper();
    let process = host.spawn("test", &child("spawn 2 flee 1000000 sleep-forever")).await.expect("starts");
    let first = process.pid();
    wait_until_async("it is on its way", || {
        process.members().expect("readable").iter().any(|member| member.escaped && member.pid > first + 10)
    })
    .await;
    let report = process.kill_tree(deadline()).await;
    assert_eq!(report.left, []);
    assert_eq!(carriers(process.marker()), [0_u32; 0]);
    process.reap().expect("killed");
    wait_until_async("nobody is left", || children().is_empty()).await;
}

/// Starts main -> helper -> one without session, group and environment of the tree; the helper ends when it may `go`.
async fn with_fugitive(host: &ProcessHost, fled: &Path, go: &Path) -> (OsProcess, u32) {
    let script = format!(
        "spawn 8 spawn-setsid 4 clear-env touch {} sleep-forever wait-for {} sleep-forever",
        fled.display(),
        go.display(),
    );
    let process = host.spawn("test", &child(&script)).await.expect("starts");
    (process, pid_in(fled))
}

async fn subreaper_last_ancestor(dir: &Path) {
    let host = subreaper();
    let (fled, go) = (dir.join("fled"), dir.join("go"));
    let (process, fled) = with_fugitive(&host, &fled, &go).await;
    let bystander = host.spawn("other", &child("sleep-forever")).await.expect("starts");
    assert!(process.members().expect("readable").iter().any(|member| member.pid == fled), "seen in time");
    fs::write(&go, "").expect("written");
    wait_until_async("it lost its parent", || children().contains(&fled)).await;
    assert_eq!(host.strangers(), []);
    assert!(!bystander.members().expect("readable").iter().any(|member| member.pid == fled));
    let report = process.kill_tree(deadline()).await;
    assert!(report.killed.iter().any(|member| member.pid == fled), "{report:?}");
    assert!(!is_running(fled));
    process.reap().expect("killed");
}

async fn subreaper_stranger(dir: &Path) {
    let host = subreaper();
    let (fled, go) = (dir.join("fled"), dir.join("go"));
    // Session, group and environment are gone before the parent is, and nobody has looked meanwhile.
    let (process, fled) = with_fugitive(&host, &fled, &go).await;
    fs::write(&go, "").expect("written");
    wait_until_async("it lost its parent", || children().contains(&fled)).await;
    let strangers = || host.strangers().iter().map(|member| member.pid).collect::<Vec<_>>();
    assert_eq!(strangers(), [fled]);
    process.kill_tree(deadline()).await;
    process.reap().expect("killed");
    assert!(is_running(fled), "nobody can say whose it was");
    assert_eq!(host.end_strangers().await.iter().map(|member| member.pid).collect::<Vec<_>>(), [fled]);
    assert!(!is_running(fled));
    assert_eq!(strangers(), [0_u32; 0]);
    wait_until_async("no zombie is left", || children().is_empty()).await;
}
