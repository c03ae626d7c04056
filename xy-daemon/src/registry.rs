//! What a program answers beside the methods of every daemon: methods and read-only catalogs of its own.
//!
//! A registered method is described by its types and called like any other, over the socket (`client.call::<Quote>(..)`)
//! and over HTTP (`POST /v1/methods/shop.quote`); `capabilities` lists it with its schemas.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::Method;
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::message::Request;
use crate::protocol::method::{MethodKind, RegisteredMethod};
use crate::protocol::schema;

/// The longest name of a registered method.
pub const MAX_NAME: usize = 64;

/// Why a method was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is not of the form `program.method`.
    #[error(
        "`{name}` is no name of a registered method: words of `a-z`, `0-9` and `_` with dots between them are"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// JSON-RPC 2.0 keeps names that begin with `rpc.` for itself.
    #[error("`{name}` is reserved by JSON-RPC")]
    Reserved {
        /// The name.
        name: String,
    },
    /// There is one of this name.
    #[error("`{name}` is registered already")]
    Taken {
        /// The name.
        name: String,
    },
}

type Answering = Pin<Box<dyn Future<Output = Result<Box<RawValue>, RpcError>> + Send>>;

/// Reads the parameters at once and answers in its own time.
type Run = dyn Fn(&Request) -> Result<Answering, RpcError> + Send + Sync;

/// Methods and catalogs of one program. Cheap to clone.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
/// use xy_daemon::protocol::Method;
/// use xy_daemon::protocol::error::{ErrorKind, RpcError};
/// use xy_daemon::registry::Registry;
///
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct QuoteParams {
///     /// What is to be bought.
///     item: String,
/// }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Price {
///     cents: u64,
/// }
/// enum Quote {}
/// impl Method for Quote {
///     const NAME: &'static str = "shop.quote";
///     type Params = QuoteParams;
///     type Result = Price;
/// }
///
/// let registry = Registry::new()
///     .method::<Quote, _, _>("Says what an item costs.", |params| async move {
///         match params.item.as_str() {
///             "tea" => Ok(Price { cents: 250 }),
///             other => Err(RpcError::new(ErrorKind::MethodFailed, format!("`{other}` is not sold"))),
///         }
///     })?
///     .catalog("shop.items", "What is sold.", || async { Ok(vec!["tea".to_owned()]) })?;
/// assert_eq!(registry.descriptions().count(), 2);
/// # Ok::<(), xy_daemon::registry::RegisterError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry(Arc<BTreeMap<String, Registered>>);

#[derive(Clone)]
struct Registered {
    description: RegisteredMethod,
    run: Arc<Run>,
}

/// The parameters of a catalog: none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogParams {}

/// The result of a catalog.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CatalogResult<T> {
    /// Everything in it.
    pub items: Vec<T>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a method; `description` is one sentence. A name has a dot, which no method of a daemon has. For permissions
    /// and the audit log it is one that changes something.
    ///
    /// A panic in it is answered as an internal error and harms nothing else. It is dropped when serving ends before it is
    /// done.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn method<M, F, Fut>(self, description: impl Into<String>, run: F) -> Result<Self, RegisterError>
    where
        M: Method,
        M::Params: JsonSchema,
        M::Result: JsonSchema,
        F: Fn(M::Params) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Result, RpcError>> + Send + 'static,
    {
        self.enter(described::<M>(MethodKind::Method, description.into()), run)
    }

    /// Registers a method that only tells something: permissions take it for one that reads. Else like
    /// [`method`](Self::method).
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn query<M, F, Fut>(self, description: impl Into<String>, run: F) -> Result<Self, RegisterError>
    where
        M: Method,
        M::Params: JsonSchema,
        M::Result: JsonSchema,
        F: Fn(M::Params) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Result, RpcError>> + Send + 'static,
    {
        self.enter(described::<M>(MethodKind::Query, description.into()), run)
    }

    /// Registers a catalog: a list that can only be read, as `{"items": [..]}`.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn catalog<T, F, Fut>(
        self,
        name: &str,
        description: impl Into<String>,
        read: F,
    ) -> Result<Self, RegisterError>
    where
        T: Serialize + JsonSchema + Send + 'static,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<T>, RpcError>> + Send + 'static,
    {
        let description = RegisteredMethod {
            name: name.to_owned(),
            kind: MethodKind::Catalog,
            description: description.into(),
            params: schema::of_params::<CatalogParams>(),
            result: schema::of_result::<CatalogResult<T>>(),
        };
        self.enter(description, move |_: CatalogParams| {
            let reading = read();
            async move { Ok(CatalogResult { items: reading.await? }) }
        })
    }

    fn enter<P, R, F, Fut>(mut self, description: RegisteredMethod, run: F) -> Result<Self, RegisterError>
    where
        P: serde::de::DeserializeOwned,
        R: Serialize,
        F: Fn(P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        let name = description.name.clone();
        check(&name)?;
        if self.0.contains_key(&name) {
            return Err(RegisterError::Taken { name });
        }
        let answer = move |request: &Request| {
            let answering = run(request.params::<P>()?);
            Ok(Box::pin(async move {
                serde_json::value::to_raw_value(&answering.await?).map_err(|error| {
                    RpcError::new(ErrorKind::InternalError, format!("the result cannot be written: {error}"))
                })
            }) as Answering)
        };
        Arc::make_mut(&mut self.0).insert(name, Registered { description, run: Arc::new(answer) });
        Ok(self)
    }

    /// Returns what is registered, by name.
    pub fn descriptions(&self) -> impl Iterator<Item = &RegisteredMethod> {
        self.0.values().map(|one| &one.description)
    }

    /// Returns what is registered under a name.
    pub(crate) fn description(&self, name: &str) -> Option<&RegisteredMethod> {
        self.0.get(name).map(|one| &one.description)
    }

    /// Runs a request; `None` if nothing is registered under its name.
    pub(crate) async fn run(&self, request: &Request) -> Option<Result<Box<RawValue>, RpcError>> {
        let registered = self.0.get(&request.method)?;
        Some(match (registered.run)(request) {
            Ok(answering) => answering.await,
            Err(error) => Err(error),
        })
    }
}

fn described<M: Method>(kind: MethodKind, description: String) -> RegisteredMethod
where
    M::Params: JsonSchema,
    M::Result: JsonSchema,
{
    RegisteredMethod {
        name: M::NAME.to_owned(),
        kind,
        description,
        params: schema::of_params::<M::Params>(),
        result: schema::of_result::<M::Result>(),
    }
}

fn check(name: &str) -> Result<(), RegisterError> {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    let name = name.to_owned();
    if name.len() > MAX_NAME || !name.contains('.') || !name.split('.').all(is_word) {
        Err(RegisterError::Name { name })
    } else if name.starts_with("rpc.") {
        Err(RegisterError::Reserved { name })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::METHODS;

    #[test]
    fn a_name_has_a_dot_and_can_be_that_of_no_method_of_a_daemon() {
        for name in ["shop.quote", "a.b.c", "x1.y_2"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in
            ["quote", "shop.", ".quote", "shop..quote", "Shop.quote", "shop.2", "shop/x.y", "", "a.\u{e9}"]
        {
            assert!(matches!(check(name), Err(RegisterError::Name { .. })), "{name}");
        }
        assert!(matches!(check(&format!("a.{}", "b".repeat(MAX_NAME))), Err(RegisterError::Name { .. })));
        assert!(matches!(check("rpc.discover"), Err(RegisterError::Reserved { .. })));
        assert!(METHODS.iter().all(|name| check(name).is_err()));
    }

    #[test]
    fn a_name_is_given_once() {
        let registry = Registry::new().catalog("a.b", "one", || async { Ok(vec![1]) }).unwrap();
        let taken = registry.clone().catalog("a.b", "two", || async { Ok(vec![2]) }).unwrap_err();
        assert_eq!(taken, RegisterError::Taken { name: "a.b".to_owned() });
        assert_eq!(registry.descriptions().count(), 1);
    }
}
