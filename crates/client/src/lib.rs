//! A Flight client: addresses, sessions, ingest and queries.
//!
//! It promises:
//!
//! - With several addresses, it goes on at the next one when a connection is lost, a node takes no writes, or a node
//!   cannot do what is asked now, for a bounded time (30 s unless told otherwise). Reads are repeated as long as none of
//!   their rows were given out; writes only under a token, which commits once wherever and however often it is sent.
//!   Tokens are made here; a caller may bring its own.
//! - What was set in a session holds in the next one; after a change of address, reads see what this client wrote.
//! - A write whose source fails half way is never ended as if it were whole: the call is reset, and the server drops the
//!   unfinished transaction.
//! - Errors keep the server's message and arrive as [`tandem_types::Error`] with a kind that a caller can act on. A write
//!   that nobody knows the outcome of fails as `OutcomeUnknown` and names its token.
//!
//! Words: a *put* makes a transaction of every batch and answers each with a [`PutAck`]; an *ingest*
//! makes one transaction of the whole stream; an *action* is one of the server's named chores, with
//! JSON in and out; a *link* is one connection and its session.
//!
//! This crate knows nothing of files and of terminals, and of SQL only `SET`, `RESET` and the words that begin a query.

mod address;
mod client;
mod dial;
pub mod handover;
mod ingest;
mod links;
mod put;
mod query;
mod retry;
mod shared;
mod split;
mod statement;
mod status;
pub mod tail;
mod upload;

pub use address::table_path;
pub use client::{Client, ConnectOptions, RETRY_FOR};
pub use ingest::IngestMode;
pub use links::{LinkEvent, OnLinkEvent};
pub use put::{PutAck, PutSession};
pub use query::{QueryResult, Written};
pub use split::split_batch;
pub use status::error_from_status;

#[cfg(test)]
mod tests;
