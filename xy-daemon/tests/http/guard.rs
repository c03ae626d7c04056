//! What must be refused before it is understood: other hosts, web pages, smuggled requests.

use super::script::within;
use super::server::Server;

#[tokio::test]
async fn a_request_for_another_host_is_refused_even_with_the_token() {
    let server = Server::start().await;
    let (port, token) = (server.address.port(), server.token());
    let hosts = [
        String::new(),
        "Host:\r\n".into(),
        "Host: evil.example\r\n".into(),
        format!("Host: evil.example:{port}\r\n"),
        "Host: 127.0.0.1\r\n".into(),
        format!("Host: 127.0.0.1.evil.example:{port}\r\n"),
        format!("Host: user@127.0.0.1:{port}\r\n"),
        format!("Host: 2130706433:{port}\r\n"),
        format!("Host: 0177.0.0.1:{port}\r\n"),
        format!("Host: [::1%25lo]:{port}\r\n"),
        format!("Host: localhost.:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"),
    ];
    for host in hosts {
        for target in ["/v1/health", "/v1/status", "/nowhere"] {
            let text = format!("GET {target} HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n");
            let answer = server.send(text).await;
            assert_eq!((answer.status, answer.kind().as_str()), (403, "forbidden"), "{host:?} {target}");
            assert_eq!(answer.header("connection"), Some("close"), "{host:?}");
        }
    }
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let text = format!(
            "GET /v1/status HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        assert_eq!(server.send(text).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn an_absolute_target_for_another_host_is_refused() {
    let server = Server::start().await;
    let (address, headers) = (server.address, server.headers());
    for (target, status) in [
        (format!("http://{address}/v1/status"), 200),
        ("http://evil.example/v1/status".to_owned(), 403),
        (format!("https://{address}/v1/status"), 403),
        (format!("http://localhost:{}/v1/status", address.port()), 403),
    ] {
        let answer = server.send(format!("GET {target} HTTP/1.1\r\n{headers}\r\n")).await;
        assert_eq!(answer.status, status, "{target}");
    }
}

#[tokio::test]
async fn a_web_page_is_refused_even_with_the_token_and_never_told_that_it_may() {
    let server = Server::start().await;
    let own = format!("Origin: http://{}", server.address);
    let pages = [
        "Origin: null",
        "Origin: http://evil.example",
        "Origin: https://127.0.0.1",
        "Origin:",
        own.as_str(),
        "Origin: chrome-extension://abcdef",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ];
    for page in pages {
        for (method, target) in [
            ("GET", "/v1/health"),
            ("GET", "/v1/servers"),
            ("GET", "/v1/events"),
            ("POST", "/v1/rpc"),
            ("OPTIONS", "/v1/rpc"),
        ] {
            let answer = server.send(server.text(method, target, &format!("{page}\r\n"), "{}")).await;
            assert_eq!(
                (answer.status, answer.kind().as_str()),
                (403, "forbidden"),
                "{page} {method} {target}"
            );
            assert_eq!(answer.header("access-control-allow-origin"), None, "{page}");
            assert_eq!(answer.header("set-cookie"), None, "{page}");
        }
    }
}

#[tokio::test]
async fn a_request_whose_length_is_in_dispute_smuggles_nothing() {
    let server = Server::start().await;
    let headers = format!("{}Content-Type: application/json\r\n", server.headers());
    let smuggled = server.text("POST", "/v1/servers/smuggled/stop", "", "{}");
    let length = smuggled.len();
    let chunked = "Transfer-Encoding: chunked\r\n";
    for lengths in [
        format!("Content-Length: {length}\r\n{chunked}"),
        format!("{chunked}Content-Length: {length}\r\n"),
        "Content-Length: 0\r\nContent-Length: 5\r\n".to_owned(),
        "Content-Length: 0, 5\r\n".to_owned(),
        "Content-Length: +0\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 0x0\r\n".to_owned(),
        "Content-Length: 99999999999999999999999\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "X-Folded: a\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        "X-Nul: a\0b\r\n".to_owned(),
        "X-Line: a\rContent-Length: 5\r\n".to_owned(),
    ] {
        let text =
            format!("POST /v1/servers/first/start HTTP/1.1\r\n{headers}{lengths}\r\n0\r\n\r\n{smuggled}");
        let mut wire = server.connect().await;
        wire.send(&text).await;
        let answered = wire.rest().await;
        assert!(answered.matches("HTTP/1.1 ").count() <= 1, "{lengths:?}: {answered}");
        assert!(!answered.contains("smuggled"), "{lengths:?}: {answered}");
    }
    let operations = server.get("/v1/operations").await.body;
    assert!(!operations.contains("smuggled"), "{operations}");
}

#[tokio::test]
async fn a_chunked_body_is_read_and_ends_the_connection() {
    let server = Server::start().await;
    let headers = format!("{}Content-Type: application/json\r\n", server.headers());
    let text = format!(
        "POST /v1/rpc HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n\
         10\r\n{{\"jsonrpc\":\"2.0\"\r\n1e\r\n,\"id\":1,\"method\":\"version\"   }}\r\n0\r\n\r\n"
    );
    let mut wire = server.connect().await;
    wire.send(text).await;
    let answer = wire.answer().await;
    assert_eq!(answer.json()["result"]["version"], "1.2.3", "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_harms_nobody() {
    let server = Server::start().await;
    for garbage in [
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "GET /v1/health\r\n\r\n",
        "GET /v1/health HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01",
        "{\"jsonrpc\":\"2.0\",\"method\":\"shutdown\"}\n",
        "GET /v1/he\x01lth HTTP/1.1\r\n\r\n",
    ] {
        let mut wire = server.connect().await;
        wire.send(garbage).await;
        wire.finish().await;
        let answered = wire.rest().await;
        assert!(!answered.contains(" 200 "), "{garbage:?}: {answered}");
    }
    assert_eq!(within("health", server.get("/v1/health")).await.status, 200);
}
