//! A command that ends a process in its own way, before the signal: run, bounded in time, and its failure told.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{ProcessExit, ProcessHost, ProcessSpec, SpawnError};
use crate::log::Log;

/// What is run to end a process before its stop signal is sent.
///
/// It runs as the process does (user, directory, environment and the rest of its settings), with the pid of the process
/// in `XY_PID`. Its output goes to the log of the process. A process that is still there when `grace` is over, or when
/// the command failed, gets the stop signal; after a failure, what is left of `grace` is not waited for before KILL either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopCommand {
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// How long the command, and the end that it brings about, may take before the signal is sent.
    pub grace: Duration,
}

/// The variable in which a stop command finds the pid.
const PID_VARIABLE: &str = "XY_PID";

/// As good as for ever, and still a moment that there is.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Why a stop command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum StopCommandError {
    #[error("{}", .0.told())]
    Spawn(#[from] SpawnError),
    #[error("it ended with code {0}")]
    Code(i32),
    #[error("it was ended by signal {0}")]
    Signal(i32),
    #[error("it did not end within {0:?} and was killed")]
    Timeout(Duration),
}

impl StopCommand {
    /// Returns how to run it for this process.
    fn spec(&self, of: &ProcessSpec, pid: u32) -> ProcessSpec {
        let mut spec = ProcessSpec {
            command: self.command.clone(),
            args: self.args.clone(),
            env: of.env.clone(),
            working_dir: of.working_dir.clone(),
            settings: of.settings.clone(),
            ..ProcessSpec::new("")
        };
        spec.settings.stdin = super::settings::Stdin::Null;
        spec.env.insert(PID_VARIABLE.to_owned(), pid.to_string());
        spec
    }

    /// Returns when its grace is over, if it begins now.
    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.grace).unwrap_or(now + FAR)
    }

    /// Runs it to its end.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped, it is killed with everything it started.
    pub(super) async fn run(
        &self,
        host: &ProcessHost,
        label: &str,
        of: &ProcessSpec,
        pid: u32,
        (log, incarnation): (&Log, u64),
    ) -> Result<(), StopCommandError> {
        let deadline = self.deadline();
        let run = async {
            let mut process = host.spawn_beside(label, &self.spec(of, pid)).await?;
            // Without its output it does its work all the same.
            let attached = process
                .take_output()
                .and_then(|output| log.attach(incarnation, output.stdout, output.stderr).ok());
            let exit = process.exited().await;
            // What it started in the background is not part of the stop.
            process.kill_tree(deadline).await;
            process.reap();
            if let Some(attached) = attached {
                attached.drain(crate::log::DRAIN_GRACE).await;
            }
            match exit {
                ProcessExit::Code(0) => Ok(()),
                ProcessExit::Code(code) => Err(StopCommandError::Code(code)),
                ProcessExit::Signal { signal, .. } => Err(StopCommandError::Signal(signal)),
            }
        };
        timeout_at(deadline, run).await.unwrap_or(Err(StopCommandError::Timeout(self.grace)))
    }
}
