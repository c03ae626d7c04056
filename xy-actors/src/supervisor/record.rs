//! The live half of one child: its recipe, its running incarnation and its history.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::child::{Child, Running, StartErrorKind};
use crate::event::ChildReport;
use crate::exit::{Exit, ExitReport, ProcessRef};
use crate::path::TreePath;
use crate::policy::{Incarnation, State};

/// How many transitions and exits are kept per child.
const HISTORY: usize = 20;

/// How an incarnation ended, or why a start failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastExit {
    /// How and why.
    pub report: Arc<ExitReport>,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Which incarnation.
    pub incarnation: Incarnation,
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
            (Some(ChildReport::Exited { .. } | ChildReport::StartFailed { .. }), Some(exit)) => {
                exit.to_string()
            }
            (Some(ChildReport::Stopped { .. }), Some(exit)) => stopped_text(exit),
            (Some(report), _) => report.words().to_owned(),
            (None, _) => "to be started with its supervisor".to_owned(),
        };
        if let Some(asked) = &self.asked {
            text.push_str(" (");
            text.push_str(asked);
            text.push(')');
        }
        text
    }
}

fn stopped_text(exit: &ExitReport) -> String {
    let names = |processes: &[ProcessRef]| {
        let names: Vec<String> = processes.iter().map(|p| format!("{} ({})", p.pid, p.command)).collect();
        names.join(", ")
    };
    match (exit.killed.is_empty(), exit.left.is_empty()) {
        (true, true) => format!("stopped, {exit}"),
        (false, true) => format!("stopped, {exit}; had to be killed: {}", names(&exit.killed)),
        (_, false) => format!("stopped, {exit}; still there: {}", names(&exit.left)),
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
    Running(Box<dyn Running>),
}

impl Live {
    /// Says that nothing of it is left to end.
    pub(crate) fn over(&mut self) {
        if let Self::Running(running) = self {
            running.ended();
        }
    }
}

pub(crate) struct Record {
    pub(crate) recipe: Arc<dyn Child>,
    pub(crate) path: TreePath,
    pub(crate) live: Live,
    /// Whether the current incarnation was asked to end, or killed.
    pub(crate) stop_asked: bool,
    pub(crate) kill_asked: bool,
    pub(crate) ready_at: Option<std::time::Instant>,
    pub(crate) last_start_error: Option<StartErrorKind>,
    pub(crate) last_report: Option<ChildReport>,
    /// What few children have something to say about.
    notes: Option<Box<Notes>>,
    steps: VecDeque<Step>,
    #[expect(clippy::box_collection, reason = "most children never end: one word for them, not four")]
    exits: Option<Box<VecDeque<LastExit>>>,
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

/// A transition as it is kept: small, because most have nothing to add.
enum Step {
    Plain { at_unix_ms: u64, report: Option<&'static ChildReport>, from: State, to: State },
    Stopped { at_unix_ms: u64, report: Arc<ExitReport>, from: State, to: State, exit: Exit, clean: bool },
    Full(Box<Transition>),
}

impl Step {
    fn transition(&self) -> Transition {
        match self {
            &Self::Plain { at_unix_ms, report, from, to } => {
                Transition { from, to, at_unix_ms, report: report.copied(), exit: None, asked: None }
            }
            &Self::Stopped { at_unix_ms, ref report, from, to, exit, clean } => Transition {
                from,
                to,
                at_unix_ms,
                report: Some(ChildReport::Stopped { exit, clean }),
                exit: Some(report.clone()),
                asked: None,
            },
            Self::Full(transition) => (**transition).clone(),
        }
    }
}

impl Record {
    pub(crate) fn new(recipe: Arc<dyn Child>, path: TreePath) -> Self {
        Self {
            recipe,
            path,
            live: Live::None,
            stop_asked: false,
            kill_asked: false,
            ready_at: None,
            last_start_error: None,
            last_report: None,
            notes: None,
            steps: VecDeque::new(),
            exits: None,
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
    pub(crate) fn ended(&mut self, report: ExitReport, incarnation: Incarnation, at_unix_ms: u64) {
        self.live = Live::None;
        self.ready_at = None;
        if let Some(notes) = &mut self.notes {
            notes.waited_for = notes.waits_for.take().or(notes.waited_for.take());
        }
        let exits = self.exits.get_or_insert_default();
        push_bounded(exits, LastExit { report: Arc::new(report), at_unix_ms, incarnation });
    }

    /// Returns how the last incarnation, or the last failed start, ended.
    pub(crate) fn last_exit(&self) -> Option<&LastExit> {
        self.exits.as_ref()?.back()
    }

    /// Returns the latest exits and failed starts, oldest first.
    pub(crate) fn exits(&self) -> Vec<LastExit> {
        self.exits.iter().flat_map(|exits| exits.iter().cloned()).collect()
    }

    /// Returns the report of the last exit, if `report` is about that.
    pub(crate) fn exit_of(&self, report: ChildReport) -> Option<Arc<ExitReport>> {
        match report {
            ChildReport::Exited { .. } | ChildReport::StartFailed { .. } | ChildReport::Stopped { .. } => {
                self.last_exit().map(|last| last.report.clone())
            }
            _ => None,
        }
    }

    pub(crate) fn moved(&mut self, from: State, to: State, at_unix_ms: u64) {
        let report = self.last_report;
        let exit = report.and_then(|report| self.exit_of(report));
        let asked = self.notes.as_ref().and_then(|notes| notes.asked.clone());
        let step = match (report, exit, asked) {
            (None, None, None) => Step::Plain { at_unix_ms, report: None, from, to },
            (Some(ChildReport::Stopped { exit, clean }), Some(report), None) => {
                Step::Stopped { at_unix_ms, report, from, to, exit, clean }
            }
            (report, exit, asked) => match report.and_then(plain) {
                Some(report) if exit.is_none() && asked.is_none() => {
                    Step::Plain { at_unix_ms, report: Some(report), from, to }
                }
                _ => Step::Full(Box::new(Transition { from, to, at_unix_ms, report, exit, asked })),
            },
        };
        push_bounded(&mut self.steps, step);
        if matches!(to, State::Running | State::Stopped | State::Failed)
            && let Some(notes) = &mut self.notes
        {
            notes.asked = None;
        }
    }

    /// Returns the latest transitions, oldest first.
    pub(crate) fn transitions(&self) -> Vec<Transition> {
        self.steps.iter().map(Step::transition).collect()
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

/// Returns the one copy of a report that says nothing more than its name.
fn plain(report: ChildReport) -> Option<&'static ChildReport> {
    Some(match report {
        ChildReport::Added => &ChildReport::Added,
        ChildReport::Removed => &ChildReport::Removed,
        ChildReport::Starting => &ChildReport::Starting,
        ChildReport::Ready => &ChildReport::Ready,
        ChildReport::Unhealthy => &ChildReport::Unhealthy,
        ChildReport::Healthy => &ChildReport::Healthy,
        ChildReport::Ignored => &ChildReport::Ignored,
        ChildReport::Stopping => &ChildReport::Stopping,
        ChildReport::Killing => &ChildReport::Killing,
        ChildReport::CalledOff => &ChildReport::CalledOff,
        ChildReport::Leaked => &ChildReport::Leaked,
        ChildReport::Paused => &ChildReport::Paused,
        ChildReport::Resumed => &ChildReport::Resumed,
        ChildReport::StartFailed { .. } | ChildReport::Exited { .. } | ChildReport::Stopped { .. } => {
            return None;
        }
    })
}

/// Appends to a history, which grows with what it holds.
fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == HISTORY {
        queue.pop_front();
    } else if queue.len() == queue.capacity() {
        queue.reserve_exact((2 * queue.len()).clamp(2, HISTORY) - queue.len());
    }
    queue.push_back(item);
}
