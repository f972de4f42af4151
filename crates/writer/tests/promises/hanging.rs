//! A store that does not answer one node, while others commit and push what they committed.

use std::sync::Arc;
use std::time::Duration;

use futures::join;
use tandem_env::sim::{Fault, FaultPlan, FaultStore, Op};
use tandem_env::within;
use tandem_format::commit_path;
use tandem_manifest::SchemaPolicy;
use tandem_types::{ErrorKind, Result, Seq};
use tandem_writer::{Committed, Feed};

use crate::feeds::{lazy, push, reaches, write};
use crate::rows::batch;
use crate::sim::{Node, run, store};

/// Longer than anybody waits.
const HANGS: Duration = Duration::from_secs(100_000);

/// What a moment is to whoever waits.
const SOON: Duration = Duration::from_secs(5);

/// Two nodes at the same commit, of which the first pushes to the second.
async fn pair(store: &Arc<FaultStore>) -> (Node, Node, Feed) {
    let (a, b) = (Node::open(store, 1).await, lazy(store, 2).await);
    // For as long as the node lives.
    std::mem::forget(a.writer.recent().follow());
    write(&a, 0..2).await;
    let feed = b.writer.feed();
    push(&feed, &a, 1..=2).await;
    reaches(&b, 2).await;
    (a, b, feed)
}

async fn append(node: &Node, number: i64) -> Result<Committed> {
    node.append("t", SchemaPolicy::Strict, vec![batch(number, 3)]).await
}

/// What must happen in a moment.
async fn soon<T>(node: &Node, what: &str, happens: impl Future<Output = T>) -> T {
    within(&*node.env.clock, SOON, happens).await.unwrap_or_else(|| panic!("not within {SOON:?}: {what}"))
}

/// Waits until a call of a kind was begun on a commit.
async fn called(store: &Arc<FaultStore>, node: &Node, op: Op, seq: u64) {
    let path = commit_path(Seq(seq));
    let called = async {
        while !store.trace().iter().any(|call| call.op == op && call.path.ends_with(&path)) {
            node.env.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    soon(node, &format!("{op:?} of {path}"), called).await;
}

fn rows(node: &Node) -> u64 {
    node.writer.state().tables().map(|t| t.rows()).sum()
}

#[test]
fn a_create_that_hangs_holds_up_neither_others_commits_nor_its_own_write() {
    let store = store();
    run(&store, async {
        let (a, b, feed) = pair(&store).await;
        // For each of them the first who comes hangs, and that is `b`.
        let hanging = 3..=5u64;
        let plan = hanging.clone().fold(FaultPlan::none(), |plan, seq| {
            plan.nth(Op::Put, &commit_path(Seq(seq)), 1, Fault::Delay(HANGS))
        });
        store.set_plan(plan);
        let others = async {
            for seq in hanging {
                called(&store, &b, Op::Put, seq).await;
                write(&a, 10..11).await;
                push(&feed, &a, [seq]).await;
                soon(&b, "the pushed commit is there", reaches(&b, seq)).await;
            }
        };
        let (written, ()) = join!(append(&b, 50), others);
        assert_eq!(written.unwrap().seq, Seq(6));
        a.catch_up_with(&b).await;
        assert_eq!((rows(&a), a.writer.state().digest()), (18, b.writer.state().digest()));
    });
}

#[test]
fn a_commit_of_ones_own_that_a_peer_pushes_back_is_never_taken_for_anothers() {
    let store = store();
    run(&store, async {
        let (a, b, feed) = pair(&store).await;
        let path = commit_path(Seq(3));
        // It is created, its answer is lost, and the store is slow to say what is there.
        let slow = Duration::from_secs(20);
        let plan = FaultPlan::none().nth(Op::Put, &path, 1, Fault::FailAfter);
        store.set_plan(plan.nth(Op::Get, &path, 1, Fault::Delay(slow)));
        let others = async {
            called(&store, &b, Op::Get, 3).await;
            a.writer.catch_up_now().await.unwrap();
            write(&a, 10..12).await;
            push(&feed, &a, 3..=5).await;
            b.env.clock.sleep(SOON).await;
            assert_eq!(b.writer.state().seq(), Seq(2), "the store has not said yet that it is created");
        };
        let (written, ()) = join!(append(&b, 50), others);
        let written = written.unwrap();
        assert_eq!((written.seq, written.duplicate), (Seq(3), false));
        reaches(&b, 5).await;
        assert_eq!((rows(&b), b.writer.state().digest()), (15, a.writer.state().digest()));
    });
}

#[test]
fn a_read_that_hangs_hides_no_commits() {
    let store = store();
    run(&store, async {
        let (a, b, feed) = pair(&store).await;
        store.set_plan(FaultPlan::none().nth(Op::Get, &commit_path(Seq(3)), 1, Fault::Delay(HANGS)));
        let others = async {
            called(&store, &b, Op::Get, 3).await;
            write(&a, 10..13).await;
            push(&feed, &a, 3..=5).await;
            soon(&b, "the pushed commits are there", reaches(&b, 5)).await;
        };
        tokio::select! {
            biased;
            read = b.writer.catch_up_now() => panic!("the store hangs, and {read:?} is what it says"),
            () = others => {}
        }
        assert_eq!(a.writer.state().digest(), b.writer.state().digest());
    });
}

#[test]
fn a_write_that_the_store_never_answers_for_is_given_up_in_time() {
    let store = store();
    run(&store, async {
        let (a, b, feed) = pair(&store).await;
        // One of its own for each commit that somebody else makes.
        let plan = (3..200).fold(FaultPlan::none(), |plan, seq| {
            plan.nth(Op::Put, &commit_path(Seq(seq)), 1, Fault::Delay(HANGS))
        });
        store.set_plan(plan);
        let others = async {
            for seq in 3.. {
                called(&store, &b, Op::Put, seq).await;
                write(&a, 10..11).await;
                push(&feed, &a, [seq]).await;
                b.env.clock.sleep(Duration::from_secs(1)).await;
            }
        };
        let began = b.env.clock.monotonic();
        let error = tokio::select! {
            written = append(&b, 50) => written.unwrap_err(),
            () = others => unreachable!(),
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "it is known not to be committed: {error}");
        let took = b.env.clock.monotonic() - began;
        assert!((Duration::from_secs(50)..Duration::from_secs(90)).contains(&took), "{took:?}");
        assert_eq!(b.writer.state().digest(), a.writer.state().digest());
    });
}
