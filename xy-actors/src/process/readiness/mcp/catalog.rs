//! What people and programs ask an MCP server: its lists, one of what is in them, and a call.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time;

use super::super::ProbeFailure;
use super::super::http::Target;
use super::{Answer, Era, Exchange, METHOD_NOT_FOUND, Memory, Reply};

/// The longest answer in bytes, all pages of a list together.
pub(in super::super) const ANSWER_LIMIT: usize = 768 * 1024;

/// The most pages of one list.
const PAGES: usize = 64;

/// How long the end of a session may take after the answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// What an MCP server is asked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum McpQuestion {
    /// Which tools it has: `tools`.
    Tools,
    /// Which prompts it has: `prompts`.
    Prompts,
    /// Which resources it has: `resources`, and `resourceTemplates`.
    Resources,
    /// A prompt with its arguments filled in.
    Prompt {
        /// Its name.
        name: String,
        /// The arguments, by name.
        arguments: Map<String, Value>,
    },
    /// What a resource holds.
    Resource {
        /// Its address, as in the list.
        uri: String,
    },
    /// What a tool comes to. A tool that fails has a result that says so (`isError`).
    Call {
        /// The tool's name.
        name: String,
        /// The arguments, by name.
        arguments: Map<String, Value>,
    },
}

/// Asks one question, with a handshake where the server's era has one.
pub(in super::super) async fn ask(
    target: &Target<'_>,
    memory: &mut Memory,
    timeout: Duration,
    question: &McpQuestion,
) -> Result<Map<String, Value>, ProbeFailure> {
    let mut exchange = Exchange::new(target, &mut memory.era, timeout);
    let outcome = match time::timeout(timeout, exchange.answer(question)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ProbeFailure::Timeout { request: exchange.request.to_owned(), after: timeout }),
    };
    if exchange.session.is_some() {
        // Nothing can be done about a server that does not let a session end.
        let _ = time::timeout(FAREWELL, exchange.end_session()).await;
    }
    outcome
}

impl Exchange<'_> {
    async fn answer(&mut self, question: &McpQuestion) -> Result<Map<String, Value>, ProbeFailure> {
        let era = match *self.era {
            Some(era) => era,
            None => self.discover().await?,
        };
        if era == Era::Older {
            self.open_older().await?;
        }
        *self.era = Some(era);
        match question {
            McpQuestion::Tools => {
                let tools = self.list("tools/list", None, "tools").await?;
                Ok(members([("tools", tools.into())]))
            }
            McpQuestion::Prompts => {
                let prompts = self.list("prompts/list", Some("prompts"), "prompts").await?;
                Ok(members([("prompts", prompts.into())]))
            }
            McpQuestion::Resources => {
                let offered = Some("resources");
                let resources = self.list("resources/list", offered, "resources").await?;
                let templates = self.list("resources/templates/list", offered, "resourceTemplates").await?;
                Ok(members([("resources", resources.into()), ("resourceTemplates", templates.into())]))
            }
            McpQuestion::Prompt { name, arguments } => {
                let params =
                    members([("name", name.clone().into()), ("arguments", arguments.clone().into())]);
                self.one("prompts/get", params, name).await
            }
            McpQuestion::Resource { uri } => {
                self.one("resources/read", members([("uri", uri.clone().into())]), uri).await
            }
            McpQuestion::Call { name, arguments } => {
                let params =
                    members([("name", name.clone().into()), ("arguments", arguments.clone().into())]);
                self.one("tools/call", params, name).await
            }
        }
    }

    /// Collects the pages of a list; a server that does not have it, or does not announce it, has an empty one.
    async fn list(
        &mut self,
        method: &'static str,
        capability: Option<&str>,
        key: &str,
    ) -> Result<Vec<Value>, ProbeFailure> {
        let mut items = Vec::new();
        if let (Some(capability), Some(announced)) = (capability, &self.capabilities)
            && !announced.contains_key(capability)
        {
            return Ok(items);
        }
        let (mut cursor, mut size) = (None::<String>, 0);
        for _ in 0..PAGES {
            let params = members(cursor.iter().map(|cursor| ("cursor", cursor.clone().into())));
            let reply = self.ask_in_era(method, params, None).await?;
            if let Some(Answer::Error { code: METHOD_NOT_FOUND, .. }) = reply.answer
                && items.is_empty()
            {
                return Ok(items);
            }
            let mut page = self.whole(reply)?;
            size += Value::Object(page.clone()).to_string().len();
            if size > ANSWER_LIMIT {
                return Err(self.too_long());
            }
            match page.remove(key) {
                Some(Value::Array(found)) if found.iter().all(Value::is_object) => items.extend(found),
                _ => {
                    let request = method.to_owned();
                    return Err(ProbeFailure::Protocol { request, problem: "a result without the list" });
                }
            }
            match page.remove("nextCursor") {
                Some(Value::String(next)) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(items),
            }
        }
        Err(self.too_long())
    }

    async fn one(
        &mut self,
        method: &'static str,
        params: Map<String, Value>,
        name: &str,
    ) -> Result<Map<String, Value>, ProbeFailure> {
        let reply = self.ask_in_era(method, params, Some(name)).await?;
        self.whole(reply)
    }

    async fn ask_in_era(
        &mut self,
        method: &'static str,
        params: Map<String, Value>,
        name: Option<&str>,
    ) -> Result<Reply, ProbeFailure> {
        match self.era {
            Some(Era::Modern) => self.ask_modern(method, params, name).await,
            _ => self.ask_older(method, Some(params.into())).await,
        }
    }

    /// Returns a result that was read to its end.
    fn whole(&self, reply: Reply) -> Result<Map<String, Value>, ProbeFailure> {
        match self.expect_result(reply)? {
            Some(Value::Object(result)) => Ok(result),
            _ => Err(self.too_long()),
        }
    }

    fn too_long(&self) -> ProbeFailure {
        ProbeFailure::TooLong { request: self.request.to_owned(), limit: ANSWER_LIMIT }
    }
}

fn members<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
