//! Compaction: rows of the tail and of small files become sorted Parquet files of a useful size.
//!
//! Two halves:
//!
//! - [`next_jobs`]: a pure policy, from a table's state to the work that the next commit should do;
//! - [`run`]: reads the inputs, sorts and merges them, writes the outputs, reads those back and answers with the
//!   [`Replace`](tandem_format::Replace) to commit.
//!
//! What it promises:
//!
//! - Outputs hold exactly the rows of the inputs, as a query at the job's base sees them. It is checked on every run, on the
//!   bytes that were stored: row counts and an order-independent digest of logical values by column id.
//! - Memory is bounded by the job, which the policy bounds.
//! - Two compactors that do the same work waste it; the second one's commit finds its inputs gone and is void.
//!
//! It refuses to know when it is called, who else compacts, and how commits are made.

mod policy;
mod run;

pub use policy::{Job, Policy, Urgency, next_jobs};
pub use run::{Inputs, LoadSection, Output, run};
