//! Reading data files: nothing is decoded before its checksum was right.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use tandem_env::{DiskCache, cut};
use tandem_types::{ColumnId, Error, Result, TableSchema};

use crate::blocks::{BLOCK_BYTES, BLOCKS_KEY, BlockSums};
use crate::cache::{Footer, FooterCache};
use crate::stored::table_schema;

/// How much of a file is fetched ahead at once.
const PREFETCH_BYTES: u64 = 64 * BLOCK_BYTES;

/// Which object, and what must be true of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DataFile {
    /// Its path in the object store.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Where the tail begins.
    pub body_end: u64,
    /// CRC32C of the tail.
    pub tail_crc32c: u32,
}

/// Reads one data file for Parquet's decoders and checks what it reads.
#[derive(Clone, Debug)]
pub struct VerifiedReader {
    objects: Arc<dyn ObjectStore>,
    file: Arc<DataFile>,
    cache: FooterCache,
}

impl VerifiedReader {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, file: DataFile, cache: FooterCache) -> Self {
        Self { objects, file: Arc::new(file), cache }
    }

    pub fn file(&self) -> &DataFile {
        &self.file
    }

    /// The file's footer, from the cache if it is there.
    pub async fn footer(&self) -> Result<Arc<Footer>> {
        self.cache.footer(&self.objects, &self.file).await
    }

    /// The bytes of each range, checked. Blocks that ranges share or that touch are read once.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let footer = self.footer().await?;
        let body_end = self.file.body_end;
        if let Some(r) = ranges.iter().find(|r| r.start > r.end || r.end > self.file.size) {
            return Err(self.damaged(format!("a range {}..{} outside of it was asked for", r.start, r.end)));
        }
        let in_body = |r: &&Range<u64>| r.start < r.end.min(body_end);
        let widen = |r: &Range<u64>| footer.blocks.widen(r.start, r.end.min(body_end));
        let mut wanted: Vec<Range<u64>> = ranges.iter().filter(in_body).map(widen).collect();
        wanted.sort_unstable_by_key(|r| r.start);
        wanted.dedup_by(|next, run| {
            let joins = next.start <= run.end;
            if joins {
                run.end = run.end.max(next.end);
            }
            joins
        });
        let mut read = self.read_blocks(&footer, &wanted).await?;
        // The tail has one checksum: it is taken whole.
        if ranges.iter().any(|r| r.end > body_end) {
            wanted.push(body_end..self.file.size);
            read.push(load_tail(&self.objects, &self.file, self.cache.disk()).await?);
        }
        ranges.iter().map(|r| self.cut(r, &wanted, &read)).collect()
    }

    /// Runs of whole blocks, checked: from the disk where it has them, the rest in one call to the store.
    async fn read_blocks(&self, footer: &Footer, runs: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(disk) = self.cache.disk() else { return self.fetch_blocks(footer, runs).await };
        let path = self.file.path.as_str();
        let blocks: Vec<Range<u64>> = runs.iter().cloned().flat_map(cut).collect();
        let mut found = disk.get(path, &blocks).await;
        let mut wrong = Vec::new();
        for (block, bytes) in blocks.iter().zip(&mut found) {
            if bytes.as_ref().is_some_and(|bytes| footer.blocks.verify(block.start, bytes).is_err()) {
                *bytes = None;
                wrong.push(block.clone());
            }
        }
        disk.drop_damaged(path, &wrong);

        let mut missing: Vec<Range<u64>> = Vec::new();
        for (block, _) in blocks.iter().zip(&found).filter(|(_, bytes)| bytes.is_none()) {
            match missing.last_mut().filter(|run| run.end == block.start) {
                Some(run) => run.end = block.end,
                None => missing.push(block.clone()),
            }
        }
        let fetched = self.fetch_blocks(footer, &missing).await?;
        for (run, bytes) in missing.iter().zip(&fetched) {
            disk.put_whole(path, run.clone(), bytes).await;
        }
        // Nearly always a run is either here or not: then nothing is copied.
        let mut have: Vec<(Range<u64>, Bytes)> = missing.into_iter().zip(fetched).collect();
        have.extend(blocks.into_iter().zip(found).filter_map(|(block, bytes)| Some((block, bytes?))));
        have.sort_unstable_by_key(|(range, _)| range.start);
        let (ranges, bytes): (Vec<_>, Vec<_>) = have.into_iter().unzip();
        runs.iter().map(|run| self.cut(run, &ranges, &bytes)).collect()
    }

    async fn fetch_blocks(&self, footer: &Footer, runs: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let read = fetch(&self.objects, &self.file, runs).await?;
        for (range, bytes) in runs.iter().zip(&read) {
            if let Err(block) = footer.blocks.verify(range.start, bytes) {
                return Err(self.damaged(format!("the checksum of its block {block} is wrong")));
            }
        }
        Ok(read)
    }

    /// Sees to it that the whole file is on the local disk; how many bytes had to be fetched. Nothing is done without a
    /// cache on disk.
    pub async fn prefetch(&self) -> Result<u64> {
        let Some(disk) = self.cache.disk() else { return Ok(0) };
        let footer = self.footer().await?;
        let (path, body_end) = (self.file.path.as_str(), self.file.body_end);
        let mut fetched = 0;
        let mut start = 0;
        while start < body_end {
            let run = start..(start + PREFETCH_BYTES).min(body_end);
            start = run.end;
            let missing: u64 = cut(run.clone()).filter(|b| !disk.has(path, b)).map(|b| b.end - b.start).sum();
            if missing > 0 {
                self.read_blocks(&footer, std::slice::from_ref(&run)).await?;
                fetched += missing;
            }
        }
        Ok(fetched)
    }

    /// The part of what was read that a caller asked for.
    fn cut(&self, range: &Range<u64>, read_ranges: &[Range<u64>], read: &[Bytes]) -> Result<Bytes> {
        let mut parts = Vec::new();
        for (have, bytes) in read_ranges.iter().zip(read) {
            let (start, end) = (range.start.max(have.start), range.end.min(have.end));
            if start < end {
                parts.push(bytes.slice((start - have.start) as usize..(end - have.start) as usize));
            }
        }
        match <[Bytes; 1]>::try_from(parts) {
            Ok([one]) => Ok(one),
            // Across the border of body and tail, which no decoder asks for; or an empty range.
            Err(parts) => Ok(parts.concat().into()),
        }
    }

    fn damaged(&self, what: String) -> Error {
        Error::damaged(format!("data file {:?} is damaged: {what}", self.file.path))
    }
}

impl AsyncFileReader for VerifiedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let mut read = self.read_ranges(std::slice::from_ref(&range)).await.map_err(external)?;
            read.pop().ok_or_else(|| ParquetError::General("no bytes for a range".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.read_ranges(&ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.footer().map_ok(|footer| Arc::clone(&footer.metadata)).map_err(external).boxed()
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// Our own error out of one that passed through Parquet's decoders, else `Damaged` naming the file.
pub fn from_parquet_error(path: &str, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::damaged(format!("data file {path:?} cannot be decoded: {other}")),
        },
        other => Error::damaged(format!("data file {path:?} cannot be decoded: {other}")),
    }
}

/// Reads and checks the tail, and parses all that it holds.
pub(crate) async fn load_footer(
    objects: &Arc<dyn ObjectStore>,
    file: &DataFile,
    disk: Option<&DiskCache>,
) -> Result<Footer> {
    if file.body_end >= file.size {
        return Err(Error::damaged(format!("data file {:?} is listed without a footer", file.path)));
    }
    let range = file.body_end..file.size;
    let tail = load_tail(objects, file, disk).await?;
    let failed = |e| from_parquet_error(&file.path, e);
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.size)
        .map_err(failed)?
        .with_page_index_policy(PageIndexPolicy::Optional);
    decoder.push_range(range, tail).map_err(failed)?;
    let metadata = match decoder.try_decode().map_err(failed)? {
        DecodeResult::Data(metadata) => Arc::new(metadata),
        _ => return Err(Error::damaged(format!("the footer of data file {:?} is incomplete", file.path))),
    };

    let sums = metadata.file_metadata().key_value_metadata().and_then(|pairs| {
        pairs.iter().find(|pair| pair.key == BLOCKS_KEY).and_then(|pair| pair.value.as_deref())
    });
    let named = |e: Error| e.context(format!("data file {:?}", file.path));
    let blocks = match sums {
        Some(text) => BlockSums::decode(text).map_err(named)?,
        None => return Err(Error::damaged(format!("data file {:?} carries no block checksums", file.path))),
    };
    if blocks.body_end != file.body_end {
        return Err(Error::damaged(format!(
            "data file {:?} says that its body ends at {}, and its entry says {}",
            file.path, blocks.body_end, file.body_end
        )));
    }
    let arrow =
        ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new()).map_err(failed)?;
    let schema = table_schema(arrow.schema()).map_err(named)?;
    Ok(Footer { metadata, schema, blocks })
}

/// The tail, checked, from the disk or the store.
async fn load_tail(
    objects: &Arc<dyn ObjectStore>,
    file: &DataFile,
    disk: Option<&DiskCache>,
) -> Result<Bytes> {
    let range = file.body_end..file.size;
    if let Some(disk) = disk
        && let Some(tail) = disk.get_whole(&file.path, range.clone()).await
    {
        if check_tail(file, &tail).is_ok() {
            return Ok(tail);
        }
        disk.drop_whole(&file.path, range.clone());
    }
    let tail = fetch(objects, file, std::slice::from_ref(&range)).await?.pop().unwrap_or_default();
    check_tail(file, &tail)?;
    if let Some(disk) = disk {
        disk.put_whole(&file.path, range, &tail).await;
    }
    Ok(tail)
}

fn check_tail(file: &DataFile, tail: &[u8]) -> Result<()> {
    if tail.len() as u64 != file.size - file.body_end || crc32c::crc32c(tail) != file.tail_crc32c {
        return Err(Error::damaged(format!(
            "data file {:?} is damaged: the checksum of its tail is wrong",
            file.path
        )));
    }
    Ok(())
}

/// Reads ranges as they are, in one call, and checks only that they are whole.
async fn fetch(objects: &Arc<dyn ObjectStore>, file: &DataFile, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let path = Path::from(file.path.as_str());
    let read = match objects.get_ranges(&path, ranges).await {
        Ok(read) => read,
        Err(error) => return Err(explain(objects, file, &path, error).await),
    };
    let whole = |(range, bytes): (&Range<u64>, &Bytes)| bytes.len() as u64 == range.end - range.start;
    if read.len() != ranges.len() || !ranges.iter().zip(&read).all(whole) {
        return Err(Error::damaged(format!(
            "data file {:?} is shorter than its {} bytes",
            file.path, file.size
        )));
    }
    Ok(read)
}

/// Tells an object that is missing or cut short from a store that does not answer.
async fn explain(
    objects: &Arc<dyn ObjectStore>,
    file: &DataFile,
    path: &Path,
    error: object_store::Error,
) -> Error {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return Error::damaged(format!("data file {:?} is missing", file.path));
    }
    match objects.head(path).await {
        Ok(meta) if meta.size != file.size => Error::damaged(format!(
            "data file {:?} is damaged: it has {} bytes instead of {}",
            file.path, meta.size, file.size
        )),
        _ => Error::unavailable(format!("data file {:?} cannot be read now: {error}", file.path)),
    }
}

/// Rows of one file.
pub struct FileBatches {
    /// The columns of each batch, with their ids; types as the file stores them.
    pub schema: TableSchema,
    /// The rows, in the order of the file.
    pub stream: BoxStream<'static, Result<RecordBatch>>,
}

/// Reads a file's rows in batches of at most `batch_rows`.
///
/// `columns` chooses columns by id (`None`: all); those that the file lacks are left out, the others
/// come in the order of the file. [`cast_to_schema`](crate::cast_to_schema) does the rest.
pub async fn read_batches(
    reader: VerifiedReader,
    columns: Option<&[ColumnId]>,
    batch_rows: usize,
) -> Result<FileBatches> {
    let footer = reader.footer().await?;
    let path = reader.file().path.clone();
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(&footer.metadata), ArrowReaderOptions::new())
        .map_err(|e| from_parquet_error(&path, e))?;
    let chosen: Vec<usize> = footer
        .schema
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| columns.is_none_or(|ids| ids.contains(&column.id)))
        .map(|(index, _)| index)
        .collect();
    let schema = TableSchema {
        columns: chosen.iter().filter_map(|i| footer.schema.columns.get(*i).cloned()).collect(),
    };
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
    let mask = ProjectionMask::roots(builder.parquet_schema(), chosen);
    let stream = builder
        .with_projection(mask)
        .with_batch_size(batch_rows.max(1))
        .build()
        .map_err(|e| from_parquet_error(&path, e))?;
    let arrow = schema.arrow();
    let stream = stream.map(move |batch| {
        let batch = batch.map_err(|e| from_parquet_error(&path, e))?;
        // Without the field ids, which are metadata of the file, not of the rows.
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&arrow), batch.columns().to_vec(), &options)
            .map_err(|e| Error::damaged(format!("data file {path:?} does not keep to its schema: {e}")))
    });
    Ok(FileBatches { schema, stream: stream.boxed() })
}
