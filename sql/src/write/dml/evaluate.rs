//! What a statement does to the rows of a snapshot: counted, checked, and, where the log cannot say it in one row's
//! terms, computed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast_with_options, concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column as ColumnName, JoinType, NullEquality};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use futures::TryStreamExt;
use tandem_types::{Column, ColumnId, Error, Result};

use super::View;
use super::analyse::{Analysed, target_scan};
use super::check::Check;
use super::hull::Hull;
use super::subquery::stream;
use super::translate::logged_type;
use crate::error::IntoTandem;
use crate::write::STRICT;

/// What the key columns of the rows to act on are matched with.
const TUPLES: &str = "$tuples";

/// Values to look up, and what they are replaced by.
pub(super) struct Lookup {
    /// Of each field: first the key columns, then those to assign.
    pub(super) columns: Vec<ColumnId>,
    pub(super) keys: u32,
    /// Each combination of the key columns once.
    pub(super) tuples: RecordBatch,
    /// First and last designated timestamp of the rows acted on.
    pub(super) time: Option<Hull>,
    /// Rows acted on.
    pub(super) rows: u64,
}

/// How many rows the statement acts on.
///
/// # Errors
///
/// What it wants to assign to one of them cannot be computed, does not fit its column, or is null where none may be.
pub(super) async fn count_rows(analysed: &Analysed, check: Option<&Check>, view: &View) -> Result<u64> {
    if analysed.assignments.is_empty() {
        let rows =
            LogicalPlanBuilder::from(analysed.from.as_ref().clone()).filter(analysed.predicate.clone());
        return count_plan(rows.tandem()?, view).await;
    }
    let values = analysed.assignments.iter().enumerate();
    let values = values.map(|(i, (_, value))| value.clone().alias(i.to_string()));
    let columns = values.chain(check.map(|check| check.columns(analysed)).into_iter().flatten());
    let mut rows = stream(&analysed.select(columns.collect())?, view).await?;
    let mut found = 0;
    while let Some(batch) = rows.try_next().await.tandem()? {
        found += batch.num_rows() as u64;
        for ((column, _), values) in analysed.assignments.iter().zip(batch.columns()) {
            check_nulls(column, values)?;
        }
        if let Some(check) = check {
            let (values, old) = batch.columns().split_at(analysed.assignments.len().min(batch.num_columns()));
            check.values(analysed, values, old)?;
        }
    }
    Ok(found)
}

async fn count_plan(rows: LogicalPlanBuilder, view: &View) -> Result<u64> {
    let counted = rows
        .aggregate(Vec::<Expr>::new(), [count(lit(1i64))])
        .and_then(LogicalPlanBuilder::build)
        .tandem()?;
    let mut answer = stream(&counted, view).await?;
    let mut total = 0;
    while let Some(batch) = answer.try_next().await.tandem()? {
        for column in batch.columns() {
            let counts = column.as_primitive_opt::<Int64Type>();
            let counts = counts.ok_or_else(|| Error::internal("a count is no number"))?;
            total += counts.iter().flatten().map(i64::unsigned_abs).sum::<u64>();
        }
    }
    Ok(total)
}

fn check_nulls(column: &Column, values: &ArrayRef) -> Result<()> {
    if !column.nullable && values.logical_null_count() > 0 {
        return Err(Error::invalid(format!("column {:?} must not be null", column.name)));
    }
    Ok(())
}

/// Computes what the statement does, as a table of what to look up; `None` if it acts on no row.
pub(super) async fn lookup(analysed: &Analysed, view: &View) -> Result<Option<Lookup>> {
    let volatile = analysed.is_volatile()?;
    let all = &analysed.table.schema().columns;
    let mut keys = if volatile { all.clone() } else { analysed.columns_read()? };
    if keys.is_empty() {
        // What is the same for all rows is the same for all of one value of any column.
        let one = analysed.table.timestamp().or_else(|| all.first());
        keys.extend(one.cloned());
    }
    let timestamp = analysed.table.timestamp().cloned();
    let mut columns: Vec<Expr> = keys.iter().map(|key| analysed.column(key)).collect();
    columns.extend(analysed.assignments.iter().map(|(_, value)| value.clone()));
    columns.extend(timestamp.iter().map(|timestamp| analysed.column(timestamp)));
    let columns = columns.into_iter().enumerate().map(|(i, column)| column.alias(i.to_string())).collect();

    let mut distinct = Distinct::new(analysed, &keys, volatile, view.memory_limit)?;
    let mut rows = stream(&analysed.select(columns)?, view).await?;
    while let Some(batch) = rows.try_next().await.tandem()? {
        distinct.add(&batch)?;
    }
    let Some(tuples) = distinct.finish()? else { return Ok(None) };
    let counted = if analysed.joined {
        count_matched(analysed, &keys, &tuples.batch, view).await?
    } else {
        tuples.rows
    };
    let ids = keys.iter().map(|key| key.id).chain(analysed.assigned());
    Ok(Some(Lookup {
        columns: ids.collect(),
        keys: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        tuples: tuples.batch,
        time: tuples.time,
        rows: counted,
    }))
}

/// Rows of the target that have one of the keys. A join yields a row of the target several times.
async fn count_matched(
    analysed: &Analysed,
    keys: &[Column],
    tuples: &RecordBatch,
    view: &View,
) -> Result<u64> {
    let target = target_scan(&analysed.from);
    let (mut left, mut right, mut fields, mut columns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, (key, values)) in keys.iter().zip(tuples.columns()).enumerate() {
        let to = crate::scan::query_type(&key.data_type);
        let name = i.to_string();
        fields.push(Field::new(&name, to.clone(), true));
        columns.push(
            cast_with_options(values, &to, &STRICT).map_err(|e| Error::internal(format!("a key: {e}")))?,
        );
        left.push(ColumnName::new(analysed.qualifier.clone(), &key.name));
        right.push(ColumnName::new(Some(TUPLES), name));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
    let batch = batch.map_err(|e| Error::internal(format!("keys to match: {e}")))?;
    let table = MemTable::try_new(schema, vec![vec![batch]]).tandem()?;
    let tuples = LogicalPlanBuilder::scan(TUPLES, provider_as_source(Arc::new(table)), None);
    let tuples = tuples.and_then(LogicalPlanBuilder::build).tandem()?;
    let equal = NullEquality::NullEqualsNull;
    let matched = LogicalPlanBuilder::from(target.as_ref().clone())
        .join_detailed(tuples, JoinType::LeftSemi, (left, right), None, equal)
        .tandem()?;
    count_plan(matched, view).await
}

/// Keys and their new values, each key once.
struct Distinct<'a> {
    analysed: &'a Analysed,
    keys: usize,
    /// The first answer for a key counts, where every evaluation gives another.
    first_counts: bool,
    schema: SchemaRef,
    key_rows: RowConverter,
    value_rows: RowConverter,
    seen: HashMap<OwnedRow, Option<OwnedRow>>,
    kept: Vec<RecordBatch>,
    bytes: usize,
    limit: usize,
    rows: u64,
    time: Option<Hull>,
}

struct Tuples {
    batch: RecordBatch,
    rows: u64,
    time: Option<Hull>,
}

impl<'a> Distinct<'a> {
    fn new(analysed: &'a Analysed, keys: &[Column], first_counts: bool, limit: usize) -> Result<Self> {
        let assigned: Vec<&Column> = analysed.assignments.iter().map(|(column, _)| column).collect();
        let types = |columns: &mut dyn Iterator<Item = &Column>| columns.map(logged_type).collect::<Vec<_>>();
        let key_types = types(&mut keys.iter());
        let value_types = types(&mut assigned.iter().copied());
        let names = keys.iter().map(|key| key.name.clone());
        // A column may be looked up and assigned as well.
        let names = names.chain(assigned.iter().map(|column| format!("new {}", column.name)));
        let fields = names.zip(key_types.iter().chain(&value_types));
        let fields: Vec<Field> =
            fields.map(|(name, data_type)| Field::new(name, data_type.clone(), true)).collect();
        Ok(Self {
            analysed,
            keys: keys.len(),
            first_counts,
            schema: Arc::new(Schema::new(fields)),
            key_rows: converter(key_types)?,
            value_rows: converter(value_types)?,
            seen: HashMap::new(),
            kept: Vec::new(),
            bytes: 0,
            limit,
            rows: 0,
            time: None,
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let fields = self.schema.fields().len();
        if let Some(timestamps) = batch.columns().get(fields) {
            self.note_times(timestamps)?;
        }
        let cast = batch.columns().iter().take(fields).zip(self.schema.fields());
        let columns = cast.map(|(values, field)| {
            cast_with_options(values, field.data_type(), &STRICT)
                .map_err(|e| Error::invalid(format!("column {:?}: {e}", field.name())))
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let (keys, values) = columns.split_at(self.keys.min(columns.len()));
        for ((column, _), values) in self.analysed.assignments.iter().zip(values) {
            check_nulls(column, values)?;
        }
        let broken = |e| Error::internal(format!("rows to look up: {e}"));
        let key_rows = self.key_rows.convert_columns(keys).map_err(broken)?;
        let value_rows = match values.is_empty() || !self.analysed.joined {
            true => None,
            false => Some(self.value_rows.convert_columns(values).map_err(broken)?),
        };
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let value = value_rows.as_ref().map(|rows| rows.row(row).owned());
            let key = key_rows.row(row).owned();
            let key_bytes = key.as_ref().len();
            match self.seen.get(&key) {
                Some(known) if *known == value || self.first_counts => keep.push(false),
                Some(_) => {
                    return Err(Error::invalid(
                        "rows of the table match several rows of those joined to it, which say different new values",
                    ));
                }
                None => {
                    self.bytes += 2 * key_bytes + value.as_ref().map_or(0, |v| v.as_ref().len());
                    self.seen.insert(key, value);
                    keep.push(true);
                }
            }
        }
        let all = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(broken)?;
        let new = filter_record_batch(&all, &BooleanArray::from(keep)).map_err(broken)?;
        if new.num_rows() > 0 {
            self.bytes += new.get_array_memory_size();
            self.kept.push(new);
        }
        if self.bytes > self.limit {
            return Err(Error::overloaded(format!(
                "the statement changes rows of too many different values to compute them all at once ({} MiB): change fewer \
                 rows at a time",
                self.limit >> 20
            )));
        }
        Ok(())
    }

    fn note_times(&mut self, timestamps: &ArrayRef) -> Result<()> {
        let ticks = arrow::compute::cast(timestamps, &DataType::Int64)
            .map_err(|e| Error::internal(format!("timestamps as integers: {e}")))?;
        let ticks = ticks.as_primitive::<Int64Type>();
        let (first, last) = (arrow::compute::min(ticks), arrow::compute::max(ticks));
        if let (Some(first), Some(last)) = (first, last) {
            self.time = Some(self.time.map_or((first, last), |t| (t.0.min(first), t.1.max(last))));
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<Tuples>> {
        if self.kept.is_empty() {
            return Ok(None);
        }
        let batch = concat_batches(&self.schema, &self.kept)
            .map_err(|e| Error::overloaded(format!("the rows to look up are too many for one batch: {e}")))?;
        Ok(Some(Tuples { batch, rows: self.rows, time: self.time }))
    }
}

fn converter(types: Vec<DataType>) -> Result<RowConverter> {
    RowConverter::new(types.into_iter().map(SortField::new).collect())
        .map_err(|e| Error::unsupported(format!("rows cannot be told apart by a column of such a type: {e}")))
}
