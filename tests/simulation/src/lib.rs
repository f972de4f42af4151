//! Many nodes in one process: the real protocol, on one thread, with virtual time, a store and a network that fail as a seed
//! decides, and a judge who knows the truth.
//!
//! What runs is the product's own code from the writer's admission down to the store: recovery, the commit loop, feeds,
//! checkpoints, compaction's policy. Only the rows are made light: a section is a list of numbers in an object, so that
//! a schedule costs a few milliseconds and thousands of them can be played. Rows in Arrow and Parquet, and how they are
//! prepared, are tested beside the crates that do that.
//!
//! Words
//! - *schedule*: what one seed decides: how many nodes, which faults, who does what, in which order everything happens.
//! - *node*: a place where one process at a time lives; each life of it is an *incarnation*.
//! - *truth*: the commits that were first created at each seq, folded one after another, and a naive reading of the
//!   same log that shares no code with the product.
//! - *violation*: an invariant that did not hold, by its name in `reliability-notes.md`.
//!
//! What it promises: a seed gives the same schedule, call for call, each time; and a violation is found at the step that
//! commits it, where it can be seen from outside.
//!
//! Nobody sleeps in real time: when all tasks wait, the clock jumps to where the next one wakes.

mod aftermath;
mod check;
mod client;
mod collect;
mod deputies;
mod faults;
mod life;
mod naive;
mod network;
mod node;
mod plan;
mod rows;
mod schedule;
mod scripts;
mod store;
mod truth;
mod upkeep;
mod world;

pub use plan::{Flavour, Plan};
pub use schedule::{Played, play, play_plan};
pub use scripts::{Script, Way};
pub use world::Violation;
