//! What peers push: applied where it continues the state, refused where it does not, and never needed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tandem_env::sim::{FaultStore, Op, join};
use tandem_log::{Log, StoredCommit};
use tandem_manifest::SchemaPolicy;
use tandem_types::{ErrorKind, Seq, TableName};
use tandem_writer::{Append, Feed, Role, WriteToken, WriterConfig};

use crate::rows::batch;
use crate::sim::{Node, config, run, store};

/// A node that looks into the store only when it must.
pub async fn lazy(store: &Arc<FaultStore>, seed: u64) -> Node {
    let hours = Duration::from_secs(10_000);
    Node::open_with(store, seed, WriterConfig { poll: hours, poll_min: hours, ..config() }).await
}

/// The commit at a seq as `node` would push it.
fn pushed(node: &Node, seq: u64) -> StoredCommit {
    let recent = node.writer.recent().get(Seq(seq)).expect("kept for followers");
    let (object, whole) = recent.object(usize::MAX);
    assert!(whole);
    StoredCommit::decode(&object, whole).unwrap()
}

pub async fn push(feed: &Feed, node: &Node, seqs: impl IntoIterator<Item = u64>) {
    for seq in seqs {
        feed.offer(pushed(node, seq)).await.unwrap();
    }
}

pub async fn reaches(node: &Node, seq: u64) {
    let mut states = node.writer.watch();
    states.wait_for(|state| state.seq() >= Seq(seq)).await.unwrap();
}

pub async fn write(node: &Node, numbers: std::ops::Range<i64>) {
    for number in numbers {
        node.append("t", SchemaPolicy::Create, vec![batch(number, 3)]).await.unwrap();
    }
}

fn log_reads(store: &Arc<FaultStore>) -> usize {
    store.trace().iter().filter(|call| call.op == Op::Get && is_commit(&call.path)).count()
}

fn is_commit(path: &str) -> bool {
    path.ends_with(".commit")
}

#[test]
fn who_creates_the_end_of_the_log_need_not_look_for_it() {
    let store = store();
    run(&store, async {
        let window = Duration::from_millis(100);
        let poll_min = Duration::from_millis(50);
        let node = Node::open_with(&store, 1, WriterConfig { window, poll_min, ..config() }).await;
        write(&node, 0..1).await;
        let before = log_reads(&store);
        write(&node, 1..21).await;
        let looks = log_reads(&store) - before;
        assert!(looks <= 2, "{looks} looks between 20 commits that followed each other");
    });
}

#[test]
fn pushed_commits_are_applied_without_a_look_into_the_store() {
    let store = store();
    run(&store, async {
        let a = Node::open(&store, 1).await;
        let b = lazy(&store, 2).await;
        b.writer.set_role(Role::Replica { writer: None });
        let _follower = a.writer.recent().follow();
        write(&a, 0..6).await;
        let feed = b.writer.feed();
        let before = log_reads(&store);
        push(&feed, &a, 1..=6).await;
        reaches(&b, 6).await;
        assert_eq!(log_reads(&store), before, "everything came from the peer");
        let (one, other) = (a.writer.state(), b.writer.state());
        assert_eq!((one.seq(), one.digest()), (other.seq(), other.digest()));
        assert_eq!(b.writer.lag().commits, 0);
        // The rows came along, and can be passed on.
        assert!(pushed(&b, 6).payload.is_some());

        let error = b.append("t", SchemaPolicy::Strict, vec![batch(9, 1)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotWriter);
        // Refused before the first row is asked for, which here would never come.
        let append = Append {
            table: TableName::public("t"),
            schema: batch(9, 1).schema(),
            policy: SchemaPolicy::Strict,
            on_conflict: None,
            create: None,
            token: WriteToken::Minted,
            queued: None,
        };
        let error = b.writer.append(append, futures::stream::pending().boxed()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotWriter);
        assert_eq!(b.writer.catch_up_now().await.unwrap(), Seq(6));
    });
}

#[test]
fn order_does_not_matter_and_what_never_comes_is_read_from_the_store() {
    let store = store();
    run(&store, async {
        let a = Node::open(&store, 1).await;
        let b = lazy(&store, 2).await;
        let _follower = a.writer.recent().follow();
        write(&a, 0..6).await;
        let feed = b.writer.feed();
        push(&feed, &a, [3, 2, 1, 2, 1]).await;
        reaches(&b, 3).await;
        // The fourth is lost, the end is heard of.
        push(&feed, &a, [6, 5]).await;
        reaches(&b, 6).await;
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
        write(&a, 6..8).await;
        b.writer.heard_of(Seq(8));
        reaches(&b, 8).await;
    });
}

#[test]
fn commits_of_another_history_are_refused_and_the_store_decides() {
    let (store, other) = (store(), store_of_other_history());
    run(&store, async {
        let a = Node::open(&store, 1).await;
        let b = lazy(&store, 2).await;
        let _follower = a.writer.recent().follow();
        write(&a, 0..2).await;
        let feed = b.writer.feed();
        for foreign in &other {
            feed.offer(foreign.clone()).await.unwrap();
        }
        let mut refused = None;
        for _ in 0..1000 {
            refused = feed.check().err();
            if refused.is_some() {
                break;
            }
            b.env.clock.sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(refused.expect("it is told").kind(), ErrorKind::Damaged);
        // What was heard of is looked for, and the true history is found.
        reaches(&b, 2).await;
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
        write(&b, 2..4).await;
        reaches(&a, 4).await;
    });
}

/// Two commits that another database holds at the same seqs.
fn store_of_other_history() -> Vec<StoredCommit> {
    let store = store();
    run(&store, async {
        let a = Node::open(&store, 77).await;
        write(&a, 0..2).await;
        let log = Log::open(join(&store, 78)).await.unwrap();
        let mut commits = Vec::new();
        for seq in 1..=2 {
            commits.push(log.read_stored(Seq(seq)).await.unwrap().unwrap());
        }
        commits
    })
}

#[test]
fn writers_that_feed_each_other_lose_fewer_races() {
    let store = store();
    run(&store, async {
        let (a, b) = (lazy(&store, 1).await, lazy(&store, 2).await);
        let (_to_a, _to_b) = (a.writer.recent().follow(), b.writer.recent().follow());
        let (from_a, from_b) = (b.writer.feed(), a.writer.feed());
        for round in 0..10i64 {
            let before = a.writer.state().seq().0;
            write(&a, round * 2..round * 2 + 1).await;
            push(&from_a, &a, before + 1..=before + 1).await;
            reaches(&b, before + 1).await;
            write(&b, round * 2 + 1..round * 2 + 2).await;
            push(&from_b, &b, before + 2..=before + 2).await;
            reaches(&a, before + 2).await;
        }
        let creates = store.trace().iter().filter(|c| c.op == Op::Put && is_commit(&c.path)).count();
        assert!(creates <= 22, "{creates} creates for 20 commits: nobody tried a seq that was taken");
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
    });
}
