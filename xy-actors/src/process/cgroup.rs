//! Control groups (version 2): each tree in a leaf of its own, where a part of the hierarchy is delegated to us.
//!
//! A process cannot leave its control group by losing its parent, its session or its environment, and a whole group is
//! killed by one write. Only a process that may write to the hierarchy can move itself out; it is then found as elsewhere.
//!
//! ```text
//! /sys/fs/cgroup/OWN/xy-HASH/MARKER     one leaf per start; HASH is that of the ledger's path
//! ```
//! Where systemd runs, a group is ours only if systemd says so (`Delegate=yes`, told by an extended attribute), however
//! many rights we have there; the nearest such group of our own and its parent is used. Elsewhere, in containers, our own
//! group is used if it can be written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::command;
use super::tree::{self, Stat};

/// How the name of a directory of leaves begins. Nothing is ever killed below another one.
const PREFIX: &str = "xy-";

/// The directory of leaves of one host.
#[derive(Debug)]
pub(super) struct Groups {
    base: PathBuf,
    is_usable: AtomicBool,
    counts_oom_kills: bool,
    stock: Mutex<Stock>,
}

/// What is made ahead and cleared away afterwards, because the kernel takes its time for both and a restart has none.
#[derive(Debug, Default)]
struct Stock {
    /// The leaf of the next tree.
    spare: Option<Spare>,
    /// Whether there is to be one: not before the first start, nor after the last.
    is_wanted: bool,
    /// Those of trees that are gone.
    retired: Vec<Leaf>,
}

/// A leaf that was made before its tree; one that gets none is removed.
#[derive(Debug)]
pub(super) struct Spare {
    marker: String,
    made: Option<(Leaf, OwnedFd)>,
}

impl Stock {
    fn lacks_spare(&self) -> bool {
        self.is_wanted && self.spare.is_none()
    }
}

impl Spare {
    /// Returns the marker that its tree is to have.
    pub(super) fn marker(&self) -> &str {
        &self.marker
    }

    /// Gives the leaf to its tree.
    pub(super) fn take(mut self) -> Option<(Leaf, OwnedFd)> {
        self.made.take()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some((leaf, _)) = &self.made {
            leaf.remove();
        }
    }
}

/// The control group of one tree.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
}

impl Groups {
    /// Makes the directory of leaves for the host with this ledger; `None` where nothing is delegated to us.
    pub(super) fn open(ledger: &Path) -> Option<Self> {
        let base = delegated()?.join(format!("{PREFIX}{:016x}", hash(ledger)));
        match fs::create_dir(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        let is_usable = base.join("cgroup.kill").exists()
            && OpenOptions::new().write(true).open(base.join("cgroup.procs")).is_ok();
        if !is_usable {
            let _in_use = fs::remove_dir(&base);
            return None;
        }
        // With it, the kernel counts for each leaf whom it killed for want of memory.
        let _not_delegated = set(&base.join("cgroup.subtree_control"), "+memory");
        // If that cannot be read, each leaf is asked.
        let controllers = read(&base.join("cgroup.subtree_control"));
        let counts_oom_kills =
            controllers.map_or(true, |names| names.split_ascii_whitespace().any(|name| name == "memory"));
        Some(Self { base, is_usable: AtomicBool::new(true), counts_oom_kills, stock: Mutex::default() })
    }

    /// Returns the directory of leaves.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Returns whether leaves can be made, as far as is known.
    pub(super) fn is_usable(&self) -> bool {
        self.is_usable.load(Ordering::Relaxed)
    }

    /// Returns whether the kernel counts for each leaf whom it killed for want of memory.
    pub(super) fn counts_oom_kills(&self) -> bool {
        self.counts_oom_kills
    }

    /// Makes the leaf of a tree. `None` if there is none; the tree is owned by other means then.
    pub(super) fn leaf(&self, marker: &str) -> Option<(Leaf, OwnedFd)> {
        if !self.is_usable() {
            return None;
        }
        let leaf = Leaf { path: self.base.join(marker) };
        match fs::create_dir(&leaf.path).and_then(|()| File::open(&leaf.path)) {
            Ok(dir) => Some((leaf, dir.into())),
            Err(error) => {
                tracing::warn!(leaf = %leaf.path.display(), reason = %error, "no control group for this process");
                leaf.remove();
                None
            }
        }
    }

    /// Returns the leaf that was made for a tree before, if it has one.
    pub(super) fn existing(&self, marker: &str) -> Option<Leaf> {
        let path = self.base.join(marker);
        path.is_dir().then_some(Leaf { path })
    }

    /// Takes the leaf that was made ahead, if there is one, and has another one made at the next [`Groups::tidy`].
    pub(super) fn spare(&self) -> Option<Spare> {
        let mut stock = self.stock();
        stock.is_wanted = self.is_usable();
        stock.spare.take()
    }

    /// Takes the leaf of a tree that is gone, which the next [`Groups::tidy`] removes.
    pub(super) fn retire(&self, leaf: &Leaf) {
        self.stock().retired.push(Leaf { path: leaf.path.clone() });
    }

    /// Removes the leaves of trees that are gone, and makes one for the next. To be called when there is time.
    pub(super) fn tidy(&self) {
        // Nobody who starts or ends a tree waits for the kernel meanwhile.
        let retired = std::mem::take(&mut self.stock().retired);
        retired.iter().for_each(Leaf::remove);
        if !self.stock().lacks_spare() {
            return;
        }
        let made = command::random_marker().ok().and_then(|marker| {
            let made = Some(self.leaf(&marker)?);
            Some(Spare { marker, made })
        });
        let mut stock = self.stock();
        if stock.lacks_spare() {
            stock.spare = made;
        }
    }

    /// Removes every leaf without a tree; until a tree is started, no more are made.
    pub(super) fn clear(&self) {
        let mut stock = self.stock();
        stock.retired.drain(..).for_each(|leaf| leaf.remove());
        (stock.spare, stock.is_wanted) = (None, false);
    }

    /// Removes the directory of leaves if no tree is left; with leaves in it, it stays for the next start.
    pub(super) fn remove(&self) {
        self.clear();
        let _in_use = fs::remove_dir(&self.base);
    }

    /// A panic elsewhere leaves at worst a leaf that the next start removes.
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes no more leaves: the kernel does not let us create processes in them.
    pub(super) fn give_up(&self, error: &io::Error) {
        if self.is_usable.swap(false, Ordering::Relaxed) {
            tracing::warn!(base = %self.base.display(), reason = %error, "control groups cannot be used");
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Leaf {
    /// Returns its processes and those of groups that they made below it.
    ///
    /// # Errors
    /// If the system cannot say.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        if !self.is_populated() {
            return Ok(Vec::new());
        }
        let mut pids = Vec::new();
        for dir in self.directories()? {
            let text = tree::seen(fs::read_to_string(dir.join("cgroup.procs")))?.unwrap_or_default();
            // 0 is one that our process namespace does not show.
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        }
        Ok(pids)
    }

    /// Returns whether it or a group below it has a process that runs.
    pub(super) fn is_populated(&self) -> bool {
        read(&self.path.join("cgroup.events")).map_or_else(
            // Not to be seen is not to be empty.
            |error| tree::could_not_look(&error),
            |text| count(&text, "populated") == 1,
        )
    }

    /// Returns whether the kernel says that nobody runs in it or below it; not if nothing can be read.
    pub(super) fn is_empty(&self) -> bool {
        read(&self.path.join("cgroup.events")).is_ok_and(|text| text.contains("populated 0"))
    }

    /// Kills every process in it and below it, those that are being forked included.
    pub(super) fn kill(&self) -> io::Result<()> {
        set(&self.path.join("cgroup.kill"), "1")
    }

    /// Returns how many of its processes the kernel killed for want of memory; 0 if nobody counts.
    pub(super) fn oom_kills(&self) -> u64 {
        read(&self.path.join("memory.events")).map_or(0, |text| count(&text, "oom_kill"))
    }

    /// Removes it; one with processes in it stays.
    pub(super) fn remove(&self) {
        // Few have groups below them.
        if fs::remove_dir(&self.path).is_ok() {
            return;
        }
        for dir in self.directories().unwrap_or_default().iter().rev() {
            let _in_use = fs::remove_dir(dir);
        }
    }

    /// Returns the leaf's directory and those below it, each after the one it is in.
    fn directories(&self) -> io::Result<Vec<PathBuf>> {
        let mut directories = vec![self.path.clone()];
        let mut next = 0;
        while let Some(directory) = directories.get(next) {
            let entries = tree::seen(fs::read_dir(directory))?.into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
            directories.extend(below);
            next += 1;
        }
        Ok(directories)
    }
}

/// More than any file that is read here can hold, which are a few numbers with their names.
const READ_LIMIT: usize = 1024;

/// Reads a small file of the kernel's, which gives all of it at once.
fn read(path: &Path) -> io::Result<String> {
    let mut text = [0; READ_LIMIT];
    let length = File::open(path)?.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Kills what is in the leaves of a directory that an earlier host left, removes them, and returns whom, by marker, with
/// those that did not end in time.
pub(super) fn sweep(base: &Path, deadline: Instant) -> Vec<(String, Stat, bool)> {
    let is_ours =
        base.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
    let Ok(entries) = tree::insist(deadline, || fs::read_dir(base)) else { return Vec::new() };
    let mut swept = Vec::new();
    for entry in entries.flatten().filter(|_| is_ours) {
        let Ok(marker) = entry.file_name().into_string() else { continue };
        if !super::ledger::is_marker(&marker) {
            continue;
        }
        let leaf = Leaf { path: entry.path() };
        // Without their names they are killed all the same.
        let pids = tree::insist(deadline, || leaf.pids()).unwrap_or_default();
        let stats: Vec<Stat> = pids.into_iter().filter_map(Stat::read).filter(|stat| stat.is_alive).collect();
        let killed = tree::insist(deadline, || leaf.kill());
        while killed.is_ok() && leaf.is_populated() && Instant::now() < deadline {
            wait_a_moment();
        }
        let is_left = leaf.is_populated();
        leaf.remove();
        swept.extend(stats.into_iter().map(|stat| {
            let is_left = is_left && stat.identity().is_current().unwrap_or(true);
            (marker.clone(), stat, is_left)
        }));
    }
    let _in_use = fs::remove_dir(base);
    swept
}

#[expect(clippy::disallowed_methods, reason = "before the runtime; a group's end is told by inotify only")]
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Writes to a file of the kernel's, and never makes one.
fn set(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Returns the number behind a word, in a file of lines of both.
fn count(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// A number for the path that is the same at the next start (FNV-1a).
fn hash(path: &Path) -> u64 {
    let path = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Returns the directory of the control group that is ours to divide.
fn delegated() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own_group(&mounts, &membership)?;
    let is_managed = Path::new("/run/systemd/system").exists();
    if !is_managed || is_marked(&own) {
        return Some(own);
    }
    own.parent().filter(|parent| is_marked(parent)).map(Path::to_owned)
}

/// Returns the directory of our own control group, in a unified hierarchy or in the unified part of a hybrid one.
fn own_group(mounts: &str, membership: &str) -> Option<PathBuf> {
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // `ID PARENT DEVICE ROOT MOUNT-POINT OPTIONS [TAG]... - TYPE SOURCE OPTIONS`
        let (mount, system) = line.split_once(" - ")?;
        if system.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let (root, point) = (mount.split(' ').nth(3)?, mount.split(' ').nth(4)?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

/// Returns whether systemd has marked the group as delegated.
#[cfg(target_os = "linux")]
fn is_marked(group: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(group.as_os_str().as_bytes()) else { return false };
    [c"user.delegate", c"trusted.delegate"]
        .into_iter()
        .any(|name| super::sys::extended_attribute(&path, name).as_deref() == Some(b"1"))
}

#[cfg(not(target_os = "linux"))]
fn is_marked(_group: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "22 1 0:21 / /sys rw - sysfs sysfs rw\n\
                           30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "30 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                          31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                          32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_in_each_layout() {
        let own = |mounts, membership| own_group(mounts, membership);
        let unit = Some(PathBuf::from("/sys/fs/cgroup/system.slice/xyd.service"));
        assert_eq!(own(UNIFIED, "0::/system.slice/xyd.service\n"), unit);
        let root = Some(PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(own(HYBRID, "4:memory:/a\n1:name=systemd:/\n0::/\n"), root);
        assert_eq!(own(HYBRID, "4:memory:/a\n"), None);
        assert_eq!(own("", "0::/\n"), None);
        // A container that sees a part of the hierarchy.
        let part = "30 22 0:26 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own(part, "0::/docker/7/init\n"), Some(PathBuf::from("/sys/fs/cgroup/init")));
        assert_eq!(own(part, "0::/elsewhere\n"), None);
    }

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let text = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((count(text, "oom_kill"), count(text, "oom"), count(text, "kill")), (1, 2, 0));
        assert_eq!(count("", "populated"), 0);
    }

    #[test]
    fn nothing_is_swept_below_a_directory_that_is_not_ours() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["other", "xy-0"] {
            let leaf = dir.path().join(name).join("0".repeat(32));
            fs::create_dir_all(&leaf).expect("created");
            assert_eq!(sweep(&dir.path().join(name), Instant::now()), []);
            assert_eq!(leaf.exists(), name == "other");
        }
    }

    #[test]
    fn a_path_has_the_same_hash_at_each_start() {
        assert_eq!(hash(Path::new("/nonexistent/a")), hash(Path::new("/nonexistent/a")));
        assert_ne!(hash(Path::new("/nonexistent/a")), hash(Path::new("/nonexistent/b")));
    }
}
