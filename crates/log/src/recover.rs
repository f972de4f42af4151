//! From nothing in memory to the state at the head.

use tandem_format::{ROOT_DIR, parse_root_name};
use tandem_manifest::Manifest;
use tandem_types::{ErrorKind, Result, Seq};

use crate::checkpoint::WrittenCheckpoint;
use crate::{Commit, Log};

/// How many commits are read before they are applied.
const RUN: usize = 256;

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
    /// without any, the log is replayed from its first commit.
    pub async fn recover(&self) -> Result<Recovered> {
        self.env.store.seen_is_durable("log").await?;
        let names = self.env.store.list_dir(ROOT_DIR).await?;
        let mut roots: Vec<Seq> = names.iter().filter_map(|name| parse_root_name(name)).collect();
        roots.sort_unstable();
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
                replay.bytes += rows_bytes(commit);
            }
        }
    }
}

#[derive(Default)]
struct Replay {
    commits: u64,
    bytes: u64,
}

fn rows_bytes(commit: &Commit) -> u64 {
    let sections = |op: &tandem_format::Op| match op {
        tandem_format::Op::Append { sections, .. } => sections.iter().map(|s| s.len).sum(),
        _ => 0u64,
    };
    commit.header.transactions.iter().flat_map(|t| &t.ops).map(sections).sum()
}
