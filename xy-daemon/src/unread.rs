//! Bytes that wait for clients to read them: counted on all connections of a surface together, and bounded.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// The most bytes of answers and notifications that wait for clients to read them, on all connections of a surface
/// together. Beyond, the connection with the most of them is closed.
pub const MAX_UNREAD: usize = 16 << 20;

/// What all connections of a surface leave unread.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    bytes: AtomicUsize,
    debtors: Mutex<Vec<Weak<Debtor>>>,
}

/// What one connection leaves unread, and whether it has to go for that.
#[derive(Debug, Default)]
struct Debtor {
    bytes: AtomicUsize,
    is_given_up: AtomicBool,
    give_up: Notify,
}

/// The account of one connection. Clones are of the same one.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    unread: Arc<Unread>,
    debtor: Arc<Debtor>,
}

impl Unread {
    /// Opens the account of one connection.
    pub(crate) fn join(self: &Arc<Self>) -> Account {
        let debtor = Arc::new(Debtor::default());
        let mut debtors = self.debtors.lock().unwrap_or_else(PoisonError::into_inner);
        // Not at each call, which would look at all of them each time.
        if debtors.len() == debtors.capacity() {
            debtors.retain(|one| one.strong_count() > 0);
        }
        debtors.push(Arc::downgrade(&debtor));
        Account { unread: Arc::clone(self), debtor }
    }

    fn give_up_the_greediest(&self) {
        // Each critical section leaves a whole list behind.
        let debtors = self.debtors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<_> = debtors.iter().filter_map(Weak::upgrade).collect();
        drop(debtors);
        // What those have who are given up already is about to be free.
        open.retain(|one| !one.is_given_up.load(Ordering::Relaxed));
        let bytes = |one: &Arc<Debtor>| one.bytes.load(Ordering::Relaxed);
        let is_short = open.iter().map(bytes).sum::<usize>() > MAX_UNREAD;
        if let Some(most) = open.iter().max_by_key(|one| bytes(one)).filter(|_| is_short) {
            tracing::warn!("a connection was closed: its client does not read, and others need the memory");
            most.is_given_up.store(true, Ordering::Relaxed);
            most.give_up.notify_one();
        }
    }
}

impl Account {
    /// Counts bytes as unread until the value is dropped. If there are too many, whoever has the most of them is given up.
    pub(crate) fn hold(&self, bytes: usize) -> Held {
        self.debtor.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.unread.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_UNREAD {
            self.unread.give_up_the_greediest();
        }
        Held { account: self.clone(), bytes }
    }

    /// Waits until this connection is to be closed, because others need the memory.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; for one waiter at a time.
    pub(crate) async fn given_up(&self) {
        self.debtor.give_up.notified().await;
    }
}

/// Bytes that wait for a client to read them.
#[derive(Debug)]
pub(crate) struct Held {
    account: Account,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.unread.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.debtor.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_memory_is_short_whoever_leaves_most_unread_is_given_up_and_nobody_else() {
        let unread = Arc::new(Unread::default());
        let [modest, greedy, later] = [(); 3].map(|()| unread.join());
        let given_up =
            || [&modest, &greedy, &later].map(|one| one.debtor.is_given_up.load(Ordering::Relaxed));
        let third = MAX_UNREAD / 3;
        let held = [modest.hold(third), greedy.hold(2 * third)];
        assert_eq!(given_up(), [false; 3], "there is room for this");
        let small = later.hold(10);
        assert_eq!(given_up(), [false, true, false]);
        // Until its memory is free it does not cost a second one its connection.
        let more = later.hold(third);
        assert_eq!(given_up(), [false, true, false]);
        drop((held, small, more));
        assert_eq!(unread.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(greedy.debtor.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn connections_that_are_over_are_not_kept() {
        let unread = Arc::new(Unread::default());
        for _ in 0..10_000 {
            unread.join();
        }
        assert!(unread.debtors.lock().expect("no panic").capacity() < 100);
    }
}
