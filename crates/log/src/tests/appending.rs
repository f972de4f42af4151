use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_env::sim::{Fault, FaultPlan, FaultStore, Op};
use tandem_format::Op as LogOp;
use tandem_types::{CommitId, Seq};

use super::{Node, run, schema, store};
use crate::{Appended, Log};

/// What a writer was told of a commit.
#[derive(Debug)]
struct Told {
    seq: Seq,
    id: CommitId,
    name: String,
    appended: Appended,
}

/// Creates the named schemas, one commit each.
async fn write(node: &mut Node, names: Vec<String>) -> Vec<Told> {
    let mut told = Vec::new();
    for name in names {
        loop {
            node.catch_up().await;
            if node.state.has_schema(&name) {
                // Told "unknown" before, and it had landed.
                break;
            }
            let proposal = node.propose(schema(&name));
            let (seq, id) = (proposal.header.seq, proposal.header.commit_id);
            let appended = node.log.append(&proposal).await.unwrap();
            let created = matches!(appended, Appended::Created(_));
            if let Appended::Created(hash) = appended {
                node.state = node.state.apply(&proposal.header, hash).unwrap().manifest;
            }
            told.push(Told { seq, id, name: name.clone(), appended });
            if created {
                break;
            }
        }
    }
    told
}

/// Two writers, ten commits; checks all that the log promises, and answers how many calls it took.
fn scenario(plan: FaultPlan, mild: bool, context: &str) -> u64 {
    let store = store();
    run(&store, async {
        let mut a = Node::open(&store, 1).await;
        let mut b = Node::open(&store, 2).await;
        let before = store.trace().len() as u64;
        store.set_plan(plan);
        let names = |who: &str| (0..5).map(|n| format!("{who}{n}")).collect::<Vec<_>>();
        let (mut told, other) = futures::join!(write(&mut a, names("a")), write(&mut b, names("b")));
        told.extend(other);
        let calls = store.trace().len() as u64 - before;
        store.set_plan(FaultPlan::none());
        check(&store, told, mild, context).await;
        calls
    })
}

async fn check(store: &Arc<FaultStore>, told: Vec<Told>, mild: bool, context: &str) {
    let node = Node::open(store, 3).await;
    let mut names: BTreeMap<String, Seq> = BTreeMap::new();
    let mut ids: BTreeMap<u128, Seq> = BTreeMap::new();
    let run = node.log.read_run(Seq(0), 1000).await.unwrap();
    for (commit, n) in run.iter().zip(1..) {
        assert_eq!(commit.header.seq, Seq(n), "{context}");
        assert_eq!(ids.insert(commit.header.commit_id.0, Seq(n)), None, "{context}: a commit twice");
        for op in commit.header.transactions.iter().flat_map(|t| &t.ops) {
            let LogOp::CreateSchema { name } = op else { panic!("{context}: {op:?}") };
            assert_eq!(names.insert(name.clone(), Seq(n)), None, "{context}: {name} twice");
        }
        let payload = node.log.read_payload(Seq(n)).await.unwrap();
        assert_eq!(&payload.0[..], b"some rows!", "{context}");
    }
    // Recovery walked the chain of hashes.
    assert_eq!(node.state.seq(), Seq(run.len() as u64), "{context}");
    assert_eq!(names.len(), 10, "{context}: {names:?}");
    for Told { seq, id, name, appended } in told {
        let there = ids.get(&id.0);
        match appended {
            Appended::Created(_) => {
                assert_eq!((there, names.get(&name)), (Some(&seq), Some(&seq)), "{context}: {name}");
            }
            Appended::Lost => assert_eq!(there, None, "{context}: {name} lost {seq}"),
            Appended::Unknown(_) if !mild => {}
            other => panic!("{context}: {other:?}"),
        }
    }
}

fn kinds() -> [Fault; 8] {
    [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::Conflict409,
        Fault::Throttle,
        Fault::Late(1),
        Fault::Late(4),
        Fault::Late(15),
        Fault::Delay(Duration::from_millis(120)),
    ]
}

#[test]
fn every_call_fails_once_in_every_way() {
    let calls = scenario(FaultPlan::none(), true, "no faults");
    assert!(calls > 30, "{calls}");
    // The plan counts from the store's first call, which opening used up.
    for number in 1..=calls + 20 {
        for fault in kinds() {
            let plan = FaultPlan::none().call(number, fault);
            scenario(plan, true, &format!("call {number} meets {fault:?}"));
        }
    }
}

#[test]
fn random_storms_keep_the_log_whole() {
    for seed in 1..=300u64 {
        let rate = [0.1, 0.2, 0.3][usize::try_from(seed % 3).unwrap()];
        scenario(FaultPlan::none().random(rate, seed), false, &format!("seed {seed}, rate {rate}"));
    }
}

#[test]
fn a_late_commit_and_its_successor_at_the_same_seq_exclude_each_other() {
    for late in 1..40 {
        let store = store();
        run(&store, async {
            let mut node = Node::open(&store, 1).await;
            let first = node.propose(schema("first"));
            // Until its time is over, every create fails and only the first may still land.
            let plan = FaultPlan::none().nth(Op::Put, "log/", 1, Fault::Late(200 + late));
            let fail = |plan, n| FaultPlan::nth(plan, Op::Put, "log/", n, Fault::FailBefore);
            store.set_plan((2..200).fold(plan, fail));
            let told = node.log.append(&first).await.unwrap();
            store.set_plan(FaultPlan::none());
            // Whatever it was, the node goes on at the same seq, with other bytes.
            let second = node.propose(schema("second"));
            let other = node.log.append(&second).await.unwrap();
            for _ in 0..250 {
                node.log.floor().await.unwrap();
            }
            node.state = node.log.recover().await.unwrap().manifest;
            let there = |name| node.state.has_schema(name);
            assert_eq!(there("first"), !there("second"), "{late}: {told:?} {other:?}");
            match (told, other) {
                (Appended::Created(_), Appended::Lost) => assert!(there("first")),
                (Appended::Unknown(_), Appended::Created(_)) => assert!(there("second")),
                (Appended::Unknown(_), Appended::Lost) => assert!(there("first")),
                both => panic!("{late}: {both:?}"),
            }
        });
    }
}

#[test]
fn an_outage_is_pursued_for_a_bounded_time() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        let proposal = node.propose(schema("s"));
        store.set_plan(FaultPlan::none().random(1.0, 1));
        let start = node.log.env().clock.monotonic();
        let told = node.log.append(&proposal).await.unwrap();
        let took = node.log.env().clock.monotonic() - start;
        assert!(matches!(told, Appended::Unknown(_) | Appended::Created(_)), "{told:?}");
        assert!(took < Duration::from_secs(120), "{took:?}");
    });
}

#[test]
fn who_opens_first_decides_which_database_it_is() {
    for number in 1..=12 {
        for fault in kinds() {
            let store = store();
            store.set_plan(FaultPlan::none().call(number, fault));
            run(&store, async {
                let open = |seed| Log::open(tandem_env::sim::join(&store, seed));
                let (one, other) = futures::join!(open(1), open(2));
                let (one, other) = (one.unwrap().database(), other.unwrap().database());
                assert_eq!(one, other, "call {number} meets {fault:?}");
                assert_eq!(open(3).await.unwrap().database(), one);
            });
        }
    }
}
