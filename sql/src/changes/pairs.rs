//! Rows before and after, held against each other.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DynComparator, RecordBatch, UInt32Array, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::UInt32Type;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tandem_fold::{Bound, Mutations};
use tandem_types::{ColumnId, Error, Result};

use super::request::Images;
use super::told::{BATCH_ROWS, Op, Teller};

/// Not the id of any column: tables do not have so many.
const ROW_NUMBER: ColumnId = ColumnId(u32::MAX);

/// Tells rows of two batches as equal or not, by some of their columns.
struct Same(Vec<Option<DynComparator>>);

impl Same {
    fn new(before: &RecordBatch, after: &RecordBatch, columns: &[usize]) -> Self {
        let column = |at: &usize| {
            let (before, after) = (before.columns().get(*at)?, after.columns().get(*at)?);
            // Values of a type that cannot be compared are told as changed, which is no lie: they were assigned.
            Some(make_comparator(before, after, SortOptions::default()).ok())
        };
        Self(columns.iter().filter_map(column).collect())
    }

    fn rows(&self, before: usize, after: usize) -> bool {
        self.0.iter().all(|column| column.as_ref().is_some_and(|c| c(before, after) == Ordering::Equal))
    }
}

/// What mutations do to rows, each held against itself.
#[derive(Debug)]
pub(super) struct Mutated {
    mutations: Mutations,
    schema: SchemaRef,
    /// Fields that they may change.
    assigned: Vec<usize>,
}

impl Mutated {
    /// `schema` and `ids` are of the rows before; the first `columns` fields are the table's.
    pub(super) fn new(
        ids: &[ColumnId],
        schema: &SchemaRef,
        columns: usize,
        timestamp: Option<ColumnId>,
        mutations: &[Arc<Bound>],
    ) -> Result<Self> {
        let mut numbered: Vec<_> = schema.fields().iter().cloned().collect();
        numbered.push(Arc::new(Field::new("\u{1}row", DataType::UInt32, false)));
        let numbered: SchemaRef = Arc::new(Schema::new(numbered));
        let mut all = ids.to_vec();
        all.push(ROW_NUMBER);
        let assigned: Vec<ColumnId> = mutations.iter().flat_map(|m| m.assigned()).copied().collect();
        let assigned = (0..columns).filter(|at| ids.get(*at).is_some_and(|id| assigned.contains(id)));
        Ok(Self {
            mutations: Mutations::new(&all, &numbered, timestamp, mutations)?,
            schema: numbered,
            assigned: assigned.collect(),
        })
    }

    /// What becomes of the rows of a batch.
    pub(super) fn tell(
        &self,
        batch: &RecordBatch,
        images: Images,
        teller: &Teller,
    ) -> Result<Option<RecordBatch>> {
        let rows = batch.num_rows();
        let last = u32::try_from(rows).map_err(|_| Error::internal("a batch of too many rows"))?;
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(UInt32Array::from_iter_values(0..last)));
        let broken = |e| Error::internal(format!("rows cannot be numbered: {e}"));
        let numbered = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(broken)?;
        let before = numbered.clone();
        let after = self.mutations.apply(numbered)?;
        let untouched = |(a, b): (&ArrayRef, &ArrayRef)| Arc::ptr_eq(a, b);
        if after.num_rows() == rows && before.columns().iter().zip(after.columns()).all(untouched) {
            return Ok(None);
        }
        let Some(numbers) = after.columns().last().and_then(|c| c.as_primitive_opt::<UInt32Type>()) else {
            return Err(Error::internal("rows lost their numbers"));
        };
        let same = Same::new(&before, &after, &self.assigned);
        let mut left = numbers.values().iter().map(|n| *n as usize).enumerate().peekable();
        let mut picks = Vec::new();
        for row in 0..rows {
            match left.next_if(|(_, number)| *number == row) {
                None => picks.push((Op::Delete, 0, row)),
                Some((at, _)) if same.rows(row, at) => {}
                Some((at, _)) => {
                    if images == Images::Both {
                        picks.push((Op::UpdateBefore, 0, row));
                    }
                    picks.push((Op::UpdateAfter, 1, at));
                }
            }
        }
        if picks.is_empty() { Ok(None) } else { teller.picked(&[&before, &after], &picks).map(Some) }
    }
}

/// Rows of a table with a key before and after, all of them, at most one of each key.
pub(super) struct Difference<'a> {
    pub(super) before: &'a [RecordBatch],
    pub(super) after: &'a [RecordBatch],
    /// Fields of the key.
    pub(super) key: &'a [usize],
    /// How many fields are the table's columns.
    pub(super) columns: usize,
}

impl Difference<'_> {
    /// Rows that went, then those that came or changed, in batches of a bounded size.
    pub(super) fn tell(&self, images: Images, teller: &Teller) -> Result<Vec<RecordBatch>> {
        let Some(schema) = self.before.first().or(self.after.first()).map(RecordBatch::schema) else {
            return Ok(Vec::new());
        };
        let broken = |e| Error::internal(format!("keys cannot be compared: {e}"));
        let types = self.key.iter().filter_map(|at| schema.fields().get(*at));
        let fields = types.map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(broken)?;
        let keys = |batch: &RecordBatch| {
            let columns: Vec<ArrayRef> =
                self.key.iter().filter_map(|at| batch.columns().get(*at)).map(Arc::clone).collect();
            converter.convert_columns(&columns).map_err(broken)
        };

        let mut known: HashMap<OwnedRow, (usize, usize)> = HashMap::new();
        for (number, batch) in self.before.iter().enumerate() {
            for (row, key) in keys(batch)?.iter().enumerate() {
                known.insert(key.owned(), (number, row));
            }
        }
        let others: Vec<usize> = (0..self.columns).filter(|at| !self.key.contains(at)).collect();
        let offset = self.before.len();
        let mut stay: Vec<Vec<bool>> = self.before.iter().map(|b| vec![false; b.num_rows()]).collect();
        let mut picks = Vec::new();
        let mut same: HashMap<usize, Same> = HashMap::new();
        for (number, batch) in self.after.iter().enumerate() {
            same.clear();
            for (row, key) in keys(batch)?.iter().enumerate() {
                let Some((of, at)) = known.get(&key.owned()).copied() else {
                    picks.push((Op::Insert, offset + number, row));
                    continue;
                };
                if let Some(stays) = stay.get_mut(of).and_then(|rows| rows.get_mut(at)) {
                    *stays = true;
                }
                let Some(before) = self.before.get(of) else { continue };
                let same = same.entry(of).or_insert_with(|| Same::new(before, batch, &others));
                if same.rows(at, row) {
                    continue;
                }
                if images == Images::Both {
                    picks.push((Op::UpdateBefore, of, at));
                }
                picks.push((Op::UpdateAfter, offset + number, row));
            }
        }
        let gone = stay.iter().enumerate().flat_map(|(number, rows)| {
            let gone = rows.iter().enumerate().filter(|(_, stays)| !**stays);
            gone.map(move |(row, _)| (Op::Delete, number, row))
        });
        let picks: Vec<_> = gone.chain(picks).collect();
        let batches: Vec<&RecordBatch> = self.before.iter().chain(self.after).collect();
        picks.chunks(BATCH_ROWS).map(|picks| teller.picked(&batches, picks)).collect()
    }
}
