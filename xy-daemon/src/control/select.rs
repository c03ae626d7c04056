//! Which servers an operation is about, where patterns and tags are given.

use super::Control;
use crate::config::Config;
use crate::protocol::pattern;

impl Control {
    /// Replaces each pattern by the servers it stands for; one that stands for none remains, and is then not found.
    pub(super) fn matching(&self, names: Vec<String>) -> Vec<String> {
        if !names.iter().any(|name| pattern::is_pattern(name)) {
            return names;
        }
        let in_force = self.in_force();
        names
            .into_iter()
            .flat_map(|name| {
                if !pattern::is_pattern(&name) {
                    return vec![name];
                }
                let Config { servers, groups, .. } = &in_force.config;
                let servers = servers.values().map(|server| (&server.name, &server.tags[..]));
                let all = servers.chain(groups.keys().map(|name| (name, &[][..])));
                let mut meant: Vec<String> = all
                    .filter(|(path, tags)| pattern::matches(&name, path, tags))
                    .map(|(path, _)| path.clone())
                    .collect();
                meant.sort();
                if meant.is_empty() { vec![name] } else { meant }
            })
            .collect()
    }
}
