//! When a call is tried again, where, and for how long.

use std::sync::Arc;
use std::time::Duration;

use tandem_env::{Chance, Clock, within};
use tandem_types::{Error, ErrorKind, Result};
use tonic::metadata::MetadataMap;

use crate::links::{Link, Links};
use crate::status::Failure;

/// The wait after all addresses were tried in vain: doubled each time, and a random part of it taken off.
const PAUSE_MIN: Duration = Duration::from_millis(50);
// A fail-over takes a few seconds, and whoever waits for it should not sleep on when it is over.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What waiting and chance need.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<dyn Chance>,
    /// How long after its first failure a call is tried again.
    pub(crate) retry_for: Duration,
}

/// The tries of one call. A call that goes on, such as a put, begins anew with each success.
#[derive(Debug)]
pub(crate) struct Retry {
    links: Arc<Links>,
    outside: Outside,
    /// When the first failure was seen.
    trouble_since: Option<Duration>,
    failures: u32,
    /// Addresses tried since the last wait.
    hops: usize,
    rounds: u32,
    pause: Option<Duration>,
    /// A failed try may have been carried out.
    maybe_done: bool,
}

impl Retry {
    pub(crate) fn new(links: Arc<Links>, outside: Outside) -> Self {
        Self {
            links,
            outside,
            trouble_since: None,
            failures: 0,
            hops: 0,
            rounds: 0,
            pause: None,
            maybe_done: false,
        }
    }

    /// Whether a failed try may have been carried out all the same.
    pub(crate) fn maybe_done(&self) -> bool {
        self.maybe_done
    }

    /// The link for the next try, after the wait that is due.
    ///
    /// # Errors
    ///
    /// `Unavailable` when no address could be reached in time.
    pub(crate) async fn link(&mut self, headers: &MetadataMap) -> Result<Link> {
        loop {
            if let Some(pause) = self.pause.take() {
                self.outside.clock.sleep(pause).await;
            }
            let linking = self.links.link(headers);
            let linked = match self.left() {
                None => linking.await,
                Some(left) => within(self.outside.clock.as_ref(), left, linking)
                    .await
                    .unwrap_or_else(|| Err(Error::unavailable("no server could be reached in time"))),
            };
            match linked {
                Ok(link) => return Ok(link),
                Err(error) => {
                    // Every address was tried.
                    self.hops = usize::MAX;
                    self.note(&error)?;
                }
            }
        }
    }

    /// Decides on a failed try: `Ok` if there is to be another one, which [`link`](Self::link) begins.
    ///
    /// # Errors
    ///
    /// The try's error, if it is none that another try could mend or the time is over.
    pub(crate) fn failed(&mut self, link: &Link, failure: Failure) -> Result<()> {
        self.maybe_done |= failure.lost;
        let error = failure.error;
        if failure.ours {
            return Err(error);
        }
        match (error.kind(), error.writer()) {
            (ErrorKind::NotWriter, Some(writers)) => self.links.leave_for(link, writers, &error),
            (ErrorKind::NotWriter | ErrorKind::Unavailable | ErrorKind::OutcomeUnknown, _) => {
                self.links.leave(link, &error);
            }
            _ => return Err(error),
        }
        self.hops = self.hops.saturating_add(1);
        self.note(&error)
    }

    /// The call goes on: what was in the way is over.
    pub(crate) fn succeeded(&mut self) {
        self.trouble_since = None;
        (self.failures, self.hops, self.rounds) = (0, 0, 0);
        self.maybe_done = false;
    }

    fn left(&self) -> Option<Duration> {
        let since = self.trouble_since?;
        Some((since + self.outside.retry_for).saturating_sub(self.outside.clock.monotonic()))
    }

    fn note(&mut self, error: &Error) -> Result<()> {
        let now = self.outside.clock.monotonic();
        let is_first = self.trouble_since.is_none();
        let since = *self.trouble_since.get_or_insert(now);
        self.failures += 1;
        if self.hops >= self.links.count() {
            self.hops = 0;
            self.pause = Some(self.next_pause());
        }
        let passed = now.saturating_sub(since) + self.pause.unwrap_or_default();
        if passed < self.outside.retry_for && retryable(error.kind()) {
            return Ok(());
        }
        if is_first || !retryable(error.kind()) {
            return Err(error.clone());
        }
        let seconds = now.saturating_sub(since).as_secs_f64();
        Err(error.clone().context(format!("given up after {} tries in {seconds:.1} s", self.failures)))
    }

    fn next_pause(&mut self) -> Duration {
        let whole = PAUSE_MIN.saturating_mul(1 << self.rounds.min(16)).min(PAUSE_MAX);
        self.rounds += 1;
        let half = whole / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(self.outside.chance.below(micros))
    }
}

/// Whether another node, or the same one later, may do better.
fn retryable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotWriter | ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
}
