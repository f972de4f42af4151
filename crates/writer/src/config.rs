//! Settings of a node's write path: plain data.

use std::time::Duration;

use tandem_format::Primary;
use tandem_log::ApplyLimit;

/// Bounds and waits of the write path.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// `commit.window`: how long a group waits for company before it is committed.
    pub window: Duration,
    /// `commit.inline_bytes`: sections that ride in one commit, at most; larger ones go to segments.
    pub inline_bytes: u64,
    /// Bytes that may wait for their commit; who sends more waits.
    pub queue_bytes: usize,
    /// A stream is cut into sections of about this many bytes.
    pub section_bytes: usize,
    /// How often the log is asked for others' commits while nothing is to be written: as long apart as `poll` while
    /// none come or peers push them, down to `poll_min` while there are some.
    pub poll: Duration,
    pub poll_min: Duration,
    /// Decoded tail sections kept in memory.
    pub tail_cache_bytes: usize,
    /// Commits that were applied last, kept as they are stored for followers and readers.
    pub recent_bytes: usize,
    /// How far the log is applied; only a replica may have a limit.
    pub limit: ApplyLimit,
    /// Whether writes that this node may not commit are taken all the same, to be committed by one that may.
    pub forward: bool,
    /// As whom promotions name this node; `None`: it cannot be promoted.
    pub identity: Option<Primary>,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            window: Duration::ZERO,
            inline_bytes: 8 << 20,
            queue_bytes: 64 << 20,
            section_bytes: 16 << 20,
            poll: Duration::from_secs(1),
            poll_min: Duration::from_millis(50),
            tail_cache_bytes: 128 << 20,
            recent_bytes: 64 << 20,
            limit: ApplyLimit::default(),
            forward: false,
            identity: None,
        }
    }
}
