//! The supervisor's half of addresses: who can be reached in a child now, told to those who asked.

use std::collections::HashMap;

use ractor::ActorCell;
use tokio::sync::watch;

use crate::policy::ChildKey;
use crate::supervisor::Supervisor;
use crate::supervisor::record::Live;

/// Who can be reached in a child.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// Nobody yet.
    Down,
    /// The actor of the latest incarnation, which may have ended since: its status tells.
    Actor(ActorCell),
    /// The supervisor of the latest incarnation, which may have ended since: it no longer answers then.
    Supervisor(Supervisor),
    /// The latest incarnation takes no messages.
    NoActor,
}

impl Line {
    fn to(live: &Live) -> Self {
        match live {
            Live::None | Live::Pending { .. } => Self::Down,
            Live::Actor(actor) => actor.cell().map_or(Self::Down, |cell| Self::Actor(cell.clone())),
            Live::Running(running) => running.supervisor().map_or(Self::NoActor, Self::Supervisor),
        }
    }
}

/// The lines to those children that somebody has an address of; nothing is held or done for the others.
///
/// A line closes with its child or its supervisor. It says nothing of exits, which whoever uses it sees by itself.
#[derive(Debug, Default)]
pub(crate) struct Lines(HashMap<ChildKey, watch::Sender<Line>>);

impl Lines {
    /// Returns the line to a child.
    pub(crate) fn open(&mut self, child: ChildKey, live: &Live) -> watch::Receiver<Line> {
        self.0.entry(child).or_insert_with(|| watch::Sender::new(Line::to(live))).subscribe()
    }

    /// Tells that a child has a new incarnation.
    #[inline]
    pub(crate) fn begun(&mut self, child: ChildKey, live: &Live) {
        if !self.0.is_empty() {
            self.tell(child, live);
        }
    }

    fn tell(&mut self, child: ChildKey, live: &Live) {
        let Some(line) = self.0.get(&child) else { return };
        // With the last address goes the line.
        if line.send(Line::to(live)).is_err() {
            self.0.remove(&child);
        }
    }

    /// Closes the line to a child that is gone for good.
    #[inline]
    pub(crate) fn close(&mut self, child: ChildKey) {
        if !self.0.is_empty() {
            self.0.remove(&child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_with_its_last_address_or_with_its_child() {
        let mut lines = Lines::default();
        let [first, second] = [0, 1].map(ChildKey::new);
        let address = lines.open(first, &Live::None);
        let other = lines.open(first, &Live::None);
        lines.begun(first, &Live::None);
        drop(address);
        lines.begun(first, &Live::None);
        assert_eq!(lines.0.len(), 1, "one address is left");
        drop(other);
        lines.begun(second, &Live::None);
        lines.begun(first, &Live::None);
        assert!(lines.0.is_empty());
        let address = lines.open(second, &Live::None);
        lines.close(second);
        assert!(address.has_changed().is_err());
    }
}
