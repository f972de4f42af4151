//! The Arrow types that a file says its columns have, beside the Parquet ones.
//!
//! A file keeps each column's declared type, with two exceptions that `cast_to_schema` undoes:
//!
//! - dictionary keys are at least 32 bits wide: a declared 8-bit key may hold in every batch and yet not
//!   in a row group, whose dictionary Parquet keeps as a whole;
//! - dictionaries of anything but strings and binaries are kept as their values, the only form in which
//!   Parquet takes them.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tandem_types::{Column, ColumnId, Error, Result, TableSchema};

/// The type under which a file keeps a column declared as `declared`.
pub fn stored_type(declared: &DataType) -> DataType {
    use DataType::*;
    let field = |f: &FieldRef| -> FieldRef {
        let stored = stored_type(f.data_type());
        if stored.equals_datatype(f.data_type()) {
            Arc::clone(f)
        } else {
            Arc::new(f.as_ref().clone().with_data_type(stored))
        }
    };
    match declared {
        Dictionary(key, value) => match value.as_ref() {
            Utf8 | LargeUtf8 | Binary | LargeBinary => {
                let key = match key.as_ref() {
                    Int64 | UInt32 | UInt64 => key.clone(),
                    _ => Box::new(Int32),
                };
                Dictionary(key, value.clone())
            }
            // The Parquet reader makes no dictionaries of views.
            Utf8View => Dictionary(Box::new(Int32), Box::new(Utf8)),
            BinaryView => Dictionary(Box::new(Int32), Box::new(Binary)),
            other => stored_type(other),
        },
        List(f) => List(field(f)),
        LargeList(f) => LargeList(field(f)),
        ListView(f) => ListView(field(f)),
        LargeListView(f) => LargeListView(field(f)),
        FixedSizeList(f, n) => FixedSizeList(field(f), *n),
        Map(f, sorted) => Map(field(f), *sorted),
        Struct(fields) => Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// The schema that a file of `table` carries: stored types, and the columns' ids as `field_id`.
pub(crate) fn stored_schema(table: &TableSchema) -> Result<SchemaRef> {
    let mut fields = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        tandem_types::check_data_type(&column.name, &column.data_type)?;
        if i32::try_from(column.id.0).is_err() {
            return Err(Error::unsupported(format!(
                "column {:?} has id {}, beyond the 31 bits of Parquet's field id",
                column.name, column.id
            )));
        }
        let id = [(PARQUET_FIELD_ID_META_KEY.to_owned(), column.id.to_string())];
        fields.push(
            Field::new(&column.name, stored_type(&column.data_type), column.nullable)
                .with_metadata(id.into_iter().collect()),
        );
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Reads a schema back that [`stored_schema`] wrote.
pub(crate) fn table_schema(stored: &Schema) -> Result<TableSchema> {
    let columns = stored.fields().iter().map(|field| {
        let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| {
            Error::damaged(format!("column {:?} carries no column id: not a data file of ours", field.name()))
        })?;
        Ok(Column {
            id: ColumnId(id),
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
        })
    });
    Ok(TableSchema { columns: columns.collect::<Result<_>>()? })
}
