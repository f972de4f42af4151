//! Stored messages of checkpoints.

use prost::{Message, Oneof};
use tandem_types::{ColumnId, Error, Partition, Result, SchemaId, Seq, TableId, TableName};

use super::{Checkpoint, DataFile, FileRef, ObjectName, Section, Setting, TableDef};
use crate::checkpoint as state;
use crate::layout::FileName;
use crate::record::{self, ProducerId, SectionKey};

#[derive(Clone, PartialEq, Message)]
pub struct CheckpointRoot {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub database: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub header_hash: Vec<u8>,
    #[prost(sint64, tag = "4")]
    pub commit_time: i64,
    #[prost(sint64, tag = "5")]
    pub age: i64,
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    #[prost(uint64, tag = "7")]
    pub next_table: u64,
    #[prost(uint64, tag = "8")]
    pub token_floor: u64,
    #[prost(bytes = "vec", tag = "9")]
    pub digest: Vec<u8>,
    #[prost(string, repeated, tag = "10")]
    pub schemas: Vec<String>,
    #[prost(message, repeated, tag = "11")]
    pub settings: Vec<Setting>,
    #[prost(message, repeated, tag = "12")]
    pub tables: Vec<TableState>,
    #[prost(message, repeated, tag = "13")]
    pub parts: Vec<PartRef>,
    #[prost(message, optional, tag = "14")]
    pub recorded: Option<Checkpoint>,
    #[prost(message, optional, tag = "15")]
    pub primary: Option<super::Primary>,
    #[prost(message, optional, tag = "16")]
    pub lease: Option<super::Lease>,
    #[prost(uint64, tag = "17")]
    pub logged_rows: u64,
    #[prost(uint64, tag = "18")]
    pub logged_bytes: u64,
    #[prost(uint64, tag = "19")]
    pub horizon: u64,
    #[prost(uint64, tag = "20")]
    pub history_start: u64,
    #[prost(message, repeated, tag = "21")]
    pub pins: Vec<super::Pin>,
    #[prost(uint64, tag = "22")]
    pub brought_back_from: u64,
    #[prost(uint64, tag = "23")]
    pub brought_back_at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct PartRef {
    #[prost(uint64, tag = "1")]
    pub base: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub len: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct TableState {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(string, tag = "2")]
    pub schema_name: String,
    #[prost(string, tag = "3")]
    pub table_name: String,
    #[prost(message, required, tag = "4")]
    pub def: TableDef,
    #[prost(uint32, tag = "5")]
    pub schema_id: u32,
    #[prost(uint32, tag = "6")]
    pub next_column: u32,
    #[prost(uint64, tag = "7")]
    pub created: u64,
    #[prost(uint64, tag = "8")]
    pub changed: u64,
    /// In the order of `def.column_ids`: the seq that added the column.
    #[prost(uint64, repeated, tag = "9")]
    pub column_added: Vec<u64>,
    #[prost(uint32, tag = "10")]
    pub renamed: u32,
    #[prost(uint64, tag = "11")]
    pub restored: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct CheckpointPart {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<PartEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PartEntry {
    #[prost(oneof = "Entry", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub entry: Option<Entry>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Entry {
    #[prost(message, tag = "1")]
    File(FileEntry),
    #[prost(message, tag = "2")]
    Tail(TailEntry),
    #[prost(message, tag = "3")]
    RemovedFile(RemovedFile),
    #[prost(message, tag = "4")]
    RemovedSegment(RemovedSegment),
    #[prost(message, tag = "5")]
    Producer(Producer),
    #[prost(message, tag = "6")]
    Foreign(ForeignEntry),
    #[prost(message, tag = "7")]
    Mutation(MutationEntry),
}

#[derive(Clone, PartialEq, Message)]
pub struct MutationEntry {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(message, required, tag = "2")]
    pub pending: super::mutation::PendingMutation,
}

#[derive(Clone, PartialEq, Message)]
pub struct ForeignEntry {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint32, tag = "2")]
    pub transaction: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub rows: u64,
    #[prost(sint64, tag = "6")]
    pub age: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct FileEntry {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(uint64, tag = "2")]
    pub created: u64,
    #[prost(message, required, tag = "3")]
    pub file: DataFile,
}

#[derive(Clone, PartialEq, Message)]
pub struct TailEntry {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(message, required, tag = "2")]
    pub section: TailSection,
}

#[derive(Clone, PartialEq, Message)]
pub struct TailSection {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint32, tag = "2")]
    pub transaction: u32,
    #[prost(uint32, tag = "3")]
    pub section: u32,
    #[prost(message, required, tag = "4")]
    pub entry: Section,
    /// The partitions still in the tail.
    #[prost(sint64, repeated, tag = "5")]
    pub live: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RemovedFile {
    #[prost(uint64, tag = "1")]
    pub removed: u64,
    #[prost(uint64, tag = "2")]
    pub table: u64,
    #[prost(message, required, tag = "3")]
    pub file: FileRef,
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// The unit that the file's path was made with.
    #[prost(uint32, tag = "5")]
    pub partition_by: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct RemovedSegment {
    #[prost(uint64, tag = "1")]
    pub removed: u64,
    #[prost(message, required, tag = "2")]
    pub object: ObjectName,
}

#[derive(Clone, PartialEq, Message)]
pub struct Producer {
    #[prost(bytes = "vec", tag = "1")]
    pub producer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub low: u64,
    #[prost(uint64, tag = "3")]
    pub last_seq: u64,
    #[prost(message, repeated, tag = "4")]
    pub committed: Vec<CommittedToken>,
    #[prost(uint64, tag = "5")]
    pub since: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct CommittedToken {
    #[prost(uint64, tag = "1")]
    pub counter: u64,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(uint64, tag = "3")]
    pub rows: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
}

impl From<(SectionKey, &record::Section, &[Partition])> for TailSection {
    fn from((key, section, live): (SectionKey, &record::Section, &[Partition])) -> Self {
        Self {
            seq: key.seq.0,
            transaction: key.transaction,
            section: key.section,
            entry: section.into(),
            live: live.iter().map(|p| p.0).collect(),
        }
    }
}

impl From<&state::TableState> for TableState {
    fn from(t: &state::TableState) -> Self {
        Self {
            table: t.table.0,
            schema_name: t.name.schema.clone(),
            table_name: t.name.table.clone(),
            def: (&t.def).into(),
            schema_id: t.schema_id.0,
            next_column: t.next_column.0,
            created: t.created.0,
            changed: t.changed.0,
            column_added: t.column_added.iter().map(|s| s.0).collect(),
            renamed: t.renamed.0,
            restored: t.restored.0,
        }
    }
}

impl TryFrom<TableState> for state::TableState {
    type Error = Error;

    fn try_from(t: TableState) -> Result<Self> {
        let def: record::TableDef = t.def.try_into()?;
        if def.schema.columns.len() != t.column_added.len() {
            return Err(Error::damaged("a table's columns and the seqs that added them differ in number"));
        }
        Ok(Self {
            table: TableId(t.table),
            name: TableName::new(t.schema_name, t.table_name),
            def,
            schema_id: SchemaId(t.schema_id),
            next_column: ColumnId(t.next_column),
            created: Seq(t.created),
            changed: Seq(t.changed),
            column_added: t.column_added.into_iter().map(Seq).collect(),
            renamed: SchemaId(t.renamed),
            restored: Seq(t.restored),
        })
    }
}

impl From<&state::PartEntry> for PartEntry {
    fn from(entry: &state::PartEntry) -> Self {
        let entry = match entry {
            state::PartEntry::File { table, created, file } => {
                Entry::File(FileEntry { table: table.0, created: created.0, file: file.into() })
            }
            state::PartEntry::Tail { table, key, section, live } => {
                Entry::Tail(TailEntry { table: table.0, section: (*key, section, live.as_slice()).into() })
            }
            state::PartEntry::RemovedFile { removed, table, partition_by, file, size } => {
                Entry::RemovedFile(RemovedFile {
                    removed: removed.0,
                    table: table.0,
                    file: FileRef { partition: file.partition.0, object: (&file.object).into() },
                    size: *size,
                    partition_by: super::convert::unit_code(*partition_by),
                })
            }
            state::PartEntry::RemovedSegment { removed, segment } => {
                Entry::RemovedSegment(RemovedSegment { removed: removed.0, object: segment.into() })
            }
            state::PartEntry::Producer { producer, low, last_seq, since, committed } => {
                Entry::Producer(Producer {
                    producer: producer.0.to_be_bytes().to_vec(),
                    low: *low,
                    last_seq: last_seq.0,
                    since: since.0,
                    committed: committed
                        .iter()
                        .map(|c| CommittedToken {
                            counter: c.counter,
                            seq: c.seq.0,
                            rows: c.rows,
                            digest: c.digest.clone(),
                        })
                        .collect(),
                })
            }
            state::PartEntry::Foreign { seq, transaction, token } => Entry::Foreign(ForeignEntry {
                seq: seq.0,
                transaction: *transaction,
                key: token.key.to_be_bytes().to_vec(),
                digest: token.digest.to_be_bytes().to_vec(),
                rows: token.rows,
                age: token.age,
            }),
            state::PartEntry::Mutation { table, pending } => {
                Entry::Mutation(MutationEntry { table: table.0, pending: pending.as_ref().into() })
            }
        };
        Self { entry: Some(entry) }
    }
}

impl TryFrom<PartEntry> for state::PartEntry {
    type Error = Error;

    fn try_from(entry: PartEntry) -> Result<Self> {
        let entry = entry.entry.ok_or_else(|| {
            Error::newer_format(
                "a checkpoint holds an entry of a kind this program does not know: upgrade it",
            )
        })?;
        Ok(match entry {
            Entry::File(f) => {
                Self::File { table: TableId(f.table), created: Seq(f.created), file: f.file.into() }
            }
            Entry::Tail(t) => {
                let (key, section, live) = t.section.open()?;
                Self::Tail { table: TableId(t.table), key, section, live }
            }
            Entry::RemovedFile(r) => Self::RemovedFile {
                removed: Seq(r.removed),
                table: TableId(r.table),
                partition_by: super::convert::unit_of(r.partition_by)?,
                file: FileName { partition: Partition(r.file.partition), object: r.file.object.into() },
                size: r.size,
            },
            Entry::RemovedSegment(r) => {
                Self::RemovedSegment { removed: Seq(r.removed), segment: r.object.into() }
            }
            Entry::Producer(p) => Self::Producer {
                producer: ProducerId(super::convert::id128("a producer id", &p.producer)?),
                low: p.low,
                last_seq: Seq(p.last_seq),
                since: Seq(p.since),
                committed: p
                    .committed
                    .into_iter()
                    .map(|c| state::CommittedToken {
                        counter: c.counter,
                        seq: Seq(c.seq),
                        rows: c.rows,
                        digest: c.digest,
                    })
                    .collect(),
            },
            Entry::Foreign(f) => Self::Foreign {
                seq: Seq(f.seq),
                transaction: f.transaction,
                token: state::CommittedForeign {
                    key: super::convert::id128("a token's key", &f.key)?,
                    digest: super::convert::id128("a token's digest", &f.digest)?,
                    rows: f.rows,
                    age: f.age,
                },
            },
            Entry::Mutation(m) => {
                Self::Mutation { table: TableId(m.table), pending: Box::new(m.pending.try_into()?) }
            }
        })
    }
}

impl From<&record::TableImage> for super::TableImage {
    fn from(image: &record::TableImage) -> Self {
        let table = image.state.table.0;
        Self {
            as_of: image.as_of.0,
            state: (&image.state).into(),
            files: image
                .files
                .iter()
                .map(|(created, file)| FileEntry { table, created: created.0, file: file.into() })
                .collect(),
            tail: image
                .tail
                .iter()
                .map(|(key, section, live)| (*key, section, live.as_slice()).into())
                .collect(),
            mutations: image.mutations.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<super::TableImage> for record::TableImage {
    type Error = Error;

    fn try_from(image: super::TableImage) -> Result<Self> {
        Ok(Self {
            as_of: Seq(image.as_of),
            state: image.state.try_into()?,
            files: image.files.into_iter().map(|f| (Seq(f.created), f.file.into())).collect(),
            tail: image.tail.into_iter().map(TailSection::open).collect::<Result<_>>()?,
            mutations: image.mutations.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        })
    }
}

impl TailSection {
    fn open(self) -> Result<(SectionKey, record::Section, Vec<Partition>)> {
        let key = SectionKey { seq: Seq(self.seq), transaction: self.transaction, section: self.section };
        Ok((key, self.entry.try_into()?, self.live.into_iter().map(Partition).collect()))
    }
}

impl From<&record::Pin> for super::Pin {
    fn from(pin: &record::Pin) -> Self {
        Self {
            id: pin.id.clone(),
            seq: pin.seq.0,
            store: pin.store.clone(),
            reason: pin.reason.clone(),
            expires: pin.expires,
        }
    }
}

impl From<super::Pin> for record::Pin {
    fn from(pin: super::Pin) -> Self {
        Self { id: pin.id, seq: Seq(pin.seq), store: pin.store, reason: pin.reason, expires: pin.expires }
    }
}
