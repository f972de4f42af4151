//! Tables with a key: what touches in time is compacted together or not at all.
//!
//! Rows that come in the order of time make small groups at the end of a partition, and cost one write. Rows that come
//! late touch files that are large already; rewriting those for each of them would cost as much as there are rows times
//! files. So they wait in the tail, where queries fold them in, until they are a fair share of what would be rewritten.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tandem_format::SectionPart;
use tandem_manifest::FileState;
use tandem_types::Partition;

use super::groups::{Group, Part, groups, has_times, tail_parts};
use super::pending::{Pending, Waiting};
use super::{Job, Plan, Urgency};

/// A job's outputs are cut by time into so many at most, beside the newest rows: each is a file in the making.
const CUTS_MAX: u64 = 2;

/// Rows of the tail take about so many times the bytes that they take in files.
const TAIL_INFLATION: u64 = 4;

pub(super) fn jobs(plan: &Plan<'_>) -> Vec<Job> {
    let pending = Pending::of(plan.table);
    let mut found: Vec<(Weight, Job)> = Vec::new();
    for (partition, (files, parts)) in by_partition(plan) {
        // A table whose partitions are all at rest costs no more than a look.
        if parts.is_empty() && pending.is_empty() && files.len() < 2 {
            continue;
        }
        let groups: Vec<Judged<'_>> =
            groups(plan.table, files, parts).into_iter().map(|group| plan.judge(&pending, group)).collect();
        found.extend(plan.folds(partition, &groups));
        found.extend(plan.merges(partition, &groups));
    }
    // Merging comes last: nobody waits for it.
    found.sort_by_key(|(weight, job)| (weight.is_merge, Reverse(weight.tail_bytes), job.partition));
    let merges = found.first().is_some_and(|(weight, _)| weight.is_merge);
    let mut jobs: Vec<Job> = Vec::new();
    let (mut tail_room, mut file_room) = (plan.policy.job_bytes, plan.policy.fold_bytes);
    for (weight, job) in found.into_iter().filter(|(weight, _)| weight.is_merge == merges) {
        if !jobs.is_empty() && (weight.tail_bytes > tail_room || weight.file_bytes > file_room) {
            continue;
        }
        // One commit's inputs are closed as a whole: two jobs of a partition would have to take what lies between them.
        if jobs.iter().any(|other| other.partition == job.partition) {
            continue;
        }
        tail_room = tail_room.saturating_sub(weight.tail_bytes);
        file_room = file_room.saturating_sub(weight.file_bytes);
        jobs.push(job);
        // It reads its inputs again and again: others would be read as often.
        if jobs.last().is_some_and(|job| job.slices > 1) {
            break;
        }
    }
    jobs
}

type Inputs<'a> = (Vec<&'a FileState>, Vec<Part>);

fn by_partition<'a>(plan: &Plan<'a>) -> BTreeMap<Partition, Inputs<'a>> {
    let mut inputs: BTreeMap<Partition, Inputs<'a>> = BTreeMap::new();
    for state in plan.table.files() {
        inputs.entry(state.file.name.partition).or_default().0.push(state.as_ref());
    }
    for part in tail_parts(plan.table) {
        inputs.entry(part.part.partition).or_default().1.push(part);
    }
    inputs
}

/// What a job costs, and what it is for.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    is_merge: bool,
    tail_bytes: u64,
    file_bytes: u64,
}

/// A group and what is known of it.
struct Judged<'a> {
    group: Group<'a>,
    tail_rows: u64,
    tail_bytes: u64,
    file_bytes: u64,
    small_files: usize,
    /// It may become files now: nothing is rewritten that is not worth it.
    ready: bool,
    /// It must, whatever the rest of its partition does.
    due: bool,
}

impl Plan<'_> {
    fn judge<'a>(&self, pending: &Pending, group: Group<'a>) -> Judged<'a> {
        let files = group.files.iter().map(|state| &state.file);
        let (file_rows, file_bytes) =
            files.clone().fold((0u64, 0u64), |(rows, bytes), f| (rows + f.rows, bytes + f.size));
        let waiting = files.clone().map(|file| pending.on(file)).fold(Waiting::default(), Waiting::and);
        let oldest = group.parts.iter().map(|part| part.part.section.seq).min();
        let tail_rows: u64 = group.parts.iter().map(|part| part.rows).sum();
        let folds = waiting.touching >= self.policy.mutations.max(1)
            || waiting.oldest.is_some_and(|seq| self.urgency.fold_is_due(seq));
        // Little to rewrite is no reason to wait either.
        let share = tail_rows.saturating_mul(self.policy.late_share);
        let cheap = file_rows < self.policy.full_rows
            || share >= file_rows
            || group.parts.len() >= self.policy.tail_sections;
        let late = oldest.is_some_and(|seq| self.urgency.fold_is_due(seq));
        Judged {
            ready: folds || late || (!group.parts.is_empty() && cheap),
            due: folds || late || (cheap && oldest.is_some_and(|seq| self.urgency.tail_is_due(seq))),
            tail_rows,
            tail_bytes: group.parts.iter().map(|part| part.bytes).sum(),
            file_bytes,
            small_files: files.filter(|file| self.is_small(file)).count(),
            group,
        }
    }

    /// Jobs that bring rows of the tail and mutations into files.
    fn folds(&self, partition: Partition, groups: &[Judged<'_>]) -> Vec<(Weight, Job)> {
        let mut jobs = Vec::new();
        for run in groups.split(|judged| !judged.ready) {
            let (rows, bytes, sections) = run.iter().fold((0, 0, 0), |(rows, bytes, sections), judged| {
                (rows + judged.tail_rows, bytes + judged.tail_bytes, sections + judged.group.parts.len())
            });
            // `OPTIMIZE` leaves alone what was committed after it, unless it touches the rest.
            let pays =
                !matches!(self.urgency, Urgency::Everything(_)) && self.tail_pays(rows, bytes, sections);
            if !pays && !run.iter().any(|judged| judged.due) {
                continue;
            }
            let first = run.iter().position(|judged| pays || judged.due).unwrap_or_default();
            let last = run.iter().rposition(|judged| pays || judged.due).unwrap_or_default();
            let within = run.get(first..=last).unwrap_or_default();
            for piece in self.pieces(within) {
                jobs.push(self.fold(partition, piece));
            }
        }
        jobs
    }

    /// Neighbours that go into one job each: as many as it has room for, and one whatever its size.
    fn pieces<'j, 'a>(&self, mut run: &'j [Judged<'a>]) -> Vec<&'j [Judged<'a>]> {
        let mut pieces = Vec::new();
        while !run.is_empty() {
            let (mut tail, mut files, mut sections) = (0, 0, 0);
            let mut end = 0;
            for judged in run {
                tail += judged.tail_bytes;
                files += judged.file_bytes;
                sections += judged.group.parts.len();
                let fits = tail <= self.policy.job_bytes
                    && files <= self.policy.fold_bytes
                    && sections <= self.policy.job_sections;
                if end > 0 && !fits {
                    break;
                }
                end += 1;
            }
            let (piece, rest) = run.split_at(end);
            pieces.push(piece);
            run = rest;
        }
        pieces
    }

    fn fold(&self, partition: Partition, groups: &[Judged<'_>]) -> (Weight, Job) {
        let (weight, mut job) = self.job_of(partition, groups);
        let slices = weight.tail_bytes.div_ceil(self.policy.job_bytes.max(1));
        job.slices = u32::try_from(slices).unwrap_or(u32::MAX);
        if has_times(self.table) {
            job.cuts = self.cuts(groups);
        }
        (weight, job)
    }

    fn job_of(&self, partition: Partition, groups: &[Judged<'_>]) -> (Weight, Job) {
        let files: Vec<&FileState> = groups.iter().flat_map(|j| j.group.files.iter().copied()).collect();
        let mut parts: Vec<SectionPart> =
            groups.iter().flat_map(|j| j.group.parts.iter().map(|part| part.part)).collect();
        parts.sort_unstable();
        let weight = Weight {
            is_merge: false,
            tail_bytes: groups.iter().map(|j| j.tail_bytes).sum(),
            file_bytes: groups.iter().map(|j| j.file_bytes).sum(),
        };
        (weight, Job { partition, parts, ..self.job(&files) })
    }

    /// Where outputs end, so that the next rows, and late ones, touch few of them.
    fn cuts(&self, groups: &[Judged<'_>]) -> Vec<i64> {
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return Vec::new() };
        let (first, last) = (first.group.first, last.group.last);
        let mut cuts = Vec::new();
        // Rows that are as late as the latest of these will come again: they should find only the newest few.
        let lateness = lateness(groups);
        let fringe = last.saturating_sub(lateness.saturating_mul(2));
        let span = last.saturating_sub(first);
        let newest =
            (lateness > 0 && fringe > first && last.saturating_sub(fringe) < span / 4).then_some(fringe);
        // Files that are sorted by time are apart already.
        let by_time = self.table.order_by().first() == self.table.timestamp().map(|column| &column.id);
        if !by_time {
            let bytes: u64 = groups.iter().map(|j| j.file_bytes + j.tail_bytes / TAIL_INFLATION).sum();
            let pieces = (bytes / self.target_bytes.saturating_mul(2).max(1)).min(CUTS_MAX + 1);
            let until = newest.unwrap_or(last);
            let width = i128::from(until) - i128::from(first);
            let cut = |n: u64| i64::try_from(i128::from(first) + width * i128::from(n) / i128::from(pieces));
            cuts.extend((1..pieces).filter_map(|n| cut(n).ok()));
        }
        cuts.extend(newest);
        cuts.retain(|cut| first < *cut && *cut <= last);
        cuts.dedup();
        cuts
    }

    /// Jobs that make few files of many small ones that lie next to each other.
    fn merges(&self, partition: Partition, groups: &[Judged<'_>]) -> Vec<(Weight, Job)> {
        let fan_in = self.urgency.fan_in(self.policy);
        let at_most = self.policy.fan_in.max(2) * 2;
        let may = |judged: &Judged<'_>| {
            judged.group.parts.is_empty()
                && (judged.small_files == judged.group.files.len() || judged.small_files >= fan_in)
        };
        let mut jobs = Vec::new();
        for run in groups.split(|judged| !may(judged)) {
            let mut rest = run;
            while !rest.is_empty() {
                let (mut files, mut bytes, mut end) = (0, 0, 0);
                for judged in rest {
                    let (more, size) = (judged.group.files.len(), judged.file_bytes);
                    if end > 0 && (files + more > at_most || bytes + size > self.policy.fold_bytes) {
                        break;
                    }
                    files += more;
                    bytes += size;
                    end += 1;
                }
                let (piece, after) = rest.split_at(end);
                rest = after;
                let small: usize = piece.iter().map(|judged| judged.small_files).sum();
                // As many as come out: merging comes to an end.
                let outputs = (bytes / self.target_bytes.max(1)).max(1);
                if small >= fan_in && outputs < files as u64 {
                    let (weight, job) = self.job_of(partition, piece);
                    jobs.push((Weight { is_merge: true, ..weight }, job));
                }
            }
        }
        jobs
    }
}

/// By how much rows came after later ones, at most, in ticks.
fn lateness(groups: &[Judged<'_>]) -> i64 {
    let mut parts: Vec<&Part> = groups.iter().flat_map(|judged| &judged.group.parts).collect();
    parts.sort_unstable_by_key(|part| part.part);
    let mut newest: Option<i64> = None;
    let mut most = 0;
    for part in parts {
        if let Some(newest) = newest {
            most = most.max(newest.saturating_sub(part.time.0));
        }
        newest = Some(newest.map_or(part.time.1, |newest| newest.max(part.time.1)));
    }
    most
}
