//! UPDATEs and DELETEs that rows have not been through yet: which act on which files and sections, and what
//! must be read for them.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use datafusion::error::Result as DfResult;
use datafusion::physical_plan::project_schema;
use tandem_fold::{Bound, Mutations, columns_needed};
use tandem_format::{DataFile, PendingMutation, SectionKey};
use tandem_manifest::Table;
use tandem_types::{Column, ColumnId, Result, Seq, TableSchema};

use super::table::SnapshotTable;
use super::{ScanContext, query_schema};
use crate::error::to_datafusion;

/// Places in the list of a table's pending mutations, ascending.
pub(super) type Chosen = Vec<u32>;

/// First and last designated timestamp, in ticks; `None`: any.
pub(super) type Times = Option<(i64, i64)>;

/// A table's pending mutations in log order.
#[derive(Debug)]
pub(super) struct Pending {
    all: Vec<Arc<PendingMutation>>,
}

impl Pending {
    pub(super) fn new(table: &Table) -> Self {
        Self { all: table.mutations().map(Arc::clone).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those that act on rows of a file.
    pub(super) fn of_file(&self, file: &DataFile, chosen: &mut Chosen) {
        self.from(self.first_after(file.folded_through), file.time, chosen);
    }

    /// Those that act on rows of a section with these timestamps.
    pub(super) fn of_section(&self, section: &SectionKey, time: Times, chosen: &mut Chosen) {
        self.from(self.all.partition_point(|m| !m.key.follows(section)), time, chosen);
    }

    /// The place of the first one after `seq`.
    fn first_after(&self, seq: Seq) -> usize {
        self.all.partition_point(|m| m.key.seq <= seq)
    }

    fn from(&self, start: usize, time: Times, chosen: &mut Chosen) {
        chosen.clear();
        let later = (0..).zip(&self.all).skip(start);
        chosen.extend(later.filter(|(_, m)| overlap(m.mutation.time, time)).map(|(place, _)| place));
    }

    /// Decodes the chosen ones; the others stay where they are.
    pub(super) async fn bind(&self, chosen: &BTreeSet<u32>, context: &ScanContext) -> Result<BoundMutations> {
        let mut all: Vec<Option<Arc<Bound>>> = vec![None; self.all.len()];
        for ((place, pending), bound) in (0..).zip(&self.all).zip(&mut all) {
            if chosen.contains(&place) {
                *bound = Some(context.bound(pending).await?);
            }
        }
        Ok(BoundMutations { all: all.into() })
    }
}

/// Whether two ranges of timestamps have one in common.
pub(super) fn overlap(a: Times, b: Times) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => true,
    }
}

/// Pending mutations, as far as a scan needs them. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct BoundMutations {
    all: Arc<[Option<Arc<Bound>>]>,
}

impl BoundMutations {
    pub(super) fn len(&self) -> usize {
        self.all.iter().flatten().count()
    }

    /// Those at these places, in log order.
    pub(super) fn get<'a>(&self, places: impl IntoIterator<Item = &'a u32>) -> Vec<Arc<Bound>> {
        let at = |place: &u32| usize::try_from(*place).ok().and_then(|at| self.all.get(at)?.clone());
        places.into_iter().filter_map(at).collect()
    }
}

/// What is read of a table so that mutations and keys can be applied to it: the columns that a query wants,
/// then the others.
#[derive(Clone, Debug)]
pub(super) struct Widened {
    /// The table, with the columns that it has no more and mutations still read.
    pub(super) table: SnapshotTable,
    /// Columns of that table.
    pub(super) projection: Vec<usize>,
    /// The column of each field of `schema`.
    pub(super) ids: Vec<ColumnId>,
    pub(super) schema: SchemaRef,
    /// What the query wants: the first fields of `schema`.
    pub(super) output: SchemaRef,
}

impl Widened {
    /// `key`: columns that are read whoever wants them.
    pub(super) fn new(
        table: &SnapshotTable,
        projection: Option<&Vec<usize>>,
        key: &[ColumnId],
        mutations: &[Arc<Bound>],
    ) -> DfResult<Self> {
        let output = project_schema(&table.schema, projection)?;
        let mut columns: TableSchema = (*table.columns).clone();
        let wanted: Vec<usize> = match projection {
            Some(chosen) => chosen.clone(),
            None => (0..columns.columns.len()).collect(),
        };
        let mut ids: Vec<ColumnId> =
            wanted.iter().filter_map(|at| columns.columns.get(*at)).map(|column| column.id).collect();
        for id in key {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        for (id, data_type) in columns_needed(&ids, mutations) {
            if columns.column(id).is_none() {
                columns.columns.push(Column { id, name: lost_name(id), data_type, nullable: true });
            }
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let mut projection = wanted;
        let extra = ids.get(projection.len()..).unwrap_or_default();
        projection.extend(extra.iter().filter_map(|id| columns.position(*id)));
        let all = query_schema(&columns);
        let schema = project_schema(&all, Some(&projection))?;
        let table = SnapshotTable { columns: Arc::new(columns), schema: all, ..table.clone() };
        Ok(Self { table, projection, ids, schema, output })
    }

    /// Mutations, ready for rows of this shape.
    pub(super) fn ready(&self, mutations: &[Arc<Bound>]) -> Result<Mutations> {
        Mutations::new(&self.ids, &self.schema, self.table.table.timestamp().map(|c| c.id), mutations)
    }

    /// The columns that the query wants.
    pub(super) fn narrow(&self, batch: RecordBatch) -> DfResult<RecordBatch> {
        let rows = batch.num_rows();
        let (_, mut columns, _) = batch.into_parts();
        columns.truncate(self.output.fields().len());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }

    /// Applies mutations and leaves what the query wants.
    pub(super) fn finish(&self, batch: RecordBatch, mutations: &Mutations) -> DfResult<RecordBatch> {
        self.narrow(mutations.apply(batch).map_err(to_datafusion)?)
    }
}

/// What a column is called that the table has no more: control characters are not allowed in names.
pub(super) fn lost_name(id: ColumnId) -> String {
    format!("\u{1}{id}")
}

/// Mutations of some rows, made ready when the first of them are read.
#[derive(Debug)]
pub(super) struct Ready {
    bounds: Vec<Arc<Bound>>,
    ready: OnceLock<Result<Mutations>>,
}

impl Ready {
    pub(super) fn new(bounds: Vec<Arc<Bound>>) -> Self {
        Self { bounds, ready: OnceLock::new() }
    }

    pub(super) fn bounds(&self) -> &[Arc<Bound>] {
        &self.bounds
    }

    /// For rows of this shape, the same at every call.
    pub(super) fn get(&self, wide: &Widened) -> Result<&Mutations> {
        self.ready.get_or_init(|| wide.ready(&self.bounds)).as_ref().map_err(Clone::clone)
    }
}
