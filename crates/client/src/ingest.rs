//! Bulk ingest: a whole stream as one transaction.
//!
//! What was sent is kept, up to a bound, so that the ingest can be sent again when a connection is lost. It has a token:
//! sent twice, it is committed once.

use std::pin::pin;

use arrow::array::RecordBatch;
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_schema::SchemaRef;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tandem_types::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;

use crate::address::table_path;
use crate::client::{Client, of_write};
use crate::links::Link;
use crate::put::in_messages;
use crate::query::{Written, record_count};
use crate::status::Failure;
use crate::upload::{Outgoing, upload};

/// Batches between the source and the connection: enough to keep both busy.
const QUEUE_BATCHES: usize = 8;

/// What an ingest does about a table that is there or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestMode {
    /// Make the table; fail if it exists.
    Create,
    /// Add to the table; fail if it does not exist.
    Append,
    /// Add to the table, making it if need be.
    CreateAppend,
    /// Drop the table if it exists, and make it anew.
    Replace,
}

impl IngestMode {
    fn options(self) -> TableDefinitionOptions {
        let (missing, present) = match self {
            Self::Create => (TableNotExistOption::Create, TableExistsOption::Fail),
            Self::Append => (TableNotExistOption::Fail, TableExistsOption::Append),
            Self::CreateAppend => (TableNotExistOption::Create, TableExistsOption::Append),
            Self::Replace => (TableNotExistOption::Create, TableExistsOption::Replace),
        };
        TableDefinitionOptions { if_not_exist: missing.into(), if_exists: present.into() }
    }
}

/// The descriptor of an ingest into `t` or `schema.t`.
fn descriptor(table: &str, mode: IngestMode) -> Result<FlightDescriptor> {
    let mut path = table_path(table)?;
    let name = path.pop().unwrap_or_default();
    let command = CommandStatementIngest {
        table_definition_options: Some(mode.options()),
        table: name,
        schema: path.pop(),
        ..Default::default()
    };
    Ok(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()))
}

impl Client {
    /// Sends a whole stream into `t` or `schema.t` as one transaction.
    ///
    /// An error of the source resets the call, so that nothing is committed. When a connection is lost, the ingest is
    /// sent again as long as all that was sent is kept; see [`Client::with_replay_bytes`].
    ///
    /// # Errors
    ///
    /// What the server answers; the source's error; `Unavailable` or, if all rows had been sent, `OutcomeUnknown` when
    /// it cannot be sent again.
    pub async fn ingest<S>(
        &self,
        table: &str,
        mode: IngestMode,
        schema: SchemaRef,
        batches: S,
    ) -> Result<Written>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let descriptor = descriptor(table, mode)?;
        let token = self.token();
        let headers = self.write_headers(&token)?;
        let mut replay = Replay {
            source: Some(in_messages(batches).boxed()),
            kept: Vec::new(),
            bytes: 0,
            bytes_max: self.replay_bytes,
            complete: true,
        };
        let mut retry = self.shared.retry();
        let mut tries = 0_u32;
        loop {
            let link =
                retry.link(&self.headers).await.map_err(|e| of_write(e, retry.maybe_done(), &token))?;
            tries += 1;
            let mut failure = match send(&link, &headers, &descriptor, &schema, &mut replay).await {
                Ok(mut written) => {
                    self.shared.wrote(written.seq, &link);
                    written.repeated = tries > 1;
                    return Ok(written);
                }
                Err(failure) => failure,
            };
            // A stream that the server saw broken is not committed.
            failure.lost &= replay.source.is_none() || failure.error.kind() == ErrorKind::OutcomeUnknown;
            let reason = failure.error.clone();
            retry.failed(&link, failure).map_err(|e| of_write(e, retry.maybe_done(), &token))?;
            if !replay.complete {
                let error = reason.context(format!(
                    "the ingest cannot be sent again by itself, because more than {} bytes of it had been sent",
                    self.replay_bytes
                ));
                return Err(of_write(error, retry.maybe_done(), &token));
            }
        }
    }
}

/// What is handed to the connection.
enum Feed {
    Batch(RecordBatch),
    Broken(Error),
    /// That was all. The channel's own end says no such thing: it also comes when the ingest is given up.
    End,
}

/// The request's batches; an error, which resets the call, unless they end as they should.
fn fed(queue: mpsc::Receiver<Feed>) -> impl Stream<Item = Result<Outgoing>> + Send + 'static {
    stream::unfold(Some(queue), |queue| async {
        let mut queue = queue?;
        match queue.recv().await {
            Some(Feed::Batch(batch)) => Some((Ok(Outgoing { batch, token: None }), Some(queue))),
            Some(Feed::End) => None,
            Some(Feed::Broken(error)) => Some((Err(error), None)),
            None => Some((Err(Error::new(ErrorKind::Cancelled, "the ingest was given up")), None)),
        }
    })
}

/// A source, and what it gave so far.
struct Replay {
    /// `None` at its end.
    source: Option<BoxStream<'static, Result<RecordBatch>>>,
    kept: Vec<RecordBatch>,
    bytes: usize,
    bytes_max: usize,
    /// Nothing was too much to keep.
    complete: bool,
}

impl Replay {
    /// Sends all batches and says that they were all; stops early when nobody takes them any more.
    async fn feed(&mut self, to_server: mpsc::Sender<Feed>) {
        for batch in &self.kept {
            if to_server.send(Feed::Batch(batch.clone())).await.is_err() {
                return;
            }
        }
        while let Some(source) = &mut self.source {
            let feed = match source.next().await {
                None => break,
                Some(Ok(batch)) => {
                    self.keep(&batch);
                    Feed::Batch(batch)
                }
                Some(Err(error)) => {
                    to_server.send(Feed::Broken(error)).await.ok();
                    return;
                }
            };
            if to_server.send(feed).await.is_err() {
                return;
            }
        }
        self.source = None;
        to_server.send(Feed::End).await.ok();
    }

    fn keep(&mut self, batch: &RecordBatch) {
        self.bytes = self.bytes.saturating_add(batch.get_array_memory_size());
        if self.bytes <= self.bytes_max {
            self.kept.push(batch.clone());
        } else {
            self.complete = false;
            self.kept = Vec::new();
        }
    }
}

/// One try.
async fn send(
    link: &Link,
    headers: &MetadataMap,
    descriptor: &FlightDescriptor,
    schema: &SchemaRef,
    replay: &mut Replay,
) -> Result<Written, Failure> {
    let (to_server, queue) = mpsc::channel(QUEUE_BATCHES);
    let batches = fed(queue);
    let mut call = pin!(async {
        let mut answers = upload(link, headers.clone(), descriptor.clone(), schema.clone(), batches).await?;
        let answer = answers.next().await?;
        let rows = record_count(answer.map(|a| a.app_metadata))?;
        let rows = u64::try_from(rows)
            .map_err(|_| Error::internal("the server did not say how many rows it ingested"))?;
        Ok::<Written, Failure>(Written::from_metadata(&answers.metadata().await, i64::try_from(rows).ok()))
    });
    tokio::select! {
        biased;
        // A call that ends before its source is one that failed.
        outcome = &mut call => outcome,
        () = replay.feed(to_server) => call.await,
    }
}
