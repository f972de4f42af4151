//! From a plan to a stream of rows.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use futures::stream::BoxStream;
use tandem_env::{SystemClock, within};
use tandem_types::{Error, ErrorKind, Result, Seq};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::database::RowStream;
use crate::engine::Engine;
use crate::error::IntoTandem;
use crate::queries::{QueryGuard, QueryInfo, QueryState};
use crate::runtime::guarded;
use crate::wire::to_wire;

/// Batches that may wait for a slow reader.
const BATCHES_WAITING: usize = 2;

const CANCELLED: &str = "the query was cancelled";

/// A query bound to a snapshot and to its parameters. It can be started later and more than once; every
/// start reads the same rows.
#[derive(Clone)]
pub struct PlannedQuery {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    session_id: String,
    sql: Arc<str>,
    snapshot: Seq,
    schema: SchemaRef,
    state: SessionState,
    /// One per row of parameters.
    plans: Vec<LogicalPlan>,
    /// The plan of the first start: operators keep state, so that it serves once.
    first: Mutex<Option<Arc<dyn ExecutionPlan>>>,
}

impl fmt::Debug for PlannedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedQuery")
            .field("sql", &self.inner.sql)
            .field("snapshot", &self.inner.snapshot)
            .finish_non_exhaustive()
    }
}

/// Everything that a [`PlannedQuery`] is made of.
pub(crate) struct Planned {
    pub(crate) engine: Engine,
    pub(crate) session_id: String,
    pub(crate) sql: Arc<str>,
    pub(crate) snapshot: Seq,
    /// Of the wire.
    pub(crate) schema: SchemaRef,
    pub(crate) state: SessionState,
    pub(crate) plans: Vec<LogicalPlan>,
    pub(crate) first: Option<Arc<dyn ExecutionPlan>>,
}

impl From<Planned> for PlannedQuery {
    fn from(planned: Planned) -> Self {
        let Planned { engine, session_id, sql, snapshot, schema, state, plans, first } = planned;
        let first = Mutex::new(first);
        Self { inner: Arc::new(Inner { engine, session_id, sql, snapshot, schema, state, plans, first }) }
    }
}

impl PlannedQuery {
    /// Of the rows that every start yields.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.schema)
    }

    /// The state that it reads.
    pub fn snapshot_seq(&self) -> Seq {
        self.inner.snapshot
    }

    /// Starts it under an id of the caller's or of its own.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a query of that id is running. All that goes wrong later comes with the stream.
    pub async fn start(&self, query_id: Option<String>) -> Result<RunningQuery> {
        let inner = &self.inner;
        let job = Job {
            state: inner.state.clone(),
            plans: inner.plans.clone(),
            first: inner.first.lock().unwrap_or_else(PoisonError::into_inner).take(),
            planning_limit: inner.engine.config().planning_limit,
        };
        let info = QueryInfo {
            id: query_id,
            session: inner.session_id.clone(),
            user: None,
            statement: inner.sql.to_string(),
            snapshot: Some(inner.snapshot),
        };
        let guard = inner.engine.registry().start(info)?;
        let id = guard.id().to_owned();
        let schema = Arc::clone(&inner.schema);
        let wire = Arc::clone(&schema);
        let stream = job.start(&inner.engine, guard, move |batch| to_wire(&batch, &wire));
        Ok(RunningQuery { id, schema, stream })
    }
}

/// Rows on their way. Dropping it ends the query.
pub struct RunningQuery {
    /// What `CANCEL QUERY` takes.
    pub id: String,
    pub schema: SchemaRef,
    pub stream: BoxStream<'static, Result<RecordBatch>>,
}

impl fmt::Debug for RunningQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningQuery").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Plans to run one after another.
pub(crate) struct Job {
    pub(crate) state: SessionState,
    pub(crate) plans: Vec<LogicalPlan>,
    /// The first plan, already physical.
    pub(crate) first: Option<Arc<dyn ExecutionPlan>>,
    pub(crate) planning_limit: Duration,
}

enum Message {
    Rows(RecordBatch),
    Failed(Error),
    /// Without it the query was cut off.
    Done,
}

impl Job {
    /// Runs on the query threads until its stream is dropped or somebody cancels it. It stays listed as long
    /// as the stream lives, and the registry is told what passes.
    pub(crate) fn start(
        self,
        engine: &Engine,
        guard: QueryGuard,
        convert: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> RowStream {
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING);
        let cancelled = guard.cancelled();
        let (database, snapshot) = (Arc::clone(engine.database()), guard.snapshot());
        let work = async move {
            let outcome = tokio::select! {
                biased;
                () = cancelled => Err(Error::new(ErrorKind::Cancelled, CANCELLED)),
                outcome = guarded(self.run(&sender, convert)) => outcome.flatten(),
            };
            let last = match outcome {
                Ok(()) => Message::Done,
                Err(error) => Message::Failed(match snapshot {
                    Some(seq) if error.kind() == ErrorKind::Damaged => {
                        database.explain_damage(seq, error).await
                    }
                    _ => error,
                }),
            };
            // Nobody listens any more: nothing to tell.
            let _ = sender.send(last).await;
        };
        let task = AbortOnDrop(engine.runtime().handle().spawn(work).abort_handle());
        let running = Some(Running { receiver, guard, _task: task });
        futures::stream::unfold(running, |running| async move { running?.next().await }).boxed()
    }

    async fn run(
        self,
        sender: &mpsc::Sender<Message>,
        convert: impl Fn(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<()> {
        let mut first = self.first;
        for plan in &self.plans {
            let physical = match first.take() {
                Some(ready) => ready,
                None => physical_plan(&self.state, plan, self.planning_limit).await?,
            };
            let mut rows = execute_stream(physical, self.state.task_ctx()).tandem()?;
            while let Some(batch) = rows.next().await {
                let batch = convert(batch.tandem()?)?;
                if sender.send(Message::Rows(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Optimizes a plan and makes it physical.
pub(crate) async fn physical_plan(
    state: &SessionState,
    plan: &LogicalPlan,
    limit: Duration,
) -> Result<Arc<dyn ExecutionPlan>> {
    match within(&SystemClock, limit, state.create_physical_plan(plan)).await {
        Some(plan) => plan.tandem(),
        None => Err(Error::new(
            ErrorKind::DeadlineExceeded,
            format!("planning the query took longer than {} s", limit.as_secs()),
        )),
    }
}

/// The receiving end of a job.
struct Running {
    receiver: mpsc::Receiver<Message>,
    guard: QueryGuard,
    _task: AbortOnDrop,
}

impl Running {
    async fn next(mut self) -> Option<(Result<RecordBatch>, Option<Self>)> {
        match self.receiver.recv().await {
            Some(Message::Rows(batch)) => {
                self.guard.add(batch.num_rows() as u64, batch.get_array_memory_size() as u64);
                Some((Ok(batch), Some(self)))
            }
            Some(Message::Done) => {
                self.guard.finish(QueryState::Finished);
                None
            }
            Some(Message::Failed(error)) => {
                // A guard that is only dropped says that the query was cancelled.
                if error.kind() != ErrorKind::Cancelled {
                    self.guard.finish(QueryState::Failed);
                }
                Some((Err(error), None))
            }
            // The query threads are gone.
            None => Some((Err(Error::new(ErrorKind::Cancelled, CANCELLED)), None)),
        }
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
