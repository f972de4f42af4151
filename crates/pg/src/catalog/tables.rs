//! The tables of `pg_catalog` and `information_schema`.

mod empty;
mod information;
mod system;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use tandem_manifest::Table;
use tandem_sql::wire::wire_type;
use tandem_types::{Error, Result, TableId};

use super::View;
use crate::types::{PgType, by_oid, item_of, oid_of};

pub(super) use empty::is_empty;

/// Who owns everything.
pub(super) const OWNER: &str = "tandem";
pub(super) const OWNER_OID: i64 = 10;

/// Schemas whose numbers are the same everywhere.
const PG_CATALOG: i64 = 11;
const PUBLIC: i64 = 2200;
const INFORMATION_SCHEMA: i64 = 13_000;
/// Numbers below are PostgreSQL's own.
const FIRST_OID: i64 = 16_384;
/// Of tables of `pg_catalog` that comments are asked of.
const SYSTEM_TABLES: &[(&str, i64)] = &[
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_database", 1262),
    ("pg_constraint", 2606),
    ("pg_index", 2610),
    ("pg_namespace", 2615),
    ("pg_extension", 3079),
];

/// A primary key, as constraint and as index.
pub(super) struct Key {
    pub schema: String,
    pub table: String,
    pub relation: i64,
    pub name: String,
    pub index: i64,
    pub constraint: i64,
    pub names: Vec<String>,
    /// Positions of the columns, from 1.
    pub positions: Vec<i64>,
}

/// The number of a table. It stays as long as the table is there.
fn table_oid(id: TableId) -> i64 {
    FIRST_OID + 3 * i64::try_from(id.0).unwrap_or(i64::MAX / 4)
}

/// The number of a schema, made of its name, which is all that it has.
pub(super) fn namespace_oid(name: &str) -> i64 {
    match name {
        "pg_catalog" => PG_CATALOG,
        "public" => PUBLIC,
        "information_schema" => INFORMATION_SCHEMA,
        other => {
            let hash = other
                .bytes()
                .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            i64::from(hash | 0x8000_0000)
        }
    }
}

/// Schemas, by name.
pub(super) fn namespaces(view: &View) -> Vec<String> {
    let own = ["information_schema", "pg_catalog"].map(str::to_owned);
    let mut names: Vec<String> = view.state.schemas().map(str::to_owned).chain(own).collect();
    names.sort();
    names.dedup();
    names
}

/// Tables, by schema and name.
fn tables(view: &View) -> Vec<&Table> {
    let mut tables: Vec<&Table> = view.state.named_tables().collect();
    tables.sort_by(|a, b| (&a.name().schema, &a.name().table).cmp(&(&b.name().schema, &b.name().table)));
    tables
}

pub(super) fn keys(view: &View) -> Vec<Key> {
    let keys = tables(view).into_iter().filter(|table| table.is_keyed()).map(|table| {
        let name = table.name();
        let schema = table.schema();
        let relation = table_oid(table.id());
        let columns = table.primary_key().iter().filter_map(|id| {
            let position = i64::try_from(schema.position(*id)? + 1).ok()?;
            Some((schema.column(*id)?.name.clone(), position))
        });
        let (names, positions) = columns.unzip();
        Key {
            schema: name.schema.clone(),
            table: name.table.clone(),
            relation,
            name: format!("{}_pkey", name.table),
            index: relation + 1,
            constraint: relation + 2,
            names,
            positions,
        }
    });
    keys.collect()
}

/// What numbers of relations stand for.
pub(super) fn relations(view: &View) -> HashMap<i64, (String, String)> {
    let tables = tables(view).into_iter().map(|table| {
        let name = table.name();
        (table_oid(table.id()), (name.schema.clone(), name.table.clone()))
    });
    let indexes = keys(view).into_iter().map(|key| (key.index, (key.schema, key.name)));
    let system =
        SYSTEM_TABLES.iter().map(|(name, oid)| (*oid, ("pg_catalog".to_owned(), (*name).to_owned())));
    tables.chain(indexes).chain(system).collect()
}

/// Bytes of tables, by number.
pub(super) fn sizes(view: &View) -> HashMap<i64, i64> {
    let size = |table: &Table| {
        i64::try_from(table.file_bytes().saturating_add(table.tail_bytes())).unwrap_or(i64::MAX)
    };
    tables(view).into_iter().map(|table| (table_oid(table.id()), size(table))).collect()
}

/// The type of a column in results, its number, and the entry of the catalog.
fn column_type(data_type: &arrow_schema::DataType) -> (u32, Option<&'static PgType>) {
    let oid = oid_of(&wire_type(data_type));
    (oid, by_oid(oid))
}

/// A type's name in the catalog: `int8`, and `_int8` for lists.
fn type_name(oid: u32) -> String {
    match (by_oid(oid), item_of(oid)) {
        (Some(known), _) => known.name.to_owned(),
        (None, Some(item)) => format!("_{}", item.name),
        (None, None) => "unknown".to_owned(),
    }
}

/// Everything that can be asked, as one catalog.
pub(super) fn catalog(view: &View) -> Result<Arc<dyn CatalogProvider>> {
    let failed = |e: datafusion::error::DataFusionError| Error::internal(format!("catalog tables: {e}"));
    let catalog = MemoryCatalogProvider::new();
    let mut own = system::tables(view)?;
    own.extend(empty::tables()?);
    for (name, tables) in [("pg_catalog", own), ("information_schema", information::tables(view)?)] {
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in tables {
            schema.register_table(name.to_owned(), table).map_err(failed)?;
        }
        catalog.register_schema(name, schema).map_err(failed)?;
    }
    Ok(Arc::new(catalog))
}

/// Tables by name.
type Named = Vec<(&'static str, Arc<MemTable>)>;
