//! Notifications: what a process says about itself, over a datagram socket (sd_notify) or a descriptor (s6).
//!
//! Each incarnation has its own socket, so nothing said by one reaches the next. Only processes of the child's own tree
//! are heard; on systems whose datagrams carry no credentials, the private directory alone keeps strangers out.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{self, Instant};

mod message;
mod socket;

pub(crate) use self::socket::NotifySocket;
pub(in crate::process) use self::socket::sweep;

#[cfg(all(feature = "testkit", feature = "probe-http"))]
pub(in crate::process) use self::message::read_datagram;
use self::message::{Notice, Sign};
use crate::child::Reporter;
use crate::log::Log;
use crate::process::OsProcess;
use crate::process::health::Watchdog;
use crate::process::sys::Received;
use crate::process::tree::Stat;

/// The longest datagram that is heard; a longer one is dropped as a whole.
const LONGEST: usize = 4 << 10;

/// How many datagrams are heard in [`BATCH_TIME`]; the sender of more waits for room in its socket.
const BATCH: u32 = 64;
const BATCH_TIME: Duration = Duration::from_millis(100);

/// The shortest time between two statuses that are passed on; of those between, the newest is.
const STATUS_PACE: Duration = Duration::from_millis(250);

/// Why a process is replaced that sent `WATCHDOG=trigger`.
const TRIGGERED: &str = "watchdog: triggered by the process itself";

/// Hears one incarnation until it is dropped.
pub(in crate::process) struct Listener {
    pub(in crate::process) socket: Arc<NotifySocket>,
    pub(in crate::process) process: Arc<OsProcess>,
    pub(in crate::process) reporter: Reporter,
    pub(in crate::process) log: Log,
    /// Whether `READY=1` proves readiness.
    pub(in crate::process) decides: bool,
    pub(in crate::process) watchdog: Option<Duration>,
    /// Whether the incarnation is ready.
    pub(in crate::process) ready: watch::Receiver<bool>,
}

/// What has been heard so far, as far as it matters.
struct Heard {
    /// Whether the supervisor has been told that it is ready.
    is_ready: bool,
    has_said_ready: bool,
    /// It triggered its watchdog before the supervisor knew that it is ready.
    has_triggered: bool,
    watchdog: Option<Watchdog>,
    status: Option<String>,
    /// A status that waits for its turn.
    pending: Option<String>,
    status_due: Instant,
    start_until: Option<Instant>,
    /// What was noted in the log and need not be again.
    noted: BTreeSet<&'static str>,
}

impl Listener {
    /// Listens. `on_ready` is called at the first `READY=1`, if that decides.
    pub(in crate::process) async fn listen(mut self, mut on_ready: impl FnMut()) {
        if self.decides {
            self.reporter.waits_for(Some("`READY=1` from the process".to_owned()));
        }
        let mut heard = Heard {
            is_ready: *self.ready.borrow_and_update(),
            has_said_ready: false,
            has_triggered: false,
            watchdog: self.watchdog.map(Watchdog::new),
            status: None,
            pending: None,
            status_due: Instant::now(),
            start_until: None,
            noted: BTreeSet::new(),
        };
        heard.arm_watchdog();
        let mut buffer = [0; LONGEST];
        let (mut batch, mut batch_end) = (0, Instant::now() + BATCH_TIME);
        loop {
            tokio::select! {
                received = self.socket.receive(&mut buffer) => match received {
                    Ok(received) => {
                        self.take(&mut heard, &received, &buffer, &mut on_ready);
                        batch += 1;
                    }
                    Err(error) => {
                        tracing::error!(child = self.process.label(), %error, "notifications are not heard any more");
                        return std::future::pending().await;
                    }
                },
                why = missed(&mut heard.watchdog) => self.reporter.health_failed(why),
                Ok(()) = self.ready.changed() => {
                    heard.is_ready = *self.ready.borrow_and_update();
                    heard.arm_watchdog();
                    if heard.has_triggered {
                        self.reporter.health_failed(TRIGGERED);
                    }
                }
                () = time::sleep_until(heard.status_due), if heard.pending.is_some() => self.pass_status_on(&mut heard),
            }
            let now = Instant::now();
            if now >= batch_end {
                (batch, batch_end) = (0, now + BATCH_TIME);
            } else if batch >= BATCH {
                time::sleep_until(batch_end).await;
            }
        }
    }

    fn take(&self, heard: &mut Heard, received: &Received, buffer: &[u8], on_ready: &mut impl FnMut()) {
        if let Some(pid) = received.sender.filter(|pid| !self.belongs(*pid)) {
            tracing::debug!(child = self.process.label(), pid, "a notification of a stranger is dropped");
            return self
                .note(heard, "a notification from a process that is not ours, or already gone, was dropped");
        }
        if received.is_cut {
            return self.note(heard, "a notification of more than 4 KiB was dropped");
        }
        let notice = Notice::parse(&buffer[..received.size]);
        if let Some(status) = notice.status {
            heard.pending = Some(status).filter(|status| heard.status.as_ref() != Some(status));
            if heard.pending.is_some() && heard.status_due <= Instant::now() {
                self.pass_status_on(heard);
            }
        }
        match notice.watchdog {
            Some(Sign::Alive) => {
                if let Some(watchdog) = &mut heard.watchdog {
                    watchdog.ping(Instant::now());
                }
            }
            Some(Sign::Trigger) if heard.watchdog.is_some() => {
                heard.has_triggered = true;
                if heard.is_ready {
                    self.reporter.health_failed(TRIGGERED);
                }
            }
            Some(Sign::Trigger) | None => {}
        }
        if let Some(by) = notice.extend.filter(|_| !heard.is_ready && !heard.has_said_ready) {
            self.extend(heard, by);
        }
        for ignored in notice.ignored {
            self.note(heard, ignored.words());
        }
        if notice.is_stopping {
            self.note(heard, "the process says that it is stopping");
        }
        if notice.is_ready && self.decides && !heard.has_said_ready {
            heard.has_said_ready = true;
            on_ready();
        }
    }

    /// Asks for more time, unless that would change next to nothing.
    fn extend(&self, heard: &mut Heard, by: Duration) {
        let Some(until) = Instant::now().checked_add(by) else { return };
        let is_news = heard.start_until.is_none_or(|before| until > before + BATCH_TIME);
        if is_news {
            heard.start_until = Some(until);
            self.reporter.extend_start(by);
        }
    }

    /// Tells the supervisor while it waits for readiness, and the log afterwards.
    fn pass_status_on(&self, heard: &mut Heard) {
        let Some(status) = heard.pending.take() else { return };
        if heard.is_ready || heard.has_said_ready {
            self.log.note(&format!("status: {status}"));
        } else if self.decides {
            self.reporter.waits_for(Some(format!("`READY=1` from the process, which says: {status}")));
        }
        heard.status = Some(status);
        heard.status_due = Instant::now() + STATUS_PACE;
    }

    fn note(&self, heard: &mut Heard, text: &'static str) {
        if heard.noted.insert(text) {
            self.log.note(text);
        }
    }

    fn belongs(&self, pid: u32) -> bool {
        let main = self.process.pid();
        pid == main
            // Cheap, and true of a sender that has just ended too. The main process has not been reaped, so its number is
            // nobody else's.
            || Stat::read(pid).is_some_and(|stat| stat.session == main || stat.group == main)
            || self.process.members().is_ok_and(|members| members.iter().any(|member| member.pid == pid))
    }
}

impl Heard {
    fn arm_watchdog(&mut self) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| self.is_ready) {
            watchdog.arm(Instant::now());
        }
    }
}

async fn missed(watchdog: &mut Option<Watchdog>) -> String {
    match watchdog {
        Some(watchdog) => watchdog.missed().await,
        None => std::future::pending().await,
    }
}

/// Waits for a newline on the descriptor of one incarnation; for ever if it is closed without one.
pub(in crate::process) async fn newline(end: OwnedFd, number: u16, reporter: &Reporter) {
    reporter.waits_for(Some(format!("a newline on descriptor {number} of the process")));
    match read_newline(end).await {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("descriptor {number} of the process, closed without a newline");
            reporter.waits_for(Some(text));
            std::future::pending().await
        }
        Err(error) => {
            reporter.waits_for(Some(format!("descriptor {number} of the process, unreadable: {error}")));
            std::future::pending().await
        }
    }
}

async fn read_newline(end: OwnedFd) -> io::Result<bool> {
    let end = pipe::Receiver::from_owned_fd(end)?;
    let mut bytes = [0; 256];
    loop {
        end.readable().await?;
        match end.try_read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) if bytes[..count].contains(&b'\n') => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
