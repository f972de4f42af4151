//! The words of TandemDB as types: ids and counters, table schemas, time partitions, the rules
//! by which a column may widen, and the kinds of error that a caller can act on.
//!
//! This crate knows no I/O, no clock and no wire. Everything else stands on it.

mod duration;
mod error;
mod id;
mod name;
mod partition;
mod schema;
mod widen;

pub use duration::parse_duration;
pub use error::{Error, ErrorKind, Result};
pub use id::{ColumnId, CommitId, DatabaseId, Epoch, SchemaId, Seq, TableId, WriterId};
pub use name::{DEFAULT_CATALOG, DEFAULT_SCHEMA, MAX_NAME_BYTES, TableName, check_name};
pub use partition::{Partition, PartitionUnit, TimeRange, ticks_per_second};
pub use schema::{Column, TableSchema, check_data_type};
pub use widen::{common_supertype, logical_equal, widens_to};
