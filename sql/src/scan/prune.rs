//! Files and sections that a filter rules out, by their first and last timestamp alone.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt64Array, make_array};
use arrow_schema::{DataType, TimeUnit};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::scalar::ScalarValue;
use tandem_manifest::{FileState, Table, TailSection};

use super::split::Part;
use super::table::SnapshotTable;

/// What is left of a table to read.
pub(super) struct Selected {
    pub(super) files: Vec<Arc<FileState>>,
    pub(super) sections: Vec<Arc<TailSection>>,
    /// Of a keyed table, instead of sections; in log order.
    pub(super) parts: Vec<Part>,
}

/// The files and sections of a table that may hold rows which pass all `filters`.
pub(super) fn select(of: &SnapshotTable, filters: &[Expr], state: &dyn Session) -> DfResult<Selected> {
    let table = &of.table;
    // A row may have been replaced by one of its key at another time: neither is to be overlooked.
    let by_time = !table.is_keyed() || key_has_time(table);
    let predicate = if by_time { Predicate::new(of, filters, state)? } else { None };
    let files = match &predicate {
        None => table.files().cloned().collect(),
        Some(predicate) => {
            let keep = predicate.keep(table.files().map(|f| (f.file.time, f.file.rows)))?;
            table.files().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| Arc::clone(file)).collect()
        }
    };
    let mut selected = Selected { files, sections: Vec::new(), parts: Vec::new() };
    if table.is_keyed() {
        selected.parts = table.tail().flat_map(|section| parts(table, section)).collect();
        if let Some(predicate) = &predicate {
            let keep = predicate.keep(selected.parts.iter().map(|part| (part.time, part.rows)))?;
            let mut keep = keep.into_iter();
            selected.parts.retain(|_| keep.next().unwrap_or(true));
        }
        return Ok(selected);
    }
    selected.sections = match &predicate {
        None => table.tail().cloned().collect(),
        Some(predicate) => {
            let keep = predicate.keep(table.tail().map(|s| (live_range(table, s), s.live_rows())))?;
            table.tail().zip(keep).filter(|(_, keep)| *keep).map(|(s, _)| Arc::clone(s)).collect()
        }
    };
    Ok(selected)
}

/// Whether rows of equal keys have equal timestamps.
pub(super) fn key_has_time(table: &Table) -> bool {
    table.timestamp().is_some_and(|timestamp| table.primary_key().contains(&timestamp.id))
}

/// The live partitions of a section, one by one.
fn parts<'a>(table: &'a Table, section: &'a Arc<TailSection>) -> impl Iterator<Item = Part> + 'a {
    let live = section.section.partitions.iter().filter(|(p, _)| section.live.binary_search(p).is_ok());
    live.map(|(partition, rows)| Part {
        section: Arc::clone(section),
        partition: *partition,
        rows: *rows,
        time: table.part_time(section, *partition),
    })
}

/// First and last timestamp that the live rows of a section can have.
pub(super) fn live_range(table: &Table, section: &TailSection) -> Option<(i64, i64)> {
    let (first, last) = section.section.time?;
    if section.is_whole() {
        return Some((first, last));
    }
    let DataType::Timestamp(unit, _) = table.timestamp()?.data_type else {
        return Some((first, last));
    };
    let by = table.partition_by();
    let start = section.live.first().map_or(first, |p| by.range(*p, unit).start);
    let end = section.live.last().map_or(last, |p| by.range(*p, unit).end.saturating_sub(1));
    Some((first.max(start), last.min(end)))
}

struct Predicate {
    pruning: Arc<PruningPredicate>,
    timestamp: String,
    unit: TimeUnit,
    zone: Option<Arc<str>>,
}

impl Predicate {
    /// `None` if the filters say nothing of time.
    fn new(of: &SnapshotTable, filters: &[Expr], state: &dyn Session) -> DfResult<Option<Self>> {
        let schema = &of.schema;
        let Some(timestamp) = of.timestamp() else { return Ok(None) };
        let DataType::Timestamp(unit, zone) = timestamp.data_type.clone() else { return Ok(None) };
        let of_time = filters.iter().filter(|filter| {
            !filter.is_volatile() && filter.column_refs().iter().any(|c| c.name == timestamp.name)
        });
        let Some(filter) = conjunction(of_time.cloned()) else { return Ok(None) };
        let filter = unnormalize_col(filter);
        let df_schema = DFSchema::try_from(Arc::clone(schema))?;
        let physical = state.create_physical_expr(filter, &df_schema)?;
        let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema));
        // What cannot be used for pruning prunes nothing.
        let Some(pruning) = builder.build(physical) else { return Ok(None) };
        Ok(Some(Self { pruning, timestamp: timestamp.name.clone(), unit, zone }))
    }

    fn keep(&self, entries: impl Iterator<Item = (Option<(i64, i64)>, u64)>) -> DfResult<Vec<bool>> {
        let (mut first, mut last, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (time, count) in entries {
            first.push(time.map(|t| t.0));
            last.push(time.map(|t| t.1));
            rows.push(count);
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let statistics = TimeStatistics {
            column: &self.timestamp,
            first: self.ticks(first)?,
            last: self.ticks(last)?,
            rows: Arc::new(UInt64Array::from(rows)),
        };
        self.pruning.prune(&statistics)
    }

    fn ticks(&self, values: Vec<Option<i64>>) -> DfResult<ArrayRef> {
        let data_type = DataType::Timestamp(self.unit, self.zone.clone());
        let data = Int64Array::from(values).into_data().into_builder().data_type(data_type).build()?;
        Ok(make_array(data))
    }
}

/// The timestamps of many files at once. Designated timestamps are never null.
struct TimeStatistics<'a> {
    column: &'a str,
    first: ArrayRef,
    last: ArrayRef,
    rows: ArrayRef,
}

impl PruningStatistics for TimeStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == self.column).then(|| Arc::clone(&self.first))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == self.column).then(|| Arc::clone(&self.last))
    }

    fn num_containers(&self) -> usize {
        self.rows.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == self.column)
            .then(|| Arc::new(UInt64Array::from(vec![0; self.rows.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::clone(&self.rows))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
