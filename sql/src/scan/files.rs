//! Data files as a Parquet scan.

use std::ops::Range;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetFileMetrics, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tandem_datafile::VerifiedReader;
use tandem_format::data_path;
use tandem_manifest::FileState;
use tandem_types::TableSchema;

use super::ScanContext;
use super::binding::{ByIdFactory, bind_footer};
use super::many::ManyFiles;
use super::table::SnapshotTable;

/// Values of statistics that a plan may carry, over files and columns: each takes some hundred bytes, in
/// every copy that the optimizer makes of the plan. Beyond it files are [`ManyFiles`].
const STATISTICS_MAX: usize = 8_192;

/// A scan of `files`; `ordered` allows to promise their order where that is cheap.
pub(super) fn file_scan(
    table: &SnapshotTable,
    files: &[Arc<FileState>],
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
    ordered: bool,
    state: &dyn Session,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let target = state.config().target_partitions().max(1);
    let rows = files.iter().map(|f| f.file.rows).sum();
    let bytes = files.iter().map(|f| f.file.size).sum();
    let statistics = table.statistics(rows, bytes, files.iter().map(|f| f.file.time));
    let mut options = TableParquetOptions::new();
    options.global = state.config().options().execution.parquet.clone();
    let scan = source(table, projection, options)?.with_statistics(statistics).with_limit(limit);
    if files.len().saturating_mul(table.schema.fields().len().max(1)) > STATISTICS_MAX {
        let many = ManyFiles::new(Arc::new(table.clone()), files.into(), target, scan.build());
        return Ok(DataSourceExec::from_data_source(many));
    }
    let entries = files.iter().map(|file| entry(table, file)).collect();
    let ordering = if ordered { time_ordering(table) } else { None };
    let (groups, ordering) = arrange(entries, ordering, &table.schema, target);
    let scan = scan.with_file_groups(groups).with_output_ordering(ordering.into_iter().collect());
    Ok(DataSourceExec::from_data_source(scan.build()))
}

/// A scan of no files yet.
pub(super) fn source(
    table: &SnapshotTable,
    projection: Option<&Vec<usize>>,
    options: TableParquetOptions,
) -> DfResult<FileScanConfigBuilder> {
    let readers = Readers { context: Arc::clone(&table.context), schema: Arc::clone(&table.columns) };
    let source = ParquetSource::new(Arc::clone(&table.schema))
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(readers));
    // The readers bring their own store; nothing is looked up under this name.
    FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
        .with_expr_adapter(Some(Arc::new(ByIdFactory)))
        .with_projection_indices(projection.cloned())
}

/// What DataFusion knows of a file.
pub(super) fn entry(table: &SnapshotTable, state: &Arc<FileState>) -> PartitionedFile {
    let file = &state.file;
    let path = data_path(table.table.id(), table.table.partition_by(), &file.name);
    let statistics = table.statistics(file.rows, file.size, std::iter::once(file.time));
    PartitionedFile::new(path, file.size)
        .with_extension(Arc::clone(state))
        .with_statistics(Arc::new(statistics))
}

/// Files of a table whose sort key begins with its timestamp are sorted by time.
fn time_ordering(table: &SnapshotTable) -> Option<LexOrdering> {
    let timestamp = table.timestamp()?;
    if table.table.order_by().first() != Some(&timestamp.id) {
        return None;
    }
    let column = Column::new(&timestamp.name, table.timestamp_index()?);
    let ascending = SortOptions { descending: false, nulls_first: false };
    LexOrdering::new([PhysicalSortExpr::new(Arc::new(column), ascending)])
}

/// Cuts files into groups that are read in parallel. An order is kept only if it needs few groups: a merge
/// of many streams costs more than the order saves.
fn arrange(
    files: Vec<PartitionedFile>,
    ordering: Option<LexOrdering>,
    schema: &SchemaRef,
    target: usize,
) -> (Vec<FileGroup>, Option<LexOrdering>) {
    let all = FileGroup::new(files);
    if let Some(ordering) = ordering {
        let groups = FileScanConfig::split_groups_by_statistics_with_target_partitions(
            schema,
            std::slice::from_ref(&all),
            &ordering,
            target,
        );
        if let Ok(groups) = groups
            && groups.len() <= 4 * target
        {
            return (groups, Some(ordering));
        }
    }
    (all.split_files(target), None)
}

/// Opens files of one table by what their manifest entries say.
#[derive(Debug)]
struct Readers {
    context: Arc<ScanContext>,
    schema: Arc<TableSchema>,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> DfResult<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location.as_ref();
        let Some(state) = file.extension::<Arc<FileState>>() else {
            return datafusion::common::internal_err!("data file {path:?} lost its entry");
        };
        let entry = &state.file;
        let objects = Arc::clone(&self.context.objects) as Arc<dyn ObjectStore>;
        let footers = &self.context.footers;
        let inner = footers.reader(objects, path, entry.size, entry.body_end, entry.tail_crc32c);
        let metrics = ParquetFileMetrics::new(partition_index, path, metrics);
        Ok(Box::new(BoundReader { inner, schema: Arc::clone(&self.schema), metrics }))
    }
}

/// A verified reader whose columns are called as the table calls them now.
struct BoundReader {
    inner: VerifiedReader,
    schema: Arc<TableSchema>,
    metrics: ParquetFileMetrics,
}

impl AsyncFileReader for BoundReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.metrics.bytes_scanned.add(bytes(&range));
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.metrics.bytes_scanned.add(ranges.iter().map(bytes).sum());
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.inner.footer().await.map_err(|e| ParquetError::External(Box::new(e)))?;
            bind_footer(&footer, &self.schema)
        }
        .boxed()
    }
}

fn bytes(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}
