//! Column chunks that this crate encodes itself: what all of them share once a page's bytes are known.
//!
//! A chunk gathers closed pages, compressed, and says at the end what Parquet wants to know of them:
//! statistics, column index, offset index. Data pages are of version 1; a dictionary page may precede them.

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, Type};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::compress::{Compressor, Symbols};
use crate::rle::encode_runs;

/// How the values of a column are ordered, and what is kept of the least and the greatest.
pub(crate) trait Bounds {
    type Value: Clone + PartialEq;
    /// The physical type of the column.
    const TYPE: Type;

    fn less(&self, a: &Self::Value, b: &Self::Value) -> bool;

    /// Bounds short enough to keep: not above `low`, not below `high`, which may have no short bound.
    fn short(&self, low: &Self::Value, high: &Self::Value) -> (Self::Value, Option<Self::Value>);

    /// As the column index has it.
    fn bytes(&self, value: &Self::Value) -> Vec<u8>;

    fn statistics(&self, bounds: Kept<Self::Value>, nulls: u64) -> Statistics;
}

/// Bounds as they are kept, and whether values of the column are equal to them.
pub(crate) struct Kept<V> {
    pub(crate) min: Option<V>,
    pub(crate) max: Option<V>,
    pub(crate) min_is_exact: bool,
    pub(crate) max_is_exact: bool,
}

/// A page of values, encoded and not yet compressed.
pub(crate) struct DataPage<V> {
    /// Definition levels, if the column has them, and values.
    pub(crate) body: Vec<u8>,
    pub(crate) encoding: Encoding,
    pub(crate) rows: u32,
    pub(crate) nulls: u32,
    /// The least and the greatest value, if there is one.
    pub(crate) range: Option<(V, V)>,
}

/// A column chunk in the making.
pub(crate) struct Chunk<B: Bounds> {
    column: ColumnDescPtr,
    compression: Compression,
    compressor: Compressor,
    pages: Vec<ClosedPage>,
    summary: Summary<B>,
    encoded_bytes: usize,
}

struct ClosedPage {
    page: Page,
    uncompressed: usize,
    rows: u32,
}

impl<B: Bounds> Chunk<B> {
    /// `symbols` says what the data pages are like, which the compressor makes use of.
    pub(crate) fn new(column: ColumnDescPtr, compression: Compression, symbols: Symbols, bounds: B) -> Self {
        Self {
            column,
            compression,
            compressor: Compressor::new(compression, symbols),
            pages: Vec::new(),
            summary: Summary::new(bounds),
            encoded_bytes: 0,
        }
    }

    /// Bytes of the pages so far.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    pub(crate) fn bounds(&self) -> &B {
        &self.summary.bounds
    }

    /// The beginning of a page's body: which rows have a value, given in runs of (1 or 0, rows).
    pub(crate) fn levels(
        &self,
        present: impl Iterator<Item = (u32, u32)>,
        nulls: u32,
        body: &mut Vec<u8>,
    ) -> Result<()> {
        if self.column.max_def_level() == 0 {
            return match nulls {
                0 => Ok(()),
                _ => Err(ParquetError::General("a column that must not be null holds nulls".to_owned())),
            };
        }
        let start = body.len();
        body.extend_from_slice(&[0; 4]);
        encode_runs(present, 1, body);
        let length = (body.len() - start - 4) as u32;
        if let Some(to) = body.get_mut(start..start + 4) {
            to.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, page: DataPage<B::Value>) -> Result<()> {
        self.summary.add(&page);
        let buf = self.compressor.compress(&page.body)?;
        self.encoded_bytes += buf.len();
        let uncompressed = page.body.len();
        let rows = page.rows;
        let page = Page::DataPage {
            buf,
            num_values: rows,
            encoding: page.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.pages.push(ClosedPage { page, uncompressed, rows });
        Ok(())
    }

    /// The whole column chunk, ready to be spliced into a row group; `dictionary` is the body and the
    /// number of values of a dictionary page.
    pub(crate) fn close(mut self, dictionary: Option<(Vec<u8>, u32)>) -> Result<(Bytes, ColumnCloseResult)> {
        let dictionary = match dictionary {
            None => None,
            Some((body, num_values)) => {
                let buf = self.compressor.compress(&body)?;
                let page =
                    Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
                Some(CompressedPage::new(page, body.len()))
            }
        };
        let mut sink = TrackedWrite::new(Vec::with_capacity(self.encoded_bytes));
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut sizes = (0, 0);
        let mut write = |page: CompressedPage| -> Result<(i64, i64)> {
            let spec = writer.write_page(page)?;
            sizes.0 += spec.compressed_size as i64;
            sizes.1 += spec.uncompressed_size as i64;
            Ok((spec.offset as i64, spec.compressed_size as i64))
        };
        let has_dictionary = dictionary.is_some();
        let (dictionary_at, dictionary_bytes) = match dictionary {
            Some(page) => write(page)?,
            None => (0, 0),
        };
        let mut offsets = OffsetIndexBuilder::new();
        for page in std::mem::take(&mut self.pages) {
            let (offset, size) = write(CompressedPage::new(page.page, page.uncompressed))?;
            let size = i32::try_from(size)
                .map_err(|_| ParquetError::General("a page is larger than 2 GiB".to_owned()))?;
            offsets.append_row_count(i64::from(page.rows));
            offsets.append_offset_and_size(offset, size);
        }
        let bytes = Bytes::from(sink.into_inner()?);
        let summary = self.summary;
        let rows = summary.rows;
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(self.compression)
            .set_encodings(summary.encodings(has_dictionary))
            .set_page_encoding_stats(summary.page_encodings(has_dictionary))
            .set_total_compressed_size(sizes.0)
            .set_total_uncompressed_size(sizes.1)
            .set_num_values(rows as i64)
            .set_dictionary_page_offset(has_dictionary.then_some(dictionary_at))
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

/// Makes `range` reach from `low` to `high` at least.
pub(crate) fn widen<B: Bounds>(
    bounds: &B,
    range: &mut Option<(B::Value, B::Value)>,
    low: &B::Value,
    high: &B::Value,
) {
    match range {
        None => *range = Some((low.clone(), high.clone())),
        Some((min, max)) => {
            if bounds.less(low, min) {
                *min = low.clone();
            }
            if bounds.less(max, high) {
                *max = high.clone();
            }
        }
    }
}

/// What the pages say together.
struct Summary<B: Bounds> {
    bounds: B,
    rows: u64,
    nulls: u64,
    range: Option<(B::Value, B::Value)>,
    /// How many data pages there are of each encoding.
    pages: Vec<(Encoding, i32)>,
    index: ColumnIndexBuilder,
    last: Option<(B::Value, B::Value)>,
    ascending: bool,
    descending: bool,
}

impl<B: Bounds> Summary<B> {
    fn new(bounds: B) -> Self {
        Self {
            bounds,
            rows: 0,
            nulls: 0,
            range: None,
            pages: Vec::new(),
            index: ColumnIndexBuilder::new(B::TYPE),
            last: None,
            ascending: true,
            descending: true,
        }
    }

    fn add(&mut self, page: &DataPage<B::Value>) {
        self.rows += u64::from(page.rows);
        self.nulls += u64::from(page.nulls);
        match self.pages.iter_mut().find(|(encoding, _)| *encoding == page.encoding) {
            Some((_, count)) => *count += 1,
            None => self.pages.push((page.encoding, 1)),
        }
        let Some((low, high)) = &page.range else {
            self.index.append(true, Vec::new(), Vec::new(), i64::from(page.nulls));
            return;
        };
        widen(&self.bounds, &mut self.range, low, high);
        let (min, Some(max)) = self.bounds.short(low, high) else {
            self.index.to_invalid();
            return;
        };
        if let Some((last_min, last_max)) = &self.last {
            let less = |a, b| self.bounds.less(a, b);
            self.ascending &= !less(&min, last_min) && !less(&max, last_max);
            self.descending &= !less(last_min, &min) && !less(last_max, &max);
        }
        let bytes = (self.bounds.bytes(&min), self.bounds.bytes(&max));
        self.index.append(false, bytes.0, bytes.1, i64::from(page.nulls));
        self.last = Some((min, max));
    }

    fn encodings(&self, dictionary: bool) -> Vec<Encoding> {
        // Levels are written in runs whatever the values are.
        let mut all = vec![Encoding::RLE];
        all.extend(self.pages.iter().map(|(encoding, _)| *encoding));
        if dictionary && !all.contains(&Encoding::PLAIN) {
            all.push(Encoding::PLAIN);
        }
        all
    }

    fn page_encodings(&self, dictionary: bool) -> Vec<PageEncodingStats> {
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let first = dictionary.then(|| stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
        let pages = self.pages.iter().map(|(encoding, count)| stats(PageType::DATA_PAGE, *encoding, *count));
        first.into_iter().chain(pages).collect()
    }

    fn statistics(&self) -> Statistics {
        let kept = match &self.range {
            None => Kept { min: None, max: None, min_is_exact: false, max_is_exact: false },
            Some((low, high)) => {
                let (min, max) = self.bounds.short(low, high);
                let (min_is_exact, max_is_exact) = (min == *low, max.as_ref() == Some(high));
                Kept { min: Some(min), max, min_is_exact, max_is_exact }
            }
        };
        self.bounds.statistics(kept, self.nulls)
    }

    fn column_index(mut self) -> Result<Option<ColumnIndexMetaData>> {
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
