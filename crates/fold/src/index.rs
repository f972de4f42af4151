//! The hash tables of a phase: one per column, or set of key columns, for all mutations that select by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{cast, filter, take};
use arrow::datatypes::{DataType, SchemaRef};
use tandem_types::{ColumnId, Error, Result};

use crate::bound::{Action, Lookup};
use crate::broken;
use crate::code::agree;
use crate::common::plain;
use crate::frame::field_of;
use crate::key_table::KeyTable;
use crate::phase::{Clause, Entries, Index, Phase};
use crate::selection::Handle;
use crate::zone::comparable;

/// A lookup of more keys keeps its table for itself: putting them into a shared one costs each scan more than the
/// separate look does.
const SHARED_KEYS_MAX: usize = 1 << 16;

/// Gives a phase its indexes, and tells it which clauses must be scanned for. Those that a shared look-up answers need neither.
pub(crate) fn index(phase: &mut Phase, ids: &[ColumnId], schema: &SchemaRef) -> Result<()> {
    let mut handles: BTreeMap<usize, Vec<(usize, &Handle)>> = BTreeMap::new();
    let mut lookups: BTreeMap<Vec<usize>, Vec<(usize, &Lookup)>> = BTreeMap::new();
    let mut scans = Vec::new();
    for (at, clause) in phase.clauses.iter().enumerate().filter(|(_, clause)| !clause.shared) {
        match &clause.bound.action {
            Action::Delete(selection) | Action::Update { selection, .. } => match &selection.handle {
                Some(handle) => {
                    let field = field_of(ids, handle.column)?;
                    if agree(schema.field(field).data_type(), handle.values.data_type()) {
                        handles.entry(field).or_default().push((at, handle));
                    } else {
                        scans.push(at);
                    }
                }
                None => scans.push(at),
            },
            Action::Lookup(lookup) => {
                let fields = lookup.key.iter().map(|(id, _)| field_of(ids, *id));
                lookups.entry(fields.collect::<Result<_>>()?).or_default().push((at, lookup));
            }
        }
    }
    let type_of = |field: usize| plain(schema.field(field).data_type());
    let mut indexes = Vec::new();
    for (field, handles) in handles {
        indexes.push(by_values(field, schema, &handles)?);
    }
    for (fields, lookups) in lookups {
        let types: Vec<DataType> = fields.iter().map(|f| type_of(*f)).collect();
        let (small, large): (Vec<_>, Vec<_>) =
            lookups.into_iter().partition(|(_, lookup)| lookup.rows.len() <= SHARED_KEYS_MAX);
        let own = if small.len() == 1 { small.iter().chain(&large) } else { [].iter().chain(&large) };
        for (clause, lookup) in own {
            indexes.push(by_lookup(&fields, &types, *clause, lookup)?);
        }
        if small.len() > 1 {
            indexes.push(by_lookups(&fields, &types, &small)?);
        }
    }
    narrow_down(&mut phase.clauses, ids, schema);
    phase.indexes = indexes;
    phase.scans = scans;
    Ok(())
}

/// Gives the clauses their zones. To find a batch's range of a column costs about what one comparison does, so that it is worth
/// it only where several clauses ask for it.
fn narrow_down(clauses: &mut [Clause], ids: &[ColumnId], schema: &SchemaRef) {
    let mut asked: BTreeMap<usize, usize> = BTreeMap::new();
    for clause in clauses.iter_mut() {
        let (Action::Delete(selection) | Action::Update { selection, .. }) = &clause.bound.action else {
            continue;
        };
        for zone in &selection.zones {
            if let Ok(field) = field_of(ids, zone.column)
                && comparable(&zone.data_type, schema.field(field).data_type())
            {
                clause.zones.push((field, zone.clone()));
            }
        }
        let mut fields: Vec<usize> = clause.zones.iter().map(|(field, _)| *field).collect();
        fields.dedup();
        fields.into_iter().for_each(|field| *asked.entry(field).or_default() += 1);
    }
    for clause in clauses {
        clause.zones.retain(|(field, _)| asked.get(field).is_some_and(|clauses| *clauses > 1));
    }
}

/// One hash table for handles on a field, each with the number of its clause.
pub(crate) fn by_values(field: usize, schema: &SchemaRef, handles: &[(usize, &Handle)]) -> Result<Index> {
    let data_type = plain(schema.field(field).data_type());
    let mut table = KeyTable::new(std::slice::from_ref(&data_type), false)?;
    let mut hits = Vec::new();
    for (clause, handle) in handles {
        let values = cast(&handle.values, &data_type).map_err(broken)?;
        // A narrower column has no row with a value that does not fit it.
        let valid = arrow::compute::is_not_null(&values).map_err(broken)?;
        let mut numbers = table.learn(&[filter(&values, &valid).map_err(broken)?])?;
        numbers.sort_unstable();
        numbers.dedup();
        hits.extend(numbers.into_iter().map(|number| (number, *clause as u32, 0)));
    }
    Ok(shared(vec![field], table, hits, handles.iter().map(|(clause, _)| *clause)))
}

fn by_lookup(fields: &[usize], types: &[DataType], clause: usize, lookup: &Lookup) -> Result<Index> {
    if lookup.key.iter().zip(types).all(|((_, key), t)| agree(key.data_type(), t)) {
        let entries = Entries::Lookup { clause, rows: Arc::clone(&lookup.rows) };
        let table = Arc::clone(&lookup.table);
        return Ok(Index { fields: fields.to_vec(), table, entries, clauses: vec![clause] });
    }
    by_lookups(fields, types, &[(clause, lookup)])
}

fn by_lookups(fields: &[usize], types: &[DataType], lookups: &[(usize, &Lookup)]) -> Result<Index> {
    let keys = lookups
        .iter()
        .map(|(clause, lookup)| Ok((*clause, keys_as(lookup, types)?)))
        .collect::<Result<Vec<_>>>()?;
    let nulls = keys.iter().any(|(_, (key, _))| key.iter().any(|k| k.logical_null_count() > 0));
    let mut table = KeyTable::new(types, nulls)?;
    let mut hits = Vec::new();
    for (clause, (key, rows)) in &keys {
        let numbers = if rows.is_empty() { Vec::new() } else { table.learn(key)? };
        hits.extend(numbers.into_iter().zip(rows).map(|(number, row)| (number, *clause as u32, *row)));
    }
    Ok(shared(fields.to_vec(), table, hits, keys.iter().map(|(clause, _)| *clause)))
}

/// A lookup's keys, each once, as the rows' types, with the looked-up row of each. Keys that no value of those types equals are
/// left out.
fn keys_as(lookup: &Lookup, types: &[DataType]) -> Result<(Vec<ArrayRef>, Vec<u32>)> {
    let mut rows = UInt32Array::from(lookup.rows.to_vec());
    let mut keys = Vec::with_capacity(types.len());
    for ((_, key), to) in lookup.key.iter().zip(types) {
        let key = cast(key, &plain(key.data_type())).map_err(broken)?;
        if key.data_type() != to {
            let unlike = |e| {
                Error::unsupported(format!("rows of type {to} are looked up by {}: {e}", key.data_type()))
            };
            let there = cast(&key, to).map_err(unlike)?;
            let back = cast(&there, key.data_type()).map_err(unlike)?;
            let same = not_distinct(&back, &key).map_err(unlike)?;
            if same.has_false() {
                let kept = take(&same, &rows, None).map_err(broken)?;
                let kept = arrow::array::AsArray::as_boolean(&kept);
                let left = filter(&rows, kept).map_err(broken)?;
                rows = arrow::array::AsArray::as_primitive(&left).clone();
            }
            keys.push(there);
        } else {
            keys.push(key);
        }
    }
    let keys = keys.iter().map(|key| take(key, &rows, None).map_err(broken)).collect::<Result<_>>()?;
    Ok((keys, rows.values().to_vec()))
}

/// `hits`: (number of the key, clause, looked-up row).
fn shared(
    fields: Vec<usize>,
    mut table: KeyTable,
    mut hits: Vec<(u32, u32, u32)>,
    clauses: impl Iterator<Item = usize>,
) -> Index {
    table.finish();
    hits.sort_unstable();
    let mut starts = vec![0u32; table.len() + 1];
    for (number, _, _) in &hits {
        if let Some(after) = starts.get_mut(*number as usize + 1) {
            *after += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let hits = hits.into_iter().map(|(_, clause, row)| (clause, row)).collect();
    Index {
        fields,
        table: Arc::new(table),
        entries: Entries::Shared { starts, hits },
        clauses: clauses.collect(),
    }
}

impl Clause {
    /// The fields whose values decide which rows it acts on.
    pub(crate) fn selects_by(&self, ids: &[ColumnId]) -> Result<Vec<usize>> {
        self.bound.selects_by().into_iter().map(|id| field_of(ids, id)).collect()
    }
}
