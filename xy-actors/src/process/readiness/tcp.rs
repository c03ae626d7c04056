//! The TCP probe: a connection to the port is accepted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time;

use super::ProbeFailure;

/// Connects and closes.
pub(super) async fn probe(addresses: &[IpAddr], port: u16, timeout: Duration) -> Result<(), ProbeFailure> {
    match time::timeout(timeout, connect(addresses, port)).await {
        Ok(outcome) => outcome.map(drop),
        Err(_) => Err(ProbeFailure::Timeout { request: "connect".to_owned(), after: timeout }),
    }
}

/// Connects to the first address that accepts.
pub(super) async fn connect(addresses: &[IpAddr], port: u16) -> Result<TcpStream, ProbeFailure> {
    let mut failure = ProbeFailure::NotListening { port };
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(*address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // A machine without IPv6 has no `::1`; that says nothing about the port.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(source) => failure = ProbeFailure::Connect { port, source },
        }
    }
    Err(failure)
}
