//! Reading the past, and bringing it back.

use tandem_types::{ErrorKind, Seq};

use super::{Fixture, table};
use crate::as_of::AsOf;
use crate::database::Database;
use crate::options::{ReadOptions, WriteOptions};

/// Five states of a table: created, one row, two rows, renamed column, three rows.
async fn fixture() -> (Fixture, Vec<Seq>) {
    let f = Fixture::new();
    let mut seqs = Vec::new();
    for sql in [
        "CREATE TABLE t (a BIGINT)",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (2)",
        "ALTER TABLE t RENAME COLUMN a TO b",
        "INSERT INTO t VALUES (3)",
    ] {
        seqs.push(f.run(sql).await.seq);
    }
    (f, seqs)
}

fn as_of(seq: Seq) -> ReadOptions {
    ReadOptions { as_of: Some(AsOf::Seq(seq)), ..ReadOptions::default() }
}

#[tokio::test]
async fn tables_of_one_query_may_be_of_several_moments() {
    let (f, seqs) = fixture().await;
    let [created, one, two, _, _] = seqs[..] else { panic!() };
    for (sql, answer) in [
        (format!("SELECT a FROM t VERSION AS OF {two} ORDER BY a"), "1\n2"),
        (format!("SELECT t.a FROM t FOR SYSTEM_TIME AS OF SEQ {one}"), "1"),
        (format!("SELECT public.t.a FROM tandem.public.t FOR SYSTEM_TIME AS OF 'seq:{one}'"), "1"),
        (format!("SELECT count(*) FROM t VERSION AS OF {created}"), "0"),
        (format!("SELECT x.a FROM t VERSION AS OF {two} AS x WHERE x.a > 1"), "2"),
        (
            format!(
                "SELECT n.b FROM t n LEFT JOIN t VERSION AS OF {one} o ON n.b = o.a WHERE o.a IS NULL ORDER BY 1"
            ),
            "2\n3",
        ),
        (
            format!(
                "SELECT (SELECT count(*) FROM t VERSION AS OF {one}) AS x, (SELECT count(*) FROM t VERSION AS OF {two}) AS y, count(*) FROM t"
            ),
            "1 2 3",
        ),
        (
            format!(
                "WITH c AS (SELECT a FROM t VERSION AS OF {one}) SELECT b FROM t EXCEPT SELECT a FROM c ORDER BY 1"
            ),
            "2\n3",
        ),
        (format!("SELECT rows FROM system.tables VERSION AS OF {two}"), "2"),
        (format!("SELECT max(seq) FROM system.log VERSION AS OF {two}"), &two.to_string()),
        (format!("SELECT b FROM t WHERE b IN (SELECT a FROM t VERSION AS OF {one})"), "1"),
    ] {
        assert_eq!(f.ask(&sql).await, answer, "{sql}");
    }
}

#[tokio::test]
async fn moments_are_times_as_well() {
    let (f, seqs) = fixture().await;
    // The fixture's clock counts microseconds from 1970 on.
    for (moment, answer) in [
        ("TIMESTAMP '1970-01-01T00:00:00.000002Z'", "1"),
        ("TIMESTAMP '1970-01-01 00:00:00.000003'", "2"),
        ("'1970-01-01T00:00:00.000003Z'", "2"),
        ("TIMESTAMP '1970-01-01T00:00:00.000001Z' + INTERVAL '1 microsecond'", "1"),
        ("now() - INTERVAL '10 seconds'", "3"),
        ("DATE '1970-01-02'", "3"),
    ] {
        assert_eq!(
            f.ask(&format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF {moment}")).await,
            answer,
            "{moment}"
        );
        assert_eq!(
            f.ask(&format!("SELECT count(*) FROM t TIMESTAMP AS OF {moment}")).await,
            answer,
            "{moment}"
        );
    }
    for (moment, said) in [
        ("b", "AS OF"),
        ("1 + 2", "no constant time"),
        ("'yesterday'", "no moment of the past"),
        ("NULL", "no time"),
        ("(SELECT max(commit_time) FROM system.log)", "AS OF"),
    ] {
        let error = f.refused(&format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF {moment}")).await;
        assert!(error.message().contains(said), "{moment}: {error}");
    }
    assert_eq!(seqs.len(), 5);
}

#[tokio::test]
async fn what_was_not_there_is_said_so() {
    let (f, seqs) = fixture().await;
    f.run("CREATE TABLE u (n BIGINT)").await;
    f.run("DROP TABLE t").await;
    assert_eq!(
        f.ask(&format!("SELECT count(*) FROM t VERSION AS OF {}", seqs[2])).await,
        "2",
        "dropped since"
    );
    let error = f.refused(&format!("SELECT * FROM u VERSION AS OF {}", seqs[2])).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains(&format!("table u did not exist at seq {}", seqs[2])), "{error}");
    let error = f.refused("SELECT * FROM t VERSION AS OF 99").await;
    assert_eq!(error.kind(), ErrorKind::Behind);
    for sql in ["SELECT * FROM system.queries VERSION AS OF 1", "SELECT * FROM system.nodes VERSION AS OF 1"]
    {
        assert_eq!(f.refused(sql).await.kind(), ErrorKind::Unsupported);
    }
}

#[tokio::test]
async fn a_session_stands_at_one_moment() {
    let (f, seqs) = fixture().await;
    f.run("CREATE TABLE u (n BIGINT)").await;
    let prepared = f.session.prepare("SELECT count(*) FROM t").await.unwrap();
    f.run(&format!("SET tandem.as_of = 'seq:{}'", seqs[2])).await;
    assert_eq!(f.ask("SHOW tandem.as_of").await, format!("tandem.as_of seq:{}", seqs[2]));
    assert_eq!(f.ask("SELECT * FROM t ORDER BY a").await, "1\n2");
    assert_eq!(f.ask("SHOW TABLES").await.matches("t").count(), 1);
    assert_eq!(
        f.ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").await,
        "t"
    );
    assert_eq!(f.refused("SELECT * FROM u").await.kind(), ErrorKind::NotFound);
    assert_eq!(f.refused("SELECT * FROM system.nodes").await.kind(), ErrorKind::Unsupported);
    assert_eq!(
        f.ask(&format!("SELECT a FROM t VERSION AS OF {}", seqs[1])).await,
        "1",
        "a table's own comes first"
    );
    let planned = prepared.plan(None).await.unwrap();
    assert_eq!(planned.snapshot_seq(), seqs[2], "prepared before");
    assert_eq!(table(&super::run(&planned).await.unwrap()), "2");

    // A request comes before the session.
    let read = ReadOptions { as_of: Some(AsOf::Seq(seqs[1])), ..f.session.read_options(None, None, None) };
    let earlier =
        f.session.prepare_with("SELECT a FROM t", &read).await.unwrap().plan_with(None, &read).await.unwrap();
    assert_eq!(
        (table(&super::run(&earlier).await.unwrap()).as_str(), earlier.snapshot_seq()),
        ("1", seqs[1])
    );

    f.run("SET tandem.as_of = ''").await;
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "3");
    assert_eq!(table(&super::run(&prepared.plan(None).await.unwrap()).await.unwrap()), "3");
}

#[tokio::test]
async fn nothing_is_written_into_the_past() {
    let (f, seqs) = fixture().await;
    let before = f.session.prepare("INSERT INTO t VALUES (9)").await.unwrap();
    let head = f.database.snapshot().seq();
    f.run(&format!("SET tandem.as_of = 'seq:{}'", seqs[2])).await;
    for sql in [
        "INSERT INTO t VALUES (9)",
        "CREATE TABLE v (n BIGINT)",
        "CREATE TABLE v AS SELECT * FROM t",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "ALTER TABLE t ADD COLUMN x BIGINT",
        "ALTER DATABASE SET (checkpoint_commits = 5)",
        "UPDATE t SET a = 2",
        "DELETE FROM t",
        "UNDROP TABLE t",
        "RESTORE DATABASE TO SEQ 1",
    ] {
        let error = f.refused(sql).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{sql}: {error}");
        assert!(error.message().contains("tandem.as_of"), "{sql}: {error}");
    }
    assert_eq!(before.update(None).await.unwrap_err().kind(), ErrorKind::InvalidInput, "prepared before");
    let error = before.update_with(None, WriteOptions::default(), &as_of(seqs[1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(f.database.snapshot().seq(), head);
    f.run("RESET tandem.as_of").await;
    // But it may be read from there.
    f.run(&format!("INSERT INTO t SELECT a + 100 FROM t VERSION AS OF {}", seqs[2])).await;
    assert_eq!(f.ask("SELECT count(*), max(b) FROM t").await, "5 102");
    f.run(&format!("CREATE TABLE old AS SELECT * FROM t VERSION AS OF {}", seqs[1])).await;
    assert_eq!(f.ask("SELECT a FROM old").await, "1");
}

#[tokio::test]
async fn a_dropped_table_comes_back() {
    let (f, _) = fixture().await;
    f.database.compact("t", &[]).await;
    f.run("INSERT INTO t VALUES (4)").await;
    f.run("DROP TABLE t").await;
    assert_eq!(f.refused("UNDROP TABLE never").await.kind(), ErrorKind::NotFound);
    assert_eq!(f.ask("EXPLAIN UNDROP TABLE t").await, "table t bring back 4");
    f.run("UNDROP TABLE t").await;
    assert_eq!(f.ask("SELECT b FROM t ORDER BY b").await, "1\n2\n3\n4");
    f.run("INSERT INTO t VALUES (5)").await;
    f.run("DROP TABLE t").await;
    f.run("CREATE TABLE t (x TEXT)").await;
    assert_eq!(f.refused("UNDROP TABLE t").await.kind(), ErrorKind::AlreadyExists);
    f.run("UNDROP TABLE t AS t_back").await;
    assert_eq!(f.ask("SELECT count(*) FROM t_back").await, "5");
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
    f.run("CREATE SCHEMA s").await;
    f.run("CREATE TABLE s.v (n BIGINT)").await;
    f.run("DROP TABLE s.v").await;
    f.run("DROP SCHEMA s").await;
    f.run("UNDROP TABLE s.v").await;
    assert_eq!(f.ask("SELECT count(*) FROM s.v").await, "0", "with its schema");
}

#[tokio::test]
async fn nothing_goes_back_to_before_the_first_commit() {
    let (f, _) = fixture().await;
    let head = f.database.snapshot().seq();
    for sql in [
        "RESTORE DATABASE TO TIMESTAMP '1970-01-01'",
        "EXPLAIN RESTORE DATABASE TO TIMESTAMP '1970-01-01'",
        "RESTORE TABLE t TO TIMESTAMP '1970-01-01'",
        "EXPLAIN RESTORE TABLE t TO '1970-01-01T00:00:00Z'",
    ] {
        let error = f.refused(sql).await;
        assert_eq!((error.kind(), error.seq()), (ErrorKind::HistoryGone, Some(Seq(1))), "{sql}: {error}");
        let said = "before the first commit of the database, seq 1 of 1970-01-01T00:00:00.000001Z";
        assert!(error.message().contains(said), "{sql}: {error}");
    }
    assert_eq!(f.database.snapshot().seq(), head);
    // Of the first commit itself.
    f.run("RESTORE DATABASE TO TIMESTAMP '1970-01-01T00:00:00.000001Z'").await;
}

#[tokio::test]
async fn a_table_goes_back_to_what_it_was() {
    let (f, seqs) = fixture().await;
    f.run(&format!("RESTORE TABLE t TO SEQ {}", seqs[2])).await;
    assert_eq!(f.ask("SELECT a FROM t ORDER BY a").await, "1\n2");
    let head = f.database.snapshot().seq();
    assert_eq!(f.run(&format!("RESTORE TABLE t TO SEQ {head}")).await.seq, head, "nothing to do");
    // What was undone can be brought back in turn.
    f.run(&format!("RESTORE TABLE t TO SEQ {}", seqs[4])).await;
    assert_eq!(f.ask("SELECT b FROM t ORDER BY b").await, "1\n2\n3");
    f.run("INSERT INTO t VALUES (4)").await;
    assert_eq!(f.ask("SELECT max(b) FROM t").await, "4");
    // Under the name that it has now.
    f.run("ALTER TABLE t RENAME TO renamed").await;
    f.run(&format!("RESTORE TABLE renamed TO SEQ {}", seqs[1])).await;
    assert_eq!(f.ask("SELECT a FROM renamed").await, "1");
    // Another table of that name gives way.
    f.run("DROP TABLE renamed").await;
    f.run("CREATE TABLE t (x TEXT)").await;
    f.run(&format!("RESTORE TABLE t TO SEQ {}", seqs[1])).await;
    assert_eq!(f.ask("SELECT a FROM t").await, "1");
    let error = f.refused("RESTORE TABLE nothing TO SEQ 2").await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("did not exist at seq 2"), "{error}");
}

#[tokio::test]
async fn a_database_goes_back_to_what_it_was() {
    let f = Fixture::new();
    for sql in [
        "CREATE TABLE same (n BIGINT)",
        "INSERT INTO same VALUES (1)",
        "CREATE TABLE a (n BIGINT)",
        "INSERT INTO a VALUES (1)",
        "CREATE TABLE b (n BIGINT)",
        "INSERT INTO b VALUES (2)",
        "CREATE TABLE gone (n BIGINT)",
        "ALTER DATABASE SET (checkpoint_commits = 5)",
    ] {
        f.run(sql).await;
    }
    let then = f.database.snapshot().seq();
    f.database.compact("same", &[]).await;
    for sql in [
        // They change names.
        "ALTER TABLE a RENAME TO c",
        "ALTER TABLE b RENAME TO a",
        "ALTER TABLE c RENAME TO b",
        "INSERT INTO a VALUES (3)",
        "DROP TABLE gone",
        "CREATE SCHEMA s",
        "CREATE TABLE s.new (n BIGINT)",
        "ALTER DATABASE SET (checkpoint_commits = 6, token_count = 2000000)",
    ] {
        f.run(sql).await;
    }
    let restore = format!("RESTORE DATABASE TO SEQ {then}");
    let plan = f.ask(&format!("EXPLAIN {restore}")).await;
    let mut lines: Vec<&str> = plan.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "schema s drop",
            "setting checkpoint_commits set",
            "setting token_count reset",
            "table a restore 1 1",
            "table b restore 2 1",
            "table gone bring back 0",
            "table s.new drop 0",
        ]
    );
    let before = f.database.snapshot().seq();
    assert_eq!(f.run(&restore).await.seq, before.next(), "one commit");
    assert_eq!(
        f.ask("SELECT (SELECT n FROM a) AS a, (SELECT n FROM b) AS b, (SELECT n FROM same) AS c").await,
        "1 2 1"
    );
    assert_eq!(f.ask("SELECT count(*) FROM gone").await, "0");
    assert_eq!(f.refused("SELECT * FROM s.new").await.kind(), ErrorKind::NotFound);
    let state = f.database.snapshot();
    assert_eq!((state.setting("checkpoint_commits"), state.setting("token_count")), (Some("5"), None));
    assert!(!state.has_schema("s"));
    assert_eq!(f.ask(&format!("EXPLAIN {restore}")).await, "", "all is as it was");
    assert_eq!(f.run(&restore).await.seq, before.next());
    // And forth.
    f.run(&format!("RESTORE DATABASE TO SEQ {before}")).await;
    assert_eq!(
        f.ask(
            "SELECT (SELECT count(*) FROM a) AS a, (SELECT n FROM b) AS b, (SELECT count(*) FROM s.new) AS c"
        )
        .await,
        "2 1 0"
    );
}

#[tokio::test]
async fn partitions_are_dropped_by_name() {
    let f = Fixture::new();
    f.run("CREATE TABLE d (ts TIMESTAMP, n BIGINT) PARTITION BY DAY").await;
    f.run("INSERT INTO d VALUES ('2024-01-01', 1), ('2024-01-02', 2), ('2024-01-03', 3), ('2024-01-04', 4)")
        .await;
    f.database.compact("d", &["2024-01-02"]).await;
    let labels = f.ask("SELECT partition FROM system.partitions ORDER BY partition").await;
    assert_eq!(labels, "2024-01-01\n2024-01-02\n2024-01-03\n2024-01-04");
    f.run("ALTER TABLE d DROP PARTITION LIST '2024-01-03', '2024-01-02'").await;
    assert_eq!(f.ask("SELECT n FROM d ORDER BY n").await, "1\n4");
    let error = f.refused("ALTER TABLE d DROP PARTITION '2024-01-02'").await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("2024-01-02"), "{error}");
    f.run("INSERT INTO d VALUES ('2024-01-02', 5)").await;
    assert_eq!(f.ask("SELECT n FROM d ORDER BY n").await, "1\n4\n5");
}
