//! Commands that describe the database: catalogs, schemas, tables, keys, types, SQL itself.
//!
//! Clients compare these schemas with the standard's to the last nullability.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{GetTablesBuilder, SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::{Command, CommandGetPrimaryKeys, CommandGetTables};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tandem_manifest::Manifest;
use tandem_sql::meta;
use tandem_types::{DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, Result, TableName};

use crate::sql_info::sql_info;
use crate::state::Caller;
use crate::type_info::type_info;

/// The one type of tables that users make.
const TABLE: &str = "TABLE";

static SQL_INFO: LazyLock<Option<SqlInfoData>> = LazyLock::new(|| sql_info().build().ok());
static TYPE_INFO: LazyLock<Option<XdbcTypeInfoData>> = LazyLock::new(|| type_info().build().ok());

/// The schema of a command's rows.
pub(crate) fn schema(command: &Command) -> Result<SchemaRef> {
    Ok(match command.clone() {
        Command::CommandGetCatalogs(command) => command.into_builder().schema(),
        Command::CommandGetDbSchemas(command) => command.into_builder().schema(),
        Command::CommandGetTables(command) => command.into_builder().schema(),
        Command::CommandGetTableTypes(command) => command.into_builder().schema(),
        Command::CommandGetSqlInfo(command) => command.into_builder(known(&SQL_INFO)?).schema(),
        Command::CommandGetXdbcTypeInfo(command) => command.into_builder(known(&TYPE_INFO)?).schema(),
        Command::CommandGetPrimaryKeys(_) => primary_keys(),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => foreign_keys(),
        Command::CommandStatementSubstraitPlan(_) => {
            return Err(Error::unsupported("Substrait plans are not supported"));
        }
        other => return Err(Error::unsupported(format!("command {:?} is not supported", other.type_url()))),
    })
}

/// The rows of a command, of a state.
pub(crate) async fn rows(caller: &Caller, state: &Arc<Manifest>, command: Command) -> Result<RecordBatch> {
    let schema = schema(&command)?;
    match command {
        Command::CommandGetCatalogs(command) => {
            let mut rows = command.into_builder();
            rows.append(DEFAULT_CATALOG);
            rows.build()
        }
        Command::CommandGetDbSchemas(command) => {
            let mut rows = command.into_builder();
            for name in meta::list_schemas(state) {
                rows.append(DEFAULT_CATALOG, name);
            }
            rows.build()
        }
        Command::CommandGetTables(command) => return tables(caller, state, command).await,
        Command::CommandGetTableTypes(command) => {
            let mut rows = command.into_builder();
            for name in meta::TABLE_TYPES {
                rows.append(name);
            }
            rows.build()
        }
        Command::CommandGetSqlInfo(command) => command.into_builder(known(&SQL_INFO)?).build(),
        Command::CommandGetXdbcTypeInfo(command) => command.into_builder(known(&TYPE_INFO)?).build(),
        Command::CommandGetPrimaryKeys(command) => return primary_key(state, command),
        // No table refers to another.
        _ => Ok(RecordBatch::new_empty(schema)),
    }
    .map_err(|e| failed(&e))
}

async fn tables(
    caller: &Caller,
    state: &Arc<Manifest>,
    mut command: CommandGetTables,
) -> Result<RecordBatch> {
    command.table_types = table_types(command.table_types);
    let mut rows: GetTablesBuilder = command.into_builder();
    for table in meta::list_tables(&caller.session, state).await? {
        rows.append(table.catalog, &table.schema, &table.name, table.table_type, &table.columns)
            .map_err(|e| failed(&e))?;
    }
    rows.build().map_err(|e| failed(&e))
}

/// The key of one table, a row for each of its columns, in the key's order.
fn primary_key(state: &Manifest, command: CommandGetPrimaryKeys) -> Result<RecordBatch> {
    let schema = command.db_schema.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
    let name = TableName::new(schema, command.table);
    let known = command.catalog.is_none_or(|catalog| catalog == DEFAULT_CATALOG);
    let columns: Vec<&str> = match state.table_named(&name).filter(|_| known) {
        Some(table) => table
            .primary_key()
            .iter()
            .filter_map(|id| table.schema().column(*id))
            .map(|column| column.name.as_str())
            .collect(),
        // As of a table that does not exist, nothing is known of a system table.
        None => Vec::new(),
    };
    let repeated = |text: &str| Arc::new(StringArray::from(vec![text; columns.len()])) as ArrayRef;
    let places = (1..).take(columns.len()).collect::<Int32Array>();
    let arrays = vec![
        repeated(DEFAULT_CATALOG),
        repeated(&name.schema),
        repeated(&name.table),
        Arc::new(StringArray::from(columns.clone())),
        Arc::new(places),
        Arc::new(StringArray::new_null(columns.len())),
    ];
    RecordBatch::try_new(primary_keys(), arrays)
        .map_err(|e| Error::internal(format!("describing the database: {e}")))
}

/// Clients call a plain table by several names.
fn table_types(asked: Vec<String>) -> Vec<String> {
    let mut types: Vec<String> = asked.into_iter().map(|t| t.to_uppercase()).collect();
    for table_type in &mut types {
        if table_type == "BASE TABLE" {
            TABLE.clone_into(table_type);
        }
    }
    types.sort();
    types.dedup();
    types
}

fn known<T>(data: &Option<T>) -> Result<&T> {
    data.as_ref().ok_or_else(|| Error::internal("the description of the server cannot be built"))
}

fn failed(error: &FlightError) -> Error {
    match error {
        FlightError::Arrow(error) => Error::invalid(format!("the filter cannot be applied: {error}")),
        other => Error::internal(format!("describing the database: {other}")),
    }
}

fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
}

fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandGetPrimaryKeys, CommandGetSqlInfo, CommandStatementSubstraitPlan};
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn a_plain_table_goes_by_several_names() {
        let types = |asked: &[&str]| table_types(asked.iter().map(|t| (*t).to_owned()).collect());
        assert_eq!(types(&["BASE TABLE", "table"]), ["TABLE"]);
        assert_eq!(types(&["view", "TABLE"]), ["TABLE", "VIEW"]);
        assert!(types(&[]).is_empty());
    }

    #[test]
    fn schemas_are_known_without_rows() {
        let keys = schema(&Command::CommandGetPrimaryKeys(CommandGetPrimaryKeys::default())).unwrap();
        assert_eq!(keys.field(4).name(), "key_sequence");
        let info = schema(&Command::CommandGetSqlInfo(CommandGetSqlInfo::default())).unwrap();
        assert!(matches!(info.field(1).data_type(), DataType::Union(..)));
        let plan = Command::CommandStatementSubstraitPlan(CommandStatementSubstraitPlan::default());
        assert_eq!(schema(&plan).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
