//! The configuration with which MCP clients find servers that run.

use serde_json::{Map, Value, json};
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{List, ListParams, ServerSummary, Show, ShowParams, State};

use super::{Left, tell_left};
use crate::args::{ExportMcpArgs, McpClient};
use crate::error::{CommandError, exit_code};
use crate::session::{Selection, Session, nearest};

/// The path of an MCP server that does not say another.
const DEFAULT_PATH: &str = "/mcp";

/// Runs the command.
pub(super) async fn run(args: &ExportMcpArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let servers = client.call::<List>(ListParams {}).await?.servers;
    let selection = Selection::of(&args.names);
    if let Some(name) = selection.missing(&servers).into_iter().next() {
        let nearest = nearest(&client, &name).await;
        return Err(CommandError::ServerNotFound { name, nearest });
    }
    let mut found = Vec::new();
    let mut left = Vec::new();
    for server in servers.iter().filter(|server| !server.group && selection.means(server)) {
        match url(&client, server, !selection.is_all()).await? {
            Ok(url) => found.push((server.name.clone(), url)),
            Err(what) => left.push(Left { server: server.name.clone(), what }),
        }
    }
    // With and without `--json`: the document itself is what programs read.
    session.output.line(&format!("{:#}", document(args.client, &found)))?;
    tell_left(&left, session);
    Ok(exit_code::SUCCESS)
}

/// Returns where a server answers, or why it is left out.
async fn url(
    client: &Client,
    server: &ServerSummary,
    is_named: bool,
) -> Result<Result<String, String>, CommandError> {
    if server.state != State::Running {
        return Ok(Err("it does not run".to_owned()));
    }
    let Some(port) = server.port else {
        return Ok(Err("it has no `port`, so that there is no URL".to_owned()));
    };
    let shown = client.call::<Show>(ShowParams { name: server.name.clone() }).await?;
    let setting = |key: &str| shown.settings.iter().find(|setting| setting.key == key).map(|one| &one.value);
    let path =
        [setting("ready"), setting("liveness")].into_iter().flatten().find_map(|probe| mcp_path(probe));
    Ok(match path {
        Some(path) => Ok(address(port, path)),
        None if is_named => Ok(address(port, DEFAULT_PATH)),
        None => Err("nothing says that it speaks MCP, as `ready: Mcp` does; name it to take it".to_owned()),
    })
}

/// Returns the path of a probe in words, if it is one of MCP.
fn mcp_path(probe: &str) -> Option<&str> {
    probe.strip_prefix("Mcp ")?.split(' ').next()
}

fn address(port: u16, path: &str) -> String {
    format!("http://localhost:{port}{path}")
}

/// Returns a client's configuration.
fn document(client: McpClient, servers: &[(String, String)]) -> Value {
    let entry = |url: &str| match client {
        // It starts programs only, and this one carries over.
        McpClient::ClaudeDesktop => json!({ "command": "npx", "args": ["-y", "mcp-remote", url] }),
        McpClient::ClaudeCode | McpClient::Vscode => json!({ "type": "http", "url": url }),
        McpClient::Cursor => json!({ "url": url }),
        McpClient::Windsurf => json!({ "serverUrl": url }),
        McpClient::GeminiCli => json!({ "httpUrl": url }),
    };
    // Clients make names of tools of it, in which there is no room for a slash.
    let entries: Map<String, Value> =
        servers.iter().map(|(name, url)| (name.replace('/', "-"), entry(url))).collect();
    let key = match client {
        McpClient::Vscode => "servers",
        _ => "mcpServers",
    };
    Value::Object(Map::from_iter([(key.to_owned(), Value::Object(entries))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_the_shape_that_it_documents() {
        let servers = [("group/files".to_owned(), "http://localhost:8421/mcp".to_owned())];
        let url = "http://localhost:8421/mcp";
        for (client, key, entry) in [
            (
                McpClient::ClaudeDesktop,
                "mcpServers",
                json!({ "command": "npx", "args": ["-y", "mcp-remote", url] }),
            ),
            (McpClient::ClaudeCode, "mcpServers", json!({ "type": "http", "url": url })),
            (McpClient::Cursor, "mcpServers", json!({ "url": url })),
            (McpClient::Vscode, "servers", json!({ "type": "http", "url": url })),
            (McpClient::Windsurf, "mcpServers", json!({ "serverUrl": url })),
            (McpClient::GeminiCli, "mcpServers", json!({ "httpUrl": url })),
        ] {
            let expected = json!({ key: { "group-files": entry } });
            assert_eq!(document(client, &servers), expected, "{client:?}");
        }
    }

    #[test]
    fn the_path_of_a_probe_is_found_in_its_words() {
        assert_eq!(mcp_path("Mcp /mcp"), Some("/mcp"));
        assert_eq!(mcp_path("Mcp /v2/mcp every 30s, at most 10s, 3 failures in a row"), Some("/v2/mcp"));
        assert_eq!(mcp_path("Http /mcp"), None);
        assert_eq!(mcp_path("Tcp"), None);
    }
}
