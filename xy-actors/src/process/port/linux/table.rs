//! Listening sockets as `/proc/net/tcp` and `/proc/net/tcp6` print them.
//!
//! Reading a table makes the kernel walk all its connections, 4 ms each on a machine with 24 GB, so this is the way only
//! where [`diag`](super::diag) is not available, as in some containers.

use std::fs;
use std::io;
use std::net::IpAddr;

use super::{Listener, Socket};

/// The state column of a listening socket.
const LISTEN: &str = "0A";

/// Returns the listening sockets of `port`.
pub(super) fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    let mut listeners = parse(&fs::read_to_string("/proc/net/tcp")?, port);
    match fs::read_to_string("/proc/net/tcp6") {
        Ok(table) => listeners.extend(parse(&table, port)),
        // Without IPv6 in the kernel there is no such table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(listeners)
}

fn parse(table: &str, port: u16) -> Vec<Listener> {
    let row = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let local = columns.nth(1)?;
        let (address, local_port) = local.split_once(':')?;
        if columns.nth(1)? != LISTEN || u16::from_str_radix(local_port, 16).ok()? != port {
            return None;
        }
        let socket = Socket(columns.nth(5)?.parse().ok()?);
        Some(Listener { address: parse_address(address)?, socket })
    };
    let mut listeners: Vec<Listener> = Vec::new();
    for listener in table.lines().skip(1).filter_map(row) {
        // The kernel prints a table in parts, and repeats a row when others begin to listen between two of them.
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }
    listeners
}

/// Parses an address as the kernel prints it: words of network-order bytes, each printed as a native integer.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |text: Option<&str>| Some(u32::from_str_radix(text?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::from(word(Some(text))?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(text.get(index * 8..index * 8 + 8))?);
            }
            // An IPv6 socket bound to a mapped IPv4 address serves that address.
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, socket: u64) -> Listener {
        Listener { address: address.parse().expect("an address"), socket: Socket(socket) }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_listening_rows_of_the_port_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:20E5 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0 100 0 0 10 0\n\
             1: 00000000:20E6 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4712 1 0 100 0 0 10 0\n\
             2: 0100007F:20E5 0100007F:D431 01 00000000:00000000 00:00000000 00000000  0  0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(parse(table, 8421), [at("127.0.0.1", 4711)]);
        assert_eq!(parse(table, 8422), [at("0.0.0.0", 4712)]);
        assert_eq!(parse(table, 8423), []);
        let repeated: String = table.lines().flat_map(|line| [line, "\n", line, "\n"]).collect();
        assert_eq!(parse(&repeated, 8421), [at("127.0.0.1", 4711)]);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn mapped_and_plain_ipv6_addresses_are_told_apart() {
        let cases = [
            ("00000000000000000000000001000000", "::1"),
            ("00000000000000000000000000000000", "::"),
            ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_address(text), Some(expected.parse().expect("an address")), "{text}");
        }
        assert_eq!(parse_address("xyz"), None);
    }
}
