//! Damaged, cut, forged and newer objects: an error that says so, never a panic, never another meaning.

use bytes::Bytes;
use prost::Message;
use tandem_types::{ErrorKind, Result, Seq};

use super::{entries, header, root};
use crate::*;

type Reader = Box<dyn Fn(&Bytes) -> Result<String>>;

/// Samples: what was stored, and how it is read.
fn objects() -> Vec<(&'static str, Bytes, Reader)> {
    let (part_bytes, part) = encode_part(Seq(1000), &entries()).unwrap();
    vec![
        (
            "commit",
            encode_header(&header()).unwrap().bytes,
            Box::new(|b| decode_commit(b).map(|c| format!("{:?} {:?}", c.header, c.hash))),
        ),
        ("root", encode_root(&root()).unwrap().0, Box::new(|b| decode_root(b).map(|r| format!("{:?}", r.0)))),
        ("part", part_bytes, Box::new(move |b| decode_part(&part, b).map(|p| format!("{p:?}")))),
        (
            "identity",
            encode_identity(&Identity { database: tandem_types::DatabaseId(0xdb) }).into(),
            Box::new(|b| decode_identity(b).map(|i| format!("{i:?}"))),
        ),
    ]
}

#[test]
fn a_flipped_byte_is_found_or_does_not_matter() {
    // The identity is left out: a flipped digit of its id is another id, which every object's header then contradicts.
    for (name, bytes, read) in objects().into_iter().filter(|(name, ..)| *name != "identity") {
        let truth = read(&bytes).unwrap();
        for position in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[position] ^= mask;
                match read(&damaged.into()) {
                    Ok(found) => assert_eq!(found, truth, "{name}, byte {position} ^ {mask:02x}"),
                    Err(e) => {
                        let version = (8..12).contains(&position) && e.kind() == ErrorKind::NewerFormat;
                        assert!(version || e.kind() == ErrorKind::Damaged, "{name}, byte {position}: {e}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_object_that_was_cut_off_is_found() {
    for (name, bytes, read) in objects() {
        let truth = read(&bytes).unwrap();
        for length in 0..bytes.len() {
            match read(&bytes.slice(..length)) {
                // Only the padding behind the header, or the last line's end, was cut.
                Ok(found) => assert!(found == truth && length + 64 > bytes.len(), "{name} cut to {length}"),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "{name} cut to {length}: {e}"),
            }
        }
    }
}

#[test]
fn a_newer_version_is_named_and_not_read() {
    for (name, bytes, read) in objects() {
        if matches!(name, "identity" | "part") {
            continue; // text; known by its hash before anything else
        }
        let mut newer = bytes.to_vec();
        newer[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        // As that version would write it: its checksum covers the version.
        let length = u32::from_le_bytes(newer[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..16]), &newer[20..20 + length]);
        newer[16..20].copy_from_slice(&crc.to_le_bytes());
        let error = read(&newer.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{name}");
        let needed = format!("version {}", FORMAT_VERSION + 1);
        assert!(error.message().contains(&needed), "{name}: {error}");
    }
}

fn commit_object(message: &[u8]) -> Bytes {
    frame::wrap(b"TNDMCMT\n", message).unwrap().into()
}

/// A commit with one transaction whose one operation has these bytes.
fn commit_with_op(op: &[u8]) -> Bytes {
    let nested = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    let mut message = pb::CommitHeader { transactions: Vec::new(), ..(&header()).try_into().unwrap() };
    message.transactions.clear();
    let mut bytes = message.encode_to_vec();
    bytes.extend(nested(8, &nested(4, op)));
    commit_object(&bytes)
}

#[test]
fn an_unknown_kind_of_record_stops_the_reader() {
    let known = decode_commit(&commit_with_op(&[0x20, 7])).unwrap().header;
    assert_eq!(known.transactions[0].ops, [Op::DropTable { table: tandem_types::TableId(7) }]);

    // Field 1000, a varint: a kind of operation that some later version writes.
    let error = decode_commit(&commit_with_op(&[0xc0, 0x3e, 7])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);

    // The same for a checkpoint's entries.
    let bytes: Bytes = frame::wrap(b"TNDMPART", &[0x0a, 3, 0xc0, 0x3e, 7]).unwrap().into();
    let hash = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &bytes)).into();
    let part = PartRef { base: Seq(1), hash, len: bytes.len() as u64 };
    assert_eq!(decode_part(&part, &bytes).unwrap_err().kind(), ErrorKind::NewerFormat);
}

#[test]
fn forged_lengths_fail_before_memory_is_taken() {
    // A frame that claims 4 GiB.
    let mut frame = commit_object(&[]).to_vec();
    frame[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode_commit(&frame.into()).unwrap_err().kind(), ErrorKind::Damaged);

    // Fields of 2^60 bytes under a right checksum: bytes, packed numbers, messages, at several depths.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    for tag in [0x12u8, 0x22, 0x2a, 0x42] {
        let message = [&[tag][..], &huge].concat();
        assert_eq!(
            decode_commit(&commit_object(&message)).unwrap_err().kind(),
            ErrorKind::Damaged,
            "{tag:x}"
        );
        let nested = commit_with_op(&[&[0x72][..], &huge].concat());
        assert_eq!(decode_commit(&nested).unwrap_err().kind(), ErrorKind::Damaged);
    }
    // An Arrow schema whose flatbuffer is made of such numbers.
    for filler in [0x00u8, 0x04, 0x7f, 0xff] {
        let schema = [filler; 64];
        assert!(crate::schema_bytes::decode_fields(&schema).is_err(), "{filler:02x}");
    }
}

#[test]
fn a_damaged_arrow_schema_never_panics_through() {
    let bytes = crate::schema_bytes::encode_fields(vec![arrow_schema::Field::new(
        "c",
        arrow_schema::DataType::Decimal128(10, 2),
        true,
    )]);
    for position in 0..bytes.len() {
        for mask in [0x01, 0x40, 0xff] {
            let mut damaged = bytes.clone();
            damaged[position] ^= mask;
            if let Err(e) = crate::schema_bytes::decode_fields(&damaged) {
                assert_eq!(e.kind(), ErrorKind::Damaged);
            }
        }
    }
}
