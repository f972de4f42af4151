//! Rows of the table become rows of the stream.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt64Array,
    new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, interleave_record_batch};
use arrow_schema::SchemaRef;
use tandem_types::{Error, Result, Seq};

/// Rows of one batch, at most.
pub(super) const BATCH_ROWS: usize = 8192;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    UpdateBefore,
    UpdateAfter,
    Delete,
    /// No row: the table's columns are others from here on, or it is gone.
    Schema,
}

impl Op {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::UpdateBefore => "update_before",
            Self::UpdateAfter => "update_after",
            Self::Delete => "delete",
            Self::Schema => "schema",
        }
    }
}

/// Tells rows of one commit.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    /// Of the stream.
    pub(super) schema: SchemaRef,
    pub(super) seq: Seq,
    /// Microseconds since 1970.
    pub(super) commit_time: i64,
}

impl Teller {
    /// All rows of a batch; its first fields are the table's columns.
    pub(super) fn all(&self, op: Op, rows: &RecordBatch) -> Result<RecordBatch> {
        self.ops(rows, |_| op)
    }

    /// Rows of several batches of one shape: batch and row of each, and what became of it.
    pub(super) fn picked(
        &self,
        batches: &[&RecordBatch],
        picks: &[(Op, usize, usize)],
    ) -> Result<RecordBatch> {
        let places: Vec<(usize, usize)> = picks.iter().map(|(_, batch, row)| (*batch, *row)).collect();
        let rows = interleave_record_batch(batches, &places)
            .map_err(|e| Error::internal(format!("rows before and after differ in shape: {e}")))?;
        self.ops(&rows, |row| picks.get(row).map_or(Op::Schema, |(op, ..)| *op))
    }

    /// A row that tells that there was something, and not what.
    pub(super) fn marker(&self, op: Op) -> Result<RecordBatch> {
        let columns = self.table_fields().map(|field| new_null_array(field.data_type(), 1)).collect();
        self.finish(columns, 1, |_| op)
    }

    fn table_fields(&self) -> impl Iterator<Item = &arrow_schema::FieldRef> {
        let fields = self.schema.fields();
        fields.iter().take(fields.len().saturating_sub(3))
    }

    fn ops(&self, rows: &RecordBatch, op: impl Fn(usize) -> Op) -> Result<RecordBatch> {
        let columns = self.table_fields().zip(rows.columns());
        let columns: Vec<ArrayRef> = columns
            .map(|(field, column)| {
                if column.data_type() == field.data_type() {
                    return Ok(Arc::clone(column));
                }
                // A value of a type that the table does not have any more may not fit: then it is null.
                cast_with_options(column, field.data_type(), &CastOptions::default()).map_err(|e| {
                    let (name, from, to) = (field.name(), column.data_type(), field.data_type());
                    Error::internal(format!("column {name:?} is {from} and cannot become {to}: {e}"))
                })
            })
            .collect::<Result<_>>()?;
        self.finish(columns, rows.num_rows(), op)
    }

    fn finish(
        &self,
        mut columns: Vec<ArrayRef>,
        rows: usize,
        op: impl Fn(usize) -> Op,
    ) -> Result<RecordBatch> {
        columns.push(Arc::new(UInt64Array::from_value(self.seq.0, rows)));
        columns.push(Arc::new((0..rows).map(|row| Some(op(row).name())).collect::<StringArray>()));
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(self.commit_time, rows)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::internal(format!("changes do not fit the columns of their stream: {e}")))
    }
}

/// Cuts a batch.
pub(super) fn slices(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + Send + use<> {
    let batch = batch.clone();
    let rows = batch.num_rows();
    (0..rows).step_by(BATCH_ROWS).map(move |start| batch.slice(start, BATCH_ROWS.min(rows - start)))
}

/// What a batch takes, without what it shares with others.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(of).sum()
}
