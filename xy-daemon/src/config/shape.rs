//! The shape of the files: which keys exist, and of which type.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use crate::permission::Decision;
use ron::extensions::Extensions;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, EnumAccess, MapAccess, VariantAccess, Visitor};
use xy_actors::process::settings::EnvBase;
use xy_actors::process::{PortOwner, StopSignal};
use xy_actors::spec::RestartType;

use super::diagnosis::{self, DUPLICATE};
use super::error::ConfigError;
use super::outline::Outline;

mod depends;
mod group;
mod ready;
mod settings;

pub(super) use self::depends::DependsShape;
pub(super) use self::group::{GroupShape, IntensityShape};
pub(super) use self::ready::{
    ExecShape, HeaderShape, HttpShape, LivenessShape, McpShape, NotifyShape, ReadyShape, StatusShape,
    TcpShape,
};
pub(super) use settings::{
    LimitShape, LimitValue, LimitsShape, MaskText, NameText, PathShape, SecretShape, SecretsShape, StdinShape,
};

/// `xyd.ron` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Daemon", deny_unknown_fields, default)]
pub(super) struct DaemonShape {
    pub(super) shutdown_timeout: Option<DurationText>,
    pub(super) log: Option<LogShape>,
    pub(super) http: Option<ListenShape>,
    pub(super) idle_shutdown: Option<DurationText>,
    pub(super) events: Option<EventsShape>,
    pub(super) permissions: Option<Vec<RuleShape>>,
    pub(super) permission_timeout: Option<DurationText>,
}

/// `events: (..)` in `xyd.ron` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Events", deny_unknown_fields, default)]
pub(super) struct EventsShape {
    pub(super) keep: Option<i64>,
    pub(super) age: Option<DurationText>,
}

/// One of `permissions: [(..)]` in `xyd.ron` as written.
#[derive(Debug, Deserialize)]
#[serde(rename = "Permission", deny_unknown_fields)]
pub(super) struct RuleShape {
    pub(super) decision: Decision,
    #[serde(default)]
    pub(super) client: Option<String>,
    #[serde(default)]
    pub(super) server: Option<String>,
    #[serde(default)]
    pub(super) tool: Option<String>,
    #[serde(default)]
    pub(super) action: Option<String>,
}

/// `http: (..)` in `xyd.ron` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Http", deny_unknown_fields, default)]
pub(super) struct ListenShape {
    pub(super) listen: Option<String>,
    pub(super) rotate_token: Option<DurationText>,
}

/// `servers/NAME.ron` as written.
#[derive(Debug)]
pub(super) enum ServerShape {
    /// `Process(..)`.
    Process(Box<ProcessShape>),
    /// `Supervisor(..)`.
    Group(Box<GroupShape>),
}

/// `Process(..)` as written.
#[derive(Debug, Deserialize)]
#[serde(rename = "Process", deny_unknown_fields)]
pub(super) struct ProcessShape {
    #[serde(default)]
    pub(super) name: Option<String>,
    pub(super) command: String,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: EnvShape,
    #[serde(default)]
    pub(super) env_files: Vec<String>,
    #[serde(default)]
    pub(super) secrets: SecretsShape,
    #[serde(default)]
    pub(super) env_base: Option<EnvBase>,
    #[serde(default)]
    pub(super) path: Option<PathShape>,
    #[serde(default)]
    pub(super) working_dir: Option<String>,
    #[serde(default)]
    pub(super) stdin: Option<StdinShape>,
    #[serde(default)]
    pub(super) user: Option<NameText>,
    #[serde(default)]
    pub(super) group: Option<NameText>,
    #[serde(default)]
    pub(super) umask: Option<MaskText>,
    #[serde(default)]
    pub(super) nice: Option<i64>,
    #[serde(default)]
    pub(super) limits: LimitsShape,
    #[serde(default)]
    pub(super) no_new_privs: Option<bool>,
    #[serde(default)]
    pub(super) oom_score_adj: Option<i64>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) instances: Option<i64>,
    #[serde(default)]
    pub(super) port: Option<i64>,
    #[serde(default)]
    pub(super) port_owner: Option<PortOwner>,
    #[serde(default)]
    pub(super) ready: Option<ReadyShape>,
    #[serde(default)]
    pub(super) liveness: Option<LivenessShape>,
    #[serde(default)]
    pub(super) watchdog: Option<DurationText>,
    #[serde(default)]
    pub(super) start_timeout: Option<DurationText>,
    #[serde(default)]
    pub(super) depends_on: DependsShape,
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
    pub(super) command: Option<Vec<String>>,
}

/// `log: (..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Log", deny_unknown_fields, default)]
pub(super) struct LogShape {
    pub(super) max_size: Option<SizeText>,
    pub(super) max_age: Option<DurationText>,
    pub(super) keep: Option<i64>,
    pub(super) buffer: Option<SizeText>,
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
                f.write_str("`Process(..)` or `Supervisor(..)`")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ServerShape, A::Error> {
                let (word, rest) = data.variant()?;
                let entered = Cell::new(false);
                match word {
                    Word::Process => {
                        let fields = FieldsVisitor { entered: &entered, fields: PhantomData };
                        rest.struct_variant(&[], fields).map(ServerShape::Process)
                    }
                    Word::Supervisor => {
                        let fields = FieldsVisitor { entered: &entered, fields: PhantomData };
                        rest.struct_variant(&[], fields).map(ServerShape::Group)
                    }
                }
            }
        }

        deserializer.deserialize_enum("Server", &["Process", "Supervisor"], ServerVisitor)
    }
}

/// Brackets may nest this deep: groups in groups would else overflow the stack.
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
        .map_err(|error| vec![diagnosis::told(file, outline, form, &error)])
}
