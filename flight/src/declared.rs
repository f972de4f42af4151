//! The types in which a client's columns are stored: plain encodings, dictionaries with 32-bit keys.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use tandem_types::{Error, Result};

/// The schema in which rows of `schema` are handed on: declared types, and nothing but name, type, nullability.
pub(crate) fn declared_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(declared_field).collect::<Fields>())
}

/// The declared type of a column that a client sends as `data_type`.
pub(crate) fn declared_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::RunEndEncoded(_, values) => declared_type(values.data_type()),
        DataType::Dictionary(_, values) => {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(declared_type(values)))
        }
        DataType::List(f) | DataType::ListView(f) => DataType::List(declared_field(f)),
        DataType::LargeList(f) | DataType::LargeListView(f) => DataType::LargeList(declared_field(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(declared_field(f), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(declared_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(declared_field(entries), *sorted),
        other => other.clone(),
    }
}

fn declared_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), declared_type(field.data_type()), field.is_nullable()))
}

/// The batch in `schema`, which is the declared schema of its own.
pub(crate) fn to_declared(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::invalid(format!("the rows do not keep to their schema: {e}")))
}

fn cast(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &strict).map_err(|e| {
        let (name, from, to) = (field.name(), column.data_type(), field.data_type());
        Error::invalid(format!("column {name:?} is sent as {from} and cannot be stored as {to}: {e}"))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Int32RunArray, StringArray, StringViewArray};
    use arrow::datatypes::{Int8Type, Int32Type};

    use super::*;

    #[test]
    fn columns_are_stored_in_their_declared_types() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a")]));
        let small: ArrayRef = Arc::new(["x", "y", "x"].into_iter().collect::<DictionaryArray<Int8Type>>());
        let runs: ArrayRef = Arc::new(["p", "p", "q"].into_iter().collect::<Int32RunArray>());
        let batch = RecordBatch::try_from_iter([("v", view), ("d", small), ("r", runs)]).unwrap();
        let schema = Arc::new(declared_schema(&batch.schema()));
        let stored = to_declared(&batch, &schema).unwrap();
        assert_eq!(stored.column(0).as_ref(), &StringArray::from(vec![Some("a"), None, Some("a")]));
        let keys = ["x", "y", "x"].into_iter().collect::<DictionaryArray<Int32Type>>();
        assert_eq!(stored.column(1).data_type(), &keys.data_type().clone());
        assert_eq!(stored.column(2).as_ref(), &StringArray::from(vec!["p", "p", "q"]));
    }

    #[test]
    fn nested_types_and_nullability_are_kept() {
        let item = Arc::new(Field::new("item", DataType::Utf8View, false));
        let fields = vec![
            Field::new("l", DataType::ListView(item), false),
            Field::new("n", DataType::Int64, true).with_metadata([("k".to_owned(), "v".to_owned())].into()),
        ];
        let declared = declared_schema(&Schema::new(fields));
        let item = Arc::new(Field::new("item", DataType::Utf8, false));
        let expected =
            vec![Field::new("l", DataType::List(item), false), Field::new("n", DataType::Int64, true)];
        assert_eq!(declared, Schema::new(expected));
    }
}
