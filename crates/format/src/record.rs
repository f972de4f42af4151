//! The records of the log, as values. Ids only: names were bound to ids when a transaction was rebased.

use arrow_schema::DataType;
use tandem_types::{
    Column, ColumnId, CommitId, DatabaseId, Epoch, Error, Partition, PartitionUnit, Result, SchemaId, Seq,
    TableId, TableName, TableSchema, WriterId,
};

use crate::checkpoint::TableState;
use crate::commit::HeaderHash;
use crate::layout::{FileName, ObjectName};
use crate::mutation::{Mutation, PendingMutation};

/// Who mints tokens: random per process or client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u128);

/// A transaction's idempotency token, of a producer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub producer: ProducerId,
    pub counter: u64,
    /// The producer promises never to send a counter below this again.
    pub low: u64,
    /// The seq that the producer had applied when it minted the token.
    pub base: Seq,
}

/// A client's token is at most this long, in bytes.
pub const MAX_TOKEN_BYTES: usize = 128;

/// A token that a client made up: any text, from 1 to [`MAX_TOKEN_BYTES`] bytes. The text alone tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignToken {
    pub text: String,
    /// The seq that its maker had applied when it made the token. Without one, a token that was forgotten is
    /// taken for a new one.
    pub base: Option<Seq>,
}

/// What makes a transaction commit once, whoever sends it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionToken {
    Counted(Token),
    Foreign(ForeignToken),
    /// The transaction's digest stands for a token: an equal one commits once within so many microseconds of the
    /// log's age.
    Content {
        window: i64,
    },
}

impl From<Token> for TransactionToken {
    fn from(token: Token) -> Self {
        Self::Counted(token)
    }
}

impl From<ForeignToken> for TransactionToken {
    fn from(token: ForeignToken) -> Self {
        Self::Foreign(token)
    }
}

/// Who takes all writes in single-primary mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    pub node_id: String,
    /// The URL that clients are sent to.
    pub address: String,
}

/// Who offers to commit for all: the sequencer. Advice; nothing rests on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Node id.
    pub holder: String,
    pub address: String,
    /// Grows by one with each lease.
    pub term: u64,
}

/// What stands before a commit's payload.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitHeader {
    pub seq: Seq,
    pub commit_id: CommitId,
    pub writer: WriterId,
    pub database: DatabaseId,
    /// Hash of the previous commit's header; of zeros for the first.
    pub previous: HeaderHash,
    /// Microseconds since 1970, strictly growing along the log; serves `AS OF` only.
    pub commit_time: i64,
    /// What the writer's clock said, microseconds since 1970.
    pub raw_clock: i64,
    pub transactions: Vec<Transaction>,
}

impl CommitHeader {
    /// All sections that the commit carries, in order: rows that it appends, and what its mutations look up.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.transactions.iter().flat_map(|t| &t.ops).flat_map(Op::sections)
    }

    /// As [`CommitHeader::sections`], to be changed.
    pub fn sections_mut(&mut self) -> impl Iterator<Item = &mut Section> {
        self.transactions.iter_mut().flat_map(|t| &mut t.ops).flat_map(Op::sections_mut)
    }
}

/// The unit of atomicity.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Absent on upkeep, which is harmless to repeat.
    pub token: Option<TransactionToken>,
    /// Of the request's logical values; empty where the node itself minted the token.
    pub digest: Vec<u8>,
    /// The epoch of a client's transaction; upkeep carries none.
    pub epoch: Option<Epoch>,
    pub ops: Vec<Op>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    CreateSchema {
        name: String,
    },
    DropSchema {
        name: String,
    },
    CreateTable(NewTable),
    DropTable {
        table: TableId,
    },
    RenameTable {
        table: TableId,
        to: TableName,
    },
    AddColumn {
        table: TableId,
        column: Column,
    },
    DropColumn {
        table: TableId,
        column: ColumnId,
    },
    RenameColumn {
        table: TableId,
        column: ColumnId,
        to: String,
    },
    WidenColumn {
        table: TableId,
        column: ColumnId,
        to: DataType,
    },
    DropNotNull {
        table: TableId,
        column: ColumnId,
    },
    /// `None` takes an option away.
    SetOptions {
        table: TableId,
        options: Vec<(String, Option<String>)>,
    },
    SetSettings {
        settings: Vec<(String, Option<String>)>,
    },
    /// Removes all rows at positions before it.
    Truncate {
        table: TableId,
    },
    Append {
        table: TableId,
        sections: Vec<Section>,
    },
    /// Compaction: equal rows, other objects.
    Replace(Replace),
    /// A checkpoint was written, read back and folded a second time.
    Checkpoint {
        seq: Seq,
        root_hash: [u8; 32],
    },
    /// Raises the epoch to this one and names who takes all writes in it; `None`: every node again.
    Promote {
        epoch: Epoch,
        primary: Option<Primary>,
    },
    /// The sequencer's lease; see [`Lease`].
    Lease {
        holder: String,
        address: String,
        term: u64,
    },
    /// UPDATE or DELETE of rows at positions before it.
    Mutate(Mutation),
    /// Removes all rows of these partitions at positions before it.
    DropPartitions {
        table: TableId,
        partitions: Vec<Partition>,
    },
    /// Makes a table what it was, whatever became of it since.
    RestoreTable(Box<TableImage>),
    /// Nothing that is not kept may be named any more below `horizon`; history begins at `history_start`.
    Horizon {
        horizon: Seq,
        history_start: Seq,
    },
    /// Keeps history from a seq on; replaces the pin of that id.
    Pin(Pin),
    Unpin {
        id: String,
    },
}

impl Op {
    /// The sections that it carries, in order.
    pub fn sections(&self) -> &[Section] {
        match self {
            Self::Append { sections, .. } => sections,
            Self::Mutate(mutation) => mutation.section().map_or(&[], std::slice::from_ref),
            _ => &[],
        }
    }

    /// The table that it is on, if it is on one.
    pub fn table(&self) -> Option<TableId> {
        match self {
            Self::CreateTable(new) => Some(new.table),
            Self::Replace(replace) => Some(replace.table),
            Self::Mutate(mutation) => Some(mutation.table),
            Self::RestoreTable(image) => Some(image.state.table),
            Self::DropTable { table }
            | Self::RenameTable { table, .. }
            | Self::AddColumn { table, .. }
            | Self::DropColumn { table, .. }
            | Self::RenameColumn { table, .. }
            | Self::WidenColumn { table, .. }
            | Self::DropNotNull { table, .. }
            | Self::SetOptions { table, .. }
            | Self::Truncate { table }
            | Self::DropPartitions { table, .. }
            | Self::Append { table, .. } => Some(*table),
            Self::CreateSchema { .. }
            | Self::DropSchema { .. }
            | Self::SetSettings { .. }
            | Self::Checkpoint { .. }
            | Self::Promote { .. }
            | Self::Lease { .. }
            | Self::Horizon { .. }
            | Self::Pin(_)
            | Self::Unpin { .. } => None,
        }
    }

    /// As [`Op::sections`], each with its table.
    pub fn table_sections(&self) -> impl Iterator<Item = (TableId, &Section)> {
        let table = self.table().unwrap_or_default();
        self.sections().iter().map(move |section| (table, section))
    }

    /// As [`Op::sections`], to be changed.
    pub fn sections_mut(&mut self) -> &mut [Section] {
        match self {
            Self::Append { sections, .. } => sections,
            Self::Mutate(mutation) => mutation.section_mut().map_or(&mut [], std::slice::from_mut),
            _ => &mut [],
        }
    }
}

/// A table as it was at a seq: what makes it so again.
#[derive(Clone, Debug, PartialEq)]
pub struct TableImage {
    pub as_of: Seq,
    pub state: TableState,
    /// With the seq that added each.
    pub files: Vec<(Seq, DataFile)>,
    /// With the partitions that were still in the tail.
    pub tail: Vec<(SectionKey, Section, Vec<Partition>)>,
    pub mutations: Vec<PendingMutation>,
}

/// What holds history back.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    pub id: String,
    /// Snapshots from here on are kept.
    pub seq: Seq,
    /// Of a fork: where it lies.
    pub store: Option<String>,
    /// For people.
    pub reason: String,
    /// The log's age at which it ends, in microseconds; `None`: never.
    pub expires: Option<i64>,
}

/// A table as it is created.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTable {
    pub table: TableId,
    pub name: TableName,
    pub def: TableDef,
}

/// What a table is, apart from its name and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDef {
    pub schema: TableSchema,
    /// The designated timestamp; never null, never widened.
    pub timestamp: Option<ColumnId>,
    pub partition_by: PartitionUnit,
    pub order_by: Vec<ColumnId>,
    /// Rows of equal key are one row; empty: every row counts. Never null, with the designated timestamp among them if
    /// the table is partitioned.
    pub primary_key: Vec<ColumnId>,
    /// Sorted by key.
    pub options: Vec<(String, String)>,
}

/// What a row does to one of equal key that stands before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Nothing: its table has no key.
    #[default]
    Keep,
    /// Takes its place.
    Replace,
    /// Gives way to it.
    Ignore,
    /// Takes its place where it is not null.
    Merge,
    /// Takes its place in these columns.
    Update(Vec<ColumnId>),
}

/// One Arrow IPC stream of rows appended to one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The schema version that the writer saw.
    pub schema_id: SchemaId,
    /// Field position → column.
    pub columns: Vec<ColumnId>,
    /// The segment that holds it; `None`: the commit's own payload.
    pub segment: Option<ObjectName>,
    /// From the start of the segment, or of the commit's payload.
    pub offset: u64,
    pub len: u64,
    pub crc32c: u32,
    pub rows: u64,
    /// First and last designated timestamp, in the column's ticks.
    pub time: Option<(i64, i64)>,
    /// The partitions that it has rows of, ascending, with how many.
    pub partitions: Vec<(Partition, u64)>,
    /// Per field position.
    pub null_counts: Vec<u64>,
    pub on_duplicate: OnDuplicate,
}

/// A section's place in the order of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionKey {
    pub seq: Seq,
    pub transaction: u32,
    /// Counts the sections of the transaction, over all its statements.
    pub section: u32,
}

/// The rows of one partition in one section: what compaction consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionPart {
    pub section: SectionKey,
    pub partition: Partition,
}

/// An immutable Parquet file.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    pub name: FileName,
    pub rows: u64,
    /// Of the object, in bytes.
    pub size: u64,
    /// Where the row groups end and indexes and footer begin.
    pub body_end: u64,
    /// CRC32C of everything from there on.
    pub tail_crc32c: u32,
    pub time: Option<(i64, i64)>,
    /// Mutations up to here are in it.
    pub folded_through: Seq,
    /// How many merges its rows went through; 0 came straight from sections.
    pub level: u32,
}

/// Compaction's commit: outputs stand for inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Replace {
    pub table: TableId,
    /// The snapshot that the inputs were read at.
    pub base: Seq,
    pub files: Vec<FileName>,
    pub parts: Vec<SectionPart>,
    pub outputs: Vec<DataFile>,
}

/// The canonical bytes of a file's entry, for digests and checkpoints.
pub fn encode_file_entry(file: &DataFile) -> Vec<u8> {
    use prost::Message;
    crate::pb::DataFile::from(file).encode_to_vec()
}

/// The canonical bytes of a tail section's entry with the partitions still in the tail.
pub fn encode_section_entry(key: SectionKey, section: &Section, live: &[Partition]) -> Vec<u8> {
    use prost::Message;
    crate::pb::TailSection::from((key, section, live)).encode_to_vec()
}

/// A mutation as the log keeps it.
pub fn encode_mutation(mutation: &Mutation) -> Vec<u8> {
    use prost::Message;
    crate::pb::Mutation::from(mutation).encode_to_vec()
}

/// What [`encode_mutation`] was given. The bytes may be anybody's.
pub fn decode_mutation(bytes: &[u8]) -> Result<Mutation> {
    use prost::Message;
    let stored = crate::pb::Mutation::decode(bytes)
        .map_err(|e| Error::damaged(format!("a mutation does not decode: {e}")))?;
    stored.try_into()
}

/// The canonical bytes of a pending mutation, for digests and checkpoints.
pub fn encode_mutation_entry(table: TableId, pending: &PendingMutation) -> Vec<u8> {
    use prost::Message;
    let entry = crate::checkpoint::PartEntry::Mutation { table, pending: Box::new(pending.clone()) };
    crate::pb::PartEntry::from(&entry).encode_to_vec()
}

/// The canonical bytes of a pin, for digests and checkpoints.
pub fn encode_pin(pin: &Pin) -> Vec<u8> {
    use prost::Message;
    crate::pb::Pin::from(pin).encode_to_vec()
}

/// The canonical bytes of a table's state, its data left out.
pub fn encode_table_entry(state: &crate::TableState) -> Vec<u8> {
    use prost::Message;
    crate::pb::TableState::from(state).encode_to_vec()
}
