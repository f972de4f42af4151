//! `CREATE TABLE … AS`: a table and its first rows in one transaction.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast;
use tandem_manifest::{ColumnSpec, Manifest, SchemaPolicy, TableSpec};
use tandem_types::{Error, ErrorKind, Result, TableName};

use super::{append, list, seen};
use crate::database::{AppendRequest, CreateTable};
use crate::error::IntoTandem;
use crate::options::WriteOptions;
use crate::params::{Parameters, row_values};
use crate::prepared::{UpdateResult, query_plan};
use crate::running::Job;
use crate::session::Session;
use crate::transaction::Within;
use crate::wire::{to_wire, wire_type};

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
        options: WriteOptions,
        within: Option<&Within>,
    ) -> Result<UpdateResult> {
        let engine = session.engine();
        let (base, snapshot) = seen(session, within);
        let exists = snapshot.table_named(&self.name).is_some();
        if exists && self.if_not_exists {
            return Ok(UpdateResult::nothing(base.seq(), Some(0)));
        }
        if exists && !self.or_replace {
            return Err(Error::already_exists(format!("table {} exists", self.name)));
        }
        let guard = list(session, sql, &base)?;
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

        if let (Some(within), Some(plan)) = (within, plans.first()) {
            within.note_plan(plan, &session.default_schema())?;
        }
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
        let rows = job.start(engine, guard, move |batch| to_wire(&batch, &wire));
        let create = CreateTable { spec, if_not_exists: false, replace: self.or_replace };
        let policy = SchemaPolicy::Strict;
        let table = self.name.clone();
        let request = AppendRequest {
            table,
            schema,
            policy,
            create: Some(create),
            queued: None,
            options,
            on_conflict: None,
        };
        match append(session, within, request, rows).await {
            Ok(receipt) => Ok(receipt.into()),
            // Somebody else created it meanwhile: then there is nothing to do.
            Err(error) if self.if_not_exists && error.kind() == ErrorKind::AlreadyExists => {
                Ok(UpdateResult::nothing(engine.database().snapshot().seq(), Some(0)))
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
