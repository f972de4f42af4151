//! What a group window costs and saves: requests to the store, bytes, and dollars.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tandem_benches::cpu::create_table;
use tandem_types::{Result, parse_duration};

use crate::cluster::bounded;
use crate::load::{Sent, Steady, expect_rows, make};
use crate::report::{Report, quantile};
use crate::server::{NodeSpec, Server, ServerArgs, io_error, store_dir};

/// Store requests and bytes per million rows at several group windows, with one table and with many.
///
/// For each window (`tandem serve --commit-window`) and number of tables, a server on an empty directory takes rows of the
/// workload at a fixed rate: small transactions, each to the next table, sent when they are due, whether or not earlier ones
/// are acknowledged. A window gathers those of all tables into one commit, so that requests should not depend on the number
/// of tables. Counted are all requests of the server in that time, heartbeats included, and the objects that came to be in
/// the store.
///
/// Dollars are for the requests of a month (30 days) at this rate, at the list prices of S3 Standard in us-east-1 as noted in
/// November 2026: 0.005 per 1,000 PUT, COPY, POST and LIST, 0.0004 per 1,000 GET and HEAD, nothing for DELETE.
/// Storage and transfer are not in them. Heartbeats are one a second on a directory, where on S3 they are one in five
/// seconds. Hours as partitions gather too few rows for compaction, whose requests depend on the data and not on the
/// window; `--partition day` lets it run meanwhile.
#[derive(Clone, Debug, clap::Args)]
pub struct WindowsArgs {
    /// Windows
    #[arg(long, default_value = "1s,100ms,10ms", value_delimiter = ',')]
    windows: Vec<String>,
    /// Numbers of tables
    #[arg(long, default_value = "1,1000", value_delimiter = ',')]
    tables: Vec<usize>,
    /// Rows per second, over all tables
    #[arg(long, default_value_t = 100_000)]
    rate: usize,
    /// Of a transaction
    #[arg(long, default_value_t = 1_000)]
    batch_rows: usize,
    /// How long each combination is watched, such as 20s
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    lasting: Duration,
    /// Partition unit
    #[arg(long, default_value = "hour")]
    partition: String,
    /// Series
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Dollars per 1,000 requests of S3 Standard, us-east-1: list prices as noted in November 2026.
const PUT_PRICE: f64 = 0.005;
const GET_PRICE: f64 = 0.0004;
/// The operations of `tandem_store_requests_total` that are charged as PUT, and those that are charged as GET.
const PUT_OPERATIONS: [&str; 4] = ["create", "put", "list", "copy"];
const GET_OPERATIONS: [&str; 3] = ["get", "range", "head"];
const SECONDS_OF_MONTH: f64 = 30.0 * 86_400.0;

/// Batches that are made; they are sent again and again.
const BATCHES_MAX: usize = 1_000;
/// Tables are made at once, so that they share windows too.
const TABLES_AT_ONCE: usize = 200;
/// For what is not watched: starting, making tables, counting.
const AROUND: Duration = Duration::from_secs(300);

pub async fn run(args: WindowsArgs, server_args: &ServerArgs) -> Result<Report> {
    let mut report = Report::new("windows");
    report.add("rate asked for", args.rate as f64, "rows/s");
    report.add("rows of a transaction", args.batch_rows as f64, "rows");
    for window in &args.windows {
        for tables in &args.tables {
            let name = format!("{window}, {tables} tables");
            let watched = watch(&args, server_args, window, (*tables).max(1), &name, &mut report);
            bounded(args.lasting + AROUND, &name, watched).await?;
        }
    }
    Ok(report)
}

async fn watch(
    args: &WindowsArgs,
    server_args: &ServerArgs,
    window: &str,
    tables: usize,
    name: &str,
    report: &mut Report,
) -> Result<()> {
    let home = server_args.temporary()?;
    let node = NodeSpec::new("serve", &["--commit-window", window]);
    let server = Server::start_node(server_args, home.path(), &node).await?;
    let client = server.connect().await?;
    let tables: Vec<String> = (0..tables).map(|n| format!("cpu{n}")).collect();
    let made = tables.iter().map(|table| {
        let sql = create_table(table, &args.partition);
        let client = client.clone();
        async move { client.execute(&sql).await }
    });
    stream::iter(made).buffer_unordered(TABLES_AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
    let batches = batches(args)?;

    let before = Counted::of(&server, home.path()).await?;
    let steady = Steady {
        tables: &tables,
        batches: &batches,
        rows_per_second: args.rate as f64,
        lasting: args.lasting,
    };
    let sent = steady.send(&server).await?;
    let after = Counted::of(&server, home.path()).await?;
    let rate = sent.rate(steady.rows_per_second)?;
    let Sent { rows, took, mut waits } = sent;
    if let [only] = tables.as_slice() {
        expect_rows(&client, only, usize::try_from(rows).unwrap_or(usize::MAX)).await?;
    }

    let millions = rows as f64 / 1e6;
    report.add(format!("{name}: rate"), rate, "rows/s");
    report.add(format!("{name}: acknowledged after, p50"), quantile(&mut waits, 0.5) * 1e3, "ms");
    report.add(format!("{name}: acknowledged after, p99"), quantile(&mut waits, 0.99) * 1e3, "ms");
    report.add(format!("{name}: server CPU"), (after.cpu - before.cpu) / millions, "s/Mrow");
    for (op, count) in grown(&before.requests, &after.requests) {
        report.add(format!("{name}: requests, {op}"), count / millions, "1/Mrow");
    }
    for (kind, bytes) in grown(&before.bytes, &after.bytes) {
        report.add(format!("{name}: written, {kind}"), bytes / 1e6 / millions, "MB/Mrow");
    }
    let requests = grown(&before.requests, &after.requests);
    let charged =
        |ops: &[&str]| ops.iter().filter_map(|op| requests.get(*op)).sum::<f64>() / took.as_secs_f64();
    let (puts, gets) = (charged(&PUT_OPERATIONS), charged(&GET_OPERATIONS));
    let dollars = |per_second: f64, price: f64| per_second * SECONDS_OF_MONTH / 1_000.0 * price;
    report.add(format!("{name}: charged as PUT"), puts, "1/s");
    report.add(format!("{name}: charged as GET"), gets, "1/s");
    report.add(format!("{name}: PUT of a month"), dollars(puts, PUT_PRICE), "$");
    report.add(format!("{name}: GET of a month"), dollars(gets, GET_PRICE), "$");
    Ok(())
}

fn batches(args: &WindowsArgs) -> Result<Vec<arrow::array::RecordBatch>> {
    let wanted = (args.rate as f64 * args.lasting.as_secs_f64()) as usize / args.batch_rows.max(1) + 1;
    let count = wanted.min(BATCHES_MAX);
    make(args.seed, args.hosts, count * args.batch_rows, args.batch_rows)
}

/// What a server has cost so far.
struct Counted {
    cpu: f64,
    /// By operation.
    requests: BTreeMap<String, f64>,
    /// Of the objects in the store, by the part of it that they lie in.
    bytes: BTreeMap<String, f64>,
}

impl Counted {
    async fn of(server: &Server, home: &Path) -> Result<Self> {
        let (cpu, requests) = (server.cpu()?, server.store_requests().await?);
        let store = store_dir(home);
        let mut bytes = BTreeMap::new();
        for entry in entries(&store)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Temporary files are no objects.
            if !name.starts_with('.') {
                bytes.insert(name, bytes_below(&entry)?);
            }
        }
        Ok(Self { cpu, requests, bytes })
    }
}

/// By how much numbers have grown; those that have not are left out.
fn grown(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let own = |key: &String, now: f64| now - before.get(key).copied().unwrap_or(0.0);
    let grown = after.iter().map(|(key, now)| (key.clone(), own(key, *now)));
    grown.filter(|(_, growth)| *growth > 0.0).collect()
}

fn entries(dir: &Path) -> Result<Vec<std::fs::DirEntry>> {
    let listed = std::fs::read_dir(dir).and_then(|entries| entries.collect());
    listed.map_err(|e| io_error(dir, &e))
}

fn bytes_below(entry: &std::fs::DirEntry) -> Result<f64> {
    let path = entry.path();
    let metadata = match entry.metadata() {
        // Replaced or removed while it was looked at.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0.0),
        metadata => metadata.map_err(|e| io_error(&path, &e))?,
    };
    if !metadata.is_dir() {
        return Ok(metadata.len() as f64);
    }
    entries(&path)?.iter().map(bytes_below).sum()
}
