//! A server that looks for what the daemon has: its descriptors and its token.

use std::fs;

use crate::support::{World, environment, ready, script};

/// The token that the daemon is given.
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_server_has_neither_a_descriptor_of_the_daemon_nor_its_token() {
    let mut world =
        World::with(&[("web", script("sleep-forever", ""))]).argument("--http").argument("127.0.0.1:0");
    let client = world.boot_after(&format!("export XY_TOKEN={TOKEN} LISTEN_FDS=1 LISTEN_PID=1")).await;
    let pid = ready(&client, "web").await;
    let mut descriptors: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, [0, 1, 2]);
    let of_server = environment(pid).expect("it runs");
    for name in ["XY_TOKEN=", "LISTEN_FDS=", "LISTEN_PID=", "NOTIFY_SOCKET="] {
        assert!(!of_server.iter().any(|entry| entry.starts_with(name)), "{name} {of_server:?}");
    }
    // The token is in use, and in no argument list; the daemon's own environment is its user's affair.
    let told = fs::read_to_string(world.path("state/xy/xyd.json")).expect("HTTP is on");
    assert!(told.contains(TOKEN), "the given token is in force");
    for process in [world.pid(), world.daemon_pid().expect("it serves"), pid] {
        let arguments = fs::read(format!("/proc/{process}/cmdline")).expect("it runs");
        assert!(!arguments.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()));
    }
}
