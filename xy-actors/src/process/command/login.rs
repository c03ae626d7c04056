//! The `PATH` that a user's login shell sets up, asked for once.
//!
//! The shell runs what its profile says, so it is a process like any other: with a time limit, without input, and ended
//! with everything it started. What it prints beside the answer does not matter, because the answer stands between marks
//! that it cannot know.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::random_marker;
use crate::process::settings::{Identity, ProcessSettings};
use crate::process::{ProcessHost, ProcessSpec};

/// How long the shell may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long a failure is remembered.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// More output than this is no answer.
const MOST_OUTPUT: u64 = 1 << 20;

/// What is known of one user.
#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Path(OsString),
    FailedAt(Instant),
}

/// Returns the `PATH` of the login shell of the user a process runs as; `None`, with a warning, if the shell does not tell.
///
/// # Cancel safety
/// Cancel safe: a shell under way is ended.
pub(super) async fn search_path(
    host: &ProcessHost,
    settings: &ProcessSettings,
    identity: Option<&Identity>,
) -> Option<OsString> {
    static KNOWN: OnceLock<std::sync::Mutex<BTreeMap<u32, Arc<Mutex<Known>>>>> = OnceLock::new();
    let uid = identity.map_or_else(|| nix::unistd::Uid::effective().as_raw(), |identity| identity.uid);
    let known = {
        let mut known = crate::process::host::lock(KNOWN.get_or_init(std::sync::Mutex::default));
        known.entry(uid).or_default().clone()
    };
    // Held while the shell runs, so that a hundred servers that start together ask once.
    let mut known = known.lock().await;
    match &*known {
        Known::Path(path) => return Some(path.clone()),
        Known::FailedAt(at) if at.elapsed() < RETRY_AFTER => return None,
        Known::FailedAt(_) | Known::Nothing => {}
    }
    let own = match identity {
        Some(identity) => Some(identity.clone()),
        None => tokio::task::spawn_blocking(Identity::own).await.ok().flatten(),
    };
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
        Ok(answer) => answer,
        Err(_) => Err(format!("it did not answer within {TIME_LIMIT:?}")),
    };
    match answer {
        Ok(path) => {
            *known = Known::Path(path.clone());
            Some(path)
        }
        Err(reason) => {
            tracing::warn!(
                shell = %shell.display(),
                %reason,
                "the login shell does not tell its PATH; the inherited one is used"
            );
            *known = Known::FailedAt(Instant::now());
            None
        }
    }
}

/// Runs the shell. Boxed, since it comes from a spawn and spawns itself.
fn ask(
    host: &ProcessHost,
    mut spec: ProcessSpec,
) -> Pin<Box<dyn Future<Output = Result<OsString, String>> + Send + '_>> {
    Box::pin(async move {
        let mark = random_marker().map_err(|error| error.to_string())?;
        // Understood by every shell that knows `-c`, those without POSIX syntax included.
        let script = format!("echo; echo {mark}; printenv PATH; echo {mark}");
        spec.args = vec!["-l".to_owned(), "-c".to_owned(), script];
        let mut process = host.spawn("login shell", &spec).await.map_err(|error| error.to_string())?;
        let output = process.take_output().ok_or("its output is taken")?;
        let stdout = pipe::Receiver::from_owned_fd(output.stdout).map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        // A daemon started by the profile may hold the pipe for ever, so the mark is the end as well.
        let mut stdout = stdout.take(MOST_OUTPUT);
        loop {
            if let Some(path) = between(&text, mark.as_bytes()) {
                return Ok(path);
            }
            match stdout.read_buf(&mut text).await {
                Ok(0) => return Err("it ended without an answer".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
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
