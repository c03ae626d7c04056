//! The whole tree of a process: who belongs, who is signaled, and that nobody is left.

use std::time::Duration;

use tokio::time::Instant;
use xy_actors::process::{OsProcess, ProcessExit, ProcessHost};

use crate::support::{carriers, child, deadline, host, is_running, pid_in, scenario, wait_until_async};

/// Starts a script that may name files `{0}`, `{1}` .. in a directory, and returns the pids written there.
async fn start(host: &ProcessHost, script: &str, files: usize) -> (OsProcess, Vec<u32>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let paths: Vec<_> = (0..files).map(|number| dir.path().join(number.to_string())).collect();
    let mut script = script.to_owned();
    for (number, path) in paths.iter().enumerate() {
        script = script.replace(&format!("{{{number}}}"), &path.display().to_string());
    }
    let process = host.spawn("test", &child(&script)).await.expect("starts");
    let pids = paths.iter().map(|path| pid_in(path)).collect();
    (process, pids)
}

fn pids(process: &OsProcess) -> Vec<u32> {
    let mut pids: Vec<_> = process.members().expect("readable").iter().map(|member| member.pid).collect();
    pids.sort_unstable();
    pids
}

fn sorted(mut pids: Vec<u32>) -> Vec<u32> {
    pids.sort_unstable();
    pids
}

#[tokio::test]
async fn killing_a_tree_of_sixty_with_thirty_daemons_leaves_none() {
    let (process, _) = start(&host(), "tree 60 touch {0} sleep-forever", 1).await;
    wait_until_async("all are there", || process.members().expect("readable").len() == 61).await;
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.as_slice()), (61, [].as_slice()));
    assert_eq!(report.killed.iter().filter(|member| member.escaped).count(), 30);
    assert_eq!(carriers(process.marker()), [0_u32; 0]);
    assert_eq!(process.reap().expect("killed"), ProcessExit::Signal { signal: 9, core_dumped: false });
}

#[test]
fn a_subreaper_sees_every_orphan_kills_the_tree_and_leaves_no_zombie() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("subreaper_tree", dir.path()).succeed();
}

#[test]
fn a_subreaper_reaps_hundreds_of_orphans_and_nobody_elses_child() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("subreaper_orphans", dir.path()).succeed();
}

#[test]
fn of_five_hundred_processes_half_of_them_daemons_none_survives() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("subreaper_five_hundred", dir.path()).succeed();
}

#[test]
fn a_chain_of_processes_that_flees_from_its_killer_is_caught() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("subreaper_flight", dir.path()).succeed();
}

#[test]
fn a_tree_that_cannot_be_looked_at_is_not_taken_for_gone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    scenario("subreaper_blind", dir.path()).succeed();
}

#[test]
fn an_orphan_without_environment_belongs_to_its_last_known_ancestor() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("subreaper_last_ancestor", dir.path()).succeed();
}

#[test]
fn an_orphan_that_nobody_can_attribute_is_told_and_ends_with_the_host_only() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("subreaper_stranger", dir.path()).succeed();
}

#[tokio::test]
async fn those_who_left_the_group_are_told_and_signaled_apart() {
    let script = "spawn 3 touch {0} sleep-forever spawn-setsid 3 touch {1} sleep-forever \
                  double-fork 3 touch {2} sleep-forever double-fork-group 3 touch {3} sleep-forever sleep-forever";
    let (process, others) = start(&host(), script, 4).await;
    let escaped =
        |pid| process.members().expect("readable").iter().any(|found| found.pid == pid && found.escaped);
    assert_eq!(others.iter().map(|pid| escaped(*pid)).collect::<Vec<_>>(), [false, true, true, false]);
    let mut all = others.clone();
    all.push(process.pid());
    assert_eq!(pids(&process), sorted(all));
    assert_eq!(process.members().expect("readable")[0].pid, process.pid(), "the main process comes first");

    assert!(process.signal_group(15).expect("signaled"));
    assert_eq!(process.exited().await, ProcessExit::Signal { signal: 15, core_dumped: false });
    wait_until_async("the group is gone", || pids(&process) == sorted(vec![others[1], others[2]])).await;
    assert!(!process.signal_group(15).expect("nobody to signal"), "only the escaped are left");
    assert_eq!(process.signal_escaped(15).expect("signaled"), 2);
    process.tree_gone(deadline()).await.expect("gone");
    assert_eq!(process.signal_escaped(15).expect("nobody to signal"), 0);
    process.reap().expect("ended");
}

#[tokio::test]
async fn an_ended_main_process_does_not_hide_its_group() {
    let (process, others) = start(&host(), "spawn 3 touch {0} sleep-forever exit 6", 1).await;
    assert_eq!(process.exited().await, ProcessExit::Code(6));
    assert_eq!(pids(&process), others);
    assert!(process.signal_group(9).expect("signaled"));
    process.tree_gone(deadline()).await.expect("gone");
    assert_eq!(process.reap().expect("ended"), ProcessExit::Code(6));
}

#[tokio::test]
async fn one_seen_before_is_found_again_without_parent_session_and_environment() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let go = dir.path().join("go");
    let script =
        format!("spawn-setsid 4 clear-env touch {{0}} sleep-forever wait-for {} exit 0", go.display());
    let (process, others) = start(&host(), &script, 1).await;
    assert!(pids(&process).contains(&others[0]));
    std::fs::write(&go, "").expect("written");
    process.exited().await;
    assert_eq!(pids(&process), others);
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.len()), (1, 0));
    assert!(!is_running(others[0]));
}

#[tokio::test]
async fn waiting_for_the_tree_names_who_is_left_at_the_deadline_and_ends_with_the_last() {
    let (process, others) =
        start(&host(), "ignore TERM double-fork 3 touch {0} sleep-forever sleep-forever", 1).await;
    assert!(process.signal_group(15).expect("signaled"));
    let soon = Instant::now() + Duration::from_millis(50);
    let left = process.tree_gone(soon).await.expect_err("both are there");
    assert!(Instant::now() < soon + Duration::from_secs(5));
    let names: Vec<_> = left.iter().map(|member| (member.pid, member.command.as_str())).collect();
    let expected = sorted(vec![process.pid(), others[0]]);
    assert_eq!(sorted(names.iter().map(|(pid, _)| *pid).collect()), expected);
    assert!(names.iter().all(|(_, command)| *command == "xy-testchild"), "{names:?}");

    let gone = process.tree_gone(deadline());
    let (gone, ()) = tokio::join!(gone, async {
        process.signal_escaped(9).expect("signaled");
        tokio::task::yield_now().await;
        process.signal_group(9).expect("signaled");
    });
    gone.expect("gone");
}

#[tokio::test]
async fn a_stopped_process_is_killed() {
    let (process, others) = start(&host(), "spawn 3 touch {0} sleep-forever sleep-forever", 1).await;
    process.signal_group(19).expect("signaled");
    let report = process.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.len()), (2, 0));
    assert!(!is_running(others[0]));
}

#[tokio::test]
async fn two_trees_never_meet() {
    let host = host();
    let (one, _) = start(&host, "double-fork 3 touch {0} sleep-forever sleep-forever", 1).await;
    let (two, others) = start(&host, "double-fork 3 touch {0} sleep-forever sleep-forever", 1).await;
    let report = one.kill_tree(deadline()).await;
    assert_eq!((report.killed.len(), report.left.len()), (2, 0));
    assert_eq!(pids(&two), sorted(vec![two.pid(), others[0]]));
}
