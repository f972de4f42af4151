//! What UPDATE, DELETE and upsert keys make of rows, computed over Arrow batches.
//!
//! What this crate promises:
//!
//! - Equal rows and equal mutations give equal results, on every node, in every batching, now and after any
//!   compaction: nothing here looks at a clock, at chance or at more than the rows it is given.
//! - A row never spoils its neighbours: what cannot be computed of it (an overflow, an integer division by zero,
//!   a cast that fails) is null in that row. A predicate that is null selects nothing; a null that is assigned
//!   to a column that takes none leaves the old value.
//! - Literals and looked-up rows may be anybody's bytes: they end in an error, never in a panic.
//! - Many mutations cost little more than one: those that select by `column = value`, by a list, or by looked-up
//!   keys share one hash table per column, across phases where none assigns the column, and those whose time cannot match are
//!   not looked at.
//!
//! Words:
//!
//! - *bound*: a mutation whose constants are decoded and whose types are settled ([`bind`]);
//! - *program*: bound mutations in order, made ready for batches of one shape ([`Mutations`]);
//! - *handle*: the part of a predicate that a hash table can answer; *phase*: mutations whose predicates can be
//!   answered at once, because none reads what an earlier one of them assigns;
//! - *fold*: many rows of one key become one row ([`KeyedFold`]).
//!
//! Operators mean what Arrow's kernels make of them, with these rules on top: both sides of an operator are
//! brought to a common type; floats compare by IEEE 754's total order; integers and decimals are checked.
//!
//! What it refuses to know: files, sections, the manifest, queries, any I/O.

mod bound;
mod build;
mod code;
mod common;
mod frame;
mod hash;
mod index;
mod kernel;
mod key_set;
mod key_table;
mod keyed;
mod lanes;
mod literal;
mod needs;
mod node;
mod overlay;
mod phase;
mod program;
mod scan;
mod selection;
mod shared;
#[cfg(test)]
mod tests;
mod zone;

pub use bound::{Bound, bind};
pub use build::type_of;
pub use key_set::KeySet;
pub use keyed::KeyedFold;
pub use literal::{literal_array, literal_of};
pub use needs::{columns_needed, columns_read};
pub use program::{Mutations, mutate};

use arrow::error::ArrowError;
use tandem_types::Error;

/// An error of Arrow's where the arguments were ours to get right.
fn broken(e: ArrowError) -> Error {
    Error::internal(format!("evaluating mutations: {e}"))
}
