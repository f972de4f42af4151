//! A stream of changes, computed on the query threads as fast as it is read.

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tandem_types::{Error, ErrorKind, Result, Seq};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::along::{self, Along};
use super::every::EveryTable;
use super::net::Told;
pub use super::out::ChangeBatch;
use super::out::{Message, Out, Stop};
use super::request::{ChangesRequest, EveryRequest, Subject, told_schema};
use super::source::Source;
use super::walk::{Columns, Walk};
use crate::engine::Engine;
use crate::queries::{QueryGuard, QueryInfo, QueryState};
use crate::runtime::guarded;
use crate::scan::ScanContext;
use crate::session::Session;

/// Batches that wait for a slow reader.
const BATCHES_WAITING: usize = 1;

const CANCELLED: &str = "the change stream was cancelled";

/// Changes on their way. Dropping it ends them.
pub struct RunningChanges {
    /// What `CANCEL QUERY` takes.
    pub id: String,
    pub schema: SchemaRef,
    pub stream: BoxStream<'static, Result<ChangeBatch>>,
}

impl fmt::Debug for RunningChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningChanges").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    /// The changes of a table from a commit on; without an end, also of commits that are yet to come.
    ///
    /// The stream has the columns that the table has after the first commit. Where they change it says so, by a row without
    /// values whose operation is `schema`, and ends; so it does where the table is dropped.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such table; `HistoryGone` if the first commit cannot be told any more; `Behind` if what is
    /// before it is not applied here in time. What goes wrong later comes with the stream.
    pub async fn changes(&self, request: ChangesRequest) -> Result<RunningChanges> {
        let what = format!("changes of {}", request.table);
        let (source, statement) = self.beginning(request.from, request.to, &what).await?;
        let finding = source.clone();
        let walk = self.engine().runtime().run(async move {
            let subject = Subject::find(&finding, &request, &finding.newest()).await?;
            Walk::new(&finding, subject, &request, Columns::End)
        });
        self.follow(walk.await?, statement)
    }

    /// The changes of all tables from a commit on, as [`Session::changes`]; each row is the text of a JSON object, beside the
    /// name of its table. It does not end where columns change.
    ///
    /// # Errors
    ///
    /// `HistoryGone` if the first commit cannot be told any more; `Behind` if what is before it is not applied here in time.
    pub async fn changes_of_all(&self, request: EveryRequest) -> Result<RunningChanges> {
        let (source, statement) = self.beginning(request.from, request.to, "changes of all tables").await?;
        self.follow(EveryTable::new(source, &request)?, statement)
    }

    /// Waits until everything before the first commit is here; answers with where to read, and what to call it.
    async fn beginning(&self, from: Seq, to: Option<Seq>, what: &str) -> Result<(Source, String)> {
        if let Some(to) = to.filter(|to| to.next() < from) {
            return Err(Error::invalid(format!(
                "changes from seq {from} to seq {to}: it ends before it begins"
            )));
        }
        let source = Source { engine: self.engine().clone() };
        source.reach_before(from).await?;
        let statement = match to {
            Some(to) => format!("{what} from seq {from} to seq {to}"),
            None => format!("{what} from seq {from} on"),
        };
        Ok((source, statement))
    }

    fn follow(&self, walk: impl Along + 'static, statement: String) -> Result<RunningChanges> {
        // It reads no state for long: a slow reader does not hold history back.
        let info = QueryInfo { session: self.id().to_owned(), statement, ..QueryInfo::default() };
        let guard = self.engine().registry().start(info)?;
        let (id, schema) = (guard.id().to_owned(), Arc::clone(walk.schema()));
        Ok(RunningChanges { id, schema, stream: start(self.engine(), walk, Some(guard)) })
    }
}

impl Walk {
    pub(super) fn new(
        source: &Source,
        subject: Subject,
        request: &ChangesRequest,
        columns: Columns,
    ) -> Result<Self> {
        Ok(Self {
            told: Told {
                source: source.clone(),
                context: Arc::new(ScanContext::new(&source.engine)),
                columns: Arc::clone(&subject.columns),
                images: request.images,
            },
            schema: told_schema(&subject.name, &subject.columns)?,
            next: subject.from,
            to: request.to,
            subject,
            columns,
            held: None,
        })
    }
}

/// Walks on the query threads until the stream is dropped.
pub(super) fn start(
    engine: &Engine,
    mut walk: impl Along + 'static,
    guard: Option<QueryGuard>,
) -> BoxStream<'static, Result<ChangeBatch>> {
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING);
    let mut out = Out::new(Arc::clone(walk.schema()), sender, walk.at());
    let cancelled = guard.as_ref().map(QueryGuard::cancelled);
    let work = async move {
        let cancelled = async move {
            match cancelled {
                Some(cancelled) => cancelled.await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = cancelled => Err(Error::new(ErrorKind::Cancelled, CANCELLED)),
            outcome = guarded(along::run(&mut walk, &mut out)) => match outcome {
                Err(panicked) => Err(panicked),
                Ok(Err(Stop::Failed(error))) => Err(error),
                Ok(Ok(()) | Err(Stop::Closed)) => Ok(()),
            },
        };
        let outcome = match outcome {
            Err(error) => Err(explained(&walk, error).await),
            outcome => outcome,
        };
        out.end(outcome).await;
    };
    let mut task = JoinSet::new();
    task.spawn_on(work, engine.runtime().handle());
    let reading = Some(Reading { receiver, guard, _task: task });
    stream::unfold(reading, |reading| async move { reading?.next().await }).boxed()
}

/// What happened, and where.
async fn explained(walk: &impl Along, error: Error) -> Error {
    let at = walk.at();
    let error = match error.kind() {
        ErrorKind::Damaged => walk.source().explain(Seq(at.0.saturating_sub(1)), error).await,
        _ => error,
    };
    match error.kind() {
        ErrorKind::Cancelled | ErrorKind::Unavailable => error,
        _ => error.context(format!("the changes of {} at seq {at}", walk.whose())),
    }
}

/// The receiving end.
struct Reading {
    receiver: mpsc::Receiver<Message>,
    guard: Option<QueryGuard>,
    _task: JoinSet<()>,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<ChangeBatch>, Option<Self>)> {
        match self.receiver.recv().await {
            Some(Message::Batch(batch)) => {
                if let Some(guard) = &self.guard {
                    guard.add(batch.rows.num_rows() as u64, batch.rows.get_array_memory_size() as u64);
                }
                Some((Ok(batch), Some(self)))
            }
            Some(Message::Done) => {
                if let Some(guard) = self.guard {
                    guard.finish(QueryState::Finished);
                }
                None
            }
            Some(Message::Failed(error)) => {
                // A guard that is only dropped says that it was cancelled.
                if let Some(guard) = self.guard.filter(|_| error.kind() != ErrorKind::Cancelled) {
                    guard.finish(QueryState::Failed);
                }
                Some((Err(error), None))
            }
            // The query threads are gone.
            None => Some((Err(Error::new(ErrorKind::Cancelled, CANCELLED)), None)),
        }
    }
}
