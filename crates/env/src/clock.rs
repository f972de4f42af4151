//! Time: the wall clock, a clock that never steps back, and waiting.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};

/// The time, and waiting for it to pass.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock in microseconds since 1970-01-01 UTC. May step in either direction.
    fn now_micros(&self) -> i64;

    /// Time since some fixed moment before now. Never steps back; for measuring and deadlines.
    fn monotonic(&self) -> Duration;

    /// Resolves once `d` has passed. Dropping it costs nothing.
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()>;
}

/// Runs `work` for at most `limit`; `None` (and `work` dropped) when the time is over.
pub async fn within<F: Future>(clock: &dyn Clock, limit: Duration, work: F) -> Option<F::Output> {
    match select(std::pin::pin!(work), clock.sleep(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is what the door opens on")]
    fn now_micros(&self) -> i64 {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is what the door opens on")]
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is what the door opens on")]
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        // Inside `async`, so that the timer is made where it is awaited: within the runtime.
        async move { tokio::time::sleep(d).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_clock_moves_forward_and_bounds_work() {
        let clock = SystemClock;
        let (wall, start) = (clock.now_micros(), clock.monotonic());
        assert!(wall > 1_700_000_000_000_000, "microseconds since 1970, not another unit");
        clock.sleep(Duration::from_millis(3)).await;
        assert!(clock.monotonic() - start >= Duration::from_millis(3));

        let never = std::future::pending::<()>();
        assert_eq!(within(&clock, Duration::from_millis(2), never).await, None);
        assert_eq!(within(&clock, Duration::from_secs(60), async { 7 }).await, Some(7));
    }
}
