//! Workloads, shared by the measurements and the tests.
//!
//! They promise to depend on their seed alone: the same seed gives the same rows on every machine, in every
//! batch size. Times are made up too; nothing here reads a clock. [`contention`] measures in simulated time, so that it
//! depends on nothing else either.
//!
//! Words: a *host* is one series; a *tick* is a moment at which every host reports one row.
//!
//! This crate refuses to know how rows are sent and what is measured: that is the binary's, `tandem-bench`.

pub mod contention;
pub mod cpu;
pub mod lines;
mod random;
