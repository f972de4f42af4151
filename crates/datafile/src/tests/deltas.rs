//! Columns of integers, dates and times as deltas, read by the Parquet crate.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::*;
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::basic::{BoundaryOrder, Compression, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use proptest::prelude::*;

use crate::delta::Layout;
use crate::groups::{Encoder, GroupWriter};

const PAGE_ROWS: usize = 300;

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
}

fn batch(array: ArrayRef, nullable: bool) -> RecordBatch {
    let field = Field::new("v", array.data_type().clone(), nullable);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap()
}

fn write(batch: &RecordBatch, properties: WriterProperties, layout: Layout, step: usize) -> Bytes {
    let encoders = vec![Encoder::Deltas(layout)];
    let mut writer = GroupWriter::new(batch.schema(), properties, encoders).unwrap();
    for start in (0..batch.num_rows()).step_by(step) {
        writer.write(&batch.slice(start, step.min(batch.num_rows() - start))).unwrap();
    }
    writer.end_body().unwrap();
    let (sink, _) = writer.finish().unwrap();
    Bytes::from(sink.finish().0.concat())
}

/// The rows, all or some, in one batch.
fn read(file: &Bytes, selection: Option<RowSelection>) -> (RecordBatch, Arc<ParquetMetaData>) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let (schema, metadata) = (Arc::clone(builder.schema()), Arc::clone(builder.metadata()));
    let batches: Vec<_> = builder.with_batch_size(217).build().unwrap().map(Result::unwrap).collect();
    (arrow::compute::concat_batches(&schema, &batches).unwrap(), metadata)
}

/// Least and greatest of a page as the column index has them; `None` if all of it is null.
fn page_range(metadata: &ParquetMetaData, page: usize) -> Option<(i64, i64)> {
    match &metadata.column_index().unwrap()[0][0] {
        ColumnIndexMetaData::INT32(index) => {
            index.min_value(page).zip(index.max_value(page)).map(|(a, b)| (i64::from(*a), i64::from(*b)))
        }
        ColumnIndexMetaData::INT64(index) => {
            index.min_value(page).zip(index.max_value(page)).map(|(a, b)| (*a, *b))
        }
        other => panic!("a column index of another type: {other:?}"),
    }
}

/// Writes the numbers, cut to the type's width, and checks what a reader finds, rows and bounds.
fn check<T: ArrowPrimitiveType>(
    data_type: DataType,
    numbers: &[Option<i64>],
    narrow: impl Fn(i64) -> T::Native,
    physical: impl Fn(T::Native) -> i64,
) where
    T::Native: Ord,
{
    let array: PrimitiveArray<T> = numbers.iter().map(|n| n.map(&narrow)).collect();
    let array = array.with_data_type(data_type.clone());
    let nullable = array.null_count() > 0 || numbers.len().is_multiple_of(2);
    let rows = batch(Arc::new(array.clone()), nullable);
    let mut theirs = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties().build())).unwrap();
    theirs.write(&rows).unwrap();
    let theirs = theirs.close().unwrap();
    for layout in Layout::ALL {
        let file = write(&rows, properties().build(), layout, 77);
        let (found, metadata) = read(&file, None);
        assert_eq!(found, rows, "{data_type} {layout:?}");

        let selected = |i: usize| i % 97 >= 70;
        let selectors: Vec<RowSelector> = (0..rows.num_rows())
            .map(|i| if selected(i) { RowSelector::select(1) } else { RowSelector::skip(1) })
            .collect();
        let some: Vec<i32> = (0..rows.num_rows()).filter(|i| selected(*i)).map(|i| i as i32).collect();
        let (found, _) = read(&file, Some(selectors.into()));
        let expected = arrow::compute::take_record_batch(&rows, &Int32Array::from(some)).unwrap();
        assert_eq!(found, expected, "some rows, {data_type} {layout:?}");

        let pages = metadata.offset_index().unwrap()[0][0].page_locations();
        assert_eq!(pages.len(), numbers.len().div_ceil(PAGE_ROWS));
        for (page, location) in pages.iter().enumerate() {
            let start = location.first_row_index as usize;
            let values = array.slice(start, PAGE_ROWS.min(array.len() - start));
            let naive = values
                .iter()
                .flatten()
                .min()
                .map(&physical)
                .zip(values.iter().flatten().max().map(&physical));
            assert_eq!(page_range(&metadata, page), naive, "{data_type} page {page}");
        }
        let chunk = |metadata: &ParquetMetaData| {
            let column = metadata.row_group(0).column(0);
            let statistics = column.statistics().unwrap();
            let bytes = |b: Option<&[u8]>| b.map(<[u8]>::to_vec);
            let bounds = (bytes(statistics.min_bytes_opt()), bytes(statistics.max_bytes_opt()));
            (bounds, statistics.null_count_opt(), column.num_values(), order(metadata))
        };
        assert_eq!(chunk(&metadata), chunk(&theirs), "{data_type}");
    }
}

fn order(metadata: &ParquetMetaData) -> Option<BoundaryOrder> {
    metadata.column_index().and_then(|index| index[0][0].get_boundary_order())
}

macro_rules! check_all {
    ($numbers:expr, $($arrow:ty => $physical:ty),* $(,)?) => {
        $({
            type Native = <$arrow as ArrowPrimitiveType>::Native;
            check::<$arrow>(
                <$arrow>::DATA_TYPE,
                $numbers,
                |n| n as Native,
                |v: Native| i64::from(v as $physical),
            );
        })*
    };
}

fn check_every_type(numbers: &[Option<i64>]) {
    check_all!(
        numbers,
        Int8Type => i32,
        Int16Type => i32,
        Int32Type => i32,
        Int64Type => i64,
        UInt8Type => i32,
        UInt16Type => i32,
        UInt32Type => i32,
        UInt64Type => i64,
        Date32Type => i32,
        Date64Type => i64,
        Time32SecondType => i32,
        Time32MillisecondType => i32,
        Time64MicrosecondType => i64,
        Time64NanosecondType => i64,
        TimestampSecondType => i64,
        TimestampMillisecondType => i64,
        TimestampMicrosecondType => i64,
        TimestampNanosecondType => i64,
        DurationSecondType => i64,
        DurationMillisecondType => i64,
        DurationMicrosecondType => i64,
        DurationNanosecondType => i64,
    );
    let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Paris".into()));
    check::<TimestampMillisecondType>(zoned, numbers, |n| n, |v| v);
}

/// Stretches of numbers of one kind each: anything, constant steps, noise, extremes, nulls.
fn numbers() -> impl Strategy<Value = Vec<Option<i64>>> {
    let extremes =
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), Just(-1), Just(1 << 31), Just(u32::MAX.into())];
    let stretch = prop_oneof![
        prop::collection::vec(any::<Option<i64>>(), 1..80),
        prop::collection::vec(prop::option::weighted(0.9, extremes), 1..80),
        prop::collection::vec(prop::option::weighted(0.8, -9..9i64), 1..200),
        (any::<i64>(), any::<i32>(), 1..200usize).prop_map(|(from, step, length)| {
            (0..length as i64).map(|i| Some(from.wrapping_add(i.wrapping_mul(i64::from(step))))).collect()
        }),
        (1..2 * PAGE_ROWS).prop_map(|length| vec![None; length]),
    ];
    prop::collection::vec(stretch, 1..12).prop_map(|stretches| stretches.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_type_comes_back_with_its_bounds(numbers in numbers()) {
        check_every_type(&numbers);
    }
}

#[test]
fn pages_of_nulls_of_one_value_and_of_extremes() {
    check_every_type(&vec![None; 2 * PAGE_ROWS + 1]);
    check_every_type(&[Some(i64::MIN)]);
    check_every_type(&[vec![None; PAGE_ROWS], vec![Some(7)], vec![None; PAGE_ROWS]].concat());
    check_every_type(&[Some(i64::MAX), Some(i64::MIN)].repeat(PAGE_ROWS));
    // Steps that wrap around, in as few bits as there are.
    check_every_type(&(0..3_000).map(|i: i64| Some(i.wrapping_mul(1 << 28))).collect::<Vec<_>>());
    check_every_type(&(0..3_000).map(|i: i64| Some(i.wrapping_mul(1 << 60))).collect::<Vec<_>>());
}

#[test]
fn without_compression_and_with_much() {
    let walk = (0..5_000i64).map(|i| i * 1_000 + i * i % 77);
    let rows = batch(Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(walk)), false);
    for compression in [Compression::UNCOMPRESSED, Compression::ZSTD(ZstdLevel::try_new(19).unwrap())] {
        for layout in Layout::ALL {
            let file = write(&rows, properties().set_compression(compression).build(), layout, 5_000);
            assert_eq!(read(&file, None).0, rows);
        }
    }
}

#[test]
fn a_column_without_nulls_refuses_them() {
    let field = Field::new("v", DataType::Int32, false);
    let schema = Arc::new(Schema::new(vec![field]));
    let array: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    assert!(array.as_primitive::<Int32Type>().is_null(1));
    let column = parquet::arrow::ArrowSchemaConverter::new().convert(&schema).unwrap().column(0);
    let mut column = crate::integers::column(column, Compression::UNCOMPRESSED, 10, Layout::Tight);
    column.write(array.as_ref()).unwrap();
    let error = column.close().err().unwrap();
    assert!(error.to_string().contains("must not be null"), "{error}");
}
