//! Tokens, acknowledgement and reads of nodes that share a store and nothing else.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::{StreamExt, stream};
use tandem_env::Env;
use tandem_manifest::SchemaPolicy;
use tandem_sql::{
    Ack, AppendRequest, ClientToken, ReadOptions, Receipt, Session, UpdateResult, WriteOptions,
};
use tandem_types::{ErrorKind, Result, Seq, TableName};
use tandem_writer::WriterConfig;

use crate::{Node, NodeConfig};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

/// A node that learns of others' commits only when it must.
async fn node(dir: &tempfile::TempDir, node_id: &str) -> Node {
    let env = Env::open(dir.path().to_str().unwrap(), &[]).unwrap();
    let writer = WriterConfig { poll: HOUR, ..WriterConfig::default() };
    let config = NodeConfig { node_id: node_id.to_owned(), upkeep: false, writer, ..NodeConfig::default() };
    Node::open(env, config).await.unwrap()
}

async fn run(session: &Arc<Session>, sql: &str) -> UpdateResult {
    session.prepare(sql).await.unwrap().update(None).await.unwrap()
}

fn numbers(values: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

async fn append(node: &Node, batches: Vec<RecordBatch>, options: WriteOptions) -> Result<Receipt> {
    let request = AppendRequest {
        table: TableName::public("t"),
        schema: batches[0].schema(),
        policy: SchemaPolicy::Create,
        create: None,
        on_conflict: None,
        queued: None,
        options,
    };
    let rows = stream::iter(batches.into_iter().map(Ok)).boxed();
    node.engine().database().append(request, rows).await
}

fn token(text: &str) -> WriteOptions {
    WriteOptions { token: Some(ClientToken::parse(text).unwrap()), ..WriteOptions::default() }
}

fn rows(node: &Node) -> u64 {
    node.state().table_named(&TableName::public("t")).map_or(0, |t| t.rows())
}

#[tokio::test]
async fn a_stream_commits_once_on_whichever_nodes_and_in_whatever_batches_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (node(&dir, "a").await, node(&dir, "b").await);
    let first = append(&a, vec![numbers(0..60), numbers(60..100)], token("k")).await.unwrap();
    assert_eq!((first.rows, first.duplicate, first.acked), (100, false, Ack::Store));
    for (node, batches) in [(&a, vec![numbers(0..100)]), (&b, vec![numbers(0..1), numbers(1..100)])] {
        let again = append(node, batches, token("k")).await.unwrap();
        assert_eq!(again, Receipt { duplicate: true, ..first });
    }
    for node in [&a, &b] {
        let error = append(node, vec![numbers(0..99)], token("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TokenReused, "{error}");
        assert_eq!(rows(node), 100);
    }
    // What was committed stays so when its table is gone.
    run(&b.engine().session("s"), "DROP TABLE t").await;
    let again = append(&a, vec![numbers(0..100)], token("k")).await.unwrap();
    assert_eq!(again, Receipt { duplicate: true, ..first });
}

#[tokio::test]
async fn equal_writes_are_one_where_a_table_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let session = a.engine().session("s");
    append(&a, vec![numbers(0..2)], WriteOptions::default()).await.unwrap();
    append(&a, vec![numbers(0..2)], WriteOptions::default()).await.unwrap();
    assert_eq!(rows(&a), 4);
    run(&session, "ALTER TABLE t SET (dedup_window = '10m')").await;
    let first = append(&a, vec![numbers(0..2)], WriteOptions::default()).await.unwrap();
    let again = append(&a, vec![numbers(0..1), numbers(1..2)], WriteOptions::default()).await.unwrap();
    assert_eq!((first.duplicate, again.duplicate, again.seq), (false, true, first.seq));
    assert!(
        !append(&a, vec![numbers(0..2)], token("own")).await.unwrap().duplicate,
        "a token says which it is"
    );
    assert!(!append(&a, vec![numbers(0..3)], WriteOptions::default()).await.unwrap().duplicate);
    run(&session, "ALTER TABLE t SET (dedup_window = 'off')").await;
    assert!(!append(&a, vec![numbers(0..2)], WriteOptions::default()).await.unwrap().duplicate);
}

#[tokio::test]
async fn a_quorum_is_waited_for_and_a_missed_one_says_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let quorum = |k, ack_timeout| WriteOptions {
        ack: Some(Ack::Quorum(k)),
        ack_timeout: Some(ack_timeout),
        ..WriteOptions::default()
    };
    let error = append(&a, vec![numbers(0..1)], quorum(1, SHORT)).await.unwrap_err();
    assert_eq!((error.kind(), error.seq()), (ErrorKind::QuorumTimeout, Some(a.state().seq())), "{error}");
    assert!(error.message().contains("committed at") && error.message().contains("0 of 1"), "{error}");
    assert_eq!(rows(&a), 1, "committed all the same");

    let progress = &a.shared.progress;
    progress.report(7, Seq(1_000));
    let receipt = append(&a, vec![numbers(1..2)], quorum(1, HOUR)).await.unwrap();
    assert_eq!(receipt.acked, Ack::Quorum(1));
    let error = append(&a, vec![numbers(2..3)], quorum(2, SHORT)).await.unwrap_err();
    assert!(error.message().contains("1 of 2"), "{error}");

    // The database's level, and the table's before it; a write says what it wants before both.
    let session = a.engine().session("s");
    run(&session, "ALTER DATABASE SET (ack = quorum(2))").await;
    run(&session, "SET tandem.ack_timeout = 50ms").await;
    let insert = session.prepare("INSERT INTO t VALUES (4)").await.unwrap();
    assert_eq!(insert.update(None).await.unwrap_err().kind(), ErrorKind::QuorumTimeout);
    run(&session, "ALTER TABLE t SET (ack = quorum(1))").await;
    assert_eq!(insert.update(None).await.unwrap().acked, Ack::Quorum(1));
    run(&session, "SET tandem.ack = store").await;
    assert_eq!(insert.update(None).await.unwrap().acked, Ack::Store);

    // A write that missed its quorum is asked for again by its token: the level is what is waited for now.
    let once = |k| WriteOptions { ack: Some(Ack::Quorum(k)), ack_timeout: Some(SHORT), ..token("q") };
    let missed = append(&a, vec![numbers(9..10)], once(2)).await.unwrap_err();
    let again = append(&a, vec![numbers(9..10)], once(1)).await.unwrap();
    assert_eq!((Some(again.seq), again.duplicate, again.acked), (missed.seq(), true, Ack::Quorum(1)));
}

#[tokio::test]
async fn a_read_may_demand_a_seq_or_the_newest_state() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (node(&dir, "a").await, node(&dir, "b").await);
    let database = b.engine().database();
    let latest = ReadOptions { latest: true, ..ReadOptions::default() };
    let mut seq = Seq(0);
    for n in 0..20 {
        seq = append(&a, vec![numbers(n..n + 1)], WriteOptions::default()).await.unwrap().seq;
        // Nobody has told it.
        database.settle(&latest).await.unwrap();
        assert_eq!(rows(&b), n.unsigned_abs() + 1);
    }
    let at = |seq| ReadOptions { min_seq: Some(seq), deadline: Some(SHORT), ..ReadOptions::default() };
    database.settle(&at(seq)).await.unwrap();
    let error = database.settle(&at(seq.next())).await.unwrap_err();
    assert_eq!((error.kind(), error.seq()), (ErrorKind::Behind, Some(seq)));
    let (wanted, applied) = (format!("seq {} ", seq.next()), format!("seq {seq} "));
    assert!(error.message().contains(&wanted) && error.message().contains(&applied), "{error}");

    // Whoever waits is told as soon as it is there.
    let next = ReadOptions { deadline: Some(HOUR), ..at(seq.next()) };
    let waiting = database.settle(&next);
    let writing = append(&b, vec![numbers(20..21)], WriteOptions::default());
    let (settled, written) = futures::join!(waiting, writing);
    assert_eq!((settled, written.unwrap().seq), (Ok(()), seq.next()));

    let both = ReadOptions { latest: true, ..at(Seq(99)) };
    assert_eq!(database.settle(&both).await.unwrap_err().kind(), ErrorKind::Behind);
}

#[tokio::test]
async fn a_node_lists_itself() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let nodes = a.engine().database().nodes();
    assert_eq!((nodes.len(), nodes[0].node_id.as_str(), nodes[0].role.as_str()), (1, "a", "writer"));
    assert_eq!((nodes[0].lag_commits, nodes[0].applied_seq), (Some(0), a.state().seq()));
}
