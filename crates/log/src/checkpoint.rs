//! Writing checkpoints, and reading them.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_env::Mutant;
use tandem_format::{
    CheckpointRoot, PartRef, commit_path, decode_part, decode_root, encode_part, encode_root, part_path,
    root_path,
};
use tandem_manifest::{Manifest, Step};
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::Log;

/// How many parts are written or read at once.
const PARTS_AT_ONCE: usize = 8;

/// How many commits are read before they are applied.
const RUN: usize = 256;

/// A checkpoint that was read back and folded a second time: what a commit may record.
#[derive(Clone, Debug)]
pub struct WrittenCheckpoint {
    pub seq: Seq,
    pub root_hash: [u8; 32],
    /// The recorded one that it goes on from.
    pub after: Option<(Seq, [u8; 32])>,
    /// Its parts, so that the next one reuses those that did not change.
    pub parts: Vec<PartRef>,
    /// Bytes that had to be written.
    pub bytes_written: u64,
}

impl WrittenCheckpoint {
    /// What records it.
    pub fn record(&self) -> Step {
        Step::Checkpoint { seq: self.seq, root_hash: self.root_hash, after: self.after }
    }
}

impl Log {
    /// Writes `manifest` as a checkpoint. It goes on from the newest recorded one, whoever wrote that: reuses its parts, and
    /// reads only the log after it. `previous` is what is known of it here; `None`: it is asked for.
    ///
    /// The caller commits the record; until then the checkpoint does not count.
    pub async fn write_checkpoint(
        &self,
        manifest: &Manifest,
        previous: Option<&WrittenCheckpoint>,
    ) -> Result<WrittenCheckpoint> {
        let (base, parts) = match self.load_previous(manifest, previous).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => (Manifest::empty(self.database), Vec::new()),
            // Nothing of it is reused, so that the next one mends it.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                tracing::warn!(error = %e, "the last checkpoint cannot be used: the next one is made from an older one");
                (self.state_at(manifest.seq(), None).await?, Vec::new())
            }
            Err(e) => return Err(e),
        };
        let kept: HashMap<[u8; 32], Seq> = parts.iter().map(|part| (part.hash, part.base)).collect();
        let mut refs = Vec::new();
        let mut fresh: Vec<(PartRef, Bytes)> = Vec::new();
        for entries in manifest.checkpoint_parts() {
            let (bytes, mut part) = encode_part(manifest.seq(), &entries)?;
            match kept.get(&part.hash) {
                Some(base) => part.base = *base,
                None => fresh.push((part, bytes)),
            }
            refs.push(part);
        }
        let mut bytes_written: u64 = fresh.iter().map(|(part, _)| part.len).sum();
        stream::iter(fresh)
            .map(|(part, bytes)| async move {
                self.env.store.create_data(&part_path(part.base, &part.hash), vec![bytes]).await
            })
            .buffer_unordered(PARTS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;

        let (root, root_hash) = encode_root(&manifest.checkpoint_root(refs.clone()))?;
        bytes_written += root.len() as u64;
        let (root_hash, parts) = match self.put_root(manifest, root).await? {
            Some(theirs) => theirs,
            None => (root_hash, refs),
        };
        self.verify_checkpoint(manifest, root_hash, base).await?;
        Ok(WrittenCheckpoint {
            seq: manifest.seq(),
            root_hash,
            after: manifest.checkpoint(),
            parts,
            bytes_written,
        })
    }

    /// Puts the root. Where another node, or this one before a crash, wrote the root of the same state already,
    /// that one stands: its parts may only be named after other bases.
    async fn put_root(&self, manifest: &Manifest, root: Bytes) -> Result<Option<([u8; 32], Vec<PartRef>)>> {
        match self.env.store.create_data(&root_path(manifest.seq()), vec![root]).await {
            Ok(()) => Ok(None),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let (theirs, hash) = self.load_root(manifest.seq()).await?;
                Ok(Some((hash, theirs.parts)))
            }
            Err(e) => Err(e),
        }
    }

    /// The newest recorded checkpoint before a state, as it is stored, and its parts.
    async fn load_previous(
        &self,
        manifest: &Manifest,
        known: Option<&WrittenCheckpoint>,
    ) -> Result<Option<(Manifest, Vec<PartRef>)>> {
        let recorded = match known.map(|p| (p.seq, p.root_hash)).or(manifest.checkpoint()) {
            // A log that begins with a copied state has recorded nothing yet: the floor names what it rests on.
            None => {
                // Unless others have trimmed the log far beyond this state.
                let floor = self.newest_floor().await?.filter(|floor| floor.checkpoint <= manifest.seq());
                floor.map(|floor| (floor.checkpoint, floor.root_hash))
            }
            recorded => recorded,
        };
        let Some((seq, root_hash)) = recorded else { return Ok(None) };
        let (loaded, found) = self.load_checkpoint(seq).await?;
        if found != root_hash {
            return Err(Error::damaged(format!("{} is not what the log records", root_path(seq))));
        }
        let parts = match known {
            Some(known) => known.parts.clone(),
            None => self.load_root(seq).await?.0.parts,
        };
        Ok(Some((loaded, parts)))
    }

    /// `base` is a state on the way there, from stored bytes.
    async fn verify_checkpoint(
        &self,
        manifest: &Manifest,
        root_hash: [u8; 32],
        base: Manifest,
    ) -> Result<()> {
        if self.env.mutant(Mutant::CheckpointNotReadBack) {
            return Ok(());
        }
        let (read_back, found) = self.load_checkpoint(manifest.seq()).await?;
        if found != root_hash || read_back.digest() != manifest.digest() {
            return Err(Error::damaged(format!(
                "{} read back is not what was written",
                root_path(manifest.seq())
            )));
        }
        // Fold once more, from stored bytes only: a fault in memory must not become the truth.
        let mut folded = base;
        while folded.seq() < manifest.seq() {
            let left = usize::try_from(manifest.seq().0 - folded.seq().0).unwrap_or(usize::MAX);
            let run = self.read_run(folded.seq(), left.min(RUN)).await?;
            if run.is_empty() {
                return Err(Error::damaged(format!("{} is missing", commit_path(folded.seq().next()))));
            }
            for commit in run {
                folded = folded.apply(&commit.header, commit.hash)?.manifest;
            }
        }
        if folded.digest() != manifest.digest() {
            return Err(Error::internal(format!(
                "folding the log up to {} a second time gives another state: the checkpoint is not recorded",
                manifest.seq()
            )));
        }
        Ok(())
    }

    /// The state that the checkpoint at `seq` holds, and its root's hash.
    pub async fn load_checkpoint(&self, seq: Seq) -> Result<(Manifest, [u8; 32])> {
        let (root, hash) = self.load_root(seq).await?;
        let reads: Vec<_> = root.parts.iter().map(|part| self.load_part(*part)).collect();
        let parts: Vec<_> = stream::iter(reads).buffered(PARTS_AT_ONCE).try_collect().await?;
        let manifest = Manifest::from_checkpoint(&root, parts.into_iter().map(Ok))?;
        Ok((manifest, hash))
    }

    /// The root of the checkpoint at `seq`, recorded or not, and its hash. `Damaged` if it is not there.
    pub async fn load_root(&self, seq: Seq) -> Result<(CheckpointRoot, [u8; 32])> {
        let path = root_path(seq);
        let missing = || Error::damaged(format!("{path} is missing"));
        let object = self.env.store.get(&path).await?.ok_or_else(missing)?;
        let (root, hash) = decode_root(&object).map_err(|e| e.context(&path))?;
        if root.database != self.database || root.seq != seq {
            return Err(Error::damaged(format!(
                "{path} belongs to seq {} of database {}",
                root.seq, root.database
            )));
        }
        Ok((root, hash))
    }

    async fn load_part(&self, part: PartRef) -> Result<Vec<tandem_format::PartEntry>> {
        let path = part_path(part.base, &part.hash);
        let missing = || Error::damaged(format!("{path} is missing"));
        let object = self.env.store.get(&path).await?.ok_or_else(missing)?;
        decode_part(&part, &object).map_err(|e| e.context(&path))
    }
}
