//! The times of commits: clocks that are wrong, and nights in which nothing happens.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tandem_env::Clock;
use tandem_env::sim::FaultStore;
use tandem_manifest::SchemaPolicy;

use crate::rows::batch;
use crate::sim::{Node, run, store};

const HOUR: i64 = 3_600_000_000;
const YEARS: i64 = 3 * 365 * 24 * HOUR;

/// The clock of a machine on which it is later than elsewhere.
#[derive(Debug)]
struct Ahead {
    clock: Arc<dyn Clock>,
    micros: i64,
}

impl Clock for Ahead {
    fn now_micros(&self) -> i64 {
        self.clock.now_micros() + self.micros
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }
}

async fn ahead(store: &Arc<FaultStore>, seed: u64, micros: i64) -> Node {
    Node::open_by(store, seed, |clock| Arc::new(Ahead { clock, micros })).await
}

/// The time of a commit that a node makes now, and what a right clock says.
async fn write(node: &Node, store: &Arc<FaultStore>) -> (i64, i64) {
    node.append("t", SchemaPolicy::Create, vec![batch(1, 3)]).await.unwrap();
    (node.writer.state().commit_time(), store.clock().now_micros())
}

#[test]
fn a_clock_that_is_years_ahead_leaves_the_logs_time_alone() {
    for first in [true, false] {
        let store = store();
        run(&store, async {
            let right = Node::open(&store, 1).await;
            let wrong = ahead(&store, 2, YEARS).await;
            if !first {
                write(&right, &store).await;
            }
            for _ in 0..20 {
                let (time, now) = write(&wrong, &store).await;
                assert!((now - HOUR..now + HOUR).contains(&time), "{time} at {now}");
            }
            store.clock().sleep(Duration::from_secs(1)).await;
            let before = store.clock().now_micros();
            let (time, now) = write(&right, &store).await;
            assert!((before..=now).contains(&time), "a right clock is right at once: {time} at {now}");
        });
    }
}

#[test]
fn after_a_long_silence_the_clock_is_followed_at_once() {
    let store = store();
    run(&store, async {
        let node = Node::open(&store, 1).await;
        write(&node, &store).await;
        store.clock().advance(Duration::from_secs(9 * 3600));
        let before = store.clock().now_micros();
        let (time, now) = write(&node, &store).await;
        assert!((before..=now).contains(&time), "{time} at {now}");
        // Nobody is asked while the steps are short.
        let puts =
            |store: &FaultStore| store.trace().iter().filter(|call| call.path.contains("clock-")).count();
        let asked = puts(&store);
        assert!(asked > 0);
        for _ in 0..10 {
            write(&node, &store).await;
        }
        assert_eq!(puts(&store), asked);
        // A clock that is behind follows the log.
        let behind = ahead(&store, 3, -YEARS).await;
        let (late, _) = write(&behind, &store).await;
        assert!(late > time);
        assert_eq!(puts(&store), asked);
    });
}
