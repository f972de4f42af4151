//! Databases that no server wrote: their states are made as every state is, by commits, but in memory, and of data files
//! that nobody opens, so that they need not exist.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_schema::{DataType, TimeUnit};
use tandem_format::{
    CommitHeader, DataFile, EncodedHeader, FileName, ForeignToken, Identity, ObjectName, Replace, SectionKey,
    SectionPart, Transaction, TransactionToken, commit_path, encode_header, encode_identity, encode_part,
    encode_root, identity_path, part_path, root_path,
};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Manifest, Outcome, Rebased, SchemaPolicy, SectionDraft,
    Step, TableSpec, rebase,
};
use tandem_types::{CommitId, DatabaseId, Error, Partition, PartitionUnit, Result, TableName, WriterId};

use crate::server::io_error;

/// The table: `ts`, `host` and `v`, partitioned by day.
pub const TABLE: &str = "t";

const DAY_MICROS: i64 = 86_400_000_000;
/// Of a commit. Nothing reads them.
const ROWS: u64 = 1_000;
/// So large that compaction leaves the files alone.
const FILE_BYTES: u64 = 128 << 20;
/// Between two commits.
const PACE_MICROS: i64 = 10_000;

/// What a state has behind it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// At least two of each day: one that appends, and one that puts files in the place of what was appended.
    pub commits: usize,
    pub files: usize,
    /// From 1970-01-01 on.
    pub days: usize,
    /// Whether each append has a token, as a client gives it, which the state then remembers.
    pub tokens: bool,
}

/// A state, and the commit that led to it.
pub struct Made {
    pub state: Manifest,
    pub last: EncodedHeader,
}

impl Shape {
    /// Makes the state. Its last commit is of about now.
    pub fn make(self) -> Result<Made> {
        let days = self.days.max(1);
        let empty = Manifest::empty(DatabaseId(1));
        let create = Step::CreateTable {
            name: TableName::public(TABLE),
            spec: TableSpec {
                columns: columns(),
                partition_by: Some(PartitionUnit::Day),
                ..TableSpec::default()
            },
            if_not_exists: false,
            replace: false,
        };
        let lasted = i64::try_from(self.commits).unwrap_or(i64::MAX).saturating_mul(PACE_MICROS);
        let mut made = follow(&empty, bind(&empty, create)?, now().saturating_sub(lasted).max(0))?;
        for day in 0..days {
            let share = |of: usize| of * (day + 1) / days - of * day / days;
            self.make_day(&mut made, day, share(self.commits).saturating_sub(1).max(1), share(self.files))?;
        }
        Ok(made)
    }

    fn make_day(self, made: &mut Made, day: usize, appends: usize, files: usize) -> Result<()> {
        let day = i64::try_from(day).unwrap_or(i64::MAX / DAY_MICROS);
        let partition = Partition(day);
        let template = bind(&made.state, append(&made.state, partition, day * DAY_MICROS)?)?;
        let mut parts = Vec::with_capacity(appends);
        for _ in 0..appends {
            let mut transaction = template.clone();
            let seq = made.state.seq().next();
            if self.tokens {
                let text = format!("{:032x}-{seq}", 1);
                transaction.token = Some(TransactionToken::Foreign(ForeignToken { text, base: None }));
                transaction.digest = seq.0.to_le_bytes().repeat(4);
            }
            *made = follow(&made.state, transaction, made.state.commit_time() + PACE_MICROS)?;
            parts.push(SectionPart { section: SectionKey { seq, transaction: 0, section: 0 }, partition });
        }
        let base = made.state.seq();
        let slice = DAY_MICROS / i64::try_from(files.max(1)).unwrap_or(i64::MAX);
        let outputs = (0..files as i64).map(|place| {
            let start = day * DAY_MICROS + place * slice;
            DataFile {
                name: FileName {
                    partition,
                    object: ObjectName { base, writer: WriterId(1), random: place.unsigned_abs() },
                },
                rows: ROWS * appends as u64 / files.max(1) as u64,
                size: FILE_BYTES,
                body_end: FILE_BYTES,
                tail_crc32c: 0,
                time: Some((start, start + slice - 1)),
                folded_through: base,
                level: 0,
            }
        });
        let table = made.state.require(&TableName::public(TABLE))?.id();
        let replace = Replace { table, base, files: Vec::new(), parts, outputs: outputs.collect() };
        let transaction = bind(&made.state, Step::Replace(replace))?;
        *made = follow(&made.state, transaction, made.state.commit_time() + PACE_MICROS)?;
        Ok(())
    }
}

impl Made {
    /// Writes a store of this state: its checkpoint, and a log of the commit that led to it and the one that records the
    /// checkpoint. What came before is absent, as if it had been trimmed. Returns the checkpoint's bytes.
    pub fn store(&self, dir: &Path) -> Result<u64> {
        let state = &self.state;
        let mut bytes_written = 0;
        let mut put = |path: &str, bytes: &[u8]| {
            bytes_written += bytes.len() as u64;
            write_object(dir, path, bytes)
        };
        let mut refs = Vec::new();
        for entries in state.checkpoint_parts() {
            let (bytes, part) = encode_part(state.seq(), &entries)?;
            put(&part_path(part.base, &part.hash), &bytes)?;
            refs.push(part);
        }
        let (root, root_hash) = encode_root(&state.checkpoint_root(refs))?;
        put(&root_path(state.seq()), &root)?;
        let record =
            bind(state, Step::Checkpoint { seq: state.seq(), root_hash, after: state.checkpoint() })?;
        let recorded = follow(state, record, now())?;
        for (seq, commit) in [(state.seq(), &self.last), (recorded.state.seq(), &recorded.last)] {
            write_object(dir, &commit_path(seq), &commit.bytes)?;
        }
        let identity = encode_identity(&Identity { database: state.database() });
        write_object(dir, identity_path(), &identity)?;
        Ok(bytes_written)
    }
}

fn write_object(dir: &Path, path: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(path);
    let write = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, bytes)
    };
    write().map_err(|e| io_error(&path, &e))
}

fn columns() -> Vec<ColumnSpec> {
    let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: true };
    vec![
        column("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        column("host", DataType::Utf8),
        column("v", DataType::Float64),
    ]
}

/// An append whose rows are said to ride along.
fn append(state: &Manifest, partition: Partition, start: i64) -> Result<Step> {
    let name = TableName::public(TABLE);
    let table = state.require(&name)?;
    let fields = columns();
    let section = SectionDraft {
        segment: None,
        offset: 0,
        len: 64,
        crc32c: 0,
        rows: ROWS,
        time: Some((start, start + DAY_MICROS - 1)),
        partitions: vec![(partition, ROWS)],
        null_counts: vec![0; fields.len()],
    };
    Ok(Step::Append(AppendIntent {
        target: AppendTarget::Existing { table: table.id(), schema_id: table.schema_id() },
        name,
        policy: SchemaPolicy::Strict,
        on_conflict: None,
        fields,
        sections: vec![section],
    }))
}

/// The step as a transaction of the next commit.
fn bind(state: &Manifest, step: Step) -> Result<Transaction> {
    let intent =
        Intent { token: None, digest: Vec::new(), epoch: None, base: state.seq(), steps: vec![step] };
    match rebase(&intent, state, state.seq().next(), 0) {
        Ok(Rebased::Commit { transaction, .. }) => Ok(transaction),
        _ => Err(Error::internal("a step of the bench was not taken")),
    }
}

/// Commits a transaction, at this time or as soon as the log allows.
fn follow(state: &Manifest, transaction: Transaction, time: i64) -> Result<Made> {
    let seq = state.seq().next();
    let header = CommitHeader {
        seq,
        commit_id: CommitId(seq.0.into()),
        writer: WriterId(1),
        database: state.database(),
        previous: state.header_hash(),
        commit_time: time.max(state.commit_time() + 1),
        raw_clock: time,
        transactions: vec![transaction],
    };
    let last = encode_header(&header)?;
    let applied = state.apply(&header, last.hash)?;
    if !matches!(applied.outcomes.as_slice(), [Outcome::Applied { .. }]) {
        return Err(Error::internal(format!("commit {seq} of the bench had no effect")));
    }
    Ok(Made { state: applied.manifest, last })
}

/// Microseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tandem_types::Seq;

    use super::*;

    #[test]
    fn a_state_has_the_commits_files_and_tokens_that_were_asked_for() {
        let shape = Shape { commits: 100, files: 21, days: 4, tokens: true };
        let made = shape.make().unwrap();
        let table = made.state.require(&TableName::public(TABLE)).unwrap();
        assert_eq!((made.state.seq(), table.file_count(), table.tail_sections()), (Seq(101), 21, 0));
        assert_eq!(made.state.tokens().foreign(), 96);
        let bare = Shape { commits: 0, files: 8, days: 4, tokens: false }.make().unwrap();
        assert_eq!((bare.state.seq(), bare.state.tokens().foreign()), (Seq(9), 0));
    }
}
