//! Keys, mutations, and the past: what they do to the state.

use arrow_schema::DataType::{self, *};
use tandem_format::{
    BinaryOp, DataFile, Expr, FileName, Literal, OnDuplicate, Pin, Replace, SectionKey, SectionPart,
};
use tandem_types::{ErrorKind, PartitionUnit, SchemaId, TableId};

use super::*;
use crate::SchemaPolicy::Strict;

const FIELDS: [(&str, DataType); 3] = [("ts", TS), ("host", Utf8), ("v", Int32)];
const DAY: i64 = 86_400_000_000_000;

fn keyed_spec() -> TableSpec {
    let primary_key = Some(vec!["ts".to_owned(), "host".to_owned()]);
    TableSpec { primary_key, ..spec(&FIELDS) }
}

/// `t (ts, host, v)` with a key, and `plain` without.
fn start() -> Log {
    let mut log = Log::new();
    let create_keyed =
        Step::CreateTable { name: name("t"), spec: keyed_spec(), if_not_exists: false, replace: false };
    log.must(vec![create_keyed, create("plain", &FIELDS)]);
    log
}

/// Rows of day 0 between two times.
fn rows_between(log: &Log, table: &str, time: (i64, i64)) -> Step {
    let drawn = SectionDraft { time: Some(time), ..section(3, &[(0, 5)], None) };
    append_on(log.head(), table, Strict, &FIELDS, vec![drawn])
}

fn table<'a>(log: &'a Log, of: &str) -> &'a Table {
    log.head().table_named(&name(of)).unwrap()
}

fn error(fate: Fate) -> Error {
    match fate {
        Fate::Refused(error) | Fate::Recast(error) => error,
        other => panic!("{other:?}"),
    }
}

fn file(base: Seq, random: u64, time: (i64, i64)) -> DataFile {
    DataFile {
        name: FileName { partition: Partition(0), object: object(base, random) },
        rows: 5,
        size: 25,
        body_end: 4,
        tail_crc32c: 1,
        time: Some(time),
        folded_through: base,
        level: 0,
    }
}

/// Compacts these sections of the tail, by position, into a file.
fn compact(log: &Log, of: &str, sections: &[usize], random: u64, time: (i64, i64)) -> Replace {
    let table = table(log, of);
    let keys: Vec<SectionKey> = table.tail().map(|s| s.key).collect();
    let part = |i: &usize| SectionPart { section: keys[*i], partition: Partition(0) };
    let base = log.head().seq();
    Replace {
        table: table.id(),
        base,
        files: Vec::new(),
        parts: sections.iter().map(part).collect(),
        outputs: vec![file(base, random, time)],
    }
}

fn on(of: &str, log: &Log, draft: MutateDraft) -> Step {
    let target = MutateTarget::Existing(table(log, of).id());
    Step::Mutate(MutateIntent { name: name(of), target, draft, time: None, statement: "said".into() })
}

fn column(id: u32) -> Expr {
    Expr::Column { column: ColumnId(id), data_type: Int32 }
}

use tandem_types::ColumnId;

fn delete() -> MutateDraft {
    MutateDraft::Delete { predicate: Expr::IsNull(Box::new(column(3))) }
}

fn update(assigned: u32) -> MutateDraft {
    let one = Expr::Literal(Literal { ipc: vec![1] });
    MutateDraft::Update {
        predicate: Expr::IsNull(Box::new(column(3))),
        assignments: vec![(ColumnId(assigned), one)],
    }
}

fn lookup(segment: Option<ObjectName>) -> MutateDraft {
    let section = SectionDraft { time: None, ..section(2, &[(0, 4)], segment) };
    MutateDraft::Lookup { columns: vec![ColumnId(2), ColumnId(3)], keys: 1, delete: false, section }
}

#[test]
fn keys_are_never_null_and_hold_the_designated_timestamp() {
    let log = start();
    let t = table(&log, "t");
    assert_eq!(t.primary_key(), [ColumnId(1), ColumnId(2)]);
    assert!(t.is_keyed() && t.schema().by_name("host").is_some_and(|c| !c.nullable));
    assert!(!table(&log, "plain").is_keyed());

    let key = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
    let cases = [
        (TableSpec { primary_key: key(&["host"]), ..spec(&FIELDS) }, "must contain the designated timestamp"),
        (TableSpec { primary_key: key(&["ts", "nope"]), ..spec(&FIELDS) }, "nope"),
        (TableSpec { primary_key: key(&["ts", "ts"]), ..spec(&FIELDS) }, "twice"),
        (TableSpec { primary_key: key(&["ts", "f"]), ..spec(&[("ts", TS), ("f", Float64)]) }, "\"f\""),
        (
            TableSpec { options: vec![("on_duplicate".into(), "merge".into())], ..spec(&FIELDS) },
            "needs a primary key",
        ),
    ];
    for (spec, word) in cases {
        let step = Step::CreateTable { name: name("u"), spec, if_not_exists: false, replace: false };
        let refused = error(start().run(vec![step]));
        assert!(refused.message().contains(word), "{word}: {refused}");
    }
    let unpartitioned =
        TableSpec { primary_key: key(&["host"]), partition_by: Some(PartitionUnit::None), ..spec(&FIELDS) };
    let step =
        Step::CreateTable { name: name("u"), spec: unpartitioned, if_not_exists: false, replace: false };
    start().must(vec![step]);

    for change in [
        Change::DropColumn { name: "host".into(), if_exists: false },
        Change::DropNotNull { name: "host".into() },
    ] {
        let refused = error(start().run(vec![alter("t", change)]));
        assert!(refused.message().contains("primary key"), "{refused}");
    }
}

#[test]
fn each_section_says_what_becomes_of_equal_keys() {
    let mut log = start();
    let set = |value: Option<&str>| {
        let options = vec![("on_duplicate".to_owned(), value.map(str::to_owned))];
        alter("t", Change::SetOptions { options })
    };
    let with = |log: &Log, on_conflict| match rows_between(log, "t", (0, 1)) {
        Step::Append(append) => Step::Append(AppendIntent { on_conflict, ..append }),
        _ => unreachable!(),
    };
    log.must(vec![with(&log, None)]);
    // Within one transaction, too, the option counts from where it is set.
    log.must(vec![set(Some("ignore")), with(&log, None), set(Some("merge")), with(&log, None)]);
    log.must(vec![with(&log, Some(OnConflict::DoNothing))]);
    log.must(vec![with(&log, Some(OnConflict::Replace))]);
    log.must(vec![with(&log, Some(OnConflict::Update(vec!["v".into()])))]);
    let rules: Vec<OnDuplicate> = table(&log, "t").tail().map(|s| s.section.on_duplicate.clone()).collect();
    use OnDuplicate::*;
    assert_eq!(rules, [Replace, Ignore, Merge, Ignore, Replace, Update(vec![ColumnId(3)])]);

    let refused = error(log.run(vec![with(&log, Some(OnConflict::Update(vec!["host".into()])))]));
    assert!(refused.message().contains("primary key"), "{refused}");
    let plain = match rows_between(&log, "plain", (0, 1)) {
        Step::Append(a) => Step::Append(AppendIntent { on_conflict: Some(OnConflict::DoNothing), ..a }),
        _ => unreachable!(),
    };
    assert!(error(log.run(vec![plain])).message().contains("needs a primary key"));
    let unkeyed =
        alter("plain", Change::SetOptions { options: vec![("on_duplicate".into(), Some("merge".into()))] });
    assert!(error(log.run(vec![unkeyed])).message().contains("needs a primary key"));
}

#[test]
fn compaction_of_keyed_tables_leaves_nothing_out_between_what_it_takes() {
    let mut log = start();
    for time in [(0, 10), (8, 20), (30, 40), (15, 16)] {
        log.must(vec![rows_between(&log, "t", time)]);
    }
    // The second begins before the first ends; the last lies within the second.
    for (sections, time) in [(&[0][..], (0, 10)), (&[0, 1], (0, 20)), (&[0, 2], (0, 40))] {
        let replace = compact(&log, "t", sections, 1, time);
        let refused = error(log.run(vec![Step::Replace(replace)]));
        assert_eq!(refused.kind(), ErrorKind::Serialization, "{refused}");
    }
    // An append since its base is no matter: what is in the tail is newer than files that it touches.
    let replace = compact(&log, "t", &[0, 1, 3], 1, (0, 20));
    log.must(vec![rows_between(&log, "t", (5, 6))]);
    log.must(vec![Step::Replace(replace)]);
    assert_eq!((table(&log, "t").file_count(), table(&log, "t").tail_sections()), (1, 2));

    // The late rows without the file that they overlap, and with it.
    let late = compact(&log, "t", &[1], 2, (5, 6));
    assert!(matches!(log.run(vec![Step::Replace(late.clone())]), Fate::Refused(_)));
    let whole = Replace { files: table(&log, "t").files().map(|f| f.file.name).collect(), ..late };
    // Not folded through its base.
    let stale = DataFile { folded_through: Seq(1), ..whole.outputs[0].clone() };
    let refused = error(log.run(vec![Step::Replace(Replace { outputs: vec![stale], ..whole.clone() })]));
    assert!(refused.message().contains("folded"), "{refused}");
    log.must(vec![Step::Replace(whole)]);
    // Without a key nothing of this matters.
    for time in [(0, 10), (8, 20)] {
        log.must(vec![rows_between(&log, "plain", time)]);
    }
    let replace = compact(&log, "plain", &[0], 3, (0, 10));
    log.must(vec![Step::Replace(replace)]);
}

#[test]
fn mutations_wait_until_no_row_is_left_to_go_through_them() {
    let mut log = start();
    log.must(vec![on("plain", &log, delete())]);
    assert!(!table(&log, "plain").has_mutations(), "there is nothing to act on");
    log.must(vec![rows_between(&log, "plain", (0, 10))]);
    let segment = object(log.head().seq(), 9);
    let step = on("plain", &log, update(3));
    let looked_up = on("plain", &log, lookup(Some(segment)));
    log.must(vec![step, rows_between(&log, "plain", (0, 10)), looked_up]);

    let plain = table(&log, "plain");
    let keys: Vec<_> = plain.mutations().map(|m| (m.key.section, m.key.ordinal)).collect();
    assert_eq!(keys, [(0, 0), (1, 1)]);
    let of: Vec<usize> = plain.tail().map(|s| plain.mutations_of_section(s).count()).collect();
    assert_eq!(of, [2, 1], "the second section came after the first mutation");

    // The older section goes through both, and the newer one keeps what follows it.
    let replace = compact(&log, "plain", &[0], 1, (0, 10));
    log.must(vec![Step::Replace(replace)]);
    let plain = table(&log, "plain");
    assert_eq!(plain.mutations().count(), 1);
    assert_eq!(plain.files().map(|f| plain.mutations_of_file(&f.file).count()).sum::<usize>(), 0);
    assert_eq!(log.head().removed().count(), 0);
    let replace = compact(&log, "plain", &[0], 2, (0, 10));
    // What is deleted between is pending on the output.
    log.must(vec![on("plain", &log, delete())]);
    log.must(vec![Step::Replace(replace)]);
    let plain = table(&log, "plain");
    assert_eq!(plain.mutations().count(), 1);
    assert_eq!(plain.files().map(|f| plain.mutations_of_file(&f.file).count()).sum::<usize>(), 2);
    let gone: Vec<_> = log.head().removed().map(|(_, object, _)| object.clone()).collect();
    assert_eq!(gone, [RemovedObject::Segment(segment)]);
    log.must(vec![Step::Truncate { name: name("plain") }]);
    assert!(!table(&log, "plain").has_mutations());
}

#[test]
fn mutations_that_make_no_sense_are_refused() {
    let mut log = start();
    log.must(vec![rows_between(&log, "t", (0, 1))]);
    for (draft, word) in [
        (update(1), "designated timestamp or in its primary key"),
        (update(2), "designated timestamp or in its primary key"),
        (update(9), "does not exist any more"),
        (
            MutateDraft::Lookup {
                columns: vec![],
                keys: 0,
                delete: true,
                section: section(0, &[(0, 1)], None),
            },
            "looks up",
        ),
    ] {
        let refused = error(log.run(vec![on("t", &log, draft)]));
        assert!(refused.message().contains(word), "{word}: {refused}");
    }
    let mut deep = column(3);
    for _ in 0..300 {
        deep = Expr::Binary { op: BinaryOp::Or, left: Box::new(deep), right: Box::new(column(3)) };
    }
    let refused = error(log.run(vec![on("t", &log, MutateDraft::Delete { predicate: deep })]));
    assert!(refused.message().contains("deeper"), "{refused}");

    // Against a table or a column that went away meanwhile, and one that was renamed.
    let step = on("t", &log, update(3));
    let intent = log.intent(vec![step]);
    log.must(vec![Step::RenameTable { name: name("t"), to: name("u") }]);
    assert!(log.commit(std::slice::from_ref(&intent)).remove(0).stands());
    log.must(vec![alter("u", Change::DropColumn { name: "v".into(), if_exists: false })]);
    assert!(matches!(log.commit(std::slice::from_ref(&intent)).remove(0), Fate::Refused(_)));
    log.must(vec![Step::DropTable { name: name("u"), if_exists: false }]);
    assert_eq!(error(log.commit(&[intent]).remove(0)).kind(), ErrorKind::NotFound);
}

#[test]
fn names_and_columns_are_what_they_were_or_the_transaction_is_to_run_again() {
    let mut log = start();
    let bound = |log: &Log| Step::Bound { name: name("t"), table: Some(table(log, "t").id()), schema: None };
    let with_columns = |log: &Log| Step::Bound {
        name: name("t"),
        table: Some(table(log, "t").id()),
        schema: Some(table(log, "t").schema_id()),
    };
    let absent = Step::Bound { name: name("new"), table: None, schema: None };
    let rows = |log: &Log| rows_between(log, "plain", (0, 1));
    let fails = |log: &mut Log, step: &Step| {
        let refused = error(log.run(vec![step.clone(), rows(log)]));
        assert_eq!(refused.kind(), ErrorKind::Serialization, "{refused}");
        assert!(refused.message().ends_with("run the transaction again"), "{refused}");
    };
    let (name_only, columns) = (bound(&log), with_columns(&log));
    // Rows and options are no change of a name or a column.
    log.must(vec![rows_between(&log, "t", (0, 1)), on("t", &log, delete())]);
    log.must(vec![name_only.clone(), columns.clone(), absent.clone(), rows(&log)]);
    assert_eq!(log.run(vec![name_only.clone(), columns.clone(), absent.clone()]), Fate::NoOp);
    let column = ColumnSpec { name: "w".into(), data_type: Int32, nullable: true };
    log.must(vec![alter("t", Change::AddColumn { column, if_not_exists: false })]);
    log.must(vec![name_only.clone(), rows(&log)]);
    fails(&mut log, &columns);
    let columns = with_columns(&log);
    log.must(vec![Step::RenameTable { name: name("t"), to: name("old") }]);
    fails(&mut log, &name_only);
    log.must(vec![create("t", &FIELDS)]);
    fails(&mut log, &name_only);
    fails(&mut log, &columns);
    log.must(vec![create("new", &FIELDS)]);
    fails(&mut log, &absent);
}

#[test]
fn statements_are_previewed_one_after_another() {
    let log = start();
    let head = log.head();
    let at = head.seq().next();
    let intent =
        |step: Step| Intent { token: None, digest: Vec::new(), epoch: None, base: at, steps: vec![step] };
    let rows = || intent(rows_between(&log, "t", (0, 1)));
    let first = head.preview_at(&rows(), at, 7, 50).unwrap();
    let second = first.preview_at(&intent(on("t", &log, delete())), at, 8, 60).unwrap();
    let third = second.preview_at(&rows(), at, 9, 70).unwrap();
    let table = third.table_named(&name("t")).unwrap();
    let keys: Vec<_> = table.tail().map(|section| (section.key.seq, section.key.transaction)).collect();
    assert_eq!(keys, [(at, 7), (at, 9)]);
    let acts_on: Vec<_> = table.tail().map(|section| table.mutations_of_section(section).count()).collect();
    assert_eq!(acts_on, [1, 0], "a change acts on what stands before it");
    assert_eq!(head.table_named(&name("t")).unwrap().tail().count(), 0);
    // A statement without an effect leaves the state as it is.
    let nothing = intent(Step::DropTable { name: name("none"), if_exists: true });
    assert_eq!(third.preview_at(&nothing, at, 10, 70).unwrap().digest(), third.digest());
}

#[test]
fn preconditions_hold_or_the_transaction_is_to_run_again() {
    let mut log = start();
    log.must(vec![rows_between(&log, "t", (0, 1))]);
    let unchanged =
        |log: &Log| Step::Unchanged { table: table(log, "t").id(), name: name("t"), since: log.head().seq() };
    let early = unchanged(&log);
    // Upkeep and other tables are no change.
    let replace = compact(&log, "t", &[0], 1, (0, 1));
    log.must(vec![Step::Replace(replace)]);
    log.must(vec![rows_between(&log, "plain", (0, 1))]);
    log.must(vec![early.clone(), rows_between(&log, "plain", (0, 1))]);
    log.must(vec![on("t", &log, delete())]);
    let refused = error(log.run(vec![early, rows_between(&log, "plain", (0, 1))]));
    assert_eq!(refused.kind(), ErrorKind::Serialization, "{refused}");
    let now = unchanged(&log);
    assert_eq!(log.run(vec![now.clone()]), Fate::NoOp);
    log.must(vec![Step::DropTable { name: name("t"), if_exists: false }]);
    assert_eq!(error(log.run(vec![now])).kind(), ErrorKind::Serialization);
}

#[test]
fn dropped_partitions_go_whole_and_ttl_counts_from_the_newest_row() {
    let mut log = start();
    let of_days = |log: &Log, days: &[i64]| {
        let partitions: Vec<(i64, u64)> = days.iter().map(|d| (*d, 5)).collect();
        let time = Some((days[0] * DAY, days[days.len() - 1] * DAY));
        let drawn = SectionDraft { time, ..section(3, &partitions, None) };
        append_on(log.head(), "t", Strict, &FIELDS, vec![drawn])
    };
    log.must(vec![of_days(&log, &[1, 2, 3])]);
    log.must(vec![of_days(&log, &[3, 9])]);
    let expire = |log: &Log| {
        let partitions = (0..20).map(Partition).collect();
        Step::Expire { table: table(log, "t").id(), partitions }
    };
    assert_eq!(log.run(vec![expire(&log)]), Fate::NoOp, "no ttl");
    log.must(vec![alter("t", Change::SetOptions { options: vec![("ttl".into(), Some("7d".into()))] })]);
    // By the commit's time, a few microseconds after 1970, everything is young.
    assert_eq!(log.head().expired_partitions(table(&log, "t").id()), []);
    assert_eq!(log.run(vec![expire(&log)]), Fate::NoOp);
    let mut late = log.head().clone();
    late.commit_time = 400 * DAY / 1000;
    let expired = late.expired_partitions(table(&log, "t").id());
    assert_eq!(expired, [Partition(1)], "day 2 ends 6 days before the newest row");

    log.must(vec![Step::DropPartitions { name: name("t"), partitions: vec![Partition(3), Partition(2)] }]);
    let live: Vec<Vec<Partition>> = table(&log, "t").tail().map(|s| s.live.clone()).collect();
    assert_eq!(live, [vec![Partition(1)], vec![Partition(9)]]);
    assert_eq!(table(&log, "t").rows(), 10);
}

#[test]
fn a_table_can_be_made_what_it_was() {
    let mut log = start();
    log.must(vec![rows_between(&log, "t", (0, 10))]);
    let segment = object(log.head().seq(), 5);
    let drawn = SectionDraft { time: Some((20, 30)), ..section(3, &[(0, 7)], Some(segment)) };
    log.must(vec![append_on(log.head(), "t", Strict, &FIELDS, vec![drawn])]);
    let replace = compact(&log, "t", &[0], 1, (0, 10));
    log.must(vec![Step::Replace(replace)]);
    log.must(vec![on("t", &log, update(3))]);
    let good = log.head().clone();
    let image = |of: &Manifest| Box::new(of.table_named(&name("t")).unwrap().image(of.seq()));

    log.must(vec![Step::Truncate { name: name("t") }]);
    log.must(vec![alter("t", Change::DropColumn { name: "v".into(), if_exists: false })]);
    assert_eq!(log.head().removed().count(), 2);
    log.must(vec![Step::RestoreTable { image: image(&good), name: None }]);
    let back = table(&log, "t");
    let was = good.table_named(&name("t")).unwrap();
    assert_eq!((back.rows(), back.file_count(), back.tail_sections()), (was.rows(), 1, 1));
    assert_eq!((back.mutations().count(), back.schema().columns.len()), (1, 3));
    assert!(back.schema_id() > SchemaId(2), "ids are never used again");
    assert_eq!(log.head().removed().count(), 0, "what is live again is not listed as removed");

    // What was compacted between is not what is there now.
    let between = compact(&log, "t", &[0], 7, (20, 30));
    log.must(vec![Step::RestoreTable { image: image(&good), name: None }]);
    assert_eq!(error(log.run(vec![Step::Replace(between)])).kind(), ErrorKind::Serialization);

    // Dropped, and another one under its name.
    log.must(vec![Step::DropTable { name: name("t"), if_exists: false }, create("t", &FIELDS)]);
    let taken = error(log.run(vec![Step::RestoreTable { image: image(&good), name: None }]));
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    log.must(vec![Step::RestoreTable { image: image(&good), name: Some(name("old")) }]);
    assert_eq!(table(&log, "old").id(), was.id());
    // What was prepared for the table that was dropped meets it as it is now, and is prepared again.
    let stale = append_on(&good, "t", Strict, &FIELDS, vec![section(3, &[(0, 5)], None)]);
    assert!(matches!(log.run(vec![stale]), Fate::Recast(_)));

    log.must(vec![Step::Horizon { horizon: Seq(2), history_start: Seq(6) }]);
    let gone = error(log.run(vec![Step::RestoreTable { image: image(&good), name: Some(name("older")) }]));
    assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
    let never = TableId(99);
    let mut image = image(log.head());
    image.state.table = never;
    assert!(matches!(log.run(vec![Step::RestoreTable { image, name: Some(name("x")) }]), Fate::Refused(_)));
}

#[test]
fn history_ends_where_nothing_holds_it_back() {
    let mut log = start();
    for time in [(0, 10), (20, 30)] {
        log.must(vec![rows_between(&log, "plain", time)]);
    }
    let replace = compact(&log, "plain", &[0, 1], 1, (0, 30));
    log.must(vec![Step::Replace(replace)]);
    let removed_at = {
        log.must(vec![Step::Truncate { name: name("plain") }]);
        log.head().seq()
    };
    log.must(vec![rows_between(&log, "plain", (0, 1))]);
    let pin = |id: &str, seq: u64, expires| Pin {
        id: id.into(),
        seq: Seq(seq),
        store: None,
        reason: "r".into(),
        expires,
    };
    log.must(vec![Step::Pin(pin("reader", 3, Some(6_000_000)))]);
    let cut = |history_start: Seq| Step::Horizon { horizon: Seq(3), history_start };
    let held = error(log.run(vec![cut(removed_at)]));
    assert!(held.message().contains("\"reader\""), "{held}");
    log.must(vec![cut(Seq(3))]);
    assert_eq!(log.head().removed().count(), 1, "the snapshot before its removal is kept");
    assert!(matches!(log.run(vec![cut(Seq(2))]), Fate::Refused(_)), "it only grows");

    // By its age the pin has ended; another one is for ever.
    log.clock = 7_000_000;
    log.must(vec![Step::Pin(pin("fork", removed_at.0, None))]);
    log.must(vec![cut(removed_at)]);
    assert_eq!(log.head().removed().count(), 0);
    assert_eq!(log.head().pins().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["fork"]);
    let late = error(log.run(vec![Step::Pin(pin("late", 2, None))]));
    assert_eq!(late.kind(), ErrorKind::HistoryGone);
    log.must(vec![Step::Unpin { id: "fork".into() }]);
    assert_eq!(log.run(vec![Step::Unpin { id: "fork".into() }]), Fate::NoOp);

    // What was made before the horizon and never named is made again.
    let stale = section(3, &[(0, 5)], Some(object(Seq(2), 77)));
    let append = append_on(log.head(), "plain", Strict, &FIELDS, vec![stale]);
    assert!(matches!(log.run(vec![append]), Fate::Recast(_)));
    let mut replace = compact(&log, "plain", &[0], 78, (0, 1));
    replace.outputs[0].name.object.base = Seq(2);
    assert_eq!(error(log.run(vec![Step::Replace(replace)])).kind(), ErrorKind::Serialization);
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let mut log = start();
    log.must(vec![rows_between(&log, "t", (0, 10))]);
    let head = log.head().clone();
    let steps = vec![rows_between(&log, "t", (20, 30)), on("t", &log, delete()), create("mine", &FIELDS)];
    let view = head.preview(&log.intent(steps.clone()), 99).unwrap();
    assert_eq!((view.seq(), view.commit_time()), (head.seq().next(), 99));
    let t = view.table_named(&name("t")).unwrap();
    assert_eq!((t.tail_sections(), t.mutations().count()), (2, 1));
    assert!(view.table_named(&name("mine")).is_some());
    assert!(head.preview(&log.intent(vec![create("t", &FIELDS)]), 99).is_err());
    log.must(steps);
    assert_eq!(log.head().table_named(&name("t")).unwrap().tail_sections(), 2);
}

#[test]
fn checkpoints_hold_keys_mutations_and_the_past() {
    let mut log = start();
    log.must(vec![rows_between(&log, "t", (0, 10))]);
    let segment = object(log.head().seq(), 5);
    log.must(vec![on("t", &log, delete()), on("t", &log, lookup(Some(segment)))]);
    log.must(vec![Step::Pin(Pin {
        id: "p".into(),
        seq: Seq(2),
        store: None,
        reason: String::new(),
        expires: None,
    })]);
    log.must(vec![Step::Horizon { horizon: Seq(2), history_start: Seq(2) }]);
    let head = log.head();
    let root = head.checkpoint_root(Vec::new());
    let read = Manifest::from_checkpoint(&root, head.checkpoint_parts().into_iter().map(Ok)).unwrap();
    assert_eq!(read.digest(), head.digest());
    assert_eq!((read.horizon(), read.history_start(), read.pins().count()), (Seq(2), Seq(2), 1));
    let t = read.table_named(&name("t")).unwrap();
    assert_eq!((t.mutations().count(), t.is_keyed()), (2, true));
    let mut other = root;
    other.history_start = Seq(3);
    assert!(Manifest::from_checkpoint(&other, head.checkpoint_parts().into_iter().map(Ok)).is_err());
}

#[test]
fn a_fork_goes_on_without_what_is_lost() {
    let mut log = start();
    for _ in 0..3 {
        log.must(vec![rows_between(&log, "plain", (0, 10))]);
    }
    let replace = compact(&log, "plain", &[0], 1, (0, 10));
    log.must(vec![Step::Replace(replace)]);
    let segment = object(log.head().seq(), 5);
    log.must(vec![on("plain", &log, delete()), on("plain", &log, lookup(Some(segment)))]);
    let (head, plain) = (log.head(), table(&log, "plain"));
    assert_eq!((plain.file_count(), plain.tail_sections(), plain.mutations().count()), (1, 2, 2));
    let database = DatabaseId(77);
    let inline = head.inline_sections();
    let moved: std::collections::BTreeMap<_, _> =
        inline.iter().enumerate().map(|(n, (key, _))| (*key, object(Seq(1), 100 + n as u64))).collect();
    assert!(head.forked(database, &Default::default()).is_err(), "sections are left behind");
    let whole = head.forked(database, &moved).unwrap();
    assert_eq!(whole.require(&name("plain")).unwrap().rows(), plain.rows());

    let looked_up = head.sections_in(Some(segment));
    assert_eq!(looked_up.len(), 1);
    let mut lost = crate::Lost::default();
    lost.files.extend(plain.files().map(|f| (plain.id(), f.file.name)));
    lost.sections.extend([looked_up[0].0, inline[0].0]);
    let rest = head.forked_without(database, &moved, &lost).unwrap();
    let t = rest.require(&name("plain")).unwrap();
    assert_eq!((t.file_count(), t.tail_sections(), t.mutations().count()), (0, 1, 1));
    assert_eq!((t.rows(), t.rows() + 5 + 5), (t.tail_rows(), plain.rows()));
    // It is a state like any other.
    let root = rest.checkpoint_root(Vec::new());
    let read = Manifest::from_checkpoint(&root, rest.checkpoint_parts().into_iter().map(Ok)).unwrap();
    assert_eq!(read.digest(), rest.digest());
    let parts = head.checkpoint_parts();
    let fewer =
        Manifest::from_rest_of_checkpoint(&head.checkpoint_root(Vec::new()), parts.into_iter().skip(1));
    assert_ne!(fewer.unwrap().digest(), head.digest());
}
