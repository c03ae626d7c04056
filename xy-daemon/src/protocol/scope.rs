//! What who asks has to be allowed for each method: the one table that requests are judged by, and pages are made from.

use serde::{Deserialize, Serialize};

use super::Method as _;
use super::method::{
    Add, Approvals, Approve, Call, Capabilities, DaemonDiagnostics, Deny, Disable, Enable, Events,
    EventsCancel, Forget, Grants, Identify, List, Logs, LogsCancel, MethodKind, OperationStatus, Operations,
    Pause, Prompt, Prompts, Reload, Remove, Resource, Resources, Restart, Resume, RotateToken, Show,
    Shutdown, Signal, Start, Status, Stop, TokenAdd, TokenRemove, Tokens, Tools, Upgrade, Usage, Version,
    Why,
};

/// How much a client may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To be told things.
    Read,
    /// To act on servers that there are.
    Operate,
    /// To change the configuration and the daemon itself, to answer for its owner, and to give others a token.
    Admin,
}

impl Scope {
    /// Returns the stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every method with the scope that it needs.
pub const SCOPES: &[(&str, Scope)] = &[
    (List::NAME, Scope::Read),
    (Status::NAME, Scope::Read),
    (Usage::NAME, Scope::Read),
    (Why::NAME, Scope::Read),
    (Show::NAME, Scope::Read),
    (Tools::NAME, Scope::Read),
    (Prompts::NAME, Scope::Read),
    (Prompt::NAME, Scope::Read),
    (Resources::NAME, Scope::Read),
    (Resource::NAME, Scope::Read),
    (Logs::NAME, Scope::Read),
    (LogsCancel::NAME, Scope::Read),
    (Events::NAME, Scope::Read),
    (EventsCancel::NAME, Scope::Read),
    (Capabilities::NAME, Scope::Read),
    (Version::NAME, Scope::Read),
    (DaemonDiagnostics::NAME, Scope::Read),
    (Operations::NAME, Scope::Read),
    (OperationStatus::NAME, Scope::Read),
    (Identify::NAME, Scope::Read),
    (Approvals::NAME, Scope::Read),
    (Grants::NAME, Scope::Read),
    (Tokens::NAME, Scope::Read),
    (Start::NAME, Scope::Operate),
    (Stop::NAME, Scope::Operate),
    (Restart::NAME, Scope::Operate),
    (Pause::NAME, Scope::Operate),
    (Resume::NAME, Scope::Operate),
    (Enable::NAME, Scope::Operate),
    (Disable::NAME, Scope::Operate),
    (Signal::NAME, Scope::Operate),
    (Call::NAME, Scope::Operate),
    (Reload::NAME, Scope::Admin),
    (Add::NAME, Scope::Admin),
    (Remove::NAME, Scope::Admin),
    (Shutdown::NAME, Scope::Admin),
    (Upgrade::NAME, Scope::Admin),
    (Approve::NAME, Scope::Admin),
    (Deny::NAME, Scope::Admin),
    (Forget::NAME, Scope::Admin),
    (RotateToken::NAME, Scope::Admin),
    (TokenAdd::NAME, Scope::Admin),
    (TokenRemove::NAME, Scope::Admin),
];

/// Returns the scope that a method of every daemon needs.
pub fn scope_of(method: &str) -> Option<Scope> {
    SCOPES.iter().find(|(known, _)| *known == method).map(|(_, scope)| *scope)
}

/// Returns the scope that a request of a method of every daemon needs: that of the method, unless it only asks what that
/// would do.
pub fn scope_of_call(method: &str, is_dry_run: bool) -> Option<Scope> {
    if is_dry_run && method == Reload::NAME { Some(Scope::Read) } else { scope_of(method) }
}

/// Returns the scope that a method needs that a program has registered.
pub fn scope_of_registered(kind: MethodKind) -> Scope {
    match kind {
        MethodKind::Catalog | MethodKind::Query => Scope::Read,
        _ => Scope::Operate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::METHODS;

    #[test]
    fn every_method_has_one_scope_and_nothing_else_has_any() {
        let mut known: Vec<_> = SCOPES.iter().map(|(method, _)| *method).collect();
        known.sort_unstable();
        let mut methods = METHODS.to_vec();
        methods.sort_unstable();
        assert_eq!(known, methods);
        assert_eq!(scope_of("shop.quote"), None);
    }

    #[test]
    fn each_scope_includes_those_before_it() {
        assert!(Scope::Read < Scope::Operate && Scope::Operate < Scope::Admin);
    }
}
