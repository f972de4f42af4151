//! Writing a data file: encoded bytes gather in memory, checksummed as they come.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use tandem_types::{ColumnId, Error, Result, TableSchema};

use crate::blocks::BLOCKS_KEY;
use crate::bounds::{lower_bound, upper_bound};
use crate::cast::cast_array;
use crate::encoding::choose;
use crate::groups::{Encoder, GroupWriter, leaves};
use crate::stored::stored_schema;
use crate::{integers, repeated};

/// Rows of a page: what a point query decodes.
pub(crate) const PAGE_ROWS: usize = 8 * 1024;
/// How many rows the choice of encodings waits for.
const SAMPLE_ROWS: usize = 64 * 1024;
/// Length of the bounds in [`KeyRange`], in bytes: they stand in the manifest.
const BOUND_BYTES: usize = 24;

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// At a level from 1 to 22.
    Zstd(i32),
    /// A little larger, quicker to read.
    Lz4,
    None,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl Compression {
    fn codec(self) -> Result<Codec> {
        Ok(match self {
            Self::Zstd(level) => Codec::ZSTD(
                ZstdLevel::try_new(level)
                    .map_err(|e| Error::invalid(format!("{level} is no level of zstd: {e}")))?,
            ),
            Self::Lz4 => Codec::LZ4_RAW,
            Self::None => Codec::UNCOMPRESSED,
        })
    }
}

/// What a file is to be like.
#[derive(Clone, Debug, Default)]
pub struct WriteSpec {
    /// The columns, in order; each keeps its id.
    pub schema: TableSchema,
    /// The designated timestamp: [`FileMeta::time`] is about it.
    pub timestamp: Option<ColumnId>,
    /// The order that the rows have: ascending, nulls last. Promised by the caller.
    pub sort: Vec<ColumnId>,
    pub compression: Compression,
    /// Pairs for the footer.
    pub extra_metadata: Vec<(String, String)>,
}

/// What the manifest and the compactor need to know of a written file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    pub rows: u64,
    /// In bytes.
    pub size: u64,
    /// Where the row groups end and the tail begins: page indexes, footer.
    pub body_end: u64,
    /// CRC32C of the tail, which holds the checksums of the rest.
    pub tail_crc32c: u32,
    /// Least and greatest designated timestamp, in the column's ticks; `None` if there is none.
    pub time: Option<(i64, i64)>,
    /// Bounds of the leading sort column, where they are short enough to keep.
    pub key_range: Option<KeyRange>,
}

/// Every value of the leading sort column lies between these, both included; none is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub min: KeyValue,
    pub max: KeyValue,
}

/// A bound of a sort key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyValue {
    /// Of a signed integer, date or time column.
    Int(i64),
    /// Of a string or binary column: maybe a shorter bound, and then perhaps not valid UTF-8.
    Bytes(Vec<u8>),
}

/// Writes one file from batches that are sorted by `spec.sort` and have exactly the schema of `spec`.
///
/// Answers the file's bytes in pieces. Holds the encoded bytes in memory, so the caller bounds the rows.
pub fn write_file(
    spec: &WriteSpec,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<(Vec<Bytes>, FileMeta)> {
    let mut writer = FileWriter::new(spec)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.finish()
}

/// Writes one file, batch by batch.
pub struct FileWriter {
    spec: WriteSpec,
    stored: SchemaRef,
    codec: Codec,
    state: State,
    rows: u64,
}

enum State {
    /// The first rows wait until there are enough of them to choose encodings by.
    Sampling {
        batches: Vec<RecordBatch>,
        rows: usize,
    },
    Writing(Box<GroupWriter>),
}

impl State {
    const fn new() -> Self {
        Self::Sampling { batches: Vec::new(), rows: 0 }
    }
}

impl FileWriter {
    /// # Errors
    ///
    /// `InvalidInput` or `Unsupported` for a level or a type that Parquet does not have; `Internal` for a
    /// sort column or timestamp that the schema lacks.
    pub fn new(spec: &WriteSpec) -> Result<Self> {
        for id in spec.sort.iter().chain(&spec.timestamp) {
            if spec.schema.column(*id).is_none() {
                return Err(Error::internal(format!("a file's schema lacks its key column {id}")));
            }
        }
        Ok(Self {
            spec: spec.clone(),
            stored: stored_schema(&spec.schema)?,
            codec: spec.compression.codec()?,
            state: State::new(),
            rows: 0,
        })
    }

    /// Adds the rows of a batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let stored = self.stored_batch(batch)?;
        self.rows += batch.num_rows() as u64;
        match &mut self.state {
            State::Writing(writer) => writer.write(&stored).map_err(write_failed),
            State::Sampling { batches, rows } => {
                *rows += stored.num_rows();
                batches.push(stored);
                if *rows >= SAMPLE_ROWS { self.begin() } else { Ok(()) }
            }
        }
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About how many bytes the file has so far, the row group in progress included.
    pub fn encoded_bytes(&self) -> u64 {
        match &self.state {
            State::Sampling { .. } => 0,
            State::Writing(writer) => writer.encoded_bytes() as u64,
        }
    }

    /// Completes the file: its bytes in pieces, and what is to be remembered of it.
    pub fn finish(mut self) -> Result<(Vec<Bytes>, FileMeta)> {
        self.begin()?;
        let State::Writing(mut writer) = std::mem::replace(&mut self.state, State::new()) else {
            return Err(Error::internal("a data file was not begun"));
        };
        let sums = writer.end_body().map_err(write_failed)?;
        for (key, value) in &self.spec.extra_metadata {
            writer.append_metadata(key, value.clone());
        }
        writer.append_metadata(BLOCKS_KEY, sums.encode());
        let (sink, metadata) = writer.finish().map_err(write_failed)?;
        let (pieces, size, tail_crc32c) = sink.finish();
        let written = u64::try_from(metadata.file_metadata().num_rows()).ok();
        if written != Some(self.rows) {
            return Err(Error::internal("a data file has another number of rows than were written"));
        }
        let meta = FileMeta {
            rows: self.rows,
            size,
            body_end: sums.body_end,
            tail_crc32c,
            time: self.spec.timestamp.and_then(|id| self.time_range(&metadata, id)),
            key_range: self.spec.sort.first().and_then(|id| self.key_range(&metadata, *id)),
        };
        Ok((pieces, meta))
    }

    fn stored_batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.num_columns() != self.spec.schema.columns.len() {
            return Err(Error::internal(format!(
                "a batch of {} columns does not fit a file of {}",
                batch.num_columns(),
                self.spec.schema.columns.len()
            )));
        }
        let column = |((array, field), column): ((&ArrayRef, _), &tandem_types::Column)| {
            if array.data_type() != &column.data_type {
                return Err(Error::internal(format!(
                    "column {:?} of a file was given {} instead of {}",
                    column.name,
                    array.data_type(),
                    column.data_type
                )));
            }
            let field: &Arc<arrow_schema::Field> = field;
            cast_array(array, field.data_type(), &column.name)
        };
        let columns = batch.columns().iter().zip(self.stored.fields()).zip(&self.spec.schema.columns);
        let columns = columns.map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.stored), columns, &options)
            .map_err(|e| Error::internal(format!("rows do not fit the file they are written to: {e}")))
    }

    /// Chooses encodings and makes the writer, if that did not happen yet.
    fn begin(&mut self) -> Result<()> {
        if let State::Sampling { batches, .. } = &self.state {
            let (properties, encoders) = self.properties(batches)?;
            let mut writer =
                GroupWriter::new(Arc::clone(&self.stored), properties, encoders).map_err(write_failed)?;
            for batch in batches {
                writer.write(batch).map_err(write_failed)?;
            }
            self.state = State::Writing(Box::new(writer));
        }
        Ok(())
    }

    /// The writer's properties, and who encodes each column.
    fn properties(&self, sample: &[RecordBatch]) -> Result<(WriterProperties, Vec<Encoder>)> {
        let sorting = self.sorting_columns();
        let mut builder: WriterPropertiesBuilder = WriterProperties::builder()
            .set_created_by("tandemdb".to_owned())
            .set_compression(self.codec)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_sorting_columns(sorting);
        let mut encoders = Vec::with_capacity(self.stored.fields().len());
        for (index, (column, field)) in self.spec.schema.columns.iter().zip(self.stored.fields()).enumerate()
        {
            let path = ColumnPath::new(vec![column.name.clone()]);
            let choice = choose(sample, index, self.codec)?;
            encoders.push(match choice {
                Some(c) if c.dictionary && repeated::suits(field.data_type(), self.codec) => {
                    Encoder::Repeated
                }
                Some(c) if !c.dictionary && integers::suits(field.data_type(), self.codec) => {
                    Encoder::Deltas(c.layout)
                }
                _ => Encoder::Parquet,
            });
            if let Some(choice) = choice {
                builder = choice.apply(builder, path.clone());
                if choice.varied && !self.spec.sort.contains(&column.id) {
                    builder = builder.set_column_bloom_filter_enabled(path, true);
                }
            }
        }
        Ok((builder.build(), encoders))
    }

    /// Positions among the leaves of the schema; sort columns are leaves, or the list ends there.
    fn sorting_columns(&self) -> Option<Vec<SortingColumn>> {
        let leaf = |id: &ColumnId| {
            let leaf = self.leaf(*id)?;
            Some(SortingColumn {
                column_idx: i32::try_from(leaf).ok()?,
                descending: false,
                nulls_first: false,
            })
        };
        let columns: Vec<SortingColumn> = self.spec.sort.iter().map_while(leaf).collect();
        (!columns.is_empty()).then_some(columns)
    }

    /// Where a column stands among the leaves; `None` if it is not a leaf itself.
    fn leaf(&self, id: ColumnId) -> Option<usize> {
        let index = self.spec.schema.position(id)?;
        let (before, rest) = self.stored.fields().split_at_checked(index)?;
        let own = rest.first()?;
        (leaves(own.data_type()) == 1 && !own.data_type().is_nested())
            .then(|| before.iter().map(|f| leaves(f.data_type())).sum())
    }

    fn time_range(&self, metadata: &ParquetMetaData, id: ColumnId) -> Option<(i64, i64)> {
        let leaf = self.leaf(id)?;
        let mut range: Option<(i64, i64)> = None;
        for group in metadata.row_groups() {
            let statistics = group.columns().get(leaf)?.statistics()?;
            // A row group of nulls has no bounds and adds none.
            if let Statistics::Int64(s) = statistics
                && let (Some(min), Some(max)) = (s.min_opt(), s.max_opt())
            {
                let (low, high) = range.unwrap_or((*min, *max));
                range = Some((low.min(*min), high.max(*max)));
            }
        }
        range
    }

    fn key_range(&self, metadata: &ParquetMetaData, id: ColumnId) -> Option<KeyRange> {
        let leaf = self.leaf(id)?;
        let data_type = &self.spec.schema.column(id)?.data_type;
        let mut range: Option<KeyRange> = None;
        for group in metadata.row_groups() {
            let statistics = group.columns().get(leaf)?.statistics()?;
            if statistics.null_count_opt() != Some(0) {
                return None;
            }
            let next = key_bounds(data_type, statistics)?;
            range = Some(match range {
                None => next,
                Some(range) => KeyRange { min: range.min.min(next.min), max: range.max.max(next.max) },
            });
        }
        range
    }
}

fn key_bounds(data_type: &DataType, statistics: &Statistics) -> Option<KeyRange> {
    use DataType::*;
    let value = match data_type {
        Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    match (value, statistics) {
        (Int8 | Int16 | Int32 | Date32 | Time32(_), Statistics::Int32(s)) => Some(KeyRange {
            min: KeyValue::Int(i64::from(*s.min_opt()?)),
            max: KeyValue::Int(i64::from(*s.max_opt()?)),
        }),
        (Int64 | Date64 | Time64(_) | Timestamp(_, _), Statistics::Int64(s)) => {
            Some(KeyRange { min: KeyValue::Int(*s.min_opt()?), max: KeyValue::Int(*s.max_opt()?) })
        }
        (Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView, Statistics::ByteArray(s)) => {
            Some(KeyRange {
                min: KeyValue::Bytes(lower_bound(s.min_opt()?.data(), BOUND_BYTES, false).to_vec()),
                max: KeyValue::Bytes(upper_bound(s.max_opt()?.data(), BOUND_BYTES, false)?),
            })
        }
        _ => None,
    }
}

fn write_failed(error: parquet::errors::ParquetError) -> Error {
    Error::internal(format!("encoding a data file failed: {error}"))
}
