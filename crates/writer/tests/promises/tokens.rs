//! A client's token commits once, wherever and however often it is sent.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use tandem_env::sim::{Fault, FaultPlan, FaultStore};
use tandem_format::{ForeignToken, TransactionToken};
use tandem_log::Log;
use tandem_manifest::{SchemaPolicy, Step};
use tandem_types::{ErrorKind, Result, TableName};
use tandem_writer::{Committed, WriteToken};

use crate::appends::table;
use crate::rows::{batch, read_all, ts_type};
use crate::sim::{Node, run, store};

fn client(text: &str, digest: &[u8]) -> WriteToken {
    WriteToken::Client { token: ForeignToken { text: text.to_owned(), base: None }, digest: digest.to_vec() }
}

async fn write(node: &Node, token: WriteToken, number: i64) -> Result<Committed> {
    node.append_under(token, "t", SchemaPolicy::Create, None, vec![batch(number, 5)]).await
}

/// Sends until an answer comes that settles the write, to one node after the other.
async fn insist(nodes: &[&Node], text: &str, number: i64) -> Committed {
    for attempt in 0..60 {
        let node = nodes[attempt % nodes.len()];
        match write(node, client(text, &number.to_be_bytes()), number).await {
            Ok(committed) => return committed,
            Err(e) => assert!(
                matches!(e.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable),
                "{text} at attempt {attempt}: {e}"
            ),
        }
    }
    panic!("{text}: no answer in 60 attempts");
}

/// Every batch is there once, at the place that all who sent it were told.
async fn check(store: &Arc<FaultStore>, told: &[(i64, Vec<Committed>)], context: &str) {
    store.set_plan(FaultPlan::none());
    let node = Node::open(store, 901).await;
    node.append("end", SchemaPolicy::Create, vec![batch(900, 1)]).await.unwrap();
    let log = Log::open(tandem_env::sim::join(store, 903)).await.unwrap();
    let state = log.recover().await.unwrap().manifest;
    assert_eq!(state.digest(), node.writer.state().digest(), "{context}");
    let found = read_all(&log, &state).await;
    for (number, answers) in told {
        let there = &found[number];
        assert_eq!(there.rows, (0..5).map(|row| (row, 1)).collect(), "{context}: batch {number}");
        let places: Vec<_> = answers.iter().map(|c| (c.seq, c.rows)).collect();
        assert_eq!(places, vec![(there.places[0].1, 5); answers.len()], "{context}: batch {number}");
    }
    assert_eq!(found.len(), told.len() + 1, "{context}: {found:?}");
}

/// Two nodes get the same tokens at once, while each writes what the other does not.
async fn contend(store: &Arc<FaultStore>, seed: u64) -> Vec<(i64, Vec<Committed>)> {
    let (a, b) = futures::join!(Node::open(store, seed), Node::open(store, seed ^ 0xb));
    let (ab, ba) = ([&a, &b], [&b, &a]);
    let both = async |number: i64| {
        let text = format!("shared {number}");
        let (one, other) = futures::join!(insist(&ab, &text, number), insist(&ba, &text, number));
        (number, vec![one, other])
    };
    let alone = async |nodes: &[&Node; 2], number: i64| {
        (number, vec![insist(nodes, &format!("own {number}"), number).await])
    };
    let mut told = Vec::new();
    let (one, two, three, four) = futures::join!(both(1), both(2), alone(&ab, 11), alone(&ba, 12));
    told.extend([one, two, three, four]);
    // Once more, long after: to the node that may not have committed it.
    for (number, answers) in told.iter_mut().filter(|(number, _)| *number < 10) {
        let again = insist(&ba, &format!("shared {number}"), *number).await;
        assert!(again.duplicate, "seed {seed}: {again:?}");
        answers.push(again);
    }
    told
}

#[test]
fn a_token_sent_to_two_nodes_commits_once() {
    let store = store();
    run(&store, async {
        let told = contend(&store, 3).await;
        for (number, answers) in told.iter().filter(|(number, _)| *number < 10) {
            let first = answers.iter().filter(|c| !c.duplicate).count();
            assert_eq!(first, 1, "{number}: {answers:?}");
        }
        check(&store, &told, "no faults").await;
    });
}

#[test]
fn every_call_fails_once_and_tokens_commit_once() {
    let play = |plan: FaultPlan, context: &str| {
        let store = store();
        store.set_plan(plan);
        run(&store, async {
            let told = contend(&store, 5).await;
            let calls = store.trace().len() as u64;
            check(&store, &told, context).await;
            calls
        })
    };
    let calls = play(FaultPlan::none(), "no faults");
    assert!(calls > 20, "{calls}");
    let delay = Fault::Delay(Duration::from_millis(150));
    for fault in
        [Fault::FailBefore, Fault::FailAfter, Fault::Conflict409, Fault::Throttle, Fault::Late(4), delay]
    {
        for number in 1..=calls {
            play(FaultPlan::none().call(number, fault), &format!("call {number} of {calls} meets {fault:?}"));
        }
    }
}

#[test]
fn storms_do_not_double_or_lose_a_token() {
    for seed in 1..=60 {
        let rate = [0.05, 0.2, 0.4][usize::try_from(seed % 3).unwrap()];
        let store = store();
        store.set_plan(FaultPlan::none().random(rate, seed));
        run(&store, async {
            let told = contend(&store, seed).await;
            check(&store, &told, &format!("seed {seed}, rate {rate}")).await;
        });
    }
}

#[test]
fn in_one_group_the_second_is_a_duplicate_of_the_first() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        node.submit(table("t", &[("ts", ts_type())])).await.unwrap();
        let before = node.writer.state().seq();
        let send = |digest: &'static [u8], number| write(&node, client("k", digest), number);
        let (first, second, other) = futures::join!(send(b"d", 1), send(b"d", 1), send(b"e", 2));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.seq, second.seq), (before.next(), before.next()));
        assert_eq!((first.duplicate, second.duplicate, second.rows), (false, true, 5));
        let error = other.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TokenReused);
        assert!(error.message().contains(&format!("committed at {}", first.seq)), "{error}");
        assert_eq!(node.writer.state().seq(), first.seq);
    });
}

#[test]
fn a_token_survives_as_many_rebases_as_it_takes() {
    let store = store();
    run(&store, async {
        let nodes = join_all((0..5).map(|n| Node::open(&store, 40 + n))).await;
        // All write at once, again and again: most attempts are lost to others.
        let clients = nodes.iter().enumerate().map(async |(n, node)| {
            let mut told = Vec::new();
            for round in 0..6 {
                let number = (n * 10 + round) as i64;
                told.push((number, vec![insist(&[node], &format!("c{number}"), number).await]));
            }
            told
        });
        let told: Vec<_> = join_all(clients).await.into_iter().flatten().collect();
        assert!(told.iter().all(|(_, answers)| !answers[0].duplicate));
        check(&store, &told, "five writers").await;
    });
}

#[test]
fn a_repeat_is_a_success_even_when_the_table_has_gone() {
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        let strict = async |node: &Node, digest: &[u8]| {
            let batches = vec![batch(1, 5)];
            node.append_under(client("k", digest), "t", SchemaPolicy::Strict, None, batches).await
        };
        a.append("t", SchemaPolicy::Create, vec![batch(0, 1)]).await.unwrap();
        b.catch_up_with(&a).await;
        let first = strict(&a, b"d").await.unwrap();
        let name = TableName::public("t");
        a.submit(Step::DropTable { name: name.clone(), if_exists: false }).await.unwrap();
        // With a column that rows of that name do not fit.
        a.submit(table("t", &[("ts", ts_type()), ("id", arrow_schema::DataType::Boolean)])).await.unwrap();
        for node in [&a, &b] {
            let again = strict(node, b"d").await.unwrap();
            assert_eq!(again, Committed { duplicate: true, ..first });
            assert_eq!(strict(node, b"other").await.unwrap_err().kind(), ErrorKind::TokenReused);
        }
        // A statement as well.
        let drop = || vec![Step::DropTable { name: name.clone(), if_exists: false }];
        let state = a.writer.state().seq();
        let done = a.writer.submit(state, drop(), client("drop", b"")).await.unwrap();
        let again = b.writer.submit(state, drop(), client("drop", b"")).await.unwrap();
        assert_eq!(again, Committed { duplicate: true, ..done });
    });
}

#[test]
fn a_write_that_cannot_be_prepared_asks_the_head_for_its_token() {
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        let flag = ("id", arrow_schema::DataType::Boolean);
        let fit = || vec![batch(1, 5)];
        a.append("t", SchemaPolicy::Create, fit()).await.unwrap();
        let token = || client("k", b"d");
        let first = a.append_under(token(), "t", SchemaPolicy::Strict, None, fit()).await.unwrap();
        a.submit(Step::DropTable { name: TableName::public("t"), if_exists: false }).await.unwrap();
        a.submit(table("t", &[("ts", ts_type()), flag])).await.unwrap();
        b.catch_up_with(&a).await;
        // A client that is told "no" and one that was committed long ago are told apart.
        let again = b.append_under(token(), "t", SchemaPolicy::Strict, None, fit()).await.unwrap();
        assert_eq!(again, Committed { duplicate: true, ..first });
        let other = b.append_under(client("l", b"d"), "t", SchemaPolicy::Strict, None, fit()).await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::SchemaConflict);
    });
}

#[test]
fn equal_content_commits_once_where_that_was_asked_for() {
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        let content = |digest: &[u8]| WriteToken::Streamed {
            token: TransactionToken::Content { window: 600_000_000 },
            digest: Arc::new(OnceLock::from(digest.to_vec())),
        };
        let (one, other) = futures::join!(write(&a, content(b"d"), 1), write(&b, content(b"d"), 1));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.seq, other.seq);
        assert_ne!(one.duplicate, other.duplicate);
        assert!(!write(&b, content(b"e"), 2).await.unwrap().duplicate);
        store.clock().advance(Duration::from_secs(700));
        // The log's age moves with its commits.
        for number in [3, 4] {
            a.append("t", SchemaPolicy::Create, vec![batch(number, 1)]).await.unwrap();
            store.clock().advance(Duration::from_secs(1));
        }
        assert!(!write(&a, content(b"d"), 5).await.unwrap().duplicate);
    });
}
