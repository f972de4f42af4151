//! `tandem verify`: walks a database and says what is damaged or missing.

use std::io::Write;

use tandem_types::{Error, ErrorKind, Result};
use tandem_verify::{Report, verify};

use crate::bar::Bar;
use crate::place;

/// Walk a database, and name what is damaged or missing
///
/// Reads only, and needs no node: nodes may go on meanwhile. Without --full it looks at names and sizes of all objects, and at what
/// a node reads when it starts; with it, at every byte, every checksum and every row. Exits with 4 if anything is wrong.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  tandem verify --store ./tandem-data          names and sizes
  tandem verify --store s3://bucket/db --full  every byte")]
pub struct VerifyArgs {
    /// Store of the database
    #[arg(long, value_name = "URL", default_value = "./tandem-data")]
    pub store: String,
    /// Setting of the store's client; may be repeated
    #[arg(long = "store-option", value_name = "K=V")]
    pub store_options: Vec<String>,
    /// Read everything
    #[arg(long)]
    pub full: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: &VerifyArgs) -> Result<()> {
    let env = place::open(&args.store, &args.store_options).await?;
    let bar = Bar::new("looked at", args.json);
    let tell = |p: tandem_verify::Progress| bar.tell(p.objects_done, p.objects, p.bytes_read);
    let report = verify(&env, args.full, &tell).await;
    bar.end();
    let report = report?;
    let text = match args.json {
        true => serde_json::to_string(&report).map_err(|e| Error::internal(e.to_string()))?,
        false => in_words(&report),
    };
    // A closed pipe is no reason to say that the database is damaged.
    let _ = writeln!(std::io::stdout(), "{text}");
    match report.problems.len() {
        0 => Ok(()),
        1 => Err(Error::new(ErrorKind::Damaged, "1 object is damaged or missing")),
        many => Err(Error::new(ErrorKind::Damaged, format!("{many} findings of damaged or missing objects"))),
    }
}

fn in_words(report: &Report) -> String {
    let mut lines = Vec::new();
    for problem in &report.problems {
        lines.push(format!("{}: {}", problem.object, problem.what));
        for cost in &problem.costs {
            lines.push(format!(
                "    costs {} rows of table {}, partition {}",
                cost.rows, cost.table, cost.partition
            ));
        }
    }
    let seq = report.seq.map_or("no state can be made".to_owned(), |seq| format!("seq {seq}"));
    let read = match report.full {
        true => format!("{} rows and {} MiB read", report.rows_read, report.bytes_read >> 20),
        false => "names and sizes only, --full reads everything".to_owned(),
    };
    lines.push(format!("{}: {seq}, {} objects, {read}", report.store, report.objects));
    if report.unnamed_objects > 0 {
        lines.push(format!(
            "{} objects of {} MiB are named by nothing: tandem gc tells more",
            report.unnamed_objects,
            report.unnamed_bytes >> 20
        ));
    }
    lines.push(match report.is_intact() {
        true => "nothing is wrong".to_owned(),
        false => format!("{} rows are lost in what is named above", report.rows_lost()),
    });
    lines.join("\n")
}
