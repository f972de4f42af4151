//! The rules, tried out: a log in memory, as several writers would make it.

mod changes;
mod checkpoints;
mod definitions;
mod epochs;
mod foreign;
mod model;
mod races;
mod tokens;
mod totality;

use arrow_schema::{DataType, TimeUnit};
use tandem_format::{
    CommitHeader, ForeignToken, HeaderHash, ObjectName, ProducerId, Token, Transaction, TransactionToken,
    decode_commit, encode_header,
};
use tandem_types::{CommitId, DatabaseId, Error, Partition, Seq, TableName, WriterId};

use crate::*;

const TS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// What became of an intent.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Stands { rows: u64 },
    NoOp,
    Duplicate { seq: Seq, rows: u64 },
    Refused(Error),
    Recast(Error),
}

impl Fate {
    fn stands(&self) -> bool {
        matches!(self, Self::Stands { .. })
    }
}

/// A log in memory, with every state that it went through.
struct Log {
    states: Vec<Manifest>,
    headers: Vec<(CommitHeader, HeaderHash)>,
    /// What the writers' clocks say, in microseconds.
    clock: i64,
}

impl Log {
    fn new() -> Self {
        Self { states: vec![Manifest::empty(DatabaseId(7))], headers: Vec::new(), clock: 5_000_000 }
    }

    fn head(&self) -> &Manifest {
        self.states.last().unwrap()
    }

    /// An intent formed on the head.
    fn intent(&self, steps: Vec<Step>) -> Intent {
        Intent { token: None, digest: Vec::new(), epoch: None, base: self.head().seq(), steps }
    }

    fn run(&mut self, steps: Vec<Step>) -> Fate {
        let intent = self.intent(steps);
        self.commit(&[intent]).remove(0)
    }

    /// As [`Log::run`], where nothing else is expected than that it stands.
    fn must(&mut self, steps: Vec<Step>) {
        let fate = self.run(steps);
        assert!(fate.stands(), "{fate:?}");
    }

    /// Rebases the group on the head, commits what is left of it, and learns of it as any node does: from bytes.
    fn commit(&mut self, group: &[Intent]) -> Vec<Fate> {
        let head = self.head().clone();
        let at = head.seq().next();
        // A commit's clock moves the age before its transactions are applied, and so what tokens are stamped with.
        let commit_time = head.commit_time() + 1;
        let mut draft = Manifest { age: head.age_after(self.clock), commit_time, ..head.clone() };
        let mut transactions = Vec::new();
        let mut fates = Vec::new();
        for intent in group {
            let index = u32::try_from(transactions.len()).unwrap();
            fates.push(match rebase(intent, &draft, at, index) {
                Ok(Rebased::Commit { transaction, state }) => {
                    transactions.push(transaction);
                    draft = *state;
                    None
                }
                Ok(Rebased::NoOp) => Some(Fate::NoOp),
                Ok(Rebased::Duplicate { seq, rows }) => Some(Fate::Duplicate { seq, rows }),
                Err(Rejection::Refused(error)) => Some(Fate::Refused(error)),
                Err(Rejection::Recast(error)) => Some(Fate::Recast(error)),
            });
        }
        let mut outcomes = Vec::new();
        if !transactions.is_empty() {
            let (header, hash) = seal_at(&head, transactions, self.clock);
            let applied = head.apply(&header, hash).unwrap();
            assert_eq!(applied.manifest.digest, draft.digest, "what was drafted is what is applied");
            outcomes = applied.outcomes;
            self.states.push(applied.manifest);
            self.headers.push((header, hash));
        }
        let mut outcomes = outcomes.into_iter();
        let fates = fates.into_iter().map(|fate| {
            fate.unwrap_or_else(|| match outcomes.next() {
                Some(Outcome::Applied { rows }) => Fate::Stands { rows },
                other => panic!("rebased on the head, and yet {other:?}"),
            })
        });
        fates.collect()
    }
}

fn seal(head: &Manifest, transactions: Vec<Transaction>) -> (CommitHeader, HeaderHash) {
    seal_at(head, transactions, 5_000_000)
}

/// The next commit, after a journey through bytes.
fn seal_at(head: &Manifest, transactions: Vec<Transaction>, raw_clock: i64) -> (CommitHeader, HeaderHash) {
    let header = CommitHeader {
        seq: head.seq().next(),
        commit_id: CommitId(1),
        writer: WriterId(1),
        database: head.database(),
        previous: head.header_hash(),
        commit_time: head.commit_time() + 1,
        raw_clock,
        transactions,
    };
    let encoded = encode_header(&header).unwrap();
    let decoded = decode_commit(&encoded.bytes).unwrap();
    assert_eq!((&decoded.header, decoded.hash), (&header, encoded.hash));
    (header, encoded.hash)
}

fn name(table: &str) -> TableName {
    TableName::public(table)
}

fn col(name: &str, data_type: DataType) -> ColumnSpec {
    ColumnSpec { name: name.to_owned(), data_type, nullable: true }
}

fn spec(columns: &[(&str, DataType)]) -> TableSpec {
    TableSpec { columns: columns.iter().map(|(n, t)| col(n, t.clone())).collect(), ..TableSpec::default() }
}

fn create(table: &str, columns: &[(&str, DataType)]) -> Step {
    Step::CreateTable { name: name(table), spec: spec(columns), if_not_exists: false, replace: false }
}

fn alter(table: &str, change: Change) -> Step {
    Step::AlterTable { name: name(table), change }
}

fn add(table: &str, column: &str, data_type: DataType) -> Step {
    alter(table, Change::AddColumn { column: col(column, data_type), if_not_exists: false })
}

fn object(base: Seq, random: u64) -> ObjectName {
    ObjectName { base, writer: WriterId(1), random }
}

/// A section with so many rows per partition, none of them null.
fn section(fields: usize, partitions: &[(i64, u64)], segment: Option<ObjectName>) -> SectionDraft {
    let rows = partitions.iter().map(|(_, rows)| rows).sum();
    SectionDraft {
        segment,
        offset: 0,
        len: 100 + rows * 8,
        crc32c: 1,
        rows,
        time: Some((0, 10)),
        partitions: partitions.iter().map(|(p, rows)| (Partition(*p), *rows)).collect(),
        null_counts: vec![0; fields],
    }
}

/// An append prepared on `state`.
fn append_on(
    state: &Manifest,
    table: &str,
    policy: SchemaPolicy,
    fields: &[(&str, DataType)],
    sections: Vec<SectionDraft>,
) -> Step {
    let fields: Vec<ColumnSpec> = fields.iter().map(|(n, t)| col(n, t.clone())).collect();
    let target = match state.table_named(&name(table)) {
        Some(t) => AppendTarget::Existing { table: t.id(), schema_id: t.schema_id() },
        None => AppendTarget::New(TableSpec { columns: fields.clone(), ..TableSpec::default() }),
    };
    Step::Append(AppendIntent { name: name(table), target, policy, fields, sections, on_conflict: None })
}

fn token(producer: u128, counter: u64, low: u64, base: u64) -> Option<TransactionToken> {
    Some(Token { producer: ProducerId(producer), counter, low, base: Seq(base) }.into())
}

fn foreign(text: &str, base: Option<u64>) -> Option<TransactionToken> {
    Some(ForeignToken { text: text.to_owned(), base: base.map(Seq) }.into())
}
