//! The shape of `depends_on: ..`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use xy_actors::spec::Condition;

use super::optional_fields;

/// `depends_on` as written: a list of names, or a map from names to conditions.
#[derive(Debug, Default)]
pub(in crate::config) struct DependsShape(pub(in crate::config) Vec<(String, ConditionShape)>);

/// A condition as written: `Ready`, `Ready()` or `Ready(restart: true)`.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::config) struct ConditionShape {
    pub(in crate::config) condition: Condition,
    pub(in crate::config) restart: bool,
}

impl<'de> Deserialize<'de> for DependsShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DependsVisitor;

        impl<'de> Visitor<'de> for DependsVisitor {
            type Value = DependsShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list such as [\"db\"] or a map such as {\"db\": Healthy}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<DependsShape, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    names.push((name, ConditionShape::default()));
                }
                Ok(DependsShape(names))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DependsShape, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    entries.push((name, map.next_value()?));
                }
                Ok(DependsShape(entries))
            }
        }

        deserializer.deserialize_any(DependsVisitor)
    }
}

impl<'de> Deserialize<'de> for ConditionShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(variant_identifier)]
        enum Word {
            Started,
            Ready,
            Healthy,
            Completed,
        }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Along {
            restart: bool,
        }

        struct ConditionVisitor;

        impl<'de> Visitor<'de> for ConditionVisitor {
            type Value = ConditionShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a condition")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ConditionShape, A::Error> {
                let (word, rest) = data.variant()?;
                let Along { restart } = optional_fields(rest)?;
                let condition = match word {
                    Word::Started => Condition::Started,
                    Word::Ready => Condition::Ready,
                    Word::Healthy => Condition::Healthy,
                    Word::Completed => Condition::Completed,
                };
                Ok(ConditionShape { condition, restart })
            }
        }

        let words = &["Started", "Ready", "Healthy", "Completed"];
        deserializer.deserialize_enum("Condition", words, ConditionVisitor)
    }
}
