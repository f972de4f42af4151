//! Tables without a key: any rows of a partition may become files together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tandem_format::{DataFile, SectionPart};
use tandem_manifest::FileState;
use tandem_types::{Partition, Seq};

use super::groups::tail_parts;
use super::pending::{Pending, Waiting};
use super::{Job, Plan, Urgency};

/// The tail first: each row of it is in memory on every node. Then mutations, which cost every query; small files last.
pub(super) fn jobs(plan: &Plan<'_>) -> Vec<Job> {
    let mut jobs = tail_jobs(plan);
    // Where the tail never ends, files must not wait for that: one goes along.
    let room = if jobs.is_empty() { plan.policy.fold_bytes } else { 0 };
    jobs.extend(fold_jobs(plan, room));
    if jobs.is_empty() { file_jobs(plan) } else { jobs }
}

#[derive(Default)]
struct TailOf {
    rows: u64,
    bytes: u64,
    oldest: Seq,
    parts: Vec<(SectionPart, u64)>,
}

fn tail_jobs(plan: &Plan<'_>) -> Vec<Job> {
    let mut by_partition: BTreeMap<Partition, TailOf> = BTreeMap::new();
    let last = match plan.urgency {
        Urgency::Usual | Urgency::Waited { .. } => Seq(u64::MAX),
        Urgency::Everything(seq) => seq,
    };
    for part in tail_parts(plan.table).take_while(|part| part.part.section.seq <= last) {
        let of = by_partition.entry(part.part.partition).or_default();
        if of.parts.is_empty() {
            of.oldest = part.part.section.seq;
        }
        of.rows += part.rows;
        of.bytes += part.bytes;
        of.parts.push((part.part, part.bytes));
    }
    let pays = |of: &TailOf| {
        plan.urgency.tail_is_due(of.oldest) || plan.tail_pays(of.rows, of.bytes, of.parts.len())
    };
    let mut worthy: Vec<(Partition, TailOf)> = by_partition.into_iter().filter(|(_, of)| pays(of)).collect();
    worthy.sort_by_key(|(partition, of)| Reverse((of.bytes, *partition)));
    let mut jobs: Vec<Job> = Vec::new();
    let mut room = plan.policy.job_bytes;
    // A section that several jobs take is read once.
    let mut sections = BTreeSet::new();
    for (partition, of) in worthy {
        let mut parts = of.parts;
        let more = parts.iter().filter(|(part, _)| !sections.contains(&part.section)).count();
        if of.bytes > room || sections.len() + more > plan.policy.job_sections {
            // A part of a partition makes a file that must be merged later: only one that is too large for any job is cut.
            if !jobs.is_empty() {
                continue;
            }
            parts.truncate(plan.policy.job_sections.max(1));
            let mut taken = 0;
            parts.retain(|(_, bytes)| {
                // The first is taken whatever its size.
                let fits = taken == 0 || taken + bytes <= room;
                taken += bytes;
                fits
            });
        }
        room = room.saturating_sub(of.bytes);
        sections.extend(parts.iter().map(|(part, _)| part.section));
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        jobs.push(Job { partition, parts, ..plan.job(&[]) });
    }
    jobs
}

/// Files that mutations wait for, the most burdened first: one, and as many more as there is room for.
fn fold_jobs(plan: &Plan<'_>, mut room: u64) -> Vec<Job> {
    let pending = Pending::of(plan.table);
    if pending.is_empty() {
        return Vec::new();
    }
    let is_due = |waiting: &Waiting| {
        waiting.touching >= plan.policy.mutations.max(1)
            || waiting.oldest.is_some_and(|seq| plan.urgency.fold_is_due(seq))
    };
    let mut due: Vec<(Waiting, &FileState)> = plan
        .table
        .files()
        .map(|state| (pending.on(&state.file), state.as_ref()))
        .filter(|(waiting, _)| is_due(waiting))
        .collect();
    due.sort_by_key(|(waiting, state)| (Reverse(waiting.touching), waiting.oldest, state.file.name));
    let mut by_partition: BTreeMap<Partition, Vec<&FileState>> = BTreeMap::new();
    for (index, (_, state)) in due.into_iter().enumerate() {
        if index > 0 && state.file.size > room {
            break;
        }
        room = room.saturating_sub(state.file.size);
        by_partition.entry(state.file.name.partition).or_default().push(state);
    }
    by_partition.into_iter().map(|(partition, files)| Job { partition, ..plan.job(&files) }).collect()
}

fn file_jobs(plan: &Plan<'_>) -> Vec<Job> {
    let mut by_partition: BTreeMap<Partition, Vec<&FileState>> = BTreeMap::new();
    for state in plan.table.files().filter(|state| plan.is_small(&state.file)) {
        by_partition.entry(state.file.name.partition).or_default().push(state.as_ref());
    }
    let fan_in = plan.urgency.fan_in(plan.policy);
    let mut worthy: Vec<_> = by_partition.into_iter().filter(|(_, files)| files.len() >= fan_in).collect();
    worthy.sort_by_key(|(partition, files)| Reverse((files.len(), *partition)));
    let mut jobs: Vec<Job> = Vec::new();
    let mut room = plan.policy.job_bytes;
    for (partition, mut files) in worthy {
        files.sort_unstable_by_key(|state| (state.created, state.file.name));
        files.truncate(plan.policy.fan_in.max(2) * 2);
        let bytes = files.iter().map(|state| state.file.size).sum();
        if bytes > room && !jobs.is_empty() {
            continue;
        }
        room = room.saturating_sub(bytes);
        jobs.push(Job { partition, ..plan.job(&files) });
    }
    jobs
}

impl Plan<'_> {
    /// A job on files, oldest first, that is to be completed.
    pub(super) fn job(&self, files: &[&FileState]) -> Job {
        let mut files = files.to_vec();
        files.sort_unstable_by_key(|state| (state.created, state.file.name));
        let level = |file: &DataFile| file.level.saturating_add(1);
        Job {
            table: self.table.id(),
            level: files.iter().map(|state| level(&state.file)).max().unwrap_or(0),
            files: files.iter().map(|state| state.file.name).collect(),
            target_bytes: self.target_bytes,
            ..Job::default()
        }
    }
}
