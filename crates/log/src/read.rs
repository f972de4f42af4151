//! Reading commits back.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_format::{CommitHeader, HeaderHash, commit_path, decode_commit, floor_path};
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

/// A commit's payload: the sections that rode along.
#[derive(Clone, Debug)]
pub struct Payload(pub Bytes);

impl Log {
    /// The commit at a seq; `None` if there is none. Says nothing about the floor.
    pub async fn read(&self, seq: Seq) -> Result<Option<Commit>> {
        let path = commit_path(seq);
        let Some(prefix) = self.env.store.get_prefix(&path, HEADER_BYTES).await? else {
            return Ok(None);
        };
        let decoded = match decode_commit(&prefix) {
            // Longer than the prefix, or damaged: the whole object tells.
            Err(e) if e.kind() == ErrorKind::Damaged && prefix.len() as u64 == HEADER_BYTES => {
                let whole = self.env.store.get(&path).await?.ok_or_else(|| vanished(&path))?;
                decode_commit(&whole)
            }
            decoded => decoded,
        };
        let commit = decoded.map_err(|e| e.context(&path))?;
        if commit.header.database != self.database || commit.header.seq != seq {
            return Err(Error::damaged(format!(
                "{path} holds commit {} of database {}, this is database {}",
                commit.header.seq, commit.header.database, self.database
            )));
        }
        Ok(Some(Commit { header: commit.header, hash: commit.hash }))
    }

    /// The payload of a commit that must be there.
    pub async fn read_payload(&self, seq: Seq) -> Result<Payload> {
        let path = commit_path(seq);
        let object = self.env.store.get(&path).await?.ok_or_else(|| vanished(&path))?;
        Ok(Payload(decode_commit(&object).map_err(|e| e.context(&path))?.payload))
    }

    /// The commits that follow `applied`, in order, at most `limit`; empty if `applied` is the head.
    ///
    /// The floor is read afterwards and must be below the first of them: a lower object may have been deleted and
    /// created again by a writer that slept. Above it, the caller must load a checkpoint.
    pub async fn read_run(&self, applied: Seq, limit: usize) -> Result<Vec<Commit>> {
        let first = applied.next();
        let mut run = Vec::new();
        // The head is the common case: ask for one before asking for many.
        match self.read(first).await? {
            None => {
                self.check_floor(first).await?;
                return Ok(run);
            }
            Some(commit) => run.push(commit),
        }
        let seqs = (first.0 + 1..).map(Seq).take(limit.saturating_sub(1));
        let mut rest = stream::iter(seqs).map(|seq| self.read(seq)).buffered(READ_AHEAD);
        while let Some(Some(commit)) = rest.try_next().await? {
            run.push(commit);
        }
        drop(rest);
        // Others created them: what is answered from them must survive what they survive.
        self.env.store.seen_is_durable("log").await?;
        self.check_floor(first).await?;
        Ok(run)
    }

    /// The floor: the highest seq whose log object may have been deleted. One request if it did not move.
    pub async fn floor(&self) -> Result<Seq> {
        let mut k = self.next_floor.load(Ordering::Acquire);
        while self.env.store.get(&floor_path(k)).await?.is_some() {
            k += 1;
            self.next_floor.fetch_max(k, Ordering::AcqRel);
        }
        match k {
            0 | 1 => Ok(Seq(0)),
            // Written by a program that can trim the log, which this one cannot yet read.
            _ => Err(Error::newer_format(format!(
                "{} exists: the log was trimmed by a newer version of this program",
                floor_path(k - 1)
            ))),
        }
    }

    async fn check_floor(&self, first: Seq) -> Result<()> {
        let floor = self.floor().await?;
        if floor >= first {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the log below {floor} was trimmed: load the newest checkpoint"),
            ));
        }
        Ok(())
    }
}

fn vanished(path: &str) -> Error {
    Error::damaged(format!("{path} is missing"))
}
