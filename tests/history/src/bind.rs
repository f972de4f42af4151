//! Names to ids: what a statement becomes on one state.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tandem_env::Env;
use tandem_format::{Expr, Literal, ObjectName, segment_path};
use tandem_manifest::{ColumnSpec, OnConflict, SectionDraft, Table, TableSpec};
use tandem_segment::encode_section;
use tandem_types::{ColumnId, Error, Partition, Result, Seq, WriterId, widens_to};

use crate::eval::cast;
use crate::statement::{Conflict, Declared, Insert, Shape, Term};
use crate::value::{Value, array_of};

/// A statement does not fit the state that it is sent to: nobody sends it.
pub fn unfit(what: impl Into<String>) -> Error {
    Error::invalid(what)
}

pub fn literal(data_type: &DataType, values: &[Value]) -> Result<Literal> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array_of(data_type, values)?])
        .map_err(|e| Error::internal(e.to_string()))?;
    Ok(Literal { ipc: encode_section(&schema, &[batch])?.chunks.concat() })
}

pub fn expr(term: &Term, table: &Table) -> Result<Expr> {
    let boxed = |term: &Term| expr(term, table).map(Box::new);
    Ok(match term {
        Term::Column { name, data_type } => {
            let column = table.schema().by_name(name).ok_or_else(|| unfit(format!("no column {name}")))?;
            let read = Expr::Column { column: column.id, data_type: column.data_type.clone() };
            // It was widened since whoever wrote the statement looked.
            match column.data_type == *data_type {
                true => read,
                false if widens_to(data_type, &column.data_type) => {
                    Expr::Cast { of: Box::new(read), to: data_type.clone() }
                }
                false => return Err(unfit(format!("column {name} is another one"))),
            }
        }
        Term::Literal { data_type, value } => Expr::Literal(literal(data_type, std::slice::from_ref(value))?),
        Term::Now => Expr::Now,
        Term::Binary { op, left, right } => {
            Expr::Binary { op: *op, left: boxed(left)?, right: boxed(right)? }
        }
        Term::Not(of) => Expr::Not(boxed(of)?),
        Term::IsNull(of) => Expr::IsNull(boxed(of)?),
        Term::Negate(of) => Expr::Negate(boxed(of)?),
        Term::InList { of, data_type, list, negated } => {
            Expr::InList { of: boxed(of)?, list: literal(data_type, list)?, negated: *negated }
        }
        Term::Cast { of, to } => Expr::Cast { of: boxed(of)?, to: to.clone() },
        Term::Case { branches, otherwise } => Expr::Case {
            branches: branches
                .iter()
                .map(|(when, then)| Ok((expr(when, table)?, expr(then, table)?)))
                .collect::<Result<_>>()?,
            otherwise: otherwise.as_deref().map(boxed).transpose()?,
        },
        Term::Like { of, pattern, negated, ignore_case } => Expr::Like {
            of: boxed(of)?,
            pattern: boxed(pattern)?,
            negated: *negated,
            ignore_case: *ignore_case,
        },
    })
}

/// What a column is assigned. As whoever writes a mutation must, it says what becomes of a value that the column cannot have
/// now, so that what happens to the column later does not change that.
pub fn assignment(name: &str, term: &Term, table: &Table) -> Result<(ColumnId, Expr)> {
    let column = table.schema().by_name(name).ok_or_else(|| unfit(format!("no column {name}")))?;
    let value = Expr::Cast { of: Box::new(expr(term, table)?), to: column.data_type.clone() };
    if column.nullable {
        return Ok((column.id, value));
    }
    let old = Expr::Column { column: column.id, data_type: column.data_type.clone() };
    let branches = vec![(Expr::IsNull(Box::new(value.clone())), old)];
    Ok((column.id, Expr::Case { branches, otherwise: Some(Box::new(value)) }))
}

pub fn column_spec(column: &Declared) -> ColumnSpec {
    ColumnSpec { name: column.name.clone(), data_type: column.data_type.clone(), nullable: column.nullable }
}

pub fn table_spec(shape: &Shape) -> TableSpec {
    let option = |value: &str| ("on_duplicate".to_owned(), value.to_owned());
    TableSpec {
        columns: shape.columns.iter().map(column_spec).collect(),
        timestamp: Some(shape.timestamp.clone().unwrap_or_else(|| "none".to_owned())),
        partition_by: Some(shape.partition_by),
        order_by: shape.order_by.clone(),
        primary_key: (!shape.primary_key.is_empty()).then(|| shape.primary_key.clone()),
        options: shape.on_duplicate.map(option).into_iter().collect(),
    }
}

pub fn on_conflict(conflict: &Conflict) -> OnConflict {
    match conflict {
        Conflict::Nothing => OnConflict::DoNothing,
        Conflict::Replace => OnConflict::Replace,
        Conflict::Merge => OnConflict::Merge,
        Conflict::Update(columns) => OnConflict::Update(columns.clone()),
    }
}

/// An insert's batches, with the types that the table's columns have.
pub fn batches(insert: &Insert, table: &Table) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut fields = Vec::new();
    for (name, data_type) in &insert.columns {
        let column = table.schema().by_name(name).ok_or_else(|| unfit(format!("no column {name}")))?;
        if !widens_to(data_type, &column.data_type) {
            return Err(unfit(format!("column {name} is another one")));
        }
        fields.push(Field::new(name, column.data_type.clone(), true));
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = |rows: &Vec<Vec<Value>>| {
        let mut arrays = Vec::new();
        for (at, (_, data_type)) in insert.columns.iter().enumerate() {
            let to = schema.field(at).data_type();
            let values: Vec<Value> =
                rows.iter().map(|row| cast(row[at].clone(), data_type, to)).collect::<Result<_>>()?;
            arrays.push(array_of(to, &values)?);
        }
        RecordBatch::try_new(schema.clone(), arrays).map_err(|e| Error::internal(e.to_string()))
    };
    let batches = insert.batches.iter().filter(|rows| !rows.is_empty()).map(batch).collect::<Result<_>>()?;
    Ok((schema, batches))
}

/// Where a node puts segments.
pub struct Uploads<'a> {
    pub env: &'a Env,
    pub writer: WriterId,
    pub base: Seq,
}

impl Uploads<'_> {
    /// Rows as a section in a segment of its own. `table`: whose rows they are; `None`: they are none.
    pub async fn section(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        table: Option<&Table>,
    ) -> Result<SectionDraft> {
        let encoded = encode_section(schema, batches)?;
        let object = ObjectName { base: self.base, writer: self.writer, random: self.env.chance.next_u64() };
        self.env.store.create_data(&segment_path(&object), encoded.chunks).await?;
        let mut draft = SectionDraft {
            segment: Some(object),
            offset: 0,
            len: encoded.len,
            crc32c: encoded.crc32c,
            rows: encoded.rows,
            time: None,
            partitions: Vec::new(),
            null_counts: (0..schema.fields().len())
                .map(|at| batches.iter().map(|b| b.column(at).null_count() as u64).sum())
                .collect(),
        };
        let Some(table) = table else { return Ok(draft) };
        let mut partitions: BTreeMap<Partition, u64> = BTreeMap::new();
        match table.timestamp() {
            None => *partitions.entry(Partition(0)).or_default() += encoded.rows,
            Some(column) => {
                let at = schema.index_of(&column.name).map_err(|_| unfit("rows without their time"))?;
                let DataType::Timestamp(unit, _) = &column.data_type else {
                    return Err(Error::internal("a designated timestamp that is none"));
                };
                for batch in batches {
                    for row in 0..batch.num_rows() {
                        let Value::Int(ticks) = crate::value::value_at(batch.column(at), row)? else {
                            return Err(unfit("a row without a time"));
                        };
                        let ticks = i64::try_from(ticks).map_err(|_| unfit("a time beyond its type"))?;
                        *partitions.entry(table.partition_by().partition(ticks, *unit)).or_default() += 1;
                        let (first, last) = draft.time.unwrap_or((ticks, ticks));
                        draft.time = Some((first.min(ticks), last.max(ticks)));
                    }
                }
            }
        }
        draft.partitions = partitions.into_iter().collect();
        Ok(draft)
    }
}
