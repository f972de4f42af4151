//! The messages.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct Bundle {
    #[prost(message, repeated, tag = "1")]
    pub transactions: Vec<Transaction>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Transaction {
    #[prost(oneof = "TokenKind", tags = "1, 2, 3")]
    pub token: Option<TokenKind>,
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    #[prost(uint64, tag = "6")]
    pub base: u64,
    #[prost(sint64, tag = "7")]
    pub age: i64,
    #[prost(message, repeated, tag = "8")]
    pub steps: Vec<Step>,
    /// Lengths of the sections' bytes in the body.
    #[prost(uint64, repeated, tag = "9")]
    pub bodies: Vec<u64>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum TokenKind {
    #[prost(message, tag = "1")]
    Counted(Counted),
    #[prost(message, tag = "2")]
    Foreign(Foreign),
    #[prost(sint64, tag = "3")]
    ContentWindow(i64),
}

#[derive(Clone, PartialEq, Message)]
pub struct Counted {
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
pub struct Foreign {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(uint64, optional, tag = "2")]
    pub base: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Step {
    #[prost(oneof = "StepKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    pub kind: Option<StepKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum StepKind {
    #[prost(message, tag = "1")]
    CreateSchema(Name),
    #[prost(message, tag = "2")]
    DropSchema(Name),
    #[prost(message, tag = "3")]
    CreateTable(CreateTable),
    #[prost(message, tag = "4")]
    DropTable(DropTable),
    #[prost(message, tag = "5")]
    RenameTable(RenameTable),
    #[prost(message, tag = "6")]
    AlterTable(AlterTable),
    #[prost(message, tag = "7")]
    SetSettings(Options),
    #[prost(message, tag = "8")]
    Truncate(TableName),
    #[prost(message, tag = "9")]
    Append(Append),
    #[prost(message, tag = "10")]
    Lease(Lease),
    #[prost(message, tag = "11")]
    Mutate(Mutate),
    #[prost(message, tag = "12")]
    Unchanged(Unchanged),
    #[prost(message, tag = "13")]
    DropPartitions(DropPartitions),
    #[prost(message, tag = "14")]
    Bound(Bound),
}

#[derive(Clone, PartialEq, Message)]
pub struct Mutate {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    /// 0: one that the transaction creates.
    #[prost(uint64, tag = "2")]
    pub table: u64,
    /// As the log keeps it.
    #[prost(bytes = "vec", tag = "3")]
    pub mutation: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Unchanged {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(message, required, tag = "2")]
    pub name: TableName,
    #[prost(uint64, tag = "3")]
    pub since: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Bound {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(uint64, optional, tag = "2")]
    pub table: Option<u64>,
    #[prost(uint32, optional, tag = "3")]
    pub schema: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DropPartitions {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(sint64, repeated, tag = "2")]
    pub partitions: Vec<i64>,
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

/// A name, and whether its being there, or not, is no mistake.
#[derive(Clone, PartialEq, Message)]
pub struct Name {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub lenient: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct TableName {
    #[prost(string, tag = "1")]
    pub schema: String,
    #[prost(string, tag = "2")]
    pub table: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateTable {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(message, required, tag = "2")]
    pub spec: TableSpec,
    #[prost(bool, tag = "3")]
    pub if_not_exists: bool,
    #[prost(bool, tag = "4")]
    pub replace: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct TableSpec {
    /// An Arrow IPC schema.
    #[prost(bytes = "vec", tag = "1")]
    pub columns: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    pub timestamp: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub partition_by: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub order_by: Option<ColumnNames>,
    #[prost(message, repeated, tag = "5")]
    pub options: Vec<Setting>,
    #[prost(message, optional, tag = "6")]
    pub primary_key: Option<ColumnNames>,
}

/// Names of columns.
#[derive(Clone, PartialEq, Message)]
pub struct ColumnNames {
    #[prost(string, repeated, tag = "1")]
    pub columns: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Setting {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Options {
    #[prost(message, repeated, tag = "1")]
    pub options: Vec<Setting>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DropTable {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(bool, tag = "2")]
    pub if_exists: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct RenameTable {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(message, required, tag = "2")]
    pub to: TableName,
}

#[derive(Clone, PartialEq, Message)]
pub struct AlterTable {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(oneof = "ChangeKind", tags = "2, 3, 4, 5, 6, 7")]
    pub change: Option<ChangeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ChangeKind {
    #[prost(message, tag = "2")]
    AddColumn(AddColumn),
    #[prost(message, tag = "3")]
    DropColumn(Name),
    #[prost(message, tag = "4")]
    RenameColumn(RenameColumn),
    /// An Arrow IPC schema of one field: the column's name and its new type.
    #[prost(bytes, tag = "5")]
    WidenColumn(Vec<u8>),
    #[prost(string, tag = "6")]
    DropNotNull(String),
    #[prost(message, tag = "7")]
    SetOptions(Options),
}

#[derive(Clone, PartialEq, Message)]
pub struct AddColumn {
    /// An Arrow IPC schema of one field.
    #[prost(bytes = "vec", tag = "1")]
    pub column: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub if_not_exists: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct RenameColumn {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub to: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Append {
    #[prost(message, required, tag = "1")]
    pub name: TableName,
    #[prost(oneof = "Target", tags = "2, 3")]
    pub target: Option<Target>,
    #[prost(uint32, tag = "4")]
    pub policy: u32,
    /// An Arrow IPC schema.
    #[prost(bytes = "vec", tag = "5")]
    pub fields: Vec<u8>,
    #[prost(message, repeated, tag = "6")]
    pub sections: Vec<Section>,
    /// 0 as the table says, 1 do nothing, 2 replace, 3 merge, 4 update `update`.
    #[prost(uint32, tag = "7")]
    pub on_conflict: u32,
    #[prost(string, repeated, tag = "8")]
    pub update: Vec<String>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Target {
    #[prost(message, tag = "2")]
    Existing(Existing),
    #[prost(message, tag = "3")]
    New(TableSpec),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Existing {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(uint32, tag = "2")]
    pub schema_id: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Section {
    #[prost(message, optional, tag = "1")]
    pub segment: Option<ObjectName>,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    #[prost(uint64, tag = "3")]
    pub len: u64,
    #[prost(fixed32, tag = "4")]
    pub crc32c: u32,
    #[prost(uint64, tag = "5")]
    pub rows: u64,
    #[prost(message, optional, tag = "6")]
    pub time: Option<Time>,
    #[prost(sint64, repeated, tag = "7")]
    pub partitions: Vec<i64>,
    #[prost(uint64, repeated, tag = "8")]
    pub partition_rows: Vec<u64>,
    #[prost(uint64, repeated, tag = "9")]
    pub null_counts: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ObjectName {
    #[prost(uint64, tag = "1")]
    pub base: u64,
    #[prost(fixed64, tag = "2")]
    pub writer: u64,
    #[prost(fixed64, tag = "3")]
    pub random: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Time {
    #[prost(sint64, tag = "1")]
    pub first: i64,
    #[prost(sint64, tag = "2")]
    pub last: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Answers {
    #[prost(message, repeated, tag = "1")]
    pub answers: Vec<Answer>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    #[prost(oneof = "AnswerKind", tags = "1, 2, 3")]
    pub kind: Option<AnswerKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AnswerKind {
    #[prost(message, tag = "1")]
    Committed(Committed),
    #[prost(message, tag = "2")]
    Refused(Error),
    #[prost(message, tag = "3")]
    Recast(Error),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Committed {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint64, tag = "2")]
    pub rows: u64,
    #[prost(bool, tag = "3")]
    pub duplicate: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Error {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(string, optional, tag = "3")]
    pub writer: Option<String>,
    #[prost(uint64, optional, tag = "4")]
    pub seq: Option<u64>,
}
