//! States of the past on nodes that share a store and nothing else.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tandem_env::Env;
use tandem_sql::{AsOf, ReadOptions, Session};
use tandem_types::{ErrorKind, Seq, TableName};
use tandem_writer::WriterConfig;

use super::STATES;
use crate::{Node, NodeConfig};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Option<Duration> = Some(Duration::from_millis(50));

/// A node that learns of others' commits only when it must.
async fn node(dir: &tempfile::TempDir, node_id: &str) -> Node {
    let env = Env::open(dir.path().to_str().unwrap(), &[]).unwrap();
    let writer = WriterConfig { poll: HOUR, ..WriterConfig::default() };
    let config = NodeConfig { node_id: node_id.to_owned(), upkeep: false, writer, ..NodeConfig::default() };
    Node::open(env, config).await.unwrap()
}

async fn run(session: &Arc<Session>, sql: &str) -> Seq {
    session.prepare(sql).await.unwrap().update(None).await.unwrap_or_else(|e| panic!("{sql}: {e}")).seq
}

/// The first value of the answer, a number.
async fn number(session: &Arc<Session>, sql: &str) -> i64 {
    let planned =
        session.prepare(sql).await.unwrap().plan(None).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<_> = planned.start(None).await.unwrap().stream.try_collect().await.unwrap();
    batches.iter().find(|b| b.num_rows() > 0).unwrap().column(0).as_primitive::<Int64Type>().value(0)
}

async fn count_at(session: &Arc<Session>, seq: Seq) -> i64 {
    number(session, &format!("SELECT count(*) FROM t VERSION AS OF {seq}")).await
}

#[tokio::test]
async fn every_state_is_found_by_seq_and_by_time_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (node(&dir, "a").await, node(&dir, "b").await);
    let session = a.engine().session("s");
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    let mut moments = Vec::new();
    for n in 0..40_i64 {
        let seq = run(&session, &format!("INSERT INTO t VALUES ({n})")).await;
        moments.push((seq, a.state().commit_time(), n + 1));
        if n % 15 == 14 {
            a.engine().database().checkpoint().await.unwrap();
            run(&session, "OPTIMIZE TABLE t").await;
        }
    }
    let end = run(&session, "INSERT INTO t VALUES (0)").await;
    for node in [&a, &b] {
        // The second knows nothing of all this yet.
        let session = node.engine().session("reader");
        let database = node.engine().database();
        for (seq, time, rows) in &moments {
            assert_eq!(count_at(&session, *seq).await, *rows, "{seq}");
            let found = database.state_as_of(AsOf::Time(*time), None).await.unwrap();
            assert_eq!((found.seq(), found.commit_time()), (*seq, *time));
            let later = database.state_as_of(AsOf::Time(time + 1), None).await.unwrap();
            assert!(later.seq() >= *seq && later.commit_time() <= time + 1);
        }
        assert_eq!(node.state().seq(), end);
        let first = database.state_as_of(AsOf::Time(0), None).await.unwrap();
        assert_eq!((first.seq(), first.tables().count()), (Seq(0), 0), "before the first commit");
    }
}

#[tokio::test]
async fn what_is_not_reached_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (node(&dir, "a").await, node(&dir, "b").await);
    let session = a.engine().session("s");
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    let database = a.engine().database();
    let (head, time) = (a.state().seq(), a.state().commit_time());
    for at in [AsOf::Seq(head.next()), AsOf::Time(time + 1)] {
        let error = database.state_as_of(at, SHORT).await.unwrap_err();
        assert_eq!((error.kind(), error.seq()), (ErrorKind::Behind, Some(head)), "{error}");
    }
    let error = database.state_as_of(AsOf::Time(i64::MAX), SHORT).await.unwrap_err();
    assert!(error.message().contains(&format!("seq:{head}")), "{error}");
    assert_eq!(database.state_as_of(AsOf::Time(time), SHORT).await.unwrap().seq(), head, "it is passed");

    // Whatever another node commits ends the wait, and decides what the time means.
    let waiting = database.state_as_of(AsOf::Time(time + 1), Some(HOUR));
    let other = b.engine().session("s");
    let writing = run(&other, "CREATE TABLE u (n BIGINT)");
    let (found, written) = futures::join!(waiting, writing);
    assert!(written > head);
    let found = found.unwrap();
    assert!(found.seq() == head || found.commit_time() == time + 1, "{}", found.seq());
}

#[tokio::test]
async fn one_load_serves_all_who_want_it_and_few_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let session = a.engine().session("s");
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    for n in 0..STATES + 10 {
        run(&session, &format!("INSERT INTO t VALUES ({n})")).await;
    }
    let database = a.engine().database();
    let asked = (0..50).map(|_| database.state_as_of(AsOf::Seq(Seq(3)), None));
    let states = futures::future::try_join_all(asked).await.unwrap();
    assert!(states.iter().all(|state| Arc::ptr_eq(state, &states[0])));
    for seq in 1..a.state().seq().0 {
        assert_eq!(database.state_as_of(AsOf::Seq(Seq(seq)), None).await.unwrap().seq(), Seq(seq));
        assert!(super::lock(&a.shared.history.states).by_seq.len() <= STATES);
    }
    let again = database.state_as_of(AsOf::Seq(Seq(3)), None).await.unwrap();
    assert_eq!(again.digest(), states[0].digest());
    assert!(!Arc::ptr_eq(&again, &states[0]), "it was let go");
}

#[tokio::test]
async fn the_log_is_searched_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let session = a.engine().session("s");
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    let mut times = Vec::new();
    for n in 0..30 {
        run(&session, &format!("INSERT INTO t VALUES ({n})")).await;
        times.push(a.state().commit_time());
    }
    let time = |at: usize| tandem_sql::show_time(times[at]);
    for (filter, expected) in [
        (format!("commit_time > TIMESTAMP '{}'", time(9)), 20),
        (format!("commit_time >= TIMESTAMP '{}'", time(9)), 21),
        (format!("commit_time BETWEEN TIMESTAMP '{}' AND TIMESTAMP '{}'", time(3), time(5)), 3),
        (format!("commit_time < TIMESTAMP '{}'", time(0)), 1),
        (format!("commit_time = TIMESTAMP '{}' AND seq > 1", time(29)), 1),
        ("commit_time > TIMESTAMP '2200-01-01'".to_owned(), 0),
        ("commit_time < TIMESTAMP '1980-01-01'".to_owned(), 0),
    ] {
        let sql = format!("SELECT count(*) FROM system.log WHERE {filter}");
        assert_eq!(number(&session, &sql).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn the_newest_drop_of_a_name_is_found_with_all_that_came_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let session = a.engine().session("s");
    let name = TableName::public("t");
    for rows in ["(1)", "(1), (2)"] {
        run(&session, "CREATE TABLE t (n BIGINT)").await;
        run(&session, &format!("INSERT INTO t VALUES {rows}")).await;
        run(&session, "DROP TABLE t").await;
    }
    let dropped_at = a.state().seq();
    run(&session, "CREATE TABLE u (n BIGINT)").await;
    run(&session, "DROP TABLE u").await;
    let database = a.engine().database();
    let found = database.before_drop(&name).await.unwrap();
    assert_eq!(found.seq, dropped_at);
    assert_eq!(found.before.table(found.table).unwrap().rows(), 2);
    let error = database.before_drop(&TableName::public("never")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // A table that is there was not dropped.
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    assert_eq!(database.before_drop(&name).await.unwrap().seq, dropped_at);
}

#[tokio::test]
async fn a_session_may_stand_in_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let session = a.engine().session("s");
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    let then = run(&session, "INSERT INTO t VALUES (1)").await;
    run(&session, "INSERT INTO t VALUES (2)").await;
    run(&session, &format!("SET tandem.as_of = 'seq:{then}'")).await;
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 1);
    let read = ReadOptions { as_of: Some(AsOf::Seq(then)), ..ReadOptions::default() };
    assert_eq!(session.state_for(&read).await.unwrap().seq(), then);
    let refused = session.prepare("INSERT INTO t VALUES (3)").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    run(&session, "RESET tandem.as_of").await;
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn a_restore_to_before_the_first_commit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let session = a.engine().session("s");
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    let first = tandem_sql::show_time(
        a.engine().database().state_as_of(AsOf::Seq(Seq(1)), None).await.unwrap().commit_time(),
    );
    run(&session, "INSERT INTO t VALUES (1)").await;
    for what in ["DATABASE", "TABLE t"] {
        let sql = format!("RESTORE {what} TO TIMESTAMP '2020-01-01'");
        let error = session.prepare(&sql).await.unwrap().update(None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HistoryGone, "{error}");
        assert!(error.message().contains(&format!("seq 1 of {first}")), "{error}");
        let error = session.prepare(&format!("EXPLAIN {sql}")).await.unwrap().plan(None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HistoryGone, "{error}");
    }
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 1);
}
