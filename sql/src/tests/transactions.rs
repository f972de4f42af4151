//! Transactions of several statements: what they see, what they leave behind, and when they are refused.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::StreamExt;
use tandem_env::{Clock, SystemClock};
use tandem_manifest::SchemaPolicy;
use tandem_types::{ErrorKind, Seq, TableName};

use super::{Fixture, run, table};
use crate::database::{AppendRequest, Database};
use crate::options::{ClientToken, WriteOptions};
use crate::session::Session;
use crate::{EngineConfig, Isolation};

/// Two tables with rows, and a session beside the fixture's own.
async fn fixture() -> (Fixture, Fixture) {
    of(EngineConfig { target_partitions: 2, ..EngineConfig::default() }).await
}

async fn of(config: EngineConfig) -> (Fixture, Fixture) {
    let f = Fixture::with(config);
    f.run("CREATE TABLE t (ts TIMESTAMP(3), v BIGINT)").await;
    f.run("CREATE TABLE k (id BIGINT, v BIGINT, PRIMARY KEY (id))").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2)").await;
    f.run("INSERT INTO k VALUES (1, 10), (2, 20)").await;
    let other = Fixture { database: Arc::clone(&f.database), session: f.session.engine().session("other") };
    (f, other)
}

fn seq(f: &Fixture) -> u64 {
    f.database.snapshot().seq().0
}

const T: &str = "SELECT v FROM t ORDER BY v";
const K: &str = "SELECT id, v FROM k ORDER BY id";

#[tokio::test]
async fn statements_see_those_before_them_and_others_see_them_all_at_once() {
    let (f, other) = fixture().await;
    let before = seq(&f);
    f.run("BEGIN").await;
    assert_eq!(f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await.rows, Some(1));
    assert_eq!(f.ask(T).await, "1\n2\n3");
    f.run("INSERT INTO t SELECT ts, v + 10 FROM t").await;
    assert_eq!(f.ask(T).await, "1\n2\n3\n11\n12\n13");
    let done = f.run("UPDATE t SET v = v + 100 WHERE v > 10").await;
    assert_eq!((done.rows, done.exact), (Some(3), false), "others may add rows before the commit");
    assert_eq!(f.ask(T).await, "1\n2\n3\n111\n112\n113");
    f.run("DELETE FROM t WHERE v IN (SELECT v + 1 FROM t)").await;
    assert_eq!(f.ask(T).await, "1\n111");
    f.run("INSERT INTO k VALUES (2, 21), (3, 30) ON CONFLICT (id) DO NOTHING").await;
    f.run("INSERT INTO k VALUES (1, 11) ON CONFLICT (id) DO UPDATE SET v = excluded.v").await;
    assert_eq!(f.ask(K).await, "1 11\n2 20\n3 30");
    f.run("UPDATE k SET v = k.v + t.v FROM t WHERE k.id = t.v").await;
    assert_eq!(f.ask(K).await, "1 12\n2 20\n3 30");
    f.run("CREATE TABLE made AS SELECT id, v * 2 AS w FROM k").await;
    f.run("ALTER TABLE made ADD COLUMN note TEXT").await;
    f.run("UPDATE made SET note = 'big' WHERE w > 30").await;
    f.run("DELETE FROM made WHERE id = 1").await;
    let made = "SELECT id, w, coalesce(note, '-') FROM made ORDER BY id";
    assert_eq!(f.ask(made).await, "2 40 big\n3 60 big");
    f.run("CREATE TABLE e (a BIGINT)").await;
    f.run("INSERT INTO e VALUES (1), (2)").await;
    f.run("TRUNCATE TABLE e").await;
    f.run("INSERT INTO e VALUES (7)").await;
    f.run("ALTER TABLE e RENAME TO renamed").await;
    f.run("UPDATE renamed SET a = a + 1").await;
    assert_eq!(f.ask("SELECT a FROM renamed").await, "8");
    assert_eq!(f.ask("SELECT count(*) FROM system.tables WHERE table_name = 'made'").await, "1");

    assert_eq!(seq(&f), before, "nothing is committed yet");
    assert_eq!(other.ask(T).await, "1\n2");
    assert_eq!(other.ask(K).await, "1 10\n2 20");
    assert_eq!(other.refused("SELECT * FROM made").await.kind(), ErrorKind::NotFound);

    let done = f.run("COMMIT").await;
    assert_eq!(done.seq, Seq(before + 1), "one commit");
    assert_eq!((seq(&f), f.session.last_seq()), (before + 1, done.seq));
    for f in [&f, &other] {
        assert_eq!(f.ask(T).await, "1\n111");
        assert_eq!(f.ask(K).await, "1 12\n2 20\n3 30");
        assert_eq!(f.ask(made).await, "2 40 big\n3 60 big");
        assert_eq!(f.ask("SELECT a FROM renamed").await, "8");
    }
}

#[tokio::test]
async fn what_is_rolled_back_was_never_there() {
    let (f, other) = fixture().await;
    let before = seq(&f);
    f.run("START TRANSACTION READ WRITE").await;
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    f.run("DROP TABLE k").await;
    assert_eq!(f.refused("SELECT * FROM k").await.kind(), ErrorKind::NotFound);
    f.run("ROLLBACK").await;
    assert_eq!((f.ask(T).await, f.ask(K).await), ("1\n2".to_owned(), "1 10\n2 20".to_owned()));
    assert_eq!((seq(&f), other.ask(T).await), (before, "1\n2".to_owned()));
    // There is nothing to end now, and what is said is committed at once.
    for end in ["COMMIT", "ROLLBACK", "SAVEPOINT s"] {
        assert_eq!(f.refused(end).await.kind(), ErrorKind::InvalidInput, "{end}");
    }
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    assert_eq!(other.ask(T).await, "1\n2\n3");
    // One that wrote nothing commits nothing.
    let before = seq(&f);
    f.run("BEGIN").await;
    f.ask(T).await;
    f.run("COMMIT").await;
    assert_eq!(seq(&f), before);
}

#[tokio::test]
async fn a_transaction_reads_one_state_from_its_first_statement_on() {
    let (f, other) = fixture().await;
    f.run("BEGIN").await;
    other.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    assert_eq!(f.ask(T).await, "1\n2\n3", "it begins to read here");
    other.run("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    other.run("ALTER TABLE k ADD COLUMN w BIGINT").await;
    assert_eq!(f.ask(T).await, "1\n2\n3");
    assert_eq!(f.ask("SELECT * FROM k ORDER BY id").await, "1 10\n2 20");
    f.run("INSERT INTO t VALUES ('2024-01-05', 5)").await;
    assert_eq!(f.ask(T).await, "1\n2\n3\n5");
    // A plan that was made outside is made anew.
    let planned = f.plan(T).await.unwrap();
    assert_eq!(planned.snapshot_seq(), Seq(seq(&f) - 2), "the state that others can ask for as well");
    f.run("COMMIT").await;
    assert_eq!(f.ask(T).await, "1\n2\n3\n4\n5");
    assert_eq!(table(&run(&planned).await.unwrap()), "1\n2\n3\n5", "a query outlives its transaction");
}

#[tokio::test]
async fn a_prepared_statement_is_part_of_whatever_is_open_when_it_runs() {
    let (f, other) = fixture().await;
    let insert = f.session.prepare("INSERT INTO t VALUES ('2024-02-01', $1)").await.unwrap();
    let select = f.session.prepare(T).await.unwrap();
    let value = |v: i64| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![v]));
        Some(RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap())
    };
    f.run("BEGIN").await;
    insert.update(value(5)).await.unwrap();
    insert.update(value(6)).await.unwrap();
    assert_eq!(table(&run(&select.plan(None).await.unwrap()).await.unwrap()), "1\n2\n5\n6");
    assert_eq!(other.ask(T).await, "1\n2");
    f.run("ROLLBACK").await;
    insert.update(value(7)).await.unwrap();
    assert_eq!(table(&run(&select.plan(None).await.unwrap()).await.unwrap()), "1\n2\n7");
    assert_eq!(other.ask(T).await, "1\n2\n7");
    // Many rows of parameters are one statement each, all or nothing.
    f.run("BEGIN").await;
    let update = f.session.prepare("UPDATE t SET v = v * 2 WHERE v = $1").await.unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 4]));
    let rows = RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap();
    assert_eq!(
        update.update(Some(rows)).await.unwrap().rows,
        Some(5),
        "1 became 2, and both became 4 and then 8"
    );
    assert_eq!(f.ask(T).await, "7\n8\n8");
    f.run("COMMIT").await;
    assert_eq!(other.ask(T).await, "7\n8\n8");
}

#[tokio::test]
async fn savepoints_undo_what_came_after_them() {
    let (f, other) = fixture().await;
    f.run("BEGIN").await;
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    f.run("SAVEPOINT a").await;
    f.run("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    f.run("SAVEPOINT b").await;
    f.run("DELETE FROM t WHERE v < 4").await;
    assert_eq!(f.ask(T).await, "4");
    f.run("ROLLBACK TO SAVEPOINT b").await;
    assert_eq!(f.ask(T).await, "1\n2\n3\n4");
    f.run("CREATE TABLE gone (a BIGINT)").await;
    f.run("ROLLBACK TO a").await;
    assert_eq!(f.ask(T).await, "1\n2\n3");
    assert_eq!(f.refused("SELECT * FROM gone").await.kind(), ErrorKind::NotFound);
    assert_eq!(f.refused("ROLLBACK TO b").await.kind(), ErrorKind::NotFound, "it went with what it marked");
    f.run("INSERT INTO t VALUES ('2024-01-05', 5)").await;
    f.run("ROLLBACK TO a").await;
    f.run("INSERT INTO t VALUES ('2024-01-06', 6)").await;
    f.run("RELEASE SAVEPOINT a").await;
    assert_eq!(f.refused("RELEASE a").await.kind(), ErrorKind::NotFound);
    f.run("COMMIT").await;
    assert_eq!(other.ask(T).await, "1\n2\n3\n6");
}

#[tokio::test]
async fn a_statement_that_fails_leaves_no_trace_and_the_transaction_goes_on() {
    let (f, other) = fixture().await;
    f.run("BEGIN").await;
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    for (wrong, kind) in [
        ("INSERT INTO t SELECT ts, CAST('x' AS BIGINT) FROM t", ErrorKind::InvalidInput),
        ("INSERT INTO t (v) VALUES (4)", ErrorKind::InvalidInput),
        ("INSERT INTO none VALUES (4)", ErrorKind::NotFound),
        ("CREATE TABLE k (a BIGINT)", ErrorKind::AlreadyExists),
        ("CREATE TABLE k AS SELECT 1 AS a", ErrorKind::AlreadyExists),
        ("ALTER TABLE t ADD COLUMN v BIGINT", ErrorKind::AlreadyExists),
        ("UPDATE t SET v = v + 9223372036854775807", ErrorKind::InvalidInput),
        ("SELECT nothing FROM t", ErrorKind::NotFound),
        ("BEGIN", ErrorKind::InvalidInput),
        ("nonsense", ErrorKind::InvalidInput),
    ] {
        assert_eq!(f.refused(wrong).await.kind(), kind, "{wrong}");
    }
    f.run("ALTER TABLE t ADD COLUMN c BIGINT").await;
    assert_eq!(f.refused("ALTER TABLE t ADD COLUMN c BIGINT").await.kind(), ErrorKind::AlreadyExists);
    assert_eq!(f.ask(T).await, "1\n2\n3");
    f.run("COMMIT").await;
    assert_eq!(other.ask("SELECT v, c IS NULL FROM t ORDER BY v").await, "1 true\n2 true\n3 true");
}

#[tokio::test]
async fn some_statements_stand_alone() {
    let (f, _) = fixture().await;
    f.run("BEGIN").await;
    for alone in [
        "OPTIMIZE TABLE t",
        "CHECKPOINT",
        "ALTER DATABASE SET (history_window = '1d')",
        "UNDROP TABLE x",
        "RESTORE DATABASE TO SEQ 1",
        "EXPLAIN RESTORE DATABASE TO SEQ 1",
    ] {
        let error = f.refused(alone).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{alone}: {error}");
        assert!(error.message().contains("transaction"), "{error}");
    }
    for wrong in ["BEGIN ISOLATION LEVEL READ COMMITTED", "COMMIT AND CHAIN", "BEGIN FOR EVER"] {
        assert_ne!(f.refused(wrong).await.kind(), ErrorKind::Internal, "{wrong}");
    }
    f.run("ROLLBACK").await;
}

#[tokio::test]
async fn writes_that_are_rows_and_logged_changes_never_conflict() {
    let (f, other) = fixture().await;
    f.run("BEGIN").await;
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    f.run("UPDATE t SET v = v + 10 WHERE v >= 2").await;
    f.run("INSERT INTO k VALUES (3, 1) ON CONFLICT (id) DO NOTHING").await;
    other.run("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    other.run("INSERT INTO k VALUES (3, 33)").await;
    other.run("ALTER TABLE t ADD COLUMN w BIGINT").await;
    f.run("COMMIT").await;
    assert_eq!(f.ask(T).await, "1\n12\n13\n14", "the change acts on what others committed before it");
    assert_eq!(f.ask(K).await, "1 10\n2 20\n3 33");
}

#[tokio::test]
async fn what_was_evaluated_conflicts_with_changes_of_what_it_read() {
    let (f, other) = fixture().await;
    let evaluated = "UPDATE t SET v = k.v FROM k WHERE k.id = t.v";
    f.run("BEGIN").await;
    f.run(evaluated).await;
    other.run("INSERT INTO k VALUES (3, 30)").await;
    let error = f.refused("COMMIT").await;
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert!(error.message().contains("table k ") && error.message().contains("again"), "{error}");
    assert_eq!(f.ask(T).await, "1\n2", "and nothing is open any more");
    f.run("BEGIN").await;
    f.run(evaluated).await;
    other.run("CREATE TABLE elsewhere (a BIGINT)").await;
    f.run("COMMIT").await;
    assert_eq!(f.ask(T).await, "10\n20");
}

#[tokio::test]
async fn serializable_transactions_conflict_with_every_change_of_a_table_they_touched() {
    let (f, other) = fixture().await;
    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE";
    let change = "INSERT INTO k VALUES (9, 90)";
    for (what, conflicts) in [
        ("SELECT * FROM k", true),
        ("SELECT * FROM t WHERE v IN (SELECT v FROM k)", true),
        ("INSERT INTO t SELECT timestamp '2024-01-01', v FROM k", true),
        ("INSERT INTO k VALUES (5, 5)", true),
        ("UPDATE k SET v = 0 WHERE id = 77", true),
        ("CREATE TABLE made AS SELECT * FROM k", true),
        ("ALTER TABLE k ADD COLUMN c BIGINT", true),
        ("SELECT * FROM t", false),
        ("INSERT INTO t SELECT ts, v FROM t", false),
    ] {
        f.run(begin).await;
        f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
        match what.starts_with("SELECT") {
            true => drop(f.rows(what).await.unwrap()),
            false => drop(f.run(what).await),
        }
        other.run(change).await;
        match conflicts {
            true => {
                let error = f.refused("COMMIT").await;
                assert_eq!(error.kind(), ErrorKind::Serialization, "{what}");
                assert!(error.message().contains("table k "), "{what}: {error}");
            }
            false => drop(f.run("COMMIT").await),
        }
    }
    // Without writes it has read one state, as if alone.
    f.run(begin).await;
    f.rows("SELECT * FROM k").await.unwrap();
    other.run(change).await;
    f.run("COMMIT").await;
    // And its counts are facts.
    f.run(begin).await;
    let done = f.run("UPDATE k SET v = 1").await;
    assert!(done.exact);
    f.run("COMMIT").await;
}

#[tokio::test]
async fn a_column_of_the_transaction_is_never_taken_for_anothers() {
    let (f, other) = fixture().await;
    // Both would get the next id, of another type even.
    for write in [
        "UPDATE t SET mine = v * 2",
        "INSERT INTO t (ts, mine) VALUES ('2024-01-09', 9)",
        "DELETE FROM t WHERE mine > 1",
    ] {
        f.run("BEGIN").await;
        f.run("ALTER TABLE t ADD COLUMN mine BIGINT").await;
        f.run(write).await;
        other.run("ALTER TABLE t ADD COLUMN theirs BIGINT").await;
        let error = f.refused("COMMIT").await;
        assert_eq!(error.kind(), ErrorKind::Serialization, "{write}");
        assert!(error.message().contains("table t was altered"), "{error}");
        assert_eq!(f.ask("SELECT v, theirs IS NULL FROM t ORDER BY v").await, "1 true\n2 true");
        other.run("ALTER TABLE t DROP COLUMN theirs").await;
    }
    // Rows of others are no matter.
    f.run("BEGIN").await;
    f.run("ALTER TABLE t ADD COLUMN mine BIGINT").await;
    f.run("UPDATE t SET mine = v * 2").await;
    other.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    f.run("COMMIT").await;
    assert_eq!(f.ask("SELECT v, mine FROM t ORDER BY v").await, "1 2\n2 4\n3 6");
    // Nor is a change of columns where the transaction's own have nothing to do with it.
    f.run("BEGIN").await;
    f.run("ALTER TABLE t ADD COLUMN late BIGINT").await;
    f.run("UPDATE k SET v = v + 1").await;
    other.run("ALTER TABLE t ADD COLUMN theirs BIGINT").await;
    f.run("COMMIT").await;
    assert_eq!(f.ask("SELECT count(late), count(theirs) FROM t").await, "0 0");
}

#[tokio::test]
async fn a_table_that_may_be_anothers_is_not_changed_by_its_own_columns() {
    let (f, other) = fixture().await;
    let create = "CREATE TABLE IF NOT EXISTS n (a BIGINT, b BIGINT)";
    f.run("BEGIN").await;
    f.run(create).await;
    f.run("INSERT INTO n VALUES (1, 2)").await;
    f.run("UPDATE n SET b = 7 WHERE a = 1").await;
    assert_eq!(f.ask("SELECT a, b FROM n").await, "1 7");
    other.run("CREATE TABLE n (b BIGINT, a BIGINT)").await;
    assert_eq!(f.refused("COMMIT").await.kind(), ErrorKind::Serialization);
    other.run("DROP TABLE n").await;
    // Rows find their columns by name.
    f.run("BEGIN").await;
    f.run(create).await;
    f.run("INSERT INTO n VALUES (1, 2)").await;
    other.run("CREATE TABLE n (b BIGINT, a BIGINT)").await;
    other.run("INSERT INTO n (a, b) VALUES (3, 4)").await;
    f.run("COMMIT").await;
    assert_eq!(f.ask("SELECT a, b FROM n ORDER BY a").await, "1 2\n3 4");
    other.run("DROP TABLE n").await;
    // A plain CREATE is refused as it would be by itself.
    f.run("BEGIN").await;
    f.run("CREATE TABLE n (a BIGINT)").await;
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    other.run("CREATE TABLE n (b BIGINT)").await;
    assert_eq!(f.refused("COMMIT").await.kind(), ErrorKind::AlreadyExists);
    assert_eq!(f.ask(T).await, "1\n2", "all or nothing");
}

#[tokio::test]
async fn a_name_means_the_table_that_it_meant() {
    let (f, other) = fixture().await;
    for statement in
        ["TRUNCATE TABLE t", "DELETE FROM t", "DROP TABLE t", "ALTER TABLE t ADD COLUMN c BIGINT"]
    {
        f.run("BEGIN").await;
        f.run(statement).await;
        other.run("ALTER TABLE t RENAME TO precious").await;
        other.run("CREATE TABLE t (ts TIMESTAMP(3), v BIGINT)").await;
        let error = f.refused("COMMIT").await;
        assert_eq!(error.kind(), ErrorKind::Serialization, "{statement}: {error}");
        other.run("DROP TABLE t").await;
        other.run("ALTER TABLE precious RENAME TO t").await;
        assert_eq!(f.ask(T).await, "1\n2");
    }
}

#[tokio::test]
async fn a_transaction_that_only_reads_or_reads_the_past_takes_no_writes() {
    let (f, other) = fixture().await;
    let then = seq(&f);
    f.run("BEGIN READ ONLY, ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(f.ask(T).await, "1\n2");
    let error = f.refused("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    assert!(error.message().contains("READ ONLY"), "{error}");
    assert_eq!(f.refused("SET tandem.as_of = 'seq:1'").await.kind(), ErrorKind::InvalidInput);
    f.run("COMMIT").await;
    other.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    f.run(&format!("SET tandem.as_of = 'seq:{then}'")).await;
    f.run("BEGIN").await;
    assert_eq!(f.ask(T).await, "1\n2");
    let error = f.refused("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    assert!(error.message().contains("past"), "{error}");
    assert_eq!(f.refused("RESET tandem.as_of").await.kind(), ErrorKind::InvalidInput);
    f.run("ROLLBACK").await;
    f.run("RESET tandem.as_of").await;
    f.run("BEGIN").await;
    f.run("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    let both =
        format!("SELECT (SELECT count(*) FROM t) AS a, (SELECT count(*) FROM t VERSION AS OF {then}) AS b");
    assert_eq!(f.ask(&both).await, "4 2", "a table's own past can be read beside its own writes");
    f.run("COMMIT").await;
}

#[tokio::test]
async fn an_idle_transaction_expires_and_says_so() {
    let idle = Duration::from_millis(300);
    let (f, other) =
        of(EngineConfig { target_partitions: 2, transaction_idle: idle, ..EngineConfig::default() }).await;
    f.run("BEGIN").await;
    assert_eq!(f.ask(T).await, "1\n2");
    SystemClock.sleep(idle * 3).await;
    assert_eq!(f.ask(T).await, "1\n2", "one that holds nothing may wait");
    f.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    let own = f.session.transaction().unwrap().own().unwrap();
    assert!(own.bytes() > 0);
    SystemClock.sleep(idle * 3).await;
    assert!(f.session.seen().is_none(), "what it held is gone though nobody asked");
    for statement in [T, "INSERT INTO t VALUES ('2024-01-04', 4)", "COMMIT"] {
        let error = f.refused(statement).await;
        assert_eq!(error.kind(), ErrorKind::Serialization, "{statement}: {error}");
        assert!(error.message().contains("idle for longer than 300ms"), "{error}");
    }
    assert_eq!(f.refused("COMMIT").await.kind(), ErrorKind::InvalidInput, "the first COMMIT has ended it");
    assert_eq!(other.ask(T).await, "1\n2");
    f.run("BEGIN").await;
    f.run("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    SystemClock.sleep(idle * 3).await;
    f.run("ROLLBACK").await;
    f.run("BEGIN").await;
    f.run("COMMIT").await;
}

#[tokio::test]
async fn large_transactions_leave_the_memory_and_are_read_back() {
    let (f, other) = fixture().await;
    f.run("BEGIN").await;
    for day in 3..20 {
        f.run(&format!(
            "INSERT INTO t SELECT timestamp '2024-01-{day:02}', value FROM generate_series(1, 10)"
        ))
        .await;
    }
    let uploaded = f.session.transaction().unwrap();
    let uploaded = uploaded.peek().unwrap().view;
    let name = TableName::public("t");
    let uploaded = uploaded.require(&name).unwrap().tail().filter(|s| s.section.segment.is_some()).count();
    assert!(uploaded > 5, "{uploaded}");
    assert_eq!(f.ask("SELECT count(*), sum(v) FROM t").await, "172 938");
    f.run("DELETE FROM t WHERE v > 5").await;
    assert_eq!(f.ask("SELECT count(*), sum(v) FROM t").await, "87 258");
    f.run("COMMIT").await;
    assert_eq!(other.ask("SELECT count(*), sum(v) FROM t").await, "87 258");
}

#[tokio::test]
async fn the_memory_of_open_transactions_is_bounded() {
    let config = EngineConfig { memory_limit: 64 << 10, target_partitions: 2, ..EngineConfig::default() };
    let (f, other) = of(config).await;
    f.run("BEGIN").await;
    let mut error = None;
    for _ in 0..100 {
        if let Err(refused) = f.try_run("INSERT INTO t VALUES ('2024-01-03', 3)").await {
            error = Some(refused);
            break;
        }
    }
    let error = error.expect("a hundred statements fit into nothing");
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert!(error.message().contains("open transaction"), "{error}");
    f.run("ROLLBACK").await;
    // What it held is for others now.
    other.run("BEGIN").await;
    other.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    other.run("COMMIT").await;
    assert_eq!(other.ask("SELECT count(*) FROM t").await, "3");
}

#[tokio::test]
async fn a_token_commits_a_transaction_once_whoever_is_asked() {
    let (f, other) = fixture().await;
    let run_all = async |f: &Fixture, value: i64| {
        f.run("SET tandem.token = 'job 7'").await;
        f.run("BEGIN").await;
        f.run(&format!("INSERT INTO t VALUES ('2024-01-03', {value})")).await;
        f.run("UPDATE k SET v = v + 1").await;
        f.try_run("COMMIT").await
    };
    let first = run_all(&f, 3).await.unwrap();
    assert!(!first.duplicate);
    let again = run_all(&other, 3).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    assert_eq!((f.ask(T).await, f.ask(K).await), ("1\n2\n3".to_owned(), "1 11\n2 21".to_owned()));
    let error = run_all(&other, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenReused, "another transaction");
    assert_eq!(f.ask(T).await, "1\n2\n3");
}

#[tokio::test]
async fn clients_drive_transactions_of_their_own() {
    let (f, other) = fixture().await;
    let driven = |session: &Arc<Session>| Fixture {
        database: Arc::clone(&f.database),
        session: session.drive_transaction(),
    };
    let (a, b) = (driven(&f.session), driven(&f.session));
    assert_eq!(f.session.driven().len(), 2);
    a.run("INSERT INTO t VALUES ('2024-01-03', 3)").await;
    b.run("INSERT INTO t VALUES ('2024-01-04', 4)").await;
    assert_eq!(
        (a.ask(T).await, b.ask(T).await, f.ask(T).await),
        ("1\n2\n3".into(), "1\n2\n4".into(), "1\n2".into())
    );
    for end in ["COMMIT", "ROLLBACK", "BEGIN"] {
        assert_eq!(a.refused(end).await.kind(), ErrorKind::InvalidInput, "{end}");
    }
    let rows = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![5])) as ArrayRef)]).unwrap();
    let request = |policy| AppendRequest {
        table: TableName::public("k"),
        schema: rows.schema(),
        policy,
        create: None,
        on_conflict: None,
        queued: None,
        options: WriteOptions::default(),
    };
    let stream = futures::stream::iter([Ok(rows.clone())]).boxed();
    let read = a.session.read_options(None, None, None);
    let receipt = a.session.append(request(SchemaPolicy::Strict), stream, &read).await.unwrap();
    assert_eq!(receipt.rows, 1);
    assert_eq!(a.ask("SELECT count(*) FROM k").await, "3");
    a.session.savepoint("s", &read).await.unwrap();
    a.run("DELETE FROM k").await;
    a.session.roll_back_to("s").await.unwrap();
    let token = ClientToken::parse("driven").unwrap();
    let options = WriteOptions { token: Some(token), ..WriteOptions::default() };
    a.session.commit(options).await.unwrap();
    assert!(a.session.ended_as_asked() && a.session.commit(WriteOptions::default()).await.is_err());
    assert_eq!(f.session.driven().len(), 1);
    b.session.roll_back().unwrap();
    b.session.roll_back().unwrap();
    assert_eq!((f.ask(T).await, f.ask("SELECT count(*) FROM k").await), ("1\n2\n3".into(), "3".into()));
    // The session's end is the end of what it left open.
    let c = driven(&f.session);
    c.run("INSERT INTO t VALUES ('2024-01-05', 5)").await;
    f.session.lose("its connection was closed");
    let error = c.refused(T).await;
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert!(error.message().contains("its connection was closed"), "{error}");
    assert_eq!(other.ask(T).await, "1\n2\n3");
    assert_eq!(Isolation::default(), Isolation::Snapshot);
}
