//! What a walk found.

use serde::Serialize;

/// What a walk found. Serializes as people's programs read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The database's URL.
    pub store: String,
    /// Whether every byte was looked at.
    pub full: bool,
    /// The newest state; absent if none could be made.
    pub seq: Option<u64>,
    /// Objects that were looked at.
    pub objects: u64,
    /// Of those, as far as they were read.
    pub bytes_read: u64,
    /// Rows of the newest state that were read and counted.
    pub rows_read: u64,
    /// Objects that nothing names.
    pub unnamed_objects: u64,
    pub unnamed_bytes: u64,
    /// By object.
    pub problems: Vec<Problem>,
}

/// An object that is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its path below the database.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The rows of the newest state that it holds; empty if it holds none.
    pub costs: Vec<Cost>,
}

/// Rows that an object holds, of one table and partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cost {
    pub table: String,
    pub partition: String,
    pub rows: u64,
}

/// How far a walk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub objects_done: u64,
    pub objects: u64,
    pub bytes_read: u64,
}

impl Report {
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty()
    }

    /// Rows of the newest state that damaged or missing objects hold.
    pub fn rows_lost(&self) -> u64 {
        self.problems.iter().flat_map(|p| &p.costs).map(|c| c.rows).fold(0, u64::saturating_add)
    }

    pub(crate) fn blame(&mut self, object: impl Into<String>, what: impl ToString, costs: Vec<Cost>) {
        self.problems.push(Problem { object: object.into(), what: what.to_string(), costs });
    }
}
