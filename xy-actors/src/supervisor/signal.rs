//! The signals by which people and init systems ask a program to end.

use std::fmt;
use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Which signal asked a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShutdownSignal {
    /// SIGINT: Ctrl-C on the terminal.
    Interrupt,
    /// SIGTERM: how init systems and container engines ask.
    Terminate,
}

impl fmt::Display for ShutdownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Returns a future that is done at the first SIGINT or SIGTERM from now on, for
/// [`run_until`](crate::supervisor::SupervisorBuilder::run_until).
///
/// From this call on, and until it exits, the process is no longer ended by these signals themselves: a second Ctrl-C
/// does not cut a shutdown short.
///
/// # Errors
/// If the system refuses to install a handler.
///
/// # Panics
/// Outside of a tokio runtime, or in one without I/O (`enable_io`), as tokio's own signals do.
///
/// # Cancel safety
/// If the future is dropped, signals that come later are heard by nobody: the handlers stay.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ShutdownSignal> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => ShutdownSignal::Interrupt,
            _ = terminate.recv() => ShutdownSignal::Terminate,
        }
    })
}

#[cfg(all(test, feature = "process"))]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_is_heard_from_the_call_on_and_named() {
        for (signal, heard) in
            [(Signal::SIGINT, ShutdownSignal::Interrupt), (Signal::SIGTERM, ShutdownSignal::Terminate)]
        {
            let future = shutdown_signal().expect("handlers are installed");
            raise(signal).expect("is sent");
            assert_eq!(future.await, heard);
            assert_eq!(heard.to_string(), signal.to_string());
        }
    }
}
