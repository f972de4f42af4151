//! The schema `system`: what the database knows of itself, as tables.
//!
//! All of it is read from the manifest of one snapshot, but for `log` (read from the store, a run of commits
//! at a time), the times in `producers` (likewise), `queries`, `nodes` and the node's part of `settings`. Columns are a promise to scripts: they are added
//! to, never renamed. `rejected` alone is a table like those of users, which line protocol fills.
//!
//! Times are without a zone and mean UTC, cut to the microsecond. Counts are of the state shown, not of
//! its history.

mod gc;
mod log;
mod log_bounds;
mod producers;
mod rows;
mod table;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use arrow_schema::{Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::empty::EmptyTable;
use tandem_manifest::{Manifest, rejected_spec, rejected_table};
use tokio::runtime::Handle;

use crate::database::Database;
use crate::queries::QueryRegistry;
use crate::scan::{ScanContext, SnapshotTable, query_type};
use gc::GcTable;
use log::LogTable;
use producers::ProducersTable;
use table::{Kind, SystemTable};

/// The schema `system` as of a snapshot; what is read from the store is read on `io`.
pub(crate) fn system_tables(
    database: Arc<dyn Database>,
    queries: Arc<QueryRegistry>,
    snapshot: Arc<Manifest>,
    io: Handle,
    context: Arc<ScanContext>,
) -> Arc<dyn SchemaProvider> {
    Arc::new(SystemSchema { database, queries, snapshot, io, context })
}

#[derive(Debug)]
struct SystemSchema {
    database: Arc<dyn Database>,
    queries: Arc<QueryRegistry>,
    snapshot: Arc<Manifest>,
    io: Handle,
    context: Arc<ScanContext>,
}

/// The tables that are not read from the manifest at once.
const LOG: &str = "log";
const PRODUCERS: &str = "producers";
const GC: &str = "gc";
const REJECTED: &str = "rejected";

impl SystemSchema {
    /// The one that has rows of its own; without any before the first.
    fn rejected(&self) -> Arc<dyn TableProvider> {
        if let Some(table) = self.snapshot.table_named(&rejected_table()) {
            return Arc::new(SnapshotTable::new(Arc::clone(&self.context), table.clone()));
        }
        let columns = rejected_spec().columns.into_iter();
        let columns = columns.map(|c| Field::new(c.name, query_type(&c.data_type), c.nullable));
        Arc::new(EmptyTable::new(Arc::new(Schema::new(columns.collect::<Vec<_>>()))))
    }

    fn provider(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        if name == REJECTED {
            return Some(self.rejected());
        }
        if name == LOG {
            let (database, head) = (Arc::clone(&self.database), self.snapshot.seq());
            return Some(Arc::new(LogTable::new(database, head, self.io.clone())));
        }
        if name == PRODUCERS {
            let (database, snapshot) = (Arc::clone(&self.database), Arc::clone(&self.snapshot));
            return Some(Arc::new(ProducersTable::new(database, snapshot, self.io.clone())));
        }
        if name == GC {
            return Some(Arc::new(GcTable::new(Arc::clone(&self.database), self.io.clone())));
        }
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
        Some(Arc::new(SystemTable {
            kind,
            schema: kind.schema(),
            database: Arc::clone(&self.database),
            queries: Arc::clone(&self.queries),
            snapshot: Arc::clone(&self.snapshot),
        }))
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
        names.extend([LOG, PRODUCERS, GC, REJECTED].map(str::to_owned));
        names.sort();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.provider(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        matches!(name, LOG | PRODUCERS | GC | REJECTED) || Kind::ALL.iter().any(|kind| kind.name() == name)
    }
}
