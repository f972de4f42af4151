//! The writer's promises (DESIGN section 9), held against a naive model over a store that fails as told.
//!
//! Time and tasks run on one thread and the clock moves by a tick after every round of tasks, so that a run is decided by
//! its seed alone. A failure names the seed and the faults that it needs.

mod appends;
mod faults;
mod feeds;
mod groups;
mod handover;
mod hanging;
mod limits;
mod races;
mod rows;
mod scenario;
mod sim;
mod times;
mod tokens;
