//! What the collector tells: what may go, what stays, and what holds it.

/// How to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectRequest {
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The state that it was judged by.
    pub seq: u64,
    /// What is not named, and was made before this seq, may go.
    pub horizon: u64,
    /// Snapshots from here on are kept.
    pub history_start: u64,
    /// The log up to here may go.
    pub floor: u64,
    /// Where history could begin if nobody held it back; and who does, if somebody does.
    pub by_window: u64,
    pub held_by: Option<String>,
    pub garbage: Vec<StoredShare>,
    pub held: Vec<StoredShare>,
    pub deleted_objects: u64,
    pub deleted_bytes: u64,
    /// Why not all of it was deleted.
    pub failed: Option<String>,
}

/// Objects of one kind that share a fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredShare {
    /// `segment`, `data`, `checkpoint`, `log` or `unknown`.
    pub kind: String,
    /// What holds them; of garbage, nothing.
    pub held_by: Option<String>,
    pub objects: u64,
    pub bytes: u64,
}

/// A row of `system.gc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredObject {
    pub path: String,
    pub bytes: u64,
    /// `garbage` or `held`.
    pub state: String,
    pub held_by: Option<String>,
}
