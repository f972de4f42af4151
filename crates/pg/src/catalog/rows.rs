//! Small tables, written down row by row.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use tandem_types::{Error, Result};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Int,
    Text,
    Bool,
    Ints,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum V {
    Null,
    Int(i64),
    Text(String),
    Bool(bool),
    Ints(Vec<i64>),
}

impl From<&str> for V {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for V {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for V {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for V {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<i32> for V {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for V {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl From<Vec<i64>> for V {
    fn from(numbers: Vec<i64>) -> Self {
        Self::Ints(numbers)
    }
}

/// A row, its values in the columns' order.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::catalog::rows::V::from($value)),*] };
}
pub(super) use row;

/// A table of these columns, written `name:type name:type …` with the types `i` integer, `t` text, `b` boolean and `l` list of
/// integers.
pub(super) fn table(columns: &str, rows: &[Vec<V>]) -> Result<Arc<MemTable>> {
    let columns: Vec<(&str, Of)> = columns
        .split_whitespace()
        .filter_map(|column| column.split_once(':'))
        .map(|(name, of)| {
            let of = match of {
                "i" => Of::Int,
                "b" => Of::Bool,
                "l" => Of::Ints,
                _ => Of::Text,
            };
            (name, of)
        })
        .collect();
    if let Some(short) = rows.iter().find(|row| row.len() != columns.len()) {
        let message = format!("a row of {} values for {} columns: {short:?}", short.len(), columns.len());
        return Err(Error::internal(message));
    }
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, of)| {
            let data_type = match of {
                Of::Int => DataType::Int64,
                Of::Text => DataType::Utf8,
                Of::Bool => DataType::Boolean,
                Of::Ints => DataType::new_list(DataType::Int64, true),
            };
            Field::new(*name, data_type, true)
        })
        .collect();
    let arrays = columns.iter().enumerate().map(|(at, (_, of))| {
        let values = rows.iter().map(|row| row.get(at).unwrap_or(&V::Null));
        array(*of, values)
    });
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("a catalog table cannot be made: {e}"));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays.collect()).map_err(|e| failed(&e))?;
    MemTable::try_new(schema, vec![vec![batch]]).map(Arc::new).map_err(|e| failed(&e))
}

fn array<'a>(of: Of, values: impl Iterator<Item = &'a V>) -> ArrayRef {
    match of {
        Of::Int => {
            Arc::new(values.map(|v| if let V::Int(n) = v { Some(*n) } else { None }).collect::<Int64Array>())
        }
        Of::Text => Arc::new(
            values.map(|v| if let V::Text(t) = v { Some(t.as_str()) } else { None }).collect::<StringArray>(),
        ),
        Of::Bool => Arc::new(
            values.map(|v| if let V::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>(),
        ),
        Of::Ints => {
            let mut lists = ListBuilder::new(Int64Builder::new());
            for value in values {
                match value {
                    V::Ints(numbers) => lists.append_value(numbers.iter().map(|n| Some(*n))),
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
    }
}
