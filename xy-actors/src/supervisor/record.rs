//! The live half of one child: its recipe, its running incarnation and its history.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::child::{Child, Running, StartErrorKind};
use crate::event::ChildReport;
use crate::exit::{ExitReport, ProcessRef};
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

pub(crate) struct Record {
    pub(crate) recipe: Arc<dyn Child>,
    pub(crate) path: TreePath,
    pub(crate) live: Live,
    /// Whether the current incarnation was asked to end, or killed.
    pub(crate) stop_asked: bool,
    pub(crate) kill_asked: bool,
    pub(crate) ready_at: Option<std::time::Instant>,
    pub(crate) waits_for: Option<Arc<str>>,
    /// What the last incarnation was waiting for when it ended.
    pub(crate) waited_for: Option<Arc<str>>,
    pub(crate) last_exit: Option<LastExit>,
    pub(crate) last_start_error: Option<StartErrorKind>,
    /// What the operator said about the operation under way.
    pub(crate) asked: Option<Arc<str>>,
    pub(crate) last_report: Option<ChildReport>,
    pub(crate) transitions: VecDeque<Transition>,
    pub(crate) exits: VecDeque<LastExit>,
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
            waits_for: None,
            waited_for: None,
            last_exit: None,
            last_start_error: None,
            asked: None,
            last_report: None,
            transitions: VecDeque::new(),
            exits: VecDeque::new(),
        }
    }

    /// Forgets the incarnation that ended and notes how.
    pub(crate) fn ended(&mut self, report: ExitReport, incarnation: Incarnation, at_unix_ms: u64) {
        self.live = Live::None;
        self.ready_at = None;
        self.waited_for = self.waits_for.take().or(self.waited_for.take());
        let last = LastExit { report: Arc::new(report), at_unix_ms, incarnation };
        push_bounded(&mut self.exits, last.clone());
        self.last_exit = Some(last);
    }

    pub(crate) fn moved(&mut self, from: State, to: State, at_unix_ms: u64) {
        let exit = match self.last_report {
            Some(
                ChildReport::Exited { .. } | ChildReport::StartFailed { .. } | ChildReport::Stopped { .. },
            ) => self.last_exit.as_ref().map(|last| last.report.clone()),
            _ => None,
        };
        let asked = self.asked.clone();
        let report = self.last_report;
        push_bounded(&mut self.transitions, Transition { from, to, at_unix_ms, report, exit, asked });
        if matches!(to, State::Running | State::Stopped | State::Failed) {
            self.asked = None;
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.live {
            Live::Running(running) => running.pid(),
            _ => None,
        }
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == HISTORY {
        queue.pop_front();
    }
    queue.push_back(item);
}
