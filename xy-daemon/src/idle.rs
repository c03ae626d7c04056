//! Whether a daemon that nobody needs ends by itself: the decision, and who is connected.
//!
//! It is needed while a server runs, or is about to, and while a client is connected. The decision is a value that is told what
//! was seen and when; one timer and the events of the tree are around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use xy_actors::event::stream::{EventCursor, EventItem, EventKind, unix_ms};
use xy_actors::supervisor::Supervisor;

use crate::control::Control;
use crate::protocol::Method as _;
use crate::protocol::method::{DaemonDiagnostics, Identify, ListParams, State, Version};
use crate::rpc::Service as _;

/// What the operator says about the end of a daemon that nobody needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdleShutdown {
    /// What the configuration says.
    #[default]
    Configured,
    /// It never ends by itself.
    Never,
    /// It ends after this time.
    After(Duration),
}

impl IdleShutdown {
    /// Returns the time, given that of the configuration; `None` if the daemon never ends by itself.
    pub fn after(self, configured: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Configured => configured,
            Self::Never => None,
            Self::After(after) => Some(after),
        }
    }
}

/// Since when nobody has needed the daemon.
#[derive(Debug)]
struct Idle {
    after: Duration,
    since: Option<Instant>,
}

impl Idle {
    fn new(after: Duration) -> Self {
        Self { after, since: None }
    }

    /// Notes whether it is needed at this moment, and returns when it is to end unless that changes.
    fn note(&mut self, is_needed: bool, now: Instant) -> Option<Instant> {
        self.since = if is_needed { None } else { self.since.or(Some(now)) };
        Some(self.since? + self.after)
    }
}

/// How many clients are connected, and when one last asked for something.
#[derive(Debug, Clone)]
pub(crate) struct Clients(watch::Sender<usize>, Arc<AtomicU64>);

impl Default for Clients {
    fn default() -> Self {
        Self(watch::Sender::new(0), Arc::default())
    }
}

impl Clients {
    /// Counts one more, for as long as the value lives.
    pub(crate) fn arrive(&self) -> Presence {
        self.0.send_modify(|count| *count += 1);
        Presence(Some(self.clone()))
    }

    /// Returns how many are connected.
    pub(crate) fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Notes that one asks for this method. Looking at the daemon itself is not what it is there for.
    pub(crate) fn note(&self, method: &str) {
        if ![Version::NAME, Identify::NAME, DaemonDiagnostics::NAME].contains(&method) {
            self.1.store(unix_ms(), Ordering::Relaxed);
        }
    }

    /// Returns when one last asked for something, in milliseconds since the Unix epoch.
    pub(crate) fn last_activity_unix_ms(&self) -> Option<u64> {
        Some(self.1.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

/// Says that a client is connected, until it is dropped.
#[derive(Debug, Default)]
pub struct Presence(Option<Clients>);

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(clients) = &self.0 {
            clients.0.send_modify(|count| *count -= 1);
        }
    }
}

/// Waits until nobody has needed a daemon for this long; for ever if it is `None`.
///
/// # Cancel safety
/// Cancel safe, but the time begins anew.
pub(crate) async fn until_idle(after: Option<Duration>, root: &Supervisor, control: &Control) {
    let Some(after) = after else { return std::future::pending().await };
    // Before the first look, so that nothing happens unseen between them.
    let mut events = root.events(EventCursor::Now);
    let mut clients = control.clients().0.subscribe();
    let mut idle = Idle::new(after);
    loop {
        let is_needed = *clients.borrow_and_update() > 0 || has_work(control).await;
        let deadline = idle.note(is_needed, tokio::time::Instant::now().into_std());
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => return,
            // The sender is in the control.
            _ = clients.changed() => {}
            () = async { while events.next().await.is_some_and(|event| !is_change(&event)) {} } => {}
        }
    }
}

/// Returns whether an event may have changed whether a server runs.
fn is_change(event: &EventItem) -> bool {
    use xy_actors::event::ChildReport as Report;
    let EventItem::Event(event) = event else { return true };
    match &event.kind {
        EventKind::Child { report, .. } => !matches!(
            report,
            Report::Ready | Report::Unhealthy | Report::Healthy | Report::Stopping | Report::Killing
        ),
        _ => true,
    }
}

async fn has_work(control: &Control) -> bool {
    let Ok(list) = control.list(ListParams {}).await else { return true };
    list.servers.iter().any(|server| !server.group && !matches!(server.state, State::Stopped | State::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    #[test]
    fn the_time_counts_from_when_the_last_one_left() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::new(AFTER);
        assert_eq!(idle.note(true, at(0)), None);
        assert_eq!(idle.note(false, at(5)), Some(at(15)));
        assert_eq!(idle.note(false, at(9)), Some(at(15)), "another look does not put it off");
        assert_eq!(idle.note(true, at(14)), None);
        assert_eq!(idle.note(false, at(20)), Some(at(30)), "whoever came begins the time anew");
    }

    #[test]
    fn the_command_line_wins_over_the_configuration() {
        let configured = Some(AFTER);
        assert_eq!(IdleShutdown::Configured.after(configured), configured);
        assert_eq!(IdleShutdown::Never.after(configured), None);
        assert_eq!(IdleShutdown::After(Duration::ZERO).after(configured), Some(Duration::ZERO));
        assert_eq!(IdleShutdown::Configured.after(None), None);
    }

    #[test]
    fn a_client_counts_for_as_long_as_it_is_there() {
        let clients = Clients::default();
        let count = || *clients.0.borrow();
        let (one, other) = (clients.arrive(), clients.arrive());
        assert_eq!(count(), 2);
        drop((one, Presence::default()));
        assert_eq!(count(), 1);
        drop(other);
        assert_eq!(count(), 0);
    }

    #[test]
    fn looking_at_the_daemon_is_no_activity() {
        let clients = Clients::default();
        let _one = clients.arrive();
        for method in ["version", "identify", "diagnostics"] {
            clients.note(method);
            assert_eq!(clients.last_activity_unix_ms(), None, "{method}");
        }
        clients.note("list");
        assert!(clients.last_activity_unix_ms().is_some());
    }
}
