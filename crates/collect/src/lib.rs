//! The collector: what may be deleted, and deleting it. Nothing else deletes data.
//!
//! ```text
//! roots ─▶ aim ─▶ (a horizon commit) ─▶ survey: list objects ─▶ judge each ─▶ delete
//!                                          └─▶ floor: verify checkpoints ─▶ raise it ─▶ delete the log below
//! ```
//!
//! What this crate promises:
//!
//! - An object is deleted only if no kept snapshot names it, and nobody can name it any more: its base lies below the horizon
//!   that a commit has set, and from that commit on nobody may name such an object anew.
//! - A checkpoint is deleted only once history has passed it and the one before it is not needed either; its parts only once
//!   no kept checkpoint names them. The one that the log's floor names stays.
//! - A commit is deleted only once a floor says so, and a floor is raised only over a log that can be done without: below the
//!   second newest recorded checkpoint, below the oldest that history needs, below all rows that lie in commits and are
//!   named by a kept snapshot, and after the checkpoints on which it rests were read and found whole.
//! - What has a name that nobody here gives is left alone. Two collectors at once do no harm.
//! - No clock decides whether deleting is right. How far the past is kept is counted by the log's own age, which a wrong clock
//!   could push; by the store's clock it is never cut sooner, and what is garbage stays for a grace.
//!
//! Words: the *chain* is the recorded checkpoints, each naming the one recorded before it. *Kept* are the snapshots from
//! the start of history on. A *lease* is a claim of somebody alive to a snapshot; a *pin* is one that the log knows.
//!
//! It refuses to know when to collect, and who asks for it.

mod aim;
mod collector;
mod judge;
mod report;
mod roots;

#[cfg(test)]
mod tests;

pub use aim::{Aim, Lease, aim};
pub use collector::Collector;
pub use judge::{Judged, Kind, Verdict};
pub use report::{Report, Share};
pub use roots::Roots;

use std::time::Duration;

/// How careful to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The longest that anybody may take from naming an object until committing it, in the log's age. Who takes longer has to
    /// upload again.
    pub job: Duration,
    /// What is garbage stays for so long from when it was stored, by the store's clock. Zero: that clock is not asked at all,
    /// and history is cut by the log's age alone.
    pub grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { job: Duration::from_secs(6 * 3600), grace: Duration::from_secs(3600) }
    }
}
