//! Another user of the machine; only root can act as one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use xy_daemon::protocol::method::{List, ListParams, OperationParams, Stop};

use crate::support::{SERVER, World, ready, script, within};

/// Nobody.
const STRANGER: u32 = 65534;

/// Returns a program that anybody can run, unless the tests cannot act as somebody else.
fn program(world: &World) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root can act as another user");
        return None;
    }
    open_up(world.directory.path(), 0o755);
    let program = world.path("stranger");
    fs::copy(SERVER, &program).expect("copied");
    open_up(&program, 0o755);
    Some(program)
}

fn open_up(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

/// Runs a step as the stranger.
fn attempt(program: &Path, step: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(step).env_clear().uid(STRANGER).gid(STRANGER).output().expect("the stranger can run")
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_connection_of_another_user_is_closed_before_its_first_byte_is_read() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]);
    let Some(program) = program(&world) else { return };
    let client = world.boot().await;
    let pid = ready(&client, "web").await;
    let socket = world.socket();
    let text = socket.to_str().expect("text");
    let shutdown = r#"{"jsonrpc":"2.0","id":1,"method":"shutdown"}"#;

    let kept_out = attempt(&program, &["dial", text, shutdown]);
    let said = String::from_utf8_lossy(&kept_out.stderr).into_owned();
    assert!(said.contains("Permission denied"), "{kept_out:?}");

    // Somebody has opened the way: the peer is still asked for.
    for path in [world.path("run"), world.path("run/xy")] {
        open_up(&path, 0o777);
    }
    open_up(&socket, 0o777);
    for request in [shutdown, "{", ""] {
        let refused = attempt(&program, &["dial", text, request]);
        assert!(refused.stdout.is_empty(), "not even an error is answered: {refused:?}");
    }
    assert!(world.said().contains("another user"), "{}", world.said());
    // The same from ourselves is answered, so that it was the user that made the difference.
    let ours = Command::new(&program).args(["dial", text, "{"]).env_clear().output().expect("it runs");
    assert!(String::from_utf8_lossy(&ours.stdout).contains("-32700"), "{ours:?}");
    let list = within("list", client.call::<List>(ListParams {})).await.expect("answered");
    assert_eq!(list.servers[0].pid, Some(pid), "nobody has shut anything down");
}

#[tokio::test]
async fn no_file_of_the_daemon_tells_another_user_anything() {
    let mut world = World::with(&[("web", script("lines 3 sleep-forever", ""))])
        .argument("--http")
        .argument("127.0.0.1:0");
    let Some(program) = program(&world) else { return };
    let client = world.boot().await;
    ready(&client, "web").await;
    // Its output is in its file when its end is told, and not before.
    within("stop", client.call::<Stop>(OperationParams::named("web"))).await.expect("answered");
    let files: Vec<_> =
        [world.path("state/xy"), world.path("run/xy")].iter().flat_map(|path| files_below(path)).collect();
    let has = |name: &str| files.iter().any(|file| file.ends_with(name));
    assert!(has("http.token") && has("xyd.json") && has("web.log") && has("xyd.lock"), "{files:?}");
    // As if the directories above did not keep anybody out.
    for directory in ["state", "state/xy", "state/xy/logs", "run", "run/xy"] {
        open_up(&world.path(directory), 0o755);
    }
    for file in files {
        let mode = fs::symlink_metadata(&file).expect("it is there").mode();
        let read = attempt(&program, &["read", file.to_str().expect("text")]);
        assert!(read.stdout.is_empty() && !read.status.success(), "{}: {mode:o} {read:?}", file.display());
    }
}

#[tokio::test]
async fn no_socket_has_a_name_that_no_directory_protects() {
    let mut world = World::with(&[("web", script("notify READY=1 sleep-forever", "ready: Notify"))]);
    let client = world.boot().await;
    ready(&client, "web").await;
    let pid = world.daemon_pid().expect("it serves");
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .filter_map(|entry| {
            let link = fs::read_link(entry.ok()?.path()).ok()?;
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string("/proc/net/unix").expect("proc");
    let ours: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.get(6).is_some_and(|inode| inodes.iter().any(|own| own == inode)))
        .collect();
    assert!(
        ours.iter().any(|columns| columns.get(7).is_some_and(|name| name.ends_with("xyd.sock"))),
        "{ours:?}"
    );
    assert!(!ours.iter().any(|columns| columns.get(7).is_some_and(|name| name.starts_with('@'))), "{ours:?}");
}
