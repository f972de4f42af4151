//! Whatever can be said can be stored and comes back, and equal values have equal bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tandem_types::{
    Column, ColumnId, CommitId, DatabaseId, Epoch, Partition, PartitionUnit, SchemaId, Seq, TableId,
    TableName, TableSchema, WriterId,
};

use crate::schema_bytes::{decode_fields, decode_type, encode_fields, encode_type};
use crate::*;

/// Every type that Arrow knows and a table may have, nested ones at the end.
fn types() -> Vec<DataType> {
    use DataType::*;
    let mut types = vec![Null, Boolean, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64];
    types.extend([Float16, Float32, Float64, Date32, Date64, Utf8, LargeUtf8, Utf8View]);
    types.extend([Binary, LargeBinary, BinaryView, FixedSizeBinary(16)]);
    types.extend([Decimal32(9, 2), Decimal64(18, -3), Decimal128(38, 10), Decimal256(76, 0)]);
    types.extend([Time32(TimeUnit::Second), Time32(TimeUnit::Millisecond)]);
    types.extend([Time64(TimeUnit::Microsecond), Time64(TimeUnit::Nanosecond)]);
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.extend([Timestamp(unit, None), Timestamp(unit, Some("Europe/Berlin".into())), Duration(unit)]);
    }
    for key in [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64] {
        types.push(Dictionary(Box::new(key), Box::new(Utf8)));
    }
    types.push(Dictionary(Box::new(Int32), Box::new(Decimal128(10, 2))));
    let item = |t: DataType| Arc::new(Field::new("item", t, true));
    let tag = Dictionary(Box::new(Int32), Box::new(Utf8));
    let pair =
        Struct(Fields::from(vec![Field::new("a", tag.clone(), false), Field::new("b", Utf8View, true)]));
    types.extend([List(item(Int64)), LargeList(item(tag)), ListView(item(Utf8)), LargeListView(item(Utf8))]);
    types.extend([FixedSizeList(item(Float32), 3), pair.clone(), List(item(pair))]);
    let entries = Fields::from(vec![Field::new("keys", Utf8, false), Field::new("values", Int64, true)]);
    types.push(Map(Arc::new(Field::new("entries", Struct(entries), false)), false));
    types
}

#[test]
fn every_type_comes_back() {
    for data_type in types() {
        let bytes = encode_type(&data_type);
        assert_eq!(decode_type(&bytes).as_ref(), Ok(&data_type));
        assert_eq!(encode_type(&decode_type(&bytes).unwrap()), bytes, "{data_type}");
    }
}

#[test]
fn the_widest_table_and_the_deepest_type_come_back() {
    let wide: Vec<Field> = (0..4096).map(|i| Field::new(format!("c{i}"), DataType::Utf8, true)).collect();
    let decoded = decode_fields(&encode_fields(wide.clone())).unwrap();
    assert_eq!(decoded, Fields::from(wide));
    let mut data_type = DataType::Int64;
    for _ in 0..32 {
        data_type = DataType::List(Arc::new(Field::new("item", data_type, true)));
    }
    tandem_types::check_data_type("c", &data_type).unwrap();
    assert_eq!(decode_type(&encode_type(&data_type)), Ok(data_type));
}

#[test]
fn the_order_of_a_hash_map_does_not_reach_the_bytes() {
    let encode = || {
        // Each map has keys of its own to hash by.
        let metadata: HashMap<String, String> = (0..20).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
        let item = Field::new("item", DataType::Int64, true).with_metadata(metadata);
        encode_type(&DataType::List(Arc::new(item)))
    };
    let first = encode();
    for _ in 0..20 {
        assert_eq!(encode(), first);
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{1,8}", Just("Größe \"x\".y".to_owned()), Just("n".repeat(255))]
}

fn table_name() -> impl Strategy<Value = TableName> {
    (name(), name()).prop_map(|(schema, table)| TableName::new(schema, table))
}

fn data_type() -> impl Strategy<Value = DataType> {
    prop::sample::select(types())
}

fn column() -> impl Strategy<Value = Column> {
    (any::<u32>(), name(), data_type(), any::<bool>()).prop_map(|(id, name, data_type, nullable)| Column {
        id: ColumnId(id),
        name,
        data_type,
        nullable,
    })
}

fn object() -> impl Strategy<Value = ObjectName> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(base, writer, random)| ObjectName {
        base: Seq(base),
        writer: WriterId(writer),
        random,
    })
}

fn file_name() -> impl Strategy<Value = FileName> {
    (any::<i64>(), object()).prop_map(|(p, object)| FileName { partition: Partition(p), object })
}

fn hash() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn time() -> impl Strategy<Value = Option<(i64, i64)>> {
    option::of(any::<(i64, i64)>())
}

fn section() -> impl Strategy<Value = Section> {
    let place = (option::of(object()), any::<u64>(), any::<u64>(), any::<u32>());
    let shape = (any::<u32>(), vec(any::<u32>(), 0..4), vec(any::<u64>(), 0..4));
    let rows = (any::<u64>(), time(), vec(any::<(i64, u64)>(), 0..4));
    (place, shape, rows).prop_map(
        |((segment, offset, len, crc32c), (schema, columns, null_counts), (rows, time, partitions))| {
            Section {
                schema_id: SchemaId(schema),
                columns: columns.into_iter().map(ColumnId).collect(),
                segment,
                offset,
                len,
                crc32c,
                rows,
                time,
                partitions: partitions.into_iter().map(|(p, rows)| (Partition(p), rows)).collect(),
                null_counts,
                on_duplicate: on_duplicate(schema),
            }
        },
    )
}

fn on_duplicate(n: u32) -> OnDuplicate {
    match n % 5 {
        0 => OnDuplicate::Keep,
        1 => OnDuplicate::Replace,
        2 => OnDuplicate::Ignore,
        3 => OnDuplicate::Merge,
        _ => OnDuplicate::Update(vec![ColumnId(n), ColumnId(n / 2)]),
    }
}

fn expr() -> impl Strategy<Value = Expr> {
    let literal = || vec(any::<u8>(), 0..4).prop_map(|ipc| Literal { ipc });
    let leaf = prop_oneof![
        any::<u32>().prop_map(|id| Expr::Column { column: ColumnId(id), data_type: DataType::Int64 }),
        literal().prop_map(Expr::Literal),
        Just(Expr::Now),
    ];
    let operator =
        prop::sample::select(vec![BinaryOp::And, BinaryOp::Concat, BinaryOp::Modulo, BinaryOp::Eq]);
    leaf.prop_recursive(6, 40, 4, move |inner| {
        let one = inner.clone().prop_map(Box::new);
        prop_oneof![
            (operator.clone(), one.clone(), one.clone()).prop_map(|(op, left, right)| Expr::Binary {
                op,
                left,
                right
            }),
            one.clone().prop_map(Expr::Not),
            one.clone().prop_map(Expr::IsNull),
            one.clone().prop_map(Expr::Negate),
            (one.clone(), literal(), any::<bool>()).prop_map(|(of, list, negated)| Expr::InList {
                of,
                list,
                negated
            }),
            one.clone().prop_map(|of| Expr::Cast { of, to: DataType::Utf8 }),
            (vec((inner.clone(), inner), 0..3), option::of(one.clone()))
                .prop_map(|(branches, otherwise)| Expr::Case { branches, otherwise }),
            (one.clone(), one, any::<(bool, bool)>()).prop_map(|(of, pattern, (negated, ignore_case))| {
                Expr::Like { of, pattern, negated, ignore_case }
            }),
        ]
    })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let kind = prop_oneof![
        expr().prop_map(|predicate| MutationKind::Delete { predicate }),
        (expr(), vec((any::<u32>().prop_map(ColumnId), expr()), 0..3))
            .prop_map(|(predicate, assignments)| MutationKind::Update { predicate, assignments }),
        (any::<(u32, bool)>(), section()).prop_map(|((keys, delete), section)| MutationKind::Lookup {
            keys,
            delete,
            section
        }),
    ];
    (any::<u64>(), kind, time(), name()).prop_map(|(table, kind, time, statement)| Mutation {
        table: TableId(table),
        kind,
        time,
        statement,
    })
}

fn pending() -> impl Strategy<Value = PendingMutation> {
    (any::<(u64, u32, u32, u32, i64)>(), mutation()).prop_map(|(n, mutation)| PendingMutation {
        key: MutationKey { seq: Seq(n.0), transaction: n.1, section: n.2, ordinal: n.3 },
        commit_time: n.4,
        mutation,
    })
}

fn pin() -> impl Strategy<Value = Pin> {
    (name(), any::<(u64, Option<i64>)>(), option::of(name()), name())
        .prop_map(|(id, (seq, expires), store, reason)| Pin { id, seq: Seq(seq), store, reason, expires })
}

fn image() -> impl Strategy<Value = TableImage> {
    let tail = (key(), section(), vec(any::<i64>().prop_map(Partition), 0..3));
    let files = vec((any::<u64>().prop_map(Seq), data_file()), 0..3);
    (any::<u64>(), table_state(), files, vec(tail, 0..3), vec(pending(), 0..2)).prop_map(
        |(as_of, state, files, tail, mutations)| TableImage {
            as_of: Seq(as_of),
            state,
            files,
            tail,
            mutations,
        },
    )
}

fn data_file() -> impl Strategy<Value = DataFile> {
    (file_name(), any::<(u64, u64, u64, u32, u64, u32)>(), time()).prop_map(|(name, n, time)| DataFile {
        name,
        rows: n.0,
        size: n.1,
        body_end: n.2,
        tail_crc32c: n.3,
        time,
        folded_through: Seq(n.4),
        level: n.5,
    })
}

fn def() -> impl Strategy<Value = TableDef> {
    let unit = prop::sample::select(PartitionUnit::ALL.to_vec());
    (
        vec(column(), 0..5),
        option::of(any::<u32>()),
        unit,
        vec(any::<u32>(), 0..3),
        vec((name(), name()), 0..3),
    )
        .prop_map(|(columns, timestamp, partition_by, order_by, options)| TableDef {
            primary_key: order_by.iter().rev().copied().map(ColumnId).collect(),
            schema: TableSchema { columns },
            timestamp: timestamp.map(ColumnId),
            partition_by,
            order_by: order_by.into_iter().map(ColumnId).collect(),
            options,
        })
}

fn key() -> impl Strategy<Value = SectionKey> {
    any::<(u64, u32, u32)>().prop_map(|(seq, transaction, section)| SectionKey {
        seq: Seq(seq),
        transaction,
        section,
    })
}

fn settings() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    vec((name(), option::of(name())), 0..3)
}

fn op() -> impl Strategy<Value = Op> {
    let table = || any::<u64>().prop_map(TableId);
    let id = || any::<u32>().prop_map(ColumnId);
    let replace = (
        table(),
        any::<u64>(),
        vec(file_name(), 0..3),
        vec((key(), any::<i64>()), 0..3),
        vec(data_file(), 0..3),
    )
        .prop_map(|(table, base, files, parts, outputs)| Replace {
            table,
            base: Seq(base),
            files,
            parts: parts
                .into_iter()
                .map(|(section, p)| SectionPart { section, partition: Partition(p) })
                .collect(),
            outputs,
        });
    prop_oneof![
        name().prop_map(|name| Op::CreateSchema { name }),
        name().prop_map(|name| Op::DropSchema { name }),
        (table(), table_name(), def()).prop_map(|(table, name, def)| Op::CreateTable(NewTable {
            table,
            name,
            def
        })),
        table().prop_map(|table| Op::DropTable { table }),
        (table(), table_name()).prop_map(|(table, to)| Op::RenameTable { table, to }),
        (table(), column()).prop_map(|(table, column)| Op::AddColumn { table, column }),
        (table(), id()).prop_map(|(table, column)| Op::DropColumn { table, column }),
        (table(), id(), name()).prop_map(|(table, column, to)| Op::RenameColumn { table, column, to }),
        (table(), id(), data_type()).prop_map(|(table, column, to)| Op::WidenColumn { table, column, to }),
        (table(), id()).prop_map(|(table, column)| Op::DropNotNull { table, column }),
        (table(), settings()).prop_map(|(table, options)| Op::SetOptions { table, options }),
        settings().prop_map(|settings| Op::SetSettings { settings }),
        table().prop_map(|table| Op::Truncate { table }),
        (table(), vec(section(), 0..3)).prop_map(|(table, sections)| Op::Append { table, sections }),
        replace.prop_map(Op::Replace),
        (any::<u64>(), hash()).prop_map(|(seq, root_hash)| Op::Checkpoint { seq: Seq(seq), root_hash }),
        (any::<u64>(), option::of(primary()))
            .prop_map(|(epoch, primary)| Op::Promote { epoch: Epoch(epoch), primary }),
        lease().prop_map(|Lease { holder, address, term }| Op::Lease { holder, address, term }),
        mutation().prop_map(Op::Mutate),
        (any::<u64>(), vec(any::<i64>().prop_map(Partition), 0..4))
            .prop_map(|(table, partitions)| Op::DropPartitions { table: TableId(table), partitions }),
        image().prop_map(|image| Op::RestoreTable(Box::new(image))),
        any::<(u64, u64)>().prop_map(|(h, s)| Op::Horizon { horizon: Seq(h), history_start: Seq(s) }),
        pin().prop_map(Op::Pin),
        name().prop_map(|id| Op::Unpin { id }),
    ]
}

fn primary() -> impl Strategy<Value = Primary> {
    (name(), name()).prop_map(|(node_id, address)| Primary { node_id, address })
}

fn lease() -> impl Strategy<Value = Lease> {
    (name(), name(), any::<u64>()).prop_map(|(holder, address, term)| Lease { holder, address, term })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let counted = any::<(u128, u64, u64, u64)>().prop_map(|(producer, counter, low, base)| Token {
        producer: ProducerId(producer),
        counter,
        low,
        base: Seq(base),
    });
    let foreign = (name(), option::of(any::<u64>()))
        .prop_map(|(text, base)| ForeignToken { text, base: base.map(Seq) });
    let token = prop_oneof![
        counted.prop_map(TransactionToken::from),
        foreign.prop_map(TransactionToken::from),
        any::<i64>().prop_map(|window| TransactionToken::Content { window }),
    ];
    (option::of(token), vec(any::<u8>(), 0..40), option::of(any::<u64>()), vec(op(), 0..5))
        .prop_map(|(token, digest, epoch, ops)| Transaction { token, digest, epoch: epoch.map(Epoch), ops })
}

fn header() -> impl Strategy<Value = CommitHeader> {
    (any::<(u64, u128, u64, u128, i64, i64)>(), hash(), vec(transaction(), 0..4)).prop_map(
        |(n, previous, transactions)| CommitHeader {
            seq: Seq(n.0),
            commit_id: CommitId(n.1),
            writer: WriterId(n.2),
            database: DatabaseId(n.3),
            previous,
            commit_time: n.4,
            raw_clock: n.5,
            transactions,
        },
    )
}

fn table_state() -> impl Strategy<Value = TableState> {
    (any::<(u64, u32, u32, u64, u64, u32)>(), table_name(), def()).prop_map(|(n, name, def)| TableState {
        table: TableId(n.0),
        name,
        column_added: (0..def.schema.columns.len() as u64).map(Seq).collect(),
        def,
        schema_id: SchemaId(n.1),
        next_column: ColumnId(n.2),
        created: Seq(n.3),
        changed: Seq(n.4),
        renamed: SchemaId(n.5),
        restored: Seq(n.0 ^ n.3),
    })
}

fn root() -> impl Strategy<Value = CheckpointRoot> {
    let lists = (
        vec(name(), 0..3),
        vec((name(), name()), 0..3),
        vec(table_state(), 0..3),
        vec((any::<(u64, u64)>(), hash()), 0..3),
    );
    let recorded = (option::of((any::<u64>(), hash())), option::of(primary()), option::of(lease()));
    (any::<(u64, u128, i64, i64, u64, u64, u64, u128)>(), hash(), recorded, lists).prop_map(
        |(n, header_hash, (recorded, primary, lease), (schemas, settings, tables, parts))| CheckpointRoot {
            seq: Seq(n.0),
            database: DatabaseId(n.1),
            header_hash,
            commit_time: n.2,
            age: n.3,
            epoch: Epoch(n.4),
            next_table: TableId(n.5),
            token_floor: Seq(n.6),
            recorded: recorded.map(|(seq, hash)| (Seq(seq), hash)),
            digest: n.7,
            primary,
            lease,
            logged_rows: n.0 ^ n.4,
            logged_bytes: n.5 ^ n.6,
            horizon: Seq(n.0 ^ n.5),
            history_start: Seq(n.0 ^ n.6),
            pins: Vec::new(),
            brought_back: (n.5 > 0).then_some((Seq(n.4), Seq(n.5))),
            schemas,
            settings,
            tables,
            parts: parts
                .into_iter()
                .map(|((base, len), hash)| PartRef { base: Seq(base), hash, len })
                .collect(),
        },
    )
}

fn entry() -> impl Strategy<Value = PartEntry> {
    let table = || any::<u64>().prop_map(TableId);
    let token = (any::<(u64, u64, u64)>(), vec(any::<u8>(), 0..33)).prop_map(|(n, digest)| CommittedToken {
        counter: n.0,
        seq: Seq(n.1),
        rows: n.2,
        digest,
    });
    let unit = prop::sample::select(PartitionUnit::ALL.to_vec());
    prop_oneof![
        (table(), any::<u64>(), data_file()).prop_map(|(table, created, file)| PartEntry::File {
            table,
            created: Seq(created),
            file
        }),
        (table(), key(), section(), vec(any::<i64>(), 0..4)).prop_map(|(table, key, section, live)| {
            PartEntry::Tail { table, key, section, live: live.into_iter().map(Partition).collect() }
        }),
        (any::<(u64, u64)>(), table(), unit, file_name()).prop_map(|(n, table, partition_by, file)| {
            PartEntry::RemovedFile { removed: Seq(n.0), table, partition_by, file, size: n.1 }
        }),
        (any::<u64>(), object())
            .prop_map(|(n, segment)| PartEntry::RemovedSegment { removed: Seq(n), segment }),
        (any::<(u128, u64, u64, u64)>(), vec(token, 0..4)).prop_map(|(n, committed)| PartEntry::Producer {
            producer: ProducerId(n.0),
            low: n.1,
            last_seq: Seq(n.2),
            since: Seq(n.3),
            committed
        }),
        any::<(u64, u32, u128, u128, u64, i64)>().prop_map(|n| PartEntry::Foreign {
            seq: Seq(n.0),
            transaction: n.1,
            token: CommittedForeign { key: n.2, digest: n.3, rows: n.4, age: n.5 },
        }),
        (table(), pending())
            .prop_map(|(table, pending)| PartEntry::Mutation { table, pending: Box::new(pending) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_come_back(header in header(), payload in vec(any::<u8>(), 0..100)) {
        let encoded = encode_header(&header).unwrap();
        let object = [&encoded.bytes[..], &payload].concat();
        let decoded = decode_commit(&object.into()).unwrap();
        prop_assert_eq!(&decoded.header, &header);
        prop_assert_eq!(&decoded.payload[..], &payload[..]);
        let again = encode_header(&decoded.header).unwrap();
        prop_assert_eq!((again.bytes, again.hash), (encoded.bytes, decoded.hash));
    }

    #[test]
    fn roots_come_back(root in root()) {
        let (bytes, hash) = encode_root(&root).unwrap();
        prop_assert_eq!(decode_root(&bytes).unwrap(), (root, hash));
    }

    #[test]
    fn parts_come_back(base: u64, entries in vec(entry(), 0..8)) {
        let (bytes, part) = encode_part(Seq(base), &entries).unwrap();
        prop_assert_eq!(decode_part(&part, &bytes).unwrap(), entries);
    }

    #[test]
    fn noise_is_never_read(noise in vec(any::<u8>(), 0..300)) {
        let object = noise.into();
        prop_assert!(decode_commit(&object).is_err() && decode_root(&object).is_err());
        prop_assert!(decode_identity(&object).is_err());
    }
}
