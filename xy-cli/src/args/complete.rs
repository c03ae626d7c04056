//! What completes the name of a server: names and tags that the daemon knows now.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use xy_daemon::client::Client;
use xy_daemon::paths::{Directories, socket_override};
use xy_daemon::protocol::method::{List, ListParams, ServerSummary};

/// A shell that waits for its completions is worse than one without.
const PATIENCE: Duration = Duration::from_millis(500);

/// Returns the servers that begin like the word so far, and with `@` the tags. Nothing, without a daemon.
pub(super) fn servers(word: &OsStr) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy();
    let servers = ask().unwrap_or_default();
    if word.starts_with('@') {
        let mut tags: Vec<String> = servers.into_iter().flat_map(|server| server.tags).collect();
        tags.sort();
        tags.dedup();
        let tags = tags.into_iter().map(|tag| format!("@{tag}"));
        return tags.filter(|tag| tag.starts_with(&*word)).map(CompletionCandidate::new).collect();
    }
    let meant = servers.into_iter().filter(|server| server.name.starts_with(&*word));
    meant
        .map(|server| CompletionCandidate::new(&server.name).help(Some(server.state.as_str().into())))
        .collect()
}

fn ask() -> Option<Vec<ServerSummary>> {
    // The word of `--socket` is not known here; the environment is.
    let socket = socket_override(None, |name| std::env::var_os(name))
        .or_else(|| Directories::of_user().ok().map(|directories| directories.default_socket()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let asked = async { Client::connect(&socket).await?.call::<List>(ListParams {}).await };
        Some(tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?.servers)
    })
}
