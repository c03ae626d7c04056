//! The log pipeline: bytes from a child's pipes become bounded lines in a file, a ring buffer and subscriptions.

/// How much of a child's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// A log file is rotated before it grows beyond this many bytes.
    pub max_size: u64,
    /// How many files are kept, the current one included. At least 1.
    pub keep: u32,
    /// The bytes of recent output held in memory for `tail` and followers.
    pub buffer: usize,
}

impl Default for LogSettings {
    /// Returns 5 files of 10 MiB and a 1 MiB buffer.
    fn default() -> Self {
        Self { max_size: 10 << 20, keep: 5, buffer: 1 << 20 }
    }
}
