//! Rows of sections in a query's columns and types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, TimeUnit};
use tandem_datafile::cast_array;
use tandem_manifest::TailSection;
use tandem_types::{ColumnId, Error, Partition, PartitionUnit, Result, TimeRange};

use super::pending::Widened;
use crate::database::SectionRows;

/// Reads sections of one table.
#[derive(Debug)]
pub(super) struct SectionReader {
    /// Which columns, and as what.
    pub(super) wide: Widened,
    name: String,
    partitioning: Option<PartitionBy>,
}

/// How a row's partition is found.
#[derive(Clone, Copy, Debug)]
struct PartitionBy {
    column: ColumnId,
    unit: TimeUnit,
    by: PartitionUnit,
}

impl SectionReader {
    pub(super) fn new(wide: Widened) -> Self {
        let table = &wide.table.table;
        let partitioning = table.timestamp().and_then(|column| match column.data_type {
            DataType::Timestamp(unit, _) => {
                Some(PartitionBy { column: column.id, unit, by: table.partition_by() })
            }
            _ => None,
        });
        Self { name: table.name().to_string(), partitioning, wide }
    }

    pub(super) fn table_name(&self) -> &str {
        &self.name
    }

    /// All rows of a section, as they are stored.
    pub(super) async fn load(&self, section: &Arc<TailSection>) -> Result<Arc<SectionRows>> {
        self.wide.table.context.tail_rows(self.wide.table.table.id(), section).await
    }

    /// The wanted columns of the rows of some partitions, ascending, of a batch of a section.
    pub(super) fn project(
        &self,
        section: &TailSection,
        partitions: &[Partition],
        batch: &RecordBatch,
    ) -> Result<RecordBatch> {
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
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.wide.ids.len());
        for (id, field) in self.wide.ids.iter().zip(self.wide.schema.fields()) {
            columns.push(match column(*id) {
                Some(array) => cast_array(array, field.data_type(), field.name())
                    .map_err(|e| e.context(format!("table {}", self.name)))?,
                None => new_null_array(field.data_type(), batch.num_rows()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let broken =
            |e| Error::damaged(format!("a tail section of table {} does not fit it: {e}", self.name));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.wide.schema), columns, &options)
            .map_err(broken)?;
        if partitions.len() == section.section.partitions.len() {
            return Ok(rows);
        }
        let Some(by) = self.partitioning else { return Ok(rows) };
        let Some(times) = column(by.column) else {
            return Err(Error::damaged(format!("a tail section of table {} has no timestamps", self.name)));
        };
        let live = live_mask(times, by, partitions).map_err(broken)?;
        filter_record_batch(&rows, &live).map_err(broken)
    }
}

/// Which rows are of these partitions.
fn live_mask(
    times: &ArrayRef,
    by: PartitionBy,
    partitions: &[Partition],
) -> std::result::Result<BooleanArray, arrow::error::ArrowError> {
    let ticks = cast(times, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    // Neighbours mostly share a partition: its range answers without the calendar.
    let mut last: Option<(TimeRange, bool)> = None;
    let mut verdict = |t: i64| match last {
        Some((range, live)) if range.start <= t && t < range.end => live,
        _ => {
            let partition = by.by.partition(t, by.unit);
            let is_live = partitions.binary_search(&partition).is_ok();
            last = Some((by.by.range(partition, by.unit), is_live));
            is_live
        }
    };
    Ok((0..ticks.len()).map(|i| Some(ticks.is_valid(i) && verdict(ticks.value(i)))).collect())
}
