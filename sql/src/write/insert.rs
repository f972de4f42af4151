//! `INSERT`: rows of a query become one transaction.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::DataType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Cast, ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::{DFParser, Statement as SqlStatement};
use datafusion::sql::sqlparser::ast;
use tandem_format::OnDuplicate;
use tandem_manifest::{Manifest, OnConflict, SchemaPolicy, Table};
use tandem_types::{Column, Error, ErrorKind, Result, TableName, TableSchema};

use super::values::{bind, faulty_column, with_nulls};
use super::{STRICT, append, list, seen};
use crate::as_of::with_versions;
use crate::database::AppendRequest;
use crate::error::IntoTandem;
use crate::options::WriteOptions;
use crate::params::Parameters;
use crate::prepared::UpdateResult;
use crate::running::Job;
use crate::session::Session;
use crate::similar;
use crate::statement::{Conflict, quote_name};
use crate::transaction::Within;

/// `INSERT INTO table (columns) source`.
#[derive(Clone)]
pub(crate) struct Insert {
    pub(crate) table: TableName,
    /// Empty: all of the table's.
    pub(crate) columns: Vec<String>,
    pub(crate) source: Box<ast::Query>,
    /// What becomes of rows whose key is taken; `None`: as the table says.
    pub(crate) conflict: Option<Conflict>,
}

impl Insert {
    /// What the statement wants bound; refuses what does not fit the table.
    pub(crate) async fn parameters(&self, session: &Session, snapshot: &Arc<Manifest>) -> Result<Parameters> {
        let state = session.state(snapshot)?;
        let (plan, _) = self.plan(&state, snapshot).await?;
        Parameters::of(&plan)
    }

    /// Runs it once for each row of parameters, all in one transaction: `within` is the one that is open.
    pub(crate) async fn run(
        &self,
        session: &Session,
        sql: &str,
        bound: Option<RecordBatch>,
        options: WriteOptions,
        within: Option<&Within>,
    ) -> Result<UpdateResult> {
        let engine = session.engine();
        let (base, snapshot) = seen(session, within);
        if bound.as_ref().is_some_and(|rows| rows.num_rows() == 0) {
            return Ok(UpdateResult::nothing(base.seq(), Some(0)));
        }
        let guard = list(session, sql, &base)?;
        let state = session.state(&snapshot)?;
        let all_count = self.all_count(&snapshot);
        let work = {
            let (this, state) = (self.clone(), state.clone());
            async move {
                let (plan, columns) = this.plan(&state, &snapshot).await?;
                Ok((bind(plan, bound)?, columns))
            }
        };
        let limit = engine.config().planning_limit;
        let (plans, columns) = engine.runtime().run_within(limit, "planning the insert", work).await?;

        if let (Some(within), Some(plan)) = (within, plans.first()) {
            within.note_plan(plan, &session.default_schema())?;
        }
        let columns = TableSchema { columns };
        let schema = columns.arrow();
        let table = self.table.clone();
        let convert = move |batch: RecordBatch| {
            to_columns(&batch, &columns).map_err(|e| e.context(format!("insert into {table}")))
        };
        let first = plans.first().cloned();
        let job = Job { state: state.clone(), plans, first: None, planning_limit: limit };
        let rows = job.start(engine, guard, convert);
        let policy = SchemaPolicy::Strict;
        let request = AppendRequest {
            table: self.table.clone(),
            schema: Arc::clone(&schema),
            policy,
            create: None,
            queued: None,
            options,
            on_conflict: self.conflict.as_ref().map(|conflict| conflict.action.clone()),
        };
        match append(session, within, request, rows).await {
            Ok(receipt) => Ok(UpdateResult { exact: all_count, ..receipt.into() }),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                let find = async move { Ok(first.and_then(|plan| faulty_column(&state, &plan))) };
                let column = engine.runtime().run(find).await?.and_then(|i| schema.fields().get(i));
                Err(match column {
                    Some(column) => {
                        error.context(format!("insert into {}: column {:?}", self.table, column.name()))
                    }
                    None => error,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The rows to insert, in the types of the source, and the table's columns that they are for.
    async fn plan(&self, state: &SessionState, snapshot: &Manifest) -> Result<(LogicalPlan, Vec<Column>)> {
        let table = similar::require(snapshot, &self.table)?;
        self.check_conflict(table)?;
        let columns = self.targets(table.schema())?;
        // DataFusion's own INSERT knows what the table's types say of placeholders and of VALUES.
        let mut statement = self.statement()?;
        let state = with_versions(state, &mut statement).await?;
        let planned = state.statement_to_plan(statement).await.tandem();
        let plan = planned.map_err(|error| similar::of_plan(error, &state))?;
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
        let rows = LogicalPlanBuilder::from(with_nulls(&all.input)?).project(chosen);
        Ok((rows.and_then(LogicalPlanBuilder::build).tandem()?, columns))
    }

    /// That the key said to be taken is the table's.
    fn check_conflict(&self, table: &Table) -> Result<()> {
        let Some(conflict) = &self.conflict else { return Ok(()) };
        let name = &self.table;
        if !table.is_keyed() {
            return Err(Error::invalid(format!(
                "ON CONFLICT needs a primary key, and table {name} has none"
            )));
        }
        let key = table.primary_key().iter().filter_map(|id| table.schema().column(*id));
        let key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
        let is_key = |said: &[String]| {
            said.len() == key.len() && said.iter().all(|column| key.contains(&column.as_str()))
        };
        if !conflict.key.is_empty() && !is_key(&conflict.key) {
            return Err(Error::invalid(format!(
                "ON CONFLICT ({}): the primary key of table {name} is ({})",
                conflict.key.join(", "),
                key.join(", ")
            )));
        }
        if let OnConflict::Update(columns) = &conflict.action {
            for column in columns {
                let Some(found) = table.schema().by_name(column) else {
                    return Err(Error::not_found(format!("table {name} has no column {column:?}")));
                };
                if table.primary_key().contains(&found.id) {
                    return Err(Error::invalid(format!(
                        "column {column:?} is in the primary key of table {name}: it is equal in both rows"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether every row sent is a row written: not where one may give way to a row that is there.
    fn all_count(&self, snapshot: &Manifest) -> bool {
        let table = snapshot.table_named(&self.table);
        match &self.conflict {
            Some(conflict) => conflict.action != OnConflict::DoNothing,
            None => table.is_none_or(|table| table.on_duplicate() != OnDuplicate::Ignore),
        }
    }

    /// The columns to write; the others are null.
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
        let table = &self.table;
        if !unknown.is_empty() {
            return Err(Error::not_found(format!("table {table} has no column {}", unknown.join(", "))));
        }
        let forgotten = schema.columns.iter().find(|c| !c.nullable && targets.iter().all(|t| t.id != c.id));
        match forgotten {
            Some(column) => Err(Error::invalid(format!(
                "insert into {table}: column {:?} must not be null, and the INSERT does not name it",
                column.name
            ))),
            None => Ok(targets),
        }
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

/// Takes away the cast to the column's type: it is made where an error can name the column.
fn without_cast(expr: &Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => without_cast(&alias.expr),
        Expr::Cast(Cast { expr, .. }) if matches!(expr.as_ref(), Expr::Column(_)) => expr.as_ref().clone(),
        other => other.clone(),
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
