//! What is written comes back: every type, names by id, times, keys.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
    StructArray, TimestampMillisecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use tandem_types::{ColumnId, TableSchema};

use super::{open, read_all, schema, store};
use crate::{
    Compression, KeyRange, KeyValue, RowDigest, WriteSpec, cast_to_schema, read_batches, write_file,
};

const ROWS: usize = 9;

fn list_of(values: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([2, 0, 1, 0, 3, 1, 0, 0, 2]);
    let nulls = NullBuffer::from(vec![true, true, true, false, true, true, true, false, true]);
    Arc::new(ListArray::new(field, offsets, values, Some(nulls)))
}

fn samples() -> Vec<ArrayRef> {
    use DataType::*;
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(3),
        None,
        Some(0),
        Some(127),
        Some(3),
        Some(1),
        None,
        Some(2),
        Some(90),
    ]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![
        Some("a"),
        Some(""),
        None,
        Some("tandem"),
        Some("a"),
        Some("ü"),
        Some("longer than twelve bytes"),
        None,
        Some("a"),
    ]));
    let dict = |key: DataType, value: DataType| Dictionary(Box::new(key), Box::new(value));
    let mut columns = vec![
        new_null_array(&Null, ROWS),
        Arc::new((0..ROWS).map(|i| (i % 4 != 2).then_some(i % 3 == 0)).collect::<BooleanArray>()) as ArrayRef,
    ];
    let mut of_ints = vec![
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Decimal32(9, 2),
        Decimal64(18, 4),
        Decimal128(38, 10),
        Decimal256(76, 20),
        Decimal128(5, 0),
    ];
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        of_ints.extend([Timestamp(unit, None), Timestamp(unit, Some("Europe/Paris".into())), Duration(unit)]);
    }
    columns.extend(of_ints.iter().map(|t| cast(&ints, t).unwrap()));
    let small = cast(&ints, &Int32).unwrap();
    let of_small = [Date32, Time32(TimeUnit::Second), Time32(TimeUnit::Millisecond), dict(Int8, Int32)];
    columns.extend(of_small.iter().map(|t| cast(&small, t).unwrap()));
    let of_large = [Date64, Time64(TimeUnit::Microsecond), Time64(TimeUnit::Nanosecond)];
    columns.extend(of_large.iter().map(|t| cast(&ints, t).unwrap()));
    let of_text = [
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        dict(Int8, Utf8),
        dict(Int32, Utf8),
        dict(UInt16, LargeUtf8),
        dict(UInt64, Utf8),
        dict(Int32, Binary),
        dict(Int32, Utf8View),
    ];
    columns.extend(of_text.iter().map(|t| cast(&text, t).unwrap()));
    let fixed = Arc::new(StringArray::from([Some("abcd"), None, Some("0000")].repeat(3))) as ArrayRef;
    let fixed = cast(&cast(&fixed, &Binary).unwrap(), &FixedSizeBinary(4)).unwrap();
    columns.push(fixed);

    let tags = cast(&text, &dict(Int8, Utf8)).unwrap();
    for values in [&ints, &text, &tags] {
        let list = list_of(Arc::clone(values));
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        columns.push(cast(&list, &LargeList(Arc::clone(&item))).unwrap());
        columns.push(list_of(Arc::clone(&list)));
        columns.push(list);
    }
    let child =
        |name: &str, a: &ArrayRef| (Arc::new(Field::new(name, a.data_type().clone(), true)), a.clone());
    let pair = StructArray::from(vec![child("x", &ints), child("y.z", &tags)]);
    columns.push(list_of(Arc::new(pair.clone())));
    columns.push(Arc::new(pair));
    let entries = StructArray::from(vec![
        (
            Arc::new(Field::new("key", Int32, false)),
            Arc::new(Int32Array::from_iter_values(0..ROWS as i32)) as ArrayRef,
        ),
        child("value", &text),
    ]);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let offsets = OffsetBuffer::from_lengths([1; ROWS]);
    columns.push(Arc::new(MapArray::new(field, offsets, entries, None, false)));
    columns
}

async fn round_trip(spec: &WriteSpec, batches: &[RecordBatch]) -> (TableSchema, Vec<RecordBatch>) {
    let (pieces, meta) = write_file(spec, batches.iter().cloned().map(Ok)).unwrap();
    let objects = store("d/f.parquet", pieces).await;
    let (stored, read) = read_all(open(&objects, "d/f.parquet", &meta), 1000).await.unwrap();
    let ids: Vec<ColumnId> = stored.columns.iter().map(|c| c.id).collect();
    let digest = |batches: &[RecordBatch]| {
        let mut digest = RowDigest::default();
        batches.iter().for_each(|b| digest.add(b, &ids).unwrap());
        digest
    };
    assert_eq!(digest(&read), digest(batches), "digest of what was read");
    let cast = read.iter().map(|b| cast_to_schema(b, &ids, &spec.schema).unwrap()).collect();
    (stored, cast)
}

#[tokio::test]
async fn every_type_comes_back_as_declared() {
    for column in samples() {
        let data_type = column.data_type().clone();
        for compression in [Compression::default(), Compression::Lz4, Compression::None] {
            let spec = WriteSpec {
                schema: schema(&[("c.d", data_type.clone())]),
                compression,
                ..Default::default()
            };
            let batch = RecordBatch::try_new(spec.schema.arrow(), vec![column.clone()]).unwrap();
            let (stored, read) =
                round_trip(&spec, &[batch.clone(), batch.slice(2, 5), batch.slice(0, 0)]).await;
            let expected =
                arrow::compute::concat_batches(&batch.schema(), [&batch, &batch.slice(2, 5)]).unwrap();
            let read = arrow::compute::concat_batches(&batch.schema(), &read).unwrap();
            assert_eq!(read, expected, "{data_type}");
            assert_eq!(stored.columns[0].id, ColumnId(1));
        }
    }
}

#[test]
fn types_that_parquet_lacks_are_refused_by_name() {
    let spec = WriteSpec {
        schema: schema(&[("gap", DataType::Interval(IntervalUnit::DayTime))]),
        ..WriteSpec::default()
    };
    let error = write_file(&spec, std::iter::empty()).unwrap_err();
    assert!(error.message().contains("\"gap\""), "{error}");
}

#[tokio::test]
async fn a_file_tells_its_times_keys_and_columns() {
    let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut schema = schema(&[("host", tag.clone()), ("ts", ms), ("v", DataType::Int64)]);
    schema.columns[2].id = ColumnId(77);
    let spec = WriteSpec {
        schema,
        timestamp: Some(ColumnId(2)),
        sort: vec![ColumnId(1), ColumnId(2)],
        extra_metadata: vec![("tandem:test".to_owned(), "yes".to_owned())],
        ..WriteSpec::default()
    };
    let hosts: ArrayRef = Arc::new(StringArray::from(vec!["a", "a", "b"]));
    let batch = RecordBatch::try_new(
        spec.schema.arrow(),
        vec![
            cast(&hosts, &tag).unwrap(),
            Arc::new(TimestampMillisecondArray::from(vec![-5, 7, 6])),
            Arc::new(Int64Array::from(vec![1, 2, 3])),
        ],
    )
    .unwrap();
    let (pieces, meta) = write_file(&spec, std::iter::once(Ok(batch.clone()))).unwrap();
    assert_eq!((meta.rows, meta.time), (3, Some((-5, 7))));
    let bytes = |s: &str| KeyValue::Bytes(s.as_bytes().to_vec());
    assert_eq!(meta.key_range, Some(KeyRange { min: bytes("a"), max: bytes("b") }));

    let objects = store("f", pieces).await;
    let reader = open(&objects, "f", &meta);
    let footer = reader.footer().await.unwrap();
    let sorted = footer.metadata.row_group(0).sorting_columns().unwrap();
    assert_eq!(sorted.iter().map(|c| c.column_idx).collect::<Vec<_>>(), [0, 1]);
    assert!(footer.metadata.offset_index().is_some() && footer.metadata.column_index().is_some());
    let pairs = footer.metadata.file_metadata().key_value_metadata().unwrap();
    assert!(pairs.iter().any(|p| p.key == "tandem:test" && p.value.as_deref() == Some("yes")));
    assert_eq!(footer.schema, spec.schema);

    let some = read_batches(reader, Some(&[ColumnId(77), ColumnId(5), ColumnId(1)]), 2).await.unwrap();
    assert_eq!(some.schema.columns.iter().map(|c| c.id.0).collect::<Vec<_>>(), [1, 77]);
    let rows: Vec<RecordBatch> = futures::TryStreamExt::try_collect(some.stream).await.unwrap();
    assert_eq!(rows[0], batch.project(&[0, 2]).unwrap().slice(0, 2));
}

#[tokio::test]
async fn a_file_without_rows_is_a_file() {
    let spec = WriteSpec { schema: schema(&[("v", DataType::Int64)]), ..WriteSpec::default() };
    let (_, read) = round_trip(&spec, &[]).await;
    assert!(read.is_empty());
}

#[test]
fn batches_are_brought_to_a_schema_by_id() {
    let old = schema(&[("a", DataType::Int32), ("b", DataType::Utf8)]);
    let batch = RecordBatch::try_new(
        old.arrow(),
        vec![Arc::new(Int32Array::from(vec![1, -1])), Arc::new(StringArray::from(vec![Some("x"), None]))],
    )
    .unwrap();
    let mut new =
        schema(&[("text", DataType::Utf8View), ("n", DataType::Int64), ("more", DataType::Float64)]);
    (new.columns[0].id, new.columns[1].id) = (ColumnId(2), ColumnId(1));
    let ids = [ColumnId(1), ColumnId(2)];
    let cast = cast_to_schema(&batch, &ids, &new).unwrap();
    assert_eq!(cast.schema(), new.arrow());
    assert_eq!(cast.column(1).as_ref(), &Int64Array::from(vec![1, -1]) as &dyn Array);
    assert_eq!(cast.column(2).null_count(), 2);

    new.columns[1].data_type = DataType::Int16;
    let error = cast_to_schema(&batch, &ids, &new).unwrap_err();
    assert_eq!(error.message(), "column \"n\": Int32 does not widen to Int16");
    new.columns.remove(1);
    new.columns[1].nullable = false;
    assert!(cast_to_schema(&batch, &ids, &new).is_err());
}

#[tokio::test]
async fn repeated_strings_in_every_shape_come_back() {
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for data_type in [tag, DataType::Utf8, DataType::BinaryView] {
        let spec = WriteSpec { schema: schema(&[("t", data_type.clone())]), ..WriteSpec::default() };
        // Runs across pages and batches, alternation, nulls; then so many long values that the dictionary
        // is given up within the row group.
        let value = |i: usize| match i {
            0..20_000 => Some("one".to_owned()),
            20_000..30_000 => [None, Some("a".to_owned()), Some("b".to_owned())][i % 3].clone(),
            30_000..70_000 => Some(format!("host_{}", i / 700)),
            70_000..78_000 => Some(format!("{i:->200}")),
            _ => (!i.is_multiple_of(5)).then(|| format!("z{}", i % 7)),
        };
        let text: ArrayRef = Arc::new((0..90_000).map(value).collect::<StringArray>());
        let whole =
            RecordBatch::try_new(spec.schema.arrow(), vec![cast(&text, &data_type).unwrap()]).unwrap();
        let batches: Vec<_> =
            (0..90_000).step_by(7_001).map(|at| whole.slice(at, 7_001.min(90_000 - at))).collect();
        let (_, read) = round_trip(&spec, &batches).await;
        let read = arrow::compute::concat_batches(&whole.schema(), &read).unwrap();
        let plain =
            |b: &RecordBatch| cast(&cast(b.column(0), &DataType::Binary).unwrap(), &DataType::Utf8).unwrap();
        assert_eq!(plain(&read).as_ref(), text.as_ref(), "{data_type}");
    }
}

#[tokio::test]
async fn bounds_of_repeated_strings_hold_per_page() {
    let spec = WriteSpec {
        schema: schema(&[("t", DataType::Utf8)]),
        sort: vec![ColumnId(1)],
        ..WriteSpec::default()
    };
    let long = |i: i64| format!("{}{i:06}", "ü".repeat(40));
    let text: ArrayRef = Arc::new((0..30_000).map(|i| Some(long(i / 600))).collect::<StringArray>());
    let batch = RecordBatch::try_new(spec.schema.arrow(), vec![text]).unwrap();
    let (pieces, meta) = write_file(&spec, std::iter::once(Ok(batch))).unwrap();
    let objects = store("f", pieces).await;
    let footer = open(&objects, "f", &meta).footer().await.unwrap();
    let column = footer.metadata.row_group(0).column(0);
    let statistics = column.statistics().unwrap();
    assert!(statistics.min_bytes_opt().unwrap() <= long(0).as_bytes() && !statistics.min_is_exact());
    assert!(statistics.max_bytes_opt().unwrap() >= long(49).as_bytes() && !statistics.max_is_exact());
    assert_eq!(statistics.null_count_opt(), Some(0));
    let pages = &footer.metadata.offset_index().unwrap()[0][0].page_locations;
    let parquet::file::page_index::column_index::ColumnIndexMetaData::BYTE_ARRAY(index) =
        &footer.metadata.column_index().unwrap()[0][0]
    else {
        panic!("no column index");
    };
    assert!(pages.len() > 2);
    for (page, location) in pages.iter().enumerate() {
        let end = pages.get(page + 1).map_or(30_000, |p| p.first_row_index);
        let (first, last) = (long(location.first_row_index / 600), long((end - 1) / 600));
        assert!(index.min_value(page).unwrap() <= first.as_bytes());
        assert!(index.max_value(page).unwrap() >= last.as_bytes());
    }
}
