//! What commits did to a table, as rows.
//!
//! The change stream says of each commit what it made of the table: the rows that are there after it and were not before, and the
//! other way round. That is defined by two states, the one before the commit and the one after it; how a statement was
//! written, and what compaction has done since, make no difference. Whoever applies the changes of the commits up to a
//! seq to an empty table has, as a multiset, what the table is at that seq.
//!
//! - [`request`]: what can be asked for, and the columns that are told;
//! - [`along`]: along the log, and on with what is committed; [`walk`]: which commits have to do with the table;
//! - [`every`]: all tables in one stream, their rows as JSON;
//! - [`source`]: states and commits;
//! - [`cut`]: a commit into parts of which each is told in one go;
//! - [`net`], [`keyed`], [`whole`]: what such a part does, from the two states;
//! - [`pairs`], [`ranges`]: rows before and after held against each other, and the times that a part can touch;
//! - [`told`], [`out`]: rows of the table as rows of the stream, and in which batches they leave;
//! - [`stream`]: a stream that can be followed; [`function`]: `system.changes(…)`.
//!
//! Memory: rows of a table without a key pass through. Of a table with a key the rows of one part that a commit appends are
//! held, some partitions at a time, with those that they replace, on the account of the queries.

mod along;
mod cut;
mod every;
mod function;
mod keyed;
mod net;
mod out;
mod pairs;
mod ranges;
mod request;
mod source;
mod stream;
mod told;
mod walk;
mod whole;

pub(crate) use function::{ChangesOf, with_changes};
pub use request::{ChangesRequest, EveryRequest, Images};
pub use stream::{ChangeBatch, RunningChanges};
