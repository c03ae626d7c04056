//! Operations on children: OTP's library calls and the operator's verbs, and what they answer in each state.

use super::*;

/// What somebody asks of a supervisor.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// OTP's start_child: add a child and start it. With `autostart` off it is only added.
    StartChild(Arc<ChildSpec>),
    /// OTP's terminate_child: stop it; a group restart brings it back.
    TerminateChild(ChildKey),
    /// OTP's restart_child: start a stopped child.
    RestartChild(ChildKey),
    /// OTP's delete_child: drop the spec of a stopped child.
    DeleteChild(ChildKey),
    /// The operator's start: wanted up, and started now whatever it was waiting for.
    Start(ChildKey),
    /// The operator's stop: wanted down until somebody starts it.
    Stop(ChildKey),
    /// The operator's restart: stopped if alive, then started; not counted.
    Restart(ChildKey),
    /// Automatic restarts off, the child untouched.
    Pause(ChildKey),
    /// Automatic restarts on; a child that ended meanwhile is restarted.
    Resume(ChildKey),
    /// Replace the policy of a child (its id stays), without touching the incarnation.
    Update(ChildKey, Arc<ChildSpec>),
    /// Stop and drop the spec.
    Remove(ChildKey),
}

/// The one answer to an operation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The child is ready.
    Started {
        /// The child.
        child: ChildKey,
        /// The incarnation that is ready.
        incarnation: Incarnation,
    },
    /// It was ready already.
    AlreadyRunning {
        /// The child.
        child: ChildKey,
    },
    /// Its start said that there is nothing to run; `None` if its spec went with that.
    Ignored {
        /// The child, if its spec is kept.
        child: Option<ChildKey>,
    },
    /// It was added without being started.
    Added {
        /// The child.
        child: ChildKey,
    },
    /// It was alive and is gone.
    Stopped {
        /// The child.
        child: ChildKey,
        /// How it ended.
        exit: Exit,
    },
    /// It was not alive, and whatever it was waiting for is called off.
    NotRunning {
        /// The child.
        child: ChildKey,
    },
    /// Done.
    Done,
    /// Nothing was done, or what was asked did not come about.
    Refused(Refusal),
}

/// Why an operation did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No such child.
    #[error("no such child")]
    NotFound,
    /// start_child: a child with this id is running.
    #[error("child is already started")]
    AlreadyStarted(ChildKey),
    /// start_child: a child with this id is there, but not running; restart or delete it.
    #[error("child is already present, but not running: restart or delete it")]
    AlreadyPresent(ChildKey),
    /// The child is running.
    #[error("child is running")]
    Running,
    /// The child is about to be restarted.
    #[error("child is being restarted")]
    Restarting,
    /// The call does not exist for simple_one_for_one supervisors.
    #[error("not possible with a simple_one_for_one supervisor")]
    SimpleOneForOne,
    /// The supervisor has as many children as it may.
    #[error("the supervisor has its maximum of {0} children")]
    MaxChildren(usize),
    /// The spec is not valid.
    #[error(transparent)]
    Invalid(#[from] SpecError),
    /// The start failed, or the incarnation ended before it was ready.
    #[error("child did not start")]
    StartFailed {
        /// The child.
        child: ChildKey,
    },
    /// Another operation came in between.
    #[error("called off by another operation")]
    Superseded,
    /// The supervisor is ending.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
}

impl<T> Policy<T> {
    pub(super) fn on_operation(
        &mut self,
        id: OperationId,
        operation: Operation,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        match self.operate(id, operation, now, out) {
            Ok(Some(outcome)) => out.push(Action::Answer { id, outcome }),
            Ok(None) => {}
            Err(refusal) => out.push(Action::Answer { id, outcome: Outcome::Refused(refusal) }),
        }
    }

    /// Performs an operation; `None` means that it is answered later.
    fn operate(
        &mut self,
        id: OperationId,
        operation: Operation,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        if self.is_ending() {
            return self.operate_while_ending(id, &operation);
        }
        match operation {
            Operation::StartChild(spec) => self.start_child(id, spec, now, out),
            Operation::TerminateChild(key) => self.stop_child(id, key, After::Rest, now, out),
            Operation::RestartChild(key) => self.restart_child(id, key, now, out),
            Operation::DeleteChild(key) => self.delete_child(key, out),
            Operation::Start(key) => self.start(id, key, now, out),
            Operation::Stop(key) => {
                self.child_mut(key)?.wanted = Wanted::Down;
                self.stop_child(id, key, After::Rest, now, out)
            }
            Operation::Restart(key) => self.restart(id, key, now, out),
            Operation::Pause(key) => self.pause(key, out),
            Operation::Resume(key) => self.resume(key, now, out),
            Operation::Update(key, spec) => self.update(key, spec),
            Operation::Remove(key) => self.stop_child(id, key, After::Remove, now, out),
        }
    }

    /// A supervisor that ends takes no more work, but a stop of a child is still answered when the child is gone.
    fn operate_while_ending(
        &mut self,
        id: OperationId,
        operation: &Operation,
    ) -> Result<Option<Outcome>, Refusal> {
        let (Operation::TerminateChild(key) | Operation::Stop(key) | Operation::Remove(key)) = *operation
        else {
            return Err(Refusal::ShuttingDown);
        };
        let child = self.child_mut(key)?;
        if !child.phase.is_alive() {
            return Ok(Some(Outcome::NotRunning { child: key }));
        }
        child.wait(Waiter { id, goal: Goal::Gone });
        Ok(None)
    }

    fn start_child(
        &mut self,
        id: OperationId,
        spec: Arc<ChildSpec>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        spec.validate(&self.spec)?;
        if let Some(&key) = self.ids.get(&spec.id) {
            return Err(match self.children[&key].phase {
                Phase::Starting(_) | Phase::Ready { .. } | Phase::Stopping { .. } => {
                    Refusal::AlreadyStarted(key)
                }
                _ => Refusal::AlreadyPresent(key),
            });
        }
        if let Some(max) = self.spec.max_children
            && self.children.len() >= max
        {
            return Err(Refusal::MaxChildren(max));
        }
        self.check_dependencies_of(&spec.id, &spec)?;
        let autostart = spec.autostart;
        let key = self.insert(spec, None);
        self.report(key, ChildReport::Added, out);
        if !autostart {
            return Ok(Some(Outcome::Added { child: key }));
        }
        self.wait_until_ready(id, key);
        self.start_when_allowed(key, Origin::Added, now, out);
        Ok(None)
    }

    fn restart_child(
        &mut self,
        id: OperationId,
        key: ChildKey,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        if self.is_dynamic() {
            return Err(Refusal::SimpleOneForOne);
        }
        match self.child_mut(key)?.phase {
            Phase::Stopped | Phase::Failed | Phase::Held => self.start(id, key, now, out),
            Phase::Stopping { after: After::Rest, .. } => self.start(id, key, now, out),
            Phase::Ready { .. } | Phase::Starting(_) => Err(Refusal::Running),
            Phase::Queued(_) | Phase::Waiting { .. } | Phase::Stopping { .. } => Err(Refusal::Restarting),
        }
    }

    fn delete_child(&mut self, key: ChildKey, out: &mut Vec<Action>) -> Result<Option<Outcome>, Refusal> {
        if self.is_dynamic() {
            return Err(Refusal::SimpleOneForOne);
        }
        match self.child_mut(key)?.phase {
            Phase::Stopped | Phase::Failed | Phase::Held => {
                self.remove(key, out);
                Ok(Some(Outcome::Done))
            }
            Phase::Ready { .. } | Phase::Starting(_) | Phase::Stopping { .. } => Err(Refusal::Running),
            Phase::Queued(_) | Phase::Waiting { .. } => Err(Refusal::Restarting),
        }
    }

    fn start(
        &mut self,
        id: OperationId,
        key: ChildKey,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        self.terminated.remove(&key);
        let child = self.child_mut(key)?;
        child.wanted = Wanted::Up;
        match child.phase {
            Phase::Ready { .. } => return Ok(Some(Outcome::AlreadyRunning { child: key })),
            Phase::Starting(_) => self.wait_until_ready(id, key),
            Phase::Stopping { rung, after } => {
                if matches!(after, After::Rest | After::Group | After::Unhealthy) {
                    self.start_afresh(key);
                    self.set_phase(key, Phase::Stopping { rung, after: After::Start }, out);
                }
                self.wait_until_ready(id, key);
            }
            Phase::Stopped | Phase::Failed | Phase::Held | Phase::Waiting { .. } | Phase::Queued(_) => {
                self.start_afresh(key);
                self.wait_until_ready(id, key);
                self.start_when_allowed(key, Origin::Asked, now, out);
            }
        }
        Ok(None)
    }

    fn restart(
        &mut self,
        id: OperationId,
        key: ChildKey,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        match self.child_mut(key)?.phase {
            Phase::Starting(_) | Phase::Ready { .. } => {
                // Whoever waited for the incarnation that ends now is told so; only the new one answers this operation.
                self.refuse_ready_waiters(key, Refusal::Superseded, out);
                self.child_mut(key)?.wanted = Wanted::Up;
                self.start_afresh(key);
                self.wait_until_ready(id, key);
                self.stop(key, After::Start, now, out);
                Ok(None)
            }
            _ => self.start(id, key, now, out),
        }
    }

    /// Stops a child, or calls off what it was waiting for.
    fn stop_child(
        &mut self,
        id: OperationId,
        key: ChildKey,
        after: After,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        let dynamic = self.is_dynamic();
        self.child_mut(key)?;
        let remove = after == After::Remove;
        if self.is_rebuilding(key) {
            self.terminated.insert(key);
        }
        let child = self.child_mut(key)?;
        match child.phase {
            Phase::Starting(_) | Phase::Ready { .. } => {
                child.wait(Waiter { id, goal: Goal::Gone });
                self.refuse_ready_waiters(key, Refusal::Superseded, out);
                self.stop(key, after, now, out);
                Ok(None)
            }
            Phase::Stopping { rung, after: current } => {
                child.wait(Waiter { id, goal: Goal::Gone });
                if current != After::Remove {
                    self.refuse_ready_waiters(key, Refusal::Superseded, out);
                    self.set_phase(key, Phase::Stopping { rung, after }, out);
                }
                Ok(None)
            }
            Phase::Stopped | Phase::Failed | Phase::Held | Phase::Waiting { .. } | Phase::Queued(_) => {
                let called_off =
                    matches!(child.phase, Phase::Held | Phase::Waiting { .. } | Phase::Queued(_));
                if called_off {
                    self.report(key, ChildReport::CalledOff, out);
                }
                // A temporary child goes with its start, as it would have gone with its stop.
                let dropped = called_off && self.is_dropped_when_ended(key);
                self.disarm(key, out);
                self.refuse_ready_waiters(key, Refusal::Superseded, out);
                self.set_phase(key, Phase::Stopped, out);
                if remove || dynamic || dropped {
                    self.remove(key, out);
                }
                Ok(Some(Outcome::NotRunning { child: key }))
            }
        }
    }

    fn pause(&mut self, key: ChildKey, out: &mut Vec<Action>) -> Result<Option<Outcome>, Refusal> {
        let child = self.child_mut(key)?;
        if !child.paused {
            child.paused = true;
            let planned = match child.phase {
                Phase::Waiting { .. } | Phase::Queued(Origin::Automatic) => true,
                Phase::Stopped => self.is_rebuilding(key) && self.comes_back(key),
                _ => false,
            };
            self.report(key, ChildReport::Paused, out);
            if planned {
                self.disarm(key, out);
                self.refuse_ready_waiters(key, Refusal::Superseded, out);
                self.set_phase(key, Phase::Held, out);
            }
        }
        Ok(Some(Outcome::Done))
    }

    fn resume(
        &mut self,
        key: ChildKey,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<Option<Outcome>, Refusal> {
        let child = self.child_mut(key)?;
        if child.paused {
            child.paused = false;
            let held = child.phase == Phase::Held;
            self.report(key, ChildReport::Resumed, out);
            if let Some(rebuild) = &mut self.rebuild {
                // It takes part from now on, and has not been asked to stop.
                rebuild.asked = false;
            }
            if held {
                self.start_when_allowed(key, Origin::Automatic, now, out);
            }
        }
        Ok(Some(Outcome::Done))
    }

    fn update(&mut self, key: ChildKey, mut spec: Arc<ChildSpec>) -> Result<Option<Outcome>, Refusal> {
        spec.validate(&self.spec)?;
        let id = self.child_mut(key)?.spec.id.clone();
        self.check_dependencies_of(&id, &spec)?;
        self.note_dependencies(&spec);
        if spec.id != id {
            Arc::make_mut(&mut spec).id = id;
        }
        self.child_mut(key)?.set_spec(spec);
        Ok(Some(Outcome::Done))
    }

    /// An operator's start begins with a clean slate: limit, backoff and count of restarts.
    fn start_afresh(&mut self, key: ChildKey) {
        if let Some(child) = self.children.get_mut(key) {
            if let Some(own) = &mut child.own {
                own.window.clear();
            }
            child.attempt = 0;
            child.restarts = 0;
        }
    }

    fn wait_until_ready(&mut self, id: OperationId, key: ChildKey) {
        if let Some(child) = self.children.get_mut(key) {
            child.wait(Waiter { id, goal: Goal::Ready });
        }
    }

    fn child_mut(&mut self, key: ChildKey) -> Result<&mut Child<T>, Refusal> {
        self.children.get_mut(key).ok_or(Refusal::NotFound)
    }
}
