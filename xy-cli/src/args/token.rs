//! The command line of `xyctl token`.

use clap::{Args, Subcommand, ValueEnum};
use xy_daemon::protocol::method::{RotateTokenParams, TokenAddParams, TokenRemoveParams};
use xy_daemon::protocol::scope::Scope;

pub(super) const TOKEN_HELP: &str = "\
A token is printed once, and nowhere kept. Rules of permissions and the audit log know the program by its name. Without a name \
    `rotate` is about the daemon's own token, which programs read from its file.

Examples:
  xyctl token add grafana --scope read
  xyctl token rotate grafana     another one; the old one is accepted for a minute more
  xyctl token rm grafana         at once";

/// The arguments of `token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a program, and print it
    Add(TokenAddArgs),
    /// List the programs that have one
    #[command(visible_alias = "ls")]
    List,
    /// Make another token; without a name, that of the daemon
    Rotate(TokenRotateArgs),
    /// Take a token back
    #[command(visible_aliases = ["remove", "revoke"])]
    Rm(TokenRmArgs),
}

/// The arguments of `token add`.
#[derive(Debug, Args)]
pub(crate) struct TokenAddArgs {
    /// What the program is to be called
    #[arg(value_name = "NAME")]
    name: String,
    /// How much it may do
    #[arg(long, value_name = "SCOPE", value_enum)]
    scope: ScopeName,
}

/// How much a program may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// Be told things
    Read,
    /// Act on servers that there are
    Operate,
    /// Everything
    Admin,
}

impl TokenAddArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> TokenAddParams {
        let scope = match self.scope {
            ScopeName::Read => Scope::Read,
            ScopeName::Operate => Scope::Operate,
            ScopeName::Admin => Scope::Admin,
        };
        TokenAddParams { name: self.name.clone(), scope }
    }
}

/// The arguments of `token rotate`.
#[derive(Debug, Args)]
pub(crate) struct TokenRotateArgs {
    /// The program, as `xyctl token list` names it
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl TokenRotateArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> RotateTokenParams {
        RotateTokenParams { name: self.name.clone() }
    }
}

/// The arguments of `token rm`.
#[derive(Debug, Args)]
pub(crate) struct TokenRmArgs {
    /// The program, as `xyctl token list` names it
    #[arg(value_name = "NAME")]
    name: String,
}

impl TokenRmArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> TokenRemoveParams {
        TokenRemoveParams { name: self.name.clone() }
    }
}
