//! Outputs: encoded, stored, read back.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use arrow_schema::{ArrowError, DataType};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tandem_datafile::{Compression, FileMeta, FileWriter, FooterCache, RowDigest, WriteSpec, read_batches};
use tandem_format::{DataFile, FileName, ObjectName, data_path};
use tandem_manifest::Table;
use tandem_types::{ColumnId, Error, Result};
use tokio::sync::mpsc;

use crate::policy::Job;
use crate::run::Inputs;

/// Rows of a batch that is read back.
const CHECK_ROWS: usize = 16 << 10;

/// Footers that are only read for the check after writing need not stay.
const CHECK_CACHE_BYTES: usize = 16 << 20;

/// What goes into files.
pub(crate) enum Item {
    /// Rows that follow those before in the order of the sort key.
    Rows(RecordBatch),
    /// The order begins anew: another file.
    Break,
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

/// A finished file's bytes, and what is known of them.
type Finished = (Vec<Bytes>, FileMeta);

/// Encodes on a thread of its own, since it is all computation, and stores each file as it is finished.
pub(crate) async fn write_files(
    inputs: &Inputs,
    job: &Job,
    table: &Table,
    mut items: BoxStream<'static, Result<Item>>,
) -> Result<Vec<DataFile>> {
    let mut writers = Writers::new(job, table)?;
    let (to_writer, mut arriving) = mpsc::channel::<Item>(2);
    let (finished, mut files) = mpsc::channel::<Finished>(1);
    let encode = tokio::task::spawn_blocking(move || -> Result<()> {
        // Nobody listens any more if storing an earlier file failed.
        let mut send = |file: Finished| finished.blocking_send(file).is_ok();
        while let Some(item) = arriving.blocking_recv() {
            let goes_on = match item {
                Item::Rows(batch) => writers.write(&batch, &mut send)?,
                Item::Break => writers.finish(&mut send)?,
            };
            if !goes_on {
                return Ok(());
            }
        }
        writers.finish(&mut send)?;
        Ok(())
    });
    let feed = async move {
        while let Some(item) = items.try_next().await? {
            if to_writer.send(item).await.is_err() {
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

/// The files in the making: one for each stretch of time that the job keeps apart.
struct Writers {
    spec: WriteSpec,
    cut: Cut,
    cuts: Vec<i64>,
    /// Where the designated timestamp stands.
    timestamp: usize,
    open: Vec<Option<FileWriter>>,
}

impl Writers {
    fn new(job: &Job, table: &Table) -> Result<Self> {
        let timestamp = table.timestamp().and_then(|column| table.schema().position(column.id));
        if timestamp.is_none() && !job.cuts.is_empty() {
            return Err(Error::internal("a job cuts by time where there is none"));
        }
        Ok(Self {
            spec: write_spec(table),
            cut: Cut::of(job, table),
            cuts: job.cuts.clone(),
            timestamp: timestamp.unwrap_or_default(),
            open: (0..=job.cuts.len()).map(|_| None).collect(),
        })
    }

    /// False if nobody wants more files.
    fn write(&mut self, batch: &RecordBatch, send: &mut impl FnMut(Finished) -> bool) -> Result<bool> {
        if self.cuts.is_empty() {
            return self.write_to(0, batch, send);
        }
        let failed = |e: ArrowError| Error::internal(format!("cutting rows by time: {e}"));
        let column = batch.columns().get(self.timestamp);
        let column = column.ok_or_else(|| Error::internal("a batch lacks its timestamp"))?;
        let ticks = arrow::compute::cast(column, &DataType::Int64).map_err(failed)?;
        let ticks = ticks.as_primitive::<Int64Type>();
        let stretches: Vec<usize> =
            ticks.values().iter().map(|tick| self.cuts.partition_point(|cut| cut <= tick)).collect();
        for stretch in 0..self.open.len() {
            let within: BooleanArray = stretches.iter().map(|s| Some(*s == stretch)).collect();
            let goes_on = match within.true_count() {
                0 => true,
                all if all == within.len() => self.write_to(stretch, batch, send)?,
                _ => {
                    let rows = filter_record_batch(batch, &within).map_err(failed)?;
                    self.write_to(stretch, &rows, send)?
                }
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_to(
        &mut self,
        stretch: usize,
        batch: &RecordBatch,
        send: &mut impl FnMut(Finished) -> bool,
    ) -> Result<bool> {
        let Some(slot) = self.open.get_mut(stretch).filter(|_| batch.num_rows() > 0) else { return Ok(true) };
        let writer = match slot {
            Some(writer) => writer,
            None => slot.insert(FileWriter::new(&self.spec)?),
        };
        writer.write(batch)?;
        if self.cut.is_full(writer)
            && let Some(full) = slot.take()
        {
            return Ok(send(full.finish()?));
        }
        Ok(true)
    }

    fn finish(&mut self, send: &mut impl FnMut(Finished) -> bool) -> Result<bool> {
        for writer in self.open.iter_mut().filter_map(Option::take) {
            if !send(writer.finish()?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
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
pub(crate) async fn verify(
    inputs: &Inputs,
    table: &Table,
    files: &[DataFile],
    expected: &RowDigest,
) -> Result<()> {
    let cache = FooterCache::new(CHECK_CACHE_BYTES);
    let ids: Vec<ColumnId> = table.schema().columns.iter().map(|c| c.id).collect();
    let mut found = RowDigest::default();
    for file in files {
        let path = data_path(table.id(), table.partition_by(), &file.name);
        let reader =
            cache.reader(inputs.env.store.objects(), &path, file.size, file.body_end, file.tail_crc32c);
        let mut batches = read_batches(reader, None, CHECK_ROWS).await?.stream;
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
