//! Sending batches in chunks: every chunk is one transaction.

use std::future::Future;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::{self, BoxStream, StreamExt};
use tandem_types::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

/// Batches between the reader, the chunker and the connection: enough to keep all three busy.
pub const QUEUE_BATCHES: usize = 8;

/// Commits one stream of batches as one transaction; returns its rows.
pub trait Ingest {
    fn ingest(
        &self,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch>>,
    ) -> impl Future<Output = Result<u64>> + Send;
}

/// What failed, and what was committed before.
#[derive(Debug)]
pub struct LoadFailure {
    pub error: Error,
    /// Rows of the chunks that were committed.
    pub committed: u64,
    /// Whether the chunk that failed may have been committed all the same.
    pub uncertain: bool,
}

/// Sends all batches, `chunk_rows` rows to a transaction; a chunk also ends where the columns change.
/// `tell` hears how many rows were sent. Returns the rows committed.
pub async fn load(
    target: &impl Ingest,
    mut batches: mpsc::Receiver<Result<RecordBatch>>,
    chunk_rows: usize,
    mut tell: impl FnMut(u64),
) -> Result<u64, LoadFailure> {
    let mut committed = 0;
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(batch) => Some(Ok(batch)),
            None => batches.recv().await,
        };
        let first = match first {
            None => return Ok(committed),
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return Err(LoadFailure { error, committed, uncertain: false }),
        };
        let (to_server, queue) = mpsc::channel(QUEUE_BATCHES);
        let stream = stream::unfold(queue, |mut queue| async { queue.recv().await.map(|b| (b, queue)) });
        let sending = target.ingest(first.schema(), stream.boxed());
        let feeding = feed(first, &mut batches, to_server, chunk_rows, |rows| tell(committed + rows));
        let (outcome, left) = futures::future::join(sending, feeding).await;
        match outcome {
            Ok(rows) => committed += rows,
            Err(error) => {
                let uncertain = matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable);
                return Err(LoadFailure { error, committed, uncertain });
            }
        }
        next = left;
    }
}

/// Passes on the batches of one chunk; returns the beginning of the next one.
async fn feed(
    first: RecordBatch,
    batches: &mut mpsc::Receiver<Result<RecordBatch>>,
    to_server: mpsc::Sender<Result<RecordBatch>>,
    chunk_rows: usize,
    mut tell: impl FnMut(u64),
) -> Option<RecordBatch> {
    let schema = first.schema();
    let mut sent = 0;
    let mut batch = first;
    loop {
        let room = chunk_rows - sent;
        let rows = batch.num_rows().min(room);
        let rest = batch.slice(rows, batch.num_rows() - rows);
        // A closed channel means that the server has refused the chunk: its answer says why.
        to_server.send(Ok(batch.slice(0, rows))).await.ok()?;
        sent += rows;
        tell(sent as u64);
        if rest.num_rows() > 0 {
            return Some(rest);
        }
        if sent == chunk_rows {
            return None;
        }
        batch = match batches.recv().await? {
            Ok(next) if next.schema() != schema => return Some(next),
            Ok(next) => next,
            Err(error) => {
                // Breaks the transaction, so that none of the chunk is committed.
                to_server.send(Err(error)).await.ok()?;
                return None;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    /// Keeps the rows of each chunk; refuses chunk `fail_at`.
    #[derive(Default)]
    struct Fake {
        chunks: Mutex<Vec<u64>>,
        fail_at: Option<usize>,
    }

    impl Ingest for Fake {
        async fn ingest(
            &self,
            _: SchemaRef,
            mut batches: BoxStream<'static, Result<RecordBatch>>,
        ) -> Result<u64> {
            if self.fail_at == Some(self.chunks.lock().unwrap().len()) {
                return Err(Error::unavailable("gone"));
            }
            let mut rows = 0;
            while let Some(batch) = batches.next().await {
                rows += batch?.num_rows() as u64;
            }
            self.chunks.lock().unwrap().push(rows);
            Ok(rows)
        }
    }

    fn batch(name: &str, rows: usize) -> Result<RecordBatch> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
        Ok(RecordBatch::try_from_iter([(name, column)]).unwrap())
    }

    async fn run(fake: &Fake, batches: Vec<Result<RecordBatch>>, chunk: usize) -> Result<u64, LoadFailure> {
        let (sender, receiver) = mpsc::channel(1);
        let feeding = async move {
            for batch in batches {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        };
        futures::future::join(load(fake, receiver, chunk, |_| {}), feeding).await.0
    }

    #[tokio::test]
    async fn chunks_have_the_rows_asked_for_and_one_schema() {
        let fake = Fake::default();
        let batches = vec![batch("a", 7), batch("a", 13), batch("b", 3), batch("b", 7)];
        assert_eq!(run(&fake, batches, 10).await.unwrap(), 30);
        assert_eq!(*fake.chunks.lock().unwrap(), [10, 10, 10]);
        let fake = Fake::default();
        run(&fake, vec![batch("a", 25), batch("b", 3)], 10).await.unwrap();
        assert_eq!(*fake.chunks.lock().unwrap(), [10, 10, 5, 3]);
    }

    #[tokio::test]
    async fn a_broken_source_commits_nothing_of_its_chunk() {
        let fake = Fake::default();
        let batches = vec![batch("a", 10), batch("a", 5), Err(Error::invalid("f.csv:16: bad"))];
        let failure = run(&fake, batches, 10).await.unwrap_err();
        assert_eq!((failure.committed, failure.uncertain), (10, false));
        assert_eq!(failure.error.message(), "f.csv:16: bad");
        assert_eq!(*fake.chunks.lock().unwrap(), [10]);
    }

    #[tokio::test]
    async fn a_refused_chunk_stops_the_import() {
        let fake = Fake { fail_at: Some(1), ..Default::default() };
        let many = (0..100).map(|_| batch("a", 10)).collect();
        let failure = run(&fake, many, 200).await.unwrap_err();
        assert_eq!((failure.committed, failure.uncertain), (200, true));
    }
}
