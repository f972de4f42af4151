//! The provider: one table of one snapshot.

use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use tandem_manifest::Table;
use tandem_types::{Column, TableSchema};

use super::{ScanContext, plan, query_schema};

/// A table as of its snapshot. Nothing in it ever changes.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotTable {
    pub(super) context: Arc<ScanContext>,
    pub(super) table: Table,
    /// The table's columns; for scans that need more, those as well.
    pub(super) columns: Arc<TableSchema>,
    /// How queries see them.
    pub(super) schema: SchemaRef,
}

impl SnapshotTable {
    pub(crate) fn new(context: Arc<ScanContext>, table: Table) -> Self {
        let columns = Arc::new(table.schema().clone());
        let schema = query_schema(&columns);
        Self { context, table, columns, schema }
    }

    /// The designated timestamp, as these columns call it.
    pub(crate) fn timestamp(&self) -> Option<&Column> {
        self.table.timestamp().and_then(|column| self.columns.column(column.id))
    }

    /// Position of the designated timestamp.
    pub(super) fn timestamp_index(&self) -> Option<usize> {
        self.table.timestamp().and_then(|column| self.columns.position(column.id))
    }

    /// Exact statistics of rows whose timestamps lie in the given ranges.
    pub(super) fn statistics(
        &self,
        rows: u64,
        bytes: u64,
        times: impl Iterator<Item = Option<(i64, i64)>>,
    ) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX));
        statistics.total_byte_size = Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX));
        // One range that is not known makes the whole unknown.
        let range = times.reduce(|a, b| Some((a?.0.min(b?.0), a?.1.max(b?.1)))).flatten();
        if let (Some(index), Some((first, last))) = (self.timestamp_index(), range)
            && let Some(column) = statistics.column_statistics.get_mut(index)
        {
            let value = |ticks| timestamp(self.schema.field(index).data_type(), ticks);
            *column = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: value(first).map_or(Precision::Absent, Precision::Exact),
                max_value: value(last).map_or(Precision::Absent, Precision::Exact),
                ..ColumnStatistics::new_unknown()
            };
        }
        statistics
    }
}

/// A timestamp of the given type.
fn timestamp(data_type: &DataType, ticks: i64) -> Option<ScalarValue> {
    ScalarValue::Int64(Some(ticks)).cast_to(data_type).ok()
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Statistics decide about files and row groups, not about rows: the filter stays above the scan,
        // and goes into it later where that pays.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        plan::scan(self, state, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        _input: Arc<dyn ExecutionPlan>,
        _insert_op: InsertOp,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        // Writes never go through a query's plan: they are transactions.
        Err(DataFusionError::NotImplemented("a query cannot write".to_owned()))
    }
}
