//! Tables with a primary key: how they are said, shown, and what becomes of rows whose key is taken.

use tandem_types::{ErrorKind, TableName};

use super::Fixture;
use crate::database::Database;

async fn keyed(policy: &str) -> Fixture {
    let f = Fixture::new();
    f.run(&format!(
        "CREATE TABLE t (ts TIMESTAMP(3), host TEXT, a INT, b INT) PRIMARY KEY (host, ts) WITH (on_duplicate = '{policy}')"
    ))
    .await;
    f
}

const ROWS: &str = "SELECT host, coalesce(a, -1), coalesce(b, -1) FROM t ORDER BY host, ts";

#[tokio::test]
async fn the_policy_says_what_a_later_row_of_equal_key_does() {
    for (policy, expected) in
        [("replace", "x 3 -1\ny 1 1"), ("ignore", "x 1 1\ny 1 1"), ("merge", "x 3 1\ny 1 1")]
    {
        let f = keyed(policy).await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 1, 1), ('2024-01-01', 'y', 1, 1)").await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 2, NULL), ('2024-01-01', 'x', 3, NULL)").await;
        assert_eq!(f.ask(ROWS).await, expected, "{policy}");
        assert_eq!(f.ask("SELECT count(*) FROM t").await, "2", "{policy}");
        f.database.compact("t", &[]).await;
        assert_eq!(f.ask(ROWS).await, expected, "{policy}, compacted");
        assert_eq!(f.ask("SELECT count(*) FROM t").await, "2", "{policy}, compacted");
    }
}

#[tokio::test]
async fn a_changed_policy_acts_on_rows_from_then_on() {
    let f = keyed("ignore").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 1, 1)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 2, 2)").await;
    f.run("ALTER TABLE t SET (on_duplicate = 'merge')").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', NULL, 3)").await;
    assert_eq!(f.ask(ROWS).await, "x 1 3");
    f.run("ALTER TABLE t RESET (on_duplicate)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', NULL, 4)").await;
    assert_eq!(f.ask(ROWS).await, "x -1 4");

    f.run("CREATE TABLE plain (ts TIMESTAMP, v INT)").await;
    let error = f.refused("ALTER TABLE plain SET (on_duplicate = 'merge')").await;
    assert!(error.message().contains("primary key"), "{error}");
    let error = f.refused("ALTER TABLE t SET (on_duplicate = 'sum')").await;
    assert!(error.message().contains("replace, ignore"), "{error}");
}

#[tokio::test]
async fn one_statement_may_decide_for_itself() {
    let f = keyed("replace").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 1, 1)").await;
    let nothing =
        "INSERT INTO t VALUES ('2024-01-01', 'x', 2, 2), ('2024-01-02', 'x', 5, 5) ON CONFLICT DO NOTHING";
    let done = f.run(nothing).await;
    assert_eq!((done.rows, done.exact), (Some(2), false));
    assert_eq!(f.ask(ROWS).await, "x 1 1\nx 5 5");
    let some = "INSERT INTO t (host, ts, b) VALUES ('x', '2024-01-01', 7) ON CONFLICT (ts, host) DO UPDATE SET b = excluded.b";
    let done = f.run(some).await;
    assert_eq!((done.rows, done.exact), (Some(1), true));
    assert_eq!(f.ask(ROWS).await, "x 1 7\nx 5 5");
    // A column that the INSERT does not name is null in the row that was excluded.
    f.run("INSERT INTO t (host, ts, b) VALUES ('x', '2024-01-01', 8) ON CONFLICT (ts, host) DO UPDATE SET a = excluded.a")
        .await;
    assert_eq!(f.ask(ROWS).await, "x -1 7\nx 5 5");
    f.database.compact("t", &[]).await;
    assert_eq!(f.ask(ROWS).await, "x -1 7\nx 5 5");
}

#[tokio::test]
async fn what_a_conflict_cannot_be_is_refused() {
    let f = keyed("replace").await;
    f.run("CREATE TABLE plain (ts TIMESTAMP, v INT)").await;
    let insert = "INSERT INTO t (ts, host) VALUES (now(), 'x') ON CONFLICT";
    for (sql, part) in [
        ("INSERT INTO plain VALUES (now(), 1) ON CONFLICT DO NOTHING".to_owned(), "table plain has none"),
        (format!("{insert} (host) DO NOTHING"), "is (host, ts)"),
        (format!("{insert} (host, a) DO NOTHING"), "is (host, ts)"),
        (format!("{insert} (host, ts) DO UPDATE SET host = excluded.host"), "equal in both rows"),
        (format!("{insert} (host, ts) DO UPDATE SET z = excluded.z"), "no column \"z\""),
    ] {
        let error = f.refused(&sql).await;
        assert!(error.message().contains(part), "{sql}: {error}");
    }
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_key_is_shown_and_copied() {
    let f = keyed("merge").await;
    let expected = "\
CREATE TABLE t (
  ts TIMESTAMP(3) NOT NULL,
  host TEXT NOT NULL,
  a INT,
  b INT
)
TIMESTAMP(ts)
PARTITION BY DAY
ORDER BY (ts)
PRIMARY KEY (host, ts)
WITH (on_duplicate = 'merge')";
    let shown = f.rows("SHOW CREATE TABLE t").await.unwrap();
    let shown = arrow::util::display::array_value_to_string(shown[0].column(1), 0).unwrap();
    // Text is whatever SQL calls it first.
    assert_eq!(shown.replace("VARCHAR", "TEXT"), expected);
    f.run(&shown.replace("TABLE t ", "TABLE u ")).await;
    let snapshot = f.database.snapshot();
    let def = |name: &str| snapshot.require(&TableName::public(name)).unwrap().def().clone();
    assert_eq!(def("u"), def("t"));
    assert_eq!(f.ask("SELECT primary_key FROM system.tables WHERE table_name = 't'").await, "host, ts");
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused() {
    let f = Fixture::new();
    for (sql, kind, part) in [
        (
            "CREATE TABLE t (ts TIMESTAMP, h TEXT, PRIMARY KEY (h))",
            ErrorKind::InvalidInput,
            "designated timestamp",
        ),
        ("CREATE TABLE t (ts TIMESTAMP, h TEXT, PRIMARY KEY (x, ts))", ErrorKind::NotFound, "\"x\""),
        ("CREATE TABLE t (ts TIMESTAMP, v DOUBLE, PRIMARY KEY (v, ts))", ErrorKind::Unsupported, "\"v\""),
        (
            "CREATE TABLE t (ts TIMESTAMP) WITH (on_duplicate = 'merge')",
            ErrorKind::InvalidInput,
            "primary key",
        ),
    ] {
        let error = f.refused(sql).await;
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.message().contains(part), "{sql}: {error}");
    }
    // Where rows are not apart by time, the key need not be either.
    f.run("CREATE TABLE t (ts TIMESTAMP, h INT PRIMARY KEY) PARTITION BY NONE").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 1)").await;
    f.run("INSERT INTO t VALUES ('2025-01-01', 1)").await;
    assert_eq!(f.ask("SELECT extract(year FROM ts) FROM t").await, "2025");
    let error = f.refused("INSERT INTO t VALUES ('2025-01-01', NULL)").await;
    assert!(error.message().contains("\"h\" must not be null"), "{error}");
}
