//! A commit's transactions, as far as one table is concerned.

use std::ops::Range;

use tandem_format::{CommitHeader, Op, Transaction};
use tandem_types::TableId;

/// What an operation does to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing that rows or columns show.
    None,
    /// Equal rows in other objects.
    Compaction,
    Append,
    /// Changes rows or columns.
    Change,
    /// Puts something else in its place.
    Whole,
}

fn effect(op: &Op, table: TableId) -> Effect {
    if op.table() != Some(table) {
        return Effect::None;
    }
    match op {
        Op::Append { .. } => Effect::Append,
        Op::Replace(_) => Effect::Compaction,
        Op::CreateTable(_) | Op::DropTable { .. } | Op::RestoreTable(_) => Effect::Whole,
        Op::Truncate { .. }
        | Op::DropPartitions { .. }
        | Op::AddColumn { .. }
        | Op::DropColumn { .. }
        | Op::RenameColumn { .. }
        | Op::WidenColumn { .. }
        | Op::Mutate(_) => Effect::Change,
        Op::RenameTable { .. }
        | Op::DropNotNull { .. }
        | Op::SetOptions { .. }
        | Op::CreateSchema { .. }
        | Op::DropSchema { .. }
        | Op::SetSettings { .. }
        | Op::Checkpoint { .. }
        | Op::Promote { .. }
        | Op::Lease { .. }
        | Op::Horizon { .. }
        | Op::Pin(_)
        | Op::Unpin { .. } => Effect::None,
    }
}

fn effects(transaction: &Transaction, table: TableId) -> impl Iterator<Item = Effect> {
    transaction.ops.iter().map(move |op| effect(op, table)).filter(|effect| *effect != Effect::None)
}

/// Whether a commit may change what queries see of a table.
pub(super) fn concerns(header: &CommitHeader, table: TableId) -> bool {
    let mut all = header.transactions.iter().flat_map(|t| effects(t, table));
    all.any(|effect| effect != Effect::Compaction)
}

/// What a commit is to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has nothing to do with it.
    Nothing,
    /// It appends rows and nothing else. `compacts`: after it, rows of earlier commits may be in data files.
    Appends {
        compacts: bool,
    },
    /// It compacts the table and nothing else.
    Compacts,
    Changes,
}

pub(super) fn kind(header: &CommitHeader, table: TableId) -> Kind {
    let (mut appends, mut compacts) = (false, false);
    for effect in header.transactions.iter().flat_map(|t| effects(t, table)) {
        match effect {
            Effect::Append => appends = true,
            Effect::Compaction => compacts = true,
            Effect::None => {}
            Effect::Change | Effect::Whole => return Kind::Changes,
        }
    }
    match (appends, compacts) {
        (true, compacts) => Kind::Appends { compacts },
        (false, true) => Kind::Compacts,
        (false, false) => Kind::Nothing,
    }
}

/// Transactions of a commit that are told in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) transactions: Range<usize>,
    /// The table becomes another: it is created, dropped or restored.
    pub(super) whole: bool,
    /// Rows may go without a mutation.
    pub(super) removes: bool,
}

/// The parts of a commit that change a table: compactions are told by nobody, and lie between parts.
pub(super) fn parts(header: &CommitHeader, table: TableId) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut open = false;
    for (number, transaction) in header.transactions.iter().enumerate() {
        let all: Vec<Effect> = effects(transaction, table).collect();
        if all.is_empty() {
            continue;
        }
        if all.iter().all(|effect| *effect == Effect::Compaction) {
            open = false;
            continue;
        }
        let whole = all.contains(&Effect::Whole) || all.contains(&Effect::Compaction);
        let removes = transaction.ops.iter().any(|op| match op {
            Op::Truncate { table: of } | Op::DropPartitions { table: of, .. } => *of == table,
            _ => false,
        });
        match parts.last_mut().filter(|_| open && !whole) {
            Some(part) => {
                part.transactions.end = number + 1;
                part.removes |= removes;
            }
            None => parts.push(Part { transactions: number..number + 1, whole, removes }),
        }
        open = !whole;
    }
    parts
}

#[cfg(test)]
mod tests {
    use tandem_format::{Replace, Section, SectionKey, SectionPart};
    use tandem_types::{CommitId, DatabaseId, Partition, Seq, WriterId};

    use super::*;

    const T: TableId = TableId(7);

    fn header(transactions: Vec<Vec<Op>>) -> CommitHeader {
        let transaction = |ops| Transaction { token: None, digest: Vec::new(), epoch: None, ops };
        CommitHeader {
            seq: Seq(9),
            commit_id: CommitId(1),
            writer: WriterId(1),
            database: DatabaseId(1),
            previous: [0; 32],
            commit_time: 0,
            raw_clock: 0,
            transactions: transactions.into_iter().map(transaction).collect(),
        }
    }

    fn append(table: TableId) -> Op {
        Op::Append { table, sections: Vec::<Section>::new() }
    }

    fn compaction() -> Op {
        let section = SectionKey { seq: Seq(1), transaction: 0, section: 0 };
        let parts = vec![SectionPart { section, partition: Partition(0) }];
        Op::Replace(Replace { table: T, base: Seq(1), files: Vec::new(), parts, outputs: Vec::new() })
    }

    #[test]
    fn parts_end_where_a_compaction_stands_and_others_do_not_count() {
        let other = append(TableId(8));
        let commit = header(vec![
            vec![other.clone()],
            vec![append(T)],
            vec![other.clone()],
            vec![append(T), Op::Truncate { table: T }],
            vec![compaction()],
            vec![append(T)],
            vec![Op::DropTable { table: T }],
            vec![append(T)],
        ]);
        let part = |transactions, whole, removes| Part { transactions, whole, removes };
        assert_eq!(
            parts(&commit, T),
            [
                part(1..4, false, true),
                part(5..6, false, false),
                part(6..7, true, false),
                part(7..8, false, false)
            ]
        );
        assert_eq!(kind(&commit, T), Kind::Changes);
        assert!(concerns(&commit, T) && !concerns(&commit, TableId(9)));
    }

    #[test]
    fn a_commit_is_no_more_than_it_does_to_the_table() {
        let of = |ops: Vec<Op>| kind(&header(vec![ops]), T);
        assert_eq!(of(vec![append(TableId(8))]), Kind::Nothing);
        assert_eq!(of(vec![append(T)]), Kind::Appends { compacts: false });
        assert_eq!(of(vec![compaction()]), Kind::Compacts);
        assert_eq!(
            kind(&header(vec![vec![append(T)], vec![compaction()]]), T),
            Kind::Appends { compacts: true }
        );
        assert_eq!(of(vec![append(T), Op::Truncate { table: T }]), Kind::Changes);
        assert_eq!(of(vec![Op::SetOptions { table: T, options: Vec::new() }]), Kind::Nothing);
        assert!(!concerns(&header(vec![vec![compaction()]]), T));
    }
}
