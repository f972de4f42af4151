//! Mutations that wait for files.

use tandem_format::{Expr, Literal};
use tandem_manifest::{MutateDraft, MutateIntent, MutateTarget};

use super::*;

/// Rows before some second are deleted.
fn delete(grown: Grown, time: Option<(i64, i64)>) -> Grown {
    // The policy looks at no predicate.
    let draft = MutateDraft::Delete { predicate: Expr::Literal(Literal { ipc: Vec::new() }) };
    grown.commit(Step::Mutate(MutateIntent {
        name: TableName::public("t"),
        target: MutateTarget::Existing(TableId(1)),
        draft,
        time,
        statement: "DELETE".to_owned(),
    }))
}

/// A file that is large enough to be left alone, with rows from second 0 to 9.
fn large(grown: Grown, partition: i64, size: u64) -> Grown {
    let mut grown = grown.section(1, &[(partition, 1)]);
    grown.1 += 1;
    let base = grown.0.seq();
    let file = DataFile {
        name: name(partition, grown.1),
        rows: 5000,
        size,
        body_end: size,
        tail_crc32c: 0,
        time: Some((0, 9)),
        folded_through: base,
        level: 3,
    };
    let parts = vec![part(base.0, partition)];
    grown.commit(Step::Replace(Replace {
        table: TableId(1),
        base,
        files: vec![],
        parts,
        outputs: vec![file],
    }))
}

fn folded(grown: &Grown, urgency: Urgency) -> Vec<(Partition, Vec<u64>)> {
    let jobs = grown.jobs(&policy(), urgency);
    assert!(jobs.iter().all(|job| job.parts.is_empty() && job.level == 4), "{jobs:?}");
    jobs.iter().map(|job| (job.partition, job.files.iter().map(|f| f.object.random).collect())).collect()
}

fn waited(fold: u64) -> Urgency {
    Urgency::Waited { tail: Seq(0), fold: Seq(fold) }
}

#[test]
fn files_are_rewritten_once_enough_waits_for_them() {
    let one = delete(large(Grown::new(), 1, 100), None);
    assert_eq!(folded(&one, Urgency::Usual), []);
    assert_eq!(folded(&one, waited(2)), [], "it has not waited yet");
    assert_eq!(folded(&one, waited(3)), [(Partition(1), vec![1])]);
    assert_eq!(folded(&one, ALL), [(Partition(1), vec![1])]);
    assert_eq!(folded(&delete(one, None), Urgency::Usual), [(Partition(1), vec![1])]);
    // It cannot touch the file's rows.
    let elsewhere = delete(delete(large(Grown::new(), 1, 100), Some((10, 20))), Some((10, 20)));
    assert_eq!(folded(&elsewhere, ALL), []);
    assert_eq!(elsewhere.0.table(TableId(1)).unwrap().mutations().count(), 0, "and nothing waits for it");
}

#[test]
fn the_most_burdened_files_go_first_as_far_as_there_is_room() {
    let grown = delete(delete(large(Grown::new(), 1, 900), Some((0, 3))), None);
    let grown = delete(large(large(grown, 2, 1500), 1, 900), None);
    let grown = delete(delete(grown, None), Some((5, 5)));
    // Five wait for the first, three for each of the others.
    assert_eq!(
        folded(&grown, Urgency::Usual),
        [(Partition(1), vec![1, 3])],
        "2,000 bytes are enough for two"
    );
    let roomy = Policy { fold_bytes: 1 << 20, ..policy() };
    let jobs = grown.jobs(&roomy, Urgency::Usual);
    assert_eq!(jobs.iter().map(|job| job.files.len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_busy_tail_does_not_keep_files_from_being_folded() {
    let grown =
        delete(delete(large(large(Grown::new(), 1, 100), 2, 100), None), None).section(2000, &[(5, 1)]);
    let jobs = grown.jobs(&policy(), Urgency::Usual);
    let shape: Vec<(usize, usize)> = jobs.iter().map(|job| (job.parts.len(), job.files.len())).collect();
    assert_eq!(shape, [(1, 0), (0, 1)], "one file goes along");
}
