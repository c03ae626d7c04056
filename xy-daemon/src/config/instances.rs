//! Several copies of one server: `instances: 3` in `web.ron` makes `web-1`, `web-2` and `web-3`.
//!
//! Each copy is a server of its own, with its own state, log and restarts. `{instance}` in its arguments, variables and
//! paths stands for its number, counted from 1, and `{port}` for its port: the first has the port of the file, each further
//! one the next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xy_actors::process::settings::{SecretSource, Stdin};
use xy_actors::spec::ChildId;

use super::ServerConfig;

/// The most copies of one server.
pub(super) const MOST: u32 = 100;

/// Returns the name of a copy.
pub(super) fn name(of: &str, instance: u32) -> String {
    format!("{of}-{instance}")
}

/// Makes the copies of a server whose last port is valid.
pub(super) fn expand(server: &ServerConfig, count: u32) -> Vec<ServerConfig> {
    (1..=count).map(|instance| copy(server, instance)).collect()
}

/// Returns whether something tells a copy which one it is.
pub(super) fn tells_apart(server: &ServerConfig) -> bool {
    let [mut one, mut two] = [1, 2].map(|instance| copy(server, instance).process);
    for process in [&mut one, &mut two] {
        Arc::make_mut(process).port = None;
    }
    one != two
}

fn copy(server: &ServerConfig, instance: u32) -> ServerConfig {
    let mut copy = server.clone();
    copy.name = name(&server.name, instance);
    Arc::make_mut(&mut copy.child).id = ChildId::from(copy.name.rsplit('/').next().unwrap_or_default());
    let process = Arc::make_mut(&mut copy.process);
    process.port = process.port.and_then(|port| port.checked_add(u16::try_from(instance - 1).ok()?));
    let port = process.port.map(|port| port.to_string());
    let text = |text: &str| {
        let text = text.replace("{instance}", &instance.to_string());
        match &port {
            Some(port) => text.replace("{port}", port),
            None => text,
        }
    };
    // A path that is no text contains no placeholder that anybody could have written.
    let path = |path: &Path| path.to_str().map_or_else(|| path.to_owned(), |path| PathBuf::from(text(path)));
    process.args.iter_mut().for_each(|argument| *argument = text(argument));
    process.env.values_mut().for_each(|value| *value = text(value));
    process.working_dir = process.working_dir.as_deref().map(path);
    if let Stdin::File(file) = &mut process.settings.stdin {
        *file = path(file);
    }
    for file in &mut process.settings.env_files {
        file.path = path(&file.path);
    }
    for source in process.settings.secrets.values_mut() {
        match source {
            SecretSource::File(file) => *file = path(file),
            SecretSource::Command(words) => words.iter_mut().for_each(|word| *word = text(word)),
            SecretSource::Env(name) => *name = text(name),
            _ => {}
        }
    }
    if let Some(command) = &mut process.stop_command {
        command.args.iter_mut().for_each(|argument| *argument = text(argument));
    }
    copy
}
