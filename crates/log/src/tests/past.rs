use tandem_types::{ErrorKind, Seq};

use super::recovering::with_checkpoints;
use super::{Node, append, run, store};
use crate::Log;

#[test]
fn every_state_of_the_past_is_what_it_was() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        let mut states = vec![node.state.clone()];
        for n in 0..6 {
            node.commit(append(3)).await;
            states.push(node.state.clone());
            node.tick(&format!("s{n}")).await;
            states.push(node.state.clone());
        }
        for state in &states {
            let found = node.log.state_at(state.seq(), None).await.unwrap();
            assert_eq!((found.seq(), found.digest()), (state.seq(), state.digest()));
            for near in &states {
                let found = node.log.state_at(state.seq(), Some(near)).await.unwrap();
                assert_eq!(found.digest(), state.digest(), "from {}", near.seq());
            }
        }
        let beyond = node.log.state_at(Seq(99), states.last()).await.unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::Unavailable, "{beyond}");
    });
}

#[test]
fn checkpoints_are_started_from_also_where_they_are_not_the_newest() {
    let store = store();
    run(&store, async {
        let (node, [first, second]) = with_checkpoints(&store).await;
        for (seq, start) in [
            (first.seq, first.seq),
            (Seq(first.seq.0 + 1), first.seq),
            (second.seq, second.seq),
            (node.state.seq(), second.seq),
        ] {
            let before = store.trace().len();
            let found = node.log.state_at(seq, None).await.unwrap();
            assert_eq!(found.seq(), seq);
            let replayed = node.log.recover().await.unwrap();
            assert_eq!(replayed.manifest.digest(), node.state.digest());
            let root = tandem_format::root_path(start);
            assert!(store.trace().iter().skip(before).any(|call| call.path == root), "{seq} from {start}");
        }
        let early = node.log.state_at(Seq(first.seq.0 - 1), None).await.unwrap();
        assert_eq!(early.seq(), Seq(first.seq.0 - 1), "from the beginning of the log");
    });
}

#[test]
fn a_time_lies_between_two_commits() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        let mut moments = vec![(Seq(0), i64::MIN)];
        for n in 0..60 {
            node.tick(&format!("s{n}")).await;
            moments.push((node.state.seq(), node.state.commit_time()));
        }
        let (low, high) = (moments[0], moments[60]);
        for pair in moments.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            for time in [a.1, b.1 - 1] {
                let before = store.trace().len();
                let found = node.log.moments_around(time, low, high).await.unwrap();
                assert_eq!(found, (a, b));
                assert!(store.trace().len() - before <= 16, "two rounds, not all commits");
            }
        }
        let between = node.log.moments_around(moments[7].1, moments[7], moments[8]).await.unwrap();
        assert_eq!(between, (moments[7], moments[8]), "nothing to search");
        node.log.env().store.delete(&tandem_format::commit_path(Seq(1))).await.unwrap();
        let gone = node.log.moments_around(moments[1].1, low, high).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Unavailable);
        assert!(gone.message().contains("commit 1 "), "{gone}");
    });
}

#[test]
fn a_state_within_a_commit_has_what_came_before_in_it() {
    let store = store();
    run(&store, async {
        let mut node = Node::open(&store, 1).await;
        node.tick("a").await;
        let before = node.state.clone();
        let first = node.propose(super::schema("b"));
        let second = node.propose(super::schema("c"));
        let both = [first.header.transactions, second.header.transactions].concat();
        let proposal = node.proposal(both);
        node.log.append(&proposal).await.unwrap();
        node.catch_up().await;
        let commit = node.log.read(node.state.seq()).await.unwrap().unwrap();
        let has = |transaction| {
            let state = Log::state_within(&before, &commit, transaction).unwrap();
            assert_eq!(state.seq(), node.state.seq());
            [state.has_schema("b"), state.has_schema("c")]
        };
        assert_eq!([has(0), has(1), has(2)], [[false, false], [true, false], [true, true]]);
    });
}
