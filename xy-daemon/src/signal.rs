//! Operating system signals as what they mean to the daemon.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::daemon::DaemonSignal;

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// Read the configuration again: the convention for daemons.
    Reload,
    /// End everything: the terminal is gone.
    Shutdown,
}

/// Listens for signals: SIGINT and SIGTERM ask to end, a second one to end at once, SIGHUP means what `hang_up` says.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// If the system refuses a handler.
pub fn listen(hang_up: HangUp) -> io::Result<mpsc::Receiver<DaemonSignal>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_ups = signal(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let ends = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                _ = hang_ups.recv() => hang_up == HangUp::Shutdown,
            };
            let meaning = match (ends, asked) {
                (true, false) => DaemonSignal::Shutdown,
                (true, true) => DaemonSignal::ShutdownNow,
                (false, _) => DaemonSignal::Reload,
            };
            asked |= ends;
            if sender.send(meaning).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
