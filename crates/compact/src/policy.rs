//! What to compact next: a function of a table's state.

use std::collections::BTreeMap;

use tandem_format::{FileName, SectionPart};
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
    /// Encoded bytes of tail sections that one job takes, at most: they are sorted in memory.
    pub job_bytes: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tail_rows: 1_000_000,
            tail_bytes: 64 << 20,
            tail_sections: 1_000,
            fan_in: 8,
            job_bytes: 96 << 20,
        }
    }
}

/// How hard to look for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Only what pays.
    Usual,
    /// What pays, and the tail up to this seq, which has waited long enough.
    OldTail(Seq),
    /// All of the tail up to this seq, and files until at most one small one per partition is left.
    Everything(Seq),
}

/// A piece of work.
#[derive(Clone, Debug, PartialEq)]
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
}

/// Files of this share of the target are large enough to be left alone.
const DONE_SHARE: u64 = 2;

/// The next job on a table, if any is worth doing.
pub fn next_job(table: &Table, policy: &Policy, urgency: Urgency) -> Option<Job> {
    let target_bytes = target_file_size(table);
    tail_job(table, policy, urgency, target_bytes).or_else(|| file_job(table, policy, urgency, target_bytes))
}

/// The table's `target_file_size`.
fn target_file_size(table: &Table) -> u64 {
    const DEFAULT: u64 = 128 << 20;
    table.option("target_file_size").and_then(|v| v.parse().ok()).unwrap_or(DEFAULT).max(1 << 16)
}

#[derive(Default)]
struct TailOf {
    rows: u64,
    bytes: u64,
    parts: Vec<(SectionPart, u64)>,
}

fn tail_job(table: &Table, policy: &Policy, urgency: Urgency, target_bytes: u64) -> Option<Job> {
    let mut by_partition: BTreeMap<Partition, TailOf> = BTreeMap::new();
    let last = match urgency {
        Urgency::Usual => Seq(u64::MAX),
        Urgency::OldTail(seq) | Urgency::Everything(seq) => seq,
    };
    for tail in table.tail().take_while(|t| t.key.seq <= last) {
        let whole = tail.section.rows.max(1);
        for (partition, rows) in tail.section.partitions.iter().filter(|(p, _)| tail.live.contains(p)) {
            let bytes = u64::try_from(u128::from(tail.section.len) * u128::from(*rows) / u128::from(whole))
                .unwrap_or(tail.section.len);
            let of = by_partition.entry(*partition).or_default();
            of.rows += rows;
            of.bytes += bytes;
            of.parts.push((SectionPart { section: tail.key, partition: *partition }, bytes));
        }
    }
    let worth = |of: &TailOf| match urgency {
        Urgency::OldTail(_) | Urgency::Everything(_) => true,
        Urgency::Usual => {
            of.rows >= policy.tail_rows
                || of.bytes >= policy.tail_bytes
                || of.parts.len() >= policy.tail_sections
        }
    };
    let (partition, of) =
        by_partition.into_iter().filter(|(_, of)| worth(of)).max_by_key(|(p, of)| (of.bytes, *p))?;
    let mut taken = 0;
    let parts = of
        .parts
        .into_iter()
        .take_while(|(_, bytes)| {
            // The first is taken whatever its size.
            let fits = taken == 0 || taken + bytes <= policy.job_bytes;
            taken += bytes;
            fits
        })
        .map(|(part, _)| part)
        .collect();
    Some(Job { table: table.id(), partition, parts, files: Vec::new(), level: 0, target_bytes })
}

fn file_job(table: &Table, policy: &Policy, urgency: Urgency, target_bytes: u64) -> Option<Job> {
    let mut by_partition: BTreeMap<Partition, Vec<(Seq, FileName, u32)>> = BTreeMap::new();
    for state in table.files().filter(|f| f.file.size < target_bytes / DONE_SHARE) {
        let entry = (state.created, state.file.name, state.file.level);
        by_partition.entry(state.file.name.partition).or_default().push(entry);
    }
    let fan_in = match urgency {
        Urgency::Usual | Urgency::OldTail(_) => policy.fan_in,
        Urgency::Everything(_) => 2,
    };
    let (partition, mut files) = by_partition
        .into_iter()
        .filter(|(_, files)| files.len() >= fan_in)
        .max_by_key(|(p, f)| (f.len(), *p))?;
    files.sort_unstable();
    files.truncate(policy.fan_in.max(2) * 2);
    let level = files.iter().map(|(_, _, level)| level + 1).max().unwrap_or(1);
    let files = files.into_iter().map(|(_, name, _)| name).collect();
    Some(Job { table: table.id(), partition, parts: Vec::new(), files, level, target_bytes })
}

#[cfg(test)]
mod tests;
