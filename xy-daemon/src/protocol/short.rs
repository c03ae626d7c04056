//! Control messages: lines with a `type` instead of `jsonrpc`, short forms of some methods for scripts that have nothing
//! but `nc`.
//!
//! ```text
//! {"type":"status"}              list                 {"type":"status","name":"web"}   status
//! {"type":"pause","name":"web"}  pause                {"type":"resume"}                resume, of every server
//! {"type":"reload"}              reload               {"type":"shutdown"}              shutdown
//! ```
//!
//! Every other member is a parameter of the method. The answer is one line: the `type`, the `id` if there was one, `ok`,
//! and `result` or `error`.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Method;
use super::error::{ErrorKind, RpcError};
use super::message::Request;
use super::method::{List, Pause, Reload, Resume, Shutdown, Status};

/// The types of control messages.
pub const TYPES: [&str; 5] = ["status", "pause", "resume", "reload", "shutdown"];

/// One control message.
#[derive(Debug)]
pub struct ControlMessage {
    /// What it asks for, or why it cannot be.
    pub request: Result<Request, RpcError>,
    /// What its answer repeats.
    head: Head,
}

/// What an answer has in common with its message.
#[derive(Debug)]
struct Head {
    message_type: Value,
    id: Option<Value>,
}

impl ControlMessage {
    /// Reads text that is known to be JSON; `None` if it is no control message.
    pub fn parse(text: &str) -> Option<Self> {
        let mut members: Map<String, Value> = serde_json::from_str(text).ok()?;
        if members.contains_key("jsonrpc") {
            return None;
        }
        let message_type = members.remove("type")?;
        let id = members.remove("id");
        let request = request(&message_type, members);
        Some(Self { request, head: Head { message_type, id } })
    }

    /// Returns the answer as JSON text without a line feed.
    ///
    /// `ok` is false if there is an error, and if the operation failed for one of the servers.
    pub fn answer(&self, outcome: &Result<Box<RawValue>, RpcError>) -> String {
        // Values, texts and errors have a JSON form.
        let mut members = vec![format!(r#""type":{}"#, self.head.message_type)];
        members.extend(self.head.id.as_ref().map(|id| format!(r#""id":{id}"#)));
        match outcome {
            Ok(result) => {
                members.push(format!(r#""ok":{}"#, !has_failed(result)));
                members.push(format!(r#""result":{}"#, result.get()));
            }
            Err(error) => {
                members.push(r#""ok":false"#.to_owned());
                members
                    .push(format!(r#""error":{}"#, serde_json::to_string(error).expect("an error is JSON")));
            }
        }
        format!("{{{}}}", members.join(","))
    }
}

fn request(message_type: &Value, mut params: Map<String, Value>) -> Result<Request, RpcError> {
    let method = match message_type.as_str() {
        Some("status") if params.contains_key("name") => Status::NAME,
        Some("status") => List::NAME,
        Some(named @ ("pause" | "resume")) => {
            if let Some(name) = params.remove("name") {
                params.insert("names".to_owned(), Value::Array(vec![name]));
            } else if !params.contains_key("names") {
                params.insert("all".to_owned(), true.into());
            }
            if named == "pause" { Pause::NAME } else { Resume::NAME }
        }
        Some("reload") => Reload::NAME,
        Some("shutdown") => Shutdown::NAME,
        _ => {
            let message =
                format!("there is no control message {message_type}; there are {}", TYPES.join(", "));
            return Err(RpcError::new(ErrorKind::MethodNotFound, message));
        }
    };
    Ok(Request::of(method, &params))
}

/// Returns whether a result says of a server that the operation failed for it.
fn has_failed(result: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Rows {
        #[serde(default)]
        failed: Vec<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Rows>(result.get()).is_ok_and(|rows| !rows.failed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::{ListParams, OperationParams, StatusParams, Targets};

    fn request_of(text: &str) -> Request {
        ControlMessage::parse(text).expect("a control message").request.expect("it can be asked for")
    }

    #[test]
    fn each_type_is_a_method_with_its_parameters() {
        assert_eq!(request_of(r#"{"type":"status"}"#).method, "list");
        assert_eq!(request_of(r#"{"type":"status"}"#).params::<ListParams>(), Ok(ListParams {}));
        let status = request_of(r#"{"name":"web","type":"status"}"#);
        assert_eq!((status.method.as_str(), status.params()), ("status", Ok(StatusParams::new("web"))));
        for (text, targets) in [
            (r#"{"type":"pause","name":"web"}"#, Targets::Names(vec!["web".into()])),
            (r#"{"type":"pause","names":["a","b"]}"#, Targets::Names(vec!["a".into(), "b".into()])),
            (r#"{"type":"pause"}"#, Targets::All),
        ] {
            let pause = request_of(text);
            assert_eq!(pause.method, "pause");
            assert_eq!(pause.params::<OperationParams>().map(|params| params.targets), Ok(targets), "{text}");
        }
        for same in ["resume", "reload", "shutdown"] {
            assert_eq!(request_of(&format!(r#"{{"type":"{same}"}}"#)).method, same);
        }
        assert_eq!(TYPES.len(), 5);
    }

    #[test]
    fn json_rpc_and_what_has_no_type_is_none() {
        for other in [r#"{"jsonrpc":"2.0","type":"status"}"#, r#"{"foo":"boo"}"#, "[]", "1", "{}"] {
            assert!(ControlMessage::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn an_answer_is_ok_only_if_no_server_failed() {
        let message = ControlMessage::parse(r#"{"type":"pause","id":7}"#).unwrap();
        let answer = |json: &str| message.answer(&Ok(RawValue::from_string(json.to_owned()).unwrap()));
        assert_eq!(answer(r#"{"failed":[]}"#), r#"{"type":"pause","id":7,"ok":true,"result":{"failed":[]}}"#);
        assert!(answer(r#"{"failed":[{"name":"a"}]}"#).contains(r#""ok":false"#));
        let error = message.answer(&Err(RpcError::server_not_found("a")));
        assert!(error.starts_with(r#"{"type":"pause","id":7,"ok":false,"error":{"code":-32001,"#), "{error}");
    }
}
