//! Mutations in order, made ready for many batches, and their application.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions,
    UInt32Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, max, min, take};
use arrow::datatypes::{
    ArrowTimestampType, SchemaRef, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use tandem_segment::guard::guarded;
use tandem_types::{ColumnId, Error, Result};

use crate::bound::{Action, Assignment, Bound};
use crate::broken;
use crate::frame::{Frame, Picked, field_of};
use crate::index::index;
use crate::kernel::{Value, run};
use crate::node::Rows;
use crate::overlay::Overlay;
use crate::phase::{Clause, Effect, Hits, Phase};
use crate::shared::Shared;

/// Mutations in order, made ready for batches of one shape. Cheap to clone; worth making once per scan, not per batch.
#[derive(Clone, Debug)]
pub struct Mutations {
    program: Arc<Program>,
}

#[derive(Debug)]
struct Program {
    ids: Vec<ColumnId>,
    schema: SchemaRef,
    /// The field of the designated timestamp.
    timestamp: Option<usize>,
    phases: Vec<Phase>,
    shared: Shared,
}

/// What mutations do to a batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The rows that are gone.
    pub(crate) deleted: Option<BooleanBuffer>,
    /// Fields with new values, deleted rows included.
    pub(crate) changed: Vec<(usize, ArrayRef)>,
}

/// Applies mutations, in order, to rows that all stand before them: [`Mutations`] for one batch.
pub fn mutate(ids: &[ColumnId], batch: RecordBatch, mutations: &[Arc<Bound>]) -> Result<RecordBatch> {
    Mutations::new(ids, &batch.schema(), None, mutations)?.apply(batch)
}

impl Mutations {
    /// `ids` are the columns of the fields of `schema`; `timestamp` is the designated one, which need not be among them.
    ///
    /// Assigned columns that are not among `ids` are skipped; what [`columns_needed`](crate::columns_needed) says must
    /// be among them.
    ///
    /// # Errors
    ///
    /// `Internal` if a column is missing that an assignment or a predicate reads.
    pub fn new(
        ids: &[ColumnId],
        schema: &SchemaRef,
        timestamp: Option<ColumnId>,
        mutations: &[Arc<Bound>],
    ) -> Result<Self> {
        if ids.len() != schema.fields().len() {
            let fields = schema.fields().len();
            return Err(Error::internal(format!("{fields} fields have {} column ids", ids.len())));
        }
        let mut phases: Vec<(Phase, BTreeSet<usize>)> = Vec::new();
        for bound in mutations {
            if let Some(effect) = effect(bound, ids, schema)? {
                place(
                    &mut phases,
                    Clause { bound: Arc::clone(bound), effect, zones: Vec::new(), shared: false },
                    ids,
                )?;
            }
        }
        let assigned: BTreeSet<usize> = phases.iter().flat_map(|(_, fields)| fields).copied().collect();
        let mut phases: Vec<Phase> = phases.into_iter().map(|(phase, _)| phase).collect();
        let shared = Shared::new(&mut phases, &assigned, ids, schema)?;
        for phase in &mut phases {
            index(phase, ids, schema)?;
        }
        let timestamp = timestamp.and_then(|timestamp| ids.iter().position(|id| *id == timestamp));
        let program = Program { ids: ids.to_vec(), schema: schema.clone(), timestamp, phases, shared };
        Ok(Self { program: Arc::new(program) })
    }

    /// Whether they do nothing to any batch.
    pub fn is_empty(&self) -> bool {
        self.program.phases.is_empty()
    }

    /// The rows as the mutations leave them: without those that they delete, the others in order, under the same schema. A batch
    /// that they do not touch comes back as it is.
    ///
    /// # Errors
    ///
    /// `Internal` if the batch is not of the shape that was announced.
    pub fn apply(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let Outcome { deleted, changed } = self.run(batch.columns(), batch.num_rows())?;
        let mut result = batch;
        if !changed.is_empty() {
            let (schema, mut columns, rows) = result.into_parts();
            for (field, column) in changed {
                if let Some(slot) = columns.get_mut(field) {
                    *slot = column;
                }
            }
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            result = RecordBatch::try_new_with_options(schema, columns, &options).map_err(broken)?;
        }
        match deleted {
            Some(deleted) => {
                let kept = BooleanArray::new(!&deleted, None);
                filter_record_batch(&result, &kept).map_err(broken)
            }
            None => Ok(result),
        }
    }

    /// What the mutations do to rows, given by field.
    pub(crate) fn run(&self, columns: &[ArrayRef], rows: usize) -> Result<Outcome> {
        if columns.len() != self.program.ids.len() {
            let (found, expected) = (columns.len(), self.program.ids.len());
            return Err(Error::internal(format!(
                "a batch of {found} columns came where {expected} were announced"
            )));
        }
        if rows == 0 || self.is_empty() {
            return Ok(Outcome::default());
        }
        guarded("applying mutations", || self.program.run(columns.to_vec(), rows))
    }
}

/// What a mutation does to fields; `None` if it touches none of them.
fn effect(bound: &Bound, ids: &[ColumnId], schema: &SchemaRef) -> Result<Option<Effect>> {
    if let Action::Lookup(lookup) = &bound.action
        && lookup.rows.is_empty()
    {
        return Ok(None);
    }
    if bound.deletes() {
        return Ok(Some(Effect::Delete));
    }
    let field = |column: ColumnId| ids.iter().position(|id| *id == column);
    let effect = match &bound.action {
        Action::Delete(_) => return Ok(Some(Effect::Delete)),
        Action::Update { values, .. } => {
            let mut fields = Vec::new();
            for (at, assignment) in values.iter().enumerate() {
                if let Some(field) = field(assignment.column) {
                    assignment.reads.iter().try_for_each(|id| field_of(ids, *id).map(drop))?;
                    fields.push((field, at));
                }
            }
            Effect::Assign(fields)
        }
        Action::Lookup(lookup) => {
            let mut fields = Vec::new();
            for (column, values) in &lookup.values {
                if let Some(field) = field(*column) {
                    let options = CastOptions { safe: true, ..CastOptions::default() };
                    let to = schema.field(field).data_type();
                    let values = cast_with_options(values, to, &options).map_err(broken)?;
                    fields.push((field, values));
                }
            }
            Effect::Copy(fields)
        }
    };
    let idle = match &effect {
        Effect::Delete => false,
        Effect::Assign(fields) => fields.is_empty(),
        Effect::Copy(fields) => fields.is_empty(),
    };
    Ok((!idle).then_some(effect))
}

/// Puts a mutation where its predicate sees the rows as it must: after all phases that assign what it reads. A deletion goes as
/// far forward as that allows, since what happens to a row before it is deleted does not matter; then many mutations
/// share few phases.
fn place(phases: &mut Vec<(Phase, BTreeSet<usize>)>, clause: Clause, ids: &[ColumnId]) -> Result<()> {
    let reads = clause.selects_by(ids)?;
    let assigned: Vec<usize> = match &clause.effect {
        Effect::Delete => Vec::new(),
        Effect::Assign(fields) => fields.iter().map(|(field, _)| *field).collect(),
        Effect::Copy(fields) => fields.iter().map(|(field, _)| *field).collect(),
    };
    let settled =
        |(_, assigns): &(Phase, BTreeSet<usize>)| reads.iter().all(|field| !assigns.contains(field));
    let earliest = phases.iter().rposition(|phase| !settled(phase)).map_or(0, |last| last + 1);
    let at = match clause.effect {
        Effect::Delete => earliest,
        Effect::Assign(_) | Effect::Copy(_) => earliest.max(phases.len().saturating_sub(1)),
    };
    if at >= phases.len() {
        phases.push(Default::default());
    }
    if let Some((phase, assigns)) = phases.get_mut(at) {
        phase.clauses.push(clause);
        assigns.extend(assigned);
    }
    Ok(())
}

impl Program {
    fn run(&self, mut columns: Vec<ArrayRef>, rows: usize) -> Result<Outcome> {
        let span = self.span(&columns);
        let mut deleted: Option<BooleanBufferBuilder> = None;
        let mut changed = BTreeSet::new();
        let mut found = self.shared.find(Frame { ids: &self.ids, columns: &columns, rows })?;
        for (at, phase) in self.phases.iter().enumerate() {
            let frame = Frame { ids: &self.ids, columns: &columns, rows };
            let selected = phase.select(frame, span, found.remove(&at).unwrap_or_default())?;
            let mut overlays: BTreeMap<usize, Overlay> = BTreeMap::new();
            for (clause, hits) in selected {
                match &clause.effect {
                    Effect::Delete => {
                        let Some(hits) = hits.into_rows() else {
                            return Ok(Outcome {
                                deleted: Some(BooleanBuffer::new_set(rows)),
                                changed: Vec::new(),
                            });
                        };
                        let deleted = deleted.get_or_insert_with(|| {
                            let mut none = BooleanBufferBuilder::new(rows);
                            none.append_n(rows, false);
                            none
                        });
                        hits.into_iter().for_each(|row| deleted.set_bit(row as usize, true));
                    }
                    Effect::Assign(fields) => {
                        let values = self.assign(clause, fields, &hits, &columns, &overlays, rows)?;
                        self.patch(&mut overlays, &columns, values, hits, rows)?;
                    }
                    Effect::Copy(fields) => {
                        let values = copy(fields, &hits)?;
                        self.patch(&mut overlays, &columns, values, hits, rows)?;
                    }
                }
            }
            for (field, overlay) in overlays {
                if let Some(column) = columns.get_mut(field) {
                    *column = overlay.whole()?;
                    changed.insert(field);
                }
            }
        }
        let changed =
            changed.into_iter().filter_map(|field| Some((field, columns.get(field)?.clone()))).collect();
        Ok(Outcome { deleted: deleted.map(|mut d| d.finish()), changed })
    }

    /// The first and the last designated timestamp, where a mutation asks for them.
    fn span(&self, columns: &[ArrayRef]) -> Option<(i64, i64)> {
        let column = columns.get(self.timestamp?)?;
        let timed = |phase: &Phase| phase.clauses.iter().any(|c| c.bound.time().is_some());
        if !self.phases.iter().any(timed) {
            return None;
        }
        fn of<T: ArrowTimestampType>(column: &ArrayRef) -> Option<(i64, i64)> {
            let values = column.as_primitive_opt::<T>()?;
            Some((min(values)?, max(values)?))
        }
        of::<TimestampSecondType>(column)
            .or_else(|| of::<TimestampMillisecondType>(column))
            .or_else(|| of::<TimestampMicrosecondType>(column))
            .or_else(|| of::<TimestampNanosecondType>(column))
    }

    /// The new values, by field, of the rows that an update selects.
    fn assign(
        &self,
        clause: &Clause,
        fields: &[(usize, usize)],
        hits: &Hits,
        columns: &[ArrayRef],
        overlays: &BTreeMap<usize, Overlay>,
        rows: usize,
    ) -> Result<Vec<(usize, Value)>> {
        let Action::Update { values, .. } = &clause.bound.action else {
            return Err(Error::internal("what assigns expressions is no update"));
        };
        let assignments = fields.iter().filter_map(|(field, at)| Some((*field, values.get(*at)?)));
        match hits {
            Hits::All => {
                let mut now = columns.to_vec();
                for (field, overlay) in overlays {
                    if let Some(column) = now.get_mut(*field) {
                        *column = overlay.whole()?;
                    }
                }
                let frame = Frame { ids: &self.ids, columns: &now, rows };
                assignments.map(|(field, a)| self.value(field, a, &frame)).collect()
            }
            Hits::Rows(picked) | Hits::LookedUp(picked, _) => {
                let fetch = |id, rows: &UInt32Array| {
                    let field = field_of(&self.ids, id)?;
                    match (overlays.get(&field), columns.get(field)) {
                        (Some(overlay), _) => overlay.rows(rows),
                        (None, Some(column)) => take(column, rows, None).map_err(broken),
                        (None, None) => Err(Error::internal(format!("the rows lack column {id}"))),
                    }
                };
                let picked = Picked::new(picked, &fetch);
                assignments.map(|(field, a)| self.value(field, a, &picked)).collect()
            }
        }
    }

    /// The values of one assignment, as the field's type; what does not fit is null.
    fn value(&self, field: usize, assignment: &Assignment, rows: &dyn Rows) -> Result<(usize, Value)> {
        let to = self.schema.field(field).data_type();
        let value = assignment.value.evaluate(rows)?;
        let value = if value.array().data_type() == to {
            value
        } else {
            let options = CastOptions { safe: true, ..CastOptions::default() };
            let cast = |operands: &[Value]| match operands {
                [value] => cast_with_options(value.array(), to, &options),
                _ => Err(arrow::error::ArrowError::InvalidArgumentError("one operand is expected".into())),
            };
            run(&cast, &[value], rows.len(), to)?
        };
        Ok((field, value))
    }

    /// Puts new values in place; a null gives way to the old value where the field takes none.
    fn patch(
        &self,
        overlays: &mut BTreeMap<usize, Overlay>,
        columns: &[ArrayRef],
        values: Vec<(usize, Value)>,
        hits: Hits,
        rows: usize,
    ) -> Result<()> {
        let hit_rows = hits.into_rows();
        for (field, values) in values {
            let Some(column) = columns.get(field) else { continue };
            let overlay = overlays.entry(field).or_insert_with(|| Overlay::new(column.clone()));
            let skip_nulls =
                !self.schema.field(field).is_nullable() && values.array().logical_null_count() > 0;
            match &hit_rows {
                None if !skip_nulls => overlay.replace(values.spread(rows)?),
                None => overlay.patch(&(0..rows as u32).collect::<Vec<_>>(), values, skip_nulls),
                Some(hits) => overlay.patch(hits, values, skip_nulls),
            }
        }
        Ok(())
    }
}

/// The looked-up values of the rows that a lookup selects.
fn copy(fields: &[(usize, ArrayRef)], hits: &Hits) -> Result<Vec<(usize, Value)>> {
    let Hits::LookedUp(_, from) = hits else {
        return Err(Error::internal("a lookup selects rows without saying by what"));
    };
    let from = UInt32Array::from(from.clone());
    fields
        .iter()
        .map(|(field, values)| Ok((*field, Value::Rows(take(values, &from, None).map_err(broken)?))))
        .collect()
}

impl Hits {
    /// The rows; `None`: all.
    fn into_rows(self) -> Option<Vec<u32>> {
        match self {
            Self::All => None,
            Self::Rows(rows) | Self::LookedUp(rows, _) => Some(rows),
        }
    }
}
