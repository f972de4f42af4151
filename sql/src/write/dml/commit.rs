//! From what was worked out to a commit, tried again where others were quicker.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tandem_env::{Clock, SystemClock};
use tandem_types::{Error, ErrorKind, Result};

use super::{PlannedDml, View, plan_dml};
use crate::database::{Database, Receipt};
use crate::options::{ReadOptions, WriteOptions};
use crate::prepared::UpdateResult;
use crate::queries::{QueryGuard, QueryState};
use crate::session::Session;
use crate::statement::Dml;
use crate::transaction::Within;
use crate::write::list;

/// How often a statement is evaluated before its client is told to try again itself.
const TRIES: u32 = 5;

/// The wait after the first try; it doubles.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs a statement, once for each row of parameters, all in one transaction.
pub(crate) async fn run(
    session: &Arc<Session>,
    dml: &Arc<Dml>,
    sql: &Arc<str>,
    bound: Option<RecordBatch>,
    options: WriteOptions,
) -> Result<UpdateResult> {
    let database = session.engine().database();
    if bound.as_ref().is_some_and(|rows| rows.num_rows() == 0) {
        return Ok(UpdateResult::nothing(database.snapshot().seq(), Some(0)));
    }
    let mut tries = 0;
    loop {
        let view = View::new(session, database.snapshot())?;
        let guard = list(session, sql, &view.snapshot)?;
        let done = match plan_listed(session, dml, sql, bound.clone(), view, &guard).await {
            Ok(planned) => commit(&planned, database.as_ref(), &options).await,
            Err(error) => Err(error),
        };
        finish(guard, &done);
        tries += 1;
        match done {
            Err(error) if error.kind() == ErrorKind::Serialization && tries < TRIES => {
                tracing::debug!(table = %dml.table, %error, tries, "evaluating a statement again");
                SystemClock.sleep(PAUSE * 2u32.pow(tries - 1)).await;
                // It may have been refused by another node, which has seen more than this one.
                database.settle(&ReadOptions { latest: true, ..ReadOptions::default() }).await?;
            }
            Err(error) if error.kind() == ErrorKind::Serialization => {
                return Err(
                    error.context(format!("the statement was evaluated {tries} times, and each time"))
                );
            }
            done => return done,
        }
    }
}

/// Runs a statement as a part of a transaction.
pub(crate) async fn run_within(
    session: &Arc<Session>,
    dml: &Arc<Dml>,
    sql: &Arc<str>,
    bound: Option<RecordBatch>,
    within: &Within,
) -> Result<UpdateResult> {
    if bound.as_ref().is_some_and(|rows| rows.num_rows() == 0) {
        return Ok(UpdateResult::nothing(within.seen.base.seq(), Some(0)));
    }
    let view = View::new(session, Arc::clone(within.view()))?;
    let guard = list(session, sql, &within.seen.base)?;
    let done = match plan_listed(session, dml, sql, bound, view, &guard).await {
        Ok(planned) => within.change(&planned).await,
        Err(error) => Err(error),
    };
    finish(guard, &done);
    done
}

fn finish(guard: QueryGuard, done: &Result<UpdateResult>) {
    match done {
        Ok(_) => guard.finish(QueryState::Finished),
        // A guard that is only dropped says that it was cancelled.
        Err(error) if error.kind() == ErrorKind::Cancelled => {}
        Err(_) => guard.finish(QueryState::Failed),
    }
}

/// Works a statement out, on the query threads, until somebody cancels it.
async fn plan_listed(
    session: &Session,
    dml: &Arc<Dml>,
    sql: &Arc<str>,
    bound: Option<RecordBatch>,
    view: View,
    guard: &QueryGuard,
) -> Result<PlannedDml> {
    let (dml, sql) = (Arc::clone(dml), Arc::clone(sql));
    let work = async move { plan_dml(&dml, &sql, bound, view).await };
    let planned = tokio::select! {
        biased;
        () = guard.cancelled() => Err(Error::new(ErrorKind::Cancelled, "the statement was cancelled")),
        planned = session.engine().runtime().run(work) => planned,
    }?;
    guard.add(planned.rows, 0);
    Ok(planned)
}

/// Commits it: first under the precondition that its count is right, then, if that is all that was wrong, without.
async fn commit(
    planned: &PlannedDml,
    database: &dyn Database,
    options: &WriteOptions,
) -> Result<UpdateResult> {
    let nothing = || UpdateResult::nothing(planned.base, Some(0));
    if planned.changes.is_empty() && planned.unchanged.is_empty() {
        return Ok(nothing());
    }
    let target = (planned.table, planned.name.clone());
    let demanded = planned.unchanged.iter().any(|(id, _)| *id == planned.table);
    let is_current =
        || database.snapshot().table(planned.table).is_some_and(|table| table.changed() <= planned.base);
    if planned.countable && (demanded || is_current()) {
        let mut steps = planned.preconditions(Some(&target));
        let mut sections = Vec::new();
        // Without rows to act on nothing is logged, once it is sure that there are none.
        if planned.rows > 0 {
            let more;
            (more, sections) = planned.steps(database, 0).await?;
            steps.extend(more);
        }
        match database.submit_staged(planned.base, steps, sections, options.clone()).await {
            Ok(receipt) => return Ok(counted(planned, receipt, true)),
            // Whether it was only the count that was in the way is found out by trying without.
            Err(error) if error.kind() == ErrorKind::Serialization && !demanded => {}
            Err(error) => return Err(error),
        }
    }
    let mut steps = planned.preconditions(None);
    let (more, sections) = planned.steps(database, 0).await?;
    steps.extend(more);
    let receipt = database.submit_staged(planned.base, steps, sections, options.clone()).await?;
    Ok(counted(planned, receipt, false))
}

fn counted(planned: &PlannedDml, receipt: Receipt, exact: bool) -> UpdateResult {
    if receipt.duplicate {
        // The log does not say how many there were the first time.
        return UpdateResult::uncounted(receipt);
    }
    UpdateResult { rows: Some(planned.rows), exact, ..receipt.into() }
}
