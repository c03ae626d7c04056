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
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

mod helper;
mod waiter;

#[cfg(feature = "testkit")]
pub use self::helper::Helper;
#[cfg(not(feature = "testkit"))]
use self::helper::Helper;
use self::helper::HelperTask;
use self::waiter::Waiter;
use super::handover::ProcessState;
use super::health::{self, Ask, Liveness, Verdict};
use super::readiness::notify::{self, Listener, NotifySocket};
use super::readiness::{LogPattern, Prober};
use super::{
    KillReport, Member, OsProcess, PortOwner, ProcessExit, ProcessHost, ProcessSpec, Readiness, StopCommand,
};
use crate::child::Reporter;
use crate::exit::{Cause, Exit, ExitReport, ProcessRef};
use crate::log::{Attachment, DRAIN_GRACE, LineWatch, Log, Marker, Stream};

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
    /// Its stop command failed with this much of its time left, or its time is over.
    StopCommandOver(Duration),
    /// It has told that it is ready.
    Told,
    /// Its readiness is proven.
    Ready,
    /// Its main process ended; it has not been reaped.
    MainExited(ProcessExit),
    /// Its whole tree is gone, except what could not be killed, and its output is read.
    TreeEnded(KillReport),
    /// Say everything, for the next program of this process, and do nothing from then on.
    HandOver(HandOverReply),
    /// Do so now: nothing that was under way is left to be heard.
    HandOverNow(HandOverReply),
    /// Go on: there is no next program.
    GoOn,
    /// A task that worked for it has panicked, with this text.
    Panicked(Helper, String),
}

/// What a process actor knows, and the descriptors that go with it.
pub(super) type HandedOver = (ProcessState, Vec<OwnedFd>);

/// Where it says so.
pub(super) type HandOverReply = oneshot::Sender<io::Result<HandedOver>>;

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
    /// How far it was in an earlier program of this process.
    pub(super) before: Option<ProcessState>,
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
    /// It has told already, and is to listen on its port.
    Told,
}

impl Gate {
    /// Returns what still has to prove that a process is ready which was started before: by an earlier program of this
    /// process, or before one that did not take over.
    pub(super) fn anew(
        spec: &ProcessSpec,
        is_ready: bool,
        is_told: bool,
        log: &Log,
        (descriptor, attachment): (Option<OwnedFd>, Option<&Attachment>),
    ) -> Self {
        match spec.readiness() {
            _ if is_ready => Self::Open,
            _ if is_told => Self::Told,
            Readiness::Started => Self::Open,
            Readiness::Notify { fd: None } => Self::Socket,
            Readiness::Notify { fd: Some(number) } => match descriptor {
                Some(descriptor) => Self::Descriptor(descriptor, number),
                None => Self::Asked,
            },
            Readiness::Log { pattern } => {
                let (watch, seen) = watch_for(pattern.clone());
                if let Some(attachment) = attachment {
                    attachment.watch(watch);
                }
                // The line may have been read before anybody could hear of it.
                if has_line(log, &pattern) { Self::Told } else { Self::Line(seen) }
            }
            _ => Self::Asked,
        }
    }
}

/// Returns whether the output of the current incarnation, as far as it is held, has a line with a match.
fn has_line(log: &Log, pattern: &LogPattern) -> bool {
    let lines = log.tail(usize::MAX);
    let mut own =
        lines.iter().rev().take_while(|line| !matches!(Marker::of(line), Some(Marker::Started { .. })));
    own.any(|line| line.stream != Stream::Xy && pattern.is_match(&line.bytes))
}

/// Makes what looks for a line on the log thread, and what hears of it.
pub(super) fn watch_for(pattern: LogPattern) -> (LineWatch, oneshot::Receiver<()>) {
    let (found, seen) = oneshot::channel();
    let mut found = Some(found);
    let watch = LineWatch::new(move |line| {
        if !pattern.is_match(line.bytes) {
            return ControlFlow::Continue(());
        }
        if let Some(found) = found.take() {
            // An actor that does not wait any more has no use for it.
            let _gone = found.send(());
        }
        ControlFlow::Break(())
    });
    (watch, seen)
}

/// What a process actor knows.
pub(crate) struct ActorState {
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
    is_kill_asked: bool,
    /// Tells whoever waits for a polite end that it is killed; few ever wait.
    kill: Option<watch::Sender<bool>>,
    /// It has told that it is ready.
    is_told: bool,
    /// Whether it has been ready.
    is_ready: bool,
    /// Tells the listener so, if there is one.
    ready: Option<watch::Sender<bool>>,
    socket: Option<Arc<NotifySocket>>,
    /// A duplicate of what it writes a newline to, until it has.
    descriptor: Option<OwnedFd>,
    /// Who is to be told everything as soon as what is under way has ended.
    hand_over: Option<HandOverReply>,
    /// Everything was told: whatever happens is the next program's affair.
    is_handed_over: bool,
    /// What waits for readiness, then what checks its health.
    probe: Option<HelperTask>,
    /// Hears what it says about itself, to its end.
    listener: Option<HelperTask>,
    waiter: Option<Waiter>,
    finisher: Option<HelperTask>,
    /// What panicked, which is why it is ended.
    fault: Option<String>,
    is_reported: bool,
}

/// A stop command under way.
struct StopCommandRun {
    _task: HelperTask,
    /// Resolves when the command has ended, or was called off.
    over: Option<oneshot::Receiver<()>>,
}

impl Drop for ActorState {
    fn drop(&mut self) {
        if !self.is_reported {
            // The actor was killed or panicked. The process dies with its handle, and now, so that its last lines are before
            // the marker.
            let _gone = self.process.signal_group(libc::SIGKILL);
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
    type State = ActorState;
    type Arguments = ProcessArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ProcessMessage>,
        arguments: ProcessArguments,
    ) -> Result<ActorState, ActorProcessingErr> {
        Ok(ActorState::new(&myself, arguments))
    }

    async fn handle(
        &self,
        myself: ActorRef<ProcessMessage>,
        message: ProcessMessage,
        state: &mut ActorState,
    ) -> Result<(), ActorProcessingErr> {
        // What was asked for meanwhile is repeated by whoever goes on.
        if state.is_handed_over && !matches!(message, ProcessMessage::GoOn) {
            return Ok(());
        }
        match message {
            ProcessMessage::Stop => state.on_stop(&myself),
            ProcessMessage::Kill => state.on_kill(),
            ProcessMessage::Follow(spec) => state.on_follow(&spec),
            ProcessMessage::StopCommandOver(left) => state.on_stop_command_over(&myself, left),
            ProcessMessage::Told => state.on_told(&myself),
            ProcessMessage::Ready => state.on_ready(&myself),
            ProcessMessage::MainExited(exit) => state.on_main_exited(&myself, exit),
            ProcessMessage::TreeEnded(report) => state.on_tree_ended(&myself, report),
            ProcessMessage::HandOver(reply) => state.on_hand_over(&myself, reply),
            ProcessMessage::HandOverNow(reply) => state.on_hand_over_now(&myself, reply),
            ProcessMessage::GoOn => state.on_go_on(&myself),
            ProcessMessage::Panicked(helper, message) => state.on_panicked(&myself, helper, &message),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ProcessMessage>,
        _event: SupervisionEvent,
        _state: &mut ActorState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl ActorState {
    fn new(myself: &ActorRef<ProcessMessage>, arguments: ProcessArguments) -> Self {
        let ProcessArguments {
            host,
            process,
            incarnation,
            attachment,
            log,
            spec,
            reporter,
            gate,
            socket,
            before,
        } = arguments;
        let is_before = |what: fn(&ProcessState) -> bool| before.as_ref().is_some_and(what);
        let mut state = Self {
            process,
            incarnation,
            attachment,
            log,
            spec,
            reporter,
            exit: None,
            is_stop_asked: is_before(|before| before.is_stop_asked),
            is_signaled: is_before(|before| before.is_signaled),
            stop_command: None,
            is_kill_asked: is_before(|before| before.is_kill_asked),
            kill: None,
            host,
            is_told: is_before(|before| before.is_told),
            is_ready: false,
            ready: None,
            socket: socket.map(Arc::new),
            descriptor: None,
            hand_over: None,
            is_handed_over: false,
            probe: None,
            listener: None,
            waiter: None,
            finisher: None,
            fault: None,
            is_reported: false,
        };
        state.begin(myself, gate);
        state
    }

    /// Begins to wait for the end of the process, and until then for its readiness or for whether it stays healthy.
    fn begin(&mut self, myself: &ActorRef<ProcessMessage>, gate: Gate) {
        self.waiter = Some(Waiter::begin(&self.process, myself));
        if matches!(gate, Gate::Open) {
            self.note_ready();
        }
        if let Some(socket) = self.socket.clone() {
            let ready = self.ready.get_or_insert_with(|| watch::Sender::new(self.is_ready)).subscribe();
            let listener = Listener {
                socket,
                process: self.process.clone(),
                reporter: self.reporter.clone(),
                log: self.log.clone(),
                decides: matches!(gate, Gate::Socket),
                watchdog: self.spec.watchdog,
                ready,
            };
            let told = myself.clone();
            let task = listener.listen(move || tell(&told, ProcessMessage::Told));
            self.listener = Some(self.helped_by(Helper::Listener, myself, task));
        }
        if self.is_stop_asked {
            return;
        }
        self.probe = match gate {
            Gate::Open => return self.watch_health(myself, false),
            Gate::Socket => None,
            Gate::Told => return self.on_told(myself),
            Gate::Asked => {
                let prober = prober(&self.spec, &self.host, self.process.label());
                let task = probe(prober, self.process.clone(), myself.clone(), self.reporter.clone());
                Some(self.helped_by(Helper::Readiness, myself, task))
            }
            Gate::Line(seen) => {
                self.reporter.waits_for(Some(waits_for_line(&self.spec)));
                let told = myself.clone();
                let task = async move {
                    // Output that ends without the line proves nothing, and the end of the process comes by itself.
                    if seen.await.is_ok() {
                        tell(&told, ProcessMessage::Told);
                    }
                };
                Some(self.helped_by(Helper::Readiness, myself, task))
            }
            Gate::Descriptor(end, number) => {
                // For a next program of this process; without it, that one waits for a newline in vain.
                self.descriptor = end.try_clone().ok();
                let (told, reporter) = (myself.clone(), self.reporter.clone());
                let task = async move {
                    notify::newline(end, number, &reporter).await;
                    tell(&told, ProcessMessage::Told);
                };
                Some(self.helped_by(Helper::Readiness, myself, task))
            }
        };
    }

    fn helped_by(
        &self,
        helper: Helper,
        myself: &ActorRef<ProcessMessage>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> HelperTask {
        HelperTask::spawn(helper, self.process.label(), myself, task)
    }

    /// A panic is a bug of ours. What the task was for will not happen any more, so that this incarnation ends: a start
    /// would hang for ever, a health check would be silent, an end would not be noticed.
    fn on_panicked(&mut self, myself: &ActorRef<ProcessMessage>, helper: Helper, message: &str) {
        let fault = format!("{helper} panicked: {message}");
        tracing::error!(
            child = self.process.label(),
            incarnation = self.incarnation,
            reason = fault,
            "a task failed"
        );
        self.log.note(&fault);
        let is_first = self.fault.is_none();
        match helper {
            // The signal is left, as after a command that failed.
            Helper::StopCommand => return self.on_stop_command_over(myself, Duration::ZERO),
            Helper::Finisher if !is_first => {
                // What is left of the tree is killed with the handle of the process.
                return self.on_tree_ended(myself, KillReport::default());
            }
            Helper::Waiter | Helper::Finisher => {}
            // It has ended, and these are not needed any more.
            _ if self.exit.is_some() => return,
            _ => {}
        }
        self.fault = self.fault.take().or(Some(fault));
        self.on_kill();
        if matches!(helper, Helper::Waiter | Helper::Finisher) {
            // The true exit is learned from the reap.
            self.on_main_exited(myself, ProcessExit::Signal { signal: libc::SIGKILL, core_dumped: false });
        }
    }

    fn on_hand_over(&mut self, myself: &ActorRef<ProcessMessage>, reply: HandOverReply) {
        // A command that ends it cannot be run half, and the end of a crash is near and has its story to tell.
        let is_ending = self.exit.is_some() && !self.is_stop_asked;
        if is_ending || (self.stop_command.is_some() && !self.is_signaled) {
            self.hand_over = Some(reply);
            return;
        }
        self.end_tasks();
        // Behind what they have said already.
        tell(myself, ProcessMessage::HandOverNow(reply));
    }

    fn on_hand_over_now(&mut self, myself: &ActorRef<ProcessMessage>, reply: HandOverReply) {
        self.end_tasks();
        match self.state() {
            Ok(state) => {
                self.is_handed_over = true;
                if reply.send(Ok(state)).is_err() {
                    self.on_go_on(myself);
                }
            }
            Err(error) => {
                let _gone = reply.send(Err(error));
                self.on_go_on(myself);
            }
        }
    }

    fn on_go_on(&mut self, myself: &ActorRef<ProcessMessage>) {
        self.is_handed_over = false;
        self.hand_over = None;
        if self.waiter.is_some() || self.finisher.is_some() {
            return;
        }
        // If it has ended, that is found out anew.
        self.exit = None;
        let place = (self.descriptor.take(), self.attachment.as_ref());
        let gate = Gate::anew(&self.spec, self.is_ready, self.is_told, &self.log, place);
        self.begin(myself, gate);
    }

    fn end_tasks(&mut self) {
        self.probe = None;
        self.listener = None;
        self.waiter = None;
        self.finisher = None;
        self.stop_command = None;
    }

    fn state(&self) -> io::Result<HandedOver> {
        let socket = self.socket.as_ref().map(|socket| socket.duplicate()).transpose()?;
        let descriptor = self.descriptor.as_ref().map(OwnedFd::try_clone).transpose()?;
        let address = self.socket.as_ref().map(|socket| socket.address().as_encoded_bytes().to_vec());
        let state = ProcessState {
            marker: self.process.marker().to_owned(),
            is_ready: self.is_ready,
            is_told: self.is_told,
            is_stop_asked: self.is_stop_asked,
            is_signaled: self.is_signaled,
            is_kill_asked: self.is_kill_asked,
            socket: address.zip(socket.as_ref().map(AsRawFd::as_raw_fd)),
            descriptor: descriptor.as_ref().map(AsRawFd::as_raw_fd),
        };
        Ok((state, socket.into_iter().chain(descriptor).collect()))
    }

    /// Begins to check the health of a process that is ready.
    fn watch_health(&mut self, myself: &ActorRef<ProcessMessage>, at_once: bool) {
        let Some(liveness) = self.spec.liveness.clone() else { return };
        let prober = Prober::new(liveness.probe.clone(), self.spec.port, self.spec.port_owner)
            .attempt_timeout(liveness.timeout)
            .keeping_session()
            .running_in(&self.host, self.process.label(), &self.spec);
        let probed = Probed { prober, process: self.process.clone() };
        let task = watch_health(liveness, probed, at_once, self.reporter.clone());
        self.probe = Some(self.helped_by(Helper::Health, myself, task));
    }

    fn on_stop(&mut self, myself: &ActorRef<ProcessMessage>) {
        // In an earlier program of this process, perhaps.
        if std::mem::replace(&mut self.is_stop_asked, true) {
            return;
        }
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
        let (host, log, spec, actor) =
            (self.host.clone(), self.log.clone(), self.spec.clone(), myself.clone());
        let (label, pid) = (self.process.label().to_owned(), self.process.pid());
        let incarnation = self.reporter.incarnation().get();
        let (over, is_over) = oneshot::channel();
        let task = async move {
            let patience = command.deadline();
            let result = command.run(&host, &label, &spec, pid, (&log, incarnation)).await;
            let _nobody_waits = over.send(());
            let left = match result {
                Ok(()) => {
                    tokio::time::sleep_until(patience).await;
                    Duration::ZERO
                }
                Err(error) => {
                    log.note(&format!("stop command `{}` failed: {error}", command.command));
                    tracing::warn!(
                        child = label,
                        command = command.command,
                        reason = %error,
                        "stop command failed; the signal is sent"
                    );
                    patience.saturating_duration_since(Instant::now())
                }
            };
            tell(&actor, ProcessMessage::StopCommandOver(left));
        };
        StopCommandRun { _task: self.helped_by(Helper::StopCommand, myself, task), over: Some(is_over) }
    }

    /// The signal has its own grace from now on, which the rest of the command's time does not lengthen.
    fn on_stop_command_over(&mut self, myself: &ActorRef<ProcessMessage>, left: Duration) {
        if self.exit.is_none() {
            self.signal_stop();
            if !left.is_zero() {
                self.reporter.stop_ahead(left);
            }
        }
        if let Some(reply) = self.hand_over.take() {
            self.on_hand_over(myself, reply);
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
        self.is_kill_asked = true;
        if let Some(kill) = &self.kill {
            kill.send_replace(true);
        }
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
        (self.is_told, self.descriptor) = (true, None);
        if self.spec.port.is_none() || self.spec.port_owner == PortOwner::Any {
            return self.on_ready(myself);
        }
        let prober = prober(&self.spec, &self.host, self.process.label());
        let task = look(prober, self.process.clone(), myself.clone(), self.reporter.clone());
        self.probe = Some(self.helped_by(Helper::Readiness, myself, task));
    }

    fn on_ready(&mut self, myself: &ActorRef<ProcessMessage>) {
        self.probe = None;
        if self.is_stop_asked || self.exit.is_some() {
            return;
        }
        self.reporter.ready();
        self.note_ready();
        self.watch_health(myself, true);
    }

    fn note_ready(&mut self) {
        self.is_ready = true;
        if let Some(ready) = &self.ready {
            ready.send_replace(true);
        }
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
        let (process, log, actor) = (self.process.clone(), self.log.clone(), myself.clone());
        let attachment = self.attachment.take();
        // Only a stop that was asked for gives the rest of the tree the time to end by itself.
        let kill = &mut self.kill;
        let mut killed = || kill.get_or_insert_with(|| watch::Sender::new(self.is_kill_asked)).subscribe();
        let patience = self.is_stop_asked.then(|| (self.spec.stop_signal.number(), killed()));
        let task = async move {
            let report = end_tree(&process, patience).await;
            if let Some(over) = stop_command {
                // It may have something left to do, and says so in the same log.
                let _called_off = over.await;
            }
            drain(attachment, &log, &process).await;
            tell(&actor, ProcessMessage::TreeEnded(report));
        };
        self.finisher = Some(self.helped_by(Helper::Finisher, myself, task));
    }

    fn on_tree_ended(&mut self, myself: &ActorRef<ProcessMessage>, killed: KillReport) {
        self.finisher = None;
        let is_killed = |exit| exit == ProcessExit::Signal { signal: libc::SIGKILL, core_dumped: false };
        // Asked before the reap, which removes who counts.
        let is_by_kernel =
            self.exit.is_some_and(is_killed) && !self.is_kill_asked && self.process.oom_kills() > 0;
        let exit = self.process.ended().or(self.exit).unwrap_or(ProcessExit::Code(-1));
        let mut report = ExitReport::of_process(
            exit,
            self.is_stop_asked,
            self.is_kill_asked,
            self.spec.stop_signal.number(),
        );
        if is_by_kernel {
            report.cause = Cause::OutOfMemory;
        }
        if let Some(message) = self.fault.take() {
            (report.exit, report.cause) = (Exit::Abnormal, Cause::Error { message });
        }
        report.killed = killed.killed.into_iter().map(reference).collect();
        report.left = killed.left.into_iter().map(reference).collect();
        if self.is_kill_asked && is_killed(exit) {
            let main = ProcessRef { pid: self.process.pid(), command: self.spec.command.clone() };
            report.killed.insert(0, main);
        }
        self.process.reap_as(&report);
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
    prober
        .until_ready(|| pids(&process), |failure| reporter.waits_for(Some(process.masked(&failure.told()))))
        .await;
    tell(&myself, ProcessMessage::Ready);
}

/// Waits until a process that has told that it is ready listens on its port.
async fn look(
    mut prober: Prober,
    process: Arc<OsProcess>,
    myself: ActorRef<ProcessMessage>,
    reporter: Reporter,
) {
    prober
        .until_listening(
            || pids(&process),
            |failure| reporter.waits_for(Some(process.masked(&failure.told()))),
        )
        .await;
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
        prober.check_with(|| pids(process)).await.map_err(|failure| process.masked(&failure.told()))
    }
}

/// Checks the health of a process that is ready, and reports each change.
async fn watch_health(liveness: Liveness, mut probed: Probed, at_once: bool, reporter: Reporter) {
    health::watch(&liveness, &mut probed, at_once, |verdict| match verdict {
        Verdict::Same => {}
        Verdict::Passed => reporter.healthy(),
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
    if drained.stalled {
        tracing::warn!(
            child = process.label(),
            "the log hangs in a write; the last output is read when it goes on"
        );
    }
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
