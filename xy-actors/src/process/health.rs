//! Whether a process that was ready still serves: liveness probes and the watchdog.
//!
//! ```text
//!            failure                 failures == failure_threshold
//! healthy ───────────► unhealthy ──────────────────────────────────► failed: stopped, restarted as after a crash
//!    ▲                     │
//!    └─────── success ─────┘
//! ```
//!
//! One failure is enough to say that it cannot serve (`ready` is false while it runs); only a row of them costs it its
//! life. All of it belongs to one incarnation: it begins when that is ready and ends with it.

use std::future::Future;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::Readiness;

/// What is asked of a process while it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// What is asked: [`Readiness::Tcp`], [`Readiness::Http`], [`Readiness::Mcp`] or [`Readiness::Exec`].
    pub probe: Readiness,
    /// The pause between two attempts, and before the first.
    pub interval: Duration,
    /// The longest time one attempt takes.
    pub timeout: Duration,
    /// How many failures in a row end it, at least 1.
    pub failure_threshold: u32,
}

impl Liveness {
    /// The usual pause between two attempts.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    /// The shortest and usual pause between two attempts with an MCP server, on which each leaves something behind.
    pub const MCP_INTERVAL: Duration = Duration::from_secs(30);
    /// The usual time for one attempt.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The usual number of failures in a row that end a process.
    pub const DEFAULT_THRESHOLD: u32 = 3;

    /// Creates a check with the usual times.
    pub fn new(probe: Readiness) -> Self {
        let (interval, timeout) = match probe {
            Readiness::Mcp { .. } => (Self::MCP_INTERVAL, 2 * Self::DEFAULT_TIMEOUT),
            _ => (Self::DEFAULT_INTERVAL, Self::DEFAULT_TIMEOUT),
        };
        Self { probe, interval, timeout, failure_threshold: Self::DEFAULT_THRESHOLD }
    }

    /// Checks that there is something to ask, and time to do it.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn validate(&self) -> Result<(), LivenessError> {
        if !self.probe.is_asked() {
            return Err(LivenessError::NotAsked { probe: self.probe.name() });
        }
        if self.interval.is_zero() || self.timeout.is_zero() {
            return Err(LivenessError::NoTime);
        }
        if matches!(self.probe, Readiness::Mcp { .. }) && self.interval < Self::MCP_INTERVAL {
            return Err(LivenessError::McpInterval { interval: self.interval });
        }
        if self.failure_threshold == 0 {
            return Err(LivenessError::NoThreshold);
        }
        Ok(())
    }
}

/// Why a liveness check makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LivenessError {
    /// The process tells it, and tells it once.
    #[error("`{probe}` cannot be asked again; a liveness probe is one of `Tcp`, `Http`, `Mcp`, `Exec`")]
    NotAsked {
        /// The kind of readiness.
        probe: &'static str,
    },
    /// Interval or timeout is zero.
    #[error("interval and timeout of a liveness probe must be longer than zero")]
    NoTime,
    /// Each attempt leaves something behind on the server.
    #[error("an MCP server must not be asked more often than every 30 s, not every {interval:?}")]
    McpInterval {
        /// The interval asked for.
        interval: Duration,
    },
    /// It would end at once.
    #[error("the failure threshold of a liveness probe must be at least 1")]
    NoThreshold,
}

/// What an attempt means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// It can serve, for the first time or again.
    Passed,
    /// It cannot serve, and this is why.
    Unhealthy(String),
    /// It has failed for good, and this is why.
    Failed(String),
}

/// The attempts so far, as far as they matter.
#[derive(Debug)]
pub(super) struct Streak {
    threshold: u32,
    /// Failures in a row.
    failures: u32,
    /// Whether it has passed at least once.
    has_passed: bool,
    /// What the last failure said.
    last: String,
}

impl Streak {
    pub(super) fn new(threshold: u32) -> Self {
        Self { threshold, failures: 0, has_passed: false, last: String::new() }
    }

    /// Takes in the outcome of an attempt.
    ///
    /// What has failed for good stays so with each further failure, for a supervisor that could not act on the first.
    pub(super) fn take(&mut self, outcome: Result<(), String>) -> Verdict {
        let Err(text) = outcome else {
            let is_known = std::mem::replace(&mut self.has_passed, true);
            let had_failed = std::mem::take(&mut self.failures) > 0;
            self.last.clear();
            return if is_known && !had_failed { Verdict::Same } else { Verdict::Passed };
        };
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.threshold {
            self.last.clone_from(&text);
            return Verdict::Failed(format!("liveness: {text} (x{})", self.failures));
        }
        if self.failures > 1 && self.last == text {
            return Verdict::Same;
        }
        self.last.clone_from(&text);
        Verdict::Unhealthy(format!("liveness: {text}; restarted after {} in a row", self.threshold))
    }
}

/// Whoever can be asked how it is.
pub(super) trait Ask {
    /// Makes one attempt; an error says what is wrong.
    fn ask(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Asks again and again, and tells each verdict that says something new. Never returns.
///
/// With `at_once` there is an attempt before the first pause, which can only be passed: others may wait for that, and what
/// is ready a moment too early must not be called unhealthy for it.
pub(super) async fn watch(
    liveness: &Liveness,
    asked: &mut impl Ask,
    at_once: bool,
    mut tell: impl FnMut(Verdict),
) {
    let mut streak = Streak::new(liveness.failure_threshold);
    if at_once && asked.ask().await.is_ok() {
        tell(streak.take(Ok(())));
    }
    loop {
        time::sleep(liveness.interval).await;
        match streak.take(asked.ask().await) {
            Verdict::Same => {}
            verdict => tell(verdict),
        }
    }
}

/// The deadline for the next sign of life.
#[derive(Debug)]
pub(super) struct Watchdog {
    period: Duration,
    /// None until it is ready.
    due: Option<Instant>,
}

impl Watchdog {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, due: None }
    }

    /// Begins: the process is ready.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = now.checked_add(self.period);
        }
    }

    /// Takes note of a sign of life.
    pub(super) fn ping(&mut self, now: Instant) {
        if self.due.is_some() {
            self.due = now.checked_add(self.period);
        }
    }

    /// Waits until the sign of life is overdue, and begins the next period; says what to report.
    pub(super) async fn missed(&mut self) -> String {
        match self.due {
            Some(due) => time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        self.due = Instant::now().checked_add(self.period);
        format!("watchdog: no `WATCHDOG=1` for {:?}", self.period)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Takes 3 s to answer, and never answers once the script is over.
    struct Script {
        answers: VecDeque<Result<(), &'static str>>,
        start: Instant,
        /// When it was asked, in seconds.
        asked: Vec<u64>,
    }

    impl Ask for Script {
        async fn ask(&mut self) -> Result<(), String> {
            self.asked.push(self.start.elapsed().as_secs());
            time::sleep(Duration::from_secs(3)).await;
            match self.answers.pop_front() {
                Some(answer) => answer.map_err(str::to_owned),
                None => std::future::pending().await,
            }
        }
    }

    fn fail(streak: &mut Streak, text: &str) -> Verdict {
        streak.take(Err(text.to_owned()))
    }

    fn pass(streak: &mut Streak) -> Verdict {
        streak.take(Ok(()))
    }

    #[test]
    fn only_failures_in_a_row_reach_the_threshold() {
        let mut streak = Streak::new(3);
        assert_eq!(pass(&mut streak), Verdict::Passed, "the first time is news");
        assert_eq!(pass(&mut streak), Verdict::Same);
        for _ in 0..5 {
            assert!(matches!(fail(&mut streak, "HTTP 503"), Verdict::Unhealthy(_)));
            assert_eq!(fail(&mut streak, "HTTP 503"), Verdict::Same);
            assert_eq!(pass(&mut streak), Verdict::Passed);
        }
        assert!(matches!(fail(&mut streak, "HTTP 503"), Verdict::Unhealthy(_)));
        assert!(
            matches!(fail(&mut streak, "no answer"), Verdict::Unhealthy(text) if text.contains("no answer"))
        );
        assert_eq!(fail(&mut streak, "HTTP 503"), Verdict::Failed("liveness: HTTP 503 (x3)".to_owned()));
        assert_eq!(fail(&mut streak, "HTTP 503"), Verdict::Failed("liveness: HTTP 503 (x4)".to_owned()));
        assert_eq!(pass(&mut streak), Verdict::Passed);
    }

    #[test]
    fn a_threshold_of_one_ends_at_the_first_failure() {
        assert!(matches!(fail(&mut Streak::new(1), "no"), Verdict::Failed(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_an_interval_apart_from_the_end_of_the_one_before() {
        let liveness = Liveness {
            interval: Duration::from_secs(10),
            failure_threshold: 2,
            ..Liveness::new(Readiness::Tcp)
        };
        let start = Instant::now();
        let mut script = Script {
            answers: [Ok(()), Err("a"), Ok(()), Err("b"), Err("c")].into(),
            start,
            asked: Vec::new(),
        };
        let mut told = Vec::new();
        let all = watch(&liveness, &mut script, false, |verdict| told.push(verdict));
        time::timeout(Duration::from_secs(100), all).await.expect_err("it never returns");
        assert_eq!(script.asked, [10, 23, 36, 49, 62, 75]);
        assert_eq!(
            told,
            [
                Verdict::Passed,
                Verdict::Unhealthy("liveness: a; restarted after 2 in a row".to_owned()),
                Verdict::Passed,
                Verdict::Unhealthy("liveness: b; restarted after 2 in a row".to_owned()),
                Verdict::Failed("liveness: c (x2)".to_owned()),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_at_once_can_be_passed_and_costs_nothing_if_it_fails() {
        let liveness = Liveness { failure_threshold: 1, ..Liveness::new(Readiness::Tcp) };
        for (first, then, expected) in [
            (Ok(()), Ok(()), vec![(3, Verdict::Passed)]),
            (Err("early"), Ok(()), vec![(16, Verdict::Passed)]),
            (Err("early"), Err("late"), vec![(16, Verdict::Failed("liveness: late (x1)".to_owned()))]),
        ] {
            let start = Instant::now();
            let mut script = Script { answers: [first, then].into(), start, asked: Vec::new() };
            let mut told = Vec::new();
            let all = watch(&liveness, &mut script, true, |verdict| {
                told.push((start.elapsed().as_secs(), verdict));
            });
            time::timeout(Duration::from_secs(100), all).await.expect_err("it never returns");
            assert_eq!((told, script.asked), (expected, vec![0, 13, 26]), "{first:?} {then:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watchdog_bites_once_a_period_without_a_sign_of_life() {
        let period = Duration::from_secs(10);
        let mut watchdog = Watchdog::new(period);
        watchdog.ping(Instant::now());
        time::timeout(Duration::from_secs(60), watchdog.missed()).await.expect_err("it is not armed");
        let start = Instant::now();
        watchdog.arm(start);
        time::timeout(Duration::from_secs(9), watchdog.missed()).await.expect_err("not yet");
        watchdog.ping(Instant::now());
        watchdog.arm(Instant::now());
        assert_eq!(watchdog.missed().await, "watchdog: no `WATCHDOG=1` for 10s");
        assert_eq!(start.elapsed().as_secs(), 19);
        watchdog.missed().await;
        assert_eq!(start.elapsed().as_secs(), 29, "and again, for a supervisor that could not act");
    }

    #[test]
    fn a_check_that_makes_no_sense_is_refused_by_rule() {
        let tcp = Liveness::new(Readiness::Tcp);
        tcp.validate().expect("valid");
        let mcp = Readiness::Mcp { path: "/mcp".to_owned(), host: "localhost".to_owned() };
        let second = Duration::from_secs(1);
        for (liveness, expected) in [
            (Liveness::new(Readiness::Started), LivenessError::NotAsked { probe: "Started" }),
            (Liveness::new(Readiness::Notify { fd: None }), LivenessError::NotAsked { probe: "Notify" }),
            (Liveness { interval: Duration::ZERO, ..tcp.clone() }, LivenessError::NoTime),
            (Liveness { timeout: Duration::ZERO, ..tcp.clone() }, LivenessError::NoTime),
            (Liveness { failure_threshold: 0, ..tcp }, LivenessError::NoThreshold),
            (
                Liveness { interval: second, ..Liveness::new(mcp) },
                LivenessError::McpInterval { interval: second },
            ),
        ] {
            assert_eq!(liveness.validate(), Err(expected), "{liveness:?}");
        }
    }
}
