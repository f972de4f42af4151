//! A scan of very many files: what DataFusion wants to know of each is made when its turn comes to be read.
//!
//! Planning copies and rewrites a scan many times. Over some ten thousand files that costs more than many a query,
//! so the plan carries the manifest's own entries, which are shared, and a scan without files that takes all the
//! optimizer's wishes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSource;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use tandem_manifest::FileState;

use super::files::entry;
use super::table::SnapshotTable;

/// Files whose entries exist at a time.
const CHUNK: usize = 128;

/// A scan of files of one table, in no order.
#[derive(Clone)]
pub(super) struct ManyFiles {
    table: Arc<SnapshotTable>,
    files: Arc<[Arc<FileState>]>,
    partitions: usize,
    /// Everything but the files.
    scan: FileScanConfig,
}

impl fmt::Debug for ManyFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManyFiles").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl ManyFiles {
    /// `scan` has no files.
    pub(super) fn new(
        table: Arc<SnapshotTable>,
        files: Arc<[Arc<FileState>]>,
        partitions: usize,
        scan: FileScanConfig,
    ) -> Self {
        let partitions = partitions.max(1);
        let groups = vec![FileGroup::default(); partitions];
        let scan = FileScanConfigBuilder::from(scan).with_file_groups(groups).build();
        Self { table, files, partitions, scan }
    }

    fn with_scan(&self, scan: &Arc<dyn DataSource>) -> DfResult<Arc<dyn DataSource>> {
        let scan: &dyn Any = scan.as_ref();
        match scan.downcast_ref::<FileScanConfig>() {
            Some(scan) => Ok(Arc::new(Self { scan: scan.clone(), ..self.clone() })),
            None => datafusion::common::internal_err!("a scan of files became something else"),
        }
    }

    /// The places of a partition's files: equal shares, neighbours together.
    fn share(&self, partition: usize) -> std::ops::Range<usize> {
        let (files, of) = (self.files.len(), self.partitions);
        files * partition / of..files * (partition + 1) / of
    }
}

impl DataSource for ManyFiles {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let this = self.clone();
        let share = self.share(partition);
        let chunks = share.clone().step_by(CHUNK).map(move |start| start..(start + CHUNK).min(share.end));
        let streams = futures::stream::iter(chunks).map(move |chunk| {
            let files = this.files.get(chunk).unwrap_or_default();
            let entries = files.iter().map(|file| entry(&this.table, file)).collect();
            let mut groups = vec![FileGroup::default(); this.partitions];
            if let Some(group) = groups.get_mut(partition) {
                *group = FileGroup::new(entries);
            }
            let scan = FileScanConfigBuilder::from(this.scan.clone()).with_file_groups(groups).build();
            scan.open(partition, Arc::clone(&context))
        });
        let mut left = self.scan.limit.unwrap_or(usize::MAX);
        // Each chunk keeps to the limit by itself, and all of them together must.
        let rows = streams.try_flatten().try_filter_map(move |batch| {
            let taken = batch.num_rows().min(left);
            left -= taken;
            let batch = (taken > 0 || batch.num_rows() == 0).then(|| (batch.slice(0, taken), left));
            futures::future::ready(Ok(batch))
        });
        // Ends with the batch that uses the limit up, without opening what follows.
        let rows = rows.scan(false, |ended, item| {
            let next = if *ended { None } else { Some(item) };
            *ended = matches!(&next, Some(Ok((_, 0))) | Some(Err(_)));
            futures::future::ready(next)
        });
        let rows = rows.map_ok(|(batch, _)| batch);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.scan.projected_schema()?, rows)))
    }

    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files={}, ", self.files.len())?;
        self.scan.fmt_as(kind, f)
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.partitions)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        self.scan.eq_properties()
    }

    fn partition_statistics(&self, partition: Option<usize>) -> DfResult<Arc<Statistics>> {
        match partition {
            None => self.scan.partition_statistics(None),
            Some(_) => Ok(Arc::new(Statistics::new_unknown(self.scan.projected_schema()?.as_ref()))),
        }
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        self.with_scan(&self.scan.with_fetch(limit)?).ok()
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch()
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        DataSource::metrics(&self.scan)
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> DfResult<Option<Arc<dyn DataSource>>> {
        let swapped = self.scan.try_swapping_with_projection(projection)?;
        swapped.map(|scan| self.with_scan(&scan)).transpose()
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> DfResult<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        let pushed = self.scan.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation {
            filters: pushed.filters,
            updated_node: pushed.updated_node.map(|scan| self.with_scan(&scan)).transpose()?,
        })
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.scan.apply_expressions(f)
    }
}
