//! Has the secrets of a process: from our environment, from files, and from commands, which run as the process will.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::SpawnError;
use crate::process::settings::secret::of_output;
use crate::process::settings::{Secret, SecretError, SecretSource, Stdin};
use crate::process::{ProcessExit, ProcessHost, ProcessSpec, Readiness};

/// How long a command may take: somebody may have to unlock a keyring.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The longest output of a command.
const MOST_OUTPUT: usize = 64 << 10;

/// Values by the names of their variables.
pub(in super::super) type Secrets = BTreeMap<String, Secret>;

/// Has every secret of a spec, or says which one cannot be had.
///
/// # Cancel safety
/// Cancel safe: a command under way is ended.
pub(in super::super) async fn resolve(
    host: &ProcessHost,
    label: &str,
    spec: &ProcessSpec,
) -> Result<Secrets, SpawnError> {
    let mut secrets = Secrets::new();
    for (key, source) in &spec.settings.secrets {
        let value = match source {
            SecretSource::Command(words) => match run(host, label, spec, words).await {
                Err(Unanswered::NotStarted(error)) => {
                    return Err(SpawnError::secret_command(key, source, &error));
                }
                Err(Unanswered::Because(problem)) => Err(SecretError::Command(problem)),
                Ok(text) => of_output(text),
            },
            SecretSource::Env(_) | SecretSource::File(_) => {
                let (source, directory) = (source.clone(), spec.working_dir.clone());
                // The file may be on a disk that hangs.
                tokio::task::spawn_blocking(move || {
                    source.read(directory.as_deref().unwrap_or(Path::new("")))
                })
                .await
                .map_err(|_| SpawnError::host_gone())?
                .unwrap_or(Err(SecretError::Empty))
            }
        };
        secrets.insert(key.clone(), value.map_err(|error| SpawnError::secret(key, source, error))?);
    }
    Ok(secrets)
}

/// Why a command told nothing.
enum Unanswered {
    NotStarted(SpawnError),
    Because(String),
}

impl From<String> for Unanswered {
    fn from(problem: String) -> Self {
        Self::Because(problem)
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Unanswered>> + Send + 'a>>;

/// Runs a command. Boxed, since it comes from a spawn and spawns itself.
fn run<'a>(host: &'a ProcessHost, label: &'a str, of: &'a ProcessSpec, words: &[String]) -> Answer<'a> {
    let mut words = words.iter().cloned();
    let mut spec = ProcessSpec {
        env: of.env.clone(),
        working_dir: of.working_dir.clone(),
        settings: of.settings.clone(),
        ready: Some(Readiness::Started),
        ..ProcessSpec::new(words.next().unwrap_or_default())
    };
    spec.args = words.collect();
    spec.settings.stdin = Stdin::Null;
    spec.settings.secrets.clear();
    Box::pin(async move {
        let answer = timeout(TIME_LIMIT, answer(host, label, &spec)).await;
        answer.unwrap_or_else(|_| Err(format!("did not end within {TIME_LIMIT:?} and was killed").into()))
    })
}

/// Returns what a command prints, if it ends well. Whatever else it started ends with it.
async fn answer(host: &ProcessHost, label: &str, spec: &ProcessSpec) -> Result<Vec<u8>, Unanswered> {
    let unreadable = |error: std::io::Error| format!("cannot be read from: {error}");
    let mut process = host.spawn_beside(label, spec).await.map_err(Unanswered::NotStarted)?;
    let output = process.take_output().ok_or_else(|| "has no output".to_owned())?;
    let mut stdout = pipe::Receiver::from_owned_fd(output.stdout).map_err(unreadable)?;
    let mut stderr = pipe::Receiver::from_owned_fd(output.stderr).map_err(unreadable)?;
    let mut text = Vec::new();
    let (mut is_open, mut is_stderr_open) = (true, true);
    let mut thrown_away = [0; 4096];
    let exit = loop {
        // The end of the process decides: a descendant may hold its output open for ever.
        tokio::select! {
            read = stdout.read_buf(&mut text), if is_open => is_open = read.map_err(unreadable)? > 0,
            read = stderr.read(&mut thrown_away), if is_stderr_open => {
                is_stderr_open = read.is_ok_and(|length| length > 0);
            }
            exit = process.exited() => break exit,
        }
        if text.len() > MOST_OUTPUT {
            break ProcessExit::Code(0);
        }
    };
    if is_open && text.len() <= MOST_OUTPUT {
        // What it had written before its end is in the pipe, whether or not the runtime has heard of it.
        let rest = File::from(stdout.into_nonblocking_fd().map_err(unreadable)?);
        let limit = (MOST_OUTPUT + 1 - text.len()) as u64;
        match rest.take(limit).read_to_end(&mut text) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(unreadable(error).into());
            }
            _ => {}
        }
    }
    match exit {
        _ if text.len() > MOST_OUTPUT => Err(format!("printed more than {} KiB", MOST_OUTPUT >> 10).into()),
        ProcessExit::Code(0) => Ok(text),
        ProcessExit::Code(code) => Err(format!("ended with code {code}").into()),
        ProcessExit::Signal { signal, .. } => Err(format!("was ended by signal {signal}").into()),
    }
}
