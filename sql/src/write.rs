//! `INSERT` and `CREATE TABLE … AS`: rows of a query become one transaction.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::CastOptions;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column as ColumnName;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Values,
};
use datafusion::sql::parser::{DFParser, Statement as SqlStatement};
use datafusion::sql::sqlparser::ast;
use tandem_manifest::{ColumnSpec, Manifest, SchemaPolicy, TableSpec};
use tandem_types::{Column, Error, ErrorKind, Result, TableName, TableSchema};

use crate::database::{AppendRequest, CreateTable};
use crate::error::IntoTandem;
use crate::params::{Parameters, row_values};
use crate::prepared::{UpdateResult, query_plan};
use crate::queries::{QueryGuard, QueryInfo};
use crate::running::{Job, listed};
use crate::session::Session;
use crate::statement::quote_name;
use crate::wire::{to_wire, wire_type};

/// `INSERT INTO table (columns) source`.
#[derive(Clone)]
pub(crate) struct Insert {
    pub(crate) table: TableName,
    /// Empty: all of the table's.
    pub(crate) columns: Vec<String>,
    pub(crate) source: Box<ast::Query>,
}

impl Insert {
    /// What the statement wants bound; refuses what does not fit the table.
    pub(crate) async fn parameters(&self, session: &Session, snapshot: &Arc<Manifest>) -> Result<Parameters> {
        let state = session.state(snapshot)?;
        let (plan, _) = self.plan(&state, snapshot).await?;
        Parameters::of(&plan)
    }

    /// Runs it once for each row of parameters, all in one transaction.
    pub(crate) async fn run(
        &self,
        session: &Session,
        sql: &str,
        bound: Option<RecordBatch>,
    ) -> Result<UpdateResult> {
        let engine = session.engine();
        let snapshot = engine.database().snapshot();
        if bound.as_ref().is_some_and(|rows| rows.num_rows() == 0) {
            return Ok(UpdateResult { seq: snapshot.seq(), rows: Some(0) });
        }
        let guard = list(session, sql, &snapshot)?;
        let state = session.state(&snapshot)?;
        let work = {
            let (this, state) = (self.clone(), state.clone());
            async move {
                let (plan, columns) = this.plan(&state, &snapshot).await?;
                Ok((bind(plan, bound)?, columns))
            }
        };
        let limit = engine.config().planning_limit;
        let (plans, columns) = engine.runtime().run_within(limit, "planning the insert", work).await?;

        let columns = TableSchema { columns };
        let schema = columns.arrow();
        let table = self.table.clone();
        let convert = move |batch: RecordBatch| {
            to_columns(&batch, &columns).map_err(|e| e.context(format!("insert into {table}")))
        };
        let job = Job { state, plans, first: None, planning_limit: limit };
        let rows = listed(job.start(engine, convert), guard);
        let policy = SchemaPolicy::Strict;
        let request = AppendRequest { table: self.table.clone(), schema, policy, create: None };
        let receipt = engine.database().append(request, rows).await?;
        Ok(UpdateResult { seq: receipt.seq, rows: Some(receipt.rows) })
    }

    /// The rows to insert, in the types of the source, and the table's columns that they are for.
    async fn plan(&self, state: &SessionState, snapshot: &Manifest) -> Result<(LogicalPlan, Vec<Column>)> {
        let table = snapshot.require(&self.table)?;
        let columns = self.targets(table.schema())?;
        // DataFusion's own INSERT knows what the table's types say of placeholders and of VALUES.
        let plan = state.statement_to_plan(self.statement()?).await.tandem()?;
        let LogicalPlan::Dml(dml) = plan else {
            return Err(Error::internal("an INSERT was not planned as one"));
        };
        let LogicalPlan::Projection(all) = dml.input.as_ref() else {
            return Err(Error::internal("an INSERT was planned without a projection"));
        };
        let mut chosen = Vec::with_capacity(columns.len());
        for column in &columns {
            let position = table.schema().position(column.id);
            let expr = position.and_then(|p| all.expr.get(p)).ok_or_else(|| {
                Error::internal(format!("column {:?} is missing from the plan of an INSERT", column.name))
            })?;
            chosen.push(without_cast(expr).alias(&column.name));
        }
        let rows = LogicalPlanBuilder::from(Arc::clone(&all.input)).project(chosen);
        Ok((rows.and_then(LogicalPlanBuilder::build).tandem()?, columns))
    }

    fn targets(&self, schema: &TableSchema) -> Result<Vec<Column>> {
        if self.columns.is_empty() {
            return Ok(schema.columns.clone());
        }
        let mut targets: Vec<Column> = Vec::with_capacity(self.columns.len());
        let mut unknown = Vec::new();
        for name in &self.columns {
            match schema.by_name(name) {
                Some(column) if targets.iter().any(|t| t.id == column.id) => {
                    return Err(Error::invalid(format!("column {name:?} is named twice")));
                }
                Some(column) => targets.push(column.clone()),
                None => unknown.push(format!("{name:?}")),
            }
        }
        if !unknown.is_empty() {
            let (table, unknown) = (&self.table, unknown.join(", "));
            return Err(Error::not_found(format!("table {table} has no column {unknown}")));
        }
        Ok(targets)
    }

    /// The statement as DataFusion's planner takes it.
    fn statement(&self) -> Result<SqlStatement> {
        let mut text =
            format!("INSERT INTO {}.{}", quote_name(&self.table.schema), quote_name(&self.table.table));
        if !self.columns.is_empty() {
            let names: Vec<_> = self.columns.iter().map(|name| quote_name(name).to_string()).collect();
            text.push_str(&format!(" ({})", names.join(", ")));
        }
        text.push_str(" SELECT 1");
        let mut parsed = DFParser::parse_sql(&text).tandem()?;
        match parsed.pop_front() {
            Some(SqlStatement::Statement(mut statement)) => {
                if let ast::Statement::Insert(insert) = statement.as_mut() {
                    insert.source = Some(self.source.clone());
                }
                Ok(SqlStatement::Statement(statement))
            }
            _ => Err(Error::internal("an INSERT cannot be put together")),
        }
    }
}

/// Lists a statement that writes among the queries, so that it can be cancelled until it commits.
fn list(session: &Session, sql: &str, snapshot: &Manifest) -> Result<QueryGuard> {
    session.engine().registry().start(QueryInfo {
        id: None,
        session: session.id().to_owned(),
        user: None,
        statement: sql.to_owned(),
        snapshot: Some(snapshot.seq()),
    })
}

/// Takes away the cast to the column's type: it is made where an error can name the column.
fn without_cast(expr: &Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => without_cast(&alias.expr),
        Expr::Cast(Cast { expr, .. }) if matches!(expr.as_ref(), Expr::Column(_)) => expr.as_ref().clone(),
        other => other.clone(),
    }
}

/// One plan for all rows of parameters where rows of constants are inserted, else one plan for each row.
fn bind(plan: LogicalPlan, bound: Option<RecordBatch>) -> Result<Vec<LogicalPlan>> {
    let Some(rows) = bound else {
        return Ok(vec![plan]);
    };
    if rows.num_rows() > 1
        && let Some(all) = values_for_all(&plan, &rows)?
    {
        return Ok(vec![all]);
    }
    (0..rows.num_rows()).map(|row| plan.clone().with_param_values(row_values(&rows, row)?).tandem()).collect()
}

/// Turns `VALUES` with placeholders into a projection of a table of the parameters, if the plan computes
/// each of its rows from one row of the `VALUES`.
fn values_for_all(plan: &LogicalPlan, rows: &RecordBatch) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Values(values) => projected(values, rows).map(Some),
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            let Some(input) = values_for_all(input, rows)? else {
                return Ok(None);
            };
            let projection = Projection::try_new(expr.clone(), Arc::new(input)).tandem()?;
            Ok(Some(LogicalPlan::Projection(projection)))
        }
        _ => Ok(None),
    }
}

fn projected(values: &Values, rows: &RecordBatch) -> Result<LogicalPlan> {
    const PARAMETERS: &str = "parameters";
    let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).tandem()?;
    let source = provider_as_source(Arc::new(table));
    let mut union: Option<LogicalPlanBuilder> = None;
    for row in &values.values {
        let scan = LogicalPlanBuilder::scan(PARAMETERS, Arc::clone(&source), None).tandem()?;
        let mut columns = Vec::with_capacity(row.len());
        for (expr, field) in row.iter().zip(values.schema.fields()) {
            let bound = expr.clone().transform(|expr| match expr {
                Expr::Placeholder(Placeholder { id, .. }) => {
                    Ok(Transformed::yes(Expr::Column(ColumnName::new(Some(PARAMETERS), id))))
                }
                other => Ok(Transformed::no(other)),
            });
            let bound = bound.tandem()?.data.cast_to(field.data_type(), scan.schema()).tandem()?;
            columns.push(bound.alias(field.name()));
        }
        let projection = scan.project(columns).tandem()?;
        union = Some(match union {
            Some(before) => before.union(projection.build().tandem()?).tandem()?,
            None => projection,
        });
    }
    match union {
        Some(plan) => plan.build().tandem(),
        None => Ok(LogicalPlan::Values(values.clone())),
    }
}

/// Casts columns of a query to the table's, by position.
fn to_columns(batch: &RecordBatch, columns: &TableSchema) -> Result<RecordBatch> {
    let cast = batch.columns().iter().zip(&columns.columns);
    let cast: Vec<ArrayRef> = cast.map(|(array, column)| to_column(array, column)).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(columns.arrow(), cast, &options)
        .map_err(|e| Error::internal(format!("rows do not fit their table: {e}")))
}

fn to_column(array: &ArrayRef, column: &Column) -> Result<ArrayRef> {
    let array = if *array.data_type() == DataType::Null {
        new_null_array(&column.data_type, array.len())
    } else {
        cast(array, &column.data_type).map_err(|e| e.context(format!("column {:?}", column.name)))?
    };
    if !column.nullable && array.null_count() > 0 {
        return Err(Error::invalid(format!("column {:?} must not be null", column.name)));
    }
    Ok(array)
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    const STRICT: CastOptions<'static> =
        CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };
    // Dictionaries are built from plain values.
    let steps: [Option<DataType>; 2] = match to {
        DataType::Dictionary(_, value) => [Some(value.as_ref().clone()), Some(to.clone())],
        _ => [None, Some(to.clone())],
    };
    let mut value = ColumnarValue::Array(Arc::clone(array));
    for step in steps.into_iter().flatten() {
        value = value.cast_to(&step, Some(&STRICT)).tandem()?;
    }
    value.into_array(array.len()).tandem()
}

/// `CREATE TABLE name AS query`.
#[derive(Clone)]
pub(crate) struct CreateAs {
    pub(crate) name: TableName,
    /// Without columns, which come from the query.
    pub(crate) spec: TableSpec,
    pub(crate) if_not_exists: bool,
    pub(crate) or_replace: bool,
    pub(crate) query: Box<ast::Query>,
}

impl CreateAs {
    pub(crate) async fn parameters(&self, session: &Session, snapshot: &Arc<Manifest>) -> Result<Parameters> {
        let state = session.state(snapshot)?;
        let plan = query_plan(&state, self.statement()).await?;
        Parameters::of(&plan)
    }

    pub(crate) async fn run(
        &self,
        session: &Session,
        sql: &str,
        bound: Option<RecordBatch>,
    ) -> Result<UpdateResult> {
        let engine = session.engine();
        let snapshot = engine.database().snapshot();
        let exists = snapshot.table_named(&self.name).is_some();
        if exists && self.if_not_exists {
            return Ok(UpdateResult { seq: snapshot.seq(), rows: Some(0) });
        }
        if exists && !self.or_replace {
            return Err(Error::already_exists(format!("table {} exists", self.name)));
        }
        let guard = list(session, sql, &snapshot)?;
        let state = session.state(&snapshot)?;
        let work = {
            let (state, statement) = (state.clone(), self.statement());
            async move {
                let plan = query_plan(&state, statement).await?;
                let plans = match bound {
                    None => vec![plan],
                    Some(rows) => (0..rows.num_rows())
                        .map(|row| plan.clone().with_param_values(row_values(&rows, row)?).tandem())
                        .collect::<Result<_>>()?,
                };
                let first = plans.first().ok_or_else(|| Error::invalid("no row of parameters was bound"))?;
                let optimized = state.optimize(first).tandem()?;
                Ok((stored_schema(optimized.schema().as_arrow())?, plans))
            }
        };
        let limit = engine.config().planning_limit;
        let (schema, plans) = engine.runtime().run_within(limit, "planning the query", work).await?;

        let mut spec = self.spec.clone();
        spec.columns = schema
            .fields()
            .iter()
            .map(|f| ColumnSpec {
                name: f.name().clone(),
                data_type: f.data_type().clone(),
                nullable: f.is_nullable(),
            })
            .collect();
        let wire = Arc::clone(&schema);
        let job = Job { state, plans, first: None, planning_limit: limit };
        let rows = listed(job.start(engine, move |batch| to_wire(&batch, &wire)), guard);
        let create = CreateTable { spec, if_not_exists: false, replace: self.or_replace };
        let policy = SchemaPolicy::Strict;
        let request = AppendRequest { table: self.name.clone(), schema, policy, create: Some(create) };
        match engine.database().append(request, rows).await {
            Ok(receipt) => Ok(UpdateResult { seq: receipt.seq, rows: Some(receipt.rows) }),
            // Somebody else created it meanwhile: then there is nothing to do.
            Err(error) if self.if_not_exists && error.kind() == ErrorKind::AlreadyExists => {
                Ok(UpdateResult { seq: engine.database().snapshot().seq(), rows: Some(0) })
            }
            Err(error) => Err(error),
        }
    }

    fn statement(&self) -> SqlStatement {
        SqlStatement::Statement(Box::new(ast::Statement::Query(self.query.clone())))
    }
}

/// The columns that a table made of a query gets: plain types, nulls allowed unless the query rules them out.
fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        if fields.iter().any(|f| f.name() == name) {
            return Err(Error::invalid(format!(
                "the query has two columns {name:?}: name them apart with AS"
            )));
        }
        if *field.data_type() == DataType::Null {
            return Err(Error::invalid(format!("column {name:?} has no type: cast it to one")));
        }
        let data_type = wire_type(field.data_type());
        tandem_types::check_data_type(name, &data_type)?;
        // What cannot be null in this query may well be null in the next INSERT.
        let nullable = field.is_nullable() || !matches!(data_type, DataType::Timestamp(..));
        fields.push(Field::new(name, data_type, nullable));
    }
    Ok(Arc::new(Schema::new(fields)))
}
