//! From nothing in memory to the state at the head.

use futures::{StreamExt, TryStreamExt, stream};
use tandem_format::{ROOT_DIR, commit_path, parse_root_name};
use tandem_manifest::Manifest;
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::checkpoint::WrittenCheckpoint;
use crate::{Commit, Log};

/// How many commits are read before they are applied.
const RUN: usize = 256;

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

impl Log {
    /// Loads the newest checkpoint that the log records, and applies what follows it.
    ///
    /// A checkpoint whose root was written but never recorded, or that is damaged, is passed over for an older one;
    /// without any, the log is replayed from its first commit. A hole in the log is an error.
    pub async fn recover(&self) -> Result<Recovered> {
        self.env.store.seen_is_durable("log").await?;
        let names = self.env.store.list_dir(ROOT_DIR).await?;
        let mut roots: Vec<Seq> = names.iter().filter_map(|name| parse_root_name(name)).collect();
        roots.sort_unstable();
        let newest = roots.last().copied().unwrap_or_default();
        let recovered = self.recover_newest(roots).await?;
        self.check_end(recovered.manifest.seq(), newest).await?;
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
            Some(later) if self.read(head.next()).await?.is_none() => Err(Error::damaged(format!(
                "{} is missing, and the log goes on to {later} at least",
                commit_path(head.next())
            ))),
            _ => Ok(()),
        }
    }

    async fn recover_newest(&self, mut roots: Vec<Seq>) -> Result<Recovered> {
        while let Some(seq) = roots.pop() {
            match self.recover_from(seq).await {
                Ok(Some(recovered)) => return Ok(recovered),
                Ok(None) => tracing::info!(%seq, "a checkpoint was never recorded, trying an older one"),
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    tracing::warn!(%seq, error = %e, "a checkpoint cannot be used, trying an older one");
                }
                Err(e) => return Err(e),
            }
        }
        let (manifest, replay) = self.replay(Manifest::empty(self.database), |_| {}).await?;
        Ok(Recovered { manifest, checkpoint: None, replayed: replay.commits, replayed_bytes: replay.bytes })
    }

    /// `None`: the log after the checkpoint does not record it.
    async fn recover_from(&self, seq: Seq) -> Result<Option<Recovered>> {
        let (start, root_hash) = self.load_checkpoint(seq).await?;
        let mut recorded = false;
        let (manifest, replay) =
            self.replay(start, |state| recorded |= state.checkpoint() == Some((seq, root_hash))).await?;
        if !recorded {
            return Ok(None);
        }
        let parts = self.load_root(seq).await?.0.parts;
        let checkpoint = Some(WrittenCheckpoint { seq, root_hash, parts, bytes_written: 0 });
        Ok(Some(Recovered { manifest, checkpoint, replayed: replay.commits, replayed_bytes: replay.bytes }))
    }

    async fn replay(
        &self,
        mut state: Manifest,
        mut look: impl FnMut(&Manifest),
    ) -> Result<(Manifest, Replay)> {
        let mut replay = Replay::default();
        loop {
            let run = self.read_run(state.seq(), RUN).await?;
            if run.is_empty() {
                return Ok((state, replay));
            }
            for commit in &run {
                state = state.apply(&commit.header, commit.hash)?.manifest;
                look(&state);
                replay.commits += 1;
                replay.bytes += commit.header.sections().map(|s| s.len).sum::<u64>();
            }
        }
    }
}

#[derive(Default)]
struct Replay {
    commits: u64,
    bytes: u64,
}
