//! What all requests share, and what one request knows of itself.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::sql::ProstMessageExt;
use arrow_flight::{FlightEndpoint, Ticket};
use arrow_schema::SchemaRef;
use prost::Message;
use tandem_access::Grant;
use tandem_env::{Chance, Clock};
use tandem_sql::{ACK_TIMEOUT, Engine, PlannedQuery, Prepared, ReadOptions, Session, WriteOptions};
use tandem_types::{Error, Result, Seq};
use tokio::sync::watch;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Extensions, Response};

use crate::connection::ConnectionId;
use crate::expiring::Expiring;
use crate::headers::RequestOptions;
use crate::sessions::{SessionKey, Sessions};
use crate::{FlightConfig, NodeInfo};

/// What all requests share.
pub(crate) struct State {
    pub engine: Engine,
    pub node: NodeInfo,
    pub config: FlightConfig,
    pub sessions: Sessions,
    pub tickets: Expiring<Held>,
    pub statements: Expiring<Statement>,
    /// Sessions of transactions that clients drive, by the transaction's id.
    pub transactions: Expiring<Arc<Session>>,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<dyn Chance>,
    /// Whether streams that could go on for ever are to end.
    pub stopping: watch::Sender<bool>,
}

/// What a ticket stands for. It needs neither the statement nor the session that it came from.
#[derive(Clone)]
pub(crate) enum Held {
    Query(PlannedQuery),
    /// A statement that ran when its `FlightInfo` was asked for: nothing is left to read.
    Update(Seq),
}

/// A prepared statement, and the parameters last bound to it.
#[derive(Clone)]
pub(crate) struct Statement {
    pub prepared: Prepared,
    pub bound: Option<RecordBatch>,
}

/// Who asks, and what their headers say.
pub(crate) struct Caller {
    pub grant: Grant,
    pub session: Arc<Session>,
    pub key: SessionKey,
    pub options: RequestOptions,
}

impl Caller {
    /// What a read of this request must see.
    pub fn reading(&self) -> ReadOptions {
        let RequestOptions { min_seq, latest, deadline, as_of, .. } = self.options;
        let reading = self.session.read_options(min_seq, latest, deadline);
        ReadOptions { as_of: as_of.or(reading.as_of), ..reading }
    }

    /// Refuses rows for a table where the past is read: they would go into the present.
    pub fn in_the_present(&self) -> Result<()> {
        self.session.check_present(&self.reading())
    }

    /// What this request says of its write; the session's own options are still to be added.
    pub fn writing(&self) -> WriteOptions {
        let timeout = self.options.ack_timeout.or_else(|| self.session.ack_timeout());
        // Who waits past the client's deadline cannot say any more that the write is committed.
        let ack_timeout = match self.options.deadline {
            Some(deadline) => Some(timeout.unwrap_or(ACK_TIMEOUT).min(deadline)),
            None => timeout,
        };
        WriteOptions { token: self.options.token.clone(), ack: self.options.ack, ack_timeout }
    }
}

/// An answer, and the headers that go with it.
pub(crate) struct Reply<T> {
    body: T,
    headers: Vec<(&'static str, String)>,
}

impl State {
    pub fn new(
        engine: Engine,
        node: NodeInfo,
        config: FlightConfig,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        let sessions = Sessions::new(
            engine.clone(),
            clock.clone(),
            chance.clone(),
            config.session_idle,
            config.max_sessions,
        );
        let tickets = Expiring::new(clock.clone(), config.ticket_ttl, config.max_tickets);
        let statements = Expiring::new(clock.clone(), config.statement_idle, config.max_statements);
        let transactions = Expiring::new(clock.clone(), config.session_idle, config.max_sessions);
        Self {
            engine,
            node,
            config,
            sessions,
            tickets,
            statements,
            transactions,
            clock,
            chance,
            stopping: watch::Sender::new(false),
        }
    }

    pub fn caller(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Caller> {
        let grant = crate::auth::grant(extensions)?;
        let options = RequestOptions::parse(metadata)?;
        let (key, session) = self.sessions.of(metadata, extensions.get::<ConnectionId>().copied());
        Ok(Caller { grant, session, key, options })
    }

    /// What stands for the caller's token from now on; `None` where no token was needed.
    pub fn session_bearer(&self, grant: &Grant) -> Option<String> {
        let tokens = self.config.access.tokens.as_ref()?;
        tokens.session_bearer(grant, self.chance.next_u128(), self.clock.now_micros())
    }

    /// A handle that nobody can guess by accident.
    pub fn handle(&self) -> String {
        format!("{:032x}", self.chance.next_u128())
    }

    /// Keeps `held` for a while, behind one endpoint without a location: "here".
    pub fn endpoint(&self, held: Held) -> FlightEndpoint {
        let handle = self.handle();
        self.tickets.insert(handle.clone(), held);
        let ticket = arrow_flight::sql::TicketStatementQuery { statement_handle: handle.into_bytes().into() };
        let mut endpoint = endpoint(ticket.as_any().encode_to_vec());
        self.extend(&mut endpoint);
        endpoint
    }

    /// Says how long the endpoint's ticket will live if nobody uses it.
    pub fn extend(&self, endpoint: &mut FlightEndpoint) {
        let micros = i64::try_from(self.tickets.lifetime().as_micros()).unwrap_or(i64::MAX);
        let expires = self.clock.now_micros().saturating_add(micros);
        let time = endpoint.expiration_time.get_or_insert_default();
        time.seconds = expires.div_euclid(1_000_000);
        time.nanos = i32::try_from(expires.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    }

    pub fn held(&self, handle: &str) -> Result<Held> {
        self.tickets.get(handle).ok_or_else(|| {
            Error::not_found(format!("ticket {handle:?} is unknown or has expired: run the query again"))
        })
    }

    pub fn statement(&self, handle: &[u8]) -> Result<(String, Statement)> {
        let handle = handle_text("a prepared statement's handle", handle)?;
        let statement = self.statements.get(&handle).ok_or_else(|| {
            Error::not_found(format!(
                "prepared statement {handle:?} is unknown or has expired: prepare it again"
            ))
        })?;
        Ok((handle, statement))
    }

    /// Drops what has expired, also where nobody asks.
    pub fn sweep(&self) {
        self.sessions.sweep();
        self.tickets.sweep();
        self.statements.sweep();
        self.transactions.sweep();
    }
}

/// A handle as it was given out.
pub(crate) fn handle_text(what: &str, handle: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(handle).map_err(|_| Error::invalid(format!("{what} is none of ours")))?;
    Ok(text.to_owned())
}

/// An endpoint without a location.
pub(crate) fn endpoint(ticket: impl Into<bytes::Bytes>) -> FlightEndpoint {
    FlightEndpoint { ticket: Some(Ticket { ticket: ticket.into() }), ..FlightEndpoint::default() }
}

/// A schema as an IPC message, also when it has no fields.
pub(crate) fn schema_message(schema: &SchemaRef) -> Result<bytes::Bytes> {
    let options = arrow_ipc::writer::IpcWriteOptions::default();
    let message: arrow_flight::IpcMessage = arrow_flight::SchemaAsIpc::new(schema, &options)
        .try_into()
        .map_err(|e| Error::internal(format!("encoding a schema: {e}")))?;
    Ok(message.0)
}

impl<T> From<T> for Reply<T> {
    fn from(body: T) -> Self {
        Self { body, headers: Vec::new() }
    }
}

impl<T> Reply<T> {
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reply<U> {
        Reply { body: f(self.body), headers: self.headers }
    }

    pub fn into_response(self, node_id: &str) -> Response<T> {
        let mut response = Response::new(self.body);
        let node = ("tandem-node", node_id.to_owned());
        for (name, value) in self.headers.into_iter().chain([node]) {
            // Values are numbers and ids of our own; one that cannot be a header is left out.
            if let Ok(value) = AsciiMetadataValue::try_from(value) {
                response.metadata_mut().append(name, value);
            }
        }
        response
    }
}
