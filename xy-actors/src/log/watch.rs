//! A look at every line of one incarnation, taken on the log thread.

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::record::Stream;

/// A line as a [`LineWatch`] sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WatchedLine<'a> {
    /// Standard output or standard error.
    pub stream: Stream,
    /// The bytes as the child wrote them, without the newline.
    pub bytes: &'a [u8],
    /// Whether no newline followed: the line goes on in the stream's next line, or the stream ended here.
    pub partial: bool,
}

/// Is shown every line of one incarnation from its first byte on, whatever memory and followers do; see
/// [`Log::attach_watched`](super::Log::attach_watched).
///
/// It runs on the log thread, which reads for all children of the hub: it must be quick and must not wait. It is
/// dropped when it answers [`ControlFlow::Break`], when it panics, and when the output of its incarnation has ended; a
/// sender that it owns tells a receiver of that.
///
/// ```
/// use std::ops::ControlFlow;
/// use xy_actors::log::LineWatch;
///
/// let (found, mut is_ready) = tokio::sync::oneshot::channel();
/// let mut found = Some(found);
/// let watch = LineWatch::new(move |line| {
///     if !line.bytes.starts_with(b"listening on ") {
///         return ControlFlow::Continue(());
///     }
///     if let Some(found) = found.take() {
///         let _nobody_waits = found.send(());
///     }
///     ControlFlow::Break(())
/// });
/// # let _ = (watch, is_ready.try_recv());
/// ```
pub struct LineWatch(Box<dyn FnMut(WatchedLine<'_>) -> ControlFlow<()> + Send>);

impl LineWatch {
    /// Creates a watch that calls `see` for each line until it breaks.
    pub fn new(see: impl FnMut(WatchedLine<'_>) -> ControlFlow<()> + Send + 'static) -> Self {
        Self(Box::new(see))
    }

    /// Shows it a line; returns whether it wants to see more. A panic is a no, so that it ends no other child's log.
    pub(super) fn see(&mut self, stream: Stream, bytes: &[u8], partial: bool) -> bool {
        let line = WatchedLine { stream, bytes, partial };
        // What panicked is dropped and not called again.
        match catch_unwind(AssertUnwindSafe(|| (self.0)(line))) {
            Ok(flow) => flow.is_continue(),
            Err(_) => {
                tracing::error!("a watch of log lines panicked");
                false
            }
        }
    }
}

impl fmt::Debug for LineWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWatch").finish_non_exhaustive()
    }
}
