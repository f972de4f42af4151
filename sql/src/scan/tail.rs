//! The tail as a leaf of a plan: sections are loaded when the query runs, one at a time per stream.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tandem_manifest::TailSection;

use super::pending::{Ready, Widened};
use super::sections::SectionReader;
use crate::error::to_datafusion;

/// A section to read, and what its rows have to go through.
#[derive(Clone, Debug)]
pub(super) struct TailPiece {
    pub(super) section: Arc<TailSection>,
    pub(super) mutations: Option<Arc<Ready>>,
}

/// Reads the live rows of tail sections.
#[derive(Clone, Debug)]
pub(super) struct TailExec {
    scan: Arc<SectionReader>,
    /// What each stream reads, in log order.
    groups: Arc<Vec<Vec<TailPiece>>>,
    properties: Arc<PlanProperties>,
    statistics: Arc<Statistics>,
    fetch: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
}

impl TailExec {
    /// `statistics` are of the query's columns.
    pub(super) fn new(
        wide: Widened,
        sections: Vec<TailPiece>,
        statistics: Statistics,
        partitions: usize,
        fetch: Option<usize>,
    ) -> Self {
        let groups = group(sections, partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&wide.output)),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            scan: Arc::new(SectionReader::new(wide)),
            groups: Arc::new(groups),
            properties: Arc::new(properties),
            statistics: Arc::new(statistics),
            fetch,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

/// Cuts sections into at most `partitions` runs of about equal size, in log order.
fn group(sections: Vec<TailPiece>, partitions: usize) -> Vec<Vec<TailPiece>> {
    let rows: u64 = sections.iter().map(|piece| piece.section.live_rows()).sum();
    let share = rows.div_ceil(partitions.max(1) as u64).max(1);
    let mut groups: Vec<Vec<TailPiece>> = Vec::new();
    let mut filled = share;
    for section in sections {
        if filled >= share {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += section.section.live_rows();
        if let Some(last) = groups.last_mut() {
            last.push(section);
        }
    }
    groups
}

impl DisplayAs for TailExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections: usize = self.groups.iter().map(Vec::len).sum();
        let table = self.scan.table_name();
        write!(f, "TailExec: table={table}, sections={sections}, streams={}", self.groups.len())?;
        let mutated = self.groups.iter().flatten().filter(|piece| piece.mutations.is_some()).count();
        if mutated > 0 {
            write!(f, ", mutated={mutated}")?;
        }
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
        let schema = Arc::clone(&self.scan.wide.output);
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, rows.boxed()))))
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
            return Ok(Arc::new(Statistics::new_unknown(&self.scan.wide.output)));
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
pub(super) fn limited(
    rows: impl Stream<Item = DfResult<RecordBatch>> + Send,
    fetch: Option<usize>,
) -> impl Stream<Item = DfResult<RecordBatch>> + Send {
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
    scan: Arc<SectionReader>,
    sections: Vec<TailPiece>,
    batch_rows: usize,
) -> impl Stream<Item = DfResult<RecordBatch>> + Send {
    stream::iter(sections)
        .then(move |piece| {
            let scan = Arc::clone(&scan);
            async move {
                let loaded = scan.load(&piece.section).await.map_err(to_datafusion)?;
                let slices = slices(&loaded.batches, batch_rows.max(1));
                Ok::<_, DataFusionError>(stream::iter(
                    slices.into_iter().map(move |batch| piece.project(&scan, &batch)),
                ))
            }
        })
        .try_flatten()
        .try_filter(|batch| std::future::ready(batch.num_rows() > 0))
}

impl TailPiece {
    /// What the query wants of the live rows of a batch.
    fn project(&self, scan: &SectionReader, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let rows = scan.project(&self.section, &self.section.live, batch).map_err(to_datafusion)?;
        match &self.mutations {
            None => scan.wide.narrow(rows),
            Some(ready) => scan.wide.finish(rows, ready.get(&scan.wide).map_err(to_datafusion)?),
        }
    }
}

fn slices(batches: &[RecordBatch], rows: usize) -> Vec<RecordBatch> {
    let cut = |batch: &RecordBatch| -> Vec<RecordBatch> {
        let starts = (0..batch.num_rows()).step_by(rows);
        starts.map(|start| batch.slice(start, rows.min(batch.num_rows() - start))).collect()
    };
    batches.iter().flat_map(cut).collect()
}
