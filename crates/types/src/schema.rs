//! A table's schema: columns with ids that outlive their names.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::{ColumnId, Error, Result};

/// A column: the id binds data to it, the name is what users say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub id: ColumnId,
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
}

/// The columns of a table at one schema version, in the order users see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSchema {
    pub columns: Vec<Column>,
}

impl TableSchema {
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|c| c.id == id)
    }

    pub fn by_name(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    pub fn position(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|c| c.id == id)
    }

    /// The schema as Arrow says it: declared types, ids left out.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable)).collect();
        Arc::new(Schema::new(fields))
    }
}

/// The deepest nesting of lists, structs and maps in a column's type.
const MAX_TYPE_DEPTH: usize = 32;

/// Refuses a type that a data file cannot hold; `column` goes into the message.
pub fn check_data_type(column: &str, data_type: &DataType) -> Result<()> {
    check_depth(column, data_type, 0)
}

fn check_depth(column: &str, data_type: &DataType, depth: usize) -> Result<()> {
    if depth > MAX_TYPE_DEPTH {
        return Err(Error::invalid(format!("column {column:?} nests deeper than {MAX_TYPE_DEPTH} levels")));
    }
    match data_type {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _)
        | DataType::Map(f, _) => check_depth(column, f.data_type(), depth + 1),
        // Parquet has no group without members.
        DataType::Struct(fields) if fields.is_empty() => Err(Error::unsupported(format!(
            "column {column:?} is a struct without fields, which Parquet cannot hold"
        ))),
        DataType::Struct(fields) => {
            fields.iter().try_for_each(|f| check_depth(column, f.data_type(), depth + 1))
        }
        DataType::Dictionary(_, value) => check_depth(column, value, depth + 1),
        DataType::Union(_, _) | DataType::RunEndEncoded(_, _) | DataType::Interval(_) => Err(
            Error::unsupported(format!("column {column:?} has type {data_type}, which Parquet cannot hold")),
        ),
        _ => Ok(()),
    }
}
