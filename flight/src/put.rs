//! DoPut: which command goes where. Rows for a table are in [`append`](crate::append), ingestion in
//! [`ingest`](crate::ingest).

use std::sync::Arc;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Command, CommandStatementUpdate, DoPutUpdateResult};
use arrow_flight::{FlightData, PutResult};
use futures::stream::{BoxStream, StreamExt};
use prost::Message;
use tandem_types::{Error, Result};
use tonic::Status;

use crate::append::append;
use crate::decode::BatchReader;
use crate::errors::from_status;
use crate::info::command;
use crate::ingest::ingest;
use crate::query::{record_count, run_update, written};
use crate::state::{Caller, Reply, State};

/// Messages of a client.
pub(crate) type Input = BoxStream<'static, std::result::Result<FlightData, Status>>;
/// Answers of a DoPut.
pub(crate) type PutStream = BoxStream<'static, Result<PutResult>>;

/// Rows written through Flight, by the way they came.
pub(crate) const INGEST_ROWS: &str = "tandem_ingest_rows_total";

/// Runs a DoPut.
pub(crate) async fn put(state: Arc<State>, caller: Caller, mut input: Input) -> Result<Reply<PutStream>> {
    let first = match input.next().await {
        Some(first) => first.map_err(|status| from_status(&status))?,
        None => return Err(Error::invalid("DoPut without a message")),
    };
    let descriptor =
        first.flight_descriptor.clone().ok_or_else(|| Error::invalid("DoPut without a descriptor"))?;
    // The first message may carry the schema as well.
    let input = futures::stream::iter([Ok(first)]).chain(input).boxed();
    let mut rows = BatchReader::new(input);
    if descriptor.r#type() == DescriptorType::Path {
        caller.may_append()?;
        caller.in_the_present()?;
        if caller.session.is_in_transaction() {
            return Err(Error::invalid(
                "each batch of this DoPut would be committed by itself, and the session has a transaction open: end it \
                 first, INSERT, or ingest the rows by CommandStatementIngest",
            ));
        }
        let table = caller.table_name(&descriptor.path)?;
        return append(state, &caller, table, rows).await;
    }
    let command = command(&descriptor.cmd)?;
    caller.may_put(&command)?;
    match command {
        Command::CommandStatementUpdate(update) => {
            Ok(counted(statement_update(&state, &caller, update).await?))
        }
        Command::CommandStatementIngest(request) => {
            Ok(counted(ingest(&state, &caller, request, rows).await?))
        }
        Command::CommandPreparedStatementQuery(query) => {
            let result = state.bind_statement(&query.prepared_statement_handle, &mut rows).await?;
            Ok(Reply::from(one(result.encode_to_vec())))
        }
        Command::CommandPreparedStatementUpdate(update) => {
            Ok(counted(state.update_statement(&caller, &update.prepared_statement_handle, &mut rows).await?))
        }
        Command::CommandStatementSubstraitPlan(_) => {
            Err(Error::unsupported("Substrait plans are not supported"))
        }
        other => Err(Error::unsupported(format!("DoPut of {:?} is not supported", other.type_url()))),
    }
}

async fn statement_update(
    state: &State,
    caller: &Caller,
    update: CommandStatementUpdate,
) -> Result<Reply<i64>> {
    let session = state.session_of(caller, update.transaction_id.as_deref())?;
    let prepared = caller.prepare_in(&session, &update.query).await?;
    let done = run_update(caller, &prepared, None).await?;
    Ok(written(record_count(done.rows), &done))
}

fn counted(reply: Reply<i64>) -> Reply<PutStream> {
    reply.map(|record_count| one(DoPutUpdateResult { record_count }.encode_to_vec()))
}

fn one(app_metadata: Vec<u8>) -> PutStream {
    futures::stream::iter([Ok(PutResult { app_metadata: app_metadata.into() })]).boxed()
}
