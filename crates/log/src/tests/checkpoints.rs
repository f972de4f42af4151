use tandem_env::sim::{Fault, FaultPlan};
use tandem_format::{commit_path, part_path, root_path};
use tandem_manifest::{Manifest, Step};
use tandem_types::ErrorKind;

use super::{Node, append, run, schema, store};
use crate::WrittenCheckpoint;

/// A state of several parts.
async fn grown(store: &std::sync::Arc<tandem_env::sim::FaultStore>) -> Node {
    let mut node = Node::open(store, 1).await;
    for _ in 0..4 {
        node.commit(append(2_000)).await;
    }
    node
}

fn record(written: &WrittenCheckpoint) -> Step {
    written.record()
}

#[test]
fn a_checkpoint_holds_the_state_and_the_next_one_only_writes_what_changed() {
    let store = store();
    run(&store, async {
        let mut node = grown(&store).await;
        let first = node.log.write_checkpoint(&node.state, None).await.unwrap();
        assert!(first.parts.len() > 3, "{}", first.parts.len());
        let (loaded, hash) = node.log.load_checkpoint(first.seq).await.unwrap();
        assert_eq!((loaded.digest(), hash), (node.state.digest(), first.root_hash));
        node.commit(record(&first)).await;

        node.commit(append(3)).await;
        let second = node.log.write_checkpoint(&node.state, Some(&first)).await.unwrap();
        assert!(
            second.bytes_written * 2 < first.bytes_written,
            "{} after {}",
            second.bytes_written,
            first.bytes_written
        );
        let kept = second.parts.iter().filter(|part| first.parts.contains(part)).count();
        assert!(kept + 2 >= first.parts.len(), "{kept} of {}", first.parts.len());
        assert_eq!(node.log.load_checkpoint(second.seq).await.unwrap().0.digest(), node.state.digest());

        node.commit(record(&second)).await;
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.digest(), node.state.digest());
        assert_eq!(recovered.checkpoint.unwrap().seq, second.seq);
        assert_eq!((recovered.replayed, recovered.replayed_bytes), (1, 0));
        // And from nothing but the log.
        let replayed = node.log.read_run(tandem_types::Seq(0), 100).await.unwrap();
        let fold = |state: Manifest, c: &crate::Commit| state.apply(&c.header, c.hash).unwrap().manifest;
        let state = replayed.iter().fold(Manifest::empty(node.log.database()), fold);
        assert_eq!((state.seq(), state.digest()), (node.state.seq(), node.state.digest()));
    });
}

#[test]
fn writing_one_survives_every_single_fault() {
    let calls = |plan: FaultPlan, context: &str| {
        let store = store();
        run(&store, async {
            let mut node = Node::open(&store, 1).await;
            node.commit(append(20)).await;
            node.tick("s").await;
            let before = store.trace().len() as u64;
            store.set_plan(plan);
            let written = node.log.write_checkpoint(&node.state, None).await;
            let calls = (before, store.trace().len() as u64);
            let written = written.unwrap_or_else(|e| panic!("{context}: {e}"));
            store.set_plan(FaultPlan::none());
            node.commit(record(&written)).await;
            let recovered = node.log.recover().await.unwrap();
            assert_eq!(recovered.manifest.digest(), node.state.digest(), "{context}");
            assert_eq!(recovered.checkpoint.map(|c| c.seq), Some(written.seq), "{context}");
            calls
        })
    };
    let (first, last) = calls(FaultPlan::none(), "no faults");
    for number in first + 1..=last {
        for fault in
            [Fault::FailBefore, Fault::FailAfter, Fault::Conflict409, Fault::Throttle, Fault::Late(2)]
        {
            calls(FaultPlan::none().call(number, fault), &format!("call {number} meets {fault:?}"));
        }
    }
}

#[test]
fn two_nodes_that_write_the_same_one_agree() {
    let store = store();
    run(&store, async {
        let mut node = grown(&store).await;
        let first = node.log.write_checkpoint(&node.state, None).await.unwrap();
        node.commit(record(&first)).await;
        node.commit(append(1)).await;
        let other = Node::open(&store, 2).await;
        // One reuses parts, the other knows of none: their roots differ, and the one that stands is taken.
        let bare = WrittenCheckpoint { parts: Vec::new(), ..first.clone() };
        let (a, b) = futures::join!(
            node.log.write_checkpoint(&node.state, Some(&first)),
            other.log.write_checkpoint(&other.state, Some(&bare)),
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((a.seq, a.root_hash, &a.parts), (b.seq, b.root_hash, &b.parts));
        let again = node.log.write_checkpoint(&node.state, Some(&first)).await.unwrap();
        assert_eq!((again.root_hash, again.parts), (a.root_hash, a.parts));
    });
}

#[test]
fn one_goes_on_from_the_newest_that_is_recorded_whoever_wrote_it() {
    let store = store();
    run(&store, async {
        let mut node = grown(&store).await;
        let mut other = Node::open(&store, 2).await;
        let first = node.log.write_checkpoint(&node.state, None).await.unwrap();
        node.commit(record(&first)).await;
        node.commit(append(1)).await;
        // Two that take turns: neither has written the one before its own.
        for turn in 0..4 {
            let (writer, next) =
                if turn % 2 == 0 { (&mut other, &mut node) } else { (&mut node, &mut other) };
            writer.catch_up().await;
            let before = store.trace().len();
            let written = writer.log.write_checkpoint(&writer.state, None).await.unwrap();
            let calls = store.trace();
            let whole_log =
                calls.iter().skip(before).any(|call| call.path == commit_path(tandem_types::Seq(1)));
            assert!(!whole_log, "turn {turn} reads the log from its beginning");
            assert!(
                written.bytes_written * 2 < first.bytes_written,
                "turn {turn}: {}",
                written.bytes_written
            );
            writer.commit(record(&written)).await;
            next.catch_up().await;
            assert_eq!(next.state.checkpoint(), Some((written.seq, written.root_hash)));
            next.commit(append(1)).await;
        }
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.seq(), node.state.seq().max(other.state.seq()));
    });
}

#[test]
fn one_that_is_damaged_does_not_stop_the_next() {
    let damaged: [fn(&WrittenCheckpoint) -> String; 2] = [
        |written| root_path(written.seq),
        |written| written.parts.first().map(|part| part_path(part.base, &part.hash)).unwrap(),
    ];
    for path in damaged {
        let store = store();
        run(&store, async {
            let mut node = grown(&store).await;
            let first = node.log.write_checkpoint(&node.state, None).await.unwrap();
            node.commit(record(&first)).await;
            node.commit(append(1)).await;
            super::overwrite(&store, &path(&first), b"garbage".to_vec()).await;
            for previous in [None, Some(&first)] {
                let written = node.log.write_checkpoint(&node.state, previous).await.unwrap();
                let (loaded, _) = node.log.load_checkpoint(written.seq).await.unwrap();
                assert_eq!(loaded.digest(), node.state.digest());
                node.commit(append(1)).await;
            }
        });
    }
}

#[test]
fn a_state_that_the_log_does_not_give_is_not_recorded() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        node.tick("a").await;
        // What a fault in memory might make of it.
        let proposal = node.propose(schema("never committed"));
        let other = node.state.apply(&proposal.header, proposal.encoded.hash).unwrap().manifest;
        node.tick("b").await;
        let error = node.log.write_checkpoint(&other, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        // The root that was written misleads nobody.
        let recovered = node.log.recover().await.unwrap();
        assert_eq!(recovered.manifest.digest(), node.state.digest());
        assert!(recovered.checkpoint.is_none());
        let blocked = node.log.write_checkpoint(&node.state, None).await.unwrap_err();
        assert!(blocked.message().contains(&root_path(node.state.seq())), "{blocked}");
        node.tick("c").await;
        node.log.write_checkpoint(&node.state, None).await.unwrap();
    });
}
