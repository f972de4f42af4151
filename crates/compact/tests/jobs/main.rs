//! Compaction as a node does it, over a store in memory: plan on a snapshot, run, commit.

mod changes;
mod conflicts;
mod kit;
mod random;
mod sizes;
