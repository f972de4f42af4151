//! `tandem repair`: a new database of what is intact of a damaged one.

use std::io::Write;

use serde_json::json;
use tandem_copy::{Cost, Progress, Repaired, repair};
use tandem_env::Env;
use tandem_types::{Error, ErrorKind, Result};
use tandem_verify::verify;

use crate::bar::Bar;
use crate::place;

/// Make a new database of what is intact of a damaged one
///
/// Nothing of the damaged one is changed. The new one is the newest state that the intact part of the log leads to, without the
/// rows of the data files and segments that are damaged or missing. What is lost is told by name, with its rows. Try
/// `tandem restore` and the newest backup first: they bring back what a repair leaves out. Stop all nodes of the damaged
/// database before.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  tandem verify --store ./damaged --full                what is wrong
  tandem repair --store ./damaged --dry-run             what would be kept, and what is lost
  tandem repair --store ./damaged --to ./repaired       do it; interrupted, do it again
  tandem verify --store ./repaired --full               look at the result
  tandem serve --store ./repaired                       open it")]
pub struct RepairArgs {
    /// Store of the damaged database
    #[arg(long, value_name = "URL")]
    pub store: String,
    /// Store of the new one
    #[arg(long, value_name = "URL", required_unless_present = "dry_run")]
    pub to: Option<String>,
    /// Write nothing: read everything, and say what would be kept and what would be lost
    #[arg(long)]
    pub dry_run: bool,
    /// Setting of the stores' clients; may be repeated
    #[arg(long = "store-option", value_name = "K=V")]
    pub store_options: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: &RepairArgs) -> Result<()> {
    let from = place::open(&args.store, &args.store_options).await?;
    let to = match &args.to {
        Some(to) if place::absolute(to)? == place::absolute(&args.store)? => {
            return Err(Error::invalid(format!("{to} is the damaged database: give --to another place")));
        }
        Some(to) if !args.dry_run => Some((to, place::open_own(to, &args.store_options)?)),
        _ => None,
    };
    let bar = Bar::new(if to.is_some() { "copied" } else { "looked at" }, args.json);
    let tell = |p: Progress| bar.tell(p.objects_done, p.objects, p.bytes_done);
    let repaired = repair(&from, to.as_ref().map(|(_, env)| env), &tell).await;
    bar.end();
    let repaired = repaired?;
    if let Some((url, env)) = &to {
        check(url, env).await?;
    }
    let to = to.map(|(url, _)| url.as_str());
    let text = match args.json {
        true => json!({ "store": args.store, "to": to, "repaired": repaired }).to_string(),
        false => in_words(&repaired, &args.store, to),
    };
    writeln!(std::io::stdout(), "{text}")
        .map_err(|e| Error::unavailable(format!("cannot write to standard output: {e}")))
}

/// What was written is there.
async fn check(url: &str, env: &Env) -> Result<()> {
    let report = verify(env, false, &|_| {}).await?;
    match report.problems.first() {
        None => Ok(()),
        Some(problem) => Err(Error::new(
            ErrorKind::Damaged,
            format!("the new database in {url} is not whole: {} {}", problem.object, problem.what),
        )),
    }
}

fn in_words(repaired: &Repaired, store: &str, to: Option<&str>) -> String {
    let mut lines = Vec::new();
    for lost in &repaired.lost {
        lines.push(format!("{}: {}", lost.object, lost.what));
        lines.extend(lost.costs.iter().map(|cost| format!("    costs {}", rows(cost))));
    }
    if let Some(commits) = &repaired.lost_commits {
        let many = commits.last - commits.first + 1;
        let (first, last) = (commits.first, commits.last);
        lines.push(match many {
            1 => format!("commit {first} cannot be applied: {}", commits.why),
            _ => format!("commits {first} to {last} cannot be applied: {}", commits.why),
        });
        lines.push(format!(
            "    {} of {many} cannot be read at all: what they held is not known",
            commits.unreadable
        ));
        lines.extend(commits.costs.iter().map(|cost| format!("    costs {}", rows(cost))));
    }
    let kept = &repaired.kept;
    let what = format!("{} tables and {} rows as of seq {}", kept.tables, kept.rows, kept.seq);
    lines.push(match repaired.is_whole() {
        true => format!("nothing of {store} is lost"),
        false => format!("{} rows are known to be lost", repaired.rows_lost()),
    });
    lines.push(match to {
        None => format!("a repair would keep {what}; nothing was written"),
        Some(to) => format!(
            "{to} holds {what}: {} of {} objects fetched, {} MiB; {store} is as it was\ntandem serve --store {to} opens it",
            kept.objects_fetched,
            kept.objects,
            kept.bytes_fetched >> 20
        ),
    });
    lines.join("\n")
}

fn rows(cost: &Cost) -> String {
    let mut text = format!("{} rows of table {}", cost.rows, cost.table);
    if let Some(partition) = &cost.partition {
        text += &format!(", partition {partition}");
    }
    if let (Some(from), Some(to)) = (&cost.from, &cost.to) {
        text += &format!(", from {from} to {to}");
    }
    text
}

#[cfg(test)]
mod tests {
    use tandem_copy::{Copied, LostCommits, LostObject};

    use super::*;

    #[test]
    fn what_is_kept_and_what_is_lost_is_told() {
        let cost = |partition: Option<&str>, rows| Cost {
            table: "t".to_owned(),
            partition: partition.map(str::to_owned),
            rows,
            from: Some("2024-01-01T00:00:00Z".to_owned()),
            to: Some("2024-01-01T09:00:00Z".to_owned()),
        };
        let lost = LostObject {
            object: "data/1/x.parquet".to_owned(),
            what: "is missing".to_owned(),
            costs: vec![cost(Some("2024-01-01"), 7)],
        };
        let commits = LostCommits {
            first: 8,
            last: 9,
            why: "log/8 is missing".to_owned(),
            unreadable: 1,
            costs: vec![cost(None, 2)],
        };
        let kept = Copied {
            database: "d".to_owned(),
            seq: 7,
            commit_time: 0,
            tables: 1,
            rows: 90,
            objects: 3,
            objects_fetched: 2,
            bytes_fetched: 5 << 20,
        };
        let repaired = Repaired { kept, lost: vec![lost], lost_commits: Some(commits) };
        let text = in_words(&repaired, "./a", Some("./b"));
        let span = "from 2024-01-01T00:00:00Z to 2024-01-01T09:00:00Z";
        for line in [
            "data/1/x.parquet: is missing",
            &format!("    costs 7 rows of table t, partition 2024-01-01, {span}"),
            "commits 8 to 9 cannot be applied: log/8 is missing",
            "    1 of 2 cannot be read at all: what they held is not known",
            &format!("    costs 2 rows of table t, {span}"),
            "9 rows are known to be lost",
            "./b holds 1 tables and 90 rows as of seq 7: 2 of 3 objects fetched, 5 MiB; ./a is as it was",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(in_words(&repaired, "./a", None).contains("would keep 1 tables"));
    }
}
