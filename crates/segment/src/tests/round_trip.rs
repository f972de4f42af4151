use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::Int32Type;
use arrow_ipc::CompressionType;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use proptest::prelude::*;

use super::{Rng, client_stream, columns, every_kind, joined, messages};
use crate::{DecodedSection, Limits, decode_section, encode_section};

fn round_trip(batches: &[RecordBatch]) -> DecodedSection {
    let section = encode_section(&batches[0].schema(), batches).unwrap();
    assert_eq!(section.rows, batches.iter().map(|b| b.num_rows() as u64).sum::<u64>());
    let bytes = joined(&section);
    let decoded = decode_section(&bytes, Some(section.crc32c), &Limits::default()).unwrap();
    assert_eq!(decoded.schema, batches[0].schema());
    assert_eq!(decoded.batches, batches);
    // equal input, equal bytes
    assert_eq!(joined(&encode_section(&batches[0].schema(), batches).unwrap()), bytes);
    decoded
}

#[test]
fn every_kind_of_column() {
    for rows in [0, 1, 7, 64, 300] {
        round_trip(&[every_kind(rows, rows as u64)]);
    }
    let batch = every_kind(300, 1);
    round_trip(&[batch.slice(0, 0), batch.slice(3, 70), batch.slice(299, 1), batch.slice(300, 0)]);
}

#[test]
fn compressed_streams_of_clients() {
    let batches = [every_kind(200, 5)];
    for codec in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let bytes = Bytes::from(client_stream(&batches, codec));
        assert_eq!(decode_section(&bytes, None, &Limits::default()).unwrap().batches, batches);
    }
}

#[test]
fn long_compressed_buffers() {
    // many LZ4 blocks per buffer, both compressible and not
    let mut rng = Rng(3);
    let noise: Vec<i64> = (0..100_000).map(|_| rng.next() as i64).collect();
    let even: Vec<i64> = vec![7; 100_000];
    let batch = RecordBatch::try_from_iter([
        ("noise", Arc::new(Int64Array::from(noise)) as ArrayRef),
        ("even", Arc::new(Int64Array::from(even)) as ArrayRef),
    ])
    .unwrap();
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let bytes = Bytes::from(client_stream(std::slice::from_ref(&batch), Some(codec)));
        let decoded = decode_section(&bytes, None, &Limits::default()).unwrap();
        assert_eq!(decoded.batches, std::slice::from_ref(&batch));
    }
}

fn tagged(values: &[&str], keys: &[i32]) -> RecordBatch {
    let array = DictionaryArray::<Int32Type>::new(
        Int32Array::from(keys.to_vec()),
        Arc::new(StringArray::from(values.to_vec())),
    );
    RecordBatch::try_from_iter_with_nullable([("tag", Arc::new(array) as ArrayRef, true)]).unwrap()
}

#[test]
fn dictionaries_equal_grown_replaced_and_shrunk() {
    let a = tagged(&["x", "y"], &[0, 1, 0]);
    let batches = [
        a.clone(),
        tagged(&["x", "y"], &[1, 1]),
        tagged(&["x", "y", "z"], &[2, 0]),
        tagged(&["q"], &[0]),
        tagged(&[], &[]),
        a.clone(),
    ];
    round_trip(&batches);

    // equal dictionaries are written once, also when they are other arrays with the same values
    let count = |batches: &[RecordBatch]| {
        let bytes = joined(&encode_section(&batches[0].schema(), batches).unwrap());
        messages(&bytes)
            .iter()
            .filter(|(header, _)| {
                arrow_ipc::root_as_message(header).unwrap().header_as_dictionary_batch().is_some()
            })
            .count()
    };
    assert_eq!(count(&[a.clone(), a.clone(), tagged(&["x", "y"], &[1])]), 1);
    assert_eq!(count(&[a, tagged(&["x", "y", "z"], &[2])]), 2);
}

#[test]
fn no_batches_and_no_columns() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
    let section = encode_section(&schema, &[]).unwrap();
    let decoded = decode_section(&joined(&section), Some(section.crc32c), &Limits::default()).unwrap();
    assert_eq!(decoded.schema, schema);
    assert!(decoded.batches.is_empty());

    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    assert_eq!(round_trip(&[empty]).batches[0].num_rows(), 5);
}

#[test]
fn metadata_of_the_schema_goes_and_of_fields_stays() {
    let note = HashMap::from([("k".to_owned(), "v".to_owned()), ("a".to_owned(), "b".to_owned())]);
    let field = Field::new("a", DataType::Int32, false).with_metadata(note.clone());
    let schema = Arc::new(Schema::new_with_metadata(vec![field.clone()], note));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int32Array::from(vec![1]))]).unwrap();
    let section = encode_section(&schema, &[batch]).unwrap();
    let decoded = decode_section(&joined(&section), None, &Limits::default()).unwrap();
    assert_eq!(*decoded.schema, Schema::new(vec![field]));
}

#[test]
fn large_buffers_are_not_copied_in_either_direction() {
    let values = Int64Array::from_iter_values(0..10_000);
    let place = values.values().inner().as_ptr();
    let batch = RecordBatch::try_from_iter([("v", Arc::new(values) as ArrayRef)]).unwrap();
    let section = encode_section(&batch.schema(), &[batch]).unwrap();
    assert!(section.chunks.iter().any(|c| c.as_ptr() == place));

    let bytes = joined(&section);
    let decoded = decode_section(&bytes, None, &Limits::default()).unwrap();
    let place =
        decoded.batches[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().values().inner().as_ptr();
    assert!(bytes.as_ptr_range().contains(&place));
}

#[test]
fn an_unaligned_section_is_readable() {
    let batch = every_kind(50, 9);
    let section = encode_section(&batch.schema(), std::slice::from_ref(&batch)).unwrap();
    let mut shifted = vec![0u8; 3];
    shifted.extend_from_slice(&joined(&section));
    let bytes = Bytes::from(shifted).slice(3..);
    let decoded = decode_section(&bytes, Some(section.crc32c), &Limits::default()).unwrap();
    assert_eq!(decoded.batches, [batch]);
}

#[test]
fn a_slice_of_views_does_not_drag_the_rest_along() {
    let long = "x".repeat(100);
    let views = StringViewArray::from_iter_values((0..10_000).map(|i| format!("{long}{i}")));
    let batch = RecordBatch::try_from_iter([("v", Arc::new(views) as ArrayRef)]).unwrap();
    let slice = batch.slice(5_000, 10);
    let section = encode_section(&batch.schema(), std::slice::from_ref(&slice)).unwrap();
    assert!(section.len < 10_000, "{} bytes", section.len);
    round_trip(&[slice]);
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let wide =
        Schema::new((0..5000).map(|i| Field::new(format!("c{i}"), DataType::Null, true)).collect::<Vec<_>>());
    assert!(encode_section(&Arc::new(wide), &[]).unwrap_err().message().contains("5000 columns"));

    let mut deep = Field::new("leaf", DataType::Int32, true);
    for _ in 0..40 {
        deep = Field::new("list", DataType::List(Arc::new(deep)), true);
    }
    assert!(
        encode_section(&Arc::new(Schema::new(vec![deep])), &[]).unwrap_err().message().contains("nested")
    );

    let name = Field::new("n".repeat(300), DataType::Int32, true);
    assert!(
        encode_section(&Arc::new(Schema::new(vec![name])), &[]).unwrap_err().message().contains("300 bytes")
    );

    let note = HashMap::from([("k".to_owned(), "v".repeat(2 << 20))]);
    let noted = Field::new("n", DataType::Int32, true).with_metadata(note);
    assert!(
        encode_section(&Arc::new(Schema::new(vec![noted])), &[]).unwrap_err().message().contains("header")
    );

    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
    let other = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert!(encode_section(&schema, &[other]).unwrap_err().message().contains("schema"));
}

#[test]
fn batches_beyond_the_limit_are_split() {
    let rows = Limits::MAX_ROWS_PER_BATCH as usize + 5;
    let batch =
        RecordBatch::try_from_iter_with_nullable([("n", Arc::new(NullArray::new(rows)) as ArrayRef, true)]);
    let batch = batch.unwrap();
    let section = encode_section(&batch.schema(), &[batch]).unwrap();
    assert_eq!(section.rows, rows as u64);
    let decoded = decode_section(&joined(&section), None, &Limits::default()).unwrap();
    assert_eq!(decoded.batches.iter().map(|b| b.num_rows()).collect::<Vec<_>>(), [rows - 5, 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_batches(
        kinds in prop::collection::vec(0..columns::KINDS, 1..6),
        seed in any::<u64>(),
        sizes in prop::collection::vec((1usize..60, 0usize..20), 1..5),
    ) {
        let mut rng = Rng(seed);
        let mut batches = Vec::new();
        for (rows, cut) in sizes {
            let (fields, arrays): (Vec<_>, Vec<_>) =
                kinds.iter().map(|&k| columns::column(k, rows, &mut rng)).unzip();
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
            let cut = cut.min(rows);
            batches.push(batch.slice(cut, rows - cut));
        }
        round_trip(&batches);
    }
}
