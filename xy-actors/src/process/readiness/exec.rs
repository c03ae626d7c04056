//! The Exec probe: a command of the operator's succeeds in the child's environment and directory.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::time::{self, Instant};

use super::{ProbeFailure, printable};
use crate::process::{OsProcess, ProcessExit, ProcessHost, ProcessOutput, ProcessSpec, Readiness};

/// How much of the end of the output is looked at for the last line.
const TAIL: usize = 4 << 10;

/// How often a pipe is read at most after the command has ended.
const FINAL_READS: usize = 256;

/// How long killing waits for what the command has left behind.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Where a command runs.
#[derive(Debug, Clone)]
pub(super) struct Place {
    host: ProcessHost,
    /// The child's path.
    label: String,
    /// The child's spec, with everything that is the child's alone taken out.
    spec: ProcessSpec,
}

impl Place {
    pub(super) fn new(host: &ProcessHost, label: &str, spec: &ProcessSpec) -> Self {
        let spec = ProcessSpec {
            args: Vec::new(),
            ready: Some(Readiness::Started),
            liveness: None,
            watchdog: None,
            ..spec.clone()
        };
        Self { host: host.clone(), label: label.to_owned(), spec }
    }
}

/// Runs the command; exit code 0 means success.
///
/// Whatever comes of it, also when the future is dropped, no process of it is left.
pub(super) async fn probe(
    place: &Place,
    command: &str,
    args: &[String],
    timeout: Duration,
) -> Result<(), ProbeFailure> {
    let deadline = Instant::now() + timeout;
    let too_late =
        |last_line| ProbeFailure::ExecTimeout { command: command.to_owned(), after: timeout, last_line };
    let spec = ProcessSpec { command: command.to_owned(), args: args.to_vec(), ..place.spec.clone() };
    let spawned = time::timeout_at(deadline, place.host.spawn_beside(&place.label, &spec)).await;
    let mut process = match spawned {
        Ok(Ok(process)) => process,
        Ok(Err(source)) => {
            return Err(ProbeFailure::Spawn { command: command.to_owned(), source: Box::new(source) });
        }
        Err(_) => return Err(too_late(None)),
    };
    let mut output = Output::new(process.take_output());
    let exit = time::timeout_at(deadline, async {
        tokio::select! {
            biased;
            // The end of the process decides: a descendant may hold its output open for ever.
            exit = process.exited() => exit,
            never = output.follow() => never,
        }
    });
    let exit = exit.await.ok();
    end(process).await;
    let last_line = output.last_line();
    match exit {
        Some(ProcessExit::Code(0)) => Ok(()),
        Some(exit) => Err(ProbeFailure::Exec { command: command.to_owned(), exit, last_line }),
        None => Err(too_late(last_line)),
    }
}

/// Kills what is left of the command's tree and reaps it.
async fn end(process: OsProcess) {
    if process.kill_tree(Instant::now() + KILL_WAIT).await.left.is_empty() {
        // A main process that is still there is left to the host by the drop.
        let _ended = process.reap();
    }
}

/// The end of what a command prints.
struct Output {
    pipes: [Option<pipe::Receiver>; 2],
    tail: Vec<u8>,
}

impl Output {
    fn new(output: Option<ProcessOutput>) -> Self {
        let pipes = match output {
            // A pipe that cannot be watched costs the last line and nothing else.
            Some(output) => [output.stdout, output.stderr].map(|end| pipe::Receiver::from_owned_fd(end).ok()),
            None => [None, None],
        };
        Self { pipes, tail: Vec::new() }
    }

    /// Reads until it is dropped, so that the command never waits for room in a pipe.
    async fn follow<T>(&mut self) -> T {
        loop {
            let index = {
                let [out, err] = &self.pipes;
                tokio::select! {
                    () = readable(out.as_ref()) => 0,
                    () = readable(err.as_ref()) => 1,
                }
            };
            self.read(index);
        }
    }

    /// Reads what is there; a pipe that has ended is dropped.
    fn read(&mut self, index: usize) {
        let mut bytes = [0; TAIL];
        let Some(end) = &self.pipes[index] else { return };
        match end.try_read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.pipes[index] = None,
            Ok(count) => self.keep(&bytes[..count]),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
    }

    /// Reads what is left and returns the last line that is not blank.
    fn last_line(mut self) -> Option<String> {
        for end in self.pipes.each_mut().map(Option::take).into_iter().flatten() {
            // The runtime may not know yet that there is something to read, so it is not asked.
            let Ok(end) = end.into_nonblocking_fd() else { continue };
            let mut end = File::from(end);
            let mut bytes = [0; TAIL];
            for _ in 0..FINAL_READS {
                match end.read(&mut bytes) {
                    Ok(count) if count > 0 => self.keep(&bytes[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Also where somebody else holds the pipe open and says nothing.
                    Ok(_) | Err(_) => break,
                }
            }
        }
        let text = String::from_utf8_lossy(&self.tail);
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(printable)
    }
}

async fn readable(end: Option<&pipe::Receiver>) {
    match end {
        // An error shows itself in the read.
        Some(end) => drop(end.readable().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_runtime_has_not_seen_yet_is_read_at_the_end() {
        let (out, mut writer) = io::pipe().expect("a pipe");
        let (err, _held_open) = io::pipe().expect("a pipe");
        for end in [&out, &err] {
            let flags = nix::fcntl::OFlag::O_NONBLOCK;
            nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("a flag");
        }
        let output =
            Output::new(Some(ProcessOutput { stdout: out.into(), stderr: err.into(), notify: None }));
        // No await between here and the end: the runtime cannot learn of it.
        writer.write_all(b"first\nlast words\n\n").expect("written");
        assert_eq!(output.last_line().as_deref(), Some("last words"));
    }
}
