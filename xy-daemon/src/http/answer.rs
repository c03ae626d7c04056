//! What is answered beside the results of methods; the document that describes the endpoints is made from these types too.

use std::collections::{BTreeMap, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::route::{Access, ROUTES};
use crate::protocol::method::{CapabilitiesResult, Gap, LogLine};

/// Says that the server answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Health {
    /// Always `ok`.
    pub(super) status: &'static str,
}

/// The daemon in short.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DaemonStatus {
    /// The daemon's version.
    pub(super) version: String,
    /// The version of the control protocol.
    pub(super) protocol: u32,
    /// The daemon's process id.
    pub(super) pid: u32,
    /// When it started, in milliseconds since the Unix epoch.
    pub(super) started_at_unix_ms: u64,
    /// How many servers and groups there are.
    pub(super) servers: usize,
    /// How many of them are ready.
    pub(super) ready: usize,
    /// How many of them are in each state.
    pub(super) states: BTreeMap<&'static str, usize>,
}

/// Output that ends.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Tail {
    /// The lines, oldest first.
    pub(super) lines: VecDeque<LogLine>,
    /// The numbers of lines between them that are not held any more.
    pub(super) missed: Vec<Gap>,
    /// Whether there were more lines before these.
    pub(super) truncated: bool,
}

/// What can be asked.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Capabilities {
    /// The methods of `POST /v1/rpc`, and what the program has registered.
    #[serde(flatten)]
    pub(super) methods: CapabilitiesResult,
    /// The endpoints.
    pub(super) endpoints: Vec<EndpointInShort>,
}

/// One endpoint.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EndpointInShort {
    /// The HTTP method.
    pub(super) method: &'static str,
    /// The path, in which a word in braces stands for any one segment.
    pub(super) path: &'static str,
    /// Whether it needs the token.
    pub(super) token: bool,
    /// The parameters of its query.
    pub(super) query: Vec<&'static str>,
    /// What it does.
    pub(super) summary: &'static str,
}

/// A refusal, or a failure.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Refusal<'a> {
    /// What went wrong.
    pub(super) error: RefusalError<'a>,
    /// What an operation came to nevertheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(super) result: Option<&'a RawValue>,
}

/// What went wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RefusalError<'a> {
    /// The stable name, for programs.
    pub(super) kind: &'a str,
    /// The text for people.
    pub(super) message: &'a str,
    /// The parameter at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter: Option<&'a str>,
}

/// Says what every endpoint is.
pub(super) fn endpoints() -> Vec<EndpointInShort> {
    let in_short = |route: &super::route::Route| EndpointInShort {
        method: route.verb.as_str(),
        path: route.path,
        token: route.access == Access::Token,
        query: route.query.iter().map(|parameter| parameter.name).collect(),
        summary: route.summary,
    };
    ROUTES.iter().map(in_short).collect()
}
