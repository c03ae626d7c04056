//! One process's life: readiness, the stop, and the end of its whole tree.
//!
//! ```text
//! Running ──── main process ended ────► Ending: the rest of the tree, output, reap ────► report, stop
//!    │ Stop: stop command, signal the group ▲     asked: signal those that left the group, wait
//!    └ Kill: SIGKILL the group ────────────┘      else, or on Kill: SIGKILL until nobody is left
//! ```
//!
//! The actor owns exactly this process: whatever drops its state kills the tree. It decides nothing about restarts and
//! holds no timer of the stop ladder; those are its supervisor's.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::health::{self, Ask, Liveness, Verdict};
use super::readiness::Prober;
use super::readiness::notify::{self, Listener, NotifySocket};
use super::{
    KillReport, Member, OsProcess, PortOwner, ProcessExit, ProcessHost, ProcessSpec, Readiness, StopCommand,
};
use crate::child::Reporter;
use crate::exit::{Cause, Exit, ExitReport, ProcessRef};
use crate::log::{Attachment, DRAIN_GRACE, Log};

/// How long killing waits for processes that do not end at once; those in an uninterruptible sleep never do.
const KILL_WAIT: Duration = Duration::from_secs(4);

/// The messages of a process actor.
#[derive(Debug)]
pub(crate) enum ProcessMessage {
    /// Ask it to end.
    Stop,
    /// End it.
    Kill,
    /// How to stop it may have changed.
    Follow(Arc<ProcessSpec>),
    /// Its stop command failed, or its time is over.
    StopCommandOver,
    /// It has told that it is ready.
    Told,
    /// Its readiness is proven.
    Ready,
    /// Its main process ended; it has not been reaped.
    MainExited(ProcessExit),
    /// Its whole tree is gone, except what could not be killed, and its output is read.
    TreeEnded(KillReport),
}

#[cfg(feature = "cluster")]
impl ractor::Message for ProcessMessage {}

/// What a process actor is made from.
pub(crate) struct ProcessArguments {
    pub(super) host: ProcessHost,
    pub(super) process: Arc<OsProcess>,
    pub(super) incarnation: u64,
    pub(super) attachment: Option<Attachment>,
    pub(super) log: Log,
    pub(super) spec: Arc<ProcessSpec>,
    pub(super) reporter: Reporter,
    pub(super) gate: Gate,
    /// Where it tells how it is, if it is to.
    pub(super) socket: Option<NotifySocket>,
}

/// What proves that it is ready.
pub(super) enum Gate {
    /// Nothing more: it was executed.
    Open,
    /// An answer to a probe.
    Asked,
    /// A line of its output, which the log thread has seen.
    Line(oneshot::Receiver<()>),
    /// `READY=1` on its socket.
    Socket,
    /// A newline on this descriptor, which has this number in the child.
    Descriptor(OwnedFd, u16),
}

/// What a process actor knows.
pub(crate) struct ProcessState {
    host: ProcessHost,
    process: Arc<OsProcess>,
    incarnation: u64,
    attachment: Option<Attachment>,
    log: Log,
    spec: Arc<ProcessSpec>,
    reporter: Reporter,
    exit: Option<ProcessExit>,
    is_stop_asked: bool,
    is_signaled: bool,
    stop_command: Option<StopCommandRun>,
    kill: watch::Sender<bool>,
    /// Whether it has been ready.
    ready: watch::Sender<bool>,
    /// What waits for readiness, then what checks its health.
    probe: Option<AbortOnDrop>,
    /// Hears what it says about itself, to its end.
    listener: Option<AbortOnDrop>,
    waiter: Option<AbortOnDrop>,
    finisher: Option<AbortOnDrop>,
    is_reported: bool,
}

/// A stop command under way.
struct StopCommandRun {
    _task: AbortOnDrop,
    /// Resolves when the command has ended, or was called off.
    over: Option<oneshot::Receiver<()>>,
}

impl AbortOnDrop {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

/// Ends a task together with the actor, so that no task keeps the process's handle longer.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for ProcessState {
    fn drop(&mut self) {
        if !self.is_reported {
            // The actor was killed or panicked. The process dies with its handle.
            let report = ExitReport::new(Exit::Killed, Cause::Aborted);
            self.log.mark_exit(self.incarnation, self.process.pid(), &report.to_string());
            self.reporter.exited(report);
        }
    }
}

/// The behavior of a process actor.
pub(crate) struct ProcessActor;

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for ProcessActor {
    type Msg = ProcessMessage;
    type State = ProcessState;
    type Arguments = ProcessArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ProcessMessage>,
        arguments: ProcessArguments,
    ) -> Result<ProcessState, ActorProcessingErr> {
        Ok(ProcessState::new(&myself, arguments))
    }

    async fn handle(
        &self,
        myself: ActorRef<ProcessMessage>,
        message: ProcessMessage,
        state: &mut ProcessState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProcessMessage::Stop => state.on_stop(&myself),
            ProcessMessage::Kill => state.on_kill(),
            ProcessMessage::Follow(spec) => state.on_follow(&spec),
            ProcessMessage::StopCommandOver => state.on_stop_command_over(),
            ProcessMessage::Told => state.on_told(&myself),
            ProcessMessage::Ready => state.on_ready(),
            ProcessMessage::MainExited(exit) => state.on_main_exited(&myself, exit),
            ProcessMessage::TreeEnded(report) => state.on_tree_ended(&myself, report),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ProcessMessage>,
        _event: SupervisionEvent,
        _state: &mut ProcessState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl ProcessState {
    fn new(myself: &ActorRef<ProcessMessage>, arguments: ProcessArguments) -> Self {
        let ProcessArguments { host, process, incarnation, attachment, log, spec, reporter, gate, socket } =
            arguments;
        let waiter = tokio::spawn({
            let (process, myself) = (process.clone(), myself.clone());
            async move {
                let exit = process.exited().await;
                let _gone = myself.send_message(ProcessMessage::MainExited(exit));
            }
        });
        let ready = watch::Sender::new(matches!(gate, Gate::Open));
        let listener = socket.map(|socket| {
            let listener = Listener {
                socket,
                process: process.clone(),
                reporter: reporter.clone(),
                log: log.clone(),
                decides: matches!(gate, Gate::Socket),
                watchdog: spec.watchdog,
                ready: ready.subscribe(),
            };
            let myself = myself.clone();
            AbortOnDrop::spawn(listener.listen(move || tell(&myself, ProcessMessage::Told)))
        });
        let probe = match gate {
            Gate::Open | Gate::Socket => None,
            Gate::Asked => {
                let prober = prober(&spec, &host, process.label());
                let task = probe(prober, process.clone(), myself.clone(), reporter.clone());
                Some(AbortOnDrop::spawn(task))
            }
            Gate::Line(seen) => {
                reporter.waits_for(Some(waits_for_line(&spec)));
                let myself = myself.clone();
                Some(AbortOnDrop::spawn(async move {
                    // Output that ends without the line proves nothing, and the end of the process comes by itself.
                    if seen.await.is_ok() {
                        tell(&myself, ProcessMessage::Told);
                    }
                }))
            }
            Gate::Descriptor(end, number) => {
                let (myself, reporter) = (myself.clone(), reporter.clone());
                Some(AbortOnDrop::spawn(async move {
                    notify::newline(end, number, &reporter).await;
                    tell(&myself, ProcessMessage::Told);
                }))
            }
        };
        let mut state = Self {
            process,
            incarnation,
            attachment,
            log,
            spec,
            reporter,
            exit: None,
            is_stop_asked: false,
            is_signaled: false,
            stop_command: None,
            kill: watch::Sender::new(false),
            host,
            ready,
            probe,
            listener,
            waiter: Some(AbortOnDrop(waiter.abort_handle())),
            finisher: None,
            is_reported: false,
        };
        if *state.ready.borrow() {
            state.watch_health();
        }
        state
    }

    /// Begins to check the health of a process that is ready.
    fn watch_health(&mut self) {
        let Some(liveness) = self.spec.liveness.clone() else { return };
        let prober = Prober::new(liveness.probe.clone(), self.spec.port, self.spec.port_owner)
            .attempt_timeout(liveness.timeout)
            .keeping_session()
            .running_in(&self.host, self.process.label(), &self.spec);
        let task = watch_health(liveness, prober, self.process.clone(), self.reporter.clone());
        self.probe = Some(AbortOnDrop::spawn(task));
    }

    fn on_stop(&mut self, myself: &ActorRef<ProcessMessage>) {
        self.is_stop_asked = true;
        self.probe = None;
        // If the main process has ended, what is left of its tree is being dealt with already.
        if self.exit.is_some() {
            return;
        }
        match &self.spec.stop_command {
            Some(command) => self.stop_command = Some(self.run_stop_command(command.clone(), myself)),
            None => self.signal_stop(),
        }
    }

    fn on_follow(&mut self, new: &ProcessSpec) {
        let stop = (new.stop_signal, &new.stop_command);
        if !self.is_stop_asked && stop != (self.spec.stop_signal, &self.spec.stop_command) {
            let ProcessSpec { stop_signal, stop_command, .. } = new.clone();
            self.spec = Arc::new(ProcessSpec { stop_signal, stop_command, ..(*self.spec).clone() });
        }
    }

    fn run_stop_command(&self, command: StopCommand, myself: &ActorRef<ProcessMessage>) -> StopCommandRun {
        let (host, log, spec, myself) =
            (self.host.clone(), self.log.clone(), self.spec.clone(), myself.clone());
        let (label, pid) = (self.process.label().to_owned(), self.process.pid());
        let incarnation = self.reporter.incarnation().get();
        let (over, is_over) = oneshot::channel();
        let task = tokio::spawn(async move {
            let patience = Instant::now() + command.grace;
            let result = command.run(&host, &label, &spec, pid, (&log, incarnation)).await;
            let _nobody_waits = over.send(());
            match result {
                Ok(()) => tokio::time::sleep_until(patience).await,
                Err(error) => {
                    log.note(&format!("stop command `{}` failed: {error}", command.command));
                    tracing::warn!(
                        child = label,
                        command = command.command,
                        reason = %error,
                        "stop command failed; the signal is sent"
                    );
                }
            }
            let _gone = myself.send_message(ProcessMessage::StopCommandOver);
        });
        StopCommandRun { _task: AbortOnDrop(task.abort_handle()), over: Some(is_over) }
    }

    fn on_stop_command_over(&mut self) {
        if self.exit.is_none() {
            self.signal_stop();
        }
    }

    fn signal_stop(&mut self) {
        self.is_signaled = true;
        if let Err(error) = self.process.signal_group(self.spec.stop_signal.number()) {
            tracing::warn!(child = self.process.label(), reason = %error, "stop signal was not sent");
        }
        // A process that is suspended hears the signal only when it goes on.
        if let Err(error) = self.process.signal_group(libc::SIGCONT) {
            tracing::debug!(child = self.process.label(), reason = %error, "SIGCONT was not sent");
        }
    }

    fn on_kill(&mut self) {
        self.probe = None;
        self.stop_command = None;
        self.kill.send_replace(true);
        if self.exit.is_none()
            && let Err(error) = self.process.signal_group(libc::SIGKILL)
        {
            tracing::warn!(child = self.process.label(), reason = %error, "SIGKILL was not sent");
        }
    }

    /// What it tells counts only if the declared port, if there is one, is its own: a line of output or a notification
    /// says nothing about who else may listen there.
    fn on_told(&mut self, myself: &ActorRef<ProcessMessage>) {
        self.probe = None;
        if self.is_stop_asked || self.exit.is_some() {
            return;
        }
        if self.spec.port.is_none() || self.spec.port_owner == PortOwner::Any {
            return self.on_ready();
        }
        let prober = prober(&self.spec, &self.host, self.process.label());
        let task = look(prober, self.process.clone(), myself.clone(), self.reporter.clone());
        self.probe = Some(AbortOnDrop::spawn(task));
    }

    fn on_ready(&mut self) {
        self.probe = None;
        if self.is_stop_asked || self.exit.is_some() {
            return;
        }
        self.reporter.ready();
        self.ready.send_replace(true);
        self.watch_health();
    }

    fn on_main_exited(&mut self, myself: &ActorRef<ProcessMessage>, exit: ProcessExit) {
        self.probe = None;
        self.listener = None;
        self.waiter = None;
        self.exit = Some(exit);
        if self.is_stop_asked && !self.is_signaled {
            // It ended by its stop command; the rest of its group has heard nothing yet.
            self.signal_stop();
        }
        let stop_command = self.stop_command.as_mut().and_then(|run| run.over.take());
        let (process, log, myself) = (self.process.clone(), self.log.clone(), myself.clone());
        let attachment = self.attachment.take();
        // Only a stop that was asked for gives the rest of the tree the time to end by itself.
        let patience = self.is_stop_asked.then(|| (self.spec.stop_signal.number(), self.kill.subscribe()));
        let task = tokio::spawn(async move {
            let report = end_tree(&process, patience).await;
            if let Some(over) = stop_command {
                // It may have something left to do, and says so in the same log.
                let _called_off = over.await;
            }
            drain(attachment, &log, &process).await;
            let _gone = myself.send_message(ProcessMessage::TreeEnded(report));
        });
        self.finisher = Some(AbortOnDrop(task.abort_handle()));
    }

    fn on_tree_ended(&mut self, myself: &ActorRef<ProcessMessage>, killed: KillReport) {
        self.finisher = None;
        // Asked before the reap, which removes who counts.
        let oom_kills = self.process.oom_kills();
        let exit = self.process.reap().or(self.exit).unwrap_or(ProcessExit::Code(-1));
        let mut report = ExitReport::of_process(
            exit,
            self.is_stop_asked,
            *self.kill.borrow(),
            self.spec.stop_signal.number(),
        );
        let is_by_kernel = exit == (ProcessExit::Signal { signal: libc::SIGKILL, core_dumped: false })
            && !*self.kill.borrow()
            && oom_kills > 0;
        if is_by_kernel {
            report.cause = Cause::OutOfMemory;
        }
        report.killed = killed.killed.into_iter().map(reference).collect();
        report.left = killed.left.into_iter().map(reference).collect();
        if *self.kill.borrow() && exit == (ProcessExit::Signal { signal: libc::SIGKILL, core_dumped: false })
        {
            let main = ProcessRef { pid: self.process.pid(), command: self.spec.command.clone() };
            report.killed.insert(0, main);
        }
        self.is_reported = true;
        self.log.mark_exit(self.incarnation, self.process.pid(), &report.to_string());
        self.reporter.exited(report);
        myself.stop(None);
    }
}

fn tell(myself: &ActorRef<ProcessMessage>, message: ProcessMessage) {
    // An actor that is gone has reported the end of its process.
    let _gone = myself.send_message(message);
}

fn waits_for_line(spec: &ProcessSpec) -> String {
    match &spec.ready {
        Some(Readiness::Log { pattern }) => format!("a line of output that matches `{}`", pattern.as_str()),
        _ => "a line of output".to_owned(),
    }
}

/// Creates what asks whether a process is ready.
fn prober(spec: &ProcessSpec, host: &ProcessHost, label: &str) -> Prober {
    let times = spec.ready_times;
    let prober = Prober::new(spec.readiness(), spec.port, spec.port_owner).running_in(host, label, spec);
    let prober = times.interval.into_iter().fold(prober, Prober::interval);
    times.timeout.into_iter().fold(prober, Prober::attempt_timeout)
}

fn pids(process: &OsProcess) -> Vec<u32> {
    match process.members() {
        Ok(members) => members.iter().map(|member| member.pid).collect(),
        Err(_) => vec![process.pid()],
    }
}

/// Proves readiness, and says meanwhile what it waits for.
async fn probe(
    mut prober: Prober,
    process: Arc<OsProcess>,
    myself: ActorRef<ProcessMessage>,
    reporter: Reporter,
) {
    prober.until_ready(|| pids(&process), |failure| reporter.waits_for(Some(failure.told()))).await;
    tell(&myself, ProcessMessage::Ready);
}

/// Waits until a process that has told that it is ready listens on its port.
async fn look(
    mut prober: Prober,
    process: Arc<OsProcess>,
    myself: ActorRef<ProcessMessage>,
    reporter: Reporter,
) {
    prober.until_listening(|| pids(&process), |failure| reporter.waits_for(Some(failure.told()))).await;
    tell(&myself, ProcessMessage::Ready);
}

/// A process that is asked how it is.
struct Probed {
    prober: Prober,
    process: Arc<OsProcess>,
}

impl Ask for Probed {
    async fn ask(&mut self) -> Result<(), String> {
        let Self { prober, process } = self;
        prober.check_with(|| pids(process)).await.map_err(|failure| failure.told())
    }
}

/// Checks the health of a process that is ready, and reports each change.
async fn watch_health(liveness: Liveness, prober: Prober, process: Arc<OsProcess>, reporter: Reporter) {
    let mut probed = Probed { prober, process };
    health::watch(&liveness, &mut probed, |verdict| match verdict {
        Verdict::Same => {}
        Verdict::Recovered => reporter.healthy(),
        Verdict::Unhealthy(why) => reporter.unhealthy(why),
        Verdict::Failed(why) => reporter.health_failed(why),
    })
    .await;
}

/// Ends what is left of the tree after its main process has ended, politely if there is patience.
async fn end_tree(process: &OsProcess, patience: Option<(i32, watch::Receiver<bool>)>) -> KillReport {
    if let Some((signal, mut kill)) = patience {
        // The group got the signal with the main process; those that left it have not heard of the stop yet.
        if let Err(error) = process.signal_escaped(signal) {
            tracing::debug!(child = process.label(), reason = %error, "stop signal was not sent to everybody");
        }
        let gone = async {
            let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
            process.tree_gone(far).await.is_ok()
        };
        tokio::select! {
            biased;
            true = gone => return KillReport::default(),
            _ = kill.wait_for(|kill| *kill) => {}
        }
    }
    process.kill_tree(Instant::now() + KILL_WAIT).await
}

async fn drain(attachment: Option<Attachment>, log: &Log, process: &OsProcess) {
    let Some(attachment) = attachment else { return };
    let drained = attachment.drain(DRAIN_GRACE).await;
    if drained.held {
        let holders = drained.holders.iter().map(|holder| format!("pid {} ({})", holder.pid, holder.command));
        let holders = holders.collect::<Vec<_>>().join(", ");
        let holders = if holders.is_empty() { "another process" } else { &holders };
        log.note(&format!("output of pid {}: pipe still held by {holders}, closed", process.pid()));
    }
}

fn reference(member: Member) -> ProcessRef {
    ProcessRef { pid: member.pid, command: member.command }
}
