//! A table's definition, from what a statement said of it.

use arrow_schema::DataType;
use tandem_format::TableDef;
use tandem_types::{Column, ColumnId, Error, PartitionUnit, Result, TableName, TableSchema};

use crate::intent::{ColumnSpec, TableSpec};
use crate::settings::{check_table_option, partition_unit};

/// Says in place of a column's name that a table has no designated timestamp.
const NO_TIMESTAMP: &str = "none";

impl TableSpec {
    /// Fills in the defaults and checks that all of it fits together. Column ids count from 1.
    pub fn resolve(&self, name: &TableName) -> Result<TableDef> {
        self.resolve_parts().map_err(|error| error.context(format_args!("table {name}")))
    }

    fn resolve_parts(&self) -> Result<TableDef> {
        let spec = self.with_options_moved()?;
        super::check_columns(spec.columns.len())?;
        let timestamp = spec.designated_timestamp()?;
        let columns: Vec<Column> = spec
            .columns
            .iter()
            .zip(1..)
            .map(|(c, id)| Column {
                id: ColumnId(id),
                name: c.name.clone(),
                data_type: c.data_type.clone(),
                nullable: c.nullable && timestamp != Some(ColumnId(id)),
            })
            .collect();
        let mut schema = TableSchema { columns };
        let primary_key = match &spec.primary_key {
            None => Vec::new(),
            Some(names) => names.iter().map(|name| key_column(&schema, name)).collect::<Result<_>>()?,
        };
        for column in &mut schema.columns {
            column.nullable &= !primary_key.contains(&column.id);
        }
        let partition_by = match (timestamp, spec.partition_by) {
            (Some(_), unit) => unit.unwrap_or_default(),
            (None, None | Some(PartitionUnit::None)) => PartitionUnit::None,
            (None, Some(unit)) => {
                return Err(Error::invalid(format!(
                    "partitions by {unit} need a designated timestamp, and no column is a timestamp"
                )));
            }
        };
        let order_by = match &spec.order_by {
            None => timestamp.into_iter().collect(),
            Some(names) => names.iter().map(|name| sort_column(&schema, name)).collect::<Result<_>>()?,
        };
        let mut options = spec.options;
        options.sort();
        if primary_key.is_empty() && options.iter().any(|(key, _)| key == "on_duplicate") {
            return Err(Error::invalid("on_duplicate needs a primary key"));
        }
        Ok(TableDef { schema, timestamp, partition_by, order_by, primary_key, options })
    }

    /// The spec with the parts that plain `WITH` options said moved to where they belong.
    fn with_options_moved(&self) -> Result<Self> {
        let mut spec = self.clone();
        spec.options.clear();
        for (key, value) in &self.options {
            let twice = |said: bool| match said {
                true => Err(Error::invalid(format!("{key:?} is said twice"))),
                false => Ok(()),
            };
            match key.as_str() {
                "timestamp" => {
                    twice(spec.timestamp.is_some())?;
                    spec.timestamp = Some(value.clone());
                }
                "partition_by" => {
                    twice(spec.partition_by.is_some())?;
                    spec.partition_by = Some(partition_unit(value)?);
                }
                "order_by" => {
                    twice(spec.order_by.is_some())?;
                    spec.order_by = Some(names(value));
                }
                "primary_key" => {
                    twice(spec.primary_key.is_some())?;
                    spec.primary_key = Some(names(value));
                }
                _ => {
                    check_table_option(key, Some(value))?;
                    twice(spec.options.iter().any(|(k, _)| k == key))?;
                    spec.options.push((key.clone(), value.clone()));
                }
            }
        }
        Ok(spec)
    }

    fn designated_timestamp(&self) -> Result<Option<ColumnId>> {
        let is_timestamp = |c: &ColumnSpec| matches!(c.data_type, DataType::Timestamp(_, _));
        let position = match &self.timestamp {
            None => self.columns.iter().position(is_timestamp),
            Some(name) if name == NO_TIMESTAMP && self.columns.iter().all(|c| c.name != NO_TIMESTAMP) => None,
            Some(name) => {
                let position = self.columns.iter().position(|c| c.name == *name);
                let found = position.and_then(|p| self.columns.get(p)).ok_or_else(|| {
                    Error::not_found(format!("the designated timestamp {name:?} is not among the columns"))
                })?;
                if !is_timestamp(found) {
                    return Err(Error::invalid(format!(
                        "the designated timestamp {name:?} is {}, it must be a timestamp",
                        found.data_type
                    )));
                }
                position
            }
        };
        Ok(position.and_then(|p| u32::try_from(p + 1).ok()).map(ColumnId))
    }
}

/// Names by commas.
fn names(value: &str) -> Vec<String> {
    value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn key_column(schema: &TableSchema, name: &str) -> Result<ColumnId> {
    let column = schema
        .by_name(name)
        .ok_or_else(|| Error::not_found(format!("the key column {name:?} is not among the columns")))?;
    if column.data_type.is_nested() || column.data_type.is_floating() || column.data_type == DataType::Null {
        return Err(Error::unsupported(format!(
            "the key column {name:?} is {}, which cannot be compared for equality safely",
            column.data_type
        )));
    }
    Ok(column.id)
}

fn sort_column(schema: &TableSchema, name: &str) -> Result<ColumnId> {
    let column = schema
        .by_name(name)
        .ok_or_else(|| Error::not_found(format!("the sort column {name:?} is not among the columns")))?;
    if column.data_type.is_nested() || column.data_type == DataType::Null {
        return Err(Error::unsupported(format!(
            "the sort column {name:?} is {}, which has no order",
            column.data_type
        )));
    }
    Ok(column.id)
}
