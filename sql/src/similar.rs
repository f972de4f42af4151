//! Names that differ from what was asked for in case alone: what somebody meant who left out the double quotes.

use datafusion::common::Column;
use datafusion::execution::SessionState;
use tandem_manifest::{Manifest, Table};
use tandem_types::{DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, ErrorKind, Result, TableName};

use crate::statement::quote_name;

/// The table, or why there is none.
///
/// # Errors
///
/// `NotFound`, with the name that was perhaps meant.
pub(crate) fn require<'a>(snapshot: &'a Manifest, name: &TableName) -> Result<&'a Table> {
    snapshot.require(name).map_err(|error| {
        let all = snapshot.named_tables().map(|table| table.name().clone());
        suggest(error, name, all)
    })
}

/// Why a query cannot be planned; where a table is missing, with the name that was perhaps meant.
pub(crate) fn of_plan(error: Error, state: &SessionState) -> Error {
    let Some(name) = missing_table(&error) else { return error };
    let Some(catalog) = state.catalog_list().catalog(DEFAULT_CATALOG) else { return error };
    let all = catalog.schema_names().into_iter().flat_map(|schema| {
        let tables = catalog.schema(&schema).map(|found| found.table_names()).unwrap_or_default();
        tables.into_iter().map(move |table| TableName::new(&schema, table))
    });
    suggest(error, &name, all)
}

/// The table that the planner says it has not found: `table 'catalog.schema.table' not found`.
fn missing_table(error: &Error) -> Option<TableName> {
    if error.kind() != ErrorKind::NotFound {
        return None;
    }
    let path = error.message().strip_prefix("table '")?.strip_suffix("' not found")?;
    let (schema, table) = path.strip_prefix(DEFAULT_CATALOG)?.strip_prefix('.')?.split_once('.')?;
    Some(TableName::new(schema, table))
}

fn suggest(error: Error, name: &TableName, all: impl Iterator<Item = TableName>) -> Error {
    let wanted = (name.schema.to_lowercase(), name.table.to_lowercase());
    let mut all = all.filter(|other| other != name);
    match all.find(|other| (other.schema.to_lowercase(), other.table.to_lowercase()) == wanted) {
        Some(found) => {
            Error::new(error.kind(), format!("{}: did you mean {}", error.message(), shown(&found)))
        }
        None => error,
    }
}

/// A table's name as SQL text.
fn shown(name: &TableName) -> String {
    let table = quote_name(&name.table);
    if name.schema == DEFAULT_SCHEMA { table } else { format!("{}.{table}", quote_name(&name.schema)) }
}

/// What to say of a column that is not there, where another one's name differs in case alone.
pub(crate) fn no_column(field: &Column, valid: &[Column]) -> Option<String> {
    let same = |a: &str, b: &str| a != b && a.to_lowercase() == b.to_lowercase();
    let by_name = valid.iter().find(|other| same(&other.name, &field.name));
    let meant = match by_name {
        Some(other) => quote_name(&other.name),
        // Its table's name differs.
        None => {
            let flat = field.flat_name();
            valid.iter().find(|other| same(&other.flat_name(), &flat))?.quoted_flat_name()
        }
    };
    Some(format!("no column named {}: did you mean {meant}", field.quoted_flat_name()))
}
