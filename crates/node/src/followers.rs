//! Those who follow this node: each gets the commits that were applied here, at its own pace.
//!
//! Commits come from the window of recent ones, or, where a follower is too far behind for that, from the store: a slow
//! follower costs the writer nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use tandem_client::tail::{Follow, HEAD_INTERVAL, Progress, Push, Scope};
use tandem_manifest::Manifest;
use tandem_types::{Error, Result, Seq, WriterId};
use tandem_writer::Follower;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Shared;

/// Rows of larger commits are left to the follower to fetch, if it wants them.
const PAYLOAD_MAX: usize = 4 << 20;

/// Said to who turns out to be this very process.
pub(crate) const ITSELF: &str = "a node cannot follow itself";

/// Processes that one follower may speak for.
const SPOKEN_FOR_MAX: usize = 1024;

/// What followers say of themselves and of those who follow them, to be passed on upstream.
#[derive(Debug)]
pub(crate) struct Downstream {
    applied: Mutex<BTreeMap<u64, Seq>>,
    pub changes: watch::Sender<u64>,
}

impl Downstream {
    pub fn new() -> Self {
        Self { applied: Mutex::default(), changes: watch::channel(0).0 }
    }

    pub fn all(&self) -> Vec<(WriterId, Seq)> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.iter().map(|(id, seq)| (WriterId(*id), *seq)).collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Seq>)) {
        change(&mut self.applied.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|n| *n += 1);
    }
}

/// Begins to serve a follower.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    follow: Follow,
    progress: BoxStream<'static, Result<Progress>>,
) -> Result<BoxStream<'static, Result<Push>>> {
    let database = shared.log.database();
    if follow.database != database {
        return Err(Error::invalid(format!(
            "node {} serves database {database}, and {} is to be followed by node {}",
            shared.config.node_id, follow.database, follow.node_id
        )));
    }
    if follow.incarnation == shared.writer.id() {
        return Err(Error::invalid(ITSELF));
    }
    // Before the state is looked at: what is applied from here on is kept for this follower.
    let follower = shared.writer.recent().follow();
    let states = shared.writer.watch();
    let state = states.borrow().clone();
    if follow.applied == state.seq() && follow.header_hash != state.header_hash() {
        return Err(Error::damaged(format!(
            "nodes {} and {} have different commits at {}: the log has two histories",
            shared.config.node_id,
            follow.node_id,
            state.seq()
        )));
    }
    tracing::info!(node_id = %follow.node_id, scope = ?follow.scope, applied = %follow.applied, "followed");
    // Perhaps it has only begun, and wants to be followed itself.
    shared.peers.look.notify_one();
    let sent = match follow.scope {
        Scope::All => follow.applied,
        Scope::Own => follow.applied.max(state.seq()),
        // There is nothing to be pushed.
        Scope::Heads => Seq(u64::MAX),
    };
    let reported = Arc::new(AtomicU64::new(0));
    let spoken_for = SpokenFor {
        shared: shared.clone(),
        follower: follow.incarnation,
        reported: reported.clone(),
        replica: follow.replica,
        incarnations: BTreeSet::new(),
    };
    let reports = tokio::spawn(take_reports(spoken_for, progress));
    let tail = Tail {
        shared: shared.clone(),
        scope: follow.scope,
        sent,
        reported,
        states,
        ending: shared.ending.subscribe(),
        next_head: Duration::ZERO,
        reports,
        _follower: follower,
    };
    Ok(unfold(Some(tail), |tail| async move {
        let mut tail = tail?;
        match tail.next().await {
            Ok(Some(push)) => Some((Ok(push), Some(tail))),
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    })
    .boxed())
}

/// One follower's place in the log.
struct Tail {
    shared: Arc<Shared>,
    scope: Scope,
    /// Everything up to here was pushed, or need not be.
    sent: Seq,
    /// What the follower has applied: it may have read the store, which is quicker where much is missing.
    reported: Arc<AtomicU64>,
    states: watch::Receiver<Arc<Manifest>>,
    ending: watch::Receiver<bool>,
    /// When the head is to be told again, whatever else was said.
    next_head: Duration,
    reports: JoinHandle<()>,
    _follower: Follower,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reports.abort();
    }
}

impl Tail {
    /// The next thing to say; `None`: the node ends.
    async fn next(&mut self) -> Result<Option<Push>> {
        let clock = self.shared.env.clock.clone();
        loop {
            if *self.ending.borrow() {
                return Ok(None);
            }
            let head = self.states.borrow_and_update().seq();
            let now = clock.monotonic();
            if now >= self.next_head {
                self.next_head = now + HEAD_INTERVAL;
                return Ok(Some(Push::Head(head)));
            }
            self.sent = self.sent.max(Seq(self.reported.load(Ordering::Acquire)));
            if self.sent < head {
                match self.push(self.sent.next()).await? {
                    Some(push) => return Ok(Some(push)),
                    None => continue,
                }
            }
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return Ok(None) },
                changed = self.ending.changed() => if changed.is_err() { return Ok(None) },
                () = clock.sleep(self.next_head - now) => {}
            }
        }
    }

    /// A commit that was applied here; `None` if this follower does not want it.
    async fn push(&mut self, seq: Seq) -> Result<Option<Push>> {
        let recent = self.shared.writer.recent().get(seq);
        let push = match (recent, self.scope) {
            (Some(commit), Scope::Own) if !commit.own => None,
            // Too old for the window: writers read what they miss from the store.
            (None, Scope::Own) => None,
            (_, Scope::Heads) => None,
            (Some(commit), _) => {
                let (object, whole) = commit.object(PAYLOAD_MAX);
                Some(Push::Commit { seq, object, whole })
            }
            (None, Scope::All) => Some(self.read(seq).await?),
        };
        self.sent = seq;
        Ok(push)
    }

    async fn read(&self, seq: Seq) -> Result<Push> {
        let stored = self.shared.log.read_applied(seq).await?;
        let stored = stored.ok_or_else(|| {
            Error::unavailable(format!("commit {seq} is not in the store any more: load a checkpoint"))
        })?;
        let header = stored.header;
        match stored.payload.filter(|payload| payload.len() <= PAYLOAD_MAX) {
            None => Ok(Push::Commit { seq, object: header, whole: false }),
            Some(payload) => Ok(Push::Commit { seq, object: [header, payload].concat().into(), whole: true }),
        }
    }
}

/// Notes what a follower reports, until its stream ends or the task is aborted.
async fn take_reports(mut spoken_for: SpokenFor, mut progress: BoxStream<'static, Result<Progress>>) {
    while let Some(Ok(progress)) = progress.next().await {
        for (incarnation, seq) in progress.applied {
            spoken_for.report(incarnation, seq);
        }
    }
}

/// The processes that one follower speaks for; they are forgotten with it.
struct SpokenFor {
    shared: Arc<Shared>,
    follower: WriterId,
    reported: Arc<AtomicU64>,
    replica: bool,
    incarnations: BTreeSet<u64>,
}

impl SpokenFor {
    fn report(&mut self, WriterId(id): WriterId, seq: Seq) {
        let known = self.incarnations.contains(&id);
        if id == self.shared.writer.id().0 || (!known && self.incarnations.len() >= SPOKEN_FOR_MAX) {
            return;
        }
        self.incarnations.insert(id);
        if id == self.follower.0 {
            self.reported.fetch_max(seq.0, Ordering::AcqRel);
        }
        self.shared.progress.report(id, seq);
        // Writers speak to each other directly; passing on what they say would go round in circles.
        if self.replica {
            self.shared.downstream.change(|applied| {
                let known = applied.entry(id).or_default();
                *known = seq.max(*known);
            });
        }
    }
}

impl Drop for SpokenFor {
    fn drop(&mut self) {
        for id in &self.incarnations {
            self.shared.progress.gone(*id);
        }
        if self.replica {
            self.shared.downstream.change(|applied| applied.retain(|id, _| !self.incarnations.contains(id)));
        }
    }
}
