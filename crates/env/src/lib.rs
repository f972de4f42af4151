//! The one door to the outside: clock, chance and object store.
//!
//! Promises
//! - Nothing else in the project reads the time, draws a random number, waits or does I/O on the
//!   store (`clippy.toml` keeps the door shut), so a run over [`sim`] is decided by its seed.
//! - A create answers [`CreateOutcome`] and never guesses: only `Created` means stored, and it
//!   means durable. Everything else is settled by reading the object back, by the caller.
//! - An object is there whole or not at all, also after a crash or a dropped future.
//! - [`DiskCache`] gives back what was put into it, or nothing.
//! - After a failed sync the local store refuses everything until the process starts again.
//!
//! Words
//! - *log handle*: sends each request once, so that one answer belongs to one request. This crate
//!   repeats reads itself, waiting on the [`Clock`]; it never repeats a create of a log object.
//! - *data handle*: the library's own retries are on; for objects with unique names.
//! - *path*: relative to the database's prefix, parts separated by `/`.
//!
//! Refuses to know: what the objects mean, which names exist, when to give up on a commit.

mod cache;
mod chance;
mod clock;
mod local;
mod meter;
mod mutant;
mod open;
mod overlay;
mod probe;
mod retry;
pub mod sim;
mod store;

use std::sync::Arc;

use tandem_types::Result;

pub use cache::{DiskCache, PIECE_BYTES, cut};
pub use chance::{Chance, SystemChance};
pub use clock::{Clock, SystemClock, within};
pub use local::LocalStore;
pub use mutant::Mutant;
pub use open::open_store;
pub use probe::probe;
pub use store::{CreateOutcome, Listed, Store};

/// What a node is given of the outside. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<dyn Chance>,
    pub store: Store,
}

impl Env {
    /// The real clock and real chance over the store at `url`; see [`open_store`].
    pub fn open(url: &str, options: &[(String, String)]) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let chance: Arc<dyn Chance> = Arc::new(SystemChance);
        let store = open_store(url, options, clock.clone(), chance.clone())?;
        Ok(Self { clock, chance, store })
    }
}
