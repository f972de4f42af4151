//! Sorting batches in memory: stable, and linear in the number of rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use tandem_types::{Error, Result};

use crate::keys::Keys;
use crate::unify::concat_unified;

/// Rows of a batch that [`sort_batches`] puts out, at most.
pub(crate) const SORTED_BATCH_ROWS: usize = 64 * 1024;

/// Digits of the radix sort have at most this many bits: its counters stay in the cache.
const DIGIT_BITS_MAX: u32 = 12;

/// Sorts the rows of `batches`, which share one schema, by the columns at `sort`: ascending, nulls last,
/// rows with equal keys in the order of the input. Sorted input comes back as it is.
///
/// # Errors
///
/// `Internal` if schemas differ or a sort column does not exist, `Unsupported` if a column's type has no
/// order, `Overloaded` if there are more than 2^32 rows.
pub fn sort_batches(batches: Vec<RecordBatch>, sort: &[usize]) -> Result<Vec<RecordBatch>> {
    let Some(first) = batches.first() else { return Ok(batches) };
    let schema = first.schema();
    if batches.iter().any(|b| b.schema() != schema) {
        return Err(Error::internal("batches to sort differ in their schemas"));
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let Ok(count) = u32::try_from(rows) else {
        return Err(Error::overloaded(format!("{rows} rows are too many to sort at once")));
    };

    let keys = sort.iter().map(|i| Keys::of(column(&batches, *i)?.as_ref()));
    let keys = keys.collect::<Result<Vec<Keys>>>()?;
    if is_sorted(&keys) {
        return Ok(batches);
    }
    let mut order: Vec<u32> = (0..count).collect();
    // Least significant column first: each pass is stable, so the last one decides.
    for keys in keys.iter().rev() {
        sort_pass(keys, &mut order);
    }
    drop(keys);

    let order = UInt32Array::from(order);
    let pieces: Vec<UInt32Array> = (0..rows)
        .step_by(SORTED_BATCH_ROWS)
        .map(|start| order.slice(start, SORTED_BATCH_ROWS.min(rows - start)))
        .collect();
    let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(schema.fields().len()); pieces.len()];
    for index in 0..schema.fields().len() {
        // One column at a time: only it is in memory twice over.
        let whole = column(&batches, index)?;
        for (piece, columns) in pieces.iter().zip(&mut columns) {
            columns.push(take(&whole, piece, None).map_err(sort_failed)?);
        }
    }
    let batch = |(columns, piece): (Vec<ArrayRef>, &UInt32Array)| {
        let options = RecordBatchOptions::new().with_row_count(Some(piece.len()));
        RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options).map_err(sort_failed)
    };
    columns.into_iter().zip(&pieces).map(batch).collect()
}

fn sort_failed(error: arrow_schema::ArrowError) -> Error {
    Error::internal(format!("sorting rows failed: {error}"))
}

fn column(batches: &[RecordBatch], index: usize) -> Result<ArrayRef> {
    let arrays: Option<Vec<&dyn arrow::array::Array>> =
        batches.iter().map(|b| b.columns().get(index).map(AsRef::as_ref)).collect();
    let arrays = arrays.ok_or_else(|| Error::internal(format!("there is no column {index} to sort")))?;
    match (arrays.as_slice(), batches.first()) {
        ([_], Some(only)) => Ok(Arc::clone(only.column(index))),
        _ => concat_unified(&arrays).map_err(sort_failed),
    }
}

fn is_sorted(keys: &[Keys]) -> bool {
    let [first, rest @ ..] = keys else { return true };
    let mut previous = 0;
    first.values.iter().enumerate().all(|(row, key)| {
        let ascends = *key > previous || row == 0;
        let ties = *key == previous;
        previous = *key;
        ascends
            || ties && {
                let key = |k: &Keys, row: usize| k.values.get(row).copied();
                let order = rest.iter().map(|k| key(k, row - 1).cmp(&key(k, row)));
                order.fold(Ordering::Equal, Ordering::then).is_le()
            }
    })
}

/// Sorts rows by the keys, stably.
fn sort_pass(keys: &Keys, order: &mut Vec<u32>) {
    let key = |row: u32| keys.values.get(row as usize).copied().unwrap_or(0);
    if order.is_sorted_by_key(|row| key(*row)) {
        return;
    }
    if order.len() < 1 << 8 {
        order.sort_by_key(|row| key(*row));
        return;
    }
    let passes = keys.bits.div_ceil(DIGIT_BITS_MAX).max(1);
    let width = keys.bits.div_ceil(passes).max(1);
    let mut spare = vec![0; order.len()];
    for pass in 0..passes {
        let digit = |row: u32| ((key(row) >> (pass * width)) & ((1 << width) - 1)) as usize;
        let mut starts = vec![0u32; 1 << width];
        for row in order.iter() {
            if let Some(count) = starts.get_mut(digit(*row)) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        for row in order.iter() {
            if let Some(start) = starts.get_mut(digit(*row))
                && let Some(slot) = spare.get_mut(*start as usize)
            {
                *slot = *row;
                *start += 1;
            }
        }
        std::mem::swap(order, &mut spare);
    }
}
