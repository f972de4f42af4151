//! What a million rows cost: time, CPU, requests, memory, and bytes at rest.

use std::collections::BTreeMap;
use std::time::Instant;

use tandem_benches::cpu::create_table;
use tandem_types::Result;

use crate::Workload;
use crate::load::{expect_rows, make, one_number, put};
use crate::process::MemoryWatch;
use crate::report::Report;
use crate::server::{Server, ServerArgs};

#[derive(Clone, Debug, clap::Args)]
pub struct IngestArgs {
    #[command(flatten)]
    workload: Workload,
    /// Connections, each with one DoPut
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Unacknowledged batches of a connection
    #[arg(long, default_value_t = 1)]
    inflight: usize,
    /// Partition unit. Hours gather too few rows for compaction to run meanwhile: the costs come apart
    #[arg(long, default_value = "day")]
    partition: String,
}

pub async fn run(args: IngestArgs, server_args: &ServerArgs) -> Result<Report> {
    let Workload { seed, hosts, rows, batch_rows } = args.workload;
    let batches = make(seed, hosts, rows, batch_rows)?;
    let home = server_args.temporary()?;
    let server = Server::start(server_args, home.path()).await?;
    let client = server.connect().await?;
    client.execute(&create_table("cpu", &args.partition)).await?;

    let mut report = Report::new("ingest");
    let millions = rows as f64 / 1e6;
    let memory = MemoryWatch::start(server.pid());
    let (cpu_before, requests_before) = (server.cpu()?, server.store_requests().await?);
    let started = Instant::now();
    put(&server, "cpu", &batches, args.streams, args.inflight).await?;
    let took = started.elapsed().as_secs_f64();
    let (cpu_put, requests_put) = (server.cpu()?, server.store_requests().await?);
    let compacted = server.counter("tandem_compacted_rows_total").await?;
    let peak_put = memory.peak();

    let started = Instant::now();
    client.execute("OPTIMIZE TABLE cpu").await?;
    let optimize_took = started.elapsed().as_secs_f64();
    let (cpu_all, requests_all) = (server.cpu()?, server.store_requests().await?);
    expect_rows(&client, "cpu", rows).await?;
    let bytes = one_number(&client, "SELECT bytes FROM system.tables WHERE table_name = 'cpu'").await?;

    report.add("rows", rows as f64, "rows");
    report.add("streams", args.streams as f64, "");
    report.add("batches in flight per stream", args.inflight as f64, "");
    report.add("acknowledged", rows as f64 / took, "rows/s");
    report.add("server CPU until acknowledged", (cpu_put - cpu_before) / millions, "s/Mrow");
    report.add("rows compacted meanwhile", compacted, "rows");
    for (op, count) in &requests_put {
        // Whatever the node asked at its start does not count.
        let own = count - requests_before.get(op).copied().unwrap_or(0.0);
        if own > 0.0 {
            report.add(format!("store requests until acknowledged: {op}"), own / millions, "1/Mrow");
        }
    }
    report.add("OPTIMIZE: wall", optimize_took, "s");
    report.add("OPTIMIZE: server CPU", (cpu_all - cpu_put) / millions, "s/Mrow");
    report.add("total server CPU", (cpu_all - cpu_before) / millions, "s/Mrow");
    let sum = |requests: &BTreeMap<String, f64>| requests.values().sum::<f64>();
    report.add("store requests in total", (sum(&requests_all) - sum(&requests_before)) / millions, "1/Mrow");
    report.add("at rest, compacted", bytes / rows as f64, "B/row");
    report.add("peak anonymous memory until acknowledged", peak_put as f64 / 1e6, "MB");
    report.add("peak anonymous memory", memory.peak() as f64 / 1e6, "MB");
    Ok(report)
}
