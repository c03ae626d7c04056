//! What the daemon says about itself: `tracing` events as lines on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sends `tracing` events to stderr: what `XY_LOG` says in the syntax of `tracing_subscriber`, else what `default` says.
///
/// Does nothing if the program has a subscriber already.
pub fn to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env("XY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false);
    let _already_set = subscriber.try_init();
}
