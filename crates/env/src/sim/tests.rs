use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::{Clock, CreateOutcome};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn chance_is_decided_by_its_seed() {
    let draw = |seed| {
        let chance = SimChance::new(seed);
        [chance.next_u64(), chance.next_u64(), chance.next_u64()]
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // The published first values of SplitMix64 from state 0.
    assert_eq!(draw(0)[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
}

#[tokio::test]
async fn sleepers_wake_in_the_order_of_their_ends() {
    let clock = Arc::new(SimClock::auto());
    let order = Arc::new(std::sync::Mutex::new(vec![]));
    let tasks: Vec<_> = [500u64, 20, 86_400_000, 300]
        .into_iter()
        .map(|end| {
            let (clock, order) = (clock.clone(), order.clone());
            tokio::spawn(async move {
                clock.sleep(ms(end)).await;
                order.lock().unwrap().push((end, clock.monotonic()));
            })
        })
        .collect();
    futures::future::join_all(tasks).await;
    let expected: Vec<_> = [20, 300, 500, 86_400_000].map(|end| (end, ms(end))).to_vec();
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(clock.now_micros(), START_MICROS + 86_400_000_000);
}

#[tokio::test]
async fn a_timer_that_nobody_looks_at_stops_nobody() {
    let clock = SimClock::auto();
    let mut tick = clock.sleep(ms(10));
    assert!((&mut tick).now_or_never().is_none());
    clock.sleep(ms(50)).await;
    assert_eq!(clock.monotonic(), ms(50));
    assert!(tick.now_or_never().is_some());

    // A dropped one is forgotten.
    let mut dropped = clock.sleep(ms(10));
    assert!((&mut dropped).now_or_never().is_none());
    drop(dropped);
    clock.sleep(ms(5)).await;
    assert_eq!(clock.monotonic(), ms(55));
}

#[tokio::test]
async fn a_manual_clock_waits_to_be_told() {
    let clock = SimClock::manual();
    let mut sleep = clock.sleep(ms(100));
    assert!((&mut sleep).now_or_never().is_none());
    clock.advance(ms(99));
    assert!((&mut sleep).now_or_never().is_none());
    clock.advance(ms(1));
    assert!((&mut sleep).now_or_never().is_some());
    clock.set_skew(-5);
    assert_eq!((clock.now_micros(), clock.monotonic()), (START_MICROS + 100_000 - 5, ms(100)));
}

#[tokio::test]
async fn a_create_tells_no_more_than_its_one_answer() {
    let later = Fault::Late(3);
    let cases = [
        (Fault::FailBefore, "Unknown", false),
        (Fault::Throttle, "Unknown", false),
        (Fault::FailAfter, "Unknown", true),
        (Fault::Conflict409, "Exists", false),
        (later, "Unknown", false),
        (Fault::Delay(ms(70)), "Created", true),
    ];
    for (fault, outcome, there) in cases {
        let (env, store) = env(1);
        store.set_plan(FaultPlan::none().nth(Op::Put, "log/", 1, fault));
        let told = env.store.create("log/1", vec!["x".into()]).await;
        assert!(format!("{told:?}").starts_with(outcome), "{fault:?}: {told:?}");
        assert_eq!(env.store.get("log/1").await.unwrap().is_some(), there, "{fault:?}");
        assert_eq!(store.trace()[0].fault, Some(fault));
        if fault == later {
            assert_eq!(env.store.get("log/1").await.unwrap(), None, "call 3");
            assert_eq!(env.store.get("log/1").await.unwrap().unwrap(), "x", "call 4: it has landed");
        }
    }
}

#[tokio::test]
async fn a_late_put_does_not_beat_one_that_came_first() {
    let (env, store) = env(1);
    store.set_plan(FaultPlan::none().call(1, Fault::Late(2)));
    assert!(matches!(env.store.create("log/1", vec!["late".into()]).await, CreateOutcome::Unknown(_)));
    assert_eq!(env.store.create("log/1", vec!["mine".into()]).await, CreateOutcome::Created);
    assert_eq!(env.store.get("log/1").await.unwrap().unwrap(), "mine");
}

#[tokio::test]
async fn reads_ask_again_and_wait_on_the_clock() {
    let (env, store) = env(3);
    env.store.create("log/1", vec!["x".into()]).await;
    let flaky = (1..=4).fold(FaultPlan::none(), |plan, n| plan.nth(Op::Get, "log/1", n, Fault::Throttle));
    store.set_plan(flaky);
    assert_eq!(env.store.get("log/1").await.unwrap().unwrap(), "x");
    let waited = env.clock.monotonic();
    assert!(waited >= ms(25 + 50 + 100 + 200) && waited < ms(750), "{waited:?}");

    store.set_plan(FaultPlan::none().random(1.0, 1));
    let error = env.store.get("log/1").await.unwrap_err();
    assert_eq!(error.kind(), tandem_types::ErrorKind::Unavailable, "{error}");
}

/// Uploads 100 objects through faults; what was asked, in order.
async fn upload(seed: u64) -> Vec<Call> {
    let (env, store) = env(seed);
    store.set_plan(FaultPlan::none().random(0.3, seed));
    for n in 0..100 {
        let body = format!("body {n}");
        let stored = env.store.create_data(&format!("wal/{n}"), vec![body.clone().into()]).await;
        assert_eq!(stored, Ok(()), "seed {seed}");
    }
    let trace = store.trace();
    store.set_plan(FaultPlan::none());
    for n in 0..100 {
        let stored = env.store.get(&format!("wal/{n}")).await.unwrap().unwrap();
        assert_eq!(stored, format!("body {n}"), "seed {seed}");
    }
    trace
}

#[tokio::test]
async fn data_arrives_whole_through_faults_and_the_seed_decides_the_run() {
    let (one, again, other) = (upload(7).await, upload(7).await, upload(8).await);
    assert!(one.iter().filter(|call| call.fault.is_some()).count() > 30);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test]
async fn objects_bear_the_simulated_time() {
    let (env, store) = env(1);
    env.clock.sleep(ms(1500)).await;
    env.store.create("log/1", vec!["x".into()]).await;
    let meta = object_store::ObjectStoreExt::head(&*store, &"log/1".into()).await.unwrap();
    assert_eq!(meta.last_modified.timestamp_micros(), START_MICROS + 1_500_000);
}

#[tokio::test]
async fn what_lies_below_a_directory_is_listed_with_its_time_and_removed_in_bulk() {
    use futures::TryStreamExt;
    let (env, _) = env(1);
    let mut expected = vec![];
    for path in ["data/1/a/x", "data/1/b/y", "data/2/c/z", "wal/w"] {
        env.clock.sleep(ms(10)).await;
        env.store.create(path, vec![path.into()]).await;
        if path.starts_with("data/") {
            expected.push(crate::Listed {
                path: path.into(),
                bytes: path.len() as u64,
                modified: env.clock.now_micros(),
            });
        }
    }
    let mut found: Vec<_> = env.store.list_below("data").try_collect().await.unwrap();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(found, expected);
    assert_eq!(env.store.now_by_store("nodes/clock-1").await.unwrap(), env.clock.now_micros());
    assert_eq!(env.store.list_dir("nodes").await.unwrap(), Vec::<String>::new());

    let paths = ["data/1/a/x", "data/9/none", "wal/w"].map(str::to_owned).to_vec();
    assert_eq!(env.store.delete_all(paths).await, (3, None));
    let left: Vec<_> = env.store.list_below("data").try_collect().await.unwrap();
    assert_eq!(left, expected[1..]);
}
