//! Deleting under queries, on real files.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, UInt64Type};
use futures::TryStreamExt;
use tandem_collect::Rules;
use tandem_env::Env;
use tandem_format::heartbeat_path;
use tandem_sql::{CollectRequest, Collected, Session};
use tandem_types::{ErrorKind, Seq};

use crate::peers::Heartbeat;
use crate::{Node, NodeConfig};

/// A node that deletes when it is told to, and then all that it may.
async fn node(dir: &tempfile::TempDir, node_id: &str) -> Node {
    let env = Env::open(dir.path().to_str().unwrap(), &[]).unwrap();
    let config = NodeConfig {
        node_id: node_id.to_owned(),
        upkeep: false,
        collect_rules: Rules { job: Duration::ZERO, grace: Duration::ZERO },
        ..NodeConfig::default()
    };
    Node::open(env, config).await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the node under test goes by the real clock")]
async fn run(session: &Arc<Session>, sql: &str) -> Seq {
    // The window is a millisecond.
    tokio::time::sleep(Duration::from_millis(3)).await;
    session.prepare(sql).await.unwrap().update(None).await.unwrap_or_else(|e| panic!("{sql}: {e}")).seq
}

async fn count(session: &Arc<Session>, sql: &str) -> tandem_types::Result<i64> {
    let planned = session.prepare(sql).await?.plan(None).await?;
    let batches: Vec<_> = planned.start(None).await?.stream.try_collect().await?;
    Ok(batches.iter().find(|b| b.num_rows() > 0).unwrap().column(0).as_primitive::<Int64Type>().value(0))
}

async fn collect(node: &Node, dry_run: bool) -> Collected {
    node.engine().database().collect(CollectRequest { dry_run }).await.unwrap()
}

/// Rows come, are compacted, and the state is checkpointed; several times.
async fn work(session: &Arc<Session>, rounds: i64) {
    for n in 0..rounds {
        run(session, &format!("INSERT INTO t VALUES ({n})")).await;
        run(session, "OPTIMIZE TABLE t").await;
        run(session, "CHECKPOINT").await;
    }
}

async fn begin(dir: &tempfile::TempDir) -> (Node, Arc<Session>) {
    let node = node(dir, "a").await;
    let session = node.engine().session("s");
    run(&session, "ALTER DATABASE SET (history_window = '1ms')").await;
    run(&session, "CREATE TABLE t (n BIGINT)").await;
    (node, session)
}

fn objects(collected: &[tandem_sql::StoredShare]) -> u64 {
    collected.iter().map(|share| share.objects).sum()
}

#[tokio::test]
async fn what_is_told_is_done_and_nothing_that_is_read_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (node_a, session) = begin(&dir).await;
    work(&session, 6).await;
    let told = collect(&node_a, true).await;
    assert!(objects(&told.garbage) > 5 && told.deleted_objects == 0, "{told:?}");
    assert_eq!(node_a.state().history_start(), Seq(0), "a rehearsal commits nothing");
    let table = "SELECT count(*) FROM system.gc WHERE state = 'held' AND held_by IS NOT NULL";
    assert!(count(&session, table).await.unwrap() > 5);

    let done = collect(&node_a, false).await;
    let figures = |shares: &[tandem_sql::StoredShare]| -> Vec<(String, u64, u64)> {
        shares.iter().map(|share| (share.kind.clone(), share.objects, share.bytes)).collect()
    };
    // No checkpoint had to be written first.
    assert_eq!(figures(&done.garbage), figures(&told.garbage));
    assert_eq!(done.deleted_objects, objects(&told.garbage));
    assert_eq!(
        (done.history_start, done.horizon, done.floor),
        (told.history_start, told.horizon, told.floor)
    );
    assert_eq!(done.failed, None);
    assert!(done.history_start > 0 && done.floor > 0, "{done:?}");
    assert_eq!(count(&session, "SELECT count(*) FROM t").await.unwrap(), 6);
    let past = count(&session, "SELECT count(*) FROM t VERSION AS OF 3").await.unwrap_err();
    assert_eq!(past.kind(), ErrorKind::HistoryGone, "{past}");
    let start = format!("SELECT count(*) FROM t VERSION AS OF {}", done.history_start);
    assert!(count(&session, &start).await.is_ok());
    // Another node begins on what is left, and the log is shown as far as it is there.
    let other = node(&dir, "b").await;
    let session = other.engine().session("s");
    assert_eq!(count(&session, "SELECT count(*) FROM t").await.unwrap(), 6);
    assert!(count(&session, "SELECT count(*) FROM system.log").await.unwrap() > 0);
    run(&session, "INSERT INTO t VALUES (7)").await;
    assert_eq!(count(&session, "SELECT count(*) FROM t").await.unwrap(), 7);
}

#[tokio::test]
async fn a_running_query_holds_what_it_reads_and_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let (node, session) = begin(&dir).await;
    work(&session, 2).await;
    let planned = session.prepare("SELECT n FROM t").await.unwrap().plan(None).await.unwrap();
    let running = planned.start(None).await.unwrap();
    work(&session, 4).await;
    let held = collect(&node, false).await;
    assert!(held.history_start <= planned.snapshot_seq().0, "{held:?}");
    assert!(held.held_by.as_deref().is_some_and(|by| by.contains('a')), "{held:?}");
    let leases = session.prepare("SELECT seq FROM system.leases").await.unwrap().plan(None).await.unwrap();
    let leases: Vec<_> = leases.start(None).await.unwrap().stream.try_collect().await.unwrap();
    let lease = leases.iter().find(|b| b.num_rows() > 0).unwrap();
    assert_eq!(lease.column(0).as_primitive::<UInt64Type>().value(0), planned.snapshot_seq().0);
    let rows: Vec<_> = running.stream.try_collect().await.unwrap();
    assert_eq!(rows.iter().map(|b| b.num_rows()).sum::<usize>(), 2);

    work(&session, 1).await;
    let free = collect(&node, false).await;
    assert!(free.history_start > planned.snapshot_seq().0, "{free:?}");
    assert_eq!(node.state().pins().count(), 0);
    // It was bound to a state that is gone now: that is what it says, and not that anything is damaged.
    let error = planned.start(None).await.unwrap().stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryGone, "{error}");
}

/// How old a heartbeat is says the store: the clock of whoever beats may be wrong.
#[tokio::test]
async fn a_node_whose_clock_is_wrong_holds_what_it_stands_at() {
    let dir = tempfile::tempdir().unwrap();
    let (node, session) = begin(&dir).await;
    work(&session, 2).await;
    let behind = node.state().seq();
    work(&session, 4).await;
    let far = "far".to_owned();
    let beat = Heartbeat { node_id: far, applied_seq: behind.0, beat: 1, time: 5, ..Heartbeat::default() };
    let text = serde_json::to_vec(&beat).unwrap();
    node.shared.env.store.put_overwrite(&heartbeat_path("far"), text.into()).await.unwrap();
    let held = collect(&node, false).await;
    assert!(held.history_start <= behind.0, "{held:?}");
    assert!(held.held_by.as_deref().is_some_and(|by| by.contains("far")), "{held:?}");
    assert!(node.state().pins().any(|pin| pin.id == "lease-far" && pin.seq == behind));
}
