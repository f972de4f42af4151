//! What to compact next: a function of a table's state.

use std::cmp::Reverse;
use std::collections::BTreeMap;

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
    /// Files with so many rows fill a row group of their own: rewriting them together with others makes no query
    /// faster.
    pub full_rows: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tail_rows: 1_000_000,
            tail_bytes: 64 << 20,
            tail_sections: 1_000,
            fan_in: 8,
            job_bytes: 96 << 20,
            full_rows: 1 << 18,
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
    /// All of the tail up to this seq, and files until at most one small one per partition is left: one that is neither
    /// half of the target's size nor has [`Policy::full_rows`].
    Everything(Seq),
}

/// A piece of work, on one partition.
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

/// What the next commit on a table should do: jobs on different partitions, the worthiest first, as many as
/// [`Policy::job_bytes`] allows; none if nothing is worth doing.
///
/// They go together because a section that spans many partitions is then read once, not once for each of them, and
/// because a commit costs the same for one as for all.
pub fn next_jobs(table: &Table, policy: &Policy, urgency: Urgency) -> Vec<Job> {
    let target_bytes = target_file_size(table);
    let tail = tail_jobs(table, policy, urgency, target_bytes);
    if tail.is_empty() { file_jobs(table, policy, urgency, target_bytes) } else { tail }
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

fn tail_jobs(table: &Table, policy: &Policy, urgency: Urgency, target_bytes: u64) -> Vec<Job> {
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
    let mut worthy: Vec<(Partition, TailOf)> = by_partition.into_iter().filter(|(_, of)| worth(of)).collect();
    worthy.sort_by_key(|(partition, of)| Reverse((of.bytes, *partition)));
    let mut jobs: Vec<Job> = Vec::new();
    let mut room = policy.job_bytes;
    for (partition, of) in worthy {
        let mut parts = of.parts;
        if of.bytes > room {
            // A part of a partition makes a file that must be merged later: only one that is too large for any job is cut.
            if !jobs.is_empty() {
                continue;
            }
            let mut taken = 0;
            parts.retain(|(_, bytes)| {
                // The first is taken whatever its size.
                let fits = taken == 0 || taken + bytes <= room;
                taken += bytes;
                fits
            });
        }
        room = room.saturating_sub(of.bytes);
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        jobs.push(Job { table: table.id(), partition, parts, files: Vec::new(), level: 0, target_bytes });
    }
    jobs
}

fn file_jobs(table: &Table, policy: &Policy, urgency: Urgency, target_bytes: u64) -> Vec<Job> {
    let mut by_partition: BTreeMap<Partition, Vec<(Seq, &DataFile)>> = BTreeMap::new();
    let is_small = |file: &DataFile| file.size < target_bytes / DONE_SHARE && file.rows < policy.full_rows;
    for state in table.files().filter(|state| is_small(&state.file)) {
        by_partition.entry(state.file.name.partition).or_default().push((state.created, &state.file));
    }
    let fan_in = match urgency {
        Urgency::Usual | Urgency::OldTail(_) => policy.fan_in,
        Urgency::Everything(_) => 2,
    };
    let mut worthy: Vec<_> = by_partition.into_iter().filter(|(_, files)| files.len() >= fan_in).collect();
    worthy.sort_by_key(|(partition, files)| Reverse((files.len(), *partition)));
    let mut jobs: Vec<Job> = Vec::new();
    let mut room = policy.job_bytes;
    for (partition, mut files) in worthy {
        files.sort_unstable_by_key(|(created, file)| (*created, file.name));
        files.truncate(policy.fan_in.max(2) * 2);
        let bytes = files.iter().map(|(_, file)| file.size).sum();
        if bytes > room && !jobs.is_empty() {
            continue;
        }
        room = room.saturating_sub(bytes);
        let level = files.iter().map(|(_, file)| file.level + 1).max().unwrap_or(1);
        let files = files.into_iter().map(|(_, file)| file.name).collect();
        jobs.push(Job { table: table.id(), partition, parts: Vec::new(), files, level, target_bytes });
    }
    jobs
}

#[cfg(test)]
mod tests;
