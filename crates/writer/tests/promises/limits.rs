//! Replicas that are kept behind: never a commit too early, none left out, and no memory for what waits.

use std::sync::Arc;
use std::time::Duration;

use tandem_env::sim::{FaultStore, Op};
use tandem_log::{ApplyLimit, StoredCommit, Until};
use tandem_manifest::SchemaPolicy;
use tandem_types::{ErrorKind, Seq};
use tandem_writer::{Role, WriterConfig};

use crate::rows::batch;
use crate::sim::{Node, config, run, store};

const DELAY: Duration = Duration::from_secs(20);

async fn replica(store: &Arc<FaultStore>, seed: u64, limit: ApplyLimit) -> Node {
    let node = Node::open_with(store, seed, WriterConfig { limit, ..config() }).await;
    node.writer.set_role(Role::Replica { writer: None });
    node
}

async fn write(node: &Node, count: i64) {
    for number in 0..count {
        node.append("t", SchemaPolicy::Create, vec![batch(number, 3)]).await.unwrap();
    }
}

fn pushed(node: &Node, seq: u64) -> StoredCommit {
    let recent = node.writer.recent().get(Seq(seq)).expect("kept for followers");
    let (object, whole) = recent.object(usize::MAX);
    StoredCommit::decode(&object, whole).unwrap()
}

fn log_reads(store: &Arc<FaultStore>) -> usize {
    store.trace().iter().filter(|c| c.op == Op::Get && c.path.ends_with(".commit")).count()
}

#[test]
fn a_delayed_replica_applies_each_commit_at_its_age_and_reads_it_once() {
    let store = store();
    run(&store, async {
        let limit = ApplyLimit { delay: DELAY, ..ApplyLimit::default() };
        let (a, b) = (Node::open(&store, 1).await, replica(&store, 2, limit).await);
        let clock = a.env.clock.clone();
        let mut times = vec![0];
        for _ in 0..30 {
            write(&a, 1).await;
            times.push(a.writer.state().commit_time());
            clock.sleep(Duration::from_secs(1)).await;
        }
        let reads = log_reads(&store);
        let mut states = b.writer.watch();
        loop {
            let (state, now) = (states.borrow_and_update().clone(), clock.now_micros());
            let seq = state.seq().0 as usize;
            assert!(times[seq] + 20_000_000 <= now || seq == 0, "commit {seq} came too early");
            if let Some(next) = times.get(seq + 1) {
                assert!(next + 22_000_000 > now, "commit {} is late", seq + 1);
                // What it has read ahead it knows of, without anybody who tells it.
                assert!((1..=30 - seq as u64).contains(&b.writer.lag().commits), "{:?}", b.writer.lag());
            }
            if seq == 30 {
                break;
            }
            states.changed().await.unwrap();
        }
        // Thirty commits, and looks at the end of the log now and then: not a run for every one.
        let reads = log_reads(&store) - reads;
        assert!(reads < 220, "{reads} reads");
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
    });
}

#[test]
fn the_lag_of_a_delayed_replica_is_the_age_of_its_next_commit() {
    let store = store();
    run(&store, async {
        let a = Node::open(&store, 1).await;
        write(&a, 3).await;
        let clock = a.env.clock.clone();
        clock.sleep(DELAY / 2).await;
        let b = replica(&store, 2, ApplyLimit { delay: DELAY, ..ApplyLimit::default() }).await;
        clock.sleep(Duration::from_secs(2)).await;
        let lag = b.writer.lag();
        assert_eq!(lag.commits, 3);
        assert!(lag.time >= Duration::from_secs(12), "by commit time, though it has only begun: {lag:?}");
        let next = b.writer.standing().unwrap().next.unwrap();
        assert_eq!(next.0, Seq(1));
        // Whoever wants the newest waits for it, and a write elsewhere does not move the goal.
        assert_eq!(b.writer.catch_up_now().await.unwrap(), Seq(3));
        assert_eq!(b.writer.state().seq(), Seq(0));
        write(&a, 400).await;
        let error = b.writer.catch_up_now().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Behind, "{error}");
        assert!(error.message().contains("20s old"), "{error}");
        let mut states = b.writer.watch();
        states.wait_for(|state| state.seq() >= Seq(403)).await.unwrap();
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
    });
}

#[test]
fn pushed_commits_that_come_too_early_are_heard_of_and_not_kept() {
    let store = store();
    run(&store, async {
        let a = Node::open(&store, 1).await;
        let _follower = a.writer.recent().follow();
        let b = replica(&store, 2, ApplyLimit { delay: DELAY, ..ApplyLimit::default() }).await;
        write(&a, 100).await;
        let feed = b.writer.feed();
        for seq in 1..=100 {
            // None of them waits for room.
            feed.offer(pushed(&a, seq)).await.unwrap();
        }
        assert_eq!((b.writer.state().seq(), b.writer.lag().commits), (Seq(0), 100));
        assert_eq!(b.writer.recent().bytes(), 0, "nothing of them is in memory");
        let mut states = b.writer.watch();
        states.wait_for(|state| state.seq() >= Seq(100)).await.unwrap();
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
    });
}

#[test]
fn nothing_is_applied_after_the_end_however_it_arrives() {
    let store = store();
    run(&store, async {
        let a = Node::open(&store, 1).await;
        let _follower = a.writer.recent().follow();
        write(&a, 3).await;
        let clock = a.env.clock.clone();
        let time = a.writer.state().commit_time();
        let seq = ApplyLimit { until: Some(Until::Seq(Seq(5))), ..ApplyLimit::default() };
        let by_seq = replica(&store, 2, seq).await;
        let by_time =
            replica(&store, 3, ApplyLimit { until: Some(Until::Time(time)), ..ApplyLimit::default() }).await;
        assert_eq!(by_seq.writer.catch_up_now().await.unwrap(), Seq(3), "all there is");
        clock.sleep(Duration::from_secs(1)).await;
        write(&a, 5).await;
        let feed = by_seq.writer.feed();
        for seq in 4..=5 {
            feed.offer(pushed(&a, seq)).await.unwrap();
        }
        assert_eq!(feed.offer(pushed(&a, 6)).await.unwrap_err().kind(), ErrorKind::Unsupported);
        let feed = by_time.writer.feed();
        assert_eq!(feed.offer(pushed(&a, 4)).await.unwrap_err().kind(), ErrorKind::Unsupported);
        clock.sleep(Duration::from_secs(30)).await;
        for (node, last) in [(&by_seq, Seq(5)), (&by_time, Seq(3))] {
            assert_eq!(node.writer.state().seq(), last);
            assert!(node.writer.standing().unwrap().ended);
            // There is more, and whoever asks for the newest is told so.
            assert_eq!(node.writer.catch_up_now().await.unwrap(), last.next());
        }
        let before = log_reads(&store);
        clock.sleep(Duration::from_secs(60)).await;
        // Only the writer itself still looks.
        assert!(log_reads(&store) - before <= 330, "{}", log_reads(&store) - before);
        assert_eq!(by_seq.writer.state().seq(), Seq(5));
    });
}
