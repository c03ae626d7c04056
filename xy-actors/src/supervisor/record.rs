//! The live half of one child: its recipe, its running incarnation and its history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::child::{Child, LinkedActor, Running, StartErrorKind, StartInfo};
use crate::event::ring::Label;
use crate::event::{ChildReport, Next};
use crate::exit::{Exit, ExitReport, ProcessRef};
use crate::path::TreePath;
use crate::policy::{Incarnation, State};

#[cfg(feature = "process")]
mod handover;
#[cfg(feature = "process")]
pub(crate) use handover::RecordState;

/// How many transitions and exits together are kept per child.
const HISTORY: usize = 48;

/// How an incarnation ended, or why a start failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastExit {
    /// How and why.
    pub report: Arc<ExitReport>,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Which incarnation.
    pub incarnation: Incarnation,
    /// What followed, with which restart of how many it was; `None` if it had been asked to end, or was given up as leaked.
    pub next: Option<Next>,
}

/// One change of a child's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The report that came with it.
    pub report: Option<ChildReport>,
    /// How the incarnation ended, if the report is about that.
    pub exit: Option<Arc<ExitReport>>,
    /// What the operator said, if an operator asked for it.
    pub asked: Option<Arc<str>>,
}

impl Transition {
    /// Returns the reason in words.
    pub fn reason(&self) -> String {
        let mut text = match (&self.report, &self.exit) {
            (Some(ChildReport::Exited { .. }), Some(exit)) => exit.to_string(),
            // A start that was given up ended by a stop.
            (Some(ChildReport::StartFailed { .. }), Some(exit)) => exit.to_string() + &rest_text(exit),
            (Some(ChildReport::Stopped { .. }), Some(exit)) => format!("stopped, {exit}{}", rest_text(exit)),
            (Some(report), _) => report.words().to_owned(),
            (None, _) if self.to == State::Restarting => "to be started again with its group".to_owned(),
            (None, _) => "no longer needed".to_owned(),
        };
        if let Some(asked) = &self.asked {
            text.push_str(" (");
            text.push_str(asked);
            text.push(')');
        }
        text
    }
}

/// Returns what is to be said of the rest of a tree that was stopped.
fn rest_text(exit: &ExitReport) -> String {
    let names = |processes: &[ProcessRef]| {
        let names: Vec<String> = processes.iter().map(|p| format!("{} ({})", p.pid, p.command)).collect();
        names.join(", ")
    };
    match (exit.killed.is_empty(), exit.left.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("; had to be killed: {}", names(&exit.killed)),
        (_, false) => format!("; still there: {}", names(&exit.left)),
    }
}

/// What exists of a child's current incarnation.
pub(crate) enum Live {
    None,
    /// Its start goes on in a task of its own.
    Pending {
        cancel: Option<oneshot::Sender<()>>,
        task: AbortHandle,
    },
    /// Most children are actors: without a box of its own, one costs a cache line less.
    Actor(LinkedActor),
    Running(Box<dyn Running>),
}

impl Live {
    /// Asks it to end; `false` if there is nothing.
    pub(crate) fn stop(&mut self) -> bool {
        match self {
            Self::None => return false,
            Self::Pending { cancel, .. } => call_off(cancel),
            Self::Actor(actor) => actor.stop(),
            Self::Running(running) => running.stop(),
        }
        true
    }

    /// Ends it without asking; `false` if there is nothing.
    pub(crate) fn kill(&mut self) -> bool {
        match self {
            Self::None => return false,
            Self::Pending { cancel, .. } => call_off(cancel),
            Self::Actor(actor) => actor.kill(),
            Self::Running(running) => running.kill(),
        }
        true
    }

    /// Says that nothing of it is left to end.
    pub(crate) fn over(&mut self) {
        match self {
            Self::None | Self::Pending { .. } => {}
            Self::Actor(actor) => actor.ended(),
            Self::Running(running) => running.ended(),
        }
    }

    /// Returns the actor, if it is one.
    pub(crate) fn actor(&self) -> Option<&ActorCell> {
        match self {
            Self::Actor(actor) => actor.cell(),
            _ => None,
        }
    }

    /// Returns what the start hands back to whoever asked for it.
    pub(crate) fn info(&self) -> Option<StartInfo> {
        match self {
            Self::None | Self::Pending { .. } => None,
            Self::Actor(actor) => actor.cell().map(|cell| StartInfo::new(cell.clone())),
            Self::Running(running) => running.info(),
        }
    }
}

fn call_off(cancel: &mut Option<oneshot::Sender<()>>) {
    if let Some(cancel) = cancel.take() {
        // A start that is over has sent its result; it is taken in as one that is being stopped.
        let _over = cancel.send(());
    }
}

pub(crate) struct Record {
    pub(crate) recipe: Arc<dyn Child>,
    pub(crate) path: TreePath,
    /// What its events bear in the tree's log, which takes it back with [`EventLog::part`](crate::event::stream::EventLog).
    pub(crate) label: Option<Label>,
    pub(crate) live: Live,
    /// Whether the current incarnation was asked to end, or killed.
    pub(crate) stop_asked: bool,
    pub(crate) kill_asked: bool,
    pub(crate) ready_at: Option<std::time::Instant>,
    pub(crate) last_start_error: Option<StartErrorKind>,
    /// What few children have something to say about.
    notes: Option<Box<Notes>>,
    /// The oldest step, which for most children is the only one: their start.
    first: Option<Step>,
    /// The steps after it, oldest first.
    steps: VecDeque<Step>,
}

#[derive(Default)]
struct Notes {
    waits_for: Option<Arc<str>>,
    /// What the last incarnation was waiting for when it ended.
    waited_for: Option<Arc<str>>,
    /// What the operator said about the operation under way.
    asked: Option<Arc<str>>,
    /// Why the incarnation failed its health check for good.
    unhealthy: Option<Arc<str>>,
}

/// A transition or an exit as it is kept: small, because most have nothing to add.
enum Step {
    Exit {
        report: Arc<ExitReport>,
        at_unix_ms: u64,
        incarnation: Incarnation,
        next: Follows,
    },
    /// Without an exit; `ready_after` is the time in milliseconds until the child was ready, where that came next.
    Plain {
        at_unix_ms: u64,
        report: Option<&'static ChildReport>,
        from: State,
        to: State,
        ready_after: Option<u32>,
    },
    Stopped {
        at_unix_ms: u64,
        report: Arc<ExitReport>,
        from: State,
        to: State,
        exit: Exit,
        clean: bool,
    },
    Full(Box<Transition>),
}

/// What followed an exit: small, because most children are restarted at once.
enum Follows {
    RestartAtOnce { nth: u32, of: Option<u32> },
    Other(Option<Box<Next>>),
}

impl Follows {
    fn of(next: Next) -> Self {
        match next {
            Next::Restart { delay, nth, of } if delay.is_zero() => Self::RestartAtOnce { nth, of },
            next => Self::Other(Some(Box::new(next))),
        }
    }

    fn next(&self) -> Option<Next> {
        match self {
            &Self::RestartAtOnce { nth, of } => Some(Next::Restart { delay: Duration::ZERO, nth, of }),
            Self::Other(next) => next.as_deref().copied(),
        }
    }
}

impl Step {
    fn exit(&self) -> Option<&Arc<ExitReport>> {
        match self {
            Self::Exit { report, .. } => Some(report),
            _ => None,
        }
    }

    fn last_exit(&self) -> Option<LastExit> {
        match self {
            Self::Exit { report, at_unix_ms, incarnation, next } => Some(LastExit {
                report: report.clone(),
                at_unix_ms: *at_unix_ms,
                incarnation: *incarnation,
                next: next.next(),
            }),
            _ => None,
        }
    }

    fn transitions(&self) -> impl Iterator<Item = Transition> {
        let plain = |from, to, at_unix_ms, report| Transition {
            from,
            to,
            at_unix_ms,
            report,
            exit: None,
            asked: None,
        };
        let (first, second) = match self {
            Self::Exit { .. } => (None, None),
            &Self::Plain { at_unix_ms, report, from, to, ready_after } => {
                let ready = ready_after.map(|after| {
                    let at = at_unix_ms.saturating_add(after.into());
                    plain(to, State::Running, at, Some(ChildReport::Ready))
                });
                (Some(plain(from, to, at_unix_ms, report.copied())), ready)
            }
            &Self::Stopped { at_unix_ms, ref report, from, to, exit, clean } => {
                let stopped = plain(from, to, at_unix_ms, Some(ChildReport::Stopped { exit, clean }));
                (Some(Transition { exit: Some(report.clone()), ..stopped }), None)
            }
            Self::Full(transition) => (Some((**transition).clone()), None),
        };
        first.into_iter().chain(second)
    }

    /// Notes that the child was ready, if that is all there is to say and the step is the start before it.
    fn merge_ready(&mut self, ready_at_unix_ms: u64) -> bool {
        let Self::Plain { at_unix_ms, to: State::Starting, ready_after, .. } = self else { return false };
        let after = ready_at_unix_ms.checked_sub(*at_unix_ms).and_then(|after| u32::try_from(after).ok());
        *ready_after = after;
        after.is_some()
    }
}

impl Record {
    pub(crate) fn new(recipe: Arc<dyn Child>, path: TreePath) -> Self {
        Self {
            recipe,
            path,
            label: None,
            live: Live::None,
            stop_asked: false,
            kill_asked: false,
            ready_at: None,
            last_start_error: None,
            notes: None,
            first: None,
            steps: VecDeque::new(),
        }
    }

    /// Forgets what concerned the incarnation before the one that begins.
    pub(crate) fn begin(&mut self) {
        self.stop_asked = false;
        self.kill_asked = false;
        if let Some(notes) = &mut self.notes {
            notes.waits_for = None;
            notes.waited_for = None;
            notes.unhealthy = None;
            if notes.asked.is_none() {
                self.notes = None;
            }
        }
    }

    /// Notes that the incarnation can serve.
    pub(crate) fn ready(&mut self, now: std::time::Instant) {
        if self.ready_at.is_none() {
            self.ready_at = Some(now);
            self.last_start_error = None;
            if let Some(notes) = &mut self.notes {
                notes.waits_for = None;
            }
        }
    }

    /// Forgets the incarnation that ended and notes how.
    pub(crate) fn ended(&mut self, report: Arc<ExitReport>, incarnation: Incarnation, at_unix_ms: u64) {
        self.live = Live::None;
        self.ready_at = None;
        if let Some(notes) = &mut self.notes {
            notes.waited_for = notes.waits_for.take().or(notes.waited_for.take());
        }
        let next = Follows::Other(None);
        self.push(Step::Exit { report, at_unix_ms, incarnation, next });
    }

    /// Notes what follows the last exit or failed start, if the report says so.
    pub(crate) fn note_next(&mut self, report: ChildReport) {
        if let ChildReport::Exited { next: follows, .. } | ChildReport::StartFailed { next: follows } = report
            && let Some(Step::Exit { next, .. }) = self.history_mut().rfind(|step| step.exit().is_some())
        {
            *next = Follows::of(follows);
        }
    }

    /// Returns how the last incarnation, or the last failed start, ended.
    pub(crate) fn last_exit(&self) -> Option<LastExit> {
        self.history().rev().find_map(Step::last_exit)
    }

    /// Returns the report of that end alone.
    pub(crate) fn last_report(&self) -> Option<&Arc<ExitReport>> {
        self.history().rev().find_map(Step::exit)
    }

    /// Returns the latest exits and failed starts, oldest first.
    pub(crate) fn exits(&self) -> Vec<LastExit> {
        self.history().filter_map(Step::last_exit).collect()
    }

    /// Returns the report of the last exit, if `report` is about that.
    pub(crate) fn exit_of(&self, report: ChildReport) -> Option<Arc<ExitReport>> {
        match report {
            ChildReport::Exited { .. } | ChildReport::StartFailed { .. } | ChildReport::Stopped { .. } => {
                self.last_report().cloned()
            }
            _ => None,
        }
    }

    /// Notes a change of state, with the report that came before it in the same step.
    pub(crate) fn moved(&mut self, from: State, to: State, report: Option<ChildReport>, at_unix_ms: u64) {
        if (report, to) == (Some(ChildReport::Ready), State::Running)
            && self.notes.is_none()
            && let Some(step) = self.steps.back_mut().or(self.first.as_mut())
            && step.merge_ready(at_unix_ms)
        {
            return;
        }
        let exit = report.and_then(|report| self.exit_of(report));
        let asked = self.notes.as_ref().and_then(|notes| notes.asked.clone());
        let step = match (report, exit, asked) {
            (None, None, None) => Step::Plain { at_unix_ms, report: None, from, to, ready_after: None },
            (Some(ChildReport::Stopped { exit, clean }), Some(report), None) => {
                Step::Stopped { at_unix_ms, report, from, to, exit, clean }
            }
            (report, exit, asked) => match report.and_then(ChildReport::plain) {
                Some(report) if exit.is_none() && asked.is_none() => {
                    Step::Plain { at_unix_ms, report: Some(report), from, to, ready_after: None }
                }
                _ => Step::Full(Box::new(Transition { from, to, at_unix_ms, report, exit, asked })),
            },
        };
        self.push(step);
        if matches!(to, State::Running | State::Stopped | State::Failed)
            && let Some(notes) = &mut self.notes
        {
            notes.asked = None;
        }
    }

    /// Returns the latest transitions and exits, oldest first.
    fn history(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.first.iter().chain(&self.steps)
    }

    fn history_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Step> {
        self.first.iter_mut().chain(&mut self.steps)
    }

    /// Appends to the history, which grows with what it holds.
    fn push(&mut self, step: Step) {
        let steps = &mut self.steps;
        if steps.is_empty() && self.first.is_none() {
            self.first = Some(step);
            return;
        }
        if steps.len() == HISTORY {
            self.first = steps.pop_front();
        } else if steps.len() == steps.capacity() {
            // A restart makes two.
            let room = (2 * steps.len()).clamp(4, HISTORY);
            steps.reserve_exact(room - steps.len());
        }
        steps.push_back(step);
    }

    /// Returns the latest transitions, oldest first.
    pub(crate) fn transitions(&self) -> Vec<Transition> {
        let mut exits = self.history().filter_map(Step::last_exit);
        let restarted = |transition: Transition| {
            // A restart at once is kept as its start; why it was one is among the exits, which are in the same order.
            let (State::Running, State::Starting) = (transition.from, transition.to) else {
                return transition;
            };
            let exit = exits.find(|exit| exit.at_unix_ms == transition.at_unix_ms && exit.next.is_some());
            match exit {
                Some(LastExit { report, next: Some(next), .. }) => Transition {
                    report: Some(ChildReport::Exited { exit: report.exit, next }),
                    exit: Some(report),
                    ..transition
                },
                _ => transition,
            }
        };
        self.history().flat_map(Step::transitions).map(restarted).collect()
    }

    pub(crate) fn waits_for(&self) -> Option<&str> {
        self.notes.as_ref()?.waits_for.as_deref()
    }

    pub(crate) fn waited_for(&self) -> Option<&str> {
        self.notes.as_ref()?.waited_for.as_deref()
    }

    pub(crate) fn set_waits_for(&mut self, what: Option<Arc<str>>) {
        if what.is_some() || self.notes.is_some() {
            self.notes.get_or_insert_default().waits_for = what;
        }
    }

    pub(crate) fn set_asked(&mut self, reason: Arc<str>) {
        self.notes.get_or_insert_default().asked = Some(reason);
    }

    /// Notes why the incarnation failed its health check for good.
    pub(crate) fn set_unhealthy(&mut self, why: Arc<str>) {
        self.notes.get_or_insert_default().unhealthy = Some(why);
    }

    pub(crate) fn unhealthy(&self) -> Option<&str> {
        self.notes.as_ref()?.unhealthy.as_deref()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.live {
            Live::Running(running) => running.pid(),
            _ => None,
        }
    }
}
