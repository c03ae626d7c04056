//! The command lines of `xyctl tools`, `prompts`, `resources` and `call`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde_json::{Map, Value};

use super::complete;
use super::duration::parse as duration;

/// Which server, and where on its port.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    pub(crate) name: String,
    /// The path of its MCP endpoint, for a server whose file does not say it by `ready: Mcp(..)`
    #[arg(long, value_name = "PATH")]
    pub(crate) endpoint: Option<String>,
}

/// The arguments of `tools`.
#[derive(Debug, Args)]
pub(crate) struct ToolsArgs {
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// The arguments of `prompts`.
#[derive(Debug, Args)]
pub(crate) struct PromptsArgs {
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Fill in this prompt instead of listing them
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,
    /// An argument of the prompt; may be given several times
    #[arg(long = "arg", value_name = "KEY=TEXT", requires = "prompt", value_parser = pair)]
    arguments: Vec<(String, String)>,
}

impl PromptsArgs {
    /// Returns the arguments of the prompt, which are texts.
    pub(crate) fn arguments(&self) -> Map<String, Value> {
        self.arguments.iter().map(|(key, text)| (key.clone(), text.clone().into())).collect()
    }
}

/// The arguments of `resources`.
#[derive(Debug, Args)]
pub(crate) struct ResourcesArgs {
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print what this resource holds instead of listing them
    #[arg(value_name = "URI")]
    pub(crate) uri: Option<String>,
}

/// The arguments of `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The tool
    #[arg(value_name = "TOOL")]
    pub(crate) tool: String,
    /// An argument of the tool; a value that reads as JSON is that, any other is a text; may be given several times
    #[arg(long = "arg", value_name = "KEY=VALUE", value_parser = pair)]
    arguments: Vec<(String, String)>,
    /// All arguments of the tool as one JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "arguments", value_parser = object)]
    input: Option<Map<String, Value>>,
    /// Wait at most this long (`90`, `2m`, at most 10 minutes) [default: 30 s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

impl CallArgs {
    /// Returns the arguments of the tool.
    pub(crate) fn arguments(&self) -> Map<String, Value> {
        let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| text.clone().into());
        let pairs = self.arguments.iter().map(|(key, text)| (key.clone(), value(text)));
        self.input.clone().unwrap_or_else(|| pairs.collect())
    }

    /// Returns the longest wait as the protocol counts it.
    pub(crate) fn timeout_secs(&self) -> Option<u64> {
        self.timeout.map(|timeout| timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

pub(super) const TOOLS_HELP: &str = "\
Examples:
  xyctl tools search
  xyctl tools search --endpoint /mcp    of a server whose file only says its port
  xyctl tools search --json | jq '.tools[] | .name'";

pub(super) const PROMPTS_HELP: &str = "\
Examples:
  xyctl prompts search                  the list
  xyctl prompts search greet --arg who=Ada";

pub(super) const RESOURCES_HELP: &str = "\
What a resource holds is written as it is, also where that is no text; on a terminal, control characters are shown as \
    escapes.

Examples:
  xyctl resources files                 the list
  xyctl resources files file:///notes.txt";

pub(super) const CALL_HELP: &str = "\
The exit code is 1 if the tool says that it failed.

Examples:
  xyctl call adder add --arg a=1 --arg b=2
  xyctl call search find --input '{\"text\": \"a=b\", \"limit\": 5}' --timeout 2m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_reads_as_json_is_that_and_any_other_is_a_text() {
        let pairs = ["n=1", "t=a=b", "flag=true", "list=[1]", "quoted=\"1\"", "none="];
        let args = CallArgs {
            server: ServerArgs { name: String::new(), endpoint: None },
            tool: String::new(),
            arguments: pairs.iter().map(|text| pair(text).unwrap()).collect(),
            input: None,
            timeout: Some(Duration::from_millis(1500)),
        };
        let expected = serde_json::json!({
            "n": 1, "t": "a=b", "flag": true, "list": [1], "quoted": "1", "none": "",
        });
        assert_eq!(Value::Object(args.arguments()), expected);
        assert_eq!(args.timeout_secs(), Some(2));
        assert!(pair("=1").is_err() && pair("a").is_err() && object("[1]").is_err());
    }
}
