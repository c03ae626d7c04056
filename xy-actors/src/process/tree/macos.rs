//! The process table of macOS, as libproc and sysctl tell it.
// Not run on macOS, and not compiled there either: written from its manual pages and headers.

use std::io;

use super::super::sys;
use super::Stat;

/// Reads one process; `None` if there is none of that pid.
pub(super) fn read(pid: u32) -> io::Result<Option<Stat>> {
    let Some((info, session)) = sys::process_info(pid) else { return Ok(None) };
    let name = info.pbi_comm.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8);
    Ok(Some(Stat {
        pid,
        command: String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned(),
        is_alive: info.pbi_status != libc::SZOMB,
        is_ending: false,
        has_lost_first_thread: info.pbi_status == libc::SZOMB,
        parent: info.pbi_ppid,
        group: info.pbi_pgid,
        session,
        // In microseconds since 1970, not since boot; all that matters is that it never changes.
        start_time: info.pbi_start_tvsec.wrapping_mul(1_000_000).wrapping_add(info.pbi_start_tvusec),
    }))
}

/// Returns the pid of every process.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    sys::process_ids()
}

/// Returns whether the kernel lists the children of a process. It does, but orphans never come to us.
pub(in super::super) fn lists_children() -> bool {
    false
}

/// Returns the children of a process.
pub(in super::super) fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let stats = pids()?.into_iter().filter_map(Stat::read);
    Ok(stats.filter(|stat| stat.parent == pid).map(|stat| stat.pid).collect())
}

/// Returns the children of a process: whose thread is whose parent is not told here.
pub(in super::super) fn children_of_first_thread(pid: u32) -> io::Result<Vec<u32>> {
    children_of(pid)
}

/// Returns a variable of the environment that the process started with. The system hides that of protected programs.
pub(super) fn variable(pid: u32, name: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(memory) = sys::process_arguments(pid) else { return Ok(None) };
    // Behind the argument count and the path; an argument that looks like the variable would be taken for it, which
    // only a process that wants to belong to the tree has.
    let mut entries = memory.get(4..).unwrap_or_default().split(|byte| *byte == 0);
    Ok(entries.find_map(|entry| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec())))
}

/// Returns what tells this boot from every other.
pub(in super::super) fn boot_id() -> io::Result<String> {
    sys::boot_id()
}
