//! Who waits for whom: names in `depends_on` -> dependencies among siblings, or what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use xy_actors::spec::{ChildId, Condition, Dependency};

use super::error::{ConfigError, nearest};
use super::{Config, ServerConfig, shown_from_source};

/// One entry of `depends_on`, as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependsOn {
    /// The name of a server or group beside this one; that of several instances stands for all of them.
    pub name: String,
    /// What it must have come to.
    pub condition: Condition,
    /// Whether this server is restarted with it.
    pub restart: bool,
    /// The path of the key in its file.
    pub(super) key: String,
    /// Where the entry stands in its file, line and column from 1.
    pub(super) place: Option<(usize, usize)>,
}

impl DependsOn {
    fn on(&self, sibling: &str) -> Dependency {
        Dependency { on: ChildId::from(sibling), condition: self.condition, restart: self.restart }
    }
}

/// One server or group among its siblings.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its name among them.
    pub(super) id: String,
    /// The same without the number of an instance.
    pub(super) base: String,
    pub(super) wants: Vec<DependsOn>,
    /// Whether it is restarted whenever it ends.
    pub(super) is_endless: bool,
}

/// What is wrong with one entry.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    message: String,
    hint: Option<String>,
    key: String,
    place: Option<(usize, usize)>,
}

impl Fault {
    fn new(want: &DependsOn, message: String, hint: Option<String>) -> Self {
        Self { message, hint, key: want.key.clone(), place: want.place }
    }

    /// Returns it as an error of a file.
    pub(super) fn told(self, file: &Path) -> ConfigError {
        ConfigError {
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
            key: Some(self.key),
            hint: self.hint,
            ..ConfigError::of_file(file, self.message)
        }
    }
}

/// Returns the dependencies of each node, or what is wrong with them, in the order of the nodes.
///
/// `absent` are names that are meant for siblings, and are not in use.
pub(super) fn resolve(nodes: &[Node], absent: &BTreeSet<String>) -> Vec<Result<Vec<Dependency>, Vec<Fault>>> {
    let named = by_name(nodes);
    let edges: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .map(|node| {
            let meant = node.wants.iter().filter_map(|want| named.get(want.name.as_str())).flatten();
            (node.id.as_str(), meant.map(|next| next.id.as_str()).collect())
        })
        .collect();
    nodes
        .iter()
        .map(|node| {
            let mut found: Vec<Dependency> = Vec::new();
            let mut faults = Vec::new();
            for want in &node.wants {
                match named.get(want.name.as_str()) {
                    None => faults.push(unknown(want, &named, absent)),
                    Some(meant) => {
                        if want.condition == Condition::Completed && meant.iter().any(|next| next.is_endless)
                        {
                            faults.push(endless(want));
                        } else if let Some(circle) = meant.iter().find_map(|next| circle(node, next, &edges))
                        {
                            faults.push(circular(want, &circle));
                        }
                        found.extend(meant.iter().map(|next| want.on(&next.id)));
                    }
                }
            }
            if faults.is_empty() { Ok(found) } else { Err(faults) }
        })
        .collect()
}

/// Returns the dependencies of each node as they are in force, in the order of the nodes: who is not there any more is still
/// waited for.
pub(super) fn in_force(nodes: &[Node]) -> Vec<Vec<Dependency>> {
    let named = by_name(nodes);
    let of = |want: &DependsOn| match named.get(want.name.as_str()) {
        Some(meant) => meant.iter().map(|next| want.on(&next.id)).collect(),
        None => vec![want.on(&want.name)],
    };
    nodes.iter().map(|node| node.wants.iter().flat_map(of).collect()).collect()
}

/// Returns the nodes by each name that may mean them.
fn by_name(nodes: &[Node]) -> BTreeMap<&str, Vec<&Node>> {
    let mut named: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in nodes {
        named.entry(&node.id).or_default().push(node);
        if node.base != node.id {
            named.entry(&node.base).or_default().push(node);
        }
    }
    named
}

fn unknown(want: &DependsOn, named: &BTreeMap<&str, Vec<&Node>>, absent: &BTreeSet<String>) -> Fault {
    let name = &want.name;
    if absent.contains(name) {
        return Fault::new(want, format!("the file of `{name}` is rejected"), None);
    }
    let hint = match name.rsplit_once('/') {
        Some((group, _)) => Some(format!("what is inside a group is its own affair; depend on `{group}`")),
        None => {
            let known: Vec<&str> = named.keys().copied().chain(absent.iter().map(String::as_str)).collect();
            // Of two letters, one that fits is chance.
            let near = nearest(name, &known).filter(|_| name.len() > 2);
            near.map(|name| format!("did you mean `{name}`?"))
        }
    };
    Fault::new(want, format!("there is no server or group `{name}` beside this one"), hint)
}

/// Returns a warning for each `Healthy` that asks no more than `Ready`, because nobody checks the health of what it names.
pub fn check_conditions(config: &Config) -> Vec<ConfigError> {
    let servers = config.servers.values().map(|server| (&server.base, (&server.source, &server.depends_on)));
    let groups = config.groups.values().map(|group| (&group.name, (&group.source, &group.depends_on)));
    // The instances of one server share what its file says.
    let written: BTreeMap<_, _> = servers.chain(groups).collect();
    let mut warnings = Vec::new();
    for (path, (source, wants)) in written {
        for want in wants.iter().filter(|want| want.condition == Condition::Healthy) {
            let name = &want.name;
            let sibling = match path.rsplit_once('/') {
                Some((group, _)) => format!("{group}/{name}"),
                None => name.clone(),
            };
            let is_meant = |server: &&ServerConfig| server.name == sibling || server.base == sibling;
            let mut meant = config.servers.values().filter(is_meant);
            let fault = if config.groups.contains_key(&sibling) {
                let message = format!(
                    "`{name}` is a group, which has no health check: `Healthy` asks no more than `Ready`"
                );
                Fault::new(want, message, Some("write `Ready`".to_owned()))
            } else if meant.any(|server| server.process.liveness.is_none()) {
                let message = format!("`{name}` has no `liveness`: `Healthy` asks no more than `Ready`");
                Fault::new(want, message, Some(format!("give `{name}` a `liveness`, or write `Ready`")))
            } else {
                continue;
            };
            warnings.push(fault.told(&shown_from_source(source)));
        }
    }
    warnings
}

fn endless(want: &DependsOn) -> Fault {
    let name = &want.name;
    let message = format!("`{name}` is restarted whenever it ends and is never completed");
    let hint = format!("give `{name}` `restart: (policy: OnFailure)` or `Never`");
    Fault::new(want, message, Some(hint))
}

fn circular(want: &DependsOn, circle: &[&str]) -> Fault {
    let message = match circle {
        [_] => "depends on itself".to_owned(),
        _ => {
            let closed = circle.iter().chain(circle.first());
            let names: Vec<String> = closed.map(|name| format!("`{name}`")).collect();
            format!("these depend on each other in a circle: {}", names.join(" -> "))
        }
    };
    Fault::new(want, message, None)
}

/// Returns the shortest way from a node by its dependency `first` back to itself, the node first.
fn circle<'a>(
    node: &'a Node,
    first: &'a Node,
    edges: &BTreeMap<&'a str, Vec<&'a str>>,
) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::from([first.id.as_str()]);
    let mut open = std::collections::VecDeque::from([vec![node.id.as_str(), first.id.as_str()]]);
    while let Some(way) = open.pop_front() {
        let at = way.last().copied().unwrap_or_default();
        if at == node.id {
            return Some(way[..way.len() - 1].to_vec());
        }
        for next in edges.get(at).into_iter().flatten() {
            if *next == node.id || seen.insert(next) {
                open.push_back(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}
