//! The past of the database: any state that is kept, by its seq or by a time.
//!
//! A state is loaded from the newest checkpoint that is not later, and the log from there. States once loaded are kept,
//! a few of them: whoever looks at one moment of the past mostly looks again, and the moment after it is not far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tandem_env::within;
use tandem_format::Op;
use tandem_log::{Commit, Log, Moment};
use tandem_manifest::Manifest;
use tandem_sql::{AsOf, Dropped, READ_DEADLINE, show_time};
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};
use tokio::sync::OnceCell;

use crate::Shared;

/// States kept, and bytes that they take, about.
const STATES: usize = 32;
const STATES_BYTES: usize = 128 << 20;

/// Commit times that are remembered.
const MOMENTS: usize = 4096;

/// Who waits for a commit of others asks the store for it this often.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How many headers are asked for at once in search of a drop.
const DROP_READS: usize = 64;

/// Loads states of the past.
#[derive(Debug)]
pub(crate) struct History {
    log: Log,
    states: Mutex<States>,
    /// Commit times by seq.
    moments: Mutex<BTreeMap<Seq, i64>>,
}

#[derive(Debug, Default)]
struct States {
    by_seq: BTreeMap<Seq, Kept>,
    /// Grows with each use.
    uses: u64,
}

/// A state, or the place of one that is being loaded: all who want it wait for the one load.
#[derive(Debug)]
struct Kept {
    state: Arc<OnceCell<Arc<Manifest>>>,
    bytes: usize,
    used: u64,
}

impl History {
    pub fn new(log: Log) -> Self {
        Self { log, states: Mutex::default(), moments: Mutex::default() }
    }

    /// The state at a seq that `present` has passed.
    pub async fn at(&self, seq: Seq, present: &Arc<Manifest>) -> Result<Arc<Manifest>> {
        if seq == present.seq() {
            return Ok(Arc::clone(present));
        }
        let (cell, near) = self.place(seq);
        let load = async {
            metrics::counter!("tandem_history_loads_total").increment(1);
            self.log.state_at(seq, near.as_deref()).await.map(Arc::new)
        };
        let state = cell.get_or_try_init(|| load).await?;
        self.loaded(seq, state);
        Ok(Arc::clone(state))
    }

    /// The place of a state, and the newest state before it that is here.
    fn place(&self, seq: Seq) -> (Arc<OnceCell<Arc<Manifest>>>, Option<Arc<Manifest>>) {
        let mut states = lock(&self.states);
        states.uses += 1;
        let used = states.uses;
        let near = states.by_seq.range(..seq).rev().find_map(|(_, kept)| kept.state.get().cloned());
        let fresh = || Kept { state: Arc::default(), bytes: 0, used };
        let kept = states.by_seq.entry(seq).or_insert_with(fresh);
        kept.used = used;
        (Arc::clone(&kept.state), near)
    }

    /// Counts a state, and lets the ones go that were not used for longest.
    fn loaded(&self, seq: Seq, state: &Manifest) {
        let mut states = lock(&self.states);
        if let Some(kept) = states.by_seq.get_mut(&seq).filter(|kept| kept.bytes == 0) {
            kept.bytes = estimated_bytes(state);
        }
        loop {
            let bytes: usize = states.by_seq.values().map(|kept| kept.bytes).sum();
            if states.by_seq.len() <= STATES && bytes <= STATES_BYTES {
                return;
            }
            let oldest = states.by_seq.iter().min_by_key(|(_, kept)| kept.used).map(|(seq, _)| *seq);
            // One that is in use lives on with whoever uses it.
            let Some(oldest) = oldest.and_then(|oldest| states.by_seq.remove(&oldest)) else { return };
            drop(oldest);
        }
    }

    /// The last commit that is not later than a time before `high`, a commit that is later; 0 if none is that is kept.
    async fn seq_at(&self, time: i64, high: Moment, start: Seq) -> Result<Seq> {
        let low = match start {
            Seq(0) => (Seq(0), i64::MIN),
            start => self.moment(start).await?,
        };
        if low.1 > time {
            return Ok(Seq(0));
        }
        let (low, high) = self.narrowed(time, low, high);
        let (low, high) = self.log.moments_around(time, low, high).await?;
        self.remember([low, high]);
        Ok(low.0)
    }

    /// The time of a commit.
    async fn moment(&self, seq: Seq) -> Result<Moment> {
        if let Some(time) = lock(&self.moments).get(&seq) {
            return Ok((seq, *time));
        }
        let moment = self.log.moment(seq).await?;
        self.remember([moment]);
        Ok(moment)
    }

    fn narrowed(&self, time: i64, low: Moment, high: Moment) -> (Moment, Moment) {
        let moments = lock(&self.moments);
        let mut narrowed = (low, high);
        for (seq, at) in moments.range(low.0..high.0).map(|(seq, at)| (*seq, *at)) {
            // Times grow with seqs.
            if at > time {
                narrowed.1 = (seq, at);
                break;
            }
            narrowed.0 = (seq, at);
        }
        narrowed
    }

    fn remember(&self, found: impl IntoIterator<Item = Moment>) {
        let mut moments = lock(&self.moments);
        moments.extend(found.into_iter().filter(|(seq, _)| *seq > Seq(0)));
        while moments.len() > MOMENTS {
            moments.pop_first();
        }
    }

    /// The newest commit that drops a table of that name, back to `start`.
    async fn before_drop(
        &self,
        name: &TableName,
        present: &Arc<Manifest>,
        start: Seq,
    ) -> Result<Option<Dropped>> {
        let seqs = (start.0.max(1)..=present.seq().0).rev().map(Seq);
        let mut commits = stream::iter(seqs).map(|seq| self.log.read(seq)).buffered(DROP_READS);
        while let Some(Some(commit)) = commits.try_next().await? {
            let header = &commit.header;
            for (number, transaction) in header.transactions.iter().enumerate().rev() {
                for op in transaction.ops.iter().rev() {
                    let Op::DropTable { table } = op else { continue };
                    // It is there now: it was brought back, or the transaction was void.
                    if present.table(*table).is_some() {
                        continue;
                    }
                    let at_base = self.at(Seq(header.seq.0 - 1), present).await?;
                    let before = state_within(&at_base, &commit, number)?;
                    let found = before.table(*table).is_some_and(|found| found.name() == name);
                    let after = state_within(&at_base, &commit, number + 1)?;
                    if found && after.table(*table).is_none() {
                        let (seq, before) = (header.seq, Arc::new(before));
                        return Ok(Some(Dropped { seq, table: *table, before }));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn state_within(before: &Manifest, commit: &Commit, transaction: usize) -> Result<Manifest> {
    Log::state_within(before, commit, transaction)
}

impl Shared {
    /// As [`Database::state_as_of`](tandem_sql::Database::state_as_of).
    pub(crate) async fn past(&self, at: AsOf, deadline: Option<Duration>) -> Result<Arc<Manifest>> {
        let deadline = deadline.unwrap_or(READ_DEADLINE);
        let present = match within(&*self.env.clock, deadline, self.reached(at)).await {
            Some(reached) => reached?,
            None => return Err(self.not_reached(at, deadline)),
        };
        let seq = match at {
            AsOf::Seq(seq) => seq,
            AsOf::Time(time) => self.seq_at_in(time, &present).await?,
        };
        // Only whoever kept everything knows what was before the first commit.
        if seq < present.history_start() {
            return Err(self.history_gone(at, &present).await);
        }
        match self.history.at(seq, &present).await {
            Ok(state) => Ok(state),
            Err(error) => {
                // Perhaps it was cut off meanwhile.
                let present = self.writer.state();
                if seq < present.history_start() {
                    return Err(self.history_gone(at, &present).await);
                }
                Err(error.context(format!("reading the state as of {at}")))
            }
        }
    }

    /// As [`Database::state_within`](tandem_sql::Database::state_within).
    pub(crate) async fn past_within(&self, seq: Seq, transactions: usize) -> Result<Arc<Manifest>> {
        let before = self.past(AsOf::Seq(Seq(seq.0.saturating_sub(1))), None).await?;
        let commit = self.log.read_applied(seq).await?;
        let commit =
            commit.ok_or_else(|| Error::unavailable(format!("commit {seq} is not in the log any more")))?;
        state_within(&before, &commit.commit, transactions).map(Arc::new)
    }

    /// As [`Database::seq_at`](tandem_sql::Database::seq_at).
    pub(crate) async fn past_seq(&self, time: i64) -> Result<Seq> {
        self.seq_at_in(time, &self.writer.state()).await
    }

    async fn seq_at_in(&self, time: i64, present: &Manifest) -> Result<Seq> {
        if present.commit_time() <= time {
            return Ok(present.seq());
        }
        let high = (present.seq(), present.commit_time());
        self.history.seq_at(time, high, present.history_start()).await
    }

    /// The present state, once it has passed the moment.
    async fn reached(&self, at: AsOf) -> Result<Arc<Manifest>> {
        let mut states = self.writer.watch();
        let passed = |state: &Manifest| match at {
            AsOf::Seq(seq) => state.seq() >= seq,
            // One of exactly this time is the last that is not later: times grow.
            AsOf::Time(time) => state.commit_time() >= time,
        };
        loop {
            let state = states.borrow_and_update().clone();
            if passed(&state) {
                return Ok(state);
            }
            // Nobody may have told of it.
            self.writer.catch_up_now().await?;
            if passed(&self.writer.state()) {
                continue;
            }
            if let Some(Err(_)) = within(&*self.env.clock, ASK_EVERY, states.changed()).await {
                return Err(self
                    .failure()
                    .unwrap_or_else(|| Error::unavailable("the node is shutting down")));
            }
        }
    }

    fn not_reached(&self, at: AsOf, waited: Duration) -> Error {
        let state = self.writer.state();
        let (seq, time) = (state.seq(), show_time(state.commit_time()));
        let message = match at {
            AsOf::Seq(wanted) => {
                format!("seq {wanted} is asked for, and this node has applied seq {seq} after {waited:?}")
            }
            AsOf::Time(_) => format!(
                "no commit has passed {at} yet, so that what will have been then is not settled: the newest, seq {seq}, is of \
                 {time} (waited {waited:?}); as of seq:{seq} is what is there now"
            ),
        };
        Error::behind(message).with_seq(seq)
    }

    async fn history_gone(&self, at: AsOf, present: &Manifest) -> Error {
        let start = present.history_start();
        let since = match self.history.moment(start).await {
            Ok((_, time)) => format!(" ({})", show_time(time)),
            Err(_) => String::new(),
        };
        let message = format!(
            "the state as of {at} is not kept any more: history begins at seq {start}{since}, as the setting history_window \
             says"
        );
        Error::new(ErrorKind::HistoryGone, message).with_seq(start)
    }

    /// As [`Database::before_drop`](tandem_sql::Database::before_drop).
    pub(crate) async fn find_drop(&self, name: &TableName) -> Result<Dropped> {
        let present = self.writer.state();
        let start = present.history_start();
        // The state before the drop must be one that is kept.
        let found = self.history.before_drop(name, &present, start.next()).await?;
        found.ok_or_else(|| {
            let since = match start {
                Seq(0) => "since the database was made".to_owned(),
                start => format!("since seq {start}, where the history that is kept begins"),
            };
            Error::not_found(format!("no table {name} was dropped {since}"))
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a state takes in memory, about, as if it shared nothing with others.
fn estimated_bytes(state: &Manifest) -> usize {
    const TABLE: usize = 4 << 10;
    const FILE: usize = 400;
    const SECTION: usize = 800;
    const REMOVED: usize = 200;
    let tables: usize =
        state.tables().map(|table| TABLE + table.file_count() * FILE + table.tail_sections() * SECTION).sum();
    tables + state.removed().count() * REMOVED + TABLE
}

#[cfg(test)]
mod tests;
