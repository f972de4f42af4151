//! What to compact next: a function of a table's state.

mod append;
mod groups;
mod keyed;
mod pending;

use tandem_format::{DataFile, FileName, SectionPart};
use tandem_manifest::Table;
use tandem_types::{Partition, Seq, TableId};

/// When compaction is worth its cost.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A partition's tail is compacted once it has this many rows …
    pub tail_rows: u64,
    /// … or this many bytes …
    pub tail_bytes: u64,
    /// … or lies in this many sections.
    pub tail_sections: usize,
    /// Files of one partition that are small are merged once there are this many.
    pub fan_in: usize,
    /// Encoded bytes of tail sections that the jobs of one commit take, at most: they are sorted in memory.
    pub job_bytes: u64,
    /// Sections that the jobs of one commit take, at most: each is read by itself, so that a long tail of small ones
    /// takes long, and a commit that comes too late, or a node that ends before, wastes all of it. What must go together
    /// does, however many they are.
    pub job_sections: usize,
    /// Files with so many rows fill a row group of their own: rewriting them together with others makes no query
    /// faster.
    pub full_rows: u64,
    /// A file is rewritten once so many pending mutations may touch its rows.
    pub mutations: usize,
    /// Bytes of files that the jobs of one commit rewrite to fold mutations or late rows in, beyond the first: files
    /// stream by, but a commit that comes too late wastes all of it.
    pub fold_bytes: u64,
    /// Rows of a keyed table that come late wait until they are one in so many of the rows that are rewritten with
    /// them: so rewriting costs no more than this many times the rows written.
    pub late_share: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tail_rows: 1_000_000,
            tail_bytes: 64 << 20,
            tail_sections: 1_000,
            fan_in: 8,
            job_bytes: 96 << 20,
            job_sections: 4_000,
            full_rows: 1 << 18,
            mutations: 32,
            fold_bytes: 512 << 20,
            late_share: 8,
        }
    }
}

/// How hard to look for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Only what pays.
    Usual,
    /// What pays, and what has waited long enough. A seq of 0 stands for nothing.
    Waited {
        /// Rows committed up to here go to files, unless they are late ones of a keyed table.
        tail: Seq,
        /// Mutations and late rows of keyed tables up to here are folded in, whatever that costs.
        fold: Seq,
    },
    /// All of the tail and all mutations up to this seq, and files until at most one small one per partition is left: one
    /// that is neither half of the target's size nor has [`Policy::full_rows`]. On a keyed table a small one may also
    /// stay between large ones that are left alone.
    Everything(Seq),
}

impl Urgency {
    /// Whether rows that were committed at `seq` go to files now.
    fn tail_is_due(self, seq: Seq) -> bool {
        match self {
            Self::Usual => false,
            Self::Waited { tail, .. } => seq <= tail,
            Self::Everything(upto) => seq <= upto,
        }
    }

    /// Whether a mutation or late row that was committed at `seq` is folded now.
    fn fold_is_due(self, seq: Seq) -> bool {
        match self {
            Self::Usual => false,
            Self::Waited { fold, .. } => seq <= fold,
            Self::Everything(upto) => seq <= upto,
        }
    }

    /// How many small files are worth a merge.
    fn fan_in(self, policy: &Policy) -> usize {
        match self {
            Self::Usual | Self::Waited { .. } => policy.fan_in.max(2),
            Self::Everything(_) => 2,
        }
    }
}

/// A piece of work, on one partition.
///
/// On a keyed table it is *closed*: it names every file and every part of the tail whose times touch those of its
/// inputs from the first to the last. Only then are its outputs the exact state of all their keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    pub table: TableId,
    pub partition: Partition,
    /// Rows of the tail, in log order.
    pub parts: Vec<SectionPart>,
    /// Files, oldest first.
    pub files: Vec<FileName>,
    /// Of the outputs.
    pub level: u32,
    /// Outputs are closed at about this many bytes.
    pub target_bytes: u64,
    /// Ticks at which the outputs are cut, ascending: no output holds rows from both sides. Rows that come later then
    /// overlap fewer files.
    pub cuts: Vec<i64>,
    /// The tail is too large for memory: a keyed job reads its inputs so many times, and takes another share of the
    /// keys each time. 0 is as 1.
    pub slices: u32,
}

/// Files of this share of the target are large enough to be left alone.
const DONE_SHARE: u64 = 2;

/// What the next commit on a table should do: jobs that share no input, on a keyed table at most one per partition, the
/// worthiest first, as many as [`Policy::job_bytes`] allows; none if nothing is worth doing.
///
/// They go together because a section that spans many partitions is then read once, not once for each of them, and
/// because a commit costs the same for one as for all.
pub fn next_jobs(table: &Table, policy: &Policy, urgency: Urgency) -> Vec<Job> {
    let plan = Plan { table, policy, urgency, target_bytes: target_file_size(table) };
    if table.is_keyed() { keyed::jobs(&plan) } else { append::jobs(&plan) }
}

/// What the jobs of a table are chosen by.
struct Plan<'a> {
    table: &'a Table,
    policy: &'a Policy,
    urgency: Urgency,
    target_bytes: u64,
}

impl Plan<'_> {
    fn is_small(&self, file: &DataFile) -> bool {
        file.size < self.target_bytes / DONE_SHARE && file.rows < self.policy.full_rows
    }

    /// Whether a partition's tail of so much pays to be compacted.
    fn tail_pays(&self, rows: u64, bytes: u64, sections: usize) -> bool {
        rows >= self.policy.tail_rows
            || bytes >= self.policy.tail_bytes
            || sections >= self.policy.tail_sections
    }
}

/// The table's `target_file_size`.
fn target_file_size(table: &Table) -> u64 {
    const DEFAULT: u64 = 128 << 20;
    table.option("target_file_size").and_then(|v| v.parse().ok()).unwrap_or(DEFAULT).max(1 << 16)
}

#[cfg(test)]
mod tests;
