//! Files whose rows are not the last word: mutations are still to act on them, or the tail holds newer rows of their
//! keys. A leaf of a plan that reads files (and parts of the tail) and applies what came later.
//!
//! Work is cut into items: files that go through the same mutations, of one group at most. Streams take items from one
//! queue. Whichever stream ends the last item of a group folds what the group's rows of equal keys come to.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSource;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricValue, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use tandem_types::ColumnId;

use super::folding::{Filters, Run};
use super::items::Item;
use super::pending::{BoundMutations, Chosen, Ready};
use super::sections::SectionReader;
use super::split::Part;
use super::tail::limited;

/// What all streams share.
#[derive(Debug)]
pub(super) struct FoldScan {
    /// Reads parts of the tail; its columns are those of all rows here.
    pub(super) sections: SectionReader,
    /// Reads files, of which it has none yet, without filters.
    pub(super) files: FileScanConfig,
    pub(super) mutations: BoundMutations,
    /// The sets of mutations that items name.
    pub(super) sets: Vec<Arc<Ready>>,
    /// Places of the key's columns; empty where groups have no parts of the tail.
    pub(super) key: Vec<usize>,
    pub(super) groups: Vec<Group>,
    pub(super) items: Vec<Item>,
}

/// What is folded together.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// In log order; without any, the group's files are on their own.
    pub(super) parts: Vec<Part>,
    /// Mutations that act on any of its rows, in log order.
    pub(super) mutations: Chosen,
    /// First and last timestamp of the parts' rows, if the key has the timestamp and it is known.
    pub(super) hull: Option<(i64, i64)>,
    pub(super) has_files: bool,
}

impl FoldScan {
    pub(super) fn key_ids(&self) -> Vec<ColumnId> {
        let ids = &self.sections.wide.ids;
        self.key.iter().filter_map(|at| ids.get(*at)).copied().collect()
    }

    /// Whether groups have parts of the tail.
    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }
}

/// Reads files and what came later.
#[derive(Clone, Debug)]
pub(super) struct FoldExec {
    scan: Arc<FoldScan>,
    filters: Arc<Filters>,
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
    fetch: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
    /// Of one execution.
    run: Arc<Run>,
}

impl FoldExec {
    /// `statistics` are of the query's columns.
    pub(super) fn new(
        scan: FoldScan,
        statistics: Statistics,
        partitions: usize,
        fetch: Option<usize>,
    ) -> Self {
        let streams = partitions.clamp(1, scan.items.len().max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&scan.sections.wide.output)),
            Partitioning::UnknownPartitioning(streams),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let scan = Arc::new(scan);
        let filters = Arc::new(Filters::default());
        Self {
            run: Arc::new(Run::new(Arc::clone(&scan), Arc::clone(&filters))),
            scan,
            filters,
            statistics: Arc::new(statistics.to_inexact()),
            properties: Arc::new(properties),
            fetch,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Itself before any execution, with other filters.
    fn fresh(&self, filters: Arc<Filters>) -> Self {
        let run = Arc::new(Run::new(Arc::clone(&self.scan), Arc::clone(&filters)));
        Self { filters, run, metrics: ExecutionPlanMetricsSet::new(), ..self.clone() }
    }
}

impl DisplayAs for FoldExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scan = &self.scan;
        let mut files: Vec<_> =
            scan.items.iter().flat_map(|item| &item.files).map(|p| p.file.file.name).collect();
        files.dedup();
        let parts: usize = scan.groups.iter().map(|group| group.parts.len()).sum();
        write!(f, "FoldExec: table={}, files={}", scan.sections.table_name(), files.len())?;
        if parts > 0 {
            write!(f, ", groups={}, tail_parts={parts}", scan.groups.len())?;
        }
        write!(
            f,
            ", mutations={}, streams={}",
            scan.mutations.len(),
            self.properties.partitioning.partition_count()
        )?;
        let mut filters = self.filters.all().peekable();
        if filters.peek().is_some() {
            let filters: Vec<String> = filters.map(ToString::to_string).collect();
            write!(f, ", predicate={}", filters.join(" AND "))?;
        }
        match self.fetch {
            Some(fetch) => write!(f, ", fetch={fetch}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for FoldExec {
    fn name(&self) -> &'static str {
        "FoldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        for filter in self.filters.all() {
            if f(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("FoldExec is a leaf");
        }
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("FoldExec is a leaf");
        }
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.fresh(Arc::clone(&self.filters))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        if partition >= self.properties.partitioning.partition_count() {
            return internal_err!("FoldExec has no stream {partition}");
        }
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = Arc::clone(&self.run).rows(context).try_filter(|b| std::future::ready(b.num_rows() > 0));
        let rows = limited(rows, self.fetch).inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
        let schema = Arc::clone(&self.scan.sections.wide.output);
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, rows.boxed()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.metrics.clone_inner();
        // What files cost; the rows that they had are not what comes out here.
        let files = DataSource::metrics(&self.scan.files).clone_inner();
        for metric in files.iter() {
            if matches!(
                metric.value(),
                MetricValue::Count { .. } | MetricValue::Time { .. } | MetricValue::PruningMetrics { .. }
            ) {
                all.push(Arc::clone(metric));
            }
        }
        Some(all)
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> DfResult<Arc<Statistics>> {
        if args.partition().is_some() {
            return Ok(Arc::new(Statistics::new_unknown(&self.scan.sections.wide.output)));
        }
        match self.fetch {
            None => Ok(Arc::clone(&self.statistics)),
            Some(_) => {
                let streams = self.properties.partitioning.partition_count();
                Ok(Arc::new(self.statistics.as_ref().clone().with_fetch(self.fetch, 0, streams)?))
            }
        }
    }

    /// Filters are used to read less; whoever has them keeps them.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> DfResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let offered = result.parent_filters.len();
        let filters = result.parent_filters.into_iter().map(|f| f.filter).filter(|f| !is_volatile(f));
        let filters = self.filters.with(filters, matches!(phase, FilterPushdownPhase::Post));
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; offered]);
        Ok(match filters {
            None => answer,
            Some(filters) => answer.with_updated_node(Arc::new(self.fresh(Arc::new(filters)))),
        })
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { fetch: limit, ..self.fresh(Arc::clone(&self.filters)) }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }
}
