//! `tandem-bench`: measurements of a real server process, each on a database of its own.
//!
//! It promises that figures are printed only when every row sent was acknowledged, and that the
//! server and its directory are gone at the end. It refuses to judge the figures.

// Measuring is what this program is for: it reads real clocks.
#![allow(clippy::disallowed_methods)]

mod catch_up;
mod cluster;
mod contention;
mod failover;
mod ingest;
mod keyed;
mod lag;
mod latency;
mod lines;
mod load;
mod open;
mod plan;
mod process;
mod report;
mod scan;
mod server;
mod synthetic;
mod windows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arrow::ipc::writer::StreamWriter;
use clap::{Parser, Subcommand};
use tandem_types::{Error, Result};

use server::ServerArgs;

/// Measures a `tandem` server; prints a table, then one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "tandem-bench", version)]
struct Arguments {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Rows per second, CPU, store requests, memory, and bytes at rest
    Ingest(ingest::IngestArgs),
    /// Writes of one row, beside the disk alone
    Latency(latency::LatencyArgs),
    /// Line protocol: the parser alone, over HTTP, and beside Flight
    Lines(lines::LinesArgs),
    /// Queries over files and over the tail, beside plain DataFusion
    Scan(scan::ScanArgs),
    /// A key, and pending mutations, beside the same rows without
    Keyed(keyed::KeyedArgs),
    /// From a kill to the next request served
    Open(open::OpenArgs),
    /// Planning on a table of very many files
    Plan(plan::PlanArgs),
    Lag(lag::LagArgs),
    CatchUp(catch_up::CatchUpArgs),
    Failover(failover::FailoverArgs),
    Windows(windows::WindowsArgs),
    Contention(contention::ContentionArgs),
    /// Writes the workload into an Arrow IPC stream file, for other programs to measure with
    Rows {
        #[command(flatten)]
        workload: Workload,
        /// The file to make
        file: PathBuf,
    },
}

/// Which rows.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Workload {
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Series
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// In all
    #[arg(long, default_value_t = 5_000_000)]
    rows: usize,
    /// Of a batch
    #[arg(long, default_value_t = 10_000)]
    batch_rows: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let server = &arguments.server;
    let report = match arguments.measurement {
        Measurement::Ingest(args) => ingest::run(args, server).await?,
        Measurement::Latency(args) => latency::run(args, server).await?,
        Measurement::Lines(args) => lines::run(args, server).await?,
        Measurement::Scan(args) => scan::run(args, server).await?,
        Measurement::Keyed(args) => keyed::run(args, server).await?,
        Measurement::Open(args) => open::run(args, server).await?,
        Measurement::Plan(args) => plan::run(args).await?,
        Measurement::Lag(args) => lag::run(args, server).await?,
        Measurement::CatchUp(args) => catch_up::run(args, server).await?,
        Measurement::Failover(args) => failover::run(args, server).await?,
        Measurement::Windows(args) => windows::run(args, server).await?,
        Measurement::Contention(args) => contention::run(args).await?,
        Measurement::Rows { workload, file } => return write_rows(workload, &file),
    };
    report.print();
    Ok(())
}

fn write_rows(workload: Workload, path: &Path) -> Result<()> {
    let Workload { seed, hosts, rows, batch_rows } = workload;
    let batches = load::make(seed, hosts, rows, batch_rows)?;
    let file = std::fs::File::create(path).map_err(|e| server::io_error(path, &e))?;
    let write = || {
        let mut writer = StreamWriter::try_new_buffered(file, &tandem_benches::cpu::schema())?;
        for batch in &batches {
            writer.write(batch)?;
        }
        writer.finish()
    };
    write().map_err(|e| Error::unavailable(format!("{}: {e}", path.display())))
}
