//! How much all requests together may hold: what does not fit waits a little, then is sent away for now.
//!
//! A small body takes room by its bytes, as they come, so that clients which send nothing take none. A large one is
//! handed on while it comes and holds about the same whatever its length: of those, few are read at a time.

use std::time::Duration;

use tandem_env::{Clock, within};
use tandem_types::{Error, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A body beyond this is large, in bytes.
const LARGE_BYTES: u64 = 1 << 20;
/// Large ones that are read at a time.
const LARGE_AT_ONCE: usize = 16;
/// What is counted, in bytes.
const UNIT: u64 = 4 << 10;
/// Units of all small ones together: 128 MiB.
const SMALL_UNITS: usize = (128 << 20) / (4 << 10);
/// How long a request waits for room: less than its client waits for the answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// The room that there is.
#[derive(Debug)]
pub(crate) struct Room {
    small: Semaphore,
    large: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        Self { small: Semaphore::new(SMALL_UNITS), large: Semaphore::new(LARGE_AT_ONCE) }
    }
}

impl Room {
    /// For a request that holds nothing yet.
    pub fn place(&self) -> Place<'_> {
        Place { room: self, small: None, large: None }
    }
}

/// What one request holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    room: &'a Room,
    small: Option<SemaphorePermit<'a>>,
    large: Option<SemaphorePermit<'a>>,
}

impl Place<'_> {
    /// Its body has grown to that many bytes.
    ///
    /// # Errors
    ///
    /// `Overloaded` if there was no room for it for a while.
    pub async fn grow(&mut self, bytes: u64, clock: &dyn Clock) -> Result<()> {
        if self.large.is_some() {
            return Ok(());
        }
        if bytes > LARGE_BYTES {
            let turn = wait(clock, self.room.large.acquire()).await;
            self.large = Some(turn.ok_or_else(|| {
                Error::overloaded(format!("{LARGE_AT_ONCE} large bodies are being written: send it again"))
            })?);
            self.small = None;
            return Ok(());
        }
        let wanted = bytes.div_ceil(UNIT);
        let has = self.small.as_ref().map_or(0, SemaphorePermit::num_permits) as u64;
        let more = u32::try_from(wanted.saturating_sub(has)).unwrap_or(u32::MAX);
        if more > 0 {
            let grown = wait(clock, self.room.small.acquire_many(more)).await;
            let grown = grown.ok_or_else(|| {
                Error::overloaded("requests that wait for their commit take all the room: send it again")
            })?;
            match &mut self.small {
                Some(small) => small.merge(grown),
                None => self.small = Some(grown),
            }
        }
        Ok(())
    }
}

/// `None` if it did not come in time.
async fn wait<T, E>(clock: &dyn Clock, turn: impl Future<Output = Result<T, E>>) -> Option<T> {
    within(clock, PATIENCE, turn).await?.ok()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use tandem_env::SystemClock;
    use tandem_types::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn small_bodies_take_room_by_their_bytes_and_give_it_back() {
        let room = Room { small: Semaphore::new(10), large: Semaphore::new(1) };
        let mut one = room.place();
        one.grow(1, &SystemClock).await.unwrap();
        one.grow(UNIT, &SystemClock).await.unwrap();
        assert_eq!(room.small.available_permits(), 9, "a unit is taken once");
        one.grow(6 * UNIT - 1, &SystemClock).await.unwrap();
        let mut other = room.place();
        other.grow(4 * UNIT, &SystemClock).await.unwrap();
        assert_eq!(room.small.available_permits(), 0);
        assert!(other.grow(5 * UNIT, &SystemClock).now_or_never().is_none(), "it waits");
        drop(one);
        other.grow(5 * UNIT, &SystemClock).await.unwrap();
        other.grow(LARGE_BYTES + 1, &SystemClock).await.unwrap();
        assert_eq!((room.small.available_permits(), room.large.available_permits()), (10, 0));
        other.grow(LARGE_BYTES * 900, &SystemClock).await.unwrap();
        let mut third = room.place();
        assert!(third.grow(LARGE_BYTES + 1, &SystemClock).now_or_never().is_none());
        drop(other);
        third.grow(LARGE_BYTES + 1, &SystemClock).await.unwrap();
    }

    /// To whom all waiting is over at once.
    #[derive(Debug)]
    struct Impatient;

    impl Clock for Impatient {
        fn now_micros(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            std::future::ready(()).boxed()
        }
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_to_come_again() {
        let room = Room { small: Semaphore::new(1), large: Semaphore::new(0) };
        for bytes in [2 * UNIT, LARGE_BYTES + 1] {
            let refused = room.place().grow(bytes, &Impatient).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Overloaded);
        }
    }
}
