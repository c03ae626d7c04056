//! Ports on platforms that do not tell who owns a socket: whoever answers counts as the child's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Listening, Socket};

/// How long a loopback connection may take; it is answered by the kernel.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);

/// Returns whether the port can be bound, which fails while somebody listens there.
pub(super) fn port_free(port: u16) -> io::Result<bool> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(!answers(port)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn listening(_port: u16, _own: impl FnOnce() -> Vec<u32>) -> io::Result<Listening> {
    Ok(Listening::Unknown)
}

pub(super) fn name(_socket: Socket) -> (Option<u32>, Option<String>) {
    (None, None)
}

pub(super) fn holds(_pid: u32, _socket: Socket) -> bool {
    false
}

/// Returns whether somebody accepts connections on a loopback address.
pub(super) fn answers(port: u16) -> bool {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .into_iter()
        .any(|address| TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_LIMIT).is_ok())
}
