//! The command line of `xyctl export`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// The arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// For what
    #[command(subcommand)]
    pub(crate) target: ExportTarget,
}

/// What servers can be exported for.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportTarget {
    /// Print the configuration with which a client finds the MCP servers that run
    #[command(after_help = MCP_HELP)]
    Mcp(ExportMcpArgs),
    /// Write a unit for each server
    #[command(after_help = SYSTEMD_HELP)]
    Systemd(ExportSystemdArgs),
    /// Write a manifest for each server
    #[command(after_help = KUBERNETES_HELP)]
    Kubernetes(ExportKubernetesArgs),
}

/// The arguments of `export mcp`.
#[derive(Debug, Args)]
pub(crate) struct ExportMcpArgs {
    /// Whose configuration
    #[arg(long, value_enum)]
    pub(crate) client: McpClient,
    /// The servers [default: those that run and are known to speak MCP]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// A program that uses MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum McpClient {
    /// Claude Desktop: `claude_desktop_config.json`, by way of `npx mcp-remote`
    ClaudeDesktop,
    /// Claude Code: `.mcp.json`
    ClaudeCode,
    /// Cursor: `.cursor/mcp.json`
    Cursor,
    /// Visual Studio Code: `.vscode/mcp.json`
    Vscode,
    /// Windsurf: `~/.codeium/windsurf/mcp_config.json`
    Windsurf,
    /// Gemini CLI: `~/.gemini/settings.json`
    GeminiCli,
}

/// Which servers of which files.
#[derive(Debug, Args)]
pub(crate) struct ExportFilesArgs {
    /// The servers: names, patterns or tags [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// The directory of server files [default: servers in $XDG_CONFIG_HOME/xy, else in ~/.config/xy]
    #[arg(long, value_name = "DIR")]
    pub(crate) servers: Option<PathBuf>,
    /// Write a file for each server into this directory instead of printing all of them
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, requires = "into")]
    pub(crate) force: bool,
}

/// The arguments of `export systemd`.
#[derive(Debug, Args)]
pub(crate) struct ExportSystemdArgs {
    #[command(flatten)]
    pub(crate) files: ExportFilesArgs,
    /// Write units of the system's manager instead of the user's
    #[arg(long)]
    pub(crate) system: bool,
}

/// The arguments of `export kubernetes`.
#[derive(Debug, Args)]
pub(crate) struct ExportKubernetesArgs {
    #[command(flatten)]
    pub(crate) files: ExportFilesArgs,
    /// The image that has the programs [default: one that does not exist, to be replaced]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
}

const MCP_HELP: &str = "\
A server is known to speak MCP by its `ready: Mcp` or a `liveness` of that kind. One that is named is taken in any case, with \
    the path /mcp. What is left out is listed.

Examples:
  xyctl export mcp --client cursor > .cursor/mcp.json
  xyctl export mcp --client claude-desktop files search";

const SYSTEMD_HELP: &str = "\
Restart policy, delays and limit, stop signal and patience, limits, user, environment and dependencies are carried over; what \
    systemd has no word for is listed. Values of `env` stand in the units in the clear.

Examples:
  xyctl export systemd --into ~/.config/systemd/user
  xyctl export systemd search | less";

const KUBERNETES_HELP: &str = "\
A server becomes a Deployment, one that runs once or that others wait for to complete becomes a Job, and a port becomes a \
    Service. Probes, grace period, environment, user and limits are carried over; what Kubernetes has no word for is listed. \
    Values of `env` stand in the manifests in the clear.

Examples:
  xyctl export kubernetes --image registry.example/tools:1 --into ./manifests
  xyctl export kubernetes @mcp | kubectl apply --dry-run=client -f -";
