//! In which batches changes leave, and where a reader could go on after each.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_schema::SchemaRef;
use tandem_env::{Clock, SystemClock};
use tandem_types::{Error, Result, Seq};
use tokio::sync::mpsc;

use super::told::{BATCH_ROWS, bytes};

/// Bytes after which a batch leaves.
const BATCH_BYTES: usize = 1 << 20;

/// Rows of the stream.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// May be empty: then it says how far the stream is.
    pub rows: RecordBatch,
    /// Every commit before it was told as a whole by the batches up to this one. Rows of it and of later commits that were
    /// told already are told again by a stream that begins there.
    pub next_seq: Seq,
}

/// From the walk to its reader.
#[derive(Debug)]
pub(super) enum Message {
    Batch(ChangeBatch),
    Failed(Error),
    /// Without it the walk was cut off.
    Done,
}

/// What stops a walk along the log.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody listens any more: no reason to complain, and none to go on.
    Closed,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Gathers small commits and hands on. A slow reader holds the walk up.
#[derive(Debug)]
pub(super) struct Out {
    schema: SchemaRef,
    sender: mpsc::Sender<Message>,
    held: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// All commits before it are told.
    next: Seq,
    /// As the last batch that left said it, and when that was.
    said: Seq,
    said_at: Duration,
}

impl Out {
    pub(super) fn new(schema: SchemaRef, sender: mpsc::Sender<Message>, next: Seq) -> Self {
        // Nothing was said yet; a stream without a single change still tells where it is.
        let said_at = SystemClock.monotonic();
        Self { schema, sender, held: Vec::new(), rows: 0, bytes: 0, next, said: Seq(0), said_at }
    }

    /// Rows of the commit that is being told.
    pub(super) async fn rows(&mut self, batch: RecordBatch) -> std::result::Result<(), Stop> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let size = bytes(&batch);
        // The last rows of a commit are held until it is known to be whole, so that they leave with a seq after it.
        if self.rows + batch.num_rows() > BATCH_ROWS || self.bytes + size > BATCH_BYTES {
            self.flush().await?;
        }
        self.rows += batch.num_rows();
        self.bytes += size;
        self.held.push(batch);
        Ok(())
    }

    /// All commits before `next` are told.
    pub(super) fn whole(&mut self, next: Seq) {
        self.next = self.next.max(next);
    }

    /// Hands on what is held.
    pub(super) async fn flush(&mut self) -> std::result::Result<(), Stop> {
        if self.held.is_empty() {
            return Ok(());
        }
        let rows = match self.held.as_slice() {
            [one] => one.clone(),
            many => concat_batches(&self.schema, many)
                .map_err(|e| Error::internal(format!("changes of several commits differ: {e}")))?,
        };
        self.held.clear();
        (self.rows, self.bytes) = (0, 0);
        self.send(rows).await
    }

    /// Whether more is told than was said.
    pub(super) fn is_ahead(&self) -> bool {
        self.next > self.said
    }

    /// How long ago the last batch left.
    pub(super) fn silent(&self) -> Duration {
        SystemClock.monotonic().saturating_sub(self.said_at)
    }

    /// Says how far the stream is, unless that was said.
    pub(super) async fn beat(&mut self) -> std::result::Result<(), Stop> {
        self.flush().await?;
        if self.is_ahead() { self.send(RecordBatch::new_empty(self.schema.clone())).await } else { Ok(()) }
    }

    async fn send(&mut self, rows: RecordBatch) -> std::result::Result<(), Stop> {
        (self.said, self.said_at) = (self.next, SystemClock.monotonic());
        let batch = ChangeBatch { rows, next_seq: self.next };
        self.sender.send(Message::Batch(batch)).await.map_err(|_| Stop::Closed)
    }

    /// Resolves when nobody listens any more.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// The last word.
    pub(super) async fn end(self, outcome: Result<()>) {
        let last = outcome.map_or_else(Message::Failed, |()| Message::Done);
        // Nobody listens: nothing to tell.
        let _ = self.sender.send(last).await;
    }
}
