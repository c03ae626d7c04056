//! The keys for what a process gets beside its command line: from their shape to [`ProcessSettings`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use xy_actors::process::settings::{
    EnvFile, Identity, IdentityError, ProcessSettings, Resource, ResourceLimit, SearchPath, SecretSource,
    Stdin,
};

use super::super::error::nearest;
use super::super::shape::{
    LimitShape, LimitValue, LimitsShape, MaskText, NameText, PathShape, ProcessShape, SecretShape, StdinShape,
};
use super::super::{LoadOptions, quantity};
use super::Checker;

/// Where paths of one server start.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// What `~` stands for.
    home: Option<PathBuf>,
    /// The directory it runs in unless its file names one, and where a relative one starts.
    default_dir: PathBuf,
}

impl Checker<'_> {
    /// Finds out as whom a server runs, which decides where its paths start.
    pub(super) fn places(&mut self, shape: &ProcessShape, options: &LoadOptions) -> Places {
        let ours = Places { home: options.home.clone(), default_dir: options.default_dir.clone() };
        let user = self.name("user", shape.user.as_ref());
        let group = self.name("group", shape.group.as_ref());
        let identity = match Identity::look_up(user, group) {
            Ok(identity) => identity,
            Err(error) => {
                let key = match &error {
                    IdentityError::UnknownGroup(_) => "group",
                    _ if user.is_some() => "user",
                    _ => "group",
                };
                // The text says what to do after a colon; here that is the hint.
                let text = match &error {
                    IdentityError::Lookup { source, .. } => format!("{error}: {source}"),
                    _ => error.to_string(),
                };
                match text.split_once(": ") {
                    Some((message, hint)) => self.error_with_hint(key, message, hint),
                    None => self.error(key, text),
                }
                None
            }
        };
        match identity.filter(|_| user.is_some()) {
            Some(identity) => Places {
                default_dir: identity.home.clone().unwrap_or_else(|| PathBuf::from("/")),
                home: identity.home,
            },
            None => ours,
        }
    }

    fn name<'t>(&mut self, key: &str, name: Option<&'t NameText>) -> Option<&'t str> {
        let name = name?.0.as_str();
        if name.is_empty() || name.contains('\0') {
            self.error(key, "is empty or contains a NUL character, expected a name or a number");
            return None;
        }
        Some(name)
    }

    pub(super) fn working_dir(&mut self, text: Option<&str>, places: &Places) -> PathBuf {
        const KEY: &str = "working_dir";
        let Some(text) = text else { return places.default_dir.clone() };
        if text.is_empty() {
            self.error(KEY, "is empty, expected a directory");
        }
        self.path(KEY, text, &places.default_dir, places)
    }

    /// Makes a whole path of one that begins with `~`, `~user`, or nothing.
    fn path(&mut self, key: &str, text: &str, start: &Path, places: &Places) -> PathBuf {
        self.no_nul(key, "the path", text);
        let Some(rest) = text.strip_prefix('~') else { return start.join(text) };
        let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let home = if name.is_empty() {
            if places.home.is_none() {
                self.error_with_hint(
                    key,
                    "`~` needs a home directory, and none is known",
                    "set HOME, or write the whole path",
                );
            }
            places.home.clone()
        } else {
            let user = User::from_name(name).ok().flatten();
            if user.is_none() {
                self.error_with_hint(
                    key,
                    format!(
                        "`~{name}` stands for the home directory of a user, and there is no user `{name}`"
                    ),
                    format!("write `./~{name}` for a directory of that name, or the whole path"),
                );
            }
            user.map(|user| user.dir)
        };
        match (home, rest.trim_start_matches('/')) {
            (Some(home), "") => home,
            (Some(home), rest) => home.join(rest),
            (None, _) => PathBuf::from(text),
        }
    }

    /// Reads all of it but what [`places`](Self::places) has reported already.
    pub(super) fn settings(&mut self, shape: &ProcessShape, dir: &Path, places: &Places) -> ProcessSettings {
        let text = |name: &Option<NameText>| name.as_ref().map(|name| name.0.clone());
        ProcessSettings {
            user: text(&shape.user),
            group: text(&shape.group),
            umask: shape.umask.as_ref().and_then(|mask| self.umask(mask)),
            nice: self.whole("nice", shape.nice, -20, 19),
            limits: self.limits(&shape.limits),
            no_new_privs: shape.no_new_privs,
            oom_score_adj: self.whole("oom_score_adj", shape.oom_score_adj, -1000, 1000),
            stdin: match &shape.stdin {
                None | Some(StdinShape::Null) => Stdin::Null,
                Some(StdinShape::File(path)) => {
                    if path.is_empty() {
                        self.error("stdin", "names no file");
                    }
                    Stdin::File(self.path("stdin", path, dir, places))
                }
            },
            env_files: shape.env_files.iter().map(|text| self.env_file(text, dir, places)).collect(),
            secrets: self.secrets(shape, dir, places),
            env_base: shape.env_base.unwrap_or_default(),
            path: self.search_path(shape, places),
        }
    }

    fn umask(&mut self, text: &MaskText) -> Option<u32> {
        let MaskText(text) = text;
        let mask = u32::from_str_radix(text, 8).ok();
        let mask = mask.filter(|mask| *mask <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()));
        if mask.is_none() {
            self.error("umask", format!("`{text}` is no octal mask from \"000\" to \"777\""));
        }
        mask
    }

    fn whole(&mut self, key: &str, number: Option<i64>, least: i32, most: i32) -> Option<i32> {
        let number = number?;
        let fitting = i32::try_from(number).ok().filter(|number| (least..=most).contains(number));
        if fitting.is_none() {
            self.error(key, format!("{number} is out of range, expected a number from {least} to {most}"));
        }
        fitting
    }

    fn limits(&mut self, shape: &LimitsShape) -> Vec<ResourceLimit> {
        shape.entries().filter_map(|(resource, limit)| self.resource_limit(resource, limit)).collect()
    }

    fn resource_limit(
        &mut self,
        resource: Resource,
        LimitShape(values): &LimitShape,
    ) -> Option<ResourceLimit> {
        let key = format!("limits.{}", resource.as_str());
        let mut known = Vec::new();
        for value in values {
            match limit_value(resource, value) {
                Ok(value) => known.push(value),
                Err(message) => self.error(&key, message),
            }
        }
        let (soft, hard) = (*known.first()?, *known.last()?);
        if soft > hard {
            self.error(&key, "the soft limit is above the hard one");
        }
        Some(ResourceLimit { resource, soft, hard })
    }

    fn env_file(&mut self, text: &str, dir: &Path, places: &Places) -> EnvFile {
        let (path, optional) = match text.strip_prefix('-') {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            self.error("env_files", "names no file");
        }
        EnvFile { path: self.path("env_files", path, dir, places), optional }
    }

    fn secrets(
        &mut self,
        shape: &ProcessShape,
        dir: &Path,
        places: &Places,
    ) -> BTreeMap<String, SecretSource> {
        let mut secrets = BTreeMap::new();
        for (name, source) in &shape.secrets.0 {
            let key = format!("secrets.{name}");
            self.variable_name("secrets", &key, name);
            if shape.env.0.iter().any(|(other, _)| other == name) {
                self.error(&key, format!("`env` sets {name} too; remove one of them"));
            }
            let source = match source {
                SecretShape::Env(variable) => {
                    if variable.is_empty() || variable.contains(['=', '\0']) {
                        self.error(&key, "names no variable");
                    }
                    SecretSource::Env(variable.clone())
                }
                SecretShape::File(path) => {
                    if path.is_empty() {
                        self.error(&key, "names no file");
                    }
                    SecretSource::File(self.path(&key, path, dir, places))
                }
                SecretShape::Command(words) => {
                    if words.first().is_none_or(|program| program.trim().is_empty()) {
                        self.error(&key, "is empty, expected a list of a program and its arguments");
                    }
                    for (index, word) in words.iter().enumerate() {
                        let what =
                            if index == 0 { "the command".to_owned() } else { format!("argument {index}") };
                        self.no_nul(&key, &what, word);
                    }
                    SecretSource::Command(words.clone())
                }
            };
            secrets.insert(name.clone(), source);
        }
        secrets
    }

    fn search_path(&mut self, shape: &ProcessShape, places: &Places) -> SearchPath {
        const KEY: &str = "path";
        let path = match &shape.path {
            None => return SearchPath::Inherit,
            Some(PathShape::Word) => {
                // The parser forgets which word it was.
                let word = self.value_of(KEY).map_or("", |offset| self.outline.word_at(offset));
                match word {
                    "Login" => SearchPath::Login,
                    "Inherit" => SearchPath::Inherit,
                    word => {
                        let hint = nearest(word, &["Login", "Inherit"])
                            .map(|word| format!("did you mean `{word}`?"));
                        let message = format!(
                            "unknown value `{word}`, expected `Login`, `Inherit` or directories in quotes"
                        );
                        self.note(KEY, message, hint);
                        SearchPath::Inherit
                    }
                }
            }
            Some(PathShape::Literal(text)) => {
                let mut dirs = Vec::new();
                for dir in text.split(':') {
                    let dir = self.path(KEY, dir, Path::new(""), places);
                    if !dir.is_absolute() {
                        self.error(KEY, format!("`{}` is not a whole path", dir.display()));
                    }
                    dirs.push(dir.display().to_string());
                }
                SearchPath::Literal(dirs.join(":"))
            }
        };
        if shape.env.0.iter().any(|(name, _)| name == "PATH") {
            self.error(KEY, "`env` sets PATH too; remove one of them");
        }
        path
    }
}

/// Returns a limit in the unit of its resource.
fn limit_value(resource: Resource, value: &LimitValue) -> Result<u64, String> {
    let text = match value {
        LimitValue::Number(number) => {
            return u64::try_from(*number).map_err(|_| format!("{number} is negative"));
        }
        LimitValue::Text(text) if text == "unlimited" => return Ok(ResourceLimit::UNLIMITED),
        LimitValue::Text(text) => text,
    };
    match resource {
        Resource::Cpu => quantity::duration(text).map(|duration| duration.as_secs()),
        Resource::Nofile | Resource::Nproc => {
            Err(format!("cannot read `{text}`, expected a number or \"unlimited\""))
        }
        _ => quantity::size(text),
    }
}
