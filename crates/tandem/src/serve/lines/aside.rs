//! Rows as they go into tables that lines do not describe: keys without gaps, and `system.rejected`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use tandem_lines::Diverted;
use tandem_manifest::rejected_spec;
use tandem_types::{Error, Result, Seq};

/// The rows with an empty text where one has no value of a key column.
pub(super) fn without_gaps(batch: &RecordBatch, keys: &[String]) -> Result<RecordBatch> {
    let gaps =
        |name: &String| batch.column_by_name(name).is_none_or(|column| column.logical_null_count() > 0);
    if !keys.iter().any(gaps) {
        return Ok(batch.clone());
    }
    fill(batch, keys).map_err(|e| Error::internal(format!("tags of a key: {e}")))
}

fn fill(batch: &RecordBatch, keys: &[String]) -> std::result::Result<RecordBatch, ArrowError> {
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| (**field).clone()).collect();
    let mut columns = batch.columns().to_vec();
    for name in keys {
        let position = fields.iter().position(|field| field.name() == name);
        let Some((position, column)) = position.and_then(|p| Some((p, columns.get(p)?))) else {
            let empty: ArrayRef = Arc::new(StringArray::from(vec![""; batch.num_rows()]));
            fields.push(Field::new(name, tag.clone(), true));
            columns.push(cast(&empty, &tag)?);
            continue;
        };
        let texts = cast(column, &DataType::Utf8)?;
        let texts: &StringArray = arrow::array::AsArray::as_string(&texts);
        let filled: StringArray = texts.iter().map(|text| Some(text.unwrap_or_default())).collect();
        let filled = cast(&filled, column.data_type())?;
        if let Some(column) = columns.get_mut(position) {
            *column = filled;
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// Lines that were kept aside, as rows of `system.rejected`. `state` is what they were read for, `now` is in microseconds.
pub(super) fn rejected(lines: &[Diverted], state: Seq, now: i64, client: &str) -> Result<RecordBatch> {
    let text = |of: fn(&Diverted) -> &str| -> ArrayRef {
        Arc::new(lines.iter().map(|line| Some(of(line))).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from(vec![state.0; lines.len()])),
        Arc::new(TimestampMicrosecondArray::from(vec![now; lines.len()])),
        text(|line| &line.table),
        text(|line| &line.column),
        text(|line| &line.expected),
        text(|line| &line.got),
        text(|line| &line.line),
        Arc::new(StringArray::from(vec![client; lines.len()])),
    ];
    let fields = rejected_spec().columns.into_iter().map(|c| Field::new(c.name, c.data_type, c.nullable));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
        .map_err(|e| Error::internal(format!("lines that were kept aside: {e}")))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::array::types::Int32Type;

    use super::*;

    #[test]
    fn keys_have_no_gaps() {
        let tags: ArrayRef =
            Arc::new([Some("a"), None].into_iter().collect::<arrow::array::DictionaryArray<Int32Type>>());
        let batch = RecordBatch::try_from_iter_with_nullable([("host", tags, true)]).unwrap();
        let keys = ["host".to_owned(), "dc".to_owned()];
        let filled = without_gaps(&batch, &keys).unwrap();
        for (name, expected) in [("host", ["a", ""]), ("dc", ["", ""])] {
            let column = filled.column_by_name(name).unwrap();
            assert!(matches!(column.data_type(), DataType::Dictionary(..)));
            let texts = cast(column, &DataType::Utf8).unwrap();
            assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), expected);
        }
        assert_eq!(without_gaps(&filled, &keys).unwrap(), filled);
        assert_eq!(without_gaps(&batch, &[]).unwrap(), batch);
    }

    #[test]
    fn what_is_kept_aside_fits_its_table() {
        let line = Diverted {
            table: "t".into(),
            column: "v".into(),
            expected: "Int64".into(),
            got: "a string".into(),
            line: "t v=\"x\" 1".into(),
        };
        let rows = rejected(&[line.clone(), line], Seq(7), 5, "me").unwrap();
        assert_eq!((rows.num_rows(), rows.num_columns()), (2, 8));
    }
}
