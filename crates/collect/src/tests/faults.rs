use std::sync::Arc;
use std::time::Duration;

use tandem_env::sim::{Fault, FaultPlan, FaultStore};
use tandem_format::segment_path;

use super::{Db, NOW, run, store};
use crate::{Collector, Rules};

/// The store's clock is asked, too.
const SOON: Rules = Rules { job: Duration::ZERO, grace: Duration::from_millis(1) };

/// A database with something of everything to collect.
async fn full(store: &Arc<FaultStore>) -> Db {
    let mut db = Db::open(store).await;
    db.upload().await;
    for _ in 0..3 {
        db.append("t", None).await;
        let segment = db.upload().await;
        db.append("t", Some(segment)).await;
        db.compact("t").await;
        db.checkpoint().await;
    }
    assert!(db.cut(&NOW).await);
    db
}

#[test]
fn a_round_that_fails_anywhere_does_no_harm_and_the_next_one_ends_it() {
    let calls = |plan: FaultPlan, context: &str| {
        let store = store();
        run(&store, async {
            let mut db = full(&store).await;
            db.wait(Duration::from_secs(1));
            let before = store.trace().len() as u64;
            store.set_plan(plan);
            // As far as it goes; then its process ends.
            let _ = db.collector.collect(&db.log, &db.state, &SOON, &[]).await;
            let after = store.trace().len() as u64;
            store.set_plan(FaultPlan::none());
            db.check(context).await;
            db.collector = Collector::default();
            db.collect(&NOW).await;
            db.check(context).await;
            (before, after, db.paths().await)
        })
    };
    let (first, last, expected) = calls(FaultPlan::none(), "no faults");
    assert!(last - first > 15, "{}", last - first);
    for number in first + 1..=last {
        for fault in
            [Fault::FailBefore, Fault::FailAfter, Fault::Throttle, Fault::Conflict409, Fault::Late(3)]
        {
            let context = format!("call {number} meets {fault:?}");
            let (.., left) = calls(FaultPlan::none().call(number, fault), &context);
            // One floor more or less is no matter.
            let objects = |paths: &std::collections::BTreeSet<String>| {
                paths.iter().filter(|path| !path.starts_with("log/floor/")).cloned().collect::<Vec<_>>()
            };
            assert_eq!(objects(&left), objects(&expected), "{context}");
        }
    }
}

#[test]
fn two_at_once_and_one_that_slept_do_no_harm() {
    let store = store();
    run(&store, async {
        let mut db = full(&store).await;
        let mut others = [Collector::default(), Collector::default()];
        let old = db.state.clone();
        let [one, other] = &mut others;
        let (a, b) = futures::join!(
            one.collect(&db.log, &db.state, &NOW, &[]),
            other.collect(&db.log, &db.state, &NOW, &[]),
        );
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        db.check("two at once").await;
        // Objects made since, and one collector that knows nothing of it.
        let segment = db.upload().await;
        db.append("t", Some(segment)).await;
        db.compact("t").await;
        db.checkpoint().await;
        let unsent = db.upload().await;
        let stale = others[0].collect(&db.log, &old, &NOW, &[]).await;
        assert!(stale.is_ok(), "{stale:?}");
        assert!(db.paths().await.contains(&segment_path(&unsent)));
        db.check("one that slept").await;
        db.append("t", Some(unsent)).await;
        db.check("what was uploaded meanwhile is committed").await;
    });
}
