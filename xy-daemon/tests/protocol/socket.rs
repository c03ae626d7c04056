//! The socket and the locks: who gets them, who keeps them, and what is never touched.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, mpsc};

use tokio::net::UnixStream;
use xy_daemon::instance::{InstanceLock, LOCK_NAME, LockError};
use xy_daemon::paths::{MAX_SOCKET_PATH, SocketPathError};
use xy_daemon::socket::{BindError, DirectoryProblem, Listener};

use crate::harness::within;

/// A private directory and the socket's path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make_private(directory.path());
    let path = directory.path().join("xyd.sock");
    (directory, path)
}

fn make_private(directory: &Path) {
    fs::set_permissions(directory, Permissions::from_mode(0o700)).expect("our directory");
}

/// Leaves a socket behind that nobody listens on, as a killed daemon does.
fn stale_socket(path: &Path) {
    drop(UnixListener::bind(path).expect("a free path"));
    assert!(path.exists());
}

async fn assert_reachable(listener: &Listener) {
    let (accepted, connected) =
        within("connecting", async { tokio::join!(listener.accept(), UnixStream::connect(listener.path())) })
            .await;
    connected.expect("somebody listens");
    drop(accepted.expect("there is room"));
}

/// A process that does nothing until it is killed, which the end of the test does at the latest.
struct Sleeper(Child);

impl Sleeper {
    fn spawn(stdin: Stdio) -> Self {
        Self(Command::new("sleep").arg("600").stdin(stdin).spawn().expect("`sleep` exists"))
    }

    /// Makes another process that holds the lock at `path`, through a descriptor that it inherited.
    fn with_lock(path: &Path) -> Self {
        let file = File::create(path).expect("a lock file");
        file.try_lock().expect("a free lock");
        let sleeper = Self::spawn(Stdio::from(file));
        fs::write(path, format!("{}\n", sleeper.0.id())).expect("a lock file");
        sleeper
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_missing_directory_is_created_for_its_owner_only_and_so_is_the_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("a/run/xyd.sock");
    let listener = Listener::bind(&path).expect("a free path");
    let mode = |path: &Path| fs::symlink_metadata(path).expect("it exists").mode() & 0o777;
    assert_eq!(mode(path.parent().expect("a directory")), 0o700);
    if cfg!(target_os = "linux") {
        assert_eq!(mode(&path), 0o600);
    }
    assert_reachable(&listener).await;
    drop(listener);
    assert!(!path.exists(), "the socket goes with its listener");
}

#[tokio::test]
async fn a_directory_that_others_may_enter_is_refused() {
    for mode in [0o755, 0o750, 0o770, 0o707, 0o777, 0o1777, 0o711] {
        let (directory, path) = place();
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).expect("our directory");
        match Listener::bind(&path) {
            Err(BindError::Directory { problem: DirectoryProblem::Mode { mode: found }, .. }) => {
                assert_eq!(found, mode & 0o777);
            }
            other => panic!("{mode:o}: {other:?}"),
        }
        assert_eq!(fs::read_dir(directory.path()).expect("our directory").count(), 0, "nothing was touched");
    }
}

/// Hears of what is created in a directory and whose mode is changed there, however short-lived it is.
#[cfg(target_os = "linux")]
struct Changes(nix::sys::inotify::Inotify);

#[cfg(target_os = "linux")]
impl Changes {
    fn of(directory: &Path) -> Self {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let changes = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).expect("Linux has it");
        changes.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB).expect("watched");
        Self(changes)
    }

    /// Returns what happened to each name so far, in order.
    fn so_far(&self) -> Vec<(String, &'static str)> {
        use nix::sys::inotify::AddWatchFlags;
        let events = match self.0.read_events() {
            Err(nix::errno::Errno::EAGAIN) => Vec::new(),
            events => events.expect("readable"),
        };
        let what = |mask: AddWatchFlags| {
            if mask.contains(AddWatchFlags::IN_CREATE) { "created" } else { "changed" }
        };
        let name = |name: Option<std::ffi::OsString>| name.unwrap_or_default().to_string_lossy().into_owned();
        events.into_iter().map(|event| (name(event.name), what(event.mask))).collect()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn directory_and_socket_have_their_modes_from_the_first_moment() {
    let (directory, _) = place();
    let path = directory.path().join("run/xyd.sock");
    let run = path.parent().expect("a directory");
    let mode = |path: &Path| fs::symlink_metadata(path).expect("it exists").mode() & 0o7777;

    let changes = Changes::of(directory.path());
    drop(Listener::bind(&path).expect("a free path"));
    assert_eq!(mode(run), 0o700);
    assert_eq!(changes.so_far(), [("run".to_owned(), "created")], "its mode was never another");

    // The directory is private before anything is in it; here it is so before the socket is.
    fs::remove_file(run.join("xyd.sock.lock")).expect("our file");
    let changes = Changes::of(run);
    let _listener = Listener::bind(&path).expect("a free path");
    assert_eq!(mode(&path), 0o600);
    let created = ["xyd.sock.lock", "xyd.sock"].map(|name| (name.to_owned(), "created"));
    assert_eq!(changes.so_far(), created, "their modes were never others");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn in_a_directory_that_others_may_enter_nothing_is_bound_even_for_a_moment() {
    let (directory, path) = place();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("our directory");
    let changes = Changes::of(directory.path());
    assert!(matches!(Listener::bind(&path), Err(BindError::Directory { .. })));
    assert_eq!(changes.so_far(), [], "nothing was created, and the directory was not changed");
}

#[tokio::test]
async fn a_symbolic_link_or_a_file_in_place_of_the_directory_is_refused() {
    let (directory, _) = place();
    fs::create_dir(directory.path().join("real")).expect("our directory");
    make_private(&directory.path().join("real"));
    symlink("real", directory.path().join("link")).expect("a free path");
    let bound = Listener::bind(&directory.path().join("link/xyd.sock"));
    assert!(
        matches!(bound, Err(BindError::Directory { problem: DirectoryProblem::SymbolicLink, .. })),
        "{bound:?}"
    );
    fs::write(directory.path().join("file"), "").expect("a free path");
    let bound = Listener::bind(&directory.path().join("file/xyd.sock"));
    assert!(
        matches!(bound, Err(BindError::Directory { problem: DirectoryProblem::NotADirectory, .. })),
        "{bound:?}"
    );
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let (_directory, path) = place();
    for _ in 0..20 {
        stale_socket(&path);
        let listener = Listener::bind(&path).expect("nobody listens");
        assert_reachable(&listener).await;
        drop(listener);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_live_socket_is_never_stolen() {
    let (_directory, path) = place();
    let first = Listener::bind(&path).expect("a free path");
    let inode = fs::symlink_metadata(&path).expect("bound").ino();
    match Listener::bind(&path) {
        Err(BindError::Lock(LockError::AlreadyRunning { pid, .. })) => {
            assert_eq!(pid, Some(std::process::id()))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::symlink_metadata(&path).expect("still bound").ino(), inode);
    assert_reachable(&first).await;
}

#[tokio::test]
async fn a_live_socket_of_a_program_without_our_lock_is_left_alone() {
    let (_directory, path) = place();
    let foreign = UnixListener::bind(&path).expect("a free path");
    assert!(matches!(Listener::bind(&path), Err(BindError::Occupied { .. })));
    std::os::unix::net::UnixStream::connect(&path).expect("it still listens");
    drop(foreign);
}

#[tokio::test]
async fn what_is_not_a_socket_is_not_deleted() {
    let (directory, path) = place();
    fs::write(&path, "precious").expect("a free path");
    assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    fs::remove_file(&path).expect("our file");

    fs::create_dir(&path).expect("a free path");
    assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket { .. })));
    fs::remove_dir(&path).expect("our directory");

    // Not even where it points to a socket that is stale.
    let target = directory.path().join("other.sock");
    stale_socket(&target);
    symlink(&target, &path).expect("a free path");
    assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket { .. })));
    assert!(target.exists());
}

#[tokio::test]
async fn a_socket_that_is_not_its_own_any_more_survives_the_listener() {
    let (_directory, path) = place();
    let listener = Listener::bind(&path).expect("a free path");
    fs::remove_file(&path).expect("our socket");
    let other = UnixListener::bind(&path).expect("a free path");
    drop(listener);
    assert!(fs::symlink_metadata(&path).expect("it is the other's").file_type().is_socket());
    drop(other);
}

#[tokio::test]
async fn a_path_is_bound_up_to_the_limit_of_the_system() {
    let directory =
        tempfile::Builder::new().prefix("p").tempdir_in("/tmp").expect("a short temporary directory");
    make_private(directory.path());
    for length in 102..=109 {
        let name = "s".repeat(length - directory.path().as_os_str().len() - 1);
        let path = directory.path().join(name);
        assert_eq!(path.as_os_str().len(), length);
        match Listener::bind(&path) {
            Ok(listener) => {
                assert!(length <= MAX_SOCKET_PATH, "{length}");
                assert_reachable(&listener).await;
            }
            Err(BindError::Path(SocketPathError::TooLong { length: found, limit, .. })) => {
                assert!(length > MAX_SOCKET_PATH, "{length}");
                assert_eq!((found, limit), (length, MAX_SOCKET_PATH));
            }
            Err(other) => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn of_twenty_that_bind_at_once_exactly_one_wins() {
    const BINDERS: usize = 20;
    for round in 0..5 {
        let (_directory, path) = place();
        if round % 2 == 0 {
            stale_socket(&path);
        }
        let start = Arc::new(Barrier::new(BINDERS));
        let (results, outcomes) = mpsc::sync_channel(BINDERS);
        let threads: Vec<_> = (0..BINDERS)
            .map(|_| {
                let (path, start, results) = (path.clone(), Arc::clone(&start), results.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    let _entered = runtime.enter();
                    start.wait();
                    let bound = Listener::bind(&path);
                    // Nobody drops a listener before everybody has tried.
                    start.wait();
                    if let Ok(listener) = &bound {
                        runtime.block_on(assert_reachable(listener));
                    }
                    results.send(bound.map(drop)).expect("the test waits");
                })
            })
            .collect();
        drop(results);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let outcomes: Vec<_> = outcomes.into_iter().collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let lost = |outcome: &&Result<(), BindError>| {
            matches!(outcome, Err(BindError::Lock(LockError::AlreadyRunning { .. })))
        };
        assert_eq!(outcomes.iter().filter(lost).count(), BINDERS - 1, "{outcomes:?}");
    }
}

#[tokio::test]
async fn locks_of_a_killed_process_are_free_and_its_socket_is_replaced() {
    let (directory, path) = place();
    let socket_holder = Sleeper::with_lock(&directory.path().join("xyd.sock.lock"));
    let state_holder = Sleeper::with_lock(&directory.path().join(LOCK_NAME));
    stale_socket(&path);
    match Listener::bind(&path) {
        Err(BindError::Lock(LockError::AlreadyRunning { pid, .. })) => {
            assert_eq!(pid, Some(socket_holder.0.id()))
        }
        other => panic!("{other:?}"),
    }
    assert!(path.exists(), "only the holder of the lock removes a stale socket");
    match InstanceLock::acquire(directory.path()) {
        Err(LockError::AlreadyRunning { pid, .. }) => assert_eq!(pid, Some(state_holder.0.id())),
        other => panic!("{other:?}"),
    }
    drop((socket_holder, state_holder));
    let listener = Listener::bind(&path).expect("the lock is free");
    assert_reachable(&listener).await;
    InstanceLock::acquire(directory.path()).expect("the lock is free");
}

#[tokio::test]
async fn locks_end_with_their_holder_although_it_has_just_executed_a_program() {
    let (directory, path) = place();
    for _ in 0..20 {
        let listener = Listener::bind(&path).expect("the lock is free");
        let lock = InstanceLock::acquire(directory.path()).expect("the lock is free");
        let sleeper = Sleeper::spawn(Stdio::null());
        drop((listener, lock));
        drop((
            Listener::bind(&path).expect("the lock is free"),
            InstanceLock::acquire(directory.path()).expect("free"),
        ));
        drop(sleeper);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_socket_is_a_file_and_not_an_abstract_name() {
    let (_directory, path) = place();
    let _listener = Listener::bind(&path).expect("a free path");
    let table = fs::read_to_string("/proc/net/unix").expect("Linux has it");
    let name = path.to_str().expect("text");
    assert!(table.lines().any(|line| line.ends_with(&format!(" {name}"))), "{name}");
    assert!(!table.lines().any(|line| line.contains('@') && line.contains(name)), "{name}");
}
