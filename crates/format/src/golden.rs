//! Holds the bytes still: what is stored today must be readable, and mean the same, for ever.

mod damage;
mod round_trip;

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use prost::Message;
use sha2::{Digest, Sha256};
use tandem_types::{
    Column, ColumnId, CommitId, DatabaseId, Epoch, Partition, PartitionUnit, SchemaId, Seq, TableId,
    TableName, TableSchema, WriterId,
};

use crate::*;

const ADVICE: &str = "stored bytes changed. Databases out there hold the old ones, and hashes and digests were taken of \
     them: a reader of today must find the old meaning in them, and a writer must not write other bytes for it. If a \
     dependency (prost, arrow-ipc) was raised, hold it back or encode by hand; if a record gained a meaning, give it a \
     new field number or kind and raise FORMAT_VERSION. Only a field that older readers may ignore, and whose absence \
     keeps today's bytes, is no change of format.";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn object(n: u64) -> ObjectName {
    ObjectName { base: Seq(n), writer: WriterId(0xabcd_0000_0000_0000 + n), random: 0x1122_3344_5566_7788 }
}

fn file_name(n: u64) -> FileName {
    FileName { partition: Partition(15_706 - n as i64), object: object(n) }
}

fn column(id: u32, name: &str, data_type: DataType, nullable: bool) -> Column {
    Column { id: ColumnId(id), name: name.to_owned(), data_type, nullable }
}

fn def() -> TableDef {
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let item = Arc::new(Field::new("item", DataType::Float64, true));
    TableDef {
        schema: TableSchema {
            columns: vec![
                column(1, "ts", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
                column(2, "host", tag, true),
                column(3, "wärme", DataType::List(item), true),
                column(5, "price", DataType::Decimal128(18, 4), true),
            ],
        },
        timestamp: Some(ColumnId(1)),
        partition_by: PartitionUnit::Day,
        order_by: vec![ColumnId(2), ColumnId(1)],
        options: vec![("compression".into(), "lz4".into()), ("target_file_size".into(), "1000".into())],
    }
}

fn section(segment: Option<ObjectName>) -> Section {
    Section {
        schema_id: SchemaId(2),
        columns: vec![ColumnId(1), ColumnId(5)],
        segment,
        offset: 4096,
        len: 1_000_000,
        crc32c: 0xdead_beef,
        rows: 300,
        time: Some((-5, 1_357_000_000_000_000_000)),
        partitions: vec![(Partition(-1), 1), (Partition(15_706), 299)],
        null_counts: vec![0, 17],
    }
}

fn data_file(n: u64) -> DataFile {
    DataFile {
        name: file_name(n),
        rows: 1_000_000,
        size: 50_000_000,
        body_end: 49_000_000,
        tail_crc32c: 0x0102_0304,
        time: Some((1, 2)),
        folded_through: Seq(99),
        level: 1,
    }
}

/// One operation of each kind, by name, and the hex or (where long) SHA-256 of its message.
fn ops() -> Vec<(&'static str, Op, &'static str)> {
    let table = TableId(7);
    let key = SectionKey { seq: Seq(300), transaction: 1, section: 2 };
    vec![
        ("create schema", Op::CreateSchema { name: "lab".into() }, "0a036c6162"),
        ("drop schema", Op::DropSchema { name: "lab".into() }, "12036c6162"),
        (
            "create table",
            Op::CreateTable(NewTable { table, name: TableName::new("lab", "trips"), def: def() }),
            "ec7bdef3c4b339d891c849551eedd790768c7e43ff82ee80a7f98323020a73ec",
        ),
        ("drop table", Op::DropTable { table }, "2007"),
        (
            "rename table",
            Op::RenameTable { table, to: TableName::public("rides") },
            "2a11080712067075626c69631a057269646573",
        ),
        (
            "add column",
            Op::AddColumn { table, column: column(9, "tip", DataType::Int64, true) },
            "b3af17ae17091287eff9b4164db6ff560af27703463c0b316a5cbca1583d10b2",
        ),
        ("drop column", Op::DropColumn { table, column: ColumnId(9) }, "3a0408071009"),
        (
            "rename column",
            Op::RenameColumn { table, column: ColumnId(9), to: "tips".into() },
            "420a080710091a0474697073",
        ),
        (
            "widen column",
            Op::WidenColumn { table, column: ColumnId(9), to: DataType::Float64 },
            "dafac7a9e60c5c2668e58657eebc93609b9491e50a1b8057d2168dd174128555",
        ),
        ("drop not null", Op::DropNotNull { table, column: ColumnId(9) }, "520408071009"),
        (
            "set options",
            Op::SetOptions {
                table,
                options: vec![("compression".into(), Some("none".into())), ("ttl".into(), None)],
            },
            "5a1e080712130a0b636f6d7072657373696f6e12046e6f6e6512050a0374746c",
        ),
        (
            "set settings",
            Op::SetSettings { settings: vec![("checkpoint_commits".into(), Some("5".into()))] },
            "621912170a12636865636b706f696e745f636f6d6d697473120135",
        ),
        ("truncate", Op::Truncate { table }, "6807"),
        (
            "append",
            Op::Append { table, sections: vec![section(None), section(Some(object(3)))] },
            "ed5601bbf4f550c845f94059c78ed1798c1264dc00a5f9ee4bcd2740634b3960",
        ),
        (
            "replace",
            Op::Replace(Replace {
                table,
                base: Seq(301),
                files: vec![file_name(1)],
                parts: vec![SectionPart { section: key, partition: Partition(-1) }],
                outputs: vec![data_file(4), DataFile { time: None, ..data_file(5) }],
            }),
            "49d8d881188660fbcde6e0c2d70dd3510ce82cc6017363d6d4124e587c5256b0",
        ),
        (
            "checkpoint",
            Op::Checkpoint { seq: Seq(1000), root_hash: [0x5a; 32] },
            "82012508e80712205a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
        ),
        (
            "promote",
            Op::Promote {
                epoch: Epoch(5),
                primary: Some(Primary { node_id: "b".into(), address: "http://b:1".into() }),
            },
            "8a01130805120f0a0162120a687474703a2f2f623a31",
        ),
        ("promote nobody", Op::Promote { epoch: Epoch(6), primary: None }, "8a01020806"),
        (
            "lease",
            Op::Lease { holder: "a".into(), address: "http://a:1".into(), term: 3 },
            "9201110a0161120a687474703a2f2f613a311803",
        ),
    ]
}

fn header() -> CommitHeader {
    let token = Token {
        producer: ProducerId(u128::MAX - 5),
        counter: 12,
        low: 10,
        base: Seq(u64::from(u32::MAX) + 2),
    };
    let ops = ops().into_iter().map(|(_, op, _)| op).collect();
    CommitHeader {
        seq: Seq(77),
        commit_id: CommitId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        writer: WriterId(0xfeed),
        database: DatabaseId(0xdb),
        previous: [7; 32],
        commit_time: 1_700_000_000_000_000,
        raw_clock: -3,
        transactions: vec![
            Transaction { token: Some(token.into()), digest: vec![1, 2, 3], epoch: Some(Epoch(4)), ops },
            Transaction {
                token: None,
                digest: Vec::new(),
                epoch: None,
                ops: vec![Op::DropTable { table: TableId(8) }],
            },
            Transaction {
                token: Some(ForeignToken { text: "Lauf 7".into(), base: Some(Seq(0)) }.into()),
                digest: vec![4; 16],
                epoch: None,
                ops: Vec::new(),
            },
            Transaction {
                token: Some(ForeignToken { text: "x".into(), base: None }.into()),
                digest: Vec::new(),
                epoch: None,
                ops: Vec::new(),
            },
            Transaction {
                token: Some(TransactionToken::Content { window: 600_000_000 }),
                digest: vec![5; 16],
                epoch: None,
                ops: Vec::new(),
            },
        ],
    }
}

fn root() -> CheckpointRoot {
    CheckpointRoot {
        seq: Seq(1000),
        database: DatabaseId(0xdb),
        header_hash: [9; 32],
        commit_time: 1_700_000_000_000_000,
        age: 600_000_000,
        epoch: Epoch(0),
        next_table: TableId(9),
        token_floor: Seq(3),
        recorded: Some((Seq(500), [0x5a; 32])),
        digest: 0xfedc_ba98_7654_3210,
        primary: Some(Primary { node_id: "b".into(), address: "http://b:1".into() }),
        lease: Some(Lease { holder: "a".into(), address: "http://a:1".into(), term: 3 }),
        logged_rows: 0,
        logged_bytes: 0,
        schemas: vec!["lab".into(), "public".into()],
        settings: vec![("checkpoint_commits".into(), "5".into())],
        tables: vec![TableState {
            table: TableId(7),
            name: TableName::public("rides"),
            def: def(),
            schema_id: SchemaId(4),
            next_column: ColumnId(10),
            created: Seq(1),
            changed: Seq(900),
            column_added: vec![Seq(1), Seq(1), Seq(1), Seq(800)],
            renamed: SchemaId(3),
        }],
        parts: vec![PartRef { base: Seq(1000), hash: [0xcc; 32], len: 12_345 }],
    }
}

/// One entry of each kind.
fn entries() -> Vec<PartEntry> {
    let table = TableId(7);
    let token = CommittedToken { counter: 12, seq: Seq(77), rows: 600, digest: vec![1, 2, 3] };
    vec![
        PartEntry::File { table, created: Seq(302), file: data_file(4) },
        PartEntry::Tail {
            table,
            key: SectionKey { seq: Seq(300), transaction: 1, section: 2 },
            section: section(Some(object(3))),
            live: vec![Partition(15_706)],
        },
        PartEntry::RemovedFile {
            removed: Seq(302),
            table,
            partition_by: PartitionUnit::Hour,
            file: file_name(1),
            size: 50_000,
        },
        PartEntry::RemovedSegment { removed: Seq(302), segment: object(2) },
        PartEntry::Producer {
            producer: ProducerId(5),
            low: 10,
            last_seq: Seq(77),
            since: Seq(3),
            committed: vec![token],
        },
        PartEntry::Foreign {
            seq: Seq(77),
            transaction: 2,
            token: CommittedForeign { key: u128::MAX - 1, digest: 7, rows: 600, age: 600_000_000 },
        },
    ]
}

#[test]
fn every_kind_of_operation_is_frozen() {
    let mut wrong = Vec::new();
    for (name, op, expected) in ops() {
        let message = pb::Op::from(&op).encode_to_vec();
        let found = if message.len() <= 40 { hex(&message) } else { sha(&message) };
        if found != expected {
            wrong.push(format!("{name}: \"{expected}\" is now \"{found}\""));
        }
    }
    assert!(wrong.is_empty(), "{ADVICE}\n{}", wrong.join("\n"));
}

#[test]
fn a_commits_header_is_frozen() {
    let encoded = encode_header(&header()).unwrap();
    assert_eq!(hex(&encoded.bytes[..12]), "544e444d434d540a02000000", "magic and version. {ADVICE}");
    assert_eq!(
        sha(&encoded.bytes),
        "82350554ccaf17a37fb9d684b0236a59261f0df42284a9a5b8a063056c90139f",
        "{ADVICE}"
    );
    assert_eq!(
        hex(&encoded.hash),
        "b1d8247baf740e0b7c4e75e7e81d28cb51e229b1894be14128e26916b988cb62",
        "{ADVICE}"
    );
    assert_eq!(encoded.bytes.len() % 64, 0, "the payload begins aligned");
}

#[test]
fn a_checkpoints_root_is_frozen() {
    let (bytes, hash) = encode_root(&root()).unwrap();
    assert_eq!(hex(&bytes[..12]), "544e444d524f4f5402000000", "magic and version. {ADVICE}");
    assert_eq!(hex(&hash), "57ed8481c58f57c4eb5d1b32c90687bfeee012f3a9e48d22474f2c58e6e459d8", "{ADVICE}");
    assert_eq!(hex(&hash), sha(&bytes), "the root's hash is that of the whole object");
}

#[test]
fn every_kind_of_entry_is_frozen() {
    let (bytes, part) = encode_part(Seq(1000), &entries()).unwrap();
    assert_eq!(hex(&bytes[..12]), "544e444d5041525402000000", "magic and version. {ADVICE}");
    assert_eq!(
        hex(&part.hash),
        "c1e23234023ee0d0d1347c5d42fe598df57fb1c78badcaafdddc4fe2772e083e",
        "{ADVICE}"
    );
    assert_eq!(hex(&part.hash), sha(&bytes), "a part's hash is that of the whole object");
}

#[test]
fn samples_come_back_as_they_were() {
    let encoded = encode_header(&header()).unwrap();
    let mut object = encoded.bytes.to_vec();
    object.extend_from_slice(b"payload");
    let decoded = decode_commit(&object.into()).unwrap();
    assert_eq!((decoded.header, decoded.hash), (header(), encoded.hash));
    assert_eq!(&decoded.payload[..], b"payload");

    let (bytes, hash) = encode_root(&root()).unwrap();
    assert_eq!(decode_root(&bytes).unwrap(), (root(), hash));

    let (bytes, part) = encode_part(Seq(1000), &entries()).unwrap();
    assert_eq!(decode_part(&part, &bytes).unwrap(), entries());
}

#[test]
fn what_was_logged_has_fields_of_its_own_in_the_root() {
    let root = CheckpointRoot { logged_rows: 5, logged_bytes: 700, ..root() };
    let (bytes, hash) = encode_root(&root).unwrap();
    let fields = [0x88, 0x01, 5, 0x90, 0x01, 0xbc, 0x05];
    assert!(bytes.windows(fields.len()).any(|bytes| bytes == fields), "{ADVICE}");
    assert_eq!(decode_root(&bytes).unwrap(), (root, hash));
}

/// As version 1 framed it.
fn framed_1(object: &[u8]) -> bytes::Bytes {
    let mut object = object.to_vec();
    object[8..12].copy_from_slice(&1u32.to_le_bytes());
    object.into()
}

#[test]
fn what_version_1_wrote_is_still_read_and_has_the_bytes_of_then() {
    let mut header = header();
    header.transactions.truncate(2);
    header.transactions[0].ops.retain(|op| !matches!(op, Op::Promote { .. } | Op::Lease { .. }));
    let encoded = encode_header(&header).unwrap();
    let object = framed_1(&encoded.bytes);
    assert_eq!(sha(&object), "b0c133dde06cfce285494fcddd6b95bde543d07fce2b976c4557974724e780ad", "{ADVICE}");
    let decoded = decode_commit(&object).unwrap();
    assert_eq!((decoded.header, decoded.hash), (header, encoded.hash));

    let root = CheckpointRoot { primary: None, lease: None, ..root() };
    let object = framed_1(&encode_root(&root).unwrap().0);
    assert_eq!(sha(&object), "356660d3f32af6c515510258f406ccd61770a2c99a43d9638f135c1838288def", "{ADVICE}");
    assert_eq!(decode_root(&object).unwrap().0, root);

    let mut entries = entries();
    entries.retain(|e| !matches!(e, PartEntry::Foreign { .. }));
    let (bytes, part) = encode_part(Seq(1000), &entries).unwrap();
    let object = framed_1(&bytes);
    assert_eq!(sha(&object), "b578ec2b6f2b3910f40c994376b7e76696e70f17ed00f15875d965e9d00a0849", "{ADVICE}");
    let part = PartRef { hash: Sha256::digest(&object).into(), ..part };
    assert_eq!(decode_part(&part, &object).unwrap(), entries);
}
