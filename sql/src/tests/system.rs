//! The schema `system` and `SHOW`, through the engine.

use super::Fixture;

#[tokio::test]
async fn system_tables_tell_of_files_and_tail() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP(3), v INT) ORDER BY (v, ts)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01T06:00:00', 1), ('2024-01-02', 2)").await;
    f.database.compact("t", &["2024-01-01"]).await;
    assert_eq!(
        f.ask("SELECT table_name, timestamp_column, partition_by, order_by, rows, files, tail_rows, min_time FROM system.tables").await,
        "t ts day v, ts 2 1 1 2024-01-01T06:00:00"
    );
    assert_eq!(
        f.ask("SELECT partition, rows, files, tail_rows, max_time FROM system.partitions ORDER BY partition")
            .await,
        "2024-01-01 1 1 0 2024-01-01T06:00:00\n2024-01-02 1 0 1 2024-01-02T00:00:00"
    );
    assert_eq!(
        f.ask("SELECT partition, rows, level, path LIKE 'data/1/2024-01-01/%.parquet' FROM system.files")
            .await,
        "2024-01-01 1 0 true"
    );
    assert_eq!(f.ask("SELECT seq, table_name, rows FROM system.sections").await, "2 t 1");
    let value = "SELECT value, scope FROM system.settings WHERE name = 'checkpoint_commits'";
    let before = f.ask(value).await;
    f.run("ALTER DATABASE SET (checkpoint_commits = 77)").await;
    assert_ne!(f.ask(value).await, before);
    assert_eq!(f.ask(value).await, "77 database");
}

#[tokio::test]
async fn the_log_has_a_row_per_commit_and_is_read_in_part() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, v INT)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2)").await;
    f.database.compact("t", &[]).await;
    f.run("DROP TABLE t").await;
    assert_eq!(
        f.ask("SELECT seq, kind, transactions, tables, rows FROM system.log").await,
        "1 create table 1 1 0\n2 insert 1 1 2\n3 compaction 1 1 0\n4 drop table 1 1 0"
    );
    assert_eq!(
        f.ask("SELECT kind FROM system.log WHERE seq > 1 AND seq < 4 ORDER BY seq").await,
        "insert\ncompaction"
    );
    assert_eq!(f.ask("SELECT kind FROM system.log WHERE seq = 4").await, "drop table");
    assert_eq!(f.ask("SELECT count(*) FROM system.log WHERE kind = 'insert'").await, "1");
    assert_eq!(f.ask("SELECT seq FROM system.log LIMIT 2").await, "1\n2");
    // Pushed down or not, the bounds are kept.
    let plan = f.ask("EXPLAIN SELECT kind FROM system.log WHERE seq >= 3").await;
    assert!(plan.contains("StreamingTable"), "{plan}");
}

#[tokio::test]
async fn a_run_of_commits_longer_than_one_read_is_whole() {
    let f = Fixture::new();
    for i in 0..300 {
        f.run(&format!("CREATE TABLE t{i} (v INT)")).await;
    }
    assert_eq!(f.ask("SELECT count(*), min(seq), max(seq) FROM system.log").await, "300 1 300");
    assert_eq!(f.ask("SELECT count(*) FROM system.log WHERE seq BETWEEN 10 AND 290").await, "281");
}

#[tokio::test]
async fn queries_list_themselves() {
    let f = Fixture::new();
    assert_eq!(
        f.ask("SELECT session_id, state, statement LIKE 'SELECT session_id%' FROM system.queries").await,
        "test running true"
    );
    assert_eq!(
        f.ask("SELECT state, rows FROM system.queries WHERE statement LIKE 'SELECT session%'").await,
        "finished 1"
    );
}

#[tokio::test]
async fn what_show_create_table_says_creates_the_table() {
    let f = Fixture::new();
    f.run(
        "CREATE TABLE \"T\" (ts TIMESTAMP, \"A b\" STRUCT<x INT[], \"y z\" TEXT>, s SYMBOL NOT NULL) \
           PARTITION BY MONTH ORDER BY (s, ts) WITH (compression = lz4)",
    )
    .await;
    let shown = f.rows("SHOW CREATE TABLE \"T\"").await.unwrap();
    let sql = arrow::util::display::array_value_to_string(shown[0].column(1), 0).unwrap();
    let described = f.ask("DESCRIBE \"T\"").await;
    let options = f.ask("SELECT partition_by, order_by, options FROM system.tables").await;
    f.run("DROP TABLE \"T\"").await;
    f.run(&sql).await;
    assert_eq!(f.ask("DESCRIBE \"T\"").await, described);
    assert_eq!(f.ask("SELECT partition_by, order_by, options FROM system.tables").await, options);
    assert!(f.ask("DESCRIBE system.tables").await.contains("table_id UInt64 YES"));
    assert!(f.ask("SHOW TABLES FROM system").await.contains("system log"));
    assert!(f.ask("SHOW COLUMNS FROM nothing").await.contains("NotFound"));
}

#[tokio::test]
async fn producers_are_listed_with_the_time_of_their_last_commit() {
    let f = Fixture::new();
    assert_eq!(f.ask("SELECT count(*) FROM system.producers").await, "0");
    assert_eq!(
        f.ask("DESCRIBE system.producers")
            .await
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .collect::<Vec<_>>(),
        ["producer", "low", "last_counter", "last_seq", "last_time"]
    );
    assert!(f.ask("SHOW TABLES FROM system").await.contains("system producers"));
}
