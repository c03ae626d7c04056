//! The process table of Linux, as `/proc` tells it.

use std::fs;
use std::io::{self, Read as _};
use std::sync::OnceLock;

use super::{Stat, seen};

/// The kernel's mark of a process that is ending (`PF_EXITING`). It is set before anything of it is given up.
const ENDING: u64 = 0x4;

/// Parses `/proc/PID/stat`. The name is in parentheses and may itself contain `) `, so the last one ends it.
fn parse(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let command = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // The state is field 3 of the manual page.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    // Some kernels say -1 where there is none.
    let id = |number: usize| field(number).map(|text| text.parse().unwrap_or(0));
    let threads: u32 = id(20)?;
    let is_zombie = matches!(*field(3)?, "Z" | "X" | "x");
    Some(Stat {
        pid,
        command,
        // A first thread that has ended shows as a zombie while others go on.
        is_alive: !is_zombie || threads > 1,
        // The first thread of others that go on has ended for good.
        is_ending: !is_zombie && field(9)?.parse::<u64>().is_ok_and(|flags| flags & ENDING != 0),
        has_lost_first_thread: is_zombie,
        parent: id(4)?,
        group: id(5)?,
        session: id(6)?,
        start_time: field(22)?.parse().ok()?,
    })
}

/// More than `/proc/PID/stat` can hold: 52 numbers of at most 20 digits and a name of at most 64 bytes.
const STAT_LIMIT: usize = 2048;

/// Reads one process; `None` if there is none of that pid.
///
/// A thorough look reads every process there is, so this is one read instead of the five of [`fs::read`], which cannot
/// know the size.
pub(super) fn read(pid: u32) -> io::Result<Option<Stat>> {
    let mut text = [0; STAT_LIMIT];
    let length = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text));
    Ok(seen(length)?.and_then(|length| parse(text.get(..length)?)))
}

/// Returns the pid of every process.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Returns whether the kernel lists the children of a process.
pub(in super::super) fn lists_children() -> bool {
    static LISTS_CHILDREN: OnceLock<bool> = OnceLock::new();
    *LISTS_CHILDREN.get_or_init(|| fs::metadata("/proc/thread-self/children").is_ok())
}

/// Returns the children of the first thread of a process, zombies included: those it forked itself, and orphans.
pub(in super::super) fn children_of_first_thread(pid: u32) -> io::Result<Vec<u32>> {
    if !lists_children() {
        return children_of(pid);
    }
    let text = seen(fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")))?.unwrap_or_default();
    Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Returns the children of a process, zombies included.
pub(in super::super) fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    if !lists_children() {
        for other in pids()? {
            children.extend(read(other)?.filter(|stat| stat.parent == pid).map(|stat| stat.pid));
        }
        return Ok(children);
    }
    let Some(threads) = seen(fs::read_dir(format!("/proc/{pid}/task")))? else { return Ok(children) };
    for thread in threads.flatten() {
        let Some(text) = seen(fs::read_to_string(thread.path().join("children")))? else { continue };
        children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Returns a variable of the environment that the process started with. Needs the right to inspect it.
pub(super) fn variable(pid: u32, name: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(environment) = seen(fs::read(format!("/proc/{pid}/environ")))? else { return Ok(None) };
    let mut entries = environment.split(|byte| *byte == 0);
    Ok(entries.find_map(|entry| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec())))
}

/// Returns what tells this boot from every other.
pub(in super::super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"42 (a) R (b) ) S 1 43 44 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1";

    #[test]
    fn a_name_full_of_parentheses_is_parsed() {
        let stat = parse(LINE).expect("valid");
        assert_eq!((stat.pid, stat.command.as_str(), stat.is_alive), (42, "a) R (b) ", true));
        assert_eq!((stat.parent, stat.group, stat.session, stat.start_time), (1, 43, 44, 12345));
    }

    #[test]
    fn one_that_is_ending_is_told_by_its_flags() {
        let flags = |flags: u32| {
            let line = format!("1 (n) R 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 5 0");
            parse(line.as_bytes()).expect("valid")
        };
        // As of a process that runs, and of the same one in the middle of its end.
        assert!(!flags(4_194_304).is_ending && flags(4_194_308).is_ending);
        assert!(flags(4_194_308).is_alive);
        let others_go_on = parse(b"1 (n) Z 1 1 1 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 2 0 5 0").expect("valid");
        assert!(others_go_on.is_alive && !others_go_on.is_ending);
    }

    #[test]
    fn a_line_cut_before_the_start_time_is_refused() {
        let end = LINE.len() - "12345 1 1 1".len();
        for length in 0..=end {
            assert_eq!(parse(&LINE[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_zombie_is_dead_unless_threads_of_it_go_on() {
        let state = |state: &str, threads: u32| {
            let line = format!("1 (n) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 5 0");
            parse(line.as_bytes()).expect("valid").is_alive
        };
        assert!(!state("Z", 1) && !state("X", 1));
        assert!(state("Z", 2) && state("T", 1) && state("D", 1));
    }
}
