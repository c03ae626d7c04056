//! A control group for each tree, where one is delegated to the test; elsewhere that is said and nothing is tested.

use std::fs;
use std::path::{Path, PathBuf};

use xy_actors::process::{HostOptions, Ownership, ProcessExit, ProcessHost, SweepReport};

use crate::support::{child, deadline, is_running, pid_in, scenario, wait_until};

/// Starts a host with control groups and returns where they are.
pub(crate) fn start(dir: &Path) -> Option<(ProcessHost, SweepReport, PathBuf)> {
    let ledger = Some(dir.join("ledger"));
    let options = HostOptions { ledger, cgroups: true, ..HostOptions::default() };
    let (host, report) = ProcessHost::start(options).expect("a host starts");
    match host.ownership() {
        Ownership::Cgroup { path } => Some((host, report, path)),
        other => {
            assert_eq!(other, Ownership::Walk);
            println!("no control group is delegated to this test");
            None
        }
    }
}

fn leaves(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn whoever_left_session_parent_and_environment_at_once_is_in_the_group_and_killed_with_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some((host, _, base)) = start(dir.path()) else { return };
    let fled = dir.path().join("fled");
    let script = format!("double-fork 4 clear-env touch {} sleep-forever sleep-forever", fled.display());
    let process = host.spawn("test", &child(&script)).await.expect("starts");
    let leaf = base.join(process.marker());
    assert!(leaves(&base).contains(&leaf));
    let fled = pid_in(&fled);
    let own = fs::read_to_string(leaf.join("cgroup.procs")).expect("readable");
    assert!(own.lines().any(|line| line == fled.to_string()), "{own}");
    let mut pids: Vec<u32> = process.members().expect("readable").iter().map(|member| member.pid).collect();
    pids.sort_unstable();
    let mut expected = [process.pid(), fled];
    expected.sort_unstable();
    assert_eq!(pids, expected);
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.len()), (2, 0));
    assert!(!is_running(fled));
    assert_eq!(process.reap().expect("killed"), ProcessExit::Signal { signal: 9, core_dumped: false });
    // Not by this thread, which may have something more urgent to do after an end.
    let removed =
        tokio::task::spawn_blocking(move || wait_until("an empty leaf is removed", || !leaf.exists()));
    removed.await.expect("it is");
    drop((process, host));
    wait_until("the last leaves nothing behind", || !base.exists());
}

#[tokio::test]
async fn a_tree_counts_as_gone_when_its_group_is_empty() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some((host, _, _)) = start(dir.path()) else { return };
    let (fled, go) = (dir.path().join("fled"), dir.path().join("go"));
    let script = format!("double-fork 5 clear-env touch {} wait-for {} exit 3", fled.display(), go.display());
    let process = host.spawn("test", &child(&script)).await.expect("starts");
    assert_eq!(process.exited().await, ProcessExit::Code(3));
    let fled = pid_in(&fled);
    let soon = tokio::time::Instant::now();
    assert_eq!(process.tree_gone(soon).await.expect_err("one is left")[0].pid, fled);
    fs::write(&go, "").expect("written");
    process.tree_gone(deadline()).await.expect("gone");
    assert!(!is_running(fled));
    assert_eq!((process.reap(), process.oom_kills()), (Some(ProcessExit::Code(3)), 0));
}

#[test]
fn the_next_start_empties_and_removes_the_groups_of_a_killed_host() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some((host, _, base)) = start(dir.path()) else { return };
    drop(host);
    wait_until("the first host is gone", || !base.exists());
    let mut first = scenario("cgroup", dir.path());
    let fled = pid_in(&dir.path().join("fled"));
    assert_ne!(leaves(&base), [] as [PathBuf; 0]);
    first.kill();
    assert!(is_running(fled), "nothing but its group says whose it is");
    let (_host, report, again) = start(dir.path()).expect("as before");
    assert_eq!(again, base);
    assert!(!is_running(fled));
    let killed: Vec<_> = report.killed.iter().map(|swept| (swept.pid, swept.label.as_str())).collect();
    assert!(killed.contains(&(fled, "web")), "{report:?}");
    assert_eq!((report.left.len(), leaves(&base).len()), (0, 0));
}

/// What the test before this one kills.
pub(crate) async fn cgroup(dir: &Path) {
    let (host, _, _) = start(dir).expect("there were groups a moment ago");
    let script =
        format!("double-fork 4 clear-env touch {} sleep-forever sleep-forever", dir.join("fled").display());
    let _process = host.spawn("web", &child(&script)).await.expect("starts");
    std::future::pending().await
}
