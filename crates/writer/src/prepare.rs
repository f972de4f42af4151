//! From batches to a section: values cast to the table's types, statistics, partitions, bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, kernels::cmp::not_distinct};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tandem_datafile::cast_array;
use tandem_manifest::{ColumnSpec, SchemaPolicy, SectionDraft, Table, TableSpec};
use tandem_segment::{DecodedSection, column_stats, encode_section};
use tandem_types::{
    Error, Partition, PartitionUnit, Result, TableName, common_supertype, logical_equal, widens_to,
};

use crate::queue::SectionBody;

/// How rows must look to go into a table.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    table: TableName,
    /// Types of the columns that exist; empty for a table to be created.
    columns: BTreeMap<String, DataType>,
    timestamp: Option<String>,
    partition_by: PartitionUnit,
    automatic: bool,
}

/// A section, ready to be uploaded or committed.
#[derive(Clone, Debug)]
pub(crate) struct PreparedSection {
    pub draft: SectionDraft,
    pub body: SectionBody,
}

impl Layout {
    pub fn of_table(table: &Table, policy: SchemaPolicy) -> Self {
        Self {
            table: table.name().clone(),
            columns: table.schema().columns.iter().map(|c| (c.name.clone(), c.data_type.clone())).collect(),
            timestamp: table.timestamp().map(|c| c.name.clone()),
            partition_by: table.partition_by(),
            automatic: policy != SchemaPolicy::Strict,
        }
    }

    pub fn of_spec(name: &TableName, spec: &TableSpec, policy: SchemaPolicy) -> Result<Self> {
        let def = spec.resolve(name)?;
        let timestamp = def.timestamp.and_then(|id| def.schema.column(id)).map(|c| c.name.clone());
        Ok(Self {
            table: name.clone(),
            columns: def.schema.columns.into_iter().map(|c| (c.name, c.data_type)).collect(),
            timestamp,
            partition_by: def.partition_by,
            automatic: policy != SchemaPolicy::Strict,
        })
    }

    /// The schema that rows of `schema` have once they are cast for the table.
    pub fn target_schema(&self, schema: &Schema) -> SchemaRef {
        let field = |f: &Arc<Field>| {
            let data_type = self.target_type(f.name(), f.data_type());
            // Field metadata is the client's business; it must not reach stored bytes.
            Field::new(f.name(), data_type, f.is_nullable())
        };
        Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
    }

    fn target_type(&self, name: &str, sent: &DataType) -> DataType {
        match self.columns.get(name) {
            Some(has) if logical_equal(sent, has) => sent.clone(),
            // With automatic columns the table widens; the rows stay as they are.
            Some(has) if self.automatic && !widens_to(sent, has) && common_supertype(has, sent).is_some() => {
                sent.clone()
            }
            Some(has) => has.clone(),
            None => sent.clone(),
        }
    }

    /// Batches of `schema`, cast to [`Layout::target_schema`], which is `target`.
    pub fn cast(&self, batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
        if batch.schema_ref() == target {
            return Ok(batch.clone());
        }
        if batch.num_columns() != target.fields().len() {
            return Err(Error::invalid(format!(
                "a batch for table {} has {} columns, the stream's schema has {}",
                self.table,
                batch.num_columns(),
                target.fields().len()
            )));
        }
        let cast = |(column, field): (&ArrayRef, &Arc<Field>)| self.cast_column(column, field);
        let columns = batch.columns().iter().zip(target.fields()).map(cast).collect::<Result<Vec<_>>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        // Nulls where the client promised none are its mistake, but what counts is what the table allows.
        let lenient = Schema::new(
            target.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        );
        RecordBatch::try_new_with_options(Arc::new(lenient), columns, &options)
            .map_err(|e| Error::invalid(format!("a batch for table {}: {e}", self.table)))
    }

    fn cast_column(&self, column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
        let (from, to) = (column.data_type(), field.data_type());
        if from == to {
            return Ok(column.clone());
        }
        if widens_to(from, to) {
            return cast_array(column, to, field.name());
        }
        let refuse = |why: String| {
            Error::schema_conflict(format!(
                "column {:?} of table {} is {to}, the rows have {from}{why}",
                field.name(),
                self.table
            ))
        };
        if !fits_by_value(from, to) {
            return Err(refuse(String::new()));
        }
        // By value: there and back again, and nothing may have changed.
        let exact = CastOptions { safe: false, ..Default::default() };
        let there = cast_with_options(column, to, &exact)
            .map_err(|e| refuse(format!(", and not every value fits: {e}")))?;
        let back = cast_with_options(&there, from, &exact)
            .map_err(|e| refuse(format!(", and not every value fits: {e}")))?;
        let same = not_distinct(&back, column).map_err(|e| refuse(format!(": {e}")))?;
        match (0..same.len()).find(|row| !same.value(*row)) {
            None => Ok(there),
            Some(row) => {
                let value = arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
                Err(refuse(format!(", and row {row} has {value}, which does not fit without loss")))
            }
        }
    }

    /// Encodes rows that were cast already.
    pub fn section(&self, target: &SchemaRef, batches: Vec<RecordBatch>) -> Result<PreparedSection> {
        let schema = match batches.first() {
            Some(first) => first.schema(),
            None => target.clone(),
        };
        let position = self.timestamp.as_ref().and_then(|name| schema.index_of(name).ok());
        let mut null_counts = vec![0u64; schema.fields().len()];
        let mut time: Option<(i64, i64)> = None;
        let mut partitions = BTreeMap::new();
        let mut rows = 0;
        for batch in &batches {
            let stats = column_stats(batch, position)?;
            rows += stats.rows;
            for (sum, count) in null_counts.iter_mut().zip(&stats.null_counts) {
                *sum += count;
            }
            if let (Some(position), Some(range)) = (position, stats.time) {
                time = Some(time.map_or(range, |t| (t.0.min(range.0), t.1.max(range.1))));
                self.count_partitions(batch.column(position), range, &mut partitions)?;
            }
        }
        let counted: u64 = partitions.values().sum();
        if counted < rows {
            // Without a designated timestamp, or null in it, which the rebase refuses by its null count.
            *partitions.entry(Partition(0)).or_default() += rows - counted;
        }
        let encoded = encode_section(&schema, &batches)?;
        let draft = SectionDraft {
            segment: None,
            offset: 0,
            len: encoded.len,
            crc32c: encoded.crc32c,
            rows,
            time,
            partitions: partitions.into_iter().collect(),
            null_counts,
        };
        let rows = Some(Arc::new(DecodedSection { schema, batches }));
        Ok(PreparedSection { draft, body: SectionBody { chunks: encoded.chunks, rows } })
    }

    fn count_partitions(
        &self,
        column: &ArrayRef,
        (first, last): (i64, i64),
        counts: &mut BTreeMap<Partition, u64>,
    ) -> Result<()> {
        let DataType::Timestamp(unit, _) = column.data_type() else {
            return Err(Error::internal("the designated timestamp is no timestamp"));
        };
        let valid = (column.len() - column.null_count()) as u64;
        let partition = self.partition_by.partition(first, *unit);
        if partition == self.partition_by.partition(last, *unit) {
            *counts.entry(partition).or_default() += valid;
            return Ok(());
        }
        let ticks = arrow::compute::cast(column, &DataType::Int64)
            .map_err(|e| Error::internal(format!("timestamps as integers: {e}")))?;
        let mut runs = PartitionRuns::new(self.partition_by, *unit);
        for value in ticks.as_primitive::<Int64Type>().iter().flatten() {
            *counts.entry(runs.of(value)).or_default() += 1;
        }
        Ok(())
    }
}

/// Remembers the last partition: neighbours mostly share one.
struct PartitionRuns {
    by: PartitionUnit,
    unit: TimeUnit,
    last: Option<(Partition, tandem_types::TimeRange)>,
}

impl PartitionRuns {
    fn new(by: PartitionUnit, unit: TimeUnit) -> Self {
        Self { by, unit, last: None }
    }

    fn of(&mut self, value: i64) -> Partition {
        if let Some((partition, range)) = self.last
            && range.start <= value
            && value < range.end
        {
            return partition;
        }
        let partition = self.by.partition(value, self.unit);
        let range = self.by.range(partition, self.unit);
        // Beyond the calendar a partition has no range of its own: what is told for it holds everything.
        let known = range.start != i64::MIN || range.end != i64::MAX || self.by == PartitionUnit::None;
        self.last = known.then_some((partition, range));
        partition
    }
}

/// Whether values of one type may fit another, to be found out one by one.
fn fits_by_value(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Timestamp};
    match (from, to) {
        (Timestamp(_, a), Timestamp(_, b)) => a == b,
        (Date32 | Date64, Date32 | Date64) => true,
        _ => from.is_numeric() && to.is_numeric(),
    }
}

/// Fields of a schema, as a rebase wants them.
pub(crate) fn column_specs(schema: &Schema) -> Vec<ColumnSpec> {
    let spec = |f: &Arc<Field>| ColumnSpec {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
        nullable: f.is_nullable(),
    };
    schema.fields().iter().map(spec).collect()
}
