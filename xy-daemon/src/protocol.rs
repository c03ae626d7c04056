//! The control protocol: JSON-RPC 2.0, one message per line, one type per method.
//!
//! The types here are the wire's vocabulary and are shared by daemon and clients. Parameters are read strictly (an
//! unknown member is refused by name), results leniently (a client ignores members that it does not know), so that a
//! newer daemon can say more to an older client.

pub mod error;
#[cfg(feature = "client")]
pub mod frame;
pub mod json;
pub mod message;
pub mod method;
pub mod pattern;
#[cfg(feature = "schema")]
pub mod schema;
pub mod scope;
pub mod short;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the control protocol, raised when a change would break an existing client.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest version of the control protocol whose clients are understood.
///
/// A daemon understands the version before its own at least; what is only added does not make a new one.
pub const OLDEST_PROTOCOL: u32 = 1;

/// One method of the control protocol.
///
/// Implemented by types without values: `client.call::<List>(ListParams::default())`.
pub trait Method {
    /// The name on the wire.
    const NAME: &'static str;
    /// The named parameters.
    type Params: Serialize + DeserializeOwned + Send + 'static;
    /// The result.
    type Result: Serialize + DeserializeOwned + Send + 'static;
}
