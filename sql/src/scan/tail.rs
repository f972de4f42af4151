//! The tail as a leaf of a plan: sections are loaded when the query runs, one at a time per stream.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, project_schema,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tandem_datafile::cast_array;
use tandem_manifest::TailSection;
use tandem_types::{ColumnId, Error, Partition, PartitionUnit, Result, TableId, TimeRange};

use super::ScanContext;
use super::table::SnapshotTable;
use crate::error::to_datafusion;
use crate::runtime::on;

/// Reads the live rows of tail sections.
#[derive(Clone, Debug)]
pub(super) struct TailExec {
    scan: Arc<TailScan>,
    /// What each stream reads, in log order.
    groups: Arc<Vec<Vec<Arc<TailSection>>>>,
    properties: Arc<PlanProperties>,
    statistics: Arc<Statistics>,
    fetch: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
}

/// What is common to all streams.
#[derive(Debug)]
struct TailScan {
    context: Arc<ScanContext>,
    table: TableId,
    name: String,
    /// The columns to read, in the order of `schema`.
    columns: Vec<ColumnId>,
    schema: SchemaRef,
    partitioning: Option<PartitionBy>,
}

/// How a row's partition is found.
#[derive(Clone, Copy, Debug)]
struct PartitionBy {
    column: ColumnId,
    unit: TimeUnit,
    by: PartitionUnit,
}

impl TailExec {
    pub(super) fn new(
        table: &SnapshotTable,
        sections: Vec<Arc<TailSection>>,
        projection: Option<&Vec<usize>>,
        statistics: Statistics,
        partitions: usize,
        fetch: Option<usize>,
    ) -> DfResult<Self> {
        let schema = project_schema(&table.schema, projection)?;
        let all = &table.table.schema().columns;
        let columns = match projection {
            Some(chosen) => chosen.iter().filter_map(|i| all.get(*i)).map(|c| c.id).collect(),
            None => all.iter().map(|c| c.id).collect(),
        };
        let partitioning = table.table.timestamp().and_then(|column| match column.data_type {
            DataType::Timestamp(unit, _) => {
                Some(PartitionBy { column: column.id, unit, by: table.table.partition_by() })
            }
            _ => None,
        });
        let scan = TailScan {
            context: Arc::clone(&table.context),
            table: table.table.id(),
            name: table.table.name().to_string(),
            columns,
            schema: Arc::clone(&schema),
            partitioning,
        };
        let groups = group(sections, partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self {
            scan: Arc::new(scan),
            groups: Arc::new(groups),
            properties: Arc::new(properties),
            statistics: Arc::new(statistics.project(projection)),
            fetch,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

/// Cuts sections into at most `partitions` runs of about equal size, in log order.
fn group(sections: Vec<Arc<TailSection>>, partitions: usize) -> Vec<Vec<Arc<TailSection>>> {
    let rows: u64 = sections.iter().map(|s| s.live_rows()).sum();
    let share = rows.div_ceil(partitions.max(1) as u64).max(1);
    let mut groups: Vec<Vec<Arc<TailSection>>> = Vec::new();
    let mut filled = share;
    for section in sections {
        if filled >= share {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += section.live_rows();
        if let Some(last) = groups.last_mut() {
            last.push(section);
        }
    }
    groups
}

impl DisplayAs for TailExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections: usize = self.groups.iter().map(Vec::len).sum();
        write!(f, "TailExec: table={}, sections={sections}, streams={}", self.scan.name, self.groups.len())?;
        match self.fetch {
            Some(fetch) => write!(f, ", fetch={fetch}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for TailExec {
    fn name(&self) -> &'static str {
        "TailExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("TailExec is a leaf");
        }
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("TailExec is a leaf");
        }
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let Some(sections) = self.groups.get(partition) else {
            return internal_err!("TailExec has no stream {partition}");
        };
        let rows = rows(Arc::clone(&self.scan), sections.clone(), context.session_config().batch_size());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = limited(rows, self.fetch).inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
        let schema = Arc::clone(&self.scan.schema);
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, rows.map_err(to_datafusion).boxed()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> DfResult<Arc<Statistics>> {
        if args.partition().is_some() {
            return Ok(Arc::new(Statistics::new_unknown(&self.scan.schema)));
        }
        match self.fetch {
            None => Ok(Arc::clone(&self.statistics)),
            Some(_) => {
                Ok(Arc::new(self.statistics.as_ref().clone().with_fetch(self.fetch, 0, self.groups.len())?))
            }
        }
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { fetch: limit, metrics: ExecutionPlanMetricsSet::new(), ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }
}

/// Ends a stream after `fetch` rows.
fn limited(
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
    fetch: Option<usize>,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let mut left = fetch;
    rows.map(move |batch| {
        let batch = batch?;
        let Some(rest) = left else { return Ok((batch, true)) };
        let taken = batch.num_rows().min(rest);
        left = Some(rest - taken);
        Ok((batch.slice(0, taken), taken > 0))
    })
    .take_while(|item| std::future::ready(!matches!(item, Ok((_, false)))))
    .map_ok(|(batch, _)| batch)
}

/// The live rows of `sections`, in batches of at most `batch_rows`.
fn rows(
    scan: Arc<TailScan>,
    sections: Vec<Arc<TailSection>>,
    batch_rows: usize,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::iter(sections)
        .then(move |section| {
            let scan = Arc::clone(&scan);
            async move {
                let database = Arc::clone(&scan.context.database);
                let (table, wanted) = (scan.table, Arc::clone(&section));
                let load = async move { database.tail_rows(table, &wanted).await };
                let loaded = on(&scan.context.io, load).await??;
                let slices = slices(&loaded.batches, batch_rows.max(1));
                Ok::<_, Error>(stream::iter(
                    slices.into_iter().map(move |batch| scan.project(&section, &batch)),
                ))
            }
        })
        .try_flatten()
        .try_filter(|batch| std::future::ready(batch.num_rows() > 0))
}

fn slices(batches: &[RecordBatch], rows: usize) -> Vec<RecordBatch> {
    let cut = |batch: &RecordBatch| -> Vec<RecordBatch> {
        let starts = (0..batch.num_rows()).step_by(rows);
        starts.map(|start| batch.slice(start, rows.min(batch.num_rows() - start))).collect()
    };
    batches.iter().flat_map(cut).collect()
}

impl TailScan {
    /// Live rows and wanted columns of a batch, in the types of queries.
    fn project(&self, section: &TailSection, batch: &RecordBatch) -> Result<RecordBatch> {
        let ids = &section.section.columns;
        if ids.len() != batch.num_columns() {
            return Err(Error::damaged(format!(
                "a tail section of table {} has {} columns instead of {}",
                self.name,
                batch.num_columns(),
                ids.len()
            )));
        }
        let column = |id: ColumnId| ids.iter().position(|known| *known == id).map(|i| batch.column(i));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (id, field) in self.columns.iter().zip(self.schema.fields()) {
            columns.push(match column(*id) {
                Some(array) => cast_array(array, field.data_type(), field.name())
                    .map_err(|e| e.context(format!("table {}", self.name)))?,
                None => new_null_array(field.data_type(), batch.num_rows()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let broken =
            |e| Error::damaged(format!("a tail section of table {} does not fit it: {e}", self.name));
        let rows =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(broken)?;
        if section.is_whole() {
            return Ok(rows);
        }
        let Some(by) = self.partitioning else { return Ok(rows) };
        let Some(times) = column(by.column) else {
            return Err(Error::damaged(format!("a tail section of table {} has no timestamps", self.name)));
        };
        let live = live_mask(times, by, &section.live).map_err(broken)?;
        filter_record_batch(&rows, &live).map_err(broken)
    }
}

/// Which rows are of partitions that are still in the tail.
fn live_mask(
    times: &ArrayRef,
    by: PartitionBy,
    live: &[Partition],
) -> std::result::Result<BooleanArray, arrow::error::ArrowError> {
    let ticks = cast(times, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    // Neighbours mostly share a partition: its range answers without the calendar.
    let mut last: Option<(TimeRange, bool)> = None;
    let mut verdict = |t: i64| match last {
        Some((range, live)) if range.start <= t && t < range.end => live,
        _ => {
            let partition = by.by.partition(t, by.unit);
            let is_live = live.binary_search(&partition).is_ok();
            last = Some((by.by.range(partition, by.unit), is_live));
            is_live
        }
    };
    Ok((0..ticks.len()).map(|i| Some(ticks.is_valid(i) && verdict(ticks.value(i)))).collect())
}
