//! Tells the actor of one process, once, that its main process has ended. No task waits for that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use ractor::ActorRef;

use super::{Helper, ProcessMessage, tell};
use crate::child::panic_text;
use crate::process::OsProcess;

/// The wait for the end of a process; over when dropped.
pub(super) struct Waiter(Arc<Teller>);

impl Waiter {
    /// Begins to wait.
    pub(super) fn begin(process: &Arc<OsProcess>, myself: &ActorRef<ProcessMessage>) -> Self {
        let teller = Teller {
            // Whoever watches for the end keeps this as long as there is the process.
            process: Arc::downgrade(process),
            myself: myself.clone(),
            is_over: AtomicBool::new(false),
            #[cfg(feature = "testkit")]
            is_planted: crate::testkit::has_planted_panic(process.label(), Helper::Waiter),
        };
        let teller = Arc::new(teller);
        Arc::clone(&teller).wake();
        Self(teller)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

struct Teller {
    process: Weak<OsProcess>,
    myself: ActorRef<ProcessMessage>,
    is_over: AtomicBool,
    #[cfg(feature = "testkit")]
    is_planted: bool,
}

impl Teller {
    /// Looks whether the process has ended, and is woken again when it has.
    fn look(self: &Arc<Self>) -> Option<ProcessMessage> {
        #[cfg(feature = "testkit")]
        assert!(!self.is_planted, "planted by a test");
        let exit = self.process.upgrade()?.exited_or_wake(&Waker::from(Arc::clone(self)))?;
        Some(ProcessMessage::MainExited(exit))
    }
}

impl Wake for Teller {
    fn wake(self: Arc<Self>) {
        if self.is_over.load(Ordering::Acquire) {
            return;
        }
        // One that panicked would take the watch over all others with it.
        let looked = catch_unwind(AssertUnwindSafe(|| self.look()));
        let said = looked
            .unwrap_or_else(|payload| Some(ProcessMessage::Panicked(Helper::Waiter, panic_text(&*payload))));
        // It may be woken by two at once, and tells once.
        if let Some(message) = said
            && !self.is_over.swap(true, Ordering::AcqRel)
        {
            tell(&self.myself, message);
        }
    }
}
