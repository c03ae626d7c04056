//! The command line of what operators say to requests that ask: `approve`, `deny`, `forget`.

use clap::{Args, ValueEnum};
use xy_daemon::protocol::method::{ApproveParams, DenyParams, ForgetParams, GrantScope};

/// The arguments of `approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The request, as `xyctl approvals` lists it
    #[arg(value_name = "ID")]
    id: String,
    /// For how long this counts
    #[arg(long, value_name = "SCOPE", value_enum, default_value_t)]
    remember: Remember,
}

/// For how long an approval counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Remember {
    /// For this request
    #[default]
    Once,
    /// For the same request of the same session
    Session,
    /// For the same request of the same client, until `xyctl forget`
    Always,
}

impl ApproveArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> ApproveParams {
        let remember = match self.remember {
            Remember::Once => GrantScope::Once,
            Remember::Session => GrantScope::Session,
            Remember::Always => GrantScope::Always,
        };
        ApproveParams { id: self.id.clone(), remember }
    }
}

/// The arguments of `deny`.
#[derive(Debug, Args)]
pub(crate) struct DenyArgs {
    /// The request, as `xyctl approvals` lists it
    #[arg(value_name = "ID")]
    id: String,
    /// Why, for who asked
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl DenyArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> DenyParams {
        DenyParams { id: self.id.clone(), reason: self.reason.clone() }
    }
}

/// The arguments of `forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The grant, as `xyctl grants` lists it
    #[arg(value_name = "ID")]
    id: String,
}

impl ForgetArgs {
    /// Returns the arguments as the protocol names them.
    pub(crate) fn params(&self) -> ForgetParams {
        ForgetParams { id: self.id.clone() }
    }
}
