//! Many clients of one node, and nodes that follow each other.

use std::time::Duration;

use futures::future::{join, join_all};
use tandem_env::sim::{Fault, FaultPlan, Op};
use tandem_env::within;
use tandem_manifest::{SchemaPolicy, Step};
use tandem_types::{ErrorKind, Seq, TableName};
use tandem_writer::WriterConfig;

use crate::rows::{batch, batch_with, read_all, spec};
use crate::sim::{Node, config, run, store};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn many_appends_share_few_commits() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        node.append("t", SchemaPolicy::Create, vec![batch(99, 1)]).await.unwrap();
        store.set_plan(FaultPlan::none().nth(Op::Put, "log/", 1, Fault::Delay(ms(50))));
        let appends = (0..60).map(|n| node.append("t", SchemaPolicy::Strict, vec![batch(n, 3)]));
        let answers = join_all(appends).await;
        let seqs: Vec<Seq> = answers.into_iter().map(|a| a.unwrap().seq).collect();
        let commits = seqs.iter().max().unwrap().0 - 1;
        // Bounded by what rides in one commit, not by the number of requests.
        assert!((2..=20).contains(&commits), "{commits} commits for 60 appends");
        let found = read_all(&node.log, &node.writer.state()).await;
        for (n, seq) in (0..60).zip(seqs) {
            assert_eq!(found[&n].places, [("t".to_owned(), seq)]);
            assert_eq!(found[&n].rows.len(), 3);
        }
    });
}

#[test]
fn a_window_gathers_company() {
    let store = store();
    run(&store, async {
        let config = WriterConfig { window: ms(40), ..config() };
        let node = Node::open_with(&store, 1, config).await;
        let later = async {
            node.env.clock.sleep(ms(10)).await;
            node.append("t", SchemaPolicy::Create, vec![batch(2, 1)]).await
        };
        let (one, other) = join(node.append("t", SchemaPolicy::Create, vec![batch(1, 1)]), later).await;
        assert_eq!(one.unwrap().seq, other.unwrap().seq);
    });
}

#[test]
fn a_bad_request_harms_nobody_in_its_group() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        let create = |if_not_exists| Step::CreateTable {
            name: TableName::public("t"),
            spec: spec(),
            if_not_exists,
            replace: false,
        };
        store.set_plan(FaultPlan::none().nth(Op::Put, "log/", 1, Fault::Delay(ms(20))));
        let (first, (made, again, same, bad, good)) =
            futures::join!(node.submit(create_schema("s")), async {
                node.env.clock.sleep(ms(5)).await;
                futures::join!(
                    node.submit(create(false)),
                    node.submit(create(false)),
                    node.submit(create(true)),
                    node.append("t", SchemaPolicy::Strict, vec![batch_with(1, 1, "typo")]),
                    node.append("t", SchemaPolicy::Strict, vec![batch(2, 2)]),
                )
            });
        assert_eq!(first.unwrap().seq, Seq(1));
        assert_eq!(made.unwrap().seq, Seq(2));
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(same.unwrap().seq, Seq(2), "true because of its own group's commit");
        assert!(bad.unwrap_err().message().contains("typo"));
        assert_eq!(good.unwrap().seq, Seq(2));
        let found = read_all(&node.log, &node.writer.state()).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), [&2]);
    });
}

fn create_schema(name: &str) -> Step {
    Step::CreateSchema { name: name.to_owned(), if_not_exists: false }
}

#[test]
fn what_there_was_nothing_to_do_for_answers_the_head() {
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        a.submit(create_schema("s")).await.unwrap();
        let idle = Step::CreateSchema { name: "s".to_owned(), if_not_exists: true };
        let head = b.submit(idle.clone()).await.unwrap();
        assert_eq!((head.seq, head.rows), (Seq(1), 0));
        // The other node cannot know yet, and must not answer from its own past.
        a.submit(Step::DropSchema { name: "s".to_owned(), if_exists: false }).await.unwrap();
        let made = b.submit(idle).await.unwrap();
        assert_eq!(made.seq, Seq(3));
        let error = a.submit(create_schema("s")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn a_small_queue_makes_senders_wait_and_loses_nothing() {
    let store = store();
    run(&store, async {
        let config = WriterConfig { queue_bytes: 12 << 10, ..config() };
        let node = Node::open_with(&store, 1, config).await;
        node.append("t", SchemaPolicy::Create, vec![batch(99, 1)]).await.unwrap();
        store.set_plan(FaultPlan::none().nth(Op::Put, "log/", 1, Fault::Delay(ms(100))));
        let appends = (0..40).map(|n| node.append("t", SchemaPolicy::Strict, vec![batch(n, 2)]));
        let answers: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
        // Two requests fit at a time, so groups stay that small.
        assert!(answers.iter().map(|a| a.seq).max().unwrap() >= Seq(1 + 20), "{answers:?}");
        assert_eq!(read_all(&node.log, &node.writer.state()).await.len(), 41);
    });
}

#[test]
fn a_client_that_goes_away_leaves_all_or_nothing() {
    for wait in 0..40 {
        let store = store();
        run(&store, async {
            let node = Node::open(&store, 1).await;
            node.append("t", SchemaPolicy::Create, vec![batch(99, 1)]).await.unwrap();
            let slow = |plan, n| FaultPlan::nth(plan, Op::Put, "", n, Fault::Delay(ms(15)));
            store.set_plan((1..30).fold(FaultPlan::none(), slow));
            let rows: i64 = if wait % 2 == 0 { 3 } else { 1_000 };
            let client = node.append("t", SchemaPolicy::Strict, vec![batch(1, rows)]);
            let answer = within(&*node.env.clock, ms(wait * 5), client).await;
            // Whatever it left behind is done before the next commit.
            node.append("t", SchemaPolicy::Strict, vec![batch(2, 1)]).await.unwrap();
            let found = read_all(&node.log, &node.writer.state()).await;
            match found.get(&1) {
                None => assert!(answer.is_none(), "acked and absent after {wait}"),
                Some(found) => assert_eq!(found.rows.len() as i64, rows, "torn after {wait}"),
            }
        });
    }
}

#[test]
fn an_idle_node_follows_and_a_dropped_one_ends() {
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        a.append("t", SchemaPolicy::Create, vec![batch(1, 3)]).await.unwrap();
        assert_eq!(b.writer.state().seq(), Seq(0));
        b.catch_up_with(&a).await;
        assert_eq!(b.writer.state().digest(), a.writer.state().digest());
        assert_eq!(b.writer.logged_bytes(), a.writer.logged_bytes());
        assert!(a.writer.logged_bytes() > 0);

        let mut last = b.writer.watch();
        drop(b);
        // The commit task holds the only other sender: it ends.
        while last.changed().await.is_ok() {}
    });
}

#[test]
fn rows_just_written_are_in_memory_under_their_key() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        node.append("t", SchemaPolicy::Create, vec![batch(99, 1)]).await.unwrap();
        let appends = (0..10).map(|n| node.append("t", SchemaPolicy::Strict, vec![batch(n, n + 1)]));
        join_all(appends).await.into_iter().for_each(|a| assert!(a.is_ok()));
        let state = node.writer.state();
        let table = state.require(&TableName::public("t")).unwrap();
        let stored = crate::rows::sections(&node.log, &state, "t").await;
        for (tail, (_, _, stored)) in table.tail().zip(stored) {
            let cached = node.writer.tail().get(table.id(), tail.key).unwrap();
            assert_eq!(cached.batches, [stored], "{:?}", tail.key);
        }
    });
}

#[test]
fn a_damaged_log_stops_the_writer_with_its_name() {
    use object_store::ObjectStoreExt;
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        a.append("t", SchemaPolicy::Create, vec![batch(1, 3)]).await.unwrap();
        let path = object_store::path::Path::from(tandem_format::commit_path(Seq(1)));
        let mut bytes = store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[40] ^= 1;
        store.put(&path, bytes.into()).await.unwrap();
        let error = b.append("t", SchemaPolicy::Create, vec![batch(2, 3)]).await.unwrap_err();
        assert!(error.message().contains("log/00000000000000000001.commit"), "{error}");
        let stopped = b.writer.stopped().unwrap();
        assert_eq!(stopped.kind(), ErrorKind::Damaged, "{stopped}");
        assert!(!b.writer.is_running());
        let after = b.append("t", SchemaPolicy::Create, vec![batch(2, 3)]).await.unwrap_err();
        assert_eq!(after.kind(), ErrorKind::Damaged, "{after}");
    });
}
