//! Attacks by name.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatch};
use arrow_ipc::*;
use bytes::Bytes;
use flatbuffers::FlatBufferBuilder;
use tandem_types::ErrorKind;

use super::{client_stream, framed, messages};
use crate::guard::{MessageKind, StreamGuard, check_flight_data, check_stream, guarded};
use crate::{Limits, decode_section};

const HUGE: i64 = 100_000_000_000;

fn numbers() -> RecordBatch {
    let values = Int64Array::from_iter_values((0..2_400).map(|i| i / 8));
    RecordBatch::try_from_iter([("v", Arc::new(values) as ArrayRef)]).unwrap()
}

/// The schema and the batch of a stream with one batch.
fn parts(codec: Option<CompressionType>) -> Vec<(Vec<u8>, Vec<u8>)> {
    messages(&client_stream(&[numbers()], codec))
}

fn refused(parts: &[(Vec<u8>, Vec<u8>)], why: &str) {
    let limits = Limits::default();
    let (header, body) = parts.last().unwrap();
    let error = check_flight_data(header, body, &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains(why), "{error}");
    let error = decode_section(&framed(parts), None, &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains(why), "{error}");
}

/// Overwrites the only place in `bytes` where `old` stands.
fn replace(bytes: &mut [u8], old: &[i64], new: &[i64]) {
    let pattern: Vec<u8> = old.iter().flat_map(|n| n.to_le_bytes()).collect();
    let places: Vec<usize> =
        (0..=bytes.len() - pattern.len()).filter(|&i| bytes[i..].starts_with(&pattern)).collect();
    assert_eq!(places.len(), 1);
    for (i, n) in new.iter().enumerate() {
        bytes[places[0] + 8 * i..][..8].copy_from_slice(&n.to_le_bytes());
    }
}

#[test]
fn a_buffer_of_100_gb_declared_in_a_message_of_19_kb() {
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let mut parts = parts(Some(codec));
        let body = &mut parts[1].1;
        assert!(body.len() < 20_000);
        // the values' buffer begins the body, for there are no nulls; its prefix tells its length
        body[..8].copy_from_slice(&HUGE.to_le_bytes());
        refused(&parts, "declare more than");
    }
    let mut parts = parts(None);
    replace(&mut parts[1].0, &[0, 19_200], &[0, HUGE]);
    refused(&parts, "outside the body");
}

#[test]
fn a_body_of_100_gb_that_is_not_there() {
    let mut parts = parts(None);
    replace(&mut parts[1].0, &[19_200, 0], &[HUGE, 0]);
    let error = check_stream(&framed(&parts), &Limits::default()).unwrap_err();
    assert!(
        error.message().contains("outside the body") || error.message().contains("breaks off"),
        "{error}"
    );
}

/// A record batch's header, freely made up.
fn header(
    rows: i64,
    nodes: &[(i64, i64)],
    buffers: &[(i64, i64)],
    codec: Option<i8>,
    variadic: &[i64],
) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let nodes: Vec<FieldNode> = nodes.iter().map(|&(len, nulls)| FieldNode::new(len, nulls)).collect();
    let buffers: Vec<Buffer> = buffers.iter().map(|&(offset, len)| Buffer::new(offset, len)).collect();
    let nodes = fbb.create_vector(&nodes);
    let buffers = fbb.create_vector(&buffers);
    let variadic = fbb.create_vector(variadic);
    let compression = codec.map(|codec| {
        let args =
            BodyCompressionArgs { codec: CompressionType(codec), method: BodyCompressionMethod::BUFFER };
        BodyCompression::create(&mut fbb, &args)
    });
    let args = RecordBatchArgs {
        length: rows,
        nodes: Some(nodes),
        buffers: Some(buffers),
        compression,
        variadicBufferCounts: Some(variadic),
    };
    let batch = arrow_ipc::RecordBatch::create(&mut fbb, &args).as_union_value();
    finish(fbb, MessageHeader::RecordBatch, batch)
}

fn finish(
    mut fbb: FlatBufferBuilder<'_>,
    header_type: MessageHeader,
    header: flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>,
) -> Vec<u8> {
    let args = MessageArgs {
        version: MetadataVersion::V5,
        header_type,
        header: Some(header),
        bodyLength: 0,
        custom_metadata: None,
    };
    let message = Message::create(&mut fbb, &args);
    fbb.finish(message, None);
    fbb.finished_data().to_vec()
}

#[test]
fn made_up_batches() {
    let limits = Limits::default();
    let check = |h: &[u8], body: &[u8]| check_flight_data(h, body, &limits);
    let body = [0u8; 64];
    assert_eq!(
        check(&header(8, &[(8, 0)], &[(0, 0), (0, 64)], None, &[]), &body).unwrap(),
        MessageKind::Batch
    );

    let bad: [(&str, Vec<u8>); 12] = [
        ("-1 rows", header(-1, &[], &[], None, &[])),
        ("rows", header(i64::MAX, &[], &[], None, &[])),
        ("declares", header(8, &[(1_000_000_000_000, 1_000_000_000_000)], &[], None, &[])),
        ("-8 values", header(8, &[(-8, 0)], &[], None, &[])),
        ("of them null", header(8, &[(8, 9)], &[], None, &[])),
        ("-1 nulls", header(8, &[(8, -1)], &[], None, &[])),
        ("outside", header(8, &[(8, 0)], &[(i64::MAX, 8)], None, &[])),
        ("outside", header(8, &[(8, 0)], &[(8, i64::MAX)], None, &[])),
        ("outside", header(8, &[(8, 0)], &[(-8, 8)], None, &[])),
        ("overlap", header(8, &[(8, 0)], &[(0, 64), (0, 64)], None, &[])),
        ("not supported", header(8, &[(8, 0)], &[(0, 64)], Some(9), &[])),
        ("view columns", header(8, &[(8, 0)], &[(0, 64)], None, &[i64::MAX, i64::MAX])),
    ];
    for (why, h) in bad {
        let error = check(&h, &body).unwrap_err();
        assert!(error.message().contains(why), "{why}: {error}");
    }
    // a compressed buffer that is too short for its own length, and one of a negative length
    let short = header(8, &[(8, 0)], &[(0, 4)], Some(1), &[]);
    assert!(check(&short, &body).unwrap_err().message().contains("too few"));
    let negative = header(8, &[(8, 0)], &[(0, 16)], Some(1), &[]);
    assert!(check(&negative, &(-5i64).to_le_bytes().repeat(2)).unwrap_err().message().contains("-5"));
}

#[test]
fn many_buffers_that_are_small_alone() {
    let body: Vec<u8> = (100i64 << 20).to_le_bytes().repeat(100);
    let buffers: Vec<(i64, i64)> = (0..100).map(|i| (8 * i, 8)).collect();
    let h = header(8, &[(8, 0)], &buffers, Some(1), &[]);
    assert!(check_flight_data(&h, &body, &Limits::default()).unwrap_err().message().contains("declare more"));
}

#[test]
fn an_lz4_frame_that_yields_more_than_it_declares() {
    // 64 MB of zeros, said to be 8 bytes
    let zeros = Int64Array::from(vec![0; 8 << 20]);
    let batch = RecordBatch::try_from_iter([("v", Arc::new(zeros) as ArrayRef)]).unwrap();
    let mut parts = messages(&client_stream(&[batch], Some(CompressionType::LZ4_FRAME)));
    assert!(parts[1].1.len() < 1 << 20);
    parts[1].1[..8].copy_from_slice(&8i64.to_le_bytes());
    let limits = Limits { max_decompressed_bytes: 1 << 20, ..Limits::default() };
    let error = check_flight_data(&parts[1].0, &parts[1].1, &limits).unwrap_err();
    assert!(error.message().contains("declare more"), "{error}");
}

#[test]
fn a_real_bomb_of_zstd() {
    let zeros = Int64Array::from(vec![0; 8 << 20]);
    let batch = RecordBatch::try_from_iter([("v", Arc::new(zeros) as ArrayRef)]).unwrap();
    let stream = Bytes::from(client_stream(&[batch], Some(CompressionType::ZSTD)));
    assert!(stream.len() < 20_000);
    let limits = Limits { max_decompressed_bytes: 32 << 20, ..Limits::default() };
    assert!(decode_section(&stream, None, &limits).unwrap_err().message().contains("declare more"));
}

#[test]
fn rows_without_data() {
    let nulls = RecordBatch::try_from_iter_with_nullable([(
        "n",
        Arc::new(NullArray::new(1 << 40)) as ArrayRef,
        true,
    )]);
    let parts = messages(&client_stream(&[nulls.unwrap()], None));
    refused(&parts, "1099511627776 rows");
}

/// A schema whose only column is nested `depth` deep, and which has `columns` columns.
fn schema(depth: usize, columns: usize, name: &str, kind: Type) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let name = fbb.create_string(name);
    let mut field = None;
    for level in 0..depth {
        let children: Vec<_> = field.into_iter().collect();
        let children = fbb.create_vector(&children);
        let kind = if level == 0 { kind } else { Type::Struct_ };
        let type_ = match kind {
            Type::Int => Int::create(&mut fbb, &IntArgs { bitWidth: 24, is_signed: true }).as_union_value(),
            _ => Struct_::create(&mut fbb, &Struct_Args {}).as_union_value(),
        };
        let args = FieldArgs {
            name: Some(name),
            type_type: kind,
            type_: Some(type_),
            children: Some(children),
            ..FieldArgs::default()
        };
        field = Some(Field::create(&mut fbb, &args));
    }
    let fields = vec![field.unwrap(); columns];
    let fields = fbb.create_vector(&fields);
    let schema = Schema::create(&mut fbb, &SchemaArgs { fields: Some(fields), ..SchemaArgs::default() });
    finish(fbb, MessageHeader::Schema, schema.as_union_value())
}

#[test]
fn made_up_schemas() {
    let limits = Limits::default();
    let check = |h: &[u8]| check_flight_data(h, &[], &limits);
    let name = "x".repeat(255);
    assert_eq!(check(&schema(32, 1, &name, Type::Struct_)).unwrap(), MessageKind::Schema);
    assert_eq!(check(&schema(1, 4096, "x", Type::Struct_)).unwrap(), MessageKind::Schema);
    for (why, h) in [
        ("levels deep", schema(33, 1, "x", Type::Struct_)),
        ("header is broken", schema(10_000, 1, "x", Type::Struct_)),
        ("columns", schema(1, 4097, "x", Type::Struct_)),
        ("bytes", schema(1, 1, &"x".repeat(256), Type::Struct_)),
        ("malformed or unknown type", schema(1, 1, "x", Type::Int)),
        ("header has", vec![0; (1 << 20) + 1]),
        ("header is broken", schema(30, 4096, "x", Type::Struct_)),
        ("header is broken", vec![]),
        ("header is broken", vec![0xff; 100]),
    ] {
        let error = check(&h).unwrap_err();
        assert!(error.message().contains(why), "{why}: {error}");
    }
}

#[test]
fn order_and_end_of_a_stream() {
    let good = parts(None);
    let limits = Limits::default();
    let error = |parts: &[_]| check_stream(&framed(parts), &limits).unwrap_err().message().to_owned();
    check_stream(&framed(&good), &limits).unwrap();
    assert!(error(&good[1..]).contains("no schema"));
    assert!(error(&[]).contains("no schema"));
    assert!(error(&[good[0].clone(), good[0].clone()]).contains("second schema"));
    let mut longer = framed(&good).to_vec();
    longer.push(0);
    assert!(check_stream(&longer, &limits).unwrap_err().message().contains("1 bytes follow"));
    longer.truncate(longer.len() - 9);
    assert!(check_stream(&longer, &limits).unwrap_err().message().contains("breaks off"));
}

#[test]
fn dictionaries_that_add_up() {
    use arrow::array::{DictionaryArray, StringArray};
    let tags: DictionaryArray<arrow::datatypes::Int32Type> =
        StringArray::from(vec!["a", "b"]).iter().collect();
    let batch = RecordBatch::try_from_iter([("t", Arc::new(tags) as ArrayRef)]).unwrap();
    let parts = messages(&client_stream(&[batch], None));
    let feed = |limits: Limits, times: usize| {
        let mut guard = StreamGuard::new(limits);
        guard.check(&parts[0].0, &parts[0].1).unwrap();
        (0..times).try_for_each(|_| guard.check(&parts[1].0, &parts[1].1).map(|_| ()))
    };
    feed(Limits { max_dictionaries: 5, ..Limits::default() }, 5).unwrap();
    let error = feed(Limits { max_dictionaries: 5, ..Limits::default() }, 6).unwrap_err();
    assert!(error.message().contains("more than 5 dictionaries"), "{error}");
    assert!(feed(Limits { max_dictionary_bytes: 10, ..Limits::default() }, 1).is_err());
    // replaced, not added
    feed(Limits { max_dictionary_bytes: 1000, ..Limits::default() }, 1000).unwrap();
}

#[test]
fn a_panic_becomes_an_error() {
    let error = guarded::<()>("reading", || panic!("at byte {}", 7)).unwrap_err();
    assert_eq!(error.message(), "reading: the decoder gave up: at byte 7");
}

#[test]
fn a_wrong_checksum_is_named() {
    let bytes = Bytes::from(client_stream(&[numbers()], None));
    let error = decode_section(&bytes, Some(1), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("0x00000001 was written"), "{error}");
}
