//! Reading commits back.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_format::{CommitHeader, DecodedCommit, HeaderHash, commit_path, decode_commit};
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::Log;

/// Most headers are shorter than this, so that one request reads one.
const HEADER_BYTES: u64 = 64 << 10;

/// How many commits of a run are asked for at once.
const READ_AHEAD: usize = 32;

/// A commit's header, verified, and its hash.
#[derive(Clone, Debug)]
pub struct Commit {
    pub header: CommitHeader,
    pub hash: HeaderHash,
}

/// A commit as it is stored, with its header verified, for whoever passes it on.
#[derive(Clone, Debug)]
pub struct StoredCommit {
    pub commit: Commit,
    /// The object's first bytes, up to its payload.
    pub header: Bytes,
    /// `None` if it is not at hand.
    pub payload: Option<Bytes>,
}

impl StoredCommit {
    /// Verifies an object, or, where that is not `whole`, one that may end anywhere behind its header.
    pub fn decode(object: &Bytes, whole: bool) -> Result<Self> {
        let DecodedCommit { header, hash, payload } = decode_commit(object)?;
        let front = object.slice(..object.len() - payload.len());
        // A slice would keep in memory what it leaves out.
        let (front, payload) =
            if whole { (front, Some(payload)) } else { (Bytes::copy_from_slice(&front), None) };
        Ok(Self { commit: Commit { header, hash }, header: front, payload })
    }
}

/// A commit's payload: the sections that rode along.
#[derive(Clone, Debug)]
pub struct Payload(pub Bytes);

impl Log {
    /// The commit at a seq; `None` if there is none. Says nothing about the floor.
    pub async fn read(&self, seq: Seq) -> Result<Option<Commit>> {
        Ok(self.read_stored(seq).await?.map(|stored| stored.commit))
    }

    /// As [`Log::read`], with the bytes. The payload is among them where that costs no further request.
    pub async fn read_stored(&self, seq: Seq) -> Result<Option<StoredCommit>> {
        let path = commit_path(seq);
        let Some(prefix) = self.env.store.get_prefix(&path, HEADER_BYTES).await? else {
            return Ok(None);
        };
        let cut = prefix.len() as u64 == HEADER_BYTES;
        let decoded = match StoredCommit::decode(&prefix, !cut) {
            // Longer than the prefix, or damaged: the whole object tells.
            Err(e) if e.kind() == ErrorKind::Damaged && cut => {
                let whole = self.env.store.get(&path).await?.ok_or_else(|| vanished(&path))?;
                StoredCommit::decode(&whole, true)
            }
            decoded => decoded,
        };
        let stored = decoded.map_err(|e| e.context(&path))?;
        let header = &stored.commit.header;
        if header.database != self.database || header.seq != seq {
            return Err(Error::damaged(format!(
                "{path} holds commit {} of database {}, this is database {}",
                header.seq, header.database, self.database
            )));
        }
        Ok(Some(stored))
    }

    /// As [`Log::read_stored`], of a commit that was applied before: what is handed out is known to be that commit.
    ///
    /// # Errors
    ///
    /// `HistoryGone` if the log was trimmed there.
    pub async fn read_applied(&self, seq: Seq) -> Result<Option<StoredCommit>> {
        let stored = self.read_stored(seq).await;
        self.check_floor(seq).await?;
        stored
    }

    /// The payload of a commit that must be there.
    ///
    /// # Errors
    ///
    /// `HistoryGone` if it is missing because the log was trimmed there.
    pub async fn read_payload(&self, seq: Seq) -> Result<Payload> {
        let path = commit_path(seq);
        let Some(object) = self.env.store.get(&path).await? else {
            self.check_floor(seq).await?;
            return Err(vanished(&path));
        };
        Ok(Payload(decode_commit(&object).map_err(|e| e.context(&path))?.payload))
    }

    /// The commits that follow `applied`, in order, at most `limit`; empty if `applied` is the head.
    ///
    /// The floor is read afterwards and must be below the first of them: a lower object may have been deleted and
    /// created again by a writer that slept.
    ///
    /// # Errors
    ///
    /// `HistoryGone` if it is not: the caller has to start over from a checkpoint, see [`Log::recover`].
    pub async fn read_run(&self, applied: Seq, limit: usize) -> Result<Vec<Commit>> {
        let run = self.read_run_stored(applied, limit).await?;
        Ok(run.into_iter().map(|stored| stored.commit).collect())
    }

    /// As [`Log::read_run`], with the bytes; see [`Log::read_stored`].
    pub async fn read_run_stored(&self, applied: Seq, limit: usize) -> Result<Vec<StoredCommit>> {
        let first = applied.next();
        let run = self.read_unchecked(first, limit).await;
        if run.as_ref().is_ok_and(|run| !run.is_empty()) {
            // Others created them: what is answered from them must survive what they survive.
            self.env.store.seen_is_durable("log").await?;
        }
        match &run {
            // What is being deleted, or was created anew, may look like anything.
            Err(e) if e.kind() != ErrorKind::Damaged => {}
            _ => self.check_floor(first).await?,
        }
        run
    }

    async fn read_unchecked(&self, first: Seq, limit: usize) -> Result<Vec<StoredCommit>> {
        let mut run = Vec::new();
        // The head is the common case: ask for one before asking for many.
        match self.read_stored(first).await? {
            None => return Ok(run),
            Some(commit) => run.push(commit),
        }
        // Mostly few are missing, and each read that finds nothing is paid for: how many are asked for grows with the run.
        let mut at_once = 1;
        while run.len() < limit && at_once < READ_AHEAD {
            let from = first.0 + run.len() as u64;
            let seqs = (from..).map(Seq).take(at_once.min(limit - run.len()));
            let reads = stream::iter(seqs).map(|seq| self.read_stored(seq)).buffered(at_once);
            let found: Vec<Option<StoredCommit>> = reads.try_collect().await?;
            let asked = found.len();
            let before = run.len();
            run.extend(found.into_iter().map_while(|commit| commit));
            if run.len() - before < asked {
                return Ok(run);
            }
            at_once *= 2;
        }
        let seqs = (first.0 + run.len() as u64..).map(Seq).take(limit.saturating_sub(run.len()));
        let mut rest = stream::iter(seqs).map(|seq| self.read_stored(seq)).buffered(READ_AHEAD);
        while let Some(Some(commit)) = rest.try_next().await? {
            run.push(commit);
        }
        Ok(run)
    }
}

fn vanished(path: &str) -> Error {
    Error::damaged(format!("{path} is missing"))
}
