//! Sending batches and reading single numbers.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use futures::stream;
use tandem_benches::cpu::Generator;
use tandem_client::Client;
use tandem_types::{Error, Result};

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
