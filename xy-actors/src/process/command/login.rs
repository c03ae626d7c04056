//! The `PATH` that a user's login shell sets up, asked for once.
//!
//! The shell runs what its profile says, so it is a process like any other: with a time limit, without input, and ended
//! with everything it started. What it prints beside the answer does not matter, because the answer stands between marks
//! that it cannot know.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{SpawnError, random_marker};
use crate::process::settings::{Identity, ProcessSettings};
use crate::process::{ProcessHost, ProcessSpec};

/// How long the shell may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long a failure is remembered.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// More output than this is no answer.
const MOST_OUTPUT: u64 = 1 << 20;

/// Why a login shell does not tell its `PATH`, so that the inherited one serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginPathError {
    /// It took too long and was ended.
    #[error("login shell `{}` did not tell its PATH within {limit:?}", shell.display())]
    Late {
        /// The shell.
        shell: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// It ended, or closed its output, without an answer.
    #[error("login shell `{}` ended without telling its PATH", shell.display())]
    Silent {
        /// The shell.
        shell: PathBuf,
    },
    /// It could not be started.
    #[error("login shell `{}` cannot be started", shell.display())]
    NotStarted {
        /// The shell.
        shell: PathBuf,
        /// Why.
        source: SpawnError,
    },
    /// Its output could not be read.
    #[error("the output of login shell `{}` cannot be read", shell.display())]
    Unreadable {
        /// The shell.
        shell: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LoginPathError {
    /// Returns the shell.
    pub fn shell(&self) -> &Path {
        match self {
            Self::Late { shell, .. }
            | Self::Silent { shell }
            | Self::NotStarted { shell, .. }
            | Self::Unreadable { shell, .. } => shell,
        }
    }

    /// Returns what happened in one line.
    pub(in super::super) fn told(&self) -> String {
        match self {
            Self::NotStarted { source, .. } => format!("{self}: {}", source.told()),
            Self::Unreadable { source, .. } => format!("{self}: {source}"),
            Self::Late { .. } | Self::Silent { .. } => self.to_string(),
        }
    }
}

/// The `PATH` of a login shell, or why it is not known.
type Answer = Result<OsString, Arc<LoginPathError>>;

/// What is known of one user, and since when.
type Known = Option<(Answer, Instant)>;

/// What is known of every user that was asked about, by name or number; `None` is ours.
type Users = BTreeMap<Option<String>, Arc<Mutex<Known>>>;

/// Returns the place for what is known of a user.
fn place(user: Option<&str>) -> Arc<Mutex<Known>> {
    static KNOWN: OnceLock<std::sync::Mutex<Users>> = OnceLock::new();
    let mut known = crate::process::host::lock(KNOWN.get_or_init(std::sync::Mutex::default));
    known.entry(user.map(str::to_owned)).or_default().clone()
}

/// Returns what [`login_path`] last told of a user, by name or number (`None` is ours), without asking anybody; `None` if
/// nobody has asked yet, or the shell is being asked right now.
///
/// # Errors
/// If the shell did not tell.
pub fn known_login_path(user: Option<&str>) -> Option<Result<OsString, Arc<LoginPathError>>> {
    place(user).try_lock().ok()?.as_ref().map(|(answer, _)| answer.clone())
}

/// Returns the `PATH` that the login shell of the user sets up as whom a process of these settings runs.
///
/// The shell is run once per user and program, for at most five seconds; a failure is remembered for a minute.
///
/// # Errors
/// If the shell does not tell.
///
/// # Cancel safety
/// Cancel safe: a shell under way is ended.
pub async fn login_path(
    host: &ProcessHost,
    settings: &ProcessSettings,
) -> Result<OsString, Arc<LoginPathError>> {
    let place = place(settings.user.as_deref());
    // Held while the shell runs, so that a hundred servers that start together ask once.
    let mut known = place.lock().await;
    match &*known {
        Some((Ok(path), _)) => return Ok(path.clone()),
        Some((Err(error), at)) if at.elapsed() < RETRY_AFTER => return Err(error.clone()),
        _ => {}
    }
    let user = settings.user.clone();
    let own = move || match &user {
        Some(user) => Identity::look_up(Some(user), None).ok().flatten(),
        None => Identity::own(),
    };
    let own = tokio::task::spawn_blocking(own).await.ok().flatten();
    let shell = own
        .and_then(|identity| identity.shell)
        .or_else(|| std::env::var_os("SHELL").map(Into::into))
        .unwrap_or_else(|| "/bin/sh".into());
    let mut spec = ProcessSpec::new(shell.to_string_lossy());
    spec.settings = ProcessSettings {
        user: settings.user.clone(),
        group: settings.group.clone(),
        ..ProcessSettings::default()
    };
    let answer = match timeout(TIME_LIMIT, ask(host, spec)).await {
        Ok(Ok(Some(path))) => Ok(path),
        Ok(Ok(None)) => Err(LoginPathError::Silent { shell }),
        Ok(Err(Failure::Spawn(source))) => Err(LoginPathError::NotStarted { shell, source }),
        Ok(Err(Failure::Read(source))) => Err(LoginPathError::Unreadable { shell, source }),
        Err(_) => Err(LoginPathError::Late { shell, limit: TIME_LIMIT }),
    };
    let answer = answer.map_err(Arc::new);
    *known = Some((answer.clone(), Instant::now()));
    if let Err(error) = &answer {
        tracing::warn!(
            shell = %error.shell().display(),
            reason = error.told(),
            "the login shell does not tell its PATH; the inherited one is used"
        );
    }
    answer
}

/// What can fail beside the shell itself.
enum Failure {
    Spawn(SpawnError),
    Read(io::Error),
}

/// Runs the shell; `None` if it has ended without an answer. Boxed, since it comes from a spawn and spawns itself.
fn ask(
    host: &ProcessHost,
    mut spec: ProcessSpec,
) -> Pin<Box<dyn Future<Output = Result<Option<OsString>, Failure>> + Send + '_>> {
    Box::pin(async move {
        let mark = random_marker().map_err(Failure::Spawn)?;
        // Understood by every shell that knows `-c`, those without POSIX syntax included.
        let script = format!("echo; echo {mark}; printenv PATH; echo {mark}");
        spec.args = vec!["-l".to_owned(), "-c".to_owned(), script];
        let mut process = host.spawn("login shell", &spec).await.map_err(Failure::Spawn)?;
        // Nobody else has had the chance to take it.
        let Some(output) = process.take_output() else { return Ok(None) };
        let stdout = pipe::Receiver::from_owned_fd(output.stdout).map_err(Failure::Read)?;
        let mut text = Vec::new();
        // A daemon started by the profile may hold the pipe for ever, so the mark is the end as well.
        let mut stdout = stdout.take(MOST_OUTPUT);
        loop {
            if let Some(path) = between(&text, mark.as_bytes()) {
                return Ok(Some(path));
            }
            if stdout.read_buf(&mut text).await.map_err(Failure::Read)? == 0 {
                return Ok(None);
            }
        }
    })
}

/// Returns the line between two lines that are the mark, if it is there and not empty.
fn between(text: &[u8], mark: &[u8]) -> Option<OsString> {
    let mut lines = text.split(|byte| *byte == b'\n').skip_while(|line| *line != mark).skip(1);
    let path = lines.next()?;
    let is_complete = lines.next()? == mark;
    (is_complete && !path.is_empty()).then(|| OsStr::from_bytes(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_line_between_the_marks() {
        for (text, expected) in [
            ("hello\n\nM\n/a:/b\nM\n", Some("/a:/b")),
            ("M\n/a\nM", Some("/a")),
            ("no newline M\nM\n/a\nM\n", Some("/a")),
            ("M\n/a\n", None),
            ("M\n/a", None),
            ("M\n\nM\n", None),
            ("M\nM\n", None),
            ("", None),
        ] {
            assert_eq!(between(text.as_bytes(), b"M").as_deref(), expected.map(OsStr::new), "{text:?}");
        }
    }
}
