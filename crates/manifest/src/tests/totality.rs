//! `apply` is total: nonsense in a log is void alike on all nodes, and a log that is not this history stops the node.

use arrow_schema::DataType;
use tandem_format::{DataFile, FileName, NewTable, Op, Replace, Section, SectionKey, SectionPart};
use tandem_types::{ColumnId, ErrorKind, Partition, PartitionUnit, SchemaId, TableId};

use super::*;

fn started() -> Log {
    let mut log = Log::new();
    log.must(vec![create("t", &[("ts", TS), ("v", DataType::Int32)])]);
    let fields = [("ts", TS)];
    let sections = vec![section(1, &[(1, 10), (2, 20)], None)];
    log.must(vec![append_on(log.head(), "t", SchemaPolicy::Strict, &fields, sections)]);
    log
}

fn plain(ops: Vec<Op>) -> Transaction {
    Transaction { token: None, digest: Vec::new(), epoch: None, ops }
}

fn stored(partitions: &[(i64, u64)], rows: u64) -> Section {
    Section {
        schema_id: SchemaId(1),
        columns: vec![ColumnId(1)],
        segment: None,
        offset: u64::MAX,
        len: u64::MAX,
        crc32c: 0,
        rows,
        time: None,
        partitions: partitions.iter().map(|(p, rows)| (Partition(*p), *rows)).collect(),
        null_counts: vec![0],
        on_duplicate: Default::default(),
    }
}

fn file(base: Seq, rows: u64) -> DataFile {
    DataFile {
        name: FileName { partition: Partition(1), object: object(base, rows) },
        rows,
        size: u64::MAX,
        body_end: 0,
        tail_crc32c: 0,
        time: None,
        folded_through: base,
        level: 0,
    }
}

#[test]
fn nonsense_is_void_and_leaves_no_trace() {
    let log = started();
    let table = TableId(1);
    let append = |section: Section| Op::Append { table, sections: vec![section] };
    let key = |section| SectionKey { seq: Seq(2), transaction: 0, section };
    let part = |section, p| SectionPart { section: key(section), partition: Partition(p) };
    let replace = |base: u64, parts: Vec<SectionPart>, outputs: Vec<DataFile>| {
        Op::Replace(Replace { table, base: Seq(base), files: Vec::new(), parts, outputs })
    };
    let def = spec(&[("v", DataType::Int32)]).resolve(&name("n")).unwrap();
    let new = |table: u64, def: tandem_format::TableDef| {
        Op::CreateTable(NewTable { table: TableId(table), name: name("n"), def })
    };
    let big = u64::MAX / 2 + 1;
    let nonsense: Vec<(&str, Vec<Op>)> = vec![
        ("no such table", vec![Op::Truncate { table: TableId(9) }]),
        ("no such column", vec![Op::DropColumn { table, column: ColumnId(9) }]),
        ("rows that are not there", vec![append(stored(&[(1, 5)], 6))]),
        ("no rows", vec![append(stored(&[], 0))]),
        ("an empty partition", vec![append(stored(&[(1, 0), (2, 5)], 5))]),
        ("partitions out of order", vec![append(stored(&[(2, 5), (1, 5)], 10))]),
        ("a partition twice", vec![append(stored(&[(1, 5), (1, 5)], 10))]),
        ("counts that overflow", vec![append(stored(&[(1, u64::MAX), (2, 2)], 1))]),
        ("rows that overflow", vec![append(stored(&[(1, big)], big)), append(stored(&[(1, big)], big))]),
        ("a column twice", vec![append(Section { columns: vec![ColumnId(1); 2], ..stored(&[(1, 5)], 5) })]),
        ("nulls not counted", vec![append(Section { null_counts: vec![], ..stored(&[(1, 5)], 5) })]),
        ("a used table id", vec![new(1, def.clone())]),
        ("a skipped table id", vec![new(3, def.clone())]),
        (
            "partitions without timestamp",
            vec![new(2, tandem_format::TableDef { partition_by: PartitionUnit::Day, ..def.clone() })],
        ),
        (
            "a timestamp that is none",
            vec![new(2, tandem_format::TableDef { timestamp: Some(ColumnId(1)), ..def.clone() })],
        ),
        ("outputs of nothing", vec![replace(2, vec![], vec![file(Seq(2), 1)])]),
        ("inputs of the future", vec![replace(3, vec![part(0, 1)], vec![])]),
        ("an input twice", vec![replace(2, vec![part(0, 1), part(0, 1)], vec![])]),
        ("no such section", vec![replace(2, vec![part(1, 1)], vec![])]),
        ("no such partition", vec![replace(2, vec![part(0, 3)], vec![])]),
        ("an output twice", vec![replace(2, vec![part(0, 1)], vec![file(Seq(2), 1), file(Seq(2), 1)])]),
        ("sizes that overflow", vec![replace(2, vec![part(0, 1)], vec![file(Seq(2), 1), file(Seq(2), 2)])]),
        ("a checkpoint of itself", vec![Op::Checkpoint { seq: Seq(3), root_hash: [0; 32] }]),
        ("a checkpoint of nothing", vec![Op::Checkpoint { seq: Seq(0), root_hash: [0; 32] }]),
        (
            "half of it good",
            vec![
                Op::Truncate { table },
                Op::CreateSchema { name: "x".into() },
                Op::Truncate { table: TableId(9) },
            ],
        ),
    ];
    for (what, ops) in nonsense {
        let good = Op::CreateSchema { name: "good".into() };
        let (header, hash) = seal(log.head(), vec![plain(ops), plain(vec![good])]);
        let applied = log.head().apply(&header, hash).unwrap();
        assert!(matches!(applied.outcomes[0], Outcome::Void(_)), "{what}: {:?}", applied.outcomes);
        assert_eq!(applied.outcomes[1], Outcome::Applied { rows: 0 }, "{what}");
        let (alone, hash) = seal(log.head(), vec![plain(vec![Op::CreateSchema { name: "good".into() }])]);
        let alone = log.head().apply(&alone, hash).unwrap().manifest;
        assert_eq!(applied.manifest.digest, alone.digest, "{what} left a trace");
    }
}

#[test]
fn options_of_a_later_version_make_the_same_state_here() {
    let log = started();
    let ops = vec![
        Op::SetOptions { table: TableId(1), options: vec![("of_version_9".into(), Some("x".into()))] },
        Op::SetSettings { settings: vec![("of_version_9".into(), Some("x".into()))] },
    ];
    let (header, hash) = seal(log.head(), vec![plain(ops)]);
    let applied = log.head().apply(&header, hash).unwrap();
    assert_eq!(applied.outcomes, [Outcome::Applied { rows: 0 }]);
    assert_eq!(applied.manifest.require(&name("t")).unwrap().option("of_version_9"), Some("x"));
    assert_eq!(applied.manifest.setting("of_version_9"), Some("x"));
}

#[test]
fn a_log_that_is_not_this_history_stops_the_node() {
    let log = started();
    let (good, hash) = seal(log.head(), vec![plain(vec![])]);
    assert!(log.head().apply(&good, hash).is_ok());
    let wrong = [
        CommitHeader { database: DatabaseId(8), ..good.clone() },
        CommitHeader { seq: Seq(2), ..good.clone() },
        CommitHeader { seq: Seq(4), ..good.clone() },
        CommitHeader { previous: [0; 32], ..good.clone() },
        CommitHeader { commit_time: log.head().commit_time(), ..good.clone() },
    ];
    for header in wrong {
        assert_eq!(log.head().apply(&header, hash).unwrap_err().kind(), ErrorKind::Damaged, "{header:?}");
    }
}

#[test]
fn one_bad_clock_moves_the_logs_age_little() {
    let log = started();
    let minutes = |state: &Manifest| state.age / 60_000_000;
    let at = |state: &Manifest, raw_clock: i64| {
        let header = CommitHeader { raw_clock, ..seal(state, vec![plain(vec![])]).0 };
        state.apply(&header, [1; 32]).unwrap().manifest
    };
    let mad = at(log.head(), i64::MAX);
    assert_eq!(minutes(&mad) - minutes(log.head()), 10);
    let back = at(&mad, i64::MIN);
    assert_eq!(back.age, mad.age, "age never falls");
}
