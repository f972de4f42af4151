//! How stored rows are looked at: which columns are read of them, and which mutations they go through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use tandem_datafile::cast_to_schema;
use tandem_fold::{Bound, KeyedFold, Mutations, bind, columns_needed};
use tandem_format::{PendingMutation, SectionKey};
use tandem_manifest::{Table, TailSection};
use tandem_types::{Column, ColumnId, Error, Result, Seq, TableSchema};

use super::{Selection, Source, file_gone};

/// What is read of a file's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// All that the lens shows.
    Wide,
    /// The primary key.
    Key,
}

/// The table's columns and those that its mutations read beside them, because they were dropped since; and the mutations.
pub(crate) struct Lens {
    /// The table's columns come first.
    wide: TableSchema,
    schema: SchemaRef,
    ids: Vec<ColumnId>,
    /// How many of them the table has.
    width: usize,
    timestamp: Option<ColumnId>,
    key: Vec<ColumnId>,
    key_schema: TableSchema,
    order_by: Vec<ColumnId>,
    /// In log order. What acts on a file or a section is all from some place on.
    bound: Vec<Arc<Bound>>,
    /// Made ready for many batches, by that place.
    ready: Mutex<BTreeMap<usize, Mutations>>,
}

impl Lens {
    pub async fn new(source: &Source, table: &Table, selections: &[Selection]) -> Result<Self> {
        let mut bound = Vec::new();
        for pending in table.mutations() {
            if acts(table, pending, selections)? {
                bound.push(bind_one(source, pending).await?);
            }
        }
        let mut wide = table.schema().clone();
        let width = wide.columns.len();
        let table_ids: Vec<ColumnId> = wide.columns.iter().map(|c| c.id).collect();
        for (id, data_type) in columns_needed(&table_ids, &bound) {
            if !table_ids.contains(&id) {
                // No name that a column of the table has begins so with its own id.
                wide.columns.push(Column { id, name: format!("\u{0}{id}"), data_type, nullable: true });
            }
        }
        Ok(Self {
            schema: wide.arrow(),
            ids: wide.columns.iter().map(|c| c.id).collect(),
            wide,
            width,
            timestamp: table.timestamp().map(|c| c.id),
            key: table.primary_key().to_vec(),
            key_schema: TableSchema {
                columns: table
                    .primary_key()
                    .iter()
                    .filter_map(|id| table.schema().column(*id).cloned())
                    .collect(),
            },
            order_by: table.order_by().to_vec(),
            bound,
            ready: Mutex::default(),
        })
    }

    /// The columns that are read.
    pub fn ids(&self, view: View) -> &[ColumnId] {
        match view {
            View::Wide => &self.ids,
            View::Key => &self.key,
        }
    }

    /// The types of the key's columns.
    pub fn key_types(&self) -> Vec<DataType> {
        self.key_schema.columns.iter().map(|c| c.data_type.clone()).collect()
    }

    /// The key's columns in a batch that is seen wide.
    pub fn key_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |position: usize| {
            let column = batch.columns().get(position).cloned();
            column.ok_or_else(|| Error::internal("a batch lacks a key column"))
        };
        self.positions(&self.key)?.into_iter().map(column).collect()
    }

    pub fn sort_positions(&self, table: &Table) -> Result<Vec<usize>> {
        self.positions(table.order_by())
    }

    fn positions(&self, ids: &[ColumnId]) -> Result<Vec<usize>> {
        let position = |id: &ColumnId| {
            self.wide.position(*id).ok_or_else(|| Error::internal(format!("key column {id} is gone")))
        };
        ids.iter().map(position).collect()
    }

    /// A stored batch, whose columns have the ids `ids`, in view.
    pub fn seen(&self, view: View, batch: &RecordBatch, ids: &[ColumnId]) -> Result<RecordBatch> {
        let schema = match view {
            View::Wide => &self.wide,
            View::Key => &self.key_schema,
        };
        cast_to_schema(batch, ids, schema)
    }

    /// What the table has of a wide batch.
    pub fn narrowed(&self, batch: RecordBatch) -> Result<RecordBatch> {
        if self.width == self.ids.len() {
            return Ok(batch);
        }
        let kept: Vec<usize> = (0..self.width).collect();
        batch.project(&kept).map_err(|e| Error::internal(format!("leaving out columns: {e}")))
    }

    /// The place of the first mutation that acts on rows folded through `seq`.
    pub fn after(&self, seq: Seq) -> usize {
        self.bound.partition_point(|m| m.key().seq <= seq)
    }

    /// The place of the first mutation that acts on a section's rows.
    pub fn following(&self, section: &SectionKey) -> usize {
        self.bound.partition_point(|m| !m.key().follows(section))
    }

    /// Those from one place to before another.
    pub fn between(&self, from: usize, to: usize) -> &[Arc<Bound>] {
        self.bound.get(from..to).unwrap_or_default()
    }

    pub fn mutations(&self) -> usize {
        self.bound.len()
    }

    /// Takes a wide batch through the mutations from a place on.
    pub fn mutated(&self, batch: RecordBatch, from: usize) -> Result<RecordBatch> {
        if from >= self.bound.len() {
            return Ok(batch);
        }
        self.ready_from(from)?.apply(batch)
    }

    fn ready_from(&self, from: usize) -> Result<Mutations> {
        // Nothing panics while the lock is held.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mutations) = ready.get(&from) {
            return Ok(mutations.clone());
        }
        let acting = self.between(from, self.bound.len());
        let mutations = Mutations::new(&self.ids, &self.schema, self.timestamp, acting)?;
        ready.insert(from, mutations.clone());
        Ok(mutations)
    }

    /// Whether rows may be out of order after the mutations from a place on: one assigns a column of the sort key.
    pub fn unsorts(&self, from: usize) -> bool {
        let acting = self.between(from, self.bound.len());
        acting.iter().flat_map(|m| m.assigned()).any(|id| self.order_by.contains(id))
    }

    /// Folds rows of equal keys.
    pub fn fold(&self) -> Result<KeyedFold> {
        KeyedFold::new(self.ids.clone(), self.schema.clone(), &self.key, self.timestamp)
    }
}

/// Whether a mutation may act on rows of a selection.
fn acts(table: &Table, pending: &PendingMutation, selections: &[Selection]) -> Result<bool> {
    let touches = |time: Option<(i64, i64)>| match (pending.mutation.time, time) {
        (Some((from, to)), Some((first, last))) => from <= last && first <= to,
        _ => true,
    };
    for selection in selections {
        for name in &selection.files {
            let file = &table.file(name).ok_or_else(|| file_gone(&name.object))?.file;
            if pending.key.seq > file.folded_through && touches(file.time) {
                return Ok(true);
            }
        }
        for part in &selection.parts {
            if pending.key.follows(&part.section)
                && table.tail_section(&part.section).is_some_and(|tail| touches(tail.section.time))
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn bind_one(source: &Source, pending: &PendingMutation) -> Result<Arc<Bound>> {
    let key = SectionKey {
        seq: pending.key.seq,
        transaction: pending.key.transaction,
        section: pending.key.section,
    };
    let lookup = match pending.mutation.section() {
        None => None,
        Some(section) => {
            let live = section.partitions.iter().map(|(partition, _)| *partition).collect();
            let rows = (source.load)(TailSection { key, section: section.clone(), live }).await?;
            Some(rows)
        }
    };
    let named = |e: Error| e.context(format!("the mutation at {}", pending.key.seq));
    bind(pending, lookup.as_ref().map(|rows| rows.batches.as_slice())).map_err(named)
}
