//! The token on the wire: who has none, who has an old one, and what is never told.

use std::time::Duration;

use xy_daemon::http::Limits;

use super::server::{Events, Server};

#[tokio::test]
async fn without_the_token_every_cause_is_answered_alike() {
    let server = Server::with(Limits { wrong_tokens: u32::MAX, ..Limits::default() }).await;
    let (address, token) = (server.address, server.token());
    let mut near = token.clone().into_bytes();
    near[42] ^= 1;
    let near = String::from_utf8(near).expect("ASCII");
    let mut answers = Vec::new();
    for authorization in [
        String::new(),
        "Authorization: \r\n".into(),
        "Authorization: Bearer\r\n".into(),
        format!("Authorization: Bearer {near}\r\n"),
        format!("Authorization: Bearer {}\r\n", &token[..42]),
        format!("Authorization: Bearer {token}x\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
        format!("X-Token: {token}\r\n"),
    ] {
        for target in ["/v1/status", "/nowhere", "/v1/servers/missing", &format!("/v1/status?token={token}")]
        {
            let answer =
                server.send(format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{authorization}\r\n"));
            let answer = answer.await;
            assert_eq!(answer.status, 401, "{authorization} {target}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            answers.push(answer.body);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let health = server.send(format!("GET /v1/health HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn many_wrong_tokens_are_too_many_and_lock_nobody_out() {
    let server = Server::with(Limits { wrong_tokens: 0, ..Limits::default() }).await;
    let wrong = format!("GET /v1/status HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let answer = server.send(&wrong).await;
    assert_eq!((answer.status, answer.kind().as_str()), (429, "limit_exceeded"));
    assert_eq!(server.get("/v1/status").await.status, 200);
}

#[tokio::test]
async fn a_new_token_is_good_at_once_and_the_old_one_for_the_grace() {
    let server = Server::start().await;
    let old = server.text("GET", "/v1/status", "", "");
    let answer = server.post("/v1/admin/rotate-token", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["old_token_valid_secs"], 60);
    assert!(!answer.body.contains(&server.token()), "the token is in its file and nowhere else");
    let new = server.text("GET", "/v1/status", "", "");
    assert_ne!(old, new);
    for text in [&old, &new] {
        assert_eq!(server.send(text).await.status, 200);
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does_and_its_client_can_come_back() {
    let server = Server::with(Limits { grace: Duration::from_millis(50), ..Limits::default() }).await;
    let old = server.text("GET", "/v1/status", "", "");
    let mut stream = Events::open(&server, "/v1/servers/quiet/logs?follow=true", "").await;
    assert_eq!(stream.block().await.as_deref(), Some(":\n\n"));
    server.credentials.rotate().await.expect("rotated");
    assert_eq!(stream.next().await, None);
    assert_eq!(server.send(&old).await.status, 401);
    let mut stream = Events::open(&server, "/v1/servers/quiet/logs?follow=true", "").await;
    assert_eq!(stream.block().await.as_deref(), Some(":\n\n"));
}

#[tokio::test]
async fn the_token_is_replaced_when_its_time_has_come() {
    let limits = Limits { rotate_every: Duration::from_millis(20), ..Limits::default() };
    let server = Server::with(limits).await;
    let first = server.token();
    super::script::within("a rotation", async {
        while server.token() == first {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn clients_that_read_the_file_again_never_fail_while_tokens_are_rotated() {
    let server = Server::with(Limits { wrong_tokens: u32::MAX, ..Limits::default() }).await;
    let client = async || {
        for _ in 0..40 {
            let mut answer = server.get("/v1/status").await;
            if answer.status == 401 {
                answer = server.get("/v1/status").await;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    let rotate = async {
        for _ in 0..40 {
            assert_eq!(server.post("/v1/admin/rotate-token", "{}").await.status, 200);
        }
    };
    tokio::join!(client(), client(), client(), rotate);
}
