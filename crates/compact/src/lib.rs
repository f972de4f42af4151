//! Compaction: rows of the tail and of small files become sorted Parquet files of a useful size.
//!
//! Three parts:
//!
//! - [`next_jobs`]: a pure policy, from a table's state to the work that the next commit should do;
//! - [`run`]: reads the inputs, sorts and merges them, writes the outputs, reads those back and answers with the
//!   [`Replace`](tandem_format::Replace) to commit;
//! - [`rows`]: what a query sees of files and rows of the tail, pending mutations and equal keys folded. Jobs read their
//!   inputs so.
//!
//! What it promises:
//!
//! - Outputs hold exactly the rows of the inputs, as a query at the job's base sees them. It is checked on every run, on the
//!   bytes that were stored: row counts and an order-independent digest of logical values by column id.
//! - Jobs on a keyed table are closed, so that no two of its files share a key, and each holds the exact state of its rows.
//! - Memory is bounded by the job, which the policy bounds: files stream by, what is late or in the tail is in memory.
//! - Two compactors that do the same work waste it; the second one's commit finds its inputs gone and is void.
//!
//! Words: a *selection* is files and rows of the tail of one partition; it is *closed* if nothing that it leaves out touches
//! it in time. To *fold* is to bring mutations, and rows of equal keys, into the rows that they change.
//!
//! It refuses to know when it is called, who else compacts, and how commits are made.

mod policy;
mod read;
mod run;
mod write;

pub use policy::{Job, Policy, Urgency, next_jobs};
pub use read::{LoadSection, Rows, Selection, Source, partitions, rows, table_rows};
pub use run::{Inputs, Output, run};
