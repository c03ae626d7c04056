//! The guard: a parent that ends everything its program leaves behind when that dies, and starts the program again.
//!
//! ```text
//! start() ── fork ──► program: goes on, reports that it is up
//!    │                   │ ended as it was asked to ───────────► end what is left, end the same way
//!    guard waits ◄───────┤ died ─► end what is left ─► delay ─► fork, execute the program again
//!                        └ (guard died: the program is told, and ends with all it owns)
//! ```
//! The guard has one thread and a few pages, does nothing but wait, and spawns nothing but the program: there is little in
//! it that could fail. It is a child-subreaper, so that whoever loses its parent by the death of the program becomes its
//! child (Linux). It signals only its own children that it has not reaped; their children become its own when they die. So
//! no signal can reach a process that is not a descendant.
//!
//! A process that executes the program may have children already (`helper & exec xyd`), and process 1 of a container gets
//! orphans that were never ours. Such a guard ends only those whose environment says that they come from the program.
//!
//! On macOS orphans go to launchd. There, the program's next start ends them by the ledger, and the guard only brings that
//! start about. Not run on macOS.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tree::{self, Stat};
use super::{ProcessExit, sys};

/// What the program sends to its guard when it is up. Ignored by default, so that it does no harm to anybody else.
const UP: i32 = libc::SIGURG;

/// What the program sends to its guard before another one takes its process over: it is not up until it says so again.
/// Ignored by default, too; the kernel sends it when a terminal changes its size, which is told apart on Linux only.
const EXCHANGED: i32 = libc::SIGWINCH;

/// What is passed on to the program.
const FORWARDED: [i32; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// A program that was up for at least this long has not been in a crash loop.
const STABLE: Duration = Duration::from_secs(10);

/// The delay after the second short life in a row; it doubles with each one more.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest delay.
const LAST_DELAY: Duration = Duration::from_secs(30);

/// How long the guard tries to end what a dead program left; a process in an uninterruptible sleep never ends.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How a later start of the program is made, and which ends are not to be followed by one.
#[derive(Debug, Clone)]
pub struct GuardOptions {
    /// The program; executed by this path, so that a newer one on disk takes over after a crash.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// The option that gives a later start the guard's pid, as the last two arguments.
    pub guard_option: OsString,
    /// The exit codes that end the guard as well, once the program has been up. Before that, every exit code does: a
    /// program that cannot start says so to whoever started it.
    pub final_codes: Vec<i32>,
}

/// Which of the two processes returned from [`start`].
#[derive(Debug)]
pub enum Role {
    /// The program, which goes on as if nothing had happened.
    Program(Guarded),
    /// The guard, after its program has ended for good.
    Guard(ProcessExit),
}

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The system refuses a second process, or this one has several threads.
    #[error("the guard process cannot be started")]
    Fork(#[source] io::Error),
    /// The path of this program is not known, so it could not be started again.
    #[error("the path of this program is not known")]
    Program(#[source] io::Error),
    /// The guard cannot become a child-subreaper.
    #[error("the guard process cannot become a child-subreaper")]
    Subreaper(#[source] io::Error),
    /// The named process is not our parent: the guard has died, or never was one.
    #[error("process {0} is not the guard of this one")]
    NotOurs(u32),
    /// The guard cannot be watched.
    #[error("the guard process cannot be watched")]
    Watch(#[source] io::Error),
}

/// Puts a guard above the calling program: the caller goes on as its child.
///
/// To be called before any thread exists, because both processes go on with a copy of everything.
///
/// # Errors
/// If the system refuses the process or the role; then there is no guard, and the caller is the only process.
pub fn start(options: &GuardOptions) -> Result<Role, GuardError> {
    let held = held_signals();
    sys::set_subreaper().map_err(GuardError::Subreaper)?;
    // Before the fork, so that no signal is lost between them.
    sys::hold_signals(&held);
    let guard = std::process::id();
    let has_others = guard == 1 || tree::children_of(guard).map_or(true, |children| !children.is_empty());
    let program = match sys::fork_alone() {
        Ok(Some(program)) => program,
        Ok(None) => {
            sys::reset_inherited_signals();
            return Guarded::attach(guard).map(Role::Program);
        }
        Err(error) => {
            sys::reset_inherited_signals();
            return Err(GuardError::Fork(error));
        }
    };
    Ok(Role::Guard(Guard { options, held, program, has_others, life: Life::new(), prefers_own: false }.run()))
}

/// Gives signals that whoever started this program had blocked or ignored their meaning back, except SIGPIPE.
///
/// Otherwise they would be ignored by a program that relies on them. To be called before any thread exists.
pub fn reset_signals() {
    sys::reset_inherited_signals();
}

/// Ends this process as another one has ended: by the same signal if it was one, so that a shell sees no difference.
///
/// Returns the exit code to end with.
pub fn end_like(exit: ProcessExit) -> u8 {
    match exit {
        ProcessExit::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        ProcessExit::Signal { signal, .. } => {
            // The other one has written a core dump if there was to be one; nobody needs a second.
            let _unlimited = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
            sys::end_by_signal(signal);
            // Process 1 of a container does not die of it.
            u8::try_from(128 + signal).unwrap_or(u8::MAX)
        }
    }
}

/// The program's side: who guards it.
#[derive(Debug)]
pub struct Guarded {
    guard: u32,
    process: Arc<OwnedFd>,
}

impl Guarded {
    /// Recognizes the guard by its pid, which must be this process's parent.
    ///
    /// # Errors
    /// If it is not, or cannot be watched.
    pub fn attach(guard: u32) -> Result<Self, GuardError> {
        let process = sys::open_process(guard).map_err(GuardError::Watch)?;
        // Checked after it was opened: while it is our parent, its pid means no other, so what was opened is the guard.
        if std::os::unix::process::parent_id() != guard {
            return Err(GuardError::NotOurs(guard));
        }
        Ok(Self { guard, process: Arc::new(process) })
    }

    /// Returns the guard's pid.
    pub fn pid(&self) -> u32 {
        self.guard
    }

    /// Tells the guard that the program has started and does its work: from here on, it is started again when it dies.
    pub fn report_up(&self) {
        use std::os::fd::AsFd as _;
        // A guard that is gone is noticed by `ended`.
        let _gone = sys::signal_process(self.process.as_fd(), self.guard, UP);
    }

    /// Tells the guard that another program is about to take this process over. If that ends before it
    /// [is up](Self::report_up), this one is started again in its place, from the guard's own copy, whatever the exit code.
    pub fn report_exchange(&self) {
        use std::os::fd::AsFd as _;
        if cfg!(target_os = "linux") {
            let _gone = sys::signal_process(self.process.as_fd(), self.guard, EXCHANGED);
        }
    }

    /// Waits until the guard has died.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&self) -> io::Result<()> {
        sys::watch(self.process.clone())?.readable().await.map(drop)
    }
}

fn held_signals() -> sys::SignalSet {
    let mut signals = FORWARDED.to_vec();
    signals.extend([libc::SIGCHLD, UP]);
    if cfg!(target_os = "linux") {
        signals.push(EXCHANGED);
    }
    sys::SignalSet::new(&signals)
}

/// When the running program was started, and when it reported that it is up.
#[derive(Debug, Clone, Copy)]
struct Life {
    up: Option<Instant>,
    /// Another program has taken over, or was about to.
    is_exchanged: bool,
}

impl Life {
    fn new() -> Self {
        Self { up: None, is_exchanged: false }
    }

    /// Notes that the program said that it is up.
    fn has_come_up(&mut self) {
        self.up = self.up.or(Some(Instant::now()));
    }

    /// Notes that another program is about to take over.
    fn is_being_exchanged(&mut self) {
        (self.up, self.is_exchanged) = (None, true);
    }

    fn is_short(self, now: Instant) -> bool {
        self.up.is_none_or(|up| now.duration_since(up) < STABLE)
    }
}

/// Returns how long to wait before the next start, after this many short lives in a row.
///
/// One death is answered at once. Only a program that dies again and again is held back: 1 s, 2 s, 4 s up to 30 s.
fn delay(short_lives: u32) -> Duration {
    match short_lives {
        0 | 1 => Duration::ZERO,
        more => FIRST_DELAY.saturating_mul(1 << (more - 2).min(16)).min(LAST_DELAY),
    }
}

/// What an end of the program means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It was to end, or cannot start: the guard ends like it.
    Final,
    /// It died: it is started again.
    Again,
}

fn judge(
    exit: ProcessExit,
    has_been_up: bool,
    is_end_asked: bool,
    is_exchange: bool,
    final_codes: &[i32],
) -> Verdict {
    let is_final = match exit {
        _ if is_end_asked => true,
        // That was another program, which has not come up.
        ProcessExit::Code(_) if is_exchange => false,
        ProcessExit::Code(code) => !has_been_up || final_codes.contains(&code),
        // Asked to end directly, before it was ready to hear it politely.
        ProcessExit::Signal { signal, .. } => [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].contains(&signal),
    };
    if is_final { Verdict::Final } else { Verdict::Again }
}

/// What the guard process knows.
struct Guard<'a> {
    options: &'a GuardOptions,
    held: sys::SignalSet,
    program: u32,
    /// There are, or may be, children that do not come from the program.
    has_others: bool,
    life: Life,
    /// The program on disk has not come up: the next one is that of the guard itself.
    prefers_own: bool,
}

/// What has happened to the guard's signals since it looked last.
#[derive(Default)]
struct Heard {
    exit: Option<ProcessExit>,
    is_end_asked: bool,
}

impl Guard<'_> {
    fn run(mut self) -> ProcessExit {
        let (mut has_been_up, mut is_end_asked, mut short_lives) = (false, false, 0_u32);
        loop {
            sys::release_program_memory();
            let heard = self.await_end(&mut is_end_asked);
            has_been_up |= self.life.up.is_some() || self.life.is_exchanged;
            short_lives = if self.life.is_short(Instant::now()) { short_lives.saturating_add(1) } else { 0 };
            // First of all, and whatever the end means: nothing of the program outlives it.
            let (killed, left) = end_descendants(self.has_others);
            let is_exchange = self.life.is_exchanged && self.life.up.is_none();
            // By turns, as either of them may be at fault.
            self.prefers_own = self.life.up.is_none() && !self.prefers_own;
            match judge(heard, has_been_up, is_end_asked, is_exchange, &self.options.final_codes) {
                Verdict::Final => {
                    tell_left(&killed, &left);
                    return heard;
                }
                Verdict::Again => {
                    let delay = delay(short_lives);
                    if let Some(exit) = self.start_again(heard, delay) {
                        return exit;
                    }
                    tell(&format!("{} {}; it was started again", name(&self.options.program), ended(heard)));
                    tell_left(&killed, &left);
                }
            }
        }
    }

    /// Waits for the end of the program and passes signals on to it meanwhile.
    fn await_end(&mut self, is_end_asked: &mut bool) -> ProcessExit {
        loop {
            let heard = self.hear(None);
            *is_end_asked |= heard.is_end_asked;
            if let Some(exit) = heard.exit {
                // The kernel hands out the lower number first, although these were sent before the end.
                let was_sent = |signal| {
                    let set = sys::SignalSet::new(&[signal]);
                    sys::take_signal(&set, Some(Duration::ZERO))
                        .is_some_and(|(_, is_from_kernel)| !is_from_kernel)
                };
                if cfg!(target_os = "linux") && was_sent(EXCHANGED) {
                    self.life.is_being_exchanged();
                }
                if was_sent(UP) {
                    self.life.has_come_up();
                }
                return exit;
            }
        }
    }

    /// Takes one signal and does what it asks for.
    fn hear(&mut self, timeout: Option<Duration>) -> Heard {
        let mut heard = Heard::default();
        match sys::take_signal(&self.held, timeout) {
            None => {}
            Some((libc::SIGCHLD, _)) => {
                // One signal may stand for several ends.
                while let Some((pid, exit)) = sys::reap_any() {
                    if pid == self.program {
                        heard.exit = Some(exit);
                    }
                }
            }
            Some((UP, _)) => self.life.has_come_up(),
            // A terminal has changed its size.
            Some((EXCHANGED, true)) => {}
            Some((EXCHANGED, false)) => self.life.is_being_exchanged(),
            Some((signal, is_from_kernel)) => {
                heard.is_end_asked = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].contains(&signal);
                // The terminal has told the program as well, which is in our group.
                if !is_from_kernel {
                    let _ended = sys::signal_child(self.program, signal);
                }
            }
        }
        heard
    }

    /// Starts the program again; `Some` if an end was asked for instead.
    fn start_again(&mut self, exit: ProcessExit, delay: Duration) -> Option<ProcessExit> {
        if delay > Duration::ZERO {
            let text = format!("{} {}; it is started again in", name(&self.options.program), ended(exit));
            tell(&format!("{text} {} s", delay.as_secs()));
        }
        // There is no program to be told, or reaped, until there is one.
        self.program = 0;
        let mut due = Instant::now() + delay;
        loop {
            let rest = due.saturating_duration_since(Instant::now());
            if self.hear(Some(rest)).is_end_asked {
                // Nothing runs any more, as was asked for.
                return Some(ProcessExit::Code(0));
            }
            if Instant::now() < due {
                continue;
            }
            match self.execute() {
                Ok(program) => {
                    self.program = program;
                    self.life = Life::new();
                    return None;
                }
                // No memory, no processes: that passes.
                Err(error) => {
                    tell(&format!("{} cannot be started: {error}", name(&self.options.program)));
                    due = Instant::now() + LAST_DELAY;
                }
            }
        }
    }

    fn execute(&self) -> io::Result<u32> {
        let guard = std::process::id();
        if let Some(pid) = sys::fork_alone()? {
            return Ok(pid);
        }
        let command = |program: PathBuf| {
            let mut command = Command::new(program);
            // By this name it finds whatever is on disk, for an upgrade.
            command.arg0(&self.options.program);
            command.args(&self.options.arguments).arg(&self.options.guard_option).arg(guard.to_string());
            command
        };
        // Each returns only if it fails. The guard's own copy is for a program that was removed from the disk meanwhile, or
        // was exchanged for one that does not come up. The standard library empties the signal mask before it executes.
        let own = || command("/proc/self/exe".into()).exec();
        if cfg!(target_os = "linux") && self.prefers_own {
            let _fault = own();
        }
        let fault = command(self.options.program.clone()).exec();
        if cfg!(target_os = "linux") {
            let _fault = own();
        }
        tell(&format!("{} cannot be executed: {fault}", self.options.program.display()));
        sys::end_by_signal(libc::SIGKILL);
        Err(fault)
    }
}

/// Kills our children, and those that become ours by that, until two looks in a row find none. Returns the killed and
/// those that did not end in time. With `has_others`, whoever has no marker of its own is spared.
fn end_descendants(has_others: bool) -> (Vec<Stat>, Vec<Stat>) {
    let own_marker = tree::marker_of(std::process::id()).unwrap_or_default();
    let is_ours = |stat: &Stat| {
        !has_others || {
            let marker = tree::marker_of(stat.pid).unwrap_or_default();
            marker.is_some() && marker != own_marker
        }
    };
    let (mut killed, mut empty_looks): (Vec<Stat>, u32) = (Vec::new(), 0);
    let deadline = Instant::now() + END_LIMIT;
    let ends = sys::SignalSet::new(&[libc::SIGCHLD]);
    loop {
        // Reaped before the look, so that whoever is seen in it keeps its pid until the next one.
        while sys::reap_any().is_some() {}
        // Without a look nobody can say that nobody is left.
        let (children, is_seen) = match own_children() {
            Ok(children) => (children, true),
            Err(_) => (Vec::new(), false),
        };
        let children: Vec<Stat> =
            children.into_iter().filter(|stat| stat.is_alive && is_ours(stat)).collect();
        if !is_seen && Instant::now() < deadline {
            let _any = sys::take_signal(&ends, Some(Duration::from_millis(20)));
            continue;
        }
        if children.is_empty() {
            empty_looks += 1;
            if empty_looks == 2 {
                return (killed, Vec::new());
            }
            continue;
        }
        empty_looks = 0;
        if Instant::now() >= deadline {
            killed.retain(|one| !children.iter().any(|child| child.identity() == one.identity()));
            return (killed, children);
        }
        for child in children {
            let _ended = sys::signal_child(child.pid, libc::SIGKILL);
            if !killed.iter().any(|one| one.identity() == child.identity()) {
                killed.push(child);
            }
        }
        // The signals of those that ended before are taken, too; one too many only makes for one more look.
        let _any = sys::take_signal(&ends, Some(Duration::from_millis(20)));
    }
}

/// Returns our children, where orphans become ours.
fn own_children() -> std::io::Result<Vec<Stat>> {
    if !cfg!(target_os = "linux") {
        return Ok(Vec::new());
    }
    let children = tree::children_of(std::process::id())?;
    children.into_iter().filter_map(|pid| Stat::look(pid).transpose()).collect()
}

fn name(program: &std::path::Path) -> String {
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

fn ended(exit: ProcessExit) -> String {
    match exit {
        ProcessExit::Code(code) => format!("ended with exit code {code}"),
        ProcessExit::Signal { signal, .. } => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("was ended by {signal}"),
            Err(_) => format!("was ended by signal {signal}"),
        },
    }
}

fn tell_left(killed: &[Stat], left: &[Stat]) {
    for (processes, what) in [(killed, "were left and killed"), (left, "could not be killed")] {
        if !processes.is_empty() {
            let names: Vec<String> =
                processes.iter().take(20).map(|stat| format!("{} ({})", stat.pid, stat.command)).collect();
            let more = if processes.len() > names.len() { ", and others" } else { "" };
            tell(&format!("{} processes {what}: {}{more}", processes.len(), names.join(", ")));
        }
    }
}

/// Writes one line to stderr, unless nobody reads there: a guard that waits for a reader guards nothing.
fn tell(line: &str) {
    use std::os::fd::AsFd as _;
    let stderr = io::stderr();
    let mut ready = [nix::poll::PollFd::new(stderr.as_fd(), nix::poll::PollFlags::POLLOUT)];
    // A pipe that is ready has room for 4 KiB.
    let mut text = format!("guard: {line}");
    text.truncate(text.floor_char_boundary(4000));
    text.push('\n');
    if nix::poll::poll(&mut ready, nix::poll::PollTimeout::ZERO).is_ok_and(|count| count == 1) {
        let _unwritten = stderr.lock().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: ProcessExit = ProcessExit::Signal { signal: 9, core_dumped: false };

    #[test]
    fn a_program_that_cannot_start_says_so_and_one_that_dies_later_comes_back() {
        let judge = |exit, has_been_up| judge(exit, has_been_up, false, false, &[0, 75]);
        for code in [0, 3, 64, 70, 75, 101] {
            assert_eq!(judge(ProcessExit::Code(code), false), Verdict::Final, "{code} at the start");
            let later = if [0, 75].contains(&code) { Verdict::Final } else { Verdict::Again };
            assert_eq!(judge(ProcessExit::Code(code), true), later, "{code} later");
        }
        assert_eq!((judge(KILLED, false), judge(KILLED, true)), (Verdict::Again, Verdict::Again));
    }

    #[test]
    fn whoever_was_asked_to_end_is_not_started_again_however_it_ended() {
        assert_eq!(judge(KILLED, true, true, false, &[]), Verdict::Final);
        assert_eq!(judge(ProcessExit::Code(70), true, true, false, &[]), Verdict::Final);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
            let exit = ProcessExit::Signal { signal, core_dumped: false };
            assert_eq!(judge(exit, false, false, false, &[]), Verdict::Final, "asked without the guard");
        }
    }

    #[test]
    fn a_program_that_took_over_and_did_not_come_up_gives_no_final_answer() {
        for code in [0, 64, 75] {
            assert_eq!(
                judge(ProcessExit::Code(code), true, false, true, &[0, 64, 75]),
                Verdict::Again,
                "{code}"
            );
            assert_eq!(
                judge(ProcessExit::Code(code), true, true, true, &[]),
                Verdict::Final,
                "{code} as asked"
            );
        }
        let mut life = Life::new();
        life.has_come_up();
        life.is_being_exchanged();
        assert!(life.up.is_none() && life.is_exchanged);
        life.has_come_up();
        assert!(life.up.is_some());
    }

    #[test]
    fn the_first_death_is_answered_at_once_and_a_crash_loop_slows_down() {
        let delays: Vec<u64> = (0..10).map(|lives| delay(lives).as_secs()).collect();
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(delay(u32::MAX), LAST_DELAY);
    }

    #[test]
    fn a_life_counts_as_short_until_the_program_was_up_for_a_while() {
        let now = Instant::now();
        let life = |up| Life { up, is_exchanged: false };
        assert!(life(None).is_short(now));
        assert!(life(Some(now)).is_short(now + STABLE - Duration::from_nanos(1)));
        assert!(!life(Some(now)).is_short(now + STABLE));
    }

    #[test]
    fn only_the_parent_is_taken_for_a_guard() {
        let parent = std::os::unix::process::parent_id();
        assert_eq!(Guarded::attach(parent).expect("ours").pid(), parent);
        let own = std::process::id();
        assert!(matches!(Guarded::attach(own), Err(GuardError::NotOurs(pid)) if pid == own));
    }

    #[test]
    fn a_process_with_several_threads_is_not_split() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || held.recv());
        assert!(matches!(sys::fork_alone(), Err(error) if error.to_string().contains("several threads")));
        drop(hold);
        other.join().expect("no panic").expect_err("nothing was sent");
    }
}
