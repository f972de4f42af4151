//! How long a killed node takes to serve again.

use tandem_benches::cpu::create_table;
use tandem_types::Result;

use crate::load::{expect_rows, make, put};
use crate::report::Report;
use crate::server::{Server, ServerArgs};

#[derive(Clone, Debug, clap::Args)]
pub struct OpenArgs {
    /// Commits in the log, each of one row
    #[arg(long, default_value_t = 20_000)]
    commits: usize,
    /// How many of them come after the last checkpoint
    #[arg(long, default_value_t = 200)]
    after_checkpoint: usize,
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub async fn run(args: OpenArgs, server_args: &ServerArgs) -> Result<Report> {
    let mut report = Report::new("open");
    let home = server_args.temporary()?;
    let server = Server::start(server_args, home.path()).await?;
    report.add("ready on an empty directory", server.ready_after.as_secs_f64() * 1e3, "ms");

    let client = server.connect().await?;
    client.execute(&create_table("cpu", "DAY")).await?;
    let rows = make(args.seed, 100, args.commits, 1)?;
    let split = args.commits.saturating_sub(args.after_checkpoint);
    let (early, late) = rows.split_at_checked(split).unwrap_or((&rows, &[]));
    // One at a time: several would share a commit.
    put(&server, "cpu", early, 1, 1).await?;
    client.execute("CHECKPOINT").await?;
    put(&server, "cpu", late, 1, 1).await?;
    server.kill().await?;

    let server = Server::start(server_args, home.path()).await?;
    let (cpu, requests) = (server.cpu()?, server.store_requests().await?);
    report.add("commits", args.commits as f64, "");
    report.add("commits after the checkpoint", late.len() as f64, "");
    report.add("ready after a kill", server.ready_after.as_secs_f64() * 1e3, "ms");
    report.add("server CPU until ready", cpu * 1e3, "ms");
    for (op, count) in &requests {
        report.add(format!("store requests until ready: {op}"), *count, "");
    }
    expect_rows(&server.connect().await?, "cpu", args.commits).await?;
    Ok(report)
}
