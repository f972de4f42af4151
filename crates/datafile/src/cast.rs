//! Bringing batches to a table's schema: by column id, losslessly.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow_schema::DataType;
use tandem_types::{ColumnId, Error, Result, TableSchema, widens_to};

use crate::stored::stored_type;

/// Arranges `batch`, whose columns have the ids `ids`, as `target` declares: columns that the batch lacks
/// are null, columns that the target lacks are left out, types are widened or encoded anew.
///
/// # Errors
///
/// `SchemaConflict` if a type does not widen to the declared one; `Internal` if ids and columns differ in
/// number or a column that must not be null is missing or holds nulls.
pub fn cast_to_schema(batch: &RecordBatch, ids: &[ColumnId], target: &TableSchema) -> Result<RecordBatch> {
    if ids.len() != batch.num_columns() {
        return Err(Error::internal(format!(
            "a batch has {} columns and {} column ids",
            batch.num_columns(),
            ids.len()
        )));
    }
    let rows = batch.num_rows();
    let mut columns = Vec::with_capacity(target.columns.len());
    for column in &target.columns {
        let found = ids.iter().position(|id| *id == column.id);
        columns.push(match found {
            Some(index) => cast_array(batch.column(index), &column.data_type, &column.name)?,
            None => new_null_array(&column.data_type, rows),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(target.arrow(), columns, &options)
        .map_err(|e| Error::internal(format!("rows do not fit their table's schema: {e}")))
}

/// Casts one column to `to` if that loses nothing; `name` goes into the message.
pub fn cast_array(array: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    if *from == DataType::Null {
        return Ok(new_null_array(to, array.len()));
    }
    let fits = widens_to(from, to) || stored_type(from).equals_datatype(&stored_type(to));
    if !fits {
        return Err(Error::schema_conflict(format!("column {name:?}: {from} does not widen to {to}")));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &strict)
        .map_err(|e| Error::schema_conflict(format!("column {name:?}: {from} cannot become {to}: {e}")))
}
