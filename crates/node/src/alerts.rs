//! What operators are woken by: gauges that are computed when somebody looks, and counters that are there before they first
//! count, so that an alert on them is no alert on nothing. `docs/alerts.md` says which of them to watch, and for what.

use tandem_manifest::{Logged, Manifest};
use tandem_types::Seq;

use crate::Shared;

/// Counted where it happens; named here so that they exist from the start.
const COUNTERS: [&str; 12] = [
    "tandem_cache_damaged_total",
    "tandem_cache_errors_total",
    "tandem_cache_hits_total",
    "tandem_cache_misses_total",
    "tandem_collect_failures_total",
    "tandem_commits_lost_total",
    "tandem_commits_total",
    "tandem_compactions_total",
    "tandem_heartbeat_failures_total",
    "tandem_quorum_timeouts_total",
    "tandem_starts_over_total",
    "tandem_upkeep_failures_total",
];

pub(crate) fn observe(shared: &Shared, state: &Manifest) {
    for name in COUNTERS {
        metrics::counter!(name).increment(0);
    }
    let behind = shared.logged_behind(state);
    metrics::gauge!("tandem_lag_rows").set(behind.rows as f64);
    metrics::gauge!("tandem_lag_bytes").set(behind.bytes as f64);
    metrics::gauge!("tandem_stopped").set(f64::from(u8::from(shared.failure().is_some())));
    metrics::gauge!("tandem_writes_here").set(f64::from(u8::from(!shared.writer.role().is_replica())));
    let checkpoint = state.checkpoint().map_or(Seq(0), |(seq, _)| seq);
    let since = state.seq().0.saturating_sub(checkpoint.0);
    metrics::gauge!("tandem_commits_since_checkpoint").set(since as f64);
    let limit = &shared.config.writer.limit;
    metrics::gauge!("tandem_apply_delay_seconds").set(limit.delay.as_secs_f64());
    let ended = shared.writer.standing().is_some_and(|standing| standing.ended);
    metrics::gauge!("tandem_stands_still").set(f64::from(u8::from(ended)));
    let disk = shared.disk.as_ref();
    metrics::gauge!("tandem_cache_bytes").set(disk.map_or(0, |disk| disk.bytes()) as f64);
    metrics::gauge!("tandem_cache_max_bytes").set(disk.map_or(0, |disk| disk.bytes_max()) as f64);
}

impl Shared {
    /// The most that anybody says to have been logged.
    pub(crate) fn newest_logged(&self, state: &Manifest) -> Logged {
        self.peers.all().into_iter().fold(state.logged(), |most, seen| Logged {
            rows: most.rows.max(seen.heartbeat.logged_rows),
            bytes: most.bytes.max(seen.heartbeat.logged_bytes),
        })
    }

    /// What this node is behind, by the last heartbeats of the others.
    pub(crate) fn logged_behind(&self, state: &Manifest) -> Logged {
        match self.writer.lag().commits {
            // Heartbeats may be older than what is here.
            0 => Logged::default(),
            _ => between(self.newest_logged(state), state.logged()),
        }
    }
}

/// What was logged between two states.
pub(crate) fn between(newer: Logged, older: Logged) -> Logged {
    Logged { rows: newer.rows.saturating_sub(older.rows), bytes: newer.bytes.saturating_sub(older.bytes) }
}
