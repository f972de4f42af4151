//! GetFlightInfo, GetSchema and DoGet: which command goes where.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{FlightDescriptor, FlightInfo, SchemaResult, Ticket};
use arrow_schema::SchemaRef;
use futures::stream::StreamExt;
use prost::Message;
use tandem_types::{Error, Result};

use crate::catalog;
use crate::encode::encode;
use crate::json_ticket;
use crate::messages::decode;
use crate::query::{DataStream, empty_schema};
use crate::state::{Caller, Reply, State, endpoint, schema_message};

impl State {
    pub async fn flight_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
    ) -> Result<Reply<FlightInfo>> {
        if is_path(&descriptor) {
            return self.path_info(caller, descriptor).await;
        }
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                let session = self.session_of(caller, query.transaction_id.as_deref())?;
                let prepared = caller.prepare_in(&session, &query.query).await?;
                self.statement_info(caller, &prepared, None, descriptor).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let (_, statement) = self.statement(&query.prepared_statement_handle)?;
                let prepared = self.statement_now(caller, statement.prepared);
                self.statement_info(caller, &prepared, statement.bound, descriptor).await
            }
            other => {
                let schema = schema_message(&catalog::schema(&other)?)?;
                // The ticket is the command itself: it needs no state.
                let ticket = other.into_any().encode_to_vec();
                Ok(Reply::from(FlightInfo {
                    schema,
                    flight_descriptor: Some(descriptor),
                    endpoint: vec![endpoint(ticket)],
                    total_records: -1,
                    total_bytes: -1,
                    ordered: false,
                    app_metadata: bytes::Bytes::new(),
                }))
            }
        }
    }

    pub async fn schema_of(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<SchemaResult> {
        let schema = self.find_schema(caller, descriptor).await?;
        Ok(SchemaResult { schema: schema_message(&schema)? })
    }

    async fn find_schema(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<SchemaRef> {
        if is_path(descriptor) {
            let name = caller.table_name(&descriptor.path)?;
            return Ok(caller.prepare_table(&name).await?.schema());
        }
        let prepared = match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                let session = self.session_of(caller, query.transaction_id.as_deref())?;
                caller.prepare_in(&session, &query.query).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.statement(&query.prepared_statement_handle)?.1.prepared
            }
            other => return catalog::schema(&other),
        };
        Ok(if prepared.is_query() { prepared.schema() } else { empty_schema() })
    }

    pub async fn read_ticket(&self, caller: &Caller, ticket: &Ticket) -> Result<Reply<DataStream>> {
        if json_ticket::is_json(&ticket.ticket) {
            if let Some(changes) = self.read_changes(caller, &ticket.ticket).await? {
                return Ok(changes);
            }
            return self.read_json(caller, &ticket.ticket).await;
        }
        match command(&ticket.ticket)? {
            Command::TicketStatementQuery(query) => self.read_handle(caller, &query.statement_handle).await,
            other => {
                // Of the caller's transaction where it has one: a table that it created is looked for.
                let session = self.session_told(caller).unwrap_or_else(|_| caller.session.clone());
                let state = session.state_for(&caller.reading()).await?;
                let batch = catalog::rows(caller, &state, other).await?;
                let schema = batch.schema();
                let batches = futures::stream::iter([Ok(batch)]).boxed();
                Ok(encode(&schema, batches, caller.options.compression)?.into())
            }
        }
    }
}

fn is_path(descriptor: &FlightDescriptor) -> bool {
    descriptor.r#type() == DescriptorType::Path
}

/// Reads a command of Flight SQL.
pub(crate) fn command(bytes: &[u8]) -> Result<Command> {
    let any: Any = decode("the command", bytes)?;
    Command::try_from(any).map_err(|e| Error::invalid(format!("the command is broken: {e}")))
}
