//! Sending batches, as fast as they are taken or at a given rate, and reading single numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt, stream};
use tandem_benches::cpu::Generator;
use tandem_client::{Client, IngestMode, PutAck, PutSession};
use tandem_types::{Error, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::server::Server;

/// Rows of the workload, made before any clock starts.
pub fn make(seed: u64, hosts: usize, rows: usize, batch_rows: usize) -> Result<Vec<RecordBatch>> {
    let batches = Generator::new(seed, hosts).batches(rows, batch_rows);
    batches.map_err(|e| Error::internal(format!("the workload: {e}")))
}

/// Sends the batches over `streams` connections, one put each, with `inflight` batches unacknowledged in each;
/// returns when all are acknowledged.
pub async fn put(
    server: &Server,
    table: &str,
    batches: &[RecordBatch],
    streams: usize,
    inflight: usize,
) -> Result<()> {
    let streams = streams.max(1);
    let mut tasks = Vec::new();
    for first in 0..streams {
        let client = server.connect().await?.with_window(inflight);
        let own: Vec<_> = batches.iter().skip(first).step_by(streams).cloned().collect();
        let table = table.to_owned();
        tasks.push(tokio::spawn(async move {
            let Some(schema) = own.first().map(RecordBatch::schema) else { return Ok(0) };
            client.put(&table, schema, stream::iter(own.into_iter().map(Ok))).await?.finish().await
        }));
    }
    let mut acknowledged = 0;
    for task in tasks {
        acknowledged += task.await.map_err(|e| Error::internal(format!("a stream failed: {e}")))??;
    }
    let sent: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if acknowledged != sent as u64 {
        return Err(Error::internal(format!("{sent} rows were sent, {acknowledged} acknowledged")));
    }
    Ok(())
}

/// A put that sends a batch when the one before it is acknowledged.
pub struct Turns {
    sender: mpsc::Sender<Result<RecordBatch>>,
    session: PutSession,
}

impl Turns {
    pub async fn open(client: &Client, table: &str, schema: SchemaRef) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(1);
        Ok(Self { sender, session: client.put(table, schema, receiver).await? })
    }

    /// Returns when the batch is durable.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<PutAck> {
        let early = || Error::unavailable("the put has ended early");
        // What it ended with tells more than that it takes nothing.
        let sent = self.sender.send(Ok(batch)).await;
        let ack = self.session.next().await.ok_or_else(early)??;
        sent.map(|()| ack).map_err(|_| early())
    }

    pub async fn finish(self) -> Result<u64> {
        drop(self.sender);
        self.session.finish().await
    }
}

/// Batches at fixed moments, whether or not earlier ones are acknowledged by then; each is a transaction of its own.
pub struct Steady<'a> {
    /// Filled in turn.
    pub tables: &'a [String],
    /// Sent in turn, again from the first one when all were sent.
    pub batches: &'a [RecordBatch],
    pub rows_per_second: f64,
    pub lasting: Duration,
}

/// What came of it.
pub struct Sent {
    pub rows: u64,
    /// From the first batch to the last acknowledgement.
    pub took: Duration,
    /// Seconds from the moment at which each batch was due to its acknowledgement.
    pub waits: Vec<f64>,
}

impl Sent {
    /// Fails unless the rate was held: figures of a server that cannot keep up are those of another question.
    pub fn rate(&self, wanted: f64) -> Result<f64> {
        let rate = self.rows as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE);
        if rate < wanted * 0.8 {
            return Err(Error::overloaded(format!(
                "the server took {rate:.0} rows/s of {wanted:.0}: ask for fewer (--rate)"
            )));
        }
        Ok(rate)
    }
}

impl Steady<'_> {
    /// Connections, and transactions that may wait for their acknowledgements.
    const CONNECTIONS: usize = 4;
    const WAITING_MAX: usize = 1_000;

    pub async fn send(&self, server: &Server) -> Result<Sent> {
        let mut clients = Vec::new();
        for _ in 0..Self::CONNECTIONS {
            clients.push(server.connect().await?);
        }
        let (batches, tables) = (self.batches.iter().cycle(), self.tables.iter().cycle());
        let clients = clients.iter().cycle();
        let room = Arc::new(Semaphore::new(Self::WAITING_MAX));
        let mut waiting = JoinSet::new();
        let (mut rows, mut waits) = (0, Vec::new());
        let started = Instant::now();
        for ((batch, table), client) in batches.zip(tables).zip(clients) {
            let due = started + Duration::from_secs_f64(rows as f64 / self.rows_per_second);
            if due.duration_since(started) >= self.lasting {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let permit = room.clone().acquire_owned().await;
            rows += batch.num_rows() as u64;
            let (client, table, batch) = (client.clone(), table.clone(), batch.clone());
            waiting.spawn(async move {
                let schema = batch.schema();
                let one = stream::iter([Ok(batch)]);
                client.ingest(&table, IngestMode::Append, schema, one).await?;
                drop(permit);
                Ok::<f64, Error>(due.elapsed().as_secs_f64())
            });
            while let Some(done) = waiting.try_join_next() {
                waits.push(settled(done)?);
            }
        }
        while let Some(done) = waiting.join_next().await {
            waits.push(settled(done)?);
        }
        Ok(Sent { rows, took: started.elapsed(), waits })
    }
}

fn settled(done: Result<Result<f64>, tokio::task::JoinError>) -> Result<f64> {
    done.map_err(|e| Error::internal(format!("a write failed: {e}")))?
}

/// The first value of a query's answer as a number.
pub async fn one_number(client: &Client, sql: &str) -> Result<f64> {
    let none = || Error::internal(format!("{sql}: no number came back"));
    let batches = client.query(sql).await?.collect().await?;
    let column =
        batches.iter().find(|b| b.num_rows() > 0).and_then(|b| b.columns().first()).ok_or_else(none)?;
    let numbers = cast(column, &DataType::Float64).map_err(|_| none())?;
    numbers.as_primitive::<Float64Type>().iter().next().flatten().ok_or_else(none)
}

/// Fails unless the table has that many rows, in files or not.
pub async fn expect_rows(client: &Client, table: &str, rows: usize) -> Result<()> {
    let found = one_number(client, &format!("SELECT count(*) FROM {table}")).await?;
    if found != rows as f64 {
        return Err(Error::internal(format!("{rows} rows were acknowledged, {found} are there")));
    }
    Ok(())
}
