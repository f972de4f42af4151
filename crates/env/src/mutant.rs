//! Deliberate mistakes, to find out whether the simulation would notice them.
//!
//! Each is one condition in the code that it spoils, `env.mutant(Mutant::X)`, which is constant `false` unless this crate's
//! feature `sim` is on, and false then too unless a simulation chose that mistake for the store handle it gave out.

use crate::Env;

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A write is answered before its commit is tried.
    AckBeforeCommit,
    /// The state with a group's transactions is published before their commit is tried.
    VisibleBeforeCommit,
    /// "Exists" is taken for a lost race, without a look at what is there.
    ExistsIsLost,
    /// An error is taken for a lost race.
    UnknownIsLost,
    /// An error is taken for success.
    UnknownIsCreated,
    /// While the outcome of a commit is unknown, another one is tried at its seq.
    OtherBytesAtSameSeq,
    /// A writer does not ask for the floor after a create.
    NoFloorCheckInWriter,
    /// A reader does not ask for the floor after a run.
    NoFloorCheckInReader,
    /// Recovery does not look for what a hole in the log would hide.
    HoleUnchecked,
    /// A pushed commit is applied whatever commit it was made on.
    FeedChainUnchecked,
    /// Pushed commits are applied in the order in which they arrive.
    FeedOrderUnchecked,
    /// A node that was handed a write is believed when it says that it has committed it.
    HandedAnswerBelieved,
    /// Writes are committed without their tokens.
    NoTokenCheck,
    /// Writes are committed without the epoch that their node believed in.
    EpochUnchecked,
    /// A rejection is answered from the state at hand, which may be stale.
    StaleRejection,
    /// A compaction whose inputs are gone in part is committed for the rest of them.
    GoneInputsDropped,
    /// A checkpoint is recorded without having been read back and folded again.
    CheckpointNotReadBack,
    /// Recovery starts from a checkpoint that the log does not record.
    UnrecordedCheckpointUsed,
    /// The collector takes what nobody names for garbage, whenever it was made.
    HorizonIgnored,
    /// The log is trimmed up to its end, whatever checkpoints there are.
    FloorAheadOfCheckpoint,
}

impl Env {
    /// Whether to make this mistake. Never, outside of a simulation.
    pub fn mutant(&self, mutant: Mutant) -> bool {
        self.store.mutant(mutant)
    }
}
