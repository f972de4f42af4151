//! One execution of a [`FoldExec`](super::fold::FoldExec): items are read and groups folded.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter, filter_record_batch, not};
use arrow::datatypes::Int64Type;
use arrow_schema::DataType;
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSource;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tandem_fold::{KeySet, KeyedFold};
use tandem_types::{Error, Result, Seq};

use super::files::entry;
use super::fold::{FoldScan, Group};
use super::items::Item;
use super::pending::{Ready, Widened};
use crate::error::{from_datafusion, to_datafusion};

/// What those who read the rows will filter by.
#[derive(Debug, Default)]
pub(super) struct Filters {
    fixed: Vec<Arc<dyn PhysicalExpr>>,
    /// That change while the query runs.
    moving: Vec<Arc<dyn PhysicalExpr>>,
}

impl Filters {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        self.fixed.iter().chain(&self.moving)
    }

    /// These and others; `None` if there is nothing new.
    pub(super) fn with(
        &self,
        new: impl Iterator<Item = Arc<dyn PhysicalExpr>>,
        moving: bool,
    ) -> Option<Self> {
        let new: Vec<_> = new.filter(|filter| !self.all().any(|known| known == filter)).collect();
        if new.is_empty() {
            return None;
        }
        let mut filters = Self { fixed: self.fixed.clone(), moving: self.moving.clone() };
        if moving {
            filters.moving.extend(new)
        } else {
            filters.fixed.extend(new)
        }
        Some(filters)
    }
}

/// What streams of one execution share.
pub(super) struct Run {
    scan: Arc<FoldScan>,
    filters: Arc<Filters>,
    /// The next item that nobody reads yet.
    next: AtomicUsize,
    groups: Vec<GroupState>,
    /// By set of mutations.
    readers: Vec<OnceLock<Result<Reader>>>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("next", &self.next).finish_non_exhaustive()
    }
}

struct GroupState {
    /// Items that are not read to their end.
    left: AtomicUsize,
    /// The tail's rows, from the first item's begin to the last one's end.
    tail: tokio::sync::Mutex<Option<Arc<Tail>>>,
}

/// The rows of a group's parts of the tail, and those of files that have their keys.
struct Tail {
    keys: KeySet,
    /// By part.
    parts: Vec<Vec<RecordBatch>>,
    /// With the seq that is folded into their file.
    base: Mutex<Vec<(Seq, RecordBatch)>>,
    memory: MemoryReservation,
}

/// How files of one set of mutations are read.
struct Reader {
    files: FileScanConfig,
    /// Rows for which it is not true are of no use to anybody; it may fail.
    early: Option<Arc<dyn PhysicalExpr>>,
}

impl Run {
    pub(super) fn new(scan: Arc<FoldScan>, filters: Arc<Filters>) -> Self {
        let mut left = vec![0; scan.groups.len()];
        for item in &scan.items {
            if let Some(left) = left.get_mut(item.group) {
                *left += 1;
            }
        }
        let state = |left| GroupState { left: AtomicUsize::new(left), tail: tokio::sync::Mutex::default() };
        Self {
            groups: left.into_iter().map(state).collect(),
            readers: scan.sets.iter().map(|_| OnceLock::new()).collect(),
            next: AtomicUsize::new(0),
            scan,
            filters,
        }
    }

    fn wide(&self) -> &Widened {
        &self.scan.sections.wide
    }

    /// The rows of the items that this stream is the first to ask for.
    pub(super) fn rows(
        self: Arc<Self>,
        context: Arc<TaskContext>,
    ) -> impl Stream<Item = DfResult<RecordBatch>> + Send + 'static {
        stream::try_unfold((self, context), |(run, context)| async move {
            let place = run.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = run.scan.items.get(place) else { return Ok::<_, DataFusionError>(None) };
            let rows = Arc::clone(&run).item(item.clone(), &context).await?;
            Ok(Some((rows, (run, context))))
        })
        .try_flatten()
    }

    async fn item(
        self: Arc<Self>,
        item: Item,
        context: &Arc<TaskContext>,
    ) -> DfResult<BoxStream<'static, DfResult<RecordBatch>>> {
        let (Some(group), Some(state)) = (self.scan.groups.get(item.group), self.groups.get(item.group))
        else {
            return datafusion::common::internal_err!("files of no group");
        };
        let mut tail = None;
        if self.scan.has_key() {
            let mut shared = state.tail.lock().await;
            if shared.is_none() {
                *shared = Some(Arc::new(self.tail(group, item.set, context).await?));
            }
            tail.clone_from(&shared);
        }
        let files =
            if item.files.is_empty() { stream::empty().boxed() } else { self.open(&item, context)?.boxed() };
        let (run, of) = (Arc::clone(&self), item.clone());
        let rows = files.map(move |batch| run.batch(&of, tail.as_deref(), batch?));
        let rest = stream::once(async move { self.leave(&item).await })
            .map_ok(|rows| stream::iter(rows.into_iter().map(Ok)))
            .try_flatten();
        Ok(rows.chain(rest).boxed())
    }

    /// What is left of a batch of a file after all that came later.
    fn batch(&self, item: &Item, tail: Option<&Tail>, batch: RecordBatch) -> DfResult<RecordBatch> {
        let wide = self.wide();
        let mut batch = early(batch, self.reader(item.set)?.early.as_ref())?;
        if let (Some(tail), Some(group)) = (tail, self.scan.groups.get(item.group)) {
            batch = self.set_aside(item, group, tail, batch)?;
        }
        let Some(mutations) = self.set(item.set) else { return wide.narrow(batch) };
        wide.finish(batch, mutations.get(wide).map_err(to_datafusion)?)
    }

    fn set(&self, place: usize) -> Option<&Ready> {
        self.scan.sets.get(place).map(AsRef::as_ref).filter(|set| !set.bounds().is_empty())
    }

    /// Keeps the rows whose keys the tail has too for the end, and gives back the others.
    fn set_aside(
        &self,
        item: &Item,
        group: &Group,
        tail: &Tail,
        batch: RecordBatch,
    ) -> DfResult<RecordBatch> {
        let Some(hits) = self.hits(group, tail, &batch)? else { return Ok(batch) };
        if hits.true_count() == 0 {
            return Ok(batch);
        }
        let aside = owned(filter_record_batch(&batch, &hits)?)?;
        tail.memory.try_grow(bytes(&aside))?;
        tail.base.lock().unwrap_or_else(PoisonError::into_inner).push((item.folded_through(), aside));
        Ok(filter_record_batch(&batch, &not(&hits)?)?)
    }

    /// Which rows have a key of the tail's; `None`: none has.
    fn hits(&self, group: &Group, tail: &Tail, batch: &RecordBatch) -> DfResult<Option<BooleanArray>> {
        let keys: Vec<ArrayRef> =
            self.scan.key.iter().filter_map(|at| batch.columns().get(*at)).map(Arc::clone).collect();
        let contains = |keys: &[ArrayRef]| tail.keys.contains(keys).map_err(to_datafusion);
        let wide = self.wide();
        let time = wide.table.table.timestamp().and_then(|c| wide.ids.iter().position(|id| *id == c.id));
        let (Some((first, last)), Some(time)) = (group.hull, time.and_then(|at| batch.columns().get(at)))
        else {
            return contains(&keys).map(Some);
        };
        // Only rows within the tail's time can have one of its keys.
        let ticks = cast(time, &DataType::Int64)?;
        let ticks = ticks.as_primitive::<Int64Type>().values();
        let near = BooleanBuffer::collect_bool(ticks.len(), |i| {
            ticks.get(i).is_some_and(|tick| first <= *tick && *tick <= last)
        });
        let count = near.count_set_bits();
        if count == 0 {
            return Ok(None);
        }
        if count > ticks.len() / 2 {
            return contains(&keys).map(Some);
        }
        let near = BooleanArray::new(near, None);
        let keys: Vec<ArrayRef> =
            keys.iter().map(|column| filter(column, &near)).collect::<Result<_, _>>()?;
        let found = contains(&keys)?;
        // Back to the places that the rows had.
        let mut nth = 0;
        let hits = BooleanBuffer::collect_bool(near.len(), |i| {
            let candidate = near.value(i);
            let hit = candidate && found.value(nth);
            nth += usize::from(candidate);
            hit
        });
        Ok(Some(BooleanArray::new(hits, None)))
    }

    /// Loads a group's parts of the tail.
    async fn tail(&self, group: &Group, set: usize, context: &TaskContext) -> DfResult<Tail> {
        let wide = self.wide();
        let name = self.scan.sections.table_name();
        let memory = MemoryConsumer::new(format!("FoldExec[{name}]")).register(context.memory_pool());
        let fields = wide.schema.fields();
        let types: Vec<DataType> =
            self.scan.key.iter().filter_map(|at| fields.get(*at)).map(|f| f.data_type().clone()).collect();
        let mut keys = KeySet::new(&types).map_err(to_datafusion)?;
        let early_filter = self.reader(set)?.early.clone();
        let mut parts = Vec::with_capacity(group.parts.len());
        for part in &group.parts {
            let stored = self.scan.sections.load(&part.section).await.map_err(to_datafusion)?;
            let mut rows = Vec::with_capacity(stored.batches.len());
            for batch in &stored.batches {
                let of = std::slice::from_ref(&part.partition);
                let batch = self.scan.sections.project(&part.section, of, batch).map_err(to_datafusion)?;
                // It looks at keys only: all rows of a key go or stay.
                let batch = early(batch, early_filter.as_ref())?;
                if batch.num_rows() == 0 {
                    continue;
                }
                if group.has_files {
                    let key: Vec<ArrayRef> = self
                        .scan
                        .key
                        .iter()
                        .filter_map(|at| batch.columns().get(*at))
                        .map(Arc::clone)
                        .collect();
                    keys.insert(&key).map_err(to_datafusion)?;
                }
                memory.try_grow(bytes(&batch))?;
                rows.push(batch);
                tokio::task::yield_now().await;
            }
            parts.push(rows);
        }
        memory.try_grow(keys.memory())?;
        Ok(Tail { keys, parts, base: Mutex::default(), memory })
    }

    /// Ends an item; whoever ends the last one of a group gets the rows of the keys that the tail has.
    async fn leave(&self, item: &Item) -> DfResult<Vec<RecordBatch>> {
        let (Some(group), Some(state)) = (self.scan.groups.get(item.group), self.groups.get(item.group))
        else {
            return Ok(Vec::new());
        };
        if state.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(Vec::new());
        }
        let Some(tail) = state.tail.lock().await.take() else { return Ok(Vec::new()) };
        self.fold(group, &tail).await
    }

    /// All that happened to the keys of the tail, in log order.
    async fn fold(&self, group: &Group, tail: &Tail) -> DfResult<Vec<RecordBatch>> {
        let wide = self.wide();
        let timestamp = wide.table.table.timestamp().map(|c| c.id);
        let schema = Arc::clone(&wide.schema);
        let mut fold = KeyedFold::new(wide.ids.clone(), schema, &self.scan.key_ids(), timestamp)
            .map_err(to_datafusion)?;
        let held = tail.memory.size();
        let base = std::mem::take(&mut *tail.base.lock().unwrap_or_else(PoisonError::into_inner));
        for (after, batch) in base {
            fold.base(batch, after).map_err(to_datafusion)?;
        }
        let mutations = self.scan.mutations.get(&group.mutations);
        let mut mutations = mutations.iter().peekable();
        for (part, batches) in group.parts.iter().zip(&tail.parts) {
            while let Some(mutation) = mutations.next_if(|m| !m.key().follows(&part.section.key)) {
                fold.mutation(mutation).map_err(to_datafusion)?;
            }
            for batch in batches {
                let on_duplicate = &part.section.section.on_duplicate;
                fold.section(on_duplicate, batch.clone()).map_err(to_datafusion)?;
                tail.memory.try_resize(held + fold.memory())?;
                tokio::task::yield_now().await;
            }
        }
        for mutation in mutations {
            fold.mutation(mutation).map_err(to_datafusion)?;
            tokio::task::yield_now().await;
        }
        let rows = fold.finish().map_err(to_datafusion)?;
        rows.into_iter().map(|batch| wide.narrow(batch)).collect()
    }

    fn open(&self, item: &Item, context: &Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let entries = item.files.iter().map(|piece| {
            let entry = entry(&self.wide().table, &piece.file);
            match &piece.range {
                None => entry,
                Some(range) => entry.with_range(range.start.cast_signed(), range.end.cast_signed()),
            }
        });
        let files = FileScanConfigBuilder::from(self.reader(item.set)?.files.clone());
        let files = files.with_file_groups(vec![FileGroup::new(entries.collect())]).build();
        files.open(0, Arc::clone(context))
    }

    fn reader(&self, set: usize) -> DfResult<&Reader> {
        let Some(reader) = self.readers.get(set) else {
            return datafusion::common::internal_err!("files of no set of mutations");
        };
        let made = reader.get_or_init(|| self.make_reader(set).map_err(from_datafusion));
        made.as_ref().map_err(|error: &Error| to_datafusion(error.clone()))
    }

    /// A filter may look at what a file says of a column only if nothing that comes later changes that column.
    fn make_reader(&self, set: usize) -> DfResult<Reader> {
        let ids = &self.wide().ids;
        let assigned: Vec<_> = match self.set(set) {
            Some(mutations) => mutations.bounds().iter().flat_map(|m| m.assigned()).collect(),
            None => Vec::new(),
        };
        let keeps = |at: usize| {
            let fixed = !self.scan.has_key() || self.scan.key.contains(&at);
            fixed && ids.get(at).is_some_and(|id| !assigned.contains(&id))
        };
        let allowed = |filter: &&Arc<dyn PhysicalExpr>| {
            collect_columns(filter).iter().all(|column| keeps(column.index()))
        };
        let fixed: Vec<_> = self.filters.fixed.iter().filter(allowed).cloned().collect();
        let mut filters = fixed.clone();
        filters.extend(self.filters.moving.iter().filter(allowed).cloned());
        let mut files = self.scan.files.clone();
        if !filters.is_empty() {
            // Rows are filtered here and above, where an error in one that was deleted does no harm.
            let config = ConfigOptions::default();
            if let Some(filtered) = files.try_pushdown_filters(filters, &config)?.updated_node {
                let filtered: &dyn std::any::Any = filtered.as_ref();
                let Some(filtered) = filtered.downcast_ref::<FileScanConfig>() else {
                    return datafusion::common::internal_err!("a scan of files became something else");
                };
                files = filtered.clone();
            }
        }
        Ok(Reader { files, early: conjunction_opt(fixed) })
    }
}

/// Leaves out the rows for which a filter is not true. All of them stay if it fails: the row that it failed for may be one
/// that nobody will see.
fn early(batch: RecordBatch, filter: Option<&Arc<dyn PhysicalExpr>>) -> DfResult<RecordBatch> {
    let Some(filter) = filter.filter(|_| batch.num_rows() > 0) else { return Ok(batch) };
    let Ok(passes) = filter.evaluate(&batch).and_then(|value| value.into_array(batch.num_rows())) else {
        return Ok(batch);
    };
    match passes.as_boolean_opt() {
        Some(passes) if passes.true_count() < batch.num_rows() => Ok(filter_record_batch(&batch, passes)?),
        _ => Ok(batch),
    }
}

/// The same rows, with text of their own: a few rows must not hold on to the pages that they were read from.
fn owned(batch: RecordBatch) -> DfResult<RecordBatch> {
    let (schema, columns, rows) = batch.into_parts();
    let columns = columns.into_iter().map(|column| -> ArrayRef {
        if let Some(text) = column.as_string_view_opt() {
            return Arc::new(text.gc());
        }
        match column.as_binary_view_opt() {
            Some(bytes) => Arc::new(bytes.gc()),
            None => column,
        }
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns.collect(), &options)?)
}

/// What a batch takes, without what it shares with others.
fn bytes(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(of).sum()
}
