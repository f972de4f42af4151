//! Tokens, levels of acknowledgement, and what a read demands.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tandem_types::{ErrorKind, Seq};

use super::{Fixture, table};
use crate::database::Database;
use crate::options::{Ack, ClientToken, ReadOptions, WriteOptions};

async fn fixture() -> Fixture {
    let f = Fixture::new();
    f.run("CREATE TABLE t (n BIGINT)").await;
    f
}

fn with_token(text: &str) -> WriteOptions {
    WriteOptions { token: Some(ClientToken::parse(text).unwrap()), ..WriteOptions::default() }
}

impl Fixture {
    async fn write(&self, sql: &str, options: WriteOptions) -> tandem_types::Result<crate::UpdateResult> {
        let prepared = self.session.prepare(sql).await?;
        prepared.update_with(None, options, &ReadOptions::default()).await
    }
}

#[tokio::test]
async fn a_token_commits_once_and_tells_another_write() {
    let f = fixture().await;
    for (sql, other) in [
        ("INSERT INTO t VALUES (1), (2)", "INSERT INTO t VALUES (1), (3)"),
        ("CREATE TABLE u AS SELECT n FROM t", "CREATE TABLE v AS SELECT n FROM t"),
        ("ALTER TABLE t ADD COLUMN x BIGINT", "ALTER TABLE t ADD COLUMN y BIGINT"),
        ("TRUNCATE TABLE u", "TRUNCATE TABLE t"),
        ("ALTER DATABASE SET (checkpoint_commits = 5)", "ALTER DATABASE SET (checkpoint_commits = 6)"),
        ("DROP TABLE u", "DROP TABLE t"),
    ] {
        let first = f.write(sql, with_token(sql)).await.unwrap();
        assert!(!first.duplicate, "{sql}");
        let head = f.database.snapshot().seq();
        let again = f.write(sql, with_token(sql)).await.unwrap();
        assert_eq!((again.seq, again.duplicate), (first.seq, true), "{sql}");
        if !sql.starts_with("CREATE") {
            assert_eq!(again.rows, first.rows, "{sql}");
        }
        let error = f.write(other, with_token(sql)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TokenReused, "{sql}: {error}");
        assert_eq!(f.database.snapshot().seq(), head, "{sql}: nothing more was committed");
    }
    assert_eq!(f.ask("SELECT count(*), sum(n) FROM t").await, "2 3");
}

#[tokio::test]
async fn parameters_are_part_of_the_write() {
    let f = fixture().await;
    let insert = f.session.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    let bound = |n: i64| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![n]));
        Some(RecordBatch::try_from_iter([("a", column)]).unwrap())
    };
    let read = ReadOptions::default();
    assert!(!insert.update_with(bound(1), with_token("k"), &read).await.unwrap().duplicate);
    assert!(insert.update_with(bound(1), with_token("k"), &read).await.unwrap().duplicate);
    let error = insert.update_with(bound(2), with_token("k"), &read).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenReused);
    assert_eq!(f.ask("SELECT n FROM t").await, "1");
}

#[tokio::test]
async fn the_sessions_token_is_used_up_by_one_write() {
    let f = fixture().await;
    f.run("SET tandem.token = 'job 1'").await;
    assert_eq!(f.ask("SHOW tandem.token").await, "tandem.token job 1");
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
    assert_eq!(f.refused("INSERT INTO nowhere VALUES (1)").await.kind(), ErrorKind::NotFound);
    // Neither a read nor a statement that could not be planned was the write that it is for.
    assert!(!f.run("INSERT INTO t VALUES (1)").await.duplicate);
    assert_eq!(f.session.option("tandem.token").unwrap(), "");
    assert!(!f.run("INSERT INTO t VALUES (1)").await.duplicate, "without a token it is another write");
    f.run("SET tandem.token = 'job 1'").await;
    assert!(f.run("INSERT INTO t VALUES (1)").await.duplicate);
    f.run("SET tandem.token = 'job 1'").await;
    assert_eq!(f.refused("INSERT INTO t VALUES (2)").await.kind(), ErrorKind::TokenReused);
    assert_eq!(f.session.option("tandem.token").unwrap(), "", "used up all the same");
    // What a request says itself comes first, and leaves the session's token where it is.
    f.run("SET tandem.token = 'job 2'").await;
    f.write("INSERT INTO t VALUES (3)", with_token("own")).await.unwrap();
    assert_eq!(f.session.option("tandem.token").unwrap(), "job 2");
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "3");
}

#[tokio::test]
async fn the_request_comes_before_the_session() {
    let f = fixture().await;
    f.run("SET tandem.ack = quorum(2)").await;
    f.run("SET tandem.ack_timeout = 250ms").await;
    f.run("INSERT INTO t VALUES (1)").await;
    let own = WriteOptions { ack: Some(Ack::Store), ..WriteOptions::default() };
    f.write("INSERT INTO t VALUES (2)", own).await.unwrap();
    f.run("RESET tandem.ack").await;
    f.run("SET tandem.ack_timeout = DEFAULT").await;
    f.run("CREATE TABLE u (n BIGINT)").await;
    let written: Vec<_> = f.database.written.lock().unwrap().iter().map(|w| (w.ack, w.ack_timeout)).collect();
    let quarter = Some(Duration::from_millis(250));
    let expected = [(None, None), (Some(Ack::Quorum(2)), quarter), (Some(Ack::Store), quarter), (None, None)];
    assert_eq!(written, expected);
}

#[tokio::test]
async fn a_level_may_stand_with_the_table_and_with_the_database() {
    let f = fixture().await;
    let name = tandem_types::TableName::public("t");
    let level = |f: &Fixture| Ack::stored(&f.database.snapshot(), Some(&name));
    assert_eq!(level(&f), Ok(Ack::Store));
    f.run("ALTER DATABASE SET (ack = quorum(3), token_window = 12h)").await;
    assert_eq!(level(&f), Ok(Ack::Quorum(3)));
    f.run("ALTER TABLE t SET (ack = 'quorum(1)', dedup_window = '10m')").await;
    assert_eq!(level(&f), Ok(Ack::Quorum(1)));
    f.run("ALTER TABLE t SET (ack = store)").await;
    assert_eq!(level(&f), Ok(Ack::Store));
    assert_eq!(Ack::stored(&f.database.snapshot(), None), Ok(Ack::Quorum(3)));
    let error = f.refused("ALTER DATABASE SET (ack = quorum(0))").await;
    assert!(error.message().contains("quorum(0)"), "{error}");
}

#[tokio::test]
async fn reads_wait_for_the_state_that_they_demand() {
    let f = fixture().await;
    f.run("INSERT INTO t VALUES (1)").await;
    let query = f.session.prepare("SELECT n FROM t").await.unwrap();
    f.ask("SELECT n FROM t").await;
    assert!(f.database.settled.lock().unwrap().is_empty(), "nothing was demanded");

    f.run("SET tandem.min_seq = 2").await;
    f.ask("SELECT n FROM t").await;
    assert!(f.database.settled.lock().unwrap().is_empty(), "it is applied already");
    f.run("SET tandem.min_seq = 9").await;
    for sql in
        ["SELECT n FROM t", "SHOW TABLES", "SELECT * FROM system.tables", "INSERT INTO t SELECT n FROM t"]
    {
        let error = f.refused(sql).await;
        assert_eq!((error.kind(), error.seq()), (ErrorKind::Behind, Some(Seq(2))), "{sql}");
    }
    assert_eq!(query.plan(None).await.unwrap_err().kind(), ErrorKind::Behind, "prepared before");
    assert_eq!(f.database.settled.lock().unwrap().len(), 5);
    // What takes the demand back must not wait for it.
    f.run("SET tandem.min_seq = DEFAULT").await;

    f.run("SET tandem.read = latest").await;
    f.database.settled.lock().unwrap().clear();
    assert_eq!(table(&super::run(&query.plan(None).await.unwrap()).await.unwrap()), "1");
    let latest = ReadOptions { latest: true, ..ReadOptions::default() };
    assert_eq!(*f.database.settled.lock().unwrap(), [latest]);
    assert!(!f.session.read_options(Some(Seq(4)), Some(false), None).latest);
    assert_eq!(f.ask("SHOW tandem.read").await, "tandem.read latest");
}

#[tokio::test]
async fn wrong_values_of_options_are_refused_and_change_nothing() {
    let f = fixture().await;
    for (name, wrong) in [
        ("tandem.ack", "all"),
        ("tandem.ack_timeout", "5"),
        ("tandem.min_seq", "x"),
        ("tandem.read", "newest"),
        ("tandem.as_of", "yesterday"),
        ("tandem.token", "a\nb"),
    ] {
        let before = f.session.option(name).unwrap();
        let error = f.session.set_option(name, Some(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(error.message().contains(name), "{error}");
        assert_eq!(f.session.option(name).unwrap(), before);
    }
    assert_eq!(f.refused("SET tandem.ack = local").await.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn nodes_are_listed() {
    let f = fixture().await;
    assert_eq!(
        f.ask("SELECT node_id, role, epoch, applied_seq, lag_commits, lag_seconds FROM system.nodes WHERE lag_commits > 0")
            .await,
        "b writer 2 0 3 0.5"
    );
}
