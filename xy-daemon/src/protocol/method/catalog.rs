//! What the MCP server behind a name is asked: its lists, one of what is in them, and a call.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name;

/// The parameters of [`Tools`](super::Tools), [`Prompts`](super::Prompts) and [`Resources`](super::Resources).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CatalogParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
    /// The path of its MCP endpoint on its port, for one whose file does not say it by `ready: Mcp(..)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// The result of [`Tools`](super::Tools).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ToolsResult {
    /// The tools, as the server describes them.
    pub tools: Vec<Map<String, Value>>,
}

/// The result of [`Prompts`](super::Prompts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PromptsResult {
    /// The prompts, as the server describes them.
    pub prompts: Vec<Map<String, Value>>,
}

/// The result of [`Resources`](super::Resources).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResourcesResult {
    /// The resources, as the server describes them.
    pub resources: Vec<Map<String, Value>>,
    /// The templates of resources, as the server describes them, and in MCP's spelling.
    pub resource_templates: Vec<Map<String, Value>>,
}

/// The parameters of [`Prompt`](super::Prompt).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PromptParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
    /// The prompt's name.
    pub prompt: String,
    /// The arguments, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// The path of its MCP endpoint on its port, for one whose file does not say it by `ready: Mcp(..)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// The parameters of [`Resource`](super::Resource).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ResourceParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
    /// The resource's address, as in the list.
    pub uri: String,
    /// The path of its MCP endpoint on its port, for one whose file does not say it by `ready: Mcp(..)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// The parameters of [`Call`](super::Call).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CallParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
    /// The tool's name.
    pub tool: String,
    /// The arguments, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// The longest wait in seconds, at most 600; 30 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u64>,
    /// The path of its MCP endpoint on its port, for one whose file does not say it by `ready: Mcp(..)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// The result of [`Prompt`](super::Prompt), [`Resource`](super::Resource) and [`Call`](super::Call).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AnswerResult {
    /// What the server answered, member by member. That of a tool that failed has `isError: true`.
    pub result: Map<String, Value>,
}
