//! When to delete, and for whom history is held back.
//!
//! Any writer may collect; that several do is waste and no harm. Who reads old states says so: a node's running queries
//! are in its heartbeat, and whoever is about to cut history pins what they need, for a while that is renewed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tandem_collect::{Collector, Judged, Lease, Report, Rules, Share};
use tandem_format::{NODES_DIR, Pin, heartbeat_path};
use tandem_manifest::{Intent, Manifest, Step};
use tandem_sql::{CollectRequest, Collected, StoredObject, StoredShare};
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::Shared;

/// A lease ends so long, in the log's age, after it was last renewed.
const LEASE: i64 = 15 * 60_000_000;

/// Whose heartbeat is older, in microseconds by the store's clock, needs nothing any more.
const SILENT: i64 = 10 * 60_000_000;

/// Of the window, a checkpoint is at most so old a part: history can only be cut at checkpoints.
const CHECKPOINTS_PER_WINDOW: i64 = 8;

/// A checkpoint is not worth it for fewer commits: collecting makes some itself.
const COMMITS_MIN: u64 = 4;

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let clock = shared.env.clock.clone();
    if !shared.config.collect || !shared.config.upkeep {
        return;
    }
    loop {
        // Not in step with other nodes.
        let interval = u64::try_from(shared.config.collect_interval.as_micros()).unwrap_or(u64::MAX);
        let wait = interval / 2 + shared.env.chance.below((interval / 2).max(1));
        clock.sleep(Duration::from_micros(wait)).await;
        if shared.writer.role().is_replica() {
            continue;
        }
        match shared.collect_round(false).await {
            Ok(report) => tell(&report),
            Err(e) if e.kind() == ErrorKind::Serialization => {
                tracing::debug!(error = %e, "another node cuts history at the same time");
            }
            Err(e) => {
                tracing::warn!(error = %e, "collecting failed, trying again later");
                metrics::counter!("tandem_collect_failures_total").increment(1);
            }
        }
    }
}

fn tell(report: &Report) {
    observe(report);
    if report.deleted.objects > 0 {
        tracing::info!(
            objects = report.deleted.objects,
            bytes = report.deleted.bytes,
            history_start = %report.history_start,
            floor = %report.floor,
            "deleted what nothing needs any more"
        );
    }
}

fn observe(report: &Report) {
    metrics::gauge!("tandem_history_start_seq").set(report.history_start.0 as f64);
    metrics::gauge!("tandem_horizon_seq").set(report.horizon.0 as f64);
    metrics::gauge!("tandem_log_floor_seq").set(report.floor.0 as f64);
    let held =
        report.held.iter().filter(|((_, by), _)| !matches!(by.as_str(), "live" | "log" | "checkpoint"));
    let held: u64 = held.map(|(_, share)| share.bytes).sum();
    metrics::gauge!("tandem_held_bytes").set(held as f64);
    let left = report.garbage_total().bytes.saturating_sub(report.deleted.bytes);
    metrics::gauge!("tandem_garbage_bytes").set(left as f64);
}

impl Shared {
    /// The oldest state that a query here reads.
    pub(crate) fn oldest_query(&self) -> Option<Seq> {
        self.queries.get().and_then(|queries| queries.oldest_snapshot())
    }

    /// Who needs which state: queries here and elsewhere, and nodes that stand still or far back.
    async fn leases(&self) -> Result<Vec<Lease>> {
        // Heartbeats are looked at now and then at most, and not at all by a node that is alone.
        self.look().await?;
        // How old they are says the store, by one clock: those of nodes may be wrong.
        let recent = self.log.store_time().await?.saturating_sub(SILENT);
        let mut beating = BTreeSet::new();
        let mut objects = self.env.store.list_below(NODES_DIR);
        while let Some(found) = objects.try_next().await? {
            if found.modified > recent {
                beating.insert(found.path);
            }
        }
        let own = self.oldest_query().map(|seq| Lease { seq, holder: self.config.node_id.clone() });
        let heartbeats = self.peers.all().into_iter().map(|seen| seen.heartbeat);
        let others = heartbeats.filter(|peer| beating.contains(&heartbeat_path(&peer.node_id)));
        let others = others.map(|peer| Lease {
            seq: Seq(peer.oldest_seq.unwrap_or(peer.applied_seq).min(peer.applied_seq)),
            holder: peer.node_id,
        });
        Ok(own.into_iter().chain(others).collect())
    }

    /// Cuts history as far as it may be, and deletes what that sets free. `asked`: by a person, who expects to see it.
    async fn collect_round(&self, asked: bool) -> Result<Report> {
        self.writer.role().check_writes()?;
        let started = self.env.clock.monotonic();
        let mut collector = self.collector.lock().await;
        let rules = self.config.collect_rules;
        self.writer.catch_up_now().await?;
        let leases = self.leases().await?;
        let mut state = self.writer.state();
        let aim = collector.aim(&self.log, &state, &rules, &leases).await?;
        if self.wants_checkpoint(&collector, &state, asked) {
            self.write_checkpoint().await?;
            state = self.writer.state();
        }
        self.renew_leases(&state, &leases, aim.by_window).await?;
        state = self.writer.state();
        let aim = collector.aim(&self.log, &state, &rules, &leases).await?;
        if aim.moves {
            let step = Step::Horizon { horizon: aim.horizon, history_start: aim.history_start };
            self.writer.submit_upkeep(state.seq(), vec![step]).await?;
            state = self.writer.state();
        }
        let report = collector.collect(&self.log, &state, &rules, &leases).await?;
        let took = self.env.clock.monotonic() - started;
        metrics::histogram!("tandem_collect_seconds").record(took.as_secs_f64());
        Ok(report)
    }

    fn wants_checkpoint(&self, collector: &Collector, state: &Manifest, asked: bool) -> bool {
        let newest = state.checkpoint().map_or(Seq(0), |(seq, _)| seq);
        let commits = state.seq().0.saturating_sub(newest.0);
        let spacing = state.history_window() / CHECKPOINTS_PER_WINDOW;
        let old = collector.roots().newest_age(state).is_none_or(|age| age >= spacing);
        old && commits > if asked { COMMITS_MIN / 2 } else { COMMITS_MIN }
    }

    /// Pins what somebody needs from before `by_window`, and lets go what this node does not need any more.
    async fn renew_leases(&self, state: &Manifest, leases: &[Lease], by_window: Seq) -> Result<()> {
        let id = |holder: &str| format!("lease-{holder}");
        let mut steps = Vec::new();
        for lease in leases.iter().filter(|l| l.seq < by_window && l.seq >= state.history_start()) {
            let known = state.pins().find(|pin| pin.id == id(&lease.holder));
            let holds = |pin: &Pin| {
                let lasts = pin.expires.is_none_or(|age| age >= state.age().saturating_add(LEASE / 2));
                pin.seq <= lease.seq && lasts
            };
            if !known.is_some_and(holds) {
                steps.push(Step::Pin(Pin {
                    id: id(&lease.holder),
                    seq: lease.seq,
                    store: None,
                    reason: format!("node {} reads it", lease.holder),
                    expires: Some(state.age().saturating_add(LEASE)),
                }));
            }
        }
        let own = id(&self.config.node_id);
        let needed = leases.iter().any(|lease| id(&lease.holder) == own && lease.seq < by_window);
        if !needed && state.pins().any(|pin| pin.id == own) {
            steps.push(Step::Unpin { id: own });
        }
        if !steps.is_empty() {
            self.writer.submit_upkeep(state.seq(), steps).await?;
        }
        Ok(())
    }

    /// What `tandem gc` does.
    pub(crate) async fn collect_on_request(&self, request: CollectRequest) -> Result<Collected> {
        let report = match request.dry_run {
            true => self.rehearse().await?,
            false => self.collect_round(true).await?,
        };
        observe(&report);
        Ok(collected(report))
    }

    /// The rows of `system.gc`.
    pub(crate) async fn survey_objects(&self) -> Result<Vec<StoredObject>> {
        let mut objects = Vec::new();
        self.survey(|judged| {
            let garbage = judged.verdict.is_garbage();
            objects.push(StoredObject {
                path: judged.path.clone(),
                bytes: judged.bytes,
                state: if garbage { "garbage" } else { "held" }.to_owned(),
                held_by: (!garbage).then(|| judged.verdict.to_string()),
            });
        })
        .await?;
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    /// What a round would do now, but for the checkpoint that it might write first.
    async fn rehearse(&self) -> Result<Report> {
        let mut collector = self.collector.lock().await;
        let rules: Rules = self.config.collect_rules;
        let (leases, mut state) = (self.leases().await?, self.writer.state());
        let aim = collector.aim(&self.log, &state, &rules, &leases).await?;
        if aim.moves {
            let steps = vec![Step::Horizon { horizon: aim.horizon, history_start: aim.history_start }];
            let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: state.seq(), steps };
            match state.preview(&intent, state.commit_time().saturating_add(1)) {
                Ok(after) => state = Arc::new(after),
                Err(rejection) => tracing::debug!(?rejection, "history cannot be cut now"),
            }
        }
        collector.survey(&self.log, &state, &rules, &leases, |_| {}).await
    }

    async fn survey(&self, each: impl FnMut(&Judged)) -> Result<Report> {
        let mut collector = self.collector.lock().await;
        let rules: Rules = self.config.collect_rules;
        let (leases, state) = (self.leases().await?, self.writer.state());
        collector.survey(&self.log, &state, &rules, &leases, each).await
    }

    /// Whether what a snapshot names is missing because history has passed it.
    pub(crate) async fn gone_or_damaged(&self, snapshot: Seq, error: Error) -> Error {
        // A node that is kept at an old state does not hear of it by applying.
        let start = match self.writer.standing() {
            None => self.writer.catch_up_now().await.map(|_| self.writer.state().history_start()),
            Some(_) => self.log.recover().await.map(|recovered| recovered.manifest.history_start()),
        };
        match start {
            Ok(start) if snapshot < start => Error::new(
                ErrorKind::HistoryGone,
                format!(
                    "the state at {snapshot} is gone while it was read: history begins at {start} ({error})"
                ),
            ),
            _ => error,
        }
    }
}

fn collected(report: Report) -> Collected {
    let share = |kind: &str, held_by: Option<String>, share: Share| StoredShare {
        kind: kind.to_owned(),
        held_by,
        objects: share.objects,
        bytes: share.bytes,
    };
    Collected {
        seq: report.seq.0,
        horizon: report.horizon.0,
        history_start: report.history_start.0,
        floor: report.floor.0,
        by_window: report.by_window.0,
        held_by: report.held_by,
        garbage: report.garbage.into_iter().map(|(kind, sum)| share(kind, None, sum)).collect(),
        held: report.held.into_iter().map(|((kind, by), sum)| share(kind, Some(by), sum)).collect(),
        deleted_objects: report.deleted.objects,
        deleted_bytes: report.deleted.bytes,
        failed: report.failed,
    }
}

#[cfg(test)]
mod tests;
