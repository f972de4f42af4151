//! Upkeep: when compaction and checkpoints run, and when rows are too old.

mod expiry;
mod heads;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tandem_compact::{Inputs, Job, LoadSection, Urgency, next_jobs};
use tandem_format::SectionKey;
use tandem_log::WrittenCheckpoint;
use tandem_manifest::{Manifest, Step, Table, TailSection};
use tandem_segment::DecodedSection;
use tandem_sql::Receipt;
use tandem_types::{Error, ErrorKind, Result, Seq, TableId, TableName};

use crate::Shared;
use crate::config::NodeConfig;
pub(crate) use expiry::Expired;
use heads::Heads;

/// After a failure upkeep waits this long before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often a statement's compaction starts over because somebody else's commit took its inputs.
const CONFLICTS_MAX: u32 = 100;

/// After so many pieces of upkeep in a row that others did first, it lets them.
const CONFLICTS_AT_ONCE: u32 = 3;

/// What upkeep remembers between jobs.
#[derive(Debug)]
pub(crate) struct Upkeep {
    checkpoint: Option<WrittenCheckpoint>,
    /// `Writer::logged_bytes` when the last checkpoint was written, less what was replayed at the start.
    bytes_at_checkpoint: i128,
    /// How long rows and mutations have waited.
    tail: Heads,
    fold: Heads,
    /// The round in which each table was compacted last: no table waits for ever for others.
    served: BTreeMap<TableId, u64>,
    round: u64,
    /// Tables whose `ttl` a person was asked about.
    warned: BTreeSet<TableId>,
}

impl Upkeep {
    pub fn new(config: &NodeConfig, checkpoint: Option<WrittenCheckpoint>, replayed_bytes: u64) -> Self {
        Self {
            checkpoint,
            bytes_at_checkpoint: -i128::from(replayed_bytes),
            tail: Heads::new(config.tail_age),
            fold: Heads::new(config.fold_age),
            served: BTreeMap::new(),
            round: 0,
            warned: BTreeSet::new(),
        }
    }
}

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    if !shared.config.upkeep {
        return;
    }
    let clock = shared.env.clock.clone();
    let mut conflicts = 0;
    loop {
        if shared.writer.role().is_replica() {
            clock.sleep(shared.config.upkeep_interval).await;
            continue;
        }
        let done = shared.upkeep_round().await;
        let conflict = matches!(&done, Err(e) if e.kind() == ErrorKind::Serialization);
        conflicts = if conflict { conflicts + 1 } else { 0 };
        match done {
            Ok(true) => {}
            Ok(false) => clock.sleep(shared.config.upkeep_interval).await,
            Err(e) if conflict => {
                tracing::debug!(error = %e, "another node did this piece of upkeep first");
                if conflicts >= CONFLICTS_AT_ONCE {
                    clock.sleep(shared.config.upkeep_interval).await;
                }
            }
            Err(_) if *shared.closing.borrow() => return,
            Err(e) => {
                tracing::warn!(error = %e, "upkeep failed, trying again later");
                metrics::counter!("tandem_upkeep_failures_total").increment(1);
                clock.sleep(RETRY_AFTER).await;
            }
        }
    }
}

impl Shared {
    /// The jobs that are worth the most, if any is worth doing: as many at a time as the node may run.
    async fn upkeep_round(&self) -> Result<bool> {
        let mut upkeep = self.upkeep.lock().await;
        // Not before: while a statement's job ran, it did what this state would still ask for.
        let state = self.writer.state();
        if self.checkpoint_is_due(&upkeep, &state) {
            self.checkpoint_locked(&mut upkeep).await?;
            return Ok(true);
        }
        if self.expire_next(&mut upkeep, &state).await? {
            return Ok(true);
        }
        let groups = self.plan(&mut upkeep, &state);
        let worked = !groups.is_empty();
        let jobs = groups.into_iter().map(|jobs| self.compact(&state, jobs));
        // One that fails takes no other with it.
        let done = futures::future::join_all(jobs).await;
        done.into_iter().collect::<Result<Vec<Receipt>>>()?;
        Ok(worked)
    }

    /// What to do at once: each element is one commit.
    fn plan(&self, upkeep: &mut Upkeep, state: &Manifest) -> Vec<Vec<Job>> {
        let now = self.env.clock.monotonic();
        let urgency = Urgency::Waited {
            tail: upkeep.tail.waited(now, state.seq()),
            fold: upkeep.fold.waited(now, state.seq()),
        };
        upkeep.round += 1;
        upkeep.served.retain(|table, _| state.table(*table).is_some());
        let mut tables: Vec<_> = state.tables().collect();
        // Of those that waited equally long the largest tail first: it costs readers most.
        let waits = |table: &Table| upkeep.served.get(&table.id()).copied().unwrap_or_default();
        tables.sort_by_key(|table| (waits(table), Reverse(table.tail_bytes())));
        let at_once = self.config.upkeep_jobs.max(1);
        let mut groups: Vec<Vec<Job>> = Vec::new();
        for table in tables {
            if groups.len() >= at_once {
                break;
            }
            let jobs = next_jobs(table, &self.config.policy, urgency);
            if !jobs.is_empty() {
                upkeep.served.insert(table.id(), upkeep.round);
                groups.push(jobs);
            }
        }
        split(groups, at_once)
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
        let output = self.aside(async move { tandem_compact::run(&inputs, &jobs).await }).await?;
        let (parts, files) = (output.replace.parts.clone(), output.replace.files.len());
        let step = Step::Replace(output.replace);
        let committed = self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        let sections = parts.iter().map(|part| part.section).collect::<BTreeSet<_>>().len();
        if let Some(before) = state.table(table) {
            self.forget_sections(before);
        }
        let took = self.env.clock.monotonic() - started;
        metrics::counter!("tandem_compactions_total").increment(1);
        metrics::counter!("tandem_compacted_rows_total").increment(output.rows);
        metrics::histogram!("tandem_compaction_seconds").record(took.as_secs_f64());
        tracing::debug!(
            %table, partitions, sections, files, rows = output.rows, bytes = output.bytes, ?took,
            "compacted"
        );
        Ok(Receipt { seq: committed.seq, rows: output.rows, ..Receipt::default() })
    }

    /// Drops from memory the rows that a table had and has no more.
    fn forget_sections(&self, before: &Table) {
        let now = self.writer.state();
        let now = now.table(before.id());
        let carried = |table: &Table| -> BTreeSet<SectionKey> {
            let lookups = table.mutations().filter(|m| m.mutation.section().is_some()).map(|m| m.key);
            let of = |key: tandem_format::MutationKey| SectionKey {
                seq: key.seq,
                transaction: key.transaction,
                section: key.section,
            };
            table.tail().map(|t| t.key).chain(lookups.map(of)).collect()
        };
        let kept = now.map(carried).unwrap_or_default();
        for section in carried(before).difference(&kept) {
            self.writer.tail().remove(before.id(), *section);
        }
    }

    fn loader(&self, table: TableId) -> Arc<LoadSection> {
        let tail = self.tail.clone();
        Arc::new(move |section: TailSection| -> BoxFuture<'static, Result<Arc<DecodedSection>>> {
            let tail = tail.clone();
            async move { tail.load(table, &section).await }.boxed()
        })
    }

    /// Compacts everything that was committed to a table before the call, and drops what its `ttl` is over for.
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
            // Whoever asks for it has looked at it.
            self.expire_all(&state, table).await?;
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
        let mut conflicts = 0;
        loop {
            match self.checkpoint_once(upkeep).await {
                // Another node recorded one meanwhile: this one goes on from there, if anything is left to write.
                Err(e) if e.kind() == ErrorKind::Serialization && conflicts < CONFLICTS_MAX => conflicts += 1,
                done => return done,
            }
        }
    }

    async fn checkpoint_once(&self, upkeep: &mut Upkeep) -> Result<Seq> {
        let state = self.writer.state();
        match state.checkpoint() {
            // The only commit since is the record itself.
            Some((seq, _)) if seq.next() == state.seq() => return Ok(seq),
            None if state.seq() == Seq(0) => return Ok(Seq(0)),
            _ => {}
        }
        let bytes_now = i128::from(self.writer.logged_bytes());
        let recorded = state.checkpoint();
        let previous = upkeep.checkpoint.as_ref().filter(|p| recorded == Some((p.seq, p.root_hash))).cloned();
        let (log, of) = (self.log.clone(), state.clone());
        let written = self.aside(async move { log.write_checkpoint(&of, previous.as_ref()).await }).await?;
        let step = written.record();
        self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        tracing::debug!(seq = %written.seq, bytes = written.bytes_written, "checkpoint");
        metrics::counter!("tandem_checkpoints_total").increment(1);
        let seq = written.seq;
        upkeep.checkpoint = Some(written);
        upkeep.bytes_at_checkpoint = bytes_now;
        Ok(seq)
    }

    /// Runs work that computes for long on a thread of its own: the threads that serve clients stay free. A panic in it
    /// is an error of this job only. It is left where it waits for something once the node closes.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let runtime = tokio::runtime::Handle::current();
        let mut closing = self.closing.subscribe();
        let done = tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                // An error means that the node is gone altogether.
                let closed = async { drop(closing.wait_for(|closing| *closing).await) };
                match select(std::pin::pin!(closed), std::pin::pin!(work)).await {
                    Either::Left(_) => Err(Error::unavailable("the node is shutting down")),
                    Either::Right((done, _)) => done,
                }
            })
        });
        done.await.map_err(|e| Error::internal(format!("upkeep: {e}")))?
    }
}

/// Splits the jobs of tables that have several until there are as many groups as can run at once. What the jobs of one
/// table take together is bounded, so this takes no more memory.
fn split(mut groups: Vec<Vec<Job>>, at_once: usize) -> Vec<Vec<Job>> {
    while groups.len() < at_once
        && let Some(largest) = groups.iter_mut().max_by_key(|jobs| jobs.len()).filter(|jobs| jobs.len() > 1)
    {
        let half = largest.split_off(largest.len() / 2);
        groups.push(half);
    }
    groups
}

#[cfg(test)]
mod tests;
