//! Streams that are followed.

use std::time::Duration;

use futures::StreamExt;
use tandem_env::{Clock, SystemClock, within};
use tandem_types::{ErrorKind, Seq, TableName};

use super::super::Fixture;
use super::lines;
use crate::changes::{ChangesRequest, Images, RunningChanges};

const WAIT: Duration = Duration::from_secs(20);

fn request(from: u64, to: Option<u64>) -> ChangesRequest {
    ChangesRequest { table: TableName::public("t"), from: Seq(from), to: to.map(Seq), images: Images::Both }
}

/// The next batch with rows, and where to go on after it; `None` at the end.
async fn next(changes: &mut RunningChanges) -> Option<(Vec<String>, Seq)> {
    loop {
        let batch = within(&SystemClock, WAIT, changes.stream.next()).await.expect("in time")?.unwrap();
        assert_eq!(batch.rows.schema(), changes.schema);
        if batch.rows.num_rows() > 0 {
            let rows = lines(&[batch.rows]).iter().map(|line| line.join(" ")).collect();
            return Some((rows, batch.next_seq));
        }
    }
}

#[tokio::test]
async fn a_stream_follows_and_ends_where_columns_change() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    f.run("INSERT INTO t VALUES (1)").await;
    f.run("INSERT INTO t VALUES (2)").await;
    let mut changes = f.session.changes(request(1, None)).await.unwrap();
    // Small commits that are there already come together.
    assert_eq!(next(&mut changes).await, Some((vec!["1 2 insert".into(), "2 3 insert".into()], Seq(4))));
    f.run("INSERT INTO t VALUES (3)").await;
    assert_eq!(next(&mut changes).await, Some((vec!["3 4 insert".into()], Seq(5))));
    f.run("UPDATE t SET a = 9 WHERE a = 3").await;
    assert_eq!(
        next(&mut changes).await,
        Some((vec!["3 5 update_before".into(), "9 5 update_after".into()], Seq(6)))
    );
    let running = "SELECT statement, state FROM system.queries WHERE statement LIKE 'changes of%'";
    assert_eq!(f.ask(running).await, "changes of t from seq 1 on running");
    f.run("ALTER TABLE t ADD COLUMN b TEXT").await;
    f.run("INSERT INTO t VALUES (4, 'x')").await;
    assert_eq!(next(&mut changes).await, Some((vec!["- 6 schema".into()], Seq(6))));
    assert_eq!(next(&mut changes).await, None);
    let mut changes = f.session.changes(request(6, None)).await.unwrap();
    assert_eq!(next(&mut changes).await, Some((vec!["4 x 7 insert".into()], Seq(8))));
    f.run("DROP TABLE t").await;
    assert_eq!(next(&mut changes).await, Some((vec!["- - 8 schema".into()], Seq(9))));
    assert_eq!(next(&mut changes).await, None);
    let error = f.session.changes(request(9, None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    f.run("CREATE TABLE t (z TEXT)").await;
    f.run("INSERT INTO t VALUES ('new')").await;
    let mut changes = f.session.changes(request(9, Some(10))).await.unwrap();
    assert_eq!(next(&mut changes).await, Some((vec!["new 10 insert".into()], Seq(11))));
    assert_eq!(next(&mut changes).await, None);
}

#[tokio::test]
async fn a_table_in_the_place_of_another_is_told_from_its_first_rows_on() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    let mut changes = f.session.changes(request(1, None)).await.unwrap();
    f.run("CREATE OR REPLACE TABLE t AS SELECT 'x' AS b").await;
    let head = f.head();
    // Its creation and its rows are of one commit in a log; here the rows may follow.
    let told = next(&mut changes).await.unwrap();
    assert_eq!(next(&mut changes).await, None);
    let mut again = f.session.changes(request(told.1.0, None)).await.unwrap();
    assert_eq!(next(&mut again).await, Some((vec![format!("x {head} insert")], head.next())));
}

#[tokio::test]
async fn commits_of_others_move_a_stream_on() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    f.run("CREATE TABLE u (a BIGINT)").await;
    let mut changes = f.session.changes(request(3, None)).await.unwrap();
    for i in 0..5 {
        f.run(&format!("INSERT INTO u VALUES ({i})")).await;
    }
    let mut said = Seq(0);
    while said < Seq(8) {
        let batch = within(&SystemClock, WAIT, changes.stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(batch.rows.num_rows(), 0);
        assert!(batch.next_seq >= said);
        said = batch.next_seq;
    }
    // Cancelled like a query.
    assert!(f.session.engine().cancel(&changes.id));
    let ended = within(&SystemClock, WAIT, changes.stream.next()).await.unwrap();
    assert_eq!(ended.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    let error = f.session.changes(request(9, Some(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Wherever a stream is cut, one that begins where the last batch says goes on without a gap, and tells again only rows of
/// the commit that it says.
#[tokio::test]
async fn a_stream_goes_on_where_it_was_cut() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    for i in 0..4 {
        // More than a batch holds, then a few.
        f.run(&format!("INSERT INTO t SELECT value FROM generate_series({i}, {})", i + 20_000)).await;
        f.run(&format!("INSERT INTO t VALUES ({i})")).await;
    }
    f.run("DELETE FROM t WHERE a < 10000").await;
    let head = f.head().0;
    let whole = {
        let mut all = Vec::new();
        let mut changes = f.session.changes(request(1, Some(head))).await.unwrap();
        while let Some((rows, _)) = next(&mut changes).await {
            all.extend(rows);
        }
        all
    };
    for cut in 1..4 {
        let (mut told, mut from): (Vec<(u64, String)>, u64) = (Vec::new(), 1);
        let mut batches = cut;
        while from <= head {
            let mut changes = f.session.changes(request(from, Some(head))).await.unwrap();
            let began = from;
            for _ in 0..batches {
                let Some((rows, next)) = next(&mut changes).await else { break };
                told.extend(
                    rows.into_iter().map(|row| (row.split(' ').nth(1).unwrap().parse().unwrap(), row)),
                );
                from = next.0;
            }
            // What was not whole comes again.
            told.retain(|(seq, _)| *seq < from);
            // Some commits are larger than that.
            batches = if from > began { cut } else { batches + 1 };
        }
        let mut rows: Vec<String> = told.into_iter().map(|(_, row)| row).collect();
        let mut whole = whole.clone();
        rows.sort();
        whole.sort();
        assert_eq!(rows.len(), whole.len(), "cut after {cut}");
        assert!(rows == whole, "cut after {cut}");
    }
}

/// A reader that does not read holds nobody up but its own stream, which waits with at most a few batches.
#[tokio::test]
async fn a_slow_reader_makes_its_stream_wait() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    let changes = f.session.changes(request(1, None)).await.unwrap();
    for i in 0..30 {
        f.run(&format!("INSERT INTO t SELECT value FROM generate_series({i}, {})", i + 9_000)).await;
    }
    SystemClock.sleep(Duration::from_millis(300)).await;
    // One batch waits in the channel, one before it, and one is held: far fewer sections were loaded than there are.
    assert!(f.database.loads() < 10, "{} sections were loaded", f.database.loads());
    let mut rows = 0;
    let mut changes = changes;
    while rows < 30 * 9_001 {
        rows += next(&mut changes).await.unwrap().0.len();
    }
    assert_eq!(rows, 30 * 9_001);
}
