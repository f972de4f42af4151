//! What a table's `ttl` takes, and what it leaves to a person.

use std::sync::Arc;

use tandem_env::Env;
use tandem_manifest::Table;
use tandem_sql::{Session, UpdateResult};
use tandem_types::TableName;

use crate::{Node, NodeConfig};

async fn node(dir: &tempfile::TempDir) -> (Node, Arc<Session>) {
    let env = Env::open(dir.path().to_str().unwrap(), &[]).unwrap();
    let node = Node::open(env, NodeConfig { upkeep: false, ..NodeConfig::default() }).await.unwrap();
    let session = node.engine().session("test");
    (node, session)
}

async fn run(session: &Arc<Session>, sql: &str) -> UpdateResult {
    session.prepare(sql).await.unwrap().update(None).await.unwrap()
}

async fn insert(session: &Arc<Session>, days: &[&str]) {
    let rows: Vec<String> = days.iter().map(|day| format!("(TIMESTAMP '{day}T01:00:00', 1)")).collect();
    run(session, &format!("INSERT INTO t VALUES {}", rows.join(", "))).await;
}

async fn create(session: &Arc<Session>) {
    run(session, "CREATE TABLE t (ts TIMESTAMP, n BIGINT) PARTITION BY DAY WITH (ttl = '30d')").await;
}

fn table(node: &Node) -> Table {
    node.state().require(&TableName::public("t")).unwrap().clone()
}

/// Whether upkeep found something to do.
async fn round(node: &Node) -> bool {
    node.shared.upkeep_round().await.unwrap()
}

fn waiting(node: &Node) -> serde_json::Value {
    node.status()()["ttl_waits"].clone()
}

#[tokio::test]
async fn partitions_go_once_their_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (node, session) = node(&dir).await;
    create(&session).await;
    insert(&session, &["2024-01-01", "2024-05-04", "2024-06-01", "2024-06-02"]).await;
    // The newest row counts, not the clock, which says that all of them are old.
    assert!(round(&node).await);
    assert_eq!(table(&node).rows(), 3);
    assert!(!round(&node).await, "2024-05-04 ends 28 days and an hour before the newest row");
    insert(&session, &["2024-06-05", "2024-01-01"]).await;
    assert!(round(&node).await);
    assert_eq!(table(&node).rows(), 3, "the one of May, and what came too late");
    // Files go as the tail does.
    run(&session, "OPTIMIZE TABLE t").await;
    insert(&session, &["2024-07-02", "2024-07-03"]).await;
    assert_eq!(table(&node).file_count(), 3);
    assert!(round(&node).await);
    assert_eq!((table(&node).file_count(), table(&node).rows()), (1, 3));
    assert_eq!(waiting(&node), serde_json::json!({}));
}

#[tokio::test]
async fn more_than_half_of_a_table_waits_for_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let (node, session) = node(&dir).await;
    create(&session).await;
    insert(&session, &["2024-01-01", "2024-01-02", "2024-01-03", "2024-06-01", "2024-06-02"]).await;
    assert!(!round(&node).await);
    assert!(!round(&node).await);
    assert_eq!(table(&node).rows(), 5);
    assert_eq!(waiting(&node), serde_json::json!({ "t": 3 }));
    // Another ttl keeps them, for good or until they are few.
    run(&session, "ALTER TABLE t SET (ttl = '1000d')").await;
    assert!(!round(&node).await);
    assert_eq!(waiting(&node), serde_json::json!({}));
    run(&session, "ALTER TABLE t SET (ttl = '30d')").await;
    run(&session, "OPTIMIZE TABLE t").await;
    assert_eq!((table(&node).rows(), table(&node).tail_rows()), (2, 0), "whoever asks for it has looked");
    assert_eq!(waiting(&node), serde_json::json!({}));
}
