use std::sync::Arc;

use tandem_env::sim::{Fault, FaultPlan, FaultStore, Op, join};
use tandem_format::{Floor, commit_path, encode_floor, floor_path, root_path};
use tandem_manifest::Manifest;
use tandem_types::{ErrorKind, Seq};

use super::{Node, append, bytes_of, overwrite, run, schema, store};
use crate::{Appended, ApplyLimit, Log, Until, WrittenCheckpoint};

async fn checkpoint(node: &mut Node) -> WrittenCheckpoint {
    let one = node.log.write_checkpoint(&node.state, None).await.unwrap();
    node.commit(one.record()).await;
    one
}

fn floor_at(log: &Log, checkpoint: &WrittenCheckpoint, seq: Seq) -> Floor {
    Floor { database: log.database(), seq, checkpoint: checkpoint.seq, root_hash: checkpoint.root_hash }
}

async fn delete_up_to(log: &Log, seq: Seq) {
    for seq in 1..=seq.0 {
        log.env().store.delete(&commit_path(Seq(seq))).await.unwrap();
    }
}

/// A log that was trimmed up to its first of two checkpoints; a node that stands at its end, and that checkpoint.
async fn trimmed(store: &Arc<FaultStore>) -> (Node, WrittenCheckpoint) {
    let mut node = Node::open(store, 1).await;
    node.commit(append(3)).await;
    node.tick("a").await;
    let first = checkpoint(&mut node).await;
    node.tick("b").await;
    checkpoint(&mut node).await;
    node.tick("c").await;
    let floor = floor_at(&node.log, &first, first.seq);
    assert_eq!(node.log.raise_floor(floor).await.unwrap(), floor);
    delete_up_to(&node.log, first.seq).await;
    (node, first)
}

#[test]
fn a_trimmed_log_is_read_from_its_checkpoints() {
    let store = store();
    run(&store, async {
        let (node, first) = trimmed(&store).await;
        let other = Node::open(&store, 2).await;
        assert_eq!(other.state.digest(), node.state.digest());
        for applied in 0..first.seq.0 {
            let error = other.log.read_run(Seq(applied), 10).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HistoryGone, "{error}");
        }
        assert!(!other.log.read_run(first.seq, 10).await.unwrap().is_empty());
        for seq in [Seq(1), first.seq] {
            let gone = other.log.read_payload(seq).await.unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
            let gone = other.log.read_applied(seq).await.unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
        }
        let limit = |last| ApplyLimit { until: Some(Until::Seq(Seq(last))), ..ApplyLimit::default() };
        let too_old = other.log.recover_within(&limit(first.seq.0 - 1), 0).await.unwrap_err();
        assert_eq!(too_old.kind(), ErrorKind::Unavailable, "{too_old}");
        let past = other.log.recover_within(&limit(first.seq.0 + 1), 0).await.unwrap();
        assert_eq!(past.manifest.seq(), first.seq.next());
    });
}

#[test]
fn the_checkpoint_that_the_floor_names_is_the_last_resort() {
    let store = store();
    run(&store, async {
        let (node, first) = trimmed(&store).await;
        let second = node.state.checkpoint().unwrap().0;
        overwrite(&store, &root_path(second), b"garbage".to_vec()).await;
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.digest(), node.state.digest());
        assert_eq!(recovered.checkpoint.map(|c| c.seq), Some(first.seq));
        overwrite(&store, &root_path(first.seq), b"garbage".to_vec()).await;
        let error = node.log.recover().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.message().contains("no checkpoint"), "{error}");
    });
}

#[test]
fn a_checkpoint_that_claims_to_be_newer_is_passed_over() {
    let store = store();
    run(&store, async {
        let (node, _) = trimmed(&store).await;
        let path = root_path(node.state.checkpoint().unwrap().0);
        let whole = bytes_of(&node.log, &path).await;
        for bit in 0..8 {
            let mut spoilt = whole.clone();
            spoilt[8] ^= 1 << bit;
            overwrite(&store, &path, spoilt).await;
            let recovered = node.log.recover().await.unwrap();
            assert_eq!(recovered.manifest.digest(), node.state.digest(), "bit {bit}");
        }
        // One that is newer indeed: the commit that records it says so, if its writer has made one.
        let mut newer = whole;
        newer[8..12].copy_from_slice(&(tandem_format::FORMAT_VERSION + 1).to_le_bytes());
        let length = u32::from_le_bytes(newer[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..16]), &newer[20..20 + length]);
        newer[16..20].copy_from_slice(&crc.to_le_bytes());
        overwrite(&store, &path, newer.clone()).await;
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.digest(), node.state.digest());
        // Where nothing else leads to the head, the reason is said.
        let floor = node.log.newest_floor().await.unwrap().unwrap();
        overwrite(&store, &root_path(floor.checkpoint), newer).await;
        let error = node.log.recover().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
    });
}

#[test]
fn a_number_that_was_freed_holds_no_commit() {
    let store = store();
    run(&store, async {
        // Its proposal is made before the log goes on, and sent when it was trimmed.
        let mut slow = Node::open(&store, 2).await;
        let early = slow.propose(schema("slow"));
        let (node, first) = trimmed(&store).await;
        assert_eq!(early.header.seq, Seq(1));
        let told = slow.log.append(&early).await.unwrap();
        assert!(matches!(told, Appended::Reopened), "{told:?}");
        // It stands there now, and nobody reads it: neither who begins, nor who lags, nor another slow writer.
        assert!(slow.log.read(Seq(1)).await.unwrap().is_some());
        assert_eq!(slow.log.read_run(Seq(0), 5).await.unwrap_err().kind(), ErrorKind::HistoryGone);
        let other = Node { log: slow.log.clone(), state: Manifest::empty(slow.log.database()) };
        let late = other.propose(schema("other"));
        let told = other.log.append(&late).await.unwrap();
        assert!(matches!(told, Appended::Reopened), "another's object there says nothing: {told:?}");
        assert_eq!(Node::open(&store, 3).await.state.digest(), node.state.digest());
        slow.state = slow.log.recover().await.unwrap().manifest;
        assert!(slow.state.seq() > first.seq && !slow.state.has_schema("slow"));
        slow.tick("slow").await;
    });
}

#[test]
fn an_answer_that_was_lost_before_the_log_was_trimmed_stays_unknown() {
    let store = store();
    run(&store, async {
        let slow = Node::open(&store, 2).await;
        let early = slow.propose(schema("slow"));
        // It is stored, its answer is lost, and so is every look at it until the log is trimmed and somebody's late create
        // stands at its number.
        store.set_plan(FaultPlan::none().nth(Op::Put, "log/", 1, Fault::FailAfter));
        let lost = slow.log.env().store.create(&commit_path(Seq(1)), vec![early.encoded.bytes.clone()]).await;
        assert!(matches!(lost, tandem_env::CreateOutcome::Unknown(_)), "{lost:?}");
        let mut node = Node::open(&store, 1).await;
        assert!(node.state.has_schema("slow"));
        node.tick("a").await;
        let first = checkpoint(&mut node).await;
        checkpoint(&mut node).await;
        node.log.raise_floor(floor_at(&node.log, &first, first.seq)).await.unwrap();
        delete_up_to(&node.log, first.seq).await;
        let other = Node { log: node.log.clone(), state: Manifest::empty(node.log.database()) };
        let others = other.propose(schema("other"));
        node.log.env().store.create(&commit_path(Seq(1)), vec![others.encoded.bytes.clone()]).await;
        let told = slow.log.append(&early).await.unwrap();
        assert!(matches!(told, Appended::Reopened), "its commit is in the log, so it did not lose: {told:?}");
    });
}

#[test]
fn floors_only_rise_whoever_raises_them() {
    for number in 0..30 {
        for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Conflict409, Fault::Late(2), Fault::Late(9)]
        {
            let store = store();
            run(&store, async {
                let logs =
                    [Log::open(join(&store, 1)).await.unwrap(), Log::open(join(&store, 2)).await.unwrap()];
                let calls = store.trace().len() as u64;
                store.set_plan(FaultPlan::none().call(calls + number, fault));
                let floor = |log: &Log, seq: u64| Floor {
                    database: log.database(),
                    seq: Seq(seq),
                    checkpoint: Seq(seq + 1),
                    root_hash: [1; 32],
                };
                let raise = async |log: &Log, seqs: [u64; 4]| {
                    for seq in seqs {
                        let now = log.raise_floor(floor(log, seq)).await.unwrap();
                        assert!(now.seq >= Seq(seq));
                    }
                };
                let [a, b] = &logs;
                futures::join!(raise(a, [3, 5, 20, 21]), raise(b, [4, 5, 7, 30]));
                let fresh = Log::open(join(&store, 3)).await.unwrap();
                assert_eq!(fresh.floor().await.unwrap(), Seq(30), "call {number} meets {fault:?}");
                let mut last = Seq(0);
                for k in 1.. {
                    let Some(object) = a.env().store.get(&floor_path(k)).await.unwrap() else { break };
                    let found = tandem_format::decode_floor(&object).unwrap();
                    assert!(found.seq > last, "call {number} meets {fault:?}: {found:?} after {last}");
                    last = found.seq;
                }
            });
        }
    }
}

#[test]
fn the_last_of_many_floors_is_found_in_few_steps() {
    let store = store();
    run(&store, async {
        for count in [1u64, 2, 3, 4, 7, 8, 9, 100, 257] {
            let log = Log::open(join(&store, count)).await.unwrap();
            for k in 1..=count {
                let floor =
                    Floor { database: log.database(), seq: Seq(k), checkpoint: Seq(k), root_hash: [0; 32] };
                log.env().store.create(&floor_path(k), vec![encode_floor(&floor).unwrap()]).await;
            }
            let before = store.trace().len();
            assert_eq!(log.floor().await.unwrap(), Seq(count));
            let asked = store.trace().len() - before;
            assert!(asked < 25, "{asked} requests for {count} floors");
            log.floor().await.unwrap();
            assert_eq!(store.trace().len() - before, asked + 1, "one request once it is known");
        }
    });
}

#[test]
fn a_damaged_or_foreign_floor_stops_everything() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        node.tick("a").await;
        let foreign = Floor {
            database: tandem_types::DatabaseId(7),
            seq: Seq(1),
            checkpoint: Seq(1),
            root_hash: [0; 32],
        };
        for bytes in [b"floor".to_vec(), encode_floor(&foreign).unwrap().to_vec()] {
            overwrite(&store, &floor_path(1), bytes).await;
            for error in [
                node.log.append(&node.propose(append(1))).await.unwrap_err(),
                node.log.read_run(Seq(0), 10).await.unwrap_err(),
                node.log.recover().await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                assert!(error.message().contains(&floor_path(1)), "{error}");
            }
            node.log.env().store.delete(&commit_path(Seq(2))).await.unwrap();
        }
    });
}
