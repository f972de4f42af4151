//! What names mean to a query: the tables of one snapshot, and the schemas that only read.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::TableType;
use tandem_manifest::Manifest;
use tandem_types::{DEFAULT_CATALOG, TableName};

use crate::engine::Engine;
use crate::scan::{ScanContext, SnapshotTable};
use crate::system::system_tables;
use crate::transaction::OwnRows;

/// The schema of the engine's own tables.
pub(crate) const SYSTEM_SCHEMA: &str = "system";

/// `own` are rows of the transaction whose view the snapshot is.
pub(crate) fn catalog_list(
    engine: &Engine,
    snapshot: &Arc<Manifest>,
    own: Option<Arc<OwnRows>>,
) -> Arc<dyn CatalogProviderList> {
    let context = Arc::new(ScanContext::within(engine, own));
    let catalog = Catalog {
        system: system_tables(
            Arc::clone(engine.database()),
            Arc::clone(engine.registry()),
            Arc::clone(snapshot),
            engine.io().clone(),
            Arc::clone(&context),
        ),
        context,
        snapshot: Arc::clone(snapshot),
    };
    Arc::new(Catalogs(Arc::new(catalog)))
}

/// The one catalog.
#[derive(Debug)]
struct Catalogs(Arc<Catalog>);

impl CatalogProviderList for Catalogs {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![DEFAULT_CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == DEFAULT_CATALOG).then(|| Arc::clone(&self.0) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct Catalog {
    system: Arc<dyn SchemaProvider>,
    context: Arc<ScanContext>,
    snapshot: Arc<Manifest>,
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        self.snapshot.schemas().chain([SYSTEM_SCHEMA]).map(str::to_owned).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == SYSTEM_SCHEMA {
            return Some(Arc::clone(&self.system));
        }
        self.snapshot.has_schema(name).then(|| {
            let (context, snapshot) = (Arc::clone(&self.context), Arc::clone(&self.snapshot));
            Arc::new(UserSchema { name: name.to_owned(), context, snapshot }) as Arc<dyn SchemaProvider>
        })
    }
}

/// A schema of users' tables.
#[derive(Debug)]
struct UserSchema {
    name: String,
    context: Arc<ScanContext>,
    snapshot: Arc<Manifest>,
}

#[async_trait]
impl SchemaProvider for UserSchema {
    fn table_names(&self) -> Vec<String> {
        let tables = self.snapshot.named_tables().map(|table| table.name());
        tables.filter(|name| name.schema == self.name).map(|name| name.table.clone()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let table = self.snapshot.table_named(&TableName::new(&self.name, name));
        Ok(table.map(|table| {
            Arc::new(SnapshotTable::new(Arc::clone(&self.context), table.clone())) as Arc<dyn TableProvider>
        }))
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.snapshot.table_named(&TableName::new(&self.name, name)).is_some()
    }
}
