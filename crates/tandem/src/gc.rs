//! Deleting what nothing needs any more, and saying what holds the rest.

use std::fmt::Write as _;
use std::io::Write;

use serde::Deserialize;
use serde_json::json;
use tandem_client::Client;
use tandem_types::{Error, Result};

use crate::target::Target;

/// Delete what nothing needs any more: objects that no kept snapshot names, old checkpoints, and the log behind them
///
/// Nodes do so by themselves, every ten minutes or so. How far the past is kept says the setting history_window; forks, running
/// queries and nodes that stand far back hold it back further. What was made less than six hours ago, by the log's age, or stored
/// less than an hour ago, stays in any case.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  tandem gc --dry-run                          what would go, and what holds the rest
  tandem gc --dry-run --store s3://bucket/db   the same without a server
  tandem sql -c \"SELECT * FROM system.gc\"      each object
  tandem gc                                    now, and not in the next ten minutes")]
pub struct GcArgs {
    /// Delete nothing: say what would go, and what holds the rest
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Deserialize)]
struct Answer {
    horizon: u64,
    history_start: u64,
    log_floor: u64,
    history_could_start: u64,
    history_held_by: Option<String>,
    garbage: Vec<Share>,
    held: Vec<Share>,
    deleted_objects: u64,
    deleted_bytes: u64,
    failed: Option<String>,
}

#[derive(Deserialize)]
struct Share {
    kind: String,
    held_by: Option<String>,
    objects: u64,
    bytes: u64,
}

/// Collects at the server of `urls`.
pub async fn run(args: &GcArgs, urls: &str) -> Result<()> {
    let client = Client::connect_with(urls, args.target.connect_options()?).await?;
    let body = json!({ "dry_run": args.dry_run }).to_string();
    for answer in client.action("tandem.Collect", body).await? {
        let text = String::from_utf8_lossy(answer.as_ref()).into_owned();
        let known: Answer = serde_json::from_str(&text)
            .map_err(|e| Error::internal(format!("the server answered in an unknown form: {e}")))?;
        let text = if args.json { text + "\n" } else { explained(&known, args.dry_run) };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .map_err(|e| Error::unavailable(format!("cannot write to standard output: {e}")))?;
        if let Some(why) = known.failed {
            return Err(Error::unavailable(format!("not everything could be deleted: {why}")));
        }
    }
    Ok(())
}

/// For people.
fn explained(answer: &Answer, dry_run: bool) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "history begins at seq {}; the log up to {} is not needed",
        answer.history_start, answer.log_floor
    );
    if let Some(holder) = &answer.history_held_by {
        let could = answer.history_could_start;
        let _ = writeln!(out, "{holder} holds history back: it could begin at {could}");
    }
    let _ = writeln!(out, "what is not in use and was made before seq {} may go", answer.horizon);
    let _ = writeln!(out, "\n{:<12} {:>10} {:>12}  held by", "kind", "objects", "bytes");
    for share in answer.garbage.iter().chain(&answer.held) {
        let free = if dry_run { "nothing: would be deleted" } else { "nothing: deleted" };
        let held_by = share.held_by.as_deref().unwrap_or(free);
        let _ =
            writeln!(out, "{:<12} {:>10} {:>12}  {held_by}", share.kind, share.objects, size(share.bytes));
    }
    let sum = |shares: &[Share]| shares.iter().fold((0, 0), |(n, b), s| (n + s.objects, b + s.bytes));
    let (objects, bytes) = sum(&answer.garbage);
    match dry_run {
        true => {
            let _ = writeln!(out, "\nwould delete {objects} objects, {}", size(bytes));
        }
        false => {
            let (objects, bytes) = (answer.deleted_objects, answer.deleted_bytes);
            let _ = writeln!(out, "\ndeleted {objects} objects, {}", size(bytes));
        }
    }
    out
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_and_what_stays_is_told_with_its_reason() {
        let share = |kind: &str, held_by: Option<&str>, objects, bytes| Share {
            kind: kind.to_owned(),
            held_by: held_by.map(str::to_owned),
            objects,
            bytes,
        };
        let answer = Answer {
            horizon: 90,
            history_start: 50,
            log_floor: 40,
            history_could_start: 80,
            history_held_by: Some("pin fork-1".to_owned()),
            garbage: vec![share("data", None, 3, 5 << 20)],
            held: vec![share("data", Some("pin fork-1"), 2, 700), share("log", Some("log"), 9, 9 << 10)],
            deleted_objects: 3,
            deleted_bytes: 5 << 20,
            failed: None,
        };
        let text = explained(&answer, true);
        for line in [
            "history begins at seq 50; the log up to 40 is not needed",
            "pin fork-1 holds history back: it could begin at 80",
            "data                  3      5.0 MiB  nothing: would be deleted",
            "data                  2        700 B  pin fork-1",
            "log                   9      9.0 KiB  log",
            "would delete 3 objects, 5.0 MiB",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(explained(&answer, false).contains("deleted 3 objects"));
    }
}
