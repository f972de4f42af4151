//! DESIGN section 4's table: what a rebase decides when others committed in between.

use arrow_schema::DataType::{self, *};
use tandem_format::{DataFile, FileName, Replace, SectionPart};
use tandem_types::Partition;

use super::*;
use crate::SchemaPolicy::{Add, Create, Strict};

/// The state that mine and theirs start from: `t (ts, v Int32, s Utf8)` with one file and one section of two
/// partitions, and an empty `other (ts, v Int32)`.
fn start() -> Log {
    let mut log = Log::new();
    log.must(vec![
        create("t", &[("ts", TS), ("v", Int32), ("s", Utf8)]),
        create("other", &[("ts", TS), ("v", Int32)]),
    ]);
    let fields = [("ts", TS), ("v", Int32), ("s", Utf8)];
    for _ in 0..2 {
        let sections = vec![section(3, &[(1, 10), (2, 20)], None)];
        log.must(vec![append_on(log.head(), "t", Strict, &fields, sections)]);
    }
    log.must(vec![compact(log.head(), 0..1, 1)]);
    log
}

/// Compaction of the tail sections in this range, by position.
fn compact(state: &Manifest, tail: std::ops::Range<usize>, random: u64) -> Step {
    let table = state.table_named(&name("t")).unwrap();
    let sections: Vec<_> = table.tail().skip(tail.start).take(tail.len()).cloned().collect();
    let parts = sections
        .iter()
        .flat_map(|s| s.live.iter().map(|p| SectionPart { section: s.key, partition: *p }))
        .collect();
    let rows = sections.iter().map(|s| s.live_rows()).sum();
    let file = DataFile {
        name: FileName { partition: Partition(1), object: object(state.seq(), random) },
        rows,
        size: rows * 5,
        body_end: 4,
        tail_crc32c: 1,
        time: Some((0, 1)),
        folded_through: state.seq(),
        level: 0,
    };
    Step::Replace(Replace {
        table: table.id(),
        base: state.seq(),
        files: Vec::new(),
        parts,
        outputs: vec![file],
    })
}

fn rows(state: &Manifest, policy: SchemaPolicy, fields: &[(&str, DataType)]) -> Step {
    append_on(state, "t", policy, fields, vec![section(fields.len(), &[(1, 5)], None)])
}

/// Mine: an append of these fields, with `ts`.
fn append(policy: SchemaPolicy, fields: &'static [(&'static str, DataType)]) -> Mine {
    Box::new(move |state| {
        let all: Vec<(&str, DataType)> = [("ts", TS)].into_iter().chain(fields.iter().cloned()).collect();
        rows(state, policy, &all)
    })
}

type Mine = Box<dyn Fn(&Manifest) -> Step>;

fn stmt(step: Step) -> Mine {
    Box::new(move |_| step.clone())
}

fn if_not_exists(column: &str, t: DataType) -> Step {
    alter("t", Change::AddColumn { column: col(column, t), if_not_exists: true })
}

fn drop_column(column: &str) -> Step {
    alter("t", Change::DropColumn { name: column.into(), if_exists: false })
}

fn rename_column(column: &str, to: &str) -> Step {
    alter("t", Change::RenameColumn { name: column.into(), to: to.into() })
}

fn widen(column: &str, to: DataType) -> Step {
    alter("t", Change::WidenColumn { name: column.into(), to })
}

fn rename(table: &str, to: &str) -> Step {
    Step::RenameTable { name: name(table), to: name(to) }
}

fn drop_table(table: &str) -> Step {
    Step::DropTable { name: name(table), if_exists: false }
}

fn create_if_not_exists(table: &str) -> Step {
    let spec = spec(&[("ts", TS)]);
    Step::CreateTable { name: name(table), spec, if_not_exists: true, replace: false }
}

/// Fate, and the columns of the table that had id 1 afterwards (`ts` left out).
fn describe(fate: &Fate, state: &Manifest) -> String {
    match fate {
        Fate::Stands { .. } => {
            let table = state.table(tandem_types::TableId(1)).unwrap();
            let columns = table.schema().columns.iter().skip(1);
            let columns: Vec<String> = columns.map(|c| format!("{}:{}", c.name, c.data_type)).collect();
            format!("stands, {}", columns.join(" "))
        }
        Fate::NoOp => "no-op".into(),
        Fate::Duplicate { .. } => "duplicate".into(),
        Fate::Refused(e) => format!("refused, {:?}: {e}", e.kind()),
        Fate::Recast(_) => "recast".into(),
    }
}

#[test]
fn every_race_ends_as_the_table_says() {
    let v = &[("v", Int32)];
    let opts = Change::SetOptions { options: vec![("compression".into(), Some("lz4".into()))] };
    let truncate = || Step::Truncate { name: name("t") };
    #[rustfmt::skip]
    let table: Vec<(&str, Mine, Vec<Step>, &str)> = vec![
        // mine, theirs, outcome
        ("append / append", append(Strict, v), vec![rows(start().head(), Strict, &[("ts", TS)])], "stands, v:Int32 s:Utf8"),
        ("append / compaction", append(Strict, v), vec![compact(start().head(), 0..1, 9)], "stands, v:Int32 s:Utf8"),
        ("append / truncate", append(Strict, v), vec![truncate()], "stands, v:Int32 s:Utf8"),
        ("append / column added", append(Strict, v), vec![add("t", "n", Int8)], "stands, v:Int32 s:Utf8 n:Int8"),
        ("append / column widened", append(Strict, v), vec![widen("v", Int64)], "stands, v:Int64 s:Utf8"),
        ("append new / same", append(Add, &[("n", Int8)]), vec![add("t", "n", Int8)], "stands, v:Int32 s:Utf8 n:Int8"),
        ("append new / wider", append(Add, &[("n", Int8)]), vec![add("t", "n", Int64)], "stands, v:Int32 s:Utf8 n:Int64"),
        ("append new / narrower", append(Add, &[("n", Int64)]), vec![add("t", "n", Int8)], "stands, v:Int32 s:Utf8 n:Int64"),
        ("append new / third type", append(Add, &[("n", UInt8)]), vec![add("t", "n", Int8)], "stands, v:Int32 s:Utf8 n:Int16"),
        ("append new / no supertype", append(Add, &[("n", Int64)]), vec![add("t", "n", Utf8)], "recast"),
        ("append wider, strict", append(Strict, &[("v", Int64)]), vec![], "refused, SchemaConflict: column \"v\" of table t is Int32, Int64 does not fit without loss"),
        ("append wider, automatic", append(Add, &[("v", Int64)]), vec![], "stands, v:Int64 s:Utf8"),
        ("append unlike, automatic", append(Add, &[("v", Utf8)]), vec![], "refused, SchemaConflict: column \"v\" of table t is Int32, Utf8 does not fit without loss"),
        ("append / column dropped", append(Strict, v), vec![drop_column("v")], "refused, NotFound: table t has no column \"v\"; it has ts, s"),
        ("append auto / column dropped", append(Add, v), vec![drop_column("v")], "stands, s:Utf8 v:Int32"),
        ("append / column renamed", append(Strict, v), vec![rename_column("v", "w")], "recast"),
        ("append / names swapped", append(Strict, v), vec![add("t", "x", TS), rename_column("ts", "tmp"), rename_column("x", "ts")], "recast"),
        ("append / dropped, added unlike", append(Strict, v), vec![drop_column("v"), add("t", "v", Int8)], "recast"),
        ("append / table renamed", append(Strict, v), vec![rename("t", "u")], "stands, v:Int32 s:Utf8"),
        ("append / table renamed, other took it", append(Strict, v), vec![rename("t", "u"), rename("other", "t")], "stands, v:Int32 s:Utf8"),
        ("append / options changed", append(Strict, v), vec![alter("t", opts)], "stands, v:Int32 s:Utf8"),
        ("append / table dropped", append(Strict, v), vec![drop_table("t")], "refused, NotFound: table t does not exist"),
        ("append auto / table dropped", append(Create, v), vec![drop_table("t")], "refused, NotFound: table t does not exist"),
        ("append / table dropped, made anew", append(Strict, v), vec![drop_table("t"), create("t", &[("ts", TS), ("v", Int32)])], "refused, NotFound: table t does not exist"),
        ("CREATE / name taken", stmt(create("n", &[("ts", TS)])), vec![create("n", &[("ts", TS)])], "refused, AlreadyExists: table n exists"),
        ("CREATE IF NOT EXISTS / taken", stmt(create_if_not_exists("n")), vec![create("n", &[("ts", TS)])], "no-op"),
        ("CREATE IF NOT EXISTS / free", stmt(create_if_not_exists("n")), vec![], "stands, v:Int32 s:Utf8"),
        ("RENAME / name taken", stmt(rename("t", "n")), vec![create("n", &[("ts", TS)])], "refused, AlreadyExists: table n exists"),
        ("RENAME / renamed", stmt(rename("t", "n")), vec![rename("t", "m")], "refused, NotFound: table t does not exist"),
        ("ADD COLUMN IF NOT EXISTS / same", stmt(if_not_exists("n", Int8)), vec![add("t", "n", Int8)], "no-op"),
        ("ADD COLUMN IF NOT EXISTS / unlike", stmt(if_not_exists("n", Int8)), vec![add("t", "n", Utf8)], "no-op"),
        ("ADD COLUMN / same since", stmt(add("t", "n", Int8)), vec![add("t", "n", Int8)], "no-op"),
        ("ADD COLUMN / before", stmt(add("t", "v", Int32)), vec![], "refused, AlreadyExists: column \"v\" of table t exists"),
        ("ADD COLUMN / supertype", stmt(add("t", "n", Int64)), vec![add("t", "n", Int8)], "stands, v:Int32 s:Utf8 n:Int64"),
        ("ADD COLUMN / no supertype", stmt(add("t", "n", Int64)), vec![add("t", "n", Utf8)], "refused, SchemaConflict: column \"n\" of table t is Utf8, Int64 does not fit without loss"),
        ("DROP COLUMN / dropped", stmt(drop_column("v")), vec![drop_column("v")], "refused, NotFound: table t has no column \"v\"; it has ts, s"),
        ("DROP TABLE / dropped", stmt(drop_table("t")), vec![drop_table("t")], "refused, NotFound: table t does not exist"),
        ("WIDEN / widened further", stmt(widen("v", Int64)), vec![widen("v", Float64)], "refused, SchemaConflict: column \"v\" of table t is Float64, Int64 does not fit without loss"),
        ("WIDEN / widened alike", stmt(widen("v", Int64)), vec![widen("v", Int64)], "no-op"),
        ("compaction / input gone", Box::new(|s| compact(s, 0..1, 8)), vec![compact(start().head(), 0..1, 9)], "refused, Serialization: rows of the tail that were to be compacted are gone"),
        ("compaction / truncated", Box::new(|s| compact(s, 0..1, 8)), vec![truncate()], "refused, Serialization: rows of the tail that were to be compacted are gone"),
        ("compaction / table dropped", Box::new(|s| compact(s, 0..1, 8)), vec![drop_table("t")], "refused, NotFound: the table with id 1 does not exist any more"),
        ("compaction / column change", Box::new(|s| compact(s, 0..1, 8)), vec![add("t", "n", Int8), drop_column("v")], "stands, s:Utf8 n:Int8"),
        ("compaction / append", Box::new(|s| compact(s, 0..1, 8)), vec![rows(start().head(), Strict, &[("ts", TS)])], "stands, v:Int32 s:Utf8"),
    ];
    let mut wrong = Vec::new();
    for (case, mine, theirs, expected) in table {
        let mut log = start();
        let mine = log.intent(vec![mine(log.head())]);
        for step in theirs {
            log.must(vec![step]);
        }
        let fate = log.commit(&[mine]).remove(0);
        let found = describe(&fate, log.head());
        if found != expected {
            wrong.push(format!("{case}\n  expected: {expected}\n  found:    {found}"));
        }
    }
    assert!(wrong.is_empty(), "races that end otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn automatic_creates_of_one_table_unite_their_columns() {
    let mut log = Log::new();
    let make = |state: &Manifest, fields: &[(&str, DataType)]| {
        append_on(state, "new", Create, fields, vec![section(fields.len(), &[(1, 5)], None)])
    };
    let first = log.intent(vec![make(log.head(), &[("ts", TS), ("a", Int32)])]);
    let second = log.intent(vec![make(log.head(), &[("ts", TS), ("b", Utf8), ("a", Int64)])]);
    // In one group as well as one after the other.
    assert!(log.commit(&[first.clone(), second.clone()]).iter().all(Fate::stands));
    let mut apart = Log::new();
    assert!(apart.commit(&[first])[0].stands() && apart.commit(&[second])[0].stands());
    for log in [log, apart] {
        let table = log.head().require(&name("new")).unwrap();
        let columns: Vec<_> =
            table.schema().columns.iter().map(|c| (c.name.as_str(), &c.data_type)).collect();
        assert_eq!(columns, [("ts", &TS), ("a", &Int64), ("b", &Utf8)]);
        assert_eq!(table.rows(), 10);
    }
}

#[test]
fn a_table_that_somebody_else_cut_otherwise_is_prepared_for_again() {
    let mut log = Log::new();
    let fields = [("ts", TS)];
    let mine = append_on(log.head(), "new", Create, &fields, vec![section(1, &[(1, 5)], None)]);
    let mine = log.intent(vec![mine]);
    let by_hour = TableSpec { partition_by: Some(tandem_types::PartitionUnit::Hour), ..spec(&fields) };
    log.must(vec![Step::CreateTable {
        name: name("new"),
        spec: by_hour,
        if_not_exists: false,
        replace: false,
    }]);
    assert!(matches!(log.commit(&[mine]).remove(0), Fate::Recast(_)));
}

#[test]
fn a_rejected_transaction_affects_nobody_else_in_its_group() {
    let mut log = start();
    let good = |log: &Log| log.intent(vec![rows(log.head(), Strict, &[("ts", TS)])]);
    let half = log.intent(vec![add("t", "half", Int8), drop_table("absent")]);
    let fates = log.commit(&[good(&log), half, good(&log)]);
    assert!(fates[0].stands() && matches!(fates[1], Fate::Refused(_)) && fates[2].stands());
    assert!(log.head().require(&name("t")).unwrap().schema().by_name("half").is_none());
    assert_eq!(log.head().require(&name("t")).unwrap().rows(), 70);
}

#[test]
fn not_null_columns_stay_free_of_nulls() {
    let mut log = start();
    let fields = [("ts", TS), ("v", Int32)];
    let mut nulls = section(2, &[(1, 5)], None);
    nulls.null_counts = vec![1, 0];
    let fate = log.run(vec![append_on(log.head(), "t", Strict, &fields, vec![nulls])]);
    assert!(matches!(&fate, Fate::Refused(e) if e.message().contains("\"ts\"")), "{fate:?}");
    let fate = log.run(vec![rows(log.head(), Strict, &[("v", Int32)])]);
    assert!(matches!(&fate, Fate::Refused(e) if e.message().contains("lack it")), "{fate:?}");
    let twice = [("ts", TS), ("n", Int8), ("n", Int8)];
    assert!(matches!(log.run(vec![rows(log.head(), Add, &twice)]), Fate::Refused(_)));
    let not_null = ColumnSpec { nullable: false, ..col("n", Int8) };
    for if_not_exists in [true, false] {
        let change = Change::AddColumn { column: not_null.clone(), if_not_exists };
        assert!(matches!(log.run(vec![alter("t", change)]), Fate::Refused(_)));
    }
    let fate = log.run(vec![alter("t", Change::DropNotNull { name: "ts".into() })]);
    assert!(matches!(&fate, Fate::Refused(e) if e.message().contains("designated timestamp")), "{fate:?}");
    assert!(matches!(log.run(vec![widen("ts", Int64)]), Fate::Refused(_)));
    assert!(matches!(log.run(vec![drop_column("ts")]), Fate::Refused(_)));
}
