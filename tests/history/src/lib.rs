//! Random histories of a database, and the interpreter that says what each of them means.
//!
//! DESIGN section 6 gives the specification of every query: what a naive interpreter has that replays the log, one
//! transaction at a time, into plain tables in memory. [`Interpreter`] is that interpreter. It reads the log and nothing
//! else; it knows no file, no tail, no compaction, and evaluates expressions value by value. The manifest's rules tell it
//! which transactions are void; what the others do to rows it computes itself.
//!
//! [`play`] runs a random [`Plan`] through the real parts (several nodes that write through `tandem-writer` on one simulated
//! store, `tandem-compact`, checkpoints, restarts) and compares every table, now and in the past, as
//! `tandem-fold` and `tandem-datafile` read it. [`shrink`] makes a failing plan small.
//!
//! A seed decides a history. What it refuses to know: SQL, DataFusion, wires.

mod bind;
mod compaction;
pub mod eval;
mod expect;
mod generate;
mod interpreter;
mod node;
mod plan;
mod play;
mod read;
mod shrink;
mod statement;
mod terms;
mod value;

pub use bind::expr;
pub use expect::{Expected, expected};
pub use generate::Generator;
pub use interpreter::{Interpreter, PlainTable, Tables};
pub use plan::{Action, How, Plan, Random, Round};
pub use play::{Played, Violation, check, difference, play, play_with};
pub use read::Slip;
pub use shrink::shrink;
pub use statement::{Alter, Change, Conflict, Declared, Insert, Shape, Statement, Term, sql_type};
pub use value::{Value, value_at};
