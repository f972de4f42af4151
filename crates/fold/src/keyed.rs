//! Many rows of one key become one row, as the log orders them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use tandem_format::OnDuplicate;
use tandem_segment::guard::guarded;
use tandem_types::{ColumnId, Error, Result, Seq};

use crate::bound::Bound;
use crate::broken;
use crate::frame::field_of;
use crate::key_table::KeyTable;
use crate::lanes::Lanes;
use crate::program::{Mutations, Outcome};

/// Rows of a batch that [`KeyedFold`] puts out, at most.
const BATCH_ROWS: usize = 8192;

/// Folds the rows of a keyed table: first those of data files, then sections and mutations in the order of the log. All
/// rows are in memory.
///
/// Every batch has the fields of the schema that was given to [`KeyedFold::new`], of exactly those types; what a row's
/// section lacks is null.
#[derive(Debug)]
pub struct KeyedFold {
    ids: Vec<ColumnId>,
    schema: SchemaRef,
    /// Fields of the key.
    key: Vec<usize>,
    timestamp: Option<ColumnId>,
    /// A key's number is its slot.
    table: KeyTable,
    lanes: Lanes,
    /// By slot: whether there is such a row now.
    alive: Vec<bool>,
    /// By slot: mutations up to here have been applied to its row, or stand before it.
    after: Vec<Seq>,
    /// Mutations that the rows have not been through yet.
    pending: Vec<Arc<Bound>>,
    /// Whether rows of files may still come.
    basic: bool,
}

impl KeyedFold {
    /// `ids` are the columns of the fields of `schema`, `key` those of the primary key, `timestamp` is the designated one.
    ///
    /// # Errors
    ///
    /// `Internal` if a column of the key is not among `ids`, `Unsupported` if its values cannot be compared.
    pub fn new(
        ids: Vec<ColumnId>,
        schema: SchemaRef,
        key: &[ColumnId],
        timestamp: Option<ColumnId>,
    ) -> Result<Self> {
        if key.is_empty() || ids.len() != schema.fields().len() {
            return Err(Error::internal(format!(
                "rows of {} fields and {} column ids are to be folded by {} key columns",
                schema.fields().len(),
                ids.len(),
                key.len()
            )));
        }
        let fields = key.iter().map(|id| {
            ids.iter()
                .position(|known| known == id)
                .ok_or_else(|| Error::internal(format!("the rows to fold lack column {id} of their key")))
        });
        let key: Vec<usize> = fields.collect::<Result<_>>()?;
        let types: Vec<DataType> = key.iter().map(|field| schema.field(*field).data_type().clone()).collect();
        let lanes = Lanes::new(ids.len());
        Ok(Self {
            table: KeyTable::new(&types, false)?,
            ids,
            schema,
            key,
            timestamp,
            lanes,
            alive: Vec::new(),
            after: Vec::new(),
            pending: Vec::new(),
            basic: true,
        })
    }

    /// Rows of a data file that has mutations up to `after` in it. They stand before all sections and mutations given here and
    /// come before those; no two of them, of one file or of several, share a key. Mutations up to `after` leave them alone.
    ///
    /// # Errors
    ///
    /// `Damaged` if a key is null, `Internal` if the batch is not of the announced shape, or comes too late.
    pub fn base(&mut self, batch: RecordBatch, after: Seq) -> Result<()> {
        if !self.basic {
            return Err(Error::internal("rows of a data file came after what they stand before"));
        }
        let (slots, number) = self.add(batch)?;
        for (row, slot) in slots.iter().enumerate() {
            self.revive(*slot, after);
            self.lanes.lanes_mut().for_each(|lane| lane.set(*slot, number, row));
        }
        Ok(())
    }

    /// The rows of a section, which follow everything given before, one after another.
    ///
    /// # Errors
    ///
    /// As [`KeyedFold::base`]; `Internal` also if the section does not say what its rows do to rows of equal key.
    pub fn section(&mut self, on_duplicate: &OnDuplicate, batch: RecordBatch) -> Result<()> {
        self.flush()?;
        self.basic = false;
        let nulls: Vec<_> =
            batch.columns().iter().map(|c| c.logical_nulls().filter(|n| n.null_count() > 0)).collect();
        let (slots, number) = self.add(batch)?;
        let fresh: Vec<bool> = slots.iter().map(|slot| self.revive(*slot, Seq(0))).collect();
        let rows = || slots.iter().copied().enumerate();
        let is_fresh = |row: usize| fresh.get(row).copied().unwrap_or(true);
        match on_duplicate {
            OnDuplicate::Keep => {
                return Err(Error::internal("a section of a keyed table keeps rows of equal key"));
            }
            OnDuplicate::Replace => {
                for lane in self.lanes.lanes_mut() {
                    rows().for_each(|(row, slot)| lane.set(slot, number, row));
                }
            }
            OnDuplicate::Ignore => {
                for lane in self.lanes.lanes_mut() {
                    rows()
                        .filter(|(row, _)| is_fresh(*row))
                        .for_each(|(row, slot)| lane.set(slot, number, row));
                }
            }
            OnDuplicate::Merge => {
                let nulls_of = |column: usize| nulls.get(column).and_then(Option::as_ref);
                // Columns without a null behave alike and stay together.
                self.lanes.split(|column| if nulls_of(column).is_some() { column + 1 } else { 0 });
                for lane in self.lanes.lanes_mut() {
                    let nulls = lane.columns.first().and_then(|column| nulls_of(*column));
                    let counts = |row: usize| nulls.is_none_or(|n| n.is_valid(row)) || is_fresh(row);
                    rows()
                        .filter(|(row, _)| counts(*row))
                        .for_each(|(row, slot)| lane.set(slot, number, row));
                }
            }
            OnDuplicate::Update(columns) => {
                let ids = &self.ids;
                let updates = |field: usize| ids.get(field).is_some_and(|id| columns.contains(id));
                self.lanes.split(|field| usize::from(updates(field)));
                for lane in self.lanes.lanes_mut() {
                    let updates = lane.columns.first().is_some_and(|field| updates(*field));
                    let counts = |row: usize| updates || is_fresh(row);
                    rows()
                        .filter(|(row, _)| counts(*row))
                        .for_each(|(row, slot)| lane.set(slot, number, row));
                }
            }
        }
        Ok(())
    }

    /// A mutation of everything given before it, except for rows of files that have it in them already.
    pub fn mutation(&mut self, mutation: &Arc<Bound>) -> Result<()> {
        self.basic = false;
        self.pending.push(Arc::clone(mutation));
        Ok(())
    }

    /// Bytes that it holds, about.
    pub fn memory(&self) -> usize {
        self.lanes.memory() + self.table.memory() + self.alive.capacity() + self.after.capacity() * 8
    }

    /// The rows that there are in the end, in the order in which their keys came first, in batches of at most 8192 rows.
    pub fn finish(mut self) -> Result<Vec<RecordBatch>> {
        self.flush()?;
        let columns: Vec<usize> = (0..self.ids.len()).collect();
        let batch = |slots: &[u32]| {
            let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
            let columns = guarded("folding rows", || self.lanes.gather(&columns, slots))?;
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(broken)
        };
        self.living().chunks(BATCH_ROWS).map(batch).collect()
    }

    /// Adds a batch: the slot of each row, and the batch's number among the lanes'.
    fn add(&mut self, batch: RecordBatch) -> Result<(Vec<u32>, u32)> {
        let fits = |(column, field): (&ArrayRef, &arrow::datatypes::FieldRef)| {
            column.data_type() == field.data_type()
        };
        if batch.num_columns() != self.ids.len()
            || !batch.columns().iter().zip(self.schema.fields()).all(fits)
        {
            return Err(Error::internal(format!(
                "a batch to fold has the schema {}, {} was announced",
                batch.schema(),
                self.schema
            )));
        }
        let key: Vec<ArrayRef> =
            self.key.iter().filter_map(|field| batch.columns().get(*field).cloned()).collect();
        let slots = guarded("comparing keys", || self.table.learn(&key))?;
        self.lanes.grow(self.table.len());
        self.alive.resize(self.table.len(), false);
        self.after.resize(self.table.len(), Seq(0));
        let number = self.lanes.add(batch.columns().iter().cloned().map(Some).collect())?;
        Ok((slots, number))
    }

    /// Says that a slot's row was touched by rows that stand after `after`; answers whether there was none.
    fn revive(&mut self, slot: u32, after: Seq) -> bool {
        if let Some(mark) = self.after.get_mut(slot as usize) {
            *mark = after;
        }
        self.alive.get_mut(slot as usize).is_some_and(|alive| !std::mem::replace(alive, true))
    }

    fn living(&self) -> Vec<u32> {
        (0..).zip(&self.alive).filter(|(_, alive)| **alive).map(|(slot, _)| slot).collect()
    }

    /// Leads the rows through the mutations that wait.
    fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        // How many of the mutations are in a row already: those are the first ones.
        let mut by_skipped: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for slot in self.living() {
            let after = self.after.get(slot as usize).copied().unwrap_or_default();
            let skipped = pending.partition_point(|m| m.key().seq <= after);
            by_skipped.entry(skipped).or_default().push(slot);
        }
        for (skipped, slots) in by_skipped {
            self.mutate(pending.get(skipped..).unwrap_or(&[]), &slots)?;
        }
        Ok(())
    }

    fn mutate(&mut self, mutations: &[Arc<Bound>], slots: &[u32]) -> Result<()> {
        let fields = self.fields_of(mutations);
        let ids: Vec<ColumnId> = fields.iter().filter_map(|field| self.ids.get(*field).copied()).collect();
        let schema = Arc::new(self.schema.project(&fields).map_err(broken)?);
        let program = Mutations::new(&ids, &schema, self.timestamp, mutations)?;
        if program.is_empty() {
            return Ok(());
        }
        for slots in slots.chunks(BATCH_ROWS) {
            let columns = guarded("folding rows", || self.lanes.gather(&fields, slots))?;
            let Outcome { deleted, changed } = program.run(&columns, slots.len())?;
            for row in deleted.iter().flat_map(|deleted| deleted.set_indices()) {
                if let Some(alive) = slots.get(row).and_then(|slot| self.alive.get_mut(*slot as usize)) {
                    *alive = false;
                }
            }
            if !changed.is_empty() {
                let changed = changed.into_iter().filter_map(|(at, array)| Some((*fields.get(at)?, array)));
                self.replace(slots, changed.collect())?;
            }
        }
        Ok(())
    }

    /// Gives slots new values in some fields.
    fn replace(&mut self, slots: &[u32], changed: BTreeMap<usize, ArrayRef>) -> Result<()> {
        self.lanes.split(|field| usize::from(changed.contains_key(&field)));
        let batch = (0..self.ids.len()).map(|field| changed.get(&field).cloned()).collect();
        let number = self.lanes.add(batch)?;
        for lane in self.lanes.lanes_mut() {
            if lane.columns.first().is_some_and(|field| changed.contains_key(field)) {
                slots.iter().enumerate().for_each(|(row, slot)| lane.set(*slot, number, row));
            }
        }
        Ok(())
    }

    /// The fields that mutations read or assign, ascending, and the designated timestamp.
    fn fields_of(&self, mutations: &[Arc<Bound>]) -> Vec<usize> {
        let touched = mutations
            .iter()
            .flat_map(|m| m.reads().iter().map(|(id, _)| id).chain(m.assigned()))
            .chain(&self.timestamp)
            .filter_map(|id| field_of(&self.ids, *id).ok());
        let mut fields: Vec<usize> = touched.collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }
}
