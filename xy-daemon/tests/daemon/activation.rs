//! Sockets of a service manager: a parent that binds them, as systemd does, and a daemon that serves on them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{Upgrade, UpgradeParams, Version, VersionParams};

use super::support::{World, environment, ready, script, send, until, within};

/// What a service manager has bound.
struct Bound {
    control: UnixListener,
    path: PathBuf,
    http: TcpListener,
}

impl Bound {
    /// Binds both, in a directory and with a mode that are not to be changed.
    fn new(world: &World, http: &str) -> Self {
        let directory = world.path("manager");
        fs::create_dir(&directory).expect("created");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("our own");
        let path = directory.join("activated.sock");
        let control = UnixListener::bind(&path).expect("bound");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our own");
        Self { control, path, http: TcpListener::bind(http).expect("bound") }
    }

    fn facts(&self) -> (u64, u32) {
        let metadata = fs::symlink_metadata(&self.path).expect("nobody has removed it");
        (metadata.ino(), metadata.mode())
    }

    /// Starts a daemon with both on descriptors 3 and 4; `pid` is the shell's word for whom they are meant.
    fn start(&self, world: &mut World, names: &str, pid: &str) {
        let daemon = world.command();
        let log = File::options().create(true).append(true).open(world.path("xyd.log")).expect("opened");
        let mut shell = Command::new("/bin/sh");
        shell.args([
            "-c",
            &format!(
                "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_FDNAMES={names} LISTEN_PID={pid}; \
                 exec \"$0\" \"$@\""
            ),
        ]);
        shell.arg(daemon.get_program()).args(daemon.get_args()).env_clear();
        shell.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::from(OwnedFd::from(self.control.try_clone().expect("a descriptor"))));
        shell.stdout(Stdio::from(OwnedFd::from(self.http.try_clone().expect("a descriptor"))));
        world.adopt(shell.stderr(log).spawn().expect("a shell can be run"));
    }

    async fn answers(&self) -> Client {
        let client = connect(&self.path).await;
        let address = self.http.local_addr().expect("bound");
        until("an answer over HTTP", || async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            let request = format!("GET /v1/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
        client
    }
}

async fn connect(path: &Path) -> Client {
    until("an answer on the socket", || async {
        let client = Client::connect(path).await.ok()?;
        within("version", client.call::<Version>(VersionParams::default())).await.ok().map(|_| client)
    })
    .await
}

#[tokio::test]
async fn a_daemon_serves_on_sockets_it_was_given_through_upgrade_and_crash_and_leaves_them_as_they_were() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]).with_own_program();
    let bound = Bound::new(&world, "127.0.0.1:0");
    let before = bound.facts();
    bound.start(&mut world, "xyd:http", "$$");
    let client = bound.answers().await;
    let pid = ready(&client, "web").await;
    assert!(!world.socket().exists(), "no other socket was bound");
    // Neither variables nor sockets reach a server.
    let variables = environment(pid).expect("it runs");
    assert!(!variables.iter().any(|variable| variable.starts_with("LISTEN_")), "{variables:?}");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let open: Vec<PathBuf> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(
        !open.is_empty() && !open.iter().any(|path| path.to_string_lossy().starts_with("socket:")),
        "{open:?}"
    );

    within("upgrade", client.call::<Upgrade>(UpgradeParams {})).await.expect("it takes place");
    until("the next program", || async { world.said().contains("taken over").then_some(()) }).await;
    let client = bound.answers().await;
    assert_eq!(ready(&client, "web").await, pid);

    let daemon = world.daemon_pid().expect("it has a lock");
    assert_ne!(daemon, world.pid(), "there is a guard");
    send(daemon, Signal::SIGKILL);
    until("the next daemon", || async { world.daemon_pid().filter(|pid| *pid != daemon) }).await;
    let client = bound.answers().await;
    assert_ne!(ready(&client, "web").await, pid);

    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(bound.facts(), before, "neither removed nor changed");
    UnixStream::connect(&bound.path).expect("the manager still listens");
}

#[tokio::test]
async fn sockets_for_another_process_are_left_alone_and_an_own_one_is_bound() {
    for pid in ["1", "''", "$PPID"] {
        let mut world = World::new().argument("--no-guard");
        let bound = Bound::new(&world, "0.0.0.0:0");
        bound.start(&mut world, "xyd:http", pid);
        let client = world.connect().await;
        within("version", client.call::<Version>(VersionParams::default())).await.expect("answered");
        world.signal(Signal::SIGTERM);
        assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    }
}

#[tokio::test]
async fn sockets_of_the_wrong_kind_are_refused_with_the_reason() {
    for (http, names, problem) in [
        ("0.0.0.0:0", "xyd:http", "is not a loopback address"),
        ("127.0.0.1:0", "http:xyd", "descriptor 3 cannot be `http`, which is a socket of TCP"),
        ("127.0.0.1:0", "xyd:ssh", "descriptor 4 is named `ssh`, expected `xyd` or `http`"),
        ("127.0.0.1:0", "xyd", "`LISTEN_FDNAMES` has 1 names for 2 sockets"),
    ] {
        let mut world = World::new();
        let bound = Bound::new(&world, http);
        bound.start(&mut world, names, "$$");
        assert_eq!(world.ended().await.code(), Some(3), "{}", world.said());
        assert!(world.said().contains(problem), "{problem}: {}", world.said());
        assert!(!world.socket().exists());
    }
}
