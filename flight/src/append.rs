//! A plain DoPut: each record batch is a transaction, acknowledged in order once it is durable.
//!
//! Several are on their way at a time. Reading and acknowledging do not wait for each other: a client may write all its
//! batches before it reads the first answer.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_flight::PutResult;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::Value;
use tandem_manifest::SchemaPolicy;
use tandem_sql::{AppendRequest, ClientToken, Receipt, Session, WriteOptions};
use tandem_types::{Error, Result, TableName};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::declared::{declared_schema, to_declared};
use crate::decode::{BatchReader, Received};
use crate::encode::slice_bytes;
use crate::put::{INGEST_ROWS, PutStream};
use crate::state::{Caller, Reply, State};

/// Answers that a client may leave unread.
const MAX_UNREAD_ANSWERS: usize = 1 << 17;

/// Begins a plain DoPut; its answers.
pub(crate) async fn append(
    state: Arc<State>,
    caller: &Caller,
    table: TableName,
    mut rows: BatchReader,
) -> Result<Reply<PutStream>> {
    let policy = caller.schema_policy();
    let Some(sent) = rows.schema().await? else {
        return Err(Error::invalid(format!("the rows for table {table} come without a schema")));
    };
    let options = caller.session.write_options(caller.writing());
    if policy != SchemaPolicy::Create && options.token.is_none() {
        // The client hears of a wrong name before it has sent all its rows; but what was committed under a token before
        // is answered so, whatever became of its table since.
        caller.require_table(&table).await?;
    }
    let schema = Arc::new(declared_schema(&sent));
    let (answers, unread) = mpsc::channel(MAX_UNREAD_ANSWERS);
    let pump = Pump {
        state,
        session: caller.session.clone(),
        table,
        policy,
        schema,
        options,
        answers,
        pending: VecDeque::new(),
        pending_bytes: 0,
        last_queued: None,
    };
    tokio::spawn(pump.run(rows));
    Ok(Reply::from(ReceiverStream::new(unread).boxed()))
}

/// Moves batches from the client to the database, and receipts back.
struct Pump {
    state: Arc<State>,
    session: Arc<Session>,
    table: TableName,
    policy: SchemaPolicy,
    schema: SchemaRef,
    /// Of the whole stream: its token is what the batches' are made of.
    options: WriteOptions,
    answers: mpsc::Sender<Result<PutResult>>,
    /// Oldest first.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Told when the newest transaction has its place in the queue.
    last_queued: Option<Arc<Notify>>,
}

struct Pending {
    index: u64,
    bytes: usize,
    receipt: JoinHandle<Result<Receipt>>,
}

/// Why nothing more is to be done.
struct Stop;

impl Pump {
    async fn run(mut self, mut rows: BatchReader) {
        // When it stops early, the failure was answered or nobody listens any more.
        let Err(Stop) = self.transfer(&mut rows).await else { return };
        // What is on its way is finished by itself, unacknowledged: wholly there or wholly absent.
    }

    async fn transfer(&mut self, rows: &mut BatchReader) -> std::result::Result<(), Stop> {
        let mut index = 0u64;
        loop {
            while self.is_full() {
                self.acknowledge_oldest().await?;
            }
            let received = self.next_or_acknowledge(rows).await?;
            match received {
                Ok(Some(received)) => match self.begin(index, received) {
                    Ok(pending) => {
                        self.pending_bytes += pending.bytes;
                        self.pending.push_back(pending);
                    }
                    Err(error) => return self.fail(index, error).await,
                },
                Ok(None) => break,
                Err(error) => return self.fail(index, error).await,
            }
            index += 1;
        }
        while !self.pending.is_empty() {
            self.acknowledge_oldest().await?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let config = &self.state.config;
        self.pending.len() >= config.put_batches_in_flight
            || (self.pending_bytes >= config.put_bytes_in_flight && !self.pending.is_empty())
    }

    /// The client's next batch; receipts that arrive earlier are passed on meanwhile.
    async fn next_or_acknowledge(
        &mut self,
        rows: &mut BatchReader,
    ) -> std::result::Result<Result<Option<Received>>, Stop> {
        let mut next = std::pin::pin!(rows.next());
        loop {
            let Some(oldest) = self.pending.front_mut() else {
                return tokio::select! {
                    received = &mut next => Ok(received),
                    () = self.answers.closed() => Err(Stop),
                };
            };
            tokio::select! {
                received = &mut next => return Ok(received),
                () = self.answers.closed() => return Err(Stop),
                done = &mut oldest.receipt => {
                    let done = done.unwrap_or_else(|_| Err(task_failed()));
                    self.acknowledge(done).await?;
                }
            }
        }
    }

    /// Starts the transaction of one batch.
    fn begin(&mut self, index: u64, received: Received) -> Result<Pending> {
        let token = batch_token(&received.app_metadata, self.options.token.as_ref(), index)?;
        let batch = to_declared(&received.batch, &self.schema)?;
        let bytes = slice_bytes(&batch);
        let mine = Arc::new(Notify::new());
        let previous = self.last_queued.replace(mine.clone());
        let request = AppendRequest {
            table: self.table.clone(),
            schema: self.schema.clone(),
            policy: self.policy,
            create: None,
            on_conflict: None,
            queued: Some(mine.clone()),
            options: WriteOptions { token, ..self.options.clone() },
        };
        let database = self.state.engine.database().clone();
        let receipt = tokio::spawn(async move {
            // Batches of one stream are committed in its order: each takes its place in the queue after the one before.
            if let Some(previous) = previous {
                previous.notified().await;
            }
            let done = database.append(request, futures::stream::iter([Ok(batch)]).boxed()).await;
            // One that failed before it was queued must not hold up the next.
            mine.notify_one();
            done
        });
        Ok(Pending { index, bytes, receipt })
    }

    async fn acknowledge_oldest(&mut self) -> std::result::Result<(), Stop> {
        let Some(oldest) = self.pending.front_mut() else { return Ok(()) };
        let done = (&mut oldest.receipt).await.unwrap_or_else(|_| Err(task_failed()));
        self.acknowledge(done).await
    }

    /// Passes on what became of the oldest transaction.
    async fn acknowledge(&mut self, done: Result<Receipt>) -> std::result::Result<(), Stop> {
        let Some(oldest) = self.pending.pop_front() else { return Ok(()) };
        self.pending_bytes = self.pending_bytes.saturating_sub(oldest.bytes);
        let (index, receipt) = match done {
            Ok(receipt) => (oldest.index, receipt),
            Err(error) => return self.answer(Err(at_batch(oldest.index, error))).await,
        };
        self.session.wrote(receipt.seq);
        metrics::counter!(INGEST_ROWS, "via" => "put").increment(receipt.rows);
        let Receipt { seq, rows, duplicate, .. } = receipt;
        let app_metadata =
            format!("{{\"batch\":{index},\"seq\":{seq},\"rows\":{rows},\"duplicate\":{duplicate}}}");
        self.answer(Ok(PutResult { app_metadata: app_metadata.into() })).await
    }

    /// Answers for the transactions before `index`, then with the error that ends the stream.
    async fn fail(&mut self, index: u64, error: Error) -> std::result::Result<(), Stop> {
        while !self.pending.is_empty() {
            self.acknowledge_oldest().await?;
        }
        self.answer(Err(at_batch(index, error))).await
    }

    async fn answer(&mut self, answer: Result<PutResult>) -> std::result::Result<(), Stop> {
        let last = answer.is_err();
        // Waiting here could wait for ever: a client that only writes does not read.
        match self.answers.try_send(answer) {
            Ok(()) if last => Err(Stop),
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Stop),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let error = Error::overloaded(format!(
                    "{MAX_UNREAD_ANSWERS} acknowledgements are waiting to be read: read them while writing"
                ));
                // It arrives once the client has read what comes before.
                let _ = self.answers.send(Err(error)).await;
                Err(Stop)
            }
        }
    }
}

fn at_batch(index: u64, error: Error) -> Error {
    error.context(format!("batch {index}"))
}

fn task_failed() -> Error {
    Error::internal("the append failed by a fault of the server; its log says more")
}

/// The token of a batch: its own, else the stream's with the batch's number. Other metadata is the client's business.
fn batch_token(
    app_metadata: &Bytes,
    stream: Option<&ClientToken>,
    index: u64,
) -> Result<Option<ClientToken>> {
    let own = serde_json::from_slice::<Value>(app_metadata).unwrap_or_default();
    match (own.get("token"), stream) {
        (Some(Value::String(token)), _) => ClientToken::parse(token).map(Some),
        (Some(other), _) => Err(Error::invalid(format!("the token in the metadata is {other}, and no text"))),
        (None, Some(stream)) => ClientToken::parse(&format!("{}#{index}", stream.text)).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_its_own_token_or_the_streams_with_its_number() {
        let token = |metadata: &'static [u8], stream: Option<&str>| {
            let stream = stream.map(|text| ClientToken::parse(text).unwrap());
            let token = batch_token(&Bytes::from_static(metadata), stream.as_ref(), 7);
            token.map(|token| token.map(|token| token.text))
        };
        for foreign in [&b""[..], b"\x00\x01", b"{\"mine\":1}", b"[1]"] {
            assert_eq!(token(foreign, None), Ok(None));
            assert_eq!(token(foreign, Some("s")), Ok(Some("s#7".to_owned())));
        }
        assert_eq!(token(b"{\"token\":\"x\"}", Some("s")), Ok(Some("x".to_owned())));
        assert!(token(b"{\"token\":7}", None).unwrap_err().message().contains('7'));
        assert!(token(b"", Some(&"s".repeat(127))).is_err(), "too long with the number");
    }
}
