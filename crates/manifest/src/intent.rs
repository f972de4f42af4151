//! What somebody wants of the database, before it is bound to a state.
//!
//! Intents speak in names, as users do, and carry the seq at which they were formed. [`rebase`](crate::rebase())
//! turns one into operations on ids.

use arrow_schema::DataType;
use tandem_format::{
    Expr, MutationKind, ObjectName, Pin, Primary, Replace, Section, TableImage, TransactionToken,
};
use tandem_types::{ColumnId, Epoch, Partition, PartitionUnit, SchemaId, Seq, TableId, TableName};

/// A transaction that waits for its place in the log.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Absent on upkeep.
    pub token: Option<TransactionToken>,
    /// Content digest of a write whose token came from a client; empty for tokens of the node's own.
    pub digest: Vec<u8>,
    /// The epoch that its node believed in when a client sent it; absent on upkeep.
    pub epoch: Option<Epoch>,
    /// The state that the request was formed on: what "had it existed before" means.
    pub base: Seq,
    pub steps: Vec<Step>,
}

/// One statement of a transaction.
#[derive(Clone, Debug)]
pub enum Step {
    CreateSchema {
        name: String,
        if_not_exists: bool,
    },
    /// Refused while the schema holds tables.
    DropSchema {
        name: String,
        if_exists: bool,
    },
    /// `replace` drops a table of that name first, in the same transaction.
    CreateTable {
        name: TableName,
        spec: TableSpec,
        if_not_exists: bool,
        replace: bool,
    },
    DropTable {
        name: TableName,
        if_exists: bool,
    },
    RenameTable {
        name: TableName,
        to: TableName,
    },
    AlterTable {
        name: TableName,
        change: Change,
    },
    SetSettings {
        settings: Vec<(String, Option<String>)>,
    },
    Truncate {
        name: TableName,
    },
    Append(AppendIntent),
    Replace(Replace),
    /// Records a checkpoint; rejected unless the newest recorded one is still the one that it goes on from.
    Checkpoint {
        seq: Seq,
        root_hash: [u8; 32],
        after: Option<(Seq, [u8; 32])>,
    },
    /// Replaces the epoch before `epoch` and its primary; rejected once somebody else did.
    Promote {
        epoch: Epoch,
        primary: Option<Primary>,
    },
    /// The lease after the one of `term - 1`; rejected once somebody else took it.
    Lease {
        /// Node id.
        holder: String,
        address: String,
        term: u64,
    },
    Mutate(MutateIntent),
    /// A precondition: rejected as a serialization failure if what queries see of the table changed after `since`, by an
    /// earlier step of the same transaction included.
    Unchanged {
        table: TableId,
        /// For the error.
        name: TableName,
        since: Seq,
    },
    /// A precondition: rejected as a serialization failure unless `name` stands for this table (`None`: for none), with this
    /// version of its columns if one is said. What was bound to ids that an earlier step of the same transaction gives out
    /// rests on it.
    Bound {
        name: TableName,
        table: Option<TableId>,
        schema: Option<SchemaId>,
    },
    /// Removes all rows of these partitions.
    DropPartitions {
        name: TableName,
        partitions: Vec<Partition>,
    },
    /// As `DropPartitions`, of those that the table's `ttl` has ended for; the others stay.
    Expire {
        table: TableId,
        partitions: Vec<Partition>,
    },
    /// Makes the table what it was; `name`: under this one.
    RestoreTable {
        image: Box<TableImage>,
        name: Option<TableName>,
    },
    Horizon {
        horizon: Seq,
        history_start: Seq,
    },
    Pin(Pin),
    /// Succeeds if nothing is pinned under that id.
    Unpin {
        id: String,
    },
}

impl Step {
    /// The sections that it carries, in order.
    pub fn sections(&self) -> &[SectionDraft] {
        match self {
            Self::Append(append) => &append.sections,
            Self::Mutate(mutate) => mutate.draft.section().map_or(&[], std::slice::from_ref),
            _ => &[],
        }
    }
}

/// An UPDATE or DELETE, bound to columns by id.
#[derive(Clone, Debug)]
pub struct MutateIntent {
    /// The name that the client used; what errors say.
    pub name: TableName,
    pub target: MutateTarget,
    pub draft: MutateDraft,
    /// First and last designated timestamp, in the column's ticks, of rows that it can act on; `None`: any.
    pub time: Option<(i64, i64)>,
    /// What the client said; cut to [`MAX_STATEMENT_BYTES`](tandem_format::MAX_STATEMENT_BYTES).
    pub statement: String,
}

/// Which table a mutation was bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MutateTarget {
    /// This one, under whatever name it has by now.
    Existing(TableId),
    /// One that an earlier step of the same transaction creates.
    New,
}

/// What a mutation does, its section without a place in the log.
#[derive(Clone, Debug)]
pub enum MutateDraft {
    Delete {
        predicate: Expr,
    },
    Update {
        predicate: Expr,
        assignments: Vec<(ColumnId, Expr)>,
    },
    /// The section's fields, in order: `keys` columns to look up by, then the columns to assign.
    Lookup {
        columns: Vec<ColumnId>,
        keys: u32,
        delete: bool,
        section: SectionDraft,
    },
}

impl MutateDraft {
    /// The section that it carries.
    pub fn section(&self) -> Option<&SectionDraft> {
        match self {
            Self::Lookup { section, .. } => Some(section),
            Self::Delete { .. } | Self::Update { .. } => None,
        }
    }

    /// What [`MutateDraft::place`] made.
    pub fn of(kind: MutationKind) -> Self {
        match kind {
            MutationKind::Delete { predicate } => Self::Delete { predicate },
            MutationKind::Update { predicate, assignments } => Self::Update { predicate, assignments },
            MutationKind::Lookup { keys, delete, section } => {
                let columns = section.columns.clone();
                Self::Lookup { columns, keys, delete, section: SectionDraft::of(section) }
            }
        }
    }

    /// As it is committed, on a table of that schema version.
    pub fn place(&self, schema_id: SchemaId) -> MutationKind {
        match self {
            Self::Delete { predicate } => MutationKind::Delete { predicate: predicate.clone() },
            Self::Update { predicate, assignments } => {
                MutationKind::Update { predicate: predicate.clone(), assignments: assignments.clone() }
            }
            Self::Lookup { columns, keys, delete, section } => MutationKind::Lookup {
                keys: *keys,
                delete: *delete,
                section: section.place(schema_id, columns.clone()),
            },
        }
    }
}

/// What an INSERT says of rows whose key exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The row that is there stays.
    DoNothing,
    /// The new row takes its place.
    Replace,
    /// The new row takes its place where it is not null.
    Merge,
    /// The new row takes its place in these columns.
    Update(Vec<String>),
}

/// A change of a table's schema or options.
#[derive(Clone, Debug)]
pub enum Change {
    AddColumn {
        column: ColumnSpec,
        if_not_exists: bool,
    },
    DropColumn {
        name: String,
        if_exists: bool,
    },
    RenameColumn {
        name: String,
        to: String,
    },
    /// Lossless widening only.
    WidenColumn {
        name: String,
        to: DataType,
    },
    DropNotNull {
        name: String,
    },
    SetOptions {
        options: Vec<(String, Option<String>)>,
    },
}

/// A column as a statement declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSpec {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
}

/// A table as a statement declares it; what is left out is filled in by [`TableSpec::resolve`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableSpec {
    pub columns: Vec<ColumnSpec>,
    /// Default: the first column of a timestamp type, if there is one. `none`, unless a column has that name: no
    /// designated timestamp at all.
    pub timestamp: Option<String>,
    /// Default: day, or none for a table without a designated timestamp.
    pub partition_by: Option<PartitionUnit>,
    /// Default: the designated timestamp.
    pub order_by: Option<Vec<String>>,
    /// Rows that are equal in these columns are one row. Default: none, every row counts.
    pub primary_key: Option<Vec<String>>,
    /// Table options by name; `timestamp`, `partition_by`, `order_by` and `primary_key` may stand here instead.
    pub options: Vec<(String, String)>,
}

/// What an append may do to its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaPolicy {
    /// Columns must exist.
    #[default]
    Strict,
    /// Unknown columns are added, narrower ones widened.
    Add,
    /// As `Add`, and an unknown table is created.
    Create,
}

/// Which table an append was prepared for.
#[derive(Clone, Debug)]
pub enum AppendTarget {
    /// This table, under whatever name it has by now. Sections were cut by its partitioning.
    Existing { table: TableId, schema_id: SchemaId },
    /// A table to be created with this definition, unless somebody did meanwhile. Names a table created
    /// by an earlier step of the same transaction as well.
    New(TableSpec),
}

/// Rows for one table.
#[derive(Clone, Debug)]
pub struct AppendIntent {
    /// The name that the client used; what errors say.
    pub name: TableName,
    pub target: AppendTarget,
    pub policy: SchemaPolicy,
    /// The sections' fields, in order. All sections of one append share them.
    pub fields: Vec<ColumnSpec>,
    pub sections: Vec<SectionDraft>,
    /// On a table with a primary key; `None`: as the table's `on_duplicate` says.
    pub on_conflict: Option<OnConflict>,
}

/// A section that was encoded and perhaps uploaded, but has no place in the log yet.
#[derive(Clone, Debug)]
pub struct SectionDraft {
    /// `None`: the section rides in the commit's payload.
    pub segment: Option<ObjectName>,
    pub offset: u64,
    pub len: u64,
    pub crc32c: u32,
    pub rows: u64,
    /// First and last designated timestamp, in the column's ticks.
    pub time: Option<(i64, i64)>,
    /// Ascending, with the rows that each has.
    pub partitions: Vec<(Partition, u64)>,
    /// Per field position.
    pub null_counts: Vec<u64>,
}

impl SectionDraft {
    fn of(section: Section) -> Self {
        Self {
            segment: section.segment,
            offset: section.offset,
            len: section.len,
            crc32c: section.crc32c,
            rows: section.rows,
            time: section.time,
            partitions: section.partitions,
            null_counts: section.null_counts,
        }
    }

    /// The section in the log; its offset in a commit's payload is set when the payload is laid out.
    pub(crate) fn place(&self, schema_id: SchemaId, columns: Vec<ColumnId>) -> Section {
        Section {
            schema_id,
            columns,
            segment: self.segment,
            offset: self.offset,
            len: self.len,
            crc32c: self.crc32c,
            rows: self.rows,
            time: self.time,
            partitions: self.partitions.clone(),
            null_counts: self.null_counts.clone(),
            on_duplicate: Default::default(),
        }
    }
}
