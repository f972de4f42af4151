//! Statements, and their answers: rows to stream, or what was written.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::sql::{CommandStatementQuery, CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, Ticket};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use prost::Message;
use serde::Deserialize;
use tandem_types::{Error, Result};
use tonic::metadata::MetadataMap;

use crate::client::{Client, of_write, service_of};
use crate::links::Link;
use crate::retry::Retry;
use crate::statement::{only_reads, setting, transaction};
use crate::status::{Failure, SEQ_TRAILER};
use crate::upload;

const DUPLICATE_TRAILER: &str = "tandem-duplicate";
const ACKED_TRAILER: &str = "tandem-acked";
const EXACT_TRAILER: &str = "tandem-exact";

/// What a write did. It was carried out exactly once, before this was known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Written {
    /// The commit that holds it.
    pub seq: u64,
    /// Rows inserted, updated or deleted; absent for statements that do not count rows.
    #[serde(default)]
    pub rows: Option<i64>,
    /// `rows` is an estimate: others changed the table between the count and the commit.
    #[serde(skip)]
    pub estimated: bool,
    /// It had been committed before under its token: seq and rows are those of the first time.
    #[serde(skip)]
    pub duplicate: bool,
    /// This client sent it more than once, so that a duplicate may be its own.
    #[serde(skip)]
    pub repeated: bool,
    /// At which level it is acknowledged, such as `store` or `quorum(2/2)`, where the server says so.
    #[serde(skip)]
    pub acked: Option<String>,
}

impl Written {
    /// What headers and trailers say, and the rows.
    pub(crate) fn from_metadata(metadata: &MetadataMap, rows: Option<i64>) -> Self {
        let seq = text(metadata, SEQ_TRAILER).and_then(|s| s.parse().ok()).unwrap_or_default();
        Self { seq, rows, ..Self::default() }.with_metadata(metadata)
    }

    fn with_metadata(self, metadata: &MetadataMap) -> Self {
        Self {
            estimated: text(metadata, EXACT_TRAILER) == Some("false"),
            duplicate: text(metadata, DUPLICATE_TRAILER) == Some("true"),
            acked: text(metadata, ACKED_TRAILER).map(str::to_owned),
            ..self
        }
    }
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name)?.to_str().ok()
}

/// The answer to one statement.
pub struct QueryResult {
    schema: SchemaRef,
    written: Option<Written>,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryResult")
            .field("schema", &self.schema)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl QueryResult {
    pub fn new(
        schema: SchemaRef,
        written: Option<Written>,
        batches: BoxStream<'static, Result<RecordBatch>>,
    ) -> Self {
        Self { schema, written, batches }
    }

    /// The columns; none for a statement that returns no rows.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Set if the statement was a write.
    pub fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// The next batch. Dropping the result cancels the query.
    pub async fn next_batch(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.next().await
    }

    /// The batches as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        self.batches
    }

    /// All batches in memory: for answers known to be small.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut all = Vec::new();
        while let Some(batch) = self.next_batch().await {
            all.push(batch?);
        }
        Ok(all)
    }
}

impl Client {
    /// Whether the last statement that was about a transaction left one open.
    pub fn is_in_transaction(&self) -> bool {
        self.shared.is_in_transaction()
    }

    /// Runs one statement. A query answers with rows; a write has happened when this returns.
    ///
    /// A statement is tried again at the next address when a connection is lost or the node cannot do it now: a write
    /// under the same token, a query as long as none of its rows were given out. `SET` holds for all sessions that
    /// follow.
    ///
    /// # Errors
    ///
    /// What the server answers; `OutcomeUnknown` if a write was sent and nobody said what became of it.
    pub async fn query(&self, sql: &str) -> Result<QueryResult> {
        let mut statement = Statement::new(self, sql)?;
        let opened = statement.open().await?;
        if opened.written.is_some() || opened.schema.fields().is_empty() {
            return Ok(QueryResult::new(opened.schema, opened.written, stream::empty().boxed()));
        }
        let schema = opened.schema.clone();
        let rows = Rows {
            statement,
            schema: opened.schema,
            link: opened.link,
            tickets: opened.tickets,
            batches: None,
            begun: false,
        };
        let batches = stream::unfold(Some(rows), |rows| async {
            let mut rows = rows?;
            match rows.next().await {
                Ok(Some(batch)) => Some((Ok(batch), Some(rows))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(QueryResult::new(schema, None, batches.boxed()))
    }

    /// Runs one write; returns what it did.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str) -> Result<Written> {
        let mut statement = Statement::new(self, sql)?;
        loop {
            let link = statement.link().await?;
            match statement.update(&link).await {
                Ok(written) => {
                    statement.done(&link, Some(&written));
                    return Ok(written);
                }
                Err(failure) => statement.failed(&link, failure)?,
            }
        }
    }
}

/// A statement and the tries that it took so far.
struct Statement {
    client: Client,
    sql: String,
    /// `None` for one that surely reads.
    token: Option<String>,
    headers: MetadataMap,
    demanded: Option<u64>,
    retry: Retry,
    tries: u32,
}

/// A statement that was carried out, or a query that was planned.
struct Opened {
    link: Link,
    schema: SchemaRef,
    written: Option<Written>,
    tickets: VecDeque<Ticket>,
}

impl Statement {
    fn new(client: &Client, sql: &str) -> Result<Self> {
        let needs_token = !only_reads(sql) && setting(sql).is_none();
        let token = needs_token.then(|| client.token());
        let headers = match &token {
            Some(token) => client.write_headers(token)?,
            None => client.headers.clone(),
        };
        let retry = client.shared.retry();
        Ok(Self {
            client: client.clone(),
            sql: sql.to_owned(),
            token,
            headers,
            demanded: None,
            retry,
            tries: 0,
        })
    }

    async fn link(&mut self) -> Result<Link> {
        let linked = self.retry.link(&self.client.headers).await;
        let link = linked.map_err(|error| self.explain(error))?;
        if self.client.shared.transaction_at(&link) == Some(false) {
            // The statement would be one of its own here.
            self.client.shared.in_transaction_at(None);
            let error = Error::serialization(
                "the connection was lost within a transaction, which is rolled back: run the transaction again",
            );
            let commits = transaction(&self.sql) == Some(false) && self.retry.maybe_done();
            return Err(match commits {
                true => self.explain(Error::outcome_unknown("the connection was lost during the COMMIT")),
                false => error,
            });
        }
        self.tries += 1;
        self.demanded = self.client.demand(&mut self.headers, &link);
        Ok(link)
    }

    /// Has the statement carried out or planned.
    async fn open(&mut self) -> Result<Opened> {
        loop {
            let link = self.link().await?;
            match self.info(&link).await {
                Ok(opened) => {
                    self.done(&link, opened.written.as_ref());
                    return Ok(opened);
                }
                Err(failure) => self.failed(&link, failure)?,
            }
        }
    }

    async fn info(&mut self, link: &Link) -> Result<Opened, Failure> {
        let command = CommandStatementQuery { query: self.sql.clone(), transaction_id: None };
        let mut request = tonic::Request::new(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        *request.metadata_mut() = self.headers.clone();
        let (metadata, info, _) = service_of(link).get_flight_info(request).await?.into_parts();
        // Queries carry `snapshot_seq`, writes carry `seq`.
        let written: Option<Written> = serde_json::from_slice(&info.app_metadata).ok();
        let repeated = self.tries > 1;
        Ok(Opened {
            link: link.clone(),
            schema: schema_of(&info)?,
            written: written.map(|w| Written { repeated, ..w.with_metadata(&metadata) }),
            tickets: info.endpoint.into_iter().filter_map(|e| e.ticket).collect(),
        })
    }

    async fn update(&mut self, link: &Link) -> Result<Written, Failure> {
        let command = CommandStatementUpdate { query: self.sql.clone(), transaction_id: None };
        let message = FlightData {
            flight_descriptor: Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())),
            ..Default::default()
        };
        let (mut metadata, mut answers) =
            upload::send(link, self.headers.clone(), stream::iter([Ok(message)])).await?;
        let answer = answers.message().await?;
        let rows = Some(record_count(answer.map(|a| a.app_metadata))?).filter(|n| *n >= 0);
        if let Ok(Some(trailers)) = answers.trailers().await {
            let mut headers = metadata.into_headers();
            headers.extend(trailers.into_headers());
            metadata = MetadataMap::from_headers(headers);
        }
        let repeated = self.tries > 1;
        Ok(Written { repeated, ..Written::from_metadata(&metadata, rows) })
    }

    /// Notes what is to be known after a statement was carried out.
    fn done(&mut self, link: &Link, written: Option<&Written>) {
        let shared = &self.client.shared;
        if let Some(written) = written {
            shared.wrote(written.seq, link);
        } else if let Some(seq) = self.demanded {
            shared.has_applied(seq, link);
        }
        match transaction(&self.sql) {
            Some(true) => shared.in_transaction_at(Some(link)),
            Some(false) => shared.in_transaction_at(None),
            None => {}
        }
        if let Some(setting) = setting(&self.sql) {
            shared.was_set(setting, &self.sql);
        }
    }

    fn failed(&mut self, link: &Link, failure: Failure) -> Result<()> {
        let shared = &self.client.shared;
        if !failure.lost && shared.transaction_at(link) == Some(true) {
            // Nobody else has the transaction; and a COMMIT ends it, however it ends.
            if transaction(&self.sql) == Some(false) {
                shared.in_transaction_at(None);
            }
            return Err(failure.error);
        }
        let failed = self.retry.failed(link, failure);
        failed.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: Error) -> Error {
        match &self.token {
            Some(token) => of_write(error, self.retry.maybe_done(), token),
            None => error,
        }
    }
}

/// The rows of a query under way.
struct Rows {
    statement: Statement,
    schema: SchemaRef,
    link: Link,
    /// One after another: their order is the order of the rows.
    tickets: VecDeque<Ticket>,
    batches: Option<BoxStream<'static, Result<RecordBatch, Failure>>>,
    /// Some rows were given out, so that it cannot begin again.
    begun: bool,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.next_here().await {
                Ok(Some(batch)) => {
                    self.begun = true;
                    return Ok(Some(batch));
                }
                Ok(None) => return Ok(None),
                Err(failure) if self.begun => {
                    self.statement.client.shared.links.leave(&self.link, &failure.error);
                    let what = "the query broke off after a part of its rows; run it again";
                    return Err(failure.error.context(what));
                }
                Err(failure) => self.begin_again(failure).await?,
            }
        }
    }

    async fn next_here(&mut self) -> Result<Option<RecordBatch>, Failure> {
        loop {
            if let Some(batches) = &mut self.batches {
                if let Some(batch) = batches.try_next().await? {
                    return Ok(Some(batch));
                }
                self.batches = None;
            }
            let Some(ticket) = self.tickets.pop_front() else { return Ok(None) };
            let mut request = tonic::Request::new(ticket);
            *request.metadata_mut() = self.statement.headers.clone();
            let messages = service_of(&self.link).do_get(request).await?.into_inner();
            let batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(Into::into));
            self.batches = Some(batches.map_err(Failure::from).boxed());
        }
    }

    async fn begin_again(&mut self, failure: Failure) -> Result<()> {
        self.batches = None;
        self.statement.failed(&self.link, failure)?;
        let opened = self.statement.open().await?;
        if opened.written.is_some() || opened.schema != self.schema {
            return Err(Error::unavailable(
                "the query was begun again elsewhere and has other columns now: run it again",
            ));
        }
        (self.link, self.tickets) = (opened.link, opened.tickets);
        Ok(())
    }
}

fn schema_of(info: &FlightInfo) -> Result<SchemaRef> {
    if info.schema.is_empty() {
        return Ok(Arc::new(Schema::empty()));
    }
    let schema = info.clone().try_decode_schema();
    schema.map(Arc::new).map_err(|e| Error::internal(format!("the server's schema is not readable: {e}")))
}

/// The count of a DoPut's answer; -1: not counted.
pub(crate) fn record_count(metadata: Option<Bytes>) -> Result<i64> {
    let metadata = metadata.ok_or_else(|| Error::internal("the server ended the call without an answer"))?;
    let result = DoPutUpdateResult::decode(metadata)
        .map_err(|e| Error::internal(format!("the server's row count is not readable: {e}")))?;
    Ok(result.record_count)
}
