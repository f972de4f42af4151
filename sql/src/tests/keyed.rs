//! Reading tables with a key: whatever lies where, rows of equal keys are one.

use std::fmt::Write;

use tandem_types::ErrorKind;

use super::Fixture;
use crate::EngineConfig;

const COLUMNS: &str = "(ts TIMESTAMP, host TEXT, a BIGINT, b BIGINT) PARTITION BY DAY PRIMARY KEY (host, ts)";

async fn keyed(on_duplicate: &str) -> Fixture {
    let f = Fixture::new();
    f.run(&format!("CREATE TABLE t {COLUMNS} WITH (on_duplicate = '{on_duplicate}')")).await;
    f
}

const ALL: &str =
    "SELECT date_part('hour', ts) AS h, host, coalesce(a, -1), coalesce(b, -1) FROM t ORDER BY ts, host";

/// Two writes with keys in common, in each other and within themselves.
async fn written_twice(f: &Fixture, compact: bool) {
    f.run(
        "INSERT INTO t VALUES ('2024-01-01T01:00:00', 'x', 1, NULL), ('2024-01-01T02:00:00', 'x', 2, 20), \
         ('2024-01-01T01:00:00', 'x', NULL, 11)",
    )
    .await;
    if compact {
        f.database.compact("t", &[]).await;
    }
    f.run("INSERT INTO t VALUES ('2024-01-01T02:00:00', 'x', NULL, 21), ('2024-01-01T02:00:00', 'y', 3, 30)")
        .await;
}

#[tokio::test]
async fn rows_of_equal_keys_are_one() {
    for (on_duplicate, expected) in [
        ("replace", "1 x -1 11\n2 x -1 21\n2 y 3 30"),
        ("ignore", "1 x 1 -1\n2 x 2 20\n2 y 3 30"),
        ("merge", "1 x 1 11\n2 x 2 21\n2 y 3 30"),
    ] {
        for compact in [false, true] {
            let f = keyed(on_duplicate).await;
            written_twice(&f, compact).await;
            for _ in 0..2 {
                assert_eq!(f.ask(ALL).await, expected, "{on_duplicate}, {compact}");
                assert_eq!(f.ask("SELECT count(*) FROM t").await, "3");
                assert_eq!(f.ask("SELECT count(*) FROM (SELECT a FROM t LIMIT 2)").await, "2");
                f.database.compact("t", &[]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_policy_holds_for_the_rows_that_come_after_it() {
    let f = keyed("replace").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 1, 1)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 2, NULL)").await;
    f.run("ALTER TABLE t SET (on_duplicate = 'merge')").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', NULL, 3)").await;
    f.run("ALTER TABLE t SET (on_duplicate = 'ignore')").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 4, 4), ('2024-01-01', 'y', 4, 4)").await;
    assert_eq!(f.ask(ALL).await, "0 x 2 3\n0 y 4 4");
}

#[tokio::test]
async fn a_filter_on_a_value_sees_the_last_one_only() {
    for compact in [false, true] {
        let f = keyed("replace").await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 1, 1), ('2024-01-01', 'y', 2, 2)").await;
        if compact {
            f.database.compact("t", &[]).await;
        }
        f.run("INSERT INTO t VALUES ('2024-01-01', 'x', 100, 1)").await;
        assert_eq!(f.ask("SELECT host FROM t WHERE a = 1").await, "", "{compact}");
        assert_eq!(f.ask("SELECT host FROM t WHERE a = 100").await, "x");
        assert_eq!(f.ask("SELECT a FROM t WHERE host = 'x'").await, "100");
        assert_eq!(f.ask("SELECT a FROM t WHERE host = 'y' AND ts = '2024-01-01'").await, "2");
        assert_eq!(f.ask("SELECT host, sum(b) FROM t WHERE a < 50 GROUP BY host").await, "y 2");
    }
}

#[tokio::test]
async fn files_that_the_tail_does_not_meet_are_read_as_they_are() {
    let f = keyed("replace").await;
    for day in 1..=3 {
        f.run(&format!("INSERT INTO t VALUES ('2024-01-0{day}T01:00:00', 'x', {day}, 0), ('2024-01-0{day}T02:00:00', 'x', {day}, 0)")).await;
    }
    f.database.compact("t", &[]).await;
    let plan = f.ask("EXPLAIN SELECT a FROM t").await;
    assert!(!plan.contains("FoldExec"), "{plan}");
    let ordered = f.ask("EXPLAIN SELECT a FROM t ORDER BY ts").await;
    assert!(!ordered.contains("SortExec"), "{ordered}");
    // Later on the third day, and late on the first.
    f.run("INSERT INTO t VALUES ('2024-01-03T03:00:00', 'x', 4, 0)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01T01:00:00', 'x', 10, 0), ('2024-01-01T01:30:00', 'x', 11, 0)")
        .await;
    let plan = f.ask("EXPLAIN SELECT a FROM t").await;
    assert!(plan.contains("FoldExec: table=t, files=1, groups=2, tail_parts=2, mutations=0"), "{plan}");
    assert_eq!(f.ask("SELECT a FROM t ORDER BY ts").await, "10\n11\n1\n2\n2\n3\n3\n4");
    let third =
        f.ask("EXPLAIN SELECT a FROM t WHERE ts >= '2024-01-02' AND ts < '2024-01-03T03:00:00'").await;
    assert!(!third.contains("FoldExec"), "{third}");
    assert_eq!(f.ask("SELECT a FROM t WHERE ts < '2024-01-01T01:30:00'").await, "10");
    assert_eq!(f.ask("SELECT a FROM t ORDER BY ts DESC LIMIT 2").await, "4\n3");
    f.database.compact("t", &["2024-01-01"]).await;
    assert_eq!(f.ask("SELECT a FROM t ORDER BY ts").await, "10\n11\n1\n2\n2\n3\n3\n4");
    f.database.compact("t", &[]).await;
    f.database.damage_files().await;
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "8", "nothing is opened to count rows that are final");
}

#[tokio::test]
async fn one_section_in_many_partitions_is_folded_in_each() {
    let f = keyed("replace").await;
    let rows = |value: i64| {
        let rows = (1..=9).map(|day| format!("('2024-01-0{day}', 'x', {value}, {day})"));
        format!("INSERT INTO t VALUES {}", rows.collect::<Vec<_>>().join(", "))
    };
    f.run(&rows(1)).await;
    f.database.compact("t", &["2024-01-02", "2024-01-05"]).await;
    f.run(&rows(2)).await;
    assert_eq!(f.ask("SELECT count(*), sum(a), sum(b) FROM t").await, "9 18 45");
    f.database.compact("t", &["2024-01-05", "2024-01-07"]).await;
    f.run("INSERT INTO t VALUES ('2024-01-07', 'x', 3, 7)").await;
    assert_eq!(f.ask("SELECT count(*), sum(a), sum(b) FROM t").await, "9 19 45");
    assert_eq!(f.ask("SELECT a FROM t WHERE b IN (5, 7) ORDER BY b").await, "2\n3");
}

#[tokio::test]
async fn files_beside_each_other_and_a_bridge_between_parts_of_the_tail() {
    let f = keyed("replace").await;
    let mut values = String::new();
    for minute in 0..50 {
        write!(values, "('2024-01-01T00:{minute:02}:00', 'x', {minute}, 0),").unwrap();
    }
    f.run(&format!("INSERT INTO t VALUES {}", values.trim_end_matches(','))).await;
    f.database.fold("t", &[], false, 3).await;
    f.run("INSERT INTO t VALUES ('2024-01-01T00:01:00', 'x', 1000, 0)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01T00:40:00', 'x', 4000, 0), ('2024-01-01T00:40:00', 'y', 1, 0)")
        .await;
    let plan = f.ask("EXPLAIN SELECT a FROM t").await;
    assert!(plan.contains("files=3, groups=1, tail_parts=2"), "{plan}");
    assert_eq!(f.ask("SELECT count(*), sum(a) FROM t").await, format!("51 {}", 25 * 49 - 41 + 5001));
    assert_eq!(f.ask("SELECT a FROM t WHERE ts = '2024-01-01T00:40:00' ORDER BY a").await, "1\n4000");
}

#[tokio::test]
async fn without_the_time_in_the_key_a_row_may_move_in_time() {
    for compact in [false, true] {
        let f = Fixture::new();
        f.run("CREATE TABLE t (host TEXT, ts TIMESTAMP, a BIGINT) TIMESTAMP(ts) PARTITION BY NONE PRIMARY KEY (host)").await;
        f.run("INSERT INTO t VALUES ('x', '2024-01-01', 1), ('y', '2024-01-01', 2)").await;
        if compact {
            f.database.compact("t", &[]).await;
        }
        f.run("INSERT INTO t VALUES ('x', '2024-06-01', 3)").await;
        assert_eq!(f.ask("SELECT host, a FROM t ORDER BY host").await, "x 3\ny 2", "{compact}");
        assert_eq!(f.ask("SELECT host FROM t WHERE ts < '2024-02-01'").await, "y");
        assert_eq!(f.ask("SELECT host FROM t WHERE ts > '2024-02-01'").await, "x");
    }
}

#[tokio::test]
async fn a_key_without_any_time() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a TEXT)").await;
    f.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (1, 'c')").await;
    f.database.compact("t", &[]).await;
    f.run("INSERT INTO t VALUES (2, 'd'), (3, 'e')").await;
    assert_eq!(f.ask("SELECT id, a FROM t ORDER BY id").await, "1 c\n2 d\n3 e");
    assert_eq!(f.ask("SELECT a FROM t WHERE id = 2").await, "d");
}

#[tokio::test]
async fn folding_more_than_memory_allows_is_refused_not_suffered() {
    let config = EngineConfig { memory_limit: 1 << 20, target_partitions: 2, ..EngineConfig::default() };
    let f = Fixture::with(config);
    f.run(&format!("CREATE TABLE t {COLUMNS}")).await;
    f.run("INSERT INTO t SELECT to_timestamp(value), 'x', value AS a, value AS b FROM generate_series(1, 50000)").await;
    assert_eq!(f.refused("SELECT sum(a) FROM t").await.kind(), ErrorKind::Overloaded);
    f.database.compact("t", &[]).await;
    assert_eq!(f.ask("SELECT count(*), sum(a) FROM t").await, "50000 1250025000");
}
