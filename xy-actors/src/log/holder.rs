//! Who still holds a pipe whose process has ended.

/// A process that holds the writing end of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeHolder {
    /// Its process id.
    pub pid: u32,
    /// The name of its program, as far as it is known.
    pub command: String,
}

/// Finds the processes that hold one of these pipes, as far as this user may look; blocks for some milliseconds.
#[cfg(target_os = "linux")]
pub(super) fn holders(inodes: &[u64]) -> Vec<PipeHolder> {
    let links: Vec<String> = inodes.iter().map(|inode| format!("pipe:[{inode}]")).collect();
    let holds = |pid: u32| {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|descriptor| {
            let target = std::fs::read_link(descriptor.path());
            target.is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
        })
    };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|process| process.file_name().to_str()?.parse().ok());
    let own = std::process::id();
    let mut holders: Vec<PipeHolder> = pids
        .filter(|pid| *pid != own && holds(*pid))
        .map(|pid| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            PipeHolder { pid, command: command.trim_end().to_owned() }
        })
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

/// Nobody else says who holds a pipe.
#[cfg(not(target_os = "linux"))]
pub(super) fn holders(_inodes: &[u64]) -> Vec<PipeHolder> {
    Vec::new()
}
