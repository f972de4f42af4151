//! Mutations made ready: constants decoded, types settled, looked-up rows at hand.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use tandem_format::{MutationKey, MutationKind, PendingMutation, Section};
use tandem_types::{ColumnId, Error, Result};

use crate::build::{build, build_predicate};
use crate::key_table::KeyTable;
use crate::needs::{columns_with_types, merge_reads};
use crate::node::Node;
use crate::selection::{Selection, columns_of};

/// A mutation ready to be evaluated. Immutable; worth keeping as long as the mutation is pending.
#[derive(Debug)]
pub struct Bound {
    key: MutationKey,
    time: Option<(i64, i64)>,
    assigned: Vec<ColumnId>,
    reads: Vec<(ColumnId, DataType)>,
    pub(crate) action: Action,
}

/// What it does.
#[derive(Debug)]
pub(crate) enum Action {
    Delete(Selection),
    Update { selection: Selection, values: Vec<Assignment> },
    Lookup(Lookup),
}

/// One column of an UPDATE.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) column: ColumnId,
    pub(crate) value: Node,
    /// The columns that the value reads, ascending.
    pub(crate) reads: Vec<ColumnId>,
}

/// Rows to look up.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) deletes: bool,
    pub(crate) key: Vec<(ColumnId, ArrayRef)>,
    pub(crate) values: Vec<(ColumnId, ArrayRef)>,
    /// Over the key columns.
    pub(crate) table: Arc<KeyTable>,
    /// The row that stands for each number of the table: the last of its key.
    pub(crate) rows: Arc<Vec<u32>>,
}

/// Makes a mutation ready. `lookup` holds the rows of its section, if it carries one.
///
/// # Errors
///
/// `Damaged` if a constant's bytes are not sound, `Unsupported` if an expression computes with types that have nothing in
/// common or nests too deep, `Internal` if rows of a section are missing or do not fit it.
pub fn bind(pending: &PendingMutation, lookup: Option<&[RecordBatch]>) -> Result<Arc<Bound>> {
    let action =
        action(pending, lookup).map_err(|e| e.context(format!("the mutation at seq {}", pending.key.seq)))?;
    let (reads, assigned) = match &action {
        Action::Lookup(lookup) => {
            let mut reads = Vec::new();
            merge_reads(&mut reads, lookup.key.iter().map(|(id, a)| (*id, a.data_type().clone())));
            (reads, lookup.values.iter().map(|(id, _)| *id).collect())
        }
        Action::Delete(_) | Action::Update { .. } => {
            (columns_with_types(&pending.mutation), pending.mutation.assigned())
        }
    };
    let (key, time) = (pending.key, pending.mutation.time);
    Ok(Arc::new(Bound { key, time, assigned, reads, action }))
}

fn action(pending: &PendingMutation, lookup: Option<&[RecordBatch]>) -> Result<Action> {
    let now = pending.commit_time;
    match &pending.mutation.kind {
        MutationKind::Delete { predicate } => {
            Ok(Action::Delete(Selection::new(build_predicate(predicate, now)?)?))
        }
        MutationKind::Update { predicate, assignments } => {
            let selection = Selection::new(build_predicate(predicate, now)?)?;
            let mut values = Vec::with_capacity(assignments.len());
            for (column, expr) in assignments {
                let value = build(expr, now)?;
                let reads = columns_of(&value);
                values.push(Assignment { column: *column, value, reads });
            }
            Ok(Action::Update { selection, values })
        }
        MutationKind::Lookup { keys, delete, section } => {
            let batches = lookup.ok_or_else(|| Error::internal("the rows that it looks up are missing"))?;
            Ok(Action::Lookup(bind_lookup(*keys as usize, *delete, section, batches)?))
        }
    }
}

fn bind_lookup(keys: usize, deletes: bool, section: &Section, batches: &[RecordBatch]) -> Result<Lookup> {
    let Some(first) = batches.first() else {
        // A section without rows has no batch to say its types: it acts on nothing.
        let table = Arc::new(KeyTable::new(&[], false)?);
        return Ok(Lookup { deletes, key: Vec::new(), values: Vec::new(), table, rows: Arc::default() });
    };
    let whole = concat_batches(&first.schema(), batches)
        .map_err(|e| Error::damaged(format!("the rows that it looks up differ in their types: {e}")))?;
    if whole.num_columns() != section.columns.len() || keys == 0 || keys > section.columns.len() {
        return Err(Error::damaged(format!(
            "it looks up {keys} of {} columns in rows of {}",
            section.columns.len(),
            whole.num_columns()
        )));
    }
    if u32::try_from(whole.num_rows()).is_err() {
        return Err(Error::overloaded(format!("it looks up {} rows", whole.num_rows())));
    }
    let mut key: Vec<(ColumnId, ArrayRef)> =
        section.columns.iter().copied().zip(whole.columns().iter().cloned()).collect();
    let values = key.split_off(keys);
    let (table, rows) = key_table(&key)?;
    Ok(Lookup { deletes, key, values, table: Arc::new(table), rows: Arc::new(rows) })
}

/// A table over key columns, and the last row of each key.
pub(crate) fn key_table(key: &[(ColumnId, ArrayRef)]) -> Result<(KeyTable, Vec<u32>)> {
    let arrays: Vec<ArrayRef> = key.iter().map(|(_, array)| array.clone()).collect();
    let types: Vec<DataType> = arrays.iter().map(|a| a.data_type().clone()).collect();
    // Without a null among them no null equals any of them.
    let nulls = arrays.iter().any(|a| a.logical_null_count() > 0);
    let mut table = KeyTable::new(&types, nulls)?;
    let numbers = table.learn(&arrays)?;
    table.finish();
    let mut rows = vec![0; table.len()];
    for (row, number) in (0..).zip(numbers) {
        if let Some(last) = rows.get_mut(number as usize) {
            *last = row;
        }
    }
    Ok((table, rows))
}

impl Bound {
    /// Its place in the order of everything.
    pub fn key(&self) -> MutationKey {
        self.key
    }

    /// First and last designated timestamp, in the column's ticks, of rows that it can act on; `None`: any.
    pub fn time(&self) -> Option<(i64, i64)> {
        self.time
    }

    /// Whether it removes rows.
    pub fn deletes(&self) -> bool {
        match &self.action {
            Action::Delete(_) => true,
            Action::Update { .. } => false,
            Action::Lookup(lookup) => lookup.deletes,
        }
    }

    /// The columns that it assigns; none if it deletes.
    pub fn assigned(&self) -> &[ColumnId] {
        if self.deletes() { &[] } else { &self.assigned }
    }

    /// The columns that decide what it does, ascending, each with its type as the mutation saw it.
    pub fn reads(&self) -> &[(ColumnId, DataType)] {
        &self.reads
    }

    /// The columns that decide which rows it acts on.
    pub(crate) fn selects_by(&self) -> Vec<ColumnId> {
        let selection = match &self.action {
            Action::Delete(selection) | Action::Update { selection, .. } => selection,
            Action::Lookup(lookup) => return lookup.key.iter().map(|(id, _)| *id).collect(),
        };
        let handle = selection.handle.iter().map(|h| &h.node);
        selection.rest.iter().chain(handle).flat_map(|c| c.reads.iter().copied()).collect()
    }

    /// Each column that it assigns, with what the new value reads.
    pub(crate) fn assignments(&self) -> Vec<(ColumnId, &[ColumnId])> {
        match &self.action {
            Action::Delete(_) => Vec::new(),
            Action::Update { values, .. } => values.iter().map(|a| (a.column, a.reads.as_slice())).collect(),
            Action::Lookup(lookup) if lookup.deletes => Vec::new(),
            Action::Lookup(lookup) => lookup.values.iter().map(|(id, _)| (*id, [].as_slice())).collect(),
        }
    }
}
