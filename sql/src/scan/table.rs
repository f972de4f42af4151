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
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, project_schema};
use datafusion::scalar::ScalarValue;
use tandem_manifest::Table;

use super::files::file_scan;
use super::prune::{live_range, select};
use super::tail::TailExec;
use super::{ScanContext, query_schema};

/// A table as of its snapshot. Nothing in it ever changes.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotTable {
    pub(super) context: Arc<ScanContext>,
    pub(super) table: Table,
    pub(super) schema: SchemaRef,
}

impl SnapshotTable {
    pub(crate) fn new(context: Arc<ScanContext>, table: Table) -> Self {
        let schema = query_schema(table.schema());
        Self { context, table, schema }
    }

    /// Position of the designated timestamp.
    pub(super) fn timestamp_index(&self) -> Option<usize> {
        self.table.timestamp().and_then(|column| self.table.schema().position(column.id))
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
        let selected = select(&self.table, &self.schema, filters, state)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        if !selected.files.is_empty() {
            // An order is of use only if nothing without it is mixed in.
            let ordered = selected.sections.is_empty();
            inputs.push(file_scan(self, &selected.files, projection, limit, ordered, state)?);
        }
        if !selected.sections.is_empty() {
            let rows = selected.sections.iter().map(|s| s.live_rows()).sum();
            let bytes = selected.sections.iter().map(|s| s.live_bytes()).sum();
            // The range of a section that is partly compacted is a bound, not a fact.
            let times = selected
                .sections
                .iter()
                .map(|s| if s.is_whole() { live_range(&self.table, s) } else { None });
            let statistics = self.statistics(rows, bytes, times);
            let partitions = state.config().target_partitions();
            let tail = TailExec::new(self, selected.sections, projection, statistics, partitions, limit)?;
            inputs.push(Arc::new(tail));
        }
        if inputs.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        UnionExec::try_new(inputs)
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
