//! Ports and their holders on Linux: the kernel's list of listening sockets, matched with `/proc/PID/fd`.

mod diag;
mod table;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Listening, Socket};

/// The longest command line that is reported, in characters.
const COMMAND_LIMIT: usize = 200;

/// One listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: IpAddr,
    socket: Socket,
}

pub(super) fn port_free(port: u16) -> io::Result<bool> {
    Ok(!listeners(port)?.iter().any(|listener| is_reachable(listener.address)))
}

pub(super) fn listening(port: u16, own: impl FnOnce() -> Vec<u32>) -> io::Result<Listening> {
    let listeners = listeners(port)?;
    if listeners.is_empty() {
        return Ok(Listening::Nobody);
    }
    let sockets = listeners.iter().map(|listener| listener.socket).collect();
    Ok(judge(&listeners, &held(&own(), &sockets)))
}

pub(super) fn name(socket: Socket) -> (Option<u32>, Option<String>) {
    let Ok(processes) = fs::read_dir("/proc") else { return (None, None) };
    let pid = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| holds(*pid, socket));
    (pid, pid.and_then(command))
}

pub(super) fn holds(pid: u32, socket: Socket) -> bool {
    !held(&[pid], &HashSet::from([socket])).is_empty()
}

/// Linux always tells the owner, so nobody needs to be asked.
pub(super) fn answers(_port: u16) -> bool {
    false
}

/// Decides who serves the loopback addresses of a port.
fn judge(listeners: &[Listener], own: &HashSet<Socket>) -> Listening {
    let mut addresses = Vec::new();
    for listener in listeners.iter().filter(|listener| own.contains(&listener.socket)) {
        for target in targets(listener.address) {
            let best = listeners.iter().map(|other| rank(other.address, target)).max();
            let proven = listeners
                .iter()
                .filter(|other| Some(rank(other.address, target)) == best)
                .all(|other| own.contains(&other.socket));
            if proven && !addresses.contains(&target) {
                addresses.push(target);
            }
        }
    }
    if !addresses.is_empty() {
        return Listening::Own(addresses);
    }
    let foreign = |listener: &&Listener| !own.contains(&listener.socket) && is_reachable(listener.address);
    if let Some(listener) = listeners.iter().find(foreign) {
        return Listening::Foreign(listener.socket);
    }
    match listeners.iter().find(|listener| own.contains(&listener.socket)) {
        Some(listener) => Listening::Elsewhere(listener.address),
        None => Listening::Nobody,
    }
}

/// Returns the loopback addresses at which a socket bound to `address` can be reached.
fn targets(address: IpAddr) -> Vec<IpAddr> {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    match address {
        IpAddr::V4(address) if address.is_unspecified() => vec![v4],
        // Unless it is restricted to IPv6, such a socket serves both.
        IpAddr::V6(address) if address.is_unspecified() => vec![v6, v4],
        address if address.is_loopback() => vec![address],
        _ => Vec::new(),
    }
}

/// Returns how much the kernel prefers a socket bound to `address` for a connection to `target`; 0 is never.
fn rank(address: IpAddr, target: IpAddr) -> u8 {
    match (address, target) {
        _ if address == target => 3,
        (IpAddr::V4(address), IpAddr::V4(_)) if address.is_unspecified() => 2,
        (IpAddr::V6(address), IpAddr::V6(_)) if address.is_unspecified() => 2,
        (IpAddr::V6(address), IpAddr::V4(_)) if address.is_unspecified() => 1,
        _ => 0,
    }
}

/// Returns whether a client that connects to a loopback address could arrive at a socket bound to `address`.
fn is_reachable(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// Returns the listening sockets of `port`.
fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    // Kernels and sandboxes without the socket monitor still have the table.
    diag::listeners(port).or_else(|_| table::listeners(port))
}

/// Returns which of `wanted` one of the processes has open. A process that is gone or unreadable has none.
fn held(pids: &[u32], wanted: &HashSet<Socket>) -> HashSet<Socket> {
    let mut held = HashSet::new();
    for pid in pids {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        held.extend(
            descriptors
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .filter_map(|link| {
                    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                    inode.parse().ok().map(Socket)
                })
                .filter(|socket| wanted.contains(socket)),
        );
        if held.len() == wanted.len() {
            break;
        }
    }
    held
}

/// Returns a process's command line as one printable line.
fn command(pid: u32) -> Option<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> =
        raw.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    let line = if words.is_empty() {
        // A process that erased its arguments still has a name.
        fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()
    } else {
        words.join(" ")
    };
    let printable = |character: char| if character.is_control() { '?' } else { character };
    Some(line.chars().take(COMMAND_LIMIT).map(printable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, socket: u64) -> Listener {
        Listener { address: address.parse().expect("an address"), socket: Socket(socket) }
    }

    fn own(sockets: &[u64]) -> HashSet<Socket> {
        sockets.iter().copied().map(Socket).collect()
    }

    fn addresses(texts: &[&str]) -> Listening {
        Listening::Own(texts.iter().map(|text| text.parse().expect("an address")).collect())
    }

    #[test]
    fn an_own_socket_counts_where_no_foreign_one_is_preferred() {
        let cases: [(&[Listener], &[u64], Listening); 11] = [
            (&[at("127.0.0.1", 1)], &[1], addresses(&["127.0.0.1"])),
            (&[at("::1", 1)], &[1], addresses(&["::1"])),
            (&[at("0.0.0.0", 1)], &[1], addresses(&["127.0.0.1"])),
            (&[at("::", 1)], &[1], addresses(&["::1", "127.0.0.1"])),
            (&[at("127.0.0.1", 2), at("::1", 1)], &[1], addresses(&["::1"])),
            (&[at("0.0.0.0", 2), at("::", 1)], &[1], addresses(&["::1"])),
            (&[at("0.0.0.0", 1), at("::", 2)], &[1], addresses(&["127.0.0.1"])),
            // Two sockets share one address: nobody can say which of them answers.
            (&[at("127.0.0.1", 1), at("127.0.0.1", 2)], &[1], Listening::Foreign(Socket(2))),
            (&[at("127.0.0.1", 1), at("127.0.0.1", 2)], &[1, 2], addresses(&["127.0.0.1"])),
            (&[at("192.0.2.7", 1)], &[1], Listening::Elsewhere("192.0.2.7".parse().expect("an address"))),
            (&[at("192.0.2.7", 2)], &[1], Listening::Nobody),
        ];
        for (listeners, sockets, expected) in cases {
            assert_eq!(judge(listeners, &own(sockets)), expected, "{listeners:?} {sockets:?}");
        }
    }
}
