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
        primary_key: Vec::new(),
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
        on_duplicate: OnDuplicate::Keep,
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
        ("delete", Op::Mutate(delete()), "087faee099cec5398d2dd59f7bb9da2c07cf805faf5dfd940b9e7044a67caa61"),
        ("update", Op::Mutate(update()), "d92e2ad409b12752e5c9d02e996835b2725650641618fb461ee7ed100af52843"),
        ("lookup", Op::Mutate(lookup()), "1209e6fde3c718e0d3bbc02d0c2019a4aee5fd91a53dbea504d3bf8b14cf4388"),
        (
            "drop partitions",
            Op::DropPartitions { table, partitions: vec![Partition(-1), Partition(15_706)] },
            "a201080807120401b4f501",
        ),
        (
            "restore table",
            Op::RestoreTable(Box::new(image())),
            "148aff0a9d18f309056fd54af71e2145fce128c1573f3fe6d6c4980ad94edffd",
        ),
        ("horizon", Op::Horizon { horizon: Seq(90), history_start: Seq(80) }, "b20104085a1050"),
        (
            "pin",
            Op::Pin(pin()),
            "ba01230a06666f726b2d3110461a0d73333a2f2f6f746865722f646222066120666f726b280a",
        ),
        ("unpin", Op::Unpin { id: "fork-1".into() }, "c20106666f726b2d31"),
    ]
}

fn pin() -> Pin {
    Pin {
        id: "fork-1".into(),
        seq: Seq(70),
        store: Some("s3://other/db".into()),
        reason: "a fork".into(),
        expires: Some(5),
    }
}

fn value(id: u32) -> Box<Expr> {
    Box::new(Expr::Column { column: ColumnId(id), data_type: DataType::Float64 })
}

fn constant(byte: u8) -> Literal {
    Literal { ipc: vec![byte; 3] }
}

fn delete() -> Mutation {
    let compare = |op, right: Box<Expr>| Expr::Binary { op, left: value(5), right };
    let late = compare(BinaryOp::GtEq, Box::new(Expr::Now));
    let listed = Expr::InList { of: value(2), list: constant(1), negated: true };
    let or = Expr::Binary { op: BinaryOp::Or, left: Box::new(late), right: Box::new(listed) };
    Mutation {
        table: TableId(7),
        kind: MutationKind::Delete { predicate: or },
        time: Some((-5, 5)),
        statement: "DELETE FROM rides".into(),
    }
}

fn update() -> Mutation {
    let like = Expr::Like {
        of: value(2),
        pattern: Box::new(Expr::Literal(constant(2))),
        negated: true,
        ignore_case: true,
    };
    let cast = Expr::Cast { of: Box::new(Expr::Negate(value(5))), to: DataType::Int64 };
    let case = Expr::Case {
        branches: vec![(like.clone(), cast.clone()), (Expr::IsNull(value(3)), Expr::Now)],
        otherwise: Some(Box::new(Expr::Literal(constant(3)))),
    };
    let bare = Expr::Case { branches: vec![(like.clone(), cast)], otherwise: None };
    Mutation {
        table: TableId(7),
        kind: MutationKind::Update {
            predicate: Expr::Not(Box::new(like)),
            assignments: vec![(ColumnId(5), case), (ColumnId(3), bare)],
        },
        time: None,
        statement: String::new(),
    }
}

fn lookup() -> Mutation {
    let kind = MutationKind::Lookup { keys: 1, delete: false, section: section(Some(object(3))) };
    Mutation { table: TableId(7), kind, time: None, statement: String::new() }
}

fn pending() -> PendingMutation {
    let key = MutationKey { seq: Seq(300), transaction: 1, section: 2, ordinal: 3 };
    PendingMutation { key, commit_time: 1_700_000_000_000_000, mutation: delete() }
}

fn image() -> TableImage {
    let key = SectionKey { seq: Seq(300), transaction: 1, section: 2 };
    TableImage {
        as_of: Seq(301),
        state: root().tables.remove(0),
        files: vec![(Seq(299), data_file(4))],
        tail: vec![(key, section(None), vec![Partition(-1)])],
        mutations: vec![pending()],
    }
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
        horizon: Seq(0),
        history_start: Seq(0),
        pins: Vec::new(),
        brought_back: None,
        schemas: vec!["lab".into(), "public".into()],
        settings: vec![("checkpoint_commits".into(), "5".into())],
        tables: vec![TableState {
            restored: Seq(0),
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
        PartEntry::Mutation { table, pending: Box::new(pending()) },
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
    assert_eq!(hex(&encoded.bytes[..12]), "544e444d434d540a03000000", "magic and version. {ADVICE}");
    assert_eq!(
        sha(&encoded.bytes),
        "98ee3461449be7dd46b9b101977413bef6ba0bc20465521a707c3a2401cd6789",
        "{ADVICE}"
    );
    assert_eq!(
        hex(&encoded.hash),
        "0f5044ae1850a1464d3ba0cfe264f2811aa2d2699651bbe57090ea9ee6025aac",
        "{ADVICE}"
    );
    assert_eq!(encoded.bytes.len() % 64, 0, "the payload begins aligned");
}

#[test]
fn a_checkpoints_root_is_frozen() {
    let (bytes, hash) = encode_root(&root()).unwrap();
    assert_eq!(hex(&bytes[..12]), "544e444d524f4f5403000000", "magic and version. {ADVICE}");
    assert_eq!(hex(&hash), "71e31f0e9d36cca68fb91893b2c50c0c18a132ce7cd43486ff5ce8f9093570e2", "{ADVICE}");
    assert_eq!(hex(&hash), sha(&bytes), "the root's hash is that of the whole object");
}

#[test]
fn every_kind_of_entry_is_frozen() {
    let (bytes, part) = encode_part(Seq(1000), &entries()).unwrap();
    assert_eq!(hex(&bytes[..12]), "544e444d5041525403000000", "magic and version. {ADVICE}");
    assert_eq!(
        hex(&part.hash),
        "efbe99093854cb431bae500fc9609de3b6bc26391a073d9f821c7e78f00eae61",
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
fn history_has_fields_of_its_own_in_the_root() {
    let brought_back = Some((Seq(2), Seq(3)));
    let pins = vec![pin()];
    let root = CheckpointRoot { horizon: Seq(5), history_start: Seq(4), pins, brought_back, ..root() };
    let (bytes, hash) = encode_root(&root).unwrap();
    for fields in [&[0x98, 0x01, 5, 0xa0, 0x01, 4, 0xaa, 0x01][..], &[0xb0, 0x01, 2, 0xb8, 0x01, 3]] {
        assert!(bytes.windows(fields.len()).any(|bytes| bytes == fields), "{ADVICE}");
    }
    assert_eq!(decode_root(&bytes).unwrap(), (root, hash));
}

#[test]
fn keys_have_fields_of_their_own() {
    let keyed = TableDef { primary_key: vec![ColumnId(1), ColumnId(2)], ..def() };
    let plain = crate::pb::TableDef::from(&def()).encode_to_vec();
    let stored = crate::pb::TableDef::from(&keyed).encode_to_vec();
    assert_eq!(stored, [&plain[..], &[0x3a, 2, 1, 2]].concat(), "{ADVICE}");

    let plain = crate::pb::Section::from(&section(None)).encode_to_vec();
    let rules = [
        (OnDuplicate::Replace, &[0x60, 1][..]),
        (OnDuplicate::Ignore, &[0x60, 2]),
        (OnDuplicate::Merge, &[0x60, 3]),
        (OnDuplicate::Update(vec![ColumnId(5)]), &[0x60, 4, 0x6a, 1, 5]),
    ];
    for (on_duplicate, bytes) in rules {
        let section = Section { on_duplicate, ..section(None) };
        let stored = crate::pb::Section::from(&section);
        assert_eq!(stored.encode_to_vec(), [&plain[..], bytes].concat(), "{ADVICE}");
        assert_eq!(Section::try_from(stored).unwrap(), section);
    }
}

#[test]
fn what_was_logged_has_fields_of_its_own_in_the_root() {
    let root = CheckpointRoot { logged_rows: 5, logged_bytes: 700, ..root() };
    let (bytes, hash) = encode_root(&root).unwrap();
    let fields = [0x88, 0x01, 5, 0x90, 0x01, 0xbc, 0x05];
    assert!(bytes.windows(fields.len()).any(|bytes| bytes == fields), "{ADVICE}");
    assert_eq!(decode_root(&bytes).unwrap(), (root, hash));
}

/// So many of the operations, and of the entries, were known to versions 1 and 2.
const FIRST_OPS: [usize; 2] = [16, 19];
const FIRST_ENTRIES: [usize; 2] = [5, 6];

/// As an older version framed it.
fn framed(version: u32, object: &[u8]) -> bytes::Bytes {
    let magic: &[u8; 8] = object[..8].try_into().unwrap();
    let length = u32::from_le_bytes(object[12..16].try_into().unwrap()) as usize;
    crate::frame::wrap_as(version, magic, &object[20..20 + length]).unwrap().into()
}

fn check_commit(version: u32, header: CommitHeader, expected: &str) {
    let encoded = encode_header(&header).unwrap();
    let object = framed(version, &encoded.bytes);
    assert_eq!(sha(&object), expected, "{ADVICE}");
    let decoded = decode_commit(&object).unwrap();
    assert_eq!((decoded.header, decoded.hash), (header, encoded.hash));
}

fn check_root(version: u32, root: CheckpointRoot, expected: &str) {
    let object = framed(version, &encode_root(&root).unwrap().0);
    assert_eq!(sha(&object), expected, "{ADVICE}");
    assert_eq!(decode_root(&object).unwrap().0, root);
}

fn check_entries(version: u32, entries: Vec<PartEntry>, expected: &str) {
    let (bytes, part) = encode_part(Seq(1000), &entries).unwrap();
    let object = framed(version, &bytes);
    assert_eq!(sha(&object), expected, "{ADVICE}");
    let part = PartRef { hash: Sha256::digest(&object).into(), ..part };
    assert_eq!(decode_part(&part, &object).unwrap(), entries);
}

#[test]
fn what_version_1_wrote_is_still_read_and_has_the_bytes_of_then() {
    let mut header = header();
    header.transactions.truncate(2);
    header.transactions[0].ops.truncate(FIRST_OPS[0]);
    check_commit(1, header, "b0c133dde06cfce285494fcddd6b95bde543d07fce2b976c4557974724e780ad");
    let root = CheckpointRoot { primary: None, lease: None, ..root() };
    check_root(1, root, "356660d3f32af6c515510258f406ccd61770a2c99a43d9638f135c1838288def");
    let entries = entries().drain(..FIRST_ENTRIES[0]).collect();
    check_entries(1, entries, "b578ec2b6f2b3910f40c994376b7e76696e70f17ed00f15875d965e9d00a0849");
}

#[test]
fn what_version_2_wrote_is_still_read_and_has_the_bytes_of_then() {
    let mut header = header();
    header.transactions[0].ops.truncate(FIRST_OPS[1]);
    check_commit(2, header, "82350554ccaf17a37fb9d684b0236a59261f0df42284a9a5b8a063056c90139f");
    check_root(2, root(), "57ed8481c58f57c4eb5d1b32c90687bfeee012f3a9e48d22474f2c58e6e459d8");
    let entries = entries().drain(..FIRST_ENTRIES[1]).collect();
    check_entries(2, entries, "c1e23234023ee0d0d1347c5d42fe598df57fb1c78badcaafdddc4fe2772e083e");
}
