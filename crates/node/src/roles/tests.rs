//! Nodes that share a store, and of which one writes. None of them can be called: the log alone decides.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::{StreamExt, stream};
use tandem_env::{Clock, Env, SystemClock, within};
use tandem_manifest::SchemaPolicy;
use tandem_sql::{AppendRequest, ClientToken, Database, Promotion, ReadOptions, Receipt, WriteOptions};
use tandem_types::{Epoch, TableName};
use tandem_writer::WriterConfig;

use super::*;
use crate::{Node, NodeConfig};

const HOUR: Duration = Duration::from_secs(3600);

/// Where nobody answers; the port tells the nodes apart.
fn address(node_id: &str) -> String {
    format!("grpc://127.0.0.1:{}", node_id.bytes().map(u16::from).sum::<u16>())
}

/// A node that learns of others' commits only when it must.
fn config(node_id: &str) -> NodeConfig {
    NodeConfig {
        node_id: node_id.to_owned(),
        advertise: Some(address(node_id)),
        failover_priority: None,
        upkeep: false,
        writer: WriterConfig { poll: HOUR, ..WriterConfig::default() },
        ..NodeConfig::default()
    }
}

async fn open(dir: &tempfile::TempDir, config: NodeConfig) -> Result<Node> {
    Node::open(Env::open(dir.path().to_str().unwrap(), &[]).unwrap(), config).await
}

async fn node(dir: &tempfile::TempDir, node_id: &str) -> Node {
    open(dir, config(node_id)).await.unwrap()
}

async fn sql(node: &Node, statement: &str) -> Result<()> {
    node.engine().session("s").prepare(statement).await?.update(None).await.map(|_| ())
}

async fn append(node: &Node, number: i64, token: &str) -> Result<Receipt> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values([number]));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let request = AppendRequest {
        table: TableName::public("t"),
        schema: batch.schema(),
        policy: SchemaPolicy::Create,
        create: None,
        on_conflict: None,
        queued: None,
        options: WriteOptions { token: Some(ClientToken::parse(token).unwrap()), ..WriteOptions::default() },
    };
    node.engine().database().append(request, stream::iter([Ok(batch)]).boxed()).await
}

async fn catch_up(node: &Node) {
    node.shared.settle(&ReadOptions { latest: true, ..ReadOptions::default() }).await.unwrap();
    node.shared.decide_role();
}

async fn promote_by_force(node: &Node) -> Result<Epoch> {
    let promotion = Promotion { force: true, ..Promotion::default() };
    node.shared.promote(promotion).await.map(|promoted| promoted.epoch)
}

fn role(node: &Node) -> &'static str {
    node.shared.role_name(&node.state())
}

fn rows(node: &Node) -> u64 {
    node.state().table_named(&TableName::public("t")).map_or(0, |t| t.rows())
}

fn refused_for(done: Result<Receipt>, by: &str) {
    let error = done.unwrap_err();
    let named = address(by);
    assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some(named.as_str())), "{error}");
}

const SINGLE: &str = "ALTER DATABASE SET (mode = 'single-primary')";
const MULTI: &str = "ALTER DATABASE SET (mode = 'multi-primary')";

#[tokio::test]
async fn the_log_says_who_writes_and_the_others_say_who_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (node(&dir, "a").await, node(&dir, "b").await);
    assert_eq!((role(&a), role(&b)), (WRITER, WRITER));
    sql(&a, SINGLE).await.unwrap();
    assert_eq!((role(&a), a.state().epoch()), (PRIMARY, Epoch(1)));
    let first = append(&a, 1, "one").await.unwrap();

    // It has not heard of it, and cannot commit all the same.
    assert_eq!(role(&b), WRITER);
    refused_for(append(&b, 2, "two").await, "a");
    assert_eq!((role(&b), rows(&b)), (STANDBY, 1));
    refused_for(append(&b, 2, "two").await, "a");
    let error = sql(&b, "CREATE TABLE u (n BIGINT)").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotWriter, "{error}");
    // Also of what it could answer: rows are not read before they are refused.
    refused_for(append(&b, 1, "one").await, "a");
    assert_eq!(append(&a, 1, "one").await.unwrap(), Receipt { duplicate: true, ..first });

    // Said again, it changes nothing; elsewhere it is for the primary to do.
    sql(&a, SINGLE).await.unwrap();
    assert_eq!(a.state().epoch(), Epoch(1));
    assert_eq!(sql(&b, SINGLE).await.unwrap_err().kind(), ErrorKind::NotWriter);
    assert_eq!(sql(&b, MULTI).await.unwrap_err().kind(), ErrorKind::NotWriter);

    sql(&a, MULTI).await.unwrap();
    assert_eq!((role(&a), a.state().epoch(), a.state().primary()), (WRITER, Epoch(2), None));
    append(&a, 3, "three").await.unwrap();
    catch_up(&b).await;
    append(&b, 2, "two").await.unwrap();
    assert_eq!((role(&b), rows(&b)), (WRITER, 3));
}

#[tokio::test]
async fn a_write_that_waits_while_another_is_promoted_is_fenced_and_commits_once_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let window = WriterConfig { window: Duration::from_millis(400), ..config("a").writer };
    let a = open(&dir, NodeConfig { writer: window, ..config("a") }).await.unwrap();
    sql(&a, SINGLE).await.unwrap();
    append(&a, 1, "before").await.unwrap();
    let b = node(&dir, "b").await;
    let waiting = append(&a, 2, "waits");
    let promoting = async {
        SystemClock.sleep(Duration::from_millis(100)).await;
        promote_by_force(&b).await
    };
    let (waited, promoted) = tokio::join!(waiting, promoting);
    assert_eq!(promoted.unwrap(), Epoch(2));
    refused_for(waited, "b");
    assert_eq!((role(&a), role(&b)), (STANDBY, PRIMARY));
    let there = append(&b, 2, "waits").await.unwrap();
    assert!(!there.duplicate && there.rows == 1);
    assert!(append(&b, 2, "waits").await.unwrap().duplicate);
    assert_eq!(rows(&b), 2);
    catch_up(&a).await;
    assert_eq!((role(&a), rows(&a)), (STANDBY, 2));
    refused_for(append(&a, 3, "later").await, "b");
}

#[tokio::test]
async fn a_change_of_mode_does_not_refuse_what_waits_behind_it_on_the_new_primary() {
    let dir = tempfile::tempdir().unwrap();
    let window = WriterConfig { window: Duration::from_millis(300), ..config("a").writer };
    let a = open(&dir, NodeConfig { writer: window, ..config("a") }).await.unwrap();
    let behind = async {
        SystemClock.sleep(Duration::from_millis(100)).await;
        append(&a, 1, "behind").await
    };
    let (changed, behind) = tokio::join!(sql(&a, SINGLE), behind);
    changed.unwrap();
    assert_eq!(behind.unwrap().rows, 1);
    assert_eq!((a.state().epoch(), rows(&a)), (Epoch(1), 1));
}

#[tokio::test]
async fn two_forced_promotions_of_one_epoch_are_settled_by_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (node(&dir, "a").await, node(&dir, "b").await, node(&dir, "c").await);
    sql(&a, SINGLE).await.unwrap();
    catch_up(&b).await;
    catch_up(&c).await;
    let state = b.state();
    let me = |node: &Node| node.shared.identity().unwrap().clone();
    let (first, second) = tokio::join!(
        b.shared.commit_promotion(&state, me(&b), "failover"),
        c.shared.commit_promotion(&state, me(&c), "failover")
    );
    let (won, lost) = if first.is_ok() { (&b, &c) } else { (&c, &b) };
    let error = first.and(second).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert_eq!(error.writer(), Some(me(won).address.as_str()));
    assert_eq!((role(won), role(lost)), (PRIMARY, STANDBY));
    catch_up(&a).await;
    assert_eq!((role(&a), a.state().epoch()), (STANDBY, Epoch(2)));
    // Asked once more in an epoch that is over, nothing happens.
    let late = Promotion { force: true, epoch: Some(Epoch(1)), ..Promotion::default() };
    assert_eq!(a.shared.promote(late).await.unwrap_err().kind(), ErrorKind::Serialization);
    // Who is the primary already stays it, without a commit.
    let again = won.shared.promote(Promotion::default()).await.unwrap();
    assert!(!again.changed && again.epoch == Epoch(2));
}

#[tokio::test]
async fn who_cannot_be_the_primary_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let a = node(&dir, "a").await;
    let error = promote_by_force(&a).await.unwrap_err();
    assert!(error.message().contains("multi-primary"), "{error}");
    let alone = open(&dir, NodeConfig { advertise: None, ..config("alone") }).await.unwrap();
    assert!(sql(&alone, SINGLE).await.unwrap_err().message().contains("--advertise"));
    sql(&a, SINGLE).await.unwrap();
    assert!(promote_by_force(&alone).await.unwrap_err().message().contains("--advertise"));
    let replica = open(&dir, NodeConfig { replica: true, ..config("replica") }).await.unwrap();
    assert!(promote_by_force(&replica).await.unwrap_err().message().contains("--role replica"));
    let named = |id: &str| Promotion { node_id: Some(id.to_owned()), ..Promotion::default() };
    let error = a.shared.promote(named("nobody")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("known are a"), "{error}");
    // A primary that does not answer is not waited for in vain, and the way out is said.
    let b = node(&dir, "b").await;
    let error = b.shared.promote(Promotion::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("--force"), "{error}");
}

#[tokio::test]
async fn a_database_is_founded_in_its_mode_by_one_node_and_checked_by_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let founder = |id: &str, mode| NodeConfig { mode: Some(mode), ..config(id) };
    let single = Mode::SinglePrimary;
    let (a, b) = tokio::join!(open(&dir, founder("a", single)), open(&dir, founder("b", single)));
    let (a, b) = (a.unwrap(), b.unwrap());
    catch_up(&a).await;
    catch_up(&b).await;
    let mut roles = [role(&a), role(&b)];
    roles.sort_unstable();
    assert_eq!(roles, [PRIMARY, STANDBY]);
    assert_eq!(a.state().epoch(), Epoch(1));
    let error = open(&dir, founder("c", Mode::MultiPrimary)).await.unwrap_err();
    assert!(error.message().contains("--mode multi-primary") && error.message().contains("single-primary"));
    open(&dir, founder("c", single)).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    let d = open(&other, founder("d", Mode::MultiPrimary)).await.unwrap();
    assert_eq!((role(&d), d.state().epoch()), (WRITER, Epoch(1)));
    assert!(open(&other, founder("e", single)).await.is_err());
}

#[tokio::test]
async fn a_primary_that_was_started_anew_elsewhere_is_promoted_anew() {
    let dir = tempfile::tempdir().unwrap();
    let old = node(&dir, "a").await;
    sql(&old, SINGLE).await.unwrap();
    let new = open(&dir, NodeConfig { advertise: Some(address("z")), ..config("a") }).await.unwrap();
    assert_eq!((role(&new), new.state().epoch()), (PRIMARY, Epoch(2)));
    append(&new, 1, "one").await.unwrap();
    // Were the old process still alive, it would be fenced like any other.
    refused_for(append(&old, 2, "two").await, "z");
    assert_eq!(role(&old), STANDBY);
    let same = open(&dir, NodeConfig { advertise: Some(address("z")), ..config("a") }).await.unwrap();
    assert_eq!((role(&same), same.state().epoch()), (PRIMARY, Epoch(2)), "at the same place nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_wanted_standby_takes_over_from_a_primary_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let quick = |id: &str, priority| NodeConfig {
        failover_priority: priority,
        heartbeat: Some(Duration::from_millis(100)),
        ..config(id)
    };
    let a = open(&dir, quick("a", Some(100))).await.unwrap();
    sql(&a, "ALTER DATABASE SET (mode = 'single-primary', failover_after = '600ms')").await.unwrap();
    append(&a, 1, "one").await.unwrap();
    let never = open(&dir, quick("n", None)).await.unwrap();
    let less = open(&dir, quick("b", Some(10))).await.unwrap();
    let more = open(&dir, quick("c", Some(90))).await.unwrap();
    SystemClock.sleep(Duration::from_secs(2)).await;
    for node in [&never, &less, &more] {
        catch_up(node).await;
        assert_eq!((role(node), node.state().epoch()), (STANDBY, Epoch(1)), "a living primary stays");
    }
    // Gone without a word: its heartbeat stays behind.
    drop(a);
    let mut states = more.shared.writer.watch();
    let promoted = states.wait_for(|state| state.epoch() > Epoch(1));
    let state = within(&SystemClock, Duration::from_secs(30), promoted).await.unwrap().unwrap().clone();
    assert_eq!(state.primary().map(|p| p.node_id.as_str()), Some("c"));
    // The state is there a moment before what follows from it.
    more.shared.writer.watch_role().wait_for(|role| !role.is_replica()).await.unwrap();
    append(&more, 2, "two").await.unwrap();
    SystemClock.sleep(Duration::from_millis(1500)).await;
    for node in [&never, &less] {
        catch_up(node).await;
        assert_eq!((role(node), node.state().epoch(), rows(node)), (STANDBY, Epoch(2), 2));
    }
}
