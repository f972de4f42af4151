//! States of the past: the one at a seq, the one right before a transaction, and which seq a time means.

use futures::{StreamExt, TryStreamExt, stream};
use tandem_manifest::Manifest;
use tandem_types::{Error, Result, Seq};

use crate::{ApplyLimit, Commit, Log, Until};

/// How many commits are read before they are applied.
const RUN: usize = 256;

/// A state this many commits earlier is a better start than a checkpoint that must be found first.
const NEAR: u64 = 1024;

/// How many commits a search by time asks for at once.
const PROBES: u64 = 8;

/// A commit, and its commit time in microseconds since 1970.
pub type Moment = (Seq, i64);

impl Log {
    /// The state at `seq`, which the log has reached: from `near`, a state at or before it, where that is close, else
    /// from the newest recorded checkpoint that is not later.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the log was trimmed and no checkpoint is left that is old enough.
    pub async fn state_at(&self, seq: Seq, near: Option<&Manifest>) -> Result<Manifest> {
        let start = match near.filter(|near| near.seq() <= seq && seq.0 - near.seq().0 <= NEAR) {
            Some(near) => near.clone(),
            None => {
                let limit = ApplyLimit { until: Some(Until::Seq(seq)), ..ApplyLimit::default() };
                // Without a delay no clock is asked.
                self.recover_within(&limit, 0).await?.manifest
            }
        };
        self.replay_to(start, seq).await
    }

    async fn replay_to(&self, mut state: Manifest, seq: Seq) -> Result<Manifest> {
        while state.seq() < seq {
            let left = usize::try_from(seq.0 - state.seq().0).unwrap_or(usize::MAX);
            let run = self.read_run(state.seq(), left.min(RUN)).await?;
            if run.is_empty() {
                return Err(Error::unavailable(format!("the log ends at {} and not at {seq}", state.seq())));
            }
            for commit in run {
                state = state.apply(&commit.header, commit.hash)?.manifest;
            }
        }
        Ok(state)
    }

    /// What `commit` finds when its transaction of this number comes to be applied: the state at the seq before, and the
    /// transactions before it of the same commit. `before` is the state at the seq before.
    ///
    /// Its seq is that of the commit, and its hash says nothing: it is good for looking, nothing can be applied to it.
    pub fn state_within(before: &Manifest, commit: &Commit, transaction: usize) -> Result<Manifest> {
        let mut header = commit.header.clone();
        header.transactions.truncate(transaction);
        Ok(before.apply(&header, commit.hash)?.manifest)
    }

    /// Where a time lies between two commits, the first of which is not later than it, and the second is: the last commit
    /// that is not later, and the one after that.
    ///
    /// Reads few headers: commit times grow strictly.
    ///
    /// # Errors
    ///
    /// `Unavailable` if a commit between the two is not there (any more).
    pub async fn moments_around(
        &self,
        time: i64,
        mut low: Moment,
        mut high: Moment,
    ) -> Result<(Moment, Moment)> {
        while high.0.0.saturating_sub(low.0.0) > 1 {
            let inside = high.0.0 - low.0.0 - 1;
            let probes = inside.min(PROBES);
            // Spread evenly; different, because there are at least as many places.
            let place = |i: u64| {
                let share = u128::from(inside) * u128::from(i) / u128::from(probes);
                Seq(low.0.0 + 1 + u64::try_from(share).unwrap_or(0))
            };
            let reads: Vec<_> = (0..probes).map(|i| self.moment(place(i))).collect();
            let found: Vec<Moment> = stream::iter(reads).buffered(PROBES as usize).try_collect().await?;
            for moment in found {
                if moment.1 <= time {
                    low = low.max(moment);
                } else {
                    high = high.min(moment);
                }
            }
        }
        Ok((low, high))
    }

    /// The commit at a seq, which must be there.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is not (any more).
    pub async fn moment(&self, seq: Seq) -> Result<Moment> {
        match self.read(seq).await? {
            Some(commit) => Ok((seq, commit.header.commit_time)),
            None => Err(Error::unavailable(format!("commit {seq} is not in the log any more"))),
        }
    }
}
