//! Writes columns of strings that repeat: tags.
//!
//! The Parquet crate hashes and compares each row's string again, which for ten tags costs more than all
//! else together. Here a batch's dictionary is looked up once, rows become runs of small numbers, and a
//! run is written at once. The result is an ordinary column chunk: one dictionary page and data pages of
//! version 1; plain pages follow if the dictionary grows too large.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, ArrayIter, ArrayRef, AsArray};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescPtr;

use crate::bounds::{lower_bound, upper_bound};
use crate::chunk::{Bounds, Chunk, DataPage, Kept, widen};
use crate::compress::{Symbols, knows};
use crate::groups::OwnColumn;
use crate::keys::{BytesOf, FoldHasher};
use crate::rle::encode_runs;

/// A dictionary beyond this many bytes is given up, as the Parquet crate does.
const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;
/// A page of plain values ends here.
const PLAIN_PAGE_BYTES: usize = 1024 * 1024;
/// Bounds in statistics are cut to this length.
const STATISTICS_BYTES: usize = 64;
/// Stands for null among the numbers of values.
const NULL: u32 = u32::MAX;

/// Whether this writer knows the column's type and the file's compression.
pub(crate) fn suits(data_type: &DataType, compression: Compression) -> bool {
    let data_type = match data_type {
        DataType::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    is_bytes(data_type) && knows(compression)
}

/// Whether a type is one of the encodings of strings and binaries, dictionaries aside.
pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// One column of the row group in progress.
pub(crate) struct RepeatedColumn {
    chunk: Chunk<Strings>,
    page_rows: u32,
    values: Values,
    /// The dictionary of the batch before, and what its keys mean here.
    known: Option<(ArrayRef, Vec<u32>)>,
    page: OpenPage,
    /// No more dictionary: values go into pages as they are.
    plain: bool,
}

/// The distinct values, numbered as they came.
#[derive(Default)]
struct Values {
    numbers: HashMap<Arc<[u8]>, u32, BuildHasherDefault<FoldHasher>>,
    list: Vec<Arc<[u8]>>,
    bytes: usize,
}

impl Values {
    fn number(&mut self, value: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = self.list.len() as u32;
        let value: Arc<[u8]> = value.into();
        self.bytes += value.len() + 4;
        self.list.push(Arc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    fn get(&self, number: u32) -> &[u8] {
        self.list.get(number as usize).map_or(&[], AsRef::as_ref)
    }
}

#[derive(Default)]
struct OpenPage {
    /// (number of the value, rows).
    runs: Vec<(u32, u32)>,
    rows: u32,
    /// Values in Parquet's plain encoding, with least and greatest, if there is no dictionary any more.
    plain: Vec<u8>,
    range: Option<(Vec<u8>, Vec<u8>)>,
}

impl OpenPage {
    fn push(&mut self, number: u32, rows: u32) {
        self.rows += rows;
        match self.runs.last_mut() {
            Some((last, length)) if *last == number => *length += rows,
            _ => self.runs.push((number, rows)),
        }
    }
}

impl RepeatedColumn {
    pub(crate) fn new(column: ColumnDescPtr, compression: Compression, page_rows: u32, text: bool) -> Self {
        Self {
            chunk: Chunk::new(column, compression, Symbols::Repeating, Strings { text }),
            page_rows,
            values: Values::default(),
            known: None,
            page: OpenPage::default(),
            plain: false,
        }
    }

    fn write_array(&mut self, array: &dyn Array) -> Result<()> {
        if array.as_any_dictionary_opt().is_some() {
            return self.write_dictionary(array);
        }
        match array.data_type() {
            DataType::Utf8 => self.write_values(array.as_string::<i32>()),
            DataType::LargeUtf8 => self.write_values(array.as_string::<i64>()),
            DataType::Utf8View => self.write_values(array.as_string_view()),
            DataType::Binary => self.write_values(array.as_binary::<i32>()),
            DataType::LargeBinary => self.write_values(array.as_binary::<i64>()),
            DataType::BinaryView => self.write_values(array.as_binary_view()),
            other => Err(ParquetError::General(format!("{other} is no type of repeated strings"))),
        }
    }

    fn write_dictionary(&mut self, array: &dyn Array) -> Result<()> {
        let Some(dictionary) = array.as_any_dictionary_opt() else { return Ok(()) };
        let values = dictionary.values();
        if values.is_empty() {
            return (0..array.len()).try_for_each(|_| self.push(NULL, 1));
        }
        if self.plain {
            let plain = arrow::compute::cast(array, values.data_type())?;
            return self.write_array(plain.as_ref());
        }
        let mut numbers = match self.known.take() {
            Some((known, numbers)) if Arc::ptr_eq(&known, values) => numbers,
            _ => vec![UNSEEN; values.len()],
        };
        let nulls = dictionary.keys().nulls().filter(|n| n.null_count() > 0);
        let keys = dictionary.normalized_keys();
        let mut rows = keys.iter().enumerate().peekable();
        while let Some((row, key)) = rows.next() {
            let number = match numbers.get_mut(*key) {
                _ if nulls.is_some_and(|n| n.is_null(row)) => NULL,
                None => NULL,
                Some(number) => {
                    if *number == UNSEEN {
                        *number = value_bytes(values.as_ref(), *key).map_or(NULL, |v| self.values.number(v));
                    }
                    *number
                }
            };
            let mut length = 1;
            if nulls.is_none() {
                while rows.next_if(|(_, next)| *next == key).is_some() {
                    length += 1;
                }
            }
            self.push(number, length)?;
        }
        self.known = Some((Arc::clone(values), numbers));
        self.give_up_if_large()
    }

    fn write_values<'a, A>(&mut self, array: A) -> Result<()>
    where
        A: ArrayAccessor,
        A::Item: BytesOf<'a>,
    {
        let mut values = ArrayIter::new(array).map(|v| v.map(BytesOf::bytes)).peekable();
        while let Some(value) = values.next() {
            match value {
                Some(bytes) if self.plain => self.push_plain(bytes)?,
                value => {
                    let mut rows = 1;
                    while values.next_if(|next| *next == value).is_some() {
                        rows += 1;
                    }
                    let number = value.map_or(NULL, |bytes| self.values.number(bytes));
                    self.push(number, rows)?;
                    self.give_up_if_large()?;
                }
            }
        }
        Ok(())
    }

    fn give_up_if_large(&mut self) -> Result<()> {
        if !self.plain && self.values.bytes > DICTIONARY_BYTES_MAX {
            self.end_page()?;
            self.plain = true;
            self.known = None;
        }
        Ok(())
    }

    fn push(&mut self, number: u32, mut rows: u32) -> Result<()> {
        while rows > 0 {
            let now = rows.min(self.page_rows - self.page.rows);
            self.page.push(number, now);
            rows -= now;
            if self.page.rows >= self.page_rows {
                self.end_page()?;
            }
        }
        Ok(())
    }

    fn push_plain(&mut self, value: &[u8]) -> Result<()> {
        let length = u32::try_from(value.len())
            .map_err(|_| ParquetError::General("a string is longer than 4 GiB".to_owned()))?;
        self.page.plain.extend_from_slice(&length.to_le_bytes());
        self.page.plain.extend_from_slice(value);
        let range = &mut self.page.range;
        if range.as_ref().is_none_or(|(low, high)| value < low.as_slice() || value > high.as_slice()) {
            let value = value.to_vec();
            widen(self.chunk.bounds(), range, &value, &value);
        }
        self.push(0, 1)?;
        if self.page.plain.len() >= PLAIN_PAGE_BYTES { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<()> {
        let page = std::mem::take(&mut self.page);
        if page.rows == 0 {
            return Ok(());
        }
        let nulls = page.runs.iter().filter(|(n, _)| *n == NULL).map(|(_, rows)| rows).sum();
        let mut body = Vec::new();
        let levels = page.runs.iter().map(|(n, rows)| (u32::from(*n != NULL), *rows));
        self.chunk.levels(levels, nulls, &mut body)?;
        let mut range = page.range;
        let encoding = if self.plain {
            body.extend_from_slice(&page.plain);
            Encoding::PLAIN
        } else {
            let present = || page.runs.iter().copied().filter(|(n, _)| *n != NULL);
            range = self.range(present().map(|(n, _)| n));
            let width = u32::BITS - (self.values.list.len() as u32).saturating_sub(1).leading_zeros();
            body.push(width as u8);
            encode_runs(present(), width, &mut body);
            Encoding::RLE_DICTIONARY
        };
        self.chunk.add(DataPage { body, encoding, rows: page.rows, nulls, range })
    }

    /// The least and the greatest of numbered values.
    fn range(&self, numbers: impl Iterator<Item = u32>) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut range: Option<(u32, u32)> = None;
        for number in numbers {
            let (low, high) = range.get_or_insert((number, number));
            if number == *low || number == *high {
                continue;
            }
            let value = self.values.get(number);
            if value < self.values.get(*low) {
                *low = number;
            } else if value > self.values.get(*high) {
                *high = number;
            }
        }
        range.map(|(low, high)| (self.values.get(low).to_vec(), self.values.get(high).to_vec()))
    }
}

impl OwnColumn for RepeatedColumn {
    fn write(&mut self, array: &dyn Array) -> Result<()> {
        self.write_array(array)
    }

    fn encoded_bytes(&self) -> usize {
        self.chunk.encoded_bytes() + self.values.bytes + self.page.plain.len()
    }

    fn close(mut self: Box<Self>) -> Result<(Bytes, ColumnCloseResult)> {
        self.end_page()?;
        let mut dictionary = Vec::with_capacity(self.values.bytes);
        for value in &self.values.list {
            dictionary.extend_from_slice(&(value.len() as u32).to_le_bytes());
            dictionary.extend_from_slice(value);
        }
        self.chunk.close(Some((dictionary, self.values.list.len() as u32)))
    }
}

/// A key of a batch's dictionary that was not met yet.
const UNSEEN: u32 = u32::MAX - 1;

/// The bytes of a value of a type that [`is_bytes`]; `None` if it is null.
pub(crate) fn value_bytes(values: &dyn Array, index: usize) -> Option<&[u8]> {
    if values.is_null(index) {
        return None;
    }
    Some(match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value(index).as_bytes(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(index).as_bytes(),
        DataType::Utf8View => values.as_string_view().value(index).as_bytes(),
        DataType::Binary => values.as_binary::<i32>().value(index),
        DataType::LargeBinary => values.as_binary::<i64>().value(index),
        _ => values.as_binary_view().value(index),
    })
}

/// The order of strings, and which of their bounds are kept.
struct Strings {
    /// Bounds are whole characters.
    text: bool,
}

impl Bounds for Strings {
    type Value = Vec<u8>;
    const TYPE: Type = Type::BYTE_ARRAY;

    fn less(&self, a: &Vec<u8>, b: &Vec<u8>) -> bool {
        a < b
    }

    fn short(&self, low: &Vec<u8>, high: &Vec<u8>) -> (Vec<u8>, Option<Vec<u8>>) {
        let low = lower_bound(low, STATISTICS_BYTES, self.text).to_vec();
        (low, upper_bound(high, STATISTICS_BYTES, self.text))
    }

    fn bytes(&self, value: &Vec<u8>) -> Vec<u8> {
        value.clone()
    }

    fn statistics(&self, bounds: Kept<Vec<u8>>, nulls: u64) -> Statistics {
        let (min, max) = (bounds.min.map(ByteArray::from), bounds.max.map(ByteArray::from));
        let statistics = ValueStatistics::new(min, max, None, Some(nulls), false);
        Statistics::ByteArray(
            statistics.with_min_is_exact(bounds.min_is_exact).with_max_is_exact(bounds.max_is_exact),
        )
    }
}
