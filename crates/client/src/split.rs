//! Cutting batches so that each fits one message: batch numbers in acknowledgements stay true.

use arrow::array::{Array, RecordBatch};

/// The most bytes of data in one message, with room to spare below gRPC's usual limits.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Cuts a batch by rows into pieces of at most `bytes_max` of data each; a single row may exceed it.
/// A batch without rows gives no piece.
pub fn split_batch(batch: &RecordBatch, bytes_max: usize) -> Vec<RecordBatch> {
    let mut pieces = Vec::new();
    // Halving rather than dividing evenly: rows differ in size, and each piece is measured.
    let mut waiting = vec![batch.clone()];
    while let Some(piece) = waiting.pop() {
        let rows = piece.num_rows();
        if rows == 0 {
            continue;
        }
        if rows == 1 || data_bytes(&piece) <= bytes_max {
            pieces.push(piece);
            continue;
        }
        let half = rows / 2;
        waiting.push(piece.slice(half, rows - half));
        waiting.push(piece.slice(0, half));
    }
    pieces
}

/// The bytes that a batch's rows need on the wire, about.
fn data_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            // Types whose slices cannot be measured count with all their buffers.
            data.get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
                + view_bytes(column.as_ref())
        })
        .sum()
}

/// Bytes that views point at; the slice's own size counts only the views.
fn view_bytes(column: &dyn Array) -> usize {
    use arrow::array::AsArray;
    use arrow::datatypes::DataType;
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().lengths().map(|n| n as usize).sum(),
        DataType::BinaryView => column.as_binary_view().lengths().map(|n| n as usize).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::compute::concat_batches;

    use super::*;

    fn batch(rows: usize) -> RecordBatch {
        let numbers = Int64Array::from_iter_values(0..rows as i64);
        let texts = StringArray::from_iter_values((0..rows).map(|i| "x".repeat(i % 100)));
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("t", Arc::new(texts) as _)]).unwrap()
    }

    #[test]
    fn pieces_are_small_in_order_and_complete() {
        let whole = batch(1000);
        let pieces = split_batch(&whole, 4096);
        assert!(pieces.len() > 10);
        assert!(pieces.iter().all(|p| data_bytes(p) <= 4096 && p.num_rows() > 0));
        assert_eq!(concat_batches(&whole.schema(), &pieces).unwrap(), whole);
    }

    #[test]
    fn one_large_row_goes_alone_and_no_rows_go_nowhere() {
        let text = StringArray::from(vec!["x".repeat(10_000), "y".into()]);
        let whole = RecordBatch::try_from_iter([("t", Arc::new(text) as _)]).unwrap();
        assert_eq!(split_batch(&whole, 100).len(), 2);
        assert!(split_batch(&whole.slice(0, 0), 100).is_empty());
    }
}
