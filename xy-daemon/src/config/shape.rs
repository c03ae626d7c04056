//! The shape of the files: which keys exist, of which type, and how a parse error is told to people.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use ron::error::{Error as RonError, SpannedError};
use ron::extensions::Extensions;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, EnumAccess, MapAccess, VariantAccess, Visitor};
use xy_actors::process::{PortOwner, StopSignal};
use xy_actors::spec::RestartType;

use super::error::{ConfigError, nearest};
use super::outline::Outline;

/// `xyd.ron` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Daemon", deny_unknown_fields, default)]
pub(super) struct DaemonShape {
    pub(super) shutdown_timeout: Option<DurationText>,
    pub(super) log: Option<LogShape>,
}

/// `servers/NAME.ron` as written.
#[derive(Debug)]
pub(super) enum ServerShape {
    /// `Process(..)`.
    Process(Box<ProcessShape>),
}

/// `Process(..)` as written.
#[derive(Debug, Deserialize)]
#[serde(rename = "Process", deny_unknown_fields)]
pub(super) struct ProcessShape {
    pub(super) command: String,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: EnvShape,
    #[serde(default)]
    pub(super) working_dir: Option<String>,
    #[serde(default)]
    pub(super) port: Option<i64>,
    #[serde(default)]
    pub(super) port_owner: Option<PortOwner>,
    #[serde(default)]
    pub(super) ready: Option<ReadyShape>,
    #[serde(default)]
    pub(super) start_timeout: Option<DurationText>,
    #[serde(default)]
    pub(super) autostart: Option<bool>,
    #[serde(default)]
    pub(super) restart: RestartShape,
    #[serde(default)]
    pub(super) stop: StopShape,
    #[serde(default)]
    pub(super) log: LogShape,
}

/// `restart: (..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Restart", deny_unknown_fields, default)]
pub(super) struct RestartShape {
    pub(super) policy: Option<PolicyShape>,
    pub(super) backoff_initial: Option<DurationText>,
    pub(super) backoff_max: Option<DurationText>,
    pub(super) max_retries_per_minute: Option<i64>,
}

/// The restart type in the words of configuration files, then in OTP's.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename = "Policy")]
pub(super) enum PolicyShape {
    OnFailure,
    Always,
    Never,
    Transient,
    Permanent,
    Temporary,
}

impl From<PolicyShape> for RestartType {
    fn from(policy: PolicyShape) -> Self {
        match policy {
            PolicyShape::OnFailure | PolicyShape::Transient => Self::Transient,
            PolicyShape::Always | PolicyShape::Permanent => Self::Permanent,
            PolicyShape::Never | PolicyShape::Temporary => Self::Temporary,
        }
    }
}

/// `stop: (..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Stop", deny_unknown_fields, default)]
pub(super) struct StopShape {
    pub(super) signal: Option<StopSignal>,
    pub(super) grace: Option<DurationText>,
}

/// `log: (..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Log", deny_unknown_fields, default)]
pub(super) struct LogShape {
    pub(super) max_size: Option<SizeText>,
    pub(super) keep: Option<i64>,
    pub(super) buffer: Option<SizeText>,
}

/// `ready: ..` as written.
#[derive(Debug)]
pub(super) enum ReadyShape {
    Started,
    Tcp,
    Http(HttpShape),
    Mcp(McpShape),
}

/// `Http(..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpShape {
    pub(super) path: Option<String>,
}

/// `Mcp(..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct McpShape {
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
}

/// A duration as written, not yet parsed, so that a bad one is an error of meaning.
#[derive(Debug)]
pub(super) struct DurationText(pub(super) String);

/// A size as written, not yet parsed.
#[derive(Debug)]
pub(super) struct SizeText(pub(super) String);

/// Takes text and refuses numbers in its own words (ron would only say that it wants a string).
struct QuotedVisitor(&'static str);

impl Visitor<'_> for QuotedVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuotedVisitor("a duration in quotes, such as \"10s\"")).map(Self)
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuotedVisitor("a size in quotes, such as \"10MiB\"")).map(Self)
    }
}

/// Environment variables in the order of the file, each once.
#[derive(Default)]
pub(super) struct EnvShape(pub(super) Vec<(String, EnvValue)>);

impl fmt::Debug for EnvShape {
    /// Shows the names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The value of an environment variable.
pub(super) enum EnvValue {
    /// Text, or a boolean's name.
    Text(String),
    /// A number; this is how it prints, not how it was written.
    Number(String),
}

impl<'de> Deserialize<'de> for EnvShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnvVisitor;

        impl<'de> Visitor<'de> for EnvVisitor {
            type Value = EnvShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map such as {\"NAME\": \"value\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EnvShape, A::Error> {
                let mut seen = BTreeSet::new();
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    // Maps of serde let the last one win silently.
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom(DUPLICATE));
                    }
                    entries.push((name, map.next_value()?));
                }
                Ok(EnvShape(entries))
            }
        }

        deserializer.deserialize_map(EnvVisitor)
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl Visitor<'_> for ValueVisitor {
            type Value = EnvValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EnvValue, E> {
                Ok(EnvValue::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<EnvValue, E> {
                Ok(EnvValue::Text(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<EnvValue, E> {
                Ok(EnvValue::Number(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<EnvValue, E> {
                Ok(EnvValue::Number(number.to_string()))
            }

            fn visit_f32<E: de::Error>(self, number: f32) -> Result<EnvValue, E> {
                Ok(EnvValue::Number(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<EnvValue, E> {
                Ok(EnvValue::Number(number.to_string()))
            }

            // The default would show the bytes, and environment values never appear in messages.
            fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<EnvValue, E> {
                Err(E::custom("expected a string, a number or a boolean, found bytes"))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Takes `(key: value, ..)` after a variant's name and remembers whether there was a bracket at all.
struct FieldsVisitor<'a, T> {
    entered: &'a Cell<bool>,
    fields: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldsVisitor<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values in brackets")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        self.entered.set(true);
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads the fields of a variant that may also be written as its bare name (`Mcp`, `Mcp()`, `Mcp(path: "/x")`).
///
/// serde wants to know beforehand whether brackets follow. ron consumes nothing when an expected `(` is absent, so
/// a failure before the visitor was entered means that the name stands alone.
fn optional_fields<'de, A, T>(variant: A) -> Result<T, A::Error>
where
    A: VariantAccess<'de>,
    T: Deserialize<'de> + Default,
{
    let entered = Cell::new(false);
    match variant.struct_variant(&[], FieldsVisitor { entered: &entered, fields: PhantomData }) {
        Err(_) if !entered.get() => Ok(T::default()),
        result => result,
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
        }

        struct ReadyVisitor;

        impl<'de> Visitor<'de> for ReadyVisitor {
            type Value = ReadyShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one of `Started`, `Tcp`, `Http(..)`, `Mcp(..)`")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ReadyShape, A::Error> {
                let (word, rest) = data.variant()?;
                match word {
                    Word::Started => rest.unit_variant().map(|()| ReadyShape::Started),
                    Word::Tcp => rest.unit_variant().map(|()| ReadyShape::Tcp),
                    Word::Http => optional_fields(rest).map(ReadyShape::Http),
                    Word::Mcp => optional_fields(rest).map(ReadyShape::Mcp),
                }
            }
        }

        deserializer.deserialize_enum("Ready", &["Started", "Tcp", "Http", "Mcp"], ReadyVisitor)
    }
}

impl<'de> Deserialize<'de> for ServerShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(variant_identifier)]
        enum Word {
            Process,
            Supervisor,
        }

        struct ServerVisitor;

        impl<'de> Visitor<'de> for ServerVisitor {
            type Value = ServerShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Process(..)`")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ServerShape, A::Error> {
                let (word, rest) = data.variant()?;
                match word {
                    Word::Process => {
                        let entered = Cell::new(false);
                        let fields = FieldsVisitor { entered: &entered, fields: PhantomData };
                        rest.struct_variant(&[], fields).map(ServerShape::Process)
                    }
                    Word::Supervisor => Err(de::Error::custom(
                        "groups (`Supervisor(..)`) are not supported yet by this version",
                    )),
                }
            }
        }

        deserializer.deserialize_enum("Server", &["Process", "Supervisor"], ServerVisitor)
    }
}

/// The message of a duplicate map key; the key itself is taken from the text.
const DUPLICATE: &str = "duplicate key";

/// Brackets may nest this deep: far more than any file needs, far less than the stack holds.
const NESTING: usize = 64;

/// Parses one file's text; `form` says how such a file is written, for hints.
///
/// # Errors
/// Returns the first error of shape, as a list of one.
pub(super) fn parse<T: DeserializeOwned>(
    file: &Path,
    text: &str,
    outline: &Outline<'_>,
    form: &str,
) -> Result<T, Vec<ConfigError>> {
    ron::Options::default()
        .with_default_extension(
            Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES | Extensions::UNWRAP_VARIANT_NEWTYPES,
        )
        .with_recursion_limit(NESTING)
        .from_str(text)
        .map_err(|error| vec![told(file, outline, form, &error)])
}

/// Tells a parse error in our words, with its key path.
fn told(file: &Path, outline: &Outline<'_>, form: &str, error: &SpannedError) -> ConfigError {
    let cursor = outline.offset_of(error.span.end.line, error.span.end.col);
    // What was read and then refused lies before the cursor; what could not be read begins at it.
    let refused = outline.token_before(cursor).unwrap_or(cursor);
    let under = |parent: String, key: &str| {
        if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
    };
    let (offset, key, message, hint) = match &error.code {
        RonError::NoSuchStructField { expected, found, .. } => (
            refused,
            under(outline.parent_at(refused), found),
            format!("unknown key `{found}`, {}", one_of(expected)),
            did_you_mean(found, expected),
        ),
        RonError::NoSuchEnumVariant { expected, found, .. } => (
            refused,
            outline.path_at(refused),
            format!("unknown value `{found}`, {}", one_of(expected)),
            did_you_mean(found, expected),
        ),
        RonError::DuplicateStructField { field, .. } => {
            (refused, under(outline.parent_at(refused), field), format!("{DUPLICATE} `{field}`"), None)
        }
        RonError::MissingStructField { field, .. } => {
            (cursor, outline.parent_at(cursor), format!("missing key `{field}`"), None)
        }
        RonError::InvalidValueForType { expected, found } => {
            let found = found.replace("a sequence", "a list").replace("a unit value", "a bare word");
            let found = found.replace("unsigned integer", "number");
            (refused, outline.path_at(refused), format!("expected {expected}, found {found}"), None)
        }
        RonError::ExpectedDifferentStructName { found, .. } => {
            let hint = format!("the file is written as {form}");
            let key = outline.path_at(refused);
            let hint = key.is_empty().then_some(hint);
            (refused, key, format!("unexpected word `{found}`"), hint)
        }
        RonError::Message(message) if message == DUPLICATE => {
            let name = outline.word_at(refused).trim_matches('"');
            let parent = outline.parent_at(refused);
            (refused, under(parent, name), format!("{DUPLICATE} `{name}`"), None)
        }
        RonError::Message(message) => (refused, outline.path_at(refused), message.clone(), None),
        code => {
            let key = outline.path_at(cursor);
            let found = outline.word_at(cursor);
            // Whatever was expected next, the end of the file is what stands there.
            let kept = matches!(code, RonError::UnclosedBlockComment) || !found.is_empty();
            let code = if kept { code } else { &RonError::Eof };
            let hint = hint_for(code, &key, found, form);
            (cursor, key, in_our_words(code), hint)
        }
    };
    let (line, column) = outline.position_of(offset);
    ConfigError {
        file: file.to_owned(),
        line: Some(line),
        column: Some(column),
        key: Some(key).filter(|key| !key.is_empty()),
        message,
        hint,
    }
}

/// Lists what was expected.
fn one_of(expected: &[&str]) -> String {
    let words: Vec<String> = expected.iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => "expected nothing here".to_owned(),
        [word] => format!("expected {word}"),
        words => format!("expected one of {}", words.join(", ")),
    }
}

fn did_you_mean(found: &str, expected: &[&str]) -> Option<String> {
    nearest(found, expected).map(|word| format!("did you mean `{word}`?"))
}

/// Says what the parser wanted.
fn in_our_words(code: &RonError) -> String {
    let text = match code {
        RonError::Eof => "the file ends too early, a value or a closing bracket is missing",
        RonError::ExpectedArray => "expected a list `[..]`",
        RonError::ExpectedArrayEnd => "expected a closing `]`",
        RonError::ExpectedBoolean => "expected `true` or `false`",
        RonError::ExpectedComma => "expected a comma",
        RonError::ExpectedFloat => "expected a number",
        RonError::ExpectedInteger => "expected a whole number",
        RonError::IntegerOutOfBounds => "number is out of range",
        RonError::ExpectedMap => "expected a map `{..}`",
        RonError::ExpectedMapColon => "expected a colon",
        RonError::ExpectedMapEnd => "expected a closing `}`",
        RonError::ExpectedStructLike | RonError::ExpectedNamedStructLike(_) => "expected `(`",
        RonError::ExpectedStructLikeEnd | RonError::ExpectedOptionEnd => "expected a closing `)`",
        RonError::ExpectedString => "expected a string in quotes",
        RonError::ExpectedStringEnd => "expected a closing quote",
        RonError::ExpectedIdentifier => "expected a key or a word",
        RonError::TrailingCharacters => "expected the end of the file",
        RonError::UnclosedBlockComment => "block comment is never closed",
        RonError::ExceededRecursionLimit => "brackets are nested too deeply",
        other => {
            let text = other.to_string();
            let mut characters = text.chars();
            return characters
                .next()
                .map(|first| first.to_lowercase().chain(characters).collect())
                .unwrap_or_default();
        }
    };
    text.to_owned()
}

/// Returns what probably helps where the parser alone cannot know it.
fn hint_for(code: &RonError, key: &str, found: &str, form: &str) -> Option<String> {
    match code {
        RonError::ExpectedIdentifier if key == "ready" => {
            Some("write the key too, as in `Http(path: \"/health\")`".to_owned())
        }
        RonError::ExpectedIdentifier
        | RonError::ExpectedStructLike
        | RonError::ExpectedNamedStructLike(_)
            if key.is_empty() =>
        {
            Some(format!("the file is written as {form}"))
        }
        RonError::ExpectedString if found.starts_with(|c: char| c.is_ascii_digit()) => {
            Some("put the number in quotes".to_owned())
        }
        RonError::ExpectedInteger if found.starts_with('"') => Some("leave out the quotes".to_owned()),
        _ => None,
    }
}
