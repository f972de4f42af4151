//! How long an empty follower takes until it serves what the others have.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use tandem_benches::cpu::{START, create_table};
use tandem_types::{Error, Result};

use crate::cluster::{Hearing, bounded, follower, status, status_number, writer};
use crate::load::{expect_rows, make, one_number, put};
use crate::process::MemoryWatch;
use crate::report::{Report, quantile};
use crate::server::{Server, ServerArgs, store_dir};
use crate::synthetic::{Shape, TABLE};

/// How fast an empty follower is where its writer is.
///
/// A writer takes the workload; when all is acknowledged, a follower is started that has nothing: once one that the writer
/// pushes to, once one that polls the store. Timed from the start of its process until it has applied everything, and until
/// it has answered a sum over a column and a count, which read every row, those of the tail too. Goal: 3 times as fast as
/// the writer took the rows.
///
/// With --commits, of a database that no server wrote: a checkpoint of that many commits and --files data files, and the
/// log after it. A writer adds the last commits, and a follower is timed from the start of its process until it has
/// answered a count of their rows, which plans over all files and reads the tail. Each commit has a client's token unless
/// --no-tokens is given; the state keeps a million of them. Goal: 2 s.
#[derive(Clone, Debug, clap::Args)]
pub struct CatchUpArgs {
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Series
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// In all
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
    /// Of a batch
    #[arg(long, default_value_t = 10_000)]
    batch_rows: usize,
    /// Connections, each with one DoPut
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Unacknowledged batches of a connection
    #[arg(long, default_value_t = 4)]
    inflight: usize,
    /// Partition unit. Days have compaction run meanwhile, hours gather too few rows for that
    #[arg(long, default_value = "hour")]
    partition: String,
    /// Commits of a made-up database, such as 1000000, instead of the workload
    #[arg(long)]
    commits: Option<usize>,
    /// Its data files
    #[arg(long, default_value_t = 100_000, requires = "commits")]
    files: usize,
    /// Days that they lie in
    #[arg(long, default_value_t = 1_000, requires = "commits")]
    days: usize,
    /// Commits that a real writer adds after its checkpoint, one row each
    #[arg(long, default_value_t = 500, requires = "commits")]
    after_checkpoint: usize,
    /// No commit of it has a client's token
    #[arg(long, requires = "commits")]
    no_tokens: bool,
    /// Followers that are started one after another; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// A measurement that takes longer than this is stuck.
const GIVE_UP: Duration = Duration::from_secs(1_800);

pub async fn run(args: CatchUpArgs, server_args: &ServerArgs) -> Result<Report> {
    let report = Report::new("catch-up");
    let measured = async {
        match args.commits {
            Some(commits) => synthetic(&args, commits, server_args, report).await,
            None => workload(&args, server_args, report).await,
        }
    };
    bounded(GIVE_UP, "catch-up", measured).await
}

async fn workload(args: &CatchUpArgs, server_args: &ServerArgs, mut report: Report) -> Result<Report> {
    let rows = args.rows;
    let batches = make(args.seed, args.hosts, rows, args.batch_rows)?;
    let home = server_args.temporary()?;
    let writer = writer(server_args, home.path()).await?;
    let client = writer.connect().await?;
    client.execute(&create_table("cpu", &args.partition)).await?;
    let (started, cpu_before) = (Instant::now(), writer.cpu()?);
    put(&writer, "cpu", &batches, args.streams, args.inflight).await?;
    let ingest_rate = rows as f64 / started.elapsed().as_secs_f64();
    let ingest_cpu = writer.cpu()? - cpu_before;
    drop(batches);
    let seq = status_number(&client, "seq").await?;
    report.add("rows", rows as f64, "rows");
    report.add("commits", seq as f64, "");
    report.add("of them in the tail", status_number(&client, "tail_rows").await? as f64, "rows");
    report.add("ingest", ingest_rate, "rows/s");
    report.add("ingest, server CPU", ingest_cpu, "s");
    for hearing in Hearing::ALL {
        let mut runs = Vec::new();
        for _ in 0..args.runs.max(1) {
            runs.push(follow_workload(server_args, home.path(), &writer, hearing, seq, rows).await?);
        }
        let median = |of: fn(&CaughtUp) -> f64| quantile(&mut runs.iter().map(of).collect::<Vec<_>>(), 0.5);
        let name = hearing.name();
        let answered = median(|run| run.answered);
        report.add(format!("{name}: everything applied"), median(|run| run.applied) * 1e3, "ms");
        report.add(format!("{name}: sum and count answered"), answered * 1e3, "ms");
        report.add(format!("{name}: rows until then"), rows as f64 / answered, "rows/s");
        report.add(format!("{name}: follower CPU until then"), median(|run| run.cpu), "s");
        report.add(format!("{name}: times as fast as ingest"), rows as f64 / answered / ingest_rate, "");
    }
    // The same question to the writer: its rows are the ones that a follower must have.
    expect_rows(&client, "cpu", rows).await?;
    Ok(report)
}

/// Seconds since the start of the process.
struct CaughtUp {
    applied: f64,
    answered: f64,
    cpu: f64,
}

async fn follow_workload(
    server_args: &ServerArgs,
    home: &Path,
    writer: &Server,
    hearing: Hearing,
    seq: u64,
    rows: usize,
) -> Result<CaughtUp> {
    const SUM: &str = "SELECT sum(usage_user) FROM cpu";
    let started = Instant::now();
    let follower = follower(server_args, home, writer, hearing).await?;
    let client = follower.connect().await?.with_min_seq(seq)?;
    status(&client).await?;
    let applied = started.elapsed().as_secs_f64();
    let sum = one_number(&client, SUM).await?;
    expect_rows(&client, "cpu", rows).await?;
    let answered = started.elapsed().as_secs_f64();
    let cpu = follower.cpu()?;
    follower.kill().await?;
    let theirs = one_number(&writer.connect().await?, SUM).await?;
    if sum != theirs {
        return Err(Error::internal(format!("the follower's sum is {sum}, the writer's {theirs}")));
    }
    Ok(CaughtUp { applied, answered, cpu })
}

async fn synthetic(
    args: &CatchUpArgs,
    commits: usize,
    server_args: &ServerArgs,
    mut report: Report,
) -> Result<Report> {
    let shape = Shape { commits, files: args.files, days: args.days, tokens: !args.no_tokens };
    let started = Instant::now();
    let made = shape.make()?;
    let home = server_args.temporary()?;
    let checkpoint_bytes = made.store(&store_dir(home.path()))?;
    report.add("commits", made.state.seq().0 as f64, "");
    report.add("data files", args.files as f64, "");
    report.add("clients' tokens", made.state.tokens().foreign() as f64, "");
    report.add("checkpoint", checkpoint_bytes as f64 / 1e6, "MB");
    report.add("made in", started.elapsed().as_secs_f64(), "s");
    drop(made);

    let writer = writer(server_args, home.path()).await?;
    report.add("writer ready on it", writer.ready_after.as_secs_f64() * 1e3, "ms");
    let client = writer.connect().await?;
    let tail = live_rows(args.after_checkpoint)?;
    put(&writer, TABLE, &tail, 1, 1).await?;
    let seq = status_number(&client, "seq").await?;
    report.add("commits after the checkpoint", args.after_checkpoint as f64, "");

    // Later than all that was made up: no file has to be opened.
    let sql = format!("SELECT count(v) FROM {TABLE} WHERE ts >= '2016-01-01T00:00:00'");
    let (mut ready, mut answered, mut cpu, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs.max(1) {
        let started = Instant::now();
        let follower = follower(server_args, home.path(), &writer, Hearing::Flight).await?;
        let watch = MemoryWatch::start(follower.pid());
        let found = one_number(&follower.connect().await?.with_min_seq(seq)?, &sql).await?;
        answered.push(started.elapsed().as_secs_f64() * 1e3);
        ready.push(follower.ready_after.as_secs_f64() * 1e3);
        cpu.push(follower.cpu()? * 1e3);
        tokio::time::sleep(Duration::from_millis(50)).await;
        memory.push(watch.peak() as f64 / 1e6);
        if found != tail.len() as f64 {
            return Err(Error::internal(format!("{found} rows were counted, {} written", tail.len())));
        }
        follower.kill().await?;
    }
    report.add("follower ready, median", quantile(&mut ready, 0.5), "ms");
    report.add("first query answered, median", quantile(&mut answered, 0.5), "ms");
    report.add("first query answered, longest", quantile(&mut answered, 1.0), "ms");
    report.add("follower CPU until then, median", quantile(&mut cpu, 0.5), "ms");
    report.add("follower's anonymous memory then, median", quantile(&mut memory, 0.5), "MB");
    Ok(report)
}

/// Rows for the made-up table, a batch of one each.
fn live_rows(count: usize) -> Result<Vec<RecordBatch>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("host", DataType::Utf8, true),
        Field::new("v", DataType::Float64, true),
    ]));
    let row = |n: usize| {
        let ts = TimestampMicrosecondArray::from(vec![START / 1_000 + n as i64]);
        let (host, v) = (StringArray::from(vec!["live"]), Float64Array::from(vec![n as f64]));
        RecordBatch::try_new(schema.clone(), vec![Arc::new(ts), Arc::new(host), Arc::new(v)])
    };
    (0..count).map(row).collect::<Result<_, _>>().map_err(|e| Error::internal(format!("the rows: {e}")))
}
