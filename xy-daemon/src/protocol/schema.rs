//! JSON Schema of the types of the wire: for the reference page, the OpenAPI document and `capabilities`.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Method;

/// One method, described by its types.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodSchema {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub summary: String,
    /// What it takes.
    pub params: Value,
    /// What it answers.
    pub result: Value,
}

impl MethodSchema {
    pub(super) fn of<M: Method>(summary: &str, results: Option<&mut Definitions>) -> Self
    where
        M::Params: JsonSchema,
        M::Result: JsonSchema,
    {
        Self {
            name: M::NAME,
            summary: plain(summary.trim()),
            params: of_params::<M::Params>(),
            result: match results {
                Some(results) => results.of_result::<M::Result>(),
                None => of_result::<M::Result>(),
            },
        }
    }
}

/// The schemas of several types, which refer to each other by name instead of repeating each other.
#[derive(Debug)]
pub struct Definitions(SchemaGenerator);

impl Definitions {
    /// Creates an empty set, whose place in its document is `path`, for instance `/components/schemas`.
    pub fn at(path: &'static str) -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let settings = settings.with(|settings| settings.definitions_path = path.into());
        Self(settings.into_generator())
    }

    /// Returns the schema of what is written, as a reference where it has a name.
    pub fn of_result<T: JsonSchema>(&mut self) -> Value {
        self.0.subschema_for::<T>().to_value()
    }

    /// Returns every schema that was referred to, by name.
    pub fn finish(mut self) -> Map<String, Value> {
        let mut definitions = self.0.take_definitions(true);
        definitions.values_mut().for_each(exact_value);
        definitions
    }
}

/// Returns the schema of what is read, complete in itself.
pub fn of_params<T: JsonSchema>() -> Value {
    finished::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// Returns the schema of what is written, complete in itself.
pub fn of_result<T: JsonSchema>() -> Value {
    finished::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn finished<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    exact(&mut schema);
    schema.to_value()
}

fn exact(schema: &mut Schema) {
    if let Some(members) = schema.as_object_mut() {
        exact_members(members);
    }
}

/// Bounds integers by their types, which the name of a format alone does not, and turns documentation into plain text.
fn exact_members(members: &mut Map<String, Value>) {
    let largest = match members.get("format").and_then(Value::as_str) {
        Some("uint64") => Some(json!(u64::MAX)),
        Some("uint32") => Some(json!(u32::MAX)),
        Some("uint16") => Some(json!(u16::MAX)),
        Some("int32") => Some(json!(i32::MAX)),
        _ => None,
    };
    if let Some(largest) = largest {
        members.insert("maximum".to_owned(), largest);
    }
    if let Some(Value::String(description)) = members.get_mut("description") {
        *description = plain(description);
    }
    for value in members.values_mut() {
        exact_value(value);
    }
}

fn exact_value(value: &mut Value) {
    match value {
        Value::Object(members) => exact_members(members),
        Value::Array(items) => items.iter_mut().for_each(exact_value),
        _ => {}
    }
}

/// Takes the links out of a documentation comment: they lead into the program.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("[`") {
        plain.push_str(&rest[..start]);
        let Some(end) = rest[start..].find("`]") else { break };
        plain.push_str(&rest[start + 1..start + end + 1]);
        rest = &rest[start + end + 2..];
        if let Some(target) = rest.strip_prefix('(')
            && let Some(end) = target.find(')')
        {
            rest = &target[end + 1..];
        }
    }
    plain.push_str(rest);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::method::{LogsParams, METHODS, OperationParams, StatusResult, descriptions};

    #[test]
    fn every_method_is_described_in_a_sentence_and_by_its_types() {
        let described = descriptions(None);
        assert_eq!(described.iter().map(|one| one.name).collect::<Vec<_>>(), METHODS);
        for one in described {
            assert!(one.summary.ends_with('.') && !one.summary.contains("[`"), "{}", one.summary);
            for schema in [&one.params, &one.result] {
                assert!(!schema.to_string().contains("$ref"), "{} is not complete: {schema}", one.name);
            }
        }
    }

    #[test]
    fn a_schema_says_what_is_refused() {
        let params = of_params::<OperationParams>();
        assert_eq!(params["additionalProperties"], json!(false), "{params}");
        assert_eq!(params["properties"]["names"]["type"], "array", "{params}");
        let params = of_params::<LogsParams>();
        assert_eq!(params["required"], json!(["name"]));
        assert_eq!(params["properties"]["tail"]["maximum"], json!(u64::MAX));
    }

    #[test]
    fn a_schema_of_a_result_has_the_members_of_what_is_laid_into_it() {
        let result = of_result::<StatusResult>();
        for member in ["name", "transitions"] {
            assert!(result["properties"].get(member).is_some(), "{member} in {result}");
        }
    }

    #[test]
    fn links_become_words() {
        assert_eq!(plain("see [`List`] and [`V`](super::V),\n or `x`"), "see `List` and `V`, or `x`");
    }
}
