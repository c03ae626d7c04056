//! Who may ask for what: callers, what they ask for, and the policy that allows, denies or asks an operator.
//!
//! ```text
//! request ──► Gate ──► PermissionPolicy::decide ──► Allow ──────────────────────────────► the operation ──► audit log
//!                                              ├──► Deny ───────────────────────────────► an error ───────► audit log
//!                                              └──► Ask ──► a grant? ──► event, `approvals` ──► an answer, or time is up
//! ```
//!
//! Every surface (socket, HTTP, MCP) passes the one [`gate`]. Names of clients are what clients say of themselves: rules keep
//! those within bounds that go through a front that names them, as `xyctl mcp` does. They do not stop a program of the same
//! user that lies.

pub mod approvals;
pub mod gate;
pub mod grants;
pub mod rules;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::Method as _;
use crate::protocol::method::{Approve, Deny, Forget};
use crate::protocol::scope::{Scope, scope_of};

/// What the names of assistants begin with.
const ASSISTANT: &str = "mcp:";

/// The longest name of a client.
const LONGEST_CLIENT: usize = 64;

/// The way by which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// The local socket.
    Socket,
    /// HTTP.
    Http,
    /// A tool of an assistant, by either of them.
    Mcp,
}

impl Surface {
    /// Returns the stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Http => "http",
            Self::Mcp => "mcp",
        }
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// By which way.
    pub surface: Surface,
    /// What it calls itself; see [`Caller::named`].
    client: String,
    /// What its requests have in common that no other client's have: a connection, a token, a session of MCP.
    pub session: String,
    /// How much it may do, whatever rules allow.
    scope: Scope,
    /// Whether its name is that of its token, and not what it says.
    is_known: bool,
}

impl Caller {
    /// Creates a caller. The name is cut to 64 characters, and what is neither a letter, a digit nor one of `._:+ -` becomes a
    /// dash, so that patterns mean what they seem to.
    pub fn new(surface: Surface, client: &str, session: impl Into<String>) -> Self {
        Self { surface, client: plain(client), session: session.into(), scope: Scope::Admin, is_known: false }
    }

    /// Returns the same caller with a name that it cannot change any more, and this scope.
    #[must_use]
    pub fn bound(self, scope: Scope) -> Self {
        Self { scope, is_known: true, ..self }
    }

    /// Returns how much it may do, whatever rules allow.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the same caller under another name. Whose name is known keeps it; as an assistant it is `mcp:` and that name.
    #[must_use]
    pub fn named(self, surface: Surface, client: &str) -> Self {
        let client = match (self.is_known, client.strip_prefix(ASSISTANT)) {
            (false, _) => plain(client),
            (true, Some(_)) if !self.client.starts_with(ASSISTANT) => format!("{ASSISTANT}{}", self.client),
            (true, _) => self.client,
        };
        Self { surface, client, ..self }
    }

    /// Returns the same caller in another session.
    #[must_use]
    pub fn in_session(self, session: impl Into<String>) -> Self {
        Self { session: session.into(), ..self }
    }

    /// Returns what it calls itself.
    pub fn client(&self) -> &str {
        &self.client
    }
}

fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "._:+ -".contains(c);
    let name: String =
        name.trim().chars().take(LONGEST_CLIENT).map(|c| if is_plain(c) { c } else { '-' }).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// What is asked for, of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionRequest<'a> {
    /// What the client calls itself.
    pub client: &'a str,
    /// Which of its sessions.
    pub session: &'a str,
    /// By which way.
    pub surface: Surface,
    /// The method, for instance `stop`.
    pub action: &'a str,
    /// The tool that was called, if one of MCP was.
    pub tool: Option<&'a str>,
    /// The server's path; `None` if the request is about none.
    pub server: Option<&'a str>,
    /// Whether the action changes something.
    pub changes: bool,
}

/// What a policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Decision {
    /// It is carried out.
    Allow,
    /// An operator is asked first.
    Ask,
    /// It is refused.
    Deny,
}

/// Decides about requests; a program that embeds the control plane may have one of its own.
///
/// It is asked for each server that a request is about, and the strictest answer counts. It must not block. A request that
/// answers others ([`is_answering`]) is never asked about: [`Decision::Ask`] is [`Decision::Deny`] there.
pub trait PermissionPolicy: fmt::Debug + Send + Sync + 'static {
    /// Decides about one request.
    fn decide(&self, request: &PermissionRequest<'_>) -> Decision;

    /// Returns whether it allows everything, so that nothing needs to be looked up.
    fn is_open(&self) -> bool {
        false
    }
}

impl PermissionPolicy for Arc<dyn PermissionPolicy> {
    fn decide(&self, request: &PermissionRequest<'_>) -> Decision {
        (**self).decide(request)
    }

    fn is_open(&self) -> bool {
        (**self).is_open()
    }
}

/// Allows everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllowAll;

impl PermissionPolicy for AllowAll {
    fn decide(&self, _: &PermissionRequest<'_>) -> Decision {
        Decision::Allow
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// Returns whether a method only tells something. What is not known is taken to change something.
pub fn is_reading(method: &str) -> bool {
    scope_of(method) == Some(Scope::Read)
}

/// Returns whether a method answers requests of others, or forgets such an answer.
pub fn is_answering(method: &str) -> bool {
    [Approve::NAME, Deny::NAME, Forget::NAME].contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::METHODS;

    #[test]
    fn a_name_cannot_step_around_a_pattern() {
        for (given, plain) in [
            ("mcp:Claude Code", "mcp:Claude Code"),
            ("mcp:a/b", "mcp:a-b"),
            ("\x1b[2Jx\n", "-[2Jx".replace('[', "-").as_str()),
            ("", "unknown"),
            ("@tag", "-tag"),
        ] {
            assert_eq!(Caller::new(Surface::Socket, given, "s").client(), plain, "{given:?}");
        }
        assert_eq!(Caller::new(Surface::Http, &"x".repeat(100), "s").client().len(), LONGEST_CLIENT);
    }

    #[test]
    fn whose_name_is_known_cannot_take_another_one() {
        let caller = Caller::new(Surface::Http, "ci", "s").bound(Scope::Read);
        let assistant = caller.clone().named(Surface::Mcp, "mcp:Claude");
        assert_eq!((assistant.client(), assistant.scope()), ("mcp:ci", Scope::Read));
        let again = assistant.named(Surface::Mcp, "mcp:other").in_session("t");
        assert_eq!((again.client(), again.scope()), ("mcp:ci", Scope::Read));
        assert_eq!(caller.named(Surface::Http, "root").client(), "ci");
        let owner = Caller::new(Surface::Http, "curl", "s");
        assert_eq!(
            (owner.clone().named(Surface::Mcp, "mcp:x").client(), owner.scope()),
            ("mcp:x", Scope::Admin)
        );
    }

    #[test]
    fn every_method_that_is_not_known_to_read_is_taken_to_change() {
        let changing: Vec<_> = METHODS.iter().filter(|method| !is_reading(method)).copied().collect();
        let expected = [
            "start",
            "stop",
            "restart",
            "pause",
            "resume",
            "enable",
            "disable",
            "signal",
            "reload",
            "add",
            "remove",
            "call",
            "rotate_token",
            "token_add",
            "token_remove",
            "shutdown",
            "upgrade",
            "approve",
            "deny",
            "forget",
        ];
        assert_eq!(changing, expected);
        assert!(!is_reading("run_everything"));
    }
}
