//! The stored messages. Field numbers are for ever: add new ones, never reuse or change one.

mod convert;
mod mutation;
mod state;

use prost::{Message, Oneof};

pub(crate) use convert::{fixed, id128};
pub(crate) use mutation::Mutation;
pub(crate) use state::{CheckpointPart, CheckpointRoot, PartEntry, PartRef, TableState, TailSection};

#[derive(Clone, PartialEq, Message)]
pub struct CommitHeader {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub commit_id: Vec<u8>,
    #[prost(fixed64, tag = "3")]
    pub writer: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub database: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub previous: Vec<u8>,
    #[prost(sint64, tag = "6")]
    pub commit_time: i64,
    #[prost(sint64, tag = "7")]
    pub raw_clock: i64,
    #[prost(message, repeated, tag = "8")]
    pub transactions: Vec<Transaction>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Transaction {
    #[prost(message, optional, tag = "1")]
    pub token: Option<Token>,
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
    #[prost(uint64, optional, tag = "3")]
    pub epoch: Option<u64>,
    #[prost(message, repeated, tag = "4")]
    pub ops: Vec<Op>,
    #[prost(message, optional, tag = "5")]
    pub foreign: Option<ForeignToken>,
    /// Present: the digest is the token, within so many microseconds.
    #[prost(sint64, optional, tag = "6")]
    pub content_window: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ForeignToken {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(uint64, optional, tag = "2")]
    pub base: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Token {
    #[prost(bytes = "vec", tag = "1")]
    pub producer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub counter: u64,
    #[prost(uint64, tag = "3")]
    pub low: u64,
    #[prost(uint64, tag = "4")]
    pub base: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Op {
    #[prost(
        oneof = "op::Kind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24"
    )]
    pub kind: Option<op::Kind>,
}

pub mod op {
    use super::*;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(string, tag = "1")]
        CreateSchema(String),
        #[prost(string, tag = "2")]
        DropSchema(String),
        #[prost(message, tag = "3")]
        CreateTable(NewTable),
        #[prost(uint64, tag = "4")]
        DropTable(u64),
        #[prost(message, tag = "5")]
        RenameTable(RenameTable),
        #[prost(message, tag = "6")]
        AddColumn(ColumnChange),
        #[prost(message, tag = "7")]
        DropColumn(ColumnChange),
        #[prost(message, tag = "8")]
        RenameColumn(ColumnChange),
        #[prost(message, tag = "9")]
        WidenColumn(ColumnChange),
        #[prost(message, tag = "10")]
        DropNotNull(ColumnChange),
        #[prost(message, tag = "11")]
        SetOptions(Options),
        #[prost(message, tag = "12")]
        SetSettings(Options),
        #[prost(uint64, tag = "13")]
        Truncate(u64),
        #[prost(message, tag = "14")]
        Append(Append),
        #[prost(message, tag = "15")]
        Replace(Replace),
        #[prost(message, tag = "16")]
        Checkpoint(Checkpoint),
        #[prost(message, tag = "17")]
        Promote(Promote),
        #[prost(message, tag = "18")]
        Lease(Lease),
        #[prost(message, tag = "19")]
        Mutate(mutation::Mutation),
        #[prost(message, tag = "20")]
        DropPartitions(DropPartitions),
        #[prost(message, tag = "21")]
        RestoreTable(TableImage),
        #[prost(message, tag = "22")]
        Horizon(Horizon),
        #[prost(message, tag = "23")]
        Pin(Pin),
        #[prost(string, tag = "24")]
        Unpin(String),
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct DropPartitions {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(sint64, repeated, tag = "2")]
    pub partitions: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TableImage {
    #[prost(uint64, tag = "1")]
    pub as_of: u64,
    #[prost(message, required, tag = "2")]
    pub state: TableState,
    #[prost(message, repeated, tag = "3")]
    pub files: Vec<state::FileEntry>,
    #[prost(message, repeated, tag = "4")]
    pub tail: Vec<TailSection>,
    #[prost(message, repeated, tag = "5")]
    pub mutations: Vec<mutation::PendingMutation>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Horizon {
    #[prost(uint64, tag = "1")]
    pub horizon: u64,
    #[prost(uint64, tag = "2")]
    pub history_start: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pin {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(string, optional, tag = "3")]
    pub store: Option<String>,
    #[prost(string, tag = "4")]
    pub reason: String,
    #[prost(sint64, optional, tag = "5")]
    pub expires: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NewTable {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(string, tag = "2")]
    pub schema_name: String,
    #[prost(string, tag = "3")]
    pub table_name: String,
    #[prost(message, required, tag = "4")]
    pub def: TableDef,
}

#[derive(Clone, PartialEq, Message)]
pub struct TableDef {
    #[prost(uint32, repeated, tag = "1")]
    pub column_ids: Vec<u32>,
    /// An Arrow IPC schema: names, types, nullability, in the order of `column_ids`.
    #[prost(bytes = "vec", tag = "2")]
    pub columns: Vec<u8>,
    #[prost(uint32, optional, tag = "3")]
    pub timestamp: Option<u32>,
    #[prost(uint32, tag = "4")]
    pub partition_by: u32,
    #[prost(uint32, repeated, tag = "5")]
    pub order_by: Vec<u32>,
    #[prost(message, repeated, tag = "6")]
    pub options: Vec<Setting>,
    #[prost(uint32, repeated, tag = "7")]
    pub primary_key: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RenameTable {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(string, tag = "2")]
    pub schema_name: String,
    #[prost(string, tag = "3")]
    pub table_name: String,
}

/// One message for all changes of one column; each kind says which fields it uses.
#[derive(Clone, PartialEq, Message)]
pub struct ColumnChange {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(uint32, tag = "2")]
    pub column: u32,
    /// The new name (rename), or the name of the new column (add).
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// The new type (widen), or the type of the new column (add), as the one field of an Arrow IPC schema.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub data_type: Option<Vec<u8>>,
    #[prost(bool, tag = "5")]
    pub nullable: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Options {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(message, repeated, tag = "2")]
    pub options: Vec<Setting>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Setting {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Append {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(message, repeated, tag = "2")]
    pub sections: Vec<Section>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ObjectName {
    #[prost(uint64, tag = "1")]
    pub base: u64,
    #[prost(fixed64, tag = "2")]
    pub writer: u64,
    #[prost(fixed64, tag = "3")]
    pub random: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Section {
    #[prost(uint32, tag = "1")]
    pub schema_id: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub columns: Vec<u32>,
    #[prost(message, optional, tag = "3")]
    pub segment: Option<ObjectName>,
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    #[prost(uint64, tag = "5")]
    pub len: u64,
    #[prost(fixed32, tag = "6")]
    pub crc32c: u32,
    #[prost(uint64, tag = "7")]
    pub rows: u64,
    #[prost(message, optional, tag = "8")]
    pub time: Option<Time>,
    #[prost(sint64, repeated, tag = "9")]
    pub partitions: Vec<i64>,
    #[prost(uint64, repeated, tag = "10")]
    pub partition_rows: Vec<u64>,
    #[prost(uint64, repeated, tag = "11")]
    pub null_counts: Vec<u64>,
    /// 0 keep, 1 replace, 2 ignore, 3 merge, 4 update the columns that follow.
    #[prost(uint32, tag = "12")]
    pub on_duplicate: u32,
    #[prost(uint32, repeated, tag = "13")]
    pub update_columns: Vec<u32>,
}

/// First and last designated timestamp, in the column's ticks.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Time {
    #[prost(sint64, tag = "1")]
    pub min: i64,
    #[prost(sint64, tag = "2")]
    pub max: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct DataFile {
    #[prost(sint64, tag = "1")]
    pub partition: i64,
    #[prost(message, required, tag = "2")]
    pub object: ObjectName,
    #[prost(uint64, tag = "3")]
    pub rows: u64,
    #[prost(uint64, tag = "4")]
    pub size: u64,
    #[prost(uint64, tag = "5")]
    pub body_end: u64,
    #[prost(fixed32, tag = "6")]
    pub tail_crc32c: u32,
    #[prost(message, optional, tag = "7")]
    pub time: Option<Time>,
    #[prost(uint64, tag = "8")]
    pub folded_through: u64,
    #[prost(uint32, tag = "9")]
    pub level: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct FileRef {
    #[prost(sint64, tag = "1")]
    pub partition: i64,
    #[prost(message, required, tag = "2")]
    pub object: ObjectName,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct SectionPart {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint32, tag = "2")]
    pub transaction: u32,
    #[prost(uint32, tag = "3")]
    pub section: u32,
    #[prost(sint64, tag = "4")]
    pub partition: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Replace {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(uint64, tag = "2")]
    pub base: u64,
    #[prost(message, repeated, tag = "3")]
    pub files: Vec<FileRef>,
    #[prost(message, repeated, tag = "4")]
    pub parts: Vec<SectionPart>,
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<DataFile>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Checkpoint {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub root_hash: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Promote {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(message, optional, tag = "2")]
    pub primary: Option<Primary>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Primary {
    #[prost(string, tag = "1")]
    pub node_id: String,
    #[prost(string, tag = "2")]
    pub address: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    #[prost(string, tag = "1")]
    pub holder: String,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint64, tag = "3")]
    pub term: u64,
}
