//! The client itself: one connection and the calls over it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, Ticket};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tandem_types::{Error, Result};
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;

use crate::address::{connect_first, table_path};
use crate::ingest::{self, IngestMode};
use crate::put::{PutSession, gated, in_messages};
use crate::query::{QueryResult, Written};
use crate::status::{error_from_flight, error_from_status};
use crate::upload::{send, upload};

/// The largest message that is accepted from a server.
const RECEIVE_BYTES_MAX: usize = 256 << 20;
/// Unacknowledged batches of a put.
const WINDOW_BATCHES: usize = 16;

/// A connection to one server. Clones share it, and with it the session.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    url: String,
    headers: MetadataMap,
    window: usize,
}

impl Client {
    /// Connects to the first address of `URL[,URL…]` that can be reached.
    pub async fn connect(urls: &str) -> Result<Self> {
        let (channel, url) = connect_first(urls).await?;
        Ok(Self { channel, url, headers: MetadataMap::new(), window: WINDOW_BATCHES })
    }

    /// The address that answered.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a header with every call, such as `tandem-schema: add`.
    pub fn with_header(mut self, key: &str, value: &str) -> Result<Self> {
        let key = AsciiMetadataKey::from_bytes(key.as_bytes())
            .map_err(|_| Error::invalid(format!("{key:?} is not a valid header name")))?;
        let value = AsciiMetadataValue::try_from(value)
            .map_err(|_| Error::invalid(format!("header {key:?} has a value that cannot be sent")))?;
        self.headers.insert(key, value);
        Ok(self)
    }

    /// Bounds the unacknowledged batches of a [`Client::put`]; at least 1.
    #[must_use]
    pub fn with_window(mut self, batches: usize) -> Self {
        self.window = batches.max(1);
        self
    }

    /// Runs one statement. A query answers with rows; a write has happened when this returns.
    pub async fn query(&self, sql: &str) -> Result<QueryResult> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let info = self.flight_info(descriptor).await?;
        let written = written(&info.app_metadata);
        let schema = schema_of(&info)?;
        if written.is_some() || schema.fields().is_empty() {
            return Ok(QueryResult::new(schema, written, stream::empty().boxed()));
        }
        let tickets: Vec<Ticket> = info.endpoint.into_iter().filter_map(|e| e.ticket).collect();
        let client = self.clone();
        // One endpoint after another: their order is the order of the rows.
        let batches = stream::iter(tickets)
            .then(move |ticket| {
                let client = client.clone();
                async move { client.get(ticket).await }
            })
            .try_flatten();
        Ok(QueryResult::new(schema, None, batches.boxed()))
    }

    /// Runs one write; returns the rows that it touched, if it counts rows.
    pub async fn execute(&self, sql: &str) -> Result<Option<i64>> {
        let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
        let message = FlightData {
            flight_descriptor: Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())),
            ..Default::default()
        };
        let messages = stream::iter([Ok(message)]);
        let mut answers = send(self.channel.clone(), self.headers.clone(), messages)
            .await
            .map_err(|status| error_from_status(&status))?;
        let answer = answers.message().await.map_err(|status| error_from_status(&status))?;
        Ok(Some(record_count(answer.map(|a| a.app_metadata))?).filter(|n| *n >= 0))
    }

    /// Appends batches to `t` or `schema.t`, each one a transaction of its own; see [`PutSession`].
    ///
    /// Batches of more than 4 MiB are cut by rows, batches without rows are not sent. An error of the
    /// source ends the call; what was acknowledged before stays.
    pub async fn put<S>(&self, table: &str, schema: SchemaRef, batches: S) -> Result<PutSession>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let descriptor = FlightDescriptor::new_path(table_path(table)?);
        let window = Arc::new(Semaphore::new(self.window));
        let batches = gated(in_messages(batches), window.clone());
        let upload = upload(self.channel.clone(), self.headers.clone(), descriptor, schema, batches).await?;
        Ok(PutSession::new(upload, window))
    }

    /// Sends a whole stream into `t` or `schema.t` as one transaction; returns the rows committed.
    ///
    /// An error of the source resets the call, so that nothing is committed.
    pub async fn ingest<S>(&self, table: &str, mode: IngestMode, schema: SchemaRef, batches: S) -> Result<u64>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let descriptor = ingest::descriptor(table, mode)?;
        let (channel, headers) = (self.channel.clone(), self.headers.clone());
        let mut upload = upload(channel, headers, descriptor, schema, in_messages(batches)).await?;
        let answer = upload.next().await?;
        let rows = record_count(answer.map(|a| a.app_metadata))?;
        u64::try_from(rows).map_err(|_| Error::internal("the server did not say how many rows it ingested"))
    }

    /// Runs a named action, such as `tandem.Status`; returns the bodies of its results.
    pub async fn action(&self, name: &str, body: impl Into<Bytes>) -> Result<Vec<Bytes>> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let answers = self
            .service()
            .do_action(self.request(action))
            .await
            .map_err(|status| error_from_status(&status))?
            .into_inner();
        answers.map_ok(|r| r.body).map_err(|status| error_from_status(&status)).try_collect().await
    }

    async fn flight_info(&self, descriptor: FlightDescriptor) -> Result<FlightInfo> {
        let answer = self.service().get_flight_info(self.request(descriptor)).await;
        Ok(answer.map_err(|status| error_from_status(&status))?.into_inner())
    }

    async fn get(
        &self,
        ticket: Ticket,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + 'static + use<>> {
        let messages = self
            .service()
            .do_get(self.request(ticket))
            .await
            .map_err(|status| error_from_status(&status))?
            .into_inner();
        let batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(Into::into));
        Ok(batches.map_err(|e| error_from_flight(&e)))
    }

    fn service(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(RECEIVE_BYTES_MAX)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }
}

/// What a FlightInfo's metadata says of a write: queries carry `snapshot_seq`, writes carry `seq`.
fn written(metadata: &[u8]) -> Option<Written> {
    serde_json::from_slice(metadata).ok()
}

fn schema_of(info: &FlightInfo) -> Result<SchemaRef> {
    if info.schema.is_empty() {
        return Ok(Arc::new(Schema::empty()));
    }
    let schema = info.clone().try_decode_schema();
    schema.map(Arc::new).map_err(|e| Error::internal(format!("the server's schema is not readable: {e}")))
}

fn record_count(metadata: Option<Bytes>) -> Result<i64> {
    let metadata = metadata.ok_or_else(|| Error::internal("the server ended the call without an answer"))?;
    let result = DoPutUpdateResult::decode(metadata)
        .map_err(|e| Error::internal(format!("the server's row count is not readable: {e}")))?;
    Ok(result.record_count)
}
