//! What `Supervisor(..)` and `depends_on` mean.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use xy_actors::spec::{
    ChildSpec, FailedStart, OnLimit, Order, RestartIntensity, RestartLimit, SupervisorSpec,
};

use super::super::dependencies::{self, DependsOn, Node};
use super::super::shape::{DependsShape, GroupShape, IntensityShape, ServerShape};
use super::super::{GroupConfig, is_name};
use super::{Checker, Described, MAX_RETRIES_PER_MINUTE, MOST_RETRIES_PER_MINUTE, Origin};

/// Groups may be nested this deep.
const DEEPEST: usize = 4;

/// The time in which a group's restarts count, unless a file says otherwise.
const PERIOD: Duration = Duration::from_secs(60);

impl Checker<'_> {
    /// Refuses a name where the file has it.
    pub(super) fn no_name(&mut self, name: Option<&str>) {
        if name.is_some() {
            self.error_with_hint("name", "the name is that of the file", "rename the file instead");
        }
    }

    /// Reads a group of the name or path `path`, with everything in it.
    pub(super) fn group(
        &mut self,
        origin: Origin<'_>,
        path: &str,
        shape: GroupShape,
        described: &mut Described,
    ) {
        let (id, depth) = (path.rsplit('/').next().unwrap_or(path), path.matches('/').count());
        if depth >= DEEPEST {
            self.error("", format!("groups are nested too deeply, expected at most {DEEPEST} in each other"));
            return;
        }
        if shape.children.is_empty() {
            self.error("children", "is empty, expected at least one `Process(..)`");
        }
        let depends_on = self.depends_on(shape.depends_on, described.group_above(path));
        // A group that gave up is done with here. Within another group that one's intensity decides.
        let nothing_more = RestartIntensity::new(0, PERIOD);
        let limit = RestartLimit { intensity: nothing_more, on_limit: OnLimit::GiveUp };
        let at = described.groups.len();
        described.groups.push(GroupConfig {
            name: path.to_owned(),
            origin: origin.name.to_owned(),
            child: Arc::new(ChildSpec {
                limit: (depth == 0).then_some(limit),
                retain: true,
                autostart: shape.autostart.unwrap_or(true),
                ..ChildSpec::supervisor(id)
            }),
            supervisor: SupervisorSpec {
                strategy: shape.strategy.into(),
                order: shape.order.into(),
                intensity: Some(self.intensity(&shape.intensity)),
                failed_start: FailedStart::Counts,
                ..SupervisorSpec::default()
            },
            members: Vec::new(),
            depends_on,
            source: origin.source.to_owned(),
            text: crate::config::FileText::default(),
        });
        let above = (self.prefix.clone(), self.place);
        for (index, child) in shape.children.into_iter().enumerate() {
            let place = self.outline.item_of(&self.path_of("children"), index);
            self.prefix = format!("{}children[{index}].", above.0);
            self.place = place;
            self.member(origin, at, child, described);
            (self.prefix, self.place) = above.clone();
        }
        self.resolve(at, described);
    }

    /// Reads a child of the group at this position.
    fn member(&mut self, origin: Origin<'_>, at: usize, child: ServerShape, described: &mut Described) {
        let name = match &child {
            ServerShape::Process(shape) => shape.name.clone(),
            ServerShape::Group(shape) => shape.name.clone(),
        };
        let name = match name {
            Some(name) if is_name(&name) => name,
            Some(name) => {
                self.error_with_hint(
                    "name",
                    format!("`{name}` is not a server name"),
                    "a name is 1 to 64 characters of `a-z`, `0-9`, `_` and `-` and does not begin with `-`",
                );
                return;
            }
            None => {
                self.error("", "missing key `name`, which each child of a group needs");
                return;
            }
        };
        let group = described.groups[at].clone();
        let path = format!("{}/{name}", group.name);
        let ids: Vec<String> = match child {
            ServerShape::Process(shape) => {
                let servers = self.server(origin, &path, Some(&group), *shape);
                let ids = servers.iter().map(|server| server.child.id.to_string()).collect();
                described.servers.extend(servers);
                ids
            }
            ServerShape::Group(shape) => {
                self.group(origin, &path, *shape, described);
                vec![name]
            }
        };
        for id in ids {
            if described.groups[at].members.contains(&id) {
                self.error("name", format!("two children of this group are called `{id}`"));
            } else {
                described.groups[at].members.push(id);
            }
        }
    }

    fn intensity(&mut self, shape: &IntensityShape) -> RestartIntensity {
        let restarts = self.number("intensity.restarts", shape.restarts, 0, MOST_RETRIES_PER_MINUTE);
        let period = self.positive("intensity.period", shape.period.as_ref());
        RestartIntensity::new(restarts.unwrap_or(MAX_RETRIES_PER_MINUTE), period.unwrap_or(PERIOD))
    }

    /// Reads `depends_on` of a server or group; `group` is the one that it is in.
    pub(super) fn depends_on(&mut self, shape: DependsShape, group: Option<&GroupConfig>) -> Vec<DependsOn> {
        const KEY: &str = "depends_on";
        let DependsShape(entries) = shape;
        if !entries.is_empty() && group.is_some_and(|group| group.supervisor.order == Order::Ordered) {
            self.error_with_hint(
                KEY,
                "the children of an ordered group start one after the other anyway",
                "order the list, or write `order: Concurrent` into the group",
            );
            return Vec::new();
        }
        let written = self.value_of(KEY).map_or("", |offset| self.outline.word_at(offset));
        if !entries.is_empty() && written == "(" {
            self.error_with_hint(KEY, "expected a list or a map", "write `[\"db\"]` or `{\"db\": Healthy}`");
        }
        let mut seen = BTreeSet::new();
        let mut depends_on = Vec::with_capacity(entries.len());
        for (index, (name, shape)) in entries.into_iter().enumerate() {
            let path = self.path_of(KEY);
            let place = self
                .outline
                .item_of(&path, index)
                .or_else(|| self.outline.value_of(&format!("{path}.{name}")))
                .or_else(|| self.outline.value_of(&path));
            if !seen.insert(name.clone()) {
                self.error(KEY, format!("`{name}` is named twice"));
            }
            depends_on.push(DependsOn {
                name,
                condition: shape.condition,
                restart: shape.restart,
                key: path,
                place: place.map(|offset| self.outline.position_of(offset)),
            });
        }
        depends_on
    }

    /// Resolves who waits for whom in the group at this position.
    fn resolve(&mut self, at: usize, described: &mut Described) {
        let group = described.groups[at].clone();
        let nodes = described.nodes_in(&group);
        let resolved = dependencies::resolve(&nodes, &BTreeSet::new());
        let mut told = BTreeSet::new();
        for (node, result) in nodes.iter().zip(resolved) {
            match result {
                Ok(depends_on) => {
                    described.set_dependencies(&format!("{}/{}", group.name, node.id), depends_on)
                }
                // The instances of one server share its mistakes.
                Err(_) if !told.insert(node.base.clone()) => {}
                Err(faults) => {
                    self.errors.extend(faults.into_iter().map(|fault| fault.told(self.file)));
                }
            }
        }
    }
}

impl Described {
    /// Returns the group that a path lies in.
    fn group_above(&self, path: &str) -> Option<&GroupConfig> {
        let (above, _) = path.rsplit_once('/')?;
        self.groups.iter().find(|group| group.name == above)
    }

    fn nodes_in(&self, group: &GroupConfig) -> Vec<Node> {
        let is_in = |path: &str| path.rsplit_once('/').is_some_and(|(above, _)| above == group.name);
        let servers =
            self.servers.iter().filter(|server| is_in(&server.name)).map(super::super::node_of_server);
        let groups = self.groups.iter().filter(|inner| is_in(&inner.name)).map(super::super::node_of_group);
        servers.chain(groups).collect()
    }

    fn set_dependencies(&mut self, path: &str, depends_on: Vec<xy_actors::spec::Dependency>) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.name == path) {
            Arc::make_mut(&mut server.child).depends_on = depends_on;
        } else if let Some(group) = self.groups.iter_mut().find(|group| group.name == path) {
            Arc::make_mut(&mut group.child).depends_on = depends_on;
        }
    }
}
