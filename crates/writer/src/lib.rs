//! The way of a row into the log: admission, preparation, group commit.
//!
//! ```text
//! append(stream) ─▶ prepare: cast, statistics, partitions, encode ─▶ large? upload segment
//!                                                                         │
//! submit(steps)  ────────────────▶ queue (bounded in bytes) ◀─────────────┘
//!                                     │  one task
//!                                     ▼
//!              gather a group ─▶ rebase each ─▶ create log/N ─▶ apply ─▶ publish ─▶ answer
//!                                  │  ▲                │ lost
//!                    a deputy ◀────┘  └── catch up ◀───┘
//! ```
//!
//! What this crate promises:
//!
//! - Success is answered after the commit was created and checked, and after its effect is in [`Writer::state`].
//! - A rejection is answered only from a state that was shown to be the head after the request arrived.
//! - A caller that goes away never leaves half of a transaction: commits run on a task of their own.
//! - What waits is bounded in bytes; who sends more waits.
//! - A node learns of its own commits as of everybody's: through `Manifest::apply`.
//! - What peers push is applied only where it continues the state that is here; all else is read from the store.
//!
//! - A group that another node commits is as good as one that this node commits; see [`handover`].
//!
//! It refuses to know SQL, wires, data files, and when to compact.

mod append;
mod commit;
mod company;
mod config;
mod contention;
mod feed;
pub mod handover;
mod limit;
mod prepare;
mod queue;
mod recent;
mod role;
mod spoilt;
mod tail;
mod token;
mod transact;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tandem_env::Mutant;
use tandem_format::ProducerId;
use tandem_log::Log;
use tandem_manifest::{Intent, Manifest, Step};
use tandem_types::{Epoch, Error, Result, Seq, WriterId};
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use append::{Append, CreateTable};
pub use config::WriterConfig;
pub use feed::{Feed, Lag};
pub use handover::{Deputy, Handed, HandedAnswer};
pub use limit::Standing;
pub use recent::{Follower, Recent, RecentCommit};
pub use role::Role;
pub use tail::TailCache;
pub use token::WriteToken;
pub use transact::{Prepared, Transacted};

use feed::Feeds;
use limit::Limiter;
use queue::{Admission, Answer, Request, SectionBody};

/// What a commit answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log; for a request that had nothing to do, the head it was decided on.
    pub seq: Seq,
    /// Rows appended.
    pub rows: u64,
    /// Its token had been committed before: `seq` and `rows` are what was answered then, nothing happened now.
    pub duplicate: bool,
}

/// Commits for one node. Cheap to clone; the commit task ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    admission: Admission,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub log: Log,
    pub id: WriterId,
    pub producer: ProducerId,
    pub config: WriterConfig,
    pub state: watch::Sender<Arc<Manifest>>,
    pub role: watch::Sender<Role>,
    pub tail: TailCache,
    pub recent: Arc<Recent>,
    pub feeds: Arc<Feeds>,
    pub limiter: Option<Limiter>,
    pub refreshes: mpsc::UnboundedSender<Refresh>,
    /// Who commits for this node where it cannot, or not well.
    pub deputy: watch::Sender<Option<Arc<dyn Deputy>>>,
    /// Whether somebody sees to it that there is one.
    pub deputies_expected: AtomicBool,
    /// Who made the last commit of others that holds clients' writes; 0: nobody.
    pub beaten_by: AtomicU64,
    /// Whether commits keep losing to those of others.
    pub contended: watch::Sender<bool>,
    /// Bytes of rows in the commits that were applied here, whoever made them.
    pub logged_bytes: AtomicU64,
    /// Why the commit task ended, once it did.
    pub stopped: OnceLock<Error>,
}

/// Somebody who waits until the log was read to its end.
pub(crate) type Refresh = oneshot::Sender<Result<Seq>>;

/// Whether this says who writes; then whoever sends it need not be a writer.
pub(crate) fn is_promotion(epoch: Option<Epoch>, steps: &[Step]) -> bool {
    epoch.is_none() && steps.iter().any(|step| matches!(step, Step::Promote { .. }))
}

impl Shared {
    fn applied(&self) -> Seq {
        self.state.borrow().seq()
    }
}

impl Writer {
    /// Starts the commit task on the current runtime, from the state that recovery gave.
    pub fn start(log: Log, state: Manifest, config: WriterConfig) -> Self {
        let chance = &log.env().chance;
        let (id, producer) = (WriterId(chance.next_u64()), ProducerId(chance.next_u128()));
        let (admission, requests) = Admission::new(config.queue_bytes);
        let (state, _) = watch::channel(Arc::new(state));
        let tail = TailCache::new(config.tail_cache_bytes);
        let recent = Arc::new(Recent::new(config.recent_bytes));
        let (feeds, news) = Feeds::new(log.env().clock.clone());
        let limiter = Limiter::new(config.limit, log.env().clock.clone());
        let (refreshes, refreshing) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            log,
            id,
            producer,
            config,
            state,
            role: watch::channel(Role::default()).0,
            tail,
            recent,
            feeds,
            limiter,
            refreshes,
            deputy: watch::channel(None).0,
            deputies_expected: AtomicBool::new(false),
            beaten_by: AtomicU64::new(0),
            contended: watch::channel(false).0,
            logged_bytes: AtomicU64::new(0),
            stopped: OnceLock::new(),
        });
        tokio::spawn(commit::run(shared.clone(), requests, news, refreshing));
        Self { shared, admission }
    }

    /// Random per process start.
    pub fn id(&self) -> WriterId {
        self.shared.id
    }

    /// The newest applied state.
    pub fn state(&self) -> Arc<Manifest> {
        self.shared.state.borrow().clone()
    }

    /// Changes whenever a commit was applied.
    pub fn watch(&self) -> watch::Receiver<Arc<Manifest>> {
        self.shared.state.subscribe()
    }

    /// Whether it takes writes.
    pub fn role(&self) -> Role {
        self.shared.role.borrow().clone()
    }

    /// Changes whenever the role does.
    pub fn watch_role(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    /// Decides whether it takes writes from now on. What is being committed already is committed.
    pub fn set_role(&self, role: Role) {
        self.shared.role.send_if_modified(|present| {
            let news = *present != role;
            *present = role;
            news
        });
    }

    /// A way in for the commits that one peer pushes.
    pub fn feed(&self) -> Feed {
        Feed::new(self.shared.clone())
    }

    /// Feeds that are connected.
    pub fn feeds(&self) -> usize {
        self.shared.feeds.live()
    }

    /// Somebody has applied this commit: it is looked for, unless it arrives by itself.
    pub fn heard_of(&self, seq: Seq) {
        if self.shared.feeds.heard_of(seq, self.shared.applied()) {
            self.shared.feeds.nudge.notify_one();
        }
    }

    /// How far the state here is behind what was heard of. Where a limit keeps it there, the time is the age of the oldest
    /// commit that is not applied.
    pub fn lag(&self) -> Lag {
        let lag = self.shared.feeds.lag(self.shared.applied());
        let age = self.shared.limiter.as_ref().and_then(Limiter::age_of_next);
        Lag { time: lag.time.max(age.unwrap_or_default()), ..lag }
    }

    /// How the node stands to its limit, if it has one.
    pub fn standing(&self) -> Option<Standing> {
        self.shared.limiter.as_ref().map(Limiter::standing)
    }

    /// Applies everything that was committed before the call, whoever committed it; the newest seq then. Costs a round
    /// trip to the store, shared by all who ask at the same time, and is for replicas as for writers.
    ///
    /// # Errors
    ///
    /// As of the store, and as [`Writer::stopped`].
    pub async fn catch_up_now(&self) -> Result<Seq> {
        let gone = || self.stopped().unwrap_or_else(|| Error::unavailable("the node is shutting down"));
        let (reply, answer) = oneshot::channel();
        self.shared.refreshes.send(reply).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The commits that were applied last, as they are stored.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.shared.recent
    }

    /// Rows of tail sections that are in memory.
    pub fn tail(&self) -> &TailCache {
        &self.shared.tail
    }

    /// Bytes of rows in the commits applied since the start, whoever made them.
    pub fn logged_bytes(&self) -> u64 {
        self.shared.logged_bytes.load(Ordering::Relaxed)
    }

    /// Whether requests are taken.
    pub fn is_running(&self) -> bool {
        self.admission.is_open()
    }

    /// Why commits ended, if they did: the log is damaged or the store is gone for good.
    pub fn stopped(&self) -> Option<Error> {
        self.shared.stopped.get().cloned()
    }

    /// Commits the steps as one transaction. `base` is the seq of the state that they were formed on.
    pub async fn submit(&self, base: Seq, steps: Vec<Step>, token: WriteToken) -> Result<Committed> {
        match self.send(base, steps, Vec::new(), &token, None).await? {
            Answer::Committed(committed) => Ok(committed),
            Answer::Recast(error) | Answer::Refused(error) => Err(error),
        }
    }

    /// As [`Writer::submit`], for work that is harmless to repeat: without a token. A promotion is committed whatever
    /// the role, for it is what decides the role.
    pub async fn submit_upkeep(&self, base: Seq, steps: Vec<Step>) -> Result<Committed> {
        self.submit(base, steps, WriteToken::None).await
    }

    /// Whether a client's write would be taken here now.
    ///
    /// # Errors
    ///
    /// `NotWriter`, naming who takes them as far as is known.
    pub fn check_writes(&self) -> Result<()> {
        self.check_admission().map(drop)
    }

    /// Whether a client's write is taken, and the epoch that it is for as far as is known here.
    fn check_admission(&self) -> Result<Epoch> {
        let state = self.state();
        let writes = self.shared.role.borrow().check_writes();
        match writes.and_then(|()| state.write_epoch(self.shared.config.identity.as_ref())) {
            Err(_) if self.shared.forwards() => Ok(state.epoch()),
            checked => checked,
        }
    }

    async fn send(
        &self,
        base: Seq,
        steps: Vec<Step>,
        bodies: Vec<SectionBody>,
        token: &WriteToken,
        queued: Option<&Notify>,
    ) -> Result<Answer> {
        // What is harmless to repeat is upkeep, which anybody may do in any epoch.
        let epoch = match token {
            WriteToken::None => None,
            _ if self.shared.log.env().mutant(Mutant::EpochUnchecked) => None,
            _ => Some(self.check_admission()?),
        };
        if epoch.is_none() && !is_promotion(epoch, &steps) {
            self.shared.role.borrow().check_writes()?;
        }
        let gone = || self.stopped().unwrap_or_else(|| Error::unavailable("the node is shutting down"));
        let (minted, (token, digest)) = (token.is_minted(), token.of_client());
        let token = token.filter(|_| !self.shared.log.env().mutant(Mutant::NoTokenCheck));
        let intent = Intent { token, digest, epoch, base, steps };
        let (reply, answer) = oneshot::channel();
        let request = Request { intent, bodies, minted, handed: None, reply };
        self.admission.send(request).await.map_err(|_| gone())?;
        if let Some(queued) = queued {
            queued.notify_one();
        }
        // Unanswered: the runtime is being torn down around the commit task.
        let torn =
            || Error::outcome_unknown("whether the write was committed is unknown: the node went down");
        answer.await.map_err(|_| torn())?
    }
}
