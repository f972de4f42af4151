//! Which rows of a batch meet all of some conditions.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use tandem_types::Result;

use crate::broken;
use crate::frame::{Frame, Picked, field_of};
use crate::node::{Rows, is_true};
use crate::selection::Conjunct;

/// Once fewer than one row in so many is left, the remaining conditions look at those rows alone.
pub(crate) const SPARSE: usize = 8;

/// The rows that meet all conditions, ascending; `None`: all of them.
pub(crate) fn scan(frame: Frame<'_>, conjuncts: &[&Conjunct]) -> Result<Option<Vec<u32>>> {
    let mut left: Option<BooleanBuffer> = None;
    let mut conjuncts = conjuncts;
    while let [conjunct, rest @ ..] = conjuncts {
        conjuncts = rest;
        let mut mask = mask(frame, conjunct)?;
        if let Some(left) = &left {
            mask = &mask & left;
        }
        let count = mask.count_set_bits();
        if count == 0 {
            return Ok(Some(Vec::new()));
        }
        if count < frame.rows {
            if count * SPARSE < frame.rows && !rest.is_empty() {
                return narrow(frame, rest, mask.set_indices_u32().collect()).map(Some);
            }
            left = Some(mask);
        }
    }
    Ok(left.map(|mask| mask.set_indices_u32().collect()))
}

/// Those of `rows` that meet all conditions.
pub(crate) fn narrow(frame: Frame<'_>, conjuncts: &[&Conjunct], rows: Vec<u32>) -> Result<Vec<u32>> {
    if conjuncts.is_empty() || rows.is_empty() {
        return Ok(rows);
    }
    let fetch = |id, rows: &UInt32Array| take(&frame.column(id)?, rows, None).map_err(broken);
    let picked = Picked::new(&rows, &fetch);
    let mut left = BooleanBuffer::new_set(rows.len());
    for conjunct in conjuncts {
        left = &left & &is_true(&conjunct.node, &picked)?;
        if !left.has_true() {
            return Ok(Vec::new());
        }
    }
    Ok(rows.into_iter().zip(&left).filter(|(_, left)| *left).map(|(row, _)| row).collect())
}

/// Where a condition is true. One that looks at a single dictionary column is evaluated once per distinct value.
fn mask(frame: Frame<'_>, conjunct: &Conjunct) -> Result<BooleanBuffer> {
    if let [id] = conjunct.reads.as_slice()
        && let Some(column) = frame.columns.get(field_of(frame.ids, *id)?)
        && let Some(dictionary) = column.as_any_dictionary_opt()
        && !dictionary.values().is_empty()
        && dictionary.values().len() < column.len()
    {
        let of = |values: &ArrayRef| {
            let frame = Frame {
                ids: std::slice::from_ref(id),
                columns: std::slice::from_ref(values),
                rows: values.len(),
            };
            is_true(&conjunct.node, &frame)
        };
        let values = dictionary.values();
        let by_value: Vec<bool> = of(values)?.iter().collect();
        let nulls = dictionary.keys().logical_nulls().filter(|n| n.null_count() > 0);
        let at_null = match &nulls {
            Some(_) => of(&new_null_array(values.data_type(), 1))?.has_true(),
            None => false,
        };
        if !at_null && !by_value.contains(&true) {
            return Ok(BooleanBuffer::new_unset(column.len()));
        }
        let keys = dictionary.normalized_keys().into_iter().enumerate();
        return Ok(keys
            .map(|(row, key)| match &nulls {
                Some(nulls) if nulls.is_null(row) => at_null,
                _ => by_value.get(key).copied().unwrap_or(false),
            })
            .collect());
    }
    is_true(&conjunct.node, &frame)
}
