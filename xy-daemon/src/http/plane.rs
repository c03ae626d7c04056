//! What HTTP is to the rest of the daemon: its tokens, and what is known of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clients::ClientError;
use super::credentials::Credentials;
use super::{Limits, base_url};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::method::{
    HttpFacts, HttpLimits, RotateTokenParams, RotateTokenResult, TokenAddParams, TokenAddResult,
    TokenRemoveParams, TokenRemoveResult, TokensResult,
};

/// HTTP as the rest of the daemon sees it.
#[derive(Debug)]
pub struct HttpPlane {
    pub(super) credentials: Arc<Credentials>,
    pub(super) address: SocketAddr,
    pub(super) limits: Limits,
    /// Open connections.
    pub(super) connections: AtomicUsize,
}

impl HttpPlane {
    pub(super) fn new(credentials: Arc<Credentials>, address: SocketAddr, limits: Limits) -> Self {
        Self { credentials, address, limits, connections: AtomicUsize::new(0) }
    }

    /// Says what is known, without secrets.
    pub fn facts(&self) -> HttpFacts {
        let limits = &self.limits;
        HttpFacts {
            base_url: base_url(self.address),
            token_source: self.credentials.source(),
            token_file: self.credentials.token_file().display().to_string(),
            clients: self.credentials.clients().list().len(),
            refused_tokens: self.credentials.tokens().failures(),
            connections: self.connections.load(Ordering::Relaxed),
            limits: HttpLimits {
                connections: limits.connections,
                body_bytes: limits.body,
                head_secs: limits.head.as_secs_f64(),
                request_secs: limits.request.as_secs_f64(),
                idle_secs: limits.idle.as_secs_f64(),
                write_stall_secs: limits.write_stall.as_secs_f64(),
                operations: limits.operations,
                rotate_token_secs: Some(limits.rotate_every.as_secs_f64()),
            },
        }
    }

    /// Makes a new token: the daemon's, or a client's.
    pub(crate) async fn rotate(
        self: Arc<Self>,
        params: RotateTokenParams,
    ) -> Result<RotateTokenResult, RpcError> {
        let old_token_valid_secs = self.credentials.grace().as_secs();
        // In a task of its own it is not cut off in the middle when its client goes away.
        let rotated = tokio::spawn(async move {
            let Some(name) = params.name else {
                self.credentials.rotate().await.map_err(|error| failed(&error))?;
                let token_file = Some(self.credentials.token_file().display().to_string());
                return Ok(RotateTokenResult { token_file, token: None, old_token_valid_secs });
            };
            let secret = self.credentials.clients().rotate(&name, self.credentials.grace()).await;
            let token = Some(secret.map_err(refused)?.expose().to_owned());
            Ok(RotateTokenResult { token_file: None, token, old_token_valid_secs })
        });
        rotated.await.unwrap_or_else(|error| Err(failed(&error)))
    }

    /// Lists the clients.
    pub(crate) fn tokens(&self) -> TokensResult {
        TokensResult { tokens: self.credentials.clients().list() }
    }

    /// Makes a token for a client.
    pub(crate) async fn add(self: Arc<Self>, params: TokenAddParams) -> Result<TokenAddResult, RpcError> {
        let TokenAddParams { name, scope } = params;
        let added = tokio::spawn(async move {
            let secret = self.credentials.clients().add(&name, scope).await.map_err(refused)?;
            Ok(TokenAddResult { name, scope, token: secret.expose().to_owned() })
        });
        added.await.unwrap_or_else(|error| Err(failed(&error)))
    }

    /// Takes a client's token back.
    pub(crate) async fn remove(
        self: Arc<Self>,
        params: TokenRemoveParams,
    ) -> Result<TokenRemoveResult, RpcError> {
        let removed = tokio::spawn(async move {
            let removed = self.credentials.clients().remove(&params.name).await.map_err(refused)?;
            Ok(TokenRemoveResult { removed })
        });
        removed.await.unwrap_or_else(|error| Err(failed(&error)))
    }
}

fn refused(error: ClientError) -> RpcError {
    match &error {
        ClientError::Name(_) | ClientError::Taken(_) | ClientError::NotFound(_) => {
            RpcError::invalid_parameter("name", &error)
        }
        ClientError::TooMany => RpcError::new(ErrorKind::LimitExceeded, error.to_string()),
        _ => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> RpcError {
    tracing::error!("a token was not changed: {}", crate::control::chain(error));
    RpcError::new(ErrorKind::InternalError, "the token was not changed; the daemon's log says why")
}
