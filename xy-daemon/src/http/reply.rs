//! What is answered: whole texts, streams, and refusals in one form.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::answer::{Refusal, RefusalError};
use super::pace::Serving;
use crate::protocol::error::{ErrorKind, RpcError};

const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
pub(super) const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Content {
    kind: ContentKind,
    /// Until the body is written, the connection is busy.
    serving: Option<Serving>,
}

#[derive(Debug)]
enum ContentKind {
    Whole(Bytes),
    Stream(mpsc::Receiver<Bytes>),
}

impl Content {
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        Self { kind: ContentKind::Whole(text.into()), serving: None }
    }

    /// A body that ends when the sender is dropped. What is not read waits in the channel, and its sender with it.
    pub(super) fn stream(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { kind: ContentKind::Stream(pieces), serving: None }
    }

    /// Keeps the connection busy until the body is written, and counts a whole one as unread until then. The pieces of a
    /// stream are counted by whoever makes them.
    pub(super) fn hold(&mut self, serving: Serving) {
        if let ContentKind::Whole(bytes) = &mut self.kind
            && !bytes.is_empty()
        {
            *bytes = serving.hold(std::mem::take(bytes));
        }
        self.serving = Some(serving);
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.kind {
            ContentKind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ContentKind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ContentKind::Stream(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, ContentKind::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ContentKind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ContentKind::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer that is a text.
pub(super) fn text(
    status: StatusCode,
    content_type: HeaderValue,
    text: impl Into<Bytes>,
) -> Response<Content> {
    with_type(status, content_type, Content::whole(text))
}

/// An answer that is a value as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response<Content>, Problem> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(text(status, JSON, bytes)),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Err(RpcError::new(ErrorKind::InternalError, "the answer cannot be written as JSON").into())
        }
    }
}

/// An answer that is a stream of server-sent events.
pub(super) fn stream(pieces: mpsc::Receiver<Bytes>) -> Response<Content> {
    with_type(StatusCode::OK, EVENT_STREAM, Content::stream(pieces))
}

fn with_type(status: StatusCode, content_type: HeaderValue, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A request that was not served, as it is told to the client.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) kind: Cow<'static, str>,
    pub(super) message: String,
    pub(super) parameter: Option<String>,
    /// The methods that the endpoint has instead.
    pub(super) allow: Option<String>,
    /// Whether the connection ends with it: where the rest of the request is not read.
    pub(super) closes: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.into(),
            message: message.into(),
            parameter: None,
            allow: None,
            closes: false,
        }
    }

    /// The same, and the end of the connection.
    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub(super) fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        RpcError::invalid_parameter(name, problem).into()
    }

    /// Makes the answer; `result` is what the method came to nevertheless.
    pub(super) fn into_response(self, result: Option<&serde_json::value::RawValue>) -> Response<Content> {
        let error =
            RefusalError { kind: &self.kind, message: &self.message, parameter: self.parameter.as_deref() };
        // Strings and a text that is JSON already always have a JSON form.
        let body = serde_json::to_vec(&Refusal { error, result }).expect("plain members are JSON");
        let mut response = text(self.status, JSON, body);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow.and_then(|methods| HeaderValue::from_str(&methods).ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<RpcError> for Problem {
    fn from(error: RpcError) -> Self {
        let kind = error.kind();
        Self {
            status: status_of(kind),
            kind: kind.as_str().into(),
            message: error.message,
            parameter: error.data.and_then(|data| data.parameter),
            allow: None,
            closes: false,
        }
    }
}

/// Returns the status that fits a kind of error. What a server's state forbids is a conflict; only what the daemon itself
/// has done wrong is a failure of its.
pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::ParseError | ErrorKind::InvalidRequest | ErrorKind::InvalidParams => {
            StatusCode::BAD_REQUEST
        }
        ErrorKind::MethodNotFound | ErrorKind::ServerNotFound => StatusCode::NOT_FOUND,
        ErrorKind::ConfigInvalid
        | ErrorKind::Unsupported
        | ErrorKind::UnsupportedProtocol
        | ErrorKind::MethodFailed => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::PortConflict
        | ErrorKind::AlreadyRunning
        | ErrorKind::NotRunning
        | ErrorKind::SpawnFailed
        | ErrorKind::NotReady
        | ErrorKind::StopFailed
        | ErrorKind::Superseded
        | ErrorKind::UpgradeRefused
        // Who asks says how long to wait; the operation goes on.
        | ErrorKind::Timeout => StatusCode::CONFLICT,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::InternalError | ErrorKind::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_daemon_itself_are_server_errors() {
        let server_errors: Vec<_> =
            ErrorKind::ALL.into_iter().filter(|kind| status_of(*kind).is_server_error()).collect();
        let expected = [ErrorKind::InternalError, ErrorKind::ShuttingDown];
        assert_eq!(server_errors, expected);
    }

    #[test]
    fn a_refusal_has_the_kind_and_the_parameter_of_the_error() {
        let problem = Problem::from(RpcError::invalid_parameter("tail", "is no number"));
        assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        assert_eq!((&*problem.kind, problem.parameter.as_deref()), ("invalid_params", Some("tail")));
    }
}
