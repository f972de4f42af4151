//! Sending batches in chunks: every chunk is one transaction.

use std::future::Future;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::{self, BoxStream, StreamExt};
use tandem_types::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

/// Batches between the reader, the chunker and the connection: enough to keep all three busy.
pub const QUEUE_BATCHES: usize = 8;

/// Rows of a file, and where they are in it.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The file's place among those to load.
    pub file: usize,
    /// The number of the first row, from 0.
    pub first_row: u64,
    pub batch: RecordBatch,
}

impl Piece {
    /// The rows up to `rows`, and the others.
    fn cut(&self, rows: usize) -> (Self, Self) {
        let after = self.batch.slice(rows, self.batch.num_rows() - rows);
        let first = Self { batch: self.batch.slice(0, rows), ..self.clone() };
        (first, Self { batch: after, first_row: self.first_row + rows as u64, ..self.clone() })
    }
}

/// Which rows a chunk begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub file: usize,
    pub first_row: u64,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub rows: u64,
    /// An import before this one had committed it.
    pub already: bool,
}

/// Commits one stream of batches as one transaction.
pub trait Ingest {
    fn ingest(
        &self,
        chunk: Chunk,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch>>,
    ) -> impl Future<Output = Result<Loaded>> + Send;
}

/// Rows in the table, by who put them there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By this import.
    pub committed: u64,
    /// By one before it.
    pub already: u64,
}

impl Totals {
    fn add(&mut self, loaded: Loaded) {
        if loaded.already {
            self.already += loaded.rows;
        } else {
            self.committed += loaded.rows;
        }
    }

    /// All of them.
    pub fn rows(self) -> u64 {
        self.committed + self.already
    }
}

/// What failed, and what was committed before.
#[derive(Debug)]
pub struct LoadFailure {
    pub error: Error,
    /// Of the chunks before the one that failed.
    pub done: Totals,
    /// Whether the chunk that failed may have been committed all the same.
    pub uncertain: bool,
    /// Whether the files are at fault, so that they have to change before another try.
    pub unreadable: bool,
}

/// Sends all batches, `chunk_rows` rows to a transaction; a chunk also ends where the file ends or the columns change.
/// `tell` hears how many rows were sent.
pub async fn load(
    target: &impl Ingest,
    mut pieces: mpsc::Receiver<Result<Piece>>,
    chunk_rows: usize,
    mut tell: impl FnMut(u64),
) -> Result<Totals, LoadFailure> {
    let mut done = Totals::default();
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(piece) => Some(Ok(piece)),
            None => pieces.recv().await,
        };
        let first = match first {
            None => return Ok(done),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Err(LoadFailure { error, done, uncertain: false, unreadable: true }),
        };
        let chunk = Chunk { file: first.file, first_row: first.first_row };
        let (to_server, queue) = mpsc::channel(QUEUE_BATCHES);
        let stream = stream::unfold(queue, |mut queue| async { queue.recv().await.map(|b| (b, queue)) });
        let sending = target.ingest(chunk, first.batch.schema(), stream.boxed());
        let feeding = feed(first, &mut pieces, to_server, chunk_rows, |rows| tell(done.rows() + rows));
        let (outcome, fed) = futures::future::join(sending, feeding).await;
        match outcome {
            Ok(loaded) => done.add(loaded),
            Err(error) => {
                let unreadable = matches!(fed, Fed::Broken);
                let uncertain =
                    !unreadable && matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable);
                return Err(LoadFailure { error, done, uncertain, unreadable });
            }
        }
        if let Fed::UpTo(piece) = fed {
            next = Some(piece);
        }
    }
}

/// How a chunk's rows ended.
enum Fed {
    /// With the next chunk's first.
    UpTo(Piece),
    Whole,
    /// They could not be read on.
    Broken,
}

/// Passes on the batches of one chunk.
async fn feed(
    first: Piece,
    pieces: &mut mpsc::Receiver<Result<Piece>>,
    to_server: mpsc::Sender<Result<RecordBatch>>,
    chunk_rows: usize,
    mut tell: impl FnMut(u64),
) -> Fed {
    let (file, schema) = (first.file, first.batch.schema());
    let mut sent = 0;
    let mut piece = first;
    loop {
        let (now, rest) = piece.cut(piece.batch.num_rows().min(chunk_rows - sent));
        sent += now.batch.num_rows();
        // A closed channel means that the server has refused the chunk: its answer says why.
        if to_server.send(Ok(now.batch)).await.is_err() {
            return Fed::Whole;
        }
        tell(sent as u64);
        if rest.batch.num_rows() > 0 {
            return Fed::UpTo(rest);
        }
        if sent == chunk_rows {
            return Fed::Whole;
        }
        piece = match pieces.recv().await {
            None => return Fed::Whole,
            Some(Ok(next)) if next.file != file || next.batch.schema() != schema => return Fed::UpTo(next),
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                // Breaks the transaction, so that none of the chunk is committed.
                return match to_server.send(Err(error)).await {
                    Ok(()) => Fed::Broken,
                    Err(_) => Fed::Whole,
                };
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    /// Keeps each chunk's file, first row and rows; refuses chunk `fail_at`, and knows those of `before`.
    #[derive(Default)]
    struct Fake {
        chunks: Mutex<Vec<(usize, u64, u64)>>,
        fail_at: Option<usize>,
        before: Vec<(usize, u64, u64)>,
    }

    impl Ingest for Fake {
        async fn ingest(
            &self,
            chunk: Chunk,
            _: SchemaRef,
            mut batches: BoxStream<'static, Result<RecordBatch>>,
        ) -> Result<Loaded> {
            if self.fail_at == Some(self.chunks.lock().unwrap().len()) {
                return Err(Error::unavailable("gone"));
            }
            let mut rows = 0;
            while let Some(batch) = batches.next().await {
                rows += batch?.num_rows() as u64;
            }
            let told = (chunk.file, chunk.first_row, rows);
            if self.before.contains(&told) {
                return Ok(Loaded { rows, already: true });
            }
            self.chunks.lock().unwrap().push(told);
            Ok(Loaded { rows, already: false })
        }
    }

    fn piece(file: usize, first_row: u64, name: &str, rows: usize) -> Result<Piece> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
        Ok(Piece { file, first_row, batch: RecordBatch::try_from_iter([(name, column)]).unwrap() })
    }

    async fn run(fake: &Fake, pieces: Vec<Result<Piece>>, chunk: usize) -> Result<Totals, LoadFailure> {
        let (sender, receiver) = mpsc::channel(1);
        let feeding = async move {
            for piece in pieces {
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
        };
        futures::future::join(load(fake, receiver, chunk, |_| {}), feeding).await.0
    }

    #[tokio::test]
    async fn chunks_have_the_rows_asked_for_one_file_and_one_schema() {
        let fake = Fake::default();
        let pieces =
            vec![piece(0, 0, "a", 7), piece(0, 7, "a", 13), piece(0, 20, "b", 3), piece(0, 23, "b", 7)];
        assert_eq!(run(&fake, pieces, 10).await.unwrap(), Totals { committed: 30, already: 0 });
        assert_eq!(*fake.chunks.lock().unwrap(), [(0, 0, 10), (0, 10, 10), (0, 20, 10)]);
        let fake = Fake::default();
        run(&fake, vec![piece(0, 5, "a", 25), piece(1, 0, "a", 3)], 10).await.unwrap();
        assert_eq!(*fake.chunks.lock().unwrap(), [(0, 5, 10), (0, 15, 10), (0, 25, 5), (1, 0, 3)]);
    }

    #[tokio::test]
    async fn an_import_run_again_finds_what_the_first_one_committed() {
        let pieces = || vec![piece(0, 0, "a", 15), piece(0, 15, "a", 10), piece(1, 0, "a", 5)];
        let first = Fake { fail_at: Some(2), ..Default::default() };
        let failure = run(&first, pieces(), 10).await.unwrap_err();
        assert_eq!((failure.done, failure.uncertain), (Totals { committed: 20, already: 0 }, true));
        let before = first.chunks.into_inner().unwrap();
        let second = Fake { before, ..Default::default() };
        assert_eq!(run(&second, pieces(), 10).await.unwrap(), Totals { committed: 10, already: 20 });
        assert_eq!(*second.chunks.lock().unwrap(), [(0, 20, 5), (1, 0, 5)]);
    }

    #[tokio::test]
    async fn a_broken_source_commits_nothing_of_its_chunk() {
        let fake = Fake::default();
        let pieces = vec![piece(0, 0, "a", 10), piece(0, 10, "a", 5), Err(Error::invalid("f.csv:16: bad"))];
        let failure = run(&fake, pieces, 10).await.unwrap_err();
        assert_eq!((failure.done.committed, failure.uncertain, failure.unreadable), (10, false, true));
        assert_eq!(failure.error.message(), "f.csv:16: bad");
        assert_eq!(*fake.chunks.lock().unwrap(), [(0, 0, 10)]);
    }

    #[tokio::test]
    async fn a_refused_chunk_stops_the_import() {
        let fake = Fake { fail_at: Some(1), ..Default::default() };
        let many = (0..100).map(|i| piece(0, i * 10, "a", 10)).collect();
        let failure = run(&fake, many, 200).await.unwrap_err();
        assert_eq!((failure.done.committed, failure.uncertain, failure.unreadable), (200, true, false));
    }
}
