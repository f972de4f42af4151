//! Writers that all race for the log, and writers that one of them commits for, in simulated time.

use std::time::Duration;

use tandem_benches::contention::{Setup, measure};
use tandem_types::{Error, Result};

use crate::report::Report;

/// Many writers of one log: racing, and with a sequencer, in simulated time
#[derive(Clone, Debug, clap::Args)]
pub struct ContentionArgs {
    /// Writers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    writers: Vec<usize>,
    /// Milliseconds that the store takes for each request
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 100])]
    latency_ms: Vec<u64>,
    /// Clients of each writer, each of whom waits for his answer
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Simulated seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub async fn run(args: ContentionArgs) -> Result<Report> {
    // It has a runtime of its own, in which time does not go by itself.
    let measured = tokio::task::spawn_blocking(move || table(&args)).await;
    measured.map_err(|e| Error::internal(format!("the measurement gave up: {e}")))?
}

fn table(args: &ContentionArgs) -> Result<Report> {
    let mut report = Report::new("contention, in simulated time");
    for latency in &args.latency_ms {
        for writers in &args.writers {
            let mut rates = Vec::new();
            for sequencer in [false, true] {
                let (writers, clients) = (*writers, args.clients);
                let (latency, time) = (Duration::from_millis(*latency), Duration::from_secs(args.seconds));
                let outcome = measure(Setup { writers, clients, latency, sequencer, time })?;
                let how = if sequencer { "sequencer" } else { "racing" };
                println!("{writers:2} writers, {latency:>5?}, {how:9}  {outcome}");
                rates.push(outcome.per_second);
                let name = format!("{writers} writers at {latency:?}, {how}");
                report.add(format!("{name}: transactions"), outcome.per_second, "/s");
                report.add(format!("{name}: p50"), outcome.p50.as_secs_f64() * 1e3, "ms");
                report.add(format!("{name}: p99"), outcome.p99.as_secs_f64() * 1e3, "ms");
                report.add(format!("{name}: PUTs"), outcome.puts_per_transaction, "per transaction");
            }
            if let [racing, sequenced] = rates.as_slice() {
                let name = format!("{writers} writers at {latency} ms: sequencer to racing");
                report.add(name, sequenced / racing.max(f64::MIN_POSITIVE), "times");
            }
        }
    }
    Ok(report)
}
