//! Copies, backups, forks and repairs: one database made out of another's state.
//!
//! A copy is a database of its own, with an id of its own, that begins with the tables of another as they were at one seq.
//! What this crate promises:
//!
//! - [`copy`] makes one in another store, object by object, each read with its checksums verified. It becomes a database with its
//!   very last object: interrupted before, it is none, and the same call goes on where it ended. Called again
//!   later it fetches what is new and moves the copy on; a copy that was written to is refused.
//! - [`fork`] makes one that shares the objects of the other, so that it takes as long as its metadata do. The other's collector
//!   keeps what the fork needs: that stands in its log, as a pin, before the fork is begun. [`detach`] fetches what is
//!   shared and ends that.
//! - [`repair`] makes one of what is intact of a damaged database, and says what it costs. It changes nothing of the damaged one.
//! - [`open_parents`] is how a fork is opened: with the stores of those it came from behind its own.
//!
//! Nothing of the past before its first seq comes with a copy: neither snapshots nor the log.
//!
//! It refuses to know who asks and how the stores are called: it is given environments.

mod fetch;
mod origin;
mod place;
mod repair;
mod run;
mod salvage;

pub use origin::{Origin, open_parents, read_origin};
pub use repair::{Cost, LostCommits, LostObject, Repaired, repair};
pub use run::{Copied, Progress, copy, detach, fork};
