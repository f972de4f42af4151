//! Writes columns of integers, dates and times as deltas.
//!
//! The Parquet crate's way costs several times as much per value, and packs deltas so tightly that no
//! compressor finds anything in them. The result is an ordinary column chunk of data pages of version 1.

use std::marker::PhantomData;

use arrow::array::{Array, AsArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowNativeType, Int8Type, Int16Type, UInt8Type, UInt16Type};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, SortOrder, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescPtr;

use crate::chunk::{Bounds, Chunk, DataPage, Kept};
use crate::compress::{Symbols, knows};
use crate::delta::{Integer, Layout, encode, range};
use crate::groups::OwnColumn;

/// Whether this writer knows the column's type and the file's compression.
pub(crate) fn suits(data_type: &DataType, compression: Compression) -> bool {
    physical(data_type).is_some() && knows(compression)
}

/// The type that Parquet stores an integer, a date or a time as, the same as the Parquet crate takes.
fn physical(data_type: &DataType) -> Option<Type> {
    use DataType::*;
    Some(match data_type {
        Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Date32 => Type::INT32,
        Time32(TimeUnit::Second | TimeUnit::Millisecond) => Type::INT32,
        Int64 | UInt64 | Date64 | Timestamp(_, _) | Duration(_) => Type::INT64,
        Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Type::INT64,
        _ => return None,
    })
}

/// The writer of one column chunk.
pub(crate) fn column(
    column: ColumnDescPtr,
    compression: Compression,
    page_rows: u32,
    layout: Layout,
) -> Box<dyn OwnColumn> {
    match column.physical_type() {
        Type::INT32 => Box::new(DeltaColumn::<i32>::new(column, compression, page_rows, layout)),
        _ => Box::new(DeltaColumn::<i64>::new(column, compression, page_rows, layout)),
    }
}

struct DeltaColumn<T: Stored> {
    chunk: Chunk<Ordered<T>>,
    page_rows: u32,
    layout: Layout,
    page: OpenPage<T>,
    /// Room for the encoder.
    deltas: Vec<T>,
}

struct OpenPage<T> {
    /// Those that are not null.
    values: Vec<T>,
    /// Runs of rows with a value (1) and without (0).
    present: Vec<(u32, u32)>,
    rows: u32,
}

impl<T> OpenPage<T> {
    fn push(&mut self, present: u32, rows: usize) {
        if rows > 0 {
            self.present.push((present, rows as u32));
            self.rows += rows as u32;
        }
    }
}

impl<T: Stored> DeltaColumn<T> {
    fn new(column: ColumnDescPtr, compression: Compression, page_rows: u32, layout: Layout) -> Self {
        let bounds = Ordered { signed: column.sort_order() != SortOrder::UNSIGNED, of: PhantomData };
        Self {
            chunk: Chunk::new(column, compression, Symbols::Independent, bounds),
            page_rows,
            layout,
            page: OpenPage { values: Vec::new(), present: Vec::new(), rows: 0 },
            deltas: Vec::new(),
        }
    }

    fn end_page(&mut self) -> Result<()> {
        let page = &mut self.page;
        if page.rows == 0 {
            return Ok(());
        }
        let nulls = page.rows - page.values.len() as u32;
        let mut body = Vec::new();
        self.chunk.levels(page.present.iter().copied(), nulls, &mut body)?;
        encode(&page.values, self.layout, &mut self.deltas, &mut body);
        let range = (!page.values.is_empty()).then(|| self.chunk.bounds().range(&page.values));
        let (rows, encoding) = (page.rows, Encoding::DELTA_BINARY_PACKED);
        page.values.clear();
        page.present.clear();
        page.rows = 0;
        self.chunk.add(DataPage { body, encoding, rows, nulls, range })
    }
}

impl<T: Stored> OwnColumn for DeltaColumn<T> {
    fn write(&mut self, array: &dyn Array) -> Result<()> {
        let values = T::stored(array)?;
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        let mut start = 0;
        while start < values.len() {
            let rows = (self.page_rows.saturating_sub(self.page.rows) as usize).min(values.len() - start);
            let rows_of_page = values.slice(start, rows);
            match nulls {
                None => {
                    self.page.values.extend_from_slice(&rows_of_page);
                    self.page.push(1, rows);
                }
                Some(nulls) => {
                    let mut done = 0;
                    for (from, to) in nulls.slice(start, rows).valid_slices() {
                        self.page.push(0, from - done);
                        self.page.values.extend_from_slice(&rows_of_page.slice(from, to - from));
                        self.page.push(1, to - from);
                        done = to;
                    }
                    self.page.push(0, rows - done);
                }
            }
            start += rows;
            if self.page.rows >= self.page_rows {
                self.end_page()?;
            }
        }
        Ok(())
    }

    fn encoded_bytes(&self) -> usize {
        // The open page will take less than it has: a quarter is on the safe side for most.
        self.chunk.encoded_bytes() + size_of_val(self.page.values.as_slice()) / 4
    }

    fn close(mut self: Box<Self>) -> Result<(Bytes, ColumnCloseResult)> {
        self.end_page()?;
        self.chunk.close(None)
    }
}

/// The order of a column's integers.
struct Ordered<T> {
    /// Otherwise the numbers are unsigned, stored by their bits.
    signed: bool,
    of: PhantomData<T>,
}

impl<T: Integer> Ordered<T> {
    fn key(&self, value: T) -> T {
        if self.signed { value } else { value.flipped() }
    }

    fn range(&self, values: &[T]) -> (T, T) {
        if self.signed {
            return range(values.iter().copied());
        }
        let (low, high) = range(values.iter().map(|v| v.flipped()));
        (low.flipped(), high.flipped())
    }
}

impl<T: Stored> Bounds for Ordered<T> {
    type Value = T;
    const TYPE: Type = T::TYPE;

    fn less(&self, a: &T, b: &T) -> bool {
        self.key(*a) < self.key(*b)
    }

    fn short(&self, low: &T, high: &T) -> (T, Option<T>) {
        (*low, Some(*high))
    }

    fn bytes(&self, value: &T) -> Vec<u8> {
        value.bits().to_le_bytes().into_iter().take(size_of::<T>()).collect()
    }

    fn statistics(&self, bounds: Kept<T>, nulls: u64) -> Statistics {
        T::statistics(bounds, nulls)
    }
}

/// How arrays and statistics have an integer.
trait Stored: Integer + ArrowNativeType {
    /// The array's values, brought to this width; those of nulls are anything.
    fn stored(array: &dyn Array) -> Result<ScalarBuffer<Self>>;
    fn statistics(bounds: Kept<Self>, nulls: u64) -> Statistics;
}

/// The values of an array whose values have this width already.
fn as_they_are<T: ArrowNativeType>(array: &dyn Array) -> Result<ScalarBuffer<T>> {
    let data = array.to_data();
    match (array.data_type().primitive_width(), data.buffers()) {
        (Some(width), [values]) if width == size_of::<T>() => {
            Ok(ScalarBuffer::new(values.clone(), data.offset(), data.len()))
        }
        _ => Err(ParquetError::General(format!("{} is no type of integers", array.data_type()))),
    }
}

impl Stored for i32 {
    fn stored(array: &dyn Array) -> Result<ScalarBuffer<i32>> {
        Ok(match array.data_type() {
            DataType::Int8 => {
                array.as_primitive::<Int8Type>().values().iter().map(|v| i32::from(*v)).collect()
            }
            DataType::Int16 => {
                array.as_primitive::<Int16Type>().values().iter().map(|v| i32::from(*v)).collect()
            }
            DataType::UInt8 => {
                array.as_primitive::<UInt8Type>().values().iter().map(|v| i32::from(*v)).collect()
            }
            DataType::UInt16 => {
                array.as_primitive::<UInt16Type>().values().iter().map(|v| i32::from(*v)).collect()
            }
            _ => as_they_are(array)?,
        })
    }

    fn statistics(bounds: Kept<i32>, nulls: u64) -> Statistics {
        let statistics = ValueStatistics::new(bounds.min, bounds.max, None, Some(nulls), false);
        Statistics::Int32(
            statistics.with_min_is_exact(bounds.min_is_exact).with_max_is_exact(bounds.max_is_exact),
        )
    }
}

impl Stored for i64 {
    fn stored(array: &dyn Array) -> Result<ScalarBuffer<i64>> {
        as_they_are(array)
    }

    fn statistics(bounds: Kept<i64>, nulls: u64) -> Statistics {
        let statistics = ValueStatistics::new(bounds.min, bounds.max, None, Some(nulls), false);
        Statistics::Int64(
            statistics.with_min_is_exact(bounds.min_is_exact).with_max_is_exact(bounds.max_is_exact),
        )
    }
}
