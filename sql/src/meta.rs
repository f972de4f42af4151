//! What Flight SQL's metadata commands list.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use tandem_manifest::Manifest;
use tandem_types::{DEFAULT_CATALOG, Result};

use crate::catalog::SYSTEM_SCHEMA;
use crate::error::IntoTandem;
use crate::session::Session;
use crate::wire::wire_schema;

/// The schema that SQL itself defines.
const INFORMATION_SCHEMA: &str = "information_schema";

/// The types that [`list_tables`] knows.
pub const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

/// A table as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableMeta {
    pub catalog: &'static str,
    pub schema: String,
    pub name: String,
    /// One of [`TABLE_TYPES`].
    pub table_type: &'static str,
    /// With wire types.
    pub columns: SchemaRef,
}

/// The schemas of a state, sorted by name.
pub fn list_schemas(snapshot: &Manifest) -> Vec<String> {
    let mut names: Vec<String> =
        snapshot.schemas().chain([SYSTEM_SCHEMA, INFORMATION_SCHEMA]).map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// All tables of a state, sorted by schema and name.
///
/// # Errors
///
/// Only if DataFusion fails to say what its own tables are.
pub async fn list_tables(session: &Session, snapshot: &Arc<Manifest>) -> Result<Vec<TableMeta>> {
    let state = session.state(snapshot)?;
    let mut tables = Vec::new();
    for schema in list_schemas(snapshot) {
        let provider = state.schema_for_ref(TableReference::partial(schema.as_str(), "any")).tandem()?;
        let mut names = provider.table_names();
        names.sort_unstable();
        let table_type = match schema.as_str() {
            SYSTEM_SCHEMA => "SYSTEM TABLE",
            INFORMATION_SCHEMA => "VIEW",
            _ => "TABLE",
        };
        for name in names {
            let Some(table) = provider.table(&name).await.tandem()? else { continue };
            let table: Arc<dyn TableProvider> = table;
            let columns = Arc::new(wire_schema(&table.schema()));
            tables.push(TableMeta {
                catalog: DEFAULT_CATALOG,
                schema: schema.clone(),
                name,
                table_type,
                columns,
            });
        }
    }
    Ok(tables)
}
