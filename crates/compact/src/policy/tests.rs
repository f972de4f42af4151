//! The policy as tables: what lies there, what is asked, what is done.

mod cost;
mod keyed;
mod mutations;

use arrow_schema::{DataType, TimeUnit};
use tandem_format::{
    CommitHeader, DataFile, FileName, ObjectName, Replace, SectionKey, SectionPart, encode_header,
};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Manifest, Rebased, SchemaPolicy, SectionDraft, Step,
    TableSpec, rebase,
};
use tandem_types::{CommitId, DatabaseId, Partition, Seq, TableId, TableName, WriterId};

use super::{Job, Policy, Urgency, next_jobs};

const TARGET: u64 = 1 << 20;

fn object(random: u64) -> ObjectName {
    ObjectName { base: Seq(0), writer: WriterId(1), random }
}

/// A table, grown commit by commit; and how many files it was given.
struct Grown(Manifest, u64);

impl Grown {
    fn new() -> Self {
        Self(Manifest::empty(DatabaseId(1)), 0)
    }

    fn commit(mut self, step: Step) -> Self {
        let state = &self.0;
        let intent =
            Intent { token: None, digest: Vec::new(), epoch: None, base: state.seq(), steps: vec![step] };
        let rebased = rebase(&intent, state, state.seq().next(), 0).unwrap();
        let Rebased::Commit { transaction, .. } = rebased else { panic!("{rebased:?}") };
        let header = CommitHeader {
            seq: state.seq().next(),
            commit_id: CommitId(1),
            writer: WriterId(1),
            database: DatabaseId(1),
            previous: state.header_hash(),
            commit_time: state.commit_time() + 1,
            raw_clock: 0,
            transactions: vec![transaction],
        };
        let hash = encode_header(&header).unwrap().hash;
        self.0 = state.apply(&header, hash).unwrap().manifest;
        self
    }

    /// One section with so many bytes, and rows by partition.
    fn section(self, bytes: u64, partitions: &[(i64, u64)]) -> Self {
        let column = ColumnSpec {
            name: "ts".to_owned(),
            data_type: DataType::Timestamp(TimeUnit::Second, None),
            nullable: false,
        };
        let options = vec![("target_file_size".to_owned(), TARGET.to_string())];
        let spec = TableSpec { columns: vec![column.clone()], options, ..TableSpec::default() };
        let draft = SectionDraft {
            segment: None,
            offset: 0,
            len: bytes,
            crc32c: 0,
            rows: partitions.iter().map(|(_, rows)| rows).sum(),
            time: Some((0, 0)),
            partitions: partitions.iter().map(|(p, rows)| (Partition(*p), *rows)).collect(),
            null_counts: vec![0],
        };
        self.commit(Step::Append(AppendIntent {
            name: TableName::public("t"),
            target: AppendTarget::New(spec),
            policy: SchemaPolicy::Create,
            on_conflict: None,
            fields: vec![column],
            sections: vec![draft],
        }))
    }

    /// A file of so many bytes in a partition, made of a section; files are named by number, from 1.
    fn file(self, partition: i64, size: u64, level: u32) -> Self {
        self.file_of(1, partition, size, level)
    }

    fn file_of(self, rows: u64, partition: i64, size: u64, level: u32) -> Self {
        let mut grown = self.section(1, &[(partition, rows)]);
        grown.1 += 1;
        let file = DataFile {
            name: name(partition, grown.1),
            rows,
            size,
            body_end: size,
            tail_crc32c: 0,
            time: None,
            folded_through: Seq(0),
            level,
        };
        let base = grown.0.seq();
        let parts = vec![part(base.0, partition)];
        let replace = Replace { table: TableId(1), base, files: vec![], parts, outputs: vec![file] };
        grown.commit(Step::Replace(replace))
    }

    fn jobs(&self, policy: &Policy, urgency: Urgency) -> Vec<Job> {
        next_jobs(self.0.table(TableId(1)).unwrap(), policy, urgency)
    }

    /// The first of them.
    fn job(&self, policy: &Policy, urgency: Urgency) -> Option<Job> {
        self.jobs(policy, urgency).into_iter().next()
    }
}

fn name(partition: i64, random: u64) -> FileName {
    FileName { partition: Partition(partition), object: object(random) }
}

fn part(seq: u64, partition: i64) -> SectionPart {
    let section = SectionKey { seq: Seq(seq), transaction: 0, section: 0 };
    SectionPart { section, partition: Partition(partition) }
}

fn policy() -> Policy {
    Policy {
        tail_rows: 100,
        tail_bytes: 1000,
        tail_sections: 4,
        fan_in: 3,
        job_bytes: 2500,
        job_sections: 100,
        full_rows: 1000,
        mutations: 2,
        fold_bytes: 2000,
        late_share: 8,
    }
}

const ALL: Urgency = Urgency::Everything(Seq(u64::MAX));

#[test]
fn a_tail_is_compacted_once_it_pays() {
    let cases: [(&str, Grown, Option<Vec<SectionPart>>); 7] = [
        ("little", Grown::new().section(100, &[(1, 10)]), None),
        ("rows", Grown::new().section(100, &[(1, 100)]), Some(vec![part(1, 1)])),
        ("bytes", Grown::new().section(1000, &[(1, 10)]), Some(vec![part(1, 1)])),
        (
            "sections",
            Grown::new()
                .section(1, &[(1, 1)])
                .section(1, &[(1, 1)])
                .section(1, &[(1, 1)])
                .section(1, &[(1, 1)]),
            Some(vec![part(1, 1), part(2, 1), part(3, 1), part(4, 1)]),
        ),
        // Bytes count for a partition in proportion to its rows.
        ("spread", Grown::new().section(1500, &[(1, 50), (2, 50)]), None),
        ("one of two", Grown::new().section(1500, &[(1, 20), (2, 80)]), Some(vec![part(1, 2)])),
        (
            "the larger first",
            Grown::new().section(1100, &[(5, 1)]).section(1200, &[(4, 1)]),
            Some(vec![part(2, 4)]),
        ),
    ];
    for (what, grown, expected) in cases {
        let job = grown.job(&policy(), Urgency::Usual);
        assert_eq!(job.as_ref().map(|j| j.parts.clone()), expected, "{what}");
        if let Some(job) = job {
            assert!(job.files.is_empty() && job.level == 0 && job.target_bytes == TARGET, "{what}: {job:?}");
        }
    }
}

#[test]
fn a_job_is_bounded_and_begins_with_the_oldest() {
    let grown = (0..5).fold(Grown::new(), |g, _| g.section(1000, &[(1, 10)]));
    let job = grown.job(&policy(), Urgency::Usual).unwrap();
    assert_eq!(job.parts, [part(1, 1), part(2, 1)]);
    // One that is larger than a job goes alone.
    let grown = Grown::new().section(9000, &[(1, 10)]).section(1, &[(1, 10)]);
    assert_eq!(grown.job(&policy(), Urgency::Usual).unwrap().parts, [part(1, 1)]);
}

#[test]
fn a_long_tail_of_small_sections_is_taken_a_piece_at_a_time() {
    let policy = Policy { job_sections: 6, ..policy() };
    let long = (0..9).fold(Grown::new(), |g, _| g.section(1, &[(1, 1)]));
    let parts = |grown: &Grown, urgency| -> Vec<Vec<SectionPart>> {
        grown.jobs(&policy, urgency).into_iter().map(|job| job.parts).collect()
    };
    let oldest: Vec<SectionPart> = (1..=6).map(|seq| part(seq, 1)).collect();
    assert_eq!(parts(&long, Urgency::Usual), std::slice::from_ref(&oldest));
    assert_eq!(parts(&long, ALL), [oldest]);
    // A section of many partitions is read once for all of them.
    let spread = (0..5).fold(Grown::new(), |g, _| g.section(2, &[(1, 1), (2, 1), (3, 1)]));
    assert_eq!(parts(&spread, ALL).len(), 3);
    // Two partitions of five sections each are too many for one commit, and neither is cut.
    let apart = (0..10).fold(Grown::new(), |g, n| g.section(1, &[(n % 2, 1)]));
    let taken = parts(&apart, ALL);
    assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), [5]);
}

#[test]
fn jobs_go_together_as_far_as_there_is_room() {
    let spread = Grown::new().section(2000, &[(1, 50), (2, 30), (3, 20)]).section(900, &[(3, 1)]);
    let taken = |policy: &Policy, urgency| -> Vec<Vec<SectionPart>> {
        spread.jobs(policy, urgency).into_iter().map(|job| job.parts).collect()
    };
    // Partition 3 has 1,300 bytes, partition 1 has 1,000 and 2 has 600, for which no room is left: it is not cut.
    assert_eq!(taken(&policy(), ALL), [vec![part(1, 3), part(2, 3)], vec![part(1, 1)]]);
    let tight = Policy { job_bytes: 2_000, ..policy() };
    assert_eq!(taken(&tight, ALL), [vec![part(1, 3), part(2, 3)], vec![part(1, 2)]], "what fits is taken");
    assert_eq!(taken(&policy(), Urgency::Usual), taken(&policy(), ALL));
    let roomy = Policy { job_bytes: 10_000, ..policy() };
    assert_eq!(taken(&roomy, ALL).len(), 3);
    assert_eq!(taken(&roomy, Urgency::Usual).len(), 2, "600 bytes do not pay yet");

    let files = |bytes| {
        let grown = Grown::new().section(1, &[(1, 1)]);
        (0..6).fold(grown, |g, n| g.file(n % 2, bytes, 0)).jobs(&policy(), Urgency::Everything(Seq(0))).len()
    };
    assert_eq!((files(100), files(800)), (2, 1));
}

#[test]
fn everything_means_the_tail_up_to_a_seq() {
    let grown = Grown::new().section(1, &[(1, 1)]).section(1, &[(1, 1)]).section(1, &[(1, 1)]);
    let parts = |urgency| grown.job(&policy(), urgency).map(|j| j.parts);
    assert_eq!(parts(Urgency::Usual), None);
    assert_eq!(parts(Urgency::Everything(Seq(0))), None);
    assert_eq!(parts(Urgency::Everything(Seq(2))), Some(vec![part(1, 1), part(2, 1)]));
    let waited = |tail| Urgency::Waited { tail: Seq(tail), fold: Seq(0) };
    assert_eq!(parts(waited(0)), None);
    assert_eq!(parts(waited(1)), parts(ALL), "what came later goes along");
    assert_eq!(parts(ALL), Some(vec![part(1, 1), part(2, 1), part(3, 1)]));
}

#[test]
fn small_files_of_one_partition_are_merged() {
    let start = || Grown::new().section(1, &[(1, 1)]);
    let small = TARGET / 2 - 1;
    let files = |grown: &Grown, urgency| {
        // No tail, so that files are what is left.
        let job = grown.job(&Policy { tail_sections: 100, ..policy() }, urgency)?;
        assert!(job.parts.is_empty(), "{job:?}");
        Some((job.files, job.level))
    };
    let two = start().file(1, small, 0).file(1, small, 0).file(2, small, 0);
    assert_eq!(files(&two, Urgency::Usual), None, "too few");
    let up_to = Urgency::Everything(Seq(0));
    assert_eq!(files(&two, up_to), Some((vec![name(1, 1), name(1, 2)], 1)));
    assert_eq!(files(&start().file(1, small, 0).file(2, small, 0), up_to), None, "one per partition");

    let three = start().file(1, small, 4).file(1, 9, 0).file(1, small + 1, 0).file(1, 10, 0);
    assert_eq!(
        files(&three, Urgency::Usual),
        Some((vec![name(1, 1), name(1, 2), name(1, 4)], 5)),
        "oldest first"
    );
    let large = start().file(1, small + 1, 0).file(1, small + 1, 0).file(1, small + 1, 0);
    assert_eq!(files(&large, up_to), None, "large enough");
    let full = start().file_of(1000, 1, small, 0).file_of(999, 1, small, 0).file_of(2000, 1, small, 0);
    assert_eq!(files(&full, up_to), None, "rows enough, but for one");
    assert_eq!(files(&full.file(1, 1, 0), up_to), Some((vec![name(1, 2), name(1, 4)], 1)));

    let many = (0..20).fold(start(), |g, _| g.file(1, 10, 0));
    assert_eq!(files(&many, Urgency::Usual).unwrap().0.len(), 6, "twice the fan-in at most");
}

#[test]
fn the_tail_goes_before_the_files() {
    let grown = (0..3).fold(Grown::new().section(2000, &[(9, 1)]), |g, _| g.file(1, 10, 0));
    assert_eq!(grown.job(&policy(), Urgency::Usual).unwrap().partition, Partition(9));
    assert_eq!(grown.job(&policy(), Urgency::Everything(Seq(0))).unwrap().partition, Partition(1));
}
