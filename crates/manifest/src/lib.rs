//! The state of a database, and the pure rules that change it.
//!
//! Two functions carry the whole design:
//!
//! - [`Manifest::apply`]: the state after the next commit. Every node computes it alike, from the log alone.
//! - [`rebase`]: what an intent becomes on top of a given state: the operations to commit, a success
//!   without any, or a rejection. Only its own node asks; what it answers was decided by the state.
//!
//! Nothing here does I/O, reads a clock, draws a random number or waits. Equal logs give equal states,
//! which [`Manifest::digest`] shows at the price of one addition per changed entry.
//!
//! A [`Manifest`] is a persistent tree: cloning one costs a few reference counts, so that every query
//! can pin the state it started from.

mod apply;
mod checkpoint;
mod digest;
mod foreign;
mod intent;
mod ops;
mod rebase;
mod rejected;
mod settings;
mod state;
mod table;
mod tokens;

#[cfg(test)]
mod tests;

pub use apply::{Applied, Outcome, Stop};
pub use checkpoint::{CheckpointParts, Lost, PART_BYTES};
pub use foreign::MAX_FOREIGN;
pub use intent::{
    AppendIntent, AppendTarget, Change, ColumnSpec, Intent, MutateDraft, MutateIntent, MutateTarget,
    OnConflict, SchemaPolicy, SectionDraft, Step, TableSpec,
};
pub use rebase::{Rebased, Rejection, rebase};
pub use rejected::{check_writable, rejected_spec, rejected_table};
pub use settings::{DATABASE_SETTINGS, Mode, SettingDef, TABLE_OPTIONS, check_setting, check_table_option};
pub use state::{Logged, Manifest, RemovedObject};
pub use table::{FileState, Table, TailSection};
pub use tokens::{KnownProducer, MAX_COMMITTED, MAX_PRODUCERS, TokenAnswer, TokenTable};
