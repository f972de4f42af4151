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
use parquet::basic::{Compression, Encoding, PageType, Type};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::bounds::{lower_bound, upper_bound};
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
    is_bytes(data_type) && matches!(compression, Compression::ZSTD(_) | Compression::UNCOMPRESSED)
}

/// Whether a type is one of the encodings of strings and binaries, dictionaries aside.
pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// One column of the row group in progress.
pub(crate) struct RepeatedColumn {
    column: ColumnDescPtr,
    compression: Compression,
    /// Kept from page to page: to make one costs more than to compress a page of runs.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    page_rows: u32,
    text: bool,
    values: Values,
    /// The dictionary of the batch before, and what its keys mean here.
    known: Option<(ArrayRef, Vec<u32>)>,
    page: OpenPage,
    pages: Vec<ClosedPage>,
    /// No more dictionary: values go into pages as they are.
    plain: bool,
    encoded_bytes: usize,
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

struct ClosedPage {
    page: Page,
    uncompressed: usize,
    rows: u32,
    nulls: u32,
    range: Option<(Vec<u8>, Vec<u8>)>,
}

impl RepeatedColumn {
    pub(crate) fn new(column: ColumnDescPtr, compression: Compression, page_rows: u32, text: bool) -> Self {
        Self {
            column,
            compression,
            zstd: None,
            page_rows,
            text,
            values: Values::default(),
            known: None,
            page: OpenPage::default(),
            pages: Vec::new(),
            plain: false,
            encoded_bytes: 0,
        }
    }

    /// About how many bytes the column takes so far.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.encoded_bytes + self.values.bytes + self.page.plain.len()
    }

    pub(crate) fn write(&mut self, array: &dyn Array) -> Result<()> {
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
            return self.write(plain.as_ref());
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
        widen(&mut self.page.range, value, value);
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
        if self.column.max_def_level() > 0 {
            body.extend_from_slice(&[0; 4]);
            encode_runs(page.runs.iter().map(|(n, rows)| (u32::from(*n != NULL), *rows)), 1, &mut body);
            let length = (body.len() - 4) as u32;
            body.splice(..4, length.to_le_bytes());
        } else if nulls > 0 {
            return Err(ParquetError::General("a column that must not be null holds nulls".to_owned()));
        }
        let mut range = page.range;
        let encoding = if self.plain {
            body.extend_from_slice(&page.plain);
            Encoding::PLAIN
        } else {
            let present = || page.runs.iter().copied().filter(|(n, _)| *n != NULL);
            let mut last = NULL;
            for (number, _) in present() {
                if number != last {
                    let value = self.values.get(number);
                    widen(&mut range, value, value);
                    last = number;
                }
            }
            let width = u32::BITS - (self.values.list.len() as u32).saturating_sub(1).leading_zeros();
            body.push(width as u8);
            encode_runs(present(), width, &mut body);
            Encoding::RLE_DICTIONARY
        };
        let uncompressed = body.len();
        let buf = self.compress(body)?;
        self.encoded_bytes += buf.len();
        let page_kind = Page::DataPage {
            buf,
            num_values: page.rows,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.pages.push(ClosedPage { page: page_kind, uncompressed, rows: page.rows, nulls, range });
        Ok(())
    }

    fn compress(&mut self, body: Vec<u8>) -> Result<Bytes> {
        let Compression::ZSTD(level) = self.compression else { return Ok(body.into()) };
        let failed = |e| ParquetError::External(Box::new(e));
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(level.compression_level()).map_err(failed)?),
        };
        zstd.compress(&body).map(Bytes::from).map_err(failed)
    }

    /// The whole column chunk, ready to be spliced into a row group.
    pub(crate) fn close(mut self) -> Result<(Bytes, ColumnCloseResult)> {
        self.end_page()?;
        let mut sink = TrackedWrite::new(Vec::with_capacity(self.encoded_bytes()));
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut sizes = (0, 0);
        let mut write = |page: Page, uncompressed: usize| -> Result<(i64, i64)> {
            let spec = writer.write_page(CompressedPage::new(page, uncompressed))?;
            sizes.0 += spec.compressed_size as i64;
            sizes.1 += spec.uncompressed_size as i64;
            Ok((spec.offset as i64, spec.compressed_size as i64))
        };

        let mut body = Vec::with_capacity(self.values.bytes);
        for value in &self.values.list {
            body.extend_from_slice(&(value.len() as u32).to_le_bytes());
            body.extend_from_slice(value);
        }
        let dictionary_size = body.len();
        let dictionary = Page::DictionaryPage {
            buf: self.compress(body)?,
            num_values: self.values.list.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let (dictionary_at, dictionary_bytes) = write(dictionary, dictionary_size)?;

        let mut offsets = OffsetIndexBuilder::new();
        let mut summary = Summary::new(self.text);
        for page in std::mem::take(&mut self.pages) {
            summary.add(&page);
            let (offset, size) = write(page.page, page.uncompressed)?;
            let size = i32::try_from(size)
                .map_err(|_| ParquetError::General("a page is larger than 2 GiB".to_owned()))?;
            offsets.append_row_count(i64::from(page.rows));
            offsets.append_offset_and_size(offset, size);
        }
        let bytes = Bytes::from(sink.into_inner()?);
        let (rows, encodings) = (summary.rows, summary.encodings());
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(self.compression)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(encodings)
            .set_total_compressed_size(sizes.0)
            .set_total_uncompressed_size(sizes.1)
            .set_num_values(rows as i64)
            .set_dictionary_page_offset(Some(dictionary_at))
            .set_data_page_offset(dictionary_at + dictionary_bytes)
            .set_statistics(summary.statistics())
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows,
            metadata,
            bloom_filter: None,
            column_index: summary.column_index()?,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes, close))
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

fn widen(range: &mut Option<(Vec<u8>, Vec<u8>)>, low: &[u8], high: &[u8]) {
    match range {
        None => *range = Some((low.to_vec(), high.to_vec())),
        Some((min, max)) => {
            if low < min.as_slice() {
                *min = low.to_vec();
            }
            if high > max.as_slice() {
                *max = high.to_vec();
            }
        }
    }
}

/// What the pages say together.
struct Summary {
    text: bool,
    rows: u64,
    nulls: u64,
    range: Option<(Vec<u8>, Vec<u8>)>,
    pages: [i32; 2],
    index: ColumnIndexBuilder,
    last: Option<(Vec<u8>, Vec<u8>)>,
    ascending: bool,
    descending: bool,
}

impl Summary {
    fn new(text: bool) -> Self {
        Self {
            text,
            rows: 0,
            nulls: 0,
            range: None,
            pages: [0; 2],
            index: ColumnIndexBuilder::new(Type::BYTE_ARRAY),
            last: None,
            ascending: true,
            descending: true,
        }
    }

    fn add(&mut self, page: &ClosedPage) {
        self.rows += u64::from(page.rows);
        self.nulls += u64::from(page.nulls);
        let [dictionary, plain] = &mut self.pages;
        *(if page.page.encoding() == Encoding::PLAIN { plain } else { dictionary }) += 1;
        let Some((low, high)) = &page.range else {
            self.index.append(true, Vec::new(), Vec::new(), i64::from(page.nulls));
            return;
        };
        widen(&mut self.range, low, high);
        let min = lower_bound(low, STATISTICS_BYTES, self.text).to_vec();
        match upper_bound(high, STATISTICS_BYTES, self.text) {
            Some(max) => {
                if let Some((last_min, last_max)) = &self.last {
                    self.ascending &= *last_min <= min && *last_max <= max;
                    self.descending &= *last_min >= min && *last_max >= max;
                }
                self.last = Some((min.clone(), max.clone()));
                self.index.append(false, min, max, i64::from(page.nulls));
            }
            None => self.index.to_invalid(),
        }
    }

    fn encodings(&self) -> Vec<PageEncodingStats> {
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let [dictionary, plain] = self.pages;
        let mut all = vec![stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1)];
        all.extend(
            (dictionary > 0).then(|| stats(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, dictionary)),
        );
        all.extend((plain > 0).then(|| stats(PageType::DATA_PAGE, Encoding::PLAIN, plain)));
        all
    }

    fn statistics(&self) -> Statistics {
        let (low, high) = match &self.range {
            None => (None, None),
            Some((low, high)) => (
                Some(lower_bound(low, STATISTICS_BYTES, self.text).to_vec()),
                upper_bound(high, STATISTICS_BYTES, self.text),
            ),
        };
        let exact =
            |bound: &Option<Vec<u8>>, value: Option<&Vec<u8>>| bound.as_ref() == value && value.is_some();
        let min_exact = exact(&low, self.range.as_ref().map(|r| &r.0));
        let max_exact = exact(&high, self.range.as_ref().map(|r| &r.1));
        let statistics = ValueStatistics::new(
            low.map(ByteArray::from),
            high.map(ByteArray::from),
            None,
            Some(self.nulls),
            false,
        );
        Statistics::ByteArray(statistics.with_min_is_exact(min_exact).with_max_is_exact(max_exact))
    }

    fn column_index(mut self) -> Result<Option<ColumnIndexMetaData>> {
        use parquet::basic::BoundaryOrder;
        if !self.index.valid() {
            return Ok(None);
        }
        self.index.set_boundary_order(match (self.ascending, self.descending) {
            (true, _) => BoundaryOrder::ASCENDING,
            (false, true) => BoundaryOrder::DESCENDING,
            (false, false) => BoundaryOrder::UNORDERED,
        });
        self.index.build().map(Some)
    }
}
