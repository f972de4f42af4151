//! Reading: files and tail, pruning, statistics, snapshots, resources.

use std::fmt::Write;

use futures::StreamExt;
use tandem_types::{ErrorKind, Seq};

use super::{Fixture, run, table};
use crate::database::Database;
use crate::{EngineConfig, meta};

const CREATE: &str = "CREATE TABLE cpu (ts TIMESTAMP, host TEXT, load DOUBLE, n BIGINT) \
                      TIMESTAMP(ts) PARTITION BY DAY";

/// Three days of two hosts, the first two days in files, one section across the border to the third.
async fn filled() -> Fixture {
    let f = Fixture::new();
    f.run(CREATE).await;
    for (day, n) in [("2024-01-01", 1), ("2024-01-02", 10), ("2024-01-03", 100)] {
        f.run(&format!(
            "INSERT INTO cpu VALUES (TIMESTAMP '{day}T06:00:00', 'a', 0.5, {n}), \
             (TIMESTAMP '{day}T18:00:00', 'b', 1.5, {})",
            n * 2
        ))
        .await;
    }
    f.run("INSERT INTO cpu VALUES ('2024-01-02T12:00:00', 'c', 2.5, 1000), ('2024-01-03T12:00:00', 'c', 3.5, 2000)")
        .await;
    f.database.compact("cpu", &["2024-01-01", "2024-01-02"]).await;
    f
}

#[tokio::test]
async fn files_and_tail_answer_as_one_table() {
    let f = filled().await;
    assert_eq!(f.ask("SELECT count(*), sum(n), min(host) FROM cpu").await, "8 3333 a");
    let by_host = "SELECT host, sum(n) AS n FROM cpu GROUP BY host ORDER BY host";
    assert_eq!(f.ask(by_host).await, "a 111\nb 222\nc 3000");
    assert_eq!(f.ask("SELECT n FROM cpu WHERE host = 'c' ORDER BY ts").await, "1000\n2000");
    let by_day = "SELECT date_bin(INTERVAL '1 day', ts) AS d, count(*) FROM cpu GROUP BY d ORDER BY d";
    assert_eq!(f.ask(by_day).await, "2024-01-01T00:00:00 2\n2024-01-02T00:00:00 3\n2024-01-03T00:00:00 3");
    assert_eq!(f.ask("SELECT n FROM cpu ORDER BY ts DESC LIMIT 2").await, "200\n2000");
    assert_eq!(f.ask("SELECT n FROM cpu ORDER BY ts").await, "1\n2\n10\n1000\n20\n100\n2000\n200");
    assert_eq!(f.ask("SELECT count(*) FROM (SELECT * FROM cpu LIMIT 3)").await, "3");
    assert_eq!(
        f.ask("SELECT host, last_value(n ORDER BY ts) FROM cpu GROUP BY host ORDER BY host").await,
        "a 100\nb 200\nc 2000"
    );
}

#[tokio::test]
async fn only_what_a_filter_on_time_leaves_is_opened() {
    let f = filled().await;
    let first = "SELECT sum(n) FROM cpu WHERE ts < '2024-01-02'";
    assert_eq!(f.ask(first).await, "3");
    assert_eq!(f.database.loads(), 0, "the tail begins on the second day, live only on the third");
    let last = "SELECT sum(n) FROM cpu WHERE ts >= TIMESTAMP '2024-01-03' AND ts < TIMESTAMP '2024-01-04'";
    assert_eq!(f.ask(last).await, "2300");
    let plan = f.ask(&format!("EXPLAIN {last}")).await;
    assert!(plan.contains("TailExec") && !plan.contains("parquet"), "{plan}");
    let plan = f.ask("EXPLAIN SELECT n FROM cpu WHERE ts = TIMESTAMP '2024-01-02T12:00:00'").await;
    assert!(plan.contains("parquet") && !plan.contains("TailExec"), "{plan}");
    assert_eq!(f.ask("SELECT n FROM cpu WHERE ts > '2030-01-01'").await, "");
}

#[tokio::test]
async fn counts_and_bounds_of_time_need_no_io() {
    let f = filled().await;
    f.database.damage_files().await;
    assert_eq!(f.ask("SELECT count(*) FROM cpu").await, "8");
    assert_eq!(f.database.loads(), 0);
    // A section of which only a part is live tells no exact bounds.
    f.run("CREATE TABLE whole (ts TIMESTAMP, v INT)").await;
    f.run("INSERT INTO whole VALUES ('2024-01-01', 1), ('2024-01-05', 2)").await;
    assert_eq!(
        f.ask("SELECT min(ts), max(ts), count(ts) FROM whole").await,
        "2024-01-01T00:00:00 2024-01-05T00:00:00 2"
    );
    assert_eq!(f.database.loads(), 0);
    assert!(f.ask("SELECT sum(n) FROM cpu").await.starts_with("Damaged: data file"), "damage is named");
}

#[tokio::test]
async fn a_planned_query_reads_its_snapshot_as_often_as_it_is_started() {
    let f = filled().await;
    let planned = f.plan("SELECT sum(n) FROM cpu").await.unwrap();
    f.run("INSERT INTO cpu (ts, n) VALUES (now(), 5)").await;
    f.run("ALTER TABLE cpu DROP COLUMN n").await;
    assert!(planned.snapshot_seq() < f.database.snapshot().seq());
    for _ in 0..2 {
        assert_eq!(table(&run(&planned).await.unwrap()), "3333");
    }
    assert_eq!(f.ask("SELECT count(*) FROM cpu").await, "9");
}

#[tokio::test]
async fn results_come_in_wire_types() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, tag TEXT, b BYTEA)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 'x', X'01ff')").await;
    for _ in 0..2 {
        let batches = f.rows("SELECT tag, b, tag || '!' AS s, [tag] AS l FROM t").await.unwrap();
        let types: Vec<String> =
            batches[0].schema().fields().iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(types[..3], ["Utf8", "Binary", "Utf8"]);
        assert!(!types[3].contains("View"), "{types:?}");
        assert_eq!(table(&batches), "x 01ff x! [x]");
        f.database.compact("t", &[]).await;
    }
    assert_eq!(f.ask("SELECT repeat('x', 5)").await, "xxxxx");
}

#[tokio::test]
async fn a_query_can_be_cancelled_and_dropped() {
    let f = Fixture::new();
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) a";
    let planned = f.plan(endless).await.unwrap();
    let mut running = planned.start(Some("mine".to_owned())).await.unwrap();
    assert_eq!(planned.start(Some("mine".to_owned())).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    f.run("CANCEL QUERY 'mine'").await;
    let error = running.stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(running.stream.next().await.is_none());
    assert_eq!(f.refused("CANCEL QUERY 'mine'").await.kind(), ErrorKind::NotFound);
    drop(planned.start(None).await.unwrap());
    assert_eq!(f.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_sort_beyond_the_memory_limit_spills() {
    let config = EngineConfig { memory_limit: 4 << 20, target_partitions: 2, ..EngineConfig::default() };
    let f = Fixture::with(config);
    let sql = "SELECT count(*) FROM (SELECT md5(value::text) AS m FROM generate_series(1, 200000) ORDER BY m, value)";
    assert_eq!(f.ask(sql).await, "200000");
}

#[tokio::test]
async fn plans_can_be_explained_and_writes_are_not_run_by_it() {
    let f = filled().await;
    let analysed = f.ask("EXPLAIN ANALYZE SELECT * FROM cpu").await;
    assert!(analysed.contains("output_rows=8") && analysed.contains("bytes_scanned"), "{analysed}");
    f.refused("EXPLAIN INSERT INTO cpu (ts) VALUES (now())").await;
    f.refused("EXPLAIN ANALYZE INSERT INTO cpu (ts) VALUES (now())").await;
    assert_eq!(f.ask("SELECT count(*) FROM cpu").await, "8");
}

#[tokio::test]
async fn many_files_are_pruned_to_the_few_that_matter() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, v INT) PARTITION BY HOUR").await;
    f.run("INSERT INTO t VALUES ('1970-01-01', 1)").await;
    f.database.pretend_files("t", 20_000);
    let plan = f.ask("EXPLAIN SELECT v FROM t WHERE ts >= '1970-02-01' AND ts < '1970-02-01T02:00:00'").await;
    assert_eq!(plan.matches(".parquet").count(), 2, "{plan}");
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "20000");
}

#[tokio::test]
async fn an_order_that_files_have_is_used() {
    let f = Fixture::new();
    f.run(CREATE).await;
    let mut expected = String::new();
    for day in 1..=5 {
        let mut values = String::new();
        for hour in (0..24).rev() {
            write!(values, "('2024-01-0{day}T{hour:02}:00:00', 'h', 0, {}),", day * 100 + hour).unwrap();
        }
        f.run(&format!("INSERT INTO cpu VALUES {}", values.trim_end_matches(','))).await;
        for hour in 0..24 {
            writeln!(expected, "{}", day * 100 + hour).unwrap();
        }
    }
    f.database.compact("cpu", &[]).await;
    let sql = "SELECT n FROM cpu ORDER BY ts";
    assert_eq!(f.ask(sql).await, expected.trim_end());
    let plan = f.ask(&format!("EXPLAIN {sql}")).await;
    assert!(!plan.contains("SortExec"), "{plan}");
    let down = "SELECT n FROM cpu ORDER BY ts DESC LIMIT 3";
    assert_eq!(f.ask(down).await, "523\n522\n521");
}

#[tokio::test]
async fn metadata_lists_all_schemas_and_wire_types() {
    let f = filled().await;
    f.run("CREATE SCHEMA other").await;
    f.run("CREATE TABLE other.t (v TEXT)").await;
    let snapshot = f.database.snapshot();
    assert_eq!(meta::list_schemas(&snapshot), ["information_schema", "other", "public", "system"]);
    let tables = meta::list_tables(&f.session, &snapshot).await.unwrap();
    let cpu = tables.iter().find(|t| t.name == "cpu").unwrap();
    assert_eq!((cpu.schema.as_str(), cpu.table_type), ("public", "TABLE"));
    assert_eq!(cpu.columns.field(1).data_type().to_string(), "Utf8");
    assert!(tables.iter().any(|t| t.schema == "system" && t.table_type == "SYSTEM TABLE"));
    assert!(tables.iter().any(|t| t.schema == "information_schema" && t.name == "columns"));
    assert_eq!(f.ask("SELECT v FROM other.t").await, "");
    let names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(f.ask(names).await, "cpu");
    assert_eq!(f.session.last_seq(), f.database.snapshot().seq());
    assert!(f.session.last_seq() > Seq(0));
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let f = filled().await;
    for (sql, kind) in [
        ("SELECT * FROM nothing", ErrorKind::NotFound),
        ("SELECT nothing FROM cpu", ErrorKind::NotFound),
        ("SELECT * FROM nowhere.cpu", ErrorKind::NotFound),
        ("SELECT * FROM cpu TABLESAMPLE BERNOULLI (10)", ErrorKind::Unsupported),
        ("SELECT n / 0 FROM cpu", ErrorKind::InvalidInput),
        ("", ErrorKind::InvalidInput),
        ("SELECT 1; SELECT 2", ErrorKind::InvalidInput),
    ] {
        let error = f.refused(sql).await;
        assert_eq!(error.kind(), kind, "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_scan_of_very_many_files_answers_as_one_of_few() {
    // So wide that some forty files are more than a plan carries one by one.
    let f = Fixture::new();
    let columns: String = (0..210).fold(String::new(), |mut text, n| {
        let _ = write!(text, ", c{n} BIGINT");
        text
    });
    f.run(&format!("CREATE TABLE wide (ts TIMESTAMP, n BIGINT{columns}) PARTITION BY DAY")).await;
    let rows: Vec<String> =
        (0..42).map(|n| format!("(to_timestamp({}), {n}, {})", n * 86_400, n * n)).collect();
    f.run(&format!("INSERT INTO wide (ts, n, c7) VALUES {}", rows.join(", "))).await;
    f.database.compact("wide", &[]).await;
    let plan = f.ask("EXPLAIN SELECT sum(n) FROM wide").await;
    assert!(plan.contains("files=42"), "{plan}");
    assert_eq!(f.ask("SELECT count(*), sum(n), sum(c7), count(c8) FROM wide").await, "42 861 23821 0");
    assert_eq!(f.ask("SELECT n FROM wide WHERE c7 = 100").await, "10");
    assert_eq!(f.ask("SELECT n FROM wide ORDER BY ts DESC LIMIT 2").await, "41\n40");
    assert_eq!(f.ask("SELECT n FROM wide ORDER BY c7 DESC LIMIT 2").await, "41\n40");
    assert_eq!(f.ask("SELECT count(*) FROM (SELECT n FROM wide LIMIT 30)").await, "30");
    assert_eq!(f.ask("SELECT count(*) FROM (SELECT n FROM wide WHERE n >= 5 LIMIT 30)").await, "30");
    assert_eq!(f.ask("SELECT a.n FROM wide a JOIN wide b ON a.n = b.c7 WHERE b.n = 5").await, "25");
}

#[tokio::test]
async fn a_name_that_differs_in_case_alone_is_suggested() {
    let f = filled().await;
    f.run("CREATE TABLE \"Cap\" (\"Load\" BIGINT, n BIGINT)").await;
    f.run("CREATE SCHEMA s").await;
    f.run("CREATE TABLE s.\"In\" (n BIGINT)").await;
    for (sql, said) in [
        ("SELECT * FROM Cap", "did you mean \"Cap\""),
        ("SELECT * FROM \"CPU\"", "did you mean cpu"),
        ("SELECT * FROM s.in_", ""),
        ("SELECT * FROM s.\"IN\"", "did you mean s.\"In\""),
        ("SELECT Load FROM \"Cap\"", "no column named load: did you mean \"Load\""),
        ("SELECT c.Load FROM \"Cap\" c", "did you mean \"Load\""),
        ("SELECT \"N\" FROM \"Cap\"", "did you mean n"),
        ("INSERT INTO Cap VALUES (1, 2)", "did you mean \"Cap\""),
        ("INSERT INTO \"Cap\" (n) SELECT n FROM Cap", "did you mean \"Cap\""),
        ("UPDATE Cap SET n = 1", "did you mean \"Cap\""),
        ("DELETE FROM Cap", "did you mean \"Cap\""),
        ("DESCRIBE Cap", "did you mean \"Cap\""),
        ("SHOW CREATE TABLE Cap", "did you mean \"Cap\""),
    ] {
        let error = f.refused(sql).await;
        assert_eq!(error.kind(), ErrorKind::NotFound, "{sql}: {error}");
        assert!(error.message().contains(said), "{sql}: {error}");
        assert_eq!(said.is_empty(), !error.message().contains("did you mean"), "{sql}: {error}");
        assert!(!error.message().contains("datafusion"), "{sql}: {error}");
    }
}
