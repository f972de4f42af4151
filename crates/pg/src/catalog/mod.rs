//! Questions about the schema: `pg_catalog` and `information_schema`, as PostgreSQL's clients ask them.
//!
//! The tables are made of the manifest that the session reads, for each question anew. Clients ask in PostgreSQL's own
//! dialect, with functions and casts that exist for catalogs only; so the questions are rewritten and then planned apart from
//! all other statements, in a session of DataFusion's that holds nothing but these tables.

mod functions;
mod rewrite;
mod rows;
mod tables;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use tandem_env::{SystemClock, within};
use tandem_manifest::Manifest;
use tandem_sql::wire::{to_wire, wire_schema};
use tandem_types::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Runtime};

use crate::types::{oid, oid_of};

/// Of the threads that answer. Plans of such questions nest deeply.
const STACK_BYTES: usize = 16 << 20;
/// A question that takes longer asks for something else.
const TIME: Duration = Duration::from_secs(30);
/// Rows of an answer, and bytes of what it takes to find it.
const MAX_ROWS: usize = 1_000_000;
const MEMORY: usize = 256 << 20;

/// What questions about the session itself are answered with.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub schema: String,
    pub user: String,
    /// The connection's number.
    pub process: u32,
    pub settings: Vec<(&'static str, String)>,
}

/// What a question is asked of.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub state: Arc<Manifest>,
    pub facts: Facts,
}

/// A question that was understood as one.
#[derive(Clone)]
pub(crate) struct Question {
    statement: Arc<ast::Statement>,
    /// Its parameters.
    parameters: usize,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({})", self.statement)
    }
}

/// What was learnt of a question when it was planned.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Of its parameters.
    pub types: Vec<u32>,
    pub schema: SchemaRef,
}

/// Answers questions, on a thread of its own: whatever they ask, nobody else waits.
pub(crate) struct Catalog {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Catalog {
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("tandem-pg")
            .thread_stack_size(STACK_BYTES)
            .enable_time()
            .build()
            .map_err(|e| Error::internal(format!("a thread for catalogs cannot be had: {e}")))?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Plans a question, to learn its parameters and its columns; `told` are types that the client knows.
    pub async fn plan(&self, question: Question, view: View, told: Vec<u32>) -> Result<Planned> {
        self.run(async move {
            let (_, plan) = question.plan(&view).await?;
            let needed = plan.get_parameter_types().map_err(plain)?;
            let types = (0..question.parameters).map(|at| {
                match (told.get(at), needed.get(&format!("${}", at + 1))) {
                    (Some(known), _) if *known != 0 && *known != oid::UNKNOWN => *known,
                    (_, Some(Some(data_type))) => oid_of(data_type),
                    _ => oid::TEXT,
                }
            });
            Ok(Planned { types: types.collect(), schema: schema_of(&plan) })
        })
        .await
    }

    /// Answers a question.
    pub async fn ask(
        &self,
        question: Question,
        view: View,
        parameters: Option<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        self.run(async move {
            let (state, plan) = question.plan(&view).await?;
            let schema = schema_of(&plan);
            let plan = bind(plan, question.parameters, parameters)?;
            let physical: Arc<dyn ExecutionPlan> = state.create_physical_plan(&plan).await.map_err(plain)?;
            let mut stream = execute_stream(physical, state.task_ctx()).map_err(plain)?;
            let (mut batches, mut rows) = (Vec::new(), 0);
            while let Some(batch) = stream.next().await {
                let batch = to_wire(&batch.map_err(plain)?, &schema)?;
                rows += batch.num_rows();
                if rows > MAX_ROWS {
                    return Err(Error::overloaded(format!("the answer has more than {MAX_ROWS} rows")));
                }
                batches.push(batch);
            }
            Ok(batches)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().ok_or_else(|| Error::unavailable("the node is shutting down"))?;
        // Boxed, because it is large and moves.
        let task = runtime.spawn(within_time(Box::pin(work)));
        let mut task = AbortOnDrop(task);
        match (&mut task.0).await {
            Ok(answer) => answer,
            Err(e) if e.is_panic() => {
                Err(Error::internal("the question about the schema failed by a fault of the server"))
            }
            Err(_) => Err(Error::new(ErrorKind::Cancelled, "the question about the schema was cancelled")),
        }
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed where this may be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn within_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    within(&SystemClock, TIME, work).await.unwrap_or_else(|| {
        Err(Error::new(
            ErrorKind::DeadlineExceeded,
            format!("the question about the schema took longer than {} s", TIME.as_secs()),
        ))
    })
}

impl Question {
    /// The question that a statement asks; `None` if it asks something else.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a question that cannot be read.
    pub fn of(sql: &str) -> Result<Option<Self>> {
        rewrite::question(sql).map(|found| {
            found.map(|(statement, parameters)| Self { statement: Arc::new(statement), parameters })
        })
    }

    async fn plan(&self, view: &View) -> Result<(SessionState, LogicalPlan)> {
        let statement = rewrite::rewritten(self.statement.as_ref().clone(), view)?;
        let state = session(view)?;
        let statement = DfStatement::Statement(Box::new(statement));
        let plan = state.statement_to_plan(statement).await.map_err(plain)?;
        Ok((state, plan))
    }
}

/// A session of DataFusion's that knows the catalogs of a view and nothing else.
fn session(view: &View) -> Result<SessionState> {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("tandem", "pg_catalog")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_target_partitions(1);
    let runtime = datafusion::execution::runtime_env::RuntimeEnvBuilder::new()
        .with_memory_limit(MEMORY, 1.0)
        .build_arc()
        .map_err(plain)?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.register_catalog("tandem", tables::catalog(view)?);
    functions::register(&context, view);
    Ok(context.state())
}

/// How the answer looks on the wire: names may be there several times.
fn schema_of(plan: &LogicalPlan) -> SchemaRef {
    let schema = wire_schema(plan.schema().as_arrow());
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            known => known.clone(),
        };
        Field::new(rewrite::shown_name(field.name()), data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Values in the types that the plan needs.
fn bind(plan: LogicalPlan, parameters: usize, values: Option<RecordBatch>) -> Result<LogicalPlan> {
    let Some(values) = values.filter(|_| parameters > 0) else { return Ok(plan) };
    let needed = plan.get_parameter_types().map_err(plain)?;
    let values = values.columns().iter().enumerate().map(|(at, column)| {
        let value = ScalarValue::try_from_array(column, 0).map_err(plain)?;
        match needed.get(&format!("${}", at + 1)) {
            Some(Some(data_type)) => {
                value.cast_to(data_type).map_err(|e| plain(e).context(format!("parameter ${}", at + 1)))
            }
            _ => Ok(value),
        }
    });
    let values: Vec<ScalarValue> = values.collect::<Result<_>>()?;
    plan.with_param_values(values).map_err(plain)
}

/// An error of DataFusion's in one sentence.
fn plain(error: datafusion::error::DataFusionError) -> Error {
    use datafusion::error::DataFusionError as E;
    let text = error.find_root().strip_backtrace();
    let text = text.trim_start_matches("Error during planning: ").trim_start_matches("Schema error: ");
    let kind = match error.find_root() {
        E::ResourcesExhausted(_) => ErrorKind::Overloaded,
        E::NotImplemented(_) => ErrorKind::Unsupported,
        E::Plan(message) if message.contains("not found") => ErrorKind::NotFound,
        E::SchemaError(..) => ErrorKind::NotFound,
        E::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => return error.clone(),
            None => ErrorKind::InvalidInput,
        },
        _ => ErrorKind::InvalidInput,
    };
    Error::new(
        kind,
        format!(
            "a question to pg_catalog or information_schema, which can be asked of nothing else at the same time: {text}"
        ),
    )
}

#[cfg(test)]
mod tests;
