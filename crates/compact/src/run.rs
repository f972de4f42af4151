//! Jobs, from inputs to one `Replace` whose outputs were read back and found equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_datafile::{
    Compression, FileMeta, FileWriter, FooterCache, RowDigest, WriteSpec, cast_to_schema, merge_sorted,
    read_batches, sort_batches,
};
use tandem_env::Env;
use tandem_format::{DataFile, FileName, ObjectName, Replace, SectionKey, data_path};
use tandem_manifest::{FileState, Manifest, Table, TailSection};
use tandem_segment::DecodedSection;
use tandem_types::{ColumnId, Error, Partition, PartitionUnit, Result, WriterId};
use tokio::sync::mpsc;

use crate::policy::Job;

/// Rows of a batch on its way from the merge to the writer.
const MERGE_ROWS: usize = 16 << 10;

/// Footers that are only read for the check after writing need not stay.
const CHECK_CACHE_BYTES: usize = 16 << 20;

/// How a job gets at the rows of a section.
pub type LoadSection = dyn Fn(TailSection) -> BoxFuture<'static, Result<Arc<DecodedSection>>> + Send + Sync;

/// What a job works with.
pub struct Inputs {
    pub env: Env,
    pub writer: WriterId,
    /// The state that the job was planned on.
    pub manifest: Arc<Manifest>,
    pub footers: Arc<FooterCache>,
    pub load: Arc<LoadSection>,
}

/// What jobs made.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub replace: Replace,
    pub rows: u64,
    /// Of the new files.
    pub bytes: u64,
}

/// Runs jobs on different partitions of one table. Nothing is visible until their `Replace` is committed; files of jobs
/// that fail are harmless.
pub async fn run(inputs: &Inputs, jobs: &[Job]) -> Result<Output> {
    let Some(first) = jobs.first() else {
        return Err(Error::internal("a compaction without jobs"));
    };
    let table = inputs.manifest.table(first.table).cloned().ok_or_else(|| {
        Error::not_found(format!("the table with id {} does not exist any more", first.table))
    })?;
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
    let tails = read_tails(inputs, jobs, &table).await?;
    for (job, tail) in jobs.iter().zip(tails) {
        let (sources, digests) = open_sources(inputs, job, &table, tail).await?;
        let merged = merge_sorted(sources, &sort_positions(&table)?, MERGE_ROWS);
        let files = write_files(inputs, job, &table, merged).await?;
        let read = digests.total()?;
        verify(inputs, &table, &files, &read).await?;
        output.rows += files.iter().map(|f| f.rows).sum::<u64>();
        output.bytes += files.iter().map(|f| f.size).sum::<u64>();
        output.replace.files.extend_from_slice(&job.files);
        output.replace.parts.extend_from_slice(&job.parts);
        output.replace.outputs.extend(files);
    }
    Ok(output)
}

/// A job's rows of the tail, not sorted yet, and their digest.
#[derive(Default)]
struct TailRows {
    batches: Vec<RecordBatch>,
    digest: RowDigest,
}

/// Reads each section once and cuts it into the partitions of the jobs.
async fn read_tails(inputs: &Inputs, jobs: &[Job], table: &Table) -> Result<Vec<TailRows>> {
    let mut wanted: BTreeMap<SectionKey, Vec<usize>> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        for part in &job.parts {
            if part.partition != job.partition {
                return Err(Error::internal("a job names rows of another partition than its own"));
            }
            wanted.entry(part.section).or_default().push(index);
        }
    }
    let mut tails: Vec<TailRows> = jobs.iter().map(|_| TailRows::default()).collect();
    let ids = ids(table);
    for (key, indices) in wanted {
        let gone = || Error::serialization("rows of the tail are gone");
        let section = table.tail_section(&key).ok_or_else(gone)?;
        let rows = (inputs.load)((**section).clone()).await?;
        let cast = |batch| cast_to_schema(batch, &section.section.columns, table.schema());
        let batches: Vec<RecordBatch> = rows.batches.iter().map(cast).collect::<Result<_>>()?;
        for index in indices {
            let (Some(job), Some(tail)) = (jobs.get(index), tails.get_mut(index)) else { continue };
            if !section.live.contains(&job.partition) {
                return Err(gone());
            }
            let before = tail.digest.rows;
            for batch in &batches {
                let batch = only_partition(batch.clone(), table, job, section)?;
                tail.digest.add(&batch, &ids)?;
                tail.batches.push(batch);
            }
            check_part(table, section, job.partition, tail.digest.rows - before)?;
        }
    }
    Ok(tails)
}

/// Digest of what was read: of the tail at once, of files as they stream by.
struct Digests {
    tail: RowDigest,
    files: mpsc::UnboundedReceiver<RowDigest>,
    expected_files: usize,
}

impl Digests {
    fn total(mut self) -> Result<RowDigest> {
        let mut total = self.tail;
        for _ in 0..self.expected_files {
            let file = self.files.try_recv();
            total.merge(
                &file.map_err(|_| Error::internal("an input of a compaction was not read to its end"))?,
            );
        }
        Ok(total)
    }
}

type Rows = BoxStream<'static, Result<RecordBatch>>;

/// Sorted streams: files oldest first, then the tail, so that equal keys stay in log order.
async fn open_sources(
    inputs: &Inputs,
    job: &Job,
    table: &Table,
    tail: TailRows,
) -> Result<(Vec<Rows>, Digests)> {
    let (done, files) = mpsc::unbounded_channel();
    let mut sources = Vec::new();
    for name in &job.files {
        let state = table.file(name).ok_or_else(|| gone(&name.object))?;
        sources.push(file_rows(inputs, table, state, done.clone()).await?);
    }
    if !tail.batches.is_empty() {
        let sort = sort_positions(table)?;
        let sorted = blocking(move || sort_batches(tail.batches, &sort)).await?;
        sources.push(stream::iter(sorted.into_iter().map(Ok)).boxed());
    }
    let expected_files = job.files.len();
    Ok((sources, Digests { tail: tail.digest, files, expected_files }))
}

async fn file_rows(
    inputs: &Inputs,
    table: &Table,
    state: &FileState,
    done: mpsc::UnboundedSender<RowDigest>,
) -> Result<Rows> {
    let path = data_path(table.id(), table.partition_by(), &state.file.name);
    let reader = inputs.footers.reader(
        inputs.env.store.objects(),
        &path,
        state.file.size,
        state.file.body_end,
        state.file.tail_crc32c,
    );
    let file = read_batches(reader, None, MERGE_ROWS).await?;
    let file_ids: Vec<ColumnId> = file.schema.columns.iter().map(|c| c.id).collect();
    let schema = table.schema().clone();
    let table_ids = ids(table);
    // Columns that were dropped since are in the file and not in the table: the cast leaves them out.
    let rows = file.stream.map(move |batch| cast_to_schema(&batch?, &file_ids, &schema));
    let start = (rows.boxed(), RowDigest::default(), table_ids, done);
    Ok(stream::try_unfold(start, |(mut rows, mut digest, ids, done)| async move {
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
    .boxed())
}

/// Rows of the job's partition; a section may span several.
fn only_partition(
    batch: RecordBatch,
    table: &Table,
    job: &Job,
    section: &TailSection,
) -> Result<RecordBatch> {
    let Some(timestamp) = table.timestamp() else {
        return Ok(batch);
    };
    if section.section.partitions.len() == 1 || table.partition_by() == PartitionUnit::None {
        return Ok(batch);
    }
    let position = table.schema().position(timestamp.id).unwrap_or_default();
    let unit = time_unit(&timestamp.data_type)?;
    let by = table.partition_by();
    let range = by.range(job.partition, unit);
    // An end that the unit cannot express was cut, and beyond the calendar partitions share one range.
    let exact = range.start != i64::MIN && range.end != i64::MAX;
    let belongs = |value: i64| match exact {
        true => range.start <= value && value < range.end,
        false => by.partition(value, unit) == job.partition,
    };
    let internal =
        |e: arrow_schema::ArrowError| Error::internal(format!("cutting a section by partitions: {e}"));
    let ticks = arrow::compute::cast(batch.column(position), &DataType::Int64).map_err(internal)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let within: BooleanArray =
        (0..ticks.len()).map(|row| Some(ticks.is_valid(row) && belongs(ticks.value(row)))).collect();
    filter_record_batch(&batch, &within).map_err(internal)
}

/// The log says how many rows of each partition a section has; another number means that rows were lost on the way here.
fn check_part(table: &Table, section: &TailSection, partition: Partition, found: u64) -> Result<()> {
    let listed =
        section.section.partitions.iter().find(|(p, _)| *p == partition).map_or(0, |(_, rows)| *rows);
    if found == listed {
        return Ok(());
    }
    let SectionKey { seq, transaction, section } = section.key;
    Err(Error::damaged(format!(
        "section {section} of transaction {transaction} in commit {seq} has {found} rows of table {} in partition {}, \
         the log says {listed}",
        table.name(),
        table.partition_by().label(partition)
    )))
}

fn time_unit(data_type: &DataType) -> Result<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) => Ok(*unit),
        other => Err(Error::internal(format!("the designated timestamp is {other}"))),
    }
}

/// When an output is closed.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// At about this many encoded bytes.
    Bytes(u64),
    /// At this many rows.
    Rows(u64),
}

impl Cut {
    /// What the tail becomes can only be estimated. Files are merged into as many as their bytes make full ones of, cut by
    /// rows: always fewer than they were, whatever an estimate says, so that merging comes to an end.
    fn of(job: &Job, table: &Table) -> Self {
        if !job.parts.is_empty() || job.files.is_empty() {
            return Self::Bytes(job.target_bytes);
        }
        let files = job.files.iter().filter_map(|name| table.file(name));
        let (rows, bytes) =
            files.fold((0u64, 0u64), |(rows, bytes), f| (rows + f.file.rows, bytes + f.file.size));
        Self::Rows(rows.div_ceil((bytes / job.target_bytes.max(1)).max(1)))
    }

    fn is_full(self, writer: &FileWriter) -> bool {
        match self {
            Self::Bytes(target) => writer.encoded_bytes() >= target,
            Self::Rows(rows) => writer.rows() >= rows,
        }
    }
}

/// Encodes on a thread of its own, since it is all computation, and stores each file as it is finished.
async fn write_files(inputs: &Inputs, job: &Job, table: &Table, mut rows: Rows) -> Result<Vec<DataFile>> {
    let spec = write_spec(table);
    let cut = Cut::of(job, table);
    let (to_writer, mut batches) = mpsc::channel::<RecordBatch>(2);
    let (finished, mut files) = mpsc::channel::<(Vec<Bytes>, FileMeta)>(1);
    let encode = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut writer: Option<FileWriter> = None;
        while let Some(batch) = batches.blocking_recv() {
            let open = match &mut writer {
                Some(open) => open,
                None => writer.insert(FileWriter::new(&spec)?),
            };
            open.write(&batch)?;
            if cut.is_full(open)
                && let Some(full) = writer.take()
                && finished.blocking_send(full.finish()?).is_err()
            {
                return Ok(());
            }
        }
        if let Some(last) = writer {
            // Nobody listens any more if storing an earlier file failed.
            let _ = finished.blocking_send(last.finish()?);
        }
        Ok(())
    });
    let feed = async move {
        while let Some(batch) = rows.try_next().await? {
            if batch.num_rows() > 0 && to_writer.send(batch).await.is_err() {
                break;
            }
        }
        drop(to_writer);
        Ok::<(), Error>(())
    };
    let store = async {
        let mut stored = Vec::new();
        while let Some((bytes, meta)) = files.recv().await {
            stored.push(store_file(inputs, job, table, bytes, &meta).await?);
        }
        // Closed early only on an error, which then stops the encoder.
        Ok::<_, Error>(stored)
    };
    let ((), stored) = futures::future::try_join(feed, store).await?;
    encode.await.map_err(|e| Error::internal(format!("encoding a data file: {e}")))??;
    Ok(stored)
}

async fn store_file(
    inputs: &Inputs,
    job: &Job,
    table: &Table,
    bytes: Vec<Bytes>,
    meta: &FileMeta,
) -> Result<DataFile> {
    let object = ObjectName {
        base: inputs.manifest.seq(),
        writer: inputs.writer,
        random: inputs.env.chance.next_u64(),
    };
    let name = FileName { partition: job.partition, object };
    let path = data_path(table.id(), table.partition_by(), &name);
    inputs.env.store.create_data(&path, bytes).await?;
    Ok(DataFile {
        name,
        rows: meta.rows,
        size: meta.size,
        body_end: meta.body_end,
        tail_crc32c: meta.tail_crc32c,
        time: meta.time,
        folded_through: inputs.manifest.seq(),
        level: job.level,
    })
}

/// Reads the outputs as they were stored and compares them with what was read.
async fn verify(inputs: &Inputs, table: &Table, files: &[DataFile], expected: &RowDigest) -> Result<()> {
    let cache = FooterCache::new(CHECK_CACHE_BYTES);
    let ids = ids(table);
    let mut found = RowDigest::default();
    for file in files {
        let path = data_path(table.id(), table.partition_by(), &file.name);
        let reader =
            cache.reader(inputs.env.store.objects(), &path, file.size, file.body_end, file.tail_crc32c);
        let mut batches = read_batches(reader, None, MERGE_ROWS).await?.stream;
        while let Some(batch) = batches.try_next().await? {
            found.add(&batch, &ids)?;
        }
    }
    if found != *expected {
        return Err(Error::internal(format!(
            "compacting table {} would have changed its rows: read {} rows with digest {:032x}, wrote {} with {:032x}; \
             nothing was committed",
            table.name(),
            expected.rows,
            expected.sum,
            found.rows,
            found.sum
        )));
    }
    Ok(())
}

fn write_spec(table: &Table) -> WriteSpec {
    let compression = match table.option("compression") {
        Some("lz4") => Compression::Lz4,
        Some("none") => Compression::None,
        _ => Compression::default(),
    };
    WriteSpec {
        schema: table.schema().clone(),
        timestamp: table.timestamp().map(|c| c.id),
        sort: table.order_by().to_vec(),
        compression,
        extra_metadata: vec![("tandem:table".to_owned(), table.id().to_string())],
    }
}

fn ids(table: &Table) -> Vec<ColumnId> {
    table.schema().columns.iter().map(|c| c.id).collect()
}

fn sort_positions(table: &Table) -> Result<Vec<usize>> {
    let position = |id: &ColumnId| {
        table.schema().position(*id).ok_or_else(|| Error::internal(format!("sort column {id} is gone")))
    };
    table.order_by().iter().map(position).collect()
}

fn gone(object: &ObjectName) -> Error {
    Error::serialization(format!("data file {object} is gone"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("compaction: {e}")))?
}
