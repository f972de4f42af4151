//! Keyed tables: closed jobs, and late rows that wait until they are worth it.

use tandem_manifest::OnConflict;

use super::*;

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// A keyed table of one column per key.
pub(super) struct Keyed(pub(super) Grown, &'static [&'static str]);

impl Keyed {
    pub(super) fn new() -> Self {
        Self(Grown::new(), &["ts", "k"])
    }

    fn spec(&self) -> TableSpec {
        let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: false };
        TableSpec {
            columns: vec![
                column("ts", DataType::Timestamp(TimeUnit::Second, None)),
                column("k", DataType::Int64),
            ],
            partition_by: (self.1.len() < 2).then_some(tandem_types::PartitionUnit::None),
            order_by: Some(vec!["k".to_owned(), "ts".to_owned()]),
            primary_key: Some(self.1.iter().map(|name| (*name).to_owned()).collect()),
            options: vec![("target_file_size".to_owned(), TARGET.to_string())],
            ..TableSpec::default()
        }
    }

    /// Rows of one day, from one second to another.
    pub(super) fn rows(self, rows: u64, from: i64, to: i64) -> Self {
        let spec = self.spec();
        let partition = if self.1.len() < 2 { 0 } else { from.div_euclid(DAY) };
        let draft = SectionDraft {
            segment: None,
            offset: 0,
            len: rows,
            crc32c: 0,
            rows,
            time: Some((from, to)),
            partitions: vec![(Partition(partition), rows)],
            null_counts: vec![0, 0],
        };
        let key = self.1;
        let grown = self.0.commit(Step::Append(AppendIntent {
            name: TableName::public("t"),
            fields: spec.columns.clone(),
            target: AppendTarget::New(spec),
            policy: SchemaPolicy::Create,
            sections: vec![draft],
            on_conflict: Some(OnConflict::Replace),
        }));
        Self(grown, key)
    }

    /// Rows in a file of so many bytes, made of a section of their own.
    fn file(self, rows: u64, size: u64, from: i64, to: i64) -> Self {
        let Self(mut grown, key) = self.rows(rows, from, to);
        grown.1 += 1;
        let base = grown.0.seq();
        let partition = if key.len() < 2 { 0 } else { from.div_euclid(DAY) };
        let file = DataFile {
            name: name(partition, grown.1),
            rows,
            size,
            body_end: size,
            tail_crc32c: 0,
            time: Some((from, to)),
            folded_through: base,
            level: 0,
        };
        let parts = vec![part(base.0, partition)];
        let replace = Replace { table: TableId(1), base, files: vec![], parts, outputs: vec![file] };
        Self(grown.commit(Step::Replace(replace)), key)
    }

    fn jobs(&self, urgency: Urgency) -> Vec<Job> {
        let jobs = self.0.jobs(&policy(), urgency);
        // What the manifest will demand of them.
        for job in &jobs {
            let replace = Replace {
                table: TableId(1),
                base: self.0.0.seq(),
                files: job.files.clone(),
                parts: job.parts.clone(),
                outputs: vec![],
            };
            let grown = Grown(self.0.0.clone(), 0);
            grown.commit(Step::Replace(replace));
        }
        jobs
    }

    /// Of the first job: the seqs of its parts and the numbers of its files.
    fn job(&self, urgency: Urgency) -> Option<(Vec<u64>, Vec<u64>)> {
        let job = self.jobs(urgency).into_iter().next()?;
        let parts = job.parts.iter().map(|part| part.section.seq.0).collect();
        Some((parts, job.files.iter().map(|file| file.object.random).collect()))
    }
}

const BIG: u64 = TARGET;

fn waited(tail: u64, fold: u64) -> Urgency {
    Urgency::Waited { tail: Seq(tail), fold: Seq(fold) }
}

#[test]
fn rows_in_the_order_of_time_touch_no_file() {
    let table = Keyed::new().file(100_000, BIG, 0, 999).rows(40, 1000, 1099).rows(40, 1100, 1199);
    assert_eq!(table.job(Urgency::Usual), None, "80 rows do not pay yet");
    let table = table.rows(40, 1200, 1299);
    assert_eq!(table.job(Urgency::Usual), Some((vec![3, 4, 5], vec![])));
    assert_eq!(table.job(waited(3, 0)), Some((vec![3, 4, 5], vec![])));
}

#[test]
fn late_rows_wait_until_they_are_a_fair_share() {
    let table = Keyed::new().file(100_000, BIG, 0, 999).rows(300, 500, 1099);
    assert_eq!(table.job(Urgency::Usual), None, "300 rows are not worth 100,000");
    assert_eq!(table.job(waited(3, 0)), None, "nor if they have waited");
    assert_eq!(table.job(waited(3, 3)), Some((vec![3], vec![1])), "unless they have waited for long");
    assert_eq!(table.job(ALL), Some((vec![3], vec![1])));
    let table = table.rows(12_200, 500, 600);
    assert_eq!(table.job(Urgency::Usual), Some((vec![3, 4], vec![1])));
    // A small file is no reason to wait.
    let table = Keyed::new().file(500, 100, 0, 999).rows(60, 500, 1099).rows(60, 1050, 1200);
    assert_eq!(table.job(Urgency::Usual), Some((vec![3, 4], vec![1])));
}

#[test]
fn late_rows_hold_back_only_what_they_touch() {
    let table =
        Keyed::new().file(100_000, BIG, 0, 999).rows(1, 500, 500).rows(200, 1000, 1099).rows(200, 1100, 1199);
    assert_eq!(table.job(Urgency::Usual), Some((vec![4, 5], vec![])));
    // Rows on both sides of a file that waits: one commit takes one side.
    let table =
        Keyed::new().file(100_000, BIG, 100, 999).rows(1, 500, 500).rows(200, 0, 99).rows(150, 1100, 1199);
    assert_eq!(table.jobs(Urgency::Usual).len(), 1);
    assert_eq!(table.job(Urgency::Usual), Some((vec![4], vec![])));
}

#[test]
fn a_job_takes_all_that_touches_its_times() {
    let table = Keyed::new()
        .file(100, 100, 0, 100)
        .file(100, 100, 300, 400)
        .file(100, 100, 101, 299)
        .rows(1, 50, 50)
        .rows(1, 350, 360)
        .rows(1, 100, 101);
    // The first file and the third are joined by the last rows; the second stands for itself, and goes along.
    assert_eq!(table.job(ALL), Some((vec![7, 8, 9], vec![1, 2, 3])));
    assert_eq!(
        table.job(Urgency::Everything(Seq(7))),
        Some((vec![7, 9], vec![1, 3])),
        "later ones too, if they touch"
    );
}

#[test]
fn a_key_without_time_is_all_or_nothing() {
    let table =
        Keyed(Grown::new(), &["k"]).file(100, 100, 0, 10).rows(1, 500, 600).rows(1, 9_000_000, 9_000_000);
    assert_eq!(table.job(Urgency::Everything(Seq(3))), Some((vec![3, 4], vec![1])));
    assert_eq!(table.jobs(ALL)[0].cuts, [] as [i64; 0]);
}

#[test]
fn more_than_memory_holds_is_read_in_shares() {
    let table = Keyed::new().rows(4000, 0, 10).rows(4000, 5, 20);
    let jobs = table.jobs(Urgency::Usual);
    assert_eq!((jobs.len(), jobs[0].slices), (1, 4), "8,000 bytes in 2,500 each");
    // Without the overlap they are two jobs, one after the other.
    let table = Keyed::new().rows(2400, 0, 10).rows(2400, 11, 20);
    let jobs = table.jobs(Urgency::Usual);
    assert_eq!((jobs.len(), jobs[0].slices, jobs[0].parts.len()), (1, 1, 1));
}

#[test]
fn a_long_tail_is_taken_a_piece_at_a_time_where_it_does_not_touch() {
    let policy = super::Policy { job_sections: 3, ..super::policy() };
    let apart = (0..8).fold(Keyed::new(), |table, n| table.rows(1, n * 10, n * 10 + 5));
    let taken: Vec<usize> = apart.0.jobs(&policy, ALL).iter().map(|job| job.parts.len()).collect();
    assert_eq!(taken, [3]);
    let touching = (0..8).fold(Keyed::new(), |table, n| table.rows(1, n * 10, n * 10 + 15));
    let taken: Vec<usize> = touching.0.jobs(&policy, ALL).iter().map(|job| job.parts.len()).collect();
    assert_eq!(taken, [8], "what touches goes together");
}

#[test]
fn the_newest_rows_are_kept_apart_where_rows_come_late() {
    let steady = Keyed::new().rows(60, 0, 1000).rows(60, 990, 2000).rows(60, 1985, 3000);
    assert_eq!(steady.jobs(Urgency::Usual)[0].cuts, [3000 - 2 * 15]);
    // Rows that are as late as all the time there is cannot be kept apart.
    let wild = Keyed::new().rows(60, 0, 1000).rows(60, 0, 1000);
    assert_eq!(wild.jobs(Urgency::Usual)[0].cuts, [] as [i64; 0]);
    // What becomes many files is cut by time, so that late rows touch some of them.
    let many = Keyed::new().file(100, 8 * TARGET, 0, 3000).rows(120, 0, 3000);
    assert_eq!(many.jobs(Urgency::Usual)[0].cuts, [1000, 2000]);
}

#[test]
fn small_files_side_by_side_are_merged() {
    let files = |sizes: &[u64]| {
        let grow = |table: Keyed, (n, size): (usize, &u64)| {
            table.file(10, *size, n as i64 * 100, n as i64 * 100 + 99)
        };
        sizes.iter().enumerate().fold(Keyed::new(), grow)
    };
    let up_to = Urgency::Everything(Seq(0));
    assert_eq!(files(&[9, 9]).job(Urgency::Usual), None);
    assert_eq!(files(&[9, 9]).job(up_to), Some((vec![], vec![1, 2])));
    assert_eq!(files(&[9, 9, 9]).job(Urgency::Usual), Some((vec![], vec![1, 2, 3])));
    assert_eq!(files(&[9, 9, BIG, 9, 9]).job(up_to), Some((vec![], vec![1, 2])), "a large one parts them");
    assert_eq!(files(&[9, BIG, 9]).job(up_to), None);
    // Rows between them would have to come along, and wait for more.
    let parted = files(&[9, 9, 9, 9]).rows(1, 150, 150);
    assert_eq!(parted.job(Urgency::Usual), None);
    assert_eq!(parted.job(up_to), Some((vec![], vec![3, 4])));
}
