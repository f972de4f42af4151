//! The specification: the log, one transaction at a time, into plain tables in memory.
//!
//! The manifest's rules are asked which transactions are void, and for nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tandem_format::{CommitHeader, Expr, Mutation, MutationKind, OnDuplicate, Op, Section, segment_path};
use tandem_log::{Log, StoredCommit};
use tandem_manifest::{Manifest, Outcome};
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{Column, ColumnId, Error, Partition, PartitionUnit, Result, Seq, TableId, TableName};

use crate::eval::{Row, cast, eval};
use crate::value::{Value, value_at};

/// A table: its rows in the order in which they came, each with a value for every column.
#[derive(Clone, Debug)]
pub struct PlainTable {
    pub name: TableName,
    pub columns: Vec<Column>,
    pub timestamp: Option<ColumnId>,
    pub partition_by: PartitionUnit,
    pub primary_key: Vec<ColumnId>,
    pub options: BTreeMap<String, String>,
    pub rows: Vec<Vec<Value>>,
}

/// All tables at one seq.
pub type Tables = BTreeMap<TableId, Arc<PlainTable>>;

/// Every state that the log has been through so far.
#[derive(Debug)]
pub struct Interpreter {
    /// By seq, from the empty database on.
    states: Vec<(Arc<Manifest>, Tables)>,
    /// Transactions in the log that the rules made void.
    pub void: u64,
}

/// Sections of one commit by their place in it.
type Loaded = Vec<DecodedSection>;

impl Interpreter {
    pub fn new(log: &Log) -> Self {
        let empty = Arc::new(Manifest::empty(log.database()));
        Self { states: vec![(empty, Tables::new())], void: 0 }
    }

    pub fn head(&self) -> Seq {
        Seq(self.states.len() as u64 - 1)
    }

    fn at(&self, seq: Seq) -> Option<&(Arc<Manifest>, Tables)> {
        self.states.get(usize::try_from(seq.0).ok()?)
    }

    pub fn manifest(&self, seq: Seq) -> Option<&Arc<Manifest>> {
        self.at(seq).map(|(manifest, _)| manifest)
    }

    pub fn tables(&self, seq: Seq) -> Option<&Tables> {
        self.at(seq).map(|(_, tables)| tables)
    }

    /// Reads what was committed since, up to the end of the log.
    pub async fn catch_up(&mut self, log: &Log) -> Result<()> {
        while let Some(stored) = log.read_stored(self.head().next()).await? {
            let loaded = load(log, &stored).await?;
            let header = &stored.commit.header;
            let (manifest, mut tables) = self.states.last().cloned().ok_or_else(|| wrong("no state"))?;
            let applied = manifest.apply(header, stored.commit.hash)?;
            let mut sections = loaded.as_slice();
            for (transaction, outcome) in header.transactions.iter().zip(&applied.outcomes) {
                let count = transaction.ops.iter().map(|op| op.sections().len()).sum();
                let (own, rest) = sections.split_at(count);
                sections = rest;
                match outcome {
                    Outcome::Applied { .. } => {
                        let mut own = own.iter();
                        for op in &transaction.ops {
                            self.apply(&mut tables, header, op, &mut own)
                                .map_err(|e| e.context(format!("commit {}, {op:?}", header.seq)))?;
                        }
                    }
                    Outcome::Duplicate { .. } => {}
                    Outcome::Void(_) => self.void += 1,
                }
            }
            self.states.push((Arc::new(applied.manifest), tables));
        }
        Ok(())
    }

    fn apply<'a>(
        &self,
        tables: &mut Tables,
        header: &CommitHeader,
        op: &Op,
        sections: &mut impl Iterator<Item = &'a DecodedSection>,
    ) -> Result<()> {
        match op {
            Op::CreateTable(new) => {
                let table = PlainTable {
                    name: new.name.clone(),
                    columns: new.def.schema.columns.clone(),
                    timestamp: new.def.timestamp,
                    partition_by: new.def.partition_by,
                    primary_key: new.def.primary_key.clone(),
                    options: new.def.options.iter().cloned().collect(),
                    rows: Vec::new(),
                };
                tables.insert(new.table, Arc::new(table));
            }
            Op::DropTable { table } => {
                tables.remove(table);
            }
            Op::RenameTable { table, to } => known(tables, *table)?.name = to.clone(),
            Op::AddColumn { table, column } => {
                let table = known(tables, *table)?;
                table.columns.push(column.clone());
                table.rows.iter_mut().for_each(|row| row.push(Value::Null));
            }
            Op::DropColumn { table, column } => {
                let table = known(tables, *table)?;
                let at = table.position(*column)?;
                table.columns.remove(at);
                table.rows.iter_mut().for_each(|row| drop(row.remove(at)));
            }
            Op::RenameColumn { table, column, to } => {
                let table = known(tables, *table)?;
                let at = table.position(*column)?;
                table.columns[at].name = to.clone();
            }
            Op::WidenColumn { table, column, to } => {
                let table = known(tables, *table)?;
                let at = table.position(*column)?;
                let from = std::mem::replace(&mut table.columns[at].data_type, to.clone());
                for row in &mut table.rows {
                    row[at] = cast(row[at].clone(), &from, to)?;
                }
            }
            Op::DropNotNull { table, column } => {
                let table = known(tables, *table)?;
                let at = table.position(*column)?;
                table.columns[at].nullable = true;
            }
            Op::SetOptions { table, options } => {
                let table = known(tables, *table)?;
                for (key, value) in options {
                    match value {
                        Some(value) => table.options.insert(key.clone(), value.clone()),
                        None => table.options.remove(key),
                    };
                }
            }
            Op::Truncate { table } => known(tables, *table)?.rows.clear(),
            Op::DropPartitions { table, partitions } => {
                let table = known(tables, *table)?;
                let mut kept = Vec::new();
                for row in std::mem::take(&mut table.rows) {
                    if !partitions.contains(&table.partition_of(&row)?) {
                        kept.push(row);
                    }
                }
                table.rows = kept;
            }
            Op::Append { table, sections: listed } => {
                let table = known(tables, *table)?;
                for section in listed {
                    table.append(section, sections.next().ok_or_else(|| wrong("a section is missing"))?)?;
                }
            }
            Op::Mutate(mutation) => {
                let section = match mutation.section() {
                    Some(_) => Some(sections.next().ok_or_else(|| wrong("a section is missing"))?),
                    None => None,
                };
                known(tables, mutation.table)?.mutate(mutation, section, header.commit_time)?;
            }
            Op::RestoreTable(image) => {
                let at = |seq: Seq| self.tables(seq).and_then(|tables| tables.get(&image.state.table));
                // An UNDROP brings back what was there within the commit that dropped it: before it, as far as a commit
                // of one statement goes.
                let then = at(image.as_of).or_else(|| at(Seq(image.as_of.0.saturating_sub(1))));
                let mut then = then.ok_or_else(|| wrong("a table is restored that was not there"))?.clone();
                Arc::make_mut(&mut then).name = image.state.name.clone();
                tables.insert(image.state.table, then);
            }
            // These change no row.
            Op::Replace(_)
            | Op::CreateSchema { .. }
            | Op::DropSchema { .. }
            | Op::SetSettings { .. }
            | Op::Checkpoint { .. }
            | Op::Promote { .. }
            | Op::Lease { .. }
            | Op::Horizon { .. }
            | Op::Pin(_)
            | Op::Unpin { .. } => {}
        }
        Ok(())
    }
}

fn wrong(what: &str) -> Error {
    Error::internal(what)
}

fn known(tables: &mut Tables, id: TableId) -> Result<&mut PlainTable> {
    tables.get_mut(&id).map(Arc::make_mut).ok_or_else(|| wrong("a change of a table that is not there"))
}

/// All sections of a commit, from wherever they are.
async fn load(log: &Log, stored: &StoredCommit) -> Result<Loaded> {
    let header = &stored.commit.header;
    let mut payload: Option<Bytes> = stored.payload.clone();
    let mut loaded = Vec::new();
    for section in header.sections() {
        let range = section.offset..section.offset + section.len;
        let bytes = match (&section.segment, &payload) {
            (Some(segment), _) => log.env().store.get_range(&segment_path(segment), range).await?,
            (None, Some(payload)) => payload.slice(range.start as usize..range.end as usize),
            (None, None) => {
                let read = log.read_payload(header.seq).await?.0;
                payload.insert(read).slice(range.start as usize..range.end as usize)
            }
        };
        loaded.push(decode_section(&bytes, Some(section.crc32c), &Limits::default())?);
    }
    Ok(loaded)
}

/// A row of a table, as an expression sees it.
struct Seen<'a> {
    columns: &'a [Column],
    row: &'a [Value],
    now: i64,
}

impl Row for Seen<'_> {
    fn column(&self, id: ColumnId) -> Option<(arrow_schema::DataType, Value)> {
        let at = self.columns.iter().position(|c| c.id == id)?;
        Some((self.columns[at].data_type.clone(), self.row.get(at)?.clone()))
    }

    fn now(&self) -> i64 {
        self.now
    }
}

impl PlainTable {
    fn position(&self, id: ColumnId) -> Result<usize> {
        self.columns.iter().position(|c| c.id == id).ok_or_else(|| wrong("a column that is not there"))
    }

    pub fn partition_of(&self, row: &[Value]) -> Result<Partition> {
        let Some(timestamp) = self.timestamp else { return Ok(Partition(0)) };
        let at = self.position(timestamp)?;
        match (&row[at], &self.columns[at].data_type) {
            (Value::Int(ticks), arrow_schema::DataType::Timestamp(unit, _)) => {
                let ticks = i64::try_from(*ticks).map_err(|_| wrong("a time beyond its type"))?;
                Ok(self.partition_by.partition(ticks, *unit))
            }
            _ => Err(wrong("a designated timestamp that is none")),
        }
    }

    fn append(&mut self, section: &Section, rows: &DecodedSection) -> Result<()> {
        if self.primary_key.is_empty() != (section.on_duplicate == OnDuplicate::Keep) {
            return Err(wrong(
                "rows of a table with a key do not say what they do on an equal one, or others do",
            ));
        }
        let places: Vec<usize> =
            section.columns.iter().map(|id| self.position(*id)).collect::<Result<_>>()?;
        for batch in &rows.batches {
            for row in 0..batch.num_rows() {
                let mut new = vec![Value::Null; self.columns.len()];
                for (column, at) in batch.columns().iter().zip(&places) {
                    let value = value_at(column, row)?;
                    new[*at] = cast(value, column.data_type(), &self.columns[*at].data_type)?;
                }
                self.insert(&section.on_duplicate, new)?;
            }
        }
        Ok(())
    }

    /// Leaves the rows for which the condition is true.
    pub fn keep(&mut self, condition: &Expr) -> Result<()> {
        let mut kept = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            if eval(condition, &Seen { columns: &self.columns, row: &row, now: 0 })?.1 == Value::Bool(true) {
                kept.push(row);
            }
        }
        self.rows = kept;
        Ok(())
    }

    /// Adds a row, or does to the one of equal key what is said.
    pub fn insert(&mut self, on_duplicate: &OnDuplicate, new: Vec<Value>) -> Result<()> {
        let key: Vec<usize> = self.primary_key.iter().map(|id| self.position(*id)).collect::<Result<_>>()?;
        let equal = |old: &&mut Vec<Value>| key.iter().all(|at| old[*at] == new[*at]);
        let old = if key.is_empty() { None } else { self.rows.iter_mut().find(equal) };
        let Some(old) = old else {
            self.rows.push(new);
            return Ok(());
        };
        match on_duplicate {
            OnDuplicate::Keep => return Err(wrong("a second row of equal key")),
            OnDuplicate::Ignore => {}
            OnDuplicate::Replace => *old = new,
            OnDuplicate::Merge => {
                for (old, new) in old.iter_mut().zip(new) {
                    if !new.is_null() {
                        *old = new;
                    }
                }
            }
            OnDuplicate::Update(columns) => {
                for (at, value) in new.into_iter().enumerate() {
                    if columns.contains(&self.columns[at].id) {
                        old[at] = value;
                    }
                }
            }
        }
        Ok(())
    }

    /// Does to all rows what the mutation says; `section` is its own, `now` its commit's time.
    pub fn mutate(&mut self, mutation: &Mutation, section: Option<&DecodedSection>, now: i64) -> Result<()> {
        let mut kept = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            let seen = Seen { columns: &self.columns, row: &row, now };
            match &mutation.kind {
                MutationKind::Delete { predicate } => {
                    if eval(predicate, &seen)?.1 != Value::Bool(true) {
                        kept.push(row);
                    }
                }
                MutationKind::Update { predicate, assignments } => {
                    let mut new = row.clone();
                    if eval(predicate, &seen)?.1 == Value::Bool(true) {
                        for (id, expr) in assignments {
                            let (data_type, value) = eval(expr, &seen)?;
                            self.assign(&mut new, *id, value, &data_type)?;
                        }
                    }
                    kept.push(new);
                }
                MutationKind::Lookup { keys, delete, section: listed } => {
                    let section = section.ok_or_else(|| wrong("a section is missing"))?;
                    match self.look_up(&row, *keys as usize, listed, section)? {
                        None => kept.push(row),
                        Some(_) if *delete => {}
                        Some(values) => {
                            let mut new = row.clone();
                            for (id, (data_type, value)) in
                                listed.columns.iter().skip(*keys as usize).zip(values)
                            {
                                self.assign(&mut new, *id, value, &data_type)?;
                            }
                            kept.push(new);
                        }
                    }
                }
            }
        }
        self.rows = kept;
        Ok(())
    }

    /// A null for a column that must not be null leaves what is there.
    fn assign(
        &self,
        row: &mut [Value],
        id: ColumnId,
        value: Value,
        of: &arrow_schema::DataType,
    ) -> Result<()> {
        let at = self.position(id)?;
        let value = cast(value, of, &self.columns[at].data_type)?;
        if !value.is_null() || self.columns[at].nullable {
            row[at] = value;
        }
        Ok(())
    }

    /// What follows the keys, in the row of the section whose keys are those of `row`.
    fn look_up(
        &self,
        row: &[Value],
        keys: usize,
        listed: &Section,
        section: &DecodedSection,
    ) -> Result<Option<Vec<(arrow_schema::DataType, Value)>>> {
        for batch in &section.batches {
            for at in 0..batch.num_rows() {
                let mut equal = true;
                for (column, id) in batch.columns().iter().zip(&listed.columns).take(keys) {
                    let place = self.position(*id)?;
                    let sought =
                        cast(value_at(column, at)?, column.data_type(), &self.columns[place].data_type)?;
                    equal &= sought == row[place];
                }
                if equal {
                    let rest = batch.columns().iter().skip(keys);
                    let values = rest.map(|c| Ok((c.data_type().clone(), value_at(c, at)?)));
                    return values.collect::<Result<_>>().map(Some);
                }
            }
        }
        Ok(None)
    }
}
