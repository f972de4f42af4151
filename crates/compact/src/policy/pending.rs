//! Which mutations wait for which files.

use tandem_format::DataFile;
use tandem_manifest::Table;
use tandem_types::Seq;

/// A table's pending mutations: their seqs, ascending, and the times that they can touch.
pub(super) struct Pending(Vec<(Seq, Option<(i64, i64)>)>);

/// What waits for one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// How many mutations may touch its rows: each costs every query that reads them.
    pub touching: usize,
    /// The first of them: it is not forgotten before the file is rewritten.
    pub oldest: Option<Seq>,
}

impl Waiting {
    pub fn and(self, other: Self) -> Self {
        let oldest = [self.oldest, other.oldest].into_iter().flatten().min();
        Self { touching: self.touching.max(other.touching), oldest }
    }
}

impl Pending {
    pub fn of(table: &Table) -> Self {
        Self(table.mutations().map(|m| (m.key.seq, m.mutation.time)).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn on(&self, file: &DataFile) -> Waiting {
        let first = self.0.partition_point(|(seq, _)| *seq <= file.folded_through);
        let after = self.0.get(first..).unwrap_or_default();
        let touches = |time: Option<(i64, i64)>| match (time, file.time) {
            (Some((from, to)), Some((first, last))) => from <= last && first <= to,
            _ => true,
        };
        let mut touching = after.iter().filter(|(_, time)| touches(*time)).peekable();
        let oldest = touching.peek().map(|(seq, _)| *seq);
        Waiting { touching: touching.count(), oldest }
    }
}
