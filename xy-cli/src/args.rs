//! The command line: every verb, flag and help text of `xyctl`.

pub(crate) mod catalog;
mod complete;
mod daemon;
mod duration;
mod export;
mod moment;
mod permission;
pub(crate) mod token;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use xy_daemon::protocol::method::{OperationParams, SignalName, SignalParams, Targets};

use crate::error::exit_code;
use crate::habits::{self, Translated};

pub(crate) use self::daemon::{
    DaemonArgs, DaemonCommand, DaemonInstallArgs, DaemonLogsArgs, DaemonStartArgs, DaemonStopArgs,
    DaemonUninstallArgs,
};

pub(crate) use self::export::{ExportArgs, ExportFilesArgs, ExportMcpArgs, ExportTarget, McpClient};

pub(crate) use self::permission::{ApproveArgs, DenyArgs, ForgetArgs};

/// Controls the servers that xyd keeps running.
#[derive(Debug, Parser)]
#[command(name = "xyctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The daemon's socket [env: XY_SOCKET] [default: xyd.sock in $XDG_RUNTIME_DIR/xy, else in the state directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Start the daemon in the background if it does not run and the command needs it
    #[arg(id = "start_daemon", long = "start", global = true)]
    pub(crate) start: bool,
    /// Print the daemon's result as one JSON document; streams print one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colors; `auto` means on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub(crate) color: ColorChoice,
}

/// When to use colors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List servers, their state and what they use
    #[command(visible_aliases = ["ls", "ps"], after_help = LIST_HELP)]
    List(ListArgs),
    /// Say everything about one server; without a name, list all
    #[command(visible_alias = "describe", after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Say why a server is as it is: its last ends, the lines before each, what happens next and what to try
    #[command(after_help = WHY_HELP)]
    Why(WhyArgs),
    /// Show what a server is run with, and where each of its variables comes from
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Watch and control everything on the full screen
    #[command(after_help = TOP_HELP)]
    Top,
    /// Print what servers wrote, and follow it
    #[command(visible_alias = "log", after_help = LOGS_HELP)]
    Logs(LogsArgs),
    /// Print what happened to the servers, and follow it
    #[command(after_help = EVENTS_HELP)]
    Events(EventsArgs),
    /// Start servers and wait until they are ready
    #[command(after_help = START_HELP)]
    Start(OperationArgs),
    /// Stop servers and wait until all their processes are gone
    #[command(after_help = STOP_HELP)]
    Stop(OperationArgs),
    /// Restart servers, or start those that do not run, and wait until they are ready
    #[command(after_help = RESTART_HELP)]
    Restart(OperationArgs),
    /// Keep servers from being restarted automatically, without touching them
    #[command(after_help = PAUSE_HELP)]
    Pause(HoldArgs),
    /// Lift a pause
    #[command(after_help = RESUME_HELP)]
    Resume(HoldArgs),
    /// Wait until servers are ready, healthy, stopped, or have ended once
    #[command(after_help = WAIT_HELP)]
    Wait(WaitArgs),
    /// Start servers with the daemon, whatever their files say
    #[command(after_help = ENABLE_HELP)]
    Enable(EnableArgs),
    /// Do not start servers with the daemon, whatever their files say
    #[command(after_help = DISABLE_HELP)]
    Disable(EnableArgs),
    /// Send a signal to all processes of servers
    #[command(after_help = SIGNAL_HELP)]
    Signal(SignalArgs),
    /// List the tools of an MCP server
    #[command(after_help = catalog::TOOLS_HELP)]
    Tools(catalog::ToolsArgs),
    /// List the prompts of an MCP server, or fill one in
    #[command(after_help = catalog::PROMPTS_HELP)]
    Prompts(catalog::PromptsArgs),
    /// List the resources of an MCP server, or print what one holds
    #[command(after_help = catalog::RESOURCES_HELP)]
    Resources(catalog::ResourcesArgs),
    /// Call a tool of an MCP server
    #[command(after_help = catalog::CALL_HELP)]
    Call(catalog::CallArgs),
    /// Write a server file and start the server
    #[command(after_help = ADD_HELP)]
    Add(AddArgs),
    /// Run a command as a server until the daemon ends, without a file
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Stop a server and delete its file
    #[command(visible_aliases = ["remove", "delete"], after_help = RM_HELP)]
    Rm(RmArgs),
    /// Check the configuration without a daemon: mistakes, missing programs, ports in use
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Read the server files again and apply what changed
    #[command(after_help = RELOAD_HELP)]
    Reload(ReloadArgs),
    /// Start, stop and look at the daemon itself
    Daemon(DaemonArgs),
    /// Stop every server and end the daemon
    #[command(after_help = SHUTDOWN_HELP)]
    Shutdown(ShutdownArgs),
    /// Write server files from what other tools read
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Write what clients, systemd and Kubernetes read, from servers
    Export(ExportArgs),
    /// Run the daemon in the foreground and print what happens, until Ctrl-C
    #[command(after_help = UP_HELP)]
    Up(UpArgs),
    /// List the requests that wait for your answer
    Approvals,
    /// Let a request that waits be carried out
    #[command(after_help = APPROVE_HELP)]
    Approve(ApproveArgs),
    /// Refuse a request that waits
    Deny(DenyArgs),
    /// List what you have allowed for longer than once
    Grants,
    /// Forget such a grant, so that the next request asks again
    Forget(ForgetArgs),
    /// Give programs that come over HTTP a token of their own
    #[command(after_help = token::TOKEN_HELP)]
    Token(token::TokenArgs),
    /// Let an assistant look after the servers: an MCP server over standard input and output
    #[command(after_help = MCP_HELP)]
    Mcp(McpArgs),
    /// Print the versions of xyctl and of the daemon
    Version,
    /// Print what the daemon stands on and is doing: versions, paths, limits, clients, recent errors
    #[command(after_help = DIAGNOSTICS_HELP)]
    Diagnostics,
    /// Print what a shell needs to complete commands and the names of servers
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Write the manual pages
    #[command(after_help = MAN_HELP)]
    Man(ManArgs),
}

/// The verbs by purpose, in the order of the help.
const GROUPS: &[(&str, &[&str])] = &[
    ("See what runs", &["list", "status", "why", "show", "top", "logs", "events"]),
    (
        "Act on servers",
        &["start", "stop", "restart", "pause", "resume", "wait", "enable", "disable", "signal"],
    ),
    ("Use MCP servers", &["tools", "prompts", "resources", "call"]),
    ("Configuration", &["add", "run", "rm", "import", "export", "check", "reload"]),
    ("Permissions", &["approvals", "approve", "deny", "grants", "forget", "token"]),
    (
        "Daemon and tools",
        &["up", "daemon", "shutdown", "mcp", "version", "diagnostics", "completions", "man"],
    ),
];

const EXAMPLES: &str = "\
Examples:
  xyctl up ./servers            run the servers of a directory in the foreground
  xyctl list                    all servers, their state, process and port
  xyctl logs -f search          what `search` writes, as it comes
  xyctl restart search files    restart two servers and wait until both are ready
  xyctl list --json             the same for programs

Exit codes:
  0   what was asked for is so
  1   the operation failed, for all or some of the servers
  2   no daemon can be reached, or it went away
  3   the configuration is invalid, or a reload rejected files
  64  the command line is wrong

`xyctl COMMAND --help` says more about a command, `xyctl help exit-codes` about the codes.";

/// What `xyctl help exit-codes` prints.
const EXIT_CODES: &str = "\
Exit codes of xyctl:
  0   What was asked for is so. Stopping what does not run, starting what runs and a follower that is interrupted are
      success as well.
  1   The operation failed, for all or for some of the servers; what failed is named on standard error, or with --json in
      `failed`. Also a `wait` that took longer than its --timeout.
  2   No daemon can be reached, or it went away before it had answered. Also one that does not answer in the time of
      --timeout.
  3   The configuration is invalid: also a reload that rejected a file, and a `check` that found an error.
  64  The command line is wrong (EX_USAGE of sysexits).

`xyctl run --attach` ends with the code of the command it ran, or 128 and the number of the signal that ended it.

Exit codes of xyd:
  0   ended as asked
  3   the configuration is invalid
  64  the command line is wrong
  70  the daemon failed
  75  another instance runs
";

const LIST_HELP: &str = "\
CPU and MEM are of the whole process tree: the share of one processor since its start, or with -w since the table before, \
    and resident memory, in which what several processes share counts for each. With --json each server has its `usage`. \
    A server is `starting` until it is ready for the first time and `restarting` after it ended by itself. RESTARTS counts \
    automatic restarts since it was last started by hand. NEXT says what happens by itself, and when.

Examples:
  xyctl list
  xyctl list -w                 the same, live
  xyctl list 'web-*' @mcp       some of them
  xyctl list --json | jq -r '.servers[] | select(.state == \"failed\").name'";

const STATUS_HELP: &str = "\
Examples:
  xyctl status search           state, last exit and its cause, changes of state, last lines of standard error
  xyctl status search --json";

const WHY_HELP: &str = "\
What is told survives a restart of the daemon.

Examples:
  xyctl why search
  xyctl why search --json";

const SHOW_HELP: &str = "\
Values of variables and options whose names speak of secrets are not shown, nor are addresses with a password.

Examples:
  xyctl show search
  xyctl show search --json | jq -r '.environment[] | select(.name == \"PATH\").value'";

const DIAGNOSTICS_HELP: &str = "\
It is what a report of a problem needs, and holds no secrets.

Examples:
  xyctl diagnostics
  xyctl diagnostics --json | jq -r '.daemon.diagnostics.ownership'";

const TOP_HELP: &str = "\
Keys: up and down (or k and j) choose a server, s starts it, x stops it, r restarts it, p pauses it or lifts that, / filters \
    by name, l and e show its log or the events, PageUp and PageDown scroll, ? helps, q ends.

Examples:
  xyctl top";

const WAIT_HELP: &str = "\
`ready` is a server that runs and has been ready once since its start, `healthy` one that is so now and has passed its \
    liveness check, if it has one, `stopped` one of which \
    no process is left and that nothing starts by itself, `exit` one whose present process has ended. A server that gave \
    up ends waiting for `ready` and `healthy` with exit code 1. With --json: {done: [NAME], failed: [{name, kind, message}]}.

Examples:
  xyctl wait search files
  xyctl wait --for healthy --timeout 30s @mcp
  xyctl wait --for exit migration";

const ENABLE_HELP: &str = "\
What is said here is remembered until it is said otherwise, and wins over `autostart` in the server's file.

Examples:
  xyctl enable search
  xyctl enable --now search     and start it";

const DISABLE_HELP: &str = "\
What is said here is remembered until it is said otherwise, and wins over `autostart` in the server's file. What runs goes \
    on, unless with --now.

Examples:
  xyctl disable search
  xyctl disable --now search    and stop it";

const ADD_HELP: &str = "\
The file is NAME.ron in the directory of server files; edit it for everything else, and `xyctl reload`. The command runs \
    in the current directory, unless --dir says otherwise.

Examples:
  xyctl add files -- files-mcp --http --port 8421
  xyctl add web --port 8080 --env LOG=debug --tag mcp -- npx -y web-mcp";

const RUN_HELP: &str = "\
The command is restarted if it fails, as any other server is. With --attach it is not: its output goes to standard output \
    and standard error, Ctrl-C stops it, and the exit code is its own, or 128 and the number of the signal that ended it.

Examples:
  xyctl run web -- npx -y web-mcp
  xyctl run --attach migration -- ./migrate --all";

const RM_HELP: &str = "\
Its processes are stopped first. Its log stays. With --json: {removed: [NAME], failed: [{name, message}]}.

Examples:
  xyctl rm search";

const CHECK_HELP: &str = "\
What is wrong in a file is an error, with exit code 3. What would keep a valid server from starting now is a warning: a \
    program or its interpreter that is not there, a directory that is missing, a port that is in use. With --json: {servers: \
    [NAME], errors: [..], warnings: [..]}, of which each has file, line, column, key, message and hint.

Examples:
  xyctl check                   the configured directory
  xyctl check ./servers         the files NAME.ron in a directory";

const COMPLETIONS_HELP: &str = "\
Examples:
  source <(xyctl completions bash)                                      in ~/.bashrc
  source <(xyctl completions zsh)                                       in ~/.zshrc
  xyctl completions fish > ~/.config/fish/completions/xyctl.fish";

const MAN_HELP: &str = "\
Examples:
  xyctl man | man -l -          read the page of xyctl
  xyctl man ./man1              write the pages of all commands, and that of xyd, to a directory";

const LOGS_HELP: &str = "\
The lines of several servers are merged by their time, each after the name of its server. \
    Standard output and standard error of the server both go to standard output, byte for byte. On a terminal, control \
    characters are shown as escapes. Lines that are not available any more are counted on standard error, or with --json \
    by an object of type `log_gap`. Starts, exits and other remarks stand between the lines on a terminal, not in a pipe, \
    where -n does not count them either. \
    A time is RFC 3339, a date with or without a time of day in this zone, or how long ago (`10m`, `2h ago`, `7d`). With \
    one of --since, --until, --previous and --grep, all lines are shown that match, unless -n says how many. Ctrl-C ends following with exit code 0; a daemon that goes away, with 2.

Examples:
  xyctl logs search             the latest lines
  xyctl logs -f search files    what both write, as it comes
  xyctl logs -f -n 0 search     only what comes from now on
  xyctl logs --stream search    with `out |` or `err |` before each line
  xyctl logs --previous search  what it wrote before its last restart
  xyctl logs --since 10m --grep '(?i)error' search";

const EVENTS_HELP: &str = "\
Events are numbered; `--from` takes up where an earlier call ended. With --json each line is one event; missing ones are \
    an object of type `event_gap`.

Examples:
  xyctl events                  what the daemon still remembers
  xyctl events -f               only what happens from now on
  xyctl events --since 10m      what happened in the last ten minutes
  xyctl events -f --from 120    number 120 and everything after it
  xyctl events --after ID       what happened since the event with this id";

const START_HELP: &str = "\
A server that runs already is left alone, which is success.

Examples:
  xyctl start search files
  xyctl start --all --timeout 2m
  xyctl start search --no-wait";

const STOP_HELP: &str = "\
The server gets its stop signal, and KILL when its grace period is over; what had to be killed is named. It stays down \
    until it is started again. A server that does not run is left alone, which is success.

Examples:
  xyctl stop search
  xyctl stop --all --reason \"moving the database\"";

const RESTART_HELP: &str = "\
Examples:
  xyctl restart search
  xyctl restart --all";

const PAUSE_HELP: &str = "\
Examples:
  xyctl pause search            it may end, and stays down until `xyctl resume search`";

const RESUME_HELP: &str = "\
Examples:
  xyctl resume search
  xyctl resume --all";

const SIGNAL_HELP: &str = "\
The signal is the last word, or that of -s. Signals: HUP, INT, QUIT, KILL, TERM, USR1, USR2, with or without SIG. A server that ends by it is restarted as after any \
    other exit; `xyctl stop` is for ending it.

Examples:
  xyctl signal search HUP
  xyctl signal -s USR1 search files";

const RELOAD_HELP: &str = "\
A file that is invalid is rejected and leaves its running server alone; the exit code is then 3.

Examples:
  xyctl reload --dry-run        say what would change, and change nothing
  xyctl reload";

const SHUTDOWN_HELP: &str = "\
Returns when everything has ended. A daemon that does not run is success.

Examples:
  xyctl shutdown";

const IMPORT_HELP: &str = "\
What cannot be carried over is listed, with what to do about it. Files that are there are not overwritten.

Examples:
  xyctl import procfile ./Procfile --dry-run
  xyctl import supervisord /etc/supervisor/supervisord.conf
  xyctl import mcp ~/.cursor/mcp.json --into ./servers";

const APPROVE_HELP: &str = "\
Which requests ask is said by `permissions` in `xyd.ron`. One that nobody answers in time is refused.

Examples:
  xyctl events -f                      shows requests as they come
  xyctl approve 3                      this time
  xyctl approve 3 --remember always    and from now on without asking";

const MCP_HELP: &str = "\
Tools: list, status, why, logs, events, check, start, stop, restart. What they may do is said by `permissions` in `xyd.ron`, in \
    which the client is `mcp:` and the name that the assistant's program gives. `xyd --http` answers the same at /mcp.

Examples:
  claude mcp add xy -- xyctl mcp
  xyctl mcp --read-only";

const UP_HELP: &str = "\
No other program is needed. The servers are those of the configured directory, or the files NAME.ron in DIR; relative \
    paths in them start in the current directory. Ctrl-C, TERM or a closed terminal stop everything; a second Ctrl-C kills \
    what is left.

Examples:
  xyctl up
  xyctl up ./servers
  xyctl up ./servers --socket /tmp/try/xyd.sock";

/// Which servers.
#[derive(Debug, Args)]
#[group(id = "targets", required = true, multiple = false)]
pub(crate) struct TargetArgs {
    /// The servers; a server of a group is GROUP/NAME, `web-*` are those of matching names, `@tag` those of a tag
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) names: Vec<String>,
    /// Every server
    #[arg(long)]
    pub(crate) all: bool,
}

impl TargetArgs {
    /// Returns the servers as the protocol names them.
    pub(crate) fn targets(&self) -> Targets {
        if self.all { Targets::All } else { Targets::Names(self.names.clone()) }
    }
}

/// The arguments of `start`, `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct OperationArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Return at once instead of waiting for the result
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// Wait at most this long (`90`, `2m`, `1m30s`); what is not done by then fails here and goes on in the daemon
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    /// Why, for the server's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl OperationArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> OperationParams {
        OperationParams {
            wait: !self.no_wait,
            // The protocol counts whole seconds; waiting a little longer is better than not at all.
            timeout_secs: self
                .timeout
                .map(|timeout| timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)),
            reason: self.reason.clone(),
            ..OperationParams::new(self.targets.targets())
        }
    }
}

/// The arguments of `pause` and `resume`, which are done at once.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Why, for the server's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl HoldArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> OperationParams {
        OperationParams { reason: self.reason.clone(), ..OperationParams::new(self.targets.targets()) }
    }
}

/// The arguments of `signal`.
#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The servers, and the signal unless -s names it
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCompleter::new(complete::servers))]
    names: Vec<String>,
    /// Every server
    #[arg(long)]
    all: bool,
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<SignalName>,
    /// Why, for the server's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl SignalArgs {
    /// Returns the arguments as the protocol names them.
    ///
    /// # Errors
    /// Says what is missing or too much.
    pub(crate) fn params(&self) -> Result<SignalParams, String> {
        let mut names = self.names.clone();
        let signal = match self.signal {
            Some(signal) => signal,
            None => {
                let last = names.pop().ok_or("the signal is missing, as in `xyctl signal NAME HUP`")?;
                signal(&last).map_err(|expected| format!("`{last}` is no signal: {expected}"))?
            }
        };
        let targets = match (self.all, names.is_empty()) {
            (true, true) => Targets::All,
            (false, false) => Targets::Names(names),
            (true, false) => return Err("names and `--all` do not go together".to_owned()),
            (false, true) => return Err("name the servers, as in `xyctl signal NAME HUP`".to_owned()),
        };
        Ok(SignalParams { targets, signal, reason: self.reason.clone() })
    }
}

/// The arguments of `list`.
#[derive(Debug, Args, Default)]
pub(crate) struct ListArgs {
    /// Only these servers; names, `web-*` or `@tag`
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) names: Vec<String>,
    /// Show the table again whenever something changes, until Ctrl-C; on a terminal also every second
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Leave out CPU and memory, which take the daemon some milliseconds per thousand processes to read
    #[arg(long)]
    pub(crate) no_usage: bool,
}

/// The arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The servers
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) names: Vec<String>,
}

/// The arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The server
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) name: String,
}

/// The arguments of `show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The server
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) name: String,
}

/// The arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", value_enum, default_value_t)]
    pub(crate) goal: Goal,
    /// Wait at most this long (`90`, `2m`, `1m30s`)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// It runs and has been ready since its start.
    #[default]
    Ready,
    /// It runs and is ready now.
    Healthy,
    /// Nothing of it runs, and nothing starts it by itself.
    Stopped,
    /// Its present process has ended.
    Exit,
}

/// The arguments of `enable` and `disable`.
#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Start, or stop, them now as well
    #[arg(long)]
    pub(crate) now: bool,
    /// Why, for the server's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl EnableArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> OperationParams {
        OperationParams { reason: self.reason.clone(), ..OperationParams::new(self.targets.targets()) }
    }
}

/// What `add` and `run` make a server of.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The new server's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub(crate) command: Vec<String>,
    /// A variable of its environment
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// The directory it runs in [default: the current one]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The TCP port it serves; it is ready when it listens there
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// A tag, by which `@TAG` means it
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

/// The arguments of `add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Do not start it, neither now nor with the daemon
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) stopped: bool,
    /// Return at once instead of waiting until it is ready
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// The arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Stay until it ends, print what it writes, and return its exit code
    #[arg(short, long, conflicts_with = "no_wait")]
    pub(crate) attach: bool,
    /// Return at once instead of waiting until it is ready
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// The arguments of `rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The servers
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::servers))]
    pub(crate) names: Vec<String>,
}

/// The arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A directory of server files [default: servers in $XDG_CONFIG_HOME/xy, else in ~/.config/xy]
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell: bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    pub(crate) shell: String,
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write the pages of all commands; without it, the page of xyctl goes to standard output
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE"),
    }
}

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The servers; names, `web-*` or `@tag`
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) names: Vec<String>,
    /// Every server
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// How many of the latest lines come first [default: the daemon's]
    #[arg(short = 'n', long, visible_alias = "lines", value_name = "N")]
    pub(crate) tail: Option<u64>,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines that are not older than this
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub(crate) since: Option<u64>,
    /// Only lines that are older than this
    #[arg(long, value_name = "TIME", value_parser = moment::parse, conflicts_with = "follow")]
    pub(crate) until: Option<u64>,
    /// Only what the incarnation before the latest one wrote
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) previous: bool,
    /// Only lines that this regular expression matches
    #[arg(short, long, value_name = "REGEX")]
    pub(crate) grep: Option<String>,
    /// Say before each line which stream it came from, and show starts and exits also in a pipe
    #[arg(long, conflicts_with = "json")]
    pub(crate) stream: bool,
}

/// The arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with new events as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The number of the first event wanted
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<u64>,
    /// The id of the last event that was seen, as --json tells it; exact also if the daemon was killed meanwhile
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "since"])]
    pub(crate) after: Option<String>,
    /// Only events that are not older than this
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub(crate) since: Option<u64>,
    /// Only events about these servers; names, `web-*`, or a group
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) names: Vec<String>,
}

/// The arguments of `reload`.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The arguments of `shutdown`.
#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    /// Return at once instead of waiting for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// The arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What kind of file it is
    #[arg(value_enum)]
    pub(crate) flavor: ImportFlavor,
    /// The file; `-` is standard input. Of process-compose there may be several, each over those before it
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Print the server files and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The directory to write to [default: servers in $XDG_CONFIG_HOME/xy, else in ~/.config/xy]
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Overwrite server files that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// A kind of file that servers can be imported from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFlavor {
    /// The `mcpServers` JSON of desktop clients and editors
    Mcp,
    /// A Procfile, with the `.env` beside it
    Procfile,
    /// The configuration of supervisord
    Supervisord,
    /// The YAML of process-compose
    ProcessCompose,
}

/// The arguments of `mcp`.
#[derive(Debug, Args)]
pub(crate) struct McpArgs {
    /// Offer only tools that change nothing
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// The arguments of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A directory of server files [default: servers in $XDG_CONFIG_HOME/xy, else in ~/.config/xy]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// What the arguments came to.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// There is a command to run.
    Run(Box<Cli>),
    /// Everything is said; the process exits with this code.
    Exit(u8),
}

/// Reads the arguments; help, version and errors are printed here.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let arguments = match habits::translate(arguments.into_iter().collect()) {
        Translated::Words(words) => words,
        Translated::Topic => {
            // Help into a closed pipe is no failure.
            _ = io::stdout().write_all(EXIT_CODES.as_bytes());
            return Parsed::Exit(exit_code::SUCCESS);
        }
        Translated::Answer(answer) => {
            // There is nowhere to report that standard error is gone.
            _ = writeln!(io::stderr(), "error: {answer}");
            return Parsed::Exit(exit_code::USAGE);
        }
    };
    let parsed = command()
        .try_get_matches_from(arguments)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(cli) => Parsed::Run(Box::new(cli)),
        Err(error) => {
            // Help into a closed pipe is no failure.
            _ = error.print();
            Parsed::Exit(match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit_code::SUCCESS,
                _ => exit_code::USAGE,
            })
        }
    }
}

/// Builds the definitions with the verbs grouped in the help.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let mut groups = String::new();
    for (title, verbs) in GROUPS {
        groups.push_str(title);
        groups.push_str(":\n");
        for verb in *verbs {
            // A test holds that each of them exists.
            let Some(found) = command.find_subcommand(verb) else { continue };
            let about = found.get_about().map(ToString::to_string).unwrap_or_default();
            let aliases: Vec<_> = found.get_visible_aliases().collect();
            let also =
                if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) };
            groups.push_str(&format!("  {verb:<11} {about}{also}\n"));
        }
        groups.push('\n');
    }
    command
        .help_template(format!(
            "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}{{options}}{{after-help}}"
        ))
        .after_help(EXAMPLES)
}

/// Returns whether a word is the name or number of a signal.
pub(crate) fn is_signal(word: &str) -> bool {
    signal(word).is_ok()
}

fn signal(text: &str) -> Result<SignalName, String> {
    let upper = text.to_ascii_uppercase();
    Ok(match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "HUP" | "1" => SignalName::Hup,
        "INT" | "2" => SignalName::Int,
        "QUIT" | "3" => SignalName::Quit,
        "KILL" | "9" => SignalName::Kill,
        "TERM" | "15" => SignalName::Term,
        "USR1" => SignalName::Usr1,
        "USR2" => SignalName::Usr2,
        _ => return Err("expected one of HUP, INT, QUIT, KILL, TERM, USR1, USR2".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_is_in_exactly_one_group_of_the_help() {
        let grouped: Vec<_> = GROUPS.iter().flat_map(|(_, verbs)| *verbs).copied().collect();
        let command = Cli::command();
        for verb in command.get_subcommands().map(clap::Command::get_name) {
            assert_eq!(grouped.iter().filter(|grouped| **grouped == verb).count(), 1, "{verb}");
        }
        for verb in grouped {
            assert!(command.find_subcommand(verb).is_some(), "{verb}");
        }
    }

    #[test]
    fn a_signal_is_read_as_people_write_it() {
        for text in ["HUP", "hup", "SIGHUP", "1"] {
            assert_eq!(signal(text), Ok(SignalName::Hup), "{text}");
        }
        assert!(signal("STOP").is_err_and(|error| error.contains("USR1")));
    }

    #[test]
    fn a_timeout_is_rounded_up_to_whole_seconds() {
        let params = |timeout: &str| {
            let Parsed::Run(cli) = parse(["xyctl", "start", "a", "--timeout", timeout].map(Into::into))
            else {
                panic!("{timeout} is refused");
            };
            let Command::Start(args) = cli.command else { panic!("another command") };
            args.params().timeout_secs
        };
        assert_eq!(params("90"), Some(90));
        assert_eq!(params("1500ms"), Some(2));
        assert_eq!(params("1m30s"), Some(90));
    }
}
