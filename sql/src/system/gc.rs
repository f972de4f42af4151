//! `system.gc`: every object in the store that the collector may delete one day, and what holds it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, arrow_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use tokio::runtime::Handle;

use super::table::{Type, schema_of, text, u64s};
use crate::database::Database;
use crate::error::to_datafusion;
use crate::runtime::on;

/// The objects, as the store lists them when the query runs.
#[derive(Clone, Debug)]
pub(super) struct GcTable {
    database: Arc<dyn Database>,
    schema: SchemaRef,
    /// The runtime that owns the store's connections.
    io: Handle,
}

impl GcTable {
    pub(super) fn new(database: Arc<dyn Database>, io: Handle) -> Self {
        use Type::{Text, U64};
        let schema = schema_of(&[("path", Text), ("bytes", U64), ("state", Text), ("held_by", Text)]);
        Self { database, schema, io }
    }
}

#[async_trait]
impl TableProvider for GcTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::clone(&self.schema);
        let exec =
            StreamingTableExec::try_new(schema, vec![Arc::new(self.clone())], projection, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

impl PartitionStream for GcTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (database, schema, io) = (Arc::clone(&self.database), Arc::clone(&self.schema), self.io.clone());
        let rows = async move {
            let look = async move { database.stored_objects().await };
            let objects = on(&io, look).await.and_then(|found| found).map_err(to_datafusion)?;
            let columns = vec![
                text(objects.iter().map(|o| Some(&o.path))),
                u64s(objects.iter().map(|o| Some(o.bytes))),
                text(objects.iter().map(|o| Some(&o.state))),
                text(objects.iter().map(|o| o.held_by.as_ref())),
            ];
            RecordBatch::try_new(schema, columns).map_err(|e| arrow_datafusion_err!(e))
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(rows)))
    }
}
