//! Checkpoints: the manifest written out as a small root and parts of at most about 1 MiB.
//!
//! Parts are named by what they hold, so the next checkpoint writes only the parts that changed.
//! The root names every part with its hash and length; a reader verifies both.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tandem_types::{
    ColumnId, DatabaseId, Epoch, Error, Partition, PartitionUnit, Result, SchemaId, Seq, TableId, TableName,
};

use crate::commit::HeaderHash;
use crate::layout::{FileName, ObjectName};
use crate::mutation::PendingMutation;
use crate::record::{DataFile, Lease, Pin, Primary, ProducerId, Section, SectionKey, TableDef};
use crate::{frame, pb};

const ROOT_MAGIC: &[u8; 8] = b"TNDMROOT";
const PART_MAGIC: &[u8; 8] = b"TNDMPART";

/// The root: everything of a manifest that is small, and where the rest lies.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRoot {
    pub seq: Seq,
    pub database: DatabaseId,
    /// Of the commit at `seq`.
    pub header_hash: HeaderHash,
    pub commit_time: i64,
    pub age: i64,
    pub epoch: Epoch,
    pub next_table: TableId,
    pub token_floor: Seq,
    /// The newest checkpoint that the log had recorded by then: its seq and the hash of its root.
    pub recorded: Option<(Seq, [u8; 32])>,
    /// The manifest's digest; whoever loads the checkpoint computes it again and compares.
    pub digest: u128,
    pub primary: Option<Primary>,
    pub lease: Option<Lease>,
    /// Rows of all commits so far, and their bytes: for people, not part of the digest.
    pub logged_rows: u64,
    pub logged_bytes: u64,
    /// Objects whose base is below it may be deleted unless they are named.
    pub horizon: Seq,
    /// Snapshots from here on are kept.
    pub history_start: Seq,
    /// By id.
    pub pins: Vec<Pin>,
    /// The lowest commit whose own rows a restore brought back, and the commit of the last such restore, while snapshots from
    /// before it are kept.
    pub brought_back: Option<(Seq, Seq)>,
    pub schemas: Vec<String>,
    pub settings: Vec<(String, String)>,
    pub tables: Vec<TableState>,
    pub parts: Vec<PartRef>,
}

/// A table without its data.
#[derive(Clone, Debug, PartialEq)]
pub struct TableState {
    pub table: TableId,
    pub name: TableName,
    pub def: TableDef,
    pub schema_id: SchemaId,
    pub next_column: ColumnId,
    pub created: Seq,
    /// The last commit that changed what queries see; upkeep does not count.
    pub changed: Seq,
    /// In the order of the columns: the seq that added each.
    pub column_added: Vec<Seq>,
    /// The schema version made by the last change of a column's name; 0: none was renamed.
    pub renamed: SchemaId,
    /// The last commit that made the table what it had been before; 0: none did.
    pub restored: Seq,
}

/// Where a part lies, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRef {
    pub base: Seq,
    pub hash: [u8; 32],
    pub len: u64,
}

/// An entry of a part.
#[derive(Clone, Debug, PartialEq)]
pub enum PartEntry {
    File {
        table: TableId,
        created: Seq,
        file: DataFile,
    },
    Tail {
        table: TableId,
        key: SectionKey,
        section: Section,
        live: Vec<Partition>,
    },
    RemovedFile {
        removed: Seq,
        table: TableId,
        partition_by: PartitionUnit,
        file: FileName,
        size: u64,
    },
    RemovedSegment {
        removed: Seq,
        segment: ObjectName,
    },
    /// `since`: tokens made before that seq are told apart only where they stand in `committed`.
    Producer {
        producer: ProducerId,
        low: u64,
        last_seq: Seq,
        since: Seq,
        committed: Vec<CommittedToken>,
    },
    /// A client's token, by the place of the transaction that committed it.
    Foreign {
        seq: Seq,
        transaction: u32,
        token: CommittedForeign,
    },
    /// An UPDATE or DELETE that some rows of its table have not been through.
    Mutation {
        table: TableId,
        pending: Box<PendingMutation>,
    },
}

/// A client's token that was committed. Texts and digests are kept as hashes: there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedForeign {
    /// Of the token's text.
    pub key: u128,
    /// Of the transaction's digest.
    pub digest: u128,
    pub rows: u64,
    /// The log's age when it was committed, in microseconds.
    pub age: i64,
}

/// A token that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedToken {
    pub counter: u64,
    pub seq: Seq,
    pub rows: u64,
    pub digest: Vec<u8>,
}

/// The entries of one part.
pub type CheckpointPart = Vec<PartEntry>;

/// The root's bytes and their hash, which the commit that records the checkpoint names.
pub fn encode_root(root: &CheckpointRoot) -> Result<(Bytes, [u8; 32])> {
    let setting =
        |(key, value): &(String, String)| pb::Setting { key: key.clone(), value: Some(value.clone()) };
    let message = pb::CheckpointRoot {
        seq: root.seq.0,
        database: root.database.0.to_be_bytes().to_vec(),
        header_hash: root.header_hash.to_vec(),
        commit_time: root.commit_time,
        age: root.age,
        epoch: root.epoch.0,
        next_table: root.next_table.0,
        token_floor: root.token_floor.0,
        recorded: root.recorded.map(|(seq, hash)| pb::Checkpoint { seq: seq.0, root_hash: hash.to_vec() }),
        digest: root.digest.to_be_bytes().to_vec(),
        primary: root.primary.as_ref().map(Into::into),
        lease: root.lease.as_ref().map(Into::into),
        logged_rows: root.logged_rows,
        logged_bytes: root.logged_bytes,
        horizon: root.horizon.0,
        history_start: root.history_start.0,
        pins: root.pins.iter().map(Into::into).collect(),
        brought_back_from: root.brought_back.map_or(0, |(from, _)| from.0),
        brought_back_at: root.brought_back.map_or(0, |(_, at)| at.0),
        schemas: root.schemas.clone(),
        settings: root.settings.iter().map(setting).collect(),
        tables: root.tables.iter().map(Into::into).collect(),
        parts: root
            .parts
            .iter()
            .map(|p| pb::PartRef { base: p.base.0, hash: p.hash.to_vec(), len: p.len })
            .collect(),
    };
    let bytes: Bytes = frame::wrap(ROOT_MAGIC, &message.encode_to_vec())?.into();
    let hash = Sha256::digest(&bytes).into();
    Ok((bytes, hash))
}

/// The root and its hash.
pub fn decode_root(object: &Bytes) -> Result<(CheckpointRoot, [u8; 32])> {
    let hash = Sha256::digest(object).into();
    let (message, _) = frame::unwrap(ROOT_MAGIC, object)?;
    let stored = pb::CheckpointRoot::decode(message)
        .map_err(|e| Error::damaged(format!("the checkpoint's root does not decode: {e}")))?;
    let part = |p: pb::PartRef| -> Result<PartRef> {
        Ok(PartRef { base: Seq(p.base), hash: pb::fixed("the hash of a part", &p.hash)?, len: p.len })
    };
    let recorded = stored
        .recorded
        .map(|c| -> Result<_> { Ok((Seq(c.seq), pb::fixed("the hash of a checkpoint", &c.root_hash)?)) });
    let root = CheckpointRoot {
        seq: Seq(stored.seq),
        database: DatabaseId(pb::id128("the database id", &stored.database)?),
        header_hash: pb::fixed("the hash of the checkpoint's commit", &stored.header_hash)?,
        commit_time: stored.commit_time,
        age: stored.age,
        epoch: Epoch(stored.epoch),
        next_table: TableId(stored.next_table),
        token_floor: Seq(stored.token_floor),
        recorded: recorded.transpose()?,
        digest: pb::id128("the manifest's digest", &stored.digest)?,
        primary: stored.primary.map(Into::into),
        lease: stored.lease.map(Into::into),
        logged_rows: stored.logged_rows,
        logged_bytes: stored.logged_bytes,
        horizon: Seq(stored.horizon),
        history_start: Seq(stored.history_start),
        pins: stored.pins.into_iter().map(Into::into).collect(),
        brought_back: (stored.brought_back_at > 0)
            .then_some((Seq(stored.brought_back_from), Seq(stored.brought_back_at))),
        schemas: stored.schemas,
        settings: stored.settings.into_iter().map(|s| (s.key, s.value.unwrap_or_default())).collect(),
        tables: stored.tables.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        parts: stored.parts.into_iter().map(part).collect::<Result<_>>()?,
    };
    Ok((root, hash))
}

/// A part's bytes and the reference to it; `base` goes into its name.
pub fn encode_part(base: Seq, entries: &[PartEntry]) -> Result<(Bytes, PartRef)> {
    let message = pb::CheckpointPart { entries: entries.iter().map(Into::into).collect() };
    let bytes: Bytes = frame::wrap(PART_MAGIC, &message.encode_to_vec())?.into();
    let part = PartRef { base, hash: Sha256::digest(&bytes).into(), len: bytes.len() as u64 };
    Ok((bytes, part))
}

/// The canonical bytes of one entry, as they stand in a part.
pub fn encode_part_entry(entry: &PartEntry) -> Vec<u8> {
    pb::PartEntry::from(entry).encode_to_vec()
}

/// The entries of a part, after its length and hash were found to be those that the root names.
pub fn decode_part(part: &PartRef, object: &Bytes) -> Result<CheckpointPart> {
    let hash: [u8; 32] = Sha256::digest(object).into();
    if object.len() as u64 != part.len || hash != part.hash {
        return Err(Error::damaged("a part of the checkpoint is not the one that its root names"));
    }
    let (message, _) = frame::unwrap(PART_MAGIC, object)?;
    let stored = pb::CheckpointPart::decode(message)
        .map_err(|e| Error::damaged(format!("a part of the checkpoint does not decode: {e}")))?;
    stored.entries.into_iter().map(TryInto::try_into).collect()
}
