//! Where HTTP may listen: a literal loopback address and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where HTTP listens when it is switched on without an address.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9847);

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is a name, has no port, or is no address at all.
    #[error("`{0}` is not an address with a port, expected `127.0.0.1:PORT` or `[::1]:PORT`")]
    NotAnAddress(String),
    /// Others than this machine could connect to it.
    #[error("`{0}` is not a loopback address, and HTTP is for this machine only; use `127.0.0.1` or `[::1]`")]
    NotLoopback(SocketAddr),
}

/// Reads a literal loopback address with its port; port 0 lets the system choose.
///
/// Only `127.0.0.1` and `[::1]` are accepted: names can be made to point elsewhere, and other addresses of `127.0.0.0/8`
/// are not there on every system.
///
/// # Errors
/// See [`AddressError`].
pub fn parse(text: &str) -> Result<SocketAddr, AddressError> {
    let address: SocketAddr = text.parse().map_err(|_| AddressError::NotAnAddress(text.to_owned()))?;
    check(address)?;
    Ok(address)
}

/// Refuses an address that is not one of the two.
///
/// # Errors
/// [`AddressError::NotLoopback`].
pub fn check(address: SocketAddr) -> Result<(), AddressError> {
    let is_loopback = match address {
        SocketAddr::V4(address) => *address.ip() == Ipv4Addr::LOCALHOST,
        SocketAddr::V6(address) => {
            *address.ip() == Ipv6Addr::LOCALHOST && address.scope_id() == 0 && address.flowinfo() == 0
        }
    };
    if is_loopback { Ok(()) } else { Err(AddressError::NotLoopback(address)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loopback_addresses_are_accepted_with_any_port() {
        for text in ["127.0.0.1:9847", "127.0.0.1:0", "[::1]:9847", "[::1]:0", "[0:0:0:0:0:0:0:1]:1"] {
            assert_eq!(parse(text).map(|address| address.ip().is_loopback()), Ok(true), "{text}");
        }
    }

    #[test]
    fn every_other_address_is_refused() {
        let not_loopback = [
            "0.0.0.0:9847",
            "[::]:9847",
            "192.168.1.2:9847",
            "127.0.0.2:9847",
            "[::ffff:127.0.0.1]:9847",
            "[fe80::1]:9847",
            "255.255.255.255:1",
            "[::1%1]:9847",
        ];
        for text in not_loopback {
            assert!(matches!(parse(text), Err(AddressError::NotLoopback(_))), "{text}");
        }
        let no_address = [
            "localhost:9847",
            "127.0.0.1",
            "::1",
            "9847",
            ":9847",
            "",
            "127.1:9847",
            "2130706433:9847",
            "0177.0.0.1:9847",
            "127.0.0.1:65536",
            " 127.0.0.1:1",
            "http://127.0.0.1:1",
        ];
        for text in no_address {
            assert!(matches!(parse(text), Err(AddressError::NotAnAddress(_))), "{text}");
        }
    }
}
