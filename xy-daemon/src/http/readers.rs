//! The whole of HTTP for bytes from anywhere, so that a fuzzer and the tests run what clients reach.

use std::fs;
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::credentials::{Credentials, TokenOptions};
use super::endpoint::Shared;
use super::guard::Guard;
use super::pace::Pace;
use super::plane::HttpPlane;
use super::secret::Secret;
use super::{Limits, serve_connection, sse, target};
use crate::rpc::Service;

/// The address that requests are to name.
pub(crate) const HOST: &str = "127.0.0.1:9847";

/// The token that requests are to have.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A server that does not listen anywhere.
pub(crate) struct Deaf<S> {
    shared: Arc<Shared<S>>,
    close: watch::Receiver<bool>,
    _closing: watch::Sender<bool>,
}

impl<S: Service> Deaf<S> {
    pub(crate) fn new(service: Arc<S>) -> Self {
        let directory = std::env::temp_dir().join(format!("xy-readers-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the token");
        let secret = Secret::parse(TOKEN).expect("a token");
        let options = TokenOptions { environment: Some(secret), ..TokenOptions::default() };
        let limits = Limits::default();
        let base_url = format!("http://{HOST}");
        let (grace, wrong) = (limits.grace, limits.wrong_tokens);
        let credentials =
            Credentials::establish(&options, &directory, base_url, grace, wrong).expect("a token");
        // Nobody reads them, and a rotation is to fail: the token is known.
        fs::remove_dir_all(&directory).expect("it is ours");
        let (closing, close) = watch::channel(false);
        let guard = Guard::new(HOST.parse().expect("an address"), Vec::new());
        let plane = HttpPlane::new(Arc::new(credentials), HOST.parse().expect("an address"), limits);
        let shared = Shared::new(service, guard, Arc::new(plane), "18f".to_owned(), close.clone());
        Self { shared: Arc::new(shared), close, _closing: closing }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: DuplexStream) {
        let pace = Pace::new(Instant::now(), self.shared.unread.join());
        serve_connection(stream, Arc::clone(&self.shared), pace, self.close.clone()).await;
    }
}

/// Reads the small texts of a request: its target, its head, and the id of the last event.
pub(crate) fn words(text: &str) {
    sse::read_id(text);
    if let Ok(segments) = target::segments(text) {
        assert!(segments.iter().all(|segment| !segment.chars().any(char::is_control)), "{segments:?}");
    }
    if let Ok(pairs) = target::query(text) {
        let mut names: Vec<_> = pairs.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), pairs.len(), "{pairs:?}");
    }
    head(text);
}

/// Has the guard judge a target and headers, one per line.
fn head(text: &str) {
    let mut lines = text.lines();
    let Some(Ok(uri)) = lines.next().map(str::parse::<Uri>) else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let guard = Guard::new(HOST.parse().expect("an address"), Vec::new());
    if guard.check(&uri, &headers).is_ok() {
        let hosts: Vec<_> = headers.get_all("host").iter().map(HeaderValue::as_bytes).collect();
        let [host] = hosts[..] else { panic!("{hosts:?}") };
        let names = [HOST, "[::1]:9847", "localhost:9847"];
        assert!(names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(host)), "{host:?}");
        assert!(!headers.contains_key("origin"), "a web page was let in");
    }
}
