//! `xyctl import`: server files from what other tools read.

mod dotenv;
mod ini;
mod mcp;
mod process_compose;
mod procfile;
mod server;
mod shell;
mod supervisord;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xy_daemon::paths::Directories;

use self::server::Server;
use crate::args::{ImportArgs, ImportFlavor};
use crate::error::{CommandError, ImportError, exit_code};
use crate::output::text::neutral;
use crate::session::Session;

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// How long the end of a daemon takes at most, unless its settings say otherwise.
const SHUTDOWN_SECONDS: u64 = 30;

/// What a file came to.
#[derive(Debug, Default)]
struct Import {
    servers: Vec<Server>,
    /// The servers that an entry became, by the name of the entry.
    names: BTreeMap<String, Vec<String>>,
    /// What was not carried over.
    left: Vec<Left>,
}

/// Something that was not carried over.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// Of which entry; `None` means the file.
    entry: Option<String>,
    /// What, and what to do about it.
    what: String,
}

/// Where a file is, as far as its contents refer to it.
#[derive(Debug)]
struct Origin {
    /// The directory of the file, as an absolute path.
    directory: PathBuf,
    /// The name of the file; standard input has none.
    file: Option<OsString>,
}

impl Import {
    fn left(&mut self, entry: &str, what: impl Into<String>) {
        self.note(Left { entry: Some(entry.to_owned()), what: what.into() });
    }

    fn left_of_file(&mut self, what: impl Into<String>) {
        self.note(Left { entry: None, what: what.into() });
    }

    /// Each thing is said once, also of an entry that becomes several servers.
    fn note(&mut self, left: Left) {
        if !self.left.contains(&left) {
            self.left.push(left);
        }
    }

    /// Adds a server under the nearest name that a server can have.
    fn add(&mut self, server: Server) {
        let entry = server.name.clone();
        self.add_of(&entry, server);
    }

    /// Adds one of the servers that an entry becomes.
    fn add_of(&mut self, entry: &str, mut server: Server) {
        let asked = std::mem::take(&mut server.name);
        let plain = server::plain_name(&asked);
        let mut name = plain.clone();
        let mut number = 2;
        while self.servers.iter().any(|other| other.name == name) {
            name = format!("{plain}-{number}");
            number += 1;
        }
        if name != asked {
            self.left(&asked, format!("its name; here it is `{name}`"));
        }
        self.names.entry(entry.to_owned()).or_default().push(name.clone());
        server.name = name;
        self.servers.push(server);
    }

    /// Makes the servers fit each other: who waits for whom, and who has which port.
    fn settle(&mut self) {
        let mut notes = Vec::new();
        let endless: Vec<String> = self
            .servers
            .iter()
            .filter(|server| server.restart.policy == Some("Always"))
            .map(|server| server.name.clone())
            .collect();
        for server in &mut self.servers {
            let mut settled: Vec<(String, &'static str)> = Vec::new();
            for (entry, condition) in std::mem::take(&mut server.depends_on) {
                let Some(names) = self.names.get(&entry) else {
                    notes.push((
                        server.name.clone(),
                        format!("it waits for `{entry}`, which is no server here"),
                    ));
                    continue;
                };
                for name in names {
                    if condition == "Completed" && endless.contains(name) {
                        notes.push((
                            server.name.clone(),
                            format!("it waits for the end of `{name}`, which is restarted whenever it ends"),
                        ));
                    } else if !settled.iter().any(|(other, _)| other == name) {
                        settled.push((name.clone(), condition));
                    }
                }
            }
            server.depends_on = settled;
        }
        let mut holders: BTreeMap<u16, String> = BTreeMap::new();
        for server in &mut self.servers {
            let holder = server.ports().find_map(|port| Some((port, holders.get(&port)?.clone())));
            if let Some((port, holder)) = holder {
                notes.push((server.name.clone(), format!("its port {port}, which `{holder}` has already")));
                server.without_port();
            }
            holders.extend(server.ports().map(|port| (port, server.name.clone())));
        }
        for (name, what) in notes {
            self.left(&name, what);
        }
        let slow = self.servers.iter().filter(|server| server.stop.grace > Some(SHUTDOWN_SECONDS));
        let slow: Vec<_> = slow.map(|server| format!("`{}`", server.name)).collect();
        if !slow.is_empty() {
            self.left_of_file(format!(
                "the time that {} may take to stop, when xyd itself ends; see `shutdown_timeout` in `xyd.ron`, \
                 which is {SHUTDOWN_SECONDS} s unless it is there",
                slow.join(", ")
            ));
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &ImportArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    // The parser of arguments asks for at least one.
    let Some((file, over)) = args.files.split_first() else { return Ok(exit_code::USAGE) };
    if let Some(second) = over.first()
        && args.flavor != ImportFlavor::ProcessCompose
    {
        let shown = second.display();
        return Err(CommandError::Usage(format!(
            "`{shown}` is one file too many: only those of process-compose go over each other"
        )));
    }
    let (text, origin) = read(file)?;
    let over =
        over.iter().map(|file| Ok((file.clone(), read(file)?))).collect::<Result<Vec<_>, ImportError>>()?;
    let unreadable = |path: &Path, message| ImportError::Unreadable { path: path.to_owned(), message };
    let parsed = match args.flavor {
        ImportFlavor::Mcp => mcp::read(&text, &origin).map_err(|message| unreadable(file, message)),
        ImportFlavor::Procfile => procfile::read(&text, &origin).map_err(|message| unreadable(file, message)),
        ImportFlavor::Supervisord => {
            supervisord::read(&text, &origin).map_err(|message| unreadable(file, message))
        }
        ImportFlavor::ProcessCompose => {
            let over: Vec<_> = over.iter().map(|(_, (text, origin))| (text.as_str(), origin)).collect();
            process_compose::read(&text, &origin, &over)
                .map_err(|(index, message)| unreadable(&args.files[index], message))
        }
    };
    let mut import = parsed?;
    import.settle();
    let directory = match &args.into {
        Some(directory) => directory.clone(),
        None => Directories::of_user()?.servers(),
    };
    let files: Vec<(PathBuf, String)> = import
        .servers
        .iter()
        .map(|server| (directory.join(format!("{}.ron", server.name)), server.to_ron()))
        .collect();
    if !args.dry_run {
        if !args.force
            && let Some((path, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok())
        {
            // Nothing is written: half an import is harder to undo than none.
            return Err(ImportError::Exists { path: path.clone() }.into());
        }
        if !files.is_empty() {
            fs::create_dir_all(&directory)
                .map_err(|source| ImportError::File { path: directory.clone(), source })?;
        }
        for (path, text) in &files {
            write(path, text, args.force)
                .map_err(|source| ImportError::File { path: path.clone(), source })?;
        }
    }
    report(args, &import, &files, session)?;
    Ok(exit_code::SUCCESS)
}

fn report(
    args: &ImportArgs,
    import: &Import,
    files: &[(PathBuf, String)],
    session: &mut Session<'_>,
) -> Result<(), CommandError> {
    if session.output.is_json() {
        let files: Vec<_> = files
            .iter()
            .zip(&import.servers)
            .map(|((path, text), server)| json!({ "name": server.name, "path": path, "text": text }))
            .collect();
        let left: Vec<_> =
            import.left.iter().map(|left| json!({ "entry": left.entry, "what": left.what })).collect();
        return session.output.json(&json!({ "written": !args.dry_run, "files": files, "left": left }));
    }
    for (path, text) in files {
        if args.dry_run {
            session.output.line(&format!("// {}", neutral(&path.display().to_string())))?;
            session.output.line(text)?;
        } else {
            session.output.line(&format!("wrote {}", neutral(&path.display().to_string())))?;
        }
    }
    if files.is_empty() {
        session.output.line("nothing in it is a server that xy could run")?;
    }
    if !import.left.is_empty() {
        session.output.note("not carried over:");
        for left in &import.left {
            let entry = left.entry.as_ref().map(|entry| format!("{entry}: ")).unwrap_or_default();
            session.output.note(&format!("  {entry}{}", left.what));
        }
    }
    if !files.is_empty() && !args.dry_run {
        session.output.note(&match &args.into {
            None => {
                "`xyctl check` checks the files; `xyctl reload` starts them in a daemon that runs".to_owned()
            }
            Some(directory) => {
                let shown = neutral(&directory.display().to_string()).into_owned();
                format!("`xyctl check {shown}` checks the files; `xyctl up {shown}` runs them here")
            }
        });
    }
    Ok(())
}

/// Returns a value as the text that a command line or a variable holds; lists and maps have none.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn read(path: &Path) -> Result<(String, Origin), ImportError> {
    let failed = |source| ImportError::File { path: path.to_owned(), source };
    if path == Path::new("-") {
        let text = bounded(io::stdin().lock()).map_err(failed)?;
        let directory = std::env::current_dir().map_err(failed)?;
        return Ok((text, Origin { directory, file: None }));
    }
    let text = text_of(path).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((text, Origin { directory, file: absolute.file_name().map(OsString::from) }))
}

/// Reads a file that is not too large.
fn text_of(path: &Path) -> io::Result<String> {
    bounded(fs::File::open(path)?)
}

fn bounded(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 4 MiB"));
    }
    Ok(text)
}

fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    // A variable may be a secret.
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = options.open(path)?;
    // One that was there before keeps its mode.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
