//! What a service manager hears from `xyd`, and what servers hear of it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::support::{DEADLINE, World, ready, script, send, until};

/// A service manager's end of the conversation.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("binds");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket }
    }

    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message that begins like this, past signs of life.
    async fn hears(&self, start: &str) -> String {
        until(start, || async {
            let message = self.next()?;
            assert!(message.starts_with(start) || message == "WATCHDOG=1", "{message} instead of {start}");
            message.starts_with(start).then_some(message)
        })
        .await
    }
}

#[tokio::test]
async fn the_service_manager_hears_of_start_life_reload_and_end_and_the_servers_nothing() {
    let world = World::with(&[("a", script("sleep-forever", ""))]);
    let path = world.path("manager");
    let manager = Manager::bind(&path);
    let mut xyd = world
        .command()
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .env("LISTEN_FDS", "0")
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let pid = xyd.id();
    let expected = format!("READY=1\nMAINPID={pid}\nSTATUS=1 servers, 0 files rejected");
    assert_eq!(manager.hears("READY=1").await, expected);
    let client = world.connect().await;
    let server = ready(&client, "a").await;
    let environment = std::fs::read(format!("/proc/{server}/environ")).expect("alive");
    let names = environment.split(|byte| *byte == 0).map(|entry| entry.split(|byte| *byte == b'=').next());
    for name in names.flatten() {
        let name = String::from_utf8_lossy(name);
        let is_ours = ["NOTIFY_", "WATCHDOG_", "LISTEN_"].iter().any(|start| name.starts_with(start));
        assert!(!is_ours, "a server has {name}");
    }
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    world.write("b", &script("sleep-forever", ""));
    send(pid, Signal::SIGHUP);
    assert!(manager.hears("RELOADING=1").await.contains("\nMONOTONIC_USEC="));
    let reloaded = manager.hears("READY=1").await;
    assert!(reloaded.ends_with("STATUS=reloaded: 2 servers, 0 files rejected"), "{reloaded}");
    send(pid, Signal::SIGTERM);
    manager.hears("STOPPING=1").await;
    tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(move || xyd.wait()))
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("our child");
}
