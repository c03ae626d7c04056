//! The service manager that started the daemon: what it is told, as in sd_notify(3), and its watchdog.
//!
//! | when | is told |
//! |---|---|
//! | the socket listens and the servers are being started | `READY=1`, `MAINPID=`, `STATUS=` |
//! | a reload by signal begins and ends | `RELOADING=1` with `MONOTONIC_USEC=`, then `READY=1` and `STATUS=` |
//! | the daemon is told to end | `STOPPING=1`, `STATUS=` |
//! | half its watchdog's period is over and the root supervisor has answered | `WATCHDOG=1` |
//!
//! Nothing of this reaches the servers: the process host takes these variables out of their environment.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};
use xy_actors::supervisor::Supervisor;

/// Where a service manager listens, and how often it wants to hear from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceManager {
    socket: OsString,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads what a service manager said in the environment; `None` if there is none.
    ///
    /// `pids` are the processes that may answer its watchdog: ours, and whatever process stands before us in its eyes.
    pub fn from_environment(look_up: impl Fn(&str) -> Option<OsString>, pids: &[u32]) -> Option<Self> {
        let socket = look_up("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
        if !matches!(socket.as_bytes().first(), Some(b'/' | b'@')) {
            tracing::warn!("NOTIFY_SOCKET is neither a path nor an abstract name and is ignored");
            return None;
        }
        let number = |name: &str| look_up(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = look_up("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID").is_some_and(|pid| pids.iter().any(|ours| u64::from(*ours) == pid));
        let watchdog = number("WATCHDOG_USEC").filter(|period| is_ours && *period > 0);
        Some(Self { socket, watchdog: watchdog.map(Duration::from_micros) })
    }

    /// Says that the daemon serves.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// Says that the daemon reads its configuration anew.
    pub(crate) fn reloading(&self) {
        match monotonic() {
            Some(now) => self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros())),
            None => self.tell("RELOADING=1"),
        }
    }

    /// Says that the daemon ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping the servers");
    }

    /// Feeds the watchdog for as long as the root supervisor answers in time. Never returns.
    pub(crate) async fn keep_alive(&self, root: &Supervisor) {
        let Some(period) = self.watchdog else { return std::future::pending().await };
        let ask = || async { root.count_children().await.is_ok() };
        keep_alive(period, ask, || self.tell("WATCHDOG=1")).await;
    }

    /// Sends a message without waiting: a service manager that does not read must not hold us up.
    fn tell(&self, message: &str) {
        if let Err(error) = self.send(message) {
            tracing::warn!(%error, "the service manager was not told");
        }
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), &self.address()?).map(drop)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        #[cfg(target_os = "linux")]
        if let Some(name) = self.socket.as_bytes().strip_prefix(b"@") {
            use std::os::linux::net::SocketAddrExt as _;
            return SocketAddr::from_abstract_name(name);
        }
        SocketAddr::from_pathname(&self.socket)
    }
}

/// Says that we are alive twice a period, each time only after an answer that came within half of it.
async fn keep_alive<F: Future<Output = bool>>(
    period: Duration,
    mut ask: impl FnMut() -> F,
    mut tell: impl FnMut(),
) {
    let half = period / 2;
    let mut turn = time::interval(half.max(Duration::from_millis(1)));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        if time::timeout(half, ask()).await == Ok(true) {
            tell();
        } else {
            tracing::error!(within = ?half, "the root supervisor does not answer, the watchdog is not fed");
        }
    }
}

fn monotonic() -> Option<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Option<ServiceManager> {
        let look_up = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        ServiceManager::from_environment(look_up, &[7, 8])
    }

    #[test]
    fn a_watchdog_is_ours_only_if_it_says_so() {
        let watchdog = |variables: &[(&str, &str)]| {
            let variables = [&[("NOTIFY_SOCKET", "/run/n")], variables].concat();
            environment(&variables).expect("a service manager").watchdog
        };
        let period = Some(Duration::from_secs(3));
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000")]), period);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")]), period);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")]), period);
        for (microseconds, pid) in [("3000000", "9"), ("3000000", ""), ("0", "7"), ("-1", "7"), ("x", "7")] {
            assert_eq!(watchdog(&[("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)]), None);
        }
    }

    #[test]
    fn without_a_usable_socket_there_is_no_service_manager() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", "")], &[("NOTIFY_SOCKET", "vsock:2:1")]] {
            assert_eq!(environment(variables), None);
        }
    }

    #[test]
    fn messages_arrive_as_the_protocol_has_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("n");
        let theirs = UnixDatagram::bind(&path).expect("binds");
        let manager = environment(&[("NOTIFY_SOCKET", path.to_str().expect("text"))]).expect("a manager");
        let heard = || {
            let mut buffer = [0; 256];
            let length = theirs.recv(&mut buffer).expect("received");
            String::from_utf8(buffer[..length].to_vec()).expect("text")
        };
        manager.ready("2 servers");
        assert_eq!(heard(), format!("READY=1\nMAINPID={}\nSTATUS=2 servers", std::process::id()));
        let before = monotonic().expect("a clock").as_micros();
        manager.reloading();
        let reloading = heard();
        let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        assert!(at.parse::<u128>().expect("a number") >= before, "{reloading}");
        manager.stopping();
        assert_eq!(heard(), "STOPPING=1\nSTATUS=stopping the servers");
    }

    #[test]
    fn a_service_manager_that_does_not_read_holds_nothing_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("n");
        let manager = environment(&[("NOTIFY_SOCKET", path.to_str().expect("text"))]).expect("a manager");
        manager.ready("nobody has bound it");
        let _theirs = UnixDatagram::bind(&path).expect("binds");
        for _ in 0..10_000 {
            manager.stopping();
        }
        assert_eq!(manager.send("more").expect_err("full").kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_after_an_answer_in_time() {
        let start = time::Instant::now();
        let (asked, fed) = (Cell::new(0), RefCell::new(Vec::new()));
        let ask = || async {
            asked.set(asked.get() + 1);
            match asked.get() {
                // One answer comes too late, one says no, and one never comes.
                3 => time::sleep(Duration::from_secs(6)).await,
                4 => return false,
                5 => std::future::pending().await,
                _ => {}
            }
            true
        };
        let all =
            keep_alive(Duration::from_secs(10), ask, || fed.borrow_mut().push(start.elapsed().as_secs()));
        time::timeout(Duration::from_secs(41), all).await.expect_err("it never returns");
        assert_eq!(*fed.borrow(), [0, 5, 25, 30, 35, 40]);
    }
}
