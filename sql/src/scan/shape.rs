//! A table of one moment in the columns of another, and what changes between the two are worked out with.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use tandem_fold::{Bound, Mutations};
use tandem_format::PendingMutation;
use tandem_manifest::TailSection;
use tandem_types::{ColumnId, Partition, Result, TableSchema};

use super::pending::Widened;
use super::query_schema;
use super::sections::SectionReader;
use super::table::SnapshotTable;
use crate::database::SectionRows;

impl SnapshotTable {
    /// Its rows in the columns that the table has at another moment: bound by id, null where it has none.
    pub(crate) fn in_columns(self, columns: Arc<TableSchema>) -> Self {
        let schema = query_schema(&columns);
        Self { columns, schema, ..self }
    }
}

/// A table's columns, then those that some mutations read and the table has no more.
#[derive(Debug)]
pub(crate) struct Shape {
    sections: SectionReader,
    mutations: Vec<Arc<Bound>>,
}

impl Shape {
    /// Decodes the mutations.
    pub(crate) async fn new(table: &SnapshotTable, pending: &[Arc<PendingMutation>]) -> Result<Self> {
        let mut mutations = Vec::with_capacity(pending.len());
        for pending in pending {
            mutations.push(table.context.bound(pending).await?);
        }
        let wide = Widened::new(table, None, &[], &mutations).map_err(crate::error::from_datafusion)?;
        Ok(Self { sections: SectionReader::new(wide), mutations })
    }

    /// The table with all of these columns.
    pub(crate) fn table(&self) -> &SnapshotTable {
        &self.sections.wide.table
    }

    /// The column of each field.
    pub(crate) fn ids(&self) -> &[ColumnId] {
        &self.sections.wide.ids
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.sections.wide.schema
    }

    pub(crate) fn timestamp(&self) -> Option<ColumnId> {
        self.table().table.timestamp().map(|column| column.id)
    }

    /// In log order.
    pub(crate) fn mutations(&self) -> &[Arc<Bound>] {
        &self.mutations
    }

    /// Some of the mutations, ready for rows of this shape.
    pub(crate) fn ready(&self, mutations: &[Arc<Bound>]) -> Result<Mutations> {
        self.sections.wide.ready(mutations)
    }

    /// All rows of a section, as they are stored.
    pub(crate) async fn load(&self, section: &Arc<TailSection>) -> Result<Arc<SectionRows>> {
        self.sections.load(section).await
    }

    /// The rows of some partitions, ascending, of a batch of a section.
    pub(crate) fn project(
        &self,
        section: &TailSection,
        partitions: &[Partition],
        batch: &RecordBatch,
    ) -> Result<RecordBatch> {
        self.sections.project(section, partitions, batch)
    }
}
