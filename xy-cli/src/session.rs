//! What a command works with: the daemon's socket, connections to it, and the output.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::paths::{Directories, socket_override};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{List, ListParams, ServerSummary};
use xy_daemon::protocol::pattern;

use crate::command::daemon;
use crate::error::CommandError;
use crate::output::Output;

/// One command's surroundings.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// The socket of `--socket`, if given.
    socket: Option<&'a Path>,
    /// Whether a daemon that does not run is started.
    starts: bool,
    /// Where results and messages go.
    pub(crate) output: &'a mut Output,
}

/// A result, and the very text it came in.
#[derive(Debug)]
pub(crate) struct Answer<R> {
    /// For programs: nothing that a newer daemon says is lost.
    pub(crate) text: Box<RawValue>,
    /// For people.
    pub(crate) result: R,
}

/// The same method with its result left as it is.
#[derive(Debug)]
struct Verbatim<M>(PhantomData<M>);

impl<M: Method> Method for Verbatim<M> {
    const NAME: &'static str = M::NAME;
    type Params = M::Params;
    type Result = Box<RawValue>;
}

impl<'a> Session<'a> {
    /// Creates a session; nothing is connected yet.
    pub(crate) fn new(socket: Option<&'a Path>, starts: bool, output: &'a mut Output) -> Self {
        Self { socket, starts, output }
    }

    /// Returns the daemon's socket: `--socket`, else `XY_SOCKET`, else the user's default.
    pub(crate) fn socket(&self) -> Result<PathBuf, CommandError> {
        match self.explicit_socket() {
            Some(socket) => Ok(socket),
            None => Ok(Directories::of_user()?.default_socket()),
        }
    }

    /// Returns the socket that was asked for, by option or environment.
    pub(crate) fn explicit_socket(&self) -> Option<PathBuf> {
        socket_override(self.socket, |name| std::env::var_os(name))
    }

    /// Connects to the daemon; starts it first if it does not run and that was asked for.
    pub(crate) async fn connect(&mut self) -> Result<Client, CommandError> {
        let socket = self.socket()?;
        match Client::connect(&socket).await {
            Err(ClientError::Unreachable { source, .. }) if self.starts && is_absent(&source) => {
                daemon::start::on_demand(self).await?;
                Ok(Client::connect(&socket).await?)
            }
            connected => Ok(connected?),
        }
    }
}

/// Returns whether nobody serves the socket, as opposed to somebody who cannot be asked.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Servers by names, patterns and tags, as far as the daemon lists them.
#[derive(Debug, Clone)]
pub(crate) struct Selection(Vec<String>);

impl Selection {
    /// Creates a selection; no names mean every server.
    pub(crate) fn of(names: &[String]) -> Self {
        Self(names.to_vec())
    }

    /// Returns whether every server is meant.
    pub(crate) fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a server is meant.
    pub(crate) fn means(&self, server: &ServerSummary) -> bool {
        self.is_all() || self.0.iter().any(|name| means(name, server))
    }

    /// Returns the names and patterns that mean none of these servers.
    pub(crate) fn missing(&self, servers: &[ServerSummary]) -> Vec<String> {
        let is_missing = |name: &&String| !servers.iter().any(|server| means(name, server));
        self.0.iter().filter(is_missing).cloned().collect()
    }
}

/// Returns whether a name or pattern means a server; a file's name means each of its instances.
fn means(name: &str, server: &ServerSummary) -> bool {
    let is_instance = || {
        let number = server.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_child = || server.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    pattern::matches(name, &server.name, &server.tags) || is_instance() || is_child()
}

/// Calls a method and keeps the text of its result.
pub(crate) async fn call<M: Method>(
    client: &Client,
    params: M::Params,
) -> Result<Answer<M::Result>, CommandError> {
    let text = match client.call::<Verbatim<M>>(params).await {
        Ok(text) => text,
        Err(error) => return Err(sooner(client, error).await.into()),
    };
    let result = serde_json::from_str(text.get())
        .map_err(|source| CommandError::Result { method: M::NAME, source })?;
    Ok(Answer { text, result })
}

/// Finds out whether what was not understood is so because the daemon speaks another protocol.
async fn sooner(client: &Client, error: ClientError) -> ClientError {
    let ClientError::Rpc(refused) = &error else { return error };
    if !matches!(refused.kind(), ErrorKind::MethodNotFound | ErrorKind::InvalidParams) {
        return error;
    }
    match client.agree().await {
        Err(ClientError::Rpc(other)) if other.kind() == ErrorKind::UnsupportedProtocol => other.into(),
        _ => error,
    }
}

/// Turns the refusal of a name into one that says which name was probably meant.
pub(crate) async fn explain(client: &Client, name: &str, error: CommandError) -> CommandError {
    match &error {
        CommandError::Client(ClientError::Rpc(refused)) if refused.kind() == ErrorKind::ServerNotFound => {
            let nearest = nearest(client, name).await;
            CommandError::ServerNotFound { name: name.to_owned(), nearest }
        }
        _ => error,
    }
}

/// Asks the daemon for the name that is nearest to a misspelt one.
pub(crate) async fn nearest(client: &Client, name: &str) -> Option<String> {
    // A hint is not worth a second error.
    let list = client.call::<List>(ListParams {}).await.ok()?;
    nearest_of(name, list.servers.into_iter().map(|server| server.name))
}

/// Returns the candidate that is nearest to a misspelt name, if one is near.
pub(crate) fn nearest_of(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    // A third of the letters may be wrong, and one in a short name.
    let allowed = (name.chars().count() / 3).max(1);
    let lower = name.to_lowercase();
    // Its instances are its name and a number.
    let first_instance = format!("{name}-1");
    let distance = |candidate: &str| match candidate {
        candidate if candidate == first_instance => 0,
        candidate => strsim::osa_distance(&lower, candidate),
    };
    candidates
        .map(|candidate| (distance(&candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_within_reason() {
        let names = || ["files", "search", "db", "web", "mcp-1", "mcp-2"].into_iter().map(ToOwned::to_owned);
        for (given, meant) in [
            ("serach", Some("search")),
            ("file", Some("files")),
            ("Search", Some("search")),
            ("dv", Some("db")),
            ("mcp", Some("mcp-1")),
            ("mail", None),
            ("", None),
        ] {
            assert_eq!(nearest_of(given, names()).as_deref(), meant, "{given:?}");
        }
    }
}
