//! `UPDATE` and `DELETE`: what is logged, what is evaluated, what is counted.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use tandem_format::MutationKind;
use tandem_manifest::{Step, Table};
use tandem_types::{ErrorKind, TableName};

use super::Fixture;
use crate::database::Database;
use crate::prepared::UpdateResult;

async fn fixture() -> Fixture {
    let f = Fixture::new();
    f.run(
        "CREATE TABLE t (ts TIMESTAMP(3), name TEXT, kind SYMBOL, v SMALLINT, w DOUBLE, n BIGINT NOT NULL)",
    )
    .await;
    f.run(
        "INSERT INTO t VALUES ('2024-01-01', 'a', 'x', 1, 1.5, 10), ('2024-01-02', 'b', 'x', 2, NULL, 20), \
         ('2024-01-03', NULL, 'y', NULL, 3.5, 30)",
    )
    .await;
    f
}

fn table(f: &Fixture) -> Table {
    f.database.snapshot().require(&TableName::public("t")).unwrap().clone()
}

fn last_kind(f: &Fixture) -> MutationKind {
    table(f).mutations().last().unwrap().mutation.kind.clone()
}

fn is_logged(f: &Fixture) -> bool {
    !matches!(last_kind(f), MutationKind::Lookup { .. })
}

fn counted(done: &UpdateResult) -> (Option<u64>, bool) {
    (done.rows, done.exact)
}

fn params(columns: Vec<ArrayRef>) -> Option<RecordBatch> {
    let named = columns.into_iter().enumerate().map(|(i, c)| (format!("p{i}"), c, true));
    Some(RecordBatch::try_from_iter_with_nullable(named).unwrap())
}

const ALL: &str =
    "SELECT coalesce(name, '-'), coalesce(kind, '-'), coalesce(v, -1), coalesce(w, -1), n FROM t ORDER BY ts";

#[tokio::test]
async fn an_update_acts_on_the_rows_before_it() {
    let f = fixture().await;
    let done = f.run("UPDATE t SET v = v + 10, name = 'z', w = w * 2 WHERE v >= 1 AND kind = 'x'").await;
    assert_eq!(counted(&done), (Some(2), true));
    assert!(is_logged(&f));
    let expected = "z x 11 3.0 10\nz x 12 -1.0 20\n- y -1 3.5 30";
    assert_eq!(f.ask(ALL).await, expected);
    f.run("INSERT INTO t VALUES ('2024-01-04', 'c', 'x', 5, 0, 40)").await;
    let later = format!("{expected}\nc x 5 0.0 40");
    assert_eq!(f.ask(ALL).await, later);
    f.database.compact("t", &[]).await;
    assert_eq!(f.ask(ALL).await, later);
    assert_eq!(table(&f).mutations().count(), 0);
}

#[tokio::test]
async fn a_delete_acts_on_the_rows_before_it() {
    let f = fixture().await;
    assert_eq!(counted(&f.run("DELETE FROM t WHERE v IS NULL OR name = 'a'").await), (Some(2), true));
    assert!(is_logged(&f));
    assert_eq!(f.ask("SELECT name FROM t").await, "b");
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "1");
    f.run("INSERT INTO t VALUES ('2024-01-01', 'a', 'x', 1, 1.5, 10)").await;
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "2");
    assert_eq!(counted(&f.run("DELETE FROM t").await), (Some(2), true));
    assert_eq!((f.ask("SELECT count(*) FROM t").await, table(&f).rows()), ("0".to_owned(), 0));
    assert_eq!(table(&f).mutations().count(), 0);
}

#[tokio::test]
async fn what_looks_at_one_row_is_logged() {
    let f = fixture().await;
    for predicate in [
        "v = 1",
        "v IN (1, 2, NULL)",
        "v NOT IN (1, 2)",
        "name LIKE 'a%' AND NOT (w > 1e9)",
        "name ILIKE '_' OR name IS NULL",
        "ts BETWEEN '2024-01-01' AND '2024-01-02T12:00:00'",
        "v + 1 < n / 2",
        "CASE WHEN v > 1 THEN name = 'b' ELSE kind = 'x' END",
        "coalesce(v, 7) = 7",
        "(w > 2) IS NOT TRUE",
        "kind IS DISTINCT FROM 'x'",
        "name || kind = 'ax'",
        "CAST(v AS TEXT) = '1'",
        "v = (SELECT max(v) FROM t)",
        "name IN (SELECT name FROM t WHERE v = 1)",
        "EXISTS (SELECT 1 FROM t WHERE v = 1)",
        "n = nullif(10, v)",
        "v > 0 AND v < 3 AND n > 0 AND n < 100 AND w IS NOT NULL AND name <> 'q' AND kind <> 'q'",
    ] {
        let before = f.ask(&format!("SELECT name, n FROM t WHERE ({predicate}) ORDER BY ts")).await;
        let count = f.ask(&format!("SELECT count(*) FROM t WHERE ({predicate})")).await;
        let done = f.run(&format!("UPDATE t SET n = n WHERE {predicate}")).await;
        assert_eq!(done.rows.unwrap().to_string(), count, "{predicate}");
        if count != "0" {
            assert!(is_logged(&f), "{predicate}");
        }
        assert_eq!(f.ask(&format!("SELECT name, n FROM t WHERE ({predicate}) ORDER BY ts")).await, before);
        f.run(&format!("UPDATE t SET w = -100 WHERE {predicate}")).await;
        assert_eq!(f.ask("SELECT count(*) FROM t WHERE w = -100").await, count, "{predicate}");
        f.run("DELETE FROM t").await;
        f.run(
            "INSERT INTO t VALUES ('2024-01-01', 'a', 'x', 1, 1.5, 10), ('2024-01-02', 'b', 'x', 2, NULL, 20), \
             ('2024-01-03', NULL, 'y', NULL, 3.5, 30)",
        )
        .await;
    }
}

#[tokio::test]
async fn what_looks_further_is_evaluated_and_looked_up() {
    let f = fixture().await;
    f.run("CREATE TABLE u (k TEXT, x SMALLINT)").await;
    f.run("INSERT INTO u VALUES ('a', 7), ('b', 8), ('q', 9)").await;
    let cases = [
        ("UPDATE t SET name = upper(name) WHERE v < 9", 2, "A x 1 1.5 10\nB x 2 -1.0 20\n- y -1 3.5 30"),
        (
            "UPDATE t SET v = u.x FROM u WHERE lower(t.name) = u.k",
            2,
            "A x 7 1.5 10\nB x 8 -1.0 20\n- y -1 3.5 30",
        ),
        (
            "UPDATE t AS s SET w = (SELECT sum(x) FROM u WHERE u.k = lower(s.name))",
            3,
            "A x 7 7.0 10\nB x 8 8.0 20\n- y -1 -1.0 30",
        ),
        ("UPDATE t SET kind = date_trunc('day', ts)::TEXT WHERE n = 10", 1, ""),
        ("DELETE FROM t WHERE length(name) = 1 AND n = 10", 1, "B x 8 8.0 20\n- y -1 -1.0 30"),
        ("DELETE FROM t USING u WHERE u.x = t.v", 1, "- y -1 -1.0 30"),
        ("UPDATE t SET w = random() * 0", 1, "- y -1 0.0 30"),
        ("DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.name)", 1, ""),
    ];
    for (sql, rows, expected) in cases {
        assert_eq!(counted(&f.run(sql).await), (Some(rows), true), "{sql}");
        if table(&f).mutations().count() > 0 {
            assert!(!is_logged(&f), "{sql}");
        }
        if !expected.is_empty() {
            assert_eq!(f.ask(ALL).await, expected, "{sql}");
        }
    }
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
    f.run("INSERT INTO t VALUES ('2024-01-01', 'a', 'x', 1, 1.5, 10)").await;
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn rows_that_say_different_values_are_refused() {
    let f = fixture().await;
    f.run("CREATE TABLE u (k TEXT, x SMALLINT)").await;
    f.run("INSERT INTO u VALUES ('a', 7), ('a', 7), ('b', 1), ('b', 2)").await;
    assert_eq!(f.run("UPDATE t SET v = u.x FROM u WHERE name = k AND k = 'a'").await.rows, Some(1));
    let error = f.refused("UPDATE t SET v = u.x FROM u WHERE name = k").await;
    assert!(error.message().contains("different new values"), "{error}");
    let error = f.refused("UPDATE t SET v = (SELECT x FROM u)").await;
    assert!(error.message().contains("several rows"), "{error}");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_changes_nothing() {
    let f = fixture().await;
    let before = f.database.snapshot().seq();
    for (sql, kind, part) in [
        ("UPDATE t SET v = 40000", ErrorKind::InvalidInput, "column \"v\""),
        ("UPDATE t SET w = 1, v = n * 10000", ErrorKind::InvalidInput, "column \"v\""),
        ("UPDATE t SET v = upper(name)", ErrorKind::InvalidInput, "column \"v\""),
        ("UPDATE t SET n = n * 9223372036854775807", ErrorKind::InvalidInput, "column \"n\""),
        ("UPDATE t SET n = n / (v - 1)", ErrorKind::InvalidInput, ""),
        ("UPDATE t SET n = NULL", ErrorKind::InvalidInput, "\"n\" must not be null"),
        ("UPDATE t SET n = v", ErrorKind::InvalidInput, "\"n\" must not be null"),
        ("UPDATE t SET ts = now()", ErrorKind::Unsupported, "designated timestamp"),
        ("UPDATE t SET x = 1", ErrorKind::NotFound, "\"x\""),
        ("UPDATE t SET v = x", ErrorKind::NotFound, "x"),
        ("UPDATE t SET v = max(v)", ErrorKind::InvalidInput, "more than one row"),
        ("UPDATE t SET v = row_number() OVER ()", ErrorKind::InvalidInput, "more than one row"),
        ("UPDATE nothing SET v = 1", ErrorKind::NotFound, "nothing"),
        ("DELETE FROM nothing", ErrorKind::NotFound, "nothing"),
        ("DELETE FROM t WHERE v", ErrorKind::InvalidInput, ""),
    ] {
        let error = f.refused(sql).await;
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.message().contains(part), "{sql}: {error}");
    }
    assert_eq!(f.database.snapshot().seq(), before);
    // Only the rows that are there can be looked at: it would not fit, but acts on none.
    assert_eq!(counted(&f.run("UPDATE t SET v = n * 1000 WHERE n > 1000").await), (Some(0), true));
    assert_eq!(f.database.snapshot().seq(), before);

    f.run("CREATE TABLE k (ts TIMESTAMP, id INT, v INT, PRIMARY KEY (ts, id))").await;
    let error = f.refused("UPDATE k SET id = 1").await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn rows_that_come_later_than_the_look_keep_their_rules() {
    let f = fixture().await;
    let late = "INSERT INTO t VALUES ('2024-01-04', 'late', 'x', 5, 0, 40)";
    f.run("CREATE TABLE other (a INT)").await;
    let truncate = |name: &str| vec![Step::Truncate { name: TableName::public(name) }];
    // A change of another table is none of the target.
    f.database.others.lock().unwrap().push(truncate("other"));
    assert_eq!(counted(&f.run("UPDATE t SET w = 0 WHERE v = 1").await), (Some(1), true));
    // One of the target makes the count an estimate, and the statement stands.
    f.database.others.lock().unwrap().push(truncate("t"));
    assert_eq!(counted(&f.run("UPDATE t SET w = 0 WHERE v = 1").await), (Some(1), false));
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
    f.run(late).await;
    // What was evaluated is evaluated again.
    f.database.others.lock().unwrap().push(truncate("t"));
    assert_eq!(counted(&f.run("UPDATE t SET name = upper(name)").await), (Some(0), true));
    // And given up after a while, with an error that says that it may be tried again.
    f.run(late).await;
    f.database.always_changes.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = f.refused("UPDATE t SET name = upper(name)").await;
    assert_eq!(error.kind(), ErrorKind::Serialization, "{error}");
    // Not so where nothing was evaluated.
    assert_eq!(counted(&f.run("UPDATE t SET name = 'X'").await), (Some(0), false));
    f.database.always_changes.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted(&f.run("UPDATE t SET name = 'X'").await), (Some(0), true));
}

#[tokio::test]
async fn a_count_by_a_predicate_that_may_overflow_is_an_estimate() {
    let f = fixture().await;
    let before: i64 = f.ask("SELECT count(*) FROM t").await.parse().unwrap();
    // The query wraps around and finds rows, the log computes nothing there and leaves them alone.
    let wraps = "n > 0 AND CAST(n AS BIGINT) + 9223372036854775807 < 0";
    let found = f.ask(&format!("SELECT count(*) FROM t WHERE {wraps}")).await;
    assert_ne!(found, "0");
    let done = f.run(&format!("DELETE FROM t WHERE {wraps}")).await;
    assert!(!done.exact, "{done:?}");
    assert_eq!(f.ask("SELECT count(*) FROM t").await.parse::<i64>().unwrap(), before);
}

#[tokio::test]
async fn the_commits_time_is_no_time_of_the_count() {
    let f = fixture().await;
    let done = f.run("DELETE FROM t WHERE ts < now() AND v = 1").await;
    assert_eq!(counted(&done), (Some(1), false));
    let done = f.run("UPDATE t SET n = CAST(extract(year FROM now()) AS BIGINT) WHERE v = 2").await;
    assert_eq!(counted(&done), (Some(1), true));
}

#[tokio::test]
async fn parameters_are_typed_by_their_columns() {
    let f = fixture().await;
    let update = f.session.prepare("UPDATE t SET v = ?, name = upper(?) WHERE n = ?").await.unwrap();
    assert!(!update.is_query());
    let types: Vec<DataType> =
        update.parameters().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int16, DataType::Utf8, DataType::Int64]);
    let rows = params(vec![
        Arc::new(Int64Array::from(vec![5, 6, 7])),
        Arc::new(StringArray::from(vec!["k", "l", "m"])),
        Arc::new(Int64Array::from(vec![10, 20, 10])),
    ]);
    let before = f.database.snapshot().seq();
    let done = update.update(rows).await.unwrap();
    assert_eq!((counted(&done), done.seq), ((Some(3), true), before.next()));
    assert_eq!(f.ask(ALL).await, "M x 7 1.5 10\nL x 6 -1.0 20\n- y -1 3.5 30");
    let wrong = params(vec![
        Arc::new(Int64Array::from(vec![70_000])),
        Arc::new(StringArray::from(vec!["k"])),
        Arc::new(Int64Array::from(vec![10])),
    ]);
    assert!(update.update(wrong).await.unwrap_err().message().contains("parameter $1"));

    let delete = f.session.prepare("DELETE FROM t WHERE n = $1 AND v = $2").await.unwrap();
    let keys = || Arc::new(Int64Array::from(vec![10, 10])) as ArrayRef;
    // The second row finds what the first has left.
    let done = delete.update(params(vec![keys(), Arc::new(Int64Array::from(vec![7, 7]))])).await.unwrap();
    assert_eq!(counted(&done), (Some(1), true));
    let evaluated = f.session.prepare("UPDATE t SET name = lower(name) WHERE n = ?").await.unwrap();
    let twice = params(vec![Arc::new(Int64Array::from(vec![20, 20]))]);
    let error = evaluated.update(twice).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn the_log_says_when_a_mutation_cannot_matter() {
    let f = fixture().await;
    f.run("UPDATE t SET w = 1 WHERE ts >= '2024-01-02' AND ts < '2024-01-03'").await;
    let day = 86_400_000;
    let new_year = 1_704_067_200_000_i64;
    let time = table(&f).mutations().last().unwrap().mutation.time.unwrap();
    assert_eq!(time.0, new_year + day);
    assert!((new_year + 2 * day - 1..=new_year + 2 * day).contains(&time.1), "{time:?}");
    // Of what is looked up, the rows themselves say it.
    f.run("UPDATE t SET name = upper(name) WHERE n = 20").await;
    let time = table(&f).mutations().last().unwrap().mutation.time;
    assert_eq!(time, Some((new_year + day, new_year + day)));
    let before = f.database.snapshot().seq();
    assert_eq!(
        counted(&f.run("DELETE FROM t WHERE ts > '2025-01-01' AND ts < '2024-01-01'").await),
        (Some(0), true)
    );
    assert_eq!(f.database.snapshot().seq(), before);
}

#[tokio::test]
async fn pending_mutations_are_listed_until_they_are_written_in() {
    let f = fixture().await;
    f.database.compact("t", &[]).await;
    f.run("UPDATE t SET w = 1 WHERE v = 1").await;
    f.run("DELETE FROM t WHERE length(name) = 9").await;
    f.run("DELETE FROM t WHERE length(name) = 1 AND v = 2").await;
    let list = "SELECT table_name, kind, pending_files, statement FROM system.mutations ORDER BY seq";
    assert_eq!(
        f.ask(list).await,
        "t update 3 UPDATE t SET w = 1 WHERE v = 1\nt delete 1 DELETE FROM t WHERE length(name) = 1 AND v = 2"
    );
}
