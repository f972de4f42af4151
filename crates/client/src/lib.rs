//! A Flight client: addresses, sessions, ingest and queries.
//!
//! It promises that a write whose source fails half way is never ended as if it were whole: the call
//! is reset, and the server drops the unfinished transaction. Errors keep the server's message and
//! arrive as [`tandem_types::Error`] with a kind that a caller can act on.
//!
//! Words: a *put* makes a transaction of every batch and answers each with a [`PutAck`]; an *ingest*
//! makes one transaction of the whole stream; an *action* is one of the server's named chores, with
//! JSON in and out.
//!
//! This crate knows nothing of SQL, of files and of terminals, and it never repeats a write by itself.

mod address;
mod client;
mod ingest;
mod put;
mod query;
mod split;
mod status;
mod upload;

pub use address::table_path;
pub use client::Client;
pub use ingest::IngestMode;
pub use put::{PutAck, PutSession};
pub use query::{QueryResult, Written};
pub use split::split_batch;
pub use status::error_from_status;

#[cfg(test)]
mod tests;
