//! Prepared statements: created, bound, run, closed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::sql::DoPutPreparedStatementResult;
use bytes::Bytes;
use tandem_sql::Session;
use tandem_types::{Error, Result};

use crate::decode::BatchReader;
use crate::messages::PreparedStatementResult;
use crate::query::{record_count, run_update, written};
use crate::state::{Caller, Reply, State, Statement, schema_message};

impl State {
    pub async fn create_statement(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        sql: &str,
    ) -> Result<PreparedStatementResult> {
        let prepared = caller.prepare_in(session, sql).await?;
        let is_query = prepared.is_query();
        let parameters = prepared.parameters();
        let result = PreparedStatementResult {
            handle: self.handle().into(),
            dataset_schema: if is_query { schema_message(&prepared.schema())? } else { Bytes::new() },
            parameter_schema: schema_message(&parameters)?,
            is_update: Some(!is_query),
        };
        let key = String::from_utf8_lossy(&result.handle).into_owned();
        self.statements.insert(key, Statement { prepared, bound: None });
        Ok(result)
    }

    /// Binds parameters. The handle stays the same, because some clients go on with the one they have, and is
    /// returned, because others take an absent one for an empty one.
    pub async fn bind_statement(
        &self,
        handle: &[u8],
        rows: &mut BatchReader,
    ) -> Result<DoPutPreparedStatementResult> {
        let (key, statement) = self.statement(handle)?;
        let bound = rows.collect(self.config.max_bound_bytes).await?;
        self.statements.insert(key.clone(), Statement { bound, ..statement });
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(key.into()) })
    }

    /// Runs a prepared statement once per row of parameters: those of this stream, else those bound before.
    pub async fn update_statement(
        &self,
        caller: &Caller,
        handle: &[u8],
        rows: &mut BatchReader,
    ) -> Result<Reply<i64>> {
        let (_, statement) = self.statement(handle)?;
        let params = rows.collect(self.config.max_bound_bytes).await?.or(statement.bound);
        if params.as_ref().is_some_and(is_empty) {
            return Ok(Reply::from(0));
        }
        let prepared = self.statement_now(caller, statement.prepared);
        let done = run_update(caller, &prepared, params).await?;
        Ok(written(record_count(done.rows), &done))
    }

    pub fn close_statement(&self, handle: &[u8]) -> Result<()> {
        let key = crate::state::handle_text("a prepared statement's handle", handle)?;
        match self.statements.remove(&key) {
            Some(_) => Ok(()),
            None => Err(Error::not_found(format!("prepared statement {key:?} is unknown or has expired"))),
        }
    }
}

/// Whether there are columns to bind but no row of them: the statement runs for each row, so not at all.
fn is_empty(params: &RecordBatch) -> bool {
    params.num_rows() == 0
}
