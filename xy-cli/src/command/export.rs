//! `xyctl export`: what clients, systemd and Kubernetes read, from servers.

mod kubernetes;
mod mcp;
mod systemd;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use xy_daemon::config::{Config, LoadOptions, ServerConfig, Trust};
use xy_daemon::paths::Directories;
use xy_daemon::protocol::pattern;

use crate::args::{ExportArgs, ExportFilesArgs, ExportTarget};
use crate::error::{CommandError, exit_code};
use crate::output::text::neutral;
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(args: &ExportArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    match &args.target {
        ExportTarget::Mcp(args) => mcp::run(args, session).await,
        ExportTarget::Systemd(args) => {
            let source = Source::load(&args.files)?;
            let surroundings = systemd::Surroundings::of_process(args.system);
            deliver(source.with_rejected(systemd::export(&source, &surroundings)), &args.files, session)
        }
        ExportTarget::Kubernetes(args) => {
            let source = Source::load(&args.files)?;
            let export = kubernetes::export(&source, args.image.as_deref())?;
            deliver(source.with_rejected(export), &args.files, session)
        }
    }
}

/// What servers came to.
#[derive(Debug, Default)]
struct Export {
    files: Vec<ExportedFile>,
    /// What was not carried over.
    left: Vec<Left>,
}

/// One file of another program.
#[derive(Debug)]
struct ExportedFile {
    /// Its name, without a directory.
    name: String,
    text: String,
}

/// Something that was not carried over.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// Of which server.
    server: String,
    /// What, and what that means.
    what: String,
}

impl Export {
    fn left(&mut self, server: &str, what: impl Into<String>) {
        self.left.push(Left { server: server.to_owned(), what: what.into() });
    }
}

/// The servers to export, in the configuration that they belong to.
#[derive(Debug)]
struct Source {
    config: Config,
    /// The directory that servers run in unless their file names one.
    default_dir: PathBuf,
    chosen: Vec<String>,
}

impl Source {
    fn load(args: &ExportFilesArgs) -> Result<Self, CommandError> {
        let directories = Directories::of_user()?;
        let mut options = LoadOptions::new(std::env::home_dir());
        if let Some(directory) = &args.servers {
            let unreadable = |source| CommandError::Directory { path: directory.clone(), source };
            fs::read_dir(directory).map_err(unreadable)?;
            options.servers = Some(std::path::absolute(directory).map_err(unreadable)?);
            options.trust = Trust::Unchecked;
            // As `xyctl up` does.
            options.default_dir = std::env::current_dir().map_err(unreadable)?;
        }
        let config = Config::load(&directories.config, &options)?;
        Self::of(config, options.default_dir, &args.names)
    }

    fn of(config: Config, default_dir: PathBuf, names: &[String]) -> Result<Self, CommandError> {
        let means = |name: &str, server: &ServerConfig| {
            pattern::matches(name, &server.name, &server.tags)
                || server.base == *name
                || server.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
        };
        let is_chosen =
            |server: &&ServerConfig| names.is_empty() || names.iter().any(|name| means(name, server));
        if let Some(name) =
            names.iter().find(|name| !config.servers.values().any(|server| means(name, server)))
        {
            return Err(CommandError::ServerNotFound { name: name.clone(), nearest: None });
        }
        let chosen = config.servers.values().filter(is_chosen).map(|server| server.name.clone()).collect();
        Ok(Self { config, default_dir, chosen })
    }

    /// Adds what no file of this directory is carried over from.
    fn with_rejected(&self, mut export: Export) -> Export {
        for file in &self.config.rejected {
            let errors: Vec<String> = file.errors.iter().map(ToString::to_string).collect();
            export.left(&file.name, format!("all of it: {}", errors.join("; ")));
        }
        export
    }

    fn servers(&self) -> impl Iterator<Item = &ServerConfig> {
        self.chosen.iter().filter_map(|name| self.config.servers.get(name))
    }

    /// Returns the servers that a sibling of `server` of this id stands for: itself, or all of a group.
    fn siblings(&self, server: &ServerConfig, id: &str) -> Vec<&ServerConfig> {
        let path = match server.name.rsplit_once('/') {
            Some((group, _)) => format!("{group}/{id}"),
            None => id.to_owned(),
        };
        let is_in =
            |name: &str| name == path || name.strip_prefix(&path).is_some_and(|rest| rest.starts_with('/'));
        self.config.servers.values().filter(|other| is_in(&other.name)).collect()
    }

    /// Returns whether somebody waits for a server to have completed.
    fn is_job(&self, server: &ServerConfig) -> bool {
        use xy_actors::spec::Condition;
        self.config.servers.values().any(|other| {
            other.child.depends_on.iter().any(|dependency| {
                dependency.condition == Condition::Completed
                    && self.siblings(other, dependency.on.as_str()).iter().any(|one| one.name == server.name)
            })
        })
    }
}

/// Prints or writes what there is, and says what is missing.
fn deliver(export: Export, args: &ExportFilesArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    if let Some(directory) = &args.into {
        write_all(directory, &export.files, args.force)?;
    }
    if session.output.is_json() {
        let files: Vec<_> =
            export.files.iter().map(|file| json!({ "name": file.name, "text": file.text })).collect();
        let left: Vec<_> =
            export.left.iter().map(|left| json!({ "server": left.server, "what": left.what })).collect();
        session.output.json(&json!({ "written": args.into.is_some(), "files": files, "left": left }))?;
        return Ok(exit_code::SUCCESS);
    }
    for file in &export.files {
        match &args.into {
            Some(directory) => {
                let path = directory.join(&file.name).display().to_string();
                session.output.line(&format!("wrote {}", neutral(&path)))?;
            }
            None => {
                session.output.line(&format!("# {}", file.name))?;
                session.output.line(file.text.trim_end())?;
            }
        }
    }
    tell_left(&export.left, session);
    Ok(exit_code::SUCCESS)
}

fn tell_left(left: &[Left], session: &mut Session<'_>) {
    if !left.is_empty() {
        session.output.note("not carried over:");
    }
    for left in left {
        session.output.note(&format!("  {}: {}", left.server, neutral(&left.what)));
    }
}

fn write_all(directory: &Path, files: &[ExportedFile], force: bool) -> Result<(), CommandError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CommandError::Write { path, source }
    };
    if !force
        && let Some(path) =
            files.iter().map(|file| directory.join(&file.name)).find(|path| path.symlink_metadata().is_ok())
    {
        // Nothing is written: half of it is harder to undo than none.
        let exists = io::Error::new(io::ErrorKind::AlreadyExists, "it exists; `--force` overwrites it");
        return Err(failed(&path)(exists));
    }
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for file in files {
        let path = directory.join(&file.name);
        // A variable may be a secret.
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).create(true).truncate(true);
        let mut written = options.open(&path).map_err(failed(&path))?;
        written.write_all(file.text.as_bytes()).map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod fixture {
    //! Servers for the tests of each format.

    use super::*;

    /// Reads server files from their texts.
    pub(super) fn source(files: &[(&str, &str)]) -> Source {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            fs::write(directory.path().join(format!("{name}.ron")), text).expect("it is empty");
        }
        let options = LoadOptions {
            servers: Some(directory.path().to_owned()),
            trust: Trust::Unchecked,
            default_dir: PathBuf::from("/home/me"),
            ..LoadOptions::new(Some(PathBuf::from("/home/me")))
        };
        let config = Config::load(directory.path(), &options).expect("it can be listed");
        assert_eq!(config.errors().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
        Source::of(config, options.default_dir, &[]).expect("no names")
    }

    /// Returns the text of one file.
    pub(super) fn text<'a>(export: &'a Export, name: &str) -> &'a str {
        let file = export.files.iter().find(|file| file.name == name);
        &file.unwrap_or_else(|| panic!("{name} is not in {:?}", export.files)).text
    }

    /// Returns whether something of a server was left that contains a text.
    pub(super) fn is_left(export: &Export, server: &str, what: &str) -> bool {
        export.left.iter().any(|left| left.server == server && left.what.contains(what))
    }
}
