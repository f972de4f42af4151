//! What tables may be declared as, and what may be altered.

use arrow_schema::DataType::*;
use tandem_types::{ColumnId, ErrorKind, PartitionUnit};

use super::*;

#[test]
fn what_is_left_out_is_filled_in() {
    let def = spec(&[("v", Int32), ("at", TS), ("then", TS)]).resolve(&name("t")).unwrap();
    assert_eq!(def.timestamp, Some(ColumnId(2)), "the first timestamp");
    assert_eq!(def.partition_by, PartitionUnit::Day);
    assert_eq!(def.order_by, [ColumnId(2)]);
    let nullable: Vec<bool> = def.schema.columns.iter().map(|c| c.nullable).collect();
    assert_eq!(nullable, [true, false, true], "the designated timestamp is never null");

    let def = spec(&[("v", Int32)]).resolve(&name("t")).unwrap();
    assert_eq!((def.timestamp, def.partition_by), (None, PartitionUnit::None));
    assert!(def.order_by.is_empty());
}

#[test]
fn options_may_say_what_clauses_say() {
    let mut spec = spec(&[("host", Utf8), ("a", TS), ("b", TS)]);
    let options = [
        ("timestamp", "b"),
        ("partition_by", "month"),
        ("order_by", "host, b"),
        ("target_file_size", "5"),
        ("compression", "lz4"),
    ];
    spec.options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let def = spec.resolve(&name("t")).unwrap();
    assert_eq!((def.timestamp, def.partition_by), (Some(ColumnId(3)), PartitionUnit::Month));
    assert_eq!(def.order_by, [ColumnId(1), ColumnId(3)]);
    let keys: Vec<&str> = def.options.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(keys, ["compression", "target_file_size"]);
}

#[test]
fn wrong_declarations_are_refused_and_say_why() {
    let list = List(std::sync::Arc::new(arrow_schema::Field::new("item", Int8, true)));
    let columns = [("ts", TS), ("v", Int32), ("l", list)];
    let with = |change: &dyn Fn(&mut TableSpec)| {
        let mut spec = spec(&columns);
        change(&mut spec);
        spec
    };
    let option = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let cases: Vec<(TableSpec, ErrorKind, &str)> = vec![
        (with(&|s| s.timestamp = Some("x".into())), ErrorKind::NotFound, "\"x\""),
        (with(&|s| s.timestamp = Some("v".into())), ErrorKind::InvalidInput, "Int32"),
        (with(&|s| s.order_by = Some(vec!["x".into()])), ErrorKind::NotFound, "\"x\""),
        (with(&|s| s.order_by = Some(vec!["l".into()])), ErrorKind::Unsupported, "no order"),
        (
            with(&|s| s.options = vec![option("partition_by", "fortnight")]),
            ErrorKind::InvalidInput,
            "fortnight",
        ),
        (with(&|s| s.options = vec![option("colour", "red")]), ErrorKind::InvalidInput, "colour"),
        (with(&|s| s.options = vec![option("schema", "x")]), ErrorKind::InvalidInput, "no value"),
        (with(&|s| s.options = vec![option("ttl", "1 day or so")]), ErrorKind::InvalidInput, "ttl"),
        (with(&|s| s.options = vec![option("compression", "rar")]), ErrorKind::InvalidInput, "rar"),
        (with(&|s| s.options = vec![option("timestamp", "ts"); 2]), ErrorKind::InvalidInput, "twice"),
        (with(&|s| s.columns.push(col("v", Int8))), ErrorKind::InvalidInput, "twice"),
        (with(&|s| s.columns.push(col("", Int8))), ErrorKind::InvalidInput, "empty"),
        (with(&|s| s.columns.clear()), ErrorKind::InvalidInput, "no columns"),
        (
            with(&|s| s.columns.push(col("i", Interval(arrow_schema::IntervalUnit::DayTime)))),
            ErrorKind::Unsupported,
            "\"i\"",
        ),
        (
            with(&|s| s.columns.extend((0..4096).map(|i| col(&format!("c{i}"), Int8)))),
            ErrorKind::InvalidInput,
            "4096",
        ),
        (
            TableSpec { partition_by: Some(PartitionUnit::Hour), ..spec(&[("v", Int32)]) },
            ErrorKind::InvalidInput,
            "timestamp",
        ),
    ];
    for (spec, kind, word) in cases {
        let mut log = Log::new();
        let step = Step::CreateTable { name: name("t"), spec, if_not_exists: false, replace: false };
        match log.run(vec![step]) {
            Fate::Refused(e) => {
                assert!(
                    e.kind() == kind && e.message().contains(word),
                    "{kind:?} {word}: {:?} {e}",
                    e.kind()
                );
                assert!(e.message().contains('t'), "{e}");
            }
            other => panic!("{word}: {other:?}"),
        }
        assert_eq!(log.head().seq(), Seq(0));
    }
}

#[test]
fn schemas_hold_tables_and_some_are_reserved() {
    let mut log = Log::new();
    let make = |name: &str, if_not_exists| Step::CreateSchema { name: name.into(), if_not_exists };
    let drop = |name: &str, if_exists| Step::DropSchema { name: name.into(), if_exists };
    let table = |schema: &str| Step::CreateTable {
        name: TableName::new(schema, "t"),
        spec: spec(&[("ts", TS)]),
        if_not_exists: false,
        replace: false,
    };
    let empty = log.head().digest;
    assert!(matches!(log.run(vec![table("lab")]), Fate::Refused(e) if e.kind() == ErrorKind::NotFound));
    log.must(vec![make("lab", false), table("lab")]);
    assert!(
        matches!(log.run(vec![make("lab", false)]), Fate::Refused(e) if e.kind() == ErrorKind::AlreadyExists)
    );
    assert_eq!(log.run(vec![make("lab", true)]), Fate::NoOp);
    assert!(matches!(log.run(vec![drop("lab", false)]), Fate::Refused(e) if e.message().contains("lab.t")));
    log.must(vec![Step::DropTable { name: TableName::new("lab", "t"), if_exists: true }, drop("lab", false)]);
    assert_eq!(log.run(vec![drop("lab", true)]), Fate::NoOp);
    assert!(matches!(log.run(vec![drop("public", false)]), Fate::Refused(_)));
    for reserved in ["system", "information_schema"] {
        assert!(matches!(log.run(vec![make(reserved, false)]), Fate::Refused(_)));
        assert_eq!(log.run(vec![make(reserved, true)]), Fate::NoOp);
        assert!(matches!(log.run(vec![table(reserved)]), Fate::Refused(_)));
    }
    assert_eq!(log.head().digest, empty, "what is gone leaves no trace among the entries");
}

#[test]
fn columns_alter_within_the_rules() {
    let mut log = Log::new();
    let spec = TableSpec {
        order_by: Some(vec!["k".into(), "ts".into()]),
        ..spec(&[("ts", TS), ("k", Int16), ("v", Null), ("w", Utf8)])
    };
    log.must(vec![Step::CreateTable { name: name("t"), spec, if_not_exists: false, replace: false }]);
    let drop = |c: &str| alter("t", Change::DropColumn { name: c.into(), if_exists: false });
    let widen = |c: &str, to| alter("t", Change::WidenColumn { name: c.into(), to });
    let rename = |c: &str, to: &str| alter("t", Change::RenameColumn { name: c.into(), to: to.into() });
    for refused in [
        drop("ts"),
        drop("k"),
        drop("x"),
        widen("k", Int8),
        widen("w", Int64),
        widen("v", Interval(arrow_schema::IntervalUnit::DayTime)),
        rename("w", "v"),
        rename("w", "a\nb"),
        rename("x", "y"),
    ] {
        assert!(matches!(log.run(vec![refused.clone()]), Fate::Refused(_)), "{refused:?}");
    }
    log.must(vec![widen("k", Int64), widen("v", Float64), rename("w", "x"), drop("x"), add("t", "w", Int8)]);
    let table = log.head().require(&name("t")).unwrap();
    let columns: Vec<_> = table.schema().columns.iter().map(|c| (c.id.0, c.name.as_str())).collect();
    assert_eq!(
        columns,
        [(1, "ts"), (2, "k"), (3, "v"), (5, "w")],
        "DROP then ADD of one name is a new column"
    );

    let only = super::spec(&[("only", Int8)]);
    log.must(vec![Step::CreateTable { name: name("one"), spec: only, if_not_exists: false, replace: false }]);
    let last = alter("one", Change::DropColumn { name: "only".into(), if_exists: false });
    assert!(matches!(log.run(vec![last]), Fate::Refused(_)));
}

#[test]
fn settings_come_and_go() {
    let mut log = Log::new();
    let set = |k: &str, v: Option<&str>| Step::SetSettings { settings: vec![(k.into(), v.map(Into::into))] };
    let empty = log.head().digest;
    log.must(vec![set("checkpoint_commits", Some("5"))]);
    log.must(vec![set("checkpoint_commits", Some("6"))]);
    assert_eq!(log.head().setting("checkpoint_commits"), Some("6"));
    log.must(vec![set("checkpoint_commits", None)]);
    assert_eq!((log.head().setting("checkpoint_commits"), log.head().digest), (None, empty));
    for (key, value) in [("checkpoint_commits", "0"), ("nonsense", "1"), ("mode", "single")] {
        assert!(matches!(log.run(vec![set(key, Some(value))]), Fate::Refused(_)), "{key}");
    }
}
