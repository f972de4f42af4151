//! Whether a process runs: it may stand still for a while, and it may end between any two steps.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tandem_env::Clock;
use tandem_env::sim::SimClock;

/// One process. What it asks of the outside comes by here, so that it neither asks nor hears while it stands still, and
/// never again once it has ended.
#[derive(Debug)]
pub struct Life {
    clock: Arc<SimClock>,
    dead: AtomicBool,
    paused_until: Mutex<Duration>,
    /// How far its wall clock is off, in microseconds.
    skew: AtomicI64,
}

impl Life {
    pub fn new(clock: Arc<SimClock>, skew: i64) -> Arc<Self> {
        let (dead, paused_until, skew) = (AtomicBool::new(false), Mutex::default(), AtomicI64::new(skew));
        Arc::new(Self { clock, dead, paused_until, skew })
    }

    /// Returns once the process runs; never if it has ended.
    pub async fn pass(&self) {
        loop {
            if self.is_dead() {
                pending::<()>().await;
            }
            let (now, until) = (self.clock.monotonic(), *self.paused_until.lock().unwrap());
            if now >= until {
                return;
            }
            self.clock.sleep(until - now).await;
        }
    }

    pub fn kill(&self) {
        self.dead.store(true, Relaxed);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    pub fn pause(&self, d: Duration) {
        *self.paused_until.lock().unwrap() = self.clock.monotonic() + d;
    }

    pub fn set_skew(&self, micros: i64) {
        self.skew.store(micros, Relaxed);
    }
}

/// A process's own clocks.
#[derive(Debug)]
pub struct LifeClock(pub Arc<Life>);

impl Clock for LifeClock {
    fn now_micros(&self) -> i64 {
        self.0.clock.now_micros().saturating_add(self.0.skew.load(Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.0.clock.monotonic()
    }

    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        let life = self.0.clone();
        async move {
            life.clock.sleep(d).await;
            life.pass().await;
        }
        .boxed()
    }
}
