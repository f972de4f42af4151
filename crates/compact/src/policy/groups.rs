//! Inputs of a partition that touch one another in time.

use tandem_format::SectionPart;
use tandem_manifest::{FileState, Table};

/// First and last designated timestamp, both included.
pub(super) type Times = (i64, i64);

/// Of inputs that say nothing about their times, and of all inputs of a table whose key leaves the time out: one key may
/// then lie anywhere.
const ALWAYS: Times = (i64::MIN, i64::MAX);

/// The rows of one partition in a section of the tail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub part: SectionPart,
    pub time: Times,
    pub rows: u64,
    /// In proportion to the rows.
    pub bytes: u64,
}

/// All that is still in the tail, in log order.
pub(super) fn tail_parts(table: &Table) -> impl Iterator<Item = Part> {
    let timed = has_times(table);
    table.tail().flat_map(move |tail| {
        let whole = u128::from(tail.section.rows.max(1));
        let live = tail.section.partitions.iter().filter(|(p, _)| tail.live.binary_search(p).is_ok());
        live.map(move |(partition, rows)| {
            let share = u128::from(tail.section.len) * u128::from(*rows) / whole;
            Part {
                part: SectionPart { section: tail.key, partition: *partition },
                time: table.part_time(tail, *partition).filter(|_| timed).unwrap_or(ALWAYS),
                rows: *rows,
                bytes: u64::try_from(share).unwrap_or(tail.section.len),
            }
        })
    })
}

/// Whether times say where rows of equal keys can be.
pub(super) fn has_times(table: &Table) -> bool {
    table.timestamp().is_some_and(|column| table.primary_key().contains(&column.id))
}

fn times_of(table: &Table, file: &FileState) -> Times {
    file.file.time.filter(|_| has_times(table)).unwrap_or(ALWAYS)
}

/// Inputs that touch one another, directly or through others: together they are closed.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    pub files: Vec<&'a FileState>,
    pub parts: Vec<Part>,
    pub first: i64,
    pub last: i64,
}

enum Input<'a> {
    File(&'a FileState),
    Part(Part),
}

/// The groups of a partition's inputs, by time.
pub(super) fn groups<'a>(table: &Table, files: Vec<&'a FileState>, parts: Vec<Part>) -> Vec<Group<'a>> {
    let mut inputs: Vec<(Times, Input<'a>)> =
        files.into_iter().map(|file| (times_of(table, file), Input::File(file))).collect();
    inputs.extend(parts.into_iter().map(|part| (part.time, Input::Part(part))));
    inputs.sort_by_key(|(times, _)| *times);
    let mut groups: Vec<Group<'a>> = Vec::new();
    for ((first, last), input) in inputs {
        let touches = groups.last().is_some_and(|group| first <= group.last);
        if !touches {
            groups.push(Group { first, last, ..Group::default() });
        }
        let Some(group) = groups.last_mut() else { continue };
        group.last = group.last.max(last);
        match input {
            Input::File(file) => group.files.push(file),
            Input::Part(part) => group.parts.push(part),
        }
    }
    groups
}
