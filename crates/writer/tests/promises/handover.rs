//! Hand-overs: whatever becomes of the answers, every write is there once, in its stream's order, and no refusal is false.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tandem_env::sim::{Fault, FaultPlan, FaultStore, Op, SimChance};
use tandem_env::{Chance, Clock};
use tandem_format::{ForeignToken, Primary, SectionKey};
use tandem_log::Log;
use tandem_manifest::{Change, ColumnSpec, SchemaPolicy, Step};
use tandem_types::{Epoch, Error, ErrorKind, Result, Seq, TableName};
use tandem_writer::handover::wire;
use tandem_writer::{Committed, Deputy, Handed, HandedAnswer, Role, WriteToken, Writer, WriterConfig};

use crate::rows::{BATCH, batch, batch_with, read_all, sections, spec};
use crate::scenario::{Done, Outcome, check};
use crate::sim::{Node, config, run, store};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What befalls a hand-over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    /// It takes a while.
    Delay(Duration),
    LostBefore,
    LostAfter,
    /// It is said to have failed, and arrives later.
    Late(Duration),
    /// As late, and nothing is said.
    Hang(Duration),
    /// It arrives twice, and is said to have failed.
    Doubled,
    /// It is done, and half of the answers are missing.
    HalfAnswered,
    /// Nothing is done, and it is said to be committed.
    FalseSuccess,
}

/// The way to another node in the same process, through bytes as on a wire.
#[derive(Debug)]
struct Way {
    to: Writer,
    clock: Arc<dyn Clock>,
    /// In turn; then none.
    script: Mutex<Vec<Mishap>>,
    calls: AtomicUsize,
}

impl Way {
    fn set(from: &Node, to: &Node, script: &[Mishap]) -> Arc<Self> {
        let mut script = script.to_vec();
        script.reverse();
        let (to, clock) = (to.writer.clone(), to.env.clock.clone());
        let way = Arc::new(Self { to, clock, script: Mutex::new(script), calls: AtomicUsize::new(0) });
        from.writer.set_deputy(Some(way.clone()));
        way
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn deliver(to: Writer, (message, body): (bytes::Bytes, bytes::Bytes)) -> Result<Vec<HandedAnswer>> {
    let answers = to.submit_handed(wire::decode_handed(&message, body)?).await?;
    wire::decode_answers(&wire::encode_answers(&answers))
}

impl Deputy for Way {
    fn submit(&self, handed: Vec<Handed>) -> BoxFuture<'static, Result<Vec<HandedAnswer>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mishap = self.script.lock().unwrap().pop();
        let (to, clock) = (self.to.clone(), self.clock.clone());
        async move {
            let count = handed.len();
            let bytes = wire::encode_handed(&handed)?;
            clock.sleep(ms(1)).await;
            let lost = Err(Error::unavailable("the connection is lost"));
            let later = |wait| {
                let (to, clock, bytes) = (to.clone(), clock.clone(), bytes.clone());
                tokio::spawn(async move {
                    clock.sleep(wait).await;
                    let _ = deliver(to, bytes).await;
                });
            };
            match mishap {
                None => deliver(to, bytes).await,
                Some(Mishap::Delay(wait)) => {
                    clock.sleep(wait).await;
                    deliver(to, bytes).await
                }
                Some(Mishap::LostBefore) => lost,
                Some(Mishap::LostAfter) => {
                    deliver(to, bytes).await?;
                    lost
                }
                Some(Mishap::Late(wait)) => {
                    later(wait);
                    lost
                }
                Some(Mishap::Hang(wait)) => {
                    later(wait);
                    std::future::pending().await
                }
                Some(Mishap::Doubled) => {
                    later(ms(0));
                    let _ = deliver(to, bytes).await;
                    lost
                }
                Some(Mishap::HalfAnswered) => {
                    let answers = deliver(to, bytes).await?;
                    let half = answers.len() / 2;
                    Ok(answers.into_iter().take(half).collect())
                }
                Some(Mishap::FalseSuccess) => {
                    let (seq, rows, duplicate) = (to.state().seq(), 7, false);
                    Ok(vec![HandedAnswer::Committed(Committed { seq, rows, duplicate }); count])
                }
            }
        }
        .boxed()
    }
}

/// Both write until `a` has noticed; what they wrote.
async fn contend(a: &Node, b: &Node, numbers: &mut std::ops::Range<i64>) -> Vec<Done> {
    let contended = a.writer.watch_contention();
    let mut done = Vec::new();
    for _ in 0..60 {
        if *contended.borrow() {
            return done;
        }
        let (first, second) = (numbers.next().unwrap(), numbers.next().unwrap());
        let (one, other) = futures::join!(
            a.append("warm", SchemaPolicy::Create, vec![batch(first, 1)]),
            b.append("warm", SchemaPolicy::Create, vec![batch(second, 1)])
        );
        let acked =
            [(first, one), (second, other)].map(|(n, answer)| told("warm", Some((n, 1)), answer.unwrap()));
        done.extend(acked);
    }
    panic!("two writers do not get into each other's way");
}

fn told(what: &'static str, batch: Option<(i64, i64)>, committed: Committed) -> Done {
    Done { what, batch, outcome: Outcome::Acked(committed) }
}

const WARM: std::ops::Range<i64> = 2_000..2_200;

fn create(table: &str, if_not_exists: bool) -> Step {
    Step::CreateTable { name: TableName::public(table), spec: spec(), if_not_exists, replace: false }
}

fn drop_table(table: &str) -> Step {
    Step::DropTable { name: TableName::public(table), if_exists: false }
}

fn exists(node: &Node, table: &str) -> bool {
    node.writer.state().table_named(&TableName::public(table)).is_some()
}

fn client(text: &str) -> WriteToken {
    let token = ForeignToken { text: text.to_owned(), base: None };
    WriteToken::Client { token, digest: text.as_bytes().to_vec() }
}

async fn pair(store: &Arc<FaultStore>) -> (Node, Node) {
    let (a, s) = (Node::open(store, 1).await, Node::open(store, 2).await);
    a.append("t", SchemaPolicy::Create, vec![batch(1, 1)]).await.unwrap();
    s.catch_up_with(&a).await;
    contend(&a, &s, &mut WARM.clone()).await;
    (a, s)
}

fn puts(store: &FaultStore) -> usize {
    store
        .trace()
        .iter()
        .filter(|c| c.op == Op::Put && c.path.ends_with(".commit") && c.outcome == "ok")
        .count()
}

#[test]
fn what_is_handed_over_is_committed_there_and_readable_here() {
    let store = store();
    run(&store, async {
        let (a, s) = pair(&store).await;
        let way = Way::set(&a, &s, &[]);
        let before = puts(&store);
        let writes = (10..20).map(|n| a.append("t", SchemaPolicy::Strict, vec![batch(n, 3)]));
        let answers: Vec<Committed> = join_all(writes).await.into_iter().map(Result::unwrap).collect();
        assert!(way.calls() >= 1);
        assert!(puts(&store) - before <= way.calls(), "nobody raced");
        let state = a.writer.state();
        let table = state.require(&TableName::public("t")).unwrap();
        for answer in &answers {
            assert!((answer.rows, answer.duplicate) == (3, false) && state.seq() >= answer.seq);
        }
        // Its own rows are in memory on both nodes, under the place that the log gave them.
        for tail in table.tail().filter(|tail| answers.iter().any(|a| a.seq == tail.key.seq)) {
            let SectionKey { seq, .. } = tail.key;
            for node in [&a, &s] {
                let rows = node.writer.tail().get(table.id(), tail.key);
                let rows = rows.unwrap_or_else(|| panic!("rows of {seq} are not at hand"));
                assert_eq!(rows.batches.iter().map(|b| b.num_rows()).sum::<usize>(), 3);
            }
        }
        let order: Vec<i64> = order(&a.log, &state, "t").await;
        assert_eq!(order, [1].into_iter().chain(10..20).collect::<Vec<_>>());
    });
}

/// The numbers of the batches of a table, in the order of the log.
async fn order(log: &Log, state: &tandem_manifest::Manifest, table: &str) -> Vec<i64> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let mut order = Vec::new();
    for (_, names, rows) in sections(log, state, table).await {
        let position = names.iter().position(|n| n == "id").unwrap();
        let number = rows.column(position).as_primitive::<Int64Type>().value(0) / BATCH;
        if order.last() != Some(&number) {
            order.push(number);
        }
    }
    order
}

#[test]
fn refusals_of_the_other_node_are_answered_and_rows_are_prepared_anew_for_it() {
    let store = store();
    run(&store, async {
        let (a, s) = pair(&store).await;
        let way = Way::set(&a, &s, &[]);
        // A stale node: s commits what a cannot have seen.
        s.submit(create("other", false)).await.unwrap();
        let taken = a.submit(create("other", false)).await.unwrap_err();
        assert_eq!((taken.kind(), taken.seq()), (ErrorKind::AlreadyExists, None));
        assert!(exists(&a, "other"), "a refusal is answered by one who can see why");
        let same = a.submit(create("other", true)).await.unwrap();
        assert_eq!((same.rows, same.duplicate), (0, false));
        let typo = a.append("t", SchemaPolicy::Strict, vec![batch_with(5, 2, "typo")]).await.unwrap_err();
        assert!(typo.message().contains("typo"), "{typo}");

        // A column that a has not seen change its name.
        let rename = Change::RenameColumn { name: "host".to_owned(), to: "machine".to_owned() };
        let name = TableName::public("other");
        s.submit(Step::AlterTable { name, change: rename }).await.unwrap();
        let gone = a.append("other", SchemaPolicy::Strict, vec![batch(6, 2)]).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
        let added = a.append("other", SchemaPolicy::Add, vec![batch(7, 2)]).await.unwrap();
        assert_eq!(added.rows, 2);
        assert!(way.calls() >= 6, "{}", way.calls());
    });
}

#[test]
fn a_lost_answer_makes_the_node_race_at_once_and_commits_once() {
    let mishaps = [
        Mishap::LostBefore,
        Mishap::LostAfter,
        Mishap::Late(ms(5)),
        Mishap::Late(ms(3_000)),
        Mishap::Hang(ms(10)),
        Mishap::Hang(ms(20_000)),
        Mishap::Doubled,
        Mishap::HalfAnswered,
        Mishap::FalseSuccess,
        Mishap::Delay(ms(500)),
        Mishap::Delay(ms(5_000)),
    ];
    for mishap in mishaps {
        let store = store();
        run(&store, async {
            let (a, s) = pair(&store).await;
            let way = Way::set(&a, &s, &[mishap]);
            let started = a.env.clock.monotonic();
            let (minted, chosen) = futures::join!(
                a.append("t", SchemaPolicy::Strict, vec![batch(10, 3)]),
                a.append_under(client("k"), "t", SchemaPolicy::Strict, None, vec![batch(11, 4)])
            );
            let took = a.env.clock.monotonic() - started;
            let (minted, chosen) = (minted.unwrap(), chosen.unwrap());
            assert_eq!((minted.rows, minted.duplicate, chosen.rows), (3, false, 4), "{mishap:?}");
            assert!(took < ms(2_500), "{mishap:?} took {took:?}");
            assert_eq!(way.calls(), 1, "{mishap:?}: it is left alone for a while");
            a.env.clock.sleep(ms(30_000)).await;
            a.append("t", SchemaPolicy::Strict, vec![batch(12, 1)]).await.unwrap();
            s.catch_up_with(&a).await;
            let found = read_all(&a.log, &a.writer.state()).await;
            for (number, rows, answer) in [(10, 3, minted), (11, 4, chosen)] {
                assert_eq!(found[&number].places, [("t".to_owned(), answer.seq)], "{mishap:?}");
                assert_eq!(found[&number].rows, (0..rows).map(|row| (row, 1)).collect(), "{mishap:?}");
            }
            assert_eq!(a.writer.state().digest(), s.writer.state().digest());
        });
    }
}

#[test]
fn a_refusal_of_a_write_in_doubt_is_barred_before_it_is_answered() {
    for (token, if_not_exists, told) in [
        (WriteToken::Minted, false, Err(ErrorKind::AlreadyExists)),
        (WriteToken::Minted, true, Ok(())),
        (client("k"), false, Err(ErrorKind::OutcomeUnknown)),
        (client("k"), true, Err(ErrorKind::OutcomeUnknown)),
    ] {
        let store = store();
        run(&store, async {
            let (a, s) = pair(&store).await;
            s.submit(create("x", false)).await.unwrap();
            let way = Way::set(&a, &s, &[Mishap::Late(ms(3_000))]);
            let base = a.writer.state().seq();
            let answer = a.writer.submit(base, vec![create("x", if_not_exists)], token.clone()).await;
            assert_eq!(way.calls(), 1);
            assert_eq!(answer.map(|_| ()).map_err(|e| e.kind()), told, "{token:?}");
            s.submit(drop_table("x")).await.unwrap();
            // Now it arrives, and would be committed.
            a.env.clock.sleep(ms(10_000)).await;
            s.append("t", SchemaPolicy::Strict, vec![batch(20, 1)]).await.unwrap();
            a.catch_up_with(&s).await;
            let settled = told != Err(ErrorKind::OutcomeUnknown);
            assert_eq!(exists(&a, "x"), !settled, "{token:?}: what was answered is for good");
        });
    }
}

#[test]
fn content_that_was_its_own_token_is_not_committed_again_by_a_late_copy() {
    let store = store();
    run(&store, async {
        let (a, s) = pair(&store).await;
        let window = 2_000_000;
        let content = || WriteToken::Streamed {
            token: tandem_format::TransactionToken::Content { window },
            digest: Arc::new(std::sync::OnceLock::from(b"d".to_vec())),
        };
        Way::set(&a, &s, &[Mishap::Late(ms(60_000))]);
        let write = a.append_under(content(), "t", SchemaPolicy::Strict, None, vec![batch(10, 3)]);
        let first = write.await.unwrap();
        assert_eq!((first.rows, first.duplicate), (3, false));
        // The log grows older than the window.
        for n in 0..70 {
            a.env.clock.sleep(ms(1_000)).await;
            s.append("t", SchemaPolicy::Strict, vec![batch(20 + n, 1)]).await.unwrap();
        }
        a.catch_up_with(&s).await;
        assert_eq!(read_all(&a.log, &a.writer.state()).await[&10].places.len(), 1);
    });
}

#[test]
fn one_writer_alone_never_hands_over_and_company_that_leaves_is_noticed() {
    let store = store();
    run(&store, async {
        let (a, s) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        let way = Way::set(&a, &s, &[]);
        for n in 0..30 {
            a.append("t", SchemaPolicy::Create, vec![batch(n, 1)]).await.unwrap();
        }
        assert_eq!(way.calls(), 0);
        contend(&a, &s, &mut WARM.clone()).await;
        let mut calls = way.calls();
        for n in 100..160 {
            a.append("t", SchemaPolicy::Create, vec![batch(n, 1)]).await.unwrap();
            a.env.clock.sleep(ms(50)).await;
            if n == 102 {
                assert!(way.calls() > calls, "as long as the other one may be there");
            }
            if n == 150 {
                calls = way.calls();
            }
        }
        assert_eq!(way.calls(), calls, "it has gone");
        assert!(!*a.writer.watch_contention().borrow());
    });
}

#[test]
fn a_node_that_takes_nothing_is_not_waited_for() {
    let store = store();
    run(&store, async {
        let (a, s) = pair(&store).await;
        s.writer.set_role(Role::Replica { writer: None });
        let way = Way::set(&a, &s, &[]);
        let created = a.append("t", SchemaPolicy::Strict, vec![batch(10, 3)]).await.unwrap();
        assert_eq!((created.rows, created.duplicate, way.calls()), (3, false, 1));
    });
}

#[test]
fn what_was_committed_before_is_a_duplicate_also_where_nobody_takes_it() {
    let store = store();
    run(&store, async {
        let (a, s) = pair(&store).await;
        let token = ForeignToken { text: "k".to_owned(), base: None };
        // Nothing can be said of it before all rows have come.
        let token = WriteToken::Streamed { token: token.into(), digest: Arc::default() };
        let write = async |node: &Node| {
            let rows = vec![batch(10, 3)];
            node.append_under(token.clone(), "t", SchemaPolicy::Strict, None, rows).await.unwrap()
        };
        let first = write(&s).await;
        assert!(!first.duplicate);
        a.catch_up_with(&s).await;
        s.writer.set_role(Role::Replica { writer: None });
        let way = Way::set(&a, &s, &[]);
        let again = write(&a).await;
        assert_eq!(way.calls(), 1);
        assert_eq!(again, Committed { duplicate: true, ..first });
    });
}

#[test]
fn what_a_peer_hands_over_is_checked() {
    let store = store();
    run(&store, async {
        /// Catches what is handed over.
        #[derive(Debug, Default)]
        struct Catch(Mutex<Vec<Handed>>);
        impl Deputy for Catch {
            fn submit(&self, handed: Vec<Handed>) -> BoxFuture<'static, Result<Vec<HandedAnswer>>> {
                self.0.lock().unwrap().extend(handed);
                async { Err(Error::unavailable("caught")) }.boxed()
            }
        }
        let (a, s) = pair(&store).await;
        let caught = Arc::new(Catch::default());
        a.writer.set_deputy(Some(caught.clone()));
        a.append("t", SchemaPolicy::Strict, vec![batch(10, 3)]).await.unwrap();
        let good = caught.0.lock().unwrap().remove(0);
        let head = s.writer.catch_up_now().await.unwrap();
        let append = |handed: &mut Handed, change: &dyn Fn(&mut tandem_manifest::AppendIntent)| {
            let Step::Append(append) = &mut handed.intent.steps[0] else { unreachable!() };
            change(append);
        };
        type Spoil<'a> = &'a dyn Fn(&mut Handed);
        let spoils: [Spoil<'_>; 11] = [
            &|h| h.intent.token = None,
            &|h| h.intent.epoch = None,
            &|h| h.intent.steps.push(Step::Checkpoint { seq: Seq(1), root_hash: [0; 32], after: None }),
            &|h| h.bodies.push(vec![bytes::Bytes::from_static(b"more")]),
            &|h| h.bodies[0] = vec![h.bodies[0].concat().into(), bytes::Bytes::from_static(b"!")],
            &|h| {
                let mut bytes = h.bodies[0].concat();
                bytes[100] ^= 1;
                h.bodies[0] = vec![bytes.into()];
            },
            &|h| append(h, &|a| a.sections[0].rows = 4),
            &|h| append(h, &|a| a.sections[0].null_counts = vec![0, 0, 1]),
            &|h| append(h, &|a| a.fields[1].name = "other".into()),
            &|h| append(h, &|a| a.sections[0].partitions.clear()),
            &|h| {
                let garbage = b"no section at all".to_vec();
                append(h, &|a| {
                    a.sections[0].len = garbage.len() as u64;
                    a.sections[0].crc32c = 0x1234_5678;
                });
                h.bodies[0] = vec![garbage.clone().into()];
            },
        ];
        for (n, spoil) in spoils.into_iter().enumerate() {
            let mut spoilt = good.clone();
            spoil(&mut spoilt);
            let error = s.writer.submit_handed(vec![good.clone(), spoilt]).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Damaged), "{n}: {error}");
        }
        let many = vec![good.clone(); 513];
        assert_eq!(s.writer.submit_handed(many).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(s.writer.catch_up_now().await.unwrap(), head, "nothing of it was committed");
        let again = s.writer.submit_handed(vec![good]).await.unwrap();
        assert!(matches!(again.as_slice(), [HandedAnswer::Committed(c)] if c.duplicate), "{again:?}");
    });
}

fn forwarding() -> WriterConfig {
    WriterConfig { forward: true, ..config() }
}

#[test]
fn a_replica_that_forwards_answers_as_the_writer_did() {
    let store = store();
    run(&store, async {
        let s = Node::open(&store, 1).await;
        s.append("t", SchemaPolicy::Create, vec![batch(1, 1)]).await.unwrap();
        let a = Node::open_with(&store, 2, forwarding()).await;
        a.writer.set_role(Role::Replica { writer: Some("grpc://s:1".into()) });
        let refused = a.append("t", SchemaPolicy::Strict, vec![batch(2, 3)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotWriter, "there is nobody to forward to");
        let script = [Mishap::Delay(ms(1)), Mishap::LostAfter, Mishap::LostBefore];
        let way = Way::set(&a, &s, &script);
        let puts_before = puts(&store);
        for number in 3..6 {
            let token = client(&number.to_string());
            let write = a.append_under(token, "t", SchemaPolicy::Strict, None, vec![batch(number, 3)]);
            match write.await {
                Ok(done) => {
                    assert_eq!(done.rows, 3);
                    assert!(a.writer.state().seq() >= done.seq);
                }
                // It is alone with the doubt, for it cannot race.
                Err(e) => assert_eq!(e.kind(), ErrorKind::OutcomeUnknown, "{number}: {e}"),
            }
            a.env.clock.sleep(ms(3_000)).await;
        }
        assert!(way.calls() >= 3);
        assert_eq!(puts(&store) - puts_before, s.writer.state().seq().0 as usize - 1, "all by the writer");
        // Upkeep is not forwarded, and large writes are.
        let upkeep = a.writer.submit_upkeep(Seq(1), vec![create("u", false)]).await.unwrap_err();
        assert_eq!(upkeep.kind(), ErrorKind::NotWriter);
        let large = a.append("t", SchemaPolicy::Strict, vec![batch(9, 3_000)]).await.unwrap();
        assert_eq!(large.rows, 3_000);
        s.writer.set_role(Role::Replica { writer: Some("grpc://b:1".into()) });
        let refused = a.append("t", SchemaPolicy::Strict, vec![batch(10, 3)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotWriter);
    });
}

#[test]
fn a_fenced_primary_hands_on_what_it_has_not_answered() {
    let store = store();
    run(&store, async {
        let identity = |id: &str| Primary { node_id: id.into(), address: format!("grpc://{id}:1") };
        let as_node = |id: &str| WriterConfig { identity: Some(identity(id)), ..config() };
        let a = Node::open_with(&store, 1, as_node("a")).await;
        let s = Node::open_with(&store, 2, as_node("s")).await;
        let promote = |id: &str, epoch| {
            let mode = ("mode".to_owned(), Some("single-primary".to_owned()));
            let promote = Step::Promote { epoch: Epoch(epoch), primary: Some(identity(id)) };
            vec![Step::SetSettings { settings: vec![mode] }, promote]
        };
        a.append("t", SchemaPolicy::Create, vec![batch(1, 1)]).await.unwrap();
        a.writer.submit_upkeep(a.writer.state().seq(), promote("a", 1)).await.unwrap();
        s.catch_up_with(&a).await;
        let way = Way::set(&a, &s, &[]);
        // The promotion overtakes a write that a is about to commit.
        store.set_plan(FaultPlan::none().nth(Op::Put, "log/", 1, Fault::Delay(ms(200))));
        let write = a.append("t", SchemaPolicy::Strict, vec![batch(2, 3)]);
        let more = async {
            a.env.clock.sleep(ms(50)).await;
            let (seq, steps) = (s.writer.state().seq(), promote("s", 2));
            let promoted = s.writer.submit_upkeep(seq, steps).await.unwrap();
            assert_eq!(s.writer.state().epoch(), Epoch(2));
            promoted
        };
        let (written, promoted) = futures::join!(write, more);
        let written = written.unwrap();
        assert!(written.seq > promoted.seq && way.calls() == 1);
        // From now on it says who writes.
        let error = a.append("t", SchemaPolicy::Strict, vec![batch(3, 3)]).await.unwrap_err();
        assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some("grpc://s:1")));
        let found = read_all(&a.log, &a.writer.state()).await;
        assert_eq!(found[&2].places, [("t".to_owned(), written.seq)]);
    });
}

#[test]
fn who_takes_over_does_not_wait_for_what_is_handed_to_the_dead() {
    let store = store();
    run(&store, async {
        let identity = |id: &str| Primary { node_id: id.into(), address: format!("grpc://{id}:1") };
        let as_node = |id: &str| WriterConfig { identity: Some(identity(id)), ..forwarding() };
        let s = Node::open_with(&store, 2, as_node("s")).await;
        s.append("t", SchemaPolicy::Create, vec![batch(1, 1)]).await.unwrap();
        let promote = |id: &str, epoch| {
            let mode = ("mode".to_owned(), Some("single-primary".to_owned()));
            let promote = Step::Promote { epoch: Epoch(epoch), primary: Some(identity(id)) };
            vec![Step::SetSettings { settings: vec![mode] }, promote]
        };
        s.writer.submit_upkeep(s.writer.state().seq(), promote("s", 1)).await.unwrap();
        let a = Node::open_with(&store, 1, as_node("a")).await;
        Way::set(&a, &s, &[Mishap::Hang(ms(100_000))]);
        let write = a.append("t", SchemaPolicy::Strict, vec![batch(2, 3)]);
        let take_over = async {
            a.env.clock.sleep(ms(100)).await;
            let started = a.env.clock.monotonic();
            a.writer.submit_upkeep(a.writer.state().seq(), promote("a", 2)).await.unwrap();
            a.env.clock.monotonic() - started
        };
        let (written, took) = futures::join!(write, take_over);
        assert!(took < ms(300), "{took:?}");
        // In doubt at first, then its own to commit.
        assert_eq!((written.unwrap().rows, a.writer.state().epoch()), (3, Epoch(2)));
    });
}

/// Streams of batches and statements of three nodes, two of which hand over to the third; what was told, and the calls
/// to the store before it began.
async fn play(
    store: &Arc<FaultStore>,
    seed: u64,
    scripts: [&[Mishap]; 2],
    plan: FaultPlan,
) -> (Vec<Done>, u64) {
    let s = Node::open(store, seed).await;
    let a = Node::open(store, seed ^ 0xa).await;
    let c = Node::open(store, seed ^ 0xc).await;
    let first = s.append("t", SchemaPolicy::Create, vec![batch(80, 1)]).await.unwrap();
    let mut done = vec![told("first", Some((80, 1)), first)];
    a.catch_up_with(&s).await;
    c.catch_up_with(&s).await;
    let mut warm = WARM.clone();
    done.extend(contend(&a, &s, &mut warm).await);
    done.extend(contend(&c, &s, &mut warm).await);
    let _ways = [Way::set(&a, &s, scripts[0]), Way::set(&c, &s, scripts[1])];
    let first = store.trace().len() as u64;
    store.set_plan(plan);
    let heard = |what: &'static str, number: Option<(i64, i64)>, node: &Node, answer: Result<Committed>| {
        let outcome = match answer {
            Ok(committed) => {
                assert!(node.writer.state().seq() >= committed.seq, "a success is in the node's own state");
                Outcome::Acked(committed)
            }
            Err(e) if e.kind() == ErrorKind::OutcomeUnknown => Outcome::Open,
            Err(e) => Outcome::Refused(e.kind(), e.to_string()),
        };
        Done { what, batch: number, outcome }
    };
    let stream = async |node: &Node, from: i64, chosen: bool| {
        let mut done = Vec::new();
        for round in 0..3 {
            // In flight together, as a stream's batches are.
            let writes = (0..3).map(|n| {
                let number = from + round * 3 + n;
                let token = if chosen { client(&number.to_string()) } else { WriteToken::Minted };
                async move {
                    let write =
                        node.append_under(token, "t", SchemaPolicy::Strict, None, vec![batch(number, 3)]);
                    (number, write.await)
                }
            });
            for (number, answer) in join_all(writes).await {
                done.push(heard("stream", Some((number, 3)), node, answer));
            }
        }
        done
    };
    let statements = async |node: &Node, name: &str| {
        let column =
            ColumnSpec { name: name.to_owned(), data_type: arrow_schema::DataType::Utf8, nullable: true };
        let change = Change::AddColumn { column, if_not_exists: false };
        let step = Step::AlterTable { name: TableName::public("t"), change };
        let add = node.submit(step).await;
        let bad = node.append("t", SchemaPolicy::Strict, vec![batch_with(70, 2, "typo")]).await;
        assert!(bad.is_err());
        vec![heard("add", None, node, add), heard("bad", Some((70, 2)), node, bad)]
    };
    let large = async {
        let answer = a.append("t", SchemaPolicy::Strict, vec![batch(60, 600)]).await;
        vec![heard("large", Some((60, 600)), &a, answer)]
    };
    let (one, two, three, four, five, six) = futures::join!(
        stream(&a, 100, false),
        stream(&c, 200, true),
        stream(&s, 300, false),
        statements(&a, "one"),
        statements(&c, "two"),
        large,
    );
    done.extend([one, two, three, four, five, six].into_iter().flatten());
    // What is late arrives now.
    store.clock().sleep(ms(6_000)).await;
    (done, first)
}

/// Acknowledged batches of each stream are in its order.
async fn check_order(store: &Arc<FaultStore>, done: &[Done], context: &str) {
    let node = Node::open(store, 77).await;
    let order = order(&node.log, &node.writer.state(), "t").await;
    for from in [100, 200, 300] {
        let acked = |number: &i64| {
            done.iter().any(|d| d.batch == Some((*number, 3)) && matches!(d.outcome, Outcome::Acked(_)))
        };
        let of_stream: Vec<i64> =
            order.iter().copied().filter(|n| (from..from + 100).contains(n)).filter(acked).collect();
        assert!(of_stream.is_sorted(), "{context}: {of_stream:?}");
    }
}

async fn check_all(store: &Arc<FaultStore>, done: Vec<Done>, context: &str) {
    store.set_plan(FaultPlan::none());
    check_order(store, &done, context).await;
    check(store, &done, context).await;
}

fn mishaps() -> [Mishap; 8] {
    [
        Mishap::Delay(ms(300)),
        Mishap::LostBefore,
        Mishap::LostAfter,
        Mishap::Late(ms(2_500)),
        Mishap::Hang(ms(4_000)),
        Mishap::Doubled,
        Mishap::HalfAnswered,
        Mishap::FalseSuccess,
    ]
}

#[test]
fn every_mishap_at_every_turn() {
    for mishap in mishaps() {
        for turn in 0..4 {
            let mut script = vec![Mishap::Delay(ms(0)); turn];
            script.push(mishap);
            let store = store();
            run(&store, async {
                let context = format!("{mishap:?} at hand-over {turn}");
                let (done, _) = play(&store, 3, [&script, &script], FaultPlan::none()).await;
                for d in done.iter().filter(|d| d.what == "stream" || d.what == "large") {
                    assert!(matches!(d.outcome, Outcome::Acked(_)), "{context}: {d:?}");
                }
                check_all(&store, done, &context).await;
            });
        }
    }
}

#[test]
fn every_call_to_the_store_fails_once_while_hand_overs_go_on() {
    let scripts: [&[Mishap]; 2] = [&[], &[Mishap::LostAfter, Mishap::Late(ms(700))]];
    let play_once = |plan: FaultPlan, context: &str| {
        let store = store();
        run(&store, async {
            let (done, first) = play(&store, 5, scripts, plan).await;
            let calls = store.trace().len() as u64;
            check_all(&store, done, context).await;
            (first, calls)
        })
    };
    let (first, last) = play_once(FaultPlan::none(), "no faults");
    assert!(last - first > 40, "{first} to {last}");
    let kinds =
        [Fault::FailBefore, Fault::FailAfter, Fault::Conflict409, Fault::Late(4), Fault::Delay(ms(150))];
    // Beyond this, nodes only look whether there is more. The kinds take turns.
    for (number, turn) in (first + 1..=last.min(first + 80)).zip(0..) {
        for fault in [kinds[turn % 5], kinds[(turn + 2) % 5]] {
            play_once(FaultPlan::none().call(number, fault), &format!("call {number} meets {fault:?}"));
        }
    }
}

/// `TANDEM_SIM_SEEDS=n` for more.
#[test]
fn storms_of_mishaps_and_faults() {
    let seeds = std::env::var("TANDEM_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(30u64);
    for seed in 1..=seeds {
        let chance = SimChance::new(seed);
        let draw = || {
            let count = chance.below(12);
            let one = |_| match chance.below(3) {
                0 => mishaps()[usize::try_from(chance.below(8)).unwrap()],
                _ => Mishap::Delay(ms(chance.below(20))),
            };
            (0..count).map(one).collect::<Vec<_>>()
        };
        let (one, other) = (draw(), draw());
        let rate = [0.0, 0.05, 0.2][usize::try_from(seed % 3).unwrap()];
        let store = store();
        run(&store, async {
            let plan = FaultPlan::none().random(rate, seed);
            let (done, _) = play(&store, seed, [&one, &other], plan).await;
            check_all(&store, done, &format!("seed {seed}, rate {rate}")).await;
        });
    }
}
