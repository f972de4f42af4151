//! `SHOW` and `DESCRIBE`: questions about the schema, turned into queries on a snapshot.
//!
//! The answers are ordinary queries, so that they stream, cancel and travel like any other.

use std::fmt::Write;

use arrow_schema::DataType;
use datafusion::sql::parser;
use tandem_manifest::{Manifest, Table};
use tandem_types::{Column, DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, Result, TableName};

use crate::statement::{READ_ONLY_SCHEMAS, Show, Statement, StatementLimits, parse, quote_name, type_name};

impl Show {
    /// The query that answers it on this state.
    ///
    /// # Errors
    ///
    /// `NotFound` for a table or schema that does not exist.
    pub fn query(&self, snapshot: &Manifest) -> Result<Box<parser::Statement>> {
        let sql = match self {
            Self::Tables { schema, like } => tables(snapshot, schema.as_deref(), like.as_deref())?,
            Self::Schemas { like } => schemas(snapshot, like.as_deref()),
            Self::Columns { table } if READ_ONLY_SCHEMAS.contains(&table.schema.as_str()) => system_columns(table),
            Self::Columns { table } => columns(snapshot.require(table)?),
            Self::CreateTable { table } if READ_ONLY_SCHEMAS.contains(&table.schema.as_str()) => {
                return Err(Error::unsupported(format!("{table} is filled by the system, nothing creates it")));
            }
            Self::CreateTable { table } => {
                let sql = create_table(snapshot.require(table)?);
                format!("SELECT {} AS table_name, {} AS create_statement", text(&table.to_string()), text(&sql))
            }
        };
        match parse(&sql, DEFAULT_SCHEMA, &UNBOUNDED)?.pop() {
            Some(Statement::Query(query)) => Ok(query),
            _ => Err(Error::internal(format!("SHOW became no query: {sql}"))),
        }
    }
}

/// The text is ours: its length follows from the schema, which has bounds of its own.
const UNBOUNDED: StatementLimits = StatementLimits {
    max_bytes: usize::MAX,
    max_tokens: usize::MAX,
    max_depth: 64,
    max_chain: 500,
    max_set_operations: 500,
    max_joins: 500,
    max_in_list: 50_000,
};

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A query with these rows, which may be none. Every row has all columns, already as SQL.
fn rows(columns: &[&str], types: &[&str], rows: &[Vec<String>], tail: &str) -> String {
    let list: Vec<String> =
        columns.iter().zip(types).map(|(name, sql_type)| format!("CAST({name} AS {sql_type}) AS {name}")).collect();
    let nulls = vec!["NULL"; columns.len()].join(", ");
    // `VALUES` needs a row to have columns; the marker tells it from the real ones.
    let mut values = format!("(0, {nulls})");
    for (i, row) in rows.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = write!(values, ", ({}, {})", i + 1, row.join(", "));
    }
    let (list, names) = (list.join(", "), columns.join(", "));
    format!("SELECT {list} FROM (VALUES {values}) AS shown (position, {names}) WHERE position > 0{tail}")
}

fn like_clause(column: &str, like: Option<&str>) -> String {
    like.map_or_else(String::new, |pattern| format!(" AND {column} LIKE {}", text(pattern)))
}

fn tables(snapshot: &Manifest, schema: Option<&str>, like: Option<&str>) -> Result<String> {
    if let Some(schema) = schema {
        if READ_ONLY_SCHEMAS.contains(&schema) {
            return Ok(format!(
                "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                 WHERE table_schema = {}{} ORDER BY table_schema, table_name",
                text(schema),
                like_clause("table_name", like)
            ));
        }
        if !snapshot.has_schema(schema) {
            return Err(Error::not_found(format!("schema {schema} does not exist")));
        }
    }
    let shown = snapshot.named_tables().map(Table::name).filter(|name| schema.is_none_or(|s| s == name.schema));
    let shown: Vec<Vec<String>> =
        shown.map(|name| vec![text(&name.schema), text(&name.table), text("BASE TABLE")]).collect();
    let tail = format!("{} ORDER BY table_schema, table_name", like_clause("table_name", like));
    Ok(rows(&["table_schema", "table_name", "table_type"], &["VARCHAR"; 3], &shown, &tail))
}

fn schemas(snapshot: &Manifest, like: Option<&str>) -> String {
    let all = snapshot.schemas().chain(READ_ONLY_SCHEMAS);
    let shown: Vec<Vec<String>> = all.map(|schema| vec![text(DEFAULT_CATALOG), text(schema)]).collect();
    let tail = format!("{} ORDER BY schema_name", like_clause("schema_name", like));
    rows(&["catalog_name", "schema_name"], &["VARCHAR"; 2], &shown, &tail)
}

/// As `DESCRIBE` of a user's table, where it says something of a system table.
fn system_columns(table: &TableName) -> String {
    format!(
        "SELECT column_name, data_type, is_nullable, CAST(NULL AS VARCHAR) AS sql_type, \
         false AS designated, CAST(NULL AS INT) AS sort_position \
         FROM information_schema.columns WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        text(&table.schema),
        text(&table.table)
    )
}

fn columns(table: &Table) -> String {
    let timestamp = table.timestamp().map(|column| column.id);
    let shown: Vec<Vec<String>> = table
        .schema()
        .columns
        .iter()
        .map(|column| {
            let sort = table.order_by().iter().position(|id| *id == column.id);
            vec![
                text(&column.name),
                text(&column.data_type.to_string()),
                text(if column.nullable { "YES" } else { "NO" }),
                text(&type_name(&column.data_type)),
                (timestamp == Some(column.id)).to_string(),
                sort.map_or_else(|| "NULL".to_owned(), |position| (position + 1).to_string()),
            ]
        })
        .collect();
    let names = ["column_name", "data_type", "is_nullable", "sql_type", "designated", "sort_position"];
    let types = ["VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BOOLEAN", "INT"];
    rows(&names, &types, &shown, " ORDER BY position")
}

/// Statements that create an empty table equal to this one.
///
/// One statement nearly always. Where a table without a designated timestamp got a column of a timestamp
/// type later, `CREATE TABLE` would designate that column, so it is added by an `ALTER TABLE` again.
pub fn create_table(table: &Table) -> String {
    let name = qualified(table.name());
    let all = table.schema().columns.as_slice();
    let is_timestamp = |c: &Column| matches!(c.data_type, DataType::Timestamp(_, _));
    let created = match table.timestamp() {
        Some(_) => all.len(),
        None => all.iter().position(is_timestamp).unwrap_or(all.len()),
    };
    let (created, added) = all.split_at_checked(created).unwrap_or((all, &[]));

    let columns: Vec<String> = created.iter().map(|c| format!("\n  {}", declaration(c))).collect();
    let mut sql = format!("CREATE TABLE {name} ({}\n)", columns.join(","));
    if let Some(timestamp) = table.timestamp() {
        sql += &format!("\nTIMESTAMP({})", quote_name(&timestamp.name));
        sql += &format!("\nPARTITION BY {}", table.partition_by().name().to_uppercase());
    }
    let sort: Vec<String> = table
        .order_by()
        .iter()
        .filter_map(|id| table.schema().column(*id))
        .map(|column| quote_name(&column.name))
        .collect();
    if table.timestamp().is_some() || !sort.is_empty() {
        sql += &format!("\nORDER BY ({})", sort.join(", "));
    }
    let options: Vec<String> =
        table.def().options.iter().map(|(key, value)| format!("{} = {}", quote_name(key), text(value))).collect();
    if !options.is_empty() {
        sql += &format!("\nWITH ({})", options.join(", "));
    }
    if !added.is_empty() {
        let added: Vec<String> = added.iter().map(|c| format!("\n  ADD COLUMN {}", declaration(c))).collect();
        sql += &format!(";\nALTER TABLE {name}{}", added.join(","));
    }
    sql
}

fn declaration(column: &Column) -> String {
    let not_null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {}{not_null}", quote_name(&column.name), type_name(&column.data_type))
}

fn qualified(name: &TableName) -> String {
    if name.schema == DEFAULT_SCHEMA {
        quote_name(&name.table)
    } else {
        format!("{}.{}", quote_name(&name.schema), quote_name(&name.table))
    }
}
