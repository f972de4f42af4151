//! Compaction as a node does it, and in ways in which no node would but any may.

use std::sync::Arc;

use tandem_compact::{Job, Output, Policy, Urgency, next_jobs, run};
use tandem_format::{FileName, SectionPart};
use tandem_manifest::{Manifest, Table};
use tandem_types::{Partition, Result, Seq};

use crate::node::Node;
use crate::plan::{How, Random};

fn policy() -> Policy {
    Policy { tail_rows: 12, tail_sections: 3, fan_in: 2, mutations: 2, late_share: 2, ..Policy::default() }
}

/// What there is to do.
pub fn jobs(table: &Table, how: How, upto: Seq) -> Vec<Job> {
    match how {
        How::Usual => next_jobs(table, &policy(), Urgency::Usual),
        How::Everything => next_jobs(table, &policy(), Urgency::Everything(upto)),
        How::Some(seed) => some(table, &Random::new(seed)).into_iter().collect(),
    }
}

/// Makes the files; nothing shows before the output is committed.
pub async fn make(node: &Node, state: &Arc<Manifest>, jobs: &[Job]) -> Result<Output> {
    run(&node.inputs(state.clone()), jobs).await
}

#[derive(Clone, Copy, Debug)]
enum Input {
    File(FileName),
    Part(SectionPart),
}

/// Some inputs of one partition, drawn, and on a keyed table all that they touch.
fn some(table: &Table, r: &Random) -> Option<Job> {
    let any = (i64::MIN, i64::MAX);
    let timed = table.timestamp().is_some_and(|c| table.primary_key().contains(&c.id));
    let times = |time: Option<(i64, i64)>| time.filter(|_| timed).unwrap_or(any);
    let mut inputs: Vec<(Partition, (i64, i64), Input)> = table
        .files()
        .map(|f| (f.file.name.partition, times(f.file.time), Input::File(f.file.name)))
        .collect();
    for tail in table.tail() {
        for partition in &tail.live {
            let part = SectionPart { section: tail.key, partition: *partition };
            inputs.push((*partition, times(table.part_time(tail, *partition)), Input::Part(part)));
        }
    }
    if inputs.is_empty() {
        return None;
    }
    let (partition, _, _) = inputs[r.below(inputs.len())];
    inputs.retain(|(p, _, _)| *p == partition);
    let share = 20 + r.below(80);
    let mut taken: Vec<bool> = inputs.iter().map(|_| r.percent(share)).collect();
    taken[r.below(inputs.len())] = true;
    while table.is_keyed() {
        let spans = inputs.iter().zip(&taken).filter(|(_, taken)| **taken).map(|((_, time, _), _)| *time);
        let hull = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let before = taken.clone();
        for ((_, time, _), taken) in inputs.iter().zip(&mut taken) {
            *taken |= time.0 <= hull.1 && hull.0 <= time.1;
        }
        if taken == before {
            break;
        }
    }
    let mut job = Job { table: table.id(), partition, target_bytes: 1 << 20, level: 1, ..Job::default() };
    for ((_, _, input), taken) in inputs.iter().zip(taken) {
        match input {
            _ if !taken => {}
            Input::File(name) => job.files.push(*name),
            Input::Part(part) => job.parts.push(*part),
        }
    }
    // Oldest first.
    job.files.sort_by_key(|name| (table.file(name).map(|f| f.created), *name));
    job.parts.sort();
    if let Some((first, last)) = table.time_range()
        && timed
        && r.percent(30)
    {
        job.cuts.push(first + (last - first) / 2);
        job.cuts.retain(|cut| first < *cut);
    }
    job.slices = if table.is_keyed() && r.percent(20) { 2 } else { 0 };
    Some(job)
}
