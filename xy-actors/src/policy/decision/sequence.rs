//! Order without waiting: what an ending supervisor, a group that restarts and the queue of starts do next.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::*;

impl<T> Policy<T> {
    /// Moves on as far as the states of the children allow.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self.life {
            Life::New | Life::Ended => {}
            Life::Ending { exit, failed_start, asked } => {
                if self.stop_group(ChildKey::FIRST, asked, now, out) {
                    self.life = Life::Ended;
                    out.push(Action::ReportSelf { report: SupervisorReport::Ended { exit } });
                    out.push(Action::End { exit, failed_start });
                } else if let Life::Ending { asked, .. } = &mut self.life {
                    *asked = true;
                }
            }
            Life::Running => {
                self.advance_rebuild(now, out);
                self.advance_starts(now, out);
                if !self.started && self.initial.is_empty() {
                    self.started = true;
                    out.push(Action::ReportSelf { report: SupervisorReport::Started });
                    out.push(Action::Started);
                }
            }
        }
    }

    /// Begins to end: nothing is started any more, timers and pending operations are called off.
    pub(super) fn end(&mut self, exit: Exit, failed_start: Option<ChildKey>, out: &mut Vec<Action>) {
        if self.is_ending() {
            return;
        }
        self.life = Life::Ending { exit, failed_start, asked: false };
        self.rebuild = None;
        self.terminated.clear();
        self.turn = None;
        out.push(Action::ReportSelf { report: SupervisorReport::Ending });
        let keys: Vec<ChildKey> = self.children.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.refuse_ready_waiters(key, Refusal::ShuttingDown, out);
            match self.children[&key].phase {
                Phase::Queued(_) | Phase::Waiting { .. } => {
                    self.disarm(key, out);
                    self.report(key, ChildReport::CalledOff, out);
                    self.set_phase(key, Phase::Stopped, out);
                }
                Phase::Stopping {
                    rung,
                    after: After::Start | After::Group | After::StartFailed(_) | After::Unhealthy,
                } => {
                    self.set_phase(key, Phase::Stopping { rung, after: After::Rest }, out);
                }
                // It is stopped in its turn: a failed start must not be tried again by a supervisor that ends.
                Phase::Starting(_) => self.disarm(key, out),
                _ => {}
            }
        }
    }

    /// Widens the group restart under way to begin at `from`, or begins one.
    pub(super) fn rebuild_from(&mut self, from: ChildKey) {
        let from = self.rebuild.map_or(from, |rebuild| rebuild.from.min(from));
        self.rebuild = Some(Rebuild { from, asked: false });
        self.terminated.clear();
        self.turn = self.turn.filter(|&turn| turn < from);
    }

    /// Starts a child as soon as neither a group restart nor a dependency forbids it: now, if possible.
    pub(super) fn start_when_allowed(
        &mut self,
        key: ChildKey,
        origin: Origin,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.disarm(key, out);
        let Some(child) = self.children.get(key) else { return };
        let waits = child.digest.has_dependencies && self.unmet_dependencies(child).next().is_some();
        if waits || self.is_rebuilding(key) {
            self.set_phase(key, Phase::Queued(origin), out);
        } else {
            self.begin_start(key, origin, now, out);
        }
    }

    fn begin_start(&mut self, key: ChildKey, origin: Origin, now: Instant, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(key) else { return };
        let is_first = child.incarnation == Incarnation::NONE;
        child.incarnation = child.incarnation.next();
        (child.launched, child.completed) = (false, false);
        child.proven = !child.spec.health_checked;
        let tries_again = std::mem::take(&mut child.tries_again);
        if origin == Origin::Automatic && !tries_again {
            child.restarts += 1;
        }
        let incarnation = child.incarnation;
        let timeout = if child.digest.has_start_timeout { child.spec.start_timeout } else { None };
        self.report(key, ChildReport::Starting, out);
        self.set_phase(key, Phase::Starting(origin), out);
        out.push(Action::Start { child: key, incarnation });
        if let Some(at) = timeout.and_then(|timeout| now.checked_add(timeout)) {
            self.arm(key, at, out);
        }
        if self.has_followers && !is_first {
            self.restart_followers(key, now, out);
        }
    }

    /// Stops what is left of the group; once it is down and no delay is pending, queues it.
    fn advance_rebuild(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(Rebuild { from, asked }) = self.rebuild else { return };
        if !self.stop_group(from, asked, now, out) {
            if let Some(rebuild) = &mut self.rebuild {
                rebuild.asked = true;
            }
            return;
        }
        if self.waiting.ascending_from(from).next().is_some() {
            return;
        }
        let keys: Vec<ChildKey> = self.children.iter_from(from).map(|(key, _)| key).collect();
        for key in keys {
            let child = &self.children[&key];
            if child.phase == Phase::Stopped && !child.paused && self.comes_back(key) {
                self.set_phase(key, Phase::Queued(Origin::Automatic), out);
            } else if child.phase == Phase::Stopped {
                self.refuse_ready_waiters(key, Refusal::Superseded, out);
                self.initial.remove(key);
            }
        }
        self.rebuild = None;
        self.terminated.clear();
    }

    /// Returns whether a group restart starts this member once it is down.
    ///
    /// As in OTP every non-temporary member comes back, those terminated or ended before included; not those that an
    /// operator wants down, and those terminated since the restart began only with the next one.
    pub(super) fn comes_back(&self, key: ChildKey) -> bool {
        let child = &self.children[&key];
        child.wanted == Wanted::Up
            && child.digest.restart != RestartType::Temporary
            && !self.terminated.contains(&key)
    }

    /// Starts whoever's turn it is.
    fn advance_starts(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.is_ordered() {
            if let Some(key) = self.turn {
                if self.is_unsettled(key) {
                    return;
                }
                self.turn = None;
            }
            let Some(key) = self.queued.first() else { return };
            if self.is_rebuilding(key) {
                return;
            }
            self.turn = Some(key);
            self.begin_queued(key, now, out);
            return;
        }
        if self.queued.is_empty() {
            return;
        }
        let queued: Vec<ChildKey> = self.queued.ascending_from(ChildKey::FIRST).collect();
        for key in queued {
            let child = &self.children[&key];
            let waits = child.digest.has_dependencies && self.unmet_dependencies(child).next().is_some();
            let startable = !waits && !self.is_rebuilding(key);
            if startable {
                self.begin_queued(key, now, out);
            }
        }
    }

    fn begin_queued(&mut self, key: ChildKey, now: Instant, out: &mut Vec<Action>) {
        if let Phase::Queued(origin) = self.children[&key].phase {
            self.begin_start(key, origin, now, out);
        }
    }

    fn is_unsettled(&self, key: ChildKey) -> bool {
        self.children.get(key).is_some_and(|child| match child.phase {
            Phase::Queued(_) | Phase::Waiting { .. } | Phase::Starting(_) => true,
            Phase::Stopping { after, .. } => matches!(after, After::Start | After::StartFailed(_)),
            _ => false,
        })
    }

    /// Asks the next members of a group to stop; returns whether none is left. Paused members are left alone, unless the
    /// supervisor ends.
    fn stop_group(&mut self, from: ChildKey, asked: bool, now: Instant, out: &mut Vec<Action>) -> bool {
        let ending = self.is_ending();
        let belongs = |policy: &Self, key: ChildKey| ending || !policy.children[&key].paused;
        let after = if ending { After::Rest } else { After::Group };
        let together = !self.is_ordered() || self.is_dynamic();
        if !together {
            let Some(newest) = self.alive.descending_to(from).find(|&key| belongs(self, key)) else {
                return true;
            };
            if !matches!(self.children[&newest].phase, Phase::Stopping { .. }) {
                self.stop(newest, after, now, out);
            }
            return false;
        }
        if asked && !self.has_dependencies {
            return !self.alive.ascending_from(from).any(|key| belongs(self, key));
        }
        let alive: Vec<ChildKey> =
            self.alive.ascending_from(from).filter(|&key| belongs(self, key)).collect();
        let needed: BTreeSet<ChildId> = if self.has_dependencies {
            let depends_on = |key| self.children[key].spec.depends_on.iter();
            alive.iter().flat_map(depends_on).map(|dependency| dependency.on.clone()).collect()
        } else {
            BTreeSet::new()
        };
        for &key in alive.iter().rev() {
            let child = &self.children[&key];
            if !matches!(child.phase, Phase::Stopping { .. }) && !needed.contains(&child.spec.id) {
                self.stop(key, after, now, out);
            }
        }
        alive.is_empty()
    }

    /// Begins the stop ladder of a living child.
    pub(super) fn stop(&mut self, key: ChildKey, after: After, now: Instant, out: &mut Vec<Action>) {
        if let Phase::Ready { since } = self.children[&key].phase {
            self.note_stable_run(key, since, now);
        }
        let rung = shutdown::first(self.children[&key].digest.shutdown, self.spec.kill_timeout, now);
        self.stop_with(key, rung, after, out);
    }

    pub(super) fn stop_with(
        &mut self,
        key: ChildKey,
        (rung, due): (Rung, Option<Instant>),
        after: After,
        out: &mut Vec<Action>,
    ) {
        let incarnation = self.children[&key].incarnation;
        self.disarm(key, out);
        let (report, action) = match rung {
            Rung::Asked => (ChildReport::Stopping, Action::Stop { child: key, incarnation }),
            Rung::Killed => (ChildReport::Killing, Action::Kill { child: key, incarnation }),
        };
        self.report(key, report, out);
        self.set_phase(key, Phase::Stopping { rung, after }, out);
        out.push(action);
        if let Some(at) = due {
            self.arm(key, at, out);
        }
    }

    /// Takes the next rung of the stop ladder.
    pub(super) fn climb(
        &mut self,
        key: ChildKey,
        rung: Rung,
        after: After,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        match shutdown::next(rung, self.spec.kill_timeout, now) {
            Some(next) => self.stop_with(key, next, after, out),
            None => {
                let incarnation = self.children[&key].incarnation;
                self.report(key, ChildReport::Leaked, out);
                out.push(Action::Abandon { child: key, incarnation });
                self.gone(key, after, Exit::Killed, now, out);
            }
        }
    }

    /// Returns the dependencies of a child whose conditions do not hold.
    pub(super) fn unmet_dependencies<'a>(
        &'a self,
        child: &'a Child<T>,
    ) -> impl Iterator<Item = &'a Dependency> {
        child.spec.depends_on.iter().filter(|dependency| {
            !self.sibling(&dependency.on).is_some_and(|sibling| match (dependency.condition, sibling.phase) {
                (Condition::Started, Phase::Starting(_)) => sibling.launched,
                (Condition::Started | Condition::Ready, Phase::Ready { .. }) => true,
                (Condition::Healthy, Phase::Ready { .. }) => sibling.is_healthy(),
                (Condition::Completed, Phase::Stopped) => sibling.completed,
                _ => false,
            })
        })
    }

    pub(super) fn sibling(&self, id: &ChildId) -> Option<&Child<T>> {
        self.ids.get(id).and_then(|&key| self.children.get(key))
    }

    /// Remembers that an incarnation ended by itself, normally.
    pub(super) fn note_completed(&mut self, key: ChildKey, incarnation: Incarnation) {
        if matches!(self.current(key, incarnation), Some(Phase::Starting(_) | Phase::Ready { .. }))
            && let Some(child) = self.children.get_mut(key)
        {
            child.completed = true;
        }
    }

    /// Remembers whether dependencies are to be looked at, at all.
    pub(super) fn note_dependencies(&mut self, spec: &ChildSpec) {
        self.has_dependencies |= !spec.depends_on.is_empty();
        self.has_followers |= spec.depends_on.iter().any(|dependency| dependency.restart);
    }

    /// Stops those that restart with this child, which has just been started again; they wait for it like everybody else.
    fn restart_followers(&mut self, of: ChildKey, now: Instant, out: &mut Vec<Action>) {
        let id = self.children[&of].spec.id.clone();
        let followers: Vec<ChildKey> = self
            .alive
            .ascending_from(ChildKey::FIRST)
            .filter(|&key| {
                let child = &self.children[&key];
                child.digest.has_dependencies
                    && child.spec.depends_on.iter().any(|on| on.restart && on.on == id)
                    && !child.paused
                    && !matches!(child.phase, Phase::Stopping { .. })
                    && self.comes_back(key)
            })
            .collect();
        for key in followers {
            self.report(key, ChildReport::Follows, out);
            self.stop(key, After::Group, now, out);
        }
    }

    /// Checks what a child is to depend on: it exists, can come to what is waited for, and does not lead back to the
    /// child. A child that others wait for must go on being able to complete, too.
    ///
    /// A circle would never be stopped: each of its members waits for another to be gone.
    pub(super) fn check_dependencies_of(&self, id: &ChildId, spec: &ChildSpec) -> Result<(), SpecError> {
        if let Some(circle) = self.circle_through(id, &spec.depends_on) {
            return Err(SpecError::DependencyCycle(circle));
        }
        for dependency in &spec.depends_on {
            let Some(sibling) = self.sibling(&dependency.on) else {
                return Err(SpecError::UnknownDependency {
                    child: id.clone(),
                    dependency: dependency.on.clone(),
                });
            };
            can_come_to(id, dependency, &sibling.spec)?;
        }
        if self.has_dependencies && !spec.can_complete() {
            for (_, child) in self.children.iter() {
                for dependency in child.spec.depends_on.iter().filter(|dependency| dependency.on == *id) {
                    can_come_to(&child.spec.id, dependency, spec)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the way from a child with these dependencies back to itself, the child first.
    fn circle_through(&self, id: &ChildId, depends_on: &[Dependency]) -> Option<Vec<ChildId>> {
        let mut came_from: BTreeMap<&ChildId, &ChildId> = BTreeMap::new();
        let mut open: Vec<(&ChildId, &ChildId)> = depends_on.iter().map(|next| (id, &next.on)).collect();
        while let Some((from, next)) = open.pop() {
            if next == id {
                let mut way = vec![from.clone()];
                let mut at = from;
                while at != id {
                    at = came_from[at];
                    way.push(at.clone());
                }
                way.reverse();
                return Some(way);
            }
            if let Entry::Vacant(entry) = came_from.entry(next) {
                entry.insert(from);
                if let Some(child) = self.sibling(next) {
                    open.extend(child.spec.depends_on.iter().map(|further| (next, &further.on)));
                }
            }
        }
        None
    }

    /// Checks that dependencies exist, can come to what is waited for and are not circular.
    pub(super) fn check_dependencies(&self) -> Result<(), SpecError> {
        if !self.has_dependencies {
            return Ok(());
        }
        for (_, child) in self.children.iter() {
            for dependency in &child.spec.depends_on {
                let Some(sibling) = self.sibling(&dependency.on) else {
                    return Err(SpecError::UnknownDependency {
                        child: child.spec.id.clone(),
                        dependency: dependency.on.clone(),
                    });
                };
                can_come_to(&child.spec.id, dependency, &sibling.spec)?;
            }
        }
        self.check_circles()
    }

    /// Checks that no dependencies are circular; those on nobody who is there are not.
    pub(super) fn check_circles(&self) -> Result<(), SpecError> {
        // Take away children whose dependencies are all taken away, until nothing changes; what is left leads to a circle.
        let mut left: BTreeSet<ChildKey> = self.children.iter().map(|(key, _)| key).collect();
        loop {
            let is_free = |key: &ChildKey| {
                let dependencies = &self.children[key].spec.depends_on;
                dependencies.iter().all(|next| self.ids.get(&next.on).is_none_or(|on| !left.contains(on)))
            };
            let free: Vec<ChildKey> = left.iter().copied().filter(is_free).collect();
            if free.is_empty() {
                break;
            }
            for key in free {
                left.remove(&key);
            }
        }
        let through = |key: &ChildKey| {
            let spec = &self.children[key].spec;
            self.circle_through(&spec.id, &spec.depends_on)
        };
        match left.iter().find_map(through) {
            Some(circle) => Err(SpecError::DependencyCycle(circle)),
            None => Ok(()),
        }
    }
}

/// Checks that a sibling of this spec can come to what a child waits for.
fn can_come_to(child: &ChildId, dependency: &Dependency, sibling: &ChildSpec) -> Result<(), SpecError> {
    if dependency.condition == Condition::Completed && !sibling.can_complete() {
        return Err(SpecError::NeverCompletes { child: child.clone(), dependency: dependency.on.clone() });
    }
    Ok(())
}
