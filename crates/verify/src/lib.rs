//! Walks a database and says what is damaged or missing, and which rows that costs. Changes nothing.
//!
//! What this crate promises:
//!
//! - [`verify`] finds, where it is asked to look at everything, any byte that is not what was written, in any object that a
//!   kept snapshot or the way to one rests on: identity, log, floors, checkpoints, segments and data files. Each such
//!   object is a [`Problem`] that names it.
//! - Otherwise it finds what is missing and what has another size than the manifest says, at the price of a listing and of
//!   what a node reads when it starts.
//! - Objects that nothing names are counted, not judged: a crash leaves some, and the collector takes them.
//!
//! A log whose last commits were taken away looks like one that never had them: nothing in the database tells the two apart.
//!
//! It refuses to know how to mend anything. Heartbeats are advice to nodes and are not looked at.

mod chain;
mod objects;
mod report;
mod walk;

pub use report::{Cost, Problem, Progress, Report};
pub use walk::verify;
