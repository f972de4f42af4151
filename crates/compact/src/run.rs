//! Jobs, from inputs to one `Replace` whose outputs were read back and found equal.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_datafile::{FooterCache, RowDigest, merge_sorted, sort_batches};
use tandem_env::Env;
use tandem_format::{DataFile, Replace};
use tandem_manifest::{Manifest, Table};
use tandem_types::{Error, Result, WriterId};

use crate::policy::Job;
use crate::read::{LoadSection, Opened, Reader, Rows, Selection, Share, Source, blocking};
use crate::write::{Item, verify, write_files};

/// Rows of a batch on its way from the merge to the writer.
const MERGE_ROWS: usize = 16 << 10;

/// Rows that lost their order are sorted so many bytes at a time, as they are in memory.
const SORT_BYTES: usize = 256 << 20;

/// What a job works with.
pub struct Inputs {
    pub env: Env,
    pub writer: WriterId,
    /// The state that the job was planned on.
    pub manifest: Arc<Manifest>,
    pub footers: Arc<FooterCache>,
    pub load: Arc<LoadSection>,
}

impl Inputs {
    fn source(&self) -> Source {
        Source { objects: self.env.store.objects(), footers: self.footers.clone(), load: self.load.clone() }
    }
}

/// What jobs made.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub replace: Replace,
    pub rows: u64,
    /// Of the new files.
    pub bytes: u64,
}

/// Runs jobs of one table that share no input. Nothing is visible until their `Replace` is committed; files of jobs
/// that fail are harmless.
///
/// The outputs are what a query at the base sees of the inputs: they are folded through it. There may be none, where
/// every row was deleted.
pub async fn run(inputs: &Inputs, jobs: &[Job]) -> Result<Output> {
    let Some(first) = jobs.first() else {
        return Err(Error::internal("a compaction without jobs"));
    };
    let table = inputs.manifest.table(first.table).cloned().ok_or_else(|| {
        Error::not_found(format!("the table with id {} does not exist any more", first.table))
    })?;
    let source = inputs.source();
    let selections: Vec<Selection> = jobs.iter().map(selection).collect();
    let reader = Reader::new(&source, &table, &selections).await?;
    let mut output = Output {
        replace: Replace {
            table: first.table,
            base: inputs.manifest.seq(),
            files: Vec::new(),
            parts: Vec::new(),
            outputs: Vec::new(),
        },
        rows: 0,
        bytes: 0,
    };
    let shares =
        if table.is_keyed() { jobs.iter().map(|job| job.slices.max(1)).max().unwrap_or(1) } else { 1 };
    for index in 0..shares {
        let share = Share { index, of: shares };
        let tails = reader.tails(&selections, share).await?;
        for ((job, selection), tail) in jobs.iter().zip(&selections).zip(tails) {
            let opened = reader.open(selection, tail, share).await?;
            let (files, digest) = write(inputs, job, &table, opened).await?;
            verify(inputs, &table, &files, &digest).await?;
            output.rows += files.iter().map(|f| f.rows).sum::<u64>();
            output.bytes += files.iter().map(|f| f.size).sum::<u64>();
            output.replace.outputs.extend(files);
        }
    }
    for job in jobs {
        output.replace.files.extend_from_slice(&job.files);
        output.replace.parts.extend_from_slice(&job.parts);
    }
    Ok(output)
}

fn selection(job: &Job) -> Selection {
    Selection { partition: job.partition, files: job.files.clone(), parts: job.parts.clone() }
}

/// Merges and writes; answers with the digest of what was read.
async fn write(
    inputs: &Inputs,
    job: &Job,
    table: &Table,
    opened: Opened,
) -> Result<(Vec<DataFile>, RowDigest)> {
    let Opened { streams, sorted, tally } = opened;
    if streams.is_empty() {
        return Ok((Vec::new(), tally.total()?));
    }
    let sort = sort_positions(table)?;
    let items = match sorted {
        true => merge_sorted(streams, &sort, MERGE_ROWS).map_ok(Item::Rows).boxed(),
        false => sorted_runs(stream::iter(streams).flatten().boxed(), sort),
    };
    let files = write_files(inputs, job, table, items).await?;
    Ok((files, tally.total()?))
}

/// Rows in any order as runs that are sorted, with a break after each.
fn sorted_runs(rows: Rows, sort: Vec<usize>) -> BoxStream<'static, Result<Item>> {
    let runs = stream::try_unfold((rows, sort), |(mut rows, sort)| async move {
        let mut run: Vec<RecordBatch> = Vec::new();
        let mut bytes = 0;
        while bytes < SORT_BYTES
            && let Some(batch) = rows.try_next().await?
        {
            bytes += batch.get_array_memory_size();
            run.push(batch);
        }
        if run.is_empty() {
            return Ok::<_, Error>(None);
        }
        let by = sort.clone();
        let sorted = blocking(move || sort_batches(run, &by)).await?;
        let items: Vec<Result<Item>> =
            sorted.into_iter().map(Item::Rows).chain([Item::Break]).map(Ok).collect();
        Ok(Some((stream::iter(items), (rows, sort))))
    });
    runs.try_flatten().boxed()
}

fn sort_positions(table: &Table) -> Result<Vec<usize>> {
    let position = |id: &tandem_types::ColumnId| {
        table.schema().position(*id).ok_or_else(|| Error::internal(format!("sort column {id} is gone")))
    };
    table.order_by().iter().map(position).collect()
}
