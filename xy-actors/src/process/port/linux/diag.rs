//! Listening sockets from the kernel's socket monitor (`NETLINK_SOCK_DIAG`), which can be asked for one port alone.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{Listener, Socket};

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// The length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;

/// The message type of the request and of each row of its answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The bit of the listening state (`TCP_LISTEN` is 10).
const LISTENING: u32 = 1 << 10;

/// Space for one part of an answer; the kernel makes none longer.
const PART: usize = 32 * 1024;

/// Returns the listening sockets of `port`. It never waits: the kernel answers within the calls.
pub(super) fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    let mut listeners = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        match query(&socket, family as u8, port, &mut listeners) {
            // Without IPv6 in the kernel nobody answers for it.
            Err(Errno::ENOENT) if family == libc::AF_INET6 => {}
            outcome => outcome?,
        }
    }
    Ok(listeners)
}

fn query(socket: &OwnedFd, family: u8, port: u16, listeners: &mut Vec<Listener>) -> Result<(), Errno> {
    send(socket.as_raw_fd(), &request(family, port), MsgFlags::empty())?;
    let mut part = vec![0; PART];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut part, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => continue,
            length => length?,
        };
        if read_part(&part[..length], port, listeners)? {
            return Ok(());
        }
    }
}

/// Builds the request: all listening sockets of one family with this local port.
fn request(family: u8, port: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + REQUEST);
    message.extend_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // Sequence number and sender: one socket, one question at a time.
    message.extend_from_slice(&[family, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend_from_slice(&LISTENING.to_ne_bytes());
    message.extend_from_slice(&port.to_be_bytes());
    message.resize(HEADER + REQUEST, 0);
    message
}

/// Reads the messages of one part, and returns whether it was the last.
fn read_part(mut part: &[u8], port: u16, listeners: &mut Vec<Listener>) -> Result<bool, Errno> {
    loop {
        let Some((header, _)) = part.split_at_checked(HEADER) else { return Ok(false) };
        let length = u32_at(header, 0) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(payload) = part.get(HEADER..length) else { return Err(Errno::EBADMSG) };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            // The payload begins with the negated error number.
            libc::NLMSG_ERROR if payload.len() >= 4 => {
                return Err(Errno::from_raw((u32_at(payload, 0) as i32).wrapping_neg()));
            }
            _ if kind == SOCK_DIAG_BY_FAMILY => listeners.extend(parse(payload, port)),
            _ => return Err(Errno::EBADMSG),
        }
        // Messages begin at multiples of four.
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Parses `struct inet_diag_msg`.
fn parse(row: &[u8], port: u16) -> Option<Listener> {
    let row: &[u8; 72] = row.first_chunk()?;
    if u16::from_be_bytes([row[4], row[5]]) != port {
        return None;
    }
    let address = match i32::from(row[0]) {
        libc::AF_INET => IpAddr::from(*row[8..].first_chunk::<4>()?),
        // An IPv6 socket bound to a mapped IPv4 address serves that address.
        libc::AF_INET6 => IpAddr::from(*row[8..].first_chunk::<16>()?).to_canonical(),
        _ => return None,
    };
    Some(Listener { address, socket: Socket(u64::from(u32_at(row, 68))) })
}

fn u32_at(bytes: &[u8], index: usize) -> u32 {
    u32::from_ne_bytes([bytes[index], bytes[index + 1], bytes[index + 2], bytes[index + 3]])
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::process::port::platform::table;

    #[test]
    fn the_socket_monitor_and_the_printed_table_agree() {
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let addresses: [IpAddr; 5] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::UNSPECIFIED.into(),
            mapped.into(),
        ];
        let mut found = 0;
        for address in addresses {
            // A machine may lack IPv6; IPv4 it has.
            let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
            let port = listener.local_addr().expect("a bound socket").port();
            // Another program may listen on the same port of another address.
            let ours = |mut all: Vec<Listener>| {
                all.retain(|listener| listener.address == address.to_canonical());
                all
            };
            let monitor = ours(listeners(port).expect("a socket monitor"));
            assert_eq!(monitor.len(), 1, "{address}");
            // A row can fall between two parts of a table, when others stop to listen in between.
            let start = Instant::now();
            loop {
                let printed = ours(table::listeners(port).expect("a table"));
                if !printed.is_empty() {
                    assert_eq!(printed, monitor, "{address}");
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(60), "{address} is in no table");
            }
            found += 1;
        }
        assert!(found >= 2);
    }

    #[test]
    fn a_part_that_breaks_off_is_refused() {
        let mut part = request(2, 1);
        part.truncate(HEADER + 10);
        assert_eq!(read_part(&part, 1, &mut Vec::new()), Err(Errno::EBADMSG));
        assert_eq!(read_part(&[], 1, &mut Vec::new()), Ok(false));
    }
}
