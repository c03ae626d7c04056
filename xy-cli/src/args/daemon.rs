//! The command line of `xyctl daemon`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration::parse as duration;

/// The arguments of `daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) command: DaemonCommand,
}

/// What can be done with the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Start the daemon in the background, and return when it answers
    #[command(after_help = START_HELP)]
    Start(DaemonStartArgs),
    /// Stop every server and end the daemon
    #[command(after_help = STOP_HELP)]
    Stop(DaemonStopArgs),
    /// End the daemon, if it runs, and start it
    Restart(DaemonStartArgs),
    /// Let the xyd that is on disk now take over from the one that runs, while servers run on
    #[command(after_help = UPGRADE_HELP)]
    Upgrade,
    /// Say whether the daemon runs, and on what
    #[command(after_help = STATUS_HELP)]
    Status,
    /// Print what the daemon says about itself
    Logs(DaemonLogsArgs),
    /// Make the daemon a service of systemd (of launchd on macOS)
    #[command(after_help = INSTALL_HELP)]
    Install(DaemonInstallArgs),
    /// Take the service away again
    Uninstall(DaemonUninstallArgs),
}

const START_HELP: &str = "\
If it runs already, that is success. It logs to xyd.log in the state directory; `xyctl daemon logs` shows it.

Examples:
  xyctl daemon start
  xyctl daemon start --config ~/try/xy --socket /tmp/try/xyd.sock";

const STOP_HELP: &str = "\
Servers are stopped in order, each with its own patience. Without a daemon this is success.

Examples:
  xyctl daemon stop
  xyctl daemon stop --kill       no more patience with servers that do not end";

const INSTALL_HELP: &str = "\
Nothing is started; the commands that do are printed. Doing it again changes nothing. systemd gets a socket beside the service:
it holds the control socket, so that a client that comes while xyd is down brings it up.
Examples:
  xyctl daemon install           for you alone, as a user service
  xyctl daemon install --print   show the file and write nothing";

const UPGRADE_HELP: &str = "\
The new program is checked first: one that cannot take over is refused, with its reason, and nothing happens. Servers keep \
    their processes, output, counts and delays. Connections end and can be made again at once. If the new program does \
    not come up, the old one goes on.

Examples:
  xyctl daemon upgrade";

const STATUS_HELP: &str = "\
Exit codes: 0 it runs and answers, 1 it runs and does not answer, 2 it does not run.";

/// The arguments of `daemon start` and `daemon restart`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DaemonStartArgs {
    /// The configuration directory [default: $XDG_CONFIG_HOME/xy, else ~/.config/xy]
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// How long it may take until it answers
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15s")]
    pub(crate) timeout: Duration,
}

/// The arguments of `daemon stop`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DaemonStopArgs {
    /// Kill servers that have not ended, and the daemon if it does not answer
    #[arg(long)]
    pub(crate) kill: bool,
    /// How long to wait for its end
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub(crate) timeout: Duration,
}

/// The arguments of `daemon logs`.
#[derive(Debug, Args)]
pub(crate) struct DaemonLogsArgs {
    /// How many lines to begin with
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 100)]
    pub(crate) lines: usize,
    /// Go on as more is written, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// The arguments of `daemon install`.
#[derive(Debug, Args)]
pub(crate) struct DaemonInstallArgs {
    /// For the whole machine instead of for you alone; needs root
    #[arg(long)]
    pub(crate) system: bool,
    /// The configuration directory the service uses
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// Print the files instead of writing them
    #[arg(long)]
    pub(crate) print: bool,
    /// Overwrite a file that was not written by this command
    #[arg(long)]
    pub(crate) force: bool,
    /// A launchd agent, whatever this system has
    #[arg(long, hide = true)]
    pub(crate) launchd: bool,
}

/// The arguments of `daemon uninstall`.
#[derive(Debug, Args)]
pub(crate) struct DaemonUninstallArgs {
    /// The service of the whole machine; needs root
    #[arg(long)]
    pub(crate) system: bool,
    /// A launchd agent, whatever this system has
    #[arg(long, hide = true)]
    pub(crate) launchd: bool,
}
