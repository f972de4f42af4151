//! DataFusion over snapshots: statements become queries or transactions.
//!
//! What this crate promises:
//!
//! - a query pins one snapshot and reads every table at its seq, whatever is committed meanwhile;
//! - a statement that writes is one transaction: all of it is committed or nothing; so are the statements between `BEGIN`
//!   and `COMMIT`, which see what the ones before them did;
//! - columns are bound by id: a renamed column keeps its values, and a column that was dropped and added
//!   again under its old name does not get the old one's;
//! - one function, [`wire::wire_schema`], decides how a result looks outside, and every batch of it looks so;
//! - a query sees at least the state that it demands, or fails: it never reads an older one in silence;
//! - a token, and how a write is acknowledged, go with every statement that writes; what the statement was is told by a
//!   digest of its text and parameters;
//! - a query that panics, runs out of memory or is cancelled ends alone; the process goes on.
//!
//! Words:
//!
//! - *declared type*: what a table's definition says of a column, and what is stored;
//! - *query type*: what DataFusion sees of it. Strings and binaries of all encodings, dictionaries too, are
//!   views in a query, because they are the fastest to filter and group;
//! - *wire type*: what clients see: no views, no dictionaries, no run ends;
//! - *prepared*: a statement whose parameters and result are known; *planned*: a query bound to a snapshot
//!   and to its parameters, which can be started any number of times; *running*: a stream of its rows.
//!
//! What it refuses to know: how a commit is made, where the log lies, sockets, Flight. All of that is behind
//! [`Database`].

mod as_of;
mod catalog;
mod changes;
mod collected;
mod database;
mod digest;
mod engine;
mod error;
mod io;
pub mod meta;
mod options;
mod params;
mod prepared;
mod queries;
mod restore;
mod running;
mod runtime;
mod scan;
mod session;
mod show;
mod similar;
mod statement;
mod system;
pub mod text;
mod transaction;
pub mod wire;
mod write;

#[cfg(test)]
mod tests;

pub use as_of::{AsOf, show_time};
pub use changes::{ChangeBatch, ChangesRequest, EveryRequest, Images, RunningChanges};
pub use collected::{CollectRequest, Collected, StoredObject, StoredShare};
pub use database::{
    AppendRequest, CreateTable, Database, Dropped, NodeRow, NodeSetting, Promoted, Promotion, Receipt,
    RowStream, SectionRows, StagedAppend, StagedSection,
};
pub use digest::AppendDigest;
pub use engine::{Engine, EngineConfig};
pub use options::{
    ACK_TIMEOUT, Ack, ClientToken, READ_DEADLINE, ReadOptions, WriteOptions, parse_read, parse_seq,
};
pub use prepared::{Prepared, UpdateResult};
pub use queries::QueryRegistry;
pub use running::{PlannedQuery, RunningQuery};
pub use session::Session;
pub use statement::StatementLimits;
pub use transaction::{Isolation, TransactionMode};
