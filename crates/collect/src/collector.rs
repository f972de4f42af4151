//! Looking at everything there is, and deleting what may go.

use std::collections::BTreeSet;

use futures::StreamExt;
use tandem_env::Mutant;
use tandem_format::{DATA_DIR, Floor, LOG_DIR, ROOT_DIR, SEGMENT_DIR};
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::judge::{Judge, Judged, Kind, lowest_inline};
use crate::roots::PartName;
use crate::{Aim, Lease, Report, Roots, Rules, Share, aim};

/// Objects that one request deletes.
const BATCH: usize = 1000;

/// So far may the log's age be ahead of the store's clock before that is worth a word: microseconds.
const AHEAD: i64 = 10 * 60_000_000;

/// Floors lie within the log, and stay.
const FLOORS: &str = "log/floor/";

/// What a collector remembers between rounds. Any node may have one.
#[derive(Debug, Default)]
pub struct Collector {
    roots: Roots,
}

impl Collector {
    /// Where history may be cut now; the state must be as new as can be had.
    pub async fn aim(&mut self, log: &Log, state: &Manifest, rules: &Rules, leases: &[Lease]) -> Result<Aim> {
        self.roots.refresh(log, state).await?;
        let found = aim(&self.roots, state, rules, leases, None);
        if !found.moves || rules.grace.is_zero() {
            return Ok(found);
        }
        // The log's age follows whoever writes, by ten minutes a commit: a busy node whose clock is years ahead takes it along.
        let now = log.store_time().await?;
        if state.age().saturating_sub(now) > AHEAD {
            tracing::warn!(
                ahead_s = (state.age() - now) / 1_000_000,
                "the log's time is ahead of the store's clock: a node's clock is wrong, history is cut by the store's"
            );
        }
        Ok(aim(&self.roots, state, rules, leases, Some(now)))
    }

    /// What is known of checkpoints, as of the last [`Collector::aim`].
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Judges all objects by a state, and deletes nothing. `each` is shown every object.
    pub async fn survey(
        &mut self,
        log: &Log,
        state: &Manifest,
        rules: &Rules,
        leases: &[Lease],
        each: impl FnMut(&Judged),
    ) -> Result<Report> {
        self.work(log, state, rules, leases, false, each).await
    }

    /// Trims the log, and deletes what may go by a state that was applied here. A round that ends early is no harm: the
    /// next one finds what is left.
    pub async fn collect(
        &mut self,
        log: &Log,
        state: &Manifest,
        rules: &Rules,
        leases: &[Lease],
    ) -> Result<Report> {
        self.work(log, state, rules, leases, true, |_| {}).await
    }

    async fn work(
        &mut self,
        log: &Log,
        state: &Manifest,
        rules: &Rules,
        leases: &[Lease],
        delete: bool,
        mut each: impl FnMut(&Judged),
    ) -> Result<Report> {
        let aim = self.aim(log, state, rules, leases).await?;
        let floor = match self.next_floor(log, state).await? {
            Some(next) if delete => Some(log.raise_floor(next).await?),
            Some(next) => Some(next),
            None => log.newest_floor().await?,
        };
        let mut judge = Judge::new(state, &self.roots, floor);
        judge.no_horizon = log.env().mutant(Mutant::HorizonIgnored);
        judge.held_back = aim.held_by.clone().map(|holder| (aim.by_window, holder));
        judge.floor_parts = parts_of(log, floor).await?;
        let grace = i64::try_from(rules.grace.as_micros()).unwrap_or(i64::MAX);
        if grace > 0 {
            judge.young_from = Some(log.store_time().await?.saturating_sub(grace));
        }
        let mut report = Report {
            seq: state.seq(),
            horizon: state.horizon(),
            history_start: state.history_start(),
            floor: floor.map_or(Seq(0), |floor| floor.seq),
            by_window: aim.by_window,
            held_by: aim.held_by,
            ..Report::default()
        };
        for dir in [LOG_DIR, ROOT_DIR, SEGMENT_DIR, DATA_DIR] {
            let mut batch: Vec<Judged> = Vec::new();
            // Roots before their parts, so that nobody finds a checkpoint in pieces.
            let mut parts: Vec<Judged> = Vec::new();
            let mut listing = log.env().store.list_below(dir);
            while let Some(found) = listing.next().await {
                let judged = judge.judge(found?);
                if judged.path.starts_with(FLOORS) {
                    continue;
                }
                each(&judged);
                report.count(&judged);
                if !delete || !judged.verdict.is_garbage() {
                    continue;
                }
                match judged.kind {
                    Kind::Part(..) => parts.push(judged),
                    _ => batch.push(judged),
                }
                if batch.len() >= BATCH {
                    delete_batch(log, std::mem::take(&mut batch), &mut report).await;
                }
            }
            delete_batch(log, batch, &mut report).await;
            while !parts.is_empty() {
                let rest = parts.split_off(parts.len().min(BATCH));
                delete_batch(log, std::mem::replace(&mut parts, rest), &mut report).await;
            }
        }
        Ok(report)
    }

    /// How far the log can be trimmed by now, if further than it is.
    async fn next_floor(&self, log: &Log, state: &Manifest) -> Result<Option<Floor>> {
        let present = log.newest_floor().await?.map_or(Seq(0), |floor| floor.seq);
        let chain = self.roots.chain();
        let [.., second, newest] = chain else { return Ok(None) };
        let floor =
            |seq| Floor { database: log.database(), seq, checkpoint: second.seq, root_hash: second.hash };
        if log.env().mutant(Mutant::FloorAheadOfCheckpoint) {
            let ahead = Floor { checkpoint: state.seq(), ..floor(state.seq()) };
            return Ok((ahead.seq > present).then_some(ahead));
        }
        if self.roots.unreadable().is_some() {
            return Ok(None);
        }
        let (Some(oldest), Some(start)) =
            (self.roots.oldest_kept(state), self.roots.at(state.history_start()))
        else {
            return Ok(None);
        };
        // The commit that history begins with stays: it says when that was.
        let before = Seq(state.history_start().0.saturating_sub(1));
        let mut lowest = second.seq.min(oldest.seq).min(before);
        if lowest <= present {
            return Ok(None);
        }
        // What stands in commits and left the tail since then is named by what history begins with, or was brought back.
        let (past, found) = load(log, start.seq).await?;
        let past = log.state_at(state.history_start(), Some(&past)).await?;
        let inline = [lowest_inline(&past), lowest_inline(state), state.brought_back()];
        for seq in inline.into_iter().flatten() {
            lowest = lowest.min(Seq(seq.0.saturating_sub(1)));
        }
        if lowest <= present {
            return Ok(None);
        }
        // Behind the floor there is nothing to begin from but these.
        let mut whole = found == start.hash;
        for link in [second, newest] {
            whole &= load(log, link.seq).await?.1 == link.hash;
        }
        if !whole {
            return Err(Error::damaged(
                "a checkpoint is not the one that the log records: the log is not trimmed",
            ));
        }
        Ok(Some(floor(lowest)))
    }
}

async fn load(log: &Log, seq: Seq) -> Result<(Manifest, [u8; 32])> {
    log.load_checkpoint(seq).await.map_err(|e| e.context("the log is not trimmed"))
}

/// The parts of the checkpoint that a floor names.
async fn parts_of(log: &Log, floor: Option<Floor>) -> Result<BTreeSet<PartName>> {
    let Some(floor) = floor else { return Ok(BTreeSet::new()) };
    match log.load_root(floor.checkpoint).await {
        Ok((root, _)) => Ok(root.parts.iter().map(|part| (part.base, part.hash)).collect()),
        // Damaged since; newer ones lead to the head.
        Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NewerFormat) => {
            tracing::warn!(error = %e, "the checkpoint that the log's floor names is damaged");
            Ok(BTreeSet::new())
        }
        Err(e) => Err(e),
    }
}

async fn delete_batch(log: &Log, batch: Vec<Judged>, report: &mut Report) {
    if batch.is_empty() {
        return;
    }
    let share = batch.iter().fold(Share::default(), |mut sum, judged| {
        sum.add(judged.bytes);
        sum
    });
    let kind = batch.first().map_or("unknown", |judged| judged.kind.name());
    let paths: Vec<String> = batch.into_iter().map(|judged| judged.path).collect();
    let (gone, failed) = log.env().store.delete_all(paths).await;
    metrics::counter!("tandem_collected_objects_total", "kind" => kind).increment(gone);
    report.deleted.objects += gone;
    // Of a batch that went in part it is not known which part.
    if gone == share.objects {
        metrics::counter!("tandem_collected_bytes_total", "kind" => kind).increment(share.bytes);
        report.deleted.bytes = report.deleted.bytes.saturating_add(share.bytes);
    }
    if let Some(error) = failed {
        tracing::warn!(%error, kind, "garbage stays for now");
        report.failed.get_or_insert(error.to_string());
    }
}
