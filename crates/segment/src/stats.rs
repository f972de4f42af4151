//! What a commit header says about a batch.

use arrow::array::{Array, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_schema::{DataType, TimeUnit};
use tandem_types::{Error, Result};

/// Rows, nulls and time range of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchStats {
    pub rows: u64,
    /// By column: rows whose value is null, be it through a dictionary or a run.
    pub null_counts: Vec<u64>,
    /// The least and the greatest designated timestamp, in the column's own ticks; nulls do not count. `None` without a
    /// designated timestamp or without a value in it.
    pub time: Option<(i64, i64)>,
}

/// Statistics of a batch; `timestamp` is the position of the designated timestamp's column.
///
/// Whether nulls are allowed there is for the caller to say: `null_counts` tells how many there are.
/// Errors: no such column, or one that is no timestamp, is invalid input.
pub fn column_stats(batch: &RecordBatch, timestamp: Option<usize>) -> Result<BatchStats> {
    let null_counts = batch.columns().iter().map(|c| c.logical_null_count() as u64).collect();
    let time = timestamp.map(|i| time_range(batch, i)).transpose()?.flatten();
    Ok(BatchStats { rows: batch.num_rows() as u64, null_counts, time })
}

fn time_range(batch: &RecordBatch, position: usize) -> Result<Option<(i64, i64)>> {
    let column = batch.columns().get(position).ok_or_else(|| {
        Error::invalid(format!(
            "the designated timestamp is column {position}, the batch has {}",
            batch.num_columns()
        ))
    })?;
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => Ok(range::<TimestampSecondType>(column)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(range::<TimestampMillisecondType>(column)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(range::<TimestampMicrosecondType>(column)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(range::<TimestampNanosecondType>(column)),
        other => {
            Err(Error::invalid(format!("the designated timestamp, column {position}, has type {other}")))
        }
    }
}

fn range<T>(column: &dyn Array) -> Option<(i64, i64)>
where
    T: ArrowPrimitiveType<Native = i64>,
{
    let values = column.as_primitive::<T>();
    Some((min(values)?, max(values)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, DictionaryArray, Int32Array, Int64Array, NullArray, StringArray, TimestampMillisecondArray,
    };

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().enumerate().map(|(i, c)| (format!("c{i}"), c, true)),
        )
        .unwrap()
    }

    #[test]
    fn counts_nulls_and_finds_the_range() {
        let keys = Int32Array::from(vec![Some(0), Some(1), None]);
        let values = StringArray::from(vec![Some("a"), None]);
        let b = batch(vec![
            Arc::new(TimestampMillisecondArray::from(vec![Some(7), None, Some(-3)]).with_timezone("UTC")),
            Arc::new(DictionaryArray::new(keys, Arc::new(values))),
            Arc::new(NullArray::new(3)),
            Arc::new(Int64Array::from(vec![1, 2, 3])),
        ]);
        let stats = column_stats(&b, Some(0)).unwrap();
        assert_eq!(stats, BatchStats { rows: 3, null_counts: vec![1, 2, 3, 0], time: Some((-3, 7)) });
        assert_eq!(column_stats(&b, None).unwrap().time, None);
        assert_eq!(column_stats(&b.slice(1, 1), Some(0)).unwrap().time, None);
        assert_eq!(column_stats(&b.slice(0, 0), Some(0)).unwrap().time, None);
    }

    #[test]
    fn refuses_what_is_no_timestamp() {
        let b = batch(vec![Arc::new(Int64Array::from(vec![1]))]);
        assert!(column_stats(&b, Some(0)).unwrap_err().message().contains("Int64"));
        assert!(column_stats(&b, Some(5)).unwrap_err().message().contains("column 5"));
    }
}
