//! Virtual time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tokio::sync::Notify;

use super::START_MICROS;
use crate::Clock;

/// How long, in the runtime's time, nothing may happen before the earliest sleeper wakes. With
/// paused time this waits for every task to be idle, and costs nothing.
const IDLE: Duration = Duration::from_millis(1);

/// A clock that moves only when nobody has anything else to do, or only when told.
///
/// With [`SimClock::auto`], time jumps to the earliest sleeper's end once the tasks are idle:
/// exactly so in a tokio runtime with paused time, and after a real millisecond in any other.
#[derive(Debug)]
pub struct SimClock {
    shared: Arc<Shared>,
    auto: bool,
}

#[derive(Debug, Default)]
struct Shared {
    time: Mutex<Time>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Time {
    now: Duration,
    /// How far the wall clock is off, in microseconds.
    skew: i64,
    next_id: u64,
    /// Who sleeps until when, in the order of waking.
    sleepers: BTreeSet<(Duration, u64)>,
}

impl Shared {
    fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves time to the earliest sleeper's end. Any sleeper may do that: the earliest one's
    /// task may itself wait for a later one, and not look at its timer meanwhile.
    fn jump(&self) {
        let mut time = self.time();
        if let Some((end, _)) = time.sleepers.pop_first() {
            time.now = time.now.max(end);
        }
        drop(time);
        self.changed.notify_waiters();
    }
}

impl SimClock {
    /// Time that moves by itself, to the next sleeper's end.
    pub fn auto() -> Self {
        Self { shared: Arc::default(), auto: true }
    }

    /// Time that moves by [`SimClock::advance`] alone.
    pub fn manual() -> Self {
        Self { shared: Arc::default(), auto: false }
    }

    /// Moves time forward.
    pub fn advance(&self, d: Duration) {
        self.shared.time().now += d;
        self.shared.changed.notify_waiters();
    }

    /// Sets how far the wall clock is off, in microseconds. Measured time does not change.
    pub fn set_skew(&self, micros: i64) {
        self.shared.time().skew = micros;
    }
}

impl Clock for SimClock {
    fn now_micros(&self) -> i64 {
        let time = self.shared.time();
        let passed = i64::try_from(time.now.as_micros()).unwrap_or(i64::MAX);
        START_MICROS.saturating_add(passed).saturating_add(time.skew)
    }

    fn monotonic(&self) -> Duration {
        self.shared.time().now
    }

    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        let (shared, auto) = (self.shared.clone(), self.auto);
        async move { Sleeper::new(shared, d).wait(auto).await }.boxed()
    }
}

/// A sleeper's place in the queue, given up when it is dropped.
struct Sleeper {
    shared: Arc<Shared>,
    place: (Duration, u64),
}

impl Sleeper {
    fn new(shared: Arc<Shared>, d: Duration) -> Self {
        let mut time = shared.time();
        let place = (time.now.saturating_add(d), time.next_id);
        time.next_id += 1;
        time.sleepers.insert(place);
        drop(time);
        // Not everybody is idle.
        shared.changed.notify_waiters();
        Self { shared, place }
    }

    #[expect(clippy::disallowed_methods, reason = "idleness of the runtime is told by its own timer")]
    async fn wait(self, auto: bool) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            // From here on a change is noticed; the look comes after, so that none is missed.
            changed.as_mut().enable();
            if self.shared.time().now >= self.place.0 {
                return;
            }
            if !auto {
                changed.await;
                continue;
            }
            if tokio::runtime::Handle::try_current().is_ok() {
                let idle = std::pin::pin!(tokio::time::sleep(IDLE));
                // A change begins the wait anew: somebody was not idle.
                if let Either::Left(_) = select(changed, idle).await {
                    continue;
                }
            }
            self.shared.jump();
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.shared.time().sleepers.remove(&self.place);
        self.shared.changed.notify_waiters();
    }
}
