//! A small MCP server over streamable HTTP, made to be supervised: it adds, tells its process id, and crashes on request.
//!
//! `mcp-example [--port N] [--host ADDRESS]`, by default on `127.0.0.1:8421`, endpoint `/mcp`. SIGTERM and SIGINT end it
//! after the requests that are running.

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long running requests may take after the signal that ends the server.
const DRAIN: Duration = Duration::from_secs(3);

/// The MCP service behind `/mcp`.
type Endpoint = StreamableHttpService<Tools, LocalSessionManager>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let address = match address(std::env::args().skip(1)) {
        Ok(address) => address,
        Err(problem) => {
            eprintln!("error: {problem}\nusage: mcp-example [--port N] [--host ADDRESS]");
            return ExitCode::from(2);
        }
    };
    match serve(address).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: cannot serve on {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line.
fn address(mut args: impl Iterator<Item = String>) -> Result<SocketAddr, String> {
    let (mut host, mut port) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 8421);
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        match option.as_str() {
            "--host" => host = value.parse().map_err(|_| format!("`{value}` is not an IP address"))?,
            "--port" => port = value.parse().map_err(|_| format!("`{value}` is not a port"))?,
            _ => return Err(format!("unknown option `{option}`")),
        }
    }
    Ok(SocketAddr::new(host, port))
}

/// Serves until a signal or the `crash` tool ends it, and returns the exit code.
async fn serve(address: SocketAddr) -> Result<ExitCode, Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (crash, mut crashed) = mpsc::channel(1);

    let config = StreamableHttpServerConfig::default();
    // Only these names are served, so that no web page can reach the server through a name of its own.
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), address.ip().to_string()];
    let config = config.with_allowed_hosts(hosts);
    let ending = config.cancellation_token.clone();
    let endpoint: Endpoint =
        StreamableHttpService::new(move || Ok(Tools { crash: crash.clone() }), Arc::default(), config);

    let listener = TcpListener::bind(address).await?;
    println!("mcp-example {} listening on http://{}/mcp", std::process::id(), listener.local_addr()?);

    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let ending = ending.clone();
                connections.spawn(converse(stream, endpoint.clone(), async move { ending.cancelled().await }));
            }
            // Connections that are over are dropped as they end.
            Some(_) = connections.join_next() => {}
            Some(code) = crashed.recv() => return Ok(ExitCode::from(code)),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    ending.cancel();
    // What still runs after this time is cut off.
    let _ = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    println!("mcp-example {} ended", std::process::id());
    Ok(ExitCode::SUCCESS)
}

/// Serves one connection; `ending` lets the request that is running finish.
async fn converse(stream: TcpStream, endpoint: Endpoint, ending: impl Future<Output = ()>) {
    let service = service_fn(|request: Request<Incoming>| {
        let endpoint = endpoint.clone();
        async move {
            if request.uri().path() == "/mcp" {
                return Ok::<_, Infallible>(endpoint.handle(request).await);
            }
            let mut nothing = Response::new(Empty::new().boxed());
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            Ok(nothing)
        }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    // A client that breaks off is the client's business.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ending => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// What the server can do.
#[derive(Debug, Clone)]
struct Tools {
    crash: mpsc::Sender<u8>,
}

/// The arguments of `add`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: f64,
    b: f64,
}

/// The arguments of `crash`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Crash {
    /// The exit code.
    code: u8,
}

#[tool_router]
impl Tools {
    #[tool(description = "Adds two numbers")]
    fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> String {
        (a + b).to_string()
    }

    #[tool(description = "Tells the process id of this server, which changes with each restart")]
    fn pid(&self) -> String {
        std::process::id().to_string()
    }

    #[tool(description = "Ends the process at once with the given exit code")]
    async fn crash(&self, Parameters(Crash { code }): Parameters<Crash>) -> String {
        // A full channel means that a crash is already under way.
        let _ = self.crash.try_send(code);
        std::future::pending().await
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_instructions("Adds numbers, tells its process id, and crashes on request.")
    }
}
