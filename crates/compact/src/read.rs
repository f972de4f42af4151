//! Rows as a query at a state sees them: pending mutations applied, rows of equal keys folded.
//!
//! Compaction reads its inputs so, and whoever wants a table's rows without a query engine. Everything is read by column
//! id and comes out as the table declares its columns.
//!
//! ```text
//!  files ──cast──▶ mutate ────────────────────────────────┐
//!    └ keyed, and the tail has the key ─▶┐                ├─▶ sorted streams of rows
//!  tail ──cut by partition, cast────────▶ fold or mutate ─┘
//! ```

mod files;
mod keyed;
mod lens;
mod tail;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use tandem_datafile::{FooterCache, RowDigest, sort_batches};
use tandem_format::{FileName, ObjectName, SectionPart};
use tandem_manifest::{Table, TailSection};
use tandem_segment::DecodedSection;
use tandem_types::{ColumnId, Error, Partition, Result};
use tokio::sync::mpsc;

use lens::{Lens, View};
pub(crate) use tail::TailRows;

/// How one gets at the rows of a section.
pub type LoadSection = dyn Fn(TailSection) -> BoxFuture<'static, Result<Arc<DecodedSection>>> + Send + Sync;

/// Rows that come batch by batch.
pub type Rows = BoxStream<'static, Result<RecordBatch>>;

/// Rows of a batch that files are read in, at most …
const BATCH_ROWS: usize = 16 << 10;
/// … and at least, however many files are read at once …
const BATCH_ROWS_MIN: usize = 1 << 10;
/// … so that all of them together hold no more than about this many rows in memory.
const OPEN_ROWS: usize = 1 << 20;

/// Where data is.
#[derive(Clone)]
pub struct Source {
    pub objects: Arc<dyn ObjectStore>,
    pub footers: Arc<FooterCache>,
    pub load: Arc<LoadSection>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Files and rows of the tail of one partition. Of a keyed table a selection must be closed; see [`Job`](crate::Job).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    pub partition: Partition,
    /// Oldest first, so that rows with equal sort keys stay in log order.
    pub files: Vec<FileName>,
    /// In log order.
    pub parts: Vec<SectionPart>,
}

impl Selection {
    /// All of a partition.
    pub fn all(table: &Table, partition: Partition) -> Self {
        let mut files: Vec<_> = table.files().filter(|f| f.file.name.partition == partition).collect();
        files.sort_unstable_by_key(|f| (f.created, f.file.name));
        let live = table.tail().filter(|t| t.live.contains(&partition));
        Self {
            partition,
            files: files.into_iter().map(|f| f.file.name).collect(),
            parts: live.map(|t| SectionPart { section: t.key, partition }).collect(),
        }
    }
}

/// The partitions that a table has rows of.
pub fn partitions(table: &Table) -> BTreeSet<Partition> {
    let files = table.files().map(|f| f.file.name.partition);
    files.chain(table.tail().flat_map(|t| t.live.iter().copied())).collect()
}

/// The rows of a selection as a query at the table's state sees them, in no particular order. The rows of its tail are
/// in memory at once.
///
/// # Errors
///
/// `Damaged` for objects that are missing or were changed, `Serialization` if the table lacks what is selected.
pub async fn rows(source: &Source, table: &Table, selection: &Selection) -> Result<Rows> {
    let reader = Reader::new(source, table, std::slice::from_ref(selection)).await?;
    let tail = reader.tails(std::slice::from_ref(selection), Share::ALL).await?.pop().unwrap_or_default();
    let Opened { streams, .. } = reader.open(selection, tail, Share::ALL).await?;
    Ok(stream::iter(streams).flatten().boxed())
}

/// All rows of a table at once, for small ones.
pub async fn table_rows(source: &Source, table: &Table) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for partition in partitions(table) {
        let rows = rows(source, table, &Selection::all(table, partition)).await?;
        batches.extend(rows.try_collect::<Vec<_>>().await?);
    }
    Ok(batches)
}

/// One of several shares of a table's keys, of about equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub index: u32,
    pub of: u32,
}

impl Share {
    pub const ALL: Self = Self { index: 0, of: 1 };

    pub fn is_all(self) -> bool {
        self.of <= 1
    }
}

/// Reads selections of one table.
pub(crate) struct Reader<'a> {
    source: &'a Source,
    table: &'a Table,
    lens: Arc<Lens>,
}

/// A selection's rows, on their way.
pub(crate) struct Opened {
    /// Each sorted by the table's sort key, if `sorted`; those with older rows first.
    pub streams: Vec<Rows>,
    pub sorted: bool,
    pub tally: Tally,
}

impl<'a> Reader<'a> {
    /// Binds the mutations that act on any of the selections.
    pub async fn new(source: &'a Source, table: &'a Table, selections: &[Selection]) -> Result<Self> {
        let lens = Arc::new(Lens::new(source, table, selections).await?);
        Ok(Self { source, table, lens })
    }

    /// Opens a selection, given the rows of its tail.
    pub async fn open(&self, selection: &Selection, tail: TailRows, share: Share) -> Result<Opened> {
        let tally = Tally::new();
        let batch_rows = (OPEN_ROWS / selection.files.len().max(1)).clamp(BATCH_ROWS_MIN, BATCH_ROWS);
        let mut opened = Opened { streams: Vec::new(), sorted: true, tally };
        let folded = if self.table.is_keyed() {
            self.open_keyed(selection, tail, share, batch_rows, &mut opened).await?
        } else {
            for name in &selection.files {
                let file = self.file(name)?;
                let rows = self.file_rows(file, View::Wide, batch_rows).await?;
                self.add_file(&mut opened, file, rows)?;
            }
            let lens = self.lens.clone();
            blocking(move || tail.mutated(&lens)).await?
        };
        if !folded.is_empty() {
            let sort = self.lens.sort_positions(self.table)?;
            let sorted = blocking(move || sort_batches(folded, &sort)).await?;
            let rows = stream::iter(sorted.into_iter().map(Ok)).boxed();
            opened.streams.push(opened.tally.count(rows, self.ids()));
        }
        Ok(opened)
    }

    /// The ids of the table's columns.
    fn ids(&self) -> Vec<ColumnId> {
        self.table.schema().columns.iter().map(|c| c.id).collect()
    }
}

/// What went by: every row is counted once, and no stream may end early.
#[derive(Debug)]
pub(crate) struct Tally {
    done: mpsc::UnboundedSender<RowDigest>,
    counted: mpsc::UnboundedReceiver<RowDigest>,
    streams: usize,
}

impl Tally {
    fn new() -> Self {
        let (done, counted) = mpsc::unbounded_channel();
        Self { done, counted, streams: 0 }
    }

    fn count(&mut self, rows: Rows, ids: Vec<ColumnId>) -> Rows {
        self.streams += 1;
        let start = (rows, RowDigest::default(), ids, self.done.clone());
        stream::try_unfold(start, |(mut rows, mut digest, ids, done)| async move {
            match rows.try_next().await? {
                Some(batch) => {
                    digest.add(&batch, &ids)?;
                    Ok(Some((batch, (rows, digest, ids, done))))
                }
                None => {
                    // The receiver only goes away with the job.
                    let _ = done.send(digest);
                    Ok(None)
                }
            }
        })
        .boxed()
    }

    /// The digest of all rows, once all streams were read to their ends.
    pub fn total(mut self) -> Result<RowDigest> {
        let mut total = RowDigest::default();
        for _ in 0..self.streams {
            let stream = self.counted.try_recv();
            let unread = |_| Error::internal("an input of a compaction was not read to its end");
            total.merge(&stream.map_err(unread)?);
        }
        Ok(total)
    }
}

pub(crate) fn file_gone(object: &ObjectName) -> Error {
    Error::serialization(format!("data file {object} is gone"))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("compaction: {e}")))?
}
