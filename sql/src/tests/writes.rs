//! `INSERT` and `CREATE TABLE … AS`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::DataType;
use tandem_types::{ErrorKind, TableName};

use super::{Fixture, run, table};
use crate::database::Database;

async fn fixture() -> Fixture {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP(3), name TEXT, v SMALLINT)").await;
    f
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let named = columns.into_iter().enumerate().map(|(i, c)| (format!("p{i}"), c, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

#[tokio::test]
async fn values_are_matched_by_position_or_by_name() {
    let f = fixture().await;
    let result = f.run("INSERT INTO t VALUES ('2024-01-01', 'a', 1), ('2024-01-02', NULL, 1 + 1)").await;
    assert_eq!((result.rows, result.seq), (Some(2), f.database.snapshot().seq()));
    f.run("INSERT INTO t (v, ts) VALUES (3, '2024-01-03')").await;
    f.run("INSERT INTO t SELECT ts + INTERVAL '1 year', name, v FROM t WHERE v = 1").await;
    assert_eq!(
        f.ask("SELECT extract(year FROM ts), coalesce(name, '-'), v FROM t ORDER BY ts").await,
        "2024 a 1\n2024 - 2\n2024 - 3\n2025 a 1"
    );
}

#[tokio::test]
async fn what_does_not_fit_names_its_column_and_writes_nothing() {
    let f = fixture().await;
    let before = f.database.snapshot().seq();
    for (sql, kind, part) in [
        ("INSERT INTO t (ts, v) SELECT now(), 40000", ErrorKind::InvalidInput, "column \"v\""),
        ("INSERT INTO t (ts, v) VALUES (now(), 1), (now(), 40000)", ErrorKind::InvalidInput, "column \"v\""),
        ("INSERT INTO t (ts, v) SELECT now(), 'x'", ErrorKind::InvalidInput, "column \"v\""),
        ("INSERT INTO t (name) VALUES ('x')", ErrorKind::InvalidInput, "\"ts\""),
        ("INSERT INTO t (ts, name) VALUES (NULL, 'x')", ErrorKind::InvalidInput, "\"ts\" must not be null"),
        ("INSERT INTO t (ts, x, y) VALUES (now(), 1, 2)", ErrorKind::NotFound, "\"x\", \"y\""),
        ("INSERT INTO t (ts, ts) VALUES (now(), now())", ErrorKind::InvalidInput, "\"ts\""),
        ("INSERT INTO t VALUES (now(), 'x')", ErrorKind::InvalidInput, "2 values"),
        ("INSERT INTO nothing VALUES (1)", ErrorKind::NotFound, "nothing"),
    ] {
        let error = f.refused(sql).await;
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.message().contains(part), "{sql}: {error}");
    }
    assert_eq!(f.database.snapshot().seq(), before);
}

#[tokio::test]
async fn bound_rows_are_one_transaction() {
    let f = fixture().await;
    let insert = f.session.prepare("INSERT INTO t VALUES (?, upper(?), ?)").await.unwrap();
    assert!(!insert.is_query());
    let types: Vec<String> = insert.parameters().fields().iter().map(|f| f.data_type().to_string()).collect();
    assert_eq!(types, ["Timestamp(ms)", "Utf8", "Int16"]);

    let before = f.database.snapshot().seq();
    let rows = batch(vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(0..1000)),
        Arc::new(StringArray::from_iter_values((0..1000).map(|i| format!("n{i}")))),
        Arc::new(Int64Array::from_iter_values(0..1000)),
    ]);
    let result = insert.update(Some(rows)).await.unwrap();
    assert_eq!((result.seq, result.rows), (before.next(), Some(1000)));
    assert_eq!(f.ask("SELECT count(*), sum(v), max(name) FROM t").await, "1000 499500 N999");

    let too_much = batch(vec![
        Arc::new(TimestampMillisecondArray::from(vec![1, 2])),
        Arc::new(StringArray::from(vec!["a", "b"])),
        Arc::new(Int64Array::from(vec![1, 70_000])),
    ]);
    let error = insert.update(Some(too_much)).await.unwrap_err();
    assert!(error.message().contains("parameter $3"), "{error}");
    assert!(insert.update(None).await.is_err());
    assert_eq!(f.database.snapshot().seq(), before.next());
}

#[tokio::test]
async fn an_insert_of_a_query_takes_parameters_row_by_row() {
    let f = fixture().await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'a', 1), ('2024-01-02', 'b', 2)").await;
    let insert =
        f.session.prepare("INSERT INTO t (ts, v) SELECT ts, v + 10 FROM t WHERE v = $1").await.unwrap();
    let result = insert.update(Some(batch(vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]))).await.unwrap();
    assert_eq!(result.rows, Some(2));
    assert_eq!(f.ask("SELECT v FROM t ORDER BY v").await, "1\n2\n11\n12");
}

#[tokio::test]
async fn a_query_runs_once_per_row_of_parameters() {
    let f = fixture().await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'a', 1), ('2024-01-02', 'b', 2)").await;
    let query = f.session.prepare("SELECT name FROM t WHERE v = ?").await.unwrap();
    assert_eq!(query.parameters().field(0).data_type(), &DataType::Int16);
    let planned = query.plan(Some(batch(vec![Arc::new(Int64Array::from(vec![2, 1, 7]))]))).await.unwrap();
    assert_eq!(table(&run(&planned).await.unwrap()), "b\na");
    assert!(query.plan(None).await.is_err());

    let untyped = f.session.prepare("SELECT $1 AS x").await.unwrap();
    assert_eq!(untyped.parameters().field(0).data_type(), &DataType::Utf8);
    let planned = untyped.plan(Some(batch(vec![Arc::new(Int64Array::from(vec![7]))]))).await.unwrap();
    assert_eq!(table(&run(&planned).await.unwrap()), "7");
}

#[tokio::test]
async fn a_table_is_made_of_a_query() {
    let f = fixture().await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'a', 1), ('2024-01-02', 'b', 2)").await;
    let made = f.run("CREATE TABLE u AS SELECT ts, upper(name) AS name, v * 2 AS w FROM t").await;
    assert_eq!(made.rows, Some(2));
    let manifest = f.database.snapshot();
    let made = manifest.require(&TableName::public("u")).unwrap();
    assert_eq!(made.timestamp().map(|c| c.name.as_str()), Some("ts"));
    assert_eq!(made.schema().by_name("name").unwrap().data_type, DataType::Utf8);
    assert_eq!(f.ask("SELECT name, w FROM u ORDER BY w").await, "A 2\nB 4");

    assert_eq!(f.refused("CREATE TABLE u AS SELECT 1 AS x").await.kind(), ErrorKind::AlreadyExists);
    assert_eq!(f.run("CREATE TABLE IF NOT EXISTS u AS SELECT 1 AS x").await.rows, Some(0));
    f.run("CREATE OR REPLACE TABLE u AS SELECT 1 AS x").await;
    assert_eq!(f.ask("SELECT * FROM u").await, "1");
    assert!(f.refused("CREATE TABLE w AS SELECT 1 AS x, 2 AS x").await.message().contains("AS x"));
    assert!(f.refused("CREATE TABLE w AS SELECT NULL AS x").await.message().contains("\"x\""));
}
