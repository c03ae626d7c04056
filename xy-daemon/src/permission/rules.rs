//! A policy made of rules, as in `xyd.ron`: the first one that matches decides, and what no rule matches is allowed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Decision, PermissionPolicy, PermissionRequest, Surface, is_answering};
use crate::protocol::method::METHODS;
use crate::protocol::pattern;

/// How long an operator has to answer, unless the configuration says otherwise.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// Every action that only tells something.
pub const READING: &str = "@read";

/// Every action that changes something, except answering requests.
pub const CHANGING: &str = "@change";

/// What the configuration says of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionSettings {
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// How long an operator has to answer.
    pub ask_timeout: Duration,
}

impl Default for PermissionSettings {
    /// Returns no rules: everything is allowed.
    fn default() -> Self {
        Self { rules: Vec::new(), ask_timeout: ASK_TIMEOUT }
    }
}

impl PermissionSettings {
    /// Returns whether the configuration said nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One rule: a decision, and the requests that it is about. What is not given matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What is decided.
    pub decision: Decision,
    /// A pattern for the client's name.
    pub client: Option<String>,
    /// A pattern for the path of the server, or of a group that it lies in. Requests about no server do not match.
    pub server: Option<String>,
    /// A pattern for the tool of MCP. Requests that are none do not match.
    pub tool: Option<String>,
    /// A pattern for the method, or [`READING`] or [`CHANGING`]. A rule without one is about everything but answering
    /// requests.
    pub action: Option<String>,
}

/// Returns whether a pattern for actions can match one of a daemon.
pub fn is_action(pattern: &str) -> bool {
    [READING, CHANGING].contains(&pattern)
        || METHODS.iter().any(|method| pattern::matches(pattern, method, &[]))
}

impl Rule {
    /// Creates a rule about everything.
    pub fn new(decision: Decision) -> Self {
        Self { decision, client: None, server: None, tool: None, action: None }
    }

    fn matches(&self, request: &PermissionRequest<'_>) -> bool {
        fits(self.client.as_deref(), Some(request.client))
            && fits(self.tool.as_deref(), request.tool)
            && self.fits_server(request.server)
            && self.fits_action(request)
    }

    fn fits_server(&self, server: Option<&str>) -> bool {
        let (Some(pattern), Some(path)) = (&self.server, server) else { return self.server.is_none() };
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        above.chain([path]).any(|path| pattern::matches(pattern, path, &[]))
    }

    fn fits_action(&self, request: &PermissionRequest<'_>) -> bool {
        match self.action.as_deref() {
            None => !is_answering(request.action),
            Some(READING) => !request.changes,
            Some(CHANGING) => request.changes && !is_answering(request.action),
            Some(pattern) => pattern::matches(pattern, request.action, &[]),
        }
    }
}

fn fits(pattern: Option<&str>, text: Option<&str>) -> bool {
    match (pattern, text) {
        (None, _) => true,
        (Some(pattern), Some(text)) => pattern::matches(pattern, text, &[]),
        (Some(_), None) => false,
    }
}

impl PermissionPolicy for Vec<Rule> {
    fn decide(&self, request: &PermissionRequest<'_>) -> Decision {
        match self.iter().find(|rule| rule.matches(request)) {
            Some(rule) => rule.decision,
            // An assistant does not answer for its owner unless a rule says so.
            None if is_answering(request.action) && request.surface == Surface::Mcp => Decision::Deny,
            None => Decision::Allow,
        }
    }

    fn is_open(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(client: &'a str, action: &'a str, server: Option<&'a str>) -> PermissionRequest<'a> {
        let is_tool = client.starts_with("mcp:");
        PermissionRequest {
            client,
            session: "s",
            surface: if is_tool { Surface::Mcp } else { Surface::Socket },
            action,
            tool: is_tool.then_some(action),
            server,
            changes: !super::super::is_reading(action),
        }
    }

    fn rule(decision: Decision, fields: [Option<&str>; 4]) -> Rule {
        let [client, server, tool, action] = fields.map(|field| field.map(ToOwned::to_owned));
        Rule { decision, client, server, tool, action }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_the_rest_is_allowed() {
        use Decision::{Allow, Ask, Deny};
        let rules = vec![
            rule(Allow, [Some("mcp:trusted"), None, None, Some("restart")]),
            rule(Deny, [Some("mcp:*"), Some("db*"), None, Some("@change")]),
            rule(Deny, [None, None, Some("shutdown"), None]),
            rule(Ask, [Some("mcp:*"), None, None, Some("@change")]),
            rule(Deny, [Some("guest"), None, None, None]),
        ];
        for (client, action, server, expected) in [
            ("mcp:trusted", "restart", Some("db"), Allow),
            ("mcp:other", "restart", Some("db"), Deny),
            ("mcp:other", "restart", Some("db-2"), Deny),
            ("mcp:other", "restart", Some("db/shard"), Deny),
            ("mcp:other", "restart", Some("web/db"), Ask),
            ("mcp:other", "logs", Some("db"), Allow),
            ("mcp:other", "shutdown", None, Deny),
            ("mcp:other", "reload", None, Ask),
            ("xyctl", "shutdown", None, Allow),
            ("guest", "list", None, Deny),
            // A rule about everything is not about answers, or nobody could give any.
            ("guest", "approve", None, Allow),
            ("mcp:other", "approve", None, Deny),
            ("mcp:other", "forget", None, Deny),
        ] {
            assert_eq!(
                rules.decide(&request(client, action, server)),
                expected,
                "{client} {action} {server:?}"
            );
        }
    }

    #[test]
    fn no_rules_allow_everything() {
        assert!(Vec::<Rule>::new().is_open());
        assert!(!vec![Rule::new(Decision::Allow)].is_open());
        assert_eq!(Vec::<Rule>::new().decide(&request("x", "stop", Some("a"))), Decision::Allow);
    }
}
