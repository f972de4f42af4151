//! Commits on their way from peers to the commit task.
//!
//! A feed makes a node faster and nothing else: what it brings is applied only where it continues the state that is here,
//! and what it does not bring is read from the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tandem_env::Clock;
use tandem_log::{Admits, StoredCommit};
use tandem_types::{CommitId, Error, Result, Seq};
use tokio::sync::{Notify, mpsc};

use crate::Shared;

/// Commits that wait for the commit task; who pushes more waits.
const INBOX: usize = 16;

/// Commits that came before their turn, at most. Those beyond are read from the store.
const EARLY_MAX: usize = 256;

/// How many heads are remembered to tell how long a node has been behind them.
const HEARD_MAX: usize = 256;

/// Where all feeds of a node come together.
#[derive(Debug)]
pub(crate) struct Feeds {
    clock: Arc<dyn Clock>,
    inbox: mpsc::Sender<Arrived>,
    live: AtomicUsize,
    heard: Mutex<Heard>,
    /// Told when the commit task may want to look at the log earlier than it planned.
    pub nudge: Notify,
}

/// What others have spoken of.
#[derive(Debug, Default)]
struct Heard {
    head: Seq,
    /// Commits not applied here when they were heard of, and when that was; ascending.
    waiting: VecDeque<(Seq, Duration)>,
}

/// How far a node is behind what it has heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// The newest commit that anybody has spoken of, or the one applied here.
    pub head: Seq,
    pub commits: u64,
    /// For how long the oldest of them has been known and not applied.
    pub time: Duration,
}

/// A commit, and the feed that brought it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub stored: StoredCommit,
    origin: Arc<Origin>,
}

/// Where the commit task leaves word for a feed.
#[derive(Debug, Default)]
struct Origin {
    refused: OnceLock<Error>,
}

impl Arrived {
    pub fn seq(&self) -> Seq {
        self.stored.commit.header.seq
    }

    /// What its feed brings is of another history than what is here.
    pub fn refuse(&self, error: Error) {
        let _ = self.origin.refused.set(error);
    }
}

impl Feeds {
    pub fn new(clock: Arc<dyn Clock>) -> (Arc<Self>, mpsc::Receiver<Arrived>) {
        let (inbox, arrived) = mpsc::channel(INBOX);
        let (live, heard, nudge) = (AtomicUsize::new(0), Mutex::default(), Notify::new());
        (Arc::new(Self { clock, inbox, live, heard, nudge }), arrived)
    }

    /// Feeds that are connected.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Somebody has applied this commit. Whether it is news.
    pub fn heard_of(&self, seq: Seq, applied: Seq) -> bool {
        let now = self.clock.monotonic();
        let mut heard = self.heard();
        if seq <= heard.head {
            return false;
        }
        heard.head = seq;
        if seq > applied {
            heard.waiting.push_back((seq, now));
            // The oldest tells the lag, the newest the head: what lies between can go.
            if heard.waiting.len() > HEARD_MAX {
                heard.waiting.remove(HEARD_MAX / 2);
            }
        }
        true
    }

    /// How far a state at `applied` is behind.
    pub fn lag(&self, applied: Seq) -> Lag {
        let now = self.clock.monotonic();
        let mut heard = self.heard();
        while heard.waiting.front().is_some_and(|(seq, _)| *seq <= applied) {
            heard.waiting.pop_front();
        }
        let time = heard.waiting.front().map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since));
        let head = heard.head.max(applied);
        Lag { head, commits: head.0 - applied.0, time }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // A panic between two steps leaves a lag that is told a little wrong.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One peer's pushes. It counts as connected until it is dropped.
#[derive(Debug)]
pub struct Feed {
    writer: Arc<Shared>,
    origin: Arc<Origin>,
}

impl Feed {
    pub(crate) fn new(writer: Arc<Shared>) -> Self {
        writer.feeds.live.fetch_add(1, Ordering::AcqRel);
        Self { writer, origin: Arc::default() }
    }

    /// Hands a commit to the commit task, which applies it in its turn; waits while too many wait already. One that a limit
    /// does not allow yet is only heard of: it is read from the store when its time has come.
    ///
    /// # Errors
    ///
    /// Why an earlier commit of this feed was refused: it is no continuation of what is here. `Unavailable` once the
    /// commit task has ended. `Unsupported` if this commit is never applied here: none that follows is.
    pub async fn offer(&self, stored: StoredCommit) -> Result<()> {
        self.check()?;
        if let Some(limiter) = &self.writer.limiter {
            let header = &stored.commit.header;
            let admits = limiter.admits(header);
            if admits != Admits::Now && self.writer.feeds.heard_of(header.seq, self.writer.applied()) {
                self.writer.feeds.nudge.notify_one();
            }
            match admits {
                Admits::Now => {}
                Admits::At(_) => return Ok(()),
                Admits::Never => {
                    let (seq, limit) = (header.seq, limiter.limit);
                    return Err(Error::unsupported(format!(
                        "commit {seq} is not for this node, which applies {limit}"
                    )));
                }
            }
        }
        // The commit itself wakes the task.
        self.writer.feeds.heard_of(stored.commit.header.seq, self.writer.applied());
        let arrived = Arrived { stored, origin: self.origin.clone() };
        let sent = self.writer.feeds.inbox.send(arrived).await;
        sent.map_err(|_| Error::unavailable("the node is shutting down"))
    }

    /// Fails once a commit of this feed was refused.
    pub fn check(&self) -> Result<()> {
        self.origin.refused.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.writer.feeds.live.fetch_sub(1, Ordering::AcqRel);
        // The log is asked by ourselves from now on.
        self.writer.feeds.nudge.notify_one();
    }
}

/// Commits that arrived before their turn.
#[derive(Debug, Default)]
pub(crate) struct Early {
    waiting: BTreeMap<Seq, Arrived>,
}

impl Early {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps a commit above the state at `applied` until its turn comes.
    pub fn keep(&mut self, arrived: Arrived, applied: Seq) {
        if arrived.seq() <= applied {
            return;
        }
        self.waiting.insert(arrived.seq(), arrived);
        // The last ones can wait longest.
        while self.waiting.len() > EARLY_MAX {
            self.waiting.pop_last();
        }
    }

    /// Drops what the state at `applied` has.
    pub fn forget(&mut self, applied: Seq) {
        while self.waiting.first_key_value().is_some_and(|(seq, _)| *seq <= applied) {
            self.waiting.pop_first();
        }
    }

    /// Whether this very commit has arrived.
    pub fn has(&self, seq: Seq, commit: CommitId) -> bool {
        self.waiting.get(&seq).is_some_and(|arrived| arrived.stored.commit.header.commit_id == commit)
    }

    /// The earliest commit that has arrived.
    pub fn first(&mut self) -> Option<Arrived> {
        self.waiting.pop_first().map(|(_, arrived)| arrived)
    }

    /// The commit that continues the state at `applied`, if it has arrived.
    pub fn next(&mut self, applied: Seq) -> Option<Arrived> {
        self.forget(applied);
        self.waiting.remove(&applied.next())
    }
}
