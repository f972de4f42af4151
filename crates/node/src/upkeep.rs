//! Upkeep: when compaction and checkpoints run.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tandem_compact::{Inputs, Job, LoadSection, Urgency, next_jobs};
use tandem_log::WrittenCheckpoint;
use tandem_manifest::{Manifest, Step, TailSection};
use tandem_segment::DecodedSection;
use tandem_sql::Receipt;
use tandem_types::{Error, ErrorKind, Result, Seq, TableId, TableName};

use crate::Shared;

/// After a failure upkeep waits this long before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often a statement's compaction starts over because somebody else's commit took its inputs.
const CONFLICTS_MAX: u32 = 100;

/// What upkeep remembers between jobs.
#[derive(Debug)]
pub(crate) struct Upkeep {
    checkpoint: Option<WrittenCheckpoint>,
    /// `Writer::logged_bytes` when the last checkpoint was written, less what was replayed at the start.
    bytes_at_checkpoint: i128,
    /// Seqs by the time at which they were the head, to know how long rows have waited.
    heads: VecDeque<(Duration, Seq)>,
}

/// How finely the waiting of rows is told: this many heads are remembered per `tail_age`.
const HEADS_PER_AGE: u32 = 16;

impl Upkeep {
    pub fn new(checkpoint: Option<WrittenCheckpoint>, replayed_bytes: u64) -> Self {
        Self { checkpoint, bytes_at_checkpoint: -i128::from(replayed_bytes), heads: VecDeque::new() }
    }

    /// The seq up to which everything is older than `age`, as far as this process has seen.
    fn waited(&mut self, now: Duration, head: Seq, age: Duration) -> Option<Seq> {
        let step = age / HEADS_PER_AGE;
        if self.heads.back().is_none_or(|(at, _)| now >= *at + step) {
            self.heads.push_back((now, head));
        }
        let old = |entry: &(Duration, Seq)| entry.0 + age <= now;
        while self.heads.get(1).is_some_and(old) {
            self.heads.pop_front();
        }
        self.heads.front().filter(|entry| old(entry)).map(|(_, seq)| *seq)
    }
}

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    if !shared.config.upkeep {
        return;
    }
    let clock = shared.env.clock.clone();
    loop {
        if shared.writer.role().is_replica() {
            clock.sleep(shared.config.upkeep_interval).await;
            continue;
        }
        match shared.upkeep_round().await {
            Ok(true) => {}
            Ok(false) => clock.sleep(shared.config.upkeep_interval).await,
            Err(e) if e.kind() == ErrorKind::Serialization => {
                tracing::debug!(error = %e, "another node did this piece of upkeep first");
            }
            Err(e) => {
                tracing::warn!(error = %e, "upkeep failed, trying again later");
                metrics::counter!("tandem_upkeep_failures_total").increment(1);
                clock.sleep(RETRY_AFTER).await;
            }
        }
    }
}

impl Shared {
    /// One job, if any is worth doing.
    async fn upkeep_round(&self) -> Result<bool> {
        let mut upkeep = self.upkeep.lock().await;
        // Not before: while a statement's job ran, it did what this state would still ask for.
        let state = self.writer.state();
        if self.checkpoint_is_due(&upkeep, &state) {
            self.checkpoint_locked(&mut upkeep).await?;
            return Ok(true);
        }
        let old = upkeep.waited(self.env.clock.monotonic(), state.seq(), self.config.tail_age);
        // The largest tail first: it costs readers most.
        let mut tables: Vec<_> = state.tables().collect();
        tables.sort_by_key(|t| std::cmp::Reverse(t.tail_bytes()));
        for table in tables {
            let old_tail = table.tail().next().is_some_and(|t| old.is_some_and(|old| t.key.seq <= old));
            let urgency = match old {
                Some(old) if old_tail => Urgency::OldTail(old),
                _ => Urgency::Usual,
            };
            let jobs = next_jobs(table, &self.config.policy, urgency);
            if !jobs.is_empty() {
                self.compact(&state, jobs).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs jobs on one table and commits what they made.
    async fn compact(&self, state: &Arc<Manifest>, jobs: Vec<Job>) -> Result<Receipt> {
        let started = self.env.clock.monotonic();
        let Some(table) = jobs.first().map(|job| job.table) else {
            return Ok(Receipt { seq: state.seq(), ..Receipt::default() });
        };
        let inputs = Inputs {
            env: self.env.clone(),
            writer: self.writer.id(),
            manifest: state.clone(),
            footers: self.footers.clone(),
            load: self.loader(table),
        };
        let partitions = jobs.len();
        let output = aside(async move { tandem_compact::run(&inputs, &jobs).await }).await?;
        let (parts, files) = (output.replace.parts.clone(), output.replace.files.len());
        let step = Step::Replace(output.replace);
        let committed = self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        let now = self.writer.state();
        let consumed: BTreeSet<_> = parts.iter().map(|part| part.section).collect();
        for section in &consumed {
            if now.table(table).is_none_or(|t| t.tail_section(section).is_none()) {
                self.writer.tail().remove(table, *section);
            }
        }
        let took = self.env.clock.monotonic() - started;
        metrics::counter!("tandem_compactions_total").increment(1);
        metrics::counter!("tandem_compacted_rows_total").increment(output.rows);
        metrics::histogram!("tandem_compaction_seconds").record(took.as_secs_f64());
        tracing::debug!(
            %table, partitions, sections = consumed.len(), files, rows = output.rows, bytes = output.bytes, ?took,
            "compacted"
        );
        Ok(Receipt { seq: committed.seq, rows: output.rows, ..Receipt::default() })
    }

    fn loader(&self, table: TableId) -> Arc<LoadSection> {
        let tail = self.tail.clone();
        Arc::new(move |section: TailSection| -> BoxFuture<'static, Result<Arc<DecodedSection>>> {
            let tail = tail.clone();
            async move { tail.load(table, &section).await }.boxed()
        })
    }

    /// Compacts everything that was committed to a table before the call.
    pub(crate) async fn compact_all(&self, name: &TableName) -> Result<Receipt> {
        self.writer.role().check_writes()?;
        let upto = self.writer.state().seq();
        let table = self.writer.state().require(name)?.id();
        let mut total = Receipt { seq: upto, ..Receipt::default() };
        let mut conflicts = 0;
        loop {
            // Taken anew for each job, so that the usual upkeep is not starved by a long statement.
            let _one_at_a_time = self.upkeep.lock().await;
            let state = self.writer.state();
            let Some(found) = state.table(table) else { return Ok(total) };
            let jobs = next_jobs(found, &self.config.policy, Urgency::Everything(upto));
            if jobs.is_empty() {
                return Ok(total);
            }
            match self.compact(&state, jobs).await {
                Ok(receipt) => total = Receipt { rows: total.rows + receipt.rows, ..receipt },
                Err(e) if e.kind() == ErrorKind::Serialization && conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(e) => return Err(e),
            }
        }
    }

    fn checkpoint_is_due(&self, upkeep: &Upkeep, state: &Manifest) -> bool {
        let setting = |name: &str| -> u64 {
            let default =
                tandem_manifest::DATABASE_SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default);
            state.setting(name).unwrap_or(default).parse().unwrap_or(u64::MAX)
        };
        let newest = state.checkpoint().map_or(Seq(0), |(seq, _)| seq);
        let commits = state.seq().0 - newest.0.min(state.seq().0);
        let bytes = i128::from(self.writer.logged_bytes()) - upkeep.bytes_at_checkpoint;
        commits >= setting("checkpoint_commits") || bytes >= i128::from(setting("checkpoint_bytes"))
    }

    /// Writes and records a checkpoint of the present state.
    pub(crate) async fn write_checkpoint(&self) -> Result<Seq> {
        self.writer.role().check_writes()?;
        let mut upkeep = self.upkeep.lock().await;
        self.checkpoint_locked(&mut upkeep).await
    }

    async fn checkpoint_locked(&self, upkeep: &mut Upkeep) -> Result<Seq> {
        let state = self.writer.state();
        match state.checkpoint() {
            // The only commit since is the record itself.
            Some((seq, _)) if seq.next() == state.seq() => return Ok(seq),
            None if state.seq() == Seq(0) => return Ok(Seq(0)),
            _ => {}
        }
        let bytes_now = i128::from(self.writer.logged_bytes());
        let previous =
            upkeep.checkpoint.as_ref().filter(|p| state.checkpoint() == Some((p.seq, p.root_hash)));
        let written = self.log.write_checkpoint(&state, previous).await?;
        let step = Step::Checkpoint { seq: written.seq, root_hash: written.root_hash };
        self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        tracing::debug!(seq = %written.seq, bytes = written.bytes_written, "checkpoint");
        metrics::counter!("tandem_checkpoints_total").increment(1);
        let seq = written.seq;
        upkeep.checkpoint = Some(written);
        upkeep.bytes_at_checkpoint = bytes_now;
        Ok(seq)
    }
}

/// Runs work that computes for long on a thread of its own: the threads that serve clients stay free. A panic in it
/// is an error of this job only.
async fn aside<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work));
    done.await.map_err(|e| Error::internal(format!("upkeep: {e}")))?
}
