use std::sync::Arc;

use tandem_env::sim::FaultStore;
use tandem_format::{commit_path, part_path, root_path};
use tandem_manifest::Manifest;
use tandem_types::{Error, ErrorKind, Seq};

use super::{Node, append, bytes_of, overwrite, run, store};
use crate::{ApplyLimit, Log, Until, WrittenCheckpoint};

fn stop_kind(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NewerFormat)
}

/// Two recorded checkpoints with commits before, between and after.
pub(super) async fn with_checkpoints(store: &Arc<FaultStore>) -> (Node, [WrittenCheckpoint; 2]) {
    let mut node = Node::open(store, 1).await;
    let mut written: Vec<WrittenCheckpoint> = Vec::new();
    for n in 0..2 {
        node.commit(append(30)).await;
        node.tick(&format!("s{n}")).await;
        let one = node.log.write_checkpoint(&node.state, written.last()).await.unwrap();
        node.commit(one.record()).await;
        node.tick(&format!("r{n}")).await;
        written.push(one);
    }
    (node, written.try_into().unwrap())
}

#[test]
fn an_empty_database_is_the_empty_state() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.seq(), Seq(0));
        assert_eq!(recovered.manifest.digest(), Manifest::empty(node.log.database()).digest());
        assert!(node.log.read_run(Seq(0), 10).await.unwrap().is_empty());
    });
}

#[test]
fn the_newest_recorded_checkpoint_is_the_start() {
    let store = store();
    run(&store, async {
        let (mut node, [_, second]) = with_checkpoints(&store).await;
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.digest(), node.state.digest());
        assert_eq!(
            recovered.checkpoint.as_ref().map(|c| (c.seq, c.root_hash)),
            Some((second.seq, second.root_hash))
        );
        assert_eq!(recovered.checkpoint.unwrap().parts, second.parts);
        assert_eq!(recovered.replayed, 2);

        // One that was written and never recorded does not count.
        node.commit(append(5)).await;
        let third = node.log.write_checkpoint(&node.state, Some(&second)).await.unwrap();
        node.tick("after").await;
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.checkpoint.map(|c| c.seq), Some(second.seq));
        assert_eq!(recovered.manifest.digest(), node.state.digest());
        assert!(third.seq > second.seq);
    });
}

#[test]
fn a_damaged_checkpoint_gives_way_to_an_older_one_and_then_to_the_log() {
    let store = store();
    run(&store, async {
        let (node, [first, second]) = with_checkpoints(&store).await;
        let log = &node.log;
        let start = async || {
            let recovered = log.recover().await.unwrap();
            assert_eq!(recovered.manifest.digest(), node.state.digest());
            recovered.checkpoint.map(|c| c.seq)
        };
        let path = root_path(second.seq);
        let good = bytes_of(log, &path).await;
        for at in (0..good.len()).step_by(11) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            overwrite(&store, &path, bad).await;
            let version = (8..12).contains(&at);
            match log.recover().await {
                Ok(recovered) => {
                    assert_eq!(recovered.manifest.digest(), node.state.digest(), "byte {at}");
                    assert_eq!(recovered.checkpoint.map(|c| c.seq), Some(first.seq), "byte {at}");
                }
                // What says that it is newer is not passed over.
                Err(e) => assert!(version && e.kind() == ErrorKind::NewerFormat, "byte {at}: {e}"),
            }
        }
        overwrite(&store, &path, good[..good.len() / 2].to_vec()).await;
        assert_eq!(start().await, Some(first.seq));
        overwrite(&store, &path, good).await;
        assert_eq!(start().await, Some(second.seq));

        let own: Vec<_> = second.parts.iter().filter(|p| !first.parts.contains(p)).collect();
        log.env().store.delete(&part_path(own[0].base, &own[0].hash)).await.unwrap();
        assert_eq!(start().await, Some(first.seq));
        log.env().store.delete(&root_path(first.seq)).await.unwrap();
        assert_eq!(start().await, None);
    });
}

/// Any byte of any commit, and any length: the same state, or an error with the object's name.
#[test]
fn a_damaged_commit_is_named_and_never_believed() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        node.tick("a").await;
        node.commit(append(2)).await;
        node.tick("b").await;
        let path = commit_path(Seq(2));
        let good = bytes_of(&node.log, &path).await;
        let mut stopped = 0;
        let mut bad: Vec<Vec<u8>> = (0..good.len())
            .map(|at| {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << (at % 8);
                bytes
            })
            .collect();
        bad.extend((1..good.len()).step_by(7).map(|len| good[..len].to_vec()));
        for bytes in bad {
            overwrite(&store, &path, bytes).await;
            match node.log.recover().await {
                // Padding and payload are not the header's.
                Ok(recovered) => assert_eq!(recovered.manifest.digest(), node.state.digest()),
                Err(e) => {
                    stopped += 1;
                    assert!(stop_kind(&e) && e.message().contains(&path), "{e}");
                }
            }
        }
        assert!(stopped > 200, "{stopped}");
        overwrite(&store, &path, good).await;
        assert_eq!(node.log.recover().await.unwrap().manifest.digest(), node.state.digest());
    });
}

#[test]
fn an_empty_object_is_damage() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        node.tick("a").await;
        let path = commit_path(Seq(1));
        overwrite(&store, &path, Vec::new()).await;
        let error = node.log.recover().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.message().contains(&path), "{error}");
    });
}

#[test]
fn a_foreign_or_misplaced_commit_is_refused_by_name() {
    let (store, other) = (store(), store());
    let foreign = run(&other, async {
        let mut node = Node::open(&other, 77).await;
        node.tick("a").await;
        bytes_of(&node.log, &commit_path(Seq(1))).await
    });
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        node.tick("a").await;
        node.tick("b").await;
        let (first, second) = (commit_path(Seq(1)), commit_path(Seq(2)));
        let (good, next) = (bytes_of(&node.log, &first).await, bytes_of(&node.log, &second).await);
        for (path, bytes) in [(&first, &foreign), (&first, &next), (&second, &good)] {
            overwrite(&store, path, bytes.clone()).await;
            let error = node.log.recover().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert!(error.message().contains(path.as_str()), "{error}");
            overwrite(&store, &first, good.clone()).await;
            overwrite(&store, &second, next.clone()).await;
        }
        // Another history's commit at the right place: the chain tells.
        overwrite(&store, &first, good).await;
        let fork = Node { log: node.log.clone(), state: Manifest::empty(node.log.database()) };
        let rival = fork.propose(super::schema("rival"));
        overwrite(&store, &first, rival.encoded.bytes.to_vec()).await;
        let error = node.log.recover().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.message().contains("commit 2"), "{error}");
    });
}

#[test]
fn a_hole_is_never_skipped_and_never_the_end() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        for n in 0..12 {
            node.tick(&format!("s{n}")).await;
        }
        let log: &Log = &node.log;
        for hole in [1, 2, 5, 10, 11] {
            let path = commit_path(Seq(hole));
            let good = bytes_of(log, &path).await;
            log.env().store.delete(&path).await.unwrap();
            let run = log.read_run(Seq(0), 100).await.unwrap();
            assert_eq!(run.len() as u64, hole - 1, "nothing beyond the hole");
            let error = log.recover().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert!(error.message().contains(&path), "{error}");
            overwrite(&store, &path, good).await;
        }
        assert_eq!(log.recover().await.unwrap().manifest.digest(), node.state.digest());
    });
}

#[test]
fn a_hole_as_long_as_the_log_is_told_by_a_checkpoint() {
    let store = store();
    run(&store, async {
        let (node, [_, second]) = with_checkpoints(&store).await;
        let log = &node.log;
        for seq in 2..=node.state.seq().0 {
            log.env().store.delete(&commit_path(Seq(seq))).await.unwrap();
        }
        let error = log.recover().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.message().contains(&commit_path(Seq(2))), "{error}");
        assert!(second.seq > Seq(2));
    });
}

#[test]
fn runs_are_cut_at_their_limit() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        for n in 0..9 {
            node.tick(&format!("s{n}")).await;
        }
        for (applied, limit, first, count) in [(0, 4, 1, 4), (4, 100, 5, 5), (8, 1, 9, 1), (9, 5, 0, 0)] {
            let run = node.log.read_run(Seq(applied), limit).await.unwrap();
            assert_eq!(run.len(), count);
            assert_eq!(run.first().map_or(0, |c| c.header.seq.0), first);
        }
    });
}

fn until(until: Until) -> ApplyLimit {
    ApplyLimit { until: Some(until), ..ApplyLimit::default() }
}

/// From whichever checkpoint a limit allows, the state is the one that the log had there.
#[test]
fn recovery_ends_where_a_limit_says() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        let mut states = vec![node.state.clone()];
        let mut written: Vec<WrittenCheckpoint> = Vec::new();
        for n in 0..3 {
            for m in 0..3 {
                node.tick(&format!("s{n}{m}")).await;
                states.push(node.state.clone());
                store.clock().advance(std::time::Duration::from_secs(1));
            }
            let one = node.log.write_checkpoint(&node.state, written.last()).await.unwrap();
            node.commit(one.record()).await;
            states.push(node.state.clone());
            written.push(one);
        }
        assert_eq!(node.state.seq(), Seq(12));
        for (seq, state) in states.iter().enumerate().skip(1) {
            let seq = Seq(seq as u64);
            let newest = written.iter().rev().map(|c| c.seq).find(|c| *c <= seq);
            let at = |found: crate::Recovered| {
                assert_eq!((found.manifest.seq(), found.manifest.digest()), (seq, state.digest()));
                assert_eq!(found.checkpoint.map(|c| c.seq), newest, "for {seq}");
                assert_eq!(found.replayed, seq.0 - newest.unwrap_or_default().0);
            };
            at(node.log.recover_within(&until(Until::Seq(seq)), 0).await.unwrap());
            at(node.log.recover_within(&until(Until::Time(state.commit_time())), 0).await.unwrap());
            let delay = ApplyLimit { delay: std::time::Duration::from_secs(5), ..ApplyLimit::default() };
            at(node.log.recover_within(&delay, state.commit_time() + 5_000_000).await.unwrap());
        }
        // Between two commits, and beyond the last.
        let between = until(Until::Time(states[5].commit_time() - 1));
        assert_eq!(node.log.recover_within(&between, 0).await.unwrap().manifest.seq(), Seq(4));
        let beyond = until(Until::Seq(Seq(99)));
        assert_eq!(node.log.recover_within(&beyond, 0).await.unwrap().manifest.seq(), Seq(12));

        // Without the beginning of the log, only what checkpoints hold can be had.
        node.log.env().store.delete(&commit_path(Seq(1))).await.unwrap();
        let error = node.log.recover_within(&until(Until::Seq(Seq(2))), 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        for said in ["nothing after seq 2", "at 3,", &commit_path(Seq(1))] {
            assert!(error.message().contains(said), "{error}");
        }
        assert_eq!(
            node.log.recover_within(&until(Until::Seq(Seq(3))), 0).await.unwrap().manifest.seq(),
            Seq(3)
        );
    });
}
