//! Keeping up with the commits of others: those that peers push, and those that the store shows.

mod limited;

use std::sync::atomic::Ordering;
use std::time::Duration;

use tandem_log::StoredCommit;
use tandem_types::{CommitId, Error, ErrorKind, Result, Seq};
use tokio::sync::mpsc;

use super::{CommitTask, is_passing};
use crate::commit::others::limited::Held;
use crate::feed::{Arrived, Early};
use crate::queue::Bundle;
use crate::recent::RecentCommit;
use crate::{Refresh, Shared, spoilt};

/// Commits that are read at once.
const RUN: usize = 256;

/// How long a commit that was heard of may take to arrive before it is read from the store: pushes of several peers
/// overtake each other.
const GRACE: Duration = Duration::from_millis(10);

/// What the commit task knows of the commits of others.
pub(super) struct Others {
    pub(super) news: mpsc::Receiver<Arrived>,
    pub(super) early: Early,
    /// What this node is creating now: what stands at its seq is for the store to say, if it is this.
    pub(super) proposed: Option<CommitId>,
    refreshes: mpsc::UnboundedReceiver<Refresh>,
    /// Those that asked before the present look at the log.
    refreshing: Vec<Refresh>,
    /// When the store was last looked at, and how long to wait before it is again.
    looked: Duration,
    pace: Duration,
    /// What a limit does not allow yet.
    held: Held,
    /// Where the state stands although more is known of, and since when it does.
    stuck: Option<(Seq, Duration)>,
}

/// What there was to be learnt.
pub(super) enum Learnt {
    News,
    /// `None`: there will be none any more.
    Request(Option<Bundle>),
}

impl Others {
    pub fn new(
        shared: &Shared,
        news: mpsc::Receiver<Arrived>,
        refreshes: mpsc::UnboundedReceiver<Refresh>,
    ) -> Self {
        Self {
            news,
            early: Early::default(),
            proposed: None,
            refreshes,
            refreshing: Vec::new(),
            looked: shared.log.env().clock.monotonic(),
            pace: shared.config.poll_min,
            held: Held::default(),
            stuck: None,
        }
    }
}

impl Others {
    /// Whoever creates the log's end has seen it: a look could not show more.
    pub fn saw_the_end(&mut self, now: Duration) {
        self.looked = now;
    }
}

impl CommitTask {
    /// Follows the others until there is a request; `false`: there will be none any more.
    pub(super) async fn wait_for_request(&mut self) -> Result<bool> {
        loop {
            if let Learnt::Request(received) = self.follow(true).await? {
                self.waiting.extend(received);
                return Ok(!self.waiting.is_empty());
            }
        }
    }

    /// Waits for the next thing to be learnt of the others, and learns it, or for a request, if `requests` are asked for.
    /// May be dropped.
    pub(super) async fn follow(&mut self, requests: bool) -> Result<Learnt> {
        let clock = self.shared.log.env().clock.clone();
        let wait = self.until_next_look();
        tokio::select! {
            biased;
            received = self.requests.recv(), if requests => return Ok(Learnt::Request(received)),
            Some(asked) = self.others.refreshes.recv() => {
                self.others.refreshing.push(asked);
                self.note_refreshes();
                self.look().await?;
            }
            Some(arrived) = self.others.news.recv() => {
                self.others.early.keep(arrived, self.shared.applied());
                self.apply_news();
            }
            () = self.shared.feeds.nudge.notified() => {}
            () = clock.sleep(wait) => self.look().await?,
        }
        Ok(Learnt::News)
    }

    fn until_next_look(&mut self) -> Duration {
        if let Some(wait) = self.limited_wait() {
            return wait;
        }
        let now = self.shared.log.env().clock.monotonic();
        let (feeds, config) = (&self.shared.feeds, &self.shared.config);
        let applied = self.shared.applied();
        let others = &mut self.others;
        others.early.forget(applied);
        let behind = !others.early.is_empty() || feeds.lag(applied).commits > 0;
        match others.stuck {
            _ if !behind => others.stuck = None,
            Some((at, _)) if at == applied => {}
            _ => {
                others.stuck = Some((applied, now));
                others.pace = GRACE.min(config.poll);
            }
        }
        let due = match others.stuck {
            Some((_, since)) => since.max(others.looked) + others.pace,
            None if feeds.live() > 0 => others.looked + config.poll,
            None => others.looked + others.pace.clamp(config.poll_min.min(config.poll), config.poll),
        };
        due.saturating_sub(now)
    }

    /// Looks into the store: quickly again if there was something, ever more slowly if not.
    async fn look(&mut self) -> Result<()> {
        self.others.looked = self.shared.log.env().clock.monotonic();
        let config = &self.shared.config;
        let slower = (self.others.pace * 2).min(config.poll);
        let faster = config.poll_min.min(config.poll);
        let caught_up = self.catch_up().await;
        self.others.pace = if caught_up.as_ref().is_ok_and(|n| *n > 0) { faster } else { slower };
        match caught_up {
            Ok(_) => {
                let shared = self.shared.clone();
                let end = match &shared.limiter {
                    Some(limiter) if !self.others.refreshing.is_empty() => self.end_of_log(limiter).await,
                    _ => Ok(shared.applied()),
                };
                self.answer_refreshes(end);
                Ok(())
            }
            Err(e) => {
                self.answer_refreshes(Err(e.clone()));
                if !is_passing(&e) {
                    return Err(e);
                }
                tracing::warn!(error = %e, "the log cannot be read now");
                Ok(())
            }
        }
    }

    /// Applies what others committed, from the store; how many commits that were.
    pub(super) async fn catch_up(&mut self) -> Result<usize> {
        let shared = self.shared.clone();
        let before = shared.applied();
        let caught_up = match &shared.limiter {
            Some(limiter) => self.catch_up_within(limiter).await,
            None => self.catch_up_with_all().await,
        };
        match caught_up {
            Err(e) if e.kind() == ErrorKind::HistoryGone => {
                tracing::info!(reason = %e, "too far behind to go on commit by commit");
                self.start_over().await?;
                Ok(usize::try_from(shared.applied().0 - before.0).unwrap_or(usize::MAX))
            }
            caught_up => caught_up,
        }
    }

    /// The log was trimmed past where it was looked at: the newest state comes from a checkpoint, unless peers have brought
    /// it meanwhile.
    ///
    /// # Errors
    ///
    /// As of recovery. `Unavailable` where a limit keeps this node at a state that cannot be had any more.
    pub(super) async fn start_over(&mut self) -> Result<()> {
        let (log, config) = (&self.shared.log, &self.shared.config);
        let recovered = log.recover_within(&config.limit, log.env().clock.now_micros()).await?;
        let (state, before) = (recovered.manifest, self.shared.applied());
        if state.seq() <= before {
            return Ok(());
        }
        tracing::warn!(from = %before, to = %state.seq(), "started over from a checkpoint");
        metrics::counter!("tandem_starts_over_total").increment(1);
        self.shared.logged_bytes.fetch_add(recovered.replayed_bytes, Ordering::Relaxed);
        self.others.held = Held::default();
        self.publish(state);
        Ok(())
    }

    async fn catch_up_with_all(&mut self) -> Result<usize> {
        let shared = self.shared.clone();
        let before = shared.applied();
        loop {
            let run = self.meanwhile(shared.log.read_run_stored(shared.applied(), RUN)).await?;
            let state = self.shared.state.borrow().clone();
            let mut next = (*state).clone();
            // Peers may have been quicker.
            for stored in run.iter().filter(|stored| stored.commit.header.seq > state.seq()) {
                next = next.apply(&stored.commit.header, stored.commit.hash)?.manifest;
                self.keep(stored);
            }
            if next.seq() > state.seq() {
                self.publish(next);
            }
            if run.len() < RUN {
                // The end was seen after the call began; what was heard of further commits was wrong, or is not yet so. Who
                // goes on until nothing more comes never catches up with a log that grows faster than it is asked for, and
                // never gets to write.
                return Ok(usize::try_from(shared.applied().0 - before.0).unwrap_or(usize::MAX));
            }
        }
    }

    /// Applies what peers have pushed, as far as it continues the state here; whether anything was.
    pub(super) fn apply_news(&mut self) -> bool {
        let applied = self.shared.applied();
        while let Ok(arrived) = self.others.news.try_recv() {
            self.others.early.keep(arrived, applied);
        }
        let state = self.shared.state.borrow().clone();
        let mut next = (*state).clone();
        let env = self.shared.log.env().clone();
        let proposed = self.others.proposed;
        let turn = |early: &mut Early, seq: Seq| match proposed {
            Some(proposed) if early.has(seq.next(), proposed) => None,
            _ => early.next(seq).or_else(|| spoilt::out_of_turn(&env, early)),
        };
        while let Some(arrived) = turn(&mut self.others.early, next.seq()) {
            let commit = spoilt::fitted(&env, &arrived.stored.commit, &next);
            match next.apply(&commit.header, commit.hash) {
                Ok(applied) => {
                    next = applied.manifest;
                    self.keep(&arrived.stored);
                }
                // Either of us may be wrong; the store knows.
                Err(e) => {
                    arrived.refuse(e);
                    break;
                }
            }
        }
        let moved = next.seq() > state.seq();
        if moved {
            self.publish(next);
        }
        moved
    }

    fn keep(&self, stored: &StoredCommit) {
        self.take_note(&stored.commit.header);
        self.shared.recent.keep(stored.commit.header.seq, || RecentCommit::of_others(stored), false);
    }

    /// From here on, whatever shows the log's end answers those that have asked.
    pub(super) fn note_refreshes(&mut self) {
        while let Ok(asked) = self.others.refreshes.try_recv() {
            self.others.refreshing.push(asked);
        }
    }

    pub(super) fn answer_refreshes(&mut self, answer: Result<Seq, Error>) {
        for asked in self.others.refreshing.drain(..) {
            // Whoever asked may be gone.
            let _ = asked.send(answer.clone());
        }
    }
}
