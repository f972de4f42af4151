//! From nothing in memory to the state at the head, or at the end of what a limit allows.

use futures::{StreamExt, TryStreamExt, stream};
use tandem_env::Mutant;
use tandem_format::{ROOT_DIR, commit_path, parse_root_name};
use tandem_manifest::Manifest;
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::checkpoint::WrittenCheckpoint;
use crate::{Admits, ApplyLimit, Commit, Log, Until};

/// How many commits are read before they are applied.
const RUN: usize = 256;

/// How often recovery starts over because the log was trimmed under it.
const ATTEMPTS: u32 = 5;

/// How many seqs beyond the end of the log are looked at for what a hole would hide.
const PROBED: usize = 8;

/// The state at the head of the log, and how it was reached.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub manifest: Manifest,
    /// The checkpoint that it started from, if any.
    pub checkpoint: Option<WrittenCheckpoint>,
    /// Commits applied after it.
    pub replayed: u64,
    /// Bytes of rows in those commits.
    pub replayed_bytes: u64,
}

/// A limit, and the time at which it is asked.
#[derive(Clone, Copy, Debug)]
struct Bounds<'a> {
    limit: &'a ApplyLimit,
    now: i64,
}

impl Bounds<'_> {
    fn admit(&self, seq: Seq, commit_time: i64) -> bool {
        self.limit.admits(seq, commit_time, self.now) == Admits::Now
    }
}

impl Log {
    /// Loads the newest checkpoint that the log records, and applies what follows it.
    ///
    /// A checkpoint whose root was written but never recorded, or that is damaged or cannot be read by this version, is
    /// passed over for an older one; without any, the log is replayed from its first commit. A hole in the log, or a commit
    /// of a newer version, is an error.
    pub async fn recover(&self) -> Result<Recovered> {
        self.recover_within(&ApplyLimit::default(), 0).await
    }

    /// As [`Log::recover`], with nothing applied that the limit does not allow at `now` (microseconds since 1970), and
    /// from the newest checkpoint that lies within it.
    ///
    /// # Errors
    ///
    /// `Unavailable`, saying what is missing, if the log was trimmed and no checkpoint is left that is old enough.
    pub async fn recover_within(&self, limit: &ApplyLimit, now: i64) -> Result<Recovered> {
        self.env.store.seen_is_durable("log").await?;
        let bounds = Bounds { limit, now };
        let mut attempt = 1;
        loop {
            match self.recover_once(bounds).await {
                Err(e) if e.kind() == ErrorKind::HistoryGone && attempt < ATTEMPTS => {
                    tracing::info!(reason = %e, "the log was trimmed while it was read, starting over");
                    attempt += 1;
                }
                Err(e) if e.kind() == ErrorKind::HistoryGone => {
                    return Err(Error::damaged(format!("{e}, and no checkpoint from there on can be used")));
                }
                recovered => return recovered,
            }
        }
    }

    async fn recover_once(&self, bounds: Bounds<'_>) -> Result<Recovered> {
        let limit = bounds.limit;
        let floor = self.newest_floor().await?;
        let names = self.env.store.list_dir(ROOT_DIR).await?;
        let mut roots: Vec<Seq> = names.iter().filter_map(|name| parse_root_name(name)).collect();
        if let Some(floor) = floor {
            // The log does not go on from those below it. The one that it names is there, listed or not.
            roots.retain(|seq| *seq >= floor.seq && *seq != floor.checkpoint);
            roots.push(floor.checkpoint);
        }
        roots.sort_unstable();
        let newest = roots.last().copied().unwrap_or_default();
        let oldest = roots.first().copied();
        if !limit.is_none() {
            let within = self.roots_within(&roots, bounds).await?;
            roots.truncate(within);
        }
        // All checkpoints are too new: only the whole log leads there, if it still is whole.
        if let (true, Some(oldest)) = (roots.is_empty(), oldest)
            && (floor.is_some() || self.read(Seq(1)).await?.is_none())
        {
            return Err(too_old(limit, oldest));
        }
        let (recovered, ended) = self.recover_newest(roots, bounds).await?;
        // What a limit cut off says nothing about the log's end.
        if !ended && !self.env.mutant(Mutant::HoleUnchecked) {
            self.check_end(recovered.manifest.seq(), newest).await?;
        }
        Ok(recovered)
    }

    /// Replay ends at the first seq without a commit: that must be the end of the log and no hole in it, for whoever
    /// wrote into a hole would cut off what follows.
    async fn check_end(&self, head: Seq, newest_root: Seq) -> Result<()> {
        let beyond = stream::iter((head.0 + 2..).map(Seq).take(PROBED)).map(|seq| self.read(seq));
        let found: Vec<Option<Commit>> = beyond.buffered(PROBED).try_collect().await?;
        let later = found.into_iter().flatten().next().map(|commit| commit.header.seq);
        // Whoever wrote the root had applied its seq before the roots were listed.
        let later = later.or((newest_root > head).then_some(newest_root));
        // Others may have gone on meanwhile.
        match later {
            Some(later) if self.read(head.next()).await?.is_none() => {
                // Or it came and went while this was looked at.
                self.check_floor(head.next()).await?;
                Err(Error::damaged(format!(
                    "{} is missing, and the log goes on to {later} at least",
                    commit_path(head.next())
                )))
            }
            _ => Ok(()),
        }
    }

    /// How many of the roots, oldest first, lie within a limit. Their times grow with their seqs: few need to be read.
    async fn roots_within(&self, roots: &[Seq], bounds: Bounds<'_>) -> Result<usize> {
        if let (Some(Until::Seq(last)), true) = (bounds.limit.until, bounds.limit.delay.is_zero()) {
            return Ok(roots.partition_point(|root| *root <= last));
        }
        let (mut within, mut beyond) = (0, roots.len());
        while within < beyond {
            let middle = within + (beyond - within) / 2;
            let Some(seq) = roots.get(middle).copied() else { break };
            let fits = match self.load_root(seq).await {
                Ok((root, _)) => bounds.admit(seq, root.commit_time),
                // Which side of the limit it is on cannot be told: an older one is right in any case.
                Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NewerFormat) => {
                    tracing::warn!(%seq, error = %e, "a checkpoint cannot be used, trying older ones");
                    false
                }
                Err(e) => return Err(e),
            };
            if fits {
                within = middle + 1;
            } else {
                beyond = middle;
            }
        }
        Ok(within)
    }

    /// The second value: whether the limit ended the replay.
    async fn recover_newest(&self, mut roots: Vec<Seq>, bounds: Bounds<'_>) -> Result<(Recovered, bool)> {
        let mut newer = None;
        while let Some(seq) = roots.pop() {
            let start = match self.load_checkpoint(seq).await {
                Ok(start) => start,
                Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NewerFormat) => {
                    tracing::warn!(%seq, error = %e, "a checkpoint cannot be used, trying an older one");
                    // Who wrote it writes such commits, too, and stops us there; where none comes, all is well.
                    newer = newer.or(Some(e).filter(|e| e.kind() == ErrorKind::NewerFormat));
                    continue;
                }
                Err(e) => return Err(e),
            };
            match self.recover_from(seq, start, bounds).await {
                Ok(Some(recovered)) => return Ok(recovered),
                Ok(None) => tracing::info!(%seq, "a checkpoint was never recorded, trying an older one"),
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    tracing::warn!(%seq, error = %e, "the log after a checkpoint is damaged, trying an older one");
                }
                Err(e) => return Err(e),
            }
        }
        let replayed = self.replay(Manifest::empty(self.database), bounds, |_| {}).await;
        let (manifest, replay) = match (replayed, newer) {
            (Err(e), Some(newer)) if e.kind() == ErrorKind::HistoryGone => return Err(newer),
            (replayed, _) => replayed?,
        };
        let (replayed, replayed_bytes) = (replay.commits, replay.bytes);
        Ok((Recovered { manifest, checkpoint: None, replayed, replayed_bytes }, replay.ended))
    }

    /// `None`: neither the log after the checkpoint nor its floor records it.
    async fn recover_from(
        &self,
        seq: Seq,
        (start, root_hash): (Manifest, [u8; 32]),
        bounds: Bounds<'_>,
    ) -> Result<Option<(Recovered, bool)>> {
        let floor = self.newest_floor().await?;
        let mut recorded = self.env.mutant(Mutant::UnrecordedCheckpointUsed)
            || floor.is_some_and(|floor| (floor.checkpoint, floor.root_hash) == (seq, root_hash));
        let (manifest, replay) = self
            .replay(start, bounds, |state| recorded |= state.checkpoint() == Some((seq, root_hash)))
            .await?;
        if !recorded {
            return Ok(None);
        }
        let root = self.load_root(seq).await?.0;
        let (after, parts) = (root.recorded, root.parts);
        let checkpoint = Some(WrittenCheckpoint { seq, root_hash, after, parts, bytes_written: 0 });
        let (replayed, replayed_bytes) = (replay.commits, replay.bytes);
        Ok(Some((Recovered { manifest, checkpoint, replayed, replayed_bytes }, replay.ended)))
    }

    /// Applies what the limit allows. `look` sees every state on the way, and some beyond the limit: a checkpoint is
    /// recorded a little after its own seq.
    async fn replay(
        &self,
        mut state: Manifest,
        bounds: Bounds<'_>,
        mut look: impl FnMut(&Manifest),
    ) -> Result<(Manifest, Replay)> {
        let mut replay = Replay::default();
        loop {
            let run = self.read_run(state.seq(), RUN).await?;
            if run.is_empty() {
                return Ok((state, replay));
            }
            let mut beyond: Option<Manifest> = None;
            for commit in &run {
                if !bounds.admit(commit.header.seq, commit.header.commit_time) {
                    replay.ended = true;
                    let from = beyond.as_ref().unwrap_or(&state);
                    let next = from.apply(&commit.header, commit.hash)?.manifest;
                    look(&next);
                    beyond = Some(next);
                    continue;
                }
                state = state.apply(&commit.header, commit.hash)?.manifest;
                look(&state);
                replay.commits += 1;
                replay.bytes += commit.header.sections().map(|s| s.len).sum::<u64>();
            }
            if replay.ended {
                return Ok((state, replay));
            }
        }
    }
}

/// Why a state within the limit cannot be had.
fn too_old(limit: &ApplyLimit, oldest: Seq) -> Error {
    Error::unavailable(format!(
        "a node that applies {limit} cannot be started on this store: its oldest checkpoint, at {oldest}, lies beyond that, \
         and the log is not there from the beginning ({} is missing): allow a newer state",
        commit_path(Seq(1))
    ))
}

#[derive(Default)]
struct Replay {
    commits: u64,
    bytes: u64,
    /// Whether there is more that the limit does not allow.
    ended: bool,
}
