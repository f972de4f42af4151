//! How long after its acknowledgement a write is visible on a follower.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tandem_benches::cpu::{START, create_table};
use tandem_client::Client;
use tandem_format::commit_path;
use tandem_types::{Error, Result, Seq, parse_duration};

use crate::cluster::{Hearing, bounded, follower, status, writer};
use crate::load::{Sent, Steady, Turns, expect_rows, make, one_number};
use crate::report::{Report, quantile};
use crate::server::{Server, ServerArgs, io_error, store_dir};

/// How far a follower is behind its writer under a steady load.
///
/// One writer takes rows of the workload at a fixed rate. In between, a probe commits one numbered row and, at the moment of
/// its acknowledgement, asks the follower for it under `tandem-min-seq`: the follower answers when it has applied that
/// commit. Every other probe asks for the follower's status, which costs nothing else, and every other reads the row with
/// SQL; each asks a second time, when there is nothing to wait for, so that the question's own cost can be seen. First with
/// a follower that the writer pushes to, then with one that polls the store (`--follow store`). The first two seconds do
/// not count.
///
/// Goals: p50 below 5 ms and p99 below 25 ms over Flight; by polling, p50 below the poll interval + 2 round trips.
#[derive(Clone, Debug, clap::Args)]
pub struct LagArgs {
    /// Rows per second that the writer takes
    #[arg(long, default_value_t = 100_000)]
    rate: usize,
    /// Of a transaction
    #[arg(long, default_value_t = 10_000)]
    batch_rows: usize,
    /// How long each of the two followers is watched, such as 20s
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    lasting: Duration,
    /// From one probe to the next; no divisor of the batches' pace, so that probes meet all moments between them
    #[arg(long, default_value = "23ms", value_parser = parse_duration)]
    every: Duration,
    /// Series
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Connections and caches are made in this time.
const WARM_UP: Duration = Duration::from_secs(2);
/// Batches that are made; they are sent again and again.
const BATCHES_MAX: usize = 100;
/// For what is not watched: starting, stopping, counting.
const AROUND: Duration = Duration::from_secs(120);

pub async fn run(args: LagArgs, server_args: &ServerArgs) -> Result<Report> {
    let mut report = Report::new("lag");
    let batches = make(args.seed, args.hosts, args.batch_rows.saturating_mul(BATCHES_MAX), args.batch_rows)?;
    report.add("rate asked for", args.rate as f64, "rows/s");
    report.add("rows of a transaction", args.batch_rows as f64, "rows");
    for hearing in Hearing::ALL {
        let watched = watch(&args, server_args, hearing, &batches, &mut report);
        bounded(args.lasting + AROUND, hearing.name(), watched).await?;
    }
    Ok(report)
}

async fn watch(
    args: &LagArgs,
    server_args: &ServerArgs,
    hearing: Hearing,
    batches: &[RecordBatch],
    report: &mut Report,
) -> Result<()> {
    let home = server_args.temporary()?;
    let writer = writer(server_args, home.path()).await?;
    let client = writer.connect().await?;
    // Hours gather too few rows for compaction: what is measured is the log.
    client.execute(&create_table("cpu", "HOUR")).await?;
    client.execute("CREATE TABLE probe (ts TIMESTAMP, n BIGINT) TIMESTAMP(ts) PARTITION BY DAY").await?;
    let follower = follower(server_args, home.path(), &writer, hearing).await?;

    let tables = ["cpu".to_owned()];
    let steady = Steady {
        tables: &tables,
        batches,
        rows_per_second: args.rate as f64,
        lasting: WARM_UP + args.lasting,
    };
    let (sent, mut seen) =
        tokio::try_join!(steady.send(&writer), probe(args, &writer, &follower, home.path()))?;
    let rate = sent.rate(steady.rows_per_second)?;
    let Sent { rows, mut waits, .. } = sent;
    expect_rows(&client, "cpu", usize::try_from(rows).unwrap_or(usize::MAX)).await?;

    let name = hearing.name();
    report.add(format!("{name}: rate"), rate, "rows/s");
    report.add(format!("{name}: batches acknowledged, p50"), quantile(&mut waits, 0.5) * 1e3, "ms");
    report.add(format!("{name}: probes"), (seen.applied.waited.len() + seen.read.waited.len()) as f64, "");
    for (what, times) in [("applied", &mut seen.applied), ("read with SQL", &mut seen.read)] {
        for (share, which) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            let since_ack = quantile(&mut times.waited, share) * 1e3;
            report.add(format!("{name}: ack until {what}, {which}"), since_ack, "ms");
        }
        let again = quantile(&mut times.again, 0.5) * 1e3;
        report.add(format!("{name}: the same question, nothing to wait for, p50"), again, "ms");
    }
    if hearing == Hearing::Polling {
        let config = tandem_writer::WriterConfig::default();
        let round_trip = quantile(&mut seen.round_trips, 0.5) * 1e3;
        let interval = config.poll_min.as_secs_f64() * 1e3;
        report.add(format!("{name}: interval while there are commits"), interval, "ms");
        report.add(
            format!("{name}: round trip, a commit read and its directory synced, p50"),
            round_trip,
            "ms",
        );
        report.add(format!("{name}: interval + 2 round trips"), interval + 2.0 * round_trip, "ms");
    }
    Ok(())
}

/// Seconds that one kind of question took.
#[derive(Default)]
struct Times {
    /// From the acknowledgement on the writer to the follower's answer.
    waited: Vec<f64>,
    /// Asked again at once.
    again: Vec<f64>,
}

#[derive(Default)]
struct Seen {
    applied: Times,
    read: Times,
    round_trips: Vec<f64>,
}

async fn probe(args: &LagArgs, writer: &Server, follower: &Server, home: &Path) -> Result<Seen> {
    let mut turns = Turns::open(&writer.connect().await?, "probe", schema()).await?;
    let reader = follower.connect().await?;
    let mut seen = Seen::default();
    let started = Instant::now();
    let every = args.every.max(Duration::from_millis(1));
    let mut due = Duration::ZERO;
    let mut number = 0;
    while due < WARM_UP + args.lasting {
        tokio::time::sleep_until((started + due).into()).await;
        let ack = turns.write(row(number)?).await?;
        let acknowledged = Instant::now();
        let reader = reader.clone().with_min_seq(ack.seq)?;
        let by_sql = number % 2 == 1;
        ask(&reader, number, by_sql).await?;
        let waited = acknowledged.elapsed();
        let again = Instant::now();
        ask(&reader, number, by_sql).await?;
        if due >= WARM_UP {
            let times = if by_sql { &mut seen.read } else { &mut seen.applied };
            times.waited.push(waited.as_secs_f64());
            times.again.push(again.elapsed().as_secs_f64());
            seen.round_trips.push(round_trip(home, ack.seq)?);
        }
        number += 1;
        // A probe that took long delays the next one, and does not make them come in a bunch.
        while due <= started.elapsed() {
            due += every;
        }
    }
    turns.finish().await?;
    Ok(seen)
}

async fn ask(reader: &Client, number: i64, by_sql: bool) -> Result<()> {
    if !by_sql {
        return status(reader).await.map(|_| ());
    }
    // By its time, so that only its own section is read.
    let (hour, minute, second) = (number / 3600, number / 60 % 60, number % 60);
    let sql = format!(
        "SELECT n FROM probe WHERE ts = '2016-01-01T{hour:02}:{minute:02}:{second:02}' AND n = {number}"
    );
    let found = one_number(reader, &sql).await?;
    if found == number as f64 {
        Ok(())
    } else {
        Err(Error::internal(format!("row {number} was read as {found}")))
    }
}

/// What looking into the store costs where it finds something: the commit is read, and must survive a crash.
fn round_trip(home: &Path, seq: u64) -> Result<f64> {
    let path = store_dir(home).join(commit_path(Seq(seq)));
    let started = Instant::now();
    let look = || {
        std::fs::read(&path)?;
        path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    };
    look().map_err(|e| io_error(&path, &e))?;
    Ok(started.elapsed().as_secs_f64())
}

fn schema() -> SchemaRef {
    let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), false);
    Arc::new(Schema::new(vec![ts, Field::new("n", DataType::Int64, true)]))
}

/// The numbered row: its time is so many seconds after the generator's first.
fn row(number: i64) -> Result<RecordBatch> {
    let ts = TimestampNanosecondArray::from(vec![START + number * 1_000_000_000]);
    RecordBatch::try_new(schema(), vec![Arc::new(ts), Arc::new(Int64Array::from(vec![number]))])
        .map_err(|e| Error::internal(format!("the probe: {e}")))
}
