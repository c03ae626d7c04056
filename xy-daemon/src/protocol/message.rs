//! JSON-RPC 2.0 messages: requests in, answers and notifications out, and the other way round for clients.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{ErrorKind, RpcError};
use super::json;
use super::short::ControlMessage;

/// The most requests in one batch.
pub const MAX_BATCH: usize = 100;

/// More than an answer has around its id and its result, a line feed included.
const ENVELOPE: usize = 48;

/// A request's id: the very text that the client wrote, so that an answer repeats it byte for byte.
///
/// A string, a number or `null`. An *absent* id makes a notification, which is not the same as `null`.
#[derive(Debug, Clone)]
pub struct Id(Box<RawValue>);

impl Id {
    /// Returns the id of answers to what could not be read.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// Creates a numeric id.
    pub fn number(number: u64) -> Self {
        // A decimal number is a JSON text.
        Self(RawValue::from_string(number.to_string()).expect("a number is JSON"))
    }

    /// Returns the id as it was written.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    fn from_raw(raw: &RawValue) -> Option<Self> {
        matches!(raw.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9' | b'n'))
            .then(|| Self(raw.to_owned()))
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Id {}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// One line from a client.
#[derive(Debug)]
pub enum Incoming {
    /// One request.
    Single(Result<Request, Refused>),
    /// A batch; its answers travel together.
    Batch(Vec<Result<Request, Refused>>),
    /// A short form; only the local socket takes it.
    Short(ControlMessage),
}

/// A request, or a notification where `id` is `None`.
#[derive(Debug)]
pub struct Request {
    /// The id; `None` for a notification, which gets no answer.
    pub id: Option<Id>,
    /// The method's name.
    pub method: String,
    params: Option<Box<RawValue>>,
}

/// What is answered to text that is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The id, if one could be read.
    pub id: Id,
    /// Why.
    pub error: RpcError,
}

/// The members of a request as they travel. An absent member is `None`; a `null` one is `Some`.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
}

/// Reads a member that is there. `Option<&RawValue>` alone would turn `null` into absence.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Incoming {
    /// Reads one line.
    pub fn parse(line: &[u8]) -> Self {
        let text = match json::check(line) {
            Ok(text) => text.trim_matches([' ', '\t', '\r', '\n']),
            Err(error) => return Self::Single(Err(Refused { id: Id::null(), error: parse_error(&error) })),
        };
        if !text.starts_with('[') {
            return match Request::parse(text) {
                Ok(request) => Self::Single(Ok(request)),
                Err(refused) => ControlMessage::parse(text).map_or(Self::Single(Err(refused)), Self::Short),
            };
        }
        let items: Vec<&RawValue> = match serde_json::from_str(text) {
            Ok(items) => items,
            Err(error) => {
                let error = parse_error(&json::JsonError::Invalid(error));
                return Self::Single(Err(Refused { id: Id::null(), error }));
            }
        };
        match items.len() {
            0 => Self::Single(Err(Refused::anonymous("the batch is empty"))),
            1..=MAX_BATCH => Self::Batch(items.into_iter().map(|item| Request::parse(item.get())).collect()),
            len => Self::Single(Err(Refused::anonymous(format!(
                "the batch has {len} requests, more than {MAX_BATCH}"
            )))),
        }
    }
}

impl Refused {
    fn anonymous(message: impl Into<String>) -> Self {
        Self { id: Id::null(), error: RpcError::new(ErrorKind::InvalidRequest, message) }
    }
}

fn parse_error(error: &json::JsonError) -> RpcError {
    let message = match error {
        json::JsonError::Invalid(source) => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    RpcError::new(ErrorKind::ParseError, message)
}

impl Request {
    /// Makes a request of what another frame than JSON-RPC says; it has no id.
    pub fn of(method: impl Into<String>, params: &Map<String, Value>) -> Self {
        // A map with strings as keys has a JSON form.
        let params = serde_json::value::to_raw_value(params).expect("a map is JSON");
        Self { id: None, method: method.into(), params: Some(params) }
    }

    /// Reads one request from text that is known to be JSON.
    fn parse(text: &str) -> Result<Self, Refused> {
        if !text.starts_with('{') {
            return Err(Refused::anonymous("a request is an object"));
        }
        let members: Members<'_> = serde_json::from_str(text)
            .map_err(|error| Refused::anonymous(format!("the request cannot be read: {error}")))?;
        let id = match members.id.map(Id::from_raw) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(Refused::anonymous("`id` must be a string, a number or null")),
        };
        let refuse = |message: &str| Refused {
            id: id.clone().unwrap_or_else(Id::null),
            error: RpcError::new(ErrorKind::InvalidRequest, message),
        };
        let string = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        if members.jsonrpc.and_then(string).as_deref() != Some("2.0") {
            return Err(refuse("`jsonrpc` must be \"2.0\""));
        }
        let Some(method) = members.method.and_then(string) else {
            return Err(refuse("`method` must be a string"));
        };
        if members.params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
            return Err(refuse("`params` must be an object"));
        }
        Ok(Self { id, method, params: members.params.map(ToOwned::to_owned) })
    }

    /// Decodes the parameters; absent ones, and an empty list, are an empty object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidParams`] that names the parameter at fault.
    pub fn params<P: DeserializeOwned>(&self) -> Result<P, RpcError> {
        let text = match &self.params {
            None => "{}",
            Some(raw) if raw.get().starts_with('[') => {
                if !raw.get()[1..].trim_start().starts_with(']') {
                    let message =
                        "parameters by position are not supported; give an object with named parameters";
                    return Err(RpcError::new(ErrorKind::InvalidParams, message));
                }
                "{}"
            }
            Some(raw) => raw.get(),
        };
        let mut at = None;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        P::deserialize(Named { inner: &mut deserializer, at: &mut at })
            .map_err(|error| invalid_params(at, &error.to_string()))
    }
}

/// Makes the refusal from serde's text, which quotes an unknown or missing member's name first.
fn invalid_params(at: Option<String>, text: &str) -> RpcError {
    // The position inside the parameters means nothing to a client that never saw them as text.
    let text = text.rfind(" at line ").map_or(text, |end| &text[..end]);
    match at.or_else(|| text.split('`').nth(1).map(ToOwned::to_owned)) {
        Some(parameter) => RpcError::invalid_parameter(parameter, text),
        None => RpcError::new(ErrorKind::InvalidParams, text),
    }
}

/// Remembers which member of an object could not be read.
struct Named<'a, D> {
    inner: D,
    at: &'a mut Option<String>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Named<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(NamedVisitor { inner: visitor, at: self.at })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct NamedVisitor<'a, V> {
    inner: V,
    at: &'a mut Option<String>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for NamedVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(NamedMembers { inner: members, at: self.at, name: String::new() })
    }
}

struct NamedMembers<'a, A> {
    inner: A,
    at: &'a mut Option<String>,
    name: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for NamedMembers<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.inner.next_key::<String>()? else { return Ok(None) };
        let key = serde::de::value::StrDeserializer::<A::Error>::new(&name);
        let key = seed.deserialize(key).inspect_err(|_| *self.at = Some(name.clone()))?;
        self.name = name;
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed).inspect_err(|_| *self.at = Some(std::mem::take(&mut self.name)))
    }
}

/// An answer to one request.
#[derive(Debug)]
pub struct Response {
    id: Id,
    outcome: Result<Box<RawValue>, RpcError>,
}

impl Response {
    /// Creates an answer; a result that cannot be written as JSON becomes an internal error.
    pub fn new<T: Serialize>(id: Id, outcome: Result<T, RpcError>) -> Self {
        let outcome = outcome.and_then(|result| {
            serde_json::value::to_raw_value(&result).map_err(|error| {
                RpcError::new(ErrorKind::InternalError, format!("the result cannot be written: {error}"))
            })
        });
        Self { id, outcome }
    }

    /// Returns the id of the request.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Returns the answer as JSON text without a line feed.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text);
        text
    }

    /// Writes the answer as JSON text without a line feed. A long result is copied once.
    pub fn write_json(&self, text: &mut String) {
        let error;
        let (member, outcome) = match &self.outcome {
            Ok(result) => ("result", result.get()),
            Err(refused) => {
                // An error holds strings and a number, which always have a JSON form.
                error = serde_json::to_string(refused).expect("an error is JSON");
                ("error", error.as_str())
            }
        };
        let id = self.id.as_str();
        text.reserve(ENVELOPE + id.len() + outcome.len());
        text.extend([r#"{"jsonrpc":"2.0","id":"#, id, ",\"", member, "\":", outcome, "}"]);
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        Self { id: refused.id, outcome: Err(refused.error) }
    }
}

/// A request or notification to be written.
#[derive(Debug, Serialize)]
pub struct Outgoing<'a, P> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Id>,
    method: &'a str,
    params: &'a P,
}

impl<'a, P: Serialize> Outgoing<'a, P> {
    /// Creates a request.
    pub fn request(id: Id, method: &'a str, params: &'a P) -> Self {
        Self { jsonrpc: "2.0", id: Some(id), method, params }
    }

    /// Creates a notification.
    pub fn notification(method: &'a str, params: &'a P) -> Self {
        Self { jsonrpc: "2.0", id: None, method, params }
    }
}

/// One line from a daemon.
#[derive(Debug)]
pub enum Reply {
    /// An answer to the request of this number; `None` where the daemon could not read a request's id.
    Response {
        /// The request.
        id: Option<u64>,
        /// Its result as JSON, or the error.
        outcome: Result<Box<RawValue>, RpcError>,
    },
    /// A notification.
    Notification {
        /// Its name.
        method: String,
        /// Its parameters as JSON.
        params: Box<RawValue>,
    },
}

/// Why a line from a daemon is not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The line is not JSON, or a member has the wrong type.
    #[error("the line is not a JSON-RPC message")]
    Json(#[from] serde_json::Error),
    /// The line is JSON, but neither an answer nor a notification.
    #[error("the line is neither an answer nor a notification: {problem}")]
    Shape {
        /// What is wrong with it.
        problem: String,
    },
}

impl Reply {
    /// Reads one line.
    ///
    /// # Errors
    ///
    /// The line is not JSON, or is no message of JSON-RPC 2.0 that a daemon sends.
    pub fn parse(line: &[u8]) -> Result<Self, ReplyError> {
        #[derive(Deserialize)]
        struct ReplyMembers<'a> {
            jsonrpc: String,
            #[serde(borrow, default, deserialize_with = "present")]
            id: Option<&'a RawValue>,
            #[serde(default)]
            method: Option<String>,
            #[serde(borrow, default, deserialize_with = "present")]
            params: Option<&'a RawValue>,
            #[serde(borrow, default, deserialize_with = "present")]
            result: Option<&'a RawValue>,
            #[serde(default)]
            error: Option<RpcError>,
        }
        let shape = |problem: String| ReplyError::Shape { problem };
        // The daemon is trusted, so that the strict check of requests would only cost time here.
        let members: ReplyMembers<'_> = serde_json::from_slice(line)?;
        if members.jsonrpc != "2.0" {
            return Err(shape("`jsonrpc` is not \"2.0\"".to_owned()));
        }
        match (members.id, members.method, members.result, members.error) {
            (None, Some(method), None, None) => {
                let params = members.params.map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
                Ok(Self::Notification { method, params })
            }
            (Some(id), None, Some(result), None) => {
                Ok(Self::Response { id: id.get().parse().ok(), outcome: Ok(result.to_owned()) })
            }
            (Some(id), None, None, Some(error)) => {
                Ok(Self::Response { id: id.get().parse().ok(), outcome: Err(error) })
            }
            _ => Err(shape("its members do not belong together".to_owned())),
        }
    }
}
