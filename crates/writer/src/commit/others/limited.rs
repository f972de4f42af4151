//! Keeping up with others only as far as a limit allows.
//!
//! Commits come from the store, a run at a time: what may not be applied yet waits here as bare headers, bounded, and
//! everything behind it stays in the store. So a replica that is kept an hour behind reads each commit once and holds no
//! hour of commits in memory.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tandem_log::{Admits, StoredCommit};
use tandem_types::{Error, Result, Seq};

use super::RUN;
use crate::commit::CommitTask;
use crate::limit::{Limiter, Standing};

/// Bytes of headers that wait, beside the first.
const HELD_BYTES: usize = 4 << 20;

/// How often a state that stays is looked at for nothing.
const ENDED_WAIT: Duration = Duration::from_secs(3600);

/// The shortest wait for a commit to become old enough.
const DUE_MIN: Duration = Duration::from_millis(1);

/// Commits that continue the state and may not be applied yet, in order.
#[derive(Debug, Default)]
pub(super) struct Held {
    commits: VecDeque<StoredCommit>,
    bytes: usize,
}

impl Held {
    fn has_room(&self) -> bool {
        self.commits.is_empty() || (self.bytes < HELD_BYTES && self.commits.len() < RUN)
    }

    fn push(&mut self, stored: &StoredCommit) {
        // A slice would keep in memory what it leaves out.
        let header = Bytes::copy_from_slice(&stored.header);
        self.bytes += header.len();
        self.commits.push_back(StoredCommit { commit: stored.commit.clone(), header, payload: None });
    }

    fn pop(&mut self) -> Option<StoredCommit> {
        let stored = self.commits.pop_front()?;
        self.bytes = self.bytes.saturating_sub(stored.header.len());
        Some(stored)
    }

    fn last(&self) -> Option<Seq> {
        self.commits.back().map(|stored| stored.commit.header.seq)
    }
}

impl CommitTask {
    /// How long nothing can be applied, if a limit says so.
    pub(super) fn limited_wait(&self) -> Option<Duration> {
        let limiter = self.shared.limiter.as_ref()?;
        if limiter.standing().ended {
            return Some(ENDED_WAIT);
        }
        let front = self.others.held.commits.front()?;
        Some(match limiter.admits(&front.commit.header) {
            Admits::Now => Duration::ZERO,
            Admits::Never => ENDED_WAIT,
            Admits::At(due) => {
                let wait = u64::try_from(due.saturating_sub(limiter.now())).unwrap_or(0);
                // Not for long at once: the clock may be corrected meanwhile.
                Duration::from_micros(wait).min(self.shared.config.poll).max(DUE_MIN)
            }
        })
    }

    /// Applies what others committed, from the store, as far as the limit allows; how many commits that were.
    pub(super) async fn catch_up_within(&mut self, limiter: &Limiter) -> Result<usize> {
        let mut total = self.apply_held(limiter)?;
        while !self.stands_still(limiter) {
            let applied = self.shared.applied();
            let run = self.shared.log.read_run_stored(applied, RUN).await?;
            let Some(last) = run.last().map(|stored| stored.commit.header.seq) else { break };
            self.shared.feeds.heard_of(last, applied);
            let state = self.shared.state.borrow().clone();
            let mut next = (*state).clone();
            for stored in &run {
                let header = &stored.commit.header;
                if self.others.held.commits.is_empty() && limiter.admits(header) == Admits::Now {
                    next = next.apply(header, stored.commit.hash)?.manifest;
                    self.keep(stored);
                    total += 1;
                } else if self.others.held.has_room() {
                    self.others.held.push(stored);
                }
            }
            if next.seq() > state.seq() {
                self.publish(next);
            }
        }
        Ok(total)
    }

    /// Applies those that have become old enough; how many.
    fn apply_held(&mut self, limiter: &Limiter) -> Result<usize> {
        let state = self.shared.state.borrow().clone();
        let mut next = (*state).clone();
        let mut count = 0;
        while let Some(front) = self.others.held.commits.front() {
            let header = &front.commit.header;
            if header.seq > next.seq() {
                if limiter.admits(header) != Admits::Now {
                    break;
                }
                next = next.apply(header, front.commit.hash)?.manifest;
                count += 1;
                self.keep(front);
            }
            self.others.held.pop();
        }
        if count > 0 {
            self.publish(next);
        }
        Ok(count)
    }

    /// Whether nothing more can be applied now; noted for whoever asks how the node stands.
    fn stands_still(&self, limiter: &Limiter) -> bool {
        let applied = self.shared.applied();
        let front = self.others.held.commits.front().map(|stored| &stored.commit.header);
        let never = front.is_some_and(|header| limiter.admits(header) == Admits::Never);
        let ended = never || limiter.limit.ends_at(applied);
        if ended && !limiter.standing().ended {
            tracing::info!(%applied, limit = %limiter.limit, "the limit is reached: this state stays");
        }
        limiter.stands(Standing { next: front.map(|header| (header.seq, header.commit_time)), ended });
        ended || front.is_some()
    }

    /// The end of the log, for those who demand to read it: beyond what is applied where the limit does not allow more.
    ///
    /// # Errors
    ///
    /// `Behind` if the end is too far away to be looked for.
    pub(super) async fn end_of_log(&mut self, limiter: &Limiter) -> Result<Seq> {
        let applied = self.shared.applied();
        if limiter.standing().ended {
            let beyond = self.shared.log.read(applied.next()).await?;
            return Ok(beyond.map_or(applied, |commit| commit.header.seq));
        }
        let Some(last) = self.others.held.last() else { return Ok(applied) };
        let more = self.shared.log.read_run_stored(last, RUN).await?;
        let end = more.last().map_or(last, |stored| stored.commit.header.seq);
        if more.len() >= RUN {
            let message = format!(
                "the newest commit is asked for, and this node, which applies {}, has applied seq {applied} of more than {end}",
                limiter.limit
            );
            return Err(Error::behind(message).with_seq(applied));
        }
        for stored in &more {
            if self.others.held.has_room() {
                self.others.held.push(stored);
            }
        }
        Ok(end)
    }
}
