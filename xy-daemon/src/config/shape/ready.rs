//! The shape of `ready: ..` and of `liveness: (..)`.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, EnumAccess, VariantAccess, Visitor};

use super::{DurationText, FieldsVisitor, optional_fields};

/// `ready: ..` as written.
#[derive(Debug)]
pub(in crate::config) enum ReadyShape {
    Started,
    Tcp(TcpShape),
    Http(HttpShape),
    Mcp(McpShape),
    Exec(Box<ExecShape>),
    Log(String),
    Notify(NotifyShape),
}

/// `Tcp(..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TcpShape {
    pub(in crate::config) interval: Option<DurationText>,
    pub(in crate::config) timeout: Option<DurationText>,
}

/// `Http(..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct HttpShape {
    pub(in crate::config) path: Option<String>,
    pub(in crate::config) status: Option<Vec<StatusShape>>,
    pub(in crate::config) header: Option<HeaderShape>,
    pub(in crate::config) interval: Option<DurationText>,
    pub(in crate::config) timeout: Option<DurationText>,
}

/// `Mcp(..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct McpShape {
    pub(in crate::config) path: Option<String>,
    pub(in crate::config) host: Option<String>,
    pub(in crate::config) interval: Option<DurationText>,
    pub(in crate::config) timeout: Option<DurationText>,
}

/// `Exec(..)` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ExecShape {
    pub(in crate::config) command: String,
    #[serde(default)]
    pub(in crate::config) args: Vec<String>,
    #[serde(default)]
    pub(in crate::config) interval: Option<DurationText>,
    #[serde(default)]
    pub(in crate::config) timeout: Option<DurationText>,
}

/// `Notify(..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct NotifyShape {
    pub(in crate::config) fd: Option<i64>,
}

/// `liveness: (..)` as written.
#[derive(Debug, Deserialize)]
#[serde(rename = "Liveness", deny_unknown_fields)]
pub(in crate::config) struct LivenessShape {
    pub(in crate::config) probe: ReadyShape,
    #[serde(default)]
    pub(in crate::config) interval: Option<DurationText>,
    #[serde(default)]
    pub(in crate::config) timeout: Option<DurationText>,
    #[serde(default)]
    pub(in crate::config) failures: Option<i64>,
}

/// A header's name and value.
#[derive(Deserialize)]
#[serde(rename = "Header")]
pub(in crate::config) struct HeaderShape(pub(in crate::config) String, pub(in crate::config) String);

impl fmt::Debug for HeaderShape {
    /// Shows the name only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeaderShape").field(&self.0).finish_non_exhaustive()
    }
}

/// One status, or a range of them in quotes.
#[derive(Debug)]
pub(in crate::config) enum StatusShape {
    One(i64),
    Range(String),
}

impl<'de> Deserialize<'de> for StatusShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StatusVisitor;

        impl Visitor<'_> for StatusVisitor {
            type Value = StatusShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 204 or a range in quotes such as \"200-299\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<StatusShape, E> {
                Ok(StatusShape::One(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<StatusShape, E> {
                // What does not fit is no status either way.
                Ok(StatusShape::One(i64::try_from(number).unwrap_or(i64::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusShape, E> {
                Ok(StatusShape::Range(text.to_owned()))
            }
        }

        deserializer.deserialize_any(StatusVisitor)
    }
}

impl<'de> Deserialize<'de> for ReadyShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(variant_identifier)]
        enum Word {
            Started,
            Tcp,
            Http,
            Mcp,
            Exec,
            Log,
            Notify,
        }

        struct ReadyVisitor;

        impl<'de> Visitor<'de> for ReadyVisitor {
            type Value = ReadyShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "one of `Started`, `Tcp`, `Http(..)`, `Mcp(..)`, `Exec(..)`, `Log(\"..\")`, `Notify`",
                )
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ReadyShape, A::Error> {
                let (word, rest) = data.variant()?;
                match word {
                    Word::Started => rest.unit_variant().map(|()| ReadyShape::Started),
                    Word::Tcp => optional_fields(rest).map(ReadyShape::Tcp),
                    Word::Http => optional_fields(rest).map(ReadyShape::Http),
                    Word::Mcp => optional_fields(rest).map(ReadyShape::Mcp),
                    Word::Exec => {
                        let entered = Cell::new(false);
                        let fields = FieldsVisitor { entered: &entered, fields: PhantomData };
                        rest.struct_variant(&[], fields).map(ReadyShape::Exec)
                    }
                    Word::Log => rest.newtype_variant().map(ReadyShape::Log),
                    Word::Notify => optional_fields(rest).map(ReadyShape::Notify),
                }
            }
        }

        let words = &["Started", "Tcp", "Http", "Mcp", "Exec", "Log", "Notify"];
        deserializer.deserialize_enum("Ready", words, ReadyVisitor)
    }
}
