//! Servers that come and go by hand, and which of them the next daemon starts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xy_actors::spec::ChildSpec;

use super::apply::note_failure;
use super::tree::child_of;
use super::{Control, Source, chain};
use crate::config::{Config, ConfigError, ServerConfig, Settings};
use crate::durable;
use crate::protocol::Method as _;
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::method::{Add, AddParams, AddResult, Failed, OperationParams, Remove, RemoveResult};

/// What stands for the file of a server that has none.
const NO_FILE: &str = "servers/(no file)";

/// What goes with a file.
struct Leaving {
    /// The children of the root.
    roots: Vec<String>,
    servers: Vec<String>,
    groups: Vec<String>,
    source: PathBuf,
    /// Somebody else who waits for one of them.
    waiting: Option<String>,
}

impl Control {
    /// Adds the servers that no file describes to what was loaded, so that a reload leaves them alone.
    pub(super) fn keep_adhoc(&self, config: &mut Config) {
        for (name, server) in self.adhoc().iter() {
            // A file of the same name is what the operator wrote later.
            config.servers.entry(name.clone()).or_insert_with(|| server.clone());
        }
    }

    /// Returns the servers that no file describes.
    pub(super) fn adhoc_names(&self) -> Vec<String> {
        self.adhoc().keys().cloned().collect()
    }

    /// Takes up which servers no file describes.
    pub(crate) fn take_up_adhoc(&self, names: &[String]) {
        let in_force = self.in_force();
        let servers = names.iter().filter_map(|name| in_force.config.servers.get_key_value(name));
        let servers: Vec<_> = servers.map(|(name, server)| (name.clone(), server.clone())).collect();
        drop(in_force);
        self.adhoc().extend(servers);
    }

    /// Forgets the past of the servers that are forgotten with the daemon.
    pub(super) fn forget_adhoc(&self) {
        let names: Vec<String> = self.adhoc().keys().cloned().collect();
        for name in names {
            self.0.history.forget(&name);
        }
    }

    fn adhoc(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, ServerConfig>> {
        // Each critical section is one operation on the map.
        self.0.adhoc.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) async fn set_enabled(
        &self,
        verb: &str,
        params: OperationParams,
        enabled: bool,
    ) -> Result<(Vec<String>, Vec<Failed>), RpcError> {
        let (source, _) = self.files(verb)?;
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for name in self.names(params.targets).await? {
            if !self.in_force().has(&name) {
                let kind = ErrorKind::ServerNotFound;
                failed.push(Failed { message: format!("server not found: `{name}`"), name, kind });
                continue;
            }
            match source.intent.set(&name, Some(enabled)) {
                Ok(()) => {
                    let config = &mut self.in_force().config;
                    if let Some(server) = config.servers.get_mut(&name) {
                        Arc::make_mut(&mut server.child).autostart = enabled;
                    } else if let Some(group) = config.groups.get_mut(&name) {
                        Arc::make_mut(&mut group.child).autostart = enabled;
                    }
                    self.0.history.asked(&name, verb, params.reason.as_deref(), super::unix_ms());
                    done.push(name);
                }
                Err(error) => {
                    failed.push(Failed { name, kind: ErrorKind::InternalError, message: chain(&error) });
                }
            }
        }
        Ok((done, failed))
    }

    pub(super) async fn add_server(&self, params: AddParams) -> Result<AddResult, RpcError> {
        let (source, host) = self.files(Add::NAME)?;
        let _one_at_a_time = self.0.reloading.lock().await;
        let name = params.name.clone();
        let taken = {
            let in_force = self.in_force();
            in_force.rejected.contains_key(&name)
                || in_force.has(&name)
                || in_force.config.servers.values().any(|server| server.origin == name)
        };
        if taken {
            return Err(RpcError::new(
                ErrorKind::AlreadyRunning,
                format!("there is a server `{name}` already"),
            ));
        }
        let text = render(&params);
        let directory = servers_dir(source);
        let path = match params.temporary {
            true => Path::new(NO_FILE).to_owned(),
            false => directory.join(format!("{name}.ron")),
        };
        // The settings of the whole daemon only change with a reload; a file is read again then.
        let settings = Settings::default();
        let mut servers = Config::server(&name, &path, &text, &settings, &source.options)
            .map_err(|errors| RpcError::new(ErrorKind::ConfigInvalid, lines(&errors)))?;
        for server in &mut servers {
            if let Some(port) = server.process.port
                && let Some(holder) = self.holder_of(port)
            {
                let message = format!("port {port} belongs to server `{holder}`");
                return Err(RpcError::new(ErrorKind::PortConflict, message));
            }
            Arc::make_mut(&mut server.child).autostart = !params.stopped;
        }
        let file = if params.temporary {
            None
        } else {
            let temporary = path.with_extension("ron.new");
            let created = fs::create_dir_all(&directory)
                .and_then(|()| durable::create(&path, &temporary, text.as_bytes()));
            created.map_err(|error| {
                let message = format!("`{}` cannot be written: {error}", path.display());
                RpcError::new(ErrorKind::ConfigInvalid, message)
            })?;
            Some(path.display().to_string())
        };
        let mut added = Vec::new();
        for server in servers {
            self.in_force().config.servers.insert(server.name.clone(), server.clone());
            if params.temporary {
                self.adhoc().insert(server.name.clone(), server.clone());
            }
            self.0.history.asked(&server.name, "add", None, super::unix_ms());
            added.push(server.name.clone());
            let (root, child) = (self.0.root.clone(), child_of(&server, host, &self.0.logs));
            let (begun, is_begun) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let start = root.start_child(server.child, child);
                // Polled once, the request is on its way, so that whatever comes next finds the child.
                let mut start = std::pin::pin!(start);
                let first = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(start.as_mut().poll(context).is_ready())
                });
                let is_done = first.await;
                // Nobody waits if the client is gone.
                _ = begun.send(());
                if !is_done {
                    _ = start.await;
                }
            });
            _ = is_begun.await;
        }
        Ok(AddResult { added, file })
    }

    pub(super) async fn remove_server(&self, name: String) -> Result<RemoveResult, RpcError> {
        let (Source { intent, .. }, _) = self.files(Remove::NAME)?;
        let _one_at_a_time = self.0.reloading.lock().await;
        let Leaving { roots, servers, groups, source, waiting } = match self.leaving(&name) {
            Some(leaving) => leaving,
            None if self.in_force().has(&name) => {
                let message =
                    format!("`{name}` comes from a file that describes others too; edit that and `reload`");
                return Err(RpcError::new(ErrorKind::Unsupported, message));
            }
            None => return Err(self.not_found(&name)),
        };
        if let Some(waiting) = waiting {
            let message = format!("`{waiting}` waits for `{name}` by its `depends_on`; change that first");
            return Err(RpcError::new(ErrorKind::Unsupported, message));
        }
        let is_adhoc = self.adhoc().contains_key(&name);
        let file = if is_adhoc {
            None
        } else {
            match fs::remove_file(&source) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let message = format!("`{}` cannot be deleted: {error}", source.display());
                    return Err(RpcError::new(ErrorKind::ConfigInvalid, message));
                }
                _ => Some(source.display().to_string()),
            }
        };
        for root in &roots {
            note_failure(root, self.0.root.remove(root.as_str(), Some("removed by hand".to_owned())).await);
        }
        for name in &servers {
            self.0.logs.close(name);
            self.adhoc().remove(name);
        }
        for name in servers.iter().chain(&groups) {
            let config = &mut self.in_force().config;
            config.servers.remove(name);
            config.groups.remove(name);
            self.0.history.forget(name);
            // What is left there means nothing without the server.
            _ = intent.set(name, None);
        }
        Ok(RemoveResult { removed: roots, file })
    }

    /// Returns what goes with the file of this name; `None` if there is none in force.
    fn leaving(&self, name: &str) -> Option<Leaving> {
        let in_force = self.in_force();
        let Config { servers, groups, .. } = &in_force.config;
        let mine = servers.values().filter(|server| server.origin == name);
        let my_groups = groups.values().filter(|group| group.origin == name);
        let servers_gone: Vec<String> = mine.clone().map(|server| server.name.clone()).collect();
        let groups_gone: Vec<String> = my_groups.clone().map(|group| group.name.clone()).collect();
        let source =
            mine.map(|server| &server.source).chain(my_groups.map(|group| &group.source)).next()?.clone();
        let all = servers_gone.iter().chain(&groups_gone);
        let roots: Vec<String> = all.filter(|path| !path.contains('/')).cloned().collect();
        let children = servers.values().map(|server| (&server.name, &server.origin, &server.child));
        let children =
            children.chain(groups.values().map(|group| (&group.name, &group.origin, &group.child)));
        let mut others = children.filter(|(path, origin, _)| !path.contains('/') && origin.as_str() != name);
        let needs = |child: &ChildSpec| {
            child.depends_on.iter().any(|one| roots.iter().any(|root| root == one.on.as_str()))
        };
        let waiting = others.find(|(_, _, child)| needs(child)).map(|(path, ..)| path.clone());
        Some(Leaving { roots, servers: servers_gone, groups: groups_gone, source, waiting })
    }

    fn holder_of(&self, port: u16) -> Option<String> {
        let in_force = self.in_force();
        let holder = in_force.config.servers.values().find(|server| server.process.port == Some(port));
        holder.map(|server| server.name.clone())
    }
}

fn servers_dir(source: &Source) -> PathBuf {
    source.options.servers.clone().unwrap_or_else(|| source.config_dir.join("servers"))
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Writes a server file.
fn render(params: &AddParams) -> String {
    let list = |items: &[String]| items.iter().map(|item| text(item)).collect::<Vec<_>>().join(", ");
    let mut lines = vec![format!("command: {}", text(&params.command))];
    if !params.args.is_empty() {
        lines.push(format!("args: [{}]", list(&params.args)));
    }
    if !params.env.is_empty() {
        let pairs = params.env.iter().map(|(key, value)| format!("{}: {}", text(key), text(value)));
        lines.push(format!("env: {{{}}}", pairs.collect::<Vec<_>>().join(", ")));
    }
    lines.extend(params.working_dir.as_deref().map(|dir| format!("working_dir: {}", text(dir))));
    if !params.tags.is_empty() {
        lines.push(format!("tags: [{}]", list(&params.tags)));
    }
    lines.extend(params.port.map(|port| format!("port: {port}")));
    if params.stopped {
        lines.push("autostart: false".to_owned());
    }
    if params.once {
        lines.push("restart: (policy: Never)".to_owned());
    }
    format!("Process(\n    {},\n)\n", lines.join(",\n    "))
}

/// Writes a RON string.
fn text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            character if character.is_control() => {
                quoted.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadOptions;

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let params = AddParams {
            name: "web".to_owned(),
            command: "a \"b\" \\c".to_owned(),
            args: vec!["one two".to_owned(), "tab\there\nthere\u{7f}".to_owned(), "{brace}".to_owned()],
            env: BTreeMap::from([("KEY".to_owned(), "va'l\"ue".to_owned())]),
            working_dir: Some("/tmp".to_owned()),
            port: Some(8080),
            tags: vec!["blue".to_owned()],
            once: true,
            temporary: false,
            stopped: true,
        };
        let path = Path::new("/c/servers/web.ron");
        let options = LoadOptions::new(None);
        let servers = Config::server("web", path, &render(&params), &Settings::default(), &options);
        let [server] = &servers.expect("it is valid")[..] else { panic!("one server") };
        assert_eq!((&server.process.command, &server.process.args), (&params.command, &params.args));
        assert_eq!(server.process.env, params.env);
        assert_eq!(server.process.working_dir.as_deref(), Some(Path::new("/tmp")));
        assert_eq!((server.process.port, &server.tags), (Some(8080), &params.tags));
        assert_eq!(server.child.restart, xy_actors::spec::RestartType::Temporary);
        assert!(!server.child.autostart);
    }
}
