//! Transactions of several statements.
//!
//! - The first statement that reads or writes pins the state that all statements of the transaction see of others; each
//!   sees what the ones before it did.
//! - A statement that writes does all of it within the transaction or, if it fails, nothing; the transaction goes on.
//! - Nothing is in the log before `COMMIT`, and then all of it is, in one commit, or nothing is. It is rebased as any other
//!   transaction: rows come and logged mutations act in log order, whatever others did since. What was evaluated here, on
//!   tables that others changed since, is refused as a serialization failure; `SERIALIZABLE` refuses so whenever a table
//!   that was read or written has changed.
//! - Rows wait in memory as far as they will ride in the commit; beyond that they are uploaded, and read back by whoever in
//!   the transaction reads them.
//! - A transaction that has written and is idle for too long is rolled back; it says so when its session comes back to it.
//!
//! Words: the *base* is the pinned state, the *view* is what follows from it by the transaction's own statements; a *driven*
//! transaction is one that a client's driver opens and ends by requests of its own, not by SQL.

mod own;
mod session;
mod within;
mod work;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tandem_env::{Clock, SystemClock};
use tandem_manifest::Manifest;
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};
use tokio::sync::OwnedMutexGuard;

use crate::as_of::AsOf;
use crate::engine::Engine;
use crate::options::{ReadOptions, WriteOptions, show_duration};
use crate::prepared::UpdateResult;
use crate::session::Session;
pub(crate) use own::{OwnRows, is_own};
pub(crate) use within::{Within, tables_read};
pub(crate) use work::Collected;
use work::Work;

/// How a transaction is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionMode {
    pub read_only: bool,
    pub isolation: Isolation,
}

/// What others may do to the tables of a transaction before it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// It reads one state; its writes act in log order.
    #[default]
    Snapshot,
    /// As if it had run alone: no table that it read or wrote was changed by anybody else since.
    Serializable,
}

/// An open transaction, or one that has ended and is still asked for.
#[derive(Debug)]
pub(crate) struct Transaction {
    engine: Engine,
    session: String,
    mode: TransactionMode,
    /// One statement writes at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Until it ends; queries that run have their own hold on it.
    own: Option<Arc<OwnRows>>,
    /// Statements under way.
    running: usize,
    /// Statements that succeeded.
    done: u64,
    /// When it was last used, on the clock that never steps.
    used: Duration,
}

#[derive(Debug)]
enum Phase {
    /// No statement has read or written yet.
    Fresh,
    Open(Box<Work>),
    Committing,
    Ended(Ended),
}

/// How a transaction ended.
#[derive(Clone, Debug)]
enum Ended {
    Committed(Seq),
    RolledBack,
    /// Idle for so long.
    Expired(Duration),
    /// Why it was not committed.
    Failed(Error),
    /// What ended it.
    Abandoned(String),
}

/// The states of a transaction as one statement sees them.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) base: Arc<Manifest>,
    pub(crate) view: Arc<Manifest>,
    pub(crate) past: Option<AsOf>,
}

/// A statement under way: as long as there is one, the transaction is not idle.
pub(crate) struct InUse(Arc<Transaction>);

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running = state.running.saturating_sub(1);
        state.used = SystemClock.monotonic();
    }
}

impl Transaction {
    pub(crate) fn begin(engine: &Engine, session: &str, mode: TransactionMode) -> Arc<Self> {
        let own = Some(Arc::new(OwnRows::new(&engine.memory_pool())));
        let used = SystemClock.monotonic();
        let state = State { phase: Phase::Fresh, own, running: 0, done: 0, used };
        let this = Arc::new(Self {
            engine: engine.clone(),
            session: session.to_owned(),
            mode,
            turn: Arc::default(),
            state: Mutex::new(state),
        });
        engine.transactions().add(&this);
        this
    }

    /// The rows that it has written; `None` once it has ended.
    pub(crate) fn own(&self) -> Option<Arc<OwnRows>> {
        self.state().own.clone()
    }

    pub(crate) fn is_serializable(&self) -> bool {
        self.mode.isolation == Isolation::Serializable
    }

    /// Whether its end was not asked for yet.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state().phase, Phase::Ended(_) | Phase::Committing)
    }

    fn has_written(&self) -> bool {
        matches!(&self.state().phase, Phase::Open(work) if work.has_written())
    }

    fn ended_as_asked(&self) -> bool {
        matches!(self.state().phase, Phase::Ended(Ended::Committed(_) | Ended::RolledBack))
    }

    /// Notes a statement.
    ///
    /// # Errors
    ///
    /// How the transaction ended, if it has.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<InUse> {
        self.expire_if_idle();
        let mut state = self.state();
        state.phase.check_open()?;
        state.running += 1;
        drop(state);
        Ok(InUse(Arc::clone(self)))
    }

    /// The states that its statements see. The first to ask pins them: what the read demands is fulfilled then.
    ///
    /// # Errors
    ///
    /// `Behind` if a later state is demanded than the pinned one; how the transaction ended, if it has.
    pub(crate) async fn seen(&self, session: &Session, read: &ReadOptions) -> Result<Seen> {
        if let Some(seen) = self.seen_now(read)? {
            return Ok(seen);
        }
        let base = session.committed_state(read).await?;
        let mut state = self.state();
        if matches!(state.phase, Phase::Fresh) {
            state.phase = Phase::Open(Box::new(Work::new(base, read.as_of)));
        }
        drop(state);
        let seen = self.seen_now(read)?;
        seen.ok_or_else(|| Error::internal("a transaction lost the state that it reads"))
    }

    /// The same, if they are pinned.
    fn seen_now(&self, read: &ReadOptions) -> Result<Option<Seen>> {
        let state = self.state();
        state.phase.check_open()?;
        let Phase::Open(work) = &state.phase else { return Ok(None) };
        let base = work.base.seq();
        if let Some(wanted) = read.min_seq.filter(|wanted| *wanted > base && work.past.is_none()) {
            let message = format!(
                "the transaction reads the state at seq {base}, and seq {wanted} is asked for: end it first"
            );
            return Err(Error::behind(message).with_seq(base));
        }
        if work.past != read.as_of {
            return Err(Error::invalid(format!(
                "the transaction reads the state at seq {base}, and no other can be asked for before it ends; a table of a \
                 query may be read FOR SYSTEM_TIME AS OF another moment"
            )));
        }
        Ok(Some(work.seen()))
    }

    /// The states that its statements see, if they are pinned.
    pub(crate) fn peek(&self) -> Option<Seen> {
        match &self.state().phase {
            Phase::Open(work) => Some(work.seen()),
            _ => None,
        }
    }

    /// Lets go of the pinned state, unless something was read or written by it; whether it did.
    pub(crate) fn unpin(&self) -> bool {
        let mut state = self.state();
        let fresh = matches!(&state.phase, Phase::Open(work) if !work.has_written()) && state.done == 0;
        if fresh {
            state.phase = Phase::Fresh;
        }
        fresh
    }

    /// Notes that a query reads these tables.
    pub(crate) fn note_query(&self, tables: impl IntoIterator<Item = TableName>) {
        let serializable = self.is_serializable();
        let mut state = self.state();
        state.done += 1;
        if let Phase::Open(work) = &mut state.phase
            && serializable
        {
            work.note_reads(tables);
        }
    }

    /// Waits for the statements before to end.
    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Bytes of rows that will ride in its commit so far.
    fn held(&self) -> u64 {
        match &self.state().phase {
            Phase::Open(work) => work.inline_bytes(),
            _ => 0,
        }
    }

    /// Makes a statement a part of it.
    ///
    /// # Errors
    ///
    /// Why it cannot be: then nothing of it is.
    fn add(&self, statement: Collected) -> Result<()> {
        let now = SystemClock.now_micros();
        let mut state = self.state();
        state.phase.check_open()?;
        let State { phase: Phase::Open(work), own: Some(own), done, .. } = &mut *state else {
            return Err(Error::internal("a statement was to be added to a transaction that reads nothing"));
        };
        let previewed = work.preview(statement, now)?;
        own.keep(previewed.number(), previewed.sections())?;
        work.add(previewed);
        *done += 1;
        Ok(())
    }

    fn with_work<T>(&self, change: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        state.phase.check_open()?;
        match &mut state.phase {
            Phase::Open(work) => change(work),
            _ => Err(Error::internal("a transaction reads nothing yet")),
        }
    }

    /// Commits it; what was written in it, in one commit. It runs to its end whatever becomes of the caller.
    async fn commit(self: &Arc<Self>, session: &Session, request: WriteOptions) -> Result<UpdateResult> {
        let _turn = self.turn().await;
        self.expire_if_idle();
        let work = {
            let mut state = self.state();
            state.phase.check_open()?;
            match std::mem::replace(&mut state.phase, Phase::Committing) {
                Phase::Open(work) if work.has_written() => work,
                other => {
                    // Whoever reads one state alone has seen it as if nobody else had been there.
                    let seq = match &other {
                        Phase::Open(work) => work.base.seq(),
                        _ => self.engine.database().snapshot().seq(),
                    };
                    state.end(Ended::Committed(seq));
                    return Ok(UpdateResult::nothing(seq, None));
                }
            }
        };
        let mut options = session.write_options(request);
        if let Some(token) = &mut options.token {
            token.digest = work.digest();
        }
        let (this, last) = (Arc::clone(self), session.last_seq_cell());
        let committing = async move {
            let done = this.submit(*work, options).await;
            let ended = match &done {
                Ok(done) => {
                    last.fetch_max(done.seq.0, std::sync::atomic::Ordering::Relaxed);
                    Ended::Committed(done.seq)
                }
                // Only the acknowledgement is missing.
                Err(error) if error.kind() == ErrorKind::QuorumTimeout => {
                    Ended::Committed(error.seq().unwrap_or_default())
                }
                Err(error) => Ended::Failed(error.clone()),
            };
            count(if done.is_ok() { "committed" } else { "failed" });
            this.state().end(ended);
            done
        };
        let done = self.engine.io().spawn(committing).await;
        done.unwrap_or_else(|e| {
            Err(Error::outcome_unknown(format!("whether the transaction was committed is unknown: {e}")))
        })
    }

    async fn submit(&self, work: Work, options: WriteOptions) -> Result<UpdateResult> {
        let database = self.engine.database();
        if let Some(receipt) = database.repeated(&options).await? {
            return Ok(UpdateResult::uncounted(receipt));
        }
        let base = work.base.seq();
        let (steps, sections) = work.into_steps(self.is_serializable());
        Ok(UpdateResult::uncounted(database.submit_staged(base, steps, sections, options).await?))
    }

    /// Ends it without a trace.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it was committed, or is being.
    fn roll_back(&self) -> Result<()> {
        let mut state = self.state();
        match &state.phase {
            Phase::Committing => Err(Error::invalid("the transaction is being committed")),
            Phase::Ended(Ended::Committed(seq)) => {
                Err(Error::invalid(format!("the transaction was committed at seq {seq}")))
            }
            // It left no trace as it is.
            Phase::Ended(_) => Ok(()),
            Phase::Fresh | Phase::Open(_) => {
                state.end(Ended::RolledBack);
                drop(state);
                count("rolled back");
                Ok(())
            }
        }
    }

    /// Ends it because nobody will.
    fn abandon(&self, why: &str) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Fresh | Phase::Open(_)) {
            return;
        }
        let old = state.end(Ended::Abandoned(why.to_owned()));
        drop(state);
        self.warn_of_loss(&old, why);
    }

    /// Rolls it back if it has written and nobody has used it for as long as is allowed.
    fn expire_if_idle(&self) {
        let limit = self.engine.config().transaction_idle;
        let mut state = self.state();
        let idle = SystemClock.monotonic().saturating_sub(state.used);
        let has_written = matches!(&state.phase, Phase::Open(work) if work.has_written());
        if has_written && state.running == 0 && idle > limit {
            let old = state.end(Ended::Expired(limit));
            drop(state);
            count("expired");
            self.warn_of_loss(&old, "idle for too long");
        }
    }

    fn warn_of_loss(&self, phase: &Phase, why: &str) {
        if let Phase::Open(work) = phase
            && work.has_written()
        {
            let (session, statements) = (&self.session, work.statements());
            tracing::warn!(
                session,
                statements,
                why,
                "a transaction was rolled back with its writes uncommitted"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let phase = std::mem::replace(&mut state.phase, Phase::Ended(Ended::RolledBack));
        self.warn_of_loss(&phase, "its session ended");
    }
}

impl State {
    /// Lets go of what it held; what it was.
    fn end(&mut self, ended: Ended) -> Phase {
        self.own = None;
        std::mem::replace(&mut self.phase, Phase::Ended(ended))
    }
}

impl Phase {
    fn check_open(&self) -> Result<()> {
        match self {
            Self::Fresh | Self::Open(_) => Ok(()),
            Self::Committing => Err(Error::invalid("the transaction is being committed")),
            Self::Ended(ended) => Err(ended.error()),
        }
    }
}

impl Ended {
    fn error(&self) -> Error {
        match self {
            Self::Committed(seq) => Error::invalid(format!(
                "the transaction has ended, committed at seq {seq}: begin another one"
            )),
            Self::RolledBack => Error::invalid("the transaction has ended, rolled back: begin another one"),
            Self::Expired(idle) => Error::serialization(format!(
                "the transaction was idle for longer than {} and is rolled back, nothing of it is committed: run it again",
                show_duration(*idle)
            )),
            Self::Failed(error) => error.clone().context("the transaction has ended, its commit failed"),
            Self::Abandoned(why) => Error::serialization(format!(
                "the transaction is rolled back ({why}), nothing of it is committed: run it again"
            )),
        }
    }
}

impl Work {
    fn seen(&self) -> Seen {
        Seen { base: Arc::clone(&self.base), view: Arc::clone(&self.view), past: self.past }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("tandem_transactions_total", "outcome" => outcome).increment(1);
}

/// All transactions of an engine, for those that nobody uses any more.
#[derive(Default)]
pub(crate) struct Transactions(Mutex<Vec<Weak<Transaction>>>);

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transactions").field(&self.live().len()).finish()
    }
}

impl Transactions {
    fn add(&self, transaction: &Arc<Transaction>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|weak| weak.strong_count() > 0);
        }
        all.push(Arc::downgrade(transaction));
    }

    fn live(&self) -> Vec<Arc<Transaction>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Rolls back what has been idle for too long.
    pub(crate) fn sweep(&self) {
        for transaction in self.live() {
            transaction.expire_if_idle();
        }
        metrics::gauge!("tandem_transactions_open")
            .set(self.live().iter().filter(|transaction| transaction.is_open()).count() as f64);
        metrics::gauge!("tandem_transaction_bytes")
            .set(self.live().iter().filter_map(|t| t.own()).map(|own| own.bytes()).sum::<usize>() as f64);
    }
}
