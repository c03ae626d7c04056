//! A reload plan on the running tree.
//!
//! What has to go goes first and all together, so that ports can change hands; then everything gets its new rules, those
//! about who waits for whom last, when everybody they name is there; then what is to run is started.

use std::collections::{BTreeMap, BTreeSet};

use xy_actors::child::Child;
use xy_actors::policy::{State, Wanted};
use xy_actors::process::ProcessHost;
use xy_actors::spec::ChildSpec;
use xy_actors::supervisor::{OperationError, Supervisor};

use super::tree::{child_of, group_of, split};
use super::{Control, InForce, Inner};
use crate::config::Config;
use crate::reload::{ChangeKind, ReloadPlan};

const GONE: &str = "no longer configured";

/// What becomes of one server or group.
enum Fate {
    Removed,
    /// It ends, and starts by its new configuration.
    Restarted(String),
    /// It goes on under new rules.
    Updated,
    Added,
}

impl Control {
    pub(super) async fn apply(&self, plan: ReloadPlan, host: &ProcessHost) {
        let Inner { root, logs, .. } = &*self.0;
        let fates = fates(&plan);
        let before = {
            let mut in_force = self.in_force();
            std::mem::replace(&mut *in_force, InForce::of(plan.after)).config
        };
        let after = self.in_force().config.clone();
        for change in &plan.changed {
            if let Ok(log) = logs.open(&change.config.name, change.config.log) {
                log.set_settings(change.config.log);
            }
        }

        let mut starting: BTreeMap<String, String> = BTreeMap::new();
        // The supervisors of all that changes. A group that does not run has nothing in it that could end.
        let mut owners = BTreeMap::from([(String::new(), root.clone())]);
        for path in fates.keys() {
            for (at, _) in path.match_indices('/') {
                let group = &path[..at];
                if owners.contains_key(group) {
                    continue;
                }
                let (above, id) = split(group);
                let Some(owner) = owners.get(above) else { break };
                match owner.child_supervisor(id).await {
                    Ok(supervisor) => {
                        owners.insert(group.to_owned(), supervisor);
                    }
                    Err(_) => {
                        // What made it give up may be what has changed.
                        let info = owner.which_child(id).await;
                        if info.is_ok_and(|info| info.state == State::Failed && info.wanted == Wanted::Up) {
                            starting.insert(group.to_owned(), "what is in it changed".to_owned());
                        }
                        break;
                    }
                }
            }
        }

        // What ends, all at the same time.
        let mut ending = Vec::new();
        for (path, fate) in &fates {
            let (group, id) = split(path);
            let Some(owner) = owners.get(group).cloned() else { continue };
            let (path, id) = (path.clone(), id.to_owned());
            match fate {
                Fate::Removed => ending.push(tokio::spawn(async move {
                    note_failure(&path, owner.remove(id, Some(GONE.to_owned())).await);
                    None
                })),
                Fate::Restarted(why) => {
                    let why = why.clone();
                    ending.push(tokio::spawn(async move {
                        let info = owner.which_child(id.as_str()).await.ok()?;
                        if info.wanted != Wanted::Up || (info.state == State::Stopped && !info.held) {
                            return None;
                        }
                        note_failure(&path, owner.stop(id, Some(why.clone())).await);
                        Some((path, why))
                    }));
                }
                Fate::Updated | Fate::Added => {}
            }
        }
        for task in ending {
            if let Ok(Some((path, why))) = task.await {
                starting.insert(path, why);
            }
        }
        for name in &plan.removed {
            logs.close(name);
        }

        // First nobody waits any more for those to be waited for no more, then everybody gets new rules, then waits for
        // the others: no step names somebody who is not there, or closes a circle.
        let is_added = |path: &str| matches!(fates.get(path), Some(Fate::Added));
        let remaining = |path: &str, now: &ChildSpec| match spec_at(&before, path) {
            Some(old) => {
                old.depends_on.iter().filter(|next| now.depends_on.contains(next)).cloned().collect()
            }
            None => Vec::new(),
        };
        for (path, now) in specs(&after).filter(|(path, _)| !is_added(path)) {
            if let (Some(owner), Some(old)) = (owners.get(split(path).0), spec_at(&before, path))
                && old.depends_on != now.depends_on
            {
                let spec = ChildSpec { depends_on: remaining(path, now), ..old.clone() };
                note_failure(path, owner.update(spec, None).await);
            }
        }
        for (path, spec) in specs(&after).filter(|(path, _)| is_added(path)) {
            let Some(owner) = owners.get(split(path).0) else { continue };
            let held = ChildSpec { autostart: false, depends_on: Vec::new(), ..spec.clone() };
            note_failure(path, self.add(owner, held, path, &after, host).await);
            if spec.autostart {
                starting.insert(path.to_owned(), String::new());
            }
        }
        for (path, spec) in specs(&after) {
            // The recipe of a group has everything in it, for its next start.
            let inside = format!("{path}/");
            let concerned = |other: &String| other == path || other.starts_with(&inside);
            if let Some(owner) = owners.get(split(path).0)
                && fates.keys().any(concerned)
            {
                let spec = ChildSpec { depends_on: remaining(path, spec), ..spec.clone() };
                note_failure(path, owner.update(spec, Some(self.recipe(path, &after, host))).await);
            }
        }
        for (path, spec) in specs(&after) {
            if let Some(owner) = owners.get(split(path).0)
                && remaining(path, spec) != spec.depends_on
            {
                note_failure(path, owner.update(spec.clone(), None).await);
            }
        }
        for (path, why) in starting {
            let (group, id) = split(&path);
            let Some(owner) = owners.get(group).cloned() else { continue };
            let (id, why) = (id.to_owned(), Some(why).filter(|why| !why.is_empty()));
            // Whether it becomes ready is told by events and `status`; a cold start must not hold up the answer.
            tokio::spawn(async move { owner.start(id, why).await });
        }
    }

    /// Adds the server or group at a path to its supervisor.
    async fn add(
        &self,
        owner: &Supervisor,
        spec: ChildSpec,
        path: &str,
        config: &Config,
        host: &ProcessHost,
    ) -> Result<(), OperationError> {
        let Inner { logs, .. } = &*self.0;
        match (config.servers.get(path), config.groups.get(path)) {
            (Some(server), _) => owner.start_child(spec, child_of(server, host, logs)).await?,
            (None, Some(group)) => owner.start_child(spec, group_of(group, config, host, logs)).await?,
            (None, None) => return Ok(()),
        };
        Ok(())
    }

    /// Makes a child of the server or group at a path.
    fn recipe(&self, path: &str, config: &Config, host: &ProcessHost) -> Box<dyn Child> {
        let Inner { logs, .. } = &*self.0;
        match (config.servers.get(path), config.groups.get(path)) {
            (Some(server), _) => Box::new(child_of(server, host, logs)),
            (None, Some(group)) => Box::new(group_of(group, config, host, logs)),
            (None, None) => unreachable!("a spec belongs to a server or a group"),
        }
    }
}

/// Returns what becomes of each server and group that changes, without those that follow a group above them.
fn fates(plan: &ReloadPlan) -> BTreeMap<String, Fate> {
    let mut fates = BTreeMap::new();
    let groups = &plan.groups;
    let removed = plan.removed.iter().chain(&groups.removed);
    fates.extend(removed.map(|path| (path.clone(), Fate::Removed)));
    let added = plan.added.iter().map(|server| &server.name);
    let added = added.chain(groups.added.iter().map(|group| &group.name));
    fates.extend(added.map(|path| (path.clone(), Fate::Added)));
    let servers = plan.changed.iter().map(|change| (&change.config.name, &change.kind));
    let changed = servers.chain(groups.changed.iter().map(|change| (&change.config.name, &change.kind)));
    fates.extend(changed.map(|(path, kind)| match kind {
        ChangeKind::Restart { why } => (path.clone(), Fate::Restarted(why.clone())),
        ChangeKind::PolicyOnly { .. } => (path.clone(), Fate::Updated),
    }));
    let whole: BTreeSet<String> = fates
        .iter()
        .filter(|(_, fate)| !matches!(fate, Fate::Updated))
        .map(|(path, _)| format!("{path}/"))
        .collect();
    fates.retain(|path, _| !whole.iter().any(|above| path.starts_with(above)));
    fates
}

fn specs(config: &Config) -> impl Iterator<Item = (&str, &ChildSpec)> {
    let servers = config.servers.values().map(|server| (server.name.as_str(), &*server.child));
    servers.chain(config.groups.values().map(|group| (group.name.as_str(), &*group.child)))
}

fn spec_at<'a>(config: &'a Config, path: &str) -> Option<&'a ChildSpec> {
    let server = config.servers.get(path).map(|server| &*server.child);
    server.or_else(|| config.groups.get(path).map(|group| &*group.child))
}

/// An operation inside a reload that did not come about: its child has just gone another way.
pub(super) fn note_failure<T>(path: &str, result: Result<T, OperationError>) {
    if let Err(error) = result {
        tracing::warn!(child = path, reason = %error, "reload");
    }
}
