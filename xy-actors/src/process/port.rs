//! Who listens on a TCP port of this machine: nobody, a child's own processes, or somebody else.
//!
//! On Linux the answer is the kernel's: its listening sockets, matched by inode with the descriptors of the processes in
//! question. Elsewhere nothing tells the owner of a socket without private
//! interfaces, so ownership is unknown and a port that answers counts as the child's own; that path has never been run.

use std::io;
use std::net::IpAddr;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod unknown;

#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(not(target_os = "linux"))]
use unknown as platform;

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody listens on it where a client on this machine would arrive.
    Nobody,
    /// One of the given processes, or, where ownership cannot be known, anybody.
    Own,
    /// Another process.
    Foreign {
        /// Its process id; `None` when its descriptors cannot be read, as with another user's process.
        pid: Option<u32>,
        /// Its command line, cut to a readable length; `None` when it has ended or `pid` is unknown.
        command: Option<String>,
    },
}

/// Tells who listens on `port`, seen from the processes `own`.
///
/// A socket counts when a client on this machine could arrive at it: one bound to a loopback address or to all addresses;
/// `own` may also listen elsewhere. Several sockets can share a port. The answer is [`Holder::Own`] when for at least one
/// address every socket that the kernel would pick there is held by `own`; a socket shared by inheritance is held by each
/// process that has it open.
///
/// Other processes are looked at only to name a foreign holder. The call asks the kernel and never waits for anything.
///
/// # Errors
/// Fails when the kernel does not tell which sockets listen.
pub fn holder(port: u16, own: &[u32]) -> io::Result<Holder> {
    Ok(match listening(port, || own.to_vec())? {
        Listening::Nobody => Holder::Nobody,
        Listening::Own(_) | Listening::Elsewhere(_) => Holder::Own,
        Listening::Foreign(socket) => {
            let (pid, command) = name(socket);
            Holder::Foreign { pid, command }
        }
        Listening::Unknown if platform::answers(port) => Holder::Own,
        Listening::Unknown => Holder::Nobody,
    })
}

/// Returns whether nobody listens on `port` on a loopback address or on all addresses.
///
/// A socket that only listens on another address of this machine does not count. `true` is no promise: somebody may take
/// the port the moment after.
///
/// # Errors
/// Fails when the kernel does not tell which sockets listen.
pub fn port_free(port: u16) -> io::Result<bool> {
    platform::port_free(port)
}

/// What listens on a port, in the terms a probe needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux tells"))]
pub(super) enum Listening {
    /// Nobody whom a probe could reach.
    Nobody,
    /// Connections to these loopback addresses, best first, can only arrive at the own processes.
    Own(Vec<IpAddr>),
    /// The own processes listen, but on this address, which is not loopback.
    Elsewhere(IpAddr),
    /// Another process, known by its socket.
    Foreign(Socket),
    /// This platform does not tell.
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "Linux always tells"))]
    Unknown,
}

/// The kernel's number of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Socket(u64);

/// Like [`holder`], with the addresses to probe; `own` is asked only when somebody listens.
pub(super) fn listening(port: u16, own: impl FnOnce() -> Vec<u32>) -> io::Result<Listening> {
    platform::listening(port, own)
}

/// Finds the process that holds `socket`, and its command line.
pub(super) fn name(socket: Socket) -> (Option<u32>, Option<String>) {
    platform::name(socket)
}

/// Returns whether the process has `socket` open.
pub(super) fn holds(pid: u32, socket: Socket) -> bool {
    platform::holds(pid, socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Returns a socket that has a port of its own and does not listen.
    fn bound() -> (TcpSocket, u16) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a loopback port");
        let port = socket.local_addr().expect("a bound socket").port();
        (socket, port)
    }

    fn listener() -> (TcpListener, u16) {
        let (socket, port) = bound();
        (socket.listen(8).expect("a listener"), port)
    }

    #[tokio::test]
    async fn a_port_is_free_exactly_while_nobody_listens() {
        let (socket, port) = bound();
        #[cfg(target_os = "linux")]
        assert!(port_free(port).expect("a socket table"));
        assert_eq!(holder(port, &[std::process::id()]).expect("a socket table"), Holder::Nobody);
        let _listener = socket.listen(8).expect("a listener");
        assert!(!port_free(port).expect("a socket table"));
    }

    #[tokio::test]
    async fn the_process_that_listens_is_the_owner() {
        let (_listener, port) = listener();
        assert_eq!(holder(port, &[std::process::id()]).expect("a socket table"), Holder::Own);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_foreign_holder_is_named_with_pid_and_command() {
        let (_listener, port) = listener();
        let Holder::Foreign { pid, command } = holder(port, &[]).expect("a socket table") else {
            panic!("expected a foreign holder");
        };
        assert_eq!(pid, Some(std::process::id()));
        let program = std::env::args().next().expect("a program name");
        assert!(command.as_deref().is_some_and(|command| command.starts_with(&program)), "{command:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_foreign_holder_is_seen_on_every_address_where_a_client_could_arrive() {
        use std::net::Ipv6Addr;

        // A machine may lack IPv6; IPv4 it has.
        let at = |address: IpAddr| std::net::TcpListener::bind((address, 0)).ok();
        let listeners = [
            at(Ipv4Addr::UNSPECIFIED.into()),
            at(Ipv6Addr::UNSPECIFIED.into()),
            at(Ipv6Addr::LOCALHOST.into()),
        ];
        let mut seen = 0;
        for listener in listeners.into_iter().flatten() {
            let port = listener.local_addr().expect("a bound socket").port();
            let holder = holder(port, &[]).expect("a socket table");
            assert!(
                matches!(holder, Holder::Foreign { pid: Some(pid), .. } if pid == std::process::id()),
                "{listener:?}: {holder:?}"
            );
            assert!(!port_free(port).expect("a socket table"));
            drop(listener);
            assert_eq!(super::holder(port, &[]).expect("a socket table"), Holder::Nobody);
            seen += 1;
        }
        assert!(seen >= 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_that_lingers_after_its_end_does_not_hold_the_port() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener.local_addr().expect("a bound socket");
        let client = std::net::TcpStream::connect(address).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        drop(listener);
        // Whoever closes first keeps the connection in TIME_WAIT.
        drop(server);
        drop(client);
        let state = || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
            let local = format!("0100007F:{:04X}", address.port());
            let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
            row.split_whitespace().nth(3).map(str::to_owned)
        };
        let lingers = async {
            // The last packet may still be on its way.
            while state().as_deref() != Some("06") {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), lingers).await.expect("it is in TIME_WAIT");
        assert_eq!(holder(address.port(), &[]).expect("a socket table"), Holder::Nobody);
        assert!(port_free(address.port()).expect("a socket table"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn processes_are_only_looked_up_when_somebody_listens() {
        let (_socket, port) = bound();
        let answer = listening(port, || panic!("nobody listens")).expect("a socket table");
        assert_eq!(answer, Listening::Nobody);
    }
}
