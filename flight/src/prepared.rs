//! Prepared statements: created, bound, run, closed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::sql::DoPutPreparedStatementResult;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use tandem_sql::Session;
use tandem_types::{Error, Result};

use crate::decode::BatchReader;
use crate::messages::PreparedStatementResult;
use crate::query::{run_update, signed, written};
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
        let parameters = match caller.options.binds_milliseconds {
            true => in_milliseconds(&prepared.parameters()),
            false => prepared.parameters(),
        };
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
    ///
    /// A statement that does not count rows answers 0: to the JDBC driver -1 says that there is a result to fetch, and it
    /// runs the statement again.
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
        Ok(written(done.rows.map_or(0, signed), &done))
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

/// Parameters as they are declared to a client that binds all timestamps as milliseconds, whatever their unit is said to be.
fn in_milliseconds(parameters: &SchemaRef) -> SchemaRef {
    let declare = |field: &FieldRef| match field.data_type() {
        DataType::Timestamp(_, zone) => {
            let data_type = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
            Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(parameters.fields().iter().map(declare).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_alone_change_for_those_who_bind_milliseconds() {
        let zone = Some(Arc::from("UTC"));
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let parameters = Arc::new(Schema::new(vec![
            field("$1", DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
            field("$2", DataType::Int64),
            field("$3", DataType::Timestamp(TimeUnit::Second, None)),
        ]));
        let expected = Schema::new(vec![
            field("$1", DataType::Timestamp(TimeUnit::Millisecond, zone)),
            field("$2", DataType::Int64),
            field("$3", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ]);
        assert_eq!(*in_milliseconds(&parameters), expected);
    }
}
