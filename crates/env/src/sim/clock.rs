//! Virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, poll_fn, select};
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
    /// For the sleepers of a clock that moves by itself: they watch each other.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Time {
    now: Duration,
    /// How far the wall clock is off, in microseconds.
    skew: i64,
    next_id: u64,
    /// Who sleeps until when, in the order of waking, and how to wake them.
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
}

impl Shared {
    fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves time to the earliest sleeper's end, if anybody sleeps. Any sleeper may do that: the earliest one's
    /// task may itself wait for a later one, and not look at its timer meanwhile.
    fn jump(&self) -> bool {
        let mut time = self.time();
        let Some(((end, _), first)) = time.sleepers.pop_first() else { return false };
        time.now = time.now.max(end);
        let mut due = time.take_due();
        drop(time);
        due.extend(first);
        due.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
        true
    }
}

impl Time {
    /// Those whose sleep is over.
    fn take_due(&mut self) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(first) = self.sleepers.first_entry()
            && first.key().0 <= self.now
        {
            due.extend(first.remove());
        }
        due
    }
}

impl SimClock {
    /// Time that moves by itself, to the next sleeper's end.
    pub fn auto() -> Self {
        Self { shared: Arc::default(), auto: true }
    }

    /// Time that moves by [`SimClock::advance`] and [`SimClock::jump`] alone.
    pub fn manual() -> Self {
        Self { shared: Arc::default(), auto: false }
    }

    /// Moves time forward.
    pub fn advance(&self, d: Duration) {
        let mut time = self.shared.time();
        time.now += d;
        let due = time.take_due();
        drop(time);
        due.into_iter().for_each(Waker::wake);
        self.shared.changed.notify_waiters();
    }

    /// Moves time forward to where the earliest sleep is over; `false` if nobody sleeps.
    pub fn jump(&self) -> bool {
        self.shared.jump()
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
        async move {
            let sleeper = Sleeper::new(shared, d, auto);
            match auto {
                true => sleeper.watch().await,
                false => poll_fn(|cx| sleeper.poll(cx)).await,
            }
        }
        .boxed()
    }
}

/// A sleeper's place in the queue, given up when it is dropped.
struct Sleeper {
    shared: Arc<Shared>,
    place: (Duration, u64),
    auto: bool,
}

impl Sleeper {
    fn new(shared: Arc<Shared>, d: Duration, auto: bool) -> Self {
        let mut time = shared.time();
        let place = (time.now.saturating_add(d), time.next_id);
        time.next_id += 1;
        time.sleepers.insert(place, None);
        drop(time);
        if auto {
            // Not everybody is idle.
            shared.changed.notify_waiters();
        }
        Self { shared, place, auto }
    }

    /// Waits to be woken by who moves the clock.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut time = self.shared.time();
        if time.now >= self.place.0 {
            return Poll::Ready(());
        }
        time.sleepers.insert(self.place, Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Moves the clock itself once everybody is idle.
    #[expect(clippy::disallowed_methods, reason = "idleness of the runtime is told by its own timer")]
    async fn watch(&self) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            // From here on a change is noticed; the look comes after, so that none is missed.
            changed.as_mut().enable();
            if self.shared.time().now >= self.place.0 {
                return;
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
        if self.auto {
            self.shared.changed.notify_waiters();
        }
    }
}
