//! What keyed tables cost over time: how often each row is written, and how many rows wait in the tail.

use super::keyed::{DAY, Keyed};
use super::*;

const SECTION_ROWS: u64 = 100;
/// Of a row in a file.
const ROW_BYTES: u64 = 100;
const FILE_ROWS: u64 = TARGET / ROW_BYTES;

fn scaled() -> Policy {
    Policy { tail_rows: 2000, tail_bytes: u64::MAX, tail_sections: 200, full_rows: 1000, ..Policy::default() }
}

/// What was spent on a table.
#[derive(Debug, Default)]
struct Spent {
    appended: u64,
    written: u64,
    /// The most rows that ever waited.
    waiting: u64,
    files: usize,
}

impl Spent {
    fn times(&self) -> f64 {
        self.written as f64 / self.appended as f64
    }
}

/// Appends sections at the times that `at` says, in turn, and does what the policy asks for after each.
fn play(sections: u64, at: impl Fn(u64) -> (i64, i64)) -> Spent {
    let mut table = Keyed::new();
    let mut spent = Spent::default();
    for n in 0..sections {
        let (from, to) = at(n);
        table = table.rows(SECTION_ROWS, from, to);
        spent.appended += SECTION_ROWS;
        loop {
            let jobs = table.0.jobs(&scaled(), Urgency::Usual);
            let Some(job) = jobs.into_iter().next() else { break };
            let (replace, rows) = done(&table, job);
            spent.written += rows;
            table.0 = table.0.commit(Step::Replace(replace));
        }
        let state = table.0.0.table(TableId(1)).unwrap();
        spent.waiting = spent.waiting.max(state.tail_rows());
        spent.files = state.file_count();
    }
    spent
}

/// As if the job had run: rows are spread evenly over their times, and over the files that are cut of them.
fn done(table: &Keyed, job: Job) -> (Replace, u64) {
    let manifest = &table.0.0;
    let state = manifest.table(TableId(1)).unwrap();
    let files = job.files.iter().map(|name| &state.file(name).unwrap().file);
    let mut inputs: Vec<(u64, (i64, i64))> = files.map(|file| (file.rows, file.time.unwrap())).collect();
    inputs.extend(job.parts.iter().map(|part| {
        let tail = state.tail_section(&part.section).unwrap();
        (tail.section.rows, state.part_time(tail, part.partition).unwrap())
    }));
    let rows: u64 = inputs.iter().map(|(rows, _)| rows).sum();
    let first = inputs.iter().map(|(_, time)| time.0).min().unwrap();
    let last = inputs.iter().map(|(_, time)| time.1).max().unwrap();
    let bounds: Vec<i64> = std::iter::once(first).chain(job.cuts.clone()).chain([last + 1]).collect();
    let mut outputs = Vec::new();
    let mut left = rows;
    for stretch in bounds.windows(2) {
        let (from, to) = (stretch[0], stretch[1] - 1);
        // As many rows as the inputs have between, each evenly spread.
        let share = |(rows, time): &(u64, (i64, i64))| {
            let overlap = (time.1.min(to) - time.0.max(from) + 1).max(0);
            *rows as f64 * overlap as f64 / (time.1 - time.0 + 1) as f64
        };
        let within = (inputs.iter().map(share).sum::<f64>().round() as u64).min(left);
        left -= within;
        let pieces = within.div_ceil(FILE_ROWS);
        for piece in 0..pieces {
            let rows = within / pieces + u64::from(piece < within % pieces);
            let size = rows * ROW_BYTES;
            let object =
                ObjectName { base: manifest.seq(), writer: WriterId(7), random: outputs.len() as u64 };
            outputs.push(DataFile {
                name: FileName { partition: job.partition, object },
                rows,
                size,
                body_end: size,
                tail_crc32c: 0,
                // Sorted by another column: every file has all times.
                time: Some((from, to)),
                folded_through: manifest.seq(),
                level: job.level,
            });
        }
    }
    let replace =
        Replace { table: TableId(1), base: manifest.seq(), files: job.files, parts: job.parts, outputs };
    (replace, rows)
}

/// A number from 0 to before `n`, always the same for the same `seed`.
fn some(seed: u64, n: u64) -> i64 {
    let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i64::try_from((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33).unwrap() % n as i64
}

#[test]
fn rows_in_the_order_of_time_are_written_a_few_times() {
    // One after the other: once from the tail, and again when small files are merged.
    let spent = play(800, |n| (n as i64 * 100, n as i64 * 100 + 99));
    assert!(spent.times() <= 2.5 && spent.waiting <= 2000, "{spent:?}");
    // Each a little before the end of the one before, as several writers' are.
    let spent = play(800, |n| (n as i64 * 100 - 30 * i64::from(n > 0), n as i64 * 100 + 99));
    assert!(spent.times() <= 3.5 && spent.waiting <= 4000, "{spent:?}");
}

#[test]
fn rows_at_random_times_are_written_a_bounded_number_of_times() {
    // Every section touches nearly all there is.
    let spent = play(800, |n| {
        let from = some(n, DAY as u64 / 2);
        (from, from + DAY / 2 - 1)
    });
    assert!(spent.times() <= 12.0, "{spent:?}");
    assert!(spent.waiting <= spent.appended / 6, "{spent:?}");
    // Each touches little, but may do so anywhere.
    let spent = play(800, |n| {
        let from = some(n, DAY as u64 - 10);
        (from, from + 10)
    });
    assert!(spent.times() <= 12.0, "{spent:?}");
    assert!(spent.waiting <= spent.appended / 4, "{spent:?}");
}

#[test]
fn some_late_rows_among_others_cost_little() {
    // One in twenty sections comes hours late.
    let spent = play(800, |n| {
        let from = n as i64 * 100;
        match n % 20 {
            19 => {
                let from = some(n, (from as u64).max(1));
                (from, from + 50)
            }
            _ => (from, from + 99),
        }
    });
    assert!(spent.times() <= 4.0, "{spent:?}");
    assert!(spent.waiting <= spent.appended / 8, "{spent:?}");
}
