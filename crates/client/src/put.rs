//! Plain DoPut: every batch is a transaction of its own, acknowledged once durable.
//!
//! Each batch has a token, and is kept until it is acknowledged. When a connection is lost, those that are kept are sent
//! again over the next one, in their order and under their tokens, so that none is lost and none is there twice.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow_flight::{FlightDescriptor, PutResult};
use arrow_schema::SchemaRef;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tandem_types::{Error, Result};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;

use crate::address::table_path;
use crate::client::{Client, TOKEN_HEADER, of_write};
use crate::links::Link;
use crate::retry::Retry;
use crate::split::{MESSAGE_BYTES_MAX, split_batch};
use crate::status::Failure;
use crate::upload::{Outgoing, Upload, upload};

/// One acknowledged batch of a put.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PutAck {
    /// The batch's number as sent, from 0. Large batches are cut before they are sent, so a source's
    /// batch may have several numbers.
    pub batch: u64,
    /// The commit that holds the batch.
    pub seq: u64,
    /// Rows committed.
    pub rows: u64,
    /// Whether it had been committed before under its token: by this put, before a connection was lost, or, where the
    /// caller gave the token, by an earlier one.
    pub duplicate: bool,
}

/// A put under way: a stream of acknowledgements, in the order of the batches.
///
/// Batches are sent as it is polled, and only a bounded number of them is unacknowledged at any time, so a caller who
/// stops reading stops the sending. Dropping it cancels the call.
pub struct PutSession {
    acks: BoxStream<'static, Result<PutAck>>,
}

impl PutSession {
    /// Reads all acknowledgements; returns the rows committed.
    ///
    /// # Errors
    ///
    /// The first error; what was acknowledged before it stays.
    pub async fn finish(mut self) -> Result<u64> {
        let mut rows = 0;
        while let Some(ack) = self.next().await {
            rows += ack?.rows;
        }
        Ok(rows)
    }
}

impl Stream for PutSession {
    type Item = Result<PutAck>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.acks.poll_next_unpin(cx)
    }
}

impl Client {
    /// Appends batches to `t` or `schema.t`, each one a transaction of its own; see [`PutSession`].
    ///
    /// Batches of more than 4 MiB are cut by rows, batches without rows are not sent. An error of the source ends the
    /// put, after the acknowledgements of what was sent before; what was acknowledged stays.
    ///
    /// # Errors
    ///
    /// What the server says to the first message, such as `NotFound` for the table.
    pub async fn put<S>(&self, table: &str, schema: SchemaRef, batches: S) -> Result<PutSession>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let mut headers = self.headers.clone();
        // A header would stand for batch 0 of each call, and a call may begin with any batch.
        let base = headers.remove(TOKEN_HEADER).and_then(|t| t.to_str().ok().map(str::to_owned));
        let mut put = Put {
            descriptor: FlightDescriptor::new_path(table_path(table)?),
            headers,
            schema,
            tokens: base.unwrap_or_else(|| self.shared.next_token()),
            source: Some(in_messages(batches).boxed()),
            source_error: None,
            kept: VecDeque::new(),
            acknowledged: 0,
            call: None,
            retry: self.shared.retry(),
            client: self.clone(),
        };
        put.open().await?;
        let acks = stream::unfold(Some(put), |put| async {
            let mut put = put?;
            match put.next().await {
                Ok(Some(ack)) => Some((Ok(ack), Some(put))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(PutSession { acks: acks.boxed() })
    }
}

/// The state of a put.
struct Put {
    client: Client,
    descriptor: FlightDescriptor,
    headers: MetadataMap,
    schema: SchemaRef,
    /// What the tokens begin with.
    tokens: String,
    /// `None` at its end.
    source: Option<BoxStream<'static, Result<RecordBatch>>>,
    source_error: Option<Error>,
    /// Sent, or to be sent again, and not acknowledged.
    kept: VecDeque<RecordBatch>,
    /// Batches acknowledged; the number of the first one that is kept.
    acknowledged: u64,
    call: Option<Call>,
    retry: Retry,
}

/// One DoPut of the put.
struct Call {
    link: Link,
    answers: Upload,
    /// Room for a whole window; dropped when there is nothing more to send.
    to_server: Option<mpsc::Sender<Outgoing>>,
    /// The number of the first batch of this call.
    first: u64,
}

/// What came first.
enum Event {
    Answer(Result<Option<PutResult>, Failure>),
    Batch(Option<Result<RecordBatch>>),
}

impl Put {
    /// The next acknowledgement; `None` when all batches are acknowledged.
    async fn next(&mut self) -> Result<Option<PutAck>> {
        loop {
            if self.call.is_none() && !self.kept.is_empty() {
                self.open().await?;
            }
            if self.source.is_none() && self.kept.is_empty() {
                // How the call ends says nothing any more.
                return self.source_error.take().map_or(Ok(None), Err);
            }
            let room = self.kept.len() < self.client.window;
            let event = match (&mut self.call, self.source.as_mut().filter(|_| room)) {
                (Some(call), Some(source)) => tokio::select! {
                    biased;
                    answer = call.answers.next() => Event::Answer(answer),
                    batch = source.next() => Event::Batch(batch),
                },
                (Some(call), None) => {
                    if self.source.is_none() {
                        call.to_server = None;
                    }
                    Event::Answer(call.answers.next().await)
                }
                // Nothing is kept: there is time for another call when there is something to send.
                (None, Some(source)) => Event::Batch(source.next().await),
                (None, None) => return Err(Error::internal("a put has neither a call nor a source")),
            };
            match event {
                Event::Batch(Some(Ok(batch))) => self.send(batch),
                Event::Batch(end) => {
                    self.source = None;
                    self.source_error = end.and_then(Result::err);
                }
                Event::Answer(Ok(Some(answer))) => return self.acknowledge(&answer).map(Some),
                Event::Answer(Ok(None)) => {
                    self.leave(Failure::lost(
                        "the server ended the call before it had acknowledged all batches",
                    ))?;
                }
                Event::Answer(Err(failure)) => self.leave(failure)?,
            }
        }
    }

    /// Begins a call with what is kept.
    async fn open(&mut self) -> Result<()> {
        loop {
            let linked = self.retry.link(&self.headers).await;
            let link = linked.map_err(|error| self.explain(error))?;
            let (to_server, queue) = mpsc::channel(self.client.window);
            let first = self.acknowledged;
            for (number, batch) in (first..).zip(&self.kept) {
                let token = Some(token_of(&self.tokens, number));
                // There is room: no more are kept than the window allows.
                to_server.try_send(Outgoing { batch: batch.clone(), token }).ok();
            }
            let batches =
                stream::unfold(queue, |mut queue| async { queue.recv().await.map(|out| (Ok(out), queue)) });
            let (headers, descriptor) = (self.headers.clone(), self.descriptor.clone());
            match upload(&link, headers, descriptor, self.schema.clone(), batches).await {
                Ok(answers) => {
                    self.call = Some(Call { link, answers, to_server: Some(to_server), first });
                    return Ok(());
                }
                Err(failure) => self.failed(&link, failure)?,
            }
        }
    }

    fn send(&mut self, batch: RecordBatch) {
        let number = self.acknowledged + self.kept.len() as u64;
        let token = Some(token_of(&self.tokens, number));
        self.kept.push_back(batch.clone());
        if let Some(to_server) = self.call.as_ref().and_then(|call| call.to_server.as_ref()) {
            // A closed channel is a call that has failed, and its answer says why.
            to_server.try_send(Outgoing { batch, token }).ok();
        }
    }

    fn acknowledge(&mut self, answer: &PutResult) -> Result<PutAck> {
        let mut ack: PutAck = serde_json::from_slice(&answer.app_metadata)
            .map_err(|e| Error::internal(format!("the server's acknowledgement is not readable: {e}")))?;
        let Some(call) = &self.call else {
            return Err(Error::internal("an acknowledgement came without a call"));
        };
        if call.first + ack.batch != self.acknowledged || self.kept.pop_front().is_none() {
            return Err(Error::internal(format!(
                "the server acknowledged batch {} of the call where {} was due",
                ack.batch,
                self.acknowledged - call.first
            )));
        }
        ack.batch = self.acknowledged;
        self.acknowledged += 1;
        self.client.shared.wrote(ack.seq, &call.link);
        self.retry.succeeded();
        Ok(ack)
    }

    /// Gives up the present call, and the put if another call could not do better.
    fn leave(&mut self, failure: Failure) -> Result<()> {
        let Some(call) = self.call.take() else { return Err(failure.error) };
        self.failed(&call.link, failure)?;
        if self.kept.is_empty() {
            // Nobody waits, and the time until somebody does is not time of trouble.
            self.retry.succeeded();
        }
        Ok(())
    }

    fn failed(&mut self, link: &Link, failure: Failure) -> Result<()> {
        let failed = self.retry.failed(link, failure);
        failed.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: Error) -> Error {
        let maybe_done = self.retry.maybe_done() && !self.kept.is_empty();
        of_write(error, maybe_done, &token_of(&self.tokens, self.acknowledged))
    }
}

/// As a `tandem-token` header stands for the batches of a call.
fn token_of(base: &str, number: u64) -> String {
    format!("{base}#{number}")
}

/// Cuts batches to message size.
pub(crate) fn in_messages<S>(batches: S) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static
where
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    batches.flat_map(|batch| {
        let pieces = match batch {
            Ok(batch) => split_batch(&batch, MESSAGE_BYTES_MAX).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    })
}
