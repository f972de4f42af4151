//! Two nodes, concurrent clients, and the naive model of what must have come of it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tandem_env::sim::FaultStore;
use tandem_log::Log;
use tandem_manifest::{Change, ColumnSpec, SchemaPolicy, Step};
use tandem_types::{ErrorKind, Result, TableName};
use tandem_writer::{Committed, CreateTable};

use crate::rows::{batch, batch_with, part, read_all, spec};
use crate::sim::{Node, run};

/// What a client was told.
#[derive(Clone, Debug)]
pub enum Outcome {
    Acked(Committed),
    Refused(ErrorKind, String),
    /// "Unknown", or it did not wait for the answer.
    Open,
}

/// A request: the batch that it wrote, if any, with its rows, and its outcome.
#[derive(Clone, Debug)]
pub struct Done {
    pub what: &'static str,
    pub batch: Option<(i64, i64)>,
    pub outcome: Outcome,
}

fn outcome(node: &Node, answer: Result<Committed>) -> Outcome {
    match answer {
        Ok(committed) => {
            assert!(node.writer.state().seq() >= committed.seq, "a success is in the node's own state");
            Outcome::Acked(committed)
        }
        Err(e) if e.kind() == ErrorKind::OutcomeUnknown => Outcome::Open,
        Err(e) => Outcome::Refused(e.kind(), e.to_string()),
    }
}

type Client<'a> = Pin<Box<dyn Future<Output = Done> + 'a>>;

fn ddl<'a>(node: &'a Node, what: &'static str, step: Step) -> Client<'a> {
    Box::pin(async move { Done { what, batch: None, outcome: outcome(node, node.submit(step).await) } })
}

fn append<'a>(node: &'a Node, table: &'static str, number: i64, rows: i64) -> Client<'a> {
    Box::pin(async move {
        let answer = node.append(table, SchemaPolicy::Create, vec![batch(number, rows)]).await;
        Done { what: "append", batch: Some((number, rows)), outcome: outcome(node, answer) }
    })
}

fn create(table: &str) -> Step {
    Step::CreateTable { name: TableName::public(table), spec: spec(), if_not_exists: false, replace: false }
}

fn add_column(table: &str) -> Step {
    let column =
        ColumnSpec { name: "extra".to_owned(), data_type: arrow_schema::DataType::Utf8, nullable: true };
    let change = Change::AddColumn { column, if_not_exists: false };
    Step::AlterTable { name: TableName::public(table), change }
}

/// What all clients were told, and the nodes' digests at the end.
pub async fn play(store: &Arc<FaultStore>, seed: u64) -> Vec<Done> {
    let (a, b) = futures::join!(Node::open(store, seed), Node::open(store, seed ^ 0xb));
    let mut done = join_all::<Vec<Client<'_>>>(vec![
        ddl(&a, "create a", create("t")),
        ddl(&b, "create b", create("t")),
        append(&a, "auto", 1, 3),
        append(&b, "auto", 2, 4),
    ])
    .await;
    let large = async {
        // Several segments and a rest that rides along, in one transaction.
        let parts = (0..6).map(|n| part(10, n * 100, 100)).chain([part(10, 600, 5)]).collect();
        let answer = a.append("t", SchemaPolicy::Strict, parts).await;
        Done { what: "large", batch: Some((10, 605)), outcome: outcome(&a, answer) }
    };
    let unknown_column = async {
        let answer = b.append("t", SchemaPolicy::Strict, vec![batch_with(11, 3, "typo")]).await;
        Done { what: "unknown column", batch: Some((11, 3)), outcome: outcome(&b, answer) }
    };
    let impatient = async {
        let client = b.append("t", SchemaPolicy::Strict, vec![batch(12, 3)]);
        tandem_env::within(&*b.env.clock, Duration::from_millis(5), client).await;
        Done { what: "impatient", batch: Some((12, 3)), outcome: Outcome::Open }
    };
    let wider = async {
        let answer = b.append("auto", SchemaPolicy::Add, vec![batch_with(13, 3, "more")]).await;
        Done { what: "wider", batch: Some((13, 3)), outcome: outcome(&b, answer) }
    };
    let replaced = async {
        let create = CreateTable { spec: spec(), if_not_exists: false, replace: true };
        let answer = a.append_to("own", SchemaPolicy::Strict, Some(create), vec![batch(14, 9)]).await;
        Done { what: "own table", batch: Some((14, 9)), outcome: outcome(&a, answer) }
    };
    done.extend(
        join_all::<Vec<Client<'_>>>(vec![
            append(&a, "t", 3, 5),
            append(&b, "t", 4, 6),
            Box::pin(large),
            ddl(&a, "add a", add_column("t")),
            ddl(&b, "add b", add_column("t")),
            Box::pin(unknown_column),
            append(&a, "auto", 5, 2),
            append(&b, "auto", 6, 1),
            Box::pin(impatient),
            Box::pin(wider),
            Box::pin(replaced),
        ])
        .await,
    );
    done.extend(join_all(vec![append(&a, "t", 7, 2), append(&b, "t", 8, 2)]).await);
    done
}

/// Compares what clients were told with what the store holds.
pub async fn check(store: &Arc<FaultStore>, done: &[Done], context: &str) {
    store.set_plan(tandem_env::sim::FaultPlan::none());
    let (a, b) = (Node::open(store, 901).await, Node::open(store, 902).await);
    // What may still land has landed with these: both nodes commit once more.
    a.append("auto", SchemaPolicy::Create, vec![batch(90, 1)]).await.unwrap();
    b.append("auto", SchemaPolicy::Create, vec![batch(91, 1)]).await.unwrap();
    a.catch_up_with(&b).await;
    let (one, other) = (a.writer.state(), b.writer.state());
    assert_eq!((one.seq(), one.digest()), (other.seq(), other.digest()), "{context}");
    let log = Log::open(tandem_env::sim::join(store, 903)).await.unwrap();
    let state = log.recover().await.unwrap().manifest;
    assert_eq!((one.seq(), one.digest()), (state.seq(), state.digest()), "{context}");

    let mut found = read_all(&log, &state).await;
    for (number, rows) in [(90, 1), (91, 1)] {
        assert_eq!(found.remove(&number).map(|f| f.rows.len()), Some(rows), "{context}");
    }
    for request in done {
        let Some((number, rows)) = request.batch else { continue };
        let there = found.remove(&number);
        if let Some(there) = &there {
            let whole = (0..rows).map(|row| (row, 1)).collect();
            assert_eq!(there.rows, whole, "{context}: {request:?} is there, but not once and whole");
            assert_eq!(there.places.len(), 1, "{context}: {request:?} is torn");
        }
        match &request.outcome {
            Outcome::Acked(committed) => {
                let there = there.unwrap_or_else(|| panic!("{context}: {request:?} was acked and is absent"));
                assert_eq!(there.places[0].1, committed.seq, "{context}: {request:?}");
                assert_eq!(committed.rows, rows as u64, "{context}: {request:?}");
            }
            Outcome::Refused(..) => assert_eq!(there, None, "{context}: {request:?} was refused"),
            Outcome::Open => {}
        }
    }
    assert!(found.is_empty(), "{context}: rows that nobody sent: {found:?}");
}

/// What every client must be told where the store fails at most for a moment.
pub fn all_answered(done: &[Done], context: &str) {
    for request in done {
        let right = match (request.what, &request.outcome) {
            ("impatient", _) => true,
            ("unknown column", Outcome::Refused(kind, why)) => {
                *kind == ErrorKind::NotFound && why.contains("typo") && why.contains("table t")
            }
            ("create a" | "create b" | "add a" | "add b", Outcome::Refused(kind, _)) => {
                *kind == ErrorKind::AlreadyExists
            }
            (_, Outcome::Acked(_)) => true,
            _ => false,
        };
        assert!(right, "{context}: {request:?}");
    }
    let acked = |what: &str| done.iter().any(|d| d.what == what && matches!(d.outcome, Outcome::Acked(_)));
    assert!(acked("create a") != acked("create b"), "{context}: one of two creates wins");
    assert!(acked("add a") || acked("add b"), "{context}: the column is added");
}

#[test]
fn without_faults_everything_is_answered_and_true() {
    let store = crate::sim::store();
    run(&store, async {
        let done = play(&store, 1).await;
        all_answered(&done, "no faults");
        check(&store, &done, "no faults").await;
    });
}
