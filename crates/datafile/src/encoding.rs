//! Which encoding each column gets, chosen by looking at its first rows.
//!
//! A column that is a plain number, time or string is measured or counted; everything nested keeps the
//! writer's default (a dictionary as long as it stays small).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tandem_types::{Error, Result};

use crate::delta::Layout;
use crate::integers;
use crate::keys::Keys;
use crate::write::PAGE_ROWS;

/// How many rows a trial encodes: enough for zstd to find its statistics, little enough not to matter.
const TRIAL_ROWS: usize = 12 * 1024;

/// Below this a file is too small for its encodings to matter.
const TRIAL_ROWS_MIN: usize = 512;

/// What a byte before compression costs, in bytes after it: zeros are not free to read.
const UNPACKED_BYTE: f64 = 1.0 / 64.0;

/// A column's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Tried first; Parquet gives it up by itself when the dictionary grows too large.
    pub(crate) dictionary: bool,
    /// Used without a dictionary, or after one was given up.
    pub(crate) encoding: Encoding,
    /// How this crate's own writer lays out deltas, if that is the encoding.
    pub(crate) layout: Layout,
    /// Whether the values are so varied that a Bloom filter is worth its bytes.
    pub(crate) varied: bool,
}

impl Choice {
    const fn dictionary_or(encoding: Encoding) -> Self {
        Self { dictionary: true, encoding, layout: Layout::Tight, varied: false }
    }

    const fn only(encoding: Encoding) -> Self {
        Self { dictionary: false, encoding, layout: Layout::Tight, varied: false }
    }

    /// Sets the properties of the column at `path`.
    pub(crate) fn apply(self, builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
        builder
            .set_column_dictionary_enabled(path.clone(), self.dictionary)
            .set_column_encoding(path, self.encoding)
    }
}

/// The choice for a column of stored type, given its first rows; `None` leaves the writer's default.
pub(crate) fn choose(
    sample: &[RecordBatch],
    column: usize,
    compression: Compression,
) -> Result<Option<Choice>> {
    let Some(first) = sample.first() else { return Ok(None) };
    let data_type = first.column(column).data_type().clone();
    let kind = Kind::of(&data_type);
    match kind {
        Kind::Other => return Ok(None),
        // A dictionary column says of itself that its values repeat.
        Kind::Dictionary => return Ok(Some(Choice::dictionary_or(Encoding::DELTA_LENGTH_BYTE_ARRAY))),
        _ => {}
    }
    let pieces = trial_pieces(sample, column);
    let arrays: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    let values = concat(&arrays).map_err(|e| Error::internal(format!("sampling a column failed: {e}")))?;
    let present = values.len() - values.logical_null_count();
    Ok(Some(match kind {
        Kind::Integer if present < TRIAL_ROWS_MIN => Choice::dictionary_or(Encoding::DELTA_BINARY_PACKED),
        Kind::Integer => cheapest_integer(&values, compression)?,
        Kind::Float if distinct(&values)? * 4 < present => Choice::dictionary_or(Encoding::BYTE_STREAM_SPLIT),
        Kind::Float => Choice::only(Encoding::BYTE_STREAM_SPLIT),
        _ if present >= TRIAL_ROWS_MIN && distinct(&values)? * 10 > present * 8 => {
            Choice { varied: true, ..Choice::only(Encoding::DELTA_LENGTH_BYTE_ARRAY) }
        }
        _ => Choice::dictionary_or(Encoding::DELTA_LENGTH_BYTE_ARRAY),
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Float,
    Text,
    Dictionary,
    Other,
}

impl Kind {
    fn of(data_type: &DataType) -> Self {
        use DataType::*;
        match data_type {
            Int8
            | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | UInt64
            | Date32
            | Date64
            | Time32(_)
            | Time64(_)
            | Timestamp(_, _)
            | Duration(_) => Self::Integer,
            Float32 | Float64 => Self::Float,
            Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => Self::Text,
            Dictionary(_, _) => Self::Dictionary,
            _ => Self::Other,
        }
    }
}

/// Up to [`TRIAL_ROWS`] rows: the first half from the start, the other from the middle of the sample.
fn trial_pieces(sample: &[RecordBatch], column: usize) -> Vec<ArrayRef> {
    let rows: usize = sample.iter().map(RecordBatch::num_rows).sum();
    if rows <= TRIAL_ROWS {
        return sample.iter().map(|b| Arc::clone(b.column(column))).collect();
    }
    let half = TRIAL_ROWS / 2;
    let wanted = [0..half, rows.div_ceil(2).max(half)..(rows.div_ceil(2).max(half) + half).min(rows)];
    let mut pieces = Vec::new();
    for range in wanted {
        let mut start = 0;
        for batch in sample {
            let end = start + batch.num_rows();
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                pieces.push(batch.column(column).slice(from - start, to - from));
            }
            start = end;
        }
    }
    pieces
}

fn distinct(values: &ArrayRef) -> Result<usize> {
    let keys = Keys::of(values.as_ref())?;
    Ok(keys.values.into_iter().collect::<HashSet<u64>>().len())
}

/// Encodes the sample each way and takes the cheapest.
fn cheapest_integer(values: &ArrayRef, compression: Compression) -> Result<Choice> {
    let failed = |e| Error::internal(format!("a trial encoding failed: {e}"));
    let mut delta = Choice::only(Encoding::DELTA_BINARY_PACKED);
    let dictionary = Choice::dictionary_or(Encoding::DELTA_BINARY_PACKED);
    let mut cost = f64::INFINITY;
    if integers::suits(values.data_type(), compression) {
        for layout in Layout::ALL {
            let found = chunk_cost(&delta_chunk(values, layout, compression).map_err(failed)?);
            if found < cost {
                (delta.layout, cost) = (layout, found);
            }
        }
    } else {
        cost = chunk_cost(&chunk_of(values, delta, compression).map_err(failed)?);
    }
    let other = chunk_cost(&chunk_of(values, dictionary, compression).map_err(failed)?);
    Ok(if other < cost { Choice { layout: delta.layout, ..dictionary } } else { delta })
}

/// The bytes of a chunk, with what it takes to decompress and unpack them.
fn chunk_cost(chunk: &ColumnChunkMetaData) -> f64 {
    chunk.compressed_size() as f64 + chunk.uncompressed_size() as f64 * UNPACKED_BYTE
}

/// What `values` become in the hands of this crate's writer.
fn delta_chunk(
    values: &ArrayRef,
    layout: Layout,
    compression: Compression,
) -> parquet::errors::Result<ColumnChunkMetaData> {
    let schema = ArrowSchemaConverter::new().convert(&trial_schema(values))?;
    let mut column = integers::column(schema.column(0), compression, PAGE_ROWS as u32, layout);
    column.write(values.as_ref())?;
    Ok(column.close()?.1.metadata)
}

/// What `values` become in the hands of the Parquet crate.
fn chunk_of(
    values: &ArrayRef,
    choice: Choice,
    compression: Compression,
) -> parquet::errors::Result<ColumnChunkMetaData> {
    let schema = Arc::new(trial_schema(values));
    let builder = WriterProperties::builder()
        .set_compression(compression)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::None);
    let properties = choice.apply(builder, ColumnPath::from("v")).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    writer.write(&RecordBatch::try_new(schema, vec![Arc::clone(values)])?)?;
    writer.flush()?;
    let chunk = writer.flushed_row_groups().first().and_then(|group| group.columns().first());
    chunk.cloned().ok_or_else(|| ParquetError::General("a trial wrote nothing".to_owned()))
}

fn trial_schema(values: &ArrayRef) -> Schema {
    Schema::new(vec![Field::new("v", values.data_type().clone(), true)])
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn chosen(array: ArrayRef) -> Choice {
        let batch = RecordBatch::try_from_iter([("v", array)]).unwrap();
        let zstd = Compression::ZSTD(parquet::basic::ZstdLevel::default());
        choose(&[batch.slice(0, 1_000), batch], 0, zstd).unwrap().unwrap()
    }

    /// Spreads numbers so that neighbours share nothing.
    fn spread(i: i64) -> i64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).rotate_left(31)
    }

    #[test]
    fn each_column_gets_what_suits_its_values() {
        let n = 0..20_000i64;
        let delta = |layout| Choice { layout, ..Choice::only(Encoding::DELTA_BINARY_PACKED) };
        let regular = n.clone().map(|i| 1_700_000_000 + i * 10).collect::<Int64Array>();
        assert!(!chosen(Arc::new(regular)).dictionary);
        let mixed = |i| spread(spread(spread(i) ^ i) ^ spread(i) >> 32);
        let noise = n.clone().map(|i| i * 1_000_000 + (mixed(i) & 0x7_ffff)).collect::<Int64Array>();
        assert_eq!(chosen(Arc::new(noise)), delta(Layout::Tight));
        // A walk whose steps are mostly small.
        let steps = n.clone().scan(50, |level, i| {
            *level = (*level + i64::from((mixed(i) & 0xff).count_ones()) - 4).clamp(0, 100);
            Some(*level)
        });
        assert_eq!(chosen(Arc::new(steps.collect::<Int64Array>())), delta(Layout::Uniform));

        let noise = n.clone().map(|i| Some(spread(i) as f64)).collect::<Float64Array>();
        assert_eq!(chosen(Arc::new(noise)), Choice::only(Encoding::BYTE_STREAM_SPLIT));
        let steps = n.clone().map(|i| Some((spread(i) & 15) as f64 / 2.0)).collect::<Float64Array>();
        assert!(chosen(Arc::new(steps)).dictionary);

        let ids = n.clone().map(|i| Some(format!("{:x}", spread(i)))).collect::<StringArray>();
        let ids = chosen(Arc::new(ids));
        assert!(ids.varied && !ids.dictionary);
        let tags = n.map(|i| Some(format!("host_{}", i / 100))).collect::<StringArray>();
        let tags = chosen(Arc::new(tags));
        assert!(!tags.varied && tags.dictionary);
    }
}
