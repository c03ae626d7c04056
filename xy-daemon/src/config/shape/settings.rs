//! The shape of the keys for what a process gets beside its command line.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use xy_actors::process::settings::Resource;

use super::{DUPLICATE, QuotedVisitor};

/// `secrets: {..}` as written, each variable once.
#[derive(Debug, Default)]
pub(in super::super) struct SecretsShape(pub(in super::super) Vec<(String, SecretShape)>);

/// Where one secret comes from.
#[derive(Debug, Deserialize)]
#[serde(rename = "Secret")]
pub(in super::super) enum SecretShape {
    Env(String),
    File(String),
    Command(Vec<String>),
}

impl<'de> Deserialize<'de> for SecretsShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretsVisitor;

        impl<'de> Visitor<'de> for SecretsVisitor {
            type Value = SecretsShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map such as {\"NAME\": File(\"path\")}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretsShape, A::Error> {
                let mut entries: Vec<(String, SecretShape)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if entries.iter().any(|(earlier, _)| *earlier == name) {
                        return Err(de::Error::custom(DUPLICATE));
                    }
                    entries.push((name, map.next_value()?));
                }
                Ok(SecretsShape(entries))
            }
        }

        deserializer.deserialize_map(SecretsVisitor)
    }
}

/// A user or group: a name, or a number with or without quotes.
#[derive(Debug)]
pub(in super::super) struct NameText(pub(in super::super) String);

impl<'de> Deserialize<'de> for NameText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = NameText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name in quotes or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NameText, E> {
                Ok(NameText(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<NameText, E> {
                Ok(NameText(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<NameText, E> {
                Ok(NameText(number.to_string()))
            }
        }

        deserializer.deserialize_any(NameVisitor)
    }
}

/// A file mode mask as written; a number without quotes would be read as decimal.
#[derive(Debug)]
pub(in super::super) struct MaskText(pub(in super::super) String);

impl<'de> Deserialize<'de> for MaskText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuotedVisitor("an octal mask in quotes, such as \"027\"")).map(Self)
    }
}

/// `stdin: ..` as written.
#[derive(Debug, Deserialize)]
#[serde(rename = "Stdin")]
pub(in super::super) enum StdinShape {
    Null,
    File(String),
}

/// `path: ..` as written.
#[derive(Debug)]
pub(in super::super) enum PathShape {
    /// A bare word; which one, only the text knows.
    Word,
    /// Directories in quotes.
    Literal(String),
}

impl<'de> Deserialize<'de> for PathShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathVisitor;

        impl Visitor<'_> for PathVisitor {
            type Value = PathShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Login`, `Inherit` or directories in quotes")
            }

            fn visit_unit<E: de::Error>(self) -> Result<PathShape, E> {
                Ok(PathShape::Word)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PathShape, E> {
                Ok(PathShape::Literal(text.to_owned()))
            }
        }

        deserializer.deserialize_any(PathVisitor)
    }
}

/// `limits: (..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Limits", deny_unknown_fields, default)]
pub(in super::super) struct LimitsShape {
    pub(in super::super) nofile: Option<LimitShape>,
    pub(in super::super) nproc: Option<LimitShape>,
    pub(in super::super) core: Option<LimitShape>,
    #[serde(rename = "as")]
    pub(in super::super) address_space: Option<LimitShape>,
    pub(in super::super) memlock: Option<LimitShape>,
    pub(in super::super) stack: Option<LimitShape>,
    pub(in super::super) cpu: Option<LimitShape>,
    pub(in super::super) fsize: Option<LimitShape>,
    pub(in super::super) data: Option<LimitShape>,
}

impl LimitsShape {
    /// Returns each limit with its resource.
    pub(in super::super) fn entries(&self) -> impl Iterator<Item = (Resource, &LimitShape)> {
        [
            (Resource::Nofile, &self.nofile),
            (Resource::Nproc, &self.nproc),
            (Resource::Core, &self.core),
            (Resource::As, &self.address_space),
            (Resource::Memlock, &self.memlock),
            (Resource::Stack, &self.stack),
            (Resource::Cpu, &self.cpu),
            (Resource::Fsize, &self.fsize),
            (Resource::Data, &self.data),
        ]
        .into_iter()
        .filter_map(|(resource, limit)| Some((resource, limit.as_ref()?)))
    }
}

/// One limit: a value for both, or `(soft, hard)`.
#[derive(Debug)]
pub(in super::super) struct LimitShape(pub(in super::super) Vec<LimitValue>);

/// One value of a limit.
#[derive(Debug)]
pub(in super::super) enum LimitValue {
    Number(i64),
    /// `unlimited`, a size, or a duration.
    Text(String),
}

const LIMIT: &str = "a number, a text such as \"1GiB\" or \"unlimited\", or both limits as `(soft, hard)`";

struct LimitVisitor;

impl LimitVisitor {
    fn number<E: de::Error>(number: impl TryInto<i64>) -> Result<LimitValue, E> {
        number.try_into().map(LimitValue::Number).map_err(|_| E::custom("number is out of range"))
    }
}

impl<'de> Visitor<'de> for LimitVisitor {
    type Value = LimitShape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LIMIT)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<LimitShape, E> {
        Ok(LimitShape(vec![LimitValue::Number(number)]))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<LimitShape, E> {
        Ok(LimitShape(vec![Self::number(number)?]))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<LimitShape, E> {
        Ok(LimitShape(vec![LimitValue::Text(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<LimitShape, A::Error> {
        let mut values = Vec::new();
        while let Some(LimitShape(mut inner)) = sequence.next_element()? {
            // One that is a pair itself leaves the wrong number.
            values.append(&mut inner);
        }
        if values.len() != 2 {
            return Err(de::Error::custom(format_args!("expected {LIMIT}")));
        }
        Ok(LimitShape(values))
    }
}

impl<'de> Deserialize<'de> for LimitShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}
