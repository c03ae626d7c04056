//! What a record keeps, as plain data.

use std::sync::Arc;
use std::time::Instant;

use super::{Follows, LastExit, Notes, Record, Step, Transition};
use crate::child::StartErrorKind;
use crate::event::{ChildReport, Next};
use crate::exit::ExitReport;
use crate::policy::decision::handover::{moment, offset};
use crate::policy::{Incarnation, State};

/// What a record keeps beside the living incarnation.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RecordState {
    stop_asked: bool,
    kill_asked: bool,
    ready_at: Option<i64>,
    last_start_error: Option<StartErrorKind>,
    waits_for: Option<String>,
    waited_for: Option<String>,
    asked: Option<String>,
    unhealthy: Option<String>,
    steps: Vec<StepState>,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum StepState {
    Exit {
        report: ExitReport,
        at_unix_ms: u64,
        incarnation: u64,
        next: Option<Next>,
    },
    Transition {
        from: State,
        to: State,
        at_unix_ms: u64,
        report: Option<ChildReport>,
        exit: Option<ExitReport>,
        asked: Option<String>,
    },
}

impl Record {
    pub(crate) fn state(&self, now: Instant) -> RecordState {
        let text = |text: Option<&Arc<str>>| text.map(ToString::to_string);
        let notes = self.notes.as_deref();
        RecordState {
            stop_asked: self.stop_asked,
            kill_asked: self.kill_asked,
            ready_at: self.ready_at.map(|at| offset(at, now)),
            last_start_error: self.last_start_error,
            waits_for: text(notes.and_then(|notes| notes.waits_for.as_ref())),
            waited_for: text(notes.and_then(|notes| notes.waited_for.as_ref())),
            asked: text(notes.and_then(|notes| notes.asked.as_ref())),
            unhealthy: text(notes.and_then(|notes| notes.unhealthy.as_ref())),
            steps: self.history().flat_map(StepState::of).collect(),
        }
    }

    pub(crate) fn restore(&mut self, state: RecordState, now: Instant) {
        let RecordState {
            stop_asked,
            kill_asked,
            ready_at,
            last_start_error,
            waits_for,
            waited_for,
            asked,
            unhealthy,
            steps,
        } = state;
        (self.stop_asked, self.kill_asked) = (stop_asked, kill_asked);
        self.ready_at = ready_at.map(|at| moment(at, now));
        self.last_start_error = last_start_error;
        if [&waits_for, &waited_for, &asked, &unhealthy].into_iter().any(Option::is_some) {
            let text = |text: Option<String>| text.map(Arc::from);
            self.notes = Some(Box::new(Notes {
                waits_for: text(waits_for),
                waited_for: text(waited_for),
                asked: text(asked),
                unhealthy: text(unhealthy),
            }));
        }
        steps.into_iter().for_each(|step| self.push(step.restored()));
    }
}

impl StepState {
    fn of(step: &Step) -> Vec<Self> {
        if let Some(LastExit { report, at_unix_ms, incarnation, next }) = step.last_exit() {
            let (report, incarnation) = ((*report).clone(), incarnation.get());
            return vec![Self::Exit { report, at_unix_ms, incarnation, next }];
        }
        let state = |Transition { from, to, at_unix_ms, report, exit, asked }| Self::Transition {
            from,
            to,
            at_unix_ms,
            report,
            exit: exit.map(|exit: Arc<ExitReport>| (*exit).clone()),
            asked: asked.map(|asked: Arc<str>| asked.to_string()),
        };
        step.transitions().map(state).collect()
    }

    fn restored(self) -> Step {
        match self {
            Self::Exit { report, at_unix_ms, incarnation, next } => {
                let (report, incarnation) = (Arc::new(report), Incarnation::new(incarnation));
                let next = next.map_or(Follows::Other(None), Follows::of);
                Step::Exit { report, at_unix_ms, incarnation, next }
            }
            Self::Transition { from, to, at_unix_ms, report, exit, asked } => {
                let (exit, asked) = (exit.map(Arc::new), asked.map(Arc::from));
                Step::Full(Box::new(Transition { from, to, at_unix_ms, report, exit, asked }))
            }
        }
    }
}
