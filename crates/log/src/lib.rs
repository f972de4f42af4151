//! The manifest log: one object per commit, created by put-if-absent.
//!
//! What this crate promises:
//!
//! - [`Log::append`] answers [`Appended::Created`] only if this very commit is the one at its seq, is durable, and
//!   the floor is below it. Every other answer of the store is settled by reading the object back.
//! - [`Log::read_run`] hands out a gapless run, and only after the floor was found below its first seq. A hole
//!   is never skipped.
//! - [`Log::recover`] gives the state at the head from the newest checkpoint that the log vouches for;
//!   [`Log::recover_within`] the newest state that a limit allows; [`Log::state_at`] any that the log has passed.
//! - [`Log::write_checkpoint`] writes, reads back, folds a second time and compares before it returns.
//! - [`Log::raise_floor`] is how a log is trimmed: nothing of it may be deleted before. Who reads below the floor is told so
//!   (`HistoryGone`), and never that the log is damaged.
//!
//! Words: a commit, seq, floor, checkpoint, root and part are as in the design. *Lost*: the seq went to another
//! writer. *Reopened*: the number may have been freed by a collector, so what stands there now says nothing.
//!
//! It refuses to know what transactions mean, who waits for them, and when to checkpoint.

mod append;
mod checkpoint;
mod floor;
mod identity;
mod limit;
mod past;
mod read;
mod recover;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use tandem_env::Env;
use tandem_format::NODES_DIR;
use tandem_types::{DatabaseId, Result};

pub use append::{Appended, Proposal};
pub use checkpoint::WrittenCheckpoint;
pub use limit::{Admits, ApplyLimit, Until};
pub use past::Moment;
pub use read::{Commit, Payload, StoredCommit};
pub use recover::Recovered;

/// A database's log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    env: Env,
    database: DatabaseId,
    floors: Arc<Mutex<floor::Known>>,
}

impl Log {
    /// The log of a database that is known to be there. Reads nothing, creates nothing.
    pub fn of(env: Env, database: DatabaseId) -> Self {
        Self { env, database, floors: Default::default() }
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// What the store's clock says, in microseconds since 1970.
    pub async fn store_time(&self) -> Result<i64> {
        let path = format!("{NODES_DIR}/clock-{:016x}", self.env.chance.next_u64());
        self.env.store.now_by_store(&path).await
    }
}
