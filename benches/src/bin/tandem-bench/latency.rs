//! How long a small write takes, beside what the disk alone takes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use tandem_benches::cpu::{create_table, schema};
use tandem_types::Result;

use crate::load::{Turns, make};
use crate::report::{Report, quantile};
use crate::server::{Server, ServerArgs, io_error};

#[derive(Clone, Debug, clap::Args)]
pub struct LatencyArgs {
    /// Writes of one row, one after another
    #[arg(long, default_value_t = 1_000)]
    writes: usize,
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Writes that nobody measures, before: connections, caches and directories are made on the first ones.
const WARM_UP: usize = 20;

pub async fn run(args: LatencyArgs, server_args: &ServerArgs) -> Result<Report> {
    let rows = make(args.seed, 100, args.writes + WARM_UP, 1)?;
    let home = server_args.temporary()?;
    let server = Server::start(server_args, home.path()).await?;
    let client = server.connect().await?;
    client.execute(&create_table("cpu", "DAY")).await?;
    let plain = home.path().join("plain");
    std::fs::create_dir(&plain).map_err(|e| io_error(&plain, &e))?;

    let mut report = Report::new("latency");
    let mut turns = Turns::open(&client, "cpu", schema()).await?;
    let (mut acknowledged, mut synced) = (Vec::new(), Vec::new());
    // In turn, so that both meet the same moments of a shared machine.
    for (number, row) in rows.into_iter().enumerate() {
        let bytes = row.get_array_memory_size().min(4096);
        let started = Instant::now();
        turns.write(row).await?;
        let took = started.elapsed().as_secs_f64();

        let started = Instant::now();
        durable_file(&plain, number, bytes)?;
        let synced_in = started.elapsed().as_secs_f64();
        if number >= WARM_UP {
            acknowledged.push(took);
            synced.push(synced_in);
        }
    }
    turns.finish().await?;

    report.add("writes of one row", args.writes as f64, "");
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        let (write, disk) = (quantile(&mut acknowledged, share), quantile(&mut synced, share));
        report.add(format!("acknowledged, {name}"), write * 1e3, "ms");
        report.add(format!("create, fsync, fsync of the directory, {name}"), disk * 1e3, "ms");
        report.add(format!("ratio, {name}"), write / disk.max(f64::MIN_POSITIVE), "");
    }
    Ok(report)
}

/// A new file whose bytes and name survive a crash: the least that a durable write can cost.
fn durable_file(dir: &Path, number: usize, bytes: usize) -> Result<()> {
    let path = dir.join(number.to_string());
    let write = || {
        let mut file = File::create_new(&path)?;
        file.write_all(&vec![7; bytes])?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| io_error(&path, &e))
}
