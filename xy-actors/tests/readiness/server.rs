//! A scripted HTTP server that records what it is asked.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The HTTP method and path, as in `GET /`.
    pub(crate) line: String,
    /// The headers, with lower-case names.
    pub(crate) headers: HashMap<String, String>,
    /// The JSON body, or null.
    pub(crate) body: Value,
}

impl Request {
    /// Returns the JSON-RPC method, or the HTTP method of a request without one.
    pub(crate) fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or_else(|| self.line.split(' ').next().unwrap_or_default())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What a server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes and keeps the connection until the client closes it.
    Hold(Vec<u8>),
    /// Sends the first bytes once and the second ones without end.
    Flood(Vec<u8>, Vec<u8>),
}

/// Returns a complete answer with a content length.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut text = format!("HTTP/1.1 {status} Text\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    Reply::Close(format!("{text}\r\n{body}").into_bytes())
}

/// Returns a JSON answer.
pub(crate) fn json(status: u16, body: &Value) -> Reply {
    answer(status, &[("Content-Type", "application/json")], &body.to_string())
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
        Self::serve(listener, script)
    }

    pub(crate) fn serve(
        listener: TcpListener,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().expect("a bound socket").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let script = Arc::new(script);
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                // A client that goes away in the middle is part of many scripts.
                connections.spawn(async move { drop(converse(stream, &*script, &seen).await) });
            }
        });
        Self { port, requests, _tasks: tasks }
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no poisoned lock").clone()
    }

    /// Returns the JSON-RPC methods, or HTTP methods, asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.rpc().to_owned()).collect()
    }
}

async fn converse(
    mut stream: TcpStream,
    script: &(impl Fn(&Request) -> Reply + Sync),
    seen: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let Some(request) = receive(&mut stream).await? else { return Ok(()) };
    let reply = script(&request);
    seen.lock().expect("no poisoned lock").push(request);
    match reply {
        Reply::Close(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Reply::Hold(bytes) => {
            stream.write_all(&bytes).await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.map(drop)
        }
        Reply::Flood(start, again) => {
            stream.write_all(&start).await?;
            loop {
                stream.write_all(&again).await?;
            }
        }
    }
}

async fn receive(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut input = Vec::new();
    let end = loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(input[..end].to_vec()).expect("a text head");
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = input.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Request { line, headers, body }))
}
