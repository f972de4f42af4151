//! Queries through Flight SQL, beside plain DataFusion over the same rows in one process.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tandem_benches::cpu::{create_table, schema};
use tandem_client::Client;
use tandem_types::{Error, Result};

use crate::Workload;
use crate::load::{make, put};
use crate::process::cpu_seconds;
use crate::report::{Report, quantile};
use crate::server::{Server, ServerArgs, store_dir};

#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    #[command(flatten)]
    workload: Workload,
    /// Runs of every query; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Rows of the tail
    #[arg(long, default_value_t = 100_000)]
    tail_rows: usize,
}

/// What is asked, of a table named `cpu`.
pub const QUERIES: [(&str, &str); 3] = [
    ("sums of all rows", "SELECT count(*), sum(usage_user), sum(usage_system), sum(usage_idle) FROM cpu"),
    (
        "mean of 5 by hour and host",
        "SELECT date_trunc('hour', ts) AS hour, hostname, avg(usage_user), avg(usage_system), avg(usage_idle), \
         avg(usage_nice), avg(usage_iowait) FROM cpu GROUP BY hour, hostname",
    ),
    (
        "max by minute of one host in an hour",
        "SELECT date_trunc('minute', ts) AS minute, max(usage_user) FROM cpu \
         WHERE hostname = 'host_7' AND ts >= '2016-01-01T00:00:00' AND ts < '2016-01-01T01:00:00' GROUP BY minute",
    ),
];

/// Medians over the runs, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    rows: usize,
}

pub async fn run(args: ScanArgs, server_args: &ServerArgs) -> Result<Report> {
    let Workload { seed, hosts, rows, batch_rows } = args.workload;
    let home = server_args.temporary()?;
    let server = Server::start(server_args, home.path()).await?;
    let client = server.connect().await?;
    client.execute(&create_table("cpu", "DAY")).await?;
    client.execute("CREATE SCHEMA tail").await?;
    client.execute(&create_table("tail.cpu", "DAY")).await?;
    let tail = make(seed, hosts, args.tail_rows, batch_rows)?;
    put(&server, "cpu", &make(seed, hosts, rows, batch_rows)?, 4, 4).await?;
    client.execute("OPTIMIZE TABLE cpu").await?;

    let mut report = Report::new("scan");
    report.add("compacted rows", rows as f64, "rows");
    report.add("rows of the tail", args.tail_rows as f64, "rows");
    let plain = SessionContext::new();
    plain
        .register_parquet("cpu", &files_of(&client, home.path()).await?, ParquetReadOptions::default())
        .await
        .map_err(|e| plain_error(&e))?;
    compare(&mut report, "files", &args, &server, &client, "cpu", &plain).await?;

    // Read before the tail is old enough to be compacted.
    put(&server, "tail.cpu", &tail, 1, 1).await?;
    let plain = SessionContext::new();
    let table = MemTable::try_new(schema(), vec![tail]).map_err(|e| plain_error(&e))?;
    plain.register_table("cpu", Arc::new(table)).map_err(|e| plain_error(&e))?;
    compare(&mut report, "tail", &args, &server, &client, "tail.cpu", &plain).await?;
    Ok(report)
}

/// A directory with the table's live files and nothing else.
async fn files_of(client: &Client, home: &Path) -> Result<String> {
    let sql = "SELECT path FROM system.files WHERE table_name = 'cpu'";
    let batches = client.query(sql).await?.collect().await?;
    let mut live = Vec::new();
    for batch in &batches {
        if let Some(paths) = batch.columns().first() {
            live.extend(paths.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
    }
    // Links, because plain DataFusion reads a directory and the store's keeps replaced files for a while.
    let dir = home.join("live");
    let link = || {
        std::fs::create_dir(&dir)?;
        for path in &live {
            let source = store_dir(home).join(path);
            let name = source.file_name().map(|n| dir.join(n)).unwrap_or_else(|| dir.clone());
            std::fs::hard_link(&source, name)?;
        }
        Ok(())
    };
    link().map_err(|e| crate::server::io_error(&dir, &e))?;
    dir.to_str().map(|d| format!("{d}/")).ok_or_else(|| Error::internal("a directory's name is no text"))
}

fn plain_error(error: &datafusion::error::DataFusionError) -> Error {
    Error::internal(format!("plain DataFusion: {error}"))
}

async fn compare(
    report: &mut Report,
    what: &str,
    args: &ScanArgs,
    server: &Server,
    client: &Client,
    table: &str,
    plain: &SessionContext,
) -> Result<()> {
    for (name, sql) in QUERIES {
        let remote = sql.replace("FROM cpu", &format!("FROM {table}"));
        let own = std::process::id();
        let ask = || async {
            let batches = client.query(&remote).await?.collect().await?;
            Ok(batches.iter().map(RecordBatch::num_rows).sum())
        };
        let ours = measure(args.runs, || server.cpu(), ask).await?;
        let ask = || async {
            let frame = plain.sql(sql).await.map_err(|e| plain_error(&e))?;
            let batches = frame.collect().await.map_err(|e| plain_error(&e))?;
            Ok(batches.iter().map(RecordBatch::num_rows).sum())
        };
        let theirs = measure(args.runs, || cpu_seconds(own), ask).await?;
        if ours.rows != theirs.rows {
            return Err(Error::internal(format!("{name}: {} rows here, {} there", ours.rows, theirs.rows)));
        }
        report.add(format!("{what}, {name}: wall"), ours.wall * 1e3, "ms");
        report.add(format!("{what}, {name}: wall, plain DataFusion"), theirs.wall * 1e3, "ms");
        report.add(format!("{what}, {name}: wall, ratio"), ours.wall / theirs.wall.max(1e-9), "");
        report.add(format!("{what}, {name}: CPU"), ours.cpu * 1e3, "ms");
        report.add(format!("{what}, {name}: CPU, plain DataFusion"), theirs.cpu * 1e3, "ms");
    }
    Ok(())
}

/// The median of several runs after one that does not count. CPU is the mean: single runs are shorter than the
/// kernel's count is fine.
async fn measure<F>(runs: usize, cpu: impl Fn() -> Result<f64>, ask: impl Fn() -> F) -> Result<Cost>
where
    F: Future<Output = Result<usize>>,
{
    let runs = runs.max(1);
    let rows = ask().await?;
    let mut times = Vec::with_capacity(runs);
    let before = cpu()?;
    for _ in 0..runs {
        let started = Instant::now();
        ask().await?;
        times.push(started.elapsed().as_secs_f64());
    }
    let cpu = (cpu()? - before) / runs as f64;
    Ok(Cost { wall: quantile(&mut times, 0.5), cpu, rows })
}
