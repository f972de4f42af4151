//! The time of a commit: the node's clock, unless it is far from where the log is.
//!
//! It serves `AS OF` and `now()`, and it never goes back: a single commit of a clock that is years ahead would give all
//! later ones its time. So a long step forward needs the word of the store's clock, which all nodes have in common. An
//! idle database makes such a step every night; it costs three requests.

use std::time::Duration;

use tandem_env::within;
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::Seq;

/// A longer step needs a second opinion, and so does a clock that is further from the store's: an hour, in microseconds.
const LONG_STEP: i64 = 3_600_000_000;

/// How long the store's word counts, and how long that it had none: a clock that is wrong would ask at each commit.
const FRESH: Duration = Duration::from_secs(600);
const FRESH_SILENCE: Duration = Duration::from_secs(10);

/// How long the store is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the store's clock was found to say.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// By a clock that only runs forward.
    at: Duration,
    /// Microseconds since 1970; `None`: it could not be asked.
    store: Option<i64>,
}

/// Chooses the times of a node's commits.
#[derive(Debug, Default)]
pub(super) struct Time {
    last: Option<Look>,
}

impl Time {
    /// Of the commit that follows a state, in microseconds since 1970: strictly growing, and this node's clock where
    /// nothing speaks against it.
    pub(super) async fn of_commit(&mut self, log: &Log, state: &Manifest, clock: i64) -> i64 {
        let previous = state.commit_time();
        let least = previous.saturating_add(1).max(1);
        if clock <= previous.saturating_add(LONG_STEP) {
            return clock.max(least);
        }
        let step_s = clock.saturating_sub(previous) / 1_000_000;
        match self.store_time(log).await {
            Some(store) if clock <= store.saturating_add(LONG_STEP) => {
                if state.seq() > Seq(0) {
                    tracing::info!(step_s, "the log's time steps forward to this node's clock");
                }
                clock.max(least)
            }
            Some(store) => {
                let ahead_s = clock.saturating_sub(store) / 1_000_000;
                tracing::warn!(
                    ahead_s,
                    "this node's clock is ahead of the store's, whose time the commit is given"
                );
                store.max(least)
            }
            None if state.seq() == Seq(0) => clock.max(least),
            None => {
                tracing::warn!(
                    step_s,
                    "this node's clock is ahead of the log's time, and the store's could not be asked: the log's stands still"
                );
                least
            }
        }
    }

    async fn store_time(&mut self, log: &Log) -> Option<i64> {
        let clock = &log.env().clock;
        let now = clock.monotonic();
        if let Some(Look { at, store }) = self.last {
            let since = now.saturating_sub(at);
            let fresh = if store.is_some() { FRESH } else { FRESH_SILENCE };
            if since < fresh {
                let since = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
                return store.map(|store| store.saturating_add(since));
            }
        }
        let store = match within(&**clock, PATIENCE, log.store_time()).await {
            Some(Ok(store)) => Some(store),
            Some(Err(error)) => {
                tracing::debug!(%error, "the store's clock could not be asked");
                None
            }
            None => None,
        };
        self.last = Some(Look { at: clock.monotonic(), store });
        store
    }
}
