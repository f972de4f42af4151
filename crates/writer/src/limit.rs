//! A replica that is kept behind on purpose: what it may apply now, and how it stands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_env::Clock;
use tandem_format::CommitHeader;
use tandem_log::{Admits, ApplyLimit};
use tandem_types::Seq;

/// Steps of the wall clock up to this many microseconds are corrections like any other.
const STEP: i64 = 1_000_000;

/// How a node stands to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The oldest commit that is known and not to be applied yet, and its commit time in microseconds since 1970.
    pub next: Option<(Seq, i64)>,
    /// Nothing more is applied, whatever happens.
    pub ended: bool,
}

#[derive(Debug)]
pub(crate) struct Limiter {
    pub limit: ApplyLimit,
    time: Mutex<SteadyTime>,
    clock: Arc<dyn Clock>,
    standing: Mutex<Standing>,
}

impl Limiter {
    /// `None` where everything is applied at once.
    pub fn new(limit: ApplyLimit, clock: Arc<dyn Clock>) -> Option<Self> {
        let time = SteadyTime::new(&*clock, limit.delay);
        (!limit.is_none()).then(|| Self { limit, time: Mutex::new(time), clock, standing: Mutex::default() })
    }

    pub fn admits(&self, header: &CommitHeader) -> Admits {
        self.limit.admits(header.seq, header.commit_time, self.now())
    }

    /// Microseconds since 1970, as the delay takes it.
    pub fn now(&self) -> i64 {
        lock(&self.time).now(self.clock.now_micros(), self.clock.monotonic())
    }

    pub fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    pub fn stands(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }

    /// How old the oldest commit is that is known and not applied.
    pub fn age_of_next(&self) -> Option<Duration> {
        let (_, time) = self.standing().next?;
        Some(Duration::from_micros(u64::try_from(self.now().saturating_sub(time)).unwrap_or(0)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is whole whenever the lock is free.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock, made safe for a delay that is a net under mistakes: a clock that jumps ahead must not tear it.
///
/// A step back is followed at once: the replica waits longer, which harms nobody. A step forward is believed once it has
/// stood for as long as the delay itself; until then time goes on from where it was. A machine that slept, or got its
/// time only after the start, catches up after that long.
#[derive(Debug)]
struct SteadyTime {
    /// Wall clock less the clock that never steps.
    offset: i64,
    /// Since when the wall clock has been ahead of that.
    ahead_since: Option<Duration>,
    believe_after: Duration,
}

impl SteadyTime {
    fn new(clock: &dyn Clock, believe_after: Duration) -> Self {
        let offset = clock.now_micros().saturating_sub(micros(clock.monotonic()));
        Self { offset, ahead_since: None, believe_after }
    }

    fn now(&mut self, wall: i64, monotonic: Duration) -> i64 {
        let present = wall.saturating_sub(micros(monotonic));
        let step = present.saturating_sub(self.offset);
        if step <= STEP {
            self.offset = present;
            self.ahead_since = None;
        } else {
            let since = *self.ahead_since.get_or_insert_with(|| {
                let seconds = step / 1_000_000;
                tracing::warn!(
                    seconds,
                    "this node's clock stepped ahead: the delay follows it once it has stood for as long as the delay"
                );
                monotonic
            });
            if monotonic.saturating_sub(since) >= self.believe_after {
                self.offset = present;
                self.ahead_since = None;
            }
        }
        micros(monotonic).saturating_add(self.offset)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tandem_env::sim::{START_MICROS, SimClock};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_only_after_the_delay() {
        let clock = SimClock::manual();
        let mut time = SteadyTime::new(&clock, MINUTE);
        let mut passed = |clock: &SimClock| time.now(clock.now_micros(), clock.monotonic()) - START_MICROS;
        let minutes = |n: i64| n * 60_000_000;
        clock.advance(MINUTE);
        assert_eq!(passed(&clock), minutes(1));
        // An hour ahead: for a minute nothing of it is seen, and nothing at all if it is taken back.
        clock.set_skew(minutes(60));
        assert_eq!(passed(&clock), minutes(1));
        clock.advance(MINUTE / 2);
        assert_eq!(passed(&clock), minutes(3) / 2);
        clock.set_skew(0);
        assert_eq!(passed(&clock), minutes(3) / 2);
        clock.set_skew(minutes(60));
        assert_eq!(passed(&clock), minutes(3) / 2);
        clock.advance(MINUTE);
        assert_eq!(passed(&clock), minutes(5) / 2 + minutes(60), "it has stood for long enough");
        // Back: at once. And a small correction in either direction is no step.
        clock.set_skew(-minutes(1));
        assert_eq!(passed(&clock), minutes(3) / 2);
        clock.set_skew(-minutes(1) + 900_000);
        assert_eq!(passed(&clock), minutes(3) / 2 + 900_000);
    }

    #[test]
    fn a_limit_tells_how_old_the_next_commit_is() {
        let clock = Arc::new(SimClock::manual());
        assert!(Limiter::new(ApplyLimit::default(), clock.clone()).is_none());
        let limit = ApplyLimit { delay: MINUTE, ..ApplyLimit::default() };
        let limiter = Limiter::new(limit, clock.clone()).unwrap();
        assert_eq!(limiter.age_of_next(), None);
        limiter.stands(Standing { next: Some((Seq(3), START_MICROS)), ended: false });
        clock.advance(MINUTE / 2);
        assert_eq!(limiter.age_of_next(), Some(MINUTE / 2));
    }
}
