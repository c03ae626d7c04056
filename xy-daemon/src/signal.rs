//! Operating system signals as what they mean to the daemon.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::daemon::DaemonSignal;

/// How long after the first signal another one is the same request, not one more.
///
/// Many programs in front of a daemon signal it and then its process group (`timeout`), or pass on what the terminal has
/// sent to all of them. One Ctrl-C or one SIGTERM must not kill servers that would have ended politely.
pub const SAME_REQUEST: Duration = Duration::from_millis(300);

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// Read the configuration again: the convention for daemons.
    Reload,
    /// End everything: the terminal is gone.
    Shutdown,
}

/// Listens for signals: SIGINT and SIGTERM ask to end, a second one to end at once, SIGHUP means what `hang_up` says,
/// SIGUSR1 asks to upgrade, SIGUSR2 for a new token.
///
/// What follows the first within 300 ms repeats it and means nothing more.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// If the system refuses a handler.
pub fn listen(hang_up: HangUp) -> io::Result<mpsc::Receiver<DaemonSignal>> {
    listen_or(hang_up, std::future::pending())
}

/// Listens for signals as [`listen`] does, and ends everything at once when `lost` returns.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// If the system refuses a handler.
pub fn listen_or(
    hang_up: HangUp,
    lost: impl Future<Output = ()> + Send + 'static,
) -> io::Result<mpsc::Receiver<DaemonSignal>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_ups = signal(SignalKind::hangup())?;
    let mut rotations = signal(SignalKind::user_defined2())?;
    let mut upgrades = signal(SignalKind::user_defined1())?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut asked = Asked::default();
        let mut lost = std::pin::pin!(lost);
        loop {
            let other = tokio::select! {
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
                _ = hang_ups.recv() => (hang_up == HangUp::Reload).then_some(DaemonSignal::Reload),
                _ = upgrades.recv() => Some(DaemonSignal::Upgrade),
                _ = rotations.recv() => Some(DaemonSignal::RotateToken),
                () = &mut lost => {
                    let _ended = sender.send(DaemonSignal::ShutdownNow).await;
                    return;
                }
            };
            let Some(meaning) = other.or_else(|| asked.end(Instant::now())) else { continue };
            if sender.send(meaning).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// When the end was asked for first.
#[derive(Debug, Default)]
struct Asked {
    first: Option<Instant>,
}

impl Asked {
    /// Returns what one more request to end means; `None` if it repeats the first one.
    fn end(&mut self, now: Instant) -> Option<DaemonSignal> {
        match self.first {
            None => {
                self.first = Some(now);
                Some(DaemonSignal::Shutdown)
            }
            Some(first) if now.duration_since(first) < SAME_REQUEST => None,
            Some(_) => Some(DaemonSignal::ShutdownNow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_right_after_the_first_repeats_it_and_a_later_one_kills() {
        let (mut asked, start) = (Asked::default(), Instant::now());
        assert_eq!(asked.end(start), Some(DaemonSignal::Shutdown));
        assert_eq!(asked.end(start), None);
        assert_eq!(asked.end(start + SAME_REQUEST - Duration::from_nanos(1)), None);
        assert_eq!(asked.end(start + SAME_REQUEST), Some(DaemonSignal::ShutdownNow));
        assert_eq!(asked.end(start + SAME_REQUEST), Some(DaemonSignal::ShutdownNow));
    }
}
