//! How results look outside: no views, no dictionaries, no run ends.
//!
//! One function decides the schema, and everything that names a schema to a client uses it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use tandem_types::{Error, Result};

/// The wire schema of a result.
pub fn wire_schema(schema: &Schema) -> Schema {
    let fields: Vec<FieldRef> = schema.fields().iter().map(wire_field).collect();
    Schema::new(fields)
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    if data_type == *field.data_type() {
        return Arc::clone(field);
    }
    let nullable = field.is_nullable();
    Arc::new(Field::new(field.name(), data_type, nullable).with_metadata(field.metadata().clone()))
}

/// The type that a client sees for a column of type `data_type`.
pub fn wire_type(data_type: &DataType) -> DataType {
    use DataType::*;
    match data_type {
        Utf8View => Utf8,
        BinaryView => Binary,
        Dictionary(_, value) => wire_type(value),
        RunEndEncoded(_, values) => wire_type(values.data_type()),
        List(f) | ListView(f) => List(wire_field(f)),
        LargeList(f) | LargeListView(f) => LargeList(wire_field(f)),
        FixedSizeList(f, n) => FixedSizeList(wire_field(f), *n),
        Struct(fields) => Struct(fields.iter().map(wire_field).collect()),
        Map(entries, sorted) => Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

/// Casts a batch of a result to its wire schema, exactly: types, names, nullability and metadata.
///
/// # Errors
///
/// `Internal` if the batch has another shape; `Overloaded` if a column of views is too large for the
/// 32-bit offsets of its wire type.
pub fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::internal(format!(
            "a result has {} columns instead of {}",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let columns = batch.columns().iter().zip(schema.fields());
    let columns: Vec<ArrayRef> =
        columns.map(|(array, field)| cast_column(array, field)).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|e| Error::internal(format!("a result does not keep to its schema: {e}")))
}

fn cast_column(array: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
    if array.data_type() == field.data_type() {
        return Ok(Arc::clone(array));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, field.data_type(), &strict).map_err(|e| {
        let (name, from, to) = (field.name(), array.data_type(), field.data_type());
        Error::internal(format!("column {name:?} of a result is {from} and cannot become {to}: {e}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, DictionaryArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", item, true)))
    }

    #[test]
    fn views_and_dictionaries_go_away_at_every_depth() {
        let dict = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8View));
        let nested = DataType::Struct(vec![Field::new("s", list(dict.clone()), true)].into());
        let plain = DataType::Struct(vec![Field::new("s", list(DataType::Utf8), true)].into());
        assert_eq!(wire_type(&nested), plain);
        assert_eq!(wire_type(&dict), DataType::Utf8);
        assert_eq!(wire_type(&DataType::LargeUtf8), DataType::LargeUtf8);
    }

    #[test]
    fn a_batch_becomes_exactly_its_wire_schema() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None]));
        let dict: ArrayRef = Arc::new(["x", "y"].into_iter().collect::<DictionaryArray<Int32Type>>());
        let schema = Schema::new(vec![
            Field::new("v", view.data_type().clone(), true),
            Field::new("d", dict.data_type().clone(), false),
        ]);
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![view, dict]).unwrap();
        let wire = Arc::new(wire_schema(&schema));
        let out = to_wire(&batch, &wire).unwrap();
        assert_eq!(out.schema(), wire);
        assert_eq!(out.column(0).as_string::<i32>().value(0), "a");
        assert_eq!(out.column(1).as_string::<i32>().value(1), "y");
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        assert_eq!(to_wire(&none, &Arc::new(Schema::empty())).unwrap().num_rows(), 3);
    }
}
